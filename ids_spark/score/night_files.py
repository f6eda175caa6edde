"""Flow-log files of a night: found by name, checked by their parquet footers.

A night is all parquet below `<flow logs>/event_date=YYYY-MM-DD/`. A file that cannot be used does not stop the night:
it is listed with the reason, and its rows, if the footer can be read, go to quarantine. A missing feature column stops
the night, because a model cannot score without one of its inputs.
"""

import datetime as dt
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from ids_spark.base.errors import InputError
from ids_spark.config.score import ScoreConfig
from ids_spark.dataset.features import ALIASES, SAME_FEATURE, FeatureSchema, SchemaMismatch
from ids_spark.ingest.sources import SYNTHETIC_MARK, RowGroup
from ids_spark.lake.filesystem import absolute, exists, resolve
from ids_spark.lake.store import Lake

log = logging.getLogger(__name__)

_READABLE: Final = (
    pa.types.is_floating,
    pa.types.is_integer,
    pa.types.is_decimal,
    pa.types.is_string,
    pa.types.is_large_string,
)
_THREADS: Final = 16


class NightMissing(InputError):
    """Raised when there are no flow logs of the date that `score.date` names."""


@dataclass(frozen=True)
class NightFile:
    """One file of a night: its path below the night's folder, its rows, and the reason if it cannot be used."""

    name: str
    rows: int
    reason: str | None = None


@dataclass(frozen=True)
class NightRowGroup:
    """One row group of a file, and the names of its columns.

    Attributes:
        row_group: The row group.
        columns: Column of the file by official feature name.
        pass_through: Pass-through columns in the file; nested ones cannot be text and count as extra columns.
        reason: Why its rows cannot be read; None if they can.
    """

    row_group: RowGroup
    columns: Mapping[str, str]
    pass_through: tuple[str, ...]
    reason: str | None = None


@dataclass(frozen=True)
class NightSource:
    """The files and row groups of a night.

    Attributes:
        event_date: The night.
        row_groups: Row groups, including those of files whose rows can be counted but not read.
        files: Every file.
        extra_columns: Columns that are neither features nor passed through; ignored.
        data_origin: `synthetic` if the flow logs are marked as synthetic, else `measured`.
    """

    event_date: dt.date
    row_groups: tuple[NightRowGroup, ...]
    files: tuple[NightFile, ...]
    extra_columns: tuple[str, ...]
    data_origin: str

    @property
    def rows(self) -> int:
        """Flows of the night, from the footers."""
        return sum(row_group.row_group.rows for row_group in self.row_groups)


def dates_of(config: ScoreConfig, today: dt.date) -> list[dt.date]:
    """Return the configured nights, oldest first; `last_days` ends with yesterday."""
    if config.date is not None:
        return [config.date]
    if config.first_date is not None and config.last_date is not None:
        first, last = config.first_date, config.last_date
    else:
        first, last = today - dt.timedelta(days=config.last_days or 1), today - dt.timedelta(days=1)
    return [first + dt.timedelta(days=i) for i in range((last - first).days + 1)]


def find_night(
    config: ScoreConfig, event_date: dt.date, schema: FeatureSchema, needed: Sequence[str]
) -> NightSource | None:
    """Find and check the files of a night; reads footers only.

    Args:
        config: Names the flow logs, aliases and pass-through columns.
        event_date: The night.
        schema: Of the model; its features never count as extra columns, whether models use them or not.
        needed: Official names of the features that models use.

    Returns:
        None if the night has no folder or no parquet file.

    Raises:
        SchemaMismatch: a readable file lacks a needed feature; the message lists every such file and column.
    """
    root = absolute(config.flow_logs or "").rstrip("/")
    folder = f"{root}/event_date={event_date}"
    names = _listed(folder)
    if not names:
        return None
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(lambda name: _inspect(f"{folder}/{name}", name, config, schema, needed), names))
    missing = [fault for fault in found if isinstance(fault, str)]
    if missing:
        raise SchemaMismatch(
            f"{folder}: {'; '.join(missing)}. Nothing was scored; add the columns, or name them in score.column_aliases"
        )
    inspections = [each for each in found if isinstance(each, _Inspection)]
    return NightSource(
        event_date,
        tuple(row_group for each in inspections for row_group in each.row_groups),
        tuple(each.file for each in inspections),
        tuple(sorted({column for each in inspections for column in each.extra_columns})),
        "synthetic" if exists(f"{root}/{SYNTHETIC_MARK}") else "measured",
    )


def late_rows(lake: Lake, source: NightSource) -> int:
    """Return the rows of a night that arrived after its date was first scored; 0 if it was not scored before.

    Late rows of earlier runs are included, so that scoring the same files again gives the same number.
    """
    found = lake.read("nights", ["files", "rows_late"], event_date=source.event_date).to_pylist()
    if not found:
        return 0
    last = found[0]
    known: dict[str, int] = {file["name"]: file["rows"] for file in last["files"]}
    late = sum(max(0, file.rows - known.get(file.name, 0)) for file in source.files)
    return late + int(last["rows_late"])


@dataclass(frozen=True)
class _Inspection:
    file: NightFile
    row_groups: tuple[NightRowGroup, ...] = ()
    extra_columns: tuple[str, ...] = ()


def _listed(folder: str) -> list[str]:
    """Return the names of all visible parquet files, including links to files that do not exist."""
    fs, path = resolve(folder)
    found = fs.get_file_info(pafs.FileSelector(path, recursive=True, allow_not_found=True))
    names = {info.path[len(path) :].lstrip("/") for info in found if info.type != pafs.FileType.Directory}
    if isinstance(fs, pafs.LocalFileSystem):  # its listing omits links to files that do not exist
        names |= {os.path.relpath(os.path.join(at, name), path) for at, _, files in os.walk(path) for name in files}
    return sorted(n for n in names if n.endswith(".parquet") and not any(p[0] in "._" for p in n.split("/")))


def _inspect(
    uri: str, name: str, config: ScoreConfig, schema: FeatureSchema, needed: Sequence[str]
) -> _Inspection | str:
    """Return the content of a file's footer, or a text that lists the needed columns it lacks."""
    fs, path = resolve(uri)
    info = fs.get_file_info(path)
    if info.type == pafs.FileType.NotFound:
        return _Inspection(NightFile(name, 0, "missing_file"))
    if info.size == 0:
        return _Inspection(NightFile(name, 0, "empty_file"))
    try:
        with fs.open_input_file(path) as stream:
            footer = pq.ParquetFile(stream)
            arrow, metadata = footer.schema_arrow, footer.metadata
            groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    except (pa.ArrowException, OSError) as error:
        log.warning("unreadable file=%s error=%s", uri, str(error).splitlines()[0])
        return _Inspection(NightFile(name, 0, "unreadable_file"))
    known = _features_of(arrow.names, config.column_aliases, schema)
    missing = [feature for feature in needed if feature not in known]
    if missing:
        return f"{name} lacks {len(missing)} feature column(s) of {schema.name}: {', '.join(missing)}"
    columns = {feature: known[feature] for feature in needed}
    nested = {column.name for column in arrow if pa.types.is_nested(column.type)}
    pass_through = tuple(column for column in config.pass_through if column in set(arrow.names) - nested)
    extra = tuple(sorted(set(arrow.names) - set(known.values()) - set(pass_through)))
    reason = _fault_of(arrow, [*columns.values(), *pass_through], list(columns.values()))
    reason = reason or (None if sum(groups) else "no_rows")
    row_groups, start = [], 0
    for i, rows in enumerate(groups):
        row_groups.append(NightRowGroup(RowGroup(uri, name, i, start, rows, None, None), columns, pass_through, reason))
        start += rows
    return _Inspection(NightFile(name, start, reason), tuple(row_groups) if start else (), extra)


def _features_of(names: Sequence[str], own: Mapping[str, str], schema: FeatureSchema) -> dict[str, str]:
    """Return the column of each feature: by its official name, else by an alias of the configuration, else a known one.

    The releases have two names for one feature; a log with either name is accepted.
    """
    columns = {}
    for feature in schema.features:
        spellings = [feature]
        spellings += [alias for aliases in (own, ALIASES) for alias, official in aliases.items() if official == feature]
        spellings += [other for other in SAME_FEATURE if feature in SAME_FEATURE]
        found = next((spelling for spelling in spellings if spelling in names), None)
        if found is not None:
            columns[feature] = found
    return columns


def _fault_of(arrow: pa.Schema, used: Sequence[str], features: Sequence[str]) -> str | None:
    """Return why a file cannot be used: a duplicated column or a feature that is not a number; else None."""
    times = Counter(arrow.names)
    if any(times[column] > 1 for column in used):
        return "duplicated_column"
    if any(not any(is_kind(arrow.field(column).type) for is_kind in _READABLE) for column in features):
        return "wrong_type"
    return None
