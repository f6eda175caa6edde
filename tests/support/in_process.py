"""Jobs in the process of the test, on the shared Spark session: the same code as spark-submit without its start."""

import importlib
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ids_spark.runtime import job


def run(folder: Path, name: str, *settings: str) -> tuple[int, str]:
    """Run a job on `folder`/lake; returns its exit code and its log, stack traces included.

    The test needs the fixture `spark`, directly or through another fixture.
    """
    module = importlib.import_module(f"jobs.{name}")
    arguments = [part for setting in (f"lake={folder}/lake", *settings) for part in ("--set", setting)]
    with _logged() as log:
        code = job.main(module.run, module.__doc__ or "", arguments)
    return code, log.getvalue()


@contextmanager
def _logged() -> Iterator[io.StringIO]:
    log, root = io.StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(log), root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield log
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
