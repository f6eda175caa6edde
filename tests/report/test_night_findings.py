"""Findings of a night against figures by hand. Every night here is synthetic."""

import dataclasses
import datetime as dt
from typing import Any

import pytest

from ids_spark.report import format, night_figures, night_findings, night_page
from ids_spark.report.night_findings import Issue
from tests.support.models import CARD
from tests.support.night_pages import DATE, QUIET, mix, scored, with_row


def test_false_alarms_are_computed_from_the_validation_rows() -> None:
    alarms = night_findings.false_alarms(QUIET)
    assert dataclasses.asdict(alarms) == {
        "flagged": 0, "scored": 1_199_800, "budget": 50, "threshold_logit": 5.0, "expected": 48.3, "at_most": 71.0,
        "validation_rows": 240_000, "smallest_rate": 1.25e-5,
    }  # fmt: skip
    # 1.25e-5 · 1,199,800 = 15 flows, fewer than the budget of 50
    assert (alarms.known, alarms.rate_known, alarms.over_budget, alarms.too_few_rows) == (True, True, False, False)
    # 3 / 12,000 = 2.5e-4, 300 flows of this night
    few = with_row(QUIET, benign_validation_rows=12_000, smallest_rate=2.5e-4)
    assert night_findings.false_alarms(few).too_few_rows
    assert not night_findings.false_alarms(few).over_budget
    over = with_row(few, expected_false_alarms=100.0, false_alarms_at_most=557.0)
    assert night_findings.false_alarms(over).over_budget
    unknown = with_row(QUIET, expected_false_alarms=None, false_alarms_at_most=None, smallest_rate=float("nan"))
    alarms = night_findings.false_alarms(unknown)
    assert (alarms.known, alarms.rate_known, alarms.over_budget, alarms.too_few_rows) == (False, False, False, False)
    assert night_findings.issues(unknown) == [Issue("false_alarms_unknown", False)]


@pytest.mark.parametrize(
    ("flagged", "at_most", "expected"), [(0, 71.0, None), (71, 71.0, True), (72, 71.0, False), (72, None, None)]
)
def test_flagged_flows_are_compared_with_the_upper_bound_of_false_alarms(
    flagged: int, at_most: float | None, expected: bool | None
) -> None:
    night = with_row(QUIET, flows_flagged=flagged, false_alarms_at_most=at_most)
    assert night_findings.false_alarms(night).explain_all is expected


def test_every_issue_is_found_serious_ones_first() -> None:
    hours = [hour for hour in range(24) if hour not in (3, 4, 22)]
    before = {DATE - dt.timedelta(days=i): [scored(rows_in=rows)] for i, rows in ((1, 400), (2, 500_000), (3, 500_000))}
    night = dataclasses.replace(
        with_row(QUIET, rows_in=1_200_100, rows_quarantined=90_000, rows_of_another_date=24_000, incidents_shown=1,
                 incidents=1, class_mix=mix(hours, Benign=9)),
        cards={"champion": dataclasses.replace(CARD, data_origin="measured")},
    )  # fmt: skip
    night = dataclasses.replace(night, nights={**night.nights, **before})
    found = night_findings.issues(night)
    assert found == [
        Issue("not_reconciled", True, {"rows_in": 1_200_100, "scored": 1_199_800, "quarantined": 90_000}),
        Issue("incidents_differ", True, {"listed": 0, "counted": 1}),
        Issue("quarantined", True, {"rows": 90_000, "of": 1_200_100}),
        Issue("other_origin", True, {"trained_on": "measured", "scored": "synthetic"}),
        Issue("other_date", False, {"rows": 24_000, "of": 1_200_100}),
        Issue("silent_hours", False, {"hours": [3, 4, 22]}),
        Issue("unusual_volume", False, {"rows": 1_200_100, "usual": 500_000}),
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
        ({"rows_scored": 0}, "not_scored"),
        ({"incidents": 1}, "incidents_missing"),
    ],
)
def test_the_state_of_a_night_without_listed_incidents(changes: dict[str, Any], state: str) -> None:
    assert night_findings.state(with_row(QUIET, **changes)) == state


@pytest.mark.parametrize(("hours", "text"), [([3, 4, 22], "03:00–05:00, 22:00–23:00"), ([23], "23:00–24:00"), ([], "")])
def test_hours_are_written_as_ranges(hours: list[int], text: str) -> None:
    assert format.hour_ranges(hours) == text


@pytest.mark.parametrize(("rate", "text"), [(1.25e-5, "1 in 80,000 flows"), (0.0, "none")])
def test_a_rate_is_written_as_one_in(rate: float, text: str) -> None:
    assert format.one_in(rate) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0%"), (1.0, "100%"), (0.99999, ">99.99%"), (0.9312, "93.12%"), (0.123, "12.3%"),
                        (0.0042, "0.42%"), (4.2e-6, "0.00042%")]
)  # fmt: skip
def test_a_share_is_never_rounded_to_nothing_or_all(share: float, text: str) -> None:
    assert format.percent(share) == text


@pytest.mark.parametrize(
    ("logit", "text"), [(0.0, "50.0%"), (80.0, ">99.99%"), (float("inf"), ">99.99%"), (float("nan"), "unknown")]
)
def test_no_score_is_certain(logit: float, text: str) -> None:
    assert format.probability(logit) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (float("nan"), "–"), (float("inf"), "infinite"), (1234567.8, "1,234,568"),
                        (48.3, "48.3"), (0.0, "0"), (3e-7, "3e-07")]
)  # fmt: skip
def test_amounts_read_as_people_write_them(value: float | None, text: str) -> None:
    assert format.amount(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.42, "0.42"), (9_999, "9999"), (12_345, "12k"), (999_600, "1.0M"), (48_000_000, "48M")]
)
def test_figures_beside_bars_are_short(value: float, text: str) -> None:
    assert night_figures.compact(value) == text
