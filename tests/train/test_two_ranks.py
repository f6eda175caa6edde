"""Real ranks on loopback, of Horovod and of XGBoost: together they train as Keras does on the whole batch."""

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from ids_spark.base.errors import InputError
from ids_spark.config.train import TrainConfig
from ids_spark.models.architectures import build, keras
from ids_spark.train.barrier_ranks import TaskLost
from ids_spark.train.ranks import Ranks
from tests.support.two_ranks import on_two_ranks, on_two_tasks
from tests.support.workers import end_workers

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


def train(ranks: Ranks, name: str, *, weighted: bool = False) -> dict[str, Any]:
    """Train on this rank's share of every global batch; ranks start with different weights."""
    from ids_spark.train.data_loader import LoadedRows
    from ids_spark.train.steps import TrainSteps

    me, size = ranks.rank, ranks.size
    config = TrainConfig.model_validate(SETTINGS | {"ranks": size})
    steps = TrainSteps(
        ranks, model_of(name, 100 + me), config, CLASSES, 1, STEPS, 1, row_weights() if weighted else None
    )
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


def trained(ranks: Ranks) -> list[dict[str, Any]]:
    return [train(ranks, "dnn"), train(ranks, "gru_dnn"), train(ranks, "dnn", weighted=True)]


def horovod_ranks() -> Ranks:
    import horovod.tensorflow as hvd

    from ids_spark.train.horovod_ranks import HorovodRanks

    hvd.init()
    return HorovodRanks()


@pytest.fixture(scope="module")
def two_ranks() -> list[list[dict[str, Any]]]:
    """Results of each of two ranks for each model."""
    return on_two_ranks(lambda: trained(horovod_ranks()))


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
    for found in (
        train(horovod_ranks(), "dnn", weighted=weighted),
        *(each[2 * weighted] for each in two_ranks),
    ):  # one rank, then two
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


def test_xgboosts_all_reduce_leads_to_the_weights_of_horovods(
    two_ranks: list[list[dict[str, Any]]], spark: SparkSession
) -> None:
    found = on_two_tasks(spark, lambda ranks: (trained(ranks), gathered(ranks)))
    for (models, arrays), expected in zip(found, two_ranks, strict=True):
        for own, model in zip(models, expected, strict=True):
            assert (own["losses"], own["measured"]) == (model["losses"], model["measured"])
            for name in ("start", "weights"):
                for a, b in zip(own[name], model[name], strict=True):
                    np.testing.assert_array_equal(a, b)  # to the bit: with two ranks a sum has one order
        floats, integers, none = arrays
        np.testing.assert_array_equal(floats, np.array([[0, np.nan], [np.inf, 1], [1, 1]], dtype=np.float32))
        assert (integers.dtype, integers.tolist()) == (np.int32, [-3, 7])
        assert none.shape == (0, 4)


def gathered(ranks: Ranks) -> list[np.ndarray]:
    """Rows of both ranks: two of the first and one of the second, one of the second only, none."""
    floats = [[[0, np.nan], [np.inf, 1]], [[1, 1]]][ranks.rank]
    integers = [[], [-3, 7]][ranks.rank]
    rows = (np.array(floats, np.float32), np.array(integers, np.int32), np.zeros((0, 4), np.float32))
    return [ranks.gathered(each, str(i)) for i, each in enumerate(rows)]


@pytest.fixture
def ended(spark: SparkSession) -> Iterator[None]:
    """Ends the Python workers after the test."""
    yield
    end_workers(spark)


@pytest.mark.usefixtures("ended")
@pytest.mark.parametrize("failing", [0, 1])
def test_a_rank_that_fails_ends_the_others_and_is_named(spark: SparkSession, failing: int) -> None:
    def work(ranks: Ranks) -> None:
        if ranks.rank == failing:
            raise ValueError("of a rank")
        ranks.gathered(np.ones(3), "waits for the other")

    with pytest.raises(TaskLost, match=f"rank {failing}: ValueError: of a rank"):
        on_two_tasks(spark, work)


@pytest.mark.usefixtures("ended")
@pytest.mark.parametrize("killed", [0, 1])
def test_a_rank_that_is_killed_ends_the_others_and_none_starts_again(
    spark: SparkSession, tmp_path: Path, killed: int
) -> None:
    def work(ranks: Ranks) -> None:
        (tmp_path / f"{os.getpid()}-{ranks.rank}").touch()
        if ranks.rank == killed:
            os.kill(os.getpid(), signal.SIGKILL)
        ranks.gathered(np.ones(3), "waits for the other")

    with pytest.raises(Py4JJavaError, match=f"task ResultTask.*{killed}.* finished unsuccessfully"):
        on_two_tasks(spark, work)
    assert sum(path.name.endswith(f"-{killed}") for path in tmp_path.iterdir()) == 1


@pytest.mark.usefixtures("ended")
def test_an_error_of_the_input_reaches_the_driver_as_it_is(spark: SparkSession) -> None:
    def work(ranks: Ranks) -> None:
        raise InputError(f"found {ranks.size} ranks")

    with pytest.raises(InputError, match="found 2 ranks"):
        on_two_tasks(spark, work)
