"""Pass-through columns of flow logs: identifiers as text, event times as moments. Pure functions on Arrow columns.

No value makes a flow unusable: bytes that are not UTF-8 are written as escapes, long texts are shortened with a hash,
and an event time that cannot be read is null and counted.
"""

import datetime as dt
import logging
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ids_spark.base.arrays import Floats, Ints, Mask
from ids_spark.base.text import LONGEST, short

log = logging.getLogger(__name__)

TIME: Final = pa.timestamp("us", tz="UTC")
ENCODED: Final = pa.dictionary(pa.int32(), pa.string())
_END: Final = int(dt.datetime(2201, 1, 1, tzinfo=dt.UTC).timestamp())  # seconds since 1970, exclusive
_PER_SECOND: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_MICRO: Final = 10**6
_TIME_FORMAT: Final = "%Y-%m-%d %H:%M:%S"
_TIME_TEXT: Final = (  # ISO 8601, also with a blank instead of T; digits beyond microseconds are dropped
    r"^\s*(?P<day>\d{4}-\d\d-\d\d)[T ](?P<clock>\d\d:\d\d:\d\d)(?:[.,](?P<part>\d{1,6})\d*)?"
    r"\s*(?:Z|(?P<sign>[+-])(?P<hours>\d\d):?(?P<minutes>\d\d)?)?\s*$"
)
_WHOLE_TEXT: Final = r"^(?:\d{1,18}|[1-7]\d{18})$"  # fits int64
_DECIMAL_TEXT: Final = r"^\d+\.?\d*(?:[eE][+-]?\d{1,3})?$"


def texts(column: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column as text; null stays null.

    A whole number stored as double or decimal has the text of the integer, any other the shortest decimal; NaN is null.
    Bytes that are not UTF-8 become escapes (backslash, x, two hex digits). A text of more than `LONGEST` characters
    becomes its first characters, `…` and a hash. A type without a text form gives nulls.
    """
    return _by_chunk(column, _text_of_chunk, pa.string())


def encoded_texts(column: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column as `texts` does; one encoded as a dictionary stays encoded, and each text is converted once."""
    if not pa.types.is_dictionary(column.type):
        return texts(column)
    return _by_chunk(column, _encoded_chunk, ENCODED)


def event_times(column: pa.Array | pa.ChunkedArray) -> tuple[pa.ChunkedArray, Mask]:
    """Return a column as times, and which rows have a value that is no time of the years 1970 to 2200 and become null.

    Timestamps and dates are understood, ISO 8601 text, and numbers (also as text) since 1970: below 7.29e9 they are
    seconds (to the year 2200), from there milliseconds, from 7.29e12 microseconds, from 7.29e15 to 7.29e18 nanoseconds;
    only milliseconds of the first 84 days of 1970 would be taken for seconds. Times without a zone are in UTC. Null,
    NaN and empty text are no values and not counted.
    """
    unread = [np.empty(0, dtype=np.bool_)]

    def times(chunk: pa.Array) -> pa.Array:
        if pa.types.is_timestamp(chunk.type) and chunk.type.unit == "us" and _within_years(chunk):
            unread.append(np.zeros(len(chunk), dtype=np.bool_))
            return chunk.cast(TIME)
        moments, known, given = _moments(chunk)
        unread.append(given & ~known)
        return pa.array(np.where(known, moments, 0), mask=~known).cast(TIME)

    return _by_chunk(column, times, TIME), np.concatenate(unread)


def type_name(kind: pa.DataType) -> str:
    """Return a type as text without what a file can put there: a time zone, and names of fields."""
    if pa.types.is_timestamp(kind):
        return f"timestamp[{kind.unit}]"
    return str(kind).split("<", 1)[0]


def _by_chunk(
    column: pa.Array | pa.ChunkedArray, convert: Callable[[pa.Array], pa.Array], kind: pa.DataType
) -> pa.ChunkedArray:
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return pa.chunked_array([convert(chunk) for chunk in chunks], kind)


def _encoded_chunk(array: pa.DictionaryArray) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(array.indices.cast(pa.int32()), _text_of_chunk(array.dictionary))


def _text_of_chunk(array: pa.Array) -> pa.Array:
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _text_of_chunk(array.dictionary).take(array.indices)
    if pa.types.is_floating(kind):
        return _text_of_floats(array)
    if pa.types.is_decimal(kind):
        return _mapped(array, lambda value: _without_zeros(format(value, "f")))
    try:
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            array = array.cast(pa.string())  # of bytes: only if they are UTF-8
        array.validate(full=True)
    except pa.ArrowException as error:
        if not _holds_bytes(kind):
            log.warning(
                "a pass-through column has no text form and is null type=%s error=%s",
                type_name(kind),
                type(error).__name__,
            )
            return pa.nulls(len(array), pa.string())
        return _mapped(array.cast(pa.binary()), _text_of_bytes)
    if (pc.max(pc.binary_length(array)).as_py() or 0) > LONGEST:
        return _mapped(array.cast(pa.binary()), _text_of_bytes)
    return array.cast(pa.string())


def _holds_bytes(kind: pa.DataType) -> bool:
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(test(kind) for test in (*tests, pa.types.is_fixed_size_binary))


def _mapped(array: pa.Array, text_of: Callable[[Any], str]) -> pa.Array:
    """Return the texts of values, each distinct value converted once."""
    encoded = array.dictionary_encode()
    found = pa.array(
        [None if value is None else text_of(value) for value in encoded.dictionary.to_pylist()], pa.string()
    )
    return found.take(encoded.indices)


def _text_of_bytes(value: bytes) -> str:
    return short(value.decode(errors="backslashreplace"))


def _without_zeros(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _text_of_floats(array: pa.Array) -> pa.Array:
    values = array.to_numpy(zero_copy_only=False)  # null becomes NaN
    whole = np.abs(values) < 2.0**53
    whole &= np.trunc(values) == values
    if whole.all():
        return pa.array(values.astype(np.int64)).cast(pa.string())
    integers = pa.array(np.where(whole, values, 0).astype(np.int64), mask=np.isnan(values)).cast(pa.string())
    distinct, inverse = np.unique(values[~whole], return_inverse=True)
    others = [
        None if np.isnan(value) else str(int(value)) if np.isfinite(value) and value == np.trunc(value) else str(value)
        for value in distinct
    ]
    places = np.full(len(values), -1)
    places[~whole] = inverse
    return pc.coalesce(pa.array(others, pa.string()).take(pa.array(places, mask=places < 0)), integers)


def _within_years(times: pa.Array) -> bool:
    """Return whether all of these microseconds are within the years 1970 to 2200."""
    ends = pc.min_max(times.cast(pa.int64()))
    first, last = ends["min"].as_py(), ends["max"].as_py()
    return first is None or (first >= 0 and last < _END * _MICRO)


def _moments(array: pa.Array) -> tuple[Ints, Mask, Mask]:
    """Return microseconds since 1970, which of them are known, and which rows have a value; each of shape (rows,)."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        at = array.indices.cast(pa.int64()).fill_null(len(array.dictionary)).to_numpy(zero_copy_only=False)
        moments, known, given = _moments(array.dictionary)
        return np.append(moments, 0)[at], np.append(known, False)[at], np.append(given, False)[at]
    given = np.asarray(pc.is_valid(array))
    if pa.types.is_timestamp(kind):
        return _scaled(array.cast(pa.int64()), given, _PER_SECOND[kind.unit])
    if pa.types.is_date32(kind):
        return _scaled(pc.multiply(array.cast(pa.int32()).cast(pa.int64()), 86_400), given, 1)
    if pa.types.is_date64(kind):
        return _scaled(array.cast(pa.int64()), given, 1_000)
    if pa.types.is_integer(kind):
        return (*_of_integers(_numpy(array.cast(pa.int64(), safe=False), 0), given), given)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        values = _numpy(array.cast(pa.float64()), np.nan)
        return (*_of_doubles(values), given & ~np.isnan(values))
    if _holds_bytes(kind):
        return _of_texts(_text_of_chunk(array))
    return np.zeros(len(array), dtype=np.int64), np.zeros(len(array), dtype=np.bool_), given


def _numpy(array: pa.Array, missing: float) -> NDArray[Any]:
    found: NDArray[Any] = array.fill_null(missing).to_numpy(zero_copy_only=False)
    return found


def _scaled(values: pa.Array, given: Mask, per_second: int) -> tuple[Ints, Mask, Mask]:
    numbers = _numpy(values, 0)
    known = given & (numbers >= 0) & (numbers < _END * per_second)
    return _to_micros(np.where(known, numbers, 0), per_second), known, given


def _to_micros(values: Ints, per_second: int) -> Ints:
    found: Ints = values * (_MICRO // per_second) if per_second <= _MICRO else values // (per_second // _MICRO)
    return found


def _of_integers(values: Ints, given: Mask) -> tuple[Ints, Mask]:
    moments = np.zeros(len(values), dtype=np.int64)
    known = given & (values > 0)
    for per_second, low in ((1, 0), (10**3, _END), (10**6, _END * 10**3), (10**9, _END * 10**6)):
        chosen = known & (values >= low) & (values < _END * per_second)
        moments[chosen] = _to_micros(values[chosen], per_second)
    return moments, known & (values < _END * 10**9)


def _of_doubles(values: Floats) -> tuple[Ints, Mask]:
    moments = np.zeros(len(values), dtype=np.int64)
    known = (values > 0) & (values < _END * 1e9)
    for per_second, low in ((1.0, 0.0), (1e3, _END), (1e6, _END * 1e3), (1e9, _END * 1e6)):
        chosen = known & (values >= low) & (values < _END * per_second)
        moments[chosen] = np.rint(values[chosen] * (_MICRO / per_second)).astype(np.int64)
    return moments, known & (moments < _END * _MICRO)


def _of_texts(text: pa.Array) -> tuple[Ints, Mask, Mask]:
    trimmed = pc.utf8_trim_whitespace(text)
    given = np.asarray(pc.greater(pc.binary_length(trimmed), 0).fill_null(False))
    of_iso = _of_iso_texts(text)
    moments, known = _numpy(of_iso, 0), np.asarray(pc.is_valid(of_iso))
    known = known & (moments >= 0) & (moments < _END * _MICRO)
    if (rest := given & ~known).any():
        for pattern, kind, convert in (
            (_WHOLE_TEXT, pa.int64(), lambda numbers: _of_integers(numbers, np.ones(len(numbers), dtype=np.bool_))),
            (_DECIMAL_TEXT, pa.float64(), _of_doubles),
        ):
            matching = np.asarray(pc.match_substring_regex(trimmed, pattern).fill_null(False)) & rest & ~known
            at = np.flatnonzero(matching)
            moments = moments.copy()
            moments[at], found = convert(_numpy(trimmed.take(pa.array(at)).cast(kind), 0))
            known[at] = found
    return moments, known, given


def _of_iso_texts(text: pa.Array) -> pa.Array:
    """Return the microseconds since 1970 of ISO 8601 texts, in UTC if they have no zone; null for any other text."""
    parts = pc.extract_regex(text, _TIME_TEXT)
    day, clock, part, sign, hours, minutes = (pc.struct_field(parts, i) for i in range(6))
    whole = pc.binary_join_element_wise(day, clock, " ")
    parsed = pc.strptime(whole, _TIME_FORMAT, "s", error_is_null=True)
    real = pc.equal(pc.strftime(parsed, _TIME_FORMAT), whole)  # else 31 February would become 3 March
    micros = pc.utf8_rpad(pc.coalesce(part, ""), 6, "0").cast(pa.int64())
    zone = pc.add(pc.multiply(_number(hours), 60), _number(minutes))
    offset = pc.multiply(pc.if_else(pc.equal(sign, "-"), pc.negate(zone), zone), 60_000_000)
    moments = pc.subtract(pc.add(pc.multiply(parsed.cast(pa.int64()), _MICRO), micros), offset)
    return pc.if_else(real, moments, None)


def _number(digits: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(pc.utf8_length(pc.coalesce(digits, "")), 0), "0", digits).cast(pa.int64())
