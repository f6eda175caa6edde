"""Headers of packets as columns, and what each packet counts as."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ids_spark.base.arrays import Floats, Ints, Mask

KINDS: Final = (
    "ipv4",
    "arp",
    "ipv6",
    "mpls",
    "pppoe",
    "llc",
    "other_ethertype",
    "truncated",
    "malformed",
    "impossible_time",
    "other_link_type",
)
"""What a packet is; each packet is of one kind. Only the first two are in windows, as in the data set: the official
extractor skips every other frame. `llc`: IEEE 802.3 frames with a length, spanning tree among them. `truncated`: the
capture holds less than the link-layer and IPv4 or ARP header. `malformed`: a header contradicts itself.
`impossible_time`: not within the years 1970 to 2200. `other_link_type`: of a pcapng interface that cannot be read."""
VISIBLE: Final = 2
"""Kinds below this index are in windows."""
MARKS: Final = ("vlan", "fragment", "tunnel", "short_capture", "no_transport", "large")
"""Facts about visible packets, of which a packet may have several; bit i of `Packets.marks` is mark i. `fragment`: not
the first one, so that it has no transport header. `tunnel`: carries packets that no feature describes (IPv6, IPv4, GRE,
ESP or AH in IP, VXLAN, GTP, L2TP). `short_capture`: captured bytes are fewer than the frame had. `no_transport`: TCP
or UDP whose header was not captured. `large`: over 1,514 bytes without tags, from segmentation offload or jumbo
frames."""
TCP: Final = 6
UDP: Final = 17


@dataclass(frozen=True)
class Packets:
    """Consecutive packets of a capture, in its order; every array has the shape (packets,).

    Attributes:
        offset: Where the record begins in the file, uncompressed; identifies the packet.
        nanos: Time in nanoseconds since 1970.
        seconds: The same as float64, computed as the official extractor does: whole seconds plus fraction, so that
            differences have its rounding, 2**-22 s.
        length: Bytes of the frame as an untagged Ethernet frame: padding kept, VLAN tags taken off.
        kind: Index in `KINDS`. The columns below are 0 if the packet is not visible.
        marks: Bits for `MARKS`.
        protocol: IPv4 protocol number; ARP 0.
        ttl: Time to live; ARP 0.
        transport: `TCP` or `UDP` if that header was captured, else 0: fragments other than the first have none.
        header: Bytes of the TCP header with options, 8 for UDP; 0 without `transport`.
        flags: The eight TCP flags, FIN in bit 0 to CWR in bit 7; 0 without TCP.
        source_port: Of TCP and UDP, else 0.
        target_port: Of TCP and UDP, else 0.
        source: IPv4 address as a number; of ARP the sender's protocol address.
        target: IPv4 address as a number; of ARP the target's protocol address.
        source_mac: Ethernet address as a number; 0 where the link layer has none.
        target_mac: Ethernet address as a number; 0 where the link layer has none.
    """

    offset: Ints
    nanos: Ints
    seconds: Floats
    length: Ints
    kind: NDArray[np.uint8]
    marks: NDArray[np.uint8]
    protocol: NDArray[np.uint8]
    ttl: NDArray[np.uint8]
    transport: NDArray[np.uint8]
    header: NDArray[np.uint8]
    flags: NDArray[np.uint8]
    source_port: NDArray[np.uint16]
    target_port: NDArray[np.uint16]
    source: NDArray[np.uint32]
    target: NDArray[np.uint32]
    source_mac: NDArray[np.uint64]
    target_mac: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.offset)

    @property
    def visible(self) -> Mask:
        """Which packets are in windows."""
        found: Mask = self.kind < VISIBLE
        return found
