"""The entrypoint of the image, run as a container would run it."""

import os
import re
import subprocess
from pathlib import Path

import pyspark

from tests.support.flows import ROOT

ENTRYPOINT = ROOT / "docker" / "entrypoint.sh"


class Container:
    """The entrypoint as a container would start it, with its own folders."""

    def __init__(self, folder: Path, master: str = "") -> None:
        self.secrets, self.private = folder / "secrets", folder / "private"
        self.secrets.mkdir(parents=True)
        (folder / "scratch").mkdir()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PYTHONPATH", "SPARK_"))},
            "SPARK_HOME": str(Path(pyspark.__file__).parent),
            "SPARK_CONF_DIR": str(ROOT / "conf" / "spark"),
            "SPARK_LOCAL_DIRS": str(folder / "scratch"),
            "SPARK_WORKER_DIR": str(folder / "scratch" / "work"),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "IDS_SPARK_ADDRESS": "127.0.0.1",
            "IDS_SPARK_SECRETS": str(self.secrets),
            "IDS_SPARK_PRIVATE": str(self.private),
            "IDS_SPARK_MASTER": master,
        }

    def secret(self, name: str, value: str, mode: int = 0o400) -> None:
        (self.secrets / name).write_text(value)
        (self.secrets / name).chmod(mode)

    def run(self, *command: str, timeout: int = 60) -> tuple[int, str]:
        done = subprocess.run(
            [str(ENTRYPOINT), *command],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=timeout,
        )
        return done.returncode, done.stdout

    def start(self, *command: str, **environment: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [str(ENTRYPOINT), *command],
            env=self.environment | environment,
            stdout=(self.private.parent / "log").open("w"),
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def settings(self) -> dict[str, str]:
        """The Spark settings of a command; of several lines for one name, the last is used."""
        code, text = self.run("bash", "-c", 'cat "$SPARK_CONF_DIR/spark-defaults.conf"')
        assert code == 0, text
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
        return dict(re.split(r"[=\s]+", line, maxsplit=1) for line in lines)
