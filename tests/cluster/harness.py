"""A Spark standalone cluster on loopback, in processes without this checkout on their Python path."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyspark

from ids_spark.base import packaging
from tests.support.flows import PLAIN

ROOT = Path(__file__).resolve().parents[2]
_SPARK = Path(pyspark.__file__).parent
# Processes that live for seconds start faster without Java's optimising compiler.
_QUICK = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
_JAVA = ("SPARK_DAEMON_JAVA_OPTS", "SPARK_LAUNCHER_OPTS")
_SMALL = {
    "spark.driver.extraJavaOptions": _QUICK,
    "spark.executor.extraJavaOptions": _QUICK,
    "spark.driver.memory": "1g",
    "spark.executor.memory": "1g",
    "spark.executor.cores": "1",
    "spark.cores.max": "2",
    "spark.ui.showConsoleProgress": "false",
}

TRAINING = (
    "ingest.rows_per_file=4000",
    "train.models=[dnn]",
    "train.classes=[6]",
    "train.batch_size=256",
    "train.epochs=2",
    "features.files=4",
)
"""Settings of every job; many small files, so that a fault occurs while an executor is between two of them."""


@dataclass(frozen=True)
class Night:
    """A lake that the four jobs wrote.

    Attributes:
        folder: Where they were submitted; holds the lake.
        source: Absolute path of the synthetic source.
        output: Output of each job.
    """

    folder: Path
    source: Path
    output: dict[str, str]


def free_port() -> int:
    """Return the number of an unused port, below those that Linux gives to other processes meanwhile (32768 and up)."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", 20_000 + secrets.randbelow(12_000)))
            return int(probe.getsockname()[1])


def waited(
    condition: Callable[[], object], seconds: float, what: str, process: subprocess.Popen[str] | None = None
) -> None:
    """Wait until the condition holds; fail after `seconds`, or if `process` ends before."""
    deadline = time.monotonic() + seconds
    while not condition():
        if process is not None and process.poll() is not None:
            raise AssertionError(f"the job ended before: {what}\n{process.communicate()[0]}")
        assert time.monotonic() < deadline, f"waited {seconds} s for: {what}"
        time.sleep(0.01)


@dataclass
class Cluster:
    """A master and two workers of one core each.

    Attributes:
        folder: Holds settings, work folders and logs.
        secret: Of `spark.authenticate`; None for a cluster without authentication.
        more: Further Spark properties of every process.
        shuffle: Folder for shuffle files; default: below `folder`.
        bare: Master and workers have Spark and the system's programs alone: no Python of ours, another HOME.
    """

    folder: Path
    secret: str | None = field(default_factory=lambda: secrets.token_hex(32))
    more: dict[str, str] = field(default_factory=dict)
    shuffle: Path | None = None
    bare: bool = False
    processes: dict[str, psutil.Popen] = field(default_factory=dict)
    port: int = 0
    page: int = 0

    @property
    def url(self) -> str:
        """URL of the master."""
        return f"spark://127.0.0.1:{self.port}"

    @property
    def settings(self) -> Path:
        """Folder for SPARK_CONF_DIR."""
        return self.folder / "settings"

    @property
    def local_dirs(self) -> Path:
        """Folder for shuffle files and temporary files."""
        return self.shuffle or self.folder / "shuffle"

    @property
    def environment(self) -> dict[str, str]:
        """Environment of jobs, and of the cluster unless it is bare; no variable contains the path of the checkout."""
        kept = {name: os.environ[name] for name in ("PATH", "JAVA_HOME", "LANG") if name in os.environ}
        python = {name: str(Path(os.environ["PYSPARK_PYTHON"])) for name in ("PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON")}
        local = {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_LOCAL_DIRS": str(self.local_dirs)}
        java = dict.fromkeys(_JAVA, _QUICK)
        return (
            kept
            | python
            | local
            | java
            | {"HOME": str(self.folder), "SPARK_CONF_DIR": str(self.settings), "TF_CPP_MIN_LOG_LEVEL": "2"}
        )

    @property
    def bare_environment(self) -> dict[str, str]:
        """Environment of a bare cluster's processes."""
        spark = self.folder / "spark"
        if not spark.exists():
            spark.symlink_to(_SPARK)
        ours = {"PATH": "/usr/bin:/bin", "HOME": str(self.folder / "home"), "SPARK_HOME": str(spark)}
        kept = ("JAVA_HOME", "LANG", "SPARK_LOCAL_IP", "SPARK_LOCAL_DIRS", "SPARK_CONF_DIR", *_JAVA)
        return {name: value for name, value in self.environment.items() if name in kept} | ours

    def start(self) -> None:
        """Start master and workers and wait until both have registered."""
        self.start_settings()
        self.port, self.page = free_port(), free_port()
        self._spawn(
            "master", "master.Master", "--host", "127.0.0.1", "--port", str(self.port), "--webui-port", str(self.page)
        )
        waited(lambda: self._state() is not None, 60, "the master's page")
        for name in ("worker-1", "worker-2"):
            self.start_worker(name)
        waited(lambda: self.workers_alive() == 2, 60, "two workers")

    def start_settings(self) -> None:
        """Write a copy of `conf/cluster` with the secret, readable by its owner only, as documented for users.

        Without a secret, a copy of its `spark-defaults.conf` alone, which has no authentication.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.settings.mkdir(mode=0o700)
        told = _SMALL | self.more
        if self.secret:
            for file in (ROOT / "conf/cluster").iterdir():
                shutil.copyfile(file, self.settings / file.name)
                (self.settings / file.name).chmod(0o600)
            told |= {"spark.authenticate.secret": self.secret}
        else:
            shutil.copyfile(ROOT / "conf/cluster/spark-defaults.conf", self.settings / "spark-defaults.conf")
        with (self.settings / "spark-defaults.conf").open("a") as file:
            if self.secret:
                file.write((ROOT / "conf/cluster/security.conf").read_text())
            file.writelines(f"{key} {value}\n" for key, value in told.items())

    def start_worker(self, name: str) -> None:
        """Start one worker of one core with its own work folder."""
        self._spawn(
            name, "worker.Worker", "--host", "127.0.0.1", "--port", str(free_port()), "--webui-port", str(free_port()),
            "--cores", "1", "--memory", "1500m", "--work-dir", str(self.folder / name), self.url,
        )  # fmt: skip

    def _spawn(self, name: str, role: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("a") as log:
            environment = self.bare_environment if self.bare else self.environment
            self.processes[name] = psutil.Popen(
                [
                    environment.get("SPARK_HOME", str(_SPARK)) + "/bin/spark-class",
                    f"org.apache.spark.deploy.{role}",
                    *arguments,
                ],
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _state(self) -> dict[str, Any] | None:
        with (
            contextlib.suppress(OSError, ValueError),
            urllib.request.urlopen(f"http://127.0.0.1:{self.page}/json/", timeout=5) as page,
        ):
            return dict(json.load(page))
        return None

    def workers_alive(self) -> int:
        """Return how many workers the master reports as alive."""
        return int((self._state() or {}).get("aliveworkers", 0))

    def applications(self) -> set[str]:
        """Return the names of all applications that the master accepted."""
        state = self._state() or {}
        return {app["name"] for kind in ("activeapps", "completedapps") for app in state.get(kind, ())}

    def executors(self) -> list[psutil.Process]:
        """Return the executor processes, by pid."""
        found = []
        for name, process in self.processes.items():
            for child in family(process)[:-1] if name.startswith("worker") else ():
                with contextlib.suppress(psutil.NoSuchProcess):  # ended meanwhile, or a zombie
                    if any("CoarseGrainedExecutorBackend" in word for word in child.cmdline()):
                        found.append(child)
        return sorted(found, key=lambda process: process.pid)

    def stop(self) -> None:
        """End the processes that this class started, with all their children."""
        for process in self.processes.values():
            end(process)
        self.processes.clear()

    def logs(self) -> str:
        """Return the logs of master, workers and executors."""
        files = [*self.folder.glob("*.log"), *self.folder.glob("worker-*/app-*/*/std*")]
        return "\n".join(file.read_text(errors="replace") for file in files)


def family(process: psutil.Process) -> list[psutil.Process]:
    """Return all descendants of a process, and last the process itself."""
    try:
        return [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return [process]


def end(process: psutil.Process) -> None:
    """Kill a process that a test started, with all its descendants."""
    members = family(process)
    for member in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.send_signal(signal.SIGKILL)
    psutil.wait_procs(members, timeout=10)


def prepare(folder: Path) -> Path:
    """Copy the packaged project and the jobs into a folder, as a user submits them; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(ROOT / "jobs", folder / "jobs", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "ids_spark.zip").write_bytes(packaging.archive())
    return folder


def start(
    cluster: Cluster,
    folder: Path,
    job: str,
    *settings: str,
    options: Sequence[str] = (),
    master: str = "",
    more: dict[str, str] | None = None,
    arguments: Sequence[str] = (),
) -> psutil.Popen:
    """Start one job's documented line in `folder`; its lake is `folder`/lake.

    Args:
        cluster: Its settings are those of the job.
        folder: Of `prepare`.
        job: Name of the job.
        settings: Settings of the job.
        options: Options of spark-submit.
        master: Another master than the cluster's.
        more: Further environment variables.
        arguments: Further arguments, after the settings.
    """
    opened = () if cluster.secret else ("open_cluster=true",)
    chosen = [part for setting in ("lake=lake", PLAIN, *opened, *settings) for part in ("--set", setting)]
    return psutil.Popen(
        [
            "spark-submit",
            "--master",
            master or cluster.url,
            *options,
            "--py-files",
            "ids_spark.zip",
            f"jobs/{job}.py",
            *chosen,
            *arguments,
        ],
        cwd=folder,
        env=cluster.environment | (more or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finished(process: psutil.Popen, seconds: float = 180) -> tuple[int, str]:
    """Wait for a job; returns exit code and output."""
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        end(process)
        raise
    return process.returncode, output


def submit(
    cluster: Cluster, folder: Path, job: str, *settings: str, options: Sequence[str] = (), master: str = ""
) -> str:
    """Run one job, which must succeed; returns its output."""
    code, output = finished(start(cluster, folder, job, *settings, options=options, master=master))
    assert code == 0, output
    return output


@contextlib.contextmanager
def stopped(process: psutil.Process) -> Iterator[None]:
    """Suspend a process (SIGSTOP) for the time of the block."""
    process.suspend()
    try:
        yield
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()
