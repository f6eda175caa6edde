"""Active runs of a lake detect each other, and no job removes files of an active one."""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pyarrow.fs as pafs
import pytest
from psutil import _pslinux

from ids_spark.base.errors import Interrupted
from ids_spark.lake.filesystem import exists, make_folder, remove_if_empty, write_json
from ids_spark.lake.lease import Lease, active_runs, expire, identity_of
from ids_spark.lake.store import Lake


def heartbeat(root: Path, run_id: str, age_s: float = 0.0, **facts: object) -> Path:
    """Write the heartbeat file of a run, by default of another machine."""
    path = root / f".running-{run_id}.json"
    path.write_text(json.dumps({"machine": "another", "pid": 1, "started": 0.0} | facts))
    os.utime(path, times=(time.time() - age_s,) * 2)
    return path


def renewing() -> bool:
    """Return whether a lease of this process is being renewed."""
    return any(thread.name.startswith("lease ") for thread in threading.enumerate())


def test_a_run_is_active_while_it_holds_its_lease_and_leaves_no_file(tmp_path: Path) -> None:
    run = Lease(str(tmp_path), "run1")
    run.check()
    assert active_runs(str(tmp_path)) == frozenset()
    assert not list(tmp_path.iterdir())
    with run:
        run.take()
        run.check()
        assert active_runs(str(tmp_path)) == {"run1"}
    assert active_runs(str(tmp_path)) == frozenset()
    assert not list(tmp_path.iterdir())


def test_on_one_machine_a_run_is_active_while_its_process_exists(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    facts = identity_of(psutil.Process(process.pid))
    heartbeat(tmp_path, "silent", age_s=86_400.0, **facts)
    heartbeat(tmp_path, "its-pid-belongs-to-another-now", **(facts | {"started": -60.0}))
    assert active_runs(str(tmp_path)) == {"silent"}
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie: ended, its exit code not yet read
    assert active_runs(str(tmp_path)) == frozenset(), "a zombie has ended"
    process.communicate()
    assert active_runs(str(tmp_path)) == frozenset()


def test_setting_the_clock_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Lease(str(tmp_path), "run1"):
        boot = _pslinux.boot_time()
        monkeypatch.setattr(_pslinux, "boot_time", lambda: boot + 3_600.0)  # as after a change of the clock
        assert active_runs(str(tmp_path)) == {"run1"}


@pytest.mark.parametrize(("age_s", "active"), [(0.0, True), (500.0, True), (700.0, False)])
def test_a_run_of_another_machine_is_active_for_ten_minutes_after_its_last_heartbeat(
    tmp_path: Path, age_s: float, active: bool
) -> None:
    path = heartbeat(tmp_path, "far", age_s)
    assert ("far" in active_runs(str(tmp_path))) == active
    expire(str(tmp_path))
    assert path.exists() == active


def test_a_heartbeat_is_renewed_but_not_after_another_job_removed_it(tmp_path: Path) -> None:
    path = tmp_path / ".running-run1.json"
    with Lease(str(tmp_path), "run1", heartbeat_s=0.01) as run:
        os.utime(path, times=(0.0, 0.0))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime < 1.0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > time.time() - 60
        while renewing() and time.monotonic() < deadline:  # a heartbeat in progress may write it once more
            path.unlink(missing_ok=True)
            time.sleep(0.05)
        with pytest.raises(Interrupted, match="no heartbeat for 10 minutes"):
            run.check()


def staged(lake: Lake, run_id: str) -> str:
    uri = lake.staged("ingest", run_id, "flows/part-0")
    write_json(uri, run_id)
    return uri


def test_a_job_that_starts_removes_what_ended_runs_staged_and_nothing_of_an_active_one(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    with Lease(lake.root, "active"):
        heartbeat(tmp_path, "ended", age_s=700.0)
        of_active, of_ended = staged(lake, "active"), staged(lake, "ended")
        lake.recover("ingest")
        assert exists(of_active)
        assert not exists(of_ended)
        lake.commit("ingest", "active", ["flows"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flows"]


def journal(lake: Lake, run_id: str) -> str:
    """Leave a run with an incomplete commit."""
    staged(lake, run_id)
    uri = lake.uri(f".commit-{run_id}.json")
    write_json(uri, {"job": "ingest", "run_id": run_id, "tables": ["flows"]})
    return uri


@pytest.mark.parametrize("act", [lambda lake: lake.recover("score"), lambda lake: lake.commit("score", "other", [])])
def test_a_job_waits_for_the_commit_of_an_active_run(tmp_path: Path, act) -> None:
    lake = Lake(str(tmp_path))
    with Lease(lake.root, "active"):
        path = journal(lake, "active")
        waiting = threading.Thread(target=act, args=(lake,))
        waiting.start()
        time.sleep(0.5)
        assert waiting.is_alive()
        assert exists(path)
        assert not exists(lake.uri("flows"))
        lake._finish(path)
        waiting.join(10)
        assert not waiting.is_alive()
    assert exists(lake.uri("flows"))


def test_a_commit_that_takes_too_long_is_named(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path), patience_s=0.3)
    with Lease(lake.root, "active"):
        path = journal(lake, "active")
        with pytest.raises(Interrupted, match="active is committing its tables"):
            lake.recover("score")
        assert exists(path)


def test_jobs_that_start_at_once_finish_the_commit_of_an_ended_run_once_and_lose_nothing(tmp_path: Path) -> None:
    for attempt in range(30):
        lake = Lake(str(tmp_path / str(attempt)))
        if attempt % 2:
            staged(lake, "old")
            lake.commit("ingest", "old", ["flows"])
        journal(lake, "ended")
        together = threading.Barrier(4)
        errors: list[BaseException] = []

        def start(lake: Lake = lake, together: threading.Barrier = together, errors: list = errors) -> None:
            together.wait()
            try:
                Lake(lake.root).recover("score")
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=start) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert [path.read_text() for path in (tmp_path / str(attempt)).rglob("part-0")] == ['"ended"\n']
        assert [path.name for path in (tmp_path / str(attempt)).iterdir()] == ["flows"]


def test_folders_are_made_while_jobs_that_end_remove_the_empty_ones_above(tmp_path: Path) -> None:
    ended = threading.Event()

    def remove() -> None:
        while not ended.is_set():
            for name in ("staging/job/run", "staging/job", "staging"):
                remove_if_empty(f"{tmp_path}/{name}")

    removing = threading.Thread(target=remove)
    removing.start()
    try:
        for _ in range(2_000):
            make_folder(pafs.LocalFileSystem(), f"{tmp_path}/staging/job/run")
    finally:
        ended.set()
        removing.join()


def commit_often(root: str, number: int) -> None:
    lake, table = Lake(root), f"table{number}"
    for turn in range(60):
        job, run_id = f"job{number % 2}", f"run{number}-{turn}"
        lake.recover(job)
        with Lease(lake.root, run_id) as run:
            write_json(lake.staged(job, run_id, f"{table}/part-0"), run_id)
            run.check()
            lake.commit(job, run_id, [table])
        assert Path(f"{root}/{table}/part-0").read_text() == f'"{run_id}"\n'


def test_jobs_that_start_and_end_beside_each_other_commit_every_time(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.starmap(commit_often, [(str(tmp_path), number) for number in range(4)])
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"table{number}" for number in range(4)]
