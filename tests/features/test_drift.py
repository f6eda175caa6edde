import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ids_spark.dataset.features import ORIGINAL_45, RELEASE_39
from ids_spark.dataset.tables import DRIFT
from ids_spark.features import drift
from ids_spark.features.drift import Histogram, class_mix_row, count_bins, drift_level, histogram_of, psi, rows_of
from ids_spark.features.moments import moments_of
from ids_spark.features.preprocess import Recipe, fit

FACTS = {"model": "dnn-6-paper", "model_version": "v1", "run_id": "r1", "data_origin": "synthetic"}
MANY = 10**9
RNG = np.random.default_rng(4)
numbers = st.floats(-1e12, 1e12, allow_subnormal=False) | st.sampled_from([0.0, 1.0, 6.0, 0.1, 0.1 + 2e-17, 255.0])


def histogram(column, name="Rate"):
    """Return the histogram of a column of finite train values."""
    values = np.array(column, dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    return Histogram(name, *histogram_of(values, low, high), low, high, len(values))


def of_column(column):
    return histogram_of(np.array(column, dtype=np.float64), min(column), max(column))


def cut(column, edges):
    """Return the rows in each bin as pandas counts them; a value at an edge belongs to the upper bin."""
    bins = pd.cut(pd.Series(column, dtype=float), [-np.inf, *edges, np.inf], right=False, labels=False)
    bins = bins.fillna(len(edges)).astype(int)  # an interval that is open on the right excludes infinity
    return np.bincount(bins, minlength=len(edges) + 1)


def fitted(schema, frame, transform="none"):
    recipe = Recipe("paper", schema, transform, 1e-8, "measured")
    columns = [recipe.transformed(frame[name].to_numpy()) for name in schema.features]
    return fit(recipe, [moments_of(c) for c in columns], np.column_stack(columns))


def drifts(preprocessor, frame):
    """Return the drift rows of a night's flows by feature."""
    histograms = preprocessor.histograms(preprocessor.kept)
    counted = count_bins(histograms, {name: frame[name].to_numpy() for name in preprocessor.kept})
    return {row["name"]: row for row in rows_of(counted, histograms, FACTS)}


def test_index_of_many_rows_is_the_sum_by_hand():
    by_hand = (0.4 - 0.5) * math.log(0.4 / 0.5) + (0.4 - 0.3) * math.log(0.4 / 0.3)  # the last bin adds nothing
    assert by_hand == pytest.approx(0.051082562)
    assert psi([0.5, 0.3, 0.2], [4 * MANY, 4 * MANY, 2 * MANY], MANY) == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize(("rows", "half"), [(1_000, 0.005), (50, 0.01)])
def test_half_a_row_of_the_smaller_side_is_added_to_every_bin_of_both(rows, half):
    e, a = np.array([0.5, 0.5, 0.0]) + half, np.array([0.25, 0.5, 0.25]) + half
    e, a = e / e.sum(), a / a.sum()
    by_hand = sum((x - y) * math.log(x / y) for x, y in zip(a, e, strict=True))
    assert psi([0.5, 0.5, 0.0], [25, 50, 25], rows) == pytest.approx(by_hand, rel=1e-12)


def test_equal_shares_have_an_index_of_exactly_0_however_few_rows():
    assert psi([0.5, 0.25, 0.25, 0.0], [2, 1, 1, 0], MANY) == 0.0
    assert psi([1.0], [17], 3) == 0.0


def test_a_bin_unknown_to_train_counts_the_more_the_more_rows_it_holds():
    found = [psi([1.0, 0.0], [10_000 - n, n], 10_000) for n in (0, 1, 10, 100, 1_000, 10_000)]
    assert found == sorted(found)
    assert found[0] == 0.0
    assert found[1] < 0.001
    assert all(map(math.isfinite, found))


@pytest.mark.parametrize(("expected", "counts", "rows"), [([0.5, 0.5], [0, 0], 9), ([], [3], 9), ([], [3, 4], 0)])
def test_without_rows_on_either_side_there_is_no_index(expected, counts, rows):
    assert psi(expected, counts, rows) is None
    assert drift_level(None, 2, sum(counts), rows) == "too_few_rows"


@given(st.lists(st.tuples(st.integers(0, 900), st.integers(0, 900)), min_size=1, max_size=12))
def test_the_index_is_never_negative_and_the_same_both_ways(pairs):
    first, second = np.array(pairs).T
    n, m = int(first.sum()), int(second.sum())
    if n and m:
        there, back = psi(first / n, second, n), psi(second / m, first, m)
        assert there >= 0
        assert there == pytest.approx(back, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("index", "level"),
    [(0.0, "stable"), (0.0999, "stable"), (0.1, "moderate"), (0.25, "moderate"), (0.2501, "significant")],
)
def test_levels_are_those_of_credit_scoring(index, level):
    assert drift_level(index, 10, MANY, MANY) == level


@pytest.mark.parametrize("bins", [2, 4, 10, 19])
def test_rows_are_too_few_if_chance_alone_may_exceed_the_stable_level(bins):
    enough = math.ceil(stats.chi2.ppf(0.999, bins - 1) / 0.1)  # flows of a night, compared with an infinite train split
    assert drift_level(0.0, bins, enough + 1, MANY) == "stable"
    assert drift_level(5.0, bins, enough - 1, MANY) == "too_few_rows"
    assert drift_level(5.0, bins, MANY, enough - 1) == "too_few_rows"
    assert drift_level(0.0, bins, 2 * enough - 20, 2 * enough - 20) == "too_few_rows"
    assert drift_level(0.0, 1, 1, 1) == "stable"


def test_without_any_change_the_index_follows_its_distribution():
    n, m, shares = 1_000, 4_000, np.full(10, 0.1)
    expected = RNG.multinomial(m, shares, 5_000) / m
    found = np.array([psi(e, c, m) for e, c in zip(expected, RNG.multinomial(n, shares, 5_000), strict=True)])
    assert found.mean() == pytest.approx(9 * (1 / n + 1 / m), rel=0.03)
    assert np.quantile(found, 0.99) == pytest.approx(stats.chi2.ppf(0.99, 9) * (1 / n + 1 / m), rel=0.08)


def test_bins_of_distinct_values_are_deciles():
    column = RNG.gamma(2.0, 3.0, 5_000)
    edges, shares = of_column(column)
    np.testing.assert_allclose(edges, np.quantile(column, np.arange(0.1, 0.95, 0.1)), rtol=1e-3)
    np.testing.assert_allclose(shares, 0.1, atol=1e-9)


def test_a_point_mass_has_its_own_bin_and_the_rest_shares_the_others():
    column = np.r_[np.zeros(9_500), np.linspace(2.0, 3.0, 500)]
    edges, shares = of_column(column)
    assert edges[0] == pytest.approx(0.002)  # close to 0, so that an unseen value of 1 is in another bin
    assert shares == pytest.approx([0.95, 0.01, 0.01, 0.01, 0.01, 0.01])
    np.testing.assert_allclose(edges[1:], [2.2, 2.4, 2.6, 2.8], atol=2e-3)


@pytest.mark.parametrize(
    ("column", "edges", "shares"),
    [
        ([0.0] * 7 + [1.0] * 3, [0.5], [0.7, 0.3]),
        ([0.0] * 999 + [1.0], [0.001], [0.999, 0.001]),
        ([-3.0] * 50 + [6.0] * 20 + [17.0] * 30, [1.5, 11.5], [0.5, 0.2, 0.3]),
        ([7.5] * 40, [], [1.0]),
        ([0.1, 0.1 + 2e-17, 0.3 - 0.2] * 9, [], [1.0]),  # one value, written and computed
        ([4.0], [], [1.0]),
        ([5e-324, 0.0, 0.0, 0.0], [5e-324], [0.75, 0.25]),
    ],
)
def test_bins_are_those_that_few_values_allow(column, edges, shares):
    found = of_column(column)
    assert found[0] == pytest.approx(edges, abs=0)
    assert found[1] == pytest.approx(shares)


def test_point_masses_are_distinguished_down_to_a_hundredth():
    column = np.repeat([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], [5_000, 2_500, 1_250, 625, 313, 170, 71, 71])
    _, shares = of_column(column)
    np.testing.assert_allclose(shares, [0.5, 0.25, 0.125, 0.0625, 0.0313, 0.017, 0.0142])


def test_extremes_that_a_sample_lacks_have_an_empty_bin_beside_a_point_mass():
    edges, shares = histogram_of(np.zeros(100), -2.0, 1.0)
    assert edges == pytest.approx([-0.002, 0.001])
    assert shares == (0.0, 1.0, 0.0)


def test_without_a_sample_there_is_no_histogram():
    assert histogram_of(np.array([]), 0.0, 1.0) == ((), ())
    none = Histogram("Rate", (), (), 0.0, 1.0, 50)
    [row] = rows_of(count_bins([none], {"Rate": np.array([0.5, 2.0, np.inf])}), [none], FACTS)
    assert (row["drift_index"], row["drift_level"], row["counts"]) == (None, "too_few_rows", [3])
    assert (row["above_range"], row["saturated"]) == (2, 1)


@given(st.lists(numbers, min_size=1, max_size=80))
def test_bins_hold_what_pandas_counts_and_no_mass_shares_its_bin(column):
    edges, shares = of_column(column)
    assert list(edges) == sorted(set(edges))
    assert len(edges) <= 2 * drift.BINS
    np.testing.assert_allclose(np.array(shares) * len(column), cut(column, edges), atol=1e-9)
    assert all(shares) or not shares
    for value in set(column):
        near = np.isclose(column, value, rtol=1e-9, atol=0)
        if near.sum() >= len(column) / drift.BINS:
            place = np.searchsorted(edges, value, side="right")
            assert round(shares[place] * len(column)) == near.sum()


@given(st.lists(numbers | st.sampled_from([np.inf, -np.inf]), max_size=60), st.lists(st.integers(0, 60), max_size=4))
def test_chunks_of_a_night_count_as_the_whole_does(column, cuts):
    known = [histogram(RNG.normal(0, 1, 300)), histogram(RNG.integers(0, 3, 300), "IAT")]
    night = np.array(column, dtype=np.float64)
    whole = count_bins(known, {"Rate": night, "IAT": night})
    total = count_bins(known, {"Rate": night[:0], "IAT": night[:0]})
    for chunk in np.split(night, sorted(c for c in cuts if c <= len(night))):
        total.add(count_bins(known, {"Rate": chunk, "IAT": chunk}))
    for found in (whole, total):
        assert found.rows == len(night)
        for i, h in enumerate(known):
            np.testing.assert_array_equal(found.bins[i], cut(night, h.edges))
            assert found.below[i] == (night < h.low).sum()
            assert found.above[i] == (night > h.high).sum()
            assert found.infinite[i] == np.isinf(night).sum()


def test_a_chunk_longer_than_a_block_is_counted_whole():
    column = RNG.normal(0, 2, 150_001)
    known = histogram(column[:1_000])
    np.testing.assert_array_equal(count_bins([known], {"Rate": column}).bins[0], cut(column, known.edges))


def test_counts_of_other_histograms_cannot_be_added():
    known = histogram([0.0, 1.0])
    with pytest.raises(ValueError, match="zip"):
        count_bins([known], {"Rate": np.zeros(2)}).add(count_bins([known, known], {"Rate": np.zeros(2)}))


def test_a_missing_column_is_named():
    with pytest.raises(KeyError, match="IAT"):
        count_bins([histogram([0.0, 1.0], "IAT")], {"Rate": np.zeros(2)})


# No flow has values below 1e-200, and where doubles lose digits, an edge between two of them is lost too.
NUMBERS = st.floats(-1e15, 1e15).map(lambda value: value if abs(value) > 1e-200 else 0.0)


@pytest.mark.parametrize("transform", ["none", "signed_log"])
@given(column=st.lists(NUMBERS | st.sampled_from([0.0, 1.0, 255.0, 1e-9]), min_size=2, max_size=50))
def test_train_counted_in_raw_units_fills_its_own_histogram_and_leaves_no_range(transform, column):
    values = np.array(column)
    if np.ptp(values) < 1e-3:
        return
    frame = dict.fromkeys(RELEASE_39.features, values)
    [known] = fitted(RELEASE_39, {k: pd.Series(v) for k, v in frame.items()}, transform).histograms(["Rate"])
    found = count_bins([known], {"Rate": values})
    np.testing.assert_allclose(np.array(known.shares) * len(values), found.bins[0], atol=1e-9)
    assert (found.below[0], found.above[0], found.infinite[0]) == (0, 0, 0)
    wider = np.array([known.high + 1e-6 * max(1, abs(known.high)), known.low - 1e-6 * max(1, abs(known.low)), np.inf])
    found = count_bins([known], {"Rate": wider})
    assert (found.below[0], found.above[0], found.infinite[0]) == (1, 2, 1)


def test_drift_rows_are_those_of_the_table():
    known = [histogram(np.arange(1_000.0)), histogram([0.0] * 700 + [1.0] * 300, "IAT")]
    night = {"Rate": np.r_[np.arange(500.0), np.full(497, -1.0), np.inf, -np.inf, 1e101], "IAT": np.ones(1_000)}
    rows = [*rows_of(count_bins(known, night), known, FACTS), class_mix_row([90, 10, 0], [50, 40, 10], FACTS)]
    table = pa.Table.from_pylist(rows, schema=DRIFT)
    assert all(set(row) == set(DRIFT.names) for row in rows)
    assert table["kind"].to_pylist() == ["feature", "feature", "class_mix"]
    assert table["name"].to_pylist() == ["Rate", "IAT", "predicted_class3"]
    assert table["rows"].to_pylist() == [1_000, 1_000, 100]
    assert table["below_range"].to_pylist() == [498, 0, 0]
    assert table["above_range"].to_pylist() == [2, 0, 0]
    assert table["saturated"].to_pylist() == [3, 0, 0]
    assert table["counts"].to_pylist() == [[598, 100, 100, 100, 100, 0, 0, 0, 0, 2], [0, 1_000], [50, 40, 10]]
    assert table["edges"].to_pylist() == [[99.5 + 100 * i for i in range(9)], [0.5], []]
    assert table["expected"].to_pylist()[1:] == [[0.7, 0.3], [0.9, 0.1, 0.0]]
    assert table["drift_level"].to_pylist() == ["significant", "significant", "too_few_rows"]
    assert table["drift_index"].to_pylist()[2] == pytest.approx(psi([0.9, 0.1, 0.0], [50, 40, 10], 100))
    assert set(table["run_id"].to_pylist()) == {"r1"}


def test_a_class_mix_without_validation_rows_has_no_index():
    row = class_mix_row([0, 0], [5, 6], FACTS)
    assert (row["drift_index"], row["drift_level"], row["expected"], row["counts"]) == (
        None,
        "too_few_rows",
        [],
        [5, 6],
    )


def real(folder, schema, split):
    files = sorted((folder / schema.name / split).glob("*.csv"))
    frames = [pd.read_csv(f, float_precision="round_trip", dtype=float).assign(file=f.name) for f in files]
    return pd.concat(frames, ignore_index=True)


@pytest.mark.parametrize("transform", ["none", "signed_log"])
@pytest.mark.parametrize("schema", [ORIGINAL_45, RELEASE_39], ids=lambda s: s.name)
def test_real_train_flows_fill_their_own_histograms_and_a_part_of_them_is_stable(schema, transform, real_flows):
    train = real(real_flows, schema, "train")
    preprocessor = fitted(schema, train, transform)
    for name, row in drifts(preprocessor, train).items():
        assert row["drift_index"] == pytest.approx(0.0, abs=1e-12), name
        np.testing.assert_array_equal(row["counts"], cut(train[name].to_numpy(), row["edges"]))
        assert row["below_range"] == 0
        assert row["above_range"] == row["saturated"] == np.isinf(train[name]).sum()
    some = drifts(preprocessor, train.sample(3_000, random_state=1))
    assert {row["drift_level"] for row in some.values()} == {"stable"}
    few = drifts(preprocessor, train.sample(40, random_state=1))
    assert {row["drift_level"] for row in few.values()} == {"too_few_rows"}


def test_real_test_flows_are_stable_and_floods_or_shifted_flows_are_not(real_flows):
    preprocessor = fitted(RELEASE_39, real(real_flows, RELEASE_39, "train"))
    night = real(real_flows, RELEASE_39, "test")
    assert {row["drift_level"] for row in drifts(preprocessor, night).values()} == {"stable"}

    flood = drifts(preprocessor, night[night["file"].str.contains("DDoS-UDP")])
    assert {flood[name]["drift_level"] for name in ("Protocol Type", "UDP", "TCP", "Header_Length")} == {"significant"}

    shifted = night.assign(Time_To_Live=night["Time_To_Live"] / 2, Rate=night["Rate"] * 1e6)
    found = drifts(preprocessor, shifted)
    assert {name for name, row in found.items() if row["drift_level"] != "stable"} == {"Rate", "Time_To_Live"}
    high = preprocessor.histograms(["Rate"])[0].high
    assert found["Rate"]["above_range"] == (shifted["Rate"] > high).sum() > 1_000
    assert found["Rate"]["saturated"] == np.isinf(night["Rate"]).sum()
