"""Drift: difference between a night's flows and a model's train rows, as population stability index.

The index compares shares of rows in bins, sum((a - e) · ln(a / e)) of actual and expected shares: Jeffreys' divergence
of the two histograms. By convention, below 0.1 is stable and above 0.25 significant (Siddiqi 2006, "Credit Risk
Scorecards", Wiley). Without drift it is about (B - 1) · (1/n + 1/m) for B bins, n and m rows, and distributed as
chi-square with B - 1 degrees of freedom times (1/n + 1/m) (Yurdakul 2018, "Statistical Properties of Population
Stability Index", Western Michigan University). Where it may reach 0.1 by chance, the level is `too_few_rows`.

Every row of a night is counted, without sampling. Vectorised comparisons of all values with nine edges take a fifth of
the time of a search for the bin of each value.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ids_spark.base.arrays import Counts, Floats
from ids_spark.features.moments import LARGEST

INDEX: Final = ("PSI", "population stability index")
"""Short and long name of the index, for pages."""
STABLE: Final = 0.1
SIGNIFICANT: Final = 0.25
BINS: Final = 10
_MIN_SHARE: Final = 0.01  # of rows in a bin, if several bins share the values between two point masses
# Relative: closer values count as equal, as logarithms differ in the last digits between computers.
_SAME: Final = 1e-10
_EDGE_DISTANCE: Final = 1e-3  # distance of an edge from a point mass, as share of the gap to the next value
_ROUNDING: Final = 1e-12  # relative error of the transform and its inverse
_RARE: Final = 0.001  # probability that an index exceeds the limit without drift
_BLOCK: Final = 65_536  # rows; one column of a block stays in the CPU cache for all edges


@dataclass(frozen=True)
class Histogram:
    """Histogram of one feature over train rows, in raw units.

    Attributes:
        name: Official name.
        edges: Inner edges of the bins, ascending; a value at an edge is in the upper bin.
        shares: Share of train rows in each bin, shape (len(edges) + 1,), sum 1; empty without train rows.
        low: Smallest finite train value.
        high: Largest finite train value.
        rows: Train rows from which the shares were computed.
    """

    name: str
    edges: tuple[float, ...]
    shares: tuple[float, ...]
    low: float
    high: float
    rows: int


@dataclass
class BinCounts:
    """Counts of flows by bin; counts of several parts of a night can be added.

    Attributes:
        rows: Flows counted.
        bins: Flows by bin, for each feature, shape (len(edges) + 1,).
        below: Flows below the train minimum, shape (features,).
        above: Flows above the train maximum, shape (features,).
        infinite: Flows among these that are infinite, shape (features,).
    """

    rows: int
    bins: list[Counts]
    below: Counts
    above: Counts
    infinite: Counts

    def add(self, other: "BinCounts") -> None:
        """Add the counts of another part of the night, of the same histograms."""
        self.rows += other.rows
        self.bins = [own + added for own, added in zip(self.bins, other.bins, strict=True)]
        self.below = self.below + other.below
        self.above = self.above + other.above
        self.infinite = self.infinite + other.infinite


def histogram_of(column: Floats, low: float, high: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return inner edges and shares of about 10 bins, as equally filled as the values allow.

    A value with at least as many rows as a bin should have is a point mass and gets a separate bin. The values between
    point masses share the remaining bins, each with about 1 % of the rows or more. So with 95 % zeros there are some
    bins for the other values, and two distinct values have two bins. An edge is in the middle between two values, but
    close to a point mass, so that a value that does not occur in train is not counted as the point mass.

    Args:
        column: A sample of train values, shape (rows,), finite.
        low: Smallest train value. It and `high` may be missing from the sample; next to a point mass they get a bin.
        high: Largest train value.

    Returns:
        Edges, ascending and distinct, in the units of the column, and shares with sum 1; a value at an edge is in the
        upper bin. A constant has one bin; without rows there is none.
    """
    if not len(column):
        return (), ()
    values, rows = np.unique(np.append(column, (low, high)), return_counts=True)
    np.subtract.at(rows, np.searchsorted(values, (low, high)), 1)
    sizes = np.abs(values)
    first = np.flatnonzero(np.append(True, np.diff(values) > _SAME * np.maximum(sizes[1:], sizes[:-1])))
    last, rows = np.append(first[1:] - 1, len(values) - 1), np.add.reduceat(rows, first)
    bins, mass = _binned(rows, len(column))
    edges = []
    for j in np.flatnonzero(np.diff(bins)) + 1:
        below, above = float(values[last[j - 1]]), float(values[first[j]])
        position = 0.5 if mass[j - 1] == mass[j] else _EDGE_DISTANCE if mass[j - 1] else 1.0 - _EDGE_DISTANCE
        edges.append(max(below + (above - below) * position, math.nextafter(below, math.inf)))
    return tuple(edges), tuple((_counts(column, edges) / len(column)).tolist())


def _binned(rows: Counts, total: int) -> tuple[Counts, NDArray[np.bool_]]:
    """Return the bin of each distinct value, and whether it is a point mass, given its rows, in order of value."""
    mass, bin_rows = np.zeros(len(rows), dtype=bool), total / BINS
    while (more := ~mass & (rows >= bin_rows)).any():  # point masses leave fewer rows to each bin of the rest
        mass |= more
        bin_rows = max((total - rows[mass].sum()) / max(1, BINS - mass.sum()), _MIN_SHARE * total)
    bins, used = np.zeros(len(rows), dtype=np.int64), 0
    starts = np.flatnonzero(np.append(True, mass[1:] | mass[:-1]))
    for start, end in zip(starts, np.append(starts[1:], len(rows)), strict=True):
        part = rows[start:end]
        part_bins = max(1, round(part.sum() / bin_rows)) if not mass[start] else 1
        middle = (np.cumsum(part) - part / 2) / max(1, part.sum())
        bins[start:end] = used + np.minimum((middle * part_bins).astype(np.int64), part_bins - 1)
        used += part_bins
    return bins, mass


def count_bins(histograms: Sequence[Histogram], values: Mapping[str, Floats]) -> BinCounts:
    """Count the flows of one part of a night by bin.

    Args:
        histograms: Histograms of the features to count.
        values: Raw columns by official name, each of shape (rows,), without NaN; an infinity is in the outermost bin.

    Raises:
        KeyError: when a column is missing.
    """
    found = BinCounts(0, [], *(np.zeros(len(histograms), dtype=np.int64) for _ in range(3)))
    for i, histogram in enumerate(histograms):
        column = values[histogram.name]
        found.rows = len(column)
        found.bins.append(_counts(column, histogram.edges))
        low, high = (end + side * _ROUNDING * abs(end) for end, side in ((histogram.low, -1), (histogram.high, 1)))
        found.below[i], found.above[i] = np.count_nonzero(column < low), np.count_nonzero(column > high)
        if found.below[i] or found.above[i]:
            found.infinite[i] = np.count_nonzero(np.abs(column) > LARGEST)
    return found


def _counts(column: Floats, edges: Sequence[float]) -> Counts:
    """Return the rows of each bin, shape (len(edges) + 1,)."""
    reached = np.zeros(len(edges) + 2, dtype=np.int64)
    reached[0] = len(column)
    mask = np.empty(min(_BLOCK, len(column)), dtype=bool)
    for start in range(0, len(column), _BLOCK):
        block = column[start : start + _BLOCK]
        for k, edge in enumerate(edges, 1):
            reached[k] += np.count_nonzero(np.greater_equal(block, edge, out=mask[: len(block)]))
    return reached[:-1] - reached[1:]


def psi(expected: Sequence[float], counts: Sequence[int] | Counts, expected_rows: int) -> float | None:
    """Return the population stability index of a histogram against expected shares.

    An empty bin would make it infinite, and a small constant share instead would determine the index. So half a row of
    the smaller side is added to every bin of both sides (as for a weight of evidence in SAS, PROC HPBIN,
    `WOEADJUST=0.5`): the effect of an empty bin depends on the number of rows, and equal shares give exactly 0.

    Args:
        expected: Shares, sum 1, shape (bins,).
        counts: Rows in the same bins.
        expected_rows: Rows of `expected`.

    Returns:
        At least 0; None where either side has no row.
    """
    e, c = np.asarray(expected, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    rows = float(c.sum())
    if not rows or not len(e) or expected_rows <= 0:
        return None
    half = 0.5 / min(rows, expected_rows)
    e, a = e + half, c / rows + half
    return float(((a - e) * np.log(a / e)).sum() / (1.0 + half * len(e)))


def drift_level(index: float | None, bins: int, rows: int, expected_rows: int) -> str:
    """Return the level of an index from `psi`: `stable`, `moderate` (0.1 to 0.25), `significant`, or `too_few_rows`.

    Rows are too few if, without drift, more than one index in 1,000 would exceed 0.1: for 10 bins and a large
    train split, fewer than 279 flows. This assumes independent flows; flows of one device are correlated.
    """
    if index is None or (bins > 1 and _chi_square(bins - 1) * (1 / rows + 1 / expected_rows) > STABLE):
        return "too_few_rows"
    return "stable" if index < STABLE else "moderate" if index <= SIGNIFICANT else "significant"


def _chi_square(degrees: int) -> float:
    """Return the value that a chi-square distribution exceeds with probability `_RARE`."""
    from scipy import special  # imported here, as only the driver needs it and tasks start faster without it

    return float(special.chdtri(degrees, _RARE))


def rows_of(counted: BinCounts, histograms: Sequence[Histogram], facts: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return rows of `drift/` of kind `feature`, in the order of the histograms.

    Args:
        counted: From `count_bins` with the same histograms, over all flows.
        histograms: Histograms of the features.
        facts: `model`, `model_version`, `run_id` and `data_origin`.
    """
    beyond = np.column_stack((counted.below, counted.above, counted.infinite)).tolist()
    return [
        _row("feature", h.name, h.shares, bins.tolist(), h.rows, h.edges, outside) | dict(facts)
        for h, bins, outside in zip(histograms, counted.bins, beyond, strict=True)
    ]


def class_mix_row(expected: Sequence[int], counts: Sequence[int], facts: Mapping[str, str]) -> dict[str, Any]:
    """Return the row of `drift/` of kind `class_mix`: predicted classes of the night against those of validation.

    Args:
        expected: Validation rows by predicted class, in the order of class ids.
        counts: The night's flows likewise.
        facts: As for `rows_of`.
    """
    total = sum(expected)
    shares = [n / total for n in expected] if total else []
    return _row("class_mix", f"predicted_class{len(counts)}", shares, [int(n) for n in counts], total) | dict(facts)


def _row(
    kind: str,
    name: str,
    expected: Sequence[float],
    counts: list[int],
    expected_rows: int,
    edges: Sequence[float] = (),
    beyond: Sequence[int] = (0, 0, 0),
) -> dict[str, Any]:
    index, rows = psi(expected, counts, expected_rows), sum(counts)
    level = drift_level(index, len(expected), rows, expected_rows)
    row = {"kind": kind, "name": name, "drift_index": index, "drift_level": level, "rows": rows}
    row |= dict(zip(("below_range", "above_range", "saturated"), beyond, strict=True))
    return row | {"edges": list(edges), "expected": list(expected), "counts": counts}
