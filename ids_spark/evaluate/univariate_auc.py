"""Univariate AUC: how well one feature separates two classes, by order and by ranges of its values."""

from typing import Final

import numpy as np

from ids_spark.base.arrays import Counts, Floats

_MAX_RANGES: Final = 256
_ROWS_PER_RANGE: Final = 20
_SEED: Final = 7


def order_auc(a: Floats, b: Floats) -> float:
    """Return the area under the ROC curve of the raw value as score, max(AUC, 1 - AUC), in [0.5, 1].

    Exact, from ranks: the share of pairs (x of a, y of b) with x > y, ties half (Mann, Whitney 1947, "On a test of
    whether one of two random variables is stochastically larger than the other", Ann. Math. Statist. 18:50).

    Args:
        a: Values of one class, sorted, without NaN, at least one; an infinity is larger than every number.
        b: Values of the other class, with the same properties.
    """
    below = int(np.searchsorted(b, a, side="left").sum()) + int(np.searchsorted(b, a, side="right").sum())
    pairs = 2 * len(a) * len(b)
    return max(below, pairs - below) / pairs  # integers up to here, so that swapping the classes gives the same value


def range_auc(a: Floats, b: Floats) -> float:
    """Return the AUC of a score by ranges of the value, as a tree or a deep network can learn it.

    The AUC by order is low if the values of one class are between those of the other, such as a capture day in `IAT`.
    The pooled values are divided into at most 256 ranges of about equal size, never between equal values. The score of
    a range is the class ratio in one random half of the rows, its AUC is computed on the other half, and the two
    results are averaged. So a feature without information gives 0.5 up to sampling error, possibly slightly less.

    Args:
        a: As in `order_auc`.
        b: As in `order_auc`.
    """
    pooled = np.sort(np.concatenate((a, b)))
    ranges = max(2, min(_MAX_RANGES, len(pooled) // _ROWS_PER_RANGE))
    edges = np.unique(pooled[np.arange(1, ranges) * len(pooled) // ranges])
    halves = np.random.default_rng(_SEED)
    counts = [[_histogram(part, edges) for part in _halved(values, halves)] for values in (a, b)]
    (a_first, a_second), (b_first, b_second) = counts
    if not min(counts_of.sum() for pair in counts for counts_of in pair):
        return 0.5  # a class with one row has an empty half
    return (
        _auc_of_ranges(a_first, b_first, a_second, b_second) + _auc_of_ranges(a_second, b_second, a_first, b_first)
    ) / 2


def _halved(values: Floats, generator: np.random.Generator) -> tuple[Floats, Floats]:
    first = generator.permutation(len(values)) % 2 == 0
    return values[first], values[~first]


def _histogram(values: Floats, edges: Floats) -> Counts:
    # side="right": an edge is the lowest value of its range, so equal values are in the same range
    return np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)


def _auc_of_ranges(a_known: Counts, b_known: Counts, a: Counts, b: Counts) -> float:
    share_a, share_b = (a_known + 0.5) / a_known.sum(), (b_known + 0.5) / b_known.sum()
    _, score = np.unique(share_a / (share_a + share_b), return_inverse=True)
    a_at, b_at = np.bincount(score, a), np.bincount(score, b)
    b_below = np.cumsum(b_at) - b_at
    return float((a_at * (b_below + b_at / 2)).sum() / (a.sum() * b.sum()))
