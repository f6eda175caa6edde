"""Folders that synthetic nights and captures are written to: nothing of somebody else is replaced."""

import datetime as dt
import secrets

import pyarrow.fs as pafs

from ids_spark.base.errors import InputError
from ids_spark.ingest.sources import SYNTHETIC_MARK
from ids_spark.lake import filesystem


def refuse_other_content(target: str, content: str, job: str) -> None:
    """Raise `InputError` unless the target does not exist, is empty, or holds synthetic data of this kind.

    Args:
        target: URI or path of the folder.
        content: `nights` or `captures`, which the mark of the folder has to state.
        job: Whose setting `target` it is.
    """
    found, mark = ["a file"], f"{target.rstrip('/')}/{SYNTHETIC_MARK}"
    if not filesystem.is_file(target):
        found = filesystem.names_in(target)
    if found and not (filesystem.exists(mark) and f'"{content}": true'.encode() in filesystem.read_bytes(mark)):
        raise InputError(
            f"{target}: found {', '.join(found[:3])}, and no {SYNTHETIC_MARK} of synthetic {content}; expected no"
            f" folder, an empty one, or synthetic {content}; set {job}.target to another folder"
        )


def remove_folder(fs: pafs.FileSystem, path: str) -> None:
    """Remove a folder if it exists."""
    if fs.get_file_info(path).type == pafs.FileType.Directory:
        fs.delete_dir(path)


def hidden_folder(root: str, date: dt.date) -> str:
    """Return the name of a new hidden folder for the files of a date until they are complete.

    Folders that killed runs left are removed. Nobody can have put a link in the place of the new one.
    """
    start, (fs, path) = f".writing-{date}", filesystem.resolve(root)
    for name in filesystem.names_in(root):
        if name.startswith(start):
            remove_folder(fs, f"{path}/{name}")
    return f"{start}-{secrets.token_hex(8)}"
