"""The nights of the benchmark of contamination: as many attack flows as asked for, where they are said to be."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ids_spark.dataset.taxonomy import CLASS19
from tests.bench.contamination import NIGHTS, write_week


@pytest.mark.parametrize(("every_night", "nights", "classes"), [(False, 4, 18), (True, 7, 5)])
def test_a_week_has_the_attacks_that_its_truth_names(
    every_night: bool, nights: int, classes: int, tmp_path: Path
) -> None:
    truth = write_week(tmp_path / "week", 0.05, 2_000, seed=1, every_night=every_night)
    logs = {path.relative_to(tmp_path / "week").as_posix(): pq.ParquetFile(path).read() for path in _files(tmp_path)}
    rows = sum(len(table) for table in logs.values())
    assert rows - len(truth) == 2_000 * NIGHTS
    assert len(truth) / rows == pytest.approx(0.05, rel=0.1)
    assert len({file.split("/")[0] for file, _ in truth}) == nights
    assert len(set(truth.values())) == classes
    assert set(truth.values()) <= set(CLASS19[1:])
    attackers = {logs[file]["src_ip"][row].as_py() for file, row in truth}
    assert all(address.startswith("203.0.113.") for address in attackers)
    assert write_week(tmp_path / "again", 0.05, 2_000, seed=1, every_night=every_night) == truth


def _files(folder: Path) -> list[Path]:
    return sorted((folder / "week").glob("event_date=*/*.parquet"))
