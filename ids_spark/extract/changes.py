"""Which captures have to be extracted: new and changed ones; and what must not be mixed in one folder of flow logs."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import pyarrow.fs as pafs

from ids_spark.base.errors import InputError
from ids_spark.base.text import shown
from ids_spark.config.extract import ExtractConfig
from ids_spark.extract.capture_files import Capture, key_of, other_name
from ids_spark.extract.manifests import FOLDER, JOINED, ExtractedLogs, Manifest, stamp_of
from ids_spark.ingest.sources import SYNTHETIC_MARK
from ids_spark.lake import filesystem
from ids_spark.lake.parquet import SUFFIX

EXTRACTOR: Final = 2
"""Incremented when the same capture gives other rows, so that captures are extracted again."""
_MARK: Final = {"synthetic": True, "flow_logs": True, "data_origin": "synthetic"}
_NAMES_SHOWN: Final = 5


@dataclass(frozen=True)
class Changes:
    """The captures of a folder by what has to be done.

    Attributes:
        changed: Captures to extract, each with its stamp.
        unchanged: Manifests of the others.
        vanished: Names of captures that were extracted before and are no longer there, but their logs are.
    """

    changed: tuple[tuple[Capture, str], ...]
    unchanged: tuple[Manifest, ...]
    vanished: tuple[str, ...]


def changes(
    captures: Sequence[Capture],
    config: ExtractConfig,
    names: Mapping[int, str],
    data_origin: str,
    logs: ExtractedLogs,
    name_of: Callable[[str], str] = str,
) -> Changes:
    """Compare captures with the manifests of earlier runs.

    Args:
        captures: All of the folder, also those of other dates than `config.date`.
        config: Settings.
        names: Names of devices by key.
        data_origin: `measured` or `synthetic`.
        logs: The flow logs.
        name_of: Returns by which name a message calls a capture.

    Raises:
        InputError: the logs hold rows of captures of these names in another folder that is still there.
    """
    keys = {capture.key for capture in captures}
    known = logs.keys()
    manifests = logs.manifests(key for key in known if key != JOINED)
    _refuse_other_folder(captures, manifests, logs.root, name_of)
    present = logs.present()
    changed, unchanged = [], []
    for capture in captures:
        if config.date is not None and capture.date not in (None, config.date):
            continue
        stamp = stamp_of(capture, settings_of(capture, config, names, data_origin))
        manifest = manifests.get(capture.key)
        if manifest is None or config.again or not manifest.is_current(stamp, config.date, present):
            changed.append((capture, stamp))
        else:
            unchanged.append(manifest)
    vanished = sorted(each.capture for key, each in manifests.items() if key not in keys and each.dates)
    return Changes(tuple(changed), tuple(unchanged), tuple(vanished))


def without_repacked(vanished: Sequence[str], captures: Sequence[Capture], logs: ExtractedLogs) -> list[str]:
    """Remove the logs of captures that gzip has packed (or unpacked) since they were extracted; return other names.

    A program that rotates captures packs each when it is complete, so that a run may have read a part of it before.

    Args:
        vanished: Names of captures that are no longer there.
        captures: Those that are; the rows of each are complete.
        logs: The flow logs.
    """
    names, staying = {capture.name for capture in captures}, []
    for name in vanished:
        new = logs.manifest(key_of(other_name(name))) if other_name(name) in names else None
        old = logs.manifest(key_of(name))
        if old is None or new is None or new.fault or not new.stamp:
            staying.append(name)
            continue
        kept = {date: each for date, each in old.dates.items() if date not in new.dates}
        removed = [path for date, each in old.dates.items() if date in new.dates for path in each.files]
        logs.replace(key_of(name), replace(old, stamp="", seen=sorted(kept), dates=kept), [], removed)
        staying += [name] if kept else []
    return staying


def _refuse_other_folder(
    captures: Sequence[Capture], manifests: Mapping[str, Manifest], root: str, name_of: Callable[[str], str]
) -> None:
    """Raise `InputError` if captures would take the place of others; those of a folder that was moved may."""
    others = {
        capture.name: manifests[capture.key].folder
        for capture in captures
        if capture.key in manifests and manifests[capture.key].folder not in ("", capture.folder)
    }
    taken = [name for name, folder in others.items() if filesystem.exists(f"{folder}/{name}")]
    if taken:
        folder = others[taken[0]]
        names = shown([name_of(name) for name in taken], _NAMES_SHOWN)
        raise InputError(
            f"{root} holds the flow logs of {names} of {folder}, which captures of the same names"
            f" in {captures[0].folder} would replace; expected one folder of captures for one folder of flow"
            " logs; set extract.target (with make: LAKE), or give a folder that holds both"
        )


def joined_stamp(captures: Sequence[Capture], config: ExtractConfig, names: Mapping[int, str], data_origin: str) -> str:
    """Return a text that changes with any of the captures and with the settings that decide their rows."""
    stamps = [stamp_of(capture, settings_of(capture, config, names, data_origin)) for capture in captures]
    return hashlib.sha256("".join(stamps).encode()).hexdigest()[: len(stamps[0])]


def joined_is_current(stamp: str, config: ExtractConfig, logs: ExtractedLogs) -> bool:
    """Return whether the logs of all captures together are those of captures that have not changed."""
    manifest = logs.manifest(JOINED)
    return not config.again and manifest is not None and manifest.is_current(stamp, config.date, logs.present())


def settings_of(capture: Capture, config: ExtractConfig, names: Mapping[int, str], data_origin: str) -> dict[str, Any]:
    """Return the settings that decide the rows of a capture."""
    divided = capture.divisible and capture.size > config.piece_mb * 1_000_000
    return {
        "extractor": EXTRACTOR,
        "window": config.window,
        "by": config.by,
        "device": config.device,
        "networks": config.networks,
        "names": sorted(names.items()),
        "piece_mb": config.piece_mb if divided else None,
        "data_origin": data_origin,
    }


def refuse_target(captures: str, target: str) -> None:
    """Raise `InputError` if the flow logs would be written among the captures."""
    (fs, above), (other, below) = filesystem.resolve(captures), filesystem.resolve(target)
    if isinstance(fs, pafs.LocalFileSystem):
        above, below = os.path.realpath(above), os.path.realpath(below)
    if fs.equals(other) and f"{below.rstrip('/')}/".startswith(f"{above.rstrip('/')}/"):
        raise InputError(
            f"extract.target is {below}, in the folder of captures {above}; expected a folder elsewhere; set"
            " extract.target to another one"
        )


def data_origin_of(captures: str, target: str) -> str:
    """Return `synthetic` if the captures are marked so, else `measured`.

    Raises:
        InputError: the target holds flow logs of the other origin, which one folder cannot state for each row.
    """
    captures, target = captures.rstrip("/"), target.rstrip("/")
    synthetic = filesystem.exists(f"{captures}/{SYNTHETIC_MARK}")
    marked = filesystem.exists(f"{target}/{SYNTHETIC_MARK}")
    logs = [] if synthetic == marked else _logs_in(target)
    if logs or (marked and not synthetic):
        found, other = ("measured", "synthetic") if synthetic else ("synthetic", "measured")
        raise InputError(
            f"{target} holds {found} flow logs ({shown(logs, _NAMES_SHOWN) or SYNTHETIC_MARK}), but the captures are"
            f" {other}; expected one origin in one folder; set extract.target to another folder"
        )
    return "synthetic" if synthetic else "measured"


def mark_synthetic(target: str) -> None:
    """Mark the flow logs as synthetic; before the first row, so that no row is mistaken for a measured one."""
    uri = f"{target.rstrip('/')}/{SYNTHETIC_MARK}"
    if not filesystem.exists(uri):
        filesystem.write_json(uri, _MARK)


def refuse_other_joining(logs: ExtractedLogs, join_files: bool) -> None:
    """Raise `InputError` if the logs were extracted with the other value of `extract.join_files`.

    Their rows would stand beside the new ones, for the same packets.
    """
    keys = logs.keys()
    if keys and (JOINED in keys) != join_files:
        raise InputError(
            f"{logs.root} was extracted {'without' if join_files else 'with'} extract.join_files; expected the same for"
            f" all its flow logs; set extract.join_files={str(not join_files).lower()}, or another extract.target"
        )


def _logs_in(target: str) -> list[str]:
    names = sorted(name for name in filesystem.sizes_in(target) if name.endswith(SUFFIX))
    return [name for name in names if not name.startswith(f"{FOLDER}/")]
