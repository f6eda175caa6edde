"""Captures of a folder: found by content, dated by folders, cut in pieces; every other file with its reason."""

import datetime as dt
import gzip
import os
from pathlib import Path

import pytest

from ids_spark.base.errors import InputError
from ids_spark.extract.capture_files import Capture, find_captures, key_of, pieces_of
from tests.support.frames import Captured, ethernet, ipv4, pcap, pcapng, udp

PACKETS = [Captured(ethernet(ipv4(udp(), protocol=17)), i * 10**9) for i in range(20)]
CAPTURE = pcap(PACKETS)


def write(folder: Path, files: dict[str, bytes]) -> str:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return str(folder)


def test_captures_are_found_by_content_whatever_their_name(tmp_path):
    folder = write(
        tmp_path,
        {
            "b.pcap": CAPTURE,
            "a.pcapng": pcapng(PACKETS),
            "c.gz": gzip.compress(CAPTURE),
            "deep/er/snort.log.1700000000": pcap(PACKETS[1:]),
            "no ending": pcap(PACKETS[2:]),
            "notes.txt": pcap(PACKETS[3:]),
            "line\nbreak'\"\t.pcap": pcap(PACKETS[4:]),
            "x" * 200 + "/" + "y" * 200: pcap(PACKETS[5:]),
        },
    )
    found = find_captures(f"{folder}/")
    assert found.refused == ()
    names = [capture.name for capture in found.captures]
    assert names == sorted(names)
    assert len(names) == 8
    by_name = {capture.name: capture for capture in found.captures}
    assert [by_name[name].divisible for name in ("b.pcap", "a.pcapng", "c.gz")] == [True, False, False]
    assert by_name["b.pcap"].size == len(CAPTURE)
    assert by_name["b.pcap"].modified == (tmp_path / "b.pcap").stat().st_mtime_ns
    assert {capture.date for capture in found.captures} == {None}


def test_the_same_name_in_two_folders_is_two_captures(tmp_path):
    folder = write(tmp_path, {"a/x.pcap": CAPTURE, "b/x.pcap": pcap(PACKETS[::-1])})
    keys = {capture.key for capture in find_captures(folder).captures}
    assert keys == {key_of("a/x.pcap"), key_of("b/x.pcap")}
    assert all(len(key) == 16 and set(key) <= set("0123456789abcdef") for key in keys)


def test_a_capture_under_several_names_is_read_once(tmp_path):
    folder = write(
        tmp_path,
        {
            "trace.pcap": CAPTURE,
            "trace(1).pcap": CAPTURE,
            "old/event_date=2024-05-01/t": pcap(PACKETS[1:]),
            "new/event_date=2024-05-01/copy": pcap(PACKETS[1:]),
            "event_date=2024-05-02/copy": pcap(PACKETS[1:]),  # flows of another night
            "copy": pcap(PACKETS[1:]),
            "no packet": pcap([]),
            "no packet (1)": pcap([]),
            "end differs": CAPTURE[:-1] + b"x",
        },
    )
    os.utime(tmp_path / "trace(1).pcap", ns=(0, (tmp_path / "trace.pcap").stat().st_mtime_ns))
    (tmp_path / "latest").symlink_to("trace.pcap")
    (tmp_path / "today").symlink_to("event_date=2024-05-02")
    found = find_captures(folder)
    assert found.copies == {"latest", "trace(1).pcap", "copy", "new/event_date=2024-05-01/copy", "today/copy"}
    kept = {"event_date=2024-05-02/copy", "old/event_date=2024-05-01/t", "trace.pcap", "end differs"}
    assert {each.name for each in found.captures} == kept | {"no packet", "no packet (1)"}
    [note] = found.notes()
    assert "count twice" in note


def test_a_capture_that_gzip_packs_is_read_once(tmp_path):
    folder = write(
        tmp_path,
        {
            "a.pcap": CAPTURE,
            "a.pcap.gz": gzip.compress(CAPTURE)[:-30],  # not complete yet
            "b.pcap": CAPTURE[:-1],
            "b.pcap.gz": gzip.compress(pcap(PACKETS[1:])),  # another one
            "c.gz": gzip.compress(pcap(PACKETS[2:])),
        },
    )
    found = find_captures(folder)
    assert found.copies == {"a.pcap.gz"}
    assert {each.name for each in found.captures} == {"a.pcap", "b.pcap", "b.pcap.gz", "c.gz"}


def test_folders_give_dates_and_other_names_of_dates_are_refused(tmp_path):
    good = ("event_date=2024-05-01/a.pcap", "site/event_date=2024-05-02/x/b.pcap")
    bad = [
        f"event_date={text}/c.pcap"
        for text in ("2024-02-30", "20240501", "yesterday", "", "1969-12-31", "2201-01-01", "2024-W18-3")
    ]
    folder = write(tmp_path, dict.fromkeys([*good, *bad], CAPTURE))
    found = find_captures(folder)
    assert {capture.name: capture.date for capture in found.captures} == {
        good[0]: dt.date(2024, 5, 1),
        good[1]: dt.date(2024, 5, 2),
    }
    assert sorted(refusal.name for refusal in found.refused) == sorted(bad)
    assert all("expected event_date=YYYY-MM-DD" in refusal.reason for refusal in found.refused)


def test_files_that_are_no_captures_are_refused_with_what_they_are(tmp_path):
    folder = write(
        tmp_path,
        {
            "good.pcap": CAPTURE,
            "wireless.pcap": pcap(PACKETS, link=127),
            "text.pcap": b"10.0.0.9 pump\n",
            "flows.parquet": b"PAR1....",
            "conn.log": b"#separator \\x09\n#set_separator\t,\n",
            "eve.json": b'{"timestamp":"2024-05-01T00:00:00","event_type":"flow","src_ip":"10.0.0.1"}\n',
            "half.pcap": CAPTURE[:10],
            "broken.gz": gzip.compress(CAPTURE)[:12],
            "empty.pcap": b"",
            "README.md": b"Captures of ward 3\n",
            ".hidden.pcap": CAPTURE,
            "new.pcap.part": CAPTURE,
        },
    )
    os.mkfifo(tmp_path / "pipe.pcap")
    (tmp_path / "gone.pcap").symlink_to(tmp_path / "nowhere")
    (tmp_path / os.fsdecode(b"caf\xe9.pcap")).write_bytes(CAPTURE)
    for name in ("empty.pcap", "half.pcap"):  # long ago, so that no program is still writing them
        os.utime(tmp_path / name, (1_700_000_000, 1_700_000_000))
    write(tmp_path, {"begun.pcap": b""})
    found = find_captures(folder)
    assert [capture.name for capture in found.captures] == ["good.pcap"]
    reasons = {refusal.name: refusal.reason for refusal in found.refused}
    for name, part in {
        "wireless.pcap": "802.11",
        "text.pcap": "not a packet capture but text",
        "flows.parquet": "parquet",
        "conn.log": "Zeek",
        "eve.json": "Suricata",
        "half.pcap": "within its header",
        "broken.gz": "gzip",
        "empty.pcap": "no byte",
        "pipe.pcap": "pipe",
        "gone.pcap": "link to a file that is not there",
        r"caf\xe9.pcap": "no UTF-8",
    }.items():
        assert part in reasons.pop(name)
    assert reasons == {}
    assert "pump" not in str(found.refused)  # the audit keeps these messages, whatever they would name
    assert {file.name: file.reason for file in found.harmless} == {
        "README.md": "document",
        ".hidden.pcap": "hidden",
        "new.pcap.part": "temporary",
        "begun.pcap": "unfinished",
    }
    assert any("new.pcap.part" in note for note in found.notes())
    assert not any("README.md" in note for note in found.notes())


def test_folders_without_captures_are_refused_with_what_was_found(tmp_path):
    with pytest.raises(InputError, match=r"no such folder; set extract\.captures"):
        find_captures(f"{tmp_path}/nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="found no capture; expected pcap or pcapng"):
        find_captures(f"{tmp_path}/empty")
    write(tmp_path / "other", {"a.pcap": b"hello", "b.pcap": pcap(PACKETS, link=105)})
    with pytest.raises(InputError, match=r"no file can be read as a capture: .*a\.pcap.*but text.*b\.pcap.*802\.11"):
        find_captures(f"{tmp_path}/other")
    with pytest.raises(InputError, match="is a file"):
        find_captures(f"{tmp_path}/other/a.pcap")


def test_pieces_cover_a_large_pcap_and_other_files_are_one(tmp_path):
    write(tmp_path, {"a.pcap": CAPTURE, "b.pcapng": pcapng(PACKETS)})
    plain, other = find_captures(str(tmp_path)).captures
    pieces = pieces_of(plain, 500, "")
    assert len(pieces) == -(-len(CAPTURE) // 500)
    assert [piece.number for piece in pieces] == list(range(len(pieces)))
    assert [piece.begin for piece in pieces] == [0, *(piece.end for piece in pieces[:-1])]
    assert pieces[-1].end == len(CAPTURE)
    assert len(pieces_of(plain, len(CAPTURE), "")) == len(pieces_of(other, 500, "")) == 1
    gone = Capture(f"{tmp_path}/gone.pcap", "gone.pcap", 10_000, 0)
    assert len(pieces_of(gone, 500, "")) == 1
