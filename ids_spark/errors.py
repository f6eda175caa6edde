"""The one kind of error that a user can mend."""


class InputError(Exception):
    """Configuration or input is not what the job needs; nothing was written.

    The message states what was found, what was expected and what to do. A job that ends with it exits with code 2 and
    prints the message alone, without a stack trace.
    """
