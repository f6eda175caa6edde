"""The captures of a folder: recognised by content, with date and pieces, or the reason why a file is not read."""

import datetime as dt
import hashlib
import os
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

import pyarrow.fs as pafs

from ids_spark.base.errors import InputError
from ids_spark.base.names import date_of
from ids_spark.base.text import shown
from ids_spark.extract import formats, records
from ids_spark.ingest import files, other_logs
from ids_spark.ingest.files import File
from ids_spark.lake.filesystem import absolute, exists, is_file, resolve

DATE_FOLDER: Final = "event_date="
_AT_ONCE: Final = 16
_NAMES_SHOWN: Final = 5
_OTHER_RATIO: Final = 3  # of the time for a byte of gzip or pcapng to that of pcap, about
_BYTES_PER_FILE: Final = 2_000_000  # which take as long as opening a file and writing its logs
_SETTLED_NS: Final = 600 * 10**9
_SHORTEST: Final = 24  # bytes of a pcap file without packets
_KEY_DIGITS: Final = 16
_FIRST_YEAR, _LAST_YEAR = 1970, 2200  # as of packets
_PACKED: Final = ".gz"
_HASHED_AT_ONCE: Final = 1 << 20


@dataclass(frozen=True)
class Capture:
    """A capture file.

    Attributes:
        uri: Of the file.
        name: Path below the folder of captures.
        size: In bytes.
        modified: Time of the last modification, in nanoseconds since 1970; 0 if the file system does not tell.
        date: From a folder `event_date=…` in its path; then all its packets belong to this date.
        divisible: Whether tasks can read pieces of it: pcap that is not compressed.
    """

    uri: str
    name: str
    size: int
    modified: int
    date: dt.date | None = None
    divisible: bool = True

    @property
    def key(self) -> str:
        """From `key_of`."""
        return key_of(self.name)

    @property
    def folder(self) -> str:
        """URI of the folder of captures."""
        return self.uri.removesuffix(self.name).rstrip("/")


@dataclass(frozen=True)
class Piece:
    """A part of a capture that one task reads: the packets whose records begin in `[begin, end)`.

    Attributes:
        capture: The file.
        number: From 0.
        begin: First byte; 0 in the first piece.
        end: Byte after the last.
        stamp: Of the capture and the settings, from `manifests.stamp_of`.
    """

    capture: Capture
    number: int
    begin: int
    end: int
    stamp: str

    @property
    def load(self) -> int:
        """Bytes to read, with what every file costs, for the distribution over tasks."""
        return _BYTES_PER_FILE + (self.end - self.begin) * (1 if self.capture.divisible else _OTHER_RATIO)


@dataclass(frozen=True)
class Refusal:
    """A file that should be a capture but is not read: its name, what it is and what to do."""

    name: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """The files of a folder of captures.

    Attributes:
        captures: In the order of their names.
        refused: Files that cannot be read as captures.
        harmless: Files that no one expects to be captures, such as documents and unfinished uploads, and copies of
            captures.
    """

    captures: tuple[Capture, ...]
    refused: tuple[Refusal, ...]
    harmless: tuple[File, ...]

    def renamed(self, name_of: Callable[[str], str]) -> "Listing":
        """Return the listing with other names of files, for people: captures cannot be opened by them."""
        return Listing(
            tuple(replace(each, name=name_of(each.name)) for each in self.captures),
            tuple(replace(each, name=name_of(each.name)) for each in self.refused),
            tuple(replace(each, name=name_of(each.name)) for each in self.harmless),
        )

    @property
    def copies(self) -> frozenset[str]:
        """Names of files that are copies of captures."""
        return frozenset(file.name for file in self.harmless if file.reason == "copy")

    def notes(self) -> list[str]:
        """Return a sentence for each reason for which files are not read."""
        by_reason: dict[str, list[str]] = {}
        for refusal in self.refused:
            by_reason.setdefault(refusal.reason, []).append(refusal.name)
        refused = [f"not read: {shown(names, _NAMES_SHOWN)}: {reason}" for reason, names in by_reason.items()]
        unusual = (file for file in self.harmless if file.reason not in files.USUAL)
        return refused + files.unread_notes(unusual, _NAMES_SHOWN)


def may_grow(modified: int) -> bool:
    """Return whether a file was modified in the last ten minutes, so that a program may still write to it."""
    return abs(time.time_ns() - modified) < _SETTLED_NS


def key_of(name: str) -> str:
    """Return a hash of a capture's name: 16 hex digits, for names of files, which so contain nothing of it."""
    return hashlib.sha256(name.encode()).hexdigest()[:_KEY_DIGITS]


def other_name(name: str) -> str:
    """Return the name that gzip gives a capture when it packs it, of a packed one the name before."""
    return name.removesuffix(_PACKED) if name.endswith(_PACKED) else f"{name}{_PACKED}"


def find_captures(folder: str, name_of: Callable[[str], str] = str) -> Listing:
    """Find every capture below a folder (or one file); opens each file that its name does not exclude.

    Args:
        folder: The folder.
        name_of: Returns by which name a message calls a file.

    Raises:
        InputError: there is no such folder, or no file in it could be a capture.
    """
    folder = absolute(folder).rstrip("/")
    if not exists(folder):
        raise InputError(f"{folder}: no such folder; set extract.captures to a folder of pcap or pcapng files")
    if is_file(folder):
        raise InputError(f"{folder} is a file; set extract.captures to the folder that holds it")
    found = files.every_file(folder)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        judged = list(pool.map(_judge, found))
    captures = [each for each in judged if isinstance(each, Capture)]
    copies = _copies(captures)
    listing = Listing(
        tuple(each for each in captures if each not in copies),
        tuple(each for each in judged if isinstance(each, Refusal)),
        tuple(each for each in judged if isinstance(each, File))
        + tuple(File(each.uri, each.name, each.size).unread("copy") for each in captures if each in copies),
    )
    told = listing.renamed(name_of)
    if not listing.captures and not listing.refused:
        notes = "".join(f"; {note}" for note in files.unread_notes(told.harmless, _NAMES_SHOWN))
        raise InputError(f"{folder}: found no capture; expected pcap or pcapng files, also gzip{notes}")
    if not listing.captures:
        raise InputError(f"{folder}: no file can be read as a capture: {'; '.join(told.notes())}")
    return listing


def pieces_of(capture: Capture, piece_bytes: int, stamp: str) -> list[Piece]:
    """Return the pieces of a capture, of at most `piece_bytes`; one piece if it is not divisible."""
    try:
        spans = records.pieces(capture.uri, capture.size, piece_bytes)
    except OSError:  # the task that reads it says so
        spans = [(0, capture.size)]
    return [Piece(capture, number, begin, end, stamp) for number, (begin, end) in enumerate(spans)]


def _judge(file: File) -> Capture | Refusal | File:
    if _has_just_begun(file):
        return file.unread("unfinished")
    if file.reason is not None:
        return Refusal(file.name, files.REASONS[file.reason]) if file.lost else file
    try:
        with records.read(file.uri) as opened:
            divisible = opened.divisible
        fs, path = resolve(file.uri)
        info = fs.get_file_info(path)
    except formats.Refused as refused:
        other = other_logs.by_content(files.head_of(file.uri))
        if other is not None:
            return Refusal(file.name, f"{other.reason}; put the packet captures here instead")
        return file.unread("document") if files.is_document(file.name) else Refusal(file.name, str(refused))
    except files.UNREADABLE as error:
        return Refusal(file.name, f"it cannot be read ({type(error).__name__}); fetch it again")
    try:
        date = _date_of(file.name)
    except ValueError:
        return Refusal(file.name, "its folder names no date; expected event_date=YYYY-MM-DD; rename the folder")
    return Capture(file.uri, file.name, info.size, info.mtime_ns or 0, date, divisible)


def _copies(captures: Sequence[Capture]) -> set[Capture]:
    """Return the captures whose packets would count twice: links to others, others of equal content, gzip of others.

    Of several that are equal, the one in a folder of a date stays (one of each date), then the file rather than a link,
    then the oldest, then the one with the shortest name: `a.pcap`, not `a(1).pcap`.
    """
    found: set[Capture] = set()
    with ThreadPoolExecutor(_AT_ONCE) as pool:

        def same(among: Iterable[Capture], key: Callable[[Capture], Hashable]) -> Iterator[list[Capture]]:
            groups: dict[Hashable, list[Capture]] = defaultdict(list)
            alike = [each for each in among if each not in found]
            for capture, value in zip(alike, pool.map(key, alike), strict=True):
                groups[value].append(capture)
            return (group for group in groups.values() if len(group) > 1)

        for names in same(captures, _place):
            found.update(_repeated(names))
        for size in same(captures, lambda each: each.size):
            for head in same(size, _head):
                for content in same(head, _content):
                    found.update(_repeated(content))
        by_name = {each.name: each for each in captures if each not in found}
        packed = [each for each in by_name.values() if each.name.endswith(_PACKED)]
        pairs = [(each, by_name[name]) for each in packed if (name := other_name(each.name)) in by_name]
        firsts = pool.map(lambda pair: [_first_packet(each) for each in pair], pairs)
        found.update(pair[0] for pair, (one, other) in zip(pairs, firsts, strict=True) if one and one == other)
    return found


def _repeated(equal: Iterable[Capture]) -> Iterator[Capture]:
    """Yield those of equal captures that are not read."""
    dates: set[dt.date | None] = set()

    def order(each: Capture) -> tuple[bool, bool, int, int, str]:
        return each.date is None, os.path.islink(each.uri), each.modified, len(each.name), each.name

    for each in sorted(equal, key=order):
        if each.date in dates or (each.date is None and dates):
            yield each
        dates.add(each.date)


def _place(capture: Capture) -> str:
    """Return where a capture is; links in its path are followed."""
    fs, path = resolve(capture.uri)
    return os.path.realpath(path) if isinstance(fs, pafs.LocalFileSystem) else path


def _head(capture: Capture) -> Hashable:
    """Return the first bytes; they have the time of the first packet, so that hardly any other capture has them."""
    try:
        return files.head_of(capture.uri)
    except OSError:
        return capture.name


def _content(capture: Capture) -> Hashable:
    """Return a hash of the content; the name of a capture without packets, of which many may be equal."""
    try:
        with records.read(capture.uri) as opened:
            if next(iter(opened), None) is None:
                return capture.name
        fs, path = resolve(capture.uri)
        content = hashlib.sha256()
        with fs.open_input_file(path) as stream:
            while block := stream.read(_HASHED_AT_ONCE):
                content.update(block)
        return content.digest()
    except (OSError, formats.Refused):
        return capture.name


def _first_packet(capture: Capture) -> Hashable:
    """Return time, length and bytes of the first packet, which gzip has written first; None without one."""
    try:
        with records.read(capture.uri, chunk_bytes=formats.HEAD_BYTES) as opened:
            found = next(iter(opened), None)
    except (OSError, formats.Refused):
        return None
    if found is None:
        return None
    start, end = int(found.start[0]), int(found.start[0] + found.captured[0])
    return int(found.nanos[0]), int(found.length[0]), found.buffer[start:end].tobytes()


def _has_just_begun(file: File) -> bool:
    """Return whether a file is shorter than the header of a capture, because a program has just begun to write it."""
    if file.reason not in (None, "empty_file") or file.size >= _SHORTEST:
        return False
    try:
        fs, path = resolve(file.uri)
        recent = may_grow(fs.get_file_info(path).mtime_ns or 0)
        return recent and (not file.size or files.content_of(files.head_of(file.uri)) == "packet_capture")
    except OSError:  # said where it is opened to be read
        return False


def _date_of(name: str) -> dt.date | None:
    """Return the date of the last folder `event_date=…` of a path; None without one.

    Raises:
        ValueError: it is no date of the years 1970 to 2200.
    """
    folders = [part for part in name.split("/")[:-1] if part.startswith(DATE_FOLDER)]
    if not folders:
        return None
    text = folders[-1].removeprefix(DATE_FOLDER)
    date = date_of(text)
    if not _FIRST_YEAR <= date.year <= _LAST_YEAR:
        raise ValueError(f"{text} is no date of a capture")
    return date
