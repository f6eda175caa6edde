"""The lines that a terminal shows of a night."""

import dataclasses

import pytest

from ids_spark.report import night_text
from ids_spark.report.night_findings import Night
from tests.support.night_pages import QUIET, busy, hostile, with_row

PAGE = "/lake/reports/night/event_date=2026-07-14/night.html"


def test_a_night_is_its_state_its_first_incidents_and_its_page() -> None:
    first, *incidents, page = night_text.lines(busy(), PAGE)
    assert first == "night 2026-07-14: 5 incidents to look at"
    assert page.split() == ["page:", PAGE]
    assert [line.split()[:3] for line in incidents[:2]] == [
        ["1", "critical", "DDoS-SYN:"],
        ["2", "high", "ARP_Spoofing:"],
    ]
    assert "198.51.100.23 against 6 devices, 02:14–02:58, 291 flows" in incidents[2]
    assert "unknown source" in incidents[4]


@pytest.mark.parametrize(
    ("night", "text"),
    [
        (QUIET, "no flow flagged"),
        (with_row(QUIET, flows_flagged=900_000), "no incident stands out, but more flows are flagged"),
        (with_row(QUIET, rows_scored=0), "no flow was scored"),
        (with_row(QUIET, rows_quarantined=2_600), "2,600 of 1,200,000 flows (0.22%) in quarantine, more than usual"),
        (with_row(QUIET, degraded=[{"reason": "few_flows", "text": "few"}]), "(degraded)"),
        (dataclasses.replace(busy(), incidents=busy().incidents[5:]), "not listed"),
    ],
)
def test_a_night_without_incidents_says_why(night: Night, text: str) -> None:
    found = night_text.lines(night, PAGE)
    assert len(found) == 3  # state, stage, page
    assert text in found[0]


def test_a_date_that_is_not_over_says_so_far() -> None:
    hour = {"run_of_night": 7, "runs_per_night": 24}
    assert night_text.lines(with_row(busy(), **hour), PAGE)[0] == "night 2026-07-14: 5 incidents to look at so far"
    flagged = night_text.lines(with_row(QUIET, flows_flagged=900_000, **hour), PAGE)[0]
    assert "no incident stands out so far, but" in flagged


def test_a_night_without_flow_logs_is_one_line() -> None:
    missing = {"degraded": [{"reason": "missing", "text": "no flow logs"}], "run_of_night": 24, "runs_per_night": 24}
    [line] = night_text.lines(with_row(QUIET, rows_in=0, rows_scored=0, **missing), PAGE)
    assert line == f"night 2026-07-14 (degraded): no flow logs; page: {PAGE}"


def test_many_incidents_and_names_of_others_stay_short_and_printable() -> None:
    found = night_text.lines(hostile(), PAGE)
    assert found[-3].strip() == "and 45 more"
    assert all(line.isprintable() and len(line) < 250 for line in found)


def test_the_stage_is_a_line_with_what_is_learning() -> None:
    learning = {"stage_text": "Learning, night 3 of 14.", "incidents_learning": 4, "devices_learning": 1}
    *_, line, page = night_text.lines(with_row(busy(), **learning), PAGE)
    assert line.strip() == "Learning, night 3 of 14. Learning: 4 incidents, 1 new device."
    assert PAGE in page
