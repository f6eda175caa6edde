"""Where log lines go and what they look like: the same in jobs and ranks."""

import logging
import sys


def log_to_stderr(level: int) -> None:
    """Write this package's lines from `level` up to standard error; of other packages only warnings."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(message)s")
    logging.getLogger("ids_spark").setLevel(level)
