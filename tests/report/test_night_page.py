"""The page of a night against figures by hand, and as a browser shows it. Every night here is synthetic."""

import dataclasses
import datetime as dt
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ids_spark.alerts import narrative
from ids_spark.alerts.export import ecs, ocsf
from ids_spark.alerts.export.common import Context
from ids_spark.base.errors import InputError
from ids_spark.dataset.features import SchemaMismatch
from ids_spark.dataset.tables import ALERTS, DRIFT, INCIDENTS, NIGHTS
from ids_spark.ingest import files
from ids_spark.lake.parquet import write_rows
from ids_spark.lake.store import Lake
from ids_spark.models import artifact
from ids_spark.models.signatures import open_trust, sign_model
from ids_spark.report import night_figures, night_findings, night_page
from ids_spark.report.night_findings import Night
from tests.support import incidents
from tests.support.browser import Page, check_structure, numbers, show, text_of
from tests.support.evidence import Group, background, found_in
from tests.support.incidents import DATE, MODEL, VERSION, at, incident
from tests.support.keys import key_pair
from tests.support.models import CARD, PREPROCESSOR, WEIGHTS
from tests.support.night_pages import OLD, PACKETS, QUIET, busy, drift, hostile, mix, rates, scored, with_row
from tests.support.published_schemas import ecs_faults, ocsf_faults


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
    assert night_findings.severities(night.shown) == {"critical": 1, "high": 1, "medium": 1, "low": 2}
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
    assert "or those that the model was trained on" in text_of(page.root)  # measured flows, model of synthetic ones
    assert "Tuesday, 14 July 2026, UTC" in text_of(page.root)
    assert [answer for answer, _ in page.all("data-answer")] == ["yes", "care"]
    links = [each.get("href") for each in page.element("action").iter("a")]
    assert links == ["#incident-1", "#incident-2", "#incident-3", "#not-shown"]
    assert numbers(page.text("flagged")) == ["34,120", f"{total:,}", "2.8%"]
    assert {"11,998", "12,532", "0.83"} <= set(numbers(page.text("severity")))
    assert [how for how, _ in page.all("data-false-alarms")] == ["explain-part"]
    assert [(kind, numbers(text)) for kind, text in page.all("data-issue")] == [
        ("incidents_not_shown", ["9"]),
        ("files_refused", ["1", "24"]),
        ("packets_invisible", ["15.1%"]),
        ("drift", [str(significant), "45"]),
    ]
    assert [beyond for beyond, _ in page.all("data-not-shown")] == ["9"]
    assert numbers(page.text("allowed")) == ["640", "34,120"]
    order = ["action", "severity", "trust", "incidents", "hours", "false-alarms", "quality", "drift", "models", "week",
             "in-use"]  # fmt: skip
    assert [name for name, _ in page.all("id") if name in order] == order
    assert "://" not in content


def test_a_page_links_to_the_index_and_to_the_nights_beside_it_that_have_one(tmp_path: Path) -> None:
    def links(night: Night) -> list[str]:
        return [each.get("href", "") for each in Page(page_of(night)).element("nights").iter("a")]

    assert links(QUIET) == [f"../../index.html#night-{DATE}"]
    days = [DATE - dt.timedelta(days=9), DATE, DATE + dt.timedelta(days=2)]
    lake = Lake(str(tmp_path))
    for day in days:
        lake.write("nights", [scored()], event_date=day)
        (tmp_path / f"reports/night/event_date={day}").mkdir(parents=True)
    between = [f"../event_date={day}/night.html" for day in days]
    assert links(night_page.night_of_lake(lake, DATE))[1:] == [between[0], between[2]]
    assert links(night_page.night_of_lake(lake, days[0]))[1:] == [between[1]]
    assert links(night_page.night_of_lake(lake, days[2]))[1:] == [between[1]]


def test_false_alarms_are_shown_with_the_validation_rows_they_are_computed_from() -> None:
    def found(night: Night) -> dict[str, list[str]]:
        texts = Page(page_of(night)).texts("data-finding")
        return {name: numbers(text) for name, text in texts.items()}

    # exp(1.5) / (1 + exp(1.5)) = 0.8176; 1 / 1.25e-5 = 80,000
    assert found(QUIET) == {
        "threshold": ["81.8%", "1.5"],
        "unlike": ["0", "0%", "1.0%"],
        "expected": ["1,199,800", "11,998", "2.5%", "12,532"],
        "smallest-rate": ["240,000", "1", "80,000"],
        "false-incidents": ["1", "4,200", "0.83", "2", "05"],  # 2.1e-05
    }
    assert found(busy())["observed"] == ["1", "2"]
    one = with_row(dataclasses.replace(QUIET, incidents=[incidents.port_scan()]), incidents_shown=1)
    assert "no-verdict" in found(one)
    unknown: dict[str, Any] = {"expected_false_alarms": None, "false_alarms_at_most": None}
    for changes, names in (
        ({"rows_scored": 0, "class_mix": []}, ["threshold", "unlike", "not-scored", "false-incidents"]),
        (
            {"benign_validation_rows": 0, "smallest_rate": 1.0, **unknown},
            ["threshold", "unlike", "no-validation", "no-budget"],
        ),
        ({"smallest_rate": float("nan"), **unknown}, ["threshold", "unlike", "unknown", "false-incidents"]),
        (OLD, ["threshold", "expected", "smallest-rate", "no-budget"]),
    ):
        assert list(found(with_row(QUIET, **changes))) == names


def test_a_second_detector_without_a_threshold_states_no_share_of_benign_rows() -> None:
    few = [each | {"reached": 0, "benign_rows": 30} if each["category"] == "Unknown" else each for each in rates()]
    found = Page(page_of(with_row(QUIET, flows_unknown=0, false_alarm_rates=few))).texts("data-finding")
    assert "unlike" not in found
    assert numbers(found["unlike-unused"]) == ["30"]


def test_rates_of_false_alarms_and_recall_are_shown_by_class_or_said_to_be_unknown() -> None:
    page = Page(page_of(with_row(QUIET, false_alarm_rates=rates(5.0))))
    for row in (["Spoofing", "0.4%", "2.0%"], ["MQTT", "0%", "0%"], ["Recon-Ping_Sweep", "40", "50.0%"],
                ["Recon-VulScan", "0", "cannot tell"], ["mean of classes", "", "75.0%"]):  # fmt: skip
        assert row in page.rows
    assert [name for name, _ in page.all("data-far-above")] == ["DDoS", "DoS", "Recon", "Spoofing", "Unknown"]
    assert numbers(page.texts("data-issue")["false_alarms_drifted"]) == ["0.5%", "0.1%"]
    nothing = [each | {"stored": None, "tonight": None} for each in rates()]
    page = Page(page_of(with_row(QUIET, false_alarm_rates=nothing, recall=None)))
    assert ["Spoofing", "cannot tell", "cannot tell"] in page.rows
    assert not page.has("recall")


def test_an_incident_is_a_line_with_who_whom_when_how_much_and_its_id() -> None:
    page = Page(page_of(busy()))
    lines = {
        each.get("id"): [text_of(part) for part in each[0]]
        for each in page.root.iter("li")
        if each.get("data-incident")
    }
    assert lines["incident-3"] == [
        "3", "low Recon-Port_Scan Recon-OS_Scan",
        "198.51.100.23 src_ip → 6 devices : infusion-pump-01 (51), infusion-pump-02 (50), infusion-pump-03 (49), …",
        "02:14–02:58 291 flows", "99.99% probability of an attack, at most",
    ]  # fmt: skip
    assert lines["incident-1"][2].startswith("5,000 sources : 203.0.0.0 (4),")
    assert lines["incident-5"][2:] == ["unknown source → ward-3-gateway device_id", "no event time 9 flows",
                                       "61.0% probability of an attack, at most"]  # fmt: skip
    evidence = [text_of(each) for each in page.root.iter("p") if each.get("class") == "evidence"]
    port_scan = incidents.port_scan()
    assert evidence[2] == (
        "51 of 60 flows of infusion-pump-01 from 02:00 flagged, false alarms explain 0.62; new ; id"
        f" {port_scan['incident_id']}"
    )
    assert "continuing since 3 July, on 6 of the last 7 nights ; verdict true by j.doe : switch port" in evidence[1]
    assert [life for life, _ in page.all("data-life")][:5] == ["new", "continuing", "new", "returned", "new"]
    assert dict(page.all("data-incident"))[port_scan["incident_id"]]
    many = incidents.flood() | {"sources": [], "sources_found": 40_000}
    page = Page(page_of(dataclasses.replace(busy(), incidents=[many])))
    assert "40,000 sources → ct-scanner-2" in page.text("incident-1")


def test_a_device_that_is_the_source_has_an_unknown_target() -> None:
    row = incidents.port_scan(1) | {
        "devices_found": 1,
        "devices": incidents.entities("device_id", {"198.51.100.23": 9}),
    }
    [line] = Page(page_of(with_row(dataclasses.replace(QUIET, incidents=[row]), incidents_shown=1))).all(
        "data-incident"
    )
    assert "→ unknown target" in " ".join(str(part) for part in line)


def test_an_incident_folds_out_to_its_sentences_alerts_and_flows() -> None:
    page = Page(page_of(busy()))
    folded = next(each for each in page.element("incident-3") if each.tag == "details")
    assert tuple(text_of(each) for each in folded.iter("li")) == narrative.sentences(incidents.port_scan())
    rows = [[text_of(cell) for cell in row] for row in folded.iter("tr")]
    assert rows[0] == ["entity", "from, UTC", "category", "flagged", "of flows", "explained by false alarms"]
    assert rows[1] == ["198.51.100.23 src_ip", "02:00", "Recon", "51", "60", "0.62"]
    assert [row[0].split()[0] for row in rows[2:8]] == list(incidents.PUMPS)
    why = ("share of SYN packets 0.98 (syn_flag_number, +3.2) packet rate 51,230 (Rate, +1.5)"
           " time between packets 8.4e-07 (IAT, −0.3)")  # fmt: skip
    # 1 / (1 + exp(-8.5)) = 0.999797
    assert rows[-1] == ["Recon-Port_Scan", "198.51.100.23", "infusion-pump-01", "99.98% 8.5", why,
                        "4711 flows-02.parquet"]  # fmt: skip
    other = [text_of(cell) for row in page.element("incident-5").iter("tr") for cell in row]
    assert other[6:] == ["ward-3-gateway device_id", "no event time", "Recon", "9", "60", "0.0001"]  # of its level
    many = [incidents.alert(incidents.port_scan(), f"pump-{i}") for i in range(30)]
    cut = Page(page_of(dataclasses.replace(busy(), alerts=many))).element("incident-3")
    assert sum(1 for _ in cut.iter("tr")) == 1 + night_page.LISTED_ALERTS + 2
    assert "10 more" in text_of(cut)


def test_incidents_that_were_found_in_a_night_are_shown_and_exported_as_they_are() -> None:
    pumps = [f"pump-{i:02d}" for i in range(1, 7)]
    groups = [
        Group(300, 3, pumps, "198.51.100.23", "Recon-Port_Scan"),
        Group(50, None, "bed-01", None, "ARP_Spoofing"),
        Group(50, 3, None, "192.0.2.77", "ARP_Spoofing"),
        Group(50, 3, None, None, "DoS-UDP"),
    ]
    found, alerts = found_in([*background(), *groups])
    rows = [row | {"rank": i + 1} for i, row in enumerate(found.to_pylist())]
    model = {name: rows[0][name] for name in ("model", "model_version", "run_id", "data_origin")}
    date = dt.date(2026, 3, 1)
    champion = scored(**model, incidents=4, incidents_shown=4, flows_flagged=500)
    night = Night(date, rows, [], {date: [champion]}, alerts=alerts.to_pylist())
    page = Page(page_of(night))
    check_structure(page)
    assert len(page.all("data-incident")) == 4
    assert sum(len(night.alerts_of[row["incident_id"]]) for row in rows) == len(alerts)
    text = text_of(page.root)
    for part in ("198.51.100.23 src_ip → 6 devices", "flows.parquet source_file", "192.0.2.77 src_ip → unknown device"):
        assert part in text
    for row in rows:
        assert ocsf_faults(ocsf.event(row, Context(date))) == []
        assert ecs_faults(ecs.document(row, Context(date))) == []


def test_what_verdicts_took_off_the_list_what_ended_and_what_did_not_fit_is_shown() -> None:
    page = Page(page_of(busy()))
    for state, verdict in (("muted", "mute"), ("learned", "benign"), ("closed", "close")):
        folded = page.element(f"folded-{state}")
        assert [each.get("data-verdict") for each in folded.iter("b") if each.get("data-verdict")] == [verdict]
    assert "verdict mute until 2026-08-01 by a.b : migration of ward 3" in page.text("folded-muted")
    assert page.text("ended").endswith("DoS-UDP: 10.9.0.9 against ct-scanner-1, of 2026-07-13; id " + "e0" * 16)
    assert [row for row in page.rows if len(row) == 3][1:3] == [["MQTT", "broker", "7"], ["Recon", "fridge-1", "2"]]
    assert not page.has("incident-6")  # beyond the most lines
    quiet = dataclasses.replace(QUIET, incidents=incidents.folded())
    page = Page(page_of(with_row(quiet, flows_flagged=900)))
    assert page.element("headline").get("data-state") == "incidents_folded"
    assert numbers(page.text("headline")) == ["1", "1", "1"]
    assert [answer for answer, _ in page.all("data-answer")] == ["no", "yes"]


def test_more_flagged_flows_than_false_alarms_explain_need_action_although_no_incident_stands_out() -> None:
    page = Page(page_of(with_row(QUIET, flows_flagged=900_000, flows_allowed=0)))
    assert page.element("headline").get("data-state") == "unexplained"
    assert [answer for answer, _ in page.all("data-answer")] == ["yes", "yes"]


def test_a_quiet_night_needs_no_action() -> None:
    page = Page(page_of(QUIET))
    check_structure(page)
    assert page.element("headline").get("data-state") == "nothing_flagged"
    assert [answer for answer, _ in page.all("data-answer")] == ["no", "yes"]
    assert numbers(page.text("trust")) == ["1,199,800", "1,200,000"]
    assert page.all("data-issue") == page.all("data-not-shown") == page.all("data-false-alarms") == []
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


def test_a_date_that_is_not_over_says_so_far_and_nothing_of_late_flows() -> None:
    hour = {"run_of_night": 7, "runs_per_night": 24}
    page = Page(page_of(with_row(busy(), **hour)))
    assert page.text("headline").startswith("5 incidents to look at so far, ")
    assert "Expected false incidents so far: 0.83." in page_of(with_row(busy(), **hour))
    assert not page.has("late")
    assert Page(page_of(with_row(QUIET, **hour))).text("headline") == "No flow flagged so far"
    assert Page(page_of(busy())).has("late")


def test_every_kind_of_issue_has_a_sentence() -> None:
    hours = [hour for hour in range(24) if hour not in (3, 4, 22)]
    before = {DATE - dt.timedelta(days=i): [scored(rows_in=500_000)] for i in (1, 2, 3)}
    night = with_row(QUIET, rows_in=1_200_100, rows_quarantined=90_000, rows_of_another_date=24_000, incidents_shown=1,
                     incidents=1, class_mix=mix(hours, Benign=9), expected_false_alarms=None,
                     false_alarm_rates=rates(5.0), packets=PACKETS,
                     incidents_not_shown=[{"category": "MQTT", "entity": "a", "incidents": 1}])  # fmt: skip
    card = dataclasses.replace(CARD, data_origin="measured")
    night = dataclasses.replace(night, nights={**night.nights, **before}, cards={"champion": card})
    page = Page(page_of(night))
    assert {kind: numbers(text) for kind, text in page.texts("data-issue").items()} == {
        "not_reconciled": ["1,200,100", "1,199,800", "90,000"],
        "incidents_differ": ["0", "1"],
        "quarantined": ["90,000", "1,200,100", "7.5%", "0.2%"],
        "packets_invisible": ["15.1%"],
        "other_origin": [],
        "other_date": ["24,000", "1,200,100", "2.0%"],
        "silent_hours": ["03", "00", "05", "00", "22", "00", "23", "00"],
        "unusual_volume": ["1,200,100", "500,000"],
        "false_alarms_unknown": [],
        "false_alarms_drifted": ["0.5%", "0.1%"],
        "incidents_not_shown": ["1"],
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
        ["2026-07-14", "1,201,110", "34,120", "17", "0.83", str(levels["significant"]), "1,310", VERSION],
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
    assert numbers(page.text("packets")) == ["40,000", "24", "10", "15.1%", "15.0%", "0.1%", "120"]
    assert "IPv6" in page.text("packets")
    assert "tunnels" in page.text("packets")
    assert numbers(page.text("late")) == ["52,004"]
    assert numbers(page.text("other-date")) == ["17"]
    assert page.text("extra-columns").endswith("vlan, sensor_firmware.")
    assert list(page.texts("data-allow-list")) == ["in force", "expired"]
    assert not page.has("no-allow-list")
    assert "2026-07-08, 2026-07-10" in page.text("other-champions")
    assert page.text("older-nights").startswith("2026-07-08, 2026-07-10: scored by an older version")
    assert next(row for row in rows if row[0] == "2026-07-10")[4] == "–"


def test_the_challenger_is_compared_at_the_classes_that_both_predict() -> None:
    night = busy()
    page = Page(page_of(night))
    assert ["flows flagged", "34,120", "2,950"] in page.rows
    assert ["false alarms expected", "11,998", "11,000"] in page.rows
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
    theirs = incidents.port_scan() | {"model_version": "20260712T020000-ef56"}
    assert dataclasses.replace(QUIET, incidents=[theirs]).shown == []


def test_the_lake_is_read_as_scoring_writes_it(tmp_path: Path) -> None:
    lake, night, keys = Lake(str(tmp_path / "lake")), busy(), key_pair(tmp_path)
    card, uri = dataclasses.replace(CARD, name=MODEL, version=VERSION), lake.uri(f"models/{MODEL}/{VERSION}")
    sha256 = artifact.write_model(uri, card, WEIGHTS, PREPROCESSOR)
    night = with_row(dataclasses.replace(night, nights=night.nights), model_sha256=sha256)
    write_rows(lake.uri(f"incidents/event_date={DATE}/a.parquet"), night.incidents[::-1], INCIDENTS)
    write_rows(lake.uri(f"alerts/event_date={DATE}/a.parquet"), night.alerts, ALERTS)
    write_rows(lake.uri(f"drift/event_date={DATE}/a.parquet"), night.drift, DRIFT)
    for date, rows in night.nights.items():
        write_rows(lake.uri(f"nights/event_date={date}/a.parquet"), rows, NIGHTS)
    found = night_page.night_of_lake(lake, DATE)
    ids = [row["incident_id"] for row in night.shown]
    assert [row["incident_id"] for row in found.shown] == ids
    assert found.shown[0]["first_seen"] == at(3, 2, 9)
    assert found.folded.keys() == night.folded.keys()
    assert found.alerts_of.keys() == night.alerts_of.keys()
    assert found.champion == night.champion
    assert [date.day for date, row in found.trend.items() if row is None] == [9, 11]
    assert found.cards == {"champion": card}
    trust = open_trust(lake, [str(keys.public)])
    assert night_page.night_of_lake(lake, DATE, trust).cards == {}  # it is not signed
    sign_model(uri, keys.sign_key, MODEL, VERSION, sha256)
    assert night_page.night_of_lake(lake, DATE, trust).cards == {"champion": card}
    old = write_rows(lake.uri("nights/event_date=2026-07-13/a.parquet"), night.nights[DATE], NIGHTS.remove(0))
    assert old is None
    assert night_page.night_of_lake(lake, DATE).trend[dt.date(2026, 7, 13)] is None
    (tmp_path / f"lake/models/{MODEL}/{VERSION}/weights.npz").write_bytes(b"x")
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


def test_external_names_are_escaped() -> None:
    content = page_of(hostile())
    for text in ("<script", "<b>odd", "<i>reason"):
        assert text not in content
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in content
    page = Page(content)
    check_structure(page)
    listed = [each.get("id") for each in page.root.iter("li") if each.get("data-incident")]
    assert listed[:50] == [f"incident-{i + 1}" for i in range(50)]
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


def test_packets_are_stated_for_logs_of_captures_only_and_a_large_share_in_no_flow_is_a_reason_for_care() -> None:
    assert not Page(page_of(QUIET)).has("packets")
    assert not Page(page_of(with_row(QUIET, packets=None))).has("packets")
    few = PACKETS | {"invisible": [{"name": "ipv6", "packets": 4_000}], "marks": []}
    for packets, issues in ((few, []), (few | {"seen": 39_999}, ["packets_invisible"])):
        page = Page(page_of(with_row(QUIET, packets=packets)))
        assert page.has("packets")
        assert [kind for kind, _ in page.all("data-issue")] == issues
    degraded = [{"reason": "packets_invisible", "text": "no model can see 60.0% of 10 packet(s)"}]
    page = Page(page_of(with_row(QUIET, packets=PACKETS, degraded=degraded)))
    assert [kind for kind, _ in page.all("data-issue")] == ["degraded"]
    nothing = {"captures": 1, "window_lengths": [10, 100], "seen": 0, "invisible": [], "marks": []}
    assert numbers(Page(page_of(with_row(QUIET, packets=nothing))).text("packets")) == ["0", "1", "10", "100"]


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
    name = narrative.short_name(night.shown[0]["lead_entity"])
    assert name in shown.closed
    assert night.shown[0]["incident_id"] in shown.closed
    assert night.shown[-1]["incident_id"] in shown.opened
    assert {"action", "severity", "trust", "week"} <= set(shown.visible)
    assert {"incident-1", "incident-list", "not-shown", "folded-muted", "ended"} <= set(shown.visible)
    assert "Harmless if" in shown.opened
    assert "Harmless if" not in shown.closed


def test_the_pictures_have_the_right_figures() -> None:
    night = busy()
    (axes,) = night_figures.timeline(night.shown, DATE).axes
    bars = [(bar.get_x(), bar.get_width()) for bar in axes.patches]
    # the flood at 03:02:09, for 44 minutes and 8 seconds; without a time behind the end of the night
    assert bars[0] == pytest.approx((3 + 129 / 3600, 2648 / 3600))
    assert bars[4][0] > night_figures.HOURS
    texts = [text.get_text() for text in axes.texts]
    assert texts[2] == "3  Recon-Port_Scan: 198.51.100.23 against 6 devices"
    assert len(texts) == 5
    late = incident(1, "high", {"DoS-TCP": 1}, {}, {"$\\x$ 病": 1}, at(23, 50))
    (axes,) = night_figures.timeline([late], DATE).axes
    assert axes.patches[0].get_x() + axes.patches[0].get_width() == pytest.approx(24)
    (of_next_date,) = night_figures.timeline([late], DATE - dt.timedelta(days=1)).axes
    assert "no time" not in [label.get_text().strip() for label in of_next_date.get_xticklabels()]
    assert axes.texts[0].get_text() == "1  DoS-TCP: an unknown source against $\\x$ ?"
    hidden = incident(1, "high", {"DoS-TCP": 1}, {"9a9c77a32ce8c6bbd80875af2573c007": 1}, {"x" * 300: 1}, at(9, 50))
    (axes,) = night_figures.timeline([hidden], DATE).axes
    assert axes.texts[0].get_text() == "1  DoS-TCP: 9a9c77a3.. against " + "x" * 32 + ".."
    assert not axes.texts[0].get_in_layout()
    mix_by_hour = night_page.by_hour(night.champion)
    assert {name: int(counts.sum()) for name, counts in mix_by_hour.items()} == {
        "Benign": 1_180_230, "DDoS": 18_900, "MQTT": 72, "Recon": 288, "Spoofing": 310
    }  # fmt: skip
    assert [int(mix_by_hour["DDoS"][hour]) for hour in (2, 3, 4)] == [18_000, 900, 0]
    assert int(mix_by_hour["Benign"][24]) == 4_230
    hours = night_figures.class_hours(mix_by_hour)
    assert [axes.get_title("left") for axes in hours.axes][:2] == ["Benign: 1,180,230", "DDoS: 18,900"]
    trend = night_figures.nights(night.trend, night_page.TREND)
    assert [text.get_text() for text in trend.axes[1].texts][-1] == "34k"
    assert [text.get_text() for text in trend.axes[3].texts] == ["–", "–", "0.83", "0.83", "0.83"]
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


def test_the_stage_of_the_site_and_what_is_not_open_while_it_learns() -> None:
    weak = incident(None, "low", {"Recon-Port_Scan": 4}, {"203.0.113.7": 4}, {"pump-9": 4}, at(3), state="learning",
                    shown=False, learning="site", strong=False)  # fmt: skip
    learning = {"stage": "learning", "stage_text": "Learning, night 3 of 14.", "incidents_learning": 1}
    night = with_row(dataclasses.replace(QUIET, incidents=[weak]), **learning, devices_learning=2)
    page = Page(page_of(night))
    assert [stage for stage, _ in page.all("data-stage")] == ["learning"]
    assert "night 3 of 14" in page.text("stage")
    assert "2 devices are new" in page.text("stage")
    assert page.element("folded-learning") is not None
    assert "learning" in [kind for kind, _ in page.all("data-issue")]
    assert night_findings.state(night) == "incidents_folded"
    operating = Page(page_of(with_row(QUIET, stage="operating", stage_text="Operating: all held.")))
    assert "Operating" in operating.text("stage")
    assert "learning" not in [kind for kind, _ in operating.all("data-issue")]
    assert [*Page(page_of(with_row(QUIET, **OLD))).all("data-stage")] == []


def test_what_the_inventory_says_of_an_incident_and_of_devices_that_it_lacks() -> None:
    known = {
        "kind": "device_id",
        "name": "pump-9",
        "device": "pump-9",
        "type": "infusion pump",
        "department": "Ward 3",
        "patient_connected": True,
        "criticality": 5,
        "owner": "<b>Ada",
        "maintenance": "Sun 02:00-04:00",
    }
    found = incident(1, "low", {"Recon-Port_Scan": 40}, {"203.0.113.7": 40}, {"pump-9": 40}, at(3), inventory=[known],
                     flows_in_maintenance=30)  # fmt: skip
    unknown = {"devices_unknown": [{"kind": "device_id", "name": "x<i>", "flows": 7}], "devices_unknown_found": 12}
    page = Page(page_of(with_row(dataclasses.replace(QUIET, incidents=[found]), incidents_shown=1, **unknown)))
    check_structure(page)
    [(name, text)] = page.all("data-inventory")
    assert name == "pump-9"
    assert "infusion pump, Ward 3, connected to a patient, criticality 5, owner <b>Ada" in text
    [(flows, sentence)] = page.all("data-maintenance")
    assert (flows, numbers(sentence)) == ("30", ["30", "40"])
    assert page.element("unknown-devices").get("data-devices") == "12"
    assert "x<i>" in text_of(page.root)


def test_devices_and_sources_with_quarantined_flows_are_all_listed_below_the_first_line() -> None:
    refused = [
        {"kind": "device_id", "name": f"pump-{i:03}", "rows": 90 - i // 5, "flows": 400, "scored": 9, "flagged": 5,
         "reason": "not_a_number"} for i in range(120)
    ]  # fmt: skip
    refused.append({**refused[0], "kind": "source_file", "name": "<a>.parquet", "flows": None, "reason": None})
    night = with_row(QUIET, rows_scored=1_191_000, rows_quarantined=9_000, rows_imputed=1_080,
                     quarantine_entities=refused, quarantine_entities_found=130)  # fmt: skip
    page = Page(page_of(night))
    check_structure(page)
    assert numbers(page.text("headline"))[:4] == ["9,000", "1,200,000", "0.75%", "0.2%"]
    assert {name for name, _ in page.all("data-refused-of")} == {each["name"] for each in refused}
    assert numbers(page.text("more-refused-of"))[0] == "101"
    assert ["pump-000 device_id", "90", "400", "9", "5", "not_a_number"] in page.rows
    assert page.texts("data-issue").keys() == {"quarantined"}
    assert [answer for answer, _ in page.all("data-answer")] == ["yes", "care"]
    assert not Page(page_of(with_row(QUIET, rows_quarantined=0))).has("quarantine")
