"""Raw files to typed rows, by row group, in batches of bounded size."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from ids_spark.base.text import one_line
from ids_spark.dataset.features import FeatureSchema
from ids_spark.dataset.tables import QUARANTINE
from ids_spark.ingest import files
from ids_spark.ingest.rows import LABEL, TypedRows, type_rows, typed_contract
from ids_spark.ingest.sources import HEADER_BYTES, RowGroup, SourceUnusable, csv_header, csv_stream
from ids_spark.lake.parquet import open_part
from ids_spark.lake.parquet_limits import BeyondLimits, check_row_group

_CSV_BLOCK_BYTES: Final = 8 << 20
WRONG_FIELD_COUNT: Final = "wrong_field_count"
_NOT_UTF8: Final = "\N{REPLACEMENT CHARACTER}".encode()


def read_typed(row_group: RowGroup, schema: FeatureSchema) -> Iterator[TypedRows]:
    """Read one row group in batches of bounded size and type its rows.

    Raises:
        SourceUnusable: the content of the file is broken, although its header or footer is valid.
    """
    try:
        if row_group.index is None:
            yield from _read_csv(row_group, schema)
        else:
            yield from _read_parquet(row_group, schema)
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
        for table in file.pieces(names, row_group.index or 0):
            numbers = np.arange(first, first + len(table))
            first += len(table)
            yield type_rows(_renamed(table, row_group, schema), row_group, schema, numbers)
    if first - row_group.first_row != row_group.rows:
        raise SourceUnusable(
            f"{row_group.uri}: found {first - row_group.first_row} rows in row group {row_group.index}, its footer"
            f" states {row_group.rows}; fetch the file again"
        )


def _renamed(table: pa.Table, row_group: RowGroup, schema: FeatureSchema) -> pa.Table:
    """Return the features of a table under their official names, and its labels as `LABEL`."""
    stored = row_group.columns or schema.features
    columns = {feature: table[name] for feature, name in zip(schema.features, stored, strict=True)}
    return pa.table(columns | ({LABEL: table[row_group.label]} if row_group.label else {}))


class CleanLines:
    """The bytes of a CSV file as a readable file, in which one bad line cannot stop the reader.

    Bytes that are no UTF-8 are replaced by U+FFFD, and lines of more than `files.LONGEST_LINE` bytes are cut and end
    with U+FFFD. So the cell is no number and no label, and its row, under its number in the file, goes to quarantine.
    Every other byte is unchanged.

    Args:
        stream: The bytes, decompressed.
    """

    closed = False

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream
        self._rest = b""  # of a line whose end was not read yet
        self._cutting = False  # whether the rest of a cut line is to be dropped
        self._newline = b"\n"
        self._first = True

    def read(self, size: int = -1) -> bytes:
        """Return about `size` bytes of whole lines; none at the end of the file."""
        size = size if size > 0 else _CSV_BLOCK_BYTES
        while block := self._stream.read(size):
            if self._first:  # old files of Macs have no other line end
                self._first = False
                self._newline = b"\n" if b"\n" in block[:HEADER_BYTES] or b"\r" not in block else b"\r"
            if lines := self._whole_lines(block):
                return self._clean(lines)
        rest, self._rest = self._rest, b""
        return self._clean(rest)

    def close(self) -> None:
        """Close the file."""
        self.closed = True
        self._stream.close()

    def _whole_lines(self, block: bytes) -> bytes:
        if self._cutting:
            end = block.find(self._newline)
            if end < 0:
                return b""
            block, self._cutting = block[end:], False
        block = self._rest + block
        end = block.rfind(self._newline) + 1
        self._rest = block[end:]
        if len(self._rest) > files.LONGEST_LINE:
            block, self._rest, self._cutting = block[:end] + _cut(self._rest), b"", True
            return block
        return block[:end]

    def _clean(self, lines: bytes) -> bytes:
        if self._has_long_line(lines):
            lines = self._newline.join(
                _cut(line) if len(line) > files.LONGEST_LINE else line for line in lines.split(self._newline)
            )
        if lines.isascii():
            return lines
        return lines.decode(errors="replace").encode()

    def _has_long_line(self, lines: bytes) -> bool:
        at, last = 0, len(lines)
        while last - at > files.LONGEST_LINE:
            end = lines.rfind(self._newline, at, at + files.LONGEST_LINE + 1)
            if end < 0:
                return True
            at = end + 1
        return False


def _cut(line: bytes) -> bytes:
    return line[: files.LONGEST_LINE - len(_NOT_UTF8)] + _NOT_UTF8


def _read_csv(row_group: RowGroup, schema: FeatureSchema) -> Iterator[TypedRows]:
    # Row number, fields found and fields expected of lines with too few or too many: which cell is of which column is
    # unknown, so that none is kept.
    broken: list[tuple[int, int, int]] = []

    def skip_broken(row: Any) -> str:
        number = int(row.number) - 2  # line numbers start at 1 and count the header
        broken.append((number, int(row.actual_columns), int(row.expected_columns)))
        return "skip"

    names = [*(row_group.columns or schema.features), *([row_group.label] if row_group.label else [])]
    with csv_stream(row_group.uri, row_group.format) as stream:
        header = csv_header(stream.read(HEADER_BYTES))
    with csv_stream(row_group.uri, row_group.format) as stream:
        reader = pacsv.open_csv(
            pa.PythonFile(CleanLines(stream), mode="r"),
            read_options=pacsv.ReadOptions(
                use_threads=False, block_size=_CSV_BLOCK_BYTES, column_names=header, skip_rows=1
            ),
            # A flow log has no quoted line breaks, but a single quote character would join all lines up to the next
            # one.
            parse_options=pacsv.ParseOptions(invalid_row_handler=skip_broken, quote_char=False),
            convert_options=pacsv.ConvertOptions(
                column_types={name: pa.string() for name in names},
                include_columns=names,
                strings_can_be_null=False,
                check_utf8=False,  # `CleanLines` has done it
            ),
        )
        next_row = reported = 0
        rows: NDArray[np.int64]
        for batch in reader:
            # The handler has run for every line up to this batch, and perhaps for later ones.
            skipped = np.array([number for number, _, _ in broken], dtype=np.int64)
            rows = np.setdiff1d(np.arange(next_row, next_row + len(batch) + len(skipped)), skipped)[: len(batch)]
            next_row = int(rows[-1]) + 1 if len(rows) else next_row
            yield type_rows(_renamed(pa.Table.from_batches([batch]), row_group, schema), row_group, schema, rows)
            if len(broken) > reported:
                yield _broken_lines(broken[reported:], row_group, schema)
                reported = len(broken)
        if len(broken) > reported:
            yield _broken_lines(broken[reported:], row_group, schema)


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
