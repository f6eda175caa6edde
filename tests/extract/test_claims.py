"""Senders that claim the IPv4 addresses of others by ARP."""

import time

import numpy as np
import pytest

from ids_spark.extract.claims import Claims
from ids_spark.extract.packets import MARKS
from tests.support.packet_reference import Seen, as_packets

ROUTER, VICTIM, ATTACKER = 1, 2, 66


def arp(claimed: int, mac: int) -> Seen:
    return Seen(0, 60, True, claimed, 9, mac, 3)


def sent_by(mac: int, address: int = 7) -> Seen:
    return Seen(0, 60, False, address, 9, mac, 3)


def marked(packets: list[Seen | None], claims: Claims | None = None) -> list[bool]:
    found = (claims or Claims()).marked(as_packets(packets))
    return (found.marks >> MARKS.index("arp_conflict") & 1 == 1).tolist()


def test_who_claims_two_addresses_one_of_them_of_another_is_marked_from_then_on() -> None:
    packets: list[Seen | None] = [
        arp(ROUTER, 1),
        sent_by(ATTACKER),
        arp(VICTIM, ATTACKER),
        sent_by(ATTACKER),
        arp(ROUTER, ATTACKER),
        sent_by(1),
        sent_by(ATTACKER),
        None,
        arp(ROUTER, 1),
    ]
    expected = [False, False, False, False, True, False, True, False, False]
    assert marked(packets) == expected
    for cut in range(len(packets)):
        claims = Claims()
        assert marked(packets[:cut], claims) + marked(packets[cut:], claims) == expected


@pytest.mark.parametrize(
    "packets",
    [
        [arp(ROUTER, 1), arp(VICTIM, 2), arp(ROUTER, 1)],
        [arp(ROUTER, 1), arp(VICTIM, 1), sent_by(1)],  # a host with two addresses, or proxy ARP
        [arp(ROUTER, 1), arp(ROUTER, 2), sent_by(2)],  # an address that moved to another device
        [arp(0, 1), arp(0, 2), arp(VICTIM, 1), arp(ROUTER, 2)],  # probes for an address (RFC 5227)
    ],
)
def test_what_is_no_conflict_is_not_marked(packets: list[Seen | None]) -> None:
    assert not any(marked(packets))


def test_an_owner_who_is_heard_later_than_the_forger_shows_the_conflict() -> None:
    assert marked([arp(ROUTER, ATTACKER), arp(VICTIM, ATTACKER), arp(VICTIM, 2), sent_by(ATTACKER), sent_by(2)]) == [
        False, False, False, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize("invented", ["addresses", "Ethernet addresses", "both"])
def test_invented_claims_cost_neither_time_nor_memory(invented: str) -> None:
    n = 200_000
    packets = as_packets([arp(ROUTER, 1)])
    columns = {name: np.repeat(getattr(packets, name), n) for name in packets.__dataclass_fields__}
    numbers = np.arange(1, n + 1)
    columns["source"] = (numbers if invented != "Ethernet addresses" else numbers * 0 + 5).astype(np.uint32)
    columns["source_mac"] = (numbers // 2 + 1 if invented != "addresses" else numbers * 0 + 5).astype(np.uint64)
    claims, many = Claims(), type(packets)(**columns)
    started = time.monotonic()
    for begin in range(0, n, 20_000):
        claims.marked(type(packets)(**{name: column[begin : begin + 20_000] for name, column in columns.items()}))
    assert len(claims.marked(many)) == n
    assert time.monotonic() - started < 10
