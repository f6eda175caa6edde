"""Identifiers as text and event times as moments, from columns of every type that logs have."""

import datetime as dt
import decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ids_spark.score import pass_through

UTC = dt.UTC
MOMENT = dt.datetime(2026, 3, 1, 10, 0, 0, 250_000, tzinfo=UTC)
SECONDS = 1_772_359_200  # 2026-03-01T10:00:00Z


def not_utf8(*values: bytes) -> pa.Array:
    """A column that is called text and holds any bytes, as writers that do not check make it."""
    offsets = np.cumsum([0, *map(len, values)]).astype(np.int32)
    return pa.Array.from_buffers(
        pa.string(), len(values), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(values))]
    )


def times(column: Any) -> tuple[list[dt.datetime | None], list[bool]]:
    found, unread = pass_through.event_times(column)
    assert found.type == pa.timestamp("us", tz="UTC")
    return found.to_pylist(), unread.tolist()


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([12_345_678_900, None]), ["12345678900", None]),
        (pa.array([12_345_678_900.0, None]), ["12345678900", None]),
        (pa.array([5.0, 1.5, -0.0, np.nan, np.inf]), ["5", "1.5", "0", None, "inf"]),
        (pa.array([0.1, 7.0], pa.float32()), ["0.1", "7"]),
        (pa.array([2.0**60, 1e22]), ["1152921504606846976", "10000000000000000000000"]),
        (pa.array([decimal.Decimal("12345678900.00"), decimal.Decimal("0.50"), None]), ["12345678900", "0.5", None]),
        (pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
        (pa.array(["12345678900.0", ""]), ["12345678900.0", ""]),
        (pa.array(["pump", None, "pump"]).dictionary_encode(), ["pump", None, "pump"]),
        (pa.array([7.0, None, 7.0]).dictionary_encode(), ["7", None, "7"]),
        (pa.array(["größe"], pa.large_string()), ["größe"]),
        (pa.array([b"pump-1", None, b"p\xffmp"]), ["pump-1", None, "p\\xffmp"]),
        (pa.array([b"\x00\xfe"], pa.binary(2)), ["\x00\\xfe"]),
        (not_utf8(b"Herzkatheter \xdc1", b"pump", b"Herzkatheter \xdc2"),
         ["Herzkatheter \\xdc1", "pump", "Herzkatheter \\xdc2"]),
        (not_utf8(b"\xff", b"pump").dictionary_encode(), ["\\xff", "pump"]),
        (pa.array([1, 2], pa.duration("s")), ["1", "2"]),
        (pa.array([True, None]), ["true", None]),
        (pa.nulls(2), [None, None]),
        (pa.array([], pa.float64()), []),
    ],
)  # fmt: skip
def test_identifiers_of_any_type_become_text(column: pa.Array, expected: list[str | None]) -> None:
    assert pass_through.texts(column).to_pylist() == expected
    assert pass_through.texts(pa.chunked_array([column, column])).to_pylist() == expected * 2


def test_long_texts_are_shortened_and_stay_distinct() -> None:
    long = ["x" * 5_000_000, "x" * 4_999_999 + "y", "ü" * 512, "ü" * 513, None]
    found = pass_through.texts(pa.array(long)).to_pylist()
    assert [text and len(text) for text in found] == [512, 512, 512, 512, None]
    assert len(set(found)) == 5
    assert found[0].startswith("xxx")
    assert "…" in found[0]
    assert found[2] == long[2]
    assert pass_through.texts(pa.array(long).dictionary_encode()).to_pylist() == found


@pytest.mark.parametrize(
    "column",
    [
        pa.array([MOMENT], pa.timestamp("us")),
        pa.array([MOMENT], pa.timestamp("us", tz="Europe/Berlin")),
        pa.array([MOMENT], pa.timestamp("ns")),
        pa.array([MOMENT], pa.timestamp("ms")),
        pa.array([SECONDS * 1000 + 250]),
        pa.array([SECONDS * 10**6 + 250_000]),
        pa.array([SECONDS * 10**9 + 250_000_999]),
        pa.array([SECONDS * 1000 + 250], pa.uint64()),
        pa.array([SECONDS + 0.25]),
        pa.array([SECONDS * 1e3 + 250]),
        pa.array([SECONDS * 1e6 + 250_000]),
        pa.array([SECONDS * 1e9 + 250_000_000]),
        pa.array([decimal.Decimal(f"{SECONDS}.250000")]),
        pa.array([f"{SECONDS}.25"]),
        pa.array([f" {SECONDS}250 "]),
        pa.array([f"{SECONDS}250000999"]),
        pa.array([f"{SECONDS}.25e0"]).dictionary_encode(),
        pa.array([SECONDS * 1000 + 250]).dictionary_encode(),
        pa.array(["2026-03-01T11:00:00.25+01:00"]),
        pa.array([b"2026-03-01 10:00:00.250"]),
    ],
    ids=str,
)
def test_a_moment_is_understood_in_every_type_and_unit(column: pa.Array) -> None:
    assert times(column) == ([MOMENT], [False])
    assert times(pa.chunked_array([column, column.slice(0, 0), column])) == ([MOMENT] * 2, [False] * 2)


def test_whole_seconds_and_dates_are_understood() -> None:
    at = [dt.datetime(2026, 3, 1, 10, tzinfo=UTC)]
    for column in (pa.array([SECONDS]), pa.array([SECONDS], pa.timestamp("s")), pa.array([str(SECONDS)])):
        assert times(column) == (at, [False])
    midnight = [dt.datetime(2026, 3, 1, tzinfo=UTC), None]
    for kind in (pa.date32(), pa.date64()):
        assert times(pa.array([dt.date(2026, 3, 1), None], kind)) == (midnight, [False, False])


def test_a_number_is_the_unit_that_gives_a_moment_of_the_years_1970_to_2200() -> None:
    first, last = dt.datetime(1970, 6, 1, tzinfo=UTC), dt.datetime(2200, 12, 31, 23, 59, 59, tzinfo=UTC)
    for moment in (first, last):
        seconds = int(moment.timestamp())
        for scale in (1, 10**3, 10**6, 10**9):
            assert times(pa.array([seconds * scale])) == ([moment], [False])
            assert times(pa.array([str(seconds * scale)])) == ([moment], [False])
    assert times(pa.array([float(SECONDS) * scale for scale in (1, 1e3, 1e6, 1e9)]))[1] == [False] * 4


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1_795_502_400_000_000_000], pa.timestamp("us")),  # the year 58867
        pa.array([-1], pa.timestamp("us")),
        pa.array([10**15], pa.timestamp("s")),
        pa.array([7_289_654_400_000], pa.timestamp("ms")),  # 2201-01-01
        pa.array([-5]),
        pa.array([0]),
        pa.array([2**63 - 1]),
        pa.array([2**64 - 1], pa.uint64()),
        pa.array([np.inf]),
        pa.array([-1.5]),
        pa.array([1e300]),
        pa.array(["yesterday"]),
        pa.array(["9" * 600]),
        pa.array(["1e999"]),
        pa.array(["2026-02-31T10:00:00"]),
        pa.array(["1969-12-31T23:59:59Z"]),
        pa.array(["2201-01-01T00:00:00Z"]),
        not_utf8(b"2026-03-01\xff10:00:00"),
        pa.array([True]),
        pa.array([1], pa.time64("us")),
        pa.array([1], pa.duration("s")),
        pa.array([dt.date(1969, 12, 31)]),
    ],
    ids=str,
)
def test_what_is_no_moment_of_these_years_is_null_and_counted(column: pa.Array) -> None:
    assert times(column) == ([None], [True])


@pytest.mark.parametrize(
    "column", [pa.nulls(1), pa.array([None], pa.int64()), pa.array([np.nan]), pa.array([""]), pa.array([" \t"]),
               pa.array([None], pa.string()).dictionary_encode(), pa.array([None], pa.timestamp("ns"))], ids=str
)  # fmt: skip
def test_what_is_no_value_is_null_and_not_counted(column: pa.Array) -> None:
    assert times(column) == ([None], [False])


def test_no_value_is_lost_among_others() -> None:
    found, unread = times(pa.array(["2026-03-01T10:00:00Z", None, "x", str(SECONDS), "", "1e3"]))
    assert [moment and moment.year for moment in found] == [2026, None, None, 2026, None, 1970]
    assert unread == [False, False, True, False, False, False]
    mixed = pa.array([SECONDS, None, SECONDS * 1000, -1, SECONDS * 10**9])
    found, unread = times(mixed)
    assert [moment and moment.year for moment in found] == [2026, None, 2026, None, 2026]
    assert unread == [False, False, False, True, False]
    assert pc.is_valid(pass_through.event_times(mixed)[0]).to_pylist() == [True, False, True, False, True]


def test_encoded_columns_stay_encoded_and_have_the_same_texts() -> None:
    plain = pa.chunked_array([pa.array(["a", None, "b", "a"]), pa.array(["c", "x" * 600])])
    encoded = pass_through.encoded_texts(plain.dictionary_encode())
    assert encoded.type == pass_through.ENCODED
    assert encoded.cast(pa.string()).to_pylist() == pass_through.texts(plain).to_pylist()
    assert pass_through.encoded_texts(plain).type == pa.string()
    broken = pa.DictionaryArray.from_arrays(pa.array([1, 0, None, 1]), pa.array([b"\xe9", b"ok"]))
    assert pass_through.encoded_texts(broken).to_pylist() == ["ok", "\\xe9", None, "ok"]


def test_a_time_zone_that_a_file_invents_is_named_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    invented = pa.chunked_array([pa.array([1], pa.timestamp("us", tz="patient-4711"))])
    assert pass_through.texts(invented).to_pylist() == [None]
    assert "timestamp[us]" in caplog.text
    assert "patient" not in caplog.text
    assert pass_through.type_name(pa.struct({"patient": pa.int64()})) == "struct"
