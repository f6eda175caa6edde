"""Precision of the incidents that people saw, from their verdicts."""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ids_spark.alerts import verdicts
from ids_spark.lake.store import Lake
from ids_spark.models.tail_fit import upper_rate


@dataclass
class Decided:
    """Incidents that people saw, and what they decided.

    Attributes:
        seen: Incidents on the pages, and those with a verdict.
        true: Those called `true`.
        benign: Those called `benign`.
    """

    seen: int = 0
    true: int = 0
    benign: int = 0

    @property
    def undecided(self) -> int:
        """Incidents seen without such a verdict."""
        return self.seen - self.true - self.benign

    @property
    def precision(self) -> float | None:
        """Share of `true` among the decided ones; None without any."""
        decided = self.true + self.benign
        return self.true / decided if decided else None

    @property
    def interval(self) -> tuple[float, float]:
        """The exact 95 % interval of the precision (Clopper-Pearson), if a verdict is as likely for each incident."""
        decided = self.true + self.benign
        return (1 - upper_rate(self.benign, decided), upper_rate(self.true, decided)) if decided else (0.0, 1.0)


@dataclass(frozen=True)
class Precision:
    """Decided incidents of some nights.

    Attributes:
        nights: The nights, ascending.
        categories: By category, in order of names.
        total: Of all categories.
        data_origin: `measured` or `synthetic`; None without an incident.
    """

    nights: Sequence[dt.date]
    categories: Mapping[str, Decided]
    total: Decided
    data_origin: str | None


def of_lake(lake: Lake, nights: int) -> Precision:
    """Return the decisions on the incidents of the newest nights of a lake that have a table of incidents.

    Args:
        lake: The lake.
        nights: Maximum number of nights.
    """
    dates = lake.dates("incidents")[-nights:]
    columns = ("incident_id", "category", "state", "shown", "data_origin")
    rows = {date: lake.read("incidents", columns, event_date=date).to_pylist() for date in dates}
    return decided(rows, verdicts.read(lake))


def decided(incidents: Mapping[dt.date, Iterable[Mapping[str, Any]]], given: Iterable[verdicts.Row]) -> Precision:
    """Count decisions; an incident that another night's verdict has folded was not seen, and is not counted.

    Args:
        incidents: Rows of `tables.INCIDENTS` by night.
        given: Rows of `tables.VERDICTS`, in any order.
    """
    verdict_on = verdicts.by_incident(given)
    categories: dict[str, Decided] = defaultdict(Decided)
    total, origins = Decided(), set()
    for date, rows in incidents.items():
        for row in rows:
            own = verdict_on.get((date, row["incident_id"]))
            if own is None and not (row["state"] == "open" and row["shown"]):
                continue
            kind = own.kind["verdict"] if own is not None and own.kind is not None else None
            for counts in (total, categories[row["category"]]):
                counts.seen += 1
                counts.true += kind == "true"
                counts.benign += kind == "benign"
            origins.add(row["data_origin"])
    origin = "synthetic" if "synthetic" in origins else "measured" if origins else None
    return Precision(sorted(incidents), dict(sorted(categories.items())), total, origin)
