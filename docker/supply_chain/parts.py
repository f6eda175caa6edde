"""Python packages of the locks, and jars of the installed pyspark."""

import hashlib
import importlib.util
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
LOCKS: Final = ROOT / "conf" / "locks"
REMOVED: Final = LOCKS / "jars_removed.txt"

_LOCKED = re.compile(r"^([A-Za-z0-9][\w.-]*)==([^\s\\;]+)", re.MULTILINE)
_JAR = re.compile(r"^(?P<name>.+)-(?P<version>\d+\..*)\.jar$")  # log4j-1.2-api-2.20.0, zstd-jni-1.5.5-4


@dataclass(frozen=True)
class Package:
    """One package of one lock.

    Attributes:
        name: Normalised name (PEP 503).
        version: Locked version.
        sha256: Hashes of its files, in hex, sorted.
        lock: Name of the lock file.
    """

    name: str
    version: str
    sha256: tuple[str, ...]
    lock: str


@dataclass(frozen=True)
class Jar:
    """One jar.

    Attributes:
        path: The file.
        name: Its name up to the version, for most jars Maven's artifact.
        version: The rest of its name, without `.jar`.
    """

    path: Path
    name: str
    version: str

    @property
    def group(self) -> str | None:
        """Maven's group, if the jar itself says so; reads the jar."""
        with zipfile.ZipFile(self.path) as content:
            found = [name.split("/") for name in content.namelist() if name.endswith("/pom.properties")]
        groups = {parts[2] for parts in found if len(parts) == 5 and parts[3] == self.name}
        return groups.pop() if len(groups) == 1 else None

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, in hex; reads the jar."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def normalised(name: str) -> str:
    """Return a package name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def packages(locks: Iterable[str]) -> list[Package]:
    """Return the packages of lock files in `conf/locks`, in their order."""
    found = []
    for lock in locks:
        text = (LOCKS / lock).read_text()
        starts = [match.start() for match in _LOCKED.finditer(text)]
        for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
            block = text[start:end]
            match = _LOCKED.match(block)
            assert match is not None
            hashes = tuple(sorted(set(re.findall(r"sha256:([0-9a-f]{64})", block))))
            found.append(Package(normalised(match[1]), match[2], hashes, lock))
    return found


def jars(folder: Path | None = None) -> list[Jar]:
    """Return the jars of a folder, sorted by name; default: those of the installed pyspark.

    Raises:
        FileNotFoundError: pyspark is not installed.
    """
    if folder is None:
        spec = importlib.util.find_spec("pyspark")
        if spec is None or spec.origin is None:
            raise FileNotFoundError("pyspark is not installed; run make setup")
        folder = Path(spec.origin).parent / "jars"
    found = []
    for path in sorted(folder.glob("*.jar")):
        match = _JAR.match(path.name)
        found.append(Jar(path, match["name"], match["version"]) if match else Jar(path, path.stem, ""))
    return found


def removed_jars() -> frozenset[str]:
    """Return the names of the jars that the installation deletes."""
    lines = [line.split("#")[0].strip() for line in REMOVED.read_text().splitlines()]
    return frozenset(line for line in lines if line)
