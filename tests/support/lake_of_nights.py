"""A lake with months of nights, written through the store without Spark; synthetic."""

import datetime as dt
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ids_spark.dataset.tables import INCIDENTS, NIGHTS
from ids_spark.lake.store import Lake
from tests.support.incidents import ORIGIN, at, incident
from tests.support.night_pages import scored

LAST = dt.date(2026, 7, 14)  # a Tuesday
DEVICES = [f"{kind}-{i:02d}" for kind in ("infusion-pump", "bedside-monitor", "ventilator", "ct-scanner", "gateway")
           for i in range(1, 13)]  # fmt: skip
KINDS = (
    ("critical", "DDoS-SYN"), ("high", "ARP_Spoofing"), ("medium", "MQTT-Malformed_Data"), ("low", "Recon-Port_Scan"),
    ("medium", "Unknown"), ("critical", "DoS-TCP"), ("low", "Recon-Ping_Sweep"),
)  # fmt: skip


def write_night(
    lake: Lake, date: dt.date, incidents: Iterable[Mapping[str, Any]] = (), challenger: bool = False, **more: Any
) -> None:
    """Write the tables of one night, a page with the anchors of its incidents, and a folder of exports."""
    rows = [{**row, **{key: more[key] for key in ("model", "model_version") if key in more}} for row in incidents]
    open_, shown = ([r for r in rows if r["state"] == "open"], [r for r in rows if r["shown"]])
    counts = {f"incidents_{state}": sum(r["state"] == state for r in rows)
              for state in ("muted", "learned", "closed", "learning")}  # fmt: skip
    facts = {"incidents": len(open_), "incidents_shown": len(shown), **counts, "scored_at": at(23, date=date), **more}
    nights = [scored(**facts)]
    if challenger:
        other = {"role": "challenger", "model": "boost-19", "model_version": "20260601T020000-ff"}
        nights.append(scored(**{**facts, **other, "incidents_shown": len(shown) + 2}))
    place = Path(lake.root.removeprefix("file://"))
    for name, table, contract in (("nights", nights, NIGHTS), ("incidents", rows, INCIDENTS)):
        written = lake.write(name, [{key: row.get(key) for key in contract.names} for row in table], event_date=date)
        scored_at = facts["scored_at"].timestamp()
        os.utime(place / written / "part-00000.parquet", (scored_at, scored_at))
    page = place / f"reports/night/event_date={date}/night.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    anchors = "".join(f'<p id="incident-{r["rank"] or r["incident_id"]}">{r["category"]}</p>' for r in rows)
    page.write_text(f'<!doctype html><title>{date}</title><h1 id="top">{date}</h1>{anchors}')
    (place / f"exports/event_date={date}").mkdir(parents=True, exist_ok=True)


def months(lake: Lake, nights: int, last: dt.date = LAST, seed: int = 5, devices: Iterable[str] = DEVICES) -> None:
    """Write many nights: the first are learning, some are missing or degraded, the champion changes twice.

    Every week has a quiet night; a port scan of one gateway continues over nights; verdicts are given on old incidents.
    """
    rng, names, given = np.random.default_rng(seed), list(devices), []
    for i in range(nights):
        date = last - dt.timedelta(days=nights - 1 - i)
        if rng.random() < 0.02 and 0 < i < nights - 1:
            continue  # no folder: not scored
        version = f"202601{1 + min(3 * i // nights, 2):02d}T020000-ab12"
        more: dict[str, Any] = {"model_version": version, "rows_in": int(rng.integers(900_000, 1_300_000))}
        if rng.random() < 0.015 and 0 < i < nights - 1:
            more |= {"rows_in": 0, "rows_scored": 0, "rows_quarantined": 0, "class_mix": [], "degraded": [
                {"reason": "missing", "text": f"no flow logs of {date}"}]}  # fmt: skip
            write_night(lake, date, **more)
            continue
        more["rows_quarantined"] = int(more["rows_in"] * rng.gamma(1.2, 0.0008))
        more["rows_scored"] = more["rows_in"] - more["rows_quarantined"]
        if rng.random() < 0.03:
            more["degraded"] = [{"reason": "few_flows", "text": "far fewer flows than usual"}]
        if i < 7:
            more |= {"stage": "learning", "stage_text": f"Learning, night {i + 1} of 7."}
        found = _incidents(rng, date, names, version)
        more["flows_flagged"] = int(more["rows_scored"] * rng.gamma(4, 0.002)) + sum(r["flows"] for r in found)
        more["drift_significant"] = int(rng.poisson(0.4 + 6 * (i % 60 > 50)))
        more["drift_moderate"] = int(rng.poisson(2))
        write_night(lake, date, found, challenger=i > nights - 20, **more)
        given += [
            {"event_date": date, "incident_id": r["incident_id"], "verdict": "true" if rng.random() < 0.7 else "benign",
             "owner": "j.doe", "reason": "seen", "category": r["category"], "entities": [], "incident": "-",
             "run_id": f"20260101T000000Z-{i:08x}", "created_at": at(9, date=date + dt.timedelta(days=1))}
            for r in found if rng.random() < 0.3
        ]  # fmt: skip
    lake.write("verdicts", given, run_id="20260715T080000Z-verdicts")


def _incidents(rng: np.random.Generator, date: dt.date, names: list[str], version: str) -> list[dict[str, Any]]:
    found = []
    for rank in range(1, 1 + int(rng.poisson(1.6)) * (date.weekday() != 6)):
        severity, name = KINDS[int(rng.integers(len(KINDS)))]
        count = int(rng.integers(1, 4))
        devices = {names[int(k)]: 40 + int(k) for k in rng.choice(len(names), count, replace=False)}
        sources = {f"10.20.{int(rng.integers(8))}.{int(rng.integers(250))}": 60 * count}
        row = incident(rank, severity, {name: 60 * count}, sources, devices, at(int(rng.integers(24)), 5, date=date))
        found.append({**row, "incident_id": rng.bytes(16).hex(), "model_version": version, **_state(rng, rank)})
    return found


def _state(rng: np.random.Generator, rank: int) -> dict[str, Any]:
    if rank > 1 and rng.random() < 0.3:
        return {"state": str(rng.choice(["muted", "learned", "closed"])), "shown": False, "rank": None}
    return {}


__all__ = ["DEVICES", "LAST", "ORIGIN", "months", "write_night"]
