"""Part `skew`: many rows with one feature vector → `jobs/prepare.py`.

| case | 12 million rows in 72 files |
|---|---|
| `even` | hardly any vector twice, as in the data set |
| `third` | one vector is 30 % of all rows, in every file, so with every label |
| `copies` | one vector is ten million of the rows, with one label |

Duplicates, label conflicts and the rows of every class are counted exactly.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ids_spark.dataset.taxonomy import class19_of
from tests.bench import layouts, prep_checks
from tests.bench.prep_checks import WorkDiffers
from tests.bench.programs import DRIVER_MEMORY, Programs
from tests.bench.rounds import Case, Measured, Plan, Ratio, Taken

NAME: Final = "skew"
TITLE: Final = "Skew"
SCALES: Final = (1.0,)
QUICK_SCALES: Final = (0.1,)
_ROWS: Final = 12_000_000
_OFFICIAL_ROWS: Final = 8_775_013
_COPIES: Final = {"even": 0.0, "third": 0.3, "copies": 10 / 12}  # share of the rows
_CLASS: Final = {"copies": "DDoS-UDP"}  # of the copies; default: every class
_WHAT: Final = {
    "even": "hardly any vector twice",
    "third": "30 % of the rows are one vector, in all classes",
    "copies": "10 of 12 million rows are one vector, in one class",
}
CASES: Final = tuple(_COPIES)
ON_DEMAND: Final = ()
QUICK_CASES: Final = ("even", "third")
MINUTES: Final = (2.0, 2.0)
_GUESS_S: Final = 4.0
_BAR: Final = 1.5
_MB: Final = 2_500


def scales(given: Sequence[float]) -> tuple[float, ...]:
    """Return the share of twelve million rows."""
    return tuple(given) or SCALES


class Part:
    """The cases of this part."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._programs = plan, Programs(plan)
        self._sources: dict[str, Path] = {}
        self._copies: dict[str, layouts.Copies] = {}

    def cases(self) -> list[Case]:
        """Write the data sets and return the cases."""
        found = []
        for name in (name for name in CASES if name in self._plan.cases):
            rows = sum(self._make(name)["rows"].values())
            run, check = self._run(name), self._check(name)
            found.append(Case(NAME, name, self._plan.scales[0], rows, run, check, _GUESS_S, _WHAT[name]))
        return found

    def ratios(self, cases: Sequence[Measured]) -> list[Ratio]:
        """Return the wall time with copies over that without, and the memory in MB."""
        known = {one.case.name: one for one in cases}
        found = []
        for name in ("third", "copies"):
            if name in known and "even" in known:
                value = known[name].median("wall_s") / known["even"].median("wall_s")
                found.append(Ratio(f"skew_{name}_vs_even", value, _BAR))
        return found + [Ratio(f"skew_{name}_memory_mb", one.median("peak_rss_mb"), _MB) for name, one in known.items()]

    def facts(self) -> dict[str, object]:
        """Return facts that readers of the figures need."""
        copies = {name: sum(each.counts.values()) for name, each in self._copies.items()}
        data = "synthetic data set in the form of CICIoMT2024, 45 features, and copies of one vector"
        return {"data": data, "copies": copies, "spark_driver_memory": DRIVER_MEMORY}

    def _make(self, name: str) -> dict[str, Any]:
        """Write the data set of a case and return its facts."""
        rows, share = _ROWS * self._plan.scales[0], _COPIES[name]
        base = self._programs.synthesize((1 - share) * rows / _OFFICIAL_ROWS)
        if share:
            target = self._plan.scratch / name
            self._copies[name] = layouts.with_copies(base, target, round(share * rows), _CLASS.get(name))
        self._sources[name] = target if share else base
        facts: dict[str, Any] = json.loads((self._sources[name] / "_SYNTHETIC.json").read_text())
        return facts

    def _run(self, name: str) -> Callable[[Path], Taken]:
        def run(target: Path) -> Taken:
            return Taken(self._programs.prepare(self._sources[name], target, {"features.blocked_share": 0}))

        return run

    def _check(self, name: str) -> Callable[[Path], None]:
        def check(target: Path) -> None:
            source = self._sources[name]
            prep_checks.outcome_of_lake(name, target, source)
            facts = json.loads((source / "_SYNTHETIC.json").read_text())
            for split in ("train", "test"):
                expected: Counter[str] = Counter()
                for path, rows in facts["rows_per_file"].items():
                    if path.startswith(f"{split}/"):
                        expected[class19_of(Path(path).name)] += rows
                rate = self._copies[name].vector["Rate"][0] if name in self._copies else None
                found = _count(target / "flows" / f"split={split}", rate)
                _equal(f"{name}: rows of {split} by class", found.rows, expected)
                _equal(f"{name}: duplicates of {split}", found.duplicates, facts["duplicates"][split])
                if rate is not None:
                    _check_copies(f"{name}: copies of {split}", found, self._copies[name].of_split(split))

        return check


class _Counts:
    """Rows of a split: by class, those marked as duplicates, and of the copies those of each class and mark."""

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()
        self.duplicates = 0
        self.copies: Counter[str] = Counter()
        self.copies_duplicate: Counter[str] = Counter()
        self.copies_conflict: Counter[str] = Counter()


def _count(folder: Path, rate: pa.Scalar | None) -> _Counts:
    """Count rows and marks of a split; the copies are the rows with a rate."""
    found = _Counts()
    for path in sorted(folder.glob("*.parquet")):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=["class19", "duplicate", "label_conflict", "Rate"]):
                found.rows.update(_by_class(batch))
                found.duplicates += batch.column("duplicate").true_count
                if rate is not None:
                    copies = batch.filter(pc.equal(batch.column("Rate"), rate))
                    found.copies.update(_by_class(copies))
                    found.copies_duplicate.update(_by_class(copies.filter(copies.column("duplicate"))))
                    found.copies_conflict.update(_by_class(copies.filter(copies.column("label_conflict"))))
    return found


def _by_class(rows: pa.RecordBatch) -> dict[str, int]:
    return {each["values"]: each["counts"] for each in pc.value_counts(rows.column("class19")).to_pylist()}


def _check_copies(what: str, found: _Counts, expected: Mapping[str, int]) -> None:
    """All copies are there; all but the first of each class are duplicates; with several classes all conflict."""
    _equal(f"{what} by class", found.copies, expected)
    _equal(f"{what}, duplicates", found.copies_duplicate, {label: n - 1 for label, n in expected.items() if n > 1})
    _equal(f"{what}, label conflicts", found.copies_conflict, expected if len(expected) > 1 else {})


def _equal(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise WorkDiffers(f"{what}: {found}, expected {expected}")
