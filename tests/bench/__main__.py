"""Command line of the bench; `make bench` calls it."""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from rich.console import Console

from tests.bench import machine, prep, report, rounds

PARTS: Final[Mapping[str, Callable[[rounds.Plan], rounds.Part]]] = {prep.NAME: prep.Prep}


def main() -> int:
    """Run the chosen parts; 0 when every case did its work, however fast."""
    given = _arguments().parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    out = Path(given.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    cpus = machine.chosen_cpus()
    facts = machine.facts(cpus)
    logs = out / "logs"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir()
    settings: dict[str, object] = {"rounds": given.rounds, "scales": given.scales}
    done: list[rounds.Measured] = []
    ratios: list[rounds.Ratio] = []
    for name in given.part:
        scratch = Path(tempfile.mkdtemp(prefix=".bench-", dir=out))
        plan = rounds.Plan(scratch, logs, tuple(cpus), given.scales[0], tuple(given.scales[1:]), tuple(given.cases))
        before, before_ratios = done, ratios
        try:
            part = PARTS[name](plan)
            console.print(f"{name}: making the data")
            for measured in rounds.run(part.cases(), given.rounds, scratch, console.print):
                done, ratios = before + measured, before_ratios + part.ratios(measured)
                settings[name] = part.facts()
                report.write_json(out / "bench.json", facts, settings, done, ratios)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    report.show(console, facts, done, ratios)
    console.print(f"figures: {out / 'bench.json'}")
    return 0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests.bench", description=__doc__)
    parser.add_argument("--out", default="runs/bench", help="folder for bench.json, logs and, while it runs, all data")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3, help="how often every case runs")
    parser.add_argument(
        "--scales",
        nargs="+",
        type=float,
        default=[1.0, 0.25, 4.0],
        help="of the data: all cases run at the first, this project alone also at the others",
    )
    parser.add_argument("--cases", nargs="+", choices=prep.CASES, default=list(prep.CASES))
    return parser


if __name__ == "__main__":
    sys.exit(main())
