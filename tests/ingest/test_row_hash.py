import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ids_spark.ingest.row_hash import buckets, held_out, order_of, row_keys

number = st.floats(allow_nan=False)
table = st.integers(1, 5).flatmap(lambda width: st.lists(st.tuples(*[number] * width), min_size=1, max_size=20))


def keys_of(rows):
    return row_keys([np.array(column, dtype=np.float64) for column in zip(*rows, strict=True)])


@pytest.fixture(scope="module")
def million():
    rng = np.random.default_rng(11)
    coarse = rng.integers(0, 8, (2, 1_000_000)).astype(np.float64)  # as real flows: many equal values in a column
    return row_keys([*coarse, np.arange(1_000_000, dtype=np.float64)])


@pytest.mark.parametrize(
    ("row", "key"),
    [  # xxHash64, seed 0, of the row as little-endian doubles, by the reference library (xxhash 3)
        ((0.0,), 0x34C96ACDCADB1BBB),
        ((1.5,), 0x49F7B96B6B5CCAF9),
        ((1.0, -2.5), 0x7539FA1B0E199856),
        ((8.0, 17.0, np.inf), 0x6FD227042837421A),
        ((-np.inf, 1e300, 5e-324), 0x6F161CE6DB61872F),
    ],
)
def test_a_key_is_the_same_in_every_version(row, key):
    assert keys_of([row]).tolist() == [key]


def test_the_key_of_a_wide_row_is_the_one_of_version_0_1():
    assert keys_of([tuple(i / 4 for i in range(45))]).tolist() == [-1419344811927341542]


@given(table)
def test_rows_share_a_key_exactly_when_their_vectors_are_equal(rows):
    keys = keys_of(rows)
    for i, row in enumerate(rows):
        assert [key == keys[i] for key in keys.tolist()] == [other == row for other in rows]


@given(table, st.randoms())
def test_a_key_depends_on_its_own_row_alone(rows, random):
    order = list(range(len(rows)))
    random.shuffle(order)
    np.testing.assert_array_equal(keys_of([rows[i] for i in order]), keys_of(rows)[order])
    assert keys_of([rows[-1]])[0] == keys_of(rows)[-1]


def test_zero_and_minus_zero_are_equal_and_infinities_are_not():
    plus, minus, up, down, large = keys_of([(0.0, 1.0), (-0.0, 1.0), (np.inf, 1.0), (-np.inf, 1.0), (1e308, 1.0)])
    assert plus == minus
    assert len({plus, up, down, large}) == 4


def test_the_order_and_number_of_columns_matter():
    assert len({*keys_of([(1.0, 2.0), (2.0, 1.0)]), *keys_of([(1.0, 2.0, 0.0)]), *keys_of([(0.0, 1.0, 2.0)])}) == 4


def test_strided_columns_have_the_keys_of_their_values():
    matrix = np.arange(12, dtype=np.float64).reshape(4, 3)
    np.testing.assert_array_equal(row_keys(list(matrix.T)), keys_of([tuple(row) for row in matrix]))


def test_keys_of_no_rows_are_empty_and_of_no_columns_refused():
    assert row_keys([np.array([])]).shape == (0,)
    with pytest.raises(ValueError, match="row_keys needs at least one column"):
        row_keys([])


def test_a_million_distinct_rows_have_a_million_keys(million):
    assert len(np.unique(million)) == 1_000_000


@pytest.mark.parametrize("count", [1, 2, 7, 15, 64, 1000])
def test_buckets_are_even(million, count):
    found = np.bincount(buckets(million, count), minlength=count)
    assert len(found) == count
    expected = 1_000_000 / count
    chi_square = float(((found - expected) ** 2 / expected).sum())
    assert chi_square <= count - 1 + 6 * np.sqrt(2 * count)  # six standard deviations above its mean


@pytest.mark.parametrize("count", [1, 3, 15, 1000])
def test_buckets_follow_one_another_in_the_order_of_keys(million, count):
    ordered = million[order_of(million)]
    assert (np.diff(ordered.view(np.uint64).astype(object)[:1000]) >= 0).all()
    assert (ordered.view(np.uint64)[1:] >= ordered.view(np.uint64)[:-1]).all()
    assert (np.diff(buckets(ordered, count)) >= 0).all()


def test_a_bucket_is_the_share_of_the_unsigned_range_below_the_key():
    assert buckets(np.array([0, 2**62, -(2**63), -1], dtype=np.int64), 10).tolist() == [0, 2, 5, 9]


@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 2), st.integers(0, 2)), max_size=30))
def test_ties_are_broken_in_the_order_given(rows):
    columns = [np.array(c, dtype=np.int64) for c in zip(*rows, strict=True)] or [np.array([], dtype=np.int64)] * 3
    unsigned = [(key % 2**64, first, second) for key, first, second in rows]
    assert order_of(*columns).tolist() == sorted(range(len(rows)), key=lambda i: (unsigned[i], i))


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9])
def test_the_share_held_out_is_close_to_the_share_asked_for(million, share):
    deviation = np.sqrt(share * (1 - share) / len(million))
    assert abs(held_out(million, share).mean() - share) < 5 * deviation


def test_the_rows_held_out_are_those_of_version_0_1():
    out = held_out(row_keys([np.arange(40.0)]), 0.2)
    assert np.flatnonzero(out).tolist() == [7, 9, 11, 15, 16, 24, 35]


def test_nothing_or_everything_can_be_held_out(million):
    assert not held_out(million, 0.0).any()
    assert held_out(million, 1.0).all()


def test_a_larger_share_holds_out_the_same_rows_and_more(million):
    assert not (held_out(million, 0.2) & ~held_out(million, 0.3)).any()


def test_being_held_out_is_independent_of_the_bucket(million):
    bucket, out = buckets(million, 50), held_out(million, 0.2)
    shares = np.bincount(bucket, weights=out) / np.bincount(bucket)
    assert np.abs(shares - 0.2).max() < 6 * np.sqrt(0.2 * 0.8 / 20_000)
