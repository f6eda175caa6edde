"""Cells of a night: flagged flows and all flows of each entity and window of time, as numbers, and its earlier nights.

A cell is an entity, a window of time and a category. Pure functions on Arrow and numpy columns. G categories, L levels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ids_spark.alerts import evidence as counted
from ids_spark.base.arrays import Floats, Ints, Mask


@dataclass(frozen=True)
class NightCells:
    """Counts of a night. Places are entities in windows of time; most have no flagged flow.

    Attributes:
        keys, is_source: Of each entity; shape (entities,).
        entity, window, flows: Of each place: its entity, start of its window (microseconds since 1970 in UTC, -1 if
            unknown), and all of its flows; shape (places,).
        place, category: Of each cell with a flagged flow; shape (cells,).
        kinds, names: Of its entity.
        flagged: Its flagged flows at each level, without those on the allow-list; shape (cells, L).
        device_cell, source_cell: Cell of each row of the evidence, -1 if it has no device or no source.
        row_flagged: Flagged flows of each row of the evidence at each level, as `flagged`; shape (rows, L).
    """

    keys: Ints
    is_source: Mask
    entity: Ints
    window: Ints
    flows: Ints
    place: Ints
    category: Ints
    kinds: pa.Array
    names: pa.Array
    flagged: Ints
    device_cell: Ints
    source_cell: Ints
    row_flagged: Ints

    @property
    def sent(self) -> Floats:
        """Flows of each entity, shape (entities,)."""
        return np.bincount(self.entity, self.flows, minlength=len(self.keys)).astype(np.float64)


@dataclass(frozen=True)
class Decided:
    """What earlier runs at the date say of the cells of a night, see `looks`.

    Attributes:
        fresh: Places whose counts have changed since, which are tested; shape (places,).
        incident: Index in `ids` of the incident of each cell that was an alert, -1 for others; shape (cells,).
        ids: Incidents of the run before.
    """

    fresh: Mask
    incident: Ints
    ids: tuple[str, ...] = ()

    @staticmethod
    def nothing(cells: NightCells) -> "Decided":
        """Return that there is no earlier run, so that all cells are tested."""
        return Decided(np.ones(len(cells.flows), dtype=np.bool_), np.full(len(cells.place), -1, dtype=np.int64))


@dataclass(frozen=True)
class OwnCounts:
    """Flagged flows of entities, and what false alarms explain, in earlier nights. H entities have a history.

    Attributes:
        index: Index of each entity of tonight in the arrays below, -1 without a history; shape (entities,).
        flagged, expected: Shape (H, G, L).
        nights: Earlier nights with each entity; shape (H,).
        peers: Devices of the same type whose mean history is added to its own, if that is short; shape (H,).
        flows: Flows of each entity in these nights, without the alerts of each category; shape (H, G).
    """

    index: Ints
    flagged: Floats
    expected: Floats
    nights: Ints
    peers: Ints
    flows: Floats


def cells_of(traffic: pa.Table, evidence: pa.Table, category_of: Mapping[str, int]) -> NightCells:
    """Return the cells of a night.

    Args:
        traffic: As `tables.TRAFFIC`, merged.
        evidence: As `tables.EVIDENCE`, merged.
        category_of: Index of the category of each class name.
    """
    keys, first, entity = np.unique(traffic["entity_key"].to_numpy(), return_index=True, return_inverse=True)
    window = traffic["window_start"].cast(pa.int64()).fill_null(-1).to_numpy()
    windows, window_of = np.unique(window, return_inverse=True)
    sides = [_keys_of(evidence, side) for side in ("device", "source")]
    start = evidence["window_start"].cast(pa.int64()).fill_null(-1).to_numpy()
    has = np.concatenate([np.asarray(evidence[side].is_valid()) for side in ("device", "source")])
    # Traffic is sorted by entity and window, so that a place is found by bisection.
    at = np.searchsorted(keys, np.concatenate(sides)[has]) * len(windows)
    at = at + np.searchsorted(windows, np.tile(start, 2)[has])
    place = np.searchsorted(entity * len(windows) + window_of, at)
    classes = evidence["class_name"].combine_chunks().dictionary_encode()
    of_class = np.array([category_of[name] for name in classes.dictionary.to_pylist()], dtype=np.int64)
    category = of_class[classes.indices.to_numpy()] if len(evidence) else np.empty(0, dtype=np.int64)
    groups = max(category_of.values(), default=0) + 1
    known, where, cell = np.unique(place * groups + np.tile(category, 2)[has], return_index=True, return_inverse=True)
    of_side = np.full(2 * len(evidence), -1, dtype=np.int64)
    of_side[has] = cell
    row = np.flatnonzero(has)[where]  # one row of the evidence of each cell; of both sides, devices first
    kinds, names = (
        pa.concat_arrays([evidence[f"{side}{column}"].combine_chunks() for side in ("device", "source")]).take(
            pa.array(row)
        )
        for column in ("_kind", "")
    )
    return NightCells(
        keys=keys,
        is_source=np.asarray(traffic["is_source"].take(pa.array(first))),
        entity=entity,
        window=window,
        flows=traffic["flows"].to_numpy().astype(np.int64),
        place=known // groups,
        category=known % groups,
        kinds=kinds,
        names=names,
        flagged=_flagged(_flagged_of_rows(evidence), of_side, len(known)),
        device_cell=of_side[: len(evidence)],
        source_cell=of_side[len(evidence) :],
        row_flagged=_flagged_of_rows(evidence),
    )


def _keys_of(evidence: pa.Table, side: str) -> Ints:
    """Return the entity key of each row of the evidence, 0 without an entity; each name is hashed once."""
    kinds, names = evidence[f"{side}_kind"].combine_chunks(), evidence[side].combine_chunks()
    groups, firsts, number = counted.groups_of(evidence, (f"{side}_kind", side))
    of_group = counted.entity_keys(*(column.take(pa.array(firsts)).to_pylist() for column in (kinds, names)))
    return of_group[number] if groups else np.empty(0, dtype=np.int64)


def _flagged(of_rows: Ints, cell: Ints, cells: int) -> Ints:
    """Return the flagged flows of each cell at each level; shape (cells, L)."""
    has = cell >= 0
    rows = np.tile(np.arange(len(of_rows)), 2)[has]
    columns = [np.bincount(cell[has], counts[rows], minlength=cells).astype(np.int64) for counts in of_rows.T]
    return np.column_stack(columns)


def _flagged_of_rows(evidence: pa.Table) -> Ints:
    """Return the flagged flows of each row at each level, without those on the allow-list; shape (rows, L)."""
    columns = [
        evidence[f"flagged_{level}"].to_numpy().astype(np.int64) - evidence[f"allowed_{level}"].to_numpy()
        for level in counted.LEVELS
    ]
    return np.column_stack(columns)


FEW_NIGHTS: Final = 3
"""Earlier nights of a device; with fewer, those of its type count too."""


def own_counts(
    cells: NightCells, history: pa.Table, categories: Sequence[str], types: Mapping[int, str] | None = None
) -> OwnCounts:
    """Return what is known of each entity from earlier nights.

    To the history of an entity with fewer than `FEW_NIGHTS` nights, that of one other of its type is added: their mean.

    Args:
        cells: Of tonight.
        history: Rows of `entity_history/` of earlier nights, with a column `event_date`.
        categories: Names, in the order of the indices.
        types: Type of devices, by entity key; default: of none.
    """
    own = _history_of(np.union1d(cells.keys, np.array(list(types or {}), dtype=np.int64)), history, categories)
    if types:
        own = _with_peers(own, cells.keys, types)
    at = own.index[np.searchsorted(own.keys, cells.keys)]
    kept = np.unique(at[at >= 0])
    index = np.where(at >= 0, np.searchsorted(kept, at), -1)
    return OwnCounts(index, own.flagged[kept], own.expected[kept], own.nights[kept], own.peers[kept], own.flows[kept])


@dataclass(frozen=True)
class _History:
    """As `OwnCounts`, of the entities `keys`, ascending."""

    keys: Ints
    index: Ints
    flagged: Floats
    expected: Floats
    nights: Ints
    peers: Ints
    flows: Floats


def _with_peers(own: _History, tonight: Ints, types: Mapping[int, str]) -> _History:
    """Return the history with that of peers added, for entities of tonight whose own is short."""
    of_type: dict[str, list[int]] = {}
    for key, name in types.items():
        at = own.index[np.searchsorted(own.keys, key)]
        if at >= 0:
            of_type.setdefault(name, []).append(int(at))
    index = own.index.copy()
    parts = {name: [getattr(own, name)] for name in ("flagged", "expected", "nights", "peers", "flows")}
    rows = len(own.nights)
    for key in np.intersect1d(tonight, np.array(list(types), dtype=np.int64)):
        place = int(np.searchsorted(own.keys, key))
        mine = int(own.index[place])
        peers = [at for at in of_type.get(types[int(key)], ()) if at != mine]
        if not peers or (mine >= 0 and own.nights[mine] >= FEW_NIGHTS):
            continue
        for column in ("flagged", "expected", "flows"):
            values = getattr(own, column)
            added = values[peers].mean(axis=0) + (values[mine] if mine >= 0 else 0)
            parts[column].append(added[np.newaxis])
        parts["nights"].append(np.array([own.nights[mine] if mine >= 0 else 0]))
        parts["peers"].append(np.array([len(peers)]))
        index[place], rows = rows, rows + 1
    joined = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    return _History(own.keys, index, **joined)


def _history_of(keys: Ints, history: pa.Table, categories: Sequence[str]) -> _History:
    """Return the own history of entities."""
    category = pc.index_in(history["category"], value_set=pa.array(categories)).fill_null(-1).to_numpy()
    key = history["entity_key"].to_numpy()
    used = np.isin(key, keys) & (category >= 0)
    known, row = np.unique(key[used], return_inverse=True)
    index = np.full(len(keys), -1, dtype=np.int64)
    index[np.searchsorted(keys, known)] = np.arange(len(known))
    shape = (len(known), len(categories), len(counted.LEVELS))
    sums = {name: np.zeros(shape) for name in ("flagged", "expected")}
    for name, target in sums.items():
        values = history[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        values = values.reshape(len(history), shape[2]).astype(np.float64)
        np.add.at(target, (row, category[used]), values[used])
    dates = history["event_date"].cast(pa.int32()).to_numpy()[used]
    nights_of = np.unique(np.column_stack([row, dates]), axis=0)[:, 0]
    nights: Ints = np.bincount(nights_of, minlength=len(known)).astype(np.int64)
    flows = np.zeros(shape[:2])
    np.add.at(flows, (row, category[used]), history["flows"].to_numpy()[used])
    peers = np.zeros(len(known), dtype=np.int64)
    return _History(keys, index, sums["flagged"], sums["expected"], nights, peers, flows)
