"""Trains boosted trees (XGBoost): a model for every number of classes and feature set of the configuration.

    spark-submit --py-files dist/ids_spark.zip jobs/boost.py --set lake=LAKE

Reads: `features/<recipe>`. Each model is trained by `boost.workers` Spark tasks, for `boost.rounds` rounds.
Writes: `models/xgboost[-<variant>]-<classes>-<feature_set>/<version>`; the version is the run id. With `train.sign_key`
they are signed.
"""

import sys

from ids_spark.base.report import Report
from ids_spark.models import signatures
from ids_spark.runtime import job
from ids_spark.train import boosting


def run(context: job.Context) -> Report:
    """Train every model of the configuration."""
    config = context.config
    key = signatures.load_sign_key(config.train.sign_key)  # before workers start
    return boosting.train_models(
        *(context.spark.sparkContext, context.lake, context.staged, config.features.recipe),
        *(config.boost, config.train, config.seed, context.run_id),
        key=key,
    )


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__))
