"""The files of a raw source: found, checked by header or footer, divided into row groups or ranges for tasks.

Three forms are supported: the official tree of CSV files (label = file name), the same tree as parquet, and one table
with a column of labels that holds file names.
"""

import csv
import itertools
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, Literal
from urllib.parse import unquote

import pyarrow as pa

from ids_spark.base.errors import InputError
from ids_spark.base.logs import printable
from ids_spark.base.spark_tasks import balanced
from ids_spark.base.text import one_line, shown
from ids_spark.config.settings import IngestConfig
from ids_spark.dataset import taxonomy
from ids_spark.dataset.columns import ColumnNames, listed, recognise
from ids_spark.dataset.features import RELEASE_39, SOURCE_SPLITS, FeatureSchema, SchemaMismatch
from ids_spark.ingest import files, other_logs
from ids_spark.ingest.files import File, Format
from ids_spark.lake import parquet_limits
from ids_spark.lake.filesystem import absolute, exists, is_file, read_json, resolve
from ids_spark.lake.parquet import PIECE_ROWS, SUFFIX

log = logging.getLogger(__name__)

SYNTHETIC_MARK: Final = "_SYNTHETIC.json"
HEADER_BYTES: Final = files.LONGEST_LINE + 1
_CSV_BYTES_PER_ROW: Final = 250  # of the official files: 210 to 330
_WHOLE_CSV_BYTES: Final = 64 << 20  # the largest official file has 60 MB; counting the lines of larger ones pays
_RANGE_BYTES: Final = 32 << 20  # about 130,000 rows, a third of a task
_PART_ROWS: Final = 16 * PIECE_ROWS  # of a row group; each task decodes the rows before its own: 4 % of all its time
_MOST_PARTS: Final = 8
_GZIP_BLOCK_BYTES: Final = 1 << 20
_MOST_GZIP_RATIO: Final = 200  # of the official files: 6; of one line repeated without end: 1,000
_SMALL_TEXT_BYTES: Final = 100_000_000
_MAX_FAULTS_SHOWN: Final = 10
_NAMES_SHOWN: Final = 10
_SCORED_ROWS_PER_TASK: Final = 500_000
_MAX_TASKS_PER_CORE: Final = 64  # the driver keeps the counts of all tasks in memory


class SourceUnusable(InputError):
    """Raised when a source is missing, empty, broken or mixed; lists every fault found in its files."""


@dataclass(frozen=True)
class RowGroup:
    """One unit of reading: a CSV file, a range of bytes of a large one, a row group of parquet, or rows of a large one.

    Attributes:
        uri: Of the file.
        name: Its path below the source, the `source_file` of its rows.
        index: In the parquet file; None for CSV.
        first_row: Number of the row group's first row in the file; unknown, 0, for ranges of `discover`.
        rows: Row count; an estimate for CSV of `discover`.
        class19: From the file name or its path; None if the file has a column of labels.
        split: `train` or `test`; None if each label ends with the split.
        format: Of the file.
        columns: Columns of the features of the schema, in its order; empty if they have the official names.
        label: Column of labels; None without one.
        start: First byte of a range of a CSV file, the lines that begin in it are read; first row in a row group.
        end: Where this range ends; None: with the file or row group.
    """

    uri: str
    name: str
    index: int | None
    first_row: int
    rows: int
    class19: str | None
    split: str | None
    format: Format = "parquet"
    columns: tuple[str, ...] = ()
    label: str | None = None
    start: int = 0
    end: int | None = None


@dataclass(frozen=True)
class Source:
    """A checked source.

    Attributes:
        schema: Its feature schema.
        row_groups: Units of reading.
        files: Number of files that are read.
        data_origin: Whether its rows are measured or synthetic.
        narrow: Features stored as float32 somewhere.
        named: Split and class of each file that is named for one, also of files that are not read or have no row.
        unread: Files below the source that are not read, each with its reason.
    """

    schema: FeatureSchema
    row_groups: tuple[RowGroup, ...]
    files: int
    data_origin: Literal["measured", "synthetic"]
    narrow: frozenset[str]
    named: frozenset[tuple[str, str]] = frozenset()
    unread: tuple[File, ...] = ()

    def rows(self, split: str) -> int:
        """Return the rows of a split (estimated for CSV); a row group with rows of both splits counts for each."""
        return sum(row_group.rows for row_group in self.row_groups if row_group.split in (split, None))

    def undivided_notes(self) -> list[str]:
        """Return a sentence for people if large files are read by one task each; else nothing."""
        large = [
            row_group.name
            for row_group in self.row_groups
            if row_group.format == "csv.gz" and row_group.rows * _CSV_BYTES_PER_ROW > _WHOLE_CSV_BYTES
        ]
        if not large:
            return []
        return [
            f"{shown(large, _NAMES_SHOWN)}: each was read by one task, as gzip cannot be divided; to use more cores,"
            " unpack large files or convert them to parquet"
        ]


@dataclass(frozen=True)
class _Header:
    columns: tuple[str, ...]
    types: dict[str, pa.DataType]  # empty for CSV
    row_groups: tuple[int, ...]  # rows of each; empty for CSV
    text_bytes: int = 0  # of CSV, decompressed


@dataclass(frozen=True)
class _Checked:
    schema: FeatureSchema
    whole: RowGroup
    row_groups: tuple[RowGroup, ...]
    narrow: frozenset[str]


def discover(config: IngestConfig) -> Source:
    """Find and check every file of a source; reads headers and footers, no rows.

    Args:
        config: Names the source, its label column, aliases of features and columns to ignore.

    Raises:
        SourceUnusable: no such folder, no CSV or parquet in it, an unreadable or truncated file, an unknown class, no
            split, a column that is missing, unknown, duplicate or not a number, or two feature schemas in one source.
        UnsupportedTable: the source is a table of another format, or a Delta table with later features.
    """
    source = absolute(config.source or "")
    if not exists(source):
        raise SourceUnusable(f"{source}: no such file or folder; set ingest.source to a folder of CICIoMT2024 files")
    alone = is_file(source)
    base = source.rstrip("/").rsplit("/", 1)[0] if alone else source.rstrip("/")
    listing = [files.single(source)] if alone else _without_other_captures(files.inventory(source))
    found = [file for file in listing if file.format is not None]
    faults: list[InputError] = [
        SourceUnusable(f"{file.name} is not read: {files.REASONS[file.reason or '']}") for file in listing if file.lost
    ]
    count = len(found) + len(faults)
    if not found and not faults:
        notes = "".join(f"; {note}" for note in files.unread_notes(listing))
        raise SourceUnusable(
            f"{source}: found no .csv or .parquet file below it; expected the official files or a table{notes}"
        )
    with ThreadPoolExecutor(16) as pool:
        checked = list(pool.map(lambda file: _check(file, config), found))
    faults += [each for each in checked if isinstance(each, InputError)]
    usable = {file.name: each for file, each in zip(found, checked, strict=True) if isinstance(each, _Checked)}
    faults += _copies([file for file in found if _is_capture(file)])
    faults += _mixture({name: each.schema for name, each in usable.items()})
    if faults:
        shown = _same_faults_once(faults, [printable(file.name) for file in listing])
        more = [f"and {len(shown) - _MAX_FAULTS_SHOWN} more"] * (len(shown) > _MAX_FAULTS_SHOWN)
        raise SourceUnusable(f"{source}: {len(faults)} fault(s) in {count} file(s):", *shown[:_MAX_FAULTS_SHOWN], *more)
    synthetic = exists(f"{base}/{SYNTHETIC_MARK}")
    if synthetic and not _is_complete(f"{base}/{SYNTHETIC_MARK}"):
        raise SourceUnusable(f"{source}: this synthetic data set is incomplete; rerun jobs/synthesize.py")
    return Source(
        next(iter(usable.values())).schema,
        tuple(row_group for each in usable.values() for row_group in each.row_groups),
        len(found),
        "synthetic" if synthetic else "measured",
        frozenset(feature for each in usable.values() for feature in each.narrow),
        frozenset((each.whole.split or "", each.whole.class19) for each in usable.values() if each.whole.class19)
        | {named for file in listing if file.reason is not None and (named := _named(file.name)) is not None},
        tuple(file for file in listing if file.reason is not None),
    )


def _is_complete(mark: str) -> bool:
    try:
        facts = read_json(mark)
    except ValueError:
        return False
    return isinstance(facts, dict) and facts.get("complete", True) is True


def _without_other_captures(listing: Sequence[File]) -> list[File]:
    """Return the files, with captures of the official download that are no labelled flows as not read.

    They are the folders `Bluetooth` and `profiling` beside the Wi-Fi and MQTT attacks. Without these, they are read.
    """

    def other(file: File) -> str | None:
        folders = [part.lower() for part in file.name.split("/")[:-1]]
        return next((name for name in ("bluetooth", "profiling") if name in folders), None)

    if all(other(file) for file in listing if file.format is not None):
        return list(listing)
    return [file.unread(name) if (name := other(file)) and not file.reason else file for file in listing]


def _same_faults_once(faults: Sequence[InputError], names: Sequence[str]) -> list[str]:
    """Return the text of each fault; a fault that several files have, once with the names of the files."""
    files_of: dict[str, list[str]] = {}
    for text in (str(fault) for fault in faults):
        name = next((name for name in sorted(names, key=len, reverse=True) if text.startswith(name)), "")
        files_of.setdefault(text.removeprefix(name), []).append(name)
    return [f"{shown(found, _NAMES_SHOWN)}{text}" for text, found in files_of.items()]


def _named(name: str) -> tuple[str, str] | None:
    """Return split and class in the name of a file, whatever its endings; None if it is not named for them."""
    *folders, base = name.split("/")
    stem = base.split(".", 1)[0]
    class19 = taxonomy.find_class19(stem)
    split = taxonomy.split_of(stem) or next((f.lower() for f in reversed(folders) if f.lower() in SOURCE_SPLITS), None)
    return None if class19 is None or split is None else (split, class19)


def _is_capture(file: File) -> bool:
    return taxonomy.find_class19(file.name.rsplit("/", 1)[-1]) is not None


def _copies(captures: Sequence[File]) -> list[InputError]:
    """Return a fault for each capture that is there twice: in one folder, in two formats, or of equal size.

    A file that is named for no split (`train/Benign.csv`) may be another capture in another folder and format.
    """
    kept: dict[str, list[File]] = {}
    faults: list[InputError] = []
    for file in captures:
        folder, _, name = file.name.rpartition("/")
        same = kept.setdefault(files.without_ending(name).lower().removesuffix(".pcap"), [])
        for other in same:
            one_folder, one_format = folder == other.name.rpartition("/")[0], file.format == other.format
            if one_folder or (file.size == other.size if one_format else taxonomy.split_of(name) is not None):
                faults.append(
                    SourceUnusable(
                        f"{file.name} and {other.name} have the same name"
                        f"{' and size' if one_format and not one_folder else ''}, so that every row would count twice;"
                        " remove one of them"
                    )
                )
        same.append(file)
    return faults


def _mixture(schemas: dict[str, FeatureSchema]) -> list[InputError]:
    counts = Counter(schema.name for schema in schemas.values())
    if len(counts) < 2:
        return []
    shown = (f"{next(n for n, s in schemas.items() if s.name == kind)} is {kind}" for kind in counts)
    numbers = ", ".join(f"{n} files of {kind}" for kind, n in counts.items())
    return [
        SourceUnusable(
            f"the source mixes two feature schemas, which no model can use together: {numbers} ({'; '.join(shown)});"
            " ingest each into its own lake"
        )
    ]


def _check(file: File, config: IngestConfig) -> _Checked | InputError:
    """Return schema and row groups of a file, or its fault."""
    try:
        header = _read_header(file)
        schema, columns = _schema_of(header, file.name, config)
        if config.window is not None:
            _refuse_unjoinable(file.name, header, schema, config)
        whole = _whole(file, header, columns, config)
        row_groups = _row_groups_of(whole, file, header, config)
        narrow = frozenset(f for f, column in columns.items() if header.types.get(column) == pa.float32())
        return _Checked(schema, whole, tuple(row_groups), narrow)
    except InputError as fault:
        return fault


def parquet_row_groups(source: str) -> list[tuple[RowGroup, dict[str, pa.DataType]]]:
    """Return the row groups of every parquet file below a folder (or of one file), each with the file's columns.

    Raises:
        SourceUnusable: nothing there, or a file that cannot be read.
        SchemaMismatch: a file has a column twice.
    """
    source = absolute(source)
    listing = [files.single(source)] if is_file(source) else files.inventory(source)
    listing = [file.unread("csv") if file.format in ("csv", "csv.gz") else file for file in listing]
    if lost := [file for file in listing if file.lost]:
        raise SourceUnusable(f"{source}: {'; '.join(files.unread_notes(lost))}")
    for note in files.unread_notes(listing):
        log.warning("%s", note)
    found = [file for file in listing if file.format is not None]
    if not found:
        raise SourceUnusable(f"{source}: found no {SUFFIX} file; expected a folder of flows")
    groups = []
    for file in found:
        header = _read_header(file)
        _refuse_twice(header, file.name)
        whole = RowGroup(file.uri, file.name, 0, 0, 0, None, None)
        groups += [(row_group, header.types) for row_group in _parquet_row_groups(whole, header)]
    return groups


def csv_header(head: bytes) -> list[str]:
    """Return the column names in the first bytes of a CSV file; none if its first line is blank.

    Raises:
        csv.Error: the line cannot be parsed.
    """
    line = head.removeprefix(b"\xef\xbb\xbf").replace(b"\r", b"\n").split(b"\n", 1)[0].decode(errors="replace")
    return [name.strip() for name in next(csv.reader([line]))] if line.strip() else []


def csv_stream(uri: str, form: Format) -> pa.NativeFile:
    """Open the text of a CSV file, decompressed.

    Raises:
        OSError: it cannot be opened.
    """
    fs, path = resolve(uri)
    return fs.open_input_stream(path, compression="gzip" if form == "csv.gz" else None)


def _read_header(file: File) -> _Header:
    """Return header or footer of a file.

    Raises:
        SourceUnusable: it cannot be read, or is something else than its name states.
    """
    try:
        if file.format == "parquet":
            return _read_footer(file)
        with csv_stream(file.uri, file.format or "csv") as stream:
            head, text_bytes = stream.read(HEADER_BYTES), file.size
            if file.format == "csv.gz":  # a thousandth of its content, or half: only reading shows how many rows it has
                text_bytes = len(head)
                while block := stream.read(_GZIP_BLOCK_BYTES):
                    text_bytes += len(block)
                    if text_bytes > max(_SMALL_TEXT_BYTES, file.size * _MOST_GZIP_RATIO):
                        raise SourceUnusable(f"{file.name} is not read: {files.REASONS['implausible_text']}")
    except files.UNREADABLE as error:
        kind = (file.format or "").replace("csv.gz", "gzip")
        reason = files.reason_of(file, error)
        if reason != "unreadable_file":
            raise SourceUnusable(f"{file.name} is not read: {files.REASONS[reason]}{_detail(reason, error)}") from error
        raise SourceUnusable(
            f"{file.uri} cannot be read as {kind}, it may be truncated ({one_line(error)}); fetch the file again"
        ) from error
    fault = files.csv_fault(head)
    if fault is not None:
        start = ascii(head[:60].decode("latin-1"))
        raise SourceUnusable(f"{file.name} is not read: {files.REASONS[fault]} (it begins with {start})")
    try:
        columns = csv_header(head)
    except csv.Error as error:
        raise SourceUnusable(f"{file.name} is not read: its header cannot be read ({error}); fetch it again") from error
    if not columns:
        raise SourceUnusable(f"{file.uri} is empty; expected a header line; remove the file or fetch it again")
    return _Header(tuple(columns), {}, (), text_bytes)


def _detail(reason: str, error: BaseException) -> str:
    return f" ({one_line(error)})" if reason == "unknown_type" else ""


def _read_footer(file: File) -> _Header:
    fs, path = resolve(file.uri)
    with fs.open_input_file(path) as stream:
        footer, size = parquet_limits.opened(stream), stream.size()
        columns, groups = footer.schema_arrow, footer.metadata
        row_groups = tuple(groups.row_group(i).num_rows for i in range(groups.num_row_groups))
    if not files.plausible(row_groups, size):
        rows = f"{sum(row_groups):,} rows in {size:,} bytes"
        raise SourceUnusable(f"{file.name} is not read: {files.REASONS['implausible_rows']} (found {rows})")
    return _Header(tuple(columns.names), {column.name: column.type for column in columns}, row_groups)


def _schema_of(header: _Header, name: str, config: IngestConfig) -> tuple[FeatureSchema, dict[str, str]]:
    _refuse_twice(header, name)
    if (other := other_logs.by_columns(ColumnNames(header.columns, config.column_aliases))) is not None:
        raise SchemaMismatch(f"{name} is not read: {files.REASONS[other.key]} (found {listed(header.columns)})")
    ignored = {*config.ignored_columns, config.label_column}
    schema, columns = recognise(header.columns, name, ignored, config.column_aliases)
    wrong = [
        f"{column!r} is {header.types[column]}{_UNKNOWN if _may_be_unknown(header.types[column]) else ''}"
        for column in columns.values()
        if column in header.types and not is_number(header.types[column])
    ]
    if wrong:
        raise SchemaMismatch(f"{name}: expected numbers, found column(s) of another type: {', '.join(wrong)}")
    return schema, columns


def _refuse_twice(header: _Header, name: str) -> None:
    times = Counter(column for column in header.columns if column.strip())
    if duplicates := sorted(column for column, n in times.items() if n > 1):
        raise SchemaMismatch(f"{name}: column(s) {listed(duplicates)} occur more than once; keep one of each")


_UNKNOWN: Final = " (perhaps a type that this version of pyarrow does not know, such as half-precision floats)"


def _may_be_unknown(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_binary(kind))


def is_number(kind: pa.DataType) -> bool:
    """Return whether a feature can be stored as this type."""
    return any(is_kind(kind) for is_kind in (pa.types.is_floating, pa.types.is_integer, pa.types.is_decimal))


def _label_of(header: _Header, name: str, config: IngestConfig) -> tuple[str | None, str | None]:
    """Return the column of labels, and the label in the path of a file (`label=…`); at most one of them."""
    column = next((column for column in header.columns if column.strip() == config.label_column), None)
    if column is not None:
        kind = header.types.get(column, pa.string())
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind)):
            raise SchemaMismatch(f"{name}: label column {column!r} is {kind}; expected names of capture files as text")
        return column, None
    folders = dict(part.split("=", 1) for part in name.split("/")[:-1] if "=" in part)
    return None, unquote(folders[config.label_column]) if config.label_column in folders else None


def _refuse_unjoinable(name: str, header: _Header, schema: FeatureSchema, config: IngestConfig) -> None:
    """Raise `SourceUnusable` for a file whose rows are not, in their order, the windows of a whole capture."""
    if schema is not RELEASE_39:
        raise SourceUnusable(
            f"{name} is of {schema.name}, whose features cannot be joined; ingest.window needs {RELEASE_39.name}"
        )
    column, own = _label_of(header, name, config)
    base = name.rsplit("/", 1)[-1]
    if column is not None or own is not None:
        found = f"labels in {column or config.label_column!r}, so that rows of several captures may be mixed"
    elif base.startswith("part-"):
        found = "a part file, and the order of parts is unknown"
    else:
        return
    raise SourceUnusable(
        f"{name}: found {found}. ingest.window joins the rows of complete captures in their order; expected the"
        " official files, such as train/Benign_train.pcap.csv, or the same files as parquet; ingest those, or remove"
        " ingest.window"
    )


def _whole(file: File, header: _Header, columns: dict[str, str], config: IngestConfig) -> RowGroup:
    """Return a whole file as one unit of reading, with its class and split; of parquet without the number of rows."""
    column, own = _label_of(header, file.name, config)
    parts = file.name.split("/")
    if own is None:  # a distributed writer turns one capture file into a folder of part files
        own = parts[-2] if parts[-1].startswith("part-") and len(parts) > 1 else parts[-1]
    class19 = None if column is not None else _class_of(own, file.name, header, config)
    stems = [part.lower().split(".csv")[0].split(".parquet")[0] for part in reversed(parts)]
    split = taxonomy.split_of(own) or next((s for s in stems if s in ("train", "test")), None)
    if split is None and class19 is not None:
        raise SourceUnusable(
            f"{file.name}: belongs to no split; name the file …_train or …_test, or its folder train or test"
        )
    form = file.format or "parquet"
    names = () if list(columns) == list(columns.values()) else tuple(columns.values())
    index, rows = (0, 0) if form == "parquet" else (None, header.text_bytes // _CSV_BYTES_PER_ROW)
    return RowGroup(file.uri, file.name, index, 0, rows, class19, split, form, names, column)


def _row_groups_of(whole: RowGroup, file: File, header: _Header, config: IngestConfig) -> list[RowGroup]:
    """Return the units of reading of a file."""
    if whole.format == "parquet":
        row_groups = _parquet_row_groups(whole, header)
        return row_groups if config.window is not None else list(itertools.chain.from_iterable(map(_parts, row_groups)))
    if whole.format == "csv" and file.size > _WHOLE_CSV_BYTES and config.window is None:  # a join needs lines in order
        return _ranges(whole, file.size)
    return [whole]


def _class_of(own: str, name: str, header: _Header, config: IngestConfig) -> str:
    """Return the class in the name of a file; a refusal names columns that may hold it."""
    try:
        return taxonomy.class19_of(own)
    except taxonomy.UnknownClass as unknown:
        candidates = [c for c in ColumnNames(header.columns).labels() if c.strip() != config.label_column]
        candidates += [p.split("=", 1)[0] for p in name.split("/")[:-1] if "=" in p]
        if not candidates:
            raise
        raise taxonomy.UnknownClass(
            f"{name}: the file name contains no class, and there is no column {config.label_column!r}; found"
            f" {listed(candidates)}, which may hold the class: if so, set ingest.label_column={candidates[0]}; expected"
            " names of capture files, such as TCP_IP-DDoS-ICMP1_train"
        ) from unknown


def _ranges(whole: RowGroup, size: int) -> list[RowGroup]:
    """Return ranges of the bytes of a CSV file; their estimated rows add up to those of the file."""
    count = -(-size // _RANGE_BYTES)
    bounds = [size * i // count for i in range(count + 1)]
    return [
        replace(whole, start=start, end=end, rows=end // _CSV_BYTES_PER_ROW - start // _CSV_BYTES_PER_ROW)
        for start, end in itertools.pairwise(bounds)
    ]


def _parts(row_group: RowGroup) -> Iterator[RowGroup]:
    """Yield a row group of parquet in parts of whole pieces, for several tasks, if it is large."""
    rows = max(_PART_ROWS, -(-row_group.rows // (_MOST_PARTS * PIECE_ROWS)) * PIECE_ROWS)
    if row_group.rows <= rows:
        yield row_group
        return
    for start in range(0, row_group.rows, rows):
        end = min(start + rows, row_group.rows)
        yield replace(row_group, first_row=row_group.first_row + start, rows=end - start, start=start, end=end)


def _parquet_row_groups(whole: RowGroup, header: _Header) -> list[RowGroup]:
    """Return one row group for each row group of a parquet file."""
    starts = itertools.accumulate(header.row_groups, initial=0)
    return [
        replace(whole, index=i, first_row=start, rows=rows)
        for i, (start, rows) in enumerate(zip(starts, header.row_groups, strict=False))
    ]


def scoring_tasks(row_groups: Sequence[RowGroup], cores: int) -> int:
    """Return the number of scoring tasks: by rows, at least one per core, no more than the driver can handle."""
    rows = sum(row_group.rows for row_group in row_groups)
    return max(cores, min(rows // _SCORED_ROWS_PER_TASK, cores * _MAX_TASKS_PER_CORE))


def by_file(row_groups: Sequence[RowGroup], tasks: int) -> list[list[RowGroup]]:
    """Distribute row groups over at most `tasks` partitions, those of a file together and in their order."""
    files: dict[str, list[RowGroup]] = {}
    for row_group in sorted(row_groups, key=lambda p: (p.name, p.first_row)):
        files.setdefault(row_group.name, []).append(row_group)
    whole = [replace(own[0], rows=sum(p.rows for p in own)) for own in files.values()]
    return [[p for file in partition for p in files[file.name]] for partition in bin_pack(whole, tasks)]


def bin_pack(row_groups: Sequence[RowGroup], tasks: int) -> list[list[RowGroup]]:
    """Distribute row groups over at most `tasks` partitions of about equal rows."""
    return balanced(sorted(row_groups, key=lambda p: (p.name, p.first_row)), tasks, lambda p: p.rows + 1)
