"""The Python of executors: what is refused before Spark starts, and what its errors become."""

from pathlib import Path

import pytest

from ids_spark.base.errors import InputError
from ids_spark.runtime import worker_python

CLUSTER = "spark://10.0.0.1:7077"


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYSPARK_PYTHON", "/opt/env/bin/python")


def test_an_archive_that_is_absent_is_named(tmp_path: Path) -> None:
    for name in ("spark.archives", "spark.yarn.dist.archives"):
        for archive in (f"{tmp_path}/ids_env.tar.gz#env", f"file://{tmp_path}/ids_env.tar.gz#env"):
            with pytest.raises(InputError, match=r"ids_env\.tar\.gz, an archive for executors, does not exist"):
                worker_python.refuse_absent({name: archive}, CLUSTER)
    worker_python.refuse_absent({"spark.archives": "hdfs:///ids_env.tar.gz#env"}, CLUSTER)


@pytest.mark.parametrize("fragment", ["", "#other"])
@pytest.mark.parametrize("setting", [True, False])
def test_a_path_below_the_executor_needs_an_archive_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fragment: str, setting: bool
) -> None:
    archive = tmp_path / "ids_env.tar.gz"
    archive.touch()
    conf = {"spark.archives": f"{archive}{fragment}"}
    if setting:
        conf["spark.pyspark.python"] = "./env/bin/python"
    else:
        monkeypatch.setenv("PYSPARK_PYTHON", "env/bin/python")
    with pytest.raises(InputError, match=r"no archive is unpacked there as 'env'"):
        worker_python.refuse_absent(conf, CLUSTER)
    worker_python.refuse_absent(conf | {"spark.archives": f"{archive}#env"}, CLUSTER)
    worker_python.refuse_absent(conf | {"spark.archives": f"{archive}#other,{archive}#env"}, CLUSTER)


def test_in_local_mode_tasks_run_where_the_driver_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    conf = {"spark.pyspark.python": "./env/bin/python", "spark.archives": "hdfs:///ids_env.tar.gz#env"}
    with pytest.raises(InputError, match="leave out --archives"):
        worker_python.refuse_absent(conf, "local[2]")
    program = tmp_path / "env/bin/python"
    program.parent.mkdir(parents=True)
    program.touch()
    worker_python.refuse_absent(conf, "local[2]")


def test_a_python_on_the_path_of_the_workers_is_not_looked_for() -> None:
    for python in ("python3", "/usr/bin/python3.11", "/absent/here/python"):
        worker_python.refuse_absent({"spark.pyspark.python": python}, CLUSTER)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'java.io.IOException: Cannot run program "./env/bin/python": error=2, No such file or directory\n\tat java',
            "an executor cannot start ./env/bin/python: it does not exist there, or is no program; driver",
        ),
        (
            "SparkException: \nError from python worker:\n  Traceback (most recent call last):\n  ImportError:"
            " GLIBC_2.38 not found\nPYTHONPATH was:\n  /spark/python/lib/pyspark.zip\norg.apache.spark",
            "the Python of an executor ended at its start: ImportError: GLIBC_2.38 not found; driver",
        ),
        (
            "pyspark.errors.exceptions.base.PySparkRuntimeError: [PYTHON_VERSION_MISMATCH] Python in worker has"
            " different version (3, 12) than that in driver 3.11, PySpark cannot run with different minor versions.",
            "executors have Python 3.12, the driver has 3.11; driver",
        ),
        (
            "  File worker.py\nModuleNotFoundError: No module named 'pyarrow'\n\n\tat org.apache.spark",
            "the Python of an executor has no module pyarrow; driver",
        ),
    ],
)
def test_what_spark_says_of_python_becomes_a_message(text: str, message: str) -> None:
    found = worker_python.explained(RuntimeError(text))
    assert found is not None
    assert str(found).startswith(message)
    assert worker_python.explained(RuntimeError("java.io.IOException: No space left on device")) is None
