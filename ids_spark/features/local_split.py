"""Which rows of local nights are held out for the threshold, and which train.

The last nights are held out, as a model will score nights that come after those it was trained on. Without two nights
the last rows of each source file are. Both are later traffic of devices that train: a threshold from devices that the
model has not seen misses attacks on those that it has (README, Decisions).
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

from ids_spark.base.arrays import Floats, Ids, Keys, Mask
from ids_spark.base.spark_tasks import run_each
from ids_spark.dataset.tables import TABLES
from ids_spark.ingest import row_hash
from ids_spark.lake.parquet import read_file

HeldOutBy = Literal["date", "rows"]
_FLOWS: Final = TABLES["flows"]
_NONE: Final = "none"
_HOUR: Final = 3_600_000_000
"""In microseconds."""


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
        by: Whole dates, or the last rows of each source file.
        dates: The dates in ISO 8601 that are held out; empty for rows.
        share: Share of the rows of each source file that is held out, where no dates are.
    """

    by: HeldOutBy
    dates: frozenset[str] = frozenset()
    share: float = 0.0

    @staticmethod
    def of_dates(dates: Sequence[str], share: float) -> "LocalHeldOut":
        """Choose what is held out: about a share of the dates, the last ones, at least one and never all of them.

        Args:
            dates: Of the rows, ascending.
            share: Of the dates, or of the rows of each source file.
        """
        if len(dates) < 2:
            return LocalHeldOut("rows", frozenset(), share)
        held = max(1, min(len(dates) - 1, int(share * len(dates) + 0.5)))
        return LocalHeldOut("date", frozenset(dates[-held:]), share)

    @staticmethod
    def of_facts(facts: Mapping[str, Any]) -> "LocalHeldOut":
        """Return the choice that a feature table has recorded, see `facts`."""
        by: HeldOutBy = facts["held_out_by"]
        dates = facts["held_out_dates"] if by == "date" else ()
        return LocalHeldOut(by, frozenset(dates), facts["held_out_share"])

    def facts(self, dates: Sequence[str]) -> dict[str, Any]:
        """Return the choice for the facts of a table, in JSON; dates: of the rows, ascending."""
        return {
            "held_out_by": self.by,
            "train_dates": [date for date in dates if date not in self.dates],
            "held_out_dates": [date for date in dates if self.by == "rows" or date in self.dates],
            "held_out_share": self.share,
        }

    def rows(self, table: pa.Table) -> Mask:
        """Return which rows are held out, shape (rows,); not those without a place, if no dates are.

        Args:
            table: Local rows with the columns `event_date` and `place`.
        """
        if self.by == "rows":
            later = pc.fill_null(pc.greater_equal(table["place"].cast(pa.float64()), 1 - self.share), False)
        else:
            later = pc.is_in(table["event_date"].cast(pa.string()), pa.array(sorted(self.dates), pa.string()))
        found: Mask = np.asarray(later)
        return found

    def blocks(self, table: pa.Table) -> Ids:
        """Return the block of each held-out row: rows that may be false alarms together; shape (rows,).

        A block's id is a hash of 24 bits of night, hour (of rows with a time) and device, or source file if the row has
        no device.

        Args:
            table: Local rows that are held out, with the columns `source_file`, `event_date`, `event_time` and
                `device`.
        """
        days = table["event_date"].cast(pa.int32()).fill_null(-1).to_numpy().astype(np.float64)
        times = table["event_time"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).fill_null(-_HOUR).to_numpy()
        keys = row_hash.row_keys([days, (times // _HOUR).astype(np.float64), *_names(table)])
        ids: Ids = (keys & 0xFFFFFF).astype(np.int32)
        return ids


def groups(table: pa.Table) -> Keys:
    """Return the group of each row, rows of one device, or of one source file if they name none; shape (rows,).

    Args:
        table: Local rows with the columns `source_file` and `device`.
    """
    return row_hash.row_keys(_names(table))


def _names(table: pa.Table) -> list[Floats]:
    named = np.asarray(table["device"].is_valid())
    names = np.where(named, _hashes(table["device"].fill_null("")), _hashes(table["source_file"]))
    return [names, named.astype(np.float64)]


def _hash(name: str) -> int:
    return zlib.crc32(name.encode("utf-8", "surrogatepass"))


def _hashes(column: pa.ChunkedArray) -> Floats:
    encoded = column.combine_chunks()
    encoded = encoded if isinstance(encoded, pa.DictionaryArray) else encoded.dictionary_encode()
    hashes = np.array([_hash(name) for name in encoded.dictionary.to_pylist()], dtype=np.float64)
    found: Floats = hashes[encoded.indices.to_numpy(zero_copy_only=False)]
    return found
