"""Findings of a night against figures by hand. Every night here is synthetic."""

import dataclasses
import datetime as dt
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ids_spark.report import format, night_figures, night_findings, night_page
from ids_spark.report.night_findings import Issue
from tests.support import incidents
from tests.support.incidents import DATE
from tests.support.models import CARD
from tests.support.night_pages import OLD, QUIET, busy, mix, rates, scored, with_row


def test_false_alarms_are_computed_from_the_validation_rows() -> None:
    alarms = night_findings.false_alarms(QUIET)
    assert (alarms.flagged, alarms.scored, alarms.threshold_logit) == (0, 1_199_800, 1.5)
    assert (alarms.expected, alarms.validation_rows, alarms.smallest_rate) == (11_998.0, 240_000, 1.25e-5)
    # 1 % of 240,000 rows: 2,400 rows; scipy: nbinom.ppf(0.975, 2400.5, 240_000 / (240_000 + 1_199_800))
    shape, share = 11_998.0 * 240_000 / 1_199_800 + 0.5, 240_000 / 1_439_800
    assert alarms.at_most == stats.nbinom.ppf(0.975, shape, share)
    assert 12_480 < alarms.at_most < 12_600
    assert (alarms.known, alarms.rate_known) == (True, True)
    unknown = with_row(QUIET, expected_false_alarms=None, false_alarms_at_most=None, smallest_rate=float("nan"))
    alarms = night_findings.false_alarms(unknown)
    assert (alarms.known, alarms.rate_known) == (False, False)
    assert night_findings.issues(unknown) == [Issue("false_alarms_unknown", False)]


@pytest.mark.parametrize(
    ("flagged", "expected", "explained"),
    [(0, 100.0, None), (128, 100.0, True), (140, 100.0, False), (1, None, None), (10**4, 0.0, False)],
)
def test_flagged_flows_are_compared_with_the_upper_bound_of_false_alarms(
    flagged: int, expected: float | None, explained: bool | None
) -> None:
    # 100 of 10,000 flows are expected; the scatter of a night alone is 10 flows, that of the rate another 10
    night = with_row(QUIET, flows_flagged=flagged, expected_false_alarms=expected, rows_scored=10_000,
                     benign_validation_rows=10_000)  # fmt: skip
    assert night_findings.false_alarms(night).explain_all is explained


@pytest.mark.parametrize("flows", [9, 425, 50_000, 8_800_000])
@pytest.mark.parametrize("rows", [600, 12_000])
def test_few_benign_nights_are_called_more_than_false_alarms_explain(flows: int, rows: int) -> None:
    rng = np.random.default_rng(flows + rows)
    nights, rate = 4_000, 0.01
    reached = rng.binomial(rows, rate, nights)  # validation rows at or above the operating point
    flagged = rng.binomial(flows, rate, nights)
    bounds = {k: night_findings.predictive_bound(flows * k / rows, rows, flows) for k in np.unique(reached).tolist()}
    called = float(np.mean([n > bounds[k] for n, k in zip(flagged, reached.tolist(), strict=True)]))
    assert called <= 0.025 + 3 * (0.025 * 0.975 / nights) ** 0.5


def test_expected_and_observed_false_incidents() -> None:
    found = night_findings.false_incidents(busy())
    assert (found.budget, found.expected, found.alpha, found.cells) == (1.0, 0.83, 2.1e-5, 4_200)
    assert (found.judged, found.benign) == (
        2,
        1,
    )  # ARP is confirmed, one incident is learned; mute and close say nothing
    assert not night_findings.false_incidents(with_row(QUIET, benign_validation_rows=0)).known
    old = night_findings.false_incidents(with_row(QUIET, **OLD))
    assert (old.known, old.judged) == (False, 0)
    assert night_findings.issues(with_row(QUIET, **OLD)) == []


def test_strong_flags_far_above_their_rate_are_seen_where_all_flags_are_not() -> None:
    """As of an attack that is spread over all devices and hours: 1 % of benign flows is exceeded by half only."""
    spread = [each | {"tonight": each["stored"] + 0.001} if each["category"] == "DoS" else each for each in rates()]
    night = with_row(QUIET, false_alarm_rates=spread)
    [found] = [each for each in night_findings.false_alarm_rates(night) if each.far_above]
    assert (found.category, found.rate, found.stored, found.tonight) == ("DoS", 2e-3, 4e-4, pytest.approx(1.4e-3))
    assert [each.kind for each in night_findings.issues(night)] == ["false_alarms_drifted"]


def test_tonights_false_alarms_are_compared_with_the_stored_ones() -> None:
    rates_of = night_findings.false_alarm_rates
    found = {each.category: each for each in rates_of(with_row(QUIET, false_alarm_rates=rates(2.9)))}
    assert (found["Spoofing"].stored, found["MQTT"].stored) == (0.004, 0.0)  # at the operating point, 1 %
    assert found["Spoofing"].tonight == pytest.approx(0.0116)
    assert not any(each.far_above for each in found.values())
    drifted = with_row(QUIET, false_alarm_rates=rates(3.1))
    assert [each.category for each in rates_of(drifted) if each.far_above] == [
        "DDoS",
        "DoS",
        "Recon",
        "Spoofing",
        "Unknown",
    ]
    (issue,) = night_findings.issues(drifted)
    assert (issue.kind, issue.serious) == ("false_alarms_drifted", False)
    assert issue.facts["tonight"] / issue.facts["stored"] == pytest.approx(3.1)
    small = with_row(drifted, rows_scored=85, rows_in=285)  # 3.1 % of 85 flows: 3 flows instead of 1
    assert not any(each.far_above for each in rates_of(small))
    unknown = [each | {"stored": None, "tonight": None} for each in rates()]
    assert all(math.isnan(each.stored) for each in rates_of(with_row(QUIET, false_alarm_rates=unknown)))


def test_recall_is_the_mean_over_classes_with_validation_rows() -> None:
    found = night_findings.recall(QUIET)
    assert found["Recon-Ping_Sweep"] == (40, 0.5)
    assert math.isnan(found["Recon-VulScan"][1])
    assert night_findings.mean_recall(found) == 0.75  # of 1 and 0.5
    assert math.isnan(night_findings.mean_recall({}))


@pytest.mark.parametrize(
    ("run", "runs", "silent"),
    [(1, 24, []), (8, 24, [3, 4]), (9, 24, [3, 4, 7]), (1, 4, [3, 4]), (24, 24, [3, 4, 7, 23])],
)
def test_hours_without_flows_are_stated_once_their_files_should_be_there(
    run: int, runs: int, silent: list[int]
) -> None:
    active = mix([hour for hour in range(24) if hour not in (3, 4, 7, 23)], Benign=9)
    assert with_row(QUIET, class_mix=active, run_of_night=run, runs_per_night=runs).silent_hours == silent


def test_every_issue_is_found_serious_ones_first() -> None:
    hours = [hour for hour in range(24) if hour not in (3, 4, 22)]
    before = {DATE - dt.timedelta(days=i): [scored(rows_in=rows)] for i, rows in ((1, 400), (2, 500_000), (3, 500_000))}
    night = dataclasses.replace(
        with_row(QUIET, rows_in=1_200_100, rows_quarantined=90_000, rows_of_another_date=24_000, incidents_shown=1,
                 incidents=1, class_mix=mix(hours, Benign=9), false_alarm_rates=rates(5.0),
                 incidents_not_shown=[{"category": "Recon", "entity": "a", "incidents": 3},
                                      {"category": "Recon", "entity": "b", "incidents": 4}]),
        cards={"champion": dataclasses.replace(CARD, data_origin="measured")},
    )  # fmt: skip
    night = dataclasses.replace(night, nights={**night.nights, **before})
    found = night_findings.issues(night)
    assert found == [
        Issue("not_reconciled", True, {"rows_in": 1_200_100, "scored": 1_199_800, "quarantined": 90_000}),
        Issue("incidents_differ", True, {"listed": 0, "counted": 1}),
        Issue("quarantined", True, {"rows": 90_000, "of": 1_200_100, "usual": 0.002}),
        Issue("other_origin", True, {"trained_on": "measured", "scored": "synthetic"}),
        Issue("incidents_not_shown", False, {"incidents": 7}),
        Issue("other_date", False, {"rows": 24_000, "of": 1_200_100}),
        Issue("silent_hours", False, {"hours": [3, 4, 22]}),
        Issue("unusual_volume", False, {"rows": 1_200_100, "usual": 500_000}),
        Issue(
            "false_alarms_drifted",
            False,
            {"categories": ["DDoS", "DoS", "Recon", "Spoofing", "Unknown"], "stored": 0.001, "tonight": 0.005},
        ),
    ]
    assert night_findings.trust(found) == "no"
    assert night_findings.trust(found[4:]) == "care"
    assert night_findings.trust([]) == "yes"
    assert night_findings.state(night) == "incidents_missing"
    timeless = with_row(QUIET, class_mix=mix([None], Benign=1_199_800))
    assert night_findings.issues(timeless) == []
    assert night_page.by_hour(timeless.champion) == {}


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "nothing_flagged"),
        ({"flows_flagged": 12, "flows_allowed": 12}, "all_allowed"),
        ({"flows_flagged": 900_000, "flows_allowed": 0}, "unexplained"),
        ({"flows_flagged": 12, "flows_allowed": 11}, "no_incident"),
        ({"flows_flagged": 12_010, "flows_unknown": 12_000, "flows_allowed": 0}, "no_incident"),
        ({"flows_flagged": 900_000, "flows_unknown": 899_990, "flows_allowed": 0}, "unexplained"),
        ({"flows_flagged": 12, "expected_false_alarms": None}, "cannot_tell"),
        ({"flows_flagged": 12, "flows_unknown": 12, "false_alarm_rates": None}, "cannot_tell"),
        ({"rows_scored": 0}, "not_scored"),
        ({"incidents_shown": 1}, "incidents_missing"),
    ],
)
def test_the_state_of_a_night_without_listed_incidents(changes: dict[str, Any], state: str) -> None:
    assert night_findings.state(with_row(QUIET, **changes)) == state


def test_incidents_are_sorted_by_what_verdicts_made_of_them() -> None:
    night = busy()
    assert [row["rank"] for row in night.shown] == [1, 2, 3, 4, 5]
    assert {state: [row["state"] for row in rows] for state, rows in night.folded.items()} == {
        "muted": ["muted"], "learned": ["learned"], "closed": ["closed"]
    }  # fmt: skip
    assert [row["entity"] for row in night_findings.not_shown(night)] == ["broker", "fridge-1"]
    assert night_findings.state(dataclasses.replace(QUIET, incidents=incidents.folded())) == "incidents_folded"
    (first, *others) = night.alerts_of[night.shown[2]["incident_id"]]
    assert (first["is_source"], len(others)) == (True, 6)


@pytest.mark.parametrize(("hours", "text"), [([3, 4, 22], "03:00–05:00, 22:00–23:00"), ([23], "23:00–24:00"), ([], "")])
def test_hours_are_written_as_ranges(hours: list[int], text: str) -> None:
    assert format.hour_ranges(hours) == text


@pytest.mark.parametrize(("rate", "text"), [(1.25e-5, "1 in 80,000 flows"), (0.0, "none")])
def test_a_rate_is_written_as_one_in(rate: float, text: str) -> None:
    assert format.one_in(rate) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0%"), (1.0, "100%"), (0.99999, ">99.99%"), (0.9312, "93.12%"), (0.123, "12.3%"),
                        (0.0042, "0.42%"), (4.2e-6, "0.00042%"), (8.34e-9, "0.00000083%")]
)  # fmt: skip
def test_a_share_is_never_rounded_to_nothing_or_all(share: float, text: str) -> None:
    assert format.percent(share) == text


@pytest.mark.parametrize(
    ("logit", "text"), [(0.0, "50.0%"), (80.0, ">99.99%"), (float("inf"), ">99.99%"), (float("nan"), "unknown")]
)
def test_no_score_is_certain(logit: float, text: str) -> None:
    assert format.probability(logit) == text


@pytest.mark.parametrize(
    ("posterior", "text"), [(1.0, "99.99%"), (0.99998, "99.99%"), (0.9931, "99.31%"), (0.04, "4.0%"), (None, "–")]
)
def test_no_attack_is_certain(posterior: float | None, text: str) -> None:
    assert format.at_most(posterior) == text


@pytest.mark.parametrize(
    ("changes", "text"), [
        ({}, "new"),
        ({"life": None, "since": None, "nights_seen": None}, "new"),
        ({"life": "continuing", "since": dt.date(2026, 7, 3), "nights_seen": 6},
         "continuing since 3 July, on 6 of the last 7 nights"),
        ({"life": "returned", "since": dt.date(2025, 12, 30), "nights_seen": 2},
         "returned, first seen on 30 December 2025, on 2 of the last 7 nights"),
    ]
)  # fmt: skip
def test_the_life_of_an_incident_in_words(changes: dict[str, Any], text: str) -> None:
    assert format.life(incidents.port_scan() | changes, DATE, 7) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (float("nan"), "–"), (float("inf"), "infinite"), (1234567.8, "1,234,568"),
                        (999.7, "1,000"), (-999.7, "-1,000"), (999.4, "999"), (48.3, "48.3"), (0.0, "0"),
                        (3e-7, "3e-07")]
)  # fmt: skip
def test_amounts_read_as_people_write_them(value: float | None, text: str) -> None:
    assert format.amount(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.42, "0.42"),
        (99.4, "99"),
        (99.6, "100"),
        (9_999, "9999"),
        (12_345, "12k"),
        (999_600, "1.0M"),
        (48_000_000, "48M"),
    ],
)
def test_figures_beside_bars_are_short(value: float, text: str) -> None:
    assert night_figures.compact(value) == text


def test_more_quarantined_flows_than_usual_are_stated_once() -> None:
    assert night_findings.quarantined(QUIET) is None
    above = with_row(QUIET, rows_quarantined=2_500)
    issue = night_findings.hidden(above)
    assert issue == Issue("quarantined", False, {"rows": 2_500, "of": 1_200_000, "usual": 0.002})
    assert issue in night_findings.issues(above)
    assert night_findings.quarantined(with_row(QUIET, rows_in=900, rows_quarantined=4)) is None
    of_older_versions = with_row(above, quarantine_usual=None)
    assert night_findings.quarantined(of_older_versions) is None
    reason = [{"reason": "rows_refused_alike", "text": "the exporter"}]
    stated = with_row(above, degraded=reason)
    assert night_findings.hidden(stated) is None
    assert "quarantined" not in {issue.kind for issue in night_findings.issues(stated)}


def test_flows_scored_with_one_feature_at_its_median_have_a_prediction() -> None:
    night = with_row(QUIET, rows_scored=0, rows_imputed=1_000, rows_quarantined=1_200_000)
    assert night_findings.state(night) != "not_scored"
    assert night_findings.false_alarms(night).scored == night.predicted == 1_000
