"""An incident as a document of the Elastic Common Schema (ECS), and what every export says of an incident.

Field names, types and allowed values lie beside this module in `names.json`, taken from the published schemas as
its entry `source` says; `ocsf.validate_ecs` holds documents against them. What ECS has no field for stands below
`labels`, as text.

Its entry `attack` gives the MITRE ATT&CK technique of a predicted class where ATT&CK itself describes the attack:
floods of ICMP, UDP or TCP packets, SYN floods, floods of requests to a service, ping, port and vulnerability scans,
poisoned ARP caches. The categories DDoS and DoS hold several techniques and give the tactic these share. None is clear
for `Recon-OS_Scan`, `MQTT-Malformed_Data`, the categories MQTT and Recon, and `Attack`: these are left out.
"""

import datetime as dt
import ipaddress
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

import numpy as np
import pyarrow as pa

import ids_spark

Incident = Mapping[str, Any]
Record = dict[str, Any]

PRODUCT: Final = "ids_spark"
SEVERITIES: Final = {"informational": 1, "low": 2, "medium": 3, "high": 4, "critical": 5}
DEVICE_COLUMN: Final = "device_id"
ENDPOINT_COLUMNS: Final = {
    "src_ip": "source",
    "source_ip": "source",
    "dst_ip": "destination",
    "destination_ip": "destination",
}
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_PLAIN: Final = ("rank", "class_name", "category", "entity_kind", "entity", "schema_version")
_SCORES: Final = ("max_attack_probability", "max_attack_logit", "threshold_logit")


@dataclass(frozen=True)
class Context:
    """What an export knows beside the incident.

    Attributes:
        event_date: The night.
        pseudonymised: Columns whose values are keyed hashes; these never go into fields for addresses.
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


def document(incident: Incident, context: Context) -> Record:
    """Return one incident as an ECS document of kind `alert`; nulls and numbers that are not finite are left out.

    `event.severity` is 1 (informational) to 5 (critical), as in OCSF; `event.risk_score` the highest attack logit.
    `@timestamp` is when the incident was created, `event.start` and `event.end` when its flows were seen.

    Args:
        incident: A row of `tables.INCIDENTS`; a time without a zone is in UTC.
        context: See `Context`.
    """
    title, description = words(incident, context)
    tactics, techniques = attack_of(incident["class_name"])
    without_field = details(incident, context) | {name: incident[name] for name in ("severity", "flows", "run_id")}
    record = {
        "@timestamp": iso(created_at(incident, context)),
        "ecs": {"version": names()["ecs"]["version"]},
        "message": f"{title}: {description}",
        "tags": [f"data_origin:{incident['data_origin']}"],
        "labels": {name: str(value) for name, value in known(without_field).items()},
        "event": {
            "kind": "alert",
            "category": ["intrusion_detection", "network"],
            "type": ["info"],
            "module": PRODUCT,
            "dataset": f"{PRODUCT}.alerts",
            "id": incident["incident_id"],
            "severity": SEVERITIES.get(incident["severity"]),
            "risk_score": number(incident["max_attack_logit"]),
            "start": iso(incident["first_seen"]),
            "end": iso(incident["last_seen"]),
            "reason": "; ".join(
                f"{each['feature']} = {each['value_text'] or each['value']} ({each['contribution']} log-odds)"
                for each in attributions(incident)
            ),
        },
        "rule": {
            "name": incident["class_name"],
            "category": incident["category"],
            "ruleset": incident["model"],
            "version": incident["model_version"],
        },
        "threat": {
            "framework": "MITRE ATT&CK" if tactics else None,
            "tactic": {"id": list(tactics), "name": list(tactics.values())},
            "technique": {
                "id": list(techniques)[:1],
                "name": list(techniques.values())[:1],
                "subtechnique": {"id": list(techniques)[1:], "name": list(techniques.values())[1:]},
            },
        },
        "observer": {"type": "ids", "vendor": PRODUCT, "product": PRODUCT, "version": context.version},
        **_entity(incident, context),
    }
    found: Record = known(record)
    return found


def lines(incidents: pa.Table | Sequence[Incident], context: Context) -> bytes:
    """Return incidents as JSON lines of ECS documents; see `json_lines`."""
    return json_lines(incidents, context, document)


def attack_of(class_name: str | None) -> tuple[dict[str, str], dict[str, str]]:
    """Return name by id of a class's tactics, and of its technique followed by the sub-technique; empty: not clear."""
    facts = names()["attack"]
    uid = facts["classes"].get(class_name)
    if uid not in facts["techniques"]:
        return ({uid: facts["tactics"][uid]} if uid else {}), {}
    tactics = {each: facts["tactics"][each] for each in facts["techniques"][uid]["tactics"]}
    return tactics, {each: facts["techniques"][each]["name"] for each in (uid.split(".")[0], uid)}


def words(incident: Incident, context: Context) -> tuple[str, str]:
    """Return a title and a sentence about an incident; the title says where the data are not measured."""
    who = "unknown entity" if incident["entity"] is None else f"{incident['entity_kind']} {incident['entity']}"
    origin = "" if incident["data_origin"] == "measured" else f"[{incident['data_origin']} data] "
    probability = number(incident["max_attack_probability"])
    score = "" if probability is None else f", attack probability up to {probability:.4g}"
    sentence = f"{incident['flows']} flows of {context.event_date} predicted as {incident['class_name']}{score}"
    return f"{origin}{incident['class_name']}, {who}", sentence


def details(incident: Incident, context: Context) -> Record:
    """Return what neither schema has an attribute for, or only for some classes and entities."""
    return {
        "data_origin": incident["data_origin"],
        "event_date": context.event_date.isoformat(),
        "window_start": iso(incident["window_start"]),
        **{name: incident[name] for name in _PLAIN},
        "pseudonymised": "true" if incident["entity_kind"] in context.pseudonymised else "false",
        **{name: number(incident[name]) for name in _SCORES},
    }


def attributions(incident: Incident) -> list[Record]:
    """Return the top attributions: `feature`, `value`, `contribution`; an infinite value stands as text in `value_text`."""
    return [
        {
            "feature": each["feature"],
            "value": number(each["value"], np.float64),
            "value_text": str(each["value"]) if each["value"] in (math.inf, -math.inf) else None,
            "contribution": number(each["contribution"]),
        }
        for each in incident["top_attributions"] or ()
    ]


def known(value: Any) -> Any:
    """Return `value` without nulls, empty texts, lists and objects, at every depth; the order stays."""
    if isinstance(value, dict):
        return {key: item for key, item in ((key, known(item)) for key, item in value.items()) if _says(item)}
    return [item for item in map(known, value) if _says(item)] if isinstance(value, list) else value


def number(value: float | None, kind: type[np.floating[Any]] = np.float32) -> float | None:
    """Return the shortest decimal that is the same number of that kind; None for null and what is not finite."""
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
    """Return when the incident was created; where that is null, when last seen, else when its night began."""
    midnight = dt.datetime.combine(context.event_date, dt.time())
    return utc(incident["created_at"] or incident["last_seen"] or midnight)


def is_address(text: object) -> bool:
    """Say whether a text is an IPv4 or IPv6 address without a zone."""
    try:
        return isinstance(text, str) and "%" not in text and bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def address_of(incident: Incident, context: Context) -> str | None:
    """Return the entity where it is an IP address and no pseudonym."""
    is_open = incident["entity_kind"] not in context.pseudonymised
    return incident["entity"] if is_open and is_address(incident["entity"]) else None


def json_lines(
    incidents: pa.Table | Sequence[Incident], context: Context, form: Callable[[Incident, Context], Record]
) -> bytes:
    """Return incidents, by rank, as JSON lines in UTF-8: the same incidents give the same bytes, none no byte."""
    rows = incidents.to_pylist() if isinstance(incidents, pa.Table) else incidents
    ordered = sorted(rows, key=lambda row: (row["rank"], row["incident_id"]))
    texts = (json.dumps(form(row, context), ensure_ascii=False, allow_nan=False) for row in ordered)
    return "".join(f"{text}\n" for text in texts).encode()


def _says(value: object) -> bool:
    return value is not None and value not in ("", [], {})


def _entity(incident: Incident, context: Context) -> Record:
    kind, entity, address = incident["entity_kind"], incident["entity"], address_of(incident, context)
    if kind == DEVICE_COLUMN:
        return {"host": {"id": entity, "ip": [address]}, "related": {"ip": [address], "hosts": [entity]}}
    if kind in ENDPOINT_COLUMNS:
        return {ENDPOINT_COLUMNS[kind]: {"address": address, "ip": address}, "related": {"ip": [address]}}
    return {"log": {"file": {"path": entity if kind == "source_file" else None}}}
