"""Benchmark of contamination: attacks in the nights that a site learns, and what they cost.

    python -m tests.bench.contamination --lake runs/nightly --out OUT

`make contamination` calls it. A synthetic hospital has seven nights with a benign shape of its own
(`synthesize_night.shift`) and attacks in some or all of them (`contamination_nights`). The nights become local rows;
`adapt.review` says which are left out. With `--adapt`, `jobs/adapt.py` learns each of these weeks, and the clean one
also by its last night and its last three nights alone; later nights are scored by the champion and by each challenger:
false incidents, attacks found, recall of each class on the test rows at the same share of flagged benign flows. It
prints tables and writes `contamination.json`, `.md` and, with `--adapt`, `.png`, anew after each week.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from tests.bench import contamination_report
from tests.bench.contamination_nights import NIGHTS, Hospital
from tests.bench.contamination_report import Result, Results, name_of
from tests.bench.contamination_site import Bench, Case

CASES: Final = {
    "0": Case(0.0),
    "1%": Case(0.01),
    "every": Case(0.01, every_night=True),
    "3nights": Case(0.0, nights=3),
    "1night": Case(0.0, nights=1),
    "0.1%": Case(0.001),
    "5%": Case(0.05),
}
"""Weeks that are learned, by the name that `--cases` takes."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each week and print tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lake", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--flows", type=int, default=60_000, help="benign flows of a night")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--adapt", action="store_true", help="learn each week by jobs/adapt.py, and score later nights")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), help="default: all; without --adapt, whole weeks")
    parser.add_argument("--set", dest="settings", action="append", default=[], help="settings of the jobs")
    given = parser.parse_args(arguments)
    console, started = Console(stderr=True), time.monotonic()
    hospital, folder = Hospital(given.flows, given.seed), given.out / "contamination"
    bench = Bench(given.lake, folder, hospital, given.settings)
    results = Results({"flows": given.flows, "seed": given.seed, "data": "synthetic", "adapt": given.adapt})
    cases = [CASES[name] for name in given.cases or CASES if given.adapt or CASES[name].nights == NIGHTS]
    later = None
    if given.adapt:
        console.print("nights after the week, scored by the champion")
        later, results.champion = bench.later()
    for number, case in enumerate(cases, start=1):
        console.print(f"week {number} of {len(cases)}: {name_of(case)} ({time.monotonic() - started:.0f} s)")
        if later is None:
            results.weeks.append(Result(case, *bench.review(case)))
        else:
            left, adapted = bench.adapt(case, later)
            results.weeks.append(Result(case, left, adapted.seconds, adapted))
        contamination_report.write(given.out, results)
        contamination_report.show(console, results)
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
