"""What a file is, by its first bytes."""

import gzip
import io
import struct

import pytest

from ids_spark.extract import records
from ids_spark.extract.formats import READABLE_LINKS, Format, Refused, format_of
from tests.support import frames
from tests.support.frames import Captured


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nanoseconds", [False, True])
@pytest.mark.parametrize("link", sorted(READABLE_LINKS))
def test_pcap(order: frames.Order, nanoseconds: bool, link: int) -> None:
    head = frames.pcap([], link, order, nanoseconds)
    assert format_of(head) == Format("pcap", order, nanoseconds, link)


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng(order: frames.Order) -> None:
    assert format_of(frames.pcapng([], order=order)) == Format("pcapng", order)


@pytest.mark.parametrize(
    ("head", "finding"),
    [
        (b"", "no byte"),
        (b"\xd4\xc3\xb2\xa1\x02\x00", "6 of 24 bytes"),
        (frames.pcap([])[:4], "4 of 24 bytes"),
        (b"\xd4\xc3\xb2\xa1" + struct.pack("<HH16x", 9, 1), "version 9.1"),
        (frames.pcap([], 105), "802.11"),
        (frames.pcap([], 127), "radiotap"),
        (frames.pcap([], 9), "PPP"),
        (frames.pcap([], 189), "USB"),
        (frames.pcap([], 187), "Bluetooth"),
        (frames.pcap([], 9_999), "9999"),
        (frames.section()[:10], "pcapng"),
        (frames.section()[:8] + bytes(20), "byte-order"),
        (b"\x34\xcd\xb2\xa1" + bytes(20), "patched libpcap"),
        (b"snoop\0\0\0\0\0\0\2", "snoop"),
        (b"GMBU\0\3", "Network Monitor"),
        (b"PAR1" + bytes(40), "parquet"),
        (b"PK\x03\x04" + bytes(40), "zip"),
        (b"\x1f\x8b\x08\0" + bytes(40), "gzip"),
        (b"\x28\xb5\x2f\xfd" + bytes(40), "compressed"),
        (b"<!DOCTYPE html>", "HTML"),
        (b'{"timestamp":"2024-01-01","event_type":"flow"}\n', "Suricata"),
        (b'{"name":"value"}\n', "JSON"),
        (b"#separator \\x09\n#fields\tts\tuid\tid.orig_h\n", "Zeek"),
        (b"Src IP,Flow Duration,Tot Fwd Pkts,Tot Bwd Pkts,Flow Byts/s\n", "CICFlowMeter"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs"),
        (b"Flow ID,Src IP,Src Port\n1,2,3\n", "but text; expected"),
        (bytes(100), "all 0"),
        (bytes(range(128, 228)), "80 81 82"),
    ],
)
def test_other_files_are_refused_by_name(head: bytes, finding: str) -> None:
    with pytest.raises(Refused, match=finding):
        format_of(head)


def test_gzip_of_something_else_is_named() -> None:
    for content, finding in ((b"a,b\n1,2\n", "gzip.*text"), (frames.pcap([], 105), "gzip.*802.11"), (b"", "gzip")):
        with pytest.raises(Refused, match=finding):
            records.read(io.BytesIO(gzip.compress(content)))


def test_capture_in_the_payload_of_a_capture_is_payload() -> None:
    inner = frames.pcap([Captured(frames.ethernet(bytes(100))) for _ in range(9)])
    outer = frames.pcap([Captured(frames.ethernet(inner)), Captured(inner)])
    with records.read(io.BytesIO(outer)) as capture:
        assert [len(chunk) for chunk in capture] == [2]
