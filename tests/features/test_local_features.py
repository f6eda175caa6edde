"""Rows of local nights in the feature table: train and held-out rows, blocks, statistics, conflicts, facts."""

import datetime as dt
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from ids_spark.dataset.features import RELEASE_39
from ids_spark.features import preprocess
from tests.support.audits import newest_audit
from tests.support.flows import RunJob, write_synthetic_source
from tests.support.in_process import run
from tests.support.local_nights import FIRST, night, write_night

FEATURES = list(RELEASE_39.features)
SETTINGS = {"features__files": 2, "features__sample_rows": 10_000}


@pytest.fixture(scope="module")
def ingested(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a lake of a data set and four nights; never written to again.

    Five flows of the first night recur in it, and in the third; three flows of the last recur in it. Two flows of the
    second are train rows of an attack, too.
    """
    folder = tmp_path_factory.mktemp("local")
    source = write_synthetic_source(folder / "source", rows=60)
    nights = [night(40, seed) for seed in range(4)]
    nights[0] = pd.concat([nights[0], nights[0].iloc[:5]], ignore_index=True)
    nights[2] = pd.concat([nights[2], nights[0].iloc[:5]], ignore_index=True)
    nights[3] = pd.concat([nights[3], nights[3].iloc[:3]], ignore_index=True)
    attacks = source["train/ARP_Spoofing_train.pcap.csv"]
    nights[1] = pd.concat([nights[1], attacks.iloc[:2].assign(device_id="pump-0")], ignore_index=True)
    for i, frame in enumerate(nights):
        write_night(folder / "logs", frame, FIRST + dt.timedelta(days=i))
    code, log = run(
        folder, "ingest", f"ingest.source={folder}/source", f"ingest.local={folder}/logs", "ingest.rows_per_file=150"
    )
    assert code == 0, log
    return folder


@pytest.fixture
def lake(ingested: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ingested / "lake", tmp_path / "lake"))


def features(lake: Path, split: str) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(p) for p in sorted((lake / f"features/paper/split={split}").glob("*.parquet"))])


def facts(lake: Path) -> dict[str, object]:
    return dict(json.loads((lake / "features/paper/_table.json").read_text()))


def local_flows(lake: Path) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(p) for p in sorted((lake / "flows/split=local").glob("*.parquet"))])


def test_the_last_night_is_held_out_whole_and_the_others_train_without_duplicates(run_job: RunJob, lake: Path) -> None:
    assert run_job("features", **SETTINGS) == 0
    flows = local_flows(lake)
    last = flows["event_date"] == FIRST + dt.timedelta(days=3)
    train, validation, test = (features(lake, split) for split in ("train", "validation", "test"))
    ours = train[train["local"] > 0]
    held = validation[validation["local"] > 0]
    assert sorted(held["row_key"]) == sorted(flows.loc[last, "row_key"])
    assert sorted(ours["row_key"]) == sorted(flows.loc[~last, "row_key"].drop_duplicates())
    assert (len(ours), len(held)) == (40 + 42 + 40, 43)
    assert set(ours["label19"]) == set(held["label19"]) == {0}
    assert set(test["local"]) == {0}
    found = facts(lake)["local"]
    days = [str(FIRST + dt.timedelta(days=i)) for i in range(4)]
    assert isinstance(found, dict)
    assert found["held_out_by"] == "date"
    assert (found["train_dates"], found["held_out_dates"]) == (days[:3], days[3:])
    assert (found["train_rows"], found["held_out_rows"], found["devices"]) == (122, 43, 3)
    assert found["data_origin"] == "measured"
    devices = flows.drop_duplicates("row_key").set_index("row_key")["device"]
    of_device = devices[ours["row_key"]].value_counts()
    assert of_device.nunique() > 1
    for rows in (ours, held):  # also held-out rows have the train rows of their device
        assert rows["local"].tolist() == of_device[devices[rows["row_key"]]].tolist()
    assert found["balance"] == pytest.approx(np.sqrt(of_device).sum())
    audit = newest_audit(lake, "features")
    assert audit["rows_in"] == audit["rows_out"] + audit["rows_duplicate"]
    counts = {each["what"]: each["rows"] for each in audit["counts"] if each["class_name"] is None}
    assert counts["label conflicts with local rows"] <= 2
    assert counts["label conflicts with local rows"] == _attacks_that_train(lake, train)


def _attacks_that_train(lake: Path, train: pd.DataFrame) -> int:
    keys = set(train.loc[train["local"] > 0, "row_key"])
    return len({key for key, label in zip(train["row_key"], train["label19"], strict=True) if label and key in keys})


def test_held_out_rows_of_a_device_in_a_night_are_one_block(run_job: RunJob, lake: Path) -> None:
    assert run_job("features", **SETTINGS, features__blocked_share=0) == 0
    flows = local_flows(lake)
    last = flows[flows["event_date"] == FIRST + dt.timedelta(days=3)]
    validation = features(lake, "validation")
    held = validation[validation["local"] > 0].merge(last.drop_duplicates("row_key")[["row_key", "device"]])
    assert len(held) == 43
    blocks = held.groupby("device")["block"].agg(["min", "max"])
    assert (blocks["min"] == blocks["max"]).all()
    assert held["block"].nunique() == 3
    assert validation.loc[validation["local"] == 0, "block"].isna().all()
    assert facts(lake)["blocked_rows"] == 43


def test_of_one_night_the_last_rows_of_each_file_are_held_out(run_job: RunJob, lake: Path, tmp_path: Path) -> None:
    for name, rows, seed in (("a.parquet", 40, 1), ("b.parquet", 8, 2)):
        write_night(tmp_path / "logs", night(rows, seed), FIRST, name)
    assert run_job("ingest", ingest__local=tmp_path / "logs") == 0
    assert run_job("features", **SETTINGS) == 0
    flows, validation, train = local_flows(lake), features(lake, "validation"), features(lake, "train")
    last = flows["source_row"] >= flows["source_file"].map(lambda name: 30 if name.endswith("a.parquet") else 6)
    held, ours = validation[validation["local"] > 0], train[train["local"] > 0]
    assert sorted(held["row_key"]) == sorted(flows.loc[last, "row_key"])
    assert sorted(ours["row_key"]) == sorted(flows.loc[~last, "row_key"])
    of_device = flows[~last]["device"].value_counts()
    joined = held.merge(flows[["row_key", "device"]])
    assert joined["local"].tolist() == of_device[joined["device"]].tolist()
    assert joined["block"].nunique() == 3  # devices
    found = facts(lake)["local"]
    assert isinstance(found, dict)
    assert (found["held_out_by"], found["held_out_rows"]) == ("rows", 12)


def test_the_preprocessor_is_fitted_on_the_data_set_and_local_train_rows(run_job: RunJob, lake: Path) -> None:
    assert run_job("features", **SETTINGS) == 0
    train = features(lake, "train")
    fitted = json.loads((lake / "features/paper/_preprocessor.json").read_text())
    assert fitted["rows"] == len(train)
    raw = pd.concat([local_flows(lake), pd.read_parquet(lake / "flows/split=train")]).drop_duplicates("row_key")
    values = raw.set_index("row_key").loc[train["row_key"], FEATURES]
    for feature in fitted["features"]:
        assert feature["mean"] == pytest.approx(values[feature["name"]].mean(), rel=1e-12)
    preprocessor = preprocess.from_json(json.dumps(fitted), "here")
    scaled = preprocessor.transform({name: values[name].to_numpy() for name in FEATURES})
    np.testing.assert_array_equal(np.column_stack(scaled), train[list(preprocessor.columns)].to_numpy())
    # Benign train rows, from which drift is measured, include local ones: their rates are above all others.
    [histogram] = [h for h in preprocessor.histograms(["Rate"]) if h.name == "Rate"]
    assert max(histogram.edges) > 50


def test_files_mix_local_rows_with_the_others(run_job: RunJob, lake: Path) -> None:
    assert run_job("features", **SETTINGS) == 0
    for path in sorted((lake / "features/paper/split=train").glob("*.parquet")):
        rows = pd.read_parquet(path)
        assert 0 < (rows["local"] > 0).mean() < 1
        unsigned = rows["row_key"].to_numpy().view(np.uint64)
        assert (unsigned[1:] >= unsigned[:-1]).all()


def test_without_local_rows_every_byte_is_as_before(run_job: RunJob, lake: Path) -> None:
    assert run_job("features", **SETTINGS, features__local="false") == 0
    without = features(lake, "train")
    preprocessor = (lake / "features/paper/_preprocessor.json").read_bytes()
    assert "local" not in without
    assert "local" not in facts(lake)
    shutil.rmtree(lake / "flows/split=local")
    assert run_job("features", **SETTINGS) == 0
    pd.testing.assert_frame_equal(features(lake, "train"), without)
    assert (lake / "features/paper/_preprocessor.json").read_bytes() == preprocessor


def test_rows_that_are_left_out_neither_train_nor_are_held_out(run_job: RunJob, lake: Path) -> None:
    changed = 0
    for path in (lake / "flows/split=local").glob("*.parquet"):
        frame = pd.read_parquet(path)
        frame.loc[frame["device"] == "pump-1", "left_out"] = "incident"
        changed += int((frame["device"] == "pump-1").sum())
        frame.to_parquet(path, index=False)
    assert run_job("features", **SETTINGS) == 0
    flows = local_flows(lake)
    gone = set(flows.loc[flows["left_out"].notna(), "row_key"]) - set(flows.loc[flows["left_out"].isna(), "row_key"])
    for split in ("train", "validation"):
        rows = features(lake, split)
        assert not gone & set(rows.loc[rows["local"] > 0, "row_key"])
    audit = newest_audit(lake, "features")
    assert audit["rows_left_out"] == changed > 0
    found = facts(lake)["local"]
    assert isinstance(found, dict)
    assert found["devices"] == 2


def test_the_table_does_not_depend_on_the_files_of_the_local_rows(run_job: RunJob, lake: Path, ingested: Path) -> None:
    tables = []
    for rows in (150, 40):
        assert run_job("ingest", ingest__local=ingested / "logs", ingest__rows_per_file=rows) == 0
        assert run_job("features", **SETTINGS) == 0
        preprocessor = (lake / "features/paper/_preprocessor.json").read_bytes()
        tables.append((features(lake, "train"), features(lake, "validation"), preprocessor))
    pd.testing.assert_frame_equal(tables[0][0], tables[1][0])
    pd.testing.assert_frame_equal(tables[0][1], tables[1][1])
    assert tables[0][2] == tables[1][2]
