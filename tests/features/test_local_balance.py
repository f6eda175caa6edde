"""Weights of groups of local rows: as the square root of their rows, and bounded for a single row."""

import numpy as np
import pytest

from ids_spark.features.local_balance import Balance


def test_a_row_has_the_train_rows_of_its_group() -> None:
    found = Balance.of_groups(np.array([7, -3, 7, 7, 9, -3, 7]))
    assert found.rows_of(np.array([9, 7, -3, 5])).tolist() == [1, 4, 2, 1]
    assert found.total == pytest.approx(2 + 2**0.5 + 1)


def test_a_single_row_beside_a_large_group_weighs_about_ten_times_the_mean_row() -> None:
    found = Balance.of_groups(np.concatenate([np.zeros(1_000_000, dtype=np.int64), np.arange(1, 101)]))
    rows = found.rows_of(np.array([0, 1, -1]))
    assert rows[0] == 1_000_000
    assert rows[1] == rows[2] > 1
    mean = found.total / 1_000_100
    assert 8 < rows[1] ** -0.5 / mean < 12


def test_without_train_rows_each_row_counts_as_one() -> None:
    found = Balance.of_groups(np.empty(0, dtype=np.int64))
    assert found.rows_of(np.array([4, 5])).tolist() == [1, 1]
    assert found.total == 0
