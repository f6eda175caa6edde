"""Fits the preprocessor and writes the feature table.

    spark-submit --py-files dist/ids_spark.zip jobs/features.py --set lake=LAKE

Reads: `flows/`. Drops exact duplicates within each split, compared as float64, holds out validation rows by hash and
runs of benign rows as blocks, drops features whose population standard deviation over train is at most
`features.min_std`, replaces infinities by finite extremes, standardises, casts to float32.
Writes: `features/<recipe>/split=train|validation|test` and `features/<recipe>/_preprocessor.json`.
"""

import sys

from ids_spark.base.report import Report
from ids_spark.runtime import job


def run(context: job.Context) -> Report:
    """Fit the preprocessor and write the feature table of one recipe."""
    from ids_spark.features import fitting  # imported here, while the Spark session starts

    spark, config = context.spark.sparkContext, context.config.features
    return fitting.write_recipe(spark, context.lake, context.staged, config, context.run_id)


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__, needs_spark=True))
