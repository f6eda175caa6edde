import pytest

from ids_spark.dataset.features import FEATURE_SCHEMAS, ORIGINAL_45, RELEASE_39, SchemaMismatch, column_of, recognise


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
    [(ORIGINAL_45, {"IAT", "Number", "Weight", "Srate", "Drate"}), (RELEASE_39, {"Number"})],
)
def test_the_operational_profile_leaves_out_what_names_the_laboratory(schema, left_out):
    assert schema.feature_set("paper") == schema.features
    assert schema.feature_set("operational") == tuple(f for f in schema.features if f not in left_out)
    assert len(schema.feature_set("operational")) == len(schema.features) - len(left_out)


@pytest.mark.parametrize("schema", FEATURE_SCHEMAS.values(), ids=FEATURE_SCHEMAS)
def test_a_schema_is_recognised_in_any_order_and_among_other_columns(schema):
    assert recognise(["label", *reversed(schema.features), "extra"], "flows.csv") is schema


@pytest.mark.parametrize(
    ("schema", "missing"),
    [(ORIGINAL_45, ["Rate", "Weight"]), (RELEASE_39, ["Time_To_Live"]), (RELEASE_39, ["Header_Length", "Std", "IAT"])],
)
def test_missing_columns_are_named_for_the_nearer_schema(schema, missing):
    columns = [f for f in schema.features if f not in missing]
    with pytest.raises(SchemaMismatch) as error:
        recognise(columns, "train/Benign_train.pcap.csv")
    total = len(schema.features)
    assert str(error.value).startswith(
        f"train/Benign_train.pcap.csv lacks {len(missing)} of the {total} columns of feature schema {schema.name}:"
        f" {', '.join(missing)}; found {total - len(missing)} columns. Add the columns"
    )


def test_a_corrected_spelling_is_not_the_official_column():
    columns = ["Magnitude" if f == "Magnitue" else f for f in ORIGINAL_45.features]
    with pytest.raises(
        SchemaMismatch, match=r"lacks 1 of the 45 .*: Magnitue; found 45 columns.*misspellings included"
    ):
        recognise(columns, "x.csv")


def test_feature_columns_are_identifiers():
    assert column_of("Protocol Type") == "Protocol_Type"
    for schema in FEATURE_SCHEMAS.values():
        columns = [column_of(f) for f in schema.features]
        assert len(set(columns)) == len(columns)
        assert all(column.isidentifier() for column in columns)
