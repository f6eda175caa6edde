"""Audits duplicates, train/test overlap, label conflicts and single-feature leakage, and what overlap does to metrics.

    spark-submit --py-files dist/ids_spark.zip jobs/leakage.py --set lake=LAKE

Reads: `flows/`; if models were scored, `metrics/`, `models/` and `split_predictions/`.
Writes: `reports/leakage/`: `leakage.html` (self-contained), its pictures, `leakage.parquet` (one figure a row); of
scored models `metrics/` and `confusion/` of subsets: test rows whose vector stands in train (`seen`) and does not
(`unseen`), rows of each capture file.
"""

import logging
import sys

from ids_spark.base.report import Report
from ids_spark.dataset.features import FEATURE_SCHEMAS, SOURCE_SPLITS
from ids_spark.evaluate import leakage, results, subsets
from ids_spark.evaluate.results import ScoredModel
from ids_spark.features import feature_table
from ids_spark.lake.store import TableMissing
from ids_spark.report import leakage_page
from ids_spark.runtime import job

log = logging.getLogger(__name__)
REPORT = "reports/leakage"


def run(context: job.Context) -> Report:
    """Audit the flows of the lake and write the report."""
    config, lake = context.config.leakage, context.lake
    facts = lake.facts("flows", "jobs/ingest.py")
    schema, rows = FEATURE_SCHEMAS[facts["feature_schema"]], sum(facts["rows"].values())
    plan = leakage.leakage_plan(schema, rows, config.pairs, config.sample_rows, context.config.features.min_std)
    buckets = feature_table.buckets_of(lake.uri("flows"), schema)

    copied = feature_table.copied_rows(context.spark.sparkContext, lake.uri("flows"))
    figures = leakage.measure(context.spark.sparkContext, buckets, plan, copied)
    findings = leakage_page.Findings(figures, plan)
    written, models = _of_models(context)
    leakage_page.write_page(context.staged(REPORT), findings, models, figures, context.run_id, facts["data_origin"])

    report = Report(feature_schema=schema.name, data_origin=facts["data_origin"], tables=[REPORT, *written])
    report.rows_in, report.rows_out = rows, sum(findings.total("flows", split) for split in SOURCE_SPLITS)
    for what in ("flows", "duplicates_double", "duplicates_float32"):
        report.count(what, findings.by_class(what))
    for split in SOURCE_SPLITS:
        double, single = (findings.total(f"duplicates_{p}", split) for p in leakage.PRECISIONS)
        log.info("%s duplicates double=%d float32=%d", split, double, single)
    log.info("train/test overlap vectors double=%d", findings.count("overlap_double"))
    if (top := findings.strongest_feature()) is not None:
        pair = " | ".join(top.pair)
        log.info(
            "highest AUC feature=%s by_ranges=%.4f by_order=%.4f pair=%s", top.feature, top.ranges, top.order, pair
        )
    return report


def _of_models(context: job.Context) -> tuple[list[str], list[ScoredModel]]:
    """Measure the subsets of every scored model; returns the tables written, and the models with these figures."""
    lake, split = context.lake, context.config.score.split
    try:
        models = subsets.scored_models(lake, results.newest(lake, split), split)
    except TableMissing:
        return [], []
    if not models:
        return [], []
    counts = subsets.count(context.spark.sparkContext, lake, models)
    found = results.Results(context.run_id, split, context.config.seed)
    subsets.add_to(found, models, counts)
    return found.write(lake, context.staged), found.with_subsets([each.model for each in models])


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__))
