"""The newest metrics of every model as one table on the terminal.

    spark-submit --py-files dist/ids_spark.zip jobs/report.py --set lake=LAKE

Reads: `metrics/` and `models/`. Writes: nothing but its audit row.
"""

import sys

from rich.console import Console

from ids_spark import job, reporting
from ids_spark.audit import Report


def run(context: job.Context) -> Report:
    """Print the comparison of all models on one split."""
    reporting.print_comparison(
        context.lake, context.config.score.split, Console(width=None if sys.stdout.isatty() else 110)
    )
    return Report()


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__))
