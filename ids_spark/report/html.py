"""What the pages of all reports share: one HTML file that needs nothing else, also on a phone and without JavaScript.

A page extends `base` and fills its blocks `title`, `style` and `body`; `parts` holds the macros. All of it stands in
modules, because the package travels as a zip of modules.
"""

import base64
from collections.abc import Mapping
from typing import Any, Final

import jinja2

from ids_spark.report.style import width_of

_BASE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{% block title %}{% endblock %}</title>
<style>
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1f; margin: 0 auto; padding: 1rem; max-width: 60rem; }
h1 { font-size: 1.5rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; border-top: 1px solid #ccc; padding-top: 1rem; }
.synthetic { background: #b3261e; color: #fff; font-weight: 700; padding: .75rem 1rem; border-radius: .3rem; }
.facts { color: #55555c; font-size: .85rem; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; white-space: nowrap; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #e3e3e8; text-align: left; vertical-align: top; }
th { background: #f4f4f7; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
.mark { color: #b3261e; font-weight: 700; }
figure { margin: 1rem 0; }
figure img { display: block; width: min(var(--width), max(100%, .8 * var(--width))); height: auto; }
figcaption { color: #55555c; font-size: .85rem; overflow-wrap: anywhere; }
li { margin-bottom: .5rem; overflow-wrap: anywhere; }
@media (max-width: 32rem) { ul { padding-left: 1.2rem; } table { font-size: .75rem; } th, td { padding: .25rem; } }
{% block style %}{% endblock %}
</style>
</head>
<body>
{% block body %}{% endblock %}
</body>
</html>
"""
_PARTS: Final = """\
{% macro banner(data_origin) %}
{% if data_origin != "measured" %}
<p class="synthetic">{{ data_origin | upper }} FLOWS: every row was generated. These figures say nothing about real
traffic.</p>
{% endif %}
{% endmacro %}
{% macro figure(picture, text) %}
{% if picture %}
<figure style="--width: {{ picture.width }}px"><div class="wide"><img
src="data:image/png;base64,{{ picture.content }}" alt="{{ text }}"></div>
<figcaption>{{ text }}</figcaption></figure>
{% endif %}
{% endmacro %}
"""


def render(page: str, pictures: Mapping[str, bytes], **context: Any) -> str:
    """Return a page; every text is escaped.

    Args:
        page: Jinja2 template that extends `base`.
        pictures: PNG by name; the template finds them in `pictures`, for the macro `figure`.
        context: What else the template uses.
    """
    loader = jinja2.DictLoader({"base": _BASE, "parts": _PARTS, "page": page})
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["n"] = lambda value: f"{value:,}"
    environment.filters["f4"] = lambda value: f"{value:.4f}"
    environment.filters["g"] = lambda value: f"{value:.4g}"
    embedded = {
        name: {"content": base64.b64encode(content).decode(), "width": width_of(content)}
        for name, content in pictures.items()
    }
    return environment.get_template("page").render(context | {"pictures": embedded})
