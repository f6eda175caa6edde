"""The class of a capture file at 19, 6 and 2 classes, from its name, with fixed integer ids.

The naming rules and the three levels are those of CICIoMT2024 (Dadkhah et al. 2024, doi 10.1016/j.iot.2024.101351).
Ids never change, so that models and metrics of different dates are comparable.
"""

import re
from collections.abc import Iterable
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from ids_spark.base.errors import InputError

Level = Literal[2, 6, 19]
LEVELS: Final[tuple[Level, ...]] = (2, 6, 19)

CLASS2: Final = ("Benign", "Attack")
CLASS6: Final = ("Benign", "DDoS", "DoS", "MQTT", "Recon", "Spoofing")
CLASS19: Final = (
    "Benign",
    "DDoS-ICMP",
    "DDoS-SYN",
    "DDoS-TCP",
    "DDoS-UDP",
    "DoS-ICMP",
    "DoS-SYN",
    "DoS-TCP",
    "DoS-UDP",
    "MQTT-DDoS-Connect_Flood",
    "MQTT-DDoS-Publish_Flood",
    "MQTT-DoS-Connect_Flood",
    "MQTT-DoS-Publish_Flood",
    "MQTT-Malformed_Data",
    "Recon-OS_Scan",
    "Recon-Ping_Sweep",
    "Recon-Port_Scan",
    "Recon-VulScan",
    "ARP_Spoofing",
)
CLASSES: Final[dict[Level, tuple[str, ...]]] = {2: CLASS2, 6: CLASS6, 19: CLASS19}
BENIGN_ID: Final = 0  # at every level
UNKNOWN: Final = "Unknown"
"""Class and category of flows that resemble neither benign flows nor a known attack; no model predicts it."""
QUARANTINED: Final = "Quarantined"
"""Class and category of rows that were refused, so that no model has seen them as they are."""

_SUFFIX = re.compile(r"(_(?P<split>train|test))?(\.(?i:pcap))?(\.(?i:csv|csv\.gz|parquet|parq|pq))?$")


class UnknownClass(InputError):
    """Raised when a file name or a label matches none of the 19 classes."""


def split_of(label: str) -> str | None:
    """Return `train` or `test` if a file name or label ends with it, else None."""
    match = _SUFFIX.search(label)
    return match.group("split") if match else None


def class19_of(label: str) -> str:
    """Return the class of a capture file name or of a label that holds one, such as `TCP_IP-DDoS-ICMP1_train`.

    Removed in this order: file endings, `_train` or `_test`, trailing digits (a capture in several parts), `TCP_IP-`.

    Raises:
        UnknownClass: when the rest of the name is none of `CLASS19`.
    """
    found = find_class19(label)
    if found is None:
        raise UnknownClass(
            f"{label!r} names no known class: found {_stem(label)!r}, expected one of {', '.join(CLASS19)};"
            " rename the file or label, or remove it from the source"
        )
    return found


def find_class19(label: str) -> str | None:
    """Return the class as `class19_of` does; None if the name is none of `CLASS19`."""
    name = _stem(label)
    return name if name in CLASS19 else None


def _stem(label: str) -> str:
    return _SUFFIX.sub("", label).rstrip("0123456789").removeprefix("TCP_IP-")


def class6_of(class19: str) -> str:
    """Return the attack category: the first part of the name, as names of MQTT classes contain DDoS or DoS as well."""
    if class19 in ("Benign", "ARP_Spoofing"):
        return {"Benign": "Benign", "ARP_Spoofing": "Spoofing"}[class19]
    return class19.split("-", 1)[0]


def class2_of(class6: str) -> str:
    """Return `Benign` or `Attack`."""
    return "Benign" if class6 == "Benign" else "Attack"


def _ids(names: Iterable[str], level: Level) -> NDArray[np.int32]:
    return np.array([CLASSES[level].index(name) for name in names], dtype=np.int32)


_TO_6 = _ids((class6_of(name) for name in CLASS19), 6)
_TO_2 = _ids((class2_of(name) for name in CLASS6), 2)
_PARENTS: Final[dict[tuple[Level, Level], NDArray[np.int32]]] = {
    (19, 19): np.arange(19, dtype=np.int32),
    (19, 6): _TO_6,
    (19, 2): _TO_2[_TO_6],
    (6, 6): np.arange(6, dtype=np.int32),
    (6, 2): _TO_2,
    (2, 2): np.arange(2, dtype=np.int32),
}


def parents(level: Level, coarser: Level) -> NDArray[np.int32]:
    """Return, for every class id at `level`, its id at the same or a coarser level; shape (level,).

    Raises:
        KeyError: when `coarser` is finer than `level`.
    """
    return _PARENTS[level, coarser]


def levels_from(level: Level) -> tuple[Level, ...]:
    """Return `level` and every coarser one, finest first: 6 gives (6, 2)."""
    return tuple(other for other in sorted(LEVELS, reverse=True) if other <= level)
