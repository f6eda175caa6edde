"""Exact duplicates and label conflicts in a bucket of flows, compared as float64, sorted by row key and label."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ids_spark.base.arrays import Floats, Keys, Mask


@dataclass(frozen=True)
class DuplicateMarks:
    """Marks of rows that are equal to others.

    Attributes:
        duplicate: Every row but the first of those equal in features and label, shape (rows,).
        label_conflict: Rows of feature vectors with more than one label, duplicates included, shape (rows,).
    """

    duplicate: Mask
    label_conflict: Mask


def marks_of(keys: Keys, labels: NDArray[np.int32], columns: Sequence[Floats]) -> DuplicateMarks:
    """Mark duplicates and label conflicts; values are compared as float64, with 0.0 = -0.0 and infinity = infinity.

    Only rows with equal keys are compared, value by value: a hash collision costs time, but no row is lost.

    Args:
        keys: Row keys in sorted order, shape (rows,).
        labels: Class ids; sorted within equal keys, shape (rows,).
        columns: The features, each of shape (rows,), without NaN.

    Raises:
        ValueError: when rows with equal keys are not adjacent.
    """
    duplicate, label_conflict = np.zeros(len(keys), dtype=np.bool_), np.zeros(len(keys), dtype=np.bool_)
    if len(keys) < 2:
        return DuplicateMarks(duplicate, label_conflict)
    unsigned = keys.view(np.uint64)
    if (unsigned[1:] < unsigned[:-1]).any():
        raise ValueError("flows are not sorted by row key")
    same = np.r_[False, unsigned[1:] == unsigned[:-1]]
    candidates = np.flatnonzero(same | np.r_[same[1:], False])
    if not len(candidates):
        return DuplicateMarks(duplicate, label_conflict)
    vectors = pd.DataFrame({i: (column[candidates] + 0.0).view(np.int64) for i, column in enumerate(columns)})
    names = list(vectors.columns)
    vectors["label"] = labels[candidates]
    duplicate[candidates] = vectors.duplicated().to_numpy()
    group = vectors.groupby(names, sort=False)["label"]
    label_conflict[candidates] = (group.transform("min") != group.transform("max")).to_numpy()
    return DuplicateMarks(duplicate, label_conflict)
