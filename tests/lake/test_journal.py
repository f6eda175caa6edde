"""Journals and links that anyone with access to a lake can make: nothing outside the lake is moved, deleted or written.

Each case is an exploit that changed files outside the lake, or ended a job with a stack trace.
"""

import datetime as dt
import json
import os
from pathlib import Path
from typing import Any

import pytest

from ids_spark.base.errors import InputError
from ids_spark.lake import retention
from ids_spark.lake.filesystem import write_json
from ids_spark.lake.journal import JournalUnusable, read_journal
from ids_spark.lake.lease import active_runs, expire
from ids_spark.lake.store import Lake
from tests.support.audits import drop_refusals
from tests.support.flows import RunJob

ENTRY = {"job": "ingest", "run_id": "run1", "tables": ["flows"]}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake with a table and its staged version, beside a folder with files of somebody else."""
    made = Lake(str(tmp_path / "lake"))
    write_json(made.uri("flows/part-0"), "old")
    for run_id in ("run1", "placed"):  # as `placed`, the file of a run that is not the one of the journal
        write_json(made.staged("ingest", run_id, "flows/part-0"), "new")
    for name in ("victim/a", "victim/ingest/b", "victim/run1/c", "victim/event_date=2020-01-01/d"):
        write_json(str(tmp_path / "outside" / name), "of somebody else")
    return made


def content(folder: Path) -> dict[str, str]:
    """Return every file below a folder, and where links lead."""
    return {str(p): os.readlink(p) if p.is_symlink() else p.read_text("latin-1") for p in _files(folder)}


def _files(folder: Path) -> list[Path]:
    found = [Path(top) / name for top, folders, files in os.walk(folder) for name in [*folders, *files]]
    return [path for path in found if path.is_symlink() or path.is_file()]


def refused(lake: Lake, tmp_path: Path, job: str = "ingest") -> str:
    """Start a job that must be refused; returns the message after a check that nothing changed anywhere."""
    before = content(tmp_path)
    with pytest.raises(InputError) as error:
        lake.recover(job)
    assert content(tmp_path) == before
    return str(error.value)


@pytest.mark.parametrize(
    "changed",
    [
        {"job": "../.."},
        {"job": "..", "run_id": "../../outside/victim", "tables": []},
        {"run_id": "../../../outside/victim", "tables": []},
        {"job": ""},
        {"job": "/etc"},
        {"run_id": ".."},
        {"run_id": "run1/flows"},
        {"run_id": "another"},  # not that of the file's name
        {"tables": ["../placed"]},
        {"tables": ["../../../../outside/victim"]},
        {"tables": ["flows/../../outside/victim"]},
        {"tables": ["/etc"]},
        {"tables": ["file:///tmp/x"]},
        {"tables": [".staging"]},
        {"tables": [".."]},
        {"tables": [""]},
        {"tables": ["flows//x"]},
        {"tables": ["flows\n"]},
        {"tables": ["flows\x00"]},
        {"tables": ["flows\\..\\x"]},
        {"tables": "flows"},
        {"tables": {"flows": 1}},
        {"tables": [1]},
        {"tables": None},
        {"job": 1},
        {"more": 1},
        {"files": {"flows": ["part-0"]}},  # as on S3
    ],
    ids=str,
)
def test_a_journal_with_other_names_is_refused(lake: Lake, tmp_path: Path, changed: dict[str, Any]) -> None:
    path = tmp_path / "lake/.commit-run1.json"
    path.write_text(json.dumps(ENTRY | changed))
    message = refused(lake, tmp_path)
    assert ".commit-run1.json is not the journal of a commit" in message
    assert "Nothing was moved or deleted. Remove the file" in message
    path.unlink()
    lake.recover("features")


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"job": "ingest", "run', "[]", "null", "1", '"x"', "\xff\xfe", "[" * 100_000, '{"a":' * 5_000, "{}"],
    ids=lambda text: text[:8] or "empty",
)
def test_a_journal_that_is_cut_or_no_json_is_refused(lake: Lake, tmp_path: Path, text: str) -> None:
    (tmp_path / "lake/.commit-run1.json").write_text(text, "latin-1")
    assert "Remove the file" in refused(lake, tmp_path)


@pytest.mark.parametrize("name", [".commit-.json", ".commit-run1", ".commit-run1.json.new", ".commit-run1~x.json"])
def test_a_file_named_almost_like_a_journal_is_refused(lake: Lake, tmp_path: Path, name: str) -> None:
    (tmp_path / "lake" / name).write_text(json.dumps(ENTRY))
    assert f"{name} is not the journal of a commit" in refused(lake, tmp_path)


def test_a_folder_named_like_a_journal_is_refused(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "lake/.commit-run1.json").mkdir()
    assert ".commit-run1.json is not the journal of a commit" in refused(lake, tmp_path)


@pytest.mark.parametrize(
    "files",
    [None, {}, {"flows": ["../x"]}, {"flows": ["/x"]}, {"flows": ["a/../../x"]}, {"flows": [".."]}, {"flows": [1]},
     {"other": []}, {"flows": [], "../x": []}],
    ids=str,
)  # fmt: skip
def test_a_journal_of_an_object_store_lists_plain_files_of_its_tables(tmp_path: Path, files: Any) -> None:
    path = tmp_path / ".commit-run1.json"
    path.write_text(json.dumps(ENTRY | {"files": files}))
    with pytest.raises(JournalUnusable, match="Nothing was moved or deleted"):
        read_journal(str(path), lists_files=True)
    path.write_text(json.dumps(ENTRY | {"files": {"flows": ["", "a/part-0", "_table.json"]}}))
    assert read_journal(str(path), lists_files=True).files == {"flows": ("", "a/part-0", "_table.json")}


@pytest.mark.parametrize(
    "place", ["flows", ".trash", ".staging", ".staging/ingest", ".staging/ingest/run1", ".staging/ingest/run1/flows"]
)
def test_a_commit_follows_no_link_out_of_the_lake(lake: Lake, tmp_path: Path, place: str) -> None:
    write_json(lake.uri(".commit-run1.json"), ENTRY)
    link = tmp_path / "lake" / place
    if link.exists():
        link.rename(tmp_path / "moved away")
    link.symlink_to(tmp_path / "outside/victim")
    assert "outside/victim" in refused(lake, tmp_path, job="features")


@pytest.mark.parametrize("place", [".staging", ".staging/ingest"])
def test_what_ended_runs_staged_is_not_removed_through_a_link(lake: Lake, tmp_path: Path, place: str) -> None:
    link = tmp_path / "lake" / place
    link.rename(tmp_path / "moved away")
    link.symlink_to(tmp_path / "outside/victim")
    assert "outside/victim" in refused(lake, tmp_path)


@pytest.mark.parametrize(
    "table",
    ["../x", "models/../../x", "/x", "", "models/.hidden", "models/a b", "models/x\n", "a" * 300, "a/" * 2_000 + "a"],
)
def test_a_job_stages_nothing_outside_the_lake(lake: Lake, table: str) -> None:
    with pytest.raises(InputError, match="cannot be a path"):
        lake.staged("ingest", "run1", table)


def test_a_job_stages_nothing_for_a_table_that_is_a_link_out_of_the_lake(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "lake/alerts").symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="remove the link"):
        lake.staged("score", "run2", "alerts/event_date=2026-11-27")


def test_a_lake_that_is_itself_behind_a_link_works(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "lake")
    Lake(str(tmp_path / "link")).commit("ingest", "run1", ["flows"])
    assert (tmp_path / "lake/flows/part-0").read_text() == '"new"\n'


@pytest.mark.parametrize("place", ["alerts", ".purge"])
def test_a_purge_deletes_nothing_behind_a_link(lake: Lake, tmp_path: Path, place: str) -> None:
    (tmp_path / "lake" / place).symlink_to(tmp_path / "outside/victim")
    before = content(tmp_path)
    with pytest.raises(InputError, match="remove the link"):
        retention.purge(lake, dt.date(2026, 1, 1))
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '"x"', "{}", '{"machine": 1, "pid": [], "started": null}', "\xff", "[" * 100_000]
    + [json.dumps({"machine": "m", "pid": pid, "started": 0.0}) for pid in (-1, 10**30, "x", 1.5)],
    ids=lambda text: text[:40] or "empty",
)
def test_a_heartbeat_that_cannot_be_read_expires(tmp_path: Path, text: str) -> None:
    path = tmp_path / ".running-run1.json"
    path.write_text(text, "latin-1")
    assert active_runs(str(tmp_path)) == {"run1"}
    os.utime(path, times=(0.0, 0.0))
    assert active_runs(str(tmp_path)) == frozenset()
    expire(str(tmp_path))
    assert not path.exists()


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to nothing", "device"])
def test_only_files_are_heartbeats(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ".running-run1.json"
    make = {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "link to nothing": lambda: path.symlink_to("nothing"),
        "device": lambda: path.symlink_to("/dev/zero"),
    }
    make[kind]()
    assert active_runs(str(tmp_path)) == frozenset()


@pytest.mark.parametrize("name", [".commit-run1.json", ".staging", "audit"])
def test_a_job_ends_with_one_message_and_exit_code_2(
    run_job: RunJob, lake: Lake, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """The job is one that removes nothing here and then stages its audit row."""
    if (tmp_path / "lake" / name).exists():
        (tmp_path / "lake" / name).rename(tmp_path / "moved away")
    (tmp_path / "lake" / name).symlink_to(tmp_path / "outside/victim" / ("" if "." not in name[1:] else "a"))
    before = content(tmp_path)
    assert run_job("purge") == 2
    assert drop_refusals(tmp_path / "lake") == (name != "audit")
    assert content(tmp_path) == before
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert errors[0].exc_info is None
