"""The benchmark table: every scored model and the published figures, by number of classes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from ids_spark.dataset.taxonomy import LEVELS, Level
from ids_spark.evaluate.literature import PUBLISHED, Published
from ids_spark.evaluate.results import ScoredModel
from ids_spark.lake.store import Lake, TableMissing

AVERAGES: Final = tuple(f"{name}_{kind}" for kind in ("macro", "weighted") for name in ("precision", "recall", "f1"))
FIGURES: Final = (
    "accuracy",
    *AVERAGES,
    "f1_not_stated",
    "benign_false_positive_rate",
    "parameters",
    "epochs",
    "seconds_per_epoch",
    "seconds",
    "rows",
)
_OFFICIAL: Final = ("original45", "measured", {"train": 7_160_831, "test": 1_614_182})

_TEXTS: Final = ("run_id", "model", "feature_set", "source", "configuration", "averaging", "data_origin", "metric")
TABLE: Final = pa.schema([("classes", pa.int32()), *((name, pa.string()) for name in _TEXTS), ("value", pa.float64())])
"""`reports/benchmark/table.parquet`: one figure a row; see `Row`."""


@dataclass(frozen=True)
class Row:
    """One model at one number of classes, of this lake or published.

    Attributes:
        model: Title, or the authors' name.
        feature_set: `paper` or `operational`; empty for published figures.
        classes: 2, 6 or 19.
        source: Scoring run, or the publication.
        configuration: Training settings, in a few words.
        averaging: `macro and weighted` for own figures; for published figures as stated in the source.
        data_origin: `measured`, `synthetic` or `published`.
        figures: Value by name in `FIGURES`; unknown values are absent. For a forest `parameters` is the number of
            nodes; `rows` is the number of scored rows.
    """

    model: str
    feature_set: str
    classes: Level
    source: str
    configuration: str
    averaging: str
    data_origin: str
    figures: Mapping[str, float]

    @property
    def published(self) -> bool:
        """Whether the figures are published ones."""
        return self.data_origin == "published"


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


def scored_rows(rows: Sequence[Row]) -> list[int]:
    """Return the number of labelled flows of own models; several if models were scored on different flows."""
    return sorted({int(row.figures["rows"]) for row in rows if "rows" in row.figures})


def setting_of(lake: Lake, split: str, models: Sequence[ScoredModel]) -> Setting:
    """Return the data of the models' figures."""
    try:
        facts = lake.facts("flows", "jobs/ingest.py")
    except TableMissing:  # metrics are kept when flows are removed
        facts = {"feature_schema": None, "rows": {}}
    synthetic = any(model.data_origin == "synthetic" for model in models) or facts.get("data_origin") == "synthetic"
    return Setting(split, facts["feature_schema"], "synthetic" if synthetic else "measured", dict(facts["rows"]))


def rows_of(models: Sequence[ScoredModel]) -> list[Row]:
    """Return rows of this lake, then published ones, for each number of classes."""
    own = sorted(
        (_own(model) for model in models), key=lambda row: (row.feature_set != "paper", row.feature_set, row.model)
    )
    rows = [*own, *(_published(row) for row in PUBLISHED)]
    return [row for classes in LEVELS for row in rows if row.classes == classes]


def tidy(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Yield the rows of `table.parquet`."""
    for row in rows:
        shared = {
            "classes": row.classes,
            "run_id": None if row.published else row.source,
            "model": row.model,
            "feature_set": row.feature_set or None,
            "source": row.source if row.published else "this lake",
            "configuration": row.configuration or None,
            "averaging": row.averaging,
            "data_origin": row.data_origin,
        }
        for metric in FIGURES:
            if metric in row.figures:
                yield shared | {"metric": metric, "value": float(row.figures[metric])}


def _own(model: ScoredModel) -> Row:
    training, averages = model.training, model.averages
    figures = {name: averages[name] for name in FIGURES if name in averages}
    figures["rows"] = sum(scores.support for scores in model.scores.values())
    for name, value in (
        ("parameters", training.get("parameters", averages.get("nodes"))),
        ("epochs", training.get("epochs")),
        ("seconds", training.get("seconds", averages.get("fit_seconds"))),
    ):
        if value is not None:
            figures[name] = value
    if figures.get("epochs") and "seconds" in figures:
        figures["seconds_per_epoch"] = figures["seconds"] / figures["epochs"]
    return Row(
        model.title,
        model.feature_set,
        model.classes,
        model.run_id,
        _configuration(model),
        "macro and weighted",
        model.data_origin,
        figures,
    )


def _configuration(model: ScoredModel) -> str:
    """Return the training settings of a model; for a forest, which has no card, the number of trees."""
    if model.card is None:
        trees = model.averages.get("trees")
        return f"{trees:.0f} trees by Spark ML" if trees else ""
    training, parts = model.training, [f"recipe {model.card.recipe}"]
    if "peak_learning_rate" in training:
        parts.append(f"Adam {training['peak_learning_rate']:g} {training.get('schedule', 'constant')}")
    if "batch_size" in training:
        parts.append(f"batch {training['batch_size']}")
    if "ranks" in training:
        parts.append(f"{training['ranks']} ranks")
    return ", ".join(parts)


def _published(row: Published) -> Row:
    figures = {"accuracy": row.accuracy}
    if row.f1 is not None:
        figures[f"f1_{row.averaging.replace(' ', '_')}"] = row.f1
    if row.benign_false_positive_rate is not None:
        figures["benign_false_positive_rate"] = row.benign_false_positive_rate
    return Row(row.model, "", row.classes, row.source, "", row.averaging, "published", figures)
