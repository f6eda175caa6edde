"""Captures of the synthetic ward: read back with dpkt, compared with their truth, marked, the same for equal seeds."""

import dataclasses
import datetime as dt
import gzip
import io
import json
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import dpkt
import numpy as np
import pytest

from ids_spark.base.errors import InputError
from ids_spark.config.synthetic import SynthesizeCapturesConfig
from ids_spark.extract.inventory import read_inventory
from ids_spark.synthetic import captures, frames, ward

DATE = dt.date(2026, 3, 29)
MIDNIGHT = dt.datetime(2026, 3, 29, tzinfo=dt.UTC).timestamp()


def write(folder: Path, seed: int = 3, attacks: bool = True, date: dt.date = DATE) -> captures.CapturesReport:
    return captures.write_captures(SynthesizeCapturesConfig(target=str(folder), date=date, attacks=attacks), seed)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read(path: Path) -> list[tuple[float, bytes]]:
    content = path.read_bytes()
    if path.name.endswith(".gz"):
        content = gzip.decompress(content)
    reader = dpkt.pcapng.Reader if path.name.endswith("pcapng") else dpkt.pcap.Reader
    return list(reader(io.BytesIO(content)))


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("captures") / "ward"
    write(folder)
    return folder


@pytest.fixture(scope="module")
def packets(day: Path) -> list[tuple[float, bytes]]:
    return [packet for path in sorted((day / f"event_date={DATE}").iterdir()) for packet in read(path)]


def decoded(packets: list[tuple[float, bytes]]) -> list[tuple[float, Any]]:
    return [(seconds, dpkt.ethernet.Ethernet(frame)) for seconds, frame in packets]


def tcp_with(packets: list[tuple[float, bytes]], *addresses: str) -> list[tuple[float, str, str, Any]]:
    """Return time, source, target and header of TCP packets that have all these addresses."""
    ends = [bytes(map(int, address.split("."))) for address in addresses]
    some = [each for each in packets if all(end in each[1][26:38] for end in ends)]
    return [
        (seconds, *(".".join(map(str, end)) for end in (frame.data.src, frame.data.dst)), frame.data.data)
        for seconds, frame in decoded(some)
        if isinstance(frame.data, dpkt.ip.IP) and isinstance(frame.data.data, dpkt.tcp.TCP)
    ]


def attack(name: str) -> ward.Attack:
    return next(each for each in ward.ATTACKS if each.name == name)


def address_of(device: str) -> str:
    return next(ward.text_of(host.address) for host in ward.DEVICES if host.name == device)


def test_each_file_holds_the_packets_of_its_hour_in_order(day: Path) -> None:
    truth = json.loads((day / "_truth" / f"event_date={DATE}.json").read_text())
    files = sorted((day / f"event_date={DATE}").iterdir())
    assert {path.name for path in files} == set(truth["packets"])
    assert Counter(path.name.split(".", 1)[1] for path in files) == {"pcap": 17, "pcap.gz": 6, "pcapng": 1}
    for hour, path in enumerate(files):
        seconds = [moment for moment, _ in read(path)]
        assert len(seconds) == truth["packets"][path.name]
        assert seconds == sorted(seconds)
        assert all(MIDNIGHT + 3600 * hour <= each < MIDNIGHT + 3600 * (hour + 1) for each in seconds)


def test_lengths_and_checksums_are_right(packets: list[tuple[float, bytes]]) -> None:
    assert min(len(frame) for _, frame in packets) == 60
    seen: Counter[str] = Counter()
    rare = [each for each in packets if each[1][12:14] == b"\x86\xdd"]
    for _, frame in decoded(packets[::71] + rare):
        ip = frame.data
        seen[type(ip).__name__] += 1
        if isinstance(ip, dpkt.ip.IP):
            raw = bytes(ip)
            assert checksum(raw[:20]) == 0xFFFF
            body = raw[20 : ip.len]
            seen[type(ip.data).__name__] += 1
            pseudo = b"" if ip.p == 1 else ip.src + ip.dst + struct.pack(">HH", ip.p, len(body))
            assert checksum(pseudo + body) == 0xFFFF
        elif isinstance(ip, dpkt.ip6.IP6):
            body = bytes(ip.data)[: ip.plen]
            assert checksum(ip.src + ip.dst + struct.pack(">II", len(body), ip.nxt) + body) == 0xFFFF
    assert seen["TCP"] > 5_000
    assert seen["IP6"] >= len(rare) > 50


def test_there_is_traffic_of_every_kind(packets: list[tuple[float, bytes]]) -> None:
    kinds = Counter(frame[12:14].hex() for _, frame in packets)
    assert kinds.keys() == {"0800", "0806", "86dd", "8100"}
    assert kinds["86dd"] < 0.01 * len(packets)
    assert kinds["8100"] < 0.5 * len(packets)
    plain = [frame for _, frame in packets if frame[12:14] == b"\x08\x00"]
    ports = {protocol: {frame[36:38] for frame in plain if frame[23] == protocol} for protocol in (6, 17)}
    assert {port.to_bytes(2, "big") for port in (80, 443, 1883)} <= ports[6]
    assert {port.to_bytes(2, "big") for port in (53, 67, 123)} <= ports[17]
    assert any(frame[23] == 1 for frame in plain)


def test_a_connection_counts_its_bytes(packets: list[tuple[float, bytes]]) -> None:
    """The acknowledgement of a packet is what the other end has sent before."""
    ends = {address_of("infusion-pump-01"), "198.51.100.10"}
    flows: dict[int, list[tuple[str, Any]]] = {}
    for _, source, _, tcp in tcp_with(packets, *ends):
        flows.setdefault(max(tcp.sport, tcp.dport), []).append((source, tcp))
    assert len(flows) == 5
    for connection in flows.values():
        following: dict[str, int] = {}
        for source, tcp in connection:
            other = next(each for each in ends if each != source)
            assert tcp.seq == following.get(source, tcp.seq)
            if tcp.flags & dpkt.tcp.TH_ACK:
                assert tcp.ack == following[other]
            length = len(tcp.data) + bool(tcp.flags & (dpkt.tcp.TH_SYN | dpkt.tcp.TH_FIN))
            following[source] = (tcp.seq + length) % (1 << 32)


def test_the_flood_is_from_its_attacker_to_its_victim(packets: list[tuple[float, bytes]]) -> None:
    told = attack("flood")
    address = bytes(map(int, told.attacker.split(".")))
    sent = [each for each in packets if each[1][30:34] == address]  # behind a VLAN tag
    assert len(sent) > 50_000
    assert told.start <= sent[0][0] - MIDNIGHT < sent[-1][0] - MIDNIGHT <= told.end + 1
    some = tcp_with(sent[::100], told.attacker)
    assert {target for _, _, target, _ in some} == {address_of(device) for device in told.victims}
    assert {tcp.flags for *_, tcp in some} == {dpkt.tcp.TH_SYN}


def test_the_scan_tries_a_thousand_ports_of_each_victim(packets: list[tuple[float, bytes]]) -> None:
    told = attack("scan")
    seen = tcp_with(packets, told.attacker)
    ports = {(target, tcp.dport) for _, source, target, tcp in seen if source == told.attacker}
    assert Counter(target for target, _ in ports) == {address_of(device): 1_000 for device in told.victims}
    assert {(source, tcp.sport) for _, source, target, tcp in seen if target == told.attacker} == ports
    assert all(told.start <= seconds - MIDNIGHT <= told.end for seconds, *_ in seen)


def test_spoofing_claims_addresses_of_others_and_forwards_their_packets(packets: list[tuple[float, bytes]]) -> None:
    told = attack("spoofing")
    mac = bytes.fromhex(told.attacker.replace(":", ""))
    claims: dict[bytes, set[bytes]] = {}
    for _, frame in decoded([each for each in packets if each[1][12:14] == b"\x08\x06"]):
        claims.setdefault(frame.data.spa, set()).add(frame.data.sha)
    victim, router = (bytes(map(int, address_of(name).split("."))) for name in (told.victims[0], "router"))
    own = bytes([192, 0, 2, mac[-1]])
    assert {address for address, macs in claims.items() if mac in macs} == {victim, router, own}
    assert len(claims[victim]) == len(claims[router]) == 2
    ip = [each for each in packets if each[1][12:14] == b"\x08\x00"]
    to_mac, from_mac = ([each for each in ip if each[1][part] == mac] for part in (slice(0, 6), slice(6, 12)))
    assert all(told.start <= seconds - MIDNIGHT <= told.end for seconds, _ in to_mac)
    assert len(to_mac) > 1_000
    assert Counter(frame[14:] for _, frame in to_mac) == Counter(frame[14:] for _, frame in from_mac)


def test_equal_seeds_and_dates_give_equal_files(day: Path, tmp_path: Path) -> None:
    write(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(day)
    write(tmp_path / "other", seed=4)
    assert not set(contents(tmp_path / "other").values()) & {
        content for name, content in contents(day).items() if name.startswith("event_date")
    }


def test_without_attacks_the_benign_packets_are_the_same() -> None:
    benign, whole = (ward.packets_of(DATE, 3, attacks) for attacks in (False, True))
    attackers = [int.from_bytes(bytes(map(int, attack(name).attacker.split(".")))) for name in ("flood", "scan")]
    others = whole.take(~np.isin(whole.source, attackers) & ~np.isin(whole.target, attackers))
    mac = int(attack("spoofing").attacker.replace(":", ""), 16)
    others = others.take((others.source_mac != mac) & (others.target_mac != mac))
    for field in dataclasses.fields(frames.Packets):
        ours, theirs = getattr(benign, field.name), getattr(others, field.name)
        np.testing.assert_array_equal(ours, theirs, err_msg=field.name)


def test_everything_is_marked_as_synthetic(day: Path) -> None:
    assert json.loads((day / "_SYNTHETIC.json").read_text())["synthetic"] is True
    assert json.loads((day / "_truth" / f"event_date={DATE}.json").read_text())["data_origin"] == "synthetic"
    (path,) = day.glob("event_date=*/*.pcapng")
    assert b"synthetic" in path.read_bytes()[:100]


def test_the_inventory_names_every_device(day: Path) -> None:
    header, *lines = (day / "_inventory.csv").read_text().splitlines()
    assert header.startswith("address,device,type,")
    assert {tuple(line.split(",")[:2]) for line in lines} == {(ward.text_of(h.address), h.name) for h in ward.DEVICES}
    assert {name for each in ward.ATTACKS for name in each.victims} <= {line.split(",")[1] for line in lines}
    found = read_inventory(str(day / "_inventory.csv"))
    assert found.notes() == []
    assert all(device.type and device.criticality for device in found.devices)


def test_days_lie_beside_each_other_and_other_content_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "days"
    write(folder, attacks=False)
    write(folder, attacks=False, date=DATE + dt.timedelta(days=1))
    write(folder, attacks=False)
    assert {path.name for path in folder.glob("event_date=*")} == {f"event_date={DATE}", "event_date=2026-03-30"}
    (tmp_path / "measured").mkdir()
    (tmp_path / "measured" / "real.pcap").write_bytes(b"")
    with pytest.raises(InputError, match=r"real\.pcap"):
        write(tmp_path / "measured")
    with pytest.raises(InputError, match="-1"):
        write(tmp_path / "negative", seed=-1)
    assert not (tmp_path / "negative").exists()


def test_no_payload_is_written() -> None:
    """Payload is zeros, so a frame is its headers: nothing in it is mistaken for what people or devices sent."""
    some = ward.packets_of(DATE, 3, False).take(slice(0, 500))
    for _, frame in dpkt.pcap.Reader(io.BytesIO(frames.pcap(some).tobytes())):
        packet = dpkt.ethernet.Ethernet(frame)
        if isinstance(packet.data, dpkt.ip.IP) and isinstance(packet.data.data, dpkt.tcp.TCP):
            assert not any(packet.data.data.data)
