"""Files that would take gigabytes if they were read as a whole: refused, or read in pieces, each with its reason."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


# The jobs of several folders, one after the other in one driver, each with a Spark session of its own.
SEVERAL: Final = """
import json, os, runpy, sys
from ids_spark.runtime import job

for name, script, settings in json.loads(sys.argv[1]):
    module = runpy.run_path(script)
    os.write(2, f"RUN {name}\\n".encode())
    code = job.main(module["run"], "", [part for setting in settings for part in ("--set", setting)])
    sys.stdout.flush()
    os.write(2, f"CODE {code}\\n".encode())
"""


@dataclass(frozen=True)
class Done:
    """What a job did.

    Attributes:
        code: Its exit code.
        output: Its output.
        peak_mb: Peak memory of all processes, the largest of all jobs of the driver.
    """

    code: int
    output: str
    peak_mb: float


def submitted(work: Path, job: str, folders: Sequence[Path], *settings: str) -> list[Done]:
    """Run a job on the lake of each folder by one spark-submit; `{}` in a setting is the folder."""
    prepare(work)
    usage, log, several = work / "usage.json", work / "output.txt", work / "several.py"
    several.write_text(SEVERAL)
    runs = [
        (i, f"{ROOT}/jobs/{job}.py", [each.format(folder) for each in ("lake={}/lake", PLAIN, *settings)])
        for i, folder in enumerate(folders)
    ]
    command = ["spark-submit", "--master", "local[2]", "--py-files", "ids_spark.zip", str(several), json.dumps(runs)]
    cpus = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    meter = [sys.executable, f"{ROOT}/tests/bench/measure.py", str(usage), cpus, "--", *command]
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYSPARK_PYTHON")}
    with log.open("w") as stream:
        subprocess.run(meter, cwd=work, env=environment, stdout=stream, stderr=stream, check=True, timeout=900)
    used, output = json.loads(usage.read_text()), log.read_text(errors="replace")
    assert used["exit_code"] == 0, output
    found = re.findall(r"^RUN \d+\n(.*?)^CODE (\d+)$", output, re.DOTALL | re.MULTILINE)
    assert len(found) == len(folders), output
    return [Done(int(code), said, used["peak_rss_mb"]) for said, code in found]


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
    folder = tmp_path_factory.mktemp("usual_ingest")
    source(folder)
    [done] = submitted(folder / "work", "ingest", [folder], "ingest.source={}/source")
    assert done.code == DONE, done.output
    return done.peak_mb


def night(folder: Path, nights: Path, flows: pa.Table) -> Path:
    """Make a lake with a model, and an ordinary night of one file."""
    shutil.copytree(nights / "lake/models", folder / "lake/models")
    logs = folder / "logs" / f"event_date={DATE}"
    logs.mkdir(parents=True)
    pq.write_table(flows, logs / "flows-0.parquet")
    return logs


def scored(work: Path, folders: Sequence[Path]) -> list[Done]:
    return submitted(work, "score", folders, "score.flow_logs={}/logs", f"score.date={DATE}", f"score.models=[{MODEL}]")


@pytest.fixture(scope="module")
def usual_night(nights: Path, night_flows: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> float:
    folder = tmp_path_factory.mktemp("usual_night")
    logs = night(folder, nights, night_flows)
    pq.write_table(night_flows, logs / "flows-1.parquet")  # as beside a hostile file, two tasks load the model
    [done] = scored(folder / "work", [folder])
    assert done.code == DONE, done.output
    return done.peak_mb


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


def name_of(kind: str) -> str:
    return f"Recon-VulScan_train.pcap.{SOURCES[kind][0]}"


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Done]]:
    """Folder and end of the ingest of each kind of source."""
    place = tmp_path_factory.mktemp("sources")
    folders = [place / str(i) for i in range(len(SOURCES))]
    for folder, (kind, (_, write)) in zip(folders, SOURCES.items(), strict=True):
        write(source(folder) / "train" / name_of(kind))
    done = submitted(place / "work", "ingest", folders, "ingest.source={}/source", "ingest.max_rejected_share=1")
    return dict(zip(SOURCES, zip(folders, done, strict=True), strict=True))


@pytest.mark.parametrize("kind", SOURCES)
def test_a_hostile_file_of_a_source_takes_little_memory(
    usual_ingest: float, ingested: dict[str, tuple[Path, Done]], kind: str
) -> None:
    folder, done = ingested[kind]
    assert done.code in (DONE, REFUSED, DEGRADED), done.output
    assert "Traceback" not in done.output
    assert done.peak_mb <= usual_ingest + MORE_MB
    if done.code == REFUSED:
        assert name_of(kind) in done.output
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


@pytest.fixture(scope="module")
def scorings(
    nights: Path, night_flows: pa.Table, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, Done]]:
    """Folder and end of the scoring of each kind of night."""
    place = tmp_path_factory.mktemp("nights")
    folders = [place / str(i) for i in range(len(NIGHTS))]
    for folder, (ending, write) in zip(folders, NIGHTS.values(), strict=True):
        write(night(folder, nights, night_flows) / f"hostile.{ending}", night_flows)
    return dict(zip(NIGHTS, zip(folders, scored(place / "work", folders), strict=True), strict=True))


@pytest.mark.parametrize("kind", NIGHTS)
def test_a_hostile_file_of_a_night_takes_little_memory(
    usual_night: float, scorings: dict[str, tuple[Path, Done]], night_flows: pa.Table, kind: str
) -> None:
    (folder, done), ending = scorings[kind], NIGHTS[kind][0]
    assert done.code in (DONE, REFUSED, DEGRADED), done.output
    assert "Traceback" not in done.output
    assert done.peak_mb <= usual_night + MORE_MB
    if done.code == REFUSED:
        assert "hostile" in done.output
        return
    lake = folder / "lake"
    [row] = pd.read_parquet(lake / f"nights/event_date={DATE}").to_dict("records")
    rows = {file["name"]: (file["rows"], file["reason"]) for file in row["files"]}
    assert rows["flows-0.parquet"] == (len(night_flows), None)
    assert row["rows_in"] == row["rows_scored"] + row["rows_quarantined"] == sum(n for n, _ in rows.values())
    assert f"hostile.{ending}" in rows or f"hostile.{ending}" in done.output
