import datetime as dt
import io

import pytest
from rich.console import Console
from scipy import stats

from ids_spark.evaluate import precision
from ids_spark.evaluate.precision import Decided
from ids_spark.lake.store import Lake
from ids_spark.report.precision_table import print_precision
from tests.support.incident_rows import NIGHT, alert, tables, verdict

DAY = dt.timedelta(days=1)


def incident(name, category="Recon", state="open", shown=True):
    row = {"incident_id": name, "category": category, "state": state, "shown": shown, "data_origin": "measured"}
    return row, [alert(name, "pump-1", category)]


def printed(found):
    text = io.StringIO()
    print_precision(found, Console(file=text, width=110))
    return text.getvalue()


def test_what_was_seen_and_what_was_decided():
    scan, scan_alerts = incident("scan")
    flood, flood_alerts = incident("flood", "DDoS")
    noise, noise_alerts = incident("noise", state="learned", shown=False)  # by its own verdict
    folded, _ = incident("folded", state="learned", shown=False)  # by a verdict of an earlier night
    beyond, _ = incident("beyond", shown=False)
    muted, muted_alerts = incident("muted", state="muted", shown=False)
    rows = {NIGHT: [scan, flood, noise], NIGHT + DAY: [folded, beyond, muted, {**scan}]}
    given = [
        verdict("true", scan_alerts),
        verdict("close", scan_alerts, minute=1),
        verdict("benign", noise_alerts),
        verdict("benign", flood_alerts),
        verdict("unlearn", flood_alerts, minute=1),
        verdict("mute", muted_alerts, date=NIGHT + DAY, until=NIGHT + 2 * DAY),
        verdict("true", [alert("purged", "pump-1")], date=NIGHT - DAY),
    ]
    found = precision.decided(rows, given)
    assert found.total == Decided(seen=5, true=1, benign=1)
    assert found.categories == {"DDoS": Decided(1), "Recon": Decided(4, 1, 1)}
    assert (found.total.undecided, found.total.precision, found.data_origin) == (3, 0.5, "measured")


@pytest.mark.parametrize(("true", "benign"), [(0, 3), (7, 0), (9, 1), (40, 60)])
def test_the_interval_is_exact(true, benign):
    low, high = Decided(200, true, benign).interval
    expected = stats.binomtest(true, true + benign).proportion_ci(0.95, "exact")
    assert (low, high) == pytest.approx((expected.low, expected.high))


def test_without_a_verdict_nothing_is_claimed():
    row, _ = incident("scan")
    found = precision.decided({NIGHT: [row]}, [])
    assert found.total.precision is None
    assert "no verdict yet" in printed(found)
    assert printed(precision.decided({}, [])) == ""


def test_the_newest_nights_of_a_lake(tmp_path):
    lake = Lake(str(tmp_path / "lake"))
    assert precision.of_lake(lake, 28).nights == []
    for days, alerts in enumerate([[alert("a", "x")], [alert("b", "x")], []]):
        found, _ = tables(alerts, shown={row["incident_id"]: True for row in alerts})
        lake.write("incidents", found, event_date=NIGHT + days * DAY)
    lake.write("verdicts", [verdict("true", [alert("b", "x")], date=NIGHT + DAY)], run_id="r")
    (tmp_path / "lake/incidents/event_date=soon").mkdir()
    found = precision.of_lake(lake, 2)
    assert found.nights == [NIGHT + DAY, NIGHT + 2 * DAY]
    assert found.total == Decided(1, 1, 0)
    assert "1.00" in printed(found)
