"""Parquet files of tables: part files that tasks write, and small tables in one file.

Spark may run a task twice (a retry, a speculative copy). Each attempt writes a file with a unique name and returns the
name; the driver then removes every file that no successful task returned, so that a table holds each row once.
"""

import base64
import contextlib
import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from ids_spark.base.errors import NotReconciled
from ids_spark.base.text import one_line
from ids_spark.dataset.features import SchemaMismatch
from ids_spark.dataset.tables import Table, require
from ids_spark.lake import parquet_limits
from ids_spark.lake.filesystem import files_in, make_folder, read_bytes, resolve

log = logging.getLogger(__name__)

_Footer = TypeVar("_Footer")

SUFFIX: Final = ".parquet"
"""Of the files of every table."""
WHOLE_ROWS: Final = 600_000
"""Rows of a row group up to which it is read at once, which is faster; a larger one is read in pieces."""
PIECE_ROWS: Final = 131_072
BUFFER_BYTES: Final = 1 << 20
"""Bytes of each column of a row group that are read at a time if it is read in pieces; else it is in memory whole."""
_SAMPLE_ROWS: Final = 1_024
"""Rows by which columns are encoded; tables are written in an order that mixes their rows."""
_FEW_VALUES: Final = 256  # in the sample
_WORTHWHILE: Final = 0.5  # compressed size of a column above which it is stored as it is
_CLOSE: Final = 1 << 32  # between the smallest and the largest integer of the sample
LARGEST_ROW: Final = 256 << 20
"""Most bytes of the row of a file with one row."""
MOST_VALUES: Final = 10_000_000
"""Most values of such a row, in lists: equal ones take no space in the file, but 8 bytes and more in memory."""


def part_name(index: int, start: str = "part") -> str:
    """Return a file name for part `index` that no other attempt uses; it begins with `start`."""
    return f"{start}-{index:05d}-{uuid.uuid4().hex[:12]}{SUFFIX}"


@contextlib.contextmanager
def part_writer(
    folder: str,
    name: str,
    contract: pa.Schema,
    metadata: Mapping[str, str],
    dictionary: Sequence[str] = (),
    complete: Sequence[str] = (),
) -> Iterator[Callable[[pa.Table], None]]:
    """Give a function that appends a table to one parquet file as a row group; an empty table is skipped.

    Columns of numbers are encoded as suits those of the first table (`_Encoding`). Texts may be given as dictionaries
    and are read as texts; the indices of those that are dictionaries in the first table are written as they are.

    Args:
        folder: URI; made if needed.
        name: From `part_name`.
        contract: Schema of every table.
        metadata: Key-value pairs of the file's footer.
        dictionary: Columns to encode with a dictionary.
        complete: Columns without nulls: stored as required, which saves a third of the time of writing them.
    """
    fs, path = resolve(folder)
    make_folder(fs, path)
    stored = [column.with_nullable(False) if column.name in complete else column for column in contract]
    schema = pa.schema(stored, dict(metadata))
    keyed = [name for name in ("row_key",) if name in contract.names]
    with contextlib.ExitStack() as stack:

        def opened(first: pa.Table) -> pq.ParquetWriter:
            encoding = _encoding_of(first, dictionary)
            writer = pq.ParquetWriter(
                f"{path}/{name}",
                _read_as(schema, _with_dictionaries(schema, first.schema)),
                filesystem=fs,
                compression=encoding.compression,
                use_dictionary=encoding.dictionary or False,
                column_encoding=dict.fromkeys(encoding.differences, "DELTA_BINARY_PACKED") or None,
                write_statistics=keyed or False,
            )
            return stack.enter_context(writer)

        writers: list[pq.ParquetWriter] = []

        def write(table: pa.Table) -> None:
            if not len(table):
                return
            if not writers:
                writers.append(opened(table))
            written = writers[0].schema
            if table.schema.names != written.names:
                raise ValueError(f"{folder}/{name}: found columns {table.schema.names}; expected {written.names}")
            columns = [_stored_as(column, field.type) for column, field in zip(table.columns, written, strict=True)]
            given = pa.Table.from_arrays(columns, schema=written)
            if holes := [name for name in complete if given[name].null_count]:  # pyarrow would write any value
                raise ValueError(f"{folder}/{name}: column(s) {', '.join(holes)} hold nulls; expected none")
            writers[0].write_table(given, row_group_size=len(table))

        yield write
        if not writers:
            opened(contract.empty_table())


def _with_dictionaries(schema: pa.Schema, given: pa.Schema) -> pa.Schema:
    """Return a schema in which columns that are given as dictionaries are dictionaries."""
    columns = [
        column.with_type(pa.dictionary(pa.int32(), column.type))
        if column.name in given.names and pa.types.is_dictionary(given.field(column.name).type)
        else column
        for column in schema
    ]
    return pa.schema(columns, schema.metadata)


def _stored_as(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Return a column in the type of its file: one may be a dictionary in one table and not in the next.

    A task writes row groups of several files, and rows of which a column is missing or constant. pyarrow writes no
    dictionary with a null among its values.
    """
    if column.type == kind and not (
        pa.types.is_dictionary(kind) and any(c.dictionary.null_count for c in column.chunks)
    ):
        return column
    if not pa.types.is_dictionary(kind):
        return column.cast(kind)
    return column.cast(kind.value_type).dictionary_encode()


def _read_as(schema: pa.Schema, written: pa.Schema) -> pa.Schema:
    """Return the schema of a writer whose file is read with another schema, here texts instead of dictionaries.

    Readers take the first Arrow schema of the footer; pyarrow appends that of the writer. Not storing any would also
    drop the key-value pairs of the file.
    """
    if schema.types == written.types:
        return written
    stored = base64.b64encode(schema.serialize().to_pybytes())
    return written.with_metadata({**(schema.metadata or {}), b"ARROW:schema": stored})


@dataclass(frozen=True)
class _Encoding:
    """How the columns of a file are encoded.

    Attributes:
        compression: Codec of every column, or of each column.
        dictionary: Columns encoded with a dictionary.
        differences: Columns of integers encoded as differences.
    """

    compression: str | dict[str, str]
    dictionary: list[str]
    differences: list[str]


def _encoding_of(first: pa.Table, dictionary: Sequence[str]) -> _Encoding:
    """Return an encoding that suits a table: decoding costs as much as encoding, and most tables are read often.

    A number with few distinct values is stored as its place in a dictionary, where compression would double the time to
    read it and save little. Integers close to each other, as numbers of rows, are stored as differences: smaller than
    what snappy makes of them, and several times faster to write and read. Of the other columns of numbers, those that
    snappy does not halve are not compressed.
    """
    if any(pa.types.is_nested(column.type) for column in first.schema):
        return _Encoding("snappy", list(dictionary), [])
    compression, repeated = dict.fromkeys(first.column_names, "snappy"), list(dictionary)
    differences = []
    sample = first.slice(0, _SAMPLE_ROWS).combine_chunks()
    for column in sample.schema:
        if (
            pa.types.is_dictionary(column.type)
            or column.name in dictionary
            or len(sample) < _SAMPLE_ROWS
            or sample[column.name].null_count
        ):
            continue
        if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
            continue
        values = sample[column.name].to_numpy()
        if len(np.unique(values)) <= _FEW_VALUES:
            repeated.append(column.name)
            compression[column.name] = "none"
        elif pa.types.is_integer(column.type) and int(values.max()) - int(values.min()) < _CLOSE:
            differences.append(column.name)
            compression[column.name] = "none"
        elif not is_compressible(sample[column.name]):
            compression[column.name] = "none"
    return _Encoding(compression, repeated, differences)


def is_compressible(column: pa.ChunkedArray) -> bool:
    """Return whether snappy halves the first numbers of a column without nulls."""
    values = column.slice(0, _SAMPLE_ROWS).to_numpy()
    return bool(len(pa.compress(values, "snappy")) <= _WORTHWHILE * values.nbytes)


def write_part(
    folder: str,
    name: str,
    tables: Iterator[pa.Table] | Sequence[pa.Table],
    contract: pa.Schema,
    metadata: Mapping[str, str],
    dictionary: Sequence[str] = (),
    complete: Sequence[str] = (),
) -> int:
    """Write tables as the row groups of one parquet file, arguments as in `part_writer`; return the number of rows."""
    rows = 0
    with part_writer(folder, name, contract, metadata, dictionary, complete) as write:
        for table in tables:
            write(table)
            rows += len(table)
    return rows


def write_rows(uri: str, rows: Sequence[Mapping[str, Any]], contract: pa.Schema) -> None:
    """Write a small table, given as rows, as one parquet file; makes its folder if needed."""
    write_table(uri, pa.Table.from_pylist(list(rows), schema=contract))


def write_table(uri: str, table: pa.Table) -> None:
    """Write a small table as one parquet file; makes its folder if needed."""
    fs, path = resolve(uri)
    make_folder(fs, path.rsplit("/", 1)[0])
    pq.write_table(table, path, filesystem=fs)


def read_row(uri: str, columns: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the one row of a small file; of named columns, those that it has.

    Raises:
        ValueError: it is no parquet file, has another number of rows, states more than `LARGEST_ROW` bytes or
            `MOST_VALUES` values, is itself too large, or holds a value that Python has no type for.
        OSError: it cannot be read.
    """
    content = read_bytes(uri)
    try:
        stream = pa.BufferReader(content)
        footer = parquet_limits.opened(stream).metadata
        _require_one_small_row(footer)
        known = footer.schema.to_arrow_schema().names
        names = known if columns is None else [name for name in columns if name in known]
        for i in range(footer.num_row_groups):
            parquet_limits.check_pages(stream, footer, i, frozenset(names), local=True)
        leaves = [footer.schema.column(i) for i in range(footer.num_columns)]
        texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        file = pq.ParquetFile(stream, metadata=footer, read_dictionary=texts)  # so that equal texts are in memory once
        table = file.read(names, use_threads=False)
        if (size := sum(_text_bytes(chunk) for column in table.columns for chunk in column.chunks)) > LARGEST_ROW:
            raise ValueError(f"texts of {size:,} bytes; expected at most {LARGEST_ROW:,}")
        [row] = table.to_pylist() if names else [{}]
    except (pa.ArrowException, OSError, OverflowError, TypeError, KeyError) as error:  # OverflowError: a time
        raise ValueError(f"cannot be read: {error}") from error
    return dict(row)


def _require_one_small_row(footer: pq.FileMetaData) -> None:
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    size = sum(group.total_byte_size for group in groups)
    values = sum(group.column(i).num_values for group in groups for i in range(group.num_columns))
    if footer.num_rows != 1 or size > LARGEST_ROW or values > MOST_VALUES:
        raise ValueError(
            f"{footer.num_rows} rows of {size:,} bytes and {values:,} values; expected one of at most"
            f" {LARGEST_ROW:,} and {MOST_VALUES:,}"
        )


def _text_bytes(array: pa.Array) -> int:
    """Return the bytes of texts that were read as dictionaries, each as often as it is there."""
    if pa.types.is_dictionary(array.type):
        lengths = pc.binary_length(array.dictionary).cast(pa.int64())
        return int(pc.sum(lengths.take(array.indices)).as_py() or 0)
    if pa.types.is_list(array.type):
        return _text_bytes(array.flatten())
    if pa.types.is_struct(array.type):
        return sum(map(_text_bytes, array.flatten()))
    if pa.types.is_nested(array.type):
        raise ValueError(f"a column of type {str(array.type)[:80]}")
    return 0


def table_bytes(table: pa.Table) -> bytes:
    """Return a small table as the content of a parquet file."""
    stream = pa.BufferOutputStream()
    pq.write_table(table, stream)
    return bytes(stream.getvalue().to_pybytes())


def read_file(uri: str, table: Table, columns: Sequence[str], equal: Mapping[str, Any]) -> pa.Table:
    """Return columns of one parquet file, under their present names, of the rows with the values in `equal`.

    A column that older versions did not write (`Table.added`) is null where the file lacks it.

    Raises:
        SchemaMismatch: the file is damaged, lacks a column, or holds it with another type than the table's contract.
    """
    fs, path = resolve(uri)
    with fs.open_input_file(path) as stream:
        try:
            parquet_limits.check_footer(stream)
            file = pq.ParquetFile(stream)
            schema = file.schema_arrow
            if len(set(schema.names)) < len(schema):
                raise ValueError("two columns have one name")
        except (pa.ArrowException, ValueError) as error:
            raise SchemaMismatch(
                f"{uri} cannot be read as parquet ({one_line(error)}); restore the file, or remove it"
            ) from error
        stored = stored_names(schema.names, table)
        found = pa.schema([schema.field(old).with_name(name) for name, old in stored.items()])
        absent = [name for name in columns if name in table.added and name not in stored and name not in equal]
        needed = [name for name in dict.fromkeys([*columns, *equal]) if name not in absent]
        require(found, pa.schema([table.contract.field(name) for name in needed if name in table.contract.names]), uri)
        if unknown := [name for name in needed if name not in stored]:
            raise SchemaMismatch(f"{uri} lacks column(s) {', '.join(unknown)}; found {', '.join(stored)}")
        read = _nullable(file.read([stored[name] for name in needed])).select([stored[name] for name in needed])
    read = read.rename_columns(needed).replace_schema_metadata()
    for name, value in equal.items():
        read = read.filter(pc.equal(read[name], pa.scalar(value, read.schema.field(name).type)))
    for name in absent:
        read = read.append_column(table.contract.field(name), pa.nulls(len(read), table.contract.field(name).type))
    return read.select(list(columns))


class PartFile:
    """An open file of a table, row group by row group.

    Attributes:
        schema: Its columns.
        rows: Rows of each row group.

    Args:
        stream: The file.
        dictionaries: Columns of text to read as dictionaries, so that a long text that repeats is in memory once.
    """

    def __init__(self, stream: pa.NativeFile, dictionaries: Sequence[str] = ()) -> None:
        self._stream, self._dictionaries = stream, list(dictionaries) or None
        self._file = pq.ParquetFile(stream, read_dictionary=self._dictionaries)
        footer = self._file.metadata
        self.schema: pa.Schema = _as_nullable(self._file.schema_arrow)
        self.rows = tuple(footer.row_group(i).num_rows for i in range(footer.num_row_groups))

    def read(self, columns: Sequence[str], row_group: int | None = None) -> pa.Table:
        """Return columns of one row group, or of all, in the order of the file; a name it lacks is ignored."""
        if row_group is None:
            return _nullable(self._file.read(list(columns), use_threads=False))
        return _nullable(self._file.read_row_group(row_group, list(columns), use_threads=False))

    def pieces(self, columns: Sequence[str], row_group: int) -> Iterator[pa.Table]:
        """Yield columns of one row group: at once, or in pieces if it has more than `WHOLE_ROWS` rows."""
        if self.rows[row_group] <= WHOLE_ROWS:
            yield self.read(columns, row_group)
            return
        file = pq.ParquetFile(
            self._stream,
            metadata=self._file.metadata,
            read_dictionary=self._dictionaries,
            buffer_size=BUFFER_BYTES,
        )
        for batch in file.iter_batches(PIECE_ROWS, [row_group], list(columns), use_threads=False):
            yield _nullable(pa.Table.from_batches([batch]))


def _nullable(table: pa.Table) -> pa.Table:
    """Return a table with the fields of a contract, also where a file states that a column has no nulls."""
    return pa.Table.from_arrays(table.columns, schema=_as_nullable(table.schema))


def _as_nullable(schema: pa.Schema) -> pa.Schema:
    return pa.schema([column.with_nullable(True) for column in schema], schema.metadata)


def footer_of(fs: pafs.FileSystem, path: str) -> pq.FileMetaData:
    """Return the footer of a file; raises as `checked_footer`."""
    return checked_footer(fs, path, lambda: pq.read_metadata(path, filesystem=fs))


def checked_footer(fs: pafs.FileSystem, path: str, read: Callable[[], _Footer]) -> _Footer:
    """Return what a function reads of the footer of a file, which is checked before.

    Raises:
        SchemaMismatch: the file is damaged.
        OSError: it is not there or cannot be read.
    """
    try:
        with fs.open_input_file(path) as stream:
            parquet_limits.check_footer(stream)
        return read()
    except (pa.ArrowException, ValueError) as error:
        raise SchemaMismatch(
            f"{path} cannot be read as parquet ({one_line(error)}); restore the file, or remove it"
        ) from error


@contextlib.contextmanager
def open_part(uri: str, dictionaries: Sequence[str] = ()) -> Iterator[PartFile]:
    """Open a file of a table; `dictionaries` as in `PartFile`.

    Raises:
        ArrowException: the file is not complete.
        OSError: it is not there or cannot be read.
    """
    fs, path = resolve(uri)
    with fs.open_input_file(path) as stream:
        yield PartFile(stream, dictionaries)


def stored_names(found: Sequence[str], table: Table) -> dict[str, str]:
    """Return the stored name of each column of a file, by its present name."""
    present = {old: new for new, old in table.renamed.items() if new not in found}
    return {present.get(name, name): name for name in found}


def keep_only(names: Iterable[str], *folders: str) -> None:
    """Remove the part files of staged folders that no successful task reported.

    Args:
        names: File names that tasks reported.
        folders: URIs; a folder that no task made is skipped.

    Raises:
        NotReconciled: a reported file is in none of them.
    """
    reported = set(names)
    found = set()
    for folder in folders:
        fs, _ = resolve(folder)
        for uri in files_in(folder, SUFFIX):
            name = uri.rsplit("/", 1)[1]
            found.add(name)
            if name not in reported:
                log.warning("removing a file of a failed or repeated task attempt file=%s", uri)
                fs.delete_file(resolve(uri)[1])
    if missing := reported - found:
        raise NotReconciled(f"{' and '.join(folders)} lack {len(missing)} files of tasks, such as {min(missing)}")
