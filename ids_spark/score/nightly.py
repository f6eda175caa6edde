"""One night from flow logs to what people read: scores, incidents, drift, page, exports; all of it staged together.

The driver only decides and gathers counts; flows stay on the executors.
"""

import datetime as dt
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyspark import SparkContext

from ids_spark.alerts import ranking
from ids_spark.alerts.export import EXPORTS, common
from ids_spark.base import packaging
from ids_spark.base.errors import NotReconciled
from ids_spark.base.report import Report
from ids_spark.dataset.tables import SCHEMA_VERSION, TABLES, kept_by
from ids_spark.features import drift
from ids_spark.lake.filesystem import write_bytes
from ids_spark.lake.store import Lake
from ids_spark.models.artifact import Model
from ids_spark.models.threshold import Threshold
from ids_spark.report import night_page
from ids_spark.report.night_findings import Night
from ids_spark.score import night_files, night_rows
from ids_spark.score.night_context import ScoringContext, validation_scores_of_model
from ids_spark.score.night_files import NightSource
from ids_spark.score.night_reader import ReadSpec
from ids_spark.score.night_rows import UNKNOWN_HOUR
from ids_spark.score.night_tasks import ModelCounts, NightCounts, NightTask, ThresholdedModel

log = logging.getLogger(__name__)

Row = dict[str, Any]


@dataclass(frozen=True)
class ModelOutcome:
    """What one model makes of the night.

    Attributes:
        role: `champion` or `challenger`.
        model: The model.
        limit: What it flags from on.
        counted: What the tasks counted of it.
        incidents: Those within the budget, ranked.
        found: Incidents before the budget cut them.
    """

    role: str
    model: Model
    limit: Threshold
    counted: ModelCounts
    incidents: pa.Table
    found: int


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
    done = night_rows.score_row_groups(spark_context, source.row_groups, _task(source, scoring, limits, staged))
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
    rows = [of_night | night_row(source, scoring, done, outcome, drifted) for outcome in said]
    lake.write("alerts", shown, staged, event_date=date)
    lake.write("drift", drifted, staged, event_date=date)
    lake.write("nights", rows, staged, event_date=date)
    context = common.Context(date, frozenset(scoring.config.score.pseudonymise))
    for name, content_of in EXPORTS.items():
        write_bytes(staged(f"exports/{place}/{name}"), content_of(shown, context))
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
    return night_report(source, scoring, done, said[0], late)


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


def night_row(
    source: NightSource, scoring: ScoringContext, done: NightCounts, outcome: ModelOutcome, drifted: Sequence[Row]
) -> Row:
    """Return the row of `nights/` of one model; late rows and seconds of the night are the caller's to add."""
    bands = Counter(of["drift_level"] for of in drifted if of["kind"] == "feature")
    model, limit, counted = outcome.model, outcome.limit, outcome.counted
    champion = outcome.role == "champion"
    return {
        "run_id": scoring.run_id,
        "role": outcome.role,
        "model": model.card.name,
        "model_version": model.card.version,
        "model_sha256": model.sha256,
        "rows_in": done.rows_read,
        "rows_scored": done.rows_scored,
        "rows_quarantined": done.quarantined.total(),
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
        "incidents": outcome.found,
        "incidents_shown": len(outcome.incidents),
        "budget": limit.budget,
        "threshold_logit": limit.logit,
        "expected_false_alarms": limit.expected_false_alarms,
        "false_alarms_at_most": limit.false_alarms_at_most,
        "benign_validation_rows": limit.benign_rows,
        "smallest_rate": limit.smallest_rate,
        "drift_moderate": bands["moderate"] if champion else None,
        "drift_significant": bands["significant"] if champion else None,
        "scored_at": scoring.now,
        "code_version": packaging.code_version(),
        "schema_version": SCHEMA_VERSION,
        "data_origin": scoring.origin(source, model),
    }


def night_report(
    source: NightSource, scoring: ScoringContext, done: NightCounts, champion: ModelOutcome, late: int
) -> Report:
    """Return what the audit says of a night."""
    date = str(source.event_date)
    said = Report(feature_schema=scoring.champion.preprocessor.schema.name, data_origin=scoring.origin(source))
    said.rows_in, said.rows_out = done.rows_read, done.rows_scored
    said.rows_quarantined = done.quarantined.total()
    said.tables = [TABLES[name].place(event_date=date) for name in kept_by("event_date")]
    counts = {"scored": done.rows_scored, "flagged": done.champion.flagged, "late rows": late}
    counts |= {"rows of another date": done.of_another_date, "flows on the allow-list": done.flows_allowed}
    over_budget = champion.found - len(champion.incidents)
    counts |= {"incidents": champion.found, "incidents over the budget": over_budget}
    counts |= {f"not scored: {reason}": n for reason, n in sorted(done.quarantined.items())}
    counts |= {f"warned: {rule}": n for rule, n in sorted(done.warnings.items())}
    said.counts = {(what, date, None): n for what, n in counts.items()}
    said.notes = [
        f"{date}: {champion.limit.statement()}",
        *scoring.allowed.notes(source.event_date, done.allowed.tolist()),
    ]
    said.inputs = [f"event_date={date}/{file.name}: {file.rows} rows" for file in source.files]
    said.notes += [f"{date}: {file.name} was not scored: {file.reason}" for file in source.files if file.reason]
    if source.extra_columns:
        columns = ", ".join(source.extra_columns)
        said.notes.append(f"{date}: {len(source.extra_columns)} extra column(s) were ignored: {columns}")
    return said
