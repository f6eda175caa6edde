"""Checks of the image, the Compose file and the Kubernetes manifests without a container engine."""

import os
import re
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import SparkSession

from ids_spark.config.loader import load
from tests.support.container import Container
from tests.support.flows import ROOT

DOCKERFILE = ROOT / "docker" / "Dockerfile"
COMPOSE = ROOT / "docker" / "compose.yaml"
ENTRYPOINT = ROOT / "docker" / "entrypoint.sh"
MANIFESTS = sorted((ROOT / "conf" / "kubernetes").glob("*.yaml"))
LOCKS = ROOT / "conf" / "locks"
UID = 10001
SECRET = "synthetic0secret0of0the0tests0000000"


# --- the image --------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str, str]]:
    """Stage, name and arguments of every instruction; the stage of instructions before the first FROM is empty."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found, stage = [], ""
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            stage = rest.split(" AS ")[1]
        found.append((stage, name, rest))
    return found


def stages(last: str, variant: str) -> list[str]:
    """The chain of stages that a stage is built on, itself last."""
    base = {stage: rest.split(" AS ")[0] for stage, name, rest in instructions() if name == "FROM"}
    chain = [last]
    while (below := base[chain[0]].replace("${VARIANT}", variant)) in base:
        chain.insert(0, below)
    return chain


def may_enter(path: str) -> bool:
    """Whether the ignore file admits a path to the build: the last pattern for it or a folder of it decides."""
    parents = [path, *(str(parent) for parent in Path(path).parents if str(parent) != ".")]
    allowed = True
    for line in (ROOT / "docker" / "Dockerfile.dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if line and not line.startswith("#"):
            names = [part for whole in parents for part in whole.split("/")] if pattern.startswith("**/") else parents
            if any(fnmatch(name, pattern.removeprefix("**/")) for name in names):
                allowed = line.startswith("!")
    return allowed


def test_every_file_that_the_image_copies_is_in_the_repository_and_may_enter_the_build():
    sources = [
        source
        for _, name, rest in instructions()
        if name == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    ]
    assert {"docker/install.sh", "docker/entrypoint.sh", "conf/locks/", "ids_spark/", "jobs/"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert may_enter(source.rstrip("/")), source
    assert os.access(ENTRYPOINT, os.X_OK)


def test_every_file_of_the_package_and_of_the_jobs_may_enter_the_build():
    files = [path for folder in ("ids_spark", "jobs") for path in (ROOT / folder).rglob("*") if path.is_file()]
    names = [str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts]
    assert {"ids_spark/alerts/export/names.json", "ids_spark/lake/store.py"} <= set(names)
    assert [name for name in names if not may_enter(name)] == []


def test_every_module_that_the_image_runs_is_in_the_repository():
    run = re.findall(r"python -m ((?:ids_spark|supply_chain)[.\w]+)", DOCKERFILE.read_text())
    assert len(run) == 2
    for module in run:
        path = f"{module.replace('.', '/')}.py"
        assert (ROOT / path).is_file() or (ROOT / "docker" / path).is_file(), module


EXCLUDED = """.git/config .env .venv/env.sh runs/local/flows/part-0.parquet docker/spark_auth tests/conftest.py
    flows.csv ids_spark/__pycache__/job.cpython-311.pyc ids_spark/lake/__pycache__/store.cpython-311.pyc"""


@pytest.mark.parametrize("path", EXCLUDED.split())
def test_data_secrets_and_what_tools_leave_may_not_enter_the_build(path: str):
    assert not may_enter(path)


@pytest.mark.parametrize("variant", ["cpu", "gpu"])
def test_the_image_runs_as_a_fixed_user_and_has_no_compiler(variant: str):
    chain = stages("run", variant)
    mine = [(name, rest) for stage, name, rest in instructions() if stage in chain]
    installed = {word for name, rest in mine if name == "RUN" and "apt-get install" in rest for word in rest.split()}
    assert {"openjdk-17-jre-headless", "tini"} <= installed
    assert not installed & {"g++", "gcc", "make", "cmake", "binutils", "build-essential"}
    assert [rest for name, rest in mine if name == "USER"] == [f"{UID}:{UID}"]
    assert mine[-1][0] == "CMD"
    assert any(f"useradd --uid {UID} " in rest for name, rest in mine if name == "RUN")
    assert "g++" in " ".join(rest for stage, _, rest in instructions() if stage in stages("build", variant))


def test_bases_are_pinned_to_a_release_of_python_3_11_and_of_cuda_12_2():
    defaults = dict(rest.split("=", 1) for stage, name, rest in instructions() if name == "ARG" and not stage)
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", defaults["PYTHON_IMAGE"])
    assert re.fullmatch(r"nvidia/cuda:12\.2\.\d+-devel-ubuntu22\.04", defaults["CUDA_IMAGE"])
    assert defaults["VARIANT"] == "cpu"
    names = {stage for stage, _, _ in instructions()}
    outside = {rest.split(" AS ")[0] for _, name, rest in instructions() if name == "FROM"} - names
    assert outside == {"${PYTHON_IMAGE}", "${CUDA_IMAGE}", "build-${VARIANT}", "run-${VARIANT}"}


def test_no_secret_is_built_into_a_layer():
    told = [rest for _, name, rest in instructions() if name in ("ARG", "ENV", "LABEL")]
    assert not [rest for rest in told if re.search(r"secret|password|token|_key", rest, re.IGNORECASE)]


def test_the_linter_finds_nothing():
    if shutil.which("hadolint") is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run(["hadolint", str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


# --- what is installed into it ----------------------------------------------------------------------------------


def locked(name: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Version and hashes of every package of a lock."""
    found = {}
    for block in re.split(r"\n(?=\w)", (LOCKS / name).read_text()):
        package, version = re.match(r"([\w.-]+)==(\S+)", block).groups()
        found[package] = (version, frozenset(re.findall(r"sha256:[0-9a-f]{64}", block)))
    return found


def test_every_lock_that_is_installed_exists_and_has_a_hash_for_every_package():
    named = set(re.findall(r"[\w-]+\.(?:txt|in)\b", (ROOT / "docker" / "install.sh").read_text()))
    assert {"build.txt", "run.txt", "run-gpu.txt", "horovod.txt"} <= named
    for name in named:
        assert (LOCKS / name).is_file(), name
        if name.endswith(".txt") and name != "jars_removed.txt":
            assert all(hashes for _, hashes in locked(name).values()), name


def test_the_gpu_lock_is_the_cpu_lock_but_for_tensorflow_and_cuda():
    cpu, gpu = locked("run.txt"), locked("run-gpu.txt")
    assert gpu["tensorflow"][0] == cpu.pop("tensorflow-cpu")[0] == "2.15.1"
    assert {name: gpu.get(name) for name in cpu} == cpu, "run-gpu.in describes how to compile run-gpu.txt again"
    rest = set(gpu) - set(cpu) - {"tensorflow"}
    assert all(name.startswith("nvidia-") for name in rest)
    assert gpu["nvidia-cuda-runtime-cu12"][0].startswith("12.2.")
    assert gpu["nvidia-cudnn-cu12"][0].startswith("8.9.")
    # Every wheel with libraries is on the loader's path; nvcc's has only the assembler of XLA.
    told = re.search(r"for part in ([\w ]+);", DOCKERFILE.read_text())
    libraries = {name.removeprefix("nvidia-").removesuffix("-cu12").replace("-", "_") for name in rest} - {"cuda_nvcc"}
    assert told is not None
    assert set(told[1].split()) == libraries


def test_an_unknown_variant_is_refused_before_anything_is_made(tmp_path: Path):
    command = [str(ROOT / "docker" / "install.sh"), str(tmp_path / "venv"), "run"]
    done = subprocess.run(
        command, env={**os.environ, "VARIANT": "tpu"}, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert "VARIANT is 'tpu', expected cpu or gpu" in done.stderr
    assert not (tmp_path / "venv").exists()


# --- Compose ----------------------------------------------------------------------------------------------------


def services() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text())["services"]


def test_every_service_is_the_one_image_as_its_user_without_privileges():
    assert set(services()) == {"master", "worker", "job"}
    assert {service["image"] for service in services().values()} == {"ids_spark:${VARIANT:-cpu}"}
    for name, service in services().items():
        assert service["user"] == f"{UID}:{UID}", name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not {"privileged", "network_mode", "pid", "ipc", "cap_add"} & set(service), name
        build = COMPOSE.parent / service["build"]["context"]
        assert (build / service["build"]["dockerfile"]).resolve() == DOCKERFILE


def test_no_service_is_reached_from_outside_or_reaches_out():
    networks = yaml.safe_load(COMPOSE.read_text())["networks"]
    assert networks == {"cluster": {"internal": True}}
    for name, service in services().items():
        assert service["networks"] == ["cluster"], name
        assert not {"ports", "expose", "network_mode"} & set(service), name


def test_all_services_take_the_secret_from_a_file_outside_the_repository():
    (secret,) = yaml.safe_load(COMPOSE.read_text())["secrets"].values()
    assert secret == {"file": "${IDS_SPARK_AUTH:-/etc/ids_spark/spark_auth}"}
    for service in services().values():
        assert service["secrets"] == ["spark_auth"]
        assert set(service["environment"]) >= {"IDS_SPARK_MASTER"}
        assert not re.search("secret|password|key", str(service["environment"]), re.IGNORECASE)


def test_two_workers_and_the_job_share_the_lake():
    assert services()["worker"]["deploy"]["replicas"] == 2
    assert all("lake:/lake" in services()[name]["volumes"] for name in ("worker", "job"))


def test_compose_itself_accepts_the_file(tmp_path: Path):
    compose = ["docker", "compose"]
    if (
        shutil.which("docker") is None
        or subprocess.run([*compose, "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip("docker compose is not installed")
    command = [*compose, "-f", str(COMPOSE), "--profile", "job", "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- Kubernetes -------------------------------------------------------------------------------------------------


def manifests() -> list[dict[str, Any]]:
    return [one for path in MANIFESTS for one in yaml.safe_load_all(path.read_text())]


def settings() -> dict[str, str]:
    (data,) = [one["data"] for one in manifests() if one["kind"] == "ConfigMap"]
    return data


def pods() -> dict[str, dict[str, Any]]:
    """The pods that the manifests make, by kind."""
    kinds = {one["kind"]: one for one in manifests()}
    return {
        "score": kinds["CronJob"]["spec"]["jobTemplate"]["spec"]["template"],
        "train": kinds["Job"]["spec"]["template"],
        "executor": yaml.safe_load(settings()["executor.yaml"]),
    }


@pytest.mark.parametrize("name", ["score", "train", "executor"])
def test_a_pod_runs_as_the_images_user_and_may_do_nothing_else(name: str):
    spec = pods()[name]["spec"]
    user = {"runAsNonRoot": True, "runAsUser": UID, "runAsGroup": UID, "fsGroup": UID}
    assert spec["securityContext"].items() >= user.items()
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is (name != "executor")
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
        assert "secretKeyRef" not in str(container["env"])
        assert {"name": "IDS_SPARK_SECRETS", "value": "/run/ids_spark"} in container["env"]
        assert "ephemeral-storage" in container["resources"]["limits"]
    secret = volumes["secrets"]["secret"]
    assert (secret["secretName"], secret["defaultMode"]) == ("ids-spark", 0o440)
    # Only the driver of a night needs the pseudonym key; without `items`, every key of the secret is mounted.
    assert secret.get("items") == (None if name == "score" else [{"key": "spark_auth", "path": "spark_auth"}])
    assert volumes["tmp"]["emptyDir"]["medium"] == "Memory"  # the entrypoint puts secrets there
    assert not any("hostPath" in volume for volume in volumes.values())


def test_drivers_run_a_job_of_this_project_with_a_configuration_that_it_accepts(tmp_path: Path):
    images = {re.search(r"spark.kubernetes.container.image\s+(\S+)", settings()["spark-defaults.conf"])[1]}
    (tmp_path / "night.yaml").write_text(settings()["night.yaml"])
    for name in ("score", "train"):
        (driver,) = pods()[name]["spec"]["containers"]
        images.add(driver["image"])
        arguments = driver["args"][driver["args"].index(f"jobs/{name}.py") :]
        assert (ROOT / arguments[0]).is_file()
        given = [arguments[i + 1] for i, part in enumerate(arguments) if part == "--config"]
        files = [str(tmp_path / Path(file).name if file.startswith("/") else ROOT / file) for file in given]
        config = load(files, [arguments[i + 1] for i, part in enumerate(arguments) if part == "--set"])
        assert config.lake == "/lake"
        if name == "score":
            assert config.score.identifiers
            assert config.score.pseudonym_key_file == "/tmp/ids_spark/pseudonym_key"
    assert len(images) == 1
    sizes = dict(re.findall(r"spark.executor.(cores|instances)\s+(\d+)", settings()["spark-defaults.conf"]))
    assert config.train.ranks <= int(sizes["cores"]) * int(sizes["instances"])


def test_the_driver_may_manage_executors_and_read_no_secret():
    (role,) = [one for one in manifests() if one["kind"] == "Role"]
    assert "secrets" not in str(role)
    assert "*" not in str(role)
    assert not [one for one in manifests() if one["kind"] == "Secret" or one["kind"].startswith("Cluster")]
    assert {one["metadata"].get("namespace", one["metadata"].get("name")) for one in manifests()} == {"ids-spark"}


def selected(policy: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a network policy is for pods with these labels."""
    return policy["spec"]["podSelector"].get("matchLabels", {}).items() <= labels.items()


def test_egress_of_each_pod_is_a_list():
    policies = [one for one in manifests() if one["kind"] == "NetworkPolicy"]
    labels = {name: dict(pod["metadata"]["labels"]) for name, pod in pods().items()}
    labels["executor"]["spark-role"] = "executor"  # set by Spark
    [denies] = [policy for policy in policies if policy["spec"]["podSelector"] == {}]
    assert denies["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    reached: dict[str, list[tuple[str, list[int]]]] = {}
    for name, told in labels.items():
        rules = [rule for policy in policies if selected(policy, told) for rule in policy["spec"].get("egress", [])]
        for rule in rules:
            assert rule["to"], "a rule without `to` reaches every address"
            for peer in rule["to"]:
                assert peer.get("ipBlock", {}).get("cidr", "192.0.2.1/32").endswith("/32")
            kinds = sorted(kind for peer in rule["to"] for kind in peer)
            reached.setdefault(name, []).append((kinds[0], [port["port"] for port in rule.get("ports", [])]))
    shared = [("podSelector", []), ("namespaceSelector", [53, 53])]
    assert reached["executor"] == shared
    assert reached["score"] == reached["train"] == [*shared, ("ipBlock", [443, 6443])]
    ingress = [rule for policy in policies for rule in policy["spec"].get("ingress", [])]
    assert ingress == [{"from": [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "ids-spark"}}}]}]


def test_spark_makes_executors_from_the_template_without_a_secret(spark: SparkSession, tmp_path: Path):
    jvm = spark.sparkContext._jvm
    (tmp_path / "executor.yaml").write_text(settings()["executor.yaml"])
    conf = jvm.org.apache.spark.SparkConf(False)
    (tmp_path / "mounted").mkdir()
    (tmp_path / "mounted" / "spark-defaults.conf").write_text(settings()["spark-defaults.conf"])
    driver = Container(tmp_path / "driver", "k8s://https://kubernetes.default.svc")
    driver.secret("spark_auth", SECRET)
    driver.environment["SPARK_CONF_DIR"] = str(tmp_path / "mounted")
    told = driver.settings() | {
        "spark.app.name": "synthetic",
        "spark.kubernetes.executor.podTemplateFile": str(tmp_path / "executor.yaml"),
    }
    for name, value in told.items():
        conf.set(name, value)

    def of(name: str) -> Any:  # a Scala object
        return getattr(getattr(jvm, f"{name}$"), "MODULE$")

    none = jvm.scala.Option.apply(None)
    entry = of("org.apache.spark.internal.config.package").AUTH_SECRET_FILE_DRIVER()
    security = jvm.org.apache.spark.SecurityManager(conf, none, entry)
    security.initializeAuth()
    executor = of("org.apache.spark.deploy.k8s.KubernetesConf").createExecutorConf(conf, "1", "app", none, 0)
    profile = of("org.apache.spark.resource.ResourceProfile").getOrCreateDefaultProfile(conf)
    client = jvm.io.fabric8.kubernetes.client.KubernetesClientBuilder().build()
    builder = jvm.org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBuilder()
    made = builder.buildFromFeatures(executor, security, client, profile).pod()
    text = jvm.io.fabric8.kubernetes.client.utils.Serialization.asYaml
    pod, container = yaml.safe_load(text(made.pod())), yaml.safe_load(text(made.container()))
    client.close()
    assert container["args"] == ["executor"]  # the role for which the entrypoint starts an executor
    template = pods()["executor"]["spec"]
    assert container["securityContext"] == template["containers"][0]["securityContext"]
    assert pod["spec"]["securityContext"] == template["securityContext"]
    assert pod["spec"]["serviceAccountName"] == "ids-spark-executor"
    assert security.getSecretKey() not in text(made.container()) + text(made.pod())
    assert SECRET not in text(made.container()) + text(made.pod())
    assert "_SPARK_AUTH_SECRET" not in text(made.container())
    # The JVM of an executor is started with the properties of the driver's connections.
    options = {entry["value"] for entry in container["env"] if entry["name"].startswith("SPARK_JAVA_OPT_")}
    assert options >= {
        "-Dspark.authenticate=true",
        "-Dspark.network.crypto.enabled=true",
        "-Dspark.network.crypto.authEngineVersion=2",
        "-Dspark.network.crypto.cipher=AES/GCM/NoPadding",
        "-Dspark.network.crypto.saslFallback=false",
    }
