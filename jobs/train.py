"""Features to models: every architecture, number of classes and profile of the configuration, on Horovod ranks.

    spark-submit --py-files dist/ids_spark.zip jobs/train.py --set lake=LAKE

Reads: `features/<recipe>`. Each model trains on `train.ranks` Spark tasks until the validation loss, averaged over
ranks, stops falling; the best weights are kept.
Writes: `models/<architecture>[-<variant>]-<classes>-<profile>/<version>`; the version is the run id.
"""

import itertools
import logging
import sys

from ids_spark import job, training
from ids_spark.audit import Report

log = logging.getLogger(__name__)


def run(context: job.Context) -> Report:
    """Train every model that the configuration names."""
    config, sc = context.config.train, context.spark.sparkContext
    table = training.open_features(context.lake, context.config.features.recipe, config.ranks)
    report = Report(feature_schema=table.preprocessor.schema.name, data_origin=table.preprocessor.data_origin)
    for profile, classes, architecture in itertools.product(config.profiles, config.classes, config.models):
        card = training.card_of(table, config, architecture, classes, profile, context.run_id)
        place = f"models/{card.name}/{card.version}"
        checkpoint = context.lake.uri(f"checkpoints/{card.name}.npz")
        board = context.lake.uri(f"tensorboard/{card.name}/{card.version}") if config.tensorboard else ""
        task = training.Task(table, context.staged(place), checkpoint, board, card, config, context.config.seed)
        done = training.launch(sc, task)
        log.info("trained %s epochs=%d best_epoch=%d", card.name, done["epochs"], done["best_epoch"])
        report.models.append(f"{card.name}/{card.version}")
        report.tables.append(place)
    report.rows_in = report.rows_out = table.rows["train"] + table.rows["validation"]
    return report


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__))
