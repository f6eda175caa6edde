"""The tables `metrics/` and `confusion/`: `Results` writes those of a run, `newest` reads those of every model."""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import pandas as pd

from ids_spark.base.arrays import Counts
from ids_spark.base.errors import InputError
from ids_spark.dataset.tables import METRICS
from ids_spark.dataset.taxonomy import CLASSES, Level
from ids_spark.evaluate import calibration
from ids_spark.evaluate.metrics import AVERAGED, confusion_rows, metrics_of
from ids_spark.evaluate.night_metrics import ONE_PERCENT, night_metrics
from ids_spark.evaluate.score_counts import ScoreCounts
from ids_spark.lake.store import Lake, TableMissing
from ids_spark.models.artifact import ModelCard, model_name, model_versions, read_model

SHOWN: Final = (
    *("accuracy", "f1_macro", "f1_weighted", "benign_false_positive_rate"),
    *(ONE_PERCENT, calibration.ERROR),
)
"""Metrics that tables of models show."""
_IDENTITY: Final = ("model", "feature_set", "classes", "of_classes", "model_version", "run_id", "data_origin")


@dataclass
class Results:
    """Metrics and confusion matrices of one run, to be written.

    Attributes:
        run_id: Written to every row; also the name of the files.
        split: Written to every row.
        seed: Of the intervals; those of each model are drawn from it.
    """

    run_id: str
    split: str
    seed: int = 7
    _metrics: list[dict[str, Any]] = field(default_factory=list)
    _confusion: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self, card: ModelCard, counts: ScoreCounts, data_origin: str, facts: Mapping[str, float] | None = None
    ) -> None:
        """Add one model at its own level and all coarser ones; without labelled flows nothing is added.

        Args:
            card: Card of the model.
            counts: Of the rows that it scored.
            data_origin: `measured` or `synthetic`.
            facts: Further metrics, without class and support, of a model that has no directory.
        """
        if not counts.rows:
            return
        rng = np.random.default_rng(self.seed)
        shared = {
            level: {
                "run_id": self.run_id,
                "model": card.title,
                "model_version": card.version,
                "feature_set": card.feature_set,
                "classes": level,
                "of_classes": card.classes,
                "split": self.split,
                "data_origin": data_origin,
            }
            for level in counts.confusions
        }
        for level, confusion in counts.confusions.items():
            self._metrics += [shared[level] | row for row in metrics_of(confusion, CLASSES[level], rng)]
            self._confusion += [shared[level] | row for row in confusion_rows(confusion, CLASSES[level])]
        for level, confidence in counts.confidences.items():
            self._metrics += [shared[level] | row for row in calibration.calibration_of(confidence, rng)]
        if counts.logits is not None:
            found = night_metrics(counts.logits, counts.flagged, list(counts.confusions), rng)
            self._metrics += [shared[level] | row for level, row in found]
        for name, value in (facts or {}).items():
            self._metrics.append(shared[card.classes] | {"metric": name, "value": value})

    def add_subsets(
        self, model: "ScoredModel", rows: Iterable[tuple[str, Mapping[str, Any]]], matrices: Mapping[str, Counts]
    ) -> None:
        """Add metrics and confusion matrices of parts of the rows of a model that was scored.

        Args:
            model: Its results at its own level.
            rows: The subset, and a row with `class_name`, `metric`, `value`, `low`, `high`, `support`.
            matrices: Labels by predictions of a subset, by its name.
        """
        shared = {
            "run_id": self.run_id,
            "model": model.title,
            "model_version": model.version,
            "feature_set": model.feature_set,
            "classes": model.classes,
            "of_classes": model.of_classes,
            "split": self.split,
            "data_origin": model.data_origin,
        }
        self._metrics += [{**shared, "subset": subset, **row} for subset, row in rows]
        for subset, confusion in matrices.items():
            cells = confusion_rows(confusion, model.class_names)
            self._confusion += [shared | {"subset": subset} | row for row in cells]

    def with_subsets(self, models: Iterable["ScoredModel"]) -> list["ScoredModel"]:
        """Return models with the figures of subsets that were added."""
        parts = pd.DataFrame(self._metrics, columns=METRICS.names)
        return [_with_subsets(model, parts[parts["subset"].notna()]) for model in models]

    def write(self, lake: Lake, staged: Callable[[str], str]) -> list[str]:
        """Write `metrics/` and `confusion/`, one file each; return the paths written."""
        tables = {"metrics": self._metrics, "confusion": self._confusion}
        return [lake.write(name, rows, staged, run_id=self.run_id) for name, rows in tables.items() if rows]


def unseen_classes(card: ModelCard, confusion: Counts) -> list[str]:
    """Return the classes that occur as labels but had no train row."""
    absent = card.classes_absent_in_train
    return [name for i, name in enumerate(card.class_names) if name in absent and confusion[i].sum()]


@dataclass(frozen=True)
class Metric:
    """One figure of a model.

    Attributes:
        value: None where the rows do not support one.
        low: Lower end of the 95 % interval of a bootstrap over rows; None without one.
        high: Upper end.
        support: Rows that the figure is about; None for facts that are not of rows.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    support: int | None = None


@dataclass(frozen=True)
class Scores:
    """Precision, recall and F1 of one class, and the number of rows with that label."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class ScoredModel:
    """The results of the newest scoring run of one model on one split at one level, and the model's card.

    Attributes:
        title: Architecture and variant, or a name set by another job.
        feature_set: `paper` or `operational`.
        classes: Level of the results: 2, 6 or 19.
        of_classes: Level of the model; results of a coarser level are from the sums of its probabilities.
        version: Version of the model; empty if none was written.
        run_id: The scoring run.
        data_origin: `measured` or `synthetic`.
        metrics: Every figure over all rows, by class (None: of all classes) and name.
        confusion: Labels by predictions, shape (classes, classes); None if the run wrote none.
        card: Card of the model; None if the model has no directory.
        subsets: Figures of parts of the rows, by subset and name, of the newest run that measured these predictions.
    """

    title: str
    feature_set: str
    classes: Level
    of_classes: Level
    version: str
    run_id: str
    data_origin: str
    metrics: Mapping[tuple[str | None, str], Metric]
    confusion: Counts | None
    card: ModelCard | None
    subsets: Mapping[tuple[str, str], Metric] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Directory name below `models/`."""
        return model_name(self.title, self.of_classes, self.feature_set)

    @property
    def own_level(self) -> bool:
        """Whether the results are at the level that the model was trained at."""
        return self.classes == self.of_classes

    @property
    def shown_title(self) -> str:
        """The title, with the level of the model if that is finer."""
        return self.title if self.own_level else f"{self.title} of {self.of_classes}"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, by id."""
        return CLASSES[self.classes]

    @property
    def training(self) -> Mapping[str, Any]:
        """The `training` entry of the card; empty without one."""
        return self.card.training if self.card else {}

    @property
    def averages(self) -> dict[str, float]:
        """Values of the metrics without a class, where there is one."""
        return {
            name: m.value for (of_class, name), m in self.metrics.items() if of_class is None and m.value is not None
        }

    @property
    def benign(self) -> int:
        """Benign rows that were scored."""
        return self.metric("benign_false_positive_rate").support or 0

    @property
    def scores(self) -> dict[str, Scores]:
        """Scores by class, in the order of ids, of classes that occur as label or prediction."""
        found = {}
        for name in self.class_names:
            of_class = [self.metric(metric, name) for metric in AVERAGED]
            precision, recall, f1 = (metric.value for metric in of_class)
            if precision is not None and recall is not None and f1 is not None:
                found[name] = Scores(precision, recall, f1, of_class[0].support or 0)
        return found

    def metric(self, name: str, class_name: str | None = None) -> Metric:
        """Return a figure over all rows, such as `f1_macro` or `recall_at_1e-2`; without value where it is unknown.

        Args:
            name: As in `metrics/`.
            class_name: Of one class; None: of all.
        """
        return self.metrics.get((class_name, name), Metric(None))


def newest(lake: Lake, split: str) -> list[ScoredModel]:
    """Return the newest run of each model at each level, ordered by classes, title, feature set, level of the model.

    Raises:
        TableMissing: when nothing was scored on that split yet.
        InputError: when a table holds unknown classes.
        ModelUnusable: when a model's directory was changed or cannot be read.
    """
    figures = _of_split(lake, "metrics", split)
    metrics = figures[figures["subset"].isna()]
    if metrics.empty:
        raise TableMissing(
            f"{lake.uri('metrics')} holds no metrics of split {split!r}; run jobs/score.py on this lake first"
        )
    confusion = _of_split(lake, "confusion", split)
    confusion = confusion[confusion["subset"].isna()]
    keys = ["classes", "model", "feature_set", "of_classes"]
    latest = metrics[metrics["run_id"] == metrics.groupby(keys)["run_id"].transform("max")]
    parts = figures[figures["subset"].notna()]

    @functools.cache  # a model has a result at each level, and reading its trees takes seconds
    def card_of(name: str, version: str) -> ModelCard | None:
        known = version and version in model_versions(lake.uri("models"), name)
        return read_model(lake.uri(f"models/{name}/{version}")).card if known else None

    return [_with_subsets(_scored(rows, confusion, card_of), parts) for _, rows in latest.groupby(keys)]


def _of_split(lake: Lake, table: str, split: str) -> pd.DataFrame:
    """Return what a table says of a split; the level of the model is never null."""
    found = lake.read(table, equal={"split": split}).to_pandas()
    found["of_classes"] = found["of_classes"].fillna(found["classes"]).astype(int)
    return found


def _with_subsets(model: ScoredModel, parts: pd.DataFrame) -> ScoredModel:
    known = {
        "model": model.title,
        "feature_set": model.feature_set,
        "classes": model.classes,
        "of_classes": model.of_classes,
        "model_version": model.version,
    }
    own = parts[np.logical_and.reduce([parts[column] == value for column, value in known.items()])]
    own = own[(own["run_id"] == own["run_id"].max()) & (own["run_id"] > model.run_id)]  # of the same predictions
    of_subset = {
        subset: {name: metric for (_, name), metric in _metrics_of(rows).items()}
        for subset, rows in own.groupby("subset")
    }
    found = {(subset, name): metric for subset, metrics in of_subset.items() for name, metric in metrics.items()}
    return replace(model, subsets=found)


def _scored(
    rows: pd.DataFrame, confusion: pd.DataFrame, card_of: Callable[[str, str], ModelCard | None]
) -> ScoredModel:
    title, feature_set, classes, of_classes, version, run_id, origin = (rows[key].tolist()[0] for key in _IDENTITY)
    version = version or ""  # null for a job that writes no model directory
    name = model_name(title, of_classes, feature_set)
    if not {classes, of_classes} <= set(CLASSES):
        raise InputError(
            f"metrics of {name} in run {run_id} have {classes} classes, of a model of {of_classes}; expected 2, 6 or 19"
        )
    _require_known(rows["class_name"].dropna(), classes, f"metrics of {name} in run {run_id}")
    return ScoredModel(
        title,
        feature_set,
        classes,
        of_classes,
        version,
        run_id,
        origin,
        _metrics_of(rows),
        _counts(confusion, rows.iloc[0], name),
        card_of(name, version),
    )


def _metrics_of(rows: pd.DataFrame) -> dict[tuple[str | None, str], Metric]:
    figures = rows[["value", "low", "high", "support"]].astype(object).where(rows.notna(), None)
    names = rows["class_name"].astype(object).where(rows["class_name"].notna(), None)
    return {
        (class_name, name): Metric(value, low, high, None if support is None else int(support))
        for class_name, name, value, low, high, support in zip(
            names, rows["metric"], *(figures[column] for column in figures), strict=True
        )
    }


def _counts(confusion: pd.DataFrame, run: pd.Series, name: str) -> Counts | None:
    """Return the confusion matrix of the run and model of a row of `metrics/`; None if there is none."""
    same = [confusion[key] == run[key] for key in ("run_id", "model", "feature_set", "classes", "of_classes")]
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
