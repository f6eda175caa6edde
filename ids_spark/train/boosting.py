"""Trains boosted trees for every number of classes and feature set of a configuration: what `jobs/boost.py` does.

Spark tasks train a model (`boosted_workers`), find benign train rows for its detector of unknown attacks, and score its
validation rows; the driver writes the model directory. It holds the scores of all validation rows, 40 bytes for each.

Several workers need `boost.open_network`; see `xgboost_network`.
"""

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from pyspark import SparkContext

from ids_spark.base.arrays import Floats32
from ids_spark.base.errors import InputError, Interrupted
from ids_spark.base.packaging import code_version
from ids_spark.base.report import Report
from ids_spark.base.spark_tasks import run_each
from ids_spark.config.boost import BoostJobConfig
from ids_spark.config.train import TrainConfig
from ids_spark.dataset.features import column_of
from ids_spark.lake.filesystem import require_below
from ids_spark.lake.store import Lake
from ids_spark.models import artifact, novelty, signatures
from ids_spark.models.artifact import ModelCard
from ids_spark.models.boosted_trees import BoostedTrees
from ids_spark.models.novelty import Novelty
from ids_spark.models.signatures import SignKey
from ids_spark.models.threshold import ValidationScores
from ids_spark.train import boosted_workers, feature_rows, progress, slots, validation, xgboost_network
from ids_spark.train.boosted_workers import Share
from ids_spark.train.feature_rows import RowGroup
from ids_spark.train.tasks import LOCAL, FeatureTable, open_features, untrained_card, with_local
from ids_spark.train.validation import ScoredRows

log = logging.getLogger(__name__)


class OneClass(InputError):
    """Raised when train has rows of one class only, from which no trees can be grown."""


class WorkersLost(Interrupted):
    """Raised when a worker failed or was killed; one alone, when Spark has started it again."""


@dataclass(frozen=True)
class Workers:
    """The Spark tasks that train a model together.

    Attributes:
        number: At least 1.
        threads: Of each of them.
    """

    number: int
    threads: int


def workers_of(spark_context: SparkContext, config: BoostJobConfig) -> Workers:
    """Return `boost.workers` workers, fewer if Spark runs fewer tasks at once.

    A worker has the cores of a task; in local mode all of them together have one thread for each slot.

    Raises:
        OpenNetwork: there would be several workers, and `boost.open_network` is not set.
        InputError: there would be several workers, and Spark may end any of them (dynamic allocation).
    """
    possible = slots.at_once(spark_context)
    number = config.workers if possible is None else min(config.workers, possible)
    threads = slots.task_cpus(spark_context)
    if possible is not None and slots.is_local(spark_context):
        threads *= max(1, possible // number)
    if number > 1:
        found, one = f"boost.workers is {config.workers}", "one worker (with more cores: --conf spark.task.cpus)"
        xgboost_network.require(spark_context, found, one, "boost.open_network", config.open_network)
    return Workers(number, threads)


def train_models(
    spark_context: SparkContext,
    lake: Lake,
    staged: Callable[[str], str],
    recipe: str,
    config: BoostJobConfig,
    train: TrainConfig,
    seed: int,
    run_id: str,
    key: SignKey | None = None,
) -> Report:
    """Train trees and stage their model directories.

    Args:
        spark_context: Its executors read and train.
        lake: Holds the feature table.
        staged: Returns the URI of the staged version of a table.
        recipe: Name of the feature table.
        config: Trees and workers.
        train: Its numbers of classes, feature sets, variant and weight of local rows.
        seed: Of the draws of rows and features.
        run_id: Of the run, and version of the models.
        key: Signs the models; None: they are not signed.

    Raises:
        TableMissing: the recipe was not written yet.
        TooFewRowGroups: the train split has fewer row groups than there are workers.
        OpenNetwork: see `workers_of`.
        OneClass: train has rows of one class only.
    """
    workers = workers_of(spark_context, config)
    table = open_features(lake, recipe, workers.number)
    report = Report(feature_schema=table.preprocessor.schema.name, data_origin=table.preprocessor.data_origin)
    if workers.number < config.workers:
        report.notes.append(
            f"boost.workers is {config.workers}, but Spark runs {workers.number} task(s) at once: trained by as many"
        )
    cards = _cards_of(table, config, train, run_id)
    detectors: dict[tuple[str, ...], Novelty | None] = {}
    for card in cards:
        path = f"models/{card.name}/{card.version}"
        file = lake.uri(f"checkpoints/{card.name}.npz")
        require_below(lake.root, file)  # progress is written in place
        begin = time.monotonic()
        trees = grown(spark_context, table, card, config, workers, seed, train, progress.progress_uri(file))
        facts = _facts(trees, workers, table, seed, time.monotonic() - begin)
        if card.features not in detectors:
            detectors[card.features] = fit_detector(spark_context, table, card)
        scores, detector = score_validation_rows(spark_context, table, card, trees, detectors[card.features])
        sha256 = artifact.write_model(
            *(staged(path), replace(card, training=facts), [], table.preprocessor, scores, detector, trees)
        )
        if key is not None:
            signatures.sign_model(staged(path), key, card.name, card.version, sha256)
        if detector is None:
            least = novelty.least_rows(len(card.features))
            report.notes.append(f"{card.name} has no detector of unknown attacks: it needs {least} benign train rows")
        log.info(
            "trained %s trees=%d nodes=%d seconds=%.1f", card.name, facts["trees"], facts["nodes"], facts["seconds"]
        )
        report.models.append(f"{card.name}/{card.version}")
        report.tables.append(path)
    if key is not None:
        report.notes.append(f"models were signed by the key {key.key_id}")
    report.rows_in = report.rows_out = table.rows["train"] + table.rows["validation"]
    return report


def _cards_of(table: FeatureTable, config: BoostJobConfig, train: TrainConfig, run_id: str) -> list[ModelCard]:
    """Return the cards of the models to be trained.

    Raises:
        OneClass: train has rows of one class only.
    """
    hyperparameters = config.hyperparameters.model_dump(mode="json")
    cards = [
        with_local(untrained_card(table, artifact.TREES, train.variant, hyperparameters, *each, run_id), table, train)
        for each in product(train.classes, train.feature_sets)
    ]
    for card in cards:
        if len(artifact.present_classes(card)) < 2:
            raise OneClass(
                f"{table.uri}/split=train has rows of one of {card.classes} classes; expected at least two: run"
                " jobs/ingest.py and jobs/features.py on flows of several classes, or set train.classes"
            )
    return cards


def grown(
    spark_context: SparkContext,
    table: FeatureTable,
    card: ModelCard,
    config: BoostJobConfig,
    workers: Workers,
    seed: int,
    train: TrainConfig,
    progress_uri: str,
) -> bytes:
    """Return the trees of a model as XGBoost's JSON, with its progress in the log.

    Args:
        spark_context: Its executors train.
        table: The feature table.
        card: Of the model.
        config: Trees.
        workers: From `workers_of`.
        seed: Of the draws of rows and features.
        train: Weight of local rows.
        progress_uri: URI of the progress file.
    """
    groups = feature_rows.row_groups(f"{table.uri}/split=train")
    columns, present = _columns(card), tuple(artifact.present_classes(card))
    shares = [
        Share(
            name=card.name,
            groups=groups[i :: workers.number],
            columns=columns,
            label=f"label{card.classes}",
            present=present,
            config=config.hyperparameters,
            seed=seed,
            threads=workers.threads,
            row_weights=table.row_weights(train),
            progress=progress_uri,
        )
        for i in range(workers.number)
    ]
    try:
        with progress.following(progress_uri, lambda line: log.info("%s", line)):
            return boosted_workers.train(spark_context, shares)
    except InputError:
        raise
    except Exception as error:
        raise WorkersLost(
            f"a worker that trained {card.name} failed or was killed ({' '.join(str(error).split())[:300]}); see its"
            " output above, and run jobs/boost.py again"
        ) from error


def fit_detector(spark_context: SparkContext, table: FeatureTable, card: ModelCard) -> Novelty | None:
    """Return the second detector, fitted on the first benign train rows of each row group; None if there are too few.

    Without local rows, the first two million train rows are searched.
    """
    local, n_features = table.local_rows("train") > 0, len(card.features)
    columns = (*_columns(card), *((LOCAL,) if local else ()))
    groups = feature_rows.row_groups(f"{table.uri}/split=train")
    if not local:
        ends = np.cumsum([group.rows for group in groups])
        groups = groups[: int(np.searchsorted(ends, validation.NOVELTY_READ)) + 1]
    of_each = -(-validation.NOVELTY_ROWS // (1 + local) // len(groups))

    def first(run: Sequence[RowGroup]) -> list[tuple[Floats32, Floats32]]:
        read = feature_rows.read(run, columns, "label2")
        return [validation.first_benign([rows], n_features, local, of_each) for rows in read]

    found = [each for run in run_each(spark_context, _runs(spark_context, groups), first) for each in run]
    of_data_set, own = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return validation.fit_detector(of_data_set, own, local)


def score_validation_rows(
    spark_context: SparkContext, table: FeatureTable, card: ModelCard, trees: bytes, detector: Novelty | None
) -> tuple[ValidationScores, Novelty | None]:
    """Return the validation scores of trees, and the second detector with theirs; see `validation.stored_scores`."""
    columns, present = (*_columns(card), *validation.more_columns(table)), artifact.present_classes(card)
    groups = feature_rows.row_groups(f"{table.uri}/split=validation")
    of_each = -(-validation.BASELINE_ROWS // len(groups))

    def scored(run: Sequence[RowGroup]) -> ScoredRows:
        model = BoostedTrees(trees, card.classes, present)
        read = feature_rows.read(run, columns, f"label{card.classes}")
        return validation.joined(
            [validation.scored(table, model.probabilities, detector, *rows, most=of_each) for rows in read]
        )

    parts = run_each(spark_context, _runs(spark_context, groups), scored)
    return validation.stored_scores(table, card.classes, validation.joined(parts), detector)


def _columns(card: ModelCard) -> tuple[str, ...]:
    return tuple(column_of(name) for name in card.features)


def _runs(spark_context: SparkContext, groups: Sequence[RowGroup]) -> list[list[RowGroup]]:
    """Return row groups in a run for each slot; results do not depend on their number."""
    return feature_rows.in_runs(groups, slots.at_once(spark_context) or spark_context.defaultParallelism)


def _facts(trees: bytes, workers: Workers, table: FeatureTable, seed: int, seconds: float) -> dict[str, Any]:
    """Return the entry `training` of a card."""
    grown_trees = json.loads(trees)["learner"]["gradient_booster"]["model"]["trees"]
    return {
        "code_version": code_version(),
        "workers": workers.number,
        "threads": workers.threads,
        "seed": seed,
        "train_rows": table.rows["train"],
        "trees": len(grown_trees),
        "nodes": sum(len(tree["left_children"]) for tree in grown_trees),
        "seconds": seconds,
    }
