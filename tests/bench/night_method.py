"""Incidents of a night by evidence, from scored flows: what a scoring job does between its predictions and its page."""

import datetime as dt
import time
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from ids_spark.alerts import evidence, false_alarms, incidents
from ids_spark.alerts.false_alarms import NightCells, StoredCounts, Tested
from ids_spark.alerts.severity import DEFAULT, category_of
from ids_spark.base.arrays import Ints
from ids_spark.config.score import AlertsConfig
from ids_spark.dataset.tables import ATTRIBUTION, HISTORY
from ids_spark.dataset.taxonomy import BENIGN_ID, CLASS6, CLASSES
from ids_spark.models.artifact import Model
from ids_spark.score.night_incidents import levels_of
from tests.bench.night_flows import DATE, DEVICES, SOURCES, Flows, table

CATEGORIES: Final = CLASS6[BENIGN_ID + 1 :]
_ALERTS: Final = AlertsConfig()
_FILE: Final = "flows-00000.parquet"
_MICROSECONDS: Final = 1_000_000
_CODES: Final = {side: {name: i for i, name in enumerate(names)} for side, names in ((False, DEVICES), (True, SOURCES))}
_WINDOW_S: Final = 60.0 * _ALERTS.window_minutes


@dataclass(frozen=True)
class Nulls:
    """What a model's validation rows say about false alarms of its network, without its second detector.

    Attributes:
        levels: Attack logit of each level of evidence.
        stored: Benign validation rows that reach each, by category.
    """

    levels: tuple[float, ...]
    stored: StoredCounts


def nulls_of(model: Model) -> Nulls:
    """Return thresholds and stored counts of a model."""
    found = levels_of(model)
    at = [found.stored.categories.index(category) for category in CATEGORIES]
    return Nulls(found.logits, StoredCounts(CATEGORIES, found.stored.counts[at], found.stored.rows[at]))


@dataclass(frozen=True)
class Counted:
    """A night as scoring counts it: its flows, evidence and cells."""

    flows: Flows
    flagged: Ints
    categories: Ints
    evidence: pa.Table
    cells: NightCells
    date: dt.date


@dataclass(frozen=True)
class Ranked:
    """Incidents of a night.

    Attributes:
        incidents: As `tables.INCIDENTS`, best first.
        alerts: As `tables.ALERTS`.
        lines: Flows of each incident, in the same order.
        tested: Of the cells.
        seconds: Time to test, join and rank.
    """

    incidents: pa.Table
    alerts: pa.Table
    lines: list[Ints]
    tested: Tested
    seconds: float


def count(flows: Flows, model: Model, nulls: Nulls, date: dt.date = DATE) -> Counted:
    """Count a night as the executors do."""
    names = CLASSES[model.card.classes]
    columns = table(flows, model, date)
    keys = evidence.keys_of(columns, _ALERTS.entities, _ALERTS.sources, _ALERTS.window_minutes, _FILE)
    at = np.flatnonzero(flows.logits >= nulls.levels[0])
    logits = flows.logits[at]
    flagged = evidence.Flagged(
        at=at,
        class_ids=flows.class_ids[at],
        class_names=names,
        levels=np.searchsorted(nulls.levels, logits, side="right").astype(np.int32),
        allowed=np.zeros(len(at), dtype=np.bool_),
        logits=logits,
        probabilities=(1 / (1 + np.exp(-logits))).astype(np.float32),
        scores=logits,
        file=_FILE,
        rows=at,
        attributions=pa.nulls(len(at), pa.list_(ATTRIBUTION)),
    )
    found = evidence.merge_evidence([evidence.evidence(keys, flagged)])
    traffic = evidence.merge_traffic([evidence.traffic(keys)])
    category_ids = {name: CATEGORIES.index(category_of(name)) for name in names[BENIGN_ID + 1 :]}
    cells = false_alarms.cells_of(traffic, found, category_ids)
    of_class = np.array([-1, *(category_ids[name] for name in names[BENIGN_ID + 1 :])])
    return Counted(flows, at, of_class[flows.class_ids[at]], found, cells, date)


def rank(counted: Counted, nulls: Nulls, budget: float, history: pa.Table | None = None) -> Ranked:
    """Test, join and rank the cells of a night; `history` as from `earlier`."""
    started = time.perf_counter()
    own = false_alarms.own_counts(counted.cells, history if history is not None else earlier([]), CATEGORIES)
    tested = false_alarms.compare(counted.cells, nulls.stored, budget, own)
    facts = incidents.NightFacts(
        counted.date,
        "",
        "",
        nulls.levels[0],
        "bench",
        dt.datetime.combine(counted.date, dt.time(), dt.UTC),
        "synthetic",
    )
    found, alerts = incidents.incidents_of(
        counted.cells, tested, counted.evidence, CATEGORIES, _ALERTS.window_minutes, DEFAULT, facts
    )
    seconds = time.perf_counter() - started
    return Ranked(found, alerts, _lines(counted, found, alerts), tested, seconds)


def earlier(nights: list[pa.Table], date: dt.date = DATE) -> pa.Table:
    """Return the history of consecutive nights before a date, the newest last."""
    dates = [date - dt.timedelta(days=len(nights) - i) for i in range(len(nights))]
    dated = [
        night.append_column("event_date", pa.array([day] * len(night), pa.date32()))
        for night, day in zip(nights, dates, strict=True)
    ]
    empty = HISTORY.empty_table().append_column("event_date", pa.array([], pa.date32()))
    return pa.concat_tables([empty, *dated])


def _lines(counted: Counted, found: pa.Table, alerts: pa.Table) -> list[Ints]:
    """Return the flagged flows of each incident: a flow belongs to the more significant of its two alerts."""
    ids = {name: i for i, name in enumerate(found["incident_id"].to_pylist())}
    flows, midnight = counted.flows, int(np.datetime64(str(counted.date), "us").astype(np.int64))
    at = counted.flagged
    windows = (flows.seconds[at] // _WINDOW_S).astype(np.int64)
    best, incident = np.full(len(at), np.inf), np.full(len(at), -1)
    codes = {False: flows.devices[at], True: flows.sources[at]}
    for alert in alerts.select(_OF_ALERT).to_pylist():
        start = int(np.datetime64(alert["window_start"].replace(tzinfo=None), "us").astype(np.int64))
        inside = codes[alert["is_source"]] == _CODES[alert["is_source"]][alert["entity"]]
        inside &= windows == (start - midnight) // int(_WINDOW_S * _MICROSECONDS)
        inside &= counted.categories == CATEGORIES.index(alert["category"])
        p = alert["log10_p"] - 1e-12 * alert["is_source"]  # of equal ones the source, as the list
        better = inside & (p < best)
        best[better], incident[better] = p, ids[alert["incident_id"]]
    return [at[incident == i] for i in range(len(found))]


_OF_ALERT: Final = ["incident_id", "entity", "is_source", "window_start", "category", "log10_p"]
