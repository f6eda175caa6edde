"""The score that a given small share of benign rows reaches: an order statistic, or a quantile of a fitted tail.

With 10 rows or more at or above the score, it is interpolated between the ordered scores. With fewer, a generalised
Pareto distribution is fitted to the excesses of the highest 1,999, 500, 100 or 30 rows over the next one (peaks over
threshold: Pickands 1975, Ann. Statist. 3:119; Siffer et al. 2017, doi 10.1145/3097983.3098144). The first fit that
passes the test of fit is used. If none does, for example with a small cluster of rows far above all others, the ordered
scores are used here too.

Measured through `ValidationScores.at_rate` on 15 synthetic shapes (light and heavy tails, clusters far above,
saturated, tied; 100 draws of each) against a million flows at a rate of 50 false alarms among them; in brackets the
figures of the ordered scores alone. The alarms were within a factor of 2 of the expectation in 49 % [47 %] of draws of
4,000 rows, 75 % [67 %] of 40,000 and 95 % [96 %] of 200,000. They were more than twice the expectation in 11, 6 and 1 %
[11, 9 and 1 %], and above the upper end of its interval in 0.3, 0.5 and 2 %. Without the test of fit, none of 40 draws
of 40,000 rows with a cluster of 0.5 % between the bulk and the attacks was within the factor: the threshold was far too
high.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from ids_spark.base.arrays import Floats

LEVELS: Final = np.linspace(0.0, 1.0, 501)
"""Levels of the stored quantiles of the validation scores."""
CLASS_SCORES: Final = 201
"""Most scores that are stored for a class."""
_FITTED: Final = (1_999, 500, 100, 30)  # rows of a fit, each at most a fifth of all
_ORDER_FROM: Final = 10  # rows
# Approximately in standard deviations of a count. 1 to 15 % of fits to rows drawn from a generalised Pareto
# distribution exceed it; the share rises with the number of rows.
_MISFIT: Final = 2.0
# Distance of a threshold from a score, in log-odds: scores of one flow differ by far less between batches.
_LOGIT_STEP: Final = 1e-3
_UPPER_LEVEL: Final = 0.975  # upper end of a two-sided 95 % interval


def score_reached_by(highest: Floats, rows: int, wanted: float) -> tuple[float, float]:
    """Return a score that about `wanted` of all rows reach, and how many rows are expected to reach it.

    The expectation differs from `wanted` if tied scores allow no score in between, or if more rows than `wanted` reach
    a fitted score; it is never below the number of rows that reach the score.

    Args:
        highest: The highest scores, descending, at least one.
        rows: Number of all rows.
        wanted: Number of rows, from 1 to the length of `highest`; may be fractional.
    """
    if wanted < _ORDER_FROM:
        for fitted in _FITTED:
            if fitted < len(highest) and 5 * fitted <= rows:
                excess = _fitted_excess(highest[:fitted] - highest[fitted], wanted)
                if excess is not None:
                    score = float(highest[fitted] + excess)
                    return score, max(wanted, _reaching(highest, score))
    return _ordered(highest, wanted)


def _ordered(highest: Floats, wanted: float) -> tuple[float, float]:
    """Return a score between two adjacent scores; at a tie, above or below it, where the count is nearer in ratio."""
    whole = int(wanted)
    score = float(highest[whole - 1])
    after = float(highest[whole]) if whole < len(highest) else score - _LOGIT_STEP
    gap = score - after
    if gap > 0:
        return score - max((wanted - whole) * gap, min(_LOGIT_STEP, gap / 2)), wanted
    above, reaching = _reaching(highest, score + _LOGIT_STEP), _reaching(highest, score - _LOGIT_STEP)
    if wanted**2 < max(above, 0.5) * reaching:
        return score + _LOGIT_STEP, max(above, 1)
    return score - _LOGIT_STEP, reaching


def _reaching(highest: Floats, score: float) -> int:
    return int(np.searchsorted(-highest, -score, side="right"))


def _fitted_excess(excesses: Floats, wanted: float) -> float | None:
    """Return the excess that `wanted` rows are expected to reach; None if the rows fail the test of fit.

    Fitted by the method of Zhang, Stephens 2009 (Technometrics 51:316), which scipy does not have: b = shape / scale is
    the mean of a quasi-posterior on a grid, and the shape follows from it. The shape is minus the `c` of
    `scipy.stats.genpareto`: the share (1 - shape · x / scale)^(1 / shape) exceeds x.

    Args:
        excesses: Descending, shape (rows,), none negative.
        wanted: Fewer than `rows`.
    """
    from scipy import special

    rows = len(excesses)
    quartile = excesses[rows - int(rows / 4 + 0.5)]
    if quartile <= 0:
        return None  # ties at the lower end: no density
    points = 20 + math.isqrt(rows)
    grid = 1 / excesses[0] + (1 - np.sqrt(points / (np.arange(points) + 0.5))) / (3 * quartile)
    grid = grid[grid != 0]
    shapes = -np.log1p(-np.outer(grid, excesses)).mean(axis=1)
    likelihood = rows * (np.log(grid / shapes) + shapes - 1)
    weights = np.exp(likelihood - likelihood.max())
    b = float(grid @ weights / weights.sum())
    shape = -float(np.log1p(-b * excesses).mean())
    scale = shape / b
    # Survival function and its inverse as in scipy.stats.genpareto, whose import takes ten times as long.
    reaching = rows * special.inv_boxcox(-excesses / scale, shape)
    counted = np.arange(rows) + 0.5
    # The square root of a count has a standard deviation of about one half, however large the count.
    if not np.abs(2 * (np.sqrt(reaching) - np.sqrt(counted))).max() <= _MISFIT:
        return None
    return float(-scale * special.boxcox(wanted / rows, shape))


def upper_rate(found: int, rows: int) -> float:
    """Return the upper end of the exact 95 % interval of a rate, observed as `found` of `rows`.

    It is a quantile of a beta distribution (Clopper, Pearson 1934, doi 10.1093/biomet/26.4.404).

    Args:
        found: From 0 to `rows`.
        rows: At least 1.
    """
    from scipy import special

    return 1.0 if found >= rows else float(special.betaincinv(found + 1, rows - found, _UPPER_LEVEL))


def upper_rate_of_blocks(found: Sequence[int], rows: Sequence[int]) -> float:
    """Return the upper end of the 95 % interval of a rate from its scatter between blocks of rows; 1 for fewer than 2.

    The interval is that of a ratio estimator of clusters of unequal size with Student's t (Cochran 1977, Sampling
    Techniques, 2.11).

    Args:
        found: Rows counted in each block.
        rows: Rows of each block.
    """
    from scipy import special

    blocks, k, n = len(rows), np.array(found, dtype=np.float64), np.array(rows, dtype=np.float64)
    if blocks < 2:
        return 1.0
    rate = k.sum() / n.sum()
    error = math.sqrt(blocks / (blocks - 1) * float(((k - rate * n) ** 2).sum())) / n.sum()
    return float(min(1.0, rate + special.stdtrit(blocks - 1, _UPPER_LEVEL) * error))


def quantiles(scores: Floats) -> tuple[float, ...]:
    """Return the quantiles at `LEVELS`, ascending, each one of the scores; empty without a score."""
    return tuple(np.quantile(scores, LEVELS, method="inverted_cdf").tolist()) if len(scores) else ()


def score_at_share(share: float, ascending: Sequence[float], highest: Floats, rows: int) -> float:
    """Return the score that a share of the rows reaches, below their highest scores.

    Scores are interpolated in the logarithm of the share: the tails of scores are nearly exponential.

    Args:
        share: At least that of `highest`.
        ascending: Quantiles of all rows at `LEVELS`.
        highest: The highest scores, descending.
        rows: Number of all rows.
    """
    shares, scores = _shares_of_scores(ascending, highest, rows)
    return float(np.interp(math.log(share), np.log(shares), scores))


def share_reaching(score: float, ascending: Sequence[float], highest: Floats, rows: int) -> float:
    """Return the share of rows that reach a score of at most the highest scores; as `score_at_share`."""
    shares, scores = _shares_of_scores(ascending, highest, rows)
    at = int(np.searchsorted(-scores, -score, side="right"))  # scores before it reach the score
    if at in (0, len(scores)):
        return float(shares[max(at - 1, 0)])
    within = (scores[at - 1] - score) / (scores[at - 1] - scores[at])
    return float(math.exp((1 - within) * math.log(shares[at - 1]) + within * math.log(shares[at])))


def _shares_of_scores(ascending: Sequence[float], highest: Floats, rows: int) -> tuple[Floats, Floats]:
    """Return increasing shares of rows, and the score that each reaches, from the lowest of the highest scores on."""
    first = len(highest) / rows
    levels = 1 - LEVELS[::-1]
    below = levels > first
    scores = np.minimum(np.array(ascending)[::-1][below], highest[-1])
    return np.concatenate(([first], levels[below])), np.concatenate((highest[-1:], scores))


def above(score: float) -> float:
    """Return a threshold just above a score."""
    return score + _LOGIT_STEP


def scores_of_class(scores: Floats) -> tuple[float, ...]:
    """Return the scores of a class, ascending; of more than `CLASS_SCORES`, as many quantiles at equal steps."""
    if len(scores) <= CLASS_SCORES:
        return tuple(np.sort(scores).tolist())
    return tuple(np.quantile(scores, np.linspace(0, 1, CLASS_SCORES), method="inverted_cdf").tolist())


def share_of_class(ascending: Sequence[float], rows: int, score: float) -> float:
    """Return the share of the rows of a class that reach a score, from their `scores_of_class`."""
    at, last = int(np.searchsorted(ascending, score, side="left")), len(ascending) - 1
    if rows <= CLASS_SCORES:
        return 1 - at / rows
    if at in (0, last + 1):
        return 1.0 if at == 0 else 0.0
    within = (score - ascending[at - 1]) / (ascending[at] - ascending[at - 1])
    return float(1 - (at - 1 + within) / last)
