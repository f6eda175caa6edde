"""Training on real Horovod ranks: interrupted and resumed, killed, diverged, and whatever the number of ranks."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import write_synthetic_source
from submitting import prepare, start, submit

SETTINGS = (
    "train.models=[gru_dnn]",
    "train.classes=[6]",
    "train.batch_size=32",
    "train.learning_rate=1e-3",
    "train.patience=50",
    "train.steps_per_execution=4",
    "train.gru_dnn.bins=4",
    "features.transform=signed_log",
)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package and a lake that holds features."""
    folder = prepare(tmp_path_factory.mktemp("features"))
    write_synthetic_source(folder / "source", rows=200)
    for job in ("ingest", "features"):
        code, output = submit(folder, job, *SETTINGS, "ingest.source=source")
        assert code == 0, output
    return folder


def training_of(folder: Path) -> tuple[dict[str, object], list[np.ndarray]]:
    """Return how the newest model was trained, and its weights."""
    model = max((folder / "lake/models/gru_dnn-6-paper").iterdir())
    packed = np.load(model / "weights.npz", allow_pickle=False)
    return json.loads((model / "model.json").read_text())["training"], [packed[k] for k in sorted(packed.files)]


def curve(training: dict[str, object]) -> list[list[float]]:
    names = ("loss", "validation_loss", "validation_accuracy")
    return [[epoch[name] for name in names] for epoch in training["history"]]


@pytest.fixture(scope="module")
def whole(features: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], list[np.ndarray]]:
    """Six epochs in one go on two ranks."""
    folder = tmp_path_factory.mktemp("whole") / "copy"
    shutil.copytree(features, folder)
    code, output = submit(folder, "train", *SETTINGS, "train.epochs=6")
    assert code == 0, output
    return training_of(folder)


def wait_for_epoch(folder: Path, epoch: int, process: object) -> None:
    """Wait until the checkpoint of an epoch stands."""
    path = folder / "lake/checkpoints/gru_dnn-6-paper.npz"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        try:
            state = json.loads(np.load(path, allow_pickle=False)["state"].tobytes())
            if len(state["history"]) >= epoch:
                return
        except (OSError, ValueError, KeyError):
            pass
        time.sleep(0.02)
    raise AssertionError(f"no checkpoint of epoch {epoch} within 120 s")


def test_a_killed_rank_stops_the_job_soon_and_the_resumed_run_has_the_same_curve(
    features: Path, whole: tuple[dict[str, object], list[np.ndarray]], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(features, folder)
    process = start(folder, "train", *SETTINGS, "train.epochs=6")
    wait_for_epoch(folder, 2, process)
    own = psutil.Process(process.pid).children(recursive=True)
    ranks = [p for p in own if p.status() != psutil.STATUS_ZOMBIE and "gloo_exec_fn" in " ".join(p.cmdline())]
    killed = time.monotonic()
    os.kill(ranks[-1].pid, signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert time.monotonic() - killed < 60
    assert process.returncode == 1
    assert "a rank that trained gru_dnn-6-paper ended too early" in output
    assert "--set train.resume=true" in output
    assert not (folder / "lake/models").exists()

    code, output = submit(folder, "train", *SETTINGS, "train.epochs=6", "train.resume=true")
    assert code == 0, output
    assert "gru_dnn-6-paper goes on after epoch" in output
    training, weights = training_of(folder)
    np.testing.assert_allclose(curve(training), curve(whole[0]), rtol=1e-5)
    for a, b in zip(weights, whole[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)

    code, output = submit(folder, "train", *SETTINGS, "train.epochs=6", "train.resume=true", "seed=8")
    assert code == 2
    assert "belongs to a run with other settings, features or seed" in output


def test_one_rank_trains_the_same_model_up_to_noise(
    features: Path, whole: tuple[dict[str, object], list[np.ndarray]], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(features, folder)
    code, output = submit(folder, "train", *SETTINGS, "train.epochs=6", "train.ranks=1")
    assert code == 0, output
    one, two = curve(training_of(folder)[0]), curve(whole[0])
    assert training_of(folder)[0]["ranks"] == 1
    np.testing.assert_allclose(np.array(one)[-1, 1], np.array(two)[-1, 1], rtol=0.1)


def test_a_loss_that_is_no_number_names_epoch_and_learning_rate(features: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(features, folder)
    code, output = submit(folder, "train", *SETTINGS, "train.epochs=3", "train.learning_rate=1e38")
    assert code == 2, output
    assert "training of gru_dnn-6-paper diverged in epoch 1" in output
    assert "learning rate 1e+38; set train.learning_rate lower" in output
    assert not (folder / "lake/models").exists()
