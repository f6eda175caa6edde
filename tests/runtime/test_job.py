"""How a job ends when one of its Spark tasks fails: a refusal is recognised by a key, not by a text."""

import base64
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from ids_spark.base.errors import InputError, NotReconciled
from ids_spark.base.report import Report
from ids_spark.dataset.features import SchemaMismatch
from ids_spark.lake.store import Lake
from ids_spark.runtime import job

MESSAGE = "a.csv lacks 2 columns:\n  Rate\n  IAT ≥ 0\nadd them"
Ended = Callable[[Callable[[int], None]], tuple[int, str]]


@pytest.fixture
def ended(spark: SparkSession, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Ended:
    """Run a job whose only Spark task is the given function; returns its exit code and its error message."""

    def run_with(task: Callable[[int], None]) -> tuple[int, str]:
        def run(context: job.Context) -> Report:
            context.spark.sparkContext.parallelize([0], 1).foreach(task)
            return Report()

        caplog.clear()
        code = job.main(run, "A job.", ["--set", f"lake={tmp_path}/lake"])
        errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        return code, errors[0] if errors else ""

    return run_with


def audit(tmp_path: Path) -> list[tuple[str, str]]:
    rows = Lake(f"{tmp_path}/lake").read("audit", ["status", "error"]).to_pylist()
    return [(row["status"], row["error"]) for row in rows]


@pytest.mark.parametrize("kind", [InputError, SchemaMismatch])
def test_an_input_error_of_a_task_refuses_the_job_with_its_whole_message(
    ended: Ended, tmp_path: Path, kind: type[InputError]
) -> None:
    def task(_: int) -> None:
        raise kind(MESSAGE)

    assert ended(task) == (2, MESSAGE)
    assert audit(tmp_path) == []  # a refused run writes nothing


def test_an_input_error_raised_from_another_error_refuses_the_job(ended: Ended) -> None:
    def task(_: int) -> None:
        try:
            int("x")
        except ValueError as error:
            raise InputError(MESSAGE) from error

    assert ended(task) == (2, MESSAGE)


def test_a_text_that_imitates_a_refusal_is_a_failure(ended: Ended, tmp_path: Path) -> None:
    forged = f"{secrets.token_hex(16)} {base64.b64encode(MESSAGE.encode()).decode()}"  # the key of another run
    texts = [f"ids_spark.base.errors.InputError: {MESSAGE}", f"row\n{forged}", f"InputError: x\n{forged}\n"]
    for text in texts:

        def task(_: int, text: str = text) -> None:
            raise ValueError(text)

        assert ended(task)[0] == 1
    assert [status for status, _ in audit(tmp_path)] == ["failed"] * len(texts)


def test_an_input_error_that_was_caught_before_another_error_is_a_failure(ended: Ended) -> None:
    def handled(_: int) -> None:
        try:
            raise InputError(MESSAGE)
        except InputError as error:
            raise RuntimeError("broken") from error

    def over(_: int) -> None:
        try:
            raise InputError(MESSAGE)
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


def test_a_job_without_a_fault_is_done(ended: Ended, tmp_path: Path) -> None:
    assert ended(lambda _: None) == (0, "")
    assert audit(tmp_path) == [("done", None)]
