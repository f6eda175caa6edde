import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from ids_spark.evaluate.metrics import confusion_rows, metrics_of
from ids_spark.evaluate.score_counts import confusion_of

NAMES = ("Benign", "DDoS", "DoS", "MQTT", "Recon", "Spoofing")
pairs = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=60)


def split(drawn):
    labels, predicted = np.array(drawn, dtype=np.int32).reshape(-1, 2).T
    return labels, predicted


def measured(labels, predicted):
    rows = list(metrics_of(confusion_of(labels, predicted, 6), NAMES))
    found = {(row["class_name"], row["metric"]): row for row in rows}
    assert len(found) == len(rows)
    return found


@given(pairs)
def test_counts_are_those_of_scikit_learn(drawn):
    labels, predicted = split(drawn)
    np.testing.assert_array_equal(
        confusion_of(labels, predicted, 6), confusion_matrix(labels, predicted, labels=range(6))
    )


def test_the_confusion_matrix_is_one_row_for_each_pair_of_classes():
    rows = list(confusion_rows(np.array([[5, 1], [0, 7]]), ("Benign", "Attack")))
    assert [(row["class_name"], row["predicted_class"], row["count"]) for row in rows] == [
        ("Benign", "Benign", 5),
        ("Benign", "Attack", 1),
        ("Attack", "Benign", 0),
        ("Attack", "Attack", 7),
    ]


@given(pairs)
def test_averages_are_those_of_scikit_learn(drawn):
    labels, predicted = split(drawn)
    found = measured(labels, predicted)
    assert found[None, "accuracy"]["value"] == pytest.approx(accuracy_score(labels, predicted), abs=1e-12)
    for average in ("macro", "weighted"):
        expected = precision_recall_fscore_support(labels, predicted, average=average, zero_division=0)
        for metric, value in zip(("precision", "recall", "f1"), expected[:3], strict=True):
            row = found[None, f"{metric}_{average}"]
            assert row["value"] == pytest.approx(value, abs=1e-12)
            assert row["support"] == len(drawn)


@given(pairs)
def test_each_class_that_occurs_has_the_scores_of_scikit_learn(drawn):
    labels, predicted = split(drawn)
    found = measured(labels, predicted)
    occurring = sorted(set(labels.tolist()) | set(predicted.tolist()))
    assert {name for name, _ in found if name} == {NAMES[i] for i in occurring}
    expected = precision_recall_fscore_support(labels, predicted, labels=occurring, zero_division=0)
    for i, *scores, support in zip(occurring, *expected, strict=True):
        rows = [found[NAMES[i], metric] for metric in ("precision", "recall", "f1")]
        assert [row["value"] for row in rows] == pytest.approx(scores, abs=1e-12)
        assert [row["support"] for row in rows] == [support] * 3


def test_scores_by_hand():
    # label → prediction: Benign → Benign ×3, Benign → DoS, DoS → DoS ×2, DoS → MQTT
    found = measured(np.array([0, 0, 0, 0, 2, 2, 2], np.int32), np.array([0, 0, 0, 2, 2, 2, 3], np.int32))
    assert found[None, "accuracy"]["value"] == pytest.approx(5 / 7)
    assert [found["DoS", m]["value"] for m in ("precision", "recall", "f1")] == pytest.approx([2 / 3] * 3)
    assert [found["MQTT", m]["value"] for m in ("precision", "recall", "f1")] == [0.0, 0.0, 0.0]
    assert found["MQTT", "recall"]["support"] == 0
    assert found[None, "recall_macro"]["value"] == pytest.approx((3 / 4 + 2 / 3 + 0) / 3)
    assert found[None, "f1_weighted"]["value"] == pytest.approx((4 * 6 / 7 + 3 * 2 / 3) / 7)
    assert ("DDoS", "f1") not in found


def test_the_benign_false_positive_rate_counts_benign_rows_called_any_attack():
    labels = np.array([0] * 8 + [1] * 90, dtype=np.int32)
    predicted = np.array([0] * 5 + [1, 2, 5] + [0] * 90, dtype=np.int32)  # missed attacks do not count
    row = measured(labels, predicted)[None, "benign_false_positive_rate"]
    assert (row["value"], row["support"]) == (3 / 8, 8)


def test_without_benign_rows_there_is_no_false_positive_rate():
    row = measured(np.array([1, 2], np.int32), np.array([0, 2], np.int32))[None, "benign_false_positive_rate"]
    assert (row["value"], row["support"]) == (None, 0)


def test_without_rows_there_is_no_score():
    found = measured(np.array([], np.int32), np.array([], np.int32))
    assert {row["value"] for row in found.values()} == {None}
    assert {name for name, _ in found} == {None}
