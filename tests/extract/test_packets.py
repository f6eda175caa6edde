"""Headers of packets against numbers by hand, and against dpkt on random frames."""

import io
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dpkt
import numpy as np
import pytest

from ids_spark.extract import records
from ids_spark.extract.packets import KINDS, MARKS, Packets, read_packets
from tests.support import frames
from tests.support.frames import Captured, arp, ethernet, ipv4, tcp, udp


def packets_of(content: bytes) -> Packets:
    """Return all packets of a capture of one chunk."""
    with records.read(io.BytesIO(content)) as capture:
        (chunk,) = list(capture)
    return read_packets(chunk)


def one(frame: bytes, link: int = frames.ETHERNET, length: int | None = None) -> dict[str, int]:
    """Return the columns of a packet that is captured alone, its kind and marks in words."""
    found = packets_of(frames.pcap([Captured(frame, length=length)], link))
    return {name: getattr(found, name)[0].item() for name in found.__dataclass_fields__}


def datagram(*ports: int, payload: bytes = b"", **options: Any) -> bytes:
    """Return a UDP datagram in IPv4."""
    return ipv4(udp(*ports, payload=payload), protocol=frames.UDP, **options)


def kind_and_marks(found: dict[str, int]) -> tuple[str, list[str]]:
    return KINDS[found["kind"]], [mark for bit, mark in enumerate(MARKS) if found["marks"] >> bit & 1]


IP = {"source": 0x0A000001, "target": 0x0A000002}
MACS = {"source_mac": 0x02000000000A, "target_mac": 0x02000000000B}


def test_tcp() -> None:
    found = one(ethernet(ipv4(tcp(40_000, 443, "SAC", b"hello", options=bytes(12)), ttl=57)))
    ports = {"source_port": 40_000, "target_port": 443, "transport": 6, "header": 32, "flags": 0b10010010}
    expected = {"length": 14 + 20 + 32 + 5, "protocol": 6, "ttl": 57, **ports, **IP, **MACS}
    assert {name: found[name] for name in expected} == expected
    assert kind_and_marks(found) == ("ipv4", [])


@pytest.mark.parametrize("tags", [[frames.VLAN], [frames.QINQ, frames.VLAN], [frames.OLD_QINQ] * 3, [frames.VLAN] * 8])
def test_vlan_tags_are_taken_off(tags: Sequence[int]) -> None:
    found = one(ethernet(datagram(67, 68, ttl=9), tags=tags, pad=64))
    length = max(64, 14 + 28 + 4 * len(tags)) - 4 * len(tags)
    expected = {"length": length, "protocol": 17, "ttl": 9, "header": 8, "source_port": 67, "target_port": 68, **IP}
    assert {name: found[name] for name in expected} == expected
    assert kind_and_marks(found) == ("ipv4", ["vlan"])


@pytest.mark.parametrize(
    ("link", "frame", "header"),
    [
        (frames.RAW_IP, datagram(), 0),
        (frames.COOKED, frames.cooked(datagram()), 16),
        (frames.COOKED_2, frames.cooked_2(datagram()), 20),
        (frames.BSD_NULL, frames.bsd_null(datagram()), 4),
        (frames.BSD_NULL, frames.bsd_null(datagram(), order=">"), 4),
        (frames.BSD_LOOP, frames.bsd_null(datagram(), order=">"), 4),
    ],
)
def test_other_link_types_have_the_length_of_an_ethernet_frame(link: int, frame: bytes, header: int) -> None:
    found = one(frame, link, length=500 + header)
    expected = {"length": 514, "protocol": 17, "target_port": 53, "target_mac": 0, **IP}
    assert {name: found[name] for name in expected} == expected
    assert found["source_mac"] == (MACS["source_mac"] if header >= 16 else 0)
    assert kind_and_marks(found) == ("ipv4", ["short_capture"])


@pytest.mark.parametrize("tags", [[frames.VLAN], [frames.QINQ, frames.VLAN]])
@pytest.mark.parametrize(("link", "header"), [(frames.COOKED, frames.cooked), (frames.COOKED_2, frames.cooked_2)])
def test_vlan_tags_of_cooked_captures_are_taken_off(link: int, header: Callable[..., bytes], tags: list[int]) -> None:
    """`tcpdump -i any` on a trunk: libpcap puts the tag that the interface took off behind the cooked header."""
    frame = header(frames.tagged(datagram(67, 68, ttl=9), tags=tags), tags[0])
    expected = {"length": 42, "protocol": 17, "ttl": 9, "source_port": 67, "target_port": 68, **IP}
    found = one(frame, link)
    assert {name: found[name] for name in expected} == expected
    assert kind_and_marks(found) == ("ipv4", ["vlan"])
    assert found["source_mac"] == MACS["source_mac"]
    cut = len(header(b"")) + 4 * len(tags) - 1
    assert kind_and_marks(one(frame[:cut], link, length=200)) == ("truncated", [])


def test_arp() -> None:
    found = one(ethernet(arp(sender="10.1.2.3", target="10.9.8.7"), frames.ARP, pad=60))
    expected = {"length": 60, "protocol": 0, "ttl": 0, "transport": 0, "source": 0x0A010203, "target": 0x0A090807}
    assert {name: found[name] for name in expected} == expected
    assert kind_and_marks(found) == ("arp", [])


def test_fragment_has_a_protocol_but_no_transport() -> None:
    found = one(ethernet(ipv4(bytes(1480), fragment=1480, protocol=frames.UDP)))
    assert (found["protocol"], found["transport"], found["header"], found["target_port"]) == (17, 0, 0, 0)
    assert kind_and_marks(found) == ("ipv4", ["fragment"])


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        (ethernet(frames.ipv6(udp()), frames.IPV6), "ipv6"),
        (ethernet(frames.mpls(datagram()), frames.MPLS), "mpls"),
        (ethernet(frames.pppoe(datagram()), frames.PPPOE), "pppoe"),
        (ethernet(bytes(40), frames.LLDP), "other_ethertype"),
        (frames.llc(), "llc"),
        (ethernet(datagram())[:33], "truncated"),
        (ethernet(datagram(options=bytes(8)))[:40], "truncated"),
        (ethernet(arp(), frames.ARP)[:41], "truncated"),
        (ethernet(datagram())[:13], "truncated"),
        (ethernet(datagram(), tags=[frames.VLAN])[:17], "truncated"),
        (b"", "truncated"),
        (ethernet(datagram(version=5)), "malformed"),
        (ethernet(datagram(header_words=4)), "malformed"),
        (ethernet(datagram(total=19)), "malformed"),
        (ethernet(datagram(), tags=[frames.VLAN] * 9), "malformed"),
    ],
)
def test_invisible_kinds_keep_only_their_length(frame: bytes, kind: str) -> None:
    found = one(frame, length=200)
    assert kind_and_marks(found) == (kind, [])
    empty = set(found) - {"offset", "nanos", "seconds", "length", "kind"}
    assert {name: found[name] for name in empty} == dict.fromkeys(empty, 0)


@pytest.mark.parametrize(
    ("packet", "marks"),
    [
        (ipv4(datagram(), protocol=frames.IP_IN_IP), ["tunnel"]),
        (ipv4(frames.gre(datagram()), protocol=frames.GRE), ["tunnel"]),
        (datagram(5_000, 4_789, payload=frames.vxlan(ethernet(datagram()))), ["tunnel"]),
        (ipv4(tcp())[:39], ["no_transport"]),
        (ipv4(tcp(), total=39), ["no_transport"]),
        (ipv4(tcp(header_words=4)), ["no_transport"]),
        (datagram()[:27], ["no_transport"]),
        (ipv4(tcp(), total=0), []),
        (datagram(payload=bytes(1_600)), ["large"]),
    ],
)
def test_marks(packet: bytes, marks: list[str]) -> None:
    assert kind_and_marks(one(ethernet(packet))) == ("ipv4", marks)


def test_kinds_among_each_other() -> None:
    """Columns of the visible packets stay at their rows when others lie between."""
    mixed = [ethernet(ipv4(tcp(i, 80), ttl=i)) if i % 3 else ethernet(bytes(50), frames.IPV6) for i in range(1, 100)]
    mixed[50] = ethernet(arp(), frames.ARP)
    found = packets_of(frames.pcap([Captured(frame) for frame in mixed]))
    numbers = np.arange(1, 100)
    ttl = np.where((numbers % 3 > 0) & (numbers != 51), numbers, 0)
    assert found.ttl.tolist() == ttl.tolist()
    assert found.source_port.tolist() == ttl.tolist()
    assert found.visible.sum() == 67


# Against dpkt


def random_frame(rng: random.Random) -> bytes:
    """Return a frame of random layers, often cut, damaged or padded."""
    payload = rng.randbytes(rng.choice([0, 0, 1, 40, rng.randint(0, 1_600)]))
    ports = (rng.choice([53, 67, 80, 443, 4_789, rng.randint(0, 65_535)]), rng.randint(0, 65_535))
    kind = rng.random()
    protocol, inner = (
        frames.TCP,
        tcp(*ports, "".join(rng.sample(frames.FLAGS, 3)), payload, bytes(4 * rng.randint(0, 5))),
    )
    if kind < 0.3:
        protocol, inner = frames.UDP, udp(*ports, payload)
    elif kind < 0.4:
        protocol, inner = frames.ICMP, frames.icmp(payload=payload)
    elif kind < 0.5:
        protocol, inner = rng.randint(0, 255), payload
    options = bytes(4 * rng.choice([0, 0, 0, 1, 10]))
    fragment = rng.choice([0, 0, 0, 8, 1_480])
    packet = ipv4(
        inner,
        f"10.0.0.{rng.randint(0, 255)}",
        "1.2.3.4",
        protocol,
        ttl=rng.randint(0, 255),
        options=options,
        fragment=fragment,
    )
    tags = [rng.choice([frames.VLAN, frames.QINQ])] * (rng.random() < 0.2) + [frames.VLAN] * (rng.random() < 0.1)
    frame = ethernet(packet, tags=tags, pad=rng.choice([0, 60]))
    if rng.random() < 0.2:
        frame = ethernet(arp(rng.randint(0, 3), f"10.9.8.{rng.randint(0, 255)}"), frames.ARP, tags=tags, pad=60)
    if rng.random() < 0.3:
        frame = frame[: rng.randint(0, len(frame))]
    if rng.random() < 0.3 and len(frame) > 12:
        damaged = bytearray(frame)
        damaged[rng.randrange(12, min(len(frame), 60))] = rng.randint(0, 255)
        frame = bytes(damaged)
    return frame


def number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def by_dpkt(frame: bytes) -> dict[str, int]:
    """Return the columns of a visible packet as dpkt sees them."""
    packet = dpkt.ethernet.Ethernet(frame)
    tags = 0  # of which dpkt remembers the last two
    while number(frame[12 + 4 * tags : 14 + 4 * tags]) in (frames.VLAN, frames.QINQ, frames.OLD_QINQ):
        tags += 1
    length = len(frame) - 4 * tags
    found = dict.fromkeys(("ttl", "protocol", "transport", "header", "flags", "source_port", "target_port"), 0)
    found |= {"length": length, "source_mac": number(packet.src), "target_mac": number(packet.dst)}
    inner = packet.data
    if isinstance(inner, dpkt.arp.ARP):
        of_ipv4 = (inner.pro, inner.hln, inner.pln) == (0x0800, 6, 4)
        ends = {"source": number(inner.spa), "target": number(inner.tpa)} if of_ipv4 else {"source": 0, "target": 0}
        return found | ends
    assert isinstance(inner, dpkt.ip.IP)
    found |= {"ttl": inner.ttl, "protocol": inner.p, "source": number(inner.src), "target": number(inner.dst)}
    transport = inner.data
    if inner.offset == 0 and inner.p == 6 and isinstance(transport, dpkt.tcp.TCP):
        found |= {"transport": 6, "header": 4 * transport.off, "flags": transport.flags}
        found |= {"source_port": transport.sport, "target_port": transport.dport}
    if inner.offset == 0 and inner.p == 17 and isinstance(transport, dpkt.udp.UDP):
        found |= {"transport": 17, "header": 8, "source_port": transport.sport, "target_port": transport.dport}
    return found


def is_cut(frame: bytes) -> bool:
    """Return whether dpkt does not find the whole header of IPv4 or ARP."""
    try:
        inner = dpkt.ethernet.Ethernet(frame).data
    except dpkt.NeedData:
        return True
    if isinstance(inner, dpkt.ip.IP):
        return len(inner.opts) < 4 * inner.hl - 20
    return isinstance(inner, bytes)


@pytest.mark.parametrize("seed", range(10))
def test_dpkt_sees_the_same_headers(seed: int) -> None:
    rng = random.Random(seed)
    made = [random_frame(rng) for _ in range(500)]
    found = packets_of(frames.pcap([Captured(frame) for frame in made]))
    assert found.visible.sum() > 250
    for i, frame in enumerate(made):
        if found.visible[i]:
            theirs = by_dpkt(frame)
            assert {name: getattr(found, name)[i] for name in theirs} == theirs, frame
        elif KINDS[found.kind[i]] == "truncated":
            assert is_cut(frame), frame


@pytest.mark.parametrize("cut", range(0, 5 * 76, 13))
def test_kinds_of_a_capture_cut_anywhere_add_up(cut: int) -> None:
    mixed = [ethernet(datagram(), pad=60), ethernet(arp(), frames.ARP, pad=60), ethernet(bytes(46), frames.IPV6)]
    content = frames.pcap([Captured(mixed[i % 3]) for i in range(5)])[: 24 + cut]
    counts = np.zeros(len(KINDS), int)
    with records.read(io.BytesIO(content)) as capture:
        for chunk in capture:
            counts += np.bincount(read_packets(chunk).kind, minlength=len(KINDS))
    whole = cut // 76
    assert counts.sum() == capture.ending.records == whole
    assert counts[[0, 1, 2]].tolist() == [(whole + 2) // 3, (whole + 1) // 3, whole // 3]
    assert capture.ending.left == cut % 76


def test_times_that_cannot_be_are_counted() -> None:
    good, frame = 1_700_000_000 * 10**9, ethernet(datagram())
    far = frames.section() + frames.interface(offset=10**11) + frames.enhanced(Captured(frame, good))
    early = frames.section() + frames.interface(offset=-(10**10)) + frames.enhanced(Captured(frame, good))
    without = frames.section() + frames.interface() + frames.simple(Captured(frame))
    for content in (far, early, without):
        assert KINDS[packets_of(content).kind[0]] == "impossible_time"
    assert packets_of(frames.pcap([Captured(frame, 0)])).kind.tolist() == [0]


def test_link_types_of_interfaces() -> None:
    """Interfaces that cannot be read are counted, the others read."""
    links = [frames.ETHERNET, 105, frames.RAW_IP, frames.COOKED]
    bodies = [ethernet(datagram(ttl=1)), bytes(80), datagram(ttl=2), frames.cooked(datagram(ttl=3))]
    content = frames.section() + b"".join(map(frames.interface, links))
    content += b"".join(frames.enhanced(Captured(body), i) for i, body in enumerate(bodies) for _ in range(3))
    found = packets_of(content)
    assert [KINDS[kind] for kind in found.kind] == ["ipv4"] * 3 + ["other_link_type"] * 3 + ["ipv4"] * 6
    assert found.ttl.tolist() == [1] * 3 + [0] * 3 + [2] * 3 + [3] * 3
    assert found.length.tolist() == [42] * 3 + [80] * 3 + [42] * 6


def test_dpkt_sees_the_same_in_real_captures(real_captures: Path) -> None:
    """Every file is read: as many packets as dpkt, at the same times, with the same headers."""
    files = packets = 0
    for path in sorted(path for path in real_captures.rglob("*") if path.suffix in (".pcap", ".pcapng", ".cap")):
        with records.read(str(path)) as capture:
            chunks = [(chunk, read_packets(chunk)) for chunk in capture]
        assert capture.ending.reason is None, path
        with path.open("rb") as stream:
            theirs = list(dpkt.pcap.UniversalReader(stream))
        ours = [row for chunk, found in chunks for row in zip(chunk.link, chunk.seconds, *rows(found), strict=True)]
        assert len(ours) == len(theirs), path
        for (link, seconds, visible, *columns), (time, frame) in zip(ours, theirs, strict=True):
            assert seconds == pytest.approx(float(time), abs=3e-7), path
            if link == 1 and visible:
                assert dict(zip(HEADERS, columns, strict=True)) == by_dpkt(frame), path
        files, packets = files + 1, packets + len(ours)
    assert files > 100
    assert packets > 20_000


HEADERS = (
    *("length", "protocol", "ttl", "transport", "header", "flags", "source_port", "target_port"),
    *("source", "target", "source_mac", "target_mac"),
)


def rows(found: Packets) -> list[list[int]]:
    return [found.visible.tolist(), *(getattr(found, name).tolist() for name in HEADERS)]
