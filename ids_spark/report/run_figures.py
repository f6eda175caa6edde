"""Pictures of the run page: learning curves, confusion matrices, scores by class, low false alarms, calibration."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import blended_transform_factory
from numpy.typing import NDArray

from ids_spark.base.arrays import Counts
from ids_spark.evaluate.results import Metric, Scores
from ids_spark.report.style import BLUE, GREY, ORANGE, RED

LEAST_SHARE: Final = 0.01
"""Cells of a smaller share have no number: too many numbers would hide the pattern."""
_CELL: Final = {2: 1.1, 6: 0.55}  # inches; the width of a figure at more classes
_SMALLEST_CELL: Final = 0.36
_SCORES: Final = {"precision": "#8fb4dc", "recall": BLUE, "f1": ORANGE}
_Spans = Sequence[tuple[str, int, int]]


def learning_curves(history: Sequence[Mapping[str, Any]], best_epoch: int) -> Figure:
    """Draw loss and validation accuracy by epoch, the best epoch marked.

    Args:
        history: One entry for each epoch, as in a model's card.
        best_epoch: The epoch whose weights were kept, from 1.
    """
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    losses, accuracies = figure.subplots(2, sharex=True, height_ratios=(3, 2))
    epochs = [entry["epoch"] for entry in history]
    for axes, key, label, colour in (
        (losses, "loss", "training loss", BLUE),
        (losses, "validation_loss", "validation loss", ORANGE),
        (accuracies, "validation_accuracy", "validation accuracy", ORANGE),
    ):
        values = [entry[key] for entry in history]
        axes.plot(epochs, values, color=colour, label=label, marker=".", markersize=5, linewidth=1.4)
        if key != "loss":
            best = values[epochs.index(best_epoch)]
            axes.plot(best_epoch, best, marker="o", markersize=8, markerfacecolor="none", color=RED)
            axes.axvline(best_epoch, color=RED, linewidth=0.9, linestyle="--", label=f"best epoch {best_epoch}")
            axes.set_title(f"{label}, {best:.4f} at epoch {best_epoch}", fontsize=9, loc="left")
    for axes in (losses, accuracies):
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    losses.legend(fontsize=8, frameon=False)
    accuracies.set_xlabel("epoch", fontsize=8)
    accuracies.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def confusion_map(counts: Counts, names: Sequence[str], categories: _Spans, *, shares: bool) -> Figure:
    """Draw a confusion matrix: labels by predictions.

    Args:
        counts: Rows are labels, columns predictions.
        names: Of the classes, by id.
        categories: Name, first id and number of classes of each category; separated by lines, named at the right.
        shares: Percentages of each row with a linear bar; else rows, whose colours follow the logarithm.
    """
    cell = _CELL.get(len(names), _SMALLEST_CELL)
    side = cell * len(names)
    labels = 0.5 + 0.066 * max(map(len, names))
    beside = 0.3 + 0.08 * max((len(name) for name, _, _ in categories), default=0)
    figure = Figure(figsize=(side + labels + beside, side + (0.6 if len(names) == 2 else labels)), layout="constrained")
    axes = figure.subplots()
    support = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, support, out=np.zeros(counts.shape), where=support > 0)
    norm = PowerNorm(0.5, 0.0, 1.0) if shares else LogNorm(1, max(10, int(counts.max())))
    axes.imshow(np.where(counts > 0, share if shares else counts, np.nan), cmap="Blues", norm=norm)
    for row in np.flatnonzero(support == 0):
        axes.axhspan(row - 0.5, row + 0.5, color="#d5d5db", zorder=0)
    _write_cells(axes, counts, share, shares=shares)
    axes.set_xticks(range(len(names)), names, rotation=0 if len(names) == 2 else 90, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted", fontsize=9)
    axes.set_ylabel("label", fontsize=9)
    axes.set_xticks(np.arange(-0.5, len(names)), minor=True)
    axes.set_yticks(np.arange(-0.5, len(names)), minor=True)
    axes.grid(which="minor", color="#e3e3e8", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    _separate(axes, categories, len(names))
    return figure


def class_bars(scores: Mapping[str, Scores]) -> Figure:
    """Draw precision, recall and F1 of each class, and next to them its support.

    Args:
        scores: By class, the first on top.
    """
    figure = Figure(figsize=(6.8, 0.9 + 0.42 * len(scores)), layout="constrained")
    bars, rows = figure.subplots(1, 2, sharey=True, width_ratios=(4, 1.4))
    at = np.arange(len(scores))
    for i, (key, colour) in enumerate(_SCORES.items()):
        values = [getattr(of_class, key) for of_class in scores.values()]
        places = at + (i - 1) * 0.27
        bars.barh(places, values, height=0.25, color=colour, label={"f1": "F1"}.get(key, key))
        for place, value in zip(places, values, strict=True):
            bars.annotate(f"{value:.3f}", (value, place), (2, 0), textcoords="offset points", va="center", size=6.5)
    supports = [of_class.support for of_class in scores.values()]
    rows.barh(at, supports, height=0.6, color=GREY)
    for place, value in zip(at, supports, strict=True):
        rows.annotate(f"{value:,}", (value, place), (3, 0), textcoords="offset points", va="center", size=7.5)
    bars.set_yticks(at, list(scores), fontsize=8)
    bars.set_ylim(len(scores) - 0.5, -0.5)  # the first on top
    bars.set_xlim(0, 1.09)
    rows.set_xscale("symlog", linthresh=1)
    rows.set_xlim(0, 300 * max(10, *supports))  # room for the figures
    rows.set_xticks([])
    rows.set_xticks([], minor=True)
    rows.set_title("support, logarithmic", fontsize=9, loc="left")
    for axes in (bars, rows):
        axes.set_axisbelow(True)
        axes.tick_params(axis="x", labelsize=8)
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right"]].set_visible(False)
    bars.grid(axis="x", alpha=0.25)
    figure.legend(*bars.get_legend_handles_labels(), fontsize=8, loc="outside upper left", ncols=3, frameon=False)
    return figure


def recall_curve(points: Mapping[float, Metric], night: tuple[Metric, Metric]) -> Figure:
    """Draw macro recall by the rate of benign false alarms up to 1 %, with its intervals as a band.

    Args:
        points: Recall by rate, ascending; those without a value are left out.
        night: Benign rate and macro recall at the threshold of nights; drawn where the rate is in the picture.
    """
    figure = Figure(figsize=(4.6, 3.6), layout="constrained")
    axes = figure.subplots()
    known = [(100 * rate, m.value, m.low, m.high) for rate, m in points.items() if m.value is not None]
    rates, values, low, high = (np.array(column, dtype=np.float64) for column in zip(*known, strict=True))
    axes.fill_between(rates, low, high, step="post", color=BLUE, alpha=0.2, linewidth=0, label="95 % interval")
    axes.step(rates, values, where="post", color=BLUE, linewidth=1.6, label="mean recall of attack classes")
    rate, recall = night
    if rate.value is not None and recall.value is not None and 100 * rate.value <= 1.2:
        axes.plot(100 * rate.value, recall.value, "o", color=ORANGE, markersize=7, label="threshold of nights")
    axes.set_xlim(0, 1.2 if axes.get_lines()[-1].get_label() == "threshold of nights" else 1.0)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("benign test flows flagged, %", fontsize=8)
    axes.set_ylabel("recall", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    return figure


def class_recalls(recalls: Mapping[str, tuple[Metric, Metric]]) -> Figure:
    """Draw the recall of each attack class with its interval: at 1 % benign false alarms, and as nights flag flows.

    Args:
        recalls: Both by class, the first on top; a recall without a value is left out.
    """
    figure = Figure(figsize=(5.6, 1.1 + 0.3 * len(recalls)), layout="constrained")
    axes = figure.subplots()
    kinds = ((0, -0.13, BLUE, "at 1 % benign false alarms"), (1, 0.13, ORANGE, "threshold of nights"))
    for which, beside, colour, label in kinds:
        found = [(i, pair[which]) for i, pair in enumerate(recalls.values()) if pair[which].value is not None]
        if not found:
            continue
        at = np.array([i for i, _ in found]) + beside
        low, values, high = np.array([(m.low, m.value, m.high) for _, m in found], dtype=np.float64).T
        axes.hlines(at, low, high, color=colour, linewidth=1.4)
        axes.plot(values, at, "o", color=colour, markersize=4.5, label=label)
    axes.set_yticks(range(len(recalls)), list(recalls), fontsize=8)
    axes.set_ylim(len(recalls) - 0.5, -0.5)  # the first on top
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("recall, with 95 % interval", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(fontsize=8, loc="outside upper left", ncols=2, frameon=False)
    return figure


def reliability(bins: Sequence[tuple[float, Metric]]) -> Figure:
    """Draw the share of right predictions by the highest probability, and the rows of each bin.

    Args:
        bins: Mean probability, and share with its interval and rows, of each bin with rows.
    """
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    shares, rows = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    at = [probability for probability, _ in bins]
    low, values, high = np.array([(m.low, m.value, m.high) for _, m in bins], dtype=np.float64).T
    shares.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="perfectly calibrated")
    shares.vlines(at, low, high, color=BLUE, linewidth=1.4, label="95 % interval")
    shares.plot(at, values, "o", color=BLUE, markersize=4.5, label="share of right predictions")
    shares.set_ylim(-0.02, 1.04)
    shares.legend(fontsize=8, frameon=False, loc="upper left")
    counts = [m.support or 0 for _, m in bins]
    rows.bar(at, counts, width=0.045, color=GREY)
    for place, count in zip(at, counts, strict=True):
        rows.annotate(compact(count), (place, count), (0, 2), textcoords="offset points", ha="center", size=6.5)
    rows.set_yscale("symlog", linthresh=1)
    rows.set_ylim(0, 20 * max(10, *counts))  # room for the figures
    rows.set_yticks([])
    rows.set_yticks([], minor=True)
    rows.set_ylabel("flows", fontsize=8)
    rows.set_xlabel("highest probability, mean of each of 15 bins", fontsize=8)
    rows.set_xlim(0, 1.03)
    for axes in (shares, rows):
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    shares.grid(alpha=0.25)
    return figure


def _write_cells(axes: Axes, counts: Counts, share: NDArray[np.float64], *, shares: bool) -> None:
    size = 9 if len(counts) <= 6 else 6.5
    brightest = math.log(max(10, int(counts.max())))
    for (row, column), n in np.ndenumerate(counts):
        if n == 0 or (shares and share[row, column] < LEAST_SHARE):
            continue
        dark = share[row, column] > 0.3 if shares else math.log(n) / brightest > 0.6
        text = percentage(share[row, column]) if shares else compact(int(n))
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color="w" if dark else "k")


def _separate(axes: Axes, categories: _Spans, n: int) -> None:
    """Draw lines between categories and name each on the right."""
    beside = blended_transform_factory(axes.transAxes, axes.transData)
    for name, first, length in categories:
        middle = first + (length - 1) / 2
        axes.text(1.015, middle, name, transform=beside, va="center", fontsize=8.5, fontweight="bold")
        if first:
            axes.axhline(first - 0.5, color="k", linewidth=1.1)
            axes.axvline(first - 0.5, color="k", linewidth=1.1)


def percentage(share: float) -> str:
    """Return a share in percent with one decimal; 100 only when it is exact."""
    return "100" if share == 1.0 else f"{min(100 * share, 99.9):.1f}"


def compact(count: int) -> str:
    """Return a count in at most five characters: 12345, 123k, 1.2M."""
    if count < 100_000:
        return str(count)
    return f"{count / 1_000:.0f}k" if count < 999_500 else f"{count / 1_000_000:.1f}M"
