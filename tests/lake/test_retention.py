import datetime as dt
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from ids_spark.base.errors import InputError
from ids_spark.dataset.tables import TABLES
from ids_spark.lake import retention
from ids_spark.lake.filesystem import resolve, write_bytes
from ids_spark.lake.lease import Lease
from ids_spark.lake.retention import BY_DATE, BY_MODIFIED, BY_NIGHTS, BY_RUN, WHOLE, first_kept, others, purge
from ids_spark.lake.store import Lake
from tests.support.audits import drop_refusals
from tests.support.flows import ROOT

NOW = dt.datetime(2026, 3, 1, 4, tzinfo=dt.UTC)
TODAY = NOW.date()
LAYOUT = {
    "predictions": "model=a/part-0.parquet",
    "incidents": "part-0.parquet",
    "alerts": "part-0.parquet",
    "evidence": "part-0.parquet",
    "traffic": "part-0.parquet",
    "entity_history": "part-0.parquet",
    "drift": "part-0.parquet",
    "nights": "part-00000.parquet",
    "reports/night": "night.html",
    "exports": "ocsf.jsonl",
    "quarantine/job=score": "model=a/part-0.parquet",
}
KEPT = [
    "audit/20200101T000000Z-aa-score.parquet",
    "flows/split=train/part-0.parquet",
    "features/paper/split=train/part-0.parquet",
    "models/m/20200101T000000Z-aa/manifest.json",
    "quarantine/job=ingest/part-00000.parquet",
    "verdicts/20200101T000000Z-aa.parquet",
]
OF_RUNS = {"metrics": "{}.parquet", "confusion": "{}.parquet", "tensorboard": "m/{}/events.out"}
"""Files of one run of each table by run."""
WRITTEN = {
    "split_predictions": "split=test/model=a/part-0.parquet",
    "quarantine/job=score_split": "split=test/model=a/part-0.parquet",
    "reports/run": "run.html",
    "reports/benchmark": "table.html",
    "reports/leakage": "leakage.html",
    "checkpoints": "m.npz",
}
"""A file of each table that is as old as its newest file."""


def days_ago(n):
    return TODAY - dt.timedelta(days=n)


@pytest.fixture
def lake(tmp_path):
    """A lake with nights 0, 89, 90, 91 and 400 days old in every table, and other folders."""
    made = Lake(str(tmp_path / "lake"))
    for n, (table, name) in itertools.product((0, 89, 90, 91, 400), LAYOUT.items()):
        write_bytes(made.uri(f"{table}/event_date={days_ago(n)}/{name}"), b"x")
    for n, (table, name) in itertools.product((0, 89, 90, 91, 400), OF_RUNS.items()):
        write_bytes(made.uri(f"{table}/{of_run(name, n)}"), b"x")
    for name in KEPT:
        write_bytes(made.uri(name), b"x")
    run_id, at = "20200101T000000Z-aa", dt.datetime.combine(TODAY, dt.time(12), dt.UTC)  # the job reads what follows
    decided = {"event_date": TODAY, "incident_id": "abcdef", "verdict": "close", "run_id": run_id, "created_at": at}
    made.write("verdicts", [decided | {"entities": [], "learned": []}], run_id=run_id)
    made.write("quarantine/job=ingest", [])
    for n in (0, 89, 90, 91, 400):
        made.write("nights", [], event_date=days_ago(n))
    return made


def of_run(name, n):
    return name.format(f"{days_ago(n):%Y%m%d}T235959Z-0123abcd")


def set_time(path, n):
    at = dt.datetime.combine(days_ago(n), dt.time(12), dt.UTC).timestamp()
    os.utime(path, (at, at))


def files(lake):
    root = Path(resolve(lake.root)[1])
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def expected_files(*ages):
    nights = {f"{t}/event_date={days_ago(n)}/{name}" for n in ages for t, name in LAYOUT.items()}
    return nights | {f"{t}/{of_run(name, n)}" for n in ages for t, name in OF_RUNS.items()} | set(KEPT)


def test_every_table_has_a_rule_that_this_file_tests_and_what_remains_has_a_reason():
    assert (set(LAYOUT), set(OF_RUNS), set(WRITTEN)) == (set(BY_DATE), set(BY_RUN), set(BY_MODIFIED))
    assert set(BY_NIGHTS) == {"features", "reports/adaptation"}
    rest = {name: table for name, table in TABLES.items() if name not in WHOLE}
    assert {name for name, table in rest.items() if table.retention == "rows"} == {
        "flows",
        "quarantine/job=ingest",
        "verdicts",
    }
    assert {name for name, table in rest.items() if table.retention == "never"} == {
        "models",
        "audit",
        "reports/index.html",
    }
    assert all(table.remains for table in rest.values() if table.retention == "never")


def test_a_date_of_exactly_the_age_is_kept_and_an_older_one_removed_from_every_table(lake):
    purged = purge(lake, first_kept(90, TODAY, NOW))
    assert files(lake) == expected_files(0, 89, 90)
    assert dict(purged.dates) == {table: [days_ago(400), days_ago(91)] for table in (*BY_DATE, *BY_RUN)}
    assert purged.span == (days_ago(400), days_ago(91))
    assert purged.undated == []
    assert not (Path(resolve(lake.root)[1]) / "predictions" / f"event_date={days_ago(91)}").exists()  # no empty folder


def test_a_second_purge_removes_nothing(lake):
    purge(lake, days_ago(90))
    again = purge(lake, days_ago(90))
    assert (dict(again.dates), again.span) == ({}, None)
    assert files(lake) == expected_files(0, 89, 90)


def test_a_lake_without_nights_is_left_as_it_is(tmp_path):
    assert purge(Lake(str(tmp_path / "absent")), TODAY).span is None
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("table", [*BY_DATE, *BY_RUN])
def test_folders_without_a_date_are_kept_and_reported(lake, table):
    names = ["event_date=2020-02-30", "event_date=__HIVE_DEFAULT_PARTITION__", "event_date=2020-01-01x", "old"]
    names += ["20201301T000000Z-aa.parquet", "2020.parquet"]
    if table == "tensorboard":
        names = [f"m/{name}/events.out" for name in names]
    for name in names:
        write_bytes(lake.uri(f"{table}/{name}"), b"x")
    write_bytes(lake.uri(f"{table}/_table.json"), b"{}")
    purged = purge(lake, days_ago(90))
    assert purged.undated == sorted(f"{table}/{name.removesuffix('/events.out')}" for name in names)
    assert files(lake) == expected_files(0, 89, 90) | {f"{table}/{name}" for name in (*names, "_table.json")}


def test_the_first_date_that_is_kept_is_counted_from_today():
    assert first_kept(90, TODAY, NOW) == dt.date(2025, 12, 1) == first_kept(90, None, NOW)
    assert first_kept(1, dt.date(2024, 3, 1), NOW) == dt.date(2024, 2, 29)
    with pytest.raises(InputError) as error:
        first_kept(90, dt.date(2062, 3, 1), NOW)
    assert "purge.today is 2062-03-01, in the future (today is 2026-03-01)" in str(error.value)


class Killed(BaseException):
    """Simulates the end of the process."""


@pytest.mark.parametrize("table", WRITTEN)
def test_what_has_no_date_is_as_old_as_its_newest_file(lake, table):
    root = Path(resolve(lake.root)[1])
    for name in (WRITTEN[table], f"{WRITTEN[table]}.beside" if table.startswith("reports/") else WRITTEN[table]):
        write_bytes(lake.uri(f"{table}/{name}"), b"x")
        set_time(root / table / name, 90)
    set_time(root / table / WRITTEN[table], 91)
    if table.startswith("reports/"):
        assert table not in purge(lake, days_ago(90)).dates
        set_time(root / table / f"{WRITTEN[table]}.beside", 91)
    assert purge(lake, days_ago(90)).dates[table] == [days_ago(91)]
    assert files(lake) == expected_files(0, 89, 90)


def test_features_and_pages_of_adaptations_go_with_the_oldest_of_their_nights(lake):
    def facts(*ages):
        dates = [str(days_ago(n)) for n in ages]
        return json.dumps({"local": {"train_dates": dates[1:], "held_out_dates": dates[:1]}}).encode()

    run = f"{days_ago(1):%Y%m%d}T010000Z-aa"
    for name, ages in {"new": (90, 90), "old": (91, 80)}.items():
        write_bytes(lake.uri(f"features/{name}/_table.json"), facts(*ages))
        write_bytes(lake.uri(f"features/{name}/split=train/part-0.parquet"), b"x")
        write_bytes(lake.uri(f"reports/adaptation/{name}/{run}/adaptation.html"), b"x")
        write_bytes(lake.uri(f"models/{name}/{run}/model.json"), facts(*ages))
    write_bytes(lake.uri(f"reports/adaptation/gone/{of_run('{}', 91)}/adaptation.html"), b"x")  # without its model
    write_bytes(lake.uri("features/paper/_table.json"), b'{"local": null}')
    write_bytes(lake.uri("features/broken/_table.json"), b"[")
    purged = purge(lake, days_ago(90))
    assert {t: purged.dates[t] for t in BY_NIGHTS} == {
        "features": [days_ago(91)],
        "reports/adaptation": [days_ago(91), days_ago(91)],
    }
    left = {name for name in files(lake) if name.startswith(("features/", "reports/adaptation/"))}
    assert left == {
        "features/new/_table.json",
        "features/new/split=train/part-0.parquet",
        "features/paper/_table.json",
        "features/paper/split=train/part-0.parquet",
        "features/broken/_table.json",
        f"reports/adaptation/new/{run}/adaptation.html",
    }
    assert purged.undated == []


def test_what_ended_runs_staged_and_replaced_goes_at_any_age_and_that_of_active_runs_stays(lake):
    active, ended = (f"{TODAY:%Y%m%d}T01000{i}Z-aa" for i in (1, 2))
    for run in (active, ended):
        write_bytes(lake.uri(f".staging/score/{run}/predictions/event_date={TODAY}/part-0.parquet"), b"x")
        write_bytes(lake.uri(f".trash/{run}/predictions/event_date={TODAY}/part-0.parquet"), b"x")
    with Lease(lake.root, active):
        assert purge(lake, days_ago(90)).ended_runs == [ended]
        hidden = {name for name in files(lake) if name.startswith((".staging", ".trash"))}
        assert {name.split("/")[2 if name.startswith(".staging") else 1] for name in hidden} == {active}
        assert len(hidden) == 2
    assert purge(lake, days_ago(90)).ended_runs == [active]
    assert files(lake) == expected_files(0, 89, 90)


def test_files_that_were_set_aside_and_what_their_runs_staged_go_with_the_date_of_the_run(lake):
    runs = {n: f"{days_ago(n):%Y%m%d}T010000Z-aa" for n in (90, 91)}
    for run in runs.values():
        write_bytes(lake.uri(f".set-aside-0a1b2c3d.commit-{run}.json"), b"x")
        write_bytes(lake.uri(f".staging/score/{run}/predictions/event_date={TODAY}/part-0.parquet"), b"x")
    assert purge(lake, days_ago(90)).ended_runs == [runs[91]]
    assert {name for name in files(lake) if name.startswith(".s")} == {
        f".set-aside-0a1b2c3d.commit-{runs[90]}.json",
        f".staging/score/{runs[90]}/predictions/event_date={TODAY}/part-0.parquet",
    }


def test_folders_that_are_no_table_are_named(lake):
    for name in ("flow_logs/event_date=2020-01-01/a.parquet", "notes.txt", ".hidden/x"):
        write_bytes(lake.uri(name), b"x")
    assert others(lake) == ["flow_logs", "notes.txt"]


@pytest.mark.parametrize("moment", range(30))
def test_a_purge_that_was_killed_is_finished_and_counted_by_the_next(lake, moment, monkeypatch):
    """Ends the process before the n-th rename, or before or within the deletion that follows them."""
    left = [moment]

    def ending(step):
        def run(*arguments):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return step(*arguments)

        return run

    class DyingFileSystem:
        def __init__(self, fs):
            self.move, self.delete_dir = ending(fs.move), ending(fs.delete_dir)
            self.create_dir, self.get_file_info, self.type_name = fs.create_dir, fs.get_file_info, fs.type_name

    with monkeypatch.context() as patched:
        patched.setattr(retention, "resolve", lambda uri: (DyingFileSystem(resolve(uri)[0]), resolve(uri)[1]))
        try:
            purge(lake, days_ago(90))
        except Killed:
            pass
        else:
            assert moment == 29
            assert files(lake) == expected_files(0, 89, 90)
            return
    whole = expected_files(0, 89, 90, 91, 400)
    assert {name for name in files(lake) if not name.startswith(".purge/")} <= whole
    write_bytes(lake.uri(f"alerts/event_date={days_ago(400)}/part-0.parquet"), b"again")  # scored again meanwhile
    purged = purge(lake, days_ago(90))
    assert files(lake) == expected_files(0, 89, 90)
    assert {table: set(dates) for table, dates in purged.dates.items()} == {
        table: {days_ago(400), days_ago(91)} for table in (*BY_DATE, *BY_RUN)
    }


PURGE = """
import datetime as dt, sys
from ids_spark.lake.retention import purge
from ids_spark.lake.store import Lake
purge(Lake(sys.argv[1]), dt.date.fromisoformat(sys.argv[2]))
"""
NIGHTS = 400
STATES = {  # by number of nights that are still visible, and hidden
    "as soon as anything is out of sight": lambda seen, gone: gone > 0,
    "with half of it out of sight": lambda seen, gone: seen < NIGHTS / 2,
    "with all of it out of sight": lambda seen, gone: seen == 0,
    "while it is deleted": lambda seen, gone: seen == 0 and gone < NIGHTS - 5,
}


def entries(folder):
    try:
        return len(os.listdir(folder))
    except FileNotFoundError:
        return 0


@pytest.mark.parametrize("state", STATES)
def test_a_purge_killed_by_the_system_leaves_whole_nights_or_none(tmp_path, state):
    lake = Lake(str(tmp_path / "lake"))
    folders = [tmp_path / "lake" / "alerts", tmp_path / "lake" / ".purge" / "alerts"]
    for night in range(NIGHTS):
        partition = folders[0] / f"event_date={days_ago(91 + night)}"
        partition.mkdir(parents=True)
        for part in "abc":
            (partition / part).write_bytes(b"x")
    process = subprocess.Popen([sys.executable, "-c", PURGE, lake.root, str(days_ago(90))], cwd=ROOT)
    while process.poll() is None and not STATES[state](*map(entries, folders)):
        time.sleep(0.0005)
    process.kill()
    process.wait()
    assert {len(os.listdir(night)) for night in folders[0].iterdir()} <= {3}
    purge(lake, days_ago(90))
    assert files(lake) == set()


def test_the_job_counts_what_it_removed_by_table_and_prints_what_remains(run_job, lake, capsys):
    write_bytes(lake.uri("alerts/notes.txt"), b"x")
    write_bytes(lake.uri("flow_logs/event_date=2020-01-01/a.parquet"), b"x")
    assert run_job("purge", purge__older_than_days=90, purge__today=TODAY) == 0
    kept = {name for name in files(lake) if not name.endswith(("-purge.parquet", "reports/index.html"))}
    assert kept == expected_files(0, 89, 90) | {"alerts/notes.txt", "flow_logs/event_date=2020-01-01/a.parquet"}
    removed, remains = capsys.readouterr().out.split("remains")
    assert f"  alerts: {days_ago(400)} to {days_ago(91)} (2)" in removed
    assert {line.split(":")[0].strip() for line in remains.splitlines()[1:]} == {
        *("audit", "flows", "features", "incidents", "models", "reports/night", "verdicts", "flow_logs"),
    }
    [audit] = Path(resolve(lake.root)[1]).glob("audit/*-purge.parquet")
    [row] = pd.read_parquet(audit).to_dict("records")
    counts = {count["what"]: count["rows"] for count in row["counts"]}
    assert counts == {f"dates removed from {table}": 2 for table in BY_DATE} | {
        f"entries removed from {table}": 2 * (table in BY_RUN) for table in (*BY_RUN, *BY_MODIFIED, *BY_NIGHTS)
    }
    assert list(row["notes"]) == [
        f"dates before 2025-12-01 are not kept: removed {days_ago(400)} to {days_ago(91)}",
        "alerts/notes.txt has no date in its name; it was not removed",
    ]
    assert run_job("purge", purge__older_than_days=90, purge__today=TODAY) == 0
    assert len(list(Path(resolve(lake.root)[1]).glob("audit/*"))) == 3  # the audit only grows


def test_a_damaged_table_costs_what_is_in_it_and_the_job_says_so(run_job, lake):
    write_bytes(lake.uri("verdicts/20200101T000000Z-aa.parquet"), b"x")
    assert run_job("purge", purge__older_than_days=90, purge__today=TODAY) == 3
    kept = {name for name in files(lake) if not name.endswith(("-purge.parquet", "reports/index.html"))}
    assert kept == expected_files(0, 89, 90)
    [audit] = Path(resolve(lake.root)[1]).glob("audit/*-purge.parquet")
    assert "verdicts" in pd.read_parquet(audit)["notes"].iloc[0][-1]


def test_a_step_that_fails_leaves_the_removal_in_the_audit(run_job, lake, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("an executor was lost")

    monkeypatch.setattr("ids_spark.alerts.verdict_purge.purge_verdicts", fail)
    assert run_job("purge", purge__older_than_days=90, purge__today=TODAY) == 3
    [audit] = Path(resolve(lake.root)[1]).glob("audit/*-purge.parquet")
    [row] = pd.read_parquet(audit).to_dict("records")
    assert {count["what"]: count["rows"] for count in row["counts"]}["dates removed from alerts"] == 2
    assert row["notes"][-1] == "degraded: verdicts were not purged: an executor was lost"
    [error] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert error.exc_info is not None


def test_the_job_refuses_a_today_to_come_and_removes_nothing(run_job, lake, caplog):
    before = files(lake)
    assert run_job("purge", purge__today="2199-01-01") == 2
    assert "purge.today is 2199-01-01, in the future" in caplog.text
    assert drop_refusals(Path(resolve(lake.root)[1])) == 1
    assert files(lake) == before
