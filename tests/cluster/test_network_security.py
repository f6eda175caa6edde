"""A cluster with authentication: no port answers without the secret, and no log or page shows a secret.

On a cluster without authentication the same probes find open ports, which shows that they can find one.
"""

import contextlib
import pickle
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from horovod.runner.common.util.network import BasicService

from ids_spark.train import horovod_security
from tests.cluster import ports
from tests.cluster.harness import (
    TRAINING,
    Cluster,
    Night,
    end,
    family,
    finished,
    free_port,
    prepare,
    start,
    waited,
)

# Spark's file server needs no secret, but serves only the submitted file: this package, which is public.
_SUBMITTED = ["spark file: the file"]
_LONG = (*TRAINING, "train.epochs=400", "train.patience=400")
_KEY = "f0e1d2c3b4a5968778695a4b3c2d1e0ff0e1d2c3b4a5968778695a4b3c2d1e0f"


@pytest.fixture(scope="module", autouse=True)
def intruder(cluster: Cluster, night: Night, tmp_path_factory: pytest.TempPathFactory) -> Iterator[psutil.Popen]:
    """A running job with another secret; Spark retries for a minute, in which other tests run."""
    folder = tmp_path_factory.mktemp("intruder")
    other = Cluster(folder / "settings")
    other.start_settings()
    other.port = cluster.port
    work = prepare(folder / "work")
    (work / "jobs/ingest.py").rename(work / "jobs/intruder.py")
    job = start(other, work, "intruder", f"ingest.source={night.source}")
    yield job
    end(job)


@dataclass(frozen=True)
class Training:
    """What is seen of a job while two ranks train.

    Attributes:
        ports: Every listening port of cluster and job.
        answered: Answers of the ports that need no secret.
        processes: Command line and environment of every process of cluster and job.
        progressed: Whether the ranks trained on after all these requests.
    """

    ports: set[ports.Port]
    answered: dict[ports.Port, list[str]]
    processes: list[tuple[str, dict[str, str]]]
    progressed: bool


def trained(cluster: Cluster, folder: Path) -> Training:
    """Look at a job of two ranks from outside, then end it."""
    checkpoint = folder / "lake/checkpoints/dnn-6-paper.npz"
    checkpoint.unlink(missing_ok=True)
    job = start(cluster, folder, "train", *_LONG, more={"IDS_SPARK_PSEUDONYM_KEY": _KEY})
    try:
        waited(checkpoint.exists, 180, "the first epoch", job)
        found, seen = ports.listening(cluster.processes | {"job": job}), processes(cluster, job)
        answered = ports.open_ports(found)
        before = checkpoint.stat().st_mtime_ns
        waited(lambda: checkpoint.stat().st_mtime_ns > before, 30, "another epoch", job)
        return Training(found, answered, seen, progressed=True)
    finally:
        end(job)


def processes(cluster: Cluster, job: psutil.Popen) -> list[tuple[str, dict[str, str]]]:
    """Return command line and environment of every process of a cluster and a job, as /proc has them."""
    found = []
    for process in (*cluster.processes.values(), job):
        for member in family(process):
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append((" ".join(member.cmdline()), member.environ()))
    return found


@pytest.fixture(scope="module")
def training(cluster: Cluster, night: Night, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """A training with keys in the environment of the driver."""
    return trained(cluster, Path(shutil.copytree(night.folder, tmp_path_factory.mktemp("training") / "night")))


def test_no_port_answers_without_the_secret_while_ranks_train(training: Training) -> None:
    assert {port.program for port in training.ports} >= {
        *("master.Master", "worker.Worker", "CoarseGrainedExecutorBackend"),
        *("pyspark.daemon", "java driver", "python driver"),
    }
    assert {port.address for port in training.ports} == {"127.0.0.1"}
    # The web pages of master and workers need no password; a job has no page.
    pages = {port for port in training.answered if port.program in ("master.Master", "worker.Worker")}
    assert len(pages) == 3
    assert [what for port in pages for what in training.answered[port] if not what.startswith("http: ")] == []
    others = {port: what for port, what in training.answered.items() if port not in pages}
    assert [port.program for port in others] == ["java driver"]
    assert list(others.values()) == [_SUBMITTED]
    assert training.progressed


def test_executors_and_ranks_get_no_secret_that_they_do_not_need(cluster: Cluster, training: Training) -> None:
    ranks = [(line, told) for line, told in training.processes if "gloo_exec_fn" in line]
    executors = [(line, told) for line, told in training.processes if "CoarseGrainedExecutorBackend" in line]
    tasks = [(line, told) for line, told in training.processes if "pyspark.daemon" in line]
    assert len(ranks) >= 2
    assert len(executors) == 2
    assert len(tasks) >= 2
    # The JVM of an executor authenticates with the secret, which its Python processes do not need.
    assert all(str(cluster.secret) in told.values() for _, told in executors)
    for line, told in (*ranks, *tasks):
        assert str(cluster.secret) not in told.values(), line
    # The driver's keys are with the driver alone: a task that needs one receives it with its function.
    for line, told in (*ranks, *tasks, *executors):
        assert _KEY not in told.values(), line
    # Horovod's key, and the path of the rendezvous, are in the environment of ranks and on no command line.
    horovod = {
        told[name] for _, told in ranks for name in ("HOROVOD_SECRET_KEY", "IDS_SPARK_RENDEZVOUS") if name in told
    }
    assert horovod
    for secret in (str(cluster.secret), _KEY, *horovod):
        assert [line for line, _ in training.processes if secret in line] == []
    for line, _ in executors:
        assert "-Dspark.network.crypto.cipher=AES/GCM/NoPadding" in line
        assert "-Dspark.network.crypto.saslFallback=false" in line


def test_the_same_probes_find_every_spark_port_open_without_authentication(copy: Path, tmp_path: Path) -> None:
    without_secret = Cluster(tmp_path / "open", secret=None)
    try:
        without_secret.start()
        answered = trained(without_secret, copy).answered
        for program in ("master.Master", "worker.Worker", "CoarseGrainedExecutorBackend", "java driver"):
            assert any(
                w.startswith("spark rpc") for p, what in answered.items() if p.program == program for w in what
            ), program
        assert any("spark file: the file" in what for what in answered.values())
    finally:
        without_secret.stop()


class _Canary:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    ("key", "read"), [(b"another key of 32 bytes, as theirs", False), (b"the key of this service: 32 byte", True)]
)
def test_horovod_unpickles_nothing_that_another_key_signed(tmp_path: Path, key: bytes, read: bool) -> None:
    canary = tmp_path / "canary"
    service = BasicService("service", b"the key of this service: 32 byte", {"lo"})
    try:
        ports.exchange("127.0.0.1", service.get_port(), ports.signed(pickle.dumps(_Canary(canary)), key))
        assert canary.exists() == read
    finally:
        service.shutdown()


def test_ranks_exchange_addresses_on_spark_s_interface_under_a_secret_path() -> None:
    import horovod.runner.gloo_run as launcher

    before = launcher.RendezvousServer
    with horovod_security.secured("127.0.0.1") as network:
        assert network.nics == {"lo"}
        path = network.environment["IDS_SPARK_RENDEZVOUS"]
        protected, default = launcher.RendezvousServer(), before()
        port, other = protected.start(), default.start()
        protected.init([])
        default.init([])
        assert protected._httpd.server_address[0] == "127.0.0.1"
        assert ports.answers(ports.Port("test", "127.0.0.1", port, "rendezvous")) == []
        assert ports.answers(ports.Port("test", "127.0.0.1", other, "rendezvous")) != []
        url = f"http://127.0.0.1:{port}/{path}:{port}/global/key"
        urllib.request.urlopen(urllib.request.Request(url, data=b"an address", method="PUT"), timeout=5).close()
        with urllib.request.urlopen(url, timeout=5) as answer:
            assert answer.read() == b"an address"
        protected.stop()
        default.stop()
    assert launcher.RendezvousServer is before


@pytest.mark.parametrize(("host", "nic"), [("127.0.0.1", "lo"), ("localhost", "lo"), ("no-such-host.invalid", None)])
def test_the_interface_is_that_of_spark_s_address(host: str, nic: str | None) -> None:
    assert horovod_security.interface_of(host) == nic


def test_a_job_in_local_mode_listens_on_loopback_alone(cluster: Cluster, copy: Path) -> None:
    checkpoint = copy / "lake/checkpoints/dnn-6-paper.npz"
    checkpoint.unlink(missing_ok=True)
    job = start(cluster, copy, "train", *_LONG, master="local[2]")
    found: set[ports.Port] = set()

    def trained() -> bool:
        found.update(ports.listening({"job": job}))
        return checkpoint.exists()

    try:
        waited(trained, 180, "the first epoch", job)
        assert len(found) >= 6
        assert {port for port in found if port.address not in ("127.0.0.1", "::1")} == set()
    finally:
        end(job)


def test_a_client_with_another_secret_runs_nothing(cluster: Cluster, intruder: psutil.Popen) -> None:
    code, output = finished(intruder, 120)
    assert code != 0
    assert "All masters are unresponsive" in output or "Authentication" in output, output
    seen = cluster.applications()
    assert "ids_spark train" in seen
    assert "ids_spark intruder" not in seen


def test_no_secret_is_in_logs_event_log_pages_or_command_lines(
    cluster: Cluster, night: Night, copy: Path, tmp_path: Path
) -> None:
    events, page = tmp_path / "events", free_port()
    events.mkdir()
    chosen = {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": f"file:{events}",
        "spark.ui.enabled": "true",
        "spark.ui.port": page,
        "spark.executorEnv.PLAIN": "visible",
    }
    options = [part for key, value in chosen.items() for part in ("--conf", f"{key}={value}")]
    more = {"IDS_SPARK_PSEUDONYM_KEY": _KEY}
    job = start(cluster, copy, "ingest", f"ingest.source={night.source}", options=options, more=more)
    seen: dict[str, str] = {}
    lines: set[str] = set()

    def looked() -> bool:
        lines.update(line for line, _ in processes(cluster, job))
        for url in (
            f"http://127.0.0.1:{page}/environment/",
            f"http://127.0.0.1:{page}/api/v1/applications",
            f"http://127.0.0.1:{page}/executors/",
            f"http://127.0.0.1:{cluster.page}/json/",
            f"http://127.0.0.1:{cluster.page}/",
        ):
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
                seen[url] = answer.read().decode()
        return any("/environment" in url for url in seen) and len(cluster.executors()) == 2

    def ended() -> bool:
        lines.update(line for line, _ in processes(cluster, job))
        return job.poll() is not None

    waited(looked, 60, "the job's page", job)
    waited(ended, 180, "the end of the job")
    code, output = finished(job)
    assert code == 0, output
    log = "\n".join(path.read_text() for path in events.iterdir())
    assert "spark.authenticate.secret" in log
    assert "*********(redacted)" in log
    assert "visible" in log, "a variable that is not secret is shown"
    written = {"output": output, "event log": log, "cluster": cluster.logs(), **seen}
    for secret in (cluster.secret, _KEY):
        assert [where for where, text in written.items() if str(secret) in text] == []
        assert [line for line in lines if str(secret) in line] == []
    assert any("CoarseGrainedExecutorBackend" in line for line in lines)
