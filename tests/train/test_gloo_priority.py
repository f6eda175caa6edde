"""Two real Horovod ranks on loopback: which of their threads have low priority, and that an allreduce works."""

import os
import sys
import threading

import pytest

from ids_spark.train import gloo_priority
from tests.support.two_ranks import on_two_ranks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux sets a policy for each thread")


def rank() -> tuple[float, bool, list[int], list[int]]:
    """Return a sum over ranks, whether this thread is SCHED_IDLE, and policies of earlier and of Horovod's threads."""
    import horovod.tensorflow as hvd
    import tensorflow as tf

    def threads() -> set[int]:
        return {int(name) for name in os.listdir("/proc/self/task")}

    before = threads()
    with gloo_priority.low_priority_message_threads():
        hvd.init()
    started = sorted(threads() - before)
    total = float(hvd.allreduce(tf.constant(hvd.rank() + 1.0), op=hvd.Sum, name="sum"))
    mine = os.sched_getscheduler(0) == os.SCHED_IDLE
    policies = [os.sched_getscheduler(thread) for thread in sorted(before)], list(map(os.sched_getscheduler, started))
    hvd.shutdown()
    return total, mine, *policies


def test_message_threads_have_low_priority_and_no_other_thread_has() -> None:
    for total, mine, before, (main, *messages) in on_two_ranks(rank):
        assert total == 3.0
        assert not mine
        assert os.SCHED_IDLE not in before
        assert main == os.SCHED_OTHER
        assert messages
        assert set(messages) == {os.SCHED_IDLE}


def test_nothing_is_raised_where_threads_may_have_no_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", forbidden)
    done = threading.Event()
    try:
        with gloo_priority.low_priority_message_threads():
            for _ in range(2):
                threading.Thread(target=done.wait).start()
    finally:
        done.set()


def test_nothing_changes_where_threads_are_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gloo_priority, "THREADS", "/nowhere")
    with gloo_priority.low_priority_message_threads():
        pass
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
