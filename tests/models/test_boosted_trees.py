"""Boosted trees: probabilities of XGBoost, and contributions that are Shapley values of margins."""

import itertools

import numpy as np
import pytest
import xgboost

from ids_spark.models import booster_file
from ids_spark.models.boosted_trees import BoostedTrees
from tests.support.trees import BOOSTING, trained

FEATURES = 5
ROWS = np.random.default_rng(1).normal(size=(40, FEATURES)).astype(np.float32)


def built(outputs: int, binary: bool, classes: int, present: list[int]) -> tuple[BoostedTrees, xgboost.Booster]:
    booster = trained(FEATURES, outputs, binary)
    text = booster_file.checked(bytes(booster.save_raw("json")), FEATURES, outputs, BOOSTING)
    return BoostedTrees(text, classes, present), booster


def test_probabilities_are_those_of_xgboost_in_the_order_of_the_taxonomy():
    trees, booster = built(4, False, 6, [0, 1, 3, 5])
    found = trees.probabilities(ROWS)
    np.testing.assert_allclose(found[:, [0, 1, 3, 5]], booster.predict(xgboost.DMatrix(ROWS)), atol=1e-7)
    assert (found[:, [2, 4]] == 0).all()
    assert found.dtype == np.float32
    assert trees.probabilities(ROWS[:0]).shape == (0, 6)


def test_the_probability_of_benign_does_not_round_to_zero():
    trees, booster = built(2, True, 2, [0, 1])
    margins = booster.predict(xgboost.DMatrix(ROWS), output_margin=True).astype(np.float64)
    expected = np.stack([1 / (1 + np.exp(margins)), 1 / (1 + np.exp(-margins))], axis=1)
    np.testing.assert_allclose(trees.probabilities(ROWS), expected, rtol=1e-5)
    np.testing.assert_allclose(trees.attack_logits(ROWS), margins)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_has_no_probability(value):
    trees, _ = built(4, False, 6, [0, 1, 3, 5])
    rows = ROWS.copy()
    rows[3, 4] = value  # no tree uses it
    found = trees.probabilities(rows)
    assert np.isnan(found[3]).all()
    np.testing.assert_array_equal(np.delete(found, 3, axis=0), np.delete(trees.probabilities(ROWS), 3, axis=0))


def shapley(booster: xgboost.Booster, row: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """Return Shapley values of every margin by their definition: the mean over all orders of the features."""
    orders = list(itertools.permutations(range(FEATURES)))
    points = np.tile(baseline, (len(orders), FEATURES + 1, 1))
    for i, order in enumerate(orders):
        for position, feature in enumerate(order):
            points[i, position + 1 :, feature] = row[feature]
    margins = booster.predict(xgboost.DMatrix(points.reshape(-1, FEATURES)), output_margin=True)
    steps = np.diff(margins.reshape(len(orders), FEATURES + 1, -1).astype(np.float64), axis=1)
    found = np.zeros((FEATURES, steps.shape[2]))
    for i, order in enumerate(orders):
        found[list(order)] += steps[i] / len(orders)
    return found


def test_contributions_of_one_margin_are_shapley_values():
    trees, booster = built(2, True, 2, [0, 1])
    baseline = np.median(ROWS, axis=0)
    found = trees.contributions(ROWS[:5], baseline)
    for i in range(5):
        np.testing.assert_allclose(found[i], shapley(booster, ROWS[i], baseline)[:, 0], atol=1e-5)


def test_contributions_weight_the_shapley_values_of_margins_and_add_up():
    trees, booster = built(4, False, 6, [0, 1, 3, 5])
    baseline = np.median(ROWS, axis=0)
    found = trees.contributions(ROWS, baseline)
    logits, at_baseline = trees.attack_logits(ROWS), trees.attack_logits(baseline[np.newaxis])
    np.testing.assert_allclose(found.sum(axis=1), logits - at_baseline, atol=2e-4)
    used = sorted({int(name[1:]) for name in booster.get_score()})
    assert len(used) < FEATURES or (found[:, used] != 0).any()
    np.testing.assert_array_equal(np.delete(found, used, axis=1), 0)
    ends = booster.predict(xgboost.DMatrix(np.stack([baseline, ROWS[7]])), output_margin=True).astype(np.float64)
    line = ends[0] + np.linspace(0, 1, 2001)[:, np.newaxis] * (ends[1] - ends[0])
    shares = np.exp(line[:, 1:]) / np.exp(line[:, 1:]).sum(axis=1, keepdims=True)
    weights = np.concatenate([[-1.0], shares.mean(axis=0)])
    np.testing.assert_allclose(found[7], shapley(booster, ROWS[7], baseline) @ weights, atol=1e-3)
    np.testing.assert_array_equal(trees.contributions(baseline[np.newaxis], baseline), 0)


@pytest.mark.parametrize(("outputs", "present"), [(4, [1, 2, 3, 5]), (2, [1, 2])])
def test_without_a_benign_train_row_nothing_contributed(outputs, present):
    trees, _ = built(outputs, outputs == 2, 6, present)
    assert (trees.attack_logits(ROWS) == np.inf).all()
    assert (trees.contributions(ROWS, ROWS[0]) == 0).all()


@pytest.mark.parametrize("binary", [False, True])
def test_without_a_row_there_is_neither_a_logit_nor_a_contribution(binary):
    trees, _ = built(2, binary, 2, [0, 1])
    assert trees.attack_logits(ROWS[:0]).shape == (0,)
    assert trees.contributions(ROWS[:0], ROWS[0]).shape == (0, FEATURES)
