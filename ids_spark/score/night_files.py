"""Flow-log files of a night: found by name and content, checked by their parquet footers.

A night is all parquet below `<flow logs>/event_date=YYYY-MM-DD/`. A file that cannot be used does not stop the night:
it is listed with the reason, and its rows, if the footer can be read, go to quarantine. A night is refused if no file
has the features of the model's release, because a model cannot score without one of its inputs.
"""

import contextlib
import datetime as dt
import hashlib
import io
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from ids_spark.alerts import looks
from ids_spark.base.errors import InputError
from ids_spark.base.logs import printable
from ids_spark.base.report import combined_origin
from ids_spark.config.score import ScoreConfig
from ids_spark.dataset.columns import ColumnNames, listed, own_features, plain
from ids_spark.dataset.features import FEATURE_SCHEMAS, FeatureSchema, SchemaMismatch
from ids_spark.extract.footer import Extraction, of_metadata
from ids_spark.ingest import files, other_logs
from ids_spark.ingest.files import File
from ids_spark.ingest.sources import SYNTHETIC_MARK, RowGroup
from ids_spark.lake import parquet_limits
from ids_spark.lake.filesystem import absolute, entries_in, exists, resolve
from ids_spark.lake.store import Lake
from ids_spark.score.identifiers import PLAIN, Identifiers

log = logging.getLogger(__name__)

_READABLE: Final = (
    pa.types.is_floating,
    pa.types.is_integer,
    pa.types.is_decimal,
    pa.types.is_string,
    pa.types.is_large_string,
)
MOST_FILES: Final = 20_000
"""Files of a night that are read, by name. Each costs the driver a request and a line of the page."""
_THREADS: Final = 16
_MOST_SHOWN: Final = 10
_FOLDER: Final = "event_date="
_NULL_IN_PATH: Final = "__HIVE_DEFAULT_PARTITION__"
_ORIGIN: Final = b"ids_spark.data_origin"
_MISSING_COLUMNS: Final = "missing_columns"
_OTHER_SCHEMA: Final = "other_feature_schema"


class NightMissing(InputError):
    """Raised when there are no flow logs of the date that `score.date` names."""


@dataclass(frozen=True)
class NightFile:
    """One file of a night.

    Attributes:
        name: Its path below the night's folder.
        rows: Its rows.
        reason: Why it cannot be used; None if it can.
        extraction: What it says of its packets; None if it was not extracted from a capture.
        footer_sha256: Of its parquet footer; empty without one that can be read.
    """

    name: str
    rows: int
    reason: str | None = None
    extraction: Extraction | None = None
    footer_sha256: str = ""

    @property
    def harmless(self) -> bool:
        """Whether it holds no flows, such as a hidden file or a document."""
        return self.reason in files.HARMLESS


@dataclass(frozen=True)
class NightRowGroup:
    """One row group of a file, and the names of its columns.

    Attributes:
        row_group: The row group.
        columns: Column of the file by official feature name.
        pass_through: Pass-through columns in the file; nested ones cannot be text and count as extra columns.
        spelled: Of these, the names in the file of those that are spelled otherwise there.
        in_path: Of these, the values of those that only the path has, in a folder `column=value`.
        reason: Why its rows cannot be read; None if they can.
        nested_time: Type of the column of event times if it is nested, so that it cannot be a time.
    """

    row_group: RowGroup
    columns: Mapping[str, str]
    pass_through: tuple[str, ...]
    spelled: Mapping[str, str] = field(default_factory=dict)
    in_path: Mapping[str, str | None] = field(default_factory=dict)
    reason: str | None = None
    nested_time: str | None = None


@dataclass(frozen=True)
class NightSource:
    """The files and row groups of a night.

    Attributes:
        event_date: The night.
        row_groups: Row groups, including those of files whose rows can be counted but not read.
        files: Every file.
        extra_columns: Columns that are neither features nor passed through; ignored.
        data_origin: `synthetic` if the flow logs or one of the files are marked as synthetic, else `measured`.
    """

    event_date: dt.date
    row_groups: tuple[NightRowGroup, ...]
    files: tuple[NightFile, ...]
    extra_columns: tuple[str, ...]
    data_origin: str

    @property
    def flow_files(self) -> tuple[NightFile, ...]:
        """The files that hold flows, or should."""
        return tuple(file for file in self.files if not file.harmless)

    @property
    def sha256(self) -> str:
        """A hash that changes with the files of flows: their names, rows and footers.

        The footer of extracted flow logs names settings and state of their capture; that of others changes with the
        size of their columns, and with statistics of their values if the writer has stored them.
        """
        facts = [(file.name, file.rows, file.footer_sha256) for file in self.flow_files]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    @property
    def columns(self) -> frozenset[str]:
        """Pass-through columns that a file has."""
        return frozenset[str]().union(*(row_group.pass_through for row_group in self.row_groups))

    def pass_through(self, config: ScoreConfig) -> tuple[str, ...]:
        """Return the columns that are copied to predictions: those chosen, or those of the default that a file has."""
        if "pass_through" in config.model_fields_set:
            return config.pass_through
        found = self.columns | {config.event_time}
        return tuple(column for column in config.pass_through if column in found)

    @property
    def rows(self) -> int:
        """Flows of the night, from the footers."""
        return sum(row_group.row_group.rows for row_group in self.row_groups)


@dataclass(frozen=True)
class Purpose:
    """What a night is read for, in the words of its refusal.

    Attributes:
        schema_of: Whose release the features must have.
        nothing: What was not done.
        otherwise: What to do about logs of the other release.
    """

    schema_of: str
    nothing: str
    otherwise: str


SCORING: Final = Purpose("the release of the model", "Nothing was scored", "choose a model of the other release")


def dates_of(config: ScoreConfig, today: dt.date) -> list[dt.date]:
    """Return the configured nights, oldest first; `last_days` ends with yesterday, with several runs a night today."""
    if config.date is not None:
        return [config.date]
    if config.first_date is not None and config.last_date is not None:
        first, last = config.first_date, config.last_date
    else:
        first = today - dt.timedelta(days=config.last_days or 1)
        last = today if config.runs_per_night > 1 else today - dt.timedelta(days=1)
    return [first + dt.timedelta(days=i) for i in range((last - first).days + 1)]


def dates_in(flow_logs: str) -> list[dt.date]:
    """Return the nights that a folder of flow logs has folders of, oldest first.

    Also those of folders in another form, such as `event_date=20261124`: their nights are reported as missing.
    """
    dates = set()
    for name, kind in entries_in(absolute(flow_logs).rstrip("/")).items():
        if kind == pafs.FileType.Directory and name.startswith(_FOLDER):
            with contextlib.suppress(ValueError):
                dates.add(dt.date.fromisoformat(name.removeprefix(_FOLDER)))
    return sorted(dates)


def find_night(
    config: ScoreConfig,
    event_date: dt.date,
    schema: FeatureSchema,
    needed: Sequence[str],
    purpose: Purpose = SCORING,
    identifiers: Identifiers = PLAIN,
) -> NightSource | None:
    """Find and check the files of a night; reads footers only.

    Args:
        config: Names the flow logs, aliases and pass-through columns.
        event_date: The night.
        schema: Of the model; its features never count as extra columns, whether models use them or not.
        needed: Official names of the features that models use.
        purpose: What the night is read for.
        identifiers: Replaces names of files, and of columns that no setting declares.

    Returns:
        None if the night has no folder or no parquet file.

    Raises:
        SchemaMismatch: no file has all needed features of this schema; the message lists files and columns.
        UnsupportedTable: the flow logs are a table of another format, or a Delta table with later features.
    """
    root = absolute(config.flow_logs or "").rstrip("/")
    folder = f"{root}/event_date={event_date}"
    listing = listed_files(folder, root, identifiers)
    if not any(file.format or file.lost for file in listing):
        return None
    marked = exists(f"{root}/{SYNTHETIC_MARK}")
    listing = _within_limit(listing)
    with ThreadPoolExecutor(_THREADS) as pool:
        inspections = list(pool.map(lambda file: _inspect(file, config, schema, needed, identifiers), listing))
    faults = [each.schema_fault for each in inspections if each.schema_fault is not None]
    if faults and not any(each.file.reason is None for each in inspections):
        shown = "; ".join(faults[:_MOST_SHOWN])
        more = f"; and {len(faults) - _MOST_SHOWN} more files" if len(faults) > _MOST_SHOWN else ""
        unread = [file.unread("csv") if file.format in ("csv", "csv.gz") else file for file in listing]
        notes = "".join(f"; {note}" for note in files.unread_notes(unread))
        others = {other.key for other in other_logs.OTHER_LOGS}
        advice = (
            other_logs.EXTRACT
            if all(each.file.reason in others for each in inspections if each.schema_fault is not None)
            else f"add the columns, name other spellings in score.column_aliases, or {purpose.otherwise}"
        )
        raise SchemaMismatch(
            f"{folder}: {shown}{more}{notes}. Expected the features of {schema.name}, {purpose.schema_of}."
            f" {purpose.nothing}; {advice}"
        )
    return NightSource(
        event_date,
        tuple(row_group for each in inspections for row_group in each.row_groups),
        tuple(each.file for each in inspections),
        tuple(sorted({column for each in inspections for column in each.extra_columns})),
        combined_origin("synthetic" if marked else None, *(each.data_origin for each in inspections)),
    )


def listed_files(folder: str, root: str, identifiers: Identifiers) -> list[File]:
    """Return every file below the folder of a night, under the name by which tables and messages call it.

    Raises:
        UnsupportedTable: see `files.inventory`.
    """
    try:
        listing = files.inventory(folder, root)
    except files.UnsupportedTable:
        if not identifiers.hides:
            raise
        raise files.UnsupportedTable(  # the message would name folders and actions of the log
            f"{folder}: found a table of Iceberg, Hudi, Paimon or Hive, or one of Delta or of a stream of Spark whose"
            " log cannot be read; expected plain parquet, or a Delta table of reader version 1; export the table to"
            " plain parquet"
        ) from None
    return [replace(file, name=identifiers.file(file.name)) for file in listing]


def _within_limit(listing: Sequence[File]) -> list[File]:
    """Return the files of a night, with one entry in place of those beyond `MOST_FILES`."""
    kept, beyond = list(listing[:MOST_FILES]), listing[MOST_FILES:]
    if not beyond:
        return kept
    more = sum(file.reason not in files.HARMLESS for file in beyond)
    reason = "too_many_files" if more else beyond[0].reason
    return [
        *kept,
        replace(beyond[0], name=f"{beyond[0].name} and all after it ({len(beyond):,})", format=None, reason=reason),
    ]


def late_rows(lake: Lake, source: NightSource) -> int:
    """Return the rows of a night that arrived after its date was first scored as a whole; 0 if it was not.

    Late rows of earlier runs are included, so that scoring the same files again gives the same number.
    """
    names = ["files", "rows_late", "run_of_night", "runs_per_night"]
    found = lake.read("nights", names, event_date=source.event_date).to_pylist()
    if not found or looks.partial(found[0]):
        return 0
    last = found[0]
    known: dict[str, int] = {file["name"]: file["rows"] for file in last["files"]}
    late = sum(max(0, file.rows - known.get(file.name, 0)) for file in source.files)
    return late + int(last["rows_late"])


@dataclass(frozen=True)
class _SchemaFault:
    reason: str
    text: str  # for people, with the name of the file


@dataclass(frozen=True)
class _Inspection:
    file: NightFile
    row_groups: tuple[NightRowGroup, ...] = ()
    extra_columns: tuple[str, ...] = ()
    schema_fault: str | None = None
    data_origin: str | None = None


def _inspect(
    file: File, config: ScoreConfig, schema: FeatureSchema, needed: Sequence[str], identifiers: Identifiers
) -> _Inspection:
    """Return the content of a file's footer."""
    if file.format in ("csv", "csv.gz"):
        return _Inspection(NightFile(file.name, 0, _csv_reason(file)))
    if file.format is None:
        return _Inspection(NightFile(file.name, 0, file.reason))
    fs, path = resolve(file.uri)
    try:
        with fs.open_input_file(path) as stream:
            footer = parquet_limits.opened(stream)
            arrow, metadata = footer.schema_arrow, footer.metadata
            groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    except files.UNREADABLE as error:
        damage = files.reason_of(file, error)
        log.warning("unreadable file=%s reason=%s error=%s", file.name, damage, identifiers.error(error))
        return _Inspection(NightFile(file.name, 0, damage))
    if not files.plausible(groups, file.size):
        return _Inspection(NightFile(file.name, 0, "implausible_rows"))
    columns = ColumnNames(arrow.names, config.column_aliases)
    fault = _schema_fault(file.name, columns, schema, needed, identifiers)
    known = columns.of(schema)
    used = {feature: known[feature] for feature in needed if feature in known}
    nested = {column.name: column.type for column in arrow if pa.types.is_nested(column.type)}
    nested_time = identifiers.kind(nested[config.event_time]) if config.event_time in nested else None
    flat = [column for column in arrow.names if column not in nested]
    spelled = _spelled(config.pass_through, set(arrow.names), set(flat) - set(known.values()))
    in_path = {c: v for c, v in _in_path(file.uri).items() if c in config.pass_through and c not in (*flat, *spelled)}
    pass_through = tuple(column for column in config.pass_through if column in (*flat, *spelled, *in_path))
    stored = [spelled.get(column, column) for column in pass_through if column not in in_path]
    ignored = set(arrow.names) - set(known.values()) - set(stored)
    extra = tuple(sorted({identifiers.column(name) for name in ignored}))
    own_fault = _fault_of(arrow, columns.ambiguous(schema), list(used.values()), stored)
    extraction = of_metadata(arrow.metadata, file.name)
    empty = None if sum(groups) or extraction else "no_rows"  # no packet of a capture may be in a window
    reason = fault.reason if fault else own_fault or empty
    row_groups, start = [], 0
    for i, rows in enumerate(groups):
        row_group = RowGroup(file.uri, file.name, i, start, rows, None, None)
        row_groups.append(NightRowGroup(row_group, used, pass_through, spelled, in_path, reason, nested_time))
        start += rows
    return _Inspection(
        NightFile(file.name, start, reason, extraction, _sha256(metadata)),
        tuple(row_groups) if start else (),
        extra,
        fault.text if fault else None,
        (arrow.metadata or {}).get(_ORIGIN, b"").decode(errors="replace"),
    )


def _sha256(footer: pq.FileMetaData) -> str:
    content = io.BytesIO()
    footer.write_metadata_file(content)
    return hashlib.sha256(content.getvalue()).hexdigest()


def _schema_fault(
    name: str, columns: ColumnNames, schema: FeatureSchema, needed: Sequence[str], identifiers: Identifiers
) -> _SchemaFault | None:
    """Return why a file's columns are not those of the schema; None if they are."""
    known = columns.of(schema)
    missing = [feature for feature in needed if feature not in known]
    found = columns.schema()
    if found is not None and found.name != schema.name:
        return _SchemaFault(
            _OTHER_SCHEMA, f"{printable(name)} is of feature schema {found.name} ({listed(columns.own(found))})"
        )
    if missing and (other := other_logs.by_columns(columns)) is not None:
        return _SchemaFault(other.key, f"{printable(name)} is {other.reason}")
    if missing:
        near = columns.near(missing, [] if identifiers.hides else set(columns.names) - set(known.values()))
        shown = listed(f"{f} (did you mean {near[f]!r}?)" if f in near else f for f in missing)
        text = f"{printable(name)} lacks {len(missing)} feature column(s) of {schema.name}: {shown}"
        return _SchemaFault(_MISSING_COLUMNS, text)
    if found is None:
        own = [f"{listed(columns.own(each))} of {each.name}" for each in FEATURE_SCHEMAS.values() if columns.own(each)]
        mixed = f"has {' and '.join(own)}" if own else f"has none of {listed(own_features(schema))}"
        return _SchemaFault(_OTHER_SCHEMA, f"{printable(name)} {mixed}, so its release cannot be told")
    return None


def _spelled(columns: Sequence[str], names: Collection[str], others: Iterable[str]) -> dict[str, str]:
    """Return the columns that a file has only under one other spelling (case, blanks, punctuation), each with it.

    Args:
        columns: As the settings name them.
        names: All columns of the file.
        others: Those that may be one of `columns`.
    """
    by_plain: dict[str, list[str]] = defaultdict(list)
    for name in set(others).difference(columns):
        by_plain[plain(name)].append(name)
    found = {}
    for column in columns:
        candidates = [] if column in names else by_plain.pop(plain(column), [])
        if len(candidates) == 1:
            found[column] = candidates[0]
    return found


def _in_path(uri: str) -> dict[str, str | None]:
    """Return the columns in the path of a file, of folders `column=value` as Spark and Hive write them."""
    folders = (folder.split("=", 1) for folder in uri.split("/")[:-1] if "=" in folder)
    return {column: None if value == _NULL_IN_PATH else unquote(value) for column, value in folders}


def _csv_reason(file: File) -> str:
    """Return why a CSV file is not scored: it is a log of another program, or it is CSV."""
    try:
        other = other_logs.by_content(files.head_of(file.uri))
    except OSError:
        return "csv"
    return "csv" if other is None else other.key


def _fault_of(
    arrow: pa.Schema, ambiguous: Mapping[str, Sequence[str]], features: Sequence[str], pass_through: Sequence[str]
) -> str | None:
    """Return why a file cannot be used: a duplicated column or a feature that is not a number; else None."""
    times = Counter(arrow.names)
    if ambiguous or any(times[column] > 1 for column in (*features, *pass_through)):
        return "duplicated_column"
    if any(not any(is_kind(arrow.field(column).type) for is_kind in _READABLE) for column in features):
        return "wrong_type"
    return None
