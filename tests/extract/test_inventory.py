"""Inventories of devices: as spreadsheets write them, what each column means, what is refused."""

import codecs
import datetime as dt
from pathlib import Path

import numpy as np
import pytest

from ids_spark.extract.devices import Devices
from ids_spark.extract.inventory import InventoryRefused, read_inventory, spellings

WARD = ("10.20.0.0/16",)
PUMP, MONITOR, A_MAC = "10.20.0.5", "10.20.7.9", "02:00:00:00:00:0a"


def inventory(tmp_path: Path, content: str | bytes, by_mac: bool = False) -> dict[str, str]:
    """Return the names that an inventory gives to the addresses of its devices."""
    path = tmp_path / "inventory.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    names = read_inventory(str(path)).names(by_mac)
    keys = np.array(list(names), dtype=np.uint64)
    return dict(zip(Devices(WARD).texts(keys).to_pylist(), names.values(), strict=True))


@pytest.mark.parametrize(
    "content",
    [
        f"address,device\n{PUMP},Pump 7\n{A_MAC},Monitor",
        f"Device;ADDRESS\r\nPump 7;{PUMP}\r\n\r\nMonitor;02-00-00-00-00-0A\r\n",
        codecs.BOM_UTF8 + f'"address"\t"device"\n {PUMP} \t Pump 7\n0200.0000.000A\tMonitor\n'.encode(),
        f"address,device,,\n{PUMP},Pump 7,,\n02000000000a,Monitor,,\n{PUMP},Pump 7,,\n",
    ],
    ids=["plain", "semicolons", "tabs with byte order mark", "empty columns and a repeated line"],
)
def test_inventories_as_spreadsheets_write_them(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "inventory.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    named = Devices(WARD, names=read_inventory(str(path)).names(by_mac=False))
    keys = np.array([0x0A140005, 1 << 48 | 0x02000000000A, 0x0A140709], dtype=np.uint64)
    assert named.texts(keys).to_pylist() == ["Pump 7", "Monitor", MONITOR]


def test_a_name_with_the_separator_in_quotes(tmp_path: Path) -> None:
    assert list(inventory(tmp_path, f'address,device\n{PUMP},"Pump, room 7"\n').values()) == ["Pump, room 7"]


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("address\n10.0.0.1\n", "has the columns address;"),
        ("address,device,type,type\n10.0.0.1,a,b,c\n", "has the columns address, device, type, type;"),
        ("address,device,criticality\n10.0.0.1,a,6\n", "line 2: criticality: expected 1 to 5, or low, medium, high"),
        ("address,device,patient_connected\n10.0.0.1,a,maybe\n", "line 2: patient_connected: expected yes or no"),
        ("address,device,maintenance\n10.0.0.1,a,Sun 25:00-26:00\n", "line 2: maintenance: expected times"),
        ("address,device,maintenance\n10.0.0.1,a,Someday 02:00-03:00\n", "line 2: maintenance: expected times"),
        ("address,device,maintenance\n10.0.0.1,a,2026-11-28T02:00/2026-11-28T01:00\n", "line 2: maintenance"),
        ("address,device,maintenance\n10.0.0.1,a,Sundance 02:00-03:00\n", "line 2: maintenance: expected times"),
        ("address,device,maintenance\n10.0.0.1,a,02:00-02:00\n", "line 2: maintenance: expected times"),
        ("address,device,maintenance\n10.0.0.1,a,0001-01-01T00:00+14:00/2026-11-28\n", "line 2: maintenance"),
        (f"address,device\n10.0.0.1,{'a' * 201}\n", "at most 200 printable characters"),
        ("address,device,type\n10.0.0.1,a,pump\n10.0.0.2,a,monitor\n", "line 3: type of a is monitor, in line 2 pump"),
        ("address,address\n10.0.0.1,a\n", "has the columns address, address;"),
        (f"{PUMP},Pump\n", f"has the columns {PUMP}, pump;"),
        ("address,device\n", "names no device"),
        ("address,device\n10.0.0,a\n", "line 2: '10.0.0' is no IPv4 address and no MAC address"),
        ("address,device\n10.0.0.1/24,a\n", "line 2: '10.0.0.1/24' is no"),
        ("address,device\nfe80::1,a\n", "line 2: 'fe80::1' is no"),
        ("address,device\n02:00:00-00:00:0a,a\n", "line 2: '02:00:00-00:00:0a' is no"),
        ("address,device\n\n10.0.0.1,a\n10.0.0.1,b\n", "line 4: 10.0.0.1 is 'b', in line 3 'a'"),
        ("address,device\n10.0.0.1,\n", "line 2: expected the name of device 10.0.0.1, found ''"),
        ("address,device\n10.0.0.1\n", "line 2: expected the name of device 10.0.0.1, found ''"),
        ('address,device\n10.0.0.1,"a\nb"\n', "expected the name of device 10.0.0.1"),
        ("address,device\n10.0.0.1,Pump, room 7\n", "line 2: found 3 cells"),
        ('address,device\n10.0.0.1,"a"b\n', "line 2: not CSV"),
        ("address,device\n10.0.0.1,P\xfcmp\n".encode("latin-1"), "line 2: no UTF-8"),
        ("address,device\n10.0.0.1,Pump\n".encode("utf-16"), "line 1: no UTF-8"),
        (f"address,device\n{A_MAC},Monitor\n", "has MAC addresses only"),
    ],
)
def test_refused_inventories(tmp_path: Path, content: str | bytes, finding: str) -> None:
    with pytest.raises(InventoryRefused) as refusal:
        inventory(tmp_path, content)
    assert finding in str(refusal.value)
    assert "inventory.csv" in str(refusal.value)


def test_an_inventory_of_ip_addresses_only_is_refused_where_devices_are_known_by_mac(tmp_path: Path) -> None:
    with pytest.raises(InventoryRefused, match=r"set extract\.device=ip"):
        inventory(tmp_path, f"address,device\n{PUMP},Pump\n", by_mac=True)


def test_an_inventory_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(InventoryRefused, match=r"No such file|not found|does not exist"):
        read_inventory(str(tmp_path / "none.csv"))


def test_all_faults_of_an_inventory_are_named_at_once(tmp_path: Path) -> None:
    lines = "".join(f"10.0.0.{i},d\n" for i in range(300))
    with pytest.raises(InventoryRefused, match=r"line 258: .* and 34 more"):
        inventory(tmp_path, "address,device\n" + lines)


FULL = """address,device,type,department,patient_connected,criticality,owner,maintenance,room
10.20.0.5,Pump 7,infusion pump,Ward 3,Yes,high,Medical technology,Sun 23:00-02:00 | 02:00-03:00,12
02-00-00-00-00-0A,Pump 7,,,,,,,
10.20.7.9,Monitor,,,no,2,,,
"""


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def test_every_column_and_two_addresses_of_one_device(tmp_path: Path) -> None:
    path = tmp_path / "inventory.csv"
    path.write_text(FULL)
    found = read_inventory(str(path))
    pump, monitor = found.devices
    assert (pump.name, pump.keys) == ("Pump 7", (0x0A140005, 1 << 48 | 0x02000000000A))
    assert (pump.type, pump.department, pump.owner) == ("infusion pump", "Ward 3", "Medical technology")
    assert (pump.patient_connected, pump.criticality) == (True, 5)
    assert (monitor.type, monitor.patient_connected, monitor.criticality, monitor.windows) == (None, False, 2, ())
    assert found.ignored == ("room",)
    [note] = found.notes()
    assert "room" in note
    assert "maintenance" in note


@pytest.mark.parametrize(
    ("maintenance", "first", "last", "inside"),
    [
        ("Sun 02:00-04:00", "2026-11-29T02:00", "2026-11-29T03:59:59", True),
        ("Sun 02:00-04:00", "2026-11-29T02:00", "2026-11-29T04:00", False),
        ("Sunday 02:00-04:00", "2026-11-28T02:30", "2026-11-28T03:00", False),  # a Saturday
        ("Sun 23:00-02:00", "2026-11-29T23:30", "2026-11-30T01:59", True),
        ("Sun 23:00-02:00", "2026-11-30T00:10", "2026-11-30T01:59", True),
        ("Sun 23:00-02:00", "2026-11-29T00:10", "2026-11-29T01:59", False),
        ("20:00-24:00", "2026-11-27T20:00", "2026-11-27T23:59", True),
        ("2026-11-27T22:00/2026-11-28T02:00+01:00", "2026-11-28T00:30", "2026-11-28T00:59", True),
        ("2026-11-27T22:00/2026-11-28T02:00+01:00", "2026-11-28T00:30", "2026-11-28T01:00", False),
        ("Mon 01:00-02:00|Sun 02:00-04:00", "2026-11-29T02:00", "2026-11-29T03:00", True),
    ],
)
def test_times_of_maintenance_are_in_utc(tmp_path: Path, maintenance: str, first: str, last: str, inside: bool) -> None:
    path = tmp_path / "inventory.csv"
    path.write_text(f"address,device,maintenance\n{PUMP},Pump,{maintenance}\n")
    [device] = read_inventory(str(path)).devices
    assert any(window.contains(at(first), at(last)) for window in device.windows) == inside


def test_addresses_in_every_spelling() -> None:
    assert spellings(0x0A140005) == [PUMP]
    found = spellings(1 << 48 | 0x02000000000A)
    assert {A_MAC, "02-00-00-00-00-0A", "0200.0000.000a", "02000000000A"} <= set(found)


def test_the_example_in_conf_is_accepted() -> None:
    found = read_inventory(str(Path(__file__).parents[2] / "conf/inventory.csv"))
    assert found.notes() == []
    assert len(found.devices) == 5
    assert {device.criticality for device in found.devices} == {1, 4, 5}
