"""The lower half of a night's page, a Jinja2 template: what its answers rest on."""

from typing import Final

MACROS: Final = """\
{% macro drifted(rows) %}
<div class="wide"><table class="few">
<tr><th>feature</th><th class="n">PSI</th><th>band</th><th class="n">below train</th><th class="n">above train</th>
<th class="n">infinite</th></tr>
{% for d in rows %}
<tr><td class="long">{{ d.name }} <small>{{ w.FEATURES.get(d.name, "") }}</small></td>
<td class="n">{{ w.index(d.psi) }}</td><td class="band-{{ d.drift_level }}">{{ d.drift_level | replace("_", " ") }}</td>
<td class="n">{{ number(d.below_range) }}</td><td class="n">{{ number(d.above_range) }}</td>
<td class="n">{{ number(d.saturated) }}</td></tr>
{% endfor %}
</table></div>
{% endmacro %}
"""
DETAILS: Final = """\
<h2 id="quality">What came in</h2>
<p>{{ champion.rows_in | n }} flows in = {{ champion.rows_scored | n }} scored + {{ champion.rows_quarantined | n }}
quarantined, from {{ w.counted(champion.files | length, "file") }}.</p>
{% if night.refused_files %}
<div class="wide"><table>
<caption>Files that could not be read</caption>
<tr><th>file</th><th>reason</th><th class="n">flows</th></tr>
{% for file in night.refused_files %}
<tr><td class="long">{{ file.name }}</td>
<td class="long">{{ file.reason }} <small>{{ w.FAULTS.get(file.reason, "") }}</small></td>
<td class="n">{{ file.rows | n if file.rows else "?" }}</td></tr>
{% endfor %}
</table></div>
{% endif %}
{% for title, rows, key in (("Quarantined", champion.quarantine, "reason"), ("Scored, but odd", champion.warnings,
"rule")) if rows %}
<div class="wide"><table>
<caption>{{ title }}</caption>
<tr><th>{{ key }}</th><th class="n">flows</th><th class="n">share</th></tr>
{% for row in rows | sort(attribute="rows", reverse=true) %}
<tr><td class="long">{{ row[key] }} <small>{{ w.FAULTS.get(row[key], "") }}</small></td>
<td class="n">{{ row.rows | n }}</td><td class="n">
{{ w.percent(row.rows / champion.rows_in) }}</td></tr>
{% endfor %}
</table></div>
{% endfor %}
<ul>
<li>{{ w.counted(champion.rows_late, "flow") if champion.rows_late else "No flow" }} came late: after this
date was first scored.</li>
<li>{{ w.counted(champion.rows_of_another_date, "flow") if champion.rows_of_another_date else "No flow" }} carried
another date.</li>
<li>{% if champion.extra_columns %}{{ w.counted(champion.extra_columns | length, "column") }} that no model uses:
{{ champion.extra_columns | join(", ") }}{% else %}No column that no model uses{% endif %}.</li>
</ul>

<h2 id="drift">Drift</h2>
{% set features, mix = night.drifts("feature"), night.drifts("class_mix") %}
{% if features %}
<p>{{ bands | join(", ") | replace("_", " ") }}{% if mix %}; the mix of predicted classes:
{{ mix[0].drift_level | replace("_", " ") }} (PSI {{ w.index(mix[0].psi) }}){% endif %}. Advisory: nothing was withheld. PSI,
the population stability index, compares the night's flows with train; from 0.1 it is moderate, above 0.25 significant.
</p>
{{ drifted(features[:worst]) }}
{{ figure(pictures.get("drift"), "Share of flows in each bin of a feature, in train and tonight, for the features that "
 ~ "drifted most; numbers below are borders of bins in the feature's own unit") }}
{% if features | length > worst %}
<details><summary>The other {{ features | length - worst }} features</summary>{{ drifted(features[worst:]) }}</details>
{% endif %}
{% else %}
<p>Unknown: no flow was compared with train.</p>
{% endif %}

{% if challenger %}
<h2 id="models">Champion and challenger</h2>
<p>The champion is {{ champion.model }} {{ champion.model_version }}, the challenger {{ challenger.model }}
{{ challenger.model_version }}. All else on this page is the champion's.</p>
<div class="wide"><table>
<tr><th></th><th class="n">champion</th><th class="n">challenger</th></tr>
{% for key, title in (("incidents", "incidents"), ("flows_flagged", "flows flagged"), ("expected_false_alarms",
"false alarms expected"), ("false_alarms_at_most", "at most"), ("drift_significant", "features drifted significantly"),
("seconds", "seconds")) %}
<tr><td>{{ title }}</td><td class="n">{{ number(champion[key]) }}</td><td class="n">{{ number(challenger[key]) }}</td>
</tr>
{% endfor %}
</table></div>
{% if agreement %}
<p>Flows {% for what, n in agreement.items() %}{{ what }}: {{ n | n }}{{ ", " if not loop.last else "." }}
{% endfor %}</p>
{% endif %}
<details><summary>Flows by class that both models tell apart</summary>
<div class="wide"><table>
<tr><th>class</th><th class="n">champion</th><th class="n">challenger</th><th class="n">difference</th></tr>
{% for name, ours, theirs in differences %}
<tr><td>{{ name }}</td><td class="n">{{ ours | n }}</td><td class="n">{{ theirs | n }}</td>
<td class="n">{{ "{:+,}".format(theirs - ours) | replace("-", "−") }}</td></tr>
{% endfor %}
</table></div></details>
{% endif %}

<h2 id="week">Seven nights</h2>
{{ figure(pictures.trend, "Each night by its day of the month; hatched: not scored. Each panel has its own scale") }}
<div class="wide"><table class="few">
<tr><th>night</th>{% for title in trend_figures.values() %}<th class="n">{{ title }}</th>{% endfor %}
<th>version</th></tr>
{% for date, row in night.trend.items() %}
{% if row %}
<tr><td>{{ date }}</td>{% for key in trend_figures %}<td class="n">{{ number(row[key]) }}</td>{% endfor %}
<td>{{ row.model_version }}</td></tr>
{% else %}
<tr class="gap"><td>{{ date }}</td><td colspan="{{ trend_figures | length + 1 }}">not scored</td></tr>
{% endif %}
{% endfor %}
</table></div>
{% if changes %}
<p>The champion changed within these nights: figures of {{ changes | join(", ") }} are of another model.</p>
{% endif %}

<h2 id="in-use">In use</h2>
<div class="wide"><table>
{% for name, text in in_use.items() %}
<tr><th>{{ name }}</th><td class="long">{{ text }}</td></tr>
{% endfor %}
</table></div>
{% for state, entries in allowed.items() if entries %}
<div class="wide"><table>
<caption>Allow-list: {{ w.counted(entries | length, "entry", "entries") }} {{ state }}</caption>
<tr>{% for key in columns %}<th>{{ key | replace("_", " ") }}</th>{% endfor %}</tr>
{% for entry in entries %}
<tr>{% for key in columns %}<td class="long">{{ entry.get(key, "") }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
{% else %}
<p>No allow-list entry is in force.</p>
{% endfor %}
"""
