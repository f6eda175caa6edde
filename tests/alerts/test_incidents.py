"""Incidents of nights by hand. Every night here is synthetic."""

import math
import random

import pytest

from ids_spark.alerts import incidents
from ids_spark.dataset.tables import ALERTS, INCIDENTS
from tests.support.evidence import Group, background, counted, found_in

PUMPS = [f"pump-{i:02d}" for i in range(1, 7)]
SCAN = Group(300, 3, PUMPS, "198.51.100.23", "Recon-Port_Scan")
ARP = Group(96, 4, ["bed-04", "bed-05"], "192.0.2.240", "ARP_Spoofing")
FLOOD = Group(1_200, 2, "broker", [f"203.0.113.{i}" for i in range(66, 70)], "MQTT-DDoS-Publish_Flood")


def rows(*groups: Group, **settings: float) -> list[dict]:
    return found_in([*background(), *groups], **settings)[0].to_pylist()


def test_a_night_of_benign_flows_has_no_incident() -> None:
    found, alerts = found_in(background())
    assert (len(found), len(alerts)) == (0, 0)
    assert (found.schema, alerts.schema) == (INCIDENTS, ALERTS)


def test_a_night_without_flows_has_no_incident() -> None:
    found, alerts = found_in([])
    assert (len(found), len(alerts)) == (0, 0)


def test_a_scan_of_one_source_on_six_devices_is_one_incident() -> None:
    [row] = rows(SCAN)
    assert (row["category"], row["severity"], row["flows"], row["sources_found"]) == ("Recon", "low", 300, 1)
    assert row["sources"] == [{"kind": "src_ip", "name": "198.51.100.23", "flows": 300}]
    assert row["devices"] == [{"kind": "device_id", "name": pump, "flows": 50} for pump in PUMPS]
    assert (row["lead_entity"], row["lead_flagged"], row["lead_flows"]) == ("198.51.100.23", 300, 300)
    assert row["alerts"] == 7
    assert row["posterior"] > 0.999
    assert row["classes"] == [{"class_name": "Recon-Port_Scan", "flows": 300, "share": 1.0}]


def test_the_order_is_severity_weight_times_posterior() -> None:
    found = rows(SCAN, ARP, FLOOD)
    assert [row["category"] for row in found] == ["MQTT", "Spoofing", "Recon"]
    assert [round(row["score"]) for row in found] == [16, 8, 2]


def test_adjacent_hours_of_an_entity_are_one_incident_and_others_are_not() -> None:
    near = [Group(60, hour, "bed-04", None, "ARP_Spoofing") for hour in (4, 5, 6)]
    [row] = rows(*near)
    assert (row["flows"], row["alerts"]) == (180, 3)
    assert (row["first_seen"].hour, row["last_seen"].hour) == (4, 6)
    assert len(rows(near[0], near[2])) == 2


@pytest.mark.parametrize("flows", [5, 30, 59])
def test_a_source_that_attacks_one_device_all_night_is_an_incident_however_much_it_sends(flows: int) -> None:
    """Fewer than half of the flows of the device are flagged: it is not so itself, as they are those of the source."""
    attack = [Group(flows, hour, "monitor-03", "198.51.100.7", "DDoS-SYN") for hour in range(24)]
    [row] = found_in([*background(flows_an_hour=60), *attack])[0].to_pylist()
    assert (row["flows"], row["lead_entity"]) == (24 * flows, "198.51.100.7")
    assert row["log10_p"] < -1.5 * flows


DEVICES = [f"monitor-{i:02d}" for i in range(20)]
SECOND = Group(6, 4, "monitor-05", "192.0.2.105", "Recon-VulScan")


@pytest.mark.parametrize("flows", [20, 60])
def test_a_scan_of_all_devices_all_night_hides_no_second_attack(flows: int) -> None:
    """Of each device it is one flow an hour, or three, of which none says how often its category is a false alarm."""
    scan = [Group(flows, hour, DEVICES, "198.51.100.9", "Recon-Port_Scan") for hour in range(24)]
    found = found_in([*background(flows_an_hour=60), *scan, SECOND])[0].to_pylist()
    assert sorted(row["flows"] for row in found) == [6, 24 * flows]
    [alone] = found_in([*background(flows_an_hour=60), SECOND])[0].to_pylist()
    assert min(row["log10_p"] for row in found if row["flows"] == 6) < alone["log10_p"] / 2


def test_a_device_joins_no_attacks_of_two_sources_in_adjacent_hours() -> None:
    first, last = (Group(40, hour, "bed-04", "192.0.2.240", "ARP_Spoofing") for hour in (3, 5))
    other = Group(60, 4, "bed-04", "192.0.2.241", "ARP_Spoofing")
    assert sorted(row["flows"] for row in rows(first, other, last)) == [40, 40, 60]
    unknown = [Group(group.flows, group.hour, "bed-04", None, "ARP_Spoofing") for group in (first, other, last)]
    assert [row["flows"] for row in rows(*unknown)] == [140]


def test_a_night_that_is_one_attack_does_not_explain_itself() -> None:
    flood = [Group(500, hour, "broker", "203.0.113.66", "MQTT-DDoS-Publish_Flood") for hour in range(24)]
    [row] = found_in(flood)[0].to_pylist()
    assert (row["flows"], row["alerts"]) == (12_000, 48)


def test_attacks_of_two_sources_on_one_device_are_two_incidents() -> None:
    attack = [Group(80, 4, "bed-04", f"198.51.100.{i}", name) for i, name in ((7, "ARP_Spoofing"), (8, "DoS-UDP"))]
    found = rows(*attack)
    assert sorted(row["category"] for row in found) == ["DoS", "Spoofing"]
    assert {row["sources"][0]["name"] for row in found} == {"198.51.100.7", "198.51.100.8"}


@pytest.mark.parametrize("flows", [60, 5_000])
def test_invented_sources_of_one_class_change_no_other_line(flows: int) -> None:
    """Each flow has a source of its own, on many devices and at all hours."""
    before = {row["incident_id"]: row for row in rows(SCAN, ARP, FLOOD)}
    monitors = [f"monitor-{i:02d}" for i in range(20)]
    spoofed = [
        Group(1, i % 24, monitors[i % 20], f"203.0.{i // 250}.{i % 250}", "MQTT-DDoS-Connect_Flood", probability=0.999)
        for i in range(flows)
    ]
    after = {row["incident_id"]: row for row in rows(SCAN, ARP, FLOOD, *spoofed)}
    assert before.keys() <= after.keys()
    assert len(after) <= len(before) + 1
    for key, row in before.items():
        assert after[key]["flows"] == row["flows"]
        assert after[key]["posterior"] == pytest.approx(row["posterior"], abs=1e-3)


@pytest.mark.parametrize("flows", [60, 200, 5_000])
def test_invented_sources_in_the_hour_of_an_attack_leave_it_its_own_line(flows: int) -> None:
    """On the device, in the hour and of the category of an attack, and on all devices at all hours."""
    attack = Group(60, 3, "monitor-01", "198.51.100.1", "DDoS-SYN")
    sources = [f"203.0.{i // 250}.{i % 250}" for i in range(flows)]
    monitors = [f"monitor-{i:02d}" for i in range(20)]
    for spoofed in (
        [Group(flows, 3, "monitor-01", sources, "DDoS-SYN")],
        [Group(1, i % 24, monitors[i % 20], source, "DDoS-UDP") for i, source in enumerate(sources)],
    ):
        found = rows(SCAN, attack, *spoofed)
        assert len(found) <= 3
        [own] = [row for row in found if "198.51.100.1" in [each["name"] for each in row["sources"]]]
        assert own["sources"][0] == {"kind": "src_ip", "name": "198.51.100.1", "flows": 60}
        assert own["sources_found"] <= 12  # invented ones of the same device and hour, below the test's own level


def test_sources_of_one_attack_stay_one_line_beside_invented_sources() -> None:
    attackers = [f"198.51.100.{i}" for i in range(30)]
    attack = Group(300, 3, "broker", attackers, "MQTT-DDoS-Publish_Flood")
    spoofed = Group(5_000, 3, "broker", [f"203.0.{i // 250}.{i % 250}" for i in range(5_000)], attack.class_name)
    found = rows(attack, spoofed)
    assert sorted((row["flows"], row["sources_found"]) for row in found) == [(300, 30), (5_000, 5_000)]


def test_an_alert_of_which_other_incidents_hold_all_flows_is_part_of_one_of_them() -> None:
    """A source on four devices, each flooded by another source; four sources on the same four devices."""
    monitors = [f"monitor-{i:02d}" for i in range(4)]
    scan = Group(60, 3, monitors, "198.51.100.1", "DDoS-SYN")
    floods = [Group(200, 3, name, f"198.51.100.{10 + i}", "DDoS-SYN") for i, name in enumerate(monitors)]
    found = rows(scan, *floods)
    assert sorted(row["flows"] for row in found) == [60, 200, 200, 200, 200]
    mesh = rows(*(Group(80, 3, monitors, f"198.51.100.{i}", "DDoS-SYN") for i in range(4)))
    assert sum(row["flows"] for row in mesh) == 320
    assert sum(row["alerts"] for row in mesh) == 8


def test_an_alert_of_a_device_most_of_whose_flows_belong_to_sources_is_no_line_of_its_own() -> None:
    """Two sources hold four flows each of ten on a device, less than half of it and of what each of them sent."""
    scans = [
        Group(flows, 3, devices, f"198.51.100.{i}", "DDoS-SYN")
        for i in (1, 2)
        for flows, devices in ((4, "monitor-09"), (12, [f"monitor-{i}{j}" for j in range(4)]))
    ]
    found = rows(*scans, Group(2, 3, "monitor-09", None, "DDoS-SYN"))
    assert sorted(row["flows"] for row in found) == [16, 18]


def test_a_small_alert_of_the_same_source_and_hour_is_part_of_the_large_one() -> None:
    scan = Group(40, 22, ["pump-03", "vent-01"], "198.51.100.23", "Recon-VulScan")
    spilled = Group(8, 22, ["pump-03", "vent-01"], "198.51.100.23", "ARP_Spoofing")
    [row] = rows(scan, spilled)
    assert (row["category"], row["flows"], row["sources_found"]) == ("Recon", 48, 1)
    assert [each["class_name"] for each in row["classes"]] == ["Recon-VulScan", "ARP_Spoofing"]
    as_large = Group(40, 22, ["pump-03", "vent-01"], "198.51.100.23", "ARP_Spoofing")
    assert len(rows(scan, as_large)) == 2
    assert len(rows(scan, Group(8, 22, "bed-09", "198.51.100.99", "ARP_Spoofing"))) == 2


def test_a_small_alert_of_the_same_source_against_another_device_is_an_incident_of_its_own() -> None:
    flood = Group(300, 3, "broker", "203.0.113.66", "MQTT-DDoS-Publish_Flood")
    found = rows(flood, Group(40, 3, ["pump-01", "pump-02"], "203.0.113.66", "Recon-VulScan"))
    assert {row["category"]: (row["flows"], row["devices_found"]) for row in found} == {
        "MQTT": (300, 1),
        "Recon": (40, 2),
    }
    [row] = rows(flood, Group(40, 3, ["pump-01", "broker", "broker"], "203.0.113.66", "Recon-VulScan"))
    assert (row["category"], row["flows"]) == ("MQTT", 340)
    sweep = Group(120, 3, [f"pump-{i}" for i in range(120)], "203.0.113.66", "Recon-Ping_Sweep")
    called_otherwise = Group(30, 3, [f"monitor-{i}" for i in range(30)], "203.0.113.66", "ARP_Spoofing")
    [row] = rows(sweep, called_otherwise)
    assert (row["category"], row["flows"], row["devices_found"]) == ("Recon", 150, 150)


def test_a_flood_does_not_hide_in_a_larger_scan_of_the_same_source() -> None:
    scan = Group(600, 22, ["pump-03", "vent-01"], "198.51.100.23", "Recon-Port_Scan")
    found = rows(scan, Group(100, 22, "broker", "198.51.100.23", "DDoS-SYN"))
    assert [(row["severity"], row["flows"]) for row in found] == [("high", 100), ("low", 600)]


def test_a_class_counts_for_severity_from_a_fifth_of_the_attack_probability() -> None:
    many, one = Group(60, 5, "bed-01", "192.0.2.77", "MQTT-DoS-Connect_Flood"), "MQTT-DDoS-Connect_Flood"
    few = Group(2, 5, "bed-01", "192.0.2.77", one)
    assert [row["severity"] for row in rows(many, few)] == ["high"]
    assert [row["severity"] for row in rows(many, Group(20, 5, "bed-01", "192.0.2.77", one))] == ["critical"]


def test_the_class_that_gives_the_severity_is_named_first() -> None:
    scan = [
        Group(30, 22, "pump-03", "198.51.100.23", "Recon-Port_Scan"),
        Group(20, 22, "pump-03", "198.51.100.23", "Recon-VulScan"),
    ]
    [row] = rows(*scan)
    assert row["severity"] == "medium"
    assert [each["class_name"] for each in row["classes"]] == ["Recon-VulScan", "Recon-Port_Scan"]


def test_flows_on_the_allow_list_are_counted_but_give_no_alert() -> None:
    allowed = Group(300, 3, "pump-01", "198.51.100.23", "Recon-Port_Scan", allowed=True)
    assert rows(allowed) == []
    own, _ = counted([*background(), allowed])
    assert (own["flagged_1"].to_pylist(), own["allowed_1"].to_pylist()) == ([300], [300])
    [row] = rows(allowed, Group(60, 3, "pump-01", "198.51.100.23", "Recon-Port_Scan"))
    assert (row["flows"], row["flows_allowed"]) == (60, 300)


def test_flows_without_times_devices_or_sources_form_incidents_of_what_is_known() -> None:
    [row] = rows(Group(50, None, "bed-01", None, "ARP_Spoofing"))
    assert (row["lead_window"], row["first_seen"], row["sources"]) == (None, None, [])
    [row] = rows(Group(50, 3, None, "192.0.2.77", "ARP_Spoofing"))
    assert (row["lead_kind"], row["devices"]) == ("src_ip", [])
    [row] = rows(Group(50, 3, None, None, "ARP_Spoofing"))
    assert (row["lead_kind"], row["lead_entity"]) == ("source_file", "flows.parquet")


def test_every_flagged_flow_of_an_alert_is_in_one_incident() -> None:
    groups = [SCAN, ARP, FLOOD, Group(40, 4, "bed-04", "198.51.100.23", "ARP_Spoofing")]
    found, alerts = found_in([*background(), *groups])
    assert sum(found["flows"].to_pylist()) == sum(group.flows for group in groups)
    assert set(alerts["incident_id"].to_pylist()) == set(found["incident_id"].to_pylist())
    assert sum(found["alerts"].to_pylist()) == len(alerts)


def test_the_order_of_flows_changes_nothing() -> None:
    groups = [*background(), SCAN, ARP, FLOOD]
    first = found_in(groups)
    random.Random(4).shuffle(groups)
    again = found_in(groups)
    for a, b in zip(first, again, strict=True):
        drop = [name for name in ("top_flows",) if name in a.column_names]  # row numbers differ
        assert a.drop_columns(drop).equals(b.drop_columns(drop))


@pytest.mark.parametrize(("p", "cells"), [(1e-6, 10_000), (1e-3, 500), (0.2, 100)])
def test_the_posterior_is_that_of_the_bayes_factor_bound(p: float, cells: int) -> None:
    odds = 3 / cells / (-math.e * p * math.log(p))
    assert incidents.posterior(p, cells) == pytest.approx(odds / (1 + odds))
    assert incidents.posterior(0.9, cells) == pytest.approx(3 / (cells + 3))
