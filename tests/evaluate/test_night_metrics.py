"""Recall at low rates of false alarms: against a direct computation on rows, scikit-learn, and a row bootstrap."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from ids_spark.dataset.taxonomy import CLASS19, CLASSES, class2_of, class6_of, parents
from ids_spark.evaluate import score_counts
from ids_spark.evaluate.night_metrics import RARE_RECALL, RATES, name_at, night_metrics
from ids_spark.evaluate.score_counts import ScoreCounts

RARE = [13, 14, 15, 17, 18]
FEWEST = [13, 15, 17, 18]
FIGURES = ("recall_at_1e-3", "recall_at_1e-2", "area_to_1e-2")


def rows_of(benign: int, attacks: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return classes and attack logits in steps of .001, so that some are equal."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.zeros(benign, np.int32), rng.choice(RARE, attacks).astype(np.int32)])
    logits = np.where(labels == 0, rng.normal(-3, 1, len(labels)), rng.normal(labels / 10 - 1, 1.5))
    return labels, np.round(logits, 3)


def counts_of(labels: np.ndarray, logits: np.ndarray, threshold: float | None = None, pieces: int = 3) -> ScoreCounts:
    """Count the rows as several tasks of a model of 19 classes with these attack logits would."""
    attack = 1 / (1 + np.exp(-logits))
    probabilities = np.zeros((len(labels), 19))
    probabilities[:, 0], probabilities[:, 1] = 1 - attack, attack
    at_each = {
        level: np.stack([probabilities[:, parents(19, level) == i].sum(axis=1) for i in range(level)], axis=1)
        for level in (19, 6, 2)
    }
    parts = [score_counts.no_counts(19)]
    for own in np.array_split(np.random.default_rng(0).permutation(len(labels)), pieces):
        some = {level: p[own].astype(np.float32) for level, p in at_each.items()}
        predicted = {level: p.argmax(axis=1).astype(np.int32) for level, p in some.items()}
        counted = np.full(len(own), True)
        parts.append(score_counts.count(some, predicted, labels[own], counted, threshold))
    return score_counts.merged(parts)


def measured(counts: ScoreCounts, levels: tuple[int, ...] = (19, 6, 2)) -> dict[tuple[int, str | None, str], dict]:
    rows = list(night_metrics(counts.logits, counts.flagged, levels, np.random.default_rng(7)))
    found = {(level, row["class_name"], row["metric"]): row for level, row in rows}
    assert len(found) == len(rows)
    return found


def recall_at(labels: np.ndarray, logits: np.ndarray, rate: float, of: np.ndarray) -> float:
    """Share of some rows at or above the lowest threshold that flags at most this share of benign rows."""
    benign = logits[labels == 0]
    values = np.append(np.unique(logits), np.inf)
    reaching = len(benign) - np.searchsorted(np.sort(benign), values, side="left")
    return float((logits[of] >= values[reaching <= round(rate * len(benign), 9)].min()).mean())


def names_at(labels: np.ndarray, level: int) -> np.ndarray:
    category = np.array([class6_of(CLASS19[i]) for i in labels])
    return {19: np.array(CLASS19)[labels], 6: category, 2: np.array([class2_of(name) for name in category])}[level]


def test_recall_is_that_of_the_lowest_threshold_that_few_benign_rows_reach() -> None:
    labels, logits = rows_of(2_900, 500, seed=1)
    found = measured(counts_of(labels, logits))
    for level in (19, 6, 2):
        names = names_at(labels, level)
        classes = sorted(set(names) - {"Benign"})
        for rate in (1e-3, 1e-2):
            recalls = [recall_at(labels, logits, rate, names == name) for name in classes]
            at = [found[level, name, name_at(rate)] for name in classes]
            assert [row["value"] for row in at] == pytest.approx(recalls, abs=1e-12)
            assert [row["support"] for row in at] == [(names == name).sum() for name in classes]
            macro = found[level, None, name_at(rate)]
            assert macro["value"] == pytest.approx(np.mean(recalls), abs=1e-12)
            assert macro["low"] <= macro["value"] <= macro["high"]
        rare = found[level, None, RARE_RECALL]
        assert rare["value"] == pytest.approx(np.mean([recall_at(labels, logits, 1e-2, labels == i) for i in FEWEST]))
        assert rare["support"] == np.isin(labels, FEWEST).sum()
        assert rare["low"] < rare["value"] < rare["high"]
    for name, rate in RATES.items():
        value = found[2, None, name]["value"]
        assert (
            value is None
            if rate * 2_900 < 0.999
            else value == pytest.approx(recall_at(labels, logits, rate, labels > 0))
        )


def test_the_area_is_that_below_the_steps_of_scikit_learns_curve() -> None:
    labels, logits = rows_of(1_700, 500, seed=3)
    found = measured(counts_of(labels, logits))
    areas = []
    for rows in (labels > 0, *(labels == i for i in RARE)):
        of = rows | (labels == 0)
        rate, recall, _ = roc_curve(rows[of], logits[of], drop_intermediate=False)
        at = np.linspace(0, 0.01, 17_001)[:-1] + 0.01 / 34_000  # middles of equal steps
        areas.append(recall[np.searchsorted(rate, at, side="right") - 1].mean())
    assert found[2, None, "area_to_1e-2"]["value"] == pytest.approx(areas[0], abs=1e-3)
    assert found[19, None, "area_to_1e-2"]["value"] == pytest.approx(np.mean(areas[1:]), abs=1e-3)


def test_intervals_are_those_of_a_bootstrap_over_rows() -> None:
    labels, logits = rows_of(1_200, 150, seed=5)
    found = measured(counts_of(labels, logits, threshold=-1.0))
    rng, drawn = np.random.default_rng(11), []
    for _ in range(400):
        own = rng.integers(len(labels), size=len(labels))
        y, s = labels[own], logits[own]
        # the threshold is above the (k + 1)-th highest benign score
        highest = np.sort(s[y == 0])[::-1]
        at = [highest[int((y == 0).sum()) // n] for n in (1_000, 100)]
        macro = [np.mean([(s[y == i] > t).mean() for i in RARE]) for t in at]
        night = [np.mean([(s[y == i] >= -1).mean() for i in RARE]), (s[y == 0] >= -1).mean()]
        drawn.append([*macro, *night])
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    for i, name in enumerate(("recall_at_1e-3", "recall_at_1e-2", "recall_at_night", "benign_rate_at_night")):
        row = found[19, None, name]
        width = high[i] - low[i]
        assert (row["low"], row["high"]) == pytest.approx((low[i], high[i]), abs=0.2 * width), name
        assert width > 0.005


def test_rows_with_the_score_of_the_threshold_are_flagged_only_if_all_of_them_fit() -> None:
    labels = np.array([0] * 1_000 + [18] * 10, dtype=np.int32)
    logits = np.array([2.0] * 9 + [1.0] * 2 + [-4.0] * 989 + [3, 2, 2, 1.5, 1, 1, 0, 0, -4, -5])
    found = measured(counts_of(labels, logits))
    # ten benign rows are allowed; the two at 1.0 would be the 10th and the 11th
    assert found[19, "ARP_Spoofing", "recall_at_1e-2"]["value"] == 0.4
    assert found[19, "ARP_Spoofing", "recall_at_1e-3"]["value"] == 0.1
    # no benign row up to .9 %, nine from there on
    assert found[19, None, "area_to_1e-2"]["value"] == pytest.approx(0.9 * 0.1 + 0.1 * 0.4)
    logits[10] = -4.0
    assert measured(counts_of(labels, logits))[19, None, "recall_at_1e-2"]["value"] == 0.8


def test_at_the_threshold_of_the_night_every_row_that_reaches_it_counts() -> None:
    labels = np.array([0] * 8 + [1, 1, 1, 18], dtype=np.int32)
    logits = np.array([-3.0] * 6 + [0.5, 2.0, 0.5, 1.0, -1.0, 0.25])
    threshold = float(np.log(np.float32(1 / (1 + np.exp(-0.5)))) - np.log(np.float32(1 - 1 / (1 + np.exp(-0.5)))))
    found = measured(counts_of(labels, logits, threshold))
    assert found[2, None, "benign_rate_at_night"]["value"] == 2 / 8
    assert found[19, "DDoS-ICMP", "recall_at_night"]["value"] == pytest.approx(2 / 3)
    assert found[19, None, "recall_at_night"]["value"] == pytest.approx((2 / 3 + 0) / 2)
    assert found[2, "Attack", "recall_at_night"]["value"] == pytest.approx(2 / 4)
    assert found[6, None, "recall_at_1e-2"]["value"] is None  # eight benign rows support no such rate
    assert found[6, None, "area_to_1e-2"]["value"] is None


def test_without_benign_rows_attacks_or_a_threshold_there_is_no_figure_about_them() -> None:
    only = np.array([1, 2], np.int32), np.array([0.5, 1.0])
    assert {name for _, _, name in measured(counts_of(*only, threshold=0.75))} == {"recall_at_night"}
    assert measured(counts_of(*only)) == {}
    benign = np.zeros(2_000, np.int32), np.linspace(-5, 5, 2_000)
    assert {name for _, _, name in measured(counts_of(*benign, threshold=0.0))} == {"benign_rate_at_night"}
    assert measured(counts_of(np.zeros(0, np.int32), np.zeros(0), threshold=0.0)) == {}


def test_of_many_rows_the_rank_of_the_threshold_and_the_width_of_the_interval_are_right() -> None:
    rng = np.random.default_rng(2)
    benign, attacks = 100_000, 20_000
    labels = np.concatenate([np.zeros(benign, np.int32), rng.choice(RARE, attacks).astype(np.int32)])
    logits = np.where(labels == 0, rng.normal(-4, 1.5, len(labels)), rng.normal(1, 2, len(labels)))
    found = measured(counts_of(labels, logits), (19,))
    limit = np.partition(logits[labels == 0], benign - benign // 100 - 1)[benign - benign // 100 - 1]
    expected = np.mean([(logits[labels == i] > limit).mean() for i in RARE])
    row = found[19, None, "recall_at_1e-2"]
    assert row["value"] == pytest.approx(expected, abs=3 / attacks)
    error = math.sqrt(expected * (1 - expected) / attacks)
    assert 3 * error < row["high"] - row["low"] < 8 * error


def test_the_names_of_the_rates() -> None:
    assert list(RATES)[:3] == ["recall_at_5e-4", "recall_at_1e-3", "recall_at_1.5e-3"]
    assert RATES["recall_at_1e-2"] == 0.01
    assert len(CLASSES[19]) == 19
