"""Derived features: their values, where they are undefined, and what the preprocessor makes of them."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ids_spark.dataset.features import FEATURE_DESCRIPTIONS, FEATURE_SCHEMAS, RELEASE_39, column_of
from ids_spark.features import ratios
from ids_spark.features.moments import moments_of
from ids_spark.features.preprocess import Preprocessor, PreprocessorUnusable, Recipe, fit, from_json

ROWS = 1_000
NAMES = sorted({name for schema in FEATURE_SCHEMAS.values() for name in ratios.names_of(schema)})


def flows(schema=RELEASE_39):
    rng = np.random.default_rng(3)
    return {name: rng.lognormal(1.0, 1.0, ROWS) for name in schema.features}


def fitted(columns, schema=RELEASE_39, transform="signed_log", derived=True):
    recipe = Recipe("with_ratios", schema, transform, 1e-8, "measured", ratios.names_of(schema) if derived else ())
    every = ratios.with_derived(columns, recipe.features)
    changed = [recipe.transformed(every[name]) for name in recipe.features]
    return fit(recipe, [moments_of(column) for column in changed], np.column_stack(changed))


@pytest.fixture(scope="module")
def preprocessor() -> Preprocessor:
    return fitted(flows())


@pytest.mark.parametrize("schema", FEATURE_SCHEMAS.values(), ids=lambda schema: schema.name)
def test_derived_features_have_columns_sources_and_descriptions_of_their_own(schema):
    names = (*schema.features, *ratios.names_of(schema))
    columns = [column_of(name) for name in names]
    assert len(set(columns)) == len(columns)
    assert all(column.isidentifier() and not column.startswith("_") for column in columns)
    for name in ratios.names_of(schema):
        assert set(ratios.sources_of(name)) <= set(schema.features)
        assert name in FEATURE_DESCRIPTIONS
        assert schema is RELEASE_39 or set(ratios.sources_of(name)).isdisjoint(schema.artefacts)
    assert ratios.sources_of("Rate") == ("Rate",)


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("Max - Min", {"Max": 1514, "Min": 60}, 1454),
        ("Std / AVG", {"Std": 30, "AVG": 120}, 0.25),
        ("Std / AVG", {"Std": 0, "AVG": 0}, 0),
        ("Min / Max", {"Min": 60, "Max": 240}, 0.25),
        ("(AVG - Min) / (Max - Min)", {"AVG": 100, "Min": 60, "Max": 220}, 0.25),
        ("(AVG - Min) / (Max - Min)", {"AVG": 60, "Min": 60, "Max": 60}, 0),
        ("Header_Length / AVG", {"Header_Length": 20, "AVG": 80}, 0.25),
        ("AVG - Tot size", {"AVG": 80, "Tot size": 60}, 20),
        ("(Max - AVG) / Std", {"Max": 100, "AVG": 70, "Std": 15}, 2),
        ("(AVG - Min) / Std", {"AVG": 70, "Min": 70, "Std": 0}, 0),
        ("Inner AVG", {"Number": 10, "AVG": 100, "Min": 60, "Max": 140}, 100),
        ("Inner AVG", {"Number": 2, "AVG": 100, "Min": 60, "Max": 140}, 0),
        ("Payload", {"AVG": 54, "ARP": 0, "Header_Length": 20}, 0),  # an empty segment of TCP
        ("Payload", {"AVG": 42, "ARP": 1, "Header_Length": 0}, 0),
        ("TCP_Header_Length", {"Header_Length": 18, "UDP": 0.5, "TCP": 0.5}, 28),
        ("IP_Time_To_Live", {"Time_To_Live": 32, "ARP": 0.5}, 64),
        ("IP_Time_To_Live", {"Time_To_Live": 0, "ARP": 1}, 0),
        ("syn_flag_number / TCP", {"syn_flag_number": 0.25, "TCP": 0.5}, 0.5),
        ("psh_flag_number / ack_flag_number", {"psh_flag_number": 0.25, "ack_flag_number": 0}, 0),
        ("Inverse Rate", {"Rate": 4}, 0.25),
        ("Inverse Rate", {"Rate": math.inf}, 0),
        ("Inverse Rate", {"Rate": 0}, 0),
        ("Pause / Number", {"IAT": 0.5, "Rate": 4}, 0.25),
        ("Pause", {"Number": 10, "IAT": 0.5, "Rate": 4}, 2.5),
        ("Pause", {"Number": 10, "IAT": 0.5, "Rate": math.inf}, 5),
        ("Rate * AVG", {"Rate": 50, "AVG": 80}, 4_000),
        ("Rate * AVG", {"Rate": math.inf, "AVG": 80}, math.inf),
        ("Rate * AVG", {"Rate": math.inf, "AVG": 0}, 0),
        ("Rate * IAT", {"Rate": 50, "IAT": 0.04}, 2),
        ("Rate * IAT", {"Rate": math.inf, "IAT": 0}, 1),  # all packets at once are at equal distances
        ("Rate * IAT", {"Rate": math.inf, "IAT": 1e-6}, math.inf),
    ],
)
def test_values_of_derived_features(name, values, expected):
    columns = {source: np.array([float(value)]) for source, value in values.items()}
    assert set(columns) == set(ratios.sources_of(name))
    assert ratios.column(columns, name).tolist() == pytest.approx([expected], rel=1e-15)


@given(st.sampled_from(NAMES), st.lists(st.tuples(*[st.floats(allow_nan=False)] * 4), min_size=1, max_size=8))
def test_a_derived_feature_is_never_nan_and_changes_no_raw_one(name, rows):
    columns = dict(zip(ratios.sources_of(name), np.array(rows).T.copy(), strict=False))
    before = {source: column.copy() for source, column in columns.items()}
    found = ratios.with_derived(columns, [name])
    assert not np.isnan(found[name]).any()
    for source, column in before.items():
        np.testing.assert_array_equal(found[source], column)


def test_the_preprocessor_scales_derived_features_like_raw_ones(preprocessor):
    columns = flows()
    assert preprocessor.kept == (*RELEASE_39.features, *ratios.names_of(RELEASE_39))
    scaled = dict(zip(preprocessor.kept, preprocessor.transform(columns), strict=True))
    for name, raw in (
        ("Max - Min", columns["Max"] - columns["Min"]),
        ("Header_Length / AVG", columns["Header_Length"] / columns["AVG"]),
        ("Rate * IAT", columns["Rate"] * columns["IAT"]),
    ):
        changed = np.sign(raw) * np.log1p(1000 * abs(raw))
        np.testing.assert_allclose(scaled[name], (changed - changed.mean()) / changed.std(), atol=1e-5)
        [histogram] = preprocessor.histograms([name])
        assert histogram.low == pytest.approx(raw.min(), rel=1e-9)
        assert preprocessor.raw(name, float(scaled[name][5])) == pytest.approx(raw[5], rel=1e-4)
    [alone] = preprocessor.transform({name: columns[name] for name in ("Std", "AVG")}, ["Std / AVG"])
    np.testing.assert_array_equal(alone, scaled["Std / AVG"])


def test_raw_features_are_the_same_with_and_without_derived_ones(preprocessor):
    without = fitted(flows(), derived=False)
    assert without.features == preprocessor.features[: len(RELEASE_39.features)]
    for one, other in itertools.zip_longest(without.transform(flows()), preprocessor.transform(flows(), without.kept)):
        np.testing.assert_array_equal(one, other)


def test_a_recipe_without_derived_features_is_stored_as_before(preprocessor):
    content = json.loads(fitted(flows(), derived=False).to_json())
    settings = ["format", "recipe", "feature_schema", "transform", "min_std", "rows", "reference_rows", "data_origin"]
    assert list(content) == [*settings, "features"]
    assert [feature["name"] for feature in content["features"]] == list(RELEASE_39.features)
    again = from_json(preprocessor.to_json(), "here")
    assert again == preprocessor
    assert again.sha256() == preprocessor.sha256()
    assert again.recipe.ratios == ratios.names_of(RELEASE_39)


@pytest.mark.parametrize("names", [["Max / Min"], ["Max - Min", "Max - Min"], ["AVG - Tot size"], ["Rate"]])
def test_a_preprocessor_with_other_derived_features_is_refused(preprocessor, names):
    content = json.loads(preprocessor.to_json())
    derived = content["features"][-1]
    content["features"] = content["features"][:39] + [derived | {"name": name} for name in names]
    with pytest.raises(PreprocessorUnusable, match="not those of release39"):
        from_json(json.dumps(content), "here")


def test_operational_models_use_every_derived_feature_but_no_excluded_raw_one(preprocessor):
    expected = (*RELEASE_39.feature_set("operational"), *ratios.names_of(RELEASE_39))
    assert preprocessor.feature_set("operational") == expected
    assert preprocessor.feature_set("paper") == preprocessor.kept


def test_a_feature_that_is_derived_from_a_constant_is_kept_and_the_constant_has_a_median():
    columns = flows() | {"Number": np.full(ROWS, 10.0)}
    preprocessor = fitted(columns)
    assert "Number" not in preprocessor.kept
    assert "Pause" in preprocessor.kept
    assert preprocessor.median("Number") == pytest.approx(10.0)
    assert preprocessor.median("Rate") == pytest.approx(np.median(columns["Rate"]), rel=0.01)


def test_the_pause_of_a_window_is_the_time_since_the_packet_before_it():
    seconds = np.array([0.0, 1.0, 1.5, 2.5, 7.0, 7.25, 7.75, 8.0])  # two windows of three packets after the first two
    values = {"Number": np.array([3.0, 3.0])}
    first, last, before = seconds[[2, 5]], seconds[[4, 7]], seconds[[1, 4]]
    values |= {"IAT": (last - before) / 3, "Rate": 3 / (last - first)}
    np.testing.assert_allclose(ratios.column(values, "Pause"), first - before)
