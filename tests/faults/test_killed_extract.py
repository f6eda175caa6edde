"""An extraction killed with SIGKILL leaves whole captures, old or new, and a rerun gives the undisturbed logs."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from tests.support.frames import Captured, ethernet, ipv4, pcap, udp
from tests.support.in_process import run
from tests.support.submitting import kill, prepare, start, wait_for

pytestmark = pytest.mark.slow

CAPTURES = 60
PIECE = "extract.piece_mb=1"
NIGHT = 1_714_521_600 * 10**9
"""2024-05-01, in nanoseconds since 1970."""


def extract(folder: Path, captures: Path) -> None:
    """Extract to `folder`/logs in the process of the test."""
    code, output = run(folder, "extract", f"extract.captures={captures}", f"extract.target={folder}/logs", PIECE)
    assert code == 0, output


def made(pattern: str) -> Callable[[Path], bool]:
    return lambda lake: any((lake.parent / "logs").glob(pattern))


MOMENTS: dict[str, Callable[[Path], bool]] = {
    "before it wrote": lambda lake: True,
    "at the first file of a task": made("_extract/writing-*/*"),
    "in a replacement": made("_extract/*.commit"),
    "after the first captures": made("_extract/0*.json"),
}


def packets_of(i: int) -> int:
    return 8_000 if i == 7 else 400  # one capture is read in pieces


def write_captures(folder: Path, payload: int) -> None:
    """Write captures; the bytes of a payload tell an old from a new version of a name."""
    folder.mkdir(exist_ok=True)
    for i in range(CAPTURES):
        frame = ethernet(ipv4(udp(payload=bytes(payload)), f"10.0.0.{i + 1}", "10.0.1.1", 17))
        packets = [Captured(frame, NIGHT + i * 10**9 + j * 10**7) for j in range(packets_of(i))]
        (folder / f"{i}.pcap").write_bytes(pcap(packets))


def rows(folder: Path) -> pd.DataFrame:
    files = sorted((folder / "logs").glob("event_date=*/*.parquet"))
    frames = [pq.read_table(path, partitioning=None).to_pandas() for path in files]
    return pd.concat(frames).sort_values("flow_id", ignore_index=True) if frames else pd.DataFrame()


@pytest.fixture(scope="module")
def old(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the logs of old captures, which new ones have replaced since."""
    folder = prepare(tmp_path_factory.mktemp("night"))
    write_captures(folder / "pcaps", payload=300)
    extract(folder, folder / "pcaps")
    write_captures(folder / "pcaps", payload=400)
    return folder


@pytest.fixture(scope="module")
def new(old: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The logs of an undisturbed run."""
    folder = tmp_path_factory.mktemp("undisturbed")
    extract(folder, old / "pcaps")
    return rows(folder)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_extraction_leaves_whole_captures_and_a_rerun_completes_it(
    old: Path, new: pd.DataFrame, tmp_path: Path, moment: str
) -> None:
    folder = tmp_path / "night"
    shutil.copytree(old, folder)
    captures = f"extract.captures={old / 'pcaps'}"  # the folder that the logs are of
    process = start(folder, "extract", captures, "extract.target=logs", PIECE)
    wait_for(MOMENTS[moment], process, folder / "lake")  # or until its end, if the moment was too short
    kill(process)

    replacing = len(list((folder / "logs/_extract").glob("*.commit")))
    found = rows(folder).groupby("capture_file").agg({"packets": "sum", "AVG": "nunique"})
    whole = [packets_of(int(name.removesuffix(".pcap"))) for name in found.index]
    partly = (found["packets"] != whole) | (found["AVG"] != 1)
    assert len(found) == CAPTURES
    assert partly.sum() <= replacing

    extract(folder, old / "pcaps")
    pd.testing.assert_frame_equal(rows(folder), new)
    left = [path.name for path in (folder / "logs/_extract").iterdir() if path.suffix != ".json" or path.name[0] == "."]
    assert left == []
