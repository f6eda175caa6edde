"""The packets of a night's captures in two sentences: how many no flow describes, and what hides others."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ids_spark.report.format import counted, percent

_KINDS: Final[Mapping[str, str]] = {
    "ipv6": "IPv6",
    "mpls": "MPLS",
    "pppoe": "PPPoE",
    "llc": "IEEE 802.3 with a length, such as spanning tree",
    "other_ethertype": "neither IP nor ARP",
    "truncated": "captured bytes too few",
    "malformed": "malformed",
    "impossible_time": "no time of the years 1970 to 2200",
    "other_link_type": "other link type",
    "single": "the only packet of its device and of its sender",
}
_MARKS: Final[Mapping[str, str]] = {
    "tunnel": "tunnels, whose content no feature describes",
    "fragment": "fragments without a transport header",
    "no_transport": "without a readable TCP or UDP header",
    "large": "larger than a frame on the wire (segmentation offload or jumbo frames)",
    "arp_conflict": "of a sender that claims the address of another one by ARP (spoofing, or a failover)",
}
"""Marks that change what a model sees, or whom it sees; VLAN tags and the snap length do not."""


def share_invisible(packets: Mapping[str, Any]) -> float:
    """Return the share of the packets that no flow describes; 0 without packets."""
    invisible = sum(each["packets"] for each in packets["invisible"])
    return invisible / packets["seen"] if packets["seen"] else 0.0


def sentences(packets: Mapping[str, Any]) -> str:
    """Return the sentences.

    Args:
        packets: The column `packets` of `nights/`, not null.
    """
    lengths = " and ".join(str(each) for each in packets["window_lengths"])
    of = "" if packets["captures"] is None else f" of {counted(packets['captures'], 'capture')}"
    text = f"{counted(packets['seen'], 'packet')}{of}, in windows of {lengths}"
    if not packets["invisible"]:
        text += "; flows describe all of them."
    else:
        text += f"; no model can see {percent(share_invisible(packets))} of them: "
        text += f"{kinds(packets['invisible'], packets['seen'])}."
    marked = [f"{_MARKS[each['name']]}: {each['packets']:,}" for each in packets["marks"] if each["name"] in _MARKS]
    return f"{text} Of those in flows, {'; '.join(marked)}." if marked else text


def kinds(invisible: Sequence[Mapping[str, Any]], seen: int) -> str:
    """Return kinds of packets and their shares, such as `IPv6 12.3%, MPLS 0.2%`."""
    return ", ".join(
        f"{_KINDS.get(each['name'], each['name'])} {percent(each['packets'] / seen)}" for each in invisible
    )
