"""Validation rows: random ones, and runs of benign rows of their source file."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ids_spark.features.validation_rows import NO_BLOCK, HeldOut
from tests.support.flows import RunJob, synthetic_frame

FILES = {"Benign_train": 3_000, "Benign2_train": 1_500, "TCP_IP-DDoS-UDP1_train": 1_000, "Recon-VulScan_test": 200}
BLOCK = 100


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for i, (name, rows) in enumerate(FILES.items()):
        folder = tmp_path / "source" / name.rpartition("_")[2]
        folder.mkdir(parents=True, exist_ok=True)
        frame = synthetic_frame(rows, seed=i)
        if name == "Benign_train":
            frame.iloc[2_900:2_950] = frame.iloc[:50].to_numpy()  # duplicates far from the first
        if name.startswith("TCP"):
            frame.iloc[:40] = synthetic_frame(3_000, seed=0).iloc[200:240].to_numpy()  # benign rows with a second label
        frame.to_parquet(folder / f"{name}.parquet", index=False)
    return tmp_path / "source"


def test_blocks_are_whole_runs_of_benign_rows_and_no_vector_is_in_two_splits(
    source: Path, run_job: RunJob, tmp_path: Path
) -> None:
    assert run_job("ingest", ingest__source=source) == 0
    assert run_job("features", features__blocked_share=0.2, features__block_rows=BLOCK) == 0
    flows = pd.read_parquet(tmp_path / "lake/flows/split=train")
    splits = {
        name: pd.read_parquet(tmp_path / f"lake/features/paper/split={name}")
        for name in ("train", "validation", "test")
    }
    held = splits["validation"]
    assert splits["train"]["block"].isna().all()
    assert splits["test"]["block"].isna().all()
    assert not set(splits["train"]["row_key"]) & set(held["row_key"])

    blocked = held[held["block"].notna()]
    assert (blocked["label2"] == 0).all()
    origin = flows[~flows["duplicate"]].set_index("row_key")[["source_file", "source_row", "label_conflict", "label19"]]
    found = blocked.join(origin.drop(columns="label19"), on="row_key")
    assert len(found) == len(blocked)
    assert not found["label_conflict"].any()
    found["run"] = found["source_row"] // BLOCK
    assert (found.groupby("block")[["source_file", "run"]].nunique() == 1).all(axis=None)
    runs = set(found[["source_file", "run"]].itertuples(index=False, name=None))
    assert 3 <= len(runs) == found["block"].nunique() <= 16  # of 45, a fifth on average
    assert found["source_file"].nunique() == 2
    candidates = origin[(origin["label19"] == 0) & ~origin["label_conflict"]]
    expected = [
        key
        for key, file, row in zip(candidates.index, candidates["source_file"], candidates["source_row"], strict=True)
        if (file, row // BLOCK) in runs
    ]
    assert sorted(expected) == sorted(blocked["row_key"])  # a run is held out as a whole
    facts = json.loads((tmp_path / "lake/features/paper/_table.json").read_text())
    assert facts["blocked_rows"] == len(blocked)

    random = held[held["block"].isna()]
    assert run_job("features", features__blocked_share=0) == 0
    without = pd.read_parquet(tmp_path / "lake/features/paper/split=validation")
    assert without["block"].isna().all()
    assert set(random["row_key"]) == set(without["row_key"]) - set(blocked["row_key"])
    assert json.loads((tmp_path / "lake/features/paper/_table.json").read_text())["blocked_rows"] == 0


def test_blocks_depend_on_file_and_position_alone() -> None:
    held_out = HeldOut(0.2, 0.3, 10)
    files, rows = pa.chunked_array([["a"] * 5_000, ["b"] * 5_000]), np.tile(np.arange(5_000), 2)
    eligible = np.arange(10_000) % 7 > 0
    found = held_out.blocks(files, rows, eligible)
    assert (found[~eligible] == NO_BLOCK).all()
    share = (found[eligible] != NO_BLOCK).mean()
    assert share == pytest.approx(0.3, abs=0.05)  # 1,000 blocks
    of_run = pd.Series(found[eligible]).groupby(np.arange(10_000)[eligible] // 10).nunique()
    assert (of_run == 1).all()
    assert (found[:5_000] != found[5_000:]).any()
    order = np.random.default_rng(1).permutation(10_000)
    shuffled = held_out.blocks(files.take(pa.array(order)).dictionary_encode(), rows[order], eligible[order])
    np.testing.assert_array_equal(shuffled, found[order])
    assert (HeldOut(0.2).blocks(files, rows, eligible) == NO_BLOCK).all()
    assert held_out.blocks(files.slice(0, 0), rows[:0], eligible[:0]).shape == (0,)
