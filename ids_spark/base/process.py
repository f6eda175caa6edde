"""What every process of a job sets at its start: driver, Spark tasks and Horovod ranks."""

import logging
import os
from typing import Final

from ids_spark.base.logs import log_to_stderr

_WITHHELD: Final = 0o027  # files 0640, folders 0750
_ALL_WITHHELD: Final = 0o077  # while the present mask is read, which only setting it returns


def begin(level: int = logging.WARNING) -> None:
    """Limit the modes of files that this process makes, and log to standard error as `log_to_stderr`.

    Files have mode 0640 and folders 0750; a stricter umask of the user stays. On HDFS the client's setting
    `fs.permissions.umask-mode` decides, an object store has no modes.
    """
    os.umask(os.umask(_ALL_WITHHELD) | _WITHHELD)
    log_to_stderr(level)
