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
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import pyarrow.fs as pafs

from ids_spark.base.errors import InputError
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
_AT_ONCE: Final = 16
_STAMP_DIGITS: Final = 32


@dataclass(frozen=True)
class LogFile:
    """A file of flow logs.

    Attributes:
        path: Below the folder of flow logs, once it is part of them.
        staged: URI where a task wrote it; empty for one that is part of the logs.
    """

    path: str
    staged: str = ""


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
    files: list[str]
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
    """

    capture: str
    stamp: str
    seen: list[str] = field(default_factory=list)
    dates: dict[str, DateLogs] = field(default_factory=dict)
    fault: str = ""

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

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as plain values."""
        dates = {name: asdict(logs) | {"counts": logs.counts.as_json()} for name, logs in sorted(self.dates.items())}
        return asdict(self) | {"format": FORMAT, "dates": dates}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Manifest":
        """Return the manifest that `to_json` made.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        if found["format"] != FORMAT:
            raise ValueError(f"format {found['format']}")
        dates = {
            str(name): DateLogs(
                str(logs["stamp"]),
                [str(path) for path in logs["files"]],
                PacketCounts.from_json(logs["counts"]),
                [str(capture) for capture in logs["captures"]],
            )
            for name, logs in dict(found["dates"]).items()
        }
        return cls(
            str(found["capture"]),
            str(found["stamp"]),
            [str(name) for name in found["seen"]],
            dates,
            str(found["fault"]),
        )


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

    @contextlib.contextmanager
    def opened(self) -> Any:
        """Reserve the folder for this run and complete what killed runs left; afterwards remove what it has not used.

        Raises:
            InputError: another run writes to the folder.
        """
        filesystem.make_folder(self._fs, f"{self._path}/{FOLDER}")
        with Lease(self.folder, self._run_id):
            if others := active_runs(self.folder) - {self._run_id}:
                raise InputError(
                    f"{self.root}: run {min(others)} writes to it now; expected one run at a time; wait for its end"
                )
            expire(self.folder)
            self._repair()
            try:
                yield
            finally:
                self._remove_folder(f"{self._path}/{FOLDER}/{_WRITING}{self._run_id}")

    def manifest(self, key: str) -> Manifest | None:
        """Return the manifest of a capture; None if it has none that can be read, so that it is extracted again."""
        uri = f"{self.folder}/{key}{_MANIFEST}"
        try:
            return Manifest.from_json(filesystem.read_json(uri))
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            log.warning("manifest that cannot be used file=%s error=%s", uri, error)
            return None

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
        new = {file.path for file in files}
        journal = {
            "manifest": manifest.to_json(),
            "moves": [[file.staged, file.path] for file in files],
            "removes": sorted(set(replaced) - new),
        }
        filesystem.replace_bytes(f"{self.folder}/{key}{_JOURNAL}", json.dumps(journal).encode())
        self._complete(key, journal)

    def _complete(self, key: str, journal: Mapping[str, Any]) -> None:
        """Carry out a journal, from wherever an earlier run stopped."""
        for staged, path in journal["moves"]:
            source = filesystem.resolve(staged)[1]
            if self._fs.get_file_info(source).type == pafs.FileType.File:
                filesystem.move(self._fs, source, f"{self._path}/{path}")
        for path in journal["removes"]:
            filesystem.remove(f"{self.root}/{path}")
            filesystem.remove_if_empty(f"{self.root}/{path}".rsplit("/", 1)[0])
        filesystem.replace_bytes(f"{self.folder}/{key}{_MANIFEST}", json.dumps(journal["manifest"], indent=1).encode())
        filesystem.remove(f"{self.folder}/{key}{_JOURNAL}")

    def _repair(self) -> None:
        names = self._names()
        for name in (name for name in names if name.endswith(_JOURNAL)):
            uri = f"{self.folder}/{name}"
            log.warning("completing a replacement that a killed run began journal=%s", uri)
            self._complete(name.removesuffix(_JOURNAL), filesystem.read_json(uri))
        for name in (name for name in names if name.startswith(_WRITING)):
            log.warning("removing files of a killed run folder=%s/%s", self.folder, name)
            self._remove_folder(f"{self._path}/{FOLDER}/{name}")

    def _names(self) -> list[str]:
        found = self._fs.get_file_info(pafs.FileSelector(f"{self._path}/{FOLDER}", allow_not_found=True))
        return sorted(info.base_name for info in found)

    def _remove_folder(self, path: str) -> None:
        if self._fs.get_file_info(path).type == pafs.FileType.Directory:
            self._fs.delete_dir(path)
