"""One input of the fuzz test: a folder with a lake and files, and the job that reads them."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.draw import Draw


@dataclass(frozen=True)
class Base:
    """What inputs are made from; never written to.

    Attributes:
        flows: Lake after an ingest.
        night: Lake with a model and the tables of one scored night.
        checkpoint: A checkpoint of a training run.
        logs: Flows of a night, as an Arrow table.
    """

    flows: Path
    night: Path
    checkpoint: Path
    logs: Any


@dataclass
class Case:
    """One input.

    Attributes:
        folder: Holds `lake`, the tables before the run, and `input`.
        job: Name of the job.
        settings: Of the job, except the lake.
        table: Name of the table whose rows are counted: `flows`, `nights` or none.
        rows: Rows of each file by its name in the tables, where the mutation permits to know them.
        planted: Beginnings of paths in the lake that the input put there and a refusal leaves.
        config: A configuration file.
        read: A call in place of a job: returns nothing, or raises.
        after: A second job, if the first was done.
        before: Files before the second job.
    """

    folder: Path
    job: str = ""
    settings: list[str] = field(default_factory=list)
    table: str = ""
    rows: dict[str, int] = field(default_factory=dict)
    planted: tuple[str, ...] = ()
    config: str = ""
    read: Callable[[], object] | None = None
    after: tuple[str, list[str]] | None = None
    before: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def lake(self) -> Path:
        return self.folder / "lake"

    @property
    def input(self) -> Path:
        return self.folder / "input"


Make = Callable[[Draw, Base, Path], Case]


def start(folder: Path, lake: Path | None) -> Case:
    """Make the folder of an input, with a copy of a lake."""
    if lake is None:
        (folder / "lake").mkdir(parents=True)
    else:
        shutil.copytree(lake, folder / "lake", symlinks=True)
    (folder / "input").mkdir()
    return Case(folder)
