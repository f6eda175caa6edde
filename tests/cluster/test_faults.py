"""Executors, workers and disks fail while jobs run; the rows are the same as without the fault."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest

from tests.cluster.harness import TRAINING, Cluster, Night, end, finished, start, stopped, submit, waited
from tests.cluster.tables import assert_same_rows

# A fault occurs when the first file of the job's tables exists: some tasks are done, others run or wait.
FIRST_FILE = {"ingest": "flows/split=*", "features": "features/paper/split=*", "score": "split_predictions/*/*"}
TABLES = {
    "ingest": ("flows/split=train", "flows/split=test"),
    "features": ("features/paper",),
    "score": ("split_predictions", "confusion"),
}


def begun(folder: Path, job: str) -> bool:
    return any((folder / "lake").glob(f".staging/{job}/*/{FIRST_FILE[job]}/part-*"))


def suspended_executor(cluster: Cluster, folder: Path, job: str, process: psutil.Popen) -> psutil.Process:
    """Return one of the job's executors, suspended, at the moment of the fault."""
    waited(lambda: len(cluster.executors()) == 2, 60, "two executors", process)
    executors = cluster.executors()
    waited(lambda: begun(folder, job), 60, f"the first file of {job}", process)
    executors[0].suspend()
    return executors[0]


@pytest.mark.parametrize("job", ["ingest", "features", "score"])
def test_an_executor_killed_during_a_job_changes_no_row(cluster: Cluster, night: Night, copy: Path, job: str) -> None:
    process = start(cluster, copy, job, *TRAINING, f"ingest.source={night.source}")
    suspended_executor(cluster, copy, job, process).kill()
    code, output = finished(process)
    assert code == 0, output
    assert "Lost executor" in output
    assert_same_rows(copy / "lake", night.folder / "lake", *TABLES[job])
    assert not [path for path in (copy / "lake").iterdir() if path.name.startswith(".")]


def test_a_straggler_changes_no_row(cluster: Cluster, night: Night, copy: Path) -> None:
    relative = os.path.relpath(night.source, copy)  # as a user types it, where the job is submitted
    process = start(cluster, copy, "ingest", *TRAINING, f"ingest.source={relative}")
    executor = suspended_executor(cluster, copy, "ingest", process)
    with stopped(executor):
        time.sleep(5)
        assert process.poll() is None, "the job waits for it"
    code, output = finished(process)
    assert code == 0, output
    assert "Lost executor" not in output
    assert_same_rows(copy / "lake", night.folder / "lake", *TABLES["ingest"])


def test_a_killed_executor_ends_training_in_time_and_the_resumed_run_continues(cluster: Cluster, copy: Path) -> None:
    training = (*TRAINING, "train.epochs=12", "train.patience=12")
    checkpoint = copy / "lake/checkpoints/dnn-6-paper.npz"
    checkpoint.unlink(missing_ok=True)
    models = sorted((copy / "lake/models/dnn-6-paper").iterdir())
    process = start(cluster, copy, "train", *training)
    waited(checkpoint.exists, 120, "the first epoch", process)
    killed = time.monotonic()
    cluster.executors()[0].kill()
    code, output = finished(process, 90)
    took = time.monotonic() - killed
    assert code == 1, output
    assert "a rank that trained dnn-6-paper failed or was killed" in output
    assert "--set train.resume=true" in output
    assert took < 60, f"{took:.0f} s"
    assert sorted((copy / "lake/models/dnn-6-paper").iterdir()) == models

    output = submit(cluster, copy, "train", *training, "train.resume=true")
    assert "dnn-6-paper resumes after epoch" in output
    assert "trained dnn-6-paper epochs=12" in output


def test_a_worker_lost_between_jobs_does_no_harm(cluster: Cluster, night: Night, copy: Path) -> None:
    end(cluster.processes["worker-2"])
    try:
        waited(lambda: cluster.workers_alive() == 1, 60, "the master to notice")
        submit(cluster, copy, "features", *TRAINING)
        assert_same_rows(copy / "lake", night.folder / "lake", "features/paper")
    finally:
        cluster.start_worker("worker-2")
        waited(lambda: cluster.workers_alive() == 2, 60, "the worker's return")


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"mounting a small tmpfs is not permitted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_ends_the_job_with_its_reason_and_leaves_the_old_tables(
    night: Night, copy: Path, full_disk: Path, tmp_path: Path
) -> None:
    small = Cluster(tmp_path / "cluster", shuffle=full_disk)
    before = {path: path.stat().st_mtime_ns for path in (copy / "lake").rglob("*.parquet") if "audit" not in path.parts}
    try:
        small.start()
        code, output = finished(
            start(
                small,
                copy,
                "ingest",
                *TRAINING,
                f"ingest.source={night.source}",
                more={"SPARK_LOCAL_DIRS": str(tmp_path)},
            )
        )
    finally:
        small.stop()
    assert code == 1, output
    assert "a disk is full: " in output
    assert "No space left on device" in output
    assert "free space and run the same command again" in output
    assert "Traceback" not in output
    after = {path: path.stat().st_mtime_ns for path in (copy / "lake").rglob("*.parquet") if "audit" not in path.parts}
    assert after == before
    failed = pd.read_parquet(copy / "lake/audit").query("status == 'failed'")
    assert failed["job"].tolist() == ["ingest"]
