"""A night in a few lines for a terminal: its state, its first incidents, and where its page is."""

import statistics
from collections.abc import Mapping
from typing import Final

from ids_spark.alerts import narrative
from ids_spark.report import night_findings
from ids_spark.report.format import amount, counted, observed
from ids_spark.report.night_findings import Night, State

_LISTED: Final = 5
_STATES: Final[Mapping[State, str]] = {
    "missing": "no flow logs",
    "not_scored": "no flow was scored",
    "incidents_missing": "incidents are counted, but not listed",
    "incidents_folded": "no incident to look at, all are off the list by verdicts or while learning",
    "cannot_tell": "no incident, how many flagged flows are false alarms is unknown",
    "all_allowed": "no incident, the allow-list covers all flagged flows",
    "no_incident": "no incident, false alarms explain the flagged flows",
    "unexplained": "no incident stands out, but more flows are flagged than false alarms explain",
    "nothing_flagged": "no flow flagged",
}


def lines(night: Night, page: str) -> list[str]:
    """Return the lines, without control characters.

    Args:
        night: With the incidents of the page.
        page: Where the page is.
    """
    state, shown = night_findings.state(night), night.shown
    text = f"{counted(len(shown), 'incident')} to look at" if state == "incidents" else _STATES[state]
    if night.partial:
        answer, comma, reason = text.partition(",")
        text = f"{answer} so far{comma}{reason}"
    hidden = night_findings.quarantined(night)
    if hidden is not None:
        rows, of = hidden.facts["rows"], hidden.facts["of"]
        usual = "" if hidden.facts["usual"] is None else ", more than usual"
        text += f"; {rows:,} of {counted(of, 'flow')} ({rows / of:.2%}) in quarantine{usual}"
    found = [f"night {night.event_date}{' (degraded)' if night.degraded else ''}: {text}"]
    if state == "missing":
        return [f"{found[0]}; page: {page}"]
    for row in shown[:_LISTED]:
        when = observed(row, night.event_date, "%H:%M")
        title = f"{row['severity']}  {narrative.title(row)}"
        found.append(f"  {row['rank']}  {title}, {when}, {counted(row['flows'] or 0, 'flow')}")
    if len(shown) > _LISTED:
        found.append(f"  and {len(shown) - _LISTED:,} more")
    if text := runs(night):
        found.append(f"  {text}")
    if stage := night.champion.get("stage_text"):
        found.append(f"  {stage}{_learning(night)}")
    return [*found, f"  page: {page}"]


def runs(night: Night) -> str:
    """Return which run of its date a night is, what it has spent, and how soon incidents were listed.

    Empty for a night that is scored once, and for one without flow logs.
    """
    row = night.champion
    of = row.get("runs_per_night") or 1
    if of == 1 or night_findings.state(night) == "missing":
        return ""
    spent, budget = amount(row["false_incidents_expected"]), amount(row["false_incidents"])
    text = f"Run {row['run_of_night']} of {of} at this date"
    text += ", of the flows so far" if night.partial else ""
    text += f"; {spent} of {budget} expected false incidents are spent."
    if hours := night_findings.hours_to_list(night):
        middle, most = statistics.median(hours), hours[-1]
        text += (
            f" Incidents were listed {middle:.1f} hours after their first flagged flow (median; at most {most:.1f})."
        )
    return text


def _learning(night: Night) -> str:
    """Return how many incidents and devices are learning, as a further sentence."""
    row = night.champion
    parts = [
        counted(row.get("incidents_learning") or 0, "incident"),
        counted(row.get("devices_learning") or 0, "new device"),
    ]
    numbers = [part for part in parts if not part.startswith("0 ")]
    return f" Learning: {', '.join(numbers)}." if numbers else ""
