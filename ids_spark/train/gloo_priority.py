"""Sets a lower scheduling priority for Gloo's message threads than for Horovod's thread.

Gloo handles messages in separate threads. Such a thread tries to lock a connection, and while Horovod's thread holds
the lock it polls the kernel again without a pause (`Pair::handleEvents` in gloo/transport/tcp/pair.cc). These loops
took a seventh of two CPUs, mostly while Horovod's thread was sending and waited for a CPU. A thread with the policy
SCHED_IDLE runs only on a CPU that no other thread uses.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

THREADS: Final = "/proc/self/task"


@contextmanager
def low_priority_message_threads() -> Iterator[None]:
    """Initialise Horovod in this block: the threads that it starts get SCHED_IDLE, except the first, its main thread.

    Changes speed only. Does nothing if threads cannot be listed or their policy cannot be set (not Linux, or a
    container that forbids it).
    """
    before = _threads()
    yield
    with suppress(OSError):
        for thread in sorted(_threads() - before, key=_started)[1:]:
            os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))


def _threads() -> set[int]:
    try:
        return {int(name) for name in os.listdir(THREADS)}
    except OSError:
        return set()


def _started(thread: int) -> tuple[int, int]:
    """Return a thread's start in ticks since boot (proc(5), `starttime`) and its id; within a tick ids rise."""
    with open(f"{THREADS}/{thread}/stat", encoding="ascii", errors="replace") as file:
        return int(file.read().rpartition(")")[2].split()[19]), thread
