"""Rendering of pages: the Jinja2 environment, and pictures embedded in a self-contained HTML file."""

import base64
import functools
from collections.abc import Mapping
from typing import Any

import jinja2

import ids_spark
from ids_spark.alerts.narrative import short_name
from ids_spark.base.logs import printable
from ids_spark.base.text import short, shown
from ids_spark.dataset.features import FEATURE_DESCRIPTIONS
from ids_spark.report import format
from ids_spark.report.style import SEVERITY_COLOURS, width_of


def render(template: str, pictures: Mapping[str, bytes] | None = None, **context: Any) -> str:
    """Return a page; values are escaped in every template except those of plain text and markdown.

    Args:
        template: File name below `templates/`.
        pictures: PNG by name; the template finds them in `pictures`, for the macro `figure`.
        context: Further variables of the template; `base.html.j2` lists those of every page.
    """
    embedded = {
        name: {"content": base64.b64encode(content).decode(), "width": width_of(content)}
        for name, content in (pictures or {}).items()
    }
    return _environment().get_template(template).render(context | {"pictures": embedded})


def _without_controls(value: Any) -> Any:
    """Return a text with characters that are not printable, line breaks aside, escaped; other values as they are."""
    if type(value) is not str or value.isprintable():  # not Markup: text of the templates
        return value
    return "\n".join(printable(line) for line in value.split("\n"))


@functools.cache
def _environment() -> jinja2.Environment:
    """Return the environment; its loader reads from a folder and from the zip file that `--py-files` sends."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ids_spark.report"),
        autoescape=jinja2.select_autoescape(disabled_extensions=("md.j2", "txt.j2"), default=True),
        undefined=jinja2.StrictUndefined,
        finalize=_without_controls,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "thousands": lambda value: f"{value:,}",
        "four_decimals": lambda value: f"{value:.4f}",
        "four_digits": lambda value: f"{value:.4g}",
        "amount": format.amount,
        "percent": format.percent,
        "share": format.share,
        "probability": format.probability,
        "at_most": format.at_most,
        "drift_index": format.drift_index,
        "short": short,
        "short_name": short_name,
        "as_markdown": format.as_markdown,
    }
    environment.globals |= {
        "version": ids_spark.__version__,
        "severity_colours": SEVERITY_COLOURS,
        "attribution": format.attribution,
        "counted": format.counted,
        "fault_descriptions": format.FAULT_DESCRIPTIONS,
        "feature_descriptions": FEATURE_DESCRIPTIONS,
        "hour_ranges": format.hour_ranges,
        "life": format.life,
        "one_in": format.one_in,
        "observed": format.observed,
        "shown": shown,
    }
    return environment
