"""The 39 features of the second release over windows of packets.

The formulas are those of the extractor with which the data set was made, found from its public copies and from official
rows; every share is of all packets of a window. A float64 holds every sum of integers here exactly.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ids_spark.base.arrays import Floats, Ints
from ids_spark.dataset.features import FLAGS, RELEASE_39
from ids_spark.extract.packets import KINDS, TCP, UDP

COLUMNS: Final = (
    "seconds",
    "length",
    "kind",
    "protocol",
    "ttl",
    "transport",
    "header",
    "flags",
    "source_port",
    "target_port",
)
"""Columns of `Packets` that the features need, beside the time of the packet before."""
FLAG_BITS: Final = (0, 1, 2, 3, 4, 6, 7)
"""Bits of `FLAGS` in the TCP header; bit 5 is URG, which is no feature."""
TCP_PORTS: Final[Mapping[str, int]] = {"HTTP": 80, "HTTPS": 443, "Telnet": 23, "SMTP": 25, "SSH": 22, "IRC": 21}
"""21 is not a port of IRC, but of FTP; the official extractor has it so."""
_DNS: Final = 53
_DHCP: Final = (67, 68)
_ARP: Final = KINDS.index("arp")
_ICMP: Final = 1
_IGMP: Final = 2


def features(columns: Mapping[str, NDArray[Any]], before: Floats, sizes: Ints) -> Floats:
    """Return the features of windows, of shape (39, windows) in the order of `RELEASE_39.features`.

    Only `Rate` can be infinite: +inf if all packets of the window have one time. No value is NaN.

    Args:
        columns: `COLUMNS` of `Packets`, one window after another; shape (packets,).
        before: Seconds of the packet before, in the same stream; its own for the first of a stream.
        sizes: Packets of each window, at least 2; shape (windows,).
    """
    starts = np.cumsum(sizes) - sizes

    def mean(values: NDArray[Any]) -> Floats:
        totals: Floats = np.add.reduceat(values, starts, dtype=np.int64) / sizes
        return totals

    ports = columns["source_port"], columns["target_port"]
    tcp = columns["transport"] == TCP
    udp = columns["transport"] == UDP
    flags = {flag: mean(columns["flags"] >> bit & 1) for flag, bit in zip(FLAGS, FLAG_BITS, strict=True)}
    arp = mean(columns["kind"] == _ARP)
    dhcp = (ports[0] == _DHCP[0]) & (ports[1] == _DHCP[1]) | (ports[0] == _DHCP[1]) & (ports[1] == _DHCP[0])
    length = columns["length"]
    average = mean(length)
    variance = _variance(length, average, starts, sizes)
    found = {
        "Header_Length": mean(columns["header"]),
        "Protocol Type": _mode(columns["protocol"], starts, sizes),
        "Time_To_Live": mean(columns["ttl"]),
        "Rate": _rate(columns["seconds"], starts, sizes),
        **{f"{flag}_flag_number": share for flag, share in flags.items()},
        **{f"{flag}_count": np.rint(flags[flag] * sizes) for flag in ("ack", "syn", "fin", "rst")},
        **{name: mean(tcp & ((ports[0] == port) | (ports[1] == port))) for name, port in TCP_PORTS.items()},
        "DNS": mean(udp & ((ports[0] == _DNS) | (ports[1] == _DNS))),
        "DHCP": mean(udp & dhcp),
        "TCP": mean(tcp),
        "UDP": mean(udp),
        "ARP": arp,
        "ICMP": mean(columns["protocol"] == _ICMP),
        "IGMP": mean(columns["protocol"] == _IGMP),
        "IPv": mean(columns["kind"] != _ARP),
        "LLC": mean(columns["kind"] != _ARP),
        "Tot sum": np.add.reduceat(length, starts),
        "Min": np.minimum.reduceat(length, starts),
        "Max": np.maximum.reduceat(length, starts),
        "AVG": average,
        "Std": np.sqrt(variance),
        "Tot size": average,
        "IAT": (columns["seconds"][starts + sizes - 1] - before[starts]) / sizes,  # the differences add up to this
        "Number": sizes,
        "Variance": variance,
    }
    matrix = np.empty((len(RELEASE_39.features), len(sizes)))  # ten times as fast as numpy.array of the columns
    for row, name in enumerate(RELEASE_39.features):
        matrix[row] = found[name]
    return matrix


def _variance(values: Ints, average: Floats, starts: Ints, sizes: Ints) -> Floats:
    """Return the sample variance by two passes: a sum of squares alone loses its digits to a large mean."""
    apart = values - np.repeat(average, sizes)
    squares: Floats = np.add.reduceat(apart * apart, starts) / (sizes - 1)
    return squares


def _rate(seconds: Floats, starts: Ints, sizes: Ints) -> Floats:
    span = np.maximum.reduceat(seconds, starts) - np.minimum.reduceat(seconds, starts)
    return np.divide(sizes, span, out=np.full(len(sizes), np.inf), where=span > 0)


def _mode(values: NDArray[np.uint8], starts: Ints, sizes: Ints) -> Ints:
    """Return the most frequent value of each window, of several the smallest."""
    present = np.flatnonzero(np.bincount(values, minlength=256))
    codes = np.searchsorted(present, np.arange(256))[values]
    cells = np.repeat(np.arange(len(sizes)) * len(present), sizes) + codes
    counts = np.bincount(cells, minlength=len(sizes) * len(present)).reshape(len(sizes), len(present))
    modes: Ints = present[counts.argmax(axis=1)]
    return modes


def most_frequent(values: NDArray[np.uint64], sizes: Ints) -> Ints:
    """Return for each window the index of the first packet that has the window's most frequent value.

    Of several most frequent values it is the one that is seen first.

    Args:
        values: Below 2**49, one window after another; shape (packets,).
        sizes: Packets of each window, at least 1; shape (windows,), fewer than 2**15.
    """
    best = np.cumsum(sizes) - sizes
    counts = np.zeros(len(sizes), dtype=np.int64)
    windows, left = np.arange(len(sizes)), sizes
    index = np.arange(len(values))
    for _ in range(_ROUNDS):  # the two ends of a conversation are decided without sorting
        if not len(windows):
            return best
        starts = np.cumsum(left) - left
        first = index[starts]
        same = values[index] == np.repeat(values[first], left)
        count = np.add.reduceat(same, starts, dtype=np.int64)
        better = count > counts[windows]
        best[windows[better]], counts[windows[better]] = first[better], count[better]
        rest = left - count
        undecided = rest > counts[windows]
        index = index[~same & np.repeat(undecided, left)]
        windows, left = windows[undecided], rest[undecided]
    if len(windows):
        first, count = _by_sorting(values, index, left)
        better = count > counts[windows]
        best[windows[better]] = first[better]
    return best


_ROUNDS: Final = 3
_VALUE_BITS: Final = 49


def _by_sorting(values: NDArray[np.uint64], index: Ints, sizes: Ints) -> tuple[Ints, Ints]:
    """Return the index of the first packet with each window's most frequent value, and how many have it."""
    window = np.repeat(np.arange(len(sizes), dtype=np.uint64), sizes)
    keys = window << np.uint64(_VALUE_BITS) | values[index]
    order = np.argsort(keys)
    keys = keys[order]
    begins = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
    first = np.minimum.reduceat(index[order], begins)
    count = np.diff(np.r_[begins, len(index)])
    window_of_run = keys[begins] >> np.uint64(_VALUE_BITS)
    score = count * len(values) + (len(values) - 1 - first)
    best = np.maximum.reduceat(score, np.flatnonzero(np.r_[True, window_of_run[1:] != window_of_run[:-1]]))
    return len(values) - 1 - best % len(values), best // len(values)
