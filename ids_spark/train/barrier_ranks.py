"""Ranks that are the tasks of a barrier stage of Spark, which all run at the same time, and reduce with XGBoost.

The task itself is the rank: Spark puts `--py-files` on its path, so nothing is sent or started beside it. If one is
killed, Spark ends all of them. After an error, XGBoost listens in the tasks' processes until these end, with the job.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from pyspark import BarrierTaskContext, SparkContext

from ids_spark.base.errors import InputError, Interrupted
from ids_spark.train import xgboost_network
from ids_spark.train.ranks import Ranks
from ids_spark.train.tasks import TrainingTask


class TaskLost(Interrupted):
    """Raised when a rank failed."""


def train(spark_context: SparkContext, tasks: Sequence[TrainingTask]) -> list[dict[str, Any]]:
    """Return what rank 0 of `worker.train_as` returns, on `config.ranks` tasks.

    Raises:
        InputError: that of a rank.
        TaskLost: a rank failed.
        Py4JJavaError: a rank was killed.
    """
    trained: list[dict[str, Any]] = on_ranks(spark_context, tasks[0].config.ranks, partial(_train, tasks=tasks))[0]
    return trained


def on_ranks(spark_context: SparkContext, size: int, work: Callable[[Ranks], Any]) -> list[Any]:
    """Return the result of a function for each rank.

    Raises:
        InputError: that of a rank.
        TaskLost: a rank failed.
        Py4JJavaError: a rank was killed.
    """

    def rank(_: Iterable[int]) -> Iterator[Any]:
        yield _as_rank(work)

    found: list[Any] = spark_context.parallelize(range(size), size).barrier().mapPartitions(rank).collect()
    for refused in (each for each in found if isinstance(each, InputError)):
        raise refused
    if lost := [each for each in found if isinstance(each, TaskLost)]:  # those that lost a connection are not the cause
        raise min(lost, key=lambda each: "XGBoostError" in str(each))
    return found


def _as_rank(work: Callable[[Ranks], Any]) -> Any:
    """Return the result of one rank, or its error: if it were raised, Spark would hide which rank failed first."""
    context = BarrierTaskContext.get()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    index, hosts = context.partitionId(), [task.address.rpartition(":")[0] for task in context.getTaskInfos()]
    try:
        from ids_spark.train.xgboost_ranks import XGBoostRanks

        with (
            xgboost_network.joined(context) as arguments,
            XGBoostRanks(arguments, hosts[:index].count(hosts[index])) as ranks,
        ):
            return work(ranks)
    except InputError as error:
        return error
    except Exception as error:
        return TaskLost(f"rank {index}: {type(error).__name__}: {error}")


def _train(ranks: Ranks, tasks: Sequence[TrainingTask]) -> list[dict[str, Any]]:
    from ids_spark.train import worker

    return worker.train_as(ranks, tasks)
