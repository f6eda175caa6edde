"""What a night's page says, against figures by hand. Every night here is synthetic."""

import dataclasses
import datetime as dt

import pytest

from ids_spark.report import format, night_figures, night_findings, night_page
from tests.support.models import CARD
from tests.support.night_pages import DATE, QUIET, mix, scored, with_row


def test_false_alarms_are_told_with_what_they_rest_on() -> None:
    # exp(5) / (1 + exp(5)) = 0.99331; 1 / 1.25e-5 = 80,000; 1.25e-5 · 1,199,800 = 15.0
    assert night_findings.false_alarms(QUIET) == [
        "A flow is flagged when the model gives an attack a probability of at least 99.33% (log-odds 5); the budget of"
        " 50 a night sets that.",
        "Of 1,199,800 scored flows, 48.3 are expected to be flagged although benign, at most 71 (95% interval), on"
        " traffic like that of validation.",
        "These figures rest on 240,000 benign validation rows, which support no rate of false alarms below 1 in"
        " 80,000 flows: 15 on this night's flows.",
    ]
    # 3 / 12,000 = 2.5e-4, 300 flows of this night; 1,199,800 / 50 = 23,996
    few = with_row(QUIET, benign_validation_rows=12_000, smallest_rate=2.5e-4)
    assert night_findings.false_alarms(few)[2:] == [
        "These figures rest on 12,000 benign validation rows, which support no rate of false alarms below 1 in"
        " 4,000 flows: 300 on this night's flows.",
        "The budget asks for 1 in 23,996 flows: rarer than they can show.",
    ]
    over = with_row(few, expected_false_alarms=100.0, false_alarms_at_most=557.0)
    assert night_findings.false_alarms(over)[2] == (
        "The validation rows show no threshold that comes closer to the budget of 50."
    )
    for changes, said in (
        ({"rows_scored": 0}, "No flow was scored, so none can be a false alarm."),
        (
            {"benign_validation_rows": 0, "expected_false_alarms": None, "smallest_rate": 1.0},
            "How many benign flows are flagged at that is unknown: there was no benign validation row.",
        ),
    ):
        assert night_findings.false_alarms(with_row(QUIET, **changes))[1:] == [said]
    unknown = with_row(QUIET, expected_false_alarms=None, false_alarms_at_most=None, smallest_rate=float("nan"))
    assert night_findings.false_alarms(unknown)[1:] == ["How many benign flows are flagged at that is unknown."]
    assert night_findings.doubts(unknown) == [("care", "The false alarms to expect are unknown.")]


def test_every_reason_to_doubt_is_said_the_worst_first() -> None:
    hours = [hour for hour in range(24) if hour not in (3, 4, 22)]
    before = {DATE - dt.timedelta(days=i): [scored(rows_in=rows)] for i, rows in ((1, 400), (2, 500_000), (3, 500_000))}
    night = dataclasses.replace(
        with_row(QUIET, rows_in=1_200_100, rows_quarantined=90_000, rows_of_another_date=24_000, incidents_shown=1,
                 incidents=1, class_mix=mix(hours, Benign=9)),
        cards={"champion": dataclasses.replace(CARD, data_origin="measured")},
    )  # fmt: skip
    night = dataclasses.replace(night, nights={**night.nights, **before})
    assert night_findings.doubts(night) == [
        ("no", "Rows do not add up: 1,200,100 in, 1,199,800 scored and 90,000 quarantined."),
        ("no", "alerts/ lists 0 incidents, nights/ counts 1."),
        ("no", "90,000 of 1,200,100 flows (7.5%) were quarantined."),
        ("no", "The model learnt from measured flows; these are synthetic."),
        ("care", "24,000 of 1,200,100 flows (2.0%) are of another date."),
        ("care", "No flow was seen at 03:00–05:00, 22:00–23:00 UTC: is a sensor silent?"),
        ("care", "1,200,100 flows came; the nights before had 500,000 (median)."),
    ]
    assert night_findings.verdict(night) == "1 incident counted, but not listed"
    timeless = with_row(QUIET, class_mix=mix([None], Benign=1_199_800))
    assert night_findings.doubts(timeless) == []
    assert night_page.by_hour(timeless.champion) == {}


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
