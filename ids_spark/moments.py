"""Mean and population standard deviation of a column in pieces, exact to rounding whatever the pieces.

Sums of squares fail here: a feature of 1.7e8 with a spread of 1 loses every digit. Each block is centred on its own
mean first, and blocks are merged by their means and centred squares (Chan, Golub, LeVeque 1983, "Algorithms for
computing the sample variance", The American Statistician 37:242).
"""

import math
from dataclasses import dataclass

import numpy as np

from ids_spark.row_hash import Floats


@dataclass(frozen=True)
class Moments:
    """Moments of the finite values of a column; infinities are counted apart.

    Attributes:
        count: Finite values.
        mean: 0 when there are none.
        squares: Sum of squared differences from the mean.
        low: Smallest finite value; infinity when there is none.
        high: Largest finite value; minus infinity when there is none.
        above: Number of +infinity.
        below: Number of -infinity.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    above: int = 0
    below: int = 0

    @property
    def std(self) -> float:
        """Population standard deviation (divides by n, as scikit-learn's StandardScaler); NaN without values."""
        return math.sqrt(self.squares / self.count) if self.count else math.nan

    def merged(self, other: "Moments") -> "Moments":
        """Return the moments of both sets of values together."""
        count = self.count + other.count
        difference = other.mean - self.mean
        if not self.count or not other.count:
            mean, squares = (self.mean, self.squares) if self.count else (other.mean, other.squares)
        else:
            mean = self.mean + difference * (other.count / count)
            squares = self.squares + other.squares + difference * difference * (self.count * (other.count / count))
        return Moments(
            count,
            mean,
            squares,
            min(self.low, other.low),
            max(self.high, other.high),
            self.above + other.above,
            self.below + other.below,
        )

    def saturated(self) -> "Moments":
        """Return the moments after every infinity took the nearest finite extreme; unchanged without finite values."""
        if not self.count:
            return self
        top = Moments(self.above, self.high, 0.0, self.high, self.high)
        bottom = Moments(self.below, self.low, 0.0, self.low, self.low)
        return Moments(self.count, self.mean, self.squares, self.low, self.high).merged(top).merged(bottom)


def moments_of(column: Floats) -> Moments:
    """Return the moments of a column of shape (rows,).

    Raises:
        ValueError: when it holds NaN: a missing value has no place in a flow.
    """
    finite = column
    above = below = 0
    if len(column) and not math.isfinite(float(np.sum(column))):  # NaN and infinity survive a sum
        if np.isnan(column).any():
            raise ValueError("a feature column holds NaN")
        above, below = int((column == np.inf).sum()), int((column == -np.inf).sum())
        finite = column[np.isfinite(column)]
    if not len(finite):
        return Moments(above=above, below=below)
    mean = float(np.mean(finite))
    centred = finite - mean
    # Second-order correction for the rounding of the mean: the corrected two-pass algorithm (ibid.).
    residue = float(np.sum(centred))
    squares = float(np.dot(centred, centred)) - residue * residue / len(finite)
    mean += residue / len(finite)
    return Moments(len(finite), mean, max(0.0, squares), float(np.min(finite)), float(np.max(finite)), above, below)
