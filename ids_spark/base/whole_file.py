"""Local files that are read whole: plain files up to a size, so that none fills the memory or is waited for."""

import errno
import os
import stat
from typing import Final

from ids_spark.base.errors import InputError

_NOT_PLAIN: Final = "is no file, but a folder, pipe or device"


class FileTooLarge(InputError, ValueError):
    """Raised when a file that is read whole is larger than any of its kind."""


def read(path: str, most: int, name: str = "") -> bytes:
    """Return the content of a file; arguments and errors as those of `read_with_mode`."""
    return read_with_mode(path, most, name)[0]


def read_with_mode(path: str, most: int, name: str = "") -> tuple[bytes, int]:
    """Return the content of a file and its permission bits.

    Args:
        path: A local path.
        most: Bytes that it may have.
        name: What the message calls the file; by default its path.

    Raises:
        FileTooLarge: it has more bytes.
        OSError: it cannot be read, or is a folder, pipe or device.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # to open a pipe may else take for ever
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise OSError(errno.EINVAL, _NOT_PLAIN, path)
        require_size(name or path, state.st_size, most)
        with open(descriptor, "rb", closefd=False) as stream:
            return stream.read(state.st_size), stat.S_IMODE(state.st_mode)
    finally:
        os.close(descriptor)


def require_size(name: str, size: int, most: int) -> None:
    """Raise `FileTooLarge` if a file of this size, in bytes, is not read."""
    if size > most:
        raise FileTooLarge(f"{name}: found {size:,} bytes; expected at most {most:,}")
