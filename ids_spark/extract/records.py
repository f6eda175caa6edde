"""Records of capture files: their headers as columns, in chunks of bounded memory.

    with records.read(uri) as capture:
        for chunk in capture:
            packets = read_packets(chunk)
        capture.ending  # how many records, and where and why a broken file stopped being readable

A file is read up to its first break: an incomplete record at its end (cut off, or still being written), or a header
that cannot be right. A large pcap file can be read in pieces at once (`pieces`): each finds its first record itself
(`first_record`), and `contiguous` tells whether the pieces have read each record once. If they have not, which takes a
broken file or payloads made for it, the file must be read as one piece.
"""

import itertools
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ids_spark.base.arrays import Floats, Ints
from ids_spark.extract.formats import GZIP, HEAD_BYTES, PCAP_HEADER, Format, Order, Refused, format_of
from ids_spark.lake.filesystem import resolve

CHUNK_BYTES: Final = 2 << 20
MOST_CAPTURED: Final = 262_144
"""Bytes of a record at most; libpcap's MAXIMUM_SNAPLEN. A header that states more is damaged, whatever the limit in the
header of the file: that one is often wrong."""
SPARE_BYTES: Final = 128
"""Bytes of a buffer, zeros, after its last record, so that headers can be gathered without tests of the border."""
SEARCH_BYTES: Final = 1 << 20
"""Bytes before and after the beginning of a piece in which its first record is searched; more than any record has."""
_MOST_BLOCK: Final = 16 << 20  # of pcapng, as in libpcap
_RECORD_HEADER: Final = 16
_MOST_APART_S: Final = 10 * 365 * 86_400  # of two records of a file, to tell records from payload
_SECTION, _INTERFACE, _OBSOLETE, _SIMPLE, _ENHANCED = 0x0A0D0D0A, 1, 2, 3, 6
_PACKET_BLOCKS: Final = frozenset((_OBSOLETE, _SIMPLE, _ENHANCED))
_FARTHEST_S: Final = 9_000_000_000  # seconds whose nanoseconds are below 2**63


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
class Ending:
    """How the reading of a capture, or of a piece of it, ended.

    Attributes:
        records: Records read.
        first: Offset of the first record at or after the beginning of the piece.
        reached: Offset after the last record read: where the next one begins.
        left: Bytes of the uncompressed file after a break; 0 without a break.
        reason: What was found at `reached` that is no record; None without a break.
    """

    records: int
    first: int
    reached: int
    left: int = 0
    reason: str | None = None


def read(
    source: str | IO[bytes],
    begin: int = 0,
    end: int | None = None,
    chunk_bytes: int = CHUNK_BYTES,
    search_bytes: int = SEARCH_BYTES,
) -> "Capture":
    """Open a capture; iterate over it once, then see its `ending`.

    Args:
        source: URI or local path, or an open binary stream that can seek.
        begin: First byte of the piece; not 0 only for pcap that is not compressed.
        end: The byte after the piece; records that begin before it are read. Default: the end of the file.
        chunk_bytes: Bytes read at once; memory is a small multiple of them and of the largest record.
        search_bytes: See `SEARCH_BYTES`.

    Raises:
        Refused: it is no capture that can be read.
        OSError: it cannot be opened.
    """
    if not isinstance(source, str):
        return Capture(source, begin, end, chunk_bytes, search_bytes)
    fs, path = resolve(source)
    stream = fs.open_input_file(path)
    try:
        return Capture(stream, begin, end, chunk_bytes, search_bytes)
    except BaseException:
        stream.close()
        raise


def pieces(uri: str, size: int, piece_bytes: int) -> list[tuple[int, int]]:
    """Return the pieces (begin, end) in which a file of `size` bytes can be read: several only of uncompressed pcap.

    Raises:
        OSError: it cannot be opened.
    """
    if size > piece_bytes:
        try:
            with read(uri) as capture:
                if capture.divisible:
                    return [(begin, min(begin + piece_bytes, size)) for begin in range(0, size, piece_bytes)]
        except Refused:
            pass  # the task that reads it says so
    return [(0, size)]


def contiguous(endings: Sequence[Ending]) -> bool:
    """Return whether consecutive pieces, the first of which begins at 0, have read each record of a file once."""
    return all(one.reached == other.first for one, other in itertools.pairwise(endings))


class Capture:
    """An open capture; made by `read`.

    Attributes:
        format: Of the file.
        divisible: Whether it can be read in pieces.
    """

    def __init__(self, stream: IO[bytes], begin: int, end: int | None, chunk_bytes: int, search_bytes: int) -> None:
        self._stream, self._begin, self._search = stream, begin, search_bytes
        self._size = stream.seek(0, 2)
        stream.seek(0)
        compressed = stream.read(2) == GZIP
        stream.seek(0)
        self._source: _Source = _Unpacked(stream) if compressed else _Plain(stream, self._size)
        head = _head(self._source)
        try:
            self.format: Format = format_of(head)
        except Refused as error:
            fault = f"{self._source.fault}; " if self._source.fault else ""
            raise Refused(f"{fault}gzip, unpacked {error}" if compressed else str(error)) from None
        self.divisible = self.format.kind == "pcap" and not compressed
        if begin and not self.divisible:
            raise ValueError("only uncompressed pcap can be read in pieces")
        self._end = end if end is not None and self.divisible else 1 << 62
        self._window = _Window(self._source, head, chunk_bytes)
        self._ending: Ending | None = None

    def __enter__(self) -> "Capture":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    @property
    def ending(self) -> Ending:
        """How the reading ended; known after the last chunk."""
        if self._ending is None:
            raise ValueError("the capture has not been read to its end")
        return self._ending

    def __iter__(self) -> Iterator[Records]:
        """Yield the records in chunks, none of them empty.

        Raises:
            OSError: the file cannot be read further; a damaged file raises nothing.
        """
        walk: _Walk = _Pcap(self.format, self._end) if self.format.kind == "pcap" else _Pcapng(self.format.order)
        window, first, at, count = self._window, self._first(), 0, 0
        if first is None:
            self._ending = Ending(0, self._size, self._size)
            return
        window.move_to(first)
        while True:
            more = window.fill(at)
            at = 0
            while True:
                found = walk.step(window, at)
                at = found.at
                if len(found.records):
                    count += len(found.records)
                    yield found.records
                if not found.again:
                    break
            if found.fault or found.ended or not more:
                break
        reached = window.base + at
        fault = found.fault
        left = 0
        if not found.ended and fault is None:
            left = window.filled - at
            fault = self._source.fault or ("the file ends within a record" if left else None)
        elif fault is not None:
            left = window.filled - at + self._source.rest()
        self._ending = Ending(count, first, reached, left, fault)

    def _first(self) -> int | None:
        """Return the offset of the first record of the piece; None if there is none."""
        if self._begin <= PCAP_HEADER or self.format.kind == "pcapng":
            return PCAP_HEADER if self.format.kind == "pcap" else 0
        base = max(PCAP_HEADER, self._begin - self._search)
        around = self._part(base, self._begin + self._search - base)
        near = int.from_bytes(self._part(PCAP_HEADER, 4), "little" if self.format.order == "<" else "big")
        return first_record(around, base, self._begin, self._size, self.format, near)

    def _part(self, begin: int, length: int) -> bytes:
        here = self._stream.tell()
        self._stream.seek(begin)
        part = _read_up_to(self._stream, length)
        self._stream.seek(here)
        return part


def first_record(data: bytes, base: int, begin: int, size: int, form: Format, near: int) -> int | None:
    """Return the offset of the first record of a pcap file that begins at or after a byte.

    Headers that could be right are chained: each states where the next one begins. Of the chains that do not end before
    the data do, the longest before `begin` is taken: a chain of bytes in a payload ends with that payload, or joins the
    chain of the records there. So payloads that hold a capture file do not mislead; payloads made for it can, see
    `contiguous`.

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
    right = (length >= captured) & (length > 0) & (length <= _MOST_BLOCK)
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


def rows_at(buffer: NDArray[np.uint8], at: Ints, width: int) -> NDArray[np.uint8]:
    """Return the `width` bytes from each index on, shape (indexes, width); each index must leave so many."""
    every: NDArray[Any] = np.ndarray((max(len(buffer) - width + 1, 0),), f"V{width}", buffer.data, strides=(1,))
    return every[at].view(np.uint8).reshape(len(at), width)


# Bytes of the uncompressed file


class _Source(Protocol):
    """The bytes of an uncompressed file, one after the other."""

    fault: str | None

    def read_into(self, view: memoryview) -> int:
        """Fill the view from its beginning; return the number of bytes, 0 only at the end."""

    def seek(self, offset: int) -> None:
        """Go to a byte."""

    def rest(self) -> int:
        """Return the number of bytes that have not been read."""


class _Plain:
    """A file that is not compressed."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream, self._size = stream, size
        self.fault: str | None = None

    def read_into(self, view: memoryview) -> int:
        return int(self._stream.readinto(view))  # type: ignore[attr-defined]

    def seek(self, offset: int) -> None:
        self._stream.seek(offset)

    def rest(self) -> int:
        return max(0, self._size - self._stream.tell())


class _Unpacked:
    """A gzip file of one or more members; a damaged one gives every byte before the damage."""

    _AT_ONCE: Final = 1 << 16

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.fault: str | None = None
        self._start()

    def _start(self) -> None:
        self._inflate, self._packed, self._ready = zlib.decompressobj(31), b"", b""

    def read_into(self, view: memoryview) -> int:
        unpacked = self._read(len(view))
        view[: len(unpacked)] = unpacked
        return len(unpacked)

    def _read(self, most: int) -> bytes:
        if self._ready:
            unpacked, self._ready = self._ready[:most], self._ready[most:]
            return unpacked
        while self.fault is None:
            if self._inflate.eof and not self._next_member():
                return b""
            if not self._packed:
                self._packed = self._stream.read(self._AT_ONCE)
                if not self._packed:
                    self.fault = "the gzip file ends before its content does"
                    return b""
            unpacked = self._some(most)
            if unpacked:
                return unpacked
        return b""

    def _some(self, most: int) -> bytes:
        before = self._inflate.copy()
        try:
            unpacked = self._inflate.decompress(self._packed, most)
        except zlib.error as error:
            self.fault = f"the gzip file is damaged ({error})"
            unpacked = _until_error(before, self._packed)
            self._ready = unpacked[most:]
            return unpacked[:most]
        self._packed = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
        return unpacked

    def _next_member(self) -> bool:
        while len(self._packed) < 2:
            more = self._stream.read(self._AT_ONCE)
            if not more:
                break
            self._packed = (self._packed + more).lstrip(b"\0")  # padding of tapes and blocks
        if self._packed[:2] == GZIP:
            self._inflate = zlib.decompressobj(31)
            return True
        if self._packed.strip(b"\0"):
            self.fault = "bytes that are no gzip follow its content"
        return False

    def seek(self, offset: int) -> None:
        self._stream.seek(0)
        self._start()
        while offset:
            skipped = self._read(min(offset, CHUNK_BYTES))
            if not skipped:
                return
            offset -= len(skipped)

    def rest(self) -> int:
        count = 0
        while unpacked := self._read(CHUNK_BYTES):
            count += len(unpacked)
        return count


def _until_error(inflate: Any, packed: bytes) -> bytes:
    """Return what can be unpacked before the byte that cannot."""
    unpacked = []
    for i in range(len(packed)):
        try:
            unpacked.append(inflate.decompress(packed[i : i + 1]))
        except zlib.error:
            break
    return b"".join(unpacked)


def _head(source: _Source) -> bytes:
    head, filled = bytearray(HEAD_BYTES), 0
    while filled < HEAD_BYTES and (more := source.read_into(memoryview(head)[filled:])):
        filled += more
    return bytes(head[:filled])


def _read_up_to(stream: IO[bytes], length: int) -> bytes:
    parts = []
    while length and (part := stream.read(length)):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


class _Window:
    """The part of a file that is in memory.

    Attributes:
        buffer: Bytes, followed by `SPARE_BYTES` zeros.
        filled: Bytes without those.
        base: Offset in the file of the first one.
    """

    def __init__(self, source: _Source, head: bytes, chunk_bytes: int) -> None:
        self._source, self._chunk = source, chunk_bytes
        self.buffer, self.filled, self.base = np.frombuffer(head + bytes(SPARE_BYTES), dtype=np.uint8), len(head), 0

    def move_to(self, offset: int) -> None:
        """Continue at another byte of the file."""
        if offset <= self.filled:
            self.buffer, self.filled = self.buffer[offset:], self.filled - offset
        else:
            self._source.seek(offset)
            self.filled = 0
        self.base = offset

    def fill(self, used: int) -> bool:
        """Drop the first bytes and read more; return whether there were more."""
        rest = self.filled - used
        room = max(self._chunk, rest)  # so that large records take few steps
        buffer = np.empty(rest + room + SPARE_BYTES, dtype=np.uint8)  # a new one: `Records` keep the last
        buffer[:rest] = self.buffer[used : self.filled]
        more = self._source.read_into(buffer.data[rest : rest + room])
        self.base, self.filled = self.base + used, rest + more
        buffer[self.filled : self.filled + SPARE_BYTES] = 0
        self.buffer = buffer[: self.filled + SPARE_BYTES]
        return more > 0


# Record headers


@dataclass(frozen=True)
class _Step:
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


class _Walk(Protocol):
    def step(self, window: _Window, at: int) -> _Step:
        """Return the records from an index on."""


class _Pcap:
    """The records of a pcap file."""

    def __init__(self, form: Format, end: int) -> None:
        self._form, self._end = form, end

    def step(self, window: _Window, at: int) -> _Step:
        form, base = self._form, window.base
        heads, at = _walk_pcap(window.buffer, at, window.filled, self._end - base, form)
        fields = self._fields(window, heads)
        wrong = (fields[:, 2] > MOST_CAPTURED) | ~fields.any(axis=1)
        fault = None
        if wrong.any():
            bad = int(wrong.argmax())
            fault, at = _pcap_fault(fields[bad]), int(heads[bad])
            heads, fields = heads[:bad], fields[:bad]
        elif at + _RECORD_HEADER <= window.filled and at < self._end - base:
            fault = _pcap_fault(self._fields(window, np.array([at]))[0])
        return _Step(_pcap_records(window, heads, fields, form), at, fault, at >= self._end - base)

    def _fields(self, window: _Window, heads: Ints) -> NDArray[np.uint32]:
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


def _pcap_records(window: _Window, heads: Ints, fields: NDArray[np.uint32], form: Format) -> Records:
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


@dataclass
class _Section:
    """A section of a pcapng file: its byte order and interfaces."""

    order: Order
    link: list[int] = field(default_factory=list)
    unit: list[int] = field(default_factory=list)
    offset: list[int] = field(default_factory=list)
    snap_length: list[int] = field(default_factory=list)
    checksum: list[int] = field(default_factory=list)

    def add(self, body: bytes) -> None:
        """Add the interface that a block describes."""
        link, _, snap_length = struct.unpack_from(f"{self.order}HHI", body)
        options = _options(body[8:], self.order)
        resolution = options.get(9, b"\x06")[0]
        self.link.append(link)
        self.snap_length.append(snap_length or 1 << 32)
        self.unit.append(2 ** (resolution & 0x7F) if resolution & 0x80 else 10**resolution)
        self.offset.append(struct.unpack(f"{self.order}q", options[14])[0] if len(options.get(14, b"")) == 8 else 0)
        self.checksum.append(options[13][0] // 8 if options.get(13) else 0)  # stated in bits


def _options(data: bytes, order: Order) -> dict[int, bytes]:
    found, at = {}, 0
    while at + 4 <= len(data):
        code, length = struct.unpack_from(f"{order}HH", data, at)
        value = data[at + 4 : at + 4 + length]
        if code == 0 or len(value) < length:
            break
        if length:
            found[code] = value
        at += 4 + length + -length % 4
    return found


class _Pcapng:
    """The packet blocks of a pcapng file."""

    def __init__(self, order: Order) -> None:
        self._section = _Section(order)

    def step(self, window: _Window, at: int) -> _Step:
        """Return the packets up to the end of the window, or of a section."""
        section, content, filled = self._section, window.buffer.data, window.filled
        heads: list[int] = []
        fault, again = None, False
        block = struct.Struct(f"{section.order}II").unpack_from
        while at + 12 <= filled:
            kind, total = block(content, at)
            if kind == _SECTION:
                if heads:
                    again = True
                    break
                section, total, fault = self._new_section(content, at)
                block = struct.Struct(f"{section.order}II").unpack_from
            if fault is None and (total < 12 or total & 3 or total > _MOST_BLOCK):
                fault = f"a block states a length of {total:,} bytes"
            if fault is not None or at + total > filled:
                break
            if kind in _PACKET_BLOCKS:
                heads.append(at)
            elif kind == _INTERFACE:
                if total < 20:
                    fault = f"an interface description of {total} bytes"
                    break
                section.add(bytes(content[at + 8 : at + total - 4]))
            at += total
        records, wrong = self._records(window, np.array(heads, dtype=np.int64), section)
        if wrong is not None:
            return _Step(records, *wrong)
        return _Step(records, at, fault, again=again)

    def _new_section(self, content: Any, at: int) -> tuple[_Section, int, str | None]:
        for order in ("<", ">"):
            total, magic = struct.unpack_from(f"{order}II", content, at + 4)
            if magic == 0x1A2B3C4D:
                self._section = _Section(order)
                fault = None if total >= 28 else f"a section header of {total} bytes"
                return self._section, total, fault
        return self._section, 0, "a section header without byte-order magic"

    def _records(self, window: _Window, heads: Ints, section: _Section) -> tuple[Records, tuple[int, str] | None]:
        """Return the records of packet blocks, and index and reason of the first block that contradicts itself."""
        u4 = f"{section.order}u4"
        fields = rows_at(window.buffer, heads, 28).view(u4).astype(np.int64)
        kind, total, simple = fields[:, 0], fields[:, 1], fields[:, 0] == _SIMPLE
        again = rows_at(window.buffer, heads + total - 4, 4).view(u4)[:, 0]
        half = fields[:, 2] & 0xFFFF if section.order == "<" else fields[:, 2] >> 16
        interface = np.where(simple, 0, np.where(kind == _OBSOLETE, half, fields[:, 2]))
        known = interface < len(section.link)
        at = np.where(known, interface, 0)
        snap_length = _of(section.snap_length, at, 1 << 32)
        room = total - np.where(simple, 16, 32)
        captured = np.where(simple, np.minimum(np.minimum(fields[:, 2], snap_length), room), fields[:, 5])
        length = np.maximum(np.where(simple, fields[:, 2], fields[:, 6]), captured)
        wrong = (again != total) | (room < 0) | (captured > room) | (captured > MOST_CAPTURED)
        fault = None
        if wrong.any():
            bad = int(wrong.argmax())
            fault = (int(heads[bad]), f"a packet block states {captured[bad]:,} captured bytes in {total[bad]:,}")
            if again[bad] != total[bad]:
                fault = (fault[0], f"a block states two lengths, {total[bad]:,} and {again[bad]:,} bytes")
            good = slice(bad)
            heads, fields, simple, known, at = heads[good], fields[good], simple[good], known[good], at[good]
            captured, length = captured[good], length[good]
        checksum = np.where(known, _of(section.checksum, at, 0), 0)
        length = np.maximum(length - checksum, 0)
        nanos, seconds = _times(fields[:, 3] << 32 | fields[:, 4], at, section)
        records = Records(
            buffer=window.buffer,
            start=heads + np.where(simple, 12, 28),
            offset=heads + window.base,
            captured=np.minimum(captured, length),
            length=length,
            nanos=np.where(simple, -1, nanos),
            seconds=np.where(simple, -1.0, seconds),
            link=np.where(known, _of(section.link, at, -1), -1),
        )
        return records, fault


def _of(values: Sequence[int], at: Ints, default: int) -> Ints:
    return np.array(values or [default], dtype=np.int64)[at]


def _times(ticks: Ints, at: Ints, section: _Section) -> tuple[Ints, Floats]:
    """Return nanoseconds and seconds of the ticks (as 64 bits) of interfaces."""
    nanos, seconds = np.zeros(len(ticks), dtype=np.int64), np.zeros(len(ticks))
    for interface in np.unique(at).tolist():
        unit, offset = (section.unit[interface], section.offset[interface]) if section.unit else (10**6, 0)
        mine = at == interface
        count = ticks[mine].view(np.uint64)
        whole, fraction = np.divmod(count, np.uint64(unit)) if unit < 1 << 64 else (count * 0, count * 0)
        near = (whole < np.uint64(1 << 40)) & (abs(offset) < 1 << 40)
        moved = np.where(near, whole.astype(np.int64) + (offset if abs(offset) < 1 << 40 else 0), _FARTHEST_S)
        rest = _nanoseconds(fraction, unit)
        nanos[mine] = np.clip(moved, -_FARTHEST_S, _FARTHEST_S) * 10**9 + rest
        seconds[mine] = moved + fraction / float(unit)
    return nanos, seconds


def _nanoseconds(fraction: NDArray[np.uint64], unit: int) -> Ints:
    """Return fractions of a second, in units of which a second has `unit`, as nanoseconds, rounded down."""
    if unit >= 1 << 64:
        return np.zeros(len(fraction), dtype=np.int64)
    if unit >= 10**9 and unit % 10**9 == 0:
        return (fraction // np.uint64(unit // 10**9)).astype(np.int64)
    if unit > 1 << 33:  # a power of 2, so that the product below does not overflow
        fraction, unit = fraction >> np.uint64(unit.bit_length() - 34), 1 << 33
    return (fraction * np.uint64(10**9) // np.uint64(unit)).astype(np.int64)
