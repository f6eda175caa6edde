"""Writes a synthetic night of hospital flow logs: benign traffic of many devices and some attacks, no real row.

    spark-submit --py-files dist/ids_spark.zip jobs/synthesize_night.py --set synthesize_night.target=FOLDER

Reads: nothing.
Writes: below `synthesize_night.target` the flows without labels, `event_date=…/`, for `score.flow_logs`, marked as
synthetic; and the class of every flow, `_truth/`, which readers of the logs ignore. Date: `synthesize_night.date`.
"""

import sys

from ids_spark.base.report import Report
from ids_spark.runtime import job
from ids_spark.synthetic import night


def run(context: job.Context) -> Report:
    """Write the night of the configuration."""
    config = context.config.synthesize_night
    done = night.write_night(context.spark, config, context.config.seed)
    report = Report(feature_schema=config.feature_schema, data_origin=done.data_origin)
    report.rows_in = report.rows_out = done.rows
    for class19, flows in done.flows_per_class.items():
        report.counts["synthetic flows", "", class19] = flows
    return report


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__))
