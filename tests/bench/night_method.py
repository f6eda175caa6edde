"""Incidents of a night by evidence, from scored flows: what a scoring job does between its predictions and its page."""

import datetime as dt
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from ids_spark.alerts import evidence
from ids_spark.alerts.incidents import NightFacts
from ids_spark.alerts.looks import Look
from ids_spark.alerts.severity import DEFAULT, category_of
from ids_spark.base.arrays import Ints
from ids_spark.config.score import AlertsConfig
from ids_spark.dataset.tables import ATTRIBUTION
from ids_spark.dataset.taxonomy import BENIGN_ID, CLASSES, UNKNOWN
from ids_spark.models.artifact import Model
from ids_spark.score import night_incidents
from ids_spark.score.night_incidents import Earlier, FoundIncidents, Levels
from tests.bench.night_flows import DATE, DEVICES, SOURCES, Flows, table

ALERTS: Final = AlertsConfig()
_FILE: Final = "flows-00000.parquet"
_MICROSECONDS: Final = 1_000_000
_CODES: Final = {side: {name: i for i, name in enumerate(names)} for side, names in ((False, DEVICES), (True, SOURCES))}
_WINDOW_S: Final = 60.0 * ALERTS.window_minutes


@dataclass(frozen=True)
class Counted:
    """A night as scoring counts it: its flows, flagged ones with their categories, and tables of counts."""

    flows: Flows
    flagged: Ints
    categories: Ints
    evidence: pa.Table
    traffic: pa.Table
    date: dt.date


@dataclass(frozen=True)
class Ranked:
    """Incidents of a night.

    Attributes:
        found: Incidents, best first, and their alerts.
        lines: Flows of each incident that is shown, in the same order.
        seconds: Time to test, join and rank.
    """

    found: FoundIncidents
    lines: list[Ints]
    seconds: float

    @property
    def promised(self) -> float:
        """Expected false lines that the list states."""
        return float(self.found.facts["false_incidents_expected"])


def levels_reached(flows: Flows, levels: Levels) -> Ints:
    """Return the highest level of evidence that each flow reaches, from 1, by logit or else by distance; 0: none."""
    found: Ints = np.searchsorted(levels.logits, flows.logits, side="right")
    if levels.distances:
        below = found == 0
        found[below] = np.searchsorted(levels.distances, flows.distances[below], side="right")
    return found


def count(flows: Flows, model: Model, levels: Levels, date: dt.date = DATE) -> Counted:
    """Count a night as the executors do."""
    names = (*CLASSES[model.card.classes], UNKNOWN)
    columns = table(flows, model, date)
    keys = evidence.keys_of(columns, ALERTS.entities, ALERTS.sources, ALERTS.window_minutes, _FILE)
    reached = levels_reached(flows, levels)
    at = np.flatnonzero(reached)
    logits = flows.logits[at]
    unknown = logits < levels.logits[0]
    class_ids = np.where(unknown, len(names) - 1, flows.class_ids[at]).astype(np.int32)
    flagged = evidence.Flagged(
        at=at,
        class_ids=class_ids,
        class_names=names,
        levels=reached[at].astype(np.int32),
        allowed=np.zeros(len(at), dtype=np.bool_),
        logits=logits,
        probabilities=(1 / (1 + np.exp(-logits))).astype(np.float32),
        scores=np.where(unknown, flows.distances[at], logits),
        file=_FILE,
        rows=at,
        attributions=pa.nulls(len(at), pa.list_(ATTRIBUTION)),
    )
    categories = levels.stored.categories
    of_class = [-1, *(_index(categories, category_of(name)) for name in names[BENIGN_ID + 1 :])]
    return Counted(
        flows,
        at,
        np.array(of_class)[class_ids],
        evidence.merge_evidence([evidence.evidence(keys, flagged)]),
        evidence.merge_traffic([evidence.traffic(keys)]),
        date,
    )


def rank(
    counted: Counted, levels: Levels, budget: float, before: Earlier | None = None, look: Look | None = None
) -> Ranked:
    """Test, join and rank the cells of a night, or of its part until a look."""
    started = time.perf_counter()
    noon = dt.datetime.combine(counted.date, dt.time(12), dt.UTC)
    facts = NightFacts(counted.date, "", "", levels.logits[0], "bench", noon, "synthetic")
    alerts = ALERTS.model_copy(update={"false_incidents": budget})
    known = before or Earlier()
    found = night_incidents.find(counted.evidence, counted.traffic, levels, alerts, DEFAULT, facts, known, look=look)
    seconds = time.perf_counter() - started
    return Ranked(found, lines_of(counted, levels, found.incidents, found.alerts), seconds)


def earlier(nights: Sequence[pa.Table], date: dt.date = DATE, given: Sequence[Mapping[str, Any]] = ()) -> Earlier:
    """Return what is known from the histories of consecutive nights before a date, the newest last, and verdicts."""
    dates = [date - dt.timedelta(days=len(nights) - i) for i in range(len(nights))]
    dated = [
        night.append_column("event_date", pa.array([day] * len(night), pa.date32()))
        for night, day in zip(nights, dates, strict=True)
    ]
    return Earlier(history=pa.concat_tables([Earlier().history, *dated]), given=given)


def lines_of(counted: Counted, levels: Levels, found: pa.Table, alerts: pa.Table) -> list[Ints]:
    """Return the flagged flows of each incident shown: a flow belongs to the alert of its source, else its device."""
    ids = {name: i for i, name in enumerate(found["incident_id"].to_pylist())}
    flows, midnight = counted.flows, int(np.datetime64(str(counted.date), "us").astype(np.int64))
    at = counted.flagged
    windows = (flows.seconds[at] // _WINDOW_S).astype(np.int64)
    incident = np.full(len(at), -1)
    codes = {False: flows.devices[at], True: flows.sources[at]}
    for alert in alerts.select(_OF_ALERT).to_pylist():
        start = int(np.datetime64(alert["window_start"].replace(tzinfo=None), "us").astype(np.int64))
        inside = codes[alert["is_source"]] == _CODES[alert["is_source"]][alert["entity"]]
        inside &= windows == (start - midnight) // int(_WINDOW_S * _MICROSECONDS)
        inside &= counted.categories == levels.stored.categories.index(alert["category"])
        better = inside & (incident < 0) if not alert["is_source"] else inside
        incident[better] = ids[alert["incident_id"]]
    shown = found["shown"].to_pylist()
    return [at[incident == i] for i in range(len(found)) if shown[i]]


def _index(categories: Sequence[str], category: str) -> int:
    """Return the index of a category; -1 for the unknown one if the model has no second detector."""
    return categories.index(category) if category in categories else -1


_OF_ALERT: Final = ["incident_id", "entity", "is_source", "window_start", "category"]
