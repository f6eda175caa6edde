"""How a training run's progress reaches the driver's log while it runs: through a small file beside the checkpoint.

Horovod hands on what ranks print in blocks of 64 KiB, which is hours of epochs; a file in the lake is seen within
a second, also where ranks run on other machines.
"""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from typing import Final

from ids_spark.lake.filesystem import read_bytes, remove, replace_bytes

_EVERY_S: Final = 1.0


def progress_uri(checkpoint: str) -> str:
    """Return the URI of the file for a run with this checkpoint."""
    return f"{checkpoint.removesuffix('.npz')}.progress.json"


class Published:
    """What rank 0 says of its run, line by line.

    Args:
        uri: From `place`.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._lines: list[str] = []

    def say(self, line: str) -> None:
        """Add a line; the file is replaced whole."""
        self._lines.append(line)
        replace_bytes(self._uri, json.dumps(self._lines).encode())


@contextlib.contextmanager
def followed(uri: str, say: Callable[[str], None]) -> Iterator[None]:
    """Hand on every line once, as it appears, until the block ends; the file is removed before and after."""
    remove(uri)
    ended, shown = threading.Event(), 0

    def look() -> None:
        nonlocal shown
        with contextlib.suppress(OSError, ValueError):  # not there yet, or being replaced
            lines = json.loads(read_bytes(uri))
            for line in lines[shown:]:
                say(line)
            shown = len(lines)

    def follow() -> None:
        while not ended.wait(_EVERY_S):
            look()

    thread = threading.Thread(target=follow, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        look()
        remove(uri)
