"""Rules that no linter checks: tests do not import each other, and private names stay inside their package."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

from tests.support.flows import ROOT

SOURCES = sorted(path for folder in ("tests", "jobs", "ids_spark") for path in (ROOT / folder).rglob("*.py"))


def imports_of(tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    """Yield local name, module and name in that module of each `from … import …`, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield alias.asname or alias.name, node.module, alias.name


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_names(tree: ast.Module) -> Iterator[str]:
    """Yield every private name of a module of ids_spark that a source imports or reads from an imported module."""
    modules: dict[str, list[str]] = {}
    for local, module, name in imports_of(tree):
        if module.split(".")[0] == "ids_spark":
            if private(name):
                yield f"{module}.{name}"
            if (ROOT / f"{module}.{name}".replace(".", "/")).with_suffix(".py").exists():
                modules[local] = [f"{module}.{name}"]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and private(node.attr):
            yield from (f"{module}.{node.attr}" for module in modules.get(node.value.id, ()))


@functools.cache
def names_in(path: Path) -> tuple[list[str], list[str]]:
    """Return what a file imports with `from`, and its private names of other modules."""
    tree = ast.parse(path.read_text())
    return [f"{module}.{name}" for _, module, name in imports_of(tree)], list(private_names(tree))


def package_of(path: Path) -> str:
    """Return the sub-package of ids_spark that a file belongs to, or, for a test, whose name its folder has."""
    return path.relative_to(ROOT).parts[1]


def test_private_names_are_recognised() -> None:
    source = """
from ids_spark.lake import lease, store
from ids_spark.lake.store import _copy, Lake
lease._machine(), lease.active_runs(), store.__doc__, Lake._fields
"""
    assert list(private_names(ast.parse(source))) == ["ids_spark.lake.store._copy", "ids_spark.lake.lease._machine"]


def test_no_private_name_is_used_outside_its_package() -> None:
    found = [(path, name) for path in SOURCES for name in names_in(path)[1]]
    assert [f"{path}: {name}" for path, name in found if name.split(".")[1] != package_of(path)] == []


def test_no_test_file_imports_another() -> None:
    found = [
        f"{path}: {name}"
        for path in SOURCES
        for name in names_in(path)[0]
        if name.startswith("tests.") and "test_" in name.replace("conftest", "test_")
    ]
    assert found == []
