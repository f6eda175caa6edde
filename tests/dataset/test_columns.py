import pytest

from ids_spark.dataset.columns import ColumnNames, recognise
from ids_spark.dataset.features import FEATURE_SCHEMAS, ORIGINAL_45, RELEASE_39, SchemaMismatch

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
    assert recognise(schema.features, "flows.csv") == (schema, {f: f for f in schema.features})
    assert recognise([*BESIDE, *reversed(schema.features)], "flows.csv")[0] is schema
    assert recognise([*schema.features, "pump serial"], "flows.csv", ["pump serial"])[0] is schema


@pytest.mark.parametrize(
    ("schema", "missing"),
    [(ORIGINAL_45, ["Rate", "Weight"]), (RELEASE_39, ["Time_To_Live"]), (RELEASE_39, ["Header_Length", "Std", "IAT"])],
)
def test_missing_columns_are_named_for_the_nearer_schema(schema, missing):
    total = len(schema.features)
    text = mismatch([f for f in schema.features if f not in missing])
    assert f"lacks {len(missing)} of the {total} columns of feature schema {schema.name}: {', '.join(missing)};" in text
    assert f"found {total - len(missing)} columns" in text


SPELLINGS = {
    "underscores": lambda name: name.replace(" ", "_"),
    "blanks": lambda name: name.replace("_", " "),
    "padded": lambda name: f" {name} ",
    "lower case": str.lower,
    "upper case": str.upper,
    "hyphens": lambda name: name.replace("_", "-").replace(" ", "-"),
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("schema", FEATURE_SCHEMAS.values(), ids=FEATURE_SCHEMAS)
def test_case_blanks_underscores_and_padding_do_not_change_a_feature(schema, spelling):
    names = [spelling(feature) for feature in schema.features]
    expected = dict(zip(schema.features, names, strict=True))
    assert recognise([*names, "label", "flow_id"], "flows.csv") == (schema, expected)
    assert ColumnNames(names).of(schema) == expected
    assert ColumnNames(names).schema() is schema


def test_known_and_configured_other_names_are_features():
    names = [{"Magnitue": "Magnitude", "Rate": "pps"}.get(f, f) for f in ORIGINAL_45.features]
    _, columns = recognise(names, "flows.csv", aliases={"pps": "Rate"})
    assert (columns["Magnitue"], columns["Rate"]) == ("Magnitude", "pps")
    _, columns = recognise(["ttl" if f == "Time_To_Live" else f for f in RELEASE_39.features], "flows.csv")
    assert columns["Time_To_Live"] == "ttl"


def test_the_official_spelling_is_used_beside_a_similar_name_and_two_similar_names_are_refused():
    assert ColumnNames(["rate", "Rate", "Rate.1"]).of(RELEASE_39) == {"Rate": "Rate"}
    names = [f for f in RELEASE_39.features if f != "Rate"]
    assert "has several columns for Rate: rate, RATE;" in mismatch([*names, "rate", "RATE"])


def test_duration_in_lower_case_is_another_exporters_column_unless_all_names_are_in_lower_case():
    assert "Duration" not in ColumnNames([*ORIGINAL_45.features[3:], "duration"]).of(ORIGINAL_45)
    assert ColumnNames([f.lower() for f in ORIGINAL_45.features]).of(ORIGINAL_45)["Duration"] == "duration"


def test_a_similar_name_is_suggested():
    text = mismatch(["Header_Lenght" if f == "Header_Length" else f for f in RELEASE_39.features])
    assert "Header_Length (did you mean 'Header_Lenght'?)" in text


def test_the_schema_of_logs_is_that_of_the_features_that_only_one_release_has():
    assert ColumnNames(ORIGINAL_45.features).schema() is ORIGINAL_45
    assert ColumnNames([*RELEASE_39.features, "Duration"]).schema() is RELEASE_39  # one of seven of the first release
    assert ColumnNames(ORIGINAL_45.feature_set("operational")).schema() is ORIGINAL_45
    both = ColumnNames([*ORIGINAL_45.features, "Time_To_Live"])
    neither = ColumnNames([f for f in RELEASE_39.features if f != "Time_To_Live"])
    assert (both.schema(), neither.schema()) == (None, None)


def test_columns_that_may_hold_the_class_are_named():
    assert ColumnNames(["Rate", "Label", "attack_type", "Class", "device"]).labels() == [
        "Label",
        "attack_type",
        "Class",
    ]


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


def test_of_many_unknown_columns_the_first_ten_are_named():
    text = mismatch([*RELEASE_39.features, *(f"column {i:05d}" for i in range(20_000))])
    assert "has 20000 unknown column(s): column 00000, column 00001," in text
    assert "column 00009 and 19990 more;" in text
    assert len(text) < 1_000
