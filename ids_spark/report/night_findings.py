"""Findings of a scored night: is there anything to do, how much of it may be false, can the figures be trusted.

Findings are numbers, names and states; the template `night.html.j2` has their sentences.
"""

import datetime as dt
import functools
import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from ids_spark.alerts import looks
from ids_spark.alerts.severity import SEVERITIES
from ids_spark.base.errors import InputError
from ids_spark.dataset.taxonomy import UNKNOWN
from ids_spark.ingest import files
from ids_spark.models.artifact import ModelCard
from ids_spark.report.format import number_or
from ids_spark.report.packet_counts import share_invisible

Row = Mapping[str, Any]
State = Literal[
    "missing",
    "not_scored",
    "incidents",
    "incidents_missing",
    "incidents_folded",
    "no_incident",
    "unexplained",
    "cannot_tell",
    "all_allowed",
    "nothing_flagged",
]
Trust = Literal["yes", "care", "no"]

TREND_NIGHTS: Final = 7
_FEWEST_QUARANTINED: Final = 5  # rows from which a share above the usual is stated
_SERIOUS_SHARE, _NOTABLE_SHARE = 0.05, 0.01  # of rows; the first is the default of ingest.max_rejected_share
_INVISIBLE_SHARE: Final = 0.1  # of packets; some IPv6 and spanning tree is on every network
_FEWEST_NIGHTS: Final = 3  # earlier ones; the median of fewer is not used
_FAR_ABOVE: Final = 3.0  # times the stored rate of false alarms
_BOUND: Final = 0.975  # share of benign nights with at most so many false alarms
_DRIFT_BOUND: Final = 0.999  # the same for one category, of several
_UNUSUAL: Final = 2.0  # times the median of rows, or its inverse
FOLDED: Final = ("learning", "muted", "learned", "closed")
"""States of incidents that are not on the list; in the order of the page."""
_STATED_BY: Final[Mapping[str, tuple[str, ...]]] = {
    "missing": ("nothing_scored",),
    "nothing_scored": ("nothing_scored", "quarantined"),
    "rows_refused": ("quarantined",),
    "rows_refused_alike": ("quarantined",),
    "files_unreadable": ("files_refused",),
    "few_flows": ("unusual_volume",),
    "many_flows": ("unusual_volume",),
    "packets_invisible": ("packets_invisible",),
}
"""Issues that a reason of a degraded night states already."""


class NightUnknown(InputError):
    """Raised when a page is requested for a night that no champion scored."""


@dataclass(frozen=True)
class Night:
    """Inputs of the page of a night; rows as in the tables of `dataset.tables`.

    Attributes:
        event_date: The night.
        incidents: Rows of `incidents/`.
        drift: Rows of `drift/`.
        nights: Rows of `nights/` by date, of this and earlier nights.
        allow_list: Entries as mappings of any columns; `expires`, a date, is the last night that an entry covers.
        agreement: Flagged flows by model: `both`, `champion_only`, `challenger_only`; None where not counted.
        cards: Model card by role, where the model's directory exists and is unchanged.
        facts: Further inputs by name, such as the severity policy.
        alerts: Rows of `alerts/`.
        before, after: The nights before and after it that have a page; None without, and for the newest night.
    """

    event_date: dt.date
    incidents: Sequence[Row]
    drift: Sequence[Row]
    nights: Mapping[dt.date, Sequence[Row]]
    allow_list: Sequence[Row] = ()
    agreement: Mapping[str, int] | None = None
    cards: Mapping[str, ModelCard] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    alerts: Sequence[Row] = ()
    before: dt.date | None = None
    after: dt.date | None = None

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
        """The champion's open incidents within the most lines, by rank."""
        rows = (row for row in self._in_state("open") if row["shown"])
        return sorted(rows, key=lambda row: int(row["rank"]))

    @property
    def beyond(self) -> list[Row]:
        """The champion's open incidents beyond the most lines, by rank."""
        rows = (row for row in self._in_state("open") if not row["shown"])
        return sorted(rows, key=lambda row: (row["rank"] is None, row["rank"]))

    @property
    def folded(self) -> dict[str, list[Row]]:
        """The champion's incidents that are not on the list, by state, highest score first."""
        found = {state: self._in_state(state) for state in FOLDED}
        return {
            state: sorted(rows, key=lambda row: (-number_or(row["score"], 0.0), row["incident_id"]))
            for state, rows in found.items()
            if rows
        }

    @functools.cached_property
    def alerts_of(self) -> Mapping[str, Sequence[Row]]:
        """Rows of `alerts/` by incident, most significant first."""
        found: dict[str, list[Row]] = {}
        for row in sorted(self.alerts, key=lambda row: number_or(row["log10_p"], 0.0)):
            found.setdefault(row["incident_id"], []).append(row)
        return found

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
    def partial(self) -> bool:
        """Whether flows of the date were still to come when the champion scored it."""
        return looks.partial(self.champion)

    @property
    def degraded(self) -> Sequence[Row]:
        """Why the figures do not describe the whole traffic of the date, most important first: `reason` and `text`."""
        return self.champion.get("degraded") or ()

    @property
    def predicted(self) -> int:
        """Flows of the champion with a prediction: those scored, and those scored with one feature at its median."""
        return int(self.champion["rows_scored"] + (self.champion.get("rows_imputed") or 0))

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
        """Hours in UTC without any flow, of those that are over; none where flows have no event time.

        The newest of them is left out while the date is not over: its files may still be written.
        """
        row = self.champion
        over = looks.hours_due(row["run_of_night"], row["runs_per_night"]) if self.partial else 24
        active = {cell["hour"] for cell in self.champion["class_mix"] or () if cell["flows"]} - {None}
        return [hour for hour in range(over) if hour not in active] if active else []

    def _in_state(self, state: str) -> list[Row]:
        return [row for row in self.incidents if row["state"] == state and self._of_champion(row)]

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
    """How many benign flows are flagged, and the evidence for that number; NaN where it is unknown.

    Attributes:
        flagged: Flows of the night that were flagged.
        scored: Flows of the night with a prediction.
        threshold_logit: Log-odds of an attack from which a flow is flagged.
        expected: Flows flagged on a night of `scored` benign flows.
        at_most: Flows that at most 2.5 % of such nights exceed; see `predictive_bound`.
        validation_rows: Benign validation rows from which `expected` is computed.
        smallest_rate: Smallest false-positive rate that this number of rows supports.
        unlike: Flows of the night that only the second detector flagged.
        unlike_at_most: As `at_most`, of these.
    """

    flagged: int
    scored: int
    threshold_logit: float
    expected: float
    at_most: float
    validation_rows: int
    smallest_rate: float
    unlike: int = 0
    unlike_at_most: float = math.nan

    @property
    def known(self) -> bool:
        """Whether expectation and upper bound are known."""
        return not math.isnan(self.expected + self.at_most)

    @property
    def rate_known(self) -> bool:
        """Whether the smallest rate that the validation rows support is known."""
        return not math.isnan(self.smallest_rate)

    @property
    def explain_all(self) -> bool | None:
        """Whether false alarms alone may explain every flagged flow, of either detector; None where that is unknown.

        It is also None where nothing was flagged.
        """
        counts = ((self.flagged, self.at_most if self.known else math.nan), (self.unlike, self.unlike_at_most))
        flagged = [(n, most) for n, most in counts if n]
        if any(n > most for n, most in flagged):
            return False
        return None if not flagged or any(math.isnan(most) for _, most in flagged) else True


@dataclass(frozen=True)
class FalseIncidents:
    """How many incidents of benign flows to expect in a night, and how many people found; NaN where it is unknown.

    Attributes:
        budget: Most that are expected, the setting `alerts.false_incidents`.
        expected: Expectation of the p-value from which a cell is an alert, `alpha`.
        alpha: That p-value.
        cells: Cells that were tested.
        judged: Incidents of the night with the verdict `true` or `benign`.
        benign: Those of them with the verdict `benign`.
    """

    budget: float
    expected: float
    alpha: float
    cells: int
    judged: int
    benign: int

    @property
    def known(self) -> bool:
        """Whether both are known; they are not without benign validation rows, and in nights of older versions."""
        return not math.isnan(self.budget + self.expected)


@dataclass(frozen=True)
class FalseAlarmRate:
    """Rate of false alarms of one predicted category; NaN where it is unknown.

    It is that at the operating point, or at the first stricter level that is far above the stored rate where the
    operating point is not: an attack that is spread thinly over devices and hours is seen there.

    Attributes:
        category: The category.
        rate: Rate of false alarms of all categories at this level.
        stored: Share of the benign validation rows.
        tonight: Share of the night's flows outside of alerts.
        far_above: Whether `tonight` is over three times `stored`, by more than chance explains.
    """

    category: str
    rate: float
    stored: float
    tonight: float
    far_above: bool


def severities(incidents: Sequence[Row]) -> dict[str, int]:
    """Return how many incidents have each severity that occurs, worst first and unknown names last."""
    found = Counter(str(row["severity"]) for row in incidents)
    order: dict[str, int] = {name: i for i, name in enumerate(SEVERITIES)}
    return {name: found[name] for name in sorted(found, key=lambda name: (order.get(name, len(order)), name))}


def state(night: Night) -> State:
    """Return the state of a night.

    Returns:
        `missing`: there are no flow logs. `not_scored`: no flow was scored. `incidents`: there are incidents to look
        at. `incidents_missing`: `nights/` counts shown incidents, `incidents/` has none. `incidents_folded`: verdicts,
        or learning, take all incidents off the list. `all_allowed`: the allow-list covers all flagged flows.
        `no_incident`: flows were flagged, no more of them than false alarms explain. `unexplained`: more were, but
        alike on all devices, so that none stands out. `cannot_tell`: how many false alarms explain is unknown.
        `nothing_flagged`: no flow was flagged.
    """
    row = night.champion
    if _is_missing(row):
        return "missing"
    if not night.predicted:
        return "not_scored"
    if night.shown:
        return "incidents"
    if row["incidents_shown"]:
        return "incidents_missing"
    if night.folded:
        return "incidents_folded"
    if not row["flows_flagged"]:
        return "nothing_flagged"
    if (row["flows_allowed"] or 0) >= row["flows_flagged"]:
        return "all_allowed"
    explained = false_alarms(night).explain_all
    return "cannot_tell" if explained is None else "no_incident" if explained else "unexplained"


def not_shown(night: Night) -> list[Row]:
    """Return `category`, `entity` and `incidents`, a count, of open incidents beyond the most lines; most first."""
    found = night.champion.get("incidents_not_shown") or ()
    return sorted(found, key=lambda row: (-row["incidents"], str(row["category"]), str(row["entity"])))


def false_alarms(night: Night) -> FalseAlarms:
    """Return how many of the flows that the network flags may be false alarms.

    Flows that only the second detector flags have a rate of their own, which the expectation does not contain.
    """
    row = night.champion
    unlike = [each for each in row.get("false_alarm_rates") or () if each["category"] == UNKNOWN]
    first = max(unlike, key=lambda each: float(each["rate"]), default=None)
    reached, unlike_rows = (first["reached"] or 0, first["benign_rows"] or 0) if first else (0, 0)
    unlike_expected = night.predicted * reached / unlike_rows if unlike_rows else math.nan
    expected, rows = number_or(row["expected_false_alarms"]), row["benign_validation_rows"]
    return FalseAlarms(
        row["flows_flagged"] - (row.get("flows_unknown") or 0),
        night.predicted,
        number_or(row["threshold_logit"]),
        expected,
        predictive_bound(expected, rows, night.predicted),
        rows,
        number_or(row["smallest_rate"]),
        row.get("flows_unknown") or 0,
        predictive_bound(unlike_expected, unlike_rows, night.predicted),
    )


def predictive_bound(expected: float, validation_rows: int, flows: int, share: float = _BOUND) -> float:
    """Return how many flagged flows a share of benign nights has at most; NaN without an expectation.

    The rate of false alarms has the distribution Gamma(k + 1/2, n) after k of n benign validation rows were flagged
    (Jeffreys' prior), and the count of one night is Poisson around it: together negative binomial (Gelman et al.,
    Bayesian Data Analysis, 3rd ed., 2.6). It also covers the scatter of the night itself, unlike an interval of the
    expectation.

    Args:
        expected: Flagged flows to expect, flows · k / n.
        validation_rows: n.
        flows: Scored flows of the night.
        share: Of benign nights.
    """
    if not validation_rows or math.isnan(expected):
        return math.nan
    if not flows:
        return 0.0
    from scipy import special  # imported here, as only pages need it

    shape, weight = expected * validation_rows / flows + 0.5, validation_rows / (validation_rows + flows)
    low, high = -1, 1
    while special.betainc(shape, high + 1, weight) < share:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if special.betainc(shape, middle + 1, weight) >= share else (middle, high)
    return float(high)


def false_incidents(night: Night) -> FalseIncidents:
    """Return how many incidents are expected to be false, and how many of those with a verdict are."""
    row = night.champion
    verdicts = Counter(each["verdict"] for rows in (night.shown, *night.folded.values()) for each in rows)
    return FalseIncidents(
        number_or(row.get("false_incidents")),
        number_or(row.get("false_incidents_expected")) if row["benign_validation_rows"] else math.nan,
        number_or(row.get("alpha")),
        row.get("cells") or 0,
        verdicts["true"] + verdicts["benign"],
        verdicts["benign"],
    )


def hours_to_list(night: Night) -> list[float]:
    """Return the hours from the first flagged flow of each incident shown to when it was first listed, ascending."""
    return sorted(
        (row["listed_at"] - row["first_seen"]) / dt.timedelta(hours=1)
        for row in night.shown
        if row.get("listed_at") and row["first_seen"]
    )


def false_alarm_rates(night: Night) -> list[FalseAlarmRate]:
    """Return the rates of false alarms at the operating point, by category; none in nights of older versions."""
    rates, flows = night.champion.get("false_alarm_rates") or (), night.predicted
    found: dict[str, FalseAlarmRate] = {}
    for each in sorted(rates, key=lambda each: -float(each["rate"])):
        category, stored, tonight = each["category"], number_or(each["stored"]), number_or(each["tonight"])
        rows = each["benign_rows"] or 0
        expected = flows * (each["reached"] or 0) / rows if rows else math.nan
        far_above = tonight > _FAR_ABOVE * stored and tonight * flows > predictive_bound(
            expected, rows, flows, _DRIFT_BOUND
        )
        if category not in found or (far_above and not found[category].far_above):
            found[category] = FalseAlarmRate(category, each["rate"], stored, tonight, far_above)
    return list(found.values())


def recall(night: Night) -> dict[str, tuple[int, float]]:
    """Return attack validation rows and the share of them that is flagged, by class; NaN without rows."""
    return {
        each["class_name"]: (each["rows"] or 0, number_or(each["recall"]) if each["rows"] else math.nan)
        for each in night.champion.get("recall") or ()
    }


def mean_recall(found: Mapping[str, tuple[int, float]]) -> float:
    """Return the mean over classes of known recall, each class with the same weight; NaN where none is known."""
    known = [share for _, share in found.values() if not math.isnan(share)]
    return statistics.fmean(known) if known else math.nan


def quarantined(night: Night) -> Issue | None:
    """Return that more flows are in quarantine than is usual, or than 1 %; None where there are not."""
    row = night.champion
    rows, count, usual = row["rows_in"], row["rows_quarantined"], row.get("quarantine_usual")
    if not rows or not count:
        return None
    above = usual is not None and count >= _FEWEST_QUARANTINED and count > usual * rows
    if not above and count <= _NOTABLE_SHARE * rows:
        return None
    return Issue(
        "quarantined", count > _SERIOUS_SHARE * rows, {"rows": count, "of": rows, "usual": usual if above else None}
    )


def hidden(night: Night) -> Issue | None:
    """Return `quarantined` for the first line of the page, unless this states it already."""
    stated = any("quarantined" in _STATED_BY.get(reason["reason"], ()) for reason in night.degraded)
    return None if stated or not night.predicted else quarantined(night)


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
    rows, scored, refused = row["rows_in"], row["rows_scored"], row["rows_quarantined"]
    if not scored:
        yield Issue("nothing_scored", True)
    if rows != scored + refused:
        yield Issue("not_reconciled", True, {"rows_in": rows, "scored": scored, "quarantined": refused})
    if len(night.shown) != row["incidents_shown"]:
        yield Issue("incidents_differ", True, {"listed": len(night.shown), "counted": row["incidents_shown"]})
    if beyond := not_shown(night):
        yield Issue("incidents_not_shown", False, {"incidents": sum(each["incidents"] for each in beyond)})
    if night.refused_files:
        yield Issue("files_refused", False, {"files": len(night.refused_files), "of": len(night.flow_files)})
    for kind, column in (("unread_times", "type"), ("unread_columns", "name")):
        counted = [each for each in row.get(kind) or () if each["rows"]]
        if counted:
            of = {each[column]: each["rows"] for each in counted}
            yield Issue(kind, False, {"rows": sum(of.values()), "names": list(of)})
    if (packets := row.get("packets")) and (invisible := share_invisible(packets)) > _INVISIBLE_SHARE:
        yield Issue("packets_invisible", False, {"share": invisible})
    if (issue := quarantined(night)) is not None:
        yield issue
    count = row["rows_of_another_date"] or 0
    if rows and count / rows > _NOTABLE_SHARE:
        yield Issue("other_date", count / rows > _SERIOUS_SHARE, {"rows": count, "of": rows})


def _issues_of_volume(night: Night) -> Iterator[Issue]:
    rows = night.champion["rows_in"]
    if night.silent_hours:
        yield Issue("silent_hours", False, {"hours": night.silent_hours})
    before = [
        row["rows_in"]
        for date, row in night.trend.items()
        if row and row["rows_in"] and date != night.event_date and not looks.partial(row)
    ]
    if rows and len(before) >= _FEWEST_NIGHTS:
        usual = statistics.median(before)
        few = rows < usual / _UNUSUAL and not night.partial
        if few or rows > usual * _UNUSUAL:
            yield Issue("unusual_volume", False, {"rows": rows, "usual": usual})


def _issues_of_model(night: Night) -> Iterator[Issue]:
    row, card = night.champion, night.cards.get("champion")
    if row.get("stage") == "learning" and row["rows_scored"]:
        yield Issue("learning", False)
    if card is not None and card.data_origin != row["data_origin"]:
        yield Issue("other_origin", True, {"trained_on": card.data_origin, "scored": row["data_origin"]})
    if not row["rows_scored"]:
        return
    if row["drift_significant"]:
        yield Issue("drift", False, {"features": row["drift_significant"], "of": len(night.drifts("feature"))})
    alarms = false_alarms(night)
    if math.isnan(alarms.smallest_rate + alarms.expected):
        yield Issue("false_alarms_unknown", False)
    if above := [each for each in false_alarm_rates(night) if each.far_above]:
        worst = max(above, key=lambda each: each.tonight / each.stored if each.stored else math.inf)
        facts = {"categories": [each.category for each in above], "stored": worst.stored, "tonight": worst.tonight}
        yield Issue("false_alarms_drifted", False, facts)
