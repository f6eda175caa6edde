"""Nights of the flow logs that have no result yet, or one of other files or of another model."""

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

from ids_spark.alerts import looks
from ids_spark.base.errors import InputError
from ids_spark.config.score import ScoreConfig
from ids_spark.dataset.features import SchemaMismatch
from ids_spark.lake.filesystem import absolute
from ids_spark.lake.store import Lake
from ids_spark.score.night_context import ScoringContext
from ids_spark.score.night_files import NightMissing, dates_in, dates_of, find_night

_NEEDED: Final = ("role", "model", "model_version", "files_sha256", "run_of_night", "runs_per_night")


def pending(lake: Lake, scoring: ScoringContext) -> list[dt.date]:
    """Return the nights to score, oldest first.

    A night has a result if `nights/` has a row of the same model and version with the same files of flows, see
    `NightSource.sha256`. A night whose logs are refused stays pending, and so does a date that is over and was last
    scored before (`score.runs_per_night`). Of a range, a night that is over and has no flow
    logs is pending until it has a row in `nights/`, unless it is older than all flow logs.

    Raises:
        NightMissing: the flow logs hold no folder of a night.
    """
    config, today = scoring.config.score, scoring.time.date()
    flow_logs = config.flow_logs or ""
    dates = dates_in(flow_logs)
    if not dates:
        raise NightMissing(f"score.flow_logs is {absolute(flow_logs)}, which holds no folder event_date=YYYY-MM-DD")
    if config.last_days is None and config.first_date is None:
        return [date for date in dates if not _has_result(lake, scoring, date, missing=True)]
    return [
        date
        for date in dates_of(config, today)
        if date >= dates[0] and not _has_result(lake, scoring, date, missing=date >= today)
    ]


def silent_date(scoring: ScoringContext) -> str | None:
    """Return a sentence for people if the date that has begun should have flows and has none.

    None if a date is scored once, if today is not configured, and while the files of its first hour may still be
    written.
    """
    config, today = scoring.config.score, scoring.time.date()
    ranged = config.last_days is not None or config.first_date is not None
    if config.runs_per_night == 1 or scoring.time.hour < 2 or (ranged and today not in dates_of(config, today)):
        return None
    try:
        source = find_night(
            config, today, scoring.champion.preprocessor.schema, scoring.needed, identifiers=scoring.identifiers
        )
    except InputError:
        return None  # scoring states the reason
    if source is not None:
        return None
    folder = f"{absolute(config.flow_logs or '').rstrip('/')}/event_date={today}"
    return f"no flow of {today} so far: {folder} has no flow logs, at {scoring.time:%H:%M} UTC; check the sensors"


def nothing_pending(lake: Lake, scoring: ScoringContext) -> str:
    """Return a sentence for people when no night is to be scored: what has a result, and where the pages are."""
    card = scoring.champion.card
    return (
        f"nothing to score: every night of {_named(scoring.config.score)} has a result of {card.name} version"
        f" {card.version} for its present files; pages are in {lake.uri('reports/night')}"
    )


def _named(config: ScoreConfig) -> str:
    """Return the folder of flow logs, and the range of nights if there is one."""
    folder = absolute(config.flow_logs or "")
    if config.last_days is not None:
        return f"{folder} in the last {config.last_days} day(s)"
    return folder if config.first_date is None else f"{folder} from {config.first_date} to {config.last_date}"


def _has_result(lake: Lake, scoring: ScoringContext, date: dt.date, missing: bool) -> bool:
    """Return whether the lake has the result of a night for its present files.

    Args:
        lake, scoring, date: As for `pending`.
        missing: The answer for a night that has neither flow logs nor a row in `nights/`.
    """
    config, card = scoring.config.score, scoring.champion.card
    stored = _stored(lake, date)
    try:
        source = find_night(
            config, date, scoring.champion.preprocessor.schema, scoring.needed, identifiers=scoring.identifiers
        )
    except InputError:
        return False  # scoring states the reason
    if source is None:
        return stored is not None or missing
    if stored is None or (stored["model"], stored["model_version"]) != (card.name, card.version):
        return False
    if looks.partial(stored):
        runs = config.runs_per_night if config.runs_per_night > 1 else stored["runs_per_night"]
        if not looks.look_of(date, scoring.time, runs).partial:
            return False
    return bool(stored["files_sha256"] == source.sha256)


def _stored(lake: Lake, date: dt.date) -> Mapping[str, Any] | None:
    """Return the champion's row of a night; None without one, or with one that cannot be read."""
    try:
        rows = lake.read("nights", _NEEDED, event_date=date).to_pylist()
    except SchemaMismatch:
        return None
    return next((row for row in rows if row["role"] == "champion"), None)
