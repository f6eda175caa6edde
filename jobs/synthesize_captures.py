"""Writes synthetic packet captures of one day of a small hospital ward, with three attacks, no real packet.

    spark-submit --py-files dist/ids_spark.zip jobs/synthesize_captures.py --set synthesize_captures.target=FOLDER

Reads: nothing.
Writes: below `synthesize_captures.target` the captures of the day, `event_date=…/`, for `extract.captures`, marked as
synthetic; the inventory of the devices, `_inventory.csv`, for `extract.inventory`; and what a page should show,
`_truth/`. Date: `synthesize_captures.date`.
"""

import sys

from ids_spark.base.report import Report
from ids_spark.runtime import job
from ids_spark.synthetic import captures


def run(context: job.Context) -> Report:
    """Write the captures of the configuration."""
    done = captures.write_captures(context.config.synthesize_captures, context.config.seed)
    report = Report(data_origin=done.data_origin)
    report.rows_in = report.rows_out = sum(done.packets.values())
    return report


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__))
