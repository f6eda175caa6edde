"""All four jobs on workers where nothing of this project is installed: Python comes with the job, by --archives."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

import environment_archive
from tests.cluster.harness import ROOT, TRAINING, Cluster, Night, end, family, finished, prepare, start
from tests.cluster.tables import assert_same_rows, curve

ARCHIVE = ROOT / "dist" / "ids_env.tar.gz"
"""Made once, as its parts seldom change."""


def sent(archive: Path) -> tuple[str, ...]:
    """Options of spark-submit for a driver with the installation of this machine."""
    python = ("spark.pyspark.python=./env/bin/python", "spark.pyspark.driver.python=python")
    return "--archives", f"{archive}#env", *(part for setting in python for part in ("--conf", setting))


ONE = ("--total-executor-cores", "1")
# Each application sends 541 MB to its executors, so the jobs share one.
EVERY_JOB = """
import sys

import prepare, score, train
from ids_spark.runtime import job

sys.exit(job.sequence(prepare.RUNS | {"train": train.run, "score": score.run}, ""))
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster whose workers have the system's programs alone, and a HOME with packages of the user that fail."""
    environment_archive.make(ARCHIVE)
    # With Java's optimising compiler it is encrypted two to three times as fast.
    optimised = {f"spark.{role}.extraJavaOptions": "-XX:+UseSerialGC" for role in ("driver", "executor")}
    started = Cluster(tmp_path_factory.mktemp("bare"), bare=True, more=optimised)
    broken = started.folder / "home/.local/lib/python3.11/site-packages/numpy"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise RuntimeError('a package of the user')\n")
    try:
        started.start()
        yield started
    finally:
        started.stop()


@dataclass(frozen=True)
class Sent:
    """What the jobs left.

    Attributes:
        folder: Of `prepare`, with the lake.
        programs: Executable file of every process of the workers, with its command line.
        files: What their Python processes had mapped.
    """

    folder: Path
    programs: set[tuple[str, str]]
    files: set[str]


def mapped(process: psutil.Process) -> set[str]:
    """Return the files that a process has mapped; psutil reads the size of each as well, for ten times the CPU time."""
    lines = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
    return {line.split(maxsplit=5)[5] for line in lines if "/" in line}


@pytest.fixture(scope="module")
def jobs(bare: Cluster, night: Night, tmp_path_factory: pytest.TempPathFactory) -> Sent:
    """Ingest, features, train with a rank on each worker, and score, with the settings of `night`."""
    folder = prepare(tmp_path_factory.mktemp("sent"))
    (folder / "jobs/every_job.py").write_text(EVERY_JOB)
    running = start(bare, folder, "every_job", *TRAINING, f"ingest.source={night.source}", options=sent(ARCHIVE))
    programs: set[tuple[str, str]] = set()
    files: set[str] = set()
    try:
        while running.poll() is None:
            for worker in [process for name, process in bare.processes.items() if name.startswith("worker")]:
                for member in family(worker):
                    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, OSError):
                        programs.add((member.exe(), " ".join(member.cmdline())))
                        if "python" in member.exe():
                            files.update(mapped(member))
            time.sleep(0.2)
        code, output = finished(running)
        assert code == 0, output
    finally:
        end(running)
    return Sent(folder, programs, files)


def test_every_job_gives_the_rows_and_the_training_of_installed_workers(jobs: Sent, night: Night) -> None:
    here, there = jobs.folder / "lake", night.folder / "lake"
    audit = pd.read_parquet(here / "audit").set_index("job")
    assert set(audit.index) == {"ingest", "features", "train", "score"}
    assert (audit["status"] == "done").all()
    tables = [f"flows/split={split}" for split in ("train", "test")]
    tables += [f"features/paper/split={split}" for split in ("train", "validation", "test")]
    assert_same_rows(here, there, *tables)
    # Equal seed and ranks give equal steps: the only difference is the order in which threads add numbers.
    np.testing.assert_allclose(curve(jobs.folder), curve(night.folder), rtol=1e-4)


def test_tasks_and_ranks_ran_in_the_archive_alone(bare: Cluster, jobs: Sent) -> None:
    ranks = {exe for exe, line in jobs.programs if "gloo_exec_fn" in line and "python" in exe}
    tasks = {exe for exe, line in jobs.programs if "pyspark.daemon" in line}
    for found in (ranks, tasks):
        assert {Path(exe).parts[-4:] for exe in found} == {(str(n), "env", "bin", "python3.11") for n in (0, 1)}
        assert all(exe.startswith(str(bare.folder)) for exe in found)
    ours = (f"{sys.prefix}/", f"{sys.base_prefix}/", f"{Path(sys.prefix).resolve()}/", f"{ROOT}/")
    assert any("libtensorflow_cc" in path for path in jobs.files)
    assert [path for path in jobs.files if path.startswith(ours)] == []


def of_script(folder: Path, script: str) -> Path:
    """An archive whose Python is a script."""
    (folder / "env/bin").mkdir(parents=True)
    (folder / "env/packages/pyarrow-15.0.0.dist-info").mkdir(parents=True)
    program = folder / "env/bin/python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    archive = folder / "archive.tar.gz"
    subprocess.run(["tar", "-czf", str(archive), "-C", str(folder / "env"), "."], check=True)
    return archive


def test_workers_without_this_python_are_refused_before_a_job_reads_anything(
    bare: Cluster, source: Path, tmp_path: Path
) -> None:
    folder = prepare(tmp_path / "work")
    own = (
        f'PYTHONNOUSERSITE=1 PYTHONPATH="$PYTHONPATH:$PWD/env/packages" exec {environment_archive._interpreter()} "$@"'
    )
    other = of_script(tmp_path / "other", own)
    newer = of_script(tmp_path / "newer", "echo \"libc.so.6: version 'GLIBC_2.99' not found\" >&2; exit 1")
    absent = ("--conf", "spark.pyspark.python=/absent/python", "--conf", "spark.pyspark.driver.python=python")
    for options, message in (
        (absent, "an executor cannot start /absent/python"),
        (sent(other)[2:], "no archive is unpacked there as 'env'"),
        (sent(other), "pyarrow: found 15.0.0, the driver has 14.0.2"),
        (sent(newer), "ended at its start: libc.so.6: version 'GLIBC_2.99' not found"),
        (sent(tmp_path / "none.tar.gz"), "none.tar.gz, an archive for executors, does not exist"),
    ):
        code, output = finished(start(bare, folder, "ingest", f"ingest.source={source}", options=(*options, *ONE)))
        assert code == 2, output
        assert message in output
        assert "dist/ids_env.tar.gz" in output or "make package" in output
        assert "Traceback" not in output
    assert not (folder / "lake" / "flows").exists()
