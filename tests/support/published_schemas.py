"""Checks exported incidents against the names, types and values that OCSF and ECS publish (`names.json`)."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from ids_spark.alerts.export import common

_OTHER: Final = 99  # in every enum of OCSF: none of the listed values; the sibling attribute holds the text
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_MAC: Final = re.compile(r"([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}")
_INT64: Final = 2**63


def ocsf_faults(event: Mapping[str, Any]) -> list[str]:
    """Return how an event violates the published schema of Detection Finding; empty if it does not.

    Found at every depth: unknown attributes (also those that a profile would bring), missing required and deprecated
    ones, wrong types, values outside an enum, names that do not belong to their id, broken `at_least_one` and
    `just_one` rules, objects that `names.json` does not describe, another schema version, a wrong `type_uid`.
    """
    facts = common.names()["ocsf"]
    faults = list(_item_faults(event, "", facts["event"], facts["objects"]))
    class_uid, activity, found = (event.get(name) for name in ("class_uid", "activity_id", "type_uid"))
    if isinstance(class_uid, int) and isinstance(activity, int) and found != class_uid * 100 + activity:
        faults.append(
            f"type_uid: found {found!r}, expected class_uid * 100 + activity_id = {class_uid * 100 + activity}"
        )
    return faults + _version_faults(event, "metadata", facts["version"])


def ecs_faults(document: Mapping[str, Any]) -> list[str]:
    """Return how a nested document violates the published fields of ECS; empty if it does not.

    Found: unknown fields (also those of a field set that `names.json` lacks), missing required ones, wrong
    types, arrays for single values and the reverse, values that a field does not allow, event types that do not
    belong to the category, another version of ECS.
    """
    facts = common.names()["ecs"]
    faults = list(_item_faults(document, "", facts["event"], facts["objects"]))
    for category in _texts(document.get("event"), "category"):
        expected = facts["expected_types"].get(category)
        unexpected = [kind for kind in _texts(document.get("event"), "type") if expected and kind not in expected]
        faults += [f"event.type: {kind!r} is not expected for category {category!r}" for kind in unexpected]
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
    return type(value) is int and -_INT64 <= value < _INT64


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
    **dict.fromkeys(("ip_t", "ip"), common.is_address),
    **dict.fromkeys(("boolean_t", "boolean"), lambda value: type(value) is bool),
    "port_t": lambda value: _is_whole(value) and 0 <= value < 65_536,
    "mac_t": lambda value: type(value) is str and _MAC.fullmatch(value) is not None,
    "date": lambda value: type(value) is str and _DATE.fullmatch(value) is not None,
    "object": lambda value: type(value) is dict and all(type(each) is str for each in value.values()),
    "object:object": lambda value: type(value) is dict and _is_json(value),
}
"""By published type; every other type is text."""
