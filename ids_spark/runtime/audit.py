"""The audit row of a run."""

import datetime as dt
import os
import pwd
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa

from ids_spark.base.errors import InputError, Interrupted
from ids_spark.base.packaging import code_version
from ids_spark.base.report import Report
from ids_spark.config.settings import Config
from ids_spark.dataset.tables import AUDIT
from ids_spark.lake.store import Lake
from ids_spark.runtime import chain
from ids_spark.score.identifiers import identifiers_of

Status = Literal["done", "degraded", "refused", "failed"]
_LOGIN: Final = Path("/proc/self/loginuid")
_NO_LOGIN: Final = 2**32 - 1
_IDENTIFYING: Final = re.compile(
    r"""(?<!\w)'(?:[^'\\]|\\.)*'(?!\w) | "(?:[^"\\]|\\.)*"
    | (?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\w) | (?<!\w)(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}(?!\w)""",
    re.VERBOSE,
)
"""Quoted texts, IPv4 and Ethernet addresses."""


@dataclass(frozen=True)
class AuditRow:
    """A row that was written.

    Attributes:
        path: Below the root of the lake.
        sha256: Its hash, by which later rows name it.
    """

    path: str
    sha256: str


def write_audit_row(
    lake: Lake,
    staged: Callable[[str], str] | None,
    job: str,
    run_id: str,
    started: dt.datetime,
    config: Config,
    report: Report,
    status: Status,
    error: str | None = None,
) -> AuditRow:
    """Write the one row of a run in `audit/`, as a parquet file; in place, the file appears with its whole content.

    Args:
        lake: The lake of the run.
        staged: Returns the URI of the staged version of a path; None: written in place.
        job: Name of the job.
        run_id: Of the run.
        started: Start of the run, UTC.
        config: Of the run; holds no secret.
        report: Facts of the run.
        status: How the run ended.
        error: Message of the failure or refusal.
    """
    finished = dt.datetime.now(dt.UTC)
    counts = [
        {"split": split, "class_name": name, "what": what, "rows": n}
        for (what, split, name), n in report.counts.items()
    ]
    row: dict[str, Any] = {
        "run_id": run_id,
        "job": job,
        "status": status,
        "started_at": started,
        "finished_at": finished,
        "seconds": (finished - started).total_seconds(),
        "rows_in": report.rows_in,
        "rows_out": report.rows_out,
        "rows_quarantined": report.rows_quarantined,
        "rows_duplicate": report.rows_duplicate,
        "rows_joined": report.rows_joined,
        "rows_left_out": report.rows_left_out,
        "rows_imputed": report.rows_imputed,
        "counts": counts,
        "notes": report.notes,
        "models": report.models,
        "inputs": report.inputs,
        "feature_schema": report.feature_schema,
        "data_origin": report.data_origin,
        "config": config.as_json(),
        "config_sha256": config.sha256(),
        "code_version": code_version(),
        "error": error,
        "aliases": [
            {"model": model, "changed_at": changed_at, "sha256": sha256}
            for model, (changed_at, sha256) in sorted(report.aliases.items())
        ],
        "actor": actor(),
        "host": socket.gethostname(),
        "previous": chain.heads(lake),
    }
    [stored] = pa.Table.from_pylist([row], schema=AUDIT).to_pylist()  # as it will be read, for its hash
    stored["sha256"] = chain.sha256_of(stored)
    return AuditRow(lake.write("audit", [stored], staged, run_id=run_id, job=job), stored["sha256"])


def text_of(error: Exception, config: Config) -> str:
    """Return the message of an error for the audit, which no purge removes.

    If identifiers have pseudonyms, addresses and quoted texts are replaced by theirs. Of messages that may hold more,
    and of errors that are no refusals, the class remains: the message is in the log.
    """
    kind = type(error).__name__
    whole = str(error) if isinstance(error, InputError) else f"{kind}: {error}"
    try:
        pseudonyms = identifiers_of(config.score).pseudonyms
    except InputError as unusable:  # there is a key, but it cannot be read
        return whole if str(unusable) == str(error) else kind
    if pseudonyms is None:
        return whole
    if not isinstance(error, InputError | Interrupted) or getattr(error, "quotes_identifiers", False):
        return f"{kind}: the message may name devices, and is in the log of the run"
    return _IDENTIFYING.sub(lambda found: pseudonyms.of(found[0].strip("'\"")), whole)


def actor() -> str:
    """Return the user that runs the process, and whom the session belongs to if that is another one.

    The latter is the user of the login, which the kernel keeps across `sudo` and `su`; where there was no login, as in
    cron and containers, the one that `sudo` names.
    """
    uid = os.geteuid()
    user, login = _name_of(uid), os.environ.get("SUDO_USER", "")
    try:
        session = int(_LOGIN.read_text())
        login = _name_of(session) if session != _NO_LOGIN else login
    except (OSError, ValueError):
        pass  # no Linux
    return user if login in ("", user) else f"{user} for {login}"


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a container may run as any number
        return f"uid {uid}"
