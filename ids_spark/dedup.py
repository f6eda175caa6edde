"""Exact duplicates and two-label vectors in a bucket of flows, in double, sorted by row key and label."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ids_spark.row_hash import Floats, Keys

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Distinct:
    """What is left of a bucket.

    Attributes:
        keep: Which rows stay, shape (rows,): the first of each distinct (features, label).
        two_label_vectors: Distinct feature vectors that carry more than one label among the kept rows.
        two_label_rows: Kept rows of those vectors; they all stay.
    """

    keep: Mask
    two_label_vectors: int
    two_label_rows: int


def distinct(keys: Keys, labels: NDArray[np.int32], columns: Sequence[Floats]) -> Distinct:
    """Find the rows to keep; equality is that of doubles, with 0.0 = -0.0 and infinity equal to itself.

    Only rows that share a key are compared, and they are compared value by value: a hash collision costs time, never a row.

    Args:
        keys: Row keys in sorted order, shape (rows,).
        labels: Class ids; sorted within equal keys, shape (rows,).
        columns: The features, each of shape (rows,), without NaN.

    Raises:
        ValueError: when equal keys do not stand together.
    """
    keep = np.ones(len(keys), dtype=np.bool_)
    if len(keys) < 2:
        return Distinct(keep, 0, 0)
    unsigned = keys.view(np.uint64)
    if (unsigned[1:] < unsigned[:-1]).any():
        raise ValueError("flows are not sorted by row key")
    same = np.r_[False, unsigned[1:] == unsigned[:-1]]
    candidates = np.flatnonzero(same | np.r_[same[1:], False])
    if not len(candidates):
        return Distinct(keep, 0, 0)
    vectors = pd.DataFrame({i: (column[candidates] + 0.0).view(np.int64) for i, column in enumerate(columns)})
    names = list(vectors.columns)
    vectors["label"] = labels[candidates]
    repeated = vectors.duplicated().to_numpy()
    keep[candidates[repeated]] = False
    rows_of_vector = vectors[~repeated].groupby(names, sort=False).size()
    several = rows_of_vector[rows_of_vector > 1]
    return Distinct(keep, len(several), int(several.sum()))
