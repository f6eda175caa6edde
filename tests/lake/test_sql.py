"""SQL over the tables of a lake: relations, views, what a statement can reach, and states of a lake that changes."""

import datetime as dt
import functools
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ids_spark.dataset.features import SchemaMismatch
from ids_spark.dataset.tables import DRIFT, TABLES
from ids_spark.evaluate import precision
from ids_spark.lake import sql
from ids_spark.lake.lease import Lease
from ids_spark.lake.store import Lake
from tests.support.incident_rows import NIGHT, alert, verdict
from tests.support.stored_night import store_night

DAY = dt.timedelta(days=1)


@pytest.fixture
def lake(tmp_path):
    """A lake of two nights, with a scan by two pumps on both and a flood on the second."""
    found = Lake(str(tmp_path / "a lake"))
    scan = [alert("scan", "pump-1"), alert("scan", "10.0.0.9", source=True)]
    store_night(found, scan, NIGHT)
    store_night(found, [*scan, alert("flood", "pump-2", "DDoS")], NIGHT + DAY)
    return found


def rows(lake, statement, *parameters):
    return sql.query(lake, statement, parameters).to_pylist()


def put(lake, place, table):
    folder = lake.uri(place).removeprefix("file://")
    pa.fs.LocalFileSystem().create_dir(folder)
    pq.write_table(table, f"{folder}/part-00000.parquet")


def test_a_relation_has_the_rows_of_its_table_and_the_values_of_paths(lake):
    for name in ("incidents", "alerts", "drift", "nights"):
        found = sql.query(lake, f"select * exclude (event_date) from {name} order by event_date")
        assert found.cast(TABLES[name].contract).equals(lake.read(name))
    assert rows(lake, "select event_date, count(*) as n from alerts group by all order by all") == [
        {"event_date": NIGHT, "n": 2},
        {"event_date": NIGHT + DAY, "n": 3},
    ]


def test_every_relation_and_view_exists_in_an_empty_lake_with_the_columns_that_it_describes(tmp_path):
    lake = Lake(str(tmp_path))
    for name in sql.RELATIONS:
        assert rows(lake, f'from "{name}"') == []
    for view in sql.views().values():
        assert [name for name, _ in sql.columns(lake, view.name)] == list(view.columns)
        assert view.purpose
    listed = {row["name"] for row in rows(lake, "show tables")}
    assert listed == {*sql.RELATIONS, *sql.views()}


def test_files_of_older_versions_have_the_present_names_and_nulls(lake):
    old = pa.table({"kind": ["feature"], "name": ["IAT"], "psi": [0.5], "band": ["significant"]})
    put(lake, f"drift/event_date={NIGHT - DAY}", old)
    assert [name for name, _ in sql.columns(lake, "drift")] == ["event_date", *DRIFT.names]
    found = rows(lake, "select name, drift_index, drift_level, model from drift where event_date < ?", NIGHT)
    assert found == [{"name": "IAT", "drift_index": 0.5, "drift_level": "significant", "model": None}]


def test_refused_rows_of_all_jobs_are_one_relation(lake):
    refused = TABLES["quarantine/job=score"].contract
    row = pa.Table.from_pylist([{"reason": "missing", "scored": True}], refused).append_column("ward", pa.array(["3b"]))
    put(lake, f"quarantine/job=score/event_date={NIGHT}", row)
    put(
        lake,
        "quarantine/job=ingest",
        pa.Table.from_pylist([{"reason": "late", "split": "train"}], TABLES["quarantine/job=ingest"].contract),
    )
    found = rows(lake, "select job, event_date, split, reason, ward from quarantine order by job")
    assert found == [
        {"job": "ingest", "event_date": None, "split": "train", "reason": "late", "ward": None},
        {"job": "score", "event_date": NIGHT, "split": None, "reason": "missing", "ward": "3b"},
    ]


def test_incidents_of_a_week(lake):
    monday = NIGHT - NIGHT.weekday() * DAY
    found = rows(lake, "select event_date, incident_id, severity from incidents_of_week where week = ?", monday)
    assert sorted((row["event_date"], row["incident_id"]) for row in found) == [
        (NIGHT, "scan"),
        (NIGHT + DAY, "flood"),
        (NIGHT + DAY, "scan"),
    ]
    assert rows(lake, "from incidents_of_week where week = ?", monday + 7 * DAY) == []


def test_the_history_of_a_device_is_its_incidents_with_its_own_flows_and_alerts(lake):
    entity = {"kind": "device_id", "name": "pump-1", "flows": 12}
    kept = lake.read("incidents", event_date=NIGHT).to_pylist()
    lake.write("incidents", [{**row, "devices": [entity]} for row in kept], event_date=NIGHT)
    found = rows(
        lake, "select event_date, incident_id, role, flows, alerts, log10_p from device_history where entity = 'pump-1'"
    )
    shared = {"incident_id": "scan", "role": "device", "alerts": 1, "log10_p": -8.0}
    assert found == [{**shared, "event_date": NIGHT + DAY, "flows": None}, {**shared, "event_date": NIGHT, "flows": 12}]
    assert [row["role"] for row in rows(lake, "from device_history where entity = '10.0.0.9'")] == ["source", "source"]


def test_precision_by_feedback_is_that_of_the_report(lake):
    scan, flood = [alert("scan", "pump-1")], [alert("flood", "pump-2", "DDoS")]
    given = [
        verdict("true", scan),
        verdict("close", scan, minute=1),
        verdict("true", scan, date=NIGHT + DAY, minute=2),
        verdict("benign", scan, date=NIGHT + DAY, minute=3),
        verdict("benign", flood, date=NIGHT + DAY),
        verdict("unlearn", flood, date=NIGHT + DAY, minute=1),
    ]
    for number, row in enumerate(given):
        lake.write("verdicts", [{**row, "run_id": f"r{number}"}], run_id=f"r{number}")
    expected = precision.of_lake(lake, 30).categories
    found = rows(lake, "from precision_by_feedback")
    assert [row["category"] for row in found] == list(expected) == ["DDoS", "Recon"]
    for row in found:
        decided = expected[row["category"]]
        counts = (decided.seen, decided.true, decided.benign, decided.undecided, decided.precision)
        assert tuple(row[name] for name in ("seen", "true", "benign", "undecided", "precision")) == counts
    assert (found[1]["true"], found[1]["benign"], found[1]["precision"]) == (1, 1, 0.5)


def test_nights_have_a_state_and_drift_has_the_index_of_the_night_before(lake):
    states = {NIGHT: [{"reason": "missing", "text": "no flow logs"}], NIGHT + DAY: []}
    for date, degraded in states.items():
        night = lake.read("nights", event_date=date).to_pylist()
        lake.write("nights", [{**row, "degraded": degraded, "stage": "operating"} for row in night], event_date=date)
    found = rows(lake, "select event_date, state, degraded, incidents from nights_overview")
    assert [(row["event_date"], row["state"], row["degraded"], row["incidents"]) for row in found] == [
        (NIGHT + DAY, "operating", [], 2),
        (NIGHT, "missing", ["no flow logs"], 1),
    ]
    for night in lake.read("nights", event_date=NIGHT + DAY).to_pylist():
        hour = {**night, "run_of_night": 7, "runs_per_night": 24}
        lake.write("nights", [hour], event_date=NIGHT + DAY)
    [partial] = rows(lake, "select * from nights_overview where state = 'partial'")
    assert (partial["state"], partial["run_of_night"], partial["runs_per_night"]) == ("partial", 7, 24)
    drift = rows(lake, "select event_date, drift_index, drift_before from drift_by_feature where name = 'Rate'")
    assert [(row["event_date"], row["drift_before"]) for row in drift] == [(NIGHT + DAY, 0.02), (NIGHT, None)]


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("drop table nights", "found DROP; expected one query"),
        ("select 1; select 2", "found SELECT, SELECT; expected one query"),
        ("copy (select 1) to '/tmp/x'", "found COPY"),
        ("set enable_external_access = true", "found SET"),
        ("create table x as select 1", "found CREATE"),
        ("", "found nothing"),
        ("select from where", "this is not an SQL statement"),
        ("from nigths", "tables: flows, "),
        ("select devices_of from incidents", "columns of incidents: event_date, incident_id, rank"),
        ("from read_parquet('/etc/x')", "Permission Error"),
        ("from read_csv('https://example.org/x.csv')", "disabled"),
        ("from lake", "there is no table or view 'lake'"),  # a variable of Python
    ],
)  # fmt: skip
def test_a_statement_only_reads_the_lake_and_a_refusal_names_what_there_is(lake, statement, message):
    with pytest.raises(sql.StatementRefused, match=message.replace("(", r"\(")):
        sql.query(lake, statement)


def test_a_damaged_file_is_named(lake):
    path = lake.uri(f"drift/event_date={NIGHT}/part-00000.parquet").removeprefix("file://")
    with open(path, "wb") as file:
        file.write(b"PAR1")
    with pytest.raises(SchemaMismatch, match=r"part-00000\.parquet cannot be read as parquet"):
        sql.query(lake, "from drift")
    assert len(rows(lake, "from incidents"))


def test_an_answer_is_of_one_state_of_a_lake_that_is_committed_to(lake):
    names = ("nights", "incidents", "drift")
    tables = {name: lake.read(name, event_date=NIGHT).to_pylist() for name in names}
    ended, answered = threading.Event(), threading.Semaphore(0)

    def commit(number):
        run = f"20261125T{number:06d}Z-ab"
        staged = functools.partial(lake.staged, "score", run)
        with Lease(lake.root, run):
            rows = {name: [{**row, "run_id": run} for row in tables[name]] for name in names}
            lake.commit("score", run, [lake.write(name, rows[name], staged, event_date=NIGHT) for name in names])

    def commit_again():
        for number in range(1, 10):
            answered.acquire(timeout=60)  # the next question is being answered while this is committed
            commit(number)
        ended.set()

    commit(0)
    writer = threading.Thread(target=commit_again)
    writer.start()
    seen = set()
    while not ended.is_set():
        found = rows(
            lake,
            "select n.run_id as one, i.run_id as two, d.run_id as three from nights n join incidents i using"
            " (event_date) join drift d using (event_date) where event_date = ?",
            NIGHT,
        )
        assert len(found) == 1
        assert len(set(found[0].values())) == 1
        seen.add(found[0]["one"])
        answered.release()
    writer.join()
    assert len(seen) > 1


def test_the_commit_of_a_killed_job_is_named(lake, caplog):
    with open(f"{lake.root.removeprefix('file://')}/.commit-20261125T000000Z-ab.json", "w", encoding="utf-8") as file:
        file.write("{}")
    assert len(rows(lake, "from nights")) == 2
    assert "a job was killed in its commit" in caplog.text
