"""How a rank finds this package.

Horovod starts each rank as a new process beside a Spark task. Spark puts `--py-files` on the path of the task, not of
that process, and at a different place on every executor. So the package travels with the function: `start` is pickled
by value, unpacks the package it is handed, and calls into it.
"""

import importlib
from collections.abc import Callable
from typing import Any

import cloudpickle

from ids_spark.base.packaging import archive


def start_in_rank(package: bytes, module: str, function: str, argument: bytes) -> Any:
    """Import `module` from a zipped package and return `function(argument unpickled)`.

    Runs where nothing of this package is importable yet, so it leans on nothing but the standard library.
    """
    import atexit
    import importlib
    import pickle
    import shutil
    import sys
    import tempfile
    from pathlib import Path

    folder = tempfile.mkdtemp(prefix="ids_spark-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / "ids_spark.zip"
    path.write_bytes(package)
    sys.path.insert(0, str(path))
    # The argument comes from this job's driver over Horovod's authenticated channel, as the function itself does.
    return getattr(importlib.import_module(module), function)(pickle.loads(argument))  # noqa: S301


def packed(module: str, function: str, argument: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Return a function and its arguments that run `module.function(argument)` in a process without this package.

    The module is imported there alone, so it may import what the driver does not.
    """
    cloudpickle.register_pickle_by_value(importlib.import_module(__name__))
    return start_in_rank, (archive(), module, function, cloudpickle.dumps(argument))
