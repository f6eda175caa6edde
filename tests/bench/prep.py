"""Part `prep`: raw flows in parquet → typed flows → deduplicated, scaled, shuffled features.

Every case reads the same synthetic data set and writes the tables that `work` lists. This project does more than the
others: it checks rules of data quality, quarantines, marks duplicates and label conflicts, keeps each
row's origin, counts every class in and out, and commits tables whole.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tests.bench import prep_checks
from tests.bench.programs import DRIVER_MEMORY, Programs
from tests.bench.rounds import Case, Measured, Plan, Ratio, Taken

NAME: Final = "prep"
SCALES: Final = (1.0, 0.25, 4.0)  # all cases run at the first, this project alone also at the others
_LOOPBACK: Final = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.ui.enabled": "false",
}
_GUESSES: Final = {"ids_spark": 5.0, "pandas": 8.0, "polars": 2.2, "plain_spark": 30.0}
CASES: Final = tuple(_GUESSES)
ON_DEMAND: Final = ()
_RATIOS: Final = (
    ("prep_vs_pandas_wall", "pandas", "wall_s", 0.6),
    ("prep_vs_pandas_memory", "pandas", "peak_rss_mb", 0.6),
    ("prep_vs_plain_spark_wall", "plain_spark", "wall_s", 0.3),
    ("prep_vs_polars_wall", "polars", "wall_s", None),
)


def scales(given: Sequence[float]) -> tuple[float, ...]:
    """Return the scales to run at: those given, all of them, or the usual ones."""
    return tuple(given) or SCALES


class Part:
    """The cases of this part; holds their results, to compare them."""

    def __init__(self, plan: Plan) -> None:
        """Write the package and Spark's settings once, so that a later change of the checkout affects no case."""
        self._plan = plan
        self._outcomes: dict[tuple[str, float], prep_checks.Outcome] = {}
        self._programs, self._defaults = Programs(plan), plan.scratch / "plain.conf"
        self._defaults.write_text("".join(f"{key} {value}\n" for key, value in _LOOPBACK.items()))

    def cases(self) -> list[Case]:
        """Write the data sets and return the cases: all at one scale, this project also at the scales of growth."""
        wanted = [(name, self._plan.scales[0]) for name in CASES if name in self._plan.cases]
        if "ids_spark" in self._plan.cases:
            wanted += [("ids_spark", other) for other in self._plan.scales[1:] if other != self._plan.scales[0]]
        rows = {}
        for each in sorted({scale for _, scale in wanted}):
            source = self._programs.synthesize(each, min_rows_per_file=1)
            rows[each] = sum(json.loads((source / "_SYNTHETIC.json").read_text())["rows"].values())
        return [
            Case(NAME, name, each, rows[each], self._run(name, each), self._check(name, each), _GUESSES[name])
            for name, each in wanted
        ]

    def ratios(self, cases: Sequence[Measured]) -> list[Ratio]:
        """Return the ratios whose cases ran, with their bars."""
        scale = self._plan.scales[0]
        known = {(one.case.name, one.case.scale): one for one in cases}
        ours = known.get(("ids_spark", scale))
        if ours is None:
            return []
        found = [
            Ratio(name, ours.median(figure) / known[other, scale].median(figure), bar)
            for name, other, figure, bar in _RATIOS
            if (other, scale) in known
        ]
        large = known.get(("ids_spark", 4 * scale))
        if large is not None:
            found.append(Ratio("prep_growth_1_to_4", large.median("wall_s") / ours.median("wall_s"), 4.4))
        return found

    def facts(self) -> dict[str, object]:
        """Return the data, Spark's memory, and the rows that each case wrote by split."""
        left = {f"{name} scale {scale:g}": dict(o.rows_left) for (name, scale), o in self._outcomes.items()}
        data = "synthetic data set in the form of CICIoMT2024, 45 features, parquet"
        return {"data": data, "spark_driver_memory": DRIVER_MEMORY, "rows_left": left}

    def _source(self, scale: float) -> Path:
        return self._plan.scratch / f"synthetic-{scale:g}"

    def _run(self, name: str, scale: float) -> Callable[[Path], Taken]:
        source = str(self._source(scale))

        def run(target: Path) -> Taken:
            if name == "ids_spark":
                ingest = self._programs.job("ingest", {"ingest.source": source}, target)
                return Taken(ingest.then(self._programs.job("features", {"features.blocked_share": 0}, target)))
            if name == "plain_spark":
                plain = ("--properties-file", str(self._defaults), "tests/bench/baseline_spark.py")
                return Taken(self._programs.submit(name, *plain, source, str(target)))
            return Taken(self._programs.python(name, f"tests.bench.baseline_{name}", source, str(target)))

        return run

    def _check(self, name: str, scale: float) -> Callable[[Path], None]:
        def check(target: Path) -> None:
            quarantine = None
            if name == "ids_spark":
                recipe = target / "features" / "paper"
                fitted = json.loads((recipe / "_preprocessor.json").read_text())["features"]
                stds = {feature["name"]: feature["std"] for feature in fitted if feature["kept"]}
                quarantine = target / "quarantine"
                for split in recipe.glob("split=*"):
                    split.rename(target / "features" / split.name)
            else:
                stds = json.loads((target / "result.json").read_text())["stds"]
            found = prep_checks.outcome(name, target, self._source(scale), quarantine, stds)
            for (other, its_scale), outcome in self._outcomes.items():
                if its_scale == scale:
                    prep_checks.compare(name, found, other, outcome)
            self._outcomes[name, scale] = found

        return check
