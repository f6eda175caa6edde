import datetime as dt
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ids_spark.alerts import verdicts
from ids_spark.alerts.verdicts import Burst, Cell
from ids_spark.dataset.tables import INCIDENTS, VERDICTS
from ids_spark.lake.store import Lake
from tests.support.incident_rows import ALPHA, NIGHT, alert, tables, verdict

DAY = dt.timedelta(days=1)
SCAN = [alert("scan", "pump-1"), alert("scan", "10.0.0.9", source=True)]
FLOOD = [alert("flood", "pump-1", "DDoS")]


def states(alerts, given_verdicts, night=NIGHT):
    incidents, found = tables(alerts)
    applied = verdicts.apply(incidents, found, verdicts.in_force(given_verdicts, night), ALPHA)
    assert applied["incident_id"].to_pylist() == incidents["incident_id"].to_pylist()
    assert applied.schema.equals(INCIDENTS)
    return dict(zip(applied["incident_id"].to_pylist(), applied["state"].to_pylist(), strict=True))


def on(alerts, date):
    """Return the same alerts as an incident of another night."""
    return [{**row, "incident_id": f"{row['incident_id']} {date}"} for row in alerts]


def beside_learned(alerts, learned=-1.0):
    """Return the alerts as they are tested beside what was learned."""
    return [{**row, "log10_p_learned": learned} for row in alerts]


class TestBenign:
    def test_the_largest_windows_of_each_entity_are_learned(self):
        rows = [
            alert("i", "pump-1", flagged=(20, 3, 1), flows=900),
            alert("i", "pump-1", hour=4, flagged=(31, 0, 0), flows=400),
            alert("i", "pump-1", hour=5, flagged=(30, 0, 0), flows=500),
            alert("i", "10.0.0.9", source=True, hour=4, flagged=(7, 7, 7), flows=8),
        ]
        force = verdicts.in_force([verdict("benign", rows)], NIGHT)
        assert {cell: bursts for cell, (bursts, _) in force.learned.items()} == {
            Cell("device_id", "pump-1", "Recon"): (Burst((20, 3, 1), 900), Burst((31, 0, 0), 400)),
            Cell("src_ip", "10.0.0.9", "Recon"): (Burst((7, 7, 7), 8),),
        }

    def test_of_several_verdicts_the_larger_bursts_count(self):
        bursts = [(5, 1, 0), (9, 1, 0), (8, 0, 4)]
        for order in itertools.permutations(range(3)):
            rows = [
                verdict("benign", [alert(str(i), "pump-1", flagged=bursts[i])], minute=m) for m, i in enumerate(order)
            ]
            found, newest = verdicts.in_force(rows, NIGHT).learned[Cell("device_id", "pump-1", "Recon")]
            assert found == (Burst((8, 0, 4), 100), Burst((9, 1, 0), 100))
            assert newest["incident_id"] == str(order[-1])

    def test_no_learned_window_comes_back(self):
        """A few flagged flows among few, and many among many: each is learned, on its own night and later."""
        rows = [alert("i", "pump-1", flagged=(90, 9, 9), flows=9_000), alert("i", "pump-1", hour=4, flows=25)]
        for given_verdicts, night in (
            ([verdict("benign", rows)], NIGHT),
            ([verdict("benign", rows)], NIGHT + DAY),
            ([verdict("benign", rows[:1]), verdict("benign", on(rows[1:], 2), minute=1)], NIGHT + DAY),
        ):
            force = verdicts.in_force(given_verdicts, night)
            incidents, alerts = tables(rows)
            alerts = verdicts.beside_learned(alerts, force)
            assert verdicts.apply(incidents, alerts, force, ALPHA)["state"].to_pylist() == ["learned"]

    @pytest.mark.parametrize(
        ("flagged", "flows", "significant"),
        [
            ((20, 10, 5), 100, False),  # the same again
            ((28, 14, 9), 100, False),
            ((200, 100, 50), 1_000, False),  # the same share of more flows
            ((90, 10, 5), 100, True),
            ((20, 10, 30), 100, True),
            ((20, 10, 5), 10, True),
        ],
    )
    def test_alerts_are_compared_with_what_was_learned(self, flagged, flows, significant):
        force = verdicts.in_force([verdict("benign", SCAN)], NIGHT)
        _, alerts = tables([alert("i", "pump-1", flagged=flagged, flows=flows), alert("i", "pump-2")])
        known, other = verdicts.beside_learned(alerts, force)["log10_p_learned"].to_pylist()
        k, a = np.array(flagged), np.array([20.5, 10.5, 5.5])
        expected = min(1.0, 3 * stats.nbinom.sf(k - 1, a, 100 / (100 + flows)).min())
        assert known == pytest.approx(max(-8.0, math.log10(expected)))
        assert (known <= math.log10(ALPHA)) == significant
        assert other == -8.0

    @pytest.mark.parametrize(("flows", "significant"), [(20, False), (300, True), (100_000, True)])
    def test_few_flows_that_were_all_flagged_do_not_explain_a_flood(self, flows, significant):
        few = [alert("i", "198.51.100.9", source=True, flagged=(5, 5, 5), flows=5)]
        force = verdicts.in_force([verdict("benign", few)], NIGHT)
        _, alerts = tables([alert("i", "198.51.100.9", source=True, flagged=(flows,) * 3, flows=flows)])
        [known] = verdicts.beside_learned(alerts, force)["log10_p_learned"].to_pylist()
        assert (known <= math.log10(ALPHA)) == significant

    def test_a_learned_incident_is_one_without_a_significant_alert(self):
        given_verdicts = [verdict("benign", SCAN)]
        tonight = on(SCAN, NIGHT + DAY)
        assert set(states(beside_learned(tonight), given_verdicts, NIGHT + DAY).values()) == {"learned"}
        larger = [*beside_learned(tonight[:1]), *beside_learned(tonight[1:], -6.0)]
        assert set(states(larger, given_verdicts, NIGHT + DAY).values()) == {"open"}

    def test_an_alert_at_alpha_that_nothing_was_learned_about_stays_open(self):
        rows = [alert("i", "pump-2", log10_p=-4.0 + 1e-15)]
        assert states(rows, [verdict("benign", SCAN)]) == {"i": "open"}

    def test_earlier_nights_keep_their_incidents(self):
        force = verdicts.in_force([verdict("benign", SCAN, date=NIGHT + DAY)], NIGHT)
        assert not force.learned
        assert not force.incidents

    def test_the_learned_line_says_who_decided(self):
        given_verdicts = [verdict("benign", SCAN, owner="Ada", reason="inventory scan")]
        incidents, alerts = tables(beside_learned(on(SCAN, NIGHT + DAY)))
        applied = verdicts.apply(incidents, alerts, verdicts.in_force(given_verdicts, NIGHT + DAY), ALPHA)
        row = applied.to_pylist()[0]
        assert (row["verdict"], row["verdict_owner"], row["verdict_reason"]) == ("benign", "Ada", "inventory scan")
        assert row["verdict_until"] is None


class TestMute:
    UNTIL = NIGHT + 3 * DAY

    @pytest.mark.parametrize(("days", "state"), [(0, "muted"), (3, "muted"), (4, "open")])
    def test_a_mute_ends_after_its_last_night(self, days, state):
        night = NIGHT + days * DAY
        rows = [verdict("mute", SCAN, until=self.UNTIL)]
        assert set(states(on(SCAN, night), rows, night).values()) == {state}

    def test_an_attack_does_not_hide_behind_a_mute(self):
        rows = [verdict("mute", SCAN, until=self.UNTIL)]
        assert states(FLOOD, rows) == {"flood": "open"}
        assert states([*SCAN, alert("scan", "pump-7")], rows) == {"scan": "open"}

    def test_a_part_of_the_muted_entities_is_muted(self):
        assert states(SCAN[:1], [verdict("mute", SCAN, until=self.UNTIL)]) == {"scan": "muted"}

    def test_of_several_mutes_an_incident_has_the_first_end(self):
        rows = [
            verdict("mute", SCAN[:1], until=self.UNTIL),
            verdict("mute", [{**SCAN[1], "incident_id": "other"}], until=self.UNTIL + DAY, minute=1, owner="Ada"),
        ]
        applied = verdicts.apply(*tables(SCAN), verdicts.in_force(rows, NIGHT), ALPHA).to_pylist()[0]
        assert (applied["state"], applied["verdict_until"], applied["verdict_owner"]) == ("muted", self.UNTIL, "Ada")


class TestOneIncident:
    """Verdicts on an incident that concern its own night."""

    def decided(self, *kinds):
        rows = [
            verdict(kind, SCAN, minute=i, until=NIGHT + DAY if kind == "mute" else None) for i, kind in enumerate(kinds)
        ]
        return states(beside_learned(SCAN) if "benign" in kinds else SCAN, rows)["scan"]

    @pytest.mark.parametrize(
        ("kinds", "state"),
        [
            (("true",), "open"),
            (("close",), "closed"),
            (("benign", "true"), "open"),
            (("true", "close"), "closed"),
            (("close", "true"), "open"),
            (("mute", "true"), "open"),
            (("true", "mute"), "muted"),
            (("close", "unlearn"), "open"),
            (("mute", "unlearn"), "open"),
            (("mute", "close"), "closed"),
            (("close", "benign"), "closed"),
            (("unlearn", "close"), "closed"),
        ],
    )
    def test_of_each_kind_the_newest_counts(self, kinds, state):
        assert self.decided(*kinds) == state

    def test_a_close_is_of_one_incident(self):
        night = NIGHT + DAY
        assert set(states(on(SCAN, night), [verdict("close", SCAN)], night).values()) == {"open"}

    def test_true_is_stronger_than_a_mute_of_another_night(self):
        rows = [verdict("mute", on(SCAN, 1), date=NIGHT - DAY, until=NIGHT + DAY), verdict("true", SCAN, minute=1)]
        assert states(SCAN, rows) == {"scan": "open"}

    def test_benign_then_true_learns_nothing(self):
        assert not verdicts.in_force([verdict("benign", SCAN), verdict("true", SCAN, minute=1)], NIGHT + DAY).learned


class TestUnlearn:
    def test_unlearning_a_later_incident_forgets_what_earlier_ones_taught(self):
        tonight = on(SCAN, NIGHT + DAY)
        rows = [verdict("benign", SCAN), verdict("unlearn", tonight, date=NIGHT + DAY, minute=5)]
        assert len(verdicts.in_force(rows, NIGHT).learned) == 2
        assert not verdicts.in_force(rows, NIGHT + DAY).learned
        assert not verdicts.in_force(rows, NIGHT + 2 * DAY).learned

    def test_only_its_entities_and_category_are_forgotten(self):
        rows = [
            verdict("benign", SCAN),
            verdict("benign", FLOOD, minute=1),
            verdict("unlearn", on(SCAN[:1], "again"), minute=2),
        ]
        learned = verdicts.in_force(rows, NIGHT).learned
        assert set(learned) == {Cell("src_ip", "10.0.0.9", "Recon"), Cell("device_id", "pump-1", "DDoS")}

    def test_a_benign_after_it_is_learned_again(self):
        rows = [verdict(kind, SCAN, minute=i) for i, kind in enumerate(("benign", "unlearn", "benign"))]
        assert len(verdicts.in_force(rows, NIGHT).learned) == 2

    def test_in_one_run_it_comes_first(self):
        rows = [verdict("benign", [alert("a", "pump-1")]), verdict("unlearn", [alert("z", "pump-1")])]
        assert verdicts.in_force(rows, NIGHT).learned == verdicts.in_force(rows[::-1], NIGHT).learned
        assert len(verdicts.in_force(rows, NIGHT).learned) == 1


class TestLake:
    def test_verdicts_of_several_runs_are_read_in_order_of_time(self, tmp_path):
        lake = Lake(str(tmp_path))
        assert verdicts.read(lake) == []
        for minute, kind in ((3, "close"), (1, "true"), (2, "benign")):
            row = verdict(kind, SCAN, minute=minute)
            lake.write("verdicts", [row], run_id=f"z{9 - minute}")
        assert [row["verdict"] for row in verdicts.read(lake)] == ["true", "benign", "close"]

    def test_rows_have_the_columns_of_the_contract(self):
        assert set(verdict("benign", SCAN)) == set(VERDICTS.names)


ENTITIES = st.sampled_from(["pump-1", "pump-2", "10.0.0.9"])
CATEGORIES = st.sampled_from(["Recon", "DDoS"])
ALERT = st.builds(
    lambda incident, entity, category, learned: alert(
        f"{incident} {category}", entity, category, source=entity[0] == "1", learned=learned
    ),
    st.sampled_from("abc"),
    ENTITIES,
    CATEGORIES,
    st.sampled_from([-8.0, -1.0]),
)
VERDICT = st.tuples(st.sampled_from(verdicts.NAMES), st.integers(0, 2), st.integers(0, 4), st.integers(0, 2))


def of_lines(alerts, lines):
    """Return verdicts (kind, minute, days until the end of a mute, nights before tonight) on incidents in turn."""
    groups = [list(rows) for _, rows in itertools.groupby(alerts, key=lambda row: row["incident_id"])]
    return [
        verdict(
            kind,
            groups[i % len(groups)],
            date=NIGHT - before * DAY,
            minute=minute,
            until=NIGHT + (days - 1) * DAY if kind == "mute" else None,
        )
        for i, (kind, minute, days, before) in enumerate(lines)
    ]


@given(st.lists(ALERT, min_size=1, max_size=8), st.lists(VERDICT, max_size=8))
@settings(max_examples=150, deadline=None)
def test_every_incident_keeps_exactly_one_state(alerts, lines):
    alerts = sorted(alerts, key=lambda row: row["incident_id"])
    found = states(alerts, of_lines(alerts, lines))
    assert set(found) == {row["incident_id"] for row in alerts}
    assert set(found.values()) <= {"open", "muted", "closed", "learned"}
    rows = of_lines(alerts, lines)
    significant = {row["incident_id"] for row in alerts if row["log10_p_learned"] < -4}
    benign = {row["incident_id"] for row in rows if row["verdict"] == "benign" and row["event_date"] == NIGHT}
    assert not any(found[incident] == "learned" for incident in significant - benign)


@given(st.lists(ALERT, min_size=1, max_size=8), st.lists(VERDICT, max_size=6), st.randoms())
@settings(max_examples=150, deadline=None)
def test_the_order_of_lines_on_different_incidents_does_not_matter(alerts, lines, random):
    alerts = sorted(alerts, key=lambda row: row["incident_id"])
    rows = of_lines(alerts, [(kind, 0, days, before) for kind, _, days, before in lines])
    once = list({(row["event_date"], row["incident_id"]): row for row in rows}.values())
    shuffled = random.sample(once, len(once))
    assert states(alerts, once) == states(alerts, shuffled)
    assert verdicts.in_force(once, NIGHT).learned == verdicts.in_force(shuffled, NIGHT).learned
