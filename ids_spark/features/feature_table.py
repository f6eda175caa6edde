"""Writes `features/` from `flows/` in two passes over the buckets, without a shuffle: ingest has shuffled the rows.

Pass 1 reads the train buckets and returns moments and a sample. Pass 2 reads every bucket, drops duplicates, scales and
writes. Both process bucket by bucket, so statistics and tables do not depend on the number of tasks.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import SparkContext

from ids_spark.base.arrays import Floats, Ids, Keys, Mask
from ids_spark.base.spark_tasks import run_each
from ids_spark.dataset import taxonomy
from ids_spark.dataset.features import FeatureSchema
from ids_spark.dataset.tables import TABLES, features_contract, flows_contract, require
from ids_spark.features.moments import Moments, moments_of
from ids_spark.features.preprocess import Preprocessor, Recipe
from ids_spark.features.validation_rows import NO_BLOCK, HeldOut
from ids_spark.ingest import row_hash
from ids_spark.lake.filesystem import files_in
from ids_spark.lake.parquet import SUFFIX, keep_only, open_part, part_name, stored_names, write_part

_FLOWS: Final = TABLES["flows"]
LABELS: Final = ("label19", "label6", "label2")


@dataclass(frozen=True)
class Bucket:
    """One file of `flows/`."""

    uri: str
    split: str
    index: int


@dataclass
class FeatureCounts:
    """Counts of the flows of a table: read, dropped and written.

    Attributes:
        flows: Rows read, by (split, class19); split is train or test.
        duplicates: Rows dropped, by (split, class19).
        rows: Rows written, by (split, class19); split is train, validation or test.
        blocks: Validation rows of each held-out block, by its id.
        label_conflict_vectors: Feature vectors with several labels, by split of the flows; their rows are kept.
        label_conflict_rows: Rows of these, without duplicates, by split of the flows.
        row_groups: Number of row groups of each written split.
        parts: Names of the files written.
    """

    flows: Counter[tuple[str, str]] = field(default_factory=Counter)
    duplicates: Counter[tuple[str, str]] = field(default_factory=Counter)
    rows: Counter[tuple[str, str]] = field(default_factory=Counter)
    blocks: Counter[int] = field(default_factory=Counter)
    label_conflict_vectors: Counter[str] = field(default_factory=Counter)
    label_conflict_rows: Counter[str] = field(default_factory=Counter)
    row_groups: Counter[str] = field(default_factory=Counter)
    parts: list[str] = field(default_factory=list)

    def add(self, other: "FeatureCounts") -> None:
        """Add the counts of another bucket."""
        self.flows += other.flows
        self.duplicates += other.duplicates
        self.rows += other.rows
        self.blocks += other.blocks
        self.label_conflict_vectors += other.label_conflict_vectors
        self.label_conflict_rows += other.label_conflict_rows
        self.row_groups += other.row_groups
        self.parts += other.parts


def buckets_of(flows_uri: str, schema: FeatureSchema) -> list[Bucket]:
    """Return the buckets of both splits, after a check of each file against its contract.

    Raises:
        SchemaMismatch: when a file does not match `flows_contract`.
    """
    found = []
    for split in ("train", "test"):
        for index, uri in enumerate(files_in(f"{flows_uri}/split={split}", SUFFIX)):
            with open_part(uri) as file:
                stored = stored_names(file.schema.names, _FLOWS)
                present = [file.schema.field(old).with_name(name) for name, old in stored.items()]
            require(pa.schema(present), flows_contract(schema.features), uri)
            found.append(Bucket(uri, split, index))
    return found


@dataclass(frozen=True)
class _Flows:
    keys: Keys
    labels: NDArray[np.int32]
    keep: NDArray[np.bool_]
    label_conflict: NDArray[np.bool_]
    columns: dict[str, Floats]
    blocks: Ids
    held_out: Mask


def _read(bucket: Bucket, schema: FeatureSchema, held_out: HeldOut) -> _Flows:
    names = ["row_key", "label19", "duplicate", "label_conflict", *schema.features]
    blocked = bucket.split == "train" and held_out.blocked_share > 0
    names += ["source_file", "source_row"] if blocked else []
    with open_part(bucket.uri) as file:
        stored = stored_names(file.schema.names, _FLOWS)
        table = file.read([stored[name] for name in names])
    table = table.select([stored[name] for name in names]).rename_columns(names).combine_chunks()
    columns = {name: table[name].to_numpy() for name in schema.features}
    keep, label_conflict = ~table["duplicate"].to_numpy(), table["label_conflict"].to_numpy()
    keys, labels = table["row_key"].to_numpy(), table["label19"].to_numpy()
    blocks = np.full(len(keys), NO_BLOCK, dtype=np.int32)
    if blocked:
        eligible = keep & (labels == taxonomy.BENIGN_ID) & ~label_conflict
        blocks = held_out.blocks(table["source_file"], table["source_row"].to_numpy(), eligible)
    held = held_out.random(keys) | (blocks != NO_BLOCK)
    return _Flows(keys, labels, keep, label_conflict, columns, blocks, held)


def measure_train(
    spark_context: SparkContext, buckets: Sequence[Bucket], recipe: Recipe, held_out: HeldOut, sample_share: float
) -> tuple[list[Moments], Floats, NDArray[np.bool_]]:
    """Pass 1: statistics to fit the preprocessor, over distinct train rows that are not held out for validation.

    Args:
        spark_context: Its executors read and compute.
        buckets: Of `flows/`.
        recipe: Its transform is applied first.
        held_out: Train rows that are held out.
        sample_share: Share of rows in the sample, chosen by hash: the same rows for any number of buckets.

    Returns:
        Moments of each transformed feature, the sample, shape (rows, features), infinities included, and which of its
        rows are benign, shape (rows,).
    """

    def measure(bucket: Bucket) -> tuple[int, list[Moments], Floats, NDArray[np.bool_]]:
        flows = _read(bucket, recipe.schema, held_out)
        fitted = flows.keep & ~flows.held_out
        columns = [recipe.transformed(column[fitted]) for column in flows.columns.values()]
        sampled = row_hash.sampled(flows.keys[fitted], sample_share)
        benign = flows.labels[fitted][sampled] == taxonomy.BENIGN_ID
        return bucket.index, [moments_of(c) for c in columns], np.column_stack([c[sampled] for c in columns]), benign

    train = [b for b in buckets if b.split == "train"]
    measured = run_each(spark_context, train, measure)
    measured.sort(key=lambda entry: entry[0])  # in bucket order: the same rounding for any order of tasks
    total = [Moments()] * len(recipe.schema.features)
    for _, part, _, _ in measured:
        total = [so_far.merged(more) for so_far, more in zip(total, part, strict=True)]
    samples, benign = (np.concatenate([entry[i] for entry in measured]) for i in (2, 3))
    return total, samples, benign


@dataclass(frozen=True)
class Target:
    """Where and how pass 2 writes.

    Attributes:
        uri: Staged `features/<recipe>`.
        held_out: Train rows that are held out.
        min_files: Minimum number of files of each split.
        rows_per_row_group: Maximum number of rows of a row group.
    """

    uri: str
    held_out: HeldOut
    min_files: int
    rows_per_row_group: int


def write_features(
    spark_context: SparkContext, buckets: Sequence[Bucket], preprocessor: Preprocessor, target: Target
) -> FeatureCounts:
    """Pass 2: drop duplicates, scale, and write every split."""
    of_split = Counter(b.split for b in buckets)

    def write(bucket: Bucket) -> FeatureCounts:
        files = -(-target.min_files // of_split[bucket.split])
        return _write_bucket(bucket, preprocessor, target, files)

    total = FeatureCounts()
    for counts in run_each(spark_context, buckets, write):
        total.add(counts)
    keep_only(total.parts, target.uri)
    return total


def _write_bucket(bucket: Bucket, preprocessor: Preprocessor, target: Target, files: int) -> FeatureCounts:
    flows = _read(bucket, preprocessor.schema, target.held_out)
    keep, split = flows.keep, bucket.split
    counts = FeatureCounts()
    counts.flows = _count(split, flows.labels)
    counts.duplicates = _count(split, flows.labels[~keep])
    conflicting = flows.keys[keep & flows.label_conflict]
    counts.label_conflict_rows[split] = len(conflicting)
    counts.label_conflict_vectors[split] = len(np.unique(conflicting))
    if split == "train":
        parts = {"train": keep & ~flows.held_out, "validation": keep & flows.held_out}
        counts.blocks.update(flows.blocks[flows.blocks != NO_BLOCK].tolist())
    else:
        parts = {"test": keep}
    scaled = preprocessor.transform(flows.columns)
    contract = features_contract(preprocessor.columns)
    levels = [taxonomy.parents(19, level)[flows.labels] for level in (19, 6, 2)]
    arrays = [*map(pa.array, (flows.keys, *scaled, *levels)), pa.array(flows.blocks, mask=flows.blocks == NO_BLOCK)]
    table = pa.Table.from_arrays(arrays, schema=contract)
    metadata = {"ids_spark.data_origin": preprocessor.data_origin, "ids_spark.recipe": preprocessor.recipe.name}
    for name, mask in parts.items():
        rows = np.flatnonzero(mask)
        counts.rows += _count(name, flows.labels[rows])
        for k, chunk in enumerate(np.array_split(rows, files)):
            part = part_name(bucket.index * files + k)
            groups = list(_row_groups(table, chunk, target.rows_per_row_group))
            write_part(f"{target.uri}/split={name}", part, groups, contract, metadata, LABELS)
            counts.parts.append(part)
            counts.row_groups[name] += len(groups)
    return counts


def _row_groups(table: pa.Table, rows: NDArray[np.int64], max_rows: int) -> Iterator[pa.Table]:
    for group in np.array_split(rows, -(-len(rows) // max_rows)) if len(rows) else []:
        yield table.take(pa.array(group))


def _count(split: str, labels: NDArray[np.int32]) -> Counter[tuple[str, str]]:
    found = np.bincount(labels, minlength=len(taxonomy.CLASS19))
    return Counter({(split, taxonomy.CLASS19[i]): int(n) for i, n in enumerate(found) if n})
