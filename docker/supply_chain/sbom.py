"""A bill of materials (CycloneDX 1.6, JSON) of what the jobs run with: locked packages and jars, with their hashes.

PYTHONPATH=docker python -m supply_chain.sbom dist/ids_spark.cdx.json [LOCK…]  # default: run.txt horovod.txt
"""

import importlib
import json
import os
import sys
import uuid
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from supply_chain.parts import Jar, Package, jars, packages

LOCKS: Final = ("run.txt", "horovod.txt")
_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "ids_spark")


def bill(locked: list[Package], archives: list[Jar]) -> dict[str, Any]:
    """Return the document. It has no time, and a serial number of its content: equal parts give an equal document.

    Args:
        locked: Packages; of a package in several locks, the first counts. All hashes of a lock are listed: which file
            is installed depends on the machine.
        archives: Jars.
    """
    ours = importlib.import_module("ids_spark")
    unique = {package.name: package for package in reversed(locked)}
    components = [_of_package(unique[name]) for name in sorted(unique)] + [_of_jar(jar) for jar in archives]
    root = f"pkg:generic/ids_spark@{ours.__version__}"
    document: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": root,
                "name": "ids_spark",
                "version": ours.__version__,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            }
        },
        "components": components,
        "dependencies": [{"ref": root, "dependsOn": [component["bom-ref"] for component in components]}],
    }
    serial = uuid.uuid5(_NAMESPACE, json.dumps(document, sort_keys=True))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "serialNumber": f"urn:uuid:{serial}",
        **document,
    }


def _of_package(package: Package) -> dict[str, Any]:
    purl = f"pkg:pypi/{package.name}@{quote(package.version, safe='')}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "hashes": [{"alg": "SHA-256", "content": digest} for digest in package.sha256],
        "purl": purl,
        "properties": [{"name": "ids_spark:lock", "value": package.lock}],
    }


def _of_jar(jar: Jar) -> dict[str, Any]:
    group = jar.group
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": f"jar:{jar.path.name}",
        "name": jar.name,
        "version": jar.version,
        "hashes": [{"alg": "SHA-256", "content": jar.sha256}],
        "properties": [{"name": "ids_spark:file", "value": f"pyspark/jars/{jar.path.name}"}],
    }
    if group is not None:
        named = {"group": group, "purl": f"pkg:maven/{quote(group)}/{quote(jar.name)}@{quote(jar.version, safe='')}"}
        component |= named
    return component


def main(arguments: list[str]) -> int:
    """Write the document; returns 0."""
    target, locks = Path(arguments[0]), arguments[1:] or LOCKS
    document = bill(packages(locks), jars())
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(document, indent=1) + "\n")
    os.replace(unfinished, target)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
