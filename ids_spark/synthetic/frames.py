"""Packets as columns to the bytes of Ethernet frames and capture files; payload is zeros.

Vectorised numpy: the headers of all packets with the same layout are one matrix, written to a buffer at the offsets of
their packets. IPv4, UDP, TCP, ICMP and ICMPv6 checksums are right.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ids_spark.base.arrays import Ints, Mask

TCP: Final = 6
UDP: Final = 17
ICMP: Final = 1
ICMPV6: Final = 58
ARP: Final = 0
"""`Packets.protocol`: IP protocol numbers, and 0 for ARP."""
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
"""TCP flags."""
NO_OPTIONS: Final = 0
MAXIMUM_SEGMENT: Final = 1
TIMESTAMPS: Final = 2
OF_CONNECTION: Final = 3
"""`Packets.options`: TCP options. The last: maximum segment size, selective acknowledgement, timestamps and window
scale, as Linux opens a connection."""
SHORTEST: Final = 60
"""Bytes of a frame without checksum; a shorter one is padded, as a switch sends it."""
NO_TAG: Final = -1
_OPTIONS: Final = (b"", b"\x02\x04\x05\xb4", b"\x01\x01\x08\x0a" + b"\0" * 8,
                   b"\x02\x04\x05\xb4\x04\x02\x08\x0a" + b"\0" * 8 + b"\x01\x03\x03\x07")  # fmt: skip
_MAC, _IPV4, _IPV6 = 6, 4, 16
_MULTICAST_V6: Final = bytes.fromhex("ff020000000000000000000000000001")
_PREFIX_V6: Final = bytes.fromhex("20010db8000000000000000000000000")  # RFC 3849: for documentation


@dataclass(frozen=True)
class Packets:
    """Packets of a capture; every array has the shape (packets,).

    Attributes:
        nanos: Nanoseconds since 1970.
        protocol: `TCP`, `UDP`, `ICMP`, `ICMPV6` or `ARP`.
        source, target: IPv4 addresses as numbers; of ARP the protocol addresses; of ICMPv6 the last bytes of the source
            (the target is all nodes).
        source_mac, target_mac: Ethernet addresses as numbers.
        source_port, target_port: Of TCP and UDP; of ICMP type · 256 + code, and an identifier; of ARP the operation.
        flags: Of TCP.
        options: Of TCP, `NO_OPTIONS` to `OF_CONNECTION`.
        sequence, acknowledged: Of TCP, modulo 2^32.
        window: Of TCP.
        payload: Bytes after the transport header.
        ttl: Time to live.
        identification: Of IPv4.
        tag: VLAN, or `NO_TAG`.
    """

    nanos: Ints
    protocol: Ints
    source: Ints
    target: Ints
    source_mac: Ints
    target_mac: Ints
    source_port: Ints
    target_port: Ints
    flags: Ints
    options: Ints
    sequence: Ints
    acknowledged: Ints
    window: Ints
    payload: Ints
    ttl: Ints
    identification: Ints
    tag: Ints

    def __len__(self) -> int:
        return len(self.nanos)

    def take(self, index: Ints | Mask | slice) -> "Packets":
        """Return some of the packets."""
        return Packets(*(getattr(self, field.name)[index] for field in fields(self)))


def joined(parts: Sequence[Packets]) -> Packets:
    """Return the packets of all parts, ordered by time; at equal times in the order of the parts."""
    whole = Packets(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Packets)))
    return whole.take(np.argsort(whole.nanos, kind="stable"))


def pcap(packets: Packets) -> NDArray[np.uint8]:
    """Return a pcap file of these packets: microseconds, little-endian, Ethernet."""
    records, lengths = _with_records(packets, 16, 0)
    starts = np.cumsum(lengths) - lengths
    captured = lengths - 16
    seconds, nanos = np.divmod(packets.nanos, 1_000_000_000)
    words = np.column_stack([seconds, nanos // 1000, captured, captured]).astype("<u4")
    records[starts[:, None] + np.arange(16)] = words.view(np.uint8)
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 1)
    return np.concatenate([np.frombuffer(head, np.uint8), records])


def pcapng(packets: Packets, comment: str) -> NDArray[np.uint8]:
    """Return a pcapng file of these packets, with a comment on the section: nanoseconds, little-endian, Ethernet."""
    records, lengths = _with_records(packets, 28, 4)
    starts = np.cumsum(lengths) - lengths
    frames = _lengths(packets)
    stamp = packets.nanos.astype(np.uint64)
    high, low = (stamp >> np.uint64(32)).astype(np.int64), (stamp & np.uint64(0xFFFFFFFF)).astype(np.int64)
    kind, interface = np.full(len(packets), 6), np.zeros(len(packets), dtype=np.int64)
    words = np.column_stack([kind, lengths, interface, high, low, frames, frames]).astype("<u4")
    records[starts[:, None] + np.arange(28)] = words.view(np.uint8)
    records[(starts + lengths - 4)[:, None] + np.arange(4)] = lengths.astype("<u4").view(np.uint8).reshape(-1, 4)
    section = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + _option(1, comment.encode()) + bytes(4)
    interface_block = struct.pack("<HHI", 1, 0, 262_144) + _option(9, b"\x09") + bytes(4)
    head = _block(0x0A0D0D0A, section) + _block(1, interface_block)
    return np.concatenate([np.frombuffer(head, np.uint8), records])


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def _block(kind: int, body: bytes) -> bytes:
    length = len(body) + 12
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)


def _with_records(packets: Packets, before: int, after: int) -> tuple[NDArray[np.uint8], Ints]:
    """Return a buffer with all frames, each with room for its record, and the length of each record.

    Args:
        before: Bytes before a frame.
        after: Bytes after a frame, which is padded to four bytes if there are any.
    """
    frames = _lengths(packets)
    lengths = before + (-(-frames // 4) * 4 + after if after else frames)
    starts = np.cumsum(lengths) - lengths + before
    buffer = np.zeros(int(lengths.sum()), dtype=np.uint8)
    layout = (packets.protocol * 4 + packets.options) * 2 + (packets.tag != NO_TAG)
    for each in np.unique(layout):
        rows = np.flatnonzero(layout == each)
        header = _headers(packets.take(rows))
        buffer[starts[rows][:, None] + np.arange(header.shape[1])] = header
    return buffer, lengths


def _lengths(packets: Packets) -> Ints:
    """Return the bytes of each frame."""
    options = np.array([len(text) for text in _OPTIONS])[packets.options]
    of_protocol = {ARP: 28, TCP: 40, UDP: 28, ICMP: 28, ICMPV6: 48}
    header = sum(length * (packets.protocol == protocol) for protocol, length in of_protocol.items())
    found: Ints = np.maximum(14 + header + options + packets.payload, SHORTEST) + 4 * (packets.tag != NO_TAG)
    return found


def _headers(packets: Packets) -> NDArray[np.uint8]:
    """Return all headers of packets of one layout, shape (packets, bytes)."""
    protocol = int(packets.protocol[0])
    ethertype = {ARP: 0x0806, ICMPV6: 0x86DD}.get(protocol, 0x0800)
    parts = [_bytes(packets.target_mac, _MAC), _bytes(packets.source_mac, _MAC)]
    if packets.tag[0] != NO_TAG:
        parts += [_constant(b"\x81\x00", packets), _bytes(packets.tag, 2)]
    parts.append(_constant(struct.pack(">H", ethertype), packets))
    if protocol == ARP:
        asks = packets.source_port == 1
        parts += [
            _constant(b"\0\x01\x08\0\x06\x04", packets),
            _bytes(packets.source_port, 2),
            _bytes(packets.source_mac, _MAC),
            _bytes(packets.source, _IPV4),
            _bytes(np.where(asks, 0, packets.target_mac), _MAC),
            _bytes(packets.target, _IPV4),
        ]
        return np.concatenate(parts, axis=1)
    if protocol == ICMPV6:
        source = _constant(_PREFIX_V6[:12], packets), _bytes(packets.source, 4)
        addresses = np.concatenate([*source, _constant(_MULTICAST_V6, packets)], axis=1)
        body = np.concatenate([_bytes(packets.source_port, 2), _bytes(packets.payload * 0, 6)], axis=1)
        total = 8 + packets.payload
        body[:, 2:4] = _checksum(addresses, _bytes(total, 4), _constant(b"\0\0\0\x3a", packets), body)
        first = [_constant(b"\x60\0\0\0", packets), _bytes(total, 2), _constant(b"\x3a", packets)]
        return np.concatenate([*parts, *first, _bytes(packets.ttl, 1), addresses, body], axis=1)
    addresses = np.concatenate([_bytes(packets.source, _IPV4), _bytes(packets.target, _IPV4)], axis=1)
    body, at = _transport(packets, protocol)
    total = body.shape[1] + packets.payload
    pseudo = (addresses, _constant(bytes([0, protocol]), packets), _bytes(total, 2)) if protocol != ICMP else ()
    body[:, at : at + 2] = _checksum(*pseudo, body)
    ip = np.concatenate(
        [
            _constant(b"\x45\0", packets),
            _bytes(20 + total, 2),
            _bytes(packets.identification, 2),
            _constant(b"\x40\0", packets),  # do not fragment
            _bytes(packets.ttl, 1),
            _constant(bytes([protocol, 0, 0]), packets),
            addresses,
        ],
        axis=1,
    )
    ip[:, 10:12] = _checksum(ip)
    return np.concatenate([*parts, ip, body], axis=1)


def _transport(packets: Packets, protocol: int) -> tuple[NDArray[np.uint8], int]:
    """Return the transport headers, and the place of their checksum."""
    ports = [_bytes(packets.source_port, 2), _bytes(packets.target_port, 2)]
    if protocol == UDP:
        return np.concatenate([*ports, _bytes(8 + packets.payload, 2), _constant(b"\0\0", packets)], axis=1), 6
    if protocol == ICMP:
        # Type and code, checksum, identifier, sequence number.
        parts = [ports[0], _constant(b"\0\0", packets), ports[1], _bytes(packets.sequence % 65_536, 2)]
        return np.concatenate(parts, axis=1), 2
    options = _OPTIONS[int(packets.options[0])]
    parts = [
        *ports,
        _bytes(packets.sequence, 4),
        _bytes(packets.acknowledged, 4),
        _constant(bytes([(20 + len(options)) // 4 << 4]), packets),
        _bytes(packets.flags, 1),
        _bytes(packets.window, 2),
        _constant(b"\0\0\0\0" + options, packets),
    ]
    return np.concatenate(parts, axis=1), 16


def _bytes(numbers: Ints, size: int) -> NDArray[np.uint8]:
    """Return numbers as big-endian bytes, shape (numbers, size)."""
    return numbers.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 8 - size :]


def _constant(text: bytes, packets: Packets) -> NDArray[np.uint8]:
    return np.tile(np.frombuffer(text, np.uint8), (len(packets), 1))


def _checksum(*parts: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the internet checksum (RFC 1071) of bytes of even length followed by zeros, shape (packets, 2)."""
    whole = np.ascontiguousarray(np.concatenate(parts, axis=1))
    total = whole.view(">u2").astype(np.int64).sum(axis=1)
    for _ in range(2):
        total = (total & 0xFFFF) + (total >> 16)
    return _bytes(0xFFFF - total, 2)
