"""Incidents of nights without flows, and of the first nights of a lake."""

import datetime as dt

import numpy as np

from ids_spark.alerts.false_alarms import StoredCounts
from ids_spark.alerts.incidents import NightFacts
from ids_spark.alerts.life import NightIncidents
from ids_spark.alerts.severity import read_severity_policy
from ids_spark.config.score import AlertsConfig
from ids_spark.dataset.tables import EVIDENCE, TRAFFIC
from ids_spark.score import night_incidents
from ids_spark.score.night_incidents import Earlier, Levels
from tests.support.evidence import STORED, Group, background, counted
from tests.support.incident_rows import alert, tables

NIGHT = dt.date(2026, 11, 24)
LEVELS = Levels(StoredCounts(("DDoS", "Recon"), np.full((2, 3), 4), np.full(2, 4_000)), (1.0, 2.0, 3.0))


def found_of_nothing(earlier: Earlier, date: dt.date) -> night_incidents.FoundIncidents:
    facts = NightFacts(date, "m", "v", 1.0, "run", dt.datetime(2026, 11, 25, tzinfo=dt.UTC), "synthetic")
    traffic, evidence = TRAFFIC.empty_table(), EVIDENCE.empty_table()
    return night_incidents.find(evidence, traffic, LEVELS, AlertsConfig(), read_severity_policy(None), facts, earlier)


def test_a_night_without_flows_has_no_incident() -> None:
    found = found_of_nothing(Earlier(), NIGHT)
    assert (len(found.incidents), len(found.alerts), found.facts["incidents"]) == (0, 0, 0)
    assert found.facts["false_incidents_expected"] == 0


def test_a_night_without_flows_ends_nothing_and_is_no_earlier_night() -> None:
    last = NightIncidents(*tables([alert("scan", "pump-1")]))
    earlier = Earlier(nights={NIGHT - dt.timedelta(days=1): last})
    found = found_of_nothing(earlier, NIGHT)
    assert found.facts["incidents_ended"] == []
    after = earlier.with_night(NIGHT, found)  # also the first of a run on a new lake, without history
    assert list(after.nights) == [NIGHT - dt.timedelta(days=1)]


def test_nights_of_another_model_do_not_say_that_a_device_has_changed() -> None:
    """A device is flagged in 40 of its 100 flows of every hour, after four nights without a flagged flow."""
    rates = Levels(STORED, (1.0, 2.0, 3.0), (1.0, 2.0, 3.0))
    infected = [Group(40, hour, "monitor-03", "192.0.2.103", "DDoS-SYN") for hour in range(24)]
    quiet = background(8, 60)
    tonight, before = (counted(groups) for groups in ([*quiet, *infected], quiet))
    found = {}
    for version in ("v1", "v2"):
        earlier = Earlier()
        for day in range(1, 6):
            facts = NightFacts(dt.date(2026, 3, day), "m", "v2", 1.0, "run", dt.datetime.now(dt.UTC), "synthetic")
            evidence, traffic = tonight if day == 5 else before
            night = night_incidents.find(
                evidence, traffic, rates, AlertsConfig(), read_severity_policy(None), facts, earlier
            )
            earlier = earlier.with_night(facts.event_date, night, {"model": "m", "model_version": version})
        found[version] = night.incidents["flows"].to_pylist()
    assert found == {"v1": [], "v2": [24 * 40]}
