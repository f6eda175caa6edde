"""The configuration of a run: YAML files and `--set key=value`, checked completely before Spark starts.

Every key has a default, so a file holds only values that differ from it. Later files and `--set` override earlier ones.
A relative name of a policy, key or inventory (`NAMED_FILES`) in a file is looked for in the working folder, then where
the file is (`_beside`).
"""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from ids_spark.base.errors import InputError
from ids_spark.config.settings import Config
from ids_spark.config.yaml_file import described, parse_value, read

log = logging.getLogger(__name__)

RENAMED: Final[Mapping[str, str]] = {"alerts.per_night": "alerts.most_lines"}
"""Settings of 0.2 that were renamed: old name to new name. Old names give a warning; 0.4 will remove them."""
NAMED_FILES: Final = (
    *("alerts.allow_list", "alerts.severity_policy", "extract.inventory", "score.inventory"),
    *("score.pseudonym_key_file", "score.trusted_keys", "train.sign_key"),
)
"""Settings that name files which belong to a configuration, unlike the places of flows and tables."""


class ConfigError(InputError):
    """Raised when the configuration is invalid; the message lists every fault."""


def load(files: Sequence[str], settings: Sequence[str]) -> Config:
    """Read YAML files in order, then `key.path=value` settings, and check the result.

    Raises:
        ConfigError: lists every unknown key, wrong value and unreadable file at once.
    """
    merged: dict[str, Any] = {}
    faults: list[str] = []
    for name in files:
        try:
            _merge(merged, _with_places(_renamed(_read(name)), name))
        except InputError as error:
            faults.append(str(error))
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            faults.append(f"--set {setting!r}: expected key=value, for example train.epochs=5")
            continue
        try:
            parsed = parse_value(value, f"--set {setting!r}", ConfigError)
        except ConfigError as error:
            faults.append(str(error))
            continue
        for part in reversed(key.strip().split(".")):
            parsed = {part: parsed}
        _merge(merged, _renamed(parsed))
    config, found = None, len(faults)
    try:
        config = Config.model_validate(merged)
    except ValidationError as error:
        found = len(faults) + error.error_count()
        faults += described(error, Config)
    if faults or config is None:
        raise ConfigError(f"configuration has {found} fault(s):", *faults)
    return config


def _read(name: str) -> dict[str, Any]:
    content = read(name, ConfigError)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{name}: found {type(content).__name__}, expected keys with values")
    return content


def _with_places(content: dict[str, Any], name: str) -> dict[str, Any]:
    """Return settings of a configuration file in which files that are not in the working folder have a whole path.

    A file that is nowhere keeps its name, with a warning: only the jobs that use it refuse it.
    """
    for setting in NAMED_FILES:
        folder, key = setting.split(".")
        section = content.get(folder)
        if not isinstance(section, dict):
            continue
        value = section.get(key)
        if isinstance(value, list):
            section[key] = [_found(each, setting, name) for each in value]
        elif value is not None:
            section[key] = _found(value, setting, name)
    return content


def _found(value: Any, setting: str, name: str) -> Any:
    """Return the path of a file that a configuration file names; URIs, and values that are no text, are unchanged."""
    if not isinstance(value, str) or not value or ":" in value.split("/", 1)[0] or os.path.lexists(value):
        return value
    if os.path.isabs(value):
        return value
    other = _beside(name)
    if os.path.lexists(other / value):
        return str(other / value)
    log.warning("%s: %s of %s is neither in %s, the working folder, nor in %s", setting, value, name, Path.cwd(), other)
    return value


def _beside(name: str) -> Path:
    """Return the folder from which a configuration file names files: that above its `conf` folder, else its own."""
    own = Path(name).absolute().parent
    return next((folder.parent for folder in (own, *own.parents) if folder.name == "conf"), own)


def _renamed(content: dict[str, Any]) -> dict[str, Any]:
    """Return settings under their present names; logs a warning for each old name."""
    for old, new in RENAMED.items():
        *folder, key = old.split(".")
        section: Any = content
        for part in folder:
            section = section.get(part) if isinstance(section, Mapping) else None
        if isinstance(section, dict) and key in section:
            log.warning("setting %s is now called %s; version 0.4 will refuse the old name", old, new)
            target = content
            *folder, name = new.split(".")
            for part in folder:
                target = target.setdefault(part, {})
            _merge(target, {name: section.pop(key)})
    return content


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value
