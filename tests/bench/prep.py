"""Part `prep`: raw flows in parquet → typed flows → deduplicated, scaled, shuffled features.

Every case reads the same synthetic replica and writes the tables that `work` names. This project does more than is
asked of the others: it checks rules of data quality, quarantines, marks duplicates and two-label vectors, keeps each
row's origin, counts every class in and out, and commits tables whole.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.bench import prep_checks
from tests.bench.measure import ROOT, Usage, measured
from tests.bench.rounds import Case, Measured, Plan, Ratio

NAME: Final = "prep"
DRIVER_MEMORY: Final = "2g"  # of every Spark case, for want of which plain Spark would fail or spill
_LOOPBACK: Final = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.ui.enabled": "false",
}
_GUESSES: Final = {"ids_spark": 5.0, "pandas": 8.0, "polars": 2.2, "plain_spark": 30.0}
CASES: Final = tuple(_GUESSES)
_RATIOS: Final = (
    ("prep_vs_pandas_wall", "pandas", "wall_s", 0.6),
    ("prep_vs_pandas_memory", "pandas", "peak_rss_mb", 0.6),
    ("prep_vs_plain_spark_wall", "plain_spark", "wall_s", 0.3),
    ("prep_vs_polars_wall", "polars", "wall_s", None),
)


class Prep:
    """The cases of this part; holds what they left, to compare."""

    def __init__(self, plan: Plan) -> None:
        """Write the package and Spark's settings once, so that a change during the run changes no case."""
        self._plan = plan
        self._outcomes: dict[tuple[str, float], prep_checks.Outcome] = {}
        self._zip, self._defaults = plan.scratch / "ids_spark.zip", plan.scratch / "plain.conf"
        self._python("package", "ids_spark.package", str(self._zip))
        self._defaults.write_text("".join(f"{key} {value}\n" for key, value in _LOOPBACK.items()))

    def cases(self) -> list[Case]:
        """Make the replicas and return the cases: all at one scale, this project also at the scales of growth."""
        wanted = [(name, self._plan.scale) for name in CASES if name in self._plan.cases]
        if "ids_spark" in self._plan.cases:
            wanted += [("ids_spark", other) for other in self._plan.growth if other != self._plan.scale]
        rows = {}
        for each in sorted({scale for _, scale in wanted}):
            replica = self._replica(each)
            told = {"replica.target": replica, "replica.scale": each, "replica.min_rows_per_file": 1}
            self._job("replica", told, self._plan.scratch / "lake")
            rows[each] = sum(json.loads((replica / "_SYNTHETIC.json").read_text())["rows"].values())
        return [
            Case(NAME, name, each, rows[each], self._run(name, each), self._check(name, each), _GUESSES[name])
            for name, each in wanted
        ]

    def ratios(self, cases: Sequence[Measured]) -> list[Ratio]:
        """Return the ratios whose cases ran, with their bars."""
        scale = self._plan.scale
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
        """Return the data, Spark's memory, and the rows that each case left by split."""
        left = {f"{name} scale {scale:g}": dict(o.rows_left) for (name, scale), o in self._outcomes.items()}
        data = "synthetic replica of CICIoMT2024, 45 features, parquet"
        return {"data": data, "spark_driver_memory": DRIVER_MEMORY, "rows_left": left}

    def _replica(self, scale: float) -> Path:
        return self._plan.scratch / f"replica-{scale:g}"

    def _env(self) -> dict[str, str]:
        """Return the environment of every subprocess: this checkout and interpreter, scratch beside the data."""
        return {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYSPARK_PYTHON": sys.executable,
            "PYSPARK_DRIVER_PYTHON": sys.executable,
            "SPARK_CONF_DIR": str(ROOT / "conf" / "spark"),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_LOCAL_DIRS": str(self._plan.scratch / "spark"),
            "POLARS_MAX_THREADS": str(len(self._plan.cpus)),
        }

    def _submit(self, log: str, *arguments: str) -> Usage:
        beside = Path(sys.executable).parent / "spark-submit"
        program = shutil.which("spark-submit") or str(beside)
        command = [program, "--master", f"local[{len(self._plan.cpus)}]", "--driver-memory", DRIVER_MEMORY, *arguments]
        return measured(command, self._plan.logs / f"{log}.log", self._plan.cpus, self._env())

    def _python(self, log: str, module: str, *arguments: str) -> Usage:
        command = [sys.executable, "-m", module, *arguments]
        return measured(command, self._plan.logs / f"{log}.log", self._plan.cpus, self._env())

    def _job(self, name: str, settings: Mapping[str, object], lake: Path) -> Usage:
        options = [part for key, value in {"lake": lake, **settings}.items() for part in ("--set", f"{key}={value}")]
        return self._submit("ids_spark", "--py-files", str(self._zip), f"jobs/{name}.py", *options)

    def _run(self, name: str, scale: float) -> Callable[[Path], Usage]:
        source = str(self._replica(scale))

        def run(target: Path) -> Usage:
            if name == "ids_spark":
                ingest = self._job("ingest", {"ingest.source": source}, target)
                return ingest.then(self._job("features", {}, target))
            if name == "plain_spark":
                plain = ("--properties-file", str(self._defaults), "tests/bench/baseline_spark.py")
                return self._submit(name, *plain, source, str(target))
            return self._python(name, f"tests.bench.baseline_{name}", source, str(target))

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
            found = prep_checks.outcome(name, target, self._replica(scale), quarantine, stds)
            for (other, its_scale), outcome in self._outcomes.items():
                if its_scale == scale:
                    prep_checks.compare(name, found, other, outcome)
            self._outcomes[name, scale] = found

        return check
