"""Refused flows of a night by device, source, window of time and reason; counted in tasks, as flagged flows are."""

from typing import Final

import numpy as np
import pyarrow as pa

from ids_spark.alerts import evidence
from ids_spark.alerts.allow_list import AllowList
from ids_spark.alerts.evidence import Flagged, FlowKeys
from ids_spark.base.arrays import Floats, Mask
from ids_spark.dataset.tables import ATTRIBUTION
from ids_spark.dataset.taxonomy import QUARANTINED
from ids_spark.models.threshold import LIMIT
from ids_spark.score.night_reader import Refused
from ids_spark.score.night_tasks import NightCounts, NightTask

NO_LOGIT: Final = -2 * LIMIT
"""Attack logit of flows without a score in the counts; no score is so low."""
_TIME: Final = "event_time"  # its name in incidents and in the allow-list


def flows_of(passed: pa.Table, task: NightTask) -> pa.Table:
    """Return pass-through columns with plain values, the time of a flow under the name `event_time`."""
    names = [_TIME if name == task.config.event_time else name for name in passed.column_names]
    return passed.rename_columns(names)


def keys_of(flows: pa.Table, file: str, task: NightTask) -> FlowKeys:
    """Return device, source and window of flows, from `flows_of`."""
    alerts = task.alerts
    return evidence.keys_of(
        flows,
        alerts.entities,
        alerts.sources,
        alerts.window_minutes,
        file,
        task.identifiers.values,
        alerts.target,
        task.event_date,
    )


def count(file: str, refused: Refused, logits: Floats, flagged: Mask, task: NightTask, total: NightCounts) -> None:
    """Add refused rows to the counts.

    They are counted as `tables.EVIDENCE`, with the reason as the class: at level 1 all, at level 2 those that were
    scored with one feature at its benign median, at level 3 those of them that were flagged. Entries of the allow-list
    cover them only if they name the class `Quarantined`.

    Args:
        file: Name of their file.
        refused: The rows.
        logits: Attack logit of each, NaN if it was not scored.
        flagged: Whether it was scored and flagged.
        task: Of the night.
        total: Counts are added to it.
    """
    if refused.unread:
        total.refused_unread[file] += len(refused)
        return
    flows, scored = flows_of(refused.rows.drop(_not_passed(refused, task)), task), ~np.isnan(logits)
    keys = keys_of(flows, file, task)
    rest = np.flatnonzero(~scored)
    if len(rest):
        keys_of_rest = keys_of(flows.take(pa.array(rest)), file, task)
        total.refused_traffic.append(evidence.traffic(keys_of_rest))
        if task.known.devices:
            total.add_unknown(task.known.unknown(keys_of_rest.devices))
    reasons = refused.rows["reason"].combine_chunks().dictionary_encode()
    known = np.where(scored, logits, NO_LOGIT)
    found = Flagged(
        np.arange(len(refused)),
        reasons.indices.to_numpy().astype(np.int32),
        reasons.dictionary.to_pylist(),
        (1 + scored + (scored & flagged)).astype(np.int32),
        _allowed(flows, task),
        known,
        (scored / (1 + np.exp(-np.clip(known, -LIMIT, LIMIT)))).astype(np.float32),
        known,
        file,
        refused.rows["source_row"].to_numpy(),
        pa.nulls(len(refused), pa.list_(ATTRIBUTION)),
    )
    total.refused.append(evidence.evidence(keys, found))


def _not_passed(refused: Refused, task: NightTask) -> list[str]:
    passed = set(task.read_spec.pass_through)
    own = set(task.read_spec.quarantine.names) - passed
    return [name for name in refused.rows.column_names if name in own]


def _allowed(flows: pa.Table, task: NightTask) -> Mask:
    entries = tuple(
        entry
        for entry in task.allow_list.entries
        if QUARANTINED in (*(entry.class_name or ()), *(entry.category or ()))
    )
    if not entries:
        return np.zeros(len(flows), dtype=np.bool_)
    named = flows.append_column("class_name", pa.repeat(QUARANTINED, len(flows)))
    return AllowList.model_construct(entries=entries).covers(named, task.event_date)[0]
