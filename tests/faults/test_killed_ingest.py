"""A job killed with SIGKILL leaves the old tables or the new ones, and a rerun succeeds without manual work."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from tests.support.flows import synthetic_frame, write_synthetic_source
from tests.support.in_process import run
from tests.support.submitting import committing, kill, prepare, staged, start, wait_for

pytestmark = pytest.mark.slow

MOMENTS: dict[str, Callable[[Path], bool]] = {
    "before it wrote": lambda lake: True,
    "at the first staged file": staged("flows/split=*/part-*"),
    "with the tables staged": staged("flows/_table.json"),
    "with everything staged": staged("audit/*"),
    "in the commit": committing,
}


@pytest.fixture(scope="module")
def old(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of 12 × 60 rows, and beside it a larger source that a later run will ingest."""
    folder = prepare(tmp_path_factory.mktemp("night"))
    write_synthetic_source(folder / "small", rows=60)
    write_synthetic_source(folder / "large", rows=60)
    for i in range(6):  # enough work for the job to be killed at every moment
        path = folder / "large" / "train" / f"Benign{i}_train.pcap.parquet"
        synthetic_frame(20_000, seed=1_000 + i).to_parquet(path, index=False)
    code, output = run(folder, "ingest", f"ingest.source={folder}/small")
    assert code == 0, output
    return folder


def rows_and_runs(lake: Path) -> tuple[int, set[str]]:
    flows = pd.read_parquet(lake / "flows", columns=["source_row"])
    return len(flows), {path.name for path in (lake / "audit").iterdir()}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_ingest_leaves_old_or_new_tables_and_a_rerun_succeeds(old: Path, tmp_path: Path, moment: str) -> None:
    folder = tmp_path / "night"
    shutil.copytree(old, folder)
    lake = folder / "lake"
    before = rows_and_runs(lake)
    process = start(folder, "ingest", "ingest.source=large")
    wait_for(MOMENTS[moment], process, lake)  # or until its end, if the moment was too short
    kill(process)

    if committing(lake):  # it began to commit: the next job completes that first
        expected = 12 * 60 + 6 * 20_000
    else:
        rows, runs = rows_and_runs(lake)
        expected = rows
        assert (rows, runs) == before or (rows == 12 * 60 + 6 * 20_000 and len(runs) == 2)
    code, output = run(folder, "features")
    assert code == 0, output
    rows, runs = rows_and_runs(lake)
    assert rows == expected
    assert len([run for run in runs if run.endswith("-ingest.parquet")]) == (1 if rows == 720 else 2)
    features = pd.read_parquet(lake / "features/paper", columns=["label19"])
    assert len(features) == rows

    code, output = run(folder, "ingest", f"ingest.source={folder}/large")
    assert code == 0, output
    assert rows_and_runs(lake)[0] == 12 * 60 + 6 * 20_000
    assert not [path for path in lake.iterdir() if path.name.startswith(".")]


def test_an_ingest_that_starts_during_another_removes_nothing_of_it(old: Path, tmp_path: Path) -> None:
    folder = tmp_path / "night"
    shutil.copytree(old, folder)
    first = start(folder, "ingest", "ingest.source=large")
    assert wait_for(MOMENTS["at the first staged file"], first, folder / "lake"), "it is suspended while it works"
    os.killpg(first.pid, signal.SIGSTOP)  # so that the other job starts and ends meanwhile
    try:
        code, output = run(folder, "ingest", f"ingest.source={folder}/small")
        assert code == 0, output
        assert rows_and_runs(folder / "lake")[0] == 12 * 60
    finally:
        os.killpg(first.pid, signal.SIGCONT)
    output, _ = first.communicate()
    assert first.returncode == 0, output
    assert rows_and_runs(folder / "lake")[0] == 12 * 60 + 6 * 20_000
    assert not [path for path in (folder / "lake").iterdir() if path.name.startswith(".")]
