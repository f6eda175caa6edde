"""Flow logs of a site's own nights for tests, as pandas writes them."""

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd

from tests.support.flows import synthetic_frame

FIRST = dt.date(2026, 3, 1)


def night(rows: int, seed: int, schema: str = "release39", devices: int = 3) -> pd.DataFrame:
    """Flows of a night with times and devices."""
    frame = synthetic_frame(rows, seed=1_000 + seed, schema=schema)
    frame["Rate"] += 100.0  # unlike any row of the data set
    frame["event_time"] = pd.Timestamp("2026-03-01", tz="UTC") + pd.to_timedelta(np.arange(rows), unit="min")
    return frame.assign(device_id=[f"pump-{i % devices}" for i in range(rows)])


def write_night(logs: Path, frame: pd.DataFrame, date: dt.date, file: str = "a.parquet") -> None:
    """Add a file of flows to a night."""
    path = logs / f"event_date={date}" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path, index=False)


def write_nights(logs: Path, count: int, rows: int = 30, schema: str = "release39") -> list[pd.DataFrame]:
    """Write successive nights from `FIRST` on; returns their flows."""
    frames = [night(rows, seed, schema) for seed in range(count)]
    for i, frame in enumerate(frames):
        write_night(logs, frame, FIRST + dt.timedelta(days=i))
    return frames
