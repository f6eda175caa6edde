"""Nights of the flow logs that have no result yet, or one of other files or of another model."""

import datetime as dt
from collections.abc import Mapping
from typing import Any

from ids_spark.base.errors import InputError
from ids_spark.dataset.features import SchemaMismatch
from ids_spark.lake.filesystem import absolute
from ids_spark.lake.store import Lake
from ids_spark.score.night_context import ScoringContext
from ids_spark.score.night_files import NightMissing, dates_in, find_night


def pending(lake: Lake, scoring: ScoringContext) -> list[dt.date]:
    """Return the nights to score, oldest first.

    A night has a result if `nights/` has a row of the same model and version with the same files of flows, see
    `NightSource.sha256`. A night whose logs are refused stays pending.

    Raises:
        NightMissing: the flow logs hold no folder of a night.
    """
    flow_logs = scoring.config.score.flow_logs or ""
    dates = dates_in(flow_logs)
    if not dates:
        raise NightMissing(f"score.flow_logs is {absolute(flow_logs)}, which holds no folder event_date=YYYY-MM-DD")
    return [date for date in dates if not _has_result(lake, scoring, date)]


def nothing_pending(lake: Lake, scoring: ScoringContext) -> str:
    """Return a sentence for people when no night is to be scored: what has a result, and where the pages are."""
    card = scoring.champion.card
    return (
        f"nothing to score: every night of {absolute(scoring.config.score.flow_logs or '')} has a result of {card.name}"
        f" version {card.version} for its present files; pages are in {lake.uri('reports/night')}"
    )


def _has_result(lake: Lake, scoring: ScoringContext, date: dt.date) -> bool:
    """Return whether the lake has the result of a night for its present files, or the night has no files."""
    config, card = scoring.config.score, scoring.champion.card
    stored = _stored(lake, date)
    try:
        source = find_night(
            config, date, scoring.champion.preprocessor.schema, scoring.needed, identifiers=scoring.identifiers
        )
    except InputError:
        return False  # scoring states the reason
    if source is None:
        return True
    if stored is None or (stored["model"], stored["model_version"]) != (card.name, card.version):
        return False
    return bool(stored["files_sha256"] == source.sha256)


def _stored(lake: Lake, date: dt.date) -> Mapping[str, Any] | None:
    """Return the champion's row of a night; None without one, or with one that cannot be read."""
    try:
        rows = lake.read("nights", ["role", "model", "model_version", "files_sha256"], event_date=date).to_pylist()
    except SchemaMismatch:
        return None
    return next((row for row in rows if row["role"] == "champion"), None)
