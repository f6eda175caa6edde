"""How all ranks of a run are started; `training` says what they are told, `rank` what each of them does."""

import io
import logging
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from pyspark import SparkContext

from ids_spark.base.errors import InputError, Interrupted
from ids_spark.lake.filesystem import exists
from ids_spark.train import checkpoint, horovod_security, progress
from ids_spark.train.bootstrap import packed
from ids_spark.train.checkpoint import CheckpointUnusable
from ids_spark.train.tasks import TrainingTask

log = logging.getLogger(__name__)

_HOROVOD: Final = {"HOROVOD_LOG_LEVEL": "error", "TF_CPP_MIN_LOG_LEVEL": "2"}
_PRODUCTS_PER_CYCLE_MS: Final = 60_000_000
"""Products of a rank's forward pass between two looks of Horovod for work, a tenth of a step: 4,096 rows of gru_dnn.
An allreduce waits for such a look, and each look takes time from a rank."""


class TooFewRows(InputError):
    """Raised when the train split does not fill one step of all ranks."""


class Diverged(InputError):
    """Raised when the loss is no longer a number: the learning rate does not suit the data."""


class RanksLost(Interrupted):
    """Raised when a rank ended before its work did."""


class TooFewSlots(InputError):
    """Raised when Spark cannot run all ranks at once."""


def resumed(tasks: Sequence[TrainingTask]) -> list[TrainingTask]:
    """Return the tasks of a job that goes on where an interrupted one stopped, before any rank starts.

    Models are trained one after the other; one that the interrupted job had not come to starts anew, and the checkpoint
    that stands there is of an earlier job.

    Raises:
        CheckpointUnusable: every checkpoint that stands there is of a job with other settings.
    """
    found, unusable = [], None
    for task in tasks:
        try:
            found.append(checkpoint.read_checkpoint(task.checkpoint, task.fingerprint) is not None)
        except CheckpointUnusable as error:
            found.append(False)
            unusable = error
    if unusable and not any(found):
        raise unusable
    anew = tasks[0].config.model_copy(update={"resume": False})
    return [task if stands else replace(task, config=anew) for task, stands in zip(tasks, found, strict=True)]


def launch(spark_context: SparkContext, tasks: Sequence[TrainingTask]) -> None:
    """Train models of one architecture and configuration, one after the other, on `config.ranks` Spark tasks.

    Ranks take ten seconds and more to start, so they start once. Rank 0 writes each model's directory as it is trained.

    Raises:
        TooFewRows: there is less than one global batch.
        Diverged: the loss became NaN or infinite.
        RanksLost: a rank was killed or failed.
        TooFewSlots: local mode has fewer task slots than ranks, so that they would wait for each other for ever.
    """
    import horovod.spark

    config, table = tasks[0].config, tasks[0].table
    ranks = config.ranks
    if tasks[0].steps_per_epoch < 1:
        raise TooFewRows(
            f"{table.uri}/split=train has {table.rows['train']} rows, less than one global batch of"
            f" {config.batch_size}; set train.batch_size lower"
        )
    local = (spark_context.master or "").startswith("local")
    if local and spark_context.defaultParallelism < ranks:
        raise TooFewSlots(
            f"train.ranks is {ranks}, but {spark_context.master} runs {spark_context.defaultParallelism} tasks at once;"
            f" use --master 'local[{ranks}]' or set train.ranks lower"
        )
    # One thread is fastest for networks this small: a second one waits more than it works, and the feed needs a core.
    threads = int(spark_context.getConf().get("spark.task.cpus", "1"))
    products = min(config.products(task.card.architecture, len(task.columns), task.card.classes) for task in tasks)
    cycle = {"HOROVOD_CYCLE_TIME": f"{config.batch_size // ranks * products / _PRODUCTS_PER_CYCLE_MS:.3f}"}
    start, arguments = packed("ids_spark.train.worker", "train", [replace(task, threads=threads) for task in tasks])
    driver = spark_context.getConf().get("spark.driver.host") or "127.0.0.1"
    try:
        with (
            progress.followed(progress.progress_uri(tasks[0].checkpoint), log.info),
            horovod_security.secured(driver) as door,
        ):
            results: list[list[dict[str, Any]]] = horovod.spark.run(
                start,
                args=arguments,
                num_proc=ranks,
                start_timeout=config.start_timeout,
                use_gloo=True,
                env=_HOROVOD | cycle | door.environment,
                nics=door.nics,
                stdout=_RankOutput(),
                stderr=_RankOutput(),
                verbose=0,
            )
    except Exception as error:
        lost = next((task for task in tasks if not exists(f"{task.target}/model.json")), tasks[-1])
        raise RanksLost(
            f"a rank that trained {lost.card.name} ended too early ({' '.join(str(error).split())[:300]});"
            " what it printed stands above. Run jobs/train.py again with --set train.resume=true to go on after the"
            " last whole epoch"
        ) from error
    trained = results[0]
    if "diverged" in trained[-1]:
        raise Diverged(
            f"training of {tasks[len(trained) - 1].card.name} diverged in {trained[-1]['diverged']}, learning rate"
            f" {config.peak_learning_rate:g}; set train.learning_rate lower"
        )


class _RankOutput(io.TextIOBase):
    """Passes the ranks' output on to this process without Horovod's prefix on every line."""

    def write(self, text: str) -> int:
        sys.stderr.write(re.sub(r"^\[\d+\]<std(?:out|err)>:", "", text, flags=re.MULTILINE))
        sys.stderr.flush()
        return len(text)
