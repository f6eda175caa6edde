"""Checks a configuration, and the policies, keys and places that it names, as the jobs do.

It needs neither Spark nor the lake. What depends on models, flows or the lake is not known here; the jobs check it.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from ids_spark.base.errors import InputError
from ids_spark.config.loader import ConfigError, load
from ids_spark.config.settings import Config
from ids_spark.config.yaml_file import read

_NIGHTS: Final = ("score", "verdict", "adapt")
_SIGNING: Final = ("train", "boost", "blend", "adapt", "promote")
_TRUSTING: Final = (*_NIGHTS, "promote", "blend", "verify")
_CONFIGURATION: Final = "configuration"
Check = Callable[[], object]


def check_job(job: str, files: Sequence[str], settings: Sequence[str]) -> tuple[list[str], list[InputError]]:
    """Return what was checked for a job, one text each, and all faults.

    Args:
        job: Its name.
        files: As `--config` of the job.
        settings: As `--set` of the job.
    """
    try:
        config = load(files, settings)
    except InputError as error:
        return [], [error]
    checked, faults = ["settings"], []
    for name, check in _named_files(job, config):
        try:
            check()
            checked.append(name)
        except InputError as error:
            faults.append(error)
    return checked, faults


def check_file(name: str) -> str:
    """Return what a file is: a configuration, a severity policy, an allow-list, an inventory, or of no job.

    Raises:
        InputError: it is not valid.
    """
    if name.lower().endswith(".csv"):
        _inventory(name)()
        return "inventory"
    kind = _kind_of(read(name, ConfigError))
    checks: Mapping[str, Check] = {
        _CONFIGURATION: lambda: load([name], []),
        "severity policy": _severity(name),
        "allow-list": _allow_list(name, Config()),
    }
    if kind in checks:
        checks[kind]()
    return kind


def _kind_of(content: Any) -> str:
    if isinstance(content, list) or (isinstance(content, dict) and "entries" in content):
        return "allow-list"
    if isinstance(content, dict) and "categories" in content:
        return "severity policy"
    if isinstance(content, dict) and {"looked_up", "findings"} <= content.keys():
        return "list of known vulnerabilities, for make audit-deps; not checked"
    return _CONFIGURATION


def _named_files(job: str, config: Config) -> Iterable[tuple[str, Check]]:
    """Yield the name and the check of each policy, key or place that a job uses."""
    score, alerts = config.score, config.alerts
    if config.export.delta is not None or job == "export":
        yield "place of the Delta tables", _delta(config)
    if job in (*_NIGHTS, "extract") or (job in ("ingest", "prepare") and config.ingest.local):
        yield "key of pseudonyms", _pseudonym_key(config)
    if job == "extract" and config.extract.inventory is not None:
        yield f"inventory {config.extract.inventory}", _inventory(config.extract.inventory)
    if job in _NIGHTS:
        if score.inventory is not None:
            yield f"inventory {score.inventory}", _inventory(score.inventory)
        if alerts.severity_policy is not None:
            yield f"severity policy {alerts.severity_policy}", _severity(alerts.severity_policy)
        if alerts.allow_list is not None:
            yield f"allow-list {alerts.allow_list}", _allow_list(alerts.allow_list, config)
    if job == "verdict":
        yield "verdicts", _verdicts(config)
    if config.train.sign_key is not None and job in _SIGNING:
        yield "key of signatures", _sign_key(config.train.sign_key)
    if score.trusted_keys and job in _TRUSTING:
        yield "trusted keys", _trusted_keys(config)


# Modules of the policies are imported where they are needed: they take longer than everything else here.


def _delta(config: Config) -> Check:
    def check() -> None:
        from ids_spark.lake.delta import require_target
        from ids_spark.lake.filesystem import absolute

        require_target(config.export.target(), absolute(config.lake))

    return check


def _pseudonym_key(config: Config) -> Check:
    def check() -> None:
        from ids_spark.alerts.pseudonyms import load_key

        load_key(config.score)

    return check


def _inventory(name: str) -> Check:
    def check() -> None:
        from ids_spark.extract.inventory import read_inventory
        from ids_spark.lake.filesystem import absolute

        read_inventory(absolute(name))

    return check


def _severity(name: str) -> Check:
    def check() -> None:
        from ids_spark.alerts.severity import read_severity_policy

        read_severity_policy(name)

    return check


def _allow_list(name: str, config: Config) -> Check:
    def check() -> None:
        from ids_spark.alerts.allow_list import read_allow_list

        columns = [column for column in config.score.pass_through if column != config.score.event_time]
        read_allow_list(name, dt.datetime.now(dt.UTC).date(), columns)

    return check


def _verdicts(config: Config) -> Check:
    def check() -> None:
        from ids_spark.alerts import verdict_lines

        verdict_lines.refuse(verdict_lines.read(config.verdict, dt.datetime.now(dt.UTC).date())[1])

    return check


def _sign_key(name: str) -> Check:
    def check() -> None:
        from ids_spark.models.signatures import load_sign_key

        load_sign_key(name)

    return check


def _trusted_keys(config: Config) -> Check:
    def check() -> None:
        from ids_spark.lake.filesystem import absolute
        from ids_spark.models.signatures import public_keys

        public_keys(config.score.trusted_keys, absolute(config.lake))

    return check
