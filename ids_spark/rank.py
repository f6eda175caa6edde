"""What one rank of a training run does, in a process that Horovod started.

Every rank holds the same weights, reads its own shard, and takes the same number of steps; gradients are averaged in
one allreduce a step. Ranks agree on every decision because they take it on the same averaged numbers. Only this module
and `training` use Horovod.
"""

import logging
import math
import time
from dataclasses import replace
from typing import Any, Final

import horovod.tensorflow as hvd
import tensorflow as tf

from ids_spark import checkpoint, feed, models
from ids_spark.checkpoint import Course
from ids_spark.logs import log_to_stderr
from ids_spark.loop import Loop
from ids_spark.model_store import write
from ids_spark.training import Task

log = logging.getLogger(__name__)

_EVALUATED_ROWS: Final = 8_192  # at once; changes nothing but speed


def train(task: Task) -> dict[str, Any]:
    """Train as one rank: same weights everywhere, epochs until the validation loss stops falling, best weights kept.

    Every rank returns the `training` entry of the model's card, or, when the loss is no longer a number, an entry
    `diverged` that says when; rank 0 alone logs and writes.
    """
    hvd.init()
    log_to_stderr(logging.INFO if hvd.rank() == 0 else logging.ERROR)
    tf.config.threading.set_intra_op_parallelism_threads(task.threads)
    tf.config.threading.set_inter_op_parallelism_threads(2)
    tf.keras.backend.experimental.enable_tf_random_generator()  # dropout whose state can be set, see Loop.begin_epoch
    tf.keras.utils.set_random_seed(task.seed)

    card, config = task.card, task.config
    edges = task.table.preprocessor.edges(card.features, card.hyper["bins"]) if card.hyper["bins"] else None
    model = models.build(card.architecture, len(task.columns), len(card.class_names), card.hyper, edges)
    loop = Loop(model, config, len(card.class_names), task.steps_per_epoch, task.seed)
    course = _start(task, loop)
    diverged = _run_epochs(task, loop, course)
    if diverged:
        hvd.shutdown()
        return {"diverged": diverged}
    training = {
        "ranks": hvd.size(),
        "batch_size": config.batch_size,
        "peak_learning_rate": config.peak_learning_rate,
        "schedule": config.schedule,
        "seed": task.seed,
        "train_rows": task.table.rows["train"],
        "steps_per_epoch": task.steps_per_epoch,
        "epochs": len(course.history),
        "best_epoch": course.best_epoch,
        "best_validation_loss": course.history[course.best_epoch - 1]["validation_loss"],
        "parameters": sum(math.prod(variable.shape) for variable in model.trainable_variables),
        "seconds": course.seconds,
        "history": course.history,
    }
    if hvd.rank() == 0:
        write(task.target, replace(card, training=training), course.best, task.table.preprocessor)
    hvd.shutdown()
    return training


def _start(task: Task, loop: Loop) -> Course:
    """Return where training begins: at fresh weights, or where an interrupted run stood; the same on every rank."""
    course = None
    if task.config.resume:
        course = checkpoint.read(task.checkpoint, task.fingerprint)
    if course is None:
        weights = loop.weights()
        course = Course(weights, loop.optimizer_state(), weights)
    elif hvd.rank() == 0:
        log.info("%s goes on after epoch %d", task.card.name, len(course.history))
    loop.restore(course.weights, course.optimizer)
    loop.broadcast()
    return course


def _run_epochs(task: Task, loop: Loop, course: Course) -> str | None:
    config, label = task.config, f"label{task.card.classes}"

    train, held_out = (
        feed.Shard(f"{task.table.uri}/split={split}", task.columns, label, hvd.rank(), hvd.size())
        for split in ("train", "validation")
    )
    for epoch in range(len(course.history) + 1, config.epochs + 1):
        if course.history and epoch - 1 - course.best_epoch >= config.patience:
            break  # also where a run goes on that had ended
        begin = time.monotonic()
        loop.begin_epoch(epoch)
        # A feed of its own for each epoch, so that an epoch's batches depend on its number and not on what came before.
        with feed.ahead(feed.shuffled(train, loop.block_sizes, task.seed * 1_000 + epoch)) as blocks:
            loss = loop.train(blocks)
        train_seconds = time.monotonic() - begin
        with feed.ahead(feed.one_pass(held_out, _EVALUATED_ROWS)) as pieces:
            measured = loop.evaluate(pieces)
        if not (math.isfinite(loss) and math.isfinite(measured["validation_loss"])):
            return f"epoch {epoch}: loss {loss}, validation loss {measured['validation_loss']}"
        seconds = time.monotonic() - begin
        course.seconds += seconds
        course.history.append(
            {"epoch": epoch, "loss": loss, **measured, "train_seconds": train_seconds, "seconds": seconds}
        )
        course.weights, course.optimizer = loop.weights(), loop.optimizer_state()
        cost = measured["validation_loss"] if config.monitor == "loss" else 1.0 - measured["validation_accuracy"]
        if cost < course.best_cost - config.min_delta:
            course.best_cost, course.best_epoch, course.best = cost, epoch, course.weights
        if hvd.rank() == 0:
            checkpoint.write(task.checkpoint, course, task.fingerprint)
            _log_progress(task, course)
    return None


def _log_progress(task: Task, course: Course) -> None:
    """Log one line for the epoch just ended; the time left is that of all epochs, early stopping may save some."""
    last, done = course.history[-1], len(course.history)
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
        course.seconds / done * (task.config.epochs - done),
    )
