"""An incident as a document of the Elastic Common Schema (ECS). Facts without an ECS field become text in `labels`."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ids_spark.alerts import narrative
from ids_spark.alerts.export import common
from ids_spark.alerts.export.common import Context, Entity, Record
from ids_spark.alerts.narrative import Incident


def document(incident: Incident, context: Context) -> Record:
    """Return one incident as an ECS document of kind `alert`; nulls and numbers that are not finite are dropped.

    `event.severity` is 1 (informational) to 5 (critical), as in OCSF; `event.risk_score` the score by which incidents
    are ranked. `@timestamp` is when the incident was created, `event.start` and `event.end` when its flows were seen.
    `source`, `destination` and `host` are the main source and device, see `narrative.main_of`; `related` has all.

    Args:
        incident: A row of `tables.INCIDENTS`; a time without a zone is in UTC.
        context: See `Context`.
    """
    title, description = common.title(incident), common.description(incident)
    names = common.class_names(incident)
    without_field = common.details(incident, context) | {
        name: incident[name] for name in ("severity", "flows", "run_id", "verdict", "verdict_owner", "verdict_reason")
    }
    without_field |= {
        column: ", ".join(str(each["name"]) for each in incident[column] or ()) for column in ("sources", "devices")
    }
    for row in incident.get("inventory") or ():
        for name in ("department", "owner", "criticality", "patient_connected"):
            if row[name] is not None:
                without_field.setdefault(f"device_{name}", []).append(f"{row['name']}: {row[name]}")
    without_field |= {n: "; ".join(value) for n, value in without_field.items() if isinstance(value, list)}
    record = {
        "@timestamp": common.iso(common.created_at(incident, context)),
        "ecs": {"version": common.names()["ecs"]["version"]},
        "message": f"{title}. {description}",
        "tags": [f"data_origin:{incident['data_origin']}"],
        "labels": {name: str(value) for name, value in common.drop_empty(without_field).items()},
        "event": {
            "kind": "alert",
            "category": ["intrusion_detection", "network"],
            "type": ["info"],
            "module": common.PRODUCT,
            "dataset": f"{common.PRODUCT}.incidents",
            "id": incident["incident_id"],
            "severity": common.SEVERITIES.get(incident["severity"]),
            "risk_score": common.number(incident["score"], np.float64),
            "start": common.iso(incident["first_seen"]),
            "end": common.iso(incident["last_seen"]),
            "reason": _reason(incident),
        },
        "rule": {
            "name": names[0] if names else incident["category"],
            "category": incident["category"],
            "description": description,
            "ruleset": incident["model"],
            "version": incident["model_version"],
        },
        "threat": _threat(incident),
        "observer": {"type": "ids", "vendor": common.PRODUCT, "product": common.PRODUCT, "version": context.version},
        **_entities(incident, context),
    }
    found: Record = common.drop_empty(record)
    return found


def lines(incidents: pa.Table | Sequence[Incident], context: Context) -> bytes:
    """Return incidents as JSON lines of ECS documents; see `json_lines`."""
    return common.json_lines(incidents, context, document)


def _reason(incident: Incident) -> str:
    """Return the attributions of the flow with the highest score."""
    flows = common.flows_of(incident)
    return "; ".join(
        f"{each['feature']} = {each['value_text'] or each['value']} ({each['contribution']} log-odds)"
        for each in (flows[0]["attributions"] if flows else ())
    )


def _threat(incident: Incident) -> Record:
    tactics: dict[str, str] = {}
    techniques: dict[str, str] = {}
    for of_class in common.attacks_of(incident):
        tactics |= of_class[0]
        techniques |= of_class[1]
    above = {uid: name for uid, name in techniques.items() if "." not in uid}
    below = {uid: name for uid, name in techniques.items() if "." in uid}
    return {
        "framework": "MITRE ATT&CK" if tactics else None,
        "tactic": {"id": list(tactics), "name": list(tactics.values())},
        "technique": {
            "id": list(above),
            "name": list(above.values()),
            "subtechnique": {"id": list(below), "name": list(below.values())},
        },
    }


def _entities(incident: Incident, context: Context) -> Record:
    sources = [each for each in incident["sources"] or () if each["name"]]
    devices = [each for each in incident["devices"] or () if each["name"]]
    addresses = [address for each in (*sources, *devices) if (address := common.address_of(each, context))]
    hosts = [each["name"] for each in devices if each["kind"] == common.DEVICE_COLUMN]
    found: Record = {"related": {"ip": list(dict.fromkeys(addresses)), "hosts": hosts}}
    source, device = (narrative.main_of(incident, column) for column in ("sources", "devices"))
    if source is not None and source["name"]:
        found["source"] = _endpoint(source, context)
    if device is not None and device["name"]:
        kind, name, ends = device["kind"], device["name"], _endpoint(device, context)
        if kind == common.DEVICE_COLUMN:
            known = common.known(incident, device)
            found["host"] = {"id": name, "name": known.get("device"), "type": known.get("type")}
            found["host"] |= {"ip": [ends["ip"]], "mac": [ends["mac"]]}
        elif kind == "source_file":
            found["log"] = {"file": {"path": name}}
        end = common.ENDPOINT_COLUMNS.get(kind, "destination" if ends["ip"] or ends["mac"] else "")
        if end and not (end == "destination" and narrative.attacks_others(incident)):
            found[end] = ends
        targets = list(incident.get("targets") or ())
        if narrative.attacks_others(incident) and len(targets) == 1:
            target = _endpoint({"kind": "dst_ip", "name": targets[0]}, context)
            if target["ip"]:
                found["destination"] = target
                found["related"]["ip"] = list(dict.fromkeys([*addresses, target["ip"]]))
    return found


def _endpoint(entity: Entity, context: Context) -> Record:
    """Return the address of an entity: an Ethernet address, or an IP address or a name; nothing for a pseudonym.

    ECS writes Ethernet addresses as RFC 7042 does: 00-00-5E-00-53-23.
    """
    if mac := common.mac_of(entity, context):
        return {"address": None, "ip": None, "mac": mac.upper().replace(":", "-")}
    address = entity["name"] if entity["kind"] not in context.pseudonymised else None
    return {"address": address, "ip": common.address_of(entity, context), "mac": None}
