"""Several runs at one date, each with the flows that have arrived so far, that share one budget of false incidents.

A look is such a run (a group-sequential test has interim analyses). The sum over all looks of the false incidents that
each expects is at most N, so that N bounds the expected number of false incidents that the date ever lists, under any
dependence between looks: expectations add. The spending function of Lan and DeMets (1983, doi 10.1093/biomet/70.3.659)
is linear in time: with what earlier looks have spent, look k of K may bring the sum to `_OF_LOOKS` · N · k / K, so
that what a look does not need is left for later ones. The rest is for flows that arrive after the date: each further
run that finds some may spend half of what is left.

Looks differ from those of a trial in that most counts are final: the flows of an entity in an hour that is over do not
change. So a place (an entity in a window) is tested at a look only if its flows or flagged flows differ from those at
the look before; else its cells keep their decision, which costs nothing. A cell that was an alert stays one, whatever
rates are estimated later. So a run without new flows changes nothing, and all cells of a date together cost about what
they cost in one run. The last look tests all others once more with what is left: by then the rates of the whole date
are known, and what one run would find is found.
"""

import datetime as dt
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa

from ids_spark.alerts import night_cells
from ids_spark.alerts.evidence import entity_keys
from ids_spark.alerts.night_cells import Decided, NightCells
from ids_spark.alerts.ranking import OPEN
from ids_spark.alerts.severity import category_of
from ids_spark.alerts.verdicts import with_columns
from ids_spark.base.arrays import Ints, Mask
from ids_spark.dataset.features import SchemaMismatch
from ids_spark.dataset.tables import ALERTS, EVIDENCE, INCIDENTS, TRAFFIC
from ids_spark.lake.store import Lake

log = logging.getLogger(__name__)

_OF_LOOKS: Final = 0.9  # of the budget, for the looks until the date is over
_OF_LATE: Final = 0.5  # of what is left, for each run after them


@dataclass(frozen=True)
class Before:
    """What the look before has stored of the date.

    Attributes:
        part: Part of the date that was over at that look, 0 to 1.
        spent: False incidents that all looks so far expect.
        alpha: p-value from which a cell was an alert at that look.
        traffic, evidence: As `tables.TRAFFIC` and `tables.EVIDENCE`, merged.
        incidents: With the columns `COLUMNS`.
        alerts: With the columns `ALERT_COLUMNS`.
        of: Looks of the date.
    """

    part: float
    spent: float
    alpha: float
    traffic: pa.Table = field(default_factory=TRAFFIC.empty_table)
    evidence: pa.Table = field(default_factory=EVIDENCE.empty_table)
    incidents: pa.Table = field(default_factory=INCIDENTS.empty_table)
    alerts: pa.Table = field(default_factory=ALERTS.empty_table)
    of: int = 1


COLUMNS: Final = ("incident_id", "state", "created_at", "listed_at")
ALERT_COLUMNS: Final = ("incident_id", "entity_kind", "entity", "window_start", "category")


def read(lake: Lake, date: dt.date, model: str, version: str, looks: int) -> Before | None:
    """Return what the lake holds of a date; None without a result, or if it is tested once.

    Of another model, or where a table cannot be read, only what was spent is returned: the budget is that of the date.

    Args:
        lake: Holds the result.
        date: Of the flows.
        model: Name of the champion.
        version: Its version.
        looks: Looks of a date, as configured.
    """
    names = ["role", "model", "model_version", "run_of_night", "runs_per_night", "false_incidents_expected", "alpha"]
    try:
        rows = lake.read("nights", names, {"role": "champion"}, event_date=date).to_pylist()
    except SchemaMismatch as error:
        log.warning("an earlier run at the date is not used date=%s error=%s", date, error)
        return None
    if not rows:
        return None
    number, of, spent, alpha = (rows[0][name] for name in names[3:])
    if max(of or 1, looks) == 1:
        return None
    before = Before(1.0 if not of else number / of, spent or 0.0, 0.0, of=of or 1)
    if (rows[0]["model"], rows[0]["model_version"]) != (model, version):
        return before
    try:
        return replace(
            before,
            alpha=alpha or 0.0,
            traffic=lake.read("traffic", event_date=date),
            evidence=lake.read("evidence", event_date=date),
            incidents=lake.read("incidents", COLUMNS, event_date=date),
            alerts=lake.read("alerts", ALERT_COLUMNS, event_date=date),
        )
    except SchemaMismatch as error:
        log.warning("incidents of an earlier run at the date are not kept date=%s error=%s", date, error)
        return before


def partial(row: Mapping[str, Any]) -> bool:
    """Return whether flows of a night were still to come when it was scored, from its row in `nights/`."""
    return (row.get("run_of_night") or 1) < (row.get("runs_per_night") or 1)


def hours_due(number: int, of: int) -> int:
    """Return the hours of a date whose flows must have arrived by one of its looks before it is over.

    The newest hour that is over is not among them: its files may still be written.
    """
    return max(0, 24 * number // of - 1)


@dataclass(frozen=True)
class Look:
    """A run at a date.

    Attributes:
        number: From 1.
        of: Looks of a date; 1: the date is tested once, when it is over.
        time: When what it lists is first seen, in UTC.
        before: The look before it; None at the first one.
    """

    number: int = 1
    of: int = 1
    time: dt.datetime | None = None
    before: Before | None = None

    @property
    def partial(self) -> bool:
        """Whether flows of the date are still to come."""
        return self.number < self.of

    @property
    def last(self) -> bool:
        """Whether this is the first look of several after the date is over."""
        return 1 < self.of == self.number and self.before is not None and self.before.part < 1

    @property
    def spent(self) -> float:
        """False incidents that earlier looks expect."""
        return 0.0 if self.before is None else self.before.spent

    def allowed(self, budget: float) -> float:
        """Return how many false incidents this look may expect, of `budget` for the date."""
        if self.of == 1:
            return budget
        if self.before is not None and self.before.part >= 1:
            return max(_OF_LATE * (budget - self.spent), 0.0)
        return max(_OF_LOOKS * budget * self.number / self.of - self.spent, 0.0)

    @property
    def share(self) -> float:
        """Part of the date since the look before, 0 to 1; the shares of all looks add up to at most 1."""
        return max(self.number / self.of - (0.0 if self.before is None else self.before.part), 0.0)

    def alpha(self, tested: float, fresh: Mask) -> float:
        """Return the highest p-value of an alert: of this look's test, or of the one before if it tests nothing."""
        return tested if self.before is None or fresh.any() or not self.before.alpha else self.before.alpha

    def listed(self) -> dict[str, Mapping[str, Any]]:
        """Return the incidents of the look before by id, with `COLUMNS`."""
        rows = [] if self.before is None else self.before.incidents.select(COLUMNS).to_pylist()
        return {row["incident_id"]: row for row in rows}


def look_of(date: dt.date, time: dt.datetime, looks: int, before: Before | None = None) -> Look:
    """Return the look that a time is in: the last whose hours of the date are over, at least the first.

    Args:
        date: Of the flows, in UTC.
        time: Of the run, in UTC.
        looks: Looks of a date, evenly spread over it; 1: as many as the look before says.
        before: The look before it; not used if there is one look.
    """
    looks = before.of if looks == 1 and before is not None else looks
    begin = dt.datetime.combine(date, dt.time(), dt.UTC)
    number = min(max(int((time - begin) / dt.timedelta(days=1) * looks), 1), looks)
    return Look(number, looks, time, before if looks > 1 else None)


def decided(cells: NightCells, categories: Sequence[str], look: Look, evidence: bool = True) -> Decided:
    """Return what earlier looks say of the cells of a night.

    Args:
        cells: Of the night.
        categories: Names, in the order of the indices.
        look: This one.
        evidence: Whether the look before has stored the counts of these cells; without them all places are tested.
    """
    nothing = Decided.nothing(cells)
    before = look.before
    if before is None:
        return nothing
    fresh = nothing.fresh
    if evidence:
        names = before.evidence["class_name"].unique().to_pylist()
        of_class = {name: categories.index(category_of(name)) for name in names}
        fresh = _changed(cells, night_cells.cells_of(before.traffic, before.evidence, of_class), len(categories))
    return Decided(fresh, *_alerts(cells, before.alerts, categories))


def with_earlier(incidents: pa.Table, look: Look) -> pa.Table:
    """Return incidents with `listed_at`; those that the look before has listed as open no longer learn.

    Args:
        incidents: As `tables.INCIDENTS`, with `learning`.
        look: This one.
    """
    before, learning, times = look.listed(), incidents["learning"].to_pylist(), []
    for i, row in enumerate(incidents.select(["incident_id", "created_at"]).to_pylist()):
        listed = before.get(row["incident_id"])
        times.append((listed["listed_at"] or listed["created_at"]) if listed else (look.time or row["created_at"]))
        if listed and listed["state"] == OPEN:
            learning[i] = None
    return with_columns(incidents, {"learning": learning, "listed_at": times})


def _changed(now: NightCells, before: NightCells, groups: int) -> Mask:
    """Return which places have other flows, or other flagged flows, than before; shape (places,)."""
    keys, windows = np.union1d(now.keys, before.keys), np.union1d(now.window, before.window)
    places = [
        np.searchsorted(keys, each.keys)[each.entity] * len(windows) + np.searchsorted(windows, each.window)
        for each in (now, before)
    ]
    changed = _differs(_index(places[1], places[0]), before.flows, now.flows)
    own, other = (codes[each.place] * groups + each.category for codes, each in zip(places, (now, before), strict=True))
    changed[now.place[_differs(_index(other, own), before.flagged, now.flagged)]] = True
    gone = _index(places[0], places[1][before.place[_index(own, other) < 0]])
    changed[gone[gone >= 0]] = True
    return changed


def _differs(at: Ints, before: Ints, now: Ints) -> Mask:
    """Return which rows are not as before, where `at` is their index in `before`, -1 for rows that are new."""
    known = np.flatnonzero(at >= 0)
    differs = at < 0
    differs[known] = (before[at[known]] != now[known]).any(axis=tuple(range(1, now.ndim)))
    return differs


def _index(known: Ints, wanted: Ints) -> Ints:
    """Return the index of each wanted number in distinct known ones, -1 where it is none of them."""
    if not len(known):
        return np.full(len(wanted), -1, dtype=np.int64)
    order = np.argsort(known)
    at = order[np.minimum(np.searchsorted(known, wanted, sorter=order), len(known) - 1)]
    found: Ints = np.where(known[at] == wanted, at, -1)
    return found


def _alerts(cells: NightCells, alerts: pa.Table, categories: Sequence[str]) -> tuple[Ints, tuple[str, ...]]:
    """Return the earlier incident of each cell, -1 for none, and the ids of earlier incidents."""
    rows = [row for row in alerts.select(ALERT_COLUMNS).to_pylist() if row["category"] in categories]
    ids = tuple(dict.fromkeys(row["incident_id"] for row in rows))
    number = {incident: i for i, incident in enumerate(ids)}
    keys = entity_keys([row["entity_kind"] for row in rows], [row["entity"] for row in rows]).tolist()
    starts = pa.array([row["window_start"] for row in rows], pa.timestamp("us", tz="UTC"))
    windows = starts.cast(pa.int64()).fill_null(-1).to_pylist()
    earlier = {
        (key, window, categories.index(row["category"])): number[row["incident_id"]]
        for key, window, row in zip(keys, windows, rows, strict=True)
    }
    found = np.full(len(cells.place), -1, dtype=np.int64)
    if earlier:
        own = (cells.keys[cells.entity[cells.place]], cells.window[cells.place], cells.category)
        possible = np.flatnonzero(np.isin(own[0], keys))
        for i, cell in zip(possible, zip(*(column[possible].tolist() for column in own), strict=True), strict=True):
            found[i] = earlier.get(cell, -1)
    return found, ids
