"""Lakes on a real HDFS: a NameNode and a DataNode on loopback, asked by libhdfs as pyarrow does.

`make test-hdfs` installs and runs it. The servers are Hadoop 2.7, the client is that of Spark's jars (Hadoop 3.3).
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pyspark
import pytest

from ids_spark.base.errors import Interrupted
from ids_spark.lake import storage_faults
from ids_spark.lake.filesystem import exists, names_in, read_bytes, resolve, sizes_in, write_bytes
from tests.support.flows import write_synthetic_source
from tests.support.storages import check_files
from tests.support.submitting import prepare, start, submit

MADE = Path(os.environ.get("IDS_SPARK_HDFS") or Path(sys.prefix) / "hdfs")
"""What install.sh made."""
JAVA = Path(os.environ["JAVA_HOME"]) / "bin" / "java"
OPENS = [
    f"--add-opens=java.base/{package}=ALL-UNNAMED"
    for package in ("java.lang", "java.lang.reflect", "java.io", "java.net", "java.nio", "java.util", "sun.nio.ch")
]
DAEMONS = {"namenode": "namenode.NameNode", "datanode": "datanode.DataNode"}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Hdfs:
    """One NameNode and one DataNode, with their files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        for name in (
            "hdfs",
            "datanode",
            "static",
            "secondary",
        ):  # looked for; the jar has none
            (folder / "webapps" / name / "WEB-INF").mkdir(parents=True)
            (folder / "webapps" / name / "WEB-INF" / "web.xml").write_text("<web-app/>")
        local = {name: f"127.0.0.1:{free_port()}" for name in ("address", "http.address", "ipc.address")}
        self._write(
            "core-site", {"fs.defaultFS": f"hdfs://127.0.0.1:{self.port}", "hadoop.tmp.dir": str(folder / "tmp")}
        )
        self._write(
            "hdfs-site",
            {
                "dfs.namenode.name.dir": str(folder / "name"),
                "dfs.datanode.data.dir": str(folder / "data"),
                "dfs.namenode.http-address": f"127.0.0.1:{free_port()}",
                "dfs.namenode.rpc-bind-host": "127.0.0.1",
                "dfs.namenode.safemode.extension": "0",
                "dfs.webhdfs.enabled": "false",
                "dfs.replication": "1",
                **{f"dfs.datanode.{name}": address for name, address in local.items()},
            },
        )
        self._run("server.namenode.NameNode", "-format", "-force", "-nonInteractive")

    def _write(self, name: str, settings: dict[str, str]) -> None:
        properties = "".join(f"<property><name>{k}</name><value>{v}</value></property>" for k, v in settings.items())
        (self.folder / f"{name}.xml").write_text(f"<configuration>{properties}</configuration>")

    def _command(self, program: str, *arguments: str) -> list[str]:
        classes = f"{self.folder}:{MADE}/jars/*"
        return [str(JAVA), "-Xmx256m", *OPENS, "-cp", classes, f"org.apache.hadoop.hdfs.{program}", *arguments]

    def _run(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            self._command(program, *arguments), capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            command = self._command(f"server.{DAEMONS[name]}")
            self.running[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self, name: str) -> None:
        process = self.running.pop(name, None)
        if process is not None:
            process.kill()
            process.wait()

    def safe_mode(self, verb: str) -> None:
        self._run("tools.DFSAdmin", "-safemode", verb)

    @property
    def address(self) -> str:
        return f"hdfs://127.0.0.1:{self.port}"

    def wait(self) -> None:
        """Wait until a file can be written."""
        deadline = time.monotonic() + 180
        while True:
            try:
                write_bytes(f"{self.address}/ready", b"1")
                return
            except OSError:
                assert time.monotonic() < deadline, (self.folder / "namenode.log").read_text()[-3000:]
                time.sleep(0.5)


@pytest.fixture(scope="module")
def hdfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hdfs]:
    if not (MADE / ".ready").exists():
        pytest.skip("run make test-hdfs, which installs the servers")
    made = Hdfs(tmp_path_factory.mktemp("hdfs"))
    jars = Path(pyspark.__file__).parent / "jars"
    client = [
        path for pattern in ("hadoop-client-*", "*slf4j*", "*log4j*", "commons-logging*") for path in jars.glob(pattern)
    ]
    before = dict(os.environ)
    os.environ |= {"ARROW_LIBHDFS_DIR": str(MADE / "lib"), "CLASSPATH": ":".join(map(str, client))}
    try:
        for name in DAEMONS:
            made.start(name)
        made.wait()
        yield made
    finally:
        for name in DAEMONS:
            made.kill(name)
        os.environ.clear()
        os.environ |= before


def test_files_are_written_listed_replaced_moved_and_removed(hdfs: Hdfs) -> None:
    check_files(f"{hdfs.address}/files of a lake")


def test_a_lost_namenode_is_no_empty_lake(hdfs: Hdfs) -> None:
    nowhere = f"hdfs://127.0.0.1:{free_port()}/lake"
    for do in (exists, names_in, sizes_in, read_bytes, lambda uri: write_bytes(uri, b"x")):
        with pytest.raises(OSError, match="HDFS") as error:
            do(nowhere)
        said = storage_faults.explained(error.value, nowhere)
        assert isinstance(said, Interrupted)
        assert "is the NameNode running, and reachable?" in str(said)


def rows(lake: str, split: str) -> object:
    fs, root = resolve(lake)
    table = pq.read_table(f"{root}/flows/split={split}", filesystem=fs)
    return table.select(["source_file", "source_row"])


def test_an_ingest_that_loses_the_namenode_ends_with_1_and_runs_again(hdfs: Hdfs, tmp_path: Path) -> None:
    folder, lake = prepare(tmp_path / "night"), f"{hdfs.address}/lost/lake"
    write_synthetic_source(folder / "source", rows=30)
    code, output = submit(folder, "ingest", "ingest.source=source")
    assert code == 0, output
    process = start(folder, "ingest", f"lake={lake}", "ingest.source=source")
    deadline = time.monotonic() + 120
    while not any(name.startswith("ingest/") for name in sizes_in(f"{lake}/.staging")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    hdfs.kill("namenode")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1, output
    assert "HDFS did not do what it was asked" in output
    hdfs.start("namenode")
    hdfs.wait()
    assert not exists(f"{lake}/flows")
    code, output = submit(folder, "ingest", f"lake={lake}", "ingest.source=source")
    assert code == 0, output
    for split in ("train", "test"):
        assert rows(lake, split) == rows(str(folder / "lake"), split)
    assert {name.split("/")[0] for name in sizes_in(lake)} == {"audit", "flows", "quarantine"}
    shutil.rmtree(folder)


def test_safe_mode_ends_a_job_with_its_name_and_changes_nothing(hdfs: Hdfs, tmp_path: Path) -> None:
    folder, lake = prepare(tmp_path / "night"), f"{hdfs.address}/safe/lake"
    write_synthetic_source(folder / "source", rows=5)
    hdfs.safe_mode("enter")
    try:
        code, output = submit(folder, "ingest", f"lake={lake}", "ingest.source=source")
    finally:
        hdfs.safe_mode("leave")
    assert code == 1, output
    assert "the NameNode is in safe mode" in output
    assert not exists(lake)
