"""Arrays of files that anyone may have written: none takes more memory than a file has bytes."""

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.lib import format as npy

from ids_spark.base import npz

ARRAYS: dict[str, Any] = {
    "w000": np.arange(6, dtype=np.float32).reshape(2, 3),
    "w001": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "w002": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "rows": np.array(7, np.int64),
    "none": np.zeros(0, np.float32),
    "state": np.frombuffer(b"{}", np.uint8),
    "big": np.arange(3, dtype=">f4"),
}


def packed(arrays: Mapping[str, Any], save: Any = np.savez) -> bytes:
    sink = io.BytesIO()
    save(sink, **arrays)
    return sink.getvalue()


def header(shape: str, kind: str = "<f4") -> bytes:
    """Return the header of a `.npy` file that claims a shape."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return npy.magic(1, 0) + struct.pack("<H", len(text)) + text


def zipped(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", compression) as target:
        for name, content in members:
            target.writestr(name, content)
    return sink.getvalue()


def test_arrays_are_read_as_written() -> None:
    found = npz.read_npz(packed(ARRAYS))
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].flags.writeable
        assert found[name].flags.aligned
        assert found[name].flags.f_contiguous == np.require(array).flags.f_contiguous


def overlapping(copies: int) -> bytes:
    """Return a zip file whose directory names one array many times, each at the same place."""
    content = zipped(("w000.npy", header("(250000,)") + bytes(1_000_000)))
    at = int.from_bytes(content[-6:-2], "little")
    entry = content[at:-22]
    names = [entry.replace(b"w000.npy", b"w%03d.npy" % i) for i in range(copies)]
    end = content[-22:-14] + struct.pack("<HHII", copies, copies, len(entry) * copies, at)[:0]
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, copies, copies, len(entry) * copies, at, 0)
    return content[:at] + b"".join(names) + end


HOSTILE = {
    "a header that claims 4 TB": zipped(("w000.npy", header("(1000000000000,)") + b"1234")),
    "a header that claims 200 MB": zipped(("w000.npy", header("(50000000,)") + b"1234")),
    "negative dimensions": zipped(("w000.npy", header("(-1, -1)") + b"1234")),
    "a dimension without numbers": zipped(("w000.npy", header("(0, 1000000000)"))),
    "a dimension of 1,000 digits": zipped(("w000.npy", header(f"({'9' * 1000},)"))),
    "numbers after the array": zipped(("w000.npy", header("(1,)") + bytes(8))),
    "a long header": zipped(("w000.npy", npy.magic(2, 0) + struct.pack("<I", 2**31) + b"{")),
    "a format of the future": zipped(("w000.npy", b"\x93NUMPY\x09\x00" + bytes(100))),
    "300 MB of zeros": packed({"w000": np.zeros(75_000_000, np.float32)}, np.savez_compressed),
    "compressed": packed({"w000": np.zeros(3, np.float32)}, np.savez_compressed),
    "one array 300 times": overlapping(300),
    "a million arrays": zipped(*((f"{i}.npy", b"") for i in range(60_000))),
    "two arrays of one name": zipped(("w.npy", header("(1,)") + bytes(4)), ("w.npy", header("(1,)") + bytes(4))),
    "no array": zipped(("w000.txt", b"x")),
    "objects": packed({"w000": np.array([{"a": 1}], dtype=object)}),
    "records": packed({"w000": np.zeros(2, dtype=[("a", "<f4")])}),
    "text": packed({"w000": np.array(["a"])}),
    "an array alone": header("(1,)") + bytes(4),
    "a pickle": b"\x80\x04N.",
    "nothing": b"",
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", HOSTILE)
def test_what_claims_more_than_it_holds_is_refused_before_memory_is_taken(kind: str) -> None:
    content = HOSTILE[kind]
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"npz|real, finite"):
            npz.read_npz(content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * len(content) + 1_000_000


def test_a_large_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "MOST_BYTES", 1_000)
    with pytest.raises(ValueError, match="expected at most 1,000"):
        npz.read_npz(packed(ARRAYS))
