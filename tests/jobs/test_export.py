"""Delta tables after jobs: written at their end, caught up by the next one, never a reason to lose a night."""

import datetime as dt

import pytest

from ids_spark.lake import delta
from ids_spark.lake.store import Lake
from tests.support.delta_tables import commit_two_nights, in_lake, plain, read
from tests.support.in_process import run
from tests.support.incident_rows import NIGHT

DAY = dt.timedelta(days=1)
PURGE = (f"purge.today={NIGHT + 4 * DAY}", "purge.older_than_days=3")  # keeps the second night


@pytest.fixture
def folder(tmp_path):
    """A folder with the lake of two nights."""
    commit_two_nights(Lake(str(tmp_path / "lake")))
    return tmp_path


def require_equal(folder):
    for name in delta.EXPORTED:
        assert plain(read("deltalake", f"{folder}/delta/{name}")) == plain(in_lake(Lake(f"{folder}/lake"), name))


@pytest.mark.parametrize("job", ["export", "purge"])
def test_a_mistyped_lake_is_refused_and_not_made(tmp_path, job):
    code, log = run(tmp_path, job, f"export.delta={tmp_path}/delta")
    assert code == 2
    assert f"{tmp_path}/lake holds no table; expected a lake" in log
    assert list(tmp_path.iterdir()) == []


def audit_of(folder):
    rows = Lake(f"{folder}/lake").read("audit", ["run_id", "job", "status", "error"]).to_pylist()
    return [(row["job"], row["status"], row["error"]) for row in rows if row["run_id"] != "a"]


def test_a_lake_is_exported_with_the_row_of_the_export_itself_then_purged_with_its_delta_tables(folder, capsys):
    code, log = run(folder, "export", f"export.delta={folder}/delta")
    assert code == 0, log
    assert "nights: version 1, 2 files added, 0 removed" in capsys.readouterr().out
    require_equal(folder)
    assert {row["job"] for row in read("polars", f"{folder}/delta/audit")} == {"score", "export"}
    code, log = run(folder, "purge", f"export.delta={folder}/delta", *PURGE)
    assert code == 0, log
    require_equal(folder)
    assert {row["event_date"] for row in read("polars", f"{folder}/delta/incidents")} == {NIGHT + DAY}
    assert not list((folder / "delta").rglob(f"event_date={NIGHT}"))


def test_a_failed_export_is_exit_code_3_with_a_row_in_the_audit_and_the_next_job_catches_up(folder):
    (folder / "delta").write_text("a file")
    code, log = run(folder, "purge", f"export.delta={folder}/delta", *PURGE)
    assert code == 3
    assert "the lake is complete, its Delta tables are not (export.delta): " in log
    assert "Traceback" not in log
    assert Lake(f"{folder}/lake").dates("nights") == [NIGHT + DAY]
    [(job, status, error), purged] = sorted(audit_of(folder))
    assert (job, status) == ("export", "failed")
    assert str(folder / "delta") in error
    assert purged[:2] == ("purge", "done")
    (folder / "delta").unlink()
    code, log = run(folder, "purge", f"export.delta={folder}/delta", *PURGE)
    assert code == 0, log
    require_equal(folder)


def test_a_refused_job_exports_nothing(folder):
    code, _ = run(folder, "purge", f"export.delta={folder}/delta", "purge.today=9999-01-01")
    assert code == 2
    assert not (folder / "delta").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((), "export.delta is not set"),
        (("export.delta='a b'",), "without blanks"),
        (("export.delta=gs://bucket/x",), "unknown scheme"),
        (("export.delta={folder}/lake",), "the lake itself"),
        (("export.delta=x", "export.keep_days=0"), "export.keep_days"),
    ],
)
def test_a_refusal_says_what_is_expected(folder, settings, message):
    code, log = run(folder, "export", *(setting.format(folder=folder) for setting in settings))
    assert code == 2
    assert message in log
