import numpy as np
import pytest

from ids_spark.models import PiecewiseLinear, UnknownModel, build, keras
from ids_spark.settings import TrainConfig

DEFAULTS = {name: getattr(TrainConfig(), name).model_dump() for name in ("dnn", "gru_dnn", "lstm")}


@pytest.fixture(scope="module")
def flows():
    return np.random.default_rng(2).normal(0, 2, (50, 44)).astype(np.float32)


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
        # GRU as in cuDNN: three gates, each with input and recurrent weights and two biases; then normalisation of 64
        # units with scale, shift (trained), mean, variance (not trained); then the dense layers.
        (
            "gru_dnn",
            3 * (44 * 64 + 64 * 64 + 2 * 64) + 2 * 64 + (64 * 64 + 64) + (64 * 32 + 32) + (32 * 19 + 19),
            2 * 64,
        ),
    ],
)
def test_default_models_have_the_parameters_counted_by_hand(name, trainable, fixed):
    model = build(name, 44, 19, DEFAULTS[name])
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == trainable
    assert sum(int(np.prod(w.shape)) for w in model.non_trainable_weights) == fixed
    assert model.count_params() == {"dnn": 5_587, "gru_dnn": 28_243}[name]


def test_hyper_parameters_set_units_and_dropout():
    model = build("gru_dnn", 5, 3, DEFAULTS["gru_dnn"] | {"units": 7, "dense": (11, 4, 2), "dropout": 0.25})
    layers = [(type(x).__name__, getattr(x, "units", getattr(x, "rate", None))) for x in model.layers]
    assert [x for x in layers if x[0] in ("GRU", "Dropout", "Dense")] == [
        ("GRU", 7),
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


def test_the_unrolled_gru_computes_what_a_looped_one_does(flows):
    model = build("gru_dnn", 44, 19, DEFAULTS["gru_dnn"])
    rng = np.random.default_rng(4)
    weights = [rng.uniform(0.1, 1.0, w.shape).astype(np.float32) * 0.3 for w in model.get_weights()]
    model.set_weights(weights)
    inputs = keras.Input((1, 44))
    x = keras.layers.GRU(64, unroll=False)(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dense(64, activation="relu")(x)
    x = keras.layers.Dense(32, activation="relu")(x)
    looped = keras.Model(inputs, keras.layers.Dense(19, activation="softmax")(x))
    looped.set_weights(weights)
    expected = looped.predict(flows[:, None, :], verbose=0)
    np.testing.assert_allclose(model.predict(flows, verbose=0), expected, atol=1e-6)
    assert expected.std(axis=0).max() > 1e-3  # the inputs matter


@pytest.mark.parametrize("name", ["dnn", "gru_dnn", "lstm"])
def test_weights_alone_carry_a_model(flows, name):
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


def test_an_encoded_model_carries_its_edges_in_its_weights(flows):
    hyper = DEFAULTS["gru_dnn"] | {"bins": 4}
    edges = np.sort(np.random.default_rng(1).normal(size=(44, 5)), axis=1).astype(np.float32)
    trained = build("gru_dnn", 44, 6, hyper, edges)
    loaded = build("gru_dnn", 44, 6, hyper)
    loaded.set_weights(trained.get_weights())
    np.testing.assert_allclose(loaded.predict(flows, verbose=0), trained.predict(flows, verbose=0), atol=1e-6)
    assert not np.allclose(build("gru_dnn", 44, 6, hyper).predict(flows, verbose=0), loaded.predict(flows, verbose=0))


def test_the_unrolled_lstm_computes_what_a_looped_one_does(flows):
    model = build("lstm", 44, 19, DEFAULTS["lstm"])
    looped = keras.layers.LSTM(64, unroll=False)
    inner = next(layer for layer in model.layers if isinstance(layer, keras.layers.LSTM))
    expected = looped(flows[:, None, :])
    looped.set_weights(inner.get_weights())
    expected = looped(flows[:, None, :]).numpy()
    np.testing.assert_allclose(inner(flows[:, None, :]).numpy(), expected, atol=1e-6)
