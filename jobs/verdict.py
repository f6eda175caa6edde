r"""Verdicts of people on incidents: records them, and ranks the nights of these incidents again.

    spark-submit --py-files dist/ids_spark.zip jobs/verdict.py --set lake=LAKE --set verdict.date=DATE \
      --set verdict.incidents="ID ID" --set verdict.verdict=VERDICT [--set verdict.until=DATE] \
      --set verdict.owner=WHO --set verdict.reason=WHY
    spark-submit --py-files dist/ids_spark.zip jobs/verdict.py --set lake=LAKE --set verdict.file=CSV

VERDICT is true, benign (learned: the same does not come back), mute (until DATE), close or unlearn. An ID may be cut to
its first six characters or more.

Reads: `incidents/`, `alerts/`, `nights/` and `drift/` of these nights, `verdicts/`.
Writes: `verdicts/`; of these nights `incidents/`, `alerts/`, `nights/`, `exports/` and `reports/night/`. Predictions
are neither read nor written, and other nights keep their incidents until they are scored again.
"""

import datetime as dt
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from ids_spark.alerts import verdict_lines, verdicts
from ids_spark.alerts.verdict_lines import Line
from ids_spark.base.report import Report
from ids_spark.base.text import shown
from ids_spark.lake.listing import listed
from ids_spark.runtime import job
from ids_spark.score import rank_again
from ids_spark.score.rank_again import StoredNight

log = logging.getLogger(__name__)
_NOTES: Final = 50
_FORWARD: Final = frozenset({"benign", "mute", "unlearn"})
"""Verdicts that also concern later nights."""


def run(context: job.Context) -> Report:
    """Record the configured verdicts and rank their nights again."""
    lake, now = context.lake, dt.datetime.now(dt.UTC)
    lines, faults = verdict_lines.read(context.config.verdict, now.date())
    nights = {date: rank_again.read_night(lake, date) for date in sorted({line.date for line in lines})}
    named, unknown = verdict_lines.find_incidents(lines, {date: night.ids for date, night in nights.items()})
    verdict_lines.refuse([*faults, *unknown])
    rows = [_row(line, nights[line.date], incident, context.run_id, now) for line, incident in named]
    files = listed(lake, ["verdicts"])
    earlier = verdicts.read(lake)
    report = Report(rows_in=len(lines), rows_out=len(rows))
    report.tables.append(lake.write("verdicts", rows, context.staged, run_id=context.run_id))
    for date, night in nights.items():
        in_force = verdicts.in_force([*earlier, *rows], date)
        report.add(rank_again.rank_again(lake, context.staged, night, in_force, context.config))
    for verdict, n in sorted(Counter(row["verdict"] for row in rows).items()):
        report.counts[f"verdicts: {verdict}", "", None] = n
    report.notes[:0] = _notes(rows)
    later = _later(rows, lake.dates("incidents"))
    if later:
        report.notes.append(
            f"nights scored already are not changed: {shown([str(date) for date in later])}; score them again if these"
            " verdicts should apply to them"
        )
    rank_again.require_unchanged(lake, nights.values(), files)
    log.info("verdicts=%d nights=%d", len(rows), len(nights))
    return report


def _row(line: Line, night: StoredNight, incident: str, run_id: str, now: dt.datetime) -> dict[str, Any]:
    """Return a row of `verdicts/`."""
    found, alerts = night.incident(incident)
    return {
        "event_date": line.date,
        "incident_id": incident,
        "verdict": line.verdict,
        "until": line.until,
        "owner": line.owner,
        "reason": line.reason,
        "category": found["category"],
        "entities": verdicts.entities_of(alerts),
        "learned": verdicts.learned_of(alerts) if line.verdict == "benign" else None,
        "incident": verdicts.described(found),
        "run_id": run_id,
        "created_at": now,
    }


def _notes(rows: Sequence[verdicts.Row]) -> list[str]:
    """Return who decided what, for the audit; why, free text, is in `verdicts/` only, which is purged."""
    notes = []
    for row in rows[:_NOTES]:
        until = f" until {row['until']}" if row["until"] else ""
        notes.append(
            f"{row['event_date']}: incident {row['incident_id']}, {row['incident']}: {row['verdict']}{until}, by"
            f" {row['owner']}"
        )
    if len(rows) > _NOTES:
        notes.append(f"{len(rows) - _NOTES:,} more verdicts are in verdicts/{rows[0]['run_id']}.parquet")
    return notes


def _later(rows: Sequence[verdicts.Row], scored: Sequence[dt.date]) -> list[dt.date]:
    """Return nights scored already to which verdicts would apply, and that no verdict of this run names."""
    spans = [(row["event_date"], row["until"] or dt.date.max) for row in rows if row["verdict"] in _FORWARD]
    named = {row["event_date"] for row in rows}
    return [date for date in scored if date not in named and any(first < date <= last for first, last in spans)]


if __name__ == "__main__":
    sys.exit(job.main(run, __doc__))
