"""Verdicts after a purge: what still applies says the same on every later night, and nothing else is left."""

import datetime as dt

from hypothesis import given, settings
from hypothesis import strategies as st

from ids_spark.alerts import verdicts
from ids_spark.alerts.verdict_purge import after_purge, purge_verdicts
from ids_spark.lake.filesystem import names_in
from ids_spark.lake.store import Lake
from tests.support.incident_rows import NIGHT, alert, verdict

DAY = dt.timedelta(days=1)
ENTITIES = ("pump-1", "pump-2", "10.0.0.9")
HISTORY = st.lists(
    st.tuples(
        st.sampled_from(verdicts.NAMES),
        st.integers(-3, 2),  # night of the incident, from the first that is kept
        st.sets(st.sampled_from(ENTITIES), min_size=1),
        st.integers(-2, 4),  # last night of a mute, from the first that is kept
        st.sampled_from("ab"),
    ),
    max_size=10,
)


def rows_of(history: list[tuple[str, int, set[str], int, str]]) -> list[dict[str, object]]:
    rows = []
    for minute, (kind, night, entities, until, name) in enumerate(history):
        alerts = [alert(f"{night}-{name}", each, flagged=(7 + minute, 1, 0)) for each in sorted(entities)]
        last = NIGHT + until * DAY if kind == "mute" else None
        rows.append(verdict(kind, alerts, date=NIGHT + night * DAY, minute=minute, until=last))
    return rows


def said(given_rows: list[dict[str, object]], night: dt.date) -> tuple[object, ...]:
    """What verdicts say on a night, without their texts."""
    force = verdicts.in_force(given_rows, night)
    decided = {
        incident: (found.newest["verdict"], found.learned, found.muted) for incident, found in force.incidents.items()
    }
    return (
        decided,
        {cell: bursts for cell, (bursts, _) in force.learned.items()},
        {cell: until for cell, (until, _) in force.muted.items()},
    )


@given(HISTORY)
@settings(max_examples=300, deadline=None)
def test_on_nights_that_are_kept_the_verdicts_say_what_they_said_before(history) -> None:
    rows = rows_of(history)
    kept = after_purge(rows, NIGHT)
    for days in range(4):
        assert said(kept, NIGHT + days * DAY) == said(rows, NIGHT + days * DAY)
    assert after_purge(kept, NIGHT) == kept
    assert [row for row in kept if row["event_date"] >= NIGHT] == [row for row in rows if row["event_date"] >= NIGHT]
    for row in (row for row in kept if row["event_date"] < NIGHT):
        assert (row["owner"], row["reason"]) == (None, None)
        assert row["verdict"] in ("benign", "mute", "unlearn")


def test_what_still_applies_is_gathered_in_one_file_and_empty_files_are_deleted(tmp_path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    old, scan = NIGHT - DAY, [alert("scan", "pump-1")]
    lines = {
        "a": verdict("benign", scan, date=old, minute=1),
        "b": verdict("true", [alert("flood", "pump-2")], date=old, minute=2),
        "c": verdict("mute", [alert("flood", "pump-2")], minute=3, until=NIGHT + DAY),
    }
    for run_id, row in lines.items():
        lake.write("verdicts", [{**row, "run_id": run_id}], run_id=run_id)
    staged: list[str] = []

    def stage(place: str) -> str:
        staged.append(place)
        return lake.uri(place)

    assert purge_verdicts(lake, stage, NIGHT) == {"verdicts/a.parquet": 1, "verdicts/b.parquet": 1}
    assert sorted(staged) == ["verdicts/a.parquet", "verdicts/b.parquet"]
    left = {row["run_id"]: row for row in verdicts.read(lake)}
    assert {run_id: (row["verdict"], row["owner"]) for run_id, row in left.items()} == {
        "a": ("benign", None),
        "c": ("mute", "A. Nurse"),
    }
    assert purge_verdicts(lake, stage, NIGHT) == {}
    assert names_in(lake.uri("verdicts")) == ["a.parquet", "c.parquet"]
    assert purge_verdicts(lake, stage, NIGHT + DAY) == {"verdicts/a.parquet": 0, "verdicts/c.parquet": 1}
    assert [(row["run_id"], row["owner"]) for row in verdicts.read(lake)] == [("a", None), ("c", None)]
    staged.clear()
    assert purge_verdicts(lake, stage, NIGHT + DAY) == {}
    assert (staged, names_in(lake.uri("verdicts"))) == ([], ["a.parquet"])
    assert purge_verdicts(lake, stage, NIGHT + 2 * DAY) == {"verdicts/a.parquet": 1}  # the mute has ended
    assert [row["run_id"] for row in verdicts.read(lake)] == ["a"]
