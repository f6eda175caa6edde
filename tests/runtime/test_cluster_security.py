"""Which clusters a job refuses, and which variables for executors."""

import re

import pytest
from pyspark.sql import SparkSession

from ids_spark.base.errors import InputError
from ids_spark.config.settings import Config
from ids_spark.runtime import cluster_security
from ids_spark.runtime.job import secret_variables
from tests.support.flows import ROOT

KEY = "IDS_SPARK_PSEUDONYM_KEY"


def of_file() -> dict[str, str]:
    """The properties of conf/cluster/security.conf."""
    text = (ROOT / "conf" / "cluster" / "security.conf").read_text()
    return dict(line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#"))


def test_jobs_require_what_the_file_of_all_deployments_says() -> None:
    ours = re.compile(r"spark\.(authenticate|network|io)\b")
    assert {name: value for name, value in of_file().items() if ours.match(name)} == cluster_security.REQUIRED


def test_no_requirement_is_met_by_spark_s_defaults(spark: SparkSession) -> None:
    jvm = spark.sparkContext._jvm
    conf = jvm.org.apache.spark.SparkConf(False)
    transport = getattr(getattr(jvm, "org.apache.spark.network.netty.SparkTransportConf$"), "MODULE$").fromSparkConf(
        conf, "rpc", 1, jvm.scala.Option.apply(None)
    )
    assert (transport.encryptionEnabled(), transport.authEngineVersion()) == (False, 1)
    assert (transport.cipherTransformation(), transport.saslFallback()) == ("AES/CTR/NoPadding", True)


@pytest.mark.parametrize("master", ["spark://a:7077", "k8s://https://a", "yarn", "local-cluster[2,1,1024]"])
def test_a_cluster_with_one_weaker_setting_is_refused_by_its_name(master: str) -> None:
    cluster_security.require_encryption(of_file(), master, open_cluster=False)
    for name in cluster_security.REQUIRED:
        for value in ({}, {name: "other"}):
            told = {key: of_file()[key] for key in cluster_security.REQUIRED if key != name} | value
            with pytest.raises(InputError, match=re.escape(f"{name} is {value.get(name, 'not set')}, expected")):
                cluster_security.require_encryption(told, master, open_cluster=False)
            cluster_security.require_encryption(told, master, open_cluster=True)


@pytest.mark.parametrize("master", ["local", "local[2]", "local[*]"])
def test_local_mode_needs_no_encryption(master: str) -> None:
    cluster_security.require_encryption({}, master, open_cluster=False)


def test_a_key_for_the_environment_of_executors_is_refused_without_showing_it() -> None:
    secrets = secret_variables(Config())
    assert KEY in secrets
    signing = Config.model_validate({"train": {"sign_key": "env:SIGN_KEY"}})
    assert set(secret_variables(signing)) == {KEY, "SIGN_KEY"}
    cluster_security.refuse_secrets_for_executors({"spark.executorEnv.AWS_REGION": "x"}, secrets)
    for prefix in ("spark.executorEnv", "spark.kubernetes.executor.secretKeyRef"):
        with pytest.raises(InputError, match=f"{prefix}.{KEY} passes a secret") as refused:
            cluster_security.refuse_secrets_for_executors({f"{prefix}.{KEY}": "0123456789"}, secrets)
        assert "0123456789" not in str(refused.value)


def test_a_secret_on_the_command_line_is_refused_without_showing_it(spark: SparkSession) -> None:
    command = spark.sparkContext._jvm.System.getProperty("sun.java.command")
    assert "org.apache.spark.deploy.SparkSubmit" in command
    cluster_security.refuse_secret_on_command_line(command)
    with pytest.raises(InputError, match="every user of this machine can read it") as refused:
        cluster_security.refuse_secret_on_command_line(f"{command} --conf spark.authenticate.secret=0123456789")
    assert "0123456789" not in str(refused.value)


def test_python_processes_of_executors_find_keys_empty(spark: SparkSession) -> None:
    def of_task(_: object) -> list[tuple[str | None, str | None]]:
        import os

        return [(os.environ.get("_SPARK_AUTH_SECRET"), os.environ.get(KEY))]

    from ids_spark.runtime.job import session

    running = session("test", secrets=(KEY,)).sparkContext
    assert running.parallelize([0], 1).mapPartitions(of_task).collect() == [("", "")]
