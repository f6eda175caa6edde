"""Steps of one real Horovod rank: what the loss is, what a step does, and what evaluation sums up."""

from typing import Any

import horovod.tensorflow as hvd
import numpy as np
import pytest

from ids_spark.config.train import TrainConfig
from ids_spark.models.architectures import build, keras
from ids_spark.train.data_loader import LoadedRows
from ids_spark.train.steps import Schedule, TrainSteps

FEATURES, CLASSES, ROWS = 5, 3, 64
HYPER = {"bins": 2, "embedding": 3, "members": 4, "dense": (12, 8), "dropout": 0.0}


@pytest.fixture(scope="module", autouse=True)
def _one_rank() -> None:
    hvd.init()
    keras.utils.set_random_seed(3)


@pytest.fixture(scope="module")
def rows() -> LoadedRows:
    """Synthetic rows whose class follows from the first feature."""
    x = np.random.default_rng(4).normal(size=(ROWS, FEATURES)).astype(np.float32)
    return LoadedRows(x, np.digitize(x[:, 0], [-0.4, 0.4]).astype(np.int32))


def loop_of(members: int, **settings: Any) -> tuple[Any, TrainSteps]:
    """Return a fresh model, far enough from its start that members disagree, and its loop."""
    hyperparameters = TrainConfig().dnn.model_dump() | HYPER | {"members": members}
    edges = np.tile(np.array([-1.0, 0.0, 1.0], np.float32), (FEATURES, 1))
    model = build("dnn", FEATURES, CLASSES, hyperparameters, edges)
    config = TrainConfig.model_validate({"batch_size": 32, "ranks": 1, "learning_rate": 0.01} | settings)
    return model, TrainSteps(model, config, CLASSES, ROWS // config.batch_size, 7)


def cross_entropy(probabilities: np.ndarray, labels: np.ndarray, smoothing: float = 0.0) -> np.ndarray:
    """Of every row, and member where there are several; by the definition, -Σ target · ln p."""
    target = np.eye(CLASSES)[labels] * (1 - smoothing) + smoothing / CLASSES
    if probabilities.ndim == 3:
        target = target[:, None, :]
    return -(target * np.log(probabilities.astype(np.float64))).sum(axis=-1)


@pytest.mark.parametrize("members", [1, 4])
@pytest.mark.parametrize(
    ("settings", "smoothing"),
    [
        ({"loss": "sparse"}, 0.0),
        ({"loss": "one_hot"}, 0.0),
        ({"loss": "sparse", "label_smoothing": 0.2}, 0.2),
        ({"loss": "one_hot", "label_smoothing": 0.2}, 0.2),
    ],
)
def test_the_loss_is_the_mean_of_the_members_own_losses(
    rows: LoadedRows, members: int, settings: dict[str, Any], smoothing: float
) -> None:
    # learning rate so small that the weights of the first step are those of the last
    model, loop = loop_of(members, learning_rate=1e-12, **settings)
    apart = model(rows.features, training=True).numpy()
    assert apart.shape == ((ROWS, members, CLASSES) if members > 1 else (ROWS, CLASSES))
    expected = cross_entropy(apart, rows.labels, smoothing)
    assert expected.shape == apart.shape[:-1]
    assert loop.train(iter([rows])) == pytest.approx(expected.mean(), rel=1e-5)
    if members > 1:  # the mean of losses, and not the loss of the mean
        of_mean = cross_entropy(apart.mean(axis=1), rows.labels, smoothing).mean()
        assert abs(of_mean - expected.mean()) > 1e-3


@pytest.mark.parametrize("members", [1, 4])
def test_evaluation_measures_the_mean_of_members_without_smoothing(rows: LoadedRows, members: int) -> None:
    model, loop = loop_of(members, label_smoothing=0.2)
    predicted = model(rows.features).numpy()
    pieces = [LoadedRows(rows.features[:50], rows.labels[:50]), LoadedRows(rows.features[50:], rows.labels[50:])]
    found = loop.evaluate(iter(pieces))
    assert found["validation_loss"] == pytest.approx(cross_entropy(predicted, rows.labels).mean(), rel=1e-5)
    assert found["validation_accuracy"] == pytest.approx((predicted.argmax(axis=1) == rows.labels).mean())
    np.testing.assert_allclose(loop.probabilities(rows.features), predicted, atol=1e-6)


@pytest.mark.parametrize("members", [1, 4])
def test_steps_of_a_single_rank_reduce_the_loss(rows: LoadedRows, members: int) -> None:
    model, loop = loop_of(members)
    before = [weight.numpy() for weight in model.trainable_weights]
    losses = [loop.train(iter([rows])) for _ in range(30)]
    assert losses[1] < losses[0]
    assert losses[-1] < 0.5 * losses[0]
    assert loop.evaluate(iter([rows]))["validation_accuracy"] > 0.9
    for old, weight in zip(before, model.trainable_weights, strict=True):
        assert np.abs(old - weight.numpy()).max() > 1e-4, weight.name  # nothing is left out of training
    edges = model.get_layer("piecewise_linear").get_weights()
    np.testing.assert_array_equal(edges[0], np.tile([-1.0, 0.0], (FEATURES, 1)))


def test_a_first_step_moves_every_member_against_its_own_gradient(rows: LoadedRows) -> None:
    # Adam's first step is the learning rate times the sign of the gradient. The gradient of the head's bias is the
    # mean over rows of p - y, divided by the number of members.
    model, loop = loop_of(4, batch_size=ROWS, learning_rate=0.01)
    head = model.get_layer("logits")
    apart = model(rows.features, training=True).numpy()
    gradient = (apart - np.eye(CLASSES)[rows.labels][:, None, :]).mean(axis=0) / 4
    assert np.abs(gradient).min() > 1e-5
    before = head.get_weights()[1]
    loop.train(iter([rows]))
    np.testing.assert_allclose(head.get_weights()[1] - before, -0.01 * np.sign(gradient), rtol=1e-2)


def test_a_confident_mistake_of_a_member_keeps_its_gradient(rows: LoadedRows) -> None:
    model, loop = loop_of(4, batch_size=ROWS, learning_rate=0.01)
    head = model.get_layer("logits")
    kernel, bias = head.get_weights()
    wrong = LoadedRows(rows.features, np.zeros_like(rows.labels))
    head.set_weights([kernel * 0, bias + np.array([-40.0, 0.0, 0.0], np.float32)])  # p of the true class is 2e-18
    assert loop.train(iter([wrong])) == pytest.approx(40 + np.log(2), rel=1e-5)
    assert (head.get_weights()[1][:, 0] > -40).all()


def test_weights_and_optimizer_come_back_and_lead_to_the_same_steps(rows: LoadedRows) -> None:
    _, first = loop_of(4)
    first.train(iter([rows]))
    kept = first.weights(), first.optimizer_state()
    expected = first.train(iter([rows]))
    _, second = loop_of(4)
    second.restore(*kept)
    assert second.train(iter([rows])) == pytest.approx(expected, rel=1e-6)
    for a, b in zip(first.weights(), second.weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_block_of_several_steps_is_cut_into_batches(rows: LoadedRows) -> None:
    _, loop = loop_of(4, batch_size=16, steps_per_execution=3)
    assert loop.block_sizes == [48, 16]
    _, other = loop_of(4, batch_size=16, steps_per_execution=1)
    other.restore(loop.weights(), loop.optimizer_state())
    together = loop.train(
        iter([LoadedRows(rows.features[:48], rows.labels[:48]), LoadedRows(rows.features[48:], rows.labels[48:])])
    )
    single = [LoadedRows(rows.features[i : i + 16], rows.labels[i : i + 16]) for i in range(0, ROWS, 16)]
    assert other.train(iter(single)) == pytest.approx(together, rel=1e-6)


def test_members_compiled_with_xla_have_the_same_loss(rows: LoadedRows) -> None:
    _, plain = loop_of(4)
    _, compiled = loop_of(4, xla=True)
    compiled.restore(plain.weights(), plain.optimizer_state())
    expected = plain.train(iter([rows]))
    assert compiled.train(iter([rows])) == pytest.approx(expected, rel=1e-5)


def rates(steps: int, **settings: Any) -> list[float]:
    """Return the learning rate of each step, at ten steps an epoch."""
    schedule = Schedule(TrainConfig.model_validate(settings), 10)
    return [float(schedule(np.int64(step))) for step in range(steps)]


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
