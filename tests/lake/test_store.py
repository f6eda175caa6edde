import datetime as dt
import json
import logging
import os
import re
from itertools import count
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from ids_spark.base.errors import InputError
from ids_spark.dataset.tables import TABLES as CONTRACTS
from ids_spark.lake.filesystem import exists, files_in, is_file, read_bytes, resolve, write_bytes, write_json
from ids_spark.lake.store import Lake, TableMissing

TABLES = ["flows", "quarantine/job=ingest", "audit/run.parquet"]


class Killed(BaseException):
    """Simulates the end of the process: no code of the program runs after it."""


class InterruptedLake(Lake):
    """A lake whose process ends just before, or just after, the n-th time it moves or removes something."""

    def __init__(self, root, steps, after=False):
        super().__init__(root)
        self.left, self.after = steps, after

    def _step(self, do):
        self.left -= 1
        if self.left >= 0 or self.after:
            do()
        if self.left < 0:
            raise Killed

    def _move(self, source, target):
        self._step(lambda: super(InterruptedLake, self)._move(source, target))

    def _remove(self, uri):
        self._step(lambda: super(InterruptedLake, self)._remove(uri))


def stage(lake, run_id, version):
    for table in TABLES:
        names = [""] if table.endswith(".parquet") else ["/part-0", "/split=train/part-1", "/_table.json"]
        for name in names:
            write_json(f"{lake.staged('ingest', run_id, table)}{name}", version)
        if version == "old" and len(names) > 1:
            write_json(f"{lake.staged('ingest', run_id, table)}/part-old", version)  # in the old version alone


def all_at(version):
    return {table: {version} for table in TABLES}


def seen(lake):
    """Return the visible versions of each table."""
    root = Path(resolve(lake.root)[1])
    files = {table: [p for p in [root / table, *(root / table).rglob("*")] if p.is_file()] for table in TABLES}
    return {table: {json.loads(p.read_text()) for p in paths} for table, paths in files.items()}


def hidden(lake):
    root = Path(resolve(lake.root)[1])
    return [str(p) for p in root.rglob("*") if p.is_file() and p.relative_to(root).parts[0].startswith(".")]


def begun(root):
    """Return a lake with one committed version of every table and a staged second one."""
    made = Lake(str(root))
    stage(made, "run0", "old")
    made.commit("ingest", "run0", TABLES)
    stage(made, "run1", "new")
    return made


@pytest.fixture
def lake(tmp_path):
    return begun(tmp_path / "lake")


def test_a_commit_replaces_whole_tables_and_leaves_nothing_behind(lake):
    assert seen(lake) == all_at("old")
    lake.commit("ingest", "run1", TABLES)
    assert (seen(lake), hidden(lake)) == (all_at("new"), [])
    assert not exists(lake.uri("flows/part-old"))


def test_a_commit_leaves_other_tables_alone(lake):
    lake.commit("ingest", "run1", TABLES[:1])
    assert seen(lake) == {"flows": {"new"}, TABLES[1]: {"old"}, TABLES[2]: {"old"}}


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("next_job", ["ingest", "features"])
def test_a_kill_at_any_step_leaves_all_tables_old_or_all_new(tmp_path, after, next_job, caplog):
    outcomes = []
    for steps in count():
        lake = begun(tmp_path / str(steps))
        try:
            InterruptedLake(lake.root, steps, after).commit("ingest", "run1", TABLES)
            break
        except Killed:
            pass
        with caplog.at_level(logging.WARNING):
            Lake(lake.root).recover(next_job)
        [[version]] = {tuple(versions) for versions in seen(lake).values()}
        outcomes.append(version)
        stage(lake, "run2", "newer")
        lake.recover("features")  # another job that starts meanwhile changes nothing
        lake.commit("ingest", "run2", TABLES)
        lake.recover("ingest")
        assert (seen(lake), hidden(lake)) == (all_at("newer"), [])
    assert len(outcomes) >= 1 + 2 * len(TABLES)
    assert outcomes == ["old"] * (not after) + ["new"] * (len(outcomes) - (not after))
    assert "finishing an interrupted commit journal=.commit-run1.json" in caplog.text


@pytest.mark.parametrize("after", [False, True])
def test_a_commit_replaces_that_of_a_run_that_was_killed_before_it(tmp_path, after):
    for steps in count():
        lake = begun(tmp_path / str(steps))
        stage(lake, "run2", "newer")  # by a run that is active when the other one is killed
        try:
            InterruptedLake(lake.root, steps, after).commit("ingest", "run1", TABLES)
            break
        except Killed:
            lake.commit("ingest", "run2", TABLES)
        lake.recover("features")
        lake.recover("ingest")
        assert (seen(lake), hidden(lake)) == (all_at("newer"), [])
    assert steps >= 1 + 2 * len(TABLES)


def test_of_two_runs_that_begin_to_commit_at_once_one_waits_for_the_other(lake):
    journals = [lake.uri(".commit-run2.json")]

    class Beaten(Lake):
        """A lake in which another run writes its journal in the moment before this one does, and is killed then."""

        def _move(self, source, target):
            if journals:
                write_json(journals.pop(), {"job": "ingest", "run_id": "run2", "tables": TABLES})
            super()._move(source, target)

    stage(lake, "run2", "other")
    Beaten(lake.root).commit("ingest", "run1", TABLES)
    lake.recover("ingest")
    assert (seen(lake), hidden(lake)) == (all_at("new"), [])


def test_a_killed_commit_is_finished_although_its_table_was_written_since(lake):
    with pytest.raises(Killed):
        InterruptedLake(lake.root, 2).commit("ingest", "run1", TABLES)  # the first table is in the trash
    write_json(lake.uri(f"{TABLES[0]}/part-0"), "by hand")
    lake.recover("ingest")
    assert (seen(lake), hidden(lake)) == (all_at("new"), [])


def test_a_recovery_that_is_itself_killed_is_finished_by_the_next(tmp_path):
    for steps in count():
        lake = begun(tmp_path / str(steps))
        with pytest.raises(Killed):
            InterruptedLake(lake.root, 2).commit(
                "ingest", "run1", TABLES
            )  # the journal exists, the first table is in the trash
        try:
            InterruptedLake(lake.root, steps).recover("ingest")
            break
        except Killed:
            lake.recover("ingest")
            assert seen(lake) == all_at("new")
    assert steps > 2 * len(TABLES)


@pytest.mark.parametrize("steps", range(1, 8))
def test_a_run_that_fails_inside_its_commit_loses_nothing_by_discarding(lake, steps):
    with pytest.raises(Killed):
        InterruptedLake(lake.root, steps).commit("ingest", "run1", TABLES)
    lake.discard("ingest", "run1")  # as ids_spark.job does after any error
    lake.recover("ingest")
    assert seen(lake) == all_at("new")


def test_recovering_clears_what_a_killed_run_of_the_same_job_staged(lake):
    Lake(lake.root).recover("features")
    assert exists(lake.staged("ingest", "run1", "flows"))
    Lake(lake.root).recover("ingest")
    assert not exists(lake.staged("ingest", "run1", "flows"))
    assert seen(lake) == all_at("old")


def test_discarding_removes_one_run_only(lake):
    stage(lake, "run2", "newer")
    lake.discard("ingest", "run1")
    lake.commit("ingest", "run2", TABLES)
    assert (seen(lake), hidden(lake)) == (all_at("newer"), [])


@pytest.mark.parametrize("table", ["features/paper", "audit"])
def test_a_table_without_facts_names_the_job_to_run(lake, table):
    write_json(lake.uri("flows/_table.json"), {"rows": {"train": 1}})
    assert lake.facts("flows", "jobs/ingest.py") == {"rows": {"train": 1}}
    with pytest.raises(TableMissing) as error:
        lake.facts(table, "jobs/features.py")
    assert str(error.value) == f"{lake.root}/{table} holds no complete table; run jobs/features.py on this lake first"


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '"old"', "\xff", "[" * 100_000])
def test_facts_that_cannot_be_read_name_the_job_to_run(lake, text):
    write_bytes(lake.uri("flows/_table.json"), text.encode("latin-1"))
    with pytest.raises(TableMissing, match=r"flows/_table.json cannot be parsed .*; run jobs/ingest.py on this lake"):
        lake.facts("flows", "jobs/ingest.py")


@pytest.mark.parametrize(
    "facts",
    [
        {"rows": 1},
        {"rows": {"train": -1}},
        {"rows": {"train": "1"}},
        {"feature_schema": "release40"},
        {"feature_schema": ["release39"]},
        {"data_origin": None},
        {"run_id": 3},
        {"row_groups": [1]},
        {"classes_absent_in_train": {}},
    ],
)
def test_facts_of_another_type_are_refused(lake, facts):
    write_json(lake.uri("flows/_table.json"), facts)
    with pytest.raises(TableMissing, match=r"flows/_table.json cannot be parsed .*; run jobs/ingest.py on this lake"):
        lake.facts("flows", "jobs/ingest.py")


def test_a_fact_that_is_missing_names_the_job_to_run(lake):
    write_json(lake.uri("flows/_table.json"), {"rows": {}})
    with pytest.raises(TableMissing, match=r"_table.json lacks train; run jobs/ingest.py on this lake again"):
        lake.facts("flows", "jobs/ingest.py")["rows"]["train"]
    with pytest.raises(TableMissing, match=r"_table.json lacks feature_schema; run jobs/ingest.py on this lake again"):
        lake.facts("flows", "jobs/ingest.py")["feature_schema"]


def test_hidden_files_are_not_listed(tmp_path):
    for name in ["b.parquet", "a/c.parquet", "_x.parquet", ".y.parquet", "a/_z/d.parquet", ".w/e.parquet", "f.csv"]:
        write_bytes(str(tmp_path / name), b"")
    assert files_in(f"{tmp_path}/", ".parquet") == [f"{tmp_path}/a/c.parquet", f"{tmp_path}/b.parquet"]
    assert files_in(str(tmp_path), "") == [f"{tmp_path}/{n}" for n in ("a/c.parquet", "b.parquet", "f.csv")]
    assert files_in(str(tmp_path / ".w"), "") == [f"{tmp_path}/.w/e.parquet"]  # requested by name
    assert files_in(str(tmp_path / "absent"), "") == []


@pytest.mark.parametrize("uri", ["here/x", "./a/../here/x", "file:{cwd}/here/x", "file://{cwd}/here/x", "{cwd}/here/x"])
def test_a_local_path_in_any_form_is_one_path(tmp_path, monkeypatch, uri):
    monkeypatch.chdir(tmp_path)
    fs, path = resolve(uri.format(cwd=tmp_path))
    assert (type(fs), path) == (pafs.LocalFileSystem, f"{tmp_path}/here/x")


def test_a_lake_keeps_its_path_when_the_process_changes_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lake = Lake("lake")
    monkeypatch.chdir("/")
    assert lake.uri("flows") == f"file://{tmp_path}/lake/flows"
    write_bytes(lake.uri("flows/a b"), b"x")
    assert read_bytes(f"{tmp_path}/lake/flows/a b") == b"x"


@pytest.mark.parametrize("uri", ["ftp://host/lake", "lake:x", "s4://bucket/lake"])
def test_an_unknown_scheme_is_refused(uri):
    with pytest.raises(InputError) as error:
        resolve(uri)
    assert re.fullmatch(f"{uri}: .+; expected a local path or a file:, hdfs: or s3a: URI", str(error.value))


def test_json_is_indented_and_a_missing_file_is_known(tmp_path):
    write_json(str(tmp_path / "new" / "x.json"), {"b": [1], "a": None})
    assert (tmp_path / "new" / "x.json").read_text() == '{\n  "b": [\n    1\n  ],\n  "a": null\n}\n'
    with pytest.raises(FileNotFoundError):
        read_bytes(str(tmp_path / "no"))
    assert [is_file(str(tmp_path / name)) for name in ("new/x.json", "new", "no")] == [True, False, False]


def test_a_folder_made_by_hand_is_no_night(tmp_path):
    lake = Lake(str(tmp_path))
    for name in ("event_date=2026-11-24", "event_date=20261124", "event_date=2026-W48-2", "event_date=2026-11-24 old"):
        (tmp_path / "nights" / name).mkdir(parents=True)
    assert lake.dates("nights") == [dt.date(2026, 11, 24)]
    found = {
        name: CONTRACTS["nights"].values_in(f"nights/{name}/part-0")["event_date"]
        for name in os.listdir(tmp_path / "nights")
    }
    assert [name for name, date in found.items() if date is not None] == ["event_date=2026-11-24"]
