"""Files that are small and would take a lot of memory if they were read as a whole."""

import struct
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CELL_BYTES: Final = 5_000_000
CELLS: Final = 200  # of 5 MB: 1 GB in memory
ROWS: Final = 50_000_000
CLAIMED_ROWS: Final = 10**12


def constant_columns(path: Path, names: list[str]) -> None:
    """Write a parquet file of some kilobytes: 50 million rows of zeros in one row group."""
    schema = pa.schema([pa.field(name, pa.int32(), nullable=False) for name in names])  # the quickest to write
    table = pa.table([pa.array(np.zeros(ROWS, dtype=np.int32))] * len(names), schema=schema)
    pq.write_table(table, path, row_group_size=ROWS, write_statistics=False, store_schema=False)


def many_rows_claimed(path: Path, table: pa.Table) -> None:
    """Write a parquet file whose footer claims 10^12 rows.

    A number in the footer is a zigzag varint of Thrift's compact protocol, so a longer one can take its place.
    """
    pq.write_table(table.slice(0, 12_345), path)
    content = path.read_bytes()
    size = int.from_bytes(content[-8:-4], "little")
    footer = content[-8 - size : -8].replace(_varint(12_345), _varint(CLAIMED_ROWS))
    path.write_bytes(content[: -8 - size] + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    if pq.ParquetFile(path).metadata.num_rows != CLAIMED_ROWS:
        raise AssertionError("the footer was not changed as expected")


def many_columns(table: pa.Table, more: int = 20_000) -> pa.Table:
    """Return a table with 20,000 columns more."""
    zeros = pa.array(np.zeros(len(table)))
    names = [*table.column_names, *(f"extra_{i}" for i in range(more))]
    return pa.Table.from_arrays([*table.columns, *[zeros] * more], names=names)


def large_cells(path: Path, table: pa.Table, name: str, dictionary: bool) -> None:
    """Write a table in which one column holds texts of 5 MB: one text in all rows, or another in each.

    Both compress to little; they take 1 GB in memory.
    """
    rows = table.slice(0, CELLS)
    text = "7" * CELL_BYTES
    if dictionary:
        column: Any = pa.DictionaryArray.from_arrays(pa.array(np.zeros(CELLS, dtype=np.int32)), pa.array([text]))
        rows = rows.set_column(rows.column_names.index(name), name, column)
        pq.write_table(rows, path, compression="zstd", store_schema=False)
        return
    at = rows.column_names.index(name)
    schema = rows.schema.set(at, pa.field(name, pa.string()))
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False, write_statistics=False) as writer:
        texts = pa.array([f"{i:04}{text}" for i in range(CELLS)])
        writer.write_table(rows.set_column(at, name, texts), row_group_size=CELLS)


def large_csv_cells(path: Path, header: list[str], row: list[str], at: int) -> None:
    """Write a CSV file in which one column holds texts of 5 MB."""
    before, after = ",".join(row[:at]), ",".join(row[at + 1 :])
    with path.open("w") as stream:
        stream.write(",".join(header) + "\n")
        for i in range(CELLS // 2):
            stream.write(f"{before}{',' * bool(before)}{i}{'7' * CELL_BYTES}{',' * bool(after)}{after}\n")


def bomb(path: Path, header: list[str], row: list[str] | None) -> None:
    """Write a gzip file of a few megabytes that holds 1 GB of CSV: rows, or one line without an end.

    After a full flush the compressed bytes of a block do not depend on those before it, so that a block is compressed
    only once.
    """
    first = (",".join(header) + "\n").encode()
    block = ((",".join(row) + "\n") * 20_000).encode() if row else b"7" * 10_000_000
    times = 1_000_000_000 // len(block)
    deflate = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    head, body = [deflate.compress(each) + deflate.flush(zlib.Z_FULL_FLUSH) for each in (first, block)]
    checksum = zlib.crc32(first)
    with path.open("wb") as stream:
        stream.write(b"\x1f\x8b\x08" + bytes(7) + head)  # RFC 1952, section 2.3
        for _ in range(times):
            stream.write(body)
            checksum = zlib.crc32(block, checksum)
        stream.write(deflate.flush() + struct.pack("<II", checksum, len(first) + times * len(block)))


def nested_columns(path: Path, depth: int) -> None:
    """Write a parquet file of some kilobytes that is only a footer: one column, nested so deep."""
    groups = [b"\x48\x01g\x15" + _varint(1) + b"\0"] * (depth + 1)  # a name, and one child
    leaf = b"\x15" + _varint(5) + b"\x25" + _varint(1) + b"\x18\x01x\0"  # an optional double
    count, length = len(groups) + 1, bytearray()
    while count >= 128:
        length.append(count & 127 | 128)
        count >>= 7
    schema = b"\x19\xfc" + bytes([*length, count]) + b"".join(groups) + leaf
    footer = b"\x15" + _varint(1) + schema + b"\x16" + _varint(0) + b"\x19\x0c\0"
    path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")


def page_bomb(path: Path, name: str, values: int = 20_000_000) -> None:
    """Write a parquet file of some kilobytes: its footer claims 1,000 doubles, its only page holds 160 MB of zeros."""
    table = pa.table({name: np.zeros(values)})
    options: dict[str, Any] = {"write_statistics": False, "store_schema": False, "use_dictionary": False}
    options |= {"row_group_size": values, "data_page_size": 2_000_000_000, "write_batch_size": values}
    pq.write_table(table, path, compression="zstd", **options)
    content, chunk = path.read_bytes(), pq.read_metadata(path).row_group(0).column(0)
    size = int.from_bytes(content[-8:-4], "little")
    footer = content[-8 - size : -8].replace(_varint(values), _varint(1_000))
    footer = footer.replace(_varint(chunk.total_uncompressed_size), _varint(8_100))
    path.write_bytes(content[: -8 - size] + footer + len(footer).to_bytes(4, "little") + b"PAR1")


def _varint(number: int) -> bytes:
    zigzag, found = number << 1, bytearray()
    while zigzag >= 128:
        found.append(zigzag & 127 | 128)
        zigzag >>= 7
    return bytes([*found, zigzag])
