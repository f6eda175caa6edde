"""The files of a raw source: found, checked by header or footer, divided into row groups for tasks.

Three forms are supported: the official tree of CSV files (label = file name), the same tree as parquet, and one table
with a `label` column that holds file names.
"""

import csv
import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Literal

import pyarrow as pa

from ids_spark.base.errors import InputError
from ids_spark.dataset import taxonomy
from ids_spark.dataset.features import FeatureSchema, SchemaMismatch, recognise
from ids_spark.lake.filesystem import absolute, exists, files_in, is_file, read_json, resolve
from ids_spark.lake.parquet import SUFFIX, PartFile

log = logging.getLogger(__name__)

LABEL: Final = "label"
SYNTHETIC_MARK: Final = "_SYNTHETIC.json"
HEADER_BYTES: Final = 1 << 16
_CSV_BYTES_PER_ROW: Final = 250  # of the official files: 210 to 330
_MAX_FAULTS_SHOWN: Final = 10
_SCORED_ROWS_PER_TASK: Final = 500_000
_MAX_TASKS_PER_CORE: Final = 64  # the driver keeps the counts of all tasks in memory


class SourceUnusable(InputError):
    """Raised when a source is missing, empty, broken or mixed; lists every fault found in its files."""


@dataclass(frozen=True)
class RowGroup:
    """One unit of reading: a CSV file, or one row group of a parquet file.

    Attributes:
        uri: Of the file.
        name: Its path below the source, the `source_file` of its rows.
        index: In the parquet file; None for CSV.
        first_row: Number of the row group's first row in the file.
        rows: Row count; an estimate for CSV.
        class19: From the file name; None if the file has a `label` column.
        split: `train` or `test`; None if each label ends with the split.
    """

    uri: str
    name: str
    index: int | None
    first_row: int
    rows: int
    class19: str | None
    split: str | None


@dataclass(frozen=True)
class Source:
    """A checked source: its feature schema, its row groups, and whether its rows are measured or synthetic."""

    schema: FeatureSchema
    row_groups: tuple[RowGroup, ...]
    files: int
    data_origin: Literal["measured", "synthetic"]
    narrow: frozenset[str]  # features stored as float32 somewhere

    def rows(self, split: str) -> int:
        """Return the rows of a split (estimated for CSV); a row group with rows of both splits counts for each."""
        return sum(row_group.rows for row_group in self.row_groups if row_group.split in (split, None))


@dataclass(frozen=True)
class _Header:
    columns: tuple[str, ...]
    types: dict[str, pa.DataType]
    row_groups: tuple[int, ...]  # rows of each; empty for CSV
    csv_bytes: int = 0


def discover(source: str, ignored_columns: Sequence[str] = ()) -> Source:
    """Find and check every file of a source; reads headers and footers, no rows.

    Args:
        source: A folder or a file.
        ignored_columns: Further columns that are no features.

    Raises:
        SourceUnusable: no such folder, no CSV or parquet in it, an unreadable or truncated file, an unknown class, no
            split, a column that is missing, unknown, duplicate or not a number, or two feature schemas in one source.
    """
    source = absolute(source)
    if not exists(source):
        raise SourceUnusable(f"{source}: no such file or folder; set ingest.source to a folder of CICIoMT2024 files")
    single = is_file(source)
    uris = [source] if single else [*files_in(source, ".csv"), *files_in(source, ".parquet")]
    if not uris:
        raise SourceUnusable(
            f"{source}: found no .csv or .parquet file below it; expected the official files or a table"
        )
    base = source.rstrip("/").rsplit("/", 1)[0] if single else source.rstrip("/")
    faults: list[str] = []
    headers: dict[str, _Header] = {}
    schemas: dict[str, FeatureSchema] = {}
    row_groups: list[RowGroup] = []
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(_read_header, uris))
    for uri, header in zip(uris, found, strict=True):
        name = uri[len(base) + 1 :]
        try:
            if isinstance(header, SourceUnusable):
                raise header
            schemas[name] = _schema_of(header, name, ignored_columns)
            headers[name] = header
            row_groups += _row_groups_of(uri, name, header)
        except InputError as fault:
            faults.append(str(fault))
    if len(counts := Counter(schema.name for schema in schemas.values())) > 1:
        shown = (f"{next(n for n, s in schemas.items() if s.name == kind)} is {kind}" for kind in counts)
        faults.append(
            "the source mixes two feature schemas, which no model can use together: "
            + ", ".join(f"{n} files of {kind}" for kind, n in counts.items())
            + f" ({'; '.join(shown)}); ingest each into its own lake"
        )
    if faults:
        more = f"\n  and {len(faults) - _MAX_FAULTS_SHOWN} more" if len(faults) > _MAX_FAULTS_SHOWN else ""
        listed = "\n  ".join(faults[:_MAX_FAULTS_SHOWN])
        raise SourceUnusable(f"{source}: {len(faults)} fault(s) in {len(uris)} file(s):\n  {listed}{more}")
    schema = next(iter(schemas.values()))
    synthetic = exists(f"{base}/{SYNTHETIC_MARK}")
    if synthetic and not read_json(f"{base}/{SYNTHETIC_MARK}").get("complete", True):
        raise SourceUnusable(f"{source}: this synthetic data set is incomplete; rerun jobs/synthesize.py")
    return Source(
        schema, tuple(row_groups), len(uris), "synthetic" if synthetic else "measured", _narrow(headers, schema)
    )


def parquet_row_groups(source: str) -> list[tuple[RowGroup, tuple[str, ...]]]:
    """Return the row groups of every parquet file below a folder (or of one file), each with the file's column names.

    Raises:
        SourceUnusable: nothing there, or a file that cannot be read.
    """
    source = absolute(source)
    single = is_file(source)
    uris = [source] if single else files_in(source, SUFFIX)
    if not uris:
        raise SourceUnusable(f"{source}: found no {SUFFIX} file; expected a folder of flows")
    base = source.rstrip("/").rsplit("/", 1)[0] if single else source.rstrip("/")
    found = []
    for uri in uris:
        header = _read_header(uri)
        if isinstance(header, SourceUnusable):
            raise header
        found += [
            (row_group, header.columns)
            for row_group in _parquet_row_groups(uri, uri[len(base) + 1 :], header, None, None)
        ]
    return found


def csv_header(head: bytes) -> list[str]:
    """Return the column names in the first bytes of a CSV file; none if it is empty."""
    lines = head.decode("utf-8-sig", errors="replace").splitlines()
    return [name.strip() for name in next(csv.reader(lines[:1]))] if lines and lines[0].strip() else []


def _read_header(uri: str) -> _Header | SourceUnusable:
    fs, path = resolve(uri)
    try:
        with fs.open_input_file(path) as stream:
            if not uri.endswith(".csv"):
                file = PartFile(stream)
                return _Header(tuple(file.schema.names), {f.name: f.type for f in file.schema}, file.rows)
            columns = csv_header(stream.read(HEADER_BYTES))
            if not columns:
                return SourceUnusable(f"{uri} is empty; expected a header line; remove the file or fetch it again")
            return _Header(tuple(columns), {}, (), stream.size())
    except (pa.ArrowException, OSError) as error:
        reason, kind = str(error).splitlines()[0], uri.rsplit(".", 1)[-1]
        return SourceUnusable(f"{uri} cannot be read as {kind}, it may be truncated ({reason}); fetch the file again")


def _schema_of(header: _Header, name: str, ignored: Sequence[str]) -> FeatureSchema:
    duplicates = sorted(column for column, times in Counter(header.columns).items() if times > 1)
    if duplicates:
        raise SchemaMismatch(f"{name}: column(s) {', '.join(duplicates)} occur more than once; keep one of each")
    schema = recognise(header.columns, name, ignored)
    wrong = [
        f"{feature!r} is {header.types[feature]}"
        for feature in schema.features
        if feature in header.types and not _is_number(header.types[feature])
    ]
    if wrong:
        raise SchemaMismatch(f"{name}: expected numbers, found column(s) of another type: {', '.join(wrong)}")
    return schema


def _is_number(kind: pa.DataType) -> bool:
    return any(is_kind(kind) for is_kind in (pa.types.is_floating, pa.types.is_integer, pa.types.is_decimal))


def _narrow(headers: dict[str, _Header], schema: FeatureSchema) -> frozenset[str]:
    small = {feature for h in headers.values() for feature in schema.features if h.types.get(feature) == pa.float32()}
    return frozenset(small)


def _row_groups_of(uri: str, name: str, header: _Header) -> Iterable[RowGroup]:
    class19 = split = None
    parts = name.split("/")
    # A distributed writer turns one capture file into a folder of part files.
    own = parts[-2] if parts[-1].startswith("part-") and len(parts) > 1 else parts[-1]
    if LABEL not in header.columns:
        class19 = taxonomy.class19_of(own)
        split = taxonomy.split_of(own)
    stems = [part.removesuffix(".csv").removesuffix(".parquet") for part in reversed(parts)]
    split = split or taxonomy.split_of(own) or next((s for s in stems if s in ("train", "test")), None)
    if split is None and class19 is not None:
        raise SourceUnusable(
            f"{name}: belongs to no split; name the file …_train or …_test, or its folder train or test"
        )
    if not header.types:
        return [RowGroup(uri, name, None, 0, header.csv_bytes // _CSV_BYTES_PER_ROW, class19, split)]
    return _parquet_row_groups(uri, name, header, class19, split)


def _parquet_row_groups(uri: str, name: str, header: _Header, class19: str | None, split: str | None) -> list[RowGroup]:
    """Return one row group for each row group of a parquet file."""
    starts = itertools.accumulate(header.row_groups, initial=0)
    return [
        RowGroup(uri, name, i, start, rows, class19, split)
        for i, (start, rows) in enumerate(zip(starts, header.row_groups, strict=False))
    ]


def scoring_tasks(row_groups: Sequence[RowGroup], cores: int) -> int:
    """Return the number of scoring tasks: by rows, at least one per core, no more than the driver can handle."""
    rows = sum(row_group.rows for row_group in row_groups)
    return max(cores, min(rows // _SCORED_ROWS_PER_TASK, cores * _MAX_TASKS_PER_CORE))


def bin_pack(row_groups: Sequence[RowGroup], tasks: int) -> list[list[RowGroup]]:
    """Distribute row groups over at most `tasks` partitions of about equal rows: largest first, to the emptiest."""
    partitions: list[list[RowGroup]] = [[] for _ in range(max(1, min(tasks, len(row_groups))))]
    loads = [0] * len(partitions)
    for row_group in sorted(row_groups, key=lambda p: (-p.rows, p.name, p.first_row)):
        emptiest = loads.index(min(loads))
        partitions[emptiest].append(row_group)
        loads[emptiest] += row_group.rows + 1
    return partitions
