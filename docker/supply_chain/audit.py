"""Known vulnerabilities of locked packages and installed jars, each with a decision (`conf/vulnerabilities.yaml`).

make audit-deps                             # table; exit code 1: see the last lines
make audit-deps ARGS="--database FOLDER"    # first search a copy of a database in OSV format, without network

A database is a folder with advisories as YAML or JSON, such as a checkout of github.com/pypa/advisory-database (Python)
or github.com/github/advisory-database (Python and Maven). Each advisory that concerns a locked package or a jar must be
in the list; if all are, `conf/looked_up.txt` is written again.
"""

import argparse
import datetime as dt
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import yaml
from packaging.version import InvalidVersion, Version
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from rich.console import Console
from rich.table import Table

from supply_chain.parts import LOCKS, ROOT, Jar, jars, normalised, packages, removed_jars

LIST: Final = ROOT / "conf" / "vulnerabilities.yaml"
LOOKED_UP: Final = ROOT / "conf" / "looked_up.txt"
OUTDATED_DAYS: Final = 180
"""A look-up older than this is named as old."""
_HEAD: Final = (
    "# Parts for which the sources of vulnerabilities.yaml were searched. Written by docker/supply_chain/audit.py.\n"
)


class Finding(BaseModel):
    """Vulnerabilities of one part with one decision.

    Attributes:
        part: Name of a package, or of the file of a jar.
        version: Version of the package; None for a jar, whose name holds it.
        inside: Libraries within a jar that are meant.
        source: Key of a source of the list.
        reference: Where the source is a page of its own: its address.
        ids: Identifiers as the source has them, aliases included.
        found_in: Where the source names another version: that one.
        decision: `not_reachable`, `removed`, or `waived`.
        reason: Why; a removed jar needs none.
        until: Last day of a waiver.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    part: str
    version: str | None = None
    inside: str | None = None
    source: str
    reference: str | None = None
    ids: tuple[str, ...] = Field(min_length=1)
    found_in: str | None = None
    decision: Literal["not_reachable", "removed", "waived"]
    reason: str = ""
    until: dt.date | None = None

    @model_validator(mode="after")
    def _complete(self) -> "Finding":
        if self.decision != "removed" and not self.reason:
            raise ValueError(f"{self.part}: the decision {self.decision} has no reason")
        if (self.decision == "waived") != (self.until is not None):
            raise ValueError(f"{self.part}: expected `until`, the last day, exactly for a waiver")
        if (self.version is None) != self.part.endswith(".jar"):
            raise ValueError(f"{self.part}: expected `version` for a package; the name of a jar holds it")
        return self

    @property
    def key(self) -> str:
        """The part as `looked_up.txt` names it."""
        return self.part if self.version is None else f"{self.part}=={self.version}"


class Vulnerabilities(BaseModel):
    """The list.

    Attributes:
        looked_up: Day of the search.
        sources: What was searched, by key.
        findings: What was found.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    looked_up: dt.date
    sources: dict[str, str]
    findings: tuple[Finding, ...]

    @model_validator(mode="after")
    def _known_sources(self) -> "Vulnerabilities":
        unknown = {finding.source for finding in self.findings} - set(self.sources)
        if unknown:
            raise ValueError(f"unknown sources {sorted(unknown)}; expected one of {sorted(self.sources)}")
        return self


@dataclass(frozen=True)
class Parts:
    """What the project is made of now, as `looked_up.txt` names it.

    Attributes:
        packages: `name==version` of every lock.
        jars: File names of the installed jars that are not deleted.
        left: File names of jars that should have been deleted, and are installed.
    """

    packages: frozenset[str]
    jars: frozenset[str]
    left: frozenset[str]

    @classmethod
    def of(cls, archives: Iterable[Jar]) -> "Parts":
        """Return the packages of all locks and these jars."""
        locked = packages(sorted(path.name for path in LOCKS.glob("*.txt") if path.name != "jars_removed.txt"))
        deleted, found = removed_jars(), list(archives)
        return cls(
            frozenset(f"{package.name}=={package.version}" for package in locked),
            frozenset(jar.path.name for jar in found if jar.name not in deleted),
            frozenset(jar.path.name for jar in found if jar.name in deleted),
        )

    @property
    def all(self) -> frozenset[str]:
        """Packages and jars that are in use."""
        return self.packages | self.jars


def faults(known: Vulnerabilities, looked_up: frozenset[str], parts: Parts, today: dt.date) -> list[str]:
    """Return what must be decided or corrected, a sentence each; empty if nothing must."""
    found = []
    for part in sorted(parts.all - looked_up):
        found.append(
            f"{part} is new or has another version: search its vulnerabilities, then list it in {LOOKED_UP.name}"
        )
    if parts.left:
        found.append(f"{len(parts.left)} jars are installed that {LOCKS.name}/jars_removed.txt deletes: run make setup")
    for finding in known.findings:
        ids = ", ".join(finding.ids[:2])
        if finding.decision == "removed":
            if finding.part in parts.jars:
                found.append(f"{finding.part} ({ids}) is listed as removed, but jars_removed.txt does not name it")
        elif finding.key not in parts.all:
            found.append(f"{finding.key} ({ids}) is not in use: remove the finding, or look up the version in use")
        elif finding.until is not None and finding.until < today:
            found.append(f"the waiver of {finding.key} ({ids}) ended on {finding.until}: decide again")
    return found


def advisories(folder: Path) -> Iterator[dict[str, Any]]:
    """Return the advisories in OSV format below a folder; files of another form are passed over."""
    for path in sorted(folder.rglob("*")):
        if path.suffix not in (".yaml", ".json") or not path.is_file():
            continue
        text = path.read_text(errors="replace")
        if "affected" not in text or not ("PyPI" in text or "Maven" in text):
            continue
        try:
            read = json.loads(text) if path.suffix == ".json" else yaml.load(text, Loader=yaml.CSafeLoader)
        except (ValueError, yaml.YAMLError):
            continue
        if isinstance(read, dict) and isinstance(read.get("affected"), list) and "withdrawn" not in read:
            yield read


def concerned(advisory: Mapping[str, Any], parts: Parts) -> Iterator[str]:
    """Return the parts that an advisory concerns, as `looked_up.txt` names them."""
    locked: dict[str, list[str]] = {}
    for part in parts.packages:
        name, _, version = part.partition("==")
        locked.setdefault(name, []).append(version)
    archives = {jar.removesuffix(".jar"): jar for jar in parts.jars}
    for affected in advisory["affected"]:
        package = affected.get("package") or {}
        name = str(package.get("name", ""))
        if package.get("ecosystem") == "PyPI":
            for version in locked.get(normalised(name), ()):
                if _includes(affected, version):
                    yield f"{normalised(name)}=={version}"
        elif package.get("ecosystem") == "Maven":
            artifact = name.rpartition(":")[2]
            for stem, jar in archives.items():
                version = stem.removeprefix(f"{artifact}-")
                if version != stem and version[:1].isdigit() and _includes(affected, version):
                    yield jar


def _includes(affected: Mapping[str, Any], version: str) -> bool:
    if version in (affected.get("versions") or ()):
        return True
    for affected_range in affected.get("ranges") or ():
        if affected_range.get("type") != "ECOSYSTEM":
            continue
        begun = False
        for event in affected_range["events"]:
            if "introduced" in event:
                begun = event["introduced"] == "0" or _order(event["introduced"]) <= _order(version)
            elif "fixed" in event:
                begun = begun and _order(version) < _order(event["fixed"])
            elif "last_affected" in event:
                begun = begun and _order(version) <= _order(event["last_affected"])
        if begun:
            return True
    return False


def _order(version: str) -> tuple[Any, ...]:
    """A key to compare versions: by PEP 440, or by their numbers, as Maven compares releases."""
    try:
        return (Version(version).epoch, *Version(version).release, *([0] * 6))[:6]
    except InvalidVersion:
        return (0, *(int(number) for number in re.findall(r"\d+", version.split("-")[0])), *([0] * 6))[:6]


def undecided(known: Vulnerabilities, parts: Parts, folder: Path) -> list[str]:
    """Return the advisories of a database that concern a part and are not in the list, a line each."""
    listed = {(finding.key, identifier) for finding in known.findings for identifier in finding.ids}
    found = []
    for advisory in advisories(folder):
        ids = [str(advisory.get("id")), *map(str, advisory.get("aliases") or ())]
        for part in concerned(advisory, parts):
            if not any((part, identifier) in listed for identifier in ids):
                title = str(advisory.get("summary") or advisory.get("details") or "")
                found.append(f"{part}: {', '.join(ids)}: {' '.join(title.split())[:200]}")
    return sorted(set(found))


def show(known: Vulnerabilities, console: Console) -> None:
    """Print the list as a table."""
    table = Table(title=f"Known vulnerabilities, looked up on {known.looked_up}", show_lines=True)
    for column in ("part", "vulnerabilities", "decision", "reason"):
        table.add_column(column, overflow="fold")
    for finding in known.findings:
        shown = [identifier for identifier in finding.ids if identifier.startswith("CVE")] or finding.ids
        part = finding.key if finding.inside is None else f"{finding.key} ({finding.inside})"
        decision = finding.decision.replace("_", " ") + (f" until {finding.until}" if finding.until else "")
        table.add_row(part, ", ".join(shown), decision, finding.reason)
    console.print(table)


def read_list(path: Path = LIST) -> Vulnerabilities:
    """Read the list.

    Raises:
        ValueError: an entry lacks a decision, a reason, or a date; the message names it.
    """
    try:
        return Vulnerabilities.model_validate(yaml.safe_load(path.read_text()))
    except ValidationError as error:
        raise ValueError(f"{path}: {error}") from error


def read_looked_up(path: Path = LOOKED_UP) -> frozenset[str]:
    """Read the names of the packages and jars that were looked up."""
    return frozenset(line for line in path.read_text().splitlines() if line and not line.startswith("#"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; returns 0, or 1 if something must be decided or corrected."""
    parser = argparse.ArgumentParser(prog="audit-deps", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--database", action="append", default=[], type=Path, help="folder of advisories in OSV format")
    given = parser.parse_args(arguments)
    known, parts, today = read_list(), Parts.of(jars()), dt.datetime.now(dt.UTC).date()
    show(known, Console())
    found = [line for folder in given.database for line in undecided(known, parts, folder)]
    if given.database and not found:
        LOOKED_UP.write_text(_HEAD + "".join(f"{part}\n" for part in sorted(parts.all)))
    found += faults(known, read_looked_up(), parts, today)
    age = (today - known.looked_up).days
    if age > OUTDATED_DAYS:
        sys.stderr.write(
            f"audit-deps: warning: the look-up is {age} days old; search newer copies: --database FOLDER\n"
        )
    for line in found:
        sys.stderr.write(f"audit-deps: {line}\n")
    removed = sum(finding.decision == "removed" for finding in known.findings)
    sys.stdout.write(
        f"{len(parts.packages)} packages, {len(parts.jars)} jars ({len(removed_jars())} more are deleted);"
        f" {len(known.findings)} findings with a decision, {removed} of them removed; {len(found)} to do\n"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
