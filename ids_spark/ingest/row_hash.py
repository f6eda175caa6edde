"""A 64-bit hash of the features of each row: it assigns rows to buckets of equal size and orders them reproducibly.

Equal vectors have equal keys on every machine and under every partitioning, so the key determines the bucket of equal
rows, the order of rows in it (a pseudo-random permutation) and whether a row is held out for validation. Unequal
vectors may have the same key (about n²/2⁶⁵ pairs among n), so the values are always compared, too.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ids_spark.base.arrays import Floats, Keys

# Multipliers of xxHash64 (Y. Collet, github.com/Cyan4973/xxHash, doc/xxhash_spec.md) and its step for 8-byte lanes.
_P1: Final = np.uint64(0x9E3779B185EBCA87)
_P2: Final = np.uint64(0xC2B2AE3D27D4EB4F)
_P3: Final = np.uint64(0x165667B19E3779F9)
_P4: Final = np.uint64(0x85EBCA77C2B2AE63)
_P5: Final = np.uint64(0x27D4EB2F165667C5)
_BLOCK: Final = 16_384  # rows; a block of every column fits in the cache of a core
_HELD_OUT_SALT: Final = np.uint64(0x51AFD7ED558CCD00)


def _rotate(x: NDArray[np.uint64], bits: int) -> None:
    low = x >> np.uint64(64 - bits)
    x <<= np.uint64(bits)
    x |= low


def _avalanche(h: NDArray[np.uint64]) -> NDArray[np.uint64]:
    h = (h ^ (h >> np.uint64(33))) * _P2
    h = (h ^ (h >> np.uint64(29))) * _P3
    return h ^ (h >> np.uint64(32))


def row_keys(columns: Sequence[Floats]) -> Keys:
    """Return one key for each row of `columns` (each of shape (rows,), without NaN); 0.0 and -0.0 are equal.

    Raises:
        ValueError: when there is no column.
    """
    if not columns:
        raise ValueError("row_keys needs at least one column")
    keys = np.full(len(columns[0]), _P5 + np.uint64(8 * len(columns)), dtype=np.uint64)
    for start in range(0, len(keys), _BLOCK):
        h = keys[start : start + _BLOCK]
        for column in columns:
            values = column[start : start + _BLOCK]
            if values[0] == values[-1] and (values == values[0]).all():  # in half of the columns of most files
                values = values[:1]
            lane = (values + 0.0).view(np.uint64)  # adding 0.0 turns -0.0 into 0.0
            lane *= _P2
            _rotate(lane, 31)
            lane *= _P1
            h ^= lane
            _rotate(h, 27)
            h *= _P1
            h += _P4
    return _avalanche(keys).view(np.int64)


def buckets(keys: Keys, count: int) -> NDArray[np.int64]:
    """Return the bucket of each key, 0 … count-1; buckets are about equal in size and ordered as by `order_of`.

    Args:
        keys: From `row_keys`.
        count: At most 2³¹.
    """
    high = keys.view(np.uint64) >> np.uint64(32)
    return ((high * np.uint64(count)) >> np.uint64(32)).astype(np.int64)


def order_of(keys: Keys, *ties: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return the permutation that sorts rows by key (as unsigned), then by `ties`, first tie first; it is stable.

    Keys that consist of sorted runs take less time.
    """
    unsigned = keys.view(np.uint64)
    order: NDArray[np.int64] = np.argsort(unsigned, kind="stable")
    ordered = unsigned[order]
    same = ordered[1:] == ordered[:-1]
    if ties and same.any():
        tied = np.flatnonzero(np.r_[False, same] | np.r_[same, False])
        rows = order[tied]
        order[tied] = rows[np.lexsort((*(tie[rows] for tie in reversed(ties)), unsigned[rows]))]
    return order


def sampled(keys: Keys, share: float) -> NDArray[np.bool_]:
    """Return which rows belong to a sample of about a share of all vectors; independent of `held_out`."""
    return keys.view(np.uint64).astype(np.float64) * 2.0**-64 < share


def held_out(keys: Keys, share: float) -> NDArray[np.bool_]:
    """Return which rows belong to the validation split: a share of all vectors, equal vectors always together.

    Independent of `buckets` and `order_of`: the key is mixed once more with a salt.
    """
    mixed = _avalanche(keys.view(np.uint64) ^ _HELD_OUT_SALT) >> np.uint64(11)
    return mixed.astype(np.float64) * 2.0**-53 < share
