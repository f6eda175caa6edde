"""Windows of the code under test as plain values, and their comparison with the reference."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ids_spark.base.arrays import Floats
from ids_spark.dataset.features import RELEASE_39
from ids_spark.extract.windows import Windows
from tests.support.packet_reference import Window


def as_reference(found: Sequence[Windows]) -> list[Window]:
    """Return windows one by one, each as the reference describes them."""
    return [
        Window(
            dict(zip(RELEASE_39.features, windows.features[:, i].tolist(), strict=True)),
            int(windows.packets[i]),
            int(windows.nanos[i]),
            int(windows.device[i]),
            int(windows.source[i]) if windows.source_known[i] else None,
            int(windows.source_mac[i]),
            int(windows.target[i]),
        )
        for windows in found
        for i in range(len(windows))
    ]


def require_equal(found: Sequence[Window], expected: Sequence[Window]) -> None:
    """Compare windows in any order: features to 1e-9 of their value, infinities and everything else exactly."""

    def order(window: Window) -> tuple[object, ...]:
        return window.nanos, window.device, window.packets, window.features["Tot sum"], window.features["IAT"]

    assert len(found) == len(expected)
    for mine, other in zip(sorted(found, key=order), sorted(expected, key=order), strict=True):
        for name in RELEASE_39.features:
            assert math.isclose(mine.features[name], other.features[name], rel_tol=1e-9), name
        ours = mine.packets, mine.device, mine.source, mine.source_mac, mine.target
        assert ours == (other.packets, other.device, other.source, other.source_mac, other.target)


def broken_identities(features: Floats) -> Counter[str]:
    """Return how many windows break each identity that all official rows have; shape of features: (39, windows)."""
    row = dict(zip(RELEASE_39.features, features, strict=True))
    n = row["Number"]

    def whole(values: Floats) -> Floats:
        return np.abs(values - np.rint(values)) <= 1e-9 * np.maximum(1, np.abs(values))

    transport = row["TCP"] + row["UDP"]
    tcp_ports = np.max([row[name] for name in ("HTTP", "HTTPS", "SSH", "Telnet", "SMTP", "IRC")], axis=0)
    shares = [row[name] for name in RELEASE_39.features[15:30]] + [row[f"{flag}_flag_number"] for flag in _FLAGS]
    true = {
        **{
            f"{flag}_count = n · share": _near(row[f"{flag}_count"], n * row[f"{flag}_flag_number"]) for flag in _COUNTS
        },
        "every share · n is an integer": np.all([whole(share * n) for share in shares], axis=0),
        "every share is 0 to 1": np.all([(share >= 0) & (share <= 1) for share in shares], axis=0),
        "AVG = Tot size": row["AVG"] == row["Tot size"],
        "Tot sum = n · AVG": _near(row["Tot sum"], n * row["AVG"]),
        "Variance = Std²": _near(row["Variance"], row["Std"] ** 2),
        "Variance · n(n - 1) is an integer": whole(row["Variance"] * n * (n - 1)),
        "Header_Length · n is an integer": whole(row["Header_Length"] * n),
        "Time_To_Live · n is an integer": whole(row["Time_To_Live"] * n),
        "8 UDP + 20 TCP ≤ Header_Length ≤ 8 UDP + 60 TCP": (
            (row["Header_Length"] >= 8 * row["UDP"] + 20 * row["TCP"] - 1e-9)
            & (row["Header_Length"] <= 8 * row["UDP"] + 60 * row["TCP"] + 1e-9)
        ),
        "ports of TCP ≤ TCP": tcp_ports <= row["TCP"],
        "DNS, DHCP ≤ UDP": np.maximum(row["DNS"], row["DHCP"]) <= row["UDP"],
        "IPv = LLC = 1 - ARP": (row["IPv"] == row["LLC"]) & _near(row["IPv"], 1 - row["ARP"]),
        "TCP + UDP + ARP + ICMP + IGMP ≤ 1": transport + row["ARP"] + row["ICMP"] + row["IGMP"] <= 1 + 1e-9,
        "Min ≤ AVG ≤ Max": (row["Min"] <= row["AVG"] + 1e-9) & (row["AVG"] <= row["Max"] + 1e-9),
        "Rate > 0": row["Rate"] > 0,
        "all but Rate are finite": np.isfinite(features[np.array(RELEASE_39.features) != "Rate"]).all(axis=0),
        "a protocol of more than half of the packets is the mode": np.all(
            [(share <= 0.5) | (row["Protocol Type"] == number) for share, number in _protocols(row)], axis=0
        ),
        "the mode occurs": np.all(
            [(share > 0) | (row["Protocol Type"] != number) | (transport < 1) for share, number in _protocols(row)],
            axis=0,
        ),
    }
    return Counter({name: int((~holds).sum()) for name, holds in true.items() if not holds.all()})


_FLAGS = ("fin", "syn", "rst", "psh", "ack", "ece", "cwr")
_COUNTS = ("ack", "syn", "fin", "rst")


def _near(left: Floats, right: Floats) -> Floats:
    return np.isclose(left, right, rtol=1e-12, atol=1e-12)


def _protocols(row: dict[str, Floats]) -> list[tuple[Floats, int]]:
    return [(row["TCP"], 6), (row["UDP"], 17), (row["ICMP"], 1), (row["IGMP"], 2), (row["ARP"], 0)]
