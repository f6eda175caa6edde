"""Columns of predictions, compared with numpy."""

import numpy as np
import pyarrow as pa
import pytest

from ids_spark.base.arrays import as_rows, by_column, largest_columns
from ids_spark.dataset.tables import night_predictions
from ids_spark.dataset.taxonomy import CLASS6, CLASS19, CLASSES, LEVELS, class2_of, class6_of
from ids_spark.score import prediction_columns


def softmax(rows: int, classes: int, seed: int = 3) -> np.ndarray:
    p = np.exp(np.random.default_rng(seed).normal(0, 2, (rows, classes))).astype(np.float32)
    return p / p.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("rows", [0, 1, 511, 512, 513, 2_000])
def test_columns_become_rows(rows: int) -> None:
    matrix = np.random.default_rng(1).normal(size=(rows, 7)).astype(np.float32)
    found = as_rows([matrix[:, i].copy() for i in range(7)])
    assert found.shape == (rows, 7)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, matrix)


@pytest.mark.parametrize("columns", [1, 2, 19, 127])
def test_the_largest_column_is_that_of_argmax(columns: int) -> None:
    matrix = np.random.default_rng(2).integers(0, 9, (500, columns)).astype(np.float32)  # with equal ones
    matrix[3] = np.nan
    for stored in (matrix, by_column(list(matrix.T))):
        found = largest_columns(stored)
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, matrix.argmax(axis=1))
    assert largest_columns(matrix[:0]).shape == (0,)


def test_constants_and_names_by_id_are_dictionaries_that_copy_no_text() -> None:
    named = prediction_columns.dictionary(np.array([2, 0, 2], np.int32), ("a", "b", "c"))
    assert named.to_pylist() == ["c", "a", "c"]
    assert len(named.dictionary) == 3
    assert prediction_columns.constant("x", pa.string(), 3).to_pylist() == ["x"] * 3
    assert prediction_columns.constant(5, pa.int32(), 2).equals(pa.array([5, 5], pa.int32()))
    assert prediction_columns.constant("x", pa.string(), 0).to_pylist() == []


@pytest.mark.parametrize("level", LEVELS)
def test_the_attack_probability_is_the_sum_over_attack_classes_also_where_benign_is_all_but_certain(level: int) -> None:
    scores = np.random.default_rng(8).normal(0, 2, (2_000, level)).astype(np.float32)
    scores[:, 0] += np.linspace(-40, 40, 2_000).astype(np.float32)
    exact = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    exact /= exact.sum(axis=1, keepdims=True)
    found = prediction_columns.attack_probabilities(exact.astype(np.float32))
    expected = exact[:, 1:].sum(axis=1)  # in float64
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=2e-6)
    certain = exact[:, 0] > 1 - 1e-9
    assert certain.any()
    assert (found[certain] > 0).all()  # where 1 - P(benign) in float32 is 0
    assert found.max() <= 1.0


def test_an_attack_probability_is_at_most_1_and_nan_stays_nan() -> None:
    above = np.full((1, 19), np.float32(1.00001 / 18))
    above[0, 0] = 0.0
    assert prediction_columns.attack_probabilities(above).tolist() == [1.0]
    assert np.isnan(prediction_columns.attack_probabilities(np.full((1, 6), np.nan, np.float32))).all()
    assert prediction_columns.attack_probabilities(np.empty((0, 6), np.float32)).shape == (0,)


@pytest.mark.parametrize("level", LEVELS)
def test_a_coarser_class_is_the_one_with_the_highest_sum_of_its_members(level: int) -> None:
    p = softmax(500, level)
    found = prediction_columns.predicted_ids(p, level)
    assert list(found) == [other for other in (19, 6, 2) if other <= level]
    six_of = [class6_of(name) for name in CLASSES[level]]
    for coarser, ids in found.items():
        own = {19: CLASSES[level], 6: six_of, 2: [class2_of(six) for six in six_of]}[coarser]
        names = own if coarser == level else CLASSES[coarser]
        sums = np.column_stack([p[:, [name == each for each in own]].sum(axis=1) for name in names])
        assert ids.tolist() == sums.argmax(axis=1).tolist()


def test_many_attacks_that_are_each_less_probable_than_benign_are_an_attack_together() -> None:
    p = np.full((1, 19), 0.6 / 18, np.float32)
    p[0, 0] = 0.4
    found = prediction_columns.predicted_ids(p, 19)
    assert CLASS19[found[19][0]] == "Benign"
    assert CLASS6[found[6][0]] == "Benign"
    assert found[2].tolist() == [1]


@pytest.mark.parametrize("level", LEVELS)
def test_the_three_most_probable_classes_come_best_first(level: int) -> None:
    p = softmax(300, level)
    found = prediction_columns.top_classes(p, level).to_pylist()
    order = np.argsort(-p, axis=1, kind="stable")[:, :3]
    names = np.array(CLASSES[level])
    assert [[each["class_name"] for each in row] for row in found] == names[order].tolist()
    assert [[each["probability"] for each in row] for row in found] == np.take_along_axis(p, order, axis=1).tolist()
    assert prediction_columns.top_classes(p[:0], level).to_pylist() == []


def test_top_leaves_the_probabilities_as_they_are_and_takes_the_first_of_equals() -> None:
    p = np.full((2, 6), 1 / 6, np.float32)
    assert [each["class_name"] for each in prediction_columns.top_classes(p, 6).to_pylist()[0]] == list(CLASS6[:3])
    assert (p == np.float32(1 / 6)).all()


def test_values_are_scattered_to_their_rows_and_the_others_are_null() -> None:
    values = pa.array([["a"], ["b", "c"]])
    assert prediction_columns.scatter(values, np.array([3, 1]), 5).to_pylist() == [
        None,
        ["b", "c"],
        None,
        ["a"],
        None,
    ]
    assert prediction_columns.scatter(values[:0], np.array([], np.int64), 2).to_pylist() == [None, None]


def test_a_table_has_the_columns_of_the_contract_and_null_for_those_that_are_not_known() -> None:
    contract = night_predictions(("flow_id", "event_time"), "event_time", ("levels", "top3", "attributions", "lineage"))
    known = {
        "source_file": prediction_columns.constant("a", pa.string(), 2),
        "probability": pa.array([0.5, 0.7]),  # doubles; the contract has floats
        "not of the contract": pa.array([1, 2]),
    }
    found = prediction_columns.assemble(known, contract)
    assert found.column_names == contract.names
    assert found["source_file"].to_pylist() == ["a", "a"]
    assert found.schema.field("probability").type == pa.float32()
    assert found["predicted_class19"].null_count == found["event_time"].null_count == 2
    assert found.cast(contract).schema == contract
