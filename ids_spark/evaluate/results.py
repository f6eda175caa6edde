"""The tables `metrics/` and `confusion/`: `Results` writes those of a run, `newest` reads those of every model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd

from ids_spark.base.arrays import Counts
from ids_spark.base.errors import InputError
from ids_spark.dataset.taxonomy import CLASSES, Level
from ids_spark.evaluate.metrics import AVERAGED, confusion_rows, metrics_of
from ids_spark.lake.store import Lake, TableMissing
from ids_spark.models.artifact import ModelCard, model_name, model_versions, read_model

SHOWN: Final = ("accuracy", "f1_macro", "f1_weighted", "benign_false_positive_rate")
_IDENTITY: Final = ("model", "feature_set", "classes", "model_version", "run_id", "data_origin")


@dataclass
class Results:
    """Metrics and confusion matrices of one run, to be written.

    Attributes:
        run_id: Written to every row; also the name of the files.
        split: Written to every row.
    """

    run_id: str
    split: str
    _metrics: list[dict[str, Any]] = field(default_factory=list)
    _confusion: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self, card: ModelCard, confusion: Counts, data_origin: str, facts: Mapping[str, float] | None = None
    ) -> None:
        """Add one model; without labelled flows nothing is added.

        Args:
            card: Card of the model.
            confusion: Labels by predictions, shape (classes, classes).
            data_origin: `measured` or `synthetic`.
            facts: Further metrics, without class and support, of a model that has no directory.
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


def unseen_classes(card: ModelCard, confusion: Counts) -> list[str]:
    """Return the classes that occur as labels but had no train row."""
    absent = card.classes_absent_in_train
    return [name for i, name in enumerate(card.class_names) if name in absent and confusion[i].sum()]


@dataclass(frozen=True)
class Scores:
    """Precision, recall and F1 of one class, and the number of rows with that label."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class ScoredModel:
    """The results of the newest scoring run of one model on one split, and the model's card.

    Attributes:
        title: Architecture and variant, or a name set by another job.
        feature_set: `paper` or `operational`.
        classes: 2, 6 or 19.
        version: Version of the model; empty if none was written.
        run_id: The scoring run.
        data_origin: `measured` or `synthetic`.
        averages: Values by metric, from the rows of `metrics/` without a class.
        benign: Benign rows that were scored.
        scores: Scores by class, in the order of ids, of classes that occur as label or prediction.
        confusion: Labels by predictions, shape (classes, classes); None if the run wrote none.
        card: Card of the model; None if the model has no directory.
    """

    title: str
    feature_set: str
    classes: Level
    version: str
    run_id: str
    data_origin: str
    averages: Mapping[str, float]
    benign: int
    scores: Mapping[str, Scores]
    confusion: Counts | None
    card: ModelCard | None

    @property
    def name(self) -> str:
        """Directory name below `models/`."""
        return model_name(self.title, self.classes, self.feature_set)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, by id."""
        return CLASSES[self.classes]

    @property
    def training(self) -> Mapping[str, Any]:
        """The `training` entry of the card; empty without one."""
        return self.card.training if self.card else {}


def newest(lake: Lake, split: str) -> list[ScoredModel]:
    """Return the newest run of each model, ordered by classes, title and feature set.

    Raises:
        TableMissing: when nothing was scored on that split yet.
        InputError: when a table holds unknown classes.
        ModelUnusable: when a model's directory was changed or cannot be read.
    """
    metrics = lake.read("metrics", equal={"split": split}).to_pandas()
    if metrics.empty:
        raise TableMissing(
            f"{lake.uri('metrics')} holds no metrics of split {split!r}; run jobs/score.py on this lake first"
        )
    confusion = lake.read("confusion", equal={"split": split}).to_pandas()
    keys = ["classes", "model", "feature_set"]
    latest = metrics[metrics["run_id"] == metrics.groupby(keys)["run_id"].transform("max")]
    return [_scored(lake, rows, confusion) for _, rows in latest.groupby(keys)]


def _scored(lake: Lake, rows: pd.DataFrame, confusion: pd.DataFrame) -> ScoredModel:
    title, feature_set, classes, version, run_id, origin = (rows[key].iloc[0] for key in _IDENTITY)
    classes, version = int(classes), version or ""  # null for a job that writes no model directory
    name = model_name(title, classes, feature_set)
    if classes not in CLASSES:
        raise InputError(f"metrics of {name} in run {run_id} have {classes} classes; expected 2, 6 or 19")
    _require_known(rows["class_name"].dropna(), classes, f"metrics of {name} in run {run_id}")
    averages = rows[rows["class_name"].isna()].set_index("metric")
    known = version and version in model_versions(lake.uri("models"), name)
    return ScoredModel(
        title,
        feature_set,
        classes,
        version,
        run_id,
        origin,
        averages["value"].dropna().to_dict(),
        int(averages["support"].get("benign_false_positive_rate", 0)),
        _scores_by_class(rows, CLASSES[classes]),
        _counts(confusion, rows.iloc[0], name),
        read_model(lake.uri(f"models/{name}/{version}")).card if known else None,
    )


def _scores_by_class(rows: pd.DataFrame, class_names: Sequence[str]) -> dict[str, Scores]:
    found = rows[rows["metric"].isin(AVERAGED) & rows["class_name"].notna()]
    values = found.pivot(index="class_name", columns="metric", values="value").reindex(columns=list(AVERAGED))
    support = found.groupby("class_name")["support"].first()
    return {
        name: Scores(**values.loc[name].to_dict(), support=int(support[name]))
        for name in class_names
        if name in values.index and values.loc[name].notna().all()
    }


def _counts(confusion: pd.DataFrame, run: pd.Series, name: str) -> Counts | None:
    """Return the confusion matrix of the run and model of a row of `metrics/`; None if there is none."""
    same = [confusion[key] == run[key] for key in ("run_id", "model", "feature_set", "classes")]
    cells = confusion[np.logical_and.reduce(same)]
    if cells.empty:
        return None
    for column in ("class_name", "predicted_class"):
        _require_known(cells[column], run["classes"], f"confusion of {name} in run {run['run_id']}")
    ids = {c: i for i, c in enumerate(CLASSES[run["classes"]])}
    counts = np.zeros((len(ids), len(ids)), dtype=np.int64)
    np.add.at(counts, (cells["class_name"].map(ids), cells["predicted_class"].map(ids)), cells["count"])
    return counts


def _require_known(found: "pd.Series | pd.Index", classes: Level, where: str) -> None:
    unknown = sorted({str(name) for name in found} - set(CLASSES[classes]))
    if unknown:
        raise InputError(
            f"{where} has classes {', '.join(unknown)}; expected {', '.join(CLASSES[classes])}; score again"
        )
