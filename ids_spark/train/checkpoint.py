"""Where a training run stands after an epoch: one file, replaced whole, plain arrays and JSON."""

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

_FORMAT: Final = 1
Arrays = list[NDArray[Any]]


class CheckpointUnusable(InputError):
    """Raised when a run is to go on from a checkpoint that is not its own, or is broken."""


@dataclass
class TrainingState:
    """How training went so far.

    Attributes:
        weights: Of the model after the last epoch.
        optimizer: Its state after the last epoch.
        best: Weights after the best epoch.
        best_cost: What `train.monitor` goes by, the lower the better; infinity before the first epoch.
        best_epoch: That epoch; 0 before the first.
        history: One entry for each epoch.
        seconds: Spent in all epochs, those before an interruption included.
    """

    weights: Arrays
    optimizer: Arrays
    best: Arrays
    best_cost: float = float("inf")
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


def fingerprint(*parts: object) -> str:
    """Return a hash of everything that decides the course of a run: a checkpoint goes on only where it is equal."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def write_checkpoint(uri: str, state: TrainingState, mark: str) -> None:
    """Replace the checkpoint at `uri`, whole."""
    arrays: dict[str, NDArray[Any]] = {}
    for kind, values in (("w", state.weights), ("o", state.optimizer), ("b", state.best)):
        arrays |= {f"{kind}{i:04d}": np.asarray(value) for i, value in enumerate(values)}
    facts = {
        "format": _FORMAT,
        "fingerprint": mark,
        "best_cost": state.best_cost,
        "best_epoch": state.best_epoch,
        "history": state.history,
        "seconds": state.seconds,
    }
    arrays["state"] = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    replace_bytes(uri, packed.getvalue())


def read_checkpoint(uri: str, mark: str) -> TrainingState | None:
    """Return the state that a run with this fingerprint left behind; None where there is none.

    Raises:
        CheckpointUnusable: another run's, or not a checkpoint.
    """
    if not exists(uri):
        return None
    try:
        with np.load(io.BytesIO(read_bytes(uri)), allow_pickle=False) as packed:
            state = json.loads(packed["state"].tobytes())
            arrays = {kind: _all(packed.files, packed, kind) for kind in "wob"}
        found = state["fingerprint"]
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
        raise CheckpointUnusable(f"{uri} is no checkpoint ({error!r}); train without train.resume") from error
    if found != mark:
        raise CheckpointUnusable(
            f"{uri} belongs to a run with other settings, features or seed;"
            " resume with the settings of that run, or train without train.resume"
        )
    return state


def _all(names: Sequence[str], packed: Any, kind: str) -> Arrays:
    return [packed[name] for name in sorted(names) if name != "state" and name.startswith(kind)]
