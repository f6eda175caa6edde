"""The upper half of a night's page, a Jinja2 template: three answers, incidents, hours, false alarms."""

from typing import Final

from ids_spark.report.night_details import DETAILS, MACROS

_HEAD: Final = """\
{% extends "base" %}
{% from "parts" import banner, figure %}
{% macro badge(severity, n="") %}<span class="badge" style="--severity: {{ colour(severity) }}">{{ n }}
{{ severity }}</span>
{% endmacro %}
{% macro incidents(rows) %}
<table class="incidents">
<tr><th>#</th><th>severity</th><th>class</th><th>who</th><th>seen, UTC</th><th class="n">flows</th>
<th class="n">score</th><th>why</th></tr>
{% for i in rows %}
<tr id="incident-{{ i.rank }}" style="--severity: {{ colour(i.severity) }}"><td class="rank">{{ i.rank }}</td>
<td class="severity">{{ badge(i.severity) }}</td>
<td class="class">{{ i.class_name }}</td>
<td class="who"><b><bdi>{{ i.entity }}</bdi></b> <small>{{ i.entity_kind }}</small></td>
<td class="seen">{{ seen(i) }}</td>
<td class="n flows">{{ i.flows | n }}<span class="unit"> flow{{ "" if i.flows == 1 else "s" }}</span></td>
<td class="n score"><span class="unit">score </span>{{ w.probability(i.max_attack_logit) }}
<small>{{ number(i.max_attack_logit) }}</small></td>
<td class="why">{% for entry in i.top_attributions or () %}<span>{{ reason(entry) }}</span>{% else %}–{% endfor %}</td></tr>
{% endfor %}
</table>
{% endmacro %}
"""
_UPPER: Final = """\
{% block title %}{{ f.verdict(night) }}, night of {{ night.event_date }}{% endblock %}
{% block style %}
body { max-width: 72rem; }
h1 { margin-top: 0; overflow-wrap: anywhere; }
.date { margin: .25rem 0 0; color: #55555c; }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(17rem, 100%), 1fr)); gap: .6rem; }
.answers section { border-left: .4rem solid var(--severity); background: #f7f7fa; padding: .5rem .75rem; min-width: 0;
overflow-wrap: anywhere; }
.answers h2 { font-size: .8rem; border: 0; margin: 0; padding: 0; color: #55555c; font-weight: 600; }
.answers p { margin: .1rem 0 .3rem; font-size: .9rem; line-height: 1.4; }
.answers ul, .answers ol { margin: .2rem 0 0; padding: 0; list-style: none; font-size: .85rem; }
.answers li { margin-bottom: .25rem; }
.answers .short { font-weight: 700; font-size: 1.1rem; }
.time { white-space: nowrap; }
.badge { background: #fff; border: 2px solid var(--severity); border-left-width: .7rem; border-radius: .25rem;
font-size: .75rem; font-weight: 700; padding: 0 .35rem; white-space: nowrap; }
nav { margin: .75rem 0 0; font-size: .85rem; }
nav a { display: inline-block; padding: .25rem .6rem .25rem 0; }
body > p:not(.synthetic) { max-width: 50rem; overflow-wrap: anywhere; }
.synthetic { margin: 0 0 .5rem; }
.incidents { white-space: normal; width: 100%; }
.incidents td { overflow-wrap: anywhere; }
.incidents td:first-child { border-left: .4rem solid var(--severity); }
.incidents .who { min-width: 7rem; max-width: 18rem; }
.incidents .rank, .incidents .class, .incidents .seen, .incidents .n { white-space: nowrap; }
td, li { unicode-bidi: isolate; }
.incidents .why { min-width: 12rem; }
.incidents .why span { display: block; }
.incidents .unit { display: none; }
small { color: #55555c; }
.long { white-space: normal; overflow-wrap: anywhere; min-width: 7rem; max-width: 26rem; }
.long small { display: block; }
.few th { white-space: normal; vertical-align: bottom; }
.pictures { display: flex; flex-wrap: wrap; gap: 0 2rem; align-items: flex-start; }
.pictures figure { flex: 0 1 var(--width); min-width: 0; max-width: 100%; }
details { margin: .75rem 0; }
summary { cursor: pointer; padding: .4rem 0; font-weight: 600; color: #1f5fa8; }
caption { text-align: left; font-weight: 700; padding: .75rem 0 .25rem; }
.drift_level-significant { color: #b3261e; font-weight: 700; }
.drift_level-moderate { font-weight: 700; }
.gap td { color: #55555c; font-style: italic; }
@media (max-width: 52rem) {
  .incidents, .incidents tbody, .incidents td { display: block; }
  .incidents tr:first-child { display: none; }
  .incidents tr { display: flex; flex-wrap: wrap; gap: .1rem .6rem; align-items: baseline; background: #f7f7fa;
  border-left: .4rem solid var(--severity); margin-bottom: .6rem; padding: .5rem .6rem; font-size: .85rem; }
  .incidents td, .incidents td:first-child { border: 0; padding: 0; text-align: left; max-width: 100%; }
  .incidents .rank::before { content: "#"; }
  .incidents .class { font-weight: 700; white-space: normal; }
  .incidents .who, .incidents .why { flex: 1 0 100%; min-width: 0; max-width: 100%; }
  .incidents .unit { display: inline; }
  .incidents .why { color: #3b3b42; font-size: .8rem; margin-top: .2rem; }
}
{% endblock %}
{% block body %}
{{ banner(champion.data_origin) }}
<p class="date">Night of {{ night.event_date.strftime("%A, %-d %B %Y") }}, UTC</p>
<h1>{{ f.verdict(night) }}</h1>
{% set mild, bad = "#2e7d32", "#b3261e" %}
{% set trust = "no" if doubts and doubts[0][0] == "no" else "care" if doubts else "yes" %}
{% set shown, over = night.shown, f.overflow(night) %}
{% set worst_colour = colour(f.severities(shown) | first) if shown else mild if champion.rows_scored else bad %}
<div class="answers">
<section style="--severity: {{ worst_colour }}">
<h2>Anything to do?</h2>
{% if shown %}
<p class="short">Yes{{ ", worst first" if shown | length > 1 }}:</p>
<ol>
{% for i in shown[:3] %}
<li>{{ badge(i.severity) }} <a href="#incident-{{ i.rank }}">{{ i.class_name }}</a>,
<bdi>{{ i.entity | truncate(40) }}</bdi>, <span class="time">{{ seen(i, "%H:%M") }}</span></li>
{% endfor %}
</ol>
{% elif champion.rows_scored %}
<p class="short">No</p>
{% else %}
<p class="short">Yes: find out why no flow was scored</p>
{% endif %}
{% if over %}
<p><b>{{ w.counted(over, "more incident exceeds", "more incidents exceed") }} the budget of
{{ champion.budget | n }}</b> and {{ "is" if over == 1 else "are" }} not listed.</p>
{% endif %}
</section>
<section style="--severity: {{ worst_colour }}">
<h2>How bad is it?</h2>
{% for name, n in f.severities(shown).items() %}
{% if loop.first %}<p class="short">{% endif %}{{ badge(name, n) }}{% if loop.last %}</p>{% endif %}
{% endfor %}
<p>{{ f.how_bad(night) | join(" ") }}</p>
</section>
<section style="--severity: {{ {"yes": mild, "care": "#f2b84b", "no": bad}[trust] }}">
<h2>Can it be trusted?</h2>
<p class="short">{{ {"yes": "Yes", "care": "With care", "no": "No"}[trust] }}</p>
{% if doubts %}
<ul>
{% for level, doubt in doubts %}
<li>{% if level == "no" %}<b class="mark">{{ doubt }}</b>{% else %}{{ doubt }}{% endif %}</li>
{% endfor %}
</ul>
{% else %}
<p>Every file was read, {{ w.counted(champion.rows_scored, "flow") }} of {{ champion.rows_in | n }} scored, and no
feature drifted significantly.</p>
{% endif %}
</section>
</div>
<p class="facts">{{ champion.data_origin }} flows, model {{ champion.model }}, version {{ champion.model_version }}, run
{{ champion.run_id }}, schema {{ champion.schema_version }}</p>
<nav>{% for place in ("incidents", "hours", "false-alarms", "quality", "drift", "models", "week", "in-use") if place !=
"models" or challenger %}<a href="#{{ place }}">{{ place | replace("-", " ") }}</a>{% endfor %}</nav>

<h2 id="incidents">Incidents</h2>
{% if shown %}
<p>Flagged flows of one entity, class and window of time are one incident.</p>
<div class="wide">{{ incidents(shown[:most_open]) }}</div>
{% if shown | length > most_open %}
<details><summary>{{ shown | length - most_open }} more, from rank {{ shown[most_open].rank }}</summary>
<div class="wide">{{ incidents(shown[most_open:]) }}</div></details>
{% endif %}
<p class="facts">Score: the highest probability of an attack among the incident's flows, and the same in log-odds. Why:
features of the flow with that score, their values, and by how much each moved the log-odds against a typical benign
flow; +1 makes the odds of an attack 2.7 times as high.</p>
{% else %}
<p>None.</p>
{% endif %}
<ul>
<li>{{ w.counted(over, "incident exceeds", "incidents exceed") if over else "No incident exceeds" }} the budget of
{{ champion.budget | n }}.</li>
<li>The allow-list covers {{ champion.flows_allowed | n }} of {{ w.counted(champion.flows_flagged, "flagged flow") }}.
</li>
</ul>

<h2 id="hours">By hour</h2>
<div class="pictures">
{{ figure(pictures.get("timeline"), "Incidents by the hour, in UTC, in which they began, and by severity") }}
{{ figure(pictures.get("classes"), "Flows by hour, in UTC, and predicted category; each row has its own scale and "
 ~ "names its highest hour on the left") }}
</div>
{% if not pictures.get("classes") %}
<p>{{ "The flows carry no event time." if champion.rows_scored else "No flow was scored." }}</p>
{% endif %}
{% if classes %}
<details><summary>Flows by predicted class</summary>
<div class="wide"><table>
<tr><th>class</th><th class="n">flows</th><th class="n">share</th><th class="n">on benign validation rows</th></tr>
{% for name, flows, expected in classes %}
<tr><td>{{ name }}</td><td class="n">{{ flows | n }}</td><td class="n">{{ w.percent(flows / champion.rows_scored) }}
</td><td class="n">{{ "–" if expected is none else w.percent(expected) }}</td></tr>
{% endfor %}
</table></div></details>
{% endif %}

<h2 id="false-alarms">False alarms to expect</h2>
<ul>
{% for sentence in f.false_alarms(night) %}
<li>{{ sentence }}</li>
{% endfor %}
</ul>
"""
PAGE: Final = f"{_HEAD}{MACROS}{_UPPER}{DETAILS}{{% endblock %}}\n"
"""In modules, because the package travels as a zip of modules."""
