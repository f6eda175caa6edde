"""The benchmark outside the laboratory: its halves, nights, shares and bars, from inputs made here."""

import dataclasses
import datetime as dt
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from ids_spark.lake.store import Lake
from tests.bench import outside_captures, outside_measures, outside_nights, outside_report, outside_shift
from tests.bench.outside_measures import HeldOutRows, Run, Windows
from tests.bench.outside_nights import FIRST, NIGHTS, blocks, halves, windows_of, write_learned
from tests.bench.outside_report import ADAPTED, LABORATORY, Results
from tests.support import in_process
from tests.support.flows import synthetic_frame
from tests.support.replayed import OLD, write_model

SECOND = 1_000_000


def captured(sizes: list[int]) -> pa.Table:
    """Windows of captures of these sizes, one a second, on different dates."""
    rows = [(f"capture-{i:02d}.pcap", k, i) for i, size in enumerate(sizes) for k in range(size)]
    names, places, numbers = zip(*rows, strict=True)
    times = [(numbers[i] * 86_400 + 3_600 + places[i]) * SECOND for i in range(len(rows))]
    return pa.table(
        {
            "capture_file": pa.array(names),
            "event_time": pa.array(times).cast(pa.timestamp("us", tz="UTC")),
            "flow_id": pa.array([str(i) for i in range(len(rows))]),
            "number": pa.array(places),
        }
    )


def test_halves_are_whole_captures_and_differ_between_seeds() -> None:
    windows = captured([3, 5, 1, 8, 2, 2, 9, 4, 4, 7, 1, 6, 3, 5, 2, 2])
    chosen = [halves(windows, seed) for seed in range(4)]
    for each in chosen:
        learned, measured = (set(part["capture_file"].to_pylist()) for part in (each.learned, each.measured))
        assert len(learned) == len(measured) == 8
        assert not learned & measured
        assert len(each.learned) + len(each.measured) == len(windows)
        names = np.array(each.learned["capture_file"].to_pylist())
        for name in learned:
            own = each.nights[names == name]
            assert own.tolist() == sorted(own)
            assert Counter(own.tolist()).most_common(1)[0][1] <= -(-len(own) // NIGHTS)  # spread over all of them
        assert set(each.nights) <= set(range(NIGHTS))
    assert len({frozenset(each.learned["capture_file"].to_pylist()) for each in chosen}) > 1


def test_later_blocks_are_the_last_windows_of_each_capture() -> None:
    windows = captured([100, 10, 1])
    found = blocks(windows)
    assert Counter(found.measured["capture_file"].to_pylist()) == {"capture-00.pcap": 30, "capture-01.pcap": 3}
    assert (
        min(
            found.measured.filter(pa.compute.equal(found.measured["capture_file"], "capture-00.pcap"))[
                "number"
            ].to_pylist()
        )
        == 70
    )
    of_first = found.nights[np.array(found.learned["capture_file"].to_pylist()) == "capture-00.pcap"]
    assert (np.diff(of_first) >= 0).all()
    assert set(of_first) == set(range(NIGHTS))


def test_nights_hold_every_window_once_at_its_time_of_day(tmp_path: Path) -> None:
    windows = captured([3, 5, 1, 8, 2, 2, 9, 4])
    chosen = halves(windows, 0)
    dates = write_learned(chosen, tmp_path)
    assert all(FIRST <= date < FIRST + dt.timedelta(days=NIGHTS) for date in dates)
    found = {date: pq.read_table(next(tmp_path.glob(f"event_date={date}/*.parquet"))) for date in dates}
    assert sum(len(table) for table in found.values()) == len(chosen.learned)
    for date, table in found.items():
        times = table["event_time"].to_pylist()
        assert {time.date() for time in times} == {date}
        assert [time.hour for time in times] == [1] * len(times)


def test_shares_of_windows_are_those_of_the_scores(tmp_path: Path) -> None:
    model = write_model(Lake(str(tmp_path)), OLD, 1, 0.5)
    frame = synthetic_frame(60, seed=1).assign(capture_file=["a", "b", "c"] * 20)
    found = outside_measures.windows(model, pa.Table.from_pandas(frame))
    assert (found.rows, found.captures) == (60, 3)
    assert sum(found.classes.values()) == 60
    assert found.called == 60 - found.classes.get("Benign", 0)
    assert found.called_share == pytest.approx(1 - found.named(["Benign"]))
    alone = [outside_measures.windows(model, pa.Table.from_pandas(frame[frame["capture_file"] == n])) for n in "abc"]
    assert sum(each.called for each in alone) == found.called
    assert sum(each.flagged for each in alone) == found.flagged
    assert found.mostly_called == sum(each.called_share > 0.5 for each in alone)


def run(called: int, flagged: int, incidents: int, **others: object) -> Run:
    everyday = Windows(1_000, called, flagged, {}, 1, 10)
    attack = Windows(100, 100, 97, {"DDoS-SYN": 60, "DoS-SYN": 35, "Benign": 5})
    test = HeldOutRows(0.76, 0.985, {"DDoS-SYN": 0.99}, {"DDoS-SYN": 0.99, "Benign": 0.01})
    whole = Run(everyday, attack, {10: attack, 100: attack}, test, incidents, 0, 1.5, "", "DDoS-SYN", True, 2.0)
    return dataclasses.replace(whole, **others)  # type: ignore[arg-type]


def test_bars_compare_the_adapted_models_with_their_limits(tmp_path: Path) -> None:
    results = Results({"captures": "synthetic", "data": "synthetic"})
    results.unseen[LABORATORY] = [run(600, 300, 9)] * 2
    results.unseen[ADAPTED] = [run(100, 10, 6), run(40, 20, 2)]
    results.later[LABORATORY], results.later[ADAPTED] = [run(500, 200, 12)], [run(10, 5, 1)]
    found = {bar.name: bar for bar in outside_report.bars(results)}
    values = {name: (round(bar.value, 4), bar.result) for name, bar in found.items()}
    assert values == {
        "unseen halves: share of windows called attack": (0.07, "ok"),
        "unseen halves: share of windows flagged": (0.015, "ok"),
        "unseen halves: most false incidents of a half, N = 1": (6, "missed"),
        "test rows: macro F1 lost": (0.0, "ok"),
        "test rows: attack recall": (0.985, "ok"),
        "scan: lowest share flagged": (0.97, "ok"),
        "SYN flood, 10 packets: lowest share named a SYN flood": (0.95, "ok"),
        "later blocks: false incidents, N = 1": (1, "ok"),
    }
    results.shift = [outside_shift.Shift("scan", ADAPTED, run(10, 5, 1).everyday, run(20, 5, 1).everyday)]
    outside_report.write(tmp_path, results)
    stored = json.loads((tmp_path / "outside.json").read_text())
    assert stored["bars"]["unseen halves: most false incidents of a half, N = 1"]["result"] == "missed"
    assert (
        "| unseen half: windows called attack | 60.0% (60.0%–60.0%) | 7.0% (4.0%–10.0%) |"
        in (tmp_path / "outside.md").read_text()
    )
    assert (tmp_path / "outside.png").read_bytes().startswith(b"\x89PNG")


def test_synthetic_captures_and_the_flood_give_windows(spark: SparkSession, tmp_path: Path) -> None:
    outside_captures.write_synthetic(tmp_path / "captures")
    outside_captures.write_flood(tmp_path / "captures/flood")
    windows = {}
    for name in ("everyday", "attacks", "flood"):
        settings = (f"extract.captures={tmp_path}/captures/{name}", f"extract.target={tmp_path}/{name}")
        code, output = in_process.run(
            tmp_path, "extract", *settings, "extract.networks=[192.0.2.0/24,192.168.0.0/16,10.0.0.0/8]"
        )
        assert code == 0, output
        windows[name] = windows_of(tmp_path / name)
    captures = outside_nights.captures_of(windows["everyday"])
    assert len(captures) == len(list((tmp_path / "captures/everyday").glob("*.pcap"))) >= 16
    devices = set(windows["everyday"]["device_id"].to_pylist())
    assert all(str(name).split("/")[0] in captures for name in devices)  # an address of two captures: two devices
    assert len(windows["attacks"]) > 20
    assert len(windows["flood"]) == 2_000
    assert set(windows["flood"]["syn_flag_number"].to_pylist()) == {1.0}
    assert len(set(windows["flood"]["device_id"].to_pylist())) == 1
