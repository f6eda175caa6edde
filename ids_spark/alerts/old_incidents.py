"""Flagged flows to incidents: all flows of one entity, one predicted attack class and one window of time.

Tasks aggregate the flows of each row group (`aggregate`), and the driver merges the aggregates (`merge`). Sums, minima,
maxima and a choice that is independent of order give the same incidents for any partitioning of the flows. Pure
functions on Arrow and numpy columns; no loop over flows.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ids_spark.base.arrays import Ints
from ids_spark.dataset.tables import ATTRIBUTION

_TIME: Final = pa.timestamp("us", tz="UTC")
_DAY: Final = 86_400_000_000  # microseconds
_MINUTE: Final = 60_000_000
_SPARSE: Final = 16  # a lookup table of at most this many entries per row is faster than sorting the rows
_KEYS: Final = ("entity_kind", "entity", "class_name", "window_start")
AGGREGATES: Final = pa.schema(
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
        ("attributions", pa.list_(ATTRIBUTION)),
    ]
)
"""Incidents of some of a night's flows, sorted by key, not yet ranked. `explained_…` identify the flow whose
`attributions` are kept; null where no flow has any."""


class IncidentKeys(NamedTuple):
    """Which incident each flow belongs to.

    Attributes:
        columns: The key of each flow, as columns by name.
        groups: Number of incidents.
        firsts: One flow of each incident, shape (groups,).
        inverse: Incident of each flow, below `groups`, shape (flows,).
    """

    columns: dict[str, Any]
    groups: int
    firsts: Ints
    inverse: Ints

    def highest_flows(self, logits: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
        """Return which flows have the highest logit of their incident, shape (flows,); the first of equal ones."""
        highest = np.full(self.groups, -np.inf)
        np.maximum.at(highest, self.inverse, logits)
        candidates = np.flatnonzero(logits == highest[self.inverse])
        found = np.zeros(len(self.inverse), dtype=np.bool_)
        found[candidates[np.unique(self.inverse[candidates], return_index=True)[1]]] = True
        return found


def incident_keys(flows: pa.Table, entities: Sequence[str], window_minutes: int) -> IncidentKeys:
    """Return which incident each flagged flow belongs to; arguments as in `aggregate`."""
    entity, kind = _entity_of(flows, entities)
    window = _window_of(_times(flows), window_minutes)
    columns = dict(zip(_KEYS, (kind, entity, flows["class_name"].cast(pa.string()), window), strict=True))
    return IncidentKeys(columns, *_groups_of(pa.table(columns)))


def aggregate(
    flows: pa.Table, entities: Sequence[str], window_minutes: int, keys: IncidentKeys | None = None
) -> pa.Table:
    """Aggregate flagged flows to one row for each incident, as `AGGREGATES`.

    Args:
        flows: Flagged flows that no allow-list entry covers, pseudonymised if configured. Columns: `source_file` and
            `source_row`, which together identify a flow; `class_name`; `attack_probability` and `attack_logit`,
            finite; any of `entities`; `event_time` and `attributions`, both of which may be null or absent.
        entities: Columns that identify the affected device or address, in order of preference. The first that is
            present and neither null nor empty is a flow's entity; without any it is the source file.
        window_minutes: Length of a window; the first of a day starts at midnight in UTC.
        keys: From `incident_keys` of the same flows, if already computed.
    """
    keys = keys or incident_keys(flows, entities, window_minutes)
    times = _times(flows)
    attributions = (
        flows["attributions"] if "attributions" in flows.column_names else _nulls(flows, pa.list_(ATTRIBUTION))
    )
    explained = pc.greater(pc.list_value_length(attributions), 0).fill_null(False)
    logits = flows["attack_logit"].cast(pa.float64())
    single = {
        **keys.columns,
        "flows": pa.array(np.ones(len(flows), dtype=np.int64)),
        "first_seen": times,
        "last_seen": times,
        "max_attack_probability": flows["attack_probability"].cast(pa.float64()),
        "max_attack_logit": logits,
        "explained_logit": pc.if_else(explained, logits, None),
        "explained_file": flows["source_file"].cast(pa.string()),
        "explained_row": flows["source_row"].cast(pa.int64()),
        "attributions": attributions,
    }
    rows = pa.table([single[name] for name in AGGREGATES.names], names=AGGREGATES.names).cast(AGGREGATES)
    return _grouped(rows, keys.groups, keys.firsts, keys.inverse)


def merge(tables: Iterable[pa.Table]) -> pa.Table:
    """Merge aggregates of parts of a night; the result is the same for any partitioning and any order."""
    rows = pa.concat_tables([AGGREGATES.empty_table(), *tables])
    return _grouped(rows, *_groups_of(rows))


def _nulls(flows: pa.Table, kind: pa.DataType) -> pa.Array:
    return pa.nulls(len(flows), kind)


def _times(flows: pa.Table) -> Any:
    return flows["event_time"].cast(_TIME, safe=False) if "event_time" in flows.column_names else _nulls(flows, _TIME)


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


def _grouped(rows: pa.Table, groups: int, firsts: Ints, inverse: Ints) -> pa.Table:
    """Return one row for each key, sorted by key."""
    if not len(rows):
        return AGGREGATES.empty_table()
    rows = rows.combine_chunks()
    order = np.argsort(
        inverse.astype(np.uint16) if groups < 1 << 16 else inverse, kind="stable"
    )  # numpy sorts 16-bit integers by radix
    starts = np.searchsorted(inverse[order], np.arange(groups))

    def reduced(name: str, reduction: np.ufunc) -> Any:
        return reduction.reduceat(rows[name].to_numpy()[order], starts)

    def extreme(name: str, reduction: np.ufunc) -> pa.Array:
        unknown = np.asarray(
            rows[name].is_null()
        )  # a group has times in all rows or in none, as its window is part of the key
        moments = rows[name].cast(pa.int64()).fill_null(0).to_numpy()[order]
        return pa.array(reduction.reduceat(moments, starts), mask=unknown[firsts]).cast(_TIME)

    best = _explained_rows(rows, inverse, order, starts)
    explained = rows.select(
        [name for name in AGGREGATES.names if name.startswith(("explained_", "attributions"))]
    ).take(pa.array(best, mask=best < 0))
    columns = {
        **{name: rows[name].take(pa.array(firsts)) for name in _KEYS},
        "flows": pa.array(reduced("flows", np.add)),
        "first_seen": extreme("first_seen", np.minimum),
        "last_seen": extreme("last_seen", np.maximum),
        "max_attack_probability": pa.array(reduced("max_attack_probability", np.maximum)),
        "max_attack_logit": pa.array(reduced("max_attack_logit", np.maximum)),
        **{name: explained[name] for name in explained.column_names},
    }
    found = pa.table([columns[name] for name in AGGREGATES.names], schema=AGGREGATES)
    return found.sort_by([(name, "ascending") for name in _KEYS])


def _groups_of(rows: pa.Table) -> tuple[int, Ints, Ints]:
    """Return the number of keys, one row of each, and the key of every row as a number."""
    combined, keys = np.zeros(len(rows), dtype=np.int64), 1
    for name in _KEYS:
        encoded = rows[name].combine_chunks().dictionary_encode(null_encoding="encode")
        values = max(1, len(encoded.dictionary))
        if keys * values > _SPARSE * len(rows) + _SPARSE:
            keys, combined = _numbered(combined, keys)  # at most one key for each row, so nothing overflows
        combined, keys = combined * values + encoded.indices.to_numpy(), keys * values
    groups, combined = _numbered(combined, keys)
    firsts = np.empty(groups, dtype=np.int64)
    firsts[combined[::-1]] = np.arange(
        len(rows) - 1, -1, -1
    )  # reversed, so that the first row of each key is written last
    return groups, firsts, combined


def _numbered(numbers: Ints, bound: int) -> tuple[int, Ints]:
    """Return the count of distinct numbers, and each number as its rank among them."""
    if bound > _SPARSE * len(numbers) + _SPARSE:
        known, ranks = np.unique(numbers, return_inverse=True)
        return len(known), ranks
    present = np.zeros(bound, dtype=np.bool_)
    present[numbers] = True
    ranks = np.cumsum(present, dtype=np.int64) - 1
    return int(ranks[-1]) + 1 if bound else 0, ranks[numbers]


def _explained_rows(rows: pa.Table, inverse: Ints, order: Ints, starts: Ints) -> Ints:
    """Return for each key the explained row with the highest logit, -1 where none is explained; shape (keys,).

    If several have the same logit, it is the first by source file and row.
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
