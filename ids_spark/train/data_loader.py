"""From the row groups of one split to blocks of rows for one rank: the only place that uses Petastorm.

Petastorm deals row groups to ranks. A shard that fits in the memory it is given is read once, and permuted as a whole
for every epoch. Of a larger one Petastorm shuffles the order of row groups, and several of them at a time are permuted
together here, again for every epoch; rows on disk already stand in a pseudo-random order across files and classes.

Rows travel as one matrix, in blocks of many batches, and a compiled loop takes its batches as slices. That costs one
call of Python for a block, where a `tf.data` pipeline over Petastorm costs several operators for every batch.

A row takes 4 · (features + 1) bytes. Memory of a training feed: the shard, if it fits; otherwise the row groups being
mixed, twice (at most 2 · (`MIXED_ROWS` + one row group)); and four blocks. Without the shard that is under 200 MB for
45 features, however many rows there are.
"""

import contextlib
import queue
import threading
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from fsspec.implementations.arrow import ArrowFSWrapper
from numpy.typing import NDArray
from pyarrow.filesystem import FileSystem
from pyarrow.fs import SubTreeFileSystem

from ids_spark.base.arrays import as_rows
from ids_spark.lake.filesystem import resolve

# petastorm 0.13 leans on what pyarrow 14 calls deprecated; it would warn for every row group.
warnings.filterwarnings("ignore", category=FutureWarning, module="petastorm")
warnings.filterwarnings("ignore", category=DeprecationWarning, module="petastorm")

from petastorm import make_batch_reader  # noqa: E402

MIXED_ROWS: Final = 131_072  # permuted together: several row groups, so that a batch draws from all of them
_AHEAD: Final = 2  # blocks


class LoadedRows(NamedTuple):
    """Scaled features, float32 of shape (rows, n_features), and class ids, int32 of shape (rows,)."""

    features: NDArray[np.float32]
    labels: NDArray[np.int32]


@dataclass(frozen=True)
class Shard:
    """What one rank reads of one split.

    Attributes:
        url: URL of the split's folder.
        columns: Feature columns, in the order of the model's input.
        label: Label column.
        rank: Which shard.
        size: Number of shards.
        rows: Of all shards together.
    """

    url: str
    columns: tuple[str, ...]
    label: str
    rank: int
    size: int
    rows: int

    def fits(self, memory: int) -> bool:
        """Return whether this shard's part of the rows, taken as equal parts, fits in so many bytes."""
        return self.rows / self.size * 4 * (len(self.columns) + 1) <= memory


class _AsLegacy(ArrowFSWrapper, FileSystem):  # type: ignore[misc]
    """A file system of today as the kind that petastorm 0.13 reads: pyarrow 14 takes its arguments for no other."""


def one_pass(shard: Shard, most: int) -> Iterator[LoadedRows]:
    """Yield every row of the shard once, in file order, in pieces of at most `most` rows."""
    for group in _row_groups(shard, None):
        for start in range(0, len(group.labels), most):
            yield LoadedRows(group.features[start : start + most], group.labels[start : start + most])


def epochs(shard: Shard, sizes: Sequence[int], seeds: Iterable[int], memory: int) -> Iterator[LoadedRows]:
    """Yield the blocks of one epoch after another: in each, blocks of exactly the wanted numbers of rows, shuffled.

    Within an epoch no row comes twice before every row of the shard came once; a shard too small for all blocks is then
    read again in another order. Equal arguments give equal blocks, and those of an epoch depend on its seed alone.

    Args:
        shard: What to read.
        sizes: Rows of each block.
        seeds: One for each epoch: of the order of row groups and rows.
        memory: Bytes in which the shard may be kept.
    """
    kept = _whole(shard) if shard.fits(memory) else None
    for seed in seeds:
        random = np.random.default_rng(seed)
        yield from _blocks(_drawn(kept, random) if kept else _mixed(shard, random), sizes)


@contextlib.contextmanager
def read_ahead(rows: Iterator[LoadedRows]) -> Generator[Iterator[LoadedRows], None, None]:
    """Read in a thread of its own while the caller computes, up to two items ahead; errors are raised in the caller."""
    ready: queue.Queue[LoadedRows | BaseException | None] = queue.Queue(maxsize=_AHEAD)
    unwanted = threading.Event()

    def put(item: LoadedRows | BaseException | None) -> None:
        while not unwanted.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return

    def read() -> None:
        try:
            for item in rows:
                put(item)
                if unwanted.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)

    def items() -> Iterator[LoadedRows]:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    thread = threading.Thread(target=read, name="feed", daemon=True)
    thread.start()
    try:
        yield items()
    finally:
        unwanted.set()
        thread.join()
        if isinstance(rows, Generator):
            rows.close()  # its reader with it


def _blocks(chunks: Iterator[LoadedRows], sizes: Sequence[int]) -> Iterator[LoadedRows]:
    """Yield the rows of chunks of any size in blocks of the wanted ones."""
    left = next(chunks)
    for size in sizes:
        taken, wanted = [], size
        while wanted:
            if not len(left.labels):
                left = next(chunks)
            taken.append(LoadedRows(left.features[:wanted], left.labels[:wanted]))
            left = LoadedRows(left.features[wanted:], left.labels[wanted:])
            wanted -= len(taken[-1].labels)
        yield taken[0] if len(taken) == 1 else _joined(taken)


def _drawn(rows: LoadedRows, random: np.random.Generator) -> Iterator[LoadedRows]:
    """Yield rows for ever, pass after pass, each a new permutation of all of them, in chunks."""
    while True:
        order = random.permutation(len(rows.labels))
        for start in range(0, len(order), MIXED_ROWS):
            yield _picked(rows, order[start : start + MIXED_ROWS])


def _mixed(shard: Shard, random: np.random.Generator) -> Iterator[LoadedRows]:
    """Yield the shard's rows for ever, pass after pass, several row groups permuted together."""
    while True:
        waiting: list[LoadedRows] = []
        for group in _row_groups(shard, int(random.integers(2**31))):
            waiting.append(group)
            if sum(len(g.labels) for g in waiting) >= MIXED_ROWS:
                yield _permuted(waiting, random)
                waiting = []
        if waiting:
            yield _permuted(waiting, random)


def _permuted(groups: Sequence[LoadedRows], random: np.random.Generator) -> LoadedRows:
    rows = _joined(groups)
    return _picked(rows, random.permutation(len(rows.labels)))


def _joined(parts: Sequence[LoadedRows]) -> LoadedRows:
    return LoadedRows(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _picked(rows: LoadedRows, order: NDArray[np.int64]) -> LoadedRows:
    return LoadedRows(
        rows.features.take(order, axis=0), rows.labels.take(order)
    )  # twice as fast as rows.features[order]


def _whole(shard: Shard) -> LoadedRows:
    """Return all rows of the shard in file order."""
    # Room for the rows of all shards: what is never written takes no memory, and no group is held twice.
    rows = LoadedRows(np.empty((shard.rows, len(shard.columns)), np.float32), np.empty(shard.rows, np.int32))
    end = 0
    for group in _row_groups(shard, None):
        start, end = end, end + len(group.labels)
        rows.features[start:end], rows.labels[start:end] = group
    return LoadedRows(rows.features[:end], rows.labels[:end])


def _row_groups(shard: Shard, seed: int | None) -> Iterator[LoadedRows]:
    """Yield one pass over the shard's row groups, in an order that the seed gives; None: in file order."""
    fs, path = resolve(shard.url)
    reader = make_batch_reader(
        "file:///",  # the root of the file system below, which is the shard's folder
        filesystem=_AsLegacy(SubTreeFileSystem(path, fs), skip_instance_cache=True),
        schema_fields=[f"^{name}$" for name in (*shard.columns, shard.label)],
        cur_shard=shard.rank,
        shard_count=shard.size,
        num_epochs=1,
        shuffle_row_groups=seed is not None,
        seed=seed,
        # Petastorm 0.13.1's thread pool now and then ends a pass before its last row group: it asks "all read?" and
        # "all handed out?" one after the other while another thread hands out. The dummy pool reads in the thread that
        # asks: complete, and in the same order every time.
        reader_pool_type="dummy",
    )
    try:
        for group in reader:
            yield LoadedRows(as_rows([getattr(group, name) for name in shard.columns]), getattr(group, shard.label))
    finally:
        reader.stop()
        reader.join()
