import json
import re

import numpy as np
import pytest
from scipy.stats import beta, genpareto, t

from ids_spark.base.errors import InputError
from ids_spark.models import tail_fit
from ids_spark.models.threshold import (
    LIMIT,
    NO_BLOCK,
    RATES,
    LocalOrigin,
    ValidationScores,
    ValidationScoresUnusable,
    attack_logits,
    benign_baseline,
    from_json,
    validation_scores_of,
)


def scores_of(benign, attack=(), attack_ids=None, labels=None, blocks=None):
    """Return the validation scores of a model of two classes; of six if `labels` of the attacks are given."""
    scores = np.concatenate((np.asarray(benign, np.float64), np.asarray(attack, np.float64)))
    classes, mix = np.ones(len(scores), np.int32), np.array([len(benign), len(attack)])
    classes[: len(benign)] = 0
    if labels is not None:
        classes[len(benign) :], mix = labels, np.array([len(benign), len(attack), 0, 0, 0, 0])
    ids = np.ones(len(scores), np.int32) if attack_ids is None else np.resize(attack_ids, len(scores))
    if blocks is not None:
        blocks = np.append(blocks, [NO_BLOCK] * len(attack)).astype(np.int32)
    return validation_scores_of(scores, classes, ids.astype(np.int32), mix, np.array([0.5, -0.25]), blocks)


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
    scores, labels = np.array([0.0, np.nan, 1.0, np.nan]), np.array([0, 0, 1, 1], np.int32)
    with pytest.raises(ValidationScoresUnusable) as error:
        validation_scores_of(scores, labels, np.ones(4, np.int32), np.array([2, 2]), np.array([0.0, np.inf, 1.0]))
    assert str(error.value) == (
        "2 of 4 validation rows have no finite attack score, 1 of 3 features no finite baseline; expected none:"
        " training diverged; set train.learning_rate lower"
    )
    assert isinstance(error.value, InputError)


# --- the threshold -----------------------------------------------------------------------------------------------


def test_the_operating_point_is_reached_by_one_percent_of_the_benign_rows():
    benign = np.random.default_rng(1).permutation(np.arange(5_000) / 50 - 99)  # -99, -98.98, … 0.98
    benign = np.maximum(benign, -LIMIT)
    found = scores_of(benign).operating_point()
    assert found.logit == pytest.approx(0.0, abs=1e-3)  # 50 scores reach it: 0, 0.02, … 0.98
    assert (benign >= found.logit).sum() == 50
    assert found.probability == pytest.approx(0.5, abs=1e-3)
    assert found.expected_rate == pytest.approx(0.01)
    assert found.rate_at_most == pytest.approx(beta.ppf(0.975, 51, 4_950))
    assert found.smallest_rate == pytest.approx(0.0006)
    assert found.supported


def test_a_rate_above_the_operating_point_is_an_error():
    found = scores_of(normal(20_000, 3))
    with pytest.raises(ValueError, match=r"found a rate of 0\.02; expected at least 0 and at most 0\.01"):
        found.at_rate(0.02)


def test_a_rate_between_two_rows_lies_between_their_scores():
    found = scores_of(np.arange(3_000) / 1_000).at_rate(20.5 / 3_000)
    assert found.logit == pytest.approx(2.9795, abs=6e-4)
    assert found.expected_rate == pytest.approx(20.5 / 3_000)


@pytest.mark.parametrize(("rows", "loc"), [(0, 0.0), (60, -4.0), (3_000, -4.0), (40_000, -12.0), (250_000, 3.0)])
def test_levels_are_the_operating_point_and_two_higher_ones(rows, loc):
    benign = normal(rows, rows, mean=loc)
    found = scores_of(benign)
    levels = found.levels()
    assert list(levels) == sorted(levels)
    assert levels[0] == found.operating_point().logit
    for rate, logit in zip(RATES, levels, strict=True):
        if rows * rate >= 10:
            assert (benign >= logit).mean() == pytest.approx(rate, abs=1 / rows)
        else:
            assert logit >= 0.0 or rows * rate >= 1


# --- counts of benign rows by class ------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [0, 7, 1_500, 30_000, 400_000])
@pytest.mark.parametrize("decimals", [9, 1])
def test_benign_rows_are_counted_by_their_most_probable_attack(rows, decimals):
    rng = np.random.default_rng(rows)
    benign, ids = np.round(rng.normal(-6, 3, rows), decimals), rng.integers(1, 6, rows)
    scores = scores_of(benign, [1.0], np.append(ids, 3), labels=[4])
    thresholds = (*scores.levels(), 5.0)
    expected = [[((ids == c) & (benign >= limit)).sum() for limit in thresholds] for c in range(6)]
    np.testing.assert_array_equal(scores.benign_counts(thresholds), expected)
    assert scores.classes_known
    assert scores.benign_counts(thresholds).sum(axis=0)[0] <= 0.011 * rows + 2


def test_more_equal_scores_than_one_percent_are_not_flagged():
    benign = np.concatenate((np.linspace(1, 2, 1_000), np.full(20_000, -3.0), normal(379_000, 4, -9.0, 1.0)))
    scores = scores_of(benign)  # 5 % have the score of the operating point
    point = scores.operating_point()
    assert -3.0 < point.logit < 1.0
    assert point.expected_rate == pytest.approx(1_000 / 400_000)
    assert scores.benign_counts([point.logit])[1, 0] == 1_000


def test_below_the_stored_tail_counts_are_estimated():
    benign = normal(300_000, 5)
    scores = scores_of(benign, attack_ids=[1])
    assert scores.benign_counts([-8.0])[1, 0] == pytest.approx(150_000, rel=0.02)


@pytest.mark.parametrize("older", [False, True])
def test_a_threshold_from_six_million_rows_keeps_its_promise(older):
    # With 2,000 stored rows, the rate of the night lies between the lowest of them and the last quantile.
    benign = np.random.default_rng(6).exponential(1.2, 6_000_000) - 8.0
    scores = scores_of(benign)
    if older:
        scores = from_json(as_format_1(scores, np.sort(benign)[::-1][:2_000]), "validation_scores.json")
    for rate in (5e-4, 8e-4, 2e-3, 1e-2):
        found = scores.at_rate(rate)
        assert (benign >= found.logit).mean() == pytest.approx(rate, rel=0.05)
        assert found.expected_rate == pytest.approx(rate, rel=0.05)
        assert scores.benign_counts([found.logit]).sum() == pytest.approx(6_000_000 * rate, rel=0.05)
    assert scores.levels()[2] == pytest.approx(1.2 * np.log(1 / 8e-4) - 8, abs=0.05)


# --- blocks of time ----------------------------------------------------------------------------------------------


def of_blocks(rates, rows, rest, seed=3):
    """Return benign scores and blocks: `rest` rows in none, then blocks with these shares of rows above 0."""
    rng = np.random.default_rng(seed)
    scores, blocks = [rng.normal(-8, 2, rest)], [np.full(rest, NO_BLOCK)]
    for i, rate in enumerate(rates):
        high = rng.permutation(rows) < rate * rows
        scores.append(np.where(high, rng.normal(2, 1, rows), rng.normal(-8, 2, rows)))
        blocks.append(np.full(rows, 40 + 3 * i))
    return np.concatenate(scores), np.concatenate(blocks)


def test_a_rate_that_is_higher_in_blocks_raises_the_threshold_until_it_holds_there():
    benign, blocks = of_blocks([0.0, 0.03, 0.005, 0.12], 500, 40_000)
    without, found = scores_of(benign), scores_of(benign, blocks=blocks)
    inside = blocks != NO_BLOCK
    for rate, before, logit in zip(RATES, without.levels(), found.levels(), strict=True):
        if rate * inside.sum() >= 3:
            assert (benign[inside] >= before).mean() > rate
            assert (benign[inside] >= logit).mean() == pytest.approx(rate, abs=1 / inside.sum())
        else:  # too few rows of blocks for this level, which may still not be below the one before
            assert logit == max(before, *found.levels()[:2])
    point = found.operating_point()
    rates = [(benign[blocks == i] >= point.logit).mean() for i in (40, 43, 46, 49)]
    assert point.block_rates == pytest.approx(rates)
    assert point.expected_rate == pytest.approx(0.01)
    assert f"blocks of benign rows that were kept out of training as a whole (4): 0.00% to {max(rates):.2%}." in (
        point.statement()
    )
    counts = found.benign_counts(found.levels())[1]
    assert counts.tolist() == [(benign >= logit).sum() for logit in found.levels()]


def test_blocks_with_a_lower_rate_change_nothing_but_what_is_stated():
    benign, blocks = of_blocks([0.0] * 5, 400, 20_000)
    benign[blocks != NO_BLOCK] -= 1.0
    without, found = scores_of(benign).operating_point(), scores_of(benign, blocks=blocks).operating_point()
    assert found.logit == without.logit
    assert found.expected_rate == without.expected_rate
    assert len(found.block_rates) == 5
    assert without.block_rates == ()
    few, few_blocks = of_blocks([0.5], 100, 20_000)
    assert scores_of(few, blocks=few_blocks).levels() == scores_of(few).levels()


def test_the_interval_of_the_rate_is_that_of_blocks_where_they_differ():
    rows, counts = np.array([500, 300, 700, 500]), np.array([0, 30, 7, 1])
    rate = counts.sum() / rows.sum()
    residuals = counts - rate * rows
    error = np.sqrt(4 / 3 * (residuals**2).sum()) / rows.sum()
    expected = rate + t.ppf(0.975, 3) * error
    assert tail_fit.upper_rate_of_blocks(counts, rows) == pytest.approx(expected)
    assert tail_fit.upper_rate_of_blocks([3], [100]) == 1.0
    benign, blocks = of_blocks([0.0, 0.0, 0.04, 0.0], 500, 40_000)
    exact = beta.ppf(0.975, 421, 42_000 - 420)
    found = scores_of(benign, blocks=blocks).operating_point()
    assert found.rate_at_most > 2 * exact
    assert found.rate_at_most == pytest.approx(
        tail_fit.upper_rate_of_blocks([(benign[blocks == i] >= found.logit).sum() for i in (40, 43, 46, 49)], [500] * 4)
    )


def test_blocks_are_read_as_written():
    benign, blocks = of_blocks([0.01] * 30, 200, 3_000)
    written = scores_of(benign, [1.0], blocks=blocks)
    read = from_json(written.to_json(), "validation_scores.json")
    assert read == written
    assert [block.rows for block in read.blocks] == [200] * 30
    assert sum(len(block.highest) for block in read.blocks) == 2_000
    first = sorted(benign[blocks == 40], reverse=True)
    assert list(read.blocks[0].highest) == first[: len(read.blocks[0].highest)]


# --- recall ------------------------------------------------------------------------------------------------------


def test_recall_is_that_of_each_class_at_the_threshold_and_its_mean_counts_classes_not_rows():
    flood, scan, few = normal(30_000, 3, 8.0, 4.0), normal(150, 4, 0.0, 3.0), np.array([5.0] * 9)
    labels = [1] * 30_000 + [4] * 150 + [5] * 9
    scores = scores_of(normal(20_000, 4), np.concatenate((flood, scan, few)), labels=labels)
    for logit in (-3.0, 0.0, float(scan[7]), 9.0, -LIMIT):
        recalls = {each.class_name: (each.rows, each.recall) for each in scores.recalls(logit)}
        assert list(recalls) == ["DDoS", "DoS", "MQTT", "Recon", "Spoofing"]
        assert recalls["DDoS"] == (30_000, pytest.approx((flood >= logit).mean(), abs=0.005))
        assert recalls["Recon"] == (150, pytest.approx((scan >= logit).mean()))
        assert recalls["DoS"] == recalls["MQTT"] == (0, None)
        assert recalls["Spoofing"] == (9, None)
    point = scores.operating_point()
    expected = ((flood >= point.logit).mean() + (scan >= point.logit).mean()) / 2
    assert point.macro_recall == pytest.approx(expected, abs=0.005)


def test_a_class_with_one_score_is_flagged_as_a_whole():
    scores = scores_of(normal(1_000, 4), np.full(500, LIMIT), labels=[2] * 500)
    assert [each.recall for each in scores.recalls(LIMIT)] == [None, 1.0, None, None, None]
    scores = scores_of(normal(1_000, 4), np.full(500, 3.0), labels=[2] * 500)
    assert scores.recalls(3.001)[1].recall == 0.0


# --- few rows, ties ----------------------------------------------------------------------------------------------


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
        found = scores_of(SHAPES[shape](rng, 40_000)).at_rate(3e-4)  # 12 rows of 40,000
        alarms = int((night >= found.logit).sum())
        ratios.append(alarms / (found.expected_rate * len(night)))
        bounded.append(alarms <= found.rate_at_most * len(night))
    assert np.mean([0.5 <= ratio <= 2.0 for ratio in ratios]) >= 0.9
    assert np.mean(bounded) >= 0.9


@pytest.mark.parametrize("shape", SHAPES)
def test_even_two_rows_of_forty_thousand_seldom_expect_too_few_alarms(shape):
    rng = np.random.default_rng(8)
    night = SHAPES[shape](rng, 1_000_000)
    ratios, bounded = [], []
    for _ in range(40):
        found = scores_of(SHAPES[shape](rng, 40_000)).at_rate(5e-5)  # 2 rows of 40,000
        assert not found.supported
        alarms = int((night >= found.logit).sum())
        ratios.append(alarms / (found.expected_rate * len(night)))
        bounded.append(alarms <= found.rate_at_most * len(night))
    assert np.mean([0.5 <= ratio <= 2.0 for ratio in ratios]) >= 0.5
    assert np.mean([ratio > 2.0 for ratio in ratios]) <= 0.2
    assert np.mean(bounded) >= 0.95


def test_a_fitted_tail_is_nearer_the_truth_than_two_rows():
    truth = genpareto.isf(2 / 40_000, 0.0, scale=1.5) - 8
    fitted, ordered = [], []
    for seed in range(40):
        scores = np.sort(genpareto.rvs(0.0, loc=-8, scale=1.5, size=40_000, random_state=seed))[::-1]
        fitted.append(scores_of(scores).at_rate(5e-5).logit - truth)
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
    scores = scores_of(benign, attack=np.full(100, LIMIT))
    found = scores.at_rate(5e-5)
    assert LIMIT - 0.01 <= found.logit <= LIMIT
    assert found.expected_rate == pytest.approx(0.01)
    assert found.macro_recall == 1.0
    assert scores.benign_counts(scores.levels())[1].tolist() == [400, 400, 400]


def test_at_a_tie_the_nearer_count_is_chosen():
    rest = -1 - np.arange(9_975) / 1_000
    benign = np.concatenate(([3.0] * 8, [1.0] * 17, rest))  # 8 rows reach 3, 25 reach 1
    for wanted, rows in ((12, 8), (13, 8), (15, 25), (24, 25), (25, 25)):
        found = scores_of(benign).at_rate(wanted / 10_000)
        assert (benign >= found.logit).sum() == rows, wanted
        assert (benign + 1e-5 >= found.logit).sum() == rows, wanted  # as rounded in another batch
        assert (benign - 1e-5 >= found.logit).sum() == rows, wanted
        assert found.expected_rate == pytest.approx(rows / 10_000)


def test_no_threshold_is_chosen_for_fewer_than_one_row():
    found = scores_of(normal(1_000, 6)).at_rate(5e-5)
    assert found.expected_rate >= 1 / 1_000
    assert not found.supported
    assert found.rate_at_most >= beta.ppf(0.975, 2, 999) * 0.999
    assert found.logit == scores_of(normal(1_000, 6)).at_rate(0.0).logit


def test_without_a_benign_row_the_threshold_is_one_half_and_states_the_reason():
    found = scores_of([], attack=[-1.0, 1.0, 2.0, 3.0] * 5).operating_point()
    assert (found.logit, found.probability, found.expected_rate, found.rate_at_most) == (0.0, 0.5, None, 1.0)
    assert (found.smallest_rate, found.supported) == (1.0, False)
    assert found.statement() == (
        "Flagged are flows with log-odds of attack of at least 0.00, a probability of 0.5. There is no benign"
        " validation row: any share of the benign flows may be flagged. Recall, mean over 1 of 1 attack classes: 75.0%."
    )
    assert scores_of([]).levels() == (0.0, 0.0, 0.0)
    assert scores_of([]).benign_counts((0.0, 0.0, 0.0)).tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("rows", [1, 2, 3, 29, 31, 99])
def test_few_benign_rows_give_a_threshold_without_a_supported_rate(rows):
    found = scores_of(normal(rows, rows)).operating_point()
    assert found.logit == 0.0  # all scores are below: no flow that is predicted as benign is flagged
    assert found.expected_rate >= 1 / rows
    assert found.rate_at_most >= beta.ppf(0.975, 2, rows - 1) * 0.999 if rows > 1 else 1.0
    assert not found.supported
    assert f"{rows:,} benign validation rows support no rate below" in found.statement()


def test_statements_of_a_supported_and_of_an_unsupported_rate():
    benign = np.arange(10_000) / 500 - 18
    supported = scores_of(benign, np.arange(250) / 50, labels=[1] * 100 + [4] * 145 + [5] * 5).operating_point()
    assert supported.statement() == (
        "Flagged are flows with log-odds of attack of at least 1.80, a probability of 0.858. The threshold is the"
        " laboratory's: no flow of this site was held out for it. Of benign flows, about 1.00% are flagged, at most"
        " 1.21% (95 % interval). Recall, mean over 2 of 5 attack classes: 55.0%; lowest: DDoS 10%, Recon 100%. Cannot"
        " tell, fewer than 10 validation rows: DoS, MQTT, Spoofing."
    )
    assert beta.ppf(0.975, 101, 9_900) == pytest.approx(0.0121, abs=5e-5)
    unsupported = scores_of(normal(200, 4)).operating_point()
    reaching = (normal(200, 4) >= unsupported.logit).sum()
    most = beta.ppf(0.975, reaching + 1, 200 - reaching)
    assert f"Of benign flows, fewer than {most:.2%} are flagged (95 % interval): 200 benign" in unsupported.statement()
    assert "Recall: cannot tell" in unsupported.statement()


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
    assert read.operating_point() == written.operating_point()
    assert not re.search("NaN|Infinity", text)


STORED = scores_of(normal(50, 1), normal(20, 2, mean=6.0))
STORED_CLASSES = json.loads(STORED.to_json())["attack_classes"]


def as_format_1(scores, highest):
    """Return validation scores as version 0.2 stored them."""
    content = json.loads(scores.to_json()) | {"format": 1, "benign_tail": list(highest)}
    del content["benign_tail_classes"], content["attack_classes"]
    return json.dumps(content | {"attack_quantiles": [1.0] * 501 if scores.attack_rows else []})


def test_format_1_is_read_with_unknown_classes(caplog):
    scores = scores_of(normal(300_000, 1), normal(500, 2, mean=6.0), labels=[3] * 500)
    found = from_json(as_format_1(scores, scores.benign_tail[:2_000]), "calibration.json")
    assert "calibration.json was written by version 0.2" in caplog.text
    assert not found.classes_known
    assert scores.classes_known
    assert found.levels() == pytest.approx(scores.levels(), abs=0.02)
    counts = found.benign_counts(found.levels())
    assert counts.shape == (1, 3)
    assert counts[0] == pytest.approx(scores.benign_counts(scores.levels()).sum(axis=0), rel=0.03)
    assert found.recalls(0.0) == ()
    assert found.operating_point().macro_recall is None
    assert "Recall: cannot tell" in found.operating_point().statement()


def changed(**changes):
    return json.dumps(json.loads(STORED.to_json()) | changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", " does not hold validation scores (JSONDecodeError("),
        ("[1, 2]", " does not hold validation scores (TypeError("),
        ("{}", " does not hold validation scores (KeyError('format')"),
        (changed(format=3), ": format 3; expected 2, or 1 of version 0.2; retrain with this version"),
        (changed(format=True), ": format True; expected 2, or 1 of version 0.2; retrain with this version"),
        (changed(more=1), " does not hold validation scores (TypeError("),
        (changed(benign_tail=3), " does not hold validation scores (TypeError("),
        (changed(baseline=[0.0, "1"]), ": one of its scores is not a finite number"),
        (changed(baseline=[0.0, float("nan")]), " does not hold validation scores (ValueError('NaN is not a finite"),
        (changed(baseline=[0.0, True]), ": one of its scores is not a finite number"),
        (changed(baseline=[10**400]), " does not hold validation scores (ValueError("),
        (changed(benign_rows=50.0), ": one of its counts is not a whole number of at least 0"),
        (changed(class_mix=[71, -1]), ": one of its counts is not a whole number of at least 0"),
        (changed(benign_rows=51), ": [50, 501, 20] scores do not fit 51 benign and 20 attack rows"),
        (changed(attack_rows=19), ": the rows of its attack classes do not add up to 19"),
        (changed(benign_tail_classes=[1] * 49), ": 49 classes do not fit 50 scores"),
        (changed(benign_tail_classes=[0] * 50), ": one of its attack classes is none of the model's"),
        (changed(benign_tail_classes=["1"] * 50), ": one of its counts is not a whole number of at least 0"),
        (changed(attack_classes=STORED_CLASSES * 2, attack_rows=40), ": one of its attack classes is none of"),
        (changed(attack_classes=[STORED_CLASSES[0] | {"rows": 21}]), ": [50, 501, 20] scores do not fit"),
        (changed(attack_classes=[STORED_CLASSES[0] | {"class_id": 2}]), ": one of its attack classes is none of"),
        (changed(attack_classes=[3]), " does not hold validation scores (TypeError("),
        (
            changed(blocks=[{"rows": 51, "highest": [0.0] * 51}]),
            ": the scores of its 1 blocks do not fit 51 rows of 50",
        ),
        (changed(blocks=[{"rows": 2, "highest": [0.0]}]), ": the scores of its 1 blocks do not fit 2 rows of 50"),
        (changed(blocks=[{"rows": 2, "highest": [0.0, 1.0]}]), ": its scores are out of order or beyond"),
        (changed(blocks=[{"rows": 2, "highest": [0.0, None]}]), ": one of its scores is not a finite number"),
        (changed(blocks=[{"rows": True, "highest": [0.0]}]), ": one of its counts is not a whole number of at least 0"),
        (changed(blocks=[{"rows": 1, "highest": [0.0, 0.0]}, {"rows": 1, "highest": []}]), ": one of its blocks has"),
        (changed(blocks=[{"rows": 1}]), " does not hold validation scores (TypeError("),
        (changed(class_mix=[50, 20, 0]), ": it counts 3 classes; expected one of 2, 6, 19"),
        (changed(benign_tail=sorted(STORED.benign_tail)), ": its scores are out of order or beyond ±80"),
        (changed(attack_classes=[STORED_CLASSES[0] | {"scores": [81.0] * 20}]), ": its scores are out of order or"),
    ],
)
def test_invalid_validation_scores_are_refused_with_the_reason(text, message):
    with pytest.raises(ValidationScoresUnusable) as error:
        from_json(text, "models/m/validation_scores.json")
    assert str(error.value).startswith("models/m/validation_scores.json" + message)
    assert "retrain" in str(error.value)


def test_validation_scores_are_immutable_and_small():
    found = scores_of(normal(200_000, 1), normal(200_000, 2, mean=9.0))
    assert len(found.to_json()) < 150_000
    with pytest.raises(AttributeError):
        found.benign_rows = 1
    assert isinstance(found, ValidationScores)


# --- of the site's own nights --------------------------------------------------------------------------------------


def local_scores(rows=4_000, dates=("2026-11-03", "2026-11-05"), held_out_by="date"):
    """Return scores of local rows in 40 blocks, of which the last flags far more than the others."""
    logits, blocks = normal(rows, 3), np.repeat(np.arange(40), rows // 40).astype(np.int32)
    logits[-rows // 40 :] += 6
    labels, ids = np.zeros(rows, np.int32), (np.arange(rows) % 5 + 1).astype(np.int32)
    mix, local = np.array([rows, 0, 0, 0, 0, 0]), LocalOrigin(dates, held_out_by)
    return validation_scores_of(logits, labels, ids, mix, np.zeros(2), blocks, local), logits, blocks, ids


def test_scores_of_local_rows_are_read_as_written_with_the_classes_of_each_block():
    scores, logits, blocks, ids = local_scores()
    unknown = np.zeros((4_000, 3), np.bool_)
    unknown[:250:7, 0], unknown[0, 1] = True, True
    written = scores.with_unknown(blocks, unknown)
    read = from_json(written.to_json(), "validation_scores.json")
    assert read == written
    assert [block.unknown for block in read.blocks[:4]] == [(15, 1, 0), (14, 0, 0), (7, 0, 0), (0, 0, 0)]
    levels = read.levels()
    assert (
        levels
        == validation_scores_of(
            logits, np.zeros(4_000, np.int32), ids, np.array([4_000, 0, 0, 0, 0, 0]), np.zeros(2), blocks
        ).levels()
    )
    expected = [
        [[((blocks == i) & (ids == c) & (logits >= t)).sum() for t in levels] for c in range(6)] for i in range(40)
    ]
    np.testing.assert_array_equal(read.block_counts(levels), expected)
    assert "local" not in scores_of(normal(50, 1)).to_json()


@pytest.mark.parametrize(
    ("dates", "held_out_by", "text"),
    [
        (("2026-11-03", "2026-11-05"), "date", " of 2026-11-03 to 2026-11-05, in 40 blocks (a device in an hour)."),
        (("2026-11-03",), "rows", " of 2026-11-03, in 40 blocks (a device in an hour)."),
        ((), "rows", ", in 40 blocks (a device in an hour)."),
    ],
)
def test_the_statement_says_on_which_flows_the_threshold_rests(dates, held_out_by, text):
    found = local_scores(dates=dates, held_out_by=held_out_by)[0].operating_point()
    assert f"The threshold rests on 4,000 local benign flows{text}" in found.statement()
    assert "laboratory" not in found.statement()
    # One block in 40 flags most of its rows: the interval of the next blocks is wide.
    assert found.expected_rate == pytest.approx(0.01, abs=1e-3)
    assert 0.02 < found.rate_at_most < 0.04


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["local"].update(held_out_by="week"), "the dates or kind of its local rows"),
        (lambda content: content["local"].update(dates=["2026-11-05", "2026-11-03"]), "the dates or kind of its local"),
        (
            lambda content: content["local"].update(dates=["2026-13-05"]),
            " does not hold validation scores (ValueError(",
        ),
        (lambda content: content["local"].update(more=1), " does not hold validation scores (TypeError("),
        (lambda content: content["blocks"][39]["classes"].pop(), "the classes of one of its blocks do not fit"),
        (lambda content: content["blocks"][39]["classes"].__setitem__(0, 6), "one of its attack classes is none of"),
        (lambda content: content["blocks"][0].update(unknown=[1, 2, 0]), "the counts (1, 2, 0) of the second detector"),
        (lambda content: content["blocks"][0].update(unknown=[1]), "the counts (1,) of the second detector do not"),
        (lambda content: content["blocks"][0].update(unknown=[1.0, 0, 0]), "a count of the second detector is not"),
        (lambda content: content.pop("local"), "a block of the data set has classes"),
    ],
)
def test_contradictory_scores_of_local_rows_are_refused(change, message):
    content = json.loads(local_scores()[0].to_json())
    change(content)
    with pytest.raises(ValidationScoresUnusable, match=re.escape(message)):
        from_json(json.dumps(content), "models/m/validation_scores.json")
