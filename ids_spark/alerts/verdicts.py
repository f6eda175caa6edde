"""Verdicts of people on incidents, and what follows from them: learned cells, muted and closed incidents.

`true` and `benign` say what an incident was, `mute` and `close` how it is handled; of each pair the newest counts.
`true` also ends a mute or close of the incident. `unlearn` removes all verdicts on its incident, and what any verdict
before it learned or muted for that incident's entities and category. A verdict applies to the night of its incident and
to later ones, so that earlier nights stay as they were decided.
"""

import datetime as dt
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, get_args

import numpy as np
import pyarrow as pa

from ids_spark.alerts import false_alarms
from ids_spark.config.score import Verdict
from ids_spark.dataset.tables import INCIDENTS
from ids_spark.lake import listing
from ids_spark.lake.store import Lake

NAMES: Final[tuple[Verdict, ...]] = get_args(Verdict)
Row = Mapping[str, Any]

_MOST_TIMES: Final = 10.0  # the learned flows: a burst of few flows, all flagged, does not explain a flood
_PATIENCE_S: Final = 600.0  # for commits of other jobs, as at the start of a job
_TOLERANCE: Final = 1e-9  # in log10: p-values that are equal but for rounding


class Cell(NamedTuple):
    """An entity and a category, to which a verdict applies in any window of time."""

    entity_kind: str
    entity: str
    category: str


class Burst(NamedTuple):
    """A window that was learned for a cell: flagged flows at each level of `threshold.RATES`, and all flows."""

    flagged: tuple[int, ...]
    flows: int

    def exceeds(self, other: "Burst") -> bool:
        """Return whether this window has at least as many flagged flows at each level among no more flows."""
        return self.flows <= other.flows and all(a >= b for a, b in zip(self.flagged, other.flagged, strict=True))


Bursts = tuple[Burst, ...]


def _largest(bursts: Iterable[Burst]) -> Bursts:
    """Return the distinct bursts that no other one exceeds, in order of their numbers."""
    found = sorted(set(bursts))
    return tuple(burst for burst in found if not any(other != burst and other.exceeds(burst) for other in found))


@dataclass
class OfIncident:
    """The verdicts on one incident.

    Attributes:
        newest: The newest of them, also an `unlearn`.
        kind: The newest `true` or `benign`, None if there is none or it was removed.
        handling: The newest `mute` or `close`, None if there is none or it was removed.
        learned: Of a `benign` in `kind`: the bursts of each cell.
        muted: Of a `mute` in `handling`: its cells.
    """

    newest: Row
    kind: Row | None = None
    handling: Row | None = None
    learned: dict[Cell, Bursts] = field(default_factory=dict)
    muted: set[Cell] = field(default_factory=set)

    @property
    def confirmed(self) -> bool:
        """Whether the incident was called `true`."""
        return self.kind is not None and self.kind["verdict"] == "true"

    def add(self, row: Row) -> None:
        """Add a newer verdict, except `unlearn`, which concerns other incidents too."""
        self.newest = row
        if row["verdict"] in ("true", "benign"):
            self.kind = row
            self.learned = _bursts(row["learned"] or ()) if row["verdict"] == "benign" else {}
        if row["verdict"] in ("true", "mute", "close"):
            self.handling = None if row["verdict"] == "true" else row
            self.muted = cells_of(row) if row["verdict"] == "mute" else set()

    def forget(self, cells: set[Cell]) -> None:
        """Remove what was learned or muted for cells."""
        self.learned = {cell: bursts for cell, bursts in self.learned.items() if cell not in cells}
        self.muted -= cells


@dataclass(frozen=True)
class InForce:
    """What the verdicts say on one night.

    Attributes:
        night: The night.
        incidents: Verdicts on incidents of that night, by incident id.
        learned: The largest bursts of each learned cell, and the newest verdict that taught one.
        muted: The last night for which each cell is muted, not before `night`, and the newest verdict that muted it.
    """

    night: dt.date
    incidents: Mapping[str, OfIncident] = field(default_factory=dict)
    learned: Mapping[Cell, tuple[Bursts, Row]] = field(default_factory=dict)
    muted: Mapping[Cell, tuple[dt.date, Row]] = field(default_factory=dict)


def read(lake: Lake) -> list[Row]:
    """Return all verdicts of a lake, rows of `tables.VERDICTS` in order of time; empty where there is none."""
    rows = listing.on_one_state(lake, ["verdicts"], lambda _: lake.read("verdicts"), _PATIENCE_S)
    return in_order(rows.to_pylist())


def in_order(given: Iterable[Row]) -> list[Row]:
    """Return verdicts in order of time; of one run `unlearn` first, so that the order of its lines does not matter."""

    def key(row: Row) -> tuple[Any, ...]:
        return row["created_at"], row["run_id"], row["verdict"] != "unlearn", row["event_date"], row["incident_id"]

    return sorted(given, key=key)


def in_force(given: Iterable[Row], night: dt.date) -> InForce:
    """Return what verdicts say on a night.

    Args:
        given: Rows of `tables.VERDICTS`, in any order; those on incidents of later nights do not apply.
        night: The night.
    """
    reduced = by_incident(row for row in given if row["event_date"] <= night)
    learned: dict[Cell, tuple[Bursts, Row]] = {}
    muted: dict[Cell, tuple[dt.date, Row]] = {}
    for found in reduced.values():
        for cell, bursts in found.learned.items():
            row = found.kind or found.newest
            others, by = learned.get(cell, ((), row))
            learned[cell] = _largest((*bursts, *others)), max(row, by, key=_given_at)
        for cell in found.muted:
            row = found.handling or found.newest
            until, by = muted.get(cell, (row["until"], row))
            muted[cell] = max(row["until"], until), max(row, by, key=_given_at)
    muted = {cell: (until, row) for cell, (until, row) in muted.items() if until >= night}
    own = {incident: found for (date, incident), found in reduced.items() if date == night}
    return InForce(night, own, learned, muted)


def by_incident(given: Iterable[Row]) -> dict[tuple[dt.date, str], OfIncident]:
    """Return the verdicts on every incident, by night and incident id.

    Args:
        given: Rows of `tables.VERDICTS`, in any order.
    """
    found: dict[tuple[dt.date, str], OfIncident] = {}
    for row in in_order(given):
        key = row["event_date"], row["incident_id"]
        if row["verdict"] == "unlearn":
            found[key] = OfIncident(row)
            for other in found.values():
                other.forget(cells_of(row))
        else:
            found.setdefault(key, OfIncident(row)).add(row)
    return found


def cells_of(row: Row) -> set[Cell]:
    """Return the entities of a verdict with its category."""
    return {Cell(entity["kind"], entity["name"], row["category"]) for entity in row["entities"] or ()}


def _bursts(learned: Iterable[Row]) -> dict[Cell, Bursts]:
    found: dict[Cell, list[Burst]] = defaultdict(list)
    for row in learned:
        found[Cell(row["kind"], row["entity"], row["category"])].append(Burst(tuple(row["flagged"]), row["flows"]))
    return {cell: _largest(bursts) for cell, bursts in found.items()}


def entities_of(alerts: Iterable[Row]) -> list[dict[str, Any]]:
    """Return the entities of an incident's alerts for column `entities`, with their flagged flows at the first level.

    Args:
        alerts: Rows of `tables.ALERTS` of one incident.
    """
    flows: dict[tuple[str, str], int] = defaultdict(int)
    for alert in alerts:
        flows[alert["entity_kind"], alert["entity"]] += alert["flagged"][0]
    return [{"kind": kind, "name": name, "flows": n} for (kind, name), n in sorted(flows.items())]


def learned_of(alerts: Iterable[Row]) -> list[dict[str, Any]]:
    """Return what a `benign` verdict learns, for column `learned`: the largest bursts of each entity and category.

    Args:
        alerts: Rows of `tables.ALERTS` of one incident.
    """
    windows = [{**alert, "kind": alert["entity_kind"]} for alert in alerts]
    return [
        {"kind": cell.entity_kind, "entity": cell.entity, "category": cell.category, **burst._asdict()}
        for cell, bursts in sorted(_bursts(windows).items())
        for burst in bursts
    ]


def described(incident: Row) -> str:
    """Return an incident in one line without names of entities, for column `incident` and for notes."""
    counts = {"flow": incident["flows"], "source": incident["sources_found"], "device": incident["devices_found"]}
    parts = [f"{n:,} {what}{'s' * (n != 1)}" for what, n in counts.items() if n]
    return ", ".join([f"{incident['category']} ({incident['severity']})", *parts])


def beside_learned(alerts: pa.Table, in_force: InForce) -> pa.Table:
    """Return alerts with `log10_p_learned`: the p-value beside the windows that `benign` verdicts taught, if larger.

    The rate of such a window is gamma-distributed with shape k + 1/2 and rate n, for its k flagged of n flows at each
    level; the p-value of an alert is the smallest of its levels times their number, as in `false_alarms`. Of several
    windows that with the largest p-value counts. No window explains more than ten times its own flagged flows.

    Args:
        alerts: As `tables.ALERTS`.
        in_force: Verdicts on that night.
    """
    names = ("entity_kind", "entity", "category", "flagged", "flows", "log10_p")
    values = []
    for kind, entity, category, flagged, flows, log10_p in zip(*(alerts[n].to_pylist() for n in names), strict=True):
        bursts, _ = in_force.learned.get(Cell(kind, entity, category), ((), None))
        values.append(max((log10_p, *(_log10_p(flagged, flows, burst) for burst in bursts))))
    at = alerts.schema.get_field_index("log10_p_learned")
    return alerts.set_column(at, alerts.schema.field(at), pa.array(values, pa.float64()))


def _log10_p(flagged: Sequence[int], flows: int, burst: Burst) -> float:
    shape = np.array(burst.flagged) + 0.5
    times = min(flows / max(burst.flows, 1), _MOST_TIMES)
    of_level = false_alarms.reached(np.array(flagged, dtype=np.float64), shape, times * shape)
    return math.log10(min(1.0, float(of_level.min()) * len(shape)))


def apply(
    incidents: pa.Table,
    alerts: pa.Table,
    in_force: InForce,
    alpha: float,
    open_since: Mapping[str, dt.datetime] | None = None,
) -> pa.Table:
    """Return the incidents of a night with `state` and the columns `verdict…`; no incident is removed.

    The first state that applies:

    - `closed`: the incident was closed;
    - `open`: it was called `true`;
    - `muted`: all entities of its alerts are muted in its category;
    - `learned`: it was called `benign`, or no alert of it is significant beside what was learned, unless it was open
      already when that was known;
    - `open`.

    Args:
        incidents: With `incident_id`; columns that it has already are replaced.
        alerts: Of the same night, with `incident_id`, `entity_kind`, `entity`, `category`, `log10_p` and
            `log10_p_learned`. A null in the last one: nothing was learned about that alert.
        in_force: Verdicts on that night.
        alpha: p-value from which a cell is an alert.
        open_since: When a result was made that has an incident as open, by incident id. The α of a later run at the
            date (`looks`) is another one, which closes nothing.
    """
    since = open_since or {}
    ids = incidents["incident_id"].to_pylist()
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    known = _alerts_of(alerts, alpha) if in_force.incidents or in_force.learned or in_force.muted else {}
    for incident in ids:
        state, row, until = _state(in_force, incident, *known.get(incident, (frozenset(), False)), since.get(incident))
        values = (state, *((row[name] if row else None) for name in ("verdict", "owner", "reason")), until)
        for name, value in zip(_COLUMNS, values, strict=True):
            columns[name].append(value)
    return with_columns(incidents, columns)


_COLUMNS: Final = ("state", "verdict", "verdict_owner", "verdict_reason", "verdict_until")


def with_columns(incidents: pa.Table, columns: Mapping[str, Iterable[Any]]) -> pa.Table:
    """Return incidents with columns of `tables.INCIDENTS` added, or replaced where they stand."""
    for name, values in columns.items():
        column, kind = pa.array(values, INCIDENTS.field(name).type), INCIDENTS.field(name)
        at = incidents.schema.get_field_index(name)
        incidents = incidents.append_column(kind, column) if at < 0 else incidents.set_column(at, kind, column)
    return incidents


def _alerts_of(alerts: pa.Table, alpha: float) -> dict[str, tuple[frozenset[Cell], bool]]:
    """Return by incident the cells of its alerts, and whether none is significant beside what was learned."""
    cells: dict[str, set[Cell]] = defaultdict(set)
    significant: set[str] = set()
    limit = math.log10(alpha) + _TOLERANCE
    names = ("incident_id", "entity_kind", "entity", "category", "log10_p", "log10_p_learned")
    for incident, kind, entity, category, p, learned in zip(*(alerts[name].to_pylist() for name in names), strict=True):
        cells[incident].add(Cell(kind, entity, category))
        if learned is None or not learned > max(limit, p + _TOLERANCE):
            significant.add(incident)
    return {incident: (frozenset(found), incident not in significant) for incident, found in cells.items()}


def _state(
    in_force: InForce, incident: str, cells: frozenset[Cell], learned: bool, open_since: dt.datetime | None
) -> tuple[str, Row | None, dt.date | None]:
    """Return the state of an incident, the verdict that explains it, and the last night of a mute."""
    own = in_force.incidents.get(incident)
    kind, handling = (own.kind, own.handling) if own is not None else (None, None)
    if handling is not None and handling["verdict"] == "close":
        return "closed", handling, None
    confirmed = own is not None and own.confirmed
    if cells and cells <= in_force.muted.keys() and not (confirmed and handling is None):
        found = [in_force.muted[cell] for cell in cells]
        return "muted", max((row for _, row in found), key=_given_at), min(until for until, _ in found)
    if confirmed:
        return "open", kind, None
    if own is not None and own.learned and cells <= own.learned.keys():
        return "learned", kind, None
    if learned:
        rows = [in_force.learned[cell][1] for cell in cells & in_force.learned.keys()]
        newest = max(rows, key=_given_at, default=None)
        if open_since is None or (newest is not None and newest["created_at"] > open_since):
            return "learned", newest, None
    return "open", own.newest if own is not None else None, None


def _given_at(row: Row) -> tuple[Any, ...]:
    return row["created_at"], row["run_id"], row["incident_id"]
