"""Command line of the bench; `make bench` calls it."""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Final

from rich.console import Console

from tests.bench import extract, machine, night_part, outside_part, prep, report, rounds, score, train

PARTS: Final[Mapping[str, ModuleType]] = {
    prep.NAME: prep,
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
    chosen = {name: chosen_cases(PARTS[name], given.cases) for name in given.part}
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
    console = Console(width=None if sys.stdout.isatty() else 120)
    out = Path(given.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    cpus = machine.chosen_cpus()
    facts = machine.facts(cpus)
    logs = out / "logs"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir()
    settings: dict[str, object] = {"rounds": given.rounds}
    done: list[rounds.Measured] = []
    ratios: list[rounds.Ratio] = []
    for name, cases in chosen.items():
        if not cases:
            continue
        scratch = Path(tempfile.mkdtemp(prefix=".bench-", dir=out))
        scales = PARTS[name].scales(given.scales)
        plan = rounds.Plan(scratch, logs, tuple(cpus), scales, cases, tuple(given.models), given.recommended)
        before, before_ratios = done, ratios
        try:
            part = PARTS[name].Part(plan)
            console.print(f"{name}: making the data")
            for measured in rounds.run(part.cases(), given.rounds, scratch, console.print):
                done, ratios = before + measured, before_ratios + part.ratios(measured)
                settings[name] = {"scales": scales, **part.facts()}
                report.write_json(out / "bench.json", facts, settings, done, ratios)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    report.show(console, facts, done, ratios)
    console.print(f"figures: {out / 'bench.json'}")
    return 0


def chosen_cases(part: ModuleType, wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the wanted cases of a part; by default all except those that run only on demand."""
    if not wanted:
        return tuple(case for case in part.CASES if case not in part.ON_DEMAND)
    return tuple(case for case in part.CASES if any(_means(name, case) for name in wanted))


def _means(name: str, case: str) -> bool:
    """Return whether a name selects a case: `memory` selects `memory-64` and every other `memory-…`."""
    return case == name or case.startswith(f"{name}-")


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests.bench", description=__doc__)
    parser.add_argument("--out", default="runs/bench", help="folder for bench.json, logs and, while it runs, all data")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3, help="how often every case runs")
    parser.add_argument(
        "--scales",
        nargs="+",
        type=float,
        default=[],
        help="of the data. prep: all cases run at the first, this project alone also at the others."
        " train: of most cases, of batch 64 and time to loss, of full. nights: number of seeds. outside: of random"
        " halves",
    )
    parser.add_argument("--cases", nargs="+", default=[], help="such as pandas, memory-1024, or memory for memory-…")
    parser.add_argument(
        "--models", nargs="+", choices=train.MODELS, default=train.MODELS, help="that part train trains"
    )
    parser.add_argument(
        "--recommended", default=train.RECOMMENDED, help="configuration to compare with the study's, part train"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
