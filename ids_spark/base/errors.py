"""Kinds of error: of the user's input or configuration, of the environment, and of this program."""

from ids_spark.base.logs import printable


class Message(Exception):
    """An error that a user reads as it is, without a stack trace.

    Args:
        first: What was found, what was expected and what to do.
        *more: Further lines, such as one for each fault. Text from data can add none: line ends in it are escaped.
    """

    def __init__(self, first: str = "", *more: str) -> None:
        super().__init__(*map(printable, (first, *more)))  # so that a copy from a task is made from the same arguments

    def __str__(self) -> str:
        """Return the lines, those after the first indented."""
        return "\n  ".join(self.args)


class InputError(Message):
    """Raised when configuration or input is invalid; nothing was written but the audit row.

    The message states what was found, what was expected and what to do. A job that ends with this error exits with code
    2 and prints only the message, without a stack trace.

    `spark_tasks` returns it from a task to the driver.
    """

    quotes_identifiers = False
    """Whether the message may hold names and addresses of devices that are not in quotes."""


class Interrupted(Message):
    """Raised when the environment ended the job, which can be run again. Exit code 1, no stack trace."""


class NotReconciled(Exception):
    """Raised when rows read and rows accounted for differ: a fault of this program; nothing is committed."""
