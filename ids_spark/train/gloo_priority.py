"""Gloo's message loops give way to the threads they wait for.

Gloo answers a message in a thread of its own, which tries the connection's lock, and if Horovod's thread holds it asks
the kernel again at once, for as long as it takes (`Pair::handleEvents` in gloo/transport/tcp/pair.cc). Such a loop took
a seventh of two CPUs, mostly while Horovod's thread, in the middle of a send, waited to get one. A thread of the policy
SCHED_IDLE leaves the CPU as soon as another one wants it; while messages are awaited, nothing else does.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

_THREADS: Final = "/proc/self/task"


@contextmanager
def low_priority_loops() -> Iterator[None]:
    """Start Horovod within: its thread keeps its priority, the message loops which that thread started lose theirs.

    Changes nothing but speed, and not even that where threads cannot be told apart or given a policy (no Linux, a
    container that forbids it).
    """
    before = _threads()
    yield
    with suppress(OSError):
        for thread in sorted(_threads() - before, key=_started)[1:]:
            os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))


def _threads() -> set[int]:
    try:
        return {int(name) for name in os.listdir(_THREADS)}
    except OSError:
        return set()


def _started(thread: int) -> tuple[int, int]:
    """Return when a thread started, in ticks since boot (proc(5), `starttime`), and its id: ids of one tick rise."""
    with open(f"{_THREADS}/{thread}/stat", encoding="ascii", errors="replace") as file:
        return int(file.read().rpartition(")")[2].split()[19]), thread
