"""Whether the Python of a Spark task has the packages of the driver's."""

import functools
import os
import re
import socket
import sys
from collections.abc import Mapping
from typing import Final

from ids_spark.base.errors import InputError

_COMPARED: Final = {
    **{name: name for name in ("cloudpickle", "horovod", "keras", "numpy", "pandas", "petastorm", "pyarrow", "scipy")},
    "tensorflow": "tensorflow",
    "tensorflow_cpu": "tensorflow",
    "xgboost": "xgboost",
    "xgboost_cpu": "xgboost",
}
"""Packages that tasks and ranks use, by the names of their variants (CPU, GPU), which give the same results."""
_METADATA: Final = re.compile(r"(?P<name>\w+)-(?P<version>[^-]+)(-py3\.\d+)?\.(dist|egg)-info")

REMEDY: Final = (
    "driver and workers need the same packages: send them with the job, by --archives dist/ids_env.tar.gz#env --conf"
    " spark.pyspark.python=./env/bin/python (make package makes the archive), or install this version on every worker"
)


@functools.cache
def packages() -> Mapping[str, str]:
    """Return the versions of the compared packages in this Python; those that it lacks are missing.

    Only names of folders are read, which takes a millisecond.
    """
    found: dict[str, str] = {}
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except OSError:  # no folder: a zip file, or nothing
            continue
        for match in filter(None, map(_METADATA.fullmatch, names)):
            name = _COMPARED.get(match["name"].lower())
            if name is not None:
                found.setdefault(name, match["version"])
    return found


def require(expected: Mapping[str, str]) -> None:
    """Refuse to run a task with other packages than those of the driver.

    Args:
        expected: What `packages` returned in the driver.

    Raises:
        InputError: names every package that differs.
    """
    found = packages()
    other = [
        f"{name}: found {found.get(name, 'none')}, the driver has {expected.get(name, 'none')}"
        for name in sorted(found.keys() | expected.keys())
        if found.get(name) != expected.get(name)
    ]
    if other:
        raise InputError(
            f"the Python of tasks on {socket.gethostname()}, {sys.executable}, has other packages than the driver's;"
            f" {REMEDY}",
            *other,
        )
