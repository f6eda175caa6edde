"""200 mutated inputs of a fixed seed, and that the fuzz test itself is repeatable and finds faults."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.fuzz import checks, runner
from tests.fuzz.case import Base, Case, start
from tests.support.flows import ROOT
from tests.support.nights import DATE, MODEL, content_of

SEED = 20260301
TARGETS = [target for target in runner.TARGETS if target != "facts"]  # which needs a scored night


@pytest.mark.slow
def test_no_mutated_input_fails_loses_rows_or_leaves_half_written_tables(nights: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--count", "200", "--seed", str(SEED)]
    command += ["--out", str(tmp_path / "fuzz"), "--trained", str(nights)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    assert f"200 inputs of seed {SEED}, 0 failed" in done.stdout


@pytest.mark.slow
def test_a_seed_gives_the_same_inputs_again(nights: Path, tmp_path: Path) -> None:
    lake, logs = nights / "lake", next((nights / "logs" / f"event_date={DATE}").glob("*.parquet"))
    base = Base(lake, lake, lake / f"checkpoints/{MODEL}.npz", pq.ParquetFile(logs).read())
    made = {}
    for place in ("one", "two", "other"):
        for index in range(40):
            folder, seed = tmp_path / place / str(index), SEED + (place == "other")
            target, draw, case = runner.made(seed, index, base, folder, only=TARGETS[index % len(TARGETS)])
            made[place, index] = (target, draw.applied, content_of(case.input))
    assert all(made["one", index] == made["two", index] for index in range(40))
    assert sum(made["one", index] != made["other", index] for index in range(40)) > 30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    case = start(tmp_path / "input", None)
    (case.lake / "flows").mkdir()
    (case.lake / "flows/part.parquet").write_bytes(b"rows")
    return case.folder


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("flows/part.parquet", "a refusal changed 1 file"),
        ("flows/more.parquet", "a refusal changed 1 file"),
        (".staging/x", "left behind: '.staging'"),
        (".commit-x.json", "left behind: '.commit-x.json'"),
    ],
)
def test_what_a_refusal_leaves_is_a_fault(folder: Path, change: str, fault: str) -> None:
    before, case = checks.snapshot(folder), Case(folder)
    message = logging.LogRecord("ids_spark", logging.ERROR, "", 0, "found x, expected y", None, None)
    assert checks.faults_of(case, 2, [message], "found x, expected y\n", before) == []
    (case.lake / change).parent.mkdir(exist_ok=True)
    (case.lake / change).write_bytes(b"other rows")
    assert any(fault in found for found in checks.faults_of(case, 2, [message], "", before))


@pytest.mark.parametrize(
    ("code", "output", "fault"),
    [
        (1, "", "exit code 1"),
        (None, "", "exit code None"),
        (2, "", "a refusal with 0 messages"),
        (0, "Traceback (most recent call last):\n", "a stack trace at exit code 0"),
        (0, "\tat org.apache.spark.rdd.RDD.iterator(RDD.scala:328)\n", "a stack trace at exit code 0"),
        (0, "file \x1b[31m", "a control character in the log"),
    ],
)
def test_other_ends_are_faults(folder: Path, code: int | None, output: str, fault: str) -> None:
    case = Case(folder)
    assert any(fault in found for found in checks.faults_of(case, code, [], output, checks.snapshot(folder)))
