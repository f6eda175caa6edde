"""The expected calibration error and its bins, against a direct computation on rows and a row bootstrap."""

import numpy as np
import pytest

from ids_spark.dataset.taxonomy import parents
from ids_spark.evaluate import calibration, score_counts
from ids_spark.models.levels import at_levels


def rows_of(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities of 19 classes and labels that are right less often than they say."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2.5, (n, 19))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    right = rng.random(n) < 0.8 * probabilities.max(axis=1)
    labels = np.where(right, probabilities.argmax(axis=1), rng.integers(0, 19, n))
    return probabilities.astype(np.float32), labels.astype(np.int32)


def error_of(highest: np.ndarray, right: np.ndarray) -> float:
    """The definition, bin by bin: (i/15, (i+1)/15]."""
    total = 0.0
    for i in range(15):
        inside = (highest > i / 15) & (highest <= (i + 1) / 15)
        if inside.any():
            total += inside.sum() * abs(right[inside].mean() - highest[inside].mean())
    return total / len(highest)


@pytest.mark.parametrize("level", [19, 2])
def test_the_error_and_every_bin_are_those_of_the_rows(level: int) -> None:
    probabilities, labels = rows_of(900, seed=level)
    at_each = at_levels(probabilities, 19)
    predicted = {each: p.argmax(axis=1).astype(np.int32) for each, p in at_each.items()}
    counted = np.arange(900) % 3 > 0
    halves = [
        score_counts.count(at_each, predicted, labels, counted & (np.arange(900) % 2 == part), None) for part in (0, 1)
    ]
    counts = score_counts.unpacked(score_counts.packed(score_counts.merged(halves)), 19)
    found = {
        row["metric"]: row for row in calibration.calibration_of(counts.confidences[level], np.random.default_rng(7))
    }
    highest = at_each[level].max(axis=1).astype(np.float64)[counted]
    right = (predicted[level] == parents(19, level)[labels])[counted]
    row = found["expected_calibration_error"]
    assert row["value"] == pytest.approx(error_of(highest, right), abs=1e-9)
    assert row["support"] == 600
    bins = np.ceil(highest * 15).astype(int)
    assert set(found) - {"expected_calibration_error"} == {
        f"{name}_{i:02d}" for i in set(bins) for name in ("mean_confidence", "accuracy_at_confidence")
    }
    for i in set(bins):
        share = found[f"accuracy_at_confidence_{i:02d}"]
        assert (share["value"], share["support"]) == (pytest.approx(right[bins == i].mean()), (bins == i).sum())
        assert found[f"mean_confidence_{i:02d}"]["value"] == pytest.approx(highest[bins == i].mean(), abs=1e-9)

    rng, drawn = np.random.default_rng(3), []
    for _ in range(400):
        own = rng.integers(600, size=600)
        drawn.append(error_of(highest[own], right[own]))
    low, high = np.quantile(np.array(drawn) - np.mean(drawn) + row["value"], (0.025, 0.975))
    assert (row["low"], row["high"]) == pytest.approx((max(low, 0), high), abs=0.2 * (high - low))


def test_without_rows_there_is_no_error() -> None:
    assert list(calibration.calibration_of(score_counts.no_counts(2).confidences[2], np.random.default_rng(7))) == []


def test_counts_add_up_and_keep_their_classes() -> None:
    probabilities, labels = rows_of(50, seed=4)
    at_each = at_levels(probabilities, 19)
    predicted = {each: p.argmax(axis=1).astype(np.int32) for each, p in at_each.items()}
    counts = score_counts.count(at_each, predicted, labels, np.full(50, True), 0.0)
    for level, confusion in counts.confusions.items():
        expected = np.zeros((level, level), dtype=np.int64)
        np.add.at(expected, (parents(19, level)[labels], predicted[level]), 1)
        np.testing.assert_array_equal(confusion, expected)
    assert counts.logits is not None
    rows = [int(counts.logits.of_class(i)[1].sum()) for i in range(19)]
    assert rows == np.bincount(labels, minlength=19).tolist()
