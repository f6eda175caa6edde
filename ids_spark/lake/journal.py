"""The journal of a commit: a file `.commit-<run>.json` that lists the staged tables which replace tables of the lake.

Anyone who can write to the lake can write a journal, and the next job acts on it. So every name must match a strict
pattern; a journal that does not is set aside, and nothing is moved or deleted for it. One whose names do match can move
a table that is staged in the lake to another place in the lake, and nothing that its writer could not do without it.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Field, model_validator

from ids_spark.base import json_text
from ids_spark.base.errors import InputError
from ids_spark.base.names import NAME, PLACE
from ids_spark.base.text import one_line
from ids_spark.config.score import PathPart, Section
from ids_spark.lake.filesystem import is_plain_file, read_bytes

PREFIX: Final = ".commit-"
TAKEN_BY: Final = "~"
"""In the name of a journal, between the run that wrote it and the id of the job that finishes its commit."""
_FILE_NAME: Final = re.compile(rf"{re.escape(PREFIX)}({NAME})({TAKEN_BY}[0-9a-f]+)?\.json")

_Place = Annotated[str, Field(pattern=f"^{PLACE}$")]
_File = Annotated[str, Field(pattern=f"^({PLACE})?$")]


class JournalUnusable(InputError):
    """Raised when a file named like a journal is none that a job of this version wrote; the message says why."""


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
        JournalUnusable: it is not as a job of this version writes it.
        OSError: the lake cannot be read.
    """
    match = _FILE_NAME.fullmatch(uri.rsplit("/", 1)[1])
    if match is None:
        raise JournalUnusable("its name holds no id of a run")
    if not is_plain_file(uri):
        raise JournalUnusable("it is a link, or no file")
    try:
        found = Journal.model_validate_json(json_text.checked(read_bytes(uri)))
    except ValueError as error:
        raise JournalUnusable(json_text.fault_of(error)) from error
    except PermissionError as error:
        raise JournalUnusable(one_line(error)) from error
    if match[1] != found.run_id:
        raise JournalUnusable(f"it names run {found.run_id}, the name of the file another")
    if lists_files != (found.files is not None):
        raise JournalUnusable("it lists files" if found.files is not None else "it does not list files")
    return found


def owner(name: str) -> str:
    """Return, from the name of a journal, the run that finishes the commit: its writer, or one that took it over."""
    return name.removeprefix(PREFIX).removesuffix(".json")


def writer(name: str) -> str:
    """Return, from the name of a journal, the run that wrote it."""
    return owner(name).split(TAKEN_BY, 1)[0]
