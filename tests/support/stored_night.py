"""A scored night in a lake, with chosen incidents, written without scoring."""

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any

from ids_spark.lake.store import Lake
from tests.support.incident_rows import ALPHA, NIGHT, tables
from tests.support.night_pages import drift, scored

SHARED = {
    "severity": "high",
    "model": "gru_dnn-19-paper",
    "model_version": "20260701T020000-ab12",
    "run_id": "20261125T010000Z-cd34",
    "data_origin": "measured",
    "sources": [],
    "devices": [],
    "classes": [{"class_name": "Recon-Port_Scan", "flows": 20, "share": 1.0}],
    "sources_found": 1,
    "devices_found": 2,
    "shown": True,
    "top_flows": [],
    "life": "new",
    "nights_seen": 1,
    "schema_version": 3,
    "max_attack_probability": 0.99,
    "max_attack_logit": 5.0,
    "threshold_logit": 1.0,
    "created_at": dt.datetime(2026, 11, 25, 1, tzinfo=dt.UTC),
}


def store_night(lake: Lake, alerts: Iterable[Mapping[str, Any]], date: dt.date = NIGHT) -> None:
    """Write `incidents/`, `alerts/`, `drift/` and `nights/` of a night with these alerts."""
    rows = list(alerts)
    ids = list(dict.fromkeys(row["incident_id"] for row in rows))
    columns = {name: dict.fromkeys(ids, value) for name, value in {**SHARED, "since": date}.items()}
    incidents, found = tables(rows, **columns)
    lake.write("incidents", incidents, event_date=date)
    lake.write("alerts", found, event_date=date)
    lake.write("drift", [drift("Rate", 0.02, "stable", [5] * 10)], event_date=date)
    shared = {key: SHARED[key] for key in ("model", "model_version", "run_id", "data_origin")}
    row = scored(**{**shared, "alpha": ALPHA, "cells": 2_000, "incidents": len(ids), "incidents_shown": len(ids)})
    lake.write("nights", [row], event_date=date)
