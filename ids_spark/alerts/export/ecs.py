"""An incident as a document of the Elastic Common Schema (ECS). Facts without an ECS field become text in `labels`."""

from collections.abc import Sequence

import pyarrow as pa

from ids_spark.alerts.export import common
from ids_spark.alerts.export.common import Context, Incident, Record


def document(incident: Incident, context: Context) -> Record:
    """Return one incident as an ECS document of kind `alert`; nulls and numbers that are not finite are dropped.

    `event.severity` is 1 (informational) to 5 (critical), as in OCSF; `event.risk_score` the highest attack logit.
    `@timestamp` is when the incident was created, `event.start` and `event.end` when its flows were seen.

    Args:
        incident: A row of `tables.OLD_INCIDENTS`; a time without a zone is in UTC.
        context: See `Context`.
    """
    title, description = common.title_and_description(incident, context)
    tactics, techniques = common.attack_of(incident["class_name"])
    without_field = common.details(incident, context) | {
        name: incident[name] for name in ("severity", "flows", "run_id")
    }
    record = {
        "@timestamp": common.iso(common.created_at(incident, context)),
        "ecs": {"version": common.names()["ecs"]["version"]},
        "message": f"{title}: {description}",
        "tags": [f"data_origin:{incident['data_origin']}"],
        "labels": {name: str(value) for name, value in common.drop_empty(without_field).items()},
        "event": {
            "kind": "alert",
            "category": ["intrusion_detection", "network"],
            "type": ["info"],
            "module": common.PRODUCT,
            "dataset": f"{common.PRODUCT}.alerts",
            "id": incident["incident_id"],
            "severity": common.SEVERITIES.get(incident["severity"]),
            "risk_score": common.number(incident["max_attack_logit"]),
            "start": common.iso(incident["first_seen"]),
            "end": common.iso(incident["last_seen"]),
            "reason": "; ".join(
                f"{each['feature']} = {each['value_text'] or each['value']} ({each['contribution']} log-odds)"
                for each in common.attributions(incident)
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
        "observer": {"type": "ids", "vendor": common.PRODUCT, "product": common.PRODUCT, "version": context.version},
        **_entity(incident, context),
    }
    found: Record = common.drop_empty(record)
    return found


def lines(incidents: pa.Table | Sequence[Incident], context: Context) -> bytes:
    """Return incidents as JSON lines of ECS documents; see `json_lines`."""
    return common.json_lines(incidents, context, document)


def _entity(incident: Incident, context: Context) -> Record:
    kind, entity, address = incident["entity_kind"], incident["entity"], common.address_of(incident, context)
    if kind == common.DEVICE_COLUMN:
        return {"host": {"id": entity, "ip": [address]}, "related": {"ip": [address], "hosts": [entity]}}
    if kind in common.ENDPOINT_COLUMNS:
        return {common.ENDPOINT_COLUMNS[kind]: {"address": address, "ip": address}, "related": {"ip": [address]}}
    return {"log": {"file": {"path": entity if kind == "source_file" else None}}}
