"""Part `prep`: raw flows in parquet → typed flows → deduplicated, scaled, shuffled features.

Every case reads the same synthetic data set and writes the tables that `work` lists. This project does more than the
others: it checks rules of data quality, quarantines, marks duplicates and label conflicts, keeps each
row's origin, counts every class in and out, and commits tables whole.

All cases run at the first scale, this project and polars also at the second: the difference of both is the cost of a
row without the start of a program. If the free memory is too small for polars at the second scale, half of the first
takes its place. At larger scales this project, pandas and polars run once; the latter two may hold as much memory as is
free, less 2 GB, so that they fail before the machine does.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import psutil

from tests.bench import prep_checks
from tests.bench.measure import OutOfMemory, Usage
from tests.bench.programs import DRIVER_MEMORY, Programs
from tests.bench.rounds import Case, Measured, Plan, Ratio, Taken

NAME: Final = "prep"
TITLE: Final = "Preprocessing"
SCALES: Final = (1.0, 2.0, 4.0)
QUICK_SCALES: Final = (0.1, 0.2)
_LOOPBACK: Final = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.ui.enabled": "false",
}
_WHAT: Final = {
    "ids_spark": "this project, one spark-submit",
    "pandas": "pandas and scikit-learn, one process",
    "polars": "polars, one process",
    "plain_spark": "Spark's DataFrames",
}
_GUESSES: Final = {"ids_spark": 4.0, "pandas": 8.0, "polars": 1.5, "plain_spark": 30.0}
CASES: Final = tuple(_GUESSES)
ON_DEMAND: Final = ("plain_spark",)
QUICK_CASES: Final = ("ids_spark", "pandas", "polars")
_GROWING: Final = QUICK_CASES
MINUTES: Final = (6.3, 2.0)
_RATIOS: Final = (
    ("prep_vs_polars_wall", "polars", "wall_s", 1.8),
    ("prep_vs_pandas_wall", "pandas", "wall_s", 0.35),
    ("prep_vs_pandas_memory", "pandas", "peak_rss_mb", 0.6),
    ("prep_vs_plain_spark_wall", "plain_spark", "wall_s", 0.3),
)
_MARGINAL: Final = 1.6
_MB: Final = 2_500
_SPARE: Final = 2_000_000_000  # bytes of memory that a case which may run out of it leaves
_POLARS_BYTES: Final = 11e9  # of private memory that it needs at scale 1


def scales(given: Sequence[float]) -> tuple[float, ...]:
    """Return the scales to run at: those given, or the usual ones."""
    return tuple(given) or SCALES


class Part:
    """The cases of this part; holds their results, to compare them."""

    def __init__(self, plan: Plan) -> None:
        """Write the package and Spark's settings once, so that a later change of the checkout affects no case."""
        self._plan = plan
        self._outcomes: dict[tuple[str, float], prep_checks.Outcome] = {}
        self._programs, self._defaults = Programs(plan), plan.scratch / "plain.conf"
        self._defaults.write_text("".join(f"{key} {value}\n" for key, value in _LOOPBACK.items()))
        self._sources: dict[float, Path] = {}
        self._ended: dict[str, float] = {}  # scale at which a case ran out of memory
        self._second = self._second_scale()

    def cases(self) -> list[Case]:
        """Write the data sets and return the cases."""
        first, chosen = self._plan.scales[0], self._plan.cases
        wanted = [(name, first, False) for name in CASES if name in chosen]
        if self._second is not None:
            wanted += [(name, self._second, False) for name in _GROWING if name in chosen and name != "pandas"]
        larger = [scale for scale in sorted(self._plan.scales[1:]) if scale not in (first, self._second)]
        wanted += [(name, scale, True) for scale in larger for name in _GROWING if name in chosen]
        rows = {}
        for scale in sorted({scale for _, scale, _ in wanted}):
            self._sources[scale] = self._programs.synthesize(scale)
            rows[scale] = sum(json.loads((self._sources[scale] / "_SYNTHETIC.json").read_text())["rows"].values())
        return [
            Case(
                *(NAME, name, scale, rows[scale], self._run(name, scale), self._check(name, scale)),
                *(_GUESSES[name], _WHAT[name], once),
            )
            for name, scale, once in wanted
        ]

    def ratios(self, cases: Sequence[Measured]) -> list[Ratio]:
        """Return the ratios whose cases ran, with their bars."""
        scale = self._plan.scales[0]
        known = {(one.case.name, one.case.scale): one for one in cases if not one.failed}
        ours = known.get(("ids_spark", scale))
        if ours is None:
            return []
        found = [
            Ratio(name, ours.median(figure) / known[other, scale].median(figure), bar)
            for name, other, figure, bar in _RATIOS
            if (other, scale) in known
        ]
        second = scale if self._second is None else self._second
        pairs = [(known.get((name, second)), known.get((name, scale))) for name in ("ids_spark", "polars")]
        for figure in ("cpu", "wall"):
            more = [a.median(f"{figure}_s") - b.median(f"{figure}_s") for a, b in pairs if a and b]
            if len(more) == len(pairs) and more[1]:
                found.append(Ratio(f"prep_marginal_{figure}_vs_polars", more[0] / more[1], _MARGINAL))
        found.append(Ratio("prep_memory_mb", ours.median("peak_rss_mb"), _MB))
        large = known.get(("ids_spark", 4 * scale))
        if large is not None:
            found.append(Ratio("prep_growth_1_to_4", large.median("wall_s") / ours.median("wall_s"), 4.4))
        return found

    def facts(self) -> dict[str, object]:
        """Return the data, Spark's memory, and the rows that each case wrote by split."""
        left = {f"{name} scale {scale:g}": dict(o.rows_left) for (name, scale), o in self._outcomes.items()}
        data = "synthetic data set in the form of CICIoMT2024, 45 features, parquet"
        marginal = None if self._second is None else [self._plan.scales[0], self._second]
        return {"data": data, "spark_driver_memory": DRIVER_MEMORY, "marginal_scales": marginal, "rows_left": left}

    def _second_scale(self) -> float | None:
        """Return the second scale; half of the first if the memory that is free is too small for polars at the second.

        None if only one scale was asked for.
        """
        if len(self._plan.scales) < 2:
            return None
        first, second = self._plan.scales[:2]
        return second if _free_memory() > _POLARS_BYTES * second else first / 2

    def _run(self, name: str, scale: float) -> Callable[[Path], Taken]:
        source, limited = self._sources[scale], scale > self._plan.scales[0]

        def run(target: Path) -> Taken:
            if name == "ids_spark":
                return Taken(self._programs.prepare(source, target, {"features.blocked_share": 0}))
            if name == "plain_spark":
                plain = ("--properties-file", str(self._defaults), "tests/bench/baseline_spark.py")
                return Taken(self._programs.submit(name, *plain, str(source), str(target)))
            if name in self._ended:
                return Taken(Usage(0, 0, 0), failed=f"out of memory at scale {self._ended[name]:g}")
            module, memory = f"tests.bench.baseline_{name}", _free_memory() if limited else None
            try:
                return Taken(self._programs.python(name, module, str(source), str(target), memory=memory))
            except OutOfMemory as ended:
                self._ended[name] = scale
                return Taken(ended.usage, failed="out of memory")

        return run

    def _check(self, name: str, scale: float) -> Callable[[Path], None]:
        def check(target: Path) -> None:
            source = self._sources[scale]
            if name == "ids_spark":
                found = prep_checks.outcome_of_lake(name, target, source)
            else:
                stds = json.loads((target / "result.json").read_text())["stds"]
                found = prep_checks.outcome(name, target, source, None, stds)
            for (other, its_scale), outcome in self._outcomes.items():
                if its_scale == scale:
                    prep_checks.compare(name, found, other, outcome)
            self._outcomes[name, scale] = found

        return check


def _free_memory() -> int:
    """Return the bytes that a program may hold on this machine."""
    return int(psutil.virtual_memory().available) - _SPARE
