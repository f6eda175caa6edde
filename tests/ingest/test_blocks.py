"""Rows that are packed for buckets and joined there are the same rows, bit by bit."""

import numpy as np
import pyarrow as pa
import pytest

from ids_spark.ingest.blocks import Block, Column, Rows, joined
from ids_spark.ingest.rows import TEXT, texts

CONTRACT = pa.schema(
    [
        *((name, pa.float64()) for name in ("zero", "signed", "one", "random", "few", "huge", "holes")),
        ("label", pa.int32()),
        ("row", pa.int64()),
        ("file", TEXT),
        ("device", pa.string()),
        ("date", pa.date32()),
    ]
)


def block(seed: int, rows: int) -> pa.Table:
    random = np.random.default_rng(seed)
    signed = np.where(random.random(rows) < 0.5, 0.0, -0.0)
    return pa.table(
        {
            "zero": pa.array(np.zeros(rows)),
            "signed": pa.array(signed),
            "one": pa.array(np.full(rows, seed / 3)),
            "random": pa.array(random.standard_normal(rows)),
            "few": pa.array(random.integers(0, 3, rows) / 10),
            "huge": pa.array(random.choice([np.inf, -np.inf, 1e308, 5e-324], rows)),
            "holes": pa.array([None, 1.0, 2.0] * rows, pa.float64()).slice(0, rows),
            "label": pa.array(np.full(rows, seed, dtype=np.int32)),
            "row": pa.array(np.arange(2**53, 2**53 + rows)),
            "file": texts(random.integers(0, 1 + seed % 2, rows).astype(np.int32), [f"a{seed}", "b"][: 1 + seed % 2]),
            "device": pa.array([None, "pump", ""] * rows, pa.string()).slice(0, rows),
            "date": pa.nulls(rows, pa.date32()),
        },
        schema=CONTRACT,
    )


def bits(table: pa.Table) -> dict[str, list[object]]:
    numbers = {name for name in table.column_names if pa.types.is_floating(table.schema.field(name).type)}
    return {
        name: [x.hex() if name in numbers and x is not None else x for x in table[name].to_pylist()]
        for name in table.column_names
    }


def whole_column(column: Column, rows: int) -> pa.Array:
    if isinstance(column, pa.Scalar):
        return pa.repeat(column, rows)
    return pa.concat_arrays(map(pa.array, column)) if isinstance(column, list) else column


@pytest.mark.parametrize("sizes", [(7,), (1, 1), (5000, 1, 300), (3000, 3000)])
def test_ranges_of_blocks_are_joined_to_the_same_rows(sizes: tuple[int, ...]) -> None:
    sent, expected = [], []
    for seed, rows in enumerate(sizes):
        table, order = block(seed, rows), np.random.default_rng(seed).permutation(rows)
        packed, cut = Block.of(table, order), rows // 3
        sent += [packed.slice(start, end) for start, end in ((0, cut), (cut, rows)) if end > start]
        expected.append(table.take(pa.array(order)))
    columns = joined(sent, CONTRACT)
    total, whole = sum(sizes), pa.concat_tables(expected)
    found = {name: whole_column(column, total) for name, column in columns.items()}
    assert {name: column.type for name, column in found.items()} == {c.name: c.type for c in CONTRACT}
    assert bits(pa.table(found)) == bits(whole)
    assert isinstance(columns["zero"], pa.Scalar)
    assert isinstance(columns["one"], pa.Scalar) == (len(sizes) == 1)


def test_without_blocks_the_columns_are_empty() -> None:
    assert {name: (len(c), c.type) for name, c in joined([], CONTRACT).items()} == {
        c.name: (0, c.type) for c in CONTRACT
    }


def test_ranges_of_sorted_rows_are_those_of_all_rows_by_key_label_file_and_number() -> None:
    kinds = {"row_key": pa.int64(), "label19": pa.int32(), "source_file": TEXT, "source_row": pa.int64()}
    contract = pa.schema([*kinds.items(), ("x", pa.float64()), ("device", pa.string())])
    random, sent, tables = np.random.default_rng(2), [], []
    for i, rows in enumerate((4000, 1, 900, 2500)):
        keys = random.integers(-40, 40, rows) << 57  # many equal ones, of both signs
        columns = [keys, random.integers(0, 2, rows).astype(np.int32), None, np.arange(rows), random.random(rows)]
        columns[2] = texts(np.zeros(rows, dtype=np.int32), [f"file {3 - i}"])
        table = pa.table([*columns, pa.array([None, "a"] * rows)[:rows]], schema=contract)
        tables.append(table)
        sent.append(Block.of(table, np.argsort(keys.view(np.uint64))).slice(0, rows))
    found = Rows.of(sent, contract)
    expected = pa.concat_tables(tables).to_pandas()
    expected["key"] = expected["row_key"].to_numpy().view(np.uint64)
    expected["source_file"] = expected["source_file"].astype(str)
    expected = expected.sort_values(["key", "label19", "source_file", "source_row"]).drop(columns="key")
    for start, end in ((0, 1000), (1000, 1001), (1001, len(expected) + 5)):
        assert found.table(start, end).to_pylist() == expected[start:end].to_dict("records")
    some = np.array([7, 3, 5000])
    assert found.values("x", some).tolist() == expected["x"].to_numpy()[some].tolist()
