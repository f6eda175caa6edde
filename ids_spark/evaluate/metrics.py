"""Metrics from confusion matrices.

Definitions are those of scikit-learn with zero_division=0; averages are over classes that occur as label or prediction.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ids_spark.base.arrays import Counts
from ids_spark.dataset.taxonomy import BENIGN_ID

AVERAGED: Final = ("precision", "recall", "f1")


def confusion_of(labels: NDArray[np.int32], predicted: NDArray[np.int32], n_classes: int) -> Counts:
    """Return counts of shape (n_classes, n_classes): row = label, column = prediction."""
    flat = np.bincount(labels.astype(np.int64) * n_classes + predicted, minlength=n_classes * n_classes)
    return flat.reshape(n_classes, n_classes)


def metrics_of(confusion: Counts, class_names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Yield rows with keys `class_name` (None for averages), `metric`, `value`, `support`.

    Args:
        confusion: From `confusion_of`.
        class_names: By id.

    Accuracy, macro and weighted precision, recall and F1, the benign false-positive rate (share of benign rows that are
    predicted as any attack; None without benign rows), and precision, recall and F1 of each class that occurs.
    """
    right = np.diag(confusion).astype(np.float64)
    support, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    total = int(support.sum())
    occurs = (support + predicted) > 0
    scores = {
        "precision": _ratio(right, predicted),
        "recall": _ratio(right, support),
        "f1": _ratio(2 * right, support + predicted),
    }

    def row(class_name: str | None, metric: str, value: float | None, rows: int) -> dict[str, Any]:
        return {"class_name": class_name, "metric": metric, "value": value, "support": rows}

    yield row(None, "accuracy", float(right.sum() / total) if total else None, total)
    for name in AVERAGED:
        yield row(None, f"{name}_macro", float(scores[name][occurs].mean()) if total else None, total)
        yield row(None, f"{name}_weighted", float((scores[name] * support).sum() / total) if total else None, total)
    benign = int(support[BENIGN_ID])
    alarms = benign - int(confusion[BENIGN_ID, BENIGN_ID])
    yield row(None, "benign_false_positive_rate", alarms / benign if benign else None, benign)
    for i in np.flatnonzero(occurs):
        for name in AVERAGED:
            yield row(class_names[i], name, float(scores[name][i]), int(support[i]))


def confusion_rows(confusion: Counts, class_names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Yield rows with keys `class_name` (label), `predicted_class` and `count`, one for each cell."""
    for i, label in enumerate(class_names):
        for j, predicted in enumerate(class_names):
            yield {"class_name": label, "predicted_class": predicted, "count": int(confusion[i, j])}


def _ratio(part: NDArray[np.float64], whole: Counts) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
