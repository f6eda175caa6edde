"""Which end of a packet is the device; inventories."""

import numpy as np
import pytest

from ids_spark.extract.devices import Devices, ipv4_texts, mac_texts
from tests.support import frames
from tests.support.frames import A_MAC, B_MAC, BROADCAST, Captured, arp, ethernet, ipv4, udp
from tests.support.packet_reference import as_packets, seen

WARD = ("10.20.0.0/16", "192.168.1.0/24")
PUMP, MONITOR, SERVER, ATTACKER = "10.20.0.5", "10.20.7.9", "203.0.113.9", "198.51.100.1"


def device_of(frame: bytes, networks: tuple[str, ...] = WARD, by_mac: bool = False) -> str:
    devices = Devices(networks, by_mac)
    packets = as_packets([seen(Captured(frame))])
    return str(devices.texts(devices.keys(packets))[0].as_py())


def datagram(source: str, target: str, source_mac: str = A_MAC, target_mac: str = B_MAC) -> bytes:
    return ethernet(ipv4(udp(), source, target, frames.UDP), source=source_mac, target=target_mac)


@pytest.mark.parametrize(
    ("source", "target", "device"),
    [
        (PUMP, SERVER, PUMP),
        (SERVER, PUMP, PUMP),
        (PUMP, MONITOR, MONITOR),  # both inside: the target
        (ATTACKER, SERVER, SERVER),  # neither: the target
        ("10.21.0.1", SERVER, SERVER),  # just outside of 10.20.0.0/16
        ("192.168.1.255", SERVER, SERVER),
    ],
)
def test_the_device_is_the_end_inside_the_networks_else_the_target(source: str, target: str, device: str) -> None:
    assert device_of(datagram(source, target)) == device


@pytest.mark.parametrize("group", ["239.255.255.250", "224.0.0.1", "255.255.255.255", "0.0.0.0", "10.20.255.255"])
def test_an_address_of_no_host_is_a_device_only_if_the_other_end_is_none_either(group: str) -> None:
    assert device_of(datagram(PUMP, group)) == PUMP
    assert device_of(datagram(ATTACKER, group)) == ATTACKER
    assert device_of(datagram(group, PUMP)) == PUMP
    assert device_of(datagram("0.0.0.0", group)) == group


def test_the_broadcast_address_of_a_smaller_network_is_known_by_its_frame() -> None:
    assert device_of(datagram(PUMP, "10.20.0.63")) == "10.20.0.63"
    assert device_of(datagram(PUMP, "10.20.0.63", target_mac=BROADCAST)) == PUMP


def test_all_addresses_of_a_network_of_two_are_hosts() -> None:
    assert device_of(datagram(SERVER, "10.20.0.1"), ("10.20.0.0/31",)) == "10.20.0.1"


def test_a_request_of_arp_belongs_to_the_address_that_is_asked_for_and_by_mac_to_the_sender() -> None:
    request = ethernet(arp(1, PUMP, MONITOR), frames.ARP, target=BROADCAST)
    assert device_of(request) == MONITOR
    assert device_of(request, by_mac=True) == A_MAC
    probe = ethernet(arp(1, "0.0.0.0", PUMP), frames.ARP, target=BROADCAST)
    assert device_of(probe) == PUMP


def test_by_mac_the_device_is_the_ethernet_address_of_its_end() -> None:
    assert device_of(datagram(PUMP, SERVER), by_mac=True) == A_MAC
    assert device_of(datagram(SERVER, PUMP), by_mac=True) == B_MAC
    assert device_of(datagram(PUMP, "239.0.0.1", target_mac="01:00:5e:00:00:01"), by_mac=True) == A_MAC


def test_by_mac_an_unknown_ethernet_address_is_replaced_by_the_ip_address() -> None:
    none = "00:00:00:00:00:00"
    assert device_of(datagram(SERVER, PUMP, source_mac=A_MAC, target_mac=none), by_mac=True) == PUMP


def test_each_network_counts_without_any_the_target_is_the_device() -> None:
    assert device_of(datagram("192.168.1.20", SERVER)) == "192.168.1.20"
    assert device_of(datagram(PUMP, SERVER), networks=()) == SERVER
    assert device_of(datagram(PUMP, SERVER), networks=("0.0.0.0/0",)) == SERVER


def test_texts_of_addresses() -> None:
    assert ipv4_texts(np.array([0, 0x0A140005, 0xFFFFFFFF, 0x0A140005], dtype=np.uint32)).to_pylist() == [
        "0.0.0.0",
        PUMP,
        "255.255.255.255",
        PUMP,
    ]
    assert mac_texts(np.array([0x02000000000A, 0, 0xFFFFFFFFFFFF], dtype=np.uint64)).to_pylist() == [
        A_MAC,
        None,
        BROADCAST,
    ]
    assert ipv4_texts(np.array([], dtype=np.uint32)).to_pylist() == []


def test_sources_have_the_names_of_the_inventory() -> None:
    pump, mac, other = 0x0A140005, 1 << 48 | 0x02000000000A, 0x0A140709
    named = Devices(WARD, names={pump: "Pump 7", mac: "Monitor"})
    found = named.source_names(
        devices=np.array([other, other, mac, other, pump], dtype=np.uint64),
        sources=np.array([pump, other, other, 0, other], dtype=np.uint32),
        known=np.array([True, True, True, False, True]),
        macs=np.array([1, 0x02000000000A, 0x02000000000A, 0x02000000000A, 1], dtype=np.uint64),
    )
    # The second is behind a router with the Monitor's address; the third is the device itself; the fourth sends ARP.
    assert found.to_pylist() == ["Pump 7", None, "Monitor", "Monitor", None]
    nameless = Devices(WARD).source_names(
        np.array([pump], dtype=np.uint64), np.array([pump], dtype=np.uint32), np.array([True]), np.array([1], np.uint64)
    )
    assert nameless.to_pylist() == [None]
