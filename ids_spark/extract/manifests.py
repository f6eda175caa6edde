"""What was extracted from each capture, and the replacement of its flow logs in one journalled step.

    LOGS/event_date=…/flows-….parquet   flow logs
    LOGS/_extract/<key>.json            manifest of a capture: what was read, and the files that it became
    LOGS/_extract/<key>.commit          journal of a replacement that has begun
    LOGS/_extract/writing-<run>/…       files of a run that are not yet part of the logs

A file becomes visible by a rename, when it is complete. A replacement first writes its journal, then renames the new
files, removes the old ones that no new one replaced, and writes the manifest; a run that was killed in between is
completed by the next one. The folder `_extract` is hidden from readers of the logs.
"""

import contextlib
import datetime as dt
import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import pyarrow.fs as pafs
from pydantic import Field, TypeAdapter

from ids_spark.base import json_text
from ids_spark.base.errors import InputError
from ids_spark.base.names import NAME
from ids_spark.base.text import one_line
from ids_spark.extract.capture_files import Capture
from ids_spark.extract.counts import PacketCounts
from ids_spark.lake import filesystem
from ids_spark.lake.lease import Lease, active_runs, expire

log = logging.getLogger(__name__)

FOLDER: Final = "_extract"
FORMAT: Final = 1
JOINED: Final = "joined"
"""Key of the manifest of all captures whose windows continue across files (`extract.join_files`)."""
_MANIFEST, _JOURNAL, _WRITING = ".json", ".commit", "writing-"
_UNFINISHED: Final = ".new"  # of `replace_bytes`
_AT_ONCE: Final = 16
_STAMP_DIGITS: Final = 32


LogPath = Annotated[str, Field(pattern=r"^event_date=\d{4}-\d{2}-\d{2}/flows-[0-9a-z]+-\d{5,}(\.\d+)?\.parquet$")]
"""Path of a file below the folder of flow logs."""
StagedPath = Annotated[str, Field(pattern=rf"^{_WRITING}{NAME}/{NAME}$")]
"""Path of a file that is not yet part of the logs, below the folder `_extract`."""


@dataclass(frozen=True)
class LogFile:
    """A file of flow logs.

    Attributes:
        path: Where it will be.
        staged: Where a task wrote it.
    """

    path: LogPath
    staged: StagedPath


@dataclass
class DateLogs:
    """What a capture became on one date.

    Attributes:
        stamp: From `stamp_of`, when its files were written.
        files: Their paths below the folder of flow logs; none if the capture has no packet of the date.
        counts: Of its packets.
        captures: Names of the captures they are from, if windows continue across files.
    """

    stamp: str
    files: list[LogPath]
    counts: PacketCounts
    captures: list[str] = field(default_factory=list)


@dataclass
class Manifest:
    """What was extracted from a capture.

    Attributes:
        capture: Name below the folder of captures.
        stamp: From `stamp_of`, of the last extraction.
        seen: Every date that it has packets of, written or not.
        dates: Logs by date; after a run for one date only (`extract.date`), others may be missing or older.
        fault: Where and why the capture cannot be read further; empty for a sound one.
        folder: URI of the folder of captures; empty for all captures together.
        format: Version of this content.
    """

    capture: str
    stamp: str
    seen: list[str] = field(default_factory=list)
    dates: dict[str, DateLogs] = field(default_factory=dict)
    fault: str = ""
    folder: str = ""
    format: int = FORMAT

    def is_current(self, stamp: str, date: dt.date | None, present: Mapping[str, int]) -> bool:
        """Return whether the logs of a date (None: of every date) are those of a capture that has not changed.

        Args:
            stamp: Of the capture now.
            date: The date that is asked for.
            present: Files below the folder of flow logs; a missing one has to be written again.
        """
        needed = set(self.seen) & {str(date)} if date is not None else set(self.seen) | set(self.dates)
        if self.stamp != stamp:
            return False
        return all(
            name in self.dates
            and self.dates[name].stamp == stamp
            and all(path in present for path in self.dates[name].files)
            for name in needed
        )


@dataclass(frozen=True)
class Replacement:
    """Content of a journal.

    Anyone who can write to the folder can write a journal, and the next run acts on it: paths must match a pattern.

    Attributes:
        manifest: The new manifest of the capture.
        new: Files that become part of the logs.
        removed: Files that cease to be.
    """

    manifest: Manifest
    new: tuple[LogFile, ...]
    removed: tuple[LogPath, ...]


_MANIFESTS: Final = TypeAdapter(Manifest)
_REPLACEMENTS: Final = TypeAdapter(Replacement)


def stamp_of(capture: Capture, settings: Mapping[str, Any]) -> str:
    """Return a text that changes with size or modification time of a capture, or with settings that decide its rows."""
    facts = [capture.name, capture.size, capture.modified, str(capture.date), dict(settings)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:_STAMP_DIGITS]


class ExtractedLogs:
    """The folder of flow logs that captures became.

    Args:
        target: URI of the folder; made by the first run.
        run_id: Of this run.
    """

    def __init__(self, target: str, run_id: str) -> None:
        self.root = filesystem.absolute(target).rstrip("/")
        self.folder = f"{self.root}/{FOLDER}"
        self.writing = f"{self.folder}/{_WRITING}{run_id}"
        self._run_id = run_id
        self._fs, self._path = filesystem.resolve(self.root)
        self._emptied: set[str] = set()

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Reserve the folder for this run and complete what killed runs left; afterwards remove what it has not used.

        Raises:
            InputError: the folder cannot be made, is a link, or another run writes to it.
        """
        filesystem.require_below(self.root, self.folder)
        try:
            filesystem.make_folder(self._fs, f"{self._path}/{FOLDER}")
        except OSError as error:
            raise InputError(
                f"{self.root}: expected a folder that can be written ({one_line(error)}); set extract.target to another"
                " one, or change its owner or mode"
            ) from error
        with Lease(self.folder, self._run_id):
            expire(self.folder)
            if others := active_runs(self.folder) - {self._run_id}:
                raise InputError(
                    f"{self.root}: run {min(others)} writes to it now; expected one run at a time; wait for its end"
                )
            self._repair()
            try:
                yield
            finally:
                self._remove_folder(f"{self._path}/{FOLDER}/{_WRITING}{self._run_id}")
                for folder in self._emptied:  # not before, as another capture may be about to use it
                    filesystem.remove_if_empty(folder)

    def manifest(self, key: str) -> Manifest | None:
        """Return the manifest of a capture; None if it has none that can be read, so that it is extracted again."""
        uri = f"{self.folder}/{key}{_MANIFEST}"
        try:
            found = _MANIFESTS.validate_json(_content(uri))
        except FileNotFoundError:
            return None
        except ValueError as error:
            log.warning("not used: manifest file=%s error=%s", uri, json_text.fault_of(error))
            return None
        return found if found.format == FORMAT else None

    def manifests(self, keys: Iterable[str]) -> dict[str, Manifest]:
        """Return the manifests of captures by key, of those that have one."""
        names = list(keys)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = pool.map(self.manifest, names)
        return {key: manifest for key, manifest in zip(names, found, strict=True) if manifest is not None}

    def keys(self) -> list[str]:
        """Return the keys of all captures that have a manifest."""
        names = (name for name in self._names() if name.endswith(_MANIFEST) and not name.startswith("."))
        return sorted(name.removesuffix(_MANIFEST) for name in names)

    def present(self) -> dict[str, int]:
        """Return the size of every file of the logs by its path below the folder."""
        return {
            name: size for name, size in filesystem.sizes_in(self.root).items() if not name.startswith(f"{FOLDER}/")
        }

    def replace(self, key: str, manifest: Manifest, files: Sequence[LogFile], replaced: Iterable[str]) -> None:
        """Replace files of the logs by new ones, and the manifest of a capture.

        Args:
            key: Of the capture.
            manifest: The new one.
            files: New files, each complete where a task wrote it.
            replaced: Paths of files of the old manifest that the new ones replace.
        """
        removed = sorted(set(replaced) - {file.path for file in files})
        entry = Replacement(manifest, tuple(files), tuple(removed))
        filesystem.replace_bytes(f"{self.folder}/{key}{_JOURNAL}", _REPLACEMENTS.dump_json(entry))
        self._complete(key, entry)

    def _complete(self, key: str, entry: Replacement) -> None:
        """Carry out a journal, from wherever an earlier run stopped."""
        for path in (*(file.path for file in entry.new), *entry.removed):
            filesystem.require_below(self.root, f"{self.root}/{path}")
        for file in entry.new:
            filesystem.require_below(self.root, f"{self.folder}/{file.staged}")
            staged = f"{self._path}/{FOLDER}/{file.staged}"
            if self._fs.get_file_info(staged).type == pafs.FileType.File:
                filesystem.move(self._fs, staged, f"{self._path}/{file.path}")
        for path in entry.removed:
            filesystem.remove(f"{self.root}/{path}")
            self._emptied.add(f"{self.root}/{path}".rsplit("/", 1)[0])
        filesystem.replace_bytes(f"{self.folder}/{key}{_MANIFEST}", _MANIFESTS.dump_json(entry.manifest, indent=1))
        filesystem.remove(f"{self.folder}/{key}{_JOURNAL}")

    def _repair(self) -> None:
        names = self._names()
        for name in (name for name in names if name.endswith(_JOURNAL)):
            uri = f"{self.folder}/{name}"
            try:
                entry = _REPLACEMENTS.validate_json(_content(uri))
            except ValueError as error:
                with contextlib.suppress(OSError):  # it cannot be renamed: it stays unused
                    log.warning(
                        "not used: journal=%s, because %s; expected the files of a capture as this version writes them;"
                        " nothing was moved or deleted for it; it is now %s; extract again with extract.again=true,"
                        " then remove this file",
                        *(uri, json_text.fault_of(error), filesystem.set_aside(uri)),
                    )
                continue
            log.warning("completing a replacement that a killed run began journal=%s", uri)
            self._complete(name.removesuffix(_JOURNAL), entry)
        for name in (name for name in names if name.endswith(_UNFINISHED)):
            filesystem.remove(f"{self.folder}/{name}")
        for name in (name for name in names if name.startswith(_WRITING)):
            log.warning("removing files of a killed run folder=%s/%s", self.folder, name)
            self._remove_folder(f"{self._path}/{FOLDER}/{name}")

    def _names(self) -> list[str]:
        return [name for name in filesystem.names_in(self.folder) if not name.startswith(filesystem.SET_ASIDE)]

    def _remove_folder(self, path: str) -> None:
        if self._fs.get_file_info(path).type == pafs.FileType.Directory:
            self._fs.delete_dir(path)


def _content(uri: str) -> bytes:
    """Return a file of JSON.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: it is a link, no file, or no JSON within the limits of `json_text`.
    """
    if not filesystem.is_plain_file(uri):
        raise ValueError("it is a link, or no file")
    return json_text.checked(filesystem.read_bytes(uri))
