"""Dates of nights, their files, and the reasons of files that cannot be used."""

import dataclasses
import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from ids_spark.config.score import ScoreConfig
from ids_spark.config.settings import Config
from ids_spark.dataset.features import ORIGINAL_45, RELEASE_39, FeatureSchema, SchemaMismatch
from ids_spark.dataset.tables import NIGHTS
from ids_spark.ingest.sources import SYNTHETIC_MARK
from ids_spark.lake.parquet import write_rows
from ids_spark.lake.store import Lake
from ids_spark.score import night_files
from ids_spark.score.night_context import ScoringContext
from tests.support.flows import synthetic_frame

DATE = dt.date(2026, 3, 1)
TODAY = dt.date(2026, 3, 10)


def config(root: Path, **more: Any) -> ScoreConfig:
    return ScoreConfig(flow_logs=str(root), **({"date": DATE} | more))


def flows(rows: int = 5, schema: str = "release39") -> pa.Table:
    table = pa.Table.from_pandas(synthetic_frame(rows, seed=rows, schema=schema), preserve_index=False)
    return table.append_column("flow_id", pa.array([f"f{i}" for i in range(rows)]))


def put(root: Path, name: str, table: pa.Table, **options: Any) -> Path:
    path = root / f"event_date={DATE}" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def find(root: Path, schema: FeatureSchema = RELEASE_39, needed: tuple[str, ...] = (), **more: Any) -> Any:
    return night_files.find_night(config(root, **more), DATE, schema, needed or schema.features)


def renamed(table: pa.Table, **names: str) -> pa.Table:
    return table.rename_columns([names.get(name, name) for name in table.column_names])


def test_a_night_whose_folder_is_there_in_two_forms_is_one_night(tmp_path: Path) -> None:
    for name in ("event_date=2026-03-02", "event_date=20260302", "event_date=2026-03-01", "event_date=2026-03-0"):
        (tmp_path / name).mkdir()
    assert [str(date) for date in night_files.dates_in(str(tmp_path))] == ["2026-03-01", "2026-03-02"]


@pytest.mark.parametrize(
    ("chosen", "dates"),
    [
        ({"date": DATE}, ["2026-03-01"]),
        ({"first_date": "2026-02-27", "last_date": DATE}, ["2026-02-27", "2026-02-28", "2026-03-01"]),
        ({"first_date": DATE, "last_date": DATE}, ["2026-03-01"]),
        ({"last_days": 1}, ["2026-03-09"]),
        ({"last_days": 3}, ["2026-03-07", "2026-03-08", "2026-03-09"]),
    ],
)
def test_a_date_a_range_or_the_last_days_before_today_name_nights(chosen: dict[str, Any], dates: list[str]) -> None:
    settings = ScoreConfig(flow_logs="logs", **chosen)
    assert [str(date) for date in night_files.dates_of(settings, TODAY)] == dates


@pytest.mark.parametrize("as_of", ["2026-03-10T00:30:00+02:00", "2026-03-09T22:30:00Z", "2026-03-09T14:30:00-08:00"])
def test_the_days_before_a_time_of_any_zone_are_dates_in_utc(as_of: str) -> None:
    settings = Config(
        lake="lake", score=ScoreConfig.model_validate({"flow_logs": "logs", "as_of": as_of, "last_days": 1})
    )
    others: dict[str, Any] = {field.name: None for field in dataclasses.fields(ScoringContext)}
    context = ScoringContext(**others | {"config": settings})
    assert context.time.utcoffset() == dt.timedelta(0)
    assert night_files.dates_of(settings.score, context.time.date()) == [dt.date(2026, 3, 8)]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({}, "score.flow_logs needs exactly one of score.date"),
        ({"date": DATE, "last_days": 2}, "found 2"),
        ({"first_date": DATE}, "score.first_date and score.last_date go together"),
        ({"first_date": DATE, "last_date": "2026-02-01"}, "is after score.last_date"),
    ],
)
def test_nights_named_in_no_way_or_two_are_refused(chosen: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ScoreConfig(flow_logs="logs", **chosen)


def test_row_groups_are_found_below_the_date_and_every_other_file_has_a_reason(tmp_path: Path) -> None:
    put(tmp_path, "b.parquet", flows(7), row_group_size=3)
    put(tmp_path, "hour=01/a.parquet", flows(2))
    for name in (".c.parquet", "_d.parquet", "_truth/e.parquet", ".tmp/f.parquet", "g.csv"):
        put(tmp_path, name, flows(4))
    put(tmp_path, "../event_date=2026-03-02/other.parquet", flows(4))
    found = find(tmp_path)
    assert [(file.name, file.rows, file.reason) for file in found.files] == [
        (".c.parquet", 0, "hidden"),
        (".tmp/f.parquet", 0, "hidden"),
        ("_d.parquet", 0, "hidden"),
        ("_truth/e.parquet", 0, "hidden"),
        ("b.parquet", 7, None),
        ("g.csv", 0, "csv"),
        ("hour=01/a.parquet", 2, None),
    ]
    row_groups = [
        (p.row_group.name, p.row_group.index, p.row_group.first_row, p.row_group.rows) for p in found.row_groups
    ]
    of_b = [("b.parquet", 0, 0, 3), ("b.parquet", 1, 3, 3), ("b.parquet", 2, 6, 1)]
    assert row_groups == [*of_b, ("hour=01/a.parquet", 0, 0, 2)]
    assert found.rows == 9
    assert found.data_origin == "measured"
    (tmp_path / SYNTHETIC_MARK).write_text("{}")
    assert find(tmp_path).data_origin == "synthetic"


def test_a_night_without_folder_or_without_parquet_is_none(tmp_path: Path) -> None:
    assert find(tmp_path) is None
    put(tmp_path, "_only_hidden.parquet", flows())
    assert find(tmp_path) is None


@pytest.mark.parametrize(
    ("schema", "names", "aliases", "column"),
    [
        (ORIGINAL_45, {"Duration": "hops"}, {"hops": "Duration"}, ("Duration", "hops")),
        (RELEASE_39, {"Time_To_Live": "ttl"}, {}, ("Time_To_Live", "ttl")),
        (ORIGINAL_45, {"Magnitue": "Magnitude"}, {}, ("Magnitue", "Magnitude")),
        (RELEASE_39, {"Protocol Type": "Protocol_Type"}, {}, ("Protocol Type", "Protocol_Type")),
        (RELEASE_39, {"Rate": "pkts_per_s"}, {"pkts_per_s": "Rate"}, ("Rate", "pkts_per_s")),
        (RELEASE_39, {"Time_To_Live": "hops"}, {"hops": "Time_To_Live"}, ("Time_To_Live", "hops")),
    ],
)
def test_known_and_configured_aliases_are_accepted(
    tmp_path: Path, schema: FeatureSchema, names: dict[str, str], aliases: dict[str, str], column: tuple[str, str]
) -> None:
    put(tmp_path, "a.parquet", renamed(flows(schema=schema.name), **names))
    found = find(tmp_path, schema, column_aliases=aliases)
    assert found.row_groups[0].columns[column[0]] == column[1]
    assert found.extra_columns == ()


def test_the_official_name_takes_precedence_over_an_alias_which_is_then_an_extra_column(tmp_path: Path) -> None:
    put(tmp_path, "a.parquet", flows().append_column("TTL", pa.array([1.0] * 5)))
    found = find(tmp_path)
    assert found.row_groups[0].columns["Time_To_Live"] == "Time_To_Live"
    assert found.extra_columns == ("TTL",)


def test_duration_is_not_an_alias_of_time_to_live(tmp_path: Path) -> None:
    put(tmp_path, "a.parquet", renamed(flows(schema="original45"), Duration="flow_duration"))
    with pytest.raises(SchemaMismatch, match="lacks 1 feature column"):
        find(tmp_path, ORIGINAL_45)


def test_a_file_without_a_feature_costs_only_itself_unless_all_files_lack_one(tmp_path: Path) -> None:
    put(tmp_path, "a.parquet", flows(3).drop_columns(["Rate"]))
    put(tmp_path, "b.parquet", flows(2))
    put(tmp_path, "c.parquet", flows(4).drop_columns(["IAT", "Std"]).append_column("STD_", flows(4)["Std"]))
    found = find(tmp_path)
    assert [(file.name, file.rows, file.reason) for file in found.files] == [
        ("a.parquet", 3, "missing_columns"),
        ("b.parquet", 2, None),
        ("c.parquet", 4, "missing_columns"),
    ]
    assert found.rows == 9
    (tmp_path / f"event_date={DATE}" / "b.parquet").rename(tmp_path / f"event_date={DATE}" / "b.csv")
    with pytest.raises(SchemaMismatch) as refused:
        find(tmp_path)
    message = str(refused.value)
    assert "not read: b.csv: CSV" in message
    assert "a.parquet lacks 1 feature column(s) of release39: Rate; c.parquet lacks 1" in message
    assert "name other spellings in score.column_aliases" in message


def test_logs_of_the_other_release_are_refused_and_a_mixture_is_split_by_file(tmp_path: Path) -> None:
    put(tmp_path, "first.parquet", flows(3, schema="original45"))
    with pytest.raises(SchemaMismatch, match=r"first\.parquet is of feature schema original45"):
        find(tmp_path, RELEASE_39)
    put(tmp_path, "second.parquet", flows(2))
    both = flows(4, schema="original45")
    put(tmp_path, "third.parquet", both.append_column("Time_To_Live", both["Duration"]))
    put(tmp_path, "unclear.parquet", flows(5).drop_columns(["Time_To_Live"]))
    needed = tuple(feature for feature in RELEASE_39.features if feature != "Time_To_Live")
    assert {file.name: file.reason for file in find(tmp_path, RELEASE_39, needed).files} == {
        "first.parquet": "other_feature_schema",
        "second.parquet": None,
        "third.parquet": "other_feature_schema",
        "unclear.parquet": "other_feature_schema",
    }
    assert {file.name: file.reason for file in find(tmp_path, ORIGINAL_45).files} == {
        "first.parquet": None,
        "second.parquet": "other_feature_schema",
        "third.parquet": "other_feature_schema",
        "unclear.parquet": "missing_columns",
    }


def test_a_feature_that_no_model_uses_may_be_absent_or_unreadable_and_is_no_extra_column(tmp_path: Path) -> None:
    needed = tuple(name for name in RELEASE_39.features if name != "IGMP")
    put(tmp_path, "a.parquet", flows().drop_columns(["IGMP"]))
    lists = pa.array([[1.0]] * 5)
    put(tmp_path, "b.parquet", flows().set_column(flows().column_names.index("IGMP"), "IGMP", lists))
    put(tmp_path, "c.parquet", flows().append_column("IGMP", pa.array([1.0] * 5)))
    found = find(tmp_path, needed=needed)
    assert [file.reason for file in found.files] == [None, None, None]
    assert found.extra_columns == ()
    assert tuple(found.row_groups[0].columns) == needed


def test_predictions_have_the_columns_of_the_default_that_a_file_has_and_every_column_that_is_chosen(
    tmp_path: Path,
) -> None:
    put(tmp_path, "a.parquet", flows().append_column("src_mac", pa.nulls(5, pa.string())))
    put(tmp_path, "b.parquet", flows().append_column("packets", pa.array([10] * 5)))
    found = find(tmp_path)
    assert found.pass_through(config(tmp_path)) == ("flow_id", "event_time", "src_mac", "packets")
    chosen = ("event_time", "ward")
    assert found.pass_through(config(tmp_path, pass_through=chosen)) == chosen


def test_extra_columns_are_listed_and_pass_through_columns_are_none_of_them(tmp_path: Path) -> None:
    structure = pa.array([{"ip": "192.0.2.1"}] * 5)
    table = flows().append_column("ward", pa.array(["B3"] * 5)).append_column("src_ip", structure)
    put(tmp_path, "a.parquet", table)
    put(tmp_path, "b.parquet", flows().append_column("collector", pa.array([1] * 5)))
    found = find(tmp_path)
    assert found.extra_columns == ("collector", "src_ip", "ward")  # a structure cannot be passed through as text
    assert {row_group.pass_through for row_group in found.row_groups} == {("flow_id",)}


def test_files_that_cannot_be_used_are_listed_with_their_reason_and_never_stop_the_night(tmp_path: Path) -> None:
    sound = put(tmp_path, "a.parquet", flows())
    (sound.parent / "empty.parquet").write_bytes(b"")
    (sound.parent / "gone.parquet").symlink_to(tmp_path / "nowhere")
    (sound.parent / "half.parquet").write_bytes(sound.read_bytes()[:-20])
    put(tmp_path, "none.parquet", flows(5).slice(0, 0))
    twice = flows(3)
    put(tmp_path, "twice.parquet", pa.table([*twice.columns, twice["Rate"]], names=[*twice.column_names, "Rate"]))
    times = pa.array([dt.datetime(2026, 3, 1)] * 4)
    typed = flows(4)
    put(tmp_path, "typed.parquet", typed.set_column(typed.column_names.index("Rate"), "Rate", times))
    found = find(tmp_path)
    assert [(file.name, file.rows, file.reason) for file in found.files] == [
        ("a.parquet", 5, None),
        ("empty.parquet", 0, "empty_file"),
        ("gone.parquet", 0, "missing_file"),
        ("half.parquet", 0, "unreadable_file"),
        ("none.parquet", 0, "no_rows"),
        ("twice.parquet", 3, "duplicated_column"),
        ("typed.parquet", 4, "wrong_type"),
    ]
    assert found.rows == 12
    assert [row_group.reason for row_group in found.row_groups] == [None, "duplicated_column", "wrong_type"]


@pytest.mark.parametrize("kind", [pa.float32(), pa.int64(), pa.string(), pa.large_string(), pa.decimal128(30, 9)])
def test_numbers_of_any_type_and_text_can_be_features(tmp_path: Path, kind: pa.DataType) -> None:
    table = flows()
    column = pa.array([1.0] * 5).cast(kind)
    put(tmp_path, "a.parquet", table.set_column(table.column_names.index("Rate"), "Rate", column))
    assert find(tmp_path).files[0].reason is None


def test_rows_that_arrive_after_the_first_scoring_remain_late(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))

    def scored(late: int, **rows: int) -> int:
        files = [{"name": f"{name}.parquet", "rows": n, "reason": None} for name, n in rows.items()]
        row = dict.fromkeys(NIGHTS.names) | {"files": files, "rows_late": late}
        write_rows(lake.uri(f"nights/event_date={DATE}/part-00000.parquet"), [row, row], NIGHTS)
        return night_files.late_rows(lake, find(tmp_path))

    put(tmp_path, "a.parquet", flows(5))
    put(tmp_path, "b.parquet", flows(3))
    assert night_files.late_rows(lake, find(tmp_path)) == 0
    assert scored(0, a=5, b=3) == 0
    assert scored(0, a=5) == 3
    assert scored(0, a=1) == 7  # a file that was truncated or has grown
    assert scored(3, a=5, b=3) == 3
    assert scored(0, a=5, b=3, gone=9) == 0
