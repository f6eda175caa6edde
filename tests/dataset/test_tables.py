import pyarrow as pa
import pytest

from ids_spark.dataset.features import RELEASE_39, SchemaMismatch
from ids_spark.dataset.tables import QUARANTINE, features_contract, flows_contract, require


def test_flows_hold_double_and_features_hold_single_precision():
    flows, features = flows_contract(RELEASE_39), features_contract(["Rate", "Tot_sum"])
    assert {flows.field(name).type for name in RELEASE_39.features} == {pa.float64()}
    assert features.names == ["row_key", "Rate", "Tot_sum", "label19", "label6", "label2"]
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
