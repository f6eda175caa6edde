"""The audit row of a run."""

import datetime as dt
from collections.abc import Callable
from typing import Any

from ids_spark.base.packaging import code_version
from ids_spark.base.report import Report
from ids_spark.config.settings import Config
from ids_spark.lake.store import Lake


def write_audit_row(
    lake: Lake,
    staged: Callable[[str], str] | None,
    job: str,
    run_id: str,
    started: dt.datetime,
    config: Config,
    report: Report,
    error: str | None,
) -> str:
    """Write the one row of a run in `audit/`, as a parquet file; return its path below the lake's root.

    Args:
        lake: The lake of the run.
        staged: Returns the URI of the staged version of a path; None: written in place.
        job: Name of the job.
        run_id: Of the run.
        started: Start of the run, UTC.
        config: Of the run; holds no secret.
        report: Facts of the run.
        error: Message of the failure; None for a successful run.
    """
    finished = dt.datetime.now(dt.UTC)
    counts = [
        {"split": split, "class_name": name, "what": what, "rows": n}
        for (what, split, name), n in report.counts.items()
    ]
    row: dict[str, Any] = {
        "run_id": run_id,
        "job": job,
        "status": "failed" if error else "degraded" if report.degraded else "done",
        "started_at": started,
        "finished_at": finished,
        "seconds": (finished - started).total_seconds(),
        "rows_in": report.rows_in,
        "rows_out": report.rows_out,
        "rows_quarantined": report.rows_quarantined,
        "rows_duplicate": report.rows_duplicate,
        "rows_joined": report.rows_joined,
        "rows_left_out": report.rows_left_out,
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
    }
    return lake.write("audit", [row], staged, run_id=run_id, job=job)
