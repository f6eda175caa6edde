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
from ids_spark.alerts import narrative
from ids_spark.alerts.export import common, ecs, ocsf
from ids_spark.alerts.export.common import Context
from ids_spark.base import packaging
from ids_spark.dataset.tables import INCIDENTS
from ids_spark.dataset.taxonomy import CLASS2, CLASS6, CLASS19
from tests.support import incidents
from tests.support.published_schemas import ecs_faults, ocsf_faults

NIGHT = dt.date(2026, 1, 5)
SEEN = dt.datetime(2026, 1, 5, 3, 1, 2, 3_999, tzinfo=dt.UTC)  # 1,767,582,062,003 ms since 1970, rounded down
CREATED = dt.datetime(2026, 1, 6, 2, tzinfo=dt.UTC)
ATTRIBUTIONS = [
    {"feature": "Rate", "value": math.inf, "contribution": 2.3},
    {"feature": "IAT", "value": 0.1, "contribution": -0.5},
]
ROW: dict[str, Any] = incidents.incident(
    3,
    "high",
    {"DDoS-ICMP": 11, "DDoS-UDP": 1},
    {"10.20.0.7": 12},
    {"pump-1": 8, "pump-2": 4},
    SEEN,
    incident_id="7f3a",
    last_seen=SEEN + dt.timedelta(minutes=5),
    max_attack_probability=0.9,
    max_attack_logit=2.1972246,
    posterior=0.9134,
    score=7.3072,
    previous_id="5b2e",
    life="continuing",
    since=dt.date(2026, 1, 2),
    nights_seen=3,
    top_flows=[
        {
            "source_file": "part-0.parquet",
            "source_row": 17,
            "class_name": "DDoS-ICMP",
            "device": "pump-1",
            "source": "10.20.0.7",
            "window_start": dt.datetime(2026, 1, 5, 3, tzinfo=dt.UTC),
            "attack_logit": 2.1972246,
            "attributions": ATTRIBUTIONS,
        }
    ],
    created_at=CREATED,
    run_id="run-1",
)
SOURCES = [("src_ip", each) for each in ("10.20.0.7", "fe80::1%eth0", "gateway", None)]
SOURCES += [("src_mac", "00:00:5e:00:53:23")]
DEVICES = [
    *[("dst_ip", "10.20.0.9"), ("ward", "B3"), ("source_file", "part-0.parquet"), ("src_ip", "2001:db8::5")],
    *[("device_id", each) for each in ("Infusionspumpe-Süd 7", None, "10.20.0.11")],
]
PLAIN = Context(NIGHT)
PSEUDONYMISED = Context(NIGHT, frozenset({"src_ip", "src_mac", "source_ip", "dst_ip", "device_id", "ward"}))


def incident(**changes: Any) -> dict[str, Any]:
    """One row as read from the table: 32-bit columns are 32-bit numbers."""
    row: dict[str, Any] = pa.Table.from_pylist([copy.deepcopy(ROW) | changes], schema=INCIDENTS).to_pylist()[0]
    return row


def test_what_the_inventory_says_is_exported_where_the_schemas_have_a_field() -> None:
    known = {
        "kind": "device_id",
        "name": "10.20.0.11",
        "device": "Pump 7",
        "type": "infusion pump",
        "department": "Ward 3",
        "patient_connected": True,
        "criticality": 5,
        "owner": "Medical technology",
        "maintenance": "Sun 02:00-04:00",
    }
    row = incident(devices=of("device_id", "10.20.0.11"), inventory=[known], criticality_factor=2.0)
    event, document = ocsf.event(row, PLAIN), ecs.document(row, PLAIN)
    assert (ocsf_faults(event), ecs_faults(document)) == ([], [])
    [resource] = event["resources"]
    found = {name: resource[name] for name in ("uid", "name", "type", "criticality")}
    assert found == {"uid": "10.20.0.11", "name": "Pump 7", "type": "infusion pump", "criticality": "5"}
    assert (resource["owner"], resource["group"]) == ({"name": "Medical technology"}, {"name": "Ward 3"})
    assert resource["labels"] == ["patient_connected:true", "maintenance:Sun 02:00-04:00"]
    assert event["unmapped"]["criticality_factor"] == 2.0
    assert (document["host"]["name"], document["host"]["type"]) == ("Pump 7", "infusion pump")
    assert document["labels"]["device_department"] == "10.20.0.11: Ward 3"


def of(kind: str, name: str | None) -> list[dict[str, Any]]:
    """Sources or devices of one entity."""
    return [{"kind": kind, "name": name, "flows": 12}]


def varied() -> pa.Table:
    """Every class of every level with every severity, entity, kind of null and number that is not finite."""
    classes = dict.fromkeys((*CLASS19, *CLASS6, *CLASS2, "Unknown", "Quarantined"))
    severities = itertools.cycle([*common.SEVERITIES, "unheard-of", None])
    flow = {"source_file": None, "source_row": None, "class_name": None, "device": "x", "source": "10.0.0.1"}
    gaps: Iterator[dict[str, Any]] = itertools.cycle(
        [
            {},
            {"lead_window": None, "first_seen": None, "last_seen": None},
            {"created_at": None},
            {"created_at": None, "first_seen": None, "last_seen": None, "lead_window": None},
            {"top_flows": None, "max_attack_probability": None, "sources": None, "sources_found": None},
            {"top_flows": [], "max_attack_logit": math.inf, "threshold_logit": math.nan, "posterior": math.nan},
            {"top_flows": [flow | {"attributions": [{"feature": None, "value": math.nan, "contribution": None}]}],
             "data_origin": "measured", "posterior": None, "score": math.inf},
            {"verdict": "true", "verdict_owner": "j.doe", "verdict_reason": "seen", "since": None, "previous_id": None},
        ]
    )  # fmt: skip
    changes = [
        {
            "category": name.split("-")[0],
            "classes": [{"class_name": name, "flows": 12, "share": 1.0}],
            "sources": of(*SOURCES[i % len(SOURCES)]),
            "devices": of(*device),
            "severity": next(severities),
            **next(gaps),
        }
        for i, name in enumerate(classes)
        for device in DEVICES
    ]
    rows = [ROW | {"incident_id": f"{i:04}", "rank": i + 1} | each for i, each in enumerate(changes)]
    wide = [*incidents.varied(incidents.hostile_names()), incidents.flood(), incidents.port_scan()]
    rows += [each | {"incident_id": f"w{i}", "rank": len(rows) + i + 1} for i, each in enumerate(wide)]
    return pa.Table.from_pylist(rows, schema=INCIDENTS)


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
    assert (event["count"], event["confidence_score"]) == (12, 91)
    assert (event["metadata"]["version"], event["metadata"]["uid"]) == ("1.6.0", "7f3a")
    assert event["metadata"]["product"] == {"name": "ids_spark", "vendor_name": "ids_spark", "version": __version__}
    finding = event["finding_info"]
    assert finding["uid"] == "7f3a"
    assert finding["title"] == "[synthetic data] DDoS-ICMP: 10.20.0.7 against 2 devices"
    assert finding["desc"] == " ".join(narrative.sentences(incident()))
    assert finding["types"] == ["DDoS", "DDoS-ICMP"]  # 1 of 12 flows is less than a fifth
    assert [finding[f"{name}_time"] for name in ("created", "first_seen", "last_seen")] == [created, start, end]
    assert (finding["analytic"]["name"], finding["analytic"]["type_id"]) == ("gru_dnn-19-paper", 4)
    assert finding["related_events"] == [
        {"uid": "5b2e", "type_uid": 200401, "type_name": "Detection Finding: Create"}
    ]  # fmt: skip
    (attack,) = finding["attacks"]
    address = "https://attack.mitre.org/versions/v18/techniques/T1498/"
    assert attack["tactic"] == {"uid": "TA0040", "name": "Impact"}
    assert attack["technique"] == {"uid": "T1498", "name": "Network Denial of Service", "src_url": address}
    assert attack["sub_technique"]["src_url"] == f"{address}001/"
    (evidence,) = event["evidences"]
    assert evidence["src_endpoint"] == {"ip": "10.20.0.7"}
    assert evidence["device"]["uid"] == "pump-1"
    flow = evidence["data"]["flow"]
    assert (flow["source_file"], flow["source_row"], flow["attack_logit"]) == ("part-0.parquet", 17, 2.1972246)
    assert flow["attributions"] == [
        {"feature": "Rate", "value_text": "inf", "contribution": 2.3},
        {"feature": "IAT", "value": 0.1, "contribution": -0.5},
    ]
    target = {"type": "device", "role_id": 1, "role": "Target"}
    assert event["resources"] == [{"uid": name, **target} for name in ("pump-1", "pump-2")]
    assert [(each["name"], each["type_id"], each["value"]) for each in event["observables"]] == [
        ("evidences.src_endpoint.ip", 2, "10.20.0.7"),
        ("resources.uid", 10, "pump-1"),
        ("resources.uid", 10, "pump-2"),
    ]
    facts = event["unmapped"]
    for name in ("rank", "category", "state", "life", "nights_seen", "previous_id", "lead_flagged", "lead_expected",
                 "own_rate", "peer_rate", "log10_p", "posterior", "score", "schema_version"):  # fmt: skip
        assert facts[name] == ROW[name], name
    assert (facts["since"], facts["event_date"]) == ("2026-01-02", "2026-01-05")
    assert (facts["lead_window"], facts["pseudonymised"]) == ("2026-01-05T03:00:00.000Z", "false")
    assert facts["max_attack_probability"] == 0.9


def test_an_ecs_document_has_the_values_of_the_incident() -> None:
    document = ecs.document(incident(), PLAIN)
    assert document["@timestamp"] == "2026-01-06T02:00:00.000Z"
    assert document["ecs"] == {"version": "8.17.0"}
    assert document["event"] == {
        "kind": "alert",
        "category": ["intrusion_detection", "network"],
        "type": ["info"],
        "module": "ids_spark",
        "dataset": "ids_spark.incidents",
        "id": "7f3a",
        "severity": 4,
        "risk_score": 7.3072,
        "start": "2026-01-05T03:01:02.003Z",
        "end": "2026-01-05T03:06:02.003Z",
        "reason": "Rate = inf (2.3 log-odds); IAT = 0.1 (-0.5 log-odds)",
    }
    assert document["rule"]["name"] == "DDoS-ICMP"
    assert document["rule"]["description"] == " ".join(narrative.sentences(incident()))
    assert document["threat"]["tactic"] == {"id": ["TA0040"], "name": ["Impact"]}
    assert document["threat"]["technique"]["subtechnique"] == {"id": ["T1498.001"], "name": ["Direct Network Flood"]}
    assert document["source"] == {"address": "10.20.0.7", "ip": "10.20.0.7"}
    assert document["related"] == {"ip": ["10.20.0.7"], "hosts": ["pump-1", "pump-2"]}
    assert not {"host", "destination"} & document.keys()  # two victims
    assert document["labels"]["flows"] == "12"
    assert document["labels"]["devices"] == "pump-1, pump-2"
    assert document["labels"]["posterior"] == "0.9134"
    assert document["tags"] == ["data_origin:synthetic"]


def test_only_open_incidents_that_the_page_shows_are_exported() -> None:
    rows = [incidents.port_scan(), *incidents.folded()]
    for module in (ocsf, ecs):
        (line,) = module.lines(rows, PLAIN).splitlines()
        assert incidents.port_scan()["incident_id"].encode() in line


def test_all_classes_with_a_fifth_of_the_attack_probability_are_named() -> None:
    event = ocsf.event(
        incident(classes=[{"class_name": "Recon-VulScan", "flows": 5, "share": 0.5},
                          {"class_name": "ARP_Spoofing", "flows": 3, "share": 0.3},
                          {"class_name": "DoS-UDP", "flows": 2, "share": 0.199}]), PLAIN,
    )  # fmt: skip
    assert event["finding_info"]["types"][1:] == ["Recon-VulScan", "ARP_Spoofing"]
    assert [each["tactic"]["uid"] for each in event["finding_info"]["attacks"]] == ["TA0007", "TA0006", "TA0009"]


def test_a_confirmed_incident_is_in_progress() -> None:
    event = ocsf.event(incident(verdict="true", verdict_reason="port is traced"), PLAIN)
    assert (event["status_id"], event["status"], event["status_detail"]) == (2, "In Progress", "port is traced")


@pytest.mark.parametrize(
    ("name", "endpoint"), [("fe80::1", {"ip": "fe80::1"}), ("gateway", {"uid": "gateway"}), (None, None)]
)
def test_a_source_is_an_endpoint_even_if_no_top_flow_names_it(name: str | None, endpoint: Any) -> None:
    event = ocsf.event(incident(sources=of("src_ip", name), top_flows=None), PLAIN)
    assert [each.get("src_endpoint") for each in event.get("evidences", [])] == ([endpoint] if endpoint else [])
    many = ocsf.event(incidents.flood(), PLAIN)
    assert len(many["evidences"]) == 20
    assert {each["device"]["uid"] for each in many["evidences"]} == {"ct-scanner-2"}
    assert many["unmapped"]["sources_found"] == 5_000


@pytest.mark.parametrize(
    ("kind", "name", "place", "value"),
    [
        ("dst_ip", "10.0.0.1", "dst_endpoint", {"ip": "10.0.0.1"}),
        ("pump", "x", None, None),
        ("device_id", "pump", "device", {"uid": "pump", "type_id": 0, "type": "Unknown"}),
        ("device_id", "10.0.0.2", "device", {"uid": "10.0.0.2", "ip": "10.0.0.2", "type_id": 0, "type": "Unknown"}),
    ],
)
def test_a_victim_is_in_the_field_that_ocsf_defines_for_it(kind: str, name: str, place: str | None, value: Any) -> None:
    flow = ROW["top_flows"][0] | {"device": name}
    event = ocsf.event(incident(devices=of(kind, name), devices_found=1, top_flows=[flow]), PLAIN)
    assert event["resources"][0]["uid"] == name
    assert {key: each for key, each in event["evidences"][0].items() if key not in ("data", "src_endpoint")} == (
        {place: value} if place else {}
    )


def test_an_entity_is_in_the_field_that_ecs_defines_for_it() -> None:
    found = {
        (kind, name): ecs.document(incident(devices=of(kind, name), devices_found=1), PLAIN) for kind, name in DEVICES
    }
    assert found["dst_ip", "10.20.0.9"]["destination"] == {"address": "10.20.0.9", "ip": "10.20.0.9"}
    assert found["device_id", "10.20.0.11"]["host"] == {"id": "10.20.0.11", "ip": ["10.20.0.11"]}
    assert found["device_id", "10.20.0.11"]["destination"]["ip"] == "10.20.0.11"
    assert found["device_id", "10.20.0.11"]["related"] == {"ip": ["10.20.0.7", "10.20.0.11"], "hosts": ["10.20.0.11"]}
    assert found["source_file", "part-0.parquet"]["log"] == {"file": {"path": "part-0.parquet"}}
    assert found["ward", "B3"]["labels"]["devices"] == "B3"
    gateway = ecs.document(incident(sources=of("src_ip", "gateway")), PLAIN)
    assert gateway["source"] == {"address": "gateway"}


def test_a_device_that_is_the_source_is_an_actor_and_no_destination() -> None:
    row = incident(devices=of("device_id", "10.20.0.7"), devices_found=1)
    event, document = ocsf.event(row, PLAIN), ecs.document(row, PLAIN)
    assert not ocsf_faults(event)
    assert not ecs_faults(document)
    assert [(each["uid"], each["role_id"]) for each in event["resources"]] == [("10.20.0.7", 2)]
    assert document["source"]["ip"] == document["host"]["ip"][0] == "10.20.0.7"
    assert "destination" not in document


def test_an_ethernet_address_is_in_the_fields_that_the_schemas_define_for_it() -> None:
    mac, other = "00:00:5e:00:53:23", "00:00:5e:00:53:24"
    row = incident(sources=of("src_mac", mac), devices=of("device_id", other), devices_found=1, top_flows=None)
    event, document = ocsf.event(row, PLAIN), ecs.document(row, PLAIN)
    assert not ocsf_faults(event)
    assert not ecs_faults(document)
    [evidence] = event["evidences"]
    assert evidence["src_endpoint"] == {"uid": mac, "mac": mac}
    assert evidence["device"]["mac"] == other
    assert [(each["name"], each["type_id"]) for each in event["observables"]] == [
        ("evidences.src_endpoint.mac", 3),
        ("resources.uid", 10),
    ]
    assert document["source"] == {"mac": "00-00-5E-00-53-23"}
    assert document["destination"] == {"mac": "00-00-5E-00-53-24"}
    assert document["host"] == {"id": other, "mac": ["00-00-5E-00-53-24"]}
    assert "ip" not in document["related"]


@pytest.mark.parametrize("kind", ["src_ip", "dst_ip", "device_id"])
def test_a_pseudonym_is_never_written_as_an_address(kind: str) -> None:
    name = "10.20.0.7"  # even if it looks like one
    flow = ROW["top_flows"][0] | {"device": name, "source": name}
    row = incident(sources=of("src_ip", name), devices=of(kind, name), devices_found=1, top_flows=[flow])
    for record in (ocsf.event(row, PSEUDONYMISED), ecs.document(row, PSEUDONYMISED)):
        holders = [path for path, value in leaves(record) if value == name]
        assert holders
        assert not [path for path in holders if path.rpartition(".")[2] in ("ip", "address")]
    event = ocsf.event(row, PSEUDONYMISED)
    assert event["unmapped"]["pseudonymised"] == "true"
    assert [each["type_id"] for each in event["observables"]] == [99, 10]


def test_a_pseudonym_is_never_written_as_an_ethernet_address() -> None:
    name = "00:00:5e:00:53:23"  # even if it looks like one
    row = incident(sources=of("src_mac", name), devices=of("device_id", name), devices_found=1, top_flows=None)
    for record in (ocsf.event(row, PSEUDONYMISED), ecs.document(row, PSEUDONYMISED)):
        assert not [path for path, _ in leaves(record) if "mac" in path.split(".")]
    assert ocsf.event(row, PSEUDONYMISED)["evidences"][0]["src_endpoint"] == {"uid": name}


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
        row = incident(classes=[{"class_name": name, "flows": 1, "share": 1.0}])
        assert len(ocsf.event(row, PLAIN)["finding_info"].get("attacks", [])) == len(tactics)


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
    assert ids == table["incident_id"].to_pylist()  # by rank
    assert module.lines(INCIDENTS.empty_table(), PLAIN) == b""


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


def test_the_target_of_a_device_that_attacks_is_the_destination() -> None:
    row = incident(sources=of("src_ip", "10.20.0.7"), devices=of("device_id", "10.20.0.7"), targets=["203.0.113.9"])
    found = ecs.document(row, PLAIN)
    assert (found["source"]["ip"], found["destination"]["ip"]) == ("10.20.0.7", "203.0.113.9")
    assert found["related"]["ip"] == ["10.20.0.7", "203.0.113.9"]
    several = ecs.document({**row, "targets": ["203.0.113.9", "203.0.113.10"]}, PLAIN)
    assert "destination" not in several
    assert "destination" not in ecs.document(row, PSEUDONYMISED)
