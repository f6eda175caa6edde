"""The packet blocks of pcapng files."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ids_spark.base.arrays import Floats, Ints
from ids_spark.extract.capture_bytes import Window
from ids_spark.extract.formats import Order
from ids_spark.extract.record_columns import MOST_CAPTURED, Records, Step, rows_at

_MOST_BLOCK: Final = 16 << 20  # bytes, as in libpcap
_MOST_INTERFACES: Final = 4096  # of a section, so that memory is bounded
_SECTION, _INTERFACE, _OBSOLETE, _SIMPLE, _ENHANCED = 0x0A0D0D0A, 1, 2, 3, 6
_PACKET_BLOCKS: Final = frozenset((_OBSOLETE, _SIMPLE, _ENHANCED))
_FARTHEST_S: Final = 9_000_000_000  # seconds whose nanoseconds are below 2**63


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


class Pcapng:
    """The packet blocks of a pcapng file."""

    def __init__(self, order: Order) -> None:
        self._section = _Section(order)

    def step(self, window: Window, at: int) -> Step:
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
                if len(section.link) == _MOST_INTERFACES:
                    fault = f"a section describes more than {_MOST_INTERFACES:,} interfaces"
                    break
                section.add(bytes(content[at + 8 : at + total - 4]))
            at += total
        records, wrong = self._records(window, np.array(heads, dtype=np.int64), section)
        if wrong is not None:
            return Step(records, *wrong)
        return Step(records, at, fault, again=again)

    def _new_section(self, content: Any, at: int) -> tuple[_Section, int, str | None]:
        for order in ("<", ">"):
            total, magic = struct.unpack_from(f"{order}II", content, at + 4)
            if magic == 0x1A2B3C4D:
                self._section = _Section(order)
                fault = None if total >= 28 else f"a section header of {total} bytes"
                return self._section, total, fault
        return self._section, 0, "a section header without byte-order magic"

    def _records(self, window: Window, heads: Ints, section: _Section) -> tuple[Records, tuple[int, str] | None]:
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
