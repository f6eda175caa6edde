"""Records of capture files: read in chunks of bounded memory.

    with records.read(uri) as capture:
        for chunk in capture:
            packets = read_packets(chunk)
        capture.ending  # how many records, and where and why a broken file stopped being readable

A file is read up to its first break: an incomplete record at its end (cut off, or still being written), or a header
that cannot be right. A large pcap file can be read in pieces at once (`pieces`): each finds its first record itself,
and `contiguous` tells whether the pieces have read each record once. If they have not, which takes a broken file or
payloads made for it, the file must be read as one piece.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Final

from ids_spark.extract.capture_bytes import GZIP_CUT, Plain, Source, Unpacked, Window
from ids_spark.extract.formats import GZIP, HEAD_BYTES, PCAP_HEADER, Format, Refused, format_of
from ids_spark.extract.pcap import Pcap, first_record
from ids_spark.extract.pcapng import Pcapng
from ids_spark.extract.record_columns import Records, Walk
from ids_spark.lake.filesystem import resolve

CHUNK_BYTES: Final = 2 << 20
SEARCH_BYTES: Final = 1 << 20
"""Bytes before and after the beginning of a piece in which its first record is searched; more than any record has."""
_CUT: Final = "the file ends within a record"


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

    @property
    def cut(self) -> bool:
        """Whether the file ends where more would follow, as one that is still being written does."""
        return self.reason in (_CUT, GZIP_CUT)


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
        self._source: Source = Unpacked(stream) if compressed else Plain(stream, self._size)
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
        self._window = Window(self._source, head, chunk_bytes)
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
        walk: Walk = Pcap(self.format, self._end) if self.format.kind == "pcap" else Pcapng(self.format.order)
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
            fault = self._source.fault or (_CUT if left else None)
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


def _head(source: Source) -> bytes:
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
