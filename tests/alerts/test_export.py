"""Exports of incidents: OCSF events and ECS documents against the published names, expected values computed by hand."""

import copy
import datetime as dt
import io
import itertools
import json
import math
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest

from ids_spark import __version__
from ids_spark.alerts.export import common, ecs, ocsf
from ids_spark.alerts.export.common import Context
from ids_spark.base import packaging
from ids_spark.dataset.tables import OLD_INCIDENTS
from ids_spark.dataset.taxonomy import CLASS2, CLASS6, CLASS19
from tests.support.published_schemas import ecs_faults, ocsf_faults

NIGHT = dt.date(2026, 1, 5)
SEEN = dt.datetime(2026, 1, 5, 3, 1, 2, 3_999, tzinfo=dt.UTC)  # 1,767,582,062,003 ms since 1970, rounded down
CREATED = dt.datetime(2026, 1, 6, 2, tzinfo=dt.UTC)
ROW: dict[str, Any] = {
    "incident_id": "7f3a",
    "rank": 3,
    "severity": "high",
    "class_name": "DDoS-ICMP",
    "category": "DDoS",
    "entity_kind": "src_ip",
    "entity": "10.20.0.7",
    "window_start": dt.datetime(2026, 1, 5, 3, tzinfo=dt.UTC),
    "first_seen": SEEN,
    "last_seen": SEEN + dt.timedelta(minutes=5),
    "flows": 12,
    "max_attack_probability": 0.9,
    "max_attack_logit": 2.1972246,
    "top_attributions": [
        {"feature": "Rate", "value": math.inf, "contribution": 2.3},
        {"feature": "IAT", "value": 0.1, "contribution": -0.5},
    ],
    "model": "gru_dnn-19-paper",
    "model_version": "20260101T000000Z-ab",
    "threshold_logit": 1.5,
    "schema_version": 1,
    "run_id": "run-1",
    "created_at": CREATED,
    "data_origin": "synthetic",
}
ENTITIES = [
    *[("src_ip", each) for each in ("10.20.0.7", "fe80::1%eth0", "gateway", None)],
    *[("source_ip", "2001:db8::5"), ("dst_ip", "10.20.0.9"), ("ward", "B3"), ("source_file", "part-0.parquet")],
    *[("device_id", each) for each in ("Infusionspumpe-Süd 7", None, "10.20.0.11")],
]
PLAIN = Context(NIGHT)
PSEUDONYMISED = Context(NIGHT, frozenset({"src_ip", "source_ip", "dst_ip", "device_id", "ward"}))


def incident(**changes: Any) -> dict[str, Any]:
    """One row as read from the table: 32-bit columns are 32-bit numbers."""
    row: dict[str, Any] = pa.Table.from_pylist([copy.deepcopy(ROW) | changes], schema=OLD_INCIDENTS).to_pylist()[0]
    return row


def varied() -> pa.Table:
    """Every class of every level with every severity, entity, kind of null and number that is not finite."""
    classes = dict.fromkeys((*CLASS19, *CLASS6, *CLASS2))
    severities = itertools.cycle([*common.SEVERITIES, "unheard-of", None])
    gaps: Iterator[dict[str, Any]] = itertools.cycle(
        [
            {},
            {"window_start": None, "first_seen": None, "last_seen": None},
            {"created_at": None},
            {"created_at": None, "first_seen": None, "last_seen": None, "window_start": None},
            {"top_attributions": None, "max_attack_probability": None},
            {"top_attributions": [], "max_attack_logit": math.inf, "threshold_logit": math.nan},
            {
                "top_attributions": [{"feature": None, "value": math.nan, "contribution": None}],
                "data_origin": "measured",
            },
        ]
    )
    changes = [
        {"class_name": name, "entity_kind": kind, "entity": entity, "severity": next(severities), **next(gaps)}
        for name in classes
        for kind, entity in ENTITIES
    ]
    rows = [ROW | {"incident_id": f"{i:04}", "rank": i + 1} | each for i, each in enumerate(changes)]
    return pa.Table.from_pylist(rows, schema=OLD_INCIDENTS)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a JSON record with its path; without array indices."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}".removeprefix("."))
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item, path)
    else:
        yield path, value


@pytest.mark.parametrize("context", [PLAIN, PSEUDONYMISED], ids=["open", "pseudonymised"])
def test_every_export_of_a_varied_night_meets_the_published_schemas(context: Context) -> None:
    rows = varied().to_pylist()
    assert len(rows) > 250
    for row in rows:
        assert ocsf_faults(ocsf.event(row, context)) == []
        assert ecs_faults(ecs.document(row, context)) == []


@pytest.mark.parametrize("form", [ocsf.event, ecs.document])
def test_no_null_and_no_empty_value_is_written_and_the_origin_is_always_visible(form: Callable[..., Any]) -> None:
    for row in varied().to_pylist():
        record = form(row, PLAIN)
        assert not [path for path, value in leaves(record) if value is None or value == ""]
        text = json.dumps(record)
        assert f"data_origin:{row['data_origin']}" in text
        assert ("[synthetic data]" in text) == (row["data_origin"] == "synthetic")


def test_an_ocsf_event_has_the_values_of_the_incident() -> None:
    event = ocsf.event(incident(), PLAIN)
    start, end, created = 1_767_582_062_003, 1_767_582_362_003, 1_767_664_800_000
    assert (event["class_uid"], event["category_uid"], event["activity_id"], event["type_uid"]) == (2004, 2, 1, 200401)
    assert (event["time"], event["start_time"], event["end_time"]) == (created, start, end)
    assert (event["severity_id"], event["severity"], event["status_id"], event["is_alert"]) == (4, "High", 1, True)
    assert (event["count"], event["confidence_score"]) == (12, 90)
    assert event["metadata"]["version"] == "1.6.0"
    assert event["metadata"]["product"] == {"name": "ids_spark", "vendor_name": "ids_spark", "version": __version__}
    finding = event["finding_info"]
    assert finding["uid"] == "7f3a"
    assert finding["title"] == "[synthetic data] DDoS-ICMP, src_ip 10.20.0.7"
    assert finding["desc"] == "12 flows of 2026-01-05 predicted as DDoS-ICMP, attack probability up to 0.9"
    assert finding["types"] == ["DDoS", "DDoS-ICMP"]
    assert [finding[f"{name}_time"] for name in ("created", "first_seen", "last_seen")] == [created, start, end]
    assert (finding["analytic"]["name"], finding["analytic"]["type_id"]) == ("gru_dnn-19-paper", 4)
    (attack,) = finding["attacks"]
    address = "https://attack.mitre.org/versions/v18/techniques/T1498/"
    assert attack["tactic"] == {"uid": "TA0040", "name": "Impact"}
    assert attack["technique"] == {"uid": "T1498", "name": "Network Denial of Service", "src_url": address}
    assert attack["sub_technique"]["src_url"] == f"{address}001/"
    (evidence,) = event["evidences"]
    assert evidence["src_endpoint"] == {"ip": "10.20.0.7"}
    assert evidence["data"]["attributions"] == [
        {"feature": "Rate", "value_text": "inf", "contribution": 2.3},
        {"feature": "IAT", "value": 0.1, "contribution": -0.5},
    ]
    assert event["observables"] == [
        {"name": "evidences.src_endpoint.ip", "type_id": 2, "type": "IP Address", "value": "10.20.0.7"}
    ]
    scores = {"max_attack_probability": 0.9, "max_attack_logit": 2.1972246, "threshold_logit": 1.5}
    same = {name: ROW[name] for name in ("rank", "class_name", "category", "entity_kind", "entity", "schema_version")}
    assert event["unmapped"] == same | scores | {
        "data_origin": "synthetic",
        "event_date": "2026-01-05",
        "window_start": "2026-01-05T03:00:00.000Z",
        "pseudonymised": "false",
    }


def test_an_ecs_document_has_the_values_of_the_incident() -> None:
    document = ecs.document(incident(), PLAIN)
    assert document["@timestamp"] == "2026-01-06T02:00:00.000Z"
    assert document["ecs"] == {"version": "8.17.0"}
    assert document["event"] == {
        "kind": "alert",
        "category": ["intrusion_detection", "network"],
        "type": ["info"],
        "module": "ids_spark",
        "dataset": "ids_spark.alerts",
        "id": "7f3a",
        "severity": 4,
        "risk_score": 2.1972246,
        "start": "2026-01-05T03:01:02.003Z",
        "end": "2026-01-05T03:06:02.003Z",
        "reason": "Rate = inf (2.3 log-odds); IAT = 0.1 (-0.5 log-odds)",
    }
    assert document["rule"]["name"] == "DDoS-ICMP"
    assert document["threat"]["tactic"] == {"id": ["TA0040"], "name": ["Impact"]}
    assert document["threat"]["technique"]["subtechnique"] == {"id": ["T1498.001"], "name": ["Direct Network Flood"]}
    assert document["source"] == {"address": "10.20.0.7", "ip": "10.20.0.7"}
    assert document["related"] == {"ip": ["10.20.0.7"]}
    assert document["labels"]["flows"] == "12"
    assert document["labels"]["max_attack_probability"] == "0.9"
    assert document["tags"] == ["data_origin:synthetic"]


@pytest.mark.parametrize(
    ("kind", "entity", "place", "value"),
    [
        ("src_ip", "fe80::1", "src_endpoint", {"ip": "fe80::1"}),
        ("src_ip", "gateway", "src_endpoint", {"uid": "gateway"}),
        ("dst_ip", "10.0.0.1", "dst_endpoint", {"ip": "10.0.0.1"}),
        ("device_id", "pump", "device", {"uid": "pump", "type_id": 0, "type": "Unknown"}),
        ("device_id", "10.0.0.2", "device", {"uid": "10.0.0.2", "ip": "10.0.0.2", "type_id": 0, "type": "Unknown"}),
    ],
)
def test_an_entity_is_in_the_field_that_ocsf_defines_for_it(
    kind: str, entity: str, place: str, value: dict[str, Any]
) -> None:
    event = ocsf.event(incident(entity_kind=kind, entity=entity), PLAIN)
    assert event["evidences"][0][place] == value
    assert event["observables"][0]["value"] == entity
    assert ("resources" in event) == (place == "device")


def test_an_entity_is_in_the_field_that_ecs_defines_for_it() -> None:
    found = {kind: ecs.document(incident(entity_kind=kind, entity=entity), PLAIN) for kind, entity in ENTITIES}
    assert found["source_ip"]["source"]["ip"] == "2001:db8::5"
    assert found["dst_ip"]["destination"] == {"address": "10.20.0.9", "ip": "10.20.0.9"}
    assert found["device_id"]["host"] == {"id": "10.20.0.11", "ip": ["10.20.0.11"]}
    assert found["device_id"]["related"] == {"ip": ["10.20.0.11"], "hosts": ["10.20.0.11"]}
    assert found["source_file"]["log"] == {"file": {"path": "part-0.parquet"}}
    assert found["ward"]["labels"]["entity"] == "B3"


@pytest.mark.parametrize("kind", ["src_ip", "dst_ip", "device_id"])
def test_a_pseudonym_is_never_written_as_an_address(kind: str) -> None:
    row = incident(entity_kind=kind, entity="10.20.0.7")  # even if it looks like one
    for record in (ocsf.event(row, PSEUDONYMISED), ecs.document(row, PSEUDONYMISED)):
        holders = [path for path, value in leaves(record) if value == "10.20.0.7"]
        assert holders
        assert not [path for path in holders if path.rpartition(".")[2] in ("ip", "address")]
    event = ocsf.event(row, PSEUDONYMISED)
    assert event["unmapped"]["pseudonymised"] == "true"
    assert event["observables"][0]["type_id"] == (47 if kind == "device_id" else 99)


@pytest.mark.parametrize(
    ("severity", "uid"),
    [("informational", 1), ("low", 2), ("medium", 3), ("high", 4), ("critical", 5), ("Unheard-of", 99), (None, 0)],
)
def test_severities(severity: str | None, uid: int) -> None:
    event = ocsf.event(incident(severity=severity), PLAIN)
    assert (event["severity_id"], event["severity"]) == (uid, (severity or "unknown").capitalize())
    assert ecs.document(incident(severity=severity), PLAIN)["event"].get("severity") == (uid if 0 < uid < 9 else None)


@pytest.mark.parametrize(
    ("classes", "tactics", "techniques"),
    [
        (["DDoS-ICMP", "DDoS-UDP", "DDoS-TCP", "DoS-ICMP", "DoS-UDP", "DoS-TCP"], ["TA0040"], ["T1498", "T1498.001"]),
        (["DDoS-SYN", "DoS-SYN"], ["TA0040"], ["T1499", "T1499.001"]),
        ([name for name in CLASS19 if name.endswith("_Flood")], ["TA0040"], ["T1499", "T1499.002"]),
        (["Recon-Port_Scan", "Recon-VulScan"], ["TA0007"], ["T1046"]),
        (["Recon-Ping_Sweep"], ["TA0007"], ["T1018"]),
        (["ARP_Spoofing", "Spoofing"], ["TA0006", "TA0009"], ["T1557", "T1557.002"]),
        (["DDoS", "DoS"], ["TA0040"], []),
        (["Benign", "Attack", "Recon", "MQTT", "Recon-OS_Scan", "MQTT-Malformed_Data", None], [], []),
    ],
)
def test_attack_techniques_of_classes(classes: list[str | None], tactics: list[str], techniques: list[str]) -> None:
    for name in classes:
        found = common.attack_of(name)
        assert [list(each) for each in found] == [tactics, techniques]
        assert len(ocsf.event(incident(class_name=name), PLAIN)["finding_info"].get("attacks", [])) == len(tactics)


@pytest.mark.parametrize(
    ("gaps", "time"),
    [
        ({"created_at": None}, 1_767_582_362_003),
        ({"created_at": None, "last_seen": None}, 1_767_571_200_000),  # 2026-01-05 00:00 UTC
        ({"created_at": CREATED.astimezone(dt.timezone(dt.timedelta(hours=5)))}, 1_767_664_800_000),
        ({"created_at": CREATED.replace(tzinfo=None)}, 1_767_664_800_000),
        ({"created_at": dt.datetime(1969, 12, 31, 23, 59, 59, 999_500, tzinfo=dt.UTC)}, -1),
    ],
)
def test_the_time_of_a_finding_is_known_even_where_its_creation_is_not(gaps: dict[str, Any], time: int) -> None:
    assert ocsf.event(ROW | gaps, PLAIN)["time"] == time


@pytest.mark.parametrize("module", [ocsf, ecs])
def test_lines_are_the_same_bytes_for_the_same_incidents(module: Any) -> None:
    table = varied()
    content = module.lines(table, PLAIN)
    assert content == module.lines(list(reversed(table.to_pylist())), PLAIN)
    assert "Infusionspumpe-Süd 7".encode() in content
    assert content.endswith(b"}\n")

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    records = [json.loads(line, parse_constant=refuse) for line in content.decode("utf-8").split("\n")[:-1]]
    assert len(records) == len(table)
    ids = [record.get("finding_info", {}).get("uid") or record["event"]["id"] for record in records]
    assert ids == [f"{i:04}" for i in range(len(table))]  # by rank
    assert module.lines(OLD_INCIDENTS.empty_table(), PLAIN) == b""


def broken(record: Any, path: str, value: Any) -> Any:
    """The record with the value at a dotted path replaced; `...` removes it."""
    changed = copy.deepcopy(record)
    *above, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place = changed
    for step in above:
        place = place[step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value", "faults"),
    [
        ("finding_info.uid", ..., ["finding_info.uid: required attribute is missing"]),
        ("metadata.product", ..., ["metadata.product: required attribute is missing"]),
        ("time", ..., ["time: required attribute is missing"]),
        ("time", 1.5, ["time: 1.5 is not of type timestamp_t"]),
        ("time", "2026-01-05", ["time: '2026-01-05' is not of type timestamp_t"]),
        ("count", True, ["count: True is not of type integer_t"]),
        ("count", 2**63, [f"count: {2**63} is not of type integer_t"]),
        ("is_alert", 1, ["is_alert: 1 is not of type boolean_t"]),
        ("message", None, ["message: None is not of type string_t"]),
        ("src_ip", "10.0.0.1", ["src_ip: unknown attribute"]),
        ("attacks", [], ["attacks: unknown attribute"]),  # of the profile security_control
        ("severity_id", 7, ["severity_id: 7 is not an allowed value"]),
        ("severity", "Low", ["severity: found 'Low', but severity_id 4 is 'High'"]),
        ("activity_id", 2, ["activity_name: found 'Create', but activity_id 2 is 'Update'", "type_uid: found 200401"]),
        ("type_uid", 200402, ["type_name: found", "type_uid: found 200402, expected"]),
        ("class_uid", 2001, ["class_uid: 2001 is not an allowed value", "type_uid: found 200401"]),
        ("metadata.version", "1.1.0", ["metadata.version: found '1.1.0', but the names are those of 1.6.0"]),
        ("metadata.labels", "synthetic", ["metadata.labels: found 'synthetic', expected an array"]),
        ("finding_info.title", ["a"], ["finding_info.title: found ['a'], expected one value"]),
        ("finding_info.types.1", 4, ["finding_info.types[1]: 4 is not of type string_t"]),
        ("finding_info.attacks.0.tactics", [], ["finding_info.attacks[0].tactics: deprecated since"]),
        ("finding_info.analytic.type_id", ..., ["finding_info.analytic.type_id: required attribute is missing"]),
        ("finding_info.analytic", {"type_id": 4}, ["finding_info.analytic: at_least_one of name, uid; found 0"]),
        ("finding_info.analytic", "gru", ["finding_info.analytic: 'gru' is not an object analytic"]),
        ("evidences.0.src_endpoint.ip", "10.0.0.300", ["evidences[0].src_endpoint.ip: '10.0.0.300' is not of type"]),
        ("evidences.0.src_endpoint.port", 70_000, ["evidences[0].src_endpoint.port: 70000 is not of type port_t"]),
        ("evidences.0.src_endpoint.mac", "1-2", ["evidences[0].src_endpoint.mac: '1-2' is not of type mac_t"]),
        ("evidences.0.data", math.nan, ["evidences[0].data: nan is not of type json_t"]),
        ("evidences.0.file", {"name": "x"}, ["evidences[0].file: object file cannot be checked"]),
        ("evidences.0.device", {"uid": "x"}, ["evidences[0].device.type_id: required attribute is missing"]),
        ("observables.0.type_id", "2", ["observables[0].type_id: '2' is not of type integer_t"]),
        ("unmapped", {"x": math.inf}, ["unmapped: {'x': inf} is not of type object:object"]),
        ("unmapped", "x", ["unmapped: 'x' is not of type object:object"]),
    ],
)
def test_a_broken_ocsf_event_is_found(path: str, value: Any, faults: list[str]) -> None:
    found = ocsf_faults(broken(ocsf.event(incident(), PLAIN), path, value))
    assert len(found) == len(faults)
    assert all(text.startswith(fault) for text, fault in zip(found, faults, strict=True))


@pytest.mark.parametrize(
    ("path", "value", "faults"),
    [
        ("@timestamp", ..., ["@timestamp: required attribute is missing"]),
        ("@timestamp", "5 January", ["@timestamp: '5 January' is not of type date"]),
        ("ecs", ..., ["ecs: required attribute is missing"]),
        ("ecs.version", "1.0.0", ["ecs.version: found '1.0.0', but the names are those of 8.17.0"]),
        ("event.kind", "alarm", ["event.kind: 'alarm' is not an allowed value"]),
        ("event.category", "network", ["event.category: found 'network', expected an array"]),
        ("event.category", ["netflow"], ["event.category[0]: 'netflow' is not an allowed value"]),
        ("event.type", ["start"], ["event.type: 'start' is not expected for category 'intrusion_detection'"]),
        ("event.severity", "4", ["event.severity: '4' is not of type long"]),
        ("event.risk_score", math.nan, ["event.risk_score: nan is not of type float"]),
        ("event.score", 1, ["event.score: unknown attribute"]),
        ("source.ip", "gateway", ["source.ip: 'gateway' is not of type ip"]),
        ("source", "10.0.0.1", ["source: '10.0.0.1' is not an object source"]),
        ("labels.rank", 3, ["labels: {"]),
        ("threat.technique.subtechnique.id", "T1", ["threat.technique.subtechnique.id: found 'T1', expected an array"]),
        ("threat.technique.score", 1, ["threat.technique.score: unknown attribute"]),
        ("observer.type", ["ids"], ["observer.type: found ['ids'], expected one value"]),
        ("incident", {}, ["incident: unknown attribute"]),
    ],
)
def test_a_broken_ecs_document_is_found(path: str, value: Any, faults: list[str]) -> None:
    found = ecs_faults(broken(ecs.document(incident(), PLAIN), path, value))
    assert len(found) == len(faults)
    assert all(text.startswith(fault) for text, fault in zip(found, faults, strict=True))


def test_missing_required_attributes_are_found() -> None:
    required = {
        "activity_id",
        "category_uid",
        "class_uid",
        "finding_info",
        "metadata",
        "severity_id",
        "time",
        "type_uid",
    }
    assert {text.split(":")[0] for text in ocsf_faults({}) if "required" in text} == required
    assert sorted(ecs_faults({})) == [
        "@timestamp: required attribute is missing",
        "ecs: required attribute is missing",
    ]


def test_the_published_names_state_their_source_and_are_in_the_package_archive() -> None:
    source = common.names()["source"]
    assert "ocsf/ocsf-schema branch v1.6.0, commit d0cd8a0f" in source["ocsf"]
    assert "elastic/ecs tag v8.17.0, commit e3103a21" in source["ecs"]
    assert "ATT&CK Enterprise 18.1" in source["attack"]
    assert set(common.names()["attack"]["classes"]) <= {*CLASS19, *CLASS6, *CLASS2}
    with zipfile.ZipFile(io.BytesIO(packaging.archive())) as zipped:
        assert json.loads(zipped.read("ids_spark/alerts/export/names.json")) == common.names()
