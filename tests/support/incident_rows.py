"""Rows of incidents, alerts and verdicts, with only the columns that a test names."""

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from ids_spark.alerts import verdicts
from ids_spark.dataset.tables import ALERTS, INCIDENTS

NIGHT = dt.date(2026, 11, 24)
BEGIN = dt.datetime(2026, 11, 24, 8, tzinfo=dt.UTC)
ALPHA = 1e-4


def alert(
    incident: str,
    entity: str,
    category: str = "Recon",
    *,
    source: bool = False,
    hour: int = 3,
    flagged: Iterable[int] = (20, 10, 5),
    flows: int = 100,
    log10_p: float = -8.0,
    learned: float | None = None,
) -> dict[str, Any]:
    """Return a row of `alerts/`; without `learned`, nothing was learned about it."""
    start = dt.datetime.combine(NIGHT, dt.time(hour), dt.UTC)
    return {
        "incident_id": incident,
        "entity_kind": "src_ip" if source else "device_id",
        "entity": entity,
        "is_source": source,
        "window_start": start,
        "category": category,
        "flagged": list(flagged),
        "flows": flows,
        "expected": [0.5, 0.1, 0.04],
        "level": 0,
        "log10_p": log10_p,
        "log10_p_learned": log10_p if learned is None else learned,
        "first_seen": start,
        "last_seen": start,
    }


def tables(alerts: Iterable[Mapping[str, Any]], **columns: Mapping[str, Any]) -> tuple[pa.Table, pa.Table]:
    """Return the tables `incidents` and `alerts` of some alerts; `columns` are values by incident id."""
    rows: dict[str, dict[str, Any]] = {}
    found = list(alerts)
    for row in found:
        first = {"incident_id": row["incident_id"], "category": row["category"], "lead_entity": row["entity"]}
        incident = rows.setdefault(row["incident_id"], {**first, "state": "open", "flows": 0, "alerts": 0})
        incident["flows"] += row["flagged"][0]
        incident["alerts"] += 1
    for name, values in columns.items():
        for incident, value in values.items():
            rows[incident][name] = value
    return pa.Table.from_pylist(list(rows.values()), INCIDENTS), pa.Table.from_pylist(found, ALERTS)


def verdict(
    kind: str,
    alerts: Iterable[Mapping[str, Any]],
    *,
    date: dt.date = NIGHT,
    minute: int = 0,
    until: dt.date | None = None,
    owner: str = "A. Nurse",
    reason: str = "backup at night",
) -> dict[str, Any]:
    """Return a row of `verdicts/` on the incident of these alerts, given some minutes after 8 o'clock."""
    rows = list(alerts)
    return {
        "event_date": date,
        "incident_id": rows[0]["incident_id"],
        "verdict": kind,
        "until": until,
        "owner": owner,
        "reason": reason,
        "category": rows[0]["category"],
        "entities": verdicts.entities_of(rows),
        "learned": verdicts.learned_of(rows) if kind == "benign" else None,
        "incident": "",
        "run_id": f"2026112408{minute:02d}00Z-0",
        "created_at": BEGIN + dt.timedelta(minutes=minute),
    }
