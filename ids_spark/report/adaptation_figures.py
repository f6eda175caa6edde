"""Pictures of the page of an adaptation: recall by class and flagged flows by device, before and after."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ids_spark.base.logs import printable
from ids_spark.report.style import BLUE, GREY

Pair = tuple[str, float | None, float | None]


def recall_before_after(classes: Sequence[Pair]) -> Figure:
    """Draw the recall of each class by both models.

    Args:
        classes: Name, share of the champion and of the challenger, None if unknown; the first on top.
    """
    figure = Figure(figsize=(6.0, 1.0 + 0.26 * len(classes)), layout="constrained")
    axes = figure.subplots()
    _draw(axes, classes)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("flagged attack flows of the test rows", fontsize=8)
    return figure


def devices_before_after(devices: Sequence[Pair]) -> Figure:
    """Draw the share of flagged benign flows of each device by both models, on a scale that shows small shares.

    Args:
        devices: Name, share of the champion and of the challenger; the first on top.
    """
    figure = Figure(figsize=(6.0, 1.0 + 0.26 * len(devices)), layout="constrained")
    axes = figure.subplots()
    _draw(axes, devices)
    axes.set_xscale("symlog", linthresh=0.01)
    axes.set_xlim(-0.001, 1.3)
    axes.set_xticks([0, 0.01, 0.1, 1.0])
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("flagged flows of held-out benign nights", fontsize=8)
    return figure


def _draw(axes: Axes, rows: Sequence[Pair]) -> None:
    for i, (_, before, after) in enumerate(rows):
        if before is not None and after is not None:
            axes.plot([before, after], [i, i], color=GREY, linewidth=1.2, zorder=1)
    champion = [(before, i) for i, (_, before, _) in enumerate(rows) if before is not None]
    challenger = [(after, i) for i, (_, _, after) in enumerate(rows) if after is not None]
    for label, found, colour, marker in (
        ("champion", champion, GREY, "o"),
        ("challenger", challenger, BLUE, "D"),
    ):
        axes.scatter([x for x, _ in found], [y for _, y in found], s=26, color=colour, marker=marker, label=label)
    names = [printable(name[:40]) for name, _, _ in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=8, parse_math=False)
    axes.set_ylim(len(rows) - 0.4, -0.6)  # the first on top
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0.0, 1.0))
