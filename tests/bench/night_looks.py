"""Benchmark of hourly runs: false incidents, attacks found and hours until a page lists them, by runs per night.

    python -m tests.bench.night_looks --lake runs/nightly --model gru_dnn-19-operational --seeds 10

The same nights as those of `nights`, without earlier nights. Each run sees the flows until its time. An incident of a
date is false if it was on any of its pages with mostly benign flows. An attack is found at the first run whose page
has a line with three of its flows or half of them; hours count from its first flow, with pages at once after each part
of the date.
"""

import argparse
import datetime as dt
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from ids_spark.alerts.looks import ALERT_COLUMNS, COLUMNS, Before, Look
from ids_spark.models import artifact
from ids_spark.score.night_incidents import Levels, levels_of
from tests.bench import night_method
from tests.bench.night_flows import DATE, Flows, Pool, pool_of
from tests.bench.night_measures import compare, is_false
from tests.bench.night_worlds import KINDS, Hospital

DAY_S: Final = 86_400.0
RUNS: Final = (1, 4, 24)
_POOL: Final = 1_000_000
_BENIGN: Final = ("benign", "benign, shifted", "benign, noisy devices", "benign, 5,000 flows")
_ATTACKED: Final = ("default", "eight attacks", "small episodes", "slow scans")


@dataclass
class Day:
    """A date that was scored in several runs.

    Attributes:
        false: Ids of incidents that were false on any page.
        hours: From the first flow of each attack that was found to its page, by number of the attack.
        attacks: Attacks of the night.
        expected: False incidents that all runs expect.
        lines: Incidents of the last page.
        changed: Ids that a page had listed and a later one had not.
        seconds: To test, join and rank, of all runs.
    """

    false: set[str] = field(default_factory=set)
    hours: dict[int, float] = field(default_factory=dict)
    attacks: int = 0
    expected: float = 0.0
    lines: int = 0
    changed: set[str] = field(default_factory=set)
    seconds: float = 0.0


def scored(pool: Pool, levels: Levels, night: Flows, runs: int, budget: float = 1.0) -> Day:
    """Return what the pages of a date list, of so many runs."""
    day, before, listed = Day(), None, set[str]()
    midnight = dt.datetime.combine(DATE, dt.time(), dt.UTC)
    firsts = {int(n): float(night.seconds[night.episodes == n].min()) for n in np.unique(night.episodes) if n}
    day.attacks = len(firsts)
    for number in range(1, runs + 1):
        end = DAY_S * number / runs
        flows = night.take(np.flatnonzero(night.seconds < end))
        if not len(flows):
            continue
        counted = night_method.count(flows, pool.model, levels)
        look = Look(number, runs, midnight + dt.timedelta(seconds=end), before if runs > 1 else None)
        ranked = night_method.rank(counted, levels, budget, look=look)
        found = ranked.found
        ids = found.incidents.filter(found.incidents["shown"])["incident_id"].to_pylist()
        day.false |= {i for i, line in zip(ids, ranked.lines, strict=True) if is_false(flows, line)}
        for attack in compare(flows, ranked.lines).ranks:
            day.hours.setdefault(attack, (end - firsts[attack]) / 3600)
        day.changed |= listed - set(ids)
        listed |= set(ids)
        day.expected, day.lines = found.facts["false_incidents_expected"], len(ids)
        day.seconds += ranked.seconds
        before = Before(
            number / runs,
            day.expected,
            found.facts["alpha"],
            counted.traffic,
            counted.evidence,
            found.incidents.select(COLUMNS),
            found.alerts.select(ALERT_COLUMNS),
        )
    return day


def measure(pool: Pool, levels: Levels, kind: str, seeds: int, runs: int) -> Iterator[Day]:
    """Yield one date of each seed."""
    for seed in range(seeds):
        yield scored(pool, levels, Hospital(pool, KINDS[kind], seed, levels).night(0), runs)


def row_of(kind: str, runs: int, days: list[Day]) -> list[str]:
    """Return the figures of some dates as text; false incidents a date with an exact 95 % interval (Garwood 1936)."""
    false, n = sum(len(day.false) for day in days), len(days)
    low = stats.chi2.ppf(0.025, 2 * false) / 2 / n if false else 0.0
    high = stats.chi2.ppf(0.975, 2 * false + 2) / 2 / n
    attacks, hours = sum(day.attacks for day in days), sorted(h for day in days for h in day.hours.values())
    return [
        *(kind, str(runs), str(n)),
        f"{false / n:.2f} ({low:.2f}–{high:.2f})",
        f"{sum(day.expected for day in days) / n:.2f}",
        f"{len(hours)} of {attacks}" if attacks else "",
        f"{np.median(hours):.1f}, {np.quantile(hours, 0.9):.1f}" if hours else "",
        f"{sum(day.lines for day in days) / n:.1f}",
        str(sum(len(day.changed) for day in days)),
        f"{sum(day.seconds for day in days) / n:.2f}",
    ]


def main() -> int:
    """Run the benchmark; 0 whatever its figures are."""
    parser = argparse.ArgumentParser(prog="tests.bench.night_looks", description=__doc__)
    parser.add_argument("--lake", required=True)
    parser.add_argument("--model", default="gru_dnn-19-operational")
    parser.add_argument("--kinds", nargs="+", choices=tuple(KINDS), default=(*_BENIGN, *_ATTACKED))
    parser.add_argument("--runs", nargs="+", type=int, default=RUNS)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--pool", type=int, default=_POOL, help="benign flows that are scored")
    parser.add_argument("--out", default="runs/bench", help="folder for the scored flows")
    given = parser.parse_args()
    [uri] = artifact.choose_models(f"{given.lake}/models", [given.model], "latest")
    pool = pool_of(artifact.read_model(uri), given.pool, Path(given.out).resolve())
    levels, console = levels_of(pool.model), Console(width=160)
    table = Table("nights", "runs", "dates", "false a date", "expected", "found", "hours: median, 90 %", "lines",
                  "ids gone", "seconds")  # fmt: skip
    for kind in given.kinds:
        for runs in given.runs:
            begin = time.monotonic()
            days = list(measure(pool, levels, kind, given.seeds, runs))
            table.add_row(*row_of(kind, runs, days))
            console.print("|", " | ".join(row_of(kind, runs, days)), "|", f"{time.monotonic() - begin:.0f} s")
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
