import datetime as dt
import random

import pyarrow as pa
import pytest

from ids_spark.alerts import life
from ids_spark.alerts.life import NightIncidents
from tests.support.incident_rows import NIGHT, alert, tables

DAY = dt.timedelta(days=1)
NOTHING = NightIncidents(*tables([]))


def night(*alerts, **columns):
    return NightIncidents(*tables(alerts, **columns))


def scan(incident, source="10.0.0.9", devices=("pump-1", "pump-2"), category="Recon"):
    return [alert(incident, source, category, source=True), *(alert(incident, device, category) for device in devices)]


def compared(alerts, earlier):
    """Return the life of tonight's incidents by id, and the ids of those that ended; dates as nights before tonight."""
    found, ended = life.compare(NIGHT, *tables(alerts), {NIGHT - n * DAY: rows for n, rows in earlier.items()})
    columns = ("life", "since", "nights_seen", "previous_id")
    rows = {row["incident_id"]: tuple(row[name] for name in columns) for row in found.to_pylist()}
    return rows, [row["incident_id"] for row in ended]


class TestLife:
    def test_without_earlier_nights_all_are_new(self):
        assert compared(scan("a"), {}) == ({"a": ("new", NIGHT, 1, None)}, [])

    def test_a_night_without_an_incident_is_valid(self):
        assert compared([], {1: night(*scan("x"))}) == ({}, ["x"])

    def test_it_continues_from_the_night_before(self):
        rows, ended = compared(scan("a"), {1: night(*scan("x"))})
        assert rows == {"a": ("continuing", NIGHT - DAY, 2, "x")}
        assert ended == []

    def test_a_missing_night_ends_nothing(self):
        rows, _ = compared(scan("a"), {4: night(*scan("x"))})
        assert rows["a"][0] == "continuing"

    def test_it_returns_after_a_scored_night_without_it(self):
        rows, _ = compared(scan("a"), {1: NOTHING, 2: night(*scan("x"))})
        assert rows == {"a": ("returned", NIGHT - 2 * DAY, 2, "x")}

    def test_a_closed_one_returns(self):
        rows, ended = compared(scan("a"), {1: night(*scan("x"), state={"x": "closed"})})
        assert rows["a"][0] == "returned"
        assert ended == []

    def test_one_that_was_not_closed_continues_beside_a_closed_one(self):
        both = night(*scan("x"), *scan("y"), state={"y": "closed"})
        assert compared(scan("a"), {1: both})[0]["a"] == ("continuing", NIGHT - DAY, 2, "x")

    def test_since_is_that_of_the_night_before(self):
        first = NIGHT - 60 * DAY
        assert compared(scan("a"), {1: night(*scan("x"), since={"x": first})})[0]["a"][1] == first

    def test_after_28_dates_it_is_new(self):
        assert compared(scan("a"), {28: night(*scan("x"))})[0]["a"][0] == "continuing"
        assert compared(scan("a"), {29: night(*scan("x"))})[0]["a"][0] == "new"

    def test_later_nights_are_not_earlier(self):
        assert compared(scan("a"), {0: night(*scan("x")), -1: night(*scan("y"))})[0]["a"][0] == "new"

    @pytest.mark.parametrize(("nights", "seen"), [((1, 2, 3, 4, 5, 6), 7), ((1, 3, 6), 4), ((1, 7, 8), 2)])
    def test_seen_on_nights_of_the_last_seven(self, nights, seen):
        earlier = {n: night(*scan(f"x{n}")) for n in nights}
        assert compared(scan("a"), earlier)[0]["a"][2] == seen


class TestSameAttack:
    @pytest.mark.parametrize(
        ("tonight", "before", "same"),
        [
            (scan("a"), scan("x", category="DDoS"), False),
            (scan("a", devices=["pump-1"]), scan("x", devices=["pump-9"]), True),
            (scan("a"), scan("x", source="10.0.0.7"), False),  # a shared hub, another attacker
            (scan("a"), [alert("x", "pump-1")], True),  # the attacker is not known
            ([alert("a", "pump-1")], [alert("x", "pump-2")], False),
            ([alert("a", "7")], [alert("x", "7", source=True)], False),  # equal names of a device and a source
        ],
    )
    def test_category_and_attacker_make_a_chain(self, tonight, before, same):
        assert compared(tonight, {1: night(*before)})[0]["a"][0] == ("continuing" if same else "new")

    def test_a_flood_from_random_addresses_is_recognised_by_its_victim(self):
        def flood(incident, first):
            sources = [alert(incident, f"198.51.100.{first + i}", "DDoS", source=True) for i in range(20)]
            return [*sources, alert(incident, "pump-1", "DDoS")]

        assert compared(flood("a", 0), {1: night(*flood("x", 100))})[0]["a"][0] == "continuing"

    def test_the_previous_one_shares_most_entities(self):
        earlier = night(*scan("x", devices=["pump-1"]), *scan("y"), *scan("z", devices=["pump-1"]))
        rows, ended = compared(scan("a"), {1: earlier})
        assert rows["a"][3] == "y"
        assert ended == []  # all three continue in it

    def test_the_result_does_not_depend_on_the_order_of_rows(self):
        before = [row for name in "xyz" for row in scan(name, devices=["pump-1", f"pump-{name}"])]
        expected = compared(scan("a"), {1: night(*before)})[0]
        for seed in range(5):
            shuffled = random.Random(seed).sample(before, len(before))
            assert compared(scan("a"), {1: night(*shuffled)})[0] == expected


class TestEnded:
    def test_open_incidents_of_the_last_night_that_nothing_continues(self):
        last = night(*scan("x"), *scan("y", "10.0.0.5"), *scan("z", "10.0.0.6"), state={"z": "muted"})
        older = night(*scan("w", "10.0.0.4"))
        assert compared(scan("a"), {1: last, 2: older})[1] == ["y"]

    def test_it_says_what_ended_and_since_when(self):
        _, [row] = life.compare(NIGHT, *tables([]), {NIGHT - DAY: night(*scan("x"))})
        assert row == {"incident_id": "x", "text": f"Recon: 10.0.0.9, since {NIGHT - DAY}"}


def test_columns_are_added_to_incidents_that_lack_them():
    incidents, alerts = tables(scan("a"))
    found, _ = life.compare(NIGHT, incidents.select(["incident_id", "category"]), alerts, {})
    assert found.schema.field("since").type == pa.date32()
    assert found["life"].to_pylist() == ["new"]
