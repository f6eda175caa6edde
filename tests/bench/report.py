"""Output of the figures: tables on the terminal, bench.json, and bench.md with the tables of tests/README.md."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from tests.bench.rounds import Measured, Ratio

QUICK: Final = "quick run: small data, one round, few cases; not to be quoted"


def content(
    machine: Mapping[str, object],
    settings: Mapping[str, object],
    cases: Sequence[Measured],
    ratios: Sequence[Ratio],
    quick: bool = False,
) -> dict[str, object]:
    """Return what bench.json holds; a quick run does not say whether a bar is met."""
    results = {ratio.name: {"result": "quick" if quick else ratio.result} if ratio.bar else {} for ratio in ratios}
    return {
        **({"quick": QUICK} if quick else {}),
        "machine": dict(machine),
        "settings": dict(settings),
        "cases": [measured.as_json() for measured in cases],
        "ratios": {
            ratio.name: {"value": round(ratio.value, 3), **ratio.bar, **results[ratio.name]} for ratio in ratios
        },
    }


def write_json(path: Path, found: Mapping[str, object]) -> None:
    """Write bench.json atomically."""
    _replace(path, json.dumps(found, indent=2) + "\n")


def write_markdown(path: Path, found: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> None:
    """Write the tables of a run as Markdown, beside those of an earlier run if one is given.

    Args:
        path: Of the file.
        found: As of `content`.
        before: Content of an earlier bench.json, also of one that holds ratios as numbers.
    """
    machine = found["machine"]
    lines = [
        f"{machine['cores_used']} of {machine['cores']} cores, {machine['cpu']}, {machine['memory_gb']} GB; synthetic"
        f" data; medians of {found['settings']['rounds']} rounds.",
    ]
    lines += [QUICK] if "quick" in found else []
    old = {(one["part"], one["case"], one["scale"]): one for one in (before or {}).get("cases", [])}
    for part in dict.fromkeys(one["part"] for one in found["cases"]):
        cases = [one for one in found["cases"] if one["part"] == part]
        lines += ["", f"### {found['settings'].get(part, {}).get('title', part)}", ""]
        lines += _cases(cases, None if before is None else old)
        if any("stated_of_runs" in one for one in cases):
            lines += ["", *_stated(cases, None if before is None else old)]
    if found["ratios"]:
        lines += ["", "### Ratios", ""]
        lines += _ratios(found["ratios"], None if before is None else before.get("ratios", {}))
    _replace(path, "\n".join(lines) + "\n")


def _cases(cases: Sequence[Mapping[str, Any]], old: Mapping[tuple[str, str, float], Any] | None) -> list[str]:
    figures = {"wall s": "wall_s", "CPU s": "cpu_s", "peak memory": "peak_rss_mb"}
    times = ("",) if old is None else (" before", " after")
    heads = [f"{figure}{time}" for figure in figures for time in times]
    rows = []
    for one in cases:
        earlier = (old or {}).get((one["part"], one["case"], one["scale"]))
        values = [_cell(name, each) for name in figures.values() for each in ([one] if old is None else [earlier, one])]
        speed = f"{one['rows_per_s']:,}" if "rows_per_s" in one and "stated_of_runs" not in one else ""
        rows.append([one["what"] or one["case"], f"{one['scale']:g}", f"{one['rows']:,}", *values, speed])
    return _table(["case", "scale", "rows", *heads, "rows/s"], rows, texts=1)


def _stated(cases: Sequence[Mapping[str, Any]], old: Mapping[tuple[str, str, float], Any] | None) -> list[str]:
    """Return a table of the figures that cases state themselves."""
    rows = []
    for one in cases:
        earlier = (old or {}).get((one["part"], one["case"], one["scale"]), {})
        for figure in one.get("stated_of_runs", ()):
            pair = [one[figure]] if old is None else [earlier.get(figure), one[figure]]
            values = ["" if value is None else _short(value) for value in pair]
            rows.append([one["what"] or one["case"], f"{one['scale']:g}", figure.replace("_", " "), *values])
    return _table(["case", "scale", "figure", *(["value"] if old is None else ["before", "after"])], rows, texts=1)


def _cell(figure: str, one: Mapping[str, Any] | None) -> str:
    if one is None:
        return ""
    if "failed" in one:
        return str(one["failed"]) if figure == "wall_s" else ""
    return f"{one[figure] / 1e3:.2f} GB" if figure == "peak_rss_mb" else f"{one[figure]:.1f}"


def _ratios(ratios: Mapping[str, Any], before: Mapping[str, Any] | None) -> list[str]:
    """Return a table of ratios; an earlier bench.json may hold numbers in their place."""
    rows = []
    for name, ratio in ratios.items():
        old = (before or {}).get(name, "")
        old = old["value"] if isinstance(old, dict) else old
        bars = ", ".join(
            f"{kind.replace('_', ' ')} {ratio[kind]:g}" for kind in ("at_most", "at_least") if kind in ratio
        )
        values = [f"{ratio['value']:,g}", bars, ratio.get("result", "")]
        rows.append([f"`{name}`", *([f"{old:,g}" if old != "" else ""] if before is not None else []), *values])
    return _table(["ratio", *(["before"] if before is not None else []), "value", "bar", ""], rows, texts=1)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], texts: int) -> list[str]:
    """Return a Markdown table whose first columns are texts, the others numbers."""
    rules = ["---" if i < texts else "--:" for i in range(len(heads))]
    return [f"| {' | '.join(heads)} |", f"|{'|'.join(rules)}|", *(f"| {' | '.join(row)} |" for row in rows)]


def _replace(path: Path, text: str) -> None:
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(text)
    os.replace(unfinished, path)


def show(
    console: Console,
    machine: Mapping[str, object],
    cases: Sequence[Measured],
    ratios: Sequence[Ratio],
    quick: bool = False,
) -> None:
    """Print the tables."""
    table = Table(
        title=f"{machine['cores_used']} of {machine['cores']} cores, {machine['cpu']}, {machine['memory_gb']} GB;"
        f" synthetic data; {QUICK if quick else 'medians'}"
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
            one.failed or f"{one.median('wall_s'):.1f}",
            f"{min(walls):.1f} … {max(walls):.1f}",
            f"{one.median('cpu_s'):.1f}",
            f"{one.median('peak_rss_mb'):,.0f}",
            "" if one.stated or one.failed else f"{one.case.rows / one.median('wall_s'):,.0f}",
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
            table.add_row(ratio.name, f"{ratio.value:.2f}", bars, "quick" if quick and ratio.bar else ratio.result)
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
