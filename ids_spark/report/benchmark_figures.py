"""The picture of the benchmark: one figure of every own model, with its interval."""

from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ids_spark.dataset.taxonomy import LEVELS
from ids_spark.evaluate.benchmark import Row, ranking
from ids_spark.evaluate.night_metrics import RARE_RECALL
from ids_spark.report.style import BLUE, ORANGE

_PANELS: Final = (
    *((classes, "f1_macro", f"macro F1, {classes} classes") for classes in LEVELS),
    (max(LEVELS), RARE_RECALL, "recall of rare classes\nat 1 % benign FPR, 19 classes"),
)
_WIDEST: Final = {"f1_macro": 0.1, RARE_RECALL: 0.25}
"""Width of a panel: models that are further below the best one stand as a number at its edge."""
_COLOURS: Final = {"paper": BLUE, "operational": ORANGE}
_APART: Final = 0.17
_FROM_19: Final = "model of 19 classes, read at the level"


def dots(rows: Sequence[Row]) -> Figure:
    """Draw macro F1 at each level and recall of the rare classes, one line for each title.

    Args:
        rows: Own rows; those with intervals have bars of 95 %.
    """
    titles = _titles(rows)
    figure = Figure(figsize=(11.4, 1.5 + 0.36 * len(titles)), layout="constrained")
    panels = figure.subplots(1, len(_PANELS), sharey=True, squeeze=False)[0]
    for axes, (classes, name, heading) in zip(panels, _PANELS, strict=True):
        shown = [row for row in rows if row.classes == classes]
        least = max((row.value(name) or 0.0 for row in shown), default=0.0) - _WIDEST[name]
        for row in shown:
            _dot(axes, row, name, titles.index(row.model), least)
        axes.set_title(heading, fontsize=9, loc="left")
        axes.tick_params(axis="x", labelsize=8)
        axes.tick_params(axis="y", length=0, labelsize=9)
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right", "left"]].set_visible(False)
        for place in range(0, len(titles), 2):
            axes.axhspan(place - 0.5, place + 0.5, color="#f4f4f7", zorder=0)
    panels[0].set_yticks(range(len(titles)), titles)
    panels[0].set_ylim(len(titles) - 0.5, -0.5)  # the first on top
    figure.legend(handles=_handles(rows), fontsize=8, loc="outside upper left", ncols=3, frameon=False)
    return figure


def _titles(rows: Sequence[Row]) -> list[str]:
    """Return the titles, the highest macro F1 at the finest level first."""
    finest = [
        row
        for level in sorted(LEVELS, reverse=True)
        for row in ranking([r for r in rows if r.classes == level], "f1_macro")
    ]
    return list(dict.fromkeys(row.model for row in finest))


def _dot(axes: Axes, row: Row, name: str, place: int, least: float) -> None:
    metric = row.figures.get(name)
    if metric is None or metric.value is None:
        return
    colour = _COLOURS.get(row.feature_set, BLUE)
    at = place + (_APART if row.feature_set != "paper" else -_APART) + (0.0 if row.own_level else 0.12)
    if metric.value < least:
        if row.own_level:
            text = f"◂ {metric.value:.2f}"
            axes.annotate(text, (0, at), xycoords=("axes fraction", "data"), va="center", fontsize=7, color=colour)
        return
    if metric.low is not None and metric.high is not None:
        axes.plot([metric.low, metric.high], [at, at], color=colour, linewidth=1.3, alpha=0.6, solid_capstyle="butt")
    face = colour if row.own_level else "white"
    axes.plot(metric.value, at, marker="o", markersize=5, color=colour, markerfacecolor=face, linestyle="none")


def _handles(rows: Sequence[Row]) -> list[Line2D]:
    """Return the marks of the legend that the picture uses."""
    sets = [name for name in _COLOURS if any(row.feature_set == name for row in rows)]
    marks = [(f"feature set {name}", _COLOURS[name], _COLOURS[name]) for name in sets]
    if any(not row.own_level for row in rows):
        marks.append((_FROM_19, "k", "white"))
    return [
        Line2D([], [], marker="o", markersize=5, color=colour, markerfacecolor=face, linestyle="none", label=label)
        for label, colour, face in marks
    ]
