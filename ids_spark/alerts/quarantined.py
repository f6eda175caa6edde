"""Rows of a night that were refused, as evidence: whose they are, and where they are far more than usual.

Rows that no model has seen can hide an attack: a faulty value in one feature is enough. So refused rows are counted by
entity and window of time as flagged flows are, and tested as these are (`false_alarms`), in a category of their own.
The rate is that of the nights before, or tonight's outside of the cells found; a site without earlier nights has
`FIRST_SHARE`. Of an entity and window with fewer than `FEWEST_ROWS` refused rows nothing is said.

A fault of the exporter refuses rows of all entities alike. What more than half of the entities of a window show is no
evidence against any of them: an entity there has to have `STANDS_OUT` times the median share. The median is the lower
one of those over the entities and over their flows: neither many invented names nor a flood of one entity makes refused
rows common. Such rows are counted by `alike`, and degrade the night instead.

Pure functions on Arrow and numpy columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ids_spark.alerts import evidence as counted
from ids_spark.alerts import false_alarms, incidents, looks, night_cells
from ids_spark.alerts.false_alarms import StoredCounts
from ids_spark.alerts.incidents import NightFacts
from ids_spark.alerts.known_devices import KnownDevices
from ids_spark.alerts.looks import Look
from ids_spark.alerts.night_cells import NightCells
from ids_spark.alerts.severity import SeverityPolicy
from ids_spark.alerts.verdicts import with_columns
from ids_spark.base.arrays import Floats, Ints
from ids_spark.config.score import AlertsConfig
from ids_spark.dataset.tables import ALERTS, EVIDENCE, HISTORY, INCIDENTS, TRAFFIC
from ids_spark.dataset.taxonomy import QUARANTINED
from ids_spark.models.threshold import LIMIT

FIRST_SHARE: Final = 0.001
"""Share of refused rows that is usual at a site of which no earlier night is known: one row in a thousand, which leaves
room for single faults of an exporter."""
FIRST_ROWS: Final = 1_000.0
"""Rows that this share counts for, beside those of earlier nights."""
FEWEST_ROWS: Final = 5
STANDS_OUT: Final = 3.0
LISTED: Final = 500
"""Most devices, and most sources, that are listed; those with most flagged rows. Invented sources take no place of a
device."""
_ENTITIES_ALIKE: Final = 3  # fewer in a window say nothing of what is common there
_FEWEST_FLOWS: Final = 5  # of an entity in a window, from which its share counts
_IMPUTED: Final = 0.01  # of the flows of an entity, from which they say nothing of what is usual for it
_BUDGET: Final = 0.1  # of the false incidents of a night
Row = dict[str, Any]


@dataclass(frozen=True)
class Refusals:
    """Refused rows of a night.

    Attributes:
        rows: As `tables.EVIDENCE`, merged: at level 1 all, at level 2 those that were scored with one feature at its
            benign median, at level 3 those of them that were flagged. The class is the reason.
        traffic: All flows of all entities, refused or not, as `tables.TRAFFIC`, merged.
        unread: Rows whose identifiers could not be read, by file.
        before: Refused rows, and all rows, of earlier nights.
    """

    rows: pa.Table = field(default_factory=EVIDENCE.empty_table)
    traffic: pa.Table = field(default_factory=TRAFFIC.empty_table)
    unread: tuple[tuple[str, int], ...] = ()
    before: tuple[int, int] = (0, 0)


def found(
    refusals: Refusals,
    alpha: float,
    alerts: AlertsConfig,
    policy: SeverityPolicy,
    night: NightFacts,
    known: KnownDevices | None = None,
    look: Look | None = None,
) -> tuple[pa.Table, pa.Table, int]:
    """Return incidents of refused rows, as `tables.INCIDENTS`, their alerts, as `tables.ALERTS`, and the cells tested.

    Args:
        refusals: Of the night.
        alpha: Highest p-value of an alert of the night.
        alerts: Budget, length of windows.
        policy: Severities.
        night: Values common to all incidents.
        known: Devices of the inventory; default: none.
        look: Which run at the date this is; default: the only one. Counts of refused rows are not stored, so that all
            cells are tested again, with the part of the budget that is the part of the date since the run before. So
            what arrives when the date is over is an incident only if its p-value is at most the smallest α.
    """
    look = look or Look()
    if not len(refusals.rows):
        return INCIDENTS.empty_table(), ALERTS.empty_table(), 0
    cells = _cells(refusals)
    own = night_cells.own_counts(cells, _NO_HISTORY, [QUARANTINED])
    # Also of all windows of an entity: no model has seen these rows, so that they last does not make them harmless.
    usual, budget = _usual(refusals.before), _BUDGET * alerts.false_incidents
    before = looks.decided(cells, [QUARANTINED], look, evidence=False)
    tested = false_alarms.compare(cells, usual, budget, own, lasting=False, decided=before, allowed=budget * look.share)
    rows, expected = cells.flagged[:, 0], _common(cells)[cells.place] * cells.flows[cells.place]
    stands_out = (rows >= FEWEST_ROWS) & (rows > STANDS_OUT * expected)
    alpha = min(alpha, tested.alpha)
    limits = np.minimum(tested.limits, alpha)
    tested = replace(tested, p=np.where(stands_out, tested.p, 1.0), alpha=alpha, limits=limits)
    named = _named(refusals.rows)
    listed, own_alerts = incidents.incidents_of(
        cells, tested, named, [QUARANTINED], alerts.window_minutes, policy, night, known
    )
    return _without_scores(listed), own_alerts, tested.tested


def alike(refusals: Refusals) -> float:
    """Return how many refused rows all entities have alike: in each window the median share, of all of its flows."""
    if not len(refusals.rows):
        return 0.0
    cells = _cells(refusals)
    of_devices = _counts_here(cells)[cells.entity]
    return float((_common(cells) * cells.flows)[of_devices].sum())


def entities(refusals: Refusals) -> tuple[list[Row], int]:
    """Return devices and sources with refused rows as in `quarantine_entities` of `tables.NIGHTS`, and their number.

    Those with most flagged rows are first, then those with most rows; files stand for rows whose identifiers could not
    be read. Of very many sources of a single row each only the number is known.
    """
    listed: list[Row] = []
    sent, number_of_all = _sent(refusals.traffic), 0
    for side in ("device", "source"):
        own: list[Row] = []
        rows = refusals.rows.filter(refusals.rows[side].is_valid())
        groups, firsts, number = counted.groups_of(rows, (f"{side}_kind", side))
        names = rows.select([f"{side}_kind", side]).take(pa.array(firsts)).to_pydict()
        levels = [
            np.bincount(number, rows[f"flagged_{level}"].to_numpy(), minlength=groups).astype(np.int64)
            for level in counted.LEVELS
        ]
        reasons = _reasons(rows, number, groups)
        keys = counted.entity_keys(names[f"{side}_kind"], names[side])
        for i, (kind, name) in enumerate(zip(names[f"{side}_kind"], names[side], strict=True)):
            row = {"kind": kind, "name": name, "rows": int(levels[0][i]), "flows": sent.get(int(keys[i]))}
            own.append(row | {"scored": int(levels[1][i]), "flagged": int(levels[2][i]), "reason": reasons[i]})
        if side == "device":
            for file, n in refusals.unread:
                row = {"kind": counted.FILE_KIND, "name": file, "rows": n, "flows": None}
                own.append(row | {"scored": 0, "flagged": 0, "reason": None})
        listed += sorted(own, key=_worst_first)[:LISTED]
        number_of_all += len(own)
    folded = int(pc.sum(refusals.rows["folded_sources"]).as_py() or 0)
    return sorted(listed, key=_worst_first), number_of_all + folded


def without_imputed(history: pa.Table, refusals: Refusals) -> pa.Table:
    """Return the history of a night without entities of whose flows too many were scored with a benign median.

    Args:
        history: As `tables.HISTORY`.
        refusals: Of the night.
    """
    sent = _sent(refusals.traffic)
    gone: list[int] = []
    for side in ("device", "source"):
        rows = refusals.rows.filter(refusals.rows[side].is_valid())
        groups, firsts, number = counted.groups_of(rows, (f"{side}_kind", side))
        names = rows.select([f"{side}_kind", side]).take(pa.array(firsts)).to_pydict()
        keys = counted.entity_keys(*names.values()).tolist()
        imputed = np.bincount(number, rows["flagged_2"].to_numpy(), minlength=groups).tolist()
        gone += [key for key, n in zip(keys, imputed, strict=True) if n > _IMPUTED * sent.get(key, 0)]
    return history.filter(pc.invert(pc.is_in(history["entity_key"], pa.array(gone, pa.int64())))) if gone else history


def _worst_first(row: Row) -> tuple[int, int, str, str]:
    return -row["flagged"], -row["rows"], row["kind"], row["name"]


def _cells(refusals: Refusals) -> NightCells:
    reasons = refusals.rows["class_name"].unique().to_pylist()
    return night_cells.cells_of(refusals.traffic, refusals.rows, dict.fromkeys(reasons, 0))


def _usual(before: tuple[int, int]) -> StoredCounts:
    refused, rows = before
    count = FIRST_SHARE * FIRST_ROWS + refused
    levels = len(counted.LEVELS)
    return StoredCounts((QUARANTINED,), np.full((1, levels), round(count)), np.array([round(FIRST_ROWS + rows)]))


def _counts_here(cells: NightCells) -> Any:
    """Return which entities are of the side that has most flows: devices, or sources where few flows have a device."""
    sent = cells.sent
    by_source = sent[cells.is_source].sum() > 2 * sent[~cells.is_source].sum()
    return cells.is_source == by_source


def _common(cells: NightCells) -> Floats:
    """Return the median share of refused rows in the window of each place; shape (places,).

    It is the lower one of the median over the entities and that over their flows, 0 in windows of fewer than three
    entities with enough flows.
    """
    refused = np.bincount(cells.place, cells.flagged[:, 0], minlength=len(cells.flows))
    shares = refused / np.maximum(cells.flows, 1)
    used = _counts_here(cells)[cells.entity] & (cells.flows >= _FEWEST_FLOWS)
    windows, of = np.unique(cells.window, return_inverse=True)
    at = np.flatnonzero(used)
    order = at[np.lexsort((shares[at], of[at]))]
    numbers = np.bincount(of[at], minlength=len(windows))
    starts = np.append(0, np.cumsum(numbers))[:-1]
    common = np.zeros(len(windows))
    enough = numbers >= _ENTITIES_ALIKE
    of_entities = shares[order[starts[enough] + (numbers[enough] - 1) // 2]]
    flows = np.append(0, np.cumsum(cells.flows[order]))
    ends = starts + numbers
    half = (flows[starts[enough]] + flows[ends[enough]]) / 2
    of_flows = shares[order[np.searchsorted(flows[1:], half)]]
    common[enough] = np.minimum(of_entities, of_flows)
    result: Floats = common[of]
    return result


def _named(rows: pa.Table) -> pa.Table:
    """Return the rows with the class `Quarantined`."""
    place = rows.column_names.index("class_name")
    return rows.set_column(place, EVIDENCE.field(place), pa.repeat(QUARANTINED, len(rows)))


def _without_scores(listed: pa.Table) -> pa.Table:
    """Return incidents whose scores are null where no row of theirs was scored."""
    names = ("max_attack_probability", "max_attack_logit", "top_flows")
    columns: dict[str, list[Any]] = {name: listed[name].to_pylist() for name in names}
    for i, logit in enumerate(columns["max_attack_logit"]):
        if logit < -LIMIT:
            columns["max_attack_probability"][i] = columns["max_attack_logit"][i] = None
        columns["top_flows"][i] = [
            {**flow, "attack_logit": flow["attack_logit"] if flow["attack_logit"] >= -LIMIT else None}
            for flow in columns["top_flows"][i]
        ]
    return with_columns(listed, columns)


def _sent(traffic: pa.Table) -> dict[int, int]:
    sums = traffic.group_by("entity_key").aggregate([("flows", "sum")])
    return dict(zip(sums["entity_key"].to_pylist(), sums["flows_sum"].to_pylist(), strict=True))


def _reasons(rows: pa.Table, number: Ints, groups: int) -> Sequence[str]:
    """Return the most frequent reason of each group."""
    encoded = rows["class_name"].combine_chunks().dictionary_encode()
    names, n = encoded.dictionary.to_pylist(), max(1, len(encoded.dictionary))
    counts = np.bincount(
        number * n + encoded.indices.to_numpy(), rows["flagged_1"].to_numpy(), minlength=groups * n
    ).reshape(groups, n)
    return [names[i] for i in counts.argmax(axis=1)] if groups else []


_NO_HISTORY: Final = HISTORY.append(pa.field("event_date", pa.date32())).empty_table()
