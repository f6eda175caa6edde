"""Tables of the lake by name: read, written, and found under the names of version 0.1."""

import datetime as dt

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ids_spark.dataset.features import SchemaMismatch
from ids_spark.dataset.tables import CONFUSION, DRIFT, METRICS, NIGHTS, TABLES
from ids_spark.lake.store import Lake

DATE = dt.date(2026, 3, 1)
ROW = {"run_id": "a", "model": "dnn", "feature_set": "paper", "classes": 2, "split": "test", "metric": "accuracy"}


@pytest.fixture
def lake(tmp_path):
    return Lake(str(tmp_path / "lake"))


def put(folder, name, table):
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / name)


def test_what_is_written_is_read_back_by_name_and_partition(lake, tmp_path):
    indices = {"Rate": 0.5, "IAT": None}
    rows = [{"kind": "feature", "name": name, "drift_index": index, "rows": 5} for name, index in indices.items()]
    assert lake.write("drift", rows, event_date=DATE) == "drift/event_date=2026-03-01"
    lake.write("drift", rows[:1], event_date="2026-03-02")
    assert pq.ParquetFile(tmp_path / "lake/drift/event_date=2026-03-01/part-00000.parquet").schema_arrow.equals(DRIFT)
    found = lake.read("drift", event_date=DATE)
    assert found.schema.equals(DRIFT)
    assert dict(zip(*(found[name].to_pylist() for name in ("name", "drift_index")), strict=True)) == indices
    rate = lake.read("drift", ["drift_index", "name"], {"name": "Rate"})
    assert rate.to_pylist() == 2 * [{"drift_index": 0.5, "name": "Rate"}]


def test_a_staged_table_is_written_where_the_run_stages_it(lake):
    path = lake.write("metrics", [ROW], lambda path: lake.staged("score", "a", path), run_id="a")
    assert path == "metrics/a.parquet"
    assert len(lake.read("metrics")) == 0
    lake.commit("score", "a", [path])
    assert lake.read("metrics", list(ROW)).to_pylist() == [ROW]


def test_a_table_without_files_has_the_columns_of_its_contract_and_no_row(lake):
    assert lake.read("confusion").equals(CONFUSION.empty_table())
    assert lake.read("metrics", ["value"]).schema == pa.schema([("value", pa.float64())])


def test_columns_of_version_01_are_found_under_their_present_names_beside_new_files(lake, tmp_path):
    old = pa.Table.from_pylist([ROW | {"run_id": "0", "feature_set": "operational"}], schema=METRICS)
    put(
        tmp_path / "lake/metrics",
        "0.parquet",
        old.rename_columns([c.replace("feature_set", "profile") for c in METRICS.names]),
    )
    lake.write("metrics", [ROW], run_id="a")
    assert lake.read("metrics").column_names == METRICS.names
    assert lake.read("metrics", ["run_id"], {"feature_set": "operational"}).to_pylist() == [{"run_id": "0"}]
    assert lake.read("metrics", ["feature_set"])["feature_set"].to_pylist() == ["operational", "paper"]


@pytest.mark.parametrize(
    ("table", "old", "new"),
    [
        ("alerts", "top_reasons", "top_attributions"),
        ("drift", "band", "drift_level"),
        ("drift", "psi", "drift_index"),
        ("nights", "calibration_rows", "benign_validation_rows"),
        ("confusion", "profile", "feature_set"),
    ],
)
def test_every_renamed_column_of_a_table_of_version_01_is_read(lake, tmp_path, table, old, new):
    contract = TABLES[table].contract
    empty = contract.empty_table().rename_columns([old if name == new else name for name in contract.names])
    put(tmp_path / "lake" / table, "x.parquet", empty)
    assert lake.read(table).schema.equals(contract)


def test_columns_that_older_versions_did_not_write_are_null_in_their_files(lake, tmp_path):
    added = TABLES["nights"].added
    row = dict.fromkeys(TABLES["nights"].contract.names) | {"role": "champion"}
    path = tmp_path / "lake/nights/event_date=2026-03-01/part-00000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([row], TABLES["nights"].contract).drop_columns(list(added)), path)
    found = lake.read("nights")
    assert found.schema == TABLES["nights"].contract
    assert found.select(added).to_pylist() == [dict.fromkeys(added)]
    assert lake.read("nights", ["degraded", "role"]).to_pylist() == [{"degraded": None, "role": "champion"}]


def test_a_file_that_lacks_a_column_or_has_another_type_is_refused_with_its_name(lake, tmp_path):
    folder = tmp_path / "lake/nights/event_date=2026-03-01"
    wrong = NIGHTS.remove(NIGHTS.get_field_index("role"))
    wrong = wrong.set(wrong.get_field_index("rows_in"), pa.field("rows_in", pa.string()))
    put(folder, "a.parquet", wrong.empty_table())
    with pytest.raises(SchemaMismatch) as error:
        lake.read("nights", event_date=DATE)
    for part in ("nights/event_date=2026-03-01/a.parquet", "'role' is missing", "'rows_in' is string, expected int64"):
        assert part in str(error.value)
    assert len(lake.read("nights", ["model"], event_date=DATE)) == 0  # columns that are not requested may be absent


def test_a_file_with_two_columns_of_one_name_is_refused(lake, tmp_path):
    folder = tmp_path / "lake/predictions/event_date=2026-03-01/model=m"
    columns = [*TABLES["predictions"].contract, pa.field("x", pa.string()), pa.field("x", pa.string())]
    put(folder, "a.parquet", pa.schema(columns).empty_table())
    with pytest.raises(SchemaMismatch, match="two columns have one name"):
        lake.read("predictions", event_date=DATE)


def test_columns_that_a_setting_added_are_read_where_they_are(lake, tmp_path):
    columns = {column.name: pa.nulls(1, column.type) for column in TABLES["predictions"].contract}
    folder = tmp_path / "lake/predictions/event_date=2026-03-01/model=m"
    put(folder, "a.parquet", pa.table(columns | {"flow_id": ["f"]}))
    assert lake.read("predictions", ["flow_id"], event_date=DATE, model="m").to_pylist() == [{"flow_id": "f"}]
    with pytest.raises(SchemaMismatch, match=r"lacks column\(s\) src_ip"):
        lake.read("predictions", ["src_ip"], event_date=DATE)


@pytest.mark.parametrize(
    ("rows", "partition", "message"),
    [
        ([{"nme": "Rate"}], {"event_date": DATE}, "drift has no column nme"),
        (DRIFT.remove(0).empty_table(), {"event_date": DATE}, "drift: found"),
        ([], {}, "values given only for nothing"),
        ([], {"date": DATE}, r"unexpected value\(s\) date"),
    ],
)
def test_a_caller_that_writes_something_else_than_the_contract_fails(lake, rows, partition, message):
    with pytest.raises(ValueError, match=message):
        lake.write("drift", rows, **partition)
    assert lake.read("drift").equals(DRIFT.empty_table())
