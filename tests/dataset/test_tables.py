import pyarrow as pa
import pytest

from ids_spark.dataset.features import RELEASE_39, SchemaMismatch
from ids_spark.dataset.tables import QUARANTINE, TABLES, features_contract, flows_contract, require


def test_flows_hold_double_and_features_hold_single_precision():
    flows, features = flows_contract(RELEASE_39.features), features_contract(["Rate", "Tot_sum"])
    assert {flows.field(name).type for name in RELEASE_39.features} == {pa.float64()}
    assert features.names == ["row_key", "Rate", "Tot_sum", "label19", "label6", "label2", "block"]
    assert {features.field(name).type for name in ("Rate", "Tot_sum")} == {pa.float32()}


def test_require_accepts_more_columns_in_another_order():
    wanted = pa.schema([("a", pa.int64()), ("b", pa.string())])
    require(pa.schema([("b", pa.string()), ("c", pa.bool_()), ("a", pa.int64())]), wanted, "here")


def test_require_lists_every_fault_at_once():
    found = pa.schema([(f.name, pa.int32() if f.name == "source_row" else f.type) for f in QUARANTINE])
    found = found.remove(found.get_field_index("reason")).remove(found.get_field_index("label"))
    with pytest.raises(SchemaMismatch) as error:
        require(found, QUARANTINE, "quarantine/")
    assert str(error.value) == (
        "quarantine/: column 'source_row' is int32, expected int64; column 'label' is missing (expected string);"
        " column 'reason' is missing (expected string). Rerun the job that writes this table with this version"
    )


def test_keys_partitions_and_old_names_are_those_of_the_contracts():
    for name, table in TABLES.items():
        assert table.place() == name
        if not table.contract.names:  # files that are not parquet
            continue
        assert set(table.keys) <= set(table.contract.names), name
        assert table.partition is None or f"{table.partition}={{{table.partition}}}" in table.path, name
        assert table.partition not in table.contract.names, name
        present = set(table.renamed) - {"attributions"}  # a column that depends on settings
        assert present <= set(table.contract.names), name
        assert not set(table.renamed.values()) & set(table.contract.names), name


def test_the_place_of_a_part_of_a_table():
    predictions = TABLES["predictions"]
    assert predictions.place(event_date="2026-03-01") == "predictions/event_date=2026-03-01"
    assert predictions.place(event_date="2026-03-01", model="m") == "predictions/event_date=2026-03-01/model=m"
    assert TABLES["audit"].place(run_id="r", job="score") == "audit/r-score.parquet"
    with pytest.raises(ValueError, match=r"unexpected value.* model"):
        predictions.place(model="m")
