import json
import re

import numpy as np
import pytest
from scipy.stats import beta, genpareto

from ids_spark.base.errors import InputError
from ids_spark.models import tail_fit
from ids_spark.models.threshold import (
    LIMIT,
    ValidationScores,
    ValidationScoresUnusable,
    attack_logits,
    benign_baseline,
    from_json,
    validation_scores_of,
)


def scores_of(benign, attack=()):
    scores = np.concatenate((np.asarray(benign, np.float64), np.asarray(attack, np.float64)))
    is_benign = np.arange(len(scores)) < len(benign)
    return validation_scores_of(scores, is_benign, np.array([len(benign), len(attack)]), np.array([0.5, -0.25]))


def normal(rows, seed, mean=-8.0, spread=2.0):
    return np.random.default_rng(seed).normal(mean, spread, rows)


# --- the score ---------------------------------------------------------------------------------------------------


def test_the_score_is_the_log_odds_of_attack():
    probabilities = np.array([[0.5, 0.25, 0.25], [0.9, 0.1, 0.0], [0.1, 0.0, 0.9]], np.float32)
    found = attack_logits(probabilities)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [0.0, -np.log(9), np.log(9)], atol=1e-6)
    assert attack_logits(np.empty((0, 19), np.float32)).shape == (0,)


def test_the_score_ends_at_the_limit_where_a_probability_is_exactly_zero_and_keeps_nan():
    probabilities = np.array([[1, 0, 0], [0, 0.25, 0.75], [0, 1, 0], [1e-38, 0, 1], [np.nan] * 3], np.float32)
    np.testing.assert_array_equal(attack_logits(probabilities), [-LIMIT, LIMIT, LIMIT, LIMIT, np.nan])


def test_small_probabilities_beside_one_are_not_rounded_away():
    tiny = np.array([[1.0, 1e-12, 3e-12], [2e-20, 1.0, 0.0]], np.float32)  # 1 - p is exactly 0 in float32
    np.testing.assert_allclose(attack_logits(tiny), [np.log(4e-12), -np.log(2e-20)], rtol=1e-6)


def test_the_baseline_is_the_median_of_benign_rows_and_zero_without_one():
    matrix = np.array([[1, 10], [2, -10], [6, 4], [99, 99]], np.float32)
    benign = np.array([True, True, True, False])
    assert benign_baseline(matrix, benign).tolist() == [2.0, 4.0]
    assert benign_baseline(matrix, np.zeros(4, bool)).tolist() == [0.0, 0.0]


def test_scores_that_are_not_numbers_are_refused():
    scores, benign = np.array([0.0, np.nan, 1.0, np.nan]), np.array([True, True, False, False])
    with pytest.raises(ValidationScoresUnusable) as error:
        validation_scores_of(scores, benign, np.array([2, 2]), np.array([0.0, np.inf, 1.0]))
    assert str(error.value) == (
        "2 of 4 validation rows have no finite attack score, 1 of 3 features no finite baseline; expected none:"
        " training diverged; set train.learning_rate lower"
    )
    assert isinstance(error.value, InputError)


# --- the threshold -----------------------------------------------------------------------------------------------


def test_a_budget_of_many_rows_is_a_quantile_of_their_scores():
    benign = np.random.default_rng(1).permutation(np.arange(1_000) / 50 - 19)  # -19, -18.98, … 0.98
    found = scores_of(benign, attack=[-1.0, 2.0, 3.0, 4.0]).threshold(flows=20_000, budget=1_000)  # 5 %: 50 rows
    assert found.logit == pytest.approx(0.0, abs=1e-3)  # 50 scores reach it: 0, 0.02, … 0.98
    assert (benign >= found.logit).sum() == 50
    assert found.probability == pytest.approx(0.5, abs=1e-3)
    assert found.expected_false_alarms == pytest.approx(1_000)
    assert found.false_alarms_at_most == pytest.approx(20_000 * beta.ppf(0.975, 51, 950))
    assert found.smallest_rate == pytest.approx(0.003)
    assert found.supported
    assert found.recall == pytest.approx(0.75, abs=0.002)


def test_a_budget_between_two_rows_lies_between_their_scores():
    found = scores_of(np.arange(100) / 10.0).threshold(flows=1_000, budget=205)  # 20.5 rows of 100
    assert found.logit == pytest.approx(7.95)
    assert found.expected_false_alarms == pytest.approx(205)


def test_a_budget_beyond_the_stored_tail_is_taken_from_the_quantiles():
    benign = normal(50_000, 2)
    found = scores_of(benign).threshold(flows=1_000, budget=300)
    assert (benign >= found.logit).mean() == pytest.approx(0.3, abs=0.001)
    assert found.expected_false_alarms == pytest.approx(300, rel=0.005)
    assert found.false_alarms_at_most == pytest.approx(1_000 * beta.ppf(0.975, 15_001, 35_000), rel=0.005)


def test_recall_is_the_share_of_attack_rows_at_or_above_the_threshold():
    attack = np.concatenate((normal(30_000, 3, mean=2.0, spread=4.0), np.full(10_000, LIMIT)))
    for budget in (20, 500, 5_000):
        found = scores_of(normal(20_000, 4), attack).threshold(flows=100_000, budget=budget)
        assert found.recall == pytest.approx((attack >= found.logit).mean(), abs=0.002)
    assert scores_of(normal(100, 4)).threshold(1_000, 50).recall is None


SHAPES = {
    "normal": lambda rng, n: rng.normal(-8, 2.5, n),
    "exponential": lambda rng, n: rng.exponential(1.5, n) - 8,
    "heavy": lambda rng, n: np.clip(1.5 * rng.standard_t(5, n) - 8, -LIMIT, LIMIT),
    "far cluster": lambda rng, n: np.where(rng.random(n) < 1e-3, rng.normal(12, 3, n), rng.normal(-8, 2, n)),
    "near cluster": lambda rng, n: np.where(rng.random(n) < 5e-3, rng.normal(0, 3, n), rng.normal(-8, 1.5, n)),
    "saturated": lambda rng, n: np.where(rng.random(n) < 1e-3, LIMIT, rng.normal(-8, 2, n)),
    "tied": lambda rng, n: np.round(rng.normal(-8, 2.5, n) * 2) / 2,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_alarms_of_a_night_are_within_a_factor_of_two_of_the_expectation(shape):
    rng = np.random.default_rng(7)
    night = SHAPES[shape](rng, 1_000_000)  # all benign
    ratios, bounded = [], []
    for _ in range(20):
        found = scores_of(SHAPES[shape](rng, 40_000)).threshold(len(night), budget=300)  # 12 rows of 40,000
        alarms = int((night >= found.logit).sum())
        ratios.append(alarms / found.expected_false_alarms)
        bounded.append(alarms <= found.false_alarms_at_most)
    assert np.mean([0.5 <= ratio <= 2.0 for ratio in ratios]) >= 0.9
    assert np.mean(bounded) >= 0.9


@pytest.mark.parametrize("shape", SHAPES)
def test_even_two_rows_of_forty_thousand_seldom_expect_too_few_alarms(shape):
    rng = np.random.default_rng(8)
    night = SHAPES[shape](rng, 1_000_000)
    ratios, bounded = [], []
    for _ in range(40):
        found = scores_of(SHAPES[shape](rng, 40_000)).threshold(len(night), budget=50)  # 2 rows of 40,000
        assert not found.supported
        alarms = int((night >= found.logit).sum())
        ratios.append(alarms / found.expected_false_alarms)
        bounded.append(alarms <= found.false_alarms_at_most)
    assert np.mean([0.5 <= ratio <= 2.0 for ratio in ratios]) >= 0.5
    assert np.mean([ratio > 2.0 for ratio in ratios]) <= 0.2
    assert np.mean(bounded) >= 0.95


def test_a_fitted_tail_is_nearer_the_truth_than_two_rows():
    truth = genpareto.isf(2 / 40_000, 0.0, scale=1.5) - 8
    fitted, ordered = [], []
    for seed in range(40):
        scores = np.sort(genpareto.rvs(0.0, loc=-8, scale=1.5, size=40_000, random_state=seed))[::-1]
        fitted.append(scores_of(scores).threshold(1_000_000, 50).logit - truth)
        ordered.append(scores[1] - truth)
    assert np.std(fitted) < 0.8 * np.std(ordered)
    assert abs(np.mean(fitted)) < 0.3


@pytest.mark.parametrize("shape", [-0.2, 0.0, 0.3])
def test_the_fit_finds_the_tail_that_scipy_finds(shape):
    scores = np.sort(genpareto.rvs(shape, scale=2.0, size=2_000, random_state=3))[::-1]
    excess = scores[:1_999] - scores[1_999]
    expected = genpareto.isf(2 / 1_999, *genpareto.fit(excess, floc=0))
    found, rows = tail_fit.score_reached_by(scores, 10_000, 2.0)
    assert found - scores[1_999] == pytest.approx(expected, rel=0.03)
    assert rows == pytest.approx(2.0, abs=2.0)


@pytest.mark.parametrize(
    ("found", "rows"), [(0, 1), (0, 10), (1, 10), (10, 10), (2, 38_500), (999, 1_000), (50_000, 1_000_000)]
)
def test_the_upper_end_of_a_rate_is_that_of_clopper_and_pearson(found, rows):
    expected = beta.ppf(0.975, found + 1, rows - found) if found < rows else 1.0
    assert tail_fit.upper_rate(found, rows) == pytest.approx(expected, rel=1e-9)


def test_saturated_benign_rows_are_flagged_with_all_others_and_counted():
    benign = np.concatenate((np.full(400, LIMIT), normal(39_600, 5)))  # 1 % have the highest attack score
    found = scores_of(benign, attack=np.full(100, LIMIT)).threshold(flows=1_000_000, budget=50)
    assert LIMIT - 0.01 <= found.logit <= LIMIT
    assert found.expected_false_alarms == pytest.approx(10_000)
    assert found.recall == 1.0
    assert "That is over the budget of 50: no threshold is known to come closer." in found.statement()


def test_at_a_tie_the_nearer_count_is_chosen():
    rest = -1 - np.arange(975) / 100
    benign = np.concatenate(([3.0] * 8, [1.0] * 17, rest))  # 8 rows reach 3, 25 reach 1
    for budget, rows in ((12, 8), (13, 8), (15, 25), (24, 25), (25, 25)):
        found = scores_of(benign).threshold(flows=1_000, budget=budget)
        assert (benign >= found.logit).sum() == rows, budget
        assert (benign + 1e-5 >= found.logit).sum() == rows, budget  # as rounded in another batch
        assert (benign - 1e-5 >= found.logit).sum() == rows, budget
        assert found.expected_false_alarms == pytest.approx(rows)


def test_no_threshold_is_chosen_for_fewer_than_one_row():
    found = scores_of(normal(1_000, 6)).threshold(flows=1_000_000, budget=50)
    assert found.expected_false_alarms >= 1_000_000 / 1_000
    assert not found.supported
    assert found.false_alarms_at_most >= 1_000_000 * beta.ppf(0.975, 2, 999) * 0.999
    assert found.logit == scores_of(normal(1_000, 6)).threshold(flows=1_000_000, budget=0).logit


def test_a_budget_of_all_flows_flags_all_of_them():
    for budget in (1_000, 5_000):
        found = scores_of(normal(300, 7), [1.0, -LIMIT]).threshold(flows=1_000, budget=budget)
        assert found.logit == -LIMIT
        assert found.expected_false_alarms == found.false_alarms_at_most == 1_000
        assert found.supported
        assert found.recall == 1.0


def test_an_empty_night_has_nothing_to_flag():
    found = scores_of(normal(300, 7)).threshold(flows=0, budget=50)
    assert found.expected_false_alarms == found.false_alarms_at_most == 0
    assert found.statement() == "There is no flow to flag."


def test_negative_numbers_are_an_error():
    with pytest.raises(ValueError, match="found 10 flows and a budget of -1; expected no negative number"):
        scores_of([0.0]).threshold(10, -1)


def test_without_a_benign_row_the_threshold_is_one_half_and_states_the_reason():
    found = scores_of([], attack=[-1.0, 1.0, 2.0, 3.0]).threshold(flows=2_000, budget=50)
    assert (found.logit, found.probability, found.expected_false_alarms) == (0.0, 0.5, None)
    assert (found.false_alarms_at_most, found.smallest_rate, found.supported) == (2_000, 1.0, False)
    assert found.statement() == (
        "Flagged are flows with log-odds of attack of at least 0.00, a probability of 0.5. There is no benign"
        " validation row, so the threshold does not follow from the budget of 50: any number of the 2,000 flows may be"
        " false alarms. Of the attack validation rows, 74.9% are flagged."
    )
    assert scores_of([]).threshold(0, 50).statement() == "There is no flow to flag."


@pytest.mark.parametrize("rows", [1, 2, 3, 29, 31, 151])
def test_few_benign_rows_give_a_threshold_without_a_supported_rate(rows):
    benign = normal(rows, rows)
    found = scores_of(benign).threshold(flows=100_000, budget=50)
    assert found.logit == 0.0  # all scores are below: no flow that is predicted as benign is flagged
    assert found.expected_false_alarms >= 100_000 / rows
    assert found.false_alarms_at_most >= 100_000 * beta.ppf(0.975, 2, rows - 1) * 0.999 if rows > 1 else 100_000
    assert not found.supported
    assert f"{rows:,} benign validation rows support no rate below" in found.statement()


def test_statements_of_a_supported_and_of_an_unsupported_budget():
    benign = np.arange(1_000) / 50 - 18
    supported = scores_of(benign).threshold(flows=20_000, budget=1_000)
    assert supported.statement() == (
        "Flagged are flows with log-odds of attack of at least 1.00, a probability of 0.7309. If all 20,000 flows were"
        " benign, about 1,000 would be flagged, at most 1,308 (95 % interval)."
    )
    assert 20_000 * beta.ppf(0.975, 51, 950) == pytest.approx(1_308, abs=0.5)
    unsupported = scores_of(np.append(benign, [20.0] * 1_000)).threshold(flows=1_000_000, budget=50)
    assert unsupported.statement() == (
        "Flagged are flows with log-odds of attack of at least 20.00, a probability above 0.9999. If all 1,000,000"
        " flows were benign, fewer than 2,783 would be flagged (95 % interval). 2,000 benign validation rows support no"
        " rate below 0.0015 (rule of three); the budget needs a rate of 5e-05. Point estimate: 500. That is over the"
        " budget of 50: no threshold is known to come closer."
    )
    assert 1_000_000 * beta.ppf(0.975, 2, 1_999) == pytest.approx(2_783, abs=0.5)


# --- as stored ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("benign", "attack"), [(0, 0), (0, 40), (1, 0), (700, 300), (5_000, 10)])
def test_validation_scores_are_read_as_written(benign, attack):
    written = scores_of(normal(benign, 1), normal(attack, 2, mean=6.0))
    text = written.to_json()
    read = from_json(text, "validation_scores.json")
    assert read == written
    assert read.to_json() == text
    assert (read.benign_rows, read.attack_rows, read.class_mix) == (benign, attack, (benign, attack))
    assert read.baseline == (0.5, -0.25)
    assert len(read.benign_tail) == min(benign, 2_000)
    assert list(read.benign_tail) == sorted(normal(benign, 1), reverse=True)[:2_000]
    assert read.threshold(10_000, 50) == written.threshold(10_000, 50)
    assert not re.search("NaN|Infinity", text)


STORED = scores_of(normal(50, 1), normal(20, 2, mean=6.0))


def changed(**changes):
    return json.dumps(json.loads(STORED.to_json()) | changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", " does not hold validation scores (JSONDecodeError("),
        ("[1, 2]", " does not hold validation scores (TypeError("),
        ("{}", " does not hold validation scores (KeyError('format')"),
        (changed(format=2), ": format 2; expected 1; retrain with this version"),
        (changed(more=1), " does not hold validation scores (TypeError("),
        (changed(benign_tail=3), " does not hold validation scores (TypeError("),
        (changed(baseline=[0.0, "1"]), ": one of its scores is not a finite number"),
        (changed(baseline=[0.0, float("nan")]), ": one of its scores is not a finite number"),
        (changed(baseline=[0.0, True]), ": one of its scores is not a finite number"),
        (changed(baseline=[10**400]), " does not hold validation scores (OverflowError("),
        (changed(benign_rows=50.0), ": one of its counts is not a whole number of at least 0"),
        (changed(class_mix=[71, -1]), ": one of its counts is not a whole number of at least 0"),
        (changed(benign_rows=51), ": [50, 501, 501] scores do not fit 51 benign and 20 attack rows"),
        (changed(attack_rows=0), ": [50, 501, 501] scores do not fit 50 benign and 0 attack rows"),
        (changed(benign_tail=sorted(STORED.benign_tail)), ": its scores are out of order or beyond ±80"),
        (changed(attack_quantiles=[81.0] * 501), ": its scores are out of order or beyond ±80"),
    ],
)
def test_invalid_validation_scores_are_refused_with_the_reason(text, message):
    with pytest.raises(ValidationScoresUnusable) as error:
        from_json(text, "models/m/validation_scores.json")
    assert str(error.value).startswith("models/m/validation_scores.json" + message)
    assert "retrain" in str(error.value)


def test_validation_scores_are_immutable_and_small():
    found = scores_of(normal(200_000, 1), normal(200_000, 2, mean=9.0))
    assert len(found.to_json()) < 100_000
    with pytest.raises(AttributeError):
        found.benign_rows = 1
    assert isinstance(found, ValidationScores)
