"""Refused rows as evidence: concentrated ones are incidents, those of all entities alike are not; all are listed."""

import dataclasses
from collections.abc import Sequence

import pyarrow as pa
import pytest

from ids_spark.alerts import learning, quarantined
from ids_spark.alerts.evidence import entity_keys
from ids_spark.alerts.learning import Learning
from ids_spark.alerts.quarantined import Refusals
from ids_spark.alerts.severity import DEFAULT
from ids_spark.config.score import AlertsConfig
from ids_spark.dataset.taxonomy import QUARANTINED, UNKNOWN
from tests.support.evidence import FACTS, Group, background, counted

REFUSED, SCORED, FLAGGED = 1, 2, 3


def refused(flows: int, device: str | Sequence[str] | None, source: str | Sequence[str] | None = None, hour: int = 3,
            level: int = REFUSED) -> Group:  # fmt: skip
    return Group(flows, hour, device, source, UNKNOWN, level)


def night(*groups: Group, before: tuple[int, int] = (0, 0)) -> Refusals:
    rows, traffic = counted([*background(), *groups])
    place = rows.column_names.index("class_name")
    reasons = pa.array(["not_a_number"] * len(rows), pa.string())
    return Refusals(rows.set_column(place, "class_name", reasons), traffic, before=before)


def incidents(refusals: Refusals) -> list[dict[str, object]]:
    listed, alerts, _ = quarantined.found(refusals, 1e-4, AlertsConfig(), DEFAULT, FACTS)
    assert set(alerts["incident_id"].to_pylist()) == set(listed["incident_id"].to_pylist())
    rows: list[dict[str, object]] = listed.to_pylist()
    return rows


def test_a_night_without_refused_rows_has_no_incident_and_tests_nothing() -> None:
    listed, alerts, cells = quarantined.found(Refusals(), 1e-4, AlertsConfig(), DEFAULT, FACTS)
    assert (len(listed), len(alerts), cells) == (0, 0, 0)
    assert quarantined.entities(Refusals()) == ([], 0)
    assert quarantined.alike(Refusals()) == 0


@pytest.mark.parametrize("flows", [30, 1_660])
@pytest.mark.parametrize("before", [(0, 0), (0, 500_000), (600, 500_000)])
def test_refused_rows_of_one_device_are_one_incident(flows: int, before: tuple[int, int]) -> None:
    [row] = incidents(night(refused(flows, "monitor-07", "203.0.113.9"), before=before))
    assert (row["category"], row["severity"], row["state"], row["flows"]) == (QUARANTINED, "medium", "open", flows)
    assert [each["name"] for each in row["devices"]] == ["monitor-07"]
    assert [each["name"] for each in row["sources"]] == ["203.0.113.9"]
    assert [each["class_name"] for each in row["classes"]] == [QUARANTINED]
    assert row["max_attack_logit"] == row["top_flows"][0]["attack_logit"] == pytest.approx(4.595, abs=1e-3)


def test_few_refused_rows_here_and_there_are_no_incident_and_all_are_listed() -> None:
    groups = [refused(1, f"monitor-{i:02d}", f"203.0.113.{i}", hour=i) for i in range(20)]
    found = night(*groups)
    assert incidents(found) == []
    listed, number = quarantined.entities(found)
    assert number == len(listed) == 40
    assert {each["name"] for each in listed} >= {f"monitor-{i:02d}" for i in range(20)}


@pytest.mark.parametrize("rows", [20, 200, 2_000])
def test_rows_of_all_devices_alike_are_the_exporters_fault_and_no_incident(rows: int) -> None:
    groups = [refused(rows, f"monitor-{i:02d}", f"192.0.2.{100 + i}") for i in range(20)]
    found = night(*groups)
    assert incidents(found) == []
    assert quarantined.alike(found) == pytest.approx(20 * rows, rel=0.01)
    everywhere = night(*[refused(rows // 10, f"monitor-{i:02d}", None, hour=h) for i in range(20) for h in range(24)])
    assert incidents(everywhere) == []
    assert quarantined.alike(everywhere) == pytest.approx(20 * 24 * (rows // 10), rel=0.01)


def test_one_device_stands_out_among_all_that_have_refused_rows() -> None:
    groups = [refused(20, f"monitor-{i:02d}", f"192.0.2.{100 + i}") for i in range(20)]
    [row] = incidents(night(*groups, refused(400, "monitor-07", "203.0.113.9")))
    assert [each["name"] for each in row["devices"]] == ["monitor-07"]
    assert row["sources"][0] == {"kind": "src_ip", "name": "203.0.113.9", "flows": 400}


def test_an_attack_on_some_devices_is_not_taken_for_a_fault_of_the_exporter() -> None:
    groups = [refused(60, f"monitor-{i:02d}", "203.0.113.9", hour=h) for i in range(9) for h in (3, 4, 5)]
    found = night(*groups)
    assert quarantined.alike(found) == 0
    assert sum(row["flows"] for row in incidents(found)) == 9 * 3 * 60


@pytest.mark.parametrize("rows", [20, 50, 190])
def test_refused_rows_in_all_windows_of_a_device_are_not_how_the_device_is(rows: int) -> None:
    [row] = incidents(night(*[refused(rows, "monitor-07", "203.0.113.9", hour=h) for h in range(24)]))
    assert (row["devices"][0]["name"], row["flows"]) == ("monitor-07", 24 * rows)


def test_neither_many_invented_devices_nor_a_flood_of_one_make_refused_rows_common() -> None:
    found = night(*[refused(6, f"invented-{i:03d}") for i in range(400)])
    assert quarantined.alike(found) == 0
    assert sum(row["flows"] for row in incidents(found)) == 400 * 6
    found = night(refused(9_000, "monitor-07", "203.0.113.9"))
    assert quarantined.alike(found) == 0
    assert [row["flows"] for row in incidents(found)] == [9_000]


def test_an_incident_without_a_scored_row_has_no_score() -> None:
    found = night(refused(50, "monitor-07"))
    place = found.rows.column_names.index("max_attack_logit")
    lowest = pa.array([-160.0] * len(found.rows), pa.float32())
    found = dataclasses.replace(found, rows=found.rows.set_column(place, "max_attack_logit", lowest))
    [row] = incidents(found)
    assert (row["max_attack_logit"], row["max_attack_probability"]) == (None, None)
    assert row["top_flows"][0]["attack_logit"] is None


def test_entities_are_listed_worst_first_with_their_rows_and_flows() -> None:
    found = night(
        refused(9, "monitor-01", "203.0.113.1"),
        refused(6, "monitor-02", "203.0.113.2", level=SCORED),
        refused(5, "monitor-03", "203.0.113.3", level=FLAGGED),
        refused(2, "monitor-02", "203.0.113.2", hour=9, level=FLAGGED),
    )
    listed, number = quarantined.entities(dataclasses.replace(found, unread=(("a.parquet", 7),)))
    assert number == 7
    assert [tuple(each.values()) for each in listed[::2]] == [
        ("device_id", "monitor-03", 5, 24 * 200 + 5, 5, 5, "not_a_number"),
        ("device_id", "monitor-02", 8, 24 * 200 + 8, 8, 2, "not_a_number"),
        ("device_id", "monitor-01", 9, 24 * 200 + 9, 0, 0, "not_a_number"),
        ("source_file", "a.parquet", 7, None, 0, 0, None),
    ]


def test_very_many_invented_sources_are_folded_and_counted() -> None:
    sources = [f"198.18.{i // 250}.{i % 250}" for i in range(20_000)]
    found = night(refused(20_000, "monitor-07", sources))
    listed, number = quarantined.entities(found)
    assert [each["name"] for each in listed] == ["monitor-07"]
    assert number == 20_001
    [row] = incidents(found)
    assert row["sources_found"] == 20_000


def test_incidents_of_refused_rows_are_open_also_while_site_and_devices_learn() -> None:
    listed, _, _ = quarantined.found(night(refused(50, "monitor-07")), 1e-4, AlertsConfig(), DEFAULT, FACTS)
    nothing = pa.array([None] * len(listed), pa.string())
    at = listed.schema.get_field_index("previous_id")
    listed = listed.set_column(at, listed.schema.field(at), nothing)
    assert learning.marked(listed, Learning(site=True), (), {QUARANTINED})["learning"].to_pylist() == [None]


def test_what_imputed_rows_show_is_not_learned_as_usual_for_an_entity() -> None:
    found = night(refused(60, "monitor-07", level=SCORED), refused(60, "monitor-08"), refused(9, "monitor-09", level=3))
    keys = entity_keys(["device_id"] * 20, [f"monitor-{i:02d}" for i in range(20)])
    history = pa.table({"entity_key": keys, "flows": pa.array(range(20))})
    kept = quarantined.without_imputed(history, found)
    assert kept["flows"].to_pylist() == [i for i in range(20) if i != 7]
    assert quarantined.without_imputed(history, Refusals()) == history
