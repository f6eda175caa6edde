"""Models of every kind in a directory: boosted trees and blends are written, checked and scored as networks are."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import tensorflow as tf
import xgboost

from ids_spark.config.train import ModelConfig
from ids_spark.models import architectures, artifact, inference
from ids_spark.models.artifact import ModelUnusable
from tests.support.models import CARD, NOVELTY, PREPROCESSOR, VALIDATION_SCORES
from tests.support.trees import BOOSTING, blend_card, booster_of, trained, trees_card

NETWORK = ModelConfig(dense=(8,), bins=3)
OWN = dataclasses.replace(CARD, hyperparameters=NETWORK.model_dump(mode="json"))
CARDS = {"network": OWN, "trees": trees_card(OWN), "blend": blend_card(OWN)}
PRESENT = [0, 1, 2, 3, 5]
FLOWS = np.random.default_rng(4).normal(size=(30, 2)).astype(np.float32)
BASELINE = np.array([0.5, -0.5], dtype=np.float32)


@pytest.fixture(scope="module")
def network():
    tf.keras.utils.set_random_seed(3)
    edges = np.linspace([-1.0, -2.0], [1.0, 2.0], 4).T.astype(np.float32)
    return architectures.build("dnn", 2, 6, CARDS["network"].hyperparameters, edges)


@pytest.fixture
def folder(request, tmp_path, network):
    card = CARDS[request.param]
    weights = [] if request.param == "trees" else network.get_weights()
    booster = None if request.param == "network" else booster_of(card)
    artifact.write_model(str(tmp_path), card, weights, PREPROCESSOR, VALIDATION_SCORES, NOVELTY, booster)
    return tmp_path


def of_kinds(*kinds):
    return pytest.mark.parametrize("folder", kinds or list(CARDS), indirect=True)


@of_kinds()
def test_probabilities_are_those_of_the_parts(folder, network):
    model = artifact.read_model(str(folder))
    of_network = network.predict(FLOWS, verbose=0).astype(np.float64)
    of_trees = np.zeros((30, 6))
    of_trees[:, PRESENT] = trained(2, 5).predict(xgboost.DMatrix(FLOWS))
    share = {"dnn": 1.0, "xgboost": 0.0, "blend": 0.25}[model.card.architecture]
    found = inference.forward(model, FLOWS, 7)
    np.testing.assert_allclose(found, share * of_network + (1 - share) * of_trees, atol=1e-6)
    assert (found.dtype, inference.forward(model, FLOWS[:0], 7).shape) == (np.float32, (0, 6))


@of_kinds()
def test_contributions_add_up_to_the_difference_of_the_attack_logits(folder):
    model = artifact.read_model(str(folder))
    p = inference.forward(model, np.concatenate([FLOWS, BASELINE[np.newaxis]]), 7).astype(np.float64)
    logits = np.log(p[:, 1:].sum(axis=1)) - np.log(p[:, 0])
    found = inference.contributions(model, FLOWS, BASELINE)
    assert found.shape == FLOWS.shape
    np.testing.assert_allclose(found.sum(axis=1), logits[:-1] - logits[-1], atol=0.05)
    np.testing.assert_array_equal(inference.contributions(model, BASELINE[np.newaxis], BASELINE), 0)
    assert inference.contributions(model, FLOWS[:0], BASELINE).shape == (0, 2)


def resealed(folder, change):
    """Change the manifest, as somebody with write access could."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize(
    ("folder", "name", "removed"),
    [
        ("network", "weights.npz", True),
        ("network", "booster.json", False),
        ("trees", "booster.json", True),
        ("trees", "weights.npz", False),
        ("blend", "booster.json", True),
        ("blend", "weights.npz", True),
    ],
    indirect=["folder"],
)
def test_a_part_that_is_missing_or_of_another_kind_is_refused(folder, name, removed, sealed):
    content = b"{}"
    if removed:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    if sealed and removed:
        resealed(folder, lambda manifest: manifest.pop(name))
    elif sealed:
        resealed(folder, lambda manifest: manifest.update({name: hashlib.sha256(content).hexdigest()}))
    with pytest.raises(ModelUnusable, match=name):
        artifact.read_model(str(folder))


@of_kinds("trees")
def test_trees_that_do_not_fit_the_card_are_refused(folder):
    content = (folder / "booster.json").read_bytes().replace(b'"left_children":[1', b'"left_children":[0', 1)
    (folder / "booster.json").write_bytes(content)
    with pytest.raises(ModelUnusable, match="changed after training"):
        artifact.read_model(str(folder))
    resealed(folder, lambda manifest: manifest.update({"booster.json": hashlib.sha256(content).hexdigest()}))
    with pytest.raises(ModelUnusable, match="tree 0: a child is not after its parent"):
        artifact.read_model(str(folder))


@pytest.mark.parametrize(
    ("kind", "changes", "fault"),
    [
        ("trees", {"rounds": 0}, "rounds"),
        ("trees", {"dense": [4]}, "dense"),
        ("blend", {"share": 1.5}, "share"),
        ("blend", {"network": "xgboost"}, "network"),
        ("blend", {"boosting": {"max_depth": 99}}, "max_depth"),
        ("blend", {"network_hyperparameters": {"units": -1}}, "units"),
    ],
)
def test_hyperparameters_of_another_kind_are_refused(tmp_path, network, kind, changes, fault):
    weights = network.get_weights() if kind == "blend" else []
    artifact.write_model(str(tmp_path), CARDS[kind], weights, PREPROCESSOR, booster=booster_of(CARDS[kind]))
    content = json.loads((tmp_path / "model.json").read_text())
    content["hyperparameters"].update(changes)
    card = json.dumps(content).encode()
    (tmp_path / "model.json").write_bytes(card)
    resealed(tmp_path, lambda manifest: manifest.update({"model.json": hashlib.sha256(card).hexdigest()}))
    with pytest.raises(ModelUnusable, match=fault):
        artifact.read_model(str(tmp_path))


def test_trees_that_could_not_be_read_again_are_not_written(tmp_path):
    card = dataclasses.replace(CARDS["trees"], hyperparameters=BOOSTING.model_dump() | {"rounds": 1})
    with pytest.raises(ModelUnusable, match="cannot be stored"):
        artifact.write_model(str(tmp_path / "m"), card, [], PREPROCESSOR, booster=booster_of(card))
    assert not (tmp_path / "m").exists()
