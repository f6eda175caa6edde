"""From the row groups of one split to batches of one rank: the only place that uses Petastorm.

Rows on disk already stand in a pseudo-random order across files and classes; every pass shuffles the order of row
groups and the rows within each.
"""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

# petastorm 0.13 leans on what pyarrow 14 calls deprecated; its reader threads would warn for every row group.
warnings.filterwarnings("ignore", category=FutureWarning, module="petastorm")
warnings.filterwarnings("ignore", category=DeprecationWarning, module="petastorm")

from petastorm import make_batch_reader  # noqa: E402
from petastorm.tf_utils import make_petastorm_dataset  # noqa: E402


@dataclass(frozen=True)
class Shard:
    """What one rank reads of one split.

    Attributes:
        url: URL of the split's folder.
        columns: Feature columns, in the order of the model's input.
        label: Label column.
        rank: Which shard.
        size: Number of shards.
        seed: Of the shuffle.
    """

    url: str
    columns: tuple[str, ...]
    label: str
    rank: int
    size: int
    seed: int


@contextlib.contextmanager
def batches(shard: Shard, batch_size: int, *, endless: bool) -> Iterator[Any]:
    """Open one rank's rows as a `tf.data.Dataset` of (features, labels); closes the reader at the end.

    Args:
        shard: What to read.
        batch_size: Rows of a batch.
        endless: True: shuffled, repeated for ever, every batch full (so that all ranks can take the same number of
            steps). False: one pass in file order, the last batch may be smaller.

    Yields:
        Dataset of float32 (batch, n_features) and int32 (batch,).
    """
    wanted = [f"^{name}$" for name in (*shard.columns, shard.label)]
    reader = make_batch_reader(
        shard.url,
        schema_fields=wanted,
        cur_shard=shard.rank,
        shard_count=shard.size,
        num_epochs=None if endless else 1,
        shuffle_row_groups=endless,
        shuffle_rows=endless,
        seed=shard.seed,
        # Petastorm 0.13.1's thread pool now and then ends a pass before its last row group: it asks "all read?" and
        # "all handed out?" one after the other while another thread hands out. The dummy pool reads in the thread that
        # asks, which is tf.data's own: as concurrent, complete, and in the same order every time.
        reader_pool_type="dummy",
    )
    try:
        dataset = make_petastorm_dataset(reader).map(lambda row: _stack(row, shard.columns, shard.label))
        yield dataset.rebatch(batch_size, drop_remainder=endless).prefetch(tf.data.AUTOTUNE)
    finally:
        reader.stop()
        reader.join()


def _stack(row_group: Any, columns: Sequence[str], label: str) -> tuple[Any, Any]:
    features = tf.stack([getattr(row_group, name) for name in columns], axis=1)
    return tf.ensure_shape(features, (None, len(columns))), tf.ensure_shape(getattr(row_group, label), (None,))
