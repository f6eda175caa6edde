"""Shared by the training cases: train rows, statements, and the figures computed from them."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

CLASSES: Final = 19
LABEL: Final = f"label{CLASSES}"
LEARNING_RATE: Final = 1e-3  # has no effect on rates
SEED: Final = 7
_LOSS_TOLERANCE: Final = 0.15  # of the last training losses of two ways to train one model at one batch size


class TrainingDiffers(RuntimeError):
    """Raised when two cases did not train the same network for the same number of steps, or one did not learn."""


@dataclass(frozen=True)
class Statement:
    """How one model was trained.

    Attributes:
        parameters: Trainable numbers of the network.
        steps_per_epoch: Global batches of an epoch.
        batch_size: Rows of a global batch.
        losses: Mean training loss of each epoch.
        seconds: Of the training steps of each epoch, including the start of the data loader, without validation.
    """

    parameters: int
    steps_per_epoch: int
    batch_size: int
    losses: Sequence[float]
    seconds: Sequence[float]

    @property
    def rows_per_s(self) -> float:
        """Rows/s of the median epoch; the first, in which steps are traced, counts only if it is the only one."""
        return self.steps_per_epoch * self.batch_size / statistics.median(self.seconds[1:] or self.seconds)


def read_statements(path: Path) -> dict[str, Statement]:
    """Return the statements of a program by model."""
    return {model: Statement(**stated) for model, stated in json.loads(path.read_text()).items()}


def read_trained(lake: Path, model: str) -> dict[str, Any]:
    """Return the `training` entry of the only version of a model that a job wrote."""
    (card,) = lake.glob(f"models/{model}-{CLASSES}-paper/*/model.json")
    training: dict[str, Any] = json.loads(card.read_text())["training"]
    return training


def statement_of(training: Mapping[str, Any]) -> Statement:
    """Return the statement for the history of one of our models."""
    history = training["history"]
    return Statement(
        parameters=training["parameters"],
        steps_per_epoch=training["steps_per_epoch"],
        batch_size=training["batch_size"],
        losses=[entry["loss"] for entry in history],
        seconds=[entry["train_seconds"] for entry in history],
    )


def seconds_to_loss(history: Sequence[Mapping[str, float]], target: float) -> tuple[float, float]:
    """Return training seconds and epochs until an epoch's validation loss is at most `target`.

    Whole epochs are counted, the first with its tracing; both are infinite if no epoch reaches it.
    """
    seconds = 0.0
    for number, entry in enumerate(history, start=1):
        seconds += entry["train_seconds"]
        if entry["validation_loss"] <= target:
            return seconds, number
    return math.inf, math.inf


def compare(one: str, first: Statement, other: str, second: Statement) -> None:
    """Check that two cases did the same work.

    Raises:
        TrainingDiffers: the message names the difference.
    """
    for what in ("parameters", "steps_per_epoch", "batch_size"):
        found, expected = getattr(first, what), getattr(second, what)
        if found != expected:
            raise TrainingDiffers(f"{what} of {one}: {found}, but {expected} of {other}")
    for name, statement in ((one, first), (other, second)):
        if len(statement.losses) > 1 and not statement.losses[-1] < statement.losses[0]:
            raise TrainingDiffers(f"{name} did not learn: training losses {list(statement.losses)}")
    apart = abs(first.losses[-1] / second.losses[-1] - 1.0)
    if len(first.losses) == len(second.losses) > 1 and not apart <= _LOSS_TOLERANCE:
        raise TrainingDiffers(
            f"last training losses of {one} and {other} are {first.losses[-1]:.4f} and {second.losses[-1]:.4f};"
            f" expected at most {_LOSS_TOLERANCE:.0%} apart"
        )


def columns(lake: str) -> tuple[str, ...]:
    """Return the feature columns of a lake, in the order of the network's inputs."""
    schema = pq.read_schema(min(Path(lake, "features", "paper", "split=train").glob("*.parquet")))
    return tuple(field.name for field in schema if str(field.type) == "float")


def train_rows(lake: str) -> int:
    """Return the number of train rows of a lake."""
    files = Path(lake, "features", "paper", "split=train").glob("*.parquet")
    return sum(pq.read_metadata(file).num_rows for file in files)


def arrays(lake: str) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return the train rows of a lake: features of shape (rows, n_features) and class ids of shape (rows,)."""
    names, rows = columns(lake), train_rows(lake)
    features, labels = np.empty((rows, len(names)), np.float32), np.empty(rows, np.int32)
    start = 0
    for file in sorted(Path(lake, "features", "paper", "split=train").glob("*.parquet")):
        table = pq.ParquetFile(file).read(columns=[*names, LABEL])
        end = start + table.num_rows
        labels[start:end] = table[LABEL].to_numpy()
        for i, name in enumerate(names):
            features[start:end, i] = table[name].to_numpy()
        start = end
    return features, labels


def parameters(model: Any) -> int:
    """Return the number of trainable numbers of a Keras model."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)
