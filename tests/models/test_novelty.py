import dataclasses
import io
import math

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf

from ids_spark.models import novelty
from ids_spark.models.novelty import Novelty

F32 = np.float32


def flows(rows, seed, features=6):
    """Return correlated rows of different scales, as scaled benign features."""
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(rows, features)) @ np.random.default_rng(9).normal(size=(features, features))
    return (mixed * np.geomspace(0.01, 3, features) + np.arange(features)).astype(F32)


def fitted(rows=2_000, seed=1, features=6):
    found = novelty.fit(flows(rows, seed, features))
    assert found is not None
    return found


def calibrated(found, rows, seed, below=None):
    matrix = flows(rows, seed, len(found.centre))
    return found.calibrated(found.distances(matrix), np.ones(rows, dtype=bool) if below is None else below)


def packed(**arrays):
    sink = io.BytesIO()
    np.savez(sink, **arrays)
    return sink.getvalue()


@pytest.mark.parametrize("rows", [8, 40, 3_000])
def test_the_covariance_is_that_of_scikit_learn(rows):
    matrix = flows(rows, 4).astype(float)
    np.testing.assert_allclose(novelty.ledoit_wolf(matrix), LedoitWolf().fit(matrix).covariance_, rtol=1e-9, atol=1e-12)


def test_constant_rows_have_a_covariance_of_0():
    np.testing.assert_array_equal(novelty.ledoit_wolf(np.full((9, 3), 2.5)), np.zeros((3, 3)))


def test_a_distance_by_hand():
    found = Novelty(
        centre=np.array([1, -1], F32),
        scale=np.array([2, 0.5], F32),
        whitening=np.array([[1, 0.5], [0, 2]], F32),
        rows=0,
        tail=np.empty(0, F32),
    )
    # (3, 0) is (1, 2) in units of the scale, whitened (1, 4.5); (1e9, -1) is cut at (30, 0), whitened (30, 15).
    matrix = np.array([[3, 0], [1, -1], [1e9, -1]], F32)
    np.testing.assert_allclose(found.distances(matrix), [math.hypot(1, 4.5), 0, math.hypot(30, 15)], rtol=1e-6)


def test_the_distance_is_mahalanobis_of_the_scaled_rows():
    benign, found = flows(5_000, 1), fitted(5_000)
    double = benign.astype(float)
    scale = double.std(axis=0) + 1e-3
    scaled = (double - double.mean(axis=0)) / scale
    covariance = LedoitWolf(assume_centered=True).fit(scaled).covariance_ + 1e-3 * np.eye(6)
    rows = flows(40, 2)
    expected = [
        mahalanobis((row - double.mean(axis=0)) / scale, np.zeros(6), np.linalg.inv(covariance)) for row in rows
    ]
    np.testing.assert_allclose(found.distances(rows), expected, rtol=1e-4)


@pytest.mark.parametrize("rows", [0, 1, 1_023, 1_025, 5_000])
def test_distances_do_not_depend_on_the_block(rows):
    found, matrix = fitted(), flows(rows, 3)
    distances = found.distances(matrix)
    assert distances.shape == (rows,)
    assert distances.dtype == F32
    for i in range(0, rows, 501):
        np.testing.assert_allclose(found.distances(matrix[i : i + 1])[0], distances[i], rtol=1e-5)


def test_distances_are_finite_for_every_finite_input():
    benign = flows(2_000, 1)
    benign[:, 2] = 0.25  # without a variance in benign rows
    found = novelty.fit(benign)
    largest = np.finfo(F32).max
    extremes = np.array([largest, -largest, 1e30, -1e-38, 0.0], F32)
    matrix = np.random.default_rng(5).choice(extremes, size=(4_000, 6))
    assert np.isfinite(found.distances(matrix)).all()
    shifted = np.repeat(benign[:1], 2, axis=0)
    shifted[1, 2] = 0.5
    near, far = found.distances(shifted)
    assert far > near + 5


def test_the_input_is_not_changed():
    matrix = flows(3_000, 3)
    before = matrix.copy()
    fitted().distances(matrix)
    np.testing.assert_array_equal(matrix, before)


@pytest.mark.parametrize("rows", [0, 1, 11])
def test_without_enough_benign_rows_there_is_no_detector(rows):
    assert novelty.least_rows(6) == 12
    assert novelty.fit(flows(rows, 1)) is None
    assert novelty.fit(flows(12, 1)) is not None


def test_rows_of_one_value_give_a_detector_of_finite_numbers():
    found = novelty.fit(np.full((100, 6), 0.5, F32))
    assert found.distances(np.full((1, 6), 0.5, F32))[0] == 0
    assert found.distances(np.full((1, 6), 0.6, F32))[0] > 100


def test_levels_hold_their_benign_rate_on_other_rows():
    found = calibrated(fitted(), 200_000, 2)
    rates = (1e-2, 2e-3, 8e-4)
    levels = found.levels(rates)
    np.testing.assert_array_equal(found.counts(levels), [2_000, 400, 160])
    other = found.distances(flows(400_000, 3))
    for level, rate in zip(levels, rates, strict=True):
        # Five standard errors of both samples.
        assert (other >= level).mean() == pytest.approx(rate, abs=5 * math.sqrt(rate / 200_000 + rate / 400_000))


def test_rates_are_shares_of_all_benign_rows_also_of_those_that_the_network_flags():
    random = np.random.default_rng(6)
    below = random.random(50_000) >= 0.3
    found = calibrated(fitted(), 50_000, 2, below)
    [level] = found.levels((0.01,))
    other, other_below = found.distances(flows(200_000, 3)), random.random(200_000) >= 0.3
    assert ((other >= level) & other_below).mean() == pytest.approx(0.01, abs=0.002)


def test_a_planted_cluster_is_found_where_no_single_feature_is_unusual():
    benign = flows(20_000, 1)
    found = calibrated(fitted(), 20_000, 2)
    # Every feature from another benign row: benign values, another correlation.
    random = np.random.default_rng(8)
    planted = np.column_stack([random.permutation(benign[:, i]) for i in range(6)])
    [level] = found.levels((2e-3,))
    assert (found.distances(planted) >= level).mean() > 0.5
    assert (found.distances(benign) >= level).mean() < 0.005


def test_the_tail_is_the_larger_of_2000_rows_and_a_hundredth():
    found = fitted()
    few, many = calibrated(found, 1_500, 2), calibrated(found, 300_000, 2)
    assert (few.rows, len(few.tail)) == (1_500, 1_500)
    assert (many.rows, len(many.tail)) == (300_000, 3_000)
    distances = np.sort(found.distances(flows(300_000, 2)))[::-1]
    np.testing.assert_array_equal(many.tail, distances[:3_000])


def test_a_rate_of_less_than_a_row_reaches_nothing():
    found = calibrated(fitted(), 400, 2)
    levels = found.levels((1e-2, 2e-3, 0.0))
    assert levels[0] == found.tail[3]
    assert list(levels[1:]) == [math.inf, math.inf]
    np.testing.assert_array_equal(found.counts(levels), [4, 0, 0])
    assert not (found.distances(np.full((9, 6), 1e30, F32)) >= levels[1]).any()


@pytest.mark.parametrize("rows", [0, 1, 100])
def test_without_benign_validation_rows_below_the_operating_point_it_is_off(rows):
    found = calibrated(fitted(), rows, 2, np.zeros(rows, dtype=bool))
    levels = found.levels((1e-2, 1.0))
    assert list(levels) == [math.inf, math.inf]
    np.testing.assert_array_equal(found.counts(levels), [0, 0])


def test_equal_distances_are_counted_together():
    found = fitted().calibrated(np.array([3, 2, 2, 2, 1], F32), np.ones(5, dtype=bool))
    levels = found.levels((0.2, 0.4, 1.0))
    assert list(levels) == [3, 2, 1]
    np.testing.assert_array_equal(found.counts(levels), [1, 4, 5])


def test_it_is_read_as_written():
    found = calibrated(fitted(), 3_000, 2)
    read = novelty.from_bytes(found.to_bytes())
    for field in dataclasses.fields(Novelty):
        np.testing.assert_array_equal(getattr(read, field.name), getattr(found, field.name))
    matrix = flows(100, 3)
    np.testing.assert_array_equal(read.distances(matrix), found.distances(matrix))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("tail"), "another number or shape"),
        (lambda a: a.update(more=np.zeros(3, F32)), "another number or shape"),
        (lambda a: a.update(rows=np.zeros(3, np.int64)), "another number or shape"),
        (lambda a: a.update(rows=np.array(3.0)), "another type"),
        (lambda a: a.update(centre=a["centre"].astype(float)), "another type"),
        (lambda a: a.update(centre=a["centre"][:3]), "do not fit"),
        (lambda a: a.update(centre=np.empty(0, F32)), "do not fit"),
        (lambda a: a.update(whitening=a["whitening"][:, :2]), "do not fit"),
        (lambda a: a.update(whitening=a["whitening"] * F32(1e9)), "beyond"),
        (lambda a: a.update(whitening=a["whitening"] * F32("nan")), "real, finite numbers"),
        (lambda a: a.update(scale=a["scale"] * 0), "a scale is below"),
        (lambda a: a.update(scale=-a["scale"]), "a scale is below"),
        (lambda a: a.update(centre=np.full(6, 3e38, F32)), "a centre too large"),
        (lambda a: a.update(rows=np.array(-1)), "benign validation rows"),
        (lambda a: a.update(rows=np.array(1_499)), "benign validation rows"),
        (lambda a: a.update(tail=a["tail"][::-1]), "not descending"),
        (lambda a: a.update(tail=-a["tail"][::-1]), "negative"),
        (lambda a: a.update(tail=np.array([{}], dtype=object)), "not an .npz file"),
    ],
)
def test_numbers_that_contradict_each_other_are_refused(change, message):
    found = calibrated(fitted(), 1_500, 2)
    arrays = {field.name: np.asarray(getattr(found, field.name)) for field in dataclasses.fields(Novelty)}
    change(arrays)
    with pytest.raises(ValueError, match=message):
        novelty.from_bytes(packed(**arrays))
