"""Benchmark of nights: what lists of incidents are worth on many synthetic nights with truth; `make nights` calls it.

    python -m tests.bench.nights --lake runs/nightly --seeds 20

Each seed gives one hospital of each kind (`night_worlds`) and one measured night, of benign kinds five. A list is made
without earlier nights, and after five benign nights of the same hospital; for comparison as version 0.2 made it. It
prints tables and writes `nights.json` and `nights.png` to the folder `--out`.
"""

import argparse
import itertools
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from rich.console import Console

from ids_spark.base.arrays import Ints
from ids_spark.models import artifact
from ids_spark.score.night_incidents import Earlier, Levels, levels_of
from tests.bench import baseline_ranking, night_method, night_report, night_verdicts
from tests.bench.night_flows import Flows, Pool, pool_of, with_measured_rows
from tests.bench.night_measures import Listed, Pooled, compare, lost
from tests.bench.night_method import Counted
from tests.bench.night_report import FIRST, LATER, OLD, Results
from tests.bench.night_worlds import KINDS, Hospital, Kind, no_attacks

MODEL: Final = "gru_dnn-19-operational"
BUDGETS: Final = (1.0, 5.0)
POOL: Final = 4_000_000
EVERY: Final = (*KINDS, night_verdicts.KIND.name)
_ENOUGH_FOR_HISTORY: Final = 100_000  # flows of a night
_EARLIER: Final = 5  # nights
_BENIGN_NIGHTS: Final = 5  # measured, of each seed
_FIRST_BENIGN: Final = 100  # number of the first of them


class Seed:
    """The hospitals of one seed."""

    def __init__(self, pool: Pool, levels: Levels, seed: int) -> None:
        self.pool, self.levels, self.seed = pool, levels, seed
        self._histories: dict[tuple[Any, ...], Earlier] = {}

    def hospital(self, kind: Kind) -> Hospital:
        """Return the hospital of a kind."""
        return Hospital(self.pool, kind, self.seed, self.levels)

    def history(self, hospital: Hospital) -> Earlier:
        """Return the history after some benign nights."""
        if hospital.kind.world not in self._histories:
            nights: list[pa.Table] = []
            for number in range(1, _EARLIER + 1):
                counted = self.count(hospital.night(number, no_attacks))
                ranked = night_method.rank(counted, self.levels, BUDGETS[0], night_method.earlier(nights))
                nights.append(ranked.found.history)
            self._histories[hospital.kind.world] = night_method.earlier(nights)
        return self._histories[hospital.kind.world]

    def count(self, flows: Flows) -> Counted:
        """Return a night as counted."""
        return night_method.count(flows, self.pool.model, self.levels)

    def measure(self, kind: Kind) -> Iterator[tuple[str, Listed]]:
        """Yield the figures of each night of a kind for each way to make the list."""
        hospital = self.hospital(kind)
        numbers = [_FIRST_BENIGN + i for i in range(_BENIGN_NIGHTS)] if kind.attacks is no_attacks else [0]
        histories: dict[str, Earlier | None] = {FIRST: None}
        if kind.flows >= _ENOUGH_FOR_HISTORY:
            histories[LATER] = self.history(hospital)
        for number in numbers:
            flows = hospital.night(number)
            plain = flows.take(np.arange(len(flows) - kind.spoofed)) if kind.spoofed else None
            listed = _against(flows, kind.spoofed > 0)
            model = self.pool.model
            old_plain = baseline_ranking.lines(plain, model) if plain else []
            yield OLD, listed(baseline_ranking.lines(flows, model), old_plain, math.nan, 0.0)
            counted, counted_plain = self.count(flows), self.count(plain) if plain else None
            for budget, (name, history) in itertools.product(BUDGETS, histories.items()):
                ranked = night_method.rank(counted, self.levels, budget, history)
                without = night_method.rank(counted_plain, self.levels, budget, history) if counted_plain else None
                plain_lines = without.lines if without else []
                yield (
                    f"{name}, N = {budget:g}",
                    listed(ranked.lines, plain_lines, ranked.promised, ranked.seconds),
                )

    def after_verdicts(self) -> Iterator[tuple[str, Listed]]:
        """Yield the figures of the nights after verdicts, without and with them."""
        hospital = self.hospital(night_verdicts.KIND)
        for budget in BUDGETS:
            for night in night_verdicts.nights_after(hospital, self.levels, budget):
                for name, found in night.items():
                    yield f"{name}, N = {budget:g}", found


def _against(flows: Flows, spoofed: bool) -> Callable[[list[Ints], list[Ints], float, float], Listed]:
    """Return a comparison of lines with the truth of a night; its last attack is the spoofed one, if there is any."""
    ignored = {int(flows.episodes.max())} if spoofed else set()

    def listed(lines: list[Ints], plain_lines: list[Ints], promised: float, seconds: float) -> Listed:
        return replace(compare(flows, lines, promised, seconds, ignored), lost=lost(lines, plain_lines))

    return listed


_work: dict[str, Any] = {}


def _start(lake: str, out: str, data: str) -> None:
    """Read model and benign flows, once in each process."""
    _work["pool"] = pool = _pool(lake, Path(out))
    if data:
        _work["pool"] = with_measured_rows(pool, Path(data))
    _work["levels"] = levels_of(pool.model)


def _pool(lake: str, out: Path) -> Pool:
    [uri] = artifact.choose_models(f"{lake}/models", [MODEL], "latest")
    return pool_of(artifact.read_model(uri), POOL, out)


def _measured(work: tuple[int, Collection[str]]) -> list[tuple[str, str, Listed]]:
    """Return kind, way to make the list and figures of each night of a seed and some kinds."""
    seed, kinds = work
    one = Seed(_work["pool"], _work["levels"], seed)
    found = [
        (kind.name, name, listed) for kind in KINDS.values() if kind.name in kinds for name, listed in one.measure(kind)
    ]
    if night_verdicts.KIND.name in kinds:
        found += [(night_verdicts.KIND.name, name, listed) for name, listed in one.after_verdicts()]
    return found


def measure(
    lake: str, seeds: int, out: Path, processes: int, data: str = "", kinds: Collection[str] = EVERY
) -> Iterator[Results]:
    """Yield the figures so far, by kind and way to make the list, after each seed."""
    _pool(lake, out)  # drawn once
    results: Results = {}
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, _start, (lake, str(out), data)) as pool:
        for found in pool.imap_unordered(_measured, [(seed, kinds) for seed in range(seeds)]):
            for kind, name, listed in found:
                results.setdefault(kind, {}).setdefault(name, Pooled()).nights.append(listed)
            yield results


def main() -> int:
    """Run the benchmark; 0 whatever its figures are."""
    parser = argparse.ArgumentParser(prog="tests.bench.nights", description=__doc__)
    parser.add_argument("--lake", required=True, help=f"lake with the model {MODEL}")
    parser.add_argument(
        "--data", default="", help="folder with test/*.csv: measured rows, of a model of their train rows"
    )
    parser.add_argument("--kinds", nargs="+", choices=EVERY, default=EVERY)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--out", default="runs/bench", help="folder for nights.json and nights.png")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    given = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 150)
    out = Path(given.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    results: Results = {}
    for done, found in enumerate(measure(given.lake, given.seeds, out, given.processes, given.data, given.kinds), 1):
        results, seconds = found, time.monotonic() - started
        night_report.write(out, results, {"seeds": done, "model": MODEL, "seconds": round(seconds)})
        left = seconds / done * (given.seeds - done)
        console.print(f"nights: {done} of {given.seeds} seeds, about {left / 60:.0f} min left")
    night_report.show(console, results)
    console.print(f"figures: {out / 'nights.json'}, {out / 'nights.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
