"""Random captures of Ethernet frames with every edge case that a readable packet can have."""

import random

from tests.support import frames
from tests.support.frames import Captured

HOSTS = ("10.0.0.1", "10.0.0.2", "10.0.0.3", "192.168.1.7", "203.0.113.9", "198.51.100.1")
NO_HOSTS = ("0.0.0.0", "255.255.255.255", "224.0.0.251", "239.255.255.250", "10.255.255.255")
MACS = ("02:00:00:00:00:0a", "02:00:00:00:00:0b", "00:1b:63:84:45:e6")
GROUP_MACS = (frames.BROADCAST, "01:00:5e:00:00:fb")
PORTS = (80, 443, 53, 23, 25, 22, 21, 67, 68, 1883, 40_000, 65_535)
TAGS = ((), (), (), (frames.VLAN,), (frames.QINQ, frames.VLAN), (frames.OLD_QINQ, frames.VLAN))
STARTS = (0, 1, 1_600_000_000, 1_700_000_000, 4_000_000_000)
"""Seconds; captures that begin at time 0 exist."""


def capture(draw: random.Random, packets: int) -> list[Captured]:
    """Return a capture of a given number of packets."""
    hosts = draw.sample(HOSTS, draw.randint(2, len(HOSTS)))
    if draw.random() < 0.1:
        hosts += [f"10.{draw.randrange(256)}.{draw.randrange(256)}.{draw.randrange(1, 255)}" for _ in range(packets)]
    nanos = draw.choice(STARTS) * 10**9
    unsorted, stopped = draw.random() < 0.2, draw.random() < 0.2
    found = []
    for _ in range(packets):
        if not stopped or draw.random() < 0.1:
            nanos += draw.choice((0, 1_000, 37_000, 10**6, 10**9 + 7_000, draw.randrange(10**7) * 1_000))
        time = max(0, nanos - draw.randrange(10**6) * 1_000) if unsorted else nanos
        found.append(_captured(frame(draw, hosts), time, draw))
    return found


def _captured(content: bytes, nanos: int, draw: random.Random) -> Captured:
    if draw.random() < 0.1:  # a snap length that holds every header
        return Captured(content[:128], nanos, len(content))
    if draw.random() < 0.02:  # segmentation offload
        return Captured(content, nanos, len(content) + draw.randrange(60_000))
    return Captured(content, nanos)


def frame(draw: random.Random, hosts: list[str]) -> bytes:
    """Return a frame between two of the hosts, or to a group; one in 12 is in no window."""
    ends = draw.choice(MACS), draw.choice(MACS if draw.random() < 0.9 else GROUP_MACS)
    source, target = (draw.choice(hosts if draw.random() < 0.93 else NO_HOSTS) for _ in range(2))
    tags, pad = draw.choice(TAGS), draw.choice((0, frames.SHORTEST))
    if draw.random() < 1 / 12:
        return _invisible(draw)
    if draw.random() < 0.1:
        message = frames.arp(draw.choice((1, 2)), source, target, ends[0])
        return frames.ethernet(message, frames.ARP, *ends, tags, pad)
    payload, protocol = _transport(draw)
    options = b"\1" * 4 * draw.choice((0, 0, 0, 1, 10))
    fragment = {} if draw.random() < 0.9 else draw.choice(({"more": True}, {"fragment": 1480}))
    packet = frames.ipv4(
        payload, source, target, protocol, ttl=draw.choice((1, 64, 64, 128, 255)), options=options, **fragment
    )
    return frames.ethernet(packet, frames.IPV4, *ends, tags, pad)


def _transport(draw: random.Random) -> tuple[bytes, int]:
    ports = draw.choice(PORTS), draw.choice(PORTS)
    payload = bytes(draw.choice((0, 0, 1, 100, 1_400)))
    which = draw.random()
    if which < 0.5:
        flags = "".join(flag for flag in frames.FLAGS if draw.random() < 0.3)
        return frames.tcp(*ports, flags, payload, b"\1" * 4 * draw.choice((0, 0, 3, 10))), frames.TCP
    if which < 0.75:
        return frames.udp(*ports, payload), frames.UDP
    if which < 0.85:
        return frames.icmp(), frames.ICMP
    if which < 0.9:
        return frames.igmp(), frames.IGMP
    return payload, draw.choice((0, 89, 132, 253))


def _invisible(draw: random.Random) -> bytes:
    inner = frames.ipv4(frames.udp(), protocol=frames.UDP)
    return draw.choice(
        (
            frames.llc(),
            frames.ethernet(frames.ipv6(frames.udp()), frames.IPV6, tags=draw.choice(TAGS)),
            frames.ethernet(frames.mpls(inner), frames.MPLS),
            frames.ethernet(frames.pppoe(inner), frames.PPPOE),
            frames.ethernet(bytes(46), frames.LLDP),
        )
    )
