"""Metrics and confusion matrices of several models as tables of the lake."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ids_spark.base.arrays import Counts
from ids_spark.evaluate.metrics import confusion_rows, metrics_of
from ids_spark.lake.store import Lake
from ids_spark.models.artifact import ModelCard


def unseen_classes(card: ModelCard, confusion: Counts) -> list[str]:
    """Return the classes that occur as labels but stood in no train row of the model."""
    absent = card.classes_absent_in_train
    return [name for i, name in enumerate(card.class_names) if name in absent and confusion[i].sum()]


@dataclass
class Results:
    """Gathers what one scoring run measured.

    Attributes:
        run_id: Stands in every row and names the files.
        split: Stands in every row.
    """

    run_id: str
    split: str
    _metrics: list[dict[str, Any]] = field(default_factory=list)
    _confusion: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self, card: ModelCard, confusion: Counts, data_origin: str, facts: Mapping[str, float] | None = None
    ) -> None:
        """Add one model; nothing is added for flows without labels.

        Args:
            card: Of the model.
            confusion: Labels by predictions.
            data_origin: `measured` or `synthetic`.
            facts: Of a model that has no directory to state them: metrics of no class and without support.
        """
        if not confusion.sum():
            return
        shared = {
            "run_id": self.run_id,
            "model": card.title,
            "model_version": card.version,
            "feature_set": card.feature_set,
            "classes": card.classes,
            "split": self.split,
            "data_origin": data_origin,
        }
        self._metrics += [shared | row for row in metrics_of(confusion, card.class_names)]
        for name, value in (facts or {}).items():
            self._metrics.append(shared | {"class_name": None, "metric": name, "value": value, "support": None})
        self._confusion += [shared | row for row in confusion_rows(confusion, card.class_names)]

    def write(self, lake: Lake, staged: Callable[[str], str]) -> list[str]:
        """Write `metrics/` and `confusion/`, one file each; return the paths written."""
        tables = {"metrics": self._metrics, "confusion": self._confusion}
        return [lake.write(name, rows, staged, run_id=self.run_id) for name, rows in tables.items() if rows]
