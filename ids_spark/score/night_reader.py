"""Reads and checks one row group of flow logs: columns, and refused rows with reasons. Runs in tasks."""

import json
import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ids_spark.base.arrays import Floats, Mask
from ids_spark.dataset.features import FeatureSchema
from ids_spark.dataset.tables import QUARANTINE
from ids_spark.ingest import quality
from ids_spark.ingest.parse import any_fault, refused_rows, to_doubles
from ids_spark.lake.filesystem import resolve
from ids_spark.score.night_files import NightRowGroup

log = logging.getLogger(__name__)

UNREADABLE: Final = "unreadable_row_group"
UNSCORABLE: Final = "no_finite_score"
_TIME: Final = pa.timestamp("us", tz="UTC")
_TIME_FORMAT: Final = "%Y-%m-%d %H:%M:%S"
_TIME_TEXT: Final = (  # ISO 8601, also with a blank instead of T; digits beyond microseconds are dropped
    r"^\s*(?P<day>\d{4}-\d\d-\d\d)[T ](?P<clock>\d\d:\d\d:\d\d)(?:[.,](?P<part>\d{1,6})\d*)?"
    r"\s*(?:Z|(?P<sign>[+-])(?P<hours>\d\d):?(?P<minutes>\d\d)?)?\s*$"
)


@dataclass(frozen=True)
class NightRows:
    """The rows of a row group: rows read = source_rows + refused.

    Attributes:
        values: Feature columns as doubles by official name, without NaN, of the rows that can be scored.
        pass_through: Pass-through columns of the same rows; the event time as a time, all others as text.
        source_rows: Number of each such row in its file.
        refused: As `tables.QUARANTINE`.
        warnings: Rows that can be scored but violate a rule of severity `warn`, by rule.
    """

    values: dict[str, Floats]
    pass_through: pa.Table
    source_rows: NDArray[np.int64]
    refused: pa.Table
    warnings: Counter[str] = field(default_factory=Counter)


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


def read_row_group(night_row_group: NightRowGroup, spec: ReadSpec) -> NightRows:
    """Read one row group, convert it to doubles and check it.

    A row with a missing or unparsable value, NaN, or a violated `reject` rule is refused. If a row group cannot be
    read, all of its rows are refused; the footer gives their number. Infinities are accepted: preprocessing saturates
    them.
    """
    row_group = night_row_group.row_group
    if night_row_group.reason is not None:
        return _refuse_all(night_row_group, spec, night_row_group.reason)
    try:
        fs, path = resolve(row_group.uri)
        columns = [night_row_group.columns[feature] for feature in spec.features]
        with fs.open_input_file(path) as stream:
            file = pq.ParquetFile(stream)
            table = file.read_row_group(
                row_group.index, columns=[*columns, *night_row_group.pass_through], use_threads=False
            )
    except (pa.ArrowException, OSError) as error:
        log.warning(
            "unreadable file=%s row_group=%s error=%s", row_group.uri, row_group.index, str(error).splitlines()[0]
        )
        return _refuse_all(night_row_group, spec, UNREADABLE)
    table = table.combine_chunks()
    raw = pa.table({name: table[column] for name, column in zip(spec.features, columns, strict=True)})
    pass_through = pa.table({name: _pass_through_column(table, name, spec.event_time) for name in spec.pass_through})
    source_rows = np.arange(row_group.first_row, row_group.first_row + len(table))
    values, faults = to_doubles(raw, spec.features)
    warning_masks = {}
    for rule, masks in quality.check(values, spec.schema).items():
        if rule.severity == "reject":
            faults[rule.name] = masks
        else:
            warning_masks[rule.name] = np.logical_or.reduce(list(masks.values()))
    bad = any_fault(faults, len(table))
    warnings = Counter({name: n for name, mask in warning_masks.items() if (n := int((mask & ~bad).sum()))})
    refused = QUARANTINE.empty_table()
    if bad.any():
        known = {"source_file": row_group.name, "source_row": source_rows, "split": "night", "run_id": spec.run_id}
        refused = refused_rows(raw, faults, spec.features, known)
        good = np.flatnonzero(~bad)
        values = {name: column[good] for name, column in values.items()}
        pass_through, source_rows = pass_through.take(pa.array(good)), source_rows[good]
    return NightRows(values, pass_through, source_rows, refused, warnings)


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
    known = {"source_file": file, "source_row": rows.source_rows, "split": "night", "run_id": spec.run_id}
    refused = refused_rows(pa.table(rows.values), faults, spec.features, known)
    good = np.flatnonzero(~bad)
    values = {name: column[good] for name, column in rows.values.items()}
    pass_through = rows.pass_through.take(pa.array(good))
    return NightRows(values, pass_through, rows.source_rows[good], rows.refused, rows.warnings), refused


def _pass_through_column(table: pa.Table, name: str, event_time: str) -> pa.Array | pa.ChunkedArray:
    """Return a pass-through column in its contract's type; null if the file lacks it or a value is not a time."""
    if name not in table.column_names:
        return pa.nulls(len(table), _TIME if name == event_time else pa.string())
    column = table[name]
    if name != event_time:
        return _text(column)
    if pa.types.is_timestamp(column.type):
        return column.cast(_TIME, safe=False)
    return _time_of(_text(column)) if _holds_text(column.type) else pa.nulls(len(table), _TIME)


def _holds_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _text(column: pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return a column as text; all null if it holds bytes that are not text."""
    try:
        return column if pa.types.is_string(column.type) else column.cast(pa.string())
    except pa.ArrowException as error:
        log.warning("a pass-through column is not text type=%s error=%s", column.type, str(error).splitlines()[0])
        return pa.nulls(len(column), pa.string())


def _time_of(text: pa.ChunkedArray) -> pa.Array:
    """Return the times of ISO 8601 texts, in UTC if they have no zone; null for any other text."""
    parts = pc.extract_regex(text, _TIME_TEXT)
    parts = parts.combine_chunks() if isinstance(parts, pa.ChunkedArray) else parts
    day, clock, part, sign, hours, minutes = (pc.struct_field(parts, i) for i in range(6))
    whole = pc.binary_join_element_wise(day, clock, " ")
    parsed = pc.strptime(whole, _TIME_FORMAT, "s", error_is_null=True)
    real = pc.equal(pc.strftime(parsed, _TIME_FORMAT), whole)  # else 31 February would become 3 March
    micros = pc.utf8_rpad(pc.coalesce(part, ""), 6, "0").cast(pa.int64())
    zone = pc.add(pc.multiply(_number(hours), 60), _number(minutes))
    offset = pc.multiply(pc.if_else(pc.equal(sign, "-"), pc.negate(zone), zone), 60_000_000)
    moments = pc.subtract(pc.add(pc.multiply(parsed.cast(pa.int64()), 1_000_000), micros), offset)
    return pc.if_else(real, moments, None).cast(_TIME)


def _number(digits: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(pc.utf8_length(pc.coalesce(digits, "")), 0), "0", digits).cast(pa.int64())


def _refuse_all(night_row_group: NightRowGroup, spec: ReadSpec, reason: str) -> NightRows:
    row_group = night_row_group.row_group
    numbers = np.arange(row_group.first_row, row_group.first_row + row_group.rows)
    constant: dict[str, Any] = {
        "source_file": row_group.name,
        "split": "night",
        "label": None,
        "reason": reason,
        "features": None,
        "raw": json.dumps(None),
        "run_id": spec.run_id,
    }
    arrays = [
        pa.array(numbers) if f.name == "source_row" else _repeated(constant[f.name], f.type, row_group.rows)
        for f in QUARANTINE
    ]
    nothing = {name: _empty_column(name, spec.event_time) for name in spec.pass_through}
    return NightRows(
        {name: np.empty(0) for name in spec.features},
        pa.table(nothing),
        np.empty(0, dtype=np.int64),
        pa.Table.from_arrays(arrays, schema=QUARANTINE),
    )


def _repeated(value: Any, kind: pa.DataType, times: int) -> pa.Array:
    return pa.nulls(times, kind) if value is None else pa.repeat(pa.scalar(value, kind), times)


def _empty_column(name: str, event_time: str) -> pa.Array:
    return pa.array([], _TIME if name == event_time else pa.string())
