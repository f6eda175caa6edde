"""The records of pcap files, and where the first one of a piece begins."""

import struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ids_spark.base.arrays import Ints
from ids_spark.extract.capture_bytes import Window
from ids_spark.extract.formats import PCAP_HEADER, PCAP_MAGIC, Format, Refused, format_of
from ids_spark.extract.record_columns import MOST_CAPTURED, Records, Step, rows_at

_RECORD_HEADER: Final = 16
_LONGEST: Final = 16 << 20  # original bytes of a frame, to tell records from payload
_MOST_APART_S: Final = 10 * 365 * 86_400  # of two records of a file, for the same purpose


class Pcap:
    """The records of a pcap file, also of several that were appended to one.

    A program that is started again and appends to its file writes another header into it, which read as a record would
    be an empty packet of the year 2055. What follows the header of a file of the same form is read.
    """

    def __init__(self, form: Format, end: int) -> None:
        self._form, self._end = form, end
        self._magic = np.frombuffer(b"".join(PCAP_MAGIC), f"{form.order}u4")

    def step(self, window: Window, at: int) -> Step:
        """Return the complete records that begin before the end of the piece."""
        form, base = self._form, window.base
        heads, at = _walk_pcap(window.buffer, at, window.filled, self._end - base, form)
        fields = self._fields(window, heads)
        wrong = (fields[:, 2] > MOST_CAPTURED) | ~fields.any(axis=1)
        empty = np.flatnonzero((fields[:, 2] | fields[:, 3]) == 0)
        wrong[empty] |= np.isin(fields[empty, 0], self._magic)
        fault, again = None, False
        if wrong.any():
            bad = int(wrong.argmax())
            fault, at = _pcap_fault(fields[bad]), int(heads[bad])
            heads, fields = heads[:bad], fields[:bad]
            if fault is None and at + PCAP_HEADER <= window.filled:
                fault, again = self._other_form(window.buffer[at : at + PCAP_HEADER].tobytes()), True
                at += 0 if fault else PCAP_HEADER
        elif at + _RECORD_HEADER <= window.filled and at < self._end - base:
            fault = _pcap_fault(self._fields(window, np.array([at]))[0])
        return Step(
            _pcap_records(window, heads, fields, form), at, fault, at >= self._end - base, again and fault is None
        )

    def _other_form(self, header: bytes) -> str | None:
        """Return why the file that begins with a header cannot be read as a part of this one; None if it can."""
        try:
            return (
                None if format_of(header) == self._form else "another pcap file begins, with another link type or clock"
            )
        except Refused as refused:
            return f"another file begins: {refused}"

    def _fields(self, window: Window, heads: Ints) -> NDArray[np.uint32]:
        """Return seconds, fraction, captured bytes and original bytes of records."""
        fields = rows_at(window.buffer, heads, _RECORD_HEADER).view(f"{self._form.order}u4")
        return fields[:, [0, 1, 3, 2]] if self._form.swapped else fields


def _walk_pcap(buffer: NDArray[np.uint8], at: int, filled: int, stop: int, form: Format) -> tuple[Ints, int]:
    """Return the indexes of complete records, and where the next one begins."""
    heads: list[int] = []
    add, captured_at = heads.append, struct.Struct(f"{form.order}{12 if form.swapped else 8}xI").unpack_from
    last = min(filled - _RECORD_HEADER, stop - 1)
    content = buffer.data
    while at <= last:
        add(at)
        at += _RECORD_HEADER + captured_at(content, at)[0]
    if at > filled and heads:
        at = heads.pop()  # not complete
    return np.fromiter(heads, np.int64, len(heads)), at


def _pcap_fault(header: NDArray[np.uint32]) -> str | None:
    if header[2] > MOST_CAPTURED:
        return f"a record states {int(header[2]):,} captured bytes, more than {MOST_CAPTURED:,}"
    return None if header.any() else "a record header of zeros"


def _pcap_records(window: Window, heads: Ints, fields: NDArray[np.uint32], form: Format) -> Records:
    whole, fraction = fields[:, 0].astype(np.int64), fields[:, 1].astype(np.int64)
    captured = fields[:, 2].astype(np.int64)
    length = np.maximum(fields[:, 3].astype(np.int64), captured)
    if form.checksum:
        length = np.maximum(length - form.checksum, 0)
        captured = np.minimum(captured, length)
    scale = 1 if form.nanoseconds else 1_000
    return Records(
        buffer=window.buffer,
        start=heads + _RECORD_HEADER,
        offset=heads + window.base,
        captured=captured,
        length=length,
        nanos=whole * 10**9 + fraction * scale,
        seconds=whole + fraction / (10**9 // scale),
        link=np.full(len(heads), form.link),
    )


def first_record(data: bytes, base: int, begin: int, size: int, form: Format, near: int) -> int | None:
    """Return the offset of the first record of a pcap file that begins at or after a byte.

    Headers that could be right are chained: each states where the next one begins. Of the chains that do not end before
    the data do, the longest before `begin` is taken: a chain of bytes in a payload ends with that payload, or joins the
    chain of the records there. So payloads that hold a capture file do not mislead; payloads made for it can, see
    `records.contiguous`.

    Args:
        data: Bytes of the file before and after `begin`; on both sides more than the largest record, if the file has
            them.
        base: Offset of `data` in the file.
        begin: The byte.
        size: Bytes of the file.
        form: Of the file.
        near: Seconds of any of its records.

    Returns:
        `size` if no record begins there; None if no chain was found.
    """
    lengths = ("length", "captured") if form.swapped else ("captured", "length")
    header = np.dtype([(name, f"{form.order}u4") for name in ("seconds", "fraction", *lengths)])
    usable = len(data) - _RECORD_HEADER + 1
    if usable <= 0:
        return size
    every: NDArray[Any] = np.ndarray((usable,), dtype=header, buffer=data, strides=(1,))
    at = np.flatnonzero(every["captured"] <= MOST_CAPTURED)
    found = every[at]
    captured, length = found["captured"].astype(np.int64), found["length"].astype(np.int64)
    right = (length >= captured) & (length > 0) & (length <= _LONGEST)
    right &= found["fraction"] < (10**9 if form.nanoseconds else 10**6)
    right &= np.abs(found["seconds"].astype(np.int64) - near) <= _MOST_APART_S
    at, after = at[right], (at + _RECORD_HEADER + captured)[right]
    index = {position: i for i, position in enumerate(at.tolist())}
    successors = [-1 if position >= usable else index.get(position, -2) for position in after.tolist()]
    alive = [False] * len(successors)
    for i in range(len(successors) - 1, -1, -1):
        alive[i] = successors[i] == -1 or (successors[i] >= 0 and alive[successors[i]])
    earliest, parents = at.tolist(), [-1] * len(successors)
    if base == PCAP_HEADER and earliest and earliest[0] == 0:
        earliest[0] = -1  # here a record begins
    for i, j in enumerate(successors):
        if alive[i] and j >= 0 and (earliest[i] < earliest[j] or parents[j] < 0):
            earliest[j], parents[j] = min(earliest[i], earliest[j]), i
    ends = [i for i, j in enumerate(successors) if j == -1]
    if not ends:
        return None
    last = min(ends, key=lambda i: earliest[i])
    result = base + int(after[last])
    while last >= 0 and base + int(at[last]) >= begin:
        result, last = base + int(at[last]), parents[last]
    return min(result, size) if result >= begin else None
