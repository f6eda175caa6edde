"""The bytes of a capture file, unpacked if they are gzip, in a window that moves forward."""

import zlib
from typing import IO, Any, Final, Protocol

import numpy as np

from ids_spark.extract.formats import GZIP

SPARE_BYTES: Final = 128
"""Bytes of a buffer, zeros, after its last record, so that headers can be gathered without tests of the border."""
GZIP_CUT: Final = "the gzip file ends before its content does"
_SKIPPED_AT_ONCE: Final = 1 << 20


class Source(Protocol):
    """The bytes of an uncompressed file, one after the other."""

    fault: str | None

    def read_into(self, view: memoryview) -> int:
        """Fill the view from its beginning; return the number of bytes, 0 only at the end."""

    def seek(self, offset: int) -> None:
        """Go to a byte."""

    def rest(self) -> int:
        """Return the number of bytes that have not been read."""


class Plain:
    """A file that is not compressed."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream, self._size = stream, size
        self.fault: str | None = None

    def read_into(self, view: memoryview) -> int:
        """See `Source`."""
        return int(self._stream.readinto(view))  # type: ignore[attr-defined]

    def seek(self, offset: int) -> None:
        """See `Source`."""
        self._stream.seek(offset)

    def rest(self) -> int:
        """See `Source`."""
        return max(0, self._size - self._stream.tell())


class Unpacked:
    """A gzip file of one or more members; a damaged one gives every byte before the damage."""

    _AT_ONCE: Final = 1 << 16

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.fault: str | None = None
        self._start()

    def _start(self) -> None:
        self._inflate, self._packed, self._ready = zlib.decompressobj(31), b"", b""

    def read_into(self, view: memoryview) -> int:
        """See `Source`."""
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
                    self.fault = GZIP_CUT
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
        if self._inflate.eof:
            self._packed = self._inflate.unused_data.lstrip(b"\0")
        else:
            self._packed = self._inflate.unconsumed_tail
        return unpacked

    def _next_member(self) -> bool:
        while len(self._packed) < 2:
            more = self._stream.read(self._AT_ONCE)
            self._packed = (self._packed + more).lstrip(b"\0")  # padding of tapes and blocks
            if not more:
                break
        if self._packed[:2] == GZIP:
            self._inflate = zlib.decompressobj(31)
            return True
        if self._packed.strip(b"\0"):
            self.fault = "bytes that are no gzip follow its content"
        return False

    def seek(self, offset: int) -> None:
        """See `Source`."""
        self._stream.seek(0)
        self._start()
        while offset:
            skipped = self._read(min(offset, _SKIPPED_AT_ONCE))
            if not skipped:
                return
            offset -= len(skipped)

    def rest(self) -> int:
        """See `Source`."""
        count = 0
        while unpacked := self._read(_SKIPPED_AT_ONCE):
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


class Window:
    """The part of a file that is in memory.

    Attributes:
        buffer: Bytes, followed by `SPARE_BYTES` zeros.
        filled: Bytes without those.
        base: Offset in the file of the first one.
    """

    def __init__(self, source: Source, head: bytes, chunk_bytes: int) -> None:
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
        more = 0
        while more < room and (read := self._source.read_into(buffer.data[rest + more : rest + room])):
            more += read
        self.base, self.filled = self.base + used, rest + more
        buffer[self.filled : self.filled + SPARE_BYTES] = 0
        self.buffer = buffer[: self.filled + SPARE_BYTES]
        return more > 0
