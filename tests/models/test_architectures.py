import numpy as np
import pytest
import tensorflow as tf

from ids_spark.config.train import TrainConfig
from ids_spark.models import architectures
from ids_spark.models.architectures import Architecture, UnknownModel, build
from ids_spark.models.layers import (
    BatchEnsembleDense,
    BatchNormalization,
    Dropout,
    EnsembleMean,
    FeatureEmbedding,
    FirstStepGRU,
    FirstStepLSTM,
    PiecewiseLinear,
    keras,
)

DEFAULTS = {name: getattr(TrainConfig(), name).model_dump() for name in ("dnn", "gru_dnn", "lstm")}


ENSEMBLE = DEFAULTS["dnn"] | {"bins": 4, "embedding": 3, "ensemble_size": 5, "dense": (16, 8)}


@pytest.fixture(scope="module")
def flows():
    return np.random.default_rng(2).normal(0, 2, (50, 44)).astype(np.float32)


@pytest.fixture(scope="module")
def edges():
    return np.sort(np.random.default_rng(1).normal(size=(44, 5)), axis=1).astype(np.float32)


def random_weights(model, seed=3):
    """Weights other than the initial ones, so that every scale and bias has an effect; edges are kept."""
    rng, trained = np.random.default_rng(seed), {id(v) for v in model.trainable_weights}
    for weight in model.weights:
        if id(weight) in trained:
            weight.assign(rng.normal(0.0, 0.7, weight.shape))


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def encoded(x, weights, n_features):
    """Scaled values and embedded bins, feature by feature and bin by bin; returns the remaining weights."""
    low, width, kernel, bias = (w.astype(np.float64) for w in weights[:4])
    columns = [x.astype(np.float64)]
    for f in range(n_features):
        bins = np.clip((x[:, f, None] - low[f]) / width[f], 0.0, 1.0)
        columns.append(np.maximum(bins @ kernel[f] + bias[f], 0.0))
    return np.hstack(columns), weights[4:]


def each_network(x, weights, ensemble_size):
    """Class probabilities of every network of an ensemble by itself, shape (rows, ensemble_size, classes)."""
    *layers, head, head_bias = (w.astype(np.float64) for w in weights)
    found = []
    for k in range(ensemble_size):
        h = x
        for kernel, scale_in, scale_out, bias in zip(*(layers[i::4] for i in range(4)), strict=True):
            own = np.diag(scale_in[k]) @ kernel @ np.diag(scale_out[k])  # its full kernel
            h = np.maximum(h @ own + bias[k], 0.0)
        found.append(softmax(h @ head[k] + head_bias[k]))
    return np.stack(found, axis=1)


@pytest.mark.parametrize("name", ["dnn", "gru_dnn", "lstm"])
@pytest.mark.parametrize("classes", [2, 6, 19])
def test_each_row_gets_one_probability_for_each_class(flows, name, classes):
    probabilities = build(name, 44, classes, DEFAULTS[name]).predict(flows, verbose=0)
    assert probabilities.shape == (50, classes)
    assert probabilities.dtype == np.float32
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "trainable", "fixed"),
    [
        ("dnn", (44 * 64 + 64) + (64 * 32 + 32) + (32 * 19 + 19), 0),
        # GRU as in cuDNN: three gates, each with input weights and two biases; its recurrent weights are multiplied by
        # zeros and omitted. Then normalisation of 64 units with scale, shift (trained), mean, variance (not trained).
        (
            "gru_dnn",
            3 * (44 * 64 + 2 * 64) + 2 * 64 + (64 * 64 + 64) + (64 * 32 + 32) + (32 * 19 + 19),
            2 * 64,
        ),
    ],
)
def test_default_models_have_the_parameters_counted_by_hand(name, trainable, fixed):
    model = build(name, 44, 19, DEFAULTS[name])
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == trainable
    assert sum(int(np.prod(w.shape)) for w in model.non_trainable_weights) == fixed
    assert model.count_params() == {"dnn": 5_587, "gru_dnn": 15_955}[name]


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("dnn", {}, 44 * 64 + 64 * 32 + 32 * 19),
        ("gru_dnn", {}, 44 * 3 * 64 + 64 * 64 + 64 * 32 + 32 * 19),
        ("lstm", {"bins": 4}, 5 * 44 * 3 * 64 + 64 * 64 + 64 * 32 + 32 * 19),
        ("dnn", {"bins": 4, "embedding": 3}, 44 * 4 * 3 + 4 * 44 * 64 + 64 * 32 + 32 * 19),
        ("dnn", {"ensemble_size": 8, "dense": (16,)}, 8 * (44 * 16 + 16 * 19)),
    ],
)
def test_products_are_those_of_the_kernels(name, changes, expected):
    hyperparameters = DEFAULTS[name] | changes
    assert architectures.products(name, 44, 19, hyperparameters) == expected
    if hyperparameters["ensemble_size"] == 1:  # a network uses each kernel once for each row
        kernels = [w for w in build(name, 44, 19, hyperparameters).trainable_weights if "kernel" in w.name]
        assert sum(int(np.prod(w.shape)) for w in kernels) == expected


def test_hyper_parameters_set_units_and_dropout():
    model = build("gru_dnn", 5, 3, DEFAULTS["gru_dnn"] | {"units": 7, "dense": (11, 4, 2), "dropout": 0.25})
    layers = [(type(x).__name__, getattr(x, "units", getattr(x, "rate", None))) for x in model.layers]
    assert [x for x in layers if x[0] in ("FirstStepGRU", "Dropout", "Dense")] == [
        ("FirstStepGRU", 7),
        ("Dropout", 0.25),
        ("Dense", 11),
        ("Dense", 4),
        ("Dense", 2),
        ("Dense", 3),
    ]
    rates = [
        x.rate
        for x in build("dnn", 5, 3, DEFAULTS["dnn"] | {"dense": (11, 4), "dropout": 0.1}).layers
        if "rate" in vars(x)
    ]
    assert rates == [0.1, 0.1]


def trained_by(layer, inputs, targets, steps=5):
    """Outputs of a layer before and after some steps of plain gradient descent."""
    before = layer(inputs).numpy()
    for _ in range(steps):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(layer(inputs) - targets))
        variables = layer.trainable_variables
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(0.5 * gradient)
    return before, layer(inputs).numpy()


@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize(
    ("own", "layer", "used"),
    [
        (FirstStepGRU, keras.layers.GRU, np.arange(3 * 64)),
        (FirstStepLSTM, keras.layers.LSTM, np.r_[0:64, 128:256]),  # Keras keeps input, forget, cell, output
    ],
)
def test_a_layer_of_one_step_computes_and_learns_as_keras_layer_does(flows, own, layer, used, unroll):
    ours, theirs = own(64), layer(64, unroll=unroll)
    targets = np.random.default_rng(6).uniform(-1, 1, (50, 64)).astype(np.float32)
    theirs(flows[:, None, :])
    rng = np.random.default_rng(4)
    kernel, recurrent, bias = (rng.uniform(-0.3, 0.3, w.shape).astype(np.float32) for w in theirs.get_weights())
    theirs.set_weights([kernel, recurrent, bias])
    ours(flows)
    ours.set_weights([kernel[:, used], bias[..., used]])
    for found, expected in zip(
        trained_by(ours, flows, targets), trained_by(theirs, flows[:, None, :], targets), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    unused = np.setdiff1d(np.arange(kernel.shape[1]), used)
    np.testing.assert_array_equal(theirs.get_weights()[0][:, unused], kernel[:, unused])  # omitted weights never change
    np.testing.assert_array_equal(theirs.get_weights()[1], recurrent)
    assert np.abs(ours.get_weights()[0] - kernel[:, used]).max() > 1e-3


def dropout(rate, seed=5):
    """A layer of our own whose random numbers follow from a seed, as those of a rank do."""
    tf.keras.backend.experimental.enable_tf_random_generator()
    layer = Dropout(rate)
    layer.build((None, 3))
    layer._random_generator._maybe_init()
    layer._random_generator._generator.reset_from_seed(seed)
    return layer


@pytest.mark.parametrize(("shape", "rate"), [((4_000, 64), 0.3), ((999, 5, 7), 0.2), ((70_001, 1), 0.5), ((3, 1), 0.9)])
def test_dropout_drops_the_given_share_and_scales_what_it_keeps(shape, rate):
    layer, kept = dropout(rate), np.float32(1 / (1 - rate))
    inputs = tf.ones(shape)
    found = np.stack([layer(inputs, training=True).numpy() for _ in range(40)])
    assert set(np.unique(found)) <= {np.float32(0), kept}
    n = found.size  # the threshold of a call is off by less than 1/256
    assert (found == 0).mean() == pytest.approx(rate, abs=5 * (rate * (1 - rate) / n) ** 0.5 + 5 / 256 / 40**0.5)
    assert (found[0] != found[1]).any()
    if found.shape[1] >= 999:  # neither rows nor columns share their mask
        np.testing.assert_allclose((found == 0).mean(axis=(0, 1)), rate, atol=0.03)
    np.testing.assert_array_equal(layer(inputs, training=False), inputs)
    np.testing.assert_array_equal(dropout(rate)(inputs, training=True), found[0])


def test_a_rate_between_two_multiples_of_a_byte_is_met_on_average():
    layer = dropout(0.001)
    dropped = np.mean([(layer(tf.ones((256, 8)), training=True).numpy() == 0).mean() for _ in range(600)])
    assert dropped == pytest.approx(0.001, abs=0.0003)  # the nearest multiples are 0 and .0039


def test_the_gradient_of_dropout_is_its_mask():
    layer, x = dropout(0.4), tf.Variable(np.random.default_rng(3).normal(size=(50, 6)).astype(np.float32))
    with tf.GradientTape() as tape:
        found = layer(x, training=True)
    np.testing.assert_allclose(tape.gradient(found, x) * x, found, rtol=1e-6)


def test_batch_normalisation_computes_and_learns_as_keras_layer_does():
    random = np.random.default_rng(7)
    own, of_keras = BatchNormalization(), keras.layers.BatchNormalization()
    for layer in (own, of_keras):
        layer.build((None, 6))
        layer.set_weights([np.linspace(0.5, 2, 6), np.arange(6), np.full(6, 0.2), np.full(6, 3.0)])
    for rows in (200, 3, 1):
        x = tf.constant(random.normal(2, 5, (rows, 6)).astype(np.float32))
        upstream = random.normal(size=(rows, 6)).astype(np.float32)
        for training in (True, False):
            outputs, gradients = [], []
            for layer in (own, of_keras):
                with tf.GradientTape() as tape:
                    tape.watch(x)
                    y = layer(x, training=training)
                outputs.append(y)
                gradients.append(tape.gradient(y, [x, *layer.trainable_variables], upstream))
            np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5)
            for found, expected in zip(*gradients, strict=True):
                np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
        for found, expected in zip(own.get_weights(), of_keras.get_weights(), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(("name", "layer"), [("gru_dnn", "gru"), ("lstm", "lstm")])
def test_initial_recurrent_kernels_have_the_range_of_keras_kernels(name, layer):
    ours = build(name, 44, 19, DEFAULTS[name]).get_layer(layer).get_weights()
    theirs = {"gru": keras.layers.GRU, "lstm": keras.layers.LSTM}[layer](64)
    theirs(np.zeros((1, 1, 44), dtype=np.float32))
    assert ours[0].std() == pytest.approx(theirs.get_weights()[0].std(), rel=0.05)
    assert (ours[1] == 0).all()


@pytest.mark.parametrize("name", ["dnn", "gru_dnn", "lstm"])
def test_a_model_is_restored_from_its_weights_alone(flows, name):
    first, second = (build(name, 44, 6, DEFAULTS[name]) for _ in range(2))
    before = second.predict(flows, verbose=0)
    second.set_weights(first.get_weights())
    np.testing.assert_array_equal(second.predict(flows, verbose=0), first.predict(flows, verbose=0))
    assert np.abs(before - second.predict(flows, verbose=0)).max() > 1e-3


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(UnknownModel) as error:
        build("cnn", 44, 19, DEFAULTS["dnn"])
    assert str(error.value) == "unknown model 'cnn'; expected one of dnn, gru_dnn, lstm"


def test_piecewise_linear_encoding_counts_bins_below_and_the_share_of_its_own(flows):
    edges = np.array([[0.0, 1.0, 3.0], [-1.0, -1.0, 1.0]], dtype=np.float32)
    layer = PiecewiseLinear(edges)
    x = np.array([[-5.0, -2.0], [0.25, 0.0], [2.0, -1.0], [9.0, 1.0]], dtype=np.float32)
    expected = [[0, 0, 0, 0], [0.25, 0, 1, 0.5], [1, 0.5, 0, 0], [1, 1, 1, 1]]
    np.testing.assert_allclose(layer(x).numpy(), expected, atol=1e-6)
    assert layer.trainable_weights == []


def test_an_encoded_model_has_its_edges_in_its_weights(flows):
    hyperparameters = DEFAULTS["gru_dnn"] | {"bins": 4}
    edges = np.sort(np.random.default_rng(1).normal(size=(44, 5)), axis=1).astype(np.float32)
    trained = build("gru_dnn", 44, 6, hyperparameters, edges)
    loaded = build("gru_dnn", 44, 6, hyperparameters)
    loaded.set_weights(trained.get_weights())
    np.testing.assert_allclose(loaded.predict(flows, verbose=0), trained.predict(flows, verbose=0), atol=1e-6)
    assert not np.allclose(
        build("gru_dnn", 44, 6, hyperparameters).predict(flows, verbose=0), loaded.predict(flows, verbose=0)
    )


@pytest.mark.parametrize("bins", [0, 4])
@pytest.mark.parametrize("ensemble_size", [1, 5])
@pytest.mark.parametrize("classes", [2, 6, 19])
def test_an_ensemble_gives_one_probability_for_each_class_and_row(flows, bins, ensemble_size, classes):
    hyperparameters = ENSEMBLE | {"bins": bins, "ensemble_size": ensemble_size}
    model = build("dnn", 44, classes, hyperparameters)
    probabilities = model(flows).numpy()
    assert probabilities.shape == (50, classes)
    assert probabilities.dtype == np.float32
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_array_equal(model(flows[:1]).numpy().shape, (1, classes))


def test_a_feature_embedding_is_a_dense_layer_of_each_features_own_bins():
    layer, x = FeatureEmbedding(3, 2), np.random.default_rng(5).uniform(0, 1, (7, 3 * 4)).astype(np.float32)
    assert layer(x).shape == (7, 3 * 2)
    kernel, bias = layer.get_weights()
    assert kernel.shape == (3, 4, 2)
    assert np.abs(kernel).max() <= 0.5  # 1 / sqrt(4 bins)
    assert (bias == 0).all()
    bias = np.array([[0.1, -0.2], [0.3, 0.0], [-0.4, 0.5]], dtype=np.float32)
    layer.set_weights([kernel, bias])
    expected = np.hstack([np.maximum(x[:, 4 * f : 4 * f + 4] @ kernel[f] + bias[f], 0.0) for f in range(3)])
    np.testing.assert_allclose(layer(x).numpy(), expected, atol=1e-6)
    assert (expected == 0).any()  # the ReLU has an effect
    moved = x.copy()
    moved[:, :4] += 1.0  # the bins of the first feature alone
    changed = (layer(moved).numpy() != layer(x).numpy()).any(axis=0)
    assert not changed[2:].any()


def test_an_ensemble_computes_what_its_networks_alone_would(flows, edges):
    model = build("dnn", 44, 6, ENSEMBLE, edges)
    random_weights(model)
    x, left = encoded(flows, model.get_weights(), 44)
    expected = each_network(x, left, 5)
    np.testing.assert_allclose(model(flows).numpy(), expected.mean(axis=1), atol=1e-5)
    assert expected.std(axis=1).max() > 0.05  # the networks differ, so their mean is tested
    assert expected.std(axis=0).max() > 0.05  # and so do flows


def test_an_embedding_without_an_ensemble_computes_a_plain_network_after_it(flows, edges):
    model = build("dnn", 44, 6, ENSEMBLE | {"ensemble_size": 1}, edges)
    random_weights(model)
    h, (*layers, head, head_bias) = encoded(flows, model.get_weights(), 44)
    for kernel, bias in zip(layers[::2], layers[1::2], strict=True):
        h = np.maximum(h @ kernel + bias, 0.0)
    np.testing.assert_allclose(model(flows).numpy(), softmax(h @ head + head_bias), atol=1e-5)


def test_in_training_every_network_returns_its_own_probabilities(flows, edges):
    model = build("dnn", 44, 6, ENSEMBLE | {"dropout": 0.0}, edges)
    random_weights(model)
    apart = model(flows, training=True).numpy()
    assert apart.shape == (50, 5, 6)
    x, left = encoded(flows, model.get_weights(), 44)
    np.testing.assert_allclose(apart, each_network(x, left, 5), atol=1e-5)
    np.testing.assert_allclose(model(flows, training=False).numpy(), apart.mean(axis=1), atol=1e-6)


def test_the_mean_is_over_networks():
    each = np.array([[[0.9, 0.1], [0.5, 0.5], [0.1, 0.9]], [[1.0, 0.0], [0.0, 1.0], [0.2, 0.8]]], dtype=np.float32)
    np.testing.assert_allclose(EnsembleMean()(each).numpy(), [[0.5, 0.5], [0.4, 0.6]], atol=1e-7)


def test_networks_of_an_ensemble_start_with_random_signs_of_the_first_layers_inputs(flows):
    model = build("dnn", 44, 6, ENSEMBLE | {"dropout": 0.0})
    first, second = (layer for layer in model.layers if isinstance(layer, BatchEnsembleDense))
    _, signs, scale, bias = first.get_weights()
    assert signs.shape == (5, 44 + 44 * 3)
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert 0.4 < (signs > 0).mean() < 0.6
    assert len(np.unique(signs, axis=0)) == 5
    assert (scale == 1).all()
    assert (bias == 0).all()
    assert all((part == part[:1]).all() for part in second.get_weights()[1:])  # and only by their heads
    apart = model(flows, training=True).numpy()
    assert all(np.abs(apart[:, a] - apart[:, b]).max() > 0.01 for a in range(5) for b in range(a))


@pytest.mark.parametrize(
    ("hyperparameters", "trainable", "fixed"),
    [
        # every layer: one kernel, and for each of 5 networks scales of inputs and outputs and a bias; a head for each
        (
            {"bins": 0, "ensemble_size": 5},
            (44 * 16 + 5 * (44 + 16 + 16)) + (16 * 8 + 5 * (16 + 8 + 8)) + 5 * (8 * 19 + 19),
            0,
        ),
        # 4 bins of 44 features have lower edge and width; 3 units of each: 4 kernels and a bias; inputs 44 + 132
        (
            {"bins": 4, "ensemble_size": 5},
            44 * (4 * 3 + 3) + (176 * 16 + 5 * (176 + 32)) + (16 * 8 + 5 * (16 + 16)) + 5 * (8 * 19 + 19),
            2 * 44 * 4,
        ),
        (
            {"bins": 4, "ensemble_size": 1},
            44 * (4 * 3 + 3) + (176 * 16 + 16) + (16 * 8 + 8) + (8 * 19 + 19),
            2 * 44 * 4,
        ),
    ],
)
def test_ensemble_and_embedding_have_the_parameters_counted_by_hand(hyperparameters, trainable, fixed):
    model = build("dnn", 44, 19, ENSEMBLE | hyperparameters)
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == trainable
    assert sum(int(np.prod(w.shape)) for w in model.non_trainable_weights) == fixed
    assert model.count_params() == trainable + fixed


def test_weights_alone_hold_ensemble_embedding_and_edges(flows, edges):
    trained = build("dnn", 44, 6, ENSEMBLE, edges)
    random_weights(trained)
    loaded = build("dnn", 44, 6, ENSEMBLE)
    loaded.set_weights(trained.get_weights())
    np.testing.assert_array_equal(loaded(flows).numpy(), trained(flows).numpy())
    assert np.abs(build("dnn", 44, 6, ENSEMBLE)(flows).numpy() - loaded(flows).numpy()).max() > 0.01


def test_logits_are_what_the_softmax_takes(flows):
    for hyperparameters in (ENSEMBLE, ENSEMBLE | {"ensemble_size": 1}):
        model = build("dnn", 44, 6, hyperparameters | {"dropout": 0.0})
        logits = keras.Model(model.input, model.get_layer("logits").output)(flows).numpy()
        np.testing.assert_allclose(softmax(logits), model(flows, training=True).numpy(), atol=1e-6)


def tokens(x, hyperparameters):
    """Hidden layers of a small transformer: one token for each feature, shape (batch, n_features, units)."""
    x = keras.layers.Dense(hyperparameters["units"])(keras.layers.Reshape((-1, 1))(x))
    return keras.layers.MultiHeadAttention(2, 4)(x, x)


def pooled_tokens(x, hyperparameters):
    return keras.layers.GlobalAveragePooling1D()(tokens(x, hyperparameters))


def test_tensors_of_three_dimensions_do_not_make_an_ensemble(flows, monkeypatch):
    monkeypatch.setitem(architectures.ARCHITECTURES, "tokens", Architecture(tokens, lambda *_: 0))
    monkeypatch.setitem(architectures.ARCHITECTURES, "pooled", Architecture(pooled_tokens, lambda *_: 0))
    hyperparameters = DEFAULTS["gru_dnn"] | {"units": 8}
    with pytest.raises(ValueError, match=r"'tokens' return shape \(None, 44, 'units'\); expected \(None, 'units'\)"):
        build("tokens", 44, 6, hyperparameters)
    model = build("pooled", 44, 6, hyperparameters)
    assert model(flows, training=True).shape == (len(flows), 6)
    assert not [layer for layer in model.layers if isinstance(layer, EnsembleMean)]


def test_an_architecture_without_ensembles_refuses_an_ensemble_size():
    with pytest.raises(ValueError, match="hidden layers of 'gru_dnn' return shape"):
        build("gru_dnn", 44, 6, DEFAULTS["gru_dnn"] | {"ensemble_size": 4})
