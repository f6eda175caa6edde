"""Replacement of a capture's logs: complete or not begun, wherever a run is interrupted; manifests and journals."""

import datetime as dt
import json
import os
from itertools import count
from pathlib import Path

import pytest

from ids_spark.base.errors import InputError
from ids_spark.extract.capture_files import Capture
from ids_spark.extract.counts import PacketCounts
from ids_spark.extract.manifests import DateLogs, ExtractedLogs, LogFile, Manifest, stamp_of
from ids_spark.lake import filesystem

KEY = "0123456789abcdef"
OLD = [f"event_date=2024-05-0{day}/flows-{KEY}-00000.parquet" for day in (1, 2)]
NEW = [f"event_date=2024-05-0{day}/flows-{KEY}-0000{piece}.parquet" for day in (1, 3) for piece in (0, 1)]


class Killed(BaseException):
    """Ends a run as SIGKILL does: no handler of errors in the code under test catches it."""


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.glob("event_date=*/*")}


def replace(folder: Path, run_id: str, paths: list[str]) -> None:
    """Write files as a task does and make them part of the logs."""
    logs = ExtractedLogs(str(folder), run_id)
    counts = PacketCounts(windows=1)
    manifest = Manifest(
        "a.pcap",
        run_id,
        sorted({path[11:21] for path in paths}),
        {path[11:21]: DateLogs(run_id, [p for p in paths if p[11:21] == path[11:21]], counts) for path in paths},
    )
    with logs.opened():
        files = []
        for number, path in enumerate(paths):
            filesystem.write_bytes(f"{logs.writing}/part-{number}.parquet", f"{run_id} {path}".encode())
            files.append(LogFile(path, f"writing-{run_id}/part-{number}.parquet"))
        old = logs.manifest(KEY)
        replaced = [path for each in (old.dates.values() if old else ()) for path in each.files]
        logs.replace(KEY, manifest, files, replaced)


def test_a_replacement_that_is_interrupted_anywhere_is_old_or_is_completed(tmp_path, monkeypatch):
    steps_of = ("replace_bytes", "move", "remove")
    real = {name: getattr(filesystem, name) for name in steps_of}
    outcomes = []
    for stop in count():
        folder = tmp_path / str(stop)
        replace(folder, "run0", OLD)
        left = [stop]

        def interrupted(name, left=left):
            def step(*arguments):
                if left[0] == 0:
                    raise Killed
                left[0] -= 1
                return real[name](*arguments)

            return step

        for name in steps_of:
            monkeypatch.setattr(filesystem, name, interrupted(name))
        logs = ExtractedLogs(str(folder), "run1")
        monkeypatch.setattr(ExtractedLogs, "_remove_folder", lambda *_: None)  # a killed run cleans nothing
        try:
            replace(folder, "run1", NEW)
            ended = True
        except Killed:
            ended = False
        monkeypatch.undo()
        with ExtractedLogs(str(folder), "run2").opened():
            pass
        found = content(folder)
        new = {path: f"run1 {path}" for path in NEW}
        assert found in ({path: f"run0 {path}" for path in OLD}, new)
        outcomes.append(found == new)
        manifest = logs.manifest(KEY)
        assert manifest is not None
        assert sorted(path for each in manifest.dates.values() for path in each.files) == sorted(found)
        assert [path.name for path in (folder / "_extract").iterdir()] == [f"{KEY}.json"]
        if ended:
            break
    assert outcomes == sorted(outcomes)
    assert not outcomes[0]
    assert len(outcomes) > 1 + len(NEW) + 1


def test_two_runs_at_a_time_are_refused(tmp_path):
    with (
        ExtractedLogs(str(tmp_path), "run0").opened(),
        pytest.raises(InputError, match="run run0 writes to it now"),
        ExtractedLogs(str(tmp_path), "run1").opened(),
    ):
        pass
    with ExtractedLogs(str(tmp_path), "run1").opened():
        pass


@pytest.mark.parametrize("path", ["../x.parquet", "event_date=2024-05-01/other.parquet", "/etc/passwd"])
def test_a_journal_that_leads_elsewhere_is_set_aside_and_moves_and_deletes_nothing(tmp_path, path, caplog):
    folder = tmp_path / "logs"
    replace(folder, "run0", OLD)
    victim = tmp_path / "x.parquet"
    victim.write_text("keep")
    manifest = json.loads((folder / f"_extract/{KEY}.json").read_text())
    for journal in (
        {"manifest": manifest, "new": [], "removed": [path]},
        {"manifest": manifest, "new": [{"path": path, "staged": "writing-a/b.parquet"}], "removed": []},
        {"manifest": manifest, "new": [{"path": OLD[0], "staged": path}], "removed": []},
        {"manifest": manifest | {"dates": 3}, "new": [], "removed": []},
    ):
        (folder / f"_extract/{KEY}.commit").write_text(json.dumps(journal))
        before = content(folder)
        with ExtractedLogs(str(folder), "run1").opened():
            pass
        assert content(folder) == before
        assert victim.read_text() == "keep"
        [set_aside] = folder.glob("_extract/.set-aside-*")
        assert set_aside.name in caplog.messages[-1]
        assert "extract again with extract.again=true" in caplog.messages[-1]
        set_aside.unlink()


@pytest.mark.parametrize("name", [f"{KEY}.commit", ".running-run9.json", f"{KEY}.json"])
@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "broken", "huge"])
def test_what_no_run_can_have_written_stops_no_run(tmp_path, name, kind):
    replace(tmp_path, "run0", OLD)
    path = tmp_path / "_extract" / name
    path.unlink(missing_ok=True)
    make = {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "broken": lambda: path.write_text("{"),
        "huge": lambda: path.write_text(" " * (33 << 20)),
    }
    make[kind]()
    with ExtractedLogs(str(tmp_path), "run1").opened():
        assert (ExtractedLogs(str(tmp_path), "run1").manifest(KEY) is None) == name.startswith(f"{KEY}.json")
    assert content(tmp_path) == {path: f"run0 {path}" for path in OLD}


@pytest.mark.parametrize("place", ["event_date=2024-05-01", "_extract", "_extract/writing-run0"])
def test_logs_are_not_written_through_a_link(tmp_path, place):
    victim, logs = tmp_path / "victim", tmp_path / "logs"
    victim.mkdir()
    (victim / NEW[0].rpartition("/")[2]).write_text("of somebody else")
    (logs / place).parent.mkdir(parents=True)
    (logs / place).symlink_to(victim)
    if "writing" in place:
        replace(logs, "run0", NEW[:1])  # the link is removed like other files of a killed run
    else:
        with pytest.raises(InputError, match="without symbolic links"):
            replace(logs, "run0", NEW[:1])
    assert [path.read_text() for path in victim.iterdir() if path.name.startswith("flows")] == ["of somebody else"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"capture": 1}', "null"])
def test_a_damaged_manifest_counts_as_none(tmp_path, text):
    replace(tmp_path, "run0", OLD)
    logs = ExtractedLogs(str(tmp_path), "run1")
    assert logs.keys() == [KEY]
    assert logs.manifests([KEY, "absent"])[KEY].capture == "a.pcap"
    (tmp_path / f"_extract/{KEY}.json").write_text(text)
    assert logs.manifest(KEY) is None
    assert logs.manifests([KEY]) == {}


def test_logs_are_current_only_if_nothing_has_changed_and_their_files_are_there(tmp_path):
    replace(tmp_path, "run0", OLD)
    logs = ExtractedLogs(str(tmp_path), "run1")
    manifest, present = logs.manifest(KEY), logs.present()
    assert manifest is not None
    assert set(present) == set(OLD)
    day = dt.date(2024, 5, 1)
    assert manifest.is_current("run0", None, present)
    assert not manifest.is_current("run1", None, present)
    assert manifest.is_current("run0", day, present)
    assert manifest.is_current("run0", dt.date(2024, 6, 1), present)  # the capture has no packet of it
    del present[OLD[1]]
    assert manifest.is_current("run0", day, present)
    assert not manifest.is_current("run0", None, present)


def test_a_stamp_changes_with_size_time_date_and_settings():
    capture = Capture("uri", "a.pcap", 10, 20)
    others = (
        Capture("uri", "a.pcap", 11, 20),
        Capture("uri", "a.pcap", 10, 21),
        Capture("uri", "a.pcap", 10, 20, dt.date(2024, 5, 1)),
    )
    stamps = {stamp_of(each, {"window": 10}) for each in (capture, *others)}
    assert len(stamps) == 4
    assert stamp_of(capture, {"window": 10}) == stamp_of(Capture("elsewhere", "a.pcap", 10, 20), {"window": 10})
    assert stamp_of(capture, {"window": 10}) != stamp_of(capture, {"window": 11})
