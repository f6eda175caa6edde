"""Flagged flows of a row group: by the network, and by the second detector; counted as evidence, some explained."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ids_spark.alerts import evidence
from ids_spark.alerts.evidence import Flagged, FlowKeys
from ids_spark.alerts.severity import SEVERITIES
from ids_spark.base.arrays import Floats, Floats32, Ids, Ints, Mask
from ids_spark.dataset import taxonomy
from ids_spark.dataset.tables import ATTRIBUTION, STATES
from ids_spark.models import attribution, inference, threshold
from ids_spark.score import prediction_columns
from ids_spark.score.night_reader import NightRows
from ids_spark.score.night_tasks import LevelledModel, NightCounts, NightTask

_STRONGEST: Final = len(evidence.LEVELS)
_SEVERAL: Final = 3  # flows of the strongest level, of one class and entity, from which they are explained


@dataclass(frozen=True)
class Flags:
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


def flags_of(levelled: LevelledModel, matrix: Floats32, probabilities: Floats32, logits: Floats) -> Flags:
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
    class_ids = np.where(unknown[at], card.classes, threshold.most_probable_attacks(probabilities)[at])
    attack = prediction_columns.attack_probabilities(probabilities)[at]
    return Flags(
        at,
        unknown[at],
        class_ids.astype(np.int32),
        levels[at].astype(np.int32),
        scores[at],
        logits[at],
        attack,
        (*card.class_names, taxonomy.UNKNOWN),
    )


def count_champion(
    file: str,
    rows: NightRows,
    flows: pa.Table,
    keys: FlowKeys,
    task: NightTask,
    values: Mapping[str, Floats],
    matrix: Floats32,
    flags: Flags,
    total: NightCounts,
) -> dict[str, Any]:
    """Count the champion's flags; return the columns `state`, `flagged`, `severity` and `attributions`.

    Args:
        file: Name of the file.
        rows: Rows of the row group.
        flows: Their columns that the allow-list names.
        keys: Their entities.
        task: Of the night.
        values: Raw and derived features of these rows, by name.
        matrix: Their scaled features.
        flags: Of these rows.
        total: Counts are added to it.
    """
    n = len(rows.source_rows)
    allowed, counts = covered(flows, task, flags)
    total.allowed_by_entry = total.allowed_by_entry + counts
    total.flows_allowed += int(allowed.sum())
    total.champion.flagged += len(flags.at)
    total.champion.unknown += int(flags.unknown.sum())
    found = as_evidence(file, rows, flags, allowed)
    # Explained first is the highest flow of each row of the evidence, which shows its attributions.
    groups = evidence.groups_of_flagged(keys, found)
    urgent = evidence.highest_flows(keys, found, groups)
    strong = ~allowed & ~flags.unknown & (flags.levels == _STRONGEST)
    strong &= _several(keys, flags, strong)
    chosen = attribution.rows_to_explain(
        flags.logits, flags.class_ids, strong, urgent & strong, task.alerts.explained_rows
    )
    total.flows_explained += len(chosen)
    if len(chosen):
        explained = _attributions(values, task, matrix, flags.at[chosen])
        found = replace(found, attributions=prediction_columns.scatter(explained, chosen, len(flags.at)))
    total.champion.evidence.append(evidence.evidence(keys, found, groups))
    open_ = ~allowed
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


def _several(keys: FlowKeys, flags: Flags, strong: Mask) -> Mask:
    """Return which strong flows have others of their class and device, or class and source, beside them.

    Single ones are usually false alarms, and explaining them would take a tenth of the time of scoring.
    """
    found = np.zeros(len(strong), dtype=np.bool_)
    for entities in (keys.devices, keys.sources):
        own = strong & (entities.codes[flags.at] >= 0)
        of = [(entities.codes[flags.at[own]], len(entities.names)), (flags.class_ids[own], len(flags.names))]
        found[own] |= evidence.rows_alike(of) >= _SEVERAL
    return found


def covered(flows: pa.Table, task: NightTask, flags: Flags) -> tuple[Mask, Ints]:
    """Return which flagged flows the allow-list covers, and how many each entry covers."""
    if not task.allow_list.entries:
        return np.zeros(len(flags.at), dtype=np.bool_), np.zeros(0, dtype=np.int64)
    of_flags = flows.take(pa.array(flags.at)).append_column(
        "class_name", prediction_columns.dictionary(flags.class_ids, flags.names)
    )
    return task.allow_list.covers(of_flags, task.event_date)


def as_evidence(file: str, rows: NightRows, flags: Flags, allowed: Mask) -> Flagged:
    """Return the flags as evidence counts them, without attributions.

    Args:
        file: Name of the file.
        rows: Rows of the row group.
        flags: Of these rows.
        allowed: From `covered`.
    """
    return Flagged(
        flags.at,
        flags.class_ids,
        flags.names,
        flags.levels,
        allowed,
        flags.logits,
        flags.probabilities,
        flags.scores,
        file,
        rows.source_rows[flags.at],
        pa.nulls(len(flags.at), pa.list_(ATTRIBUTION)),
    )


def _attributions(values: Mapping[str, Floats], task: NightTask, matrix: Floats32, at: NDArray[np.int64]) -> pa.Array:
    model = task.champion.model
    if model.validation_scores is None:  # the scoring context refuses such a model
        raise ValueError(f"{model.card.name} has no validation scores")
    moved = inference.contributions(model, matrix[at], np.array(model.validation_scores.baseline, dtype=np.float32))
    raw = np.column_stack([values[name][at] for name in model.card.features])
    return attribution.largest_contributions(moved, raw, model.card.features, task.alerts.attributions)
