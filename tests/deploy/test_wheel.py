"""`pip wheel .` builds the package with everything that it reads at run time."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email import message_from_bytes

import pytest

import ids_spark
from tests.support.flows import ROOT

LOCKS = ROOT / "conf" / "locks"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The wheel, built without network from a copy, so that no build folder is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "ids_spark", folder / "ids_spark", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, "-w", "out", "."], cwd=folder, check=True)
    (built,) = (folder / "out").iterdir()
    with zipfile.ZipFile(built) as content:
        yield content


def requirements(text: str) -> set[str]:
    return {line for part in text.splitlines() if (line := part.split("#")[0].strip())}


def test_the_wheel_holds_every_file_of_the_package(wheel: zipfile.ZipFile):
    files = {path for path in (ROOT / "ids_spark").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    expected = {str(path.relative_to(ROOT)) for path in files if path.suffix != ".md"}
    assert {"ids_spark/py.typed", "ids_spark/synthetic/profile.json"} <= expected
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == expected


def test_metadata_state_the_version_of_the_package_and_the_packages_that_it_runs_with(wheel: zipfile.ZipFile):
    (name,) = [name for name in wheel.namelist() if name.endswith("/METADATA")]
    metadata = message_from_bytes(wheel.read(name))
    assert metadata["Version"] == ids_spark.__version__
    needed = {re.sub(r"\s*\((.*)\)", r"\1", text).replace(" ", "") for text in metadata.get_all("Requires-Dist")}
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert len(needed) == len(stated)
    installed = requirements((LOCKS / "run.in").read_text()) | requirements((LOCKS / "horovod.in").read_text())
    assert set(stated) == installed


def test_the_changelog_has_a_section_for_the_version_of_the_package():
    sections = re.findall(r"^## \[(\S+)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[0] == ids_spark.__version__
