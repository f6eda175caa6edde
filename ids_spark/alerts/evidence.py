"""Evidence of a night: flagged flows by device, source, window of time and attack class, and all flows by entity.

Tasks count the flows of each row group (`traffic`, `evidence`), and the driver merges the counts (`merge_traffic`,
`merge_evidence`). Sums, minima, maxima and a choice that is independent of order give the same tables for any
partitioning of the flows. Pure functions on Arrow and numpy columns; no loop over flows.
"""

import datetime as dt
import functools
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ids_spark.base.arrays import Floats, Floats32, Ids, Ints, Mask
from ids_spark.dataset.tables import EVIDENCE, TRAFFIC

LEVELS: Final = (1, 2, 3)
"""Levels of evidence, by number; `threshold.RATES` has their benign rates."""
FILE_KIND: Final = "source_file"
"""Kind of the device of flows that have neither a device nor a source."""
_NO_TIME: Final = np.iinfo(np.int64).min
_TIME: Final = pa.timestamp("us", tz="UTC")
_DAY: Final = 86_400_000_000  # microseconds
_MINUTE: Final = 60_000_000
MANY_KIND: Final = "many"
"""Kind of the source of rows that stand for very many sources of a single flagged flow each."""
_FOLDED_FROM: Final = 256  # such sources of one device, window and class in a row group
_SPARSE: Final = 16  # a lookup table of at most this many entries per row is faster than sorting the rows
_EVIDENCE_KEYS: Final = ("device_kind", "device", "source_kind", "source", "window_start", "class_name")
_FLAGGED: Final = tuple(f"flagged_{level}" for level in LEVELS)
_ALLOWED: Final = tuple(f"allowed_{level}" for level in LEVELS)
_TOP: Final = ("top_file", "top_row", "top_score", "top_target", "top_attributions")


@dataclass(frozen=True)
class Entities:
    """Devices or sources of some flows.

    Attributes:
        kinds: Column that named each entity, shape (entities,).
        names: Names of the entities, shape (entities,).
        keys: From `entity_keys`, shape (entities,).
        codes: Entity of each flow, -1 if it has none; shape (flows,).
    """

    kinds: pa.Array
    names: pa.Array
    keys: Ints
    codes: Ints


@dataclass(frozen=True)
class FlowKeys:
    """Device, source and window of time of every flow of a row group.

    Attributes:
        devices: What flows were directed at or came from, as the hospital names it.
        sources: Addresses that flows came from.
        starts: Distinct starts of windows, microseconds since 1970 in UTC; the last stands for unknown times.
        windows: Index in `starts` of each flow; shape (flows,).
        times: Time of each flow; null where unknown.
        targets: Address that each flow went to, plain; None if no flow has one.
        named: Returns addresses of targets as they are to be stored.
    """

    devices: Entities
    sources: Entities
    starts: Ints
    windows: Ints
    times: Any
    targets: pa.ChunkedArray | None
    named: Callable[[pa.Array], pa.Array]

    @property
    def window_starts(self) -> pa.Array:
        """Start of each window, null for the last."""
        known = np.arange(len(self.starts)) < len(self.starts) - 1
        return pa.array(self.starts, mask=~known).cast(_TIME)


@dataclass(frozen=True)
class Flagged:
    """Flagged flows of a row group.

    Attributes:
        at: Index of each in the row group; shape (flagged,).
        class_ids: Index in `class_names` of its most probable attack class.
        class_names: Names of attack classes.
        levels: Highest level that it reaches, 1 to 3.
        allowed: Whether an allow-list entry covers it.
        logits: Its attack logit, finite.
        probabilities: Its attack probability.
        scores: What the levels compare: the logit, or the distance of the second detector.
        file: Name of the file.
        rows: Row number of each flow in the file.
        attributions: Of each flow, null where it has none.
    """

    at: Ints
    class_ids: Ids
    class_names: Sequence[str]
    levels: Ids
    allowed: Mask
    logits: Floats
    probabilities: Floats32
    scores: Floats
    file: str
    rows: Ints
    attributions: Any


Groups = tuple[int, Ints, Ints, Mask]
"""Number of rows of the evidence, a flow of each, the row of every flagged flow, and which flows are folded."""


def keys_of(
    flows: pa.Table,
    entities: Sequence[str],
    sources: Sequence[str],
    window_minutes: int,
    file: str,
    pseudonymised: Callable[[str, pa.Array], pa.Array] | None = None,
    target: str = "",
    event_date: dt.date | None = None,
) -> FlowKeys:
    """Return device, source and window of every flow.

    A time of more than a day before or after the night is unknown: else an attack that is spread over years would have
    a window for each of its flows, and no window would show it.

    Args:
        flows: Any of the columns `entities`; `event_time`, which may be null or absent.
        entities: Columns that identify devices and sources, in order of preference; null and empty values are unknown.
        sources: Those of `entities` that identify sources.
        window_minutes: Length of a window; the first of a day starts at midnight in UTC.
        file: Name of the file; it is the device of flows without a device and a source.
        pseudonymised: Returns the names to store, given the column and plain names.
        target: Column with the address that a flow went to; may be absent.
        event_date: The night; None: every time is taken as it is.
    """
    from_columns = [name for name in entities if name in sources]
    of_source = _entities(flows, from_columns, None, pseudonymised)
    nameless = of_source.codes < 0
    of_device = _entities(flows, [name for name in entities if name not in sources], (file, nameless), pseudonymised)
    times = flows["event_time"] if "event_time" in flows.column_names else pa.nulls(len(flows), _TIME)
    times = times.cast(_TIME, safe=False)
    if event_date is not None:
        times = _near(times, event_date)
    moments, known = times.cast(pa.int64()).fill_null(0).to_numpy(), np.asarray(times.is_valid())
    distinct, windows = _distinct(windows_of(moments, window_minutes)[known])
    places = np.full(len(flows), len(distinct), dtype=np.int64)
    places[known] = windows
    return FlowKeys(
        of_device,
        of_source,
        np.append(distinct * _MINUTE, 0),
        places,
        times,
        flows[target] if target in flows.column_names else None,
        (lambda plain: plain) if pseudonymised is None else functools.partial(pseudonymised, target),
    )


def windows_of(moments: Ints, window_minutes: int) -> Ints:
    """Return the start of the window of each time, in minutes since 1970.

    Args:
        moments: Microseconds since 1970 in UTC.
        window_minutes: Length of a window; the first of a day starts at midnight in UTC, the last one may be shorter.
    """
    of_day = moments % _DAY  # not negative, also before 1970
    found: Ints = (moments - of_day) // _MINUTE + of_day // (window_minutes * _MINUTE) * window_minutes
    return found


def _near(times: pa.ChunkedArray, night: dt.date) -> pa.ChunkedArray:
    """Return times, null where they are of another date than the night, the one before and the one after."""
    midnight = dt.datetime.combine(night, dt.time(), dt.UTC)
    first, end = (pa.scalar(midnight + dt.timedelta(days=days), _TIME) for days in (-1, 2))
    ends = pc.min_max(times)
    if not ends["min"].is_valid or (ends["min"].as_py() >= first.as_py() and ends["max"].as_py() < end.as_py()):
        return times
    return pc.if_else(pc.and_(pc.greater_equal(times, first), pc.less(times, end)), times, None)


def entity_keys(kinds: Sequence[str | None], names: Sequence[str | None]) -> Ints:
    """Return a 64-bit hash (BLAKE2b) of kind and name of each entity, the same on every machine; 0 without a name."""
    digests = (
        b"\0" * 8 if name is None else hashlib.blake2b(f"{kind}\0{name}".encode(), digest_size=8).digest()
        for kind, name in zip(kinds, names, strict=True)
    )
    return np.frombuffer(b"".join(digests), dtype="<i8").astype(np.int64)


def traffic(keys: FlowKeys) -> pa.Table:
    """Return the number of flows of every entity and window, as `tables.TRAFFIC`."""
    parts = []
    for found, is_source in ((keys.devices, False), (keys.sources, True)):
        has = found.codes >= 0
        cells, places = _distinct(found.codes[has] * len(keys.starts) + keys.windows[has])
        counts = np.bincount(places, minlength=len(cells))
        of, window = cells // len(keys.starts), cells % len(keys.starts)
        columns = {
            "entity_key": pa.array(found.keys[of]),
            "is_source": pa.array(np.full(len(cells), is_source)),
            "window_start": keys.window_starts.take(pa.array(window)),
            "flows": pa.array(counts.astype(np.int32)),
        }
        parts.append(pa.table(columns, schema=TRAFFIC))
    return pa.concat_tables(parts)


def merge_traffic(tables: Iterable[pa.Table]) -> pa.Table:
    """Merge traffic of parts of a night, sorted by entity and window; an unknown window is the first."""
    rows = pa.concat_tables([TRAFFIC.empty_table(), *tables])
    key, flows = rows["entity_key"].to_numpy(), rows["flows"].to_numpy()
    window = rows["window_start"].cast(pa.int64()).fill_null(_NO_TIME).to_numpy()
    order = np.lexsort((window, key))
    key, window = key[order], window[order]
    first = np.flatnonzero(np.append(True, (np.diff(key) != 0) | (np.diff(window) != 0))) if len(key) else order
    merged = {
        "entity_key": pa.array(key[first]),
        "is_source": rows["is_source"].take(pa.array(order[first])),
        "window_start": pa.array(window[first], mask=window[first] == _NO_TIME).cast(_TIME),
        "flows": pa.array(np.add.reduceat(flows[order], first) if len(first) else flows, pa.int32()),
    }
    return pa.table(merged, schema=TRAFFIC)


def evidence(keys: FlowKeys, flagged: Flagged, groups_of_flows: Groups | None = None) -> pa.Table:
    """Return flagged flows by device, source, window and class, as `tables.EVIDENCE`.

    Args:
        keys: From `keys_of` for all flows of the row group.
        flagged: Flagged flows of the same row group.
        groups_of_flows: From `groups_of_flagged` of the same flows, if already computed.
    """
    groups, firsts, inverse, folded = groups_of_flows or groups_of_flagged(keys, flagged)
    at = flagged.at[firsts]
    device, source, window = keys.devices.codes[at], keys.sources.codes[at], keys.windows[at]
    many = folded[firsts]
    devices, sources = pa.array(device, mask=device < 0), pa.array(source, mask=many | (source < 0))
    times = keys.times.take(pa.array(flagged.at))
    targets = pa.nulls(len(times)) if keys.targets is None else keys.targets.take(pa.array(flagged.at))
    rows = pa.table(
        {
            "first_seen": times,
            "last_seen": times,
            **{name: pa.array((flagged.levels >= i).astype(np.int32)) for i, name in enumerate(_FLAGGED, 1)},
            **{
                name: pa.array(((flagged.levels >= i) & flagged.allowed).astype(np.int32))
                for i, name in enumerate(_ALLOWED, 1)
            },
            "probability_sum": pa.array(flagged.probabilities),
            "max_attack_probability": pa.array(flagged.probabilities),
            "max_attack_logit": pa.array(flagged.logits.astype(np.float32)),
            "top_file": pa.repeat(flagged.file, len(flagged.at)),
            "top_row": pa.array(flagged.rows),
            "top_score": pa.array(flagged.scores.astype(np.float32)),
            "top_target": targets,
            "top_attributions": flagged.attributions,
            "folded_sources": pa.array(folded.astype(np.int32)),
        }
    )
    names = {
        "device_kind": keys.devices.kinds.take(devices),
        "device": keys.devices.names.take(devices),
        "source_kind": pc.if_else(pa.array(many), MANY_KIND, keys.sources.kinds.take(sources)),
        "source": keys.sources.names.take(sources),
        "window_start": keys.window_starts.take(pa.array(window)),
        "class_name": pa.array(flagged.class_names, pa.string()).take(pa.array(flagged.class_ids[firsts])),
    }
    found = _reduced(rows, names, groups, firsts, inverse)
    place = found.column_names.index("top_target")
    return found.set_column(place, "top_target", keys.named(found["top_target"].combine_chunks()))


def merge_evidence(tables: Iterable[pa.Table]) -> pa.Table:
    """Merge evidence of parts of a night, sorted by key; the same for any order, and for any partitioning too.

    Except: a source that was folded in a part keeps no row of its own there, though other parts have flows of it.
    """
    merged = _with_folded(_merged(pa.concat_tables([EVIDENCE.empty_table(), *tables]).combine_chunks()))
    return merged.sort_by([(name, "ascending") for name in _EVIDENCE_KEYS])


def _merged(rows: pa.Table) -> pa.Table:
    groups, firsts, inverse = groups_of(rows, _EVIDENCE_KEYS)
    names = {name: rows[name].take(pa.array(firsts)) for name in _EVIDENCE_KEYS}
    return _reduced(rows, names, groups, firsts, inverse)


def _with_folded(rows: pa.Table) -> pa.Table:
    """Fold sources of a single flagged flow that are very many only in all parts together; as `groups_of_flagged`."""
    folded, single = rows["folded_sources"].to_numpy(), np.asarray(rows["source"].is_valid())
    single &= rows["flagged_1"].to_numpy() == 1
    if np.count_nonzero(single) + folded.sum() <= _FOLDED_FROM:
        return rows
    groups, _, target = groups_of(rows, [name for name in _EVIDENCE_KEYS if name not in ("source_kind", "source")])
    single &= np.bincount(target, np.where(single, 1, folded), minlength=groups)[target] > _FOLDED_FROM
    if not single.any():
        return rows
    gone, nothing = pa.array(single), pa.scalar(None, pa.string())
    columns = {
        "source_kind": pc.if_else(gone, MANY_KIND, rows["source_kind"]),
        "source": pc.if_else(gone, nothing, rows["source"]),
        "folded_sources": pa.array(np.where(single, 1, folded).astype(np.int32)),
    }
    return _merged(pa.table([columns.get(field.name, rows[field.name]) for field in EVIDENCE], schema=EVIDENCE))


def highest_flows(keys: FlowKeys, flagged: Flagged, groups_of_flows: Groups | None = None) -> Mask:
    """Return which flagged flows have the highest score of their row of `evidence`; the first of equal ones."""
    groups, _, inverse, _ = groups_of_flows or groups_of_flagged(keys, flagged)
    highest = np.full(groups, -np.inf)
    np.maximum.at(highest, inverse, flagged.scores)
    candidates = np.flatnonzero(flagged.scores == highest[inverse])
    firsts = np.full(groups, -1, dtype=np.int64)
    firsts[inverse[candidates[::-1]]] = candidates[::-1]  # reversed, so that the first flow of each is written last
    found = np.zeros(len(inverse), dtype=np.bool_)
    found[firsts[firsts >= 0]] = True
    return found


def groups_of_flagged(keys: FlowKeys, flagged: Flagged) -> Groups:
    """Return the number of rows of the evidence, a flow of each, the row of every flow, and which flows are folded.

    Sources of a single flagged flow are folded to one row if a device, window and class have very many of them.
    """
    device, source = keys.devices.codes[flagged.at], keys.sources.codes[flagged.at]
    others = [
        (device + 1, len(keys.devices.names) + 1),
        (keys.windows[flagged.at], len(keys.starts)),
        (flagged.class_ids.astype(np.int64), len(flagged.class_names)),
    ]
    folded = np.zeros(len(source), dtype=np.bool_)
    found = _numbered_together([*others, (source + 1, len(keys.sources.names) + 2)])
    if len(keys.sources.names) > _FOLDED_FROM:
        groups, _, target = _numbered_together(others)
        single = (np.bincount(found[2], minlength=found[0])[found[2]] == 1) & (source >= 0)
        folded = single & (np.bincount(target[single], minlength=groups)[target] > _FOLDED_FROM)
        if folded.any():
            source = np.where(folded, len(keys.sources.names), source)
            found = _numbered_together([*others, (source + 1, len(keys.sources.names) + 2)])
    return *found, folded


def _entities(
    flows: pa.Table,
    columns: Sequence[str],
    nameless: tuple[str, Mask] | None,
    pseudonymised: Callable[[str, pa.Array], pa.Array] | None,
) -> Entities:
    """Return the entities that the first of some columns with a value names.

    Args:
        flows: Flows.
        columns: In order of preference; some may be absent.
        nameless: Name of the file, and the flows that it identifies if no column has a value.
        pseudonymised: As in `keys_of`.
    """
    codes = np.full(len(flows), -1, dtype=np.int64)
    kinds: list[str] = []
    names = [pa.array([], pa.string())]
    for column in columns:
        if column not in flows.column_names:
            continue
        encoded = _encoded(flows[column])
        found = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        empty = pc.index(encoded.dictionary, "").as_py()
        free = (codes < 0) & (found >= 0) & (found != empty)
        codes[free] = found[free] + len(kinds)
        plain = encoded.dictionary
        names.append(pseudonymised(column, plain) if pseudonymised else plain)
        kinds += [column] * len(plain)
    if nameless is not None:
        file, rows = nameless
        codes[rows & (codes < 0)] = len(kinds)
        names.append(pa.array([file], pa.string()))
        kinds.append(FILE_KIND)
    joined = pa.concat_arrays(names)
    return Entities(pa.array(kinds, pa.string()), joined, entity_keys(kinds, joined.to_pylist()), codes)


def _encoded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """Return a text column as a dictionary, which may hold texts that no row has, or one twice if it was encoded."""
    whole = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):  # of no chunk
        whole = pa.array([], column.type)
    return whole if pa.types.is_dictionary(whole.type) else whole.cast(pa.string()).dictionary_encode()


def _reduced(rows: pa.Table, names: dict[str, Any], groups: int, firsts: Ints, inverse: Ints) -> pa.Table:
    """Return one row of `EVIDENCE` for each group; groups are numbered by `inverse`, their keys are `names`."""
    if not len(rows):
        return EVIDENCE.empty_table()
    order = np.argsort(
        inverse.astype(np.uint16) if groups < 1 << 16 else inverse, kind="stable"
    )  # numpy sorts 16-bit integers by radix
    starts = np.searchsorted(inverse[order], np.arange(groups))

    def reduced(name: str, reduction: np.ufunc) -> pa.Array:
        return pa.array(reduction.reduceat(rows[name].to_numpy()[order], starts))

    def extreme(name: str, reduction: np.ufunc) -> pa.Array:
        unknown = np.asarray(
            rows[name].is_null()
        )  # a group has times in all rows or in none, as its window is part of the key
        moments = rows[name].cast(pa.int64()).fill_null(0).to_numpy()[order]
        return pa.array(reduction.reduceat(moments, starts), mask=unknown[firsts]).cast(_TIME)

    top = rows.select(_TOP).take(pa.array(_top_rows(rows, inverse, order, starts)))
    columns = {
        **names,
        **{name: reduced(name, np.add) for name in (*_FLAGGED, *_ALLOWED, "probability_sum", "folded_sources")},
        "first_seen": extreme("first_seen", np.minimum),
        "last_seen": extreme("last_seen", np.maximum),
        **{name: reduced(name, np.maximum) for name in ("max_attack_probability", "max_attack_logit")},
        **{name: top[name] for name in _TOP},
    }
    return pa.table([columns[field.name].cast(field.type) for field in EVIDENCE], schema=EVIDENCE)


def _top_rows(rows: pa.Table, inverse: Ints, order: Ints, starts: Ints) -> Ints:
    """Return the row with the highest score of each group; of equal ones the first by file and row; shape (groups,)."""
    scores = rows["top_score"].to_numpy()
    highest = np.maximum.reduceat(scores[order], starts)
    candidates = np.flatnonzero(scores == highest[inverse])
    files = rows["top_file"].take(pa.array(candidates)).combine_chunks().dictionary_encode()
    by_name = np.argsort(np.argsort(files.dictionary.to_numpy(zero_copy_only=False)))[files.indices.to_numpy()]
    numbers = rows["top_row"].take(pa.array(candidates)).to_numpy()
    chosen = candidates[np.lexsort((numbers, by_name, inverse[candidates]))]
    of = inverse[chosen]  # ascending
    best: Ints = chosen[np.flatnonzero(np.append(True, of[1:] != of[:-1]))]
    return best


def groups_of(rows: pa.Table, keys: Sequence[str]) -> tuple[int, Ints, Ints]:
    """Return the number of distinct keys, one row of each, and the key of every row as a number."""
    columns = []
    for name in keys:
        encoded = rows[name].combine_chunks().dictionary_encode(null_encoding="encode")
        columns.append((encoded.indices.to_numpy().astype(np.int64), max(1, len(encoded.dictionary))))
    return _numbered_together(columns)


def rows_alike(columns: Sequence[tuple[Ints, int]]) -> Ints:
    """Return the number of rows with the codes of each row, shape (rows,); arguments as `_numbered_together`."""
    groups, _, inverse = _numbered_together(columns)
    alike: Ints = np.bincount(inverse, minlength=groups)[inverse]
    return alike


def _numbered_together(columns: Sequence[tuple[Ints, int]]) -> tuple[int, Ints, Ints]:
    """Return the number of distinct rows of columns of codes, one row of each, and the number of every row.

    Args:
        columns: Codes of each row, not negative, and a bound that they are below.
    """
    rows = len(columns[0][0])
    combined, keys = np.zeros(rows, dtype=np.int64), 1
    for codes, bound in columns:
        if keys * bound > _SPARSE * rows + _SPARSE:
            keys, combined = _numbered(combined, keys)  # at most one key for each row, so nothing overflows
        combined, keys = combined * bound + codes, keys * bound
    groups, combined = _numbered(combined, keys)
    firsts = np.empty(groups, dtype=np.int64)
    firsts[combined[::-1]] = np.arange(rows - 1, -1, -1)  # reversed, so that the first row of each is written last
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


def _distinct(numbers: Ints) -> tuple[Ints, Ints]:
    """Return the distinct numbers, ascending, and each number as its rank among them."""
    if not len(numbers):
        return numbers, numbers
    lowest = numbers.min()
    offsets = numbers - lowest
    if int(offsets.max()) <= _SPARSE * len(numbers) + _SPARSE:
        present = np.flatnonzero(np.bincount(offsets))
        ranks = np.searchsorted(present, offsets)
        return present + lowest, ranks
    known, ranks = np.unique(numbers, return_inverse=True)
    return known, ranks
