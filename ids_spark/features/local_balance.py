"""How much each row of local nights weighs in training beside the others: less in a large group than in a small one.

A group is a device, or a source file where rows name no device. A row of a group of n train rows weighs n ** -1/2, so
that a group weighs as much as the square root of its rows: a device with a thousand times the flows of another one
counts 32 times as much. The share of all local rows together is `train.local_weight`.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from ids_spark.base.arrays import Ints, Keys

_MOST_RELATIVE: Final = 10.0
"""Most that a row weighs, about, in terms of the mean local row, so that a few rows do not decide alone."""


@dataclass(frozen=True)
class Balance:
    """Groups of local train rows.

    Attributes:
        groups: Their keys, ascending, shape (G,).
        rows: Train rows of each of them, shape (G,).
    """

    groups: Keys
    rows: Ints

    @staticmethod
    def of_groups(groups: Keys) -> "Balance":
        """Count rows; groups: of each train row, shape (rows,)."""
        found, rows = np.unique(groups, return_counts=True)
        return Balance(found, rows.astype(np.int64))

    @property
    def fewest(self) -> int:
        """Rows that each group is taken to have at least."""
        mean_weight = np.sqrt(self.rows).sum() / max(1, self.rows.sum())
        return max(1, round(float(_MOST_RELATIVE * mean_weight) ** -2)) if len(self.rows) else 1

    def rows_of(self, groups: Keys) -> Ints:
        """Return for each row how many train rows its group has, at least `fewest`; also if it has none."""
        found = np.full(len(groups), self.fewest, dtype=np.int64)
        if len(self.groups):
            at = np.minimum(np.searchsorted(self.groups, groups), len(self.groups) - 1)
            found = np.where(self.groups[at] == groups, np.maximum(self.rows[at], found), found)
        return found

    @property
    def total(self) -> float:
        """Sum of the weights of all train rows, where a row of a group of n rows weighs n ** -1/2."""
        return float((self.rows / np.sqrt(np.maximum(self.rows, self.fewest))).sum())
