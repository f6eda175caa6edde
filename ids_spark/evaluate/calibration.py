"""Calibration of a model: how often it is right when it is sure.

Expected calibration error (Naeini, Cooper, Hauskrecht 2015, AAAI 29:2901; with 15 bins: Guo et al. 2017, PMLR 70:1321):
rows are put into bins of equal width of their highest probability, each open at its lower end; the mean over rows of
the difference between the share of right predictions in the bin and the mean of the probability. Of a perfect model it
is still above 0, as shares of few rows vary, and in every bootstrap sample it is higher by the same cause. So the draws
are shifted to the mean of the measured value: the interval shows the spread.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from ids_spark.base.arrays import Counts, Floats
from ids_spark.evaluate import bootstrap
from ids_spark.evaluate.metrics import ratio, row_of
from ids_spark.evaluate.score_counts import CONFIDENCE_CELLS, CONFIDENCE_UNIT

BINS: Final = 15
ERROR: Final = "expected_calibration_error"
CONFIDENCE: Final = "mean_confidence_{:02d}"
RIGHT: Final = "accuracy_at_confidence_{:02d}"


def calibration_of(confidence: Counts, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Yield rows of `metrics/`: the error, and of each bin with rows its mean probability and its share of right rows.

    Args:
        confidence: Of `ScoreCounts.confidences`.
        rng: Source of random numbers for the intervals.
    """
    rows, sums = confidence
    if not rows.sum():
        return
    means = ratio(sums * CONFIDENCE_UNIT, rows, 0.0)
    drawn = bootstrap.draws_of(rows, rng)
    error, shares, confidences = _calibration(rows, means)
    errors, drawn_shares, _ = _calibration(drawn, means)
    shifted = np.maximum(errors - errors.mean() + error, 0.0)
    yield row_of(None, ERROR, error, int(rows.sum()), shifted)
    for i, support in enumerate(_bins(rows.sum(axis=-1))):
        if support:
            yield row_of(None, CONFIDENCE.format(i + 1), confidences[i], int(support))
            yield row_of(None, RIGHT.format(i + 1), shares[i], int(support), drawn_shares[:, i])


def _calibration(rows: Counts, means: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the error, shape (…), and the share of right rows and the mean probability, shape (…, BINS)."""
    found = _bins(rows.sum(axis=-1))
    right, sums = _bins(rows[..., 1]), _bins((rows * means).sum(axis=-1))
    error: Floats = np.abs(right - sums).sum(axis=-1) / found.sum(axis=-1)
    return error, ratio(right, found), ratio(sums, found)


def _bins(cells: Any) -> Any:
    """Return sums over the cells of each bin, shape (…, BINS)."""
    return cells.reshape(*cells.shape[:-1], BINS, CONFIDENCE_CELLS // BINS).sum(axis=-1)
