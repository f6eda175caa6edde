"""Jobs in the process of the test, on the shared Spark session: the same code as spark-submit without its start."""

import importlib
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ids_spark.runtime import job
from tests.support.flows import PLAIN


def run(folder: Path, name: str, *settings: str) -> tuple[int, str]:
    """Run a job on `folder`/lake; returns its exit code and its log, stack traces included.

    The test needs the fixture `spark`, directly or through another fixture.
    """
    module = importlib.import_module(f"jobs.{name}")
    arguments = [part for setting in (f"lake={folder}/lake", PLAIN, *settings) for part in ("--set", setting)]
    log = io.StringIO()
    with records_to(logging.StreamHandler(log)):
        code = job.main(module.run, module.__doc__ or "", arguments)
    return code, log.getvalue()


@contextmanager
def records_to(handler: logging.Handler) -> Iterator[None]:
    """Send the log records of every module, from INFO up, to a handler as well."""
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
