"""URIs: their file system, their path on it, and whole files.

All Python code that touches a file calls `resolve`: the lake, tasks that read and write parquet, model directories,
checkpoints and, through the data loader, Petastorm. Supported are local paths, `file:`, `hdfs:` (or `viewfs:`) and
`s3a:` (or `s3:`). The part after the scheme is used without percent-decoding, as in Spark's own paths.

Environment variables configure an S3 server, as for every AWS tool: `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`,
`AWS_REGION` or `AWS_DEFAULT_REGION`; credentials come from AWS's default chain (`AWS_ACCESS_KEY_ID` and
`AWS_SECRET_ACCESS_KEY`, `~/.aws/credentials`, the role of the machine). URIs and configuration must not contain
secrets.
"""

import contextlib
import errno
import functools
import json
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from urllib.parse import urlsplit

import pyarrow.fs as pafs

from ids_spark.base import json_text, whole_file
from ids_spark.base.errors import InputError
from ids_spark.lake import hdfs

_EXPECTED: Final = "expected a local path or a file:, hdfs: or s3a: URI"
_ENDPOINT: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_REGION: Final = ("AWS_REGION", "AWS_DEFAULT_REGION")
_ANY_REGION: Final = "us-east-1"  # accepted by servers other than Amazon's
_AT_ONCE: Final = 16  # requests to an object store
_ATTEMPTS: Final = 6  # of a request; with the pauses between them, up to 20 s for a store that always fails
_ANSWER_S: Final = 20  # without a byte; a busy store takes longer than the 3 s that are AWS's default
_CONNECT_S: Final = 5
_TRIES: Final = 100  # to make a folder: a job that ends may remove its empty parents meanwhile
_UNFINISHED: Final = ".new"  # end of the name of a file that will replace another
SET_ASIDE: Final = ".set-aside-"
"""Start of the names of files that are not as this program writes them."""
_LONGEST_OLD: Final = 200  # characters of the old name that the new one holds
_MOST_LEVELS: Final = 32  # of folders below one of the root
_NO_LINK: Final = getattr(os, "O_NOFOLLOW", 0)


def resolve(uri: str) -> tuple[pafs.FileSystem, str]:
    """Return the file system of a URI or local path, and the absolute path on it.

    Raises:
        InputError: when the scheme is unknown, the URI malformed or holds a secret, or its file system cannot be used
            on this machine.
    """
    if ":" not in uri.split("/", 1)[0]:
        return pafs.LocalFileSystem(), os.path.abspath(uri)
    scheme, rest = uri.split(":", 1)
    if scheme == "file":
        return pafs.LocalFileSystem(), "/" + rest.lstrip("/")
    host, _, path = rest.removeprefix("//").partition("/")
    if "@" in host:
        shown = f"{scheme}://…@{host.rsplit('@', 1)[1]}/{path}"
        raise InputError(
            f"{shown}: contains a user or a secret, which would be written to logs and tables; expected none; remove"
            " it and set the environment or ~/.aws/credentials"
        )
    try:
        if scheme in ("s3", "s3a") and rest.startswith("//"):
            return _s3_of(uri, host), f"{host}/{path}".rstrip("/")
        if scheme in ("hdfs", "viewfs") and rest.startswith("//"):
            return _hadoop(f"{scheme}://{host}/"), f"/{path}"
    except hdfs.ClientMissing as error:
        raise InputError(f"{uri}: {error}") from error
    except (ValueError, OSError) as error:
        raise InputError(f"{uri}: {error}; {_EXPECTED}") from error
    raise InputError(f"{uri}: unknown scheme or no '//'; {_EXPECTED}")


def _s3_of(uri: str, bucket: str) -> pafs.S3FileSystem:
    if not bucket or "?" in uri:
        raise ValueError(
            "no bucket, or options after '?' (set the server in AWS_ENDPOINT_URL, the region in AWS_REGION)"
        )
    endpoint, region = _first_set(_ENDPOINT), _first_set(_REGION)
    return _s3(endpoint, region or (_ANY_REGION if endpoint else _region_of(bucket)))


def _first_set(names: Iterable[str]) -> str:
    return next((os.environ[name] for name in names if os.environ.get(name)), "")


@functools.cache
def _region_of(bucket: str) -> str:
    return str(pafs.resolve_s3_region(bucket))  # a request to Amazon


@functools.cache
def _hadoop(uri: str) -> pafs.FileSystem:
    return hdfs.connected(uri)


@functools.cache
def _s3(endpoint: str, region: str) -> pafs.S3FileSystem:
    """Return the client of a server; cached, because making one costs more than most requests."""
    patience = {
        "retry_strategy": pafs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
        "request_timeout": _ANSWER_S,
        "connect_timeout": _CONNECT_S,
    }
    if not endpoint:
        return pafs.S3FileSystem(region=region, **patience)
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.path.strip("/"):
        raise ValueError(f"{' or '.join(_ENDPOINT)} is not a server address such as https://host:9000")
    return pafs.S3FileSystem(endpoint_override=parts.netloc, scheme=parts.scheme, region=region, **patience)


def object_store(uri: str) -> dict[str, str]:
    """Return the options of an S3 URI for programs that have a client of their own, as `resolve` understands it.

    Credentials are not among them: such programs have AWS's default chain as well.
    """
    endpoint, bucket = _first_set(_ENDPOINT), uri.split("//", 1)[1].split("/", 1)[0]
    region = _first_set(_REGION) or (_ANY_REGION if endpoint else _region_of(bucket))
    served = {"AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": str(endpoint.startswith("http:")).lower()}
    patience = {
        "max_retries": str(_ATTEMPTS - 1),
        "retry_timeout": f"{_ATTEMPTS * _ANSWER_S:.0f}s",
        "timeout": f"{_ANSWER_S:.0f}s",
        "connect_timeout": f"{_CONNECT_S:.0f}s",
    }
    return {"AWS_REGION": region} | (served if endpoint else {}) | patience


def renames(fs: pafs.FileSystem) -> bool:
    """Return whether a folder can be renamed in one step; an object store has no folders, only names of objects."""
    return str(fs.type_name) != "s3"


def make_folder(fs: pafs.FileSystem, path: str) -> None:
    """Make a folder and its parents; does nothing for the root, nor on an object store, where files need no folder."""
    if not path.strip("/") or not renames(fs):
        return
    for _ in range(_TRIES - 1):
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            fs.create_dir(path, recursive=True)
            return
    fs.create_dir(path, recursive=True)


def absolute(uri: str) -> str:
    """Return a URI unchanged and a local path as an absolute path: executors have another working directory."""
    return uri if ":" in uri.split("/", 1)[0] else os.path.abspath(uri)


def require_writable(uri: str) -> None:
    """Raise `InputError` if a local folder, or the nearest one above it in which it can be made, cannot be written.

    Other stores are not asked.
    """
    fs, path = resolve(uri)
    if not isinstance(fs, pafs.LocalFileSystem):
        return
    above = path
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    fault = "is no folder" if not os.path.isdir(above) else ""
    if not fault and not os.access(above, os.W_OK | os.X_OK):
        fault = "cannot be written by the user of this job"
    if fault:
        raise InputError(
            f"{uri}: {above} {fault}; expected a folder that can be written, or made; correct the setting, or change"
            " owner or mode of the folder"
        )


def require_below(root: str, uri: str) -> None:
    """Raise `InputError` if a path is not below a root, or a part of it below the root is a symbolic link.

    Only local file systems have links; on others the names alone decide. A link that is made after this check is
    followed: whoever can make links while a job runs can write where the user of the job can.
    """
    fs, path = resolve(uri)
    top = resolve(root)[1]
    expected = path
    if isinstance(fs, pafs.LocalFileSystem):
        expected = f"{os.path.realpath(top)}{path.removeprefix(top)}"
        path, top = os.path.realpath(path), os.path.realpath(top)
    if not path.startswith(f"{top.rstrip('/')}/") or ".." in path.split("/") or path != expected:
        raise _link(uri, path, top)


def require_plain(root: str, folders: Iterable[str]) -> None:
    """Raise `InputError` if these folders of a root hold, or are, a symbolic link, or a name in them is no UTF-8.

    So it does if folders are nested deeper than paths of tables can be.

    Only local file systems can. The root itself may be behind a link.
    """
    fs, top = resolve(root)
    if isinstance(fs, pafs.LocalFileSystem):
        for folder in folders:
            if os.path.islink(f"{top}/{folder}"):
                raise _link(f"{top}/{folder}", os.path.realpath(f"{top}/{folder}"), top)
            for entry in _entries(f"{top}/{folder}"):
                shown = os.fsencode(entry.path).decode(errors="backslashreplace")
                if entry.is_symlink():
                    raise _link(shown, os.path.realpath(entry.path), top)
                if not _is_utf8(entry.name):
                    raise InputError(f"{shown}: its name is no UTF-8; nothing was changed; rename or remove it")


def _entries(path: str, level: int = 0) -> Iterator["os.DirEntry[str]"]:
    if level > _MOST_LEVELS:
        raise InputError(f"{path}: folders are nested too deeply; nothing was changed; remove the first of them")
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(path) as entries:
        for entry in entries:
            yield entry
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(entry.path, level + 1)


def _link(uri: str, target: str, top: str) -> InputError:
    return InputError(
        f"{uri} leads to {target}; expected a path in {top} without symbolic links; nothing was changed; remove the"
        " link, or move what it leads to in its place"
    )


def exists(uri: str) -> bool:
    """Return whether a file or folder exists."""
    fs, path = resolve(uri)
    return bool(fs.get_file_info(path).type != pafs.FileType.NotFound)


def is_file(uri: str) -> bool:
    """Return whether a file, not a folder, exists."""
    fs, path = resolve(uri)
    return bool(fs.get_file_info(path).type == pafs.FileType.File)


def is_plain_file(uri: str) -> bool:
    """Return whether something is a file: no folder, symbolic link, device or pipe, whose reading may not end.

    Raises:
        FileNotFoundError: there is nothing of this name.
    """
    fs, path = resolve(uri)
    if isinstance(fs, pafs.LocalFileSystem):
        return stat.S_ISREG(os.lstat(path).st_mode)
    if not exists(uri):
        raise FileNotFoundError(uri)
    return is_file(uri)


def names_in(uri: str) -> list[str]:
    """Return the names of files and folders in a folder, sorted; none if it is missing.

    On a local file system also of links, and of names that are no UTF-8, with surrogates as in `os.fsdecode`.
    """
    fs, path = resolve(uri)
    try:
        if isinstance(fs, pafs.LocalFileSystem):
            return sorted(os.listdir(path))
        return sorted(info.base_name for info in fs.get_file_info(pafs.FileSelector(path, allow_not_found=True)))
    except (FileNotFoundError, NotADirectoryError):  # another job may have removed an empty folder while it was listed
        return []


def entries_in(uri: str) -> dict[str, pafs.FileType]:
    """Return the type of each entry of a folder by name, sorted, links followed; none if it is missing or no folder.

    On a local file system names that are no UTF-8 are left out: pyarrow can list and open none of them.
    """
    fs, path = resolve(uri)
    try:
        if isinstance(fs, pafs.LocalFileSystem):
            with os.scandir(path) as entries:
                found = {entry.name: _type_of(entry) for entry in entries if _is_utf8(entry.name)}
        else:
            listed = fs.get_file_info(pafs.FileSelector(path, allow_not_found=True))
            found = {info.base_name: info.type for info in listed}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return dict(sorted(found.items()))


def _type_of(entry: "os.DirEntry[str]") -> pafs.FileType:
    if entry.is_dir():
        return pafs.FileType.Directory
    return pafs.FileType.File if entry.is_file() else pafs.FileType.Unknown


def _is_utf8(name: str) -> bool:
    return name.isascii() or name.encode(errors="replace").decode() == name


def read_bytes(uri: str, most: int = json_text.MOST_BYTES) -> bytes:
    """Return a whole file.

    Raises:
        FileNotFoundError: it does not exist.
        FileTooLarge: it has more than `most` bytes.
        OSError: it cannot be read, or is a folder, pipe or device.
    """
    fs, path = resolve(uri)
    if isinstance(fs, pafs.LocalFileSystem):
        return whole_file.read(path, most, uri)
    with fs.open_input_file(path) as stream:
        size = stream.size()
        whole_file.require_size(uri, size, most)
        return bytes(stream.read(size))


def write_bytes(uri: str, content: bytes) -> None:
    """Write a whole file; makes its folder if needed. Atomic only on S3: for files in staging."""
    fs, path = resolve(uri)
    make_folder(fs, path.rsplit("/", 1)[0])
    if isinstance(fs, pafs.LocalFileSystem):
        _write_local(path, content, os.O_CREAT | os.O_TRUNC)
        return
    with fs.open_output_stream(path) as stream:
        stream.write(content)


def _write_local(path: str, content: bytes, flags: int) -> None:
    try:
        with open(os.open(path, os.O_WRONLY | _NO_LINK | flags, 0o640), "wb") as stream:
            stream.write(content)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise _link(path, os.path.realpath(path), os.path.dirname(path)) from error


def replace_bytes(uri: str, content: bytes) -> None:
    """Replace a whole file; a reader sees the old or the new content.

    On HDFS, where a rename cannot replace a file, a reader may find no file for a moment.
    """
    fs, path = resolve(uri)
    if not renames(fs):
        write_bytes(uri, content)  # an object becomes visible when it is complete
        return
    unfinished = f"{path}.{secrets.token_hex(8)}{_UNFINISHED}"  # a name that nobody can have made a link of
    make_folder(fs, path.rsplit("/", 1)[0])
    try:
        if isinstance(fs, pafs.LocalFileSystem):
            _write_local(unfinished, content, os.O_CREAT | os.O_EXCL)
        else:
            with fs.open_output_stream(unfinished) as stream:
                stream.write(content)
        fs.move(unfinished, path)
    except OSError:
        with contextlib.suppress(OSError):
            fs.delete_file(unfinished)
        raise


def remove_unfinished(uri: str) -> None:
    """Remove what killed runs left of `replace_bytes` for a file; no other run may replace it meanwhile."""
    folder, name = uri.rsplit("/", 1)
    for each in names_in(folder):
        if each.startswith(f"{name}.") and each.endswith(_UNFINISHED):
            remove(f"{folder}/{each}")


def remove_old_unfinished(uri: str, seconds: float) -> None:
    """Remove what runs left of `replace_bytes` for a file that were killed longer ago than some seconds."""
    folder, name = uri.rsplit("/", 1)
    oldest = time.time() - seconds
    for each in names_in(folder):
        if each.startswith(f"{name}.") and each.endswith(_UNFINISHED):
            fs, path = resolve(f"{folder}/{each}")
            if (fs.get_file_info(path).mtime_ns or 0) < oldest * 1e9:
                remove(f"{folder}/{each}")


def set_aside(uri: str) -> str:
    """Rename a file or folder that is not as this program writes it, and return its new name, which no job reads.

    The new name begins with `SET_ASIDE` and holds the old one. On a local file system a link itself is renamed.

    Raises:
        OSError: it cannot be renamed, or is no longer there.
    """
    fs, path = resolve(uri)
    folder, name = path.rsplit("/", 1)
    new = f"{SET_ASIDE}{secrets.token_hex(4)}{name[:_LONGEST_OLD]}"
    if isinstance(fs, pafs.LocalFileSystem):
        os.rename(path, f"{folder}/{new}")
    else:
        move(fs, path, f"{folder}/{new}")
    return new


def name_before(new: str) -> str:
    """Return the name that a file had before `set_aside`, or its beginning."""
    return new[len(SET_ASIDE) + 8 :]


def remove(uri: str) -> None:
    """Remove a file if it exists."""
    if is_file(uri):
        fs, path = resolve(uri)
        fs.delete_file(path)


def remove_if_empty(uri: str) -> None:
    """Remove a local folder if it is empty, in one step; on HDFS it stays, and S3 has no folders."""
    fs, path = resolve(uri)
    if isinstance(fs, pafs.LocalFileSystem):
        with contextlib.suppress(OSError):  # not empty, or missing
            os.rmdir(path)


def read_json(uri: str) -> Any:
    """Return a JSON file's content."""
    return json_text.loads(read_bytes(uri))


def write_json(uri: str, content: Any) -> None:
    """Write a JSON file, indented for people."""
    write_bytes(uri, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def files_in(uri: str, ending: str) -> list[str]:
    """Return the sorted URIs of visible files below a folder with this ending; none if the folder is missing."""
    names = (n for n in sizes_in(uri) if n.endswith(ending))
    visible = (n for n in names if n and not any(p.startswith((".", "_")) for p in n.split("/")))
    return [f"{uri.rstrip('/')}/{name}" for name in sorted(visible)]


def newest_files(uri: str, ending: str, most: int) -> list[str]:
    """Return the URIs of the newest files of a folder by time of modification, and of as many by name.

    A copy of a lake may have lost the times; names that begin with a time are in the order of it.
    """
    fs, path = resolve(uri)
    found = fs.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    files = [
        i for i in found if i.type == pafs.FileType.File and i.base_name.endswith(ending) and i.base_name[0] not in "._"
    ]
    by_time = sorted(files, key=lambda info: (info.mtime_ns or 0, info.base_name))[-most:]
    by_name = sorted(files, key=lambda info: str(info.base_name))[-most:]
    return [f"{uri.rstrip('/')}/{name}" for name in sorted({info.base_name for info in (*by_time, *by_name)})]


def sizes_in(uri: str) -> dict[str, int]:
    """Return the bytes of every file below a folder, hidden ones too, by relative path ("" for a single file)."""
    fs, path = resolve(uri)
    info = fs.get_file_info(path)
    if info.type == pafs.FileType.File:
        return {"": info.size}
    found = fs.get_file_info(pafs.FileSelector(path, recursive=True, allow_not_found=True))
    return {i.path[len(path) :].lstrip("/"): i.size for i in found if i.type == pafs.FileType.File}


def move(fs: pafs.FileSystem, path: str, target: str) -> None:
    """Move a file or folder to a free path in one step; on S3 a folder is copied file by file, then deleted."""
    if renames(fs) or fs.get_file_info(path).type == pafs.FileType.File:
        make_folder(fs, target.rsplit("/", 1)[0])
        fs.move(path, target)
        return
    found = fs.get_file_info(pafs.FileSelector(path, recursive=True))
    names = [info.path[len(path) + 1 :] for info in found if info.type == pafs.FileType.File]
    copy_all(fs, path, target, names)
    fs.delete_dir(path)


def copy_all(fs: pafs.FileSystem, path: str, target: str, names: Iterable[str]) -> None:
    """Copy files between folders of one store, several at once; files missing from `path` are skipped."""

    def copy(name: str) -> None:
        old, new = (f"{folder}/{name}".rstrip("/") for folder in (path, target))
        try:
            fs.copy_file(old, new)
        except OSError:
            if fs.get_file_info(old).type == pafs.FileType.File:
                raise

    _at_once(copy, names)


def delete_all(fs: pafs.FileSystem, path: str, names: Iterable[str]) -> None:
    """Delete files of a folder, several at once; missing files are skipped."""

    def delete(name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            fs.delete_file(f"{path}/{name}".rstrip("/"))

    _at_once(delete, names)


def _at_once(do: Callable[[str], None], names: Iterable[str]) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(do, names))
