import datetime as dt
import io
import json
import marshal
import os
import pwd
import socket
import subprocess
import sys
import zipfile

import pyarrow.parquet as pq
import pytest

import ids_spark
from ids_spark.alerts.allow_list import AllowListUnusable
from ids_spark.alerts.pseudonyms import Pseudonyms
from ids_spark.base import packaging
from ids_spark.base.errors import InputError, NotReconciled
from ids_spark.base.packaging import code_version
from ids_spark.base.report import Report
from ids_spark.config.loader import load
from ids_spark.config.settings import Config
from ids_spark.dataset.tables import AUDIT
from ids_spark.extract.inventory import InventoryRefused
from ids_spark.lake.store import Lake
from ids_spark.runtime.audit import actor, text_of, write_audit_row
from ids_spark.score.identifiers import identifiers_of

STARTED = dt.datetime(2024, 5, 1, 2, 3, 4, 567890, tzinfo=dt.UTC)


def test_rows_that_are_all_accounted_for_reconcile():
    Report(rows_in=12, rows_out=5, rows_quarantined=3, rows_duplicate=1, rows_joined=1, rows_left_out=2).reconcile()
    Report().reconcile()


@pytest.mark.parametrize("rows_in", [9, 11])
def test_missing_or_additional_rows_are_reported_with_every_count(rows_in):
    with pytest.raises(NotReconciled) as error:
        Report(rows_in, rows_out=5, rows_quarantined=2, rows_duplicate=1, rows_joined=1, rows_left_out=1).reconcile()
    assert str(error.value) == (
        f"{rows_in} rows in, but 10 accounted for (5 out, 2 quarantined, 1 duplicate, 1 joined, 1 left out);"
        " nothing was committed"
    )


def test_an_audit_row_is_read_as_written(tmp_path):
    config = load([], ["train.epochs=3"])
    report = Report(9, 3, 1, 1, 2, 2, notes=["mind this"], models=["dnn-2-paper/v1"], feature_schema="release39")
    report.count("flows", {("train", "DoS-TCP"): 2, ("test", "Benign"): 1})
    report.counts["label conflicts", "train", None] = 0
    report.aliases["dnn-2-paper"] = STARTED, "ab"
    path = write_audit_row(Lake(str(tmp_path)), None, "ingest", "r", STARTED, config, report, "done").path
    assert path == "audit/r-ingest.parquet"
    table = pq.read_table(tmp_path / path)
    assert table.schema.equals(AUDIT)
    [row] = table.to_pylist()
    assert (row["run_id"], row["job"], row["status"], row["error"]) == ("r", "ingest", "done", None)
    assert [row[f"rows_{what}"] for what in ("in", "out", "quarantined", "duplicate", "joined", "left_out")] == [
        *(9, 3, 1, 1, 2, 2),
    ]
    assert row["counts"] == [
        {"split": "test", "class_name": "Benign", "what": "flows", "rows": 1},
        {"split": "train", "class_name": "DoS-TCP", "what": "flows", "rows": 2},
        {"split": "train", "class_name": None, "what": "label conflicts", "rows": 0},
    ]
    assert (row["notes"], row["models"]) == (["mind this"], ["dnn-2-paper/v1"])
    assert (row["feature_schema"], row["data_origin"]) == ("release39", None)
    assert row["started_at"] == STARTED
    assert row["seconds"] == (row["finished_at"] - STARTED).total_seconds() > 0
    assert json.loads(row["config"])["train"]["epochs"] == 3
    assert row["config_sha256"] == config.sha256() != Config().sha256()
    assert row["code_version"] == code_version()
    assert row["aliases"] == [{"model": "dnn-2-paper", "changed_at": STARTED, "sha256": "ab"}]
    assert row["actor"].split(" for ")[0] == pwd.getpwuid(os.geteuid()).pw_name
    assert (row["host"], row["previous"]) == (socket.gethostname(), [])


def test_a_failed_run_leaves_an_audit_row_with_its_error(tmp_path):
    lake, report = Lake(str(tmp_path)), Report()
    path = write_audit_row(lake, None, "train", "r", STARTED, Config(), report, "failed", "ValueError: no").path
    [row] = Lake(str(tmp_path)).read("audit").to_pylist()
    assert path == "audit/r-train.parquet"
    assert (row["status"], row["error"], row["counts"]) == ("failed", "ValueError: no", [])


KEY_OF_A_TEST = "0123456789abcdef0123456789abcdef"
QUOTING = "'pump-1' is 10.20.0.9, \"Ward 7\" is 00:1B:44:11:3a:B7 of the champion's site; dnn-6/v1.2.3.4.5 stays"


def config_with_key(monkeypatch):
    monkeypatch.setenv("IDS_SPARK_PSEUDONYM_KEY", KEY_OF_A_TEST)
    return Config()


def test_the_message_of_a_refusal_names_no_device_if_devices_have_pseudonyms(monkeypatch):
    assert text_of(InputError(QUOTING), Config()) == QUOTING
    found = text_of(InputError(QUOTING), config_with_key(monkeypatch))
    of = Pseudonyms(KEY_OF_A_TEST.encode()).of
    assert found == (
        f"{of('pump-1')} is {of('10.20.0.9')}, {of('Ward 7')} is {of('00:1B:44:11:3a:B7')} of the champion's site;"
        " dnn-6/v1.2.3.4.5 stays"
    )


@pytest.mark.parametrize("kind", [ValueError, InventoryRefused, AllowListUnusable])
def test_of_other_messages_the_class_remains(monkeypatch, kind):
    assert "pump-1" in text_of(kind("pump-1"), Config())
    found = text_of(kind("pump-1"), config_with_key(monkeypatch))
    assert kind.__name__ in found
    assert "pump-1" not in found


def test_a_key_that_cannot_be_read_hides_messages_but_its_own(tmp_path):
    key = tmp_path / "key"
    key.write_text(KEY_OF_A_TEST)
    key.chmod(0o644)
    config = load([], [f"score.pseudonym_key_file={key}"])
    with pytest.raises(InputError) as error:
        identifiers_of(config.score)
    assert text_of(error.value, config) == str(error.value)
    assert text_of(InputError("pump-1"), config) == "InputError"


def test_the_code_version_starts_with_that_of_the_package():
    assert code_version().split("+")[0] == ids_spark.__version__


def test_the_zip_file_knows_its_commit_without_git(tmp_path):
    archive = tmp_path / "elsewhere.zip"
    archive.write_bytes(packaging.archive())
    code = "from ids_spark.base import packaging; import sys; print(packaging.code_version(), len(packaging.archive()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(archive)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [code_version(), str(len(archive.read_bytes()))]
    assert zipfile.ZipFile(archive).read("ids_spark/_commit.json")


def test_every_module_of_the_zip_file_has_bytecode_that_python_uses_for_its_source_only(tmp_path):
    with zipfile.ZipFile(io.BytesIO(packaging.archive())) as packed:
        files = {name: packed.read(name) for name in packed.namelist()}
    assert {f"{name}c" for name in files if name.endswith(".py")} == {n for n in files if n.endswith(".pyc")}
    source, bytecode = "ids_spark/base/names.py", "ids_spark/base/names.pyc"
    head = files[bytecode][:16]  # magic number, flags, hash of the source
    other = head + marshal.dumps(compile("raise SystemExit('bytecode')", "", "exec"))
    changed = {source: b"raise SystemExit('source')"}
    for given, expected in [
        ({}, ""),
        ({bytecode: other}, "bytecode"),
        ({bytecode: other} | changed, "source"),
        ({bytecode: b"\0\0\0\0" + other[4:]} | changed, "source"),  # of another version of Python
    ]:
        archive = tmp_path / "elsewhere.zip"
        with zipfile.ZipFile(archive, "w") as written:
            for name, content in (files | given).items():
                written.writestr(name, content)
        run = [sys.executable, "-c", "import ids_spark.base.names"]
        done = subprocess.run(
            run, env={"PYTHONPATH": str(archive)}, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.stderr.strip() == expected


@pytest.mark.parametrize(
    ("sudo", "expected"), [(None, "{user}"), ("a.nurse", "{user} for a.nurse"), ("{user}", "{user}")]
)
def test_the_actor_is_the_user_and_who_called_sudo(monkeypatch, sudo, expected):
    user = pwd.getpwuid(os.geteuid()).pw_name
    monkeypatch.delenv("SUDO_USER", raising=False)
    if actor() != user:
        pytest.skip("the kernel knows a login of this session, which counts instead of sudo's variable")
    if sudo is not None:
        monkeypatch.setenv("SUDO_USER", sudo.format(user=user))
    assert actor() == expected.format(user=user)


def test_a_note_that_several_parts_of_a_run_share_is_kept_once() -> None:
    total = Report()
    for date in ("2026-01-05", "2026-01-06"):
        total.add(Report(notes=["the same of both", f"{date}: its own"]))
    assert total.notes == ["the same of both", "2026-01-05: its own", "2026-01-06: its own"]


@pytest.mark.parametrize(
    ("origins", "expected"),
    [
        (("measured", None), "measured"),  # the last of several nights has no flows
        ((None, "measured"), "measured"),
        (("measured", "synthetic", None, "measured"), "synthetic"),
        ((None, None), None),
    ],
)
def test_the_origin_of_a_run_is_that_of_its_parts_with_rows(origins: tuple[str | None], expected: str | None) -> None:
    total = Report()
    for origin in origins:
        total.add(Report(data_origin=origin))
    assert total.data_origin == expected
