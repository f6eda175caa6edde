"""Names that become parts of paths below a lake: names of jobs, runs, tables, files, models and versions; dates."""

import datetime as dt
import re
from typing import Final

NAME: Final = r"[A-Za-z0-9_][A-Za-z0-9_.=+-]{0,199}"
"""Pattern of one part of a path: no separator, not hidden, never `..`, no longer than file systems allow."""
PLACE: Final = rf"{NAME}(/{NAME}){{0,9}}"
"""Pattern of a relative path."""


def is_name(text: str) -> bool:
    """Return whether a text can be one part of a path."""
    return re.fullmatch(NAME, text) is not None


def is_place(text: str) -> bool:
    """Return whether a text is a relative path that stays below the folder that it is joined to."""
    return re.fullmatch(PLACE, text) is not None


def date_of(text: str) -> dt.date:
    """Return the date of a text `YYYY-MM-DD`, as folders of nights are named.

    Raises:
        ValueError: it is no date, or one in another form of ISO 8601, such as `20261124` and `2026-W48-2`.
    """
    found = dt.date.fromisoformat(text)
    if found.isoformat() != text:
        raise ValueError(f"{text!r} is no date YYYY-MM-DD")
    return found
