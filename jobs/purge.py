"""Retention: removes old nights from every table except the audit.

    spark-submit --py-files dist/ids_spark.zip jobs/purge.py --set lake=LAKE --set purge.older_than_days=90

Removes: folders `event_date=…` of every table of nights, files of `metrics/` and `confusion/`, and rows of local nights
in `flows/split=local` and `quarantine/job=ingest`, with dates more than `purge.older_than_days` before `purge.today`.
"""

import datetime as dt
import sys

from ids_spark.adapt import local_purge
from ids_spark.base.report import Report
from ids_spark.lake import retention
from ids_spark.runtime import job


def run(context: job.Context) -> Report:
    """Remove the dates before the limit."""
    config = context.config.purge
    first = retention.first_kept(config.older_than_days, config.today, dt.datetime.now(dt.UTC))
    done = retention.purge(context.lake, first)
    local = local_purge.purge_local(
        lambda: context.spark.sparkContext, context.lake, context.staged, first, context.run_id
    )
    report = Report(tables=list(local))
    for table, rows in local.items():
        report.counts[f"rows removed from {table}", "", None] = rows
    for table in (*retention.BY_DATE, *retention.BY_RUN):
        what = "dates" if table in retention.BY_DATE else "files"
        report.counts[f"{what} removed from {table}", "", None] = len(done.dates.get(table, ()))
    removed = [f"removed {done.span[0]} to {done.span[1]}"] if done.span else []
    removed += [f"{rows} rows of older nights removed from {table}" for table, rows in local.items()]
    span = "; ".join(removed) or "no date is older"
    report.notes.append(f"dates before {first} are not kept: {span}")
    report.notes += [f"{path} has no date in its name; it was not removed" for path in done.undated]
    return report


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__))
