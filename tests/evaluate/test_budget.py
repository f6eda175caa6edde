import datetime as dt
import io

import pytest
from rich.console import Console

from ids_spark.alerts import verdicts
from ids_spark.evaluate import budget
from ids_spark.evaluate.budget import Budget
from ids_spark.lake.store import Lake
from ids_spark.report.precision_table import print_budget
from tests.support.incident_rows import NIGHT, alert, verdict
from tests.support.stored_night import store_night

DAY = dt.timedelta(days=1)


def nights(*observed, promised=1.0):
    return [Budget((NIGHT + i * DAY,), promised, low, high) for i, (low, high) in enumerate(observed)]


def printed(found, length=3):
    text = io.StringIO()
    print_budget(found, length, Console(file=text, width=110))
    return text.getvalue()


def test_observed_are_those_called_benign_and_at_most_those_without_a_verdict():
    ids = {
        "true": "open",
        "benign": "learned",
        "open": "open",
        "weak": "learning",
        "muted": "muted",
        "known": "learned",
    }
    rows = [{"incident_id": name, "state": state} for name, state in ids.items()]
    given = [verdict("true", [alert("true", "a")]), verdict("benign", [alert("benign", "a")])]
    found = budget.of_night(NIGHT, 2.0, rows, verdicts.by_incident(given))
    assert found == Budget((NIGHT,), 2.0, 1, 3)
    assert not found.held
    assert budget.of_night(NIGHT, 3.0, rows, verdicts.by_incident(given)).held
    assert budget.of_night(NIGHT + DAY, 3.0, rows, verdicts.by_incident(given)).at_least == 0  # verdicts are of a night


@pytest.mark.parametrize(
    ("observed", "first"),
    [
        ([(0, 0)], 0),
        ([(0, 9), (0, 0), (0, 0), (0, 0), (0, 0)], 3),
        ([(0, 0), (0, 0), (0, 9)], None),
        ([(3, 3), (0, 0), (0, 0)], 2),  # three in three nights
        ([], None),
    ],
)
def test_the_budget_holds_over_the_last_nights(observed, first):
    assert budget.held_from(budget.windows(nights(*observed), 3)) == first


def test_the_report_names_the_night_from_which_it_held():
    text = printed(nights((1, 9), (0, 0), (0, 0), (0, 0)))
    assert "1 to 9" in text
    assert "0.333 to 3" in text  # of three nights: 1/3 to 9/3
    assert f"held from {NIGHT + 3 * DAY} on, after 3 nights" in text
    assert "8 incidents without a verdict" in printed(nights((1, 9)))
    assert printed([]) == ""


def test_nights_of_a_lake(tmp_path):
    lake = Lake(str(tmp_path / "lake"))
    assert budget.of_lake(lake, 5) == []
    for i, alerts in enumerate([[alert("a", "x")], [alert("b", "x"), alert("c", "y")], []]):
        store_night(lake, alerts, NIGHT + i * DAY)
    lake.write("verdicts", [verdict("benign", [alert("b", "x")], date=NIGHT + DAY)], run_id="r")
    store_night(lake, [alert("d", "x")], NIGHT + 3 * DAY)
    [row] = lake.read("nights", event_date=NIGHT + 3 * DAY).to_pylist()
    lake.write("nights", [row | {"run_of_night": 7, "runs_per_night": 24}], event_date=NIGHT + 3 * DAY)  # not over
    found = budget.of_lake(lake, 3)
    assert [(each.nights[0], each.promised, each.at_least, each.at_most) for each in found] == [
        (NIGHT + DAY, 1.0, 1, 2),
        (NIGHT + 2 * DAY, 1.0, 0, 0),
    ]
