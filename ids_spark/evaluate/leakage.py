"""Leakage audit: duplicates, train/test overlap, label conflicts, spread of features, univariate AUC.

Two passes over `flows/`. The first selects the sample of train rows of each class: rows with the smallest mixed row
keys, so that the sample is the same on any cluster. The second reads each row group once and shuffles two things: row
keys (of the features as double and as float32) to the partition of their hash range, and moments and sample values
to the partition of their feature. The driver receives only mixed keys and figures.

Equal keys are treated as equal feature vectors. Among n vectors about n²/2⁶⁵ pairs have equal keys by chance: 2e-6
pairs for the whole of CICIoMT2024. Duplicates in double do not depend on this: ingest marks them by comparing the
values.

Memory: a task holds one row group, one range of about 500,000 keys, or about 5,000,000 sample values (at least those
of one feature: classes × `sample_rows`), 8 bytes each and one or two copies; the driver 8 bytes × classes ×
`sample_rows` for each of the last few partial samples that it merges.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import SparkContext

from ids_spark.base.arrays import Floats, Keys
from ids_spark.base.errors import InputError
from ids_spark.base.spark_tasks import run_merged, run_shuffled
from ids_spark.dataset.features import SOURCE_SPLITS, FeatureSchema
from ids_spark.dataset.taxonomy import CLASS19, UnknownClass
from ids_spark.evaluate.univariate_auc import order_auc, range_auc
from ids_spark.features.feature_table import Bucket
from ids_spark.features.moments import Moments, moments_of
from ids_spark.ingest import row_hash
from ids_spark.lake.parquet import open_part

_KEYS_PER_TASK: Final = 500_000
_VALUES_PER_TASK: Final = 5_000_000
_SAMPLE_SALT: Final = np.uint64(
    0x9FB21C651E98DF25
)  # odd; mixes the keys, so that the sample is not from one bucket only
Record = Any
PRECISIONS: Final = ("double", "float32")
Pair = tuple[str, str]
KeyedRows = tuple[int, Keys, NDArray[np.int8], NDArray[np.bool_]]
"""Index of a split, then row keys, class ids and the column `duplicate` of some of its rows, each of shape (rows,)."""
FeaturePart = tuple[int, tuple[int, int], Moments, dict[int, Floats]]
"""Index of a feature, bucket and row group of its rows, their moments, and their sampled values by class id."""


class Measure(NamedTuple):
    """Name of one figure; parts that do not apply are None.

    Attributes:
        what: `flows`, `duplicates_*`, `label_conflicts_*`, `overlap_*` (`*`: double, float32), `std`, `dropped`,
            `infinite`, `sampled`, `auc`, `auc_ranges`.
        split: `train` or `test`; null for `overlap_*`.
        class_name: The class; of `overlap_*` the label in test; null for a total over all classes.
        other_class: The other class of a pair; of `overlap_*` the label in train.
        feature: Official name.
    """

    what: str
    split: str | None = None
    class_name: str | None = None
    other_class: str | None = None
    feature: str | None = None


Figures = dict[Measure, float]


@dataclass(frozen=True)
class LeakagePlan:
    """Parameters of the audit.

    Attributes:
        schema: Feature schema of the flows.
        pairs: Class pairs for the single-feature AUC.
        sample_rows: Maximum sample of a class.
        min_std: A feature at or below this standard deviation would be dropped.
        key_tasks: Number of hash ranges of the keys.
        feature_tasks: Number of groups of features.
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
    """Return the plan for a number of flows.

    Raises:
        InputError: when there is no flow, or a pair names an unknown class or one class twice.
    """
    pairs = tuple(pairs)
    unknown = sorted({name for pair in pairs for name in pair} - set(CLASS19))
    if unknown:
        raise UnknownClass(f"leakage.pairs names {', '.join(unknown)}; expected classes of {', '.join(CLASS19)}")
    if same := [a for a, b in pairs if a == b]:
        raise InputError(f"leakage.pairs compares {same[0]} with itself; name two classes")
    if not rows:
        raise InputError("flows/ holds no row; run jobs/ingest.py on a source with rows first")
    sampled = min(rows, sample_rows * len({name for pair in pairs for name in pair}))
    feature_tasks = min(len(schema.features), 1 + sampled * len(schema.features) // _VALUES_PER_TASK)
    return LeakagePlan(schema, pairs, sample_rows, min_std, -(-rows // _KEYS_PER_TASK), feature_tasks)


def measure(
    spark_context: SparkContext,
    buckets: Sequence[Bucket],
    plan: LeakagePlan,
    copied: Mapping[tuple[str, str], int] | None = None,
) -> Figures:
    """Return every figure of the report; a figure without rows is absent.

    Args:
        spark_context: Its executors read and count.
        buckets: Of `flows/`.
        plan: From `leakage_plan`.
        copied: Rows that are in no bucket, by (split, class19): duplicates of rows that are.
    """
    limits = _sample_limits(spark_context, buckets, plan)

    def scatter(bucket: Bucket) -> Iterator[tuple[int, Record]]:
        return _scatter(bucket, limits, plan)

    def gather(partition: int, records: Iterable[Record]) -> list[Figures]:
        contents = list(records)
        if partition < len(PRECISIONS) * plan.key_tasks:
            return [_key_figures(PRECISIONS[partition // plan.key_tasks], contents)]
        return [
            _feature_figures(
                plan.schema.features[feature], [c for c in contents if c[0] == feature], plan.pairs, plan.min_std
            )
            for feature in sorted({content[0] for content in contents})
        ]

    partitions = len(PRECISIONS) * plan.key_tasks + plan.feature_tasks
    total: Figures = {}
    for part in itertools.chain.from_iterable(run_shuffled(spark_context, buckets, partitions, scatter, gather)):
        for name, value in part.items():
            total[name] = total.get(name, 0) + value
    for what in ("flows", *(f"duplicates_{precision}" for precision in PRECISIONS)):
        for (split, class19), rows in (copied or {}).items():
            place = Measure(what, split, class19)
            total[place] = total.get(place, 0) + rows
    return total


def _row_groups(bucket: Bucket, columns: list[str]) -> Iterator[pa.Table]:
    with open_part(bucket.uri) as file:
        for i in range(len(file.rows)):
            yield file.read(columns, i).combine_chunks()


def _mixed(keys: Keys) -> NDArray[np.uint64]:
    return (keys.view(np.uint64) ^ _SAMPLE_SALT) * _SAMPLE_SALT


def _sample_limits(spark_context: SparkContext, buckets: Sequence[Bucket], plan: LeakagePlan) -> dict[int, np.uint64]:
    """Return the largest mixed key in the sample of each class that is in a pair and in train."""
    class_ids = sorted({CLASS19.index(name) for pair in plan.pairs for name in pair})
    limit = plan.sample_rows
    Smallest = dict[int, NDArray[np.uint64]]

    def smallest(a: Smallest, b: Smallest) -> Smallest:
        both = {
            label: np.concatenate([part[label] for part in (a, b) if label in part]) for label in a.keys() | b.keys()
        }
        return {label: np.partition(v, limit)[:limit] if len(v) > limit else v for label, v in both.items()}

    def candidates(bucket: Bucket) -> Smallest:
        found: Smallest = {}
        for rows in _row_groups(bucket, ["row_key", "label19", "duplicate"]):
            labels, keep = rows["label19"].to_numpy(), ~rows["duplicate"].to_numpy()
            mixed = _mixed(rows["row_key"].to_numpy())
            of_class = {label: mixed[keep & (labels == label)] for label in class_ids}
            found = smallest(found, {label: v for label, v in of_class.items() if len(v)})
        return found

    train = [bucket for bucket in buckets if bucket.split == "train"]
    if not train or not class_ids:
        return {}
    merged = run_merged(spark_context, train, candidates, smallest)
    return {label: values.max() for label, values in merged.items()}


def _scatter(bucket: Bucket, limits: dict[int, np.uint64], plan: LeakagePlan) -> Iterator[tuple[int, Record]]:
    names, features_at = plan.schema.features, len(PRECISIONS) * plan.key_tasks
    split = SOURCE_SPLITS.index(bucket.split)
    for group, rows in enumerate(_row_groups(bucket, ["row_key", "label19", "duplicate", *names])):
        keys, labels, duplicate = (rows[name].to_numpy() for name in ("row_key", "label19", "duplicate"))
        columns = [rows[name].to_numpy() for name in names]
        for i, of_precision in enumerate((keys, row_hash.row_keys([as_float32(column) for column in columns]))):
            target = row_hash.buckets(of_precision, plan.key_tasks)
            for k in np.unique(target):
                at = target == k
                yield int(i * plan.key_tasks + k), (split, of_precision[at], labels[at].astype(np.int8), duplicate[at])
        if bucket.split != "train":
            continue
        mixed = _mixed(keys)
        samples = {label: np.flatnonzero(~duplicate & (labels == label) & (mixed <= limits[label])) for label in limits}
        for f, column in enumerate(columns):
            values = {label: column[at] for label, at in samples.items() if len(at)}
            part = (f, (bucket.index, group), moments_of(column[~duplicate]), values)
            yield features_at + f % plan.feature_tasks, part


def as_float32(column: Floats) -> Floats:
    """Return values rounded to float32, as doubles: values outside its range become infinite."""
    with np.errstate(over="ignore"):
        return column.astype(np.float32).astype(np.float64)


def _key_figures(precision: str, contents: Sequence[KeyedRows]) -> Figures:
    """Count duplicates, label conflicts and train/test overlap in one hash range, which holds every row of its keys.

    Args:
        precision: Precision of the features in the keys.
        contents: All rows of the range.
    """
    if not contents:
        return {}
    rows = pd.DataFrame(
        {
            "key": np.concatenate([keys for _, keys, _, _ in contents]),
            "split": np.concatenate([np.full(len(keys), split, np.int8) for split, keys, _, _ in contents]),
            "label": np.concatenate([labels for _, _, labels, _ in contents]),
            "marked": np.concatenate([marked for _, _, _, marked in contents]),
        }
    )
    repeated = rows.duplicated(["key", "split", "label"])
    figures: Figures = {}
    counted = [(f"duplicates_{precision}", rows[rows["marked"] if precision == "double" else repeated])]
    for what, some in [("flows", rows), *counted] if precision == "double" else counted:
        for (split, label), n in some.groupby(["split", "label"]).size().items():
            figures[Measure(what, SOURCE_SPLITS[split], CLASS19[label])] = int(n)
    distinct = rows.loc[~repeated, ["key", "split", "label"]]
    distinct = distinct[distinct.duplicated("key", keep=False)]
    for i, split in enumerate(SOURCE_SPLITS):
        of_split = distinct[distinct["split"] == i]
        pairs = of_split.merge(of_split, on="key")
        figures |= _pair_figures(f"label_conflicts_{precision}", split, pairs[pairs["label_x"] < pairs["label_y"]])
    test, train = (distinct[distinct["split"] == SOURCE_SPLITS.index(split)] for split in ("test", "train"))
    return figures | _pair_figures(f"overlap_{precision}", None, test.merge(train, on="key"))


def _pair_figures(what: str, split: str | None, found: pd.DataFrame) -> Figures:
    """Count distinct vectors in total and by pair of labels; a vector with three labels is in several pairs."""
    figures: Figures = {Measure(what, split): found["key"].nunique()}
    for (label, other), n in found.groupby(["label_x", "label_y"])["key"].nunique().items():
        figures[Measure(what, split, CLASS19[label], CLASS19[other])] = int(n)
    return figures


def _feature_figures(name: str, contents: Sequence[FeaturePart], pairs: Sequence[Pair], min_std: float) -> Figures:
    """Return the spread of one feature over train, and how well it alone separates each pair of classes.

    Args:
        name: Name of the feature.
        contents: All its parts.
        pairs: Classes to separate; a pair has no figure if one of its classes has no sample.
        min_std: At or below this standard deviation the feature would be dropped.
    """
    total = Moments()
    # merged in the order of the flows: the same rounding for any order of tasks
    for _, _, part, _ in sorted(contents, key=lambda content: content[1]):
        total = total.merged(part)
    std = total.saturated().std
    figures = {
        Measure("std", "train", feature=name): std,
        Measure("dropped", "train", feature=name): float(not std > min_std),
        Measure("infinite", "train", feature=name): float(total.above + total.below),
    }
    parts: dict[str, list[Floats]] = {}
    for _, _, _, values in contents:
        for label, column in values.items():
            parts.setdefault(CLASS19[label], []).append(column)
    samples = {class_name: np.sort(np.concatenate(columns)) for class_name, columns in parts.items()}
    if all(
        content[0] == 0 for content in contents
    ):  # rows are the same for every feature, so they are counted once, with the first
        figures |= {Measure("sampled", "train", class_name): len(v) for class_name, v in samples.items()}
    for a, b in pairs:
        if a in samples and b in samples:
            figures[Measure("auc", "train", a, b, name)] = order_auc(samples[a], samples[b])
            figures[Measure("auc_ranges", "train", a, b, name)] = range_auc(samples[a], samples[b])
    return figures
