"""Delta tables of a lake: equal to its tables for every reader, one version at a time, whatever happens meanwhile."""

import datetime as dt
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ids_spark.base.errors import Interrupted
from ids_spark.dataset.tables import TABLES
from ids_spark.lake import delta
from ids_spark.lake.store import Lake
from tests.support.delta_tables import (
    MODEL,
    PREDICTIONS,
    READERS,
    commit_night,
    commit_two_nights,
    in_lake,
    plain,
    read,
)
from tests.support.flows import ROOT
from tests.support.incident_rows import NIGHT

DAY = dt.timedelta(days=1)


@pytest.fixture
def lake(tmp_path):
    """A lake of two nights."""
    found = Lake(str(tmp_path / "a lake"))
    commit_two_nights(found)
    return found


@pytest.fixture
def target(tmp_path):
    return str(tmp_path / "delta")


def export(lake, target, run_id="20261201T010000Z-ee", **more):
    return {done.table: done for done in delta.export(lake, target, run_id, 30, **more)}


def runs_of(target, name, version=None):
    return {row["run_id"] for row in read("deltalake", f"{target}/{name}", version)}


def require_equal(lake, target, readers=("deltalake",)):
    for name in delta.EXPORTED:
        expected = plain(in_lake(lake, name))
        for reader in readers:
            assert plain(read(reader, f"{target}/{name}")) == expected, (name, reader)


def test_every_table_is_equal_for_every_reader_with_the_same_bytes_in_its_files(lake, target):
    changed = export(lake, target)
    assert set(changed) == set(delta.EXPORTED)
    require_equal(lake, target, READERS)
    for name in delta.EXPORTED:
        table = deltalake.DeltaTable(f"{target}/{name}")
        stored = {Path(path).read_bytes() for path in table.file_uris()}
        folder = Path(lake.root.removeprefix("file://")) / delta.EXPORTED[name]
        assert stored == {path.read_bytes() for path in folder.rglob("*.parquet")}
        assert stored
        assert table.protocol().min_reader_version == 1
    assert deltalake.DeltaTable(f"{target}/predictions").metadata().partition_columns == ["event_date", "model"]


def test_an_export_without_anything_new_commits_nothing_and_a_rerun_replaces_its_night_in_one_version(lake, target):
    first = export(lake, target)
    assert export(lake, target) == {}
    commit_night(lake, "20261127T010000Z-cc", flows=7)
    changed = export(lake, target, "20261127T010000Z-cc")
    assert set(changed) == {"predictions", "incidents", "alerts", "nights", "drift", "quarantine"}
    assert (changed["predictions"].added, changed["predictions"].removed) == (2, 2)
    require_equal(lake, target, READERS)
    version = changed["predictions"].version
    assert version == first["predictions"].version + 1
    assert runs_of(target, "predictions", version - 1) == {"20261125T010000Z-aa", "20261126T010000Z-bb"}
    history = deltalake.DeltaTable(f"{target}/predictions").history(1)[0]
    assert history["ids_spark.run_id"] == "20261127T010000Z-cc"


def test_an_export_does_all_that_earlier_ones_did_not(lake, target):
    export(lake, target)
    for number in range(3):
        commit_night(lake, f"20261128T01000{number}Z-dd", NIGHT + (number + 1) * DAY)
    changed = export(lake, target)
    assert changed["incidents"].added == 3
    require_equal(lake, target)


def test_no_value_of_a_row_is_in_the_log(lake, target):
    export(lake, target)
    for name in delta.EXPORTED:
        log = "".join(path.read_text() for path in (Path(target) / name / "_delta_log").glob("*.json"))
        assert "pump" not in log
        assert "numRecords" in log
        assert "minValues" not in log


def test_what_a_purge_removes_is_in_no_version(lake, target):
    export(lake, target)
    folder = Path(lake.root.removeprefix("file://"))
    for name in TABLES:
        for gone in folder.glob(f"{name}/event_date={NIGHT}"):
            gone.rename(folder / f".gone-{gone.parent.name}")
    verdicts = lake.read("verdicts").to_pylist()
    lake.write("verdicts", [{**row, "owner": None, "reason": None} for row in verdicts], run_id="v")
    export(lake, target, tidy=True)
    require_equal(lake, target, READERS)
    left = [path for path in Path(target).rglob("*.parquet") if f"event_date={NIGHT}" in str(path)]
    assert not left
    assert len(list(Path(target, "verdicts").glob("*.parquet"))) == 1
    assert [row["reason"] for row in read("polars", f"{target}/verdicts")] == [None]


def test_replaced_files_are_kept_for_some_days_then_deleted(lake, target):
    first = export(lake, target)["nights"].version
    commit_night(lake, "20261127T010000Z-cc")
    export(lake, target, tidy=True)
    assert runs_of(target, "nights", first) == {"20261125T010000Z-aa", "20261126T010000Z-bb"}
    partial = Path(target, "nights", f"event_date={NIGHT}", "copy-0123")
    partial.write_bytes(b"PAR1")  # of a killed export
    old = dt.datetime(2026, 1, 1).timestamp()
    for path in Path(target).rglob("*"):
        if path.is_file():
            os.utime(path, (old, old))
    log = Path(target, "nights", "_delta_log", f"{first + 1:020d}.json")
    log.write_text(re.sub(r'"deletionTimestamp":\d+', '"deletionTimestamp":1', log.read_text()))
    export(lake, target, tidy=True)
    assert not partial.exists()
    with pytest.raises((OSError, Exception), match=r"No such file|not found"):
        read("polars", f"{target}/nights", first)
    require_equal(lake, target, READERS)


def test_columns_that_nights_add_or_change_are_readable_in_all(lake, target):
    export(lake, target)
    more = pa.schema([*PREDICTIONS, pa.field("ward", pa.string())])
    commit_night(lake, "20261128T010000Z-dd", NIGHT + 2 * DAY, schema=more)
    times = PREDICTIONS.set(PREDICTIONS.names.index("device_id"), pa.field("device_id", pa.string()))
    changed = times.set(times.names.index("event_time"), pa.field("event_time", pa.timestamp("ms", "UTC")))
    commit_night(lake, "20261129T010000Z-ff", NIGHT + 3 * DAY, schema=changed)
    export(lake, target)
    require_equal(lake, target, READERS)
    assert "ward" in [field.name for field in deltalake.DeltaTable(f"{target}/predictions").schema().fields]


def test_files_of_version_01_have_the_present_names(lake, target):
    old = pa.table({"kind": ["feature"], "name": ["IAT"], "psi": [0.5], "band": ["significant"]})
    folder = Path(lake.uri(f"drift/event_date={NIGHT - DAY}").removeprefix("file://"))
    folder.mkdir()
    pq.write_table(old, folder / "part-00000.parquet")
    export(lake, target)
    [row] = [row for row in read("polars", f"{target}/drift") if row["event_date"] == NIGHT - DAY]
    assert (row["drift_index"], row["drift_level"], row["name"]) == (0.5, "significant", "IAT")
    assert "psi" not in row


def test_a_night_that_cannot_be_exported_is_named_and_the_other_tables_are_complete(lake, target):
    clash = pa.schema([*PREDICTIONS, pa.field("Device_ID", pa.string())])
    export(lake, target)
    commit_night(lake, "20261128T010000Z-dd", NIGHT + 2 * DAY, schema=clash)
    with pytest.raises(delta.ExportRefused, match=r"1 of 9 Delta tables .* not complete:\n.*predictions: .*Device_ID"):
        export(lake, target)
    assert runs_of(target, "nights") >= {"20261128T010000Z-dd"}
    assert "20261128T010000Z-dd" not in runs_of(target, "predictions")


def remove(lake, date):
    for folder in Path(lake.root.removeprefix("file://")).rglob(f"event_date={date}"):
        shutil.rmtree(folder)


def holding(target, date):
    return {path.relative_to(target).parts[0] for path in Path(target).rglob("*.parquet") if str(date) in str(path)}


def test_a_damaged_delta_table_stops_no_other_and_is_named_with_the_removed_dates_in_it(lake, target):
    export(lake, target)
    Path(target, "incidents", "_delta_log", f"{1:020d}.json").write_text("x")
    remove(lake, NIGHT)
    fault = rf"1 of 9 .*\n.*incidents: .*Json error: [^:]*; .*delete {target}/incidents: .*: {NIGHT}$"
    with pytest.raises(Interrupted, match=fault):
        export(lake, target, tidy=True)
    assert holding(target, NIGHT) == {"incidents"}
    shutil.rmtree(Path(target, "incidents"))
    export(lake, target)
    require_equal(lake, target)


def test_a_table_that_cannot_be_exported_keeps_no_removed_date(lake, target):
    export(lake, target)
    clash = pa.schema([*PREDICTIONS, pa.field("Device_ID", pa.string())])
    commit_night(lake, "20261128T010000Z-dd", NIGHT + 2 * DAY, schema=clash)
    remove(lake, NIGHT)
    with pytest.raises(delta.ExportRefused, match=r"predictions: .*Device_ID"):
        export(lake, target)
    assert not holding(target, NIGHT)
    assert runs_of(target, "predictions") == {"20261126T010000Z-bb"}


def test_a_file_replaced_in_the_second_of_its_clock_by_one_of_equal_size_is_exported(lake, target):
    second = int(time.time()) * 1_000_000_000

    def replace(text):
        """Write a file with a time of modification as object stores have."""
        lake.write("metrics", [{"run_id": "m", "metric": text, "value": 0.5}], run_id="m")
        path = next(Path(lake.uri("metrics").removeprefix("file://")).rglob("*.parquet"))
        os.utime(path, ns=(second, second))
        return path.stat().st_size

    size = replace("one")
    exporting = threading.Thread(target=export, args=(lake, target))
    exporting.start()
    time.sleep(0.1)
    assert replace("two") == size
    exporting.join()
    assert {row["metric"] for row in read("deltalake", f"{target}/metrics")} == {"two"}


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("a lake", "the lake itself"),
        ("a lake/incidents", "inside the lake"),
        ("a lake/delta", "inside the lake"),
        ("link/incidents", "inside the lake"),
        ("incidents", "inside the lake"),
        (".", "around the lake"),
        ("with blanks/delta", "without blanks"),
        ("per%20cent", "without blanks"),
        ("other", "holds the Delta tables of lake file:///elsewhere"),
        ("foreign", "they are not of an export"),
        ("broken", "is not as an export writes it"),
    ],
)
def test_a_place_that_is_not_for_these_tables_is_refused(lake, tmp_path, place, message):
    for name, content in {"other": '{"lake": "file:///elsewhere"}', "broken": "{"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / delta.MARK).write_text(content)
    (tmp_path / "link").symlink_to(tmp_path / "a lake")
    (tmp_path / "incidents").symlink_to(tmp_path / "a lake" / "incidents")
    (tmp_path / "foreign" / "nights").mkdir(parents=True)
    (tmp_path / "foreign" / "nights" / "x").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(delta.ExportRefused, match=message):
        export(lake, str(tmp_path / place))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_place_on_s3_is_compared_by_its_parts_without_a_request():
    for place, message in {
        "s3://ward//lake/x/": "inside the lake",
        "s3a://ward/": "around the lake",
        "s3a://ward/a/../lake": "expected a path",
        "hdfs://name/delta": "expected a local path or an s3a: URI",
    }.items():
        with pytest.raises(delta.ExportRefused, match=message):
            delta.require_target(place, "s3a://ward/lake")
    for place in ("s3a://ward/lake2", "s3a://other/lake", "/ward/lake"):
        delta.require_target(place, "s3a://ward/lake")


def test_a_delta_table_that_is_a_link_into_the_lake_changes_no_file_of_it(lake, target):
    export(lake, target)
    folder = Path(lake.root.removeprefix("file://")) / "verdicts"
    Path(target, "verdicts").rename(Path(target, "moved"))
    Path(target, "verdicts").symlink_to(folder)
    before = sorted(folder.rglob("*"))
    with pytest.raises(delta.ExportRefused, match=r"verdicts leads to"):
        export(lake, target, tidy=True)
    assert sorted(folder.rglob("*")) == before


KILLED = """
import os, signal, sys
from ids_spark.lake import delta
from ids_spark.lake.store import Lake
at, count = sys.argv[3], 0
def killing(function):
    def call(*arguments, **more):
        global count
        result = function(*arguments, **more)
        count += 1
        if count == int(sys.argv[4]):
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call
if at == "copy":
    delta._copy = killing(delta._copy)
else:
    delta._Export.commit = killing(delta._Export.commit)
delta.export(Lake(sys.argv[1]), sys.argv[2], "20261127T010000Z-cc", 30)
"""


@pytest.mark.parametrize(("at", "count"), [("copy", 1), ("copy", 5), ("commit", 3)])
def test_a_killed_export_leaves_the_version_before_and_the_next_one_completes_it(lake, target, at, count):
    export(lake, target)
    before = {name: plain(read("polars", f"{target}/{name}")) for name in delta.EXPORTED}
    commit_night(lake, "20261127T010000Z-cc", flows=7)
    script = [sys.executable, "-c", KILLED, lake.root, target, at, str(count)]
    killed = subprocess.run(script, check=False, cwd=ROOT, capture_output=True, timeout=120)
    assert killed.returncode == -9, killed.stderr.decode()
    for name in delta.EXPORTED:
        found = plain(read("polars", f"{target}/{name}"))
        assert found in (before[name], plain(in_lake(lake, name)))
    if (at, count) == ("copy", 1):
        assert plain(read("duckdb", f"{target}/predictions")) == before["predictions"]
    export(lake, target)
    require_equal(lake, target, READERS)


def test_exports_at_once_and_commits_between_them_end_in_the_state_of_the_lake(lake, target):
    failures = []

    def repeat(number):
        try:
            for _ in range(6):
                export(lake, target, f"2026120{number}T010000Z-ee")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=repeat, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for number in range(4):
        commit_night(lake, f"2026112{number}T020000Z-cc", flows=3 + number)
    for thread in threads:
        thread.join()
    assert not failures
    export(lake, target)
    require_equal(lake, target)


@pytest.mark.slow
def test_readers_see_whole_versions_while_a_night_is_run_again_fifty_times(lake, target):
    export(lake, target)
    ended, seen, faults = threading.Event(), {reader: set() for reader in READERS}, []

    def look(reader):
        while not ended.is_set():
            for name, per_night in {"predictions": None, "incidents": 2, "nights": 1}.items():
                try:
                    rows = read(reader, f"{target}/{name}")
                except Exception as error:
                    faults.append((reader, name, error))
                    return
                tonight = [row["run_id"] for row in rows if row["event_date"] == NIGHT]
                expected = per_night or 2 * (5 + int(tonight[0][11:13]))
                if len(set(tonight)) != 1 or len(tonight) != expected or len(rows) == len(tonight):
                    faults.append((reader, name, tonight))
                seen[reader].add(tonight[0])
            ended.wait(0.1)

    commit_night(lake, "20261127T010000Z-00")
    export(lake, target)
    readers = [threading.Thread(target=look, args=(reader,)) for reader in READERS]
    for reader in readers:
        reader.start()
    for number in range(50):
        run = f"20261127T01{number:02d}00Z-aa"
        commit_night(lake, run, flows=5 + number)
        export(lake, target, run)
    ended.set()
    for reader in readers:
        reader.join()
    assert not faults
    assert all(len(runs) > 3 for runs in seen.values()), {reader: len(runs) for reader, runs in seen.items()}
    require_equal(lake, target, READERS)


def test_the_mark_names_the_lake(lake, target):
    export(lake, target)
    assert json.loads(Path(target, delta.MARK).read_text()) == {"lake": lake.root}
    assert MODEL in str(deltalake.DeltaTable(f"{target}/predictions").file_uris())
