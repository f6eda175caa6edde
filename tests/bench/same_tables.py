"""Whether two lakes hold the same rows, by a hash of every column, whatever their files, types of storage and order.

    python -m tests.bench.same_tables OLD NEW [--tables flows features] [--ignore COLUMN …] [--tolerance 1e-6] [--order]

Compared are all tables of parquet below both folders, each partition alone, and the facts beside them (`_….json`).
Columns that name a run or state its time are left out (`RUN_COLUMNS`). A floating-point value equals another one with
the same bits: NaN equals itself, -0.0 is not 0.0. Text stored as a dictionary equals the same text stored plainly.

Where rows differ, they are joined by the keys of their table, and every column that differs is listed with the largest
difference of its numbers; `--tolerance` accepts numbers that differ by no more, absolutely or relative to the larger.
Exit code 1 if anything differs; with `--order` also if rows of a partition are in another order.
"""

import argparse
import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ids_spark.dataset.tables import TABLES

RUN_COLUMNS: Final = frozenset(("run_id", "created_at", "scored_at", "started_at", "finished_at", "seconds"))
"""Columns, and facts beside a table, that differ between runs on the same data."""
OTHER_FOLDERS: Final = frozenset(("audit", "models", "checkpoints", "reports", "exports", "tensorboard"))
"""Folders of a lake that state their run in most of what they hold."""
_NULL: Final = np.uint64(0x9E3779B97F4A7C15)
_ROWS: Final = 1 << 16
_SHOWN: Final = 3
Hashes = NDArray[np.uint64]


@dataclass
class Difference:
    """What differs between two versions of a partition.

    Attributes:
        place: Path of the partition.
        rows: Rows of the old and of the new version.
        only: Rows that only the old and only the new version holds.
        order: Whether the rows are in the same order.
        columns: Text by column that differs, or whose kind does.
        near: Whether only numbers differ, by no more than the tolerance.
    """

    place: str
    rows: tuple[int, int]
    only: tuple[int, int] = (0, 0)
    order: bool = True
    columns: dict[str, str] = field(default_factory=dict)
    near: bool = False

    @property
    def same(self) -> bool:
        """Whether every row of one version is in the other, as often."""
        return self.near or not (any(self.only) or self.columns)

    def __str__(self) -> str:
        old, new = self.rows
        counts = f"{old:,} rows" if old == new else f"{old:,} and {new:,} rows"
        if self.same:
            words = "nearly the same" if self.near else "the same"
            lines = [f"{self.place}: {counts}, {words}{'' if self.order else ', in another order'}"]
        else:
            lines = [f"{self.place}: {counts}, {self.only[0]:,} only in the old, {self.only[1]:,} only in the new"]
        return "\n".join([*lines, *(f"    {name}: {text}" for name, text in self.columns.items())])


def compare(
    old: Path,
    new: Path,
    tables: Collection[str] = (),
    ignore: Collection[str] = (),
    tolerance: float = 0.0,
) -> list[Difference]:
    """Return one entry for each partition of either lake, and for each file of facts that differs.

    Args:
        old: Folder of the first lake, or of any tables.
        new: Folder of the second.
        tables: Only these, by their path or a beginning of it, such as `flows`; default: all but `OTHER_FOLDERS`.
        ignore: Columns to leave out beside `RUN_COLUMNS`.
        tolerance: Greatest difference of numbers that are called near.
    """
    left_out = RUN_COLUMNS | set(ignore)
    versions = _partitions(old, tables), _partitions(new, tables)
    places = sorted({*versions[0], *versions[1]})
    found = [_compared(p, versions[0].get(p, []), versions[1].get(p, []), left_out, tolerance) for p in places]
    return found + _facts(old, new, places, left_out)


def row_hashes(files: Sequence[Path], left_out: Collection[str] = ()) -> Hashes:
    """Return a 64-bit hash of each row of files with the same columns, in their order; columns may be in any order."""
    parts = [np.zeros(0, np.uint64)]
    for path in files:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS):
                total = np.zeros(len(batch), np.uint64)
                for name, column in zip(batch.schema.names, batch.columns, strict=True):
                    if name not in left_out:
                        total += _mixed(_hashes(column) ^ _of_text([name])[0])
                parts.append(total)
    return np.concatenate(parts)


def _partitions(root: Path, tables: Collection[str]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*.parquet")):
        inner = path.relative_to(root)
        place = inner.parent.as_posix()
        hidden = any(part.startswith((".", "_")) for part in inner.parts)
        wanted = any(place == name or place.startswith(f"{name}/") for name in tables)
        if not hidden and (wanted if tables else inner.parts[0] not in OTHER_FOLDERS):
            found.setdefault(place, []).append(path)
    return found


def _compared(
    place: str, old: Sequence[Path], new: Sequence[Path], left_out: Collection[str], tolerance: float
) -> Difference:
    one, other = row_hashes(old, left_out), row_hashes(new, left_out)
    difference = Difference(place, (len(one), len(other)), order=bool(np.array_equal(one, other)))
    difference.columns = {name: f"stored as {a}, now {b}" for name, (a, b) in _kinds(old, new, left_out).items()}
    if difference.order and not difference.columns:
        return difference
    difference.only = _only(one, other), _only(other, one)
    if not any(difference.only) or not (old and new):
        return difference
    kinds, near = set(difference.columns), not difference.columns
    names = [name for name in _names(old, left_out) if name not in kinds]
    if (orders := _joined(place, old, new)) is not None:
        for name in names:
            text, apart = _column_difference(_column(old, name).take(orders[0]), _column(new, name).take(orders[1]))
            if text:
                difference.columns[name] = text
                near &= apart <= tolerance
        difference.near, difference.order = near, orders[0].equals(orders[1])
    else:
        for name in names:
            one, other = (np.sort(_hashes(_column(files, name))) for files in (old, new))
            if not np.array_equal(one, other):
                difference.columns[name] = "other values, of rows without a common key"
    return difference


def _only(one: Hashes, other: Hashes) -> int:
    """Return how many of the hashes of the first have no partner in the second."""
    values, counts = np.unique(one, return_counts=True)
    others, there = np.unique(other, return_counts=True)
    at = np.searchsorted(others, values)
    partners = np.zeros(len(values), np.int64)
    known = at < len(others)
    known[known] = others[at[known]] == values[known]
    partners[known] = there[at[known]]
    return int(np.maximum(counts - partners, 0).sum())


def _joined(place: str, old: Sequence[Path], new: Sequence[Path]) -> tuple[pa.Array, pa.Array] | None:
    """Return the order of the rows of both versions by the keys of their table; None if these do not identify a row."""
    name = next((name for name in sorted(TABLES, key=len, reverse=True) if place.startswith(name)), "")
    names = [key for key in TABLES[name].keys if key in _names(old, ())] if name else []
    if not names:
        return None
    sorted_keys, orders = [], []
    for files in (old, new):
        keys = pa.table({key: _plain(_column(files, key)) for key in names})
        order = pc.sort_indices(keys, sort_keys=[(key, "ascending") for key in names])
        orders.append(order)
        hashes = np.zeros(len(order), np.uint64)
        for i, key in enumerate(names):
            hashes += _mixed(_hashes(keys[key].take(order)) + np.uint64(i))
        sorted_keys.append(hashes)
    one, other = sorted_keys
    if not np.array_equal(one, other) or (one[1:] == one[:-1]).any():
        return None
    return orders[0], orders[1]


def _column_difference(old: pa.Array, new: pa.Array) -> tuple[str, float]:
    """Return the difference of a column whose rows correspond, in words and as the largest one; "" if there is none."""
    different = _hashes(old) != _hashes(new)
    count = int(different.sum())
    if not count:
        return "", 0.0
    old, new = (_plain(each).filter(pa.array(different)) for each in (old, new))
    apart = 0.0
    for one, other in zip(_leaves(old), _leaves(new), strict=True):
        if len(one) != len(other):
            apart = np.inf
        elif pa.types.is_floating(one.type) and pa.types.is_floating(other.type):
            a, b = (each.to_numpy(zero_copy_only=False).astype(np.float64) for each in (one, other))
            with np.errstate(invalid="ignore"):
                off = np.abs(a - b) / np.maximum(1.0, np.maximum(np.abs(a), np.abs(b)))
            off[(a == b) | (np.isnan(a) & np.isnan(b))] = 0.0
            apart = max(apart, float(np.nan_to_num(off, nan=np.inf, posinf=np.inf).max(initial=0.0)))
        elif not np.array_equal(_hashes(one), _hashes(other)):
            apart = np.inf
    shown = "; ".join(f"{a!r} → {b!r}" for a, b in zip(old[:_SHOWN].to_pylist(), new[:_SHOWN].to_pylist(), strict=True))
    most = f", by at most {apart:.3g}" if np.isfinite(apart) else ""
    return f"{count:,} rows differ{most}: {shown}", apart


def _leaves(array: pa.Array) -> Iterator[pa.Array]:
    """Yield the plain arrays of which a nested one is made."""
    if pa.types.is_struct(array.type):
        for child in array.flatten():
            yield from _leaves(child)
    elif pa.types.is_list(array.type):
        yield pc.list_value_length(array)
        yield from _leaves(array.flatten())
    else:
        yield array


def _kinds(old: Sequence[Path], new: Sequence[Path], left_out: Collection[str]) -> Mapping[str, tuple[str, str]]:
    """Return the types of each column whose type differs, or that one version lacks."""
    if not (old and new):
        return {}
    types = [
        {each.name: str(_value_type(each.type)) for path in files for each in pq.read_schema(path)}
        for files in (old, new)
    ]
    names = sorted({*types[0], *types[1]} - set(left_out))
    pairs = {name: (types[0].get(name, "no column"), types[1].get(name, "no column")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _names(files: Sequence[Path], left_out: Collection[str]) -> list[str]:
    return [name for name in pq.read_schema(files[0]).names if name not in left_out]


def _column(files: Sequence[Path], name: str) -> pa.Array:
    """Return a column of all files; nulls where a file lacks it."""
    parts = []
    for path in files:
        with pq.ParquetFile(path) as file:
            whole = file.read(columns=[name])
            found = whole[name] if name in whole.schema.names else pa.chunked_array([pa.nulls(file.metadata.num_rows)])
            parts += [_plain(chunk) for chunk in found.chunks]
    return pa.concat_arrays(parts)


def _plain(array: pa.Array) -> pa.Array:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _hashes(array: pa.Array) -> Hashes:
    """Return a hash of each value; equal for equal values of the same kind, nested or not."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
        array = pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
    kind = array.type
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_dictionary(kind):
        codes = array.indices.fill_null(0).to_numpy(zero_copy_only=False)
        return np.where(valid, _hashes(array.dictionary)[codes], _NULL) if valid.any() else np.full(len(valid), _NULL)
    if pa.types.is_struct(kind):
        found = np.full(len(array), kind.num_fields, np.uint64)
        for i, child in enumerate(array.flatten()):
            found = _mixed(found + _hashes(child) + np.uint64(i))
    elif pa.types.is_list(kind):
        lengths = pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        values = _hashes(array.flatten())
        ends = np.cumsum(lengths)
        place = np.arange(len(values)) - np.repeat(ends - lengths, lengths)
        sums = np.append(np.uint64(0), np.cumsum(_mixed(values + place.astype(np.uint64)), dtype=np.uint64))
        found = _mixed(sums[ends] - sums[ends - lengths] + lengths.astype(np.uint64))
    elif pa.types.is_null(kind):
        found = np.zeros(len(array), np.uint64)
    elif pa.types.is_floating(kind):
        values = array.fill_null(0).to_numpy(zero_copy_only=False)
        found = values.view(f"u{values.itemsize}").astype(np.uint64)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        encoded = array.dictionary_encode()
        texts = _of_text(encoded.dictionary.to_pylist())
        codes = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)
        found = texts[codes] if len(texts) else np.zeros(len(array), np.uint64)
    else:
        whole = array.cast(pa.int8()) if pa.types.is_boolean(kind) else array
        width = pa.int32() if kind.bit_width == 32 else pa.int64()
        whole = whole.cast(width) if pa.types.is_temporal(kind) else whole
        found = whole.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64).view(np.uint64)
    return np.where(valid, _mixed(found), _NULL)


def _of_text(texts: Sequence[str | bytes | None]) -> Hashes:
    found: Any = pd.util.hash_array(np.array(texts, dtype=object), categorize=False)
    return np.asarray(found, np.uint64)


def _mixed(values: Hashes) -> Hashes:
    """Return values mixed by the finaliser of splitmix64 (Steele, Lea, Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _facts(old: Path, new: Path, places: Sequence[str], left_out: Collection[str]) -> list[Difference]:
    """Return the files of facts beside partitions or above them that differ."""
    folders = {parent for place in places for parent in (Path(place), *Path(place).parents)}
    names = sorted(
        {(folder / path.name) for folder in folders for root in (old, new) for path in (root / folder).glob("_*.json")}
    )
    found = []
    for name in names:
        texts = [json.loads((root / name).read_text()) if (root / name).exists() else {} for root in (old, new)]
        flat = [dict(_flat(text, left_out)) for text in texts]
        apart = sorted(key for key in {*flat[0], *flat[1]} if flat[0].get(key) != flat[1].get(key))
        if apart:
            shown = {key: f"{flat[0].get(key)!r} → {flat[1].get(key)!r}" for key in apart[:_SHOWN]}
            more = {"…": f"and {len(apart) - _SHOWN} more"} if len(apart) > _SHOWN else {}
            found.append(Difference(str(name), (1, 1), (1, 1), columns={**shown, **more}))
    return found


def _flat(value: Any, left_out: Collection[str], path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in left_out:
                yield from _flat(inner, left_out, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _flat(inner, left_out, f"{path}[{i}]")
    else:
        yield path, str(value)  # as text: NaN equals itself


def main() -> int:
    """Print what differs; 0 if nothing does."""
    parser = argparse.ArgumentParser(prog="tests.bench.same_tables", description=__doc__.partition("\n")[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--tables", nargs="+", default=[], help="paths of tables, such as flows or features/paper")
    parser.add_argument("--ignore", nargs="+", default=[], help="more columns to leave out")
    parser.add_argument("--tolerance", type=float, default=0.0, help="greatest difference of numbers")
    parser.add_argument("--order", action="store_true", help="rows of a partition must also be in the same order")
    given = parser.parse_args()
    for folder in (given.old, given.new):
        if not folder.is_dir():
            parser.error(f"{folder}: no such folder; expected a lake, or a folder of tables")
    found = compare(given.old, given.new, given.tables, given.ignore, given.tolerance)
    if not found:
        parser.error(f"no table of parquet below {given.old} and {given.new}; expected the same tables in both")
    different = [each for each in found if not each.same or (given.order and not each.order)]
    sys.stdout.write("".join(f"{each}\n" for each in found) + f"{len(found)} compared, {len(different)} different\n")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
