"""Networks in numpy against the same networks in Keras: probabilities, attack logits, gradients."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ids_spark.config.train import ModelConfig
from ids_spark.models import architectures, network
from tests.support import keras_logit

FEATURES = 9


@st.composite
def networks(draw):
    """An architecture with any of its options."""
    name = draw(st.sampled_from(["dnn", "gru_dnn", "lstm"]))
    bins = draw(st.sampled_from([0, 1, 5]))
    members = draw(st.sampled_from([1, 2, 5])) if name == "dnn" else 1
    dense = draw(st.lists(st.integers(1, 20), min_size=int(members > 1), max_size=3))
    embedding = draw(st.sampled_from([0, 3])) if bins else 0
    config = ModelConfig(bins=bins, embedding=embedding, ensemble_size=members, units=draw(st.integers(1, 12)),
                         dense=tuple(dense), dense_dropout=draw(st.sampled_from([0.0, 0.2])))  # fmt: skip
    return name, draw(st.sampled_from([2, 6, 19])), config.model_dump(mode="json"), draw(st.integers(0, 2**31))


def keras_network(name, classes, hyperparameters, seed, spread=0.6):
    """A network with weights other than the initial ones, so that every scale and bias has an effect."""
    rng, bins = np.random.default_rng(seed), hyperparameters["bins"]
    edges = np.sort(rng.normal(size=(FEATURES, bins + 1)), axis=1).astype(np.float32) if bins else None
    if bins > 1:
        edges[0, 1:3] = edges[0, 1]  # a bin without width
    model = architectures.build(name, FEATURES, classes, hyperparameters, edges)
    for weight in model.weights:
        if "variance" in weight.name:
            weight.assign(rng.uniform(0.01, 2.0, weight.shape))
        elif not weight.name.startswith("piecewise_linear"):
            weight.assign(rng.normal(0.0, spread, weight.shape))
    return model


def in_numpy(name, classes, hyperparameters, model):
    return network.build(name, FEATURES, classes, hyperparameters, model.get_weights())


def flows(seed, rows=40):
    rng = np.random.default_rng(seed)
    found = rng.normal(0.0, 2.0, (rows, FEATURES)).astype(np.float32)
    found[0], found[1] = 0.0, 1e3 * found[1]
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks())
def test_probabilities_and_gradients_are_those_of_keras(drawn):
    name, classes, hyperparameters, seed = drawn
    tf.keras.backend.clear_session()
    model = keras_network(*drawn)
    own, members, matrix = (
        in_numpy(name, classes, hyperparameters, model),
        hyperparameters["ensemble_size"],
        flows(seed),
    )
    found = own.probabilities(matrix, 7)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, model(matrix, training=False).numpy(), rtol=0, atol=1e-6)
    values = keras_logit.encoded(model, matrix)
    np.testing.assert_allclose(own.encode(matrix).T, values.numpy(), rtol=1e-6, atol=1e-6)
    logits = keras_logit.attack_logit(model, values, members).numpy()
    np.testing.assert_allclose(own.attack_logits(matrix), logits, rtol=1e-5, atol=1e-5)
    baseline = matrix[2]
    expected = keras_logit.mean_gradient(model, baseline, matrix[3:], members, 8)
    gradient = own.mean_gradient(own.encode(baseline[None]), own.encode(matrix[3:]), 8).T
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize(("name", "members"), [("dnn", 1), ("dnn", 3), ("gru_dnn", 1), ("lstm", 1)])
def test_a_saturated_softmax_has_the_probabilities_and_gradients_of_keras(name, members):
    hyperparameters = ModelConfig(ensemble_size=members, dense=(8,)).model_dump(mode="json")
    model = keras_network(name, 6, hyperparameters, 4, spread=4.0)
    own, matrix = in_numpy(name, 6, hyperparameters, model), flows(5)
    found, expected = own.probabilities(matrix, 1_000), model(matrix, training=False).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)  # logits of some hundreds, to 1e-7 of them
    assert (expected < 1e-12).mean() > 0.2
    gradient = own.mean_gradient(matrix[2:3].T, matrix[3:].T, 4).T
    of_keras = keras_logit.mean_gradient(model, matrix[2], matrix[3:], members, 4)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient, of_keras, rtol=1e-3, atol=1e-4 * np.abs(of_keras).max())


def test_values_beyond_the_range_of_a_network_give_nan_and_leave_other_rows_as_they_are():
    hyperparameters = ModelConfig(dense=(4,)).model_dump(mode="json")
    own = in_numpy("dnn", 6, hyperparameters, keras_network("dnn", 6, hyperparameters, 1))
    matrix = flows(3)
    expected = own.probabilities(matrix, 50)
    matrix[7] = 3e38
    found = own.probabilities(matrix, 50)
    assert np.isnan(found[7]).all()
    np.testing.assert_array_equal(np.delete(found, 7, axis=0), np.delete(expected, 7, axis=0))
    assert np.isnan(own.attack_logits(matrix)[7])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"units": 10**9}, r"array 0 of its weights has shape \(9, 36\); expected \(9, 3000000000\)"),
        ({"dense": [5]}, r"array 6 of its weights has shape \(12, 4\); expected \(12, 5\)"),
        ({"dense": []}, r"array 6 of its weights has shape \(12, 4\); expected \(12, 6\)"),
        ({"dense": [4, 6]}, r"array 8 of its weights has shape \(4, 6\)|10 arrays|shape None"),
        ({"bins": 3}, r"array 0 of its weights has shape \(9, 36\); expected \(9, 3\)"),
        ({"ensemble_size": 2}, r"no architecture 'gru_dnn' of 2 networks"),
    ],
)
def test_weights_of_another_network_are_refused(change, message):
    hyperparameters = ModelConfig(units=12, dense=(4,)).model_dump(mode="json")
    weights = keras_network("gru_dnn", 6, hyperparameters, 1).get_weights()
    with pytest.raises(ValueError, match=message):
        network.build("gru_dnn", FEATURES, 6, hyperparameters | change, weights)
    with pytest.raises(ValueError, match="11 arrays of weights; expected 10"):
        network.build("gru_dnn", FEATURES, 6, hyperparameters, [*weights, np.zeros(1)])
    with pytest.raises(ValueError, match="no architecture 'transformer' of 1 networks"):
        network.build("transformer", FEATURES, 6, hyperparameters, weights)


@pytest.mark.filterwarnings("error")
def test_a_value_that_overflows_in_a_narrow_bin_is_beyond_it_without_a_warning():
    hyperparameters = ModelConfig(bins=2, dense=()).model_dump(mode="json")
    low, width = np.array([[0, 1]], dtype=np.float32), np.full((1, 2), 1e-6, dtype=np.float32)
    own = network.build("dnn", 1, 2, hyperparameters, [low, width, np.ones((3, 2)), np.zeros(2)])
    matrix = np.array([[1e35], [-1e35]], dtype=np.float32)
    np.testing.assert_array_equal(own.encode(matrix)[1:], [[1, 0], [1, 0]])


def test_members_of_an_ensemble_share_its_kernels():
    members, units = 64, 300
    shapes = [(FEATURES, units), (members, FEATURES), *[(members, units)] * 2]
    shapes += [(units, units), *[(members, units)] * 3, (members, units, 2), (members, 2)]
    weights = [np.ones(shape, dtype=np.float32) for shape in shapes]
    hyperparameters = ModelConfig(ensemble_size=members, dense=(units, units)).model_dump(mode="json")
    tracemalloc.start()
    network.build("dnn", FEATURES, 2, hyperparameters, weights)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 3 * sum(array.nbytes for array in weights)  # a copy for each member would be 26 times as much


def test_no_flow_has_an_answer_of_no_rows():
    hyperparameters = ModelConfig(bins=2, ensemble_size=2).model_dump(mode="json")
    own = in_numpy("dnn", 2, hyperparameters, keras_network("dnn", 2, hyperparameters, 1))
    nothing = np.empty((0, FEATURES), dtype=np.float32)
    assert own.probabilities(nothing, 5).shape == (0, 2)
    assert own.attack_logits(nothing).shape == (0,)


def test_scoring_and_explaining_flows_load_no_tensorflow():
    code = """
import sys, numpy as np
from ids_spark.models import attribution, network
own = {"bins": 0, "embedding": 0, "ensemble_size": 1, "dense": ()}
found = network.build("dnn", 2, 2, own, [np.ones((2, 2)), np.zeros(2)])
found.probabilities(np.ones((3, 2), np.float32), 2)
attribution.contributions(found, np.ones((3, 2), np.float32), np.zeros(2))
print("tensorflow" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
