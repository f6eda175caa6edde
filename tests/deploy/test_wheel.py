"""`pip wheel .` builds the package with everything that it reads at run time, and what spark-submit needs beside it."""

import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import ids_spark
from ids_spark.base import packaging
from tests.support.flows import ROOT, write_synthetic_source

LOCKS = ROOT / "conf" / "locks"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without network from a copy, so that no build folder is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("ids_spark", "jobs", "conf"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    left = folder / "build" / "lib" / "ids_spark" / "of_an_older_build.py"
    left.parent.mkdir(parents=True)
    left.touch()
    options = ["--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*PIP, "wheel", *options, "-w", "out", "."], cwd=folder, check=True)
    (wheel,) = (folder / "out").iterdir()
    return wheel


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(built)


def files_of(name: str) -> set[str]:
    files = {path for path in (ROOT / name).rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    return {str(path.relative_to(ROOT)) for path in files}


def requirements(text: str) -> set[str]:
    return {line for part in text.splitlines() if (line := part.split("#")[0].strip())}


def test_the_wheel_holds_every_file_of_the_package_and_of_the_jobs_and_their_configurations(wheel: zipfile.ZipFile):
    package = {name for name in files_of("ids_spark") if not name.endswith(".md")}
    assert {"ids_spark/py.typed", "ids_spark/synthetic/profile.json"} <= package
    share = {f"ids_spark/share/{name}" for name in files_of("jobs") | files_of("conf")} | {
        "ids_spark/share/ids_spark.zip"
    }
    found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert found - {"ids_spark/_commit.json"} == package | share
    assert wheel.getinfo("ids_spark/share/conf/nightly/night.sh").external_attr >> 16 & 0o111


def test_the_zip_file_and_the_wheel_have_the_same_content(wheel: zipfile.ZipFile):
    with (
        zipfile.ZipFile(io.BytesIO(wheel.read("ids_spark/share/ids_spark.zip"))) as inside,
        zipfile.ZipFile(io.BytesIO(packaging.archive())) as made,
    ):
        sources = {name for name in inside.namelist() if not name.endswith(".pyc")}
        assert {name: inside.read(name) for name in sources} == {name: wheel.read(name) for name in sources}
        modules = {name for name in wheel.namelist() if name.endswith(".py") and "/share/" not in name}
        assert modules == {name for name in sources if name.endswith(".py")}
        commit = "ids_spark/_commit.json"
        ours = {name: made.read(name) for name in made.namelist() if name != commit}
        assert {name: inside.read(name) for name in inside.namelist() if name != commit} == ours


def test_an_installed_wheel_runs_jobs_without_a_checkout(built: Path, tmp_path: Path):
    """A new environment, in which the packages of the locks are those of this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "env"], cwd=tmp_path, check=True)
    python, places = tmp_path / "env/bin/python", sysconfig.get_paths()
    installed = Path(sysconfig.get_path("purelib", "venv", {"base": str(tmp_path / "env")}))
    (installed / "ready.pth").write_text("\n".join({places["purelib"], places["platlib"]}))
    write_synthetic_source(tmp_path / "my flows", rows=5)
    shell = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "SPARK_CONF_DIR")}
    shell |= {"PYSPARK_PYTHON": str(python), "PYSPARK_DRIVER_PYTHON": str(python)}
    install = [*PIP, "--python", python, "install", "--no-deps", "--no-index", built]
    subprocess.run(install, cwd=tmp_path, env=shell, check=True)

    def ran(line: str) -> subprocess.CompletedProcess[str]:
        path = f"{tmp_path}/env/bin:{shell['PATH']}"
        command = ["bash", "-euc", line]
        return subprocess.run(
            command, cwd=tmp_path, env={**shell, "PATH": path}, capture_output=True, text=True, check=False
        )

    assert ran("ids-spark path").stdout == f"{installed}/ids_spark/share\n"
    version = ran("ids-spark version").stdout.strip()
    assert version.split("+")[0] == ids_spark.__version__
    assert ran("ids-spark jobs | wc -l").stdout.strip() == str(len(list((ROOT / "jobs").glob("*.py"))))
    share = "$(ids-spark path)"
    checked = ran(f"ids-spark check {share}/conf/*.yaml")
    assert (checked.returncode, checked.stderr) == (0, "")
    done = ran(
        f"export SPARK_CONF_DIR={share}/conf/spark; spark-submit --master 'local[1]' --py-files {share}/ids_spark.zip"
        f" {share}/jobs/ingest.py --config {share}/conf/small.yaml --set lake=lake --set 'ingest.source=my flows'"
    )
    assert done.returncode == 0, done.stderr
    (row,) = pq.read_table(tmp_path / "lake" / "audit").to_pylist()
    assert (row["rows_out"], row["code_version"]) == (60, version)


def test_metadata_state_the_version_of_the_package_and_the_packages_that_it_runs_with(wheel: zipfile.ZipFile):
    (name,) = [name for name in wheel.namelist() if name.endswith("/METADATA")]
    metadata = message_from_bytes(wheel.read(name))
    assert metadata["Version"] == ids_spark.__version__
    needed = {re.sub(r"\s*\((.*)\)", r"\1", text).replace(" ", "") for text in metadata.get_all("Requires-Dist")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    stated, extras = project["dependencies"], project["optional-dependencies"]
    assert len(needed) == len(stated) + sum(map(len, extras.values()))
    assert {name: {*packages, "-c run.txt"} for name, packages in extras.items()} == {
        "mlflow": requirements((LOCKS / "mlflow.in").read_text())
    }
    installed = requirements((LOCKS / "run.in").read_text()) | requirements((LOCKS / "horovod.in").read_text())
    assert set(stated) == installed


def test_the_changelog_has_a_section_for_the_version_of_the_package():
    sections = re.findall(r"^## \[(\S+)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[0] == ids_spark.__version__
