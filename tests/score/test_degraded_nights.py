"""Nights that fail, are missing, or are far from usual: the others are scored, and the exit code says so."""

import datetime as dt
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.support.audits import drop_refusals
from tests.support.browser import Page
from tests.support.nights import DATE, audit, content_of, copy, night_row, score

NEXT, THIRD, LAST = (DATE + dt.timedelta(days=i) for i in (1, 2, 3))
RANGE = (f"score.first_date={DATE}", f"score.last_date={THIRD}")


@pytest.fixture
def folder(nights: Path, tmp_path: Path) -> Path:
    """A lake with a model, and logs of one night of 100 flows."""
    found = copy(nights, tmp_path / "night")
    shutil.rmtree(found / "logs")
    put(found, DATE, flows(nights))
    return found


def attack(nights: Path) -> pa.Table:
    """Return 100 flows of the port scan and the vulnerability scan of the night, some of them twice."""
    whole = pa.concat_tables(
        pq.ParquetFile(path).read() for path in sorted((nights / "logs" / f"event_date={DATE}").glob("*.parquet"))
    )
    own = whole.filter(pc.equal(whole["src_ip"].cast(pa.string()), "198.51.100.23"))
    return own.take(pa.array(np.resize(np.arange(len(own)), 100))).combine_chunks()


def flows(nights: Path, rows: int = 100) -> pa.Table:
    return pq.ParquetFile(nights / "logs" / f"event_date={DATE}" / "flows-00000.parquet").read().slice(0, rows)


def put(folder: Path, date: dt.date, table: pa.Table, name: str = "flows.parquet", **options: Any) -> Path:
    path = folder / "logs" / f"event_date={date}" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def reasons(folder: Path, date: dt.date) -> dict[str, str]:
    return {each["reason"]: each["text"] for each in night_row(folder, date=date)["degraded"]}


def page(folder: Path, date: dt.date) -> Page:
    return Page((folder / "lake/reports/night" / f"event_date={date}" / "night.html").read_text())


def test_a_night_that_fails_does_not_stop_the_others(nights: Path, folder: Path) -> None:
    put(folder, NEXT, flows(nights).drop_columns(["Rate"]))
    put(folder, THIRD, flows(nights))
    code, output = score(folder, *RANGE, date=None)
    assert code == 3, output
    assert "Traceback" not in output
    row = audit(folder)
    assert (row["status"], row["rows_in"]) == ("degraded", 200)
    [note] = [note for note in row["notes"] if note.startswith(f"degraded: {NEXT}")]
    assert "Rate" in note
    for table in ("predictions", "alerts", "drift", "nights", "reports/night", "exports", "quarantine/job=score"):
        found = {path.name for path in (folder / "lake" / table).iterdir()}
        assert found == {f"event_date={date}" for date in (DATE, THIRD)}
    assert not (folder / "lake/.staging").exists()


def test_nights_that_all_fail_are_refused_with_every_message(nights: Path, folder: Path) -> None:
    for date in (DATE, NEXT, THIRD):
        put(folder, date, flows(nights).drop_columns(["Rate"]))
    before = content_of(folder)
    code, output = score(folder, *RANGE, date=None)
    assert code == 2, output
    assert all(f"{date} was not scored" in output for date in (DATE, NEXT, THIRD))
    assert drop_refusals(folder / "lake") == 1
    assert content_of(folder) == before


def test_a_missing_night_of_a_range_has_a_page_a_row_and_a_message_that_names_similar_folders(
    nights: Path, folder: Path
) -> None:
    path = put(folder, THIRD, flows(nights))
    path.parent.rename(folder / "logs" / f"event_date={THIRD} 00%3A00%3A00")
    for name in (f"dt={NEXT}", f"{NEXT:%Y%m%d}", f"dt={NEXT + dt.timedelta(days=20)}", f"Event_date={DATE}"):
        (folder / "logs" / name).mkdir()
    (folder / "logs" / f"event_date={NEXT}").mkdir()
    (folder / "logs" / f"event_date={NEXT}" / "_SUCCESS").write_bytes(b"")
    code, output = score(folder, *RANGE, date=None)
    assert code == 3, output
    assert list(reasons(folder, DATE)) == []
    for date, similar in ((NEXT, [f"dt={NEXT}", f"{NEXT:%Y%m%d}"]), (THIRD, [f"event_date={THIRD} 00%3A00%3A00"])):
        assert list(reasons(folder, date)) == ["missing"]
        row = night_row(folder, date=date)
        assert (row["rows_in"], row["rows_scored"], row["incidents"]) == (0, 0, 0)
        assert page(folder, date).element("headline").get("data-state") == "missing"
        for text in (reasons(folder, date)["missing"], page(folder, date).text("headline"), output):
            assert all(name in text for name in similar)
            assert f"expected event_date={date}; rename it" in text
        assert f"dt={NEXT + dt.timedelta(days=20)}" not in reasons(folder, date)["missing"]
    notes = list(audit(folder)["notes"])
    assert [note for note in notes if "became champion" in note]
    assert "_SUCCESS" in reasons(folder, NEXT)["missing"]
    assert f"{DATE}: not read: found Event_date={DATE}, expected event_date={DATE}; rename it" in notes


def test_the_result_of_a_night_stays_when_its_logs_are_gone_and_comes_when_they_arrive(
    nights: Path, folder: Path
) -> None:
    code, output = score(folder, *RANGE, date=None)
    assert code == 3, output
    shutil.rmtree(folder / "logs" / f"event_date={DATE}")
    put(folder, NEXT, flows(nights))
    put(folder, THIRD, flows(nights))
    before = content_of(folder / "lake/nights" / f"event_date={DATE}")
    code, output = score(folder, *RANGE, date=None)
    assert code == 0, output
    assert content_of(folder / "lake/nights" / f"event_date={DATE}") == before
    assert [note for note in audit(folder)["notes"] if f"the earlier result of {DATE} was not changed" in note]
    assert night_row(folder, date=NEXT)["rows_scored"] == 100


def test_one_missing_date_is_refused_and_similar_folders_are_named(nights: Path, folder: Path) -> None:
    (folder / "logs" / f"event_date={NEXT:%Y%m%d}").mkdir()
    code, output = score(folder, date=NEXT)
    assert code == 2, output
    assert f"found event_date={NEXT:%Y%m%d}, expected event_date={NEXT}; rename it" in output
    code, output = score(folder, "score.last_days=2", f"score.flow_logs={folder}/gone", date=None)
    assert code == 2, output
    assert "gone, which does not exist" in output


def test_a_night_far_from_those_before_it_is_degraded(nights: Path, folder: Path) -> None:
    for date, rows in ((NEXT, 100), (THIRD, 100), (LAST, 10)):
        put(folder, date, flows(nights, rows))
    code, output = score(folder, f"score.first_date={DATE}", f"score.last_date={LAST}", date=None)
    assert code == 3, output
    assert list(reasons(folder, LAST)) == ["few_flows"]
    assert all(reasons(folder, date) == {} for date in (DATE, NEXT, THIRD))
    assert page(folder, LAST).text("headline").startswith("Degraded night: 10 flow(s), far fewer than usual")
    assert page(folder, LAST).element("trust").get("class") == "card bad"
    code, output = score(folder, "score.volume_factor=10", date=LAST)
    assert code == 0, output
    put(folder, LAST, flows(nights, 301))
    code, output = score(folder, date=LAST)
    assert (code, list(reasons(folder, LAST))) == (3, ["many_flows"]), output


def test_refused_rows_and_files_without_a_scored_flow_degrade_a_night(nights: Path, folder: Path) -> None:
    table = flows(nights)
    bad = table["Rate"].to_numpy().copy()
    bad[:6] = -2.0
    index = table.column_names.index("Rate")
    put(folder, DATE, table.set_column(index, "Rate", pa.array(bad)))
    code, output = score(folder)
    assert code == 3, output
    assert list(reasons(folder, DATE)) == ["rows_refused"]
    assert "6 of 100 flows (6.0%)" in reasons(folder, DATE)["rows_refused"]
    code, output = score(folder, "score.max_rejected_share=0.06")
    assert code == 0, output
    put(folder, DATE, table.set_column(index, "Rate", pa.array(["1,5"] * 100)), "commas.parquet")
    code, output = score(folder, "score.max_rejected_share=1")
    assert code == 3, output
    assert list(reasons(folder, DATE)) == ["rows_refused_alike", "files_not_scored"]
    assert "commas.parquet" in reasons(folder, DATE)["files_not_scored"]
    (folder / "logs" / f"event_date={DATE}" / "flows.parquet").unlink()
    code, output = score(folder)
    assert code == 3, output
    assert list(reasons(folder, DATE)) == ["nothing_scored"]
    headline = page(folder, DATE).text("headline")
    assert headline.startswith(
        "Degraded night: none of 100 flow(s) was scored as it is: unparsable 100; 100 were scored"
    )


def test_impossible_event_times_and_bytes_that_are_no_text_cost_no_flow(nights: Path, folder: Path) -> None:
    table = attack(nights)
    times = table["event_time"].cast(pa.int64()).to_numpy().copy()
    times[:7] *= 1_000  # the year 58000
    devices = [b"pump \xe9\x1b[31m" if i % 2 else b"pump \xe8" for i in range(100)]
    devices = pa.Array.from_buffers(pa.string(), 100, pa.array(devices).buffers())
    for name, column in (("event_time", pa.array(times).cast(pa.timestamp("us"))), ("device_id", devices)):
        table = table.set_column(table.column_names.index(name), name, column)
    table = table.append_column("many\x1b", pa.array([1] * 100))
    put(folder, DATE, table)
    code, output = score(folder)
    assert code == 0, output
    row = night_row(folder)
    assert row["rows_scored"] == 100
    assert list(row["unread_times"]) == [{"type": "timestamp[us]", "rows": 7}]
    assert [note for note in audit(folder)["notes"] if "event_time of 7 flow(s)" in note]
    predictions = pd.read_parquet(folder / "lake/predictions" / f"event_date={DATE}")
    assert predictions["event_time"].isna().sum() == 7
    assert set(predictions["device_id"]) == {"pump \\xe9\x1b[31m", "pump \\xe8"}
    alerts = pd.read_parquet(folder / "lake/alerts" / f"event_date={DATE}")
    assert set(alerts.loc[~alerts["is_source"], "entity"]) & set(predictions["device_id"])
    for path in (folder / "lake/exports" / f"event_date={DATE}").iterdir():
        assert not {c for c in path.read_text() if not c.isprintable()} - {"\n"}
    assert "7 flows" in dict(page(folder, DATE).all("data-issue"))["unread_times"]


def test_numbers_since_1970_are_event_times_and_doubles_are_the_same_entity_as_integers(
    nights: Path, folder: Path
) -> None:
    table = attack(nights)
    micros = table["event_time"].cast(pa.int64()).to_numpy()
    hours = pd.DatetimeIndex(table["event_time"].to_pandas()).hour.value_counts().to_dict()
    ids = np.full(100, 12_345_678_900)
    for i, (time, device) in enumerate(((micros / 1e6, ids), (micros // 1_000, ids.astype(float)))):
        of_type = table.set_column(table.column_names.index("event_time"), "event_time", pa.array(time))
        of_type = of_type.set_column(table.column_names.index("device_id"), "device_id", pa.array(device))
        put(folder, DATE, of_type, f"{i}.parquet")
    (folder / "logs" / f"event_date={DATE}" / "flows.parquet").unlink()
    code, output = score(folder)
    assert code == 0, output
    mix = pd.DataFrame(list(night_row(folder)["class_mix"]))
    assert mix.groupby("hour")["flows"].sum().to_dict() == {hour: 2 * n for hour, n in hours.items()}
    assert list(night_row(folder)["unread_times"]) == []
    alerts = pd.read_parquet(folder / "lake/alerts" / f"event_date={DATE}")
    assert set(alerts.loc[~alerts["is_source"], "entity"]) == {"12345678900"}
