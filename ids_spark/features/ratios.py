"""Features derived from raw ones: ratios, differences and products that no single feature states.

A network or a tree can only approximate a quotient of two of its inputs. None of these grows with the number of packets
in a window, also where it reads `Number`, so they are in both feature sets. The most useful one is `Pause`: with n
packets, `IAT` is (last time - time before the window) / n and `Rate` is n / (last time - first time)
(`extract.formulas`), so n · (IAT - 1 / Rate) is the time between the window and the packet before it.

No derived feature is there twice under another name. In the second release `Variance` is the square of `Std`, `Tot
size` equals `AVG`, `Tot sum` is `AVG` times `Number`, and the counts of flags are their shares times `Number` (checked
on its official rows), so ratios of these add nothing. In the first release `IAT` holds the date of the capture,
`Number` is no count of packets and `Header_Length` is a sum over the connection, so nothing is derived from these.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from ids_spark.base.arrays import Floats
from ids_spark.dataset.features import ORIGINAL_45, RELEASE_39, FeatureSchema

_FLAGS: Final = ("syn", "ack", "rst", "psh", "fin")


@dataclass(frozen=True)
class _Ratio:
    """A derived feature.

    Attributes:
        sources: Raw features that it is computed from.
        formula: Function of their columns.
        undefined: Its value where the formula has none: 0 / 0, infinity times 0, infinity minus infinity.
    """

    sources: tuple[str, ...]
    formula: Callable[..., Floats]
    undefined: float = 0.0


def _quotient(a: Floats, b: Floats) -> Floats:
    """Return a / b; 0 where b is 0."""
    return np.divide(a, b, out=np.zeros(len(a)), where=b != 0)


def _inverse(rate: Floats) -> Floats:
    """Return 1 / rate: 0 where it is infinite or 0."""
    return _quotient(np.ones(len(rate)), rate)


_RATIOS: Final[Mapping[str, _Ratio]] = {
    "Max - Min": _Ratio(("Max", "Min"), np.subtract),
    "AVG - Min": _Ratio(("AVG", "Min"), np.subtract),
    "Max - AVG": _Ratio(("Max", "AVG"), np.subtract),
    "AVG - Tot size": _Ratio(("AVG", "Tot size"), np.subtract),
    "Std / AVG": _Ratio(("Std", "AVG"), _quotient),
    "Min / Max": _Ratio(("Min", "Max"), _quotient),
    "(AVG - Min) / (Max - Min)": _Ratio(
        ("AVG", "Min", "Max"), lambda mean, low, high: _quotient(mean - low, high - low)
    ),
    "(AVG - Min) / Std": _Ratio(("AVG", "Min", "Std"), lambda mean, low, std: _quotient(mean - low, std)),
    "(Max - AVG) / Std": _Ratio(("Max", "AVG", "Std"), lambda high, mean, std: _quotient(high - mean, std)),
    "Inner AVG": _Ratio(
        ("Number", "AVG", "Min", "Max"), lambda n, mean, low, high: _quotient(n * mean - low - high, n - 2)
    ),
    # Headers of Ethernet have 14 bytes, of IPv4 20, an ARP packet 28; Header_Length is that of TCP or UDP.
    "Payload": _Ratio(
        ("AVG", "ARP", "Header_Length"), lambda mean, arp, header: mean - 14 - 20 * (1 - arp) - 28 * arp - header
    ),
    "Header_Length / AVG": _Ratio(("Header_Length", "AVG"), _quotient),
    "TCP_Header_Length": _Ratio(
        ("Header_Length", "UDP", "TCP"), lambda header, udp, tcp: _quotient(header - 8 * udp, tcp)
    ),
    "IP_Time_To_Live": _Ratio(("Time_To_Live", "ARP"), lambda ttl, arp: _quotient(ttl, 1 - arp)),
    **{f"{flag}_flag_number / TCP": _Ratio((f"{flag}_flag_number", "TCP"), _quotient) for flag in _FLAGS},
    "psh_flag_number / ack_flag_number": _Ratio(("psh_flag_number", "ack_flag_number"), _quotient),
    "Rate * AVG": _Ratio(("Rate", "AVG"), np.multiply),
    # 1 for packets at equal distances. Where all have the same time stamp the rate is infinite and the distance 0:
    # equal distances too. With a distance above 0 some of them have, and the product is infinite.
    "Rate * IAT": _Ratio(("Rate", "IAT"), np.multiply, undefined=1.0),
    "Inverse Rate": _Ratio(("Rate",), _inverse),
    "Pause / Number": _Ratio(("IAT", "Rate"), lambda iat, rate: iat - _inverse(rate)),
    "Pause": _Ratio(("Number", "IAT", "Rate"), lambda n, iat, rate: n * (iat - _inverse(rate))),
}
_LENGTHS: Final = (
    "Max - Min", "AVG - Min", "Max - AVG", "Std / AVG", "Min / Max", "(AVG - Min) / (Max - Min)", "(AVG - Min) / Std",
    "(Max - AVG) / Std",
)  # fmt: skip
_SHARES: Final = (*(f"{flag}_flag_number / TCP" for flag in _FLAGS), "psh_flag_number / ack_flag_number")
_OF_SCHEMA: Final[Mapping[str, tuple[str, ...]]] = {
    ORIGINAL_45.name: (*_LENGTHS, "AVG - Tot size", *_SHARES, "Rate * AVG", "Inverse Rate"),
    RELEASE_39.name: (
        *_LENGTHS, "Inner AVG", "Payload", "Header_Length / AVG", "TCP_Header_Length", "IP_Time_To_Live", *_SHARES,
        "Rate * AVG", "Rate * IAT", "Inverse Rate", "Pause / Number", "Pause",
    ),
}  # fmt: skip


def names_of(schema: FeatureSchema) -> tuple[str, ...]:
    """Return the names of the derived features of a release."""
    return _OF_SCHEMA[schema.name]


def sources_of(name: str) -> tuple[str, ...]:
    """Return the raw features that a feature is computed from; a raw feature itself."""
    return _RATIOS[name].sources if name in _RATIOS else (name,)


def column(values: Mapping[str, Floats], name: str) -> Floats:
    """Return a feature of flows: a column of `values` as it is, or computed from others.

    Args:
        values: Raw columns by official name, each of shape (rows,), without NaN.
        name: Of a raw or derived feature.

    Returns:
        Shape (rows,), in the units of the raw features; a denominator of 0 gives 0. May be infinite, but not NaN.

    Raises:
        KeyError: a column is missing.
    """
    if name in values or name not in _RATIOS:
        return values[name]
    ratio = _RATIOS[name]
    with np.errstate(over="ignore", invalid="ignore"):  # products and quotients of the largest numbers
        found = ratio.formula(*(values[source] for source in ratio.sources))
    if np.isnan(found).any():
        found[np.isnan(found)] = ratio.undefined
    return found


def with_derived(values: Mapping[str, Floats], names: Iterable[str]) -> dict[str, Floats]:
    """Return raw columns together with the derived features among `names`, each computed once; see `column`."""
    return {**values, **{name: column(values, name) for name in names if name not in values}}
