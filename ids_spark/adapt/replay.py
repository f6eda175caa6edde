"""Stored flows once more through several models, each at its own operating point, in one pass of Spark tasks.

The flows are the test rows of the data set and the benign rows of the site's own nights; neither predictions nor tables
are written. The models see the same rows, so that `gate` can compare them row by row.
"""

import datetime as dt
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark import SparkContext

from ids_spark.base.arrays import Counts, Floats, Floats32, Ids, Ints, Mask, by_column, largest_columns
from ids_spark.base.spark_tasks import run_each
from ids_spark.base.text import one_line
from ids_spark.dataset.columns import ColumnNames, listed
from ids_spark.dataset.features import SchemaMismatch
from ids_spark.dataset.tables import TABLES
from ids_spark.dataset.taxonomy import BENIGN_ID, CLASS19, parents
from ids_spark.evaluate.metrics import scores_of
from ids_spark.evaluate.score_counts import confusion_of
from ids_spark.ingest import sources
from ids_spark.ingest.sources import RowGroup, bin_pack, scoring_tasks
from ids_spark.lake.filesystem import files_in
from ids_spark.lake.parquet import SUFFIX, open_part, stored_names
from ids_spark.lake.store import Lake
from ids_spark.models import inference, threshold
from ids_spark.models.artifact import Model, ModelUnusable

Split = Literal["test", "local"]
HeldOut = Callable[[pa.Table], Mask]
"""Local rows, with the columns of `LOCAL_COLUMNS`, to which of them are counted, shape (rows,)."""
LOCAL_COLUMNS: Final = ("event_date", "place", "device", "left_out")
"""Columns of `flows/split=local` by which rows are held out and counted; null where a file lacks one."""
_BATCH_ROWS: Final = 16_384
_FLOWS: Final = TABLES["flows"]


@dataclass(frozen=True)
class Replayed:
    """Counts of flows that several models have scored.

    A pattern says which of the models flag a flow: bit i is set where model i does.

    Attributes:
        logits: Threshold of each model: it flags flows at or above it.
        patterns: Distinct test rows by class and pattern, shape (19, 2 ** models).
        confusions: Of each model at its own level, over the same rows: labels by predictions.
        local: Local benign rows of each date and device by pattern, shape (2 ** models,); both may be None.
        local_called_attacks: Local rows that each model predicts as an attack, shape (models,).
    """

    logits: tuple[float, ...]
    patterns: Counts
    confusions: tuple[Counts, ...]
    local: dict[tuple[dt.date | None, str | None], Counts] = field(default_factory=dict)
    local_called_attacks: Counts = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def rows(self) -> Ints:
        """Return the test rows of each class, shape (19,)."""
        found: Ints = self.patterns.sum(axis=1)
        return found

    def flagged(self, model: int) -> Ints:
        """Return the test rows of each class that a model flags, shape (19,)."""
        found: Ints = self.patterns[:, _has(model, self.patterns.shape[1])].sum(axis=1)
        return found

    def flagged_by_only(self, model: int, other: int) -> Ints:
        """Return the test rows of each class that a model flags and another one does not, shape (19,)."""
        patterns = self.patterns.shape[1]
        found: Ints = self.patterns[:, _has(model, patterns) & ~_has(other, patterns)].sum(axis=1)
        return found

    def local_rows(self) -> int:
        """Return the number of local rows."""
        return int(sum(counts.sum() for counts in self.local.values()))

    def local_flagged(self, model: int) -> int:
        """Return the number of local rows that a model flags."""
        return int(sum(counts[_has(model, len(counts))].sum() for counts in self.local.values()))

    def local_by_device(self, model: int) -> dict[str | None, tuple[int, int]]:
        """Return rows and flagged rows of a model by device, over all dates."""
        found: dict[str | None, tuple[int, int]] = {}
        for (_, device), counts in self.local.items():
            rows, flagged = found.get(device, (0, 0))
            found[device] = (rows + int(counts.sum()), flagged + int(counts[_has(model, len(counts))].sum()))
        return found

    def macro_f1(self, model: int) -> float | None:
        """Return the macro F1 of a model's most probable classes on the test rows; None without rows."""
        value = float(scores_of(self.confusions[model]).averages["f1_macro"])
        return None if math.isnan(value) else value

    def attack_recall(self, model: int) -> float | None:
        """Return the share of the attack rows of test that a model predicts as some attack; None without such rows."""
        attacks = np.delete(self.confusions[model], BENIGN_ID, axis=0)
        total = int(attacks.sum())
        return 1 - int(attacks[:, BENIGN_ID].sum()) / total if total else None


def _has(model: int, patterns: int) -> Mask:
    found: Mask = (np.arange(patterns) >> model & 1).astype(bool)
    return found


def replay(
    spark_context: SparkContext,
    lake: Lake,
    models: Sequence[Model],
    held_out: HeldOut | None = None,
    logits: Sequence[float] | None = None,
) -> Replayed:
    """Score test rows and local rows with every model, and count what each flags.

    Test rows that are marked as duplicates are not counted, nor local rows that are left out; equal local rows are
    events of their own, as in a night. A split that the lake lacks has no rows.

    Args:
        spark_context: Its executors read and score.
        lake: Holds `flows/`.
        models: Of one release; each with validation scores.
        held_out: Which local rows count; default: none.
        logits: Threshold of each model; default: its operating point.

    Raises:
        ModelUnusable: a model has no validation scores.
        SchemaMismatch: the flows lack a feature of a model.
        SourceUnusable: a file of the flows cannot be read.
    """
    levels = [_operating_point(model) for model in models] if logits is None else list(logits)
    splits: tuple[Split, ...] = ("test",) if held_out is None else ("test", "local")
    work = [(split, each) for split in splits for each in _row_groups(lake, split, models)]
    if not work:
        return _nothing(tuple(levels), models)
    split_of = {each.uri: split for split, each in work}
    row_groups = [each for _, each in work]
    partitions = bin_pack(row_groups, scoring_tasks(row_groups, spark_context.defaultParallelism))
    shared = spark_context.broadcast(tuple(models))

    def count(own: list[RowGroup]) -> Replayed:
        counted = _nothing(tuple(levels), shared.value)
        for row_group in own:
            found = _counted(row_group, split_of[row_group.uri], shared.value, tuple(levels), held_out)
            counted = reduce(_sum, found, counted)
        return counted

    return reduce(_sum, run_each(spark_context, partitions, count))


def local_thresholds(
    spark_context: SparkContext, lake: Lake, models: Sequence[Model], held_out: HeldOut
) -> tuple[float, ...] | None:
    """Return the threshold of each model at which it flags 1 % (`threshold.RATES`) of the same local rows.

    Args:
        spark_context: Its executors read and score.
        lake: Holds `flows/`.
        models: Of one release.
        held_out: Which local rows count.

    Returns:
        None if no row counts. Of fewer than 100 rows, the thresholds are above all of them.

    Raises:
        SchemaMismatch: the flows lack a feature of a model.
        SourceUnusable: a file of the flows cannot be read.
    """
    row_groups = _row_groups(lake, "local", models)
    if not row_groups:
        return None
    shared = spark_context.broadcast(tuple(models))

    def scores(own: list[RowGroup]) -> list[Floats]:
        found: list[list[Floats]] = [[] for _ in shared.value]
        for row_group in own:
            for table, values in _tables(row_group, "local", shared.value, held_out):
                for i, model in enumerate(shared.value if len(table) else ()):
                    found[i].append(threshold.attack_logits(_probabilities(model, values)))
        return [np.concatenate([np.zeros(0), *parts]) for parts in found]

    partitions = bin_pack(row_groups, scoring_tasks(row_groups, spark_context.defaultParallelism))
    counted = run_each(spark_context, partitions, scores)
    logits = [np.concatenate([own[i] for own in counted]) for i in range(len(models))]
    return tuple(_level_of(own) for own in logits) if len(logits[0]) else None


def _level_of(logits: Floats) -> float:
    """Return the level of the first of `threshold.RATES` of benign rows with these scores."""
    n = len(logits)
    labels, attacks, mix = np.zeros(n, np.int32), np.ones(n, np.int32), np.array([n, 0])
    return threshold.validation_scores_of(logits, labels, attacks, mix, np.zeros(1)).levels()[0]


def _operating_point(model: Model) -> float:
    if model.validation_scores is None:
        raise ModelUnusable(
            f"model {model.card.name} version {model.card.version} has no validation scores, from which its threshold"
            " follows; retrain with this version"
        )
    return model.validation_scores.levels()[0]


def _row_groups(lake: Lake, split: Split, models: Sequence[Model]) -> list[RowGroup]:
    """Return the row groups of a split; none if the lake lacks it."""
    uri = lake.uri(f"flows/split={split}")
    wanted = {name for model in models for name in model.card.source_features}
    found = []
    for row_group, types in (each for file in files_in(uri, SUFFIX) for each in sources.parquet_row_groups(file)):
        own = ColumnNames(types).schema()
        missing = sorted(wanted - set(types))
        if missing or own is None or any(own.name != model.preprocessor.schema.name for model in models):
            names = ", ".join(f"{each.card.version} of {each.preprocessor.schema.name}" for each in models)
            lacks = f" and lacks {listed(missing)}" if missing else ""
            raise SchemaMismatch(
                f"{uri}/{row_group.name} is of feature schema {own.name if own else 'unknown'}{lacks}; the versions of"
                f" model {models[0].card.name} are {names}; ingest flows of their release"
            )
        found.append(row_group)
    return found


def _nothing(levels: tuple[float, ...], models: Sequence[Model]) -> Replayed:
    sizes = [model.card.classes for model in models]
    confusions = tuple(np.zeros((size, size), dtype=np.int64) for size in sizes)
    patterns = np.zeros((len(CLASS19), 2 ** len(models)), dtype=np.int64)
    return Replayed(levels, patterns, confusions, {}, np.zeros(len(models), dtype=np.int64))


def _sum(a: Replayed, b: Replayed) -> Replayed:
    local = dict(a.local)
    for key, counts in b.local.items():
        local[key] = local[key] + counts if key in local else counts
    confusions = tuple(x + y for x, y in zip(a.confusions, b.confusions, strict=True))
    called = a.local_called_attacks + b.local_called_attacks
    return Replayed(a.logits, a.patterns + b.patterns, confusions, local, called)


def _counted(
    row_group: RowGroup, split: Split, models: Sequence[Model], levels: tuple[float, ...], held_out: HeldOut | None
) -> list[Replayed]:
    """Return the counts of each piece of a row group."""
    return [
        _count_rows(table, values, split, models, levels)
        for table, values in _tables(row_group, split, models, held_out)
    ]


def _tables(
    row_group: RowGroup, split: Split, models: Sequence[Model], held_out: HeldOut | None
) -> Iterator[tuple[pa.Table, dict[str, Floats]]]:
    """Yield the rows of each piece of a row group that count, and their features.

    Raises:
        SourceUnusable: the content of the file is damaged.
    """
    features = sorted({name for model in models for name in model.card.source_features})
    names = ("label19", "duplicate") if split == "test" else LOCAL_COLUMNS
    try:
        with open_part(row_group.uri) as file:
            stored = stored_names(file.schema.names, _FLOWS)
            read = [stored[name] for name in (*features, *names) if name in stored]
            for piece in file.pieces(read, row_group.index or 0):
                table = pa.table({name: piece[stored[name]] for name in (*features, *names) if name in stored})
                for name in names:
                    if name not in stored:
                        table = table.append_column(name, pa.nulls(len(table)))
                kept = _of_test(table) if split == "test" else _of_local(table, held_out)
                table = table.filter(pa.array(kept)).combine_chunks()
                yield table, {name: table[name].to_numpy() for name in features}
    except (pa.ArrowException, OSError) as error:
        raise sources.SourceUnusable(
            f"{row_group.uri}: its content cannot be read ({one_line(error)}); run jobs/ingest.py again"
        ) from error


def _of_test(table: pa.Table) -> Mask:
    kept: Mask = ~pc.fill_null(table["duplicate"].cast(pa.bool_()), False).to_numpy()
    return kept


def _of_local(table: pa.Table, held_out: HeldOut | None) -> Mask:
    kept: Mask = pc.is_null(table["left_out"]).to_numpy()
    return kept & held_out(table) if held_out is not None else np.zeros(len(table), dtype=np.bool_)


def _count_rows(
    table: pa.Table, values: dict[str, Floats], split: Split, models: Sequence[Model], levels: tuple[float, ...]
) -> Replayed:
    patterns = np.zeros(len(table), dtype=np.int64)
    predicted: list[Ids] = []
    for i, model in enumerate(models):
        probabilities = _probabilities(model, values)
        patterns |= (threshold.attack_logits(probabilities) >= levels[i]).astype(np.int64) << i
        predicted.append(largest_columns(probabilities))
    counted = _nothing(levels, models)
    size = counted.patterns.shape[1]
    if split == "test":
        labels = table["label19"].to_numpy().astype(np.int32)
        flat = np.bincount(labels.astype(np.int64) * size + patterns, minlength=counted.patterns.size)
        confusions = tuple(
            confusion_of(parents(19, model.card.classes)[labels], own, model.card.classes)
            for model, own in zip(models, predicted, strict=True)
        )
        return Replayed(levels, flat.reshape(counted.patterns.shape), confusions, {}, counted.local_called_attacks)
    called = np.array([int((own != BENIGN_ID).sum()) for own in predicted], dtype=np.int64)
    return Replayed(levels, counted.patterns, counted.confusions, _by_device(table, patterns, size), called)


def _probabilities(model: Model, values: dict[str, Floats]) -> Floats32:
    own = list(model.card.features)
    return inference.forward(model, by_column(model.preprocessor.transform(values, own)), _BATCH_ROWS)


def _by_device(table: pa.Table, patterns: Ints, size: int) -> dict[tuple[dt.date | None, str | None], Counts]:
    rows = pa.table({"event_date": table["event_date"], "device": table["device"], "pattern": pa.array(patterns)})
    rows = rows.append_column("one", pa.array(np.ones(len(rows), dtype=np.int64)))
    grouped = rows.group_by(["event_date", "device", "pattern"]).aggregate([("one", "sum")])
    found: dict[tuple[dt.date | None, str | None], Counts] = {}
    for row in grouped.to_pylist():
        counts = found.setdefault((row["event_date"], row["device"]), np.zeros(size, dtype=np.int64))
        counts[row["pattern"]] += row["one_sum"]
    return found
