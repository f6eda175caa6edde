"""Rows of windows of 10 packets joined to longer windows: compared with windows computed packet by packet."""

import gzip
import itertools
import random
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ids_spark.config.settings import IngestConfig
from ids_spark.dataset.features import RELEASE_39
from ids_spark.ingest import readers
from ids_spark.ingest.join_windows import joined
from ids_spark.ingest.readers import read_typed
from ids_spark.ingest.row_hash import row_keys
from ids_spark.ingest.sources import SourceUnusable, by_file, discover
from tests.support import packet_reference as reference
from tests.support.flows import RunJob, write_synthetic_source
from tests.support.packet_reference import Seen
from tests.support.random_captures import capture

FEATURES = list(RELEASE_39.features)


def packets_of(seed: int, number: int) -> list[Seen]:
    """Return visible packets in order of time, all of protocols that a feature counts."""
    found = [reference.seen(packet) for packet in capture(random.Random(seed), number)]
    visible = [p for p in found if p is not None and (p.arp or p.transport or p.protocol in (1, 2))]
    return sorted(visible, key=lambda p: p.nanos)


def windows(packets: Sequence[Seen], n: int) -> pd.DataFrame:
    """Return the official rows of a slice: windows of n packets and what is left, the last window, if above one."""
    parts = [packets[i : i + n] for i in range(0, len(packets), n)]
    before = [packets[0], *(part[-1] for part in parts)]
    rows = [reference.features(part, last) for part, last in zip(parts, before, strict=False) if len(part) > 1]
    return pd.DataFrame(rows, columns=FEATURES)


def write(root: Path, frame: pd.DataFrame, name: str = "train/Benign_train.pcap", **options: int) -> Path:
    path = root / f"{name}.{'parquet' if options else 'csv'}"
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path, index=False, **options) if options else frame.to_csv(path, index=False)
    return path


def read(root: Path, window: int = 100) -> tuple[pd.DataFrame, int, int]:
    """Return the joined flows of the one file below a folder, the rows read and the rows joined to others."""
    row_groups = by_file(discover(IngestConfig(source=str(root), window=window)).row_groups, 4)[0]
    parts = itertools.chain.from_iterable(read_typed(row_group, RELEASE_39) for row_group in row_groups)
    found = list(joined(parts, row_groups[0], window))
    flows = pa.concat_tables(part.flows for part in found)
    np.testing.assert_array_equal(flows["row_key"], row_keys([flows[f].to_numpy() for f in FEATURES]))
    rows, merged = sum(p.read.total() for p in found), sum(p.joined.total() for p in found)
    assert rows == len(flows) + merged + sum(len(part.quarantine) for part in found)
    return flows.to_pandas(), rows, merged


@pytest.mark.parametrize("seed", range(12))
def test_joined_rows_are_those_of_the_longer_window(tmp_path: Path, seed: int) -> None:
    packets = packets_of(seed, 100 * random.Random(seed).randint(1, 8) + seed)
    if len(packets) % 10 == 1:  # a window of one packet has no deviation, so its row is lost
        packets.pop()
    for window in (100, 30):
        write(tmp_path, windows(packets, 10))
        found, rows, merged = read(tmp_path, window)
        expected = windows(packets, window)
        assert (len(found), rows - merged) == (len(expected), len(expected))
        np.testing.assert_allclose(found[FEATURES], expected, rtol=1e-9, atol=1e-12)
        assert found["source_row"].tolist() == [i * window // 10 for i in range(len(found))]


def test_windows_do_not_depend_on_how_a_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = windows(packets_of(3, 900), 10)
    frame.loc[[4, 57], "Rate"] = np.nan
    write(tmp_path / "csv", frame)
    expected, _, _ = read(tmp_path / "csv")
    assert len(expected) > 8
    monkeypatch.setattr(readers, "_CSV_BLOCK_BYTES", 1_500)
    text = (tmp_path / "csv/train/Benign_train.pcap.csv").read_bytes()
    (tmp_path / "gz/train").mkdir(parents=True)
    (tmp_path / "gz/train/Benign_train.pcap.csv.gz").write_bytes(gzip.compress(text))
    for rows in (1, 7, 10, 1_000):
        write(tmp_path / f"groups of {rows}", frame, row_group_size=rows)
    for folder in ("csv", "gz", *(f"groups of {rows}" for rows in (1, 7, 10, 1_000))):
        found, _, _ = read(tmp_path / folder)
        columns = ["source_row", "row_key", *FEATURES]
        pd.testing.assert_frame_equal(found[columns], expected[columns])


def test_runs_end_at_rows_in_quarantine_at_longer_windows_and_with_the_last_packets_of_a_slice(tmp_path: Path) -> None:
    row = windows(packets_of(1, 100), 10).iloc[[0]]
    packets = [10.0] * 12 + [4.0] + [10.0] * 3 + [100.0] + [10.0] + [37.0] + [10.0] * 5 + [10.0] * 2 + [7.0, 7.0]
    frame = pd.concat([row] * len(packets), ignore_index=True).assign(Number=packets)
    frame.loc[19 + 3, "IAT"] = np.nan  # the fourth of the five
    write(tmp_path, frame)
    found, rows, merged = read(tmp_path)
    assert list(zip(found["source_row"], found["Number"], strict=True)) == [
        (0, 100.0),
        (10, 24.0),  # two rows and the last packets of the slice
        (13, 30.0),
        (16, 100.0),  # had 100 packets
        (17, 10.0),  # alone in its run
        (18, 37.0),  # neither 10 packets nor fewer
        (19, 30.0),
        (23, 37.0),  # a row, two more, and the last packets of the slice
        (27, 7.0),
    ]
    assert (rows, merged) == (28, 28 - 1 - 9)
    kept = found[found["source_row"].isin([16, 17, 18, 27])]
    pd.testing.assert_frame_equal(
        kept[FEATURES].reset_index(drop=True), frame.loc[[16, 17, 18, 27], FEATURES].reset_index(drop=True)
    )


def test_the_protocol_of_a_tie_is_the_smallest_and_unknown_protocols_are_those_of_their_row(tmp_path: Path) -> None:
    row = windows(packets_of(1, 100), 10).iloc[0]
    shares = {"TCP": 0.0, "UDP": 0.0, "ICMP": 0.0, "IGMP": 0.0, "ARP": 0.0}
    tie = [shares | {"TCP": 1.0, "Protocol Type": 6.0}, shares | {"UDP": 1.0, "Protocol Type": 17.0}]
    few = [shares | {"TCP": 0.4, "UDP": 0.6, "Protocol Type": 17.0}] * 2 + [shares | {"TCP": 0.9, "Protocol Type": 6.0}]
    other = [shares | {"UDP": 0.3, "Protocol Type": 47.0}] * 3
    gap = {"Rate": np.nan}
    frame = pd.DataFrame([row.to_dict() | change for change in (*tie, gap, *few, gap, *other)])
    write(tmp_path, frame)
    assert read(tmp_path)[0]["Protocol Type"].tolist() == [6.0, 6.0, 47.0]


def test_infinite_rates_are_spans_of_zero_and_packets_out_of_order_make_no_span_negative(tmp_path: Path) -> None:
    row = windows(packets_of(1, 100), 10).iloc[0]
    zero, later = {"Rate": np.inf, "IAT": 0.0}, {"Rate": np.inf, "IAT": 0.25}
    back = {"Rate": 10.0, "IAT": -1.0}
    gap = {"Rate": np.nan}
    rows = (zero, zero, gap, zero, later, gap, {"Rate": 5.0, "IAT": 9.0}, later, gap, {"Rate": 20.0}, back)
    write(tmp_path, pd.DataFrame([row.to_dict() | change for change in rows]))
    assert read(tmp_path)[0]["Rate"].tolist() == [np.inf, 20 / 2.5, 20 / (2.0 + 2.5), 20 / 1.0]


def test_rows_of_impossible_windows_stay_as_they_are(tmp_path: Path) -> None:
    row = windows(packets_of(1, 100), 10).iloc[0].to_dict()
    frame = pd.DataFrame([row | {"Number": number, "Rate": 0.0} for number in (10, 10, 0, 1, 2.5, 1e300, np.inf)])
    impossible = [("IAT", np.inf), ("IAT", -np.inf), ("Variance", 1e300), ("Tot sum", 1e300)]
    for name, value in (*impossible, ("Protocol Type", 6.5)):
        frame = pd.concat([frame, frame.iloc[[0]].assign(**{name: value})], ignore_index=True)
    write(tmp_path, frame)
    found, _, merged = read(tmp_path)
    assert merged == 1
    assert found["Rate"].tolist() == [0.0] * 11
    np.testing.assert_array_equal(found[FEATURES].iloc[1:], frame[FEATURES].iloc[2:])


def test_invented_protocol_numbers_cost_no_memory(tmp_path: Path) -> None:
    row = windows(packets_of(1, 100), 10).iloc[[0]].assign(Rate=0.0)
    frame = pd.concat([row] * 20_000, ignore_index=True).assign(**{"Protocol Type": np.linspace(0, 255, 20_000)})
    write(tmp_path, frame)
    tracemalloc.start()
    try:
        found, _, _ = read(tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found) > 19_000
    assert peak < 100e6  # counts of each number for each window would take 320 MB


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: write_synthetic_source(root, rows=5, schema="original45"), "is of original45"),
        (
            lambda root: write(root, windows(packets_of(1, 100), 10).assign(label="Benign_train"), "all"),
            "found labels in 'label'",
        ),
        (
            lambda root: write(
                root, windows(packets_of(1, 100), 10), "train/label=Benign_train/rows", row_group_size=100
            ),
            "found labels in 'label'",
        ),
        (
            lambda root: write(
                root, windows(packets_of(1, 100), 10), "Benign_train.parquet/part-00000", row_group_size=100
            ),
            "found a part file",
        ),
    ],
)
def test_sources_that_are_not_complete_files_in_order_are_refused(tmp_path: Path, change, message: str) -> None:
    change(tmp_path)
    discover(IngestConfig(source=str(tmp_path)))
    with pytest.raises(SourceUnusable, match=message):
        discover(IngestConfig(source=str(tmp_path), window=100))


def test_ingest_joins_rows_and_accounts_for_each(tmp_path: Path, run_job: RunJob) -> None:
    frames = {name: windows(packets_of(seed, 1_500), 10) for seed, name in enumerate(("Benign", "Recon-OS_Scan"))}
    for split, (name, frame) in itertools.product(("train", "test"), frames.items()):
        write(tmp_path / "source", frame.iloc[: 100 if split == "train" else 60], f"{split}/{name}_{split}.pcap")
    broken = tmp_path / "source/train/Benign_train.pcap.csv"
    lines = broken.read_text().splitlines()
    lines[35] = "1,2,3"
    broken.write_text("\n".join(lines) + "\n")
    assert run_job("ingest", ingest__source=tmp_path / "source", ingest__window=100) == 0
    flows = pd.read_parquet(tmp_path / "lake/flows")
    found = flows.groupby(["split", "class19"], observed=True).size().to_dict()
    assert found == {
        ("train", "Benign"): 3 + 1 + 6 + 1,  # 34 rows and 65 after the broken line: four rows and five are left
        ("train", "Recon-OS_Scan"): 10,
        ("test", "Benign"): 6,
        ("test", "Recon-OS_Scan"): 6,
    }
    assert sorted(flows[flows["Number"] != 100]["Number"]) == [40, 50]
    audit = pd.read_parquet(tmp_path / "lake/audit").iloc[0]
    assert audit[["rows_in", "rows_out", "rows_quarantined", "rows_joined"]].tolist() == [320, 33, 1, 286]
    assert any("286 rows of 10 packets were joined" in note for note in audit["notes"])


def test_identities_of_official_rows_hold_for_joined_rows(real_flows: Path) -> None:
    source = discover(IngestConfig(source=f"{real_flows}/release39", window=100))
    for row_groups in by_file(source.row_groups, 100):
        found = list(joined(read_typed(row_groups[0], RELEASE_39), row_groups[0], 100))
        rows = pa.concat_tables(part.flows for part in found).to_pandas()
        n = rows["Number"]
        for whole in (rows["Variance"] * n * (n - 1), rows["Header_Length"] * n, rows["Time_To_Live"] * n):
            np.testing.assert_allclose(whole, np.rint(whole), rtol=1e-12, atol=1e-6)
        np.testing.assert_array_equal(rows["AVG"], rows["Tot size"])
        np.testing.assert_allclose(rows["Std"] ** 2, rows["Variance"], rtol=1e-12)
        np.testing.assert_allclose(rows["AVG"] * n, rows["Tot sum"], rtol=1e-12)
        for flag in ("ack", "syn", "fin", "rst"):
            np.testing.assert_allclose(rows[f"{flag}_count"], n * rows[f"{flag}_flag_number"], atol=1e-9)
        shares = rows[["TCP", "UDP", "ARP", "ICMP", "IGMP"]].sum(axis=1)
        assert (np.abs(shares - 1) > 1e-9).sum() <= 1  # one official row has fragments
        assert (n > 10).any() or len(rows) < 100
