"""Checkpoints: the state of a training run after an epoch, as one file of plain arrays and JSON."""

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ids_spark.base.errors import InputError
from ids_spark.lake.filesystem import exists, read_bytes, replace_bytes

_FORMAT: Final = 2
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
    arrays["state"] = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)
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
        with np.load(io.BytesIO(read_bytes(uri)), allow_pickle=False) as packed:
            state = json.loads(packed["state"].tobytes())
            arrays = {kind: _all(packed.files, packed, kind) for kind in "wob"}
        found, found_format = state["fingerprint"], state["format"]
        state = TrainingState(
            arrays["w"],
            arrays["o"],
            arrays["b"],
            state["best_cost"],
            state["best_epoch"],
            state["history"],
            state["seconds"],
        )
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointUnusable(f"{uri} is not a checkpoint ({error!r}); train without train.resume") from error
    if found_format != _FORMAT:
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


def _all(names: Sequence[str], packed: Any, kind: str) -> Arrays:
    return [packed[name] for name in sorted(names) if name != "state" and name.startswith(kind)]
