"""The audit row of a run."""

import datetime as dt
from typing import Any

from ids_spark.base.packaging import code_version
from ids_spark.base.report import Report
from ids_spark.config.settings import Config
from ids_spark.dataset.tables import AUDIT
from ids_spark.lake.parquet import write_rows


def write_audit_row(
    uri: str, job: str, run_id: str, started: dt.datetime, config: Config, report: Report, error: str | None
) -> None:
    """Write the one audit row of a run as a parquet file.

    Args:
        uri: The file.
        job: Name of the job.
        run_id: Of the run.
        started: When, in UTC.
        config: As the run was told; it holds no secret.
        report: What the job did.
        error: The message of the failure, None for a run that is done.
    """
    finished = dt.datetime.now(dt.UTC)
    counts = [
        {"split": split, "class_name": name, "what": what, "rows": n}
        for (what, split, name), n in report.counts.items()
    ]
    row: dict[str, Any] = {
        "run_id": run_id,
        "job": job,
        "status": "failed" if error else "done",
        "started_at": started,
        "finished_at": finished,
        "seconds": (finished - started).total_seconds(),
        "rows_in": report.rows_in,
        "rows_out": report.rows_out,
        "rows_quarantined": report.rows_quarantined,
        "rows_duplicate": report.rows_duplicate,
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
    write_rows(uri, [row], AUDIT)
