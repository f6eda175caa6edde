"""Lets Horovod start on one machine whose host name has no address.

Gloo listens on the address of the machine's own name, whatever interface Horovod is given, and a rank ends with a
segmentation fault if the name has none: after a change of the name, or with a name that is no valid one for DNS, such
as `icu_ward_7`. Ranks that all run on this machine then get a library in which the name is `localhost`.
"""

import contextlib
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ids_spark.base.errors import InputError

_SOURCE: Final = """
#include <string.h>
int gethostname(char *name, size_t size) { strncpy(name, "localhost", size); return 0; }
"""


class NoAddress(InputError):
    """Raised when the machine's host name has no address and no compiler is here to help."""


@contextlib.contextmanager
def rank_environment(local: bool) -> Iterator[dict[str, str]]:
    """Return environment variables for ranks; none if the machine's host name has an address.

    Args:
        local: Whether all ranks are on this machine; else nothing is changed.

    Raises:
        NoAddress: it has none, and there is no C compiler.
    """
    name = socket.gethostname()
    if not local or _has_address(name):
        yield {}
        return
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "g++", "clang"))), None)
    with tempfile.TemporaryDirectory(prefix="ids_spark-") as folder:
        library = Path(folder) / "localhost.so"
        if compiler is None or not _compiled(compiler, library):
            raise NoAddress(
                f"the host name {name!r} of this machine has no address; Horovod's ranks need one; add the line"
                f" '127.0.1.1 {name}' to /etc/hosts, or install a C compiler"
            )
        yield {"LD_PRELOAD": str(library)}


def _has_address(name: str) -> bool:
    try:
        return bool(socket.getaddrinfo(name, None))
    except (OSError, UnicodeError):
        return False


def _compiled(compiler: str, library: Path) -> bool:
    command = [compiler, "-x", "c", "-shared", "-fPIC", "-o", str(library), "-"]
    return subprocess.run(command, input=_SOURCE.encode(), capture_output=True, check=False).returncode == 0
