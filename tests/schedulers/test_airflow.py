"""The DAG of `conf/nightly` in a real Airflow: `airflow dags test` in an environment and a database of its own."""

import datetime as dt
import os
import re
import shutil
import sqlite3
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ids_spark.base import packaging
from tests.support.flows import ROOT
from tests.support.nights import DATE, MODEL, copy, night_row

pytestmark = pytest.mark.slow

AIRFLOW = Path(os.environ.get("IDS_SPARK_AIRFLOW", ROOT / ".venv" / "airflow"))
"""Made by `make airflow`."""
DAG = ROOT / "conf" / "nightly" / "airflow_dag.py"
LATE = dt.timedelta(days=1)
JOB = """#!/bin/sh
# Stands for a job: adds its command line to `calls`, and ends with the next code in the file of its name, else 0.
echo "$LAKE $MASTER $*" >>calls
code=$(head -n 1 "$1" 2>/dev/null) && sed -i 1d "$1"
exit "${code:-0}"
"""


@dataclass(frozen=True)
class Airflow:
    """An Airflow with the DAG; its home is of this test run."""

    home: Path

    def test(self, moment: str, runs: int = 1, **variables: object) -> tuple[str, dict[str, tuple[str, int]], str]:
        """Run the DAG as if it were scheduled at a time in UTC.

        Returns:
            The state of the run, state and number of tries of each task, and the log.
        """
        given = {f"AIRFLOW_VAR_IDS_SPARK_{name.upper()}": str(value) for name, value in variables.items()}
        given["IDS_SPARK_RUNS_PER_NIGHT"] = str(runs)
        done = self.run("dags", "test", "ids_spark_night", moment, **given)
        with sqlite3.connect(self.home / "airflow.db") as database:
            run, state = database.execute("SELECT run_id, state FROM dag_run ORDER BY id DESC").fetchone()
            query = "SELECT task_id, state, try_number FROM task_instance WHERE run_id = ?"
            tasks = {task: (found, tries) for task, found, tries in database.execute(query, (run,))}
        return state, tasks, done.stdout

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run the command of Airflow."""
        path = f"{AIRFLOW / 'bin'}:/usr/bin:/bin"
        own = {"PATH": path, "HOME": str(self.home), "AIRFLOW_HOME": str(self.home), **SETTINGS, **environment}
        command = [str(AIRFLOW / "bin" / "airflow"), *arguments]
        return subprocess.run(
            command, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=300
        )


SETTINGS = {
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "0",
    "LC_ALL": "C.UTF-8",
}


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    if not (AIRFLOW / "bin" / "airflow").exists():
        pytest.skip(f"no Airflow: {AIRFLOW} has no bin/airflow; make airflow installs it")
    found = Airflow(tmp_path_factory.mktemp("airflow"))
    (found.home / "dags").mkdir()
    (found.home / "dags" / "night.py").symlink_to(DAG)
    done = found.run("db", "migrate")
    assert done.returncode == 0, done.stdout
    return found


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A checkout with blanks in its path, whose jobs only record their command lines."""
    home = tmp_path / "a checkout"
    script = home / "conf" / "nightly" / "job.sh"
    script.parent.mkdir(parents=True)
    script.write_text(JOB)
    script.chmod(stat.S_IRWXU)
    return home


def test_a_failed_job_runs_again_and_warnings_are_seen(airflow: Airflow, recorded: Path) -> None:
    (recorded / "score").write_text("137\n75\n3\n")  # killed, another run for the lake, done with warnings
    state, tasks, log = airflow.test(
        "2026-03-02T02:30:00",
        home=recorded,
        lake="/the lake",
        logs="/logs",
        captures="/pcaps",
        adapt_days=1,
    )
    assert state == "success", log
    assert tasks == {
        "extract": ("success", 1),
        "score": ("success", 3),
        "adapt": ("success", 1),
        "purge": ("success", 1),
        "without_warnings": ("skipped", 1),
    }
    assert "done, with warnings of score" in log
    score = "score --set score.flow_logs=/logs --set score.first_date=2026-02-16 --set score.last_date=2026-03-01"
    assert [line.removeprefix("/the lake local[*] ") for line in (recorded / "calls").read_text().splitlines()] == [
        "extract --set extract.captures=/pcaps --set extract.target=/logs",
        *[f"{score} --set score.pending_nights=true"] * 3,
        f"adapt --config {recorded}/conf/site.yaml --set adapt.flow_logs=/logs",
        "purge",
    ]


def test_a_refused_job_fails_at_once_and_old_nights_stay_unless_they_were_scored(
    airflow: Airflow, recorded: Path
) -> None:
    (recorded / "score").write_text("2\n0\n")
    state, tasks, log = airflow.test("2026-03-02T02:30:00", home=recorded, lake="/lake", logs="/logs")
    assert state == "failed", log
    assert tasks["score"] == ("failed", 1)
    assert "score was refused (exit code 2)" in log
    assert tasks["purge"] == ("skipped", 1)
    assert {tasks[name][0] for name in ("adapt", "without_warnings")} == {"upstream_failed"}
    assert tasks["extract"] == ("skipped", 1)  # no captures

    (recorded / "adapt").write_text("2\n")
    (recorded / "purge").write_text("1\n1\n1\n0\n")
    state, tasks, log = airflow.test("2026-03-03T02:30:00", home=recorded, lake="/lake", logs="/logs", adapt_days=1)
    assert (state, tasks["adapt"], tasks["purge"]) == ("failed", ("failed", 1), ("failed", 3)), log


def test_with_hourly_runs_old_nights_are_removed_once_a_day(airflow: Airflow, recorded: Path) -> None:
    known = {"home": recorded, "lake": "/lake", "logs": "/logs", "adapt_days": 1}
    # The first run of the date comes after an outage.
    state, tasks, log = airflow.test("2026-03-05T07:15:00", 24, **known)
    assert (state, tasks["purge"], tasks["adapt"]) == ("success", ("success", 1), ("success", 1)), log
    state, tasks, log = airflow.test("2026-03-05T08:15:00", 24, **known)
    assert (state, tasks["score"], tasks["purge"], tasks["adapt"]) == (
        "success", ("success", 1), ("skipped", 1), ("skipped", 1)
    ), log  # fmt: skip
    scored = [line for line in (recorded / "calls").read_text().splitlines() if " score " in line]
    assert [re.search(r"last_date=(\S+).*runs_per_night=(\d+)", line).groups() for line in scored] == [
        ("2026-03-05", "24")
    ] * 2


def test_nights_are_scored_with_late_files_once(airflow: Airflow, nights: Path, tmp_path: Path) -> None:
    folder, home = copy(nights, tmp_path / "nights"), tmp_path / "checkout"
    (home / "dist").mkdir(parents=True)
    (home / "dist" / "ids_spark.zip").write_bytes(packaging.archive())
    for name in ("conf", "jobs", ".venv"):
        (home / name).symlink_to(ROOT / name)
    config = tmp_path / "night.yaml"
    config.write_text(f"score: {{pseudonymise: [], models: [{MODEL}]}}\npurge: {{older_than_days: 36500}}\n")
    known = {"home": home, "lake": folder / "lake", "logs": folder / "logs", "config": config, "master": "local[2]"}
    logs = folder / "logs" / f"event_date={DATE}"
    rows = {path.name: pq.ParquetFile(path).metadata.num_rows for path in logs.glob("*.parquet")}
    first = logs / min(rows)
    late = first.rename(tmp_path / first.name)

    state, tasks, log = airflow.test(f"{DATE + LATE}T02:30:00", **known)
    assert (state, tasks["score"], tasks["without_warnings"]) == ("success", ("success", 1), ("success", 1)), log
    assert night_row(folder)["rows_in"] == sum(rows.values()) - rows[first.name]
    run_id = night_row(folder)["run_id"]

    shutil.move(late, first)
    # The next run: the late file is scored, and the night after has no flow logs, a warning.
    state, tasks, log = airflow.test(f"{DATE + 2 * LATE}T02:30:00", **known)
    assert (state, tasks["score"], tasks["without_warnings"]) == ("success", ("success", 1), ("skipped", 1)), log
    assert (night_row(folder)["rows_in"], night_row(folder)["rows_late"]) == (sum(rows.values()), rows[first.name])
    assert night_row(folder)["run_id"] > run_id
    assert "holds no flow logs" in log
