"""A synthetic replica of CICIoMT2024 at any scale: the official tree of files, its quirks, and no row of the data set.

Spark deals out files; a task draws its file in chunks of fixed size, each from a generator seeded by (seed, file,
chunk), and writes them with pyarrow. So the rows depend on seed, scale and arguments only, never on the cluster, and no
row passes through the driver. `replica_rows` says how a row is drawn, `replica_plan` which rows repeat others.
"""

import logging
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from ids_spark import lake, replica_plan, replica_rows
from ids_spark.errors import InputError
from ids_spark.replica_plan import FilePlan, Plan, Planted
from ids_spark.replica_profile import class_model
from ids_spark.replica_rows import Floats
from ids_spark.schema import FEATURE_SCHEMAS, FeatureSchema

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)

MARKER: Final = "_SYNTHETIC.json"
GENERATOR: Final = 1  # rises whenever the same arguments give other rows
FileFormat = Literal["parquet", "csv"]
_CHUNK_ROWS: Final = 65_536  # even, so that the parity of a row is that of its place in the chunk
_SCALES: Final = (0.001, 10.0)


@dataclass(frozen=True)
class ReplicaReport:
    """What was written.

    Attributes:
        target: Where.
        data_origin: Always `synthetic`.
        feature_schema: Which release was imitated.
        rows_per_file: Rows by path below the target.
        rows: Rows of each split.
        duplicates: For each split the rows that exact deduplication on features and class removes.
        two_label_vectors: For each split the vectors that stand in two classes.
        shared_vectors: Vectors that stand in both splits.
        near_duplicates: For each split the flood rows that single precision cannot tell from another row.
        seconds: How long it took.
    """

    target: str
    data_origin: str
    feature_schema: str
    rows_per_file: Mapping[str, int]
    rows: Mapping[str, int]
    duplicates: Mapping[str, int]
    two_label_vectors: Mapping[str, int]
    shared_vectors: int
    near_duplicates: Mapping[str, int]
    seconds: float


@dataclass(frozen=True)
class _Task:
    file: FilePlan
    uri: str
    seed: int
    schema_name: str
    file_format: FileFormat
    capture_day_iat: bool


def write(
    spark: "SparkSession",
    target: str,
    scale: float,
    seed: int,
    schema: FeatureSchema,
    file_format: FileFormat,
    min_rows_per_file: int = 1,
    capture_day_iat: bool = True,
) -> ReplicaReport:
    """Write a synthetic replica below `target`; an earlier replica there is replaced.

    Args:
        spark: Its executors draw and write.
        target: Folder, local or a URI that every executor reaches.
        scale: Rows relative to the data set, 0.001 to 10.
        seed: Equal seeds give equal rows.
        schema: Which release to imitate.
        file_format: Of every file.
        min_rows_per_file: Small files keep at least so many rows.
        capture_day_iat: Whether `IAT` of the first release holds the capture's epoch, as it does in the data set;
            otherwise it is the time between packets.

    Raises:
        InputError: when `target` holds anything but a replica, or an argument is out of range. Nothing was written.
    """
    started = time.monotonic()
    if not _SCALES[0] <= scale <= _SCALES[1] or min_rows_per_file < 1 or seed < 0:
        raise InputError(
            f"replica: found scale {scale}, min_rows_per_file {min_rows_per_file}, seed {seed}; expected scale from"
            f" {_SCALES[0]} to {_SCALES[1]:g}, min_rows_per_file of at least 1 and a seed that is not negative"
        )
    _clear(target)
    plan = replica_plan.make(scale, seed, min_rows_per_file)
    root = lake.Lake(target).root
    facts = {
        "synthetic": True,
        "complete": False,
        "generator": GENERATOR,
        "seed": seed,
        "scale": scale,
        "min_rows_per_file": min_rows_per_file,
        "feature_schema": schema.name,
        "capture_day_iat": capture_day_iat,
        "format": file_format,
        "rows": {split: sum(f.rows for f in plan.files if f.split == split) for split in replica_plan.SPLITS},
        "duplicates": plan.duplicates,
        "two_label_vectors": plan.two_labels,
        "shared_vectors": plan.in_both_splits,
        "near_duplicates": plan.near_duplicates,
    }
    # The mark stands before the first synthetic row does, so that an interrupted run is recognised and replaced.
    lake.write_json(f"{root}/{MARKER}", facts)
    tasks = [
        _Task(f, f"{root}/{_path(f, file_format)}", seed, schema.name, file_format, capture_day_iat) for f in plan.files
    ]
    tasks.sort(key=lambda task: -task.file.rows)  # the longest first, so that none is left alone at the end
    log.info("writing data_origin=synthetic target=%s files=%d rows=%s", root, len(tasks), facts["rows"])
    spark.sparkContext.parallelize(tasks, len(tasks)).map(_write_file).collect()
    lake.write_json(f"{root}/{MARKER}", {**facts, "complete": True})
    seconds = time.monotonic() - started
    log.info("written data_origin=synthetic target=%s rows=%s seconds=%.1f", root, facts["rows"], seconds)
    return _report(root, schema, plan, file_format, seconds)


def _report(root: str, schema: FeatureSchema, plan: Plan, file_format: FileFormat, seconds: float) -> ReplicaReport:
    return ReplicaReport(
        target=root,
        data_origin="synthetic",
        feature_schema=schema.name,
        rows_per_file={_path(f, file_format): f.rows for f in plan.files},
        rows={split: sum(f.rows for f in plan.files if f.split == split) for split in replica_plan.SPLITS},
        duplicates=plan.duplicates,
        two_label_vectors=plan.two_labels,
        shared_vectors=plan.in_both_splits,
        near_duplicates=plan.near_duplicates,
        seconds=seconds,
    )


def _path(file: FilePlan, file_format: FileFormat) -> str:
    return f"{file.split}/{file.name}.pcap.{file_format}"


def _clear(target: str) -> None:
    """Remove an earlier replica; refuse anything else."""
    fs, path = lake.resolve(target)
    kind = fs.get_file_info(path).type
    if kind == pafs.FileType.NotFound:
        return
    expected = "expected a folder that is not there, is empty, or holds a replica; set replica.target to another one"
    if kind == pafs.FileType.File:
        raise InputError(f"{target} is a file; {expected}")
    found = fs.get_file_info(pafs.FileSelector(path))
    if not found:
        return
    if not lake.exists(f"{target}/{MARKER}") or lake.read_json(f"{target}/{MARKER}").get("synthetic") is not True:
        names = ", ".join(sorted(info.base_name for info in found)[:3])
        raise InputError(f"{target} holds {len(found)} entries ({names}) and no {MARKER}; {expected}")
    for info in found:
        if info.base_name in replica_plan.SPLITS:
            fs.delete_dir(info.path)


def _write_file(task: _Task) -> int:
    """Draw and write one file under a temporary name, then rename it; return its rows."""
    fs, path = lake.resolve(task.uri)
    folder, name = path.rsplit("/", 1)
    fs.create_dir(folder, recursive=True)
    unfinished = f"{folder}/.{name}.{uuid.uuid4().hex}"
    schema = FEATURE_SCHEMAS[task.schema_name]
    columns = pa.schema([(feature, pa.float64()) for feature in schema.features])
    try:
        with fs.open_output_stream(unfinished) as stream:
            if task.file_format == "parquet":
                _write_parquet(task, schema, columns, stream)
            else:
                stream.write((",".join(schema.features) + "\n").encode())
                for values in _chunks(task, schema):
                    pa_csv.write_csv(_batch(values, columns), stream, pa_csv.WriteOptions(include_header=False))
        if fs.get_file_info(path).type == pafs.FileType.File:
            fs.delete_file(path)  # of an attempt whose end Spark did not see
        fs.move(unfinished, path)
    except BaseException:
        if fs.get_file_info(unfinished).type == pafs.FileType.File:
            fs.delete_file(unfinished)
        raise
    return task.file.rows


def _write_parquet(task: _Task, schema: FeatureSchema, columns: pa.Schema, stream: pa.NativeFile) -> None:
    marked = columns.with_metadata({"ids_spark.data_origin": "synthetic", "ids_spark.feature_schema": schema.name})
    with pq.ParquetWriter(stream, marked, compression="snappy", use_dictionary=False) as writer:
        for values in _chunks(task, schema):
            writer.write_batch(_batch(values, marked), row_group_size=_CHUNK_ROWS)


def _batch(values: Floats, columns: pa.Schema) -> pa.RecordBatch:
    return pa.record_batch([pa.array(column) for column in values], schema=columns)


def _chunks(task: _Task, schema: FeatureSchema) -> Iterator[Floats]:
    """Yield the rows of a file in order, shape (features, rows of the chunk)."""
    file = task.file
    model = class_model(schema, file.class19, file.split, task.capture_day_iat)
    iat = schema.features.index("IAT")
    planted = [(p, _pool(task, p, schema, iat)) for p in file.planted]
    for start in range(0, file.rows, _CHUNK_ROWS):
        end = min(start + _CHUNK_ROWS, file.rows)
        rows = end - start
        rng = replica_plan.generator(task.seed, file.name, start // _CHUNK_ROWS)
        near = file.near * end // file.rows - file.near * start // file.rows
        values = replica_rows.draw(schema, model, np.arange(rows - near) % 2 == 1, rng)
        if near:
            sources = np.append(np.arange(rows - near), rng.integers(0, rows - near, size=near))
            values = np.take(values, rng.permutation(sources), axis=1)
        values[iat] = replica_rows.number(values[iat], np.arange(file.first_id + start, file.first_id + end))
        for place, vectors in planted:
            here = (place.rows >= start) & (place.rows < end)
            values[:, place.rows[here] - start] = vectors[:, place.vectors[here]]
        yield values


def _pool(task: _Task, planted: Planted, schema: FeatureSchema, iat: int) -> Floats:
    pool = planted.pool
    model = class_model(schema, pool.class19, "train", task.capture_day_iat)
    numbers = np.arange(pool.size)
    values = replica_rows.draw(schema, model, numbers % 2 == 1, replica_plan.generator(task.seed, "pool", pool.name))
    values[iat] = replica_rows.number(values[iat], pool.first_id + numbers)
    return values
