"""The same rows and the same statistics for any row groups of the source and any number of concurrent tasks."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from tests.support.flows import RunJob, synthetic_frame
from tests.support.in_process import run
from tests.support.submitting import prepare, submit

ROWS = 7_000
Tables = tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]
"""Flows, features and the fitted preprocessor."""


def source_in_chunks(folder: Path, chunks: int) -> Path:
    """Write one synthetic table with duplicates, label conflicts and infinities as so many row groups."""
    frame = synthetic_frame(ROWS, seed=3)
    frame.loc[5::100, "Rate"] = float("inf")
    frame.iloc[1_000:1_040] = frame.iloc[2_000:2_040].to_numpy()
    frame["label"] = ["Benign_train" if i % 3 else "TCP_IP-DDoS-UDP1_train" for i in range(ROWS)]
    frame.loc[ROWS - 500 :, "label"] = "Recon-VulScan_test"
    frame.loc[1_000:1_019, "label"] = frame.loc[2_000:2_019, "label"].to_numpy()
    frame.loc[1_020:1_039, "label"] = "ARP_Spoofing_train"
    folder.mkdir(parents=True)
    frame.to_parquet(folder / "flows.parquet", index=False, row_group_size=-(-ROWS // chunks))
    return folder


def tables(lake: Path) -> Tables:
    flows = pd.read_parquet(lake / "flows").sort_values("source_row", ignore_index=True)
    features = pd.read_parquet(lake / "features/paper")
    features = features.sort_values(["split", "row_key", "label19"], ignore_index=True)
    return flows, features, json.loads((lake / "features/paper/_preprocessor.json").read_text())


@pytest.fixture(scope="module")
def one_chunk(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Tables of a source of one row group, written with two task slots."""
    folder = tmp_path_factory.mktemp("one")
    source_in_chunks(folder / "source", 1)
    for job in ("ingest", "features"):
        code, log = run(folder, job, f"ingest.source={folder}/source")
        assert code == 0, log
    return tables(folder / "lake")


def assert_equal(found: Tables, expected: Tables) -> None:
    pd.testing.assert_frame_equal(found[0], expected[0])
    pd.testing.assert_frame_equal(found[1], expected[1])
    assert found[2] == expected[2]


def test_duplicates_and_label_conflicts_are_those_of_the_source(one_chunk: Tables) -> None:
    flows, features, fitted = one_chunk
    assert int(flows["duplicate"].sum()) == 20
    assert int(flows["label_conflict"].sum()) == 40
    assert fitted["rows"] + (features["split"] == "validation").sum() == ROWS - 500 - 20


@pytest.mark.parametrize("chunks", [2, 7])
def test_tables_do_not_depend_on_the_number_of_row_groups(
    chunks: int, one_chunk: Tables, run_job: RunJob, tmp_path: Path
) -> None:
    assert run_job("ingest", ingest__source=source_in_chunks(tmp_path / "source", chunks)) == 0
    assert run_job("features") == 0
    assert_equal(tables(tmp_path / "lake"), one_chunk)


@pytest.mark.slow
def test_tables_do_not_depend_on_the_number_of_task_slots(one_chunk: Tables, tmp_path: Path) -> None:
    folder = prepare(tmp_path / "one slot")
    source_in_chunks(folder / "source", 1)
    for job in ("ingest", "features"):
        code, output = submit(folder, job, "ingest.source=source", master="local[1]")
        assert code == 0, output
    assert_equal(tables(folder / "lake"), one_chunk)


def test_a_source_of_equal_rows_keeps_one_of_each_class(run_job: RunJob, tmp_path: Path) -> None:
    frame = pd.concat([synthetic_frame(1, 1)] * 30_000 + [synthetic_frame(50, 2)], ignore_index=True)
    frame["label"] = ["Benign_train", "ARP_Spoofing_train"] * (len(frame) // 2)
    (tmp_path / "source").mkdir()
    frame.to_parquet(tmp_path / "source" / "flows.parquet", index=False)
    assert run_job("ingest", ingest__source=tmp_path / "source", ingest__rows_per_file=5_000) == 0
    assert run_job("features") == 0
    flows = pd.read_parquet(tmp_path / "lake/flows")
    assert int((~flows["duplicate"]).sum()) == 52
    assert int(flows["label_conflict"].sum()) == 30_000
