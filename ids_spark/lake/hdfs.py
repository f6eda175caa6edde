"""HDFS through Hadoop's own client, with the difference between what does not exist and what cannot be asked.

pyarrow 14 reports a path as not found, and a folder as empty, also when the NameNode does not answer. A lake would then
seem to be empty. So whenever something is not found, and after every listing, the root is asked for: it always exists.
"""

import errno
from typing import Any, Final

import pyarrow.fs as pafs

_NEEDS: Final = (
    "HDFS needs Hadoop's client on the driver and on every executor: ARROW_LIBHDFS_DIR or HADOOP_HOME for libhdfs.so,"
    " JAVA_HOME, and CLASSPATH from: hadoop classpath --glob"
)


class ClientMissing(ValueError):
    """Raised when Hadoop's client is not on this machine, or is not configured."""


def connected(uri: str) -> pafs.FileSystem:
    """Return the file system of a NameNode.

    Raises:
        ClientMissing: the native library or the classes of the client are not found.
    """
    try:
        return pafs.PyFileSystem(_Answered(pafs.FileSystem.from_uri(uri)[0], uri))
    except OSError as error:
        raise ClientMissing(f"{error}; {_NEEDS}") from error


class _Answered(pafs.FileSystemHandler):  # type: ignore[misc]
    """Passes everything on to pyarrow's file system, and raises `OSError` where it takes silence for absence."""

    def __init__(self, fs: pafs.FileSystem, uri: str) -> None:
        self._fs, self._uri = fs, uri

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Answered) and self._uri == other._uri

    __hash__ = None  # type: ignore[assignment]

    def get_type_name(self) -> str:
        return "hdfs"

    def normalize_path(self, path: str) -> str:
        return str(self._fs.normalize_path(path))

    def get_file_info(self, paths: list[str]) -> list[pafs.FileInfo]:
        found: list[pafs.FileInfo] = self._fs.get_file_info(paths)
        if any(info.type == pafs.FileType.NotFound for info in found):
            self._require_answer()
        return found

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        found: list[pafs.FileInfo] = self._fs.get_file_info(selector)
        self._require_answer()
        return found

    def _require_answer(self) -> None:
        if self._fs.get_file_info("/").type == pafs.FileType.NotFound:
            raise OSError(
                errno.EHOSTUNREACH, f"HDFS at {self._uri} does not answer. Detail: [errno {errno.EHOSTUNREACH}]"
            )

    def create_dir(self, path: str, recursive: bool) -> None:
        self._fs.create_dir(path, recursive=recursive)

    def delete_dir(self, path: str) -> None:
        self._fs.delete_dir(path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        self._fs.delete_dir_contents(path, missing_dir_ok=missing_dir_ok)

    def delete_root_dir_contents(self) -> None:
        raise NotImplementedError("the root of a file system is never emptied")

    def delete_file(self, path: str) -> None:
        self._fs.delete_file(path)

    def move(self, src: str, dest: str) -> None:
        self._fs.move(src, dest)

    def copy_file(self, src: str, dest: str) -> None:
        self._fs.copy_file(src, dest)

    def open_input_stream(self, path: str) -> Any:
        return self._fs.open_input_stream(path)

    def open_input_file(self, path: str) -> Any:
        return self._fs.open_input_file(path)

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        return self._fs.open_output_stream(path, metadata=metadata)

    def open_append_stream(self, path: str, metadata: Any) -> Any:
        return self._fs.open_append_stream(path, metadata=metadata)
