"""Which falls of recall refuse a challenger; the test of paired counts is compared with scipy."""

import numpy as np
import pytest
from scipy.stats import binomtest

from ids_spark.adapt.gate import compare
from ids_spark.adapt.replay import Replayed
from ids_spark.dataset.taxonomy import CLASS19

SYN, SCAN, BENIGN = CLASS19.index("DDoS-SYN"), CLASS19.index("Recon-OS_Scan"), 0


def replayed(**rows: tuple[int, int, int, int]) -> Replayed:
    """Return a replay of two models: rows that neither, only the first, only the second, and both flag, by class."""
    patterns = np.zeros((19, 4), dtype=np.int64)
    for name, counts in rows.items():
        patterns[{"syn": SYN, "scan": SCAN, "benign": BENIGN}[name]] = counts
    return Replayed((0.0, 0.0), patterns, (np.zeros((19, 19), dtype=np.int64),) * 2)


def test_a_large_loss_refuses_and_is_named() -> None:
    found = compare(replayed(syn=(10, 200, 5, 785), scan=(0, 3, 2, 995), benign=(900, 0, 90, 10)), 0.02)
    assert not found.accepted
    [fallen] = found.fallen
    assert (fallen.class_name, fallen.rows, fallen.champion, fallen.challenger) == ("DDoS-SYN", 1_000, 985, 790)
    assert fallen.change == pytest.approx(-0.195)
    assert fallen.p_value == pytest.approx(binomtest(200, 205, alternative="greater").pvalue)
    assert "DDoS-SYN 0.985 → 0.790 of 1,000 rows" in found.statement()
    assert [each.class_name for each in found.classes] == ["DDoS-SYN", "Recon-OS_Scan"]  # benign rows have no recall


def test_the_order_of_the_models_is_that_of_the_call() -> None:
    counts = replayed(syn=(10, 200, 5, 785))
    assert compare(counts, 0.02, champion=1, challenger=0).accepted


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ((0, 19, 0, 981), "a loss of less than .02, however certain"),
        ((4, 3, 0, 3), "a loss of .3 of ten rows, which chance explains"),
        ((100, 210, 190, 500), "a loss of .02 between models that differ in many rows"),
        ((0, 0, 0, 50), "no loss"),
    ],
)
def test_a_small_or_doubtful_loss_is_accepted(counts: tuple[int, int, int, int], reason: str) -> None:
    assert compare(replayed(syn=counts), 0.02).accepted, reason


def test_with_more_classes_a_loss_must_be_more_certain() -> None:
    five_of_five = (95, 5, 0, 0)  # p = 1/32
    assert binomtest(5, 5, alternative="greater").pvalue == pytest.approx(1 / 32)
    assert not compare(replayed(syn=five_of_five), 0.02).accepted
    assert compare(replayed(syn=five_of_five, scan=(0, 0, 0, 9)), 0.02).accepted


def test_equal_models_are_rarely_refused() -> None:
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(400):
        patterns = np.zeros((19, 4), dtype=np.int64)
        for i in range(1, 19):
            rows = int(rng.integers(5, 300))
            patterns[i] = rng.multinomial(rows, (0.05, 0.1, 0.1, 0.75))
        refused += not compare(Replayed((0.0, 0.0), patterns, (np.zeros((2, 2), np.int64),) * 2), 0.02).accepted
    assert refused <= 0.05 * 400


def test_without_attack_rows_nothing_is_compared() -> None:
    found = compare(replayed(benign=(9, 0, 0, 1)), 0.02)
    assert found.accepted
    assert "Nothing was compared" in found.statement()
