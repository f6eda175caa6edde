"""Any labelled flows scored by every chosen model: what `jobs/score.py` does where no night is named."""

import datetime as dt
import logging
from collections.abc import Callable

from pyspark import SparkContext

from ids_spark.base.report import Report
from ids_spark.config.score import ScoreConfig
from ids_spark.evaluate.results import Results, unseen_classes
from ids_spark.ingest import sources
from ids_spark.lake.filesystem import exists
from ids_spark.lake.store import Lake
from ids_spark.models import artifact
from ids_spark.score import split_tasks

log = logging.getLogger(__name__)


def score_split(
    spark_context: SparkContext, lake: Lake, staged: Callable[[str], str], config: ScoreConfig, run_id: str
) -> Report:
    """Score one set of flows with every chosen model; stages predictions, quarantine, metrics and confusion.

    Args:
        spark_context: Its executors read, score and write.
        lake: Holds the models and, unless `config.source` is set, the flows.
        staged: Gives the URI of the staged version of a table.
        config: What to score, and with what.
        run_id: Of the run.
    """
    now, source, origin = dt.datetime.now(dt.UTC), config.source, "measured"
    if source is None:
        source, origin = lake.uri(f"flows/split={config.split}"), lake.facts("flows", "jobs/ingest.py")["data_origin"]
    elif exists(f"{source}/{sources.SYNTHETIC_MARK}"):
        origin = "synthetic"
    row_groups = sources.parquet_row_groups(source)
    models = [
        artifact.read_model(uri) for uri in artifact.choose_models(lake.uri("models"), config.models, config.version)
    ]
    for model in models:
        split_tasks.require_features(row_groups, model)

    report = Report(feature_schema=models[0].preprocessor.schema.name, data_origin=origin)
    results = Results(run_id, config.split)
    for model in models:
        card = model.card
        place = f"event_date={config.event_date or now.date()}/model={card.name}"
        tables = [f"predictions/{place}", f"quarantine/job=score/{place}"]
        origin = "synthetic" if "synthetic" in (origin, card.data_origin) else "measured"
        target, refused = (staged(table) for table in tables)
        task = split_tasks.SplitTask(target, refused, config.split, run_id, now, origin, config.batch_rows)
        done = split_tasks.score_row_groups(spark_context, [row_group for row_group, _ in row_groups], model, task)
        log.info("scored %s rows=%d quarantined=%d", card.name, done.rows_scored, done.quarantined.total())

        results.add(card, done.confusion, origin)
        report.add_scored(card.name, card.version, done.rows_read, done.rows_scored, done.quarantined)
        report.tables += tables
        unseen = unseen_classes(card, done.confusion)
        if unseen:
            report.notes.append(f"{card.name} met {len(unseen)} classes it never saw in training: {', '.join(unseen)}")
    report.data_origin = origin
    report.tables += results.write(staged)
    return report
