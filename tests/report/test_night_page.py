"""The page of a night against figures by hand, and as a browser shows it. Every night here is synthetic."""

import dataclasses
import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ids_spark.base.errors import InputError
from ids_spark.dataset.features import SchemaMismatch
from ids_spark.dataset.tables import DRIFT, INCIDENTS, NIGHTS
from ids_spark.lake.parquet import write_rows
from ids_spark.lake.store import Lake
from ids_spark.models import artifact
from ids_spark.report import night_figures, night_findings, night_page
from ids_spark.report.night_page import Night
from tests.support.browser import Rows, show
from tests.support.models import CARD, PREPROCESSOR, WEIGHTS
from tests.support.night_pages import DATE, MODEL, QUIET, VERSION, at, busy, drift, incident, mix, with_row


def page_of(night: Night, folder: Path) -> str:
    night_page.write_page(str(folder / "reports"), night)
    return (folder / "reports/night.html").read_text()


def test_the_first_screen_answers_what_to_do_how_bad_it_is_and_whether_to_trust_it(tmp_path: Path) -> None:
    night = busy()
    assert night_findings.verdict(night) == "5 incidents to look at, 1 critical"
    assert night_findings.severities(night.shown) == {"critical": 1, "high": 2, "medium": 1, "low": 1}
    total = 24 * (49_000 + 12 + 3) + 18_000 + 900 + 310 + 4_230
    assert night_findings.how_bad(night) == [
        f"3,412 of {total:,} flows flagged (0.28%).",
        "Without any attack about 48.3 would be, at most 71.",
        "That is more than false alarms explain.",
    ]
    significant = night.champion["drift_significant"]
    assert night_findings.doubts(night) == [
        ("care", "1 of 24 files could not be read."),
        ("care", f"{significant} of 45 features drifted significantly from what the model learnt."),
        ("care", "The validation rows are too few to promise a budget of 5 on so many flows."),
    ]
    page = page_of(night, tmp_path)
    for text in ("SYNTHETIC FLOWS: every row was generated.", "Night of Tuesday, 14 July 2026, UTC", "With care",
                 "<h1>5 incidents to look at, 1 critical</h1>", "12 more incidents exceed the budget of\n5</b>",
                 "The allow-list covers 640 of 3,412 flagged flows."):  # fmt: skip
        assert text in page
    assert "<script" not in page
    assert "http" not in page.replace("HTTP", "")


def test_an_incident_is_told_with_its_reasons_in_words(tmp_path: Path) -> None:
    rows = Rows(page_of(busy(), tmp_path)).rows
    why = ("share of SYN packets 0.98 (syn_flag_number, +3.2) packet rate 51,230 (Rate, +1.5)"
           " time between packets 8.4e-07 (IAT, −0.3)")  # fmt: skip
    assert rows[0] == ["#", "severity", "class", "who", "seen, UTC", "flows", "score", "why"]
    # 1 / (1 + exp(-8.5)) = 0.999797
    assert rows[1] == ["1", "critical", "DDoS-SYN", "infusion-pump-07 device_id", "02:14:00–02:58:08", "1,200 flows",
                       "score 99.98% 8.5", why]  # fmt: skip
    assert rows[5][3:5] == ["ward-3-gateway device_id", "no event time"]
    late = incident(1, "high", "DoS-TCP", "x", at(23, 50), flows=1, top_attributions=None)
    night = with_row(dataclasses.replace(QUIET, incidents=[late]), incidents=1, incidents_shown=1, flows_flagged=1)
    row = Rows(page_of(night, tmp_path)).rows[1]
    assert row[4:] == ["23:50:00–2026-07-15 00:34:08", "1 flow", "score 99.98% 8.5", "–"]


def test_a_quiet_night_says_so(tmp_path: Path) -> None:
    page = page_of(QUIET, tmp_path)
    assert "<h1>Nothing flagged</h1>" in page
    assert '<p class="short">No</p>' in page
    assert "Every file was read, 1,199,800 flows of 1,200,000 scored" in page
    assert ["missing a value is missing", "150", "0.013%"] in Rows(page).rows
    assert "No incident exceeds the budget of\n50." in page
    covered = with_row(QUIET, flows_flagged=12, flows_allowed=12)
    assert night_findings.verdict(covered) == "Nothing to look at: the allow-list covers 12 of 12 flagged"
    assert night_findings.how_bad(covered)[-1] == "False alarms alone may explain that."


def test_a_night_of_refused_files_is_no_quiet_night(tmp_path: Path) -> None:
    files = [
        {"name": "a.parquet", "rows": 0, "reason": "empty_file"},
        {"name": "b.parquet", "rows": 700, "reason": "duplicated_column"},
    ]
    nothing: dict[str, Any] = {
        "rows_in": 0, "rows_scored": 0, "rows_quarantined": 0, "files": files, "quarantine": [], "class_mix": [],
        "expected_false_alarms": 0.0, "false_alarms_at_most": 0.0,
    }  # fmt: skip
    night = with_row(dataclasses.replace(QUIET, drift=[]), **nothing)
    assert night_findings.verdict(night) == "Nothing was scored: 2 of 2 files could not be read"
    assert night_findings.doubts(night)[0] == ("no", "No flow was scored: silence says nothing.")
    page = page_of(night, tmp_path)
    assert "Yes: find out why no flow was scored" in page
    rows = Rows(page).rows
    assert ["a.parquet", "empty_file the file has no bytes", "?"] in rows
    assert ["b.parquet", "duplicated_column a column stands in the file twice", "700"] in rows
    assert {p.name for p in (tmp_path / "reports").iterdir()} == {"night.html", "trend.png"}
    refused = with_row(night, rows_in=700, rows_quarantined=700)
    assert night_findings.verdict(refused) == "Nothing was scored: 700 flows, all quarantined"
    empty = with_row(night, files=[], rows_in=0)
    assert night_findings.verdict(empty) == "Nothing was scored: the night held no flow"
    page_of(with_row(empty, quarantine=None, warnings=None, extra_columns=None, class_mix=None), tmp_path)


def test_drift_quality_trend_and_what_is_in_use_are_shown(tmp_path: Path) -> None:
    night = busy()
    page = page_of(night, tmp_path)
    rows = Rows(page).rows
    first, *others = night.drifts("feature")
    assert first["psi"] == max(row["psi"] for row in [*others, first])
    assert [
        "Protocol Type mean protocol number",
        f"{others[0]['psi']:.3f}",
        others[0]["drift_level"],
        "0",
        "1",
        "0",
    ] in rows
    bands = [
        sum(row["drift_level"] == band for row in night.drift[:45]) for band in ("significant", "moderate", "stable")
    ]
    said = ", ".join(
        f"{n} features {band}" for n, band in zip(bands, ("significant", "moderate", "stable"), strict=True)
    )
    assert f"<p>{said}; the mix of predicted classes:\nstable (PSI 0.080). Advisory: nothing was withheld." in page
    for row in (
        ["ward-7/flows-07.parquet", "unreadable_file the file is no complete parquet file", "?"],
        ["not_a_number a value is not a number", "1,200", "0.1%"],
        ["negative_time_between_packets broken rule: each of the features is 0 or more", "870", "0.072%"],
        ["Benign", "1,180,230", "98.37%", "91%"],
        ["2026-07-11", "not scored"],
        ["2026-07-14", "1,201,110", "3,412", "17", "48.3", str(bands[0]), "1,310", VERSION],
        [
            "architecture",
            "gru_dnn, 19 classes, feature_set paper, recipe paper, 45 features, trained on synthetic flows",
        ],
        ["never learnt", "Recon-VulScan"],
        ["severity policy", "the project's table"],
        ["weekly scan", "2026-07-14", "vuln-scanner-1", "Recon-Port_Scan", ""],
        ["migration", "2026-07-13", "", "", "10.20.4.9"],
    ):
        assert row in rows
    for text in (
        "1,201,110 flows in = 1,199,800 scored + 1,310\nquarantined, from 24 files.",
        "52,004 flows came late", "17 flows carried\nanother date", "2 columns that no model uses:\nvlan, sensor_firm",
        "Allow-list: 1 entry in force", "Allow-list: 1 entry expired",
        "The champion changed within these nights: figures of 2026-07-08, 2026-07-10 are of another model.",
    ):  # fmt: skip
        assert text in page


def test_the_challenger_stands_beside_the_champion_at_the_classes_both_tell_apart(tmp_path: Path) -> None:
    night = busy()
    page = page_of(night, tmp_path)
    rows = Rows(page).rows
    assert ["flows flagged", "3,412", "2,950"] in rows
    assert ["false alarms expected", "48.3", "44"] in rows
    assert "flagged by both: 2,700" in page
    assert "flagged by the champion alone: 712" in page
    # 24 · 812 = 19,488 against 18,900; 24 · 49,700 = 1,192,800 against 1,180,230
    assert night_page.differences(night.champion, night.challenger)[:2] == [
        ("Benign", 1_180_230, 1_192_800), ("DDoS-SYN", 18_900, 19_488)
    ]  # fmt: skip
    six = night.champion | {"class_mix": mix([1], Benign=5, DDoS=3, DoS=1)}
    two = night.champion | {"class_mix": mix([1], Benign=5, Attack=3)}
    assert ("Recon", 288, 0) in night_page.differences(night.champion, six)
    assert night_page.differences(six, two) == [("Attack", 4, 3), ("Benign", 5, 5)]
    assert "challenger" not in page_of(QUIET, tmp_path)
    theirs = incident(1, "low", "DoS-TCP", "x", None, model_version="20260712T020000-ef56")
    assert dataclasses.replace(QUIET, incidents=[theirs]).shown == []


def test_the_lake_is_read_as_scoring_writes_it(tmp_path: Path) -> None:
    lake, night = Lake(str(tmp_path)), busy()
    artifact.write_model(lake.uri(f"models/{MODEL}/{VERSION}"), CARD, WEIGHTS, PREPROCESSOR)
    sha256 = artifact.read_model(lake.uri(f"models/{MODEL}/{VERSION}")).sha256
    night = with_row(dataclasses.replace(night, nights=night.nights), model_sha256=sha256)
    write_rows(lake.uri(f"alerts/event_date={DATE}/a.parquet"), night.incidents[::-1], INCIDENTS)
    write_rows(lake.uri(f"drift/event_date={DATE}/a.parquet"), night.drift, DRIFT)
    for date, rows in night.nights.items():
        write_rows(lake.uri(f"nights/event_date={date}/a.parquet"), rows, NIGHTS)
    found = night_page.night_of_lake(lake, DATE)
    assert [row["entity"] for row in found.shown] == [row["entity"] for row in night.incidents]
    assert found.shown[0]["first_seen"] == at(2, 14)
    assert found.champion == night.champion
    assert [date.day for date, row in found.trend.items() if row is None] == [9, 11]
    assert found.cards == {"champion": CARD}
    old = write_rows(lake.uri("nights/event_date=2026-07-13/a.parquet"), night.nights[DATE], NIGHTS.remove(0))
    assert old is None
    assert night_page.night_of_lake(lake, DATE).trend[dt.date(2026, 7, 13)] is None
    (tmp_path / f"models/{MODEL}/{VERSION}/weights.npz").write_bytes(b"x")
    changed = night_page.night_of_lake(lake, DATE)
    assert changed.cards == {}
    card = "does not hold the model that scored this night"
    assert card in page_of(changed, tmp_path)
    write_rows(lake.uri(f"drift/event_date={DATE}/a.parquet"), night.drift, DRIFT.remove(2))
    with pytest.raises(SchemaMismatch, match=r"drift/event_date=2026-07-14: column 'psi' is missing"):
        night_page.night_of_lake(lake, DATE)


def test_a_night_that_was_not_scored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        night_page.night_of_lake(Lake(str(tmp_path)), DATE)
    assert str(error.value) == (
        "nights/ has no row of the champion for 2026-07-14; expected one; run jobs/score.py with"
        " score.date=2026-07-14 first"
    )


def hostile() -> Night:
    """Fifty incidents whose names come from outside, and longer than a phone is wide."""
    name = "<script>alert(1)</script>\u202e'\"&" + "x" * 300
    incidents = [incident(i + 1, ("high", "<b>odd")[i % 2], "DoS-UDP", f"{name}{i}", at(i % 24)) for i in range(50)]
    return with_row(
        dataclasses.replace(
            QUIET, incidents=incidents, allow_list=[{"entity": name, "expires": DATE}], facts={name: name}
        ),
        incidents=50, incidents_shown=50, flows_flagged=90, run_id=name, extra_columns=[name, "y" * 200],
        files=[{"name": f"{name}.parquet", "rows": 0, "reason": "<i>reason"}],
        quarantine=[{"reason": name, "rows": 200}], warnings=[{"rule": name, "rows": 1}],
    )  # fmt: skip


def test_names_from_outside_are_text(tmp_path: Path) -> None:
    page = page_of(hostile(), tmp_path)
    for text in ("<script", "<b>odd", "<i>reason"):
        assert text not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    rows = Rows(page).rows
    assert [row[0] for row in rows if len(row) == 8 and row[0].isdigit()] == [str(i + 1) for i in range(50)]
    assert "30 more, from rank 21" in page
    assert "<h1>50 incidents to look at, 25 high</h1>" in page


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("kind", ["busy", "hostile"])
def test_a_browser_shows_every_picture_and_never_scrolls_sideways(kind: str, width: int, tmp_path: Path) -> None:
    night = busy() if kind == "busy" else hostile()
    page_of(night, tmp_path)
    shown = show(tmp_path / "reports/night.html", tmp_path, width)
    assert shown.window_width == width
    assert shown.page_width <= width
    assert len(shown.pictures) == 4
    assert all(natural > 300 and visible > 250 for natural, visible in shown.pictures)
    assert shown.places == 0
    for text in ("Anything to do?", "How bad is it?", "Can it be trusted?", "Seven nights", night.shown[0]["entity"]):
        assert text in shown.closed
    assert night.shown[-1]["entity"] in shown.opened


def test_the_pictures_carry_the_right_figures() -> None:
    night = busy()
    timeline = night_figures.timeline(night.shown, DATE)
    bars = {bars.get_label(): [bar.get_height() for bar in bars] for bars in timeline.axes[0].containers}
    assert list(bars) == ["critical (1)", "high (2)", "medium (1)", "low (1)"]
    assert [np.flatnonzero(heights).tolist() for heights in bars.values()] == [[2], [3, 14], [14], [24]]
    mix_by_hour = night_page.by_hour(night.champion)
    assert {name: int(counts.sum()) for name, counts in mix_by_hour.items()} == {
        "Benign": 1_180_230, "DDoS": 18_900, "MQTT": 72, "Recon": 288, "Spoofing": 310
    }  # fmt: skip
    assert [int(mix_by_hour["DDoS"][hour]) for hour in (2, 3, 4)] == [18_000, 900, 0]
    assert int(mix_by_hour["Benign"][24]) == 4_230
    hours = night_figures.class_hours(mix_by_hour)
    assert [axes.get_title("left") for axes in hours.axes][:2] == ["Benign: 1,180,230", "DDoS: 18,900"]
    trend = night_figures.nights(night.trend, night_page.TREND)
    assert [text.get_text() for text in trend.axes[1].texts][-1] == "3412"
    assert [label.get_text() for label in trend.axes[5].get_xticklabels()] == ["8", "9", "10", "11", "12", "13", "14"]
    half = drift("Rate", 0.5, "significant", [30, 10])
    (panel, unused) = night_figures.drifted([half]).axes
    assert [bar.get_height() for bar in panel.containers[0]] == [0.5, 0.5]
    assert panel.patches[-1].get_data().values.tolist() == [0.75, 0.25]
    assert panel.get_title("left") == "Rate, PSI 0.500"
    assert [label.get_text() for label in panel.get_xticklabels()] == ["0.5"]
    assert not unused.axison


def test_equal_nights_give_equal_bytes(tmp_path: Path) -> None:
    assert page_of(busy(), tmp_path / "a") == page_of(busy(), tmp_path / "b")
