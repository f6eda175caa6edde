"""Alerts to incidents: what a person would call one attack, with attackers, victims, span, classes and evidence.

Alerts of one category are joined if they are of the same entity in adjacent windows, or if they share at least half of
the flagged flows of the smaller one; so a scan of one source on six devices is one incident. A small incident of
another category is joined to a large one in the windows of the same source: the model takes some flows of an attack for
another. Incidents of one category whose flows each have a source of their own, which sent nothing else, are joined as
well, and apart from other sources: an attacker who invents sources gets one line, however many devices he chooses, and
changes no other one. A flow of two incidents, one of its source and one of its device, counts for that of its source.

The probability of an attack is bounded by the Bayes factor of a p-value, 1 / (-e p ln p) (Sellke, Bayarri, Berger 2001,
doi 10.1198/000313001300339950), with `PRIOR` incidents expected among the cells of a night. The order is the weight of
the severity times that probability.
"""

import datetime as dt
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ids_spark.alerts.evidence import groups_of
from ids_spark.alerts.false_alarms import Tested
from ids_spark.alerts.night_cells import NightCells
from ids_spark.alerts.severity import SEVERITIES, SeverityPolicy
from ids_spark.base.arrays import Floats, Ints, Mask
from ids_spark.dataset.tables import ALERTS, INCIDENTS, SCHEMA_VERSION

PRIOR: Final = 3.0
"""Incidents expected in a night before its flows are seen."""
WEIGHTS: Final[Mapping[str, float]] = dict(zip(SEVERITIES, (16.0, 8.0, 4.0, 2.0, 1.0), strict=True))
LISTED: Final = 20
"""Most entities and flows that are listed of an incident."""
_ID_LENGTH: Final = 32  # hex characters, 128 bits
_SHARED: Final = 0.5  # of the flagged flows of the smaller of two alerts, or of an incident without a source
_SPILLED: Final = 0.5  # of the flagged flows of the larger of two incidents in common windows of one source
_SPILLED_FLOWS, _SPILLED_OF_MANY = 50, 0.05  # more flows, and a larger share, are an attack that could hide there
_OF_CLASS: Final = 0.2  # share of the attack probability, from which a class counts for the severity
_SINGLE_USE: Final = 0.8  # share of flows from a source of their own, from which sources are taken for invented
_FEWEST_SOURCES: Final = 5  # invented ones of a category, from which their incidents are joined
_HARDLY_ANY: Final = 2  # flows of a source in the night, up to which it may be invented
_TIME: Final = pa.timestamp("us", tz="UTC")
Row = dict[str, Any]


@dataclass(frozen=True)
class NightFacts:
    """Values common to all incidents of one model and night; names as in `tables.INCIDENTS`.

    Attributes:
        event_date: The night.
        model, model_version: The model that scored the flows.
        threshold_logit: The operating point: flows with at least this attack logit were flagged.
        run_id, created_at: Scoring run and its time in UTC.
        data_origin: `measured` or `synthetic`.
    """

    event_date: dt.date
    model: str
    model_version: str
    threshold_logit: float
    run_id: str
    created_at: dt.datetime
    data_origin: str


def incidents_of(
    cells: NightCells,
    tested: Tested,
    evidence: pa.Table,
    categories: Sequence[str],
    window_minutes: int,
    policy: SeverityPolicy,
    night: NightFacts,
) -> tuple[pa.Table, pa.Table]:
    """Return incidents, as `tables.INCIDENTS`, not yet ranked, and their alerts, as `tables.ALERTS`.

    Incidents are open and new; the most probable and severe are first.

    Args:
        cells: Of the night.
        tested: Of its cells.
        evidence: As `tables.EVIDENCE`; the table that `cells` was made from.
        categories: Names, in the order of the indices.
        window_minutes: Length of a window.
        policy: Severities.
        night: Values common to all incidents.
    """
    chosen = np.flatnonzero(tested.alerts)
    if not len(chosen):
        return INCIDENTS.empty_table(), ALERTS.empty_table()
    number = np.full(len(cells.place), -1, dtype=np.int64)
    number[chosen] = np.arange(len(chosen))
    sides = (_or_none(number, cells.device_cell), _or_none(number, cells.source_cell))
    flagged = evidence["flagged_1"].to_numpy().astype(np.int64) - evidence["allowed_1"].to_numpy()
    invented = _invented_sources(cells, evidence)
    of_invented = _share_of_alerts(invented > 0, sides, flagged, len(chosen)) >= _SINGLE_USE
    shared = _sharing(sides, flagged, cells, chosen)
    pairs = np.concatenate([_adjacent(cells, chosen, window_minutes), shared, _beside_invented(shared, of_invented)])
    pairs = pairs[of_invented[pairs[:, 0]] == of_invented[pairs[:, 1]]]
    incident = _with_spilled(_components(len(chosen), pairs), cells, chosen)
    incident = _with_invented_sources(incident, cells, chosen, invented, sides, flagged)
    incident = _with_evidence(incident, invented, sides, flagged)
    of_evidence = _incident_of_evidence(incident, sides)
    count = int(incident.max()) + 1
    members, own_rows = _split(incident, count), _split(of_evidence, count)
    rows = [
        _incident(chosen[members[i]], own_rows[i], cells, tested, evidence, categories, policy, night)
        for i in range(count)
    ]
    alerts = _alerts(chosen, [rows[i]["incident_id"] for i in incident], cells, tested, evidence, categories, night)
    return rated(pa.Table.from_pylist(rows, schema=INCIDENTS), alerts, tested.tested), alerts


def rated(incidents: pa.Table, alerts: pa.Table, cells: int) -> pa.Table:
    """Return incidents with the evidence of their most significant alert, and their score; the highest score first.

    Args:
        incidents: As `tables.INCIDENTS`, with `severity`.
        alerts: As `tables.ALERTS`, at least one of each incident. The most significant is that with the smallest
            `log10_p_learned`, so that what was learned is not the evidence of an incident that also has other alerts.
        cells: Number of cells tested.
    """
    leads: dict[str, Row] = {}
    for alert in alerts.to_pylist():
        if alert["incident_id"] not in leads or _lead_key(alert) < _lead_key(leads[alert["incident_id"]]):
            leads[alert["incident_id"]] = alert
    rows = []
    for row in incidents.to_pylist():
        lead = leads[row["incident_id"]]
        attack = posterior(10.0 ** lead["log10_p_learned"], cells)
        row |= {
            "lead_kind": lead["entity_kind"],
            "lead_entity": lead["entity"],
            "lead_window": lead["window_start"],
            "lead_flagged": lead["flagged"][lead["level"]],
            "lead_flows": lead["flows"],
            "lead_expected": lead["expected"][lead["level"]],
            "own_rate": lead["own_rate"],
            "own_nights": lead["own_nights"],
            "peer_rate": lead["peer_rate"],
            "log10_p": lead["log10_p_learned"],
            "posterior": attack,
            "score": WEIGHTS[row["severity"]] * attack,
        }
        rows.append(row)
    return pa.Table.from_pylist(sorted(rows, key=_rank_key), schema=INCIDENTS)


def posterior(p: float, cells: int) -> float:
    """Return the probability of an attack, at most, given the p-value of the most significant of so many cells."""
    bayes_factor = 1.0 if p >= 1 / np.e else 1 / (-np.e * p * np.log(p))
    odds = PRIOR / max(cells, 1) * bayes_factor
    return float(odds / (1 + odds))


def incident_id(event_date: dt.date, kind: str, entity: str, category: str, window_start: int) -> str:
    """Return the id of an incident: 32 hex characters of a SHA-256, the same in every run.

    Args:
        event_date: The night.
        kind, entity: Of its most significant alert.
        category: Of its alerts.
        window_start: Of that alert, microseconds since 1970 in UTC; -1 without an event time.
    """
    key = json.dumps([str(event_date), kind, entity, category, window_start])
    return hashlib.sha256(key.encode()).hexdigest()[:_ID_LENGTH]


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


def _with_spilled(incident: Ints, cells: NightCells, chosen: Ints) -> Ints:
    """Join small incidents to large ones of the same source and windows: flows that the model called otherwise.

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
    spilled = distinct[(sums[1] <= _SPILLED * sums[0]) & few]
    return np.asarray(_components(int(incident.max()) + 1, spilled)[incident])


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


def _split(numbers: Ints, count: int) -> list[Ints]:
    """Return the indices of each number below `count`."""
    order = np.argsort(numbers, kind="stable")
    bounds = np.searchsorted(numbers[order], np.arange(count + 1))
    return [order[low:high] for low, high in itertools.pairwise(bounds)]


def _lead_key(alert: Row) -> tuple[Any, ...]:
    start = alert["window_start"]
    return (
        alert["log10_p_learned"],
        alert["log10_p"],
        -alert["flagged"][0],
        alert["is_source"],
        alert["entity"],
        alert["entity_kind"],
        start.timestamp() if start else -1.0,
    )


def _rank_key(row: Row) -> tuple[float, float, int, str]:
    return -row["score"], row["log10_p"], -row["flows"], row["incident_id"]


def _incident(
    members: Ints,
    rows: Ints,
    cells: NightCells,
    tested: Tested,
    evidence: pa.Table,
    categories: Sequence[str],
    policy: SeverityPolicy,
    night: NightFacts,
) -> Row:
    """Return one incident.

    Args:
        members: Its cells.
        rows: Its rows of the evidence.
    """
    # By p and flagged flows alone: verdicts do not change the id.
    lead = members[np.lexsort((members, -cells.flagged[members, 0], tested.p[members]))[0]]
    place, category = cells.place[lead], categories[int(cells.category[lead])]
    own = evidence.take(pa.array(rows))
    flows = own["flagged_1"].to_numpy().astype(np.int64) - own["allowed_1"].to_numpy()
    severity, classes = _with_severity(_classes(own, flows), int(flows.sum()), own, policy)
    kind, name, start = cells.kinds[lead].as_py(), cells.names[lead].as_py(), int(cells.window[place])
    devices, sources = (_entities(own, side, flows) for side in ("device", "source"))
    logits = own["max_attack_logit"].to_numpy()
    return {
        "incident_id": incident_id(night.event_date, kind, name, category, start),
        "state": "open",
        "shown": True,
        "severity": severity,
        "category": category,
        "classes": classes,
        "sources": sources[:LISTED],
        "sources_found": len(sources) + int(pc.sum(own["folded_sources"]).as_py() or 0),
        "devices": devices[:LISTED],
        "devices_found": len(devices),
        "first_seen": pc.min(own["first_seen"]).as_py(),
        "last_seen": pc.max(own["last_seen"]).as_py(),
        "flows": int(flows.sum()),
        "flows_allowed": int(pc.sum(own["allowed_1"]).as_py() or 0),
        "alerts": len(members),
        "life": "new",
        "since": night.event_date,
        "nights_seen": 1,
        "max_attack_probability": float(own["max_attack_probability"].to_numpy().max()),
        "max_attack_logit": float(logits.max()),
        "top_flows": _top_flows(own),
        "model": night.model,
        "model_version": night.model_version,
        "threshold_logit": night.threshold_logit,
        "schema_version": SCHEMA_VERSION,
        "run_id": night.run_id,
        "created_at": night.created_at,
        "data_origin": night.data_origin,
    }


def _classes(own: pa.Table, flows: Ints) -> list[Row]:
    """Return flagged flows and share of the attack probability of each class, largest share first."""
    names = own["class_name"].combine_chunks().dictionary_encode()
    codes, n = names.indices.to_numpy(), len(names.dictionary)
    counts = np.bincount(codes, flows, minlength=n)
    mass = np.bincount(codes, own["probability_sum"].to_numpy().astype(np.float64), minlength=n)
    share = mass / mass.sum() if mass.sum() > 0 else counts / max(counts.sum(), 1)
    listed = zip(names.dictionary.to_pylist(), counts.tolist(), share.tolist(), strict=True)
    found = [{"class_name": name, "flows": int(count), "share": part} for name, count, part in listed]
    return sorted(found, key=lambda row: (-row["share"], row["class_name"]))


def _with_severity(classes: Sequence[Row], flows: int, own: pa.Table, policy: SeverityPolicy) -> tuple[str, list[Row]]:
    """Return the worst severity of the classes that hold enough of the attack probability, and that class first."""
    leading = [row for row in classes if row["share"] >= _OF_CLASS] or list(classes[:1])
    probability = float(own["max_attack_probability"].to_numpy().max())
    names, n = [row["class_name"] for row in leading], len(leading)
    found = policy.severities(pa.array(names), np.full(n, flows), np.full(n, probability)).to_pylist()
    worst = min(range(n), key=lambda i: SEVERITIES.index(found[i]))  # of equal ones, that with the largest share
    return found[worst], [leading[worst], *(row for row in classes if row is not leading[worst])]


def _entities(own: pa.Table, side: str, flows: Ints) -> list[Row]:
    """Return the devices or sources with their flagged flows, most flows first."""
    known = np.flatnonzero(own[side].is_valid())
    names = own.select([f"{side}_kind", side]).take(pa.array(known))
    groups, firsts, number = groups_of(names, names.column_names)
    sums = np.bincount(number, flows[known], minlength=groups).astype(np.int64).tolist()
    listed = zip(*(column.to_pylist() for column in names.take(pa.array(firsts)).columns), sums, strict=True)
    rows = [{"kind": kind, "name": name, "flows": count} for kind, name, count in listed if count]
    return sorted(rows, key=lambda row: (-row["flows"], row["name"], row["kind"]))


def _top_flows(own: pa.Table) -> list[Row]:
    """Return the flows with the highest scores, one of each device, source, window and class."""
    order = np.lexsort((own["top_row"].to_numpy(), -own["top_score"].to_numpy()))[:LISTED]
    return [
        {
            "source_file": row["top_file"],
            "source_row": row["top_row"],
            "class_name": row["class_name"],
            "device": row["device"],
            "source": row["source"],
            "window_start": row["window_start"],
            "attack_logit": row["max_attack_logit"],
            "attributions": row["top_attributions"],
        }
        for row in own.take(pa.array(order)).to_pylist()
    ]


def _alerts(
    chosen: Ints,
    incident_ids: Sequence[str],
    cells: NightCells,
    tested: Tested,
    evidence: pa.Table,
    categories: Sequence[str],
    night: NightFacts,
) -> pa.Table:
    entity, place = cells.entity[cells.place[chosen]], cells.place[chosen]
    starts = cells.window[place]
    levels = cells.flagged.shape[1]
    offsets = pa.array(np.arange(len(chosen) + 1, dtype=np.int32) * levels)
    group, level = cells.category[chosen], tested.level[chosen]
    index = tested.own.index[entity]
    own_nights, own_rate, earlier = np.zeros(len(chosen), dtype=np.int64), np.zeros(len(chosen)), index >= 0
    own_nights[earlier] = tested.own.nights[index[earlier]]
    own_flagged = tested.own.flagged[index[earlier], group[earlier], level[earlier]]
    own_rate[earlier] = own_flagged / np.maximum(tested.own.flows[index[earlier], group[earlier]], 1)
    seen = [_extreme(cells, evidence, name, reduction, chosen) for name, reduction in _SEEN.items()]
    columns = {
        "incident_id": pa.array(incident_ids),
        "entity_kind": cells.kinds.take(pa.array(chosen)),
        "entity": cells.names.take(pa.array(chosen)),
        "is_source": pa.array(cells.is_source[entity]),
        "window_start": pa.array(starts, mask=starts < 0).cast(_TIME),
        "category": pa.array([categories[g] for g in group]),
        "flagged": pa.ListArray.from_arrays(offsets, pa.array(cells.flagged[chosen].ravel())),
        "flows": pa.array(cells.flows[place]),
        "expected": pa.ListArray.from_arrays(offsets, pa.array(tested.expected[chosen].ravel())),
        "level": pa.array(tested.level[chosen]),
        "log10_p": pa.array(np.log10(tested.p[chosen])),
        "log10_p_learned": pa.array(np.log10(tested.p[chosen])),
        "own_rate": pa.array(own_rate, mask=_mask(~earlier)),
        "own_nights": pa.array(own_nights),
        "peer_rate": pa.array(tested.used[group, level]),
        "first_seen": seen[0],
        "last_seen": seen[1],
        "schema_version": pa.array(np.full(len(chosen), SCHEMA_VERSION)),
        "run_id": pa.array([night.run_id] * len(chosen)),
    }
    found = pa.table([columns[field.name].cast(field.type) for field in ALERTS], schema=ALERTS)
    return found.sort_by([("incident_id", "ascending"), ("log10_p", "ascending"), ("entity", "ascending")])


_SEEN: Final[Mapping[str, np.ufunc]] = {"first_seen": np.minimum, "last_seen": np.maximum}


def _extreme(cells: NightCells, evidence: pa.Table, name: str, reduction: np.ufunc, chosen: Ints) -> pa.Array:
    """Return the first or last time of the flagged flows of each chosen cell; null where unknown."""
    times = evidence[name]
    known, moments = np.asarray(times.is_valid()), times.cast(pa.int64()).fill_null(0).to_numpy()
    start = np.iinfo(np.int64).max if reduction is np.minimum else np.iinfo(np.int64).min
    found = np.full(len(cells.place), start)
    for side in (cells.device_cell, cells.source_cell):
        used = known & (side >= 0)
        reduction.at(found, side[used], moments[used])
    return pa.array(found[chosen], mask=_mask(found[chosen] == start)).cast(_TIME)


def _mask(values: Mask) -> Mask:
    return np.asarray(values)
