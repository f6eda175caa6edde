"""Features to models: every architecture, number of classes and feature_set of the configuration, on Horovod ranks.

    spark-submit --py-files dist/ids_spark.zip jobs/train.py --set lake=LAKE

Reads: `features/<recipe>`. Each model trains on `train.ranks` Spark tasks until the validation loss, averaged over
ranks, stops falling; the best weights are kept. Ranks start once for each architecture.
Writes: `models/<architecture>[-<variant>]-<classes>-<feature_set>/<version>`; the version is the run id.
"""

import itertools
import sys

from ids_spark.base.report import Report
from ids_spark.runtime import job
from ids_spark.train.launch import launch, resumed
from ids_spark.train.tasks import TrainingTask, card_of, open_features


def run(context: job.Context) -> Report:
    """Train every model that the configuration names."""
    config, sc = context.config.train, context.spark.sparkContext
    table = open_features(context.lake, context.config.features.recipe, config.ranks)
    report = Report(feature_schema=table.preprocessor.schema.name, data_origin=table.preprocessor.data_origin)
    tasks = []
    for architecture, feature_set, classes in itertools.product(config.models, config.feature_sets, config.classes):
        card = card_of(table, config, architecture, classes, feature_set, context.run_id)
        place = f"models/{card.name}/{card.version}"
        checkpoint = context.lake.uri(f"checkpoints/{card.name}.npz")
        board = context.lake.uri(f"tensorboard/{card.name}/{card.version}") if config.tensorboard else ""
        tasks.append(TrainingTask(table, context.staged(place), checkpoint, board, card, config, context.config.seed))
        report.models.append(f"{card.name}/{card.version}")
        report.tables.append(place)
    for _, group in itertools.groupby(resumed(tasks) if config.resume else tasks, lambda task: task.card.architecture):
        launch(sc, list(group))
    report.rows_in = report.rows_out = table.rows["train"] + table.rows["validation"]
    return report


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__))
