"""Retention: removes what is older than a number of days from every table, and prints what remains and why.

    spark-submit --py-files dist/ids_spark.zip jobs/purge.py --set lake=LAKE --set purge.older_than_days=90

Removes what is more than `purge.older_than_days` before `purge.today`: folders `event_date=…` of every table of nights;
rows of local nights in `flows/split=local` and `quarantine/job=ingest`; feature tables and pages of adaptations that
were made of such nights; figures, pages, predictions of labelled splits, checkpoints and refused rows of the data set
by the day on which they were written; verdicts on such nights, except what still applies, which loses owner and reason.
Of any age: what ended runs staged. Each table has its rule in `dataset.tables`.
"""

import datetime as dt
import logging
import sys
from collections.abc import Callable

from pyspark import SparkContext

from ids_spark.adapt import local_purge
from ids_spark.alerts import verdict_purge
from ids_spark.base.errors import Message
from ids_spark.base.report import Report
from ids_spark.base.text import one_line, shown
from ids_spark.dataset.tables import TABLES
from ids_spark.ingest.files import UNREADABLE
from ids_spark.lake import retention
from ids_spark.lake.filesystem import exists
from ids_spark.runtime import job
from ids_spark.score import night_purge

log = logging.getLogger(__name__)


def run(context: job.Context) -> Report:
    """Remove what is older than the limit."""
    config, lake = context.config.purge, context.lake
    lake.require_tables()
    first = retention.first_kept(config.older_than_days, config.today, dt.datetime.now(dt.UTC))
    done = retention.purge(lake, first)
    staged, report, rows = context.staged, Report(), dict[str, int]()
    steps: dict[str, Callable[[], dict[str, int]]] = {
        "rows of flows": lambda: local_purge.purge_local(_spark(context), lake, staged, first, context.run_id),
        "verdicts": lambda: verdict_purge.purge_verdicts(lake, staged, first),
        "ended incidents of the first night": lambda: night_purge.purge_ended(lake, staged, first, context.config),
    }
    damaged = []
    for what, step in steps.items():
        try:
            rows |= step()
        except Exception as error:  # the other steps are done all the same, and the audit says what was removed
            known = error if isinstance(error, (Message, *UNREADABLE)) else job.known_fault(error, lake.root)
            damaged.append(f"{what} were not purged: {one_line(known or error)}")
            if known is None:
                log.error("%s were not purged", what, exc_info=error)
    report.tables = list(rows)
    for table in retention.WHOLE:
        what = "dates" if table in retention.BY_DATE else "entries"
        report.counts[f"{what} removed from {table}", "", None] = len(done.dates.get(table, ()))
    for table, n in rows.items():
        if n:
            report.counts[f"rows removed from {table}", "", None] = n
    removed = [f"removed {done.span[0]} to {done.span[1]}"] if done.span else []
    removed += [f"{n} old rows removed from {table}" for table, n in rows.items() if n]
    span = "; ".join(removed) or "nothing is older"
    report.notes.append(f"dates before {first} are not kept: {span}")
    if done.ended_runs:
        report.notes.append(f"removed what ended runs staged: {shown(done.ended_runs)}")
    report.notes += [f"{path} has no date in its name; it was not removed" for path in done.undated]
    report.index = "changed"
    for text in damaged:
        report.degrade(text)
    kept = {name: table.remains for name, table in TABLES.items() if table.remains and exists(lake.uri(name))}
    kept |= dict.fromkeys(retention.others(lake), "no table of the lake; remove what is too old in it yourself")
    report.lines = _lines(first, done, rows, kept)
    return report


def _spark(context: job.Context) -> Callable[[], SparkContext]:
    return lambda: context.spark.sparkContext


def _lines(first: dt.date, done: retention.Purged, rows: dict[str, int], kept: dict[str, str]) -> list[str]:
    """Return what was removed by table, and what remains and why."""
    lines = [f"before {first}, removed:"]
    lines += [f"  {table}: {min(dates)} to {max(dates)} ({len(dates)})" for table, dates in sorted(done.dates.items())]
    lines += [f"  {table}: {n:,} rows" for table, n in rows.items() if n]
    lines += [f"  staged by {len(done.ended_runs):,} ended run(s)"] if done.ended_runs else []
    lines = lines if len(lines) > 1 else [f"before {first}, removed: nothing"]
    lines.append("remains, whatever its age:")
    return [*lines, *(f"  {name}: {why}" for name, why in kept.items())]


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__))
