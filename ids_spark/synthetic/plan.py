"""Plan of a synthetic data set: file sizes, planted vectors and near-duplicates, determined by scale and seed.

Rows of a file form pairs (0, 1), (2, 3), …. A planted vector replaces one row of a pair, that of its own parity,
because the parity of a row determines the state of the packet counter in 10-packet windows; no pair is used twice.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from ids_spark.base.arrays import Ints
from ids_spark.base.errors import InputError
from ids_spark.dataset import taxonomy
from ids_spark.dataset.features import SOURCE_SPLITS
from ids_spark.synthetic import distributions
from ids_spark.synthetic.distributions import FLOOD_PREFIXES
from ids_spark.synthetic.sampler import ID_BITS

# Counted on CICIoMT2024: rows that deduplication on features and label removes, in double and single precision.
_DUPLICATES: Final = {"train": 5_119, "test": 2_065}
_SINGLE_DUPLICATES: Final = {"train": 2_645_751, "test": 721_914}
_IN_BOTH_SPLITS: Final = 195
# Not counted on the whole data set; a sample of the second release has 412 and 93 among 64,261 rows.
_LABEL_CONFLICTS: Final = {"train": 48, "test": 24}
_CONFLICT_CLASSES: Final = ("Recon-OS_Scan", "Recon-Port_Scan")  # the same tool with different options
_VECTORS_PER_DUPLICATE: Final = 0.75  # below 1, so that some vectors occur three times


@dataclass(frozen=True)
class Pool:
    """Vectors that occur in several rows; drawn together, so that every file draws the same vectors.

    Attributes:
        name: Part of the random seed.
        class19: Class whose distributions are used.
        size: Number of vectors.
        first_id: Number of the first vector; vector i has number first_id + i and parity i mod 2.
    """

    name: str
    class19: str
    size: int
    first_id: int


@dataclass(frozen=True)
class Planted:
    """Vectors of a pool in one file: vector `vectors[i]` at row `rows[i]`."""

    pool: Pool
    rows: Ints
    vectors: Ints


@dataclass
class FilePlan:
    """One file of the data set.

    Attributes:
        split: `train` or `test`.
        name: Official name without ending, such as `Benign_train`.
        class19: Class of its rows.
        rows: Row count.
        first_id: Number of its first row; every row of the data set has a different number.
        near: Rows that equal another row of the file in single precision.
        planted: Vectors of pools in this file.
    """

    split: str
    name: str
    class19: str
    rows: int
    first_id: int
    near: int = 0
    planted: list[Planted] = field(default_factory=list)


@dataclass(frozen=True)
class DatasetPlan:
    """The whole data set.

    Attributes:
        files: In official order.
        duplicates: For each split the rows that exact deduplication on features and class removes.
        label_conflicts: For each split the vectors that occur once in each of two classes.
        in_both_splits: Vectors that occur once in train and once in test, in one class.
        near_duplicates: For each split the planned near-duplicates.
    """

    files: tuple[FilePlan, ...]
    duplicates: dict[str, int]
    label_conflicts: dict[str, int]
    in_both_splits: int
    near_duplicates: dict[str, int]


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return a random generator that depends on the seed and the names only."""
    words = [zlib.crc32(str(name).encode()) for name in names]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *words])))


def plan_dataset(scale: float, seed: int, min_rows_per_file: int) -> DatasetPlan:
    """Plan a data set.

    Raises:
        InputError: when it would have more rows than row numbers.
    """
    files = []
    next_id = 0
    for name, official in distributions.rows_per_file().items():
        rows = max(min_rows_per_file, round(official * scale))
        split = taxonomy.split_of(name)
        assert split is not None, name
        files.append(FilePlan(split, name, taxonomy.class19_of(name), rows, next_id))
        next_id += rows
    planting = _Planting(files, seed, next_id)
    duplicates = {split: planting.duplicates(split, scale) for split in SOURCE_SPLITS}
    in_both = planting.in_both_splits(scale)
    label_conflicts = {split: planting.label_conflicts(split, scale) for split in SOURCE_SPLITS}
    planting.place()
    near = {split: _plan_near([f for f in files if f.split == split], split, scale) for split in SOURCE_SPLITS}
    if planting.next_id >= 1 << ID_BITS:
        raise InputError(
            f"synthesize: found {next_id:,} rows; expected fewer than {1 << ID_BITS:,}, as every row has a number of"
            f" {ID_BITS} bits: set scale or min_rows_per_file lower"
        )
    return DatasetPlan(tuple(files), duplicates, label_conflicts, in_both, near)


class _Planting:
    """Chooses the classes of planted vectors, then their rows."""

    def __init__(self, files: Sequence[FilePlan], seed: int, next_id: int) -> None:
        self.seed = seed
        self.next_id = next_id
        self.groups: dict[tuple[str, str], list[FilePlan]] = {}
        for file in files:
            self.groups.setdefault((file.split, file.class19), []).append(file)
        self.requests: dict[tuple[str, str], list[tuple[Pool, Ints]]] = {group: [] for group in self.groups}

    def duplicates(self, split: str, scale: float) -> int:
        groups = [group for group in self.groups if group[0] == split]
        total = max(1, round(_DUPLICATES[split] * scale))
        shares = _allot(total, [self._rows(g) for g in groups], [self._pairs(g) // 4 for g in groups])
        for group, count in zip(groups, shares, strict=True):
            size = int(np.ceil(count * _VECTORS_PER_DUPLICATE))
            repeats = np.arange(count, dtype=np.int64) % max(size, 1)
            self._request(f"duplicates/{split}", group[1], size, [(group, np.append(np.arange(size), repeats))])
        return sum(shares)

    def in_both_splits(self, scale: float) -> int:
        classes = [c for split, c in self.groups if split == "train"]
        room = [min(self._pairs((split, c)) for split in SOURCE_SPLITS) // 4 for c in classes]
        shares = _allot(max(1, round(_IN_BOTH_SPLITS * scale)), [self._rows(("test", c)) for c in classes], room)
        for class19, size in zip(classes, shares, strict=True):
            self._request("both", class19, size, [((split, class19), np.arange(size)) for split in SOURCE_SPLITS])
        return sum(shares)

    def label_conflicts(self, split: str, scale: float) -> int:
        room = min(self._pairs((split, c)) for c in _CONFLICT_CLASSES) // 4
        size = min(room, max(1, round(_LABEL_CONFLICTS[split] * scale)))
        places = [((split, c), np.arange(size)) for c in _CONFLICT_CLASSES]
        self._request(f"two labels/{split}", _CONFLICT_CLASSES[0], size, places)
        return size

    def place(self) -> None:
        """Assign every planted vector to a row of its class and split; no pair of rows is used twice."""
        for group, requests in self.requests.items():
            files = self.groups[group]
            ends = np.cumsum([f.rows // 2 for f in files])
            count = sum(len(vectors) for _, vectors in requests)
            if not count:
                continue
            pairs = generator(self.seed, "places", *group).choice(int(ends[-1]), size=count, replace=False)
            start = 0
            for pool, vectors in requests:
                chosen = pairs[start : start + len(vectors)]
                start += len(vectors)
                owner = np.searchsorted(ends, chosen, side="right")
                for i, file in enumerate(files):
                    in_file = owner == i
                    if in_file.any():
                        rows = 2 * (chosen[in_file] - (ends[i] - file.rows // 2)) + vectors[in_file] % 2
                        file.planted.append(Planted(pool, rows, vectors[in_file]))

    def _request(self, name: str, class19: str, size: int, places: list[tuple[tuple[str, str], Ints]]) -> None:
        if size:
            pool = Pool(f"{name}/{class19}", class19, size, self.next_id)
            self.next_id += size
            for group, vectors in places:
                self.requests[group].append((pool, vectors))

    def _rows(self, group: tuple[str, str]) -> int:
        return sum(f.rows for f in self.groups[group])

    def _pairs(self, group: tuple[str, str]) -> int:
        return sum(f.rows // 2 for f in self.groups[group])


def _plan_near(files: Sequence[FilePlan], split: str, scale: float) -> int:
    floods = [f for f in files if f.class19.startswith(FLOOD_PREFIXES)]
    total = round((_SINGLE_DUPLICATES[split] - _DUPLICATES[split]) * scale)
    for file, count in zip(floods, _allot(total, [f.rows for f in floods], [f.rows // 2 for f in floods]), strict=True):
        file.near = count
    return sum(f.near for f in floods)


def _allot(total: int, weights: Sequence[int], room: Sequence[int]) -> list[int]:
    """Divide `total` in proportion to `weights`, at most `room` each; the sum is smaller if `room` is too small."""
    shares = [min(total * w // max(sum(weights), 1), r) for w, r in zip(weights, room, strict=True)]
    order = sorted(range(len(weights)), key=lambda i: -weights[i])
    while sum(shares) < min(total, sum(room)):
        for i in order:
            if shares[i] < room[i] and sum(shares) < total:
                shares[i] += 1
    return shares
