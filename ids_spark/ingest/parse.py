"""Raw cells to float64, and rows with a fault to quarantine; for ingest and scoring. Pure functions."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ids_spark.base.arrays import Floats, Mask
from ids_spark.base.text import shortened, valid_text
from ids_spark.dataset.tables import QUARANTINE

# A decimal number, an infinity or NaN: what Arrow's own conversion accepts.
_NUMBER: Final = r"^[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|(?i:inf|infinity|nan))$"
MISSING: Final = "missing"
NOT_A_NUMBER: Final = "not_a_number"
UNPARSABLE: Final = "unparsable"

Faults = dict[str, dict[str, Mask]]
"""Reason → feature → rows, shape (rows,). A row with several reasons is counted under the first."""


def to_doubles(table: pa.Table, features: Sequence[str]) -> tuple[dict[str, Floats], Faults]:
    """Return the features as float64 columns of shape (rows,), and the faults: values that are missing or no number.

    Text may be padded or quoted, and may be inf or nan. Bytes that are no UTF-8 are no number. A faulty value is NaN in
    its column.
    """
    faults: Faults = {reason: {} for reason in (MISSING, NOT_A_NUMBER, UNPARSABLE)}
    return {feature: _to_double(table.column(feature), feature, faults) for feature in features}, faults


def any_fault(faults: Faults, rows: int) -> Mask:
    """Return which rows have a fault, shape (rows,)."""
    bad = np.zeros(rows, dtype=np.bool_)
    for masks in faults.values():
        for mask in masks.values():
            bad |= mask
    return bad


def refused_rows(table: pa.Table, faults: Faults, features: Sequence[str], known: Mapping[str, Any]) -> pa.Table:
    """Return one quarantine row for each row with a fault: raw values, the reason, and the features at fault.

    Args:
        table: Raw rows.
        faults: Of these rows.
        features: Columns whose raw values are kept.
        known: Other columns of `tables.QUARANTINE`: one value for all rows, or an array or list with one per row.
    """
    bad = np.flatnonzero(any_fault(faults, len(table)))
    raw = _raw_values(table.select(list(features)).take(pa.array(bad))) if len(bad) else []
    rows = []
    for values, i in zip(raw, bad.tolist(), strict=True):
        where = {reason: [f for f, mask in masks.items() if mask[i]] for reason, masks in faults.items()}
        rows.append(
            {
                **{name: _of_row(value, i) for name, value in known.items()},
                "reason": next(reason for reason, found in where.items() if found),
                "features": list(dict.fromkeys(feature for found in where.values() for feature in found)),
                "raw": json.dumps(values),
            }
        )
    return pa.Table.from_pylist(rows, schema=QUARANTINE)


def _raw_values(table: pa.Table) -> list[dict[str, Any]]:
    def as_json(column: pa.ChunkedArray) -> pa.ChunkedArray:
        if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
            return column
        if pa.types.is_dictionary(column.type):  # shortened before a long text that repeats is copied
            encoded = column.unify_dictionaries().combine_chunks()
            return as_json(pa.chunked_array([encoded.dictionary])).take(encoded.indices)
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            column = column.cast(pa.string(), safe=False)  # decimals, bytes
        return shortened(valid_text(column))

    rows: list[dict[str, Any]] = pa.table({name: as_json(table[name]) for name in table.column_names}).to_pylist()
    return rows


def _of_row(value: Any, row: int) -> Any:
    if isinstance(value, np.ndarray):
        found = value[row]
        return found.item() if isinstance(found, np.generic) else found
    return value[row] if isinstance(value, list) else value


def _to_double(column: pa.ChunkedArray, feature: str, faults: Faults) -> Floats:
    def found(reason: str, where: Any) -> None:
        mask = np.asarray(where, dtype=np.bool_)
        if mask.any():
            faults[reason][feature] = mask

    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        try:
            column = pc.utf8_trim_whitespace(column)
        except pa.ArrowInvalid:
            column = pc.utf8_trim_whitespace(valid_text(column))
        absent = pc.or_kleene(pc.is_null(column), pc.equal(column, "")).fill_null(True)
        found(MISSING, absent)
        try:
            column = column.cast(pa.float64())
        except pa.ArrowInvalid:
            column = pc.replace_substring_regex(column, '^"(.*)"$', "\\1")
            absent = pc.equal(column, "").fill_null(True)
            found(MISSING, absent)
            parsable = pc.match_substring_regex(column, _NUMBER).fill_null(False)
            found(UNPARSABLE, pc.and_not(pc.invert(parsable), absent))
            column = pc.if_else(parsable, column, None).cast(pa.float64())
    else:
        if column.null_count:
            found(MISSING, pc.is_null(column))
        column = column.cast(pa.float64(), safe=False)
    doubles: Floats = column.to_numpy()
    unknown = np.isnan(doubles)
    if unknown.any():
        found(NOT_A_NUMBER, unknown & np.asarray(pc.is_valid(column)) if column.null_count else unknown)
    return doubles
