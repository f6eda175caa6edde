import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from ids_spark.config.train import TrainConfig
from ids_spark.dataset.tables import ATTRIBUTION
from ids_spark.models import architectures, network
from ids_spark.models.attribution import STEPS, contributions, largest_contributions, rows_to_explain
from ids_spark.models.threshold import LIMIT, attack_logits

HYPERPARAMETERS = {name: getattr(TrainConfig(), name).model_dump() for name in ("dnn", "gru_dnn", "lstm")}
KINDS = {
    "dnn": ("dnn", {}),
    "gru_dnn": ("gru_dnn", {}),
    "lstm": ("lstm", {}),
    "gru_dnn with bins": ("gru_dnn", {"bins": 8}),
    "gru_dnn with embedded bins": ("gru_dnn", {"bins": 8, "embedding": 3}),
    "dnn ensemble": ("dnn", {"bins": 8, "ensemble_size": 4}),
}
FEATURES, CLASSES = 12, 6


def synthetic_flows(rows, seed):
    """Normal and skewed features and a flag, synthetic; the class follows from five of them."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(0, 1, (rows, FEATURES))
    matrix[:, 4] = rng.exponential(2, rows) - 2
    matrix[:, 5] = 3.0 * (rng.random(rows) < 0.1)
    pull = matrix[:, 0] + np.abs(matrix[:, 1]) + 0.5 * matrix[:, 4] * (matrix[:, 2] > 0) + matrix[:, 5]
    return matrix.astype(np.float32), np.digitize(pull, [1.0, 1.5, 2.0, 3.0, 4.0])


def built(kind, matrix, classes=CLASSES):
    name, changes = KINDS[kind]
    hyperparameters = HYPERPARAMETERS[name] | changes
    edges = np.quantile(matrix, np.linspace(0, 1, hyperparameters["bins"] + 1), axis=0).T.astype(np.float32)
    return architectures.build(
        name, matrix.shape[1], classes, hyperparameters, edges if hyperparameters["bins"] else None
    )


def stored(model, kind, classes=CLASSES):
    """The network of a Keras model as scoring has it."""
    name, changes = KINDS[kind]
    return network.build(name, FEATURES, classes, HYPERPARAMETERS[name] | changes, model.get_weights())


@pytest.fixture(scope="module", params=list(KINDS))
def trained(request):
    """A model after some steps of training, and its network as scoring has it."""
    tf.keras.utils.set_random_seed(5)
    matrix, labels = synthetic_flows(4_000, 1)
    model, size = built(request.param, matrix), KINDS[request.param][1].get("ensemble_size", 1)
    optimizer = tf.keras.optimizers.Adam(3e-3)

    @tf.function
    def step(features, classes):
        with tf.GradientTape() as tape:
            probabilities = model(features, training=True)
            if size > 1:  # each network has its own loss
                classes = tf.repeat(classes[:, tf.newaxis], probabilities.shape[1], axis=1)
            loss = tf.reduce_mean(tf.keras.losses.sparse_categorical_crossentropy(classes, probabilities))
        optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_weights), model.trainable_weights, strict=True)
        )

    for epoch in range(5):
        order = np.random.default_rng(epoch).permutation(len(matrix))
        for first in range(0, len(matrix), 100):
            step(matrix[order[first : first + 100]], labels[order[first : first + 100]])
    return model, stored(model, request.param)


@pytest.fixture(scope="module")
def flows():
    return synthetic_flows(600, 2)[0]


def linear(kernel, bias):
    """A network without hidden layers."""
    own = HYPERPARAMETERS["dnn"] | {"dense": ()}
    return network.build("dnn", *kernel.shape, own, [kernel, bias])


def test_contributions_of_a_flow_sum_to_its_logit_less_that_of_the_baseline(trained, flows):
    _, own = trained
    baseline = np.median(flows, axis=0)
    moved = contributions(own, flows, baseline)
    assert moved.shape == flows.shape
    assert moved.dtype == np.float32
    difference = own.attack_logits(flows) - own.attack_logits(baseline[None])
    assert difference.std() > 1.5  # the model learnt something
    error = np.abs(moved.sum(axis=1) - difference)
    assert np.median(error) < 0.02
    # the kinks of a network with bins fall between the points of few flows
    assert (error < 0.05 + 0.05 * np.abs(difference)).mean() >= 0.99
    assert (error < 0.2 + 0.1 * np.abs(difference)).all()


def test_the_logit_is_that_of_the_probabilities(trained, flows):
    model, own = trained
    probabilities = model(flows, training=False).numpy()
    np.testing.assert_allclose(own.attack_logits(flows), attack_logits(probabilities), atol=1e-4)


def test_the_feature_that_makes_a_flow_an_attack_contributes_most(trained, flows):
    baseline = np.median(flows, axis=0)
    baseline[5] = 0.0
    flagged = np.tile(baseline, (2, 1))
    flagged[0, 5] = 3.0
    flagged[1, 0] = 3.0
    moved = contributions(trained[1], flagged, baseline)
    assert moved.argmax(axis=1).tolist() == [5, 0]
    others = moved.copy()
    others[[0, 1], [5, 0]] = 0.0
    assert not others.any()  # features at the baseline have no effect
    assert moved.max(axis=1).min() > 1.0


def test_rows_are_explained_alone_and_in_any_number(trained, flows):
    (_, own), baseline = trained, flows[0]
    together = contributions(own, flows[:300], baseline)
    alone = np.concatenate([contributions(own, flows[i : i + 1], baseline) for i in (0, 1, 127, 128, 299)])
    np.testing.assert_allclose(together[[0, 1, 127, 128, 299]], alone, atol=1e-4)
    np.testing.assert_allclose(together[0], 0.0, atol=1e-5)  # the baseline itself; kernels differ by number of rows
    assert contributions(own, flows[:0], baseline).shape == (0, FEATURES)


@pytest.mark.parametrize("kind", ["dnn", "gru_dnn", "lstm"])
def test_a_feature_that_the_network_does_not_use_contributes_nothing(kind, flows):
    model = built(kind, flows)
    first, *rest = model.get_weights()
    first[3] = 0.0
    model.set_weights([first, *rest])
    moved = contributions(stored(model, kind), flows[:50], np.full(FEATURES, 0.1))
    assert not moved[:, 3].any()
    assert (np.abs(np.delete(moved, 3, axis=1)) > 0).any(axis=0).all()


def test_a_linear_network_contributes_what_is_counted_by_hand():
    kernel, bias = np.array([[0.5, 2.5], [1.0, -3.0], [4.0, 4.0]]), np.array([0.25, 1.0])
    moved = contributions(linear(kernel, bias), np.array([[3, 2, 9], [1, -1, 0]], np.float32), np.ones(3))
    # the logit is 2 a - 4 b + 0 c + 0.75, the baseline (1, 1, 1)
    np.testing.assert_allclose(moved, [[4, -4, 0], [0, 8, 0]], atol=1e-5)


def test_two_attack_classes_share_a_contribution_by_their_probabilities():
    # logit = ln(e^a + e^-a): from 0 to a it rises by ln cosh a, all of it by the one feature
    moved = contributions(
        linear(np.array([[0.0, 1.0, -1.0]]), np.zeros(3)),
        np.array([[2.0], [-5.0]], np.float32),
        [0.0],
    )
    np.testing.assert_allclose(moved[:, 0], np.log(np.cosh([2.0, -5.0])), rtol=2e-3)


def test_a_saturated_softmax_still_has_attributions(flows):
    tf.keras.utils.set_random_seed(5)
    model = built("gru_dnn", flows)
    *rest, kernel, bias = model.get_weights()
    model.set_weights([*rest, kernel * 3_000, bias])
    probabilities = model(flows, training=False).numpy()
    scores, baseline = attack_logits(probabilities), np.median(flows, axis=0)
    assert (scores == LIMIT).mean() > 0.2  # the benign probability is an exact 0
    with tf.GradientTape() as tape:
        tape.watch(inputs := tf.constant(flows[scores == LIMIT]))
        naive = tf.math.log(1 - model(inputs)[:, 0]) - tf.math.log(model(inputs)[:, 0])
    assert np.isnan(tape.gradient(naive, inputs).numpy()).mean() > 0.5  # the gradient through the probabilities
    own = stored(model, "gru_dnn")
    moved = contributions(own, flows, baseline)
    difference = own.attack_logits(flows) - own.attack_logits(baseline[None])
    assert np.abs(difference).max() > 4 * LIMIT
    error = np.abs(moved.sum(axis=1) - difference)
    assert np.median(error) < 0.05 * np.median(np.abs(difference))
    assert error.max() < 0.1 * np.abs(difference).max()  # not smooth: the most probable attack changes along the path


def test_a_flag_whose_bins_coincide_contributes_its_step():
    """If nearly all values are equal, bins of the feature have no width and its encoding jumps at the baseline."""
    edges = np.array([[0, 0, 0, 0, 3], [-2, -1, 0, 1, 2]], np.float32)
    hyperparameters = HYPERPARAMETERS["dnn"] | {"dense": (), "bins": 4}
    model = architectures.build("dnn", 2, 2, hyperparameters, edges)
    kernel = np.zeros((2 + 2 * 4, 2), np.float32)
    kernel[2:6, 1] = [5.0, 7.0, 0.0, 1.0]  # bins of the flag, for attack
    kernel[1, 1] = 0.5
    kernel[6:, 1] = 0.25
    *encoding, _, bias = model.get_weights()
    own = network.build("dnn", 2, 2, hyperparameters, [*encoding, kernel, bias])
    moved = contributions(own, np.array([[3.0, 1.5]], np.float32), np.zeros(2))
    # the flag fills three bins without width and the fourth, the other one and a half bins more than the baseline
    np.testing.assert_allclose(moved, [[5 + 7 + 0 + 1, 0.5 * 1.5 + 0.25 * 1.5]], atol=1e-4)


def test_the_largest_contributions_towards_attack_are_listed_in_order():
    contributed = np.array(
        [[0.5, -9, 2, 1], [-1, -2, 0, -3], [3, np.nan, 3, 0.25], [1, np.inf, 2, 4]], dtype=np.float32
    )
    values = np.arange(16, dtype=np.float64).reshape(4, 4)
    found = largest_contributions(contributed, values, ["Rate", "IAT", "Number", "Std"], 2)
    assert found.type == pa.list_(ATTRIBUTION)
    assert found.to_pylist() == [
        [attribution("Number", 2, 2), attribution("Std", 3, 1)],
        [],
        [attribution("Rate", 8, 3), attribution("Number", 10, 3)],
        [attribution("IAT", 13, np.inf), attribution("Std", 15, 4)],
    ]
    all_of_them = largest_contributions(contributed, values, ["Rate", "IAT", "Number", "Std"], 10).to_pylist()
    assert [[r["feature"] for r in row] for row in all_of_them] == [
        ["Number", "Std", "Rate"],
        [],
        ["Rate", "Number", "Std"],
        ["IAT", "Std", "Number", "Rate"],
    ]
    assert largest_contributions(contributed[:0], values[:0], ["Rate", "IAT", "Number", "Std"], 2).to_pylist() == []


def attribution(feature, value, contribution):
    return {"feature": feature, "value": float(value), "contribution": float(contribution)}


def test_the_highest_flagged_flows_of_each_class_are_explained():
    #                    0    1    2    3    4    5    6    7
    logits = np.array([9.0, 1.0, 5.0, 5.0, 7.0, 3.0, 8.0, np.nan])
    ids = np.array([4, 4, 4, 4, 2, 2, 1, 2], dtype=np.int32)
    flagged = np.array([0, 1, 1, 1, 1, 1, 1, 1], dtype=bool)
    none = np.zeros(8, dtype=bool)
    assert rows_to_explain(logits, ids, flagged, none, 1).tolist() == [2, 4, 6]
    assert rows_to_explain(logits, ids, flagged, none, 2).tolist() == [2, 3, 4, 5, 6]
    assert rows_to_explain(logits, ids, flagged, none, 9).tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert rows_to_explain(logits, ids, flagged, none, 0).tolist() == []
    assert rows_to_explain(logits, ids, none, none, 3).tolist() == []


def test_urgent_flows_are_explained_before_higher_ones_of_their_class():
    logits = np.array([9.0, 1.0, 5.0, 5.0, 7.0, 3.0])
    ids = np.array([4, 4, 4, 4, 2, 2], dtype=np.int32)
    flagged, urgent = np.array([1, 1, 1, 1, 1, 1], dtype=bool), np.array([0, 1, 0, 1, 0, 1], dtype=bool)
    assert rows_to_explain(logits, ids, flagged, urgent, 1).tolist() == [3, 5]
    assert rows_to_explain(logits, ids, flagged, urgent, 3).tolist() == [0, 1, 3, 4, 5]
    flagged[1] = False
    assert rows_to_explain(logits, ids, flagged, urgent, 2).tolist() == [0, 3, 4, 5]


def test_a_line_has_so_many_points():
    assert STEPS == 32
