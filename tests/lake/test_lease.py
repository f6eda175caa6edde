"""Runs at work on one lake are known to each other, and no job takes from a living one."""

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
from ids_spark.lake import lease
from ids_spark.lake.filesystem import exists, make_folder, remove_if_empty, write_json
from ids_spark.lake.lease import Lease, active_runs, expire
from ids_spark.lake.store import Lake


def sign(root: Path, run_id: str, age_s: float = 0.0, **facts: object) -> Path:
    """Leave the sign of life of a run, as a process of another machine would."""
    path = root / f".running-{run_id}.json"
    path.write_text(json.dumps({"machine": "another", "pid": 1, "started": 0.0} | facts))
    os.utime(path, times=(time.time() - age_s,) * 2)
    return path


def test_a_run_lives_from_its_first_sign_to_its_end_and_leaves_nothing(tmp_path: Path) -> None:
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


def test_a_process_of_this_machine_is_asked_itself(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    facts = {"machine": lease._machine(), "pid": process.pid, "started": lease._started(psutil.Process(process.pid))}
    sign(tmp_path, "silent", age_s=86_400.0, **facts)
    sign(tmp_path, "its-pid-belongs-to-another-now", **(facts | {"started": -60.0}))
    assert active_runs(str(tmp_path)) == {"silent"}
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and not buried: nobody asked for its exit code
    assert active_runs(str(tmp_path)) == frozenset(), "a zombie is dead"
    process.communicate()
    assert active_runs(str(tmp_path)) == frozenset()


def test_a_clock_that_is_set_kills_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Lease(str(tmp_path), "run1"):
        boot = _pslinux.boot_time()
        monkeypatch.setattr(_pslinux, "boot_time", lambda: boot + 3_600.0)  # as after a step of the clock
        assert active_runs(str(tmp_path)) == {"run1"}


@pytest.mark.parametrize(("age_s", "lives"), [(0.0, True), (500.0, True), (700.0, False)])
def test_a_run_of_another_machine_is_dead_after_ten_minutes_of_silence(
    tmp_path: Path, age_s: float, lives: bool
) -> None:
    path = sign(tmp_path, "far", age_s)
    assert ("far" in active_runs(str(tmp_path))) == lives
    expire(str(tmp_path))
    assert path.exists() == lives


def test_a_sign_is_renewed_but_not_once_another_job_removed_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_BEAT_S", 0.01)
    path = tmp_path / ".running-run1.json"
    with Lease(str(tmp_path), "run1") as run:
        os.utime(path, times=(0.0, 0.0))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime < 1.0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > time.time() - 60
        while run._beats.is_alive() and time.monotonic() < deadline:  # a beat that had begun may put it back once
            path.unlink(missing_ok=True)
            time.sleep(0.05)
        with pytest.raises(Interrupted, match="gave no sign of life for 10 minutes"):
            run.check()


def staged(lake: Lake, run_id: str) -> str:
    uri = lake.staged("ingest", run_id, "flows/part-0")
    write_json(uri, run_id)
    return uri


def test_a_job_that_starts_clears_what_dead_runs_staged_and_nothing_of_a_living_one(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    with Lease(lake.root, "alive"):
        sign(tmp_path, "dead", age_s=700.0)
        of_living, of_dead = staged(lake, "alive"), staged(lake, "dead")
        lake.recover("ingest")
        assert exists(of_living)
        assert not exists(of_dead)
        lake.commit("ingest", "alive", ["flows"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flows"]


def journal(lake: Lake, run_id: str) -> str:
    """Leave a run in the middle of its commit."""
    staged(lake, run_id)
    uri = lake.uri(f".commit-{run_id}.json")
    write_json(uri, {"job": "ingest", "run_id": run_id, "tables": ["flows"]})
    return uri


@pytest.mark.parametrize("act", [lambda lake: lake.recover("score"), lambda lake: lake.commit("score", "other", [])])
def test_the_commit_of_a_living_run_is_waited_for(tmp_path: Path, act) -> None:
    lake = Lake(str(tmp_path))
    with Lease(lake.root, "alive"):
        path = journal(lake, "alive")
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


def test_a_commit_that_takes_too_long_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ids_spark.lake.store._PATIENCE_S", 0.3)
    lake = Lake(str(tmp_path))
    with Lease(lake.root, "alive"):
        path = journal(lake, "alive")
        with pytest.raises(Interrupted, match="alive has been committing its tables"):
            lake.recover("score")
        assert exists(path)


def test_jobs_that_start_at_once_finish_a_dead_commit_once_and_lose_nothing(tmp_path: Path) -> None:
    for attempt in range(30):
        lake = Lake(str(tmp_path / str(attempt)))
        if attempt % 2:
            staged(lake, "old")
            lake.commit("ingest", "old", ["flows"])
        journal(lake, "dead")
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
        assert [path.read_text() for path in (tmp_path / str(attempt)).rglob("part-0")] == ['"dead"\n']
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
