"""Boosted trees through Spark and real parquet, compared with XGBoost's own `train` on the same rows."""

import contextlib
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest
import xgboost
from pyspark.sql import SparkSession

from ids_spark.config.train import ModelConfig
from ids_spark.dataset.features import column_of
from ids_spark.dataset.taxonomy import CLASSES
from ids_spark.lake.store import Lake
from ids_spark.models import architectures, artifact, inference, registry, threshold
from ids_spark.models.artifact import Model
from ids_spark.models.signatures import open_trust
from tests.support.flows import write_synthetic_source
from tests.support.in_process import run
from tests.support.keys import key_pair
from tests.support.local_features import with_local_rows
from tests.support.workers import forget_dead_workers

SETTINGS = ("boost.rounds=3", "boost.max_depth=3", "boost.max_bin=32", "features.files=4")


@pytest.fixture(scope="module")
def features(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a lake: the feature table of 5 of 19 classes."""
    folder = tmp_path_factory.mktemp("boosting")
    write_synthetic_source(folder / "source", rows=120)
    for name, setting in (("ingest", f"ingest.source={folder / 'source'}"), ("features", "features.files=4")):
        code, log = run(folder, name, setting)
        assert code == 0, log
    return folder


def boost(folder: Path, *settings: str) -> None:
    code, log = run(folder, "boost", *SETTINGS, *settings)
    assert code == 0, log


def newest(folder: Path, name: str) -> Model:
    [*_, version] = sorted((folder / "lake/models" / name).iterdir())
    return artifact.read_model(str(version))


def split(folder: Path, name: str) -> pd.DataFrame:
    """Return the rows of a split in the order of its files."""
    files = sorted((folder / f"lake/features/paper/split={name}").glob("*.parquet"))
    return pd.concat([pq.ParquetFile(path).read().to_pandas() for path in files])


def matrix_of(rows: pd.DataFrame, model: Model) -> np.ndarray:
    return rows[[column_of(name) for name in model.card.features]].to_numpy(np.float32)


def reference(rows: pd.DataFrame, model: Model, weights: np.ndarray | None = None) -> xgboost.Booster:
    """Train the same trees with XGBoost alone."""
    present, labels = np.unique(rows[f"label{model.card.classes}"], return_inverse=True)
    objective = {"objective": "multi:softprob", "num_class": len(present)}
    parameters = {"tree_method": "hist", "max_depth": 3, "max_bin": 32, "subsample": 0.8, "colsample_bytree": 0.6}
    parameters |= {"learning_rate": 0.1, "seed": 7, "nthread": 2, "verbosity": 0}
    parameters |= {"objective": "binary:logistic"} if len(present) == 2 else objective
    data = xgboost.QuantileDMatrix(matrix_of(rows, model), labels, weight=weights, max_bin=32)
    return xgboost.train(parameters, data, 3)


def trees_of(content: bytes | bytearray) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(content)["learner"]["gradient_booster"]["model"]["trees"]
    return found


@pytest.fixture(scope="module")
def whole(features: Path) -> Path:
    sign = f"train.sign_key={key_pair(features / 'keys').private}"
    boost(features, "train.classes=[2,6,19]", "train.feature_sets=[paper,operational]", sign)
    return features


@pytest.mark.parametrize(("classes", "feature_set"), [(19, "paper"), (6, "operational"), (2, "paper")])
def test_trees_are_those_of_xgboost_on_the_same_rows(whole: Path, classes: int, feature_set: str) -> None:
    model, rows = newest(whole, f"xgboost-{classes}-{feature_set}"), split(whole, "train")
    expected = reference(rows, model)
    assert model.booster is not None
    assert trees_of(model.booster) == trees_of(expected.save_raw("json"))
    present = np.unique(rows[f"label{classes}"])
    test = matrix_of(split(whole, "test"), model)
    found = inference.forward(model, test, 100)
    of_present = expected.inplace_predict(test)
    of_present = np.stack([1 - of_present, of_present], axis=1) if classes == 2 else of_present
    np.testing.assert_allclose(found[:, present], of_present, atol=1e-6)
    absent = [i for i in range(classes) if i not in present]
    assert model.card.classes_absent_in_train == tuple(CLASSES[classes][i] for i in absent)
    assert (found[:, absent] == 0).all()
    assert model.card.training["train_rows"] == len(rows)


def test_validation_scores_and_detector_are_of_the_same_rows(whole: Path) -> None:
    model, rows = newest(whole, "xgboost-6-paper"), split(whole, "validation")
    matrix, labels = matrix_of(rows, model), rows["label6"].to_numpy()
    probabilities = inference.forward(model, matrix, 1_000).astype(np.float64)
    logits = np.log(probabilities[:, 1:].sum(axis=1)) - np.log(probabilities[:, 0])
    scores, benign = model.validation_scores, labels == 0
    assert scores is not None
    assert (scores.benign_rows, scores.attack_rows) == (benign.sum(), (~benign).sum())
    np.testing.assert_allclose(scores.benign_tail, np.sort(logits[benign])[::-1], atol=1e-4)
    assert scores.class_mix == tuple(np.bincount(probabilities[benign].argmax(axis=1), minlength=6))
    np.testing.assert_allclose(scores.baseline, np.median(matrix[benign], axis=0), atol=1e-6)
    for each in scores.attack_classes:
        np.testing.assert_allclose(each.scores, np.sort(logits[labels == each.class_id]), atol=1e-4)
    train = split(whole, "train")
    of_train = matrix_of(train[train["label2"] == 0], model)
    assert model.novelty is not None
    assert model.novelty.rows == benign.sum()
    np.testing.assert_allclose(model.novelty.centre, of_train.mean(axis=0), rtol=1e-4, atol=1e-5)


def test_local_rows_have_weights_and_are_the_benign_rows_of_the_validation_scores(
    features: Path, tmp_path: Path
) -> None:
    folder = with_local_rows(features, tmp_path / "local")
    boost(folder, "train.classes=[2]", "train.local_weight=4")
    model, rows = newest(folder, "xgboost-2-paper"), split(folder, "train")
    local = rows["local"].to_numpy()
    weights = np.where(local > 0, 1 / np.sqrt(np.maximum(local, 1)), 0)
    weights *= 4 * (local > 0).sum() / weights.sum()
    weights[local == 0] = 1
    expected = reference(rows, model, (weights / weights.mean()).astype(np.float32))
    held_out = split(folder, "validation")
    matrix = matrix_of(held_out, model)
    np.testing.assert_allclose(inference.forward(model, matrix, 500)[:, 1], expected.inplace_predict(matrix), atol=1e-5)
    assert model.card.local is not None
    assert model.card.local["weight"] == 4
    scores = model.validation_scores
    assert scores is not None
    assert scores.local == threshold.LocalOrigin(("2026-11-03", "2026-11-05"), "date")
    assert scores.benign_rows == (held_out["local"] > 0).sum()


def test_several_workers_train_equal_trees_from_the_rows_of_all_in_every_run(features: Path) -> None:
    found = []
    for variant in ("one", "other"):
        boost(
            *(features, "train.classes=[6]", f"train.variant={variant}", "boost.subsample=1"),
            *("boost.workers=2", "boost.open_network=true"),
        )
        found.append(newest(features, f"xgboost-{variant}-6-paper"))
    one, other = found
    assert one.booster is not None
    assert one.booster == other.booster
    assert one.card.training["workers"] == 2
    counts = np.bincount(split(features, "train")["label6"], minlength=6)
    n, shares = counts.sum(), counts[counts > 0] / counts.sum()
    for tree, share in zip(trees_of(one.booster), shares, strict=False):  # of the first round, from the class shares
        assert tree["sum_hessian"][0] == pytest.approx(2 * n * share * (1 - share), rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("boost.workers=2",), "boost.open_network=true"),
        (("features.recipe=none",), "features/none"),
        (("boost.rounds=0",), "boost.rounds"),
        (("boost.workers=2", "boost.open_network=true", "features.recipe=small"), "row groups for 2 ranks or workers"),
        (("features.recipe=benign",), "rows of one of 6 classes"),
    ],
)
def test_refusals(features: Path, settings: tuple[str, ...], message: str) -> None:
    table = features / "lake/features/paper"
    content = json.loads((table / "_table.json").read_text())
    only_benign = {"classes_absent_in_train": list(CLASSES[19][1:])}
    for recipe, changed in (("small", {"row_groups": {"train": 1, "validation": 1}}), ("benign", only_benign)):
        folder = table.with_name(recipe)
        if not folder.exists():
            folder.mkdir()
            (folder / "_preprocessor.json").write_bytes((table / "_preprocessor.json").read_bytes())
            (folder / "_table.json").write_text(json.dumps(content | changed))
    code, log = run(features, "boost", *SETTINGS, "train.classes=[6]", "train.variant=refused", *settings)
    assert code == 2, log
    assert message in log
    assert not (features / "lake/models/xgboost-refused-6-paper").exists()


def test_models_are_signed(whole: Path) -> None:
    [version] = (whole / "lake/models/xgboost-2-paper").iterdir()
    trust = open_trust(Lake(str(whole / "lake")), [str(whole / "keys/key.pub")])
    registry.read_version(str(version.parents[1]), version.parent.name, version.name, trust)  # raises if not signed


def test_a_killed_worker_leaves_no_model_and_one_alone_accepts_no_connection(
    features: Path, spark: SparkSession
) -> None:
    listening, ended = [], threading.Event()

    def kill() -> None:  # also workers that are idle since another test
        while not ended.wait(0.5):
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if any("libxgboost" in each.path for each in process.memory_maps()):
                        sockets = process.net_connections()
                        listening.extend(each.laddr for each in sockets if each.status == psutil.CONN_LISTEN)
                        process.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    code, log = run(features, "boost", "boost.rounds=10000", "train.classes=[19]", "train.variant=killed")
    ended.set()
    thread.join()
    forget_dead_workers(spark)
    assert code == 1, log
    assert "jobs/boost.py again" in log
    assert "Traceback" not in log
    assert not (features / "lake/models/xgboost-killed-19-paper").exists()
    assert listening == []


@pytest.fixture(scope="module")
def network(whole: Path) -> Model:
    """A network with random weights beside the trees of 6 classes."""
    trees, hyperparameters = newest(whole, "xgboost-6-paper"), ModelConfig(dense=(8,)).model_dump(mode="json")
    of_keras = architectures.build("dnn", len(trees.card.features), 6, hyperparameters)
    card = replace(trees.card, name="dnn-6-paper", architecture="dnn", hyperparameters=hyperparameters, training={})
    uri = whole / "lake/models/dnn-6-paper" / card.version
    artifact.write_model(str(uri), card, of_keras.get_weights(), trees.preprocessor, None, trees.novelty)
    return artifact.read_model(str(uri))


def test_a_blend_has_the_share_with_the_lowest_cross_entropy_and_scores_of_its_own(whole: Path, network: Model) -> None:
    code, log = run(whole, "blend", "train.classes=[6]", "blend.share=validation")
    assert code == 0, log
    trees, blend, rows = newest(whole, "xgboost-6-paper"), newest(whole, "blend-6-paper"), split(whole, "validation")
    matrix, labels = matrix_of(rows, blend), rows["label6"].to_numpy()
    own, other = (inference.forward(model, matrix, 1_000).astype(np.float64) for model in (network, trees))
    mixed = {share / 10: share / 10 * own + (1 - share / 10) * other for share in range(1, 10)}
    costs = {share: -np.log(p[np.arange(len(p)), labels]).mean() for share, p in mixed.items()}
    share = blend.card.hyperparameters["share"]
    assert share == min(costs, key=lambda each: costs[each])
    np.testing.assert_allclose(
        list(blend.card.training["validation_loss_of_shares"].values()), list(costs.values()), rtol=1e-5
    )
    scores, p = blend.validation_scores, mixed[share]
    assert scores is not None
    logits = (np.log(p[:, 1:].sum(axis=1)) - np.log(p[:, 0]))[labels == 0]
    np.testing.assert_allclose(scores.benign_tail, np.sort(logits)[::-1], atol=1e-4)
    assert blend.novelty is not None
    np.testing.assert_array_equal(blend.weights[0], network.weights[0])
    assert (blend.booster, blend.card.training["trees"]) == (trees.booster, f"{trees.card.name}/{trees.card.version}")


def test_models_that_are_no_blend_are_refused(whole: Path, network: Model) -> None:
    path = whole / "lake/models/dnn-6-paper/another"
    first = replace(network.preprocessor.features[0], mean=7.5)
    other = replace(network.preprocessor, features=(first, *network.preprocessor.features[1:]))
    artifact.write_model(str(path), replace(network.card, version="another"), network.weights, other)
    for settings, fault in (
        (("train.classes=[6]", "blend.network=xgboost"), "is of kind xgboost"),
        (("train.classes=[6]", "blend.network_version=another"), "was not trained on the present rows"),
        (("train.classes=[2]",), "no model 'dnn-2-paper'"),
    ):
        code, log = run(whole, "blend", *settings)
        assert (code, fault in log) == (2, True), log
