"""Tables, bars and picture of the benchmark of nights."""

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from ids_spark.report import style
from tests.bench import night_verdicts
from tests.bench.night_measures import Pooled

Results = dict[str, dict[str, Pooled]]
"""Nights by kind and way to make the list."""
OLD: Final = "version 0.2"
FIRST: Final = "first night"
LATER: Final = "after 5 nights"
_SHOWN_IN_PICTURE: Final = (OLD, f"{FIRST}, N = 1", f"{LATER}, N = 1", f"{LATER}, N = 5")
_FIND: Final = ("default", "eight attacks", "small episodes")
_BENIGN: Final = ("benign", "benign, shifted", "benign, noisy devices")
_BURIED: Final = ("default, 60 spoofed", "default, 5,000 spoofed")


@dataclass(frozen=True)
class Bar:
    """A figure and its limit."""

    name: str
    value: float
    at_most: float = math.inf
    at_least: float = -math.inf

    @property
    def result(self) -> str:
        """`ok` or `missed`."""
        return "ok" if self.at_least <= self.value <= self.at_most else "missed"

    @property
    def limit(self) -> str:
        """The limit as text."""
        return f"at most {self.at_most:g}" if math.isfinite(self.at_most) else f"at least {self.at_least:g}"


def bars(results: Results) -> list[Bar]:
    """Return the figures that have a limit, as far as their nights were measured."""
    found: list[Bar] = []

    def add(kind: str, ways: str, name: str, of: Callable[[Pooled], float], **limit: float) -> None:
        if kind in results:
            found.append(Bar(f"{kind}, {ways}: {name}", of(results[kind][ways]), **limit))

    for when in (FIRST, LATER):
        one, five = f"{when}, N = 1", f"{when}, N = 5"
        for kind in _FIND:
            add(kind, one, "precision", lambda pooled: pooled.precision, at_least=0.9)
            add(kind, one, "attacks found", lambda pooled: pooled.found, at_least=0.95)
        add("slow scans", one, "attacks found", lambda pooled: pooled.found, at_least=0.8)
        for kind in _BENIGN:
            for name, budget in ((one, 1.0), (five, 5.0)):
                add(kind, name, "false lines a night", lambda pooled: pooled.false_per_night, at_most=budget)
                add(kind, name, "observed ÷ promised", lambda pooled: pooled.observed_over_promised()[0], at_most=1.2)
        for kind in _BURIED:
            add(kind, one, "other lines lost", lambda pooled: pooled.total("lost"), at_most=0)
    one = f"{FIRST}, N = 1"
    add("default", one, "most lines", lambda pooled: max(night.lines for night in pooled.nights), at_most=8)
    add("default", one, "all within five lines", lambda pooled: pooled.within_five, at_least=0.95)
    for kind in ("benign, 9 flows", "benign, 425 flows"):
        add(kind, one, "nights without a line", lambda pooled: pooled.without_a_line, at_least=0.95)
    add("benign, 5,000 flows", one, "false lines a night", lambda pooled: pooled.false_per_night, at_most=1.0)
    return found + _of_verdicts(results.get(night_verdicts.KIND.name, {}))


def _of_verdicts(by_list: Mapping[str, Pooled]) -> list[Bar]:
    found: list[Bar] = []
    for budget in (1, 5) if by_list else ():
        without, given = (by_list[f"{name}, N = {budget}"] for name in (night_verdicts.WITHOUT, night_verdicts.WITH))
        fewer = 1 - given.total("false") / max(without.total("false"), 1)
        found.append(Bar(f"verdicts, N = {budget}: share of false lines removed", fewer, at_least=0.4))
        found.append(Bar(f"verdicts, N = {budget}: recall lost", without.found - given.found, at_most=0.01))
        found.append(Bar(f"verdicts, N = {budget}: learned lines shown", given.total("lost"), at_most=0))
    return found


def show(console: Console, results: Results) -> None:
    """Print a table of all nights, and the figures that have a limit."""
    table = Table(title="lists of synthetic nights; N: expected false lines a night")
    table.add_column("nights")
    table.add_column("list")
    for heading in ("nights", "precision", "found", "lines", "false", "÷ promised (95 %)", "lines/attack", "rank", "s"):
        table.add_column(heading, justify="right")
    for kind, by_list in results.items():
        for i, (name, pooled) in enumerate(by_list.items()):
            ratio, low, high = pooled.observed_over_promised()
            table.add_row(
                kind if i == 0 else "",
                name,
                str(len(pooled.nights)),
                _short(pooled.precision),
                _short(pooled.found),
                f"{pooled.lines_per_night:.1f}",
                f"{pooled.false_per_night:.2f}",
                "" if math.isnan(ratio) else f"{ratio:.2f} ({low:.2f}–{high:.2f})",
                _short(pooled.lines_per_attack),
                _short(pooled.median_rank),
                f"{pooled.total('seconds') / len(pooled.nights):.2f}",
            )
        table.add_section()
    console.print(table)
    limits = Table(title="bars")
    limits.add_column("figure")
    for heading in ("value", "limit", ""):
        limits.add_column(heading, justify="right")
    for bar in bars(results):
        limits.add_row(bar.name, f"{bar.value:.3g}", bar.limit, bar.result)
    console.print(limits)


def write(out: Path, results: Results, facts: Mapping[str, object]) -> None:
    """Write nights.json and nights.png."""
    content = {
        **facts,
        "nights": {
            kind: {name: _figures(pooled) for name, pooled in by_list.items()} for kind, by_list in results.items()
        },
        "bars": {
            bar.name: {"value": _finite(bar.value), "bar": bar.limit, "result": bar.result} for bar in bars(results)
        },
    }
    unfinished = out / "nights.unfinished"
    unfinished.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(unfinished, out / "nights.json")
    (out / "nights.png").write_bytes(picture(results))


def _figures(pooled: Pooled) -> dict[str, object]:
    ratio, low, high = pooled.observed_over_promised()
    figures = {
        "precision": pooled.precision,
        "found": pooled.found,
        "lines_per_night": pooled.lines_per_night,
        "false_per_night": pooled.false_per_night,
        "observed_over_promised": ratio,
        "observed_over_promised_low": low,
        "observed_over_promised_high": high,
        "lines_per_attack": pooled.lines_per_attack,
        "median_rank": pooled.median_rank,
        "seconds_per_night": pooled.total("seconds") / len(pooled.nights),
    }
    return {"nights": len(pooled.nights), **{name: _finite(value) for name, value in figures.items()}}


def picture(results: Results) -> bytes:
    """Return a PNG: precision and attacks found by kind of night with attacks, false lines by kind of benign night."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    with_attacks = [kind for kind, found in results.items() if found.get(OLD) and found[OLD].total("attacks")]
    benign = [kind for kind, found in results.items() if OLD in found and kind not in with_attacks]
    axes = figure.subplots(3, 1, height_ratios=(1, 1, 1))
    _bars_of(axes[0], results, with_attacks, "precision", "precision of the lines shown")
    _bars_of(axes[1], results, with_attacks, "found", "share of attacks found")
    _bars_of(axes[2], results, benign, "false_per_night", "false lines a night")
    axes[2].set_yscale("symlog", linthresh=1)
    axes[0].legend(ncols=len(_SHOWN_IN_PICTURE), frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.02))
    return style.png(figure)


def _bars_of(axes: object, results: Results, kinds: list[str], name: str, title: str) -> None:
    colours = (style.GREY, style.ORANGE, style.BLUE, style.RED)
    width = 0.8 / len(_SHOWN_IN_PICTURE)
    for i, (label, colour) in enumerate(zip(_SHOWN_IN_PICTURE, colours, strict=True)):
        values = [getattr(results[kind][label], name) if label in results[kind] else math.nan for kind in kinds]
        axes.bar(np.arange(len(kinds)) + (i - 1.5) * width, values, width, color=colour, label=label)
    axes.set_xticks(np.arange(len(kinds)), [kind.replace(", ", ",\n") for kind in kinds], fontsize=8)
    axes.set_title(title, fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _short(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"


def _finite(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None
