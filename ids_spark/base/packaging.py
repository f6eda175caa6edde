"""The package as a zip file, for `--py-files` and for the ranks that Horovod starts; and its version.

python -m ids_spark.base.packaging dist/ids_spark.zip
"""

import functools
import importlib.resources
import importlib.util
import io
import json
import marshal
import os
import subprocess
import sys
import zipfile
import zipimport
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

import ids_spark

_PACKED = (".py", ".json", ".j2", ".sql")
_COMMIT = "_commit.json"
"""In the package: the commit of a zip that was made from a git checkout."""
_SHARE: Final = "ids_spark/share"
"""In an installed wheel: the jobs, their configurations and this zip file (`setup.py`)."""
_MARSHAL: Final = 2  # later formats depend on which other objects the process holds
_CHECKED_HASH: Final = 3
"""Flags of a `.pyc` file that is used only if the source beside it has the hash in the file (PEP 552)."""
_EPOCH = (1980, 1, 1, 0, 0, 0)  # equal sources give equal bytes


def archive(commit: str = "") -> bytes:
    """Return the content of the zip file; the package may be in a folder or in a zip file.

    Beside each module is its bytecode: Python does not store any for modules in a zip file, so driver and Python
    workers would compile them all in each job, which takes longer than importing them. What runs is always what the
    source says: another version of Python finds another magic number, a source that was changed in the zip file has
    another hash, and both are compiled.

    Args:
        commit: Of the sources, where neither a git checkout nor an older zip file tells it.
    """
    packed = (*_PACKED, ".pyc") if isinstance(ids_spark.__loader__, zipimport.zipimporter) else _PACKED
    files = {
        path: file.read_bytes() for path, file in _files(importlib.resources.files("ids_spark"), "ids_spark", packed)
    }
    if commit := _commit() or commit:
        files[f"ids_spark/{_COMMIT}"] = json.dumps({"commit": commit}).encode()
    for path in [path for path in files if path.endswith(".py")]:
        if files.get(f"{path}c", b"")[: len(importlib.util.MAGIC_NUMBER)] != importlib.util.MAGIC_NUMBER:
            files[f"{path}c"] = _compiled(files[path], path)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as zipped:
        for path, data in sorted(files.items()):
            zipped.writestr(zipfile.ZipInfo(path, _EPOCH), data, zipfile.ZIP_DEFLATED)
    return content.getvalue()


def _files(folder: Traversable, path: str, packed: tuple[str, ...]) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir() and f"{path}/{entry.name}" != _SHARE:
            yield from _files(entry, f"{path}/{entry.name}", packed)
        elif entry.name.endswith(packed):
            yield f"{path}/{entry.name}", entry


def _compiled(source: bytes, path: str) -> bytes:
    """Return a module as the content of a `.pyc` file."""
    code = compile(source, path, "exec", dont_inherit=True, optimize=0)
    head = importlib.util.MAGIC_NUMBER + _CHECKED_HASH.to_bytes(4, "little") + importlib.util.source_hash(source)
    return head + marshal.dumps(code, _MARSHAL)


@functools.cache
def code_version() -> str:
    """Return the version, with the commit that the code, or its zip file, was made from, where it is known."""
    commit = _commit()
    return f"{ids_spark.__version__}+{commit}" if commit else ids_spark.__version__


def _commit() -> str:
    """Return the commit: that of the zip file, else of the git checkout; empty where there is neither."""
    packed = importlib.resources.files("ids_spark").joinpath(_COMMIT)
    if packed.is_file():
        return str(json.loads(packed.read_bytes())["commit"])
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
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".unfinished")
    unfinished.write_bytes(archive(*sys.argv[2:]))
    os.replace(unfinished, target)  # a job that starts meanwhile reads a complete zip
