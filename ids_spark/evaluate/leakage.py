"""What a data set gives away or repeats: duplicates, vectors shared between splits, labels at odds, telling features.

Two passes over `flows/`. The first finds, for each class, which train rows are its sample: those with the smallest
mixed row keys, so the sample is the same on any cluster. The second reads each row group once and shuffles two things:
row keys (of the features in double and cast to float32) to the partition of their hash range, and moments and sample
values to the partition of their feature. Only mixed keys and figures reach the driver.

Equal keys stand for equal vectors here. Among n vectors about n²/2⁶⁵ pairs collide by chance: 2e-6 pairs for the whole
of CICIoMT2024. Duplicates in double do not rest on that: `flows/` marks them after a look at the values.

Memory: a task holds one row group, one range of about 500,000 keys, or about 5,000,000 sample values (at least those
of one feature: classes × `sample_rows`), 8 bytes each and a copy or two; the driver 8 bytes × classes × `sample_rows`
for each of the last few partial samples that it merges.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyspark import SparkContext

from ids_spark.base.arrays import Floats, Keys
from ids_spark.base.errors import InputError
from ids_spark.dataset.features import SOURCE_SPLITS, FeatureSchema
from ids_spark.dataset.taxonomy import CLASS19, UnknownClass
from ids_spark.evaluate.leakage_counts import PRECISIONS, Figures, Pair, feature_figures, key_figures
from ids_spark.features.feature_table import Bucket
from ids_spark.features.moments import moments_of
from ids_spark.ingest import row_hash
from ids_spark.lake.filesystem import resolve

_KEYS_PER_TASK: Final = 500_000
_VALUES_PER_TASK: Final = 5_000_000
_SAMPLE_SALT: Final = np.uint64(0x9FB21C651E98DF25)  # any odd number: the sample shall not be the rows of one bucket
Record = tuple[int, Any]


@dataclass(frozen=True)
class LeakagePlan:
    """What to measure.

    Attributes:
        schema: Feature schema of the flows.
        pairs: Class pairs for the single-feature AUC.
        sample_rows: Largest sample of a class.
        min_std: A feature at or below this standard deviation would be dropped.
        key_tasks: Hash ranges that the keys of all rows are dealt into.
        feature_tasks: Groups that the features are dealt into.
    """

    schema: FeatureSchema
    pairs: tuple[Pair, ...]
    sample_rows: int
    min_std: float
    key_tasks: int
    feature_tasks: int


def leakage_plan(
    schema: FeatureSchema, rows: int, pairs: Iterable[Pair], sample_rows: int, min_std: float
) -> LeakagePlan:
    """Return the plan for so many flows.

    Raises:
        InputError: when there is no flow, or a pair names an unknown class or one class twice.
    """
    pairs = tuple(pairs)
    unknown = sorted({name for pair in pairs for name in pair} - set(CLASS19))
    if unknown:
        raise UnknownClass(f"leakage.pairs names {', '.join(unknown)}; expected classes of {', '.join(CLASS19)}")
    if twice := [a for a, b in pairs if a == b]:
        raise InputError(f"leakage.pairs compares {twice[0]} with itself; name two classes")
    if not rows:
        raise InputError("flows/ holds no row; run jobs/ingest.py on a source with rows first")
    sampled = min(rows, sample_rows * len({name for pair in pairs for name in pair}))
    feature_tasks = min(len(schema.features), 1 + sampled * len(schema.features) // _VALUES_PER_TASK)
    return LeakagePlan(schema, pairs, sample_rows, min_std, -(-rows // _KEYS_PER_TASK), feature_tasks)


def measure(spark_context: SparkContext, buckets: Sequence[Bucket], plan: LeakagePlan) -> Figures:
    """Return every figure of the report; figures without rows behind them are absent."""
    limits = _sample_limits(spark_context, buckets, plan)

    def scatter(dealt: Iterable[Bucket]) -> Iterator[Record]:
        for bucket in dealt:
            yield from _scatter(bucket, limits, plan)

    def gather(partition: int, records: Iterable[Record]) -> Iterator[Figures]:
        contents = [content for _, content in records]
        if partition < len(PRECISIONS) * plan.key_tasks:
            yield key_figures(PRECISIONS[partition // plan.key_tasks], contents)
            return
        for feature in sorted({content[0] for content in contents}):
            parts = [content for content in contents if content[0] == feature]
            yield feature_figures(plan.schema.features[feature], parts, plan.pairs, plan.min_std)

    partitions = len(PRECISIONS) * plan.key_tasks + plan.feature_tasks
    scattered = spark_context.parallelize(buckets, len(buckets)).mapPartitions(scatter)
    total: Figures = {}
    for part in scattered.partitionBy(partitions, lambda home: home).mapPartitionsWithIndex(gather).collect():
        for name, value in part.items():
            total[name] = total.get(name, 0) + value
    return total


def _row_groups(bucket: Bucket, columns: list[str]) -> Iterator[pa.Table]:
    fs, path = resolve(bucket.uri)
    with fs.open_input_file(path) as stream:
        file = pq.ParquetFile(stream)
        for i in range(file.num_row_groups):
            yield file.read_row_group(i, columns=columns, use_threads=False).combine_chunks()


def _mixed(keys: Keys) -> NDArray[np.uint64]:
    return (keys.view(np.uint64) ^ _SAMPLE_SALT) * _SAMPLE_SALT


def _sample_limits(spark_context: SparkContext, buckets: Sequence[Bucket], plan: LeakagePlan) -> dict[int, np.uint64]:
    """Return the largest mixed key in the sample of each class that a pair names and train holds."""
    wanted = sorted({CLASS19.index(name) for pair in plan.pairs for name in pair})
    most = plan.sample_rows
    Smallest = dict[int, NDArray[np.uint64]]

    def smallest(a: Smallest, b: Smallest) -> Smallest:
        both = {
            label: np.concatenate([part[label] for part in (a, b) if label in part]) for label in a.keys() | b.keys()
        }
        return {label: np.partition(v, most)[:most] if len(v) > most else v for label, v in both.items()}

    def candidates(bucket: Bucket) -> Smallest:
        found: Smallest = {}
        for rows in _row_groups(bucket, ["row_key", "label19", "duplicate"]):
            labels, keep = rows["label19"].to_numpy(), ~rows["duplicate"].to_numpy()
            mixed = _mixed(rows["row_key"].to_numpy())
            of_class = {label: mixed[keep & (labels == label)] for label in wanted}
            found = smallest(found, {label: v for label, v in of_class.items() if len(v)})
        return found

    train = [bucket for bucket in buckets if bucket.split == "train"]
    if not train or not wanted:
        return {}
    merged = spark_context.parallelize(train, len(train)).map(candidates).treeReduce(smallest)
    return {label: values.max() for label, values in merged.items()}


def _scatter(bucket: Bucket, limits: dict[int, np.uint64], plan: LeakagePlan) -> Iterator[Record]:
    names, features_at = plan.schema.features, len(PRECISIONS) * plan.key_tasks
    split = SOURCE_SPLITS.index(bucket.split)
    for group, rows in enumerate(_row_groups(bucket, ["row_key", "label19", "duplicate", *names])):
        keys, labels, duplicate = (rows[name].to_numpy() for name in ("row_key", "label19", "duplicate"))
        columns = [rows[name].to_numpy() for name in names]
        for i, of_precision in enumerate((keys, row_hash.row_keys([_as_float32(column) for column in columns]))):
            home = row_hash.buckets(of_precision, plan.key_tasks)
            for k in np.unique(home):
                at = home == k
                yield int(i * plan.key_tasks + k), (split, of_precision[at], labels[at].astype(np.int8), duplicate[at])
        if bucket.split != "train":
            continue
        mixed = _mixed(keys)
        samples = {label: np.flatnonzero(~duplicate & (labels == label) & (mixed <= limits[label])) for label in limits}
        for f, column in enumerate(columns):
            values = {label: column[at] for label, at in samples.items() if len(at)}
            part = (f, (bucket.index, group), moments_of(column[~duplicate]), values)
            yield features_at + f % plan.feature_tasks, part


def _as_float32(column: Floats) -> Floats:
    """Return what float32 keeps of each value, as doubles: values beyond its range become infinite, and so equal."""
    with np.errstate(over="ignore"):
        return column.astype(np.float32).astype(np.float64)
