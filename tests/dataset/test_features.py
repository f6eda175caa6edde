import pytest

from ids_spark.dataset.features import FEATURE_SCHEMAS, ORIGINAL_45, RELEASE_39, column_of


def test_the_first_release_has_45_features_in_official_order():
    features = ORIGINAL_45.features
    assert len(features) == len(set(features)) == 45
    assert features[:7] == (
        "Header_Length",
        "Protocol Type",
        "Duration",
        "Rate",
        "Srate",
        "Drate",
        "fin_flag_number",
    )
    assert features[13:17] == ("ack_count", "syn_count", "fin_count", "rst_count")
    assert features[30:33] == ("IPv", "LLC", "Tot sum")
    assert features[-8:] == ("Tot size", "IAT", "Number", "Magnitue", "Radius", "Covariance", "Variance", "Weight")


def test_the_second_release_has_39_features_and_time_to_live_for_duration():
    features = RELEASE_39.features
    assert len(features) == len(set(features)) == 39
    gone = {"Duration", "Srate", "Drate", "Magnitue", "Radius", "Covariance", "Weight"}
    assert set(ORIGINAL_45.features) - set(features) == gone
    assert set(features) - set(ORIGINAL_45.features) == {"Time_To_Live"}
    renamed = ["Time_To_Live" if f == "Duration" else f for f in ORIGINAL_45.features if f not in gone - {"Duration"}]
    assert list(features) == renamed


@pytest.mark.parametrize(
    ("schema", "left_out"),
    [
        (ORIGINAL_45, {"IAT", "Number", "Weight", "Srate", "Drate"}),
        (RELEASE_39, {"Number", "Tot sum", "ack_count", "syn_count", "fin_count", "rst_count"}),
    ],
)
def test_the_operational_feature_set_excludes_features_that_identify_the_laboratory(schema, left_out):
    assert schema.feature_set("paper") == schema.features
    assert schema.feature_set("operational") == tuple(f for f in schema.features if f not in left_out)
    assert len(schema.feature_set("operational")) == len(schema.features) - len(left_out)


def test_feature_columns_are_identifiers():
    assert column_of("Protocol Type") == "Protocol_Type"
    for schema in FEATURE_SCHEMAS.values():
        columns = [column_of(f) for f in schema.features]
        assert len(set(columns)) == len(columns)
        assert all(column.isidentifier() for column in columns)
