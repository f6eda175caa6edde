"""The first night that is kept names no ended incident of the removed night before it."""

import datetime as dt
import shutil
from pathlib import Path

from ids_spark.alerts.verdicts import in_force
from ids_spark.config.settings import Config
from ids_spark.lake.store import Lake
from ids_spark.score.night_purge import purge_ended
from ids_spark.score.rank_again import rank_again, read_night
from tests.support.incident_rows import NIGHT, alert
from tests.support.stored_night import store_night

ENDED = [{"incident_id": "0123456789ab", "text": "Recon of pump-17 ended"}]


def test_ended_incidents_of_a_removed_night_leave_table_and_page_and_nothing_else_changes(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    for date in (NIGHT, NIGHT + dt.timedelta(days=1)):
        store_night(lake, [alert("scan", "pump-1")], date)
        rows = lake.read("nights", event_date=date).to_pylist()
        lake.write("nights", [{**row, "incidents_ended": ENDED} for row in rows], event_date=date)
        rank_again(lake, lake.uri, read_night(lake, date), in_force([], date), Config())  # writes the page
    path = tmp_path / "lake/reports/night" / f"event_date={NIGHT}" / "night.html"
    assert "pump-17" in path.read_text()
    before = {name: lake.read(name, event_date=NIGHT).to_pylist() for name in ("incidents", "alerts", "nights")}
    removed = purge_ended(lake, lake.uri, NIGHT, Config())
    assert {name: n for name, n in removed.items() if n} == {f"nights/event_date={NIGHT}": 1}
    after = {name: lake.read(name, event_date=NIGHT).to_pylist() for name in before}
    assert (after["incidents"], after["alerts"]) == (before["incidents"], before["alerts"])
    assert [{**row, "incidents_ended": ENDED} for row in after["nights"]] == before["nights"]
    assert [row["incidents_ended"] for row in after["nights"]] == [[]]
    assert "pump-1" in path.read_text()
    assert "pump-17" not in path.read_text()
    [later] = lake.read("nights", event_date=NIGHT + dt.timedelta(days=1))["incidents_ended"].to_pylist()
    assert later == ENDED  # of a night that is kept
    assert purge_ended(lake, lake.uri, NIGHT, Config()) == {}


def test_a_page_does_not_link_to_a_removed_night(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    days = [NIGHT - dt.timedelta(days=1), NIGHT, NIGHT + dt.timedelta(days=1)]
    for date in days:
        store_night(lake, [alert("scan", "pump-1")], date)
        rank_again(lake, lake.uri, read_night(lake, date), in_force([], date), Config())
    folder = tmp_path / "lake/reports/night"
    pages = [folder / f"event_date={date}" / "night.html" for date in days]
    assert f"../event_date={days[0]}/night.html" in pages[1].read_text()
    shutil.rmtree(pages[0].parent)  # as purge does, with the tables
    assert purge_ended(lake, lake.uri, NIGHT, Config())
    assert f"../event_date={days[0]}/night.html" not in pages[1].read_text()
    assert f"../event_date={days[1]}/night.html" in pages[2].read_text()
    assert purge_ended(lake, lake.uri, NIGHT, Config()) == {}


def test_a_lake_without_nights_is_left_as_it_is(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    assert purge_ended(lake, lake.uri, NIGHT, Config()) == {}
    assert not (tmp_path / "lake").exists()
