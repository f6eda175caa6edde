import dataclasses
import functools
import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from ids_spark.dataset.features import ORIGINAL_45, RELEASE_39
from ids_spark.features.moments import moments_of
from ids_spark.features.preprocess import Preprocessor, PreprocessorUnusable, Recipe, fit, from_json

ROWS = 2_000


def train_columns(schema=RELEASE_39, **special):
    """Return one column for each feature, of very different sizes, as in real flows."""
    rng = np.random.default_rng(3)
    sizes = 10.0 ** rng.integers(-3, 7, len(schema.features))
    columns = {f: rng.normal(3.0, 1.0, ROWS) * s for f, s in zip(schema.features, sizes, strict=True)}
    return columns | {name: np.asarray(column, float) for name, column in special.items()}


def fitted(columns, schema=RELEASE_39, min_std=1e-8, transform="none"):
    recipe = Recipe("paper", schema, transform, min_std, "measured")
    changed = [recipe.transformed(columns[f]) for f in schema.features]
    return fit(recipe, [moments_of(column) for column in changed], np.column_stack(changed))


@pytest.fixture(scope="module")
def columns():
    return train_columns()


@pytest.fixture(scope="module")
def preprocessor(columns):
    return fitted(columns)


def test_train_is_standardised_as_scikit_learn_does(columns, preprocessor):
    matrix = np.column_stack([columns[f] for f in RELEASE_39.features])
    scaler = StandardScaler().fit(matrix)
    np.testing.assert_allclose([f.mean for f in preprocessor.features], scaler.mean_, rtol=1e-12)
    np.testing.assert_allclose([f.std for f in preprocessor.features], scaler.scale_, rtol=1e-12)
    scaled = preprocessor.transform(columns)
    assert {column.dtype for column in scaled} == {np.dtype(np.float32)}
    np.testing.assert_allclose(np.column_stack(scaled), scaler.transform(matrix), rtol=1e-6, atol=1e-6)


def test_scaling_happens_in_double():
    rng = np.random.default_rng(1)
    iat = 84_670_752.0 + rng.normal(0, 1, ROWS)  # in single precision every value here is a multiple of 8
    [scaled] = fitted(train_columns(IAT=iat)).transform({"IAT": iat}, ["IAT"])
    np.testing.assert_allclose(scaled, (iat - iat.mean()) / iat.std(), atol=1e-5)
    assert len(np.unique(scaled)) > 0.9 * ROWS


def test_infinities_take_the_extreme_finite_train_values_in_fit_and_transform():
    rate = np.r_[np.full(3, np.inf), np.linspace(-5, 20, ROWS - 4), -np.inf]
    preprocessor = fitted(train_columns(Rate=rate))
    saturated = np.clip(rate, -5, 20)
    feature = preprocessor.features[RELEASE_39.features.index("Rate")]
    assert (feature.low, feature.high, feature.infinite, feature.kept) == (-5.0, 20.0, 4, True)
    assert feature.mean == pytest.approx(saturated.mean(), rel=1e-12)
    assert feature.std == pytest.approx(saturated.std(), rel=1e-12)
    values = np.array([np.inf, -np.inf, 1.0, 40.0])  # a finite value beyond the train extremes is not changed
    [scaled] = preprocessor.transform({"Rate": values}, ["Rate"])
    expected = (np.array([20.0, -5.0, 1.0, 40.0]) - saturated.mean()) / saturated.std()
    np.testing.assert_allclose(scaled, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("column", "min_std", "kept", "reason"),
    [
        (np.full(ROWS, 0.0), 1e-8, False, "standard deviation 0 <= min_std 1e-08"),
        (np.full(ROWS, 1.7e8 + 0.1), 1e-8, False, "standard deviation 0 <= min_std 1e-08"),
        (np.tile([1.0, 2.0], ROWS // 2), 0.5, False, "standard deviation 0.5 <= min_std 0.5"),
        (np.tile([1.0, 2.0], ROWS // 2), 0.49, True, "standard deviation 0.5 > min_std 0.49"),
        (np.tile([0.0, 2e-3], ROWS // 2), 1e-8, True, "standard deviation 0.001 > min_std 1e-08"),
        (np.full(ROWS, np.inf), 1e-8, False, "every train value is infinite"),
        (np.r_[np.full(ROWS - 1, np.inf), 1.0], 1e-8, False, "standard deviation 0 <= min_std 1e-08"),
    ],
)
def test_a_feature_that_hardly_varies_is_dropped_with_the_reason(column, min_std, kept, reason):
    columns = dict.fromkeys(ORIGINAL_45.features, np.arange(float(ROWS))) | {"Drate": column}
    preprocessor = fitted(columns, ORIGINAL_45, min_std)
    feature = preprocessor.features[ORIGINAL_45.features.index("Drate")]
    assert (feature.kept, feature.reason) == (kept, reason)
    assert preprocessor.kept == tuple(f for f in ORIGINAL_45.features if kept or f != "Drate")
    assert len(preprocessor.columns) == (45 if kept else 44)
    assert preprocessor.columns[1] == "Protocol_Type"


def test_a_part_of_the_features_is_given_in_the_order_asked_for(columns, preprocessor):
    names = ["Variance", "Header_Length", "Tot sum"]
    everything = dict(zip(preprocessor.kept, preprocessor.transform(columns), strict=True))
    part = preprocessor.transform({name: columns[name] for name in names}, names)
    for name, column in zip(names, part, strict=True):
        np.testing.assert_array_equal(column, everything[name])


@pytest.mark.parametrize("name", ["Drate", "Speed"])
def test_a_feature_that_was_not_kept_cannot_be_asked_for(name):
    columns = train_columns(ORIGINAL_45, Drate=np.zeros(ROWS))
    with pytest.raises(KeyError, match=name):
        fitted(columns, ORIGINAL_45).transform(columns | {name: np.ones(ROWS)}, [name])


@functools.cache
def fitted_on_two_rates(transform):
    return fitted(train_columns(Rate=np.tile([0.0, 2e-3], ROWS // 2)), transform=transform)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("transform", ["none", "signed_log"])
@given(st.lists(st.floats(allow_nan=False), max_size=20))
def test_every_value_that_is_not_nan_becomes_a_finite_one(transform, values):
    [scaled] = fitted_on_two_rates(transform).transform({"Rate": np.array(values, dtype=np.float64)}, ["Rate"])
    assert np.isfinite(scaled).all()


def test_a_preprocessor_is_read_from_json_as_written(columns, preprocessor):
    text = preprocessor.to_json()
    again = from_json(text, "here")
    assert isinstance(again, Preprocessor)
    assert again == preprocessor
    assert again.to_json() == text
    assert again.sha256() == preprocessor.sha256() == hashlib.sha256(text.encode()).hexdigest()
    for first, second in zip(preprocessor.transform(columns), again.transform(columns), strict=True):
        np.testing.assert_array_equal(first, second)


def test_different_preprocessors_have_different_hashes(preprocessor):
    moved = dataclasses.replace(preprocessor.features[0], mean=np.nextafter(preprocessor.features[0].mean, np.inf))
    other = dataclasses.replace(preprocessor, features=(moved, *preprocessor.features[1:]))
    assert other.sha256() != preprocessor.sha256()


@pytest.mark.parametrize("extreme", [1e200, 1.7e308])
def test_one_extreme_value_drops_no_feature_and_can_be_stored(extreme):
    preprocessor = fitted(train_columns(Rate=np.r_[np.arange(ROWS - 1.0), extreme]))
    assert "Rate" in preprocessor.kept
    assert from_json(preprocessor.to_json(), "here") == preprocessor


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format=1), "here: format 1, expected format 2; rerun jobs/features.py"),
        (lambda c: c.update(feature_schema="release40"), "here is not a preprocessor (KeyError('release40'))"),
        (lambda c: c["features"].pop(), "here: its features are not those of release39; rerun jobs/features.py"),
        (lambda c: c["features"].reverse(), "here: its features are not those of release39; rerun jobs/features.py"),
        (lambda c: c["features"][0].pop("std"), "here is not a preprocessor (TypeError("),
        (
            lambda c: c["features"][0].pop("edges"),
            "here is not a preprocessor (KeyError('edges')); rerun jobs/features.py",
        ),
        (lambda c: c.pop("format"), "here is not a preprocessor (KeyError('format')); rerun jobs/features.py"),
        (lambda c: c.pop("recipe"), "here is not a preprocessor (KeyError('recipe')); rerun jobs/features.py"),
        (lambda c: c.pop("min_std"), "here is not a preprocessor (KeyError('min_std')); rerun jobs/features.py"),
        (lambda c: c.update(transform="sqrt"), "here: transform 'sqrt'"),
        (lambda c: c.update(rows=1.5), "rows or reference_rows is not a whole number"),
        (lambda c: c.update(rows=-1), "rows or reference_rows is not a whole number"),
        (lambda c: c.update(min_std=None), "min_std no finite number"),
        (lambda c: c["features"][0].update(mean=float("nan")), "NaN is not a finite number"),
        (lambda c: c["features"][0].update(low="0"), "expected finite numbers"),
        (lambda c: c["features"][0].update(std=0.0), "expected a standard deviation above 0"),
        (lambda c: c["features"][0].update(kept=1), "name, reason or kept is of another type"),
        (lambda c: c["features"][0]["quantiles"].pop(), "129 quantiles"),
        (lambda c: c["features"][0]["shares"].pop(), "shares do not fit"),
        (lambda c: c["features"][0]["edges"].reverse(), "edges are not ascending"),
        (lambda c: c["features"][0].update(edges=3), "here is not a preprocessor (TypeError("),
        (lambda c: c.update(features=[3]), "here is not a preprocessor (TypeError("),
    ],
)
def test_another_json_is_refused(preprocessor, change, message):
    content = json.loads(preprocessor.to_json())
    change(content)
    with pytest.raises(PreprocessorUnusable) as error:
        from_json(json.dumps(content), "here")
    assert message in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", "[" * 100_000, '{"format": 2}'])
def test_text_that_is_no_preprocessor_is_refused(text):
    with pytest.raises(PreprocessorUnusable, match=r"here is not a preprocessor \(.*\); rerun jobs/features.py"):
        from_json(text, "here")


def test_without_any_varying_feature_there_is_no_preprocessor():
    with pytest.raises(PreprocessorUnusable) as error:
        fitted(dict.fromkeys(RELEASE_39.features, np.full(7, 2.0)))
    assert str(error.value) == "no feature of 7 train rows varies by more than min_std 1e-08; lower features.min_std"


def test_without_rows_there_is_no_preprocessor():
    with pytest.raises(
        PreprocessorUnusable, match="found no train row to fit on; check that the source has a train split"
    ):
        fitted(dict.fromkeys(RELEASE_39.features, np.array([])))


def test_signed_log_is_taken_before_everything_is_measured():
    rate = np.r_[np.inf, -np.geomspace(1e-6, 1e6, 999), np.geomspace(1e-6, 1e6, 1000)]
    preprocessor = fitted(train_columns(Rate=rate), transform="signed_log")
    finite = np.where(np.isinf(rate), 1e6, rate)
    expected = np.sign(finite) * np.log(1.0 + 1000.0 * np.abs(finite))
    [scaled] = preprocessor.transform({"Rate": rate}, ["Rate"])
    np.testing.assert_allclose(scaled, (expected - expected.mean()) / expected.std(), rtol=1e-5, atol=1e-6)
    assert from_json(preprocessor.to_json(), "here") == preprocessor


def test_edges_are_quantiles_in_scaled_units():
    column = np.random.default_rng(5).gamma(2.0, 3.0, ROWS)
    preprocessor = fitted(train_columns(Rate=column))
    [edges] = preprocessor.edges(["Rate"], 8)
    scaled = (column - column.mean()) / column.std()
    np.testing.assert_allclose(edges, np.quantile(scaled, np.linspace(0, 1, 9)), rtol=1e-5, atol=1e-6)


def test_shares_of_each_bin_are_those_of_the_sample_with_infinities_at_the_extremes():
    rate = np.r_[np.full(400, np.inf), np.linspace(-5, 20, ROWS - 500), np.full(100, -np.inf)]
    feature = fitted(train_columns(Rate=rate)).features[RELEASE_39.features.index("Rate")]
    assert list(feature.edges) == sorted(set(feature.edges))
    places = np.searchsorted(feature.edges, np.clip(rate, -5, 20), side="right")
    np.testing.assert_allclose(feature.shares, np.bincount(places, minlength=len(feature.edges) + 1) / ROWS)
    assert feature.shares[-1] == pytest.approx(401 / ROWS)  # 400 rows are a point mass, with the one that measured 20
    assert sum(feature.shares) == pytest.approx(1.0)


def test_a_feature_without_finite_or_without_different_values_has_one_bin(columns):
    columns = columns | {"Rate": np.full(ROWS, np.inf), "IAT": np.full(ROWS, 3.5)}
    preprocessor = fitted(columns)
    for name in ("Rate", "IAT"):
        feature = preprocessor.features[RELEASE_39.features.index(name)]
        assert (feature.edges, feature.shares) == ((), (1.0,))
    assert from_json(preprocessor.to_json(), "here") == preprocessor


def test_without_a_sample_there_are_moments_but_no_bins():
    columns = train_columns(Rate=np.full(ROWS, np.inf))
    recipe = Recipe("paper", RELEASE_39, "none", 1e-8, "measured")
    preprocessor = fit(recipe, [moments_of(columns[f]) for f in RELEASE_39.features], np.empty((0, 39)))
    assert {(f.edges, f.shares) for f in preprocessor.features} == {((), ())}
    assert from_json(preprocessor.to_json(), "here") == preprocessor


@pytest.mark.parametrize("transform", ["none", "signed_log"])
def test_histograms_are_in_raw_units_and_in_the_order_asked_for(transform):
    rate = np.r_[-np.geomspace(1e-6, 1e6, 1_000), np.geomspace(1e-6, 1e6, 1_000)]
    preprocessor = fitted(train_columns(Rate=rate), transform=transform)
    assert [h.name for h in preprocessor.histograms(["Variance", "Rate"])] == ["Variance", "Rate"]
    [known] = preprocessor.histograms(["Rate"])
    assert (known.low, known.high) == pytest.approx((-1e6, 1e6), rel=1e-12)
    assert known.rows == ROWS
    np.testing.assert_allclose(known.shares, 0.1)
    for i, edge in enumerate(known.edges):  # between the same neighbours as in units of the transform
        assert np.sort(rate)[200 * i + 199] < edge < np.sort(rate)[200 * i + 200]
    with pytest.raises(KeyError, match="Speed"):
        preprocessor.histograms(["Speed"])


@given(st.floats(-1e100, 1e100) | st.sampled_from([np.inf, -np.inf, 0.0]))
def test_the_transform_can_be_inverted(value):
    for transform in ("none", "signed_log"):
        recipe = Recipe("paper", RELEASE_39, transform, 1e-8, "measured")
        [back] = recipe.inverted(recipe.transformed(np.array([value])))
        assert back == pytest.approx(value, rel=1e-12, abs=1e-18)
        assert np.isnan(recipe.inverted(recipe.transformed(np.array([np.nan])))).all()


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(PreprocessorUnusable, match="is not a preprocessor"):
        from_json(b"\xff{}", "here")
