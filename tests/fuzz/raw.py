"""Mutations of bytes, without regard to what they mean, and files that are something else."""

import gzip
import io
import zipfile
from collections.abc import Callable
from typing import Final

from tests.fuzz.draw import Draw

LFS_POINTER: Final = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)
HTML: Final = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Log in to go on</body></html>\n"
PARTS: Final = (
    b"\x00", b"\xff", b"\xfe\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b'"', b"'", b",", b";", b"\n",
    b"\r",
    b"\r\n", b"\t", b"\x1a", b"\x1b[31m", b"\\", b"PAR1", b"PK\x03\x04", b"\x1f\x8b", b"NaN", b"1e999", b"-" * 40,
    b"9" * 400, b"A" * 5000, "\u202e".encode(), "\u2028".encode(), "\ufeff".encode(), b"${x}", b"../../",
)  # fmt: skip


def mutate(draw: Draw, content: bytes, most: int = 4) -> bytes:
    """Return the content with 1 to `most` mutations."""
    for _ in range(draw.rng.randint(1, most)):
        mutation = draw.pick(_MUTATIONS)
        draw.note(f"bytes: {mutation.__name__.strip('_')}")
        content = mutation(draw, content)
    return content


def another_kind(draw: Draw, content: bytes) -> bytes:
    """Return a file that is something else than its name promises."""
    kind = draw.pick(("empty", "lfs", "html", "zip", "gzip", "utf-16", "zeros", "text", "spaces"))
    draw.note(f"file: {kind}")
    if kind == "zip":
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(zipfile.ZipInfo("flows.csv"), content)
        return packed.getvalue()
    if kind == "utf-16":
        return content.decode("latin-1").encode("utf-16")
    return {
        "empty": b"",
        "lfs": LFS_POINTER,
        "html": HTML,
        "gzip": gzip.compress(content, mtime=0),
        "zeros": bytes(len(content)),
        "text": b"see the other folder\n",
        "spaces": b"   \n \n",
    }[kind]


def _place(draw: Draw, content: bytes) -> int:
    """Return a position; often near one of the ends, where headers and footers are."""
    if draw.chance(0.3):
        return max(0, len(content) - 1 - draw.rng.randrange(400))
    if draw.chance(0.2):
        return min(len(content), draw.rng.randrange(200))
    return int(draw.rng.random() * len(content))


def _flip(draw: Draw, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.rng.randint(1, 8)):
        if changed:
            changed[min(_place(draw, content), len(changed) - 1)] ^= 1 << draw.rng.randrange(8)
    return bytes(changed)


def _overwrite(draw: Draw, content: bytes) -> bytes:
    at, part = _place(draw, content), draw.pick(PARTS)
    return content[:at] + part + content[at + len(part) :]


def _insert(draw: Draw, content: bytes) -> bytes:
    at = _place(draw, content)
    return content[:at] + draw.pick(PARTS) + content[at:]


def _delete(draw: Draw, content: bytes) -> bytes:
    at = _place(draw, content)
    return content[:at] + content[at + draw.rng.choice((1, 2, 7, 64, 1000)) :]


def _duplicate(draw: Draw, content: bytes) -> bytes:
    at, size = _place(draw, content), draw.rng.choice((1, 8, 100, 3000))
    return content[:at] + content[at : at + size] * 2 + content[at + size :]


def _truncate(draw: Draw, content: bytes) -> bytes:
    return content[: _place(draw, content)]


def _random_end(draw: Draw, content: bytes) -> bytes:
    return content + draw.rng.randbytes(draw.rng.choice((1, 8, 500)))


def _random_run(draw: Draw, content: bytes) -> bytes:
    at, size = _place(draw, content), draw.rng.choice((4, 16, 64))
    return content[:at] + draw.rng.randbytes(size) + content[at + size :]


_MUTATIONS: Final[tuple[Callable[[Draw, bytes], bytes], ...]] = (
    _flip, _flip, _overwrite, _insert, _delete, _duplicate, _truncate, _random_end, _random_run,
)  # fmt: skip
