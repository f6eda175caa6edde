"""What the inventory says of the entities of a night."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ids_spark.alerts import narrative
from ids_spark.alerts.evidence import entity_keys, keys_of
from ids_spark.alerts.known_devices import KnownDevices, factor_of, known_devices
from ids_spark.alerts.pseudonyms import Pseudonyms
from ids_spark.extract.inventory import Device, Inventory, read_inventory
from tests.support.evidence import Group, background, found_in

CSV = """address,device,type,department,patient_connected,criticality,owner,maintenance
10.20.0.5,pump-01,pump,Ward 3,yes,5,Medical technology,03:00-04:00
02:00:00:00:00:0a,pump-01,,,,,,
10.20.0.6,tablet-01,tablet,Ward 3,no,1,IT,
198.51.100.23,scanner,inventory server,IT,no,2,IT,
"""
PUMP = Group(60, 3, "pump-01", "203.0.113.9", "ARP_Spoofing")
TABLET = Group(60, 3, "tablet-01", "203.0.113.8", "ARP_Spoofing")
OTHER = Group(60, 3, "bed-04", "203.0.113.7", "ARP_Spoofing")


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    path = tmp_path / "inventory.csv"
    path.write_text(CSV)
    return read_inventory(str(path))


def test_an_entity_is_found_by_name_and_by_any_spelling_of_its_addresses(inventory: Inventory) -> None:
    known = known_devices(inventory)
    names = ("pump-01", "10.20.0.5", "02:00:00:00:00:0a", "02-00-00-00-00-0A", "0200.0000.000a", "tablet-01", "x", None)
    found = [known.find("device_id", name) for name in names]
    assert [device and device.name for device in found] == ["pump-01"] * 5 + ["tablet-01", None, None]
    assert KnownDevices().find("device_id", "pump-01") is None


def test_pseudonyms_are_found_and_names_and_owners_are_not_told(inventory: Inventory) -> None:
    key = Pseudonyms(b"k" * 32)
    known = known_devices(inventory, ("device_id",), key)
    [pseudonym] = key.pseudonymised(pa.array(["02-00-00-00-00-0A"])).to_pylist()
    row = known.row("device_id", pseudonym)
    assert row is not None
    assert (row["type"], row["criticality"], row["device"], row["owner"]) == ("pump", 5, None, None)
    assert known.find("device_id", "pump-01") is None  # a plain name in a column of pseudonyms is another device's
    assert known.find("src_ip", "10.20.0.5") is not None
    of_type = known.types(("device_id",))
    assert of_type[int(entity_keys(["device_id"], [pseudonym])[0])] == "pump"


@pytest.mark.parametrize(
    ("criticality", "connected", "factor"),
    [(1, False, 0.5), (2, None, 0.5 * math.sqrt(2)), (3, None, 1), (None, None, 1), (4, False, math.sqrt(2)),
     (5, None, 2), (None, True, math.sqrt(2)), (1, True, 0.5 * math.sqrt(2)), (5, True, 2)],
)  # fmt: skip
def test_the_factor_of_criticality(criticality: int | None, connected: bool | None, factor: float) -> None:
    device = Device("x", (1,), criticality=criticality, patient_connected=connected)
    assert factor_of(device) == pytest.approx(factor)


def test_criticality_orders_incidents_that_are_alike(inventory: Inventory) -> None:
    groups = [*background(), PUMP, TABLET, OTHER]
    found = {row["devices"][0]["name"]: row for row in found_in(groups, known=known_devices(inventory))[0].to_pylist()}
    assert list(found) == ["pump-01", "bed-04", "tablet-01"]
    assert [row["criticality_factor"] for row in found.values()] == pytest.approx([2.0, 1.0, 0.5])
    plain = {row["devices"][0]["name"]: row["score"] for row in found_in(groups)[0].to_pylist()}
    assert {name: row["score"] for name, row in found.items()} == pytest.approx(
        {"pump-01": 2 * plain["pump-01"], "bed-04": plain["bed-04"], "tablet-01": plain["tablet-01"] / 2}
    )
    [row] = found["pump-01"]["inventory"]
    text = narrative.known_of(row)
    assert (
        text == "pump, Ward 3, connected to a patient, criticality 5, owner Medical technology, maintenance 03:00-04:00"
    )
    assert found["bed-04"]["inventory"] == []


def test_a_source_in_the_inventory_counts_and_an_unknown_source_does_not(inventory: Inventory) -> None:
    scan = Group(300, 3, "tablet-01", "198.51.100.23", "Recon-Port_Scan")
    [row] = found_in([*background(), scan], known=known_devices(inventory))[0].to_pylist()
    assert row["criticality_factor"] == pytest.approx(0.5 * math.sqrt(2))
    assert [each["device"] for each in row["inventory"]] == ["tablet-01", "scanner"]


def test_flows_in_a_time_of_maintenance_are_marked_and_stay_open(inventory: Inventory) -> None:
    late = Group(40, 4, "pump-01", "203.0.113.9", "ARP_Spoofing")
    incidents, alerts = found_in([*background(), PUMP, late, OTHER], known=known_devices(inventory))
    rows = {row["devices"][0]["name"]: row for row in incidents.to_pylist()}
    assert {name: (row["flows_in_maintenance"], row["flows"]) for name, row in rows.items()} == {
        "pump-01": (60, 100),  # those before 04:00
        "bed-04": (0, 60),
    }
    assert {row["state"] for row in rows.values()} == {"open"}
    of_pump = [row for row in alerts.to_pylist() if row["entity"] == "pump-01"]
    assert {row["window_start"].hour: row["in_maintenance"] for row in of_pump} == {3: True, 4: False}
    assert of_pump[0]["inventory"]["type"] == "pump"
    assert found_in([*background(), PUMP])[0]["flows_in_maintenance"].to_pylist() == [None]


def test_devices_that_the_inventory_lacks_are_counted_and_files_are_no_devices(inventory: Inventory) -> None:
    names = ["pump-01", "10.20.0.5", "bed-04", "bed-04", None, ""]
    keys = keys_of(pa.table({"device_id": names}), ("device_id",), (), 60, "flows.parquet")
    assert known_devices(inventory).unknown(keys.devices) == {("device_id", "bed-04"): 2}
    assert np.count_nonzero(keys.devices.codes >= 0) == 6
