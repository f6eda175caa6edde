"""Every file below a source or a night: its format by name and content, or why it is not read.

No file is skipped without a reason. Reasons in `HARMLESS` are of files that hold no rows of the folder, such as hidden
ones and documents; every other reason is of a file that should hold rows but cannot be read.
"""

import itertools
import logging
import os
import re
import stat
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final, Literal
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs

from ids_spark.base import json_text
from ids_spark.base.errors import InputError
from ids_spark.base.text import shown
from ids_spark.ingest import other_logs
from ids_spark.lake import parquet_limits
from ids_spark.lake.filesystem import exists, read_bytes, resolve
from ids_spark.lake.parquet_limits import BeyondLimits

log = logging.getLogger(__name__)

Format = Literal["csv", "csv.gz", "parquet"]
HEAD_BYTES: Final = 4096
LONGEST_LINE: Final = 1 << 16
"""Bytes of a line of CSV; an official one has at most 1,200."""
_DEEPEST: Final = 32  # levels of folders
_AT_ONCE: Final = 16
_LARGEST_COMMIT: Final = 256 << 20  # bytes of a commit of a Delta table: 500,000 files
_MOST_ROWS_PER_BYTE: Final = 1000  # of a constant table with dictionaries and run lengths: about 60
_FORMATS: Final[Mapping[str, Format]] = {
    ".csv": "csv",
    ".csv.gz": "csv.gz",
    ".parquet": "parquet",
    ".parq": "parquet",
    ".pq": "parquet",
}
_TEMPORARY: Final = re.compile(
    r"(\.(tmp|temp|part|partial|filepart|crdownload|download|inprogress|swp|bak|orig)|\._copying_|~)$", re.IGNORECASE
)
_DOCUMENTS: Final = re.compile(
    r"\.(md|txt|rst|pdf|html?|jsonl?|ya?ml|xml|log|png|jpe?g|svg|gif|sha1|sha256|md5|crc|sum|docx?|odt|rtf|py|sh|sql"
    r"|ipynb|toml|ini|cfg|conf)$|(^|/)(readme|license|notice|changelog)$",
    re.IGNORECASE,
)
_MAY_BE_LOG: Final = re.compile(r"\.(log|jsonl?|txt)$", re.IGNORECASE)
_OTHER_TABLES: Final[Mapping[str, re.Pattern[str]]] = {
    "an Iceberg table": re.compile(r"(^|/)metadata/(version-hint\.text|[^/]+\.metadata\.json(\.gz)?)$"),
    "a Hudi table": re.compile(r"(^|/)(\.hoodie(/|$)|\.hoodie_partition_metadata)"),
    "a Paimon table": re.compile(r"(^|/)snapshot/(snapshot-\d+|EARLIEST|LATEST)$"),
    "a transactional Hive table": re.compile(r"(^|/)(base_\d{7,}|(delete_)?delta_\d{7,}_\d{7,}(_\d{4})?)(_v\d+)?/"),
}
"""Tables whose folders also hold files that are no longer part of them, by paths below, which only they have."""
_DELTA_LOG: Final = "_delta_log"
_SINK_LOG: Final = "_spark_metadata"
_SINK_BATCH: Final = re.compile(r"(\d+)(\.compact)?")  # one that is compact has the files of all batches before it, too
_CHECKPOINT: Final = re.compile(r"(\d{20})\.checkpoint(\.\d{10}\.(\d{10}))?\.parquet")  # of a version, in parts
_ACTIONS: Final = ("add", "remove", "protocol")  # of a checkpoint
_PARQUET: Final = b"PAR1"
_CONTENT: Final[Sequence[tuple[bytes, str]]] = (
    (_PARQUET, "parquet"),
    (b"PARE", "encrypted_parquet"),
    (b"version https://git-lfs", "git_lfs_pointer"),
    (b"PK\x03\x04", "zip_archive"),
    (b"PK\x05\x06", "zip_archive"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "other_compression"),
    (b"\x28\xb5\x2f\xfd", "other_compression"),
    (b"\xfd7zXZ\x00", "other_compression"),
    (b"7z\xbc\xaf\x27\x1c", "other_compression"),
    (b"Rar!", "other_compression"),
    (b"\x04\x22\x4d\x18", "other_compression"),
    (b"\xd0\xcf\x11\xe0", "spreadsheet"),
    (b"ORC", "other_format"),
    (b"Obj\x01", "other_format"),
    (b"ARROW1", "other_format"),
    (b"SQLite format 3\x00", "other_format"),
    (b"\x89HDF", "other_format"),
    (b"\x80\x04\x95", "other_format"),
    (b"\x80\x05\x95", "other_format"),
    (b"\x93NUMPY", "other_format"),
    (b"\xd4\xc3\xb2\xa1", "packet_capture"),
    (b"\xa1\xb2\xc3\xd4", "packet_capture"),
    (b"\x4d\x3c\xb2\xa1", "packet_capture"),
    (b"\xa1\xb2\x3c\x4d", "packet_capture"),
    (b"\x0a\x0d\x0d\x0a", "packet_capture"),
    (b"\xff\xfe", "utf16"),
    (b"\xfe\xff", "utf16"),
)
_UNREAD: Final[dict[str, str]] = {
    "missing_file": "a link to a file that is not there; fetch the content (git-annex, DVC), or remove the link",
    "missing_of_table": "a file that the log of its table (Delta, or Spark's file sink) names is not there; restore it",
    "name_not_utf8": "its name is no UTF-8; rename it",
    "no_permission": "the user of this job may not read it; change its owner or mode",
    "special_file": "a pipe, socket or device, not a file of rows; remove it",
    "too_deep_folder": "a folder nested too deep, or one to which several links lead; move its files up, or remove it",
    "empty_file": "it has no byte; remove it or fetch it again",
    "zero_bytes": "its first bytes are all 0, as after a crash or on a full disk; fetch it again",
    "superseded": "the log of its table (Delta, or Spark's file sink) does not contain it in the newest state",
    "copy": "another capture has the same content, so that every packet would count twice; remove one of them",
    "delta_log": "the log of a Delta table",
    "hidden": "its name, or that of a folder above it, begins with a dot or an underscore",
    "unfinished": "a writer that has not finished, or was killed, left it; let the writer finish, or run it again",
    "temporary": "its name is that of a temporary file or a backup",
    "mac_archive": "a companion file that macOS adds to archives",
    "profiling": "the profiling captures of the official download have no class",
    "bluetooth": "the Bluetooth captures of the official download have other columns",
    "archive": "an archive or a compressed file; unpack it if its content is not here",
    "document": "its ending is that of a document",
    "other_ending": "its ending is none of .csv, .csv.gz and .parquet; rename it if it holds flows",
    "other_ending_parquet": "parquet under another ending; rename it to .parquet, or remove it if it is a copy",
    "parquet": "parquet under the name of another format; rename it to .parquet",
    "csv": "CSV, but flows that are scored are read from parquet; convert it",
    "gzip": "gzip under another name than .csv.gz, or within gzip; unpack it",
    "no_gzip": "its name ends with .gz, and it is no gzip; rename it if it is CSV, or fetch it again",
    "git_lfs_pointer": "a git-lfs pointer, not the file itself; run git lfs pull",
    "html_page": "an HTML page, not the file itself: perhaps the login page of a server; fetch it again",
    "zip_archive": "a zip archive or a spreadsheet; unpack it, or save it as CSV",
    "spreadsheet": "a spreadsheet; save it as CSV",
    "other_compression": "compressed in a way other than gzip; unpack it",
    "other_format": "a table of another format (ORC, Avro, Arrow, SQLite, HDF5, NumPy, pickle); convert it to parquet",
    "packet_capture": "a packet capture, not flows; extract its features first: jobs/extract.py",
    **{each.key: f"{each.reason}; {other_logs.EXTRACT}" for each in other_logs.OTHER_LOGS},
    "encrypted_parquet": "encrypted parquet; decrypt it",
    "utf16": "text in UTF-16; save it as UTF-8",
    "semicolons": "separated by semicolons; expected commas, and points in decimal numbers; export it again",
    "tabs": "separated by tabs; expected commas; export it again",
    "bars": "separated by vertical bars; expected commas; export it again",
    "blank_line": "its first line is blank; expected a header of column names; remove the lines before the header",
    "no_header": "its first line holds numbers; expected a header of column names; export it again with one",
    "sep_line": "its first line is a spreadsheet's `sep=` line; remove this line",
    "header_too_long": "its first line is longer than 64 KiB; expected a header of column names",
    "json_lines": "JSON, not a table; convert it to CSV or parquet",
    "unreadable_file": "it cannot be read as parquet, it may be truncated; fetch it again",
    "unknown_type": "it has a column of a type that this version of pyarrow cannot read; write it as double or text",
    "implausible_rows": "its footer claims more rows than its size can hold; fetch it again",
    "too_large_footer": "its footer, which lists its columns and row groups, is too large; write it with fewer of them",
    "too_many_columns": "it has more columns than flow logs can have; write the columns of flows alone",
    "too_many_row_groups": "it has more row groups than can be read; write it in larger ones",
    "too_long_name": "it has a column with a name of more than 1,024 bytes; rename it",
    "too_deep": "it has columns nested too deep; write it without them",
    "too_large_page": "a page of it is too large once it is decompressed; write it with pages of 1 MB, the default",
    "too_many_files": "files beyond the most that a folder may have; write fewer and larger ones",
    "implausible_text": "unpacked it holds more than 200 times its size; unpack it yourself if that is right",
}
_BESIDE: Final = {key: f"{key}_beside" for key in ("packet_capture", *(each.key for each in other_logs.OTHER_LOGS))}
REASONS: Final[Mapping[str, str]] = _UNREAD | {beside: _UNREAD[key] for key, beside in _BESIDE.items()}
"""Why a file is not read: what it is and what to do, by reason. `…_beside`: its name is that of no table, so that it is
not expected to hold rows of the folder."""
NO_FLOWS: Final = frozenset(_BESIDE.values())
"""Reasons of packet captures and logs of other programs under names that are those of no table."""
HARMLESS: Final = frozenset(
    (
        *("superseded", "delta_log", "hidden", "unfinished", "temporary", "mac_archive", "profiling", "bluetooth"),
        *("copy", "archive", "document", "other_ending", *NO_FLOWS),
    )
)
"""Reasons of files that hold no rows of the folder."""
USUAL: Final = frozenset(("hidden", "mac_archive", "delta_log", "document"))
"""Reasons of files that are usual beside flows, so that they need no warning."""
_ARCHIVES: Final = ("zip_archive", "gzip", "other_compression")
_COMPRESSIONS: Final = ("bz2", "br", "deflate", "gz", "lz4", "lzo", "snappy", "xz", "z", "zip", "zst")

UNREADABLE: Final = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError, RecursionError)
"""Errors of pyarrow on a damaged file; names that are no UTF-8 raise ValueError, absurd sizes MemoryError."""


class UnsupportedTable(InputError):
    """Raised for a table whose files cannot be read without metadata that are not understood, as of Iceberg or Hudi."""


@dataclass(frozen=True)
class File:
    """One file of a folder.

    Attributes:
        uri: Of the file.
        name: Path below the folder.
        size: In bytes; 0 if unknown.
        format: By name and, where the name has no ending, by content; None if it is not read.
        reason: Key of `REASONS` if it is not read, else None.
    """

    uri: str
    name: str
    size: int
    format: Format | None = None
    reason: str | None = None

    @property
    def lost(self) -> bool:
        """Whether it should hold rows but cannot be read."""
        return self.reason is not None and self.reason not in HARMLESS

    def unread(self, reason: str) -> "File":
        """Return the file as one that is not read."""
        return replace(self, format=None, reason=reason)


def inventory(folder: str, table: str | None = None) -> list[File]:
    """Return every file below a folder, sorted by name; opens only files whose name does not tell the format.

    The files of a Delta table (a folder with `_delta_log`) are those of its newest state, those of a stream that Spark
    writes (a folder with `_spark_metadata`) the ones of finished batches; others are `superseded`.

    Args:
        folder: URI or absolute path. None of its own names is taken as hidden.
        table: Folder above that may be a table, such as the flow logs of all nights.

    Returns:
        Nothing if the folder does not exist.

    Raises:
        UnsupportedTable: a table of another format, a Delta table with features that hide rows of its files, or a log
            that cannot be read.
    """
    folder = folder.rstrip("/")
    entries = _entries(folder)
    _refuse_other_tables(folder, entries)
    states = {
        root: files_of(f"{folder}/{root}".rstrip("/"))
        for log_folder, files_of in _LOGS.items()
        for root in _roots(entries, log_folder)
    }
    if table is not None:
        table = table.rstrip("/")
        for marker in ("metadata", "snapshot"):
            _refuse_other_tables(table, [f"{marker}/{name}" for name in _entries(f"{table}/{marker}")])
        _refuse_other_tables(table, [".hoodie"] if exists(f"{table}/.hoodie") else [])
        place = f"{folder.removeprefix(table).strip('/')}/"
        for log_folder, files_of in _LOGS.items():
            if exists(f"{table}/{log_folder}"):
                states[""] = frozenset(n.removeprefix(place) for n in files_of(table) if n.startswith(place))
    files = [
        _by_name(File(f"{folder}/{name}", name, size), kind, states) for name, (kind, size) in sorted(entries.items())
    ]
    for root, state in states.items():
        names = (f"{root}/{name}".lstrip("/") for name in sorted(state))
        files += [File(f"{folder}/{name}", name, 0, None, "missing_of_table") for name in names if name not in entries]
    beside = {name.rsplit("/", 1)[-1] for name in entries}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return sorted(pool.map(lambda file: _by_content(file, beside), files), key=lambda file: file.name)


def every_file(folder: str) -> list[File]:
    """Return every file below a folder, sorted by name; one that must not be opened has a reason.

    Names alone decide, and whether there is something to read; endings and content are left to the caller.
    """
    folder = folder.rstrip("/")
    found = []
    for name, (kind, size) in sorted(_entries(folder).items()):
        reason = _kept_apart(name) or (kind if kind != "file" else None if size else "empty_file")
        found.append(File(f"{folder}/{name}", name, size, None, reason))
    return found


def is_document(name: str) -> bool:
    """Return whether a file has the name of a document, such as README.md."""
    return _DOCUMENTS.search(name.rsplit("/", 1)[-1]) is not None


def content_of(head: bytes) -> str | None:
    """Return what the first bytes of a file are by their format: a key of `REASONS`, or None if unknown."""
    if head and not head.strip(b"\0"):
        return "zero_bytes"
    kind = next((kind for start, kind in _CONTENT if head.startswith(start)), None)
    if kind in (None, "gzip") and (other := other_logs.by_format(head)) is not None:
        return other.key
    if kind is not None:
        return kind
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        return "html_page"
    if text.startswith((b'{"', b"[{", b"{\n", b"{ ")):
        return "json_lines"
    if len(head) >= 4 and (head[1::2].count(0) > len(head) // 3 or head[::2].count(0) > len(head) // 3):
        return "utf16"
    return None


def csv_fault(head: bytes) -> str | None:
    """Return why a file that begins so, in more than `LONGEST_LINE` bytes, is not CSV with a header; None if it is."""
    kind = content_of(head)
    if kind is not None:
        return kind
    if len(head) > LONGEST_LINE and b"\n" not in head and b"\r" not in head:
        return "header_too_long"
    line = head.lstrip(b"\xef\xbb\xbf").replace(b"\r", b"\n").split(b"\n", 1)[0].strip(b" ")
    if head and not line:
        return "blank_line"
    if line.lower().startswith(b"sep="):
        return "sep_line"
    cells = line.split(b",")
    for separator, reason in ((b";", "semicolons"), (b"\t", "tabs"), (b"|", "bars")):
        if line.count(separator) >= len(cells):
            return reason
    return "no_header" if 2 * sum(map(_is_number, cells)) > len(cells) else None


def _is_number(cell: bytes) -> bool:
    try:
        float(cell.strip(b'" '))
    except ValueError:
        return False
    return True


def single(uri: str) -> File:
    """Return one file that the user named, whatever its name hides."""
    fs, path = resolve(uri)
    name = path.rsplit("/", 1)[-1]
    file = File(uri, name, fs.get_file_info(path).size)
    form = _FORMATS.get(_ending(name))
    return replace(file, format=form) if form is not None else _by_content(file)


def plausible(rows: Sequence[int], size: int) -> bool:
    """Return whether a parquet file of `size` bytes can have row groups with these numbers of rows."""
    return all(n >= 0 for n in rows) and sum(rows) <= _MOST_ROWS_PER_BYTE * size


def reason_of(file: File, error: BaseException) -> str:
    """Return the reason why a file with the name of a parquet or gzip file cannot be read."""
    if isinstance(error, BeyondLimits):
        return error.reason
    if isinstance(error, PermissionError):
        return "no_permission"
    if isinstance(error, pa.ArrowNotImplementedError):
        return "unknown_type"
    try:
        content = content_of(head_of(file.uri))
    except OSError:
        return "unreadable_file"
    if file.format == "csv.gz":
        return "unreadable_file" if content == "gzip" else content or "no_gzip"
    return "unreadable_file" if content in (None, "parquet") else content


def unread_notes(files: Iterable[File], most: int = 5) -> list[str]:
    """Return one sentence for each reason for which files are not read, with the first names."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for file in files:
        if file.reason is not None:
            by_reason[file.reason].append(file.name)
    return [f"not read: {shown(names, most)}: {REASONS[reason]}" for reason, names in sorted(by_reason.items())]


def delta_files(root: str) -> frozenset[str]:
    """Return the paths, below a Delta table's folder, of the files in the newest state of its log.

    The state is the newest checkpoint and the commits after it (Delta transaction log protocol, reader version 1).

    Raises:
        UnsupportedTable: the table uses a later reader version, whose features (deletion vectors, column mapping) hide
            rows or names of the files; or its log cannot be read.
    """
    try:
        return _delta_state(f"{root}/{_DELTA_LOG}")
    except (*UNREADABLE, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UnsupportedTable(
            f"{root} is a Delta table whose log cannot be read ({reason}); expected JSON commits and parquet"
            " checkpoints; export the table to plain parquet"
        ) from error


def _delta_state(log_uri: str) -> frozenset[str]:
    names = sorted(name for name, (kind, _) in _entries(log_uri).items() if kind == "file" and "/" not in name)
    parts = [match for name in names if (match := _CHECKPOINT.fullmatch(name))]
    complete = defaultdict(list)
    for match in parts:
        complete[match[1]].append(match)
    versions = [version for version, found in complete.items() if len(found) >= int(found[0][3] or 1)]
    checkpoint = max(versions, default="")
    state: set[str] = set()
    for match in complete.get(checkpoint, ()):
        fs, path = resolve(f"{log_uri}/{match[0]}")
        with fs.open_input_file(path) as stream:
            file = parquet_limits.opened(stream)
            for i in range(file.num_row_groups):
                parquet_limits.check_pages(stream, file.metadata, i, frozenset(_ACTIONS), parquet_limits.is_local(fs))
            for action in file.read(columns=list(_ACTIONS)).to_pylist():
                _apply(action, state, log_uri)
    commits = [name for name in names if re.fullmatch(r"\d{20}\.json", name) and name[:20] > checkpoint]
    if not checkpoint and not commits:
        raise ValueError("no commit is there")
    first = int(checkpoint) + 1 if checkpoint else 0
    if [int(name[:20]) for name in commits] != list(range(first, first + len(commits))):
        raise ValueError(f"commits {first} to {len(commits)} are not all there")
    for name in commits:
        for line in read_bytes(f"{log_uri}/{name}", _LARGEST_COMMIT).decode().splitlines():
            if line.strip():
                _apply(json_text.loads(line), state, log_uri)
    return frozenset(state)


def _apply(action: Mapping[str, Any], state: set[str], log_uri: str) -> None:
    protocol = action.get("protocol")
    if protocol and int(protocol.get("minReaderVersion") or 1) > 1:
        features = ", ".join(protocol.get("readerFeatures") or ()) or f"version {protocol['minReaderVersion']}"
        raise UnsupportedTable(
            f"{log_uri.rsplit('/', 1)[0]} is a Delta table that needs a reader with {features}; expected reader version"
            " 1; export the table to plain parquet"
        )
    for kind, change in (("remove", state.discard), ("add", state.add)):
        if action.get(kind):
            change(unquote(action[kind]["path"]))


def sink_files(root: str) -> frozenset[str]:
    """Return the paths, below a folder that a stream of Spark writes, of the files in the log of its file sink.

    Other files are of batches that failed, whose rows came again in later ones. The log has absolute paths, also after
    the folder was moved; the path below it is the name of the file and its folders `column=value`.

    Raises:
        UnsupportedTable: the log cannot be read.
    """
    try:
        return frozenset(_below(path, root) for path in _logged_by_sink(f"{root}/{_SINK_LOG}"))
    except (*UNREADABLE, KeyError, TypeError, AttributeError) as error:
        raise UnsupportedTable(
            f"{root} is written by a stream of Spark, and its log {_SINK_LOG} cannot be read"
            f" ({' '.join(str(error).split())[:200]}); expected files of JSON lines; export the table to plain parquet"
        ) from error


def _logged_by_sink(log_uri: str) -> set[str]:
    found = [_SINK_BATCH.fullmatch(name) for name, (kind, _) in _entries(log_uri).items() if kind == "file"]
    batches = {int(match[1]): match for match in found if match is not None}
    compact = max((number for number, match in batches.items() if match[2]), default=-1)
    if not batches:
        raise ValueError("no batch is there")
    state: set[str] = set()
    for number in sorted(number for number in batches if number >= compact):
        version, *lines = read_bytes(f"{log_uri}/{batches[number][0]}", _LARGEST_COMMIT).decode().splitlines()
        if version != "v1":
            raise ValueError(f"its version is {version[:20]!r}")
        for line in lines:
            status = json_text.loads(line)
            (state.discard if status["action"] == "delete" else state.add)(status["path"])
    return state


def _below(path: str, root: str) -> str:
    """Return the path of a file of Spark below the folder of its table, which may have been moved."""
    *folders, base = unquote(path).split("/")
    partition = list(itertools.takewhile(lambda part: "=" in part, reversed(folders)))[::-1]
    own = root.rsplit("/", 1)[-1]  # may be a folder column=value itself
    return "/".join([*partition[partition.index(own) + 1 if own in partition else 0 :], base])


def _refuse_other_tables(folder: str, names: Iterable[str]) -> None:
    for name in names:
        for kind, marker in _OTHER_TABLES.items():
            if (match := marker.search(name)) is not None:
                root = "/".join(filter(None, (folder, name[: match.start()])))
                raise UnsupportedTable(
                    f"{root}: found {kind}, whose folder also holds files that are no longer part of it. Expected plain"
                    " CSV or parquet, or a Delta table; export the table to plain parquet"
                )


def _roots(entries: Iterable[str], log_folder: str) -> list[str]:
    """Return the folders that hold a folder of this name."""
    found = {"/".join(parts[: parts.index(log_folder)]) for name in entries if log_folder in (parts := name.split("/"))}
    return sorted(found)


_LOGS: Final[Mapping[str, Callable[[str], frozenset[str]]]] = {_SINK_LOG: sink_files, _DELTA_LOG: delta_files}
"""Folders with the log of a table, and what returns its files. The last counts: a stream may have become Delta."""


def _entries(folder: str) -> dict[str, tuple[str, int]]:
    """Return kind (`file`, or a key of `REASONS`) and size of all files, and of folders not read, by path below."""
    fs, path = resolve(folder)
    if isinstance(fs, pafs.LocalFileSystem):
        return dict(_walk(path, "", frozenset(), set()))
    found = fs.get_file_info(pafs.FileSelector(path, recursive=True, allow_not_found=True))
    return {i.path[len(path) :].lstrip("/"): ("file", i.size) for i in found if i.type == pafs.FileType.File}


def _walk(
    path: str, prefix: str, above: frozenset[tuple[int, int]], linked: set[tuple[int, int]]
) -> Iterable[tuple[str, tuple[str, int]]]:
    """Yield the files of a local folder; follows links, but not into a folder that contains the link.

    Nor twice into one folder: ten folders with links to each other have millions of paths.
    """
    try:
        here = os.stat(path)
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    except PermissionError:
        yield prefix.rstrip("/") or ".", ("no_permission", 0)
        return
    except NotADirectoryError:
        return
    above |= {(here.st_dev, here.st_ino)}
    for entry in entries:
        name = f"{prefix}{entry.name}"
        if not _is_utf8(entry.name):  # pyarrow cannot open it
            yield os.fsencode(name).decode(errors="backslashreplace"), ("name_not_utf8", 0)
            continue
        try:
            info = entry.stat()
        except OSError:  # a link to nothing, or to itself
            yield name, ("missing_file", 0)
            continue
        identity, is_link = (info.st_dev, info.st_ino), entry.is_symlink()
        if identity in above:
            continue
        if stat.S_ISDIR(info.st_mode):
            if len(above) > _DEEPEST or (is_link and identity in linked):
                yield name, ("too_deep_folder", 0)
                continue
            linked |= {identity} if is_link else set()
            yield from _walk(entry.path, f"{name}/", above, linked)
        elif not stat.S_ISREG(info.st_mode):
            yield name, ("special_file", 0)
        else:
            yield name, ("file" if os.access(entry.path, os.R_OK) else "no_permission", info.st_size)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kept_apart(name: str) -> str | None:
    """Return the reason of a file that its path keeps apart from the data of a folder; None for any other."""
    *folders, base = name.split("/")
    if "__MACOSX" in folders or base.startswith("._"):
        return "mac_archive"
    if any(part == "_temporary" for part in folders):
        return "unfinished"
    if _DELTA_LOG in folders:
        return "delta_log"
    if any(part[0] in "._" for part in (*folders, base) if part):
        return "hidden"
    return "temporary" if _TEMPORARY.search(base) else None


def _by_name(file: File, kind: str, states: Mapping[str, frozenset[str]]) -> File:
    """Return the file with its format or reason, as far as its name tells."""
    base = file.name.rsplit("/", 1)[-1]
    ending = _ending(base)
    form = _FORMATS.get(ending)
    if (reason := _kept_apart(file.name)) is not None:
        return file.unread(reason)
    if kind != "file":
        return file.unread(kind if form is not None or not ending else "other_ending")
    for root, state in states.items():
        inside = file.name.removeprefix(f"{root}/") if root else file.name
        if (not root or file.name.startswith(f"{root}/")) and inside not in state:
            return file.unread("superseded")
    if form is None and is_document(base):
        return file.unread("document")
    if form is not None and file.size == 0:
        return file.unread("empty_file")
    return replace(file, format=form)


def without_ending(base: str) -> str:
    """Return a file name without an ending of the formats that are read."""
    ending = _ending(base)
    return base[: -len(ending)] if ending in _FORMATS else base


def _ending(base: str) -> str:
    lower = base.lower()
    known = next((ending for ending in sorted(_FORMATS, key=len, reverse=True) if lower.endswith(ending)), None)
    if known is not None:
        return known
    return f".{lower.rsplit('.', 1)[1]}" if "." in lower else ""


def _by_content(file: File, beside: Collection[str] = ()) -> File:
    """Return a file whose name tells nothing with its format or reason; of documents, whether they are another log.

    Args:
        file: From `_by_name`.
        beside: Names of all files of the folder, without their folders. A compressed table that is there unpacked too
            is no loss.
    """
    document = file.reason == "document" and _MAY_BE_LOG.search(file.name) is not None
    if file.format is not None or (file.reason is not None and not document):
        return file
    if file.size == 0:
        return file if document else file.unread("other_ending")
    try:
        head = head_of(file.uri)
    except OSError as error:
        if document:  # no rows are lost with it
            return file
        log.warning("a file cannot be read error=%s", error.strerror or type(error).__name__)  # notes name it
        return file.unread("no_permission" if isinstance(error, PermissionError) else "unreadable_file")
    other = other_logs.by_content(head)
    if other is not None:
        return file.unread(_BESIDE[other.key])
    if document:
        return file
    content = content_of(head)
    if content == "packet_capture":
        return file.unread(_BESIDE[content])
    if content != "parquet":
        base = file.name.rsplit("/", 1)[-1]
        unpacked, _, ending = base.rpartition(".")
        packed = content in _ARCHIVES or ending.lower() in _COMPRESSIONS
        if packed and _ending(unpacked) in _FORMATS and unpacked not in beside:
            return file.unread(content if content in _ARCHIVES else "other_compression")
        return file.unread("archive" if packed else "other_ending")
    if _ending(file.name.rsplit("/", 1)[-1]):
        return file.unread("other_ending_parquet")
    return replace(file, format="parquet")


def head_of(uri: str, size: int = HEAD_BYTES) -> bytes:
    """Return the first bytes of a file.

    Raises:
        OSError: it cannot be read.
    """
    fs, path = resolve(uri)
    with fs.open_input_file(path) as stream:
        return bytes(stream.read(size))
