"""An incident as an event of the Open Cybersecurity Schema Framework (OCSF), and exports against published names.

The event is of class Detection Finding (2004), activity Create. Attribute names, types, requirements and enum values
lie beside this module in `names.json`, taken from the published schemas as its entry `source` says, without
attributes that a profile brings. What OCSF has no attribute for stands below `unmapped`.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from ids_spark.alerts.export import ecs
from ids_spark.alerts.export.ecs import Context, Incident, Record

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
_OTHER: Final = 99  # of every enum: the value that the sibling attribute names
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_MAC: Final = re.compile(r"([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}")
_MOST: Final = 2**63


def event(incident: Incident, context: Context) -> Record:
    """Return one incident as an OCSF event; nulls and numbers that are not finite are left out.

    Times are milliseconds since 1970 in UTC, rounded down. `confidence_score` is the highest attack probability in per
    cent. An infinite feature value of a reason stands as text in `value_text`.

    Args:
        incident: A row of `tables.INCIDENTS`; a time without a zone is in UTC.
        context: See `Context`.
    """
    title, description = ecs.words(incident, context)
    created = ecs.milliseconds(ecs.created_at(incident, context))
    first, last = ecs.milliseconds(incident["first_seen"]), ecs.milliseconds(incident["last_seen"])
    probability = ecs.number(incident["max_attack_probability"])
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
            "version": ecs.names()["ocsf"]["version"],
            "product": {"name": ecs.PRODUCT, "vendor_name": ecs.PRODUCT, "version": context.version},
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
        "unmapped": ecs.details(incident, context),
    }
    found: Record = ecs.known(record)
    return found


def lines(incidents: pa.Table | Sequence[Incident], context: Context) -> bytes:
    """Return incidents as JSON lines of OCSF events; see `ecs.json_lines`."""
    return ecs.json_lines(incidents, context, event)


def validate(event: Mapping[str, Any]) -> list[str]:
    """Return what in an event contradicts the published schema of Detection Finding; empty: nothing.

    Found, at every depth: unknown attributes (also those that a profile would bring), missing required and deprecated
    ones, wrong types, values outside an enum, names that do not go with their id, broken `at_least_one` and `just_one`
    rules, objects that `names.json` does not describe, another schema version, a wrong `type_uid`.
    """
    facts = ecs.names()["ocsf"]
    faults = list(_item_faults(event, "", facts["event"], facts["objects"]))
    class_uid, activity, found = (event.get(name) for name in ("class_uid", "activity_id", "type_uid"))
    if isinstance(class_uid, int) and isinstance(activity, int) and found != class_uid * 100 + activity:
        faults.append(
            f"type_uid: found {found!r}, expected class_uid * 100 + activity_id = {class_uid * 100 + activity}"
        )
    return faults + _version_faults(event, "metadata", facts["version"])


def validate_ecs(document: Mapping[str, Any]) -> list[str]:
    """Return what in a nested document contradicts the published fields of ECS; empty: nothing.

    Found: unknown fields (also those of a field set that `names.json` leaves out), missing required ones, wrong
    types, arrays for single values and the reverse, values that a field does not allow, event types that do not go with
    the category, another version of ECS.
    """
    facts = ecs.names()["ecs"]
    faults = list(_item_faults(document, "", facts["event"], facts["objects"]))
    for category in _texts(document.get("event"), "category"):
        expected = facts["expected_types"].get(category)
        strangers = [kind for kind in _texts(document.get("event"), "type") if expected and kind not in expected]
        faults += [f"event.type: {kind!r} is not expected for category {category!r}" for kind in strangers]
    return faults + _version_faults(document, "ecs", facts["version"])


def _texts(entry: Any, name: str) -> list[str]:
    value = entry.get(name) if isinstance(entry, Mapping) else None
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _version_faults(record: Mapping[str, Any], place: str, version: str) -> list[str]:
    entry = record.get(place)
    found = entry.get("version", version) if isinstance(entry, Mapping) else version
    return [] if found == version else [f"{place}.version: found {found!r}, but the names are those of {version}"]


def _item_faults(
    item: Mapping[str, Any], path: str, facts: Mapping[str, Any], objects: Mapping[str, Any]
) -> Iterator[str]:
    rules = facts["attributes"]
    yield from (f"{path}{name}: unknown attribute" for name in item if name not in rules)
    for name, rule in rules.items():
        if name not in item:
            if rule.get("requirement") == "required":
                yield f"{path}{name}: required attribute is missing"
            continue
        value = item[name]
        if "deprecated" in rule:
            yield f"{path}{name}: deprecated since {rule['deprecated']}"
        if isinstance(value, list) != ("array" in rule):
            yield f"{path}{name}: found {value!r}, expected {'an array' if 'array' in rule else 'one value'}"
        elif "array" in rule:
            for index, each in enumerate(value):
                yield from _value_faults(each, f"{path}{name}[{index}]", rule, objects)
        else:
            yield from _value_faults(value, path + name, rule, objects)
            caption = rule["enum"].get(str(value)) if "sibling" in rule else None
            if caption and value != _OTHER and item.get(rule["sibling"], caption) != caption:
                yield f"{path}{rule['sibling']}: found {item[rule['sibling']]!r}, but {name} {value} is {caption!r}"
    for constraint, members in facts.get("constraints", {}).items():
        present = sum(name in item for name in members)
        if present == 0 or (constraint == "just_one" and present > 1):
            yield f"{path.rstrip('.') or 'event'}: {constraint} of {', '.join(members)}; found {present}"


def _value_faults(value: Any, path: str, rule: Mapping[str, Any], objects: Mapping[str, Any]) -> Iterator[str]:
    kind: str = rule["type"]
    name = kind.removeprefix("object:")
    if name == kind or name == "object":
        check = _CHECKS.get(kind)
        if not (isinstance(value, str) if check is None else check(value)):
            yield f"{path}: {value!r} is not of type {kind}"
        elif "enum" in rule and str(value) not in rule["enum"]:
            yield f"{path}: {value!r} is not an allowed value"
    elif not isinstance(value, Mapping):
        yield f"{path}: {value!r} is not an object {name}"
    elif name not in objects:
        yield f"{path}: object {name} cannot be checked, names.json does not describe it"
    else:
        yield from _item_faults(value, f"{path}.", objects[name], objects)


def _is_whole(value: Any) -> bool:
    return type(value) is int and -_MOST <= value < _MOST


def _is_json(value: Any) -> bool:
    try:
        return bool(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return False


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (type(value) is float and math.isfinite(value))


_CHECKS: Final[Mapping[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(("integer_t", "long_t", "timestamp_t", "long"), _is_whole),
    **dict.fromkeys(("float_t", "float", "scaled_float"), _is_number),
    **dict.fromkeys(("json_t", "flattened", "geo_point"), _is_json),
    **dict.fromkeys(("ip_t", "ip"), ecs.is_address),
    **dict.fromkeys(("boolean_t", "boolean"), lambda value: type(value) is bool),
    "port_t": lambda value: _is_whole(value) and 0 <= value < 65_536,
    "mac_t": lambda value: type(value) is str and _MAC.fullmatch(value) is not None,
    "date": lambda value: type(value) is str and _DATE.fullmatch(value) is not None,
    "object": lambda value: type(value) is dict and all(type(each) is str for each in value.values()),
    "object:object": lambda value: type(value) is dict and _is_json(value),
}
"""By published type; every other type is text."""


def _severity(severity: str | None) -> Record:
    uid = 0 if severity is None else ecs.SEVERITIES.get(severity, _OTHER)
    captions = ecs.names()["ocsf"]["event"]["attributes"]["severity_id"]["enum"]
    return {"severity_id": uid, "severity": severity if uid == _OTHER else captions[str(uid)]}


def _attacks(class_name: str | None) -> list[Record]:
    tactics, techniques = ecs.attack_of(class_name)
    version: str = ecs.names()["attack"]["version"]
    address = f"https://attack.mitre.org/versions/v{version.split('.')[0]}/techniques/"
    below = {
        level: {"uid": uid, "name": name, "src_url": f"{address}{uid.replace('.', '/')}/"}
        for level, (uid, name) in zip(("technique", "sub_technique"), techniques.items(), strict=False)
    }
    return [{"tactic": {"uid": uid, "name": name}, **below, "version": version} for uid, name in tactics.items()]


def _entity(incident: Incident, context: Context) -> Record:
    kind, entity, address = incident["entity_kind"], incident["entity"], ecs.address_of(incident, context)
    evidence: Record = {"data": {"attributions": ecs.attributions(incident)}}
    if entity is not None and kind == ecs.DEVICE_COLUMN:
        evidence["device"] = {"uid": entity, "ip": address, "type_id": 0, "type": "Unknown"}
        seen = {"name": "evidences.device.uid", "type_id": 47, "type": "Device Object: uid", "value": entity}
        resource = {"uid": entity, "type": "device", "role_id": 4, "role": "Related"}
        return {"evidences": [evidence], "observables": [seen], "resources": [resource]}
    if entity is not None and kind in ecs.ENDPOINT_COLUMNS:
        end = {"source": "src_endpoint", "destination": "dst_endpoint"}[ecs.ENDPOINT_COLUMNS[kind]]
        evidence[end] = {"ip": address} if address else {"uid": entity}
        seen = {"type_id": 2, "type": "IP Address"} if address else {"type_id": _OTHER, "type": kind}
        name = f"evidences.{end}.{'ip' if address else 'uid'}"
        return {"evidences": [evidence], "observables": [{"name": name, **seen, "value": entity}]}
    evidence["data"]["entity"] = entity
    return {"evidences": [evidence]}
