"""Alerts to incidents: what a person would call one attack, with attackers, victims, span, classes and evidence.

The probability of an attack is bounded by the Bayes factor of a p-value, 1 / (-e p ln p) (Sellke, Bayarri, Berger 2001,
doi 10.1198/000313001300339950), with `PRIOR` incidents expected among the cells of a night. The order is the weight of
the severity times that probability, times a factor of the criticality of its devices if the inventory has them.
"""

import datetime as dt
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ids_spark.alerts.evidence import groups_of
from ids_spark.alerts.false_alarms import Tested
from ids_spark.alerts.joining import joined
from ids_spark.alerts.known_devices import KnownDevices
from ids_spark.alerts.night_cells import NightCells
from ids_spark.alerts.severity import SEVERITIES, SeverityPolicy
from ids_spark.base.arrays import Ints, Mask
from ids_spark.dataset.tables import ALERTS, INCIDENTS, INVENTORY, SCHEMA_VERSION

PRIOR: Final = 3.0
"""Incidents expected in a night before its flows are seen."""
WEIGHTS: Final[Mapping[str, float]] = dict(zip(SEVERITIES, (16.0, 8.0, 4.0, 2.0, 1.0), strict=True))
LISTED: Final = 20
"""Most entities and flows that are listed of an incident."""
_ID_LENGTH: Final = 32  # hex characters, 128 bits
_OF_CLASS: Final = 0.2  # share of the attack probability, from which a class counts for the severity
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
    known: KnownDevices | None = None,
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
        known: Devices of the inventory; default: none.
    """
    chosen, known = np.flatnonzero(tested.alerts), known or KnownDevices()
    if not len(chosen):
        return INCIDENTS.empty_table(), ALERTS.empty_table()
    listed = tested.decided.incident[chosen]
    incident, of_evidence = joined(cells, chosen, evidence, window_minutes, listed)
    count = int(incident.max()) + 1
    members, own_rows = _split(incident, count), _split(of_evidence, count)
    maintained = known.in_maintenance(evidence)
    rows = [
        _incident(chosen[members[i]], own_rows[i], cells, tested, evidence, categories, policy, night)
        for i in range(count)
    ]
    for row, own in zip(rows, own_rows, strict=True):
        row.update(_of_inventory(row, evidence.take(pa.array(own[maintained[own]])), known))
    flagged = cells.flagged[chosen, 0]
    for i in np.flatnonzero(listed >= 0)[np.argsort(flagged[listed >= 0], kind="stable")]:  # of two, that with most
        rows[incident[i]]["incident_id"] = tested.decided.ids[listed[i]]
    ids = [rows[i]["incident_id"] for i in incident]
    alerts = _alerts(chosen, ids, cells, tested, evidence, categories, night, maintained, known)
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
            "own_peers": lead["own_peers"],
            "peer_rate": lead["peer_rate"],
            "log10_p": lead["log10_p_learned"],
            "posterior": attack,
            "score": WEIGHTS[row["severity"]] * attack * (row["criticality_factor"] or 1.0),
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
        "targets": _targets(own, flows)[:LISTED],
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
        "listed_at": night.created_at,
        "data_origin": night.data_origin,
    }


def _of_inventory(row: Row, maintained: pa.Table, known: KnownDevices) -> Row:
    """Return what the inventory says of an incident; null without one.

    Args:
        row: The incident.
        maintained: Its rows of the evidence in a time of maintenance.
        known: Devices of the inventory.
    """
    if not known.devices:
        return {"inventory": None, "criticality_factor": None, "flows_in_maintenance": None}
    flows = maintained["flagged_1"].to_numpy().astype(np.int64) - maintained["allowed_1"].to_numpy()
    return {
        "inventory": known.rows([*row["devices"], *row["sources"]]),
        "criticality_factor": known.factor(row["devices"], row["sources"]),
        "flows_in_maintenance": int(flows.sum()),
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


def _targets(own: pa.Table, flows: Ints) -> list[str]:
    """Return the addresses that the flows with the highest scores went to, most flagged flows beside them first."""
    sums: Counter[str] = Counter()
    for target, count in zip(own["top_target"].to_pylist(), flows.tolist(), strict=True):
        if target is not None:
            sums[target] += count
    return sorted(sums, key=lambda target: (-sums[target], target))


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
    maintained: Mask,
    known: KnownDevices,
) -> pa.Table:
    entity, place = cells.entity[cells.place[chosen]], cells.place[chosen]
    starts = cells.window[place]
    levels = cells.flagged.shape[1]
    offsets = pa.array(np.arange(len(chosen) + 1, dtype=np.int32) * levels)
    group, level = cells.category[chosen], tested.level[chosen]
    index = tested.own.index[entity]
    own_nights, own_rate, earlier = np.zeros(len(chosen), dtype=np.int64), np.zeros(len(chosen)), index >= 0
    own_peers = np.zeros_like(own_nights)
    own_nights[earlier] = tested.own.nights[index[earlier]]
    own_peers[earlier] = tested.own.peers[index[earlier]]
    own_flagged = tested.own.flagged[index[earlier], group[earlier], level[earlier]]
    own_rate[earlier] = own_flagged / np.maximum(tested.own.flows[index[earlier], group[earlier]], 1)
    seen = [_extreme(cells, evidence, name, reduction, chosen) for name, reduction in _SEEN.items()]
    outside = np.zeros(len(cells.place), dtype=np.bool_)
    for side in (cells.device_cell, cells.source_cell):
        outside[side[~maintained & (side >= 0)]] = True
    kinds, names = (column.take(pa.array(chosen)) for column in (cells.kinds, cells.names))
    listed = zip(kinds.to_pylist(), names.to_pylist(), strict=True)
    columns = {
        "incident_id": pa.array(incident_ids),
        "entity_kind": kinds,
        "entity": names,
        "is_source": pa.array(cells.is_source[entity]),
        "window_start": pa.array(starts, mask=starts < 0).cast(_TIME),
        "category": pa.array([categories[g] for g in group]),
        "flagged": pa.ListArray.from_arrays(offsets, pa.array(cells.flagged[chosen].ravel())),
        "flows": pa.array(cells.flows[place]),
        "expected": pa.ListArray.from_arrays(offsets, pa.array(tested.expected[chosen].ravel())),
        "level": pa.array(tested.level[chosen]),
        "log10_p": pa.array(np.log10(tested.p[chosen])),
        "log10_p_learned": pa.array(np.log10(tested.p[chosen])),
        "own_rate": pa.array(own_rate, mask=np.asarray(~earlier)),
        "own_nights": pa.array(own_nights),
        "own_peers": pa.array(own_peers),
        "inventory": pa.array([known.row(kind, name) for kind, name in listed], INVENTORY),
        "in_maintenance": pa.array(~outside[chosen]),
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
    return pa.array(found[chosen], mask=np.asarray(found[chosen] == start)).cast(_TIME)
