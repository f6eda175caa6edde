"""A synthetic night of hospital flow logs: benign traffic of a fleet of devices, some attacks, no label, no real row.

    spark-submit --py-files dist/ids_spark.zip jobs/synthesize_night.py --set synthesize_night.target=FOLDER

Reads: nothing. Writes: `event_date=…/` below `synthesize_night.target`, for `score.flow_logs`, marked as synthetic; below
`_truth/` beside it, where no reader of the logs looks, the class of every flow. Night: `synthesize_night.date`.
"""

import sys

from ids_spark.base.report import Report
from ids_spark.runtime import job
from ids_spark.synthetic import night


def run(context: job.Context) -> Report:
    """Write the night that the configuration describes."""
    config = context.config.synthesize_night
    done = night.write_night(context.spark, config, context.config.seed)
    report = Report(feature_schema=config.feature_schema, data_origin=done.data_origin)
    report.rows_in = report.rows_out = done.rows
    for class19, flows in done.flows_per_class.items():
        report.counts["synthetic flows", "", class19] = flows
    return report


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__))
