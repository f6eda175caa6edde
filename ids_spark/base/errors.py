"""Kinds of error: of the user's input or configuration, of the environment, and of this program."""

import base64
import sys

REFUSAL_KEY = "ids_spark.refusal_key"
"""Spark local property: the random key by which a driver recognises refusals that its own tasks raised."""


class InputError(Exception):
    """Raised when configuration or input is invalid; nothing was written.

    The message states what was found, what was expected and what to do. A job that ends with this error exits with code
    2 and prints only the message, without a stack trace.

    Spark returns an error of a task to the driver as text. So an error created in a task gets a note, which Python
    prints below the message: the key of this run and the message in base64. No row of data can contain the key, because
    the driver draws it at random when the job starts.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        key = _key_of_this_task()
        if key:
            self.add_note(f"{key} {base64.b64encode(message.encode()).decode()}")


class Interrupted(Exception):
    """Raised when the environment ended the job, which can be run again. Exit code 1, no stack trace."""


class NotReconciled(Exception):
    """Raised when rows read and rows accounted for differ: a fault of this program; nothing is committed."""


def refusal_in(text: str, key: str) -> str | None:
    """Return the message of the `InputError` that ended a task, from the text that Spark made of it, or None.

    Only the last line of the task's stack trace counts: an `InputError` that was caught is no refusal.

    Args:
        text: Text of the error that reached the driver.
        key: The value that the driver set as the local property `REFUSAL_KEY`.
    """
    before, found, after = text.rpartition(f"\n{key} ")
    if not found or not before:
        return None
    note, _, rest = after.partition("\n")
    if rest.strip() and not rest.lstrip().startswith("at "):  # Java's stack trace follows the Python one
        return None
    return base64.b64decode(note).decode()


def _key_of_this_task() -> str | None:
    if "pyspark" not in sys.modules:
        return None
    from pyspark import TaskContext

    task = TaskContext.get()
    return task.getLocalProperty(REFUSAL_KEY) if task is not None else None
