"""Mean and population standard deviation of a column, computed in blocks; the same up to rounding for any division into
blocks.

Sums of squares are not accurate enough: values of about 1.7e8 with a standard deviation of 1 lose every digit. Each
block is centred on its own mean first, and blocks are merged by their means and centred squares (Chan, Golub, LeVeque
1983, "Algorithms for computing the sample variance", The American Statistician 37:242). Means have twice the digits of
a double: otherwise their rounding errors dominate the difference of two means when the deviation is small.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from ids_spark.base.arrays import Floats

LARGEST: Final = 1e100
"""Values outside ±1e100 count as infinite: the square of their difference would exceed the range of a double."""


@dataclass(frozen=True)
class Moments:
    """Moments of the finite values of a column; infinities are counted separately.

    Attributes:
        count: Finite values.
        mean: 0 when there are none.
        squares: Sum of squared differences from the mean.
        low: Smallest finite value; infinity when there is none.
        high: Largest finite value; minus infinity when there is none.
        above: Number of +infinity.
        below: Number of -infinity.
        rest: Rounding error of `mean`: the exact mean is `mean` + `rest`.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    above: int = 0
    below: int = 0
    rest: float = 0.0

    @property
    def std(self) -> float:
        """Population standard deviation (divides by n, as scikit-learn's StandardScaler); NaN without values."""
        return math.sqrt(self.squares / self.count) if self.count else math.nan

    def merged(self, other: "Moments") -> "Moments":
        """Return the moments of the values of both columns."""
        count = self.count + other.count
        if not self.count or not other.count:
            nonempty = self if self.count else other
            mean, rest, squares = nonempty.mean, nonempty.rest, nonempty.squares
        else:
            share = other.count / count
            difference = (other.mean - self.mean) + (other.rest - self.rest)
            mean, rest = _sum(self.mean, self.rest + difference * share)
            squares = self.squares + other.squares + difference * difference * (self.count * share)
        return Moments(
            count,
            mean,
            squares,
            min(self.low, other.low),
            max(self.high, other.high),
            self.above + other.above,
            self.below + other.below,
            rest,
        )

    def saturated(self) -> "Moments":
        """Return the moments with infinities replaced by the nearest extreme; unchanged without finite values."""
        if not self.count:
            return self
        finite = Moments(self.count, self.mean, self.squares, self.low, self.high, rest=self.rest)
        return finite.merged(_repeated(self.high, self.above)).merged(_repeated(self.low, self.below))


def _repeated(value: float, times: int) -> Moments:
    return Moments(times, value, low=value, high=value) if times else Moments()


def _sum(a: float, b: float) -> tuple[float, float]:
    """Return a + b and its rounding error, exactly (Knuth's TwoSum)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def moments_of(column: Floats) -> Moments:
    """Return the moments of a column of shape (rows,).

    Raises:
        ValueError: when it holds NaN; flows have no missing values.
    """
    if not len(column):
        return Moments()
    low, high = float(np.min(column)), float(np.max(column))
    if math.isnan(low):
        raise ValueError("found NaN in a feature column; expected numbers or infinities")
    above = below = 0
    finite = column
    if low < -LARGEST or high > LARGEST:
        above, below = int((column > LARGEST).sum()), int((column < -LARGEST).sum())
        finite = column[np.abs(column) <= LARGEST]
        if not len(finite):
            return Moments(above=above, below=below)
        low, high = float(np.min(finite)), float(np.max(finite))
    first = float(np.mean(finite))
    centred = finite - first
    # The remainder from rounding the mean corrects mean and squares: the corrected two-pass algorithm (same article).
    residue = float(np.sum(centred))
    squares = float(np.dot(centred, centred)) - residue * residue / len(finite)
    mean, rest = _sum(first, residue / len(finite))
    return Moments(len(finite), mean, max(0.0, squares), low, high, above, below, rest)
