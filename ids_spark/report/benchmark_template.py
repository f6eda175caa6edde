"""The page of the comparison, a Jinja2 template; in a module, because the package travels as a zip of modules."""

from typing import Final

PAGE: Final = """\
{% extends "base" %}
{% from "parts" import banner %}
{% block title %}Every model beside the published figures: {{ setting.data_origin }}{% endblock %}
{% block style %}
.published td { background: #f7f7fa; color: #55555c; }
td:first-child, th:first-child { position: sticky; left: 0; background: #fff; max-width: 11rem; white-space: normal; }
{% endblock %}
{% block body %}
{{ banner(setting.data_origin) }}
<h1>Every model beside the published figures</h1>
<p class="facts">run {{ run_id }}</p>
<ul>
{% for sentence in sentences %}
<li>{{ sentence }}</li>
{% endfor %}
</ul>
{% for classes, rows in tables %}
<h2>{{ classes }} classes</h2>
<div class="wide"><table>
<tr><th>model</th><th>feature_set</th>
{% for column in columns %}<th class="n">{{ column.heading }}</th>{% endfor %}
<th>configuration or source</th></tr>
{% for row in rows %}
<tr{% if row.published %} class="published"{% endif %}><td>{{ name_of(row) }}</td><td>{{ origin_of(row) }}</td>
{% for column in columns %}<td class="n">{{ column.text(row) }}</td>{% endfor %}
<td>{{ row.source if row.published else row.configuration }}</td></tr>
{% endfor %}
</table></div>
{% endfor %}
{% endblock %}
"""
