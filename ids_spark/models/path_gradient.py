"""The mean gradient of a function on straight lines: what integrated gradients multiply differences with."""

from collections.abc import Callable
from typing import Final

import numpy as np

from ids_spark.base.arrays import Floats

_POINTS: Final = 256
"""Of the midpoint rule. Margins of a flow and of the baseline differ by up to 30, and a softmax of them moves within
less than 1."""
_ROWS: Final = 64  # at once, for memory


def mean_gradient(gradient: Callable[[Floats], Floats], start: Floats, ends: Floats) -> Floats:
    """Return the mean gradient between `start` and each of `ends`; its product with the difference is that of values.

    Args:
        gradient: Of a function of n variables: maps shape (..., n) to the same shape.
        start: Shape (1, n).
        ends: Shape (rows, n).
    """
    found = np.empty_like(ends)
    shares = ((np.arange(_POINTS) + 0.5) / _POINTS)[:, np.newaxis, np.newaxis]
    for first in range(0, len(ends), _ROWS):
        own = slice(first, first + _ROWS)
        found[own] = gradient(start + shares * (ends[own] - start)).mean(axis=0)
    return found
