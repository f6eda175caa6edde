"""Builds the wheel: the files of the zip file, and in `ids_spark/share` the jobs, configurations and that zip file.

Everything else is stated in pyproject.toml.
"""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).absolute().parent
sys.path.insert(0, str(ROOT))
from ids_spark.base import packaging  # noqa: E402 (imports nothing beyond the standard library)


def shared() -> Iterator[Path]:
    """Yield the files of jobs/ and conf/: in a checkout those that git knows, so that no site's own file is packed."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "jobs", "conf"], capture_output=True, text=True, check=False
    )
    names = [name for name in listed.stdout.split("\0") if name] if listed.returncode == 0 else []
    found = (
        map(ROOT.joinpath, names) if names else (file for top in ("jobs", "conf") for file in (ROOT / top).rglob("*"))
    )
    yield from (file for file in found if file.is_file() and "__pycache__" not in file.parts)


class Package(build_py):
    """Copies the package; what an earlier build left is removed first."""

    def run(self) -> None:
        """Build the package, and beside its modules what spark-submit needs."""
        if self.editable_mode:
            super().run()
            return
        package = Path(self.build_lib) / "ids_spark"
        shutil.rmtree(package, ignore_errors=True)
        super().run()
        content = packaging.archive()
        with zipfile.ZipFile(BytesIO(content)) as zipped:
            zipped.extractall(self.build_lib, [name for name in zipped.namelist() if not name.endswith(".pyc")])
        for file in shared():
            target = package / "share" / file.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
        (package / "share" / "ids_spark.zip").write_bytes(content)


setup(cmdclass={"build_py": Package})
