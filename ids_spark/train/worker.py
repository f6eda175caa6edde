"""Training on one rank: a process that Horovod started, or a task of a barrier stage of Spark.

Every rank has the same weights, reads its own shard, and runs the same number of steps; gradients are averaged in one
allreduce for each step. All ranks make the same decisions, because they use the same averaged numbers.
"""

import itertools
import logging
import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import tensorflow as tf
from numpy.typing import NDArray

from ids_spark.base import process
from ids_spark.base.packaging import code_version
from ids_spark.config.train import TrainConfig
from ids_spark.lake.filesystem import write_bytes
from ids_spark.models import architectures, novelty
from ids_spark.models.artifact import Weights, read_model, write_model
from ids_spark.models.novelty import Novelty
from ids_spark.models.threshold import ValidationScores
from ids_spark.train import checkpoint, data_loader, gloo_priority, horovod_security, progress, validation, warm_start
from ids_spark.train.checkpoint import TrainingState
from ids_spark.train.ranks import Ranks
from ids_spark.train.steps import TrainSteps
from ids_spark.train.tasks import LOCAL, TrainingTask

_EVALUATED_ROWS: Final = 8_192  # in one forward pass; affects speed only
_PRODUCTS_PER_CYCLE_MS: Final = 60_000_000
"""The Horovod cycle time is scaled to the cost of a step: multiplications of a rank's forward pass for each millisecond
of it. That is about a tenth of a step of 4,096 rows of gru_dnn. An allreduce waits for the end of a cycle, and every
cycle takes CPU time from a rank."""


def train(tasks: Sequence[TrainingTask]) -> list[dict[str, Any]]:
    """Train models as one of the ranks that Horovod started; see `train_as`."""
    import horovod.tensorflow as hvd

    from ids_spark.train.horovod_ranks import HorovodRanks

    horovod_security.join_rendezvous()
    os.environ["HOROVOD_CYCLE_TIME"] = f"{cycle_ms(tasks):.3f}"  # read by `init`
    with gloo_priority.low_priority_message_threads():
        hvd.init()
    trained = train_as(HorovodRanks(), tasks)
    hvd.shutdown()
    return trained


def train_as(ranks: Ranks, tasks: Sequence[TrainingTask]) -> list[dict[str, Any]]:
    """Train models one after the other as one rank, until one diverges.

    Every rank returns the `training` entry of each model's card; when the loss is NaN or infinite, the entry is
    `diverged` with the epoch and the losses. Only rank 0 logs and writes. A model does not depend on those before it.
    """
    process.begin(logging.WARNING if ranks.rank == 0 else logging.ERROR)
    tf.get_logger().setLevel("ERROR")  # it warns of the graphs of every further model
    tf.config.threading.set_intra_op_parallelism_threads(tasks[0].threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)  # a second one would compete with the thread that reduces
    if gpus := tf.config.list_physical_devices("GPU"):  # a separate GPU for each rank of a machine
        tf.config.set_visible_devices(gpus[ranks.local_rank % len(gpus)], "GPU")
    # So that the state of dropout can be set, see TrainSteps.begin_epoch.
    tf.keras.backend.experimental.enable_tf_random_generator()
    progress_file = progress.ProgressFile(progress.progress_uri(tasks[0].checkpoint))
    trained: list[dict[str, Any]] = []
    detectors: dict[tuple[str, ...], Novelty | None] = {}
    for task in tasks:
        trained.append(_train_one(ranks, task, progress_file, detectors))
        if "diverged" in trained[-1]:
            break
    return trained


def cycle_ms(tasks: Sequence[TrainingTask]) -> float:
    """Return the Horovod cycle time in milliseconds for the cheapest of the models; the same on every rank."""
    products = min(
        architectures.products(task.card.architecture, len(task.columns), task.card.classes, task.card.hyperparameters)
        for task in tasks
    )
    config = tasks[0].config
    return config.batch_size // config.ranks * products / _PRODUCTS_PER_CYCLE_MS


def _train_one(
    ranks: Ranks,
    task: TrainingTask,
    progress_file: progress.ProgressFile,
    detectors: dict[tuple[str, ...], Novelty | None],
) -> dict[str, Any]:
    """Train one model until `train.monitor` stops improving; write it with the weights of the best epoch.

    The second detector is that of `detectors`, by columns; it is fitted and added if it is not there.
    """
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
    ensemble_size = architectures.ensemble_size_of(card.hyperparameters)
    steps = TrainSteps(
        *(ranks, model, config, len(card.class_names), ensemble_size),
        *(task.steps_per_epoch, task.seed, task.row_weights),
    )
    initial = read_model(task.initial, task.initial_sha256) if task.initial else None
    first = warm_start.initial_weights(initial, task.table.preprocessor, model) if initial else None
    state = _start(task, steps, first)
    if state.history and ranks.rank == 0:
        progress_file.add(f"{card.name} resumes after epoch {len(state.history)}")
        for entry in state.history:  # a resumed run writes a new version
            _log_to_tensorboard(task.tensorboard_dir, entry)
    diverged = _run_epochs(ranks, task, steps, state, progress_file)
    if diverged:
        return {"diverged": diverged}
    training = {
        "code_version": code_version(),
        "ranks": ranks.size,
        "all_reduce": config.all_reduce,
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
    if initial:
        training["initial"] = f"{initial.card.name}/{initial.card.version}"
    if task.columns not in detectors:
        detectors[task.columns] = fit_novelty(ranks, task)
    validation_scores, detector = score_validation_rows(ranks, task, steps, state, detectors[task.columns])
    manifest_sha256 = ""
    if ranks.rank == 0:
        preprocessor = task.table.preprocessor
        manifest_sha256 = write_model(
            task.target, replace(card, training=training), state.best, preprocessor, validation_scores, detector
        )
        if detector is None:
            progress_file.add(
                f"{card.name} has no detector of unknown attacks: it needs"
                f" {novelty.least_rows(len(task.columns))} benign train rows"
            )
        progress_file.add(f"trained {card.name} epochs={training['epochs']} best_epoch={state.best_epoch}")
    return {**training, "manifest_sha256": manifest_sha256}


def _start(task: TrainingTask, steps: TrainSteps, initial: Weights | None) -> TrainingState:
    """Return the first weights, or the checkpoint of an interrupted run; the same on every rank.

    Without `initial` they are the fresh ones.
    """
    state = None
    if task.config.resume:
        state = checkpoint.read_checkpoint(task.checkpoint, task.fingerprint)
    if state is None:
        weights = steps.weights() if initial is None else initial
        state = TrainingState(weights, steps.optimizer_state(), weights)
    steps.restore(state.weights, state.optimizer)
    steps.broadcast()
    return state


def _shard(ranks: Ranks, task: TrainingTask, split: str, *more: str) -> data_loader.Shard:
    """Return this rank's part of a split; `more` are columns after the features."""
    label, columns = f"label{task.card.classes}", (*task.columns, *more)
    rows = task.table.rows[split]
    return data_loader.Shard(f"{task.table.uri}/split={split}", columns, label, ranks.rank, ranks.size, rows)


def _weighted_shard(ranks: Ranks, task: TrainingTask, split: str) -> data_loader.Shard:
    """Return this rank's part of a split as `TrainSteps` takes it."""
    return _shard(ranks, task, split, *(() if task.row_weights is None else (LOCAL,)))


def _run_epochs(
    ranks: Ranks, task: TrainingTask, steps: TrainSteps, state: TrainingState, progress_file: progress.ProgressFile
) -> str | None:
    config, held_out = task.config, _weighted_shard(ranks, task, "validation")
    first = len(state.history) + 1
    with data_loader.read_ahead(_blocks(ranks, task, steps, first)) as blocks:
        for epoch in range(first, config.epochs + 1):
            if state.history and epoch - 1 - state.best_epoch >= config.patience:
                break  # also if the interrupted run had stopped here
            begin = time.monotonic()
            steps.begin_epoch(epoch)
            loss = steps.train(itertools.islice(blocks, len(steps.block_sizes)))
            train_seconds = time.monotonic() - begin
            with data_loader.read_ahead(data_loader.one_pass(held_out, _EVALUATED_ROWS)) as validation_blocks:
                measured = steps.evaluate(validation_blocks)
            if not (math.isfinite(loss) and math.isfinite(measured["validation_loss"])):
                return f"epoch {epoch}: loss {loss}, validation loss {measured['validation_loss']}"
            seconds = time.monotonic() - begin
            state.seconds += seconds
            state.history.append(
                {"epoch": epoch, "loss": loss, **measured, "train_seconds": train_seconds, "seconds": seconds}
            )
            state.weights, state.optimizer = steps.weights(), steps.optimizer_state()
            cost = monitored_cost(state.history[-1], config.monitor)
            if improves(cost, state.best_cost, config):
                state.best_cost, state.best_epoch, state.best = cost, epoch, state.weights
            if ranks.rank == 0:
                checkpoint.write_checkpoint(task.checkpoint, state, task.fingerprint)
                progress_file.add(_line(task, state))
                _log_to_tensorboard(task.tensorboard_dir, state.history[-1])
    return None


def monitored_cost(entry: Mapping[str, float], monitor: str) -> float:
    """Return the value to minimise: the weights of the epoch with the lowest value are kept."""
    if monitor == "last":
        return -entry["epoch"]
    return entry["validation_loss"] if monitor == "loss" else 1.0 - entry["validation_accuracy"]


def improves(cost: float, best: float, config: TrainConfig) -> bool:
    """Return whether an epoch with this value is the new best one; every epoch is where the last one is kept."""
    return config.monitor == "last" or cost < best - config.min_delta


def _blocks(ranks: Ranks, task: TrainingTask, steps: TrainSteps, first: int) -> Iterator[data_loader.LoadedRows]:
    """Return the blocks of every epoch from `first` on.

    The order in an epoch depends on seed and number of the epoch only. All epochs are one stream, so that the first
    block of the next epoch is read during validation.
    """
    seeds = (task.seed * 1_000 + epoch for epoch in range(first, task.config.epochs + 1))
    memory = task.config.cache_memory_mb * 1_000_000
    return data_loader.epochs(_weighted_shard(ranks, task, "train"), steps.block_sizes, seeds, memory)


def fit_novelty(ranks: Ranks, task: TrainingTask) -> Novelty | None:
    """Return the second detector, fitted on the first benign train rows of all ranks; None if there are too few."""
    local = task.table.local_rows("train") > 0
    shard = _shard(ranks, task, "train", *((LOCAL,) if local else ()))
    wanted = validation.NOVELTY_ROWS // ranks.size // (1 + local)
    with data_loader.read_ahead(data_loader.one_pass(shard, _EVALUATED_ROWS)) as blocks:
        parts = validation.first_benign(blocks, len(task.columns), local, wanted)
    of_data_set, own = (ranks.gathered(rows, f"novelty.benign_rows.{i}") for i, rows in enumerate(parts))
    return validation.fit_detector(of_data_set, own, local)


def score_validation_rows(
    ranks: Ranks, task: TrainingTask, steps: TrainSteps, state: TrainingState, detector: Novelty | None
) -> tuple[ValidationScores, Novelty | None]:
    """Return the validation scores of the best weights over the rows of all ranks, and the second detector with theirs.

    If the table holds out local rows, they are the benign rows. Both results are the same on every rank.
    """
    steps.restore(state.best, steps.optimizer_state())
    shard, parts = _shard(ranks, task, "validation", *validation.more_columns(task.table)), []
    wanted = validation.BASELINE_ROWS
    with data_loader.read_ahead(data_loader.one_pass(shard, _EVALUATED_ROWS)) as blocks:
        for columns, labels in blocks:
            parts.append(validation.scored(task.table, steps.probabilities, detector, columns, labels, wanted))
            enough = sum(len(part.benign) for part in parts) >= validation.BASELINE_ROWS
            wanted = 0 if enough else validation.BASELINE_ROWS
    own: tuple[NDArray[Any], ...] = validation.joined(parts)
    of_all = (ranks.gathered(array, f"validation_scores.{i}") for i, array in enumerate(own))
    return validation.stored_scores(task.table, task.card.classes, validation.ScoredRows(*of_all), detector)


def _log_to_tensorboard(folder: str, entry: dict[str, float]) -> None:
    """Add an epoch to a TensorBoard folder, as a separate file: TensorFlow itself cannot write to hdfs or s3."""
    if not folder:
        return
    with tempfile.TemporaryDirectory(prefix="ids_spark-") as local:
        with tf.summary.create_file_writer(local, filename_suffix=f".{entry['epoch']:04.0f}").as_default():
            for name, value in entry.items():
                tf.summary.scalar(name, value, step=int(entry["epoch"]))
        for path in Path(local).iterdir():
            write_bytes(f"{folder}/{path.name}", path.read_bytes())


def _line(task: TrainingTask, state: TrainingState) -> str:
    """Return the progress line of the newest epoch; `at_most_left` is the time until `train.epochs`."""
    last, done, epochs = state.history[-1], len(state.history), task.config.epochs
    rate = task.steps_per_epoch * task.config.batch_size / last["seconds"]
    measured = " ".join(f"{name}={last[name]:.4f}" for name in ("loss", "validation_loss", "validation_accuracy"))
    return (
        f"{task.card.name} epoch {done}/{epochs} {measured} best={state.best_epoch} rows/s={rate:.0f}"
        f" at_most_left={state.seconds / done * (epochs - done):.0f}s"
    )
