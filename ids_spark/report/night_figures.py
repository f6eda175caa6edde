"""Pictures of the night page: incidents and classes by hour, drifted features, the trend of seven nights.

Counts that differ by powers of ten never share an axis: a flood of a million flows would hide a scan of ten.
"""

import datetime as dt
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ids_spark.alerts import narrative, pseudonyms
from ids_spark.features import drift
from ids_spark.report.format import drift_index, number_or
from ids_spark.report.night_findings import Row
from ids_spark.report.style import BLUE, GREY, ORANGE, SEVERITY_COLOURS

HOURS: Final = 24
Hours = NDArray[np.int64]
_PALE: Final = "#b9cfe6"
_EMPTY: Final = "#ececf0"
_NAMED_EDGES: Final = 3
_TIMELINE_WIDTH: Final = 6.6
_SHORTEST: Final = 0.12  # hours, so that a bar is visible
_PSEUDONYM: Final = re.compile(rf"\b([0-9a-f]{{8}})[0-9a-f]{{{pseudonyms.LENGTH - 8}}}\b")
_LONGEST_LABEL: Final = 62  # characters beside a bar at noon
_WIDTH: Final = 4.2  # inches; 403 CSS pixels, nearly unscaled on a phone


def timeline(incidents: Sequence[Row], event_date: dt.date) -> Figure:
    """Draw each incident as a bar from its first to its last flow (UTC), with who against whom above it.

    Args:
        incidents: Rows of `incidents/`; what lies outside the night is cut off, those without a time are at the right.
        event_date: The night.
    """
    figure = Figure(figsize=(_TIMELINE_WIDTH, 0.4 + 0.36 * max(1, len(incidents))), layout="constrained")
    axes = figure.subplots()
    spans = [_span(row, event_date) for row in incidents]
    without_time = any(first > HOURS for first, _ in spans)
    for i, (row, (first, last)) in enumerate(zip(incidents, spans, strict=True)):
        colour = SEVERITY_COLOURS.get(str(row["severity"]), GREY)
        axes.barh(i, max(last - first, _SHORTEST), 0.34, min(first, HOURS + 1.5), color=colour)
        right = first > HOURS / 2
        text = f"{row['rank']}  {_label(narrative.title(row))}"
        place = (min(max(last, first + _SHORTEST), HOURS + 2.4) if right else first, i - 0.27)
        axes.text(
            *place, text, fontsize=7.5, ha="right" if right else "left", va="bottom", parse_math=False
        ).set_in_layout(False)  # else a long name shrinks the axes
    axes.set_ylim(len(incidents) - 0.6, -0.85)
    axes.set_yticks([])
    axes.grid(axis="x", alpha=0.25)
    _plain(axes)
    axes.spines["left"].set_visible(False)
    _hour_axis(axes, without_time)
    return figure


def class_hours(mix: Mapping[str, Hours]) -> Figure:
    """Draw flows by hour (UTC), one row for each class, each on its own scale.

    Args:
        mix: Flows by class, shape (25,): by hour, then those without an event time. Benign flows are grey.
    """
    figure = Figure(figsize=(_WIDTH, 0.5 + 0.72 * len(mix)), layout="constrained")
    rows = figure.subplots(len(mix), sharex=True, squeeze=False)[:, 0]
    without_time = any(counts[HOURS] for counts in mix.values())
    at = _places(without_time)
    for axes, (name, counts) in zip(rows, mix.items(), strict=True):
        axes.bar(at, counts[: len(at)], 0.82, color=GREY if name == "Benign" else BLUE)
        axes.set_title(f"{name}: {counts.sum():,}", fontsize=8.5, loc="left", pad=2)
        axes.set_ylim(0, max(1, int(counts.max())) * 1.05)
        axes.set_yticks([int(counts.max())], [compact(int(counts.max()))])
        axes.grid(axis="y", alpha=0.25)
        _plain(axes)
    _hour_axis(rows[-1], without_time)
    return figure


def drifted(rows: Sequence[Row]) -> Figure:
    """Draw the shares of the night's flows and of train in each bin, one panel for each feature.

    Args:
        rows: Of `drift/`. `edges` separate the bins; the outermost bins are open.
    """
    height = math.ceil(len(rows) / 2)
    figure = Figure(figsize=(_WIDTH, 0.35 + 1.45 * height), layout="constrained")
    panels = figure.subplots(height, 2, squeeze=False).ravel()
    for axes in panels[len(rows) :]:
        axes.set_axis_off()
    for axes, row in zip(panels, rows, strict=False):
        expected = np.asarray(row["expected"], dtype=float)
        counts = np.asarray(row["counts"], dtype=float)
        actual = counts / max(1.0, counts.sum())
        axes.bar(np.arange(len(expected)), expected, 1.0, color="#c9c9d1", label="train", edgecolor="w", linewidth=0.4)
        axes.stairs(actual, np.arange(len(actual) + 1) - 0.5, color=ORANGE, linewidth=1.6, label="this night")
        title = f"{row['name']}, {drift.INDEX[0]} {drift_index(row['drift_index'])}"
        axes.set_title(title, fontsize=8.5, loc="left", pad=3)
        borders = _borders(row["edges"] or ())
        axes.set_xticks([place for place, _ in borders], [_short(value) for _, value in borders])
        axes.set_ylim(0, max(0.05, *expected, *actual) * 1.08)
        axes.yaxis.set_major_locator(MaxNLocator(2))
        axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        axes.grid(axis="y", alpha=0.25)
        _plain(axes)
    if rows:
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, fontsize=8, loc="outside upper left", ncols=2, frameon=False, handlelength=1.2)
    return figure


def nights(trend: Mapping[dt.date, Row | None], figures: Mapping[str, str]) -> Figure:
    """Draw one panel for each figure: a bar for each date, a hatched gap where a date was not scored, a dash where
    the figure is unknown.

    Args:
        trend: The champion's row by date, oldest first; the last bar is dark.
        figures: Title by column of `nights/`.
    """
    height = math.ceil(len(figures) / 2)
    figure = Figure(figsize=(_WIDTH, 0.3 + 1.2 * height), layout="constrained")
    panels = figure.subplots(height, 2, squeeze=False, sharex=True).ravel()
    at = np.arange(len(trend))
    for axes in panels[len(figures) :]:
        axes.set_axis_off()
    for axes, (column, title) in zip(panels, figures.items(), strict=False):
        values = [math.nan if row is None else number_or(row.get(column), 0.0) for row in trend.values()]
        unknown = [row is not None and math.isnan(number_or(row.get(column))) for row in trend.values()]
        most = max((value for value in values if not math.isnan(value)), default=0.0)
        top = 1.25 * most if most else 1.0
        colours = [_PALE] * (len(at) - 1) + [BLUE]
        axes.bar(at, np.nan_to_num(values), 0.82, color=colours)
        for place, value, is_unknown in zip(at, values, unknown, strict=True):
            if is_unknown:
                axes.annotate("–", (place, 0), (0, 1), textcoords="offset points", ha="center", size=6.5)
            elif math.isnan(value):
                axes.bar(place, top, 0.82, color=_EMPTY, hatch="////", edgecolor="#c9c9d1", linewidth=0)
            else:
                axes.annotate(compact(value), (place, value), (0, 1), textcoords="offset points", ha="center", size=6.5)
        axes.set_title(title, fontsize=8.5, loc="left", pad=3)
        axes.set_ylim(0, top)
        axes.set_yticks([])
        axes.set_xticks(at, [str(date.day) for date in trend])
        _plain(axes)
        axes.spines["left"].set_visible(False)
    return figure


def compact(value: float) -> str:
    """Return a figure in at most five characters: 0.42, 999, 12k, 1.2M."""
    for least, unit, name in ((999_500_000, 1e9, "G"), (999_500, 1e6, "M"), (9_999.5, 1e3, "k")):
        if value >= least:
            return f"{value / unit:.1f}{name}" if value < 10 * unit else f"{value / unit:.0f}{name}"
    return f"{value:.0f}" if value == int(value) or value >= 99.5 else f"{value:.2g}"  # two digits of it: 1e+02


def _span(row: Row, event_date: dt.date) -> tuple[float, float]:
    """Return the hours of the night between which an incident was seen; a place behind the night without a time."""
    if row["first_seen"] is None or row["last_seen"] is None:
        return HOURS + 1.5, HOURS + 1.5
    midnight = dt.datetime.combine(event_date, dt.time(), tzinfo=dt.UTC)
    first, last = ((row[name] - midnight).total_seconds() / 3600 for name in ("first_seen", "last_seen"))
    return min(max(first, 0.0), HOURS), min(max(last, 0.0), HOURS)


def _label(text: str) -> str:
    """Return the title of an incident in at most `_LONGEST_LABEL` characters, of a pseudonym the first eight.

    Characters that the font may lack become question marks.
    """
    plain = _PSEUDONYM.sub(r"\1..", text.encode("ascii", "replace").decode())
    return plain if len(plain) <= _LONGEST_LABEL else plain[: _LONGEST_LABEL - 2] + ".."


def _places(without_time: bool) -> NDArray[np.float64]:
    """Return the positions of the bars of hours; the bar of flows without a time is further right."""
    hours = np.arange(HOURS) + 0.5
    return np.append(hours, HOURS + 1.5) if without_time else hours


def _hour_axis(axes: Axes, without_time: bool) -> None:
    ticks: list[tuple[float, Any]] = [
        (hour, f"{hour:02d}") for hour in range(0, HOURS + 1, 3 if not without_time else 6)
    ]
    if without_time:
        ticks.append((HOURS + 1.5, "\nno time"))
    axes.set_xticks([place for place, _ in ticks], [label for _, label in ticks])
    axes.set_xlim(-0.2, HOURS + (2.4 if without_time else 0.2))


def _borders(edges: Sequence[float]) -> list[tuple[float, float]]:
    """Return position and value of up to three edges, spread evenly."""
    found = [(0.5 + i, edge) for i, edge in enumerate(edges)]
    if len(found) <= _NAMED_EDGES:
        return found
    return [found[round(i)] for i in np.linspace(0, len(found) - 1, _NAMED_EDGES)]


def _short(value: float) -> str:
    return compact(value) if value >= 1000 else f"{value:.2g}" if abs(value) < 99.5 else f"{value:.0f}"


def _plain(axes: Axes) -> None:
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=7.5, length=2)
    axes.spines[["top", "right"]].set_visible(False)
