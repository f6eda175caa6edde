"""Whether nights kept their budget of false incidents: observed, from verdicts, and promised.

An incident is false if its newest verdict is `benign`. One without such a verdict that is open, or that a site does not
show while it learns, may be false: so what was observed is an interval.
"""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ids_spark.alerts import looks, verdicts
from ids_spark.alerts.verdicts import OfIncident
from ids_spark.dataset.features import SchemaMismatch
from ids_spark.lake.store import Lake

_UNDECIDED: Final = ("open", "learning")
"""States of incidents that may be false; others were folded by a verdict."""
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Budget:
    """False incidents of some nights.

    Attributes:
        nights: The nights, ascending.
        promised: Sum of their budgets `alerts.false_incidents`.
        at_least: Incidents called `benign`.
        at_most: These, and those that may be false.
    """

    nights: Sequence[dt.date]
    promised: float
    at_least: int
    at_most: int

    @property
    def held(self) -> bool:
        """Whether there were no more than promised, even if all that may be false are."""
        return self.at_most <= self.promised


def of_night(
    night: dt.date, promised: float, incidents: Iterable[Row], decided: Mapping[tuple[dt.date, str], OfIncident]
) -> Budget:
    """Return promised and observed false incidents of a night.

    Args:
        night: The night.
        promised: Its budget.
        incidents: Rows of `tables.INCIDENTS` with `incident_id` and `state`.
        decided: From `verdicts.by_incident`.
    """
    false = undecided = 0
    for row in incidents:
        own = decided.get((night, row["incident_id"]))
        kind = own.kind["verdict"] if own is not None and own.kind is not None else None
        false += kind == "benign"
        undecided += kind is None and row["state"] in _UNDECIDED
    return Budget((night,), promised, false, false + undecided)


def together(budgets: Iterable[Budget]) -> Budget:
    """Return the budget of several nights as one."""
    found = sorted(budgets, key=lambda each: tuple(each.nights))
    return Budget(
        tuple(night for each in found for night in each.nights),
        sum(each.promised for each in found),
        sum(each.at_least for each in found),
        sum(each.at_most for each in found),
    )


def of_lake(lake: Lake, nights: int) -> list[Budget]:
    """Return the budgets of the newest nights of a lake whose flows were scored, ascending.

    Nights of versions without a budget are left out, and dates whose flows are still to come.

    Args:
        lake: The lake.
        nights: Maximum number of nights.
    """
    decided, found = verdicts.by_incident(verdicts.read(lake)), []
    columns = ("rows_scored", "false_incidents", "run_of_night", "runs_per_night")
    for date in lake.dates("incidents")[-nights:]:
        try:
            rows = lake.read("nights", columns, {"role": "champion"}, event_date=date).to_pylist()
        except SchemaMismatch:
            continue
        promised = [row["false_incidents"] for row in rows if row["rows_scored"] and not looks.partial(row)]
        if promised and promised[0] is not None:
            incidents = lake.read("incidents", ("incident_id", "state"), event_date=date).to_pylist()
            found.append(of_night(date, promised[0], incidents, decided))
    return found


def windows(nights: Sequence[Budget], length: int) -> list[Budget]:
    """Return for each night the budget of the last `length` nights, it included; of fewer, of all until it."""
    return [together(nights[max(0, i + 1 - length) : i + 1]) for i in range(len(nights))]


def held_from(found: Sequence[Budget]) -> int | None:
    """Return the index of the first of `windows` from which on all held; None if the last did not."""
    failed = [i for i, each in enumerate(found) if not each.held]
    first = failed[-1] + 1 if failed else 0
    return first if first < len(found) else None
