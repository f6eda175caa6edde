"""How many tasks Spark runs at once: ranks of a training run must all run at the same time."""

import math
from typing import Any, Final

from pyspark import SparkContext

from ids_spark.base.errors import InputError

_SECONDS_A_PRODUCT: Final = 0.12e-9
"""Of a training step of one rank, for each row and multiplication of a forward pass: gru_dnn and dnn on one core."""
_SECONDS_A_DOUBLING: Final = 2.3e-3
"""What a step takes longer with twice as many ranks, see tests/README, Sizing."""


class TooFewSlots(InputError):
    """Raised when Spark cannot run all ranks at the same time."""


def require(spark_context: SparkContext, ranks: int) -> None:
    """Refuse more ranks than Spark can run at the same time: they would wait for each other until a timeout.

    Raises:
        TooFewSlots: there are more.
    """
    slots, cpus = at_once(spark_context), task_cpus(spark_context)
    if slots is None or slots >= ranks:
        return
    with_cpus = f" with spark.task.cpus {cpus}" if cpus > 1 else ""
    local = f"use --master 'local[{ranks * cpus}]'" if is_local(spark_context) else "give Spark more executors or cores"
    raise TooFewSlots(
        f"train.ranks is {ranks}, but {spark_context.master}{with_cpus} runs {slots} task{'s'[: slots != 1]} at once;"
        f" {local}, or set {'spark.task.cpus or ' if cpus > 1 else ''}train.ranks lower"
    )


def best_ranks(batch_size: int, products: int, most: int) -> int:
    """Return the number of ranks with the shortest step by a cost model; the smallest of equal ones.

    A step takes B / n · products · 0.12 ns + 2.3 ms · log₂ n. Only numbers that divide the batch are considered.

    Args:
        batch_size: B, rows of a step over all ranks.
        products: Multiplications of a forward pass for one row.
        most: Task slots, or row groups if there are fewer.
    """

    def seconds(n: int) -> float:
        return batch_size / n * products * _SECONDS_A_PRODUCT + _SECONDS_A_DOUBLING * math.log2(n)

    return min((n for n in range(1, max(1, most) + 1) if batch_size % n == 0), key=seconds)


def at_once(spark_context: SparkContext) -> int | None:
    """Return the number of tasks that Spark can run at once; None if it is not known before executors have started."""
    conf, cpus = spark_context.getConf(), task_cpus(spark_context)
    if is_local(spark_context):
        scala: Any = spark_context._jsc.sc()  # defaultParallelism may be set to another number
        return int(scala.maxNumConcurrentTasks(scala.resourceProfileManager().defaultResourceProfile()))
    dynamic = has_dynamic_allocation(spark_context)
    executors = conf.get("spark.dynamicAllocation.maxExecutors" if dynamic else "spark.executor.instances")
    cores, total = conf.get("spark.executor.cores"), conf.get("spark.cores.max")
    known = [int(total) // cpus] if total else []
    if executors and cores:
        known.append(int(executors) * (int(cores) // cpus))
    return min(known, default=None)


def has_dynamic_allocation(spark_context: SparkContext) -> bool:
    """Whether Spark starts and ends executors as it needs them."""
    return spark_context.getConf().get("spark.dynamicAllocation.enabled", "false") == "true"


def is_local(spark_context: SparkContext) -> bool:
    """Whether driver and tasks are on this machine, in one JVM."""
    return (spark_context.master or "").startswith("local")


def task_cpus(spark_context: SparkContext) -> int:
    """Return the cores of a task."""
    return int(spark_context.getConf().get("spark.task.cpus", "1"))
