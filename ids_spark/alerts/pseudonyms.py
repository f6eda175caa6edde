"""Pseudonyms of identifiers: a keyed hash, equal in every column, table and night as long as the key is the same.

A pseudonym is the first 32 hex characters of HMAC-SHA256 (RFC 2104, FIPS 180-4) of the value as UTF-8 text. Finding
a value by trying all addresses requires the key. The name of the column is not part of the input: a device has one
pseudonym everywhere, so tables and nights can be joined, and equal values and their frequency remain visible. Another
key gives other pseudonyms.

At 128 bits, n distinct values collide with a probability of about n² / 2^129: 1.5e-21 for 10^9 values.
"""

import hashlib
import hmac
import os
from collections.abc import Callable
from typing import Final

import pyarrow as pa

from ids_spark.base import whole_file
from ids_spark.base.errors import InputError
from ids_spark.config.score import ScoreConfig

LENGTH: Final = 32
"""Hex characters of a pseudonym."""
SHORTEST_KEY: Final = 32
"""Minimum characters of a key; `openssl rand -hex 32` gives 64."""
REMEDY: Final = (
    "make one with: (umask 077; openssl rand -hex 32 > FILE), and set score.pseudonym_key_file=FILE; or store"
    " identifiers as they are: --set 'score.pseudonymise=[]' (make: SET='score.pseudonymise=[]')"
)
"""What to do without a key."""
_MODES: Final = (0o600, 0o400)
_MOST_BYTES: Final = 65_536  # of a file
_BLOCK: Final = 64  # bytes of a block of SHA-256
_KEY_NAME: Final = b"ids_spark: which key"


class KeyUnusable(InputError):
    """Raised when the key is absent, too short, or readable by others; the message never contains the key."""


class Pseudonyms:
    """Replaces values by pseudonyms under one key. It is pickled for tasks; its `repr` does not contain the key.

    Args:
        key: The key, at least `SHORTEST_KEY` bytes.

    Raises:
        KeyUnusable: the key is shorter.
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) < SHORTEST_KEY:
            raise KeyUnusable(f"the pseudonym key has {len(key)} bytes; expected at least {SHORTEST_KEY}; {REMEDY}")
        self._key = key

    def __repr__(self) -> str:
        return f"Pseudonyms(key_id={self.key_id!r})"

    @property
    def key_id(self) -> str:
        """An id of the key in 8 hex characters: nights with the same id can be joined."""
        return hmac.digest(self._key, _KEY_NAME, "sha256").hex()[:8]

    def of(self, text: str) -> str:
        """Return the pseudonym of a text; empty text stays empty. Characters that are no text are hashed as escapes."""
        return _hash_under(self._key)(text) if text else text

    def pseudonymised(self, column: pa.Array | pa.ChunkedArray) -> pa.Array:
        """Return the pseudonyms of a column's values, as text of `LENGTH` characters, shape (rows,).

        Null stays null and empty text empty, as neither identifies anybody. Each distinct value is hashed once.

        Args:
            column: Text, plain or as a dictionary; values of another type are cast to text by Arrow.
        """
        hash_of = _hash_under(self._key)
        whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        encoded = (whole if pa.types.is_string(whole.type) else whole.cast(pa.string())).dictionary_encode()
        hashed = [hash_of(value) if value else value for value in encoded.dictionary.to_pylist()]
        return pa.array(hashed, pa.string()).take(encoded.indices)


def _hash_under(key: bytes) -> Callable[[str], str]:
    """Return HMAC-SHA256 under a key, with the padded key hashed once: twice as fast as `hmac.digest`."""
    padded = (key if len(key) <= _BLOCK else hashlib.sha256(key).digest()).ljust(_BLOCK, b"\0")
    inner, outer = (hashlib.sha256(bytes(byte ^ pad for byte in padded)) for pad in (0x36, 0x5C))

    def hash_of(value: str) -> str:
        of_value, found = inner.copy(), outer.copy()
        of_value.update(value.encode(errors="backslashreplace"))  # names of files can hold surrogates
        found.update(of_value.digest())
        return found.hexdigest()[:LENGTH]

    return hash_of


def load_key(settings: ScoreConfig) -> Pseudonyms | None:
    """Return the pseudonymiser; None if nothing is to be pseudonymised, or if no setting asks for it and no key is set.

    A key is text of at least `SHORTEST_KEY` characters without surrounding white space; its UTF-8 bytes are the HMAC
    key. A key file takes precedence over the environment variable.

    Raises:
        KeyUnusable: there is no key, it is too short or not text, or users other than its owner may read its file.
    """
    if settings.pseudonymise == ():
        return None
    if settings.pseudonym_key_file is not None:
        return _checked(_of_file(settings.pseudonym_key_file), settings.pseudonym_key_file)
    variable = settings.pseudonym_key_env
    key = os.environ.get(variable, "")
    if not key.strip() and settings.pseudonymise is None:
        return None
    if not key.strip():
        columns = ", ".join(settings.pseudonymise or ())
        raise KeyUnusable(
            f"score.pseudonymise names {columns}, but there is no key: score.pseudonym_key_file is not set and the"
            f" environment variable {variable} is {'empty' if variable in os.environ else 'absent'}; {REMEDY}"
        )
    return _checked(key, f"environment variable {variable}")


def _of_file(name: str) -> str:
    try:
        content, mode = whole_file.read_with_mode(name, _MOST_BYTES)
        if mode not in _MODES:
            raise KeyUnusable(
                f"{name} has mode {mode:04o}; only its owner may read a key: expected 0600 or 0400;"
                f" run chmod 600 {name}, and make a new key if others may have read this one"
            )
        return content.decode()
    except whole_file.FileTooLarge as error:
        raise KeyUnusable(f"{error.args[0]}; {REMEDY}") from None
    except OSError as error:
        raise KeyUnusable(f"{name}: {error.strerror}; expected a file with the pseudonym key; {REMEDY}") from None
    except UnicodeDecodeError:  # its message would show a byte of the key
        raise KeyUnusable(f"{name} is not UTF-8 text; {REMEDY}") from None


def _checked(text: str, where: str) -> Pseudonyms:
    key = text.strip()
    if len(key) < SHORTEST_KEY:
        raise KeyUnusable(f"{where}: a key of {len(key)} characters; expected at least {SHORTEST_KEY}; {REMEDY}")
    try:
        return Pseudonyms(key.encode())
    except UnicodeEncodeError:  # the environment variable holds bytes that are not text
        raise KeyUnusable(f"{where} is not UTF-8 text; {REMEDY}") from None
