"""What people look at: the newest scored models, and their comparison on the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from ids_spark.base.arrays import Counts
from ids_spark.base.errors import InputError
from ids_spark.dataset.taxonomy import CLASSES, Level
from ids_spark.evaluate.metrics import AVERAGED
from ids_spark.lake.store import Lake, TableMissing
from ids_spark.models.artifact import ModelCard, model_name, model_versions, read_model

SHOWN: Final = ("accuracy", "f1_macro", "f1_weighted", "benign_false_positive_rate")
_IDENTITY: Final = ("model", "feature_set", "classes", "model_version", "run_id", "data_origin")


@dataclass(frozen=True)
class Scores:
    """Precision, recall and F1 of one class, or averages of them, and how many rows carry that label."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class ScoredModel:
    """What the newest scoring run of one model measured on one split, and what is known of the model.

    Attributes:
        title: Architecture and variant, or how another job names itself.
        feature_set: `paper` or `operational`.
        classes: 2, 6 or 19.
        version: Of the model; empty where none was written.
        run_id: Of the scoring run.
        data_origin: `measured` or `synthetic`.
        averages: Value by metric, of those in `metrics/` that stand for no class and have a value.
        benign: Benign rows that were scored.
        scores: By class, in the order of ids; classes that occur as label or prediction.
        confusion: Labels by predictions, shape (classes, classes); None where the run wrote none.
        card: None where the model's directory is gone or never was.
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
        """As below `models/`."""
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
    """Return the newest run of each model, number of classes and feature_set, by classes, title and feature_set.

    Raises:
        TableMissing: when nothing was scored on that split yet.
        InputError: when a table names classes that are none of the taxonomy.
        ModelUnusable: when a model's directory is there, but not as it was written.
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


def print_comparison(models: Sequence[ScoredModel], split: str, console: Console) -> None:
    """Print model × classes with accuracy, F1, benign false-positive rate and training seconds; – where unknown."""
    synthetic = any(model.data_origin == "synthetic" for model in models)
    table = Table(title=f"Split {split}" + (": SYNTHETIC flows, no statement about real traffic" if synthetic else ""))
    table.add_column("model")
    table.add_column("feature_set")
    for heading in ("classes", "accuracy", "macro F1", "weighted F1", "benign FPR", "epochs", "seconds"):
        table.add_column(heading, justify="right")
    for model in models:
        figures = [_text(model.averages.get(metric), ".4f") for metric in SHOWN]
        trained = [_text(model.training.get("epochs"), "d"), _text(model.training.get("seconds"), ".0f")]
        table.add_row(model.title, model.feature_set, str(model.classes), *figures, *trained)
    console.print(table)


def _text(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _scored(lake: Lake, rows: pd.DataFrame, confusion: pd.DataFrame) -> ScoredModel:
    title, feature_set, classes, version, run_id, origin = (rows[key].iloc[0] for key in _IDENTITY)
    classes, version = int(classes), version or ""  # a job without a model directory may name no version
    name = model_name(title, classes, feature_set)
    if classes not in CLASSES:
        raise InputError(f"metrics of {name} in run {run_id} has {classes} classes; expected 2, 6 or 19")
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
    """Return the confusion matrix of the run and model that a row of metrics names."""
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
        raise InputError(f"{where} names {', '.join(unknown)}; expected {', '.join(CLASSES[classes])}; score again")
