"""Which alerts belong to one attack, as numbers.

Alerts of one category are joined if they are of the same entity in adjacent windows, or if they share at least half of
the flagged flows of the smaller one; so a scan of one source on six devices is one incident. A device that one source
attacks in one window and another source in the next joins nothing: these are two attacks. A small incident of another
category is joined to a large one in the windows of the same source and devices: the model takes some flows of an attack
for another. Incidents of one category whose flows each have a source of their own, which sent nothing else, are joined
as well, and apart from other sources: an attacker who invents sources gets one line, however many devices he chooses,
and changes no other one. Incidents that an earlier run at the date has listed stay apart, and get the new alerts that
belong to them. A flow of two incidents, one of its source and one of its device, counts for that of its source.
"""

from typing import Final

import numpy as np
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ids_spark.alerts.night_cells import NightCells
from ids_spark.base.arrays import Floats, Ints, Mask

_SHARED: Final = 0.5  # of the flagged flows of the smaller of two alerts, or of an incident without a source
_SPILLED: Final = 0.5  # of the flagged flows of the larger of two incidents in common windows of one source
_SPILLED_FLOWS, _SPILLED_OF_MANY = 50, 0.05  # more flows, and a larger share, are an attack that could hide there
_ELSEWHERE: Final = 3  # flagged flows of a device that the large incident does not reach, from which they are apart
_SINGLE_USE: Final = 0.8  # share of flows from a source of their own, from which sources are taken for invented
_FEWEST_SOURCES: Final = 5  # invented ones of a category, from which their incidents are joined
_HARDLY_ANY: Final = 2  # flows of a source in the night, up to which it may be invented


def joined(
    cells: NightCells, chosen: Ints, evidence: pa.Table, window_minutes: int, listed: Ints | None = None
) -> tuple[Ints, Ints]:
    """Return the incident of each alert, shape (alerts,), and of each row of the evidence, -1 for none.

    Args:
        cells: Of the night.
        chosen: Cells that are alerts, ascending, at least one.
        evidence: As `tables.EVIDENCE`; the table that `cells` was made from.
        window_minutes: Length of a window.
        listed: The incident of each alert that an earlier run has listed, -1 for others; shape (alerts,).
    """
    number = np.full(len(cells.place), -1, dtype=np.int64)
    number[chosen] = np.arange(len(chosen))
    sides = (_or_none(number, cells.device_cell), _or_none(number, cells.source_cell))
    flagged = evidence["flagged_1"].to_numpy().astype(np.int64) - evidence["allowed_1"].to_numpy()
    invented = _invented_sources(cells, evidence)
    of_invented = _share_of_alerts(invented > 0, sides, flagged, len(chosen)) >= _SINGLE_USE
    shared = _sharing(sides, flagged, cells, chosen)
    adjacent = _of_one_attacker(_adjacent(cells, chosen, window_minutes), _main_sources(sides, flagged, cells, chosen))
    pairs = np.concatenate([adjacent, shared, _beside_invented(shared, of_invented)])
    pairs = pairs[of_invented[pairs[:, 0]] == of_invented[pairs[:, 1]]]
    incident = _with_spilled(_components(len(chosen), pairs), cells, chosen, sides, flagged)
    incident = _with_invented_sources(incident, cells, chosen, invented, sides, flagged)
    if listed is not None and (listed >= 0).any():
        incident = _as_listed(incident, listed, cells, chosen)
    incident = _with_evidence(incident, invented, sides, flagged)
    return incident, _incident_of_evidence(incident, sides)


def _or_none(number: Ints, cell: Ints) -> Ints:
    found: Ints = np.where(cell >= 0, number[cell], -1)
    return found


def _adjacent(cells: NightCells, chosen: Ints, window_minutes: int) -> Ints:
    """Return pairs of alerts of the same entity and category in adjacent windows; shape (pairs, 2)."""
    entity, window = cells.entity[cells.place[chosen]], cells.window[cells.place[chosen]]
    category = cells.category[chosen]
    order = np.lexsort((window, category, entity))
    first, second = order[:-1], order[1:]
    same = (entity[first] == entity[second]) & (category[first] == category[second])
    near = (window[second] - window[first] <= window_minutes * 60_000_000) & (window[first] >= 0)
    found: Ints = np.column_stack([first, second])[same & near]
    return found


def _main_sources(sides: tuple[Ints, Ints], flagged: Ints, cells: NightCells, chosen: Ints) -> Ints:
    """Return the source with an alert that sent most flagged flows of each alert of a device, -1 for none."""
    device, source = sides
    both = (device >= 0) & (source >= 0)
    pairs, at = np.unique(np.column_stack([device[both], source[both]]), axis=0, return_inverse=True)
    sent = np.bincount(at.ravel(), flagged[both], minlength=len(pairs))
    most = pairs[2 * sent > cells.flagged[chosen, 0][pairs[:, 0]]] if len(pairs) else pairs.reshape(-1, 2)
    main = np.full(len(chosen), -1, dtype=np.int64)
    main[most[:, 0]] = cells.entity[cells.place[chosen[most[:, 1]]]]
    return main


def _of_one_attacker(pairs: Ints, main: Ints) -> Ints:
    """Return the pairs of alerts without those that have different main sources."""
    first, second = main[pairs[:, 0]], main[pairs[:, 1]]
    found: Ints = pairs[(first == second) | (first < 0) | (second < 0)]
    return found


def _with_spilled(incident: Ints, cells: NightCells, chosen: Ints, sides: tuple[Ints, Ints], flagged: Ints) -> Ints:
    """Join small incidents to large ones of the same source and windows: flows that the model called otherwise.

    Most of them go to devices that the large one reaches in the same window: what goes to others is another attack.
    Where no flow has a source, those of the same device.
    """
    which = np.flatnonzero(cells.is_source[cells.entity[cells.place[chosen]]] == bool(cells.is_source.any()))
    place, own, counts = cells.place[chosen[which]], incident[which], cells.flagged[chosen[which], 0]
    order = np.lexsort((-counts, place))  # of each place, the alert with the most flagged flows first
    largest = order[np.searchsorted(place[order], place[order], side="left")]
    pairs = np.column_stack([own[largest], own[order]])
    distinct, at = np.unique(pairs, axis=0, return_inverse=True)
    sums = [np.bincount(at.ravel(), counts[side], minlength=len(distinct)) for side in (largest, order)]
    few = sums[1] <= np.maximum(_SPILLED_FLOWS, _SPILLED_OF_MANY * sums[0])
    beside = np.full(len(chosen), -1, dtype=np.int64)
    beside[which[order]] = which[largest]
    elsewhere = np.bincount(at.ravel(), _elsewhere(beside, cells, sides[1], flagged)[which[order]], len(distinct))
    spilled = distinct[(sums[1] <= _SPILLED * sums[0]) & few & (2 * elsewhere <= sums[1])]
    return np.asarray(_components(int(incident.max()) + 1, spilled)[incident])


def _elsewhere(beside: Ints, cells: NightCells, source: Ints, flagged: Ints) -> Ints:
    """Return the flagged flows of each alert to devices that another alert does not reach in the window; (alerts,).

    Devices with fewer than `_ELSEWHERE` do not count: of a sweep with a flow for each, any may be called otherwise.

    Args:
        beside: The other alert of each.
        cells: Of the night.
        source: Alert of the source of each row of the evidence, -1 for none.
        flagged: Flagged flows of each row.
    """
    rows = np.flatnonzero((source >= 0) & (cells.device_cell >= 0))
    alert, place = source[rows], cells.place[cells.device_cell[rows]]
    target = beside[alert] * len(cells.flows) + place
    other = ~np.isin(target, target[alert == beside[alert]])
    pairs, at = np.unique(np.column_stack([alert[other], place[other]]), axis=0, return_inverse=True)
    counts = np.bincount(at.ravel(), flagged[rows[other]], minlength=len(pairs))
    found = np.bincount(pairs[:, 0], np.where(counts >= _ELSEWHERE, counts, 0), minlength=len(beside))
    return found.astype(np.int64)


def _sharing(sides: tuple[Ints, Ints], flagged: Ints, cells: NightCells, chosen: Ints) -> Ints:
    """Return pairs of alerts of a device and a source that share enough flagged flows; shape (pairs, 2)."""
    device, source = sides
    both = (device >= 0) & (source >= 0)
    pairs, at = np.unique(np.column_stack([device[both], source[both]]), axis=0, return_inverse=True)
    shared = np.bincount(at.ravel(), flagged[both], minlength=len(pairs))
    totals = cells.flagged[chosen, 0]
    enough: Ints = pairs[shared >= _SHARED * totals[pairs].min(axis=1)] if len(pairs) else pairs.reshape(-1, 2)
    return enough


def _beside_invented(shared: Ints, of_invented: Mask) -> Ints:
    """Return pairs of alerts of sources that a device would join if most of its flows had no invented source.

    Args:
        shared: From `_sharing`.
        of_invented: Whether most flows of each alert have an invented source.
    """
    apart = shared[of_invented[shared[:, 0]] & ~of_invented[shared[:, 1]]]
    apart = apart[np.argsort(apart[:, 0], kind="stable")]
    found: Ints = np.column_stack([apart[:-1, 1], apart[1:, 1]])[apart[:-1, 0] == apart[1:, 0]]
    return found


def _components(alerts: int, pairs: Ints) -> Ints:
    """Return a number for each alert, equal where pairs connect them."""
    ones = np.ones(len(pairs), dtype=np.int8)
    found: Ints = connected_components(coo_array((ones, (pairs[:, 0], pairs[:, 1])), (alerts, alerts)), False)[
        1
    ].astype(np.int64)
    return found


def _invented_sources(cells: NightCells, evidence: pa.Table) -> Ints:
    """Return the number of sources in each row of the evidence that sent hardly anything else; shape (rows,)."""
    source_place = np.where(cells.source_cell >= 0, cells.place[cells.source_cell], -1)
    all_sent = np.where(source_place >= 0, cells.sent[cells.entity[source_place]], np.inf)
    folded: Ints = evidence["folded_sources"].to_numpy().astype(np.int64)
    return np.where(folded > 0, folded, all_sent <= _HARDLY_ANY)


def _share_of_alerts(rows: Mask, sides: tuple[Ints, Ints], flagged: Ints, alerts: int) -> Floats:
    """Return the share of the flagged flows of each alert that some rows of the evidence hold; shape (alerts,)."""
    inside, total = np.zeros(alerts), np.zeros(alerts)
    for side in sides:
        has = side >= 0
        total += np.bincount(side[has], flagged[has], minlength=alerts)
        inside += np.bincount(side[has], flagged[has] * rows[has], minlength=alerts)
    share: Floats = inside / np.maximum(total, 1)
    return share


def _with_invented_sources(
    incident: Ints, cells: NightCells, chosen: Ints, invented: Ints, sides: tuple[Ints, Ints], flagged: Ints
) -> Ints:
    """Join the incidents of a category whose flagged flows come from sources that sent hardly anything else."""
    own = _incident_of_evidence(incident, sides)
    inside = own >= 0
    n = int(incident.max()) + 1
    total = np.bincount(own[inside], flagged[inside], minlength=n)
    single = inside & (invented > 0)
    invented_flows = np.bincount(own[single], flagged[single], minlength=n)
    invented_sources = np.bincount(own[single], invented[single], minlength=n)
    category = np.zeros(n, dtype=np.int64)
    category[incident] = cells.category[chosen]
    found = (invented_sources > 0) & (invented_flows >= _SINGLE_USE * total)
    target = np.arange(n)
    for g in np.unique(category[found]):
        members = np.flatnonzero(found & (category == g))
        if invented_sources[members].sum() >= _FEWEST_SOURCES:
            target[members] = members[0]
    joined: Ints = np.unique(target[incident], return_inverse=True)[1].astype(np.int64)
    return joined


def _as_listed(incident: Ints, listed: Ints, cells: NightCells, chosen: Ints) -> Ints:
    """Return the incident of each alert, where those that were listed stay apart.

    A new alert of an incident that holds several of them belongs to that with an alert of the same entity and category,
    else to that with the most flagged flows.
    """
    known, flagged = listed >= 0, cells.flagged[chosen, 0]
    of = np.column_stack([incident, cells.entity[cells.place[chosen]], cells.category[chosen]])
    largest = np.bincount(listed[known], flagged[known])
    target: dict[tuple[int, ...], int] = {}
    for i in np.flatnonzero(known)[np.argsort(largest[listed[known]], kind="stable")]:  # the largest last
        target[tuple(of[i])] = target[(int(incident[i]),)] = int(listed[i])
    apart = listed.copy()
    for i in np.flatnonzero(~known):
        new = len(largest) + int(incident[i])
        apart[i] = target.get(tuple(of[i]), target.get((int(incident[i]),), new))
    found: Ints = np.unique(apart, return_inverse=True)[1].astype(np.int64)
    return found


def _with_evidence(incident: Ints, invented: Ints, sides: tuple[Ints, Ints], flagged: Ints) -> Ints:
    """Join each incident of devices, most of whose flagged flows incidents of sources hold, to the one with most.

    Invented sources take no flow of others: incidents of them count only where they hold all flows.
    """
    device, source = sides
    own, n = _incident_of_evidence(incident, sides), int(incident.max()) + 1
    has = (own >= 0) & (flagged > 0)
    empty = np.bincount(own[has], minlength=n) == 0
    rows = np.flatnonzero(has & (device >= 0))
    of_device = incident[device[rows]]
    held = (own[rows] != of_device) & ((invented[rows] == 0) | empty[of_device])
    total, of_others = (np.bincount(of_device, flagged[rows] * some, minlength=n) for some in (1, held))
    without_source = np.bincount(incident[source[source >= 0]], minlength=n) == 0
    joins = without_source & (of_others >= np.maximum(_SHARED * total, 1))
    rows, of_device = rows[held & joins[of_device]], of_device[held & joins[of_device]]
    pairs, at = np.unique(np.column_stack([of_device, own[rows]]), axis=0, return_inverse=True)
    counts = np.bincount(at.ravel(), flagged[rows], minlength=len(pairs))
    order = np.lexsort((counts, pairs[:, 0]))  # of each incident, that with most flows last
    target = np.arange(n)
    target[pairs[order, 0]] = pairs[order, 1]
    joined: Ints = np.unique(target[incident], return_inverse=True)[1].astype(np.int64)
    return joined


def _incident_of_evidence(incident: Ints, sides: tuple[Ints, Ints]) -> Ints:
    """Return the incident that each row of the evidence belongs to, -1 for none: that of its source, else device."""
    device, source = sides
    alert = np.where(source >= 0, source, device)
    found: Ints = np.where(alert >= 0, incident[alert], -1)
    return found
