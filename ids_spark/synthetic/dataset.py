"""Synthetic data set in the form of CICIoMT2024 at any scale: the official files, the same defects, no real row.

Spark assigns files to tasks; a task draws its file in chunks and writes them with pyarrow. Each chunk has a random
generator seeded by (seed, file name, chunk): rows depend on seed, scale and arguments only, not on the cluster. No row
passes through the driver, and a task holds one chunk at a time, at any scale. `plan` determines which rows are
duplicates, `sampler` draws rows, `distributions` holds their distributions.
"""

import logging
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from ids_spark.base.arrays import Floats
from ids_spark.base.errors import InputError
from ids_spark.base.spark_tasks import run_each
from ids_spark.dataset.features import FEATURE_SCHEMAS, SOURCE_SPLITS, FeatureSchema
from ids_spark.ingest.sources import SYNTHETIC_MARK
from ids_spark.lake import filesystem
from ids_spark.lake.store import Lake
from ids_spark.synthetic import sampler
from ids_spark.synthetic.distributions import class_model
from ids_spark.synthetic.plan import FilePlan, Pool, generator, plan_dataset
from ids_spark.synthetic.target import remove_folder

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)

GENERATOR: Final = 1  # increment when the same arguments give other rows
_MAX_SCALE: Final = 10.0

FileFormat = Literal["parquet", "csv"]
# Rows of a chunk, which is one row group; an even number, so that a row has the same parity in file and chunk.
_CHUNK_ROWS: Final = 65_536


@dataclass(frozen=True)
class FileTask:
    """Arguments of a task: the plan of one file, the root of the target, and arguments of the data set."""

    file: FilePlan
    root: str
    seed: int
    schema_name: str
    file_format: FileFormat
    capture_day_iat: bool


@dataclass(frozen=True)
class DatasetReport:
    """Facts about the data set written; also in `_SYNTHETIC.json` at the root of the target.

    Attributes:
        synthetic: Always true.
        complete: Whether every file was written; false in the marker file of an interrupted run.
        generator: Version of the generator.
        target: Folder.
        feature_schema: Feature schema of the imitated release.
        seed: As in `write_dataset`.
        scale: As in `write_dataset`.
        min_rows_per_file: As in `write_dataset`.
        capture_day_iat: As in `write_dataset`.
        file_format: Format of every file.
        rows: Rows of each split.
        duplicates: For each split the rows that exact deduplication on features and class removes.
        label_conflict_vectors: For each split the vectors with two classes.
        shared_vectors: Vectors in both splits.
        near_duplicates: For each split the flood rows planned to equal another one in single precision; about 0.01 %
            of them are overwritten by planted vectors.
        rows_per_file: Rows by path below the target.
        seconds: Duration.
        data_origin: Always `synthetic`.
    """

    synthetic: bool
    complete: bool
    generator: int
    target: str
    feature_schema: str
    seed: int
    scale: float
    min_rows_per_file: int
    capture_day_iat: bool
    file_format: FileFormat
    rows: Mapping[str, int]
    duplicates: Mapping[str, int]
    label_conflict_vectors: Mapping[str, int]
    shared_vectors: int
    near_duplicates: Mapping[str, int]
    rows_per_file: Mapping[str, int]
    seconds: float = 0.0
    data_origin: str = "synthetic"


def write_dataset(
    spark: "SparkSession",
    target: str,
    scale: float,
    seed: int,
    schema: FeatureSchema,
    file_format: FileFormat,
    min_rows_per_file: int = 1,
    capture_day_iat: bool = True,
) -> DatasetReport:
    """Write a synthetic data set below `target`; an earlier one there is replaced.

    Args:
        spark: Its executors draw and write.
        target: Folder, local or a URI that every executor can access.
        scale: Rows relative to the data set; at most 10.
        seed: Equal seeds give equal rows.
        schema: Feature schema of the release to imitate.
        file_format: Format of every file.
        min_rows_per_file: Minimum number of rows of a file.
        capture_day_iat: Whether `IAT` of the first release contains the time of the capture, as in the data set;
            otherwise it is the time between packets.

    Raises:
        InputError: when `target` holds anything other than a synthetic data set, or an argument is out of range.
            Nothing was written.
    """
    started = time.monotonic()
    if not 0 < scale <= _MAX_SCALE or min_rows_per_file < 1 or seed < 0:
        raise InputError(
            f"synthesize: found scale {scale}, min_rows_per_file {min_rows_per_file}, seed {seed}; expected a scale"
            f" above 0 and at most {_MAX_SCALE:g}, min_rows_per_file of at least 1 and a seed of at least 0"
        )
    plan = plan_dataset(scale, seed, min_rows_per_file)
    root = Lake(target).root
    tasks = {
        f"{f.split}/{f.name}.pcap.{file_format}": FileTask(f, root, seed, schema.name, file_format, capture_day_iat)
        for f in plan.files
    }
    report = DatasetReport(
        synthetic=True,
        complete=False,
        generator=GENERATOR,
        target=root,
        feature_schema=schema.name,
        seed=seed,
        scale=scale,
        min_rows_per_file=min_rows_per_file,
        capture_day_iat=capture_day_iat,
        file_format=file_format,
        rows={split: sum(f.rows for f in plan.files if f.split == split) for split in SOURCE_SPLITS},
        duplicates=plan.duplicates,
        label_conflict_vectors=plan.label_conflicts,
        shared_vectors=plan.in_both_splits,
        near_duplicates=plan.near_duplicates,
        rows_per_file={path: task.file.rows for path, task in tasks.items()},
    )
    _refuse_other_content(target)
    # The marker file is written before the first row, so that interrupted data are marked as synthetic and incomplete.
    filesystem.write_json(f"{root}/{SYNTHETIC_MARK}", asdict(report))
    _remove_rows(root)
    log.info(
        "synthetic data set starts data_origin=synthetic target=%s files=%d rows=%s", root, len(tasks), report.rows
    )
    longest_first = sorted(
        tasks.values(), key=lambda task: -task.file.rows
    )  # otherwise a long task may run alone at the end
    run_each(spark.sparkContext, longest_first, write_file)
    report = replace(report, complete=True, seconds=round(time.monotonic() - started, 1))
    filesystem.write_json(f"{root}/{SYNTHETIC_MARK}", asdict(report))
    log.info(
        "synthetic data set written data_origin=synthetic target=%s rows=%s duplicates=%s seconds=%.1f",
        root,
        report.rows,
        report.duplicates,
        report.seconds,
    )
    return report


def _refuse_other_content(target: str) -> None:
    """Raise `InputError` unless the target does not exist, is empty, or is an earlier synthetic data set."""
    fs, path = filesystem.resolve(target)
    kind = fs.get_file_info(path).type
    if kind == pafs.FileType.NotFound:
        return
    expected = "expected no folder, an empty one, or a synthetic data set; set synthesize.target to another folder"
    if kind == pafs.FileType.File:
        raise InputError(f"{target} is a file; {expected}")
    found = filesystem.names_in(target)
    if found and not _is_synthetic(target):
        raise InputError(
            f"{target} holds {len(found)} entries ({', '.join(found[:3])}) and no {SYNTHETIC_MARK} of a synthetic"
            f" data set; {expected}"
        )


def _is_synthetic(target: str) -> bool:
    try:
        mark = filesystem.read_json(f"{target.rstrip('/')}/{SYNTHETIC_MARK}")
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(mark, dict) and mark.get("synthetic") is True


def _remove_rows(root: str) -> None:
    """Remove the splits of an earlier synthetic data set, and nothing else."""
    fs, path = filesystem.resolve(root)
    for split in SOURCE_SPLITS:
        remove_folder(fs, f"{path}/{split}")


def write_file(task: FileTask) -> int:
    """Draw and write one file under a temporary name, then rename it; return its rows.

    A failed attempt removes its file; a killed one leaves a hidden file, which readers ignore.
    """
    fs, root = filesystem.resolve(task.root)
    folder, name = f"{root}/{task.file.split}", f"{task.file.name}.pcap.{task.file_format}"
    path, unfinished = f"{folder}/{name}", f"{folder}/.{name}.{uuid.uuid4().hex}"
    filesystem.make_folder(fs, folder)
    try:
        with fs.open_output_stream(unfinished) as stream:
            _write_rows(task, stream)
        if fs.get_file_info(path).type == pafs.FileType.File:
            fs.delete_file(path)  # from an earlier attempt of this task, with the same rows
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
        stream.write((",".join(schema.features) + "\n").encode())  # pyarrow would quote the names
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
    planted = [(part, _vectors(task, part.pool, schema)) for part in file.planted]
    for start in range(0, file.rows, _CHUNK_ROWS):
        end = min(start + _CHUNK_ROWS, file.rows)
        near = file.near * end // file.rows - file.near * start // file.rows
        drawn = end - start - near
        rng = generator(task.seed, file.name, start // _CHUNK_ROWS)
        values = sampler.draw(schema, model, np.arange(drawn) % 2 == 1, rng)
        if near:  # only in floods, whose rows do not depend on parity
            sources = np.append(np.arange(drawn), rng.integers(0, drawn, size=near))
            values = np.take(values, rng.permutation(sources), axis=1)
        values[iat] = sampler.number(values[iat], np.arange(file.first_id + start, file.first_id + end))
        for part, vectors in planted:
            in_chunk = (part.rows >= start) & (part.rows < end)
            values[:, part.rows[in_chunk] - start] = vectors[:, part.vectors[in_chunk]]
        yield values


def _vectors(task: FileTask, pool: Pool, schema: FeatureSchema) -> Floats:
    """Return all vectors of a pool, shape (features, vectors): the same for every file that uses the pool."""
    model = class_model(schema, pool.class19, "train", task.capture_day_iat)
    numbers = np.arange(pool.size)
    rng = generator(task.seed, "pool", pool.name)
    values = sampler.draw(schema, model, numbers % 2 == 1, rng)
    iat = schema.features.index("IAT")
    values[iat] = sampler.number(values[iat], pool.first_id + numbers)
    return values
