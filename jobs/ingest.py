"""Raw CICIoMT2024 flows, and flows of the site's own nights, to typed, labelled flows.

    spark-submit --py-files dist/ids_spark.zip jobs/ingest.py --set lake=LAKE --set ingest.source=FOLDER
    spark-submit --py-files dist/ids_spark.zip jobs/ingest.py --set lake=LAKE --set ingest.local=LOGS

Reads: with `ingest.source` the official tree of CSV files (also gzip), the same tree as parquet, or one table with a
column of labels (file names); of a Delta table, the files of its newest state. Every file below the source that is not
read is named, with the reason. With `ingest.local` flow logs of nights, as scoring does; their flows count as benign.
Writes: `flows/split=train|test` (rows shuffled by hash), `flows/split=local` and `quarantine/job=ingest` (rows refused,
with reason). Without `ingest.source` the data set stays as it is; without `ingest.local` the local rows stay if the new
data set has the same release and window length, else they are removed.
"""

import sys

from ids_spark.base.report import Report
from ids_spark.runtime import job


def run(context: job.Context) -> Report:
    """Ingest a data set, nights, or both."""
    from ids_spark.adapt import ingestion  # imported here, while the Spark session starts

    return ingestion.write_sources(
        lambda: context.spark.sparkContext, context.lake, context.staged, context.config, context.run_id
    )


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__, needs_spark=True))
