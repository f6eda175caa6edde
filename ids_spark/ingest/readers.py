"""Raw files to typed rows, by row group, in batches of bounded size."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ids_spark.dataset.features import FeatureSchema
from ids_spark.dataset.tables import QUARANTINE
from ids_spark.ingest.rows import TypedRows, type_rows, typed_contract
from ids_spark.ingest.sources import HEADER_BYTES, LABEL, RowGroup, SourceUnusable, csv_header
from ids_spark.lake.filesystem import resolve

_CSV_BLOCK_BYTES: Final = 8 << 20
WRONG_FIELD_COUNT: Final = "wrong_field_count"


def read_typed(row_group: RowGroup, schema: FeatureSchema) -> Iterator[TypedRows]:
    """Read one row group in batches of bounded size and type its rows.

    Raises:
        SourceUnusable: the content of the file is broken, although its header or footer is valid.
        taxonomy.UnknownClass: a label names no class.
    """
    try:
        if row_group.index is None:
            yield from _read_csv(row_group, schema)
        else:
            fs, path = resolve(row_group.uri)
            with fs.open_input_file(path) as stream:
                file = pq.ParquetFile(stream)
                columns = [name for name in (*schema.features, LABEL) if name in file.schema_arrow.names]
                table = file.read_row_group(row_group.index, columns=columns, use_threads=False)
            yield type_rows(table, row_group, schema, np.arange(row_group.first_row, row_group.first_row + len(table)))
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise SourceUnusable(f"{row_group.uri}: its content cannot be read ({reason}); fetch the file again") from error


def _read_csv(row_group: RowGroup, schema: FeatureSchema) -> Iterator[TypedRows]:
    broken: list[tuple[int, str]] = []  # (row number, text) of lines with too few or too many fields

    def skip_broken(row: Any) -> str:
        broken.append((int(row.number) - 2, str(row.text)))  # line numbers start at 1 and count the header
        return "skip"

    names = [*schema.features, *([LABEL] if row_group.class19 is None else [])]
    fs, path = resolve(row_group.uri)
    with fs.open_input_stream(path) as stream:
        header = csv_header(stream.read(HEADER_BYTES))
    with fs.open_input_stream(path) as stream:
        reader = pacsv.open_csv(
            stream,
            read_options=pacsv.ReadOptions(
                use_threads=False, block_size=_CSV_BLOCK_BYTES, column_names=header, skip_rows=1
            ),
            # A flow log has no quoted line breaks, but a single quote character would join all lines up to the next
            # one.
            parse_options=pacsv.ParseOptions(invalid_row_handler=skip_broken, quote_char=False),
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
            yield type_rows(pa.Table.from_batches([batch]), row_group, schema, rows)
            if len(broken) > reported:
                yield _broken_lines(broken[reported:], row_group, schema)
                reported = len(broken)
        if len(broken) > reported:
            yield _broken_lines(broken[reported:], row_group, schema)


def _broken_lines(lines: Sequence[tuple[int, str]], row_group: RowGroup, schema: FeatureSchema) -> TypedRows:
    rows: list[dict[str, Any]] = [
        {
            "source_file": row_group.name,
            "source_row": number,
            "split": row_group.split,
            "label": row_group.class19,
            "reason": WRONG_FIELD_COUNT,
            "features": [],
            "raw": text,
            "run_id": None,
        }
        for number, text in lines
    ]
    read = Counter({(row_group.split or "", row_group.class19 or ""): len(rows)})
    return TypedRows(read, typed_contract(schema).empty_table(), pa.Table.from_pylist(rows, schema=QUARANTINE))
