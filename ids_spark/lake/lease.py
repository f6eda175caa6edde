"""Which runs are active on a lake, so that no other job removes or commits their staged files.

An active run keeps a heartbeat file `.running-*.json` at the root of the lake and renews it every 30 seconds. The file
identifies machine and process. On the same machine a run is active while its process exists; on another machine while
its heartbeat is younger than ten minutes. The files are at the root, which is never removed: one run could remove a
separate folder as empty while another writes into it.
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
from ids_spark.lake.filesystem import exists, read_bytes, remove, replace_bytes, resolve

_PREFIX: Final = ".running-"
_HEARTBEAT_S: Final = 30.0
_EXPIRES_S: Final = 600.0  # clocks of machines differ by seconds, and a process may be blocked by its disk


class Lease:
    """The heartbeat of one run; a context manager that takes the lease and ends it.

    Args:
        root: URI of the lake.
        run_id: Id of the run.
        heartbeat_s: Seconds between heartbeats.
    """

    def __init__(self, root: str, run_id: str, heartbeat_s: float = _HEARTBEAT_S) -> None:
        self.run_id = run_id
        self._uri = _uri(root, run_id)
        self._heartbeat_s = heartbeat_s
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self) -> None:
        """Write the heartbeat file and renew it regularly; does nothing if the lease is taken already."""
        if self._thread is None:
            self._write()
            self._thread = threading.Thread(target=self._renew, name=f"lease {self.run_id}", daemon=True)
            self._thread.start()

    def check(self) -> None:
        """Raise `Interrupted` if another job considered this run ended and removed its files."""
        if self._thread is not None and not exists(self._uri):
            raise Interrupted(
                f"{self._uri} was removed: this run wrote no heartbeat for {_EXPIRES_S / 60:.0f} minutes, so"
                " another job removed its staged files; the old tables are unchanged; run the same command again"
            )

    def end(self) -> None:
        """Stop the heartbeat and remove its file; does nothing if there is none."""
        if self._thread is None:
            return
        self._ended.set()
        self._thread.join()
        self._thread = None
        with contextlib.suppress(OSError):  # the job reports a failing lake; the remaining file expires
            remove(self._uri)

    def __enter__(self) -> "Lease":
        """Take the lease."""
        self.take()
        return self

    def __exit__(self, *_: object) -> None:
        """End the lease."""
        self.end()

    def _write(self) -> None:
        replace_bytes(self._uri, json.dumps(identity_of(psutil.Process())).encode())

    def _renew(self) -> None:
        while not self._ended.wait(self._heartbeat_s):
            with contextlib.suppress(OSError):  # the job reports a full disk; the next heartbeat may succeed
                if not exists(self._uri):
                    return  # do not recreate an expired lease
                self._write()


def active_runs(root: str) -> frozenset[str]:
    """Return the ids of the active runs of a lake."""
    return frozenset(run_id for run_id, active in _runs(root) if active)


def expire(root: str) -> None:
    """Remove the heartbeat files of runs that are no longer active."""
    for run_id, active in _runs(root):
        if not active:
            remove(_uri(root, run_id))


def identity_of(process: psutil.Process) -> dict[str, Any]:
    """Return the content of a heartbeat file: machine, process id and start of a process."""
    return {"machine": _machine(), "pid": process.pid, "started": _started(process)}


def _runs(root: str) -> Iterator[tuple[str, bool]]:
    fs, path = resolve(root)
    for info in fs.get_file_info(pafs.FileSelector(path, allow_not_found=True)):
        name = info.base_name
        if info.type == pafs.FileType.File and name.startswith(_PREFIX) and name.endswith(".json"):
            run_id = name.removeprefix(_PREFIX).removesuffix(".json")
            with contextlib.suppress(FileNotFoundError):  # the run has just ended
                yield run_id, _is_active(_identity_in(_uri(root, run_id)), info.mtime)


def _uri(root: str, run_id: str) -> str:
    return f"{root}/{_PREFIX}{run_id}.json"


def _identity_in(uri: str) -> dict[str, Any]:
    """Return the content of a heartbeat file; empty if it is none, as if of another machine: the file then expires."""
    try:
        found = json.loads(read_bytes(uri))
        return {"machine": str(found["machine"]), "pid": int(found["pid"]), "started": float(found["started"])}
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return {}


def _is_active(identity: dict[str, Any], heartbeat: dt.datetime | None) -> bool:
    if identity.get("machine") == _machine() and identity["pid"] > 0:
        try:
            process = psutil.Process(identity["pid"])
            same = abs(_started(process) - identity["started"]) < 1.0  # process ids are reused
            return same and bool(process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False
    return heartbeat is None or (dt.datetime.now(dt.UTC) - heartbeat).total_seconds() < _EXPIRES_S


def _started(process: psutil.Process) -> float:
    """Return the seconds from boot to the start of a process: unchanged when the clock is set."""
    return float(process.create_time() - psutil.boot_time())


def _machine() -> str:
    """Return a name within which process ids are unique: the machine, its boot, and the container."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)
