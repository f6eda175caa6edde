"""Samples of known rows, and how near other rows are to them: attacks and benign rows of the data set, local rows.

Distances are Euclidean, over features scaled as the model's and compressed by sign(z) · log(1 + 3 |z|), so that a
heavy tail does not decide. The nearest row is found in each of `_CHUNKS` random parts of a sample, and the logarithms
of these distances are averaged: a single attack among local rows is in one part only. Pure functions on numpy arrays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ids_spark.base.arrays import Floats, Floats32, Ids, Ints

_CHUNKS: Final = 3
_COMPRESSION: Final = 3.0
_CUT: Final = 30.0  # standard deviations; beyond, differences say nothing
_NEAREST: Final = 0.01  # added to distances, so that equal rows have a logarithm
_BLOCK: Final = 1_024  # rows whose distances to a sample are in memory at once
_FEWEST: Final = 10  # rows of a class from which its own distances are used


def compressed(matrix: Floats32) -> Floats32:
    """Return scaled features in the units of the distance, shape (rows, n_features), finite."""
    cut = np.clip(matrix, -_CUT, _CUT)
    found: Floats32 = (np.sign(cut) * np.log1p(np.float32(_COMPRESSION) * np.abs(cut))).astype(np.float32)
    return found


@dataclass(frozen=True)
class Sample:
    """Rows in the units of the distance, in random order.

    Attributes:
        factors: Matrix of which the product with a row and a 1 is the squared distance but for the row's own square;
            shape (n_features + 1, rows), rows a multiple of `_CHUNKS`.
    """

    factors: Floats32

    @staticmethod
    def of(rows: Floats32) -> "Sample":
        """Return the sample of some rows; the last of them are left out if they fill no chunk."""
        kept = rows[: len(rows) // _CHUNKS * _CHUNKS]
        return Sample(np.concatenate([-2 * kept.T, np.square(kept).sum(axis=1)[np.newaxis]]).astype(np.float32))

    def log_distances(self, rows: Floats32) -> Floats:
        """Return the mean logarithm of the distances from the nearest rows, shape (rows,); infinite without any."""
        found = np.full(len(rows), np.inf)
        if not self.factors.shape[1]:
            return found
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            with_one = np.concatenate([block, np.ones((len(block), 1), dtype=np.float32)], axis=1)
            lowest = (with_one @ self.factors).reshape(len(block), _CHUNKS, -1).min(axis=2)
            squares = np.maximum(lowest + np.square(block).sum(axis=1)[:, np.newaxis], 0)
            found[start : start + _BLOCK] = np.log(np.sqrt(squares, dtype=np.float64) + _NEAREST).mean(axis=1)
        return found


@dataclass(frozen=True)
class Known:
    """What is known before local rows are reviewed.

    Attributes:
        attacks: Attack rows of the data set, the same number of each class where there are enough.
        benign: Its benign rows.
        folds: Local rows without those of each fold of groups.
        near: Distance from other attacks that a share `NEAR` of the attack rows of each class keep; shape (classes,).
        typical: The same for the share `TYPICAL`.
        far: Distance from everything known beyond which hardly any local row of the sample is.
    """

    attacks: Sample
    benign: Sample
    folds: tuple[Sample, ...]
    near: Floats
    typical: Floats
    far: float


NEAR: Final = 0.95
TYPICAL: Final = 0.25
_FAR_SHARE: Final = 0.999  # of the local rows of the sample
_FAR_FACTOR: Final = 2.0  # times as far as those


def known(
    attacks: Floats32, classes_of: Ids, benign: Floats32, local: Floats32, fold_of: Ints, folds: int, classes: int
) -> Known:
    """Return what is known.

    Args:
        attacks: Attack rows of the data set, in the units of the distance, in random order.
        classes_of: Class of each, at the level of the model.
        benign: Benign rows of the data set.
        local: Local rows.
        fold_of: Fold of the group of each local row.
        folds: Number of folds.
        classes: Number of classes of the model.
    """
    samples = tuple(Sample.of(local[fold_of != fold]) for fold in range(folds))
    of_benign = Sample.of(benign)
    distances = np.minimum(of_benign.log_distances(local), _others(samples, local, fold_of))
    finite = distances[np.isfinite(distances)]
    far = float(np.quantile(finite, _FAR_SHARE)) + np.log(_FAR_FACTOR) if len(finite) else np.inf
    near, typical = _between_attacks(attacks, classes_of, classes, (NEAR, TYPICAL))
    return Known(Sample.of(attacks), of_benign, samples, near, typical, far)


def _others(samples: Sequence[Sample], rows: Floats32, fold_of: Ints) -> Floats:
    """Return the distance of each row from the local rows of other folds, shape (rows,)."""
    found = np.full(len(rows), np.inf)
    for fold in np.unique(fold_of):
        own = fold_of == fold
        found[own] = samples[fold].log_distances(rows[own])
    return found


@dataclass(frozen=True)
class Distances:
    """Distances of some rows, as logarithms; shape (rows,) each.

    Attributes:
        attacks: From attacks of the data set.
        normal: From its benign rows or from local rows of other groups, whichever are nearer.
    """

    attacks: Floats
    normal: Floats

    @property
    def likeness(self) -> Floats:
        """How much nearer attacks are than what is normal, as a logarithm of the ratio; NaN if nothing is known."""
        with np.errstate(invalid="ignore"):
            return self.normal - self.attacks


def distances_of(rows: Floats32, fold_of: Ints, what: Known) -> Distances:
    """Return the distances of rows, in the units of the distance, each without the local rows of its own fold."""
    normal = np.minimum(what.benign.log_distances(rows), _others(what.folds, rows, fold_of))
    return Distances(what.attacks.log_distances(rows), normal)


def _between_attacks(attacks: Floats32, classes_of: Ids, classes: int, shares: Sequence[float]) -> list[Floats]:
    """Return quantiles of the distances of one half of the attack rows from the other, for each class."""
    half = np.arange(len(attacks)) % 2 == 0
    if half.all():
        return [np.full(classes, np.inf) for _ in shares]
    found, own = Sample.of(attacks[~half]).log_distances(attacks[half]), classes_of[half]
    of_class = [found[own == i] if np.count_nonzero(own == i) >= _FEWEST else found for i in range(classes)]
    return [np.array([np.quantile(values, share) for values in of_class]) for share in shares]
