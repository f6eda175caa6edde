"""Incidents of a night from its evidence: tested, joined, compared with earlier nights, with verdicts, ranked.

Scoring calls this for the evidence that it has just counted, `jobs/verdict.py` for that of a stored night. Nothing here
reads flows or predictions.
"""

import datetime as dt
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ids_spark.alerts import (
    false_alarms,
    incidents,
    learning,
    life,
    looks,
    night_cells,
    quarantined,
    ranking,
    verdicts,
)
from ids_spark.alerts.false_alarms import StoredCounts
from ids_spark.alerts.incidents import NightFacts
from ids_spark.alerts.known_devices import KnownDevices
from ids_spark.alerts.learning import Learning
from ids_spark.alerts.life import NightIncidents
from ids_spark.alerts.looks import Look
from ids_spark.alerts.quarantined import Refusals
from ids_spark.alerts.severity import SeverityPolicy, category_of
from ids_spark.alerts.verdicts import InForce
from ids_spark.base.arrays import Ints
from ids_spark.config.score import AlertsConfig
from ids_spark.dataset.features import SchemaMismatch
from ids_spark.dataset.tables import HISTORY, TABLES
from ids_spark.dataset.taxonomy import UNKNOWN
from ids_spark.lake.store import Lake
from ids_spark.models.artifact import Model
from ids_spark.models.threshold import RATES, ValidationScores

log = logging.getLogger(__name__)

HISTORY_NIGHTS: Final = 28
"""Dates before a night whose `entity_history/` is used."""
_DATED: Final = HISTORY.append(pa.field("event_date", pa.date32()))
Row = dict[str, Any]


@dataclass(frozen=True)
class Levels:
    """What a model says of false alarms.

    Attributes:
        stored: Benign validation rows that reach each level.
        logits: Attack logits of the levels, ascending.
        distances: Of the second detector; empty without one.
    """

    stored: StoredCounts
    logits: tuple[float, ...]
    distances: tuple[float, ...] = ()

    def threshold(self, category: str, level: int) -> float:
        """Return what the level of a category compares with: an attack logit, or a distance."""
        return (self.distances if category == UNKNOWN else self.logits)[level]


@dataclass(frozen=True)
class Earlier:
    """What is known before a night is tested.

    Attributes:
        history: Rows of `entity_history/` of earlier nights, with their `event_date`.
        nights: Incidents of earlier nights.
        given: All verdicts.
    """

    history: pa.Table = field(default_factory=_DATED.empty_table)
    nights: Mapping[dt.date, NightIncidents] = field(default_factory=dict)
    given: Sequence[Mapping[str, Any]] = ()

    def with_night(
        self,
        date: dt.date,
        found: "FoundIncidents",
        champion: Mapping[str, Any] = MappingProxyType({}),
        devices: Ints | None = None,
    ) -> "Earlier":
        """Return the same with a night that this run has scored, in place of what the lake holds of that date.

        Args:
            date: The night.
            found: Its incidents.
            champion, devices: As in `life.NightIncidents`.
        """
        kept = self.history.filter(pc.not_equal(self.history["event_date"], pa.scalar(date)))
        own = _dated(found.history, date)
        nights = {day: night for day, night in self.nights.items() if day != date}
        if found.facts["cells"]:  # without flows the night ends nothing
            own_incidents, own_alerts = found.incidents.select(life.COLUMNS), found.alerts.select(life.ALERT_COLUMNS)
            nights[date] = NightIncidents(own_incidents, own_alerts, champion, devices)
        return Earlier(pa.concat_tables([kept, own]), nights, self.given)


@dataclass(frozen=True)
class FoundIncidents:
    """The incidents of a night.

    Attributes:
        incidents: As `tables.INCIDENTS`, in order.
        alerts: As `tables.ALERTS`.
        history: As `tables.HISTORY`: what this night adds.
        facts: Columns of `tables.NIGHTS` on them, by name.
    """

    incidents: pa.Table
    alerts: pa.Table
    history: pa.Table
    facts: Mapping[str, Any]


def levels_of(model: Model) -> Levels:
    """Return the levels of evidence of a model.

    Raises:
        ValueError: the model has no validation scores; the scoring context refuses such a model.
    """
    scores, names = model.validation_scores, model.card.class_names
    if scores is None:
        raise ValueError(f"{model.card.name} has no validation scores")
    logits = scores.levels()
    of_class = scores.benign_counts(logits)
    categories = tuple(dict.fromkeys(category_of(name) for name in names[1:]))
    if scores.classes_known:
        counts = [of_class[[category_of(name) == category for name in names]].sum(axis=0) for category in categories]
    else:  # a model of version 0.2: each category may have all of them
        counts = [of_class.sum(axis=0)] * len(categories)
    rows = [scores.benign_rows] * len(categories)
    distances: tuple[float, ...] = ()
    if model.novelty is not None:
        at = model.novelty.levels(RATES)
        categories, rows, distances = (*categories, UNKNOWN), [*rows, model.novelty.rows], tuple(at.tolist())
        counts.append(model.novelty.counts(at))
    # Blocks of the data set are runs of rows: they do not tell how rates differ between devices.
    local = scores.local is not None and scores.blocks
    blocks = _blocks_of(scores, logits, names, categories) if local else None
    return Levels(StoredCounts(categories, np.array(counts), np.array(rows), blocks), logits, distances)


def _blocks_of(
    scores: ValidationScores, logits: Sequence[float], names: Sequence[str], categories: Sequence[str]
) -> tuple[Ints, Ints]:
    """Return the counts of each block of local rows, shape (B, G, L), and its rows, shape (B,)."""
    of_class = scores.block_counts(logits)
    counts = np.zeros((len(of_class), len(categories), len(logits)), dtype=np.int64)
    for g, category in enumerate(categories):
        if category == UNKNOWN:
            counts[:, g] = [block.unknown or (0,) * len(logits) for block in scores.blocks]
        else:
            counts[:, g] = of_class[:, [category_of(name) == category for name in names]].sum(axis=1)
    return counts, np.array([block.rows for block in scores.blocks])


def earlier_of(lake: Lake, date: dt.date) -> Earlier:
    """Read what the lake holds of the nights before a date, and all verdicts."""
    parts = [_DATED.empty_table()]
    for day in (date - dt.timedelta(days=i) for i in range(1, HISTORY_NIGHTS + 1)):
        try:
            parts.append(_dated(lake.read("entity_history", event_date=day), day))
        except SchemaMismatch as error:
            log.warning("history skips an earlier night date=%s error=%s", day, error)
    return Earlier(pa.concat_tables(parts), life.earlier_nights(lake, date), verdicts.read(lake))


def find(
    evidence: pa.Table,
    traffic: pa.Table,
    levels: Levels,
    alerts: AlertsConfig,
    policy: SeverityPolicy,
    night: NightFacts,
    earlier: Earlier,
    learns: Learning | None = None,
    known: KnownDevices | None = None,
    refusals: Refusals | None = None,
    look: Look | None = None,
) -> FoundIncidents:
    """Return the incidents of a night.

    Args:
        evidence: As `tables.EVIDENCE`, merged.
        traffic: As `tables.TRAFFIC`, merged.
        levels: Of the model.
        alerts: Budget, most lines, length of windows.
        policy: Severities.
        night: Values common to all incidents.
        earlier: Earlier nights, of which later dates are not used, and verdicts.
        learns: Whether the site and which devices are learning; default: none.
        known: Devices of the inventory; default: none.
        refusals: Refused rows of the night; default: none.
        look: Which run at the date this is; default: the only one.
    """
    look = look or Look()
    categories = levels.stored.categories
    index = {name: i for i, name in enumerate(categories)}
    classes = evidence["class_name"].unique().to_pylist()
    cells = night_cells.cells_of(traffic, evidence, {name: index[category_of(name)] for name in classes})
    of_runs = looks.decided(cells, categories, look)
    before = pc.less(earlier.history["event_date"], pa.scalar(night.event_date))
    types = None if known is None else known.types(alerts.entities)
    history = earlier.history.filter(before)
    own = night_cells.own_counts(cells, history, categories, types)
    same_model = pc.is_in(history["event_date"], pa.array(_nights_of(night, earlier), pa.date32()))
    settled = night_cells.own_counts(cells, history.filter(same_model), categories)
    in_force = verdicts.in_force(earlier.given, night.event_date)
    budget = alerts.false_incidents
    tested = false_alarms.compare(
        cells,
        levels.stored,
        budget,
        own,
        decided=of_runs,
        allowed=look.allowed(budget),
        again=look.last,
        settled=settled,
    )
    tested = replace(tested, alpha=look.alpha(tested.alpha, of_runs.fresh))
    found, own_alerts = incidents.incidents_of(
        cells, tested, evidence, categories, alerts.window_minutes, policy, night, known
    )
    refusals = refusals or Refusals()
    of_refused = quarantined.found(refusals, tested.alpha, alerts, policy, night, known, look)
    found, own_alerts = pa.concat_tables([found, of_refused[0]]), pa.concat_tables([own_alerts, of_refused[1]])
    cells_tested = tested.tested + of_refused[2]
    found, ended = life.compare(night.event_date, found, own_alerts, earlier.nights)
    decided = verdicts.by_incident(earlier.given).items()
    confirmed = {incident for (_, incident), own_verdicts in decided if own_verdicts.confirmed}
    differing = learning.differing(categories, tested.stored, tested.used)
    found = learning.marked(found, learns or Learning(), confirmed, differing)
    found = looks.with_earlier(found, look)
    standing = None if look.before is None else look.before.incidents
    found, own_alerts, counts = ranked(
        found, own_alerts, in_force, tested.alpha, cells_tested, alerts.most_lines, standing
    )
    facts = {
        **counts,
        # Until the date is over, what has not been seen again may still come.
        "incidents_ended": ended if cells_tested and not look.partial else [],
        "false_incidents": budget,
        "false_incidents_expected": look.spent + tested.expected_false,
        "alpha": tested.alpha,
        "cells": cells_tested,
        "false_alarm_rates": _rates(levels, tested),
    }
    return FoundIncidents(found, own_alerts, quarantined.without_imputed(tested.history, refusals), facts)


def ranked(
    found: pa.Table,
    alerts: pa.Table,
    in_force: InForce,
    alpha: float,
    cells: int,
    most_lines: int,
    stored: pa.Table | None = None,
) -> tuple[pa.Table, pa.Table, dict[str, Any]]:
    """Return incidents in order and alerts, both with what verdicts and learning say, and columns of `tables.NIGHTS`.

    Args:
        found: As `tables.INCIDENTS`, with `learning`.
        alerts: Their alerts, as `tables.ALERTS`.
        in_force: Verdicts on that night.
        alpha: p-value from which a cell is an alert.
        cells: Number of cells tested.
        most_lines: Most incidents that are shown.
        stored: Incidents of the stored result of the night, with `looks.COLUMNS`; only a verdict given since closes one
            that is open there.
    """
    since = None if stored is None else ranking.open_since(stored)
    alerts = verdicts.beside_learned(alerts, in_force)
    found = verdicts.apply(incidents.rated(found, alerts, cells), alerts, in_force, alpha, since)
    found = ranking.rank(learning.apply(found, alpha), most_lines)
    states = found["state"].to_pylist()
    counts = {
        "incidents": states.count(ranking.OPEN),
        "incidents_shown": sum(found["shown"].to_pylist()),
        **{f"incidents_{state}": states.count(state) for state in ("muted", "learned", "closed", "learning")},
        "incidents_not_shown": ranking.not_shown(found),
    }
    return found, alerts, counts


def _nights_of(night: NightFacts, earlier: Earlier) -> list[dt.date]:
    """Return the earlier nights whose champion was the model of a night, in the same version."""
    model = (night.model, night.model_version)
    nights = earlier.nights.items()
    return [day for day, each in nights if (each.champion.get("model"), each.champion.get("model_version")) == model]


def _rates(levels: Levels, tested: false_alarms.Tested) -> list[Row]:
    """Return one row for each category and level; rates that are unknown are null."""
    return [
        {
            "category": category,
            "rate": RATES[level],
            "threshold_logit": levels.threshold(category, level),
            "reached": int(levels.stored.counts[g, level]),
            "benign_rows": int(levels.stored.rows[g]),
            **{
                name: float(rate) if np.isfinite(rate) else None
                for name, rate in (
                    ("stored", tested.stored[g, level]),
                    ("tonight", tested.tonight[g, level]),
                    ("used", tested.used[g, level]),
                )
            },
        }
        for g, category in enumerate(levels.stored.categories)
        for level in range(len(RATES))
    ]


def _dated(history: pa.Table, date: dt.date) -> pa.Table:
    rows = history.select(TABLES["entity_history"].contract.names)
    return rows.append_column(_DATED.field("event_date"), pa.array([date] * len(rows), pa.date32()))
