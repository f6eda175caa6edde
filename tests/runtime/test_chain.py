"""The hash chain of the audit: what a reader of the lake alone can find, and what needs a hash kept elsewhere."""

import datetime as dt
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ids_spark.base.errors import InputError
from ids_spark.base.report import Report
from ids_spark.config.settings import Config
from ids_spark.dataset.tables import AUDIT
from ids_spark.lake.filesystem import newest_files
from ids_spark.lake.store import Lake
from ids_spark.runtime import chain, job
from ids_spark.runtime.audit import actor, write_audit_row
from tests.support import hostile_files
from tests.support.flows import ROOT

DAY = dt.timedelta(days=1)
FIRST = dt.datetime(2026, 3, 1, 3, tzinfo=dt.UTC)


def put(lake: Path, row: dict[str, Any], name: str | None = None) -> Path:
    path = lake / "audit" / (name or f"{row['run_id']}-{row['job']}.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([row], schema=AUDIT), path)
    return path


def sealed(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with its hash, computed as the documentation of the chain says, not by its code."""
    [stored] = pa.Table.from_pylist([row], schema=AUDIT).to_pylist()
    del stored["sha256"]
    for name in ("started_at", "finished_at"):
        stored[name] = stored[name].isoformat()
    text = json.dumps(stored, sort_keys=True, separators=(",", ":"))
    return {**row, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def row_of(day: int, previous: Sequence[str], **more: Any) -> dict[str, Any]:
    started = FIRST + day * DAY
    known = {
        "run_id": f"{started:%Y%m%dT%H%M%SZ}-{day:08x}",
        "job": "score",
        "status": "done",
        "started_at": started,
        "finished_at": started + dt.timedelta(minutes=5),
        "seconds": 300.25,
        "notes": ["café – 病"],
        "counts": [{"split": "s", "class_name": None, "what": "x", "rows": 1}],
        "previous": list(previous),
    }
    return {**known, **more}


def chain_of(lake: Path, days: int) -> list[dict[str, Any]]:
    """Write one row a day, and return them."""
    rows: list[dict[str, Any]] = []
    for day in range(days):
        rows.append(sealed(row_of(day, [row["sha256"] for row in rows[-1:]])))
        put(lake, rows[-1])
    return rows


def faults(lake: Path, head: str | None = None) -> list[str]:
    return chain.check(Lake(str(lake)), head).faults


def file_of(row: dict[str, Any]) -> str:
    return f"{row['run_id']}-{row['job']}.parquet"


def test_an_untouched_chain_has_no_fault_and_one_head(tmp_path: Path) -> None:
    rows = chain_of(tmp_path, 5)
    found = chain.check(Lake(str(tmp_path)), rows[2]["sha256"])
    assert (found.rows, found.before, found.heads, found.faults) == (5, 0, [rows[-1]["sha256"]], [])


def test_an_edited_row_is_named(tmp_path: Path) -> None:
    rows = chain_of(tmp_path, 5)
    put(tmp_path, {**rows[2], "notes": ["nothing happened"]})
    [fault] = faults(tmp_path)
    assert fault.startswith(f"audit/{file_of(rows[2])}: was changed")


def test_an_edited_row_with_a_new_hash_no_longer_fits(tmp_path: Path) -> None:
    rows = chain_of(tmp_path, 5)
    put(tmp_path, sealed({**rows[2], "status": "refused", "sha256": None}))
    first, second = faults(tmp_path)
    assert first.startswith(f"audit/{file_of(rows[2])}: is named by no later row")
    assert second.startswith(f"audit/{file_of(rows[3])}: the row before it, SHA-256 {rows[2]['sha256']}, is not in")


def test_a_removed_row_leaves_its_hash_in_the_next_one(tmp_path: Path) -> None:
    rows = chain_of(tmp_path, 5)
    (tmp_path / "audit" / file_of(rows[2])).unlink()
    found = faults(tmp_path)
    assert found[0].startswith(f"audit/{file_of(rows[1])}: is named by no later row")
    assert found[1].startswith(f"audit/{file_of(rows[3])}: the row before it, SHA-256 {rows[2]['sha256']}")


def test_a_removed_beginning_is_found(tmp_path: Path) -> None:
    rows = chain_of(tmp_path, 3)
    (tmp_path / "audit" / file_of(rows[0])).unlink()
    [fault] = faults(tmp_path)
    assert rows[0]["sha256"] in fault


def test_removed_newest_rows_are_found_only_by_a_hash_that_was_kept(tmp_path: Path) -> None:
    rows = chain_of(tmp_path, 5)
    for row in rows[3:]:
        (tmp_path / "audit" / file_of(row)).unlink()
    assert faults(tmp_path) == []
    assert faults(tmp_path, rows[2]["sha256"]) == []
    [fault] = faults(tmp_path, rows[4]["sha256"])
    assert rows[4]["sha256"] in fault


def test_a_chain_that_was_written_anew_is_found_only_by_a_hash_that_was_kept(tmp_path: Path) -> None:
    rows = chain_of(tmp_path, 4)
    previous: list[str] = []
    for row in rows:
        anew = sealed({**row, "previous": previous, "notes": [], "sha256": None})
        put(tmp_path, anew)
        previous = [anew["sha256"]]
    assert faults(tmp_path) == []
    assert len(faults(tmp_path, rows[1]["sha256"])) == 1


def test_inserted_rows_are_found(tmp_path: Path) -> None:
    rows = chain_of(tmp_path, 5)
    linked = sealed(row_of(2, [rows[1]["sha256"]], job="promote"))
    first = sealed(row_of(3, [], job="ingest"))
    plain = {**row_of(1, [], job="purge"), "previous": None}
    for row in (linked, first, plain):
        put(tmp_path, row)
    found = "\n".join(faults(tmp_path))
    assert f"{file_of(linked)}: is named by no later row" in found
    assert f"{file_of(first)}: names no row before it" in found
    assert f"{file_of(plain)}: has no hash" in found
    put(tmp_path, rows[4], "20260101T000000Z-copy.parquet")
    assert "20260101T000000Z-copy.parquet: is the row of another file" in "\n".join(faults(tmp_path))


def test_rows_that_were_swapped_are_found(tmp_path: Path) -> None:
    rows = chain_of(tmp_path, 4)
    one, other = (tmp_path / "audit" / file_of(row) for row in rows[1:3])
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    assert sum("is the row of another file" in fault for fault in faults(tmp_path)) == 2


@pytest.mark.parametrize("content", [b"", b"PAR1", b"x" * 100])
def test_a_file_that_is_no_row_is_named_and_stops_no_run(tmp_path: Path, content: bytes) -> None:
    rows = chain_of(tmp_path, 3)
    (tmp_path / "audit" / "20260302T050000Z-x-score.parquet").write_bytes(content)
    assert chain.heads(Lake(str(tmp_path))) == [rows[-1]["sha256"]]
    [fault] = faults(tmp_path)
    assert fault.startswith("audit/20260302T050000Z-x-score.parquet: is no audit row")


def test_an_edited_row_is_named_where_its_original_is_in_a_folder_below(tmp_path: Path) -> None:
    rows = chain_of(tmp_path, 4)
    (tmp_path / "audit/zz").mkdir()
    (tmp_path / "audit" / file_of(rows[1])).rename(tmp_path / "audit/zz" / file_of(rows[1]))
    put(tmp_path, {**rows[1], "notes": ["nothing happened"]})
    found = "\n".join(faults(tmp_path))
    assert f"audit/{file_of(rows[1])}: was changed" in found
    assert f"audit/zz/{file_of(rows[1])}: is the row of another file" in found


def test_an_inserted_row_that_states_the_hash_of_another_one_is_named(tmp_path: Path) -> None:
    rows = chain_of(tmp_path, 4)
    forged = {**row_of(2, [rows[1]["sha256"]], job="promote"), "sha256": rows[2]["sha256"]}
    put(tmp_path, forged)
    [fault] = faults(tmp_path)
    assert fault.startswith(f"audit/{file_of(forged)}: was changed")


def test_a_row_of_the_future_is_named_and_hides_no_other_fault(tmp_path: Path) -> None:
    rows = chain_of(tmp_path, 3)
    late = dt.datetime(9999, 12, 31, 23, 30, tzinfo=dt.UTC)
    future = sealed(row_of(2, [rows[-1]["sha256"]], job="promote", started_at=late, finished_at=late))
    put(tmp_path, future)
    [fault] = faults(tmp_path)
    assert fault.startswith(f"audit/{file_of(future)}: states 9999-12-31")
    put(tmp_path, {**rows[1], "rows_in": 5})
    assert "was changed" in "\n".join(faults(tmp_path))


@pytest.mark.parametrize(
    "columns",
    [
        {"sha256": [["x"]]},
        {"sha256": ["x"]},
        {"previous": [["x"]]},
        {"previous": pa.array([[2**62]], pa.list_(pa.timestamp("us", "UTC")))},
        {"previous": [["f" * 64] * 2_000]},
    ],
    ids=["a list", "no hash", "names no hash", "a time beyond the calendar", "names too many"],
)
def test_a_row_with_other_links_is_named_and_stops_no_run(tmp_path: Path, columns: dict[str, Any]) -> None:
    rows = chain_of(tmp_path, 2)
    table = pa.Table.from_pylist([row_of(2, [])], schema=AUDIT)
    for name, values in columns.items():
        table = table.drop_columns([name]).append_column(name, pa.array(values) if isinstance(values, list) else values)
    pq.write_table(table, tmp_path / "audit" / file_of(row_of(2, [])))
    assert rows[-1]["sha256"] in chain.heads(Lake(str(tmp_path)))
    [fault] = faults(tmp_path)
    assert fault.startswith(f"audit/{file_of(row_of(2, []))}: is no audit row")


def test_columns_nested_deep_end_no_job(tmp_path: Path) -> None:
    """Pyarrow's reader is recursive: such a file, of 160 kB, ends the process without a message."""
    rows = chain_of(tmp_path, 2)
    hostile_files.nested_columns(tmp_path / "audit/20260302T050000Z-aa-score.parquet", 20_000)
    assert chain.heads(Lake(str(tmp_path))) == [rows[-1]["sha256"]]
    [fault] = faults(tmp_path)
    assert fault.startswith("audit/20260302T050000Z-aa-score.parquet: is no audit row")
    with pytest.raises(InputError, match="cannot be read as parquet"):
        Lake(str(tmp_path)).read("audit")


def test_a_text_that_is_repeated_in_a_row_takes_no_memory(tmp_path: Path) -> None:
    rows, text = chain_of(tmp_path, 2), "x" * (4 << 20)
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000, pa.int32()), pa.array([text]))
    notes = pa.ListArray.from_arrays(pa.array([0, 1_000], pa.int32()), repeated)
    table = pa.Table.from_pylist([row_of(2, [])], schema=AUDIT)
    table = table.drop_columns(["previous", "notes"])
    table = table.append_column("previous", notes).append_column("notes", notes)
    path = tmp_path / "audit" / file_of(row_of(2, []))
    pq.write_table(table, path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 100_000  # 8 GB in memory
    assert chain.heads(Lake(str(tmp_path))) == [rows[-1]["sha256"]]
    [fault] = faults(tmp_path)
    assert "texts of 8,388," in fault
    # In a process of its own: peak memory of this one includes all earlier tests, and ru_maxrss also that of a parent.
    code = (
        "import sys; from ids_spark.lake.store import Lake; from ids_spark.runtime import chain;"
        "chain.heads(Lake(sys.argv[1])); chain.check(Lake(sys.argv[1]));"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 1 << 20  # kB


def test_files_that_are_no_rows_do_not_hide_the_head(tmp_path: Path) -> None:
    rows = chain_of(tmp_path, 3)
    for i in range(100):
        (tmp_path / "audit" / f"zz-{i}.parquet").write_bytes(b"PAR1")
    assert chain.heads(Lake(str(tmp_path))) == [rows[-1]["sha256"]]


def test_rows_of_older_versions_are_before_the_chain(tmp_path: Path) -> None:
    old = {name: value for name, value in row_of(-3, []).items() if name != "previous"}
    columns = [name for name in AUDIT.names if name not in ("sha256", "previous", "actor", "host", "aliases")]
    (tmp_path / "audit").mkdir()
    table = pa.Table.from_pylist([old], schema=pa.schema([AUDIT.field(name) for name in columns]))
    pq.write_table(table, tmp_path / "audit" / file_of(old))
    assert chain.heads(Lake(str(tmp_path))) == []
    chain_of(tmp_path, 2)
    found = chain.check(Lake(str(tmp_path)))
    assert (found.rows, found.before, found.faults) == (2, 1, [])


def test_a_lake_without_an_audit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no audit row"):
        chain.check(Lake(str(tmp_path)))


def written(lake: Path, run_id: str, status: Any = "done") -> str:
    now = dt.datetime.now(dt.UTC)
    return write_audit_row(Lake(str(lake)), None, "score", run_id, now, Config(), Report(), status).sha256


def test_the_rows_of_runs_at_once_are_merged_by_the_next(tmp_path: Path) -> None:
    first = written(tmp_path, "20260301T000000Z-a")
    code = (
        "import datetime as dt, sys\n"
        "from ids_spark.base.report import Report\n"
        "from ids_spark.config.settings import Config\n"
        "from ids_spark.lake.store import Lake\n"
        "from ids_spark.runtime.audit import write_audit_row\n"
        "print(flush=True)\n"
        "sys.stdin.readline()\n"
        "for i in range(5):\n"
        "    now = dt.datetime.now(dt.UTC)\n"
        "    write_audit_row(Lake(sys.argv[1]), None, 'score', f'{sys.argv[2]}{i}', now, Config(), Report(), 'done')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), f"20260302T00000{i}Z-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        for i in range(2)
    ]
    for process in both:
        assert process.stdout is not None
        process.stdout.readline()  # it has imported everything, and waits
    for process in both:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    for process in both:
        process.communicate(timeout=60)
        assert process.returncode == 0
    last = written(tmp_path, "20260303T000000Z-b")
    found = chain.check(Lake(str(tmp_path)), first)
    assert (found.rows, found.heads, found.faults) == (12, [last], [])


def test_two_heads_are_both_named_by_the_next_row(tmp_path: Path) -> None:
    rows = chain_of(tmp_path, 2)
    twin = sealed(row_of(1, [rows[0]["sha256"]], job="verdict"))
    put(tmp_path, twin)
    lake = Lake(str(tmp_path))
    assert chain.heads(lake) == sorted([rows[1]["sha256"], twin["sha256"]])
    written(tmp_path, "20260401T000000Z-a")
    [row] = [row for row in lake.read("audit").to_pylist() if row["run_id"] == "20260401T000000Z-a"]
    assert row["previous"] == sorted([rows[1]["sha256"], twin["sha256"]])
    assert chain.check(lake).faults == []


def test_the_head_is_found_among_thousands_of_rows_without_reading_them_all(tmp_path: Path) -> None:
    """Also where a copy has lost the times of the files, and where a run that began long ago has ended last."""
    rows = chain_of(tmp_path, 3)
    old = (tmp_path / "audit" / file_of(rows[0])).read_bytes()
    for i in range(5_000):
        (tmp_path / "audit" / f"20250101T000000Z-{i:08d}-score.parquet").write_bytes(old)
    late = sealed(row_of(-900, [rows[-1]["sha256"]], job="train", finished_at=FIRST + 9 * DAY))
    put(tmp_path, late)
    assert chain.heads(Lake(str(tmp_path))) == [late["sha256"]]
    assert len(newest_files(str(tmp_path / "audit"), ".parquet", 32)) <= 64  # what is read: 0.1 s
    (tmp_path / "audit" / file_of(late)).unlink()
    for path in (tmp_path / "audit").iterdir():
        os.utime(path, (0, 0))
    assert chain.heads(Lake(str(tmp_path))) == [rows[-1]["sha256"]]


def job_of(lake: Path, error: Exception | None) -> int:
    def run(context: job.Context) -> Report:
        if error is not None:
            raise error
        return Report()

    return job.main(run, "A job.", ["--set", f"lake={lake}"])


def test_every_end_of_a_run_is_linked_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lake, logged = tmp_path / "lake", []
    refusal = InputError("found 3, expected 2; do this")
    assert job_of(lake, refusal) == 2
    assert not lake.exists()  # a refused run makes no lake
    assert job_of(tmp_path, refusal) == 2
    assert list(tmp_path.iterdir()) == []  # and writes nothing to a folder that is none
    with caplog.at_level("INFO"):
        for error, code in ((None, 0), (refusal, 2), (ValueError("broken"), 1), (None, 0)):
            caplog.clear()
            assert job_of(lake, error) == code
            logged.append(caplog.records[-1].getMessage().rsplit("head=", 1)[1])
    rows = sorted(Lake(str(lake)).read("audit").to_pylist(), key=lambda row: row["finished_at"])
    assert [row["status"] for row in rows] == ["done", "refused", "failed", "done"]
    assert [row["error"] for row in rows] == [None, "found 3, expected 2; do this", "ValueError: broken", None]
    assert [row["sha256"] for row in rows] == logged
    assert [row["previous"] for row in rows] == [[], *([sha256] for sha256 in logged[:-1])]
    assert {row["actor"] for row in rows} == {actor()}
    assert all(row["host"] for row in rows)
    assert faults(lake) == []


def test_a_run_whose_commit_has_begun_writes_no_second_row(tmp_path: Path) -> None:
    """Its own row is part of the commit, and another run may have named it already."""

    def run(context: job.Context) -> Report:
        return Report(tables=[context.lake.write("drift", [], context.staged, event_date="2026-03-01")])

    lake = tmp_path / "lake"
    arguments = ["--set", f"lake={lake}"]
    assert job.main(run, "A job.", arguments) == 0
    (lake / ".trash").write_bytes(b"")  # the table of the first run cannot be moved there
    assert job.main(run, "A job.", arguments) == 1
    assert len(list((lake / "audit").iterdir())) == 1
    (lake / ".trash").unlink()
    assert job.main(run, "A job.", arguments) == 0
    found = chain.check(Lake(str(lake)))
    assert (found.rows, found.faults) == (3, [])


def test_the_job_names_the_faults_and_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import jobs.verify as verify

    rows = chain_of(tmp_path / "lake", 4)
    before = sorted(path.name for path in (tmp_path / "lake").rglob("*"))
    settings = ["--set", f"lake={tmp_path / 'lake'}"]
    assert job.check(verify.run, verify.__doc__ or "", settings) == 0
    assert job.check(verify.run, verify.__doc__ or "", [*settings, "--set", f"verify.head={rows[1]['sha256']}"]) == 0
    assert job.check(verify.run, verify.__doc__ or "", [*settings, "--set", f"verify.head={'f' * 64}"]) == 3
    put(tmp_path / "lake", {**rows[1], "rows_in": 5})
    caplog.clear()
    assert job.check(verify.run, verify.__doc__ or "", settings) == 3
    assert f"{file_of(rows[1])}: was changed" in caplog.text
    assert sorted(path.name for path in (tmp_path / "lake").rglob("*")) == before
    shutil.rmtree(tmp_path / "lake")
    assert job.check(verify.run, verify.__doc__ or "", settings) == 2
    assert job.check(verify.run, verify.__doc__ or "", ["--set", "verify.head=x"]) == 2
