"""Synthetic flagged flows throughout; the expectation is computed by pandas from the same rows."""

import datetime as dt
import hashlib
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ids_spark.alerts.old_incidents import AGGREGATES, aggregate, incident_keys, merge
from ids_spark.alerts.ranking import NightFacts, incident_id, rank
from ids_spark.alerts.severity import DEFAULT
from ids_spark.config.score import AlertsConfig
from ids_spark.dataset.tables import ATTRIBUTION, OLD_INCIDENTS, SCHEMA_VERSION
from ids_spark.dataset.taxonomy import CLASS19

ENTITIES = ("device_id", "src_ip")
NIGHT = dt.date(2026, 3, 1)
FACTS = NightFacts(
    NIGHT, "gru_dnn-19-paper", "20260201T000000Z-ab", 4.5, "r1", dt.datetime(2026, 3, 2, tzinfo=dt.UTC), "synthetic"
)


def at(clock):
    return dt.datetime.combine(NIGHT, dt.time.fromisoformat(clock), dt.UTC)


def attribution(name):
    return [{"feature": name, "value": 1.0, "contribution": 0.5}]


def flows(*rows, **columns):
    """Return flagged flows, given as (class, logit) or with columns; rows of one file if none is given."""
    n = len(rows)
    columns = {
        "source_file": ["a.parquet"] * n,
        "source_row": list(range(n)),
        "class_name": [row[0] for row in rows],
        "attack_logit": [float(row[1]) for row in rows],
        "attack_probability": [float(1 / (1 + np.exp(-row[1]))) for row in rows],
        **columns,
    }
    kinds = {"event_time": pa.timestamp("us", tz="UTC"), "attributions": pa.list_(ATTRIBUTION)}
    kinds |= dict.fromkeys((*ENTITIES, "source_file"), pa.string())
    return pa.table({name: pa.array(values, kinds.get(name)) for name, values in columns.items()})


def many(n, seed=11, devices=300):
    """Return n random flagged flows: a tenth without a device, some without time or attributions, many equal logits."""
    rng = np.random.default_rng(seed)
    logits = np.round(rng.normal(6, 4, n).clip(-80, 12), 1)  # ties at 12, as for saturated scores
    steps = np.where(rng.random(n) < 0.6, 3, 0)
    length = int(steps.sum())
    reasons = pa.StructArray.from_arrays(
        [
            pa.array(["Rate", "IAT", "Min", "Max"]).take(pa.array(rng.integers(0, 4, length))),
            pa.array(rng.random(length)),
            pa.array(rng.random(length, dtype=np.float32)),
        ],
        fields=list(ATTRIBUTION),
    )
    times = np.datetime64("2026-03-01", "us") + rng.integers(0, 86_400_000_000, n).astype("timedelta64[us]")
    text = {"device_id": devices, "src_ip": 50, "source_file": 8}
    columns = {
        name: pa.array([f"{name}-{i}" for i in range(k)]).take(pa.array(rng.integers(0, k, n)))
        for name, k in text.items()
    }
    columns["device_id"] = pa.array(columns["device_id"].to_numpy(zero_copy_only=False), mask=rng.random(n) < 0.1)
    return pa.table(
        {
            **columns,
            "source_row": pa.array(np.arange(n)),
            "event_time": pa.array(times, mask=rng.random(n) < 0.05).cast(pa.timestamp("us", tz="UTC")),
            "class_name": pa.DictionaryArray.from_arrays(pa.array(rng.integers(1, 19, n, np.int32)), pa.array(CLASS19)),
            "attack_logit": pa.array(logits),
            "attack_probability": pa.array((1 / (1 + np.exp(-logits))).astype(np.float32)),
            "attributions": pa.ListArray.from_arrays(
                pa.array(np.append(0, np.cumsum(steps)).astype(np.int32)), reasons
            ),
        }
    )


def by_pandas(table):
    """Return the expected result of `aggregate`, computed by pandas."""
    frame = table.drop_columns(["attributions"]).to_pandas()
    frame["class_name"] = frame["class_name"].astype(str)
    frame["entity_kind"] = np.where(frame["device_id"].notna(), "device_id", "src_ip")
    frame["entity"] = frame["device_id"].fillna(frame["src_ip"])
    unknown = pd.Timestamp("2200-01-01", tz="UTC")  # pandas does not align null keys
    frame["window_start"] = frame["event_time"].dt.floor("60min").fillna(unknown)
    frame["with_reasons"] = table["attributions"].combine_chunks().value_lengths().to_numpy() > 0
    keys = ["entity_kind", "entity", "class_name", "window_start"]
    found = frame.groupby(keys).agg(
        flows=("source_row", "size"),
        first_seen=("event_time", "min"),
        last_seen=("event_time", "max"),
        max_attack_probability=("attack_probability", "max"),
        max_attack_logit=("attack_logit", "max"),
    )
    best = frame[frame["with_reasons"]].sort_values(["source_file", "source_row"])
    best = best.sort_values("attack_logit", ascending=False, kind="stable").groupby(keys).head(1)
    found["explained_row"] = best.set_index(keys)["source_row"]
    found = found.reset_index().sort_values(keys).reset_index(drop=True)
    return found.assign(window_start=found["window_start"].where(found["window_start"] != unknown))


def rows_of(table):
    return table.to_pylist()


def test_flows_of_one_entity_class_and_window_are_one_incident():
    table = flows(
        *[("DoS-TCP", 3), ("DoS-TCP", 5), ("DoS-TCP", 4), ("DoS-UDP", 4), ("DoS-TCP", 4)],
        device_id=["pump-1", "pump-1", "pump-1", "pump-1", "pump-2"],
        event_time=[at("10:59:59.999999"), at("10:00"), at("11:00"), at("10:30"), at("10:30")],
        attributions=[attribution("Rate"), attribution("IAT"), None, attribution("Min"), []],
    )
    found = aggregate(table, ENTITIES, 60)
    assert found.schema.equals(AGGREGATES)
    shown = [
        tuple(row[k] for k in ("entity", "class_name", "window_start", "flows", "attributions"))
        for row in rows_of(found)
    ]
    assert shown == [
        ("pump-1", "DoS-TCP", at("10:00"), 2, attribution("IAT")),
        ("pump-1", "DoS-TCP", at("11:00"), 1, None),
        ("pump-1", "DoS-UDP", at("10:00"), 1, attribution("Min")),
        ("pump-2", "DoS-TCP", at("10:00"), 1, None),
    ]
    first = rows_of(found)[0]
    assert (first["first_seen"], first["last_seen"]) == (at("10:00"), at("10:59:59.999999"))
    assert (first["max_attack_logit"], first["max_attack_probability"]) == (5.0, pytest.approx(0.9933071))
    assert {row["entity_kind"] for row in rows_of(found)} == {"device_id"}


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"device_id": ["d", None, "", ""], "src_ip": ["s", "s", "s", None]}, ["d", "s", "s", "f"]),
        ({"src_ip": ["s", None, "", "t"]}, ["s", "f", "f", "t"]),
        ({}, ["f", "f", "f", "f"]),
    ],
)
def test_the_entity_is_the_first_column_with_a_value_else_the_file(columns, expected):
    table = flows(*[(name, 1) for name in CLASS19[1:5]], source_file=["f"] * 4, **columns)
    kinds = {"d": "device_id", "s": "src_ip", "t": "src_ip", "f": "source_file"}
    found = {row["class_name"]: (row["entity"], row["entity_kind"]) for row in rows_of(aggregate(table, ENTITIES, 60))}
    assert [found[name] for name in CLASS19[1:5]] == [(name, kinds[name]) for name in expected]


@pytest.mark.parametrize(
    ("minutes", "starts"),
    [
        (60, ["00:00", "00:00", "13:00", "23:00"]),
        (7, ["00:00", "00:07", "13:18", "23:55"]),  # counted from midnight, also if a day is not a multiple
        (1440, ["00:00", "00:00", "00:00", "00:00"]),
    ],
)
def test_windows_begin_at_midnight(minutes, starts):
    clocks = ["00:06:59.999999", "00:07", "13:24:59", "23:59"]
    table = flows(*[(name, 1) for name in CLASS19[1:5]], event_time=[at(clock) for clock in clocks])
    found = {row["class_name"]: row["window_start"] for row in rows_of(aggregate(table, ENTITIES, minutes))}
    assert [found[name] for name in CLASS19[1:5]] == [at(start) for start in starts]


@pytest.mark.parametrize("columns", [{}, {"event_time": [None, None]}])
def test_without_event_times_there_is_one_window_without_times(columns):
    [row] = rows_of(aggregate(flows(("DoS-TCP", 1), ("DoS-TCP", 2), **columns), ENTITIES, 60))
    assert (row["flows"], row["window_start"], row["first_seen"], row["last_seen"]) == (2, None, None, None)


def test_times_before_1970_have_their_window():
    before = dt.datetime(1969, 12, 31, 23, 59, tzinfo=dt.UTC)
    [row] = rows_of(aggregate(flows(("DoS-TCP", 1), event_time=[before]), ENTITIES, 60))
    assert row["window_start"] == before.replace(minute=0)


def test_attributions_are_those_of_the_highest_explained_flow_and_ties_go_by_file_and_row():
    table = flows(
        *[("DoS-TCP", 9), ("DoS-TCP", 7), ("DoS-TCP", 7), ("DoS-TCP", 7), ("DoS-TCP", 5)],
        source_file=["a", "b10", "b10", "b2", "a"],
        source_row=[1, 8, 5, 1, 0],
        attributions=[None, attribution("Min"), attribution("Max"), attribution("IAT"), attribution("Rate")],
        device_id=["d"] * 5,
    )
    for order in (slice(None), slice(None, None, -1)):
        turned = table.take(pa.array(np.arange(5)[order]))
        [row] = rows_of(aggregate(turned, ENTITIES, 60))
        assert (row["attributions"], row["max_attack_logit"]) == (attribution("Max"), 9.0)
        assert (row["explained_file"], row["explained_row"], row["explained_logit"]) == ("b10", 5, 7.0)


def test_no_flow_is_no_incident():
    nothing = aggregate(many(5).slice(0, 0), ENTITIES, 60)
    assert (len(nothing), nothing.schema) == (0, AGGREGATES)
    assert (len(merge([])), len(merge([nothing, nothing]))) == (0, 0)
    table, total = rank(merge([]), DEFAULT, AlertsConfig(), FACTS)
    assert (len(table), total, table.schema) == (0, 0, OLD_INCIDENTS)


def test_incidents_equal_the_groups_of_pandas():
    table = many(40_000, devices=40)
    found = (
        aggregate(table, ENTITIES, 60).drop_columns(["attributions", "explained_logit", "explained_file"]).to_pandas()
    )
    expected = by_pandas(table)
    assert expected["window_start"].isna().any()
    assert expected["explained_row"].isna().any()
    pd.testing.assert_frame_equal(found, expected[found.columns], check_dtype=False)
    reasons = dict(zip(table["source_row"].to_pylist(), table["attributions"].to_pylist(), strict=True))
    whole = rows_of(aggregate(table, ENTITIES, 60))
    assert all(
        row["attributions"] == (reasons[row["explained_row"]] if row["explained_row"] is not None else None)
        for row in whole
    )


def test_each_incident_has_one_flow_of_highest_logit():
    table = many(40_000, devices=40)
    logits = table["attack_logit"].to_numpy()
    highest = table.filter(pa.array(incident_keys(table, ENTITIES, 60).highest_flows(logits)))
    found = aggregate(table, ENTITIES, 60)
    assert len(highest) == len(found)
    by_key = aggregate(highest, ENTITIES, 60)
    keys = ["entity_kind", "entity", "class_name", "window_start", "max_attack_logit"]
    assert by_key.select(keys).equals(found.select(keys))
    assert incident_keys(table.slice(0, 0), ENTITIES, 60).highest_flows(logits[:0]).tolist() == []


@pytest.fixture(scope="module")
def million():
    return many(1_000_000)


def test_a_million_flagged_flows_take_seconds(million):
    started = time.process_time()  # of all threads; the machine may be busy with other work
    merged = merge([aggregate(million, ENTITIES, 60)])
    table, total = rank(merged, DEFAULT, AlertsConfig(), FACTS)
    assert time.process_time() - started < 15  # 3 s measured
    assert (len(table), total) == (50, len(merged))
    assert sum(merged["flows"].to_pylist()) == len(million)


@pytest.mark.parametrize("partitions", [3, 17])
def test_any_partitioning_gives_the_same_incidents(million, partitions):
    whole = aggregate(million, ENTITIES, 60)
    partition_of = np.random.default_rng(partitions).permutation(len(million)) % partitions
    parts = [aggregate(million.filter(pa.array(partition_of == i)), ENTITIES, 60) for i in range(partitions)]
    joined = merge([merge(parts[:2]), *reversed(parts[2:])])
    assert joined.equals(whole)
    first, second = (rank(incidents, DEFAULT, AlertsConfig(most_lines=200), FACTS)[0] for incidents in (joined, whole))
    assert first.equals(second)


def test_the_order_is_severity_then_flows_times_score_then_logit_then_time():
    table = pa.concat_tables(
        [
            flows(
                ("Recon-Ping_Sweep", 9), *[("DoS-TCP", 0.0)] * 10, device_id=["a"] * 11, event_time=[at("01:00")] * 11
            ),
            flows(*[("DoS-UDP", 2.0)] * 4, device_id=["b"] * 4, event_time=[at("02:00")] * 4),
            flows(*[("DoS-UDP", 60.0)] * 9, device_id=["c"] * 9, event_time=[at("04:00")] * 9),
            flows(*[("DoS-UDP", 70.0)] * 9, device_id=["d"] * 9, event_time=[at("05:00")] * 9),
            flows(*[("DoS-UDP", 60.0)] * 9, device_id=["e"] * 9, event_time=[at("03:00")] * 9),
            flows(*[("DoS-UDP", 60.0)] * 9, device_id=["f"] * 9, event_time=[at("03:00")] * 9),
            flows(("MQTT-DDoS-Connect_Flood", -1.0), device_id=["g"], event_time=[at("06:00")]),
        ]
    )
    found, total = rank(merge([aggregate(table, ENTITIES, 60)]), DEFAULT, AlertsConfig(), FACTS)
    assert found["entity"].to_pylist() == ["g", "d", "e", "f", "c", "a", "b", "a"]
    assert found["rank"].to_pylist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert found["severity"].to_pylist() == ["critical", *["high"] * 6, "low"]
    assert found["category"].to_pylist() == ["MQTT", *["DoS"] * 6, "Recon"]
    assert total == 8
    capped, all_of_them = rank(merge([aggregate(table, ENTITIES, 60)]), DEFAULT, AlertsConfig(most_lines=3), FACTS)
    assert (capped.equals(found.slice(0, 3)), all_of_them) == (True, 8)


def test_many_flows_raise_the_severity_of_their_incident():
    table = flows(*[("Recon-Ping_Sweep", 3)] * 1_000, *[("Recon-Port_Scan", 3)] * 999)
    found, _ = rank(merge([aggregate(table, ENTITIES, 60)]), DEFAULT, AlertsConfig(), FACTS)
    assert list(zip(found["class_name"].to_pylist(), found["severity"].to_pylist(), strict=True)) == [
        ("Recon-Ping_Sweep", "medium"),
        ("Recon-Port_Scan", "low"),
    ]


def test_an_incident_states_model_threshold_and_run():
    table = flows(("Attack", 6), device_id=["d"], event_time=[at("10:30")], attributions=[attribution("Rate")])
    [row] = rows_of(rank(aggregate(table, ENTITIES, 60), DEFAULT, AlertsConfig(), FACTS)[0])
    assert (row["model"], row["model_version"], row["run_id"]) == ("gru_dnn-19-paper", "20260201T000000Z-ab", "r1")
    assert (row["threshold_logit"], row["data_origin"], row["created_at"]) == (4.5, "synthetic", FACTS.created_at)
    assert (row["category"], row["severity"], row["top_attributions"]) == ("Attack", "medium", attribution("Rate"))
    assert (row["max_attack_logit"], row["schema_version"]) == (6.0, SCHEMA_VERSION)


def test_an_incident_id_is_the_same_in_every_run_and_unique(million):
    found, _ = rank(aggregate(million, ENTITIES, 60), DEFAULT, AlertsConfig(most_lines=100_000), FACTS)
    ids = found["incident_id"].to_pylist()
    assert len(set(ids)) == len(ids) == 100_000
    start = 1_772_359_200_000_000  # 2026-03-01 10:00 UTC
    name = incident_id(NIGHT, "device_id", "pump-1", "DoS-TCP", start)
    assert (
        name == hashlib.sha256(b'["2026-03-01", "device_id", "pump-1", "DoS-TCP", 1772359200000000]').hexdigest()[:32]
    )
    others = [
        incident_id(dt.date(2026, 3, 2), "device_id", "pump-1", "DoS-TCP", start),
        incident_id(NIGHT, "src_ip", "pump-1", "DoS-TCP", start),
        incident_id(NIGHT, "device_id", "pump-2", "DoS-TCP", start),
        incident_id(NIGHT, "device_id", "pump-1", "DoS-UDP", start),
        incident_id(NIGHT, "device_id", "pump-1", "DoS-TCP", None),
    ]
    assert len({name, *others}) == 6
    table = flows(("DoS-TCP", 6), device_id=["pump-1"], event_time=[at("10:59")])
    for run_id in ("r1", "r2"):
        facts = NightFacts(NIGHT, "m", run_id, 0.0, run_id, FACTS.created_at, "synthetic")
        assert rank(aggregate(table, ENTITIES, 60), DEFAULT, AlertsConfig(most_lines=1), facts)[0][
            "incident_id"
        ].to_pylist() == [name]
