"""The shuffle of flows: rows with equal features are sent to the same bucket, sorted by their hash.

In a bucket, duplicates and label conflicts are found by comparing adjacent rows. The order in a bucket is a
pseudo-random permutation that mixes files and classes: a global shuffle that is the same on any cluster. Rows are sent
as Arrow record batches, one for each pair of task and bucket, so that Spark moves a few large byte strings instead of
Python objects.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark import SparkContext

from ids_spark.base.arrays import Ids, Keys
from ids_spark.base.errors import InputError, NotReconciled
from ids_spark.base.report import Report
from ids_spark.base.spark_tasks import run_each, run_shuffled
from ids_spark.dataset import taxonomy
from ids_spark.dataset.features import SOURCE_SPLITS, FeatureSchema
from ids_spark.dataset.tables import FLOW_ORIGIN, QUARANTINE, flows_contract
from ids_spark.ingest import copies, join_windows, row_hash
from ids_spark.ingest.blocks import Block, Rows, Sent
from ids_spark.ingest.dedup import DuplicateMarks, marks_of
from ids_spark.ingest.readers import numbered, read_typed
from ids_spark.ingest.rows import TypedRows, class_columns, merged, texts, typed_contract
from ids_spark.ingest.sources import RowGroup, Source, bin_pack, by_file
from ids_spark.lake.filesystem import files_in, remove
from ids_spark.lake.parquet import SUFFIX, keep_only, part_name, write_part

ROW_GROUP_ROWS: Final = 65_536
TEXT_COLUMNS: Final = (
    *("source_file", "class19", "class6", "class2", "label19"),
    *("origin", "event_date", "device", "left_out"),
)
"""Columns of `flows/` with few values."""
_MAY_BE_NULL: Final = {"event_date", "event_time", "place", "device", "left_out"}
_NOT_SENT: Final = ["split", "class19", "class6", "class2"]  # derived again from the bucket and label19
BROUGHT: Final = ("event_date", "event_time", "place", "device")
"""Columns of `tables.FLOW_ORIGIN` that only local rows have, and bring with them."""
_ROWS_PER_TASK: Final = 400_000
_ROWS_PER_BLOCK: Final = 16_384  # that small files fill together
_LABELS_SHOWN: Final = 30
_REJECTED_AT_LEAST: Final = 50_000  # rows of one task, each with its raw values
_ESTIMATE_AT_MOST: Final = 20  # times fewer rows than a CSV file may have: lines of 12 bytes
_MOST_TIMES_EXPECTED: Final = 8
_MOST_ROWS_OF_BUCKET: Final = 2_000_000  # and below 8 times the expected rows: 1 GB
_COUNTS, _FLOWS, _QUARANTINE, _COPIES, _COPIED = "counts", "flows", "quarantine", "copies", "copied"
Record = tuple[str, Any]
Item = TypeVar("Item")


@dataclass(frozen=True)
class ShufflePlan:
    """Parameters of the tasks; small, as they are sent with each task.

    Attributes:
        schema: Feature schema of the source.
        buckets: Number of buckets of each split, in the order of their partitions.
        flows: URI of the staged flows, of all splits.
        quarantine: URI of the staged quarantine.
        run_id: Of this run.
        data_origin: `measured` or `synthetic`.
        rows_per_file: Rows expected in a bucket.
        most_rejected: Rows with which the source is refused if they cannot be used.
        window: Packets of the windows to which rows are joined; None: rows stay as they are.
        origin: Written to the column `origin`; only local rows bring the other columns of `tables.FLOW_ORIGIN`.
    """

    schema: FeatureSchema
    buckets: dict[str, int]
    flows: str
    quarantine: str
    run_id: str
    data_origin: str
    rows_per_file: int
    most_rejected: int
    window: int | None = None
    origin: Literal["dataset", "local"] = "dataset"

    def partition(self, split: str, bucket: int) -> int:
        """Return the Spark partition of a bucket."""
        before = itertools.takewhile(lambda name: name != split, self.buckets)
        return bucket + sum(self.buckets[name] for name in before)

    def located(self, partition: int) -> tuple[str, int]:
        """Return split and bucket of a Spark partition."""
        for split, count in self.buckets.items():
            if partition < count:
                return split, partition
            partition -= count
        raise ValueError(f"partition {partition} is beyond the last bucket")

    @property
    def metadata(self) -> dict[str, str]:
        """Key-value pairs of the footers of the files."""
        return {"ids_spark.data_origin": self.data_origin, "ids_spark.feature_schema": self.schema.name}

    @property
    def sent(self) -> pa.Schema:
        """Columns that are sent to the bucket of a row; the others are derived there."""
        own = [column for column in typed_contract(self.schema) if column.name not in _NOT_SENT]
        if self.origin == "local":
            own += [column for column in FLOW_ORIGIN if column.name in BROUGHT]
        return pa.schema(own)


@dataclass
class IngestCounts:
    """Counts of the rows of a source.

    Attributes:
        read: Rows found in the files by (split, class19), broken lines included.
        flows: Rows accepted, by (split, class19).
        quarantined: Rows refused, by (split, class19, reason).
        joined: Rows that are part of another flow, by (split, class19).
        left_out: Rows beyond the most rows of a setting, by (split, class19).
        warnings: Flows that violate a `warn` rule, by (rule, split, class19).
        unknown_labels: Rows whose label is the only fault, by (label, what is wrong).
        parts: Names of the files written.
        copies: Files of copies, each with its split, its name and the row keys in it.
        conflicts: Vectors of copies that have several labels, by split, from `copies.conflicting`.
    """

    read: Counter[tuple[str, str]] = field(default_factory=Counter)
    flows: Counter[tuple[str, str]] = field(default_factory=Counter)
    quarantined: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    joined: Counter[tuple[str, str]] = field(default_factory=Counter)
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)
    warnings: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    unknown_labels: Counter[tuple[str, str]] = field(default_factory=Counter)
    parts: list[str] = field(default_factory=list)
    copies: list[tuple[str, str, Keys]] = field(default_factory=list)
    conflicts: dict[str, set[bytes]] = field(default_factory=dict)

    def add(self, other: "IngestCounts") -> None:
        """Add the counts of another part."""
        self.read += other.read
        self.warnings += other.warnings
        self.unknown_labels += other.unknown_labels
        self.flows += other.flows
        self.quarantined += other.quarantined
        self.joined += other.joined
        self.left_out += other.left_out
        self.parts += other.parts
        self.copies += other.copies
        for split, vectors in other.conflicts.items():
            self.conflicts.setdefault(split, set()).update(vectors)

    def count_into(self, report: Report) -> None:
        """Set the totals of a new report, and add every count by split and class, of faults by reason and rule."""
        report.rows_in, report.rows_out = self.read.total(), self.flows.total()
        report.rows_quarantined = self.quarantined.total()
        report.rows_joined, report.rows_left_out = self.joined.total(), self.left_out.total()
        report.count("read", self.read)
        report.count("flows", self.flows)
        report.count("joined", self.joined)
        report.count("left out: most rows", self.left_out)
        for (split, label, reason), n in sorted(self.quarantined.items()):
            report.counts[f"quarantined: {reason}", split, label] = n
        for (rule, split, label), n in sorted(self.warnings.items()):
            report.counts[f"warned: {rule}", split, label] = n

    def reconcile(self) -> None:
        """Check that every row read is a flow, part of one, left out or in quarantine, for each split and class.

        Raises:
            NotReconciled: a fault of this program.
        """
        accounted = self.flows + self.joined + self.left_out
        for (split, class19, _), rows in self.quarantined.items():
            accounted[split, class19] += rows
        for key in self.read.keys() | accounted.keys():
            if self.read[key] != accounted[key]:
                raise NotReconciled(f"{key}: {self.read[key]} rows read, {accounted[key]} accounted for")


def unknown_labels_text(counts: IngestCounts, column: str) -> str:
    """Return what is wrong with the labels of a source, every unknown one with its rows, for people."""
    shown = [f"{label!r} {fault} ({n} rows)" for (label, fault), n in counts.unknown_labels.most_common(_LABELS_SHOWN)]
    more = len(counts.unknown_labels) - len(shown)
    splits = {taxonomy.split_of(label) for label, _ in counts.unknown_labels} | {split for split, _ in counts.flows}
    only = splits - {None, ""}
    one = f" All labels are of split {only.pop()}: a source needs both train and test." if len(only) == 1 else ""
    return (
        f"{sum(counts.unknown_labels.values())} rows have a label in column {column!r} that cannot be used:"
        f" {', '.join(shown)}{f' and {more} more labels' if more else ''}. Expected names of capture files, such as"
        f" TCP_IP-DDoS-ICMP1_train, of the classes {', '.join(taxonomy.CLASS19)}, each with _train or _test, or a table"
        f" in a folder train or test.{one} Rename the labels, or remove these rows"
    )


def complete_columns(contract: pa.Schema) -> list[str]:
    """Return the columns of `flows/` that never hold a null."""
    return [name for name in contract.names if name not in _MAY_BE_NULL]


def bucket_counts(source: Source, rows_per_file: int) -> dict[str, int]:
    """Return the number of buckets of each split; depends only on the source, so it is the same on any cluster."""
    return {split: max(1, -(-source.rows(split) // rows_per_file)) for split in SOURCE_SPLITS}


def most_rejected(source: Source, share: float) -> int:
    """Return a number of unusable rows with which the source is refused; rows of CSV are estimated, so it is higher."""
    estimated = _ESTIMATE_AT_MOST if any(row_group.index is None for row_group in source.row_groups) else 1
    return int(share * estimated * sum(row_group.rows for row_group in source.row_groups))


def write_flows(spark_context: SparkContext, source: Source, plan: ShufflePlan) -> IngestCounts:
    """Read, type, shuffle and write every row of a source; only counts are returned to the driver."""
    min_tasks = 2 * spark_context.defaultParallelism
    tasks = max(min_tasks, sum(p.rows for p in source.row_groups) // _ROWS_PER_TASK)
    row_groups = numbered(spark_context, source.row_groups)
    packed = (bin_pack if plan.window is None else by_file)(row_groups, tasks)
    in_order = [sorted(own, key=lambda each: (each.name, each.first_row)) for own in packed]

    def typed(own: list[RowGroup]) -> Iterator[TypedRows]:
        rejected: Counter[str] = Counter()
        for name, parts in _typed(own, plan):
            for part in parts:
                _count_rejected(part, rejected, name, plan.most_rejected)
                yield part

    def scatter(own: list[RowGroup]) -> Iterator[tuple[int, Record]]:
        for part in merged(typed(own), _ROWS_PER_BLOCK):
            yield from _scatter(part, plan)

    return shuffled(spark_context, in_order, scatter, plan)


def shuffled(
    spark_context: SparkContext,
    items: Sequence[Item],
    scatter: Callable[[Item], Iterator[tuple[int, Record]]],
    plan: ShufflePlan,
) -> IngestCounts:
    """Write the rows that tasks send to their buckets; only counts are returned to the driver.

    Args:
        spark_context: Its executors run the tasks.
        items: Each is one task.
        scatter: Yields the records of an item, from `counted` and `bucketed`.
        plan: Of the buckets.
    """

    def gather(partition: int, records: Iterable[Record]) -> IngestCounts:
        return _write_bucket(partition, records, plan)

    total, earlier = IngestCounts(), [uri.rsplit("/", 1)[1] for uri in files_in(plan.quarantine, SUFFIX)]
    for report in run_shuffled(spark_context, items, sum(plan.buckets.values()), scatter, gather):
        total.add(report)
    _mark_conflicts(spark_context, total, plan)
    keep_only([*total.parts, *earlier], *(f"{plan.flows}/split={split}" for split in plan.buckets), plan.quarantine)
    return total


def _mark_conflicts(spark_context: SparkContext, total: IngestCounts, plan: ShufflePlan) -> None:
    """Write the files with copies of vectors that have several labels once more, marked."""
    marked = [
        (split, name)
        for split, name, keys in total.copies
        if split in total.conflicts and copies.have_keys(total.conflicts[split], keys)
    ]
    if not marked:
        return

    def write(numbered: tuple[int, tuple[str, str]]) -> str:
        index, (split, old) = numbered
        tables = copies.marked(f"{plan.flows}/split={split}/{old}", total.conflicts[split], plan.schema.features)
        return _write_copies(index, tables, split, plan)

    written = run_each(spark_context, list(enumerate(marked)), write)
    for split, old in marked:
        remove(f"{plan.flows}/split={split}/{old}")
    replaced = {old for _, old in marked}
    total.parts = [*(name for name in total.parts if name not in replaced), *written]


def _write_copies(index: int, tables: Iterator[pa.Table], split: str, plan: ShufflePlan) -> str:
    """Write one file of copies; return its name. Sorted by key, every column has runs of equal values."""
    name, contract = part_name(index, copies.FILE_START), flows_contract(plan.schema.features)
    complete = complete_columns(contract)
    write_part(f"{plan.flows}/split={split}", name, tables, contract, plan.metadata, contract.names, complete)
    return name


def counted(counts: IngestCounts) -> tuple[int, Record]:
    """Return counts as a record; they are sent with the rows, so that a repeated task is counted once."""
    return 0, (_COUNTS, counts)


def bucketed(flows: pa.Table, split: str, plan: ShufflePlan) -> Iterator[tuple[int, Record]]:
    """Yield rows of one split, with the columns `plan.sent`, as records for their buckets."""
    count, keys = plan.buckets[split], flows["row_key"].to_numpy()
    order = np.argsort(keys.view(np.uint64))  # so that a bucket receives runs of sorted rows, which are merged fast
    ends = np.searchsorted(row_hash.buckets(keys[order], count), np.arange(count), "right").tolist()
    block = Block.of(flows, order)
    for target, (start, end) in enumerate(itertools.pairwise([0, *ends])):
        if end > start:
            yield plan.partition(split, target), (_FLOWS, block.slice(start, end))


def _typed(row_groups: Sequence[RowGroup], plan: ShufflePlan) -> Iterator[tuple[str, Iterable[TypedRows]]]:
    """Yield the name of a file and its typed rows: of each row group, or of the whole file if rows are joined."""
    if plan.window is None:
        yield from ((row_group.name, read_typed(row_group, plan.schema)) for row_group in row_groups)
        return
    for name, group in itertools.groupby(row_groups, key=lambda row_group: row_group.name):
        own = list(group)
        parts = itertools.chain.from_iterable(read_typed(row_group, plan.schema) for row_group in own)
        yield name, join_windows.joined(parts, own[0], plan.window)


def _count_rejected(typed: TypedRows, rejected: Counter[str], name: str, most: int) -> None:
    """Add the rejected rows of a task by reason; raises before they fill the memory."""
    rejected.update(typed.quarantine["reason"].to_pylist())
    if rejected.total() > max(most, _REJECTED_AT_LEAST):
        found = ", ".join(f"{n} {reason}" for reason, n in rejected.most_common(3))
        raise InputError(
            f"{name}: more than {rejected.total()} rows cannot be used ({found}), which exceeds"
            " ingest.max_rejected_share; correct the source, or raise the share to accept the rest"
        )


def _scatter(typed: TypedRows, plan: ShufflePlan) -> Iterator[tuple[int, Record]]:
    yield counted(
        IngestCounts(read=typed.read, warnings=typed.warnings, unknown_labels=typed.unknown_labels, joined=typed.joined)
    )
    for i, split in enumerate(SOURCE_SPLITS):
        refused = typed.quarantine
        if len(refused):
            refused = refused.filter(pa.array([(s == "test") == bool(i) for s in refused["split"].to_pylist()]))
        if len(refused):
            target = int(refused["source_row"][0].as_py()) % plan.buckets[split]
            yield plan.partition(split, target), (_QUARANTINE, _to_bytes(refused))
    if not len(typed.flows):
        return
    splits, table = typed.flows["split"].combine_chunks(), typed.flows.drop_columns(_NOT_SENT)
    codes = splits.indices.to_numpy()
    for code, split in enumerate(splits.dictionary.to_pylist()):
        of_split = np.flatnonzero(codes == code)
        if len(of_split):
            own = table if len(of_split) == len(table) else table.take(pa.array(of_split))
            yield from _without_copies(own, split, plan)


def _without_copies(flows: pa.Table, split: str, plan: ShufflePlan) -> Iterator[tuple[int, Record]]:
    """Yield rows of one split as records for their buckets, and copies of one vector for others."""
    count = plan.buckets[split]
    others, found = copies.taken_out(flows, plan.schema.features, count)
    if found is not None:
        yield plan.partition(split, found.place(count)), (_COPIES, found.to_bytes())
        for bucket, keys in found.keys_by_bucket(count):
            yield plan.partition(split, bucket), (_COPIED, keys)
    yield from bucketed(others, split, plan)


def _to_bytes(table: pa.Table) -> bytes:
    # Compression by column reduces what passes through the JVM and the shuffle files to a third.
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _from_bytes(blobs: Sequence[bytes], contract: pa.Schema) -> pa.Table:
    tables = [pa.ipc.open_stream(blob).read_all() for blob in blobs]
    return pa.concat_tables([contract.empty_table(), *tables]).combine_chunks()


def _with_run(blob: bytes, run_id: str, report: IngestCounts) -> pa.Table:
    """Return refused rows with the id of the run; adds them to the counts."""
    refused = _from_bytes([blob], QUARANTINE)
    keys = ["split", "label", "reason"]
    for row in refused.group_by(keys).aggregate([("raw", "count", pc.CountOptions("all"))]).to_pylist():
        split, label, reason = (row[key] or "" for key in keys)
        report.quarantined[split, label, reason] += row["raw_count"]
    place = refused.column_names.index("run_id")
    return refused.set_column(place, "run_id", pa.array([run_id] * len(refused), pa.string()))


@dataclass
class _Received:
    """What the tasks of the first stage have sent to one bucket.

    Attributes:
        counts: Of their rows.
        rows: Number of rows in `flows`.
        flows: Rows of the bucket.
        refused: Rows for the quarantine.
        blocks: Copies of vectors, most of which are in other buckets.
        copied: Row keys of this bucket of which others have copies.
    """

    counts: IngestCounts = field(default_factory=IngestCounts)
    rows: int = 0
    flows: list[Sent] = field(default_factory=list)
    refused: list[bytes] = field(default_factory=list)
    blocks: list[bytes] = field(default_factory=list)
    copied: list[Keys] = field(default_factory=list)


def _received(records: Iterable[Record], split: str, plan: ShufflePlan) -> _Received:
    found = _Received()
    lists: dict[str, list[Any]] = {_QUARANTINE: found.refused, _COPIES: found.blocks, _COPIED: found.copied}
    for kind, content in records:
        if kind == _COUNTS:
            found.counts.add(content)
        elif kind in lists:
            lists[kind].append(content)
        else:
            found.rows += content[0]
            if found.rows > max(_MOST_TIMES_EXPECTED * plan.rows_per_file, _MOST_ROWS_OF_BUCKET):
                raise InputError(
                    f"{found.rows} rows of split {split} or more have equal values, too many for one task; expected"
                    f" about {plan.rows_per_file} in each of {plan.buckets[split]} buckets; remove the equal rows from"
                    " the source, or raise ingest.rows_per_file"
                )
            found.flows.append(content)
    return found


def _write_bucket(partition: int, records: Iterable[Record], plan: ShufflePlan) -> IngestCounts:
    split, bucket = plan.located(partition)
    received = _received(records, split, plan)
    report = received.counts
    if received.refused or (partition == 0 and plan.origin == "dataset"):  # without refused rows an empty table
        name = part_name(partition)
        refused = (_with_run(blob, plan.run_id, report) for blob in received.refused)
        write_part(plan.quarantine, name, refused, QUARANTINE, plan.metadata, ("source_file", "reason"))
        report.parts.append(name)
    _write_rows(bucket, received, split, plan, report)
    if received.blocks:
        _write_blocks(bucket, received.blocks, split, plan, report)
    return report


def _write_rows(bucket: int, received: _Received, split: str, plan: ShufflePlan, report: IngestCounts) -> None:
    """Write the file of a bucket, sorted and marked; what was received of it leaves the memory."""
    found = Rows.of(received.flows, plan.sent)
    received.flows.clear()
    labels, marks, conflicts = _compared(found, received.copied, plan)
    if conflicts:
        report.conflicts[split] = conflicts
    groups = (
        _as_flows(
            found.table(start, start + ROW_GROUP_ROWS),
            pa.array(marks.duplicate[start : start + ROW_GROUP_ROWS]),
            pa.array(marks.label_conflict[start : start + ROW_GROUP_ROWS]),
            plan,
        )
        for start in range(0, received.rows, ROW_GROUP_ROWS)
    )
    name = part_name(bucket)
    contract = flows_contract(plan.schema.features)
    complete = complete_columns(contract)
    write_part(f"{plan.flows}/split={split}", name, groups, contract, plan.metadata, TEXT_COLUMNS, complete)
    report.parts.append(name)
    _count_classes(labels, split, report)


def _write_blocks(bucket: int, blocks: Sequence[bytes], split: str, plan: ShufflePlan, report: IngestCounts) -> None:
    """Write the file of the copies that were sent to a bucket."""
    of_others = copies.Copies.of_blocks(blocks)
    tables = (
        _as_flows(rows, pa.repeat(True, len(rows)), pa.repeat(False, len(rows)), plan)
        for rows in of_others.tables(ROW_GROUP_ROWS)
    )
    name = _write_copies(bucket, tables, split, plan)
    report.parts.append(name)
    report.copies.append((split, name, np.unique(of_others.vectors["row_key"].to_numpy())))
    _count_classes(of_others.rows["label19"].to_numpy(), split, report)


def _compared(found: Rows, copied: Sequence[Keys], plan: ShufflePlan) -> tuple[Ids, DuplicateMarks, set[bytes]]:
    """Return labels and marks of the rows of a bucket, and its vectors with several labels that have copies elsewhere.

    Only rows whose key another row has are compared.
    """
    keys, labels = found.values("row_key"), found.values("label19")
    same = keys[1:] == keys[:-1]
    near = np.flatnonzero(np.r_[False, same] | np.r_[same, False]) if len(keys) else np.empty(0, np.int64)
    values = [found.values(name, near) for name in plan.schema.features]
    marks = marks_of(keys[near], labels[near], values)
    conflicts = copies.conflicting(keys[near], values, marks.label_conflict, copied)
    duplicate, label_conflict = np.zeros(len(keys), dtype=np.bool_), np.zeros(len(keys), dtype=np.bool_)
    duplicate[near], label_conflict[near] = marks.duplicate, marks.label_conflict
    return labels, DuplicateMarks(duplicate, label_conflict), conflicts


def _as_flows(rows: pa.Table, duplicate: pa.Array, label_conflict: pa.Array, plan: ShufflePlan) -> pa.Table:
    """Return rows with the columns `plan.sent` as rows of `flows/`; texts may be dictionaries."""
    known = {c.name: pa.nulls(len(rows), c.type) for c in FLOW_ORIGIN if c.name not in rows.column_names}
    known |= class_columns(rows["label19"].to_numpy())
    known |= {"duplicate": duplicate, "label_conflict": label_conflict}
    known["origin"] = texts(np.zeros(len(rows), dtype=np.int32), [plan.origin])
    names = flows_contract(plan.schema.features).names
    return pa.table({name: known[name] if name in known else rows[name] for name in names})


def _count_classes(labels: Ids, split: str, report: IngestCounts) -> None:
    for label, rows in enumerate(np.bincount(labels).tolist()):
        if rows:
            report.flows[split, taxonomy.CLASS19[label]] += rows
