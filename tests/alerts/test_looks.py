"""Several runs at one date: which look a time is, what each may spend, and what stays as it was."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ids_spark.alerts import looks, quarantined
from ids_spark.alerts.joining import joined
from ids_spark.alerts.looks import ALERT_COLUMNS, COLUMNS, Before, Look
from ids_spark.alerts.night_cells import Decided, NightCells, cells_of
from ids_spark.alerts.quarantined import Refusals
from ids_spark.alerts.severity import DEFAULT, category_of
from ids_spark.config.score import AlertsConfig
from ids_spark.dataset.taxonomy import UNKNOWN
from ids_spark.lake.store import Lake
from ids_spark.score import night_incidents
from ids_spark.score.night_incidents import Earlier, FoundIncidents, Levels
from tests.support.evidence import CATEGORIES, FACTS, NIGHT, STORED, Group, background, counted

LEVELS = Levels(STORED, (4.5, 6.0, 7.0), (8.0, 9.0, 10.0))
MIDNIGHT = dt.datetime.combine(NIGHT, dt.time(), dt.UTC)
HOUR = dt.timedelta(hours=1)
SCAN, FLOOD = "Recon-Port_Scan", "DDoS-SYN"
ATTACKER = "198.51.100.9"


@dataclass
class Day:
    """Runs at a date, each with the groups of flows that it is given."""

    budget: float = 1.0
    of: int = 24
    before: Before | None = None
    given: Sequence[dict[str, Any]] = ()
    runs: list[FoundIncidents] = field(default_factory=list)

    def run(self, hour: int, groups: Sequence[Group]) -> FoundIncidents:
        """Score the flows as at an hour of the date."""
        look = looks.look_of(NIGHT, MIDNIGHT + hour * HOUR, self.of, self.before)
        evidence, traffic = counted(groups)
        alerts = AlertsConfig(false_incidents=self.budget)
        found = night_incidents.find(
            evidence, traffic, LEVELS, alerts, DEFAULT, FACTS, Earlier(given=self.given), look=look
        )
        self.before = Before(
            look.number / look.of,
            found.facts["false_incidents_expected"],
            found.facts["alpha"],
            traffic,
            evidence,
            found.incidents.select(COLUMNS),
            found.alerts.select(ALERT_COLUMNS),
            look.of,
        )
        self.runs.append(found)
        return found


def until(hour: int, groups: Sequence[Group]) -> list[Group]:
    return [group for group in groups if group.hour is not None and group.hour < hour]


def rows(found: FoundIncidents) -> dict[str, dict[str, Any]]:
    return {row["category"]: row for row in found.incidents.to_pylist()}


@pytest.mark.parametrize(
    ("hours", "looks_of_date", "number", "partial"),
    [(-5, 24, 1, True), (0.1, 24, 1, True), (7.1, 24, 7, True), (23.9, 24, 23, True), (24, 24, 24, False),
     (70, 24, 24, False), (7.1, 4, 1, True), (12, 4, 2, True), (3, 1, 1, False)],
)  # fmt: skip
def test_the_look_is_the_last_part_of_the_date_that_is_over(
    hours: float, looks_of_date: int, number: int, partial: bool
) -> None:
    look = looks.look_of(NIGHT, MIDNIGHT + hours * HOUR, looks_of_date)
    assert (look.number, look.partial) == (number, partial)


def test_looks_spend_the_budget_by_time_and_what_is_left_later() -> None:
    def allowed(number: int, spent: float, part: float = 0.0) -> float:
        return Look(number, 4, None, Before(part, spent, 1e-4)).allowed(2.0)

    assert Look(1, 4).allowed(2.0) == pytest.approx(0.45)  # 0.9 · 2 / 4
    assert allowed(2, 0.1, 0.25) == pytest.approx(0.8)  # 0.9 · 2 · 2 / 4 - 0.1
    assert allowed(2, 1.2, 0.25) == 0.0
    assert allowed(4, 0.8, 0.75) == pytest.approx(1.0)
    assert allowed(4, 1.8, 1.0) == pytest.approx(0.1)  # late flows: half of what is left
    assert allowed(4, 1.9, 1.0) == pytest.approx(0.05)
    assert Look().allowed(2.0) == 2.0


def test_a_run_that_is_told_of_one_look_continues_those_of_the_date() -> None:
    groups, day = [*background(), Group(60, 3, "pump-01", ATTACKER, SCAN)], Day()
    first = day.run(4, until(4, groups))
    day.of = 1  # repeated by hand, with the line of a site that scores a date once
    again = day.run(24, groups)
    assert again.incidents["incident_id"].to_pylist() == first.incidents["incident_id"].to_pylist()
    assert first.facts["false_incidents_expected"] < again.facts["false_incidents_expected"] <= 1
    once = looks.look_of(NIGHT, MIDNIGHT + 30 * HOUR, 1, Before(1, 0.8, 1e-4))
    assert (once.of, once.before, once.allowed(1.0)) == (1, None, 1.0)


def stored_looks(lake: Lake, **more: Any) -> None:
    columns = {"run_of_night": 6, "runs_per_night": 24, "false_incidents_expected": 0.2, "alpha": 1e-5}
    row = {"run_id": "r", "role": "champion", "model": "m", "model_version": "1", **columns, **more}
    lake.write("nights", [row], event_date=NIGHT)


def test_another_champion_continues_the_budget_of_a_date_and_not_its_incidents(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    assert looks.read(lake, NIGHT, "m", "1", 24) is None
    stored_looks(lake)
    for version, alpha in (("1", 1e-5), ("2", 0.0)):
        for configured in (1, 24):
            before = looks.read(lake, NIGHT, "m", version, configured)
            assert before is not None
            assert (before.part, before.spent, before.alpha, before.of) == (0.25, 0.2, alpha, 24)
    stored_looks(lake, run_of_night=1, runs_per_night=1)
    assert looks.read(lake, NIGHT, "m", "1", 1) is None


def test_the_shares_of_all_looks_add_up_to_one_however_many_there_are() -> None:
    before, total = None, 0.0
    for number, of in [(3, 24), (3, 24), (7, 24), (2, 4), (13, 24), (4, 4), (24, 24), (24, 24)]:
        total += Look(number, of, None, before).share
        before = Before(number / of, 0.0, 1e-4)
    assert total == pytest.approx(1)
    assert Look(24, 24, None, before).share == 0
    assert Look().share == 1


@pytest.mark.parametrize("seed", range(20))
def test_the_sum_over_looks_is_at_most_the_budget_whatever_each_needs(seed: int) -> None:
    rng, before, spent = np.random.default_rng(seed), None, 0.0
    for number in [*range(1, 25), 24, 24, 24]:
        spent += Look(number, 24, None, before).allowed(1.0) * rng.choice([0.0, 1.0, rng.random()])
        before = Before(number / 24, spent, 1e-4)
        assert spent <= 1.0
    assert spent > 0


def test_an_incident_keeps_id_and_time_while_it_grows_and_a_run_without_new_flows_changes_nothing() -> None:
    attack = [
        Group(20, 3, "pump-01", ATTACKER, SCAN),
        *(Group(80, hour, ["pump-01", "pump-02"], ATTACKER, SCAN) for hour in (4, 5)),
        Group(400, 9, "monitor-03", "198.51.100.77", FLOOD),
    ]
    groups, day = [*background(), *attack], Day()
    first = rows(day.run(4, until(4, groups)))["Recon"]
    later = rows(day.run(6, until(6, groups)))["Recon"]
    assert later["incident_id"] == first["incident_id"]
    assert (later["flows"], first["flows"]) == (180, 20)
    assert later["lead_window"] > first["lead_window"]  # so alone it would have another id
    assert later["listed_at"] == first["listed_at"] == MIDNIGHT + 4 * HOUR
    found = day.run(24, groups)
    assert rows(found)["DDoS"]["listed_at"] == MIDNIGHT + 24 * HOUR
    again = day.run(30, groups)
    assert again.incidents.equals(found.incidents)
    assert again.facts == found.facts
    spent = [run.facts["false_incidents_expected"] for run in day.runs]
    assert spent == sorted(spent)
    assert 0 < spent[-1] <= 1.0


def test_what_was_listed_stays_listed_if_rates_change() -> None:
    # Six flows of a quiet hour are an alert. Later every device shows as many, so that alone they would be none.
    attack, common = (
        [Group(7, 1, "pump-01", ATTACKER, SCAN)],
        [Group(25, hour, f"monitor-{i:02d}", f"192.0.2.{100 + i}", SCAN) for i in range(20) for hour in range(4, 24)],
    )
    groups, day = [*background(), Group(400, 1, "pump-01", ATTACKER), *attack, *common], Day()
    first = rows(day.run(2, until(2, groups)))["Recon"]
    last = day.run(24, groups)
    assert first["incident_id"] in last.incidents["incident_id"].to_pylist()
    once = Day(of=1).run(24, groups)
    assert first["incident_id"] not in once.incidents["incident_id"].to_pylist()


def test_a_smaller_alpha_makes_nothing_learned_that_is_listed_as_open_and_a_new_verdict_does() -> None:
    groups = [*background(), Group(156, 2, "pump-01", ATTACKER), Group(44, 2, "pump-01", ATTACKER, SCAN)]
    names = {"device_id": "pump-01", "src_ip": ATTACKER}
    learned = [
        {"kind": kind, "entity": name, "category": "Recon", "flagged": [10, 10, 10], "flows": 200}
        for kind, name in names.items()
    ]
    verdict = {
        "event_date": NIGHT - dt.timedelta(days=3), "incident_id": "ab" * 16, "verdict": "benign", "category": "Recon",
        "entities": [{"kind": kind, "name": name, "flows": 10} for kind, name in names.items()], "learned": learned,
        "until": None, "owner": "A", "reason": "known", "run_id": "r", "created_at": FACTS.created_at - HOUR,
    }  # fmt: skip
    day = Day(given=[verdict])
    first = day.run(3, until(3, groups))
    assert day.before is not None
    assert rows(first)["Recon"]["state"] == "open"
    day.before = replace(day.before, spent=1.0)  # nothing is left, so that alpha is the smallest one
    before, last = day.before, day.run(5, until(5, groups))
    beside = min(row["log10_p_learned"] for row in last.alerts.to_pylist())
    assert np.log10(last.facts["alpha"]) < beside < np.log10(first.facts["alpha"])
    assert rows(last)["Recon"]["state"] == "open"
    later = {**verdict, "incident_id": "cd" * 16, "created_at": FACTS.created_at + HOUR}
    assert rows(Day(before=before, given=[verdict, later]).run(5, until(5, groups)))["Recon"]["state"] == "learned"


def test_the_last_look_tests_everything_once_more_with_what_is_left() -> None:
    # In the first hours false alarms are frequent everywhere, so that nine of a pump are nothing; later there are none.
    noise = [Group(4, hour, f"monitor-{i:02d}", f"192.0.2.{100 + i}", SCAN, 1) for i in range(20) for hour in range(2)]
    pump = [Group(200, 1, "pump-01", ATTACKER), Group(9, 1, "pump-01", ATTACKER, SCAN, 1)]
    groups, day = [*background(), *noise, *pump], Day()
    early = [day.run(hour, until(hour, groups)) for hour in (2, 12, 23)]
    assert [len(found.incidents) for found in early] == [0, 0, 0]
    last, once = day.run(24, groups), Day(of=1).run(24, groups)
    assert last.alerts["entity"].to_pylist() == once.alerts["entity"].to_pylist() == [ATTACKER, "pump-01"]
    spent = [found.facts["false_incidents_expected"] for found in (early[-1], last, once)]
    assert spent[0] + spent[2] == pytest.approx(spent[1], rel=0.1)
    assert day.run(30, groups).incidents.equals(last.incidents)


def test_only_places_whose_counts_have_changed_are_tested() -> None:
    early = [*background(3), Group(30, 3, "pump-01", ATTACKER, SCAN)]
    evidence, traffic = counted(until(6, early))
    before = Before(0.25, 0.1, 1e-4, traffic, evidence)
    late = [*until(7, early), Group(2, 3, "monitor-01", "192.0.2.101", SCAN), Group(1, 5, "monitor-02", "192.0.2.102")]
    cells = _cells(late)
    found = looks.decided(cells, CATEGORIES, Look(7, 24, None, before))
    hours = (cells.window // 3_600_000_000) % 24
    changed = sorted(zip(hours[found.fresh].tolist(), cells.flows[found.fresh].tolist(), strict=True))
    assert changed == [(3, 202)] * 2 + [(5, 201)] * 2 + [(6, 200)] * 6  # devices and sources
    assert looks.decided(_cells(until(6, early)), CATEGORIES, Look(7, 24, None, before)).fresh.sum() == 0


def test_equal_flows_with_other_flagged_ones_are_tested_again() -> None:
    plain = [*background(3), Group(5, 3, "pump-01", ATTACKER, SCAN), Group(5, 3, "pump-01", ATTACKER)]
    evidence, traffic = counted(plain)
    for other in (
        [*background(3), Group(6, 3, "pump-01", ATTACKER, SCAN), Group(4, 3, "pump-01", ATTACKER)],
        [*background(3), Group(10, 3, "pump-01", ATTACKER)],
        [*background(3), Group(5, 3, "pump-01", ATTACKER, FLOOD), Group(5, 3, "pump-01", ATTACKER)],
        [*background(3), Group(5, 3, "pump-01", ATTACKER, SCAN, level=2), Group(5, 3, "pump-01", ATTACKER)],
    ):
        fresh = looks.decided(
            _cells(other), CATEGORIES, Look(5, 24, None, Before(0.1, 0, 1e-4, traffic, evidence))
        ).fresh
        assert fresh.sum() == 2  # the pump and its attacker


@pytest.mark.parametrize("first", [[], background()], ids=["no flow", "no flagged flow"])
def test_after_a_look_that_has_found_nothing_everything_is_tested(first: list[Group]) -> None:
    groups, day = [*background(), Group(60, 5, "pump-01", ATTACKER, SCAN)], Day()
    assert len(day.run(4, until(4, first)).incidents) == 0
    later = day.run(6, until(6, groups))
    assert len(later.incidents) == 1
    assert later.alerts["entity"].to_pylist() == Day().run(6, until(6, groups)).alerts["entity"].to_pylist()
    assert day.run(8, until(6, groups)).incidents.equals(later.incidents)


def test_two_listed_incidents_stay_two_and_get_the_new_alerts_of_their_entities() -> None:
    def scan(hour: int, device: str, source: str, flows: int = 40) -> Group:
        return Group(flows, hour, device, source, SCAN)

    early = [*background(), scan(2, "pump-01", "198.51.100.1"), scan(2, "pump-02", "198.51.100.2", 60)]
    bridge = [
        scan(3, "pump-01", "198.51.100.1"),
        scan(3, "pump-01", "198.51.100.2", 60),
        scan(4, "pump-02", "198.51.100.2"),
    ]
    day = Day()
    first = day.run(3, until(3, early)).incidents.to_pylist()
    assert len(first) == 2
    last = day.run(24, [*early, *bridge]).incidents.to_pylist()
    assert {row["incident_id"] for row in last} == {row["incident_id"] for row in first}
    assert sum(row["flows"] for row in last) == 240
    assert len(Day(of=1).run(24, [*early, *bridge]).incidents) == 1


def test_a_listed_incident_without_flows_of_its_own_is_part_of_the_other() -> None:
    groups = [*background(), Group(60, 2, "pump-01", ATTACKER, SCAN)]
    evidence, _ = counted(groups)
    cells = _cells(groups)
    chosen = np.flatnonzero(cells.flagged[:, 0] >= 60)
    incident, of_evidence = joined(cells, chosen, evidence, 60, np.array([0, 1]))
    assert incident.tolist() == [0, 0]
    assert of_evidence.max() == 0


def test_a_listed_incident_of_refused_rows_stays_with_its_id() -> None:
    """Also if the shares of later hours would no longer make one of it."""
    early = [*background(), Group(30, 3, "monitor-07", ATTACKER, UNKNOWN, level=1)]
    later = [Group(8, hour, f"monitor-{i:02d}", f"192.0.2.{100 + i}", UNKNOWN, level=1) for i in range(20)
             for hour in range(4, 20)]  # fmt: skip
    alerts = AlertsConfig()

    def run(groups: Sequence[Group], look: Look) -> tuple[pa.Table, pa.Table]:
        rows, traffic = counted(groups)
        return quarantined.found(Refusals(rows, traffic), 1e-4, alerts, DEFAULT, FACTS, None, look)[:2]

    first, own = run(until(4, early), Look(4, 24))
    assert len(first) == 1
    before = Before(4 / 24, 0.0, 1e-4, incidents=first, alerts=own.select(ALERT_COLUMNS))
    night = [*early, *later, Group(25, 9, "monitor-07", ATTACKER, UNKNOWN, level=1)]
    last, _ = run(night, Look(20, 24, None, before))
    assert first["incident_id"][0].as_py() in last["incident_id"].to_pylist()


def test_without_an_earlier_look_everything_is_tested() -> None:
    cells = _cells(background(2))
    nothing = Decided.nothing(cells)
    found = looks.decided(cells, CATEGORIES, Look(3, 24))
    assert found.fresh.all()
    assert nothing.fresh.all()
    assert found.ids == ()


def _cells(groups: Sequence[Group]) -> NightCells:
    evidence, traffic = counted(groups)
    names = evidence["class_name"].unique().to_pylist()
    return cells_of(traffic, evidence, {name: CATEGORIES.index(category_of(name)) for name in names})
