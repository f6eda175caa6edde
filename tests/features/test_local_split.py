"""Which local rows are held out: the last nights, else the last rows of each source file."""

import datetime as dt
import json

import numpy as np
import pyarrow as pa
import pytest

from ids_spark.features.local_split import LocalHeldOut, groups

DAYS = [f"2026-03-{day:02d}" for day in range(1, 15)]


def table(files: list[str], days: list[str] | None = None, devices: list[str | None] | None = None) -> pa.Table:
    rows = len(files)
    dates = [dt.date.fromisoformat(day) for day in (days or [DAYS[0]] * rows)]
    places = [(files[:i].count(name) + 0.5) / files.count(name) for i, name in enumerate(files)]
    return pa.table(
        {
            "source_file": pa.array(files),
            "place": pa.array(places),
            "event_date": pa.array(dates, pa.date32()),
            "event_time": pa.nulls(rows, pa.timestamp("us", tz="UTC")),
            "device": pa.array(devices or [None] * rows, pa.string()),
        }
    )


@pytest.mark.parametrize(("nights", "held"), [(2, 1), (3, 1), (7, 2), (14, 4)])
def test_the_last_nights_are_held_out_at_least_one(nights: int, held: int) -> None:
    rule = LocalHeldOut.of_dates(DAYS[:nights], 0.25)
    assert rule.by == "date"
    assert rule.dates == set(DAYS[nights - held : nights])
    rows = table(["a"] * nights, DAYS[:nights])
    assert rule.rows(rows).tolist() == [i >= nights - held for i in range(nights)]


def test_never_all_nights_are_held_out() -> None:
    assert LocalHeldOut.of_dates(DAYS[:3], 0.99).dates == set(DAYS[1:3])


@pytest.mark.parametrize("dates", [DAYS[:1], []])
def test_of_one_night_the_last_rows_of_each_file_are_held_out(dates: list[str]) -> None:
    rule = LocalHeldOut.of_dates(dates, 0.25)
    files = ["a", "b"] * 10 + ["a"] * 20 + ["c"]
    found = rule.rows(table(files))
    assert rule.by == "rows"
    order = [files[:i].count(name) for i, name in enumerate(files)]
    expected = [{"a": 22, "b": 7, "c": 1}[name] <= place for name, place in zip(files, order, strict=True)]
    assert found.tolist() == expected
    assert sum(expected) == 8 + 3
    unplaced = table(files).set_column(1, "place", pa.nulls(len(files)))
    assert not rule.rows(unplaced).any()


def test_a_block_is_an_hour_of_a_device_or_of_a_file() -> None:
    rule = LocalHeldOut("date", frozenset(DAYS))
    rows = table(list("aabbcd"), [*DAYS[:2], *DAYS[:2], DAYS[0], DAYS[0]], ["x", "x", "x", None, "y", None])
    blocks = rule.blocks(rows).tolist()
    assert blocks[0] == blocks[2]
    assert len(set(blocks)) == 5
    assert all(0 <= block < 2**24 for block in blocks)
    assert len(rule.blocks(rows.slice(0, 0))) == 0
    hours = [dt.datetime(2026, 3, 1, 9, minute, tzinfo=dt.UTC) for minute in (0, 59)]
    times = pa.array([*hours, hours[1] + dt.timedelta(minutes=1), None], pa.timestamp("us", tz="UTC"))
    one = table(["a"] * 4, [DAYS[0]] * 4, ["x"] * 4)
    one = one.set_column(one.column_names.index("event_time"), "event_time", times)
    first, same, next_hour, unknown = rule.blocks(one).tolist()
    assert first == same
    assert len({first, next_hour, unknown}) == 3
    undated = rows.set_column(rows.column_names.index("event_date"), "event_date", pa.nulls(6, pa.date32()))
    assert len(set(LocalHeldOut("rows", share=0.5).blocks(undated).tolist())) == 4


def test_a_group_is_a_device_or_a_file_on_any_night() -> None:
    rows = table(list("abacxx"), [*DAYS[:5], DAYS[0]], ["x", "x", None, None, None, "a"])
    found = groups(rows)
    assert found.dtype == np.int64
    assert found[0] == found[1]
    assert len(set(found.tolist())) == 5  # device a is not file a


@pytest.mark.parametrize("dates", [DAYS, DAYS[:1]])
def test_the_choice_is_read_back_from_the_facts_of_a_table_without_names(dates: list[str]) -> None:
    rule = LocalHeldOut.of_dates(dates, 0.3)
    facts = json.loads(json.dumps(rule.facts(dates)))
    assert LocalHeldOut.of_facts(facts) == rule
    assert set(facts) == {"held_out_by", "train_dates", "held_out_dates", "held_out_share"}
    assert sorted({*facts["train_dates"], *facts["held_out_dates"]}) == dates
