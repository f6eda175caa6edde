"""Command line of the bench; `make bench` calls it."""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Final

from rich.console import Console

from tests.bench import extract, files, machine, night_part, outside_part, prep, report, rounds, score, skew, train

PARTS: Final[Mapping[str, ModuleType]] = {
    prep.NAME: prep,
    files.NAME: files,
    skew.NAME: skew,
    train.NAME: train,
    score.NAME: score,
    night_part.NAME: night_part,
    extract.NAME: extract,
    outside_part.NAME: outside_part,
}


def main() -> int:
    """Run the chosen parts; 0 if every case did its work, at any speed."""
    parser = _arguments()
    given = parser.parse_args()
    cases = {name: chosen_cases(PARTS[name], given.cases, given.quick) for name in given.part}
    unknown = [
        name for name in given.cases if not any(_means(name, case) for p in given.part for case in PARTS[p].CASES)
    ]
    if unknown:
        known = "; ".join(f"{name}: {', '.join(PARTS[name].CASES)}" for name in given.part)
        parser.error(f"no case {', '.join(unknown)}. There are, by part, {known}")
    if given.scales and len(given.part) > 1:
        parser.error("--scales means something else in each part; name one with --part")
    for name in given.part:
        if given.scales and len(given.scales) > len(PARTS[name].SCALES):
            parser.error(f"part {name} takes at most {len(PARTS[name].SCALES)} scales")
    before = None if given.before is None else json.loads(given.before.read_text())
    console = Console(width=None if sys.stdout.isatty() else 120)
    out = Path(given.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    cpus = machine.chosen_cpus()
    facts = machine.facts(cpus)
    logs = out / "logs"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir()
    turns = 1 if given.quick else given.rounds
    settings: dict[str, object] = {"rounds": turns}
    done: list[rounds.Measured] = []
    ratios: list[rounds.Ratio] = []
    if not (given.quick or given.cases or given.scales):
        minutes = sum(PARTS[name].MINUTES[0] + turns * PARTS[name].MINUTES[1] for name in given.part)
        console.print(f"on 2 cores with nothing beside it this takes about {minutes:.0f} minutes")
    models = tuple(given.models or (train.MODELS[:1] if given.quick else train.MODELS))
    data = Path(tempfile.mkdtemp(prefix=".data-", dir=out))
    try:
        for name in (name for name in given.part if cases[name]):
            scratch = Path(tempfile.mkdtemp(prefix=".bench-", dir=out))
            scales = PARTS[name].scales(given.scales or (PARTS[name].QUICK_SCALES if given.quick else ()))
            plan = rounds.Plan(
                *(scratch, data, logs, tuple(cpus), scales, cases[name]),
                *(models, given.recommended, given.quick),
            )
            earlier, earlier_ratios = done, ratios
            try:
                part = PARTS[name].Part(plan)
                console.print(f"{name}: making the data")
                for measured in rounds.run(part.cases(), turns, scratch, console.print):
                    done, ratios = earlier + measured, earlier_ratios + part.ratios(measured)
                    settings[name] = {"title": PARTS[name].TITLE, "scales": scales, **part.facts()}
                    found = report.content(facts, settings, done, ratios, given.quick)
                    report.write_json(out / "bench.json", found)
                    report.write_markdown(out / "bench.md", found, before)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    finally:
        shutil.rmtree(data, ignore_errors=True)
    report.show(console, facts, done, ratios, given.quick)
    console.print(f"figures: {out / 'bench.json'}, {out / 'bench.md'}")
    return 0


def chosen_cases(part: ModuleType, wanted: Sequence[str], quick: bool = False) -> tuple[str, ...]:
    """Return the wanted cases of a part; by default all except those that run only on demand, or the quick ones."""
    if quick and not wanted:
        return tuple(part.QUICK_CASES)
    if not wanted:
        return tuple(case for case in part.CASES if case not in part.ON_DEMAND)
    return tuple(case for case in part.CASES if any(_means(name, case) for name in wanted))


def _means(name: str, case: str) -> bool:
    """Return whether a name selects a case: `memory` selects `memory-64` and every other `memory-…`."""
    return case == name or case.startswith(f"{name}-")


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests.bench", description=__doc__)
    parser.add_argument(
        "--out", default="runs/bench", help="folder for bench.json, bench.md, logs and, while it runs, all data"
    )
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3, help="how often every case runs")
    parser.add_argument(
        "--scales",
        nargs="+",
        type=float,
        default=[],
        help="of the data. prep: of all cases, of the cost of a row, of growth. score: of all cases, of a second night,"
        " of the small night. train: of most cases, of batch 64 and time to loss, of full. nights: number of seeds."
        " outside: of random halves",
    )
    parser.add_argument("--quick", action="store_true", help="one round of a few small cases, for everyday use")
    parser.add_argument("--before", type=Path, help="bench.json of an earlier run, for the tables in bench.md")
    parser.add_argument("--cases", nargs="+", default=[], help="such as pandas, memory-1024, or memory for memory-…")
    parser.add_argument(
        "--models", nargs="+", choices=train.MODELS, help="that part train trains; default: all, the first if quick"
    )
    parser.add_argument(
        "--recommended", default=train.RECOMMENDED, help="configuration to compare with the study's, part train"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
