"""Windows of consecutive packets of a device or of a capture."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ids_spark.base.arrays import Floats, Ints, Mask
from ids_spark.extract import formulas
from ids_spark.extract.claims import ARP_CONFLICT
from ids_spark.extract.packets import KINDS, VISIBLE, Packets

BATCH: Final = 65_536
"""New packets that are sorted by device at once."""
_BLOCK: Final = 32_768
"""Packets whose features are computed at once; their columns fit in the cache of a core."""
_ARP: Final = KINDS.index("arp")
_ETHERNET: Final = 1 << 48
"""Set in the source of an ARP packet, which is its Ethernet address."""
_KEPT: Final = (*formulas.COLUMNS, "offset", "nanos", "source", "target", "source_mac", "marks")
_SYN, _SYN_ACK = 2, 18
_NO_ADDRESS: Final = 1 << 63
_SENDER: Final = "sender"
_STREAMS_OF_SINGLE: Final = (_SENDER, "source_mac")
_Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Windows:
    """Windows of packets; every array has the shape (windows,) but `features`.

    Attributes:
        features: Shape (39, windows), in the order of `RELEASE_39.features`; only `Rate` can be infinite.
        packets: Packets of the window.
        nanos: Time of its first packet, in nanoseconds since 1970.
        offset: `Packets.offset` of its first packet.
        capture: What `Windower.add` was told of its first packet.
        device: Key of `devices.Devices`; in windows of a capture that of most packets, of several the first seen.
        source: IPv4 address that sent most packets: of those that open TCP connections, if there are any, else of all;
            of several addresses rather not that of the device, then the first seen. So it is who scans or floods, also
            where each packet is answered. 0 where `source_known` is False.
        source_known: False if the source of most packets is the Ethernet source of ARP packets: the protocol address in
            ARP is a claim, which spoofing forges. Also if a packet has the mark `arp_conflict`, or if the packets are a
            stream by Ethernet source.
        source_mac: Ethernet address of most of the packets of that source, as a number; 0: none. With packets marked
            `arp_conflict`, that of most of these.
        target: IPv4 address to which most packets go, of several the first seen.
    """

    features: Floats
    packets: Ints
    nanos: Ints
    offset: Ints
    capture: NDArray[np.int32]
    device: NDArray[np.uint64]
    source: NDArray[np.uint32]
    source_known: Mask
    source_mac: NDArray[np.uint64]
    target: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.packets)


class Windower:
    """Divides the packets of each stream, in the order in which they come, into windows of `window` packets.

    A stream is the packets of a device, or all packets. What remains at the end of a stream is a window of its own if
    it is two packets or more; a single packet joins the window before it, which then has `window` + 1. Devices of which
    there is one packet only are how a scan of many addresses looks: these packets are streams by their sender, which is
    the Ethernet source of ARP packets; those of which the sender has one only, as with forged addresses, by Ethernet
    source. What is then still alone has no window; see `single`. Windows do not depend on how packets are divided into
    calls of `add`.

    Memory: about 200 bytes for each packet that waits: at most `window` + 1 of each stream, and as many new ones, or
    `batch` if that is more.

    Args:
        window: Packets of a window, 2 to 1,000.
        by_device: Whether a stream is the packets of a device; else all packets are one stream.
        batch: New packets that are divided at once; it changes no window.

    Attributes:
        single: Times, in nanoseconds since 1970, of the packets that are in no window; complete after `close`.
        single_capture: What `add` was told of their captures.
    """

    def __init__(self, window: int, by_device: bool = True, batch: int = BATCH) -> None:
        self._window = window
        self._by_device = by_device
        self._batch = batch
        self._waiting: list[_Columns] = []
        self._old = self._new = 0
        self._many = False
        self.single: Ints = np.empty(0, dtype=np.int64)
        self.single_capture: NDArray[np.int32] = np.empty(0, dtype=np.int32)

    def add(
        self, packets: Packets, devices: NDArray[np.uint64], captures: NDArray[np.int32] | None = None
    ) -> list[Windows]:
        """Return windows that are complete, in no particular order; none of the list is empty.

        Args:
            packets: The next packets; those that are not visible are ignored.
            devices: Key of the device of each packet, from `devices.Devices.keys`; shape (packets,).
            captures: A number for the capture of each packet, if they are of several; default: 0.
        """
        columns: _Columns = {name: getattr(packets, name) for name in _KEPT}
        columns["device"] = devices
        columns["capture"] = np.zeros(len(packets), dtype=np.int32) if captures is None else captures
        columns["before"] = columns["seconds"]  # time of the packet before; its own if it is the first of its stream
        self._waiting.append(columns)
        self._new += len(packets)
        if self._new >= max(self._batch, self._old):  # so the packets that wait are sorted again once for each new one
            return self._sorted(closing=False)
        return []

    def close(self) -> list[Windows]:
        """Return the windows that remain. No packet can be added afterwards."""
        if not self._waiting:
            return []
        found = self._sorted(closing=True)
        for streams in _STREAMS_OF_SINGLE if self._by_device else ():
            if len(self.single) > 1:
                [alone] = self._waiting
                several = alone["capture"].min() != alone["capture"].max()
                order = np.argsort(alone["nanos" if several else "offset"], kind="stable")
                alone = {name: column[order] for name, column in alone.items()}
                self._waiting = [alone | {"before": alone["seconds"]}]
                found += self._sorted(closing=True, streams_of=streams)
        return found

    def _sorted(self, closing: bool, streams_of: str = "device") -> list[Windows]:
        """Return windows of the packets that wait; those after them wait on, in the order of their streams."""
        waiting, self._waiting = self._waiting, []
        visible = np.flatnonzero(np.concatenate([part["kind"] for part in waiting]) < VISIBLE)
        streams = np.concatenate([_streams(part, streams_of) for part in waiting])[visible]
        if not self._by_device:
            streams = np.zeros_like(streams)
        order, begins, counts = _by_stream(streams, self._many)
        self._many = len(counts) > np.iinfo(np.uint16).max
        order = visible[order]
        del streams, visible
        # At least two packets wait on in a stream of two or more: so none can be left alone, and the packet before the
        # next one is known.
        whole = np.maximum(counts - 2, 0) // self._window
        rest = counts - whole * self._window
        partial = (rest >= 2) & closing
        taken = whole * self._window + rest * partial
        place = np.arange(len(order)) - np.repeat(begins, counts)
        in_windows = place < np.repeat(taken, counts)
        sizes = np.full(int((whole + partial).sum()), self._window)
        sizes[np.cumsum(whole + partial)[partial] - 1] = rest[partial]

        now, later = order[in_windows], order[~in_windows]
        stored, seconds = (np.concatenate([part[name] for part in waiting])[order] for name in ("before", "seconds"))
        before = np.where(place == 0, stored, np.r_[0.0, seconds[:-1]])
        del stored, seconds
        done: _Columns = {"before": before[in_windows]}
        kept: _Columns = {"before": before[~in_windows]}
        for name in (*_KEPT, "device", "capture"):  # one after another: less memory than two copies of all of them
            column = np.concatenate([part.pop(name) for part in waiting])
            done[name], kept[name] = column[now], column[later]
        self._waiting = [kept]
        self._old, self._new = len(kept["device"]), 0
        if closing:
            self.single, self.single_capture = kept["nanos"], kept["capture"]
        ends = np.cumsum(sizes)
        cuts = np.flatnonzero(np.diff(ends // _BLOCK)) + 1
        blocks = [some for some in np.split(np.arange(len(sizes)), cuts) if len(some)]
        spans = [(slice(ends[some[0]] - sizes[some[0]], ends[some[-1]]), sizes[some]) for some in blocks]
        forged = streams_of == "source_mac"
        return [_windows({name: column[span] for name, column in done.items()}, own, forged) for span, own in spans]


def _by_stream(streams: NDArray[np.uint64], many: bool) -> tuple[Ints, Ints, Ints]:
    """Return the order that groups streams and keeps their packets in order, where each begins, and its packets.

    Both ways give groups, in another order: a few streams are numbered by hashing, then sorted by radix, ten times as
    fast; of many, the table of hashes would be larger than the packets.
    """
    codes = streams
    if not many:
        numbers = pa.array(streams).dictionary_encode().indices.to_numpy()
        codes = numbers.astype(np.uint16) if numbers.max(initial=0) <= np.iinfo(np.uint16).max else numbers
    order = np.argsort(codes, kind="stable")
    in_order = codes[order]
    begins = np.flatnonzero(np.r_[len(codes) > 0, in_order[1:] != in_order[:-1]])
    return order, begins, np.diff(np.r_[begins, len(codes)])


def _senders(columns: _Columns) -> NDArray[np.uint64]:
    """Return the IPv4 source of each packet, of ARP packets their Ethernet source with `_ETHERNET` set."""
    ethernet = columns["source_mac"] | np.uint64(_ETHERNET)
    senders: NDArray[np.uint64] = np.where(columns["kind"] == _ARP, ethernet, columns["source"].astype(np.uint64))
    return senders


def _streams(columns: _Columns, streams_of: str) -> NDArray[np.uint64]:
    if streams_of == _SENDER:
        return _senders(columns)
    streams: NDArray[np.uint64] = columns[streams_of]
    if streams_of == "source_mac":  # without an address, nothing shows that two packets have one sender
        streams = np.where(streams > 0, streams, np.arange(_NO_ADDRESS, _NO_ADDRESS + len(streams), dtype=np.uint64))
    return streams


def _windows(columns: _Columns, sizes: Ints, forged: bool) -> Windows:
    """Return windows; of those with forged addresses the source is unknown."""
    starts = np.cumsum(sizes) - sizes
    device = columns["device"][formulas.most_frequent(columns["device"], sizes)]
    source, known, source_mac = _sources(columns, device, sizes)
    if forged:
        source, known = np.zeros_like(source), np.zeros_like(known)
    target_at = formulas.most_frequent(columns["target"].astype(np.uint64), sizes)
    return Windows(
        features=formulas.features(columns, columns["before"], sizes),
        packets=sizes,
        nanos=columns["nanos"][starts],
        offset=columns["offset"][starts],
        capture=columns["capture"][starts],
        device=device,
        source=source,
        source_known=known,
        source_mac=source_mac,
        target=columns["target"][target_at],
    )


def _sources(
    columns: _Columns, device: NDArray[np.uint64], sizes: Ints
) -> tuple[NDArray[np.uint32], Mask, NDArray[np.uint64]]:
    """Return `source`, `source_known` and `source_mac` of `Windows`."""
    arp, mac = columns["kind"] == _ARP, columns["source_mac"]
    ethernet = mac | np.uint64(_ETHERNET)
    source = _senders(columns)
    device = np.repeat(device, sizes)
    own = (source == device) | (ethernet == device)
    opening = columns["flags"] & _SYN_ACK == _SYN
    counted = _only_where_any(opening, sizes)
    at = _first_of_most(source, counted & ~own, sizes)
    at_own = _first_of_most(source, counted & own, sizes)
    by_device = _matching(source, at_own, counted, sizes) > _matching(source, at, counted, sizes)
    at = np.where(by_device, at_own, at)
    of_source = source == np.repeat(source[at], sizes)
    conflict = columns["marks"] & ARP_CONFLICT > 0
    if conflict.any():
        of_source = np.where(np.repeat(_count(conflict, sizes) > 0, sizes), conflict, of_source)
    known = ~arp[at] & (_count(conflict, sizes) == 0)
    mac_at = _first_of_most(mac, of_source, sizes)
    return np.where(known, columns["source"][at], np.uint32(0)), known, mac[mac_at]


def _count(mask: Mask, sizes: Ints) -> Ints:
    counts: Ints = np.add.reduceat(mask, np.cumsum(sizes) - sizes, dtype=np.int64)
    return counts


def _only_where_any(mask: Mask, sizes: Ints) -> Mask:
    """Return the mask, with all packets of windows in which it has none."""
    found: Mask = mask | np.repeat(_count(mask, sizes) == 0, sizes)
    return found


def _first_of_most(values: NDArray[np.uint64], mask: Mask, sizes: Ints) -> Ints:
    """Return the first packet with the most frequent value among those of the mask; without one, the window's first."""
    counts = _count(mask, sizes)
    found = np.cumsum(sizes) - sizes
    some = counts > 0
    if some.any():
        index = np.flatnonzero(mask)
        found[some] = index[formulas.most_frequent(values[index], counts[some])]
    return found


def _matching(values: NDArray[np.uint64], at: Ints, mask: Mask, sizes: Ints) -> Ints:
    """Return how many packets of the mask have the value of the packet `at` of their window."""
    return _count(mask & (values == np.repeat(values[at], sizes)), sizes)
