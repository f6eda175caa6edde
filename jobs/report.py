"""The newest metrics of every model, the precision of incidents from verdicts, and their budget of false incidents.

    spark-submit --py-files dist/ids_spark.zip jobs/report.py --set lake=LAKE

Prints them as tables on the terminal, those that the lake has. Writes the index of all nights again.

Reads: `metrics/`, `confusion/` and `models/`; `incidents/` and `nights/` of the newest `report.nights` nights,
`verdicts/`.
Writes: `reports/run/`, if there are metrics: `run.html` (one self-contained HTML file) with learning curves and
confusions, its pictures; `reports/index.html`, the index of all nights, which other jobs keep up to date.
"""

import logging
import sys

from rich.console import Console

from ids_spark.base.report import Report, combined_origin
from ids_spark.evaluate import budget, precision, results
from ids_spark.evaluate.results import ScoredModel
from ids_spark.lake.store import TableMissing
from ids_spark.report import precision_table, run_page
from ids_spark.runtime import job

log = logging.getLogger(__name__)
REPORT = "reports/run"


def run(context: job.Context) -> Report:
    """Compare all models on one split; count what people decided about incidents."""
    split = context.config.score.split
    decided = precision.of_lake(context.lake, context.config.report.nights)
    models: list[ScoredModel] = []
    try:
        models = results.newest(context.lake, split)
    except TableMissing:
        if not decided.nights:
            raise
    console = Console(width=None if sys.stdout.isatty() else 120)
    precision_table.print_precision(decided, console)
    budgets = budget.of_lake(context.lake, context.config.report.nights)
    precision_table.print_budget(budgets, context.config.score.provisional_nights, console)
    report = Report(
        index="all",
        models=[f"{model.name}/{model.version}" for model in models],
        data_origin=combined_origin(decided.data_origin, *(model.data_origin for model in models)),
    )
    if models:
        run_page.print_comparison(models, split, console)
        run_page.write_page(context.staged(REPORT), models, split, context.run_id)
        log.info("page %s models=%d", context.lake.uri(f"{REPORT}/run.html"), len(models))
        report.tables.append(REPORT)
    return report


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__))
