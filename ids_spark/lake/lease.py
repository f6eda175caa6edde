"""Which runs are active on a lake, so that no other job removes or commits their staged files.

An active run keeps a heartbeat file `.running-*.json` at the root of the lake and renews it every 30 seconds. The file
identifies machine and process. On the same machine a run is active while its process exists; on another machine while
its heartbeat is younger than ten minutes. The files are at the root, which is never removed: one run could remove a
separate folder as empty while another writes into it.
"""

import contextlib
import datetime as dt
import json
import logging
import os
import platform
import re
import threading
from pathlib import Path
from typing import Any, Final

import psutil

from ids_spark.base import json_text
from ids_spark.base.errors import Interrupted
from ids_spark.base.names import NAME
from ids_spark.base.text import one_line
from ids_spark.lake.filesystem import (
    exists,
    is_plain_file,
    names_in,
    read_bytes,
    remove,
    remove_unfinished,
    replace_bytes,
    resolve,
    set_aside,
)

log = logging.getLogger(__name__)

_PREFIX: Final = ".running-"
_FILE_NAME: Final = re.compile(rf"{re.escape(_PREFIX)}({NAME}(~[0-9a-f]+)?)\.json")
_LARGEST: Final = 10_000  # bytes
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
    found = set()
    for name in _names(root):
        with contextlib.suppress(FileNotFoundError, _NoHeartbeat):
            if _is_active(f"{root}/{name}"):
                found.add(run_of(name))
    return frozenset(found)


def expire(root: str) -> None:
    """Remove the heartbeat files of runs that are no longer active; sets those aside that no run can have written."""
    for name in _names(root):
        uri = f"{root}/{name}"
        try:
            active = _is_active(uri)
        except FileNotFoundError:
            continue  # the run has just ended
        except _NoHeartbeat as error:
            with contextlib.suppress(OSError):  # another job was first, or it cannot be renamed: it stays unused
                log.warning(
                    "not used: heartbeat=%s, because %s; expected machine and process as this version writes them; it"
                    " is now %s; remove this file once no job of another version runs on the lake",
                    *(uri, error, set_aside(uri)),
                )
            continue
        if not active:
            remove(uri)
            remove_unfinished(uri)


def identity_of(process: psutil.Process) -> dict[str, Any]:
    """Return the content of a heartbeat file: machine, process id and start of a process."""
    return {"machine": _machine(), "pid": process.pid, "started": _started(process)}


def run_of(name: str) -> str:
    """Return, from the name of a heartbeat file, the run that wrote it."""
    return name.removeprefix(_PREFIX).removesuffix(".json")


class _NoHeartbeat(Exception):
    """Raised for a file that no run can have written; the message says why."""


def _names(root: str) -> list[str]:
    return [name for name in names_in(root) if name.startswith(_PREFIX) and name.endswith(".json")]


def _uri(root: str, run_id: str) -> str:
    return f"{root}/{_PREFIX}{run_id}.json"


def _identity_in(uri: str) -> dict[str, Any]:
    """Return the content of a heartbeat file; empty if only other users may read it, as if of another machine.

    Raises:
        FileNotFoundError: it does not exist.
        _NoHeartbeat: no run can have written it.
    """
    if _FILE_NAME.fullmatch(uri.rsplit("/", 1)[1]) is None or not is_plain_file(uri):
        raise _NoHeartbeat("its name holds no id of a run, or it is a link, or no file")
    try:
        found = json_text.loads(read_bytes(uri, _LARGEST))
        return {"machine": str(found["machine"]), "pid": int(found["pid"]), "started": float(found["started"])}
    except PermissionError:
        return {}
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise _NoHeartbeat(one_line(error)) from error


def _is_active(uri: str) -> bool:
    """Return whether the run of a heartbeat file is active.

    Raises:
        FileNotFoundError: the file does not exist.
        _NoHeartbeat: no run can have written it.
    """
    identity, fs_path = _identity_in(uri), resolve(uri)
    heartbeat = fs_path[0].get_file_info(fs_path[1]).mtime
    if identity.get("machine") == _machine() and identity["pid"] > 0:
        try:
            process = psutil.Process(identity["pid"])
            same = abs(_started(process) - identity["started"]) < 1.0  # process ids are reused
            return same and bool(process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False
    # A time in the future, which anyone can set, does not make a run active for ever.
    return heartbeat is None or abs((dt.datetime.now(dt.UTC) - heartbeat).total_seconds()) < _EXPIRES_S


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
