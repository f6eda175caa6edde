"""Incidents across nights: which of tonight's incidents are new, which continue or return, which have ended.

Two incidents of different nights are one chain if their categories are equal and their alerts name the same attacker:
if both have at most `FEW_SOURCES` sources, one of them must be the same; else any entity. So two attackers of one hub
stay two chains, and a flood from random addresses is recognised by its victim.
"""

import datetime as dt
import logging
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from ids_spark.alerts.verdicts import with_columns
from ids_spark.base.arrays import Ints
from ids_spark.dataset.features import SchemaMismatch
from ids_spark.lake.store import Lake

log = logging.getLogger(__name__)

NIGHTS: Final = 28
"""Dates before tonight in which the chain of an incident is looked for."""
SEEN_OF: Final = 7
"""Dates, tonight included, of which `nights_seen` counts those with the incident."""
FEW_SOURCES: Final = 5
"""Up to this number, sources identify the attacker."""

_READERS: Final = 8  # nights read at once: on an object store each costs requests
_Entity = tuple[str, str]


class NightIncidents(NamedTuple):
    """The incidents of an earlier night that was scored.

    Attributes:
        incidents: With the columns `COLUMNS`; no rows if there was no incident.
        alerts: With the columns `ALERT_COLUMNS`.
        champion: `CHAMPION_COLUMNS` of the champion's row in `nights/`.
        devices: Distinct keys of its devices, from `traffic/`; None if that says nothing.
    """

    incidents: pa.Table
    alerts: pa.Table
    champion: Mapping[str, Any] = MappingProxyType({})
    devices: Ints | None = None


_SCORED: Final = ("rows_scored", "rows_imputed")
COLUMNS: Final = ("incident_id", "category", "state", "flows", "since", "lead_entity")
CHAMPION_COLUMNS: Final = ("model", "model_version", "false_incidents")
ALERT_COLUMNS: Final = ("incident_id", "entity_kind", "entity", "is_source")


class _Earlier(NamedTuple):
    """An incident of an earlier night."""

    date: dt.date
    row: dict[str, Any]
    entities: frozenset[_Entity]
    sources: frozenset[_Entity]


def earlier_nights(lake: Lake, date: dt.date) -> dict[dt.date, NightIncidents]:
    """Return the incidents of the `NIGHTS` dates before a night, by date, of those whose flows were scored.

    Nights of versions that wrote no `incidents/` are left out. A night that the same run has scored, but not yet
    committed, is added by the caller.
    """
    dates = [date - dt.timedelta(days=i) for i in range(NIGHTS, 0, -1)]
    with ThreadPoolExecutor(_READERS) as pool:
        found = dict(zip(dates, pool.map(lambda day: _read(lake, day), dates), strict=True))
    return {day: night for day, night in found.items() if night is not None}


def _read(lake: Lake, day: dt.date) -> NightIncidents | None:
    try:
        rows = lake.read("nights", [*_SCORED, *CHAMPION_COLUMNS], {"role": "champion"}, event_date=day).to_pylist()
        if not any(row[name] for row in rows for name in _SCORED):
            return None
        return NightIncidents(
            lake.read("incidents", COLUMNS, event_date=day),
            lake.read("alerts", ALERT_COLUMNS, event_date=day),
            rows[0],
            _devices(lake, day),
        )
    except SchemaMismatch as error:
        log.warning("incidents are not compared with an earlier night date=%s error=%s", day, error)
        return None


def _devices(lake: Lake, day: dt.date) -> Ints | None:
    keys = lake.read("traffic", ["entity_key"], {"is_source": False}, event_date=day)["entity_key"].to_numpy()
    return np.unique(keys) if len(keys) else None


def compare(
    date: dt.date, incidents: pa.Table, alerts: pa.Table, earlier: Mapping[dt.date, NightIncidents]
) -> tuple[pa.Table, list[dict[str, str]]]:
    """Return tonight's incidents with the columns of their life, and the incidents that ended.

    `life` is `continuing` if the last night before tonight in `earlier` has the chain, and not only incidents that were
    closed; `returned` if an earlier one has it; else `new`. `since` is the first night of the chain, also across gaps
    of up to `NIGHTS` dates; `previous_id` the incident of the newest night of the chain that shares most entities.

    Args:
        date: Tonight.
        incidents: Tonight's, with `incident_id` and `category`; columns of their life are replaced.
        alerts: Their alerts, with `ALERT_COLUMNS`.
        earlier: Nights before tonight of which flows were scored; a missing night is not among them, so that it ends
            nothing. Other dates than the `NIGHTS` before tonight are not used.

    Returns:
        The incidents, and `incident_id` and `text` of each open incident of the last night that nothing tonight
        continues.
    """
    used = {day: found for day, found in earlier.items() if 0 < (date - day).days <= NIGHTS}
    last = max(used, default=None)
    by_entity: dict[tuple[str, _Entity], list[_Earlier]] = defaultdict(list)
    of_last: dict[str, _Earlier] = {}
    for day, night in used.items():
        for found in _incidents_of(day, night):
            for entity in found.entities:
                by_entity[found.row["category"], entity].append(found)
            if day == last:
                of_last[found.row["incident_id"]] = found
    columns: dict[str, list[Any]] = {name: [] for name in ("life", "since", "nights_seen", "previous_id")}
    continued: set[str] = set()
    for tonight in _incidents_of(date, NightIncidents(incidents.select(["incident_id", "category"]), alerts)):
        chain = _chain(tonight, by_entity)
        continued |= {found.row["incident_id"] for found in chain if found.date == last}
        for name, value in _life(tonight, chain, last).items():
            columns[name].append(value)
    ended = [
        {"incident_id": incident, "text": f"{found.row['category']}: {found.row['lead_entity']}, since {_since(found)}"}
        for incident, found in of_last.items()
        if found.row["state"] == "open" and incident not in continued
    ]
    return with_columns(incidents, columns), ended


def _incidents_of(day: dt.date, night: NightIncidents) -> list[_Earlier]:
    entities: dict[str, set[_Entity]] = defaultdict(set)
    sources: dict[str, set[_Entity]] = defaultdict(set)
    columns = (night.alerts[name].to_pylist() for name in ALERT_COLUMNS)
    for incident, kind, name, is_source in zip(*columns, strict=True):
        entities[incident].add((kind, name))
        if is_source:
            sources[incident].add((kind, name))
    rows = night.incidents.to_pylist()
    return [
        _Earlier(day, row, frozenset(entities[row["incident_id"]]), frozenset(sources[row["incident_id"]]))
        for row in rows
    ]


def _chain(tonight: _Earlier, by_entity: Mapping[tuple[str, _Entity], list[_Earlier]]) -> list[_Earlier]:
    """Return the earlier incidents of the same chain, each once."""
    near: dict[tuple[dt.date, str], _Earlier] = {}
    for entity in tonight.entities:
        for found in by_entity.get((tonight.row["category"], entity), ()):
            near[found.date, found.row["incident_id"]] = found
    few = 0 < len(tonight.sources) <= FEW_SOURCES
    return [
        found
        for found in near.values()
        if not (few and 0 < len(found.sources) <= FEW_SOURCES) or found.sources & tonight.sources
    ]


def _life(tonight: _Earlier, chain: list[_Earlier], last: dt.date | None) -> dict[str, Any]:
    seen = {found.date for found in chain if (tonight.date - found.date).days < SEEN_OF}

    def nearness(found: _Earlier) -> tuple[Any, ...]:
        row = found.row
        common = len(found.entities & tonight.entities)
        return found.date, row["state"] != "closed", common, row["flows"] or 0, row["incident_id"]

    newest = max(chain, key=nearness, default=None)
    if newest is None:
        life = "new"
    else:
        life = "continuing" if newest.date == last and newest.row["state"] != "closed" else "returned"
    return {
        "life": life,
        "since": min((_since(found) for found in chain), default=tonight.date),
        "nights_seen": len(seen) + 1,
        "previous_id": newest.row["incident_id"] if newest is not None else None,
    }


def _since(found: _Earlier) -> dt.date:
    return min(found.date, found.row["since"] or found.date)
