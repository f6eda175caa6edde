"""Kinds of error: what a user can mend, what came from outside, and what this program got wrong."""


class InputError(Exception):
    """Configuration or input is not what the job needs; nothing was written.

    The message states what was found, what was expected and what to do. A job that ends with it exits with code 2 and
    prints the message alone, without a stack trace.
    """


class Interrupted(Exception):
    """Something outside ended the work; it can be run again. Exit code 1, the message without a stack trace."""


class NotReconciled(Exception):
    """Rows that came in and rows accounted for differ: a fault of this program; nothing is committed."""
