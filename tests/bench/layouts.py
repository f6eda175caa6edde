"""The rows of a synthetic data set in other files, and with copies of one vector.

One table for each split, with a column of labels, is a common form in which the data set is shared. Copies are what
devices send that only say that they are there.
"""

import json
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ids_spark.dataset.taxonomy import class19_of

LABEL: Final = "label"
_BYTES: Final = 1 << 24
_ROWS: Final = 1 << 16  # of a row group
_GZIP: Final = 16 + zlib.MAX_WBITS  # window bits that make zlib write gzip


def captures(folder: Path, ending: str) -> list[Path]:
    """Return the capture files of a split, in order of their names."""
    return sorted(folder.glob(f"*.pcap.{ending}"))


def label_of(capture: Path) -> str:
    """Return the label of the rows of a capture: its name without endings."""
    return capture.name.split(".", 1)[0]


def one_csv(folder: Path, target: Path) -> int:
    """Write the lines of every CSV file of a split to one, each with its label as last field; return the rows."""
    rows = 0
    with target.open("wb") as stream:
        for i, capture in enumerate(captures(folder, "csv")):
            ending = f",{label_of(capture)}\n".encode()
            with capture.open("rb") as lines:
                header = lines.readline()
                if not i:
                    stream.write(header.removesuffix(b"\n") + f",{LABEL}\n".encode())
                while block := lines.read(_BYTES) + lines.readline():
                    rows += block.count(b"\n")
                    stream.write(block.replace(b"\n", ending))
    return rows


def gzipped(file: Path, target: Path) -> None:
    """Compress a file at the fastest level."""
    packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    with file.open("rb") as source, target.open("wb") as stream:
        while block := source.read(_BYTES):
            stream.write(packer.compress(block))
        stream.write(packer.flush())


def one_parquet(folder: Path, target: Path) -> int:
    """Write the rows of every parquet file of a split to one row group of one file, with labels; return the rows."""
    tables = []
    for capture in captures(folder, "parquet"):
        table = pq.read_table(capture, partitioning=None).replace_schema_metadata()
        labels = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), len(table)), [label_of(capture)])
        tables.append(table.append_column(LABEL, labels))
    whole = pa.concat_tables(tables).unify_dictionaries()
    pq.write_table(whole, target, row_group_size=max(1, len(whole)), use_dictionary=[LABEL])
    return len(whole)


@dataclass(frozen=True)
class Copies:
    """Copies of one vector in a data set.

    Attributes:
        vector: A row of the source; no other row has its rate.
        counts: Copies by split and class.
    """

    vector: pa.Table
    counts: Mapping[tuple[str, str], int]

    def of_split(self, split: str) -> dict[str, int]:
        """Return the copies of a split by class."""
        return {class19: n for (name, class19), n in self.counts.items() if name == split}


def with_copies(source: Path, target: Path, copies: int, class19: str | None = None) -> Copies:
    """Write a data set and copies of one vector, which it does not hold, at random places of its files.

    Args:
        source: Synthetic data set in parquet.
        target: New folder.
        copies: Number of copies, in proportion to the rows of each file.
        class19: Only in the files of this class; default: in all of them, so that the vector has every label.

    Returns:
        The copies. `_SYNTHETIC.json` of the target has the rows and duplicates with them.
    """
    facts = json.loads((source / "_SYNTHETIC.json").read_text())
    files = {path: rows for path, rows in facts["rows_per_file"].items() if rows}
    chosen = {path: rows for path, rows in files.items() if class19 in (None, class19_of(Path(path).name))}
    vector = _new_vector(source / next(iter(chosen)))
    shares = np.diff(np.round(copies * np.cumsum([0, *chosen.values()]) / sum(chosen.values())).astype(int))
    of_file = dict(zip(chosen, shares.tolist(), strict=True))
    counts: Counter[tuple[str, str]] = Counter()
    for i, (path, rows) in enumerate(files.items()):
        added = of_file.get(path, 0)
        _write_mixed(source / path, target / path, vector, added, np.random.default_rng(i))
        split = path.partition("/")[0]
        counts[split, class19_of(Path(path).name)] += added
        facts["rows_per_file"][path] = rows + added
        facts["rows"][split] += added
    for (split, _), added in counts.items():
        facts["duplicates"][split] += max(added - 1, 0)
    (target / "_SYNTHETIC.json").write_text(json.dumps(facts))
    return Copies(vector, {key: added for key, added in counts.items() if added})


def _new_vector(capture: Path) -> pa.Table:
    """Return a row with a rate of its own."""
    row = pq.ParquetFile(capture).read_row_group(0).slice(0, 1)
    at = row.schema.names.index("Rate")
    return row.set_column(at, row.schema.field(at), pa.array([row["Rate"][0].as_py() + 0.123456789]))


def _write_mixed(source: Path, target: Path, vector: pa.Table, copies: int, rng: np.random.Generator) -> None:
    """Write the rows of a file in their order, with copies of one row between them."""
    base = pq.ParquetFile(source).read()
    copied = rng.permutation(np.arange(len(base) + copies) < copies)
    target.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(target, base.schema, compression="snappy", use_dictionary=False) as writer:
        done = 0
        for start in range(0, len(copied), _ROWS):
            here = copied[start : start + _ROWS]
            own = int((~here).sum())
            order = np.where(here, own, np.cumsum(~here) - 1)
            writer.write_table(pa.concat_tables([base.slice(done, own), vector]).take(pa.array(order)))
            done += own
