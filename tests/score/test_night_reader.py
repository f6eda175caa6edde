"""One row group of flow logs: pass-through columns, refused rows with reasons, and event times."""

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ids_spark.alerts.pseudonyms import Pseudonyms
from ids_spark.base.text import short
from ids_spark.config.score import ScoreConfig
from ids_spark.dataset.features import RELEASE_39
from ids_spark.dataset.tables import QUARANTINE
from ids_spark.score import night_files, night_reader
from ids_spark.score.identifiers import Identifiers
from ids_spark.score.night_reader import NightRows, ReadSpec
from tests.support.flows import synthetic_frame

DATE = dt.date(2026, 3, 1)
PASS_THROUGH = ("flow_id", "event_time", "device_id")
SPEC = ReadSpec(RELEASE_39, RELEASE_39.features, PASS_THROUGH, "event_time", "run-1")
UTC = dt.UTC


def flows(rows: int = 6) -> pd.DataFrame:
    return synthetic_frame(rows, seed=4).assign(flow_id=[f"f{i}" for i in range(rows)], device_id="pump-1")


def read(tmp_path: Path, table: pa.Table | pd.DataFrame, spec: ReadSpec = SPEC, **options: Any) -> list[NightRows]:
    """Write a file and read its row groups, in pieces where they are large."""
    table = pa.Table.from_pandas(table, preserve_index=False) if isinstance(table, pd.DataFrame) else table
    path = tmp_path / f"event_date={DATE}" / "a.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path, **options)
    config = ScoreConfig(flow_logs=str(tmp_path), date=DATE, pass_through=spec.pass_through)
    source = night_files.find_night(config, DATE, spec.schema, spec.features)
    assert source is not None
    return [rows for row_group in source.row_groups for rows in night_reader.read_row_group(row_group, spec)]


def times_of(tmp_path: Path, times: Any) -> list[dt.datetime | None]:
    table = pa.Table.from_pandas(flows(len(times)), preserve_index=False)
    [rows] = read(tmp_path, table.append_column("event_time", times))
    assert rows.pass_through.schema.field("event_time").type == pa.timestamp("us", tz="UTC")
    return rows.pass_through["event_time"].to_pylist()


def test_features_are_doubles_and_rows_are_numbered_through_the_file(tmp_path: Path) -> None:
    frame = flows(7)
    parts = read(tmp_path, frame, row_group_size=3)
    assert [part.source_rows.tolist() for part in parts] == [[0, 1, 2], [3, 4, 5], [6]]
    for name in RELEASE_39.features:
        found = np.concatenate([part.values[name] for part in parts])
        assert found.dtype == np.float64
        assert found.tolist() == frame[name].tolist()
    assert all(part.refused.rows.schema.names[:8] == QUARANTINE.names and not len(part.refused) for part in parts)


def test_pass_through_columns_are_text_and_null_where_the_file_lacks_them(tmp_path: Path) -> None:
    frame = flows(3).assign(device_id=[7, 8, 9]).drop(columns="flow_id")
    [rows] = read(tmp_path, frame)
    assert rows.pass_through.column_names == list(PASS_THROUGH)
    assert rows.pass_through["device_id"].to_pylist() == ["7", "8", "9"]
    assert rows.pass_through["flow_id"].to_pylist() == [None] * 3
    assert rows.pass_through["event_time"].to_pylist() == [None] * 3
    assert [field.type for field in rows.pass_through.schema] == [
        pa.string(),
        pa.timestamp("us", tz="UTC"),
        pa.string(),
    ]


def test_pass_through_columns_count_without_case_and_punctuation_unless_two_may_be_meant(tmp_path: Path) -> None:
    """Databases store names in capitals, exports with blanks; a night without devices and times would be useless."""
    moment = dt.datetime(2026, 3, 1, 10, tzinfo=UTC)
    frame = flows(3).rename(columns={"device_id": "DEVICE ID"}).assign(EVENT_TIME=moment, FlowID="other")
    frame = frame.assign(**{"Flow-Id": "another", "rate": "no feature"})
    spec = replace(SPEC, pass_through=(*PASS_THROUGH, "Device_ID", "DEVICE-id", "RATE"))
    [rows] = read(tmp_path, frame.rename(columns={"flow_id": "FLOW_ID"}), spec)
    first = {name: column[0] for name, column in rows.pass_through.to_pydict().items()}
    assert first == {
        "flow_id": None, "event_time": moment, "device_id": "pump-1", "Device_ID": None, "DEVICE-id": None,
        "RATE": "no feature",
    }  # fmt: skip
    frame = frame.assign(flow_id="f0", Rate=-1.0)
    [rows] = read(tmp_path, frame, spec)
    assert (
        rows.refused.rows.select(["flow_id", "device_id"]).to_pylist() == [{"flow_id": "f0", "device_id": "pump-1"}] * 3
    )
    config = ScoreConfig(flow_logs=str(tmp_path), date=DATE)
    source = night_files.find_night(config, DATE, RELEASE_39, RELEASE_39.features)
    assert source is not None
    assert source.columns == {"flow_id", "event_time", "device_id"}  # whose values need a key
    assert source.extra_columns == ("Flow-Id", "FlowID", "rate")


def test_pass_through_columns_may_be_in_the_path(tmp_path: Path) -> None:
    """Spark leaves columns of `partitionBy` out of the files."""
    table = pa.Table.from_pandas(flows(3).drop(columns="device_id"), preserve_index=False)
    for device, each in (
        ("ward%207%2Fpump", table),
        ("__HIVE_DEFAULT_PARTITION__", table),
        ("7", table.drop(["Rate"])),
    ):
        path = tmp_path / f"event_date={DATE}" / f"device_id={device}" / "flow_id=x" / "a.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(each, path)
    config = ScoreConfig(flow_logs=str(tmp_path), date=DATE)
    source = night_files.find_night(config, DATE, RELEASE_39, RELEASE_39.features)
    assert source is not None
    assert source.columns == {"flow_id", "device_id"}
    parts = [rows for row_group in source.row_groups for rows in night_reader.read_row_group(row_group, SPEC)]
    of_refused, of_null, of_pump = (
        (part.refused.rows if len(part.refused) else part.pass_through).select(["flow_id", "device_id"]).to_pylist()
        for part in parts
    )
    assert of_refused == [{"flow_id": f"f{i}", "device_id": "7"} for i in range(3)]  # the file itself comes first
    assert [row["device_id"] for row in of_null + of_pump] == [None] * 3 + ["ward 7/pump"] * 3


def test_a_time_is_understood_as_timestamp_of_any_unit_and_zone(tmp_path: Path) -> None:
    moment = dt.datetime(2026, 3, 1, 10, 0, 0, 123456)
    for kind in (pa.timestamp("us"), pa.timestamp("us", tz="UTC"), pa.timestamp("ns"), pa.timestamp("ns", tz="UTC")):
        assert times_of(tmp_path, pa.array([moment, None], kind)) == [moment.replace(tzinfo=UTC), None]
    nanoseconds = pa.array([1_772_359_200_123_456_789], pa.int64()).cast(pa.timestamp("ns"))
    assert times_of(tmp_path, nanoseconds) == [moment.replace(tzinfo=UTC)]
    seconds = pa.array([1_772_359_200], pa.int64()).cast(pa.timestamp("s"))
    assert times_of(tmp_path, seconds) == [dt.datetime(2026, 3, 1, 10, tzinfo=UTC)]
    berlin = pa.array([moment.replace(tzinfo=UTC)], pa.timestamp("us", tz="Europe/Berlin"))
    assert times_of(tmp_path, berlin) == [moment.replace(tzinfo=UTC)]


def test_a_time_is_understood_as_text_with_or_without_zone_and_else_null(tmp_path: Path) -> None:
    texts = {
        "2026-03-01T10:00:00": dt.datetime(2026, 3, 1, 10),
        "2026-03-01 10:00:00": dt.datetime(2026, 3, 1, 10),
        "2026-03-01T10:00:00Z": dt.datetime(2026, 3, 1, 10),
        "2026-03-01T10:00:00+02:00": dt.datetime(2026, 3, 1, 8),
        "2026-03-01 00:30:00.25-0530": dt.datetime(2026, 3, 1, 6, 0, 0, 250_000),
        "2026-03-01T00:30:00+01": dt.datetime(2026, 2, 28, 23, 30),
        " 2026-03-01T10:00:00.123456789Z ": dt.datetime(2026, 3, 1, 10, 0, 0, 123_456),
        "2026-02-31T10:00:00": None,
        "2026-03-01T25:00:00": None,
        "yesterday": None,
        "": None,
        None: None,
    }
    expected = [None if time is None else time.replace(tzinfo=UTC) for time in texts.values()]
    column = pa.array(list(texts))
    for written in (column, column.cast(pa.large_string()), column.dictionary_encode()):
        assert times_of(tmp_path, written) == expected


def test_rows_that_cannot_be_scored_are_refused_with_reason_features_and_raw_values(tmp_path: Path) -> None:
    frame = flows(8).astype({"Std": object})
    frame.loc[1, "Rate"] = np.nan
    frame.loc[2, "ack_flag_number"] = 1.7
    frame.loc[3, "Rate"] = -2.0
    frame.loc[4, "Rate"] = np.inf  # accepted; preprocessing saturates it
    frame["Std"] = [None if i == 5 else "12,5" if i == 6 else str(value) for i, value in enumerate(frame["Std"])]
    table = pa.Table.from_pandas(frame, preserve_index=False)  # which converts NaN to null
    rates = pa.array(frame["Rate"].to_numpy(), from_pandas=False)
    [rows] = read(tmp_path, table.set_column(table.column_names.index("Rate"), "Rate", rates))
    assert rows.source_rows.tolist() == [0, 4, 7]
    assert rows.pass_through["flow_id"].to_pylist() == ["f0", "f4", "f7"]
    assert np.isinf(rows.values["Rate"][1])
    found = rows.refused.rows.to_pylist()
    assert [(row["source_row"], row["reason"], row["features"]) for row in found] == [
        (1, "not_a_number", ["Rate"]),
        (2, "share_out_of_range", ["ack_flag_number"]),
        (3, "negative", ["Rate"]),
        (5, "missing", ["Std"]),
        (6, "unparsable", ["Std"]),
    ]
    assert {(row["source_file"], row["split"], row["run_id"]) for row in found} == {("a.parquet", "night", "run-1")}
    assert json.loads(found[1]["raw"])["ack_flag_number"] == 1.7
    assert "device_id" not in json.loads(found[1]["raw"])  # quarantine holds no identifier


def test_an_infinity_in_a_feature_that_is_no_rate_is_refused_for_it_alone(tmp_path: Path) -> None:
    frame = flows(5)
    frame.loc[0, "Rate"] = np.inf
    frame.loc[1, "IAT"] = np.inf
    frame.loc[2, "IAT"] = -np.inf
    frame.loc[3, ["Min", "Max"]] = np.inf
    [rows] = read(tmp_path, frame)
    assert rows.source_rows.tolist() == [0, 4]
    found = [(row["source_row"], row["reason"], row["features"]) for row in rows.refused.rows.to_pylist()]
    assert [each[:2] for each in found] == [(1, "infinite"), (2, "infinite"), (3, "infinite")]
    assert [each[2] for each in found] == [["IAT"], ["IAT"], ["Min", "Max"]]
    assert rows.refused.single.tolist() == [0, 1]


def test_rules_that_only_warn_count_the_rows_that_are_scored(tmp_path: Path) -> None:
    frame = flows(4)
    frame["IAT"] = [-1.0, -1.0, 0.5, 0.5]
    frame.loc[0, "Rate"] = np.nan
    [rows] = read(tmp_path, frame)
    assert rows.warnings["negative_time_between_packets"] == 1


def test_a_damaged_row_group_is_refused_whole_and_the_others_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frame = flows(600)
    read(tmp_path, frame, row_group_size=300, compression="gzip")
    path = tmp_path / f"event_date={DATE}" / "a.parquet"
    config = ScoreConfig(flow_logs=str(tmp_path), date=DATE)
    source = night_files.find_night(config, DATE, RELEASE_39, RELEASE_39.features)
    assert source is not None
    column = pq.ParquetFile(path).metadata.row_group(1).column(3)
    content = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    content[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(bytes(content))
    good, bad = (rows for row_group in source.row_groups for rows in night_reader.read_row_group(row_group, SPEC))
    assert len(good.source_rows) == 300
    assert len(bad.source_rows) == 0
    assert bad.refused.rows["reason"].unique().to_pylist() == ["unreadable_row_group"]
    assert bad.refused.rows["source_row"].to_pylist() == list(range(300, 600))
    assert bad.refused.rows["flow_id"].to_pylist() == [f"f{i}" for i in range(300, 600)]  # these columns can be read
    assert bad.refused.rows["device_id"].unique().to_pylist() == ["pump-1"]
    assert not bad.refused.unread
    assert "file=a.parquet" in caplog.text
    caplog.clear()
    hidden = Identifiers((), Pseudonyms(b"a key of a test, long enough for HMAC"))
    renamed = night_files.find_night(config, DATE, RELEASE_39, RELEASE_39.features, identifiers=hidden)
    assert renamed is not None
    path.unlink()
    [gone] = night_reader.read_row_group(source.row_groups[0], SPEC)
    assert gone.refused.rows["reason"].to_pylist() == ["unreadable_row_group"] * 300
    assert gone.refused.unread
    assert gone.refused.rows["device_id"].null_count == 300
    caplog.clear()
    [gone] = night_reader.read_row_group(renamed.row_groups[0], SPEC, hidden)
    assert gone.refused.rows["source_file"].unique().to_pylist() == [hidden.file("a.parquet")]
    assert hidden.file("a.parquet") in caplog.text
    assert "a.parquet" not in caplog.text.replace(hidden.file("a.parquet"), "")


def test_a_file_that_cannot_be_used_has_all_of_its_rows_refused(tmp_path: Path) -> None:
    table = pa.Table.from_pandas(flows(4), preserve_index=False)
    twice = pa.table([*table.columns, table["Rate"]], names=[*table.column_names, "Rate"])
    [rows] = read(tmp_path, twice)
    assert rows.refused.rows["reason"].to_pylist() == ["duplicated_column"] * 4
    assert rows.refused.rows["source_row"].to_pylist() == [0, 1, 2, 3]
    assert rows.refused.rows["features"].null_count == 4
    assert rows.pass_through.num_rows == 0
    assert all(len(values) == 0 for values in rows.values.values())


def test_rows_without_a_finite_score_are_separated_from_the_others(tmp_path: Path) -> None:
    [rows] = read(tmp_path, flows(4))
    place = RELEASE_39.features.index("Rate")
    bad = np.array([False, True, False, True])
    kept, refused = night_reader.without_unscorable(rows, bad, np.array([0, place, 0, 0]), "a.parquet", SPEC)
    assert kept.source_rows.tolist() == [0, 2]
    assert kept.pass_through["flow_id"].to_pylist() == ["f0", "f2"]
    assert kept.values["Rate"].tolist() == rows.values["Rate"][[0, 2]].tolist()
    assert refused.rows.schema == SPEC.quarantine
    assert [(row["source_row"], row["reason"], row["features"]) for row in refused.rows.to_pylist()] == [
        (1, "no_finite_score", ["Rate"]),
        (3, "no_finite_score", [RELEASE_39.features[0]]),
    ]


def test_event_times_that_cannot_be_read_are_counted_by_type_of_the_flows_that_are_scored(tmp_path: Path) -> None:
    frame = flows(4)
    frame.loc[0, "Rate"] = -2.0
    table = pa.Table.from_pandas(frame, preserve_index=False)
    [rows] = read(tmp_path, table.append_column("event_time", pa.array([-1.0, -1.0, 1_772_359_200.5, None])))
    assert rows.unread_times == {"double": 1}
    assert rows.pass_through["event_time"].to_pylist()[1:] == [
        dt.datetime(2026, 3, 1, 10, 0, 0, 500_000, tzinfo=UTC),
        None,
    ]
    far = pa.array([dt.datetime(2026, 3, 1), dt.datetime(9000, 1, 1), None, None], pa.timestamp("us"))
    [rows] = read(tmp_path, table.append_column("event_time", far), use_deprecated_int96_timestamps=True)
    assert rows.unread_times == {"timestamp[us]": 1}


def test_bytes_that_are_not_utf8_cost_no_flow_as_identifier_and_its_own_as_feature(tmp_path: Path) -> None:
    text = pa.array([b"pump \xe9", b"pump", b"\xff\xfe"], pa.binary())
    named = pa.Array.from_buffers(pa.string(), 3, text.buffers())
    table = pa.Table.from_pandas(flows(3).drop(columns=["device_id", "Std"]), preserve_index=False)
    numbers = pa.array([b"1.5", b"2.5\xff", b"\xe9"], pa.binary())
    table = table.append_column("device_id", named)
    table = table.append_column("Std", pa.Array.from_buffers(pa.string(), 3, numbers.buffers()))
    for dictionary in (True, False):
        [rows] = read(tmp_path, table, use_dictionary=dictionary)
        assert rows.pass_through["device_id"].to_pylist() == ["pump \\xe9"]
        assert rows.values["Std"].tolist() == [1.5]
        assert [(row["source_row"], row["reason"]) for row in rows.refused.rows.to_pylist()] == [
            (1, "unparsable"),
            (2, "unparsable"),
        ]
        assert json.loads(rows.refused.rows["raw"][0].as_py())["Std"] == "2.5\\xff"


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(night_reader, "PIECE_ROWS", 100)


@pytest.mark.usefixtures("small_pieces")
def test_a_large_row_group_is_read_in_pieces_with_the_same_rows(tmp_path: Path) -> None:
    frame = flows(250)
    frame.loc[[3, 120], "Rate"] = -2.0
    frame["device_id"] = [f"pump-{i % 7}" for i in range(250)]
    pieces = read(tmp_path, frame)
    assert [len(piece.source_rows) + len(piece.refused) for piece in pieces] == [100, 100, 50]
    assert [row["source_row"] for piece in pieces for row in piece.refused.rows.to_pylist()] == [3, 120]
    good = [i for i in range(250) if i not in (3, 120)]
    assert np.concatenate([piece.source_rows for piece in pieces]).tolist() == good
    for column in ("flow_id", "device_id"):
        found = [text for piece in pieces for text in piece.pass_through[column].to_pylist()]
        assert found == frame[column][good].tolist()
    for name in RELEASE_39.features:
        assert np.concatenate([piece.values[name] for piece in pieces]).tolist() == frame[name][good].tolist()


@pytest.mark.usefixtures("small_pieces")
def test_a_row_group_that_is_damaged_after_its_first_pieces_loses_only_the_rest(tmp_path: Path) -> None:
    read(tmp_path, flows(1000), use_dictionary=False, data_page_size=512, compression="gzip", write_batch_size=50)
    path = tmp_path / f"event_date={DATE}" / "a.parquet"
    column = pq.ParquetFile(path).metadata.row_group(0).column(3)
    content = bytearray(path.read_bytes())
    middle = column.data_page_offset + column.total_compressed_size // 2
    content[middle : column.data_page_offset + column.total_compressed_size] = bytes(column.total_compressed_size // 2)
    path.write_bytes(bytes(content))
    config = ScoreConfig(flow_logs=str(tmp_path), date=DATE)
    source = night_files.find_night(config, DATE, RELEASE_39, RELEASE_39.features)
    assert source is not None
    pieces = [rows for row_group in source.row_groups for rows in night_reader.read_row_group(row_group, SPEC)]
    scored = sum(len(piece.source_rows) for piece in pieces)
    refused = pa.concat_tables([piece.refused.rows for piece in pieces])
    assert 100 <= scored < 1000
    assert scored + len(refused) == 1000
    assert refused["source_row"].to_pylist() == list(range(scored, 1000))
    assert refused["reason"].unique().to_pylist() == ["unreadable_row_group"]


def test_a_long_text_that_a_dictionary_repeats_is_not_copied_for_each_row(tmp_path: Path) -> None:
    rows, long = 100_000, "x" * 5_000_000  # 500 GB if it were copied
    table = pa.Table.from_pandas(pd.concat([flows(1)] * rows).drop(columns="device_id"), preserve_index=False)
    repeated = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, dtype=np.int32)), pa.array([long]))
    [found] = read(tmp_path, table.append_column("device_id", repeated), store_schema=False)
    assert found.pass_through["device_id"].unique().to_pylist() == [short(long)]


def test_a_text_column_that_is_too_large_is_null_and_counted_or_as_feature_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(night_reader, "LARGEST_COLUMN", 10_000)
    frame = flows(20).assign(device_id="x" * 1_000)
    [rows] = read(tmp_path, frame, use_dictionary=False)
    assert rows.pass_through["device_id"].null_count == 20
    assert rows.unread_columns == {"device_id": 20}
    frame = flows(20).assign(Std="9" * 1_000)
    [rows] = read(tmp_path, frame, use_dictionary=False)
    assert rows.refused.rows["reason"].to_pylist() == ["too_large_text"] * 20
