"""Features of windows computed packet by packet in plain Python, with dpkt as the parser; for Ethernet captures.

Written from the formulas only: nothing here uses the code under test, but `as_packets` fills its columns.
"""

import dataclasses
import functools
import ipaddress
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import dpkt
import numpy as np

from ids_spark.dataset.features import RELEASE_39
from ids_spark.extract.packets import KINDS, Packets
from tests.support.frames import Captured

Feature = dict[str, float]


@dataclass(frozen=True)
class Seen:
    """One visible packet: IPv4 or ARP in an Ethernet frame with or without VLAN tags."""

    nanos: int
    length: int
    arp: bool
    source: int
    target: int
    source_mac: int
    target_mac: int
    protocol: int = 0
    ttl: int = 0
    transport: str = ""
    header: int = 0
    flags: int = 0
    ports: tuple[int, int] = (0, 0)
    conflict: bool = False

    @property
    def seconds(self) -> float:
        """Whole seconds plus fraction, as the official extractor computes them."""
        return self.nanos // 10**9 + self.nanos % 10**9 / 1e9


def seen(packet: Captured) -> Seen | None:
    """Return a record as a visible packet; None if no window has it."""
    try:
        frame = dpkt.ethernet.Ethernet(packet.frame)
    except dpkt.UnpackError:
        return None
    known: dict[str, Any] = {
        "nanos": packet.nanos,
        "length": packet.original - 4 * len(getattr(frame, "vlan_tags", ())),
        "source_mac": int.from_bytes(frame.src, "big"),
        "target_mac": int.from_bytes(frame.dst, "big"),
    }
    if getattr(frame, "mpls_labels", ()):  # dpkt goes on to what MPLS carries
        return None
    content = frame.data
    if isinstance(content, dpkt.arp.ARP):
        return Seen(**known, arp=True, source=_number(content.spa), target=_number(content.tpa))
    if not isinstance(content, dpkt.ip.IP):
        return None
    known |= {"arp": False, "source": _number(content.src), "target": _number(content.dst)}
    known |= {"protocol": content.p, "ttl": content.ttl}
    transport = content.data
    if isinstance(transport, dpkt.tcp.TCP):
        known |= {"transport": "TCP", "header": 4 * transport.off, "flags": transport.flags}
        known |= {"ports": (transport.sport, transport.dport)}
    elif isinstance(transport, dpkt.udp.UDP):
        known |= {"transport": "UDP", "header": 8, "ports": (transport.sport, transport.dport)}
    return Seen(**known)


def _number(address: bytes) -> int:
    return int.from_bytes(address, "big")


def device_in(networks: Sequence[str]) -> Callable[[Seen], int]:
    """Return the rule that finds the address of a packet's device."""
    inside = [ipaddress.ip_network(network) for network in networks]

    @functools.cache
    def is_inside(number: int) -> bool:
        return any(ipaddress.ip_address(number) in network for network in inside)

    @functools.cache
    def is_host(number: int) -> bool:
        address = ipaddress.ip_address(number)
        last = any(address == network.broadcast_address for network in inside if network.prefixlen < 31)
        return not (number in (0, 0xFFFFFFFF) or address.is_multicast or last)

    def device(packet: Seen) -> int:
        to_group = not packet.arp and bool(packet.target_mac >> 40 & 1)
        hosts = is_host(packet.source), is_host(packet.target) and not to_group
        if hosts == (True, False):
            return packet.source
        if hosts == (False, True):
            return packet.target
        return packet.source if is_inside(packet.source) and not is_inside(packet.target) else packet.target

    return device


@dataclass(frozen=True)
class Window:
    """What a flow log says of a window; `source` is None if it is unknown."""

    features: Feature
    packets: int
    nanos: int
    device: int
    source: int | None
    source_mac: int
    target: int


def windows(
    packets: Iterable[Seen], n: int, device: Callable[[Seen], int], by_device: bool = True
) -> tuple[list[Window], int]:
    """Return the windows of n packets of each stream, and how many packets are in none.

    Packets that are alone in the stream of their device are streams by sender, and those also alone there by MAC.
    """
    ordered = list(_with_conflicts(packets))
    keys: list[Callable[[Seen], Hashable]] = (
        [device, _sender, lambda p: p.source_mac or p] if by_device else [lambda p: 0]
    )
    streams: list[tuple[list[Seen], bool]] = []
    for i, key in enumerate(keys):
        own: dict[Hashable, list[Seen]] = defaultdict(list)
        for packet in ordered:
            own[key(packet)].append(packet)
        streams += [(stream, i == 2) for stream in own.values() if len(stream) > 1 or key is keys[-1]]
        ordered = [packet for packet in ordered if len(own[key(packet)]) == 1]
    found, single = [], 0
    for stream, forged in streams:
        parts = [(start, stream[start : start + n]) for start in range(0, len(stream), n)]
        if len(parts) > 1 and len(parts[-1][1]) == 1:
            start, last = parts[-2]
            parts[-2:] = [(start, last + parts[-1][1])]
        for start, part in parts:
            if len(part) == 1:
                single += 1
            else:
                window = _window(part, stream[start - 1] if start else part[0], device)
                found.append(dataclasses.replace(window, source=None) if forged else window)
    return found, single


def _sender(packet: Seen) -> tuple[str, int]:
    return ("mac", packet.source_mac) if packet.arp else ("ip", packet.source)


def _with_conflicts(packets: Iterable[Seen]) -> Iterable[Seen]:
    """Mark packets whose sender has claimed several addresses by ARP, one of them also claimed by another."""
    claims: list[tuple[int, int]] = []
    for packet in packets:
        if packet.arp and packet.source and packet.source_mac and (packet.source, packet.source_mac) not in claims:
            claims.append((packet.source, packet.source_mac))
        mine = {address for address, mac in claims if mac == packet.source_mac}
        others = {address for address, mac in claims if mac != packet.source_mac}
        yield dataclasses.replace(packet, conflict=len(mine) > 1 and bool(mine & others))


def _window(part: list[Seen], before: Seen, device: Callable[[Seen], int]) -> Window:
    def most(values: Iterable[Hashable]) -> Any:
        return Counter(values).most_common(1)[0][0]  # of several the first one seen

    of_device = most(device(p) for p in part)
    opening = [p for p in part if p.flags & 0x12 == 0x02]  # SYN without ACK
    counts = Counter(map(_sender, opening or part))
    # Of several, rather not the device; then the first seen, as the sort is stable.
    likely = sorted(opening or part, key=lambda p: (-counts[_sender(p)], not p.arp and p.source == of_device))
    source = _sender(likely[0])
    of_source = [p for p in part if _sender(p) == source]
    if conflicts := [p for p in part if p.conflict]:
        source, of_source = ("mac", 0), conflicts
    return Window(
        features=features(part, before),
        packets=len(part),
        nanos=part[0].nanos,
        device=of_device,
        source=source[1] if source[0] == "ip" else None,
        source_mac=most(p.source_mac for p in of_source),
        target=most(p.target for p in part),
    )


def features(part: Sequence[Seen], before: Seen) -> Feature:
    """Return the 39 features of a window; `before` is the packet before it, or its first one."""
    n = len(part)

    def share(true: Callable[[Seen], bool]) -> float:
        return sum(map(true, part)) / n

    def flag(bit: int) -> float:
        return share(lambda p: p.transport == "TCP" and bool(p.flags >> bit & 1))

    def port(transport: str, number: int) -> float:
        return share(lambda p: p.transport == transport and number in p.ports)

    sizes = [p.length for p in part]
    variance = (n * sum(size * size for size in sizes) - sum(sizes) ** 2) / (n * (n - 1))  # integers are exact
    seconds = [before.seconds, *(p.seconds for p in part)]
    span = max(seconds[1:]) - min(seconds[1:])
    protocols = Counter(p.protocol for p in part)
    found = {
        "Header_Length": sum(p.header for p in part) / n,
        "Protocol Type": min(protocol for protocol, count in protocols.items() if count == max(protocols.values())),
        "Time_To_Live": sum(p.ttl for p in part) / n,
        "Rate": n / span if span else math.inf,
        "fin_flag_number": flag(0),
        "syn_flag_number": flag(1),
        "rst_flag_number": flag(2),
        "psh_flag_number": flag(3),
        "ack_flag_number": flag(4),
        "ece_flag_number": flag(6),
        "cwr_flag_number": flag(7),
        "ack_count": n * flag(4),
        "syn_count": n * flag(1),
        "fin_count": n * flag(0),
        "rst_count": n * flag(2),
        "HTTP": port("TCP", 80),
        "HTTPS": port("TCP", 443),
        "DNS": port("UDP", 53),
        "Telnet": port("TCP", 23),
        "SMTP": port("TCP", 25),
        "SSH": port("TCP", 22),
        "IRC": port("TCP", 21),
        "TCP": share(lambda p: p.transport == "TCP"),
        "UDP": share(lambda p: p.transport == "UDP"),
        "DHCP": share(lambda p: p.transport == "UDP" and p.ports in ((67, 68), (68, 67))),
        "ARP": share(lambda p: p.arp),
        "ICMP": share(lambda p: p.protocol == 1),
        "IGMP": share(lambda p: p.protocol == 2),
        "IPv": share(lambda p: not p.arp),
        "LLC": share(lambda p: not p.arp),
        "Tot sum": sum(sizes),
        "Min": min(sizes),
        "Max": max(sizes),
        "AVG": sum(sizes) / n,
        "Std": math.sqrt(variance),
        "Tot size": sum(sizes) / n,
        "IAT": math.fsum(b - a for a, b in itertools.pairwise(seconds)) / n,
        "Number": n,
        "Variance": variance,
    }
    return {name: float(found[name]) for name in RELEASE_39.features}


def as_packets(packets: Sequence[Seen | None], first: int = 0) -> Packets:
    """Return packets as columns, numbered from `first`; `None` is one that no window has."""

    def column(value: Callable[[Seen], int], dtype: Any, invisible: int = 0) -> Any:
        return np.array([invisible if p is None else value(p) for p in packets], dtype=dtype)

    return Packets(
        offset=np.arange(first, first + len(packets)),
        nanos=column(lambda p: p.nanos, np.int64),
        seconds=np.array([0.0 if p is None else p.seconds for p in packets]),
        length=column(lambda p: p.length, np.int64),
        kind=column(lambda p: int(p.arp), np.uint8, KINDS.index("ipv6")),
        marks=np.zeros(len(packets), dtype=np.uint8),
        protocol=column(lambda p: p.protocol, np.uint8),
        ttl=column(lambda p: p.ttl, np.uint8),
        transport=column(lambda p: {"TCP": 6, "UDP": 17, "": 0}[p.transport], np.uint8),
        header=column(lambda p: p.header, np.uint8),
        flags=column(lambda p: p.flags, np.uint8),
        source_port=column(lambda p: p.ports[0], np.uint16),
        target_port=column(lambda p: p.ports[1], np.uint16),
        source=column(lambda p: p.source, np.uint32),
        target=column(lambda p: p.target, np.uint32),
        source_mac=column(lambda p: p.source_mac, np.uint64),
        target_mac=column(lambda p: p.target_mac, np.uint64),
    )
