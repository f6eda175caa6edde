"""Writes `features/` from `flows/` in two passes over the buckets, without a shuffle: ingest has shuffled the rows.

Pass 1 reads the train buckets and returns moments and a sample. Pass 2 reads every bucket, drops duplicates, scales and
writes. Both process bucket by bucket, so statistics and tables do not depend on the number of tasks.

Rows of local nights join the train bucket of their hash, so that they are mixed with the others in every file.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark import SparkContext

from ids_spark.base.arrays import Floats, Ids, Keys, Mask
from ids_spark.base.spark_tasks import run_each
from ids_spark.dataset import taxonomy
from ids_spark.dataset.features import FeatureSchema
from ids_spark.dataset.tables import TABLES, features_contract, flows_contract, require
from ids_spark.features import local_split, ratios
from ids_spark.features.local_balance import Balance
from ids_spark.features.local_split import LocalHeldOut
from ids_spark.features.moments import Moments, moments_of
from ids_spark.features.preprocess import Preprocessor, Recipe
from ids_spark.features.validation_rows import NO_BLOCK, HeldOut
from ids_spark.ingest import copies, row_hash
from ids_spark.ingest.dedup import marks_of
from ids_spark.lake.filesystem import files_in
from ids_spark.lake.parquet import SUFFIX, PartFile, keep_only, open_part, part_name, stored_names, write_part

_FLOWS: Final = TABLES["flows"]
_BENIGN: Final = taxonomy.CLASS19[taxonomy.BENIGN_ID]
_LOCAL_ROWS: Final = 500_000  # that join a train bucket
LABELS: Final = ("label19", "label6", "label2")


@dataclass(frozen=True)
class Bucket:
    """One file of `flows/`, or a part of it.

    Attributes:
        uri: The file.
        split: `train` or `test`.
        index: Number of the bucket in its split.
        parts: Number of buckets of the split if a file has several: then this is a range of its keys; 0: whole files.
    """

    uri: str
    split: str
    index: int
    parts: int = 0


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
        local_conflict_vectors: Feature vectors of train rows of attacks that local train rows have too; both are kept.
        local_conflict_rows: Train rows of attacks with these vectors, without duplicates.
        left_out: Local rows that are left out, by (split, class19) of the flows.
        local: Local rows written, by split.
        row_groups: Number of row groups of each written split.
        parts: Names of the files written.
    """

    flows: Counter[tuple[str, str]] = field(default_factory=Counter)
    duplicates: Counter[tuple[str, str]] = field(default_factory=Counter)
    rows: Counter[tuple[str, str]] = field(default_factory=Counter)
    blocks: Counter[int] = field(default_factory=Counter)
    label_conflict_vectors: Counter[str] = field(default_factory=Counter)
    label_conflict_rows: Counter[str] = field(default_factory=Counter)
    local_conflict_vectors: int = 0
    local_conflict_rows: int = 0
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)
    local: Counter[str] = field(default_factory=Counter)
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
        self.local_conflict_vectors += other.local_conflict_vectors
        self.local_conflict_rows += other.local_conflict_rows
        self.left_out += other.left_out
        self.local += other.local
        self.row_groups += other.row_groups
        self.parts += other.parts


def buckets_of(flows_uri: str, schema: FeatureSchema) -> list[Bucket]:
    """Return the buckets of the data set's splits, after a check of each file against its contract.

    Files with copies are checked as well, but are no buckets: see `copied_rows`.

    Raises:
        SchemaMismatch: when a file does not match `flows_contract`.
    """
    found = []
    for split in ("train", "test"):
        uris = [uri for uri in _checked_files(f"{flows_uri}/split={split}", schema) if not copies.is_of_copies(uri)]
        found += [Bucket(uri, split, index) for index, uri in enumerate(uris)]
    return found


def copied_rows(spark_context: SparkContext, flows_uri: str) -> Counter[tuple[str, str]]:
    """Return the rows in files of copies, by (split, class19); each is a duplicate of a row in a bucket."""
    found = [(s, uri) for s in ("train", "test") for uri in files_in(f"{flows_uri}/split={s}", SUFFIX)]
    items = [(split, uri) for split, uri in found if copies.is_of_copies(uri)]

    def count(item: tuple[str, str]) -> Counter[tuple[str, str]]:
        return _count(item[0], copies.labels_of(item[1]))

    counts = run_each(spark_context, items, count) if items else []
    return sum(counts, start=Counter[tuple[str, str]]())


def _checked_files(uri: str, schema: FeatureSchema) -> list[str]:
    found = files_in(uri, SUFFIX)
    for each in found:
        with open_part(each) as file:
            stored = stored_names(file.schema.names, _FLOWS)
            present = [file.schema.field(old).with_name(name) for name, old in stored.items()]
        contract = flows_contract(schema.features)
        expected = [column for column in contract if column.name in stored or column.name not in _FLOWS.added]
        require(pa.schema(present), pa.schema(expected), each)
    return found


@dataclass(frozen=True)
class LocalRows:
    """Rows of local nights that join those of the data set.

    Attributes:
        files: Their files, each sorted by row key.
        held_out: Which of them are held out.
        buckets: Number of train buckets.
    """

    files: tuple[str, ...]
    held_out: LocalHeldOut
    buckets: int


def with_local_rows(
    flows_uri: str, schema: FeatureSchema, held_out: LocalHeldOut, buckets: Sequence[Bucket], rows: int
) -> tuple[LocalRows, list[Bucket]]:
    """Return the local rows of a lake, after a check of each file, and the buckets that they join.

    Where many local rows join few train buckets, these are divided, so that a task does not hold all of them.

    Args:
        flows_uri: URI of `flows/`.
        schema: Its feature schema.
        held_out: Which local rows are held out.
        buckets: From `buckets_of`.
        rows: Number of local rows.

    Raises:
        SchemaMismatch: when a file does not match `flows_contract`.
    """
    files = _checked_files(f"{flows_uri}/split=local", schema)
    train = [bucket for bucket in buckets if bucket.split == "train"]
    each = max(1, -(-rows // (_LOCAL_ROWS * max(1, len(train)))))
    parts = len(train) * each
    divided = [Bucket(b.uri, b.split, b.index * each + i, parts) for b in train for i in range(each)]
    joined = divided if each > 1 else train
    return LocalRows(tuple(files), held_out, parts), [*joined, *(b for b in buckets if b.split != "train")]


@dataclass(frozen=True)
class _Flows:
    keys: Keys
    labels: NDArray[np.int32]
    keep: NDArray[np.bool_]
    label_conflict: NDArray[np.bool_]
    columns: Mapping[str, Floats]
    blocks: Ids
    held_out: Mask
    local: Mask
    groups: Keys  # of local rows; 0 for others
    left_out: int = 0  # local rows that are not among these


class _Stored(Mapping[str, Floats]):
    """Columns of a file, each read when it is used: a task then holds one of them, in memory that the next one reuses.

    Args:
        file: Stays open as long as columns are used.
        stored: Stored name of each column.
    """

    def __init__(self, file: PartFile, stored: Mapping[str, str]) -> None:
        self._file, self._stored = file, stored

    def __getitem__(self, name: str) -> Floats:
        values: Floats = self._file.read([self._stored[name]]).column(0).to_numpy()
        return values

    def __contains__(self, name: object) -> bool:
        return name in self._stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


@contextlib.contextmanager
def _read(bucket: Bucket, schema: FeatureSchema, held_out: HeldOut, local: LocalRows | None) -> Iterator[_Flows]:
    with open_part(bucket.uri) as file:
        flows = _read_data_set(bucket, file, schema, held_out)
        if local is None or bucket.split != "train":
            yield flows
        else:
            yield _merged(flows, _read_local(bucket.index, schema, local))


def _merged(one: _Flows, other: _Flows) -> _Flows:
    """Return the rows of both in the order of their keys."""
    order = row_hash.order_of(np.concatenate([one.keys, other.keys]), np.concatenate([one.local, other.local]))

    def joined(name: str) -> Any:
        return np.concatenate([getattr(one, name), getattr(other, name)])[order]

    columns = {name: np.concatenate([column, other.columns[name]])[order] for name, column in one.columns.items()}
    names = ("keys", "labels", "keep", "label_conflict", "blocks", "held_out", "local", "groups")
    return _Flows(columns=columns, left_out=other.left_out, **{name: joined(name) for name in names})


def _read_local(index: int, schema: FeatureSchema, local: LocalRows) -> _Flows:
    """Return the local rows of one train bucket that are in use; those that train are not equal to another of them."""
    names = ["row_key", "label19", "source_file", "event_date", "event_time", "place", "device", "left_out"]
    names += schema.features
    table = pa.concat_tables([_in_bucket(uri, names, schema, index, local.buckets) for uri in local.files])
    used = table.filter(pc.is_null(table["left_out"])).combine_chunks()
    keys, labels = used["row_key"].to_numpy(), used["label19"].to_numpy()
    columns = {name: used[name].to_numpy() for name in schema.features}
    held = local.held_out.rows(used)
    blocks = np.full(len(used), NO_BLOCK, dtype=np.int32)
    blocks[held] = local.held_out.blocks(used.filter(pa.array(held)))
    keep, train = np.ones(len(used), dtype=np.bool_), np.flatnonzero(~held)
    keep[train] = ~marks_of(keys[train], labels[train], [column[train] for column in columns.values()]).duplicate
    nothing, everything = np.zeros(len(used), dtype=np.bool_), np.ones(len(used), dtype=np.bool_)
    own = local_split.groups(used)
    return _Flows(keys, labels, keep, nothing, columns, blocks, held, everything, own, len(table) - len(used))


def _in_bucket(uri: str, names: Sequence[str], schema: FeatureSchema, index: int, buckets: int) -> pa.Table:
    """Return columns of the rows of a file whose keys are in one of so many buckets; the file is sorted by key."""
    contract = flows_contract(schema.features)
    parts = [pa.schema([contract.field(name) for name in names]).empty_table()]
    with open_part(uri) as file:
        stored = stored_names(file.schema.names, _FLOWS)
        bucket = row_hash.buckets(file.read([stored["row_key"]])[stored["row_key"]].to_numpy(), buckets)
        first, end = np.searchsorted(bucket, [index, index + 1]).tolist()
        ends = np.cumsum(file.rows).tolist()
        for group, (start, stop) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            if start < end and stop > first:
                table = file.read([stored[name] for name in names], group)
                table = table.select([stored[name] for name in names]).rename_columns(list(names))
                parts.append(table.slice(max(0, first - start), min(stop, end) - max(start, first)))
    return pa.concat_tables([part.replace_schema_metadata() for part in parts])


def _read_data_set(bucket: Bucket, file: PartFile, schema: FeatureSchema, held_out: HeldOut) -> _Flows:
    names = ["row_key", "label19", "duplicate", "label_conflict"]
    blocked = bucket.split == "train" and held_out.blocked_share > 0
    names += ["source_file", "source_row"] if blocked else []
    columns: Mapping[str, Floats]
    if bucket.parts:
        table = _in_bucket(bucket.uri, [*names, *schema.features], schema, bucket.index, bucket.parts).combine_chunks()
        columns = {name: table[name].to_numpy() for name in schema.features}
    else:
        stored = stored_names(file.schema.names, _FLOWS)
        table = file.read([stored[name] for name in names])
        table = table.select([stored[name] for name in names]).rename_columns(names).combine_chunks()
        columns = _Stored(file, {name: stored[name] for name in schema.features})
    keep, label_conflict = ~table["duplicate"].to_numpy(), table["label_conflict"].to_numpy()
    keys, labels = table["row_key"].to_numpy(), table["label19"].to_numpy()
    blocks = np.full(len(keys), NO_BLOCK, dtype=np.int32)
    if blocked:
        eligible = keep & (labels == taxonomy.BENIGN_ID) & ~label_conflict
        blocks = held_out.blocks(table["source_file"], table["source_row"].to_numpy(), eligible)
    held = held_out.random(keys) | (blocks != NO_BLOCK)
    nowhere, ungrouped = np.zeros(len(keys), dtype=np.bool_), np.zeros(len(keys), dtype=np.int64)
    return _Flows(keys, labels, keep, label_conflict, columns, blocks, held, nowhere, ungrouped)


@dataclass(frozen=True)
class Measured:
    """Statistics of train rows.

    Attributes:
        moments: Of each transformed feature.
        sample: Transformed features of some rows, shape (rows, features), infinities included.
        benign: Which rows of the sample are benign, shape (rows,).
        balance: Rows of each group of local rows; None without local rows.
    """

    moments: list[Moments]
    sample: Floats
    benign: Mask
    balance: Balance | None


def measure_train(
    spark_context: SparkContext,
    buckets: Sequence[Bucket],
    recipe: Recipe,
    held_out: HeldOut,
    sample_share: float,
    local: LocalRows | None = None,
) -> Measured:
    """Pass 1: statistics to fit the preprocessor, over distinct train rows that are not held out for validation.

    Args:
        spark_context: Its executors read and compute.
        buckets: Of `flows/`.
        recipe: Its transform is applied first.
        held_out: Train rows that are held out.
        sample_share: Share of rows in the sample, chosen by hash: the same rows for any number of buckets.
        local: Rows of local nights that join them.

    """

    def measure(bucket: Bucket) -> tuple[int, list[Moments], Floats, NDArray[np.bool_], Keys]:
        with _read(bucket, recipe.schema, held_out, local) as flows:
            rows = np.flatnonzero(flows.keep & ~flows.held_out)
            keys = flows.keys[rows]
            sampled = np.flatnonzero(row_hash.sampled(keys, sample_share))
            moments, sample = [], np.empty((len(sampled), len(recipe.features)))
            for i, name in enumerate(recipe.features):
                column = recipe.transformed(ratios.column(flows.columns, name)[rows])
                moments.append(moments_of(column))
                sample[:, i] = column[sampled]
            benign = flows.labels[rows][sampled] == taxonomy.BENIGN_ID
            return bucket.index, moments, sample, benign, flows.groups[rows][flows.local[rows]]

    train = [b for b in buckets if b.split == "train"]
    measured = run_each(spark_context, train, measure)
    measured.sort(key=lambda entry: entry[0])  # in bucket order: the same rounding for any order of tasks
    total = [Moments()] * len(recipe.features)
    for _, part, *_ in measured:
        total = [so_far.merged(more) for so_far, more in zip(total, part, strict=True)]
    samples, benign, groups = (np.concatenate([entry[i] for entry in measured]) for i in (2, 3, 4))
    return Measured(total, samples, benign, Balance.of_groups(groups) if local is not None else None)


@dataclass(frozen=True)
class Target:
    """Where and how pass 2 writes.

    Attributes:
        uri: Staged `features/<recipe>`.
        held_out: Train rows that are held out.
        min_files: Minimum number of files of each split.
        rows_per_row_group: Maximum number of rows of a row group.
        local: Rows of local nights that join the train rows; None without any.
        balance: Train rows of each group of them.
    """

    uri: str
    held_out: HeldOut
    min_files: int
    rows_per_row_group: int
    local: LocalRows | None = None
    balance: Balance | None = None


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
    with _read(bucket, preprocessor.schema, target.held_out, target.local) as flows:
        scaled = preprocessor.transform(flows.columns)
    keep, split = flows.keep, bucket.split
    counts = FeatureCounts()
    for name, own in ((split, ~flows.local), ("local", flows.local)):
        counts.flows += _count(name, flows.labels[own])
        counts.duplicates += _count(name, flows.labels[own & ~keep])
    if flows.left_out:
        counts.flows["local", _BENIGN] += flows.left_out
        counts.left_out["local", _BENIGN] = flows.left_out
    if flows.local.any():
        _count_local_conflicts(flows, counts)
    conflicting = flows.keys[keep & flows.label_conflict]
    counts.label_conflict_rows[split] = len(conflicting)
    counts.label_conflict_vectors[split] = len(np.unique(conflicting))
    if split == "train":
        parts = {"train": keep & ~flows.held_out, "validation": keep & flows.held_out}
        counts.blocks.update(flows.blocks[flows.blocks != NO_BLOCK].tolist())
    else:
        parts = {"test": keep}
    contract = features_contract(preprocessor.columns, local=target.balance is not None)
    levels = [taxonomy.parents(19, level)[flows.labels] for level in (19, 6, 2)]
    arrays = [*map(pa.array, (flows.keys, *scaled, *levels)), pa.array(flows.blocks, mask=flows.blocks == NO_BLOCK)]
    if target.balance is not None:
        arrays.append(pa.array(np.where(flows.local, target.balance.rows_of(flows.groups), 0).astype(np.int32)))
    table = pa.Table.from_arrays(arrays, schema=contract)
    metadata = {"ids_spark.data_origin": preprocessor.data_origin, "ids_spark.recipe": preprocessor.recipe.name}
    complete = [name for name in contract.names if name != "block"]
    for name, mask in parts.items():
        rows = np.flatnonzero(mask)
        counts.rows += _count(name, flows.labels[rows])
        counts.local[name] += int(flows.local[rows].sum())
        for k, chunk in enumerate(np.array_split(rows, files)):
            part = part_name(bucket.index * files + k)
            groups = list(_row_groups(table, chunk, target.rows_per_row_group))
            write_part(f"{target.uri}/split={name}", part, groups, contract, metadata, LABELS, complete)
            counts.parts.append(part)
            counts.row_groups[name] += len(groups)
    return counts


def _count_local_conflicts(flows: _Flows, counts: FeatureCounts) -> None:
    """Count attacks of the data set that train and have the features of a local row that trains, by their keys."""
    train = flows.keep & ~flows.held_out
    attacks = flows.keys[train & ~flows.local & (flows.labels != taxonomy.BENIGN_ID)]
    found = attacks[np.isin(attacks, flows.keys[train & flows.local])]
    counts.local_conflict_rows += len(found)
    counts.local_conflict_vectors += len(np.unique(found))


def _row_groups(table: pa.Table, rows: NDArray[np.int64], max_rows: int) -> Iterator[pa.Table]:
    for group in np.array_split(rows, -(-len(rows) // max_rows)) if len(rows) else []:
        yield table.take(pa.array(group))


def _count(split: str, labels: NDArray[np.int32]) -> Counter[tuple[str, str]]:
    found = np.bincount(labels, minlength=len(taxonomy.CLASS19))
    return Counter({(split, taxonomy.CLASS19[i]): int(n) for i, n in enumerate(found) if n})
