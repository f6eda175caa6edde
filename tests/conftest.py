"""Shared fixtures: a Spark session, real flows if present, synthetic sources, and jobs run as by a user."""

import importlib
import logging
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import pytest
from pyspark.sql import SparkSession

from ids_spark.runtime import job
from tests.support.flows import PLAIN, ROOT, RunJob
from tests.support.once import made_once

# Spark's Python workers must import this checkout and use this interpreter.
os.environ["PYTHONPATH"] = str(ROOT)
os.environ["PYSPARK_PYTHON"] = sys.executable
os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")

# No deadline for an example: its duration depends on the machine.
hypothesis.settings.register_profile("project", deadline=None)
hypothesis.settings.load_profile("project")


CLUSTER = "tests/cluster"
# The last file determines the duration of a run, so the longest start first, before all the tests on a cluster.
LONGEST_FIRST = (
    "fuzz/test_fuzz.py",
    "jobs/test_adapt.py",
    "bench/test_bench_extract.py",
    "jobs/test_ward.py",
    "faults/test_hostile_files.py",
    "faults/test_killed_ingest.py",
    "bench/test_bench.py",
    "schedulers/test_airflow.py",
    "jobs/test_pipeline.py",
    "train/test_training.py",
    "lake/test_filesystem.py",
    "bench/test_bench_train.py",
    "score/test_nightly.py",
    "features/test_local_features.py",
    "score/test_degraded_nights.py",
    "synthetic/test_dataset.py",
    "faults/test_killed_night.py",
    "faults/test_killed_extract.py",
    "score/test_night_rerun.py",
    "deploy/test_entrypoint.py",
    "report/test_run_page.py",
    "evaluate/test_leakage.py",
    "features/test_partitioning.py",
    "features/test_preprocess_real_rows.py",
    "evaluate/test_forest.py",
    "train/test_two_ranks.py",
    "models/test_architectures.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files of `LONGEST_FIRST` first, after those of `CLUSTER`; the order within a file is kept."""
    places = {ROOT / "tests" / name: place for place, name in enumerate(LONGEST_FIRST)}
    assert all(path.exists() for path in places), "LONGEST_FIRST names a test file that does not exist"
    items.sort(key=lambda item: -1 if _on_cluster(item.nodeid) else places.get(item.path, len(places)))


def _on_cluster(nodeid: str) -> bool:
    return nodeid.startswith(f"{CLUSTER}/")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadfile`, give all files of `CLUSTER` to one worker process: they share one cluster."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling  # a plugin, which may be switched off

    class Scheduling(LoadFileScheduling):
        """Work units are files, and `CLUSTER`."""

        def _split_scope(self, nodeid: str) -> str:
            return CLUSTER if _on_cluster(nodeid) else super()._split_scope(nodeid)

    return Scheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape names that are no UTF-8 in captured logs: a worker of pytest-xdist that cannot send them ends the run."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """One local session with two task slots; starts when the first test uses it."""
    session = (
        SparkSession.builder.master("local[2]")
        .appName("ids_spark tests")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.driver.memory", "2g")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .getOrCreate()
    )
    yield session
    session.stop()


@pytest.fixture(scope="session")
def real_flows() -> Path:
    """The folder of real CICIoMT2024 rows; tests that use it are skipped if it is absent."""
    folder = Path(os.environ.get("CICIOMT_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "release39").is_dir():
        pytest.skip(f"no real flows: {folder} holds no release39/ (set CICIOMT_DATA)")
    return folder


@pytest.fixture(scope="session")
def real_captures() -> Path:
    """A folder of real packet captures; tests that use it are skipped if it is absent."""
    folder = Path(os.environ.get("CAPTURES", ROOT.parent / "shared" / "captures"))
    if not folder.is_dir():
        pytest.skip(f"no real captures: {folder} does not exist (set CAPTURES)")
    return folder


@pytest.fixture(scope="session")
def nights(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `lake`, a model of 19 classes trained on synthetic flows in it, and `logs` of one night.

    Made once for all worker processes. Never written to again: tests copy it.
    """
    from tests.support.nights import make_nights  # imports TensorFlow, which most tests do not need

    base = tmp_path_factory.getbasetemp()
    return made_once((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "nights", make_nights)


@pytest.fixture
def run_job(spark: SparkSession, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> RunJob:
    """Run a job in this process as spark-submit would; returns its exit code; its log is in caplog."""

    def run(name: str, **settings: object) -> int:
        module: ModuleType = importlib.import_module(f"jobs.{name}")
        chosen = [PLAIN, *(f"{key.replace('__', '.')}={value}" for key, value in settings.items())]
        arguments = [part for setting in chosen for part in ("--set", setting)]
        if "lake" not in settings:
            arguments += ["--set", f"lake={tmp_path / 'lake'}"]
        with caplog.at_level(logging.INFO):
            return job.main(module.run, module.__doc__ or "", arguments)

    return run
