"""This package as one zip file: for `--py-files`, and for the ranks that Horovod starts.

python -m ids_spark.package dist/ids_spark.zip
"""

import importlib.resources
import io
import os
import sys
import zipfile
from pathlib import Path

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same sources give the same bytes


def archive() -> bytes:
    """Return the zip file's content; works from a folder and from a zip file."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as zipped:
        for file in sorted(importlib.resources.files("ids_spark").iterdir(), key=lambda entry: entry.name):
            if file.name.endswith((".py", ".json")):
                zipped.writestr(
                    zipfile.ZipInfo(f"ids_spark/{file.name}", _EPOCH), file.read_bytes(), zipfile.ZIP_DEFLATED
                )
    return content.getvalue()


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".unfinished")
    unfinished.write_bytes(archive())
    os.replace(unfinished, target)  # a job that starts meanwhile reads the old zip or the new one, never half of it
