"""Tables of the lake as Delta tables, for other programs: Databricks, Spark, Trino, DuckDB, polars.

`export` makes the state of each Delta table that of its table in the lake: it compares the files of both, copies part
files that are new as they are, and adds and removes files in one commit of Delta's log. So a killed or failed export
leaves the version before it, the next one does what is missing, and one that has nothing to do commits nothing. Readers
see a version of a table or the next one, and versions of the last days.

The lake remains the source: nothing is read back. Two exports at once are safe: of two commits to one version of a
Delta table one fails, and its export begins again, with the files that the lake has by then.

A file of the Delta table has the name of that in the lake and a hash of its path, size and time of modification: a file
of the lake is replaced, never changed.
"""

import hashlib
import json
import logging
import os
import random
import re
import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import deltalake
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction

from ids_spark.base.errors import InputError, Interrupted
from ids_spark.base.text import one_line, shown
from ids_spark.dataset.tables import TABLES, Table
from ids_spark.lake.filesystem import (
    delete_all,
    exists,
    make_folder,
    names_in,
    object_store,
    read_json,
    renames,
    replace_bytes,
    require_below,
    resolve,
)
from ids_spark.lake.listing import Listing, Version, on_one_state, wait_for_tick
from ids_spark.lake.parquet import SUFFIX, footer_of, stored_names
from ids_spark.lake.storage_faults import explained
from ids_spark.lake.store import Lake

log = logging.getLogger(__name__)

EXPORTED: Final[Mapping[str, str]] = {
    "predictions": "predictions",
    "incidents": "incidents",
    "alerts": "alerts",
    "nights": "nights",
    "drift": "drift",
    "metrics": "metrics",
    "audit": "audit",
    "verdicts": "verdicts",
    "quarantine": "quarantine/job=score",
}
"""Table in the lake of each Delta table."""
MARK: Final = "_ids_spark.json"
"""File beside the Delta tables that names their lake."""
_TRIES: Final = 20  # commits of other exports of the same lake, before one succeeds
_PIECE: Final = 8 << 20  # bytes copied at a time
_COPIED_AT_ONCE: Final = 8
_DRAWN: Final = re.compile(r"\x1b\[\d+m|↳|\s*\d+: (<unknown>|\w+\s+at \S+:\d+:\d+)")
"""Colours, arrows and stack frames in messages."""
_UNFINISHED: Final = "copy-"  # start of the name of a local file that is being copied


class ExportRefused(InputError):
    """Raised when tables cannot be exported to a place, or a file not to its Delta table."""


@dataclass(frozen=True)
class Exported:
    """What one export changed in a Delta table.

    Attributes:
        table: Its name.
        version: Its newest version.
        added: Files added.
        removed: Files removed.
    """

    table: str
    version: int
    added: int
    removed: int


def export(lake: Lake, root: str, run_id: str, keep_days: int, tidy: bool = False) -> list[Exported]:
    """Bring every Delta table to the present state of the lake; return those that were changed.

    Args:
        lake: The lake.
        root: Folder or URI of the Delta tables.
        run_id: Run that exports, stored with each commit.
        keep_days: Days for which replaced versions can be read.
        tidy: Also delete files of versions older than that.

    What cannot be exported stops no other table, and keeps no date that the lake no longer has, if its Delta table can
    be read and changed.

    Raises:
        ExportRefused: the place holds tables of another lake or cannot hold any, or files cannot be exported; tables
            without such files are complete.
        Interrupted: jobs, or other exports, changed the tables again and again; a killed job left its commit; or Delta
            tables, or files, cannot be read or written: the other tables are complete.
        OSError: the place cannot be read or written.
    """
    place = _Place(root, lake)
    changed: list[Exported] = []
    faults: dict[str, Exception] = {}
    for name in EXPORTED:
        try:
            done = _export_table(lake, place, name, run_id, keep_days)
            if done.added or done.removed:
                changed.append(done)
                log.info("exported table=%s version=%d files=+%d -%d", name, done.version, done.added, done.removed)
            if done.removed or tidy:
                _delete_purged(lake, place, name)
            if tidy:
                _delete_expired(place.table(name), keep_days)
        except _FAULTS as error:
            faults[name] = error
    if faults:
        first = f"{len(faults)} of {len(EXPORTED)} Delta tables in {place.root} are not complete:"
        texts = [_incomplete(lake, place, name, run_id, keep_days, error) for name, error in faults.items()]
        refused = all(isinstance(error, InputError) for error in faults.values())
        raise (ExportRefused if refused else Interrupted)(first, *texts)
    return changed


_FAULTS: Final = (InputError, DeltaError, OSError, pa.ArrowException)
"""Errors of one table; the others are exported all the same."""


def _incomplete(lake: Lake, place: "_Place", name: str, run_id: str, keep_days: int, error: Exception) -> str:
    """Return why a Delta table could not be brought to the state of the lake, and what to do; removes what is gone."""
    text = f"{name}: {_text(error, place.root)}"
    if not isinstance(error, InputError):
        text += (
            f"; it is at the version before; run the export again, and if that fails too, delete {place.uri(name)}: the"
            " next export writes this table anew"
        )
    try:
        _export_table(lake, place, name, run_id, keep_days, only_removes=True)
        _delete_purged(lake, place, name)
    except (*_FAULTS, Interrupted):
        if TABLES[EXPORTED[name]].partition != "event_date" and names_in(place.uri(name)):
            return f"{text}; rows that were removed from the lake may still be in it"
        if gone := [each.removeprefix("event_date=") for each in _gone(lake, place, name)]:
            return f"{text}; it still holds dates that were removed from the lake: {shown(gone)}"
    return text


def _text(error: Exception, root: str) -> str:
    """Return an error in one line; `deltalake` draws its causes as a tree in colours."""
    return one_line(explained(error, root) or Exception(_DRAWN.sub("", str(error))))


def require_target(root: str, lake: str) -> None:
    """Check that Delta tables can be in a place, by its name and local links alone; no request is made.

    Args:
        root: Folder or URI of the Delta tables.
        lake: Root of the lake.

    Raises:
        ExportRefused: other programs cannot find them there; or it is the lake, in it or around it, where an export
            would take files of the lake for those of its own.
    """
    store, parts = _location(root)
    if store not in ("file", "s3"):
        raise ExportRefused(f"export.delta is {root}; expected a local path or an s3a: URI")
    store_of_lake, of_lake = _location(lake)
    shared = min(len(parts), len(of_lake))
    if (store, parts[:shared]) == (store_of_lake, of_lake[:shared]):
        kind = "around the lake"
        if shared == len(of_lake):
            kind = "the lake itself" if shared == len(parts) else "inside the lake"
        raise ExportRefused(f"export.delta is {root}, {kind} ({lake}); expected a folder beside the lake")
    path = resolve(root)[1] if store == "file" else "/".join(parts)
    if set(path) - _PLAIN or (store == "s3" and {".", ".."} & set(parts)):
        raise ExportRefused(
            f"export.delta is {root!r}; expected a path of letters, digits and _.=+-/ without blanks: other"
            " programs do not find files of Delta tables in it"
        )


def _location(uri: str) -> tuple[str, tuple[str, ...]]:
    """Return the store of a URI, and the parts of its path, local links followed."""
    scheme, rest = uri.split(":", 1) if ":" in uri.split("/", 1)[0] else ("file", os.path.abspath(uri))
    path = os.path.realpath(f"/{rest.lstrip('/')}") if scheme == "file" else rest
    return scheme.replace("s3a", "s3"), tuple(part for part in path.split("/") if part)


class _Place:
    """The folder of the Delta tables: as `deltalake` and as pyarrow see it."""

    def __init__(self, root: str, lake: Lake) -> None:
        self.fs, self.path = resolve(root)
        local = isinstance(self.fs, pafs.LocalFileSystem)
        require_target(root, lake.root)
        self.root = self.path if local else f"s3://{self.path}"
        self._options = {} if local else object_store(root)
        self._claim(lake)

    def uri(self, name: str) -> str:
        return f"{self.root}/{name}"

    def table(self, name: str) -> deltalake.DeltaTable:
        return deltalake.DeltaTable(self.uri(name), storage_options=self._options)

    def made(self, name: str, schema: pa.Schema, keys: Sequence[str], keep_days: int) -> deltalake.DeltaTable:
        """Return a table; makes an empty one if there is none."""
        if not deltalake.DeltaTable.is_deltatable(self.uri(name), storage_options=self._options):
            make_folder(self.fs, f"{self.path}/{name}")
            kept = f"interval {keep_days} days"
            deltalake.DeltaTable.create(
                self.uri(name),
                schema=deltalake.Schema.from_arrow(schema),
                mode="ignore",
                partition_by=list(keys),
                name=name,
                configuration={"delta.deletedFileRetentionDuration": kept, "delta.logRetentionDuration": kept},
                storage_options=self._options,
            )
        return self.table(name)

    def _claim(self, lake: Lake) -> None:
        """Mark the folder as that of a lake.

        Raises:
            ExportRefused: it is that of another lake, or holds other tables.
        """
        mark, content = self.uri(MARK), json.dumps({"lake": lake.root})
        if exists(mark):
            try:
                owner = read_json(mark)["lake"]
            except (ValueError, TypeError, KeyError) as error:
                raise ExportRefused(f"{mark} is not as an export writes it; restore it: {content}") from error
            if owner != lake.root:
                raise ExportRefused(
                    f"{self.root} holds the Delta tables of lake {owner}; expected those of {lake.root}; export to"
                    f" another folder, or correct {MARK} in it if the lake was moved"
                )
            return
        if taken := [name for name in EXPORTED if names_in(self.uri(name))]:
            raise ExportRefused(
                f"{self.root} holds {shown(taken)}, and no {MARK}: they are not of an export; export to another folder"
            )
        replace_bytes(mark, f"{content}\n".encode())


_PLAIN: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.=+-/")
"""Characters of paths that every reader of Delta tables finds; in others, some look for percent-encoded names."""


def _export_table(
    lake: Lake, place: _Place, name: str, run_id: str, keep_days: int, only_removes: bool = False
) -> Exported:
    """Commit the next version of a table; with `only_removes` one without the dates, or runs, that the lake has not."""
    require_below(place.root, place.uri(name))  # a link could lead into the lake
    for attempt in range(_TRIES):
        try:
            made = on_one_state(
                lake, [EXPORTED[name]], lambda files: _Export(lake, place, name, files, keep_days, only_removes)
            )
            return made.commit(run_id)
        except CommitFailedError:
            log.info("another export committed first table=%s attempt=%d", name, attempt)
            time.sleep(random.uniform(0.05, 0.2) * (attempt + 1))
    raise Interrupted(f"{place.uri(name)}: {_TRIES} times another program committed first; run the export again")


class _Export:
    """The next version of one Delta table: files are copied when it is made, and visible when it is committed.

    The version of the Delta table is read first, the files of the lake then: an export that read older files commits to
    an older version, which fails.
    """

    def __init__(
        self, lake: Lake, place: _Place, name: str, files: Listing, keep_days: int, only_removes: bool
    ) -> None:
        self._lake, self._place, self._name = lake, place, name
        self._source = TABLES[EXPORTED[name]]
        self._keys = [key for key in self._source.keys_in_path() if key != "job"]
        self._now_ms = int(time.time() * 1000)
        wanted = {
            self._target(path, version): path for path, version in files[EXPORTED[name]].items() if self._dated(path)
        }
        wait_for_tick(files)
        fs, root = resolve(lake.root)
        contract = self._with_keys(self._source.contract)
        self._delta = place.made(name, contract, self._keys, keep_days)
        active = _active(self._delta)
        self._adds: list[AddAction] = []
        self._removes = {target: size for target, size in active.items() if target not in wanted}
        if only_removes:
            kept = {self._values(target).get("event_date") for target in wanted if "event_date" in self._keys}
            self._removes = {
                target: size
                for target, size in self._removes.items()
                if self._values(target).get("event_date") not in kept
            }
            return
        new = {target: path for target, path in wanted.items() if target not in active}
        with ThreadPoolExecutor(_COPIED_AT_ONCE) as pool:
            footers = dict(zip(new, pool.map(lambda path: footer_of(fs, f"{root}/{path}"), new.values()), strict=True))
        self._require_columns(contract)
        for footer in footers.values():
            self._require_columns(self._with_keys(_present(footer.schema.to_arrow_schema(), self._source)))
        with ThreadPoolExecutor(_COPIED_AT_ONCE) as pool:
            self._adds = list(pool.map(lambda target: self._added(target, new[target], footers[target]), new))

    def commit(self, run_id: str) -> Exported:
        """Commit the version, if it differs from the one before.

        Raises:
            CommitFailedError: another program committed meanwhile.
        """
        if self._adds or self._removes:
            removes = [
                RemoveAction(target, True, self._now_ms, size, self._values(target))
                for target, size in self._removes.items()
            ]
            self._delta.create_write_transaction(
                [*self._adds, *removes],
                "append",
                self._delta.schema(),
                self._keys,
                commit_properties=deltalake.CommitProperties({"ids_spark.run_id": run_id}, max_commit_retries=0),
            )
            self._delta = self._place.table(self._name)
        return Exported(self._name, self._delta.version(), len(self._adds), len(self._removes))

    def _target(self, path: str, version: Version) -> str:
        """Return the name, below the Delta table, of a file of the lake."""
        below = path.removeprefix(f"{EXPORTED[self._name]}/")
        known = hashlib.sha256(f"{below}\0{version.size}\0{version.mtime_ns}".encode()).hexdigest()[:16]
        return f"{below.removesuffix(SUFFIX)}-{known}{SUFFIX}"

    def _values(self, path: str) -> dict[str, str | None]:
        found = self._source.values_in(path)
        return {key: None if found[key] is None else str(found[key]) for key in self._keys}

    def _dated(self, path: str) -> bool:
        if missing := [key for key, value in self._source.values_in(path).items() if value is None and key != "job"]:
            log.warning("not exported, because its path has no %s: %s", " and ".join(missing), self._lake.uri(path))
        return not missing

    def _with_keys(self, schema: pa.Schema) -> pa.Schema:
        """Return columns of files with those of their path at the end."""
        keys = [pa.field(key, pa.date32() if key == "event_date" else pa.string()) for key in self._keys]
        return pa.schema([*(pa.field(each.name, each.type) for each in schema if each.name not in self._keys), *keys])

    def _require_columns(self, schema: pa.Schema) -> None:
        """Add the columns that the Delta table lacks, in a commit of their own."""
        known = [field.name for field in self._delta.schema().fields]
        missing = [name for name in schema.names if name not in known]
        lower = Counter(name.lower() for name in (*known, *missing))
        if equal := [name for name in missing if lower[name.lower()] > 1]:
            raise ExportRefused(
                f"column(s) {shown(equal)} differ only in case from others, of which Delta tables can have one; leave"
                " one of them out of score.pass_through"
            )
        if missing:
            fields = deltalake.Schema.from_arrow(pa.schema([schema.field(name) for name in missing])).fields
            self._delta.alter.add_columns(fields)
            self._delta = self._place.table(self._name)

    def _added(self, target: str, path: str, footer: pq.FileMetaData) -> AddAction:
        """Copy a file to the folder of the Delta table, and return the entry of the log.

        A file with columns of an older name or another type is written anew. Statistics are the number of rows alone:
        no value of a column is in the log, which no purge changes.
        """
        present = _present(footer.schema.to_arrow_schema(), self._source)
        stored = footer.schema.to_arrow_schema().names
        types = {field.name: field for field in self._delta.schema().fields}
        differing = [
            field.name
            for field in deltalake.Schema.from_arrow(present).fields
            if field.name not in self._keys and field.type.to_json() != types[field.name].type.to_json()
        ]
        uri = f"{self._place.uri(self._name)}/{target}"
        require_below(self._place.root, uri)
        if differing or present.names != stored or set(present.names) & set(self._keys):
            self._write(target, path, present, differing)
        else:
            _copy(resolve(self._lake.root)[0], resolve(self._lake.uri(path))[1], self._place, f"{self._name}/{target}")
        size = self._place.fs.get_file_info(f"{self._place.path}/{self._name}/{target}").size
        stats = json.dumps({"numRecords": footer.num_rows})
        return AddAction(target, size, self._values(target), self._now_ms, True, stats)

    def _write(self, target: str, path: str, present: pa.Schema, differing: Sequence[str]) -> None:
        fs, file = resolve(self._lake.uri(path))
        table = pq.ParquetFile(fs.open_input_file(file)).read().rename_columns(present.names)
        for name in differing:
            kind = self._type_in_table(name)
            try:
                table = table.set_column(table.column_names.index(name), name, table[name].cast(kind))
            except pa.ArrowException as error:
                raise ExportRefused(
                    f"{self._lake.uri(path)}: column {name} is {table.schema.field(name).type}, in the Delta table"
                    f" {kind}, and cannot be converted ({one_line(error)}); export to another folder"
                ) from error
        table = table.drop_columns([name for name in self._keys if name in table.column_names])
        full = f"{self._place.path}/{self._name}/{target}"
        make_folder(self._place.fs, full.rsplit("/", 1)[0])
        pq.write_table(table, full, filesystem=self._place.fs)

    def _type_in_table(self, name: str) -> pa.DataType:
        """Return the Arrow type of a column of the Delta table."""
        if name in self._source.contract.names:
            return self._source.contract.field(name).type
        kind = next(field.type.to_json() for field in self._delta.schema().fields if field.name == name)
        found = {'"string"': pa.string(), '"timestamp"': pa.timestamp("us", "UTC")}.get(kind)
        if found is None:
            raise ExportRefused(
                f"column {name} of the Delta table is {kind}; expected text or a time; export to another folder"
            )
        return found


def _present(schema: pa.Schema, table: Table) -> pa.Schema:
    """Return the columns of a file under their present names, in their order."""
    names = stored_names(schema.names, table)
    new = {old: name for name, old in names.items()}
    return pa.schema([pa.field(new[column.name], column.type) for column in schema])


def _active(delta: deltalake.DeltaTable) -> dict[str, int]:
    """Return the bytes of each file of the newest version, by its path below the table."""
    found = pa.table(delta.get_add_actions())
    return dict(zip(found["path"].to_pylist(), found["size_bytes"].to_pylist(), strict=True))


def _copy(fs: pafs.FileSystem, source: str, place: _Place, name: str) -> None:
    """Copy a file; on a local file system it has another name until it is complete, on S3 it is not visible before."""
    target = f"{place.path}/{name}"
    folder = target.rsplit("/", 1)[0]
    if fs.equals(place.fs) and not renames(fs):
        fs.copy_file(source, target)
        return
    make_folder(place.fs, folder)
    unfinished = f"{folder}/{_UNFINISHED}{secrets.token_hex(8)}" if renames(place.fs) else target
    with (
        fs.open_input_stream(source, compression=None) as read,
        place.fs.open_output_stream(unfinished, compression=None) as write,
    ):
        while piece := read.read(_PIECE):
            write.write(piece)
    if unfinished != target:
        place.fs.move(unfinished, target)


def _delete_purged(lake: Lake, place: _Place, name: str) -> None:
    """Delete, of all versions, the files of dates that the lake no longer has, and files of runs that were replaced.

    Whoever removed a date, or replaced the file of a run (as a purge does with verdicts): its rows must not remain in
    older versions. Replaced files of dates that the lake has stay for `keep_days`.
    """
    table, folder = EXPORTED[name], f"{place.path}/{name}"
    if TABLES[table].partition != "event_date":
        if replaced := place.table(name).vacuum(0, dry_run=True, enforce_retention_duration=False, full=False):
            delete_all(place.fs, folder, replaced)
        return
    if gone := _gone(lake, place, name):
        active = {path.split("/", 1)[0] for path in _active(place.table(name))}
        for each in gone:
            if each not in active:
                place.fs.delete_dir(f"{folder}/{each}")


def _gone(lake: Lake, place: _Place, name: str) -> list[str]:
    """Return the folders, of dates that the lake no longer has, below a Delta table."""
    table = EXPORTED[name]
    exported = [each for each in names_in(place.uri(name)) if each.startswith("event_date=")]
    kept = on_one_state(
        lake,
        [table],
        lambda files: {f"event_date={TABLES[table].values_in(path)['event_date']}" for path in files[table]},
    )
    return [each for each in exported if each not in kept]


def _delete_expired(table: deltalake.DeltaTable, keep_days: int) -> None:
    """Delete files that no version of the last days has, and what killed exports left."""
    hours = 24 * keep_days
    if table.vacuum(hours, dry_run=True, enforce_retention_duration=False, full=True):
        table.vacuum(hours, dry_run=False, enforce_retention_duration=False, full=True)
