"""Real Horovod ranks on loopback: together they train as Keras does on the whole batch."""

import itertools
from typing import Any

import numpy as np
import pytest

from ids_spark.config.train import TrainConfig
from ids_spark.models.architectures import build, keras
from tests.support.two_ranks import on_two_ranks

FEATURES, CLASSES, BATCH, STEPS, EPOCHS = 6, 3, 24, 5, 4
SETTINGS = {"batch_size": BATCH, "learning_rate": 0.01, "steps_per_execution": 2}


def rows() -> tuple[np.ndarray, np.ndarray]:
    """Synthetic rows of one epoch, one global batch after the other."""
    x = np.random.default_rng(8).normal(size=(STEPS * BATCH, FEATURES)).astype(np.float32)
    return x, np.digitize(x[:, 0] + x[:, 1], [-0.5, 0.5]).astype(np.int32)


def local() -> np.ndarray:
    """Return the rows of the group of each row, 0 for four of five, which are not of the site's own nights."""
    which = np.random.default_rng(9).choice(4, STEPS * BATCH, p=[0.8, 0.05, 0.05, 0.1])
    return np.array([0, 1, 16, 9])[which].astype(np.float32)


def row_weights() -> tuple[float, float]:
    """Return the weights of a row with 0 and of one with 1, in the ratio of 1 to 5, so that the mean is 1."""
    mean = np.mean([5 * n**-0.5 if n else 1 for n in local()])
    return 1 / mean, 5 / mean


def model_of(name: str, seed: int) -> Any:
    keras.utils.set_random_seed(seed)
    hyperparameters = getattr(TrainConfig(), name).model_dump() | {"units": 8, "dense": (10, 5), "dropout": 0.0}
    return build(name, FEATURES, CLASSES, hyperparameters)


def train(name: str, *, weighted: bool = False) -> dict[str, Any]:
    """Train on this rank's share of every global batch; ranks start with different weights."""
    import horovod.tensorflow as hvd

    from ids_spark.train.data_loader import LoadedRows
    from ids_spark.train.steps import TrainSteps

    hvd.init()
    me, size = hvd.rank(), hvd.size()
    config = TrainConfig.model_validate(SETTINGS | {"ranks": size})
    steps = TrainSteps(model_of(name, 100 + me), config, CLASSES, 1, STEPS, 1, row_weights() if weighted else None)
    steps.broadcast()
    start = steps.weights()
    columns, labels = rows()
    if weighted:
        columns = np.column_stack([columns, local()])
    x, y = (part.reshape(STEPS, size, BATCH // size, *part.shape[1:])[:, me] for part in (columns, labels))
    x, y, losses = x.reshape(-1, columns.shape[1]), y.reshape(-1), []
    for epoch in range(EPOCHS):
        steps.begin_epoch(epoch)
        cuts = np.cumsum([0, *steps.block_sizes])
        losses.append(steps.train(iter([LoadedRows(x[a:b], y[a:b]) for a, b in itertools.pairwise(cuts)])))
    first = me * 50  # of the validation rows that this rank takes; the last one takes the rest
    mine = slice(first, first + 50 if me + 1 < size else None)
    measured = steps.evaluate(iter([LoadedRows(columns[mine], labels[mine])]))
    return {"start": start, "losses": losses, "weights": steps.weights(), "measured": measured}


def rank() -> list[dict[str, Any]]:
    return [train("dnn"), train("gru_dnn"), train("dnn", weighted=True)]


@pytest.fixture(scope="module")
def two_ranks() -> list[list[dict[str, Any]]]:
    """Results of each of two ranks for each model."""
    return on_two_ranks(rank)


@pytest.mark.parametrize("weighted", [False, True])
def test_ranks_train_what_keras_trains_on_the_whole_batch(
    two_ranks: list[list[dict[str, Any]]], weighted: bool
) -> None:
    oracle = model_of("dnn", 100)
    start = oracle.get_weights()
    x, y = rows()
    of_data_set, of_one = row_weights()
    weights = np.array([of_one / n**0.5 if n else of_data_set for n in local()]) if weighted else np.ones(len(y))
    assert weights.mean() == pytest.approx(1)
    oracle.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", ["accuracy"])
    fitted = oracle.fit(x, y, BATCH, EPOCHS, verbose=0, shuffle=False, sample_weight=weights)
    loss, accuracy = oracle.evaluate(x, y, verbose=0, sample_weight=weights)
    for found in (train("dnn", weighted=weighted), *(each[2 * weighted] for each in two_ranks)):  # one rank, then two
        for own, expected in zip(found["start"], start, strict=True):
            np.testing.assert_array_equal(own, expected)
        np.testing.assert_allclose(found["losses"], fitted.history["loss"], rtol=1e-5)
        for own, expected in zip(found["weights"], oracle.get_weights(), strict=True):
            np.testing.assert_allclose(own, expected, atol=2e-5)
        assert found["measured"]["validation_loss"] == pytest.approx(loss, rel=1e-4)
        assert found["measured"]["validation_accuracy"] == pytest.approx(accuracy)


def test_ranks_agree_on_every_weight_and_moving_moment(two_ranks: list[list[dict[str, Any]]]) -> None:
    (plain, first, weighted), (_, second, _) = two_ranks
    assert weighted["losses"] != plain["losses"]
    assert first["losses"] == second["losses"]
    assert first["measured"] == second["measured"]
    for a, b in zip(first["weights"], second["weights"], strict=True):
        np.testing.assert_array_equal(a, b)
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(first["start"], first["weights"], strict=True))
