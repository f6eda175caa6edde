"""A lake with every table that is exported, and readers of Delta tables that know nothing of this program."""

import datetime as dt
import functools
import importlib.resources
import tempfile
from collections.abc import Iterable
from typing import Any

import deltalake
import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ids_spark.dataset.tables import TABLES, night_predictions, night_quarantine
from ids_spark.lake import delta
from ids_spark.lake.filesystem import files_in, resolve
from ids_spark.lake.lease import Lease
from ids_spark.lake.parquet import write_table
from ids_spark.lake.store import Lake
from tests.support.incident_rows import NIGHT, alert, verdict
from tests.support.stored_night import store_night

_ALL = night_predictions(("device_id", "event_time"), "event_time", ("top3", "attributions"))
PREDICTIONS = _ALL.remove(_ALL.names.index("model"))
QUARANTINE = night_quarantine(("device_id", "event_time"), "event_time")
MODEL = "gru_dnn-19-operational"
READERS = ("deltalake", "polars", "duckdb")


def commit_night(
    lake: Lake, run_id: str, date: dt.date = NIGHT, flows: int = 5, schema: pa.Schema = PREDICTIONS
) -> None:
    """Commit every table of a night, as a job does; all rows state the run."""
    staged = functools.partial(lake.staged, "score", run_id)
    places = []
    with tempfile.TemporaryDirectory() as folder:  # where the rows are made
        made = Lake(folder)
        store_night(made, [alert("scan", "pump-1"), alert("flood", "pump-2", "DDoS")], date)
        for name in ("incidents", "alerts", "drift", "nights"):
            rows = [{**row, "run_id": run_id} for row in made.read(name).to_pylist()]
            places.append(lake.write(name, rows, staged, event_date=date))
    time = dt.datetime.combine(date, dt.time(3), dt.UTC)
    names = {name: [None] * flows for name in schema.names}
    names |= {"source_row": list(range(flows)), "run_id": [run_id] * flows, "event_time": [time] * flows}
    names |= {"top3": [[{"class_name": "Benign", "probability": 0.5}]] * flows, "device_id": ["pump-1"] * flows}
    columns = {name: values for name, values in names.items() if name in schema.names}
    for part in range(2):
        place = f"predictions/event_date={date}/model={MODEL}"
        write_table(staged(f"{place}/part-{part:05d}-{run_id[:8]}{part}.parquet"), pa.table(columns, schema=schema))
    refused = [{"source_row": 9, "reason": "missing", "features": ["Rate"], "scored": True, "run_id": run_id}]
    place = f"quarantine/job=score/event_date={date}"
    write_table(staged(f"{place}/part-00000.parquet"), pa.Table.from_pylist(refused, schema=QUARANTINE))
    with Lease(lake.root, run_id):
        lake.commit("score", run_id, [*places, f"predictions/event_date={date}", place])


def add_runs(lake: Lake) -> None:
    """Write a row of each table that has a file for each run."""
    lake.write("metrics", [{"run_id": "m", "metric": "accuracy", "value": 0.5}], run_id="m")
    lake.write("audit", [{"run_id": "a", "job": "score", "notes": ["one"]}], run_id="a", job="score")
    lake.write("verdicts", [{**verdict("true", [alert("scan", "pump-1")]), "run_id": "v"}], run_id="v")


def commit_two_nights(lake: Lake) -> None:
    """Commit the first two nights, and a row of each table that has a file for each run."""
    commit_night(lake, "20261125T010000Z-aa")
    commit_night(lake, "20261126T010000Z-bb", NIGHT + dt.timedelta(days=1))
    add_runs(lake)


def in_lake(lake: Lake, name: str) -> list[dict[str, Any]]:
    """Return the rows of a table in the lake with the values of paths, read file by file with pyarrow."""
    table = TABLES[delta.EXPORTED[name]]
    rows: list[dict[str, Any]] = []
    for uri in files_in(lake.uri(table.place()), ".parquet"):
        path = uri.removeprefix(f"{lake.root}/")
        places = {key: value for key, value in table.values_in(path).items() if key != "job"}
        fs, file = resolve(uri)
        with fs.open_input_file(file) as stream:
            rows += [{**row, **places} for row in pq.ParquetFile(stream).read().to_pylist()]
    return rows


def read(
    reader: str, uri: str, version: int | None = None, options: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """Return the rows of a Delta table."""
    if reader == "deltalake":
        return list(pl.DataFrame(deltalake.DeltaTable(uri, version, storage_options=options).scan()).to_dicts())
    if reader == "polars":
        return list(pl.scan_delta(uri, version=version).collect().to_dicts())
    return list(_duckdb().cursor().execute(f"from delta_scan('{uri}')").to_arrow_table().to_pylist())


@functools.cache
def _duckdb() -> duckdb.DuckDBPyConnection:
    """Return a connection of DuckDB that reads Delta tables, with the extension of a locked package."""
    folder = importlib.resources.files("duckdb_extension_delta") / "extensions" / f"v{duckdb.__version__}"
    found = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    found.execute(f"load '{folder / 'delta.duckdb_extension'}'")
    found.execute("set TimeZone = 'UTC'")
    return found


def plain(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Return rows as text, sorted, the columns by name and times without their zone; absent columns are null."""
    return sorted(repr(_plain(row)) for row in rows)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in sorted(value.items()) if each is not None}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat()
    return value
