"""Which local rows are held out: the last nights, else whole source files, else runs of rows."""

import datetime as dt
import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from ids_spark.features.local_split import LocalHeldOut, Survey

DAYS = [f"2026-03-{day:02d}" for day in range(1, 15)]


def table(files: list[str], days: list[str] | None = None, devices: list[str | None] | None = None) -> pa.Table:
    rows = len(files)
    dates = [dt.date.fromisoformat(day) for day in (days or [DAYS[0]] * rows)]
    return pa.table(
        {
            "source_file": pa.array(files),
            "source_row": pa.array(np.arange(rows)),
            "event_date": pa.array(dates, pa.date32()),
            "device": pa.array(devices or [None] * rows, pa.string()),
        }
    )


@pytest.mark.parametrize(("nights", "held"), [(2, 1), (3, 1), (7, 2), (14, 4)])
def test_the_last_nights_are_held_out_at_least_one(nights: int, held: int) -> None:
    found = Survey(rows=Counter(dict.fromkeys(DAYS[:nights], 10)), source_files=Counter({"a": 10 * nights}))
    rule = LocalHeldOut.of_survey(found, 0.25, 200)
    assert rule.by == "date"
    assert rule.names == set(DAYS[nights - held : nights])
    rows = table(["a"] * nights, DAYS[:nights])
    assert rule.rows(rows).tolist() == [i >= nights - held for i in range(nights)]


def test_never_all_nights_are_held_out() -> None:
    found = Survey(rows=Counter(dict.fromkeys(DAYS[:3], 10)))
    assert LocalHeldOut.of_survey(found, 0.99, 200).names == set(DAYS[1:3])


def test_of_one_night_whole_files_are_held_out_about_a_share_of_their_rows() -> None:
    files = Counter({f"capture-{i}.pcap": 10 + i for i in range(40)})
    rule = LocalHeldOut.of_survey(Survey(rows=Counter({DAYS[0]: files.total()}), source_files=files), 0.25, 200)
    assert rule.by == "source"
    held = sum(files[name] for name in rule.names)
    assert 0.15 * files.total() < held <= 0.25 * files.total()
    assert len(rule.names) <= 10
    names = [name for name, n in files.items() for _ in range(n)]
    assert rule.rows(table(names)).tolist() == [name in rule.names for name in names]


def test_the_smallest_file_is_held_out_if_none_fits() -> None:
    files = Counter({"a": 900, "b": 700})
    assert LocalHeldOut.of_survey(Survey(source_files=files), 0.25, 200).names == {"b"}


def test_of_one_file_runs_of_rows_are_held_out() -> None:
    found = Survey(rows=Counter({DAYS[0]: 4_000}), source_files=Counter({"a": 4_000}))
    rule = LocalHeldOut.of_survey(found, 0.25, 100)
    rows = table(["a"] * 4_000)
    held = rule.rows(rows)
    by_run = held.reshape(40, 100)
    assert rule.by == "rows"
    assert (by_run.all(axis=1) == by_run.any(axis=1)).all()
    assert 4 <= by_run.any(axis=1).sum() <= 18
    assert len(set(rule.blocks(rows.filter(pa.array(held))).tolist())) == by_run.any(axis=1).sum()


def test_a_block_is_a_night_of_a_device_or_of_a_file() -> None:
    rule = LocalHeldOut("date", frozenset(DAYS))
    rows = table(list("aabbcd"), [*DAYS[:2], *DAYS[:2], DAYS[0], DAYS[0]], ["x", "x", "x", None, "y", None])
    blocks = rule.blocks(rows).tolist()
    assert blocks[0] == blocks[2]
    assert len(set(blocks)) == 5
    assert all(0 <= block < 2**24 for block in blocks)
    of_files = LocalHeldOut("source", frozenset("ab")).blocks(table(list("aabb"), None, ["x", "y", None, "x"])).tolist()
    assert (of_files[0], of_files[2]) == (of_files[1], of_files[3])
    assert of_files[0] != of_files[2]
    assert len(rule.blocks(rows.slice(0, 0))) == 0


@pytest.mark.parametrize("by", ["date", "source", "rows"])
def test_the_choice_is_read_back_from_the_facts_of_a_table(by: str) -> None:
    surveys = {
        "date": Survey(rows=Counter(dict.fromkeys(DAYS, 5))),
        "source": Survey(rows=Counter({DAYS[0]: 20}), source_files=Counter({"a": 10, "b": 10})),
        "rows": Survey(rows=Counter({"none": 10}), source_files=Counter({"a": 10})),
    }
    rule = LocalHeldOut.of_survey(surveys[by], 0.3, 77)
    assert rule.by == by
    assert LocalHeldOut.of_facts(json.loads(json.dumps(rule.facts(surveys[by])))) == rule
