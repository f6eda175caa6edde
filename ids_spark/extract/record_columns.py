"""Records of a capture as columns, and what the readers of each format have in common."""

from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ids_spark.base.arrays import Floats, Ints
from ids_spark.extract.capture_bytes import Window

MOST_CAPTURED: Final = 262_144
"""Bytes of a record at most; libpcap's MAXIMUM_SNAPLEN. A header that states more is damaged, whatever the limit in the
header of the file: that one is often wrong."""


@dataclass(frozen=True)
class Records:
    """Consecutive records of a capture in one buffer; every array but `buffer` has the shape (records,).

    Attributes:
        buffer: Bytes of the file; at least `SPARE_BYTES` more than the last record.
        start: Index in `buffer` of the captured bytes.
        offset: Of the record's header in the uncompressed file.
        captured: Bytes in the capture.
        length: Bytes that the frame had, without frame check sequence; at least `captured`.
        nanos: Nanoseconds since 1970; -1 if the record has no time, ±9e18 if its time is farther from 1970.
        seconds: The same as float64: whole seconds plus fraction.
        link: Link type; -1 if the record names an interface that the file does not describe.
    """

    buffer: NDArray[np.uint8]
    start: Ints
    offset: Ints
    captured: Ints
    length: Ints
    nanos: Ints
    seconds: Floats
    link: Ints

    def __len__(self) -> int:
        return len(self.start)


@dataclass(frozen=True)
class Step:
    """What a walk through a window found.

    Attributes:
        records: Complete records.
        at: Index after the last of them.
        fault: Why no record can follow, else None.
        ended: Whether the next record is beyond the piece.
        again: Whether the walk can go on in the same window.
    """

    records: Records
    at: int
    fault: str | None = None
    ended: bool = False
    again: bool = False


class Walk(Protocol):
    """Reads the records of a format."""

    def step(self, window: Window, at: int) -> Step:
        """Return the records from an index on."""


def rows_at(buffer: NDArray[np.uint8], at: Ints, width: int) -> NDArray[np.uint8]:
    """Return the `width` bytes from each index on, shape (indexes, width); each index must leave so many."""
    every: NDArray[Any] = np.ndarray((max(len(buffer) - width + 1, 0),), f"V{width}", buffer.data, strides=(1,))
    return every[at].view(np.uint8).reshape(len(at), width)
