"""The folder of the files that are no modules: `jobs/` for spark-submit, `conf/`, and the zip file of the package.

An installed wheel has them in `ids_spark/share`. In a checkout, and in the container, they are beside the package or
beside the folder of its zip file.
"""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import ids_spark
from ids_spark.base.errors import InputError

_JOBS: Final = "jobs"
_ORDER: Final = (
    *("extract", "ingest", "features", "prepare", "train", "boost", "blend", "score", "verdict", "adapt", "promote"),
    *("export", "verify", "purge", "report", "forest", "benchmark", "leakage"),
    *("synthesize", "synthesize_night", "synthesize_captures"),
)
"""As in jobs/README.md: data flow first. Jobs that are not in it come last."""


class ShareMissing(InputError):
    """Raised when the files of the jobs are not where the package is."""


def share() -> Path:
    """Return the folder.

    Raises:
        ShareMissing: there is none, because a part of an installation or checkout was copied without the rest.
    """
    package = Path(ids_spark.__file__).absolute().parent
    places = (package / "share", package.parent, package.parents[2])
    for place in places:
        if (place / _JOBS / "score.py").is_file():
            return place
    raise ShareMissing(
        f"found no jobs/ in {', '.join(map(str, places))}; expected it beside the package; install the wheel, or use a"
        " whole checkout"
    )


def jobs() -> Mapping[str, str]:
    """Return the first line of the description of each job by name, without importing any."""
    names = {file.stem: file for file in (share() / _JOBS).glob("*.py") if not file.stem.startswith("_")}
    ordered = sorted(names, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name))
    return {name: _first_line(names[name]) for name in ordered}


def _first_line(file: Path) -> str:
    described = ast.get_docstring(ast.parse(file.read_bytes())) or ""
    return " ".join(described.split("\n\n", 1)[0].split())
