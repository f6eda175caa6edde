"""The benchmark: every scored model and the published figures, which model is best at what, and by how much."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from ids_spark.dataset.taxonomy import LEVELS, Level
from ids_spark.evaluate.literature import PUBLISHED, Published
from ids_spark.evaluate.night_metrics import RARE_RECALL
from ids_spark.evaluate.results import Metric, ScoredModel
from ids_spark.lake.store import Lake, TableMissing

AVERAGED: Final = ("precision", "recall", "f1")
AVERAGES: Final = tuple(f"{name}_{kind}" for kind in ("macro", "weighted") for name in AVERAGED)
_NIGHT: Final = ("recall_at_1e-2", RARE_RECALL, "recall_at_1e-3", "area_to_1e-2", "expected_calibration_error")
_SCORED: Final = ("accuracy", *AVERAGES, "benign_false_positive_rate", *_NIGHT)
FIGURES: Final = (
    *_SCORED,
    *(f"{name}_not_stated" for name in AVERAGED),
    "parameters",
    "epochs",
    "seconds_per_epoch",
    "seconds",
    "rows",
)
LOWER_IS_BETTER: Final = frozenset({"benign_false_positive_rate", "expected_calibration_error"})
_OFFICIAL: Final = ("original45", "measured", {"train": 7_160_831, "test": 1_614_182})

_TEXTS: Final = ("run_id", "model", "feature_set", "source", "configuration", "averaging", "data_origin", "metric")
_NUMBERS: Final = ("value", "low", "high")
TABLE: Final = pa.schema(
    [
        *((name, pa.int32()) for name in ("classes", "of_classes")),
        *((name, pa.string()) for name in _TEXTS),
        *((name, pa.float64()) for name in _NUMBERS),
    ]
)
"""`reports/benchmark/table.parquet`: one figure a row; see `Row`."""


@dataclass(frozen=True)
class Row:
    """One model at one number of classes, of this lake or published.

    Attributes:
        model: Title, or the authors' name.
        feature_set: `paper` or `operational`; empty for published figures.
        classes: Level of the figures: 2, 6 or 19.
        of_classes: Level of the model; at a coarser level the probabilities of its classes are added.
        source: Scoring run, or the publication.
        configuration: Training settings, in a few words.
        averaging: `macro and weighted` for own figures; for published figures as stated in the source.
        data_origin: `measured`, `synthetic` or `published`.
        figures: By name in `FIGURES`; unknown ones are absent. `parameters` are the weights of a network,
            the nodes of trees, of a blend both together; `rows` is the number of scored rows.
    """

    model: str
    feature_set: str
    classes: Level
    of_classes: Level
    source: str
    configuration: str
    averaging: str
    data_origin: str
    figures: Mapping[str, Metric]

    @property
    def published(self) -> bool:
        """Whether the figures are published ones."""
        return self.data_origin == "published"

    @property
    def own_level(self) -> bool:
        """Whether the model was trained at the level of the figures."""
        return self.classes == self.of_classes

    def value(self, name: str) -> float | None:
        """Return a figure; None where it is unknown."""
        return self.figures[name].value if name in self.figures else None


@dataclass(frozen=True)
class Setting:
    """The data of this lake's figures.

    Attributes:
        split: The scored split.
        feature_schema: Feature schema of the flows; None if the lake no longer holds flows.
        data_origin: `synthetic` if any model was trained or scored on synthetic flows.
        rows: Flows of each split, duplicates included.
    """

    split: str
    feature_schema: str | None
    data_origin: str
    rows: Mapping[str, int]

    @property
    def official(self) -> bool:
        """Whether the lake holds the official split of the first release, as in all publications."""
        return (self.feature_schema, self.data_origin, dict(self.rows)) == _OFFICIAL


@dataclass(frozen=True)
class Difference:
    """How much better one figure is than another.

    Attributes:
        value: Positive where the first is better.
        noise: Half of the 95 % interval of the difference if both figures had independent rows; they have the same
            rows, so the true interval is narrower. It does not include that another training gives another model.
            None where an interval is unknown.
    """

    value: float
    noise: float | None

    @property
    def beyond_noise(self) -> bool | None:
        """Whether the figures differ by more than the noise; None where that is unknown."""
        return None if self.noise is None else abs(self.value) > self.noise


@dataclass(frozen=True)
class Best:
    """The best model of one figure at one level.

    Attributes:
        classes: The level.
        feature_set: Of all compared models.
        figure: Name in `FIGURES`.
        first: The best one.
        second: The next best one; None where no other has the figure.
        ahead: How much better `first` is; None without `second`.
    """

    classes: Level
    feature_set: str
    figure: str
    first: Row
    second: Row | None
    ahead: Difference | None


def difference(better: Row, worse: Row, figure: str) -> Difference | None:
    """Return how much better one row is than another in one figure; None where either is unknown."""
    one, other = better.figures.get(figure, Metric(None)), worse.figures.get(figure, Metric(None))
    if one.value is None or other.value is None:
        return None
    sign = -1.0 if figure in LOWER_IS_BETTER else 1.0
    gap = sign * (one.value - other.value) + 0.0  # no negative zero
    higher, lower = (one, other) if one.value >= other.value else (other, one)
    noise = None
    if higher.low is not None and lower.high is not None and higher.value is not None and lower.value is not None:
        noise = math.hypot(higher.value - higher.low, lower.high - lower.value)
    return Difference(gap, noise)


def best_rows(rows: Sequence[Row], figures: Sequence[str]) -> list[Best]:
    """Return the best own model of each figure, models of finer levels included.

    By feature set, level and figure; of other feature sets than `paper` only the finest level, which nights use.
    """
    names = sorted({row.feature_set for row in rows if not row.published}, key=lambda name: name != "paper")
    found = []
    for feature_set, classes, figure in itertools.product(names, LEVELS, figures):
        if feature_set != "paper" and classes != max(LEVELS):
            continue
        same = [row for row in rows if (row.classes, row.feature_set) == (classes, feature_set)]
        if ranked := ranking(same, figure):
            first, second = ranked[0], ranked[1] if ranked[1:] else None
            ahead = difference(first, second, figure) if second else None
            found.append(Best(classes, feature_set, figure, first, second, ahead))
    return found


def ranking(rows: Sequence[Row], figure: str) -> list[Row]:
    """Return the rows that have a figure, the best first."""
    known = [(value, row) for row in rows if (value := row.value(figure)) is not None]
    return [row for _, row in sorted(known, key=lambda pair: pair[0], reverse=figure not in LOWER_IS_BETTER)]


def levels_of_one_model(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Return each row of a finer model beside that of the same model trained at the level, finer model first."""
    own = {(row.model, row.feature_set, row.classes): row for row in rows if row.own_level and not row.published}
    return [
        (row, own[key])
        for row in rows
        if not row.own_level and (key := (row.model, row.feature_set, row.classes)) in own
    ]


def scored_rows(rows: Sequence[Row]) -> list[int]:
    """Return the number of labelled flows of own models; several if models were scored on different flows."""
    return sorted({int(value) for row in rows if (value := row.value("rows")) is not None})


def setting_of(lake: Lake, split: str, models: Sequence[ScoredModel]) -> Setting:
    """Return the data of the models' figures."""
    try:
        facts = lake.facts("flows", "jobs/ingest.py")
    except TableMissing:  # metrics are kept when flows are removed
        facts = {"feature_schema": None, "rows": {}}
    synthetic = any(model.data_origin == "synthetic" for model in models) or facts.get("data_origin") == "synthetic"
    return Setting(split, facts["feature_schema"], "synthetic" if synthetic else "measured", dict(facts["rows"]))


def rows_of(models: Sequence[ScoredModel]) -> list[Row]:
    """Return rows of this lake, then published ones, for each number of classes.

    Of models read at a coarser level only those of 19 classes have rows.
    """
    shown = [model for model in models if model.own_level or model.of_classes == max(LEVELS)]
    own = sorted(
        map(_own, shown), key=lambda row: (row.feature_set != "paper", row.feature_set, row.model, not row.own_level)
    )
    rows = [*own, *(_published(row) for row in PUBLISHED)]
    return [row for classes in LEVELS for row in rows if row.classes == classes]


def tidy(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Yield the rows of `table.parquet`."""
    for row in rows:
        shared = {
            "classes": row.classes,
            "of_classes": row.of_classes,
            "run_id": None if row.published else row.source,
            "model": row.model,
            "feature_set": row.feature_set or None,
            "source": row.source if row.published else "this lake",
            "configuration": row.configuration or None,
            "averaging": row.averaging,
            "data_origin": row.data_origin,
        }
        for name in FIGURES:
            if name in row.figures:
                metric = row.figures[name]
                yield shared | {"metric": name, "value": metric.value, "low": metric.low, "high": metric.high}


def _own(model: ScoredModel) -> Row:
    training, averages = model.training, model.averages
    found = {name: model.metric(name) for name in _SCORED}
    figures = {name: metric for name, metric in found.items() if metric.value is not None}
    figures["rows"] = Metric(float(sum(scores.support for scores in model.scores.values())))
    for name, value in (
        ("parameters", _parameters(model)),
        ("epochs", training.get("epochs")),
        ("seconds", training.get("seconds", averages.get("fit_seconds"))),
    ):
        if value is not None:
            figures[name] = Metric(float(value))
    epochs, seconds = (figures[name].value if name in figures else None for name in ("epochs", "seconds"))
    if epochs and seconds is not None and "nodes" not in training:  # seconds of a blend are also those of its trees
        figures["seconds_per_epoch"] = Metric(seconds / epochs)
    return Row(
        model.title,
        model.feature_set,
        model.classes,
        model.of_classes,
        model.run_id,
        _configuration(model),
        "macro and weighted",
        model.data_origin,
        figures,
    )


def _parameters(model: ScoredModel) -> float | None:
    """Return the weights of a network and the nodes of trees, of a blend their sum; None where unknown."""
    known = [model.training[name] for name in ("parameters", "nodes") if name in model.training]
    return sum(known) if known else model.averages.get("nodes")


def _configuration(model: ScoredModel) -> str:
    """Return the training settings of a model; for a forest, which has no card, the number of trees."""
    if model.card is None:
        trees = model.averages.get("trees")
        return f"{trees:.0f} trees by Spark ML" if trees else ""
    training, settings, parts = model.training, model.card.hyperparameters, [f"recipe {model.card.recipe}"]
    if "rounds" in settings:
        parts.append(f"{settings['rounds']} rounds, depth {settings['max_depth']}, rate {settings['learning_rate']:g}")
    if "share" in settings:
        parts.append(f"{settings['share']:g} {settings['network']}, {1 - settings['share']:g} xgboost")
    if "peak_learning_rate" in training:
        parts.append(f"Adam {training['peak_learning_rate']:g} {training.get('schedule', 'constant')}")
    if "batch_size" in training:
        parts.append(f"batch {training['batch_size']}")
    if "ranks" in training:
        parts.append(f"{training['ranks']} ranks")
    return ", ".join(parts)


def _published(row: Published) -> Row:
    kind = row.averaging.replace(" ", "_")
    found = {
        "accuracy": row.accuracy,
        **{f"{name}_{kind}": getattr(row, name) for name in AVERAGED},
        "benign_false_positive_rate": row.benign_false_positive_rate,
    }
    figures = {name: Metric(value) for name, value in found.items() if value is not None}
    return Row(row.model, "", row.classes, row.classes, row.source, "", row.averaging, "published", figures)
