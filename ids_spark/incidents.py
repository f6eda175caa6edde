"""Flagged flows to incidents: who, which attack, in which window of time; ranked, and cut at the night's budget.

Every piece of a night is aggregated where it was scored (`partial`), the driver joins what is left (`merge`) and ranks
it (`rank`). Sums, extremes and a choice that depends on no order make the incidents the same however flows are cut into
pieces. Pure functions on Arrow and numpy columns, no step for a single flow.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ids_spark.night_schema import INCIDENTS, REASON, SCHEMA_VERSION
from ids_spark.severity import SEVERITIES, Policy, category_of

Ints = NDArray[np.int64]
_TIME: Final = pa.timestamp("us", tz="UTC")
_DAY: Final = 86_400_000_000  # microseconds
_MINUTE: Final = 60_000_000
_ID_LENGTH: Final = 32  # hex characters, 128 bits
_KEYS: Final = ("entity_kind", "entity", "class_name", "window_start")
PARTIAL: Final = pa.schema(
    [
        ("entity_kind", pa.string()),
        ("entity", pa.string()),
        ("class_name", pa.string()),
        ("window_start", _TIME),
        ("flows", pa.int64()),
        ("first_seen", _TIME),
        ("last_seen", _TIME),
        ("max_attack_probability", pa.float64()),
        ("max_attack_logit", pa.float64()),
        ("explained_logit", pa.float64()),
        ("explained_file", pa.string()),
        ("explained_row", pa.int64()),
        ("reasons", pa.list_(REASON)),
    ]
)
"""Incidents of some pieces, before they are ranked; by key. `explained_…` names the flow that `reasons` are of, null
where no flow carries any."""


@dataclass(frozen=True)
class NightFacts:
    """What is the same for every incident of one model and night; as in `night_schema.INCIDENTS`.

    Attributes:
        event_date: The night.
        model, model_version: By what the flows were scored.
        threshold_logit: From which attack logit on they were flagged.
        run_id, created_at: Of the scoring run; the time in UTC.
        data_origin: `measured` or `synthetic`.
    """

    event_date: dt.date
    model: str
    model_version: str
    threshold_logit: float
    run_id: str
    created_at: dt.datetime
    data_origin: str


def partial(flows: pa.Table, entities: Sequence[str], window_minutes: int) -> pa.Table:
    """Aggregate the flagged flows of a piece; returns `PARTIAL`, one row for each incident.

    Args:
        flows: Flagged flows that no allow-list covers, pseudonymised where that is asked for. Columns: `source_file`
            and `source_row`, which together name a flow; `class_name`; `attack_probability` and `attack_logit`, finite;
            any of `entities`; `event_time` (null or no column: unknown); `reasons` (null, empty or no column: none).
        entities: Columns that say who is concerned, best first. A flow's entity is the first that is there and neither
            null nor empty text; the source file where there is none.
        window_minutes: Windows begin at midnight in UTC and every so many minutes after it.
    """
    entity, kind = _entity_of(flows, entities)
    times = flows["event_time"].cast(_TIME, safe=False) if "event_time" in flows.column_names else _nulls(flows, _TIME)
    reasons = flows["reasons"] if "reasons" in flows.column_names else _nulls(flows, pa.list_(REASON))
    explained = pc.greater(pc.list_value_length(reasons), 0).fill_null(False)
    logits = flows["attack_logit"].cast(pa.float64())
    single = {
        "entity_kind": kind,
        "entity": entity,
        "class_name": flows["class_name"].cast(pa.string()),
        "window_start": _window_of(times, window_minutes),
        "flows": pa.array(np.ones(len(flows), dtype=np.int64)),
        "first_seen": times,
        "last_seen": times,
        "max_attack_probability": flows["attack_probability"].cast(pa.float64()),
        "max_attack_logit": logits,
        "explained_logit": pc.if_else(explained, logits, None),
        "explained_file": flows["source_file"].cast(pa.string()),
        "explained_row": flows["source_row"].cast(pa.int64()),
        "reasons": reasons,
    }
    return _grouped(pa.table([single[name] for name in PARTIAL.names], names=PARTIAL.names).cast(PARTIAL))


def merge(tables: Iterable[pa.Table]) -> pa.Table:
    """Join what `partial` or `merge` made of parts of a night; returns `PARTIAL`, the same for any cut in any order."""
    return _grouped(pa.concat_tables([PARTIAL.empty_table(), *tables]))


def rank(merged: pa.Table, policy: Policy, budget: int, night: NightFacts) -> tuple[pa.Table, int]:
    """Return the incidents that somebody should look at first, as `night_schema.INCIDENTS`, and how many there are.

    The order: severity, worst first; then flows times the highest attack probability among them, which is the most
    attack flows that the incident can be expected to hold; then the highest logit, where probabilities are all but 1;
    then what was seen first. What is still equal stays in the order of kind, entity, class and window.

    Args:
        merged: From `merge`, all of the night.
        policy: Severity by class, flows and probability.
        budget: Most incidents that are returned.
        night: What all of them share.
    """
    flows, certain = merged["flows"].to_numpy(), merged["max_attack_probability"].to_numpy()
    severities = policy.severities(merged["class_name"], flows, certain)
    severity_ids = pc.index_in(severities, value_set=pa.array(SEVERITIES)).to_numpy()
    seen = merged["first_seen"].cast(pa.int64()).fill_null(np.iinfo(np.int64).max).to_numpy()
    order = np.lexsort((seen, -merged["max_attack_logit"].to_numpy(), -flows * certain, severity_ids))[:budget]
    shown, severities = merged.take(pa.array(order)), severities.take(pa.array(order))
    starts = shown["window_start"].cast(pa.int64()).to_pylist()
    names = [shown[key].to_pylist() for key in ("entity_kind", "entity", "class_name")]
    constant: dict[str, Any] = {
        "model": night.model,
        "model_version": night.model_version,
        "threshold_logit": night.threshold_logit,
        "schema_version": SCHEMA_VERSION,
        "run_id": night.run_id,
        "created_at": night.created_at,
        "data_origin": night.data_origin,
    }
    columns = {
        **{name: shown[name] for name in INCIDENTS.names if name in PARTIAL.names},
        "incident_id": pa.array([incident_id(night.event_date, *key) for key in zip(*names, starts, strict=True)]),
        "rank": pa.array(np.arange(1, len(shown) + 1)),
        "severity": severities,
        "category": pa.array([category_of(name) for name in names[2]]),
        "top_reasons": shown["reasons"],
        **{name: pa.array([value] * len(shown), INCIDENTS.field(name).type) for name, value in constant.items()},
    }
    arrays = [columns[f.name].cast(f.type) for f in INCIDENTS]
    return pa.table(arrays, schema=INCIDENTS), len(merged)


def incident_id(event_date: dt.date, kind: str, entity: str, class_name: str, window_start: int | None) -> str:
    """Return the name of an incident: 32 hex characters of a SHA-256, the same in every run and for every model.

    Args:
        event_date: The night.
        kind, entity, class_name: What the incident is about.
        window_start: Microseconds since 1970 in UTC; None without an event time.
    """
    key = json.dumps([str(event_date), kind, entity, class_name, window_start])
    return hashlib.sha256(key.encode()).hexdigest()[:_ID_LENGTH]


def _nulls(flows: pa.Table, kind: pa.DataType) -> pa.Array:
    return pa.nulls(len(flows), kind)


def _entity_of(flows: pa.Table, entities: Sequence[str]) -> tuple[Any, Any]:
    entity = flows["source_file"].cast(pa.string())
    kind = pa.repeat("source_file", len(flows))
    for name in reversed([name for name in entities if name in flows.column_names]):
        values = flows[name].cast(pa.string())
        known = pc.greater(pc.utf8_length(values), 0).fill_null(False)
        entity, kind = pc.if_else(known, values, entity), pc.if_else(known, name, kind)
    return entity, kind


def _window_of(times: Any, minutes: int) -> pa.Array:
    moments = times.cast(pa.int64()).fill_null(0).to_numpy()
    of_day = moments % _DAY  # not negative, also before 1970
    starts = moments - of_day % (minutes * _MINUTE)
    return pa.array(starts, mask=np.asarray(times.is_null())).cast(_TIME)


def _grouped(rows: pa.Table) -> pa.Table:
    """Return one row for each key, by key."""
    if not len(rows):
        return PARTIAL.empty_table()
    rows = rows.combine_chunks()
    groups, firsts, inverse = _groups_of(rows)
    order = np.argsort(inverse, kind="stable")
    starts = np.searchsorted(inverse[order], np.arange(groups))

    def reduced(name: str, how: np.ufunc) -> Any:
        return how.reduceat(rows[name].to_numpy()[order], starts)

    def extreme(name: str, how: np.ufunc) -> pa.Array:
        unknown = np.asarray(rows[name].is_null())  # for all rows of a group or none, as its window is
        moments = rows[name].cast(pa.int64()).fill_null(0).to_numpy()[order]
        return pa.array(how.reduceat(moments, starts), mask=unknown[firsts]).cast(_TIME)

    best = _explained_rows(rows, inverse, order, starts)
    explained = rows.select([name for name in PARTIAL.names if name.startswith(("explained_", "reasons"))]).take(
        pa.array(best, mask=best < 0)
    )
    columns = {
        **{name: rows[name].take(pa.array(firsts)) for name in _KEYS},
        "flows": pa.array(reduced("flows", np.add)),
        "first_seen": extreme("first_seen", np.minimum),
        "last_seen": extreme("last_seen", np.maximum),
        "max_attack_probability": pa.array(reduced("max_attack_probability", np.maximum)),
        "max_attack_logit": pa.array(reduced("max_attack_logit", np.maximum)),
        **{name: explained[name] for name in explained.column_names},
    }
    found = pa.table([columns[name] for name in PARTIAL.names], schema=PARTIAL)
    return found.sort_by([(name, "ascending") for name in _KEYS])


def _groups_of(rows: pa.Table) -> tuple[int, Ints, Ints]:
    """Return how many keys there are, a row of each, and the key of every row as a number."""
    combined = np.zeros(len(rows), dtype=np.int64)
    for name in _KEYS:
        encoded = rows[name].combine_chunks().dictionary_encode(null_encoding="encode")
        combined = combined * len(encoded.dictionary) + encoded.indices.to_numpy()
        _, combined = np.unique(combined, return_inverse=True)  # stays below the number of rows: nothing overflows
    keys, firsts = np.unique(combined, return_index=True)
    return len(keys), firsts, combined


def _explained_rows(rows: pa.Table, inverse: Ints, order: Ints, starts: Ints) -> Ints:
    """Return for each key the flow with reasons that has the highest logit, -1 where there is none; shape (keys,).

    Among equals it is the first by source file and row.
    """
    logits = rows["explained_logit"].fill_null(-np.inf).to_numpy()
    highest = np.maximum.reduceat(logits[order], starts)
    candidates = np.flatnonzero(np.isfinite(logits) & (logits == highest[inverse]))
    files = rows["explained_file"].take(pa.array(candidates)).combine_chunks().dictionary_encode()
    by_name = np.argsort(np.argsort(files.dictionary.to_numpy(zero_copy_only=False)))[files.indices.to_numpy()]
    numbers = rows["explained_row"].take(pa.array(candidates)).to_numpy()
    chosen = candidates[np.lexsort((numbers, by_name, inverse[candidates]))]
    keys, firsts = np.unique(inverse[chosen], return_index=True)
    best = np.full(len(starts), -1, dtype=np.int64)
    best[keys] = chosen[firsts]
    return best
