"""Flows to predictions, on the executors: read a row group, preprocess, one forward pass, write.

Nothing is collected but counts. TensorFlow is imported, and a model built, once in each Python worker.
"""

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyspark import SparkContext

from ids_spark import row_hash, taxonomy
from ids_spark.flows import any_fault, refused_rows, to_doubles
from ids_spark.lake import resolve
from ids_spark.metrics import Counts, confusion_of
from ids_spark.model_store import Model
from ids_spark.parts import keep_only, part_name, write_part
from ids_spark.schema import PREDICTIONS, QUARANTINE, SchemaMismatch
from ids_spark.sources import Piece, deal

_ROWS_PER_TASK: Final = 500_000
_TOP: Final = 3
_TEXT: Final = [f.name for f in PREDICTIONS if pa.types.is_string(f.type)] + ["top3.list.element.class_name"]
_networks: dict[str, Any] = {}  # of this Python worker, by model hash

Floats32 = NDArray[np.float32]


@dataclass(frozen=True)
class Task:
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
class Scored:
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

    def add(self, other: "Scored") -> None:
        """Add the counts of another task."""
        self.confusion = self.confusion + other.confusion
        self.rows_read += other.rows_read
        self.rows_scored += other.rows_scored
        self.quarantined += other.quarantined
        self.parts += other.parts


def require_features(pieces: Iterable[tuple[Piece, tuple[str, ...]]], model: Model) -> None:
    """Check that every file has the columns that the model needs.

    Raises:
        SchemaMismatch: names the file and the missing columns.
    """
    for piece, columns in pieces:
        missing = [name for name in model.card.features if name not in columns]
        if missing:
            raise SchemaMismatch(
                f"{piece.name} lacks {len(missing)} feature columns of model {model.card.name}"
                f" ({model.preprocessor.schema.name}): {', '.join(missing)}; nothing was scored"
            )


def score(spark_context: SparkContext, pieces: Sequence[Piece], model: Model, task: Task) -> Scored:
    """Score every row group, writing predictions and quarantine; returns counts."""
    hands = deal(pieces, max(spark_context.defaultParallelism, sum(p.rows for p in pieces) // _ROWS_PER_TASK))
    shared = spark_context.broadcast(model)

    def score_hand(index: int, hand: Iterable[list[Piece]]) -> Iterator[Scored]:
        for dealt in hand:
            yield _score_hand(index, dealt, shared.value, task)

    total = Scored(np.zeros((model.card.classes, model.card.classes), dtype=np.int64))
    reports = spark_context.parallelize(hands, len(hands)).mapPartitionsWithIndex(score_hand).collect()
    for report in reports:
        total.add(report)
    keep_only(task.target, total.parts)
    keep_only(task.quarantine, total.parts)
    return total


def _score_hand(index: int, pieces: Sequence[Piece], model: Model, task: Task) -> Scored:
    report = Scored(np.zeros((model.card.classes, model.card.classes), dtype=np.int64))
    refused: list[pa.Table] = []

    def predictions() -> Iterator[pa.Table]:
        for piece in pieces:
            scored, rejected = _score_piece(piece, model, task, report)
            refused.append(rejected)
            yield scored

    name = part_name(index)
    metadata = {"ids_spark.data_origin": task.data_origin, "ids_spark.model": model.card.name}
    write_part(task.target, name, predictions(), PREDICTIONS, metadata, _TEXT)
    rejected = pa.concat_tables([QUARANTINE.empty_table(), *refused])
    if len(rejected) or index == 0:
        write_part(task.quarantine, name, [rejected], QUARANTINE, metadata, ("reason",))
        report.quarantined.update(rejected["reason"].to_pylist())
    report.parts.append(name)
    return report


def _score_piece(piece: Piece, model: Model, task: Task, report: Scored) -> tuple[pa.Table, pa.Table]:
    card, features = model.card, list(model.card.features)
    fs, path = resolve(piece.uri)
    with fs.open_input_file(path) as stream:
        file = pq.ParquetFile(stream)
        there = [
            n for n in ("source_file", "source_row", "row_key", "class19", "duplicate") if n in file.schema_arrow.names
        ]
        table = file.read_row_group(piece.row_group, columns=[*features, *there], use_threads=False).combine_chunks()
    if "source_row" not in there:
        table = table.append_column("source_row", pa.array(np.arange(piece.first_row, piece.first_row + len(table))))
    if "source_file" not in there:
        table = table.append_column("source_file", _repeated(piece.name, len(table)))
    values, faults = to_doubles(table, features)
    bad = any_fault(faults, len(table))
    report.rows_read += len(table)
    rejected = QUARANTINE.empty_table()
    if bad.any():
        labels = table["class19"].to_pylist() if "class19" in there else [None] * len(table)
        rows = table["source_row"].to_numpy()
        splits = [task.split] * len(table)
        rejected = refused_rows(table, piece.name, features, rows, labels, splits, faults)
        rejected = rejected.set_column(7, "run_id", _repeated(task.run_id, len(rejected)))
        good = np.flatnonzero(~bad)
        table, values = table.take(pa.array(good)), {name: column[good] for name, column in values.items()}
    matrix = np.column_stack(model.preprocessor.transform(values, features))
    probabilities = forward(model, matrix, task.batch_rows)
    report.rows_scored += len(table)
    if "row_key" not in there:
        table = table.append_column("row_key", pa.array(row_hash.row_keys(list(values.values()))))
    columns = _identity(table, there) | _prediction_columns(probabilities, card.classes)
    columns |= {
        "model_version": _repeated(card.version, len(table)),
        "run_id": _repeated(task.run_id, len(table)),
        "scored_at": pa.array(np.full(len(table), np.datetime64(task.scored_at.replace(tzinfo=None), "us"))),
        "data_origin": _repeated(task.data_origin, len(table)),
    }
    if "class19" in there and len(table):
        truth = _labels(table["class19"], card.classes)
        known = truth >= 0
        if "duplicate" in there:  # an evaluation counts each distinct flow once, as the study does
            known &= ~table["duplicate"].to_numpy()
        predicted = probabilities.argmax(axis=1).astype(np.int32)
        report.confusion = report.confusion + confusion_of(truth[known], predicted[known], card.classes)
    arrays = [columns.get(f.name, pa.nulls(len(table), f.type)) for f in PREDICTIONS]
    scored = pa.Table.from_arrays(
        [a.cast(f.type) for a, f in zip(arrays, PREDICTIONS, strict=True)], schema=PREDICTIONS
    )
    return scored, rejected


def _identity(table: pa.Table, there: Sequence[str]) -> dict[str, Any]:
    columns = {name: table[name] for name in ("source_file", "source_row", "row_key")}
    if "class19" in there:
        ids = _labels(table["class19"], 19)
        for level in taxonomy.LEVELS:
            names = pa.array([taxonomy.CLASSES[level][i] for i in taxonomy.parents(19, level)])
            columns[f"class{level}"] = names.take(pa.array(ids, mask=ids < 0))
    return columns


def _labels(column: Any, level: taxonomy.Level) -> NDArray[np.int32]:
    """Return class ids at a level, -1 where the label is null or unknown."""
    encoded = column.combine_chunks().dictionary_encode()
    of_name = {name: int(taxonomy.parents(19, level)[i]) for i, name in enumerate(taxonomy.CLASS19)}
    ids = np.array([*(of_name.get(name, -1) for name in encoded.dictionary.to_pylist()), -1], dtype=np.int32)
    found: NDArray[np.int32] = ids[encoded.indices.fill_null(len(ids) - 1).to_numpy(zero_copy_only=False)]
    return found


def _prediction_columns(probabilities: Floats32, level: taxonomy.Level) -> dict[str, Any]:
    """Return prediction columns from probabilities of shape (rows, level).

    The probability of a coarser class is the sum over its members, so the prediction at a coarser level is the most
    probable class of that level, which need not be the parent of the most probable finer class.
    """
    columns: dict[str, Any] = {}
    for coarser in taxonomy.levels_from(level):
        member = np.zeros((level, coarser), dtype=np.float32)
        member[np.arange(level), taxonomy.parents(level, coarser)] = 1.0
        best = (probabilities @ member).argmax(axis=1).astype(np.int32)
        columns[f"predicted_class{coarser}_id"] = pa.array(best)
        columns[f"predicted_class{coarser}"] = pa.array(taxonomy.CLASSES[coarser]).take(pa.array(best))
    columns["probability"] = pa.array(probabilities.max(axis=1, initial=0.0))
    columns["attack_probability"] = pa.array(1.0 - probabilities[:, taxonomy.BENIGN_ID])
    shown = min(_TOP, level)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :shown]
    names = pa.array(taxonomy.CLASSES[level]).take(pa.array(order.ravel()))
    values = pa.array(np.take_along_axis(probabilities, order, axis=1).ravel())
    pairs = pa.StructArray.from_arrays([names, values], names=["class_name", "probability"])
    columns["top3"] = pa.ListArray.from_arrays(
        pa.array(np.arange(len(probabilities) + 1, dtype=np.int32) * shown), pairs
    )
    return columns


def forward(model: Model, matrix: Floats32, batch_rows: int) -> Floats32:
    """Return class probabilities of shape (rows, classes) for scaled features of shape (rows, n_features)."""
    network = _networks.get(model.sha256)
    if network is None:
        network = _networks[model.sha256] = _build(model)
    batches = [network(matrix[i : i + batch_rows]).numpy() for i in range(0, len(matrix), batch_rows)]
    return np.concatenate(batches) if batches else np.empty((0, model.card.classes), dtype=np.float32)


def _build(model: Model) -> Any:
    import tensorflow as tf

    from ids_spark import models

    tf.get_logger().setLevel("ERROR")  # a worker that scores several models makes a graph for each; it warns of that

    if not _networks:  # a task has one core; the number can be set only before TensorFlow runs its first operation
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    network = models.build(model.card.architecture, len(model.card.features), model.card.classes, model.card.hyper)
    network.set_weights(model.weights)
    signature = [tf.TensorSpec((None, len(model.card.features)), tf.float32)]
    return tf.function(lambda features: network(features, training=False), input_signature=signature)


def _repeated(text: str, times: int) -> pa.Array:
    return pa.array([text]).take(pa.array(np.zeros(times, dtype=np.int32)))
