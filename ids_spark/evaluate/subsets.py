"""Metrics of parts of the test rows: rows whose vector stands in train or not, and rows of one capture file.

A model can know a vector that stands in train by heart; what it does with the others is what it would do elsewhere.
Predictions and the keys of train are shuffled by row key, so that each task has all rows of its keys, and counts them;
the driver receives counts. Equal keys are taken as equal vectors, as in `leakage`.

A row counts as flagged if the log-odds of its `attack_probability` reach the threshold of nights. That column is
float32: if the threshold is above 16, rows with a probability of 1 count as flagged.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from pyspark import SparkContext

from ids_spark.base.arrays import Counts
from ids_spark.base.spark_tasks import run_shuffled
from ids_spark.dataset.taxonomy import BENIGN_ID, CLASS19, CLASSES, Level, parents
from ids_spark.evaluate import bootstrap
from ids_spark.evaluate.metrics import metrics_of, ratio, row_of, scores_of
from ids_spark.evaluate.night_metrics import AT_NIGHT, BENIGN_AT_NIGHT
from ids_spark.evaluate.results import Results, ScoredModel
from ids_spark.evaluate.score_counts import FINEST
from ids_spark.ingest import row_hash
from ids_spark.lake.filesystem import files_in
from ids_spark.lake.parquet import SUFFIX, open_part
from ids_spark.lake.store import Lake
from ids_spark.models import artifact

UNSEEN: Final = "unseen"
SEEN: Final = "seen"
OF_FILE: Final = "file="
DIFFERENCE: Final = "{}_difference"
"""Name of the difference of a metric: rows that are not in train minus all rows."""
COMPARED: Final = ("accuracy", "f1_macro", "benign_false_positive_rate", AT_NIGHT, BENIGN_AT_NIGHT)
_KEYS_PER_TASK: Final = 500_000
_CELL: Final = ["model", "file", "label", "predicted", "flagged", "seen"]


@dataclass(frozen=True)
class Scored:
    """A model whose predictions are counted.

    Attributes:
        model: Its newest results at its own level.
        threshold: Attack logit from which nights flag flows; None for a model without validation scores.
        uris: Files of its predictions.
    """

    model: ScoredModel
    threshold: float | None
    uris: tuple[str, ...]


def scored_models(lake: Lake, models: Iterable[ScoredModel], split: str) -> list[Scored]:
    """Return those models that are stored and have predictions of the split.

    Raises:
        ModelUnusable: when a model's directory was changed or cannot be read.
    """
    found = []
    for model in models:
        uris = files_in(lake.uri(f"split_predictions/split={split}/model={model.name}"), SUFFIX)
        if model.own_level and model.card is not None and uris:
            scores = artifact.read_model(lake.uri(f"models/{model.name}/{model.version}")).validation_scores
            found.append(Scored(model, None if scores is None else scores.operating_point().logit, tuple(uris)))
    return found


def count(spark_context: SparkContext, lake: Lake, models: Sequence[Scored]) -> pd.DataFrame:
    """Count labelled rows, each distinct one once, of each model.

    Returns:
        Columns `model` (place), `file`, `label` (at 19 classes), `predicted` (at the model's level), `flagged`, `seen`
        and `rows`; one row for each combination that occurs.
    """
    train = [(None, uri) for uri in files_in(lake.uri("flows/split=train"), SUFFIX)]
    predictions = [(place, uri) for place, each in enumerate(models) for uri in each.uris]
    levels = [each.model.classes for each in models]
    thresholds = [each.threshold for each in models]
    rows = 0
    for _, uri in (*train, *predictions):
        with open_part(uri) as file:
            rows += sum(file.rows)
    partitions = 1 + rows // _KEYS_PER_TASK

    def scatter(item: tuple[int | None, str]) -> Iterator[tuple[int, pd.DataFrame]]:
        place, uri = item
        for found in _keys_of(uri) if place is None else _predicted(place, uri, levels[place], thresholds[place]):
            target = row_hash.buckets(found["key"].to_numpy(), partitions)
            for k in np.unique(target):
                yield int(k), found[target == k]

    def gather(_: int, records: Iterable[pd.DataFrame]) -> pd.DataFrame:
        return _counted(list(records))

    parts = run_shuffled(spark_context, [*train, *predictions], partitions, scatter, gather)
    return pd.concat(parts).groupby(_CELL, as_index=False, dropna=False)["rows"].sum()


def _keys_of(uri: str) -> Iterator[pd.DataFrame]:
    with open_part(uri) as file:
        for i in range(len(file.rows)):
            yield pd.DataFrame({"model": -1, "key": np.unique(file.read(["row_key"], i)["row_key"].to_numpy())})


def _predicted(place: int, uri: str, level: Level, threshold: float | None) -> Iterator[pd.DataFrame]:
    columns = ["source_file", "source_row", "row_key", "class19", "attack_probability", f"predicted_class{level}_id"]
    ids = {name: i for i, name in enumerate(CLASS19)}
    with open_part(uri) as file:
        for i in range(len(file.rows)):
            rows = file.read(columns, i).to_pandas()
            rows = rows[rows["class19"].isin(ids)]
            attack = rows["attack_probability"].to_numpy(dtype=np.float64)
            with np.errstate(divide="ignore"):
                logits = np.log(attack) - np.log1p(-attack)
            found = pd.DataFrame(
                {
                    "model": place,
                    "key": rows["row_key"].to_numpy(),
                    "file": rows["source_file"].to_numpy(),
                    "row": rows["source_row"].to_numpy(),
                    "label": rows["class19"].map(ids).to_numpy(dtype=np.int8),
                    "predicted": rows[columns[-1]].to_numpy(dtype=np.int8),
                    "flagged": logits >= threshold if threshold is not None else False,
                }
            )
            if found.duplicated(["key", "label"]).any():  # many equal rows must not meet in one task
                found = _first_of_equal(found)
            yield found


def _first_of_equal(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the first row, by file and number, of each model, vector and label."""
    return rows.sort_values(["file", "row"]).drop_duplicates(["model", "key", "label"])


def _counted(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Count the rows of all models in one range of keys, which holds every row of its keys."""
    predicted = [part for part in parts if "file" in part]
    if not predicted:
        return pd.DataFrame(columns=[*_CELL, "rows"])
    rows = _first_of_equal(pd.concat(predicted))
    known = [part["key"].to_numpy() for part in parts if "file" not in part]
    rows["seen"] = np.isin(rows["key"].to_numpy(), np.concatenate(known)) if known else False
    return rows.groupby(_CELL, as_index=False, dropna=False).size().rename(columns={"size": "rows"})


def metrics_of_subsets(
    counts: pd.DataFrame, level: Level, seed: int, nights: bool = True
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a subset and a row of `metrics/` for every figure of one model.

    Args:
        counts: From `count`, of this model.
        level: Of the model.
        seed: Of the intervals.
        nights: Whether the model has a threshold of nights; without, there are no figures about it.

    Of rows that are and are not in train: the averages of `metrics.metrics_of`, and recall and benign rate at the
    threshold of nights; of the latter also the difference to all rows, with its interval. Of a file: `accuracy` and
    the share that nights flag.
    """
    rng = np.random.default_rng(seed)
    parts = np.stack([confusion_of(counts[counts["seen"] == seen], level) for seen in (False, True)])
    flagged = np.stack([_flagged(counts[counts["seen"] == seen]) for seen in (False, True)])
    drawn, drawn_flagged = bootstrap.draws_of(parts, rng), bootstrap.draws_of(flagged, rng)
    for i, subset in enumerate((UNSEEN, SEEN)):
        support, benign = int(parts[i].sum()), int(parts[i, BENIGN_ID].sum())
        if not support:
            continue
        values, draws = _figures(parts[i], flagged[i], level), _figures(drawn[:, i], drawn_flagged[:, i], level)
        whole = _figures(parts.sum(axis=0), flagged.sum(axis=0), level)
        whole_draws = _figures(drawn.sum(axis=1), drawn_flagged.sum(axis=1), level)
        for name, value in values.items():
            if name in (AT_NIGHT, BENIGN_AT_NIGHT) and not nights:
                continue
            rows = benign if name in ("benign_false_positive_rate", BENIGN_AT_NIGHT) else support
            yield subset, row_of(None, name, value, rows, draws[name])
            if subset == UNSEEN and name in COMPARED:
                change = draws[name] - whole_draws[name]
                yield subset, row_of(None, DIFFERENCE.format(name), value - whole[name], rows, change)
    for file, own in counts.groupby("file"):
        yield from ((f"{OF_FILE}{file}", row) for row in _of_file(own, level, rng, nights))


def confusion_of(counts: pd.DataFrame, level: Level) -> Counts:
    """Return labels by predictions at the model's level, shape (level, level), of rows of `count`."""
    found = np.zeros((level, level), dtype=np.int64)
    labels = parents(FINEST, level)[counts["label"].to_numpy(dtype=np.int64)]
    np.add.at(found, (labels, counts["predicted"].to_numpy(dtype=np.int64)), counts["rows"].to_numpy(dtype=np.int64))
    return found


def _flagged(counts: pd.DataFrame) -> Counts:
    """Return rows that nights do not flag and those that they do, by true class, shape (19, 2)."""
    found = np.zeros((FINEST, 2), dtype=np.int64)
    at = counts["label"].to_numpy(dtype=np.int64), counts["flagged"].to_numpy(dtype=np.int64)
    np.add.at(found, at, counts["rows"].to_numpy(dtype=np.int64))
    return found


def _figures(confusion: Counts, flagged: Counts, level: Level) -> Mapping[str, Any]:
    """Return the figures of stacked counts: of shape (…, level, level) and (…, 19, 2)."""
    found = dict(scores_of(confusion).averages)
    recalls = []
    for class_id in range(BENIGN_ID + 1, level):
        own = flagged[..., parents(FINEST, level) == class_id, :].sum(axis=-2)
        recalls.append(ratio(own[..., 1], own.sum(axis=-1)))
    known = ~np.isnan(recalls)
    found[AT_NIGHT] = ratio(np.nansum(recalls, axis=0), known.sum(axis=0))
    found[BENIGN_AT_NIGHT] = ratio(flagged[..., BENIGN_ID, 1], flagged[..., BENIGN_ID, :].sum(axis=-1))
    return found


def _of_file(counts: pd.DataFrame, level: Level, rng: np.random.Generator, nights: bool) -> Iterator[dict[str, Any]]:
    confusion, flagged = confusion_of(counts, level), _flagged(counts)
    yield next(row for row in metrics_of(confusion, CLASSES[level], rng) if row["metric"] == "accuracy")
    for name, own in ((BENIGN_AT_NIGHT, flagged[BENIGN_ID]), (AT_NIGHT, flagged[BENIGN_ID + 1 :].sum(axis=0))):
        if own.sum() and nights:
            draws = bootstrap.draws_of(own, rng)
            yield row_of(None, name, own[1] / own.sum(), int(own.sum()), ratio(draws[:, 1], draws.sum(axis=1)))


def add_to(results: Results, models: Sequence[Scored], counts: pd.DataFrame) -> None:
    """Add metrics and confusion matrices of the subsets of every model to what a run writes."""
    for place, each in enumerate(models):
        own, level = counts[counts["model"] == place], each.model.classes
        rows = metrics_of_subsets(own, level, results.seed, each.threshold is not None)
        matrices = {
            name: confusion_of(own[own["seen"] == seen], level) for name, seen in ((UNSEEN, False), (SEEN, True))
        }
        results.add_subsets(each.model, rows, matrices)
