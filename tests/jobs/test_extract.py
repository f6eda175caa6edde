"""Captures to flow logs by the job: rows as by hand, counts, replacement of captures, refusals."""

import datetime as dt
import gzip
import hashlib
import hmac
import json
import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dpkt
import pandas as pd
import pyarrow.parquet as pq
import pytest

from ids_spark.config.extract import PRIVATE_NETWORKS
from ids_spark.dataset.features import RELEASE_39
from ids_spark.extract.footer import Extraction, of_metadata
from tests.support import random_captures
from tests.support.frames import ARP, IPV6, Captured, arp, ethernet, ipv4, ipv6, pcap, pcapng, tcp
from tests.support.in_process import run
from tests.support.packet_reference import device_in, seen, windows

pytestmark = pytest.mark.usefixtures("spark")

DAY = 86_400 * 10**9
MAY_1 = int(dt.datetime(2024, 5, 1, tzinfo=dt.UTC).timestamp()) * 10**9
SECRET = b"PATIENT-4711-MARKER"


def traffic(packets: int, start: int = MAY_1, device: str = "10.0.0.7", step: int = 10**9) -> list[Captured]:
    """Packets of one device to a server, one each `step` nanoseconds, with a payload."""
    frame = ethernet(ipv4(tcp(flags="PA", payload=SECRET), device, "203.0.113.5"))
    return [Captured(frame, start + i * step) for i in range(packets)]


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def settle(folder: Path) -> None:
    """Make files look as if nobody writes to them any more."""
    for path in folder.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))


def extract(folder: Path, *settings: str, expected: int = 0) -> str:
    """Run the job on `folder`/pcaps and /logs; returns its log."""
    code, log = run(folder, "extract", f"extract.captures={folder}/pcaps", f"extract.target={folder}/logs", *settings)
    assert code == expected, log
    return log


def rows(folder: Path) -> pd.DataFrame:
    files = sorted((folder / "logs").glob("event_date=*/*.parquet"))
    frames = [pq.read_table(path, partitioning=None).to_pandas().assign(date=path.parent.name[11:]) for path in files]
    found = pd.concat(frames, ignore_index=True)
    return found.sort_values(["event_time", "flow_id"], ignore_index=True)


def footers(folder: Path) -> dict[str, list[Extraction]]:
    found: dict[str, list[Extraction]] = {}
    for path in sorted((folder / "logs").glob("event_date=*/*.parquet")):
        extraction = of_metadata(pq.read_schema(path).metadata, path.name)
        assert extraction is not None
        found.setdefault(path.parent.name[11:], []).append(extraction)
    return found


def audit(folder: Path) -> dict[str, Any]:
    newest = max((folder / "lake/audit").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    [row] = pq.read_table(newest).to_pylist()
    row["counted"] = {each["what"]: each["rows"] for each in row["counts"]}
    return row


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    files = (path for path in (folder / "logs").rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_ino) for path in files}


def require_reference(found: pd.DataFrame, packets: Sequence[Captured], window: int, by_device: bool = True) -> None:
    """Compare the rows of a capture with windows computed packet by packet."""
    visible = [each for each in map(seen, packets) if each is not None]
    expected, _ = windows(visible, window, device_in(PRIVATE_NETWORKS), by_device)
    assert len(found) == len(expected)
    keys = ["time", "device_id", "packets", "Tot sum", "IAT"]
    mine = found.assign(time=found["event_time"].astype("int64") // 1_000 * 1_000)
    if found["event_time"].dtype.unit == "us":
        mine["time"] = found["event_time"].astype("int64") * 1_000
    mine = mine.sort_values(keys, ignore_index=True)
    text = lambda number: ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))  # noqa: E731
    other = pd.DataFrame(
        [
            each.features
            | {
                "time": each.nanos // 1_000 * 1_000,
                "device_id": text(each.device),
                "packets": each.packets,
                "src_ip": None if each.source is None else text(each.source),
                "src_mac": each.source_mac.to_bytes(6, "big").hex(":") if each.source_mac else None,
                "dst_ip": text(each.target),
                "src_device": None,
            }
            for each in expected
        ]
    ).sort_values(keys, ignore_index=True)
    for name in (*RELEASE_39.features, "time", "device_id", "packets", "src_ip", "src_mac", "dst_ip", "src_device"):
        pd.testing.assert_series_equal(mine[name], other[name], check_dtype=False, rtol=1e-9, atol=0, obj=name)


@pytest.mark.parametrize(("window", "by"), [(10, "device"), (100, "device"), (7, "capture")])
def test_the_logs_of_spark_are_the_windows_computed_by_hand(tmp_path: Path, window: int, by: str) -> None:
    captures = {f"capture {i}.pcap": random_captures.capture(random.Random(i), 150 + 40 * i) for i in range(5)}
    for name, packets in captures.items():
        content = pcap(packets) if len(name) % 2 else pcapng(packets)
        write(tmp_path / "pcaps" / name, content)
    extract(tmp_path, f"extract.window={window}", f"extract.by={by}")
    found = rows(tmp_path)
    for name, packets in captures.items():
        in_microseconds = [Captured(p.frame, p.nanos // 1_000 * 1_000, p.length) for p in packets]
        require_reference(found[found["capture_file"] == name], in_microseconds, window, by == "device")
    assert found["flow_id"].is_unique
    assert found["flow_id"].str.fullmatch("[0-9a-f]{16}").all()
    dates = found["event_time"].dt.strftime("%Y-%m-%d")
    assert (dates == found["date"]).all()
    report = audit(tmp_path)
    assert report["rows_in"] == sum(map(len, captures.values()))
    assert report["rows_out"] == found["packets"].sum()
    assert report["rows_in"] == report["rows_out"] + report["rows_left_out"]
    assert report["counted"]["windows"] == len(found)


def test_every_packet_of_real_captures_is_counted(real_captures: Path, tmp_path: Path) -> None:
    for folder in sorted(path for path in real_captures.iterdir() if path.is_dir()):
        code, log = run(tmp_path, "extract", f"extract.captures={folder}", f"extract.target={tmp_path}/{folder.name}")
        assert code == 0, log
        packets = 0
        for path in (path for path in folder.rglob("*") if path.is_file()):
            reader = dpkt.pcapng.Reader if path.read_bytes()[:4] == b"\n\r\r\n" else dpkt.pcap.Reader
            with path.open("rb") as stream:
                packets += len(list(reader(stream)))
        report = audit(tmp_path)
        assert report["rows_in"] == packets
        assert report["rows_in"] == report["rows_out"] + report["rows_left_out"]
        logs = [pq.read_table(path, columns=["packets"]) for path in (tmp_path / folder.name).glob("event_date=*/*")]
        assert report["rows_out"] == sum(sum(table["packets"].to_pylist()) for table in logs)


def test_a_capture_in_pieces_has_the_packets_of_the_whole_one(tmp_path: Path) -> None:
    packets = [each for i in range(40) for each in traffic(800, MAY_1 + i * 10**6, f"10.0.0.{i + 1}", 10**8)]
    packets.sort(key=lambda packet: packet.nanos)
    padded = [Captured(packet.frame.ljust(1_000, b"\0"), packet.nanos) for packet in packets]
    write(tmp_path / "pcaps/big.pcap", pcap(padded))
    extract(tmp_path, "extract.piece_mb=3")
    found = rows(tmp_path)
    files = list((tmp_path / "logs/event_date=2024-05-01").iterdir())
    assert len(files) == -(-len(pcap(padded)) // 3_000_000) == 11
    assert found["packets"].sum() == len(packets)
    assert found["flow_id"].is_unique
    assert found.groupby("device_id")["packets"].sum().eq(800).all()
    assert [each.piece for each in footers(tmp_path)["2024-05-01"]] == list(range(11))


def test_every_packet_is_counted_once_for_each_date_and_file(tmp_path: Path) -> None:
    late = MAY_1 + DAY - 5 * 10**9
    crossing = traffic(25, late)  # windows of 10 begin 5 s before midnight, 5 s and 15 s after it
    others = [
        Captured(ethernet(ipv6(), IPV6), late),
        Captured(ethernet(ipv6(), IPV6), late + DAY),
        Captured(ethernet(arp(), ARP), late),
        Captured(ethernet()[:10], late),
    ]
    write(tmp_path / "pcaps/ward/a.pcap", pcap([*crossing, *others]))
    write(tmp_path / "pcaps/b.pcap", pcap(traffic(30, MAY_1)))
    extract(tmp_path)
    found = footers(tmp_path)
    first, second = ([*footer] for footer in (found["2024-05-01"], found["2024-05-02"]))
    a = [each for each in (*first, *second) if each.capture == "ward/a.pcap"]
    assert [(each.windows, each.single, dict(each.packets)) for each in a] == [
        (1, 1, {"ipv4": 5, "arp": 1, "ipv6": 1, "truncated": 1}),
        (2, 0, {"ipv4": 20, "ipv6": 1}),
    ]
    assert [dict(each.packets) for each in first if each.capture == "b.pcap"] == [{"ipv4": 30}]
    report = audit(tmp_path)
    assert (report["rows_in"], report["rows_out"], report["rows_left_out"]) == (59, 55, 4)
    counted = report["counted"]
    assert counted["windows"] == 6
    assert counted["packets in windows"] == 55
    assert counted["packets alone, in no window"] == 1
    assert counted["packets in no window: ipv6"] == 2
    assert counted["packets in no window: truncated"] == 1
    assert (counted["packets of 2024-05-01"], counted["packets of 2024-05-02"]) == (38, 21)
    assert any("ipv6" in note and "ward/a.pcap" in note for note in report["notes"])
    [line] = [line for line in report["inputs"] if line.startswith("ward/a.pcap")]
    assert "29 packets" in line
    assert "ipv6 2" in line


def test_packets_without_a_possible_time_and_dates_without_windows_are_counted(tmp_path: Path) -> None:
    impossible = (dt.datetime(2300, 1, 1, tzinfo=dt.UTC) - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)).days * DAY
    frame = traffic(1)[0].frame
    packets = [Captured(frame, impossible), *traffic(20), Captured(frame, impossible)]
    packets.append(Captured(ethernet(ipv6(), IPV6), MAY_1 + 3 * DAY))
    write(tmp_path / "pcaps/a.pcapng", pcapng(packets))
    extract(tmp_path)
    found = footers(tmp_path)
    assert {date: [dict(each.packets) for each in each_file] for date, each_file in found.items()} == {
        "2024-05-01": [{"ipv4": 20, "impossible_time": 2}],
        "2024-05-04": [{"ipv6": 1}],
    }
    assert audit(tmp_path)["rows_left_out"] == 3


def test_folders_of_dates_decide_the_date_whatever_the_time_of_packets(tmp_path: Path) -> None:
    write(tmp_path / "pcaps/event_date=2024-06-01/a.pcap", pcap(traffic(30, 0)))
    write(tmp_path / "pcaps/event_date=2024-06-02/a.pcap", pcap(traffic(20, MAY_1)))
    write(tmp_path / "pcaps/event_date=2024-13-01/a.pcap", pcap(traffic(20, MAY_1)))
    log = extract(tmp_path, expected=3)
    found = rows(tmp_path)
    assert found.groupby("date")["packets"].sum().to_dict() == {"2024-06-01": 30, "2024-06-02": 20}
    assert found["flow_id"].is_unique
    assert "event_date=2024-13-01/a.pcap" in log


def test_an_unchanged_capture_is_skipped_and_a_changed_or_late_one_replaces_its_rows_only(tmp_path: Path) -> None:
    write(tmp_path / "pcaps/a.pcap", pcap(traffic(40, MAY_1 + DAY - 15 * 10**9)))  # two dates
    write(tmp_path / "pcaps/b.pcap", pcap(traffic(20, MAY_1, "10.0.0.8")))
    extract(tmp_path)
    before = rows(tmp_path)
    state = snapshot(tmp_path)
    extract(tmp_path)
    assert snapshot(tmp_path) == state
    assert audit(tmp_path)["rows_in"] == 0

    write(tmp_path / "pcaps/a.pcap", pcap(traffic(10)))  # one date fewer
    write(tmp_path / "pcaps/late.pcap", pcap(traffic(20, MAY_1, "10.0.0.9")))
    extract(tmp_path)
    after = rows(tmp_path)
    assert after.groupby("capture_file")["packets"].sum().to_dict() == {"a.pcap": 10, "b.pcap": 20, "late.pcap": 20}
    assert set(after["date"]) == {"2024-05-01"}
    assert not (tmp_path / "logs/event_date=2024-05-02").exists()
    of_b = before[before["capture_file"] == "b.pcap"].reset_index(drop=True)
    pd.testing.assert_frame_equal(after[after["capture_file"] == "b.pcap"].reset_index(drop=True), of_b)
    assert audit(tmp_path)["rows_in"] == 30

    extract(tmp_path, "extract.window=5")
    assert set(rows(tmp_path)["packets"]) == {5}
    assert audit(tmp_path)["rows_in"] == 50
    extract(tmp_path, "extract.window=5", "extract.again=true")
    assert audit(tmp_path)["rows_in"] == 50
    next((tmp_path / "logs/event_date=2024-05-01").iterdir()).unlink()
    extract(tmp_path, "extract.window=5")
    assert rows(tmp_path)["packets"].sum() == 50

    (tmp_path / "pcaps/b.pcap").unlink()
    assert "b.pcap" in extract(tmp_path, "extract.window=5")
    assert rows(tmp_path)["packets"].sum() == 50


@pytest.mark.parametrize("join", ["false", "true"])
def test_a_capture_that_is_packed_after_a_run_replaces_its_rows(tmp_path: Path, join: str) -> None:
    """As `tcpdump -z gzip` does after each rotation: what was read of the hour before stood beside the packed file."""
    whole = pcap(traffic(40, MAY_1 + DAY - 15 * 10**9))  # two dates
    write(tmp_path / "pcaps/00.pcap", whole[: len(whole) // 2])
    write(tmp_path / "pcaps/other.pcap", pcap(traffic(20, MAY_1, "10.0.0.8")))
    extract(tmp_path, f"extract.join_files={join}")
    assert rows(tmp_path)["packets"].sum() < 60
    (tmp_path / "pcaps/00.pcap").unlink()
    write(tmp_path / "pcaps/00.pcap.gz", gzip.compress(whole))
    extract(tmp_path, f"extract.join_files={join}")
    found = rows(tmp_path)
    assert set(found["capture_file"]) == {"00.pcap.gz", "other.pcap"}
    assert found.groupby("capture_file")["packets"].sum().to_dict() == {"00.pcap.gz": 40, "other.pcap": 20}
    state = snapshot(tmp_path)
    extract(tmp_path, f"extract.join_files={join}")
    assert snapshot(tmp_path) == state
    assert not any("no longer there" in note for note in audit(tmp_path)["notes"])


def test_one_date_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    write(tmp_path / "pcaps/a.pcap", pcap(traffic(40, MAY_1 + DAY - 20 * 10**9)))
    write(tmp_path / "pcaps/event_date=2024-05-02/b.pcap", pcap(traffic(20)))
    write(tmp_path / "pcaps/event_date=2024-05-03/c.pcap", pcap(traffic(20)))
    extract(tmp_path, "extract.date=2024-05-02")
    assert rows(tmp_path).groupby("capture_file")["packets"].sum().to_dict() == {
        "a.pcap": 20,
        "event_date=2024-05-02/b.pcap": 20,
    }
    report = audit(tmp_path)
    assert (report["rows_in"], report["rows_out"], report["counted"]["packets of other dates"]) == (60, 40, 20)
    state = snapshot(tmp_path)
    extract(tmp_path, "extract.date=2024-05-02")
    assert snapshot(tmp_path) == state
    assert "no capture has a packet of 2024-05-07" in extract(tmp_path, "extract.date=2024-05-07")
    extract(tmp_path, "extract.date=2024-05-01")
    after = snapshot(tmp_path)
    kept = {path: stat for path, stat in state.items() if path.startswith("logs/event_date")}
    assert kept.items() <= after.items()
    extract(tmp_path)
    assert rows(tmp_path).groupby("date")["packets"].sum().to_dict() == {
        "2024-05-01": 20,
        "2024-05-02": 40,
        "2024-05-03": 20,
    }


def test_a_broken_capture_costs_what_follows_its_break_and_other_files_are_named(tmp_path: Path) -> None:
    whole = pcap(traffic(100))
    one = (len(whole) - 24) // 100
    write(tmp_path / "pcaps/cut.pcap", whole[: 24 + 55 * one + 7])
    write(tmp_path / "pcaps/cut.gz", gzip.compress(whole)[:-100])
    write(tmp_path / "pcaps/text.pcap", b"hello\n")
    write(tmp_path / "pcaps/good.pcap", whole)
    settle(tmp_path / "pcaps")
    log = extract(tmp_path, expected=3)
    packets = rows(tmp_path).groupby("capture_file")["packets"].sum()
    assert packets["cut.pcap"] == 55
    assert packets["good.pcap"] == 100
    report = audit(tmp_path)
    assert report["status"] == "degraded"
    notes = "\n".join(report["notes"])
    assert f"cut.pcap: the file ends within a record at byte {24 + 55 * one:,}; 7 byte(s)" in notes
    assert "text.pcap" in log
    assert "hello" not in log  # the first line of a text can be anything
    extract(tmp_path, expected=3)  # unchanged, but there is still a file that is no capture
    assert audit(tmp_path)["rows_in"] == 0


def test_damage_is_named_at_once_in_one_line_whatever_the_name_of_the_file(tmp_path: Path) -> None:
    name = "a\n2024-05-01 00:00:00,000 INFO    nothing was lost.pcap"
    write(tmp_path / "pcaps" / name, pcap(traffic(20)) + b"\xff" * 16)  # modified now, but no writer ends a file so
    write(tmp_path / "pcaps" / f"b{name}", b"\nfoo")
    log = extract(tmp_path, expected=3)
    assert audit(tmp_path)["status"] == "degraded"
    assert "4,294,967,295 captured bytes" in log
    assert "\n2024-05-01" not in log
    (tmp_path / "pcaps" / name).write_bytes(pcap(traffic(20))[:10])
    settle(tmp_path / "pcaps")
    log = extract(tmp_path, f"extract.target={tmp_path}/other", expected=2)
    assert "\n2024-05-01" not in log


@pytest.mark.parametrize("join", ["false", "true"])
def test_a_capture_that_is_still_written_is_read_up_to_its_end_and_again_by_the_next_run(
    tmp_path: Path, join: str
) -> None:
    whole = pcap(traffic(100))
    write(tmp_path / "pcaps/now.pcap", whole[:-7])
    write(tmp_path / "pcaps/next.pcap", b"")
    write(tmp_path / "pcaps/half.pcap", whole[:10])
    log = extract(tmp_path, f"extract.join_files={join}")
    assert rows(tmp_path)["packets"].sum() == 99
    assert "now.pcap: modified in the last ten minutes" in log
    settle(tmp_path / "pcaps")
    os.utime(tmp_path / "pcaps/now.pcap", (1_700_000_001, 1_700_000_001))
    log = extract(tmp_path, f"extract.join_files={join}", expected=3)  # nothing writes to it any more
    assert audit(tmp_path)["rows_in"] == 99
    assert "now.pcap: the file ends within a record" in log
    assert "half.pcap" in log
    for name in ("next", "half"):
        (tmp_path / f"pcaps/{name}.pcap").unlink()
    write(tmp_path / "pcaps/now.pcap", whole)
    extract(tmp_path, f"extract.join_files={join}")
    assert rows(tmp_path)["packets"].sum() == 100


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["extract.captures={folder}/nowhere"], "no such folder; set extract.captures"),
        (["extract.target={folder}/pcaps"], "in the folder of captures"),
        (["extract.target={folder}/pcaps/logs"], "in the folder of captures"),
        (["extract.target={folder}/link/logs"], "in the folder of captures"),
        (["extract.inventory={folder}/nowhere.csv"], "nowhere.csv"),
        (["extract.captures={folder}/empty"], "found no capture"),
        (["extract.target={folder}/file/logs"], "expected a folder that can be written"),
        (["extract.captures={folder}/other"], "no file can be read as a capture"),
    ],
)
def test_a_run_that_cannot_work_is_refused_with_what_to_do(tmp_path: Path, settings: list[str], message: str) -> None:
    write(tmp_path / "pcaps/a.pcap", pcap(traffic(20)))
    (tmp_path / "link").symlink_to(tmp_path / "pcaps")
    (tmp_path / "empty").mkdir()
    write(tmp_path / "file", b"")
    write(tmp_path / "other/a.pcap", b"hello\n")
    log = extract(tmp_path, *(setting.format(folder=tmp_path) for setting in settings), expected=2)
    assert message in log
    assert not (tmp_path / "logs").exists()
    assert not (tmp_path / "pcaps/logs").exists()


def test_synthetic_captures_make_synthetic_logs_and_are_not_mixed_with_measured_ones(tmp_path: Path) -> None:
    write(tmp_path / "pcaps/a.pcap", pcap(traffic(20)))
    extract(tmp_path)
    write(tmp_path / "pcaps/_SYNTHETIC.json", b'{"synthetic": true}')
    assert "holds measured flow logs" in extract(tmp_path, expected=2)
    shutil.rmtree(tmp_path / "logs")
    extract(tmp_path)
    assert json.loads((tmp_path / "logs/_SYNTHETIC.json").read_text())["data_origin"] == "synthetic"
    [path] = (tmp_path / "logs").glob("event_date=*/*.parquet")
    assert pq.read_schema(path).metadata[b"ids_spark.data_origin"] == b"synthetic"
    assert audit(tmp_path)["data_origin"] == "synthetic"
    (tmp_path / "pcaps/_SYNTHETIC.json").unlink()
    assert "holds synthetic flow logs" in extract(tmp_path, expected=2)


def test_nothing_of_a_payload_is_stored(tmp_path: Path) -> None:
    write(tmp_path / "pcaps/a.pcap", pcap(traffic(50)))
    extract(tmp_path)
    extract(tmp_path, f"extract.target={tmp_path}/joined", "extract.join_files=true")
    files = [path for name in ("logs", "joined", "lake") for path in (tmp_path / name).rglob("*") if path.is_file()]
    assert len(files) > 4
    assert not [path for path in files if SECRET in path.read_bytes()]


def test_joined_files_have_the_windows_of_one_capture(tmp_path: Path) -> None:
    packets = sorted(
        (each for i in range(9) for each in traffic(61, MAY_1 + i * 10**6, f"10.0.0.{i + 1}")), key=lambda p: p.nanos
    )
    packets.append(Captured(ethernet(ipv6(), IPV6), MAY_1))
    for i in range(4):  # every capture has packets of every device
        write(tmp_path / f"pcaps/{i}.pcap", pcap(packets[i::4]))
    extract(tmp_path, "extract.join_files=true")
    found = rows(tmp_path)
    require_reference(found, packets, 10)
    assert set(found["capture_file"]) <= {f"{i}.pcap" for i in range(4)}
    report = audit(tmp_path)
    assert (report["rows_in"], report["rows_out"], report["rows_left_out"]) == (550, 549, 1)
    kinds = [dict(each.packets) for each in footers(tmp_path)["2024-05-01"]]
    assert sum(each.get("ipv4", 0) for each in kinds) == 549
    assert sum(each.get("ipv6", 0) for each in kinds) == 1
    state = snapshot(tmp_path)
    extract(tmp_path, "extract.join_files=true")
    assert snapshot(tmp_path) == state
    assert "extract.join_files=true" in extract(tmp_path, expected=2)

    write(tmp_path / "pcaps/late.pcap", pcap(traffic(30, MAY_1 + DAY, "10.0.0.99")))
    extract(tmp_path, "extract.join_files=true")
    assert rows(tmp_path).groupby("date")["packets"].sum().to_dict() == {"2024-05-01": 549, "2024-05-02": 30}
    (tmp_path / "pcaps/0.pcap").unlink()
    assert "0.pcap" in extract(tmp_path, "extract.join_files=true", expected=3)
    assert rows(tmp_path).groupby("date")["packets"].sum().to_dict() == {"2024-05-01": 549, "2024-05-02": 30}


def test_joined_files_keep_the_dates_of_folders_and_name_files_that_end_early(tmp_path: Path) -> None:
    write(tmp_path / "pcaps/event_date=2024-06-01/a.pcap", pcap(traffic(15, 0)))
    whole = pcap(traffic(15, 0, "10.0.0.8"))
    write(tmp_path / "pcaps/event_date=2024-06-02/b.pcap", whole[:-1])
    single = [Captured(ethernet(arp(), ARP), 0)]
    write(tmp_path / "pcaps/event_date=2024-06-03/c.pcap", pcap(single))
    settle(tmp_path / "pcaps")
    log = extract(tmp_path, "extract.join_files=true", expected=3)
    assert rows(tmp_path).groupby("date")["packets"].sum().to_dict() == {"2024-06-01": 15, "2024-06-02": 14}
    assert sum(each.single for each in footers(tmp_path)["2024-06-03"]) == 1
    assert "b.pcap: the file ends within a record" in log


def test_captures_of_another_folder_do_not_replace_those_of_the_same_name(tmp_path: Path) -> None:
    write(tmp_path / "pcaps/a.pcap", pcap(traffic(20)))
    write(tmp_path / "others/a.pcap", pcap(traffic(30)))
    extract(tmp_path)
    log = extract(tmp_path, f"extract.captures={tmp_path}/others", expected=2)
    assert "holds the flow logs of a.pcap of " in log
    assert f"{tmp_path}/pcaps, which captures of the same names" in log
    assert rows(tmp_path)["packets"].sum() == 20
    (tmp_path / "pcaps").rename(tmp_path / "moved")
    extract(tmp_path, f"extract.captures={tmp_path}/moved")
    assert rows(tmp_path)["packets"].sum() == 20
    write(tmp_path / "moved/broken.pcap", pcap(traffic(20))[:-5])
    settle(tmp_path / "moved")
    extract(tmp_path, f"extract.captures={tmp_path}/moved", expected=3)
    again = extract(tmp_path, f"extract.captures={tmp_path}/moved")
    assert "1 of them cannot be read to their end: broken.pcap" in again


@pytest.mark.parametrize("join", ["false", "true"])
def test_an_inventory_names_devices_and_a_change_of_it_extracts_again(tmp_path: Path, join: str) -> None:
    write(tmp_path / "pcaps/a.pcap", pcap(traffic(20)))
    inventory = f"extract.inventory={tmp_path}/devices.csv"
    write(tmp_path / "devices.csv", b"address,device\n10.0.0.7,pump-1\n")
    extract(tmp_path, inventory, f"extract.join_files={join}")
    assert set(rows(tmp_path)["device_id"]) == {"pump-1"}
    before = footers(tmp_path)
    write(tmp_path / "devices.csv", b"address,device\n10.0.0.7,pump-2\n")
    extract(tmp_path, inventory, f"extract.join_files={join}")
    assert set(rows(tmp_path)["device_id"]) == {"pump-2"}
    assert set(rows(tmp_path)["src_device"].fillna("")) <= {"pump-2", ""}
    for date, extractions in footers(tmp_path).items():  # by which scoring notices that rows have changed
        assert {each.stamp for each in extractions}.isdisjoint(each.stamp for each in before[date])


def test_a_capture_with_times_on_too_many_dates_is_refused_and_others_are_not(tmp_path: Path) -> None:
    write(tmp_path / "pcaps/clock.pcap", pcap([p for i in range(1_001) for p in traffic(2, i * DAY)]))
    write(tmp_path / "pcaps/good.pcap", pcap(traffic(20)))
    log = extract(tmp_path, expected=3)
    assert "more than 1,000 dates" in log
    assert set(rows(tmp_path)["capture_file"]) == {"good.pcap"}
    write(tmp_path / "pcaps/event_date=2024-05-09/clock.pcap", (tmp_path / "pcaps/clock.pcap").read_bytes())
    (tmp_path / "pcaps/clock.pcap").unlink()
    extract(tmp_path)
    assert rows(tmp_path).groupby("date")["packets"].sum()["2024-05-09"] == 2_002


@pytest.mark.parametrize("join", ["false", "true"])
def test_a_capture_that_can_no_longer_be_read_keeps_its_logs(tmp_path: Path, join: str) -> None:
    write(tmp_path / "pcaps/a.pcap", pcap(traffic(20)))
    extract(tmp_path, f"extract.join_files={join}")
    write(tmp_path / "pcaps/a.pcap", pcap([p for i in range(1_001) for p in traffic(2, i * DAY)]))
    extract(tmp_path, f"extract.join_files={join}", expected=2)
    assert rows(tmp_path)["packets"].sum() == 20
    write(tmp_path / "pcaps/b.pcap", pcap(traffic(30, MAY_1 + DAY, "10.0.0.8")))
    extract(tmp_path, f"extract.join_files={join}", expected=3)
    assert rows(tmp_path).groupby("date")["packets"].sum().to_dict() == {"2024-05-01": 20, "2024-05-02": 30}


def test_with_a_key_names_of_captures_are_in_neither_log_nor_audit(tmp_path: Path) -> None:
    marker, key = "patient-4711-tap", "0123456789abcdef0123456789abcdef-key-of-a-test"
    (tmp_path / "key").write_text(key)
    (tmp_path / "key").chmod(0o600)
    content = pcap(traffic(30))
    for name, part in {"a": content, "cut": content[:-40], "garbage": b"no capture" * 9, "empty": b""}.items():
        write(tmp_path / "pcaps" / f"{marker}-{name}.pcap", part)
    write(tmp_path / "pcaps" / f"{marker}.odt", b"x")
    settle(tmp_path / "pcaps")
    settings = ("score.pseudonymise=null", f"score.pseudonym_key_file={tmp_path}/key")
    log = extract(tmp_path, *settings, expected=3)
    os.unlink(tmp_path / "pcaps" / f"{marker}-a.pcap")
    log += extract(tmp_path, *settings, expected=3)
    assert "no longer there" in log
    assert marker not in log
    audits = [pq.read_table(path, partitioning=None).to_pylist() for path in (tmp_path / "lake/audit").iterdir()]
    assert marker not in str(audits)
    names = [
        hmac.new(key.encode(), f"{marker}-{name}.pcap".encode(), hashlib.sha256).hexdigest() for name in ("a", "cut")
    ]
    assert all(f"{name[:32]}.pcap" in str(audits) for name in names)
