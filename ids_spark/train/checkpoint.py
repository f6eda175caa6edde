"""Checkpoints: the state of a training run after an epoch, as one file of plain arrays and JSON."""

import hashlib
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ids_spark.base import json_text, npz
from ids_spark.base.errors import InputError
from ids_spark.lake.filesystem import exists, read_bytes, replace_bytes

_FORMAT: Final = 2
_LONGEST_REASON: Final = 300
_FORMAT_OF_0_1: Final = 1
"""Format of version 0.1, whose settings have other names, so that its fingerprint cannot be compared."""
Arrays = list[NDArray[Any]]


class CheckpointUnusable(InputError):
    """Raised when a checkpoint is of another run or version, or damaged."""


@dataclass
class TrainingState:
    """The state of a training run.

    Attributes:
        weights: Weights of the model after the last epoch.
        optimizer: State of the optimizer after the last epoch.
        best: Weights after the best epoch.
        best_cost: Lowest value of the metric of `train.monitor`; infinity before the first epoch.
        best_epoch: The best epoch; 0 before the first.
        history: One entry for each epoch.
        seconds: Duration of all epochs, including those before an interruption.
    """

    weights: Arrays
    optimizer: Arrays
    best: Arrays
    best_cost: float = float("inf")
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


def fingerprint(*parts: object) -> str:
    """Return a hash of everything that determines the result of a run; a run resumes only with an equal hash."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def write_checkpoint(uri: str, state: TrainingState, fingerprint: str) -> None:
    """Replace the checkpoint at `uri` atomically."""
    arrays: dict[str, NDArray[Any]] = {}
    for kind, values in (("w", state.weights), ("o", state.optimizer), ("b", state.best)):
        arrays |= {f"{kind}{i:04d}": np.asarray(value) for i, value in enumerate(values)}
    facts = {
        "format": _FORMAT,
        "fingerprint": fingerprint,
        "best_cost": state.best_cost,
        "best_epoch": state.best_epoch,
        "history": state.history,
        "seconds": state.seconds,
    }
    arrays["state"] = np.frombuffer(json.dumps(facts, allow_nan=False).encode(), dtype=np.uint8)
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    replace_bytes(uri, packed.getvalue())


def read_checkpoint(uri: str, fingerprint: str) -> TrainingState | None:
    """Return the state of the run with this fingerprint; None if there is no checkpoint.

    Raises:
        CheckpointUnusable: the checkpoint is of another run or another format, or cannot be parsed.
    """
    if not exists(uri):
        return None
    try:
        packed = npz.read_npz(read_bytes(uri, npz.MOST_BYTES))
        facts = json_text.loads(packed["state"].tobytes())
        found, found_format = facts["fingerprint"], facts["format"]
        state = TrainingState(
            _all(packed, "w"),
            _all(packed, "o"),
            _all(packed, "b"),
            facts["best_cost"],
            facts["best_epoch"],
            facts["history"],
            facts["seconds"],
        )
        if found_format == _FORMAT:
            _check(state)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(repr(error).split())[:_LONGEST_REASON]
        raise CheckpointUnusable(f"{uri} is not a checkpoint ({reason}); train without train.resume") from error
    if found_format != _FORMAT:
        found_format = str(found_format)[:80] if type(found_format) is not int else found_format
        version = " (version 0.1)" if found_format == _FORMAT_OF_0_1 else ""
        raise CheckpointUnusable(
            f"{uri}: found checkpoint format {found_format}{version}; expected {_FORMAT};"
            " resume with the version that wrote it, or train without train.resume"
        )
    if found != fingerprint:
        raise CheckpointUnusable(
            f"{uri} is of a run with other settings, features or seed;"
            " resume with the settings of that run, or train without train.resume"
        )
    return state


def _all(packed: Mapping[str, NDArray[Any]], kind: str) -> Arrays:
    return [packed[name] for name in sorted(packed) if name != "state" and name.startswith(kind)]


def _check(state: TrainingState) -> None:
    """Check that arrays and facts of a checkpoint fit each other.

    Raises:
        ValueError: they do not; a number is missing, infinite or of another type.
        KeyError, TypeError, AttributeError: the history does not hold one entry of numbers for each epoch.
    """
    if [w.shape for w in state.weights] != [w.shape for w in state.best] or not state.weights:
        raise ValueError("the best weights have other shapes than the last ones")
    if not isinstance(state.history, list) or type(state.best_epoch) is not int:
        raise ValueError("history or best_epoch is of another type")
    if [entry["epoch"] for entry in state.history] != [*range(1, len(state.history) + 1)]:
        raise ValueError("the history does not hold one entry for each epoch")
    if not 0 <= state.best_epoch <= len(state.history):
        raise ValueError(f"the best epoch is {state.best_epoch} of {len(state.history)}")
    numbers = [state.best_cost, state.seconds, *(value for entry in state.history for value in entry.values())]
    if any(type(x) not in (int, float) or not math.isfinite(x) for x in numbers if x != math.inf):
        raise ValueError("best_cost, seconds or a value of the history is not a finite number")
