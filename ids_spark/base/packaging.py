"""The package as a zip file, for `--py-files` and for the ranks that Horovod starts; and its version.

python -m ids_spark.base.packaging dist/ids_spark.zip
"""

import importlib.resources
import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import Path

import ids_spark

_PACKED = (".py", ".json", ".j2")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # equal sources give equal bytes


def archive() -> bytes:
    """Return the content of the zip file; works whether the package is in a folder or in a zip file."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as zipped:
        for path, file in sorted(_files(importlib.resources.files("ids_spark"), "ids_spark")):
            zipped.writestr(zipfile.ZipInfo(path, _EPOCH), file.read_bytes(), zipfile.ZIP_DEFLATED)
    return content.getvalue()


def _files(folder: Traversable, path: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _files(entry, f"{path}/{entry.name}")
        elif entry.name.endswith(_PACKED):
            yield f"{path}/{entry.name}", entry


def code_version() -> str:
    """Return the version, with the commit if the code runs from a git checkout."""
    folder = Path(ids_spark.__file__).parent
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ids_spark.__version__
    return f"{ids_spark.__version__}+{done.stdout.strip()}" if done.returncode == 0 else ids_spark.__version__


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".unfinished")
    unfinished.write_bytes(archive())
    os.replace(unfinished, target)  # a job that starts meanwhile reads a complete zip
