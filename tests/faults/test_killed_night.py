"""Scoring killed with SIGKILL leaves the old or the new night, and a rerun gives the result of an undisturbed run."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.support.nights import DATE, KEY, comparable, copy, differing, score
from tests.support.submitting import committing, kill, prepare, staged, start, wait_for

pytestmark = pytest.mark.slow

VARIABLE = "IDS_SPARK_PSEUDONYM_KEY"
SETTINGS = ("score.pseudonymise=[device_id,src_ip]",)
READ = (
    "predictions", "incidents", "alerts", "evidence", "traffic", "entity_history", "drift", "nights",
    "quarantine/job=score",
)  # fmt: skip


MOMENTS: dict[str, Callable[[Path], bool]] = {
    "at its start": lambda lake: True,
    "at the first predictions": staged("predictions/event_date=*/model=*/part-*"),
    "at the incidents": staged("alerts/event_date=*/part-*"),
    "with everything staged": staged("audit/*"),
    "in the commit": committing,
}


@pytest.fixture(scope="module")
def old(nights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose lake holds the night as scored before two of its files arrived."""
    folder = copy(nights, tmp_path_factory.mktemp("kill") / "night")
    prepare(folder)
    logs = folder / "logs" / f"event_date={DATE}"
    (folder / "late").mkdir()
    for name in ("flows-00001.parquet", "flows-00003.parquet"):
        shutil.move(logs / name, folder / "late" / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, KEY)
        code, said = score(folder, *SETTINGS)
    assert code == 0, said
    for path in (folder / "late").iterdir():
        shutil.move(path, logs / path.name)
    return folder


@pytest.fixture(scope="module")
def undisturbed(old: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of a run on the whole night."""
    folder = copy(old, tmp_path_factory.mktemp("undisturbed") / "night")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, KEY)
        code, said = score(folder, *SETTINGS)
    assert code == 0, said
    return comparable(folder)


def whole_tables(lake: Path) -> dict[str, pd.DataFrame]:
    """Every existing table of the night; reading an incomplete one would fail. Content stands for a missing run id."""
    places = {table: lake / table / f"event_date={DATE}" for table in READ}
    found = {table: pd.read_parquet(place) for table, place in places.items() if place.exists()}
    for table, frame in found.items():
        if "run_id" not in frame:
            found[table] = frame.assign(run_id=str(pd.util.hash_pandas_object(frame.astype(str)).sum()))
    return found


def rows_of(tables: dict[str, Any], table: str) -> int:
    return len(next(iter(tables[table].values())))


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_scoring_leaves_a_whole_night_and_a_rerun_gives_the_same_tables(
    old: Path, undisturbed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    folder = copy(old, tmp_path / "night")
    lake, scratch = folder / "lake", tmp_path / "scratch"
    before = {table: frame["run_id"].unique().tolist() for table, frame in whole_tables(lake).items()}
    before_rows = {table: len(frame) for table, frame in whole_tables(lake).items()}
    monkeypatch.setenv(VARIABLE, KEY)
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(scratch))
    process = start(folder, "score", "score.flow_logs=logs", f"score.date={DATE}", *SETTINGS)
    wait_for(MOMENTS[moment], process, lake)  # or until its end, if the moment was too short
    output = kill(process)
    left = list(scratch.rglob("*"))
    assert not [path for path in left if path.is_file() and KEY.encode() in path.read_bytes()]
    assert KEY not in output

    found, in_commit = whole_tables(lake), committing(lake)
    assert set(found) == set(before) or in_commit
    for table, frame in found.items():
        runs = frame["run_id"].unique().tolist()
        is_old = runs == before[table] and len(frame) == before_rows[table]
        is_new = len(runs) <= 1 and runs != before[table] and len(frame) == rows_of(undisturbed, table)
        assert is_old or ((in_commit or not any(lake.glob(".staging/*"))) and is_new)

    code, said = score(folder, *SETTINGS)
    assert code == 0, said
    assert differing(comparable(folder), undisturbed) == []
