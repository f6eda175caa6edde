"""Verdicts on a night that was really scored."""

import datetime as dt
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.support import nights as support
from tests.support.in_process import run
from tests.support.nights import DATE, comparable, copy, differing, read, score

pytestmark = pytest.mark.slow
NEXT = DATE + dt.timedelta(days=1)


@pytest.fixture(scope="module")
def scored(nights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with two scored nights of equal flows, without verdicts."""
    folder = copy(nights, tmp_path_factory.mktemp("two") / "nights")
    shutil.copytree(folder / f"logs/event_date={DATE}", folder / f"logs/event_date={NEXT}")
    for date in (DATE, NEXT):
        code, log = score(folder, date=date)
        assert code in (0, 3), log
    return folder


def decide(folder: Path, kind: str, *ids: str, date: dt.date = DATE) -> None:
    settings = {"date": date, "incidents": " ".join(ids), "verdict": f"'{kind}'", "owner": "Ada", "reason": "known"}
    code, log = run(folder, "verdict", *(f"verdict.{name}={value}" for name, value in settings.items()))
    assert code == 0, log


def outputs(folder: Path, date: dt.date = DATE) -> dict[str, object]:
    """Return what verdicts may change, without what differs from run to run."""
    return {table: comparable(folder, date)[table] for table in ("incidents", "alerts", "nights")}


def test_ranking_again_gives_what_scoring_again_gives(scored: Path, tmp_path: Path) -> None:
    folder = copy(scored, tmp_path / "n")
    incidents = read(folder, "incidents")
    assert len(incidents) >= 2
    assert set(incidents["learning"].dropna()) == {"site"}
    learning = incidents[incidents["learning"].notna() & ~incidents["strong"]]
    assert incidents.index[incidents["state"] == "learning"].equals(learning.index)
    row = support.night_row(folder)
    assert (row["stage"], row["nights_scored"], row["incidents_learning"]) == ("learning", 0, len(learning))
    assert support.night_row(folder, date=NEXT)["nights_scored"] == 1
    predictions = support.content_of(folder / "lake/predictions")
    decide(folder, "benign", incidents["incident_id"][0])
    decide(folder, "true", incidents["incident_id"][1])
    ranked = outputs(folder)
    assert read(folder, "incidents").set_index("incident_id")["state"][incidents["incident_id"][0]] == "learned"
    assert support.content_of(folder / "lake/predictions") == predictions
    code, log = score(folder)
    assert code in (0, 3), log
    assert differing(ranked, outputs(folder)) == []


def test_the_same_attack_is_learned_on_the_next_night_and_continues(scored: Path, tmp_path: Path) -> None:
    folder = copy(scored, tmp_path / "n")
    tonight, tomorrow = read(folder, "incidents"), read(folder, "incidents", NEXT)
    assert set(tonight["life"]) == {"new"}
    continuing = tomorrow[tomorrow["life"] == "continuing"]
    assert set(tonight["incident_id"]) >= set(continuing["previous_id"]) != set()
    assert set(continuing["since"]) == {DATE}
    chosen = continuing["previous_id"].iloc[0]
    decide(folder, "benign", chosen)
    code, log = score(folder, date=NEXT)
    assert code in (0, 3), log
    found = read(folder, "incidents", NEXT).set_index("previous_id")
    assert found["state"][chosen] == "learned"
    assert found["verdict_reason"][chosen] == "known"
    assert not pd.notna(found["rank"][chosen])
