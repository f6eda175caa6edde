"""A synthetic replica of CICIoMT2024 at any scale: the official tree of files, its quirks, and no row of the data set.

Spark deals out files; a task draws its file in chunks and writes them with pyarrow. So the rows depend on seed, scale
and arguments only, never on the cluster, and no row passes through the driver. `replica_plan` says which rows repeat
others, `replica_rows` how a row is drawn, `replica_profile` and `replica_floods` from which distributions.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

import pyarrow.fs as pafs

from ids_spark.base.errors import InputError
from ids_spark.dataset.features import SOURCE_SPLITS, FeatureSchema
from ids_spark.ingest.sources import SYNTHETIC_MARK
from ids_spark.lake import filesystem
from ids_spark.lake.store import Lake
from ids_spark.synthetic.files import FileFormat, FileTask, write_file
from ids_spark.synthetic.plan import plan_dataset

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)

GENERATOR: Final = 1  # rises whenever the same arguments give other rows
_MOST_SCALE: Final = 10.0


@dataclass(frozen=True)
class ReplicaReport:
    """What was written; the same facts stand in `_SYNTHETIC.json` at the root of the target.

    Attributes:
        synthetic: Always true.
        complete: Whether every file is there; the mark of an interrupted run says false.
        generator: Version of the generator.
        target: Where.
        feature_schema: Which release was imitated.
        seed: As asked for.
        scale: As asked for.
        min_rows_per_file: As asked for.
        capture_day_iat: As asked for.
        file_format: Of every file.
        rows: Rows of each split.
        duplicates: For each split the rows that exact deduplication on features and class removes.
        label_conflict_vectors: For each split the vectors that stand in two classes.
        shared_vectors: Vectors that stand in both splits.
        near_duplicates: For each split the flood rows planned to equal another one in single precision; up to some
            ten in a hundred thousand are overwritten by planted vectors.
        rows_per_file: Rows by path below the target.
        seconds: How long it took.
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
) -> ReplicaReport:
    """Write a synthetic replica below `target`; an earlier replica there is replaced.

    Args:
        spark: Its executors draw and write.
        target: Folder, local or a URI that every executor reaches.
        scale: Rows relative to the data set; at most 10.
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
    if not 0 < scale <= _MOST_SCALE or min_rows_per_file < 1 or seed < 0:
        raise InputError(
            f"replica: found scale {scale}, min_rows_per_file {min_rows_per_file}, seed {seed}; expected a scale above"
            f" 0 and at most {_MOST_SCALE:g}, min_rows_per_file of at least 1 and a seed that is not negative"
        )
    plan = plan_dataset(scale, seed, min_rows_per_file)
    root = Lake(target).root
    tasks = {
        f"{f.split}/{f.name}.pcap.{file_format}": FileTask(f, root, seed, schema.name, file_format, capture_day_iat)
        for f in plan.files
    }
    report = ReplicaReport(
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
    # The mark stands before the first row does, so that an interrupted run is recognised as synthetic and incomplete.
    filesystem.write_json(f"{root}/{SYNTHETIC_MARK}", asdict(report))
    _remove_rows(root)
    log.info("replica starts data_origin=synthetic target=%s files=%d rows=%s", root, len(tasks), report.rows)
    longest_first = sorted(tasks.values(), key=lambda task: -task.file.rows)  # so that none is left alone at the end
    spark.sparkContext.parallelize(longest_first, len(tasks)).map(write_file).collect()
    report = replace(report, complete=True, seconds=round(time.monotonic() - started, 1))
    filesystem.write_json(f"{root}/{SYNTHETIC_MARK}", asdict(report))
    log.info(
        "replica written data_origin=synthetic target=%s rows=%s duplicates=%s seconds=%.1f",
        root,
        report.rows,
        report.duplicates,
        report.seconds,
    )
    return report


def _refuse_other_content(target: str) -> None:
    """Raise `InputError` unless the target is not there, an empty folder, or an earlier replica."""
    fs, path = filesystem.resolve(target)
    kind = fs.get_file_info(path).type
    if kind == pafs.FileType.NotFound:
        return
    expected = "expected a folder that is not there, is empty, or holds a replica; set synthesize.target to another one"
    if kind == pafs.FileType.File:
        raise InputError(f"{target} is a file; {expected}")
    found = sorted(info.base_name for info in fs.get_file_info(pafs.FileSelector(path)))
    if found and not _is_replica(target):
        raise InputError(
            f"{target} holds {len(found)} entries ({', '.join(found[:3])}) and no {SYNTHETIC_MARK} of a replica;"
            f" {expected}"
        )


def _is_replica(target: str) -> bool:
    try:
        mark = filesystem.read_json(f"{target.rstrip('/')}/{SYNTHETIC_MARK}")
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(mark, dict) and mark.get("synthetic") is True


def _remove_rows(root: str) -> None:
    """Remove the splits of an earlier replica, and nothing else."""
    fs, path = filesystem.resolve(root)
    for split in SOURCE_SPLITS:
        if fs.get_file_info(f"{path}/{split}").type == pafs.FileType.Directory:
            fs.delete_dir(f"{path}/{split}")
