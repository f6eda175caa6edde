import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ids_spark.ingest.dedup import marks_of
from ids_spark.ingest.row_hash import order_of, row_keys

# Few values, so that equal vectors are common; 0.1 + 0.2 and 0.3 differ in the last place only.
value = st.sampled_from([0.0, -0.0, 0.3, 0.1 + 0.2, np.inf, -np.inf, 1.7e308])
rows = st.lists(st.tuples(st.integers(0, 2), value, value), max_size=40)


def sorted_rows(drawn, keys_of=row_keys):
    labels = np.array([label for label, *_ in drawn], dtype=np.int32)
    columns = [np.array([row[i] for row in drawn], dtype=np.float64) for i in (1, 2)]
    keys = keys_of(columns)
    order = order_of(keys, labels)
    return keys[order], labels[order], [column[order] for column in columns]


def expected_marks(labels, columns):
    """Return the marks by pandas, with Python's equality: 0.0 == -0.0, inf == inf."""
    frame = pd.DataFrame({"vector": list(zip(*columns, strict=True)), "label": labels})
    labels_of = frame.groupby("vector")["label"].nunique()
    return frame.duplicated().to_numpy(bool), (frame["vector"].map(labels_of) > 1).to_numpy(bool)


def check(keys, labels, columns):
    marks = marks_of(keys, labels, columns)
    duplicate, label_conflict = expected_marks(labels, columns)
    np.testing.assert_array_equal(marks.duplicate, duplicate)
    np.testing.assert_array_equal(marks.label_conflict, label_conflict)


@given(rows)
def test_marks_are_those_of_pandas(drawn):
    check(*sorted_rows(drawn))


@given(rows, st.integers(1, 3))
def test_vectors_that_share_a_key_are_distinguished_by_value(drawn, keys):
    def colliding(columns):
        ids = {vector: i for i, vector in enumerate(dict.fromkeys(zip(*columns, strict=True)))}
        return np.array([ids[v] % keys - 1 for v in zip(*columns, strict=True)], dtype=np.int64)

    check(*sorted_rows(drawn, colliding))


def test_interleaved_vectors_under_one_key_all_stay():
    keys = np.full(6, -4, dtype=np.int64)
    columns = [np.array([1.0, 2.0, 1.0, 3.0, 2.0, 1.0])]
    marks = marks_of(keys, np.array([0, 0, 0, 0, 0, 5], dtype=np.int32), columns)
    assert marks.duplicate.tolist() == [False, False, True, False, True, False]
    assert marks.label_conflict.tolist() == [True, False, True, False, False, True]


def test_one_vector_under_two_labels_keeps_both_and_marks_each_row():
    keys = np.array([3, 3, 3, 9], dtype=np.int64)
    columns = [np.array([1.0, 1.0, 1.0, 1.5]), np.array([np.inf, np.inf, np.inf, 0.0])]
    marks = marks_of(keys, np.array([4, 4, 7, 7], dtype=np.int32), columns)
    assert marks.duplicate.tolist() == [False, True, False, False]
    assert marks.label_conflict.tolist() == [True, True, True, False]


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [(np.inf, np.inf, True), (np.inf, -np.inf, False), (0.0, -0.0, True), (0.1 + 0.2, 0.3, False), (1e15, 1e15, True)],
)
def test_equality_is_that_of_doubles(first, second, equal):
    marks = marks_of(np.zeros(2, dtype=np.int64), np.zeros(2, dtype=np.int32), [np.array([first, second])])
    assert marks.duplicate.tolist() == [False, equal]


def test_keys_are_ordered_as_unsigned():
    keys = np.array([5, -5], dtype=np.int64)  # -5 is 2⁶⁴-5
    labels, columns = np.zeros(2, dtype=np.int32), [np.zeros(2)]
    assert not marks_of(keys, labels, columns).duplicate.any()
    with pytest.raises(ValueError, match="flows are not sorted by row key"):
        marks_of(keys[::-1].copy(), labels, columns)


def test_equal_keys_that_are_not_adjacent_are_refused():
    with pytest.raises(ValueError, match="flows are not sorted by row key"):
        marks_of(np.array([1, 2, 1], dtype=np.int64), np.zeros(3, dtype=np.int32), [np.zeros(3)])


@pytest.mark.parametrize("count", [0, 1])
def test_no_row_and_one_row_have_no_equal(count):
    marks = marks_of(np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int32), [np.zeros(count)])
    assert marks.duplicate.tolist() == marks.label_conflict.tolist() == [False] * count
