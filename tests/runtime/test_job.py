"""How a job ends when one of its Spark tasks fails."""

import io
import re
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from ids_spark.base.errors import InputError, NotReconciled
from ids_spark.base.report import Report
from ids_spark.base.spark_tasks import run_each, run_merged, run_shuffled
from ids_spark.dataset.features import SchemaMismatch
from ids_spark.lake.store import Lake
from ids_spark.runtime import job
from tests.support import submitting
from tests.support.modes import umask

LINES = ("a.csv lacks 2 columns:", "Rate", "IAT ≥ 0", "add them")
MESSAGE = "\n  ".join(LINES)
Ended = Callable[[Callable[[int], None]], tuple[int, str]]


@pytest.fixture
def ended(spark: SparkSession, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Ended:
    """Run a job whose only Spark task is the given function; returns its exit code and its error message."""

    def run_with(task: Callable[[int], None]) -> tuple[int, str]:
        def run(context: job.Context) -> Report:
            run_each(context.spark.sparkContext, [0], task)
            return Report()

        caplog.clear()
        code = job.main(run, "A job.", ["--set", f"lake={tmp_path}/lake"])
        errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        return code, errors[0] if errors else ""

    return run_with


def audit(tmp_path: Path) -> list[tuple[str, str]]:
    rows = Lake(f"{tmp_path}/lake").read("audit", ["status", "error"]).to_pylist()
    return [(row["status"], row["error"]) for row in rows]


@pytest.mark.parametrize("name", ["file", "file/lake", "link"])
def test_a_lake_that_cannot_be_written_is_refused_before_the_job_runs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    before = sorted(tmp_path.rglob("*"))

    def run(context: job.Context) -> Report:
        raise AssertionError("it runs")

    assert job.main(run, "A job.", ["--set", f"lake={tmp_path / name}"]) == 2
    [error] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert error.exc_info is None
    assert f"{tmp_path / name.split('/')[0]} is no folder; expected" in error.getMessage()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", [InputError, SchemaMismatch])
def test_an_input_error_of_a_task_refuses_the_job_with_its_whole_message(
    ended: Ended, tmp_path: Path, kind: type[InputError]
) -> None:
    def task(_: int) -> None:
        raise kind(*LINES)

    assert ended(task) == (2, MESSAGE)
    assert audit(tmp_path) == []  # there is no lake yet
    assert ended(lambda _: None)[0] == 0
    assert ended(task) == (2, MESSAGE)
    assert sorted(audit(tmp_path)) == [("done", None), ("refused", MESSAGE)]


def test_lines_of_a_job_are_printed_once_it_is_done_in_any_encoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="iso8859-9")
    monkeypatch.setattr(sys, "stdout", out)

    def run(context: job.Context) -> Report:
        return Report(lines=["café – 病", "2"])

    assert job.main(run, "A job.", ["--set", f"lake={tmp_path}/lake"]) == 0
    out.flush()
    assert out.buffer.getvalue().decode("iso8859-9") == "café \\u2013 \\u75c5\n2\n"  # type: ignore[attr-defined]


def test_an_input_error_raised_from_another_error_refuses_the_job(ended: Ended) -> None:
    def task(_: int) -> None:
        try:
            int("x")
        except ValueError as error:
            raise InputError(*LINES) from error

    assert ended(task) == (2, MESSAGE)


def test_a_text_that_imitates_a_refusal_is_a_failure(ended: Ended, tmp_path: Path) -> None:
    def task(_: int) -> None:
        raise ValueError(f"ids_spark.base.errors.InputError: {MESSAGE}")

    assert ended(task)[0] == 1
    assert [status for status, _ in audit(tmp_path)] == ["failed"]


def test_an_input_error_that_was_caught_before_another_error_is_a_failure(ended: Ended) -> None:
    def handled(_: int) -> None:
        try:
            raise InputError(*LINES)
        except InputError as error:
            raise RuntimeError("broken") from error

    def over(_: int) -> None:
        try:
            raise InputError(*LINES)
        except InputError:
            pass
        raise RuntimeError("broken")

    assert ended(handled)[0] == 1
    assert ended(over)[0] == 1


def test_rows_that_do_not_reconcile_in_a_task_are_a_failure(ended: Ended, tmp_path: Path) -> None:
    def task(_: int) -> None:
        raise NotReconciled("5 rows in, 4 accounted for")

    assert ended(task)[0] == 1
    [(status, error)] = audit(tmp_path)
    assert status == "failed"
    assert "5 rows in, 4 accounted for" in error


def test_an_incomplete_result_is_committed_with_an_exit_code_of_its_own(spark: SparkSession, tmp_path: Path) -> None:
    def run(context: job.Context) -> Report:
        report = Report(tables=[context.lake.write("metrics", [], context.staged, run_id=context.run_id)])
        report.degrade("2026-03-01: no flow logs")
        return report

    assert job.main(run, "A job.", ["--set", f"lake={tmp_path}/lake"]) == job.DEGRADED == 3
    [row] = Lake(f"{tmp_path}/lake").read("audit", ["status", "error", "notes"]).to_pylist()
    assert row == {"status": "degraded", "error": None, "notes": ["degraded: 2026-03-01: no flow logs"]}
    assert len(list((tmp_path / "lake/metrics").iterdir())) == 1


def test_a_job_without_a_fault_is_done(ended: Ended, tmp_path: Path) -> None:
    assert ended(lambda _: None) == (0, "")
    assert audit(tmp_path) == [("done", None)]


def test_results_are_in_the_order_of_the_items(spark: SparkSession) -> None:
    assert run_each(spark.sparkContext, range(5), lambda i: i * i) == [0, 1, 4, 9, 16]
    assert run_each(spark.sparkContext, [], str) == []
    assert run_merged(spark.sparkContext, range(5), lambda i: [i], lambda a, b: sorted(a + b)) == [0, 1, 2, 3, 4]
    found = run_shuffled(
        spark.sparkContext,
        range(9),
        3,
        lambda i: [(i % 3, i), (0, -i)],
        lambda index, records: (index, sorted(records)),
    )
    assert found == [(0, sorted([0, 3, 6, *range(-8, 1)])), (1, [1, 4, 7]), (2, [2, 5, 8])]


def test_an_input_error_of_one_task_is_raised_once_and_its_task_is_not_repeated(
    spark: SparkSession, tmp_path: Path
) -> None:
    def refuses(item: int) -> list[int]:
        (tmp_path / str(item)).touch(exist_ok=False)  # fails when the task is repeated
        if item == 1:
            raise SchemaMismatch(*LINES)
        return [item]

    def scatter(item: int) -> Iterator[tuple[int, int]]:
        yield 1, 0
        yield from ((2, number) for number in refuses(item))

    def gather(index: int, records: Iterable[int]) -> int:
        if index == 2 and not list(records):
            raise SchemaMismatch(*LINES)
        return 0

    runs: list[Callable[[], object]] = [
        lambda: run_each(spark.sparkContext, range(3), refuses),
        lambda: run_merged(spark.sparkContext, range(3), refuses, list.__add__),
        lambda: run_shuffled(spark.sparkContext, range(3), 3, scatter, lambda _, records: list(records)),
        lambda: run_shuffled(spark.sparkContext, range(3), 3, lambda item: [(1, item)], gather),
    ]
    for run in runs:
        for made in tmp_path.iterdir():
            made.unlink()
        with pytest.raises(SchemaMismatch) as error:
            run()
        assert str(error.value) == MESSAGE


FORGED = "2026-11-28 01:02:03,456 INFO    forged done in=5 out=5"
SUBMITTED = f"""
import contextlib, logging, sys, warnings
import pyarrow as pa
from ids_spark.base.errors import InputError
from ids_spark.base.spark_tasks import run_each, run_shuffled
from ids_spark.lake.parquet import write_rows
from ids_spark.runtime import job
log = logging.getLogger("ids_spark.test")
data = "a\\n{FORGED}\\r{FORGED}\\u2028{FORGED}\\x1b[2K\\u202e"
schema = pa.schema([("a", pa.int64())])
def writes(item):
    write_rows(f"out/task{{item}}/deep/part.parquet", [{{"a": 1}}], schema)
    log.warning("unreadable file=%s", data)
    warnings.warn(data)
    return [item]
def fails(item):
    raise ValueError(data)
def refuses(item):
    raise InputError(f"found {{item}}, expected nothing")
def run(context):
    spark = context.spark.sparkContext
    run_each(spark, [0], writes)
    run_shuffled(spark, [1], 1, lambda item: [(0, item)], lambda _, items: [writes(item) for item in items])
    write_rows("out/driver/part.parquet", [{{"a": 1}}], schema)
    with contextlib.suppress(Exception):
        run_each(spark, [0], fails)
    log.warning("and now a refusal")
    run_each(spark, [0, 1, 2], refuses)
sys.exit(job.main(run, "A job."))
"""


def test_a_submitted_job_withholds_files_from_others_and_text_from_data_imitates_no_record(tmp_path: Path) -> None:
    """Umask 000, as a service manager may leave it; records of driver, Python workers and Spark share one stream."""
    (tmp_path / "hostile.py").write_text(SUBMITTED)
    with umask(0):
        code, output = submitting.submit(submitting.prepare(tmp_path / "work"), str(tmp_path / "hostile"))
    assert code == 2
    made = list((tmp_path / "work/out").rglob("*"))
    assert len(made) == 3 + 3 + 2
    assert {path.stat().st_mode & 0o777 for path in made if path.is_file()} == {0o640}
    assert {path.stat().st_mode & 0o777 for path in made if path.is_dir()} == {0o750}

    assert output.count("unreadable file=a\\n2026") == 2
    assert len(re.findall(r"(?m)^[^ ].*WARNING .*UserWarning: a$", output)) == 2
    assert output.count("forged done") > 2 * 3 + 2 * 3
    assert not [line for line in re.split(r"[\n\r\u2028]", output) if line.startswith(FORGED)]
    assert {c for c in output if not c.isprintable()} <= {"\n", "\t"}

    _, _, refusal = output.partition("and now a refusal")
    assert refusal.count("found 0, expected nothing") == 1
    for word in ("Traceback", "Exception", "\tat ", "found 1"):
        assert word not in refusal, output


IN_THE_BACKGROUND = """
import sys
from pyspark import SparkContext
from ids_spark.base.errors import InputError
from ids_spark.base.report import Report
from ids_spark.base.spark_tasks import run_each
from ids_spark.runtime import job
def run(context):
    if context.config.seed == 1:
        raise InputError("refused before the session was used")
    print("tasks", run_each(context.spark.sparkContext, [3, 4], lambda item: item * item))
    return Report()
code = job.main(run, "A job.", needs_spark=True)
print("running", SparkContext._active_spark_context)
sys.exit(code)
"""


def test_a_session_that_starts_in_the_background_is_used_refused_or_stopped(tmp_path: Path) -> None:
    (tmp_path / "early.py").write_text(IN_THE_BACKGROUND)
    folder = submitting.prepare(tmp_path / "work")
    code, output = submitting.submit(folder, str(tmp_path / "early"))
    assert (code, "tasks [9, 16]" in output, "running None" in output) == (0, True, True), output
    code, output = submitting.submit(folder, str(tmp_path / "early"), "seed=1")
    assert (code, "refused before the session" in output, "running None" in output) == (2, True, True), output
    code, output = submitting.submit(folder, str(tmp_path / "early"), conf=["spark.task.cpus=9"])
    assert (code, output.count("spark.task.cpus is 9"), "Traceback" in output) == (2, 1, False), output


def test_a_job_that_is_refused_does_not_connect_to_a_cluster(tmp_path: Path) -> None:
    (tmp_path / "early.py").write_text(IN_THE_BACKGROUND)
    folder = submitting.prepare(tmp_path / "work")
    settings = "seed=1", "open_cluster=true"
    code, output = submitting.submit(folder, str(tmp_path / "early"), *settings, master="spark://127.0.0.1:1")
    assert (code, "refused before the session" in output) == (2, True), output
    assert "127.0.0.1:1" not in output


def test_temporary_files_of_spark_are_in_a_folder_of_the_user_alone(tmp_path: Path) -> None:
    made = Path(job.private_folder(str(tmp_path)))
    assert made.parent == tmp_path
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    made.chmod(0o777)
    assert job.private_folder(str(tmp_path)) == str(made)
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    made.rename(tmp_path / "elsewhere")
    made.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is not a folder of this user"):
        job.private_folder(str(tmp_path))


def test_jobs_of_a_sequence_run_until_one_does_not_end_with_0(spark: SparkSession, tmp_path: Path) -> None:
    sessions, ran = [], []

    def named(name: str, result: Report | Exception) -> Callable[[job.Context], Report]:
        def run(context: job.Context) -> Report:
            ran.append(name)
            sessions.append(context.spark)
            if isinstance(result, Exception):
                raise result
            return result

        return run

    def codes_of(*results: Report | Exception) -> tuple[int, list[str]]:
        ran.clear()
        runs = {f"job{i}": named(f"job{i}", result) for i, result in enumerate(results)}
        return job.sequence(runs, "Jobs.", ["--set", f"lake={tmp_path}/lake"]), list(ran)

    assert codes_of(Report(), Report()) == (0, ["job0", "job1"])
    assert codes_of(Report(), InputError("no"), Report()) == (2, ["job0", "job1"])
    assert codes_of(Report(degraded=["a reason"]), Report()) == (3, ["job0"])
    assert codes_of(ValueError("no"), Report()) == (1, ["job0"])
    assert {id(each.sparkContext) for each in sessions} == {id(spark.sparkContext)}
    rows = Lake(f"{tmp_path}/lake").read("audit", ["job", "status", "run_id"]).to_pylist()
    found = sorted((row["job"], row["status"]) for row in rows)
    done, refused = ("done", "done", "degraded", "failed"), ("done", "refused")
    assert found == sorted([*(("job0", each) for each in done), *(("job1", each) for each in refused)])
    assert len({row["run_id"] for row in rows}) == len(rows)
