"""Features derived from raw ones: ratios, differences and products that no single feature states.

A network or a tree can only approximate a quotient of two of its inputs. These compare packets of one window with each
other, so their range depends less on how many packets a window has than that of sums and counts.

No derived feature is there twice under another name. In the second release `Variance` is the square of `Std`, `Tot
size` equals `AVG`, `Tot sum` is `AVG` times `Number`, and the counts of flags are their shares times `Number` (checked
on its official rows), so ratios of these add nothing. In the first release `IAT` holds the date of the capture and
`Header_Length` is a sum over the connection, so ratios of these are left out.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from ids_spark.base.arrays import Floats
from ids_spark.dataset.features import ORIGINAL_45, RELEASE_39, FeatureSchema


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


def _difference(a: Floats, b: Floats) -> Floats:
    return np.subtract(a, b)


def _product(a: Floats, b: Floats) -> Floats:
    return np.multiply(a, b)


def _position(mean: Floats, low: Floats, high: Floats) -> Floats:
    """Return where the mean is between low and high, 0 to 1; 0 where these are equal."""
    return _quotient(mean - low, high - low)


_RATIOS: Final[Mapping[str, _Ratio]] = {
    "Max - Min": _Ratio(("Max", "Min"), _difference),
    "Std / AVG": _Ratio(("Std", "AVG"), _quotient),
    "Min / Max": _Ratio(("Min", "Max"), _quotient),
    "(AVG - Min) / (Max - Min)": _Ratio(("AVG", "Min", "Max"), _position),
    "Rate * AVG": _Ratio(("Rate", "AVG"), _product),
    "AVG - Tot size": _Ratio(("AVG", "Tot size"), _difference),
    "Header_Length / AVG": _Ratio(("Header_Length", "AVG"), _quotient),
    # 1 for packets at equal distances, more for bursts. Where all have the same time stamp the rate is infinite and the
    # distance 0: equal distances too. With a distance above 0 some of them have, and the product is infinite.
    "Rate * IAT": _Ratio(("Rate", "IAT"), _product, undefined=1.0),
}
_OF_SCHEMA: Final[Mapping[str, tuple[str, ...]]] = {
    ORIGINAL_45.name: (
        "Max - Min", "Std / AVG", "Min / Max", "(AVG - Min) / (Max - Min)", "Rate * AVG", "AVG - Tot size"
    ),
    RELEASE_39.name: (
        "Max - Min", "Std / AVG", "Min / Max", "(AVG - Min) / (Max - Min)", "Rate * AVG", "Header_Length / AVG",
        "Rate * IAT",
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
    with np.errstate(over="ignore", invalid="ignore"):
        found = ratio.formula(*(values[source] for source in ratio.sources))
    if np.isnan(found).any():
        found[np.isnan(found)] = ratio.undefined
    return found


def with_derived(values: Mapping[str, Floats], names: Iterable[str]) -> dict[str, Floats]:
    """Return raw columns together with the derived features among `names`, each computed once; see `column`."""
    return {**values, **{name: column(values, name) for name in names if name not in values}}
