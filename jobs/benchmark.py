"""Compares every scored model, at 2, 6 and 19 classes and with both feature sets, with published figures.

    spark-submit --py-files dist/ids_spark.zip jobs/benchmark.py --set lake=LAKE

Reads: `metrics/`, `confusion/`, `models/` and the facts of `flows/`. Models without metrics are not in the table.
Writes: `reports/benchmark/`: `table.md`, `table.html` (self-contained), `macro-f1.png`, `table.parquet` (one figure a
row). The terminal shows a shorter table.
"""

import logging
import sys

from rich.console import Console

from ids_spark.base.report import Report
from ids_spark.evaluate import benchmark, results
from ids_spark.report import benchmark_page
from ids_spark.runtime import job

log = logging.getLogger(__name__)
REPORT = "reports/benchmark"


def run(context: job.Context) -> Report:
    """Compare the newest metrics of every model with each other and with published figures."""
    split, lake = context.config.score.split, context.lake
    models = results.newest(lake, split)
    rows, setting = benchmark.rows_of(models), benchmark.setting_of(lake, split, models)
    benchmark_page.write_page(context.staged(REPORT), rows, setting, context.run_id)
    benchmark_page.print_tables(rows, setting, Console(width=None if sys.stdout.isatty() else 120))
    log.info("table %s models=%d", lake.uri(f"{REPORT}/table.md"), len(models))
    return Report(
        tables=[REPORT],
        models=[f"{model.name}/{model.version}" for model in models],
        feature_schema=setting.feature_schema,
        data_origin=setting.data_origin,
    )


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__))
