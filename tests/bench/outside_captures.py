"""Captures of the benchmark outside the laboratory: those of a folder, or synthetic ones; and a generated flood."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from ids_spark.base.arrays import Ints, Mask
from ids_spark.synthetic import frames, ward
from ids_spark.synthetic.frames import Packets
from tests.bench import capture_file

EVERYDAY: Final = "everyday"
ATTACKS: Final = "attacks"
FLOOD: Final = "syn-flood.pcap"
_DATE: Final = dt.date(2026, 3, 2)
_DAYS: Final = 2
_MOST_PACKETS: Final = 1_500  # of a synthetic capture
_MIXED_BYTES: Final = 120_000
_MIXED: Final = 6
_TARGET: Final = 0xC0A8050A  # 192.168.5.10
_FLOOD_PACKETS: Final = 20_000
_FLOOD_PER_S: Final = 20_000.0


def write_synthetic(folder: Path) -> None:
    """Write captures in the layout of a folder of real ones: each device of two wards, other mixes, and a scan."""
    (folder / EVERYDAY).mkdir(parents=True)
    (folder / ATTACKS).mkdir()
    for day in range(_DAYS):
        packets = ward.packets_of(_DATE + dt.timedelta(days=day), seed=day, attacks=False)
        for host, own in _of_hosts(packets):
            frames.pcap(own).tofile(folder / EVERYDAY / f"{host}-{day}.pcap")
    for number in range(_MIXED):
        capture_file.write(folder / EVERYDAY / f"mixed-{number}.pcap", _MIXED_BYTES, number)
    packets = ward.packets_of(_DATE, seed=0, attacks=True)
    midnight = int(dt.datetime.combine(_DATE, dt.time(), dt.UTC).timestamp())
    [scan] = [attack for attack in ward.ATTACKS if attack.name == "scan"]
    during = (packets.nanos >= int((midnight + scan.start) * 1e9)) & (packets.nanos < int((midnight + scan.end) * 1e9))
    scanner = ward.SCANNER.address
    frames.pcap(packets.take(during & _with(packets, scanner))).tofile(folder / ATTACKS / "synscan.pcap")


def _of_hosts(packets: Packets) -> Iterator[tuple[str, Packets]]:
    for host in ward.DEVICES:
        own = np.flatnonzero(_with(packets, host.address))[:_MOST_PACKETS]
        if len(own) >= 20:
            yield host.name, packets.take(own)


def _with(packets: Packets, address: int) -> Mask:
    found: Mask = (packets.source == address) | (packets.target == address)
    return found


def write_flood(folder: Path) -> None:
    """Write a capture of a SYN flood with an invented source in each packet, as `hping3 -S --flood --rand-source`.

    To one target, port 0, with rising source ports, window 512, TTL 64 and no answers: what the program sends without
    further options.
    """
    folder.mkdir(parents=True)
    rng, n = np.random.default_rng(1), _FLOOD_PACKETS
    start = int(dt.datetime.combine(_DATE, dt.time(1), dt.UTC).timestamp()) * 1_000_000_000

    def all_are(value: int) -> Ints:
        return np.full(n, value, dtype=np.int64)

    seconds = np.cumsum(rng.exponential(1 / _FLOOD_PER_S, n))
    packets = Packets(
        nanos=start + np.rint(seconds * 1e6).astype(np.int64) * 1_000,
        protocol=all_are(frames.TCP),
        source=rng.integers(0x0B000000, 0xDF000000, n),
        target=all_are(_TARGET),
        source_mac=all_are(0x00005E005301),
        target_mac=all_are(0x00005E005302),
        source_port=(2_000 + np.arange(n)) % 65_536,
        target_port=all_are(0),
        flags=all_are(frames.SYN),
        options=all_are(frames.NO_OPTIONS),
        sequence=rng.integers(0, 1 << 32, n),
        acknowledged=all_are(0),
        window=all_are(512),
        payload=all_are(0),
        ttl=all_are(64),
        identification=rng.integers(0, 65_536, n),
        tag=all_are(frames.NO_TAG),
    )
    frames.pcap(packets).tofile(folder / FLOOD)


def scan_of(windows: pa.Table) -> pa.Table:
    """Return the windows of captures whose name says that they are of a scan."""
    return windows.filter(pa.array(["scan" in name for name in windows["capture_file"].to_pylist()]))
