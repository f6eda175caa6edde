"""The tables of a lake as Delta tables, for Databricks, Spark, Trino, DuckDB and polars.

    spark-submit --py-files dist/ids_spark.zip jobs/export.py --set lake=LAKE --set export.delta=FOLDER

With `export.delta` in its configuration every job does this at its end. This job does it alone: for a lake that exists
already, after an export that failed, and to delete versions older than `export.keep_days`. It needs no executors.

Reads: `predictions/`, `incidents/`, `alerts/`, `nights/`, `drift/`, `metrics/`, `audit/`, `verdicts/`,
`quarantine/job=score/`.
Writes: the Delta tables.
"""

import sys

from ids_spark.base.report import Report
from ids_spark.runtime import job


def run(context: job.Context) -> Report:
    """Bring the Delta tables to the state of the lake."""
    from ids_spark.lake import delta

    config = context.config.export
    target = config.target()
    context.lake.require_tables()
    changed = delta.export(context.lake, target, context.run_id, config.keep_days)
    report = Report(lines=[f"Delta tables in {target}:"])
    for done in changed:
        report.lines.append(f"  {done.table}: version {done.version}, {done.added} files added, {done.removed} removed")
    if not changed:
        report.lines.append("  were up to date")
    return report


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__))
