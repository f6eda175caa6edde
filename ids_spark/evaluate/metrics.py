"""Metrics from confusion matrices.

Definitions are those of scikit-learn with zero_division=0; averages are over classes that occur as label or prediction.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ids_spark.base.arrays import Counts, Floats
from ids_spark.dataset.taxonomy import BENIGN_ID
from ids_spark.evaluate import bootstrap

AVERAGED: Final = ("precision", "recall", "f1")


@dataclass(frozen=True)
class ConfusionScores:
    """Metrics of confusion matrices that are stacked along leading axes; NaN where there is no row to compute one from.

    Attributes:
        averages: By name: accuracy, macro and weighted precision, recall and F1, and the benign false-positive rate,
            the share of benign rows that are predicted as any attack. Shape (…).
        of_classes: Precision, recall and F1 of each class. Shape (…, classes).
        occurs: Which classes occur as label or prediction. Shape (…, classes).
        support: Rows of each class. Shape (…, classes).
    """

    averages: dict[str, Floats]
    of_classes: dict[str, Floats]
    occurs: NDArray[np.bool_]
    support: Counts


def scores_of(confusion: Counts) -> ConfusionScores:
    """Return the metrics of confusion matrices of shape (…, classes, classes): row = label, column = prediction."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    support, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    total = support.sum(axis=-1)
    occurs = (support + predicted) > 0
    scores = {
        "precision": ratio(right, predicted, 0.0),
        "recall": ratio(right, support, 0.0),
        "f1": ratio(2 * right, support + predicted, 0.0),
    }
    averages = {"accuracy": ratio(right.sum(axis=-1), total)}
    for name in AVERAGED:
        averages[f"{name}_macro"] = ratio((scores[name] * occurs).sum(axis=-1), occurs.sum(axis=-1))
        averages[f"{name}_weighted"] = ratio((scores[name] * support).sum(axis=-1), total)
    benign = support[..., BENIGN_ID]
    averages["benign_false_positive_rate"] = ratio(benign - right[..., BENIGN_ID], benign)
    return ConfusionScores(averages, scores, occurs, support)


def metrics_of(
    confusion: Counts, class_names: tuple[str, ...], rng: np.random.Generator | None = None
) -> Iterator[dict[str, Any]]:
    """Yield rows with keys `class_name` (None for averages), `metric`, `value`, `low`, `high`, `support`.

    Args:
        confusion: From `score_counts.confusion_of`.
        class_names: By id.
        rng: Source of random numbers for the intervals; default: none are computed.

    The metrics of `ConfusionScores`, those of classes for each class that occurs. A value is None without rows.
    """
    found = scores_of(confusion)
    drawn = None if rng is None or not confusion.sum() else scores_of(bootstrap.draws_of(confusion, rng))
    rows = int(found.support.sum())
    for name, value in found.averages.items():
        support = int(found.support[BENIGN_ID]) if name == "benign_false_positive_rate" else rows
        yield row_of(None, name, value, support, None if drawn is None else drawn.averages[name])
    for name in AVERAGED:
        ends = None if drawn is None else bootstrap.interval(drawn.of_classes[name])
        for i in np.flatnonzero(found.occurs):
            low, high = (None, None) if ends is None else (float(end[i]) for end in ends)
            yield {
                "class_name": class_names[i],
                "metric": name,
                "value": float(found.of_classes[name][i]),
                "low": low,
                "high": high,
                "support": int(found.support[i]),
            }


def row_of(
    class_name: str | None, metric: str, value: Floats | float, support: int, draws: Floats | None = None
) -> dict[str, Any]:
    """Return a row of `metrics/`.

    Args:
        class_name: None for all classes.
        metric: Name.
        value: One number; NaN becomes None, without an interval.
        support: Rows that the figure is about.
        draws: Values of bootstrap samples, shape (draws,).
    """
    known = bool(np.isfinite(value))
    low, high = (None, None) if draws is None or not known else map(float, bootstrap.interval(draws))
    return {
        "class_name": class_name,
        "metric": metric,
        "value": float(value) if known else None,
        "low": low,
        "high": high,
        "support": support,
    }


def confusion_rows(confusion: Counts, class_names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Yield rows with keys `class_name` (label), `predicted_class` and `count`, one for each cell."""
    for i, label in enumerate(class_names):
        for j, predicted in enumerate(class_names):
            yield {"class_name": label, "predicted_class": predicted, "count": int(confusion[i, j])}


def ratio(part: NDArray[Any], whole: NDArray[Any], without: float = np.nan) -> Floats:
    """Return part / whole, and `without` where the whole is 0."""
    found: Floats = np.divide(part, whole, out=np.full(np.shape(part), without), where=np.asarray(whole) > 0)
    return found
