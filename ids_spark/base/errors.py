"""Kinds of error: of the user's input or configuration, of the environment, and of this program."""


class InputError(Exception):
    """Raised when configuration or input is invalid; nothing was written but the audit row.

    The message states what was found, what was expected and what to do. A job that ends with this error exits with code
    2 and prints only the message, without a stack trace.

    `spark_tasks` returns it from a task to the driver.
    """

    quotes_identifiers = False
    """Whether the message may hold names and addresses of devices that are not in quotes."""


class Interrupted(Exception):
    """Raised when the environment ended the job, which can be run again. Exit code 1, no stack trace."""


class NotReconciled(Exception):
    """Raised when rows read and rows accounted for differ: a fault of this program; nothing is committed."""
