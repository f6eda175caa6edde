"""What tests share: a Spark session, real flows where they are, synthetic sources, and jobs run as a user would."""

import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import hypothesis
import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from ids_spark.dataset.schema import FEATURE_SCHEMAS
from ids_spark.runtime import job

ROOT = Path(__file__).resolve().parent.parent

# Spark's Python workers must find this checkout, and take this interpreter.
os.environ["PYTHONPATH"] = str(ROOT)
os.environ["PYSPARK_PYTHON"] = sys.executable
os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")

# How long an example takes is the machine's affair; a bench measures, a test does not.
hypothesis.settings.register_profile("project", deadline=None)
hypothesis.settings.load_profile("project")

RunJob = Callable[..., int]


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """One local session with two task slots; starts when the first test asks for it."""
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
    """The folder of real CICIoMT2024 rows; tests that ask for it are skipped where it is absent."""
    folder = Path(os.environ.get("CICIOMT_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "release39").is_dir():
        pytest.skip(f"no real flows: {folder} holds no release39/ (set CICIOMT_DATA)")
    return folder


@pytest.fixture
def run_job(spark: SparkSession, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> RunJob:
    """Run a job in this process as spark-submit would; returns its exit code, its log stands in caplog."""

    def run(name: str, **settings: object) -> int:
        module: ModuleType = importlib.import_module(f"jobs.{name}")
        arguments = [part for key, value in settings.items() for part in ("--set", f"{key.replace('__', '.')}={value}")]
        if "lake" not in settings:
            arguments += ["--set", f"lake={tmp_path / 'lake'}"]
        with caplog.at_level(logging.INFO):
            return job.main(module.run, module.__doc__ or "", arguments)

    return run


def synthetic_frame(rows: int, seed: int, schema: str = "release39") -> pd.DataFrame:
    """Random numbers that break no quality rule of severity reject; synthetic, and nothing like real flows."""
    rng = np.random.default_rng(seed)
    features = FEATURE_SCHEMAS[schema].features
    frame = pd.DataFrame(rng.uniform(0.0, 1.0, (rows, len(features))), columns=list(features))
    if "Drate" in frame:
        frame["Drate"] = 0.0
    return frame


def write_synthetic_source(folder: Path, rows: int = 60, schema: str = "release39") -> dict[str, pd.DataFrame]:
    """Write a small synthetic source in the official layout; returns the frames by path below it."""
    names = [
        "Benign",
        "TCP_IP-DDoS-ICMP1",
        "TCP_IP-DDoS-ICMP2",
        "MQTT-DDoS-Connect_Flood",
        "Recon-VulScan",
        "ARP_Spoofing",
    ]
    written = {}
    for split in ("train", "test"):
        for i, name in enumerate(names):
            frame = synthetic_frame(rows, seed=i + (100 if split == "test" else 0), schema=schema)
            frame["Rate"] += 5.0 * i  # so that classes can be told apart
            path = folder / split / f"{name}_{split}.pcap.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            frame.to_csv(path, index=False)
            written[f"{split}/{path.name}"] = frame
    return written
