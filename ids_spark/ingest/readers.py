"""Raw files to typed rows, by row group or range of bytes, in batches of bounded size."""

import contextlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from ids_spark.base.spark_tasks import run_each
from ids_spark.base.text import one_line
from ids_spark.dataset.features import FeatureSchema
from ids_spark.dataset.tables import QUARANTINE
from ids_spark.ingest import files
from ids_spark.ingest.rows import LABEL, TypedRows, type_rows, typed_contract
from ids_spark.ingest.sources import (
    HEADER_BYTES,
    RowGroup,
    SourceUnusable,
    bin_pack,
    csv_header,
    csv_stream,
)
from ids_spark.lake.filesystem import resolve
from ids_spark.lake.parquet import open_part
from ids_spark.lake.parquet_limits import BeyondLimits, check_row_group

if TYPE_CHECKING:
    from pyspark import SparkContext

_CSV_BLOCK_BYTES: Final = 8 << 20
_PARSED_BYTES: Final = 1 << 20  # at once: columns of these stay in the cache
_SEARCHED_BYTES: Final = 1 << 16
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
WRONG_FIELD_COUNT: Final = "wrong_field_count"
_NOT_UTF8: Final = "\N{REPLACEMENT CHARACTER}".encode()
_LINE_END: Final = re.compile(rb"([\r\n])")


def read_typed(row_group: RowGroup, schema: FeatureSchema) -> Iterator[TypedRows]:
    """Read one row group in batches of bounded size and type its rows.

    Raises:
        SourceUnusable: the content of the file is broken, although its header or footer is valid.
    """
    with _errors_named(row_group):
        if row_group.index is None:
            yield from _read_csv(row_group, schema)
        else:
            yield from _read_parquet(row_group, schema)


@contextlib.contextmanager
def _errors_named(row_group: RowGroup) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, MemoryError, BeyondLimits) as error:
        raise SourceUnusable(
            f"{row_group.uri}: its content cannot be read ({one_line(error)}); fetch the file again"
        ) from error


def _read_parquet(row_group: RowGroup, schema: FeatureSchema) -> Iterator[TypedRows]:
    stored = row_group.columns or schema.features
    names = [*stored, *([row_group.label] if row_group.label else [])]
    first = row_group.first_row
    check_row_group(row_group.uri, row_group.index or 0, names)
    with open_part(row_group.uri, [row_group.label] if row_group.label else ()) as file:
        for table in _within(file.pieces(names, row_group.index or 0), row_group):
            numbers = np.arange(first, first + len(table))
            first += len(table)
            yield type_rows(_renamed(table, row_group, schema), row_group, schema, numbers)
    if first - row_group.first_row != row_group.rows:
        raise SourceUnusable(
            f"{row_group.uri}: found {first - row_group.first_row} rows in row group {row_group.index}, its footer"
            f" states {row_group.rows}; fetch the file again"
        )


def _within(pieces: Iterator[pa.Table], row_group: RowGroup) -> Iterator[pa.Table]:
    """Yield those rows of the pieces of a whole row group that are in its part."""
    if row_group.end is None:
        yield from pieces
        return
    at = 0
    for piece in pieces:
        own = piece.slice(max(0, row_group.start - at), max(0, row_group.end - max(at, row_group.start)))
        at += len(piece)
        if len(own):
            yield own
        if at >= row_group.end:
            return


def _renamed(table: pa.Table, row_group: RowGroup, schema: FeatureSchema) -> pa.Table:
    """Return the features of a table under their official names, and its labels as `LABEL`."""
    stored = row_group.columns or schema.features
    columns = {feature: table[name] for feature, name in zip(schema.features, stored, strict=True)}
    return pa.table(columns | ({LABEL: table[row_group.label]} if row_group.label else {}))


class _Range:
    """Some bytes of a file as a stream.

    Args:
        stream: The file.
        start: First byte.
        end: Where it ends; None: with the file.
    """

    def __init__(self, stream: pa.NativeFile, start: int, end: int | None) -> None:
        if end is not None:
            stream.seek(start)
        self._stream = stream
        self._at, self._end = start, end

    def read(self, size: int) -> bytes:
        block = bytes(self._stream.read(size if self._end is None else min(size, self._end - self._at)))
        self._at += len(block)
        return block


class CleanLines:
    """The lines of CSV in blocks, in which one bad line cannot stop the reader.

    Bytes that are no UTF-8 are replaced by U+FFFD, and lines of more than `files.LONGEST_LINE` bytes are cut and end
    with U+FFFD. So the cell is no number and no label, and its row, under its number in the file, goes to quarantine.
    Every other byte is unchanged; a last line without an end gets one. Lines end with a newline, a carriage return or
    both, as for the parser, also in one file: parts of it may come from several systems.

    Args:
        stream: The bytes, decompressed.
    """

    def __init__(self, stream: _Range) -> None:
        self._stream = stream
        self._rest = b""  # of a line whose end was not read yet
        self._cutting = False  # whether the rest of a cut line is to be dropped

    def __iter__(self) -> Iterator[bytes]:
        """Yield about `_CSV_BLOCK_BYTES` of whole lines; an end of two bytes may be divided, as by a blank line."""
        while block := self._stream.read(_CSV_BLOCK_BYTES):
            if lines := self._whole_lines(block):
                yield self._clean(lines)
        if self._rest:  # the parser cannot skip a header that is the only line and has no end
            yield self._clean(self._rest) + b"\n"

    def _whole_lines(self, block: bytes) -> bytes:
        if self._cutting:
            end = _first_end(block)
            if end < 0:
                return b""
            block, self._cutting = block[end:], False
        block = self._rest + block
        end = _last_end(block) + 1
        self._rest = block[end:]
        if len(self._rest) > files.LONGEST_LINE:
            block, self._rest, self._cutting = block[:end] + _cut(self._rest), b"", True
            return block
        return block[:end]

    def _clean(self, lines: bytes) -> bytes:
        if self._has_long_line(lines):
            lines = b"".join(_cut(line) if len(line) > files.LONGEST_LINE else line for line in _LINE_END.split(lines))
        if lines.isascii():
            return lines
        return lines.decode(errors="replace").encode()

    def _has_long_line(self, lines: bytes) -> bool:
        at, last = 0, len(lines)
        while last - at > files.LONGEST_LINE:
            end = lines.rfind(b"\n", at, at + files.LONGEST_LINE + 1)
            if end < 0:
                end = lines.rfind(b"\r", at, at + files.LONGEST_LINE + 1)
            if end < 0:
                return True
            at = end + 1
        return False


def _first_end(content: bytes) -> int:
    """Return the place of the first end of a line; -1 without one."""
    return min((place for place in (content.find(b"\n"), content.find(b"\r")) if place >= 0), default=-1)


def _last_end(content: bytes) -> int:
    """Return the place of the last byte of the last end of a line; -1 without one."""
    newline = content.rfind(b"\n")
    return max(newline, content.rfind(b"\r", newline + 1))


def _cut(line: bytes) -> bytes:
    return line[: files.LONGEST_LINE - len(_NOT_UTF8)] + _NOT_UTF8


def numbered(spark_context: "SparkContext", row_groups: Sequence[RowGroup]) -> list[RowGroup]:
    """Return row groups for `read_typed`; the lines of ranges of CSV files are counted by tasks.

    Raises:
        SourceUnusable: a file cannot be read.
    """
    ranges = [row_group for row_group in row_groups if row_group.index is None and row_group.end is not None]
    if not ranges:
        return list(row_groups)
    packed = bin_pack(ranges, 2 * spark_context.defaultParallelism)
    counts = run_each(spark_context, packed, lambda own: [counted(each) for each in own])
    others = [row_group for row_group in row_groups if row_group.index is not None or row_group.end is None]
    return [*others, *consecutive(list(itertools.chain.from_iterable(counts)))]


def consecutive(ranges: Sequence[RowGroup]) -> list[RowGroup]:
    """Return all ranges of some files, from `counted`, with the number of their first row; without those of no row."""
    found, rows = [], Counter[str]()
    for each in sorted(ranges, key=lambda each: (each.name, each.start)):
        if each.rows:
            found.append(replace(each, first_row=rows[each.name]))
            rows[each.name] += each.rows
    return found


def counted(row_group: RowGroup) -> RowGroup:
    """Return a range from the first line that begins in it to the end of the last one, with the number of its rows.

    Raises:
        SourceUnusable: the file cannot be read.
    """
    with _errors_named(row_group), _opened(row_group) as stream:
        end = row_group.end or 0
        start = row_group.start and _after_line(stream, row_group.start - 1, end - 1)
        if start is None:  # the range is the middle of a long line
            return replace(row_group, rows=0)
        # What is beyond these bytes, the reader cuts off.
        beyond = end + files.LONGEST_LINE
        last = _after_line(stream, end - 1, beyond) or min(stream.size(), beyond)
        rows = sum(_rows_in(lines) for lines in CleanLines(_Range(stream, start, last)))
        return replace(row_group, start=start, end=last, rows=rows - (start == 0))  # the first line is the header


def _after_line(stream: pa.NativeFile, start: int, end: int) -> int | None:
    """Return the place after the first end of a line in a range of bytes; None without one."""
    span, at = _Range(stream, start, end), start
    while block := span.read(_SEARCHED_BYTES):
        found = _first_end(block)
        if found >= 0:
            return at + found + 1
        at += len(block)
    return None


def _rows_in(lines: bytes) -> int:
    """Return the number of lines that are not blank, as the parser counts them."""
    return sum(map(bool, lines.splitlines()))


def _opened(row_group: RowGroup) -> pa.NativeFile:
    if row_group.end is None:
        return csv_stream(row_group.uri, row_group.format)
    fs, path = resolve(row_group.uri)
    return fs.open_input_file(path)


def _read_csv(row_group: RowGroup, schema: FeatureSchema) -> Iterator[TypedRows]:
    names = [*(row_group.columns or schema.features), *([row_group.label] if row_group.label else [])]
    with csv_stream(row_group.uri, row_group.format) as stream:
        head = stream.read(HEADER_BYTES)
    header, next_row = csv_header(head), row_group.first_row

    def typed(lines: bytes, skipped: int, kind: pa.DataType) -> tuple[TypedRows, list[_Broken]]:
        kinds = {name: pa.string() if name == row_group.label else kind for name in names}
        table, broken = _parsed(lines, header, skipped, kinds)
        rows = np.arange(next_row, next_row + len(table) + len(broken))
        rows = np.delete(rows, [row for row, _, _ in broken])
        return type_rows(_renamed(table, row_group, schema), row_group, schema, rows), broken

    with _opened(row_group) as stream:
        for i, lines in enumerate(CleanLines(_Range(stream, row_group.start, row_group.end))):
            skipped = int(i == 0 and row_group.start == 0)
            try:
                found, broken = typed(lines, skipped, pa.float64())
                again = len(found.quarantine) > 0  # where the raw text is stored
            except pa.ArrowInvalid:  # text that is no number, padded or quoted
                again = True
            if again:
                found, broken = typed(lines, skipped, pa.string())
            yield found
            if broken:
                yield _broken_lines(
                    [(next_row + row, fields, expected) for row, fields, expected in broken], row_group, schema
                )
            next_row += found.read.total() + len(broken)
    if row_group.end is not None and next_row != row_group.first_row + row_group.rows:
        raise SourceUnusable(
            f"{row_group.uri}: found {next_row - row_group.first_row} rows in bytes {row_group.start} to"
            f" {row_group.end}, where {row_group.rows} were counted: it has changed meanwhile; rerun this job"
        )


_Broken = tuple[int, int, int]
"""Row number, fields found and fields expected of a line with too few or too many: which cell is of which column is
unknown, so that none is kept."""


def _parsed(
    lines: bytes, header: Sequence[str], skipped: int, kinds: Mapping[str, pa.DataType]
) -> tuple[pa.Table, list[_Broken]]:
    """Return columns of lines, and the lines that are broken; rows are numbered from 0 on.

    Args:
        lines: Whole lines.
        header: Column names.
        skipped: Lines before the first row.
        kinds: Columns to read, and their types.

    Raises:
        ArrowInvalid: a text is no number.
    """
    broken: list[_Broken] = []

    def skip_broken(row: Any) -> str:
        broken.append((int(row.number) - 1 - skipped, int(row.actual_columns), int(row.expected_columns)))
        return "skip"

    if lines.startswith(_BYTE_ORDER_MARK) and not skipped:  # within a file it is text; a blank line is no row
        lines = b"\n" + lines
    table = pacsv.read_csv(
        pa.BufferReader(lines),
        read_options=pacsv.ReadOptions(
            use_threads=False, block_size=_PARSED_BYTES, column_names=list(header), skip_rows=skipped
        ),
        # A flow log has no quoted line breaks, but a single quote character would join all lines up to the next one.
        parse_options=pacsv.ParseOptions(invalid_row_handler=skip_broken, quote_char=False),
        convert_options=pacsv.ConvertOptions(
            column_types=dict(kinds),
            include_columns=list(kinds),
            null_values=[""],
            strings_can_be_null=False,
            check_utf8=False,  # `CleanLines` has done it
        ),
    )
    return table, broken


def _broken_lines(lines: Sequence[tuple[int, int, int]], row_group: RowGroup, schema: FeatureSchema) -> TypedRows:
    rows: list[dict[str, Any]] = [
        {
            "source_file": row_group.name,
            "source_row": number,
            "split": row_group.split,
            "label": row_group.class19,
            "reason": WRONG_FIELD_COUNT,
            "features": [],
            "raw": json.dumps({"fields": found, "expected": expected}),
            "run_id": None,
        }
        for number, found, expected in lines
    ]
    read = Counter({(row_group.split or "", row_group.class19 or ""): len(rows)})
    return TypedRows(read, typed_contract(schema).empty_table(), pa.Table.from_pylist(rows, schema=QUARANTINE))
