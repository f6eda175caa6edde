"""Arrays of an `.npz` file as this program writes them, checked before they take memory.

`numpy.load` allocates what the header of an array claims, and unpacks what is compressed. Here an array has exactly the
bytes that its header describes, and nothing is compressed, so that reading takes about twice the size of the file.
"""

import io
import math
import zipfile
from typing import Final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

MOST_BYTES: Final = 1 << 30
"""Of a file: a checkpoint holds four numbers of 4 bytes for each weight, and the largest model has some million."""
MOST_ARRAYS: Final = 10_000
"""Of a file; the largest model has less than a hundred, a checkpoint four for each of these."""
_ENDING: Final = ".npy"
_ENTRY_BYTES: Final = 256  # of an entry in the directory of a zip file with a name of this program
_END: Final = 22  # bytes of the last record, which holds the size of the directory
_HEADERS: Final = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npz(content: bytes) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of an `.npz` file by name.

    Raises:
        ValueError: it is no such file, is damaged, exceeds a limit of this module, or holds something else than real,
            finite numbers.
    """
    if len(content) > MOST_BYTES:
        raise ValueError(f"found an .npz file of {len(content):,} bytes; expected at most {MOST_BYTES:,}")
    try:
        _require_small_directory(content)
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            _require_plain(packed.infolist(), len(content))
            arrays = {each.filename.removesuffix(_ENDING): _array(packed.read(each)) for each in packed.infolist()}
    except Exception as error:  # a damaged zip or header raises errors of many kinds
        raise ValueError(f"not an .npz file: {' '.join(str(error).split())[:200]}") from error
    for name, array in arrays.items():
        if array.dtype.kind not in "iuf" or not np.isfinite(array).all():
            raise ValueError(f"{name[:80]} does not hold real, finite numbers")
    return arrays


def _require_small_directory(content: bytes) -> None:
    """Check the size of the directory, all of which `zipfile` reads before it returns an entry."""
    end = content[-_END:]
    if end[:4] != b"PK\x05\x06" or content[-_END - 20 : -_END - 16] == b"PK\x06\x07":
        raise ValueError("it does not end as a zip file of less than 4 GB without a comment")
    if int.from_bytes(end[12:16], "little") > MOST_ARRAYS * _ENTRY_BYTES:
        raise ValueError(f"it has more than {MOST_ARRAYS:,} arrays")


def _require_plain(entries: list[zipfile.ZipInfo], size: int) -> None:
    names = {entry.filename for entry in entries}
    if len(entries) > MOST_ARRAYS or len(names) < len(entries):
        raise ValueError(f"it has more than {MOST_ARRAYS:,} arrays, or two of one name")
    for entry in entries:
        if not entry.filename.endswith(_ENDING):
            raise ValueError(f"{entry.filename[:80]!r} is not an array")
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{entry.filename[:80]!r} is compressed")
    if (claimed := sum(entry.file_size for entry in entries)) > size:
        raise ValueError(f"its arrays have {claimed:,} bytes together, the file {size:,}")


def _array(content: bytes) -> NDArray[np.generic]:
    """Return the array of a `.npy` file."""
    stream = io.BytesIO(content)
    version = npy.read_magic(stream)  # type: ignore[no-untyped-call]
    if version not in _HEADERS:
        raise ValueError(f"an array of format {version}")
    shape, by_column, kind = _HEADERS[version](stream)  # type: ignore[no-untyped-call]
    if kind.hasobject:
        raise ValueError("an array of Python objects, which are never loaded")
    expected, found = math.prod(shape) * kind.itemsize, len(content) - stream.tell()
    if min(shape, default=0) < 0 or max(shape, default=0) > found or expected != found:
        raise ValueError(f"an array of shape {str(shape)[:80]} and type {kind} in {found:,} bytes")
    flat = np.frombuffer(content, kind, offset=stream.tell())
    return flat.reshape(shape, order="F" if by_column else "C").copy("K")
