"""Synthetic flows throughout; the expectation is computed by pandas from the same rows."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ids_spark.alerts import evidence
from ids_spark.alerts.evidence import Flagged, FlowKeys
from ids_spark.dataset.tables import ATTRIBUTION, EVIDENCE, TRAFFIC

ENTITIES, SOURCES = ("device_id", "src_ip"), ("src_ip",)
CLASSES = ("Benign", "DoS-TCP", "Recon-VulScan", "ARP_Spoofing", "Unknown")
NIGHT = np.datetime64("2026-03-01", "us")
UNKNOWN = pd.Timestamp("2200-01-01", tz="UTC")  # pandas does not align null keys


def many(n: int = 20_000, seed: int = 3) -> pd.DataFrame:
    """Flows: a tenth without a device, a twentieth without source or time; a fifth of them flagged."""
    rng = np.random.default_rng(seed)
    times = pd.Series(NIGHT + rng.integers(0, 86_400_000_000, n).astype("timedelta64[us]")).dt.tz_localize("UTC")
    frame = pd.DataFrame(
        {
            "device_id": pd.Series(rng.integers(0, 60, n)).map("device-{}".format).where(rng.random(n) > 0.1),
            "src_ip": pd.Series(rng.integers(0, 40, n)).map("192.0.2.{}".format).where(rng.random(n) > 0.05),
            "event_time": times.where(rng.random(n) > 0.05),
            "level": np.where(rng.random(n) < 0.2, rng.integers(1, 4, n), 0),
            "class_id": rng.integers(1, len(CLASSES), n),
            "logit": np.round(rng.normal(4, 3, n), 1),  # ties
            "allowed": rng.random(n) < 0.1,
            "row": np.arange(n),
        }
    )
    frame["file"] = np.where(frame["row"] < n // 2, "a.parquet", "b.parquet")
    return frame


def keys_of(frame: pd.DataFrame, **settings: Any) -> FlowKeys:
    table = pa.table(
        {
            "device_id": pa.array(frame["device_id"], pa.string(), from_pandas=True),
            "src_ip": pa.array(frame["src_ip"], pa.string(), from_pandas=True),
            "event_time": pa.array(frame["event_time"], pa.timestamp("us", tz="UTC"), from_pandas=True),
        }
    )
    [file] = frame["file"].unique()
    return evidence.keys_of(table, ENTITIES, SOURCES, settings.get("window", 60), file, settings.get("pseudonymised"))


def flagged_of(frame: pd.DataFrame) -> Flagged:
    at = np.flatnonzero(frame["level"])
    own = frame.iloc[at]
    names = [[{"feature": f"f{row}", "value": 1.0, "contribution": 0.5}] for row in own["row"]]
    return Flagged(
        at=at,
        class_ids=own["class_id"].to_numpy(np.int32),
        class_names=CLASSES,
        levels=own["level"].to_numpy(np.int32),
        allowed=own["allowed"].to_numpy(),
        logits=own["logit"].to_numpy(),
        probabilities=(1 / (1 + np.exp(-own["logit"]))).to_numpy(np.float32),
        scores=own["logit"].to_numpy(),
        file=frame["file"].iloc[0] if len(frame) else "a.parquet",
        rows=own["row"].to_numpy(),
        attributions=pa.array(names, pa.list_(ATTRIBUTION)),
    )


def counted(parts: Sequence[pd.DataFrame]) -> tuple[pa.Table, pa.Table]:
    keys = [keys_of(part) for part in parts]
    flags = [evidence.evidence(key, flagged_of(part)) for key, part in zip(keys, parts, strict=True)]
    return evidence.merge_traffic(evidence.traffic(key) for key in keys), evidence.merge_evidence(flags)


def prepared(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.assign(window_start=frame["event_time"].dt.floor("60min").fillna(UNKNOWN))
    nameless = frame["device_id"].isna() & frame["src_ip"].isna()
    frame["device_kind"] = np.where(frame["device_id"].notna(), "device_id", np.where(nameless, "source_file", ""))
    frame["device"] = frame["device_id"].fillna(frame["file"].where(nameless, "")).to_numpy()
    frame["source_kind"] = np.where(frame["src_ip"].notna(), "src_ip", "")
    frame["source"] = frame["src_ip"].fillna("")
    frame["class_name"] = [CLASSES[i] for i in frame["class_id"]]
    return frame


def as_frame(table: pa.Table) -> pd.DataFrame:
    frame = table.to_pandas()
    text = [name for name in frame.columns if frame[name].dtype == object and name != "top_attributions"]
    frame[text] = frame[text].fillna("")
    frame["window_start"] = frame["window_start"].dt.as_unit("ns").fillna(UNKNOWN)
    return frame


def test_evidence_and_traffic_are_those_that_pandas_counts() -> None:
    frame = many()
    traffic, found = counted([part for _, part in frame.groupby("file")])
    assert (traffic.schema, found.schema) == (TRAFFIC, EVIDENCE)

    frame = prepared(frame)
    own = frame[frame["level"] > 0]
    keys = ["device_kind", "device", "source_kind", "source", "window_start", "class_name"]
    columns = {f"flagged_{i}": own["level"] >= i for i in (1, 2, 3)}
    columns |= {f"allowed_{i}": (own["level"] >= i) & own["allowed"] for i in (1, 2, 3)}
    columns["probability_sum"] = 1 / (1 + np.exp(-own["logit"]))
    own = own.assign(**columns)
    wanted = own.groupby(keys).agg(
        **{name: (name, "sum") for name in columns},
        first_seen=("event_time", "min"),
        last_seen=("event_time", "max"),
        max_attack_logit=("logit", "max"),
    )
    top = own.sort_values(["file", "row"]).sort_values("logit", ascending=False, kind="stable").groupby(keys).head(1)
    wanted["top_row"] = top.set_index(keys)["row"]
    wanted = wanted.reset_index()
    got = as_frame(found).sort_values(keys).reset_index(drop=True)
    wanted = wanted.sort_values(keys).reset_index(drop=True)
    assert len(got) == len(wanted) > 2_000
    for name in wanted.columns:
        if name in ("first_seen", "last_seen"):
            assert (got[name].dt.as_unit("ns").fillna(UNKNOWN) == wanted[name].dt.as_unit("ns").fillna(UNKNOWN)).all()
        elif wanted[name].dtype == float:
            np.testing.assert_allclose(got[name], wanted[name], rtol=1e-5)
        else:
            assert got[name].tolist() == wanted[name].tolist(), name
    assert [a[0]["feature"] for a in found["top_attributions"].to_pylist()] == [
        f"f{i}" for i in found["top_row"].to_pylist()
    ]

    wanted = {}
    for side in ("device", "source"):
        named = frame[frame[side] != ""]
        [*groups] = named.groupby([f"{side}_kind", side, "window_start"]).size().items()
        keys_of_side = evidence.entity_keys([key[0] for key, _ in groups], [key[1] for key, _ in groups])
        for entity, ((_, _, window), flows) in zip(keys_of_side, groups, strict=True):
            wanted[int(entity), side == "source", window] = flows
    rows = as_frame(traffic)
    got = dict(
        zip(zip(rows["entity_key"], rows["is_source"], rows["window_start"], strict=True), rows["flows"], strict=True)
    )
    assert got == wanted


def test_any_partitioning_gives_the_same_tables() -> None:
    frame = many(5_000)
    whole = counted([part for _, part in frame.groupby("file")])
    rng = np.random.default_rng(8)
    for _ in range(5):
        parts = [part for _, own in frame.groupby("file") for _, part in own.groupby(rng.integers(0, 7, len(own)))]
        rng.shuffle(parts)  # type: ignore[arg-type]
        other = counted(parts)
        assert other[0].equals(whole[0])
        sums = whole[1].column_names.index("probability_sum")  # of float32: equal but for rounding
        assert other[1].remove_column(sums).equals(whole[1].remove_column(sums))


def test_a_window_of_an_unknown_time_is_null_and_windows_start_at_midnight() -> None:
    frame = many(4).assign(
        event_time=pd.to_datetime(
            ["2026-03-01T00:59:59.999999Z", "2026-03-01T01:00Z", None, "1969-12-31T23:59Z"], utc=True, format="ISO8601"
        ),
        device_id="pump", src_ip=None, level=3, file="a.parquet",
    )  # fmt: skip
    table = evidence.traffic(keys_of(frame, window=45))
    starts = sorted((s for s in table["window_start"].to_pylist() if s), key=str)
    assert starts == [
        dt.datetime(1969, 12, 31, 23, 15, tzinfo=dt.UTC),
        dt.datetime(2026, 3, 1, 0, 45, tzinfo=dt.UTC),
    ]
    assert sorted(table["flows"].to_pylist()) == [1, 1, 2]


def test_an_attack_whose_times_are_spread_over_years_is_in_one_window() -> None:
    night = dt.date(2026, 3, 1)
    start = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    near = [start - dt.timedelta(days=1), start, start + dt.timedelta(days=2, microseconds=-1)]
    far = [start - dt.timedelta(days=1, microseconds=1), *(start + dt.timedelta(days=2 + i) for i in range(300))]
    flows = pa.table({"event_time": pa.array([*near, *far], pa.timestamp("us", tz="UTC")), "device_id": ["pump"] * 304})
    keys = evidence.keys_of(flows, ["device_id"], [], 60, "a.parquet", event_date=night)
    assert [each.as_py() for each in keys.times] == [*near, *[None] * 301]
    counts = evidence.traffic(keys)
    assert {row["window_start"]: row["flows"] for row in counts.to_pylist()} == {
        near[0]: 1, near[1]: 1, dt.datetime(2026, 3, 2, 23, tzinfo=dt.UTC): 1, None: 301,
    }  # fmt: skip


def test_empty_names_are_unknown_and_names_are_replaced_where_they_are_pseudonymised() -> None:
    frame = many(3).assign(device_id=["", "pump", None], src_ip=["", None, "192.0.2.1"], file="a.parquet")

    def upper(column: str, names: pa.Array) -> pa.Array:
        return pa.array([f"{column}:{name}" for name in names.to_pylist()])

    found = evidence.merge_traffic([evidence.traffic(keys_of(frame, pseudonymised=upper))])
    kinds, names = ("source_file", "device_id", "src_ip"), ("a.parquet", "device_id:pump", "src_ip:192.0.2.1")
    wanted = dict(zip(evidence.entity_keys(kinds, names).tolist(), (False, False, True), strict=True))
    assert dict(zip(found["entity_key"].to_pylist(), found["is_source"].to_pylist(), strict=True)) == wanted


@pytest.mark.parametrize("columns", [(), ("event_time",)])
def test_flows_without_any_entity_column_belong_to_their_file(columns: tuple[str, ...]) -> None:
    flows = pa.table({"other": [1, 2]}).append_column("event_time", pa.nulls(2, pa.timestamp("us", tz="UTC")))
    keys = evidence.keys_of(flows.select(["other", *columns]), ENTITIES, SOURCES, 60, "a.parquet")
    [key] = evidence.entity_keys(["source_file"], ["a.parquet"]).tolist()
    assert evidence.traffic(keys).to_pylist() == [
        {"entity_key": key, "is_source": False, "window_start": None, "flows": 2}
    ]


@pytest.mark.parametrize(("sources", "rows"), [(200, 201), (3_000, 2)])
def test_very_many_sources_of_one_flow_each_are_one_row_and_a_busy_one_keeps_its_own(sources: int, rows: int) -> None:
    frame = many(sources + 50).assign(device_id="broker", class_id=1, level=3, file="a.parquet")
    frame["event_time"] = pd.Timestamp("2026-03-01T02:10", tz="UTC")
    frame["src_ip"] = [f"203.0.{i // 250}.{i % 250}" for i in range(sources)] + ["198.51.100.7"] * 50
    own = evidence.evidence(keys_of(frame), flagged_of(frame))
    assert (len(own), sum(own["flagged_1"].to_pylist())) == (rows, sources + 50)
    busy = own.filter(pa.compute.equal(own["source"], "198.51.100.7"))
    assert busy["flagged_1"].to_pylist() == [50]
    assert sum(own["folded_sources"].to_pylist()) == (sources if rows == 2 else 0)
    merged = evidence.merge_evidence([own, own])
    assert len(merged) == rows
    assert sum(merged["flagged_1"].to_pylist()) == 2 * (sources + 50)


@pytest.mark.parametrize("parts", [2, 4, 20])
def test_very_many_sources_of_one_flow_each_are_one_row_however_they_are_spread_over_files(parts: int) -> None:
    frame = many(650).assign(device_id="broker", class_id=1, level=3, file="a.parquet")
    frame["event_time"] = pd.Timestamp("2026-03-01T02:10", tz="UTC")
    frame["src_ip"] = [f"203.0.{i // 250}.{i % 250}" for i in range(600)] + ["198.51.100.7"] * 50
    whole = counted([frame])[1]
    assert sorted(whole["flagged_1"].to_pylist()) == [50, 600]
    other = counted([own for _, own in frame.groupby(np.arange(650) % parts)])[1]
    kept = [name for name in whole.column_names if name != "probability_sum"]
    assert other.select(kept).equals(whole.select(kept))


def test_the_highest_flow_of_each_row_is_found_also_without_flows() -> None:
    frame = many(3_000)
    part = frame[frame["file"] == "a.parquet"].reset_index(drop=True)
    keys, flagged = keys_of(part), flagged_of(part)
    highest = evidence.highest_flows(keys, flagged)
    table = evidence.evidence(keys, flagged)
    assert sorted(flagged.rows[highest]) == sorted(table["top_row"].to_pylist())
    none = flagged_of(part.assign(level=0))
    assert len(evidence.evidence(keys, none)) == len(evidence.merge_evidence([])) == 0
    assert not evidence.highest_flows(keys, none).any()


def test_the_target_is_that_of_the_highest_flow_and_stored_under_its_pseudonym() -> None:
    flows = pa.table({
        "device_id": ["a", "a", "b"],
        "src_ip": ["192.0.2.1", "192.0.2.1", "192.0.2.2"],
        "dst_ip": ["203.0.113.1", "203.0.113.2", None],
    })  # fmt: skip
    logits = np.array([1.0, 3.0, 2.0])
    flagged = Flagged(
        np.arange(3), np.ones(3, np.int32), CLASSES, np.ones(3, np.int32), np.zeros(3, np.bool_), logits,
        np.full(3, 0.9, np.float32), logits, "a.parquet", np.arange(3), pa.nulls(3, pa.list_(ATTRIBUTION)),
    )  # fmt: skip

    def targets(target: str, pseudonymised: Any = None) -> list[str | None]:
        keys = evidence.keys_of(flows, ENTITIES, SOURCES, 60, "a.parquet", pseudonymised, target)
        rows = evidence.merge_evidence([evidence.evidence(keys, flagged)])
        found: list[str | None] = rows["top_target"].to_pylist()
        return found

    assert targets("dst_ip") == ["203.0.113.2", None]
    assert targets("absent") == [None, None]

    def pseudonymised(column: str, plain: pa.Array) -> pa.Array:
        return pa.array([None if each is None else f"{column}: {each}" for each in plain.to_pylist()], pa.string())

    assert targets("dst_ip", pseudonymised) == ["dst_ip: 203.0.113.2", None]
