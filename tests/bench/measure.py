"""Wall time, CPU time and peak memory of a command and everything it starts.

    python -m tests.bench.measure USAGE.json CPUS [BYTES] -- COMMAND …

runs as a separate process around the command, so that the figures of one case include nothing of another.

CPU time is user plus system seconds of every process of the command. The kernel adds the times of an ended
process to the process that waits for it; the meter adopts orphans (`PR_SET_CHILD_SUBREAPER`) and waits for all of them,
so this is exact, also for short processes. One exception: the kernel discards the times of children whose parent
ignores SIGCHLD, as Spark's Python daemon does. Those are sampled while they run: at most the last 0.1 s of each is
lost.

Peak memory is the largest sum over the processes that run at one moment. The sum is of the proportional set size
(PSS: private pages, plus each shared page divided by the number of its users), because forked Python workers share most
of their pages and the sum of their resident sizes (RSS) would count those once for each worker. If the kernel does
not report PSS, or only one process runs, RSS is used. In bench.json it is called `peak_rss_mb`; 1 MB is 10^6 bytes.

With a limit in bytes, each process of the command can hold no more private memory (`RLIMIT_DATA`): a program that
needs more than the machine has fails, before the kernel ends programs of its own choice.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil

ROOT: Final = Path(__file__).resolve().parents[2]
_INTERVAL_S: Final = 0.1
_PSS_SHARE: Final = 0.03  # maximum share of the time for reading PSS, whose cost grows with the memory
_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h
_MB: Final = 1e6
_NO_MEMORY: Final = (
    *("MemoryError", "memory allocation of", "Cannot allocate memory", "Unable to allocate", "malloc of"),
    *("can't start new thread", "Resource temporarily unavailable"),  # no room for the stack of a thread
)


class CommandFailed(RuntimeError):
    """Raised when a measured command ends with an exit code other than 0; contains the end of its log."""


class OutOfMemory(CommandFailed):
    """Raised when a command with a limit of memory ended because of it; has the `usage` until then."""

    def __init__(self, message: str, usage: "Usage") -> None:
        super().__init__(message)
        self.usage = usage


@dataclass(frozen=True)
class Usage:
    """Time and memory that a command used.

    Attributes:
        wall_s: Seconds from start to end.
        cpu_s: User and system seconds of the whole process tree.
        peak_rss_mb: Largest memory of the whole process tree at one moment, see the module.
        exit_code: Of the command; negative for a signal.
    """

    wall_s: float
    cpu_s: float
    peak_rss_mb: float
    exit_code: int = 0

    def then(self, other: "Usage") -> "Usage":
        """Return the usage of two commands run one after the other."""
        peak = max(self.peak_rss_mb, other.peak_rss_mb)
        wall, cpu = round(self.wall_s + other.wall_s, 3), round(self.cpu_s + other.cpu_s, 3)
        return Usage(wall, cpu, peak, self.exit_code or other.exit_code)


def measured(
    command: Sequence[str],
    log: Path,
    cpus: Sequence[int],
    env: Mapping[str, str] | None = None,
    memory: int | None = None,
) -> Usage:
    """Run a command from the root of the checkout on some CPUs and return what it used.

    Args:
        command: Program and arguments.
        log: Takes stdout and stderr; appended to.
        cpus: CPUs the whole tree is bound to.
        env: Environment; default this process's.
        memory: Most bytes of private memory of each of its processes; default: no limit.

    Raises:
        CommandFailed: when it fails.
        OutOfMemory: when it fails because of the limit of memory.
    """
    report = log.with_suffix(".usage.json")
    report.unlink(missing_ok=True)
    where = ",".join(map(str, cpus))
    limit = [] if memory is None else [str(memory)]
    meter = [sys.executable, str(Path(__file__).resolve()), str(report), where, *limit, "--", *command]
    with log.open("ab") as stream:
        subprocess.run(meter, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL, cwd=ROOT, env=env, check=True)
    usage = Usage(**json.loads(report.read_text()))
    report.unlink()
    if usage.exit_code:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        message = f"{' '.join(command)} ended with exit code {usage.exit_code}; the end of {log}:\n{tail}"
        if memory is not None and any(words in tail for words in _NO_MEMORY):
            raise OutOfMemory(message, usage)
        raise CommandFailed(message)
    return usage


class _Tree:
    """Samples of the processes below this one."""

    def __init__(self) -> None:
        self.peak = 0  # bytes
        self._not_before = 0.0
        self._me = psutil.Process()
        self._forgotten: dict[int, bool] = {}  # by pid: whether the kernel will discard its times
        self._seconds: dict[int, float] = {}  # last seen CPU time of those

    def sample(self) -> None:
        """Take one sample."""
        resident = {}
        for process in self._me.children(recursive=True):
            pid = process.pid
            with contextlib.suppress(psutil.Error):
                if pid not in self._forgotten:
                    self._forgotten[pid] = _ignores_children(process.ppid())
                if self._forgotten[pid]:
                    times = process.cpu_times()
                    used = times.user + times.system + times.children_user + times.children_system
                    self._seconds[pid] = max(used, self._seconds.get(pid, 0.0))
                resident[pid] = process.memory_info().rss
        self._update_peak(resident)

    def forgotten_s(self, waited_for: Collection[int]) -> float:
        """Return the CPU seconds that the kernel discarded, given the processes this one waited for."""
        return sum(seconds for pid, seconds in self._seconds.items() if pid not in waited_for)

    def _update_peak(self, resident: Mapping[int, int]) -> None:
        total = sum(resident.values())
        if total <= self.peak:
            return  # PSS is never more than RSS: this cannot be a new peak
        if len([size for size in resident.values() if size]) == 1:
            self.peak = total
            return
        if time.monotonic() >= self._not_before:
            started = time.thread_time()  # while others have the CPU, nothing is taken from the command
            self.peak = max(self.peak, sum(_pss(pid, size) for pid, size in resident.items()))
            self._not_before = time.monotonic() + (time.thread_time() - started) / _PSS_SHARE


def _ignores_children(pid: int) -> bool:
    """Return whether a process ignores SIGCHLD: then it does not wait for its children, and their times are lost."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigIgn:"):
                return bool(int(line.split()[1], 16) >> (signal.SIGCHLD - 1) & 1)
    return False


def _pss(pid: int, resident: int) -> int:
    """Return the PSS of a process in bytes; its RSS if PSS cannot be read, 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    except (ProcessLookupError, FileNotFoundError, StopIteration):
        return resident if Path(f"/proc/{pid}").exists() else 0
    except OSError:
        return resident


def _meter(report: Path, cpus: Sequence[int], memory: int, command: Sequence[str]) -> None:
    os.sched_setaffinity(0, cpus)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    tree, ended = _Tree(), threading.Event()

    def watch() -> None:
        while not ended.wait(_INTERVAL_S):
            tree.sample()

    started = time.monotonic()
    child = subprocess.Popen(command)
    resource.prlimit(child.pid, resource.RLIMIT_DATA, (memory, memory))  # its processes inherit it
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    exit_code = child.wait()
    wall = time.monotonic() - started
    waited_for = {child.pid}
    with contextlib.suppress(ChildProcessError):
        while True:  # processes that the command left, adopted by this one
            waited_for.add(os.wait()[0])
    ended.set()
    watcher.join()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime + tree.forgotten_s(waited_for)
    usage = Usage(round(wall, 3), round(cpu, 3), round(tree.peak / _MB, 1), exit_code)
    report.write_text(json.dumps(asdict(usage)))


if __name__ == "__main__":
    told = sys.argv[1 : sys.argv.index("--")] if "--" in sys.argv else []
    if len(told) not in (2, 3) or sys.argv[-1] == "--":
        sys.exit(__doc__)
    allowed = int(told[2]) if len(told) == 3 else resource.RLIM_INFINITY
    _meter(Path(told[0]), [int(cpu) for cpu in told[1].split(",")], allowed, sys.argv[len(told) + 2 :])
