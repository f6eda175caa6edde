"""Flows to predictions, on the executors: read a row group, preprocess, one forward pass, write.

Nothing is collected but counts.
"""

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark import SparkContext

from ids_spark.base.arrays import Counts, as_rows
from ids_spark.dataset.features import SchemaMismatch
from ids_spark.dataset.tables import PREDICTIONS, QUARANTINE
from ids_spark.evaluate.metrics import confusion_of
from ids_spark.ingest import row_hash
from ids_spark.ingest.parse import any_fault, refused_rows, to_doubles
from ids_spark.ingest.sources import RowGroup, bin_pack, scoring_tasks
from ids_spark.lake.filesystem import resolve
from ids_spark.lake.parquet import keep_only, part_name, write_part
from ids_spark.models import inference
from ids_spark.models.artifact import Model
from ids_spark.score import prediction_columns, split_columns

_TEXT: Final = [f.name for f in PREDICTIONS if pa.types.is_string(f.type)] + ["top3.list.element.class_name"]


@dataclass(frozen=True)
class SplitTask:
    """What every scoring task knows.

    Attributes:
        target: URI of the staged predictions.
        quarantine: URI of the staged quarantine.
        split: Stands in the quarantine.
        run_id: Of this run.
        scored_at: One time for the whole run, UTC.
        data_origin: `measured` or `synthetic`: of the flows or of the model's train rows.
        batch_rows: Rows of a forward pass.
    """

    target: str
    quarantine: str
    split: str
    run_id: str
    scored_at: dt.datetime
    data_origin: str
    batch_rows: int


@dataclass
class SplitCounts:
    """What became of the flows.

    Attributes:
        rows_read: Flows found.
        rows_scored: Flows with a prediction.
        quarantined: Flows without one, by reason.
        confusion: At the model's level, shape (classes, classes), labels by predictions, over flows that carry a label
            and are not marked as duplicates.
        parts: Files written.
    """

    confusion: Counts
    rows_read: int = 0
    rows_scored: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)
    parts: list[str] = field(default_factory=list)

    def add(self, other: "SplitCounts") -> None:
        """Add the counts of another task."""
        self.confusion = self.confusion + other.confusion
        self.rows_read += other.rows_read
        self.rows_scored += other.rows_scored
        self.quarantined += other.quarantined
        self.parts += other.parts


def require_features(row_groups: Iterable[tuple[RowGroup, tuple[str, ...]]], model: Model) -> None:
    """Check that every file has the columns that the model needs.

    Raises:
        SchemaMismatch: names the file and the missing columns.
    """
    for row_group, columns in row_groups:
        missing = [name for name in model.card.features if name not in columns]
        if missing:
            raise SchemaMismatch(
                f"{row_group.name} lacks {len(missing)} feature columns of model {model.card.name}"
                f" ({model.preprocessor.schema.name}): {', '.join(missing)}; nothing was scored"
            )


def score_row_groups(
    spark_context: SparkContext, row_groups: Sequence[RowGroup], model: Model, task: SplitTask
) -> SplitCounts:
    """Score every row group, writing predictions and quarantine; returns counts."""
    partitions = bin_pack(row_groups, scoring_tasks(row_groups, spark_context.defaultParallelism))
    shared = spark_context.broadcast(model)

    def score_partition(index: int, partition: Iterable[list[RowGroup]]) -> Iterator[SplitCounts]:
        for dealt in partition:
            yield _score_partition(index, dealt, shared.value, task)

    total = SplitCounts(np.zeros((model.card.classes, model.card.classes), dtype=np.int64))
    reports = spark_context.parallelize(partitions, len(partitions)).mapPartitionsWithIndex(score_partition).collect()
    for report in reports:
        total.add(report)
    keep_only(total.parts, task.target, task.quarantine)
    return total


def _score_partition(index: int, row_groups: Sequence[RowGroup], model: Model, task: SplitTask) -> SplitCounts:
    report = SplitCounts(np.zeros((model.card.classes, model.card.classes), dtype=np.int64))
    refused: list[pa.Table] = []

    def scored_row_groups() -> Iterator[pa.Table]:
        for row_group in row_groups:
            scored, rejected = _score_row_group(row_group, model, task, report)
            refused.append(rejected)
            yield scored

    name = part_name(index)
    metadata = {"ids_spark.data_origin": task.data_origin, "ids_spark.model": model.card.name}
    write_part(task.target, name, scored_row_groups(), PREDICTIONS, metadata, _TEXT)
    rejected = pa.concat_tables([QUARANTINE.empty_table(), *refused])
    if len(rejected) or index == 0:
        write_part(task.quarantine, name, [rejected], QUARANTINE, metadata, ("reason",))
        report.quarantined.update(rejected["reason"].to_pylist())
    report.parts.append(name)
    return report


def _score_row_group(
    row_group: RowGroup, model: Model, task: SplitTask, report: SplitCounts
) -> tuple[pa.Table, pa.Table]:
    card, features = model.card, list(model.card.features)
    fs, path = resolve(row_group.uri)
    with fs.open_input_file(path) as stream:
        file = pq.ParquetFile(stream)
        there = [
            n for n in ("source_file", "source_row", "row_key", "class19", "duplicate") if n in file.schema_arrow.names
        ]
        table = file.read_row_group(row_group.index, columns=[*features, *there], use_threads=False).combine_chunks()
    if "source_row" not in there:
        table = table.append_column(
            "source_row", pa.array(np.arange(row_group.first_row, row_group.first_row + len(table)))
        )
    if "source_file" not in there:
        table = table.append_column("source_file", prediction_columns.constant(row_group.name, pa.string(), len(table)))
    values, faults = to_doubles(table, features)
    bad = any_fault(faults, len(table))
    report.rows_read += len(table)
    rejected = QUARANTINE.empty_table()
    if bad.any():
        known = {
            "source_file": table["source_file"].to_pylist(),
            "source_row": table["source_row"].to_numpy(),
            "split": task.split,
            "label": table["class19"].to_pylist() if "class19" in there else None,
            "run_id": task.run_id,
        }
        rejected = refused_rows(table, faults, features, known)
        good = np.flatnonzero(~bad)
        table, values = table.take(pa.array(good)), {name: column[good] for name, column in values.items()}
    matrix = as_rows(model.preprocessor.transform(values, features))
    probabilities = inference.forward(model, matrix, task.batch_rows)
    report.rows_scored += len(table)
    if "row_key" not in there:
        table = table.append_column("row_key", pa.array(row_hash.row_keys(list(values.values()))))
    columns = split_columns.identity(table, there) | split_columns.columns_of(probabilities, card.classes)
    columns |= {
        "model_version": prediction_columns.constant(card.version, pa.string(), len(table)),
        "run_id": prediction_columns.constant(task.run_id, pa.string(), len(table)),
        "scored_at": pa.array(np.full(len(table), np.datetime64(task.scored_at.replace(tzinfo=None), "us"))),
        "data_origin": prediction_columns.constant(task.data_origin, pa.string(), len(table)),
    }
    if "class19" in there and len(table):
        truth = split_columns.label_ids(table["class19"], card.classes)
        counted = truth >= 0
        if "duplicate" in there:  # an evaluation counts each distinct flow once, as the study does
            counted &= ~table["duplicate"].to_numpy()
        predicted = probabilities.argmax(axis=1).astype(np.int32)
        report.confusion = report.confusion + confusion_of(truth[counted], predicted[counted], card.classes)
    arrays = [columns.get(f.name, pa.nulls(len(table), f.type)) for f in PREDICTIONS]
    scored = pa.Table.from_arrays(
        [a.cast(f.type) for a, f in zip(arrays, PREDICTIONS, strict=True)], schema=PREDICTIONS
    )
    return scored, rejected
