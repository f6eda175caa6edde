"""Part `files`: the same rows in one file and in many → `jobs/ingest.py`.

| case | source |
|---|---|
| `csv_many` | the train split in the 51 CSV files of the publisher |
| `csv_one` | the same lines in one CSV file, with a column of labels |
| `csv_one_gzip` | that file compressed; once |
| `parquet_many` | the same rows in 51 parquet files; once |
| `parquet_one` | the same rows in one row group of one parquet file; once, for its memory |

All must give the same rows, counts and marks.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.parquet as pq

from tests.bench import layouts, same_tables
from tests.bench.programs import DRIVER_MEMORY, Programs
from tests.bench.rounds import Case, Measured, Plan, Ratio, Taken

NAME: Final = "files"
TITLE: Final = "Single files"
SCALES: Final = (1.0,)
QUICK_SCALES: Final = (0.1,)
_WHAT: Final = {
    "csv_many": "51 CSV files",
    "csv_one": "one CSV file",
    "csv_one_gzip": "one CSV file, gzip",
    "parquet_many": "51 parquet files",
    "parquet_one": "one parquet file with one row group",
}
_GUESS_S: Final = {
    "csv_many": 7.0,
    "csv_one": 8.0,
    "csv_one_gzip": 15.0,
    "parquet_many": 3.0,
    "parquet_one": 4.0,
}
CASES: Final = tuple(_WHAT)
ON_DEMAND: Final = ()
QUICK_CASES: Final = ("csv_many", "csv_one")
MINUTES: Final = (3.0, 1.2)
_ONCE: Final = ("csv_one_gzip", "parquet_many", "parquet_one")
_RATIOS: Final = (
    ("files_one_csv_vs_many", "csv_one", "csv_many", 1.3),
    ("files_one_gzip_vs_many", "csv_one_gzip", "csv_many", None),
    ("files_one_parquet_vs_many", "parquet_one", "parquet_many", None),
)
_MB: Final = 2_500
_OF_FILES: Final = frozenset(("source_file", "source_row", "duplicate"))
"""Columns that depend on the files: also which one of equal rows is the first."""


class RowsDiffer(RuntimeError):
    """Raised when two cases did not write the same rows, or not those of the data set."""


def scales(given: Sequence[float]) -> tuple[float, ...]:
    """Return the scale of the data set whose train split is read."""
    return tuple(given) or SCALES


class Part:
    """The cases of this part; holds the hash of the rows of the first, to compare the others with."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._programs = plan, Programs(plan)
        self._sources: dict[str, Path] = {}
        self._facts: dict[str, dict[str, int]] = {}
        self._first: tuple[str, same_tables.Hashes] | None = None

    def cases(self) -> list[Case]:
        """Write the files and return the cases."""
        wanted = [name for name in CASES if name in self._plan.cases]
        for name in wanted:
            self._sources[name] = self._make(name)
        scale, rows = self._plan.scales[0], self._facts["rows"]["train"]
        return [
            Case(
                *(NAME, name, scale, rows, self._run(name), self._check(name)),
                *(_GUESS_S[name], _WHAT[name], name in _ONCE),
            )
            for name in wanted
        ]

    def ratios(self, cases: Sequence[Measured]) -> list[Ratio]:
        """Return the wall time of one file over that of many, and the memory in MB."""
        known = {one.case.name: one for one in cases}
        found = [
            Ratio(name, known[one].median("wall_s") / known[many].median("wall_s"), bar)
            for name, one, many, bar in _RATIOS
            if one in known and many in known
        ]
        barred = ("csv_one", "parquet_one")
        memory = {name: known[name].median("peak_rss_mb") for name in barred if name in known}
        return found + [Ratio(f"files_{name}_memory_mb", peak, _MB) for name, peak in memory.items()]

    def facts(self) -> dict[str, object]:
        """Return facts that readers of the figures need."""
        sizes = {name: _size(source) for name, source in self._sources.items()}
        data = "train split of a synthetic data set in the form of CICIoMT2024, 45 features"
        return {"data": data, "bytes": sizes, "spark_driver_memory": DRIVER_MEMORY}

    def _make(self, name: str) -> Path:
        """Return the source of a case; its files are made when they are first needed."""
        scale, kind = self._plan.scales[0], name.partition("_")[0]
        data = self._programs.synthesize(scale, **({"format": "csv"} if kind == "csv" else {}))
        self._facts = json.loads((data / "_SYNTHETIC.json").read_text())
        if name.endswith("_many"):
            return data / "train"
        if name == "csv_one_gzip":
            source = self._plan.scratch / "gzip" / "train.csv.gz"
            source.parent.mkdir()
            layouts.gzipped(self._one_csv(data), source)
        elif name == "csv_one":
            source = self._one_csv(data)
        else:
            source = self._plan.scratch / "parquet" / "train.parquet"
            source.parent.mkdir()
            layouts.one_parquet(data / "train", source)
        return source.parent

    def _one_csv(self, data: Path) -> Path:
        file = self._plan.scratch / "csv" / "train.csv"
        if not file.exists():
            file.parent.mkdir()
            layouts.one_csv(data / "train", file)
        return file

    def _run(self, name: str) -> Callable[[Path], Taken]:
        def run(target: Path) -> Taken:
            return Taken(self._programs.job("ingest", {"ingest.source": self._sources[name]}, target))

        return run

    def _check(self, name: str) -> Callable[[Path], None]:
        def check(target: Path) -> None:
            files = sorted((target / "flows" / "split=train").glob("*.parquet"))
            marked = sum(pq.read_table(file, columns=["duplicate"])["duplicate"].to_numpy().sum() for file in files)
            refused = sum(pq.read_metadata(file).num_rows for file in (target / "quarantine").rglob("*.parquet"))
            hashes = np.sort(same_tables.row_hashes(files, _OF_FILES))
            rows, duplicates = self._facts["rows"]["train"], self._facts["duplicates"]["train"]
            if (len(hashes) + refused, int(marked)) != (rows, duplicates):
                raise RowsDiffer(
                    f"{name}: {len(hashes)} flows, {refused} quarantined, {marked} duplicates; expected {rows} rows,"
                    f" {duplicates} duplicates"
                )
            other, expected = self._first = self._first or (name, hashes)
            if not np.array_equal(hashes, expected):
                raise RowsDiffer(f"{name} and {other} did not write the same rows")

        return check


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
