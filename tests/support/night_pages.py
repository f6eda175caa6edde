"""Inputs of the night page, a quiet and a busy night; synthetic."""

import dataclasses
import datetime as dt
from collections.abc import Sequence
from typing import Any

import numpy as np

from ids_spark.dataset.features import ORIGINAL_45
from ids_spark.dataset.taxonomy import CLASS19
from ids_spark.report.night_findings import Night
from tests.support.models import CARD

DATE = dt.date(2026, 7, 14)  # a Tuesday
MODEL, VERSION = "gru_dnn-19-paper", "20260701T020000-ab12"
ORIGIN = {"model": MODEL, "model_version": VERSION, "run_id": "20260715T010000-cd34", "data_origin": "synthetic"}


def at(hour: int, minute: int = 0, second: int = 0, date: dt.date = DATE) -> dt.datetime:
    return dt.datetime.combine(date, dt.time(hour, minute, second), tzinfo=dt.UTC)


def incident(rank: int, severity: str, class_name: str, entity: str, first: dt.datetime | None, **more: Any) -> dict:
    return {
        "incident_id": f"i{rank}", "rank": rank, "severity": severity, "class_name": class_name, "category": "?",
        "entity_kind": "device_id", "entity": entity, "window_start": first, "first_seen": first,
        "last_seen": first and first + dt.timedelta(minutes=44, seconds=8), "flows": 1200 // rank,
        "max_attack_probability": 0.9998, "max_attack_logit": 8.5, "threshold_logit": 5.0, "schema_version": 1,
        "top_attributions": [
            {"feature": "syn_flag_number", "value": 0.98, "contribution": 3.21},
            {"feature": "Rate", "value": 51_230.4, "contribution": 1.5},
            {"feature": "IAT", "value": 8.4e-7, "contribution": -0.26},
        ],
        "created_at": at(1), **ORIGIN, **more,
    }  # fmt: skip


def drift(name: str, psi: float | None, level: str, counts: Sequence[int], **more: Any) -> dict:
    bins = len(counts)
    return {
        "kind": "feature", "name": name, "drift_index": psi, "drift_level": level, "rows": sum(counts),
        "below_range": 0, "above_range": 0, "saturated": 0, "edges": np.geomspace(0.5, 5e5, bins - 1).tolist(),
        "expected": [1 / bins] * bins, "counts": list(counts), **ORIGIN, **more,
    }  # fmt: skip


def mix(hours: Sequence[int | None], **flows: int) -> list[dict]:
    names = {name.replace("-", "_"): name for name in CLASS19}
    return [{"hour": h, "class_name": names.get(name, name), "flows": n} for h in hours for name, n in flows.items()]


def scored(**more: Any) -> dict:
    """A night of 1,200,000 flows, 200 of them refused."""
    return {
        "role": "champion", "model_sha256": "0123456789abcdef" * 4, "rows_in": 1_200_000, "rows_scored": 1_199_800,
        "rows_quarantined": 200, "rows_late": 0, "rows_of_another_date": 0,
        "files": [{"name": f"flows-{i:02d}.parquet", "rows": 50_000, "reason": None} for i in range(24)],
        "extra_columns": [], "quarantine": [{"reason": "missing", "rows": 150}, {"reason": "negative", "rows": 50}],
        "warnings": [], "degraded": [], "unread_times": [], "unread_columns": [],
        "class_mix": mix(range(24), Benign=49_990), "flows_flagged": 0, "flows_allowed": 0,
        "flows_explained": 0, "incidents": 0, "incidents_shown": 0, "budget": 50, "threshold_logit": 5.0,
        "expected_false_alarms": 48.3, "false_alarms_at_most": 71.0, "benign_validation_rows": 240_000,
        "smallest_rate": 1.25e-5, "drift_moderate": 0, "drift_significant": 0, "seconds": 41.5,
        "scored_at": at(1, 2, date=DATE + dt.timedelta(days=1)), "code_version": "0.1.0+abc", "schema_version": 1,
        **ORIGIN, **more,
    }  # fmt: skip


QUIET = Night(DATE, [], [drift("Rate", 0.02, "stable", [5] * 10)], {DATE: [scored()]})


def with_row(night: Night, **more: Any) -> Night:
    """The night with another row of its champion."""
    return dataclasses.replace(night, nights={**night.nights, night.event_date: [dict(night.champion) | more]})


def busy() -> Night:
    """A synthetic night with content in every section."""
    rng = np.random.default_rng(7)
    incidents = [
        incident(1, "critical", "DDoS-SYN", "infusion-pump-07", at(2, 14)),
        incident(2, "high", "ARP_Spoofing", "10.20.4.117", at(3, 2, 9), entity_kind="src_ip"),
        incident(3, "high", "MQTT-Malformed_Data", "bedside-monitor-12", at(14, 40)),
        incident(4, "medium", "Recon-Port_Scan", "ct-scanner-2", at(14, 55)),
        incident(5, "low", "Recon-Ping_Sweep", "ward-3-gateway", None),
    ]
    classes = mix(range(24), Benign=49_000, Recon_Ping_Sweep=12, MQTT_Malformed_Data=3)
    for hour, name, flows in ((2, "DDoS-SYN", 18_000), (3, "DDoS-SYN", 900), (3, "ARP_Spoofing", 310)):
        classes.append({"hour": hour, "class_name": name, "flows": flows})
    classes += mix([None], Benign=4_230)
    total = sum(cell["flows"] for cell in classes)
    shifted = [rng.multinomial(total, rng.dirichlet(np.full(10, 1 + 3 * i))).tolist() for i in range(45)]
    psi = sorted(rng.gamma(0.6, 0.12, 45), reverse=True)
    drifts = [
        drift(name, p, "significant" if p >= 0.25 else "moderate" if p >= 0.1 else "stable", counts, above_range=i)
        for i, (name, p, counts) in enumerate(zip(ORIGINAL_45.features, psi, shifted, strict=True))
    ]
    significant, moderate = (sum(d["drift_level"] == level for d in drifts) for level in ("significant", "moderate"))
    per_class = [sum(c["flows"] for c in classes if c["class_name"] == name) for name in CLASS19]
    drifts[3] |= {"expected": [0.7, 0.3], "counts": [total - 9_000, 9_000], "edges": [0.5]}  # a share that is 0 or 1
    drifts.append(
        drift(
            "predicted_class19", 0.08, "stable", per_class, kind="class_mix", edges=[], expected=[0.91, *[0.005] * 18]
        )
    )
    files = scored()["files"]
    files[7] = {"name": "ward-7/flows-07.parquet", "rows": 0, "reason": "unreadable_file"}
    champion = scored(
        rows_in=total + 1_310, rows_scored=total, rows_quarantined=1_310, rows_late=52_004, rows_of_another_date=17,
        files=files, extra_columns=["vlan", "sensor_firmware"], class_mix=classes, flows_flagged=3_412,
        quarantine=[{"reason": "not_a_number", "rows": 1_200}, {"reason": "share_out_of_range", "rows": 110}],
        warnings=[{"rule": "negative_time_between_packets", "rows": 870}], flows_allowed=640, incidents=17,
        incidents_shown=5, budget=5, drift_moderate=moderate, drift_significant=significant,
    )  # fmt: skip
    challenger = champion | {"role": "challenger", "model_version": "20260712T020000-ef56", "incidents": 9,
                             "incidents_shown": 5, "flows_flagged": 2_950, "expected_false_alarms": 44.0,
                             "class_mix": mix(range(24), Benign=49_700, DDoS_SYN=812)}  # fmt: skip
    nights = {DATE: [champion, challenger]}
    for days, version in ((1, VERSION), (2, VERSION), (4, "20260601T020000-0001"), (6, "20260601T020000-0001")):
        flagged = int(rng.integers(20, 900))
        nights[DATE - dt.timedelta(days=days)] = [
            scored(model_version=version, flows_flagged=flagged, incidents=flagged // 40, drift_significant=days,
                   rows_in=1_150_000 + 9_000 * days, rows_quarantined=days * 37)
        ]  # fmt: skip
    allow_list = [
        {"reason": "weekly scan", "expires": DATE, "device_id": "vuln-scanner-1", "class_name": "Recon-Port_Scan"},
        {"reason": "migration", "expires": dt.date(2026, 7, 13), "src_ip": "10.20.4.9"},
    ]
    card = dataclasses.replace(
        CARD, name=MODEL, version=VERSION, architecture="gru_dnn", classes=19, features=ORIGINAL_45.features,
        classes_absent_in_train=("Recon-VulScan",),
    )  # fmt: skip
    return Night(
        DATE, incidents, drifts, nights, allow_list, {"both": 2_700, "champion_only": 712, "challenger_only": 250},
        {"champion": card}, {"severity policy": "the project's table"},
    )  # fmt: skip
