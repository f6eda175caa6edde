"""The feed over real Petastorm readers and real parquet."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ids_spark.feed import Shard, batches
from ids_spark.parts import part_name, write_part
from ids_spark.schema import features_contract

COLUMNS = ("a", "b")
GROUP_ROWS = (50, 37, 64, 50, 11)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Five files of one row group; column a numbers all rows, b is a / 2, the label is a mod 19."""
    folder, contract, start = tmp_path_factory.mktemp("features") / "split=train", features_contract(COLUMNS), 0
    for i, rows in enumerate(GROUP_ROWS):
        number = np.arange(start, start + rows)
        label = (number % 19).astype(np.int32)
        half = (number / 2).astype(np.float32)
        arrays = [pa.array(c) for c in (number, number.astype(np.float32), half, label, label, label)]
        write_part(str(folder), part_name(i), [pa.Table.from_arrays(arrays, schema=contract)], contract, {})
        start += rows
    return f"file://{folder}"


def read(split: str, rank: int, size: int, batch: int, *, endless: bool, steps: int = 0, seed: int = 1) -> np.ndarray:
    shard = Shard(split, COLUMNS, "label19", rank, size, seed)
    with batches(shard, batch, endless=endless) as dataset:
        taken = dataset.take(steps) if steps else dataset
        found = [(x.numpy(), y.numpy()) for x, y in taken]
    if endless:
        assert all(len(x) == batch for x, _ in found)
    features, labels = np.concatenate([x for x, _ in found]), np.concatenate([y for _, y in found])
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features[:, 1], features[:, 0] / 2)  # columns keep their order and rows stay whole
    np.testing.assert_array_equal(labels, features[:, 0].astype(int) % 19)
    return features[:, 0].astype(int)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_one_pass_over_all_shards_gives_every_row_once(split: str, size: int) -> None:
    for _ in range(10):  # a reader that ends too early does so now and then
        seen = np.concatenate([read(split, rank, size, 16, endless=False) for rank in range(size)])
        np.testing.assert_array_equal(np.sort(seen), np.arange(sum(GROUP_ROWS)))


def test_an_endless_feed_repeats_its_shard_and_never_another(split: str) -> None:
    own = [set(read(split, rank, 2, 16, endless=False)) for rank in (0, 1)]
    seen = read(split, 0, 2, 8, endless=True, steps=60)
    assert len(seen) == 480
    assert set(seen) == own[0]
    assert not set(seen) & own[1]


def test_every_row_of_a_shard_comes_once_in_each_pass(split: str) -> None:
    rows = len(read(split, 0, 1, 16, endless=False))
    seen = read(split, 0, 1, rows // 4, endless=True, steps=8)
    np.testing.assert_array_equal(np.sort(seen[:rows]), np.arange(rows))
    np.testing.assert_array_equal(np.sort(seen[rows : 2 * rows]), np.arange(rows))


def test_order_is_shuffled_and_the_same_for_a_seed(split: str) -> None:
    first, again = (read(split, 0, 1, 16, endless=True, steps=13, seed=5) for _ in range(2))
    other = read(split, 0, 1, 16, endless=True, steps=13, seed=6)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (np.diff(first[:50]) != 1).mean() > 0.5


def test_the_reader_is_closed_at_the_end(split: str, tmp_path: Path) -> None:
    import threading

    before = threading.active_count()
    read(split, 0, 1, 16, endless=True, steps=2)
    assert threading.active_count() <= before + 1  # tf.data keeps one thread of its own for a while
