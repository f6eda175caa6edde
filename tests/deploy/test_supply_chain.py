"""The list of vulnerabilities, its command, and the bill of materials."""

import datetime as dt
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import cyclonedx.schema
import jsonschema
import pytest
import yaml
from packaging.utils import canonicalize_name
from referencing import Registry, Resource
from rich.console import Console

from supply_chain import audit, sbom
from supply_chain.parts import LOCKS, Jar, jars, packages, removed_jars
from tests.support.flows import ROOT

TODAY = dt.date(2026, 12, 1)


def parts(*names: str, left: tuple[str, ...] = ()) -> audit.Parts:
    """Packages and jars in use."""
    archives = {name for name in names if name.endswith(".jar")}
    return audit.Parts(frozenset(set(names) - archives), frozenset(archives), frozenset(left))


def known(*findings: dict[str, Any]) -> audit.Vulnerabilities:
    """A list with these findings."""
    usual = {"source": "s", "decision": "not_reachable", "reason": "r"}
    return audit.Vulnerabilities.model_validate(
        {"looked_up": TODAY, "sources": {"s": "S"}, "findings": [usual | finding for finding in findings]}
    )


KERAS = {"part": "keras", "version": "2.15.0", "ids": ["CVE-1"]}
HORROR = {"part": "derby-1.jar", "ids": ["CVE-2"], "decision": "removed"}


def test_every_part_in_use_was_looked_up_and_every_finding_has_a_decision() -> None:
    found, now = audit.read_list(), audit.Parts.of(jars())
    expected = audit.Parts(now.packages, now.jars, frozenset())  # whether jars are deleted is the environment's matter
    assert audit.faults(found, audit.read_looked_up(), expected, found.looked_up) == []
    assert len(expected.packages) > 100
    assert len(expected.jars) > 100
    removed = {finding.part for finding in found.findings if finding.decision == "removed"}
    names = {Jar(Path(part), *re.fullmatch(r"(.+)-(\d+\..*)\.jar", part).groups()).name for part in removed}  # type: ignore[union-attr]
    assert names <= removed_jars()
    ids = r"CVE-\d{4}-\d+|GHSA(-\w{4}){3}|PYSEC-\d{4}-\d+|[\w-]+/[\w-]+#\d+"  # the last: notice of a project, no CVE
    for finding in found.findings:
        assert all(re.fullmatch(ids, one) for one in finding.ids)


@pytest.mark.parametrize(
    ("found", "in_use", "message"),
    [
        (known(KERAS), parts("keras==2.15.0", "scipy==2"), "scipy==2 is new or has another version"),
        (known(KERAS), parts("keras==2.16.0"), "keras==2.16.0 is new or has another version"),
        (known(KERAS), parts("rich==1"), "keras==2.15.0 (CVE-1) is not in use"),
        (
            known(KERAS | {"decision": "waived", "until": dt.date(2026, 11, 30)}),
            parts("keras==2.15.0"),
            "the waiver of keras==2.15.0 (CVE-1) ended on 2026-11-30",
        ),
        (known(HORROR), parts("derby-1.jar"), "jars_removed.txt does not name it"),
        (known(HORROR), parts(left=("derby-1.jar",)), "1 jars are installed that"),
    ],
)
def test_what_is_undecided_outdated_or_still_installed_is_named(
    found: audit.Vulnerabilities, in_use: audit.Parts, message: str
) -> None:
    looked_up = frozenset({"keras==2.15.0", "rich==1", "derby-1.jar"})
    assert [line for line in audit.faults(found, looked_up, in_use, TODAY) if message in line]


def test_a_list_without_faults_has_none() -> None:
    waived = KERAS | {"decision": "waived", "until": TODAY}
    in_use = parts("keras==2.15.0", "a-1.jar")
    assert audit.faults(known(waived, HORROR), frozenset({"keras==2.15.0", "a-1.jar"}), in_use, TODAY) == []


@pytest.mark.parametrize(
    "change",
    [{"decision": "none"}, {"reason": ""}, {"ids": []}, {"source": "t"}, {"decision": "waived"}, {"version": None}],
)
def test_a_finding_without_decision_reason_date_or_source_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    finding = KERAS | {"source": "s", "decision": "not_reachable", "reason": "r"} | change
    file = tmp_path / "list.yaml"
    file.write_text(yaml.safe_dump({"looked_up": TODAY, "sources": {"s": "S"}, "findings": [finding]}))
    with pytest.raises(ValueError, match=r"list\.yaml"):
        audit.read_list(file)


def advisory(name: str, ecosystem: str, events: list[dict[str, str]], identifier: str = "GHSA-1") -> dict[str, Any]:
    affected = {"package": {"name": name, "ecosystem": ecosystem}, "ranges": [{"type": "ECOSYSTEM", "events": events}]}
    return {"id": identifier, "aliases": ["CVE-7"], "summary": "a\nfault", "affected": [affected]}


@pytest.mark.parametrize(
    ("name", "ecosystem", "events", "expected"),
    [
        ("Keras", "PyPI", [{"introduced": "0"}, {"fixed": "2.15.1"}], "keras==2.15.0"),
        ("keras", "PyPI", [{"introduced": "0"}, {"fixed": "2.15.0"}], None),
        ("keras", "PyPI", [{"introduced": "2.15.0"}, {"last_affected": "2.15.0"}], "keras==2.15.0"),
        ("keras", "PyPI", [{"introduced": "2.16"}], None),
        ("keras", "npm", [{"introduced": "0"}], None),
        ("io.netty:netty-codec", "Maven", [{"introduced": "4.1.0.Final"}, {"fixed": "4.1.97.Final"}], "the jar"),
        ("io.netty:netty-codec", "Maven", [{"introduced": "0"}, {"fixed": "4.1.96.Final"}], None),
        ("io.netty:netty", "Maven", [{"introduced": "0"}], None),
    ],
)
def test_a_database_is_searched_for_the_versions_in_use(
    tmp_path: Path, name: str, ecosystem: str, events: list[dict[str, str]], expected: str | None
) -> None:
    jar = "netty-codec-4.1.96.Final.jar"
    in_use = parts("keras==2.15.0", jar)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "one.json").write_text(json.dumps(advisory(name, ecosystem, events)))
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(advisory(name, ecosystem, events) | {"withdrawn": "2026"}))
    (tmp_path / "broken.json").write_text('{"affected": "Maven')
    part = jar if expected == "the jar" else expected
    told = [f"{part}: GHSA-1, CVE-7: a fault"] if part else []
    assert audit.undecided(known(), in_use, tmp_path) == told
    if part:
        of_part = {"part": jar} if part == jar else {"part": "keras", "version": "2.15.0"}
        assert audit.undecided(known(of_part | {"ids": ["CVE-7"]}), in_use, tmp_path) == []


def test_the_table_shows_part_decision_and_reason() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    audit.show(known(KERAS | {"decision": "waived", "until": TODAY, "reason": "nobody calls it"}), console)
    text = console.export_text()
    for shown in ("keras==2.15.0", "CVE-1", "waived until 2026-12-01", "nobody calls it"):
        assert shown in text


# --- the bill of materials --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The bill of the locked packages and three jars."""
    return sbom.bill(packages(sbom.LOCKS), jars()[:3])


def test_the_bill_has_the_published_form(document: dict[str, Any]) -> None:
    folder = Path(cyclonedx.schema.__file__).parent / "_res"
    names = ("bom-1.6.SNAPSHOT.schema.json", "spdx.SNAPSHOT.schema.json", "jsf-0.82.SNAPSHOT.schema.json")
    schemas = {f"http://cyclonedx.org/schema/{name}": json.loads((folder / name).read_text()) for name in names}
    registry = Registry().with_resources([(uri, Resource.from_contents(schema)) for uri, schema in schemas.items()])
    validator = jsonschema.Draft7Validator(next(iter(schemas.values())), registry=registry)
    assert [error.message for error in validator.iter_errors(document)] == []
    assert list(validator.iter_errors(document | {"components": [{"name": "no type"}]})), "the schema finds faults"


def test_the_bill_names_every_locked_package_with_its_hashes(document: dict[str, Any]) -> None:
    components = {component["name"]: component for component in document["components"] if "purl" in component}
    for lock in ("run.txt", "horovod.txt"):
        text = (LOCKS / lock).read_text()
        for name, version in re.findall(r"^([\w.-]+)==([^\s\\]+)", text, re.MULTILINE):
            found = components[canonicalize_name(name)]
            assert found["version"] == version
            assert found["purl"] == f"pkg:pypi/{canonicalize_name(name)}@{version}"
            assert found["hashes"]
            assert all(entry["content"] in text for entry in found["hashes"])
    hashes = [entry["content"] for component in components.values() for entry in component["hashes"]]
    assert set(re.findall(r"sha256:(\w{64})", (LOCKS / "run.txt").read_text())) <= set(hashes)


def test_the_bill_names_jars_with_their_hashes_and_is_equal_for_equal_parts(document: dict[str, Any]) -> None:
    found = {component["bom-ref"]: component for component in document["components"]}
    for jar in jars()[:3]:
        [entry] = found[f"jar:{jar.path.name}"]["hashes"]
        assert entry["content"] == hashlib.sha256(jar.path.read_bytes()).hexdigest()
    assert sbom.bill(packages(sbom.LOCKS), jars()[:3]) == document
    assert sbom.bill(packages(sbom.LOCKS), jars()[:2])["serialNumber"] != document["serialNumber"]


def test_make_package_writes_the_bill_and_audit_deps_runs_the_audit() -> None:
    text = (ROOT / "Makefile").read_text()
    assert re.search(r"^package: \$\(ZIP\) \$\(BILL\)", text, re.MULTILINE)
    assert "python -m supply_chain.sbom $@" in text
    assert "python -m supply_chain.audit $(ARGS)" in text
