"""Records of capture files against numbers by hand, and pieces of a file against the whole file."""

import gzip
import io
import random
import struct
import zlib
from pathlib import Path

import dpkt
import pytest

from ids_spark.extract import records
from ids_spark.extract.capture_bytes import SPARE_BYTES
from ids_spark.extract.formats import Refused
from ids_spark.extract.record_columns import MOST_CAPTURED
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
                assert start + captured + SPARE_BYTES <= len(part.buffer)
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
    members = gzip.compress(content[:half]) + bytes(300) + gzip.compress(content[half:]) + bytes(100_000)
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


@pytest.mark.parametrize("chunk", [1, 50, 1 << 20])
def test_files_appended_to_a_pcap_are_read_as_far_as_they_are_of_its_form(chunk: int) -> None:
    one, header = frames.pcap(SIX), len(frames.pcap([]))
    twice = expected(SIX) + expected(SIX, len(one) + header)
    assert read_all(one + one, chunk=chunk) == (twice, Ending(12, 24, 2 * len(one)))
    assert read_all(gzip.compress(one) + gzip.compress(one), chunk=chunk) == (twice, Ending(12, 24, 2 * len(one)))
    for end in (len(one) - 8, len(one), len(one) + 1, len(one) + header):  # the end of a piece, as of a whole file
        found, ending = read_all(one + one, end=end, chunk=chunk)
        assert (len(found), ending.reason) == (6, None)
    for other in (
        frames.pcap(SIX, nanoseconds=True),
        frames.pcap(SIX, order=">"),
        frames.pcap(SIX, frames.RAW_IP),
        frames.pcap(SIX, 105),
        frames.pcapng(SIX),
    ):
        rows, ending = read_all(one + other, chunk=chunk)
        assert rows == expected(SIX)
        assert (ending.reached, ending.left) == (len(one), len(other))
        assert ending.reason


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


def test_planted_records_whose_chain_is_that_of_the_file_are_noticed() -> None:
    """A payload made to mislead: its record ends where a real one does, and more of them chain up to it."""
    inner = frames.pcap([Captured(bytes(30), T)] * 200)[24:]
    packets = [Captured(frames.ethernet(inner), T) for _ in range(3)]
    content = frames.pcap(packets)
    begin = 24 + 16 + len(packets[0].frame) // 2
    last, endings = read_all(content, begin, search=1_000)[0], []  # the search sees nothing but the payload
    assert last[0][4] == bytes(30)
    for piece in ((0, begin), (begin, len(content))):
        endings.append(read_all(content, *piece, search=1_000)[1])
    assert not records.contiguous(endings)
    assert read_all(content, begin)[0] == expected(packets)[1:]


def test_broken_file_is_noticed_by_its_pieces() -> None:
    packets = [Captured(bytes([i % 250 + 1]) * 100, T) for i in range(100)]
    content = bytearray(frames.pcap(packets))
    struct.pack_into("<I", content, 24 + 10 * 116 + 8, 1 << 30)
    endings = [read_all(bytes(content), begin, begin + 4_000)[1] for begin in range(0, len(content), 4_000)]
    assert endings[0].records == 10
    assert not records.contiguous(endings)


def test_pieces_only_of_uncompressed_pcap(tmp_path: Path) -> None:
    content = frames.pcap(SIX)
    files = {
        "a.pcap": content,
        "b.pcap.gz": gzip.compress(content),
        "c.pcapng": frames.pcapng(SIX),
        "d.csv": b"a" * 999,
    }
    found = {}
    for name, written in files.items():
        (tmp_path / name).write_bytes(written)
        found[name] = records.pieces(str(tmp_path / name), len(written), 200)
    size = len(content)
    assert found.pop("a.pcap") == [(begin, min(begin + 200, size)) for begin in range(0, size, 200)]
    assert found == {name: [(0, len(files[name]))] for name in found}
    whole = records.pieces(str(tmp_path / "a.pcap"), size, size)
    assert whole == [(0, size)]


@pytest.mark.parametrize("order", ["<", ">"])
def test_old_pcap_states_the_original_length_first(order: frames.Order) -> None:
    content = bytearray(frames.pcap(SIX, order=order))
    struct.pack_into(f"{order}H", content, 6, 2)
    for offset, *_ in expected(SIX):
        captured, length = struct.unpack_from(f"{order}II", content, offset + 8)
        struct.pack_into(f"{order}II", content, offset + 8, length, captured)
    assert read_all(bytes(content))[0] == expected(SIX)


@pytest.mark.parametrize("snap_length", [0, 10, 0xFFFFFFFF])
def test_limit_in_the_header_is_not_trusted(snap_length: int) -> None:
    content = bytearray(frames.pcap(SIX))
    struct.pack_into("<I", content, 16, snap_length)
    assert read_all(bytes(content))[0] == expected(SIX)


def test_check_sequence_is_taken_off() -> None:
    content = bytearray(frames.pcap(SIX))
    struct.pack_into("<I", content, 20, 1 | 1 << 26 | 2 << 28)
    rows, _ = read_all(bytes(content))
    assert [row[3] for row in rows] == [packet.original - 4 for packet in SIX]
    assert [len(row[4]) for row in rows] == [min(len(p.frame), p.original - 4) for p in SIX]


def test_original_length_is_at_least_the_captured_one() -> None:
    content = frames.pcap([Captured(bytes(range(100)), T, length=7)])
    assert [row[3] for row in read_all(content)[0]] == [100]


@pytest.mark.parametrize("nanos", [0, 1_000, (2**32 - 1) * 10**9 + 999_999_000])
def test_times_at_the_borders_of_pcap(nanos: int) -> None:
    assert read_all(frames.pcap([Captured(b"abc", nanos)]))[0] == expected([Captured(b"abc", nanos)])


def test_unsorted_records_keep_the_order_of_the_file() -> None:
    packets = SIX[3:] + SIX[:3]
    assert read_all(frames.pcap(packets))[0] == expected(packets)


def test_capture_without_records() -> None:
    assert read_all(frames.pcap([])) == ([], Ending(0, 24, 24))
    assert read_all(frames.pcapng([]))[0] == []
    assert read_all(gzip.compress(frames.pcap([]))) == ([], Ending(0, 24, 24))


@pytest.mark.parametrize("cut", range(30, 400, 7))
def test_gzip_cut_off_keeps_what_can_be_unpacked(cut: int) -> None:
    rng = random.Random(3)
    packets = [Captured(rng.randbytes(80), T + i * 1_000) for i in range(20)]
    content = frames.pcap(packets)
    packed = gzip.compress(content)[:cut]
    unpacked = zlib.decompressobj(31).decompress(packed)
    whole, ending = read_all(packed) if len(unpacked) >= 24 else ([], None)
    if ending is not None:
        assert whole == expected(packets)[: (len(unpacked) - 24) // 96]
        assert ending.reached + ending.left == len(unpacked)
        assert "gzip" in str(ending.reason)
    else:
        with pytest.raises(Refused, match="gzip"):
            read_all(packed)


def test_damaged_gzip_keeps_every_byte_before_the_damage() -> None:
    rng = random.Random(4)
    packets = [Captured(rng.randbytes(1_000), T + i * 1_000) for i in range(300)]
    content = frames.pcap(packets)
    packed = gzip.compress(content)  # random bytes cannot be packed: about as many
    for size in (50_000, 150_000, 250_000):
        rows, ending = read_all(packed[:size] + bytes([7] * 500))
        whole = (size - 2_000) // 1_016  # at least
        assert rows[:whole] == expected(packets)[:whole]
        assert ending.reason is not None
    wrong_sum = gzip.compress(content)[:-8] + bytes(8)
    rows, ending = read_all(wrong_sum)
    assert rows == expected(packets)
    assert (ending.left, "gzip" in str(ending.reason)) == (0, True)


def test_bytes_after_a_break_in_gzip_are_counted_unpacked() -> None:
    content = frames.pcap(SIX) + b"\xff" * 5_000_000
    rows, ending = read_all(gzip.compress(content, 1))
    assert rows == expected(SIX)
    assert ending.left == 5_000_000


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "large.pcap"
    one = frames.pcap([Captured(bytes([i % 250 + 1]) * 700, T) for i in range(1_000)])
    with path.open("wb") as stream:
        stream.write(one)
        for _ in range(100):
            stream.write(one[24:])
    with records.read(str(path)) as capture:
        largest = max(len(chunk.buffer) for chunk in capture)
    assert capture.ending.records == 101_000
    assert largest < records.CHUNK_BYTES + MOST_CAPTURED


# pcapng


def read_ng(content: bytes, chunk: int = 1 << 20) -> tuple[list[tuple[int, float, int, bytes, int]], Ending]:
    """Return (nanos, seconds, length, captured bytes, link) of each packet, and how it ended."""
    rows, ending = read_all(content, chunk=chunk)
    return [row[1:] for row in rows], ending


def ng_row(packet: Captured, link: int = 1) -> tuple[int, float, int, bytes, int]:
    return packet.nanos, packet.nanos // 10**9 + packet.nanos % 10**9 / 1e9, packet.original, packet.frame, link


@pytest.mark.parametrize("chunk", [1, 100, 1 << 20])
def test_pcapng_sections_interfaces_and_blocks(chunk: int) -> None:
    """Two sections in different byte order, interfaces of their own, every kind of packet block, unknown blocks."""
    content = (
        frames.section("<")
        + frames.block(0x0BAD, b"custom", "<")
        + frames.interface(1, "<")
        + frames.block(5, bytes(12), "<")
        + frames.interface(101, "<", resolution=9)
        + frames.enhanced(SIX[0], 0, "<")
        + frames.block(4, bytes(20), "<")
        + frames.enhanced(SIX[1], 1, "<", 10**9)
        + frames.obsolete(SIX[2], 1, "<", 10**9)
        + frames.section(">")
        + frames.interface(113, ">", resolution=0x80 | 20)
        + frames.interface(276, ">", offset=1_000_000)
        + frames.enhanced(SIX[3], 0, ">", 2**20)
        + frames.enhanced(SIX[4], 1, ">", 10**6, 1_000_000)
        + frames.obsolete(SIX[5], 1, ">", 10**6)
    )
    rows, ending = read_ng(content, chunk)
    binary = SIX[3].nanos * 2**20 // 10**9
    close = (binary * 10**9 // 2**20, binary / 2**20, *ng_row(SIX[3], 113)[2:])
    moved = Captured(SIX[5].frame, SIX[5].nanos + 1_000_000 * 10**9)
    expected_rows = [ng_row(SIX[0]), ng_row(SIX[1], 101), ng_row(SIX[2], 101), close, ng_row(SIX[4], 276)]
    for row, wanted in zip(rows, [*expected_rows, ng_row(moved, 276)], strict=True):
        assert row[0] == wanted[0]
        assert row[1] == pytest.approx(wanted[1], abs=2.5e-7)
        assert row[2:] == wanted[2:]
    assert ending == Ending(6, 0, len(content))


def test_simple_packet_block_has_no_time() -> None:
    cut = Captured(SIX[0].frame[:40], length=60)
    content = frames.section() + frames.interface(snap_length=40) + frames.simple(cut)
    assert read_ng(content)[0] == [(-1, -1.0, 60, cut.frame, 1)]


def test_packet_of_an_interface_that_is_not_described() -> None:
    content = frames.section() + frames.interface() + frames.enhanced(SIX[0], 7) + frames.enhanced(SIX[1], 0)
    assert [row[-1] for row in read_ng(content)[0]] == [-1, 1]


@pytest.mark.parametrize("resolution", [0, 3, 6, 9, 12, 18, 19, 20, 127, 0x80, 0x80 | 30, 0x80 | 40, 0x80 | 63, 0xFF])
def test_pcapng_time_resolutions(resolution: int) -> None:
    unit = 2 ** (resolution & 0x7F) if resolution & 0x80 else 10**resolution
    for nanos in (0, 1_234_567_890, 1_700_000_000_123_456_789):
        ticks = nanos * unit // 10**9
        if ticks >= 1 << 64:
            continue
        head = struct.pack("<IIIII", 0, ticks >> 32, ticks & 0xFFFFFFFF, 4, 4)
        content = frames.section() + frames.interface(resolution=resolution) + frames.block(6, head + b"abcd")
        ((found, seconds, *_),) = read_ng(content)[0]
        assert abs(found - ticks * 10**9 // unit) <= 1
        assert seconds == pytest.approx(ticks / unit, abs=3e-7)


def test_pcapng_times_out_of_range_stay_out_of_range() -> None:
    for offset in (-(2**63), 2**63 - 1, -10_000_000_000):
        content = frames.section() + frames.interface(offset=offset, resolution=6) + frames.enhanced(SIX[0])
        ((nanos, *_),) = read_ng(content)[0]
        assert not 0 <= nanos < 7_258_118_400 * 10**9
    head = struct.pack("<IIIII", 0, 0xFFFFFFFF, 0xFFFFFFFF, 4, 4)
    content = frames.section() + frames.interface(resolution=0) + frames.block(6, head + b"abcd")
    assert read_ng(content)[0][0][0] >= 7_258_118_400 * 10**9


def test_pcapng_cut_at_any_byte_keeps_the_packets_before() -> None:
    content = frames.pcapng(SIX)
    start = len(frames.section() + frames.interface(resolution=6))
    ends = [start]
    for packet in SIX:
        ends.append(ends[-1] + len(frames.enhanced(packet)))
    for size in range(12, len(content)):
        rows, ending = read_ng(content[:size])
        whole = sum(end <= size for end in ends[1:])
        assert len(rows) == ending.records == whole
        assert ending.reached + ending.left == size
        clean = size in (*ends, len(frames.section()))
        assert (ending.reason is None) == clean


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        (4, 10, "length"),  # of the block
        (4, 1 << 30, "length"),
        (20, 1 << 20, "captured"),
        (-4, 16, "two lengths"),
    ],
)
def test_damaged_pcapng_block_ends_the_file(at: int, value: int, reason: str) -> None:
    before = frames.section() + frames.interface() + frames.enhanced(SIX[0])
    bad = bytearray(frames.enhanced(SIX[1]))
    struct.pack_into("<I", bad, at % len(bad), value)
    after = frames.enhanced(SIX[2])
    rows, ending = read_ng(before + bytes(bad) + after)
    assert rows == [ng_row(SIX[0])]
    assert (ending.reached, ending.left) == (len(before), len(bad) + len(after))
    assert reason in str(ending.reason)


def test_pcapng_section_without_magic_ends_the_file() -> None:
    good = frames.pcapng(SIX)
    rows, ending = read_ng(good + frames.block(0x0A0D0D0A, bytes(16)))
    assert len(rows) == 6
    assert (ending.reached, ending.left) == (len(good), 28)


def test_interfaces_of_a_section_are_bounded() -> None:
    begin = frames.section() + frames.interface() + frames.enhanced(SIX[0])
    rows, ending = read_ng(begin + frames.interface() * 5_000 + frames.enhanced(SIX[1]))
    assert rows == [ng_row(SIX[0])]
    assert "interfaces" in str(ending.reason)


# Against dpkt


@pytest.mark.parametrize("seed", range(20))
def test_dpkt_reads_the_same_records(seed: int) -> None:
    rng = random.Random(seed)
    packets = []
    for _ in range(rng.randint(0, 300)):
        frame = rng.randbytes(rng.choice([0, 1, 59, 60, 1514, rng.randint(0, 3_000)]))
        packets.append(
            Captured(frame, rng.randrange(2**31) * 10**9 + rng.randrange(10**9), len(frame) + rng.randint(0, 9))
        )
    order: frames.Order = rng.choice(["<", ">"])
    nanoseconds = rng.random() < 0.5
    content = frames.pcap(packets, order=order, nanoseconds=nanoseconds)
    rows, _ = read_all(content, chunk=rng.choice([64, 4_096, 1 << 20]))
    theirs = [(float(time), frame) for time, frame in dpkt.pcap.Reader(io.BytesIO(content))]
    assert [(row[2], row[4]) for row in rows] == theirs
    content = frames.pcapng(packets, order=order, digits=9 if nanoseconds else 6)
    ng_rows, _ = read_ng(content, rng.choice([64, 4_096, 1 << 20]))
    theirs = [(float(time), frame) for time, frame in dpkt.pcapng.Reader(io.BytesIO(content))]
    assert [row[3] for row in ng_rows] == [frame for _, frame in theirs]
    assert [row[1] for row in ng_rows] == pytest.approx([time for time, _ in theirs], abs=3e-7)


def test_damaged_files_never_raise() -> None:
    """Random bytes of a capture changed: the records before the first change stay, and all bytes are accounted for."""
    for seed in range(300):
        rng = random.Random(seed)
        make = rng.choice([frames.pcap, frames.pcapng])
        clean = make(SIX)
        content = bytearray(clean)
        changed = [rng.randrange(28, len(content)) for _ in range(rng.randint(1, 6))]
        for at in changed:
            content[at] ^= rng.randint(1, 255)
        rows, ending = read_all(bytes(content), chunk=rng.choice([16, 1 << 20]))
        before, _ = read_all(clean)
        untouched = [row for row in before if row[0] + 32 + len(row[4]) + 4 <= min(changed)]
        if make is frames.pcap or min(changed) >= len(frames.section() + frames.interface(resolution=6)):
            assert rows[: len(untouched)] == untouched
        assert ending.records == len(rows)
        assert ending.reached + ending.left == len(content)
