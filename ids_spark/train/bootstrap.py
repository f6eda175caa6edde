"""Makes this package importable in the processes that Horovod starts.

Horovod starts each rank as a new process next to a Spark task. Spark adds `--py-files` to the path of the task, not of
that process, and at a different place on every executor. So the package is sent with the function: `start_in_rank` is
pickled by value, writes the package to a temporary folder and imports it from there.
"""

import importlib
from collections.abc import Callable
from typing import Any

import cloudpickle

from ids_spark.base.packaging import archive


def start_in_rank(package: bytes, module: str, function: str, argument: bytes) -> Any:
    """Import `module` from a zipped package; return the result of `function` for the unpickled argument.

    Uses the standard library only, as this package cannot be imported yet.
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
    # The argument comes from this job's driver over the same authenticated channel of Horovod as the function.
    return getattr(importlib.import_module(module), function)(pickle.loads(argument))  # noqa: S301


def packed(module: str, function: str, argument: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Return a function and its arguments that run `module.function(argument)` in a process without this package.

    The module is imported in that process only, so it may need libraries that the driver does not import.
    """
    cloudpickle.register_pickle_by_value(importlib.import_module(__name__))
    return start_in_rank, (archive(), module, function, cloudpickle.dumps(argument))
