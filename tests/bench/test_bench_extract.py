"""Part `extract` of the bench: its capture, and one tiny run; never its figures."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import dpkt
import pytest

from tests.bench import capture_file
from tests.bench.measure import ROOT


def test_capture_is_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "ward.pcap"
    written = capture_file.write(path, 1_000_000, seed=3)
    kinds: Counter[str] = Counter()
    times, lengths = [], []
    for seconds, frame in dpkt.pcap.Reader(path.open("rb")):
        packet = dpkt.ethernet.Ethernet(frame)
        kinds[type(getattr(packet.data, "data", b"")).__name__ if packet.type == 0x0800 else packet.type] += 1
        times.append(seconds)
        lengths.append(len(frame))
        if packet.type == 0x0800:
            assert packet.data.len == len(frame) - 14
    assert path.stat().st_size == written.size
    assert written.size == pytest.approx(1_000_000, rel=0.05)
    assert sum(kinds.values()) == written.packets
    assert written.packets - kinds[0x86DD] == written.visible
    assert set(kinds) == {"TCP", "UDP", "ICMP", 0x0806, 0x86DD}
    assert times == sorted(times)
    assert sum(lengths) / len(lengths) == pytest.approx(253, rel=0.1)


@pytest.mark.slow
def test_tiny_run_of_every_case(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.bench", "--part", "extract", "--scales", "0.01", "--rounds", "1"]
    done = subprocess.run([*command, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "bench.json").read_text())
    cases = [entry["case"] for entry in found["cases"]]
    assert cases == ["ids_spark"] * 3 + ["ids_spark_files", "dpkt", "bytes"]
    packets = {name: entry["packets"] for name, entry in found["settings"]["extract"]["captures"].items()}
    assert packets["0.01"] > 3 * packets["0.0025"] > 9 * packets["0.000625"] > 0
    assert {"extract_vs_dpkt", "extract_vs_read", "extract_memory_mb"} <= set(found["ratios"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench.json", "bench.md", "logs"]
