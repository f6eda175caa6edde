"""What one rank of a training run does, in a process that Horovod started.

Every rank holds the same weights, reads its own shard, and takes the same number of steps; gradients are averaged in
one allreduce a step. Ranks agree on every decision because they take it on the same averaged numbers.
"""

import itertools
import logging
import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import horovod.tensorflow as hvd
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ids_spark.base.logs import log_to_stderr
from ids_spark.dataset.taxonomy import BENIGN_ID
from ids_spark.lake.filesystem import write_bytes
from ids_spark.models import architectures, threshold
from ids_spark.models.artifact import write_model
from ids_spark.models.threshold import ValidationScores
from ids_spark.train import checkpoint, data_loader, gloo_priority, horovod_security, progress
from ids_spark.train.checkpoint import TrainingState
from ids_spark.train.steps import TrainSteps
from ids_spark.train.tasks import TrainingTask

_EVALUATED_ROWS: Final = 8_192  # at once; changes nothing but speed
_BASELINE_ROWS: Final = 20_000  # of each rank give the median of benign flows


def train(tasks: Sequence[TrainingTask]) -> list[dict[str, Any]]:
    """Train one model after the other as one rank, till one diverges.

    Every rank returns the `training` entry of each model's card, or, when the loss is no longer a number, an entry
    `diverged` that says when; rank 0 alone speaks and writes. A model does not depend on those before it.
    """
    horovod_security.join_rendezvous()
    with gloo_priority.low_priority_loops():
        hvd.init()
    log_to_stderr(logging.WARNING if hvd.rank() == 0 else logging.ERROR)
    tf.config.threading.set_intra_op_parallelism_threads(tasks[0].threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)  # a second one takes the core from Horovod's thread
    if gpus := tf.config.list_physical_devices("GPU"):  # one for each rank of a machine
        tf.config.set_visible_devices(gpus[hvd.local_rank() % len(gpus)], "GPU")
    tf.keras.backend.experimental.enable_tf_random_generator()  # dropout whose state can be set, see Loop.begin_epoch
    published = progress.Published(progress.progress_uri(tasks[0].checkpoint))
    trained: list[dict[str, Any]] = []
    for task in tasks:
        trained.append(_train_one(task, published))
        if "diverged" in trained[-1]:
            break
    hvd.shutdown()
    return trained


def _train_one(task: TrainingTask, published: progress.Published) -> dict[str, Any]:
    """Train one model: same weights everywhere, epochs until the validation loss stops falling, best weights kept."""
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(task.seed)
    card, config = task.card, task.config
    edges = (
        task.table.preprocessor.edges(card.features, card.hyperparameters["bins"])
        if card.hyperparameters["bins"]
        else None
    )
    model = architectures.build(
        card.architecture, len(task.columns), len(card.class_names), card.hyperparameters, edges
    )
    loop = TrainSteps(model, config, len(card.class_names), task.steps_per_epoch, task.seed)
    state = _start(task, loop)
    if state.history and hvd.rank() == 0:
        published.say(f"{card.name} goes on after epoch {len(state.history)}")
        for entry in state.history:  # a resumed run is a version of its own
            _log_to_tensorboard(task.tensorboard_dir, entry)
    diverged = _run_epochs(task, loop, state, published)
    if diverged:
        return {"diverged": diverged}
    training = {
        "ranks": hvd.size(),
        "batch_size": config.batch_size,
        "peak_learning_rate": config.peak_learning_rate,
        "schedule": config.schedule,
        "seed": task.seed,
        "train_rows": task.table.rows["train"],
        "steps_per_epoch": task.steps_per_epoch,
        "epochs": len(state.history),
        "best_epoch": state.best_epoch,
        "best_validation_loss": state.history[state.best_epoch - 1]["validation_loss"],
        "parameters": sum(math.prod(variable.shape) for variable in model.trainable_variables),
        "seconds": state.seconds,
        "history": state.history,
    }
    validation_scores = _validation_scores(task, loop, state)
    if hvd.rank() == 0:
        write_model(
            task.target, replace(card, training=training), state.best, task.table.preprocessor, validation_scores
        )
        published.say(f"trained {card.name} epochs={training['epochs']} best_epoch={state.best_epoch}")
    return training


def _start(task: TrainingTask, loop: TrainSteps) -> TrainingState:
    """Return where training begins: at fresh weights, or where an interrupted run stood; the same on every rank."""
    state = None
    if task.config.resume:
        state = checkpoint.read_checkpoint(task.checkpoint, task.fingerprint)
    if state is None:
        weights = loop.weights()
        state = TrainingState(weights, loop.optimizer_state(), weights)
    loop.restore(state.weights, state.optimizer)
    loop.broadcast()
    return state


def _shard(task: TrainingTask, split: str) -> data_loader.Shard:
    label = f"label{task.card.classes}"
    rows = task.table.rows[split]
    return data_loader.Shard(f"{task.table.uri}/split={split}", task.columns, label, hvd.rank(), hvd.size(), rows)


def _run_epochs(
    task: TrainingTask, loop: TrainSteps, state: TrainingState, published: progress.Published
) -> str | None:
    config, held_out = task.config, _shard(task, "validation")
    first = len(state.history) + 1
    with data_loader.read_ahead(_blocks(task, loop, first)) as blocks:
        for epoch in range(first, config.epochs + 1):
            if state.history and epoch - 1 - state.best_epoch >= config.patience:
                break  # also where a run goes on that had ended
            begin = time.monotonic()
            loop.begin_epoch(epoch)
            loss = loop.train(itertools.islice(blocks, len(loop.block_sizes)))
            train_seconds = time.monotonic() - begin
            with data_loader.read_ahead(data_loader.one_pass(held_out, _EVALUATED_ROWS)) as pieces:
                measured = loop.evaluate(pieces)
            if not (math.isfinite(loss) and math.isfinite(measured["validation_loss"])):
                return f"epoch {epoch}: loss {loss}, validation loss {measured['validation_loss']}"
            seconds = time.monotonic() - begin
            state.seconds += seconds
            state.history.append(
                {"epoch": epoch, "loss": loss, **measured, "train_seconds": train_seconds, "seconds": seconds}
            )
            state.weights, state.optimizer = loop.weights(), loop.optimizer_state()
            cost = _cost(state.history[-1], config.monitor)
            if cost < state.best_cost - config.min_delta:
                state.best_cost, state.best_epoch, state.best = cost, epoch, state.weights
            if hvd.rank() == 0:
                checkpoint.write_checkpoint(task.checkpoint, state, task.fingerprint)
                published.say(_line(task, state))
                _log_to_tensorboard(task.tensorboard_dir, state.history[-1])
    return None


def _cost(entry: Mapping[str, float], monitor: str) -> float:
    """Return what is to be as low as possible in the epoch whose weights are kept."""
    if monitor == "last":
        return -entry["epoch"]
    return entry["validation_loss"] if monitor == "loss" else 1.0 - entry["validation_accuracy"]


def _blocks(task: TrainingTask, loop: TrainSteps, first: int) -> Iterator[data_loader.LoadedRows]:
    """Return the blocks of every epoch from `first` on.

    An epoch's order depends on its number and not on what came before. All epochs are one stream, so that the first
    block of the next is read while this one is validated.
    """
    seeds = (task.seed * 1_000 + epoch for epoch in range(first, task.config.epochs + 1))
    return data_loader.epochs(_shard(task, "train"), loop.block_sizes, seeds, task.config.cache_memory_mb * 1_000_000)


def _validation_scores(task: TrainingTask, loop: TrainSteps, state: TrainingState) -> ValidationScores:
    """Return what the validation rows of all ranks say about the scores of the best weights; the same on every rank."""
    loop.restore(state.best, loop.optimizer_state())
    logits: list[NDArray[np.float64]] = []
    benign: list[NDArray[np.bool_]] = []
    predicted: list[NDArray[np.int32]] = []
    rows: list[NDArray[np.float32]] = []
    with data_loader.read_ahead(data_loader.one_pass(_shard(task, "validation"), _EVALUATED_ROWS)) as pieces:
        for features, labels in pieces:
            probabilities = loop.probabilities(features)
            logits.append(threshold.attack_logits(probabilities))
            benign.append(labels == BENIGN_ID)
            predicted.append(probabilities.argmax(axis=1).astype(np.int32))
            if sum(len(part) for part in rows) < _BASELINE_ROWS:
                rows.append(features[benign[-1]][:_BASELINE_ROWS])
    flags = np.concatenate(benign).astype(np.uint8)
    parts = (np.concatenate(logits), flags, np.concatenate(predicted), np.concatenate(rows))
    scores, is_benign, ids, matrix = (
        hvd.allgather(part, name=f"validation_scores.{i}").numpy() for i, part in enumerate(parts)
    )
    baseline = threshold.benign_baseline(matrix, np.ones(len(matrix), dtype=bool))
    of_benign = is_benign == 1
    counts = np.bincount(ids[of_benign] if of_benign.any() else ids, minlength=len(task.card.class_names))
    return threshold.validation_scores_of(scores, of_benign, counts, baseline)


def _log_to_tensorboard(folder: str, entry: dict[str, float]) -> None:
    """Add an epoch to a TensorBoard folder, as a file of its own; TensorFlow alone cannot write to hdfs or s3."""
    if not folder:
        return
    with tempfile.TemporaryDirectory(prefix="ids_spark-") as local:
        with tf.summary.create_file_writer(local, filename_suffix=f".{entry['epoch']:04.0f}").as_default():
            for name, value in entry.items():
                tf.summary.scalar(name, value, step=int(entry["epoch"]))
        for path in Path(local).iterdir():
            write_bytes(f"{folder}/{path.name}", path.read_bytes())


def _line(task: TrainingTask, state: TrainingState) -> str:
    """Return what is said of the epoch just ended; the time left is that of all epochs, should none stop it early."""
    last, done, epochs = state.history[-1], len(state.history), task.config.epochs
    rate = task.steps_per_epoch * task.config.batch_size / last["seconds"]
    measured = " ".join(f"{name}={last[name]:.4f}" for name in ("loss", "validation_loss", "validation_accuracy"))
    return (
        f"{task.card.name} epoch {done}/{epochs} {measured} best={state.best_epoch} rows/s={rate:.0f}"
        f" at_most_left={state.seconds / done * (epochs - done):.0f}s"
    )
