"""Windows of captures as the nights of a site: which capture belongs to which night, written as flow logs."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ids_spark.base.arrays import Floats, Ints

FIRST: Final = dt.date(2026, 3, 1)
NIGHTS: Final = 8
"""Nights that a site learns; the last quarter of them is held out for the threshold."""
MEASURED: Final = FIRST + dt.timedelta(days=NIGHTS)
LEARNED_SHARE: Final = 0.7
"""Of the windows of each capture, in the order of time, in the measurement of later blocks."""
_DAY: Final = 86_400_000_000


@dataclass(frozen=True)
class Halves:
    """Windows that are learned, with the night of each, and windows that are measured."""

    learned: pa.Table
    nights: Ints
    measured: pa.Table


def windows_of(logs: Path) -> pa.Table:
    """Return the windows of all flow logs below a folder, by capture and time.

    Devices of different captures are different machines, so that their addresses get the name of their capture.
    """
    parts = []
    for path in sorted(logs.glob("event_date=*/*.parquet")):
        part = pq.ParquetFile(path).read()
        parts.append(part.replace_schema_metadata(None))
    found = pa.concat_tables(parts)
    for name in ("device_id", "src_device"):
        address = pc.fill_null(found["src_ip" if name == "src_device" else name].cast(pa.string()), "")
        named = pc.binary_join_element_wise(found["capture_file"].cast(pa.string()), address, "/")
        found = found.set_column(found.column_names.index(name), name, named)
    return found.sort_by([("capture_file", "ascending"), ("event_time", "ascending"), ("flow_id", "ascending")])


def captures_of(windows: pa.Table) -> list[str]:
    """Return the names of the captures."""
    return sorted(set(windows["capture_file"].to_pylist()))


def halves(windows: pa.Table, seed: int) -> Halves:
    """Return random halves of the captures: one is learned, the other is measured.

    A learned capture stands for a device that is there every night: its windows, in the order of time, are divided over
    the nights, so that the held-out nights are later time of known devices.
    """
    names = captures_of(windows)
    order = np.random.default_rng(1_000 + seed).permutation(len(names))
    chosen = {names[i] for i in order[: len(names) // 2]}
    learned = np.array([name in chosen for name in windows["capture_file"].to_pylist()], dtype=np.bool_)
    found = windows.filter(pa.array(learned))
    return Halves(found, _nights(_places(found)), windows.filter(pa.array(~learned)))


def blocks(windows: pa.Table) -> Halves:
    """Return the first windows of each capture, as nights one after the other, and its last windows to measure."""
    places = _places(windows)
    learned = places < LEARNED_SHARE
    nights = _nights(places[learned] / LEARNED_SHARE)
    return Halves(windows.filter(pa.array(learned)), nights, windows.filter(pa.array(~learned)))


def _places(windows: pa.Table) -> Floats:
    """Return the place of each window in its capture, above 0 and below 1, in the order of time."""
    names = np.array(windows["capture_file"].to_pylist())
    places = np.empty(len(names))
    for name in np.unique(names):
        own = np.flatnonzero(names == name)
        places[own] = (np.arange(len(own)) + 0.5) / len(own)
    return places


def _nights(places: Floats) -> Ints:
    nights: Ints = (places * NIGHTS).astype(np.int64)
    return nights


def write_night(windows: pa.Table, logs: Path, date: dt.date, part: int = 0) -> None:
    """Write windows as the flow logs of a night; the time of day of each is kept."""
    midnight = (date - dt.date(1970, 1, 1)).days * _DAY
    times = windows["event_time"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
    moved = pa.array(midnight + times % _DAY).cast(pa.timestamp("us", tz="UTC"))
    folder = logs / f"event_date={date}"
    folder.mkdir(parents=True, exist_ok=True)
    table = windows.set_column(windows.column_names.index("event_time"), "event_time", moved)
    pq.write_table(table.sort_by("event_time"), folder / f"flows-{part:05d}.parquet")


def write_learned(which: Halves, logs: Path) -> list[dt.date]:
    """Write the learned windows as nights of flow logs; returns their dates."""
    dates: Sequence[dt.date] = [FIRST + dt.timedelta(days=night) for night in range(NIGHTS)]
    for night, date in enumerate(dates):
        own = np.flatnonzero(which.nights == night)
        if len(own):
            write_night(which.learned.take(pa.array(own)), logs, date)
    return [date for night, date in enumerate(dates) if (which.nights == night).any()]
