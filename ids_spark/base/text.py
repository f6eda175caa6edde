"""Text from data: bytes that are no UTF-8, cells of any length, and names that are shown to people."""

import hashlib
from collections.abc import Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from ids_spark.base.logs import printable

LONGEST: Final = 512
"""Characters of a text that are kept; of a longer one the first, and a hash, so that different texts stay different."""
_HASH_DIGITS: Final = 16
_LONGEST_ERROR: Final = 300


def valid_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    r"""Return a text column in which bytes that are no UTF-8 are escapes such as `\xe9`; other text is unchanged.

    Writers other than Arrow do not check text, so that a column that parquet declares as text may hold any bytes.
    """
    binary = pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary()
    try:
        column.cast(binary).cast(column.type)  # this direction checks the bytes
    except pa.ArrowInvalid:
        cells = (cell.as_py() for cell in column.cast(binary))
        return pa.chunked_array(
            [[None if c is None else c.decode(errors="backslashreplace") for c in cells]], column.type
        )
    return column


def shortened(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a text column in which texts of more than `LONGEST` characters end with an ellipsis and a hash."""
    if not pc.any(pc.greater(pc.binary_length(column), LONGEST)).as_py():
        return column
    texts = (None if text is None else short(text) for text in column.to_pylist())
    return pa.chunked_array([list(texts)], column.type)


def short(text: str) -> str:
    """Return a text of at most `LONGEST` characters; a longer one ends with an ellipsis and a hash of all of it."""
    if len(text) <= LONGEST:
        return text
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:_HASH_DIGITS]
    return f"{text[: LONGEST - _HASH_DIGITS - 1]}…{digest}"


def one_line(error: BaseException) -> str:
    """Return the text of an error in one printable line of at most 300 characters; without a text its class."""
    return printable(" ".join(str(error).split())[:_LONGEST_ERROR] or type(error).__name__)


def shown(names: Sequence[str], most: int = 10) -> str:
    """Return the first names, printable, and how many there are more."""
    listed = ", ".join(printable(name) for name in names[:most])
    return f"{listed} and {len(names) - most:,} more" if len(names) > most else listed
