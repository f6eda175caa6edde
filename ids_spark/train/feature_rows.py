"""Rows of a feature table as Spark tasks read them, row group by row group; ranks read them with Petastorm."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ids_spark.base.arrays import Floats32, Ids, as_rows
from ids_spark.lake.filesystem import files_in
from ids_spark.lake.parquet import SUFFIX, open_part


@dataclass(frozen=True)
class RowGroup:
    """A row group of a part file."""

    uri: str
    index: int
    rows: int


def row_groups(uri: str) -> list[RowGroup]:
    """Return the row groups of a split in the order of its files, the same in every run."""
    found = []
    for file in files_in(uri, SUFFIX):
        with open_part(file) as part:
            found += [RowGroup(file, i, rows) for i, rows in enumerate(part.rows)]
    return found


def in_runs(groups: Sequence[RowGroup], runs: int) -> list[list[RowGroup]]:
    """Return consecutive runs of about as many rows each, none of them empty."""
    total, seen = sum(group.rows for group in groups), 0
    found: list[list[RowGroup]] = [[] for _ in range(runs)]
    for group in groups:
        found[min(runs - 1, runs * seen // max(1, total))].append(group)
        seen += group.rows
    return [run for run in found if run]


class Rows(NamedTuple):
    """Columns, float32 of shape (rows, columns), NaN where they are null; class ids, shape (rows,)."""

    columns: Floats32
    labels: Ids


def read(groups: Sequence[RowGroup], columns: Sequence[str], label: str) -> Iterator[Rows]:
    """Yield the rows of each row group.

    Args:
        groups: Of one split.
        columns: In the order of the result.
        label: Column of the class ids.

    Raises:
        KeyError: a file lacks a column.
    """
    for group in groups:
        with open_part(group.uri) as part:
            table = part.read([*columns, label], group.index)
        matrix = as_rows([table[name].to_numpy() for name in columns])
        yield Rows(matrix, table[label].to_numpy())
