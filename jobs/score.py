"""Flows to predictions and, where labels exist, metrics.

    spark-submit --py-files dist/ids_spark.zip jobs/score.py --set lake=LAKE [--set score.source=FLOWS]

Reads: `models/`, and a split of `flows/` or any parquet with the model's feature columns. Every flow gets its
prediction, duplicates too; metrics count each distinct labelled flow once.
Writes: `predictions/event_date=…/model=…` (replaced whole), `quarantine/job=score/…`, `metrics/` and `confusion/`.
"""

import datetime as dt
import logging
import sys
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ids_spark import job, metrics, model_store, scoring, sources
from ids_spark.audit import Report
from ids_spark.lake import exists, resolve
from ids_spark.schema import CONFUSION, METRICS

log = logging.getLogger(__name__)


def run(context: job.Context) -> Report:
    """Score one set of flows with every chosen model."""
    config, now = context.config.score, dt.datetime.now(dt.UTC)
    source, origin = config.source, "measured"
    if source is None:
        origin = context.lake.facts("flows", "jobs/ingest.py")["data_origin"]
        source = context.lake.uri(f"flows/split={config.split}")
    elif exists(f"{source}/{sources.SYNTHETIC_MARK}"):
        origin = "synthetic"
    pieces = sources.row_groups(source)
    found = [
        model_store.read(uri) for uri in model_store.choose(context.lake.uri("models"), config.models, config.version)
    ]
    for model in found:
        scoring.require_features(pieces, model)

    report = Report(feature_schema=found[0].preprocessor.schema.name, data_origin=origin)
    measured: list[dict[str, Any]] = []
    confused: list[dict[str, Any]] = []
    for model in found:
        card = model.card
        place = f"event_date={config.event_date or f'{now:%Y-%m-%d}'}/model={card.name}"
        tables = [f"predictions/{place}", f"quarantine/job=score/{place}"]
        if card.data_origin == "synthetic":
            report.data_origin = origin = "synthetic"
        task = scoring.Task(
            context.staged(tables[0]),
            context.staged(tables[1]),
            config.split,
            context.run_id,
            now,
            origin,
            config.batch_rows,
        )
        done = scoring.score(context.spark.sparkContext, [piece for piece, _ in pieces], model, task)
        report.tables += tables
        report.models.append(f"{card.name}/{card.version}")
        report.rows_in += done.rows_read
        report.rows_out += done.rows_scored
        report.rows_quarantined += done.quarantined.total()
        for reason, n in sorted(done.quarantined.items()):
            report.counts[f"quarantined: {reason}", config.split, card.name] = n
        shared = {
            "run_id": context.run_id,
            "model": card.architecture,
            "model_version": card.version,
            "profile": card.profile,
            "classes": card.classes,
            "split": config.split,
            "data_origin": origin,
        }
        if done.confusion.sum():
            measured += [shared | row for row in metrics.metrics_of(done.confusion, card.class_names)]
            confused += [
                shared | {"class_name": a, "predicted_class": b, "count": int(done.confusion[i, j])}
                for i, a in enumerate(card.class_names)
                for j, b in enumerate(card.class_names)
            ]
        unseen = [
            n for i, n in enumerate(card.class_names) if n in card.classes_absent_in_train and done.confusion[i].sum()
        ]
        if unseen:
            report.notes.append(
                f"{card.name} never saw {len(unseen)} classes of these flows in training: {', '.join(unseen)}"
            )
        log.info("scored %s rows=%d quarantined=%d", card.name, done.rows_scored, done.quarantined.total())
    for table, rows, contract in (("metrics", measured, METRICS), ("confusion", confused, CONFUSION)):
        if rows:
            name = f"{table}/{context.run_id}.parquet"
            fs, path = resolve(context.staged(name))
            fs.create_dir(path.rsplit("/", 1)[0], recursive=True)
            pq.write_table(pa.Table.from_pylist(rows, schema=contract), path, filesystem=fs)
            report.tables.append(name)
    return report


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__))
