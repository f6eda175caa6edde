"""Shared functions of the incident exports: titles, times, numbers, addresses, ATT&CK techniques, JSON lines.

Field names, types and allowed values of the published schemas are in `names.json`, together with their source.

Its entry `attack` gives the MITRE ATT&CK technique of a predicted class where ATT&CK itself describes the attack:
floods of ICMP, UDP or TCP packets, SYN floods, floods of requests to a service, ping, port and vulnerability scans,
poisoned ARP caches. The categories DDoS and DoS cover several techniques and have the tactic that these share. No
technique clearly fits `Recon-OS_Scan`, `MQTT-Malformed_Data`, the categories MQTT and Recon, and `Attack`; they have
none.
"""

import datetime as dt
import ipaddress
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

import numpy as np
import pyarrow as pa

import ids_spark
from ids_spark.alerts import narrative
from ids_spark.alerts.narrative import Incident

Record = dict[str, Any]
Entity = Mapping[str, Any]
"""An item of `sources` or `devices` of an incident: `kind`, `name`, and `flows`."""

PRODUCT: Final = "ids_spark"
SEVERITIES: Final = {"informational": 1, "low": 2, "medium": 3, "high": 4, "critical": 5}
DEVICE_COLUMN: Final = "device_id"
ENDPOINT_COLUMNS: Final = {
    "src_ip": "source",
    "source_ip": "source",
    "dst_ip": "destination",
    "destination_ip": "destination",
    "src_mac": "source",
    "source_mac": "source",
    "dst_mac": "destination",
    "destination_mac": "destination",
}
_MAC: Final = re.compile(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}")
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_LEAST_SHARE: Final = 0.2  # of the attack probability, from which a class determines the severity too
_COPIED: Final = (
    *("rank", "category", "state", "life", "nights_seen", "previous_id", "sources_found", "devices_found", "alerts"),
    *("flows_allowed", "lead_kind", "lead_entity", "lead_flagged", "lead_flows", "own_nights", "schema_version"),
)
_OF_INVENTORY: Final = ("learning", "strong", "own_peers", "flows_in_maintenance", "criticality_factor")
_FIGURES: Final = ("lead_expected", "own_rate", "peer_rate", "log10_p", "posterior", "score")
_SCORES: Final = ("max_attack_probability", "max_attack_logit", "threshold_logit")


@dataclass(frozen=True)
class Context:
    """Values common to all incidents of an export.

    Attributes:
        event_date: The night.
        pseudonymised: Columns whose values are keyed hashes; these are never written to fields for addresses.
        version: Version of this program.
    """

    event_date: dt.date
    pseudonymised: frozenset[str] = frozenset()
    version: str = ids_spark.__version__


@cache
def names() -> dict[str, Any]:
    """Return `names.json`: published names, types and allowed values of OCSF, ECS and MITRE ATT&CK."""
    text = resources.files(__package__).joinpath("names.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


def attack_of(class_name: str | None) -> tuple[dict[str, str], dict[str, str]]:
    """Return the tactics of a class and its technique with sub-technique, as names by id; empty without a match."""
    facts = names()["attack"]
    uid = facts["classes"].get(class_name)
    if uid not in facts["techniques"]:
        return ({uid: facts["tactics"][uid]} if uid else {}), {}
    tactics = {each: facts["tactics"][each] for each in facts["techniques"][uid]["tactics"]}
    return tactics, {each: facts["techniques"][each]["name"] for each in (uid.split(".")[0], uid)}


def title(incident: Incident) -> str:
    """Return what, who and whom; data that are not measured are marked."""
    origin = "" if incident["data_origin"] == "measured" else f"[{incident['data_origin']} data] "
    return origin + narrative.title(incident)


def description(incident: Incident) -> str:
    """Return the three sentences of the incident; see `narrative`."""
    return " ".join(narrative.sentences(incident))


def class_names(incident: Incident) -> list[str]:
    """Return the classes with at least a fifth of the attack probability, largest first; none if they are unknown."""
    return [each["class_name"] for each in incident["classes"] or () if (each["share"] or 0.0) >= _LEAST_SHARE]


def attacks_of(incident: Incident) -> list[tuple[dict[str, str], dict[str, str]]]:
    """Return tactics and technique, see `attack_of`, of each of the incident's classes, without repetitions."""
    found = [attack_of(name) for name in class_names(incident)]
    return [each for i, each in enumerate(found) if each[0] and each not in found[:i]]


def details(incident: Incident, context: Context) -> Record:
    """Return values for which the schemas have no attribute, or have one only for some classes and entities."""
    entities = (*(incident["sources"] or ()), *(incident["devices"] or ()))
    hidden = any(each["kind"] in context.pseudonymised for each in entities)
    return {
        "data_origin": incident["data_origin"],
        "event_date": context.event_date.isoformat(),
        "lead_window": iso(incident["lead_window"]),
        "since": None if incident["since"] is None else incident["since"].isoformat(),
        **{name: incident[name] for name in _COPIED},
        **{name: incident.get(name) for name in _OF_INVENTORY},
        "pseudonymised": "true" if hidden else "false",
        **{name: number(incident[name], np.float64) for name in _FIGURES},
        **{name: number(incident[name]) for name in _SCORES},
    }


def known(incident: Incident, entity: Entity) -> Record:
    """Return what the inventory says of an entity of an incident, as `tables.INVENTORY`; empty if it lacks it."""
    rows = incident.get("inventory") or ()
    return next((row for row in rows if (row["kind"], row["name"]) == (entity["kind"], entity["name"])), {})


def flows_of(incident: Incident) -> list[Record]:
    """Return the top flows: where the flow is, its class, device, source and score, and its attributions."""
    return [
        {
            **{name: flow[name] for name in ("source_file", "source_row", "class_name", "device", "source")},
            "attack_logit": number(flow["attack_logit"]),
            "attributions": attributions(flow["attributions"]),
        }
        for flow in incident["top_flows"] or ()
    ]


def attributions(found: Sequence[Mapping[str, Any]] | None) -> list[Record]:
    """Return attributions: `feature`, `contribution`, `value`, or `value_text` where the value is infinite."""
    return [
        {
            "feature": each["feature"],
            "value": number(each["value"], np.float64),
            "value_text": str(each["value"]) if each["value"] in (math.inf, -math.inf) else None,
            "contribution": number(each["contribution"]),
        }
        for each in found or ()
    ]


def drop_empty(value: Any) -> Any:
    """Return `value` without nulls and empty texts, lists and objects, at every depth and in the same order."""
    if isinstance(value, dict):
        return {key: item for key, item in ((key, drop_empty(item)) for key, item in value.items()) if _is_filled(item)}
    return [item for item in map(drop_empty, value) if _is_filled(item)] if isinstance(value, list) else value


def number(value: float | None, kind: type[np.floating[Any]] = np.float32) -> float | None:
    """Return the shortest decimal that equals the value in the precision `kind`; None for null, NaN and infinity."""
    return None if value is None or not math.isfinite(value) else float(str(kind(value)))


def utc(time: dt.datetime) -> dt.datetime:
    """Return a time in UTC; one without a zone is taken as UTC."""
    return time.astimezone(dt.UTC) if time.tzinfo else time.replace(tzinfo=dt.UTC)


def milliseconds(time: dt.datetime | None) -> int | None:
    """Return milliseconds since 1970 in UTC, rounded down; null stays null."""
    return None if time is None else (utc(time) - _EPOCH) // dt.timedelta(milliseconds=1)


def iso(time: dt.datetime | None) -> str | None:
    """Return a time as ISO 8601 in UTC, with milliseconds, rounded down."""
    return None if time is None else f"{utc(time).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


def created_at(incident: Incident, context: Context) -> dt.datetime:
    """Return when the incident was created; if that is null, when it was last seen, else when its night began."""
    midnight = dt.datetime.combine(context.event_date, dt.time())
    return utc(incident["created_at"] or incident["last_seen"] or midnight)


def is_address(text: object) -> bool:
    """Return whether a value is the text of an IPv4 or IPv6 address without a zone."""
    try:
        return isinstance(text, str) and "%" not in text and bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def address_of(entity: Entity, context: Context) -> str | None:
    """Return the name of an entity if it is an IP address, its kind is known, and it is not a pseudonym."""
    is_plain = entity["kind"] is not None and entity["kind"] not in context.pseudonymised
    return entity["name"] if is_plain and is_address(entity["name"]) else None


def mac_of(entity: Entity, context: Context) -> str | None:
    """Return the name of an entity if it is an Ethernet address, its kind is known, and it is not a pseudonym."""
    is_plain = entity["kind"] is not None and entity["kind"] not in context.pseudonymised
    name = entity["name"]
    return name if is_plain and isinstance(name, str) and _MAC.fullmatch(name) else None


def json_lines(
    incidents: pa.Table | Sequence[Incident], context: Context, record_of: Callable[[Incident, Context], Record]
) -> bytes:
    """Return the incidents of the page as JSON lines in UTF-8, by rank; the same incidents give the same bytes.

    Args:
        incidents: Rows of `tables.INCIDENTS`; those that are not open, or not shown, are left out.
        context: See `Context`.
        record_of: Returns the record of an incident.
    """
    rows = incidents.to_pylist() if isinstance(incidents, pa.Table) else incidents
    shown = (row for row in rows if row["state"] == "open" and row["shown"])
    ordered = sorted(shown, key=lambda row: (row["rank"], row["incident_id"]))
    texts = (json.dumps(record_of(row, context), ensure_ascii=False, allow_nan=False) for row in ordered)
    return "".join(f"{_escaped(text)}\n" for text in texts).encode()


def _escaped(text: str) -> str:
    """Return JSON with characters that are not printable, such as U+2028 and U+202E, escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def _is_filled(value: object) -> bool:
    return value is not None and value not in ("", [], {})
