"""Ranks a stored night again, with the verdicts in force: no flow is read, and no prediction is written.

All that depends on verdicts is computed from `incidents/` and `alerts/` of the night, not from its evidence: so no
incident appears or disappears, whatever the models, policies and settings of today are.
"""

import datetime as dt
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import pyarrow as pa

from ids_spark.alerts.verdicts import InForce
from ids_spark.base.errors import Interrupted
from ids_spark.base.report import Report
from ids_spark.config.settings import Config
from ids_spark.dataset.tables import ALERTS, TABLES
from ids_spark.lake.listing import Listing, listed
from ids_spark.lake.store import Lake
from ids_spark.models.signatures import open_trust
from ids_spark.report import night_page
from ids_spark.score.night_incidents import ranked
from ids_spark.score.night_outputs import WRITTEN, inputs_of, stage

log = logging.getLogger(__name__)
Row = dict[str, Any]
STATES: Final = ("open", "learned", "muted", "closed", "learning")


@dataclass(frozen=True)
class StoredNight:
    """Incidents of a night that was scored.

    Attributes:
        date: The night.
        incidents: As `tables.INCIDENTS`; no rows if there was none, or if the night was not scored.
        alerts: As `tables.ALERTS`.
    """

    date: dt.date
    incidents: pa.Table
    alerts: pa.Table

    @property
    def ids(self) -> list[str]:
        """The ids of all incidents."""
        ids: list[str] = self.incidents["incident_id"].to_pylist()
        return ids

    @property
    def run_ids(self) -> set[str]:
        """The run that scored the night; none without incidents."""
        return set(self.incidents["run_id"].to_pylist())

    def incident(self, incident_id: str) -> tuple[Row, list[Row]]:
        """Return an incident and its alerts."""
        return self._rows[incident_id], self._alerts[incident_id]

    @cached_property
    def _rows(self) -> dict[str, Row]:
        return {row["incident_id"]: row for row in self.incidents.to_pylist()}

    @cached_property
    def _alerts(self) -> dict[str, list[Row]]:
        found = defaultdict(list)
        for row in self.alerts.to_pylist():
            found[row["incident_id"]].append(row)
        return found


def read_night(lake: Lake, date: dt.date) -> StoredNight:
    """Return the stored incidents of a night; none where it was not scored, or by a version without `incidents/`."""
    incidents = lake.read("incidents", event_date=date)
    alerts = lake.read("alerts", event_date=date) if len(incidents) else ALERTS.empty_table()
    return StoredNight(date, incidents, alerts)


def rank_again(
    lake: Lake, staged: Callable[[str], str], night: StoredNight, in_force: InForce, config: Config
) -> Report:
    """Stage the tables, exports and page of a night as verdicts make them; the report lists them.

    Args:
        lake: Holds the night.
        staged: Returns the URI of the staged version of a table.
        night: From `read_night`, with incidents.
        in_force: Verdicts on that night, also those that are not stored yet.
        config: Its `alerts.most_lines` and `score.pseudonymise` are used if `nights/` does not hold those of the
            scoring.
    """
    date, page = night.date, night_page.night_of_lake(lake, night.date, open_trust(lake, config.score.trusted_keys))
    champion = page.champion
    inputs = inputs_of(champion, config)
    incidents, alerts, counts = ranked(
        night.incidents,
        night.alerts,
        in_force,
        champion["alpha"],
        champion["cells"],
        inputs.most_lines,
        night.incidents,
    )
    rows = [{**row, **(counts if row["role"] == "champion" else {})} for row in page.nights[date]]
    stage(lake, staged, replace(page, nights={**page.nights, date: rows}), incidents, alerts, inputs)
    states = Counter(incidents["state"].to_pylist())
    log.info("ranked again night=%s %s", date, " ".join(f"{name}={n}" for name, n in sorted(states.items())))
    return Report(
        tables=[TABLES[name].place(event_date=date) for name in WRITTEN],
        counts={(f"incidents {state}", str(date), None): states[state] for state in STATES},
        data_origin=champion["data_origin"],
    )


def require_unchanged(lake: Lake, nights: Iterable[StoredNight], verdicts_before: Listing) -> None:
    """Check that no other run has scored these nights, or committed verdicts, since they were read.

    Args:
        lake: Holds the nights.
        nights: As they were read.
        verdicts_before: The files of `verdicts/` before they were read.

    Raises:
        Interrupted: one has; its result would be lost.
    """
    changed = [str(night.date) for night in nights if read_night(lake, night.date).run_ids != night.run_ids]
    if listed(lake, ["verdicts"]) != verdicts_before:
        changed.append("verdicts/")
    if changed:
        raise Interrupted(
            f"{', '.join(changed)} changed while this job ran; nothing was changed by it; run the same command again"
        )
