"""Rows of `incidents/` and `alerts/`, made by hand; synthetic."""

import datetime as dt
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ids_spark.dataset.tables import SCHEMA_VERSION

DATE = dt.date(2026, 7, 14)  # a Tuesday
MODEL, VERSION = "gru_dnn-19-paper", "20260701T020000-ab12"
ORIGIN = {"model": MODEL, "model_version": VERSION, "run_id": "20260715T010000-cd34", "data_origin": "synthetic"}
PUMPS = {f"infusion-pump-{i:02d}": 52 - i for i in range(1, 7)}  # 291 flows


def at(hour: int, minute: int = 0, second: int = 0, date: dt.date = DATE) -> dt.datetime:
    return dt.datetime.combine(date, dt.time(hour, minute, second), tzinfo=dt.UTC)


def attributions() -> list[dict[str, Any]]:
    return [
        {"feature": "syn_flag_number", "value": 0.98, "contribution": 3.21},
        {"feature": "Rate", "value": 51_230.4, "contribution": 1.5},
        {"feature": "IAT", "value": 8.4e-7, "contribution": -0.26},
    ]


def entities(kind: str, flows: Mapping[str, int], most: int = 20) -> list[dict[str, Any]]:
    return [{"kind": kind, "name": name, "flows": n} for name, n in list(flows.items())[:most]]


def incident(
    rank: int | None,
    severity: str,
    classes: Mapping[str, int],
    sources: Mapping[str, int],
    devices: Mapping[str, int],
    first: dt.datetime | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A row of `incidents/`; its most significant alert is that of its first device, or of its first source."""
    total, name = sum(classes.values()), next(iter(classes))
    category = "Spoofing" if name == "ARP_Spoofing" else name.split("-")[0]
    lead, kind = next(iter(devices), None), "device_id"
    if lead is None:
        lead, kind = next(iter(sources)), "src_ip"
    window = first and first.replace(minute=0, second=0, microsecond=0)
    top = {
        "source_file": "flows-02.parquet", "source_row": 4_711, "class_name": name,
        "device": next(iter(devices), None), "source": next(iter(sources), None), "window_start": window,
        "attack_logit": 8.5, "attributions": attributions(),
    }  # fmt: skip
    return {
        "incident_id": f"{rank or 0:04x}" + "7f3ac2d1" * 3 + "aaaa", "rank": rank, "state": "open", "shown": True,
        "severity": severity, "category": category,
        "classes": [{"class_name": each, "flows": n, "share": n / total} for each, n in classes.items()],
        "sources": entities("src_ip", sources), "sources_found": len(sources),
        "devices": entities("device_id", devices), "devices_found": len(devices),
        "first_seen": first, "last_seen": first and first + dt.timedelta(minutes=44, seconds=8),
        "flows": total, "flows_allowed": 0, "alerts": max(1, len(devices)), "lead_kind": kind, "lead_entity": lead,
        "lead_window": window, "lead_flagged": 51, "lead_flows": 60, "lead_expected": 0.62, "own_rate": 0.0021,
        "own_nights": 6, "peer_rate": 0.0114, "log10_p": -38.5, "posterior": 0.99998, "score": 7.99984, "life": "new",
        "since": DATE, "nights_seen": 1, "previous_id": None, "verdict": None, "verdict_until": None,
        "verdict_owner": None, "verdict_reason": None, "max_attack_probability": 0.9998, "max_attack_logit": 8.5,
        "top_flows": [top], "threshold_logit": 1.5, "schema_version": SCHEMA_VERSION,
        "created_at": at(1, date=DATE + dt.timedelta(days=1)), **ORIGIN, **more,
    }  # fmt: skip


def alert(of: Mapping[str, Any], entity: str, **more: Any) -> dict[str, Any]:
    """A row of `alerts/` of an incident."""
    return {
        "incident_id": of["incident_id"], "entity_kind": of["lead_kind"], "entity": entity, "is_source": False,
        "window_start": of["lead_window"], "category": of["category"], "flagged": [51, 51, 49], "flows": 60,
        "expected": [0.62, 0.124, 0.0496], "level": 0, "log10_p": -38.5, "log10_p_learned": -38.5,
        "first_seen": of["first_seen"], "last_seen": of["last_seen"], "schema_version": SCHEMA_VERSION,
        "run_id": of["run_id"], **more,
    }  # fmt: skip


def port_scan(rank: int = 3) -> dict[str, Any]:
    """One source, six pumps."""
    classes = {"Recon-Port_Scan": 242, "Recon-OS_Scan": 49}
    return incident(rank, "low", classes, {"198.51.100.23": 291}, PUMPS, at(2, 14))


def flood(rank: int = 1) -> dict[str, Any]:
    """5,000 spoofed sources, one device."""
    sources = {f"203.0.{i // 250}.{i % 250}": 4 for i in range(5_000)}
    first = at(3, 2, 9)
    return incident(rank, "critical", {"DDoS-SYN": 19_990, "DoS-SYN": 10}, sources, {"ct-scanner-2": 20_000}, first,
                    lead_flagged=19_800, lead_flows=20_410, lead_expected=1_204.5)  # fmt: skip


def arp(rank: int = 2) -> dict[str, Any]:
    """Two victims; it continues since 3 July and was confirmed."""
    devices = {"bedside-monitor-12": 58, "bedside-monitor-4": 38}
    return incident(rank, "high", {"ARP_Spoofing": 96}, {"10.20.4.117": 96}, devices, at(14, 40), life="continuing",
                    since=dt.date(2026, 7, 3), nights_seen=6, previous_id="b1" * 16, verdict="true",
                    verdict_owner="j.doe", verdict_reason="switch port is being traced")  # fmt: skip


def unknown(rank: int = 4) -> dict[str, Any]:
    """Flows of no known attack, of a device without sources; it came back."""
    return incident(rank, "medium", {"Unknown": 31}, {}, {"ventilator-9": 31}, at(5, 30), life="returned",
                    since=dt.date(2026, 6, 30), nights_seen=2, own_rate=None, own_nights=0)  # fmt: skip


def timeless(rank: int = 5) -> dict[str, Any]:
    """No event times, no sources; found with little evidence."""
    return incident(rank, "low", {"Recon-Ping_Sweep": 9}, {}, {"ward-3-gateway": 9}, peer_rate=None, posterior=0.61,
                    lead_expected=0.0003, top_flows=None)  # fmt: skip


def folded() -> list[dict[str, Any]]:
    """A muted, a learned and a closed incident, and one beyond the most lines."""
    spec = (
        ("muted", {"verdict": "mute", "verdict_until": dt.date(2026, 8, 1), "verdict_reason": "migration of ward 3"}),
        ("learned", {"verdict": "benign", "verdict_reason": "nightly backup"}),
        ("closed", {"verdict": "close", "verdict_reason": "cable replaced"}),
    )
    found = [
        incident(None, "high", {"DoS-UDP": 400 - i}, {f"10.9.0.{i}": 400 - i}, {f"backup-{i}": 400 - i}, at(22, i),
                 incident_id=f"f{i}" * 16, state=state, shown=False, verdict_owner="a.b", **more)
        for i, (state, more) in enumerate(spec)
    ]  # fmt: skip
    beyond = incident(6, "low", {"Recon-Ping_Sweep": 7}, {"10.9.1.1": 7}, {"fridge-1": 7}, at(23), shown=False)
    return [*found, beyond]


def hostile_names() -> list[str]:
    """Names with markup, control characters, another direction of reading, 5 KB, quotes, line breaks."""
    return [
        "<script>alert(1)</script>\u202e'\"&" + "x" * 300,
        "pump\x07\x1b[31m\r\n\u2028evil",
        "$\\frac{1}{2}$ {{ 7 * 7 }} %s {who}",
        "y" * 5_000,
        "Überwachung-病棟-🏥",
    ]


def varied(names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Incidents of each category with every null and number that is not finite that a table can hold."""
    nothing = dict.fromkeys(
        ("classes", "sources", "sources_found", "devices", "devices_found", "first_seen", "last_seen", "lead_kind",
         "lead_entity", "lead_window", "lead_flagged", "lead_flows", "lead_expected", "own_rate", "own_nights",
         "peer_rate", "log10_p", "posterior", "score", "life", "since", "nights_seen", "top_flows", "flows", "alerts",
         "max_attack_probability", "max_attack_logit", "threshold_logit", "created_at", "severity")
    )  # fmt: skip
    gaps: list[dict[str, Any]] = [
        {},
        nothing,
        {"posterior": math.nan, "score": math.inf, "lead_expected": math.nan},
        {"own_rate": math.nan, "peer_rate": math.nan, "max_attack_logit": math.inf},
    ]
    classes = ("DDoS-SYN", "DoS-TCP", "MQTT-Malformed_Data", "Recon-VulScan", "ARP_Spoofing", "Unknown", "Attack")
    for i, name in enumerate(names):
        for j, class_name in enumerate(classes):
            for k, gap in enumerate(gaps):
                sources = {name: 5, "10.0.0.1": 2} if k % 2 else {name: 7}
                rank = i * 100 + j * 10 + k + 1
                yield incident(rank, "high", {class_name: 7}, sources, {f"{name}-d": 7}, at(j)) | gap
