"""The journal of a commit: a file `.commit-<run>.json` that lists the staged tables which replace tables of the lake.

Anyone who can write to the lake can write a journal, and the next job acts on it. So every name must match a strict
pattern, and nothing is moved or deleted for a journal that does not.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Field, ValidationError, model_validator

from ids_spark.base.errors import InputError
from ids_spark.base.names import NAME, PLACE
from ids_spark.config.score import PathPart, Section
from ids_spark.lake.filesystem import read_bytes

PREFIX: Final = ".commit-"
TAKEN_BY: Final = "~"
"""In the name of a journal, between the run that wrote it and the id of the job that finishes its commit."""
_FILE_NAME: Final = re.compile(rf"{re.escape(PREFIX)}({NAME})({TAKEN_BY}[0-9a-f]+)?\.json")

_Place = Annotated[str, Field(pattern=f"^{PLACE}$")]
_File = Annotated[str, Field(pattern=f"^({PLACE})?$")]


class JournalUnusable(InputError):
    """Raised when a file named like a journal is none that a job of this program wrote."""


class Journal(Section):
    """The content of a journal.

    Attributes:
        job: Job that staged the tables.
        run_id: Run that staged them.
        tables: Paths of the tables below the lake's root.
        files: By table, the path of each of its files ("" for a table that is one file); only on a file system that
            cannot rename folders.
    """

    job: PathPart
    run_id: PathPart
    tables: tuple[_Place, ...]
    files: Mapping[_Place, tuple[_File, ...]] | None = None

    @model_validator(mode="after")
    def _files_of_every_table(self) -> "Journal":
        if self.files is not None and set(self.files) != set(self.tables):
            raise ValueError("files and tables are not of the same tables")
        return self

    def content(self) -> bytes:
        """Return the file's content."""
        return (self.model_dump_json(indent=2, exclude_none=True) + "\n").encode()


def read_journal(uri: str, lists_files: bool) -> Journal:
    """Return a journal.

    Args:
        uri: URI of the file.
        lists_files: Whether journals of its file system list files.

    Raises:
        FileNotFoundError: it does not exist; another job has finished the commit.
        JournalUnusable: it is not as a job of this program writes it.
    """
    name = uri.rsplit("/", 1)[1]
    match = _FILE_NAME.fullmatch(name)
    try:
        found = Journal.model_validate_json(read_bytes(uri))
    except FileNotFoundError:
        raise
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "content"
        raise _unusable(uri, f"{where}: {first['msg'].removeprefix('Value error, ')}") from error
    except OSError as error:
        raise _unusable(uri, str(error)) from error
    if match is None or match[1] != found.run_id:
        raise _unusable(uri, f"it names run {found.run_id}, the name of the file another")
    if lists_files != (found.files is not None):
        raise _unusable(uri, "it lists files" if found.files is not None else "it does not list files")
    return found


def _unusable(uri: str, reason: str) -> JournalUnusable:
    return JournalUnusable(
        f"{uri} is not the journal of a commit ({reason}); expected the names of a run and its tables, as a job writes"
        " them. Nothing was moved or deleted. Remove the file; if a job was interrupted, run it again"
    )


def owner(name: str) -> str:
    """Return, from the name of a journal, the run that finishes the commit: its writer, or one that took it over."""
    return name.removeprefix(PREFIX).removesuffix(".json")


def writer(name: str) -> str:
    """Return, from the name of a journal, the run that wrote it."""
    return owner(name).split(TAKEN_BY, 1)[0]
