"""The data loader over real Petastorm readers and real parquet."""

import contextlib
import pickle
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ids_spark.dataset.tables import features_contract
from ids_spark.lake.parquet import open_part, part_name, write_part
from ids_spark.train import data_loader
from ids_spark.train.data_loader import LoadedRows, Shard, epochs, one_pass, read_ahead

COLUMNS = ("a", "b")
GROUP_ROWS = (50, 37, 64, 50, 11)
ALL_ROWS = sum(GROUP_ROWS)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Five files of one row group; column a numbers all rows, b is a / 2, the label is a mod 19."""
    folder, contract, start = tmp_path_factory.mktemp("features") / "split=train", features_contract(COLUMNS), 0
    for i, rows in enumerate(GROUP_ROWS):
        number = np.arange(start, start + rows)
        label = (number % 19).astype(np.int32)
        half = (number / 2).astype(np.float32)
        arrays = [pa.array(c) for c in (number, number.astype(np.float32), half, label, label, label)]
        arrays.append(pa.nulls(rows, pa.int32()))
        write_part(str(folder), part_name(i), [pa.Table.from_arrays(arrays, schema=contract)], contract, {})
        start += rows
    return f"file://{folder}"


def numbers(blocks: Iterator[LoadedRows]) -> list[np.ndarray]:
    """Return the row numbers of each block, after a check of types, column order and labels."""
    found = []
    for features, labels in blocks:
        assert features.dtype == np.float32
        assert labels.dtype == np.int32
        np.testing.assert_array_equal(features[:, 1], features[:, 0] / 2)
        np.testing.assert_array_equal(labels, features[:, 0].astype(int) % 19)
        found.append(features[:, 0].astype(int))
    return found


def once(split: str, rank: int = 0, size: int = 1, most: int = 16) -> np.ndarray:
    return np.concatenate(numbers(one_pass(shard(split, rank, size), most)))


def shard(split: str, rank: int = 0, size: int = 1) -> Shard:
    return Shard(split, COLUMNS, "label19", rank, size, ALL_ROWS)


def mixed(
    split: str, sizes: list[int], rank: int = 0, size: int = 1, seed: int = 1, memory: int = 0
) -> list[np.ndarray]:
    return numbers(epochs(shard(split, rank, size), sizes, [seed], memory))


CACHED = pytest.mark.parametrize("memory", [0, 1_000_000], ids=["read in every epoch", "cached"])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_one_pass_over_all_shards_gives_every_row_once(split: str, size: int) -> None:
    for _ in range(10):  # a faulty reader ends too early only sometimes
        seen = np.concatenate([once(split, rank, size) for rank in range(size)])
        np.testing.assert_array_equal(np.sort(seen), np.arange(ALL_ROWS))


def test_one_pass_keeps_the_order_of_the_files_in_blocks_of_at_most_so_many_rows(split: str) -> None:
    blocks = numbers(one_pass(shard(split), 16))
    assert max(map(len, blocks)) == 16
    np.testing.assert_array_equal(np.concatenate(blocks), np.arange(ALL_ROWS))


@CACHED
def test_blocks_have_the_wanted_sizes_also_across_row_groups_and_passes(split: str, memory: int) -> None:
    sizes = [7, 100, 1, 212, 64]
    assert [len(block) for block in mixed(split, sizes, memory=memory)] == sizes


@CACHED
def test_a_shard_is_repeated_and_never_another(split: str, memory: int) -> None:
    own = [set(once(split, rank, 2)) for rank in (0, 1)]
    seen = np.concatenate(mixed(split, [48] * 10, 0, 2, memory=memory))
    assert set(seen) == own[0]
    assert not set(seen) & own[1]


@CACHED
@pytest.mark.parametrize("mixed_rows", [1, 100, 10_000])
def test_every_row_occurs_once_in_each_pass(
    split: str, mixed_rows: int, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_loader, "MIXED_ROWS", mixed_rows)
    first, second = mixed(split, [ALL_ROWS, ALL_ROWS], memory=memory)
    np.testing.assert_array_equal(np.sort(first), np.arange(ALL_ROWS))
    np.testing.assert_array_equal(np.sort(second), np.arange(ALL_ROWS))
    assert (first != second).any()


@CACHED
def test_equal_seeds_give_equal_blocks_and_others_do_not(split: str, memory: int) -> None:
    first, again = (np.concatenate(mixed(split, [16] * 13, seed=5, memory=memory)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first != np.concatenate(mixed(split, [16] * 13, seed=6, memory=memory))).any()


@CACHED
def test_an_epoch_does_not_depend_on_earlier_epochs(split: str, memory: int) -> None:
    sizes = [16, 100, 48]
    both = numbers(epochs(shard(split), sizes, [5, 6], memory))
    assert [len(block) for block in both] == sizes * 2
    later = numbers(epochs(shard(split), sizes, [6], memory))
    np.testing.assert_array_equal(np.concatenate(both[3:]), np.concatenate(later))


@CACHED
def test_a_batch_draws_from_several_row_groups(split: str, memory: int) -> None:
    (batch,) = mixed(split, [32], memory=memory)
    group_of = np.repeat(np.arange(len(GROUP_ROWS)), GROUP_ROWS)
    assert len(set(group_of[batch])) >= 3
    assert (np.diff(batch) != 1).mean() > 0.8


@pytest.mark.parametrize(("memory", "passes"), [(0, 3), (ALL_ROWS // 2 * 12 - 1, 3), (ALL_ROWS // 2 * 12, 1)])
def test_a_shard_that_fits_is_read_once(split: str, memory: int, passes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, make = [], data_loader.make_batch_reader

    def counted(*args: object, **options: object) -> object:
        opened.append(1)
        return make(*args, **options)

    monkeypatch.setattr(data_loader, "make_batch_reader", counted)
    list(epochs(shard(split, 1, 2), [40], [1, 2, 3], memory))  # rows of two features and a label, 4 bytes each
    assert len(opened) == passes


def test_reading_ahead_changes_nothing_and_leaves_no_thread(split: str) -> None:
    before = threading.active_count()
    with read_ahead(epochs(shard(split), [16] * 13, [5], 0)) as blocks:
        read = numbers(blocks)
    np.testing.assert_array_equal(np.concatenate(read), np.concatenate(mixed(split, [16] * 13, seed=5)))
    with read_ahead(epochs(shard(split), [16] * 1_000, [5], 0)) as blocks:
        next(blocks)  # a caller that stops early
    assert threading.active_count() == before


class Exploit:
    """Unpickled, even by an unpickler restricted to `builtins`, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return eval, (f"open({str(self.marker)!r}, 'w').close()",)


@pytest.fixture
def exploit(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Metadata that Petastorm would unpickle; checks that nothing did."""
    marker = tmp_path / "code was run"
    attack = pickle.dumps(Exploit(marker), protocol=0)
    pickle.loads(attack)  # noqa: S301 - the exploit works
    marker.unlink()
    keys = ("dataset-toolkit.unischema.v1", "dataset-toolkit.rowgroups_index.v1")
    yield dict.fromkeys(keys, attack.decode())
    assert not marker.exists()


@pytest.mark.parametrize("name", ["_common_metadata", "_metadata", "part_common_metadata", "x/_common_metadata"])
def test_no_metadata_file_of_a_folder_is_unpickled(
    split: str, tmp_path: Path, name: str, exploit: dict[str, str]
) -> None:
    folder = tmp_path / "split=train"
    shutil.copytree(split.removeprefix("file://"), folder)
    (folder / name).parent.mkdir(exist_ok=True)
    pq.write_metadata(features_contract(COLUMNS).with_metadata(exploit), folder / name)
    np.testing.assert_array_equal(once(f"file://{folder}"), np.arange(ALL_ROWS))


def test_no_metadata_of_a_part_file_is_unpickled(split: str, tmp_path: Path, exploit: dict[str, str]) -> None:
    folder = tmp_path / "split=train"
    folder.mkdir()
    for path in Path(split.removeprefix("file://")).iterdir():
        pq.write_table(pq.read_table(path).replace_schema_metadata(exploit), folder / path.name)
    np.testing.assert_array_equal(once(f"file://{folder}"), np.arange(ALL_ROWS))


def test_no_arrow_type_of_a_part_file_is_unpickled(split: str, tmp_path: Path, exploit: dict[str, str]) -> None:
    """A column whose type is said to be one of Python: old versions of pyarrow unpickled it (CVE-2023-47248)."""
    folder, [attack] = tmp_path / "split=train", set(exploit.values())
    kind = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": attack}
    folder.mkdir()
    for path in Path(split.removeprefix("file://")).iterdir():
        rows = pq.read_table(path)
        fields = [field.with_metadata(kind) if field.name == "block" else field for field in rows.schema]
        pq.write_table(rows.cast(pa.schema(fields)), folder / path.name)
        content = (folder / path.name).read_bytes()
        assert b"ARROW:schema" in content
        with open_part(str(folder / path.name)) as part, contextlib.suppress(pa.ArrowException, NotImplementedError):
            part.read(part.schema.names)
    np.testing.assert_array_equal(once(f"file://{folder}"), np.arange(ALL_ROWS))


@pytest.mark.parametrize("name", ["part-9", "part-9.crc", "notes.txt", ".part-9.parquet", "part-00000.parquet.tmp"])
def test_only_part_files_are_read(split: str, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "split=train"
    shutil.copytree(split.removeprefix("file://"), folder)
    shutil.copyfile(next(folder.iterdir()), folder / name)
    np.testing.assert_array_equal(once(f"file://{folder}"), np.arange(ALL_ROWS))


def test_files_are_found_by_any_name(split: str, tmp_path: Path) -> None:
    folder = tmp_path / "my lake #1?;x%20é" / "split=train"
    shutil.copytree(split.removeprefix("file://"), folder)
    for path in folder.iterdir():
        path.rename(path.with_name(path.name.replace("-", "#?;%20")))
    np.testing.assert_array_equal(once(f"file://{folder}"), np.arange(ALL_ROWS))


def test_an_error_after_some_blocks_is_raised_too() -> None:
    def broken() -> Iterator[LoadedRows]:
        yield LoadedRows(np.zeros((1, 2), np.float32), np.zeros(1, np.int32))
        raise RuntimeError("the disk is gone")

    with read_ahead(broken()) as rows:
        next(rows)
        with pytest.raises(RuntimeError, match="the disk is gone"):
            next(rows)
