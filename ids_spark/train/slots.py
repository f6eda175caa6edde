"""How many tasks Spark runs at once: ranks of a training run must all run at the same time."""

from typing import Any

from pyspark import SparkContext

from ids_spark.base.errors import InputError


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
