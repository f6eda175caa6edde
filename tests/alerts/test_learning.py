import numpy as np
import pytest

from ids_spark.alerts import learning, verdicts
from ids_spark.alerts.evidence import entity_keys
from ids_spark.alerts.learning import Learning
from ids_spark.dataset.taxonomy import UNKNOWN
from tests.support.incident_rows import ALPHA, NIGHT, alert, tables, verdict

STRONG = {"log10_p": -40.0, "lead_flagged": 60, "lead_expected": 0.5, "nights_seen": 1, "category": "DDoS"}
PUMP = {"kind": "device_id", "name": "pump-1", "flows": 9}
KNOWN = {"kind": "device_id", "name": "pump-2", "flows": 9}
NEW = Learning(device_keys=entity_keys(["device_id"], ["pump-1"]))


def night(*incidents):
    """Incidents `0`, `1`, … with these columns beside those of strong evidence."""
    rows = [{**STRONG, **each} for each in incidents]
    names = {name for row in rows for name in row}
    columns = {name: {str(i): row.get(name) for i, row in enumerate(rows)} for name in names}
    found, _ = tables([alert(str(i), "pump-1") for i in range(len(rows))], **columns)
    return found


SITE = Learning(site=True)
ALL = {"DDoS", "Recon", UNKNOWN}


def states(incidents, learns=SITE, confirmed=(), categories=ALL):
    marked = learning.marked(incidents, learns, confirmed, categories)
    return learning.apply(marked, ALPHA)["state"].to_pylist()


@pytest.mark.parametrize(
    "weak",
    [
        {"log10_p": np.log10(ALPHA) - 5.9},
        {"lead_flagged": 9},
        {"nights_seen": 3},
        {"category": UNKNOWN},
    ],
)
def test_strong_evidence_is_far_below_alpha_of_several_flows_and_does_not_recur(weak):
    assert states(night({}, weak)) == ["open", "learning"]
    assert learning.strong(night({}, weak), ALPHA).tolist() == [True, False]
    assert states(night({}, weak), Learning()) == ["open", "open"]


def test_a_site_learns_only_categories_with_more_false_alarms_than_promised():
    weak = {"lead_flagged": 9}
    assert states(night(weak, {**weak, "category": "Recon"}), categories={"Recon"}) == ["open", "learning"]
    stored = np.array([[1e-2, 2e-3], [1e-3, 1e-4], [1e-3, 1e-4], [np.nan, np.nan]])
    used = np.array([[1.2e-2, 9e-3], [2.1e-3, 1e-4], [5e-4, 1e-4], [1e-3, 1e-4]])
    assert learning.differing(("DDoS", "Recon", "DoS", UNKNOWN), stored, used) == {"Recon", UNKNOWN}


def test_many_alike_are_how_the_site_is_and_one_far_above_them_is_not():
    alike = [{"lead_flagged": n} for n in (40, 50, 60, 70)]
    assert states(night(*alike)) == ["open"] * 4
    assert states(night(*alike, {"lead_flagged": 80})) == ["learning"] * 5
    assert states(night(*alike, {"lead_flagged": 600})) == ["learning"] * 4 + ["open"]
    assert states(night(*alike, {"lead_flagged": 80, "category": "Recon"})) == ["open"] * 5


@pytest.mark.parametrize(
    ("devices", "found", "who"),
    [
        ([PUMP], 1, "device"),
        ([PUMP, KNOWN], 2, None),
        ([PUMP], 21, None),  # devices beyond those that are listed may be known
        ([], 0, None),
        ([{"kind": "source_file", "name": "pump-1", "flows": 9}], 1, None),
    ],
)
def test_an_incident_is_of_a_learning_device_if_all_of_its_devices_are(devices, found, who):
    incidents = night({"devices": devices, "devices_found": found, "lead_flagged": 3})
    assert learning.marked(incidents, NEW, (), ALL)["learning"].to_pylist() == [who]
    assert states(incidents, NEW) == ["learning" if who else "open"]
    assert learning.marked(incidents, Learning(True, NEW.device_keys), (), ALL)["learning"].to_pylist() == ["site"]


def test_what_people_said_counts_more_than_learning():
    weak = {"lead_flagged": 3}
    confirmed = night({**weak, "previous_id": "yesterday"}, weak)
    assert states(confirmed, confirmed={"yesterday"}) == ["open", "learning"]
    incidents = night(weak, weak, weak, weak)
    alerts = [alert(str(i), "pump-1") for i in range(4)]
    given = [
        verdict("true", alerts[:1]),
        verdict("benign", alerts[1:2]),
        verdict("close", alerts[2:3]),
    ]
    _, table = tables(alerts)
    decided = verdicts.apply(incidents, table, verdicts.in_force(given, NIGHT), ALPHA)
    assert states(decided) == ["open", "learned", "closed", "learning"]


def test_no_incident_is_valid():
    assert states(night()) == []
