"""One row group of flow logs to checked columns: what can be scored, what is refused and why. Runs in tasks."""

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

from ids_spark import quality
from ids_spark.lake import resolve
from ids_spark.night_sources import NightPiece
from ids_spark.row_hash import Floats
from ids_spark.schema import QUARANTINE, FeatureSchema
from ids_spark.values import any_fault, refused_rows, to_doubles

log = logging.getLogger(__name__)

UNREADABLE: Final = "unreadable_row_group"
_TIME: Final = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Rows:
    """What a row group holds: rows found = source_rows + refused.

    Attributes:
        values: Feature columns as doubles by official name, without NaN, of the rows that can be scored.
        carried: Pass-through columns of the same rows; the event time as a time, all others as text.
        source_rows: Number of each such row in its file.
        refused: As `schema.QUARANTINE`.
        warnings: Rows that break a rule that only warns, by rule.
    """

    values: dict[str, Floats]
    carried: pa.Table
    source_rows: NDArray[np.int64]
    refused: pa.Table
    warnings: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Wanted:
    """What is read of every row group.

    Attributes:
        schema: Feature schema of the models.
        features: Official names that models see; the quality rules speak of these.
        pass_through: Columns that are repeated in predictions.
        event_time: The one of them that is a time.
        run_id: Stands in the quarantine.
    """

    schema: FeatureSchema
    features: tuple[str, ...]
    pass_through: tuple[str, ...]
    event_time: str
    run_id: str


def read(night_piece: NightPiece, wanted: Wanted) -> Rows:
    """Read, type and check one row group.

    A missing or unparsable value, NaN, or a broken `reject` rule refuses a row; a row group that cannot be read refuses
    all of its rows, whose number its footer tells. Infinities are values: they saturate later.
    """
    piece = night_piece.piece
    if night_piece.reason is not None:
        return _refuse_all(night_piece, wanted, night_piece.reason)
    try:
        fs, path = resolve(piece.uri)
        columns = [night_piece.columns[feature] for feature in wanted.features]
        with fs.open_input_file(path) as stream:
            file = pq.ParquetFile(stream)
            table = file.read_row_group(piece.row_group, columns=[*columns, *night_piece.carried], use_threads=False)
    except (pa.ArrowException, OSError) as error:
        log.warning("unreadable file=%s row_group=%s error=%s", piece.uri, piece.row_group, str(error).splitlines()[0])
        return _refuse_all(night_piece, wanted, UNREADABLE)
    table = table.combine_chunks()
    raw = pa.table({name: table[column] for name, column in zip(wanted.features, columns, strict=True)})
    carried = pa.table({name: _carried(table, name, wanted.event_time) for name in wanted.pass_through})
    source_rows = np.arange(piece.first_row, piece.first_row + len(table))
    values, faults = to_doubles(raw, wanted.features)
    warned = {}
    for rule, masks in quality.check(values, wanted.schema).items():
        if rule.severity == "reject":
            faults[rule.name] = masks
        else:
            warned[rule.name] = np.logical_or.reduce(list(masks.values()))
    bad = any_fault(faults, len(table))
    warnings = Counter({name: n for name, mask in warned.items() if (n := int((mask & ~bad).sum()))})
    refused = QUARANTINE.empty_table()
    if bad.any():
        known = {"source_file": piece.name, "source_row": source_rows, "split": "night", "run_id": wanted.run_id}
        refused = refused_rows(raw, faults, wanted.features, known)
        good = np.flatnonzero(~bad)
        values = {name: column[good] for name, column in values.items()}
        carried, source_rows = carried.take(pa.array(good)), source_rows[good]
    return Rows(values, carried, source_rows, refused, warnings)


def _carried(table: pa.Table, name: str, event_time: str) -> pa.ChunkedArray:
    """Return a pass-through column in its contract's type; null where the file lacks it or a time is none."""
    if name not in table.column_names:
        return pa.nulls(len(table), _TIME if name == event_time else pa.string())
    column = table[name]
    if name != event_time:
        return column if pa.types.is_string(column.type) else column.cast(pa.string())
    if pa.types.is_timestamp(column.type):
        return column.cast(_TIME, safe=False)
    if pa.types.is_string(column.type):
        for text_format in ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"):
            whole = pc.utf8_slice_codeunits(column, 0, 19)
            parsed = pc.strptime(whole, text_format, "us", error_is_null=True)
            if parsed.null_count < len(column):
                return parsed.cast(_TIME)
    return pa.nulls(len(table), _TIME)


def _refuse_all(night_piece: NightPiece, wanted: Wanted, reason: str) -> Rows:
    piece = night_piece.piece
    numbers = np.arange(piece.first_row, piece.first_row + piece.rows)
    constant: dict[str, Any] = {
        "source_file": piece.name,
        "split": "night",
        "label": None,
        "reason": reason,
        "features": None,
        "raw": json.dumps(None),
        "run_id": wanted.run_id,
    }
    arrays = [
        pa.array(numbers) if f.name == "source_row" else _repeated(constant[f.name], f.type, piece.rows)
        for f in QUARANTINE
    ]
    nothing = {name: _nothing(name, wanted.event_time) for name in wanted.pass_through}
    return Rows(
        {name: np.empty(0) for name in wanted.features},
        pa.table(nothing),
        np.empty(0, dtype=np.int64),
        pa.Table.from_arrays(arrays, schema=QUARANTINE),
    )


def _repeated(value: Any, kind: pa.DataType, times: int) -> pa.Array:
    return pa.nulls(times, kind) if value is None else pa.repeat(pa.scalar(value, kind), times)


def _nothing(name: str, event_time: str) -> pa.Array:
    return pa.array([], _TIME if name == event_time else pa.string())
