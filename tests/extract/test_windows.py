"""Windows of packets and their features: by hand, compared with the scalar formulas, and on real rows."""

import dataclasses
import ipaddress
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ids_spark.dataset.features import RELEASE_39
from ids_spark.extract.claims import Claims
from ids_spark.extract.devices import Devices
from ids_spark.extract.formulas import most_frequent
from ids_spark.extract.packets import Packets
from ids_spark.extract.windows import Windower, Windows
from tests.support import frames, random_captures
from tests.support import packet_reference as reference
from tests.support.frames import A_MAC, B_MAC, Captured, ethernet, ipv4, tcp, udp
from tests.support.packet_reference import Seen, as_packets
from tests.support.windowing import as_reference, broken_identities, require_equal

NETWORKS = ("10.0.0.0/8", "192.168.1.0/24")
DEVICE = reference.device_in(NETWORKS)


def computed(
    packets: Sequence[Seen | None], n: int, by_device: bool = True, cuts: Sequence[int] = ()
) -> tuple[list[Windows], int]:
    """Return the windows of packets that come in parts, cut at `cuts`, and how many packets are single."""
    windower, claims = Windower(n, by_device, batch=1), Claims()
    found = []
    for begin, end in zip([0, *cuts], [*cuts, len(packets)], strict=True):
        columns = claims.marked(as_packets(packets[begin:end], begin))
        found += windower.add(columns, Devices(NETWORKS).keys(columns))
    return found + windower.close(), len(windower.single)


def drawn(seed: int, most: int = 250) -> list[Seen | None]:
    draw = random.Random(seed)
    return [reference.seen(packet) for packet in random_captures.capture(draw, draw.randrange(most))]


def of_one_device(count: int, seconds: float = 0.01) -> list[Seen]:
    """Return packets of one device, each longer by a byte."""
    step = round(seconds * 1e9)
    packets = [
        reference.seen(Captured(ethernet(ipv4(udp(payload=bytes(i)), "8.8.8.8", "10.0.0.1", frames.UDP)), i * step))
        for i in range(count)
    ]
    return [packet for packet in packets if packet is not None]


def test_a_window_by_hand() -> None:
    start = 1_700_000_000 * 10**9
    content = [
        (0, ipv4(tcp(40_000, 443, "S", options=b"\1" * 20), "10.0.0.1", "8.8.8.8", ttl=64), 74),
        (250_000, ipv4(tcp(443, 40_000, "SA"), "8.8.8.8", "10.0.0.1", ttl=57), 60),
        (500_000, ipv4(tcp(40_000, 80, "FPUEC", b"x" * 900), "10.0.0.1", "8.8.8.8", ttl=64), 954),
        (750_000, ipv4(udp(68, 67), "10.0.0.1", "8.8.8.8", frames.UDP, ttl=128), 60),
    ]
    packets = [
        reference.seen(Captured(ethernet(packet, source=A_MAC, target=B_MAC), start + micros * 1_000, length))
        for micros, packet, length in content
    ]
    found, single = computed(packets, 10)
    assert single == 0
    (window,) = as_reference(found)
    expected = dict.fromkeys(RELEASE_39.features, 0.0) | {
        "Header_Length": (40 + 20 + 20 + 8) / 4,
        "Protocol Type": 6,
        "Time_To_Live": (64 + 57 + 64 + 128) / 4,
        "Rate": 4 / 0.75,
        "fin_flag_number": 0.25,
        "syn_flag_number": 0.5,
        "psh_flag_number": 0.25,
        "ack_flag_number": 0.25,
        "ece_flag_number": 0.25,
        "cwr_flag_number": 0.25,
        "ack_count": 1,
        "syn_count": 2,
        "fin_count": 1,
        "HTTP": 0.25,
        "HTTPS": 0.5,
        "TCP": 0.75,
        "UDP": 0.25,
        "DHCP": 0.25,
        "IPv": 1,
        "LLC": 1,
        "Tot sum": 1148,
        "Min": 60,
        "Max": 954,
        "AVG": 287,
        "Tot size": 287,
        "IAT": 0.75 / 4,
        "Number": 4,
        "Variance": (213**2 + 227**2 + 667**2 + 227**2) / 3,
        "Std": ((213**2 + 227**2 + 667**2 + 227**2) / 3) ** 0.5,
    }
    assert window.features == pytest.approx(expected, rel=1e-12)
    assert (window.packets, window.nanos) == (4, start)
    assert (window.device, window.source, window.target) == (0x0A000001, 0x0A000001, 0x08080808)
    assert window.source_mac == 0x02000000000A


def test_a_sweep_with_one_packet_for_each_device_is_in_windows_of_its_sender() -> None:
    scanner, other = "10.0.0.66", "10.0.0.67"
    sweep = [
        Captured(ethernet(ipv4(tcp(40_000, 104, "S"), scanner, f"10.0.1.{i + 1}"), source=B_MAC), i * 10**6)
        for i in range(25)
    ]
    asked = [
        Captured(ethernet(frames.arp(1, scanner, f"10.0.2.{i + 1}"), frames.ARP, source=A_MAC), (50 + i) * 10**6)
        for i in range(3)
    ]
    answer = Captured(
        ethernet(ipv4(udp(53, 40_000), other, "10.0.3.1", frames.UDP), source="02:00:00:00:00:0c"), 60 * 10**6
    )
    packets = [reference.seen(packet) for packet in (*sweep, *asked, answer)]
    found, single = computed(packets, 10)
    windows = sorted(as_reference(found), key=lambda window: window.nanos)
    assert [window.packets for window in windows] == [10, 10, 5, 3]
    assert single == 1  # the answer: nothing else comes from its sender
    assert [window.features["syn_flag_number"] for window in windows] == [1, 1, 1, 0]
    assert [window.source for window in windows] == [int(ipaddress.IPv4Address(scanner))] * 3 + [None]
    assert {window.source_mac for window in windows[:3]} == {int(B_MAC.replace(":", ""), 16)}
    assert windows[3].source_mac == int(A_MAC.replace(":", ""), 16)
    assert [window.device for window in windows] == [
        int(ipaddress.IPv4Address(a)) for a in ("10.0.1.1", "10.0.1.11", "10.0.1.21", "10.0.2.1")
    ]
    assert windows[1].features["IAT"] == pytest.approx(1e-3)  # of the sweep, across the border of the windows
    assert windows[0].features["IAT"] == pytest.approx(9e-4)


def test_forged_packets_that_share_nothing_but_their_ethernet_source_are_in_windows_without_a_source() -> None:
    flood = [
        Captured(ethernet(ipv4(udp(68, 67), f"10.1.0.{i + 1}", f"10.2.0.{i + 1}", frames.UDP), source=B_MAC), i * 10**6)
        for i in range(12)
    ]
    found, single = computed([reference.seen(packet) for packet in flood], 10)
    windows = sorted(as_reference(found), key=lambda window: window.nanos)
    assert [window.packets for window in windows] == [10, 2]
    assert single == 0
    assert [(window.source, window.source_mac) for window in windows] == [(None, int(B_MAC.replace(":", ""), 16))] * 2
    assert windows[0].features["DHCP"] == 1


@pytest.mark.parametrize(
    ("packets", "sizes", "single"),
    [
        (0, [], 0),
        (1, [], 1),
        (2, [2], 0),
        (10, [10], 0),
        (11, [11], 0),
        (12, [10, 2], 0),
        (20, [10, 10], 0),
        (21, [10, 11], 0),
        (39, [10, 10, 10, 9], 0),
    ],
)
def test_two_packets_left_are_a_window_a_single_one_joins_the_window_before(
    packets: int, sizes: list[int], single: int
) -> None:
    found, alone = computed(of_one_device(packets), 10)
    assert [window.packets for window in as_reference(found)] == sizes
    assert alone == single


def test_the_time_before_the_first_packet_of_a_window_counts_but_not_of_a_stream() -> None:
    first, second = as_reference(computed(of_one_device(20), 10)[0])
    assert first.features["IAT"] == pytest.approx(9 * 0.01 / 10)
    assert second.features["IAT"] == pytest.approx(10 * 0.01 / 10)
    assert second.features["Rate"] == pytest.approx(10 / (9 * 0.01))


def test_times_that_go_back_give_a_negative_time_between_packets() -> None:
    first, second = as_reference(computed(of_one_device(20)[::-1], 10)[0])
    assert first.features["IAT"] == pytest.approx(-9 * 0.01 / 10)
    assert second.features["IAT"] == pytest.approx(-10 * 0.01 / 10)
    assert first.features["Rate"] == pytest.approx(10 / (9 * 0.01))


def test_packets_of_one_time_have_an_infinite_rate() -> None:
    (window,) = as_reference(computed(of_one_device(10, seconds=0), 10)[0])
    assert window.features["Rate"] == np.inf
    assert window.features["IAT"] == 0


def test_of_two_most_frequent_protocols_the_smaller_one_of_addresses_the_first_seen() -> None:
    ends = [("8.8.8.8", "10.0.0.1", frames.UDP), ("10.0.0.1", "8.8.8.8", frames.ICMP)] * 2
    packets = [reference.seen(Captured(ethernet(ipv4(bytes(8), *end)), i)) for i, end in enumerate(ends)]
    (window,) = as_reference(computed(packets, 10)[0])
    assert (window.features["Protocol Type"], window.source, window.target) == (1, 0x08080808, 0x0A000001)


def test_the_source_of_arp_is_its_ethernet_address_so_that_a_forged_claim_names_nobody() -> None:
    attacker = "02:bb:bb:bb:bb:bb"
    claim = ethernet(frames.arp(2, "10.0.0.254", "10.0.0.1", attacker), frames.ARP, source=attacker)
    other = ethernet(ipv4(udp(), "10.0.0.9", "10.0.0.1", frames.UDP), source=A_MAC)
    packets = [reference.seen(Captured(frame, i)) for i, frame in enumerate([other] + [claim] * 3)]
    (window,) = as_reference(computed(packets, 10)[0])
    assert (window.source, window.source_mac, window.target) == (None, 0x02BBBBBBBBBB, 0x0A000001)
    (window,) = as_reference(computed(packets[:2], 10)[0])
    assert (window.source, window.source_mac) == (0x0A000009, 0x02000000000A)


def test_the_variance_of_large_lengths_keeps_its_digits() -> None:
    packets = [dataclasses.replace(packet, length=4_294_967_000 + i) for i, packet in enumerate(of_one_device(10))]
    (window,) = as_reference(computed(packets, 10)[0])
    assert window.features["Variance"] == pytest.approx(82.5 / 9, rel=1e-9)


@pytest.mark.parametrize("seed", range(100))
def test_every_column_is_that_of_the_scalar_formulas(seed: int) -> None:
    packets = drawn(seed)
    n, by_device = (10, 100, 2, 3)[seed % 4], bool(seed % 3)
    found, single = computed(packets, n, by_device)
    visible = [packet for packet in packets if packet is not None]
    expected, alone = reference.windows(visible, n, DEVICE, by_device)
    require_equal(as_reference(found), expected)
    assert single == alone
    assert sum(window.packets for window in expected) + single == len(visible)
    for windows in found:
        assert not broken_identities(windows.features)


@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(0, 60)), n=st.integers(2, 12), by_device=st.booleans())
def test_windows_do_not_depend_on_how_packets_come(seed: int, cuts: list[int], n: int, by_device: bool) -> None:
    packets = drawn(seed, most=60)
    in_parts, single = computed(packets, n, by_device, sorted(min(cut, len(packets)) for cut in cuts))
    at_once, alone = computed(packets, n, by_device)
    require_equal(as_reference(in_parts), as_reference(at_once))
    assert single == alone


@given(st.lists(st.lists(st.sampled_from([0, 1, 2, 3, 4, 5, 2**49 - 1]), min_size=1), min_size=1, max_size=20))
def test_the_most_frequent_value_of_a_window_is_of_several_the_first_one(windows: list[list[int]]) -> None:
    values = np.array([value for window in windows for value in window], dtype=np.uint64)
    found = most_frequent(values, np.array([len(window) for window in windows]))
    starts = np.cumsum([0, *(len(window) for window in windows[:-1])])
    assert (found - starts).tolist() == [window.index(max(window, key=window.count)) for window in windows]


@pytest.mark.parametrize("n", [2, 10, 100])
def test_packets_are_all_in_windows_or_single_wherever_a_capture_ends(n: int) -> None:
    packets = drawn(11)
    for end in range(len(packets) + 1):
        found, single = computed(packets[:end], n)
        visible = sum(packet is not None for packet in packets[:end])
        assert sum(int(windows.packets.sum()) for windows in found) + single == visible


def test_packets_to_100_000_addresses_in_parts() -> None:
    count, part = 300_000, 30_000
    target = np.random.default_rng(3).integers(0, 100_000, count).astype(np.uint32)
    windower = Windower(2)
    found = []
    for begin in range(0, count, part):
        addresses = target[begin : begin + part]
        found += windower.add(datagrams(begin, addresses), addresses.astype(np.uint64))
    found += windower.close()
    times: dict[int, list[int]] = defaultdict(list)
    for time, address in enumerate(target.tolist()):
        times[address].append(time)
    expected = set()
    for address, own in times.items():
        last = len(own) - len(own) % 2 - 2  # where the last window begins, which takes a single packet that remains
        for begin in range(0, last + 1, 2):
            part = own[begin:] if begin == last else own[begin : begin + 2]
            expected.add((address, part[0], len(part), (part[-1] - own[max(0, begin - 1)]) / len(part)))
    iat = RELEASE_39.features.index("IAT")
    columns = [(w.device, w.nanos // 10**9, w.packets, w.features[iat]) for w in found]
    assert expected == {row for column in columns for row in zip(*(values.tolist() for values in column), strict=True)}
    assert sum(map(len, found)) == len(expected)
    assert len(windower.single) == sum(len(own) == 1 for own in times.values())


def datagrams(begin: int, target: NDArray[np.uint32]) -> Packets:
    """Return UDP packets to the given addresses, one each second from `begin` on."""
    size = len(target)
    time = np.arange(begin, begin + size)
    byte = {name: np.zeros(size, dtype=np.uint8) for name in ("kind", "marks", "header", "flags")}
    byte |= {name: np.full(size, 17, dtype=np.uint8) for name in ("protocol", "transport", "ttl")}
    ports = {name: np.full(size, 53, dtype=np.uint16) for name in ("source_port", "target_port")}
    macs = {name: np.zeros(size, dtype=np.uint64) for name in ("source_mac", "target_mac")}
    lengths = np.full(size, 60)
    return Packets(
        time, time * 10**9, time.astype(float), lengths, source=target, target=target, **byte, **ports, **macs
    )


def test_official_rows_have_every_identity_that_extracted_rows_have(real_flows: Path) -> None:
    for path in sorted((real_flows / "release39").glob("*/*.csv")):
        rows = pd.read_csv(path)[list(RELEASE_39.features)]
        assert not broken_identities(rows.to_numpy(dtype=np.float64).T), path.name


SCANNER, VICTIM = "198.51.100.9", "10.0.0.1"


def exchange(flags: str) -> list[Seen]:
    """Return packets of a scanner (lower case: of its victim) with SYN, RST and ACK, or ACK: one for each letter."""
    kinds = {"s": "S", "r": "RA", "a": "A"}
    found = []
    for i, letter in enumerate(flags):
        ends = (VICTIM, SCANNER) if letter.islower() else (SCANNER, VICTIM)
        packet = reference.seen(Captured(ethernet(ipv4(tcp(4_000, 80, kinds[letter.lower()]), *ends)), i * 10**6))
        assert packet is not None
        found.append(packet)
    return found


@pytest.mark.parametrize(
    ("flags", "source"),
    [
        ("SrSrSrSrSr", SCANNER),
        ("rSrSrSrSrS", SCANNER),
        ("rrrrrrrrSr", SCANNER),  # an answer opens no connection
        ("aAaAaAaAaA", SCANNER),  # of two with equally many packets, not the device
        ("aAaAaAaAaa", VICTIM),
        ("sRsRsRsRsR", VICTIM),
    ],
)
def test_the_source_is_who_opens_connections_else_who_sends_most(flags: str, source: str) -> None:
    [windows], single = computed(exchange(flags), 10)
    assert single == 0
    assert windows.source_known.all()
    assert ipaddress.ip_address(int(windows.source[0])) == ipaddress.ip_address(source)


def test_the_source_of_forwarded_packets_is_the_ethernet_address_that_claims_others() -> None:
    device, router, attacker = (f"02:00:00:00:00:{last}" for last in ("01", "02", "66"))
    claims = [
        ethernet(frames.arp(sender="10.0.0.254", target=VICTIM), frames.ARP, source=router),
        ethernet(frames.arp(sender="10.0.0.254", target=VICTIM), frames.ARP, source=attacker),
        ethernet(frames.arp(sender=VICTIM, target="10.0.0.254"), frames.ARP, source=attacker),
    ]
    there = [ethernet(ipv4(tcp(), VICTIM, SCANNER), source=device, target=attacker),
             ethernet(ipv4(tcp(), VICTIM, SCANNER), source=attacker, target=router)]  # fmt: skip
    packets = [reference.seen(Captured(frame, i * 10**6)) for i, frame in enumerate([*claims, *there * 5])]
    found, _ = computed(packets, 10)
    forwarded = [windows for windows in found if windows.features[RELEASE_39.features.index("TCP")].max() == 1]
    assert [windows.source_known.tolist() for windows in forwarded] == [[False]]
    assert [int(windows.source_mac[0]) for windows in forwarded] == [0x020000000066]
