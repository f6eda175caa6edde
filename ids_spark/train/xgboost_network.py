"""How Spark tasks of a barrier stage find each other for XGBoost's collective, and what their network must be like.

Connections between the tasks of a stage are neither authenticated nor encrypted, and XGBoost accepts them on every
interface of a machine: whoever reaches them can change what is summed, but has no code run. One task has none, so more
of them need a setting that says so.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, Final

from pyspark import BarrierTaskContext, SparkContext

from ids_spark.base.errors import InputError
from ids_spark.train import slots

_TRACKER_TIMEOUT_S: Final = 300  # until all tasks have joined
_WAIT_S: Final = 3_600  # for other tasks, which may read more slowly


class OpenNetwork(InputError):
    """Raised when several tasks would use a network that nobody has declared safe."""


def require(spark_context: SparkContext, found: str, one: str, setting: str, is_open: bool) -> None:
    """Check that several tasks may connect to each other.

    Args:
        spark_context: Runs them.
        found: The setting that asks for several tasks, as `name is value`.
        one: What needs no such network.
        setting: Name of the setting that declares the network safe.
        is_open: Its value.

    Raises:
        OpenNetwork: it is false.
        InputError: Spark may end any of the tasks (dynamic allocation).
    """
    if not is_open:
        raise OpenNetwork(
            f"{found}: XGBoost neither authenticates nor encrypts the connections of workers, and accepts them on every"
            f" interface; expected {one}, or --set {setting}=true on a network that only machines of the cluster can"
            " reach"
        )
    if slots.has_dynamic_allocation(spark_context):
        raise InputError(
            f"{found} with spark.dynamicAllocation.enabled, but all workers must run at the same time; expected {one},"
            " or --conf spark.dynamicAllocation.enabled=false"
        )


@contextmanager
def joined(context: BarrierTaskContext) -> Iterator[dict[str, Any]]:
    """Return the arguments with which a task of a barrier stage joins the others in the block.

    They find each other through a tracker on the first task, which waits at the end of the block until all have left.
    """
    tasks, index = context.getTaskInfos(), context.partitionId()
    host = socket.gethostbyname(tasks[0].address.rpartition(":")[0])
    with _tracker(host, len(tasks)) if index == 0 else nullcontext("") as port:
        yield {
            "dmlc_tracker_uri": host,
            "dmlc_tracker_port": int(context.allGather(port)[0]),
            "dmlc_task_id": str(index),
            "dmlc_timeout": _WAIT_S,
        }


@contextmanager
def _tracker(host: str, tasks: int) -> Iterator[str]:
    """Return the port of a tracker, which listens until all tasks have left, or an error ends the block."""
    from xgboost.core import XGBoostError
    from xgboost.tracker import RabitTracker

    tracker = RabitTracker(tasks, host, sortby="task", timeout=_TRACKER_TIMEOUT_S)
    tracker.start()
    try:
        yield str(tracker.worker_args()["dmlc_tracker_port"])
        tracker.wait_for(_TRACKER_TIMEOUT_S)
    finally:
        with suppress(XGBoostError):  # that a connection failed
            tracker.free()
