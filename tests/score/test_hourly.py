"""Several runs at one date: pages before the night is over, and what an hour must not be taken for."""

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from tests.support.in_process import run
from tests.support.nights import DATE, audit, comparable, copy, differing, night_row, read, score

RUNS = 4
MIDNIGHT = dt.datetime.combine(DATE, dt.time(), dt.UTC)


def at(hours: float) -> tuple[str, ...]:
    """The settings of a run at a time after midnight."""
    time = (MIDNIGHT + dt.timedelta(hours=hours)).isoformat()
    return f"score.runs_per_night={RUNS}", f"score.as_of={time}", "score.learning_nights=0"


def hourly(folder: Path, hours: float) -> tuple[int, list[str], str]:
    """Score what is pending at a time after midnight; also returns the dates that were scored."""
    code, output = score(folder, "score.pending_nights=true", "score.last_days=1", *at(hours), date=None)
    dates = [line.split("night=")[1].split()[0] for line in output.splitlines() if line.startswith("scored night=")]
    return code, dates, output


@pytest.fixture(scope="module")
def by_hour(spark: SparkSession, nights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with a model, and the flows of a night below `hours`, a file for each quarter of the date."""
    folder = copy(nights, tmp_path_factory.mktemp("by_hour") / "nights")
    logs = folder / "logs" / f"event_date={DATE}"
    flows = pa.concat_tables(pq.read_table(path) for path in sorted(logs.glob("*.parquet")))
    for path in logs.glob("*.parquet"):
        path.unlink()
    (folder / "hours").mkdir()
    for i in range(RUNS):
        quarter = pc.equal(pc.divide(pc.hour(flows["event_time"]), 24 // RUNS), i)
        pq.write_table(flows.filter(quarter), folder / "hours" / f"{i}.parquet")
    return folder


def arrive(folder: Path, *quarters: int) -> None:
    for i in quarters:
        (folder / "hours" / f"{i}.parquet").rename(folder / "logs" / f"event_date={DATE}" / f"{i}.parquet")


@pytest.mark.slow
def test_a_date_is_scored_as_its_flows_arrive(by_hour: Path, tmp_path: Path) -> None:
    folder = copy(by_hour, tmp_path / "nights")
    code, dates, output = hourly(folder, 2)  # nothing has arrived, and the date is not over
    assert (code, dates) == (0, [])
    assert f"no flow of {DATE} so far" in output

    arrive(folder, 0)
    code, dates, output = hourly(folder, 6.1)
    assert (code, dates) == (0, [str(DATE)]), output
    first, listed = night_row(folder), read(folder, "incidents")
    assert (first["run_of_night"], first["runs_per_night"], first["rows_late"]) == (1, RUNS, 0)
    assert len(listed)
    assert len(first["incidents_ended"]) == 0
    assert f"Run 1 of {RUNS} at this date" in output
    assert any(f"Run 1 of {RUNS}" in note for note in audit(folder)["notes"])
    page = (folder / "lake" / "reports" / "night" / f"event_date={DATE}" / "night.html").read_text()
    assert f'data-run="1" data-runs="{RUNS}"' in page
    assert 'data-issue="silent_hours"' not in page
    assert hourly(folder, 6.5)[:2] == (0, [])
    # A verdict of the morning stays.
    given = f"verdict.incidents=[{listed['incident_id'][0]}]", "verdict.verdict=benign", "verdict.owner=A"
    assert run(folder, "verdict", f"verdict.date={DATE}", *given, "verdict.reason=known")[0] == 0

    arrive(folder, 1, 2)
    assert hourly(folder, 18.1)[:2] == (0, [str(DATE)])
    second = night_row(folder)
    assert (second["run_of_night"], second["rows_late"]) == (3, 0)
    assert first["false_incidents_expected"] <= second["false_incidents_expected"] <= 0.9 * 3 / 4
    later = read(folder, "incidents").set_index("incident_id")
    for _, row in listed.iterrows():
        assert later.loc[row["incident_id"], "listed_at"] == row["listed_at"]
    assert later.loc[listed["incident_id"][0], "verdict"] == "benign"

    # The date is over, and no flow of its last quarter has come: its result is that of the whole date.
    code, dates, output = hourly(folder, 24.1)
    assert (code, dates) == (0, [str(DATE)]), output
    assert night_row(folder)["run_of_night"] == RUNS
    assert hourly(folder, 25)[:2] == (0, [])
    before = comparable(folder)
    arrive(folder, 3)
    assert hourly(folder, 25)[:2] == (0, [str(DATE)])
    late = night_row(folder)
    assert late["rows_late"] == late["rows_in"] - second["rows_in"] > 0
    assert late["false_incidents_expected"] <= 1
    assert set(before["incidents"]["incident_id"]) <= set(read(folder, "incidents")["incident_id"])


def test_a_second_run_of_the_same_flows_changes_nothing_and_hours_are_no_nights(by_hour: Path, tmp_path: Path) -> None:
    folder = copy(by_hour, tmp_path / "nights")
    arrive(folder, 0, 1)
    assert score(folder, *at(12.1))[0] == 0
    before = comparable(folder)
    assert score(folder, *at(12.2))[0] == 0
    assert differing(before, comparable(folder)) == []
    assert night_row(folder)["nights_scored"] == 0


def test_a_date_that_is_over_and_has_no_flows_is_reported_once(by_hour: Path, tmp_path: Path) -> None:
    folder = copy(by_hour, tmp_path / "nights")
    arrive(folder, 0, 1, 2, 3)
    code, dates, _ = hourly(folder, 24.1)
    assert (code, dates) == (0, [str(DATE)])
    next_date = str(DATE + dt.timedelta(days=1))
    code, dates, output = hourly(folder, 48.1)
    assert (code, dates) == (3, [next_date]), output
    assert hourly(folder, 49)[:2] == (0, [])
