"""Flows to predictions: nights of flow logs to incidents, or a labelled split to metrics.

    spark-submit --py-files dist/ids_spark.zip jobs/score.py --set lake=LAKE --set score.flow_logs=LOGS NIGHTS
    spark-submit --py-files dist/ids_spark.zip jobs/score.py --set lake=LAKE [--set score.source=FLOWS]

with NIGHTS: --set score.date=DATE, or score.first_date and score.last_date, or score.last_days=K, or
score.pending_nights=true: every night without a result for its present files, beside a range only those of it.

A night reads `LOGS/event_date=DATE/`, is scored by the model's champion (and challenger), and replaces that date in
`predictions/`, `incidents/`, `alerts/`, `evidence/`, `traffic/`, `entity_history/`, `drift/`, `nights/`, `exports/`,
`reports/night/` and `quarantine/job=score/`. Duplicates are kept: two equal flows are two events.

Of several nights, one that cannot be scored does not stop the others; one without flow logs gets a page and a row in
`nights/`. Exit code 3: a night failed, is missing, or is degraded.

A split reads `flows/`, or any parquet with the model's feature columns, and every chosen model; it writes
`split_predictions/split=…/model=…`, `quarantine/job=score_split/…`, `metrics/` and `confusion/`, which scoring of
nights does not change. Metrics count each distinct labelled flow once.
"""

import datetime as dt
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ids_spark.base.errors import InputError, Interrupted
from ids_spark.base.report import Report
from ids_spark.base.text import one_line
from ids_spark.runtime import job

if TYPE_CHECKING:
    from ids_spark.score.night_context import ScoringContext
    from ids_spark.score.nightly import ScoredNights

log = logging.getLogger(__name__)
_MOST_PRINTED = 7  # nights


def run(context: job.Context) -> Report:
    """Score the configured nights or split."""
    # Imported here, while the Spark session starts.
    from ids_spark.score import night_context, nightly, split

    config, now = context.config.score, dt.datetime.now(dt.UTC)
    if config.flow_logs is None:
        spark, seed = context.spark.sparkContext, context.config.seed
        return split.score_split(spark, context.lake, context.staged, config, context.run_id, seed)
    scoring = night_context.open_context(context.lake, context.config, context.run_id, now)
    models = [model.card for model in (scoring.champion, scoring.challenger) if model is not None]
    report = Report(feature_schema=scoring.champion.preprocessor.schema.name)
    report.models = [f"{model.name}/{model.version}" for model in models]
    if scoring.aliases is not None:
        report.aliases[scoring.champion.card.name] = scoring.aliases
    scored = nightly.ScoredNights()
    if dates := _dates(context, scoring, report):
        failures = _score_each(context, scoring, dates, scored, report)
        _report_failures(failures, report, context.lake.root)
    any_scored = any(row["rows_scored"] for rows in scored.rows.values() for row in rows)
    if any_scored and not config.trusted_keys:  # with keys, a signed promotion names the champion
        _adopt(context, scoring, report, now)
    return report


def _dates(context: job.Context, scoring: "ScoringContext", report: Report) -> list[dt.date]:
    """Return the nights to score, oldest first; notes in the report why there is none."""
    from ids_spark.score import night_files, pending_nights

    if not context.config.score.pending_nights:
        return night_files.dates_of(context.config.score, scoring.time.date())
    dates = pending_nights.pending(context.lake, scoring)
    if silent := pending_nights.silent_date(scoring):
        report.notes.append(silent)
    if not dates:
        report.notes.append(pending_nights.nothing_pending(context.lake, scoring))
    return dates


def _score_each(
    context: job.Context,
    scoring: "ScoringContext",
    dates: Sequence[dt.date],
    scored: "ScoredNights",
    report: Report,
) -> list[tuple[dt.date, Exception]]:
    """Score nights, add them to the report, and return those that failed; a single one that fails is raised."""
    failures: list[tuple[dt.date, Exception]] = []
    printed: list[list[str]] = []
    for date in dates:
        try:
            night = _night(context, scoring, date, scored)
            printed.append(night.lines)
            report.add(replace(night, lines=[]))
        except Interrupted:
            raise
        except Exception as error:
            if len(dates) == 1:
                raise
            failures.append((date, error))
    if len(printed) > _MOST_PRINTED:
        report.lines.append(f"{len(printed) - _MOST_PRINTED:,} earlier nights: see {context.lake.uri('reports/night')}")
    report.lines += [line for lines in printed[-_MOST_PRINTED:] for line in lines]
    report.lines.append(f"all nights: {context.lake.uri('reports/index.html')}")
    return failures


def _adopt(context: job.Context, scoring: "ScoringContext", report: Report, now: dt.datetime) -> None:
    """Make the model that scored a first night its champion, if it has none."""
    from ids_spark.models import registry

    card = scoring.champion.card
    adopted = registry.adopt(context.lake.uri("models"), card.name, card.version, context.run_id, now)
    if adopted is None:
        return
    report.tables += registry.stage_aliases(context.staged, card.name, adopted, None)
    report.aliases[card.name] = adopted.recorded() or report.aliases[card.name]
    report.notes.append(f"{card.name}: {card.version} became champion: it scored its first night")
    promote = context.config.promote
    if promote.mlflow_uri is not None:
        from ids_spark.adapt import mlflow_mirror

        report.after_commit.append(mlflow_mirror.follow_up(context.lake, card.name, promote, None))


def _night(context: job.Context, scoring: "ScoringContext", date: dt.date, scored: "ScoredNights") -> Report:
    """Score one night; one without flow logs is refused if `score.date` names it, else reported as degraded."""
    from ids_spark.score import degradation, night_files, nightly

    config, missing = scoring.config.score, None
    schema, identifiers = scoring.champion.preprocessor.schema, scoring.identifiers
    source = night_files.find_night(config, date, schema, scoring.needed, identifiers=identifiers)
    if source is None:
        text = degradation.not_found(config, date, identifiers)
        if config.date is not None:
            raise night_files.NightMissing(text)
        if degradation.was_scored(context.lake, date):
            return Report(notes=[f"{text}; the earlier result of {date} was not changed"])
        source, missing = degradation.empty_night(config, date), degradation.missing(text)
    spark = context.spark.sparkContext
    report = nightly.score_night(spark, context.lake, context.staged, source, scoring, scored, missing)
    if missing is None:
        report.notes += [f"{date}: not read: {note}" for note in degradation.similar_notes(config, date, identifiers)]
    return report


def _report_failures(failures: Sequence[tuple[dt.date, Exception]], report: Report, lake: str) -> None:
    """Add the nights that failed to the report, one message each.

    Raises:
        InputError: nothing was scored, and every night was refused.
        Exception: nothing was scored; the first error that is no refusal.
    """
    messages = []
    for date, error in failures:
        refusal = error if isinstance(error, InputError) else job.known_fault(error, lake)
        first, *more = refusal.args if refusal else (one_line(error),)
        messages.append(InputError(f"{date} was not scored, its earlier result was not changed: {first}", *more))
        log.error("%s", messages[-1], exc_info=None if refusal else error)
    if failures and not report.tables and not report.notes:
        faults = [error for _, error in failures if not isinstance(error, InputError)]
        raise faults[0] if faults else InputError(*(line for message in messages for line in message.args))
    for message in messages:
        report.degrade(" ".join(str(message).split()))


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__, needs_spark=True))
