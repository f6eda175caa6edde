"""Rows that are packed for buckets and joined there are the same rows, bit by bit."""

import numpy as np
import pyarrow as pa
import pytest

from ids_spark.ingest.blocks import Block, joined
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
    found = {name: pa.repeat(c, total) if isinstance(c, pa.Scalar) else c for name, c in columns.items()}
    assert {name: column.type for name, column in found.items()} == {c.name: c.type for c in CONTRACT}
    assert bits(pa.table(found)) == bits(whole)
    assert isinstance(columns["zero"], pa.Scalar)
    assert isinstance(columns["one"], pa.Scalar) == (len(sizes) == 1)


def test_without_blocks_the_columns_are_empty() -> None:
    assert {name: (len(c), c.type) for name, c in joined([], CONTRACT).items()} == {
        c.name: (0, c.type) for c in CONTRACT
    }
