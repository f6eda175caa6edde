import json

import numpy as np
import pytest

from ids_spark.train import checkpoint
from ids_spark.train.checkpoint import CheckpointUnusable, fingerprint
from tests.support.models import training_state


def test_a_checkpoint_is_read_as_written(tmp_path):
    uri = str(tmp_path / "checkpoints" / "dnn.npz")
    checkpoint.write_checkpoint(uri, training_state(), "this")
    checkpoint.write_checkpoint(uri, training_state(), "this")
    found, expected = checkpoint.read_checkpoint(uri, "this"), training_state()
    for name in ("weights", "optimizer", "best"):
        for a, b in zip(getattr(found, name), getattr(expected, name), strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
    assert (found.best_cost, found.best_epoch, found.history, found.seconds) == (0.25, 2, expected.history, 3.5)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["dnn.npz"]


def test_no_checkpoint_is_none_and_that_of_another_run_is_refused(tmp_path):
    uri = str(tmp_path / "dnn.npz")
    assert checkpoint.read_checkpoint(uri, "this") is None
    checkpoint.write_checkpoint(uri, training_state(), "this")
    with pytest.raises(CheckpointUnusable, match="is of a run with other settings, features or seed"):
        checkpoint.read_checkpoint(uri, "other")


@pytest.mark.parametrize(
    ("number", "version"), [(1, r"format 1 \(version 0\.1\); expected 2"), (3, "format 3; expected 2")]
)
def test_a_checkpoint_of_another_format_is_refused_with_the_version_that_wrote_it(tmp_path, number, version):
    uri = tmp_path / "dnn.npz"
    checkpoint.write_checkpoint(str(uri), training_state(), "this")
    arrays = dict(np.load(uri, allow_pickle=False))
    state = json.loads(arrays["state"].tobytes()) | {"format": number}
    np.savez(uri, **arrays | {"state": np.frombuffer(json.dumps(state).encode(), dtype=np.uint8)})
    remedy = r"resume with the version that wrote it, or train without train\.resume"
    with pytest.raises(CheckpointUnusable, match=f"{version}; {remedy}"):
        checkpoint.read_checkpoint(str(uri), "this")


@pytest.mark.parametrize("cut", [0, 10, 400])
def test_a_broken_checkpoint_is_refused(tmp_path, cut):
    uri = tmp_path / "dnn.npz"
    checkpoint.write_checkpoint(str(uri), training_state(), "this")
    uri.write_bytes(uri.read_bytes()[:cut])
    with pytest.raises(CheckpointUnusable, match=r"is not a checkpoint .* train without train\.resume"):
        checkpoint.read_checkpoint(str(uri), "this")


@pytest.mark.parametrize(
    "change",
    [
        {"best_cost": "0.25"},
        {"best_cost": None},
        {"best_epoch": 1.0},
        {"best_epoch": 3},
        {"history": {}},
        {"history": [{"epoch": 1}]},
        {"history": [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": "0.25"}]},
        {"history": [1, 2]},
        {"seconds": [3.5]},
        {"fingerprint": None, "format": [2]},
    ],
)
def test_facts_of_another_type_are_refused(tmp_path, change):
    uri = tmp_path / "dnn.npz"
    checkpoint.write_checkpoint(str(uri), training_state(), "this")
    arrays = dict(np.load(uri, allow_pickle=False))
    state = json.loads(arrays["state"].tobytes()) | change
    np.savez(uri, **arrays | {"state": np.frombuffer(json.dumps(state).encode(), dtype=np.uint8)})
    with pytest.raises(CheckpointUnusable, match=r"dnn\.npz"):
        checkpoint.read_checkpoint(str(uri), "this")


@pytest.mark.parametrize("state", [b"[" * 100_000, b"[]", b"null", b"\xff", b""])
def test_a_state_that_is_no_object_is_refused(tmp_path, state):
    uri = tmp_path / "dnn.npz"
    checkpoint.write_checkpoint(str(uri), training_state(), "this")
    arrays = dict(np.load(uri, allow_pickle=False))
    np.savez(uri, **arrays | {"state": np.frombuffer(state, dtype=np.uint8)})
    with pytest.raises(CheckpointUnusable, match="is not a checkpoint"):
        checkpoint.read_checkpoint(str(uri), "this")


@pytest.mark.parametrize("array", [np.zeros(3), np.full((2, 3), np.nan), np.array(["a"])])
def test_best_weights_that_do_not_fit_are_refused(tmp_path, array):
    uri = tmp_path / "dnn.npz"
    checkpoint.write_checkpoint(str(uri), training_state(), "this")
    np.savez(uri, **dict(np.load(uri, allow_pickle=False)) | {"b0003": array})
    with pytest.raises(CheckpointUnusable, match="is not a checkpoint"):
        checkpoint.read_checkpoint(str(uri), "this")


def test_pickled_arrays_are_never_read(tmp_path):
    uri = tmp_path / "dnn.npz"
    state = np.frombuffer(json.dumps({"fingerprint": "this"}).encode(), dtype=np.uint8)
    np.savez(uri, state=state, w0000=np.array([{"a": 1}], dtype=object))
    with pytest.raises(CheckpointUnusable, match="Python objects, which are never loaded"):
        checkpoint.read_checkpoint(str(uri), "this")


def test_other_settings_have_another_fingerprint():
    assert fingerprint("a", {"x": 1, "y": 2}) == fingerprint("a", {"y": 2, "x": 1})
    assert fingerprint("a", {"x": 1}) != fingerprint("a", {"x": 2})
