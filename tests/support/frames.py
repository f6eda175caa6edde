"""Frames of packets and capture files, made byte by byte with `struct`; checksums are 0.

Layers nest: `ethernet(ipv4(tcp(40000, 443, "S"), "10.0.0.1", "10.0.0.2"))`. A capture is a list of `Captured`, written
by `pcap` or `pcapng`. Nothing here uses the code under test.
"""

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Order = Literal["<", ">"]
"""Byte order as in `struct`."""

ETHERNET: Final = 1
RAW_IP: Final = 101
COOKED: Final = 113
COOKED_2: Final = 276
BSD_NULL: Final = 0
BSD_LOOP: Final = 108
"""Link types, https://www.tcpdump.org/linktypes.html."""

IPV4: Final = 0x0800
ARP: Final = 0x0806
IPV6: Final = 0x86DD
VLAN: Final = 0x8100
QINQ: Final = 0x88A8
OLD_QINQ: Final = 0x9100
MPLS: Final = 0x8847
PPPOE: Final = 0x8864
LLDP: Final = 0x88CC
"""Ethernet types."""

ICMP: Final = 1
IGMP: Final = 2
IP_IN_IP: Final = 4
TCP: Final = 6
UDP: Final = 17
IPV6_IN_IP: Final = 41
GRE: Final = 47
ESP: Final = 50
AH: Final = 51
"""IPv4 protocol numbers."""

A_MAC: Final = "02:00:00:00:00:0a"
B_MAC: Final = "02:00:00:00:00:0b"
BROADCAST: Final = "ff:ff:ff:ff:ff:ff"
SHORTEST: Final = 60
"""Bytes to which a sender pads an Ethernet frame (without its checksum, which captures do not hold)."""
FLAGS: Final = "FSRPAUEC"
"""TCP flags from bit 0: FIN, SYN, RST, PSH, ACK, URG, ECE, CWR."""


@dataclass(frozen=True)
class Captured:
    """One record of a capture.

    Attributes:
        frame: The bytes in the capture.
        nanos: Nanoseconds since 1970.
        length: Bytes that the frame had; default: those in the capture.
    """

    frame: bytes
    nanos: int = 1_700_000_000_000_000_000
    length: int | None = None

    @property
    def original(self) -> int:
        return len(self.frame) if self.length is None else self.length


# Layer 2


def mac_bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def ethernet(
    payload: bytes = b"",
    ethertype: int = IPV4,
    source: str = A_MAC,
    target: str = B_MAC,
    tags: Sequence[int] = (),
    pad: int = 0,
) -> bytes:
    """Return an Ethernet frame; `tags` are Ethernet types of VLAN tags, the outermost first; `pad`: shortest frame."""
    tag_bytes = b"".join(struct.pack(">HH", tag, 100 + i) for i, tag in enumerate(tags))
    frame = mac_bytes(target) + mac_bytes(source) + tag_bytes + struct.pack(">H", ethertype) + payload
    return frame.ljust(pad, b"\0")


def llc(payload: bytes = b"\x42\x42\x03" + bytes(35), source: str = A_MAC, target: str = "01:80:c2:00:00:00") -> bytes:
    """Return an IEEE 802.3 frame, which has its length in the place of an Ethernet type; default: spanning tree."""
    return ethernet(payload, len(payload), source, target)


def mpls(payload: bytes, labels: Sequence[int] = (100,)) -> bytes:
    """Return MPLS labels and what they carry; the last label has the bit that ends the stack."""
    return (
        b"".join(struct.pack(">I", label << 12 | (i == len(labels) - 1) << 8 | 64) for i, label in enumerate(labels))
        + payload
    )


def pppoe(payload: bytes, protocol: int = 0x0021) -> bytes:
    """Return a PPPoE session header and what it carries (0x0021: IPv4)."""
    return struct.pack(">BBHHH", 0x11, 0, 1, len(payload) + 2, protocol) + payload


def tagged(payload: bytes, ethertype: int = IPV4, tags: Sequence[int] = ()) -> bytes:
    """Return what follows an Ethernet type of `tags[0]`: VLAN tags, the outermost first, and what they carry."""
    types = [*tags[1:], ethertype]
    return b"".join(struct.pack(">HH", 100 + i, following) for i, following in enumerate(types)) + payload


def cooked(payload: bytes, ethertype: int = IPV4, source: str = A_MAC) -> bytes:
    """Return a frame of link type 113, Linux cooked capture."""
    return struct.pack(">HHH8sH", 0, 1, 6, mac_bytes(source), ethertype) + payload


def cooked_2(payload: bytes, ethertype: int = IPV4, source: str = A_MAC) -> bytes:
    """Return a frame of link type 276, Linux cooked capture version 2."""
    return struct.pack(">HHIHBB8s", ethertype, 0, 2, 1, 0, 6, mac_bytes(source)) + payload


def bsd_null(payload: bytes, family: int = 2, order: Order = "<") -> bytes:
    """Return a frame of link type 0 (either byte order) or 108 (`>`): BSD loopback; family 2 is IPv4."""
    return struct.pack(f"{order}I", family) + payload


# Layer 3


def arp(
    operation: int = 1,
    sender: str = "10.0.0.1",
    target: str = "10.0.0.2",
    sender_mac: str = A_MAC,
    target_mac: str = "00:00:00:00:00:00",
) -> bytes:
    """Return an ARP message for IPv4 over Ethernet: 1 request, 2 reply."""
    ends = mac_bytes(sender_mac) + ip_bytes(sender) + mac_bytes(target_mac) + ip_bytes(target)
    return struct.pack(">HHBBH", 1, IPV4, 6, 4, operation) + ends


def ip_bytes(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def ipv4(
    payload: bytes = b"",
    source: str = "10.0.0.1",
    target: str = "10.0.0.2",
    protocol: int = TCP,
    *,
    ttl: int = 64,
    options: bytes = b"",
    fragment: int = 0,
    more: bool = False,
    header_words: int | None = None,
    total: int | None = None,
    version: int = 4,
) -> bytes:
    """Return an IPv4 packet.

    Args:
        options: A multiple of 4 bytes.
        fragment: Offset of a fragment in bytes, a multiple of 8.
        more: Whether more fragments follow.
        header_words: Header length that the header states, in words of 4 bytes; default: its own.
        total: Total length that the header states; default: its own.
    """
    words = 5 + len(options) // 4 if header_words is None else header_words
    length = 20 + len(options) + len(payload) if total is None else total
    header = struct.pack(
        ">BBHHHBBH4s4s",
        version << 4 | words,
        0,
        length,
        7,
        more << 13 | fragment // 8,
        ttl,
        protocol,
        0,
        ip_bytes(source),
        ip_bytes(target),
    )
    return header + options + payload


def ipv6(
    payload: bytes = b"",
    source: str = "fe80::1",
    target: str = "ff02::fb",
    next_header: int = UDP,
    hop_limit: int = 255,
) -> bytes:
    return (
        struct.pack(">IHBB", 6 << 28, len(payload), next_header, hop_limit)
        + ip_bytes(source)
        + ip_bytes(target)
        + payload
    )


# Layer 4


def tcp(
    source_port: int = 40_000,
    target_port: int = 443,
    flags: str = "A",
    payload: bytes = b"",
    options: bytes = b"",
    header_words: int | None = None,
) -> bytes:
    """Return a TCP segment; `flags` are letters of `FLAGS`; `options` a multiple of 4 bytes, at most 40."""
    words = 5 + len(options) // 4 if header_words is None else header_words
    bits = sum(1 << FLAGS.index(flag) for flag in flags)
    header = struct.pack(">HHIIBBHHH", source_port, target_port, 1, 1, words << 4, bits, 65_535, 0, 0)
    return header + options + payload


def udp(source_port: int = 40_000, target_port: int = 53, payload: bytes = b"") -> bytes:
    return struct.pack(">HHHH", source_port, target_port, 8 + len(payload), 0) + payload


def icmp(kind: int = 8, payload: bytes = bytes(56)) -> bytes:
    """Return an ICMP message; 8: echo request, 0: echo reply."""
    return struct.pack(">BBHHH", kind, 0, 0, 1, 1) + payload


def igmp(group: str = "239.255.255.250") -> bytes:
    """Return an IGMP version 2 report."""
    return struct.pack(">BBH4s", 0x16, 0, 0, ip_bytes(group))


# Tunnels


def gre(payload: bytes, ethertype: int = IPV4) -> bytes:
    """Return the payload of an IPv4 packet of protocol 47."""
    return struct.pack(">HH", 0, ethertype) + payload


def vxlan(frame: bytes, network: int = 1) -> bytes:
    """Return the payload of a UDP datagram to port 4789."""
    return struct.pack(">II", 0x08 << 24, network << 8) + frame


def gtp(packet: bytes) -> bytes:
    """Return the payload of a UDP datagram to port 2152: GTP-U version 1."""
    return struct.pack(">BBHI", 0x30, 0xFF, len(packet), 1) + packet


def l2tp(packet: bytes) -> bytes:
    """Return the payload of a UDP datagram to port 1701: an L2TP data message with PPP and IPv4."""
    return struct.pack(">HHHBBH", 0x0002, 1, 1, 0xFF, 0x03, 0x0021) + packet


# Capture files


def pcap(
    packets: Sequence[Captured],
    link: int = ETHERNET,
    order: Order = "<",
    nanoseconds: bool = False,
    snap_length: int = 262_144,
) -> bytes:
    """Return a pcap file; frames longer than `snap_length` are cut, their original length stays."""
    magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
    parts = [struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, snap_length, link)]
    for packet in packets:
        seconds, nanos = divmod(packet.nanos, 10**9)
        kept = packet.frame[:snap_length]
        fraction = nanos if nanoseconds else nanos // 1_000
        parts.append(struct.pack(f"{order}IIII", seconds, fraction, len(kept), packet.original) + kept)
    return b"".join(parts)


def pcapng(packets: Sequence[Captured], link: int = ETHERNET, order: Order = "<", digits: int = 6) -> bytes:
    """Return a pcapng file of one section and interface; times have `digits` decimal digits of a second."""
    blocks = [section(order), interface(link, order, resolution=digits)]
    return b"".join([*blocks, *(enhanced(packet, 0, order, 10**digits) for packet in packets)])


def block(kind: int, body: bytes, order: Order = "<") -> bytes:
    """Return a block of pcapng; the body is padded to 4 bytes."""
    body += bytes(-len(body) % 4)
    return struct.pack(f"{order}II", kind, len(body) + 12) + body + struct.pack(f"{order}I", len(body) + 12)


def option(code: int, value: bytes, order: Order = "<") -> bytes:
    return struct.pack(f"{order}HH", code, len(value)) + value + bytes(-len(value) % 4)


def section(order: Order = "<") -> bytes:
    return block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(
    link: int = ETHERNET,
    order: Order = "<",
    snap_length: int = 0,
    resolution: int | None = None,
    offset: int | None = None,
) -> bytes:
    """Return an interface description.

    Args:
        snap_length: 0: no limit.
        resolution: `if_tsresol`: decimal digits, or 0x80 + binary digits; default: no option, so 6.
        offset: `if_tsoffset`: seconds to add to every time.
    """
    options = b"" if resolution is None else option(9, bytes([resolution]), order)
    options += b"" if offset is None else option(14, struct.pack(f"{order}q", offset), order)
    options += option(0, b"", order) if options else b""
    return block(1, struct.pack(f"{order}HHI", link, 0, snap_length) + options, order)


def enhanced(packet: Captured, number: int = 0, order: Order = "<", ticks: int = 10**6, offset: int = 0) -> bytes:
    """Return an enhanced packet block of interface `number`, which counts `ticks` a second from `offset` seconds."""
    time = (packet.nanos - offset * 10**9) * ticks // 10**9
    head = struct.pack(f"{order}IIIII", number, time >> 32, time & 0xFFFFFFFF, len(packet.frame), packet.original)
    return block(6, head + packet.frame, order)


def simple(packet: Captured, order: Order = "<") -> bytes:
    """Return a simple packet block, which has no time and no interface number."""
    return block(3, struct.pack(f"{order}I", packet.original) + packet.frame, order)


def obsolete(packet: Captured, number: int = 0, order: Order = "<", ticks: int = 10**6) -> bytes:
    """Return an obsolete packet block."""
    time = packet.nanos * ticks // 10**9
    head = struct.pack(f"{order}HHIIII", number, 0, time >> 32, time & 0xFFFFFFFF, len(packet.frame), packet.original)
    return block(2, head + packet.frame, order)
