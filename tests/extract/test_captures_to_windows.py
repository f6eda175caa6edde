"""Capture files to windows: every column as the scalar formulas give it, and as official rows have it."""

import dataclasses
import io
import itertools
import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ids_spark.base.arrays import Floats, Ints
from ids_spark.dataset.features import RELEASE_39
from ids_spark.extract import records
from ids_spark.extract.claims import Claims
from ids_spark.extract.devices import Devices
from ids_spark.extract.packets import MARKS, Packets, read_packets
from ids_spark.extract.windows import Windower, Windows
from tests.support import frames, random_captures
from tests.support import packet_reference as reference
from tests.support.frames import Captured
from tests.support.windowing import as_reference, broken_identities, require_equal

NETWORKS = ("10.0.0.0/8", "192.168.1.0/24")
OFFICIAL = os.environ.get("CICIOMT_PCAP", "")
FILE_HEADER = 24
SLICE_BYTES = 10_000_000
"""`tcpdump -C 10` begins another file when one has more bytes."""


def parts_of(content: bytes | Path, chunk_bytes: int = records.CHUNK_BYTES) -> list[Packets]:
    source = str(content) if isinstance(content, Path) else io.BytesIO(content)
    with records.read(source, chunk_bytes=chunk_bytes) as capture:
        return [read_packets(part) for part in capture]


def windows_of(parts: Sequence[Packets], n: int, by_device: bool, batch: int = 1) -> tuple[list[Windows], int]:
    windower, devices, claims = Windower(n, by_device, batch), Devices(NETWORKS), Claims()
    found = [windows for part in parts for windows in windower.add(claims.marked(part), devices.keys(part))]
    return found + windower.close(), len(windower.single)


def written(packets: Sequence[Captured], draw: random.Random) -> bytes:
    """Return a capture in one of the formats that hold its times."""
    order = draw.choice(("<", ">"))
    if draw.random() < 0.3:
        return frames.pcapng(packets, order=order, digits=draw.choice((6, 9)))
    return frames.pcap(packets, order=order, nanoseconds=draw.random() < 0.3)


@pytest.mark.parametrize("hundred", range(10))
def test_39_columns_of_1000_random_captures_are_those_of_the_scalar_formulas(hundred: int) -> None:
    device = reference.device_in(NETWORKS)
    for seed in range(100 * hundred, 100 * hundred + 100):
        draw = random.Random(seed)
        captured = random_captures.capture(draw, draw.randrange(230))
        parts = parts_of(written(captured, draw), chunk_bytes=draw.choice((2_000, 100_000)))
        visible = [packet for packet in map(reference.seen, captured) if packet is not None]
        for n, by_device in itertools.product((10, 100), (True, False)):
            found, single = windows_of(parts, n, by_device)
            expected, alone = reference.windows(visible, n, device, by_device)
            require_equal(as_reference(found), expected)
            assert single == alone, seed


def test_the_packets_of_a_file_that_ends_at_any_byte_are_in_windows_or_single() -> None:
    draw = random.Random(5)
    content = frames.pcap(random_captures.capture(draw, 60))
    known = 0
    for end in range(24, len(content), 53):
        parts = parts_of(content[:end])
        visible = sum(int(part.visible.sum()) for part in parts)
        found, single = windows_of(parts, 10, by_device=True)
        assert sum(int(windows.packets.sum()) for windows in found) + single == visible
        assert visible >= known
        known = visible
    assert known > 45


@pytest.mark.parametrize("seed", range(20))
def test_damaged_packets_are_in_windows_with_the_identities_of_official_rows_or_in_none(seed: int) -> None:
    draw = random.Random(seed)
    damaged = []
    for packet in random_captures.capture(draw, 150):
        frame = bytes(byte if draw.random() < 0.98 else draw.randrange(256) for byte in packet.frame[:200])
        frame = frame[: draw.choice((20, 60, 200, 200))]
        length = len(frame) + draw.choice((0, 0, 0, 1_500, 2**31))
        damaged.append(Captured(frame, draw.choice((packet.nanos, packet.nanos, draw.randrange(2**61))), length))
    parts = parts_of(frames.pcapng(damaged, digits=9), chunk_bytes=5_000)
    assert sum(map(len, parts)) == len(damaged)
    for n, by_device in itertools.product((2, 10, 1_000), (True, False)):
        found, single = windows_of(parts, n, by_device)
        in_windows = sum(int(windows.packets.sum()) for windows in found)
        assert in_windows + single == sum(int(part.visible.sum()) for part in parts)
        for windows in found:
            assert not broken_identities(windows.features)


def test_windows_of_real_captures_have_every_visible_packet_and_the_identities_of_official_rows(
    real_captures: Path,
) -> None:
    windows = 0
    for path in sorted(real_captures.rglob("*.pcap*")):
        try:
            parts = parts_of(path)
        except records.Refused:
            continue
        for n, by_device in itertools.product((10, 100), (True, False)):
            found, single = windows_of(parts, n, by_device)
            in_windows = sum(int(some.packets.sum()) for some in found)
            assert in_windows + single == sum(int(part.visible.sum()) for part in parts), path.name
            broken = sum((broken_identities(some.features) for some in found), Counter[str]())
            assert not broken, path.name
            windows += sum(map(len, found))
    assert windows > 1_000


@pytest.mark.skipif(
    not OFFICIAL, reason="needs CICIOMT_PCAP: official captures NAME.pcap beside official NAME.pcap.csv"
)
def test_windows_of_official_captures_are_the_official_rows() -> None:
    captures = {path: path.with_name(f"{path.name}.csv") for path in sorted(Path(OFFICIAL).rglob("*.pcap"))}
    compared = {path: csv for path, csv in captures.items() if csv.is_file()}
    assert compared, f"{OFFICIAL} has no NAME.pcap beside a NAME.pcap.csv"
    for path, csv in compared.items():
        official = pd.read_csv(csv)[list(RELEASE_39.features)].to_numpy(dtype=np.float64)
        n = int(np.median(official[:, RELEASE_39.features.index("Number")]))
        extracted = np.concatenate(list(official_slices(path, n)))
        assert extracted.shape == official.shape, path.name
        np.testing.assert_allclose(in_order(extracted), in_order(official), rtol=1e-9, err_msg=path.name)


def official_slices(path: Path, n: int) -> Iterator[Floats]:
    """Yield the rows of each slice into which `tcpdump -C 10` divides a capture; no state goes from one to the next."""
    waiting: list[Packets] = []
    for part in parts_of(path):
        begin = 0
        while begin < len(part):
            first = waiting[0].offset[0] if waiting else part.offset[begin]
            end = int(np.searchsorted(part.offset, first - FILE_HEADER + SLICE_BYTES, side="right"))
            waiting.append(rows(part, slice(begin, end)))
            if end < len(part):
                yield official_rows(waiting, n)
                waiting = []
            begin = end
    yield official_rows(waiting, n)


def official_rows(slices: Sequence[Packets], n: int) -> Floats:
    """Return the rows of a slice as the official extractor makes them: no VLAN frames, and one packet is no row."""
    names = [field.name for field in dataclasses.fields(Packets)]
    packets = Packets(**{name: np.concatenate([getattr(part, name) for part in slices]) for name in names})
    counted = np.flatnonzero(packets.visible & (packets.marks >> MARKS.index("vlan") & 1 == 0))
    packets = rows(packets, counted[: len(counted) - (len(counted) % n == 1)])
    windower = Windower(n, by_device=False)
    found = windower.add(packets, np.zeros(len(packets), dtype=np.uint64)) + windower.close()
    return np.concatenate([np.empty((0, len(RELEASE_39.features))), *(windows.features.T for windows in found)])


def rows(packets: Packets, index: slice | Ints) -> Packets:
    return Packets(**{field.name: getattr(packets, field.name)[index] for field in dataclasses.fields(Packets)})


def in_order(table: Floats) -> Floats:
    """Return rows by their sums, which are integers, and by the time between packets."""
    row = dict(zip(RELEASE_39.features, table.T, strict=True))
    sums = [np.rint(row[name] * row["Number"]) for name in ("TCP", "Time_To_Live", "Header_Length", "AVG")]
    return table[np.lexsort([row["IAT"], row["Max"], *sums])]
