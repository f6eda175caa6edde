"""Which rows of local nights are held out for the threshold, and which train.

The last nights are held out, as a model will score nights that come after those it was trained on. Without two nights
whole source files are held out, and of a single file runs of its rows.
"""

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark import SparkContext

from ids_spark.base.arrays import Floats, Ids, Mask
from ids_spark.base.spark_tasks import run_each
from ids_spark.dataset.tables import TABLES
from ids_spark.features.validation_rows import NO_BLOCK, HeldOut
from ids_spark.ingest import row_hash
from ids_spark.lake.parquet import read_file

HeldOutBy = Literal["date", "source", "rows"]
_FLOWS: Final = TABLES["flows"]
_NONE: Final = "none"


@dataclass
class Survey:
    """What the rows of `flows/split=local` are.

    Attributes:
        rows: Rows that are in use, by date in ISO 8601; `none` without one.
        source_files: The same rows by source file.
        devices: Names of their devices.
        left_out: Rows that are left out, by reason.
    """

    rows: Counter[str] = field(default_factory=Counter)
    source_files: Counter[str] = field(default_factory=Counter)
    devices: set[str] = field(default_factory=set)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Survey") -> None:
        """Add the rows of another file."""
        self.rows += other.rows
        self.source_files += other.source_files
        self.devices |= other.devices
        self.left_out += other.left_out

    @property
    def dates(self) -> list[str]:
        """Dates with rows in use, ascending."""
        return sorted(set(self.rows) - {_NONE})


def survey(spark_context: SparkContext, uris: Sequence[str]) -> Survey:
    """Count the rows of the files of `flows/split=local`."""

    def count(uri: str) -> Survey:
        table = read_file(uri, _FLOWS, ["source_file", "event_date", "device", "left_out"], {})
        unused = table["left_out"].is_valid()
        used = table.filter(pc.invert(unused))
        dates = used["event_date"].cast(pa.string()).fill_null(_NONE)
        devices = set(pc.unique(used["device"].drop_null()).to_pylist())
        reasons = table["left_out"].filter(unused)
        return Survey(_counted(dates), _counted(used["source_file"]), devices, _counted(reasons))

    total = Survey()
    for found in run_each(spark_context, uris, count):
        total.add(found)
    return total


def _counted(column: pa.ChunkedArray) -> Counter[str]:
    return Counter({each["values"]: each["counts"] for each in column.value_counts().to_pylist()})


@dataclass(frozen=True)
class LocalHeldOut:
    """Which local rows are held out.

    Attributes:
        by: Whole dates, whole source files, or runs of rows.
        names: The dates in ISO 8601, or the source files, that are held out; empty for runs of rows.
        share: Share of the runs of rows that is held out, chosen by hash.
        run_rows: Rows of such a run in its source file.
    """

    by: HeldOutBy
    names: frozenset[str] = frozenset()
    share: float = 0.0
    run_rows: int = 200

    @staticmethod
    def of_survey(found: Survey, share: float, run_rows: int) -> "LocalHeldOut":
        """Choose what is held out of some rows: about a share, at least one date or file, and never all of them.

        Args:
            found: The rows.
            share: Of the dates; of the files, and of their rows; or of the runs.
            run_rows: Rows of a run.
        """
        dates = found.dates
        if len(dates) > 1:
            return LocalHeldOut("date", frozenset(dates[-_number(share, len(dates)) :]), share, run_rows)
        if len(found.source_files) > 1:
            return LocalHeldOut("source", frozenset(_chosen_files(found.source_files, share)), share, run_rows)
        return LocalHeldOut("rows", frozenset(), share, run_rows)

    @staticmethod
    def of_facts(facts: Mapping[str, Any]) -> "LocalHeldOut":
        """Return the choice that a feature table has recorded, see `facts`."""
        names = facts["held_out_dates"] if facts["held_out_by"] == "date" else facts["held_out_sources"]
        return LocalHeldOut(facts["held_out_by"], frozenset(names), facts["held_out_share"], facts["run_rows"])

    def facts(self, found: Survey) -> dict[str, Any]:
        """Return the choice for the facts of a table, in JSON."""
        held = [date for date in found.dates if self.by != "date" or date in self.names]
        train = [date for date in found.dates if self.by != "date" or date not in self.names]
        return {
            "held_out_by": self.by,
            "train_dates": train,
            "held_out_dates": held,
            "held_out_sources": sorted(self.names) if self.by == "source" else [],
            "held_out_share": self.share,
            "run_rows": self.run_rows,
        }

    def rows(self, table: pa.Table) -> Mask:
        """Return which rows are held out, shape (rows,).

        Args:
            table: Local rows with the columns `source_file`, `source_row` and `event_date`.
        """
        if self.by == "rows":
            in_run: Mask = self._runs(table) != NO_BLOCK
            return in_run
        column = table["event_date"].cast(pa.string()) if self.by == "date" else table["source_file"]
        found: Mask = np.asarray(pc.is_in(column, pa.array(sorted(self.names), pa.string())))
        return found

    def blocks(self, table: pa.Table) -> Ids:
        """Return the block of each held-out row: rows that may be false alarms together; shape (rows,).

        A block's id is a hash of 24 bits: of night and device, or night and source file if the row has no device; of
        the source file; or of the run.

        Args:
            table: Local rows that are held out, with the columns `source_file`, `source_row`, `event_date`, `device`.
        """
        if self.by == "rows":
            return self._runs(table)
        files = _hashes(table["source_file"])
        if self.by == "source":
            return _ids([files])
        devices = table["device"]
        names = np.where(np.asarray(devices.is_valid()), _hashes(devices.fill_null("")), files)
        days = table["event_date"].cast(pa.int32()).to_numpy().astype(np.float64)
        return _ids([days, names, np.asarray(devices.is_valid()).astype(np.float64)])

    def _runs(self, table: pa.Table) -> Ids:
        everything = np.ones(len(table), dtype=np.bool_)
        rule = HeldOut(0.0, self.share, self.run_rows)
        return rule.blocks(table["source_file"], table["source_row"].to_numpy(), everything)


def _number(share: float, of: int) -> int:
    return max(1, min(of - 1, int(share * of + 0.5)))


def _chosen_files(files: Mapping[str, int], share: float) -> list[str]:
    """Choose files in the order of their hashes, at most a share of them and of their rows; else the smallest one."""
    most_rows, most = share * sum(files.values()), _number(share, len(files))
    chosen: list[str] = []
    for name in sorted(files, key=lambda name: (_hash(name), name)):
        if len(chosen) < most and sum(files[each] for each in chosen) + files[name] <= most_rows:
            chosen.append(name)
    return chosen or [min(files, key=lambda name: (files[name], name))]


def _hash(name: str) -> int:
    return zlib.crc32(name.encode("utf-8", "surrogatepass"))


def _hashes(column: pa.ChunkedArray) -> Floats:
    encoded = column.combine_chunks()
    encoded = encoded if isinstance(encoded, pa.DictionaryArray) else encoded.dictionary_encode()
    hashes = np.array([_hash(name) for name in encoded.dictionary.to_pylist()], dtype=np.float64)
    found: Floats = hashes[encoded.indices.to_numpy(zero_copy_only=False)]
    return found


def _ids(columns: Sequence[Floats]) -> Ids:
    keys = row_hash.row_keys(columns) if len(columns[0]) else np.empty(0, dtype=np.int64)
    ids: Ids = (keys & 0xFFFFFF).astype(np.int32)
    return ids
