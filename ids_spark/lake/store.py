"""The lake: all tables below one root URI, read and written by name; a commit replaces tables completely or not at all.

A job writes new tables below a hidden staging folder, then commits them together: first a journal that names them (one
atomic rename), then one rename for each table. A job killed before the journal leaves the old tables; a job killed
later leaves a journal, and the next job finishes the commit. No reader sees a table that is partly old, partly new.

S3 cannot rename folders. There the journal is one object, which appears atomically and lists every file; then new
files are copied within the store and files of older versions deleted. A killed job has the same effect as on
other file systems. But while a journal `.commit-*` exists, readers may see files of both versions; every job finishes
it before it reads.
"""

import contextlib
import datetime as dt
import logging
import random
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Final, Literal

import pyarrow as pa
import pyarrow.fs as pafs
from pydantic import Field, TypeAdapter

from ids_spark.base import json_text
from ids_spark.base.errors import InputError, Interrupted
from ids_spark.base.names import date_of, is_place
from ids_spark.dataset.tables import TABLES
from ids_spark.lake import journal, lease
from ids_spark.lake.filesystem import (
    SET_ASIDE,
    copy_all,
    delete_all,
    exists,
    files_in,
    make_folder,
    name_before,
    names_in,
    read_bytes,
    remove,
    remove_if_empty,
    renames,
    replace_bytes,
    require_below,
    require_plain,
    resolve,
    set_aside,
    sizes_in,
    write_bytes,
)
from ids_spark.lake.journal import Journal, read_journal
from ids_spark.lake.parquet import SUFFIX, read_file, table_bytes, write_table

log = logging.getLogger(__name__)

_STAGING: Final = ".staging"
_TRASH: Final = ".trash"
TABLE_FACTS: Final = "_table.json"
_TOP: Final = frozenset(table.path.split("/", 1)[0] for table in TABLES.values())
"""Folders of tables below the root."""
_FOLDERS: Final = (*sorted(_TOP), _STAGING, _TRASH, ".purge")
"""Folders of the root that jobs read and write."""
_PATIENCE_S: Final = 600.0
_LONGEST_PAUSE_S: Final = 0.5  # of runs that began their commits at the same moment, until each tries again
_READERS: Final = 16  # files read at once: on an object store each costs requests
_LONGEST_REASON: Final = 300
_LARGEST_COPY: Final = 5 << 30  # bytes that S3 copies in one request


class TableMissing(InputError):
    """Raised when a table that a job needs has not been written yet."""


class TooLarge(InputError):
    """Raised when a file is too large for S3 to copy it in a commit."""


class Lake:
    """One lake. Holds no open handles and is cheap to make.

    Args:
        root: URI or local path; made by the first commit.
        patience_s: Longest wait for the commits of other active runs, in seconds.
    """

    def __init__(self, root: str, patience_s: float = _PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._fs, self._root = resolve(root)
        local = isinstance(self._fs, pafs.LocalFileSystem)
        self.root = f"file://{self._root}" if local else root.rstrip("/")

    def uri(self, table: str) -> str:
        """Return the URI of a table, such as `flows/split=train`."""
        return f"{self.root}/{table}"

    def staged(self, job: str, run_id: str, table: str) -> str:
        """Return the URI where a run writes the new version of a table.

        Raises:
            InputError: a name is no plain name, or a link below the root leads out of the lake.
        """
        place = f"{job}/{run_id}/{table}"
        if not is_place(place):
            raise InputError(
                f"{place!r} cannot be a path in {self.root}; expected names of letters, digits and _.=+- with '/'"
                " between them; rename the model or table"
            )
        require_below(self.root, self.uri(table))
        uri = self.uri(f"{_STAGING}/{place}")
        require_below(self.root, uri)
        return uri

    def read(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        equal: Mapping[str, Any] | None = None,
        **partition: object,
    ) -> pa.Table:
        """Return rows of a table that fits in memory, file by file in the order of their names.

        Args:
            name: Name of the table in `tables.TABLES`.
            columns: Columns under their present names, also for a lake of version 0.1; default: those of the contract.
            equal: Only rows with these values, by column.
            **partition: Only the partition whose path has these values, such as `event_date`.

        Returns:
            No rows if there is no file.

        Raises:
            SchemaMismatch: a file lacks one of the columns, or holds it with another type.
        """
        table = TABLES[name]
        names = table.contract.names if columns is None else list(columns)
        uris = files_in(self.uri(table.place(**partition)), SUFFIX)
        with ThreadPoolExecutor(_READERS) as pool:
            found = list(pool.map(lambda uri: read_file(uri, table, names, equal or {}), uris))
        if found:
            return pa.concat_tables(found)
        return pa.schema([table.contract.field(column) for column in names]).empty_table()

    def dates(self, name: str) -> list[dt.date]:
        """Return the dates of a table of nights, ascending; other folders are left out."""
        found = []
        for folder in self._names(name, "event_date="):
            with contextlib.suppress(ValueError):
                found.append(date_of(folder.partition("=")[2]))
        return sorted(found)

    def write(
        self,
        name: str,
        rows: pa.Table | Sequence[Mapping[str, Any]],
        staged: Callable[[str], str] | None = None,
        **partition: object,
    ) -> str:
        """Write a small table, or one partition of it, as one parquet file.

        Args:
            name: Name of the table in `tables.TABLES`.
            rows: Rows with the columns of the contract; columns that a mapping lacks become null.
            staged: Function from a path to the URI of its staged version; default: written in place, without a commit;
                the file appears with its whole content.
            **partition: Every value of the path of the table.

        Returns:
            The path below the lake's root, to pass to `commit`.

        Raises:
            ValueError: the rows have other columns than the contract, or a value of the path is missing.
            InputError: a link leads out of the lake.
        """
        table = TABLES[name]
        place = table.place(**partition)
        if place.count("/") != table.path.count("/"):
            raise ValueError(f"{table.path}: values given only for {', '.join(partition) or 'nothing'}")
        if not isinstance(rows, pa.Table):
            if unknown := {column for row in rows for column in row} - set(table.contract.names):
                raise ValueError(f"{name} has no column {', '.join(sorted(unknown))}")
            rows = pa.Table.from_pylist(list(rows), schema=table.contract)
        if not rows.schema.equals(table.contract):
            raise ValueError(f"{name}: found {rows.schema}, expected {table.contract}")
        file = place if place.endswith(SUFFIX) else f"{place}/part-00000{SUFFIX}"
        require_below(self.root, self.uri(file))
        if staged is None:
            replace_bytes(self.uri(file), table_bytes(rows))
        else:
            write_table(staged(file), rows)
        return place

    def facts(self, table: str, written_by: str) -> dict[str, Any]:
        """Return the facts that the writer of a table recorded.

        Raises:
            TableMissing: when the table is missing or incomplete; also when a fact is looked up that it lacks.
        """
        uri = self.uri(f"{table}/{TABLE_FACTS}")
        if not exists(uri):
            raise TableMissing(f"{self.uri(table)} holds no complete table; run {written_by} on this lake first")
        try:
            facts = _Facts(uri, written_by, json_text.loads(read_bytes(uri)))
            for name in facts.keys() & _FACTS.keys():
                facts[name] = _FACTS[name].validate_python(facts[name], strict=True)
        except (ValueError, TypeError, RecursionError) as error:
            reason = " ".join(str(error).split())[:_LONGEST_REASON]
            raise TableMissing(f"{uri} cannot be parsed ({reason}); run {written_by} on this lake again") from error
        return facts | {name: _Facts(uri, written_by, facts[name]) for name in ("rows", "row_groups") if name in facts}

    def commit(self, job: str, run_id: str, tables: Sequence[str]) -> None:
        """Replace tables by their staged versions, all or none.

        One run commits at a time. Commits of runs that were killed are finished first: the next job would otherwise do
        it, and put their older versions in the place of these.

        Raises:
            TooLarge: on S3, where a file of 5 GiB or more cannot be copied; nothing was changed.
            InputError: a table's path is not below the root; nothing was changed.
            Interrupted: the commit of an active run takes longer than ten minutes; nothing was changed.
        """
        staged = {table: self.staged(job, run_id, table) for table in tables}
        files = None if renames(self._fs) else {table: _copyable(uri) for table, uri in staged.items()}
        entry = Journal(job=job, run_id=run_id, tables=tuple(tables), files=files)
        uri = self.uri(f"{journal.PREFIX}{run_id}.json")
        while not self._begun(entry, uri):
            time.sleep(random.uniform(0.0, _LONGEST_PAUSE_S))
        self._finish(uri)

    def recover(self, job: str) -> None:
        """Finish the commits of killed runs, and remove files that ended runs of this job staged.

        Files of active runs are not changed; waits for their commits. Journals and heartbeats that are not as jobs
        write them are set aside with a warning: they stop no job, and what their runs staged stays.

        Raises:
            Interrupted: the commit of an active run takes longer than ten minutes.
            InputError: there is a symbolic link in the lake, or a name that is no UTF-8; nothing was changed.
        """
        require_plain(self.root, _FOLDERS)
        staged = self._names(f"{_STAGING}/{job}")  # before the active runs: a run takes its lease before it stages
        self._finish_earlier_commits()
        active = lease.active_runs(self.root) | self._set_aside_runs()
        for run_id in staged:
            if run_id not in active:
                self._remove(self.uri(f"{_STAGING}/{job}/{run_id}"))
        lease.expire(self.root)
        self._remove_empty(job)

    def discard(self, job: str, run_id: str) -> bool:
        """Remove the staged files of a run that will not commit; return False if its commit has begun.

        `recover` finishes such a commit.
        """
        if any(journal.writer(name) == run_id for name in self._names("", journal.PREFIX)):
            return False
        with contextlib.suppress(InputError):  # behind a link that leads out of the lake nothing was staged
            self._remove(self.uri(f"{_STAGING}/{job}/{run_id}"))
            self._remove_empty(job)
        return True

    def holds_tables(self) -> bool:
        """Return whether the root is a lake: whether it has the folder of a table."""
        return not _TOP.isdisjoint(self._names(""))

    def require_tables(self) -> None:
        """Check that the root is a lake, for what would take a mistyped one for an empty one.

        Raises:
            InputError: it has no folder of a table.
        """
        if not self.holds_tables():
            raise InputError(f"{self.root} holds no table; expected a lake; correct the setting lake (make: LAKE=…)")

    def discard_ended(self, first: dt.date) -> list[str]:
        """Remove what ended runs of all jobs staged, and tables that their commits replaced; return their run ids.

        Runs that are active, or whose commit is not finished, are left out; so are those whose journal or heartbeat was
        set aside, unless they began before a date: then these files are removed, too.

        Args:
            first: The date.
        """
        for name in self._names("", SET_ASIDE):
            if self._began_before(first, name_before(name)):
                remove(self.uri(name))
        staged = {(job, run_id) for job in self._names(_STAGING) for run_id in self._names(f"{_STAGING}/{job}")}
        replaced = self._names(_TRASH)  # before the active runs: a run takes its lease before it stages
        busy = lease.active_runs(self.root) | set(map(journal.writer, self._journals())) | self._set_aside_runs()
        places = {f"{_STAGING}/{job}/{run_id}": run_id for job, run_id in staged}
        places |= {f"{_TRASH}/{run_id}": run_id for run_id in replaced}
        ended = {place: run_id for place, run_id in places.items() if run_id not in busy}
        for place in ended:
            self._remove(self.uri(place))
        for job in {job for job, _ in staged}:
            self._remove_empty(job)
        remove_if_empty(self.uri(_TRASH))
        return sorted(set(ended.values()))

    @staticmethod
    def _began_before(first: dt.date, name: str) -> bool:
        """Return whether the run of a journal or heartbeat began before a date; its id begins with its time."""
        begin = (run[:8] for run in (journal.writer(name), lease.run_of(name)))
        return any(day.isdecimal() and len(day) == 8 and day < f"{first:%Y%m%d}" for day in begin)

    def _names(self, folder: str, start: str = "") -> list[str]:
        return [name for name in names_in(self.uri(folder).rstrip("/")) if name.startswith(start)]

    def _journals(self) -> list[str]:
        """Return the names of the journals; sets those aside that are not as a job writes them."""
        found = []
        for name in self._names("", journal.PREFIX):
            uri = self.uri(name)
            try:
                read_journal(uri, lists_files=not renames(self._fs))
                found.append(name)
            except FileNotFoundError:
                continue  # another job has finished the commit
            except journal.JournalUnusable as error:
                with contextlib.suppress(OSError):  # another job was first, or it cannot be renamed: it stays unused
                    log.warning(
                        "not used: journal=%s, because %s; expected the names of a run and its tables as this version"
                        " writes them; nothing was moved or deleted for it; it is now %s; if a job was interrupted, run"
                        " it again, then remove this file",
                        *(uri, error, set_aside(uri)),
                    )
        return found

    def _set_aside_runs(self) -> frozenset[str]:
        """Return the runs whose journals or heartbeats were set aside: what they staged may be needed yet."""
        names = [name_before(name) for name in self._names("", SET_ASIDE)]
        return frozenset(map(journal.writer, names)) | frozenset(map(lease.run_of, names))

    def _begun(self, entry: Journal, uri: str) -> bool:
        """Write the journal of a commit; return False, without it, if another run has begun to commit since.

        Of two runs at once the one that writes later sees the journal of the other: at most one goes on.
        """
        self._finish_earlier_commits()
        staged = self.staged(entry.job, entry.run_id, "journal.json")
        write_bytes(staged, entry.content())
        self._move(staged, uri)
        if all(journal.writer(name) == entry.run_id for name in self._journals()):
            return True
        remove(uri)
        return False

    def _finish_earlier_commits(self) -> None:
        """Finish the commits of ended runs, and wait for those of active ones."""
        while journals := self._journals():
            active = lease.active_runs(self.root)
            for name in journals:
                if journal.owner(name) not in active:
                    self._take_over(name)
            self._wait_for_active_commits()

    def _wait_for_active_commits(self) -> None:
        """Wait until no active run is committing."""
        deadline = time.monotonic() + self._patience_s
        while busy := {journal.owner(name) for name in self._journals()} & lease.active_runs(self.root):
            if time.monotonic() > deadline:
                raise Interrupted(
                    f"{self.root}: run {min(busy)} is committing its tables for more than {self._patience_s / 60:.0f}"
                    " minutes; expected seconds, on S3 minutes; nothing was changed; run the same command again after"
                    " that run has ended"
                )
            time.sleep(0.2)

    def _take_over(self, name: str) -> None:
        """Finish the commit of an ended run, unless another job takes it first."""
        try:
            self._entry(self.uri(name))  # refused before anything is moved
        except (FileNotFoundError, journal.JournalUnusable):
            return  # another job was first, or the run has just completed its commit; or it was replaced meanwhile
        with lease.Lease(self.root, f"{journal.writer(name)}{journal.TAKEN_BY}{uuid.uuid4().hex[:8]}") as taken:
            uri = self.uri(f"{journal.PREFIX}{taken.run_id}.json") if renames(self._fs) else self.uri(name)
            with contextlib.suppress(FileNotFoundError):
                if renames(self._fs):
                    self._move(self.uri(name), uri)
            if exists(uri):
                log.warning("finishing an interrupted commit journal=%s", name)
                self._finish(uri)

    def _entry(self, uri: str) -> tuple[Journal, dict[str, str]]:
        """Return a journal and the URI of each staged table, after a check of every name and link."""
        entry = read_journal(uri, lists_files=not renames(self._fs))
        require_below(self.root, self.uri(f"{_TRASH}/{entry.run_id}"))
        return entry, {table: self.staged(entry.job, entry.run_id, table) for table in entry.tables}

    def _finish(self, uri: str) -> None:
        entry, staged = self._entry(uri)
        if entry.files is not None:
            self._copy(uri, staged, entry.files)
        else:
            self._rename(entry.run_id, staged)
        self._remove(self.uri(f"{_TRASH}/{entry.run_id}"))
        self._remove(self.uri(f"{_STAGING}/{entry.job}/{entry.run_id}"))
        remove(uri)
        self._remove_empty(entry.job)

    def _rename(self, run_id: str, staged: Mapping[str, str]) -> None:
        for table, new in staged.items():
            if not exists(new):
                continue  # moved before the interruption
            if exists(self.uri(table)):
                replaced = self.uri(f"{_TRASH}/{run_id}/{table}")
                if exists(replaced):  # since the interruption something else has written this table
                    self._remove(self.uri(f"{_TRASH}/{run_id}"))
                self._move(self.uri(table), replaced)
            self._move(new, self.uri(table))

    def _copy(self, uri: str, staged: Mapping[str, str], files: Mapping[str, Sequence[str]]) -> None:
        """Copy every staged file to its place, then delete files of older versions; can be repeated.

        Another job may finish the same commit at the same time. This is safe: staged files are removed
        after all are copied, and files are deleted only while the journal exists and does not list them.
        """
        for table, new in staged.items():
            self._put(new, self.uri(table), files[table])
        for table, names in files.items():
            old = set(sizes_in(self.uri(table))) - set(names)
            if exists(uri):
                self._drop(self.uri(table), old)

    def _put(self, source: str, target: str, names: Iterable[str]) -> None:
        copy_all(self._fs, resolve(source)[1], resolve(target)[1], names)

    def _drop(self, uri: str, names: Iterable[str]) -> None:
        delete_all(self._fs, resolve(uri)[1], names)

    def _move(self, source: str, target: str) -> None:
        source_path, target_path = resolve(source)[1], resolve(target)[1]
        make_folder(self._fs, target_path.rsplit("/", 1)[0])
        self._fs.move(source_path, target_path)

    def _remove(self, uri: str) -> None:
        require_below(self.root, uri)
        path = resolve(uri)[1]
        if exists(uri):
            with contextlib.suppress(FileNotFoundError):  # another job finishes the same commit
                self._fs.delete_dir(path)

    def _remove_empty(self, job: str) -> None:
        for hidden in (f"{_STAGING}/{job}", _STAGING, _TRASH):
            remove_if_empty(self.uri(hidden))


_COUNTS: Final = TypeAdapter[Any](dict[str, Annotated[int, Field(ge=0)]])
_FACTS: Final[Mapping[str, TypeAdapter[Any]]] = {
    "run_id": TypeAdapter(str),
    "feature_schema": TypeAdapter(Literal["original45", "release39"]),
    "data_origin": TypeAdapter(Literal["measured", "synthetic"]),
    "rows": _COUNTS,
    "row_groups": _COUNTS,
    "classes_absent_in_train": TypeAdapter(list[str]),
    "preprocessor": TypeAdapter(str),
}
"""Types of the facts that jobs record."""


class _Facts(dict[str, Any]):
    """Facts of a table; the lookup of one that it lacks is refused."""

    def __init__(self, uri: str, written_by: str, content: dict[str, Any]) -> None:
        super().__init__(content)
        self._uri, self._written_by = uri, written_by

    def __or__(self, other: Mapping[str, Any]) -> "_Facts":  # type: ignore[override]
        return _Facts(self._uri, self._written_by, {**self, **other})

    def __missing__(self, key: str) -> Any:
        raise TableMissing(f"{self._uri} lacks {key}; run {self._written_by} on this lake again")


def _copyable(uri: str) -> tuple[str, ...]:
    sizes = sizes_in(uri)
    large = sorted(name for name, size in sizes.items() if size >= _LARGEST_COPY)
    if large:
        raise TooLarge(
            f"{uri}/{large[0]} holds {sizes[large[0]]} bytes; expected less than {_LARGEST_COPY}, the maximum that S3"
            " copies in one request; write more files (lower ingest.rows_per_file or raise features.files)"
        )
    return tuple(sizes)
