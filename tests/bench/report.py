"""Output of the figures: a table on the terminal, and bench.json."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.rounds import Measured, Ratio


def write_json(
    path: Path,
    machine: Mapping[str, object],
    settings: Mapping[str, object],
    cases: Sequence[Measured],
    ratios: Sequence[Ratio],
) -> None:
    """Write bench.json atomically."""
    content = {
        "machine": dict(machine),
        "settings": dict(settings),
        "cases": [measured.as_json() for measured in cases],
        "ratios": {ratio.name: round(ratio.value, 3) for ratio in ratios},
        "bars": {ratio.name: {**ratio.bar, "result": ratio.result} for ratio in ratios if ratio.bar},
    }
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(unfinished, path)


def show(console: Console, machine: Mapping[str, object], cases: Sequence[Measured], ratios: Sequence[Ratio]) -> None:
    """Print the tables."""
    table = Table(
        title=f"{machine['cores_used']} of {machine['cores']} cores, {machine['cpu']}, {machine['memory_gb']} GB;"
        " synthetic data; medians"
    )
    for heading in ("part", "case"):
        table.add_column(heading)
    for heading in ("scale", "rows", "wall s", "least … most", "CPU s", "peak MB", "rows/s"):
        table.add_column(heading, justify="right")
    for one in cases:
        walls = one.values("wall_s")
        table.add_row(
            one.case.part,
            one.case.name,
            f"{one.case.scale:g}",
            f"{one.case.rows:,}",
            f"{one.median('wall_s'):.1f}",
            f"{min(walls):.1f} … {max(walls):.1f}",
            f"{one.median('cpu_s'):.1f}",
            f"{one.median('peak_rss_mb'):,.0f}",
            "" if one.stated else f"{one.case.rows / one.median('wall_s'):,.0f}",
        )
    console.print(table)
    _show_stated(console, [one for one in cases if one.stated])
    if ratios:
        table = Table()
        table.add_column("ratio")
        for heading in ("value", "bar", ""):
            table.add_column(heading, justify="right")
        for ratio in ratios:
            bars = ", ".join(f"{kind.replace('_', ' ')} {bar:g}" for kind, bar in ratio.bar.items())
            table.add_row(ratio.name, f"{ratio.value:.2f}", bars, ratio.result)
        console.print(table)


def _show_stated(console: Console, cases: Sequence[Measured]) -> None:
    """Print the figures that cases state themselves, one per line."""
    if not cases:
        return
    table = Table(title="stated by the cases themselves; medians")
    for heading in ("part", "case", "figure"):
        table.add_column(heading)
    for heading in ("value", "least … most"):
        table.add_column(heading, justify="right")
    for one in cases:
        for figure in one.stated:
            values = one.values(figure)
            spread = f"{_short(min(values))} … {_short(max(values))}"
            table.add_row(one.case.part, one.case.name, figure, _short(one.median(figure)), spread)
    console.print(table)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.4g}"
