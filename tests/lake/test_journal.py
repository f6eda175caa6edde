"""Journals and links that anyone with access to a lake can make: nothing outside the lake is moved, deleted or written.

Each case is an exploit that changed files outside the lake, or ended a job with a stack trace.
"""

import datetime as dt
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ids_spark.base.errors import InputError
from ids_spark.lake import retention
from ids_spark.lake.filesystem import replace_bytes, write_json
from ids_spark.lake.journal import JournalUnusable, read_journal
from ids_spark.lake.lease import Lease, active_runs
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


def is_set_aside(lake: Lake, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> bool:
    """Start a job; returns whether it renamed one file, with a warning, and changed nothing else anywhere."""
    before, folder = content(tmp_path), tmp_path / "lake"
    caplog.clear()
    lake.recover("features")
    [path] = folder.glob(".set-aside-*")
    [record] = caplog.records
    assert f"={lake.uri(name)}, because " in record.getMessage()
    assert path.name in record.getMessage()
    assert record.levelname == "WARNING"
    path.rename(folder / name)
    return content(tmp_path) == before


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
def test_a_journal_with_other_names_is_set_aside(
    lake: Lake, tmp_path: Path, changed: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "lake/.commit-run1.json").write_text(json.dumps(ENTRY | changed))
    assert is_set_aside(lake, tmp_path, ".commit-run1.json", caplog)
    lake.recover("ingest")
    assert (tmp_path / "lake/.staging/ingest/run1/flows/part-0").exists(), (
        "may be needed to complete the commit by hand"
    )
    assert not (tmp_path / "lake/.staging/ingest/placed").exists()


def test_a_broken_journal_of_a_run_that_seems_active_makes_no_job_wait(lake: Lake, tmp_path: Path) -> None:
    heartbeat = {"machine": "another", "pid": 1, "started": 0.0}
    (tmp_path / "lake/.running-run1.json").write_text(json.dumps(heartbeat))
    (tmp_path / "lake/.commit-run1.json").write_text("{")
    begin = time.monotonic()
    lake.recover("features")
    lake.commit("ingest", "placed", ["flows"])
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"job": "ingest", "run', "[]", "null", "1", '"x"', "\xff\xfe", "[" * 100_000, '{"a":' * 5_000, "{}",
     json.dumps(ENTRY)[:-1] + ', "job": "ingest"}', json.dumps(ENTRY | {"format": 2}), " " * (33 << 20)],
    ids=lambda text: text.strip()[-30:] or f"{len(text)} blanks",
)  # fmt: skip
def test_a_journal_that_is_cut_or_no_json_or_of_another_version_is_set_aside(
    lake: Lake, tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "lake/.commit-run1.json").write_text(text, "latin-1")
    assert is_set_aside(lake, tmp_path, ".commit-run1.json", caplog)


@pytest.mark.parametrize(
    "name",
    [".commit-.json", ".commit-run1", ".commit-run1.json.new", ".commit-run1~x.json", ".commit-..json",
     ".commit-a\nb.json", f".commit-{'x' * 240}.json"],
)  # fmt: skip
def test_a_file_named_almost_like_a_journal_is_set_aside(
    lake: Lake, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "lake" / name).write_text(json.dumps(ENTRY))
    assert is_set_aside(lake, tmp_path, name, caplog)


def test_a_journal_whose_name_is_no_text_is_set_aside(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "lake" / os.fsdecode(b".commit-\xff.json")).write_text(json.dumps(ENTRY))
    (tmp_path / "lake" / os.fsdecode(b".running-\xff.json")).write_text("{}")
    lake.recover("features")
    assert len(list((tmp_path / "lake").glob(".set-aside-*"))) == 2


SPECIAL: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to a journal": lambda path: path.symlink_to(path.with_name("journal")),
}


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("name", [".commit-run1.json", ".running-run1.json"])
def test_what_is_no_plain_file_is_set_aside(
    lake: Lake, tmp_path: Path, name: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_json(lake.uri("journal"), ENTRY)
    SPECIAL[kind](tmp_path / "lake" / name)
    assert is_set_aside(lake, tmp_path, name, caplog)


@pytest.mark.skipif(os.geteuid() == 0, reason="the user root may read and rename everything")
def test_a_journal_that_can_neither_be_read_nor_renamed_stops_no_job(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "lake/.commit-run1.json"
    path.write_text(json.dumps(ENTRY))
    path.chmod(0)
    path.parent.chmod(0o500)
    lake.recover("features")
    path.parent.chmod(0o700)
    assert path.exists()


@pytest.mark.parametrize(
    "files",
    [None, {}, {"flows": ["../x"]}, {"flows": ["/x"]}, {"flows": ["a/../../x"]}, {"flows": [".."]}, {"flows": [1]},
     {"other": []}, {"flows": [], "../x": []}],
    ids=str,
)  # fmt: skip
def test_a_journal_of_an_object_store_lists_plain_files_of_its_tables(tmp_path: Path, files: Any) -> None:
    path = tmp_path / ".commit-run1.json"
    path.write_text(json.dumps(ENTRY | {"files": files}))
    with pytest.raises(JournalUnusable):
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
    + [json.dumps({"machine": "m", "pid": pid, "started": 0.0}) for pid in (10**30, "x")]
    + ['{"machine": "m", "pid": 1, "started": NaN}', " " * 11_000],
    ids=lambda text: text.strip()[:40] or f"{len(text)} blanks",
)
def test_a_heartbeat_that_no_run_can_have_written_is_set_aside(
    lake: Lake, tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "lake/.running-run1.json").write_text(text, "latin-1")
    assert active_runs(lake.root) == frozenset()
    assert is_set_aside(lake, tmp_path, ".running-run1.json", caplog)


@pytest.mark.parametrize("run", ["", "..", "x\n", "a b", "é", "x" * 230])
def test_a_heartbeat_with_another_name_is_set_aside(
    lake: Lake, tmp_path: Path, run: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = f".running-{run}.json"
    (tmp_path / "lake" / name).write_text(json.dumps({"machine": "another", "pid": 1, "started": 0.0}))
    assert is_set_aside(lake, tmp_path, name, caplog)


def test_a_heartbeat_of_the_future_does_not_last(tmp_path: Path) -> None:
    path = tmp_path / ".running-run1.json"
    path.write_text(json.dumps({"machine": "another", "pid": 1, "started": 0.0}))
    assert active_runs(str(tmp_path)) == {"run1"}
    os.utime(path, times=(2e9, 4e9))
    assert active_runs(str(tmp_path)) == frozenset()


def test_a_file_is_not_written_through_a_link_that_was_there_before(tmp_path: Path) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "lake"
    victim.write_text("of somebody else")
    folder.mkdir()
    with Lease(str(folder), "run1", heartbeat_s=0.01):
        for name in (".running-run1.json.new", ".running-run1.json~"):
            (folder / name).symlink_to(victim)
        time.sleep(0.1)
    (folder / "a.json").symlink_to(victim)
    with pytest.raises(InputError, match="without symbolic links"):
        write_json(str(folder / "a.json"), 1)
    replace_bytes(str(folder / "a.json"), b"1")
    assert not (folder / "a.json").is_symlink()
    assert victim.read_text() == "of somebody else"


@pytest.mark.parametrize("place", ["flows/part-1", "alerts", "models/m/v/model.json", "checkpoints", "reports/night"])
@pytest.mark.parametrize("target", ["flows", "../outside/victim", "nothing"])
def test_a_lake_with_a_link_is_refused_before_anything_is_read(
    lake: Lake, tmp_path: Path, place: str, target: str
) -> None:
    path = tmp_path / "lake" / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(tmp_path / "lake" / target)
    message = refused(lake, tmp_path)
    assert f"lake/{place} leads to" in message
    assert "remove the link" in message
    if "/" not in place:
        with pytest.raises(InputError, match="without symbolic links"):
            lake.staged("ingest", "run2", place)


def test_a_name_that_is_no_text_is_refused(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "lake/flows" / os.fsdecode(b"a\xff.parquet")).touch()
    assert "no UTF-8" in refused(lake, tmp_path)


def test_folders_nested_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand of them exceed what a recursion can hold, two thousand the longest path."""
    (tmp_path / "audit").mkdir()
    monkeypatch.chdir(tmp_path / "audit")
    for _ in range(40):
        os.mkdir("a")
        os.chdir("a")
    os.chdir(tmp_path)
    with pytest.raises(InputError, match="nested too deeply"):
        Lake(str(tmp_path)).recover("score")


def test_names_of_any_language_are_read(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "lake/flows/é 病.txt").touch()
    lake.recover("features")


@pytest.mark.parametrize("name", [".staging", "audit"])
def test_a_job_ends_with_one_message_and_exit_code_2(
    run_job: RunJob, lake: Lake, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """The job is one that removes nothing here and then stages its audit row."""
    if (tmp_path / "lake" / name).exists():
        (tmp_path / "lake" / name).rename(tmp_path / "moved away")
    (tmp_path / "lake" / name).symlink_to(tmp_path / "outside/victim")
    before = content(tmp_path)
    assert run_job("purge") == 2
    assert drop_refusals(tmp_path / "lake") == (name != "audit")
    assert content(tmp_path) == before
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert errors[0].exc_info is None
