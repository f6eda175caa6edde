"""`benign` verdicts on the false lines of one night, and what they change on the next seven.

A hospital with bursts: each night, two devices have false alarms in the same hour. Its nights have the built-in
attacks. The same nights are listed with and without the verdicts; earlier nights inform both alike.
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pyarrow as pa

from ids_spark.alerts import verdicts
from ids_spark.base.arrays import Ints
from ids_spark.score import night_incidents
from ids_spark.score.night_incidents import Levels
from tests.bench import night_method
from tests.bench.night_flows import DATE
from tests.bench.night_measures import Listed, compare, is_false
from tests.bench.night_method import Counted, Ranked
from tests.bench.night_worlds import Hospital, Kind, built_in

KIND: Final = Kind("verdicts", built_in(4), noisy="bursts")
NIGHTS: Final = 7
WITHOUT: Final = "without verdicts"
WITH: Final = "with verdicts"


def nights_after(hospital: Hospital, levels: Levels, budget: float) -> Iterator[dict[str, Listed]]:
    """Yield the nights after the verdicts on the false lines of the first, without and with verdicts.

    `lost` of a night counts lines shown although no alert of them holds more than a window that was learned.
    """
    model = hospital.pool.model
    history: list[pa.Table] = []
    rows: list[dict[str, Any]] = []
    for number in range(NIGHTS + 1):
        date = DATE + dt.timedelta(days=number)
        flows = hospital.night(number + 1)
        counted = night_method.count(flows, model, levels, date)
        ranked = night_method.rank(counted, levels, budget, night_method.earlier(history, date))
        history.append(ranked.found.history)
        if number == 0:
            rows = _verdicts(counted, ranked)
            continue
        with_verdicts, returned = _open_lines(counted, levels, ranked, verdicts.in_force(rows, date))
        yield {
            WITHOUT: compare(flows, ranked.lines),
            WITH: replace(compare(flows, with_verdicts), lost=returned),
        }


def _verdicts(counted: Counted, ranked: Ranked) -> list[dict[str, Any]]:
    """Return a `benign` verdict on each false line, as rows of `tables.VERDICTS`."""
    alerts = ranked.found.alerts.to_pylist()
    rows = []
    shown = ranked.found.incidents.filter(ranked.found.incidents["shown"])
    for incident, line in zip(shown.to_pylist(), ranked.lines, strict=True):
        if is_false(counted.flows, line):
            own = [alert for alert in alerts if alert["incident_id"] == incident["incident_id"]]
            rows.append(
                {
                    "event_date": counted.date,
                    "incident_id": incident["incident_id"],
                    "verdict": "benign",
                    "until": None,
                    "owner": "bench",
                    "reason": "false",
                    "category": incident["category"],
                    "entities": verdicts.entities_of(own),
                    "learned": verdicts.learned_of(own),
                    "incident": "",
                    "run_id": "bench",
                    "created_at": dt.datetime.combine(counted.date, dt.time(12), dt.UTC),
                }
            )
    return rows


def _open_lines(counted: Counted, levels: Levels, ranked: Ranked, in_force: verdicts.InForce) -> tuple[list[Ints], int]:
    """Return the open lines in order of rank, and how many of them hold only what was learned."""
    own, facts = ranked.found, ranked.found.facts
    found, alerts, _ = night_incidents.ranked(
        own.incidents, own.alerts, in_force, facts["alpha"], facts["cells"], night_method.ALERTS.most_lines
    )
    shown = found.filter(found["shown"])["incident_id"].to_pylist()
    learned = dict.fromkeys(shown, True)
    for alert in alerts.to_pylist():
        if alert["incident_id"] in learned:
            learned[alert["incident_id"]] &= _within_learned(alert, in_force)
    return night_method.lines_of(counted, levels, found, alerts), sum(learned.values())


def _within_learned(alert: dict[str, Any], in_force: verdicts.InForce) -> bool:
    cell = verdicts.Cell(alert["entity_kind"], alert["entity"], alert["category"])
    if cell not in in_force.learned:
        return False
    bursts, _ = in_force.learned[cell]
    rates = np.array(alert["flagged"]) / alert["flows"]
    return any(bool((rates <= np.array(burst.flagged) / burst.flows).all()) for burst in bursts)
