"""Trains every architecture, number of classes and feature set of a configuration: what `jobs/train.py` does."""

import itertools
import logging
from collections.abc import Callable

from pyspark import SparkContext

from ids_spark.base.report import Report
from ids_spark.config.train import ModelName, TrainConfig
from ids_spark.lake.filesystem import remove_unfinished, require_below
from ids_spark.lake.store import Lake
from ids_spark.models import signatures
from ids_spark.models.artifact import network_card, read_model
from ids_spark.models.signatures import SignKey
from ids_spark.train import slots
from ids_spark.train.launch import launch, resumed
from ids_spark.train.slots import TooFewSlots
from ids_spark.train.tasks import FeatureTable, TrainingTask, card_of, require_same

log = logging.getLogger(__name__)


def train_models(
    spark_context: SparkContext,
    lake: Lake,
    staged: Callable[[str], str],
    table: FeatureTable,
    config: TrainConfig,
    seed: int,
    run_id: str,
    initial: str = "",
    initial_sha256: str | None = None,
    key: SignKey | None = None,
) -> Report:
    """Train models and stage their directories; ranks start once for each architecture.

    Args:
        spark_context: Its executors start the ranks.
        lake: Where checkpoints and TensorBoard files go.
        staged: Returns the URI of the staged version of a table.
        table: The feature table.
        config: Models and their training.
        seed: Seed of weights, dropout and shuffle.
        run_id: Of the run, and version of the models.
        initial: URI of a model directory whose weights are the first of every model; empty for fresh ones.
        initial_sha256: Of its manifest, if it was checked before.
        key: Signs the models; None: they are not signed.

    Raises:
        ModelUnusable: `initial` is no model.
        OtherModel: a model has another architecture, other hyperparameters, classes or features than `initial`.
        TooFewSlots: Spark has fewer task slots than ranks, or does not state them though `train.ranks` is `auto`.
    """
    chosen = {name: _with_ranks(spark_context, table, config, name) for name in config.models}
    report = Report(feature_schema=table.preprocessor.schema.name, data_origin=table.preprocessor.data_origin)
    first = read_model(initial, initial_sha256) if initial else None
    tasks = []
    for architecture, feature_set, classes in itertools.product(config.models, config.feature_sets, config.classes):
        own_config = chosen[architecture]
        card = card_of(table, own_config, architecture, classes, feature_set, run_id)
        path = f"models/{card.name}/{card.version}"
        checkpoint = lake.uri(f"checkpoints/{card.name}.npz")
        tensorboard_dir = lake.uri(f"tensorboard/{card.name}/{card.version}") if config.tensorboard else ""
        of_first = ""
        if first is not None:
            require_same(network_card(first.card), card)  # before ranks start
            of_first = first.sha256
        task = TrainingTask(
            *(table, staged(path), checkpoint, tensorboard_dir, card, own_config, seed),
            initial=initial,
            initial_sha256=of_first,
        )
        tasks.append(task)
        report.models.append(f"{card.name}/{card.version}")
        report.tables.append(path)
    for task in tasks:
        for uri in filter(None, (task.checkpoint, task.tensorboard_dir)):  # written in place
            require_below(lake.root, uri)
        remove_unfinished(task.checkpoint)
    for _, group in itertools.groupby(resumed(tasks) if config.resume else tasks, lambda task: task.card.architecture):
        own = list(group)
        for task, sha256 in zip(own, launch(spark_context, own), strict=True):
            if key is not None:  # what the rank has written, whatever is in its folder by now
                signatures.sign_model(task.target, key, task.card.name, task.card.version, sha256)
    if key is not None:
        report.notes.append(f"models were signed by the key {key.key_id}")
    if not config.ranks:
        report.notes += [f"train.ranks auto: {own.ranks} for {name}" for name, own in chosen.items()]
    report.rows_in = report.rows_out = table.rows["train"] + table.rows["validation"]
    return report


def _with_ranks(spark_context: SparkContext, table: FeatureTable, config: TrainConfig, name: ModelName) -> TrainConfig:
    """Return the configuration with the number of ranks for an architecture, if it is to be chosen.

    Raises:
        TooFewSlots: it is to be chosen, but the number of task slots is not known.
    """
    if config.ranks:
        return config
    from ids_spark.models import architectures  # imports TensorFlow

    free = slots.at_once(spark_context)
    if free is None:
        raise TooFewSlots(
            "train.ranks is auto, but Spark does not state how many tasks run at once; set spark.executor.instances and"
            " spark.executor.cores, or train.ranks to a number"
        )
    hyperparameters = getattr(config, name).model_dump()
    columns = min(len(table.preprocessor.feature_set(each)) for each in config.feature_sets)
    products = architectures.products(name, columns, min(config.classes), hyperparameters)
    ranks = slots.best_ranks(config.batch_size, products, min(free, table.row_groups))
    log.info(
        "architecture=%s ranks=%d slots=%d batch_size=%d products=%d", name, ranks, free, config.batch_size, products
    )
    return config.model_copy(update={"ranks": ranks})
