"""One locked cluster for all tests, and a lake that the four jobs wrote on it."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.harness import Cluster, prepare, submit
from tests.support.flows import synthetic_frame, write_synthetic_source

# Many small files: a fault then meets an executor that has some behind it and some before it.
TRAINING = (
    "ingest.rows_per_file=4000",
    "train.models=[dnn]",
    "train.classes=[6]",
    "train.batch_size=256",
    "train.epochs=2",
    "features.files=4",
)


@dataclass(frozen=True)
class Night:
    """What the four jobs left.

    Attributes:
        folder: Where they were submitted; holds the lake.
        source: Absolute path of the synthetic source.
        output: What each job printed.
    """

    folder: Path
    source: Path
    output: dict[str, str]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Master and two workers that share a secret."""
    started = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic source of 12 small files and, in each split, 2 of 15,000 rows."""
    folder = tmp_path_factory.mktemp("source")
    write_synthetic_source(folder, rows=60)
    for i in range(4):
        split = ("train", "test")[i % 2]
        path = folder / split / f"Benign{i}_{split}.pcap.parquet"
        synthetic_frame(15_000, seed=1_000 + i).to_parquet(path, index=False)
    return folder


@pytest.fixture(scope="session")
def night(cluster: Cluster, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Night:
    """A lake that ingest, features, train (a rank on each worker) and score wrote on the cluster."""
    folder = prepare(tmp_path_factory.mktemp("night"))
    output = {}
    for job, more in (("ingest", (f"ingest.source={source}",)), ("features", ()), ("train", ()), ("score", ())):
        output[job] = submit(cluster, folder, job, *TRAINING, *more)
    return Night(folder, source, output)


@pytest.fixture
def copy(night: Night, tmp_path: Path) -> Path:
    """The same folder again, for a job that is disturbed."""
    return Path(shutil.copytree(night.folder, tmp_path / "night"))
