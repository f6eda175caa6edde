"""All four jobs on workers where nothing of this project is installed: Python comes with the job, by --archives."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

import environment_archive
from tests.cluster.harness import ROOT, TRAINING, Cluster, Night, prepare, submit
from tests.cluster.tables import assert_same_rows

ARCHIVE = ROOT / "dist" / "ids_env.tar.gz"
SENT = (
    "--archives",
    f"{ARCHIVE}#env",
    "--conf",
    "spark.pyspark.python=./env/bin/python",
    "--conf",
    "spark.pyspark.driver.python=python",  # of this machine
)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster whose workers have the system's programs alone, and a HOME with packages of the user that fail."""
    environment_archive.make(ARCHIVE)
    started = Cluster(tmp_path_factory.mktemp("bare"), bare=True)
    broken = started.folder / "home/.local/lib/python3.11/site-packages/numpy"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise RuntimeError('a package of the user')\n")
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="module")
def sent(bare: Cluster, night: Night, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ingest, features, train and score wrote, started as `night` was."""
    folder = prepare(tmp_path_factory.mktemp("sent"))
    submit(bare, folder, "prepare", *TRAINING, f"ingest.source={night.source}", options=SENT)
    submit(bare, folder, "train", *TRAINING, options=SENT)
    submit(bare, folder, "score", *TRAINING, options=SENT)
    return folder


def test_every_job_gives_the_rows_of_installed_workers(sent: Path, night: Night) -> None:
    audit = pd.read_parquet(sent / "lake/audit").set_index("job")
    assert set(audit.index) == {"ingest", "features", "train", "score"}
    assert (audit["status"] == "done").all()
    tables = [f"flows/split={split}" for split in ("train", "test")]
    tables += [f"features/paper/split={split}" for split in ("train", "validation", "test")]
    assert_same_rows(sent / "lake", night.folder / "lake", *tables)
