"""The page of the leakage report, a Jinja2 template; in a module, because the package travels as a zip of modules."""

from typing import Final

PAGE: Final = """\
{% extends "base" %}
{% from "parts" import banner, figure %}
{% macro vectors(rows, first, second) %}
<div class="wide"><table><tr><th class="n">vectors</th><th>{{ first }}</th><th>{{ second }}</th></tr>
{% for a, b, n in rows[:30] %}
<tr><td class="n">{{ n | n }}</td><td>{{ a }}</td><td>{{ b }}</td></tr>
{% endfor %}
</table></div>
{% if rows | length > 30 %}<p>{{ rows | length - 30 }} more pairs stand in leakage.parquet.</p>{% endif %}
{% endmacro %}
{% block title %}Duplicates and leakage: {{ f.schema.name }}, {{ data_origin }}{% endblock %}
{% block body %}
{{ banner(data_origin) }}
<h1>Duplicates and leakage: {{ f.schema.name }}</h1>
<p class="facts">{{ data_origin }} flows, {{ f.schema.features | length }} features, run {{ run_id }}</p>
<ul>
{% for sentence in f.summary() %}
<li>{{ sentence }}</li>
{% endfor %}
</ul>

<h2>What one feature gives away</h2>
<p>AUC of a single feature between two classes of train, duplicates left out, at most {{ f.plan.sample_rows | n }} rows
of each: 0.5 tells nothing, 1 separates them. <b>By order</b>, a larger value means the one class. <b>By ranges</b>, any
set of ranges may mean it, as a tree or a network can learn; it also sees a class whose values lie between those of the
other. Features in <span class="mark">red</span> are artefacts of the capture (its day, the length of a window), repeat
another or never vary; the operational feature_set leaves them out.</p>
{% if artefacts and f.measured %}
<div class="wide"><table>
<tr><th>feature</th><th>separates best</th><th class="n">by ranges</th><th class="n">by order</th></tr>
{% for name, t in artefacts %}
<tr><td class="mark">{{ name }}</td><td>{{ t.pair[0] }}<br>{{ t.pair[1] }}</td>
<td class="n">{{ t.ranges | f4 }}</td><td class="n">{{ t.order | f4 }}</td></tr>
{% endfor %}
</table></div>
{% endif %}
{% if f.measured %}
<h2>Best feature of each pair</h2>
<div class="wide"><table>
<tr><th>classes</th><th>best</th><th class="n">by ranges</th><th class="n">by order</th>
<th>best that is not red</th><th class="n">by ranges</th></tr>
{% for pair in f.measured %}
{% set top = f.best(pair) %}{% set rest = f.best(pair, honest=True) %}
<tr><td>{{ pair[0] }}<br>{{ pair[1] }}</td>
<td{% if top.feature in f.schema.artefacts %} class="mark"{% endif %}>{{ top.feature }}</td>
<td class="n">{{ top.ranges | f4 }}</td><td class="n">{{ top.order | f4 }}</td>
<td>{{ rest.feature }}</td><td class="n">{{ rest.ranges | f4 }}</td></tr>
{% endfor %}
</table></div>
{% endif %}
{% if f.absent %}
<p>Not measured, because train has no flow of a class:</p>
<ul class="facts">
{% for pair, missing in f.absent %}
<li>{{ pair[0] }} | {{ pair[1] }}: no {{ missing | join(", ") }}</li>
{% endfor %}
</ul>
{% endif %}
{{ figure(pictures.get("auc_ranges"), "AUC by ranges of values, feature by class pair, highest mean on top") }}
{{ figure(pictures.get("auc_order"), "AUC by order of values, features in the same places; where only the picture "
 ~ "above is bright, a look at the order alone misses the leak") }}

<h2>Duplicates</h2>
<p>Rows that repeat an earlier row of their split in every feature and the label: in double, as the source prints its
numbers, and after a cast to float32, where values beyond its range become infinite and so equal. Deduplicate in double:
whatever float32 adds are different flows.</p>
{{ figure(pictures.get("duplicates"), "Duplicates by class and precision, with their share of its flows; "
 ~ "logarithmic scale") }}
{% for split in splits %}
<h3>{{ split }}</h3>
<div class="wide"><table>
<tr><th>class</th><th class="n">flows</th><th class="n">double</th><th class="n">float32</th></tr>
{% for name in classes if f.count("flows", split, name) %}
<tr><td>{{ name }}</td><td class="n">{{ f.count("flows", split, name) | n }}</td>
<td class="n">{{ f.count("duplicates_double", split, name) | n }}</td>
<td class="n">{{ f.count("duplicates_float32", split, name) | n }}</td></tr>
{% endfor %}
<tr><th>all</th><th class="n">{{ f.total("flows", split) | n }}</th>
<th class="n">{{ f.total("duplicates_double", split) | n }}</th>
<th class="n">{{ f.total("duplicates_float32", split) | n }}</th></tr>
</table></div>
{% endfor %}

<h2>Vectors in both train and test</h2>
<p>{{ f.count("shared_double") | n }} in double, {{ f.count("shared_float32") | n }} at float32, by 64-bit hash.</p>
{% if f.pairs_of("shared_double", none) %}
{{ vectors(f.pairs_of("shared_double", none), "label in test", "label in train") }}
{% endif %}

<h2>Vectors with two labels</h2>
{% for split in splits %}
<p>{{ split }}: {{ f.count("two_label_double", split) | n }} in double, {{ f.count("two_label_float32", split) | n }} at
float32.</p>
{% if f.pairs_of("two_label_double", split) %}
{{ vectors(f.pairs_of("two_label_double", split), "label", "other label") }}
{% endif %}
{% endfor %}

<h2>Spread of every feature</h2>
<p>Population standard deviation over the distinct rows of train, smallest first; infinities count as the nearest finite
extreme. At or below {{ f.plan.min_std | g }} a feature is dropped.</p>
<div class="wide"><table>
<tr><th>feature</th><th class="n">standard deviation</th><th class="n">infinite</th><th></th></tr>
{% for name in features %}
<tr><td{% if name in f.schema.artefacts %} class="mark"{% endif %}>{{ name }}</td>
<td class="n">{{ f.of_feature("std", name) | g }}</td><td class="n">{{ f.of_feature("infinite", name) | g }}</td>
<td>{% if f.of_feature("dropped", name) == 1 %}dropped{% endif %}</td></tr>
{% endfor %}
</table></div>
{% endblock %}
"""
