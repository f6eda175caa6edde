"""Arrow tables mutated by column and value, written as parquet with rare options, mutated as bytes."""

import datetime as dt
import decimal
import io
import json
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz import cells, raw
from tests.fuzz.draw import Draw


def invalid_text(values: list[bytes | None]) -> pa.Array:
    """Return a column of type string that holds any bytes, as Spark and Go write it."""
    binary = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(binary), binary.buffers(), binary.null_count)


def mutate(draw: Draw, table: pa.Table, numbers: list[str], texts: list[str], time: str | None) -> pa.Table:
    """Return the table with 1 to 3 mutations, or unchanged.

    Args:
        draw: Chooses.
        table: To mutate.
        numbers: Names of its features.
        texts: Names of its columns of text.
        time: Name of its column of times, if it has one.
    """
    for _ in range(draw.rng.choice((0, 0, 1, 1, 2, 3))):
        kind = draw.weighted(_MUTATIONS)
        if kind == "time" and time not in table.column_names:
            kind = "type"
        if kind == "text" and not set(texts) & set(table.column_names):
            kind = "values"
        if not len(table) and kind in ("values", "type", "text", "time", "nulls"):
            continue
        present = [name for name in numbers if table.column_names.count(name) == 1]
        if kind in ("values", "type", "nulls") and not present:
            continue
        try:
            if kind == "time":
                table = _replace(draw, table, str(time), _time_column(draw, len(table)))
            elif kind == "text":
                name = draw.pick([name for name in texts if name in table.column_names])
                table = _replace(draw, table, name, text_column(draw, len(table)))
            else:
                table = _mutate(draw, table, kind, present)
        except (pa.ArrowException, OverflowError, ValueError, KeyError, TypeError, decimal.InvalidOperation):
            draw.note(f"table: {kind} not possible")
    return table


def _mutate(draw: Draw, table: pa.Table, kind: str, numbers: list[str]) -> pa.Table:
    if kind == "values":
        for name in draw.some(numbers, 3):
            column = np.array(table[name].to_numpy(zero_copy_only=False), dtype=object)
            for _ in range(draw.rng.randint(1, 3)):
                column[draw.rng.randrange(len(column))] = draw.pick(cells.NUMBERS)
            table = _replace(draw, table, name, pa.array([float(v) for v in column]))
    elif kind == "nulls":
        name = draw.pick(numbers)
        column = table[name].to_pylist()
        column[draw.rng.randrange(len(column)) :] = [None] * (len(column) - draw.rng.randrange(len(column)))
        table = _replace(draw, table, name, pa.array(column[: len(table)] + [None] * (len(table) - len(column))))
    elif kind == "type":
        name = draw.pick(numbers)
        table = _replace(draw, table, name, _number_column(draw, table[name]))
    else:
        table = _mutate_columns(draw, table, kind)
    return table


def _mutate_columns(draw: Draw, table: pa.Table, kind: str) -> pa.Table:
    names = table.column_names
    if kind == "rename" and names:
        at = draw.rng.randrange(len(names))
        table = _renamed(draw, table, at, cells.name_variant(draw, names[at]))
    elif kind == "drop" and names:
        at = draw.rng.randrange(len(names))
        draw.note(f"column dropped: {names[at]}")
        table = table.remove_column(at)
    elif kind == "duplicate" and names:
        at = draw.rng.randrange(len(names))
        draw.note(f"column twice: {names[at]}")
        table = table.append_column(draw.pick((names[at], names[at].upper(), names[at] + " ")), table.column(at))
    elif kind == "extra":
        name = draw.pick(
            ("extra", "", "label", "Label", "attack_type", "class", "id", "Rate.1", "Rate.x", "a.b", "\x00", "\u202e")
        )
        draw.note(f"column added: {name!r}")
        table = table.append_column(name, text_column(draw, len(table)))
    elif kind == "many extra":
        more = draw.pick((30, 2000))
        draw.note(f"{more} columns added")
        table = pa.Table.from_arrays(
            [*table.columns, *[pa.array(np.zeros(len(table)))] * more], names=[*names, *(f"x{i}" for i in range(more))]
        )
    elif kind == "pad":
        draw.note("padded names")
        table = table.rename_columns([f" {name}" for name in names])
    elif kind == "underscores":
        draw.note("names with underscores")
        table = table.rename_columns([name.replace(" ", "_") for name in names])
    elif kind == "order":
        draw.note("other order")
        table = table.select(draw.rng.sample(range(len(names)), len(names)))
    elif kind == "rows":
        rows = draw.pick((0, 0, 1, 2))
        draw.note(f"{rows} rows")
        table = table.slice(0, rows)
    elif kind == "other release":
        draw.note("names of the other release")
        other = {"Duration": "Time_To_Live", "Time_To_Live": "Duration"}
        table = table.rename_columns([other.get(name, name) for name in names])
    elif kind == "metadata":
        draw.note("metadata")
        table = table.replace_schema_metadata(
            draw.pick(
                (
                    {"pandas": "{"},
                    {"pandas": "[]"},
                    {b"\xff": b"\xff"},
                    {"org.apache.spark.sql.parquet.row.metadata": "{"},
                )
            )
        )
    return table


_MUTATIONS: Final = {
    "values": 4, "nulls": 2, "type": 6, "text": 6, "time": 6, "rename": 3, "drop": 2, "duplicate": 2, "extra": 3,
    "many extra": 0.5, "pad": 1, "underscores": 1, "order": 1, "rows": 1.5, "other release": 1, "metadata": 0.7,
}  # fmt: skip


def _replace(draw: Draw, table: pa.Table, name: str, column: Any) -> pa.Table:
    draw.note(f"{name}: {column.type}")
    return table.set_column(table.column_names.index(name), name, column)


def _renamed(draw: Draw, table: pa.Table, at: int, name: str) -> pa.Table:
    draw.note(f"{table.column_names[at]} is now {name!r}")
    return table.rename_columns([name if i == at else old for i, old in enumerate(table.column_names)])


def _number_column(draw: Draw, column: pa.ChunkedArray) -> pa.Array:
    values = [0.0 if v is None or v != v or abs(v) > 1e300 else float(v) for v in column.to_pylist()]
    rows = len(values)
    kind = draw.pick(_NUMBER_KINDS)
    if kind in ("float32", "float16"):
        return pa.array(
            np.array(values, kind).clip(-60000, 60000) if kind == "float16" else np.array(values, "float32")
        )
    if kind in ("int8", "int64", "uint64"):
        return pa.array([int(abs(v)) % 120 for v in values], kind)
    if kind == "huge integers":
        return pa.array([draw.pick((2**63 - 1, -(2**63), 2**53 + 1, 0)) for _ in values], pa.int64())
    if kind == "bool":
        return pa.array([v > 0 for v in values])
    if kind == "decimal128":
        return pa.array([decimal.Decimal(f"{v % 1000:.4f}") for v in values], pa.decimal128(20, 4))
    if kind == "decimal256":
        return pa.array(
            [decimal.Decimal(int(v) % 1000).scaleb(draw.pick((0, 60))) for v in values], pa.decimal256(76, 0)
        )
    if kind in ("string", "large_string"):
        return pa.array([repr(v) for v in values], kind)
    if kind == "hostile text":
        texts = [draw.pick(cells.NUMBERS_AS_TEXT) if draw.chance(0.3) else repr(v) for v in values]
        return invalid_text([text.encode("utf-8", "surrogateescape") for text in texts])
    if kind == "invalid text":
        return invalid_text([draw.pick(cells.INVALID) if draw.chance(0.3) else repr(v).encode() for v in values])
    if kind == "dictionary of numbers":
        return pa.array(values).dictionary_encode()
    if kind == "dictionary of text":
        return pa.array([repr(v) for v in values]).dictionary_encode()
    if kind == "binary":
        return pa.array([repr(v).encode() for v in values], pa.binary())
    if kind == "list":
        return pa.array([[v] for v in values])
    if kind == "struct":
        return pa.array([{"v": v} for v in values])
    if kind == "map":
        return pa.array([[("v", v)] for v in values], pa.map_(pa.string(), pa.float64()))
    if kind == "null":
        return pa.nulls(rows)
    if kind == "timestamp":
        return pa.array([int(v) % 10**9 for v in values], pa.timestamp("ms"))
    if kind == "date32":
        return pa.array([int(v) % 10**4 for v in values], pa.date32())
    if kind == "time64":
        return pa.array([int(v) % 10**4 for v in values], pa.time64("us"))
    return pa.array([int(v) % 10**9 for v in values], pa.duration("s"))


def text_column(draw: Draw, rows: int) -> pa.Array:
    """Return a column of identifiers or labels of any kind."""
    kind = draw.pick(_TEXT_KINDS)
    if kind == "text":
        return pa.array([None if draw.chance(0.1) else draw.pick(cells.TEXTS) for _ in range(rows)], pa.string())
    if kind == "large_string":
        return pa.array([draw.pick(cells.TEXTS) for _ in range(rows)], pa.large_string())
    if kind == "invalid":
        return invalid_text([None if draw.chance(0.1) else draw.pick((*cells.INVALID, b"pump-1")) for _ in range(rows)])
    if kind == "integers":
        return pa.array([draw.pick((12_345_678_900, 0, -1, 2**63 - 1)) for _ in range(rows)], pa.int64())
    if kind == "doubles":
        numbers = (12_345_678_900.0, 1.5, float("nan"), float("inf"), 1e30, 2.0**53 + 2, -0.0, None)
        return pa.array([draw.pick(numbers) for _ in range(rows)], pa.float64())
    if kind == "dictionary":
        return pa.array([draw.pick(("a", "b", None)) for _ in range(rows)], pa.string()).dictionary_encode()
    if kind == "dictionary with more":
        codes = pa.array([draw.rng.randrange(2) for _ in range(rows)], pa.int8())
        return pa.DictionaryArray.from_arrays(
            codes, pa.array(["Benign_train.pcap", "ARP_Spoofing_test.pcap", "left over"])
        )
    if kind == "nested dictionary":
        codes = pa.array([0 if i % 2 else None for i in range(rows)], pa.int32())
        return pa.DictionaryArray.from_arrays(codes, invalid_text([b"\xff\xfe"]))
    if kind == "binary":
        return pa.array([draw.rng.randbytes(4) for _ in range(rows)], pa.binary())
    if kind == "fixed":
        return pa.array([draw.rng.randbytes(16) for _ in range(rows)], pa.binary(16))
    if kind == "list":
        return pa.array([["a", None] for _ in range(rows)], pa.list_(pa.string()))
    if kind == "struct":
        return pa.array([{"orig_h": "10.0.0.1"} for _ in range(rows)], pa.struct([("orig_h", pa.string())]))
    if kind == "bool":
        return pa.array([draw.chance(0.5) for _ in range(rows)], pa.bool_())
    if kind == "timestamp":
        return pa.array([draw.rng.randrange(10**12) for _ in range(rows)], pa.timestamp("ms"))
    if kind == "decimal":
        return pa.array([decimal.Decimal(draw.rng.randrange(10**6)) for _ in range(rows)], pa.decimal128(20, 2))
    if kind == "same":
        return pa.array([draw.pick(cells.TEXTS)] * rows, pa.string())
    if kind == "date":
        return pa.array([dt.date(2026, 3, 1)] * rows)
    if kind == "time":
        return pa.array([dt.time(10)] * rows)
    if kind == "float16":
        return pa.array(np.arange(rows).astype("float16"))
    return pa.nulls(rows)


def _time_column(draw: Draw, rows: int) -> pa.Array:
    kind = draw.pick(_TIME_KINDS)
    if kind in ("integers", "uint64", "int32"):
        numbers = [draw.pick(cells.EPOCHS) for _ in range(rows)]
        if kind != "integers":
            numbers = [abs(n) % 2**31 for n in numbers]
        return pa.array([None if draw.chance(0.05) else n for n in numbers], "int64" if kind == "integers" else kind)
    if kind == "one unit":
        unit = draw.pick((1, 10**3, 10**6, 10**9))
        return pa.array([(1_772_359_200 + i) * unit for i in range(rows)], pa.int64())
    if kind in ("doubles", "float32"):
        numbers = (*cells.NUMBERS, 1_772_359_200.25, 1.7723592e12, 1.7723592e18)
        return pa.array([float(draw.pick(numbers)) for _ in range(rows)]).cast(
            pa.float32() if kind == "float32" else pa.float64()
        )
    if kind == "text":
        texts = [draw.pick(cells.TIMES_AS_TEXT) for _ in range(rows)]
        return pa.array(texts, draw.pick((pa.string(), pa.large_string())))
    if kind in ("timestamp", "extreme"):
        unit = draw.pick(("s", "ms", "us", "ns"))
        if kind == "extreme":
            return pa.array([draw.pick(cells.EPOCHS) for _ in range(rows)], pa.int64()).cast(pa.timestamp(unit))
        per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
        return pa.array([(1_772_359_200 + 60 * i) * per_second for i in range(rows)], pa.timestamp(unit))
    if kind == "zone":
        zone = draw.pick(("UTC", "+05:30", "Europe/Berlin", "America/New_York", "Mars/Phobos", "", "\u00e9"))
        return pa.array([1_772_359_200 + 60 * i for i in range(rows)], pa.timestamp("s", tz=zone))
    if kind == "date32":
        return pa.array([draw.pick((20_513, 0, -(2**31), 2**31 - 1)) for _ in range(rows)], pa.int32()).cast(
            pa.date32()
        )
    if kind == "date64":
        return pa.array([20_513 * 86_400_000] * rows, pa.int64()).cast(pa.date64())
    if kind == "time":
        return pa.array([dt.time(10)] * rows)
    if kind == "bool":
        return pa.array([True] * rows)
    if kind == "invalid":
        return invalid_text([draw.pick((b"2026-03-01T10:00:00Z", *cells.INVALID)) for _ in range(rows)])
    if kind == "dictionary":
        return pa.array([draw.pick(cells.TIMES_AS_TEXT) for _ in range(rows)]).dictionary_encode()
    if kind == "list":
        return pa.array([[1_772_359_200]] * rows)
    if kind == "decimal":
        return pa.array([decimal.Decimal("1772359200.125")] * rows, pa.decimal128(20, 3))
    return pa.nulls(rows)


def content_of(draw: Draw, table: pa.Table) -> tuple[bytes, bool]:
    """Return a table as a parquet file, and whether its rows are still those of the table."""
    options: dict[str, Any] = {"row_group_size": draw.pick((1, 3, 7, 1000, 1000, 1000))}
    if draw.chance(0.3):
        options |= draw.pick(
            (
                {"compression": "gzip"},
                {"compression": "zstd"},
                {"compression": "none"},
                {"version": "1.0"},
                {"data_page_version": "2.0"},
                {"use_deprecated_int96_timestamps": True},
                {"store_schema": False},
                {"use_dictionary": False},
                {"coerce_timestamps": "ms", "allow_truncated_timestamps": True},
                {"write_page_index": True},
                {"write_statistics": False},
                {"data_page_size": 10},
                {"compression": "lz4"},
            )
        )
        draw.note(f"written with {next(iter(options.items() - {('row_group_size', options['row_group_size'])}), None)}")
    content = _written(draw, table, options)
    if draw.chance(0.2):
        return raw.mutate(draw, content, 3), False
    if draw.chance(0.04):
        draw.note("footer of another file")
        other = _written(draw, pa.table({"a": list(range(50))}), {})
        size = int.from_bytes(other[-8:-4], "little")
        return content[: len(content) // 2] + other[-8 - size :], False
    if draw.chance(0.05):
        return raw.another_kind(draw, content), False
    return content, True


def _written(draw: Draw, table: pa.Table, options: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    try:
        pq.write_table(table, sink, **options)
    except (pa.ArrowException, OverflowError, ValueError) as error:  # a type that parquet has no place for
        draw.note(f"not written: {str(error)[:60]}")
        return b"PAR1" + json.dumps(str(table.schema)).encode() + b"PAR1"
    return sink.getvalue()


def plain(table: pa.Table) -> bytes:
    """Return a table as a parquet file without anything rare."""
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


_NUMBER_KINDS: Final = (
    "float32", "float16", "int8", "int64", "uint64", "bool", "decimal128", "decimal256", "string", "large_string",
    "dictionary of numbers", "dictionary of text", "binary", "list", "struct", "map", "null", "timestamp",
    "date32",
    "time64", "duration", "invalid text", "hostile text", "huge integers",
)  # fmt: skip


_TEXT_KINDS: Final = (
    "text", "text", "invalid", "integers", "doubles", "dictionary", "dictionary with more", "binary", "list",
    "struct", "null",
    "bool", "timestamp", "large_string", "decimal", "same", "date", "time", "float16", "fixed", "nested dictionary",
)  # fmt: skip


_TIME_KINDS: Final = (
    "integers", "integers", "one unit", "doubles", "text", "text", "timestamp", "zone", "date32", "date64", "time",
    "null", "bool",
    "invalid", "dictionary", "list", "decimal", "int32", "uint64", "float32", "extreme",
)  # fmt: skip
