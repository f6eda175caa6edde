"""Destination and format of log lines, the same in jobs and on Horovod ranks."""

import logging
import sys


def log_to_stderr(level: int) -> None:
    """Log to standard error: this package from `level` up, other packages from WARNING up."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(message)s")
    logging.getLogger("ids_spark").setLevel(level)
