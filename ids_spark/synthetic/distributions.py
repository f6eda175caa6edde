"""Distributions of the synthetic flows: for each class the distribution of every feature, and the rows of every file.

`profile.json` in this folder holds quantiles for each class and feature, but no row of the data set; derived from
CICIoMT2024 (Dadkhah et al. 2024, doi 10.1016/j.iot.2024.101351).

For the TCP/IP floods of the first release there are no statistics by class: their distributions are derived, not
measured, from three sources. (1) The second release's floods give the shares of flags and protocols and the time to
live, which both releases define in the same way. (2) Frames without Ethernet padding: those of an ICMP flood have 42
bytes, of a TCP or SYN flood 54, and of a UDP flood 50; with the class sizes these give the global medians of AVG
(50.04), Magnitue (10.002) and Tot sum (525.6 = 10.5 x 50.06). (3) The remainder of the first release's global moments
after the known classes are subtracted; the constants below reproduce these remainders.

At scale 1 the mean and standard deviation of every feature with less than 90 % zeros are within 15 % of the data set's.
Rarer features are not fitted, and some means differ by more: HTTPS, DNS, Telnet, SMTP and IRC are too rare by half, as
the second release's floods contain less of them than the remainder; SSH, ece_flag_number, cwr_flag_number, IGMP and
DHCP are too frequent by a factor of 1.7 to 3.5, as the classes with statistics (of most only the test file) exceed the
global mean without the floods.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from statistics import NormalDist
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ids_spark.base.arrays import Floats
from ids_spark.dataset.features import PROTOCOLS, FeatureSchema

FLOOD_PREFIXES: Final = ("DDoS-", "DoS-")

# Bytes of a frame without padding, by protocol.
FRAME: Final = {"ICMP": 42.0, "UDP": 50.0, "TCP": 54.0, "SYN": 54.0}
# Bytes; in the first release a running sum, so more than one header.
_HEADER: Final = {"ICMP": 0.0, "UDP": 92.0, "TCP": 118.0, "SYN": 122.0}
# Share of flood windows with a packet of other traffic: where `Std` and `Variance` are not 0.
_MIXED: Final = 0.18
# Seconds: range of IAT of each family; each family was captured on a different day. The range of a family is
# divided into equal parts, one for each protocol.
_DAY: Final = {"DDoS": (84_696_008.0, 84_697_184.0), "DoS": (84_670_752.0, 84_679_552.0)}
_PORT_SCAN_DAY: Final = (169_411_200.0, 169_411_900.0)
_LEVELS: Final = np.concatenate([np.linspace(0.0, 0.98, 50), [0.985, 0.99, 0.995, 0.9975, 0.999, 0.9995, 0.9999]])

_TRANSPORTS: Final = ("TCP", "UDP", "ICMP", "ARP", "IGMP")
_TEN_PACKETS: Final = ("Benign", "ARP_Spoofing", "MQTT-Malformed_Data", "Recon-")
_PORT_SCAN: Final = "Recon-Port_Scan"
# Features that both releases define in the same way.
_SAME_MEANING: Final = ("flag_number", *PROTOCOLS)
# Levels between the 0.995 quantile and the maximum, for which the profile has no quantiles.
_TAIL: Final = (0.9975, 0.999, 0.9995)
# For Benign the profile describes the test file only. With the same share of bulk transfers in the train file, the
# second moment of the whole data set would be 1.5 times (Header_Length) and 2.2 times (HTTP) the real one. So the tail
# of the train file above the 0.85 quantile is reduced to this share.
_BENIGN_TRAIN_TAIL: Final = {"Header_Length": 0.62, "HTTP": 0.36}
_TAIL_FROM: Final = 0.85
_FULL_FRAME: Final = 1_400.0  # bytes
_EPOCH_LIKE: Final = 1e6  # seconds: a larger IAT contains the time of the capture
# Features that `shifted` also multiplies by a factor, with the largest value that it gives (bytes, hops), if any.
_SCALED: Final[Mapping[str, float | None]] = {
    **dict.fromkeys(("AVG", "Min", "Max", "Tot size", "Std"), 1_514.0),
    **dict.fromkeys(("Time_To_Live", "Duration"), 255.0),
    **dict.fromkeys(("Header_Length", "Rate"), None),
}


@dataclass(frozen=True)
class Marginal:
    """Distribution of one feature: linear interpolation between points (`p`, `x`) of its quantile function.

    Attributes:
        p: Ascending probabilities from 0 to 1.
        x: Value at each probability; ascending, except between the parts of a mixture.
    """

    p: Floats
    x: Floats

    @property
    def constant(self) -> bool:
        """Whether all values are the same."""
        return bool((self.x == self.x[0]).all())

    def at(self, u: Floats) -> Floats:
        """Return the values at probabilities `u`."""
        return np.interp(u, self.p, self.x)

    def below(self, limit: float) -> float:
        """Return the probability of a value below `limit`; `x` must be ascending."""
        return float(np.interp(limit, self.x, self.p)) if limit > self.x[0] else 0.0

    def mean(self) -> float:
        """Return the mean."""
        return float(np.sum((self.x[1:] + self.x[:-1]) / 2 * np.diff(self.p)))


@dataclass(frozen=True)
class ClassModel:
    """Distributions of one class in one split.

    Attributes:
        class19: The class.
        window: Packets over which a row averages: 10 or 100.
        flood: Whether it is one of the eight TCP/IP floods.
        main_protocol: The protocol that gets the rest of the window after the drawn shares of the others.
        second_protocol: The second most frequent protocol.
        mixed_tcp: Share of rows with other packets than TCP.
        full_frames: Share of rows with packets of full length only.
        marginals: Distribution of each drawn feature.
        iat: Distribution of `IAT` without the time of the capture.
        iat_day: Distribution of `IAT` with the time of the capture; None if no row contains it.
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
    """Return the distributions of a class.

    The first release has no statistics of the TCP/IP floods and of port scans. Port scans use those of OS scans of the
    first release and, for features that both releases define in the same way, of port scans of the second.

    Args:
        schema: Feature schema of the release to imitate.
        class19: The class.
        split: `train` or `test`; they differ for Benign only.
        capture_day_iat: Whether `IAT` of the first release contains the time of the capture.
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
    window = 100 if long_window else 10
    return ClassModel(
        class19=class19,
        window=window,
        flood=flood,
        **_protocols(marginals, window),
        full_frames=0.0 if flood else 1 - marginals["Min"].below(_FULL_FRAME),
        marginals=marginals,
        iat=clean,
        iat_day=day,
        infinite_rate_share=share,
    )


def shifted(model: ClassModel, shift: float, rng: np.random.Generator) -> ClassModel:
    """Return a class with other distributions: every feature has other frequencies, lengths and rates other values.

    The probability p of a quantile becomes p^exp(shift · z), with a normal z for each feature: values that are rare in
    the class become frequent, or the reverse. Lengths, hops and rates are also multiplied by exp(shift · z / 4), with
    one z for all lengths.

    Args:
        model: Distributions of the class.
        shift: Standard deviation of the exponents' logarithm; 0 changes nothing.
        rng: Draws the exponents and factors; equal states give equal distributions.
    """
    factors = {limit: float(np.exp(shift * rng.standard_normal() / 4)) for limit in (1_514.0, 255.0, None)}
    marginals = {}
    for feature, marginal in model.marginals.items():
        p = marginal.p ** float(np.exp(shift * rng.standard_normal()))
        x = marginal.x
        if feature in _SCALED:
            limit = _SCALED[feature]
            x = x * factors[limit] if limit is None else np.minimum(x * factors[limit], limit)
        marginals[feature] = Marginal(p, x)
    return replace(model, marginals=marginals, **_protocols(marginals, model.window))


def _protocols(marginals: Mapping[str, Marginal], window: int) -> dict[str, Any]:
    """Return the fields of `ClassModel` on protocols."""
    main, second = sorted(_TRANSPORTS, key=lambda name: -marginals[name].mean())[:2]
    mixed = marginals["TCP"].below(1 - 0.5 / window)
    return {"main_protocol": main, "second_protocol": second, "mixed_tcp": mixed}


def _first_release(class19: str, split: str) -> tuple[dict[str, Marginal], Marginal]:
    profile = _profile()
    if class19.startswith(FLOOD_PREFIXES):
        second = _marginals(profile["release39"][class19])
        same = {f: m for f, m in second.items() if _means_the_same(f)}
        own = _flood_marginals(class19, second["Time_To_Live"])
        return {**same, **own}, _capture_day(class19)
    if class19 == _PORT_SCAN:
        scans = _marginals(profile["release39"][class19])
        os_scans = _marginals(profile["original45"]["Recon-OS_Scan"])
        same = {f: m for f, m in scans.items() if _means_the_same(f)}
        return {**os_scans, **same, "Duration": scans["Time_To_Live"]}, _capture_day(class19)
    entry = profile["original45"][class19]
    marginals = _marginals(entry)
    if class19 == "Benign" and split == "train":
        for feature, kept in _BENIGN_TRAIN_TAIL.items():
            marginals[feature] = _reduced_tail(marginals[feature], kept)
    iat = marginals["IAT"]
    if class19.startswith(_TEN_PACKETS):
        return marginals, _part(iat, iat.x >= 0.9 * iat.x[-1])
    # The lowest and highest 0.5 % belong to incomplete windows at the end of a capture.
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
    """Return the distribution conditional on a value within the kept quantiles."""
    p = marginal.p[keep]
    return Marginal((p - p[0]) / (p[-1] - p[0]), marginal.x[keep])


def _reduced_tail(marginal: Marginal, kept: float) -> Marginal:
    start = 1 - (1 - _TAIL_FROM) * kept
    low = marginal.p * (start / _TAIL_FROM)
    return Marginal(np.where(marginal.p < _TAIL_FROM, low, 1 - (1 - marginal.p) * kept), marginal.x)


def _flood_marginals(class19: str, time_to_live: Marginal) -> dict[str, Marginal]:
    """Return distributions of a flood's features that the second release defines differently or with less variation.

    Args:
        class19: One of the eight floods.
        time_to_live: Distribution in the second release.
    """
    family, protocol = class19.split("-", 1)
    tcp = protocol in ("TCP", "SYN")
    # Fast windows are more frequent in DDoS floods. The median of the others is 65 packets per second; 4 % have rate 0.
    fast = {"DDoS": 0.45, "DoS": 0.27}[family]
    rate = _mixture([(0.04, _point(0.0)), (0.96 - fast, _lognormal(65.0, 1.0)), (fast, _lognormal(25_000.0, 1.0))])
    header = _mixture([(0.95, _around(_HEADER[protocol])), (0.05, _exponential(200_000.0))])
    return {
        "Rate": _capped(rate, 2_097_152.0),
        "Header_Length": _capped(header, 4_000_000.0),
        # A few windows with a remote sender: a time to live up to 255 instead of 64.
        "Duration": _capped(_mixture([(0.99, time_to_live), (0.01, _shifted(_exponential(45.0), 64.0))]), 255.0),
        "Std": _capped(_mixture([(1 - _MIXED, _point(0.0)), (_MIXED, _lognormal(3.0, 1.8))]), 720.0),
        # Conditional on `Std` not being 0.
        "Variance": _capped(_exponential(0.22), 0.95),
        "ack_count": _mixture([(0.985, _point(0.0)), (0.015, _exponential(0.08))]),
        "syn_count": _spread(0.95, 2.0) if protocol == "SYN" else _point(0.0),
        "fin_count": _rare(0.30 if tcp else 0.0, _lognormal(0.21, 1.45), 151.74),
        "rst_count": _rare(
            0.36 if tcp else 0.0, _mixture([(0.983, _exponential(2.0)), (0.017, _lognormal(900.0, 1.0))]), 9_576.5
        ),
    }


def _capture_day(class19: str) -> Marginal:
    """Return the distribution of `IAT` of a flood or port scan in the first release."""
    if class19 == "Recon-Port_Scan":
        return _spread(*_PORT_SCAN_DAY)
    family, protocol = class19.split("-", 1)
    low, high = _DAY[family]
    step = (high - low) / len(FRAME)
    start = low + step * list(FRAME).index(protocol)
    return _spread(start, start + step - 8)  # 8: the spacing of single precision at these values


def _point(x: float) -> Marginal:
    return Marginal(np.array([0.0, 1.0]), np.array([x, x]))


def _spread(low: float, high: float) -> Marginal:
    return Marginal(np.array([0.0, 1.0]), np.array([low, high]))


def _around(x: float) -> Marginal:
    return _spread(x * 0.8, x * 1.4)


def _lognormal(median: float, sigma: float) -> Marginal:
    inverse = NormalDist().inv_cdf
    x = [median * np.exp(sigma * inverse(min(max(p, 1e-4), 1 - 1e-5))) for p in (*_LEVELS, 1.0)]
    return Marginal(np.append(_LEVELS, 1.0), np.array(x))


def _exponential(mean: float) -> Marginal:
    return Marginal(np.append(_LEVELS, 1.0), -mean * np.log1p(-np.append(_LEVELS, 1 - 1e-5)))


def _mixture(parts: list[tuple[float, Marginal]]) -> Marginal:
    """Return the mixture of parts by share; parts may overlap, so values need not ascend from part to part."""
    p, x, start = [], [], 0.0
    for share, part in parts:
        p.append(start + share * part.p)
        x.append(part.x)
        start += share
    return Marginal(np.concatenate(p) / start, np.concatenate(x))


def _shifted(marginal: Marginal, by: float) -> Marginal:
    return Marginal(marginal.p, marginal.x + by)


def _capped(marginal: Marginal, top: float) -> Marginal:
    return Marginal(marginal.p, np.minimum(marginal.x, top))


def _rare(share: float, part: Marginal, top: float) -> Marginal:
    return _capped(_mixture([(1 - share, _point(0.0)), (share, part)]), top) if share else _point(0.0)
