import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ids_spark.features.moments import Moments, moments_of

RNG = np.random.default_rng(5)
ADVERSARIAL = {
    "capture epoch with a spread of one": 1.7e8 + RNG.normal(0, 1, 5_000),
    "capture epoch with a tiny spread": 1.7e8 + RNG.normal(0, 1e-3, 5_000),
    "spread of a few units in the last place": 1e15 + RNG.integers(0, 4, 5_000) * 0.125,
    "one outlier": np.r_[RNG.normal(0, 1, 4_999), 1e12],
    "two distant values": np.r_[np.full(4_999, 84_670_752.0), 1.69465e8],
    "nearly constant": np.r_[np.zeros(4_999), 1e-3],
    "negative and positive": RNG.normal(0, 1e6, 5_000),
    "subnormal": np.full(10, 5e-324),
}
finite = st.floats(-1e15, 1e15)
TINY = 1e-150  # squares of smaller numbers are below the range of double


def exact(values):
    """Return mean and population standard deviation from rational arithmetic."""
    numbers = [Fraction(float(v)) for v in values]
    mean = sum(numbers) / len(numbers)
    variance = sum((n - mean) ** 2 for n in numbers) / len(numbers)
    return float(mean), math.sqrt(variance)


def saturated(values):
    known = values[np.isfinite(values)]
    return np.clip(values, known.min(), known.max())


def merged(values, cuts):
    total = Moments()
    for chunk in np.split(values, sorted(cuts)):
        total = total.merged(moments_of(chunk))
    return total


@pytest.mark.parametrize("values", ADVERSARIAL.values(), ids=ADVERSARIAL)
@pytest.mark.parametrize("chunks", [1, 7, 500])
def test_mean_and_deviation_are_those_of_rational_arithmetic(values, chunks):
    found = merged(values, np.linspace(0, len(values), chunks + 1).astype(int)[1:-1])
    mean, std = exact(values)
    scale = np.abs(values).max()
    assert found.count == len(values)
    assert found.mean == pytest.approx(mean, rel=1e-14, abs=1e-15 * scale)
    assert found.std == pytest.approx(std, rel=1e-9)
    assert (found.low, found.high) == (values.min(), values.max())


@pytest.mark.parametrize("value", [0.0, 0.1, -3.3, 1.7e8 + 0.1, 1e15 + 0.125])
@pytest.mark.parametrize("chunks", [1, 13])
def test_a_constant_column_has_no_deviation(value, chunks):
    found = merged(np.full(1_001, value), np.linspace(0, 1_001, chunks + 1).astype(int)[1:-1])
    assert found.mean == value
    assert found.std <= 1e-12


def test_deviation_is_the_population_one():
    assert moments_of(np.array([1.0, 2.0, 3.0, 6.0])) == Moments(4, 3.0, 14.0, 1.0, 6.0)
    assert moments_of(np.array([1.0, 2.0, 3.0, 6.0])).std == math.sqrt(14 / 4)


def test_infinities_are_counted_apart_and_take_the_nearest_extreme():
    found = moments_of(np.array([np.inf, 2.0, -np.inf, np.inf, 4.0]))
    assert found == Moments(2, 3.0, 2.0, 2.0, 4.0, above=2, below=1)
    full = found.saturated()  # of 4, 2, 2, 4, 4
    assert (full.count, full.above, full.below, full.low, full.high) == (5, 0, 0, 2.0, 4.0)
    assert full.mean == pytest.approx(3.2, rel=1e-15)
    assert full.std == pytest.approx(math.sqrt(0.96), rel=1e-15)


def test_one_finite_value_among_infinities_is_what_all_become():
    full = moments_of(np.r_[np.full(50, np.inf), 7.5, np.full(49, -np.inf)]).saturated()
    assert (full.count, full.mean, full.std, full.low, full.high) == (100, 7.5, 0.0, 7.5, 7.5)


def test_infinities_alone_have_no_moments():
    found = moments_of(np.array([np.inf, -np.inf, -np.inf]))
    assert (found.count, found.above, found.below) == (0, 1, 2)
    assert math.isnan(found.std)
    assert found.saturated() == found


def test_no_rows_have_no_moments():
    assert moments_of(np.array([])) == Moments()
    assert math.isnan(Moments().std)


@pytest.mark.parametrize("others", [[], [1.0, 2.0], [np.inf], [np.inf, -np.inf]])
def test_a_missing_value_is_refused(others):
    with pytest.raises(ValueError, match="found NaN in a feature column"):
        moments_of(np.array([*others, np.nan]))


@given(st.lists(finite | st.sampled_from([np.inf, -np.inf]), min_size=1, max_size=60), st.lists(st.integers(0, 60)))
@example([np.inf, 1.0], [1])
@example([-np.inf, 1e15, -1e15, np.inf], [1, 2, 3])
def test_any_chunks_give_the_moments_of_the_whole_saturated_column(column, cuts):
    values = np.array(column)
    if not np.isfinite(values).any():
        return
    found = merged(values, [c for c in cuts if c <= len(values)]).saturated()
    full = saturated(values)
    mean, std = exact(full)
    scale = np.abs(full).max()
    assert found.count == len(values)
    assert found.mean == pytest.approx(mean, rel=1e-12, abs=1e-14 * scale + TINY)
    # A deviation below the rounding of the values cannot be distinguished from 0.
    assert found.std == pytest.approx(std, rel=1e-9, abs=1e-15 * scale + TINY)
    assert found.std == pytest.approx(float(np.std(full)), rel=1e-9, abs=1e-14 * scale + TINY)


@given(st.lists(finite, min_size=1, max_size=30), st.lists(finite, max_size=30))
def test_merging_is_symmetric(first, second):
    a, b = moments_of(np.array(first)), moments_of(np.array(second, dtype=np.float64))
    there, back = a.merged(b), b.merged(a)
    scale = max(map(abs, [*first, *second]))
    assert there.mean == pytest.approx(back.mean, rel=1e-12, abs=1e-14 * scale + TINY)
    assert there.std == pytest.approx(back.std, rel=1e-9, abs=1e-14 * scale + TINY)
    assert (there.count, there.low, there.high) == (back.count, back.low, back.high)
