"""Files, sections, modules, make targets and jobs in the READMEs exist; the workflow runs the documented checks."""

import re
from pathlib import Path

import pytest
import yaml

from tests.support.flows import ROOT

READMES = sorted(
    path for path in ROOT.rglob("*.md") if not {".venv", "runs", "build"} & set(path.relative_to(ROOT).parts)
)
PACKAGE = ROOT / "ids_spark"


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub creates for a file's headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def code(text: str) -> str:
    return "\n".join([*re.findall(r"```sh\n(.*?)```", text, re.DOTALL), *re.findall(r"`([^`\n]+)`", text)])


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_points_to_an_existing_file_or_section(path: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_make_target_and_job_that_is_named_exists(path: Path):
    if path.name == "CHANGELOG.md":
        pytest.skip("names what earlier versions had")
    makefile = (ROOT / "Makefile").read_text()
    targets = {name for line in re.findall(r"^([a-z][a-z -]*):", makefile, re.MULTILINE) for name in line.split()}
    named = code(path.read_text())
    assert set(re.findall(r"^make ([a-z-]+)", named, re.MULTILINE)) <= targets
    jobs = {file.stem for file in (ROOT / "jobs").glob("*.py")}
    assert set(re.findall(r"\bjobs/(\w+)\.py", named)) <= jobs


def test_the_start_page_is_short_and_lists_every_job():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    assert {file.stem for file in (ROOT / "jobs").glob("*.py")} <= set(re.findall(r"`(\w+)`", text))


def test_the_map_of_the_package_names_every_module_and_no_other():
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| (.+) \|$", (PACKAGE / "README.md").read_text(), re.MULTILINE)
    named = {f"{package}/{module}" for package, modules in rows for module in re.findall(r"`([\w/]+)`", modules)}
    files = {path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py")}
    assert named == {file for file in files if "/" in file and not file.endswith("__init__")}


def test_every_listed_change_names_an_existing_module():
    text = (PACKAGE / "README.md").read_text().split("## Where to change what")[1].split("\n## ")[0]
    places = re.findall(r"^\| .+ \|.*?`([\w/.]+)` \|$", text, re.MULTILINE)
    assert len(places) >= 10
    for place in places:
        assert (PACKAGE / place).exists(), place


def test_the_workflow_runs_the_checks_of_contributors_without_secrets_on_pinned_actions():
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    (job,) = yaml.safe_load(text)["jobs"].values()
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in job["steps"] if "uses" in step)
    assert "secrets." not in text
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}
