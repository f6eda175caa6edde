"""First weights from another model whose rows were scaled differently: the same probabilities for the same flows."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from ids_spark.config.train import TrainConfig
from ids_spark.dataset.features import RELEASE_39
from ids_spark.features.moments import moments_of
from ids_spark.features.preprocess import Preprocessor, Recipe, fit
from ids_spark.models.architectures import build
from ids_spark.models.artifact import Model, ModelCard
from ids_spark.train.tasks import OtherModel, require_same
from ids_spark.train.warm_start import initial_weights
from tests.support.models import CARD

CLASSES = 6
KINDS = {
    "gru_dnn": ("gru_dnn", {}),
    "gru_dnn with bins": ("gru_dnn", {"bins": 4, "embedding": 3}),
    "lstm": ("lstm", {}),
    "dnn": ("dnn", {}),
    "dnn with bins": ("dnn", {"bins": 8}),
    "ensemble": ("dnn", {"ensemble_size": 3}),
    "ensemble with bins": ("dnn", {"bins": 4, "embedding": 2, "ensemble_size": 3}),
    "logits alone": ("dnn", {"dense": ()}),
}


def flows(seed: int, scale: float) -> np.ndarray:
    """Return raw flows of all features, heavy-tailed, some negative."""
    rng = np.random.default_rng(seed)
    return (rng.lognormal(0, 2, (400, 39)) * scale - 1) * np.geomspace(1e-3, 1e4, 39)


def fitted(rows: np.ndarray, transform: str) -> Preprocessor:
    recipe = Recipe("paper", RELEASE_39, transform, 1e-8, "synthetic")
    columns = [recipe.transformed(column) for column in rows.T]
    return fit(recipe, [moments_of(column) for column in columns], np.column_stack(columns))


def network(name: str, preprocessor: Preprocessor, hyperparameters: dict[str, Any]) -> Any:
    bins = hyperparameters["bins"]
    edges = preprocessor.edges(preprocessor.kept, bins) if bins else None
    return build(name, len(preprocessor.kept), CLASSES, hyperparameters, edges)


def scaled(preprocessor: Preprocessor, rows: np.ndarray) -> np.ndarray:
    return np.column_stack(preprocessor.transform(dict(zip(RELEASE_39.features, rows.T, strict=True))))


def champion(kind: str, transform: str) -> tuple[Model, Any]:
    """Return a model with random weights, and its network."""
    name, changed = KINDS[kind]
    hyperparameters = getattr(TrainConfig(), name).model_dump() | {"units": 8, "dense": (10, 5)} | changed
    preprocessor = fitted(flows(1, 1.0), transform)
    card = dataclasses.replace(CARD, architecture=name, hyperparameters=hyperparameters, features=preprocessor.kept)
    made = network(name, preprocessor, hyperparameters)
    rng = np.random.default_rng(5)
    trained = {variable.name for variable in made.trainable_variables}
    weights = [
        each + rng.normal(0, 0.15, each.shape) if variable.name in trained else each
        for variable, each in zip(made.weights, made.get_weights(), strict=True)
    ]
    made.set_weights(weights)
    return Model(card, made.get_weights(), preprocessor, "sha"), made


@pytest.mark.parametrize("transform", ["none", "signed_log"])
@pytest.mark.parametrize("kind", KINDS)
def test_before_any_step_the_network_gives_the_champions_probabilities(kind: str, transform: str) -> None:
    first, before = champion(kind, transform)
    new = fitted(np.concatenate([flows(1, 1.0), flows(2, 3.0)]), transform)
    after = network(first.card.architecture, new, first.card.hyperparameters)
    weights = initial_weights(first, new, after)
    after.set_weights(weights)
    rows = flows(3, 0.7)
    expected = before(scaled(first.preprocessor, rows)).numpy()
    found = after(scaled(new, rows)).numpy()
    assert expected.std(axis=0).max() > 0.01
    np.testing.assert_allclose(found, expected, atol=2e-4)
    wrong = network(first.card.architecture, new, first.card.hyperparameters)
    wrong.set_weights(first.weights)
    assert np.abs(wrong(scaled(new, rows)).numpy() - expected).max() > 0.01  # without the rescaling


def test_with_another_transform_the_weights_stay_and_the_bins_are_those_of_the_new_preprocessor() -> None:
    first, before = champion("ensemble with bins", "none")
    new = fitted(flows(1, 1.0), "signed_log")
    after = network("dnn", new, first.card.hyperparameters)
    edges = after.get_layer("piecewise_linear").get_weights()
    found = initial_weights(first, new, after)
    for own, expected in zip(after.get_layer("piecewise_linear").get_weights(), edges, strict=True):
        np.testing.assert_array_equal(own, expected)
    variables = {variable.name for variable in before.trainable_variables}
    for variable, own, expected in zip(before.weights, found, first.weights, strict=True):
        if variable.name in variables:
            np.testing.assert_array_equal(own, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "lstm"}, "found architecture dnn; expected lstm"),
        ({"hyperparameters": {"dense": [64, 16], "dropout": 0.3}}, r"found hyperparameters \{'dense': \[64, 32\]\};"),
        ({"classes": 19}, "found classes 6; expected 19"),
        ({"features": ("Rate", "IAT")}, r"found features \['Header_Length'\]; expected \['IAT'\]"),
        ({"features": CARD.features[::-1]}, "found features"),
    ],
)
def test_a_model_of_another_shape_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    wanted: ModelCard = dataclasses.replace(CARD, **change)
    with pytest.raises(OtherModel, match=message):
        require_same(CARD, wanted)
    require_same(
        CARD, dataclasses.replace(CARD, name="other", recipe="local", hyperparameters=dict(CARD.hyperparameters))
    )
