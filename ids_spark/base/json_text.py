"""JSON that others may have written, checked before its values are used: one reader for every file of this package."""

import functools
import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from pydantic import ValidationError

from ids_spark.base.logs import printable
from ids_spark.base.text import one_line

MOST_BYTES: Final = 32 << 20
"""Of a file. The largest ones are validation scores: 25 bytes for a score, 1.1 % of the benign validation rows."""
MOST_PARTS: Final = 1_000_000
"""Objects and lists of a file, each of which takes 60 to 300 bytes of memory for 2 bytes of text."""
MOST_LEVELS: Final = 64
"""Nesting; no file of this program has more than ten levels. Python ends at about a thousand, at some other place."""
_MOST_DIGITS: Final = 20  # of 64 bits, with sign; the conversion of many digits takes time that grows with their square
_LARGEST: Final = 2**63
_LARGE: Final = re.compile(r"[0-9]{19}|[eE][+-]?[0-9]{3}")
"""What every number has that is beyond a limit; without it, Python converts numbers itself, four times as fast."""


def loads(content: bytes | str, most_bytes: int = MOST_BYTES, most_keys: int | None = None) -> Any:
    """Return the value of a JSON text.

    Numbers are finite, integers have at most 64 bits: `NaN`, `Infinity` and `1e999` are refused.

    Args:
        content: The text.
        most_bytes: Its largest size.
        most_keys: The most keys of an object; None: as many as there are.

    Raises:
        ValueError: it is not JSON in UTF-8, an object has a key twice, or it exceeds a limit of this module.
    """
    if len(content) > most_bytes:
        raise ValueError(f"found {len(content):,} bytes of JSON; expected at most {most_bytes:,}")
    text = content.decode() if isinstance(content, bytes) else content
    if (parts := text.count("{") + text.count("[")) > MOST_PARTS:
        raise ValueError(f"found {parts:,} objects and lists; expected at most {MOST_PARTS:,}")
    large = _LARGE.search(text) is not None
    try:
        found = json.loads(
            text,
            object_pairs_hook=functools.partial(_object, most_keys=most_keys),
            parse_constant=_no_number,
            parse_int=_integer if large else None,
            parse_float=_finite if large else None,
        )
    except RecursionError:
        raise ValueError(f"nested too deeply; expected at most {MOST_LEVELS} levels") from None
    _require_few_levels(found)
    return found


def checked(content: bytes) -> bytes:
    """Return a JSON text unchanged after the checks of `loads`, for a parser that lacks them.

    Raises:
        ValueError: as `loads`.
    """
    loads(content)
    return content


def fault_of(error: ValueError) -> str:
    """Return in one line where content is not as expected and why, from an error of `loads` or of pydantic."""
    if not isinstance(error, ValidationError):
        return f"content: {one_line(error)}"
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "content"
    return printable(f"{where}: {first['msg'].removeprefix('Value error, ')}")


def _object(pairs: Sequence[tuple[str, Any]], most_keys: int | None) -> dict[str, Any]:
    if most_keys is not None and len(pairs) > most_keys:
        raise ValueError(f"found an object of {len(pairs):,} keys; expected at most {most_keys:,}")
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise ValueError(f"key {twice[:80]!r} is there twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a finite number")


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS or not -_LARGEST <= int(text) < _LARGEST:
        raise ValueError(f"{text[:_MOST_DIGITS]}… has more than 64 bits")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if abs(number) == float("inf"):
        raise ValueError(f"{text[:_MOST_DIGITS]} is too large for a finite number")
    return number


def _require_few_levels(found: Any) -> None:
    level, depth = [found] if isinstance(found, dict | list) else [], 0
    while level:
        depth += 1
        if depth > MOST_LEVELS:
            raise ValueError(f"nested too deeply; expected at most {MOST_LEVELS} levels")
        parts = (each.values() if isinstance(each, dict) else each for each in level)
        level = [child for part in parts for child in part if isinstance(child, dict | list)]
