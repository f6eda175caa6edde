"""An incident as an event of the Open Cybersecurity Schema Framework (OCSF): Detection Finding (2004), activity Create.

Facts without an OCSF attribute are in `unmapped`.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from ids_spark.alerts import narrative
from ids_spark.alerts.export import common
from ids_spark.alerts.export.common import Context, Entity, Record
from ids_spark.alerts.narrative import Incident

_CLASSIFICATION: Final = {
    "activity_id": 1,
    "activity_name": "Create",
    "category_uid": 2,
    "category_name": "Findings",
    "class_uid": 2004,
    "class_name": "Detection Finding",
    "type_uid": 200401,
    "type_name": "Detection Finding: Create",
}
_OTHER: Final = 99  # in every enum: none of the listed values; the sibling attribute holds the text


def event(incident: Incident, context: Context) -> Record:
    """Return one incident as an OCSF event; nulls and numbers that are not finite are dropped.

    Times are milliseconds since 1970 in UTC, rounded down. `confidence_score` is the probability of an attack, at most,
    in per cent. Sources are `src_endpoint` of evidences, of the top flows first; devices are resources of the role
    Target, or Actor if the main device is the source. The incident of an earlier night that this one continues is a
    related event.

    Args:
        incident: A row of `tables.INCIDENTS`; a time without a zone is in UTC.
        context: See `Context`.
    """
    title, description = common.title(incident), common.description(incident)
    created = common.milliseconds(common.created_at(incident, context))
    first, last = common.milliseconds(incident["first_seen"]), common.milliseconds(incident["last_seen"])
    posterior = common.number(incident["posterior"], np.float64)
    attacks_others = narrative.attacks_others(incident)
    record = {
        **_CLASSIFICATION,
        "time": created,
        "start_time": first,
        "end_time": last,
        "count": incident["flows"],
        **_severity(incident["severity"]),
        **_status(incident),
        "is_alert": True,
        "confidence_score": None if posterior is None else round(100 * posterior),
        "message": f"{title}. {description}",
        "metadata": {
            "version": common.names()["ocsf"]["version"],
            "uid": incident["incident_id"],
            "product": {"name": common.PRODUCT, "vendor_name": common.PRODUCT, "version": context.version},
            "log_name": "incidents",
            "correlation_uid": incident["run_id"],
            "labels": [f"data_origin:{incident['data_origin']}"],
        },
        "finding_info": _finding(incident, context, title, description)
        | {"created_time": created, "first_seen_time": first, "last_seen_time": last},
        "evidences": _evidences(incident, context),
        "resources": [
            _resource(each, common.known(incident, each), attacks_others and i == 0, context)
            for i, each in enumerate(incident["devices"] or ())
            if each["name"]
        ],
        "observables": _observables(incident, context),
        "unmapped": common.details(incident, context),
    }
    found: Record = common.drop_empty(record)
    return found


def lines(incidents: pa.Table | Sequence[Incident], context: Context) -> bytes:
    """Return incidents as JSON lines of OCSF events; see `common.json_lines`."""
    return common.json_lines(incidents, context, event)


def _severity(severity: str | None) -> Record:
    uid = 0 if severity is None else common.SEVERITIES.get(severity, _OTHER)
    captions = common.names()["ocsf"]["event"]["attributes"]["severity_id"]["enum"]
    return {"severity_id": uid, "severity": severity if uid == _OTHER else captions[str(uid)]}


def _status(incident: Incident) -> Record:
    if incident["verdict"] != "true":
        return {"status_id": 1, "status": "New"}
    return {"status_id": 2, "status": "In Progress", "status_detail": incident["verdict_reason"]}


def _finding(incident: Incident, context: Context, title: str, description: str) -> Record:
    previous = {"uid": incident["previous_id"], **{key: _CLASSIFICATION[key] for key in ("type_uid", "type_name")}}
    return {
        "uid": incident["incident_id"],
        "title": title,
        "desc": description,
        "types": list(dict.fromkeys((incident["category"], *common.class_names(incident)))),
        "analytic": {
            "name": incident["model"],
            "version": incident["model_version"],
            "type_id": 4,
            "type": "Learning (ML/DL)",
        },
        "attacks": _attacks(incident),
        "data_sources": [f"flow logs of {context.event_date}"],
        "related_events": [previous] if incident["previous_id"] else [],
        "related_events_count": 1 if incident["previous_id"] else None,
    }


def _attacks(incident: Incident) -> list[Record]:
    version: str = common.names()["attack"]["version"]
    address = f"https://attack.mitre.org/versions/v{version.split('.')[0]}/techniques/"
    found = []
    for tactics, techniques in common.attacks_of(incident):
        below = {
            level: {"uid": uid, "name": name, "src_url": f"{address}{uid.replace('.', '/')}/"}
            for level, (uid, name) in zip(("technique", "sub_technique"), techniques.items(), strict=False)
        }
        found += [{"tactic": {"uid": uid, "name": name}, **below, "version": version} for uid, name in tactics.items()]
    return found


def _evidences(incident: Incident, context: Context) -> list[Record]:
    """Return the top flows with their endpoints, then the sources and devices that none of them names."""
    sources = {each["name"]: each for each in incident["sources"] or () if each["name"]}
    devices = {each["name"]: each for each in incident["devices"] or () if each["name"]}
    kinds = {each["kind"] for each in sources.values()}
    kind = kinds.pop() if len(kinds) == 1 else None  # of sources beyond those that are listed
    found, named = [], set()
    for flow in common.flows_of(incident):
        name = flow["source"]
        source = sources.get(name, {"kind": kind, "name": name}) if name else None
        found.append({**_ends(source, devices.get(flow["device"]), context, incident), "data": {"flow": flow}})
        named.add(name)
    only = next(iter(devices.values())) if len(devices) == 1 else None
    return [*found, *(_ends(each, only, context, incident) for name, each in sources.items() if name not in named)]


def _ends(source: Entity | None, device: Entity | None, context: Context, incident: Incident) -> Record:
    """Return source and device as attributes of an evidence."""
    ends: Record = {}
    if source is not None:
        ends["src_endpoint"] = _endpoint(source, context)
    if device is not None and device["kind"] == common.DEVICE_COLUMN:
        addresses = {"ip": common.address_of(device, context), "mac": common.mac_of(device, context)}
        known = common.known(incident, device)
        kind = known.get("type")
        typed = {"type_id": _OTHER, "type": kind} if kind else {"type_id": 0, "type": "Unknown"}
        ends["device"] = {"uid": device["name"], "name": known.get("device"), **addresses, **typed}
        ends["device"] |= {"owner": {"name": known.get("owner")}}
    elif device is not None and device["kind"] in common.ENDPOINT_COLUMNS:
        ends[{"source": "src_endpoint", "destination": "dst_endpoint"}[common.ENDPOINT_COLUMNS[device["kind"]]]] = (
            _endpoint(device, context)
        )
    return ends


def _endpoint(entity: Entity, context: Context) -> Record:
    address = common.address_of(entity, context)
    return {"ip": address} if address else {"uid": entity["name"], "mac": common.mac_of(entity, context)}


def _resource(device: Entity, known: Record, attacks: bool, context: Context) -> Record:
    """Return a device as a resource, with what the inventory says of it; departments are groups."""
    kind = known.get("type") or ("device" if device["kind"] == common.DEVICE_COLUMN else device["kind"])
    criticality, labels = known.get("criticality"), []
    if known.get("patient_connected") is not None:
        labels = [f"patient_connected:{str(known['patient_connected']).lower()}"]
    if known.get("maintenance"):
        labels.append(f"maintenance:{known['maintenance']}")
    of_inventory = {
        "name": known.get("device"),
        "owner": {"name": known.get("owner")},
        "group": {"name": known.get("department")},
        "criticality": None if criticality is None else str(criticality),
        "labels": labels,
    }
    role = {"role_id": 2, "role": "Actor"} if attacks else {"role_id": 1, "role": "Target"}
    return {"uid": device["name"], "ip": common.address_of(device, context), "type": kind, **of_inventory, **role}


def _observables(incident: Incident, context: Context) -> list[Record]:
    places = (("sources", "evidences.src_endpoint"), ("devices", "resources"))
    found: list[Record] = []
    kind: Record
    for column, place in places:
        for each in incident[column] or ():
            address = common.address_of(each, context)
            attribute, kind = "ip", {"type_id": 2, "type": "IP Address"}
            if not address and column == "devices":
                attribute, kind = "uid", {"type_id": 10, "type": "Resource UID"}
            elif not address and common.mac_of(each, context):
                attribute, kind = "mac", {"type_id": 3, "type": "MAC Address"}
            elif not address:
                attribute, kind = "uid", {"type_id": _OTHER, "type": each["kind"] or "source"}
            if each["name"]:
                found.append({"name": f"{place}.{attribute}", **kind, "value": each["name"]})
    return found
