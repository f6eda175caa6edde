"""Steps of one real Horovod rank: the loss, the update of a step, and the sums of evaluation."""

from typing import Any

import horovod.tensorflow as hvd
import numpy as np
import pytest
import tensorflow as tf

from ids_spark.config.train import TrainConfig
from ids_spark.models.architectures import build, keras
from ids_spark.train.data_loader import LoadedRows
from ids_spark.train.horovod_ranks import HorovodRanks
from ids_spark.train.steps import Schedule, TrainSteps

FEATURES, CLASSES, ROWS = 5, 3, 64
HYPERPARAMETERS = {"bins": 2, "embedding": 3, "ensemble_size": 4, "dense": (12, 8), "dropout": 0.0}


@pytest.fixture(scope="module", autouse=True)
def _one_rank() -> None:
    hvd.init()
    keras.utils.set_random_seed(3)


@pytest.fixture(scope="module")
def rows() -> LoadedRows:
    """Synthetic rows whose class follows from the first feature."""
    x = np.random.default_rng(4).normal(size=(ROWS, FEATURES)).astype(np.float32)
    return LoadedRows(x, np.digitize(x[:, 0], [-0.4, 0.4]).astype(np.int32))


def steps_of(ensemble_size: int, **settings: Any) -> tuple[Any, TrainSteps]:
    """Return a fresh model and its steps."""
    hyperparameters = TrainConfig().dnn.model_dump() | HYPERPARAMETERS | {"ensemble_size": ensemble_size}
    edges = np.tile(np.array([-1.0, 0.0, 1.0], np.float32), (FEATURES, 1))
    model = build("dnn", FEATURES, CLASSES, hyperparameters, edges)
    config = TrainConfig.model_validate({"batch_size": 32, "ranks": 1, "learning_rate": 0.01} | settings)
    return model, TrainSteps(HorovodRanks(), model, config, CLASSES, ensemble_size, ROWS // config.batch_size, 7)


def cross_entropy(probabilities: np.ndarray, labels: np.ndarray, smoothing: float = 0.0) -> np.ndarray:
    """Return the cross-entropy -Σ target · ln p of each row, or of each row and network of an ensemble."""
    target = np.eye(CLASSES)[labels] * (1 - smoothing) + smoothing / CLASSES
    if probabilities.ndim == 3:
        target = target[:, None, :]
    return -(target * np.log(probabilities.astype(np.float64))).sum(axis=-1)


@pytest.mark.parametrize("ensemble_size", [1, 4])
@pytest.mark.parametrize(
    ("settings", "smoothing"),
    [
        ({"loss": "sparse"}, 0.0),
        ({"loss": "one_hot"}, 0.0),
        ({"loss": "sparse", "label_smoothing": 0.2}, 0.2),
        ({"loss": "one_hot", "label_smoothing": 0.2}, 0.2),
    ],
)
def test_the_loss_of_an_ensemble_is_the_mean_of_its_networks_losses(
    rows: LoadedRows, ensemble_size: int, settings: dict[str, Any], smoothing: float
) -> None:
    # learning rate so small that the weights of the first step are those of the last
    model, steps = steps_of(ensemble_size, learning_rate=1e-12, **settings)
    of_networks = model(rows.features, training=True).numpy()
    assert of_networks.shape == ((ROWS, ensemble_size, CLASSES) if ensemble_size > 1 else (ROWS, CLASSES))
    expected = cross_entropy(of_networks, rows.labels, smoothing)
    assert expected.shape == of_networks.shape[:-1]
    assert steps.train(iter([rows])) == pytest.approx(expected.mean(), rel=1e-5)
    if ensemble_size > 1:  # the mean of losses, and not the loss of the mean
        of_mean = cross_entropy(of_networks.mean(axis=1), rows.labels, smoothing).mean()
        assert abs(of_mean - expected.mean()) > 1e-3


@pytest.mark.parametrize("ensemble_size", [1, 4])
def test_evaluation_measures_the_mean_of_networks_without_smoothing(rows: LoadedRows, ensemble_size: int) -> None:
    model, steps = steps_of(ensemble_size, label_smoothing=0.2)
    predicted = model(rows.features).numpy()
    blocks = [LoadedRows(rows.features[:50], rows.labels[:50]), LoadedRows(rows.features[50:], rows.labels[50:])]
    found = steps.evaluate(iter(blocks))
    assert found["validation_loss"] == pytest.approx(cross_entropy(predicted, rows.labels).mean(), rel=1e-5)
    assert found["validation_accuracy"] == pytest.approx((predicted.argmax(axis=1) == rows.labels).mean())
    np.testing.assert_allclose(steps.probabilities(rows.features), predicted, atol=1e-6)


@pytest.mark.parametrize("ensemble_size", [1, 4])
def test_steps_of_a_single_rank_reduce_the_loss(rows: LoadedRows, ensemble_size: int) -> None:
    model, steps = steps_of(ensemble_size)
    before = [weight.numpy() for weight in model.trainable_weights]
    losses = [steps.train(iter([rows])) for _ in range(30)]
    assert losses[1] < losses[0]
    assert losses[-1] < 0.5 * losses[0]
    assert steps.evaluate(iter([rows]))["validation_accuracy"] > 0.9
    for old, weight in zip(before, model.trainable_weights, strict=True):
        assert np.abs(old - weight.numpy()).max() > 1e-4, weight.name  # every weight is trained
    edges = model.get_layer("piecewise_linear").get_weights()
    np.testing.assert_array_equal(edges[0], np.tile([-1.0, 0.0], (FEATURES, 1)))


def test_a_first_step_moves_every_network_against_its_own_gradient(rows: LoadedRows) -> None:
    # Adam's first step is the learning rate times the sign of the gradient. The gradient of the head's bias is the
    # mean over rows of p - y, divided by the number of networks.
    model, steps = steps_of(4, batch_size=ROWS, learning_rate=0.01)
    head = model.get_layer("logits")
    of_networks = model(rows.features, training=True).numpy()
    gradient = (of_networks - np.eye(CLASSES)[rows.labels][:, None, :]).mean(axis=0) / 4
    assert np.abs(gradient).min() > 1e-5
    before = head.get_weights()[1]
    steps.train(iter([rows]))
    np.testing.assert_allclose(head.get_weights()[1] - before, -0.01 * np.sign(gradient), rtol=1e-2)


def test_a_confident_mistake_of_a_network_keeps_its_gradient(rows: LoadedRows) -> None:
    model, steps = steps_of(4, batch_size=ROWS, learning_rate=0.01)
    head = model.get_layer("logits")
    kernel, bias = head.get_weights()
    wrong = LoadedRows(rows.features, np.zeros_like(rows.labels))
    head.set_weights([kernel * 0, bias + np.array([-40.0, 0.0, 0.0], np.float32)])  # p of the true class is 2e-18
    assert steps.train(iter([wrong])) == pytest.approx(40 + np.log(2), rel=1e-5)
    assert (head.get_weights()[1][:, 0] > -40).all()


def test_weights_and_optimizer_come_back_and_lead_to_the_same_steps(rows: LoadedRows) -> None:
    _, first = steps_of(4)
    first.train(iter([rows]))
    kept = first.weights(), first.optimizer_state()
    expected = first.train(iter([rows]))
    _, second = steps_of(4)
    second.restore(*kept)
    assert second.train(iter([rows])) == pytest.approx(expected, rel=1e-6)
    for a, b in zip(first.weights(), second.weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_block_of_several_steps_is_cut_into_batches(rows: LoadedRows) -> None:
    _, steps = steps_of(4, batch_size=16, steps_per_execution=3)
    assert steps.block_sizes == [48, 16]
    _, other = steps_of(4, batch_size=16, steps_per_execution=1)
    other.restore(steps.weights(), steps.optimizer_state())
    together = steps.train(
        iter([LoadedRows(rows.features[:48], rows.labels[:48]), LoadedRows(rows.features[48:], rows.labels[48:])])
    )
    single = [LoadedRows(rows.features[i : i + 16], rows.labels[i : i + 16]) for i in range(0, ROWS, 16)]
    assert other.train(iter(single)) == pytest.approx(together, rel=1e-6)


def test_an_ensemble_compiled_with_xla_has_the_same_loss(rows: LoadedRows) -> None:
    _, plain = steps_of(4)
    _, compiled = steps_of(4, xla=True)
    compiled.restore(plain.weights(), plain.optimizer_state())
    expected = plain.train(iter([rows]))
    assert compiled.train(iter([rows])) == pytest.approx(expected, rel=1e-5)


def rates(count: int, **settings: Any) -> list[float]:
    """Return the learning rate of each step, at ten steps an epoch."""
    schedule = Schedule(TrainConfig.model_validate(settings), 10)
    return [float(schedule(np.int64(step))) for step in range(count)]


def test_the_learning_rate_grows_with_the_batch() -> None:
    grown = {"learning_rate": 0.002, "batch_size": 1_024, "reference_batch": 128}
    assert rates(3, **grown) == pytest.approx([0.016] * 3)
    assert rates(3, learning_rate=0.002, batch_size=1_024) == pytest.approx([0.002] * 3)


def test_the_learning_rate_rises_in_even_steps_from_zero_and_is_never_zero() -> None:
    found = rates(30, learning_rate=0.3, warmup_epochs=1.5)
    assert found[:15] == pytest.approx(0.3 * np.arange(1, 16) / 15)
    assert found[15:] == pytest.approx([0.3] * 15)


@pytest.mark.parametrize("warmup", [0, 2])
def test_a_cosine_falls_from_the_peak_to_nothing_after_warm_up(warmup: int) -> None:
    found = rates(61, learning_rate=0.2, epochs=6, schedule="cosine", warmup_epochs=warmup)
    done = np.arange(61 - 10 * warmup) / (60 - 10 * warmup)
    assert found[10 * warmup :] == pytest.approx(0.1 * (1 + np.cos(np.pi * done)), abs=1e-7)
    assert max(found) == pytest.approx(0.2)


@pytest.mark.parametrize("warmup", [0, 0.25, 1.5, 3])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_schedule_is_exactly_the_formula_of_version_0_1(schedule: str, warmup: float) -> None:
    found = rates(65, learning_rate=0.003, epochs=6, schedule=schedule, warmup_epochs=warmup)
    warmup_steps, peak = np.float32(warmup * 10), np.float32(0.003)
    for step, rate in enumerate(found):
        expected = peak
        if schedule == "cosine":
            done = np.clip((np.float32(step) - warmup_steps) / np.float32(60 - warmup * 10), 0, 1)
            expected = peak * np.float32(0.5 * (1 + np.cos(np.pi * np.float64(done))))
        if warmup:
            expected = min(expected, peak * np.float32(step + 1) / warmup_steps)
        assert rate == pytest.approx(float(expected), rel=2e-6, abs=1e-9), step


def test_three_dimensions_without_an_ensemble_are_not_treated_as_one(rows: LoadedRows) -> None:
    """A network of tokens without pooling must fail; it must not get a loss for each token."""
    inputs = keras.Input((FEATURES,))
    logits = keras.layers.Dense(CLASSES, name="logits")(keras.layers.Reshape((FEATURES, 1))(inputs))
    config = TrainConfig(batch_size=32, ranks=1)
    steps = TrainSteps(
        HorovodRanks(), keras.Model(inputs, keras.layers.Softmax()(logits)), config, CLASSES, 1, ROWS // 32, 7
    )
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        steps.train(iter([rows]))
