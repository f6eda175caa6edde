"""What Spark itself says of the connections of all three deployments, and which clients a cluster refuses."""

import json
import secrets
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from ids_spark.runtime import cluster_security
from tests.cluster.harness import ROOT, Cluster, finished, prepare, start
from tests.support.container import Container

# What the JVM of a driver says of its connections.
LOOK = """
import json
from pyspark import SparkContext

def of(name):
    return getattr(getattr(SparkContext._jvm, f"{name}$"), "MODULE$")

def say(conf, security, io_key, **more):
    found = {}
    for module in ("rpc", "shuffle", "files"):
        used = of("org.apache.spark.network.netty.SparkTransportConf").fromSparkConf(
            conf, module, 1, SparkContext._jvm.scala.Option.apply(None)
        )
        found[module] = {
            "encrypted": used.encryptionEnabled(), "engine": used.authEngineVersion(),
            "cipher": used.cipherTransformation(), "fallback": used.saslFallback(),
        }
    others = {name: conf.get(f"spark.{name}", "not set") for name in ("ui.enabled", "master.rest.enabled")}
    print("FOUND", json.dumps(found | others | more | {
        "authenticated": security.isAuthenticationEnabled(), "spilled": conf.get("spark.io.encryption.enabled"),
        "bits": 8 * len(io_key),
    }))
"""
# As every job does; a task shows that executors accept the connection.
SESSION = """
from ids_spark.runtime.job import session

spark = session("probe")
running = SparkContext._jvm.org.apache.spark.SparkEnv.get()
security = running.securityManager()
assert running.serializerManager().encryptionEnabled()
tasks = spark.sparkContext.parallelize(range(4), 2).sum()
say(running.conf(), security, security.getIOEncryptionKey().get(), tasks=tasks)
"""
# Without an API server there is no session of a master k8s://…; JVM, properties and secret are those of one.
KUBERNETES = """
from ids_spark.runtime import cluster_security

SparkContext._ensure_initialized()
conf = SparkContext._jvm.SparkConf()
cluster_security.require_encryption(conf, conf.get("spark.master"), open_cluster=False)
entry = of("org.apache.spark.internal.config.package").AUTH_SECRET_FILE_DRIVER()
security = SparkContext._jvm.org.apache.spark.SecurityManager(conf, SparkContext._jvm.scala.Option.apply(None), entry)
security.initializeAuth()
assert len(security.getSecretKey()) >= 32
say(conf, security, of("org.apache.spark.security.CryptoStreamUtils").createKey(conf), tasks=6)
"""
CONNECTION = {"encrypted": True, "engine": 2, "cipher": "AES/GCM/NoPadding", "fallback": False}
EXPECTED = {
    **dict.fromkeys(("rpc", "shuffle", "files"), CONNECTION),
    "authenticated": True,
    "spilled": "true",
    "bits": 256,
    "ui.enabled": "false",
    "master.rest.enabled": "false",
    "tasks": 6,
}


def found_in(output: str) -> dict[str, Any]:
    """What the probe printed."""
    lines = [line for line in output.splitlines() if line.startswith("FOUND ")]
    assert len(lines) == 1, output
    return dict(json.loads(lines[0].removeprefix("FOUND ")))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with the packaged project and the probes."""
    folder = prepare(tmp_path / "work")
    (folder / "jobs" / "probe.py").write_text(LOOK + SESSION)
    (folder / "jobs" / "kubernetes.py").write_text(LOOK + KUBERNETES)
    return folder


def container(folder: Path, master: str, secret: str) -> Container:
    """A container with one secret."""
    made = Container(folder, master)
    made.secret("spark_auth", secret)
    return made


def submitted(run: Container, work: Path, probe: str, *options: str) -> dict[str, Any]:
    """What a probe finds that spark-submit starts in a container."""
    code, text = run.run(
        "spark-submit", *options, "--py-files", str(work / "ids_spark.zip"), str(work / f"jobs/{probe}.py"), timeout=240
    )
    assert code == 0, text
    return found_in(text)


def test_a_standalone_cluster_encrypts_as_the_settings_say(cluster: Cluster, work: Path) -> None:
    code, output = finished(start(cluster, work, "probe"))
    assert code == 0, output
    assert found_in(output) == EXPECTED


def test_a_job_in_a_container_encrypts_alike_and_works_on_the_same_cluster(
    cluster: Cluster, work: Path, tmp_path: Path
) -> None:
    job = container(tmp_path / "container", cluster.url, str(cluster.secret))
    sizes = ("--executor-memory", "1g", "--total-executor-cores", "1")
    assert submitted(job, work, "probe", *sizes) == EXPECTED


def test_a_driver_on_kubernetes_encrypts_alike(work: Path, tmp_path: Path) -> None:
    """The JVM that spark-submit starts in the driver's pod, up to its first request to the API server."""
    mounted = tmp_path / "spark"
    shutil.copytree(ROOT / "conf/spark", mounted)
    manifests = yaml.safe_load_all((ROOT / "conf/kubernetes/settings.yaml").read_text())
    [data] = [one["data"] for one in manifests if one["kind"] == "ConfigMap"]
    (mounted / "spark-defaults.conf").write_text(data["spark-defaults.conf"])
    pod = container(tmp_path / "pod", "k8s://https://kubernetes.default.svc", secrets.token_hex(32))
    pod.environment["SPARK_CONF_DIR"] = str(mounted)
    assert submitted(pod, work, "kubernetes") == EXPECTED


# Connects to the master as executors and drivers do, with each of some settings.
CLIENTS = """
import json, sys
from py4j.protocol import Py4JJavaError
from pyspark import SparkContext

host, port = sys.argv[-2:]
SparkContext._ensure_initialized()
jvm = SparkContext._jvm
for number, told in enumerate(json.loads(CLIENTS)):
    conf = jvm.org.apache.spark.SparkConf(False)
    for name, value in told.items():
        conf.set(name, value)
    entry = getattr(getattr(jvm, "org.apache.spark.internal.config.package$"), "MODULE$").AUTH_SECRET_FILE()
    security = jvm.org.apache.spark.SecurityManager(conf, jvm.scala.Option.apply(None), entry)
    client = jvm.org.apache.spark.rpc.RpcEnv.create("client", "127.0.0.1", 0, conf, security, True)
    try:
        address = jvm.org.apache.spark.rpc.RpcAddress(host, int(port))
        print("ANSWER", number, client.setupEndpointRef(address, "Master").name())
    except Py4JJavaError as error:
        print("ANSWER", number, "refused", str(error.java_exception).splitlines()[0])
    client.shutdown()
"""


def test_clients_with_weaker_settings_are_refused_by_the_master(cluster: Cluster, tmp_path: Path) -> None:
    quick = dict.fromkeys(("spark.rpc.lookupTimeout", "spark.rpc.askTimeout", "spark.network.auth.rpcTimeout"), "20s")
    same = cluster_security.REQUIRED | quick | {"spark.authenticate.secret": str(cluster.secret)}
    clients = {
        "the same settings": {},
        "SASL alone": {"spark.network.crypto.enabled": "false", "spark.network.crypto.saslFallback": "true"},
        "the first version of the handshake": {"spark.network.crypto.authEngineVersion": "1"},
        "the cipher that does not detect changes": {"spark.network.crypto.cipher": "AES/CTR/NoPadding"},
        "no authentication": {"spark.authenticate": "false", "spark.network.crypto.enabled": "false"},
        "another secret": {"spark.authenticate.secret": secrets.token_hex(32)},
    }
    work = prepare(tmp_path)
    told = json.dumps([same | client for client in clients.values()])
    (work / "jobs" / "clients.py").write_text(f"CLIENTS = {told!r}\n{CLIENTS}")
    command = start(cluster, work, "clients", master="local[1]", arguments=("127.0.0.1", str(cluster.port)))
    code, output = finished(command)
    assert code == 0, output
    answers = [line.split(maxsplit=3)[2] for line in output.splitlines() if line.startswith("ANSWER ")]
    assert dict(zip(clients, answers, strict=True)) == {
        name: "Master" if name == "the same settings" else "refused" for name in clients
    }, output


def test_a_job_refuses_a_cluster_that_its_command_line_weakens(cluster: Cluster, work: Path) -> None:
    (work / "jobs" / "spark.py").write_text(
        "import sys\n"
        "from ids_spark.base.report import Report\n"
        "from ids_spark.runtime import job\n"
        "def run(context):\n"
        "    context.spark\n"
        "    return Report()\n"
        "sys.exit(job.main(run, 'Starts Spark.'))\n"
    )
    weaker = ("spark.network.crypto.saslFallback=true", "spark.network.crypto.cipher=AES/CTR/NoPadding")
    options = [part for setting in weaker for part in ("--conf", setting)]
    code, output = finished(start(cluster, work, "spark", options=options), 120)
    assert code == 2, output
    assert "spark.network.crypto.saslFallback is true, expected false" in output
    assert "spark.network.crypto.cipher is AES/CTR/NoPadding, expected AES/GCM/NoPadding" in output
    assert "open_cluster=true" in output
