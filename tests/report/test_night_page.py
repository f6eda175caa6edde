"""The page of a night against figures by hand, and as a browser shows it. Every night here is synthetic."""

import dataclasses
import datetime as dt
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ids_spark.base.errors import InputError
from ids_spark.base.logs import printable
from ids_spark.dataset.features import SchemaMismatch
from ids_spark.dataset.tables import DRIFT, NIGHTS, OLD_INCIDENTS
from ids_spark.ingest import files
from ids_spark.lake.parquet import write_rows
from ids_spark.lake.store import Lake
from ids_spark.models import artifact
from ids_spark.report import night_figures, night_findings, night_page
from ids_spark.report.night_findings import Night
from tests.support.browser import Page, check_structure, numbers, show, text_of
from tests.support.models import CARD, PREPROCESSOR, WEIGHTS
from tests.support.night_pages import DATE, MODEL, QUIET, VERSION, at, busy, drift, incident, mix, scored, with_row


def page_of(night: Night) -> str:
    """The page without its pictures, which take seconds to draw."""
    return night_page.render_page(night, {})


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of a busy night and of one with external names, with pictures."""
    folders = {"busy": tmp_path_factory.mktemp("busy"), "hostile": tmp_path_factory.mktemp("hostile")}
    night_page.write_page(str(folders["busy"]), busy())
    night_page.write_page(str(folders["hostile"]), hostile())
    return folders


def test_the_cards_state_what_to_do_how_severe_it_is_and_whether_the_figures_can_be_trusted() -> None:
    night = busy()
    assert night_findings.severities(night.shown) == {"critical": 1, "high": 2, "medium": 1, "low": 1}
    total = 24 * (49_000 + 12 + 3) + 18_000 + 900 + 310 + 4_230
    significant = night.champion["drift_significant"]
    content = page_of(night)
    page = Page(content)
    check_structure(page)
    (headline,) = page.all("data-state")
    assert headline[0] == "incidents"
    assert numbers(headline[1]) == ["5", "1"]
    assert headline[1].endswith(" critical")
    assert page.element("headline").get("data-incidents") == "5"
    assert page.texts("data-origin").keys() == {"synthetic"}
    assert "Tuesday, 14 July 2026, UTC" in text_of(page.root)
    assert [answer for answer, _ in page.all("data-answer")] == ["yes", "care"]
    links = [each.get("href") for each in page.element("action").iter("a")]
    assert links == ["#incident-1", "#incident-2", "#incident-3"]
    assert numbers(page.text("flagged")) == ["3,412", f"{total:,}", "0.28%"]
    assert {"48.3", "71"} <= set(numbers(page.text("severity")))
    assert [how for how, _ in page.all("data-false-alarms")] == ["explain-part"]
    assert [(kind, numbers(text)) for kind, text in page.all("data-issue")] == [
        ("files_refused", ["1", "24"]),
        ("drift", [str(significant), "45"]),
        ("few_validation_rows", ["5"]),
    ]
    assert [over for over, _ in page.all("data-over-budget")] == ["12"]
    assert numbers(page.text("allowed")) == ["640", "3,412"]
    order = ["action", "severity", "trust", "incidents", "hours", "false-alarms", "quality", "drift", "models", "week",
             "in-use"]  # fmt: skip
    assert [name for name, _ in page.all("id") if name in order] == order
    assert "http" not in content.replace("HTTP", "")


def test_false_alarms_are_shown_with_the_validation_rows_they_are_computed_from() -> None:
    def found(night: Night) -> dict[str, list[str]]:
        texts = Page(page_of(night)).texts("data-finding")
        return {name: numbers(text) for name, text in texts.items()}

    # exp(5) / (1 + exp(5)) = 0.99331; 1 / 1.25e-5 = 80,000; 1.25e-5 · 1,199,800 = 15.0
    assert found(QUIET) == {
        "threshold": ["99.33%", "5", "50"],
        "expected": ["1,199,800", "48.3", "71", "95%"],
        "smallest-rate": ["240,000", "1", "80,000", "15"],
    }
    # 3 / 12,000 = 2.5e-4, 300 flows of this night; 1,199,800 / 50 = 23,996
    few = with_row(QUIET, benign_validation_rows=12_000, smallest_rate=2.5e-4)
    assert found(few) == found(QUIET) | {
        "smallest-rate": ["12,000", "1", "4,000", "300"],
        "too-few-rows": ["1", "23,996"],
    }
    over = found(with_row(few, expected_false_alarms=100.0, false_alarms_at_most=557.0))
    assert list(over) == ["threshold", "expected", "over-budget", "smallest-rate", "too-few-rows"]
    assert over["over-budget"] == ["50"]
    unknown: dict[str, Any] = {"expected_false_alarms": None, "false_alarms_at_most": None}
    for changes, names in (
        ({"rows_scored": 0, "class_mix": []}, ["threshold", "not-scored"]),
        ({"benign_validation_rows": 0, "smallest_rate": 1.0, **unknown}, ["threshold", "no-validation"]),
        ({"smallest_rate": float("nan"), **unknown}, ["threshold", "unknown"]),
    ):
        assert list(found(with_row(QUIET, **changes))) == names


def test_an_incident_is_shown_with_its_attributions_in_words() -> None:
    rows = Page(page_of(busy())).rows
    why = ("share of SYN packets 0.98 (syn_flag_number, +3.2) packet rate 51,230 (Rate, +1.5)"
           " time between packets 8.4e-07 (IAT, −0.3)")  # fmt: skip
    assert rows[0] == ["rank", "severity", "class", "entity", "time, UTC", "flows", "score", "why"]
    # 1 / (1 + exp(-8.5)) = 0.999797
    assert rows[1] == ["1", "critical", "DDoS-SYN", "infusion-pump-07 device_id", "02:14:00–02:58:08", "1,200 flows",
                       "score 99.98% 8.5", why]  # fmt: skip
    assert rows[5][3:5] == ["ward-3-gateway device_id", "no event time"]
    late = incident(1, "high", "DoS-TCP", "x", at(23, 50), flows=1, top_attributions=None)
    night = with_row(dataclasses.replace(QUIET, incidents=[late]), incidents=1, incidents_shown=1, flows_flagged=1)
    row = Page(page_of(night)).rows[1]
    assert row[4:] == ["23:50:00–2026-07-15 00:34:08", "1 flow", "score 99.98% 8.5", "–"]


def test_a_quiet_night_needs_no_action() -> None:
    page = Page(page_of(QUIET))
    check_structure(page)
    assert page.element("headline").get("data-state") == "nothing_flagged"
    assert [answer for answer, _ in page.all("data-answer")] == ["no", "yes"]
    assert numbers(page.text("trust")) == ["1,199,800", "1,200,000"]
    assert page.all("data-issue") == page.all("data-over-budget") == page.all("data-false-alarms") == []
    assert ["missing a value is missing", "150", "0.013%"] in page.rows
    assert not any(page.has(name) for name in ("incident-list", "challenger", "refused-files", "warnings"))
    assert page.has("no-allow-list")
    covered = Page(page_of(with_row(QUIET, flows_flagged=12, flows_allowed=12)))
    assert covered.element("headline").get("data-state") == "all_allowed"
    assert numbers(covered.text("headline")) == ["12", "12"]
    assert [how for how, _ in covered.all("data-false-alarms")] == ["explain-all"]


def test_a_night_of_refused_files_is_no_quiet_night(tmp_path: Path) -> None:
    refused = [
        {"name": "a.parquet", "rows": 0, "reason": "empty_file"},
        {"name": "b.parquet", "rows": 700, "reason": "duplicated_column"},
    ]
    nothing: dict[str, Any] = {
        "rows_in": 0, "rows_scored": 0, "rows_quarantined": 0, "files": refused, "quarantine": [], "class_mix": [],
        "expected_false_alarms": 0.0, "false_alarms_at_most": 0.0,
    }  # fmt: skip
    night = with_row(dataclasses.replace(QUIET, drift=[]), **nothing)
    page = Page(page_of(night))
    check_structure(page)
    assert page.element("headline").get("data-state") == "not_scored"
    assert numbers(page.text("headline")) == ["2", "2"]
    assert page.all("data-issue")[0][0] == "nothing_scored"
    assert [answer for answer, _ in page.all("data-answer")] == ["yes", "no"]
    assert ["a.parquet", f"empty_file {files.REASONS['empty_file']}", "?"] in page.rows
    assert ["b.parquet", "duplicated_column it has a column twice", "700"] in page.rows
    night_page.write_page(str(tmp_path), night)
    assert {path.name for path in tmp_path.iterdir()} == {"night.html", "trend.png"}
    refused = Page(page_of(with_row(night, rows_in=700, rows_quarantined=700)))
    assert numbers(refused.text("headline")) == ["700"]
    assert "quarantined" in refused.text("headline")
    empty = with_row(night, files=[], rows_in=0)
    assert numbers(Page(page_of(empty)).text("headline")) == []
    page_of(with_row(empty, quarantine=None, warnings=None, extra_columns=None, class_mix=None))


def test_files_without_flows_are_listed_and_no_reason_for_doubt() -> None:
    found = [{"name": "a.parquet", "rows": 9, "reason": None}, {"name": "_SUCCESS", "rows": 0, "reason": "hidden"}]
    page = Page(page_of(with_row(QUIET, files=found)))
    assert page.all("data-issue") == []
    assert numbers(page.text("reconciliation"))[-1] == "1"
    assert ["_SUCCESS", f"hidden {files.REASONS['hidden']}", "?"] in page.rows
    many = [{"name": f"{i}.parquet", "rows": 0, "reason": "gzip"} for i in range(30)]
    page = Page(page_of(with_row(QUIET, files=many)))
    assert sum(row[1].startswith("gzip") for row in page.rows if len(row) == 3) == 30
    assert numbers(page.text("more-refused-files"))[0] == "10"


def test_every_kind_of_issue_has_a_sentence() -> None:
    hours = [hour for hour in range(24) if hour not in (3, 4, 22)]
    before = {DATE - dt.timedelta(days=i): [scored(rows_in=500_000)] for i in (1, 2, 3)}
    night = with_row(QUIET, rows_in=1_200_100, rows_quarantined=90_000, rows_of_another_date=24_000, incidents_shown=1,
                     incidents=1, class_mix=mix(hours, Benign=9), expected_false_alarms=None)  # fmt: skip
    card = dataclasses.replace(CARD, data_origin="measured")
    night = dataclasses.replace(night, nights={**night.nights, **before}, cards={"champion": card})
    page = Page(page_of(night))
    assert {kind: numbers(text) for kind, text in page.texts("data-issue").items()} == {
        "not_reconciled": ["1,200,100", "1,199,800", "90,000"],
        "incidents_differ": ["0", "1"],
        "quarantined": ["90,000", "1,200,100", "7.5%"],
        "other_origin": [],
        "other_date": ["24,000", "1,200,100", "2.0%"],
        "silent_hours": ["03", "00", "05", "00", "22", "00", "23", "00"],
        "unusual_volume": ["1,200,100", "500,000"],
        "false_alarms_unknown": [],
    }
    serious = [each.get("data-issue") for each in page.root.iter("li") if each.get("class") == "mark"]
    assert serious == ["not_reconciled", "incidents_differ", "quarantined", "other_origin"]
    assert page.element("headline").get("data-state") == "incidents_missing"


def test_drift_quality_trend_and_what_is_in_use_are_shown() -> None:
    night = busy()
    page = Page(page_of(night))
    rows = page.rows
    first, *others = night.drifts("feature")
    assert first["drift_index"] == max(row["drift_index"] for row in [*others, first])
    second = others[0]
    assert [
        "Protocol Type mean protocol number",
        f"{second['drift_index']:.3f}",
        second["drift_level"],
        "0",
        "1",
        "0",
    ] in rows
    levels = Counter(row["drift_level"] for row in night.drift[:45])
    assert numbers(page.text("drift-levels"))[:4] == [
        str(levels["significant"]), str(levels["moderate"]), str(levels["stable"]), "0.080"
    ]  # fmt: skip
    assert Counter(level for level, _ in page.all("data-level")) == levels
    for row in (
        ["ward-7/flows-07.parquet", f"unreadable_file {files.REASONS['unreadable_file']}", "?"],
        ["not_a_number a value is not a number", "1,200", "0.1%"],
        ["negative_time_between_packets violated rule: each of the features is 0 or more", "870", "0.072%"],
        ["Benign", "1,180,230", "98.37%", "91%"],
        ["2026-07-11", "not scored"],
        ["2026-07-14", "1,201,110", "3,412", "17", "48.3", str(levels["significant"]), "1,310", VERSION],
        ["classes absent in training", "Recon-VulScan"],
        ["severity policy", "the project's table"],
        ["weekly scan", "2026-07-14", "vuln-scanner-1", "Recon-Port_Scan", ""],
        ["migration", "2026-07-13", "", "", "10.20.4.9"],
    ):
        assert row in rows
    (architecture,) = (text for name, text in (row for row in rows if len(row) == 2) if name == "architecture")
    for text in ("gru_dnn", "19 classes", "paper", "45 features", "synthetic"):
        assert text in architecture
    assert numbers(page.text("reconciliation")) == ["1,201,110", "1,199,800", "1,310", "24"]
    assert numbers(page.text("late")) == ["52,004"]
    assert numbers(page.text("other-date")) == ["17"]
    assert page.text("extra-columns").endswith("vlan, sensor_firmware.")
    assert list(page.texts("data-allow-list")) == ["in force", "expired"]
    assert not page.has("no-allow-list")
    assert "2026-07-08, 2026-07-10" in page.text("other-champions")


def test_the_challenger_is_compared_at_the_classes_that_both_predict() -> None:
    night = busy()
    page = Page(page_of(night))
    assert ["flows flagged", "3,412", "2,950"] in page.rows
    assert ["false alarms expected", "48.3", "44"] in page.rows
    assert {key: numbers(text) for key, text in page.texts("data-agreement").items()} == {
        "both": ["2,700"], "champion_only": ["712"], "challenger_only": ["250"]
    }  # fmt: skip
    # 24 · 812 = 19,488 against 18,900; 24 · 49,700 = 1,192,800 against 1,180,230
    assert ["DDoS-SYN", "18,900", "19,488", "+588"] in page.rows
    assert night_page.differences(night.champion, night.challenger)[:2] == [
        ("Benign", 1_180_230, 1_192_800), ("DDoS-SYN", 18_900, 19_488)
    ]  # fmt: skip
    six = night.champion | {"class_mix": mix([1], Benign=5, DDoS=3, DoS=1)}
    two = night.champion | {"class_mix": mix([1], Benign=5, Attack=3)}
    assert ("Recon", 288, 0) in night_page.differences(night.champion, six)
    assert night_page.differences(six, two) == [("Attack", 4, 3), ("Benign", 5, 5)]
    assert "challenger" not in text_of(Page(page_of(QUIET)).root.find("body"))
    theirs = incident(1, "low", "DoS-TCP", "x", None, model_version="20260712T020000-ef56")
    assert dataclasses.replace(QUIET, incidents=[theirs]).shown == []


def test_the_lake_is_read_as_scoring_writes_it(tmp_path: Path) -> None:
    lake, night = Lake(str(tmp_path)), busy()
    artifact.write_model(lake.uri(f"models/{MODEL}/{VERSION}"), CARD, WEIGHTS, PREPROCESSOR)
    sha256 = artifact.read_model(lake.uri(f"models/{MODEL}/{VERSION}")).sha256
    night = with_row(dataclasses.replace(night, nights=night.nights), model_sha256=sha256)
    write_rows(lake.uri(f"alerts/event_date={DATE}/a.parquet"), night.incidents[::-1], OLD_INCIDENTS)
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
    assert Page(page_of(changed)).has("card-missing")
    assert not Page(page_of(found)).has("card-missing")
    write_rows(lake.uri(f"drift/event_date={DATE}/a.parquet"), night.drift, DRIFT.remove(2))
    with pytest.raises(SchemaMismatch, match=r"drift/event_date=2026-07-14/a.parquet: column 'drift_index' is missing"):
        night_page.night_of_lake(lake, DATE)


def test_a_night_that_was_not_scored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        night_page.night_of_lake(Lake(str(tmp_path)), DATE)
    assert str(error.value) == (
        "nights/ has no row of the champion for 2026-07-14; expected one; run jobs/score.py with"
        " score.date=2026-07-14 first"
    )


def hostile() -> Night:
    """Fifty incidents with external names that are wider than a phone."""
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


def test_external_names_are_escaped() -> None:
    content = page_of(hostile())
    for text in ("<script", "<b>odd", "<i>reason"):
        assert text not in content
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in content
    page = Page(content)
    check_structure(page)
    assert [row[0] for row in page.rows if len(row) == 8 and row[0].isdigit()] == [str(i + 1) for i in range(50)]
    assert numbers(text_of(page.element("more-incidents").find("summary"))) == ["30", "21"]
    assert numbers(page.text("headline")) == ["50", "25"]


def test_characters_that_change_the_direction_or_the_line_are_shown_as_escapes_and_long_lists_are_cut() -> None:
    names = [f"column\u202e\x07{i}" for i in range(20_000)]
    content = page_of(with_row(hostile(), extra_columns=names))
    assert not {c for c in content if not c.isprintable()} - {"\n"}
    text = Page(content).text("extra-columns")
    assert numbers(text)[0] == "20,000"
    assert "column\\u202e\\x079 and 19,990 more" in text
    assert len(content) < 400_000


def test_a_degraded_night_says_so_first_and_is_not_to_be_trusted() -> None:
    reasons = [
        {"reason": "few_flows", "text": "9 flow(s), far fewer than usual: the median of the nights before is 850"},
        {"reason": "files_unreadable", "text": "1 of 2 file(s) could not be read, so their flows are unknown: a"},
    ]
    before = {DATE - dt.timedelta(days=i): [scored(rows_in=850)] for i in (1, 2, 3)}
    night = with_row(QUIET, rows_in=9, rows_scored=9, rows_quarantined=0, degraded=reasons)
    page = Page(page_of(dataclasses.replace(night, nights={**night.nights, **before})))
    check_structure(page)
    headline = page.element("headline")
    assert headline.get("data-degraded") == "few_flows files_unreadable"
    assert page.text("headline").startswith("Degraded night: 9 flow(s), far fewer than usual: the median of the")
    assert page.text("headline").endswith("No flow flagged")
    assert [answer for answer, _ in page.all("data-answer")] == ["yes", "no"]
    assert [kind for kind, _ in page.all("data-issue")][:2] == ["degraded", "degraded"]
    assert "unusual_volume" not in dict(page.all("data-issue"))


def test_a_missing_night_has_a_page_and_is_a_gap_in_the_trend(tmp_path: Path) -> None:
    nothing: dict[str, Any] = {
        "rows_in": 0, "rows_scored": 0, "rows_quarantined": 0, "files": [], "quarantine": [], "class_mix": [],
        "degraded": [{"reason": "missing", "text": "logs/event_date=2026-07-14 holds no flow logs"}],
    }  # fmt: skip
    night = with_row(dataclasses.replace(QUIET, drift=[]), **nothing)
    page = Page(page_of(night))
    check_structure(page)
    assert page.element("headline").get("data-state") == "missing"
    assert page.text("headline") == "Degraded night: logs/event_date=2026-07-14 holds no flow logs"
    assert [kind for kind, _ in page.all("data-issue")] == ["degraded"]
    assert ["2026-07-14", "not scored"] in page.rows
    night_page.write_page(str(tmp_path), night)
    old = with_row(QUIET, degraded=None, unread_times=None, unread_columns=None)
    assert [answer for answer, _ in Page(page_of(old)).all("data-answer")] == ["no", "yes"]


def test_unknown_event_times_and_columns_that_were_not_read_are_counted() -> None:
    times = [{"type": "timestamp[us]", "rows": 12}, {"type": "double", "rows": 30}]
    night = with_row(QUIET, unread_times=times, unread_columns=[{"name": "device_id", "rows": 5}])
    texts = Page(page_of(night)).texts("data-issue")
    assert numbers(texts["unread_times"])[0] == "42"
    assert "timestamp[us], double" in texts["unread_times"]
    assert "device_id" in texts["unread_columns"]
    assert numbers(texts["unread_columns"]) == ["5"]


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("kind", ["busy", "hostile"])
def test_a_browser_shows_every_picture_and_never_scrolls_sideways(
    kind: str, width: int, written: dict[str, Path], tmp_path: Path
) -> None:
    night = busy() if kind == "busy" else hostile()
    shown = show(written[kind] / "night.html", tmp_path, width)
    assert shown.window_width == width
    assert shown.page_width <= width
    assert len(shown.pictures) == 4
    assert all(natural > 300 and visible > 250 for natural, visible in shown.pictures)
    assert shown.places == 0
    assert printable(night.shown[0]["entity"]) in shown.closed
    assert {"action", "severity", "trust", "week"} <= set(shown.visible)
    assert printable(night.shown[-1]["entity"]) in shown.opened


def test_the_pictures_have_the_right_figures() -> None:
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


def test_equal_nights_give_equal_bytes(written: dict[str, Path], tmp_path: Path) -> None:
    night_page.write_page(str(tmp_path), busy())
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"night.html", "timeline.png", "classes.png", "drift.png", "trend.png"}
    assert all((tmp_path / name).read_bytes() == (written["busy"] / name).read_bytes() for name in names)
    check_structure(Page((tmp_path / "night.html").read_text()))
