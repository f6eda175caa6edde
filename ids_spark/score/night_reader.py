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
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ids_spark.base.arrays import Floats, Ints, Mask
from ids_spark.dataset.features import FeatureSchema
from ids_spark.dataset.tables import QUARANTINE, night_quarantine
from ids_spark.ingest import files, quality
from ids_spark.ingest.parse import Faults, any_fault, refused_rows, to_doubles
from ids_spark.lake import parquet_limits
from ids_spark.lake.filesystem import resolve
from ids_spark.lake.parquet import BUFFER_BYTES, WHOLE_ROWS
from ids_spark.lake.parquet_limits import BeyondLimits
from ids_spark.score import pass_through
from ids_spark.score.identifiers import PLAIN, Identifiers
from ids_spark.score.night_files import NightRowGroup

log = logging.getLogger(__name__)

UNREADABLE: Final = "unreadable_row_group"
TOO_LARGE: Final = "too_large_text"
UNSCORABLE: Final = "no_finite_score"
PIECE_ROWS: Final = 131_072
_TEXT_PIECE_ROWS: Final = 16_384  # if features are text, of which refused rows keep up to 512 characters each
_REFUSED_AT_ONCE: Final = 8_192  # rows of which raw values are text at one time
LARGEST_COLUMN: Final = 256 << 20  # bytes of one text column in a piece


@dataclass(frozen=True)
class Refused:
    """Rows that are refused. Those of which one feature alone is at fault can be scored without it.

    Attributes:
        rows: As `tables.night_quarantine`, without `scored`.
        single: Place in `rows` of each row of which one feature alone is at fault, ascending.
        feature: Index in `ReadSpec.features` of that feature, of the same shape.
        values: Features of the rows `single`, by name; that feature is NaN or a value that the model cannot use.
        unread: Whether the rows could not be read at all, not even their identifiers.
    """

    rows: pa.Table
    single: Ints
    feature: Ints
    values: dict[str, Floats]
    unread: bool = False

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class NightRows:
    """The rows of a row group, or of a piece of it: rows read = source_rows + refused.

    Attributes:
        values: Feature columns as doubles by official name, without NaN, of the rows that can be scored.
        pass_through: Pass-through columns of the same rows; the event time as a time, all others as text, encoded as a
            dictionary where the file has one.
        source_rows: Number of each such row in its file.
        refused: All other rows.
        warnings: Rows that can be scored but violate a rule of severity `warn`, by rule.
        unread_times: Rows that can be scored and have a value that is no event time, by the type of the column.
        unread_columns: Rows that can be scored whose value is null because the column is too large, by its name.
    """

    values: dict[str, Floats]
    pass_through: pa.Table
    source_rows: NDArray[np.int64]
    refused: Refused
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

    @property
    def quarantine(self) -> pa.Schema:
        """Columns of refused rows: as `tables.night_quarantine`, without `scored`."""
        contract = night_quarantine(self.pass_through, self.event_time)
        return pa.schema([field for field in contract if field.name != "scored"])

    @property
    def nothing_refused(self) -> Refused:
        """No row."""
        none = np.empty(0, dtype=np.int64)
        return Refused(self.quarantine.empty_table(), none, none, {name: np.empty(0) for name in self.features})


def read_row_group(
    night_row_group: NightRowGroup, spec: ReadSpec, identifiers: Identifiers = PLAIN
) -> Iterator[NightRows]:
    """Read one row group, convert it to doubles and check it; yields one piece, or several of a large row group.

    A row with a missing or unparsable value, NaN, an infinity in a feature that is no rate, or a violated `reject` rule
    is refused. If a row group, or the rest of it, cannot be read, these rows are refused; the footer gives their
    number. Their identifiers are read if these columns can be. Infinite rates are accepted: preprocessing saturates
    them. A pass-through column that is too large is null and counted.

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
    except BeyondLimits as error:
        reason = error.reason
        log.warning("refused file=%s row_group=%s error=%s", row_group.name, row_group.index, identifiers.error(error))
    except files.UNREADABLE as error:
        reason = UNREADABLE
        shown = identifiers.error(error)
        log.warning("unreadable file=%s row_group=%s error=%s", row_group.name, row_group.index, shown)
    yield from _refused_rest(night_row_group, done, spec, reason, identifiers)


def without_unscorable(
    rows: NightRows, bad: Mask, columns: NDArray[np.int64], file: str, spec: ReadSpec
) -> tuple[NightRows, Refused]:
    """Separate rows without a finite score from the others.

    Args:
        rows: Of one row group.
        bad: Rows without a finite score, shape (rows,).
        columns: Index in `spec.features` of the feature that caused it, for each row, shape (rows,).
        file: Name of the file.
        spec: Its features.

    Returns:
        The other rows, and the refused ones.
    """
    faults = {UNSCORABLE: {spec.features[i]: bad & (columns == i) for i in np.unique(columns[bad]).tolist()}}
    refused = _refused(pa.table(rows.values), faults, rows, file, spec, PLAIN)  # numbers only
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
        footer = parquet_limits.opened(stream)
        schema = footer.schema_arrow  # read anew on each access
        stored = (name for name in night_row_group.pass_through if name not in night_row_group.in_path)
        passed = {night_row_group.spelled.get(name, name): name for name in stored}
        kinds = {name: schema.field(name).type for name in (*features, *passed)}
        at_once = _TEXT_PIECE_ROWS if any(_is_text(kinds[name]) for name in features) else PIECE_ROWS
        sizes, dictionaries = _sizes(footer, row_group.index or 0, kinds, at_once)
        if any(sizes.get(name, 0) > LARGEST_COLUMN for name in features):
            raise _TooLarge
        unread = [name for stored, name in passed.items() if sizes.get(stored, 0) > LARGEST_COLUMN]
        columns = [*features, *(stored for stored, name in passed.items() if name not in unread)]
        parquet_limits.check_pages(
            stream, footer.metadata, row_group.index or 0, frozenset(columns), parquet_limits.is_local(fs)
        )
        file = pq.ParquetFile(
            stream,
            metadata=footer.metadata,
            read_dictionary=dictionaries,  # else a long value would be copied for each of its rows
            coerce_int96_timestamp_unit="us",  # as nanoseconds, years after 2262 would become other years
            buffer_size=BUFFER_BYTES if row_group.rows > WHOLE_ROWS else 0,
        )
        if row_group.rows <= at_once:
            yield _named(file.read_row_group(row_group.index, columns=columns, use_threads=False), passed), unread
        else:
            for batch in file.iter_batches(at_once, [row_group.index], columns, use_threads=False):
                yield _named(pa.Table.from_batches([batch]), passed), unread


def _named(table: pa.Table, names: Mapping[str, str]) -> pa.Table:
    """Return a table with some columns under other names."""
    return table.rename_columns([names.get(name, name) for name in table.column_names])


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
    for rule, masks in quality.check(values, spec.schema, finite=True).items():
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
        spec.nothing_refused,
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
        refused=_refused(raw, faults, rows, night_row_group.row_group.name, spec, identifiers),
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
            continue
        in_path = night_row_group.in_path
        column = _repeated(in_path[name], pa.string(), len(table)) if name in in_path else table[name]
        if name == spec.event_time:
            kind = column.type
            columns[name], mask = pass_through.event_times(column)
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            unread_times[pass_through.type_name(kind)] = mask
        else:
            columns[name] = pass_through.encoded_texts(column)
    return pa.table(columns), unread_times


def _kind(name: str, spec: ReadSpec) -> pa.DataType:
    return pass_through.TIME if name == spec.event_time else pa.string()


def _refused(
    raw: pa.Table, faults: Faults, rows: NightRows, file: str, spec: ReadSpec, identifiers: Identifiers
) -> Refused:
    """Return the rows with a fault, few at once, because their raw values become text.

    Args:
        raw: Features as the file has them.
        faults: Of these rows.
        rows: The same rows, before any is left out.
        file: Name of the file.
        spec: Columns to read.
        identifiers: Replaces cells that are no number.
    """
    at, parts = np.flatnonzero(any_fault(faults, len(raw))), [QUARANTINE.empty_table()]
    for start in range(0, len(at), _REFUSED_AT_ONCE):
        own = at[start : start + _REFUSED_AT_ONCE]
        chosen = {reason: {f: mask[own] for f, mask in masks.items()} for reason, masks in faults.items()}
        known = {"source_file": file, "source_row": rows.source_rows[own], "split": "night", "run_id": spec.run_id}
        parts.append(refused_rows(raw.take(pa.array(own)), chosen, spec.features, known, identifiers.cell))
    table = pa.concat_tables(parts)
    single = np.flatnonzero(np.asarray(pc.list_value_length(table["features"])) == 1)
    first = pc.list_element(table["features"].take(pa.array(single)), 0)
    feature = pc.index_in(first, value_set=pa.array(spec.features, pa.string())).cast(pa.int64()).to_numpy()
    values = {name: column[at[single]] for name, column in rows.values.items()}
    return Refused(_with_identifiers(table, rows.pass_through.take(pa.array(at)), spec), single, feature, values)


def _with_identifiers(table: pa.Table, passed: pa.Table, spec: ReadSpec) -> pa.Table:
    """Return rows as `QUARANTINE` with their pass-through columns."""
    columns = [(table if f.name in table.column_names else passed)[f.name] for f in spec.quarantine]
    return pa.table([c.cast(f.type) for c, f in zip(columns, spec.quarantine, strict=True)], schema=spec.quarantine)


def _refused_rest(
    night_row_group: NightRowGroup, done: int, spec: ReadSpec, reason: str, identifiers: Identifiers
) -> Iterator[NightRows]:
    """Yield the rows from number `done` of the row group on, all refused for one reason."""
    row_group = night_row_group.row_group
    try:
        for passed in _identifiers(night_row_group, done, spec):
            yield _refused_whole(row_group.name, row_group.first_row + done, passed, spec, reason)
            done += len(passed)
    except (*files.UNREADABLE, KeyError) as error:
        shown = identifiers.error(error)
        log.warning("unreadable identifiers file=%s row_group=%s error=%s", row_group.name, row_group.index, shown)
    for start in range(done, row_group.rows, PIECE_ROWS):
        rows = min(PIECE_ROWS, row_group.rows - start)
        nulls = pa.table({name: pa.nulls(rows, _kind(name, spec)) for name in spec.pass_through})
        yield _refused_whole(row_group.name, row_group.first_row + start, nulls, spec, reason, rows)


def _identifiers(night_row_group: NightRowGroup, done: int, spec: ReadSpec) -> Iterator[pa.Table]:
    """Yield the pass-through columns of the rows from number `done` of a row group on; none if its file has none.

    Raises:
        One of `files.UNREADABLE`, or KeyError: they cannot be read.
    """
    if not night_row_group.pass_through or not spec.pass_through:
        return
    left, start = night_row_group.row_group.rows, 0
    for read, unread in _tables(night_row_group, replace(spec, features=())):
        table = read.slice(0, left)
        left -= len(table)
        if start + len(table) > done:
            yield _passed_through(table.slice(max(0, done - start)), unread, night_row_group, spec)[0]
        start += len(table)


def _refused_whole(
    file: str, first_row: int, passed: pa.Table, spec: ReadSpec, reason: str, unread: int = 0
) -> NightRows:
    """Return rows that are all refused for one reason.

    Args:
        file: Name of the file.
        first_row: Number of the first row.
        passed: Pass-through columns.
        spec: Columns to read.
        reason: The reason.
        unread: Number of rows if their identifiers could not be read either.
    """
    rows = unread or len(passed)
    constant: dict[str, Any] = {
        "source_file": file,
        "split": "night",
        "reason": reason,
        "raw": json.dumps(None),
        "run_id": spec.run_id,
    }
    numbers = pa.array(np.arange(first_row, first_row + rows))
    arrays = [numbers if f.name == "source_row" else _repeated(constant.get(f.name), f.type, rows) for f in QUARANTINE]
    table = _with_identifiers(pa.Table.from_arrays(arrays, schema=QUARANTINE), passed, spec)
    nothing = pa.table({name: pa.array([], _kind(name, spec)) for name in spec.pass_through})
    none = spec.nothing_refused
    return NightRows(none.values, nothing, none.single, replace(none, rows=table, unread=bool(unread)))


def _repeated(value: Any, kind: pa.DataType, times: int) -> pa.Array:
    return pa.nulls(times, kind) if value is None else pa.repeat(pa.scalar(value, kind), times)
