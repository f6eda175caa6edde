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
from ids_spark.dataset.night_schema import DRIFT, NIGHTS
from ids_spark.features import drift
from ids_spark.lake.filesystem import write_bytes
from ids_spark.lake.parquet import write_rows, write_table
from ids_spark.lake.store import Lake
from ids_spark.models.artifact import Model
from ids_spark.models.threshold import Threshold
from ids_spark.report import night_page
from ids_spark.report.night_findings import Night
from ids_spark.score import night_files, night_record, night_scoring
from ids_spark.score.night_context import Duty, calibration_of
from ids_spark.score.night_files import NightSource
from ids_spark.score.night_reader import Wanted
from ids_spark.score.night_record import Verdict
from ids_spark.score.night_tasks import Counted, Judge, Scored, Task

log = logging.getLogger(__name__)

Row = dict[str, Any]


def score(
    spark_context: SparkContext,
    lake: Lake,
    staged: Callable[[str], str],
    source: NightSource,
    duty: Duty,
    done_before: dict[dt.date, list[Row]],
) -> Report:
    """Score one night and stage every table of it; the report names them.

    Args:
        spark_context: Its executors read, score and write.
        lake: Holds the tables of earlier nights.
        staged: Gives the URI of the staged version of a table.
        source: The night.
        duty: What scores it.
        done_before: Rows of `nights/` of other nights that this run scored; this night's are added.

    Raises:
        NotReconciled: a row was neither scored nor refused: a fault of this program.
    """
    begin, date = time.monotonic(), source.event_date
    place = f"event_date={date}"
    limits = {
        role: (model, duty.threshold(model, source.rows))
        for role, model in (("champion", duty.champion), ("challenger", duty.challenger))
        if model is not None
    }
    done = night_scoring.score(spark_context, source.pieces, _task(source, duty, limits, staged))
    if done.rows_read != source.rows or done.rows_scored + done.quarantined.total() != source.rows:
        raise NotReconciled(
            f"{source.rows} rows in the files of {date}, {done.rows_read} read, {done.rows_scored} scored and"
            f" {done.quarantined.total()} quarantined; nothing was committed"
        )
    drifted = _drift(source, duty, done)
    said = [_verdict(source, duty, role, *judge, getattr(done, role)) for role, judge in limits.items()]
    shown = said[0].incidents
    late = night_files.late_rows(lake, source)
    of_night = {"rows_late": late, "seconds": time.monotonic() - begin}
    rows = [of_night | night_record.row(source, duty, done, verdict, drifted) for verdict in said]
    write_table(staged(f"alerts/{place}/part-00000.parquet"), shown)
    write_rows(staged(f"drift/{place}/part-00000.parquet"), drifted, DRIFT)
    write_rows(staged(f"nights/{place}/part-00000.parquet"), rows, NIGHTS)
    context = ecs.Context(date, frozenset(duty.config.score.pseudonymise))
    write_bytes(staged(f"exports/{place}/incidents.ocsf.jsonl"), ocsf.lines(shown, context))
    write_bytes(staged(f"exports/{place}/incidents.ecs.jsonl"), ecs.lines(shown, context))
    page = Night(
        date,
        shown.to_pylist(),
        drifted,
        {**night_page.earlier(lake, date), **done_before, date: rows},
        [entry.stated(duty.config.score.pseudonymise) for entry in duty.allowed.entries],
        done.agreement if duty.challenger is not None else None,
        {role: model.card for role, (model, _) in limits.items()},
        duty.facts(),
    )
    night_page.write(staged(f"reports/night/{place}"), page)
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
    return night_record.report(source, duty, done, said[0], late)


def _task(
    source: NightSource, duty: Duty, limits: Mapping[str, tuple[Model, Threshold]], staged: Callable[[str], str]
) -> Task:
    config, place = duty.config, f"event_date={source.event_date}"
    judges = {role: Judge(model, limit.logit) for role, (model, limit) in limits.items()}
    return Task(
        event_date=source.event_date,
        champion=judges["champion"],
        challenger=judges.get("challenger"),
        wanted=Wanted(
            duty.champion.preprocessor.schema,
            duty.needed,
            config.score.pass_through,
            config.score.event_time,
            duty.run_id,
        ),
        config=config.score,
        alerts=config.alerts,
        policy=duty.policy,
        allowed=duty.allowed,
        pseudonyms=duty.pseudonyms,
        target=staged(f"predictions/{place}/model={duty.champion.card.name}"),
        quarantine=staged(f"quarantine/job=score/{place}"),
        scored_at=duty.now,
        data_origin=duty.origin(source),
    )


def _verdict(source: NightSource, duty: Duty, role: str, model: Model, limit: Threshold, counted: Counted) -> Verdict:
    card = model.card
    facts = ranking.NightFacts(
        source.event_date, card.name, card.version, limit.logit, duty.run_id, duty.now, duty.origin(source)
    )
    shown, found = ranking.rank(counted.found, duty.policy, duty.config.alerts.per_night, facts)
    return Verdict(role, model, limit, counted, shown, found)


def _drift(source: NightSource, duty: Duty, done: Scored) -> list[Row]:
    card = duty.champion.card
    facts = {
        "model": card.name,
        "model_version": card.version,
        "run_id": duty.run_id,
        "data_origin": duty.origin(source),
    }
    histograms = duty.champion.preprocessor.histograms(card.features)
    predicted = Counter[int]()
    for (_, class_id), flows in done.champion.mix.items():
        predicted[class_id] += flows
    counts = [predicted[i] for i in range(card.classes)]
    mix = drift.class_mix_row(calibration_of(duty.champion).class_mix, counts, facts)
    return [*drift.rows_of(done.tally, histograms, facts), mix]
