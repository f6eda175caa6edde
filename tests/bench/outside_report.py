"""Tables, bars and picture of the benchmark outside the laboratory."""

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from ids_spark.report import style
from tests.bench.night_report import Bar
from tests.bench.outside_measures import SYN_FLOODS, Run, Windows
from tests.bench.outside_shift import Shift
from tests.bench.outside_windows import HEADINGS, Scored

LABORATORY: Final = "data set alone"
ADAPTED: Final = "with local nights"
_RECON: Final = ("Recon-OS_Scan", "Recon-Ping_Sweep", "Recon-Port_Scan", "Recon-VulScan")
_COLOURS: Final = {LABORATORY: style.GREY, ADAPTED: style.BLUE}
_SHIFT: Final = (
    *("packets", "model", "windows of devices", "called attack", "flagged"),
    *("windows of captures", "called attack", "flagged"),
)
_LIMITS: Final = {"called attack": 0.08, "flagged": 0.02, "false incidents": 5.0}


def _empty() -> dict[str, list[Run]]:
    return {LABORATORY: [], ADAPTED: []}


@dataclass
class Results:
    """Runs so far, by model.

    Attributes:
        facts: Data, settings, seconds.
        unseen: One run for each random half.
        later: One run on later blocks of captures that were learned.
        shift: Windows of devices against windows of captures, of the first half.
        windows: Models of windows of 10 packets, of 100, and of both, instead of the runs.
    """

    facts: dict[str, Any]
    unseen: dict[str, list[Run]] = field(default_factory=_empty)
    later: dict[str, list[Run]] = field(default_factory=_empty)
    shift: list[Shift] = field(default_factory=list)
    windows: list[Scored] = field(default_factory=list)


@dataclass(frozen=True)
class Line:
    """A figure of the table, of each run."""

    name: str
    of: Callable[[Run], float]
    share: bool = True

    def text(self, runs: Sequence[Run]) -> str:
        """Return the mean over runs, and the range if there are several."""
        found = [self.of(run) for run in runs]
        if not found:
            return ""
        form = "{:.1%}" if self.share else "{:.3g}"
        spread = f" ({form.format(min(found))}–{form.format(max(found))})" if len(found) > 1 else ""
        return form.format(float(np.mean(found))) + spread


_UNSEEN: Final = (
    Line("windows called attack", lambda run: run.everyday.called_share),
    Line("windows flagged", lambda run: run.everyday.flagged_share),
    Line("captures mostly called attack", lambda run: run.everyday.mostly_called / run.everyday.captures),
    Line("false incidents of the night, N = 1", lambda run: run.false_incidents, share=False),
    Line("of these shown while the site learns", lambda run: run.false_shown, share=False),
)
_ATTACKS: Final = (
    Line("scan: flagged", lambda run: run.scan.flagged_share),
    Line("scan: named a scan", lambda run: run.scan.named(_RECON)),
    Line("SYN flood, 10 packets: flagged", lambda run: run.floods[10].flagged_share),
    Line("SYN flood, 10 packets: named a SYN flood", lambda run: run.floods[10].named(SYN_FLOODS)),
    Line("SYN flood, 100 packets: flagged", lambda run: run.floods[100].flagged_share),
    Line("SYN flood, 100 packets: named a SYN flood", lambda run: run.floods[100].named(SYN_FLOODS)),
    Line("test rows: macro F1", lambda run: run.test.macro_f1, share=False),
    Line("test rows: attack recall", lambda run: run.test.attack_recall, share=False),
    Line("seconds to learn", lambda run: run.seconds, share=False),
)


def lines(results: Results) -> list[tuple[str, str, str]]:
    """Return the rows of the table: figure, without and with local nights."""
    found = [(f"unseen half: {line.name}", *_both(line, results.unseen)) for line in _UNSEEN]
    found += [(f"later blocks: {line.name}", *_both(line, results.later)) for line in _UNSEEN]
    return found + [(line.name, *_both(line, results.unseen)) for line in _ATTACKS]


def _both(line: Line, runs: dict[str, list[Run]]) -> tuple[str, str]:
    return line.text(runs[LABORATORY]), line.text(runs[ADAPTED])


def shift_lines(results: Results) -> list[tuple[str, ...]]:
    """Return the rows of the table of windows of devices against windows of captures."""

    def text(found: Windows) -> tuple[str, ...]:
        return f"{found.rows:,}", f"{found.called_share:.1%}", f"{found.flagged_share:.1%}"

    return [(each.packets, each.model, *text(each.of_device), *text(each.of_capture)) for each in results.shift]


def bars(results: Results) -> list[Bar]:
    """Return the figures that have a limit, with local nights: as far as they were measured."""
    found: list[Bar] = []
    runs, before = results.unseen[ADAPTED], results.unseen[LABORATORY]
    if runs:
        rows = sum(run.everyday.rows for run in runs)
        called, flagged = (sum(getattr(run.everyday, name) for run in runs) / rows for name in ("called", "flagged"))
        f1, f1_before = (float(np.mean([run.test.macro_f1 for run in of])) for of in (runs, before))
        found += [
            Bar("unseen halves: share of windows called attack", called, at_most=_LIMITS["called attack"]),
            Bar("unseen halves: share of windows flagged", flagged, at_most=_LIMITS["flagged"]),
            Bar(
                "unseen halves: most false incidents of a half, N = 1",
                max(run.false_incidents for run in runs),
                at_most=_LIMITS["false incidents"],
            ),
            Bar("test rows: macro F1 lost", f1_before - f1, at_most=0.005),
            Bar(
                "test rows: attack recall",
                float(np.mean([run.test.attack_recall for run in runs])),
                at_least=0.98,
            ),
            Bar("scan: lowest share flagged", min(run.scan.flagged_share for run in runs), at_least=0.95),
            Bar(
                "SYN flood, 10 packets: lowest share named a SYN flood",
                min(run.floods[10].named(SYN_FLOODS) for run in runs),
                at_least=0.9,
            ),
        ]
    if results.later[ADAPTED]:
        most = max(run.false_incidents for run in results.later[ADAPTED])
        found.append(Bar("later blocks: false incidents, N = 1", most, at_most=1.0))
    return found


def falls(results: Results) -> list[str]:
    """Return the largest fall of a class's recall at the operating point of each adapted model, and the gate's word."""
    return [
        f"{run.lost}{'' if run.accepted else ', refused by the gate'}"
        for run in (*results.unseen[ADAPTED], *results.later[ADAPTED])
        if run.lost
    ]


def show(console: Console, results: Results) -> None:
    """Print the table, and the figures that have a limit."""
    table = Table(title=f"captures: {results.facts['captures']}; data set: {results.facts['data']}")
    table.add_column("figure")
    for heading in (LABORATORY, ADAPTED):
        table.add_column(heading, justify="right")
    for line in lines(results):
        table.add_row(*line)
    console.print(table)
    limits = Table(title="bars")
    limits.add_column("figure")
    for heading in ("value", "limit", ""):
        limits.add_column(heading, justify="right")
    for bar in bars(results):
        limits.add_row(bar.name, f"{bar.value:.3g}", bar.limit, bar.result)
    console.print(limits)
    _show_rows(console, "windows of each device, windows of a whole capture", _SHIFT, shift_lines(results))
    for fall in falls(results):
        console.print(f"largest fall of recall at the operating point: {fall}")


def show_windows(console: Console, results: Results) -> None:
    """Print the table of window lengths."""
    _show_rows(console, "packets of a window", HEADINGS, [each.texts() for each in results.windows])


def _show_rows(console: Console, title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(title=title)
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="left" if i < 2 else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def write(out: Path, results: Results) -> None:
    """Write outside.json, outside.md and outside.png."""
    content = {
        **results.facts,
        "unseen": {name: [run.as_dict() for run in runs] for name, runs in results.unseen.items()},
        "later": {name: [run.as_dict() for run in runs] for name, runs in results.later.items()},
        "shift": [each.as_dict() for each in results.shift],
        "bars": {
            bar.name: {"value": round(bar.value, 5), "bar": bar.limit, "result": bar.result} for bar in bars(results)
        },
    }
    files = {
        "outside.json": (json.dumps(content, indent=2) + "\n").encode(),
        "outside.md": markdown(results).encode(),
        "outside.png": picture(results),
    }
    for name, data in files.items():
        unfinished = out / f"{name}.unfinished"
        unfinished.write_bytes(data)
        os.replace(unfinished, out / name)


def markdown(results: Results) -> str:
    """Return the tables as markdown."""
    tables = [(("", LABORATORY, ADAPTED), lines(results)), (_SHIFT, shift_lines(results))]
    limits = [(bar.name, f"{bar.value:.3g}", bar.limit, bar.result) for bar in bars(results)]
    tables.append((("bar", "value", "limit", ""), limits))
    return "\n".join(_as_markdown(heading, rows) for heading, rows in tables)


def windows_markdown(results: Results) -> str:
    """Return the table of window lengths as markdown."""
    return _as_markdown(HEADINGS, [each.texts() for each in results.windows])


def _as_markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in (headings, ("---",) * len(headings), *rows))


def picture(results: Results) -> bytes:
    """Return a PNG: shares of unseen windows called attack and flagged, false incidents, by half; and the test rows."""
    figure = Figure(figsize=(11, 6), layout="constrained")
    axes = figure.subplots(2, 2)
    unseen = results.unseen
    _by_half(axes[0, 0], unseen, lambda run: 100 * run.everyday.called_share, "called attack", 100)
    _by_half(axes[0, 1], unseen, lambda run: 100 * run.everyday.flagged_share, "flagged", 100)
    _by_half(axes[1, 0], unseen, lambda run: run.false_incidents, "false incidents", 1)
    _recalls(axes[1, 1], unseen)
    axes[0, 0].legend(ncols=2, frameon=False, loc="lower left", bbox_to_anchor=(0, 1.08))
    return style.png(figure)


def _by_half(axes: Axes, runs: dict[str, list[Run]], of: Callable[[Run], float], name: str, scale: float) -> None:
    halves = len(runs[ADAPTED])
    for i, (label, colour) in enumerate(_COLOURS.items()):
        values = [of(run) for run in runs[label]]
        axes.bar(np.arange(len(values)) + (i - 0.5) * 0.38, values, 0.36, color=colour, label=label)
    axes.axhline(scale * _LIMITS[name], color=style.RED, linewidth=1, linestyle="--")
    unit = "%, " if scale != 1 else ""
    axes.set_title(
        f"unseen windows {name}, {unit}by random half" if unit else f"{name} of an unseen half, N = 1",
        fontsize=9,
        loc="left",
    )
    axes.set_xticks(np.arange(halves), [str(i + 1) for i in range(halves)])
    axes.spines[["top", "right"]].set_visible(False)


def _recalls(axes: Axes, runs: dict[str, list[Run]]) -> None:
    names = sorted({name for run in runs[LABORATORY] for name in run.test.flagged if name != "Benign"})
    for i, (label, colour) in enumerate(_COLOURS.items()):
        values = [
            float(np.mean([run.test.flagged.get(name, math.nan) for run in runs[label]])) if runs[label] else math.nan
            for name in names
        ]
        axes.plot(values, np.arange(len(names)) + (0.5 - i) * 0.3, "o", color=colour, markersize=4)
    axes.set_yticks(np.arange(len(names)), names, fontsize=6)
    axes.set_title("recall of test rows at the operating point", fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
