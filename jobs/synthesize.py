"""Writes a synthetic data set in the form of CICIoMT2024: same files, class sizes, columns and defects, no real row.

    spark-submit --py-files dist/ids_spark.zip jobs/synthesize.py --set synthesize.target=FOLDER

Reads: nothing.
Writes: the official files below `synthesize.target`, marked as synthetic, with the rows of CICIoMT2024 times
`synthesize.scale`.
"""

import sys

from ids_spark.base.report import Report
from ids_spark.dataset.features import FEATURE_SCHEMAS
from ids_spark.runtime import job
from ids_spark.synthetic import dataset


def run(context: job.Context) -> Report:
    """Write the data set of the configuration."""
    config = context.config.synthesize
    done = dataset.write_dataset(
        context.spark,
        config.target,
        config.scale,
        context.config.seed,
        FEATURE_SCHEMAS[config.feature_schema],
        config.format,
        min_rows_per_file=config.min_rows_per_file,
        capture_day_iat=config.capture_day_iat,
    )
    report = Report(feature_schema=done.feature_schema, data_origin=done.data_origin)
    report.rows_in = report.rows_out = sum(done.rows.values())
    for split, rows in done.rows.items():
        report.counts["synthetic rows", split, None] = rows
        report.counts["planted duplicates", split, None] = done.duplicates[split]
    return report


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__))
