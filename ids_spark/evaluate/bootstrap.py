"""Intervals by a bootstrap over rows (Efron 1979, doi 10.1214/aos/1176344552), computed from counts of rows.

A sample of n of n rows with replacement has multinomial counts in any cells that the rows are in, so a draw costs as
much as there are cells, whatever the number of rows. Intervals are percentiles. Where all rows agree, an interval has
no width: it says what another sample of such rows would give, not what rarer rows would.
"""

from typing import Final

import numpy as np

from ids_spark.base.arrays import Counts, Floats

DRAWS: Final = 1_000
_ENDS: Final = (0.025, 0.975)


def draws_of(counts: Counts, rng: np.random.Generator, rows: int | Counts | None = None) -> Counts:
    """Return `DRAWS` bootstrap samples of cells with so many rows, shape (DRAWS, *counts.shape).

    Args:
        counts: Rows in each cell, any shape; at least one row, or all draws are 0.
        rng: Source of random numbers.
        rows: Rows of a sample, or of each of the samples; default: as many as there are.
    """
    flat = counts.ravel()
    drawn = np.zeros((DRAWS, flat.size), dtype=np.int64)
    used = np.flatnonzero(flat)
    if len(used):
        total = flat.sum()
        drawn[:, used] = rng.multinomial(total if rows is None else rows, flat[used] / total, size=DRAWS)
    return drawn.reshape(DRAWS, *counts.shape)


def interval(values: Floats) -> tuple[Floats, Floats]:
    """Return the lower and upper end of the 95 % interval over the first axis; draws that are NaN are left out.

    Args:
        values: Shape (DRAWS, …). Ends are NaN where all draws are.
    """
    if not np.isnan(values).any():
        low, high = np.quantile(values, _ENDS, axis=0)
        return low, high
    flat = values.reshape(len(values), -1)
    ends = np.full((2, flat.shape[1]), np.nan)
    for i, column in enumerate(flat.T):
        known = column[~np.isnan(column)]
        if len(known):
            ends[:, i] = np.quantile(known, _ENDS)
    low, high = ends.reshape(2, *values.shape[1:])
    return low, high
