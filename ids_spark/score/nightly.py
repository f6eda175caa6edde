"""One night from flow logs to what people read: scores, incidents, drift, page, exports; all of it staged together.

The driver only decides and gathers counts; flows stay on the executors.
"""

import datetime as dt
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from pyspark import SparkContext

from ids_spark.alerts import ranking
from ids_spark.alerts.export import ecs, ocsf
from ids_spark.base.errors import NotReconciled
from ids_spark.base.report import Report
from ids_spark.dataset.tables import DRIFT, NIGHTS
from ids_spark.features import drift
from ids_spark.lake.filesystem import write_bytes
from ids_spark.lake.parquet import write_rows, write_table
from ids_spark.lake.store import Lake
from ids_spark.models.artifact import Model
from ids_spark.models.threshold import Threshold
from ids_spark.report import night_page
from ids_spark.report.night_findings import Night
from ids_spark.score import night_files, night_record, night_scoring
from ids_spark.score.night_context import ScoringContext, validation_scores_of_model
from ids_spark.score.night_files import NightSource
from ids_spark.score.night_reader import ReadSpec
from ids_spark.score.night_record import ModelOutcome
from ids_spark.score.night_tasks import ModelCounts, NightCounts, NightTask, ThresholdedModel

log = logging.getLogger(__name__)

Row = dict[str, Any]


def score_night(
    spark_context: SparkContext,
    lake: Lake,
    staged: Callable[[str], str],
    source: NightSource,
    scoring: ScoringContext,
    done_before: dict[dt.date, list[Row]],
) -> Report:
    """Score one night and stage every table of it; the report names them.

    Args:
        spark_context: Its executors read, score and write.
        lake: Holds the tables of earlier nights.
        staged: Gives the URI of the staged version of a table.
        source: The night.
        scoring: What scores it.
        done_before: Rows of `nights/` of other nights that this run scored; this night's are added.

    Raises:
        NotReconciled: a row was neither scored nor refused: a fault of this program.
    """
    begin, date = time.monotonic(), source.event_date
    place = f"event_date={date}"
    limits = {
        role: (model, scoring.threshold(model, source.rows))
        for role, model in (("champion", scoring.champion), ("challenger", scoring.challenger))
        if model is not None
    }
    done = night_scoring.score_row_groups(spark_context, source.row_groups, _task(source, scoring, limits, staged))
    if done.rows_read != source.rows or done.rows_scored + done.quarantined.total() != source.rows:
        raise NotReconciled(
            f"{source.rows} rows in the files of {date}, {done.rows_read} read, {done.rows_scored} scored and"
            f" {done.quarantined.total()} quarantined; nothing was committed"
        )
    drifted = _drift(source, scoring, done)
    said = [_outcome(source, scoring, role, *thresholded, getattr(done, role)) for role, thresholded in limits.items()]
    shown = said[0].incidents
    late = night_files.late_rows(lake, source)
    of_night = {"rows_late": late, "seconds": time.monotonic() - begin}
    rows = [of_night | night_record.night_row(source, scoring, done, outcome, drifted) for outcome in said]
    write_table(staged(f"alerts/{place}/part-00000.parquet"), shown)
    write_rows(staged(f"drift/{place}/part-00000.parquet"), drifted, DRIFT)
    write_rows(staged(f"nights/{place}/part-00000.parquet"), rows, NIGHTS)
    context = ecs.Context(date, frozenset(scoring.config.score.pseudonymise))
    write_bytes(staged(f"exports/{place}/incidents.ocsf.jsonl"), ocsf.lines(shown, context))
    write_bytes(staged(f"exports/{place}/incidents.ecs.jsonl"), ecs.lines(shown, context))
    page = Night(
        date,
        shown.to_pylist(),
        drifted,
        {**night_page.earlier(lake, date), **done_before, date: rows},
        [entry.stated(scoring.config.score.pseudonymise) for entry in scoring.allowed.entries],
        done.agreement if scoring.challenger is not None else None,
        {role: model.card for role, (model, _) in limits.items()},
        scoring.facts(),
    )
    night_page.write_page(staged(f"reports/night/{place}"), page)
    done_before[date] = rows
    log.info(
        "scored night=%s in=%d scored=%d quarantined=%d flagged=%d incidents=%d shown=%d seconds=%.1f",
        date,
        done.rows_read,
        done.rows_scored,
        done.quarantined.total(),
        done.champion.flagged,
        rows[0]["incidents"],
        len(shown),
        rows[0]["seconds"],
    )
    return night_record.night_report(source, scoring, done, said[0], late)


def _task(
    source: NightSource,
    scoring: ScoringContext,
    limits: Mapping[str, tuple[Model, Threshold]],
    staged: Callable[[str], str],
) -> NightTask:
    config, place = scoring.config, f"event_date={source.event_date}"
    thresholded = {role: ThresholdedModel(model, limit.logit) for role, (model, limit) in limits.items()}
    return NightTask(
        event_date=source.event_date,
        champion=thresholded["champion"],
        challenger=thresholded.get("challenger"),
        read_spec=ReadSpec(
            scoring.champion.preprocessor.schema,
            scoring.needed,
            config.score.pass_through,
            config.score.event_time,
            scoring.run_id,
        ),
        config=config.score,
        alerts=config.alerts,
        policy=scoring.policy,
        allowed=scoring.allowed,
        pseudonyms=scoring.pseudonyms,
        target=staged(f"predictions/{place}/model={scoring.champion.card.name}"),
        quarantine=staged(f"quarantine/job=score/{place}"),
        scored_at=scoring.now,
        data_origin=scoring.origin(source),
    )


def _outcome(
    source: NightSource, scoring: ScoringContext, role: str, model: Model, limit: Threshold, counted: ModelCounts
) -> ModelOutcome:
    card = model.card
    facts = ranking.NightFacts(
        source.event_date, card.name, card.version, limit.logit, scoring.run_id, scoring.now, scoring.origin(source)
    )
    shown, found = ranking.rank(counted.found, scoring.policy, scoring.config.alerts.per_night, facts)
    return ModelOutcome(role, model, limit, counted, shown, found)


def _drift(source: NightSource, scoring: ScoringContext, done: NightCounts) -> list[Row]:
    card = scoring.champion.card
    facts = {
        "model": card.name,
        "model_version": card.version,
        "run_id": scoring.run_id,
        "data_origin": scoring.origin(source),
    }
    histograms = scoring.champion.preprocessor.histograms(card.features)
    predicted = Counter[int]()
    for (_, class_id), flows in done.champion.mix.items():
        predicted[class_id] += flows
    counts = [predicted[i] for i in range(card.classes)]
    mix = drift.class_mix_row(validation_scores_of_model(scoring.champion).class_mix, counts, facts)
    return [*drift.rows_of(done.bin_counts, histograms, facts), mix]
