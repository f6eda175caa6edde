"""Windows of packets as parquet files of flow logs, with counts of packets in their footers."""

import datetime as dt
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ids_spark.base.arrays import Ints, Mask
from ids_spark.dataset.features import RELEASE_39
from ids_spark.extract.capture_files import DATE_FOLDER, key_of
from ids_spark.extract.counts import DateCounter, PacketCounts, date_text, distinct
from ids_spark.extract.devices import Devices, ipv4_texts, mac_texts
from ids_spark.extract.footer import Extraction
from ids_spark.extract.manifests import LogFile
from ids_spark.extract.packets import Packets
from ids_spark.extract.windows import Windows
from ids_spark.ingest.row_hash import row_keys
from ids_spark.lake.parquet import SUFFIX, part_name, write_part

SCHEMA: Final = RELEASE_39
COLUMNS: Final = pa.schema(
    [
        *((feature, pa.float64()) for feature in SCHEMA.features),
        ("flow_id", pa.string()),
        ("event_time", pa.timestamp("us", tz="UTC")),
        ("device_id", pa.string()),
        ("src_device", pa.string()),
        ("src_ip", pa.string()),
        ("src_mac", pa.string()),
        ("dst_ip", pa.string()),
        ("packets", pa.int32()),
        ("capture_file", pa.string()),
    ]
)
"""Columns of flow logs. `src_device` is the name of the source in the inventory, null if it has none. `flow_id` is a
hash of capture, offset of the first packet, and device."""
_REPEATED: Final = ("device_id", "src_device", "src_ip", "src_mac", "dst_ip", "packets", "capture_file")
_ROW_GROUP: Final = 65_536
_MOST_WAITING: Final = 4 * _ROW_GROUP  # rows in memory, of about 500 bytes


@dataclass(frozen=True)
class Origin:
    """What a task needs to know of the rows that it writes, besides the rows.

    Attributes:
        folder: URI of the folder for files that are not yet part of the logs.
        names: Names of the captures, by the number that windows have in `capture`.
        key: Part of the name of every file, so that no other capture has it.
        piece: Number of the piece of the capture.
        window: Packets of a window.
        by: `device` or `capture`.
        data_origin: `measured` or `synthetic`.
        stamp: From `manifests.stamp_of`.
        dates: For each name the date to which all packets of the capture belong; None: each to its own.
        only: Date whose rows are written; None: every date.
    """

    folder: str
    names: Sequence[str]
    key: str
    piece: int
    window: int
    by: str
    data_origin: str
    stamp: str
    dates: Sequence[dt.date | None] = (None,)
    only: dt.date | None = None


class FlowLogWriter:
    """Writes the windows of one task by date; counts packets by date.

    A date has one file, or several if more rows come than a task holds in memory. The footer of each counts the packets
    since the file before. A date without windows has a file without rows, so that its packets are not forgotten.

    Args:
        origin: Of the rows.
        devices: Names of devices.

    Attributes:
        counts: Of all packets and windows, by date, also of those that are not written (`origin.only`); complete after
            `close`.
        files: Written so far, by date.
    """

    def __init__(self, origin: Origin, devices: Devices) -> None:
        self.counts: dict[str, PacketCounts] = defaultdict(PacketCounts)
        self.files: dict[str, list[LogFile]] = defaultdict(list)
        self._origin, self._devices = origin, devices
        self._counter = DateCounter(origin.dates)
        self._new = self._counter.counts  # what no file states yet
        self._rows: dict[str, list[pa.Table]] = defaultdict(list)
        self._waiting = 0

    @property
    def dates(self) -> set[str]:
        """Every date so far."""
        return {*self.counts, *self._new}

    def count(self, packets: Packets, captures: NDArray[np.int32] | None = None) -> None:
        """Count packets by date, kind and mark; `captures` as in `Windower.add`."""
        self._counter.count(packets, captures)

    def count_others(self, counts: Mapping[str, PacketCounts]) -> None:
        """Add counts by date of packets that are in no window."""
        for date, found in counts.items():
            self._new[date].add(found)

    def add(self, windows: Windows) -> None:
        """Write windows, now or later."""
        days = self._counter.days(windows.nanos, windows.capture)
        table = None
        for day in distinct(days):
            date = date_text(day)
            mine = np.flatnonzero(days == day)
            self._new[date].windows += len(mine)
            self._new[date].in_windows += int(windows.packets[mine].sum())
            if self._is_written(date):
                table = self._table(windows) if table is None else table
                self._rows[date].append(table if len(mine) == len(days) else table.take(pa.array(mine)))
                self._waiting += len(mine)
        if self._waiting >= _MOST_WAITING:
            self._flush()

    def close(self, single: Ints, captures: NDArray[np.int32] | None = None) -> None:
        """Write what has not been written.

        Args:
            single: Times of the packets that are in no window because they are alone; they have been counted by kind.
            captures: As in `Windower.add`.
        """
        days, counts = np.unique(self._counter.days(single, captures), return_counts=True)
        for day, n in zip(days.tolist(), counts.tolist(), strict=True):
            self._new[date_text(day)].single += n
        self._counter.close(self.counts)
        self._flush()

    def _is_written(self, date: str) -> bool:
        return self._origin.only is None or date == str(self._origin.only)

    def _flush(self) -> None:
        for date in sorted(self._new):
            if self._is_written(date):
                self._write(date)
            self.counts[date].add(self._new[date])
        self._new.clear()
        self._rows.clear()
        self._waiting = 0

    def _write(self, date: str) -> None:
        origin, new = self._origin, self._new[date]
        extraction = Extraction(
            window=origin.window,
            by=origin.by,
            capture=origin.names[0] if len(origin.names) == 1 else "",
            piece=origin.piece,
            packets=new.as_json()["packets"],
            marks=new.as_json()["marks"],
            single=new.single,
            windows=new.windows,
            stamp=origin.stamp,
        )
        facts = {"ids_spark.data_origin": origin.data_origin, "ids_spark.feature_schema": SCHEMA.name}
        rows = pa.concat_tables([COLUMNS.empty_table(), *self._rows[date]])
        tables = [rows.slice(i, _ROW_GROUP) for i in range(0, len(rows), _ROW_GROUP)]
        staged = part_name(origin.piece)
        write_part(origin.folder, staged, tables, COLUMNS, facts | extraction.metadata(), _REPEATED)
        part = f".{len(self.files[date])}" if self.files[date] else ""
        path = f"{DATE_FOLDER}{date}/flows-{origin.key}-{origin.piece:05d}{part}{SUFFIX}"
        self.files[date].append(LogFile(path, f"{origin.folder.rsplit('/', 1)[1]}/{staged}"))

    def _table(self, windows: Windows) -> pa.Table:
        columns = {
            **dict(zip(SCHEMA.features, windows.features, strict=True)),
            "flow_id": flow_ids(windows, self._origin.names),
            "event_time": pa.array(windows.nanos // 1_000).cast(pa.timestamp("us", tz="UTC")),
            "device_id": self._devices.texts(windows.device),
            "src_device": self._devices.source_names(
                windows.device, windows.source, windows.source_known, windows.source_mac
            ),
            "src_ip": _where(windows.source_known, ipv4_texts(windows.source)),
            "src_mac": mac_texts(windows.source_mac),
            "dst_ip": ipv4_texts(windows.target),
            "packets": pa.array(windows.packets.astype(np.int32)),
            "capture_file": pa.array(self._origin.names, pa.string()).take(pa.array(windows.capture)),
        }
        return pa.table(columns, schema=COLUMNS)


def flow_ids(windows: Windows, names: Sequence[str]) -> pa.Array:
    """Return 16 hex digits for each window: a hash of capture, offset of its first packet, and device."""
    halves = np.array([[int(key_of(name)[i : i + 8], 16) for i in (0, 8)] for name in names], dtype=np.float64)
    parts = halves[windows.capture].T
    keys = row_keys([*parts, windows.offset.astype(np.float64), windows.device.astype(np.float64)])
    digits = np.frombuffer(keys.astype(">i8").tobytes().hex().encode(), dtype="S16")
    return pa.array(digits.astype("U16"), pa.string())


def _where(known: Mask, texts: pa.Array) -> pa.Array:
    return pc.if_else(pa.array(known), texts, pa.scalar(None, pa.string()))
