"""Data-parallel training: what one rank does, and how all ranks are started. The only place that uses Horovod.

Every rank holds the same weights, reads its own shard, and takes the same number of steps; gradients are averaged in
one allreduce a step. Ranks agree on every decision because they take it on the same averaged numbers.
"""

import io
import logging
import re
import sys
import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from pyspark import SparkContext

from ids_spark.config import TrainConfig
from ids_spark.errors import InputError
from ids_spark.logs import log_to_stderr
from ids_spark.model_store import Card, Weights, write
from ids_spark.preprocess import Preprocessor
from ids_spark.rank_start import packed

log = logging.getLogger(__name__)

# Gradients of these networks are a few kilobytes: what an allreduce costs is the wait for Horovod's next cycle.
_HOROVOD: Final = {"HOROVOD_CYCLE_TIME": "0", "HOROVOD_LOG_LEVEL": "error", "TF_CPP_MIN_LOG_LEVEL": "2"}


class TooFewRows(InputError):
    """Raised when the train split does not fill one step of all ranks."""


@dataclass(frozen=True)
class Task:
    """Everything a rank needs to train one model; small, sent to each.

    Attributes:
        features: URL of `features/<recipe>`.
        target: URI of the staged model directory.
        card: What is being trained; rank 0 adds the history.
        columns: Columns of `features/`, in input order.
        label: Label column of the model's level.
        preprocessor: Stored with the model.
        config: Training settings.
        train_rows: Rows of the train split.
        seed: Of weights, dropout and shuffle.
        threads: TensorFlow threads of a rank.
    """

    features: str
    target: str
    card: Card
    columns: tuple[str, ...]
    label: str
    preprocessor: Preprocessor
    config: TrainConfig
    train_rows: int
    seed: int
    threads: int

    @property
    def steps_per_epoch(self) -> int:
        """Steps of every rank: whole global batches in the train split."""
        return self.train_rows // self.config.batch_size


class _RankOutput(io.TextIOBase):
    """Passes the ranks' output on to this process without Horovod's prefix on every line."""

    def write(self, text: str) -> int:
        sys.stderr.write(re.sub(r"^\[\d+\]<std(?:out|err)>:", "", text, flags=re.MULTILINE))
        sys.stderr.flush()
        return len(text)


def launch(spark_context: SparkContext, task: Task) -> dict[str, Any]:
    """Train one model on `task.config.ranks` Spark tasks; rank 0 writes the model directory.

    Returns:
        The `training` entry of the model's card.

    Raises:
        TooFewRows: when there is less than one global batch, or there are fewer task slots than ranks.
    """
    import horovod.spark

    if task.steps_per_epoch < 1:
        raise TooFewRows(
            f"{task.features}/split=train has {task.train_rows} rows, less than one global batch of"
            f" {task.config.batch_size}; set train.batch_size lower"
        )
    ranks = task.config.ranks
    local = (spark_context.master or "").startswith("local")
    if local and spark_context.defaultParallelism < ranks:
        raise TooFewRows(
            f"train.ranks is {ranks}, but {spark_context.master} runs {spark_context.defaultParallelism} tasks at once;"
            f" use --master 'local[{ranks}]' or set train.ranks lower"
        )
    start, arguments = packed(train_fn, task)
    results: list[dict[str, Any]] = horovod.spark.run(
        start,
        args=arguments,
        num_proc=ranks,
        start_timeout=task.config.start_timeout,
        use_gloo=True,
        env=_HOROVOD,
        nics={"lo"} if local else None,
        stdout=_RankOutput(),
        stderr=_RankOutput(),
        verbose=0,
    )
    return results[0]


def train_fn(task: Task) -> dict[str, Any]:
    """Train as one rank: start, same weights everywhere, epochs until the validation loss stops falling, write.

    Runs inside a process that Horovod started. Every rank returns the history; only rank 0 logs and writes.
    """
    import horovod.tensorflow as hvd
    import tensorflow as tf

    from ids_spark import feed, models

    hvd.init()
    rank, size = hvd.rank(), hvd.size()
    log_to_stderr(logging.INFO if rank == 0 else logging.ERROR)
    tf.config.threading.set_intra_op_parallelism_threads(task.threads)
    tf.config.threading.set_inter_op_parallelism_threads(2)
    tf.keras.utils.set_random_seed(task.seed + rank)  # unlike dropout on each rank; weights are broadcast below

    config, card = task.config, task.card
    model = models.build(card.architecture, len(task.columns), len(card.class_names), card.hyper)
    hvd.broadcast_variables(model.variables, root_rank=0)
    loop = _Loop(model, config, len(card.class_names))

    def shard(split: str) -> feed.Shard:
        return feed.Shard(f"{task.features}/split={split}", task.columns, task.label, rank, size, task.seed)

    history: list[dict[str, float]] = []
    best: Weights = model.get_weights()
    best_loss, best_epoch = np.inf, 0
    begin = time.monotonic()
    with feed.batches(shard("train"), config.batch_size // size, endless=True) as dataset:
        rows = iter(dataset)
        for epoch in range(1, config.epochs + 1):
            epoch_begin = time.monotonic()
            loss = loop.train(rows, task.steps_per_epoch)
            with feed.batches(shard("validation"), 4096, endless=False) as held_out:
                measured = loop.evaluate(held_out)
            seconds = time.monotonic() - epoch_begin
            history.append({"epoch": epoch, "loss": loss, **measured, "seconds": seconds})
            if measured["validation_loss"] < best_loss - config.min_delta:
                best_loss, best_epoch, best = measured["validation_loss"], epoch, model.get_weights()
            _progress(task, history, best_epoch, begin)
            if epoch - best_epoch >= config.patience:
                break
    training = {
        "ranks": size,
        "batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
        "loss": config.loss,
        "seed": task.seed,
        "train_rows": task.train_rows,
        "steps_per_epoch": task.steps_per_epoch,
        "epochs": len(history),
        "best_epoch": best_epoch,
        "best_validation_loss": float(best_loss),
        "parameters": int(model.count_params()),
        "seconds": time.monotonic() - begin,
        "history": history,
    }
    if rank == 0:
        write(task.target, Card(**{**card.__dict__, "training": training}), best, task.preprocessor)
    hvd.shutdown()
    return training


def _progress(task: Task, history: list[dict[str, float]], best_epoch: int, begin: float) -> None:
    """Log one line for the epoch just ended, with the time left if no epoch is saved by early stopping."""
    last, done = history[-1], len(history)
    left = (time.monotonic() - begin) / done * (task.config.epochs - done)
    log.info(
        "%s epoch %d/%d loss=%.4f validation_loss=%.4f validation_accuracy=%.4f best=%d rows/s=%.0f at_most_left=%.0fs",
        task.card.name,
        done,
        task.config.epochs,
        last["loss"],
        last["validation_loss"],
        last["validation_accuracy"],
        best_epoch,
        task.steps_per_epoch * task.config.batch_size / last["seconds"],
        left,
    )


class _Loop:
    """Training and evaluation steps of one rank, compiled once.

    Args:
        model: Uncompiled Keras model; this rank's copy.
        config: Training settings.
        n_classes: Outputs of the model.
    """

    def __init__(self, model: Any, config: TrainConfig, n_classes: int) -> None:
        import horovod.tensorflow as hvd
        import tensorflow as tf

        self._hvd, self._tf, self._model = hvd, tf, model
        self._chunk = config.steps_per_execution
        optimizer = tf.keras.optimizers.Adam(config.learning_rate)
        optimizer.build(model.trainable_variables)
        one_hot = config.loss == "one_hot"
        shapes = [variable.shape for variable in model.trainable_variables]
        sizes = [shape.num_elements() for shape in shapes]

        def losses(labels: Any, predicted: Any) -> Any:
            if one_hot:
                return tf.keras.losses.categorical_crossentropy(tf.one_hot(labels, n_classes), predicted)
            return tf.keras.losses.sparse_categorical_crossentropy(labels, predicted)

        def averaged(gradients: Any) -> Any:
            if hvd.size() == 1:
                return gradients
            # One flat tensor: one message a step whatever the number of layers.
            flat = tf.concat([tf.reshape(gradient, [-1]) for gradient in gradients], axis=0)
            flat = hvd.allreduce(flat, op=hvd.Average, name="gradients")
            return [tf.reshape(p, s) for p, s in zip(tf.split(flat, sizes), shapes, strict=True)]

        def train_steps(rows: Any, steps: Any) -> Any:
            total = tf.constant(0.0)
            for _ in tf.range(steps):
                features, labels = next(rows)
                with tf.GradientTape() as tape:
                    loss = tf.reduce_mean(losses(labels, model(features, training=True)))
                gradients = tape.gradient(loss, model.trainable_variables)
                optimizer.apply_gradients(zip(averaged(gradients), model.trainable_variables, strict=True))
                total += loss
            return total

        def evaluate(rows: Any) -> Any:
            total = tf.zeros(3, tf.float64)
            for features, labels in rows:
                predicted = model(features, training=False)
                right = tf.equal(tf.argmax(predicted, axis=1, output_type=tf.int32), labels)
                parts = (
                    tf.reduce_sum(losses(labels, predicted)),
                    tf.reduce_sum(tf.cast(right, tf.float32)),
                    tf.size(labels),
                )
                total += tf.stack([tf.cast(part, tf.float64) for part in parts])
            return total

        self._train_steps = tf.function(train_steps, reduce_retracing=True)
        self._evaluate = tf.function(evaluate, reduce_retracing=True)

    def train(self, rows: Any, steps: int) -> float:
        """Take the steps of an epoch; return the mean loss over steps and ranks."""
        tf, hvd, total, left = self._tf, self._hvd, 0.0, steps
        while left:
            chunk = min(self._chunk, left)
            total += float(self._train_steps(rows, tf.constant(chunk)))
            left -= chunk
        self._average_statistics()
        return float(hvd.allreduce(tf.constant(total / steps, tf.float64), op=hvd.Average, name="loss"))

    def evaluate(self, rows: Any) -> dict[str, float]:
        """Return loss and accuracy over the rows of all ranks together."""
        loss, right, count = self._hvd.allreduce(self._evaluate(rows), op=self._hvd.Sum, name="validation").numpy()
        return {"validation_loss": float(loss / count), "validation_accuracy": float(right / count)}

    def _average_statistics(self) -> None:
        """Average what layers gather on their own shard (batch-normalisation's moving moments)."""
        for i, variable in enumerate(self._model.non_trainable_variables):
            if variable.dtype.is_floating:
                variable.assign(self._hvd.allreduce(variable, op=self._hvd.Average, name=f"statistics.{i}"))
