"""A scored split beside scored nights, through real parquet."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.support.nights import copy, nights, read, run, score

__all__ = ("nights",)


@pytest.fixture
def lake(nights: Path, tmp_path: Path) -> Path:
    return copy(nights, tmp_path / "copy")


def test_a_split_and_a_night_scored_on_one_day_keep_their_predictions_and_quarantine(lake: Path) -> None:
    flows = pd.read_parquet(lake / "lake/flows/split=test").head(50)
    flows.loc[3, "Rate"] = np.nan
    (lake / "source").mkdir()
    flows.to_parquet(lake / "source/flows.parquet", index=False)
    code, said = run(lake, "score", f"score.source={lake}/source")
    assert code == 0, said
    today = pd.Timestamp.now("UTC").date()
    night = lake / f"logs/event_date={today}"
    next((lake / "logs").glob("event_date=*")).rename(night)
    code, said = score(lake, date=today)
    assert code == 0, said
    of_split = pd.read_parquet(lake / "lake/split_predictions")
    assert sorted(of_split["source_row"]) == [row for row in range(50) if row != 3]
    assert of_split["split"].unique().tolist() == ["test"]
    [refused] = pd.read_parquet(lake / "lake/quarantine/job=score_split").to_dict("records")
    assert (refused["source_row"], refused["reason"]) == (3, "missing")
    of_night = read(lake, "predictions", today)
    assert len(of_night) > 10_000
    assert set(of_night["source_file"]).isdisjoint(of_split["source_file"])
