"""Second detector, for attacks of no class in training: the distance of a flow from the benign train rows.

The distance is Mahalanobis', sqrt((x - m)' C^-1 (x - m)), over features in units of their benign standard deviation,
cut at ±30, with a covariance C shrunk as in Ledoit, Wolf 2004 (doi 10.1016/S0047-259X(03)00096-4). Only flows below the
network's operating point are tested, and the rates are shares of all benign rows.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from ids_spark.base.arrays import Floats, Floats32, Ints, Mask
from ids_spark.base.npz import read_npz

_CUT: Final = 30.0  # benign standard deviations
_LEAST_SCALE: Final = (
    1e-3  # of a feature's standard deviation over train rows: of features that benign rows do not vary
)
_LEAST_VARIANCE: Final = 1e-3  # added in every direction, so that float32 rounding is no distance
_ROWS_PER_FEATURE: Final = 2  # fewest rows to fit
_LARGEST: Final = 1e6  # of a stored number, so that no square exceeds float32
_TAIL: Final = 2_000, 0.01  # the larger of these is stored: rows, share of the benign validation rows
_BLOCK: Final = 1_024  # rows whose features remain in the cache of a core


@dataclass(frozen=True, eq=False)
class Novelty:
    """Distance from benign train rows, and its benign tail on validation rows.

    Attributes:
        centre: Mean of each scaled feature over benign train rows, shape (n_features,).
        scale: Its standard deviation, at least a small number, shape (n_features,).
        whitening: Matrix that turns centred features into those whose Euclidean norm is the distance, shape
            (n_features, n_features).
        rows: Benign validation rows it was calibrated on; 0: none, so that no level is reached.
        tail: The largest distances of those that lie below the network's operating point, descending: the larger of
            2,000 and a hundredth of `rows`, or all if there are fewer.
    """

    centre: Floats32
    scale: Floats32
    whitening: Floats32
    rows: int
    tail: Floats32

    def distances(self, matrix: Floats32) -> Floats32:
        """Return the distance of each row, shape (rows,); finite for finite input.

        Args:
            matrix: Scaled features in the order of the model's input, shape (rows, n_features).
        """
        found = np.empty(len(matrix), dtype=np.float32)
        factor = np.float32(1) / self.scale
        with np.errstate(over="ignore"):  # an infinite value is cut as well
            for start in range(0, len(matrix), _BLOCK):
                block = matrix[start : start + _BLOCK] - self.centre
                block *= factor
                np.maximum(block, np.float32(-_CUT), out=block)
                np.minimum(block, np.float32(_CUT), out=block)
                white = block @ self.whitening
                np.einsum("ij,ij->i", white, white, out=found[start : start + _BLOCK])
        return np.sqrt(found, out=found)

    def calibrated(self, distances: Floats32, below: Mask) -> "Novelty":
        """Return this detector with the benign tail of validation rows.

        Args:
            distances: Of every benign validation row, shape (rows,).
            below: Which of them lie below the network's operating point, shape (rows,).
        """
        tail = np.sort(distances[below])[::-1][: _stored(len(distances))]
        return replace(self, rows=len(distances), tail=np.ascontiguousarray(tail))

    def levels(self, rates: Sequence[float]) -> Floats:
        """Return for each benign rate the distance that at most this share of the benign rows reach, shape (rates,).

        The rate is a share of all benign rows, flagged by the network or not. Rows at equal distances reach a level
        together, which may be more of them (`counts`). It is infinite where the rate is less than one validation row.
        A rate above the stored share gives its lowest distance.
        """
        wanted = [min(math.floor(rate * self.rows + 1e-9), len(self.tail)) for rate in rates]
        return np.array([float(self.tail[k - 1]) if k > 0 else math.inf for k in wanted])

    def counts(self, thresholds: Floats) -> Ints:
        """Return the benign validation rows at or above each threshold of `levels`, shape (thresholds,)."""
        reaching: Ints = np.searchsorted(-self.tail.astype(np.float64), -thresholds, side="right").astype(np.int64)
        return reaching

    def to_bytes(self) -> bytes:
        """Return the detector as an `.npz` file of plain arrays."""
        packed = io.BytesIO()
        np.savez(
            packed,
            centre=self.centre,
            scale=self.scale,
            whitening=self.whitening,
            rows=np.array(self.rows, dtype=np.int64),
            tail=self.tail,
        )
        return packed.getvalue()


def least_rows(n_features: int) -> int:
    """Return the fewest benign train rows that a detector is fitted on."""
    return _ROWS_PER_FEATURE * n_features


def fit(benign: Floats32) -> Novelty | None:
    """Return a detector, not calibrated yet; None with fewer than `least_rows` rows.

    Args:
        benign: Scaled features of benign train rows, shape (rows, n_features), finite.
    """
    if len(benign) < least_rows(benign.shape[1]):
        return None
    rows = benign.astype(np.float64)
    centre, scale = rows.mean(axis=0), rows.std(axis=0) + _LEAST_SCALE
    rows = np.clip((rows - centre) / scale, -_CUT, _CUT)
    covariance = ledoit_wolf(rows) + _LEAST_VARIANCE * np.eye(rows.shape[1])
    variances, directions = np.linalg.eigh(covariance)
    whitening = directions / np.sqrt(np.maximum(variances, _LEAST_VARIANCE))
    m, s, w = (array.astype(np.float32) for array in (centre, scale, whitening))
    found = Novelty(m, s, w, rows=0, tail=np.empty(0, dtype=np.float32))
    return None if _fault(found) else found


def ledoit_wolf(rows: Floats) -> Floats:
    """Return the covariance shrunk towards a multiple of the identity by Ledoit and Wolf's estimate of the best weight.

    Args:
        rows: Shape (rows, n_features), at least one row.
    """
    n, p = rows.shape
    centred = rows - rows.mean(axis=0)
    sample = centred.T @ centred / n
    mean_variance = np.trace(sample) / p
    target = mean_variance * np.eye(p)
    distance = float(((sample - target) ** 2).sum())
    squares = centred**2
    error = float((squares.T @ squares / n - sample**2).sum()) / n
    weight = min(error, distance) / distance if distance else 0.0
    shrunk: Floats = weight * target + (1 - weight) * sample
    return shrunk


def from_bytes(content: bytes) -> Novelty:
    """Return the detector that `to_bytes` wrote.

    Raises:
        ValueError: it is not such a file, or its numbers contradict each other.
    """
    arrays = read_npz(content)
    expected = {"centre": 1, "scale": 1, "whitening": 2, "rows": 0, "tail": 1}
    if {name: array.ndim for name, array in arrays.items()} != expected:
        raise ValueError(f"arrays {sorted(arrays)[:8]} of another number or shape; expected {', '.join(expected)}")
    rows = arrays.pop("rows")
    if rows.dtype != np.int64 or any(array.dtype != np.float32 for array in arrays.values()):
        raise ValueError("an array is of another type; expected rows as int64, the others as float32")
    found = Novelty(**{name: array.astype(np.float32) for name, array in arrays.items()}, rows=int(rows))
    if fault := _fault(found):
        raise ValueError(fault)
    return found


def _fault(found: Novelty) -> str:
    """Return what is wrong with the numbers of a detector; empty if nothing."""
    n, tail = len(found.centre), found.tail
    if not n or found.scale.shape != (n,) or found.whitening.shape != (n, n):
        return f"{n} centres, {len(found.scale)} scales and a whitening of shape {found.whitening.shape} do not fit"
    arrays = (found.centre, found.scale, found.whitening, tail)
    if not all(np.isfinite(array).all() for array in arrays) or np.abs(found.whitening).max() > _LARGEST:
        return f"its numbers are not finite, or a weight is beyond ±{_LARGEST:g}"
    if found.scale.min() < _LEAST_SCALE / 2 or np.abs(found.centre).max() > np.finfo(np.float32).max / 2:
        return f"a scale is below {_LEAST_SCALE / 2:g}, or a centre too large"
    if found.rows < 0 or len(tail) > min(found.rows, _stored(found.rows)):
        return f"{len(tail)} distances do not fit {found.rows} benign validation rows"
    if len(tail) and (tail[-1] < 0 or (np.diff(tail) > 0).any()):
        return "its distances are negative or not descending"
    return ""


def _stored(rows: int) -> int:
    """Return how many distances of the tail of `rows` benign rows are stored at most."""
    least, share = _TAIL
    return max(least, math.ceil(share * rows))
