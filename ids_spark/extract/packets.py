"""Headers of packets as columns, and what each packet counts as."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ids_spark.base.arrays import Floats, Ints, Mask
from ids_spark.extract.formats import BSD_LOOPBACK, COOKED, COOKED_2, ETHERNET, RAW_IP
from ids_spark.extract.record_columns import Records, rows_at

KINDS: Final = (
    "ipv4",
    "arp",
    "ipv6",
    "mpls",
    "pppoe",
    "llc",
    "other_ethertype",
    "truncated",
    "malformed",
    "impossible_time",
    "other_link_type",
)
"""What a packet is; each packet is of one kind. Only the first two are in windows, as in the data set: the official
extractor skips every other frame. `llc`: IEEE 802.3 frames with a length, spanning tree among them. `truncated`: the
capture holds less than the link-layer and IPv4 or ARP header. `malformed`: a header contradicts itself.
`impossible_time`: not within the years 1970 to 2200, or none at all. `other_link_type`: of a pcapng interface that
cannot be read."""
VISIBLE: Final = 2
"""Kinds below this index are in windows."""
MARKS: Final = ("vlan", "fragment", "tunnel", "short_capture", "no_transport", "large", "arp_conflict")
"""Facts about visible packets, of which a packet may have several; bit i of `Packets.marks` is mark i. `fragment`: not
the first one, so that it has no transport header. `tunnel`: carries packets that no feature describes (IPv6, IPv4, GRE,
ESP or AH in IP, VXLAN, GTP, L2TP). `short_capture`: captured bytes are fewer than the frame had. `no_transport`: TCP
or UDP whose header was not captured, or contradicts itself. `large`: over 1,514 bytes without tags, from segmentation
offload or jumbo frames. `arp_conflict`: its sender claims the IPv4 address of another one by ARP, see `claims`."""
TCP: Final = 6
UDP: Final = 17
_IPV4, _ARP, _IPV6, _MPLS, _PPPOE, _LLC, _OTHER, _TRUNCATED, _MALFORMED, _IMPOSSIBLE_TIME, _OTHER_LINK_TYPE = range(
    len(KINDS)
)
_END_NANOS: Final = 7_258_118_400 * 10**9  # 2200-01-01
_ETHERNET_HEADER: Final = 14
_TAG: Final = 4  # bytes of a VLAN tag
_MOST_TAGS: Final = 8
_LARGEST: Final = 1514  # bytes of an Ethernet frame without tags


def _table(size: int, values: Mapping[int, int], default: int = 0) -> NDArray[np.uint8]:
    table = np.full(size, default, np.uint8)
    table[list(values)] = list(values.values())
    return table


_TAGS: Final = (0x8100, 0x88A8, 0x9100)
_KIND_OF_ETHERTYPE: Final = _table(
    1 << 16,
    {
        **dict.fromkeys(range(0x0600), _LLC),
        **dict.fromkeys(_TAGS, _MALFORMED),  # more than `_MOST_TAGS`
        0x0800: _IPV4,
        0x0806: _ARP,
        0x86DD: _IPV6,
        **dict.fromkeys((0x8847, 0x8848), _MPLS),
        **dict.fromkeys((0x8863, 0x8864), _PPPOE),
    },
    _OTHER,
)
_IS_TAG: Final = _table(1 << 16, dict.fromkeys(_TAGS, 1)).astype(bool)
_IS_TUNNEL: Final = _table(256, dict.fromkeys((4, 41, 47, 50, 51, 115), 1)).astype(bool)
_IS_TUNNEL_PORT: Final = _table(1 << 16, dict.fromkeys((4789, 8472, 2152, 1701), 1)).astype(bool)
_UNKNOWN_ETHERTYPE: Final = 0xFFFF
_ETHERTYPE_OF_VERSION: Final = np.full(16, _UNKNOWN_ETHERTYPE)
_ETHERTYPE_OF_VERSION[[4, 6]] = 0x0800, 0x86DD
_ETHERTYPE_OF_FAMILY: Final = np.full(256, _UNKNOWN_ETHERTYPE)
_ETHERTYPE_OF_FAMILY[[2, 10, 24, 28, 30]] = 0x0800, 0x86DD, 0x86DD, 0x86DD, 0x86DD  # AF_INET; AF_INET6 of each system


@dataclass(frozen=True)
class Packets:
    """Consecutive packets of a capture, in its order; every array has the shape (packets,).

    Attributes:
        offset: Where the record begins in the file, uncompressed; identifies the packet.
        nanos: Time in nanoseconds since 1970.
        seconds: The same as float64, computed as the official extractor does: whole seconds plus fraction, so that
            differences have its rounding, 2**-22 s.
        length: Bytes of the frame as an untagged Ethernet frame: padding kept, VLAN tags taken off.
        kind: Index in `KINDS`. The columns below are 0 if the packet is not visible.
        marks: Bits for `MARKS`.
        protocol: IPv4 protocol number; ARP 0.
        ttl: Time to live; ARP 0.
        transport: `TCP` or `UDP` if that header was captured, else 0: fragments other than the first have none.
        header: Bytes of the TCP header with options, 8 for UDP; 0 without `transport`.
        flags: The eight TCP flags, FIN in bit 0 to CWR in bit 7; 0 without TCP.
        source_port: Of TCP and UDP, else 0.
        target_port: Of TCP and UDP, else 0.
        source: IPv4 address as a number; of ARP the sender's protocol address.
        target: IPv4 address as a number; of ARP the target's protocol address.
        source_mac: Ethernet address as a number; 0 where the link layer has none.
        target_mac: Ethernet address as a number; 0 where the link layer has none.
    """

    offset: Ints
    nanos: Ints
    seconds: Floats
    length: Ints
    kind: NDArray[np.uint8]
    marks: NDArray[np.uint8]
    protocol: NDArray[np.uint8]
    ttl: NDArray[np.uint8]
    transport: NDArray[np.uint8]
    header: NDArray[np.uint8]
    flags: NDArray[np.uint8]
    source_port: NDArray[np.uint16]
    target_port: NDArray[np.uint16]
    source: NDArray[np.uint32]
    target: NDArray[np.uint32]
    source_mac: NDArray[np.uint64]
    target_mac: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.offset)

    @property
    def visible(self) -> Mask:
        """Which packets are in windows."""
        found: Mask = self.kind < VISIBLE
        return found


@dataclass
class _Link:
    """Link layer of packets.

    Attributes:
        kind: Index in `KINDS` by Ethernet type.
        header: Bytes before the network layer.
        tags: VLAN tags.
        more: Bytes that the frame would have more as an untagged Ethernet frame.
        source_mac: See `Packets`.
        target_mac: See `Packets`.
    """

    kind: NDArray[np.uint8]
    header: Ints
    tags: Ints
    more: Ints
    source_mac: NDArray[np.uint64]
    target_mac: NDArray[np.uint64]


def read_packets(records: Records) -> Packets:
    """Return the headers of records as columns.

    A record of a kind that is not visible keeps only `offset`, `nanos`, `seconds`, `length` and `kind`.
    """
    link = _link_layer(records)
    kind, size = link.kind, len(records)
    kind[(records.nanos < 0) | (records.nanos >= _END_NANOS)] = _IMPOSSIBLE_TIME
    room = records.captured - link.header
    at = records.start + link.header
    columns: dict[str, NDArray[Any]] = {}
    ip = _where(kind == _IPV4)
    found, fault = _ipv4(records.buffer, at[ip], room[ip])
    kind[ip] = np.where(fault > 0, fault, kind[ip])
    for name, values in found.items():
        columns[name] = _spread(values, ip, size)
    arp = _where(kind == _ARP)
    if isinstance(arp, slice) or len(arp):
        rows = rows_at(records.buffer, at[arp], 28).view(">u2")
        short = room[arp] < 28
        kind[arp] = np.where(short, _TRUNCATED, kind[arp])
        of_ipv4 = (rows[:, 1] == 0x0800) & (rows[:, 2] == 0x0604)
        for name, word in (("source", 7), ("target", 12)):
            address = rows[:, word].astype(np.uint32) << 16 | rows[:, word + 1]
            columns[name][arp] = np.where(of_ipv4, address, 0)
    marks = columns.pop("marks")
    length = records.length + link.more
    for bit, mask in ((0, link.tags > 0), (3, records.captured < records.length), (5, length > _LARGEST)):
        marks |= mask.view(np.uint8) << np.uint8(bit)
    columns |= {"marks": marks, "source_mac": link.source_mac, "target_mac": link.target_mac}
    hidden = np.flatnonzero(kind >= VISIBLE)
    if len(hidden):
        for values in columns.values():
            values[hidden] = 0
    return Packets(
        offset=records.offset, nanos=records.nanos, seconds=records.seconds, length=length, kind=kind, **columns
    )


def _link_layer(records: Records) -> _Link:
    if not len(records) or records.link.min() == records.link.max():
        read = _LINKS.get(int(records.link[0]), _unreadable) if len(records) else _ethernet
        return read(records.buffer, records.start, records.captured)
    size = len(records)
    whole = _Link(
        kind=np.zeros(size, np.uint8),
        header=np.zeros(size, np.int64),
        tags=np.zeros(size, np.int64),
        more=np.zeros(size, np.int64),
        source_mac=np.zeros(size, np.uint64),
        target_mac=np.zeros(size, np.uint64),
    )
    for link in np.unique(records.link).tolist():
        mine = records.link == link
        part = _LINKS.get(link, _unreadable)(records.buffer, records.start[mine], records.captured[mine])
        for name in whole.__dataclass_fields__:
            getattr(whole, name)[mine] = getattr(part, name)
    return whole


def _of_header(ethertype: Ints, header: int, captured: Ints) -> _Link:
    """Return the link layer of a header of one length, without addresses."""
    kind = _KIND_OF_ETHERTYPE[ethertype]
    kind[captured < header] = _TRUNCATED
    size, macs = len(kind), np.zeros(len(kind), np.uint64)
    headers, more = np.full(size, header), np.full(size, _ETHERNET_HEADER - header)
    return _Link(kind, headers, np.zeros(size, np.int64), more, macs, macs.copy())


def _ethernet(buffer: NDArray[np.uint8], start: Ints, captured: Ints) -> _Link:
    words = rows_at(buffer, start, 16).view(">u8").astype(np.uint64)
    ethertype = (words[:, 1] >> np.uint64(16) & np.uint64(0xFFFF)).astype(np.int64)
    link = _of_header(ethertype, _ETHERNET_HEADER, captured)
    link.target_mac = words[:, 0] >> np.uint64(16)
    link.source_mac = (words[:, 0] & np.uint64(0xFFFF)) << np.uint64(32) | words[:, 1] >> np.uint64(32)
    _take_off_tags(link, ethertype, buffer, start, captured)
    return link


def _take_off_tags(link: _Link, ethertype: Ints, buffer: NDArray[np.uint8], start: Ints, captured: Ints) -> None:
    """Move a link layer past its VLAN tags; each ends with the Ethernet type of what follows."""
    tagged = np.flatnonzero(_IS_TAG[ethertype] & (captured >= link.header))
    for _ in range(_MOST_TAGS):
        if not len(tagged):
            break
        link.header[tagged] += _TAG
        link.tags[tagged] += 1
        link.more[tagged] -= _TAG
        inner = rows_at(buffer, start[tagged] + link.header[tagged] - 2, 2).view(">u2")[:, 0].astype(np.int64)
        cut = captured[tagged] < link.header[tagged]
        link.kind[tagged] = np.where(cut, _TRUNCATED, _KIND_OF_ETHERTYPE[inner])
        tagged = tagged[_IS_TAG[inner] & ~cut]


def _cooked(buffer: NDArray[np.uint8], start: Ints, captured: Ints) -> _Link:
    """Return the link layer of a Linux cooked capture, which keeps the sender's address.

    A VLAN tag that an interface has taken off follows it, where libpcap puts it back.
    """
    words = rows_at(buffer, start, 16).view(">u2").astype(np.int64)
    link = _of_header(words[:, 7], 16, captured)
    link.source_mac = _cooked_address(words[:, 1], words[:, 2], words[:, 3:6])
    _take_off_tags(link, words[:, 7], buffer, start, captured)
    return link


def _cooked_2(buffer: NDArray[np.uint8], start: Ints, captured: Ints) -> _Link:
    words = rows_at(buffer, start, 20).view(">u2").astype(np.int64)
    link = _of_header(words[:, 0], 20, captured)
    link.source_mac = _cooked_address(words[:, 4], words[:, 5] & 0xFF, words[:, 6:9])
    _take_off_tags(link, words[:, 0], buffer, start, captured)
    return link


def _cooked_address(hardware: Ints, length: Ints, words: Ints) -> NDArray[np.uint64]:
    address = words[:, 0] << 32 | words[:, 1] << 16 | words[:, 2]
    return np.where((hardware == 1) & (length == 6), address, 0).astype(np.uint64)


def _raw_ip(buffer: NDArray[np.uint8], start: Ints, captured: Ints) -> _Link:
    version = rows_at(buffer, start, 1)[:, 0] >> 4
    link = _of_header(_ETHERTYPE_OF_VERSION[version], 0, captured)
    link.kind[captured < 1] = _TRUNCATED
    return link


def _bsd_loopback(buffer: NDArray[np.uint8], start: Ints, captured: Ints) -> _Link:
    """Return the link layer of BSD loopback, a number of the protocol family in either byte order."""
    rows = rows_at(buffer, start, 4)
    family = np.minimum(rows.view("<u4")[:, 0], rows.view(">u4")[:, 0])
    return _of_header(_ETHERTYPE_OF_FAMILY[np.minimum(family, 255)], 4, captured)


def _unreadable(_: NDArray[np.uint8], start: Ints, captured: Ints) -> _Link:
    link = _of_header(np.zeros(len(start), np.int64), _ETHERNET_HEADER, captured)
    link.kind[:] = _OTHER_LINK_TYPE
    return link


_LINKS: Final[Mapping[int, Callable[[NDArray[np.uint8], Ints, Ints], _Link]]] = {
    ETHERNET: _ethernet,
    COOKED: _cooked,
    COOKED_2: _cooked_2,
    **dict.fromkeys(RAW_IP, _raw_ip),
    **dict.fromkeys(BSD_LOOPBACK, _bsd_loopback),
}


def _ipv4(buffer: NDArray[np.uint8], at: Ints, room: Ints) -> tuple[dict[str, NDArray[Any]], NDArray[np.uint8]]:
    """Return columns of IPv4 packets, and the kind of those that are `truncated` or `malformed`, else 0.

    Args:
        buffer: Bytes of the capture.
        at: Index of the IPv4 header.
        room: Bytes captured from there on.
    """
    words = rows_at(buffer, at, 20).view(">u4").astype(np.uint32)
    first = words[:, 0]
    size, total = ((first >> 24 & 15) << 2).astype(np.int64), first & 0xFFFF
    wrong = (first >> 28 != 4) | (size < 20) | ((total < size) & (total > 0))  # segmentation offload: total 0
    fault = np.where(wrong, _MALFORMED, np.where(room < size, _TRUNCATED, 0))
    fault[room < 20] = _TRUNCATED
    fragment = words[:, 1] & 0x1FFF != 0
    protocol = words[:, 2] >> 16 & 0xFF
    inside = np.where(total > 0, np.minimum(total, room), room) - size
    transport = rows_at(buffer, at + size, 16).view(">u4").astype(np.uint32)
    header = (transport[:, 3] >> 28 << 2).astype(np.uint8)
    tcp = (protocol == TCP) & ~fragment & (inside >= 20) & (header >= 20)
    udp = (protocol == UDP) & ~fragment & (inside >= 8)
    as_tcp, as_udp = tcp.view(np.uint8), udp.view(np.uint8)  # 0 or 1: products are faster than np.where
    source_port, target_port = (
        port.astype(np.uint16) * (as_tcp | as_udp) for port in (transport[:, 0] >> 16, transport[:, 0])
    )
    tunnel = _IS_TUNNEL[protocol] | (udp & (_IS_TUNNEL_PORT[source_port] | _IS_TUNNEL_PORT[target_port]))
    unknown = ((protocol == TCP) | (protocol == UDP)) & ~fragment & ~tcp & ~udp
    columns = {
        "marks": fragment.view(np.uint8) << 1 | tunnel.view(np.uint8) << 2 | unknown.view(np.uint8) << 4,
        "protocol": protocol.astype(np.uint8),
        "ttl": (words[:, 2] >> 24).astype(np.uint8),
        "transport": as_tcp * np.uint8(TCP) + as_udp * np.uint8(UDP),
        "header": header * as_tcp + np.uint8(8) * as_udp,
        "flags": (transport[:, 3] >> 16).astype(np.uint8) * as_tcp,
        "source_port": source_port,
        "target_port": target_port,
        "source": words[:, 3].copy(),
        "target": words[:, 4].copy(),
    }
    return columns, fault.astype(np.uint8)


def _where(mask: Mask) -> slice | Ints:
    """Return an index of the chosen rows that costs nothing if it is all of them."""
    return slice(None) if mask.all() else np.flatnonzero(mask)


def _spread(values: NDArray[Any], where: slice | Ints, size: int) -> NDArray[Any]:
    """Return values at their rows, and 0 in other rows."""
    if isinstance(where, slice):
        return values
    spread = np.zeros(size, values.dtype)
    spread[where] = values
    return spread
