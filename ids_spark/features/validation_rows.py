"""Choice of the train rows that are held out for validation: random rows, and blocks of benign rows.

Random rows have neighbours in train: flows of the same minutes. A rate of false alarms measured on them is that of
traffic that the model has seen. Blocks are runs of benign rows in the order of their source file, which is that of
their capture, held out as a whole.
"""

import zlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ids_spark.base.arrays import Ids, Ints, Keys, Mask
from ids_spark.ingest import row_hash

NO_BLOCK = -1


@dataclass(frozen=True)
class HeldOut:
    """Which train rows are held out.

    Attributes:
        share: Share of feature vectors, chosen by hash.
        blocked_share: Share of the blocks of each source file, chosen by hash.
        block_rows: Rows of a block in the source file.
    """

    share: float
    blocked_share: float = 0.0
    block_rows: int = 200

    def random(self, keys: Keys) -> Mask:
        """Return which rows are held out by the hash of their features, shape (rows,)."""
        return row_hash.held_out(keys, self.share)

    def blocks(self, files: pa.ChunkedArray, rows: Ints, eligible: Mask) -> Ids:
        """Return the held-out block of each row, `NO_BLOCK` for none; shape (rows,).

        A block's id is a hash of 24 bits of file and position, so that it does not depend on other files.

        Args:
            files: Source file of each row.
            rows: Position of each row in its file.
            eligible: Rows that may be part of a block: benign, without a label conflict, as the other rows of such a
                vector are not in the block.
        """
        found = np.full(len(rows), NO_BLOCK, dtype=np.int32)
        at = np.flatnonzero(eligible)
        if not self.blocked_share or not len(at):
            return found
        encoded = files.take(pa.array(at)).combine_chunks()
        encoded = encoded if isinstance(encoded, pa.DictionaryArray) else encoded.dictionary_encode()
        names = [zlib.crc32(str(name).encode("utf-8", "surrogatepass")) for name in encoded.dictionary.to_pylist()]
        file_ids = np.array(names, dtype=np.float64)[encoded.indices.to_numpy(zero_copy_only=False)]
        keys = row_hash.row_keys([file_ids, (rows[at] // self.block_rows).astype(np.float64)])
        chosen = row_hash.held_out(keys, self.blocked_share)
        found[at[chosen]] = (keys[chosen] & 0xFFFFFF).astype(np.int32)
        return found
