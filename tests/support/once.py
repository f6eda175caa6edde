"""Files that are expensive to make, made once and read by every worker process of a test run."""

import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return `folder`; the first process that needs it makes it, the others wait until it is complete.

    Args:
        folder: A path that all worker processes share. No test may write to it afterwards.
        make: Writes the content into the path it gets, which is renamed to `folder` at the end. Where it fails, the
            next process tries again.
    """
    with open(folder.with_name(f"{folder.name}.lock"), "w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)  # released when the process ends, even if it is killed
        if not folder.exists():
            unfinished = folder.with_name(f"{folder.name}-unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            make(unfinished)
            unfinished.rename(folder)
    return folder
