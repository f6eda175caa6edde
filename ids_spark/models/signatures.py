"""Signatures of models and aliases: Ed25519 (RFC 8032), so that only the owner of a key puts a model in use.

`signature.json` beside a manifest signs name, version and the hash of the manifest, which has the hash of every other
file. `_aliases.sig.json` beside `_aliases.json` signs the name of the model and the hash of that file. What is signed
begins with its kind, so that neither passes for the other.

A signature has no time: an older file of aliases with its own signature is genuine. It is recognised by the audit,
where every run that wrote or used aliases states their newest change.
"""

import datetime as dt
import functools
import hashlib
import json
import logging
import os
import re
import stat
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field

from ids_spark.base import json_text, whole_file
from ids_spark.base.errors import InputError
from ids_spark.base.text import one_line
from ids_spark.config.score import Section
from ids_spark.lake.filesystem import absolute, exists, files_in, read_bytes, write_bytes
from ids_spark.lake.parquet import SUFFIX, read_row
from ids_spark.lake.store import Lake
from ids_spark.models.artifact import ModelUnusable

log = logging.getLogger(__name__)

MODEL_SIGNATURE: Final = "signature.json"
ALIASES_SIGNATURE: Final = "_aliases.sig.json"
ENVIRONMENT: Final = "env:"
"""Begins a `train.sign_key` that names an environment variable."""
Kind = Literal["model", "aliases"]
_MODES: Final = (0o600, 0o400)
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_RAW_BYTES: Final = 32
_LARGEST: Final = 65_536  # bytes of a key or signature
_MAKE_PRIVATE: Final = (
    "make one with: (umask 077; openssl genpkey -algorithm ed25519 -out KEY), and set train.sign_key=KEY"
)
_MAKE_PUBLIC: Final = "make it from the private key with: openssl pkey -in KEY -pubout -out FILE"
_RECORDED_BY: Final[Mapping[str, int | None]] = {"promote": None, "adapt": None, "score": 10}
"""Audit rows of each job in which a run looks up the state of aliases: all, or so many of the newest that can be read.
Only promotions and adaptations, which are few, change aliases where signatures are checked."""
_LATER: Final = dt.timedelta(hours=1)
"""Clocks of machines differ by less. Beyond it a row was inserted, and would end every night."""
_READERS: Final = 16


class SignKeyUnusable(InputError):
    """Raised when the private key is absent, no Ed25519 key, or readable by others; the message never contains it."""


class TrustedKeyUnusable(InputError):
    """Raised when a file of a public key cannot be read, is no key, is in the lake, or can be written by others."""


class SignatureRefused(ModelUnusable):
    """Raised when a model or a file of aliases is not signed by a trusted key, or is not what was signed."""


class NotSigned(SignatureRefused):
    """Raised when there is no signature, or one of an unknown key."""


class SignKey:
    """A private key. It stays in the driver: it cannot be pickled, and its `repr` does not contain it."""

    __slots__ = ("_key", "key_id")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.key_id = key_id_of(key.public_key())

    def __repr__(self) -> str:
        return f"SignKey(key_id={self.key_id!r})"

    def __reduce__(self) -> str:
        raise TypeError("the private key of signatures stays in the driver")

    def trust(self, lake: Lake) -> "Trust":
        """Return a trust in this key alone, for what the run itself has signed."""
        return Trust(lake, {self.key_id: self._key.public_key()})

    def sign(self, kind: Kind, signed: Mapping[str, str]) -> bytes:
        """Return the content of the file with the signature of a model or of aliases."""
        signature = self._key.sign(_message(kind, signed)).hex()
        content = {"format": 1, "algorithm": "Ed25519", "key": self.key_id, "signed": dict(signed)}
        return (json.dumps(content | {"signature": signature}, indent=2) + "\n").encode()


class _Signature(Section):
    """The content of a file with a signature."""

    format: Literal[1]
    algorithm: Literal["Ed25519"]
    key: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    signed: dict[str, str]
    signature: Annotated[str, Field(pattern="^[0-9a-f]{128}$")]


def key_id_of(key: Ed25519PublicKey) -> str:
    """Return the id of a public key: the first 16 hex characters of the SHA-256 of its 32 bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _message(kind: Kind, signed: Mapping[str, str]) -> bytes:
    return f"ids_spark signature of {kind}, version 1\n".encode() + json.dumps(dict(signed), sort_keys=True).encode()


def of_model(name: str, version: str, manifest_sha256: str) -> dict[str, str]:
    """Return what the signature of a model signs."""
    return {"model": name, "version": version, "manifest_sha256": manifest_sha256}


def of_aliases(name: str, content: bytes) -> dict[str, str]:
    """Return what the signature of a file of aliases signs."""
    return {"model": name, "aliases_sha256": hashlib.sha256(content).hexdigest()}


def sign_model(uri: str, key: SignKey, name: str, version: str, manifest_sha256: str) -> None:
    """Write the signature of a model into its directory.

    Args:
        uri: The directory, staged or not.
        key: The private key.
        name: Of the model.
        version: Of the model.
        manifest_sha256: As the one who wrote the model states it, not as read from the directory.
    """
    write_bytes(f"{uri}/{MODEL_SIGNATURE}", key.sign("model", of_model(name, version, manifest_sha256)))


def key_named_in(uri: str) -> str | None:
    """Return the id of the key that a model directory names as the one that signed it; nothing is checked.

    Returns:
        None if it is not signed, or the file cannot be parsed.
    """
    try:
        return _Signature.model_validate_json(json_text.checked(read_bytes(f"{uri}/{MODEL_SIGNATURE}"))).key
    except (OSError, ValueError):
        return None


def load_sign_key(setting: str | None) -> SignKey | None:
    """Return the private key of `train.sign_key`; None if it is not set.

    A key is PEM (PKCS 8, without a password), or its 32 bytes as such or as 64 hexadecimal digits.

    Raises:
        SignKeyUnusable: it cannot be read, is no Ed25519 key, or users other than its owner may read its file.
    """
    if setting is None:
        return None
    if not setting.startswith(ENVIRONMENT):
        return _private(_private_file(setting), setting)
    name = setting.removeprefix(ENVIRONMENT)
    if not os.environ.get(name):
        raise SignKeyUnusable(f"train.sign_key is {setting}, but there is no such variable; {_MAKE_PRIVATE}")
    return _private(os.environb[name.encode()], f"environment variable {name}")


def _private_file(name: str) -> bytes:
    try:
        content, mode = whole_file.read_with_mode(name, _LARGEST)
        if mode not in _MODES:
            raise SignKeyUnusable(
                f"{name} has mode {mode:04o}; only its owner may read a private key: expected 0600 or 0400; run"
                f" chmod 600 {name}, and make a new key if others may have read this one"
            )
        return content
    except whole_file.FileTooLarge as error:
        raise SignKeyUnusable(f"train.sign_key is {error.args[0]}; {_MAKE_PRIVATE}") from None
    except OSError as error:
        raise SignKeyUnusable(f"train.sign_key is {name}: {error.strerror}; {_MAKE_PRIVATE}") from None


def _private(content: bytes, where: str) -> SignKey:
    """Return the key of a file or variable; no error shows anything of it."""
    found: object = None
    text = content.strip()
    try:
        if text.startswith(b"-----BEGIN"):
            found = serialization.load_pem_private_key(text, password=None)
        elif re.fullmatch(rb"[0-9a-fA-F]{64}", text):
            found = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(text.decode()))
        elif len(content) == _RAW_BYTES:
            found = Ed25519PrivateKey.from_private_bytes(content)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        pass
    if not isinstance(found, Ed25519PrivateKey):
        raise SignKeyUnusable(f"{where} is no Ed25519 private key without a password; {_MAKE_PRIVATE}") from None
    return SignKey(found)


@dataclass(frozen=True)
class Signing:
    """How a run that writes models or aliases signs them, and what it accepts; nothing where no key is set."""

    key: SignKey | None = None
    trust: "Trust | None" = None


def open_signing(lake: Lake, trusted_keys: Sequence[str], sign_key: str | None) -> Signing:
    """Return the keys of a run that writes aliases, from `score.trusted_keys` and `train.sign_key`.

    Raises:
        SignKeyUnusable: as `load_sign_key`; or what the run writes would not be trusted.
        TrustedKeyUnusable: as `open_trust`.
    """
    trust, key = open_trust(lake, trusted_keys), load_sign_key(sign_key)
    if trust is None or (key is not None and key.key_id in trust.keys):
        return Signing(key, trust)
    found = "is not set" if key is None else f"is the key {key.key_id}"
    raise SignKeyUnusable(
        f"train.sign_key {found}, so that aliases of this run would be refused; expected a key whose public key is in"
        f" score.trusted_keys ({', '.join(sorted(trust.keys))})"
    )


def open_trust(lake: Lake, files: Sequence[str]) -> "Trust | None":
    """Return what a run accepts, from `score.trusted_keys`; None without keys: then no signature is checked.

    Raises:
        TrustedKeyUnusable: a file cannot be read, holds no Ed25519 public key in PEM, is below the lake's root, or
            others may write it or, as all users may write its folder, replace it.
    """
    return Trust(lake, public_keys(files, lake.root)) if files else None


def public_keys(files: Sequence[str], lake: str) -> dict[str, Ed25519PublicKey]:
    """Return the public keys of `score.trusted_keys` by id; lake: root of the lake, which is not read.

    Raises:
        TrustedKeyUnusable: as `open_trust`.
    """
    keys = [_public(absolute(name), lake) for name in files]
    return {key_id_of(key): key for key in keys}


def _public(name: str, lake: str) -> Ed25519PublicKey:
    path = os.path.realpath(name.removeprefix("file://"))
    root = lake.removeprefix("file://")
    if root.startswith("/") and Path(path).is_relative_to(os.path.realpath(root)):
        raise TrustedKeyUnusable(
            f"score.trusted_keys lists {name}, which is in the lake {lake}: whoever can write models there could"
            " replace it; move it to another folder"
        )
    try:
        content, mode = whole_file.read_with_mode(path, _LARGEST, name)
    except whole_file.FileTooLarge as error:
        raise TrustedKeyUnusable(f"score.trusted_keys lists {error.args[0]}; {_MAKE_PUBLIC}") from None
    except OSError as error:
        raise TrustedKeyUnusable(
            f"score.trusted_keys lists {name}: {error.strerror}; expected a public key; {_MAKE_PUBLIC}"
        ) from None
    if mode & _OTHERS_WRITE:
        raise TrustedKeyUnusable(
            f"{name} has mode {mode:04o}; only its owner may write a trusted key; compare its content with the"
            f" original, and run chmod go-w {name}"
        )
    folder = stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode)
    if folder & stat.S_IWOTH and not folder & stat.S_ISVTX:
        raise TrustedKeyUnusable(
            f"{name} is in a folder of mode {folder:04o}, where every user can replace it; compare its content with the"
            f" original, and run chmod o-w {os.path.dirname(path)}"
        )
    if b"PRIVATE KEY" in content:
        raise TrustedKeyUnusable(f"{name} holds a private key; expected the public one; {_MAKE_PUBLIC}")
    try:
        found = serialization.load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        found = None
    if not isinstance(found, Ed25519PublicKey):
        raise TrustedKeyUnusable(f"{name} is no Ed25519 public key in PEM; {_MAKE_PUBLIC}") from None
    return found


def stated_key(uri: str) -> str | None:
    """Return the id of the key that a signature states, without a check; None without a signature that can be read."""
    try:
        return _parsed(uri).key if exists(uri) else None
    except SignatureRefused:
        return None


@dataclass(frozen=True)
class Trust:
    """Keys whose signatures a run accepts.

    Attributes:
        lake: Whose models are checked.
        keys: Public keys by id.
        thorough: Look up the state of aliases in all audit rows, not only in the newest ones.
    """

    lake: Lake
    keys: Mapping[str, Ed25519PublicKey]
    thorough: bool = False

    def require_model(self, uri: str, name: str, version: str, manifest_sha256: str) -> None:
        """Check the signature of a model that was read.

        Args:
            uri: Its directory.
            name: Under which it is to be used.
            version: Under which it is to be used.
            manifest_sha256: Of the manifest that was read.

        Raises:
            SignatureRefused: it is not signed, not by a trusted key, or something else was signed.
        """
        remedy = (
            "train it again with train.sign_key, or, if you know that it is as it was trained, sign it: jobs/promote.py"
            f" --set promote.model={name} --set promote.version={version} --set promote.sign=true"
        )
        self._require(f"{uri}/{MODEL_SIGNATURE}", uri, "model", of_model(name, version, manifest_sha256), remedy)

    def require_aliases(self, name: str, content: bytes | None, newest: dt.datetime | None) -> None:
        """Check a file of aliases that was read, and that it is no older one than runs have used.

        Args:
            name: Of the model.
            content: Of the file; None if there is none.
            newest: Time of its newest change; None without one.

        Raises:
            SignatureRefused: it is not signed, not by a trusted key, something else was signed, it was removed, or it
                is older than one that was used.
        """
        uri = self.lake.uri(f"models/{name}/_aliases.json")
        remedy = (
            "restore the file, or, if you know what it should be, promote again: jobs/promote.py --set"
            f" promote.model={name} --set promote.version=VERSION --set promote.sign=true"
        )
        recorded = self._recorded.get(name)
        if content is None:
            if recorded is not None:
                raise SignatureRefused(
                    f"{uri} is missing; audit row {recorded[1]} names a change of {recorded[0]:%Y-%m-%d %H:%M:%S}: it"
                    f" was removed; {remedy}"
                )
            return
        signature = self.lake.uri(f"models/{name}/{ALIASES_SIGNATURE}")
        self._require(signature, uri, "aliases", of_aliases(name, content), remedy)
        if recorded is not None and (newest is None or newest < recorded[0]):
            raise SignatureRefused(
                f"{uri} is an older one that was put back: its newest change is of"
                f" {newest or 'no time'}, audit row {recorded[1]} names one of {recorded[0]}; {remedy}"
            )

    def promoted(self) -> list[str]:
        """Return the names of the models whose aliases earlier runs have used or written, sorted."""
        return sorted(self._recorded)

    def _require(self, uri: str, of: str, kind: Kind, expected: Mapping[str, str], remedy: str) -> None:
        trusted = f"expected a signature of a key in score.trusted_keys ({', '.join(sorted(self.keys))})"
        if not exists(uri):
            raise NotSigned(f"{of} is not signed ({uri} is missing); {trusted}; {remedy}")
        found = _parsed(uri)
        if found.key not in self.keys:
            raise NotSigned(
                f"{of} is signed by the key {found.key}, which is unknown; {trusted}; add its public key if it is"
                f" yours, else {remedy}"
            )
        try:
            self.keys[found.key].verify(bytes.fromhex(found.signature), _message(kind, found.signed))
        except InvalidSignature:
            raise SignatureRefused(f"{uri} is no signature of the key {found.key}: it was edited; {remedy}") from None
        if found.signed == expected:
            return
        named = [name for name in ("model", "version") if found.signed.get(name) != expected.get(name)]
        if named:
            stated, own = (
                " version ".join(d[n] for n in ("model", "version") if n in d) for d in (found.signed, expected)
            )
            raise SignatureRefused(f"{uri} is the signature of {stated}, not of {own}: it was copied; {remedy}")
        raise SignatureRefused(f"{of} was changed after it was signed by the key {found.key}; {remedy}")

    @functools.cached_property
    def _recorded(self) -> Mapping[str, tuple[dt.datetime, str]]:
        """Newest change of the aliases of each model that an earlier run states, and the audit row."""
        uris = files_in(self.lake.uri("audit"), SUFFIX)
        of_jobs = {None: uris} if self.thorough else {job: _of_job(uris, job) for job in _RECORDED_BY}
        found: dict[str, tuple[dt.datetime, str]] = {}
        with ThreadPoolExecutor(_READERS) as pool:
            for job, own in of_jobs.items():
                most = len(own) if job is None else _RECORDED_BY[job] or len(own)
                for uri, states in _newest_states(pool, own, most):
                    for model, changed_at in states:
                        state = changed_at, uri.rsplit("/", 1)[1]
                        found[model] = max(found.get(model, state), state)
        return found


def _of_job(uris: Sequence[str], job: str) -> list[str]:
    return [uri for uri in uris if uri.endswith(f"-{job}{SUFFIX}")]


_States = list[tuple[str, dt.datetime]]


def _newest_states(pool: ThreadPoolExecutor, uris: Sequence[str], most: int) -> list[tuple[str, _States]]:
    """Return what the newest audit rows state of aliases; a file that cannot be read takes the place of no other."""
    found: list[tuple[str, _States]] = []
    left = list(uris)
    while left and (lacking := most - len(found)) > 0:
        read, left = left[-lacking:], left[:-lacking]
        states = zip(read, pool.map(_aliases_of, read), strict=True)
        found += [(uri, own) for uri, own in states if own is not None]
    return found


def _aliases_of(uri: str) -> _States | None:
    """Return what an audit row states of aliases, nothing for rows of older versions; None for a damaged file."""
    try:
        states = [(each["model"], each["changed_at"]) for each in read_row(uri, ["aliases"]).get("aliases") or ()]
        if not all(isinstance(model, str) for model, _ in states):
            raise ValueError("the name of a model is no text")
        if any(at - dt.datetime.now(dt.UTC) > _LATER for _, at in states):
            raise ValueError("it states a time that is to come")
    except (OSError, ValueError, TypeError, KeyError) as error:  # TypeError: no time, or one without a zone
        log.warning("the state of aliases in an audit row cannot be used uri=%s error=%s", uri, one_line(error))
        return None
    return states


def _parsed(uri: str) -> _Signature:
    try:
        return _Signature.model_validate_json(json_text.checked(read_bytes(uri, _LARGEST)))
    except (ValueError, OSError) as error:
        reason = one_line(error)
        raise SignatureRefused(f"{uri} is no file of a signature ({reason}); restore it, or sign again") from error
