"""Refused rows as tasks count them: by device, source, hour and reason, with what was scored and flagged of them."""

import dataclasses
import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ids_spark.alerts.allow_list import AllowList
from ids_spark.alerts.known_devices import KnownDevices
from ids_spark.alerts.severity import DEFAULT
from ids_spark.config.score import AlertsConfig, ScoreConfig
from ids_spark.dataset.features import RELEASE_39
from ids_spark.score import night_files, night_reader, night_refused
from ids_spark.score.identifiers import Identifiers
from ids_spark.score.night_reader import ReadSpec, Refused
from ids_spark.score.night_tasks import NightCounts, NightTask
from tests.support.flows import synthetic_frame

DATE = dt.date(2026, 3, 1)
SPEC = ReadSpec(RELEASE_39, RELEASE_39.features, ("event_time", "device_id", "src_ip"), "event_time", "run-1")
ENTRY = {"reason": "known", "owner": "ward", "expires": DATE, "where": {"device_id": "pump-1"}}


def task(*entries: dict[str, Any]) -> NightTask:
    none: Any = None
    return NightTask(
        DATE, none, None, SPEC, ScoreConfig(flow_logs="logs", date=DATE), AlertsConfig(), DEFAULT,
        AllowList.model_validate({"entries": entries}), Identifiers(), KnownDevices(), "", "",
        dt.datetime(2026, 3, 2, tzinfo=dt.UTC), "synthetic",
    )  # fmt: skip


def counts() -> NightCounts:
    none: Any = None
    return NightCounts(none, np.zeros(0, dtype=np.int64))


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    """Ten rows of two devices, each with a NaN; the last one with two."""
    frame = synthetic_frame(10, seed=4).assign(device_id=["pump-1"] * 6 + ["pump-2"] * 4, src_ip="192.0.2.1")
    frame["event_time"] = pd.Timestamp("2026-03-01T03:20:00Z")
    rates = frame.pop("Rate").to_numpy() * np.nan
    table = pa.Table.from_pandas(frame, preserve_index=False).append_column("Rate", pa.array(rates, from_pandas=False))
    table = table.set_column(table.column_names.index("IAT"), "IAT", pa.array([1.0] * 9 + [None]))
    path = tmp_path / f"event_date={DATE}" / "a.parquet"
    path.parent.mkdir()
    pq.write_table(table, path)
    config = ScoreConfig(flow_logs=str(tmp_path), date=DATE, pass_through=SPEC.pass_through)
    source = night_files.find_night(config, DATE, SPEC.schema, SPEC.features)
    assert source is not None
    [rows] = night_reader.read_row_group(source.row_groups[0], SPEC)
    return rows.refused


def test_rows_with_one_feature_at_fault_can_be_scored_without_it(refused: Refused) -> None:
    assert refused.single.tolist() == list(range(9))
    assert {SPEC.features[i] for i in refused.feature} == {"Rate"}
    assert np.isnan(refused.values["Rate"]).all()
    assert refused.values["IAT"].tolist() == [1.0] * 9
    assert refused.rows["features"][9].as_py() == ["IAT", "Rate"]
    assert refused.rows["device_id"].to_pylist() == ["pump-1"] * 6 + ["pump-2"] * 4


def test_refused_rows_are_counted_by_device_source_hour_and_reason(refused: Refused) -> None:
    total, logits, flagged = counts(), np.array([2.0] * 9 + [np.nan]), np.array([True] * 4 + [False] * 6)
    night_refused.count("a.parquet", refused, logits, flagged, task(), total)
    rows, traffic = total.merged_refused()
    columns = ["device", "source", "class_name", "flagged_1", "flagged_2", "flagged_3", "allowed_1"]
    assert [tuple(row.values()) for row in rows.select(columns).to_pylist()] == [
        ("pump-1", "192.0.2.1", "not_a_number", 6, 6, 4, 0),
        ("pump-2", "192.0.2.1", "missing", 1, 0, 0, 0),
        ("pump-2", "192.0.2.1", "not_a_number", 3, 3, 0, 0),
    ]
    assert set(rows["window_start"].to_pylist()) == {dt.datetime(2026, 3, 1, 3, tzinfo=dt.UTC)}
    assert traffic["flows"].to_pylist() == [1, 1]  # the row without a score, of its device and its source
    assert rows["max_attack_logit"].to_pylist() == [2.0, night_refused.NO_LOGIT, 2.0]


def test_only_an_entry_of_the_allow_list_that_names_quarantined_covers_refused_rows(refused: Refused) -> None:
    for of_class, allowed in (({}, 0), ({"class_name": "Attack"}, 0), ({"category": "Quarantined"}, 6)):
        total = counts()
        night_refused.count(
            "a.parquet", refused, np.full(10, np.nan), np.zeros(10, dtype=bool), task({**ENTRY, **of_class}), total
        )
        assert sum(total.merged_refused()[0]["allowed_1"].to_pylist()) == allowed


def test_rows_whose_identifiers_could_not_be_read_are_counted_by_file(refused: Refused) -> None:
    total, unread = counts(), dataclasses.replace(refused, unread=True)
    night_refused.count("a.parquet", unread, np.full(10, np.nan), np.zeros(10, dtype=bool), task(), total)
    assert total.refused_unread == {"a.parquet": 10}
    assert len(total.merged_refused()[0]) == 0
