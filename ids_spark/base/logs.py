"""Destination and format of log lines, the same in jobs and on Horovod ranks, and data as printable text."""

import logging
import sys


def log_to_stderr(level: int) -> None:
    """Log to standard error: this package from `level` up, other packages from WARNING up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Printable("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("ids_spark").setLevel(level)


class _Printable(logging.Formatter):
    """Escapes what text from data could do to a terminal; line ends of messages and stack traces are kept."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        return "\n".join(printable(line) for line in super().format(record).replace("\t", "    ").split("\n"))


def printable(text: str) -> str:
    """Return a text without characters that move the cursor or change the direction of reading: they are escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
