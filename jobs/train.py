"""Trains models on Horovod ranks: every architecture, number of classes and feature set of the configuration.

    spark-submit --py-files dist/ids_spark.zip jobs/train.py --set lake=LAKE

Reads: `features/<recipe>`. Each model is trained on `train.ranks` Spark tasks until `train.monitor` stops improving;
the best weights are kept. Ranks start once for each architecture.
Writes: `models/<architecture>[-<variant>]-<classes>-<feature_set>/<version>`; the version is the run id. With
`train.sign_key` they are signed.
"""

import sys

from ids_spark.base.report import Report
from ids_spark.models import signatures
from ids_spark.runtime import job
from ids_spark.train import training
from ids_spark.train.tasks import open_features


def run(context: job.Context) -> Report:
    """Train every model of the configuration."""
    config = context.config
    key = signatures.load_sign_key(config.train.sign_key)  # before ranks start
    table = open_features(context.lake, config.features.recipe, config.train.ranks)
    return training.train_models(
        *(context.spark.sparkContext, context.lake, context.staged, table, config.train, config.seed, context.run_id),
        key=key,
    )


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__))
