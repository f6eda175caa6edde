"""From raw flows to model-ready features: the jobs ingest and features in one Spark application.

    spark-submit --py-files dist/ids_spark.zip jobs/prepare.py --set lake=LAKE --set ingest.source=FOLDER

The same as jobs/ingest.py and then jobs/features.py with the same options, without a second start of Spark: each has
its own run id, audit row and commit. If ingest does not end with exit code 0, features does not run, and the exit code
is that of ingest.
"""

import sys
from collections.abc import Callable
from typing import Final

from ids_spark.base.report import Report
from ids_spark.runtime import job


def ingest(context: job.Context) -> Report:
    """Ingest a data set, nights, or both."""
    from ids_spark.adapt import ingestion  # imported here, while the Spark session starts

    return ingestion.write_sources(
        lambda: context.spark.sparkContext, context.lake, context.staged, context.config, context.run_id
    )


def features(context: job.Context) -> Report:
    """Fit the preprocessor and write the feature table of one recipe."""
    from ids_spark.features import fitting  # imported here, while the Spark session starts

    spark, config = context.spark.sparkContext, context.config.features
    return fitting.write_recipe(spark, context.lake, context.staged, config, context.run_id)


RUNS: Final[dict[str, Callable[[job.Context], Report]]] = {"ingest": ingest, "features": features}

if __name__ == "__main__":
    sys.exit(job.sequence(RUNS, __doc__, needs_spark=True))
