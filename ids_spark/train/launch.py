"""Starts the ranks of a training run: each trains the tasks of `tasks`, see `worker`."""

import io
import logging
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from pyspark import SparkContext

from ids_spark.base.errors import InputError, Interrupted
from ids_spark.base.logs import printable
from ids_spark.lake.filesystem import exists
from ids_spark.train import barrier_ranks, checkpoint, horovod_security, local_name, progress, slots, xgboost_network
from ids_spark.train.bootstrap import packed
from ids_spark.train.checkpoint import CheckpointUnusable
from ids_spark.train.tasks import TrainingTask

log = logging.getLogger(__name__)

_HOROVOD: Final = {"HOROVOD_LOG_LEVEL": "error", "TF_CPP_MIN_LOG_LEVEL": "2"}


class TooFewRows(InputError):
    """Raised when the train split has fewer rows than one step of all ranks."""


class Diverged(InputError):
    """Raised when the loss became NaN or infinite: the learning rate is too high for the data."""


class RanksLost(Interrupted):
    """Raised when a rank failed or was killed."""


def resumed(tasks: Sequence[TrainingTask]) -> list[TrainingTask]:
    """Return the tasks of a job that resumes an interrupted one, after a check of the checkpoints.

    A model that the interrupted job had not started is trained from the
    beginning; a checkpoint of it is of an earlier job.

    Raises:
        CheckpointUnusable: none of the checkpoints can be resumed with these settings.
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
    return [
        task if resumable else replace(task, config=task.config.model_copy(update={"resume": False}))
        for task, resumable in zip(tasks, found, strict=True)
    ]


def launch(spark_context: SparkContext, tasks: Sequence[TrainingTask]) -> list[str]:
    """Train models of one architecture and configuration, one after the other, on `config.ranks` Spark tasks.

    Ranks take ten seconds or more to start, so they start once for all models. Rank 0 writes the directory of each
    model as soon as it is trained.

    Returns:
        The SHA-256 of the manifest of each model, as rank 0 wrote it.

    Raises:
        TooFewRows: there are fewer rows than one global batch.
        Diverged: the loss became NaN or infinite.
        RanksLost: a rank was killed or failed.
        TooFewSlots: Spark has fewer task slots than ranks.
        OpenNetwork: ranks would use a network that nobody has declared safe.
        NoAddress: in local mode, the machine's host name has no address.
    """
    config, table = tasks[0].config, tasks[0].table
    ranks = config.ranks
    if tasks[0].steps_per_epoch < 1:
        raise TooFewRows(
            f"{table.uri}/split=train has {table.rows['train']} rows; expected at least one global batch of"
            f" {config.batch_size}; set train.batch_size lower"
        )
    slots.require(spark_context, ranks)
    if config.all_reduce == "xgboost" and ranks > 1:
        found, one = f"train.all_reduce is xgboost and train.ranks {ranks}", "train.ranks=1, train.all_reduce=horovod"
        xgboost_network.require(spark_context, found, one, "train.open_network", config.open_network)
    # One thread is fastest for networks of this size: a second one mostly waits, and the data loader uses a core.
    threads = slots.task_cpus(spark_context)
    tasks = [replace(task, threads=threads) for task in tasks]
    run = _on_horovod if config.all_reduce == "horovod" else barrier_ranks.train
    try:
        with progress.following(progress.progress_uri(tasks[0].checkpoint), lambda line: log.info("%s", line)):
            trained = run(spark_context, tasks)
    except InputError:
        raise
    except Exception as error:
        lost = next((task for task in tasks if not exists(f"{task.target}/model.json")), tasks[-1])
        raise RanksLost(
            f"a rank that trained {lost.card.name} failed or was killed ({' '.join(str(error).split())[:300]});"
            " see its output above. Run jobs/train.py again with --set train.resume=true to resume after the last"
            " complete epoch"
        ) from error
    if "diverged" in trained[-1]:
        raise Diverged(
            f"training of {tasks[len(trained) - 1].card.name} diverged in {trained[-1]['diverged']}, learning rate"
            f" {config.peak_learning_rate:g}; set train.learning_rate lower"
        )
    return [each["manifest_sha256"] for each in trained]


def _on_horovod(spark_context: SparkContext, tasks: Sequence[TrainingTask]) -> list[dict[str, Any]]:
    """Return what rank 0 of `worker.train` returns, in processes that Horovod starts beside Spark tasks."""
    import horovod.spark

    config = tasks[0].config
    start, arguments = packed("ids_spark.train.worker", "train", tasks)
    driver = spark_context.getConf().get("spark.driver.host") or "127.0.0.1"
    with (
        horovod_security.secured(driver) as network,
        local_name.rank_environment(slots.is_local(spark_context)) as name,
    ):
        results: list[list[dict[str, Any]]] = horovod.spark.run(
            start,
            args=arguments,
            num_proc=config.ranks,
            start_timeout=config.start_timeout,
            use_gloo=True,
            env=_HOROVOD | network.environment | name,
            nics=network.nics,
            stdout=_RankOutput(),
            stderr=_RankOutput(),
            verbose=0,
            executable=spark_context.pythonExec,  # that of tasks; the driver's may be at another path
        )
    return results[0]


class _RankOutput(io.TextIOBase):
    """Writes the ranks' output to this process' stderr, indented, without Horovod's prefix on every line.

    Like other lines that are no record of this process' log, none begins with a time; see `base.logs`.
    """

    def write(self, text: str) -> int:
        for line in text.replace("\t", "    ").splitlines():
            own = re.sub(r"^\[\d+\]<std(?:out|err)>:", "", line)
            sys.stderr.write(f"    {printable(own)}\n" if own else "\n")
        sys.stderr.flush()
        return len(text)
