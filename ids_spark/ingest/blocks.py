"""Rows on their way to a bucket: a block of rows as bytes for each bucket, and the blocks of a bucket as columns.

Most columns of a capture file are the same number in thousands of rows, and most others are continuous. The first are
sent once for a block, and what a codec does not halve is sent as it is: compressing takes more time than sending.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ids_spark.base.arrays import Ints
from ids_spark.ingest import row_hash
from ids_spark.lake.parquet import is_compressible

Sent = tuple[int, bytes, bytes, bytes]
"""Number of rows; as Arrow streams: one row of the columns with one value, the compressed columns, the others."""


@dataclass(frozen=True)
class Block:
    """Rows that go to several buckets.

    Attributes:
        constant: The columns with one value in all rows, as an Arrow stream of one row.
        compressed: The columns that a codec at least halves.
        plain: All other columns.
    """

    constant: bytes
    compressed: pa.Table
    plain: pa.Table

    @classmethod
    def of(cls, rows: pa.Table, order: Ints) -> "Block":
        """Return some rows, at least one, in another order.

        Args:
            rows: Numbers, texts and dictionaries of texts.
            order: Permutation of the rows, shape (rows,).
        """
        constant = [name for name in rows.column_names if _is_constant(rows[name])]
        varying = [name for name in rows.column_names if name not in constant]
        taken = rows.select(varying).combine_chunks().take(pa.array(order))
        plain = [name for name in varying if _is_number(taken[name]) and not is_compressible(taken[name])]
        compressed = [name for name in varying if name not in plain]
        one = _to_bytes(rows.select(constant).slice(0, 1), None)
        return cls(one, taken.select(compressed), taken.select(plain))

    def slice(self, start: int, end: int) -> Sent:
        """Return a range of the rows as bytes."""
        rows = end - start
        compressed = _to_bytes(self.compressed.slice(start, rows), "lz4")
        return rows, self.constant, compressed, _to_bytes(self.plain.slice(start, rows), None)


Column: TypeAlias = "pa.Array | pa.Scalar | list[NDArray[Any]]"
"""A column of several blocks: as an array, as one value of all rows, or as an array of numbers for each block."""


@dataclass(frozen=True)
class Rows:
    """The rows of a bucket, sorted by row key, label, file and row number.

    Attributes:
        columns: Each before sorting.
        starts: Number of rows before each block, and of all rows, shape (blocks + 1,).
        order: Permutation that sorts the rows, shape (rows,).
    """

    columns: Mapping[str, Column]
    starts: Ints
    order: Ints

    @classmethod
    def of(cls, sent: Sequence[Sent], contract: pa.Schema) -> "Rows":
        """Return the rows of all blocks.

        Args:
            sent: From `Block.slice`.
            contract: The columns, among them `row_key`, `label19`, `source_file` and `source_row`.
        """
        columns, starts = joined(sent, contract), np.cumsum([0, *(rows for rows, *_ in sent)])
        names = ("row_key", "label19", "source_row")
        keys, labels, numbers = (_values(columns[name], int(starts[-1])) for name in names)
        ranks = _ranks(columns["source_file"], int(starts[-1]))
        return cls(columns, starts, row_hash.order_of(keys, labels, ranks, numbers))

    def values(self, name: str, at: Ints | None = None) -> NDArray[Any]:
        """Return a column of numbers without nulls, of all rows or those at some places, shape (rows,)."""
        order = self.order if at is None else self.order[at]
        return _values(self.columns[name], len(self.order))[order]

    def table(self, start: int, end: int) -> pa.Table:
        """Return a range of the rows, one at least.

        Blocks are sorted by key, so it has a range of each of them: few enough to be sorted in the cache of a core.
        """
        order = self.order[start:end]
        ordered = np.sort(order)
        cuts = np.searchsorted(ordered, self.starts)
        blocks = np.flatnonzero(cuts[1:] > cuts[:-1])
        lows, highs = ordered[cuts[blocks]], ordered[cuts[blocks + 1] - 1] + 1
        shifts = lows - np.cumsum(np.r_[0, highs - lows])[:-1]
        place = order - shifts[np.searchsorted(lows, order, "right") - 1]
        first = self.starts[blocks]
        ranges = list(zip(blocks.tolist(), (lows - first).tolist(), (highs - first).tolist(), strict=True))

        def taken(column: Column) -> pa.Array:
            if isinstance(column, pa.Scalar):
                return pa.repeat(column, len(order))
            if isinstance(column, list):
                return pa.array(np.concatenate([column[i][low:high] for i, low, high in ranges])[place])
            return column.take(pa.array(order))

        return pa.table({name: taken(column) for name, column in self.columns.items()})


def joined(sent: Sequence[Sent], contract: pa.Schema) -> dict[str, Column]:
    """Return the rows of all blocks by column.

    Args:
        sent: From `Block.slice`.
        contract: The columns, each of this type; without any block they are empty arrays.
    """
    parts: dict[str, list[tuple[int, pa.ChunkedArray, bool]]] = {name: [] for name in contract.names}
    for rows, constant, *varying in sent:
        one = _from_bytes(constant)
        for name in one.column_names:
            parts[name].append((rows, one[name], True))
        for table in map(_from_bytes, varying):
            for name in table.column_names:
                parts[name].append((rows, table[name], False))
    return {column.name: _joined(parts.pop(column.name), column.type) for column in contract}


def _joined(parts: Sequence[tuple[int, pa.ChunkedArray, bool]], kind: pa.DataType) -> Column:
    if parts and all(constant for *_, constant in parts):
        values = pa.chunked_array([part.chunk(0) for _, part, _ in parts])
        if _is_constant(values):
            return values[0]
    if parts and all(_is_number(part) for _, part, _ in parts):
        return [np.broadcast_to(part.to_numpy(), rows) for rows, part, _ in parts]
    zeros = np.zeros(max((rows for rows, _, constant in parts if constant), default=0), dtype=np.int32)
    chunks: list[pa.Array] = []
    for rows, part, constant in parts:
        chunks += [part.chunk(0).take(pa.array(zeros[:rows]))] if constant else part.chunks
    whole = pa.chunked_array(chunks, kind)
    return (whole.unify_dictionaries() if pa.types.is_dictionary(kind) else whole).combine_chunks()


def _values(column: Column, rows: int) -> NDArray[Any]:
    if isinstance(column, pa.Scalar):  # takes the memory of one value
        return np.broadcast_to(pa.array([column.as_py()], column.type).to_numpy(), rows)
    values: NDArray[Any] = np.concatenate(column) if isinstance(column, list) else column.to_numpy()
    return values


def _ranks(names: Any, rows: int) -> Ints:
    """Return the alphabetical rank of each name, which makes the result independent of shuffle arrival order."""
    if isinstance(names, pa.Scalar):
        return np.zeros(rows, dtype=np.int64)
    alphabetical = np.argsort(np.argsort(names.dictionary.to_numpy(zero_copy_only=False)))
    ranks: Ints = alphabetical[names.indices.to_numpy()]
    return ranks


def _is_number(column: pa.ChunkedArray) -> bool:
    return not column.null_count and (pa.types.is_floating(column.type) or pa.types.is_integer(column.type))


def _is_constant(column: pa.ChunkedArray) -> bool:
    """Return whether all values of a column have the same bits; a column with nulls is not looked at."""
    if column.null_count:
        return False
    if pa.types.is_dictionary(column.type):
        names: list[list[str]] = [chunk.dictionary.to_pylist() for chunk in column.chunks]
        return len(names[0]) == 1 and all(each == names[0] for each in names[1:])
    if not _is_number(column):
        return False
    values = column.to_numpy()
    bits = values.view(np.dtype(f"i{values.dtype.itemsize}"))
    few = bits[[0, len(bits) // 2, -1]]
    return bool((few == few[0]).all() and (bits == few[0]).all())


def _to_bytes(table: pa.Table, codec: str | None) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _from_bytes(content: bytes) -> pa.Table:
    return pa.ipc.open_stream(content).read_all()
