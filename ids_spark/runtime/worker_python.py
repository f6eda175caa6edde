"""The Python that executors start: found, of the driver's version and with its packages, or refused with a message."""

import os
import re
from typing import Any, Final
from urllib.parse import urlsplit

from pyspark import SparkContext

from ids_spark.base import environment, spark_tasks
from ids_spark.base.errors import InputError
from ids_spark.runtime import cluster_security

_ARCHIVES: Final = ("spark.archives", "spark.yarn.dist.archives")
_ABSENT = re.compile(r'Cannot run program "(?P<program>[^"]+)"[^\n]*error=(2|13),')
_ENDED = re.compile(r"Error from python worker:\n(?P<output>.*?)\s*PYTHONPATH was:", re.DOTALL)
_OTHER_PYTHON = re.compile(
    r"Python in worker has different version \((?P<found>[\d, ]+)\) than that in driver (?P<own>[\d.]+),"
)
_NO_MODULE = re.compile(r"ModuleNotFoundError: No module named '(?P<module>[\w.]+)'")


def refuse_absent(given: Any, master: str) -> None:
    """Refuse an archive that is not there, and a relative path of Python that no archive provides.

    Spark would find out on the executors, and end with a stack trace.

    Args:
        given: Spark's effective properties.
        master: Spark master.

    Raises:
        InputError: names the path.
    """
    archives = [part for name in _ARCHIVES for part in given.get(name, "").split(",") if part]
    for archive in archives:
        uri = urlsplit(archive)
        if uri.scheme in ("", "file") and not os.path.exists(uri.path):
            raise InputError(f"{uri.path}, an archive for executors, does not exist; make package makes it")
    python = given.get("spark.pyspark.python", "") or os.environ.get("PYSPARK_PYTHON", "")
    if "/" not in python or os.path.exists(python):  # in the driver's container YARN has unpacked it as well
        return
    if cluster_security.is_local(master):
        raise InputError(
            f"Python for tasks is {python}, and there is none in {os.getcwd()}; with --master {master} tasks run in"
            " this folder, where no archive is unpacked: leave out --archives and spark.pyspark.python"
        )
    if os.path.isabs(python):  # of the workers
        return
    name = os.path.normpath(python).split("/")[0]
    if name not in [_unpacked_as(archive) for archive in archives]:
        raise InputError(
            f"Python for tasks is {python}, a path in the folder of an executor, and no archive is unpacked there as"
            f" '{name}'; add --archives dist/ids_env.tar.gz#{name} (make package makes it)"
        )


def _unpacked_as(archive: str) -> str:
    uri = urlsplit(archive)
    return uri.fragment or os.path.basename(uri.path)


def require_same(spark_context: SparkContext) -> None:
    """Start Python on executors, and refuse one with another version or other packages than the driver's.

    Every later task compares its packages as well, as executors can start later.

    Raises:
        InputError: one was refused, or none could be started.
    """
    try:
        spark_tasks.run_each(spark_context, range(spark_context.defaultParallelism), abs)
    except InputError:
        raise
    except Exception as error:
        known = explained(error)
        if known is None:
            raise
        raise known from error


def explained(error: BaseException) -> InputError | None:
    """Return an error with a message for a Python that cannot run tasks; None for any other error."""
    text = str(error)
    if found := _ABSENT.search(text):
        what = f"an executor cannot start {found['program']}: it does not exist there, or is no program"
    elif found := _ENDED.search(text):
        last = found["output"].strip().rpartition("\n")[2].strip()
        what = f"the Python of an executor ended at its start: {last}"
    elif found := _OTHER_PYTHON.search(text):
        what = f"executors have Python {found['found'].replace(', ', '.')}, the driver has {found['own']}"
    elif found := _NO_MODULE.search(text):
        what = f"the Python of an executor has no module {found['module']}"
    else:
        return None
    return InputError(f"{what}; {environment.REMEDY}")
