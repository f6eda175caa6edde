"""The page of the scored models, a Jinja2 template; in a module, because the package travels as a zip of modules."""

from typing import Final

PAGE: Final = """\
{% extends "base" %}
{% from "parts" import banner, figure %}
{% block title %}Models on {{ split }}, {{ origins | join(" and ") }}{% endblock %}
{% block style %}
body { max-width: 72rem; }
h3 { margin: 2rem 0 .25rem; overflow-wrap: anywhere; }
.models th { white-space: normal; vertical-align: bottom; }
.models th, .models td { padding: .25rem .45rem; }
.models td:first-child, .models th:first-child { position: sticky; left: 0; background: #fff; white-space: normal;
overflow-wrap: anywhere; min-width: 7.5rem; }
.models th:first-child { background: #f4f4f7; }
.models .best td { background: #e4f1e6; }
.badge { background: #2e7d32; color: #fff; font-size: .7rem; font-weight: 700; padding: .05rem .35rem;
border-radius: .6rem; margin-left: .2rem; }
section ul { max-width: 50rem; }
.pictures { display: flex; flex-wrap: wrap; gap: 0 1.5rem; align-items: flex-start; }
.pictures figure { flex: 0 1 var(--width); min-width: 0; max-width: 100%; }
.pictures > div { max-width: 100%; }
@media (max-width: 32rem) { details { padding: 0 .4rem .4rem; } .models th, .models td { padding: .25rem; } }
details { border: 1px solid #d5d5db; border-radius: .3rem; padding: 0 .75rem .75rem; }
details:not([open]) { padding-bottom: 0; }
summary { cursor: pointer; padding: .6rem 0; font-weight: 600; color: #1f5fa8; }
caption { text-align: left; font-weight: 700; padding: .75rem 0 .25rem; }
.up { font-size: .85rem; }
{% endblock %}
{% block body %}
{% if origins | length > 1 %}
<p class="synthetic">SYNTHETIC AND MEASURED FLOWS: the rows of models marked synthetic were generated. Their figures say
nothing about real traffic and must not be compared with the others.</p>
{% else %}
{{ banner(origins[0]) }}
{% endif %}
<h1 id="top">Models on split {{ split }}</h1>
<p class="facts">{{ origins | join(" and ") }} flows, split {{ split }}, scored by {{ "run" if scored | length == 1
else "runs" }} {{ scored | join(", ") }}, report {{ run_id }}</p>
<div class="wide"><table class="models">
<tr><th>model</th><th>feature_set</th>{% for heading, form in figures.values() %}<th class="n">{{ heading }}</th>
{% endfor %}</tr>
{% for classes, models in levels %}
<tr class="level"><th>{{ classes }} classes</th><th colspan="{{ figures | length + 1 }}"></th></tr>
{% for m in models %}
{% set best = "f1_macro" in m.averages and m.averages["f1_macro"] == winners[classes]["f1_macro"] %}
<tr{% if best %} class="best"{% endif %}><td><a href="#{{ file_name(m, "model") }}">{{ m.title }}</a>
{% if best %}<span class="badge">best</span>{% endif %}
{% if origins | length > 1 %}<span class="mark">{{ m.data_origin }}</span>{% endif %}</td>
<td>{{ m.feature_set }}</td>
{% for key in figures %}
{% set top = key in winners[classes] and m.averages.get(key) == winners[classes][key] %}
<td class="n">{% if top %}<b>{{ cell(m, key) }}</b>{% else %}{{ cell(m, key) }}{% endif %}</td>
{% endfor %}
</tr>
{% endfor %}
{% endfor %}
</table></div>
<p class="facts">Newest run of each model. Best: highest macro F1 at that number of classes; bold: best of the column.
Benign FPR, the benign false-positive rate, is the share of benign windows that raise an alarm; accuracy hides it.
Seconds are those of training alone; – is unknown.</p>

{% for classes, models in levels %}
<h2>{{ classes }} classes</h2>
{% for m in models %}
<section>
<h3 id="{{ file_name(m, "model") }}">{{ m.title }}, {{ classes }} classes, {{ m.feature_set }}</h3>
<p class="facts">{{ m.data_origin }}, version {{ m.version or "–" }}, scored by {{ m.run_id }}</p>
<ul>
{% for sentence in sentences(m) %}
<li>{{ sentence }}</li>
{% endfor %}
</ul>
<details>
<summary>Pictures and figures by class</summary>
<div class="pictures">
{{ figure(pictures.get(file_name(m, "curves")), "Learning curves of " ~ m.name ~ "; the weights of the best epoch were "
 ~ "kept. Training loss is measured with dropout and label smoothing, validation loss without") }}
{{ figure(pictures.get(file_name(m, "classes")), "Precision, recall, F1 and support by class of " ~ m.name) }}
{{ figure(pictures.get(file_name(m, "shares")), "Confusion matrix of " ~ m.name ~ ": percent of each label's windows; "
 ~ "white is none, cells below " ~ least_percent ~ " % carry no figure, grey rows are labels without a window") }}
{{ figure(pictures.get(file_name(m, "counts")), "Confusion matrix of " ~ m.name ~ ": windows; colours are logarithmic, "
 ~ "white is none, grey rows are labels without a window") }}
</div>
<div class="pictures">
{% if m.scores %}
<div class="wide"><table>
<caption>By class</caption>
<tr><th>class</th><th class="n">precision</th><th class="n">recall</th><th class="n">F1</th><th class="n">support</th>
</tr>
{% for name, of_class in m.scores.items() %}
<tr><td>{{ name }}</td><td class="n">{{ of_class.precision | f4 }}</td><td class="n">{{ of_class.recall | f4 }}</td>
<td class="n">{{ of_class.f1 | f4 }}</td><td class="n">{{ of_class.support | n }}</td></tr>
{% endfor %}
</table></div>
{% endif %}
{% if confusions(m) %}
<div class="wide"><table>
<caption>Confused most often</caption>
<tr><th>label</th><th>predicted</th><th class="n">windows</th><th class="n">of</th></tr>
{% for c in confusions(m)[:12] %}
<tr><td>{{ c.label }}</td><td>{{ c.predicted }}</td><td class="n">{{ c.rows | n }}</td>
<td class="n">{{ c.support | n }}</td></tr>
{% endfor %}
</table></div>
{% endif %}
</div>
</details>
<p class="up"><a href="#top">to the table</a></p>
</section>
{% endfor %}
{% endfor %}
{% endblock %}
"""
