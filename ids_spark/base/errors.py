"""Kinds of error: what a user can mend, what came from outside, and what this program got wrong."""

import base64
import sys

REFUSAL_KEY = "ids_spark.refusal_key"
"""Spark local property: the random key by which a driver recognises refusals that its own tasks raised."""


class InputError(Exception):
    """Configuration or input is not what the job needs; nothing was written.

    The message states what was found, what was expected and what to do. A job that ends with it exits with code 2 and
    prints the message alone, without a stack trace.

    Spark carries an error of a task to the driver as text. So an error that is made in a task gets a note, which
    Python prints below the message: the key of this run and the message in base64. Rows of data cannot hold the key,
    because the driver draws it when the job starts.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        key = _key_of_this_task()
        if key:
            self.add_note(f"{key} {base64.b64encode(message.encode()).decode()}")


class Interrupted(Exception):
    """Something outside ended the work; it can be run again. Exit code 1, the message without a stack trace."""


class NotReconciled(Exception):
    """Rows that came in and rows accounted for differ: a fault of this program; nothing is committed."""


def refusal_in(text: str, key: str) -> str | None:
    """Return the message of the `InputError` that ended a task, from the text that Spark made of it; None without one.

    Only the last line of the task's stack trace counts: an error that was caught on the way is no refusal.

    Args:
        text: Of the error that reached the driver.
        key: That the driver set as the local property `REFUSAL_KEY`.
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
