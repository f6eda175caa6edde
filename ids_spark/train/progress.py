"""Progress of a training run in the driver's log while it runs: rank 0 writes a small file next to the checkpoint.

Horovod forwards the output of ranks in blocks of 64 KiB, which takes hours of epochs; the driver reads a file in the
lake every second, also if ranks run on other machines.
"""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from typing import Final

from ids_spark.base import json_text
from ids_spark.base.errors import InputError
from ids_spark.lake.filesystem import read_bytes, remove, remove_unfinished, replace_bytes

_INTERVAL_S: Final = 1.0


def progress_uri(checkpoint: str) -> str:
    """Return the URI of the progress file of a run with this checkpoint."""
    return f"{checkpoint.removesuffix('.npz')}.progress.json"


class ProgressFile:
    """The lines that rank 0 writes about its run.

    Args:
        uri: From `progress_uri`.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        """Add a line; the file is replaced atomically."""
        self._lines.append(line)
        replace_bytes(self._uri, json.dumps(self._lines).encode())


@contextlib.contextmanager
def following(uri: str, handle: Callable[[str], None]) -> Iterator[None]:
    """Pass each new line to `handle` once until the block ends; the file is removed before and after."""
    remove(uri)
    ended, handled = threading.Event(), 0

    def read() -> None:
        nonlocal handled
        with contextlib.suppress(OSError, ValueError, InputError):  # not written yet, or being replaced
            lines = json_text.loads(read_bytes(uri))
            if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
                return
            for line in lines[handled:]:
                handle(line)
            handled = len(lines)

    def follow() -> None:
        while not ended.wait(_INTERVAL_S):
            read()

    thread = threading.Thread(target=follow, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        read()
        remove(uri)
        remove_unfinished(uri)
