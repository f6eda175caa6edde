"""Which rows of local nights are kept if there are more than the settings allow, chosen by hash.

A device with much traffic must not hide the others, so each has a most number of rows of its own; what is left is
thinned to the most rows of all. Both choices are by hashes of file and row number, independent of each other and of
the values of a row, and the same on any cluster.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from pyspark import SparkContext

from ids_spark.base.arrays import Counts, Ints, Keys, Mask
from ids_spark.base.spark_tasks import run_shuffled
from ids_spark.ingest import row_hash

Item = TypeVar("Item")
NO_DEVICE: Final = 0
"""Key of rows without a device."""
_ROWS_PER_TASK: Final = 4_000_000
_BINS: Final = 1 << 16
_SHIFT: Final = np.uint64(48)
_Record = tuple[bytes, bytes, bytes]


@dataclass(frozen=True)
class Caps:
    """Which rows are kept.

    Attributes:
        devices: Highest hash that is kept, by key of the device; a device that is not listed keeps all of its rows.
        bins: Of the 2^16 bins of the second hash, those that are kept; None: all.
    """

    devices: Mapping[int, int] = field(default_factory=dict)
    bins: int | None = None

    def kept(self, file: int, rows: Ints, devices: Keys) -> Mask:
        """Return which rows of a file are kept, shape (rows,).

        Args:
            file: A hash of 32 bits of its name.
            rows: Row numbers in it.
            devices: Key of the device of each row, `NO_DEVICE` without one.
        """
        if not self.devices and self.bins is None:
            return np.ones(len(rows), dtype=np.bool_)
        of_device, of_all = _hashes(file, rows)
        keys, places = np.unique(devices, return_inverse=True)
        highest = np.array([self.devices.get(int(key), 2**64 - 1) for key in keys], dtype=np.uint64)
        kept: Mask = of_device <= highest[places] if len(rows) else np.ones(0, dtype=np.bool_)
        return kept if self.bins is None else kept & (_bins(of_all) < self.bins)


def caps_of(
    spark_context: SparkContext,
    items: Sequence[Item],
    rows_of: Callable[[Item], Iterator[tuple[int, Ints, Keys]]],
    rows: int,
    most_of_device: int,
    most: int,
) -> Caps:
    """Return which rows are kept of some files.

    Args:
        spark_context: Its executors read and count.
        items: Each is one task.
        rows_of: Yields the rows of an item, as `Caps.kept` takes them.
        rows: Their number, or more.
        most_of_device: Most rows of one device; rows without a device are of none.
        most: Most rows of all.
    """
    partitions = max(spark_context.defaultParallelism, rows // _ROWS_PER_TASK)

    def scatter(item: Item) -> Iterator[tuple[int, _Record]]:
        for file, numbers, devices in rows_of(item):
            hashes = _hashes(file, numbers)
            owners = np.where(devices == NO_DEVICE, hashes[0].view(np.int64), devices)
            targets = owners.view(np.uint64) % np.uint64(partitions)
            for target in range(partitions):
                at = np.flatnonzero(targets == target)
                yield target, (devices[at].tobytes(), hashes[0][at].tobytes(), hashes[1][at].tobytes())

    def gather(_: int, records: Iterable[_Record]) -> tuple[dict[int, int], Counts]:
        parts = list(records)
        devices = np.frombuffer(b"".join(part[0] for part in parts), dtype=np.int64)
        of_device, of_all = (np.frombuffer(b"".join(part[i] for part in parts), dtype=np.uint64) for i in (1, 2))
        return _highest(devices, of_device, of_all, most_of_device)

    highest: dict[int, int] = {}
    counts = np.zeros(_BINS, dtype=np.int64)
    for own, kept in run_shuffled(spark_context, items, partitions, scatter, gather):
        highest |= own
        counts += kept
    bins = None if counts.sum() <= most else int(np.searchsorted(np.cumsum(counts), most, side="right"))
    return Caps(highest, bins)


def _highest(
    devices: Keys, of_device: NDArray[np.uint64], of_all: NDArray[np.uint64], most: int
) -> tuple[dict[int, int], Counts]:
    """Return the highest hash that is kept of each device with too many rows, and the kept rows by second bin."""
    order = np.lexsort((of_device, devices))
    keys, starts, counts = np.unique(devices[order], return_index=True, return_counts=True)
    kept = np.ones(len(devices), dtype=np.bool_)
    highest = {}
    for key, start, count in zip(keys.tolist(), starts.tolist(), counts.tolist(), strict=True):
        if count > most and key != NO_DEVICE:
            kept[start + most : start + count] = False
            highest[key] = int(of_device[order[start + most - 1]])
    return highest, np.bincount(_bins(of_all[order][kept]), minlength=_BINS)


def _hashes(file: int, rows: Ints) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return two independent hashes of each row."""
    columns = [np.full(len(rows), file, dtype=np.float64), rows.astype(np.float64)]
    first, second = (row_hash.row_keys([*columns, np.full(len(rows), i, dtype=np.float64)]) for i in (0, 1))
    return first.view(np.uint64), second.view(np.uint64)


def _bins(hashes: NDArray[np.uint64]) -> Ints:
    found: Ints = (hashes >> _SHIFT).astype(np.int64)
    return found
