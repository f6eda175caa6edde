"""The lake: every table that a run reads or writes, below one root URI, replaced whole or not at all.

A job writes new tables below a hidden staging folder, then commits all of them together: first a journal that names
them (one atomic rename), then a rename for each. A job killed before the journal leaves the old tables; one killed
after it leaves a journal that the next job finishes. Readers never meet a table that is half old, half new.
"""

import json
import logging
import os
from collections.abc import Sequence
from typing import Any, Final

import pyarrow.fs as pafs

from ids_spark.errors import InputError

log = logging.getLogger(__name__)

_STAGING: Final = ".staging"
_TRASH: Final = ".trash"
_JOURNAL: Final = ".commit-"
TABLE_FACTS: Final = "_table.json"


class TableMissing(InputError):
    """Raised when a job needs a table that no job has written yet."""


def resolve(uri: str) -> tuple[pafs.FileSystem, str]:
    """Return the file system of a URI or local path, and the absolute path on it.

    Raises:
        InputError: when the scheme is unknown or the URI malformed.
    """
    if ":" not in uri.split("/", 1)[0]:
        return pafs.LocalFileSystem(), os.path.abspath(uri)
    scheme, rest = uri.split(":", 1)
    if scheme == "file":
        return pafs.LocalFileSystem(), "/" + rest.lstrip("/")
    try:
        fs, path = pafs.FileSystem.from_uri(uri.replace("s3a:", "s3:", 1))
    except (ValueError, OSError) as error:
        raise InputError(f"{uri}: {error}; expected a local path or a file:, hdfs: or s3a: URI") from error
    return fs, path


def exists(uri: str) -> bool:
    """Return whether a file or folder is there."""
    fs, path = resolve(uri)
    return bool(fs.get_file_info(path).type != pafs.FileType.NotFound)


def is_file(uri: str) -> bool:
    """Return whether a file, and no folder, is there."""
    fs, path = resolve(uri)
    return bool(fs.get_file_info(path).type == pafs.FileType.File)


def read_bytes(uri: str) -> bytes:
    """Return a whole file.

    Raises:
        FileNotFoundError: when it is not there.
    """
    fs, path = resolve(uri)
    with fs.open_input_file(path) as stream:
        return bytes(stream.read())


def write_bytes(uri: str, content: bytes) -> None:
    """Write a whole file; its folder is made where needed. Not atomic: for files in staging."""
    fs, path = resolve(uri)
    fs.create_dir(path.rsplit("/", 1)[0], recursive=True)
    with fs.open_output_stream(path) as stream:
        stream.write(content)


def remove(uri: str) -> None:
    """Remove a file if it is there."""
    if is_file(uri):
        fs, path = resolve(uri)
        fs.delete_file(path)


def read_json(uri: str) -> Any:
    """Return a JSON file's content."""
    return json.loads(read_bytes(uri))


def write_json(uri: str, content: Any) -> None:
    """Write a JSON file, indented for people."""
    write_bytes(uri, (json.dumps(content, indent=2, sort_keys=False) + "\n").encode())


def files_in(uri: str, ending: str) -> list[str]:
    """Return the URIs of the visible files below a folder whose names end so, sorted; none where it is missing."""
    fs, path = resolve(uri)
    found = fs.get_file_info(pafs.FileSelector(path, recursive=True, allow_not_found=True))
    names = [info.path[len(path) :].lstrip("/") for info in found if info.type == pafs.FileType.File]
    visible = (n for n in names if n.endswith(ending) and not any(p.startswith((".", "_")) for p in n.split("/")))
    return [f"{uri.rstrip('/')}/{name}" for name in sorted(visible)]


class Lake:
    """One lake. Holds no open handles and is cheap to make.

    Args:
        root: URI or local path; made by the first commit.
    """

    def __init__(self, root: str) -> None:
        self._fs, self._root = resolve(root)
        local = isinstance(self._fs, pafs.LocalFileSystem)
        self.root = f"file://{self._root}" if local else root.rstrip("/")

    def uri(self, table: str) -> str:
        """Return the URI of a table, such as `flows/split=train`."""
        return f"{self.root}/{table}"

    def staged(self, job: str, run_id: str, table: str) -> str:
        """Return the URI where a run writes the new version of a table."""
        return self.uri(f"{_STAGING}/{job}/{run_id}/{table}")

    def facts(self, table: str, written_by: str) -> dict[str, Any]:
        """Return what the writer of a table stated about it.

        Raises:
            TableMissing: when the table is not there or was not completed.
        """
        uri = self.uri(f"{table}/{TABLE_FACTS}")
        if not exists(uri):
            raise TableMissing(f"{self.uri(table)} holds no complete table; run {written_by} on this lake first")
        facts: dict[str, Any] = read_json(uri)
        return facts

    def commit(self, job: str, run_id: str, tables: Sequence[str]) -> None:
        """Put the staged versions of `tables` in place of the present ones, all or none."""
        journal = self.uri(f"{_JOURNAL}{run_id}.json")
        write_json(self.staged(job, run_id, "journal.json"), {"job": job, "run_id": run_id, "tables": list(tables)})
        self._move(self.staged(job, run_id, "journal.json"), journal)
        self._finish(journal)

    def recover(self, job: str) -> None:
        """Finish commits that a killed run left behind, and clear what its unfinished siblings of this job staged."""
        found = self._fs.get_file_info(pafs.FileSelector(self._root, allow_not_found=True))
        for info in found:
            if info.base_name.startswith(_JOURNAL):
                log.warning("finishing an interrupted commit journal=%s", info.base_name)
                self._finish(self.uri(info.base_name))
        self._remove(self.uri(f"{_STAGING}/{job}"))

    def discard(self, job: str, run_id: str) -> None:
        """Remove what a run staged and will not commit; a commit that has begun is left for `recover` to finish."""
        if exists(self.uri(f"{_JOURNAL}{run_id}.json")):
            return
        self._remove(self.uri(f"{_STAGING}/{job}/{run_id}"))

    def _finish(self, journal: str) -> None:
        entry = read_json(journal)
        job, run_id = entry["job"], entry["run_id"]
        for table in entry["tables"]:
            new = self.staged(job, run_id, table)
            if not exists(new):
                continue  # moved before the interruption
            if exists(self.uri(table)):
                self._move(self.uri(table), self.uri(f"{_TRASH}/{run_id}/{table}"))
            self._move(new, self.uri(table))
        self._remove(self.uri(f"{_TRASH}/{run_id}"))
        self._remove(self.uri(f"{_STAGING}/{job}/{run_id}"))
        self._fs.delete_file(resolve(journal)[1])
        for hidden in (f"{_STAGING}/{job}", _STAGING, _TRASH):
            self._remove_if_empty(self.uri(hidden))

    def _move(self, source: str, target: str) -> None:
        source_path, target_path = resolve(source)[1], resolve(target)[1]
        self._fs.create_dir(target_path.rsplit("/", 1)[0], recursive=True)
        self._fs.move(source_path, target_path)

    def _remove(self, uri: str) -> None:
        path = resolve(uri)[1]
        if exists(uri):
            self._fs.delete_dir(path)

    def _remove_if_empty(self, uri: str) -> None:
        path = resolve(uri)[1]
        if not self._fs.get_file_info(pafs.FileSelector(path, allow_not_found=True)):
            self._remove(uri)
