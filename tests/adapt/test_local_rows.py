"""Flow logs of nights to `flows/split=local`: which rows, their origin, most rows, refusals."""

import datetime as dt
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from ids_spark.alerts.pseudonyms import Pseudonyms
from ids_spark.dataset.features import RELEASE_39
from ids_spark.dataset.tables import flows_contract
from ids_spark.extract.footer import Extraction
from ids_spark.lake.store import Lake
from tests.support.audits import newest_audit
from tests.support.flows import RunJob, synthetic_frame, write_synthetic_source
from tests.support.in_process import run
from tests.support.local_nights import FIRST, night, write_night, write_nights

KEY = "0123456789abcdef0123456789abcdef-key-of-a-test"


@pytest.fixture(scope="module")
def data_set(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `lake`, which holds the flows of a small data set; never written to again."""
    folder = tmp_path_factory.mktemp("data set")
    write_synthetic_source(folder / "source", rows=30)
    code, log = run(folder, "ingest", f"ingest.source={folder}/source")
    assert code == 0, log
    return folder


@pytest.fixture
def lake(data_set: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(data_set / "lake", tmp_path / "lake"))


def local(lake: Path) -> pd.DataFrame:
    files = sorted((lake / "flows/split=local").glob("*.parquet"))
    tables = [pq.ParquetFile(path).read() for path in files]
    expected = [(column.name, column.type) for column in flows_contract(RELEASE_39.features)]
    assert all([(column.name, column.type) for column in table.schema] == expected for table in tables)
    frame = pd.concat([table.to_pandas() for table in tables], ignore_index=True)
    return frame.sort_values(["source_file", "source_row"], ignore_index=True)


def facts(lake: Path) -> dict[str, object]:
    return dict(json.loads((lake / "flows/split=local/_table.json").read_text()))


def audit(lake: Path, job: str = "ingest") -> pd.Series:
    return newest_audit(lake, job)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_every_flow_of_the_nights_becomes_a_benign_row_with_its_origin(
    run_job: RunJob, lake: Path, tmp_path: Path
) -> None:
    frames = write_nights(tmp_path / "logs", 3)
    before = content(lake / "flows")
    assert run_job("ingest", ingest__local=tmp_path / "logs") == 0
    rows = local(lake)
    assert len(rows) == 90
    for i, frame in enumerate(frames):
        date = FIRST + dt.timedelta(days=i)
        own = rows[rows["source_file"] == f"event_date={date}/a.parquet"]
        assert own["source_row"].tolist() == list(range(30))
        np.testing.assert_array_equal(own["place"], (np.arange(30) + 0.5) / 30)
        assert set(own["event_date"]) == {date}
        assert own["device"].tolist() == frame["device_id"].tolist()
        assert own["event_time"].tolist() == frame["event_time"].tolist()
        np.testing.assert_array_equal(own[list(RELEASE_39.features)], frame[list(RELEASE_39.features)])
    assert set(rows["class19"]) == set(rows["class6"]) == set(rows["class2"]) == {"Benign"}
    assert set(rows["label19"]) == {0}
    assert set(rows["origin"]) == {"local"}
    assert rows["left_out"].isna().all()
    assert not rows["duplicate"].any()
    assert {name: text for name, text in content(lake / "flows").items() if "split=local" not in name} == before
    found = facts(lake)
    assert found["rows"] == {"local": 90}
    assert found["dates"] == {str(FIRST + dt.timedelta(days=i)): 30 for i in range(3)}
    assert (found["devices"], found["left_out"], found["rows_left_out"]) == (3, {}, 0)
    assert (found["feature_schema"], found["data_origin"]) == ("release39", "measured")


def test_rows_of_the_data_set_have_the_origin_dataset_and_no_night(data_set: Path) -> None:
    rows = Lake(f"{data_set}/lake").read("flows", ["origin", "event_date", "event_time", "device", "left_out"])
    assert set(rows["origin"].to_pylist()) == {"dataset"}
    assert all(rows[name].null_count == len(rows) for name in rows.column_names[1:])


def test_nights_are_chosen_by_date_and_by_number(
    run_job: RunJob, lake: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_nights(tmp_path / "logs", 4, rows=5)
    days = [str(FIRST + dt.timedelta(days=i)) for i in range(4)]
    assert run_job("ingest", ingest__local=tmp_path / "logs", ingest__local_nights=2) == 0
    assert list(facts(lake)["dates"]) == days[2:]
    chosen = f"[{days[0]},{days[2]}]"
    assert run_job("ingest", ingest__local=tmp_path / "logs", ingest__local_dates=chosen) == 0
    assert list(facts(lake)["dates"]) == [days[0], days[2]]
    assert run_job("ingest", ingest__local=tmp_path / "logs", ingest__local_dates="[2026-05-01]") == 2
    assert "2026-05-01" in caplog.text


def test_equal_flows_of_any_nights_are_marked_and_kept(run_job: RunJob, lake: Path, tmp_path: Path) -> None:
    first = night(20, 1)
    second = pd.concat([night(10, 2), first.iloc[:5], first.iloc[:5]], ignore_index=True)
    write_night(tmp_path / "logs", first, FIRST)
    write_night(tmp_path / "logs", second, FIRST + dt.timedelta(days=1))
    assert run_job("ingest", ingest__local=tmp_path / "logs") == 0
    assert len(local(lake)) == 40
    assert int(local(lake)["duplicate"].sum()) == 10


def test_rows_that_cannot_be_used_are_in_the_quarantine_with_night_and_reason(
    run_job: RunJob, lake: Path, tmp_path: Path
) -> None:
    frame = night(200, 3)
    frame.loc[4, "Rate"] = np.nan
    frame.loc[7, "TCP"] = -3.0
    write_night(tmp_path / "logs", frame, FIRST)
    before = pd.read_parquet(lake / "quarantine/job=ingest")
    assert run_job("ingest", ingest__local=tmp_path / "logs") == 0
    refused = pd.read_parquet(lake / "quarantine/job=ingest")
    refused = refused[refused["split"] == "local"].sort_values("source_row")
    assert len(pd.read_parquet(lake / "quarantine/job=ingest")) == len(before) + 2
    assert refused["source_file"].tolist() == [f"event_date={FIRST}/a.parquet"] * 2
    assert refused[["source_row", "reason", "label"]].to_numpy().tolist() == [
        [4, "missing", "Benign"],
        [7, "share_out_of_range", "Benign"],
    ]
    done = audit(lake)
    assert (done["rows_in"], done["rows_out"], done["rows_quarantined"]) == (200, 198, 2)
    assert not set(local(lake)["source_row"]) & {4, 7}
    # The quarantine is that of the newest nights.
    write_night(tmp_path / "logs", night(200, 3), FIRST)
    assert run_job("ingest", ingest__local=tmp_path / "logs") == 0
    assert "local" not in set(pd.read_parquet(lake / "quarantine/job=ingest")["split"])


def test_many_unusable_rows_make_the_result_incomplete(run_job: RunJob, lake: Path, tmp_path: Path) -> None:
    frame = night(40, 3)
    frame.loc[:9, "Rate"] = np.nan
    write_night(tmp_path / "logs", frame, FIRST)
    assert run_job("ingest", ingest__local=tmp_path / "logs") == 3
    assert len(local(lake)) == 30


def test_nights_without_a_usable_row_are_refused_and_the_local_rows_stay(
    run_job: RunJob, lake: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_nights(tmp_path / "logs", 1)
    assert run_job("ingest", ingest__local=tmp_path / "logs") == 0
    before = content(lake / "flows") | content(lake / "quarantine")
    write_night(tmp_path / "broken", night(20, 3).assign(Rate=np.nan), FIRST)
    assert run_job("ingest", ingest__local=tmp_path / "broken") == 2
    assert "none of the 20 flows of the nights can be used (20 missing)" in caplog.text
    assert content(lake / "flows") | content(lake / "quarantine") == before


def test_a_file_that_cannot_be_read_is_named_and_the_rest_is_used(run_job: RunJob, lake: Path, tmp_path: Path) -> None:
    write_nights(tmp_path / "logs", 2)
    (tmp_path / f"logs/event_date={FIRST}/b.parquet").write_bytes(b"PAR1 no parquet PAR1")
    assert run_job("ingest", ingest__local=tmp_path / "logs") == 0
    assert len(local(lake)) == 60
    assert any("b.parquet" in note for note in audit(lake)["notes"])


@pytest.mark.parametrize("parts", [1, 4])
def test_no_device_and_no_site_has_more_rows_than_its_most(
    run_job: RunJob, lake: Path, tmp_path: Path, parts: int
) -> None:
    loud = night(400, 1, devices=1)
    quiet = night(60, 2, devices=3).replace({"device_id": {"pump-0": "bed-0", "pump-1": "bed-1", "pump-2": "bed-2"}})
    nameless = night(40, 3).assign(device_id=None)
    frame = pd.concat([loud, quiet, nameless], ignore_index=True)
    path = tmp_path / f"logs/event_date={FIRST}/a.parquet"
    path.parent.mkdir(parents=True)
    frame.to_parquet(path, index=False, row_group_size=-(-500 // parts))
    limit = {"ingest__local": tmp_path / "logs", "ingest__local_rows_per_device": 50}
    assert run_job("ingest", **limit) == 0
    rows = local(lake)
    assert rows["device"].value_counts(dropna=False).to_dict() == {
        "pump-0": 50, "bed-0": 20, "bed-1": 20, "bed-2": 20, None: 40,
    }  # fmt: skip
    assert (audit(lake)["rows_left_out"], facts(lake)["rows_left_out"]) == (350, 350)
    assert run_job("ingest", **limit, ingest__local_rows=75) == 0
    fewer = local(lake)
    assert 70 <= len(fewer) <= 75
    assert set(fewer["source_row"]) < set(rows["source_row"])
    assert audit(lake)["rows_left_out"] == 500 - len(fewer)
    if parts == 1:
        assert sorted(fewer["device"].fillna("")) != sorted(rows["device"].fillna(""))[: len(fewer)]


def test_the_choice_of_rows_does_not_depend_on_row_groups(run_job: RunJob, lake: Path, tmp_path: Path) -> None:
    chosen = []
    for size in (500, 33):
        path = tmp_path / f"logs/event_date={FIRST}/a.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        night(500, 1).to_parquet(path, index=False, row_group_size=size)
        settings = {"ingest__local_rows_per_device": 90, "ingest__local_rows": 200, "ingest__rows_per_file": 64}
        assert run_job("ingest", ingest__local=tmp_path / "logs", **settings) == 0
        chosen.append(local(lake))
    pd.testing.assert_frame_equal(*chosen)


def test_nights_without_identifiers_and_times_are_rows_without_device(
    run_job: RunJob, lake: Path, tmp_path: Path
) -> None:
    write_night(tmp_path / "logs", synthetic_frame(300, seed=8), FIRST)
    settings = {"ingest__local_rows_per_device": 10, "ingest__local_rows": 100}
    assert run_job("ingest", ingest__local=tmp_path / "logs", **settings) == 0
    rows = local(lake)
    assert 95 <= len(rows) <= 100
    assert rows["device"].isna().all()
    assert rows["event_time"].isna().all()
    assert set(rows["event_date"]) == {FIRST}
    assert facts(lake)["devices"] == 0


def test_the_device_is_the_first_entity_with_a_value_or_its_pseudonym(
    run_job: RunJob, lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = night(4, 1).assign(device_id=["pump-1", "", None, None], src_ip=["10.0.0.1", "10.0.0.2", None, "10.0.0.4"])
    write_night(tmp_path / "logs", frame, FIRST)
    assert run_job("ingest", ingest__local=tmp_path / "logs") == 0
    assert local(lake)["device"].tolist() == ["pump-1", "10.0.0.2", None, "10.0.0.4"]
    monkeypatch.setenv("IDS_SPARK_PSEUDONYM_KEY", KEY)
    settings = {"score__pseudonymise": "[src_ip]", "score__not_identifiers": "[device_id]"}
    assert run_job("ingest", ingest__local=tmp_path / "logs", **settings) == 0
    hidden = Pseudonyms(KEY.encode()).pseudonymised(pa.array(frame["src_ip"]))
    assert local(lake)["device"].tolist() == ["pump-1", hidden[1].as_py(), None, hidden[3].as_py()]


def test_rows_of_a_capture_have_its_name_and_are_numbered_across_its_files(
    run_job: RunJob, lake: Path, tmp_path: Path
) -> None:
    for i, day in enumerate((FIRST, FIRST + dt.timedelta(days=1))):
        write_night(tmp_path / "logs", night(10, i).assign(capture_file="ward.pcap"), day, "x.parquet")
        write_night(tmp_path / "logs", night(10, 5 + i), day, "y.parquet")
    assert run_job("ingest", ingest__local=tmp_path / "logs") == 0
    rows = local(lake)
    of_capture = rows[rows["source_file"] == "ward.pcap"]
    assert of_capture["source_row"].tolist() == list(range(20))
    assert not rows.duplicated(["source_file", "source_row"]).any()
    assert len(rows) == 40


def test_logs_of_the_other_release_are_refused_and_nothing_changes(
    run_job: RunJob, lake: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_nights(tmp_path / "logs", 1, schema="original45")
    before = content(lake / "flows")
    assert run_job("ingest", ingest__local=tmp_path / "logs") == 2
    assert "original45" in caplog.text
    assert "release39" in caplog.text
    assert "Nothing was ingested" in caplog.text
    assert content(lake / "flows") == before


@pytest.mark.parametrize("schema", ["release39", "original45"])
def test_a_lake_without_a_data_set_takes_the_release_of_the_logs(run_job: RunJob, tmp_path: Path, schema: str) -> None:
    write_nights(tmp_path / "logs", 2, schema=schema)
    assert run_job("ingest", ingest__local=tmp_path / "logs") == 0
    found = facts(tmp_path / "lake")
    assert (found["feature_schema"], found["rows"]) == (schema, {"local": 60})


def test_data_set_and_nights_in_one_run_replace_both(run_job: RunJob, tmp_path: Path) -> None:
    source = write_synthetic_source(tmp_path / "source", rows=20)
    broken = night(200, 3)
    broken.loc[0, "Rate"] = np.nan
    write_night(tmp_path / "logs", broken, FIRST)
    first = next(iter(source))
    source[first].loc[0, "Rate"] = np.nan
    source[first].to_csv(tmp_path / "source" / first, index=False)
    for _ in range(2):
        assert run_job("ingest", ingest__source=tmp_path / "source", ingest__local=tmp_path / "logs") == 0
        lake = tmp_path / "lake"
        assert len(local(lake)) == 199
        assert len(pd.read_parquet(lake / "flows/split=train")) == 6 * 20 - 1
        assert sorted(pd.read_parquet(lake / "quarantine/job=ingest")["split"]) == ["local", "train"]
        done = audit(lake)
        assert (done["rows_in"], done["rows_out"], done["rows_quarantined"]) == (440, 438, 2)


def test_a_new_data_set_keeps_local_rows_of_its_kind_and_drops_others(
    run_job: RunJob, lake: Path, data_set: Path, tmp_path: Path
) -> None:
    write_nights(tmp_path / "logs", 2)
    assert run_job("ingest", ingest__local=tmp_path / "logs") == 0
    before = content(lake / "flows/split=local")
    assert run_job("ingest", ingest__source=data_set / "source") == 0
    assert content(lake / "flows/split=local") == before
    assert any("kept" in note for note in audit(lake)["notes"])
    write_synthetic_source(tmp_path / "other", rows=20, schema="original45")
    assert run_job("ingest", ingest__source=tmp_path / "other") == 0
    assert not (lake / "flows/split=local").exists()
    assert any("removed" in note and "original45" in note for note in audit(lake)["notes"])


def test_neither_source_nor_logs_is_refused(run_job: RunJob, caplog: pytest.LogCaptureFixture) -> None:
    assert run_job("ingest") == 2
    assert "ingest.local" in caplog.text


def test_purge_removes_local_rows_of_old_nights_only(run_job: RunJob, lake: Path, tmp_path: Path) -> None:
    first, second = night(30, 1), night(200, 2)
    second.loc[:4, device_and_features()] = first.loc[:4, device_and_features()]
    second.loc[9, "Rate"] = first.loc[9, "Rate"] = np.nan
    write_night(tmp_path / "logs", first, FIRST)
    write_night(tmp_path / "logs", second, FIRST + dt.timedelta(days=1))
    assert run_job("ingest", ingest__local=tmp_path / "logs") == 0
    others = len(pd.read_parquet(lake / "quarantine/job=ingest")) - 2
    assert run_job("purge", purge__today="2026-03-12", purge__older_than_days=10) == 0
    [note] = audit(lake, "purge")["notes"]
    assert "29 old rows removed from flows/split=local" in note
    assert "nothing is older" not in note
    rows = local(lake)
    assert set(rows["event_date"]) == {FIRST + dt.timedelta(days=1)}
    assert len(rows) == 199
    assert not rows["duplicate"].any()
    assert facts(lake)["dates"] == {"2026-03-02": 199}
    refused = pd.read_parquet(lake / "quarantine/job=ingest")
    assert len(refused) == others + 1
    assert refused.loc[refused["split"] == "local", "source_file"].tolist() == ["event_date=2026-03-02/a.parquet"]
    assert run_job("purge", purge__today="2026-03-13", purge__older_than_days=10) == 0
    assert not list((lake / "flows").glob("split=local/*"))
    assert len(pd.read_parquet(lake / "quarantine/job=ingest")) == others
    assert run_job("features", features__files=2) == 0


def device_and_features() -> list[str]:
    return ["device_id", *RELEASE_39.features]


@pytest.mark.parametrize(("window", "noted"), [(10, False), (25, True)])
def test_windows_of_another_length_than_the_data_set_are_taken_and_noted(
    run_job: RunJob, lake: Path, tmp_path: Path, window: int, noted: bool
) -> None:
    table = pa.Table.from_pandas(night(30, 1).assign(capture_file="ward.pcap", device_id=None), preserve_index=False)
    footer = Extraction(window=window, by="capture", capture="ward.pcap", packets={"ipv4": 30 * window}, windows=30)
    (tmp_path / f"logs/event_date={FIRST}").mkdir(parents=True)
    for piece in range(2):
        own = footer.model_copy(update={"piece": piece})
        path = tmp_path / f"logs/event_date={FIRST}/ward-{1 - piece}.parquet"  # names do not give the order
        pq.write_table(table.replace_schema_metadata(own.metadata()), path)
    assert run_job("ingest", ingest__local=tmp_path / "logs") == 0
    rows = local(lake)
    assert set(rows["source_file"]) == {"ward.pcap"}
    assert rows["source_row"].tolist() == list(range(60))
    np.testing.assert_allclose(rows["place"], (np.arange(60) + 0.5) / 60)  # of the capture, not of a file
    assert facts(lake)["window_lengths"] == [window]
    assert any(f"local windows of {window} packets" in note for note in audit(lake)["notes"]) == noted
