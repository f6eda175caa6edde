"""Inputs of the night page, a quiet and a busy night; synthetic."""

import dataclasses
import datetime as dt
from collections.abc import Sequence
from typing import Any

import numpy as np

from ids_spark.dataset.features import ORIGINAL_45
from ids_spark.dataset.tables import SCHEMA_VERSION
from ids_spark.dataset.taxonomy import CLASS19
from ids_spark.report.night_findings import Night
from tests.support import incidents
from tests.support.incidents import DATE, MODEL, ORIGIN, VERSION, at
from tests.support.models import CARD


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


def rates(times: float = 1.0) -> list[dict]:
    """Rates of false alarms of each category and level: 1 % of benign rows, and tonight `times` as many."""
    shares = {"DDoS": 0.1, "DoS": 0.2, "MQTT": 0.0, "Recon": 0.3, "Spoofing": 0.4, "Unknown": 1.0}
    return [
        {"category": name, "rate": rate, "threshold_logit": logit, "reached": round(240_000 * rate * share),
         "benign_rows": 240_000, "stored": rate * share,
         "tonight": rate * share * times, "used": rate * share * times}
        for rate, logit in ((1e-2, 1.5), (2e-3, 3.5), (8e-4, 5.0))
        for name, share in shares.items()
    ]  # fmt: skip


def recall() -> list[dict]:
    """Recall of validation rows: half of Ping_Sweep, all of DDoS-SYN, no row of VulScan."""
    found = (("DDoS-SYN", 4_000, 1.0), ("Recon-Ping_Sweep", 40, 0.5), ("Recon-VulScan", 0, None))
    return [{"class_name": name, "rows": n, "recall": share} for name, n, share in found]


PACKETS = {
    "captures": 24, "window_lengths": [10], "seen": 40_000,
    "invisible": [{"name": "ipv6", "packets": 6_000}, {"name": "single", "packets": 40}],
    "marks": [{"name": "vlan", "packets": 30_000}, {"name": "tunnel", "packets": 120}],
}  # fmt: skip
"""Packets of a night's captures, 15.1 % of them in no flow."""
OLD = dict.fromkeys(
    ("incidents_muted", "incidents_learned", "incidents_closed", "incidents_ended", "incidents_not_shown",
     "flows_unknown", "false_incidents", "false_incidents_expected", "alpha", "cells", "false_alarm_rates", "recall",
     "incidents_learning", "stage", "stage_text", "nights_scored", "champion_nights", "devices_learning",
     "devices_unknown", "devices_unknown_found", "run_of_night", "runs_per_night")
)  # fmt: skip
"""What the lake returns for a night that an older version scored."""


def scored(**more: Any) -> dict:
    """A night of 1,200,000 flows, 200 of them refused."""
    return {
        "role": "champion", "model_sha256": "0123456789abcdef" * 4, "rows_in": 1_200_000, "rows_scored": 1_199_800,
        "rows_quarantined": 200, "rows_imputed": 0, "quarantine_usual": 0.002, "quarantine_entities": [],
        "quarantine_entities_found": 0, "key_id": None, "rows_late": 0, "rows_of_another_date": 0,
        "files": [{"name": f"flows-{i:02d}.parquet", "rows": 50_000, "reason": None} for i in range(24)],
        "extra_columns": [], "quarantine": [{"reason": "missing", "rows": 150}, {"reason": "negative", "rows": 50}],
        "warnings": [], "degraded": [], "unread_times": [], "unread_columns": [], "packets": None, "files_sha256": None,
        "class_mix": mix(range(24), Benign=49_990), "flows_flagged": 0, "flows_allowed": 0,
        "flows_explained": 0, "incidents": 0, "incidents_shown": 0, "incidents_muted": 0, "incidents_learned": 0,
        "incidents_closed": 0, "incidents_ended": [], "incidents_not_shown": [], "flows_unknown": 0,
        "false_incidents": 1.0, "false_incidents_expected": 0.83, "alpha": 2.1e-5, "cells": 4_200,
        "run_of_night": 1, "runs_per_night": 1,
        "incidents_learning": 0, "stage": "operating", "stage_text": "Operating: no false incident.",
        "nights_scored": 20, "champion_nights": 9, "devices_learning": 0, "devices_unknown": None,
        "devices_unknown_found": None, "false_alarm_rates": rates(), "recall": recall(), "budget": None,
        "threshold_logit": 1.5,
        "expected_false_alarms": 11_998.0, "false_alarms_at_most": 12_480.0, "benign_validation_rows": 240_000,
        "smallest_rate": 1.25e-5, "drift_moderate": 0, "drift_significant": 0, "seconds": 41.5, "page_inputs": None,
        "scored_at": at(1, 2, date=DATE + dt.timedelta(days=1)), "code_version": "0.1.0+abc",
        "schema_version": SCHEMA_VERSION, **ORIGIN, **more,
    }  # fmt: skip


QUIET = Night(DATE, [], [drift("Rate", 0.02, "stable", [5] * 10)], {DATE: [scored()]})


def with_row(night: Night, **more: Any) -> Night:
    """The night with another row of its champion."""
    return dataclasses.replace(night, nights={**night.nights, night.event_date: [dict(night.champion) | more]})


def busy() -> Night:
    """A synthetic night with content in every section."""
    rng = np.random.default_rng(7)
    shown = [incidents.flood(), incidents.arp(), incidents.port_scan(), incidents.unknown(), incidents.timeless()]
    alerts = [
        *(incidents.alert(shown[2], name, log10_p=-38.5 + i) for i, name in enumerate(incidents.PUMPS)),
        incidents.alert(shown[2], "198.51.100.23", entity_kind="src_ip", is_source=True, log10_p=-240.0),
        incidents.alert(shown[4], "ward-3-gateway", flagged=[9, 9, 0], level=1, expected=[0.0003, 0.0001, 0.00005]),
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
        files=files, packets=PACKETS, extra_columns=["vlan", "sensor_firmware"], class_mix=classes,
        flows_flagged=34_120,
        quarantine=[{"reason": "not_a_number", "rows": 1_200}, {"reason": "share_out_of_range", "rows": 110}],
        warnings=[{"rule": "negative_time_between_packets", "rows": 870}], flows_allowed=640, incidents=17,
        incidents_shown=5, incidents_muted=1, incidents_learned=1, incidents_closed=1,
        incidents_ended=[{"incident_id": "e0" * 16, "text": "DoS-UDP: 10.9.0.9 against ct-scanner-1, of 2026-07-13"}],
        incidents_not_shown=[{"category": "Recon", "entity": "fridge-1", "incidents": 2},
                             {"category": "MQTT", "entity": "broker", "incidents": 7}],
        drift_moderate=moderate, drift_significant=significant,
    )  # fmt: skip
    challenger = champion | {"role": "challenger", "model_version": "20260712T020000-ef56", "incidents": 9,
                             "incidents_shown": 5, "flows_flagged": 2_950, "expected_false_alarms": 11_000.0,
                             "class_mix": mix(range(24), Benign=49_700, DDoS_SYN=812)}  # fmt: skip
    nights = {DATE: [champion, challenger]}
    for days, version in ((1, VERSION), (2, VERSION), (4, "20260601T020000-0001"), (6, "20260601T020000-0001")):
        flagged = int(rng.integers(20, 900))
        nights[DATE - dt.timedelta(days=days)] = [
            scored(model_version=version, flows_flagged=flagged, incidents=flagged // 40, drift_significant=days,
                   rows_in=1_150_000 + 9_000 * days, rows_quarantined=days * 37, **(OLD if days > 2 else {}))
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
        DATE, [*shown, *incidents.folded()], drifts, nights, allow_list,
        {"both": 2_700, "champion_only": 712, "challenger_only": 250}, {"champion": card},
        {"severity policy": "the project's table"}, alerts,
    )  # fmt: skip


def hostile() -> Night:
    """Fifty open incidents and three folded ones, with external names of every kind in every place."""
    names = incidents.hostile_names()
    found = []
    for i in range(50):
        name = names[i % len(names)]
        more = {"verdict_reason": name, "verdict_owner": name, "verdict": "true"} if i % 3 == 0 else {}
        found.append(
            incidents.incident(i + 1, ("high", "<b>odd")[i % 2], {"DoS-UDP": 9}, {f"{name}-source-{i}": 9},
                               {f"{name}{i}": 5, name: 4}, at(i % 24), **more)
        )  # fmt: skip
    alerts = [incidents.alert(each, name) for each, name in zip(found, names, strict=False)]
    name = names[0]
    return with_row(
        dataclasses.replace(
            QUIET, incidents=[*found, *incidents.folded()], allow_list=[{"entity": name, "expires": DATE}],
            facts={name: name}, alerts=alerts,
        ),
        incidents=54, incidents_shown=50, flows_flagged=90, run_id=name, extra_columns=[name, "y" * 200],
        files=[{"name": f"{name}.parquet", "rows": 0, "reason": "<i>reason"}],
        quarantine=[{"reason": name, "rows": 200}], warnings=[{"rule": name, "rows": 1}],
        incidents_ended=[{"incident_id": "e0" * 16, "text": name}],
        incidents_not_shown=[{"category": "Recon", "entity": each, "incidents": 1} for each in names],
    )  # fmt: skip
