"""Nights of flow logs that were extracted from captures: columns, packets in footers, nights that are pending."""

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ids_spark.extract.footer import Extraction
from ids_spark.models import registry
from tests.support.browser import Page, numbers
from tests.support.nights import DATE, KEY, MODEL, another, audit, content_of, copy, night_row, read, score, stored

MAC, VICTIM, CAPTURE, FLOW = "02:00:5e:10:00:07", "10.9.8.7", "ward-3/tap.pcap", "0f1e2d3c"
NEXT, LAST = DATE + dt.timedelta(days=1), DATE + dt.timedelta(days=2)
PACKETS = {"ipv4": 4_800, "arp": 220, "ipv6": 900, "llc": 80}


def attack(nights: Path) -> pa.Table:
    """300 flows of attacks of the night as extracted ones: their source is an Ethernet address."""
    night = pa.concat_tables(
        pq.ParquetFile(path).read() for path in sorted((nights / "logs" / f"event_date={DATE}").glob("*.parquet"))
    )
    sources = night["src_ip"].cast(pa.string())
    attacks = pc.starts_with(sources, "203.0.113.")
    table = pa.concat_tables([night.filter(attacks).slice(0, 100), night.filter(pc.invert(attacks)).slice(0, 200)])
    of_attack = pa.array([True] * 100 + [False] * 200)
    table = table.set_column(
        table.column_names.index("src_ip"), "src_ip", pc.if_else(of_attack, None, table["src_ip"].cast(pa.string()))
    )
    table = table.set_column(
        table.column_names.index("flow_id"), "flow_id", pa.array([f"{FLOW}{i:04d}" for i in range(300)])
    )
    for name, value in (("src_mac", MAC), ("dst_ip", VICTIM), ("packets", 10), ("capture_file", CAPTURE)):
        table = table.append_column(name, pa.array([value] * 300))
    return table.combine_chunks()


def extraction(table: pa.Table, **more: Any) -> Extraction:
    known = {"window": 10, "capture": CAPTURE, "packets": PACKETS, "marks": {"tunnel": 7}, "single": 20}
    return Extraction(**(known | {"windows": len(table)} | more))


def put(folder: Path, table: pa.Table, of: Extraction | None, name: str = "a.parquet", date: dt.date = DATE) -> Path:
    path = folder / "logs" / f"event_date={date}" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata: Mapping[str, str] = {} if of is None else {"ids_spark.data_origin": "measured", **of.metadata()}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return path


@pytest.fixture(scope="module")
def flows(nights: Path) -> pa.Table:
    return attack(nights)


@pytest.fixture
def folder(nights: Path, tmp_path: Path) -> Path:
    """A lake with a model, without flow logs."""
    found = copy(nights, tmp_path / "night")
    for path in (found / "logs").rglob("*.parquet"):
        path.unlink()
    (found / "logs" / "_SYNTHETIC.json").unlink(missing_ok=True)
    return found


def test_packets_are_summed_from_footers_and_stand_in_table_audit_and_page(folder: Path, flows: pa.Table) -> None:
    put(folder, flows.slice(0, 200), extraction(flows.slice(0, 200)))
    put(folder, flows.slice(200), extraction(flows.slice(200), packets={"ipv4": 980}, marks={}, single=0), "b.parquet")
    nothing = extraction(flows.slice(0, 0), capture="c.pcap", packets={"ipv6": 2_000}, marks={}, single=0)
    put(folder, flows.slice(0, 0), nothing, "c.parquet")
    code, output = score(folder)
    assert code == 0, output
    row = night_row(folder)
    packets = row["packets"]
    assert (packets["captures"], packets["seen"], list(packets["window_lengths"])) == (2, 8_980, [10])
    assert [tuple(each.values()) for each in packets["invisible"]] == [("ipv6", 2_900), ("llc", 80), ("single", 20)]
    assert [tuple(each.values()) for each in packets["marks"]] == [("tunnel", 7)]
    assert [file["reason"] for file in row["files"]] == [None] * 3
    [note] = [note for note in audit(folder)["notes"] if "8,980 packets" in note]
    page = Page((folder / "lake/reports/night" / f"event_date={DATE}" / "night.html").read_text())
    assert numbers(page.text("packets"))[:4] == ["8,980", "2", "10", "33.4%"]
    assert page.text("packets") in note
    assert dict(page.all("data-issue")).keys() >= {"packets_invisible"}
    code, output = score(folder, "score.max_invisible_share=0.3")
    assert code == 3, output
    assert [each["reason"] for each in night_row(folder)["degraded"]] == ["packets_invisible"]


def test_an_ethernet_address_is_a_source_and_every_identifier_can_be_replaced(folder: Path, flows: pa.Table) -> None:
    put(folder, flows, extraction(flows))
    code, output = score(folder)
    assert code == 0, output
    predictions, incidents = read(folder, "predictions"), read(folder, "incidents")
    assert set(predictions["packets"]) == {"10"}
    assert set(predictions["capture_file"]) == {CAPTURE}
    sources = {(each["kind"], each["name"]) for row in incidents["sources"] for each in row}
    assert ("src_mac", MAC) in sources
    page = (folder / "lake/reports/night" / f"event_date={DATE}" / "night.html").read_text()
    assert f"MAC {MAC}" in page

    (folder / "key").write_text(KEY)
    (folder / "key").chmod(0o600)
    names = "flow_id,device_id,src_ip,src_mac,dst_ip,capture_file"
    code, output = score(folder, f"score.pseudonymise=[{names}]", f"score.pseudonym_key_file={folder}/key")
    assert code == 0, output
    for path, content in content_of(folder / "lake").items():
        if f"event_date={DATE}" in path and not path.endswith(".parquet"):
            assert all(text.encode() not in content for text in (MAC, VICTIM, CAPTURE, FLOW)), path
    tables = [read(folder, name) for name in ("predictions", "incidents", "evidence", "alerts")]
    assert all(text not in str(table.to_dict()) for table in tables for text in (MAC, VICTIM, CAPTURE, FLOW))


def test_flow_logs_of_other_kinds_have_no_further_columns_and_no_packets(folder: Path, flows: pa.Table) -> None:
    put(folder, flows.select([*flows.column_names[:-4]]), None)
    code, output = score(folder)
    assert code == 0, output
    columns = set(read(folder, "predictions"))
    assert {"flow_id", "event_time", "device_id", "src_ip"} <= columns
    assert columns.isdisjoint({"src_mac", "dst_ip", "packets", "capture_file"})
    assert night_row(folder)["packets"] is None


def test_flows_of_a_synthetic_capture_are_synthetic(folder: Path, flows: pa.Table) -> None:
    path = put(folder, flows, extraction(flows))
    table = pq.ParquetFile(path).read()
    marked = table.schema.metadata | {b"ids_spark.data_origin": b"synthetic"}
    pq.write_table(table.replace_schema_metadata(marked), path)
    assert score(folder)[0] == 0
    assert "synthetic" in str(audit(folder)["data_origin"])


def scored(output: str) -> list[str]:
    """Dates of the nights that a run scored."""
    return [line.split("night=")[1].split()[0] for line in output.splitlines() if line.startswith("scored night=")]


def pending(folder: Path, *settings: str) -> tuple[int, list[str], str]:
    code, output = score(folder, "score.pending_nights=true", *settings, date=None)
    return code, scored(output), output


def test_nights_are_pending_until_they_have_a_result_of_the_champion_for_their_files(
    folder: Path, flows: pa.Table
) -> None:
    for date in (NEXT, DATE):
        put(folder, flows, extraction(flows), date=date)
    (folder / "logs" / "event_date=today").mkdir()
    (folder / "logs" / f"event_date={LAST}").mkdir()
    code, dates, output = pending(folder)
    assert (code, dates) == (0, [str(DATE), str(NEXT)]), output
    code, dates, output = pending(folder)
    assert (code, dates) == (0, []), output
    assert f"{folder}/lake/reports/night" in output
    assert MODEL in output
    assert "nothing to score" in audit(folder)["notes"][0]
    (folder / "logs" / f"event_date={DATE}" / "README.md").write_text("holds no flows")
    assert pending(folder)[:2] == (0, [])

    put(folder, flows.slice(0, 50), extraction(flows.slice(0, 50)), "late.parquet", NEXT)
    code, dates, output = pending(folder)
    assert (code, dates) == (0, [str(NEXT)]), output
    assert night_row(folder, date=NEXT)["rows_late"] == 50
    put(folder, flows.slice(0, 60), extraction(flows.slice(0, 60)), "late.parquet", NEXT)
    assert pending(folder)[1] == [str(NEXT)]
    (folder / "logs" / f"event_date={NEXT}" / "late.parquet").unlink()
    assert pending(folder)[1] == [str(NEXT)]
    put(folder, flows, extraction(flows, stamp="of a changed setting, with equal rows"), date=NEXT)
    assert pending(folder)[:2] == (0, [str(NEXT)])
    assert pending(folder)[:2] == (0, [])

    second = another(folder, "29990101T000000Z-ffff")
    assert pending(folder)[:2] == (0, [])  # the champion has not changed
    models = f"{folder}/lake/models"
    aliases = registry.promote(models, MODEL, second.card.version, "champion", "run", dt.datetime.now(dt.UTC))
    assert aliases is not None
    (folder / "lake" / registry.aliases_path(MODEL)).write_bytes(aliases.to_json())
    assert pending(folder)[1] == [str(DATE), str(NEXT)]
    assert night_row(folder)["model_version"] == second.card.version != stored(folder, version=None).card.name


def test_a_pending_night_that_is_refused_stays_pending_and_does_not_stop_the_others(
    folder: Path, flows: pa.Table
) -> None:
    put(folder, flows, extraction(flows), date=DATE)
    put(folder, flows.drop_columns(["Rate"]), extraction(flows), date=NEXT)
    code, dates, output = pending(folder)
    assert (code, dates) == (3, [str(DATE)]), output
    code, dates, output = pending(folder)
    assert (code, dates) == (2, []), output
    assert "Rate" in output


def test_flow_logs_without_a_night_are_refused(folder: Path) -> None:
    for path in (folder / "logs").glob("event_date=*"):
        path.rmdir()
    code, _, output = pending(folder)
    assert code == 2
    assert "event_date=YYYY-MM-DD" in output
