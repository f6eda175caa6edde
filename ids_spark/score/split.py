"""Labelled flows scored by every chosen model: what `jobs/score.py` does if no night is configured.

The driver chooses models and writes metrics; tasks read a row group, preprocess it, run one forward pass and write.
Only counts are returned to the driver.
"""

import datetime as dt
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import pyarrow as pa
from pyspark import SparkContext

from ids_spark.base.arrays import by_column
from ids_spark.base.report import Report, combined_origin
from ids_spark.base.spark_tasks import run_each
from ids_spark.base.text import one_line, shortened, valid_text
from ids_spark.config.score import ScoreConfig
from ids_spark.dataset.columns import ColumnNames, listed
from ids_spark.dataset.features import SchemaMismatch
from ids_spark.dataset.tables import QUARANTINE, SPLIT_PREDICTIONS, TABLES
from ids_spark.evaluate import score_counts
from ids_spark.evaluate.results import Results, unseen_classes
from ids_spark.evaluate.score_counts import ScoreCounts
from ids_spark.ingest import row_hash, sources
from ids_spark.ingest.parse import any_fault, refused_rows, to_doubles
from ids_spark.ingest.sources import RowGroup, bin_pack, scoring_tasks
from ids_spark.lake.filesystem import exists
from ids_spark.lake.parquet import keep_only, open_part, part_name, write_part
from ids_spark.lake.parquet_limits import BeyondLimits, check_row_group
from ids_spark.lake.store import Lake
from ids_spark.models import artifact, inference, registry, signatures
from ids_spark.models.artifact import Model
from ids_spark.models.levels import at_levels
from ids_spark.report.format import counted
from ids_spark.score import prediction_columns

log = logging.getLogger(__name__)

_DICTIONARY: Final = [f.name for f in SPLIT_PREDICTIONS if pa.types.is_string(f.type)] + [
    "top3.list.element.class_name"
]
_OPTIONAL: Final[Mapping[str, pa.DataType]] = {
    "source_file": pa.string(),
    "source_row": pa.int64(),
    "row_key": pa.int64(),
    "class19": pa.string(),
    "duplicate": pa.bool_(),
}
"""Columns of `flows/` other than the features; they may be absent from other parquet files, or hold something else."""


@dataclass(frozen=True)
class SplitTask:
    """Inputs of every scoring task.

    Attributes:
        target: URI of the staged predictions.
        quarantine: URI of the staged quarantine.
        split: Name of the split, written to the quarantine.
        run_id: Of this run.
        scored_at: One time for the whole run, UTC.
        data_origin: `synthetic` if the flows or the model's train rows are, else `measured`.
        batch_rows: Rows of a forward pass.
        threshold: Attack logit from which nights flag flows; None for a model without validation scores.
    """

    target: str
    quarantine: str
    split: str
    run_id: str
    scored_at: dt.datetime
    data_origin: str
    batch_rows: int
    threshold: float | None


@dataclass
class SplitCounts:
    """Counts of the flows that tasks read: rows_read = rows_scored + quarantined.

    Attributes:
        labelled: What metrics need of flows that have a label and are not marked as duplicates: one entry for each
            task, in a task one for each table.
        rows_read: Flows found.
        rows_scored: Flows with a prediction.
        quarantined: Flows without one, by reason.
        parts: Files written.
    """

    labelled: list[ScoreCounts] = field(default_factory=list)
    rows_read: int = 0
    rows_scored: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)
    parts: list[str] = field(default_factory=list)

    def add(self, other: "SplitCounts") -> None:
        """Add the counts of another task."""
        self.labelled += other.labelled
        self.rows_read += other.rows_read
        self.rows_scored += other.rows_scored
        self.quarantined += other.quarantined
        self.parts += other.parts


def score_split(
    spark_context: SparkContext, lake: Lake, staged: Callable[[str], str], config: ScoreConfig, run_id: str, seed: int
) -> Report:
    """Score one set of flows with every chosen model; stages predictions, quarantine, metrics and confusion.

    Args:
        spark_context: Its executors read, score and write.
        lake: Holds the models and, unless `config.source` is set, the flows.
        staged: Returns the URI of the staged version of a table.
        config: Which flows to score and with which models.
        run_id: Of the run.
        seed: Of the intervals of metrics.

    Raises:
        SchemaMismatch: a file lacks a feature of a model; nothing is scored.
        SignatureRefused: `score.trusted_keys` is set, and a model is not signed as it should be.
    """
    now = dt.datetime.now(dt.UTC)
    source, flows_origin = _flows_of(lake, config)
    row_groups = sources.parquet_row_groups(source)
    trust = signatures.open_trust(lake, config.trusted_keys)
    chosen = artifact.choose_models(lake.uri("models"), config.models, config.version)
    versions = [uri.rsplit("/", 2) for uri in chosen]
    models = [registry.read_version(models_uri, name, version, trust) for models_uri, name, version in versions]
    row_groups_of = [_columns_of(row_groups, model) for model in models]

    report = Report(feature_schema=models[0].preprocessor.schema.name, data_origin=flows_origin)
    results = Results(run_id, config.split, seed)
    for model, own in zip(models, row_groups_of, strict=True):
        card = model.card
        names = ("split_predictions", "quarantine/job=score_split")
        tables = [TABLES[name].place(split=config.split, model=card.name) for name in names]
        origin = combined_origin(flows_origin, card.data_origin)
        target, quarantine = (staged(table) for table in tables)
        scores = model.validation_scores
        logit = None if scores is None else scores.operating_point().logit
        task = SplitTask(target, quarantine, config.split, run_id, now, origin, config.batch_rows, logit)
        counts = _score_row_groups(spark_context, own, model, task)
        log.info("scored model=%s rows=%d quarantined=%d", card.name, counts.rows_scored, counts.quarantined.total())

        labelled = score_counts.merged([score_counts.no_counts(card.classes), *counts.labelled])
        results.add(card, labelled, origin)
        report.add_scored(card.name, card.version, counts.rows_read, counts.rows_scored, counts.quarantined)
        report.tables += tables
        report.data_origin = combined_origin(report.data_origin, origin)
        unseen = unseen_classes(card, labelled.confusions[card.classes])
        if unseen:
            absent = counted(len(unseen), "class of the flows is", "classes of the flows are")
            report.notes.append(f"{absent} absent from the train rows of {card.name}: {', '.join(unseen)}")
    report.tables += results.write(lake, staged)
    return report


def _flows_of(lake: Lake, config: ScoreConfig) -> tuple[str, str]:
    """Return where the flows are and whether they are `measured` or `synthetic`."""
    if config.source is None:
        return lake.uri(f"flows/split={config.split}"), lake.facts("flows", "jobs/ingest.py")["data_origin"]
    synthetic = exists(f"{config.source}/{sources.SYNTHETIC_MARK}")
    return config.source, "synthetic" if synthetic else "measured"


def _columns_of(row_groups: Iterable[tuple[RowGroup, Mapping[str, pa.DataType]]], model: Model) -> list[RowGroup]:
    """Return the row groups, each with the columns of the features of a model.

    Raises:
        SchemaMismatch: a file lacks a feature, is of another release than the model, or a feature is not a number.
    """
    card, schema = model.card, model.preprocessor.schema
    found = []
    for row_group, types in row_groups:
        names = ColumnNames(types)
        columns = names.of(schema)
        missing = [name for name in card.source_features if name not in columns]
        other = names.schema()
        if missing:
            raise SchemaMismatch(
                f"{row_group.name} lacks {len(missing)} feature columns of model {card.name} ({schema.name}):"
                f" {listed(missing)}; nothing was scored"
            )
        if other is None or other.name != schema.name:
            found_in = (
                f"of feature schema {other.name} ({listed(names.own(other))})" if other else "of no clear release"
            )
            raise SchemaMismatch(
                f"{row_group.name} is {found_in}, model {card.name} of {schema.name}; nothing was scored; choose a"
                " model of the same release"
            )
        used = tuple(columns[name] for name in card.source_features)
        if wrong := [f"{name!r} is {types[name]}" for name in used if not _is_readable(types[name])]:
            raise SchemaMismatch(f"{row_group.name}: expected numbers, found {listed(wrong)}; nothing was scored")
        found.append(replace(row_group, columns=used))
    return found


def _is_readable(kind: pa.DataType) -> bool:
    return sources.is_number(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _score_row_groups(
    spark_context: SparkContext, row_groups: Sequence[RowGroup], model: Model, task: SplitTask
) -> SplitCounts:
    partitions = bin_pack(row_groups, scoring_tasks(row_groups, spark_context.defaultParallelism))
    shared = spark_context.broadcast(model)

    def score_partition(numbered: tuple[int, list[RowGroup]]) -> SplitCounts:
        index, own = numbered
        return _score_partition(index, own, shared.value, task)

    total = SplitCounts()
    for counts in run_each(spark_context, list(enumerate(partitions)), score_partition):
        total.add(counts)
    keep_only(total.parts, task.target, task.quarantine)
    return total


def _score_partition(index: int, row_groups: Sequence[RowGroup], model: Model, task: SplitTask) -> SplitCounts:
    counts = SplitCounts()
    refused: list[pa.Table] = []

    def predictions() -> Iterator[pa.Table]:
        for row_group in row_groups:
            for table in _tables_of(row_group, model.card.source_features):
                predicted, rejected = _score_table(table, model, task, counts)
                refused.append(rejected)
                yield predicted

    name = part_name(index)
    metadata = {"ids_spark.data_origin": task.data_origin, "ids_spark.model": model.card.name}
    write_part(task.target, name, predictions(), SPLIT_PREDICTIONS, metadata, _DICTIONARY)
    rejected = pa.concat_tables([QUARANTINE.empty_table(), *refused])
    if len(rejected) or index == 0:  # without refused rows an empty table replaces an older one
        write_part(task.quarantine, name, [rejected], QUARANTINE, metadata, ("reason",))
        counts.quarantined.update(rejected["reason"].to_pylist())
    counts.parts.append(name)
    counts.labelled = [score_counts.merged(counts.labelled)] if counts.labelled else []
    return counts


def _score_table(table: pa.Table, model: Model, task: SplitTask, counts: SplitCounts) -> tuple[pa.Table, pa.Table]:
    """Return predictions and refused rows of a table of `_tables_of`; adds to `counts`."""
    card, features = model.card, list(model.card.source_features)
    counts.rows_read += len(table)
    values, faults = to_doubles(table, features)
    bad = any_fault(faults, len(table))
    rejected = QUARANTINE.empty_table()
    if bad.any():
        known = {
            "source_file": table["source_file"].to_pylist(),
            "source_row": table["source_row"].to_numpy(),
            "split": task.split,
            "label": table["class19"].to_pylist() if "class19" in table.column_names else None,
            "run_id": task.run_id,
        }
        rejected = refused_rows(table, faults, features, known)
        good = np.flatnonzero(~bad)
        table, values = table.take(pa.array(good)), {name: column[good] for name, column in values.items()}
    matrix = by_column(model.preprocessor.transform(values, card.features))
    probabilities = inference.forward(model, matrix, task.batch_rows)
    at_each = at_levels(probabilities, card.classes)
    predicted = prediction_columns.most_probable(at_each)
    counts.rows_scored += len(table)
    columns = {
        **{name: table[name] for name in _OPTIONAL if name in table.column_names},
        **prediction_columns.score_columns(probabilities, predicted, SPLIT_PREDICTIONS),
        **prediction_columns.constants(
            {
                "model_version": card.version,
                "run_id": task.run_id,
                "scored_at": task.scored_at,
                "data_origin": task.data_origin,
            },
            SPLIT_PREDICTIONS,
            len(table),
        ),
    }
    if "row_key" not in columns:
        columns["row_key"] = pa.array(row_hash.row_keys(list(values.values())))
    if "class19" in table.column_names:
        columns |= prediction_columns.label_columns(table["class19"])
        truth = prediction_columns.label_ids(table["class19"], 19)
        counted = truth >= 0
        if "duplicate" in table.column_names:  # an evaluation counts each distinct flow once, as the study does
            counted &= ~table["duplicate"].to_numpy()
        counts.labelled.append(score_counts.count(at_each, predicted, truth, counted, task.threshold))
    return prediction_columns.assemble(columns, SPLIT_PREDICTIONS), rejected


def _tables_of(row_group: RowGroup, features: Sequence[str]) -> Iterator[pa.Table]:
    """Yield features and optional columns of a row group, at once or in pieces.

    The name of the file and row numbers are added if the file lacks them, or holds something else in these columns.

    Raises:
        SourceUnusable: the content of the file is damaged.
    """
    first = row_group.first_row
    try:
        check_row_group(row_group.uri, row_group.index or 0, row_group.columns)
        with open_part(row_group.uri) as file:
            types = {name: file.schema.field(name).type for name in _OPTIONAL if file.schema.names.count(name) == 1}
            present = [name for name, kind in types.items() if kind == _OPTIONAL[name]]
            for piece in file.pieces([*row_group.columns, *present], row_group.index or 0):
                columns = dict(zip(features, (piece[name] for name in row_group.columns), strict=True))
                optional = {name: _optional(piece[name]) for name in present}
                table = pa.table(columns | optional).combine_chunks()
                if "source_row" not in present:
                    table = table.append_column("source_row", pa.array(np.arange(first, first + len(table))))
                if "source_file" not in present:
                    name = prediction_columns.constant(row_group.name, pa.string(), len(table))
                    table = table.append_column("source_file", name)
                first += len(table)
                yield table
    except (pa.ArrowException, OSError, BeyondLimits) as error:
        raise sources.SourceUnusable(
            f"{row_group.uri}: its content cannot be read ({one_line(error)}); write the file again"
        ) from error


def _optional(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return shortened(valid_text(column)) if pa.types.is_string(column.type) else column
