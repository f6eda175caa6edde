"""What the synthetic flows imitate: for each class the distribution of every feature, and the rows of every file.

The statistics lie beside this module in `profile.json`, derived from CICIoMT2024 (Dadkhah et al. 2024, doi
10.1016/j.iot.2024.101351): quantiles per class and feature, no row of the data set.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ids_spark.dataset.features import PROTOCOLS, FeatureSchema
from ids_spark.synthetic import floods
from ids_spark.synthetic.floods import FLOOD_PREFIXES, Marginal

_TRANSPORTS: Final = ("TCP", "UDP", "ICMP", "ARP", "IGMP")
_TEN_PACKETS: Final = ("Benign", "ARP_Spoofing", "MQTT-Malformed_Data", "Recon-")
_PORT_SCAN: Final = "Recon-Port_Scan"
# Where the sample of the second release measures the same thing as the first release.
_SAME_MEANING: Final = ("flag_number", *PROTOCOLS)
# Between the 0.995 quantile and the maximum only the number of rows is known; these levels are filled in.
_TAIL: Final = (0.9975, 0.999, 0.9995)
# The profile saw Benign's test file only; with its share of bulk transfers in the train file as well, the whole data
# set would have 1.5 (Header_Length) and 2.2 times (HTTP) the second moment that it has. The train file keeps this part
# of the tail above the 0.85 quantile.
_BENIGN_TRAIN_TAIL: Final = {"Header_Length": 0.62, "HTTP": 0.36}
_TAIL_FROM: Final = 0.85
_FULL_FRAME: Final = 1_400.0  # bytes
_EPOCH_LIKE: Final = 1e6  # seconds: a greater IAT holds the capture's epoch


@dataclass(frozen=True)
class ClassModel:
    """How the rows of one class in one split are drawn.

    Attributes:
        class19: The class.
        window: Packets that one row averages: 10 or 100.
        flood: One of the eight TCP/IP floods.
        main_protocol: The protocol that takes what the drawn shares of the others leave.
        second_protocol: The most frequent of the others.
        mixed_tcp: Share of rows with other packets than TCP.
        full_frames: Share of rows with packets of full length only.
        marginals: Distribution of each feature that is drawn.
        iat: Distribution of `IAT` without the capture's epoch.
        iat_day: Distribution of `IAT` where it holds the epoch; None: never.
        infinite_rate_share: Share of rows with `Rate` = inf.
    """

    class19: str
    window: int
    flood: bool
    main_protocol: str
    second_protocol: str
    mixed_tcp: float
    full_frames: float
    marginals: Mapping[str, Marginal]
    iat: Marginal
    iat_day: Marginal | None
    infinite_rate_share: float


@cache
def _profile() -> dict[str, Any]:
    text = resources.files(__package__).joinpath("profile.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


def rows_per_file() -> Mapping[str, int]:
    """Return the official row count of every capture file, by names such as `Benign_train`, in a fixed order."""
    counts: dict[str, int] = _profile()["rows_per_file"]
    return counts


@cache
def class_model(schema: FeatureSchema, class19: str, split: str, capture_day_iat: bool) -> ClassModel:
    """Return the model of a class.

    The first release has no statistics of the TCP/IP floods and of port scans. Port scans borrow OS scans of the first
    release and, where both releases measure the same, port scans of the second. For the floods see `replica_floods`.

    Args:
        schema: Which release to imitate.
        class19: The class.
        split: `train` or `test`; they differ for Benign only.
        capture_day_iat: Whether `IAT` of the first release holds the capture's epoch.
    """
    second = _profile()["release39"][class19]
    clean = _marginal(second["quantiles"]["IAT"], second["rows_seen"])
    flood = class19.startswith(FLOOD_PREFIXES)
    day: Marginal | None = None
    share = 0.0
    if schema.name == "release39":
        marginals = _marginals(second)
        share = second.get("infinite_rate_share", 0.0)
        long_window = flood
    else:
        long_window = not class19.startswith(_TEN_PACKETS)
        marginals, day = _first_release(class19, split)
        if capture_day_iat and not long_window:
            clean = _small_iat(class19)
        day = day if capture_day_iat else None
    main, second_most = sorted(_TRANSPORTS, key=lambda name: -marginals[name].mean())[:2]
    window = 100 if long_window else 10
    return ClassModel(
        class19=class19,
        window=window,
        flood=flood,
        main_protocol=main,
        second_protocol=second_most,
        mixed_tcp=marginals["TCP"].below(1 - 0.5 / window),
        full_frames=0.0 if flood else 1 - marginals["Min"].below(_FULL_FRAME),
        marginals=marginals,
        iat=clean,
        iat_day=day,
        infinite_rate_share=share,
    )


def _first_release(class19: str, split: str) -> tuple[dict[str, Marginal], Marginal]:
    profile = _profile()
    if class19.startswith(FLOOD_PREFIXES):
        second = _marginals(profile["release39"][class19])
        same = {f: m for f, m in second.items() if _means_the_same(f)}
        own = floods.marginals(class19, second["Time_To_Live"])
        return {**same, **own}, floods.capture_day(class19)
    if class19 == _PORT_SCAN:
        scans = _marginals(profile["release39"][class19])
        borrowed = _marginals(profile["original45"]["Recon-OS_Scan"])
        same = {f: m for f, m in scans.items() if _means_the_same(f)}
        return {**borrowed, **same, "Duration": scans["Time_To_Live"]}, floods.capture_day(class19)
    entry = profile["original45"][class19]
    marginals = _marginals(entry)
    if class19 == "Benign" and split == "train":
        for feature, kept in _BENIGN_TRAIN_TAIL.items():
            marginals[feature] = _thinner_tail(marginals[feature], kept)
    iat = marginals["IAT"]
    if class19.startswith(_TEN_PACKETS):
        return marginals, _part(iat, iat.x >= 0.9 * iat.x[-1])
    # The lowest and highest half per cent come from windows cut short at the end of a capture.
    return marginals, _part(iat, (iat.p >= 0.005) & (iat.p <= 0.995))


def _small_iat(class19: str) -> Marginal:
    entry = _profile()["original45"]["Recon-OS_Scan" if class19 == _PORT_SCAN else class19]
    iat = _marginals(entry)["IAT"]
    return _part(iat, iat.x < _EPOCH_LIKE)


def _means_the_same(feature: str) -> bool:
    return feature.endswith(_SAME_MEANING)


def _marginals(entry: Mapping[str, Any]) -> dict[str, Marginal]:
    return {f: _marginal(q, entry["rows_seen"]) for f, q in entry["quantiles"].items()}


def _marginal(quantiles: float | Sequence[float], rows_seen: int) -> Marginal:
    """Return the distribution; above the 0.995 quantile an exponential tail up to the maximum of `rows_seen` rows."""
    if not isinstance(quantiles, list):
        value = float(np.asarray(quantiles))
        return Marginal(np.array([0.0, 1.0]), np.array([value, value]))
    grid = _profile()["quantile_grid"]
    below, high, top = grid[-2], quantiles[-2], quantiles[-1]
    reach = max(np.log((1 - below) * rows_seen), 1.0)
    tail = [high + (top - high) * min(1.0, np.log((1 - below) / (1 - p)) / reach) for p in _TAIL]
    return Marginal(np.array([*grid[:-1], *_TAIL, 1.0]), np.array([*quantiles[:-1], *tail, top], dtype=np.float64))


def _part(marginal: Marginal, keep: NDArray[np.bool_]) -> Marginal:
    """Return the distribution given that the value is one of the kept quantiles or between them."""
    p = marginal.p[keep]
    return Marginal((p - p[0]) / (p[-1] - p[0]), marginal.x[keep])


def _thinner_tail(marginal: Marginal, kept: float) -> Marginal:
    start = 1 - (1 - _TAIL_FROM) * kept
    low = marginal.p * (start / _TAIL_FROM)
    return Marginal(np.where(marginal.p < _TAIL_FROM, low, 1 - (1 - marginal.p) * kept), marginal.x)
