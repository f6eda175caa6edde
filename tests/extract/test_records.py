"""Records of capture files against numbers by hand, and pieces of a file against the whole file."""

import gzip
import io
import random
import struct

import pytest

from ids_spark.extract import records
from ids_spark.extract.formats import Refused
from ids_spark.extract.records import Ending
from tests.support import frames
from tests.support.frames import Captured

T = 1_700_000_000_123_456_000
SIX = [Captured(bytes([i]) * (60 + 7 * i), T + i * 1_000_000, 2_000 if i == 3 else None) for i in range(6)]


Row = tuple[int, int, float, int, bytes, int]


def read_all(
    content: bytes, begin: int = 0, end: int | None = None, chunk: int = 1 << 20, search: int = 1 << 20
) -> tuple[list[Row], Ending]:
    """Return (offset, nanos, seconds, length, captured bytes, link) of each record, and how it ended."""
    rows: list[Row] = []
    with records.read(io.BytesIO(content), begin, end, chunk, search) as capture:
        for part in capture:
            for i in range(len(part)):
                start, captured = int(part.start[i]), int(part.captured[i])
                rows.append(
                    (
                        int(part.offset[i]),
                        int(part.nanos[i]),
                        float(part.seconds[i]),
                        int(part.length[i]),
                        part.buffer[start : start + captured].tobytes(),
                        int(part.link[i]),
                    )
                )
                assert start + captured + records.SPARE_BYTES <= len(part.buffer)
    return rows, capture.ending


def expected(packets: list[Captured], header: int = 24) -> list[Row]:
    rows: list[Row] = []
    offset = header
    for packet in packets:
        whole, fraction = divmod(packet.nanos // 1000, 10**6)
        rows.append((offset, packet.nanos, whole + fraction / 1e6, packet.original, packet.frame, 1))
        offset += 16 + len(packet.frame)
    return rows


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nanoseconds", [False, True])
@pytest.mark.parametrize("chunk", [1, 50, 1 << 20])
def test_pcap(order: frames.Order, nanoseconds: bool, chunk: int) -> None:
    content = frames.pcap(SIX, order=order, nanoseconds=nanoseconds)
    rows, ending = read_all(content, chunk=chunk)
    assert rows == expected(SIX)
    assert ending == Ending(6, 24, len(content))


def test_gzip() -> None:
    content = frames.pcap(SIX)
    half = len(content) // 2
    assert read_all(gzip.compress(content)) == (expected(SIX), Ending(6, 24, len(content)))
    members = gzip.compress(content[:half]) + gzip.compress(content[half:]) + bytes(512)
    assert read_all(members) == (expected(SIX), Ending(6, 24, len(content)))


def test_file_cut_at_any_byte_keeps_the_records_before() -> None:
    content = frames.pcap(SIX)
    offsets = [row[0] for row in expected(SIX)] + [len(content)]
    for size in range(24, len(content)):
        rows, ending = read_all(content[:size])
        whole = max(i for i, offset in enumerate(offsets) if offset <= size)
        assert rows == expected(SIX)[:whole]
        assert (ending.records, ending.reached, ending.left) == (whole, offsets[whole], size - offsets[whole])
        assert (ending.reason is None) == (size in offsets)


def test_impossible_length_ends_the_file() -> None:
    content = bytearray(frames.pcap(SIX, snap_length=65_535))
    third = expected(SIX)[2][0]
    struct.pack_into("<I", content, third + 8, 262_145)
    rows, ending = read_all(bytes(content))
    assert rows == expected(SIX)[:2]
    assert (ending.reached, ending.left) == (third, len(content) - third)
    assert "262,145" in str(ending.reason)


def test_zeros_after_the_last_record_are_no_packets() -> None:
    content = frames.pcap(SIX)
    rows, ending = read_all(content + bytes(1_000))
    assert rows == expected(SIX)
    assert (ending.reached, ending.left) == (len(content), 1_000)
    assert "zeros" in str(ending.reason)


def test_text_is_refused() -> None:
    with pytest.raises(Refused, match="text"):
        read_all(b"ts,src,dst\n1,2,3\n")


@pytest.mark.parametrize("seed", range(30))
def test_pieces_read_each_record_once(seed: int) -> None:
    rng = random.Random(seed)
    packets = []
    for i in range(300):
        payload = rng.randbytes(rng.randint(0, 300))
        if rng.random() < 0.3:  # a capture file in a payload
            payload += frames.pcap([Captured(rng.randbytes(rng.randint(1, 40)), T) for _ in range(12)])
        packets.append(Captured(frames.ethernet(payload), T + i * 1000))
    content = frames.pcap(packets)
    whole, ending = read_all(content)
    assert whole == expected(packets)
    for size in (*rng.sample(range(1, 3_000), 3), 5_000, 20_000):
        found: list[Row] = []
        endings: list[Ending] = []
        for begin in range(0, len(content), size):
            rows, one = read_all(content, begin, begin + size, chunk=512, search=4_000)
            found += rows
            endings.append(one)
        assert found == whole
        assert records.contiguous(endings)
        assert sum(one.records for one in endings) == ending.records
