"""Data loader: reads blocks of rows of one split for one rank; the only module that uses Petastorm.

Petastorm assigns row groups to ranks. A shard that fits in the cache is read once and permuted as a whole in every
epoch. Of a larger shard, Petastorm shuffles the order of row groups in every epoch, and several row groups at a time
are permuted together here. Rows on disk are already in a pseudo-random order across files and classes.

Rows are passed on as one matrix, in blocks of many batches; a compiled loop takes its batches as slices. That costs one
Python call for each block, while a `tf.data` pipeline over Petastorm costs several operators for each batch.

A row takes 4 · (features + 1) bytes. Memory of a data loader: the shard, if it fits in the cache; otherwise twice the
row groups that are permuted together (at most 2 · (`MIXED_ROWS` + one row group)); and four blocks. Without a cached
shard that is less than 200 MB for 45 features, for any number of rows.
"""

import contextlib
import queue
import threading
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow.filesystem import FileSystem

from ids_spark.base.arrays import as_rows
from ids_spark.lake.filesystem import files_in, resolve
from ids_spark.lake.parquet import SUFFIX

# petastorm 0.13 uses functions that are deprecated in pyarrow 14, which warns for every row group.
warnings.filterwarnings("ignore", category=FutureWarning, module="petastorm")
warnings.filterwarnings("ignore", category=DeprecationWarning, module="petastorm")

from petastorm import make_batch_reader  # noqa: E402

MIXED_ROWS: Final = 131_072  # permuted together: several row groups, so that a batch has rows of all of them
_AHEAD: Final = 2  # blocks


class LoadedRows(NamedTuple):
    """Scaled features, float32 of shape (rows, n_features), and class ids, int32 of shape (rows,)."""

    features: NDArray[np.float32]
    labels: NDArray[np.int32]


@dataclass(frozen=True)
class Shard:
    """The part of a split that one rank reads.

    Attributes:
        url: URL of the split's folder.
        columns: Feature columns, in the order of the model's input.
        label: Label column.
        rank: Index of the shard.
        size: Number of shards.
        rows: Rows of all shards together.
    """

    url: str
    columns: tuple[str, ...]
    label: str
    rank: int
    size: int
    rows: int

    def fits(self, memory: int) -> bool:
        """Return whether this shard fits in `memory` bytes, if all shards have the same number of rows."""
        return self.rows / self.size * 4 * (len(self.columns) + 1) <= memory


class _PartFiles(FileSystem):  # type: ignore[misc]
    """The part files of a folder, and nothing else, in the only interface that petastorm 0.13 with pyarrow 14 accepts.

    Given a folder, Petastorm unpickles what `_common_metadata` or `_metadata` in it contains, with an unpickler that
    allows `eval` (uber/petastorm #741): whoever can write the lake could run code in the ranks. Of listed files it
    unpickles nothing. Files are named by their position, because Petastorm cuts names at `?` and `#`.
    """

    def __init__(self, folder: str) -> None:
        self._uris = {f"/{i:07d}": uri for i, uri in enumerate(files_in(folder, SUFFIX))}

    @property
    def urls(self) -> list[str]:
        """The files as Petastorm is given them, in the order of their names in the folder."""
        return [f"file://{name}" for name in self._uris]

    def isdir(self, path: str) -> bool:
        """There are no folders."""
        return False

    def isfile(self, path: str) -> bool:
        """Return whether this is a listed file."""
        return path in self._uris

    def open(self, path: str, mode: str = "rb") -> pa.NativeFile:
        """Open a listed file for reading."""
        fs, place = resolve(self._uris[path])
        return fs.open_input_file(place)


def one_pass(shard: Shard, max_rows: int) -> Iterator[LoadedRows]:
    """Yield every row of the shard once, in file order, in blocks of at most `max_rows` rows."""
    for group in _row_groups(shard, None):
        for start in range(0, len(group.labels), max_rows):
            yield LoadedRows(group.features[start : start + max_rows], group.labels[start : start + max_rows])


def epochs(shard: Shard, sizes: Sequence[int], seeds: Iterable[int], memory: int) -> Iterator[LoadedRows]:
    """Yield the shuffled blocks of one epoch after another, each block with exactly the given number of rows.

    Within an epoch no row is repeated before every row of the shard was yielded once; a shard too small for all blocks
    is then read again in another order. Equal arguments give equal blocks; blocks of an epoch depend on its seed only.

    Args:
        shard: Shard to read.
        sizes: Rows of each block.
        seeds: Seed of the order of row groups and rows, one for each epoch.
        memory: Bytes that a cached shard may take.
    """
    cached = _whole(shard) if shard.fits(memory) else None
    for seed in seeds:
        random = np.random.default_rng(seed)
        yield from _blocks(_permuted_passes(cached, random) if cached else _mixed(shard, random), sizes)


@contextlib.contextmanager
def read_ahead(rows: Iterator[LoadedRows]) -> Generator[Iterator[LoadedRows], None, None]:
    """Read in a separate thread while the caller computes, up to two items ahead; errors are raised in the caller."""
    ready: queue.Queue[LoadedRows | BaseException | None] = queue.Queue(maxsize=_AHEAD)
    stopped = threading.Event()

    def put(item: LoadedRows | BaseException | None) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return

    def read() -> None:
        try:
            for item in rows:
                put(item)
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)

    def items() -> Iterator[LoadedRows]:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    thread = threading.Thread(target=read, name="data-loader", daemon=True)
    thread.start()
    try:
        yield items()
    finally:
        stopped.set()
        thread.join()
        if isinstance(rows, Generator):
            rows.close()  # also closes its reader


def _blocks(chunks: Iterator[LoadedRows], sizes: Sequence[int]) -> Iterator[LoadedRows]:
    """Yield the rows of chunks of any size in blocks of the given sizes."""
    left = next(chunks)
    for size in sizes:
        taken, missing = [], size
        while missing:
            if not len(left.labels):
                left = next(chunks)
            taken.append(LoadedRows(left.features[:missing], left.labels[:missing]))
            left = LoadedRows(left.features[missing:], left.labels[missing:])
            missing -= len(taken[-1].labels)
        yield taken[0] if len(taken) == 1 else _joined(taken)


def _permuted_passes(rows: LoadedRows, random: np.random.Generator) -> Iterator[LoadedRows]:
    """Yield rows without end in chunks, pass after pass; each pass is a new permutation of all rows."""
    while True:
        order = random.permutation(len(rows.labels))
        for start in range(0, len(order), MIXED_ROWS):
            yield _picked(rows, order[start : start + MIXED_ROWS])


def _mixed(shard: Shard, random: np.random.Generator) -> Iterator[LoadedRows]:
    """Yield the shard's rows without end, pass after pass, several row groups permuted together."""
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
    # Allocated for the rows of all shards: pages that are never written take no memory, and no row group is in memory
    # twice.
    rows = LoadedRows(np.empty((shard.rows, len(shard.columns)), np.float32), np.empty(shard.rows, np.int32))
    end = 0
    for group in _row_groups(shard, None):
        start, end = end, end + len(group.labels)
        rows.features[start:end], rows.labels[start:end] = group
    return LoadedRows(rows.features[:end], rows.labels[:end])


def _row_groups(shard: Shard, seed: int | None) -> Iterator[LoadedRows]:
    """Yield one pass over the shard's row groups in an order that depends on the seed; None: in file order."""
    files = _PartFiles(shard.url)
    reader = make_batch_reader(
        files.urls,
        filesystem=files,
        schema_fields=[f"^{name}$" for name in (*shard.columns, shard.label)],
        cur_shard=shard.rank,
        shard_count=shard.size,
        num_epochs=1,
        shuffle_row_groups=seed is not None,
        seed=seed,
        # Petastorm 0.13.1's thread pool sometimes ends a pass before its last row group: it checks "all read" and "all
        # delivered" one after the other while another thread delivers. The dummy pool reads in the calling thread:
        # every pass is complete and in the same order.
        reader_pool_type="dummy",
    )
    try:
        for group in reader:
            yield LoadedRows(as_rows([getattr(group, name) for name in shard.columns]), getattr(group, shard.label))
    finally:
        reader.stop()
        reader.join()
