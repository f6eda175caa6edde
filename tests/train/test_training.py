"""Training on real Horovod ranks: interrupted and resumed, killed, diverged, and with any number of ranks."""

import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import horovod.tensorflow as hvd
import numpy as np
import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from sklearn.covariance import LedoitWolf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from ids_spark.config.train import TrainConfig
from ids_spark.dataset.features import column_of
from ids_spark.lake.store import Lake
from ids_spark.models import architectures, artifact, registry
from ids_spark.models.artifact import Model, ModelUnusable
from ids_spark.models.signatures import open_trust
from ids_spark.train import checkpoint, validation, worker
from ids_spark.train.checkpoint import CheckpointUnusable, TrainingState
from ids_spark.train.horovod_ranks import HorovodRanks
from ids_spark.train.launch import resumed
from ids_spark.train.steps import TrainSteps
from ids_spark.train.tasks import FeatureTable, OtherModel, TrainingTask, card_of, open_features
from ids_spark.train.training import train_models
from tests.support.flows import write_synthetic_source
from tests.support.in_process import run
from tests.support.keys import key_pair
from tests.support.local_features import with_local_rows
from tests.support.modes import open_to_others
from tests.support.submitting import prepare, start, submit

SETTINGS = (
    "train.models=[gru_dnn]",
    "train.classes=[6]",
    "train.batch_size=32",
    "train.learning_rate=1e-3",
    "train.patience=50",
    "train.steps_per_execution=4",
    "train.gru_dnn.bins=4",
    "features.transform=signed_log",
    "features.blocked_share=0.2",
    "features.block_rows=10",
)


@pytest.fixture(scope="module")
def features(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package and a lake that holds features."""
    folder = prepare(tmp_path_factory.mktemp("features"))
    write_synthetic_source(folder / "source", rows=200)
    for job in ("ingest", "features"):
        code, output = run(folder, job, *SETTINGS, f"ingest.source={folder}/source")
        assert code == 0, output
    return folder


def newest(folder: Path) -> Path:
    return max((folder / "lake/models/gru_dnn-6-paper").iterdir())


def training_of(folder: Path) -> tuple[dict[str, object], list[np.ndarray]]:
    """Return how the newest model was trained, and its weights."""
    model = newest(folder)
    packed = np.load(model / "weights.npz", allow_pickle=False)
    return json.loads((model / "model.json").read_text())["training"], [packed[k] for k in sorted(packed.files)]


def curve(training: dict[str, object]) -> list[list[float]]:
    names = ("loss", "validation_loss", "validation_accuracy")
    return [[epoch[name] for name in names] for epoch in training["history"]]


@pytest.fixture(scope="module")
def whole_run(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of six uninterrupted epochs on two ranks."""
    folder = tmp_path_factory.mktemp("whole") / "copy"
    shutil.copytree(features, folder)
    sign = f"train.sign_key={key_pair(folder / 'keys').private}"
    code, output = run(folder, "train", *SETTINGS, "train.epochs=6", "train.tensorboard=true", sign)
    assert code == 0, output
    for epoch in range(1, 7):
        assert output.count(f"gru_dnn-6-paper epoch {epoch}/6 loss=") == 1
    return folder


def test_no_file_of_driver_tasks_and_ranks_is_for_other_users(whole_run: Path) -> None:
    assert {path.name for path in (whole_run / "lake").iterdir()} >= {"flows", "features", "checkpoints", "tensorboard"}
    assert not open_to_others(whole_run / "lake")


@pytest.fixture(scope="module")
def whole(whole_run: Path) -> tuple[dict[str, object], list[np.ndarray]]:
    """The training entry of those six epochs, and the weights."""
    return training_of(whole_run)


def agrees_with_its_rows(folder: Path) -> Model:
    """Check the newest model's validation scores against an independent computation; returns the model."""
    model = artifact.read_model(str(newest(folder)))
    held_out = pd.read_parquet(folder / "lake/features/paper/split=validation")
    x = held_out[[column_of(name) for name in model.card.features]].to_numpy(np.float32)
    keras_model = architectures.build("gru_dnn", x.shape[1], 6, model.card.hyperparameters)
    keras_model.set_weights(model.weights)
    p = keras_model(x).numpy().astype(np.float64)
    benign = (held_out["label6"] == 0).to_numpy()
    logits = np.log(p[:, 1:].sum(axis=1)) - np.log(p[:, 0])

    found = model.validation_scores
    assert found is not None
    assert 0 < benign.sum() < 2_000  # so that the stored tail holds all of them
    assert (found.benign_rows, found.attack_rows) == (benign.sum(), (~benign).sum())
    assert found.class_mix == tuple((p[benign].argmax(axis=1) == i).sum() for i in range(6))
    np.testing.assert_allclose(found.benign_tail, np.sort(logits[benign])[::-1], rtol=1e-4, atol=1e-4)
    order = np.argsort(-logits[benign])
    attack_ids = p[benign][order, 1:].argmax(axis=1) + 1
    assert (np.array(found.benign_tail_classes) == attack_ids).mean() > 0.999  # but for equal scores
    ranges = {each.class_id: (each.rows, each.scores) for each in found.attack_classes}
    labels = held_out["label6"].to_numpy()
    assert set(ranges) == set(labels) - {0}
    blocks = held_out["block"].to_numpy()
    ids, sizes = np.unique(blocks[~np.isnan(blocks)], return_counts=True)
    assert len(ids) >= 2
    assert [block.rows for block in found.blocks] == sizes.tolist()
    for block, i in zip(found.blocks, ids, strict=True):
        np.testing.assert_allclose(block.highest, np.sort(logits[blocks == i])[::-1], rtol=1e-4, atol=1e-4)
    for class_id in set(labels):
        own = logits[labels == class_id]
        rows, scores = ranges.get(class_id, (len(own), found.benign_quantiles))
        assert rows == len(own)
        np.testing.assert_allclose((scores[0], scores[-1]), (own.min(), own.max()), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.baseline, np.median(x[benign], axis=0), atol=1e-6)
    agrees_with_its_benign_rows(model, folder, x[benign], logits[benign])
    return model


def agrees_with_its_benign_rows(model: Model, folder: Path, held_out: np.ndarray, logits: np.ndarray) -> None:
    """Check the newest model's second detector: it is fitted on benign train rows, its tail is of validation rows."""
    train = pd.read_parquet(folder / "lake/features/paper/split=train")
    columns = [column_of(name) for name in model.card.features]
    benign = train.loc[train["label6"] == 0, columns].to_numpy(np.float64)
    found = model.novelty
    assert found is not None
    assert len(benign) < 50_000  # so that it is fitted on all of them
    np.testing.assert_allclose(found.centre, benign.mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.scale, benign.std(axis=0) + 1e-3, rtol=1e-4)
    scaled = np.clip((np.concatenate([benign, held_out]) - benign.mean(axis=0)) / (benign.std(axis=0) + 1e-3), -30, 30)
    lw = LedoitWolf().fit(scaled[: len(benign)])
    inverse = np.linalg.inv(lw.covariance_ + 1e-3 * np.eye(len(columns)))
    distances = np.sqrt(np.einsum("ij,jk,ik->i", scaled[len(benign) :], inverse, scaled[len(benign) :]))
    below = logits < model.validation_scores.operating_point().logit
    assert 0 < below.sum() < len(logits)
    assert found.rows == len(held_out)
    np.testing.assert_allclose(found.tail, np.sort(distances[below])[::-1], rtol=1e-3, atol=1e-3)


def test_the_validation_scores_are_those_of_the_stored_weights_over_all_validation_rows(whole_run: Path) -> None:
    agrees_with_its_rows(whole_run)


def table_without_blocks(folder: Path, target: Path) -> FeatureTable:
    """Copy a feature table as version 0.2 wrote it."""
    shutil.copytree(folder / "lake/features", target / "lake/features")
    for path in (target / "lake/features").rglob("*.parquet"):
        pq.write_table(pq.ParquetFile(path).read().drop_columns(["block"]), path)
    facts = target / "lake/features/paper/_table.json"
    content = json.loads(facts.read_text())
    del content["blocked_rows"]
    facts.write_text(json.dumps(content))
    return open_features(Lake(str(target / "lake")), "paper", 1)


def test_one_rank_scores_the_validation_rows_as_two_ranks_did(whole_run: Path, tmp_path: Path) -> None:
    model = artifact.read_model(str(newest(whole_run)))
    assert model.card.training["ranks"] == 2
    hvd.init()
    assert hvd.size() == 1
    table = open_features(Lake(str(whole_run / "lake")), "paper", 1)
    config = TrainConfig(ranks=1)
    task = TrainingTask(table, "", str(tmp_path / "none.npz"), "", model.card, config, 7)
    fresh = architectures.build("gru_dnn", len(task.columns), 6, model.card.hyperparameters)
    steps = TrainSteps(HorovodRanks(), fresh, config, 6, 1, task.steps_per_epoch, 7)
    state = TrainingState(steps.weights(), [], model.weights)
    one, detector = worker.score_validation_rows(
        HorovodRanks(), task, steps, state, worker.fit_novelty(HorovodRanks(), task)
    )
    assert worker.score_validation_rows(HorovodRanks(), task, steps, state, None) == (one, None)
    two = model.validation_scores
    assert (one.benign_rows, one.attack_rows, one.class_mix) == (two.benign_rows, two.attack_rows, two.class_mix)
    for name in ("benign_tail", "benign_quantiles"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-4, atol=1e-4)
    for a, b in zip(one.attack_classes, two.attack_classes, strict=True):
        assert (a.class_id, a.rows) == (b.class_id, b.rows)
        np.testing.assert_allclose(a.scores, b.scores, rtol=1e-4, atol=1e-4)
    assert one.baseline == two.baseline
    assert detector.rows == model.novelty.rows
    np.testing.assert_allclose(detector.centre, model.novelty.centre, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(detector.tail, model.novelty.tail, rtol=1e-3)
    for a, b in zip(fresh.get_weights(), model.weights, strict=True):
        np.testing.assert_array_equal(a, b)  # the best weights, not the last ones

    older = dataclasses.replace(task, table=table_without_blocks(whole_run, tmp_path))
    assert worker.score_validation_rows(HorovodRanks(), older, steps, state, None)[0] == dataclasses.replace(
        one, blocks=()
    )


@pytest.fixture(scope="module")
def local_run(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two epochs on two ranks with local rows that weigh four times as much."""
    folder = with_local_rows(features, tmp_path_factory.mktemp("local") / "copy")
    code, output = run(folder, "train", *SETTINGS, "train.epochs=2", "train.local_weight=4")
    assert code == 0, output
    return folder


def test_with_local_rows_the_benign_validation_scores_are_of_the_held_out_ones_alone(local_run: Path) -> None:
    model = artifact.read_model(str(newest(local_run)))
    held_out = pd.read_parquet(local_run / "lake/features/paper/split=validation")
    local, attack = held_out["local"] > 0, held_out["label6"] > 0
    x = held_out[[column_of(name) for name in model.card.features]].to_numpy(np.float32)
    network = architectures.build("gru_dnn", x.shape[1], 6, model.card.hyperparameters)
    network.set_weights(model.weights)
    p = network(x).numpy().astype(np.float64)
    logits = np.log(p[:, 1:].sum(axis=1)) - np.log(p[:, 0])

    found = model.validation_scores
    assert 0 < local.sum() < (~attack).sum()
    assert (found.benign_rows, found.attack_rows) == (local.sum(), attack.sum())
    np.testing.assert_allclose(found.benign_tail, np.sort(logits[local])[::-1], rtol=1e-4, atol=1e-4)
    assert found.class_mix == tuple((p[local].argmax(axis=1) == i).sum() for i in range(6))
    np.testing.assert_allclose(found.baseline, np.median(x[local], axis=0), atol=1e-6)
    assert {each.class_id: each.rows for each in found.attack_classes} == dict(
        held_out["label6"][attack].value_counts()
    )
    sizes = held_out["block"][local].value_counts().sort_index()
    assert [block.rows for block in found.blocks] == sizes.tolist()

    level = np.quantile(logits[local], 0.8)
    for counts, i in zip(found.block_counts([level, 99.0]), sizes.index, strict=True):
        own = local & (held_out["block"] == i) & (logits >= level)
        attack_ids = p[own][:, 1:].argmax(axis=1) + 1
        assert counts.tolist() == [[(attack_ids == class_id).sum(), 0] for class_id in range(6)]
    assert found.local.dates == ("2026-11-03", "2026-11-05")
    statement = found.operating_point().statement()
    assert f"rests on {local.sum()} local benign flows of 2026-11-03 to 2026-11-05, in {len(sizes)} blocks" in statement
    assert model.novelty.rows == local.sum()
    at = model.novelty.levels((1e-2, 2e-3, 8e-4))
    assert np.sum([block.unknown for block in found.blocks], axis=0).tolist() == model.novelty.counts(at).tolist()


def test_the_card_states_the_local_rows_and_the_loss_weighs_them(local_run: Path) -> None:
    model = artifact.read_model(str(newest(local_run)))
    table = local_run / "lake/features/paper"
    facts = json.loads((table / "_table.json").read_text())["local"]
    assert model.card.local == {**facts, "weight": 4}
    task = TrainingTask(
        open_features(Lake(str(local_run / "lake")), "paper", 1), "", "", "", model.card, TrainConfig(), 7
    )
    weighted = dataclasses.replace(task, config=TrainConfig(local_weight=4))
    train, validation = (pd.read_parquet(table / f"split={split}") for split in ("train", "validation"))
    assert facts["train_rows"] == (train["local"] > 0).sum()
    of_data_set, of_local = weighted.row_weights
    relative = {n: n**-0.5 for n in train["local"].unique() if n}  # a row of a large group weighs less
    assert len(relative) == 3
    mean = np.mean([relative[n] for n in train["local"] if n])
    weights = {0: 1.0} | {n: 4 * each / mean for n, each in relative.items()}
    assert of_local / of_data_set == pytest.approx(4 / mean)
    assert train["local"].map(weights).mean() * of_data_set == pytest.approx(1)

    columns = [column_of(name) for name in model.card.features]
    network = architectures.build("gru_dnn", len(columns), 6, model.card.hyperparameters)
    network.set_weights(model.weights)
    p = network(validation[columns].to_numpy(np.float32)).numpy()
    losses = -np.log(p[np.arange(len(p)), validation["label6"]])
    expected = np.average(losses, weights=validation["local"].map(weights))
    assert model.card.training["best_validation_loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("rows", "local", "weight"),
    [(45_000, 1_000, 4.4), (8_000_000, 1_000_000, 0.7), (1_044_000, 1_000_000, 0.0044), (45_000, 100, 10), (9, 0, 1)],
)
def test_by_default_local_rows_weigh_a_tenth_of_the_data_set(
    features: Path, rows: int, local: int, weight: float
) -> None:
    table = open_features(Lake(str(features / "lake")), "paper", 2)
    assert table.local is None
    table = dataclasses.replace(
        table, rows={"train": rows, "validation": 9}, local={"train_rows": local, "balance": local / 2}
    )
    card = card_of(table, TrainConfig(), "dnn", 6, "paper", "v")
    assert card.local["weight"] == pytest.approx(weight)
    task = TrainingTask(table, "", "", "", card, TrainConfig(), 7)
    if local:
        of_data_set, of_local = task.row_weights
        assert (of_data_set * (rows - local) + of_local * local / 2) / rows == pytest.approx(1)
        assert of_local * local / 2 <= 0.1001 * of_data_set * (rows - local)
    else:
        assert task.row_weights is None


def test_the_second_detector_learns_local_rows_and_as_many_of_the_data_set(
    local_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hvd.init()
    card = artifact.read_model(str(newest(local_run))).card
    table = open_features(Lake(str(local_run / "lake")), "paper", 1)
    task = TrainingTask(table, "", "", "", card, TrainConfig(ranks=1), 7)
    train = pd.read_parquet(local_run / "lake/features/paper/split=train")
    benign = train[train["label2"] == 0]
    columns = [column_of(name) for name in card.features]
    means = {i: benign.loc[(benign["local"] > 0) == i, columns].mean().to_numpy() for i in (0, 1)}
    rows = (benign["local"] > 0).value_counts()
    every = worker.fit_novelty(HorovodRanks(), task)  # fewer rows than are always kept
    np.testing.assert_allclose(every.centre, benign[columns].mean().to_numpy(), rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(validation, "_LAB_ROWS", 0)
    assert rows[False] > 1.5 * rows[True]
    balanced = worker.fit_novelty(HorovodRanks(), task)
    assert not np.allclose(balanced.centre, every.centre, rtol=1e-3)
    towards = (balanced.centre - every.centre) @ (means[1] - means[0])
    assert towards > 0  # local rows weigh more than their share


def test_a_run_may_start_from_the_weights_of_another_model(
    spark: SparkSession, whole_run: Path, local_run: Path, tmp_path: Path
) -> None:
    table = open_features(Lake(str(local_run / "lake")), "paper", 2)
    settings = {"models": ["gru_dnn"], "classes": [6], "batch_size": 32, "gru_dnn": {"bins": 4}, "epochs": 1}
    config = TrainConfig.model_validate(settings | {"learning_rate": 1e-12})  # so that the weights stay
    champion = artifact.read_model(str(newest(whole_run)))
    lake = Lake(str(tmp_path))
    arguments = (spark.sparkContext, lake, lake.uri, table)
    initial = str(newest(whole_run)), champion.sha256
    [path] = train_models(*arguments, config, 8, "20261128T000000Z-ab", *initial).tables
    found = artifact.read_model(lake.uri(path))
    assert found.card.training["initial"] == f"{champion.card.name}/{champion.card.version}"
    fresh = architectures.build("gru_dnn", len(champion.card.features), 6, champion.card.hyperparameters)
    for variable, a, b in zip(fresh.weights, found.weights, champion.weights, strict=True):
        if "moving" not in variable.name:  # moments of the batches seen
            np.testing.assert_allclose(a, b, atol=1e-6)
    other = config.model_copy(update={"classes": (19,)})
    with pytest.raises(OtherModel, match="found classes 6; expected 19"):
        train_models(*arguments, other, 8, "20261128T000001Z-ab", str(newest(whole_run)))
    with pytest.raises(ModelUnusable, match="was changed while it was in use"):
        train_models(*arguments, config, 8, "20261128T000002Z-ab", str(newest(whole_run)), "0" * 64)


def test_a_training_run_signs_what_its_rank_has_written(whole_run: Path) -> None:
    public = whole_run / "keys/key.pub"
    trust = open_trust(Lake(str(whole_run / "lake")), [str(public)])
    version = newest(whole_run)
    registry.read_version(str(version.parents[1]), version.parent.name, version.name, trust)  # raises if not signed


def test_without_horovod_a_run_has_the_weights_of_a_run_with_it(
    features: Path, whole: tuple[dict[str, object], list[np.ndarray]], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(features, folder)
    settings = (*SETTINGS, "train.epochs=6", "train.all_reduce=xgboost")
    code, output = run(folder, "train", *settings)
    assert code == 2
    assert "train.all_reduce is xgboost and train.ranks 2: XGBoost neither authenticates nor encrypts" in output
    assert "--set train.open_network=true" in output
    code, output = run(folder, "train", *settings, "train.open_network=true")
    assert code == 0, output
    assert output.count("gru_dnn-6-paper epoch 6/6 loss=") == 1
    training, weights = training_of(folder)
    assert (training["all_reduce"], whole[0]["all_reduce"]) == ("xgboost", "horovod")
    assert curve(training) == curve(whole[0])
    for a, b in zip(weights, whole[1], strict=True):
        np.testing.assert_array_equal(a, b)
    agrees_with_its_rows(folder)


def test_tensorboard_reads_back_the_history(whole_run: Path) -> None:
    model = newest(whole_run)
    folder = whole_run / "lake/tensorboard/gru_dnn-6-paper" / model.name
    assert len(list(folder.glob("*tfevents*"))) == 6
    events, history = EventAccumulator(str(folder)).Reload(), training_of(whole_run)[0]["history"]
    assert set(events.Tags()["tensors"]) == set(history[0])
    for name in history[0]:
        found = {event.step: make_ndarray(event.tensor_proto).item() for event in events.Tensors(name)}
        assert sorted(found) == [1, 2, 3, 4, 5, 6]
        np.testing.assert_allclose([found[e["epoch"]] for e in history], [e[name] for e in history], rtol=1e-6)


def test_a_run_may_resume_with_or_without_tensorboard(features: Path) -> None:
    table = open_features(Lake(str(features / "lake")), "paper", 2)
    fingerprints = set()
    for tensorboard in (False, True):
        config = TrainConfig(tensorboard=tensorboard)
        card = card_of(table, config, "dnn", 6, "paper", "v")
        fingerprints.add(TrainingTask(table, "", "", "folder" if tensorboard else "", card, config, 7).fingerprint)
    assert len(fingerprints) == 1
    for hyperparameters in ({"ensemble_size": 2}, {"bins": 4, "embedding": 2}):
        config = TrainConfig.model_validate({"dnn": hyperparameters})
        card = card_of(table, config, "dnn", 6, "paper", "v")
        fingerprints.add(TrainingTask(table, "", "", "", card, config, 7).fingerprint)
    assert len(fingerprints) == 3  # but not with another ensemble size or an embedding


def test_a_model_that_the_interrupted_job_had_not_started_is_trained_from_the_beginning(
    features: Path, tmp_path: Path
) -> None:
    table = open_features(Lake(str(features / "lake")), "paper", 2)
    config = TrainConfig(resume=True)
    cards = [card_of(table, config, "dnn", classes, "paper", "v") for classes in (2, 6, 19)]
    reached, earlier, none = (
        TrainingTask(table, "", str(tmp_path / f"{card.name}.npz"), "", card, config, 7) for card in cards
    )
    stood = TrainingState([np.ones(1)], [], [np.ones(1)], 0.5, 1, history=[{"epoch": 1}])
    checkpoint.write_checkpoint(earlier.checkpoint, stood, "of another run")
    with pytest.raises(CheckpointUnusable, match=r"dnn-6-paper\.npz is of a run with other settings"):
        resumed([reached, earlier, none])
    checkpoint.write_checkpoint(reached.checkpoint, stood, reached.fingerprint)
    assert [task.config.resume for task in resumed([reached, earlier, none])] == [True, False, False]
    assert resumed([none, none])[0].config.resume is False
    own = none.config.model_copy(update={"ranks": 1})  # each architecture has its own with train.ranks=auto
    assert [task.config.ranks for task in resumed([reached, dataclasses.replace(none, config=own)])] == [2, 1]


def wait_for_epoch(folder: Path, epoch: int, process: object) -> None:
    """Wait for the checkpoint of an epoch."""
    path = folder / "lake/checkpoints/gru_dnn-6-paper.npz"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None
        try:
            state = json.loads(np.load(path, allow_pickle=False)["state"].tobytes())
            if len(state["history"]) >= epoch:
                return
        except (OSError, ValueError, KeyError):
            pass
        time.sleep(0.02)
    raise AssertionError(f"no checkpoint of epoch {epoch} within 120 s")


class Output:
    """The output of a process, line by line, while it runs."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.lines: list[str] = []
        self._process = process
        self._thread = threading.Thread(target=lambda: self.lines.extend(process.stdout), daemon=True)
        self._thread.start()

    def wait_for(self, text: str) -> None:
        """Wait for a line that holds a text; fails when the process ends before."""
        deadline = time.monotonic() + 60
        while not any(text in line for line in list(self.lines)):
            assert self._process.poll() is None, self.text()
            assert time.monotonic() < deadline, f"{text!r} was not written within 60 s"
            time.sleep(0.02)
        assert self._process.poll() is None

    def text(self) -> str:
        """Return the whole output, once the process has ended."""
        self._process.wait(timeout=120)
        self._thread.join()
        return "".join(self.lines)


@pytest.mark.slow
def test_a_killed_rank_stops_the_job_soon_and_the_resumed_run_has_the_same_curve(
    features: Path, whole: tuple[dict[str, object], list[np.ndarray]], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(features, folder)
    settings = (*SETTINGS, "train.epochs=6", "train.classes=[2,6]")  # the model of 6 after another, by the same ranks
    process = start(folder, "train", *settings)
    lines = Output(process)
    wait_for_epoch(folder, 2, process)
    own = psutil.Process(process.pid).children(recursive=True)
    ranks = [p for p in own if p.status() != psutil.STATUS_ZOMBIE and "gloo_exec_fn" in " ".join(p.cmdline())]
    os.kill(ranks[-1].pid, signal.SIGSTOP)  # no rank continues, so the lines logged now were logged during training
    lines.wait_for("gru_dnn-6-paper epoch 1/6 loss=")
    killed = time.monotonic()
    os.kill(ranks[-1].pid, signal.SIGKILL)
    output = lines.text()
    assert time.monotonic() - killed < 60
    assert process.returncode == 1
    assert "a rank that trained gru_dnn-6-paper failed or was killed" in output
    assert "--set train.resume=true" in output
    assert not (folder / "lake/models").exists()
    assert not list((folder / "lake").rglob("*.progress.json"))

    code, output = submit(folder, "train", *settings, "train.resume=true")
    assert code == 0, output
    assert "gru_dnn-2-paper resumes after epoch 6" in output
    assert "gru_dnn-2-paper epoch 1/6" not in output
    assert "gru_dnn-6-paper resumes after epoch" in output
    training, weights = training_of(folder)
    np.testing.assert_allclose(curve(training), curve(whole[0]), rtol=1e-5)
    for a, b in zip(weights, whole[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)

    code, output = submit(folder, "train", *settings, "train.resume=true", "seed=8")
    assert code == 2
    assert "is of a run with other settings, features or seed" in output


@pytest.mark.slow
def test_one_rank_trains_the_same_model_up_to_noise(
    features: Path, whole: tuple[dict[str, object], list[np.ndarray]], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(features, folder)
    code, output = run(folder, "train", *SETTINGS, "train.epochs=6", "train.ranks=auto")
    assert code == 0, output
    assert "train.ranks auto: 1 for gru_dnn" in output  # a batch is too small for two
    one, two = curve(training_of(folder)[0]), curve(whole[0])
    assert agrees_with_its_rows(folder).card.training["ranks"] == 1
    # Few rows: another seed changes it as much.
    np.testing.assert_allclose(np.array(one)[-1, 1], np.array(two)[-1, 1], rtol=0.2)


@pytest.mark.parametrize(("monitor", "min_delta", "kept"), [("loss", 0.05, 0), ("accuracy", 0.05, 1), ("last", 2.0, 2)])
def test_the_epoch_that_is_kept_is_the_best_by_what_is_monitored(monitor: str, min_delta: float, kept: int) -> None:
    measured = [(0.2, 0.8), (0.4, 0.9), (0.3, 0.7)]
    epochs = [{"epoch": i, "validation_loss": x, "validation_accuracy": y} for i, (x, y) in enumerate(measured, 1)]
    config, best, found = TrainConfig.model_validate({"monitor": monitor, "min_delta": min_delta}), math.inf, None
    for i, epoch in enumerate(epochs):
        cost = worker.monitored_cost(epoch, monitor)
        if worker.improves(cost, best, config):
            best, found = cost, i
    assert found == kept


def test_a_loss_that_is_not_a_number_names_epoch_and_learning_rate(features: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(features, folder)
    ensemble = ("train.models=[dnn]", "train.dnn.bins=4", "train.dnn.embedding=3", "train.dnn.ensemble_size=3")
    code, output = run(folder, "train", *SETTINGS, *ensemble, "train.epochs=3", "train.learning_rate=1e38")
    assert code == 2, output
    assert "training of dnn-6-paper diverged in epoch 1" in output
    assert "learning rate 1e+38; set train.learning_rate lower" in output
    assert not (folder / "lake/models").exists()
