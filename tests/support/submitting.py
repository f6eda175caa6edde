"""Jobs as a user runs them: spark-submit, in a separate folder, without the checkout on the Python path."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ids_spark.base import packaging
from tests.support.flows import PLAIN, ROOT


def prepare(folder: Path) -> Path:
    """Put the packaged project into a folder; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ids_spark.zip").write_bytes(packaging.archive())
    return folder


def start(
    folder: Path, job: str, *settings: str, master: str = "local[2]", conf: Sequence[str] = ()
) -> "subprocess.Popen[str]":
    """Start one job's documented line in `folder`, in a separate process group; its lake is `folder`/lake."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYSPARK_PYTHON")}
    options = [part for setting in ("lake=lake", PLAIN, *settings) for part in ("--set", setting)]
    spark = ["--master", master, *(part for each in conf for part in ("--conf", each)), "--py-files", "ids_spark.zip"]
    return subprocess.Popen(
        ["spark-submit", *spark, str(ROOT / "jobs" / f"{job}.py"), *options],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def submit(
    folder: Path, job: str, *settings: str, master: str = "local[2]", conf: Sequence[str] = ()
) -> tuple[int, str]:
    """Run one job to its end; returns exit code and output."""
    process = start(folder, job, *settings, master=master, conf=conf)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def staged(pattern: str) -> Callable[[Path], bool]:
    """Return whether a lake holds staged files of such a name."""
    return lambda lake: any(lake.glob(f".staging/*/*/{pattern}"))


def committing(lake: Path) -> bool:
    """Return whether a commit has begun and not ended."""
    return any(lake.glob(".commit-*"))


def wait_for(moment: Callable[[Path], bool], process: "subprocess.Popen[str]", lake: Path) -> bool:
    """Wait until a job reaches a moment; False if it ended before, or did not reach it within two minutes."""
    deadline = time.monotonic() + 120
    while not moment(lake):
        if process.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.0005)
    return True


def kill(process: "subprocess.Popen[str]") -> str:
    """Kill a job and all its processes (SIGKILL), unless it has ended; returns its output."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.communicate()[0]
