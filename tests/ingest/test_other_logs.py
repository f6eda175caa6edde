"""Logs of other programs: recognised by first bytes or column names, and refused by name wherever they are given."""

import datetime as dt
import gzip
import json
import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ids_spark.config.score import ScoreConfig
from ids_spark.config.settings import IngestConfig
from ids_spark.dataset.columns import ColumnNames
from ids_spark.dataset.features import FEATURE_SCHEMAS, RELEASE_39, SchemaMismatch
from ids_spark.ingest import files, other_logs
from ids_spark.ingest.sources import SourceUnusable, discover
from ids_spark.score import degradation, night_files
from tests.support.flows import synthetic_frame, write_synthetic_source

DATE = dt.date(2026, 3, 1)
TIME = 1_770_000_000
ZEEK = (
    b"#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tconn\n#open\t2026-02-02\n"
    b"#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tduration\torig_bytes\n"
    b"1770000000.1\tCx1\t192.0.2.1\t40000\t192.0.2.2\t80\ttcp\t0.5\t120\n"
)
ZEEK_JSON = (json.dumps({"ts": TIME, "uid": "Cx1", "id.orig_h": "192.0.2.1", "id.resp_h": "192.0.2.2"}) + "\n").encode()
EVE = {
    "timestamp": "2026-02-02T02:40:00",
    "flow_id": 7,
    "in_iface": "eth0",
    "event_type": "flow",
    "src_ip": "192.0.2.1",
}
NSG = {"records": [{"time": "2026-02-02T02:40:00Z", "category": "NetworkSecurityGroupFlowEvent", "properties": {}}]}
GOOGLE = {"insertId": "a", "jsonPayload": {"bytes_sent": "10", "connection": {"src_ip": "192.0.2.1"}}}
VPC_NAMES = "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action"
VPC_LINE = (
    "2 123456789010 eni-1235b8ca123456789 192.0.2.1 192.0.2.2 20641 22 6 20 4249 1418530010 1418530070 ACCEPT OK\n"
)
NFDUMP = "ts,te,td,sa,da,sp,dp,pr,flg,fwd,stos,ipkt,ibyt,opkt,obyt,in,out,sas,das\n2026-02-02 02:40:00,,0.1,192.0.2.1\n"
CIC = (
    "Flow ID,Src IP,Src Port,Dst IP,Protocol,Timestamp,Flow Duration,Total Fwd Packet,Total Bwd packets,Flow Bytes/s\n"
)
ARGUS = "StartTime,Dur,Proto,SrcAddr,Sport,Dir,DstAddr,Dport,State,sTos,dTos,TotPkts,TotBytes,SrcBytes,Label\n"
V5 = struct.pack(">HHIIIIBBH", 5, 2, 1_000, TIME, 0, 7, 0, 0, 0) + bytes(96)
V9 = struct.pack(">HHIIII", 9, 1, 1_000, TIME, 7, 1) + struct.pack(">HH", 0, 24) + bytes(20)
IPFIX = struct.pack(">HHIII", 10, 40, TIME, 7, 1) + struct.pack(">HH", 2, 24) + bytes(20)
CONTENT = {
    "zeek_log": [ZEEK, ZEEK_JSON, gzip.compress(ZEEK), b"#fields\tts\tquery\n1\ta\n"],
    "suricata_log": [json.dumps(EVE).encode(), b"[" + json.dumps(EVE).encode() + b"]"],
    "netflow": [V5, V9, IPFIX, NFDUMP.encode(), b"\x0c\xa5\x01\x00" + bytes(60), b"\x0c\xa5\x02\x00" + bytes(60)],
    "silk": [b"\xde\xad\xbe\xef" + bytes(60)],
    "vpc_flow_log": [
        f"{VPC_NAMES} log-status\n{VPC_LINE}".encode(),
        VPC_LINE.encode(),
        gzip.compress(VPC_LINE.encode()),
    ],
    "google_flow_log": [json.dumps(GOOGLE).encode()],
    "azure_flow_log": [json.dumps(NSG).encode()],
    "cicflowmeter": [CIC.encode()],
    "argus": [ARGUS.encode()],
}
VPC_COLUMNS = [name.replace("-", "_") for name in VPC_NAMES.split()]


@pytest.mark.parametrize(("key", "head"), [(key, head) for key, heads in CONTENT.items() for head in heads])
def test_a_log_is_recognised_by_its_first_bytes(key: str, head: bytes) -> None:
    found = other_logs.by_content(head[:4096])
    assert found is not None
    assert found.key == key
    assert "its rows describe connections, the features describe windows of packets" in found.reason


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x1f\x8b",  # gzip that ends at once
        b"{",
        b'{"id": "a", "name": "b"}',
        b"# Heading\n\ntext about event_type\n",
        b"\xd4\xc3\xb2\xa1\x02\x00\x04\x00" + bytes(16),
        b"PAR1" + bytes(40),
        struct.pack(">HHIIIIBBH", 5, 2, 1_000, 7, 0, 7, 0, 0, 0),  # a time in 1970
        struct.pack(">HHIIIIBBH", 5, 31, 1_000, TIME, 0, 7, 0, 0, 0),  # more flows than a datagram holds
        struct.pack(">HHIII", 10, 40, TIME, 7, 1) + struct.pack(">HH", 4, 24) + bytes(20),  # set ids 4 to 255: none
        b"".join(f"{name},".encode() for name in RELEASE_39.features) + b"srcaddr,dstaddr,srcport,dstport\n",
    ],
)
def test_other_bytes_are_no_log(head: bytes) -> None:
    assert other_logs.by_content(head) is None


@pytest.mark.parametrize("schema", FEATURE_SCHEMAS.values(), ids=FEATURE_SCHEMAS)
def test_columns_of_another_log_beside_the_features_are_no_reason(schema) -> None:
    beside = ["srcaddr", "dstaddr", "srcport", "dstport", "ts", "id.orig_h", "id.resp_h"]
    assert other_logs.by_columns(ColumnNames([*schema.features, *beside])) is None
    renamed = {f"x{i}": feature for i, feature in enumerate(schema.features)}
    assert other_logs.by_columns(ColumnNames([*renamed, *beside], renamed)) is None
    found = other_logs.by_columns(ColumnNames([*renamed, *beside]))
    assert found is not None
    assert found.key == "netflow"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("train/Benign_train.csv", ZEEK, "a log of Zeek: its rows describe connections"),
        ("train/Benign_train.csv", CIC.encode(), "a table of CICFlowMeter"),
        ("train/Benign_train.csv.gz", gzip.compress(NFDUMP.encode()), "NetFlow or IPFIX"),
    ],
)
def test_a_table_of_a_source_that_is_another_log_refuses_the_source(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceUnusable) as refused:
        discover(IngestConfig(source=str(tmp_path)))
    assert f"{name} is not read: {reason}" in str(refused.value)
    assert "jobs/extract.py" in str(refused.value)


def test_logs_and_captures_beside_the_tables_of_a_source_are_named_and_alone_they_are_refused(tmp_path: Path) -> None:
    write_synthetic_source(tmp_path / "flows", rows=5)
    beside = {
        "conn.log": ZEEK,
        "conn.log.gz": gzip.compress(ZEEK),
        "eve.json": json.dumps(EVE).encode(),
        "run.log": b"ok",
    }
    beside |= {"a.pcap": b"\xd4\xc3\xb2\xa1" + bytes(20), "nfcapd.202602020240": b"\x0c\xa5\x01\x00" + bytes(60)}
    for folder in ("flows", "alone"):
        (tmp_path / folder).mkdir(exist_ok=True)
        for name, content in beside.items():
            (tmp_path / folder / name).write_bytes(content)
    reasons = {file.name: file.reason for file in discover(IngestConfig(source=str(tmp_path / "flows"))).unread}
    assert reasons == {
        "conn.log": "zeek_log_beside",
        "conn.log.gz": "zeek_log_beside",
        "eve.json": "suricata_log_beside",
        "run.log": "document",
        "a.pcap": "packet_capture_beside",
        "nfcapd.202602020240": "netflow_beside",
    }
    with pytest.raises(SourceUnusable) as refused:
        discover(IngestConfig(source=str(tmp_path / "alone")))
    assert "found no .csv or .parquet file" in str(refused.value)
    assert "a.pcap: a packet capture, not flows; extract its features first: jobs/extract.py" in str(refused.value)
    assert "conn.log, conn.log.gz: a log of Zeek" in str(refused.value)
    with pytest.raises(SourceUnusable, match=r"not read: a\.pcap: a packet capture"):
        discover(IngestConfig(source=str(tmp_path / "alone" / "a.pcap")))


def night(folder: Path) -> ScoreConfig:
    (folder / f"event_date={DATE}").mkdir(parents=True)
    return ScoreConfig(flow_logs=str(folder), date=DATE)


def test_flow_logs_of_a_night_with_the_columns_of_another_log_are_refused_by_name(tmp_path: Path) -> None:
    config = night(tmp_path)
    path = tmp_path / f"event_date={DATE}" / "flows.parquet"
    pq.write_table(pa.table({name: ["1"] for name in VPC_COLUMNS}), path)
    with pytest.raises(SchemaMismatch) as refused:
        night_files.find_night(config, DATE, RELEASE_39, RELEASE_39.features)
    assert "flows.parquet is a VPC flow log of Amazon: its rows describe connections" in str(refused.value)
    assert "jobs/extract.py" in str(refused.value)
    assert "column_aliases" not in str(refused.value)
    frame = synthetic_frame(3, seed=1, schema="release39")
    frame.to_parquet(path.with_name("own.parquet"), index=False)
    path.with_name("cic.csv").write_text(CIC)
    path.with_name("plain.csv").write_text("a,b\n1,2\n")
    path.with_name("conn.log").write_bytes(ZEEK)
    found = night_files.find_night(config, DATE, RELEASE_39, RELEASE_39.features)
    assert found is not None
    assert {file.name: (file.rows, file.reason) for file in found.files} == {
        "flows.parquet": (1, "vpc_flow_log"),
        "own.parquet": (3, None),
        "cic.csv": (0, "cicflowmeter"),
        "plain.csv": (0, "csv"),
        "conn.log": (0, "zeek_log_beside"),
    }
    assert {file.name for file in found.flow_files} == {"flows.parquet", "own.parquet", "cic.csv", "plain.csv"}


def test_a_night_that_holds_only_logs_and_captures_says_so(tmp_path: Path) -> None:
    config = night(tmp_path)
    folder = tmp_path / f"event_date={DATE}"
    (folder / "conn.log").write_bytes(ZEEK)
    (folder / "a.pcap").write_bytes(b"\x0a\x0d\x0d\x0a" + bytes(40))
    assert night_files.find_night(config, DATE, RELEASE_39, RELEASE_39.features) is None
    text = degradation.not_found(config, DATE)
    assert "not read: conn.log: a log of Zeek" in text
    assert "not read: a.pcap: a packet capture, not flows; extract its features first: jobs/extract.py" in text


def test_captures_in_the_folder_of_all_nights_or_in_its_place_are_named(tmp_path: Path) -> None:
    for name, content in (("a.pcap", b"\xd4\xc3\xb2\xa1" + bytes(40)), ("conn.log", ZEEK), ("notes.txt", b"text")):
        (tmp_path / name).write_bytes(content)
    text = degradation.not_found(ScoreConfig(flow_logs=str(tmp_path), date=DATE), DATE)
    assert "not read: a.pcap: a packet capture, not flows; extract its features first: jobs/extract.py" in text
    assert "not read: conn.log: a log of Zeek" in text
    assert "notes.txt" not in text
    text = degradation.not_found(ScoreConfig(flow_logs=str(tmp_path / "a.pcap"), date=DATE), DATE)
    assert "not read: a.pcap: a packet capture" in text


def test_every_reason_has_a_text_and_files_beside_tables_are_no_loss() -> None:
    for log in other_logs.OTHER_LOGS:
        assert log.reason in files.REASONS[log.key] == files.REASONS[f"{log.key}_beside"]
        assert f"{log.key}_beside" in files.HARMLESS
        assert log.key not in files.HARMLESS
