"""Whether the cases of `prep` did the same work, checked in the tables they wrote, not in their own reports."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tests.bench import work

_TOLERANCE: Final = 2e-3  # of means and standard deviations of scaled float32 columns
_FEW_ROWS: Final = 1_000_000  # with fewer rows, a value of a single row may be absent from a case's share of train
_SPREAD: Final = 8.0
"""Deviations of two samples of n rows differ by some 1/√n of themselves, by more where tails are heavy."""


class WorkDiffers(RuntimeError):
    """Raised when a case wrote other rows than expected, or did not scale or shuffle them."""


@dataclass(frozen=True)
class Outcome:
    """Result of a case.

    Attributes:
        rows_left: Rows of features by split of the source; validation counts as train.
        stds: Of the kept features.
    """

    rows_left: Mapping[str, int]
    stds: Mapping[str, float]


def outcome(case: str, target: Path, source: Path, quarantine: Path | None, stds: Mapping[str, float]) -> Outcome:
    """Check the tables below a folder against the facts of the data set they were made from.

    Args:
        case: Name in messages.
        target: Holds `flows/split=…` and `features/split=…`.
        source: The data set.
        quarantine: Table of refused rows; each may be missing from flows and features.
        stds: Of the kept features, as the case states them.

    Raises:
        WorkDiffers: the message names the first difference.
    """
    facts = json.loads((source / "_SYNTHETIC.json").read_text())
    left = {}
    for split in ("train", "test"):
        refused = 0 if quarantine is None else _column(quarantine, "split").to_pylist().count(split)
        flows = _rows(target / "flows" / f"split={split}")
        _equal(f"{case}: rows of flows/{split} and quarantine", flows + refused, facts["rows"][split])
        left[split] = _rows(target / "features" / f"split={split}")
        if split == "train":
            held_out = _rows(target / "features" / "split=validation")
            if abs(held_out / (left[split] + held_out) - work.VALIDATION_SHARE) > 0.02:
                raise WorkDiffers(f"{case}: {held_out} validation rows beside {left[split]} train rows; expected 20 %")
            left[split] += held_out
        distinct = facts["rows"][split] - facts["duplicates"][split]
        if not distinct - refused <= left[split] <= distinct:
            raise WorkDiffers(f"{case}: {left[split]} rows of {split} left, expected {distinct} less {refused} refused")
    _standardised(case, target / "features" / "split=train", list(stds))
    for split in ("train", "validation", "test"):
        _shuffled(case, target / "features" / f"split={split}")
    return Outcome(left, stds)


def outcome_of_lake(case: str, lake: Path, source: Path) -> Outcome:
    """Check the lake of this project alike; moves the features of its recipe to the place where others write theirs.

    Raises:
        WorkDiffers: the message names the first difference.
    """
    recipe = lake / "features" / "paper"
    fitted = json.loads((recipe / "_preprocessor.json").read_text())["features"]
    for split in recipe.glob("split=*"):
        split.rename(lake / "features" / split.name)
    stds = {feature["name"]: feature["std"] for feature in fitted if feature["kept"]}
    return outcome(case, lake, source, lake / "quarantine", stds)


def compare(one: str, first: Outcome, other: str, second: Outcome) -> None:
    """Check that two cases kept the same features and found approximately the same deviations.

    Each fits on its own random 80 % of train. Rare values make single features differ, or vary in one and not in the
    other where there are few rows; the median feature does not.

    Raises:
        WorkDiffers: the message names the difference.
    """
    unlike = sorted(set(first.stds) ^ set(second.stds))
    if unlike and first.rows_left["train"] > _FEW_ROWS:
        raise WorkDiffers(f"{one} and {other} kept other features: {unlike}")
    common = set(first.stds) & set(second.stds)
    apart = float(np.median([abs(first.stds[name] / second.stds[name] - 1.0) for name in common]))
    most = max(0.01, _SPREAD / first.rows_left["train"] ** 0.5)
    if apart > most:
        raise WorkDiffers(
            f"standard deviations of {one} and {other} differ by {apart:.2%}, expected at most {most:.2%}"
        )


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.parquet") if not path.name.startswith((".", "_")))


def _rows(folder: Path) -> int:
    return sum(pq.read_metadata(path).num_rows for path in _files(folder))


def _column(folder: Path, name: str) -> Any:
    return pa.concat_tables(
        pq.ParquetFile(path).read(columns=[name]).cast(_plain(path, name)) for path in _files(folder)
    )[name]


def _plain(path: Path, name: str) -> pa.Schema:
    """Return the schema of one column; engines differ in nullability and metadata."""
    return pa.schema([(name, pq.read_schema(path).field(name).type)])


def _equal(what: str, found: int, expected: int) -> None:
    if found != expected:
        raise WorkDiffers(f"{what}: {found}, expected {expected}")


def _standardised(case: str, folder: Path, features: Sequence[str]) -> None:
    stored = pq.read_schema(_files(folder)[0])
    for feature in features:
        name = feature if feature in stored.names else feature.replace(" ", "_")
        if stored.field(name).type != pa.float32():
            raise WorkDiffers(f"{case}: feature {feature} is {stored.field(name).type}, expected float")
        values: NDArray[np.float64] = _column(folder, name).to_numpy().astype(np.float64)
        mean, std = float(values.mean()), float(values.std())
        if abs(mean) > _TOLERANCE or abs(std - 1.0) > _TOLERANCE:
            raise WorkDiffers(f"{case}: scaled {feature} has mean {mean:.2g} and deviation {std:.4g}; expected 0 and 1")


def _shuffled(case: str, folder: Path) -> None:
    labels: NDArray[np.int64] = _column(folder, "label19").to_numpy().astype(np.int64)
    shares = np.bincount(labels) / len(labels)
    by_chance = float(np.square(shares).sum())
    found = float((labels[1:] == labels[:-1]).mean())
    if abs(found - by_chance) > 0.01 + 5.0 * (by_chance / len(labels)) ** 0.5:
        raise WorkDiffers(
            f"{case}: {found:.1%} of neighbours in {folder.name} share a class, {by_chance:.1%} by chance"
        )
