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

from ids_spark.alerts import incidents, verdicts
from ids_spark.base.arrays import Ints
from tests.bench import night_method
from tests.bench.night_flows import DATE
from tests.bench.night_measures import Listed, compare, is_false
from tests.bench.night_method import Counted, Nulls, Ranked
from tests.bench.night_worlds import Hospital, Kind, built_in

KIND: Final = Kind("verdicts", built_in(4), noisy="bursts")
NIGHTS: Final = 7
WITHOUT: Final = "without verdicts"
WITH: Final = "with verdicts"


def nights_after(hospital: Hospital, nulls: Nulls, budget: float) -> Iterator[dict[str, Listed]]:
    """Yield the nights after the verdicts on the false lines of the first, without and with verdicts.

    `lost` of a night counts lines shown although no alert of them holds more than a window that was learned.
    """
    model = hospital.pool.model
    history: list[pa.Table] = []
    rows: list[dict[str, Any]] = []
    for number in range(NIGHTS + 1):
        date = DATE + dt.timedelta(days=number)
        flows = hospital.night(number + 1)
        counted = night_method.count(flows, model, nulls, date)
        ranked = night_method.rank(counted, nulls, budget, night_method.earlier(history, date))
        history.append(ranked.tested.history)
        if number == 0:
            rows = _verdicts(counted, ranked)
            continue
        with_verdicts, returned = _open_lines(ranked, verdicts.in_force(rows, date))
        yield {
            WITHOUT: compare(flows, ranked.lines),
            WITH: replace(compare(flows, with_verdicts), lost=returned),
        }


def _verdicts(counted: Counted, ranked: Ranked) -> list[dict[str, Any]]:
    """Return a `benign` verdict on each false line, as rows of `tables.VERDICTS`."""
    alerts = ranked.alerts.to_pylist()
    rows = []
    for incident, line in zip(ranked.incidents.to_pylist(), ranked.lines, strict=True):
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


def _open_lines(ranked: Ranked, in_force: verdicts.InForce) -> tuple[list[Ints], int]:
    """Return the open lines in order of rank, and how many of them hold only what was learned."""
    lines = dict(zip(ranked.incidents["incident_id"].to_pylist(), ranked.lines, strict=True))
    alerts = verdicts.beside_learned(ranked.alerts, in_force)
    found = incidents.rated(ranked.incidents, alerts, ranked.tested.tested)
    found = verdicts.apply(found, alerts, in_force, ranked.tested.alpha)
    learned = dict.fromkeys(lines, True)
    for alert in alerts.to_pylist():
        learned[alert["incident_id"]] &= _within_learned(alert, in_force)
    shown = [row["incident_id"] for row in found.to_pylist() if row["state"] == "open"]
    return [lines[incident] for incident in shown], sum(learned[incident] for incident in shown)


def _within_learned(alert: dict[str, Any], in_force: verdicts.InForce) -> bool:
    cell = verdicts.Cell(alert["entity_kind"], alert["entity"], alert["category"])
    if cell not in in_force.learned:
        return False
    bursts, _ = in_force.learned[cell]
    rates = np.array(alert["flagged"]) / alert["flows"]
    return any(bool((rates <= np.array(burst.flagged) / burst.flows).all()) for burst in bursts)
