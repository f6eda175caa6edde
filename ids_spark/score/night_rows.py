"""Scores the flows of a night on the executors; only counts and evidence are returned to the driver.

A task holds one row group at a time, or a piece of a large one.

The champion and, if there is one, the challenger score every flow; only the champion's scores become predictions and
attributions.
"""

import contextlib
import datetime as dt
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark import SparkContext

from ids_spark.alerts import evidence
from ids_spark.alerts.evidence import Flagged, FlowKeys
from ids_spark.alerts.severity import SEVERITIES
from ids_spark.base.arrays import Floats, Floats32, Ids, Ints, Mask, as_rows
from ids_spark.base.spark_tasks import run_each
from ids_spark.dataset import taxonomy
from ids_spark.dataset.tables import ATTRIBUTION, QUARANTINE, SCHEMA_VERSION, STATES
from ids_spark.features import drift
from ids_spark.ingest import row_hash
from ids_spark.ingest.sources import bin_pack, scoring_tasks
from ids_spark.lake.parquet import keep_only, part_name, part_writer, write_part
from ids_spark.models import attribution, inference, threshold
from ids_spark.score import night_reader, prediction_columns
from ids_spark.score.night_files import NightRowGroup
from ids_spark.score.night_reader import NightRows
from ids_spark.score.night_tasks import LevelledModel, NightCounts, NightTask, no_counts

UNKNOWN_HOUR: Final = -1
_TIME: Final = "event_time"  # its name in incidents and in the allow-list
_HOURS_A_DAY: Final = 24
_PLAIN: Final = ("flow_id",)  # distinct in every row, so a dictionary saves nothing
_STRONGEST: Final = len(evidence.LEVELS)
_SEVERAL: Final = (
    3  # flows of the strongest level, of one class and entity in a row group, from which they are explained
)


def score_row_groups(spark_context: SparkContext, row_groups: Sequence[NightRowGroup], task: NightTask) -> NightCounts:
    """Score every row group of a night; writes predictions and quarantine."""
    by_row_group = {row_group.row_group: row_group for row_group in row_groups}
    tasks = scoring_tasks(list(by_row_group), spark_context.defaultParallelism)
    partitions = [
        [by_row_group[row_group] for row_group in partition] for partition in bin_pack(list(by_row_group), tasks)
    ]
    key = task.pseudonyms  # sent with the function: a broadcast would leave the key in a file on disk
    shared = spark_context.broadcast(replace(task, pseudonyms=None))

    def score_partition(numbered: tuple[int, list[NightRowGroup]]) -> NightCounts:
        index, own = numbered
        return _score_partition(index, own, replace(shared.value, pseudonyms=key))

    total = no_counts(task)
    for scored in run_each(spark_context, list(enumerate(partitions)), score_partition):
        total.add(scored)
    keep_only(total.parts, task.target, task.quarantine)
    shared.destroy()
    return total


def _score_partition(index: int, row_groups: Sequence[NightRowGroup], task: NightTask) -> NightCounts:
    total, name, contract = no_counts(task), part_name(index), task.contract
    metadata = {"ids_spark.data_origin": task.data_origin, "ids_spark.model": task.champion.model.card.name}
    with contextlib.ExitStack() as open_files:

        @functools.cache  # opened with the first refused row
        def quarantine() -> Callable[[pa.Table], None]:
            return open_files.enter_context(
                part_writer(task.quarantine, name, QUARANTINE, metadata, ("source_file", "reason"))
            )

        def refuse(rows: pa.Table) -> None:
            if len(rows):
                quarantine()(rows)
                total.quarantined.update(
                    {each["values"]: each["counts"] for each in rows["reason"].value_counts().to_pylist()}
                )

        def predictions() -> Iterator[pa.Table]:
            for row_group in row_groups:
                for rows in night_reader.read_row_group(row_group, task.read_spec):
                    total.add_read(rows)
                    refuse(rows.refused)
                    if len(rows.source_rows):
                        predicted, lost = _predict(row_group.row_group.name, rows, task, total)
                        refuse(lost)
                        yield predicted

        texts = [f.name for f in contract if pa.types.is_string(f.type) and f.name not in _PLAIN]
        write_part(task.target, name, predictions(), contract, metadata, [*texts, "top3.list.element.class_name"])
        if index == 0:  # without refused rows an empty table replaces an older one
            quarantine()
    total.merged_traffic(), total.champion.merged_evidence(), total.challenger.merged_evidence()
    total.parts.append(name)
    return total


def _predict(file: str, rows: NightRows, task: NightTask, total: NightCounts) -> tuple[pa.Table, pa.Table]:
    """Score one row group.

    Args:
        file: Name of its file.
        rows: Its rows that can be scored.
        task: Of the night.
        total: Counts are added to it.

    Returns:
        Predictions, one row for each flow, and as `tables.QUARANTINE` the flows without a finite score, whose feature
        values are finite but too large for the model.
    """
    levelled, card, config = task.champion, task.champion.model.card, task.config
    matrix, probabilities = _forward(levelled, rows, config.batch_rows)
    logits, lost = threshold.attack_logits(probabilities), QUARANTINE.empty_table()
    if (bad := np.isnan(logits)).any():
        columns = np.array([task.read_spec.features.index(name) for name in card.features])
        rows, lost = night_reader.without_unscorable(
            rows, bad, columns[np.abs(matrix).argmax(axis=1)], file, task.read_spec
        )
        matrix, probabilities, logits = matrix[~bad], probabilities[~bad], logits[~bad]
    n = len(rows.source_rows)
    hours, other_date = _hours(rows.pass_through[config.event_time], task.event_date)
    ids = prediction_columns.predicted_ids(probabilities, card.classes)
    flows = _flows(rows, task)
    keys = evidence.keys_of(
        flows, task.alerts.entities, task.alerts.sources, task.alerts.window_minutes, file, _names_of(task)
    )
    total.rows_scored += n
    total.scored_by_file[file] += n
    total.of_another_date += other_date
    total.bin_counts.add(drift.count_bins(levelled.model.preprocessor.histograms(card.features), rows.values))
    total.champion.class_mix += _class_mix(hours, ids[card.classes])
    total.traffic.append(evidence.traffic(keys))
    flags = _flags(levelled, matrix, probabilities, logits)
    columns_of_flags = _evidence(file, rows, flows, keys, task, matrix, flags, total)
    if task.challenger is not None:
        _score_challenger(file, rows, flows, keys, task, task.challenger, flags, hours, total)
    known: dict[str, Any] = {
        "source_file": prediction_columns.constant(file, pa.string(), n),
        "source_row": pa.array(rows.source_rows),
        **_pass_through(rows.pass_through, task),
        **prediction_columns.score_columns(probabilities, ids, task.contract),
        "attack_logit": pa.array(logits.astype(np.float32)),
        **columns_of_flags,
        **_constants(task, n),
    }
    if "lineage" in config.columns:
        known["row_key"] = pa.array(row_hash.row_keys([rows.values[name] for name in card.features]))
    return prediction_columns.assemble(known, task.contract), lost


def _forward(levelled: LevelledModel, rows: NightRows, batch_rows: int) -> tuple[Floats32, Floats32]:
    model = levelled.model
    matrix = as_rows(model.preprocessor.transform(rows.values, model.card.features))
    return matrix, inference.forward(model, matrix, batch_rows)


@dataclass(frozen=True)
class _Flags:
    """Flagged flows of a row group.

    Attributes:
        at: Index of each; shape (flagged,).
        unknown: Whether only the second detector flags it.
        class_ids: Its most probable attack class; the number of classes if it is unknown.
        levels: Highest level that it reaches, from 1.
        scores: What the levels compare: its logit, or its distance if it is unknown.
        logits, probabilities: Its attack logit and probability.
        names: Name of each class id.
    """

    at: Ints
    unknown: Mask
    class_ids: Ids
    levels: Ids
    scores: Floats
    logits: Floats
    probabilities: Floats32
    names: tuple[str, ...]


def _flags(levelled: LevelledModel, matrix: Floats32, probabilities: Floats32, logits: Floats) -> _Flags:
    """Return the flows at or above the operating point of the network, and of the second detector below it."""
    card, novelty = levelled.model.card, levelled.model.novelty
    levels = np.zeros(len(logits), dtype=np.int64)
    for level in levelled.logits:
        levels += logits >= level  # false for NaN
    scores, unknown = logits.copy(), np.zeros(len(logits), dtype=np.bool_)
    if novelty is not None and levelled.distances:
        rest = np.flatnonzero((levels == 0) & np.isfinite(logits))
        most = 2 * len(rest) > len(matrix)  # a copy of most rows would cost more than the distances of all
        distances = novelty.distances(matrix)[rest] if most else novelty.distances(matrix[rest])
        far = distances >= levelled.distances[0]
        found, distances = rest[far], distances[far]
        levels[found] = np.searchsorted(levelled.distances, distances, side="right")
        scores[found], unknown[found] = distances, True
    at = np.flatnonzero(levels)
    # At a low level, benign can be more probable than the most probable attack.
    class_ids = np.where(unknown[at], card.classes, threshold.most_probable_attacks(probabilities[at]))
    attack = prediction_columns.attack_probabilities(probabilities[at])
    return _Flags(
        at,
        unknown[at],
        class_ids.astype(np.int32),
        levels[at].astype(np.int32),
        scores[at],
        logits[at],
        attack,
        (*card.class_names, taxonomy.UNKNOWN),
    )


def _evidence(
    file: str,
    rows: NightRows,
    flows: pa.Table,
    keys: FlowKeys,
    task: NightTask,
    matrix: Floats32,
    flags: _Flags,
    total: NightCounts,
) -> dict[str, Any]:
    """Count the champion's flags; return the columns `state`, `flagged`, `severity` and `attributions`."""
    n = len(rows.source_rows)
    covered, counts = _covered(flows, task, flags)
    total.allowed_by_entry = total.allowed_by_entry + counts
    total.flows_allowed += int(covered.sum())
    total.champion.flagged += len(flags.at)
    total.champion.unknown += int(flags.unknown.sum())
    found = _flagged(file, rows, flags, covered, pa.nulls(len(flags.at), pa.list_(ATTRIBUTION)))
    # Explained first is the highest flow of each row of the evidence, which shows its attributions.
    urgent = evidence.highest_flows(keys, found)
    strong = ~covered & ~flags.unknown & (flags.levels == _STRONGEST)
    strong &= _several(keys, flags, strong)
    chosen = attribution.rows_to_explain(
        flags.logits, flags.class_ids, strong, urgent & strong, task.alerts.explained_rows
    )
    total.flows_explained += len(chosen)
    if len(chosen):
        explained = _attributions(rows, task, matrix, flags.at[chosen])
        found = replace(found, attributions=prediction_columns.scatter(explained, chosen, len(flags.at)))
    total.champion.evidence.append(evidence.evidence(keys, found))
    open_ = ~covered
    probability = 1 / (1 + np.exp(-flags.logits[open_]))
    severities, flagged = np.zeros(n, dtype=np.int32), np.zeros(n, dtype=np.bool_)
    severities[flags.at[open_]] = task.policy.severity_ids(flags.class_ids[open_], flags.names, probability=probability)
    flagged[flags.at[open_]] = True
    states = np.zeros(n, dtype=np.int32)
    states[flags.at] = np.where(flags.unknown, 2, 1)
    return {
        "state": prediction_columns.dictionary(states, STATES),
        "flagged": pa.array(flagged),
        "severity": pa.DictionaryArray.from_arrays(pa.array(severities, mask=~flagged), pa.array(SEVERITIES)),
        "attributions": prediction_columns.scatter(found.attributions, flags.at, n),
    }


def _several(keys: FlowKeys, flags: _Flags, strong: Mask) -> Mask:
    """Return which strong flows have others of their class and device, or class and source, beside them.

    Single ones are usually false alarms, and explaining them would take a tenth of the time of scoring.
    """
    found = np.zeros(len(strong), dtype=np.bool_)
    for entities in (keys.devices, keys.sources):
        own = strong & (entities.codes[flags.at] >= 0)
        of = entities.codes[flags.at[own]] * len(flags.names) + flags.class_ids[own]
        _, inverse, counts = np.unique(of, return_inverse=True, return_counts=True)
        found[own] |= counts[inverse] >= _SEVERAL
    return found


def _covered(flows: pa.Table, task: NightTask, flags: _Flags) -> tuple[Mask, Ints]:
    """Return which flagged flows the allow-list covers, and how many each entry covers."""
    if not task.allow_list.entries:
        return np.zeros(len(flags.at), dtype=np.bool_), np.zeros(0, dtype=np.int64)
    of_flags = flows.take(pa.array(flags.at)).append_column(
        "class_name", prediction_columns.dictionary(flags.class_ids, flags.names)
    )
    return task.allow_list.covers(of_flags, task.event_date)


def _flagged(file: str, rows: NightRows, flags: _Flags, covered: Mask, attributions: pa.Array) -> Flagged:
    return Flagged(
        flags.at,
        flags.class_ids,
        flags.names,
        flags.levels,
        covered,
        flags.logits,
        flags.probabilities,
        flags.scores,
        file,
        rows.source_rows[flags.at],
        attributions,
    )


def _attributions(rows: NightRows, task: NightTask, matrix: Floats32, at: NDArray[np.int64]) -> pa.Array:
    model = task.champion.model
    if model.validation_scores is None:  # the scoring context refuses such a model
        raise ValueError(f"{model.card.name} has no validation scores")
    moved = attribution.contributions(
        inference.attack_logit(model), matrix[at], np.array(model.validation_scores.baseline, dtype=np.float32)
    )
    raw = np.column_stack([rows.values[name][at] for name in model.card.features])
    return attribution.largest_contributions(moved, raw, model.card.features, task.alerts.attributions)


def _score_challenger(
    file: str,
    rows: NightRows,
    flows: pa.Table,
    keys: FlowKeys,
    task: NightTask,
    levelled: LevelledModel,
    of_champion: _Flags,
    hours: Ids,
    total: NightCounts,
) -> None:
    """Add counts and evidence of the challenger for the same flows."""
    matrix, probabilities = _forward(levelled, rows, task.config.batch_rows)
    logits = threshold.attack_logits(probabilities)
    flags = _flags(levelled, matrix, probabilities, logits)
    known = np.isfinite(logits)  # a flow without a finite score is neither flagged nor counted
    total.challenger.class_mix += _class_mix(hours[known], probabilities[known].argmax(axis=1).astype(np.int32))
    total.challenger.flagged += len(flags.at)
    total.challenger.unknown += int(flags.unknown.sum())
    total.flagged_by_both += len(np.intersect1d(flags.at, of_champion.at, assume_unique=True))
    covered, _ = _covered(flows, task, flags)
    found = _flagged(file, rows, flags, covered, pa.nulls(len(flags.at), pa.list_(ATTRIBUTION)))
    total.challenger.evidence.append(evidence.evidence(keys, found))


def _flows(rows: NightRows, task: NightTask) -> pa.Table:
    """Return the pass-through columns with plain values, the time of a flow under the name `event_time`."""
    names = [_TIME if name == task.config.event_time else name for name in rows.pass_through.column_names]
    return rows.pass_through.rename_columns(names)


def _names_of(task: NightTask) -> Callable[[str, pa.Array], pa.Array] | None:
    """Return the function that replaces the entities of pseudonymised columns; None without any."""
    pseudonyms = task.pseudonyms
    if pseudonyms is None:
        return None
    chosen = task.config.pseudonymise

    def names(column: str, plain: pa.Array) -> pa.Array:
        return pseudonyms.pseudonymised(plain) if column in chosen else plain

    return names


def _pseudonymise(flows: pa.Table, task: NightTask) -> pa.Table:
    """Return the table with pseudonyms in the columns of `score.pseudonymise`."""
    if task.pseudonyms is not None:
        for name in task.config.pseudonymise:
            place = flows.column_names.index(name)
            flows = flows.set_column(place, name, task.pseudonyms.pseudonymised(flows[name]))
    return flows


def _pass_through(columns: pa.Table, task: NightTask) -> dict[str, Any]:
    columns = _pseudonymise(columns, task)
    return {name: columns[name].combine_chunks() for name in columns.column_names}


def _constants(task: NightTask, rows: int) -> dict[str, Any]:
    card, contract = task.champion.model.card, task.contract
    values = {
        "model_version": card.version,
        "schema_version": SCHEMA_VERSION,
        "run_id": task.read_spec.run_id,
        "scored_at": task.scored_at,
        "data_origin": task.data_origin,
    }
    return prediction_columns.constants(values, contract, rows)


def _hours(times: pa.ChunkedArray, event_date: dt.date) -> tuple[Ids, int]:
    """Return the hour of each flow in UTC, -1 if unknown, and the number of flows of another date."""
    known = np.asarray(pc.is_valid(times))
    hours: Ids = np.asarray(pc.hour(times).cast(pa.int32()).fill_null(UNKNOWN_HOUR))
    dates = times.cast(pa.date32()).cast(pa.int32()).fill_null(0)
    other = np.asarray(dates) != (event_date - dt.date(1970, 1, 1)).days
    return hours, int((other & known).sum())


def _class_mix(hours: Ids, class_ids: Ids) -> Counter[tuple[int, int]]:
    n = len(taxonomy.CLASS19)
    counts = np.bincount((hours.astype(np.int64) + 1) * n + class_ids, minlength=(_HOURS_A_DAY + 1) * n)
    return Counter({(int(i) // n - 1, int(i) % n): int(counts[i]) for i in np.flatnonzero(counts)})
