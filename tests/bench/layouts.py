"""The rows of a synthetic data set in other files: one CSV with a column of labels, the same compressed, one parquet.

They are the forms in which the data set is shared apart from its publisher's: one table for each split.
"""

import zlib
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

LABEL: Final = "label"
_BYTES: Final = 1 << 24
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
