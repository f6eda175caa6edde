"""What a scored night says: anything to do, how bad it is, and what speaks against believing it."""

import datetime as dt
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from ids_spark.alerts.severity import SEVERITIES
from ids_spark.base.errors import InputError
from ids_spark.models.artifact import ModelCard
from ids_spark.report.format import amount, counted, hour_ranges, known, percent, probability

Row = Mapping[str, Any]
Trust = Literal["yes", "care", "no"]

TREND_NIGHTS: Final = 7
_NO_SHARE, _CARE_SHARE = 0.05, 0.01  # of rows; what an ingest refuses a source for, and what is worth a look
_FEWEST_NIGHTS: Final = 3  # before tonight, for a median that means something
_OVER_BUDGET: Final = 1.05
_UNLIKE: Final = 2.0  # times the median of rows, or its inverse


class NightUnknown(InputError):
    """Raised when a page is asked for a night that no champion scored."""


@dataclass(frozen=True)
class Night:
    """Everything that the page of a night is made of; rows as in the tables of `dataset.tables`.

    Attributes:
        event_date: The night.
        incidents: Rows of `alerts/`.
        drift: Rows of `drift/`.
        nights: Rows of `nights/` by date, of this and earlier nights.
        allow_list: Entries as mappings of any columns; `expires`, a date, is the last night that an entry covers.
        agreement: Flows by who flagged them: `both`, `champion_only`, `challenger_only`; None where not counted.
        cards: Model card by role, where the model's directory is there and unchanged.
        facts: What else was in use, by name, such as the severity policy.
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
        return sorted((row for row in self.incidents if self._is_champions(row)), key=lambda row: int(row["rank"]))

    def drifts(self, kind: str) -> list[Row]:
        """Return the champion's rows of `drift/` of one kind, highest PSI first; those without a PSI last."""
        found = [row for row in self.drift if row["kind"] == kind and self._is_champions(row)]
        return sorted(found, key=lambda row: (-known(row["psi"], -1.0), row["name"]))

    @property
    def trend(self) -> dict[dt.date, Row | None]:
        """The champion's rows of the seven dates that end with this night; None where a date was not scored."""
        dates = [self.event_date - dt.timedelta(days=i) for i in reversed(range(TREND_NIGHTS))]
        return {date: self.of(date) for date in dates}

    @property
    def refused_files(self) -> list[Row]:
        """Files that could not be read, with a reason."""
        return [file for file in self.champion["files"] or () if file["reason"]]

    @property
    def silent_hours(self) -> list[int]:
        """Hours in UTC in which no flow was seen; none where flows carry no event time."""
        seen = {cell["hour"] for cell in self.champion["class_mix"] or () if cell["flows"]} - {None}
        return [hour for hour in range(24) if hour not in seen] if seen else []

    def _is_champions(self, row: Row) -> bool:
        return all(row[key] == self.champion[key] for key in ("model", "model_version"))


def severities(incidents: Sequence[Row]) -> dict[str, int]:
    """Return how many incidents have each severity that occurs, worst first and unknown names last."""
    found = Counter(str(row["severity"]) for row in incidents)
    order: dict[str, int] = {name: i for i, name in enumerate(SEVERITIES)}
    return {name: found[name] for name in sorted(found, key=lambda name: (order.get(name, len(order)), name))}


def verdict(night: Night) -> str:
    """Return in one sentence whether there is anything to look at."""
    row = night.champion
    if not row["rows_scored"]:
        return f"Nothing was scored: {_why_nothing(night)}"
    if night.shown:
        worst, n = next(iter(severities(night.shown).items()))
        return f"{counted(len(night.shown), 'incident')} to look at, {n:,} {worst}"
    if row["incidents"]:  # the tables disagree, which `doubts` says
        return f"{counted(row['incidents'], 'incident')} counted, but not listed"
    if row["flows_flagged"]:
        return f"Nothing to look at: the allow-list covers {row['flows_allowed']:,} of {row['flows_flagged']:,} flagged"
    return "Nothing flagged"


def overflow(night: Night) -> int:
    """Return how many incidents exceed the budget and are not listed."""
    return max(0, int(night.champion["incidents"] - night.champion["incidents_shown"]))


def how_bad(night: Night) -> list[str]:
    """Return how many flows were flagged, and how many would be on a night without any attack."""
    row = night.champion
    flagged, scored = row["flows_flagged"], row["rows_scored"]
    if not scored:
        return ["Unknown: no flow was scored."]
    said = [f"{flagged:,} of {counted(scored, 'flow')} flagged ({percent(flagged / scored)})."]
    expected, most = known(row["expected_false_alarms"]), known(row["false_alarms_at_most"])
    if math.isnan(expected) or math.isnan(most):
        return [*said, "How many of them are false alarms is unknown."]
    said.append(f"Without any attack about {amount(expected)} would be, at most {amount(most)}.")
    if flagged > most:
        said.append("That is more than false alarms explain.")
    elif flagged:
        said.append("False alarms alone may explain that.")
    return said


def doubts(night: Night) -> list[tuple[Trust, str]]:
    """Return what speaks against believing the night's figures, most serious first."""
    found = [*_doubts_of_rows(night), *_doubts_of_model(night)]
    return sorted(found, key=lambda doubt: doubt[0] != "no")


def false_alarms(night: Night) -> list[str]:
    """Return in words what the threshold is, how many false alarms it leaves, and what that rests on."""
    row = night.champion
    logit, scored, budget = known(row["threshold_logit"]), row["rows_scored"], row["budget"]
    expected, most = known(row["expected_false_alarms"]), known(row["false_alarms_at_most"])
    smallest = known(row["smallest_rate"])
    said = [
        "A flow is flagged when the model gives an attack a probability of at least"
        f" {probability(logit)} (log-odds {amount(logit)}); the budget of {budget:,} a night sets that."
    ]
    if not scored:
        return [*said, "No flow was scored, so none can be a false alarm."]
    if not row["benign_validation_rows"]:
        return [*said, "How many benign flows are flagged at that is unknown: there was no benign validation row."]
    said.append(
        "How many benign flows are flagged at that is unknown."
        if math.isnan(expected) or math.isnan(most)
        else f"Of {counted(scored, 'scored flow')}, {amount(expected)} are expected to be flagged although benign, at"
        f" most {amount(most)} (95% interval), on traffic like that of validation."
    )
    if expected > _OVER_BUDGET * budget:
        said.append(f"The validation rows show no threshold that comes closer to the budget of {budget:,}.")
    if not math.isnan(smallest):
        said.append(
            f"These figures rest on {counted(row['benign_validation_rows'], 'benign validation row')}, which support no"
            f" rate of false alarms below {_one_in(smallest)}: {amount(smallest * scored)} on this night's flows."
        )
    if smallest * scored > budget:
        said.append(f"The budget asks for {_one_in(budget / scored)}: rarer than they can show.")
    return said


def _one_in(rate: float) -> str:
    return f"1 in {1 / rate:,.0f} flows" if rate > 0 else "none"


def _why_nothing(night: Night) -> str:
    row = night.champion
    if row["rows_quarantined"]:
        return f"{counted(row['rows_quarantined'], 'flow')}, all quarantined"
    n, refused = len(row["files"] or ()), len(night.refused_files)
    return f"{refused:,} of {counted(n, 'file')} could not be read" if refused else "the night held no flow"


def _doubts_of_rows(night: Night) -> list[tuple[Trust, str]]:
    row = night.champion
    rows, scored, refused = row["rows_in"], row["rows_scored"], row["rows_quarantined"]
    said: list[tuple[Trust, str]] = []
    if not scored:
        said.append(("no", "No flow was scored: silence says nothing."))
    if rows != scored + refused:
        said.append(("no", f"Rows do not add up: {rows:,} in, {scored:,} scored and {refused:,} quarantined."))
    if len(night.shown) != row["incidents_shown"]:
        said.append(("no", f"alerts/ lists {len(night.shown):,} incidents, nights/ counts {row['incidents_shown']:,}."))
    if night.refused_files:
        n = len(night.refused_files)
        said.append(("care", f"{n:,} of {counted(len(row['files']), 'file')} could not be read."))
    for count, what in ((refused, "were quarantined"), (row["rows_of_another_date"] or 0, "are of another date")):
        if rows and count / rows > _CARE_SHARE:
            level: Trust = "no" if count / rows > _NO_SHARE else "care"
            said.append((level, f"{count:,} of {rows:,} flows ({percent(count / rows)}) {what}."))
    if night.silent_hours:
        said.append(("care", f"No flow was seen at {hour_ranges(night.silent_hours)} UTC: is a sensor silent?"))
    before = [other["rows_in"] for date, other in night.trend.items() if other is not None and date != night.event_date]
    if rows and len(before) >= _FEWEST_NIGHTS:
        usual = statistics.median(before)
        if not usual / _UNLIKE <= rows <= usual * _UNLIKE:
            said.append(("care", f"{rows:,} flows came; the nights before had {usual:,.0f} (median)."))
    return said


def _doubts_of_model(night: Night) -> list[tuple[Trust, str]]:
    row, card = night.champion, night.cards.get("champion")
    said: list[tuple[Trust, str]] = []
    if card is not None and card.data_origin != row["data_origin"]:
        said.append(("no", f"The model learnt from {card.data_origin} flows; these are {row['data_origin']}."))
    if not row["rows_scored"]:
        return said
    if row["drift_significant"]:
        n, of = row["drift_significant"], len(night.drifts("feature"))
        said.append(("care", f"{n:,} of {counted(of, 'feature')} drifted significantly from what the model learnt."))
    smallest = known(row["smallest_rate"])
    if math.isnan(smallest) or math.isnan(known(row["expected_false_alarms"])):
        said.append(("care", "The false alarms to expect are unknown."))
    elif smallest * row["rows_scored"] > row["budget"]:
        said.append(
            ("care", f"The validation rows are too few to promise a budget of {row['budget']:,} on so many flows.")
        )
    return said
