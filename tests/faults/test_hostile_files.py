"""Files that would take gigabytes if they were read as a whole: refused, or read in pieces, each with its reason."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ids_spark.dataset.features import RELEASE_39
from tests.support import hostile_files
from tests.support.flows import PLAIN, ROOT, synthetic_frame
from tests.support.nights import DATE, MODEL
from tests.support.submitting import prepare

pytestmark = pytest.mark.slow

MORE_MB: Final = 500
USUAL_ROWS: Final = 20_000
DONE, REFUSED, DEGRADED = 0, 2, 3
NAMES: Final = list(RELEASE_39.features)


def submitted(folder: Path, job: str, *settings: str) -> tuple[int, float, str]:
    """Run a job to its end; return exit code, the peak memory of all its processes in MB, and its output."""
    usage, log = folder / "usage.json", folder / "output.txt"
    options = [part for setting in ("lake=lake", PLAIN, *settings) for part in ("--set", setting)]
    command = ["spark-submit", "--master", "local[2]", "--py-files", "ids_spark.zip", f"{ROOT}/jobs/{job}.py", *options]
    cpus = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    meter = [sys.executable, f"{ROOT}/tests/bench/measure.py", str(usage), cpus, "--", *command]
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYSPARK_PYTHON")}
    with log.open("w") as stream:
        subprocess.run(meter, cwd=folder, env=environment, stdout=stream, stderr=stream, check=True, timeout=500)
    used = json.loads(usage.read_text())
    return used["exit_code"], used["peak_rss_mb"], log.read_text(errors="replace")


def source(folder: Path) -> Path:
    """Write an ordinary source: 20,000 train rows as parquet, and a small test file."""
    for split, rows in (("train", USUAL_ROWS), ("test", 100)):
        (folder / "source" / split).mkdir(parents=True)
        frame = synthetic_frame(rows, seed=rows)
        frame.to_parquet(folder / "source" / split / f"Benign_{split}.pcap.parquet", index=False)
    return folder / "source"


@pytest.fixture(scope="module")
def night_flows(nights: Path) -> pa.Table:
    paths = sorted((nights / "logs" / f"event_date={DATE}").glob("*.parquet"))
    return pa.concat_tables([pq.ParquetFile(path).read() for path in paths])


@pytest.fixture(scope="module")
def usual_ingest(tmp_path_factory: pytest.TempPathFactory) -> float:
    folder = prepare(tmp_path_factory.mktemp("usual_ingest"))
    source(folder)
    code, peak, output = submitted(folder, "ingest", "ingest.source=source")
    assert code == DONE, output
    return peak


def night(folder: Path, nights: Path, flows: pa.Table) -> Path:
    """Make a lake with a model, and an ordinary night of one file."""
    prepare(folder)
    shutil.copytree(nights / "lake/models", folder / "lake/models")
    logs = folder / "logs" / f"event_date={DATE}"
    logs.mkdir(parents=True)
    pq.write_table(flows, logs / "flows-0.parquet")
    return logs


def scored(folder: Path) -> tuple[int, float, str]:
    return submitted(folder, "score", "score.flow_logs=logs", f"score.date={DATE}", f"score.models=[{MODEL}]")


@pytest.fixture(scope="module")
def usual_night(nights: Path, night_flows: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> float:
    folder = tmp_path_factory.mktemp("usual_night")
    logs = night(folder, nights, night_flows)
    pq.write_table(night_flows, logs / "flows-1.parquet")  # as beside a hostile file, two tasks load the model
    code, peak, output = scored(folder)
    assert code == DONE, output
    return peak


def csv_cells(at: int) -> Callable[[Path], object]:
    row = [repr(value) for value in synthetic_frame(1, 3).iloc[0]]
    return lambda path: hostile_files.large_csv_cells(path, ["Unnamed: 0", *NAMES], ["0", *row], at)


def table(rows: int = 12_345) -> pa.Table:
    frame = synthetic_frame(rows, 5)
    frame["src_ip"] = "10.0.0.1"
    return pa.Table.from_pandas(frame, preserve_index=False)


SOURCES: Final[dict[str, tuple[str, Callable[[Path], object]]]] = {
    "50 million rows in 25 KB": ("parquet", lambda path: hostile_files.constant_columns(path, NAMES)),
    "a footer of 10^12 rows": ("parquet", lambda path: hostile_files.many_rows_claimed(path, table())),
    "20,000 columns": ("parquet", lambda path: pq.write_table(hostile_files.many_columns(table(50)), path)),
    "20,000 columns in CSV": ("csv", lambda path: hostile_files.many_columns(table(50)).to_pandas().to_csv(path)),
    "5 MB in a feature of CSV": ("csv", csv_cells(1)),
    "5 MB in another column of CSV": ("csv", csv_cells(0)),
    "5 MB texts": ("parquet", lambda path: hostile_files.large_cells(path, table(), "src_ip", False)),
    "one 5 MB text": ("parquet", lambda path: hostile_files.large_cells(path, table(), "src_ip", True)),
    "5 MB texts as a feature": ("parquet", lambda path: hostile_files.large_cells(path, table(), "Rate", False)),
    "a gzip file of rows": (
        "csv.gz",
        lambda path: hostile_files.bomb(path, NAMES, [repr(value) for value in synthetic_frame(1, 3).iloc[0]]),
    ),
    "a gzip file of one line": ("csv.gz", lambda path: hostile_files.bomb(path, NAMES, None)),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_hostile_file_of_a_source_takes_little_memory(usual_ingest: float, tmp_path: Path, kind: str) -> None:
    ending, write = SOURCES[kind]
    folder = prepare(tmp_path / "run")
    name = f"Recon-VulScan_train.pcap.{ending}"
    write(source(folder) / "train" / name)
    settings = ("ingest.source=source", "ingest.max_rejected_share=1")
    code, peak, output = submitted(folder, "ingest", *settings)
    assert code in (DONE, REFUSED, DEGRADED), output
    assert "Traceback" not in output
    assert peak <= usual_ingest + MORE_MB, output
    if code == REFUSED:
        assert name in output
        assert not (folder / "lake/flows").exists()
    else:
        flows = pd.read_parquet(folder / "lake/flows", columns=["source_file"])["source_file"]
        assert (flows == "train/Benign_train.pcap.parquet").sum() == USUAL_ROWS


NIGHTS: Final[dict[str, tuple[str, Callable[[Path, pa.Table], object]]]] = {
    "50 million rows in 25 KB": ("parquet", lambda path, t: hostile_files.constant_columns(path, t.column_names[:45])),
    "a footer of 10^12 rows": ("parquet", hostile_files.many_rows_claimed),
    "20,000 columns": ("parquet", lambda path, t: pq.write_table(hostile_files.many_columns(t.slice(0, 50)), path)),
    "5 MB texts as a feature": ("parquet", lambda path, t: hostile_files.large_cells(path, t, "Rate", False)),
    "one 5 MB text as a feature": ("parquet", lambda path, t: hostile_files.large_cells(path, t, "Rate", True)),
    "5 MB texts as identifiers": ("parquet", lambda path, t: hostile_files.large_cells(path, t, "device_id", False)),
    "one 5 MB text as identifier": ("parquet", lambda path, t: hostile_files.large_cells(path, t, "device_id", True)),
    "5 MB texts as times": ("parquet", lambda path, t: hostile_files.large_cells(path, t, "event_time", False)),
    "a gzip file": ("csv.gz", lambda path, t: hostile_files.bomb(path, t.column_names, ["0"] * len(t.column_names))),
}


@pytest.mark.parametrize("kind", NIGHTS)
def test_a_hostile_file_of_a_night_takes_little_memory(
    usual_night: float, nights: Path, night_flows: pa.Table, tmp_path: Path, kind: str
) -> None:
    ending, write = NIGHTS[kind]
    logs = night(tmp_path / "run", nights, night_flows)
    write(logs / f"hostile.{ending}", night_flows)
    code, peak, output = scored(tmp_path / "run")
    assert code in (DONE, REFUSED, DEGRADED), output
    assert "Traceback" not in output
    assert peak <= usual_night + MORE_MB, output
    if code == REFUSED:
        assert "hostile" in output
        return
    lake = tmp_path / "run/lake"
    [row] = pd.read_parquet(lake / f"nights/event_date={DATE}").to_dict("records")
    rows = {file["name"]: (file["rows"], file["reason"]) for file in row["files"]}
    assert rows["flows-0.parquet"] == (len(night_flows), None)
    assert row["rows_in"] == row["rows_scored"] + row["rows_quarantined"] == sum(n for n, _ in rows.values())
    assert f"hostile.{ending}" in rows or f"hostile.{ending}" in output
