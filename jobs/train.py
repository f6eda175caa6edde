"""Trains models on Horovod ranks: every architecture, number of classes and feature set of the configuration.

    spark-submit --py-files dist/ids_spark.zip jobs/train.py --set lake=LAKE

Reads: `features/<recipe>`. Each model is trained on `train.ranks` Spark tasks until `train.monitor` stops improving;
the best weights are kept. Ranks start once for each architecture.
Writes: `models/<architecture>[-<variant>]-<classes>-<feature_set>/<version>`; the version is the run id.
"""

import itertools
import sys

from ids_spark.base.report import Report
from ids_spark.runtime import job
from ids_spark.train.launch import launch, resumed
from ids_spark.train.tasks import TrainingTask, card_of, open_features


def run(context: job.Context) -> Report:
    """Train every model of the configuration."""
    config, sc = context.config.train, context.spark.sparkContext
    table = open_features(context.lake, context.config.features.recipe, config.ranks)
    report = Report(feature_schema=table.preprocessor.schema.name, data_origin=table.preprocessor.data_origin)
    tasks = []
    for architecture, feature_set, classes in itertools.product(config.models, config.feature_sets, config.classes):
        card = card_of(table, config, architecture, classes, feature_set, context.run_id)
        path = f"models/{card.name}/{card.version}"
        checkpoint = context.lake.uri(f"checkpoints/{card.name}.npz")
        tensorboard_dir = context.lake.uri(f"tensorboard/{card.name}/{card.version}") if config.tensorboard else ""
        seed = context.config.seed
        tasks.append(TrainingTask(table, context.staged(path), checkpoint, tensorboard_dir, card, config, seed))
        report.models.append(f"{card.name}/{card.version}")
        report.tables.append(path)
    for _, group in itertools.groupby(resumed(tasks) if config.resume else tasks, lambda task: task.card.architecture):
        launch(sc, list(group))
    report.rows_in = report.rows_out = table.rows["train"] + table.rows["validation"]
    return report


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__))
