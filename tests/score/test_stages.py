import dataclasses
import datetime as dt

import numpy as np
import pyarrow as pa
import pytest

from ids_spark.alerts.evidence import entity_keys
from ids_spark.alerts.life import NightIncidents
from ids_spark.config.score import ScoreConfig
from ids_spark.dataset.tables import TRAFFIC
from ids_spark.score.night_incidents import Earlier
from ids_spark.score.stages import stage_of
from tests.support.incident_rows import NIGHT, alert, tables, verdict
from tests.support.models import CARD

DAY = dt.timedelta(days=1)
LOCAL = dataclasses.replace(CARD, local={"train_rows": 9})
CONFIG = ScoreConfig(learning_nights=4, provisional_nights=2, device_learning_nights=3)


def keys(*names, kind="device_id"):
    return entity_keys([kind] * len(names), names)


def traffic(*names, source=()):
    found = [*keys(*names), *keys("file.parquet", kind="source_file"), *keys(*source, kind="src_ip")]
    is_source = [False] * (len(names) + 1) + [True] * len(source)
    start = dt.datetime.combine(NIGHT, dt.time(3), dt.UTC)
    columns = [pa.array(found), pa.array(is_source), pa.array([start] * len(found), TRAFFIC.field("window_start").type)]
    return pa.table([*columns, pa.array([5] * len(found), pa.int32())], schema=TRAFFIC)


def earlier(n, incidents=1, version=CARD.version, devices=("pump-1",), given=(), every=1):
    """Nights before tonight, each with incidents of its own."""
    nights = {}
    for i in range(1, n + 1):
        date = NIGHT - i * every * DAY
        champion = {"model": CARD.name, "model_version": version, "false_incidents": 1.0}
        rows = tables([alert(f"{date}-{k}", "pump-1") for k in range(incidents)])
        nights[date] = NightIncidents(*rows, champion, np.sort(keys(*devices)))
    return Earlier(nights=nights, given=given)


def stage(before, card=CARD, config=CONFIG, devices=("pump-1",)):
    return stage_of(NIGHT, traffic(*devices), ["file.parquet"], before, card, config)


@pytest.mark.parametrize(
    ("before", "card", "expected"),
    [
        (Earlier(), CARD, "learning"),
        (earlier(3), CARD, "learning"),
        (earlier(4), CARD, "operating"),
        (earlier(4, every=10), CARD, "learning"),  # only two of them are of the last 28 dates
        (Earlier(), LOCAL, "provisional"),
        (earlier(1), LOCAL, "provisional"),
        (earlier(2), LOCAL, "operating"),
        (earlier(9, version="another"), LOCAL, "provisional"),
        (earlier(9, version="another"), CARD, "provisional"),
        (earlier(2, incidents=2), LOCAL, "provisional"),  # 4 may be false, 2 were promised
    ],
)
def test_the_stage_follows_nights_and_budget(before, card, expected):
    found = stage(before, card)
    assert found.stage == expected
    assert found.text.startswith(expected.capitalize())
    assert found.learning.site == (expected == "learning")


def test_the_text_says_what_was_observed_and_promised():
    found = stage(earlier(2, incidents=2), LOCAL)
    assert "0 to 4 false incidents" in found.text
    assert "4 incidents without a verdict" in found.text
    night = NIGHT - DAY
    given = [verdict("benign", [alert(f"{night}-{k}", "pump-1")], date=night) for k in range(2)]
    assert "2 to 4 false incidents" in stage(earlier(2, incidents=2, given=given), LOCAL).text
    given = [verdict("true", [alert(f"{night}-{k}", "pump-1")], date=night) for k in range(2)]
    assert stage(earlier(2, incidents=2, given=given), LOCAL).stage == "operating"
    assert "night 4 of 4" in stage(earlier(3)).text


@pytest.mark.parametrize(("nights", "new"), [(2, 0), (3, 1), (9, 1)])
def test_a_device_is_new_at_a_site_that_is_known(nights, new):
    found = stage(earlier(nights), devices=("pump-1", "pump-2"))
    assert found.device_keys.tolist() == keys("pump-2").tolist()[:new]
    assert found.row()["devices_learning"] == new


@pytest.mark.parametrize(("first", "new"), [(1, True), (2, True), (3, False), (8, False)])
def test_a_device_learns_for_its_first_nights(first, new):
    nights = dict(earlier(9).nights)
    date = NIGHT - first * DAY  # seen on one night only
    nights[date] = nights[date]._replace(devices=np.sort(keys("pump-1", "pump-2")))
    found = stage(Earlier(nights=nights), devices=("pump-1", "pump-2"))
    assert (len(found.device_keys) == 1) == new


def test_nights_without_traffic_and_a_setting_of_0_say_nothing_of_devices():
    nights = {date: night._replace(devices=None) for date, night in earlier(9).nights.items()}
    assert not len(stage(Earlier(nights=nights), devices=("new",)).device_keys)
    never = ScoreConfig(learning_nights=0, device_learning_nights=0)
    found = stage(Earlier(), config=never, devices=("new",))
    assert (found.stage, len(found.device_keys)) == ("provisional", 0)
