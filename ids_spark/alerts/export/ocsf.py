"""An incident as an event of the Open Cybersecurity Schema Framework (OCSF): Detection Finding (2004), activity Create.

Facts without an OCSF attribute are in `unmapped`.
"""

from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from ids_spark.alerts.export import common
from ids_spark.alerts.export.common import Context, Incident, Record

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

    Times are milliseconds since 1970 in UTC, rounded down. `confidence_score` is the highest attack probability in per
    cent. An infinite feature value becomes text in `value_text`.

    Args:
        incident: A row of `tables.OLD_INCIDENTS`; a time without a zone is in UTC.
        context: See `Context`.
    """
    title, description = common.title_and_description(incident, context)
    created = common.milliseconds(common.created_at(incident, context))
    first, last = common.milliseconds(incident["first_seen"]), common.milliseconds(incident["last_seen"])
    probability = common.number(incident["max_attack_probability"])
    record = {
        **_CLASSIFICATION,
        "time": created,
        "start_time": first,
        "end_time": last,
        "count": incident["flows"],
        **_severity(incident["severity"]),
        "status_id": 1,
        "status": "New",
        "is_alert": True,
        "confidence_score": None if probability is None else round(100 * probability),
        "message": f"{title}: {description}",
        "metadata": {
            "version": common.names()["ocsf"]["version"],
            "product": {"name": common.PRODUCT, "vendor_name": common.PRODUCT, "version": context.version},
            "log_name": "alerts",
            "correlation_uid": incident["run_id"],
            "labels": [f"data_origin:{incident['data_origin']}"],
        },
        "finding_info": {
            "uid": incident["incident_id"],
            "title": title,
            "desc": description,
            "types": [incident["category"], incident["class_name"]],
            "created_time": created,
            "first_seen_time": first,
            "last_seen_time": last,
            "analytic": {
                "name": incident["model"],
                "version": incident["model_version"],
                "type_id": 4,
                "type": "Learning (ML/DL)",
            },
            "attacks": _attacks(incident["class_name"]),
            "data_sources": [f"flow logs of {context.event_date}"],
            "related_events_count": incident["flows"],
        },
        **_entity(incident, context),
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


def _attacks(class_name: str | None) -> list[Record]:
    tactics, techniques = common.attack_of(class_name)
    version: str = common.names()["attack"]["version"]
    address = f"https://attack.mitre.org/versions/v{version.split('.')[0]}/techniques/"
    below = {
        level: {"uid": uid, "name": name, "src_url": f"{address}{uid.replace('.', '/')}/"}
        for level, (uid, name) in zip(("technique", "sub_technique"), techniques.items(), strict=False)
    }
    return [{"tactic": {"uid": uid, "name": name}, **below, "version": version} for uid, name in tactics.items()]


def _entity(incident: Incident, context: Context) -> Record:
    kind, entity, address = incident["entity_kind"], incident["entity"], common.address_of(incident, context)
    evidence: Record = {"data": {"attributions": common.attributions(incident)}}
    if entity is not None and kind == common.DEVICE_COLUMN:
        evidence["device"] = {"uid": entity, "ip": address, "type_id": 0, "type": "Unknown"}
        seen = {"name": "evidences.device.uid", "type_id": 47, "type": "Device Object: uid", "value": entity}
        resource = {"uid": entity, "type": "device", "role_id": 4, "role": "Related"}
        return {"evidences": [evidence], "observables": [seen], "resources": [resource]}
    if entity is not None and kind in common.ENDPOINT_COLUMNS:
        end = {"source": "src_endpoint", "destination": "dst_endpoint"}[common.ENDPOINT_COLUMNS[kind]]
        evidence[end] = {"ip": address} if address else {"uid": entity}
        seen = {"type_id": 2, "type": "IP Address"} if address else {"type_id": _OTHER, "type": kind}
        name = f"evidences.{end}.{'ip' if address else 'uid'}"
        return {"evidences": [evidence], "observables": [{"name": name, **seen, "value": entity}]}
    evidence["data"]["entity"] = entity
    return {"evidences": [evidence]}
