"""Trains every architecture, number of classes and feature set of a configuration: what `jobs/train.py` does."""

import itertools
from collections.abc import Callable

from pyspark import SparkContext

from ids_spark.base.report import Report
from ids_spark.config.train import TrainConfig
from ids_spark.lake.store import Lake
from ids_spark.models.artifact import read_model
from ids_spark.train.launch import launch, resumed
from ids_spark.train.tasks import FeatureTable, TrainingTask, card_of, require_same


def train_models(
    spark_context: SparkContext,
    lake: Lake,
    staged: Callable[[str], str],
    table: FeatureTable,
    config: TrainConfig,
    seed: int,
    run_id: str,
    initial: str = "",
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

    Raises:
        ModelUnusable: `initial` is no model.
        OtherModel: a model has another architecture, other hyperparameters, classes or features than `initial`.
    """
    report = Report(feature_schema=table.preprocessor.schema.name, data_origin=table.preprocessor.data_origin)
    tasks = []
    for architecture, feature_set, classes in itertools.product(config.models, config.feature_sets, config.classes):
        card = card_of(table, config, architecture, classes, feature_set, run_id)
        path = f"models/{card.name}/{card.version}"
        checkpoint = lake.uri(f"checkpoints/{card.name}.npz")
        tensorboard_dir = lake.uri(f"tensorboard/{card.name}/{card.version}") if config.tensorboard else ""
        if initial:
            require_same(read_model(initial).card, card)  # before ranks start
        task = TrainingTask(table, staged(path), checkpoint, tensorboard_dir, card, config, seed, initial=initial)
        tasks.append(task)
        report.models.append(f"{card.name}/{card.version}")
        report.tables.append(path)
    for _, group in itertools.groupby(resumed(tasks) if config.resume else tasks, lambda task: task.card.architecture):
        launch(spark_context, list(group))
    report.rows_in = report.rows_out = table.rows["train"] + table.rows["validation"]
    return report
