"""Secrets and settings of the entrypoint of the image; a cluster that it starts."""

import os
import signal
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.container import Container
from tests.support.flows import ROOT

SECRET = "synthetic0secret0of0the0tests0000000"


@pytest.mark.parametrize("role", ["master", "worker", "spark-submit"])
def test_a_cluster_without_a_secret_is_refused(tmp_path: Path, role: str):
    code, text = Container(tmp_path, "spark://master:7077").run(role, "--version")
    assert code == 2
    assert "secrets/spark_auth found; the cluster authenticates with the secret in that file" in text


@pytest.mark.parametrize(
    ("value", "mode", "message"),
    [
        (SECRET, 0o444, "has mode 444, so every user can read it; expected 400 or 440: chmod o= FILE"),
        ("short", 0o400, "is not one line of at least 32 letters and digits"),
        (f"{SECRET}\nspark.authenticate=false", 0o400, "is not one line of at least 32 letters and digits"),
    ],
)
def test_a_secret_that_protects_nothing_is_refused_and_not_shown(tmp_path: Path, value: str, mode: int, message: str):
    container = Container(tmp_path, "spark://master:7077")
    container.secret("spark_auth", value, mode)
    code, text = container.run("master")
    assert code == 2
    assert message in text
    assert value not in text


def test_a_cluster_authenticates_and_encrypts_whatever_the_settings_it_starts_from(tmp_path: Path):
    container = Container(tmp_path, "spark://master:7077")
    container.secret("spark_auth", SECRET + "\n")
    container.secret("pseudonym_key", "synthetic", 0o440)
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "spark-defaults.conf").write_text("spark.authenticate false\nspark.executor.memory 3g")
    container.environment["SPARK_CONF_DIR"] = str(tmp_path / "open")
    settings = container.settings()
    assert settings["spark.authenticate"] == "true"
    assert settings["spark.network.crypto.enabled"] == settings["spark.io.encryption.enabled"] == "true"
    assert settings["spark.authenticate.secret"] == SECRET
    assert settings["spark.executor.memory"] == "3g"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in container.private.rglob("*")}
    assert modes == {"conf": 0o700, "spark_auth": 0o400, "pseudonym_key": 0o400, "spark-defaults.conf": 0o600}


def test_on_kubernetes_the_settings_name_the_secrets_file_and_not_its_content(tmp_path: Path):
    container = Container(tmp_path, "k8s://https://kubernetes.default.svc")
    container.secret("spark_auth", SECRET, 0o440)
    settings = container.settings()
    assert settings["spark.authenticate.secret.file"] == str(container.private / "spark_auth")
    assert SECRET not in str(settings)


def test_local_mode_needs_no_secret_and_keeps_the_settings(tmp_path: Path):
    container = Container(tmp_path)
    code, text = container.run("bash", "-c", 'echo "$SPARK_CONF_DIR"')
    assert (code, text.strip()) == (0, str(ROOT / "conf" / "spark"))


JOB = """
from pyspark.sql import SparkSession
spark = SparkSession.builder.appName("synthetic").getOrCreate()
print("sum", spark.sparkContext.range(0, 1000, 1, 4).sum())
"""


def wait_for(port: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"nothing listens on port {port}")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Container]:
    """A master and a worker, started by the entrypoint; yields the container of a job."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        port, page = one.getsockname()[1], other.getsockname()[1]
    nodes = {role: Container(tmp_path / role, f"spark://127.0.0.1:{port}") for role in ("master", "worker", "job")}
    for node in nodes.values():
        node.secret("spark_auth", SECRET)
    running = []
    try:
        ports = {"SPARK_MASTER_HOST": "127.0.0.1", "SPARK_MASTER_PORT": str(port), "SPARK_MASTER_WEBUI_PORT": str(page)}
        running.append(nodes["master"].start("master", **ports))
        wait_for(port)  # a worker that starts too early tries again ten seconds later
        sizes = {"SPARK_WORKER_CORES": "1", "SPARK_WORKER_MEMORY": "1g", "SPARK_WORKER_WEBUI_PORT": "0"}
        running.append(nodes["worker"].start("worker", **sizes))
        yield nodes["job"]
    finally:
        for process in running:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


@pytest.mark.slow
def test_master_worker_and_job_find_each_other_and_the_secret_stays_off_command_lines(
    cluster: Container, tmp_path: Path
):
    (tmp_path / "job.py").write_text(JOB)
    code, text = cluster.run("spark-submit", "--executor-memory", "600m", str(tmp_path / "job.py"), timeout=120)
    assert code == 0, text
    assert "sum 499500" in text
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert any(b"deploy.worker.Worker" in line for line in lines)
    assert not any(SECRET.encode() in line for line in lines)
    logs = [*tmp_path.glob("*/log"), *tmp_path.glob("worker/scratch/work/app-*/*/std*")]
    assert len(logs) == 4
    assert not any(SECRET in log.read_text() for log in logs)
