"""Packets of Ethernet addresses that claim the IPv4 addresses of others by ARP, as in ARP spoofing.

Such a sender forwards the packets of its victims, whose IPv4 addresses do not say where they came from.
"""

from collections import Counter
from dataclasses import replace
from typing import Final

import numpy as np

from ids_spark.extract.packets import KINDS, MARKS, Packets

ARP_CONFLICT: Final = 1 << MARKS.index("arp_conflict")
_ARP: Final = KINDS.index("arp")
_MOST: Final = 65_536  # claims that are remembered: an attacker who invents addresses must not use up the memory


class Claims:
    """Learns from ARP packets, in their order, which Ethernet address claims which IPv4 addresses.

    An Ethernet address is in conflict if it claims several IPv4 addresses, one of which another one claims as well. A
    packet is marked by the claims up to it, so the result does not depend on how packets are divided into calls.
    """

    def __init__(self) -> None:
        self._macs: dict[int, set[int]] = {}  # that claim each address
        self._addresses: Counter[int] = Counter()  # claimed by each Ethernet address
        self._contested: set[int] = set()  # Ethernet addresses that claim one which another claims
        self._in_conflict: dict[int, int] = {}  # with the first packet of the present call that they are marked from

    def marked(self, packets: Packets) -> Packets:
        """Return the next packets of a capture, with the mark `arp_conflict` where their sender is in conflict."""
        self._learn(packets)
        if not self._in_conflict:
            return packets
        macs = np.array(sorted(self._in_conflict), dtype=np.uint64)
        since = np.array([self._in_conflict[mac] for mac in macs.tolist()])
        place = np.minimum(np.searchsorted(macs, packets.source_mac), len(macs) - 1)
        sent = packets.visible & (macs[place] == packets.source_mac) & (since[place] <= np.arange(len(packets)))
        self._in_conflict = dict.fromkeys(self._in_conflict, 0)
        return replace(packets, marks=packets.marks | np.where(sent, ARP_CONFLICT, 0).astype(np.uint8))

    def _learn(self, packets: Packets) -> None:
        at = np.flatnonzero((packets.kind == _ARP) & (packets.source != 0) & (packets.source_mac != 0))
        if not len(at) or self._addresses.total() >= _MOST:
            return
        claims = np.column_stack([packets.source[at].astype(np.uint64), packets.source_mac[at]])
        for i in np.sort(np.unique(claims, axis=0, return_index=True)[1]):
            address, mac = claims[i].tolist()
            macs = self._macs.setdefault(address, set())
            if mac in macs:
                continue
            macs.add(mac)
            self._addresses[mac] += 1
            changed = macs if len(macs) == 2 else {mac}  # with a third one, the others are contested already
            if len(macs) > 1:
                self._contested |= changed
            for each in changed & self._contested:
                if self._addresses[each] > 1:
                    self._in_conflict.setdefault(each, int(at[i]))
