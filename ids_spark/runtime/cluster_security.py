"""What a job requires of its connection to a cluster, and keeps from the processes there.

`conf/cluster/security.conf` holds these settings for standalone clusters, containers and Kubernetes. A job checks what
Spark really uses, because `--conf`, another SPARK_CONF_DIR or `spark.properties` of a scheduler can override any file.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ids_spark.base.errors import InputError

REQUIRED: Final[Mapping[str, str]] = {
    "spark.authenticate": "true",
    "spark.network.crypto.enabled": "true",
    "spark.network.crypto.authEngineVersion": "2",
    "spark.network.crypto.cipher": "AES/GCM/NoPadding",
    "spark.network.crypto.saslFallback": "false",
    "spark.io.encryption.enabled": "true",
    "spark.io.encryption.keySizeBits": "256",
}
"""Authentication and encryption of a cluster; none of the values is Spark's default."""

SPARK_SECRET: Final = "_SPARK_AUTH_SECRET"
"""Environment variable in which Spark passes the cluster's secret to the JVM of an executor."""


def is_local(master: str) -> bool:
    """Whether driver and tasks are one process on this machine."""
    return master == "local" or master.startswith("local[")


def require_encryption(conf: Any, master: str, open_cluster: bool) -> None:
    """Refuse a cluster whose connections are not authenticated and encrypted as `REQUIRED`.

    Args:
        conf: Spark's effective properties (`SparkConf` of Python or of the JVM).
        master: Spark master.
        open_cluster: Setting of that name: any cluster is accepted.

    Raises:
        InputError: names every weaker property.
    """
    if open_cluster or is_local(master):
        return
    found = {name: conf.get(name, "not set") for name in REQUIRED}
    weak = [name for name, value in REQUIRED.items() if found[name].lower() != value.lower()]
    if weak:
        lines = "".join(f"\n  {name} is {found[name]}, expected {REQUIRED[name]}" for name in weak)
        raise InputError(
            f"connections to {master} would not be authenticated and encrypted:{lines}\n"
            "  set SPARK_CONF_DIR to the cluster's copy of conf/cluster, with security.conf appended to"
            " spark-defaults.conf; or, on a network that nobody else can reach, give --set open_cluster=true"
        )


def refuse_secret_on_command_line(command: str) -> None:
    """Refuse a job that was given the cluster's secret as an option, which every user of the machine can read.

    Args:
        command: Command line of the driver's JVM.

    Raises:
        InputError: it holds the secret.
    """
    if "spark.authenticate.secret=" in command:
        raise InputError(
            "the command line holds spark.authenticate.secret, and every user of this machine can read it (ps); write"
            " it to spark-defaults.conf in SPARK_CONF_DIR instead, and create a new secret"
        )


def refuse_secrets_for_executors(conf: Any, secrets: Iterable[str]) -> None:
    """Refuse environment variables with secrets for executors, where every process of a worker's user could read them.

    Args:
        conf: Spark's effective properties.
        secrets: Names of environment variables that hold a secret of the driver.

    Raises:
        InputError: a property passes one of them to executors.
    """
    for name in secrets:
        for prefix in ("spark.executorEnv.", "spark.yarn.appMasterEnv.", "spark.kubernetes.executor.secretKeyRef."):
            if conf.get(prefix + name, ""):
                raise InputError(
                    f"{prefix}{name} passes a secret to executors; remove it: tasks that need a key receive it from"
                    " the driver, encrypted"
                )
