"""Reads and checks row groups of flow logs: columns, and refused rows with reasons. Runs in tasks.

A row group of more than `PIECE_ROWS` rows is read in pieces of that many rows, and what a piece needs is limited by the
sizes in the footer, so that memory does not depend on the file.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ids_spark.base.arrays import Floats, Mask
from ids_spark.dataset.features import FeatureSchema
from ids_spark.dataset.tables import QUARANTINE
from ids_spark.ingest import files, quality
from ids_spark.ingest.parse import Faults, any_fault, refused_rows, to_doubles
from ids_spark.lake.filesystem import resolve
from ids_spark.score import pass_through
from ids_spark.score.identifiers import PLAIN, Identifiers
from ids_spark.score.night_files import NightRowGroup

log = logging.getLogger(__name__)

UNREADABLE: Final = "unreadable_row_group"
TOO_LARGE: Final = "too_large_text"
UNSCORABLE: Final = "no_finite_score"
PIECE_ROWS: Final = 131_072
_TEXT_PIECE_ROWS: Final = 16_384  # if features are text, of which refused rows keep up to 512 characters each
_REFUSED_AT_ONCE: Final = 8_192  # rows that are Python objects at one time
LARGEST_COLUMN: Final = 256 << 20  # bytes of one text column in a piece


@dataclass(frozen=True)
class NightRows:
    """The rows of a row group, or of a piece of it: rows read = source_rows + refused.

    Attributes:
        values: Feature columns as doubles by official name, without NaN, of the rows that can be scored.
        pass_through: Pass-through columns of the same rows; the event time as a time, all others as text, encoded as a
            dictionary where the file has one.
        source_rows: Number of each such row in its file.
        refused: As `tables.QUARANTINE`.
        warnings: Rows that can be scored but violate a rule of severity `warn`, by rule.
        unread_times: Rows that can be scored and have a value that is no event time, by the type of the column.
        unread_columns: Rows that can be scored whose value is null because the column is too large, by its name.
    """

    values: dict[str, Floats]
    pass_through: pa.Table
    source_rows: NDArray[np.int64]
    refused: pa.Table
    warnings: Counter[str] = field(default_factory=Counter)
    unread_times: Counter[str] = field(default_factory=Counter)
    unread_columns: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class ReadSpec:
    """Columns to read from every row group.

    Attributes:
        schema: Feature schema of the models.
        features: Official names of the features that models use; quality rules check these.
        pass_through: Columns that are copied to predictions.
        event_time: The pass-through column that is a time.
        run_id: Written to the quarantine.
    """

    schema: FeatureSchema
    features: tuple[str, ...]
    pass_through: tuple[str, ...]
    event_time: str
    run_id: str


def read_row_group(
    night_row_group: NightRowGroup, spec: ReadSpec, identifiers: Identifiers = PLAIN
) -> Iterator[NightRows]:
    """Read one row group, convert it to doubles and check it; yields one piece, or several of a large row group.

    A row with a missing or unparsable value, NaN, or a violated `reject` rule is refused. If a row group, or the rest
    of it, cannot be read, these rows are refused; the footer gives their number. Infinities are accepted: preprocessing
    saturates them. A pass-through column that is too large is null and counted.

    Args:
        night_row_group: The row group.
        spec: Columns to read.
        identifiers: Replaces cells that are no number in what is kept of refused rows. Pass-through columns stay plain.
    """
    row_group, done = night_row_group.row_group, 0
    reason = night_row_group.reason
    try:
        if reason is None:
            for read, unread in _tables(night_row_group, spec):
                table = read.slice(0, row_group.rows - done)  # never more rows than the footer claims
                yield _checked(table, row_group.first_row + done, unread, night_row_group, spec, identifiers)
                done += len(table)
            reason = UNREADABLE
    except _TooLarge:
        reason = TOO_LARGE
    except files.UNREADABLE as error:
        reason = UNREADABLE
        shown = identifiers.error(error)
        log.warning("unreadable file=%s row_group=%s error=%s", row_group.name, row_group.index, shown)
    yield from _refused_rest(night_row_group, done, spec, reason)


def without_unscorable(
    rows: NightRows, bad: Mask, columns: NDArray[np.int64], file: str, spec: ReadSpec
) -> tuple[NightRows, pa.Table]:
    """Separate rows without a finite score from the others.

    Args:
        rows: Of one row group.
        bad: Rows without a finite score, shape (rows,).
        columns: Index in `spec.features` of the feature that caused it, for each row, shape (rows,).
        file: Name of the file.
        spec: Its features.

    Returns:
        The other rows, and the refused ones as `tables.QUARANTINE`.
    """
    faults = {UNSCORABLE: {spec.features[i]: bad & (columns == i) for i in np.unique(columns[bad]).tolist()}}
    refused = _refused(pa.table(rows.values), faults, rows.source_rows, file, spec, PLAIN)  # numbers only
    good = np.flatnonzero(~bad)
    values = {name: column[good] for name, column in rows.values.items()}
    kept = replace(
        rows, values=values, pass_through=rows.pass_through.take(pa.array(good)), source_rows=rows.source_rows[good]
    )
    return kept, refused


class _TooLarge(Exception):
    """A feature is a text column that is too large to read."""


def _tables(night_row_group: NightRowGroup, spec: ReadSpec) -> Iterator[tuple[pa.Table, list[str]]]:
    """Yield the columns of a row group, whole or in pieces, and the pass-through columns that are too large to read."""
    row_group = night_row_group.row_group
    features = [night_row_group.columns[feature] for feature in spec.features]
    fs, path = resolve(row_group.uri)
    with fs.open_input_file(path) as stream:
        footer = pq.ParquetFile(stream)
        schema = footer.schema_arrow  # read anew on each access
        kinds = {name: schema.field(name).type for name in (*features, *night_row_group.pass_through)}
        at_once = _TEXT_PIECE_ROWS if any(_is_text(kinds[name]) for name in features) else PIECE_ROWS
        sizes, dictionaries = _sizes(footer, row_group.index or 0, kinds, at_once)
        if any(sizes.get(name, 0) > LARGEST_COLUMN for name in features):
            raise _TooLarge
        unread = [name for name in night_row_group.pass_through if sizes.get(name, 0) > LARGEST_COLUMN]
        columns = [*features, *(name for name in night_row_group.pass_through if name not in unread)]
        file = pq.ParquetFile(
            stream,
            metadata=footer.metadata,
            read_dictionary=dictionaries,  # else a long value would be copied for each of its rows
            coerce_int96_timestamp_unit="us",  # as nanoseconds, years after 2262 would become other years
        )
        if row_group.rows <= at_once:
            yield file.read_row_group(row_group.index, columns=columns, use_threads=False), unread
        else:
            for batch in file.iter_batches(at_once, [row_group.index], columns, use_threads=False):
                yield pa.Table.from_batches([batch]), unread


def _sizes(
    footer: pq.ParquetFile, row_group: int, kinds: Mapping[str, pa.DataType], rows: int
) -> tuple[dict[str, float], list[int]]:
    """Return the bytes of each text column in so many rows, and the numbers of the columns to read as dictionaries."""
    sizes, dictionaries = {}, []
    metadata = footer.metadata.row_group(row_group)
    share = min(1.0, rows / max(1, metadata.num_rows))
    for i in range(metadata.num_columns):
        leaf = footer.schema.column(i)
        kind = kinds.get(leaf.path)
        if kind is None:
            continue
        chunk = metadata.column(i)
        if leaf.physical_type == "BYTE_ARRAY":
            sizes[leaf.path] = chunk.total_uncompressed_size * share
            if chunk.has_dictionary_page and not pa.types.is_decimal(kind):
                dictionaries.append(i)
        elif leaf.physical_type == "FIXED_LEN_BYTE_ARRAY":
            sizes[leaf.path] = leaf.length * metadata.num_rows * share
    return sizes, dictionaries


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _checked(
    table: pa.Table,
    first_row: int,
    unread: list[str],
    night_row_group: NightRowGroup,
    spec: ReadSpec,
    identifiers: Identifiers,
) -> NightRows:
    """Return the rows of a table, converted and checked."""
    columns = {feature: table[night_row_group.columns[feature]] for feature in spec.features}
    raw = pa.table({f: pass_through.texts(c) if _is_text(c.type) else c for f, c in columns.items()}).combine_chunks()
    values, faults = to_doubles(raw, spec.features)
    warning_masks = {}
    for rule, masks in quality.check(values, spec.schema).items():
        if rule.severity == "reject":
            faults[rule.name] = masks
        else:
            warning_masks[rule.name] = np.logical_or.reduce(list(masks.values()))
    bad = any_fault(faults, len(table))
    passed, unread_times = _passed_through(table, unread, night_row_group, spec)
    rows = NightRows(
        values,
        passed,
        np.arange(first_row, first_row + len(table)),
        QUARANTINE.empty_table(),
        Counter({name: n for name, mask in warning_masks.items() if (n := int((mask & ~bad).sum()))}),
        Counter({kind: n for kind, mask in unread_times.items() if (n := int((mask & ~bad).sum()))}),
        Counter({name: n for name in unread if (n := int((~bad).sum()))}),
    )
    if not bad.any():
        return rows
    good = np.flatnonzero(~bad)
    return replace(
        rows,
        values={name: column[good] for name, column in values.items()},
        pass_through=passed.take(pa.array(good)),
        source_rows=rows.source_rows[good],
        refused=_refused(raw, faults, rows.source_rows, night_row_group.row_group.name, spec, identifiers),
    )


def _passed_through(
    table: pa.Table, unread: list[str], night_row_group: NightRowGroup, spec: ReadSpec
) -> tuple[pa.Table, dict[str, Mask]]:
    """Return the pass-through columns in the types of their contract, and by type which values are no event time."""
    columns, unread_times = {}, {}
    if night_row_group.nested_time is not None:
        unread_times[night_row_group.nested_time] = np.ones(len(table), dtype=np.bool_)
    for name in spec.pass_through:
        if name not in night_row_group.pass_through or name in unread:
            columns[name] = pa.nulls(len(table), _kind(name, spec))
        elif name == spec.event_time:
            kind = table[name].type
            columns[name], mask = pass_through.event_times(table[name])
            unread_times[str(kind.value_type if pa.types.is_dictionary(kind) else kind)] = mask
        else:
            columns[name] = pass_through.encoded_texts(table[name])
    return pa.table(columns), unread_times


def _kind(name: str, spec: ReadSpec) -> pa.DataType:
    return pass_through.TIME if name == spec.event_time else pa.string()


def _refused(
    raw: pa.Table, faults: Faults, numbers: NDArray[np.int64], file: str, spec: ReadSpec, identifiers: Identifiers
) -> pa.Table:
    """Return the rows with a fault as `tables.QUARANTINE`, few at once, because each becomes Python objects."""
    at, parts = np.flatnonzero(any_fault(faults, len(raw))), [QUARANTINE.empty_table()]
    for start in range(0, len(at), _REFUSED_AT_ONCE):
        own = at[start : start + _REFUSED_AT_ONCE]
        chosen = {reason: {f: mask[own] for f, mask in masks.items()} for reason, masks in faults.items()}
        known = {"source_file": file, "source_row": numbers[own], "split": "night", "run_id": spec.run_id}
        parts.append(refused_rows(raw.take(pa.array(own)), chosen, spec.features, known, identifiers.cell))
    return pa.concat_tables(parts)


def _refused_rest(night_row_group: NightRowGroup, done: int, spec: ReadSpec, reason: str) -> Iterator[NightRows]:
    """Yield the rows from number `done` of the row group on, all refused for one reason."""
    row_group = night_row_group.row_group
    constant: dict[str, Any] = {
        "source_file": row_group.name,
        "split": "night",
        "label": None,
        "reason": reason,
        "features": None,
        "raw": json.dumps(None),
        "run_id": spec.run_id,
    }
    nothing = pa.table({name: pa.array([], _kind(name, spec)) for name in spec.pass_through})
    for start in range(done, row_group.rows, PIECE_ROWS):
        rows = min(PIECE_ROWS, row_group.rows - start)
        numbers = pa.array(np.arange(row_group.first_row + start, row_group.first_row + start + rows))
        arrays = [numbers if f.name == "source_row" else _repeated(constant[f.name], f.type, rows) for f in QUARANTINE]
        refused = pa.Table.from_arrays(arrays, schema=QUARANTINE)
        yield NightRows({name: np.empty(0) for name in spec.features}, nothing, np.empty(0, dtype=np.int64), refused)


def _repeated(value: Any, kind: pa.DataType, times: int) -> pa.Array:
    return pa.nulls(times, kind) if value is None else pa.repeat(pa.scalar(value, kind), times)
