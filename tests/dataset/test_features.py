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
def test_the_operational_feature_set_excludes_features_that_identify_the_laboratory(schema, left_out):
    assert schema.feature_set("paper") == schema.features
    assert schema.feature_set("operational") == tuple(f for f in schema.features if f not in left_out)
    assert len(schema.feature_set("operational")) == len(schema.features) - len(left_out)


BESIDE = ["label", "Unnamed: 0", "", "flow_id", "event_time", "Src IP", "dst_port", "Protocol", "__index_level_0__"]


def mismatch(columns, ignored=()):
    with pytest.raises(SchemaMismatch) as error:
        recognise(columns, "train/Benign_train.pcap.csv", ignored)
    text = str(error.value)
    assert text.startswith("train/Benign_train.pcap.csv ")
    assert "ingest.ignored_columns" in text
    return text


@pytest.mark.parametrize("schema", FEATURE_SCHEMAS.values(), ids=FEATURE_SCHEMAS)
def test_a_schema_is_recognised_in_any_order_and_beside_columns_that_are_no_features(schema):
    assert recognise(schema.features, "flows.csv") is schema
    assert recognise([*BESIDE, *reversed(schema.features)], "flows.csv") is schema
    assert recognise([*schema.features, "pump serial"], "flows.csv", ["pump serial"]) is schema


@pytest.mark.parametrize(
    ("schema", "missing"),
    [(ORIGINAL_45, ["Rate", "Weight"]), (RELEASE_39, ["Time_To_Live"]), (RELEASE_39, ["Header_Length", "Std", "IAT"])],
)
def test_missing_columns_are_named_for_the_nearer_schema(schema, missing):
    total = len(schema.features)
    text = mismatch([f for f in schema.features if f not in missing])
    assert f"lacks {len(missing)} of the {total} columns of feature schema {schema.name}: {', '.join(missing)};" in text
    assert f"found {total - len(missing)} columns" in text


def test_a_corrected_spelling_is_not_the_official_column():
    text = mismatch(["Magnitude" if f == "Magnitue" else f for f in ORIGINAL_45.features])
    assert "lacks 1 of the 45 columns of feature schema original45: Magnitue;" in text
    assert "has 1 unknown column(s): Magnitude;" in text


@pytest.mark.parametrize("new", [["Entropy", "Jitter", "Burst"], [f"new {i}" for i in range(6)]])
@pytest.mark.parametrize("schema", FEATURE_SCHEMAS.values(), ids=FEATURE_SCHEMAS)
def test_a_release_with_further_features_is_not_recognised_as_a_known_one(schema, new):
    text = mismatch([*schema.features, *new, "label"])
    assert f"has {len(new)} unknown column(s): {', '.join(sorted(new))};" in text
    assert "lacks" not in text


def test_the_first_release_with_time_to_live_for_duration_is_not_recognised_as_the_second():
    renamed = ["Time_To_Live" if f == "Duration" else f for f in ORIGINAL_45.features]
    text = mismatch(renamed)
    assert set(renamed) >= set(RELEASE_39.features)  # every feature of the second release is there
    assert "lacks 1 of the 45 columns of feature schema original45: Duration;" in text
    assert "has 1 column(s) of another feature schema than original45: Time_To_Live;" in text
    assert "of another feature schema than original45: Time_To_Live" in mismatch(
        [*ORIGINAL_45.features, "Time_To_Live"]
    )
    assert "of another feature schema than release39: Srate" in mismatch([*RELEASE_39.features, "Srate"])


def test_feature_columns_are_identifiers():
    assert column_of("Protocol Type") == "Protocol_Type"
    for schema in FEATURE_SCHEMAS.values():
        columns = [column_of(f) for f in schema.features]
        assert len(set(columns)) == len(columns)
        assert all(column.isidentifier() for column in columns)


def test_of_many_unknown_columns_the_first_ten_are_named():
    text = mismatch([*RELEASE_39.features, *(f"column {i:05d}" for i in range(20_000))])
    assert "has 20000 unknown column(s): column 00000, column 00001," in text
    assert "column 00009 and 19990 more;" in text
    assert len(text) < 1_000
