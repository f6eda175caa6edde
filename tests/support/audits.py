"""Audit rows of a lake."""

from pathlib import Path

import pandas as pd
import pyarrow as pa


def newest_audit(lake: Path, job: str) -> pd.Series:
    """Return the row of the newest run of a job; names of files do not tell the order of two runs in one second."""
    rows = [pd.read_parquet(path).iloc[0] for path in (lake / "audit").glob(f"*-{job}.parquet")]
    return max(rows, key=lambda row: row["finished_at"])


def drop_refusals(lake: Path) -> int:
    """Remove the audit rows of refused runs, which are all that such a run may write; returns their number."""
    paths = [path for path in (lake / "audit").glob("*.parquet") if _is_refusal(path)]
    for path in paths:
        path.unlink()
    if paths and not any((lake / "audit").iterdir()):
        (lake / "audit").rmdir()
    return len(paths)


def _is_refusal(path: Path) -> bool:
    try:
        return bool(pd.read_parquet(path)["status"][0] == "refused")
    except pa.ArrowInvalid:  # a lake of a test may hold files that are no tables
        return False
