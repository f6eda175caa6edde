"""Destination and format of log lines, the same in jobs, Spark tasks and Horovod ranks, and data as printable text."""

import copy
import logging
import sys
from collections.abc import Mapping
from typing import Any, Final

_INDENT: Final = "    "


def log_to_stderr(level: int) -> None:
    """Log to standard error: this package from `level` up, other packages, and warnings of Python, from WARNING up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.captureWarnings(True)
    logging.getLogger("ids_spark").setLevel(level)


class _Lines(logging.Formatter):
    """One line for a record; stack traces and lists of faults continue in lines that begin with a blank.

    Line ends and other control characters of values are escaped, so that data can neither split nor imitate a record.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of a record."""
        record = copy.copy(record)  # other handlers get the values as they are
        if isinstance(record.args, Mapping):
            record.args = {name: _as_value(value) for name, value in record.args.items()}
        elif record.args:
            record.args = tuple(map(_as_value, record.args))
        first, *more = super().format(record).replace("\t", _INDENT).split("\n")
        indented = (line if line.startswith(" ") else _INDENT + line for line in more)
        return "\n".join(map(printable, (first, *indented)))


def _as_value(value: Any) -> Any:
    """Return a value of a record in one line; of an error of this package, whose lines are its own, as it is."""
    from ids_spark.base.errors import Message  # which imports this module

    if isinstance(value, BaseException) and not isinstance(value, Message):
        value = str(value)
    return printable(value) if isinstance(value, str) else value


def printable(text: str) -> str:
    """Return a text without characters that move the cursor or change the direction of reading: they are escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
