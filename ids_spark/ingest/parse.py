"""Raw cells to float64, and rows with a fault to quarantine; for ingest and scoring. Pure functions."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ids_spark.base.arrays import Floats, Ints, Mask
from ids_spark.base.text import shortened, valid_text
from ids_spark.dataset.tables import QUARANTINE

# A decimal number, an infinity or NaN: what Arrow's own conversion accepts.
_NUMBER: Final = r"^[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|(?i:inf|infinity|nan))$"
MISSING: Final = "missing"
NOT_A_NUMBER: Final = "not_a_number"
UNPARSABLE: Final = "unparsable"
_NOT_FINITE: Final = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}  # in Arrow's text, and in JSON of Python

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


def refused_rows(
    table: pa.Table,
    faults: Faults,
    features: Sequence[str],
    known: Mapping[str, Any],
    cell: Callable[[str], str] | None = None,
) -> pa.Table:
    """Return one quarantine row for each row with a fault: raw values, the reason, and the features at fault.

    Args:
        table: Raw rows.
        faults: Of these rows.
        features: Columns whose raw values are kept.
        known: Other columns of `tables.QUARANTINE`: one value for all rows, or an array or list with one per row.
        cell: Returns what is stored of a text that is no number; default: the text.
    """
    bad = np.flatnonzero(any_fault(faults, len(table)))
    if not len(bad):
        return QUARANTINE.empty_table()
    columns = {name: _of_rows(value, bad, QUARANTINE.field(name).type) for name, value in known.items()}
    columns["reason"] = _first_reasons(faults, bad)
    columns["features"] = _features_at_fault(faults, bad)
    columns["raw"] = _as_json(table.select(list(features)).take(pa.array(bad)), cell)
    return pa.table([columns.get(f.name, pa.nulls(len(bad), f.type)) for f in QUARANTINE], schema=QUARANTINE)


def _of_rows(value: Any, bad: Ints, kind: pa.DataType) -> pa.Array:
    if isinstance(value, np.ndarray):
        return pa.array(value[bad].tolist(), kind)
    if isinstance(value, list):
        return pa.array([value[i] for i in bad.tolist()], kind)
    return pa.nulls(len(bad), kind) if value is None else pa.repeat(pa.scalar(value, kind), len(bad))


def _first_reasons(faults: Faults, bad: Ints) -> pa.Array:
    codes = np.zeros(len(bad), dtype=np.int32)
    for code, masks in reversed(list(enumerate(faults.values()))):
        for mask in masks.values():
            codes[mask[bad]] = code
    return pa.array(list(faults), pa.string()).take(pa.array(codes))


def _features_at_fault(faults: Faults, bad: Ints) -> pa.Array:
    """Return the features at fault of each bad row, those of the first reason first, each once."""
    names: list[str] = []
    flags: list[Mask] = []
    for masks in faults.values():
        for feature, mask in masks.items():
            fresh = mask[bad]
            for name, earlier in zip(names, flags, strict=True):
                if name == feature:
                    fresh = fresh & ~earlier
            names.append(feature)
            flags.append(fresh)
    of_row = np.column_stack(flags)
    offsets = np.append(0, np.cumsum(of_row.sum(axis=1))).astype(np.int32)
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(names, pa.string()).take(pa.array(np.nonzero(of_row)[1]))
    )


def _as_json(table: pa.Table, cell: Callable[[str], str] | None) -> pa.Array:
    """Return each row as a JSON object, without a Python object for each cell that is a number."""
    parts: list[Any] = []
    for i, name in enumerate(table.column_names):
        parts += [f"{', ' if i else '{'}{json.dumps(name)}: ", _json_values(table[name], cell).combine_chunks()]
    joined = pc.binary_join_element_wise(*parts, "}" if parts else "{}", "")
    return joined if parts else pa.repeat(joined, len(table))


def _json_values(column: pa.ChunkedArray, cell: Callable[[str], str] | None) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        texts = (column.cast(pa.float32()) if pa.types.is_float16(kind) else column).cast(pa.string())
        if pa.types.is_floating(kind) and not pc.all(pc.is_finite(column)).as_py():
            at = pc.index_in(texts, value_set=pa.array(list(_NOT_FINITE)))
            texts = pc.coalesce(pa.chunked_array([pa.array(list(_NOT_FINITE.values()))]).take(at), texts)
        return pc.fill_null(texts, "null")
    if pa.types.is_dictionary(kind):  # shortened before a long text that repeats is copied
        encoded = column.unify_dictionaries().combine_chunks()
        return pc.fill_null(_json_values(pa.chunked_array([encoded.dictionary]), cell).take(encoded.indices), "null")
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        column = column.cast(pa.string(), safe=False)  # decimals, bytes
    encoded = shortened(valid_text(column)).combine_chunks().dictionary_encode()
    texts = [json.dumps(_stored(text, cell)) for text in encoded.dictionary.to_pylist()]
    return pc.fill_null(pa.chunked_array([pa.array(texts, pa.string())]).take(encoded.indices), "null")


def _stored(text: str | None, cell: Callable[[str], str] | None) -> str | None:
    is_number = text is None or re.match(_NUMBER, text.strip().strip('"')) is not None
    return text if cell is None or text is None or is_number else cell(text)


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
