"""Copies of one vector: many equal rows, which would all meet in the task of its bucket.

Where a block of rows has many equal ones, the first row of each label goes to the bucket of its key, as any row does.
The others are certainly duplicates, whatever other blocks hold. They are sent as the vector, once, and the label and
place of each row. The task that receives the copies of a block follows from the place of the block in the source, so
that ten million equal rows are spread as others are; each task writes its copies to a file of its own.

Only the bucket of a vector sees all of its labels. Where they conflict, the files of its copies are marked afterwards.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ids_spark.base.arrays import Floats, Ids, Ints, Keys, Mask
from ids_spark.ingest import row_hash
from ids_spark.lake.parquet import open_part

FILE_START: Final = "copies"
"""Of the names of files with copies; files of buckets begin with `part`."""
FEWEST: Final = 64
"""Rows of a block that are copies; fewer take no more time in their bucket than here."""
_MOST_KEYS: Final = 100  # of a block, the most frequent ones
_MOST_VECTORS_OF_KEY: Final = 8  # 0.0 and -0.0 have one key, and so have vectors by chance


@dataclass(frozen=True)
class Copies:
    """Copies that were taken out of a block.

    Attributes:
        vectors: Column `row_key` and the features, one row for each vector; equal vectors may be there twice.
        rows: Columns `vector` (row of `vectors`), `label19`, `source_file` and `source_row`, one row for each copy.
    """

    vectors: pa.Table
    rows: pa.Table

    def place(self, buckets: int) -> int:
        """Return which bucket's task receives them; it depends on the source alone."""
        first = f"{self.rows['source_file'][0].as_py()}\0{self.rows['source_row'][0].as_py()}"
        return zlib.crc32(first.encode()) % buckets

    def keys_by_bucket(self, buckets: int) -> Iterator[tuple[int, Keys]]:
        """Yield the keys of the vectors, by the bucket where the first rows of these vectors are."""
        keys = np.unique(self.vectors["row_key"].to_numpy())
        bucket = row_hash.buckets(keys, buckets)
        for own in np.unique(bucket):
            yield int(own), keys[bucket == own]

    def to_bytes(self) -> bytes:
        """Return them as two Arrow streams."""
        sink = pa.BufferOutputStream()
        for table in (self.vectors, self.rows):
            with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
                writer.write_table(table)
        return bytes(sink.getvalue())

    @staticmethod
    def of_blocks(blocks: Sequence[bytes]) -> "Copies":
        """Return the copies of several blocks, from `to_bytes`, sorted by row key, label, file and row."""
        vectors, rows, before = [], [], 0
        for block in blocks:
            stream = pa.BufferReader(block)
            of_block, own = (pa.ipc.open_stream(stream).read_all() for _ in range(2))
            rows.append(own.set_column(0, "vector", pc.add(own["vector"], pa.scalar(before, pa.int32()))))
            vectors.append(of_block)
            before += len(of_block)
        every, each = pa.concat_tables(vectors).combine_chunks(), pa.concat_tables(rows).unify_dictionaries()
        each = each.combine_chunks()
        keys = every["row_key"].to_numpy()[each["vector"].to_numpy()]
        files = each["source_file"].combine_chunks()
        alphabetical = np.argsort(np.argsort(files.dictionary.to_numpy(zero_copy_only=False)))
        ranks = alphabetical[files.indices.to_numpy()]
        order = row_hash.order_of(keys, each["label19"].to_numpy(), ranks, each["source_row"].to_numpy())
        return Copies(every, each.take(pa.array(order)))

    def tables(self, rows: int) -> Iterator[pa.Table]:
        """Yield tables of at most so many rows, each row with key, features, label, file and row number."""
        for start in range(0, len(self.rows), rows):
            own = self.rows.slice(start, rows)
            table = self.vectors.take(own["vector"])
            for name in ("label19", "source_file", "source_row"):
                column = own[name].cast(pa.string()) if name == "source_file" else own[name]
                table = table.append_column(name, column)
            yield table


def taken_out(flows: pa.Table, features: Sequence[str], buckets: int) -> tuple[pa.Table, Copies | None]:
    """Return the rows of a block without copies, and the copies; None where no vector has many.

    A vector has many if its rows are more than half of what the block sends to a bucket, and at least `FEWEST`. The
    first row of each of its labels is no copy. Vectors are the same if every bit is.

    Args:
        flows: Rows of one split in the order of their place in the source, with the columns `row_key`, `label19`,
            `source_file` and `source_row` and the features.
        features: Names of the features.
        buckets: Number of buckets of the split; with one, its rows meet in one task anyway.
    """
    fewest = max(FEWEST, len(flows) // (2 * buckets))
    keys = flows["row_key"].to_numpy()
    frequent = _frequent(keys, fewest) if buckets > 1 else keys[:0]
    if not len(frequent):
        return flows, None
    columns = [flows[name].to_numpy().view(np.int64) for name in features]
    labels = flows["label19"].to_numpy()
    firsts: list[int] = []  # row with each vector
    copies: list[Ints] = []  # rows of the copies of each vector
    for key in frequent:
        for rows in _vectors(columns, np.flatnonzero(keys == key), fewest):
            _, first_of_label = np.unique(labels[rows], return_index=True)
            firsts.append(int(rows[0]))
            copies.append(np.delete(rows, first_of_label))
    if not sum(map(len, copies)):
        return flows, None
    taken = np.concatenate(copies)
    numbers = np.repeat(np.arange(len(copies), dtype=np.int32), [len(own) for own in copies])
    columns_of_rows = {name: flows[name].take(pa.array(taken)) for name in ("label19", "source_file", "source_row")}
    if not pa.types.is_dictionary(columns_of_rows["source_file"].type):
        columns_of_rows["source_file"] = columns_of_rows["source_file"].dictionary_encode()
    rows = pa.table({"vector": pa.array(numbers)} | columns_of_rows)
    vectors = flows.select(["row_key", *features]).take(pa.array(firsts))
    others = np.delete(np.arange(len(flows)), taken)
    return flows.take(pa.array(others)), Copies(vectors, rows)


def _frequent(keys: Keys, fewest: int) -> Keys:
    """Return the most frequent keys of those with at least so many rows."""
    ordered: Keys = np.sort(keys)
    far = ordered[fewest - 1 :]
    found: Keys = np.unique(far[far == ordered[: len(far)]])
    if len(found) > _MOST_KEYS:
        counts: Ints = np.searchsorted(ordered, found, "right") - np.searchsorted(ordered, found)
        found = found[np.argsort(-counts, kind="stable")[:_MOST_KEYS]]
    return found


def _vectors(columns: Sequence[Ints], rows: Ints, fewest: int) -> Iterator[Ints]:
    """Yield the rows of each vector with at least so many of these rows; rows of a rare vector before others end it."""
    for _ in range(_MOST_VECTORS_OF_KEY):
        if len(rows) < fewest:
            return
        same = np.ones(len(rows), dtype=np.bool_)
        for column in columns:
            same &= column[rows] == column[rows[0]]
        if np.count_nonzero(same) >= fewest:
            yield rows[same]
        rows = rows[~same]


def conflicting(keys: Keys, columns: Sequence[Floats], label_conflict: Mask, copied: Sequence[Keys]) -> set[bytes]:
    """Return the vectors with several labels of which other files hold copies.

    Args:
        keys: Row keys of a bucket, shape (rows,).
        columns: Its features, each of shape (rows,).
        label_conflict: Its rows with several labels, shape (rows,).
        copied: Keys of vectors that have copies.
    """
    if not copied or not label_conflict.any():
        return set()
    rows = np.flatnonzero(label_conflict & np.isin(keys, np.concatenate(copied)))
    return _bytes_of(keys[rows], [column[rows] for column in columns])


def _bytes_of(keys: Keys, columns: Sequence[Floats]) -> set[bytes]:
    """Return distinct vectors, each with its key; 0.0 and -0.0 are equal."""
    matrix = np.column_stack([keys, *((column + 0.0).view(np.int64) for column in columns)])
    return {row.tobytes() for row in np.unique(matrix, axis=0)}


def have_keys(vectors: set[bytes], keys: Keys) -> bool:
    """Return whether a vector, from `conflicting`, has one of the keys."""
    return not {np.frombuffer(vector[:8], np.int64)[0] for vector in vectors}.isdisjoint(keys.tolist())


def marked(uri: str, vectors: set[bytes], features: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the row groups of a file of copies, with `label_conflict` for those of the vectors from `conflicting`."""
    known = [np.frombuffer(vector, np.int64) for vector in sorted(vectors)]
    with open_part(uri) as file:
        for group in range(len(file.rows)):
            table = file.read(file.schema.names, group)
            keys = table["row_key"].to_numpy()
            mask = np.zeros(len(table), dtype=np.bool_)
            for vector in known:
                rows = np.flatnonzero(keys == vector[0])
                for name, value in zip(features, vector[1:], strict=True):
                    rows = rows[(table[name].to_numpy()[rows] + 0.0).view(np.int64) == value]
                mask[rows] = True
            place = table.column_names.index("label_conflict")
            yield table.set_column(place, table.field("label_conflict"), pa.array(mask)).replace_schema_metadata()


def is_of_copies(uri: str) -> bool:
    """Return whether a file of `flows/` has the name of one with copies."""
    return uri.rsplit("/", 1)[-1].startswith(f"{FILE_START}-")


def labels_of(uri: str) -> Ids:
    """Return the label of each row in a file of copies, shape (rows,)."""
    with open_part(uri) as file:
        labels: Ids = file.read(["label19"])["label19"].to_numpy()
    return labels
