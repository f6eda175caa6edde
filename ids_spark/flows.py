"""Row hygiene: raw rows become typed, labelled, keyed flows, or go to quarantine with a reason.

Pure functions on Arrow tables; no session, no lake.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ids_spark import row_hash, taxonomy
from ids_spark.lake import resolve
from ids_spark.row_hash import Floats
from ids_spark.schema import QUARANTINE, FeatureSchema, flows_contract
from ids_spark.sources import HEADER_BYTES, LABEL, Piece, SourceUnusable, csv_header

_CSV_BLOCK_BYTES: Final = 8 << 20
# A decimal number, an infinity or NaN: what Arrow's own conversion accepts.
_NUMBER: Final = r"^[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|(?i:inf|infinity|nan))$"
MISSING: Final = "missing"
NOT_A_NUMBER: Final = "not_a_number"
UNPARSABLE: Final = "unparsable"
WRONG_FIELD_COUNT: Final = "wrong_field_count"
SPLITS: Final = ("train", "test")  # of a source; validation is cut from train later
_REASONS: Final = (MISSING, NOT_A_NUMBER, UNPARSABLE)  # a row with several takes the first

Mask = NDArray[np.bool_]
Faults = dict[str, dict[str, Mask]]  # reason → feature → rows


@dataclass(frozen=True)
class Typed:
    """What became of some rows of a source: `rows_read` = rows of `flows` + rows of `quarantine`.

    Attributes:
        flows: As `typed_contract`.
        quarantine: As `schema.QUARANTINE`, run_id null.
    """

    rows_read: int
    flows: pa.Table
    quarantine: pa.Table


def typed_contract(schema: FeatureSchema) -> pa.Schema:
    """Return what a typed row knows of itself: a flow without the marks that need its equals, plus its split."""
    own = [field for field in flows_contract(schema) if field.name not in ("duplicate", "two_label")]
    return pa.schema([*own, pa.field("split", pa.string())])


def read_piece(piece: Piece, schema: FeatureSchema) -> Iterator[Typed]:
    """Read one piece in batches of bounded size and type its rows.

    Raises:
        SourceUnusable: when the file is broken behind its header or footer.
        taxonomy.UnknownClass: when a label names no class.
    """
    try:
        if piece.row_group is None:
            yield from _read_csv(piece, schema)
        else:
            fs, path = resolve(piece.uri)
            with fs.open_input_file(path) as stream:
                file = pq.ParquetFile(stream)
                wanted = [name for name in (*schema.features, LABEL) if name in file.schema_arrow.names]
                table = file.read_row_group(piece.row_group, columns=wanted, use_threads=False)
            yield type_rows(table, piece, schema, np.arange(piece.first_row, piece.first_row + len(table)))
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise SourceUnusable(f"{piece.uri}: its content cannot be read ({reason}); fetch the file again") from error


def type_rows(table: pa.Table, piece: Piece, schema: FeatureSchema, source_rows: NDArray[np.int64]) -> Typed:
    """Type, label and key the rows of a raw table.

    Args:
        table: Feature columns as text or numbers, and `label` where the piece names no class.
        piece: Where the rows come from.
        schema: Feature schema of the source.
        source_rows: Row number in the file, shape (rows,).

    Numbers may be infinite. Null, empty text, NaN and text that is no number send the row to quarantine.
    """
    values, faults = to_doubles(table, schema.features)
    bad = any_fault(faults, len(table))
    labels, class_ids, splits = _labels(table, piece)
    rejected = QUARANTINE.empty_table()
    good = np.flatnonzero(~bad)
    if len(good) < len(table):
        names = [SPLITS[i] for i in splits]
        rejected = refused_rows(table, piece.name, schema.features, source_rows, labels, names, faults)
        values = {feature: column[good] for feature, column in values.items()}
        class_ids, splits, source_rows = class_ids[good], splits[good], source_rows[good]
    columns: list[Any] = [
        pa.array([piece.name]).take(pa.array(np.zeros(len(good), dtype=np.int32))),
        pa.array(source_rows),
        pa.array(row_hash.row_keys(list(values.values()))),
        *(pa.array(column) for column in values.values()),
    ]
    for level in (19, 6, 2):
        classes = pa.array([taxonomy.CLASSES[level][i] for i in taxonomy.parents(19, level)])
        columns.append(classes.take(pa.array(class_ids)))
    columns += [pa.array(class_ids), pa.array(SPLITS).take(pa.array(splits))]
    return Typed(len(table), pa.Table.from_arrays(columns, schema=typed_contract(schema)), rejected)


def to_doubles(table: pa.Table, features: Sequence[str]) -> tuple[dict[str, Floats], Faults]:
    """Return the features as double columns of shape (rows,), and where a value is missing or no number.

    A faulty value is NaN in its column.
    """
    faults: Faults = {reason: {} for reason in _REASONS}
    return {feature: _to_double(table.column(feature), feature, faults) for feature in features}, faults


def any_fault(faults: Faults, rows: int) -> Mask:
    """Return which rows have a fault, shape (rows,)."""
    bad = np.zeros(rows, dtype=np.bool_)
    for masks in faults.values():
        for mask in masks.values():
            bad |= mask
    return bad


def _to_double(column: pa.ChunkedArray, feature: str, faults: Faults) -> Floats:
    def found(reason: str, where: Any) -> None:
        mask = np.asarray(where, dtype=np.bool_)
        if mask.any():
            faults[reason][feature] = mask

    if pa.types.is_string(column.type):
        column = pc.utf8_trim_whitespace(column)
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
    if column.null_count:
        known = np.asarray(pc.is_valid(column))
        found(NOT_A_NUMBER, np.isnan(doubles) & known)
    else:
        found(NOT_A_NUMBER, np.isnan(doubles))
    return doubles


def _labels(table: pa.Table, piece: Piece) -> tuple[Sequence[str], NDArray[np.int32], NDArray[np.int32]]:
    """Return the label, the class id, and the split (index into `SPLITS`) of each row."""
    if piece.class19 is not None:
        class_id = taxonomy.CLASS19.index(piece.class19)
        split = SPLITS.index(str(piece.split))
        return (
            [piece.class19] * len(table),
            np.full(len(table), class_id, np.int32),
            np.full(len(table), split, np.int32),
        )
    encoded = table.column(LABEL).combine_chunks().dictionary_encode()
    names = [str(name).strip('" ') for name in encoded.dictionary.to_pylist()]
    if encoded.null_count:
        raise SourceUnusable(
            f"{piece.name}: {encoded.null_count} rows have no label; expected a capture file name in each"
        )
    index = encoded.indices.to_numpy()
    class_of = np.array([taxonomy.CLASS19.index(taxonomy.class19_of(n)) for n in names], dtype=np.int32)
    split_of = [taxonomy.split_of(n) or piece.split for n in names]
    if None in split_of:
        raise SourceUnusable(
            f"{piece.name}: label {names[split_of.index(None)]!r} does not end in _train or _test and the file"
            " stands in no folder train or test; add one of the two"
        )
    test = np.array([s == "test" for s in split_of], dtype=np.int32)
    return [names[i] for i in index], class_of[index], test[index]


def refused_rows(
    table: pa.Table,
    source_file: str,
    features: Sequence[str],
    source_rows: NDArray[np.int64],
    labels: Sequence[str | None],
    splits: Sequence[str | None],
    faults: Faults,
) -> pa.Table:
    """Return one quarantine row for each row with a fault: raw values, the reason, and the features at fault.

    Args:
        table: Raw rows.
        source_file: Where they come from.
        features: Columns whose raw values are kept.
        source_rows: Row numbers in the file, shape (rows,).
        labels: Of each row.
        splits: Of each row.
        faults: From `to_doubles`.
    """
    bad = np.flatnonzero(any_fault(faults, len(table)))
    raw = table.select(list(features)).take(pa.array(bad)).to_pylist() if len(bad) else []
    rows = []
    for values, i in zip(raw, bad.tolist(), strict=True):
        where = {reason: [f for f, mask in masks.items() if mask[i]] for reason, masks in faults.items()}
        rows.append(
            {
                "source_file": source_file,
                "source_row": int(source_rows[i]),
                "split": splits[i],
                "label": labels[i],
                "reason": next(reason for reason in _REASONS if where[reason]),
                "features": [feature for features in where.values() for feature in features],
                "raw": json.dumps(values),
                "run_id": None,
            }
        )
    return pa.Table.from_pylist(rows, schema=QUARANTINE)


def _read_csv(piece: Piece, schema: FeatureSchema) -> Iterator[Typed]:
    broken: list[tuple[int, str]] = []  # (row number, text) of lines with too few or too many fields

    def note(row: Any) -> str:
        broken.append((int(row.number) - 2, str(row.text)))  # line numbers start at 1 and count the header
        return "skip"

    names = [*schema.features, *([LABEL] if piece.class19 is None else [])]
    fs, path = resolve(piece.uri)
    with fs.open_input_stream(path) as stream:
        header = csv_header(stream.read(HEADER_BYTES))
    with fs.open_input_stream(path) as stream:
        reader = pacsv.open_csv(
            stream,
            read_options=pacsv.ReadOptions(
                use_threads=False, block_size=_CSV_BLOCK_BYTES, column_names=header, skip_rows=1
            ),
            # A flow log has no quoted line breaks, but a stray quote would swallow lines up to the next one.
            parse_options=pacsv.ParseOptions(invalid_row_handler=note, quote_char=False),
            convert_options=pacsv.ConvertOptions(
                column_types={name: pa.string() for name in names}, include_columns=names, strings_can_be_null=False
            ),
        )
        next_row = reported = 0
        rows: NDArray[np.int64]
        for batch in reader:
            # The handler has run for every line up to this batch, and perhaps for later ones.
            skipped = np.array([number for number, _ in broken], dtype=np.int64)
            rows = np.setdiff1d(np.arange(next_row, next_row + len(batch) + len(skipped)), skipped)[: len(batch)]
            next_row = int(rows[-1]) + 1 if len(rows) else next_row
            yield type_rows(pa.Table.from_batches([batch]), piece, schema, rows)
            if len(broken) > reported:
                yield _broken_lines(broken[reported:], piece, schema)
                reported = len(broken)
        if len(broken) > reported:
            yield _broken_lines(broken[reported:], piece, schema)


def _broken_lines(lines: Sequence[tuple[int, str]], piece: Piece, schema: FeatureSchema) -> Typed:
    rows: list[dict[str, Any]] = [
        {
            "source_file": piece.name,
            "source_row": number,
            "split": piece.split,
            "label": piece.class19,
            "reason": WRONG_FIELD_COUNT,
            "features": [],
            "raw": text,
            "run_id": None,
        }
        for number, text in lines
    ]
    return Typed(len(rows), typed_contract(schema).empty_table(), pa.Table.from_pylist(rows, schema=QUARANTINE))
