"""Flows to predictions and, where labels exist, metrics.

    spark-submit --py-files dist/ids_spark.zip jobs/score.py --set lake=LAKE [--set score.source=FLOWS]

Reads: `models/`, and a split of `flows/` or any parquet with the model's feature columns. Every flow gets its
prediction, duplicates too; metrics count each distinct labelled flow once.
Writes: `predictions/event_date=…/model=…` (replaced whole), `quarantine/job=score/…`, `metrics/` and `confusion/`.
"""

import datetime as dt
import logging
import sys

from ids_spark import evaluation, job, model_store, scoring, sources
from ids_spark.audit import Report
from ids_spark.lake import exists

log = logging.getLogger(__name__)


def run(context: job.Context) -> Report:
    """Score one set of flows with every chosen model."""
    config, now, lake = context.config.score, dt.datetime.now(dt.UTC), context.lake
    source, origin = config.source, "measured"
    if source is None:
        source, origin = lake.uri(f"flows/split={config.split}"), lake.facts("flows", "jobs/ingest.py")["data_origin"]
    elif exists(f"{source}/{sources.SYNTHETIC_MARK}"):
        origin = "synthetic"
    pieces = sources.row_groups(source)
    models = [model_store.read(uri) for uri in model_store.choose(lake.uri("models"), config.models, config.version)]
    for model in models:
        scoring.require_features(pieces, model)

    report = Report(feature_schema=models[0].preprocessor.schema.name, data_origin=origin)
    results = evaluation.Results(context.run_id, config.split)
    for model in models:
        card = model.card
        place = f"event_date={config.event_date or now.date()}/model={card.name}"
        tables = [f"predictions/{place}", f"quarantine/job=score/{place}"]
        origin = "synthetic" if "synthetic" in (origin, card.data_origin) else "measured"
        target, refused = (context.staged(table) for table in tables)
        task = scoring.Task(target, refused, config.split, context.run_id, now, origin, config.batch_rows)
        done = scoring.score(context.spark.sparkContext, [piece for piece, _ in pieces], model, task)
        log.info("scored %s rows=%d quarantined=%d", card.name, done.rows_scored, done.quarantined.total())

        results.add(card, done.confusion, origin)
        report.add_scored(card.name, card.version, done.rows_read, done.rows_scored, done.quarantined)
        report.tables += tables
        unseen = evaluation.unseen_classes(card, done.confusion)
        if unseen:
            report.notes.append(f"{card.name} met {len(unseen)} classes it never saw in training: {', '.join(unseen)}")
    report.data_origin = origin
    report.tables += results.write(context.staged)
    return report


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__))
