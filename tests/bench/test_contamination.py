"""The benchmark of contamination: attacks as many as asked for, where they are said to be; what its tables say."""

import datetime as dt
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ids_spark.dataset.taxonomy import CLASS19
from tests.bench import contamination_report
from tests.bench.contamination_nights import BENIGN_NIGHTS, NIGHTS, Hospital, Truth
from tests.bench.contamination_report import Result, Results
from tests.bench.contamination_site import Adapted, Case, Left, Recall, Scored

_HOSPITAL = Hospital(2_000, seed=1)


@pytest.mark.parametrize(("every_night", "nights", "classes"), [(False, 4, 18), (True, 7, 5)])
def test_a_week_has_the_attacks_that_its_truth_names(
    every_night: bool, nights: int, classes: int, tmp_path: Path
) -> None:
    truth = _HOSPITAL.write_week(tmp_path / "week", 0.05, every_night)
    logs = {path.relative_to(tmp_path / "week").as_posix(): pq.ParquetFile(path).read() for path in _files(tmp_path)}
    rows = sum(len(table) for table in logs.values())
    assert rows - len(truth) == 2_000 * NIGHTS
    assert len(truth) / rows == pytest.approx(0.05, rel=0.1)
    assert len({file.split("/")[0] for file, _ in truth}) == nights
    assert len(set(truth.values())) == classes
    assert set(truth.values()) <= set(CLASS19[1:])
    attackers = {logs[file]["src_ip"][row].as_py() for file, row in truth}
    assert all(address.startswith("203.0.113.") for address in attackers)
    assert _HOSPITAL.write_week(tmp_path / "again", 0.05, every_night) == truth


def test_two_nights_after_the_week_have_every_class(tmp_path: Path) -> None:
    later = _HOSPITAL.write_later(tmp_path / "later")
    assert [len(later.truth(date).flows) for date in later.benign] == [0] * BENIGN_NIGHTS
    attacks = [set(later.truth(date).flows) for date in later.attacked]
    assert [len(each) for each in attacks] == [9, 9]
    assert set().union(*attacks) == set(CLASS19[1:])
    assert set(later.truth(later.recurring).flows) == {each.class19 for each in _HOSPITAL.recurring(0.01)}
    assert all(later.logs(date).num_rows >= 2_000 for date in later.dates)


def test_an_incident_is_of_an_attack_whose_flows_explain_half_of_it() -> None:
    cells = {
        ("device_id", "pump", 3): Counter({"DDoS-SYN": 40, "ARP_Spoofing": 2}),
        ("src_ip", "203.0.113.9", 3): Counter({"DDoS-SYN": 4}),
    }
    truth = Truth({"DDoS-SYN": 40, "ARP_Spoofing": 10}, cells)
    pump, attacker = _alert("device_id", "pump", 30), _alert("src_ip", "203.0.113.9", 4)
    assert truth.of([pump, attacker]) == (True, {"DDoS-SYN"})
    assert truth.of([_alert("device_id", "pump", 30, hour=4)]) == (False, set())
    assert truth.of([_alert("src_ip", "203.0.113.9", 9)]) == (False, set())


def test_tables_compare_the_models_of_weeks_with_the_champion(tmp_path: Path) -> None:
    clean = _result(Case(0.0), {"DDoS-SYN": 0.9, "ARP_Spoofing": 0.8})
    attacked = _result(Case(0.01), {"DDoS-SYN": 0.9, "ARP_Spoofing": 0.5})
    results = Results({"flows": 2_000}, [clean, attacked], _scored([20, 30]))
    contamination_report.write(tmp_path, results)
    written = json.loads((tmp_path / "contamination.json").read_text())
    missed = {name for name, bar in written["bars"].items() if bar["result"] == "missed"}
    assert missed == {"7 nights, 1.0% attacks: most recall lost of a class"}
    assert written["champion"]["false_per_night"] == 25
    text = (tmp_path / "contamination.md").read_text()
    assert "0.150, ARP_Spoofing 0.300" in text  # mean and largest loss against the week without attacks
    assert "0.5 (0–1)" in text
    assert (tmp_path / "contamination.png").read_bytes().startswith(b"\x89PNG")


def _files(folder: Path) -> list[Path]:
    return sorted((folder / "week").glob("event_date=*/*.parquet"))


def _alert(kind: str, entity: str, flagged: int, hour: int = 3) -> dict[str, Any]:
    time = dt.datetime(2026, 3, 8, hour, tzinfo=dt.UTC)
    return {"entity_kind": kind, "entity": entity, "window_start": time, "flagged": [flagged, 0, 0], "level": 0}


def _scored(false: list[int]) -> Scored:
    return Scored(tuple(false), tuple(false), (1.0,) * len(false), (0,), ("DDoS-SYN",), (), 2, (), ("learning",), 1.0)


def _result(case: Case, recall: dict[str, float]) -> Result:
    left = Left(14_000, 140 if case.share else 0, 0.1 if case.share else None, {"DDoS-SYN": 0.1}, 0.002)
    compared = Recall({"DDoS-SYN": 0.9, "ARP_Spoofing": 0.7}, recall, ())
    return Result(case, left, 60.0, Adapted(True, _scored([0, 1]), (0.1, 0.01), compared, compared, 60.0))
