"""Which cells of local nights hold more rows that resemble attacks than chance and their device explain.

A cell is a place and a category; a place is a device in a window of time. The number K of such rows is compared with
what the rate of the category over all places gives, and with the device's own rate in other groups (nights): what
recurs there is how the device is. K is negative binomial, as in `alerts.false_alarms`, with a gamma prior of shape
`_SHAPE` for the device's rate. Cells found are left out when rates are estimated again. Pure functions on numpy arrays.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from ids_spark.alerts.false_alarms import reached
from ids_spark.base.arrays import Floats, Ints, Mask

ALPHA: Final = 1e-3
"""Highest p-value of a suspicious cell."""
_SHAPE: Final = 2.0
_FEWEST: Final = 3  # rows of a suspicious cell
_ROUNDS: Final = 3


@dataclass(frozen=True)
class Places:
    """Places of local rows.

    Attributes:
        device: Number of its device, shape (places,).
        group: Number of its group, shape (places,).
        rows: Its rows, shape (places,).
        found: Rows that resemble an attack, by category; shape (places, G).
    """

    device: Ints
    group: Ints
    rows: Ints
    found: Ints


def suspicious(places: Places) -> Mask:
    """Return which cells hold more rows that resemble attacks than expected; shape (places, G)."""
    suspects = np.zeros(places.found.shape, dtype=np.bool_)
    for _ in range(_ROUNDS):
        before, suspects = suspects, (_p_values(places, suspects) <= ALPHA) & (places.found >= _FEWEST)
        if (before == suspects).all():
            break
    return suspects


def _p_values(places: Places, left_out: Mask) -> Floats:
    """Return the p-value of each cell, shape (places, G), given cells that do not count for rates."""
    found = places.found.astype(np.float64)
    kept, rows = np.where(left_out, 0, found), np.where(left_out, 0, places.rows[:, np.newaxis]).astype(np.float64)
    rate = (kept.sum(axis=0) + 0.5) / np.maximum(rows.sum(axis=0), 1)
    night = np.unique(np.column_stack([places.device, places.group]), axis=0, return_inverse=True)[1].ravel()
    elsewhere = [_sums(values, places.device) - _sums(values, night) for values in (kept, rows)]
    shape = _SHAPE + np.maximum(elsewhere[0], 0)
    mean = places.rows[:, np.newaxis] * rate * shape / (_SHAPE + np.maximum(elsewhere[1], 0) * rate)
    return reached(found, shape, mean)


def _sums(values: Floats, of: Ints) -> Floats:
    """Return for each row the sum of the rows with its number, by column."""
    sums = np.zeros((int(of.max(initial=-1)) + 1, values.shape[1]))
    np.add.at(sums, of, values)
    return sums[of]
