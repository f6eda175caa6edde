"""Draws synthetic flows of one class: distributions of the profile, exact identities, plausible dependence within a
row.

Every feature is the quantile at a uniform random number. Related features use numbers close to a common one
(`_Drawing.near`), so that a window with one large packet has a large Max, AVG and Std. Features that are determined by
identities of the data set are computed, not drawn: shares are whole packets of a window, so that their sum is 1.

Identities of the second release, counted on 64,261 real rows: TCP+UDP+ICMP+ARP+IGMP = 1 (all but one row) ·
IPv = LLC = 1 − ARP · Variance = Std² · Tot sum = AVG·Number · Tot size = AVG · Min ≤ AVG ≤ Max · *_count =
Number·*_flag_number · flags, HTTP … IRC ≤ TCP · DNS ≤ TCP+UDP · DHCP ≤ UDP (all rows); Protocol Type = the number of
the most frequent protocol, ARP and IGMP counting as 0 and 2 (99.95 %); Rate·IAT within 20 % of 1 (89 %).
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ids_spark.base.arrays import Floats
from ids_spark.dataset.features import FeatureSchema
from ids_spark.synthetic.distributions import FRAME, ClassModel

ID_BITS: Final = 27
_ID_MASK: Final = np.uint64((1 << ID_BITS) - 1)
_SCRAMBLE: Final = np.uint64(0x5851F42D)  # odd, so multiplying by it modulo 2^27 permutes the numbers
_BELOW_SINGLE: Final = np.uint64((1 << 29) - 1)  # bits of a double's fraction that a single does not have
_MIN_IAT: Final = 1e-7  # seconds; 0 has no bits for the number of the row

_IP_NUMBER: Final = {"TCP": 6.0, "UDP": 17.0, "ICMP": 1.0, "IGMP": 2.0, "ARP": 0.0}
_TCP_SERVICES: Final = ("HTTP", "HTTPS", "Telnet", "SMTP", "SSH", "IRC")
_FLAGS: Final = ("fin", "syn", "rst", "psh", "ack", "ece")
_COUNTS: Final = ("ack", "syn", "fin", "rst")
# (Number, Weight, Tot sum / AVG) of the first release, whose packet counter restarts every 20 packets.
_TEN_EVEN: Final = (5.5, 38.5, 5.5)
_TEN_ODD: Final = (13.5, 244.6, 15.5)
_HUNDRED: Final = (9.5, 141.55, 10.5)
_LONGEST_FRAME: Final = 1_514.0  # bytes
_MAX_COVARIANCE: Final = 520_437.9  # bytes squared; the data set's maximum
# Variation of features of one group within a row: 0 equal quantiles, 2 independent.
_LOOSE: Final = 0.4
_LOOSE_FLOOD: Final = 0.02
_FREE: Final = 2.0


class _Drawing:
    """The columns of some rows while they are drawn."""

    def __init__(self, model: ClassModel, rows: int, rng: np.random.Generator) -> None:
        self.model, self.rows, self.rng = model, rows, rng
        self.columns: dict[str, Floats] = {}
        self.row = rng.random(rows)  # shared by all lengths of a row; in a flood, by all effects of other traffic
        self.loose = _LOOSE_FLOOD if model.flood else _LOOSE

    def near(self, u: Floats, loose: float) -> Floats:
        """Return uniform numbers within ± loose/2 of `u`, reflected at 0 and 1."""
        moved = np.abs(u + loose * (self.rng.random(self.rows) - 0.5))
        return np.asarray(1.0 - np.abs(1.0 - moved), dtype=np.float64)

    def draw(self, feature: str, u: Floats, loose: float) -> Floats:
        """Return the feature at numbers near `u`; a constant uses no random number."""
        marginal = self.model.marginals[feature]
        if marginal.constant:
            return np.full(self.rows, marginal.x[0])
        return marginal.at(self.near(u, loose))

    def packets(self, feature: str, u: Floats, loose: float, limit: Floats) -> Floats:
        """Return the number of packets in the window with the feature: whole numbers up to `limit`."""
        if self.model.marginals[feature].constant and self.model.marginals[feature].x[0] == 0.0:
            return np.zeros(self.rows)
        return np.minimum(np.rint(self.draw(feature, u, loose) * self.model.window), limit)

    def within_tcp(self, rank: Floats, u: Floats) -> Floats:
        """Return uniform numbers for features of TCP packets: `rank` if the share of TCP is not 1, else from `u`.

        Args:
            rank: Uniform, increasing with the share of TCP.
            u: Uniform and independent of `rank`.
        """
        mixed = self.model.mixed_tcp
        return np.where(rank < mixed, rank, mixed + (1.0 - mixed) * u)

    def deviation(self) -> Floats:
        """Return uniform numbers for `Std`: low if all packets have full length, else increasing with `row`."""
        return self.near((self.row + self.model.full_frames) % 1.0, self.loose)


def draw(schema: FeatureSchema, model: ClassModel, odd: NDArray[np.bool_], rng: np.random.Generator) -> Floats:
    """Return synthetic rows, shape (features, rows), in the schema's order; `IAT` does not contain row numbers yet.

    Args:
        schema: Feature schema of the release to imitate.
        model: Distributions of the class.
        odd: For each row whether it is the second half of a 20-packet counter (10-packet windows only).
        rng: Random generator.
    """
    drawing = _Drawing(model, len(odd), rng)
    _draw_shares(drawing)
    if schema.name == "original45":
        _first_release(drawing, odd)
    else:
        _second_release(drawing)
    return np.stack([drawing.columns[feature] for feature in schema.features])


def number(iat: Floats, ids: NDArray[np.int64]) -> Floats:
    """Return `iat` with the row number in the bits that a single-precision float does not have.

    So no two rows are equal as doubles; rows that are otherwise equal stay equal as singles. The value changes by less
    than 1 part in 2^23 (at a capture's epoch, 8.5e7 s, by less than 8 s).

    Args:
        iat: At least 0.
        ids: Numbers below 2^27, different for every row of the data set.
    """
    bits = np.maximum(iat, _MIN_IAT).view(np.uint64) & ~_BELOW_SINGLE
    scrambled = (ids.astype(np.uint64) * _SCRAMBLE) & _ID_MASK
    # Shifted by one bit: neighbours differ by two units, and the highest lost bit stays 0, so that rounding is down.
    return (bits | (scrambled << np.uint64(1))).view(np.float64)


def _draw_shares(d: _Drawing) -> None:
    """Draw protocols, TCP flags and services as packets of the window; add them as shares."""
    window = float(d.model.window)
    left = np.full(d.rows, window)
    packets: dict[str, Floats] = {}
    mix = d.row if d.model.flood else d.rng.random(d.rows)
    for name in ("ARP", "ICMP", "IGMP", "UDP", "TCP"):
        if name != d.model.main_protocol:
            follows = d.model.flood or name in ("TCP", d.model.second_protocol)
            packets[name] = d.packets(name, mix, _LOOSE_FLOOD if follows else _FREE, left)
            left = left - packets[name]
    packets[d.model.main_protocol] = left
    tcp, udp = packets["TCP"], packets["UDP"]
    rank = 1.0 - mix if d.model.main_protocol == "TCP" else mix
    flags = d.rng.random(d.rows)
    for flag in _FLAGS:
        u = {"ack": 1.0 - flags, "rst": 1.0 - flags, "psh": d.rng.random(d.rows)}.get(
            flag, flags
        )  # few SYN packets have the ACK flag
        packets[f"{flag}_flag_number"] = d.packets(f"{flag}_flag_number", d.within_tcp(rank, u), 0.02, tcp)
    packets["cwr_flag_number"] = packets["ece_flag_number"]  # explicit congestion notification sets both
    left = tcp
    for service in _TCP_SERVICES:
        u = d.row if service == "HTTP" or d.model.flood else d.within_tcp(rank, d.rng.random(d.rows))
        packets[service] = d.packets(service, u, d.loose if service == "HTTP" else 0.02, left)
        left = left - packets[service]
    packets["DNS"] = d.packets("DNS", d.row, _FREE, udp)
    packets["DHCP"] = d.packets("DHCP", d.row, _FREE, udp - packets["DNS"])
    d.columns.update({name: count / window for name, count in packets.items()})
    ip = (window - packets["ARP"]) / window
    d.columns.update({"IPv": ip, "LLC": ip})
    numbers = np.zeros(d.rows)
    for name, ip_number in _IP_NUMBER.items():
        numbers += ip_number * packets[name]
    d.columns["Protocol Type"] = numbers / window


def _whole(d: _Drawing, values: Floats) -> Floats:
    """Return averages of whole numbers over the window."""
    window = float(d.model.window)
    whole: Floats = np.rint(values * window) / window
    return whole


def _first_release(d: _Drawing, odd: NDArray[np.bool_]) -> None:
    columns, loose = d.columns, d.loose
    columns["Duration"] = _whole(d, d.draw("Duration", d.row, _FREE))
    columns["Rate"] = columns["Srate"] = d.draw("Rate", d.row, _FREE)
    columns["Drate"] = np.zeros(d.rows)
    header = d.rng.random(d.rows)
    columns["Header_Length"] = _whole(d, d.draw("Header_Length", header, 0.0))
    for flag in _COUNTS:
        u = header if flag == "rst" else d.rng.random(d.rows)
        columns[f"{flag}_count"] = _whole(d, d.draw(f"{flag}_count", u, 0.5))
    deviation = d.deviation()
    _first_lengths(d, deviation)
    average, std = columns["AVG"], columns["Std"]
    if d.model.flood:
        columns["Variance"] = np.where(std > 0, np.maximum(_whole(d, d.draw("Variance", deviation, _FREE)), 0.01), 0.0)
        # Ratio of the mean of squares to the squared mean, if only the share `Variance` of a window's parts is not 0.
        # Nearly homogeneous windows have no single large packets, so at most 2.5 (from the global moments).
        ratio = 1.0 / np.maximum(columns["Variance"], 0.4)
    else:
        columns["Variance"] = np.where(std > 0, _whole(d, d.draw("Variance", deviation, loose)), 0.0)
        exact = np.maximum(d.model.marginals["Std"].at(deviation), 1e-3)
        ratio = np.clip(d.model.marginals["Covariance"].at(deviation) / exact**2, 1.0, 4.0)
    columns["Covariance"] = np.maximum(np.minimum(std**2 * ratio, _MAX_COVARIANCE), std**2)
    columns["Radius"] = np.sqrt(2.0) * std * (1.0 + 0.004 * (d.rng.random(d.rows) - 0.5))
    # The mean of square roots is below the square root of the mean: by (Std/AVG)²/8 in second order; here 1 % at most.
    # The constant makes windows of equal packets differ in single precision (ICMP floods at rate 0 are equal in all
    # else).
    bend = ((std / average) ** 2 / 4 + 1e-3) * d.rng.random(d.rows)
    columns["Magnitue"] = np.sqrt(2.0 * average) * (1.0 - np.minimum(bend, 0.01))
    counter = [np.full(d.rows, v) for v in _HUNDRED]
    if d.model.window == 10:
        counter = [np.where(odd, second, first) for first, second in zip(_TEN_EVEN, _TEN_ODD, strict=True)]
    columns["Number"], columns["Weight"], running = counter
    swing = 0.3 * std * (d.rng.random(d.rows) - 0.5)  # limited, so that the total is not negative
    columns["Tot sum"] = running * (average + np.clip(swing, -0.9 * average, None))
    iat = d.model.iat.at(d.rng.random(d.rows))
    if d.model.iat_day is not None:
        day = d.model.iat_day.at(d.rng.random(d.rows))
        iat = day if d.model.window == 100 else np.where(odd, day, iat)
    columns["IAT"] = iat


def _first_lengths(d: _Drawing, deviation: Floats) -> None:
    columns, loose = d.columns, d.loose
    if d.model.flood:
        std = d.model.marginals["Std"].at(deviation)
        frame = FRAME[d.model.class19.split("-", 1)[1]]
        # One packet of another length among ten is 3 standard deviations above the mean of the ten.
        columns["Min"] = np.full(d.rows, frame)
        columns["AVG"] = np.minimum(frame + 0.35 * std, 1_400.0)
        columns["Max"] = np.minimum(frame + 3.1 * std, _LONGEST_FRAME)
        columns["Std"] = np.minimum(std, columns["Max"] - frame)
        size = columns["AVG"] + 0.3 * std * (d.rng.random(d.rows) - 0.5)
    else:
        columns["AVG"] = average = d.draw("AVG", d.row, 0.0)
        columns["Min"] = np.minimum(d.draw("Min", d.row, loose / 4), average)
        std = d.model.marginals["Std"].at(deviation)
        longest = np.maximum(d.draw("Max", d.row, loose), columns["Min"] + std)
        columns["Max"] = np.maximum(np.minimum(longest, _LONGEST_FRAME), average)
        columns["Std"] = np.minimum(std, columns["Max"] - columns["Min"])
        size = d.draw("Tot size", d.row, loose / 2)
    columns["Tot size"] = np.clip(size, columns["Min"], columns["Max"])


def _second_release(d: _Drawing) -> None:
    columns, window = d.columns, float(d.model.window)
    columns["Time_To_Live"] = _whole(d, d.draw("Time_To_Live", d.row, _FREE))
    columns["Header_Length"] = _whole(d, d.draw("Header_Length", d.row, _FREE))
    columns["Number"] = np.full(d.rows, window)
    for flag in _COUNTS:
        columns[f"{flag}_count"] = np.rint(columns[f"{flag}_flag_number"] * window)
    shares = np.stack([columns[p] for p in _IP_NUMBER])
    columns["Protocol Type"] = np.array(list(_IP_NUMBER.values()))[shares.argmax(axis=0)]
    total: Floats = np.rint(d.draw("AVG", d.row, 0.0) * window)
    average = total / window
    shortest = np.minimum(np.rint(d.draw("Min", d.row, d.loose)), np.floor(average))
    longest = np.maximum(np.rint(d.draw("Max", d.row, d.loose)), np.ceil(average))
    std = np.minimum(d.model.marginals["Std"].at(d.deviation()), longest - shortest)
    columns["Tot sum"], columns["Min"], columns["Max"] = total, shortest, longest
    columns["AVG"] = columns["Tot size"] = average
    columns["Std"] = std
    columns["Variance"] = std * std
    speed = d.rng.random(d.rows)
    finite = 1.0 - d.model.infinite_rate_share
    rate = d.model.marginals["Rate"].at(np.minimum(speed / finite, 1.0))
    columns["Rate"] = np.where(speed < finite, rate, np.inf)
    columns["IAT"] = d.model.iat.at(1.0 - d.near(speed, 0.02))
