"""The same rows and the same statistics however the source is cut and however many tasks run at once."""

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.support.flows import RunJob, synthetic_frame
from tests.support.submitting import prepare, submit

ROWS = 7_000


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


def tables(lake: Path) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, object]]:
    flows = pd.read_parquet(lake / "flows").sort_values("source_row", ignore_index=True)
    features = pd.read_parquet(lake / "features/paper")
    features = features.sort_values(["split", "row_key", "label19"], ignore_index=True)
    return flows, features, json.loads((lake / "features/paper/_preprocessor.json").read_text())


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, object]]:
    """What spark-submit with one task slot makes of one chunk."""
    folder = prepare(tmp_path_factory.mktemp("one"))
    source_in_chunks(folder / "source", 1)
    for job in ("ingest", "features"):
        code, output = submit(folder, job, "ingest.source=source", master="local[1]")
        assert code == 0, output
    return tables(folder / "lake")


@pytest.mark.parametrize("chunks", [1, 2, 7])
def test_tables_do_not_depend_on_pieces_or_slots(
    chunks: int,
    expected: tuple[pd.DataFrame, pd.DataFrame, dict[str, object]],
    run_job: RunJob,
    tmp_path: Path,
) -> None:
    assert run_job("ingest", ingest__source=source_in_chunks(tmp_path / "source", chunks)) == 0
    assert run_job("features") == 0
    flows, features, fitted = tables(tmp_path / "lake")
    pd.testing.assert_frame_equal(flows, expected[0])
    pd.testing.assert_frame_equal(features, expected[1])
    assert fitted == expected[2]
    assert int(flows["duplicate"].sum()) == 20
    assert int(flows["label_conflict"].sum()) == 40
    assert fitted["rows"] + (features["split"] == "validation").sum() == ROWS - 500 - 20


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
