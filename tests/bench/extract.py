"""Part `extract`: packet captures → flow logs.

| case | what it does |
|---|---|
| `ids_spark` | `jobs/extract.py` on one capture in four pieces: windows of 10 packets of each device to flow logs |
| `ids_spark_files` | the same on a capture of the same size in 64 files |
| `dpkt` | the same windows and features by a loop over the packets, see `baseline_dpkt` |
| `bytes` | reads the file, see `baseline_bytes` |

The capture is synthetic, see `capture_file`; a scale of 1 is 1 GB, in the page cache of the system. `dpkt` runs on a
sixteenth of it, and its rows are compared with those of `ids_spark`, which also runs on a quarter and a sixteenth.
"""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ids_spark.dataset.features import RELEASE_39
from ids_spark.extract.footer import of_metadata
from tests.bench import capture_file
from tests.bench.extract_work import NETWORK, WINDOW
from tests.bench.programs import DRIVER_MEMORY, Programs
from tests.bench.rounds import Case, Measured, Plan, Ratio, Taken

NAME: Final = "extract"
TITLE: Final = "Extraction"
SCALES: Final = (1.0,)
QUICK_SCALES: Final = (0.16,)
_BYTES: Final = 1_000_000_000
_FILES: Final = 64
_PIECES: Final = 4
_PARTS: Final = {"ids_spark": (1, 4, 16), "ids_spark_files": (1,), "dpkt": (16,), "bytes": (1,)}
_GUESS_S: Final = {"ids_spark": 1.5, "ids_spark_files": 1.5, "dpkt": 35.0, "bytes": 0.1}
CASES: Final = tuple(_PARTS)
ON_DEMAND: Final = ()
QUICK_CASES: Final = ("ids_spark", "dpkt")
MINUTES: Final = (0.5, 1.0)
_WHAT: Final = {
    "ids_spark": "this project, one file",
    "ids_spark_files": "this project, 64 files",
    "dpkt": "a loop with dpkt, one process",
    "bytes": "the bytes read and not looked at",
}
_MB: Final = 1500  # at most


class WindowsDiffer(RuntimeError):
    """Raised when two cases did not find the same windows, or packets are missing from them."""


def scales(given: Sequence[float]) -> tuple[float, ...]:
    """Return the scale of the whole capture."""
    return tuple(given) or SCALES


class Part:
    """The cases of this part; holds the windows of the smallest capture, to compare them."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._programs = plan, Programs(plan)
        self._captures: dict[str, capture_file.Written] = {}
        self._windows: pa.Table | None = None

    def cases(self) -> list[Case]:
        """Write the captures and return the cases."""
        whole = self._plan.scales[0]
        wanted = [(name, whole / part) for name in CASES if name in self._plan.cases for part in _PARTS[name]]
        for name, scale in wanted:
            self._make(self._folder(name, scale), scale, _FILES if name == "ids_spark_files" else 1)
        return [
            Case(
                *(NAME, name, scale, self._captures[self._folder(name, scale)].packets),
                *(self._run(name, scale), self._check(name, scale), _GUESS_S[name], _WHAT[name]),
            )
            for name, scale in wanted
        ]

    def ratios(self, cases: Sequence[Measured]) -> list[Ratio]:
        """Return packets/s of this project over those of others, its memory in MB, and its growth.

        Packets/s after the start are those that the whole capture has more than its sixteenth, in the time that it
        takes more: so they leave out the start of Spark, as the rate that `dpkt` states leaves out its own. The ratio
        of packets for each second of CPU hardly depends on what else the machine does.
        """
        whole = self._plan.scales[0]
        known = {(one.case.name, one.case.scale): one for one in cases}
        ours = known.get(("ids_spark", whole))
        if ours is None:
            return []
        quarter, small = known["ids_spark", whole / 4], known["ids_spark", whole / 16]
        more = ours.case.rows - small.case.rows
        wall_s, cpu_s = (max(ours.median(each) - small.median(each), 1e-9) for each in ("wall_s", "cpu_s"))
        found = [
            Ratio("extract_memory_mb", ours.median("peak_rss_mb"), at_most=_MB),
            Ratio("extract_memory_growth", ours.median("peak_rss_mb") / quarter.median("peak_rss_mb"), at_most=1.4),
            Ratio("extract_growth_1_to_4", ours.median("wall_s") / quarter.median("wall_s"), at_most=4.4),
        ]
        if dpkt := known.get(("dpkt", whole / 16)):
            theirs = dpkt.median("packets_per_s")
            found.append(Ratio("extract_vs_dpkt", more / wall_s / theirs, at_least=20))
            found.append(Ratio("extract_vs_dpkt_with_start", _rate(ours) / theirs))
            found.append(Ratio("extract_vs_dpkt_cpu", more / cpu_s / dpkt.median("packets_per_cpu_s"), at_least=10))
        if read := known.get(("bytes", whole)):
            found.append(Ratio("extract_vs_read", _rate(ours) / _rate(read)))
        if files := known.get(("ids_spark_files", whole)):
            found.append(Ratio("extract_64_files_vs_one", files.median("wall_s") / ours.median("wall_s"), at_most=1.5))
        return found

    def facts(self) -> dict[str, object]:
        """Return facts that readers of the figures need."""
        return {
            "data": "synthetic capture of mixed traffic, pcap, in the page cache",
            "captures": {name: written._asdict() for name, written in self._captures.items()},
            "window": WINDOW,
            "spark_driver_memory": DRIVER_MEMORY,
        }

    def _folder(self, name: str, scale: float) -> str:
        return f"{scale:g}-files" if name == "ids_spark_files" else f"{scale:g}"

    def _make(self, name: str, scale: float, files: int) -> None:
        if name in self._captures:
            return
        folder = self._plan.scratch / name
        folder.mkdir()
        size = int(scale * _BYTES / files)
        written = [capture_file.write(folder / f"ward-{i:02d}.pcap", size, seed=i + 1) for i in range(files)]
        self._captures[name] = capture_file.Written(*map(sum, zip(*written, strict=True)))

    def _run(self, name: str, scale: float) -> Callable[[Path], Taken]:
        folder = self._plan.scratch / self._folder(name, scale)
        capture = str(folder / "ward-00.pcap")

        def run(target: Path) -> Taken:
            if name == "bytes":
                return Taken(self._programs.python(name, "tests.bench.baseline_bytes", capture))
            if name == "dpkt":
                usage = self._programs.python(name, "tests.bench.baseline_dpkt", capture, str(target))
                return Taken(usage, json.loads((target / "stated.json").read_text()))
            settings = {"extract.captures": folder, "extract.target": target / "logs", "extract.window": WINDOW}
            settings["extract.networks"] = f"[{NETWORK}]"
            if scale > self._plan.scales[0] / 16:  # so both cores have work; the smallest is compared with `dpkt`
                settings["extract.piece_mb"] = max(1, round(scale * _BYTES / _PIECES / 1e6))
            return Taken(self._programs.job("extract", settings, target))

        return run

    def _check(self, name: str, scale: float) -> Callable[[Path], None]:
        def check(target: Path) -> None:
            if name == "bytes":
                return
            single = 0
            if name == "dpkt":
                found = pq.read_table(target / "windows.parquet")
            else:
                found, single = _logs(target / "logs")
            visible = self._captures[self._folder(name, scale)].visible
            in_windows = int(found["Number"].to_numpy().sum())
            if name != "dpkt" and in_windows + single != visible:
                raise WindowsDiffer(
                    f"{name}: {in_windows} packets in windows, {single} alone; expected {visible} in all"
                )
            if scale == self._plan.scales[0] / 16:
                self._compare(name, found)

        return check

    def _compare(self, name: str, found: pa.Table) -> None:
        names = [*RELEASE_39.features, "device_id", "seconds"]
        found = found.select(names).sort_by([("device_id", "ascending"), ("seconds", "ascending")])
        if self._windows is None:
            self._windows = found
            return
        other = self._windows
        if not found["device_id"].equals(other["device_id"]):
            raise WindowsDiffer(f"{name} has windows of other devices: {len(found)} rows, expected {len(other)}")
        for column in (*RELEASE_39.features, "seconds"):
            one, two = found[column].to_numpy(), other[column].to_numpy()
            if not np.allclose(one, two, rtol=1e-9, atol=1e-9):
                worst = math.nan if not len(one) else float(np.nanmax(np.abs(one - two)))
                raise WindowsDiffer(f"{name}: {column} differs by up to {worst}")


def _logs(folder: Path) -> tuple[pa.Table, int]:
    """Return flow logs with the seconds of their first packets, and the number of packets in no window."""
    paths = sorted(str(path) for path in folder.glob("event_date=*/*.parquet"))
    table = pa.concat_tables([pq.read_table(path, partitioning=None) for path in paths]).replace_schema_metadata()
    facts = [of_metadata(pq.read_schema(path).metadata, path) for path in paths]
    seconds = table["event_time"].cast(pa.int64()).to_numpy() / 1e6
    return table.append_column("seconds", pa.array(seconds)), sum(fact.single for fact in facts if fact)


def _rate(one: Measured) -> float:
    return one.case.rows / one.median("wall_s")
