"""The benchmark of nights: its comparison with the truth and its nights, from synthetic scores; never its figures."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ids_spark.alerts.false_alarms import StoredCounts
from ids_spark.dataset.taxonomy import CLASS6, UNKNOWN
from ids_spark.score.night_incidents import Levels
from tests.bench import night_flows, night_looks, night_measures, night_method, night_report
from tests.bench.night_flows import DEVICES, Flows, Pool
from tests.bench.night_measures import Pooled, compare
from tests.bench.night_worlds import KINDS, Hospital, Kind, no_attacks

LEVELS = Levels(StoredCounts((), np.empty((0, 3)), np.empty(0)), (2.0, 2.5, 3.0), (8.0, 9.0, 10.0))


def flows(episodes: list[int]) -> Flows:
    n = len(episodes)
    zeros = np.zeros(n)
    return Flows(np.arange(n) * 1.0, *(np.zeros(n, np.int64) for _ in range(3)), zeros, zeros, np.array(episodes))


def pool(rows: int = 40_000) -> Pool:
    rng = np.random.default_rng(5)
    devices = rng.integers(0, len(DEVICES), rows)
    no_model: Any = None  # of benign nights nothing is scored
    scores = rng.integers(1, 19, rows).astype(np.int32), rng.normal(-1, 1.5, rows), rng.gamma(16, 0.3, rows)
    return Pool(no_model, Flows(rng.uniform(0, 86_400, rows), devices, devices + 10, *scores, np.zeros(rows, np.int64)))


def test_lines_are_compared_with_the_truth_by_hand() -> None:
    night = flows([1] * 10 + [2] * 3 + [3] * 4 + [0] * 20)
    lines = [
        np.arange(0, 4),  # four of attack 1
        np.array([10, 11, 20, 21]),  # two of three of attack 2, and as many benign flows
        np.array([4, 5, 20, 21, 22]),  # more benign flows than of attack 1
        np.arange(5, 8),  # a second line of attack 1
        np.array([13, 24]),  # one of four of attack 3: true, but not enough to have found it
    ]
    found = compare(night, lines)
    assert (found.lines, found.false, found.attacks) == (5, 1, 3)
    assert found.ranks == {1: 1, 2: 2}
    assert found.lines_of == {1: 2, 2: 1, 3: 1}
    ignored = compare(night, lines, ignored={1})
    assert (ignored.lines, ignored.false, ignored.attacks, ignored.ranks) == (3, 1, 2, {2: 2})


def test_figures_of_several_nights_are_pooled() -> None:
    night = flows([1] * 4 + [0] * 6)
    one = compare(night, [np.arange(4)], 0.5)
    other = compare(night, [np.array([6, 7])], 0.5)
    pooled = Pooled([one, other])
    assert (pooled.precision, pooled.found, pooled.false_per_night) == (0.5, 0.5, 0.5)
    ratio, low, high = pooled.observed_over_promised()
    assert ratio == 1.0
    assert (low, high) == (pytest.approx(0.0253, abs=1e-4), pytest.approx(5.572, abs=1e-3))  # Garwood's table
    assert math.isnan(Pooled().precision)


def test_a_line_is_lost_if_no_other_holds_half_of_it() -> None:
    plain = [np.array([1, 2, 3, 4]), np.array([7, 8])]
    assert night_measures.lost([np.array([3, 4, 5]), np.array([9])], plain) == 1


def test_noisy_devices_have_half_of_the_false_alarms_every_night() -> None:
    hospital = Hospital(pool(), Kind("noisy", no_attacks, flows=20_000, noisy="all day"), 3, LEVELS)
    plain = Hospital(pool(), Kind("plain", no_attacks, flows=20_000), 3, LEVELS)
    for number in (1, 2):
        night, same = hospital.night(number), plain.night(number)
        alarms = (night.logits >= 2.0) | (night.distances >= 8.0)
        own = np.isin(night.devices, hospital.noisy_devices)
        assert 0.5 <= own[alarms].mean() <= 0.6
        assert np.array_equal(np.sort(night.logits), np.sort(same.logits))  # exchanged, none added
        assert np.array_equal(night.devices, same.devices)


def test_distances_count_only_below_the_operating_point() -> None:
    logits, distances = np.array([1.9, 1.9, 1.9, 2.0, 9.0]), np.array([7.9, 8.0, 99.0, 99.0, 0.0])
    night = flows([0] * 5).with_columns(logits=logits, distances=distances)
    assert night_method.levels_reached(night, LEVELS).tolist() == [0, 1, 3, 1, 3]
    without = Levels(LEVELS.stored, LEVELS.logits)
    assert night_method.levels_reached(night, without).tolist() == [0, 0, 0, 1, 3]


def test_nights_of_a_seed_are_equal_and_differ_by_number() -> None:
    hospital = Hospital(pool(), Kind("plain", no_attacks, flows=5_000, shift=1.5), 3, LEVELS)
    first, again, other = hospital.night(1), hospital.night(1), hospital.night(2)
    assert np.array_equal(first.logits, again.logits)
    assert not np.array_equal(first.logits, other.logits)
    assert abs(first.logits.mean() - 0.5) < 0.1


def test_a_bar_is_missed_beyond_its_limit_or_without_a_figure() -> None:
    results = [night_report.Bar("", value, at_least=0.9).result for value in (0.9, 0.89, math.nan)]
    assert results == ["ok", "missed", "missed"]


def test_every_kind_draws_valid_attacks() -> None:
    for kind in KINDS.values():
        for seed in range(20):
            episodes = kind.attacks(np.random.default_rng(seed))
            assert all(3 <= episode.flows <= 1_300 and episode.ends <= 86_400 for episode in episodes)


def test_the_pages_of_a_date_are_compared_with_its_truth() -> None:
    categories = (*CLASS6[1:], UNKNOWN)
    known = StoredCounts(categories, np.array([[80, 16, 6]] * 6), np.full(6, 40_000))
    levels = Levels(known, (4.6, 6.2, 7.1), (12.0, 13.0, 14.0))
    benign = pool().benign.take(np.arange(20_000))
    scan = np.full(40, 9.0)
    attack = flows([1] * 40).with_columns(
        seconds=5.5 * 3600 + np.arange(40.0), sources=np.full(40, 7), class_ids=np.full(40, 16), logits=scan
    )
    no_model: Any = SimpleNamespace(card=SimpleNamespace(classes=19))
    night = night_flows.joined([benign, attack])
    day = night_looks.scored(Pool(no_model, benign), levels, night, 4)
    assert (day.attacks, list(day.hours), day.false, day.changed) == (1, [1], set(), set())
    assert day.hours[1] == pytest.approx(0.5)  # listed at six
    once = night_looks.scored(Pool(no_model, benign), levels, night, 1)
    assert once.hours[1] == pytest.approx(18.5)
    assert 0 < day.expected <= 0.9
    assert night_looks.row_of("", 4, [day])[5] == "1 of 1"
