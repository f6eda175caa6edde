"""One file of the synthetic replica: drawn in chunks of fixed size and written by the task that owns it.

Each chunk comes from a generator seeded by (seed, file name, chunk), so its rows do not depend on who draws them, and a
task never holds more than one chunk, whatever the scale.
"""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from ids_spark.base.arrays import Floats
from ids_spark.dataset.features import FEATURE_SCHEMAS, FeatureSchema
from ids_spark.lake import filesystem
from ids_spark.synthetic import plan, sampler
from ids_spark.synthetic.distributions import class_model
from ids_spark.synthetic.plan import FilePlan, Pool

FileFormat = Literal["parquet", "csv"]
# Rows of a chunk, which is one row group; even, so that a row has the same parity in its file and in its chunk.
_CHUNK_ROWS: Final = 65_536


@dataclass(frozen=True)
class FileTask:
    """What a task is told: its part of the plan, the root of the target, and the arguments of the replica."""

    file: FilePlan
    root: str
    seed: int
    schema_name: str
    file_format: FileFormat
    capture_day_iat: bool


def write_file(task: FileTask) -> int:
    """Draw and write one file under a temporary name, then rename it; return its rows.

    A failed attempt removes what it wrote; a killed one leaves a hidden file, which no reader takes.
    """
    fs, root = filesystem.resolve(task.root)
    folder, name = f"{root}/{task.file.split}", f"{task.file.name}.pcap.{task.file_format}"
    path, unfinished = f"{folder}/{name}", f"{folder}/.{name}.{uuid.uuid4().hex}"
    filesystem.make_folder(fs, folder)
    try:
        with fs.open_output_stream(unfinished) as stream:
            _write_rows(task, stream)
        if fs.get_file_info(path).type == pafs.FileType.File:
            fs.delete_file(path)  # of an attempt whose end Spark did not see; it holds the same rows
        fs.move(unfinished, path)
    except BaseException:
        if fs.get_file_info(unfinished).type == pafs.FileType.File:
            fs.delete_file(unfinished)
        raise
    return task.file.rows


def _write_rows(task: FileTask, stream: pa.NativeFile) -> None:
    schema = FEATURE_SCHEMAS[task.schema_name]
    columns = pa.schema([(feature, pa.float64()) for feature in schema.features])
    if task.file_format == "csv":
        stream.write((",".join(schema.features) + "\n").encode())  # pyarrow would put the names in quotes
        for values in chunks(task):
            pa_csv.write_csv(_batch(values, columns), stream, pa_csv.WriteOptions(include_header=False))
        return
    marked = columns.with_metadata({"ids_spark.data_origin": "synthetic", "ids_spark.feature_schema": schema.name})
    with pq.ParquetWriter(stream, marked, compression="snappy", use_dictionary=False) as writer:
        for values in chunks(task):
            writer.write_batch(_batch(values, marked), row_group_size=_CHUNK_ROWS)


def _batch(values: Floats, columns: pa.Schema) -> pa.RecordBatch:
    return pa.record_batch([pa.array(column) for column in values], schema=columns)


def chunks(task: FileTask) -> Iterator[Floats]:
    """Yield the rows of a file in order, shape (features, rows of the chunk)."""
    file = task.file
    schema = FEATURE_SCHEMAS[task.schema_name]
    model = class_model(schema, file.class19, file.split, task.capture_day_iat)
    iat = schema.features.index("IAT")
    planted = [(place, _vectors(task, place.pool, schema)) for place in file.planted]
    for start in range(0, file.rows, _CHUNK_ROWS):
        end = min(start + _CHUNK_ROWS, file.rows)
        near = file.near * end // file.rows - file.near * start // file.rows
        drawn = end - start - near
        rng = plan.generator(task.seed, file.name, start // _CHUNK_ROWS)
        values = sampler.draw(schema, model, np.arange(drawn) % 2 == 1, rng)
        if near:  # floods only, whose rows do not depend on parity
            sources = np.append(np.arange(drawn), rng.integers(0, drawn, size=near))
            values = np.take(values, rng.permutation(sources), axis=1)
        values[iat] = sampler.number(values[iat], np.arange(file.first_id + start, file.first_id + end))
        for place, vectors in planted:
            here = (place.rows >= start) & (place.rows < end)
            values[:, place.rows[here] - start] = vectors[:, place.vectors[here]]
        yield values


def _vectors(task: FileTask, pool: Pool, schema: FeatureSchema) -> Floats:
    """Return all vectors of a pool, shape (features, vectors): the same in every file that shows some of them."""
    model = class_model(schema, pool.class19, "train", task.capture_day_iat)
    numbers = np.arange(pool.size)
    rng = plan.generator(task.seed, "pool", pool.name)
    values = sampler.draw(schema, model, numbers % 2 == 1, rng)
    iat = schema.features.index("IAT")
    values[iat] = sampler.number(values[iat], pool.first_id + numbers)
    return values
