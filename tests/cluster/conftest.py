"""One cluster with authentication for all tests, and a lake that the four jobs wrote on it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.harness import TRAINING, Cluster, Night, prepare, submit
from tests.support.flows import synthetic_frame, write_synthetic_source


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A master and two workers that share a secret."""
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
    """A copy of the folder, for a test that changes it."""
    return Path(shutil.copytree(night.folder, tmp_path / "night"))
