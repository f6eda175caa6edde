"""All four jobs on a real cluster; their results equal those of local mode."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from tests.cluster.harness import ROOT, TRAINING, Cluster, Night, end, finished, prepare, start, submit
from tests.cluster.tables import assert_same_rows, curve, rows


def test_every_job_ran_on_the_cluster_and_reconciles(night: Night) -> None:
    audit = pd.read_parquet(night.folder / "lake/audit").set_index("job")
    assert set(audit.index) == {"ingest", "features", "train", "score"}
    assert (audit["status"] == "done").all()
    assert audit.loc["ingest", "rows_in"] == 2 * 6 * 60 + 4 * 15_000
    assert (audit["rows_in"] == audit["rows_out"] + audit["rows_quarantined"] + audit["rows_duplicate"]).all()
    assert sorted(path.name for path in night.folder.iterdir()) == ["ids_spark.zip", "jobs", "lake"]


def test_nothing_that_a_job_leaves_is_open_to_other_users(cluster: Cluster, night: Night) -> None:
    """Files of the lake, from driver and executors, and everything below the folder for shuffled rows."""
    for path in (night.folder / "lake").rglob("*"):
        assert path.stat().st_mode & 0o027 == 0, path
    assert list(cluster.local_dirs.iterdir())
    for path in cluster.local_dirs.iterdir():
        assert path.stat().st_mode & 0o007 == 0, path


def test_both_workers_ran_executors_of_every_job_and_one_rank_each(cluster: Cluster, night: Night) -> None:
    for name in ("worker-1", "worker-2"):
        assert len(list((cluster.folder / name).glob("app-*"))) >= 4
    card = json.loads(next((night.folder / "lake/models/dnn-6-paper").glob("*/model.json")).read_text())
    assert card["training"]["ranks"] == 2


def test_without_horovod_the_ranks_of_two_machines_reach_the_same_weights(
    cluster: Cluster, night: Night, copy: Path
) -> None:
    models = copy / "lake/models/dnn-6-paper"
    [with_horovod] = models.iterdir()
    output = submit(cluster, copy, "train", *TRAINING, "train.all_reduce=xgboost", "train.open_network=true")
    [without] = set(models.iterdir()) - {with_horovod}
    assert output.count("dnn-6-paper epoch 2/2 loss=") == 1
    training = json.loads((without / "model.json").read_text())["training"]
    assert (training["ranks"], training["all_reduce"]) == (2, "xgboost")
    one, other = (np.load(each / "weights.npz", allow_pickle=False) for each in (without, with_horovod))
    for name in other.files:
        np.testing.assert_array_equal(one[name], other[name])


def test_nothing_of_the_checkout_is_on_the_path_of_executors(cluster: Cluster, night: Night, tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    (folder / "jobs" / "where.py").write_text(
        "import os, sys\n"
        "from pyspark.sql import SparkSession\n"
        "sc = SparkSession.builder.getOrCreate().sparkContext\n"
        "def where(_):\n"
        "    import ids_spark\n"
        "    yield os.getcwd(), ids_spark.__file__, [p for p in sys.path if p]\n"
        "for found in sc.parallelize(range(2), 2).mapPartitions(where).collect():\n"
        "    print('FOUND', *found)\n"
    )
    found = [line for line in submit(cluster, folder, "where").splitlines() if line.startswith("FOUND")]
    assert len(found) == 2
    for line in found:
        assert str(cluster.folder / "worker-") in line
        assert "ids_spark.zip/ids_spark/__init__.py" in line
        assert str(ROOT / "ids_spark") not in line
        assert f"'{ROOT}'" not in line


def in_both(cluster: Cluster, there: Path, here: Path, job: str, *settings: str) -> None:
    """Run a job on the cluster and in local mode, side by side."""
    jobs = [start(cluster, there, job, *settings), start(cluster, here, job, *settings, master="local[2]")]
    try:
        for code, output in [finished(process) for process in jobs]:
            assert code == 0, output
    finally:
        for process in jobs:
            end(process)


def test_real_flows_give_the_rows_and_metrics_of_local_mode(cluster: Cluster, real_flows: Path, tmp_path: Path) -> None:
    training = (*TRAINING, "train.classes=[19]", "train.epochs=3")
    there, here = (prepare(tmp_path / name) for name in ("there", "here"))
    in_both(cluster, there, here, "prepare", *training, f"ingest.source={real_flows / 'release39'}")
    assert_same_rows(there / "lake", here / "lake", "flows/split=train", "flows/split=test")
    assert_same_rows(
        there / "lake", here / "lake", *(f"features/paper/split={s}" for s in ("train", "validation", "test"))
    )

    in_both(cluster, there, here, "train", *training)
    # Equal seed and ranks give equal steps: the only difference is the order in which threads add numbers.
    np.testing.assert_allclose(curve(there), curve(here), rtol=1e-4)
    shutil.rmtree(here / "lake/models")
    shutil.copytree(there / "lake/models", here / "lake/models")
    in_both(cluster, there, here, "score", *training)
    assert_same_rows(there / "lake", here / "lake", "split_predictions", "metrics", "confusion")
    assert rows(there / "lake", "metrics")["metric"].eq("accuracy").any()
