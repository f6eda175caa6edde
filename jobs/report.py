"""The newest metrics of every model: one table on the terminal, and one page with learning curves and confusions.

    spark-submit --py-files dist/ids_spark.zip jobs/report.py --set lake=LAKE

Reads: `metrics/`, `confusion/` and `models/`.
Writes: `reports/run/`: `run.html` (one self-contained HTML file), its pictures.
"""

import logging
import sys

from rich.console import Console

from ids_spark.base.report import Report
from ids_spark.evaluate import results
from ids_spark.report import run_page
from ids_spark.runtime import job

log = logging.getLogger(__name__)
REPORT = "reports/run"


def run(context: job.Context) -> Report:
    """Compare all models on one split."""
    split = context.config.score.split
    models = results.newest(context.lake, split)
    run_page.print_comparison(models, split, Console(width=None if sys.stdout.isatty() else 110))
    run_page.write_page(context.staged(REPORT), models, split, context.run_id)
    log.info("page %s models=%d", context.lake.uri(f"{REPORT}/run.html"), len(models))
    synthetic = any(model.data_origin == "synthetic" for model in models)
    return Report(
        tables=[REPORT],
        models=[f"{model.name}/{model.version}" for model in models],
        data_origin="synthetic" if synthetic else "measured",
    )


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__))
