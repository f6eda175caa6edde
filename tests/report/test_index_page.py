"""The index of all nights: what it says of each, as a browser shows it, after any order of writers. Synthetic."""

import datetime as dt
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from ids_spark.lake.store import Lake
from ids_spark.report import index_facts, index_page
from tests.support import incidents
from tests.support.browser import Page, ask, check_structure, numbers, show, text_of
from tests.support.flows import RunJob
from tests.support.lake_of_nights import LAST, months, write_night

POST = 'parent.postMessage(facts, "*"); });</script>'
LISTED = """const listed = () => ({
  summary: document.getElementById("summary").textContent,
  names: [...document.querySelectorAll("#names li")].map(each => each.textContent),
  found: [...document.querySelectorAll("#results li")].map(each => each.dataset.incident),
  links: [...document.querySelectorAll("#results a")].map(each => each.getAttribute("href")),
  lit: [...document.querySelectorAll("td[data-night]:not(.dim)")].map(each => each.dataset.night),
});
const type = (name, text) => {
  const field = document.getElementById(name);
  field.value = text;
  field.dispatchEvent(new Event("input", {bubbles: true}));
};"""


def asked(page: Path, work: Path, script: str, width: int = 390, fragment: str = "") -> Any:
    """What a script leaves in `facts` once the page is loaded; it may use `listed` and `type`."""
    begin = f'<script>addEventListener("load", () => {{ const facts = {{}}; {LISTED}'
    return ask(page, work, width, f"{begin}{script}{POST}", fragment)


def place(lake: Lake, *parts: str) -> Path:
    return Path(lake.root.removeprefix("file://"), *parts)


def content_of(lake: Lake) -> str:
    """The page, without the time of writing, and without hashes of files, which are null as long as they are new."""
    page = re.sub(r'"files":(null|"[0-9a-f]{20}")', "", place(lake, index_page.PLACE).read_text())
    return re.sub(r"written [0-9: -]+ UTC", "", page)


def settle(lake: Lake) -> None:
    """Make the files of all nights as old as their dates, so that the next index trusts them."""
    for path in place(lake).glob("*/event_date=*/*.parquet"):
        at = dt.datetime.fromisoformat(path.parent.name.partition("=")[2]).timestamp()
        os.utime(path, (at, at))


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Ten dates, 5 to 14 July: one of each state, a gap of two dates, a new champion, a night without exports."""
    lake = Lake(str(tmp_path_factory.mktemp("few") / "lake"))
    day = [LAST - dt.timedelta(days=9 - i) for i in range(10)]
    write_night(lake, day[0], stage="learning")
    write_night(lake, day[1], degraded=[{"reason": "few_flows", "text": "far fewer flows than usual"}])
    write_night(lake, day[2], rows_in=0, rows_scored=0, rows_quarantined=0, class_mix=[],
                degraded=[{"reason": "missing", "text": "no flow logs"}])  # fmt: skip
    write_night(lake, day[3], rows_in=200, rows_scored=0, rows_quarantined=200, class_mix=[])
    write_night(lake, day[6], [incidents.arp(1)], drift_significant=3)
    place(lake, f"exports/event_date={day[6]}").rmdir()
    new = {"model_version": "20260712T020000-cd"}
    write_night(lake, day[7], run_of_night=7, runs_per_night=24, **new)
    write_night(lake, day[8], incidents.folded(), **new)
    shown = [incidents.flood(), incidents.port_scan(2), incidents.unknown(3)]
    write_night(lake, day[9], shown, challenger=True, flows_flagged=34_120, **new)
    given = {"owner": "a", "reason": "b", "category": "x", "entities": [], "incident": "-", "event_date": day[9],
             "created_at": incidents.at(9), "run_id": "20260715T080000Z-aa"}  # fmt: skip
    verdicts = [(shown[0], "true"), (shown[1], "benign"), (shown[2], "true"), (shown[2], "unlearn")]
    rows = [given | {"incident_id": row["incident_id"], "verdict": name,
                     "created_at": incidents.at(9, minute)} for minute, (row, name) in enumerate(verdicts)]  # fmt: skip
    lake.write("verdicts", rows, run_id="20260715T080000Z-aa")
    assert index_page.write(lake)
    return lake


def test_each_date_has_its_state_its_incidents_by_severity_and_its_marks(few: Lake) -> None:
    page = Page(place(few, index_page.PLACE).read_text())
    check_structure(page, ("#", "night/event_date="))
    cells = {
        each.get("data-night"): (each.get("data-state"), each.get("data-severity"), text_of(each).split()[1:])
        for each in page.root.iter("td") if each.get("data-night")
    }  # fmt: skip
    assert cells == {
        "2026-07-05": ("learning", None, ["0", "L"]),
        "2026-07-06": ("degraded", None, ["0", "!"]),
        "2026-07-07": ("missing", None, ["no", "logs"]),
        "2026-07-08": ("not_scored", None, ["none", "scored"]),
        "2026-07-09": ("absent", None, ["–"]),
        "2026-07-10": ("absent", None, ["–"]),
        "2026-07-11": ("scored", "high", ["1", "D", "E"]),
        "2026-07-12": ("partial", None, ["0", "P", "M"]),
        "2026-07-13": ("scored", None, ["0"]),
        "2026-07-14": ("scored", "critical", ["3"]),
    }
    labels = {each.get("href", ""): each.get("aria-label", "") for each in page.root.iterfind(".//td/a[@aria-label]")}
    newest = labels["night/event_date=2026-07-14/night.html"]
    assert newest == "Tuesday, 14 July 2026: 3 incidents to look at (1 critical, 1 medium, 1 low)"
    assert "so far, after run 7 of 24" in labels["night/event_date=2026-07-12/night.html"]
    assert "1 muted; 1 learned; 1 closed" in labels["night/event_date=2026-07-13/night.html"]
    paths = [each.get("href", "").partition("#")[0] for each in page.root.iter("a")]
    assert all(place(few, "reports", path).exists() for path in paths)


def test_the_cards_say_how_the_newest_night_is_what_is_missing_and_whether_people_agree(few: Lake) -> None:
    page = Page(place(few, index_page.PLACE).read_text())
    assert page.text("newest").startswith("Newest night: Tuesday, 14 July 2026 3 incidents to look at")
    top = [each.get("href", "").partition("#")[2] for each in page.element("newest").iterfind(".//ol/li/a")]
    assert top == ["incident-1", "incident-2", "incident-3"]
    (gaps,) = page.all("data-absent")
    assert (gaps[0], numbers(page.text("gaps"))[0]) == ("4", "4")
    assert page.all("data-degraded")[0][0] == "1"
    changes = {name: numbers(text) for name, text in page.all("data-change")}
    assert changes["incidents to look at"] == ["0.8"]  # four incidents on five complete nights with flows
    assert page.text("changes").startswith("What changed? Means of the last 5 nights")
    decided = page.element("precision")
    assert numbers(text_of(decided)) == ["1", "2", "50.0%", "95%", "1.3%", "98.74%", "2", "4"]
    assert page.texts("data-origin").keys() == {"synthetic"}


def test_an_index_that_takes_unchanged_nights_from_the_last_one_equals_a_new_one(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    months(lake, 40)
    first = LAST - dt.timedelta(days=39)

    def read(again: bool) -> tuple[str, list[dt.date]]:
        read: list[dt.date] = []
        whole = index_facts._facts
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(index_facts, "_facts", lambda *a: read.append(a[1]) or whole(*a))  # type: ignore[func-returns-value]
            index_page.write(lake, again=again)
        return content_of(lake), sorted(read)

    new, all_nights = read(False)
    assert len(all_nights) >= 36
    assert read(False) == (new, [])
    write_night(lake, first, [incidents.flood()])
    settle(lake)  # the same time and maybe another size: still found by its size
    write_night(lake, LAST, [incidents.arp(1)])
    place(lake, f"nights/event_date={all_nights[5]}/part-00000.parquet").unlink()
    changed, reread = read(False)
    assert changed != new
    assert {first, LAST} <= set(reread)
    assert all_nights[5] not in {dt.date.fromisoformat(each) for each in re.findall(r'"date":"([^"]+)"', changed)}
    assert read(True)[0] == changed


def test_a_second_version_of_the_same_size_and_time_is_read(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    write_night(lake, LAST - dt.timedelta(days=1))
    sizes = []
    for flagged in (1_111, 1_112):
        write_night(lake, LAST, flows_flagged=flagged)  # sets the time of its files
        sizes.append([path.stat().st_size for path in place(lake).glob(f"*/event_date={LAST}/*.parquet")])
        index_page.write(lake)
        assert f'"flagged":{flagged}' in content_of(lake)
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("damage", ["", "<html>", '<script type="application/json" id="data">{"version": 7}</script>'])
def test_a_damaged_index_is_written_again_from_the_tables(tmp_path: Path, damage: str) -> None:
    lake = Lake(str(tmp_path / "lake"))
    months(lake, 5)
    index_page.write(lake)
    expected = content_of(lake)
    place(lake, index_page.PLACE).write_text(damage)
    index_page.write(lake)
    assert content_of(lake) == expected


def test_a_night_that_cannot_be_read_is_counted_and_the_others_are_shown(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    months(lake, 5)
    place(lake, f"incidents/event_date={LAST - dt.timedelta(days=1)}/part-00000.parquet").write_bytes(b"PAR1")
    index_page.write(lake)
    page = Page(place(lake, index_page.PLACE).read_text())
    assert numbers(page.text("unread")) == ["1"]
    assert dict(page.all("data-night")).keys() >= {str(LAST)}
    assert [each.get("data-state") for each in page.root.iter("td")
            if each.get("data-night") == str(LAST - dt.timedelta(days=1))] == ["unread"]  # fmt: skip


def test_months_without_a_night_and_dates_far_away_take_no_room(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    dates = [dt.date(1, 1, 1), dt.date(2024, 2, 28), dt.date(2024, 3, 1), LAST, dt.date(9999, 12, 31)]
    for date in dates:
        write_night(lake, date, scored_at=incidents.at(2))  # also the time of its files
    assert index_page.write(lake)
    page = Page(place(lake, index_page.PLACE).read_text())
    states = [(each.get("data-night", ""), each.get("data-state")) for each in page.root.iter("td")]
    found = {date: state for date, state in states if date}
    assert {date for date, state in found.items() if state == "scored"} == {str(date) for date in dates}
    assert found["2024-02-29"] == "absent"
    assert len(found) == 31 + 29 + 31 + 31 + 31  # of five months
    assert page.all("data-absent")[0][0] == "29"  # of 30 dates to the newest night


def test_what_a_killed_writer_left_is_removed_after_an_hour(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    write_night(lake, LAST)
    left = [place(lake, f"reports/index.html.{i}.new") for i in range(2)]
    for path in left:
        path.write_text("ct-scanner-2")
    os.utime(left[0], (0, 0))
    index_page.write(lake)
    assert [path.exists() for path in left] == [False, True]


def test_of_jobs_that_end_at_once_the_last_writer_has_read_what_all_committed(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    dates = [LAST - dt.timedelta(days=i) for i in range(8)]
    start = threading.Barrier(len(dates))

    def night(date: dt.date) -> None:
        start.wait()
        write_night(lake, date, [incidents.arp(1)])
        index_page.write(lake)

    threads = [threading.Thread(target=night, args=(date,)) for date in dates]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    page = Page(place(lake, index_page.PLACE).read_text())
    cells = {
        each.get("data-night"): each.get("data-severity") for each in page.root.iter("td") if each.get("data-night")
    }
    assert cells == {str(date): "high" for date in dates}
    assert [path.name for path in place(lake, "reports").glob("index*")] == ["index.html"]


def test_a_purge_leaves_no_name_of_a_removed_night_and_a_job_writes_the_index(run_job: RunJob, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    write_night(lake, LAST, [incidents.arp(1)])
    write_night(lake, LAST - dt.timedelta(days=40), [incidents.flood()])
    assert run_job("report") == 0
    assert "ct-scanner-2" in content_of(lake)
    assert run_job("purge", purge__older_than_days=30, purge__today=LAST) == 0
    assert "ct-scanner-2" not in content_of(lake)
    assert "bedside-monitor-12" in content_of(lake)


def test_an_index_that_cannot_be_written_costs_an_exit_code_and_no_table(
    run_job: RunJob, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lake = Lake(str(tmp_path / "lake"))
    write_night(lake, LAST)
    place(lake, index_page.PLACE, "in_the_way").mkdir(parents=True)
    assert run_job("report") == 3
    assert "index.html was not written, the tables of this run are committed" in caplog.text
    assert len(list(place(lake, "audit").glob("*-report.parquet"))) == 1


def test_a_lake_without_nights_and_pages_has_no_index(tmp_path: Path) -> None:
    assert not index_page.write(Lake(str(tmp_path / "lake")))
    assert not (tmp_path / "lake").exists()


def test_old_incidents_beyond_the_most_names_are_counted_but_not_found(
    few: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_facts, "MOST_NAMES", 47)  # 32 of the newest night, 12 of the one before, 4 of 11 July
    stored = index_facts.read(few, index_facts.files_of(few), None)
    assert [night.date.day for night in stored.nights if night.incidents is None] == [5, 6, 7, 8, 11]
    assert stored.nights[4].severities == {"high": 1}
    page = Page(index_page.render_page(index_page.index_of(few, stored)))
    assert any("Incidents of 5 nights to 2026-07-11" in text_of(each) for each in page.root.iter("p"))


def test_a_browser_finds_devices_filters_by_severity_and_model_and_links_to_incidents(
    few: Lake, tmp_path: Path
) -> None:
    page = place(few, index_page.PLACE)
    facts = asked(page, tmp_path, """
      facts.start = listed();
      type("query", "INFUSION-pump-03"); facts.pump = listed();
      type("query", "10.20.4.117 arp"); facts.both = listed();
      type("query", ""); type("severity", "critical"); facts.severity = listed();
      type("severity", ""); type("state", "muted"); facts.state = listed();
      type("state", ""); type("model", "champion gru_dnn-19-paper 20260712T020000-cd"); facts.model = listed();
      type("model", "challenger boost-19 20260601T020000-ff"); facts.challenger = listed();
      type("model", ""); type("query", "nothing of this kind"); facts.nothing = listed();
    """)  # fmt: skip
    scan, flood, arp = (each["incident_id"] for each in (incidents.port_scan(2), incidents.flood(), incidents.arp(1)))
    assert facts["start"]["summary"] == ""
    assert len(facts["start"]["lit"]) == 10
    assert facts["pump"]["found"] == [scan]
    assert facts["pump"]["lit"] == ["2026-07-14"]
    assert facts["pump"]["names"] == ["infusion-pump-03: device in 1 incident, on 14 Jul 2026"]
    assert facts["both"]["found"] == [arp]
    assert facts["severity"]["found"] == [flood]
    assert len(facts["state"]["found"]) == 1
    assert facts["model"]["lit"] == ["2026-07-12", "2026-07-13", "2026-07-14"]
    assert facts["challenger"]["lit"] == ["2026-07-14"]
    assert facts["nothing"]["summary"] == "Nothing found."
    assert facts["nothing"]["lit"] == []
    for link in (each for found in facts.values() for each in found["links"]):
        path, _, anchor = link.partition("#")
        assert anchor in ("", *re.findall(r'id="([^"]+)"', (page.parent / path).read_text()))


def test_a_search_can_be_part_of_the_address(few: Lake, tmp_path: Path) -> None:
    facts = asked(place(few, index_page.PLACE), tmp_path, "facts.at = listed();", fragment="#q=ct%2Dscanner%2d2")
    assert facts["at"]["found"] == [incidents.flood()["incident_id"]]


HOSTILE = (
    "</script><img src=x onerror=\"document.title='run'\"><script>document.title='run'</script><!-- ]]> \u2028{{7*7}}"
)


def test_names_of_the_lake_are_text_whatever_they_hold(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    names = [HOSTILE, "javascript:alert(1)", *incidents.hostile_names()]
    rows = [
        incidents.incident(i + 1, HOSTILE, {HOSTILE: 5}, {name: 5}, {f"{name}-d": 5},
                           incident_id=f"{i}{HOSTILE}", category=HOSTILE)
        for i, name in enumerate(names)
    ]  # fmt: skip
    write_night(lake, LAST, rows, model=HOSTILE, model_version=HOSTILE,
                degraded=[{"reason": "few_flows", "text": HOSTILE}])  # fmt: skip
    index_page.write(lake)
    page = place(lake, index_page.PLACE)
    check_structure(Page(page.read_text()), ("#", "night/event_date="))
    facts = asked(page, tmp_path, """
      facts.title = document.title; facts.images = document.images.length;
      type("query", "onerror="); facts.hostile = listed();
      type("query", "Überwachung-病棟-🏥"); facts.city = listed();
      facts.title_after = document.title; facts.images_after = document.images.length;
    """)  # fmt: skip
    assert (facts["title"], facts["images"]) == (f"Nights to {LAST}", 0)
    assert (facts["title_after"], facts["images_after"]) == (f"Nights to {LAST}", 0)
    assert len(facts["hostile"]["found"]) == len(names)  # each has a class of that name
    assert len(facts["city"]["found"]) == 1


@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_never_scrolls_sideways(tmp_path: Path, width: int) -> None:
    lake = Lake(str(tmp_path / "lake"))
    months(lake, 50)
    long = "w" * 400
    write_night(lake, LAST, [incidents.incident(1, "high", {"DoS-UDP": 9}, {long: 9}, {long: 9})],
                model_version=long, degraded=[{"reason": "few_flows", "text": long}])  # fmt: skip
    index_page.write(lake)
    shown = show(place(lake, index_page.PLACE), tmp_path, width)
    assert shown.window_width == width
    assert shown.page_width <= width
    assert shown.places == 0
    assert {"form", "newest", "gaps", "calendar", "trends"} <= set(shown.visible)
