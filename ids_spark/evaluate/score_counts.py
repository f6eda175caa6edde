"""What tasks count of scored rows with a label, so that the driver can compute every metric and its interval.

Counts add up, in any order of tasks and to the last bit: all are integers. Of a row they keep its class at 19 classes,
what was predicted at each level and how surely, and its attack logit on a fixed grid. So the driver needs no row:
a bootstrap over rows draws from the multinomial distribution over these cells.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from ids_spark.base.arrays import Counts, Floats32, Ids, Ints, Mask
from ids_spark.dataset.taxonomy import Level, levels_from, parents
from ids_spark.models.threshold import LIMIT, attack_logits

FINEST: Final[Level] = 19
"""Level of the true classes."""
STEPS: Final = 1 << 15
"""Cells of the grid for each unit of the attack logit.

1 % of 1.6 million benign rows are 16,000. Where scores are that high, they fall off with a scale of a unit or more, so
a cell at the threshold has half a row, and the rank of a threshold is right to less than a row.
"""
CELLS: Final = int(2 * LIMIT) * STEPS + 1
CONFIDENCE_CELLS: Final = 300
"""Cells of equal width of the highest probability, each open at its lower end: 20 for each bin of the calibration."""
CONFIDENCE_UNIT: Final = 2.0**-30


@dataclass(frozen=True)
class LogitCells:
    """Rows by true class and attack logit; cells without a row are left out.

    Attributes:
        cells: Class id at 19 classes times `CELLS` plus the place on the grid, ascending.
        rows: Rows in each of these cells.
    """

    cells: Ids
    rows: Counts

    def of_class(self, class_id: int) -> tuple[Ints, Counts]:
        """Return the places on the grid, ascending, and the rows of one class."""
        first, end = np.searchsorted(self.cells, (class_id * CELLS, (class_id + 1) * CELLS))
        return self.cells[first:end].astype(np.int64) - class_id * CELLS, self.rows[first:end]


@dataclass(frozen=True)
class ScoreCounts:
    """Counts of scored rows with a label.

    Attributes:
        confusions: Labels by predictions, shape (classes, classes), at the model's level and every coarser one.
        confidences: By level: rows, and sums of their highest probability in units of `CONFIDENCE_UNIT`, by cell of
            that probability and by whether the prediction is right; shape (2, `CONFIDENCE_CELLS`, 2).
        logits: By true class; None where only confusions are known.
        flagged: By true class at 19 classes: rows below the threshold of a night, rows at or above it; shape (19, 2).
            None for a model without one.
    """

    confusions: Mapping[Level, Counts]
    confidences: Mapping[Level, Counts] = field(default_factory=dict)
    logits: LogitCells | None = None
    flagged: Counts | None = None

    @property
    def rows(self) -> int:
        """Rows counted."""
        return int(next(iter(self.confusions.values())).sum())


def no_counts(level: Level) -> ScoreCounts:
    """Return the counts of no row, for a model of a level."""
    levels = levels_from(level)
    return ScoreCounts(
        {each: np.zeros((each, each), dtype=np.int64) for each in levels},
        {each: np.zeros((2, CONFIDENCE_CELLS, 2), dtype=np.int64) for each in levels},
        LogitCells(np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int64)),
    )


def count(
    probabilities: Mapping[Level, Floats32],
    predicted: Mapping[Level, Ids],
    labels: Ids,
    counted: Mask,
    threshold: float | None,
) -> ScoreCounts:
    """Count rows with a label.

    Args:
        probabilities: From `models.levels.at_levels`; NaN counts as 0.
        predicted: Ids of the predicted classes, by level.
        labels: True classes at 19 classes, shape (rows,).
        counted: Which rows to count; others may have any label.
        threshold: Attack logit from which a night flags flows; None: the model has none.
    """
    if not counted.all():
        labels = labels[counted]
        predicted = {level: ids[counted] for level, ids in predicted.items()}
        probabilities = {level: found[counted] for level, found in probabilities.items()}
    logits = np.nan_to_num(attack_logits(probabilities[max(probabilities)]), nan=-LIMIT)
    cells = labels.astype(np.int32) * np.int32(CELLS) + ((logits + LIMIT) * STEPS).astype(np.int32)
    confusions, confidences = {}, {}
    for level, ids in predicted.items():
        truth = parents(FINEST, level)[labels]
        confusions[level] = confusion_of(truth, ids, level)
        confidences[level] = _confidence(probabilities[level], ids, truth == ids)
    flagged = None
    if threshold is not None:
        flagged = np.bincount(labels * 2 + (logits >= threshold), minlength=2 * FINEST).reshape(-1, 2)
    return ScoreCounts(confusions, confidences, LogitCells(*np.unique(cells, return_counts=True)), flagged)


def merged(counts: Iterable[ScoreCounts]) -> ScoreCounts:
    """Return the sum of counts of the same model; there must be one."""
    found = list(counts)
    sparse = [each.logits for each in found if each.logits is not None]
    flags = [each.flagged for each in found if each.flagged is not None]
    return ScoreCounts(
        {level: np.sum([each.confusions[level] for each in found], axis=0) for level in found[0].confusions},
        {level: np.sum([each.confidences[level] for each in found], axis=0) for level in found[0].confidences},
        _merged_cells(sparse) if sparse else None,
        np.sum(flags, axis=0) if flags else None,
    )


def packed(counts: ScoreCounts) -> dict[str, bytes]:
    """Return counts without a threshold as bytes, for a column of a table; `unpacked` reads them."""
    logits = counts.logits or LogitCells(np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int64))
    parts = {"confusions": counts.confusions, "confidences": counts.confidences}
    found = {name: b"".join(each.tobytes() for each in by_level.values()) for name, by_level in parts.items()}
    return found | {"cells": logits.cells.tobytes(), "rows": logits.rows.tobytes()}


def unpacked(content: Mapping[str, bytes], level: Level) -> ScoreCounts:
    """Return the counts that `packed` made, of a model of this level."""
    empty = no_counts(level)

    def arrays(name: str, by_level: Mapping[Level, Counts]) -> dict[Level, Counts]:
        values = np.frombuffer(content[name], dtype=np.int64)
        parts = np.split(values, np.cumsum([zeros.size for zeros in by_level.values()])[:-1])
        return {each: part.reshape(by_level[each].shape) for each, part in zip(by_level, parts, strict=True)}

    logits = LogitCells(np.frombuffer(content["cells"], np.int32), np.frombuffer(content["rows"], np.int64))
    return ScoreCounts(arrays("confusions", empty.confusions), arrays("confidences", empty.confidences), logits)


def confusion_of(labels: Ids, predicted: Ids, n_classes: int) -> Counts:
    """Return counts of shape (n_classes, n_classes): row = label, column = prediction."""
    flat = np.bincount(labels.astype(np.int64) * n_classes + predicted, minlength=n_classes * n_classes)
    return flat.reshape(n_classes, n_classes)


def _confidence(probabilities: Floats32, ids: Ids, right: Mask) -> Counts:
    highest = np.nan_to_num(probabilities[np.arange(len(ids)), ids].astype(np.float64))
    cells = np.clip(np.ceil(highest * CONFIDENCE_CELLS).astype(np.int64) - 1, 0, CONFIDENCE_CELLS - 1) * 2 + right
    units = np.rint(highest / CONFIDENCE_UNIT).astype(np.int64)
    found = np.zeros((2, CONFIDENCE_CELLS * 2), dtype=np.int64)
    found[0] = np.bincount(cells, minlength=found.shape[1])
    found[1] = np.bincount(cells, units, minlength=found.shape[1])  # exact: sums are below 2^53
    return found.reshape(2, CONFIDENCE_CELLS, 2)


def _merged_cells(parts: list[LogitCells]) -> LogitCells:
    cells, place = np.unique(np.concatenate([part.cells for part in parts]), return_inverse=True)
    rows = np.bincount(place, np.concatenate([part.rows for part in parts]), minlength=len(cells))
    return LogitCells(cells, rows.astype(np.int64))
