"""Pictures of the leakage report: AUC of single features, duplicates by class."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ids_spark.report.style import BLUE, ORANGE, RED

_COLOURS: Final = {"double": BLUE, "float32": ORANGE}


def auc_map(
    values: NDArray[np.float64], features: Sequence[str], pairs: Sequence[str], marked: frozenset[str]
) -> Figure:
    """Draw a heat map of AUC, feature × class pair.

    Args:
        values: AUC, shape (features, pairs).
        features: Names of the rows, the first on top.
        pairs: Names of the columns.
        marked: Features whose names are red and bold.
    """
    figure = Figure(figsize=(1.9 + 0.42 * max(3, len(pairs)), 2.3 + 0.19 * len(features)), layout="constrained")
    axes = figure.subplots()
    drawn = axes.imshow(values, cmap="viridis", vmin=0.5, vmax=1.0, aspect="auto")
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(pairs)), pairs, rotation=90, fontsize=8)
    axes.set_yticks(range(len(features)), features, fontsize=8)
    axes.tick_params(length=0)
    for label in axes.get_yticklabels():
        if label.get_text() in marked:
            label.set(color=RED, fontweight="bold")
    for (row, column), value in np.ndenumerate(values):
        if value >= 0.6:  # below, a figure in every cell would hide the pattern
            shown = "1.0" if value >= 0.9995 else f"{min(value, 0.999):.2f}" if value < 0.995 else ">.99"
            text = shown.removeprefix("0")
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color="k" if value > 0.8 else "w")
    bar = figure.colorbar(drawn, ax=axes, location="bottom", shrink=0.8, aspect=40, pad=0.01)
    bar.set_label("AUC of one feature", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return figure


def duplicate_bars(
    classes: Sequence[str], counts: Mapping[str, Mapping[str, Sequence[int]]], totals: Mapping[str, Sequence[int]]
) -> Figure:
    """Draw duplicates by class, double precision next to float32, one panel for each split.

    Args:
        classes: The first on top.
        counts: By split, then precision; one count for each class.
        totals: Flows by split, one count for each class.
    """
    figure = Figure(figsize=(5.0, len(counts) * (1.0 + 0.36 * len(classes))), layout="constrained")
    panels = figure.subplots(len(counts), squeeze=False)[:, 0]
    for axes, (split, of_split) in zip(panels, counts.items(), strict=True):
        _bars(axes, classes, of_split, totals[split])
        axes.set_title(f"{split}: duplicates by class", fontsize=10, loc="left")
    figure.legend(*panels[0].get_legend_handles_labels(), fontsize=9, loc="outside upper right", ncols=2, frameon=False)
    return figure


def _bars(axes: Axes, classes: Sequence[str], counts: Mapping[str, Sequence[int]], totals: Sequence[int]) -> None:
    at = np.arange(len(classes))
    for i, (precision, values) in enumerate(counts.items()):
        places = at + (i - 0.5) * 0.4
        axes.barh(places, values, height=0.38, color=_COLOURS[precision], label=precision)
        for place, value, total in zip(places, values, totals, strict=True):
            share = f" ({value / total:.2%})" if value and total else ""
            axes.annotate(f"{value:,}{share}", (value, place), (3, 0), textcoords="offset points", va="center", size=7)
    axes.set_yticks(at, classes, fontsize=8)
    axes.set_ylim(len(classes) - 0.4, -0.6)  # the first on top
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(0, 90 * max(10, *(value for values in counts.values() for value in values)))  # room for the figures
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
