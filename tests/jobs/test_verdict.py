"""Verdicts on stored nights: what is written, what is folded, what is refused."""

import datetime as dt
import json
import random
from pathlib import Path

import pandas as pd
import pytest

from ids_spark.lake.store import Lake
from tests.support.audits import drop_refusals
from tests.support.browser import Page
from tests.support.in_process import run
from tests.support.incident_rows import NIGHT, alert
from tests.support.stored_night import store_night

DAY = dt.timedelta(days=1)
SCAN, FLOOD, SPOOF = (f"{n}" * 32 for n in "abc")
LATER = SCAN.replace("a", "d")


def alerts_of_night(scan=SCAN):
    return [
        alert(scan, "pump-1"),
        alert(scan, "10.0.0.9", source=True, log10_p=-12.0),
        alert(FLOOD, "pump-1", "DDoS", log10_p=-20.0),
        alert(SPOOF, "monitor-2", "Spoofing", log10_p=-6.0),
    ]


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    made = Lake(str(tmp_path / "lake"))
    store_night(made, alerts_of_night())
    store_night(made, [alert(LATER, "pump-1"), alert(LATER, "10.0.0.9", source=True)], NIGHT + DAY)
    return tmp_path


def decide(folder: Path, kind: str, *ids: str, date: dt.date = NIGHT, **more: object) -> tuple[int, str]:
    given = {"date": date, "incidents": " ".join(ids), "verdict": f"'{kind}'", "owner": "Ada", "reason": "backup"}
    return run(folder, "verdict", *(f"verdict.{name}={value}" for name, value in {**given, **more}.items()))


def rows(folder: Path, table: str, date: dt.date = NIGHT) -> pd.DataFrame:
    return pd.read_parquet(folder / "lake" / table / f"event_date={date}")


def states(folder: Path, date: dt.date = NIGHT) -> dict[str, str]:
    found = rows(folder, "incidents", date)
    return dict(zip(found["incident_id"], found["state"], strict=True))


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def exported(folder: Path) -> list[str]:
    text = (folder / f"lake/exports/event_date={NIGHT}/incidents.ecs.jsonl").read_text()
    return [json.loads(line)["event"]["id"] for line in text.splitlines()]


def test_a_benign_verdict_folds_the_incident_and_is_recorded(lake: Path) -> None:
    code, log = decide(lake, "benign", SCAN[:6])
    assert code == 0, log
    assert states(lake) == {SCAN: "learned", FLOOD: "open", SPOOF: "open"}
    found = rows(lake, "incidents").set_index("incident_id")
    assert found["rank"].to_dict()[FLOOD] == 1
    assert found["rank"].to_dict()[SPOOF] == 2
    assert pd.isna(found["rank"][SCAN])
    assert found.loc[SCAN, ["verdict", "verdict_owner", "verdict_reason"]].tolist() == ["benign", "Ada", "backup"]
    assert sorted(exported(lake)) == [FLOOD, SPOOF]
    night = rows(lake, "nights").iloc[0]
    assert (night["incidents_learned"], night["incidents_muted"], night["incidents_closed"]) == (1, 0, 0)
    assert night["rows_scored"] == 1_199_800
    [stored] = pd.read_parquet(lake / "lake/verdicts").to_dict("records")
    assert (stored["incident_id"], stored["event_date"], stored["category"]) == (SCAN, NIGHT, "Recon")
    assert [entity["name"] for entity in stored["entities"]] == ["pump-1", "10.0.0.9"]
    assert len(stored["learned"]) == 2
    assert (lake / f"lake/reports/night/event_date={NIGHT}/night.html").exists()
    index = Page((lake / "lake/reports/index.html").read_text())
    assert [
        (each.get("data-true"), each.get("data-benign")) for each in index.root.iter("p") if each.get("data-true")
    ] == [("0", "1")]


def test_the_audit_says_who_decided_what_and_has_neither_names_of_entities_nor_free_text(lake: Path) -> None:
    decide(lake, "benign", SCAN[:6])
    audit = pd.read_parquet(lake / "lake/audit").iloc[0]
    [first, later] = audit["notes"]
    for part in (str(NIGHT), SCAN, "benign", "Ada"):
        assert part in first
    assert "backup" not in str(audit.to_dict())
    assert str(NIGHT + DAY) in later
    assert not any(name in note for note in audit["notes"] for name in ("pump-1", "10.0.0.9"))
    counts = {row["what"]: row["rows"] for row in audit["counts"]}
    assert (counts["verdicts: benign"], counts["incidents learned"], counts["incidents open"]) == (1, 1, 2)
    assert (audit["rows_in"], audit["rows_out"]) == (1, 1)


def test_other_nights_and_other_tables_are_not_touched(lake: Path) -> None:
    before = content(lake / "lake")
    decide(lake, "benign", SCAN)
    after = content(lake / "lake")
    changed = {path.split("/")[0] for path in after if before.get(path) != after[path]}
    assert changed == {"incidents", "alerts", "nights", "exports", "reports", "verdicts", "audit"}
    assert all(after[path] == data for path, data in before.items() if str(NIGHT) not in path)


def test_a_later_night_that_a_verdict_names_is_ranked_with_all_of_them(lake: Path) -> None:
    decide(lake, "benign", SCAN)
    assert states(lake, NIGHT + DAY) == {LATER: "open"}
    decide(lake, "true", SCAN, date=NIGHT)  # another verdict on the first night
    decide(lake, "close", LATER, date=NIGHT + DAY)
    assert states(lake, NIGHT + DAY) == {LATER: "closed"}


def test_a_learned_one_comes_back_when_it_is_unlearned(lake: Path) -> None:
    lines = [f"{NIGHT},{SCAN},benign,,Ada,backup", f"{NIGHT + DAY},{LATER},benign,,Ada,backup"]
    assert bulk(lake, lines)[0] == 0
    assert states(lake, NIGHT + DAY) == {LATER: "learned"}
    assert decide(lake, "unlearn", LATER, date=NIGHT + DAY)[0] == 0
    assert states(lake, NIGHT + DAY) == {LATER: "open"}
    assert states(lake)[SCAN] == "learned"


def test_a_mute_lasts_until_its_date(lake: Path) -> None:
    until = dt.datetime.now(dt.UTC).date() + 30 * DAY
    assert decide(lake, "mute", SCAN, FLOOD, until=until)[0] == 0
    assert states(lake) == {SCAN: "muted", FLOOD: "muted", SPOOF: "open"}
    found = rows(lake, "incidents").set_index("incident_id")
    assert found["verdict_until"][SCAN] == until


def test_ranking_twice_gives_the_same(lake: Path) -> None:
    decide(lake, "benign", SCAN)
    first = {table: rows(lake, table) for table in ("incidents", "alerts", "nights")}
    decide(lake, "benign", SCAN)
    for table, frame in first.items():
        pd.testing.assert_frame_equal(frame, rows(lake, table))


def bulk(folder: Path, lines: list[str]) -> tuple[int, str]:
    (folder / "v.csv").write_text("\n".join(["date,incident_id,verdict,until,owner,reason", *lines]))
    return run(folder, "verdict", f"verdict.file={folder}/v.csv")


def test_the_order_of_lines_does_not_matter(lake: Path) -> None:
    lines = [
        f"{NIGHT},{SCAN},unlearn,,Ada,no",
        f"{NIGHT},{FLOOD},benign,,Ada,load test",
        f"{NIGHT},{SPOOF},close,,Ada,done",
        f"{NIGHT + DAY},{LATER},benign,,Ada,backup",
    ]
    found = []
    for seed in range(3):
        assert bulk(lake, random.Random(seed).sample(lines, 4))[0] == 0
        found.append((states(lake), states(lake, NIGHT + DAY)))
    assert found[0] == ({SCAN: "open", FLOOD: "learned", SPOOF: "closed"}, {LATER: "learned"})
    assert found[1] == found[0] == found[2]


def test_every_fault_is_listed_and_nothing_is_written(lake: Path) -> None:
    before = content(lake / "lake")
    code, log = bulk(
        lake,
        [
            f"{NIGHT},{SCAN[:6]},true,,Ada,ok",
            f"{NIGHT},eeeeee,true,,Ada,unknown",
            f"{NIGHT - DAY},{SCAN},true,,Ada,no such night",
            f"{NIGHT},{SCAN},close,,Ada,twice",
            f"{NIGHT},{FLOOD},mute,,,",
        ],
    )
    assert code == 2
    assert "6 fault(s)" in log
    for part in ("line 3", "line 4", "line 5", "line 6: owner", "line 6: reason", "line 6: until"):
        assert part in log
    drop_refusals(lake / "lake")
    assert content(lake / "lake") == before


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({"owner": "''"}, "verdict.owner"),
        ({"incidents": "[]"}, "verdict.incidents"),
        ({"incidents": "abc"}, "at least its first 6"),
        ({"incidents": "ffffff"}, "no incident"),
        ({"reason": '"a\\eb"'}, "control character"),
        ({"file": "x.csv"}, "remove verdict.date"),
    ],
)
def test_faults_of_settings(lake: Path, more: dict, found: str) -> None:
    before = content(lake / "lake")
    code, log = decide(lake, "close", SCAN, **more)
    assert (code, found in log) == (2, True), log
    drop_refusals(lake / "lake")
    assert content(lake / "lake") == before


def test_texts_of_people_are_escaped_on_the_page(lake: Path) -> None:
    code, log = decide(lake, "close", SCAN, reason="'<script>alert(1)</script>'", owner="'=cmd()'")
    assert code == 0, log
    page = (lake / f"lake/reports/night/event_date={NIGHT}/night.html").read_text()
    assert "<script>alert" not in page
