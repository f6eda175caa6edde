"""AUC of one feature against scikit-learn and planted values."""

import numpy as np
import pytest

from ids_spark.evaluate.univariate_auc import order_auc, range_auc
from tests.support.auc import sklearn_auc


@pytest.mark.parametrize("seed", range(20))
def test_auc_by_order_is_that_of_sklearn_with_ties_and_infinities(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (
        np.sort(rng.choice([-np.inf, -2.5, -0.0, 0.0, 1e-300, 1.0, 7.0, np.inf], n)) for n in rng.integers(1, 60, 2)
    )
    assert order_auc(a, b) == pytest.approx(sklearn_auc(a, b), abs=1e-12)
    assert order_auc(a, b) == order_auc(b, a)


def test_auc_by_ranges_separates_a_class_between_the_halves_of_the_other_and_auc_by_order_does_not() -> None:
    rng = np.random.default_rng(3)
    outside = np.sort(np.r_[rng.normal(0, 1, 2_000), rng.normal(1.69e8, 10, 2_000)])
    between = np.sort(rng.normal(8.46e7, 10, 4_000))
    assert order_auc(outside, between) == pytest.approx(0.5, abs=1e-3)
    assert range_auc(outside, between) == pytest.approx(1.0, abs=0.005)
    half = np.sort(np.r_[rng.normal(0, 1, 2_000), between[:2_000]])  # half of it cannot be distinguished
    assert range_auc(outside, half) == pytest.approx(0.875, abs=0.02)  # 3/4 of pairs decided, the rest tied


@pytest.mark.parametrize("rows", [1, 2, 30, 5_000])
def test_auc_by_ranges_of_nothing_is_a_half(rows: int) -> None:
    rng = np.random.default_rng(rows)
    assert range_auc(np.zeros(rows), np.zeros(rows)) == 0.5
    assert range_auc(np.full(rows, np.inf), np.full(rows, np.inf)) == 0.5
    if rows == 5_000:
        noise = [np.sort(rng.normal(size=rows)) for _ in range(2)]
        assert range_auc(*noise) == pytest.approx(0.5, abs=0.02)
