import datetime as dt
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ids_spark.alerts.allow_list import LONGEST_DAYS, AllowListUnusable, read_allow_list
from ids_spark.dataset.taxonomy import CLASS19, UnknownClass, class6_of

EXAMPLE = Path(__file__).parents[2] / "conf" / "allow_list.yaml"
TODAY = dt.date(2026, 3, 1)
COLUMNS = ("flow_id", "device_id", "src_ip")
NIGHT = dt.date(2026, 2, 28)
BASE = "reason: weekly scan, owner: network team, expires: 2026-02-28"


@pytest.fixture
def listed(tmp_path):
    """Read an allow-list of entries, each given as the content of a YAML mapping."""

    def read_entries(*entries):
        path = tmp_path / "allow.yaml"
        path.write_text("".join(f"- {{{entry}}}\n" for entry in entries), encoding="utf-8")
        return read_allow_list(str(path), TODAY, COLUMNS)

    return read_entries


def flows(**columns):
    """Return invented flagged flows."""
    rows = len(next(iter(columns.values())))
    columns = {"class_name": ["Recon-VulScan"] * rows, **columns}
    if "event_time" in columns:
        columns["event_time"] = pa.array(columns["event_time"], pa.timestamp("us", tz="UTC"))
    return pa.table(columns)


def at(clock):
    return dt.datetime.combine(NIGHT, dt.time.fromisoformat(clock), dt.UTC)


def test_without_a_file_nothing_is_covered():
    mask, counts = read_allow_list(None, TODAY, COLUMNS).covers(flows(src_ip=["192.0.2.1"]), NIGHT)
    assert (mask.tolist(), counts.tolist()) == ([False], [])


def test_all_conditions_of_an_entry_must_hold(listed):
    allowed = listed(f"{BASE}, where: {{src_ip: [192.0.2.1, 192.0.2.2], device_id: pump-1}}, category: Recon")
    table = flows(
        src_ip=["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.1", "192.0.2.1", None],
        device_id=["pump-1", "pump-1", "pump-1", "pump-2", "pump-1", "pump-1"],
        class_name=["Recon-VulScan", "Recon-OS_Scan", "Recon-VulScan", "Recon-VulScan", "DoS-TCP", "Recon-VulScan"],
    )
    mask, counts = allowed.covers(table, NIGHT)
    assert mask.tolist() == [True, True, False, False, False, False]
    assert counts.tolist() == [2]


@pytest.mark.parametrize(
    ("condition", "covered"),
    [
        ("class_name: DoS-TCP", ["DoS-TCP"]),
        ("class_name: [DoS-TCP, Benign]", ["Benign", "DoS-TCP"]),
        ("class_name: Attack", ["DDoS-TCP", "DoS-TCP", "DoS", "Attack", "Unknown"]),
        ("category: Unknown", ["Unknown"]),
        ("class_name: Unknown, category: Attack", ["Unknown"]),
        ("category: DoS", ["DoS-TCP", "DoS"]),
        ("category: [DDoS, Benign]", ["Benign", "DDoS-TCP"]),
        ("category: DoS, class_name: DoS-TCP", ["DoS-TCP"]),
        ("category: DDoS, class_name: DoS-TCP", []),
        ("owner2: x", None),
    ],
)
def test_a_class_is_matched_by_its_name_its_category_or_attack(listed, condition, covered):
    entry = f"{BASE}, where: {{src_ip: a}}, {condition}"
    if covered is None:
        with pytest.raises(AllowListUnusable, match=r"entries.#1.owner2: unknown key"):
            listed(entry)
        return
    names = ["Benign", "DDoS-TCP", "DoS-TCP", "DoS", "Attack", "Unknown", None]
    mask, _ = listed(entry).covers(flows(src_ip=["a"] * 7, class_name=names), NIGHT)
    assert [name for name, found in zip(names, mask, strict=True) if found] == covered


def test_an_entry_covers_its_last_night_and_none_after_it(listed):
    allowed = listed(f"{BASE}, where: {{src_ip: a}}")
    table = flows(src_ip=["a", "b", "a"])
    assert allowed.covers(table, NIGHT)[1].tolist() == [2]
    assert allowed.covers(table, NIGHT - dt.timedelta(days=400))[1].tolist() == [2]
    mask, counts = allowed.covers(table, NIGHT + dt.timedelta(days=1))
    assert (mask.any(), counts.tolist()) == (False, [0])
    assert allowed.expired(NIGHT) == []
    assert allowed.expired(NIGHT + dt.timedelta(days=1)) == list(allowed.entries)


def test_notes_state_covered_flows_and_expired_entries_without_identifiers(listed):
    allowed = listed(
        f"{BASE}, where: {{src_ip: 192.0.2.77}}",
        "reason: pump restarts, owner: medical technology, expires: 2026-02-01, where: {device_id: pump-77}",
        "reason: unused, owner: x, expires: 2026-12-31, where: {device_id: pump-78}",
    )
    assert allowed.notes(NIGHT, [1200, 0, 0]) == [
        "allow-list entry 1 (weekly scan; network team) covered 1,200 flagged flow(s) of 2026-02-28;"
        " it expires after 2026-02-28",
        "allow-list entry 2 (pump restarts; medical technology) expired on 2026-02-01 and covers nothing;"
        " renew or remove it",
    ]
    notes = allowed.notes(NIGHT, [1200, 0, 0], hidden=True)
    assert len(notes) == 2
    assert not any("weekly scan" in note or "pump restarts" in note for note in notes)


def test_a_flow_that_two_entries_cover_counts_for_both(listed):
    allowed = listed(
        f"{BASE}, where: {{src_ip: a}}", f"{BASE}, where: {{device_id: d}}", f"{BASE}, where: {{flow_id: x}}"
    )
    mask, counts = allowed.covers(flows(src_ip=["a", "b", "a"], device_id=["d", "d", "e"]), NIGHT)
    assert (mask.tolist(), counts.tolist()) == ([True, True, True], [2, 2, 0])  # the logs have no flow_id


@pytest.mark.parametrize(
    ("interval", "inside"),
    [
        ('from: "00:00", until: "02:00"', ["00:00:00", "01:59:59.999999"]),
        ('from: "02:00", until: "22:00"', ["02:00:00", "12:10:00", "21:59:59"]),
        ('from: "22:00", until: "02:00"', ["00:00:00", "01:59:59.999999", "22:00:00", "23:59:59"]),
        ("from: 12:10, until: 12:10:01", ["12:10:00"]),  # YAML converts these to the numbers 730 and 43801
    ],
)
def test_a_time_of_day_includes_its_start_excludes_its_end_and_may_contain_midnight(listed, interval, inside):
    clocks = ["00:00:00", "01:59:59.999999", "02:00:00", "12:10:00", "21:59:59", "22:00:00", "23:59:59"]
    times = [*(at(clock) for clock in clocks), None]
    mask, _ = listed(f"{BASE}, where: {{src_ip: a}}, {interval}").covers(
        flows(src_ip=["a"] * 8, event_time=times), NIGHT
    )
    assert [clock for clock, found in zip(clocks, mask, strict=False) if found] == inside
    assert not mask[-1]


def test_flows_without_event_times_are_in_no_interval_of_time(listed):
    allowed = listed(f'{BASE}, where: {{src_ip: a}}, from: "00:00", until: "23:59"')
    assert allowed.covers(flows(src_ip=["a"]), NIGHT)[0].tolist() == [False]


def test_many_flows_are_matched_as_pandas_does_in_parts_and_as_a_whole(listed):
    rng = np.random.default_rng(5)
    n = 200_000
    devices, sources = [f"pump-{i}" for i in range(40)], [f"192.0.2.{i}" for i in range(256)]
    frame = pd.DataFrame(
        {
            "device_id": np.array(devices)[rng.integers(0, 40, n)],
            "src_ip": np.array(sources)[rng.integers(0, 256, n)],
            "class_name": np.array(CLASS19)[rng.integers(0, 19, n)],
            "event_time": pd.to_datetime(
                np.datetime64("2026-02-28") + rng.integers(0, 86_400, n) * np.timedelta64(1, "s")
            ),
        }
    )
    frame["event_time"] = frame["event_time"].dt.tz_localize("UTC").astype("datetime64[us, UTC]")
    allowed = listed(
        f'{BASE}, where: {{src_ip: [192.0.2.1, 192.0.2.9]}}, category: [Recon, MQTT], from: "06:30", until: "18:00"',
        f"{BASE}, where: {{device_id: pump-3}}, class_name: DoS-TCP",
    )
    clock = frame["event_time"].dt.hour * 100 + frame["event_time"].dt.minute
    first = frame["src_ip"].isin(["192.0.2.1", "192.0.2.9"]) & (clock >= 630) & (clock < 1800)
    first &= frame["class_name"].map(class6_of).isin(["Recon", "MQTT"])
    second = (frame["device_id"] == "pump-3") & (frame["class_name"] == "DoS-TCP")
    table = pa.Table.from_pandas(frame, preserve_index=False)
    coded = table.set_column(2, "class_name", table["class_name"].dictionary_encode())
    coded = coded.set_column(1, "src_ip", table["src_ip"].dictionary_encode())
    for whole in (table, coded):
        mask, counts = allowed.covers(whole, NIGHT)
        np.testing.assert_array_equal(mask, (first | second).to_numpy())
        assert counts.tolist() == [first.sum(), second.sum()]
    parts = [allowed.covers(table.slice(i, 60_000), NIGHT) for i in range(0, n, 60_000)]
    np.testing.assert_array_equal(np.concatenate([mask for mask, _ in parts]), mask)
    assert sum(count for _, count in parts).tolist() == counts.tolist()


def test_an_empty_table_is_accepted(listed):
    mask, counts = listed(f"{BASE}, where: {{src_ip: a}}").covers(flows(src_ip=pa.array([], pa.string())), NIGHT)
    assert (mask.shape, counts.tolist()) == ((0,), [0])


def test_an_unknown_class_is_refused(listed):
    with pytest.raises(UnknownClass, match="'Worm' is not a known class"):
        listed(f"{BASE}, where: {{src_ip: a}}").covers(flows(src_ip=["a"], class_name=["Worm"]), NIGHT)


def test_an_entry_expires_at_most_366_days_ahead(listed):
    last = TODAY + dt.timedelta(days=LONGEST_DAYS)
    entry = "reason: r, owner: o, expires: {}, where: {{src_ip: a}}"
    assert listed(entry.format(last)).entries[0].expires == last == dt.date(2027, 3, 2)
    with pytest.raises(AllowListUnusable) as error:
        listed(entry.format(last + dt.timedelta(days=1)))
    assert (
        "entries.#1.expires: 2027-03-03 is more than 366 days after today, 2026-03-01; renew it when it expires"
        in str(error.value)
    )


def test_every_fault_of_every_entry_is_listed_at_once(listed):
    with pytest.raises(AllowListUnusable) as error:
        listed(
            "reason: x",
            "reason: '', owner: o, expires: soon, where: {}, class_name: Zz",
            f"{BASE}, where: {{mac: a, event_time: b, src_ip: [11:22:33:44:55:06, yes, 0123], device_id: []}}",
            f'{BASE}, where: {{src_ip: a}}, from: "22:00Z", until: 3',
            f"{BASE}, where: {{src_ip: a}}, from: 10:00",
            f'{BASE}, where: {{src_ip: a}}, from: 10:00, until: "10:00"',
        )
    text = str(error.value)
    for part in (
        "allow.yaml has 16 fault(s):\n",
        "entries.#1.owner: missing\n",
        "entries.#1.expires: missing\n",
        "entries.#1.where: missing\n",
        "entries.#2.reason: Value should have at least 1 item",
        "entries.#2.expires: found 'soon'; expected a date, YYYY-MM-DD\n",
        "entries.#2.where: Dictionary should have at least 1 item",
        "entries.#2.class_name.#1: no class or category 'Zz'",
        "entries.#3.where.mac: no such column in score.pass_through; expected one of flow_id, device_id, src_ip\n",
        "entries.#3.where.event_time: no such column",
        "entries.#3.where.src_ip.#1: expected text; put it in quotes; found 8846009706\n",
        "entries.#3.where.src_ip.#2: expected text; put it in quotes; found True\n",
        "entries.#3.where.src_ip.#3: expected text; put it in quotes; found 83\n",
        "entries.#3.where.device_id: Value should have at least 1 item",
        "entries.#4.from: expected a time of day in UTC without a time zone; found 22:00:00+00:00\n",
        "entries.#5: from and until must be set together; found one of them\n",
        "entries.#6: from and until are both 10:00:00; omit both for the whole day\n",
        "See conf/allow_list.yaml",
    ):
        assert part in text
    assert "entries.#4.until" not in text  # three minutes past midnight


def test_the_example_in_conf_can_be_used_unchanged():
    allowed = read_allow_list(str(EXAMPLE), TODAY + dt.timedelta(days=270), ("device_id", "src_ip"))
    assert [entry.owner for entry in allowed.entries] == ["Network operations", "Medical technology"]
    table = flows(src_ip=["192.0.2.10", "192.0.2.10"], event_time=[at("23:00"), at("12:00")])
    assert allowed.covers(table, NIGHT)[0].tolist() == [True, False]


def test_an_empty_file_and_a_file_without_a_list(tmp_path):
    (tmp_path / "a.yaml").write_text("# nothing is accepted\n")
    assert read_allow_list(str(tmp_path / "a.yaml"), TODAY, COLUMNS).entries == ()
    (tmp_path / "a.yaml").write_text("device_id: pump-1\n")
    with pytest.raises(AllowListUnusable, match="device_id: unknown key"):
        read_allow_list(str(tmp_path / "a.yaml"), TODAY, COLUMNS)


def test_values_of_pseudonymised_columns_are_not_in_the_text_of_an_entry(listed):
    [entry] = listed(
        f'{BASE}, where: {{src_ip: [a, b], device_id: d}}, category: Recon, from: "22:00", until: "02:30"'
    ).entries
    known = {"reason": "weekly scan", "owner": "network team", "expires": dt.date(2026, 2, 28)}
    known |= {"category": "Recon", "from": "22:00", "until": "02:30"}
    assert entry.as_text() == known | {"src_ip": "a, b", "device_id": "d"}
    hidden = known | {"src_ip": "2 value(s)", "device_id": "d", "reason": "see the allow-list"}
    assert entry.as_text(["src_ip"]) == hidden


def test_an_allow_list_can_be_pickled_and_its_hash_depends_on_its_content(listed):
    allowed = listed(f"{BASE}, where: {{src_ip: a}}")
    assert pickle.loads(pickle.dumps(allowed)) == allowed  # noqa: S301
    assert allowed.sha256() == listed(f"{BASE}, where: {{src_ip: [a]}}").sha256()
    assert allowed.sha256() != listed(f"{BASE}, where: {{src_ip: b}}").sha256()
