"""Identifiers to pseudonyms: a keyed hash that is the same in every column, table and night, as long as the key is.

A pseudonym is HMAC-SHA256 (RFC 2104, FIPS 180-4) of the value as UTF-8 text, its first 32 hex characters. Without the
key nobody can find out a value by trying all addresses; with it, whoever must act on an incident can. The name of the
column is not mixed in: one device keeps one pseudonym wherever it occurs, so that tables and nights stay joinable.
That also means that equal values can be seen to be equal, and how often they occur. Another key gives other pseudonyms
throughout.

Of 128 bits, n different values hold an equal pair with a probability of about n² / 2^129: 1.5e-21 for a thousand
million.
"""

import hmac
import os
import stat
from typing import Final

import pyarrow as pa

from ids_spark.base.errors import InputError
from ids_spark.config.score import ScoreConfig

LENGTH: Final = 32
"""Hex characters of a pseudonym."""
SHORTEST_KEY: Final = 32
"""Characters that a key has at least: `openssl rand -hex 32` gives 64."""
_REMEDY: Final = "make one with: (umask 077; openssl rand -hex 32 > FILE), and set score.pseudonym_key_file=FILE"
_MODES: Final = (0o600, 0o400)
_KEY_NAME: Final = b"ids_spark: which key"


class KeyUnusable(InputError):
    """Raised when the key is absent, too short, or readable by others; the message never holds any of it."""


class Pseudonyms:
    """Values to pseudonyms under one key. Travels to tasks; shows the key nowhere else.

    Args:
        key: The key, at least `SHORTEST_KEY` bytes.

    Raises:
        KeyUnusable: it is shorter.
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) < SHORTEST_KEY:
            raise KeyUnusable(f"the pseudonym key has {len(key)} bytes; expected at least {SHORTEST_KEY}; {_REMEDY}")
        self._key = key

    def __repr__(self) -> str:
        return f"Pseudonyms(key_id={self.key_id!r})"

    @property
    def key_id(self) -> str:
        """Tells keys apart without showing them, in 8 hex characters: nights of one id can be joined."""
        return hmac.digest(self._key, _KEY_NAME, "sha256").hex()[:8]

    def pseudonymised(self, column: pa.Array | pa.ChunkedArray) -> pa.Array:
        """Return the pseudonyms of a column's values, as text of `LENGTH` characters, shape (rows,).

        Null stays null and empty text empty: neither says who it was. Every different value is hashed once.

        Args:
            column: Text, plain or as a dictionary; another type is hashed as Arrow writes its values as text.
        """
        whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        encoded = (whole if pa.types.is_string(whole.type) else whole.cast(pa.string())).dictionary_encode()
        hashed = [
            hmac.digest(self._key, value.encode(), "sha256").hex()[:LENGTH] if value else value
            for value in encoded.dictionary.to_pylist()
        ]
        return pa.array(hashed, pa.string()).take(encoded.indices)


def load_key(settings: ScoreConfig) -> Pseudonyms | None:
    """Return what makes pseudonyms; None where no column is to be pseudonymised, and then no key is looked for.

    A key is text of at least `SHORTEST_KEY` characters, white space around it aside; its UTF-8 bytes are the HMAC key.
    A file wins over the environment variable.

    Raises:
        KeyUnusable: there is no key, it is too short or no text, or its file can be read by others than its owner.
    """
    if not settings.pseudonymise:
        return None
    if settings.pseudonym_key_file is not None:
        return _checked(_of_file(settings.pseudonym_key_file), settings.pseudonym_key_file)
    variable = settings.pseudonym_key_env
    key = os.environ.get(variable, "")
    if not key.strip():
        columns = ", ".join(settings.pseudonymise)
        raise KeyUnusable(
            f"score.pseudonymise names {columns}, but there is no key: score.pseudonym_key_file is not set and the"
            f" environment variable {variable} is {'empty' if variable in os.environ else 'absent'}; {_REMEDY}"
        )
    return _checked(key, f"environment variable {variable}")


def _of_file(name: str) -> str:
    try:
        with open(name, "rb") as file:
            found = os.fstat(file.fileno())
            mode = stat.S_IMODE(found.st_mode)
            if mode not in _MODES:
                raise KeyUnusable(
                    f"{name} has mode {mode:04o}; a key must be readable by its owner alone: expected 0600 or 0400;"
                    f" run chmod 600 {name}, and make a new key if others may have read this one"
                )
            return file.read().decode()
    except OSError as error:
        raise KeyUnusable(f"{name}: {error.strerror}; expected a file with the pseudonym key; {_REMEDY}") from None
    except UnicodeDecodeError:  # its text would show a byte of the key
        raise KeyUnusable(f"{name} holds no UTF-8 text; {_REMEDY}") from None


def _checked(text: str, where: str) -> Pseudonyms:
    key = text.strip()
    if len(key) < SHORTEST_KEY:
        raise KeyUnusable(f"{where}: a key of {len(key)} characters; expected at least {SHORTEST_KEY}; {_REMEDY}")
    try:
        return Pseudonyms(key.encode())
    except UnicodeEncodeError:  # the environment held bytes that are no text
        raise KeyUnusable(f"{where} holds no UTF-8 text; {_REMEDY}") from None
