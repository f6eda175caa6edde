"""Modes of files."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    """Set the umask of this process, and so of every process that it starts, within the block."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def open_to_others(folder: Path) -> dict[str, str]:
    """Return the mode of every file with more than 0640, and every folder with more than 0750, below a folder."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        mode = path.stat().st_mode & 0o7777
        if mode & ~(0o750 if path.is_dir() else 0o640):
            found[str(path.relative_to(folder))] = oct(mode)
    return found
