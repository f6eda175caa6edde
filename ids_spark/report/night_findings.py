"""Findings of a scored night: is there anything to do, how many alarms may be false, can the figures be trusted.

Findings are numbers, names and states; the template `night.html.j2` has their sentences.
"""

import datetime as dt
import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from ids_spark.alerts.severity import SEVERITIES
from ids_spark.base.errors import InputError
from ids_spark.ingest import files
from ids_spark.models.artifact import ModelCard
from ids_spark.report.format import number_or

Row = Mapping[str, Any]
State = Literal["missing", "not_scored", "incidents", "incidents_missing", "all_allowed", "nothing_flagged"]
Trust = Literal["yes", "care", "no"]

TREND_NIGHTS: Final = 7
_SERIOUS_SHARE, _NOTABLE_SHARE = 0.05, 0.01  # of rows; the first is the default of ingest.max_rejected_share
_FEWEST_NIGHTS: Final = 3  # earlier ones; the median of fewer is not used
_OVER_BUDGET: Final = 1.05
_UNUSUAL: Final = 2.0  # times the median of rows, or its inverse
_STATED_BY: Final[Mapping[str, tuple[str, ...]]] = {
    "missing": ("nothing_scored",),
    "nothing_scored": ("nothing_scored", "quarantined"),
    "rows_refused": ("quarantined",),
    "files_unreadable": ("files_refused",),
    "few_flows": ("unusual_volume",),
    "many_flows": ("unusual_volume",),
}
"""Issues that a reason of a degraded night states already."""


class NightUnknown(InputError):
    """Raised when a page is requested for a night that no champion scored."""


@dataclass(frozen=True)
class Night:
    """Inputs of the page of a night; rows as in the tables of `dataset.tables`.

    Attributes:
        event_date: The night.
        incidents: Rows of `alerts/`.
        drift: Rows of `drift/`.
        nights: Rows of `nights/` by date, of this and earlier nights.
        allow_list: Entries as mappings of any columns; `expires`, a date, is the last night that an entry covers.
        agreement: Flagged flows by model: `both`, `champion_only`, `challenger_only`; None where not counted.
        cards: Model card by role, where the model's directory exists and is unchanged.
        facts: Further inputs by name, such as the severity policy.
    """

    event_date: dt.date
    incidents: Sequence[Row]
    drift: Sequence[Row]
    nights: Mapping[dt.date, Sequence[Row]]
    allow_list: Sequence[Row] = ()
    agreement: Mapping[str, int] | None = None
    cards: Mapping[str, ModelCard] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def champion(self) -> Row:
        """The champion's row of this night.

        Raises:
            NightUnknown: there is none.
        """
        found = self.of(self.event_date)
        if found is None:
            raise NightUnknown(
                f"nights/ has no row of the champion for {self.event_date}; expected one;"
                f" run jobs/score.py with score.date={self.event_date} first"
            )
        return found

    @property
    def challenger(self) -> Row | None:
        """The challenger's row of this night; None where it did not score."""
        return self.of(self.event_date, "challenger")

    def of(self, date: dt.date, role: str = "champion") -> Row | None:
        """Return the row of one model and date; None where it did not score."""
        return next((row for row in self.nights.get(date, ()) if row["role"] == role), None)

    @property
    def shown(self) -> list[Row]:
        """The champion's incidents by rank."""
        return sorted((row for row in self.incidents if self._of_champion(row)), key=lambda row: int(row["rank"]))

    def drifts(self, kind: str) -> list[Row]:
        """Return the champion's rows of `drift/` of one kind, highest drift index first; those without one last."""
        found = [row for row in self.drift if row["kind"] == kind and self._of_champion(row)]
        return sorted(found, key=lambda row: (-number_or(row["drift_index"], -1.0), row["name"]))

    @property
    def trend(self) -> dict[dt.date, Row | None]:
        """The champion's rows of the seven dates that end with this night; None where there is none or no flow log."""
        dates = [self.event_date - dt.timedelta(days=i) for i in reversed(range(TREND_NIGHTS))]
        rows = {date: self.of(date) for date in dates}
        return {date: None if row is None or _is_missing(row) else row for date, row in rows.items()}

    @property
    def degraded(self) -> Sequence[Row]:
        """Why the figures do not describe the whole traffic of the date, most important first: `reason` and `text`."""
        return self.champion.get("degraded") or ()

    @property
    def flow_files(self) -> list[Row]:
        """Files that hold flows, or should."""
        return [file for file in self.champion["files"] or () if file["reason"] not in files.HARMLESS]

    @property
    def refused_files(self) -> list[Row]:
        """Files of flows that could not be read, each with a reason."""
        return [file for file in self.flow_files if file["reason"]]

    @property
    def other_files(self) -> list[Row]:
        """Files without flows, such as hidden ones and documents, each with a reason."""
        return [file for file in self.champion["files"] or () if file["reason"] in files.HARMLESS]

    @property
    def silent_hours(self) -> list[int]:
        """Hours in UTC without any flow; none where flows have no event time."""
        active = {cell["hour"] for cell in self.champion["class_mix"] or () if cell["flows"]} - {None}
        return [hour for hour in range(24) if hour not in active] if active else []

    def _of_champion(self, row: Row) -> bool:
        return all(row[key] == self.champion[key] for key in ("model", "model_version"))


@dataclass(frozen=True)
class Issue:
    """One reason not to trust the figures of a night.

    Attributes:
        kind: Name of the reason; the template has a sentence for each.
        serious: Whether the figures cannot be trusted at all.
        facts: Numbers and names of the sentence.
    """

    kind: str
    serious: bool
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FalseAlarms:
    """How many benign flows the threshold flags, and the evidence for that number; NaN where it is unknown.

    Attributes:
        flagged: Flows of the night that were flagged.
        scored: Flows of the night that were scored.
        budget: False alarms for which the threshold was chosen, in flows a night.
        threshold_logit: Log-odds of an attack from which a flow is flagged.
        expected: Flows flagged on a night of `scored` benign flows.
        at_most: Upper bound of `expected`, of a 95% interval.
        validation_rows: Benign validation rows from which `expected` is computed.
        smallest_rate: Smallest false-positive rate that this number of rows supports.
    """

    flagged: int
    scored: int
    budget: int
    threshold_logit: float
    expected: float
    at_most: float
    validation_rows: int
    smallest_rate: float

    @property
    def known(self) -> bool:
        """Whether expectation and upper bound are known."""
        return not math.isnan(self.expected + self.at_most)

    @property
    def rate_known(self) -> bool:
        """Whether the smallest rate that the validation rows support is known."""
        return not math.isnan(self.smallest_rate)

    @property
    def over_budget(self) -> bool:
        """Whether no threshold comes close to the budget."""
        return self.expected > _OVER_BUDGET * self.budget

    @property
    def too_few_rows(self) -> bool:
        """Whether the budget requires a smaller rate than the validation rows support."""
        return self.smallest_rate * self.scored > self.budget

    @property
    def explain_all(self) -> bool | None:
        """Whether false alarms alone may explain every flagged flow; None where nothing was flagged or known."""
        return self.flagged <= self.at_most if self.flagged and self.known else None


def severities(incidents: Sequence[Row]) -> dict[str, int]:
    """Return how many incidents have each severity that occurs, worst first and unknown names last."""
    found = Counter(str(row["severity"]) for row in incidents)
    order: dict[str, int] = {name: i for i, name in enumerate(SEVERITIES)}
    return {name: found[name] for name in sorted(found, key=lambda name: (order.get(name, len(order)), name))}


def state(night: Night) -> State:
    """Return the state of a night.

    Returns:
        `missing`: there are no flow logs. `not_scored`: no flow was scored. `incidents`: there are incidents to look
        at. `incidents_missing`: `nights/` counts incidents, `alerts/` lists none. `all_allowed`: flows were flagged,
        and the allow-list covers them. `nothing_flagged`: no flow was flagged.
    """
    row = night.champion
    if _is_missing(row):
        return "missing"
    if not row["rows_scored"]:
        return "not_scored"
    if night.shown:
        return "incidents"
    if row["incidents"]:
        return "incidents_missing"
    return "all_allowed" if row["flows_flagged"] else "nothing_flagged"


def incidents_over_budget(night: Night) -> int:
    """Return how many incidents exceed the budget and are not listed."""
    return max(0, int(night.champion["incidents"] - night.champion["incidents_shown"]))


def false_alarms(night: Night) -> FalseAlarms:
    """Return how many of the flagged flows may be false alarms."""
    row = night.champion
    return FalseAlarms(
        row["flows_flagged"],
        row["rows_scored"],
        row["budget"],
        number_or(row["threshold_logit"]),
        number_or(row["expected_false_alarms"]),
        number_or(row["false_alarms_at_most"]),
        row["benign_validation_rows"],
        number_or(row["smallest_rate"]),
    )


def trust(found: Sequence[Issue]) -> Trust:
    """Return whether the figures can be trusted, given all issues of the night."""
    return "no" if any(issue.serious for issue in found) else "care" if found else "yes"


def issues(night: Night) -> list[Issue]:
    """Return every reason not to trust the night's figures, serious ones first."""
    degraded = [Issue("degraded", True, reason) for reason in night.degraded]
    stated = {name for reason in night.degraded for name in _STATED_BY.get(reason["reason"], ())}
    found = [*_issues_of_rows(night), *_issues_of_volume(night), *_issues_of_model(night)]
    found = [*degraded, *(issue for issue in found if issue.kind not in stated)]
    return sorted(found, key=lambda issue: not issue.serious)


def _is_missing(row: Row) -> bool:
    return any(reason["reason"] == "missing" for reason in row.get("degraded") or ())


def _issues_of_rows(night: Night) -> Iterator[Issue]:
    row = night.champion
    rows, scored, quarantined = row["rows_in"], row["rows_scored"], row["rows_quarantined"]
    if not scored:
        yield Issue("nothing_scored", True)
    if rows != scored + quarantined:
        yield Issue("not_reconciled", True, {"rows_in": rows, "scored": scored, "quarantined": quarantined})
    if len(night.shown) != row["incidents_shown"]:
        yield Issue("incidents_differ", True, {"listed": len(night.shown), "counted": row["incidents_shown"]})
    if night.refused_files:
        yield Issue("files_refused", False, {"files": len(night.refused_files), "of": len(night.flow_files)})
    for kind, column in (("unread_times", "type"), ("unread_columns", "name")):
        counted = [each for each in row.get(kind) or () if each["rows"]]
        if counted:
            of = {each[column]: each["rows"] for each in counted}
            yield Issue(kind, False, {"rows": sum(of.values()), "names": list(of)})
    for kind, count in (("quarantined", quarantined), ("other_date", row["rows_of_another_date"] or 0)):
        if rows and count / rows > _NOTABLE_SHARE:
            yield Issue(kind, count / rows > _SERIOUS_SHARE, {"rows": count, "of": rows})


def _issues_of_volume(night: Night) -> Iterator[Issue]:
    rows = night.champion["rows_in"]
    if night.silent_hours:
        yield Issue("silent_hours", False, {"hours": night.silent_hours})
    before = [
        row["rows_in"] for date, row in night.trend.items() if row and row["rows_in"] and date != night.event_date
    ]
    if rows and len(before) >= _FEWEST_NIGHTS:
        usual = statistics.median(before)
        if not usual / _UNUSUAL <= rows <= usual * _UNUSUAL:
            yield Issue("unusual_volume", False, {"rows": rows, "usual": usual})


def _issues_of_model(night: Night) -> Iterator[Issue]:
    row, card = night.champion, night.cards.get("champion")
    if card is not None and card.data_origin != row["data_origin"]:
        yield Issue("other_origin", True, {"trained_on": card.data_origin, "scored": row["data_origin"]})
    if not row["rows_scored"]:
        return
    if row["drift_significant"]:
        yield Issue("drift", False, {"features": row["drift_significant"], "of": len(night.drifts("feature"))})
    alarms = false_alarms(night)
    if math.isnan(alarms.smallest_rate + alarms.expected):
        yield Issue("false_alarms_unknown", False)
    elif alarms.too_few_rows:
        yield Issue("few_validation_rows", False, {"budget": alarms.budget})
