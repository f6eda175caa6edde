"""Which runs are at work on a lake, so that no job clears away, or finishes, what a living one has begun.

A run at work keeps a small file `.running-*` in the lake and touches it every half minute. A process of this machine is
asked directly whether it lives; one of another machine counts as dead once its file was left alone for ten minutes.
The files lie at the root, which stays: a folder of their own would go with one run while another writes there.
"""

import contextlib
import datetime as dt
import json
import os
import platform
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psutil
import pyarrow.fs as pafs

from ids_spark.base.errors import Interrupted
from ids_spark.lake.filesystem import exists, read_json, remove, replace_bytes, resolve

_SIGN: Final = ".running-"
_BEAT_S: Final = 30.0
_SILENT_S: Final = 600.0  # clocks of machines differ by seconds, and a job may stand still while its disk does


class Lease:
    """The sign of life of one run; as a context manager it is taken for the block.

    Args:
        root: URI of the lake.
        run_id: Of the run.
    """

    def __init__(self, root: str, run_id: str) -> None:
        self.run_id = run_id
        self._uri = _uri(root, run_id)
        self._ended = threading.Event()
        self._beats: threading.Thread | None = None

    def take(self) -> None:
        """Show that this run is at work from now on; nothing where it does already."""
        if self._beats is None:
            self._write()
            self._beats = threading.Thread(target=self._beat, name="lease", daemon=True)
            self._beats.start()

    def check(self) -> None:
        """Raise `Interrupted` when another job took this run for dead and cleared away what it had staged."""
        if self._beats is not None and not exists(self._uri):
            raise Interrupted(
                f"{self._uri} is gone: this run gave no sign of life for {_SILENT_S / 60:.0f} minutes and another job"
                " cleared away what it had written; the old tables are as they were; run the same line again"
            )

    def end(self) -> None:
        """Take the sign of life away; nothing where there is none."""
        if self._beats is None:
            return
        self._ended.set()
        self._beats.join()
        self._beats = None
        with contextlib.suppress(OSError):  # a lake that fails has made the job fail; a sign left is that of the dead
            remove(self._uri)

    def __enter__(self) -> "Lease":
        """Take it."""
        self.take()
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.end()

    def _write(self) -> None:
        process = psutil.Process()
        facts = {"machine": _machine(), "pid": process.pid, "started": _started(process)}
        replace_bytes(self._uri, json.dumps(facts).encode())

    def _beat(self) -> None:
        while not self._ended.wait(_BEAT_S):
            with contextlib.suppress(OSError):  # a full disk is for the job to report; the next beat may get through
                if not exists(self._uri):
                    return  # taken for dead: it must not rise again
                self._write()


def active_runs(root: str) -> frozenset[str]:
    """Return the ids of the runs at work on a lake."""
    return frozenset(run_id for run_id, lives in _runs(root) if lives)


def expire(root: str) -> None:
    """Remove what dead runs left of their signs of life."""
    for run_id, lives in _runs(root):
        if not lives:
            remove(_uri(root, run_id))


def _runs(root: str) -> Iterator[tuple[str, bool]]:
    fs, path = resolve(root)
    for info in fs.get_file_info(pafs.FileSelector(path, allow_not_found=True)):
        if info.base_name.startswith(_SIGN) and info.base_name.endswith(".json"):
            run_id = info.base_name.removeprefix(_SIGN).removesuffix(".json")
            with contextlib.suppress(FileNotFoundError):  # it ended just now
                yield run_id, _lives(read_json(_uri(root, run_id)), info.mtime)


def _uri(root: str, run_id: str) -> str:
    return f"{root}/{_SIGN}{run_id}.json"


def _lives(facts: dict[str, Any], seen: dt.datetime | None) -> bool:
    if facts["machine"] == _machine():
        try:
            process = psutil.Process(facts["pid"])
            same = abs(_started(process) - facts["started"]) < 1.0
            return same and bool(process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False
    return seen is None or (dt.datetime.now(dt.UTC) - seen).total_seconds() < _SILENT_S


def _started(process: psutil.Process) -> float:
    """Return the seconds from boot to the start of a process: a clock that is set moves both alike."""
    return float(process.create_time() - psutil.boot_time())


def _machine() -> str:
    """Name what process ids are unique within: this boot of this machine, and of it this container."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)
