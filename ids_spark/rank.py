"""What one rank of a training run does, in a process that Horovod started.

Every rank holds the same weights, reads its own shard, and takes the same number of steps; gradients are averaged in
one allreduce a step. Ranks agree on every decision because they take it on the same averaged numbers. Only this module
and `training` use Horovod.
"""

import logging
import time
from dataclasses import dataclass, field, replace
from typing import Any

import horovod.tensorflow as hvd
import numpy as np
import tensorflow as tf

from ids_spark import feed, models
from ids_spark.config import TrainConfig
from ids_spark.logs import log_to_stderr
from ids_spark.model_store import Weights, write
from ids_spark.training import Task

log = logging.getLogger(__name__)

_EVALUATION_BATCH = 4096  # rows; changes nothing but speed


@dataclass
class _Course:
    """How training went so far, and the best weights of it.

    Attributes:
        history: One entry for each epoch.
        best: Weights after the epoch with the lowest validation loss.
        best_loss: That loss.
        best_epoch: That epoch; 0 before the first.
        begin: When training began, on the monotonic clock.
    """

    best: Weights
    best_loss: float = np.inf
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    begin: float = field(default_factory=time.monotonic)


def train(task: Task) -> dict[str, Any]:
    """Train as one rank: same weights everywhere, epochs until the validation loss stops falling, best weights kept.

    Every rank returns the `training` entry of the model's card; rank 0 alone logs and writes.
    """
    hvd.init()
    rank, size = hvd.rank(), hvd.size()
    log_to_stderr(logging.INFO if rank == 0 else logging.ERROR)
    tf.config.threading.set_intra_op_parallelism_threads(task.threads)
    tf.config.threading.set_inter_op_parallelism_threads(2)
    tf.keras.utils.set_random_seed(task.seed + rank)  # unlike dropout on each rank; weights are broadcast below

    model = models.build(task.card.architecture, len(task.columns), len(task.card.class_names), task.card.hyper)
    hvd.broadcast_variables(model.variables, root_rank=0)
    loop = _Loop(model, task.config, len(task.card.class_names))
    course = _run_epochs(task, model, loop, rank, size)
    training = {
        "ranks": size,
        "batch_size": task.config.batch_size,
        "learning_rate": task.config.learning_rate,
        "loss": task.config.loss,
        "seed": task.seed,
        "train_rows": task.table.rows["train"],
        "steps_per_epoch": task.steps_per_epoch,
        "epochs": len(course.history),
        "best_epoch": course.best_epoch,
        "best_validation_loss": float(course.best_loss),
        "parameters": int(model.count_params()),
        "seconds": time.monotonic() - course.begin,
        "history": course.history,
    }
    if rank == 0:
        write(task.target, replace(task.card, training=training), course.best, task.table.preprocessor)
    hvd.shutdown()
    return training


def _run_epochs(task: Task, model: Any, loop: "_Loop", rank: int, size: int) -> _Course:
    config, course, label = task.config, _Course(best=model.get_weights()), f"label{task.card.classes}"

    def shard(split: str) -> feed.Shard:
        return feed.Shard(f"{task.table.uri}/split={split}", task.columns, label, rank, size, task.seed)

    with feed.batches(shard("train"), config.batch_size // size, endless=True) as dataset:
        rows = iter(dataset)
        for epoch in range(1, config.epochs + 1):
            begin = time.monotonic()
            loss = loop.train(rows, task.steps_per_epoch)
            with feed.batches(shard("validation"), _EVALUATION_BATCH, endless=False) as held_out:
                measured = loop.evaluate(held_out)
            course.history.append({"epoch": epoch, "loss": loss, **measured, "seconds": time.monotonic() - begin})
            if measured["validation_loss"] < course.best_loss - config.min_delta:
                course.best_loss, course.best_epoch = measured["validation_loss"], epoch
                course.best = model.get_weights()
            _log_progress(task, course)
            if epoch - course.best_epoch >= config.patience:
                break
    return course


def _log_progress(task: Task, course: _Course) -> None:
    """Log one line for the epoch just ended; the time left is that of all epochs, early stopping may save some."""
    last, done = course.history[-1], len(course.history)
    left = (time.monotonic() - course.begin) / done * (task.config.epochs - done)
    log.info(
        "%s epoch %d/%d loss=%.4f validation_loss=%.4f validation_accuracy=%.4f best=%d rows/s=%.0f at_most_left=%.0fs",
        task.card.name,
        done,
        task.config.epochs,
        last["loss"],
        last["validation_loss"],
        last["validation_accuracy"],
        course.best_epoch,
        task.steps_per_epoch * task.config.batch_size / last["seconds"],
        left,
    )


class _Loop:
    """Training and evaluation steps of one rank, each compiled once.

    Args:
        model: Uncompiled Keras model; this rank's copy.
        config: Training settings.
        n_classes: Outputs of the model.
    """

    def __init__(self, model: Any, config: TrainConfig, n_classes: int) -> None:
        self._model, self._n_classes, self._config = model, n_classes, config
        self._optimizer = tf.keras.optimizers.Adam(config.learning_rate)
        self._optimizer.build(model.trainable_variables)
        self._train_steps = tf.function(self._take_steps, reduce_retracing=True)
        self._evaluate = tf.function(self._sums, reduce_retracing=True)

    def train(self, rows: Any, steps: int) -> float:
        """Take the steps of an epoch; return the mean loss over steps and ranks."""
        total, left = 0.0, steps
        while left:
            chunk = min(self._config.steps_per_execution, left)
            total += float(self._train_steps(rows, tf.constant(chunk)))
            left -= chunk
        self._average_statistics()
        return float(hvd.allreduce(tf.constant(total / steps, tf.float64), op=hvd.Average, name="loss"))

    def evaluate(self, rows: Any) -> dict[str, float]:
        """Return loss and accuracy over the rows of all ranks together."""
        loss, right, count = hvd.allreduce(self._evaluate(rows), op=hvd.Sum, name="validation").numpy()
        return {"validation_loss": float(loss / count), "validation_accuracy": float(right / count)}

    def _take_steps(self, rows: Any, steps: Any) -> Any:
        variables, total = self._model.trainable_variables, tf.constant(0.0)
        for _ in tf.range(steps):
            features, labels = next(rows)
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(self._losses(labels, self._model(features, training=True)))
            gradients = _averaged(tape.gradient(loss, variables))
            self._optimizer.apply_gradients(zip(gradients, variables, strict=True))
            total += loss
        return total

    def _sums(self, rows: Any) -> Any:
        total = tf.zeros(3, tf.float64)
        for features, labels in rows:
            predicted = self._model(features, training=False)
            right = tf.equal(tf.argmax(predicted, axis=1, output_type=tf.int32), labels)
            parts = (
                tf.reduce_sum(self._losses(labels, predicted)),
                tf.reduce_sum(tf.cast(right, tf.float32)),
                tf.size(labels),
            )
            total += tf.stack([tf.cast(part, tf.float64) for part in parts])
        return total

    def _losses(self, labels: Any, predicted: Any) -> Any:
        if self._config.loss == "one_hot":
            return tf.keras.losses.categorical_crossentropy(tf.one_hot(labels, self._n_classes), predicted)
        return tf.keras.losses.sparse_categorical_crossentropy(labels, predicted)

    def _average_statistics(self) -> None:
        """Average what layers gather on their own shard (batch-normalisation's moving moments)."""
        for i, variable in enumerate(self._model.non_trainable_variables):
            if variable.dtype.is_floating:
                variable.assign(hvd.allreduce(variable, op=hvd.Average, name=f"statistics.{i}"))


def _averaged(gradients: Any) -> Any:
    """Average gradients over ranks as one flat tensor: one message a step, whatever the number of layers."""
    if hvd.size() == 1:
        return gradients
    flat = tf.concat([tf.reshape(gradient, [-1]) for gradient in gradients], axis=0)
    flat = hvd.allreduce(flat, op=hvd.Average, name="gradients")
    parts = tf.split(flat, [gradient.shape.num_elements() for gradient in gradients])
    return [tf.reshape(part, gradient.shape) for part, gradient in zip(parts, gradients, strict=True)]
