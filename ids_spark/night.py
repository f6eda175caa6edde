"""One night from flow logs to what people read: scores, incidents, drift, page, exports; all of it staged together.

The driver only decides and gathers counts; flows stay on the executors.
"""

import datetime as dt
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

import pyarrow as pa
from pyspark import SparkContext

from ids_spark import audit, drift, ecs, incident_ranking, night_page, night_scoring, night_sources, ocsf
from ids_spark.audit import Report
from ids_spark.calibration import Threshold
from ids_spark.errors import NotReconciled
from ids_spark.lake import Lake, write_bytes
from ids_spark.model_store import Model
from ids_spark.night_duty import Duty, calibration_of
from ids_spark.night_findings import Night
from ids_spark.night_reader import Wanted
from ids_spark.night_rows import UNKNOWN_HOUR
from ids_spark.night_schema import DRIFT, INCIDENTS, NIGHTS, SCHEMA_VERSION
from ids_spark.night_sources import NightSource
from ids_spark.night_task import Counted, Judge, Scored, Task
from ids_spark.parts import write_rows, write_table

log = logging.getLogger(__name__)

TABLES: Final = ("predictions", "alerts", "drift", "nights", "reports/night", "exports", "quarantine/job=score")
"""What a night replaces, each at `event_date=…`."""
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
    late = night_sources.late_rows(lake, source)
    rows, shown, drifted = [], INCIDENTS.empty_table(), _drift(source, duty, done)
    for role, (model, limit) in limits.items():
        ranked, total = _ranked(source, duty, model, limit, getattr(done, role))
        shown = ranked if role == "champion" else shown
        rows.append(_row(source, duty, done, role, model, limit, total, len(ranked), drifted, late))
    for row in rows:
        row["seconds"] = time.monotonic() - begin
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
    return _report(source, duty, done, limits["champion"][1], rows[0])


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


def _ranked(source: NightSource, duty: Duty, model: Model, limit: Threshold, counted: Counted) -> tuple[pa.Table, int]:
    card = model.card
    facts = incident_ranking.NightFacts(
        source.event_date, card.name, card.version, limit.logit, duty.run_id, duty.now, duty.origin(source)
    )
    return incident_ranking.rank(counted.found, duty.policy, duty.config.alerts.per_night, facts)


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


def _row(
    source: NightSource,
    duty: Duty,
    done: Scored,
    role: str,
    model: Model,
    limit: Threshold,
    incidents_found: int,
    incidents_shown: int,
    drifted: list[Row],
    rows_late: int,
) -> Row:
    """Return the row of `nights/` of one model."""
    counted: Counted = getattr(done, role)
    champion = role == "champion"
    bands = Counter(row["band"] for row in drifted if row["kind"] == "feature")
    return {
        "run_id": duty.run_id,
        "role": role,
        "model": model.card.name,
        "model_version": model.card.version,
        "model_sha256": model.sha256,
        "rows_in": done.rows_read,
        "rows_scored": done.rows_scored,
        "rows_quarantined": done.quarantined.total(),
        "rows_late": rows_late,
        "rows_of_another_date": done.of_another_date,
        "files": [{"name": f.name, "rows": f.rows, "reason": f.reason} for f in source.files],
        "extra_columns": list(source.extra_columns),
        "quarantine": [{"reason": reason, "rows": n} for reason, n in sorted(done.quarantined.items())],
        "warnings": [{"rule": rule, "rows": n} for rule, n in sorted(done.warnings.items())],
        "class_mix": [
            {
                "hour": None if hour == UNKNOWN_HOUR else hour,
                "class_name": model.card.class_names[class_id],
                "flows": flows,
            }
            for (hour, class_id), flows in sorted(counted.mix.items())
        ],
        "flows_flagged": counted.flagged,
        "flows_allowed": done.flows_allowed if champion else None,
        "flows_explained": done.explained if champion else None,
        "incidents": incidents_found,
        "incidents_shown": incidents_shown,
        "budget": limit.budget,
        "threshold_logit": limit.logit,
        "expected_false_alarms": limit.expected_false_alarms,
        "false_alarms_at_most": limit.false_alarms_at_most,
        "calibration_rows": limit.benign_rows,
        "smallest_rate": limit.smallest_rate,
        "drift_moderate": bands["moderate"] if champion else None,
        "drift_significant": bands["significant"] if champion else None,
        "scored_at": duty.now,
        "code_version": audit.code_version(),
        "schema_version": SCHEMA_VERSION,
        "data_origin": duty.origin(source, model),
    }


def _report(source: NightSource, duty: Duty, done: Scored, limit: Threshold, row: Row) -> Report:
    """Return what the audit says of a night."""
    date = str(source.event_date)
    report = Report(feature_schema=duty.champion.preprocessor.schema.name, data_origin=duty.origin(source))
    report.rows_in, report.rows_out = done.rows_read, done.rows_scored
    report.rows_quarantined = done.quarantined.total()
    report.tables = [f"{table}/event_date={date}" for table in TABLES]
    counts = {"scored": done.rows_scored, "flagged": done.champion.flagged, "late rows": row["rows_late"]}
    counts |= {"rows of another date": done.of_another_date, "flows on the allow-list": done.flows_allowed}
    counts |= {"incidents": row["incidents"], "incidents over the budget": row["incidents"] - row["incidents_shown"]}
    counts |= {f"not scored: {reason}": n for reason, n in sorted(done.quarantined.items())}
    counts |= {f"warned: {rule}": n for rule, n in sorted(done.warnings.items())}
    report.counts = {(what, date, None): n for what, n in counts.items()}
    report.notes = [f"{date}: {limit.statement()}", *duty.allowed.notes(source.event_date, done.allowed.tolist())]
    report.inputs = [f"event_date={date}/{file.name}: {file.rows} rows" for file in source.files]
    report.notes += [f"{date}: {file.name} was not scored: {file.reason}" for file in source.files if file.reason]
    if source.extra_columns:
        columns = ", ".join(source.extra_columns)
        report.notes.append(f"{date}: {len(source.extra_columns)} extra column(s) were ignored: {columns}")
    return report
