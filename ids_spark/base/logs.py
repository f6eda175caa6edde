"""Destination and format of log lines, the same in jobs and on Horovod ranks, and data as printable text."""

import logging
import sys


def log_to_stderr(level: int) -> None:
    """Log to standard error: this package from `level` up, other packages from WARNING up."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(message)s")
    logging.getLogger("ids_spark").setLevel(level)


def printable(text: str) -> str:
    """Return a text without characters that move the cursor or change the direction of reading: they are escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, printable; the name of its class if there is no message."""
    return printable((str(error).splitlines() or [type(error).__name__])[0])
