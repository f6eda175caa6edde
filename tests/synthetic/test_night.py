"""A synthetic night: benign flows as in train, attacks as configured, no label, the same rows on any cluster."""

import dataclasses
import datetime as dt
import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from pydantic import ValidationError
from pyspark.sql import SparkSession
from scipy import stats

from ids_spark.base.errors import InputError
from ids_spark.config.synthetic import FLEET, RHYTHM, Episode, SynthesizeNightConfig
from ids_spark.dataset.features import FEATURE_SCHEMAS, ORIGINAL_45
from ids_spark.dataset.taxonomy import CLASS6, CLASS19
from ids_spark.ingest import quality
from ids_spark.ingest.parse import to_doubles
from ids_spark.synthetic import dataset
from ids_spark.synthetic import night as synthetic_night
from ids_spark.synthetic.distributions import class_model
from ids_spark.synthetic.plan import plan_dataset
from tests.support.broken_night import EXTRA, break_night
from tests.support.flows import RunJob

DATE = dt.date(2026, 3, 1)
FLOWS = 40_000
CARRIED = ["flow_id", "event_time", "device_id", "src_ip"]


def asked_for(target: Path | str, **settings: object) -> SynthesizeNightConfig:
    given = {"target": str(target), "date": DATE, "flows": FLOWS, "files": 4, **settings}
    return SynthesizeNightConfig.model_validate(given)


def filled_in(config: SynthesizeNightConfig) -> SynthesizeNightConfig:
    return config.model_copy(update={"own_episodes": config.attacks})


def written_here(config: SynthesizeNightConfig, seed: int = 7) -> Path:
    """Write a night in this process instead of in Spark's tasks."""
    for task in synthetic_night.plan_night(config.target, filled_in(config), seed):
        synthetic_night.write_night_file(task)
    return Path(config.target)


def files_of(root: Path, date: dt.date = DATE) -> list[Path]:
    return sorted((root / f"event_date={date}").glob("*.parquet"))


def read(root: Path, date: dt.date = DATE) -> pd.DataFrame:
    """The rows of a night in the order of its files, each with its class and attack."""
    logs = pd.concat([pq.ParquetFile(path).read().to_pandas() for path in files_of(root, date)], ignore_index=True)
    truth = [pq.ParquetFile(path).read().to_pandas() for path in files_of(root / "_truth", date)]
    return logs.merge(pd.concat(truth), on="flow_id", how="left", validate="1:1")


@pytest.fixture(scope="module")
def root(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("first") / "nights"
    synthetic_night.write_night(spark, asked_for(target), 7)
    return target


@pytest.fixture(scope="module")
def night(root: Path) -> pd.DataFrame:
    return read(root)


@pytest.fixture(scope="module")
def second_release(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return read(written_here(asked_for(tmp_path_factory.mktemp("second"), feature_schema="release39")))


def test_a_log_holds_features_identity_and_no_label(root: Path, night: pd.DataFrame) -> None:
    paths = files_of(root)
    assert [p.name for p in paths] == [f"flows-0000{i}.parquet" for i in range(4)]
    for path in paths:
        file = pq.ParquetFile(path)
        assert file.schema_arrow.names == [*ORIGINAL_45.features, *CARRIED]
        kinds = [str(kind) for kind in file.schema_arrow.types]
        assert kinds == ["double"] * 45 + ["string", "timestamp[us, tz=UTC]", "string", "string"]
        assert file.metadata.metadata[b"ids_spark.data_origin"] == b"synthetic"
        assert file.metadata.metadata[b"ids_spark.feature_schema"] == b"original45"
    assert len(night) == FLOWS + 240 + 60 + 20 + 20  # 0.6 %, 0.15 %, 0.05 % and 0.03 % of 40,000, at least 20
    numbers = night[list(ORIGINAL_45.features)]
    assert np.isfinite(numbers).all().all()
    assert (numbers >= 0).all().all()


def test_no_log_contains_a_class_name(root: Path, night: pd.DataFrame) -> None:
    words = {word for column in ("flow_id", "device_id", "src_ip") for word in night[column].unique()}
    names = {*CLASS19, *CLASS6, "Attack", *(part for name in CLASS19 for part in name.split("-"))}
    assert not [word for word in words for name in names if name in word]
    for path in files_of(root):
        bare = path.read_bytes()
        assert not [name for name in CLASS19 if name.encode() in bare]
    attacks = night["class19"] != "Benign"
    assert set(night.loc[attacks, "device_id"]) <= set(night.loc[~attacks, "device_id"])
    assert night["flow_id"].str.fullmatch(r"20260301-\d{9}").all()  # numbered by time: does not depend on the class


def test_benign_flows_have_the_distributions_of_train(night: pd.DataFrame, second_release: pd.DataFrame) -> None:
    plan = {file.name: file for file in plan_dataset(0.1, 3, 1).files}
    for frame, name in ((night, "original45"), (second_release, "release39")):
        task = dataset.FileTask(plan["Benign_train"], "", 3, name, "parquet", True)
        train = np.concatenate(list(dataset.chunks(task)), axis=1)
        benign = frame[frame["class19"] == "Benign"]
        for feature, values in zip(FEATURE_SCHEMAS[name].features, train, strict=True):
            assert stats.ks_2samp(benign[feature], values).pvalue > 1e-4, (name, feature)
    # The first release's test split has a heavier tail, which this number of rows would show.
    test = dataset.FileTask(plan["Benign_test"], "", 3, "original45", "parquet", True)
    header = np.concatenate(list(dataset.chunks(test)), axis=1)[ORIGINAL_45.features.index("Header_Length")]
    assert stats.ks_2samp(night.loc[night["class19"] == "Benign", "Header_Length"], header).pvalue < 1e-6


def test_quantiles_are_those_of_the_class_model(night: pd.DataFrame) -> None:
    model = class_model(ORIGINAL_45, "Benign", "train", True)
    benign = night.loc[night["class19"] == "Benign"]
    for feature in ("AVG", "Rate"):
        for level in (0.1, 0.25, 0.5, 0.75, 0.9):
            near = model.marginals[feature].at(np.array([level - 0.01, level + 0.01]))
            assert near[0] <= benign[feature].quantile(level) <= near[1], (feature, level)
    assert (benign["IAT"] > 1e6).mean() == pytest.approx(
        0.5, abs=1e-3
    )  # every second window contains the capture's day


def test_capture_day_can_be_omitted(tmp_path: Path) -> None:
    config = filled_in(asked_for(tmp_path, capture_day_iat=False, flows=2_000, files=1))
    [log, _] = synthetic_night.draw(synthetic_night.plan_night(str(tmp_path), config, 7)[0], 0)
    assert max(log["IAT"].to_pylist()) < 1_000


def test_times_rise_through_the_files_and_keep_within_the_date(root: Path, night: pd.DataFrame) -> None:
    assert night["event_time"].is_monotonic_increasing
    assert night["event_time"].dt.date.eq(DATE).all()
    rows = [pq.ParquetFile(path).metadata.num_rows for path in files_of(root)]
    assert max(rows) - min(rows) <= 5  # a file holds its share of the rows, whatever the hour
    assert sum(rows) == len(night)


def test_benign_flows_follow_the_hourly_profile_of_a_hospital(night: pd.DataFrame) -> None:
    benign = night[night["class19"] == "Benign"]
    hours = benign.groupby(benign["event_time"].dt.hour).size()
    np.testing.assert_allclose(hours, FLOWS * np.array(RHYTHM) / sum(RHYTHM), rtol=0.08)
    assert hours.loc[10] > 2.5 * hours.loc[3]
    within_hour = benign["event_time"].dt.minute + benign["event_time"].dt.second / 60
    assert stats.kstest(within_hour / 60, "uniform").statistic < 0.03


def test_benign_flows_are_spread_over_the_fleet(night: pd.DataFrame) -> None:
    benign = night[night["class19"] == "Benign"]
    assert len(FLEET) == 40
    expected = pd.Series(FLEET) / sum(FLEET.values())
    found = benign["device_id"].value_counts(normalize=True)
    assert (found - expected).abs().max() < 0.005
    networks = benign["src_ip"].str.rsplit(".", n=1).str[0].value_counts(normalize=True)
    assert networks.to_dict() == pytest.approx({"192.0.2": 0.8536, "198.51.100": 0.1164, "203.0.113": 0.03}, abs=0.01)
    own = benign[benign["src_ip"].str.startswith("192.0.2.")]
    assert own.groupby("device_id")["src_ip"].nunique().eq(1).all()
    assert own["src_ip"].nunique() == 40


def test_flow_ids_are_unique_over_nights(night: pd.DataFrame, tmp_path: Path) -> None:
    next_date = DATE + dt.timedelta(days=1)
    following = read(written_here(asked_for(tmp_path, date=next_date, flows=5_000)), next_date)
    assert pd.concat([night["flow_id"], following["flow_id"]]).is_unique


def test_the_truth_has_class_and_attack_of_every_flow(root: Path, night: pd.DataFrame) -> None:
    for log, truth in zip(files_of(root), files_of(root / "_truth"), strict=True):
        assert pq.ParquetFile(log).read(["flow_id"])["flow_id"] == pq.ParquetFile(truth).read()["flow_id"]
    found = night.groupby(["class19", "episode"], dropna=False).size()
    assert {name: n for (name, _), n in found.items()} == {
        "Benign": FLOWS,
        "MQTT-DDoS-Publish_Flood": 240,
        "Recon-Port_Scan": 60,
        "ARP_Spoofing": 20,
        "Recon-VulScan": 20,
    }
    assert night.loc[night["class19"] == "Benign", "episode"].isna().all()


def test_attacks_have_the_configured_times_devices_and_sources(night: pd.DataFrame) -> None:
    flood, scan = (night[night["episode"] == number] for number in (1, 2))
    assert flood["event_time"].between("2026-03-01T02:10Z", "2026-03-01T02:25Z").all()
    assert flood["event_time"].max() - flood["event_time"].min() > pd.Timedelta("14min")
    assert set(flood["device_id"]) == {"mqtt-broker-01"}
    assert set(flood["src_ip"]) == {f"203.0.113.{host}" for host in (66, 67, 68, 69)}
    assert scan["event_time"].between("2026-03-01T03:30Z", "2026-03-01T03:55Z").all()
    assert set(scan["device_id"]) == {f"infusion-pump-0{i}" for i in range(1, 7)}
    assert set(scan["src_ip"]) == {"198.51.100.23"}
    assert flood["Number"].eq(9.5).all()  # a window of 100 packets, as MQTT floods have in the first release


def test_own_episodes_replace_the_built_in_ones(tmp_path: Path) -> None:
    text = """
      flows: 3000
      own_episodes:
        - {class19: ARP_Spoofing, start: 12:10, minutes: 5, flows: 700, devices: [ventilator-02], sources: [192.0.2.9]}
        - {class19: DoS-SYN, start: "23:59", minutes: 1, flows: 400}
    """
    config = asked_for(tmp_path, **yaml.safe_load(text))
    assert config.attacks[0].start == dt.time(12, 10)  # YAML converts it to 730
    night = read(written_here(config))
    assert night["class19"].value_counts().to_dict() == {"Benign": 3_000, "ARP_Spoofing": 700, "DoS-SYN": 400}
    spoofing, flood = (night[night["episode"] == number] for number in (1, 2))
    assert spoofing["event_time"].between("2026-03-01T12:10Z", "2026-03-01T12:15Z").all()
    assert set(zip(spoofing["device_id"], spoofing["src_ip"], strict=True)) == {("ventilator-02", "192.0.2.9")}
    assert flood["event_time"].min() >= pd.Timestamp("2026-03-01T23:59Z")
    assert flood["event_time"].max() < pd.Timestamp("2026-03-02T00:00Z")
    assert set(flood["device_id"]) == set(FLEET)


def test_a_night_without_episodes_is_benign(tmp_path: Path) -> None:
    night = read(written_here(asked_for(tmp_path, episodes=0, flows=2_000)))
    assert night["class19"].value_counts().to_dict() == {"Benign": 2_000}


def test_rows_depend_on_neither_partitions_nor_order(spark: SparkSession, root: Path, tmp_path: Path) -> None:
    for name, partitions in (("one", 1), ("three", 3)):
        tasks = synthetic_night.plan_night(str(tmp_path / name), filled_in(asked_for(root)), 7)
        spark.sparkContext.parallelize(tasks, partitions).foreach(synthetic_night.write_night_file)
    for task in reversed(synthetic_night.plan_night(str(tmp_path / "here"), filled_in(asked_for(root)), 7)):
        synthetic_night.write_night_file(task)
        synthetic_night.write_night_file(task)  # a second attempt
    written = [*files_of(root), *files_of(root / "_truth")]
    assert len(written) == 8
    for path in written:
        for name in ("one", "three", "here"):
            assert (tmp_path / name / path.relative_to(root)).read_bytes() == path.read_bytes()
    left = [p for p in (tmp_path / "here").rglob("*") if p.is_file() and p.suffix != ".parquet"]
    assert left == []


def test_seed_and_date_change_every_row(tmp_path: Path) -> None:
    def rates(date: dt.date, seed: int) -> list[float]:
        config = filled_in(asked_for(tmp_path, date=date, flows=500, files=1))
        values: list[float] = synthetic_night.draw(synthetic_night.plan_night("", config, seed)[0], 0)[0][
            "Rate"
        ].to_pylist()
        return values

    first = rates(DATE, 7)
    assert first == rates(DATE, 7)
    for other in (rates(DATE, 8), rates(DATE + dt.timedelta(days=1), 7)):
        assert sum(a == b for a, b in zip(first, other, strict=True)) < 50  # except rates of 0


@pytest.mark.parametrize("schema", ["original45", "release39"])
def test_shifted_devices_have_distributions_of_their_own_that_recur_every_night(schema: str, tmp_path: Path) -> None:
    shifted = asked_for(tmp_path / "shifted", feature_schema=schema, shift=1.0, files=1)
    next_night = shifted.model_copy(update={"date": DATE + dt.timedelta(days=1)})
    for config in (shifted, next_night):
        written_here(config)
    first, second = (
        read(tmp_path / "shifted", config.date).query("class19 == 'Benign'") for config in (shifted, next_night)
    )
    plain = read(written_here(asked_for(tmp_path / "plain", feature_schema=schema, files=1))).query(
        "class19 == 'Benign'"
    )
    differs, recurs = [], []
    for device in ("mqtt-broker-01", "mqtt-broker-02", "imaging-gateway-01"):
        own, later, lab = (night.loc[night["device_id"] == device, "AVG"] for night in (first, second, plain))
        differs.append(stats.ks_2samp(own, lab).statistic)
        recurs.append(stats.ks_2samp(own, later).pvalue)
    assert min(differs) > 0.1
    assert min(recurs) > 1e-3
    brokers = (first.loc[first["device_id"] == f"mqtt-broker-0{i}", "AVG"] for i in (1, 2))
    assert stats.ks_2samp(*brokers).statistic > 0.1


def test_a_large_file_is_drawn_in_chunks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(synthetic_night, "CHUNK_ROWS", 1_000)
    config = asked_for(tmp_path, flows=9_500, files=2, episodes=8)
    written_here(config)
    footers = [pq.ParquetFile(path).metadata for path in files_of(tmp_path)]
    groups = [[footer.row_group(i).num_rows for i in range(footer.num_row_groups)] for footer in footers]
    assert [len(sizes) for sizes in groups] == [5, 5]
    assert max(max(sizes) for sizes in groups) <= 1_000 + 9
    night = read(tmp_path)
    assert night["event_time"].is_monotonic_increasing
    assert night["flow_id"].tolist() == [f"20260301-{i:09d}" for i in range(len(night))]
    assert night["class19"].value_counts().to_dict() == config.flows_per_class
    assert not night.duplicated(list(ORIGINAL_45.features)).any()


def test_mark_and_truth_list_what_was_written(
    spark: SparkSession, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        report = synthetic_night.write_night(spark, asked_for(tmp_path, flows=2_000), 7)
    mark = json.loads((tmp_path / "_SYNTHETIC.json").read_text())
    assert (mark["synthetic"], mark["data_origin"]) == (True, "synthetic")
    facts = json.loads((tmp_path / "_truth" / f"event_date={DATE}" / "_SYNTHETIC.json").read_text())
    assert facts == dataclasses.asdict(report)
    assert facts["settings"]["date"] == "2026-03-01"
    assert facts["settings"]["own_episodes"][1]["class19"] == "Recon-Port_Scan"
    assert facts["rows"] == sum(facts["rows_per_file"].values()) == sum(facts["flows_per_class"].values())
    assert SynthesizeNightConfig.model_validate(facts["settings"]).attacks == asked_for(tmp_path, flows=2_000).attacks
    assert "night written data_origin=synthetic" in caplog.text
    assert spark.read.parquet(str(tmp_path)).count() == facts["rows"]  # the truth is hidden from readers


def test_a_rerun_replaces_its_date_and_no_other(spark: SparkSession, tmp_path: Path) -> None:
    other = dt.date(2026, 2, 28)
    synthetic_night.write_night(spark, asked_for(tmp_path, date=other, flows=500), 7)
    synthetic_night.write_night(spark, asked_for(tmp_path, flows=900, files=6), 7)
    before = [path.read_bytes() for path in files_of(tmp_path, other)]
    synthetic_night.write_night(spark, asked_for(f"file://{tmp_path}", flows=600, files=2, episodes=0), 7)
    assert [len(files_of(tmp_path)), len(files_of(tmp_path / "_truth"))] == [2, 2]
    assert len(read(tmp_path)) == 600
    assert [path.read_bytes() for path in files_of(tmp_path, other)] == before
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"_SYNTHETIC.json", "_truth", f"event_date={DATE}", f"event_date={other}"}


def test_a_failed_run_leaves_the_night_as_it_was(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthetic_night.write_night(spark, asked_for(tmp_path, flows=500), 7)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    monkeypatch.setattr("secrets.token_hex", lambda _: "known")
    (tmp_path / f".writing-{DATE}-known").write_text("in the way")
    with pytest.raises(Exception, match=r"Cannot create directory|Not a directory"):
        synthetic_night.write_night(spark, asked_for(tmp_path, flows=900), 7)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")} == before


@pytest.mark.parametrize("mark", [None, "{", '{"synthetic": true}'])
def test_a_folder_of_anything_else_is_refused(spark: SparkSession, tmp_path: Path, mark: str | None) -> None:
    (tmp_path / "precious.parquet").write_text("1\n")
    if mark is not None:
        (tmp_path / "_SYNTHETIC.json").write_text(mark)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"precious\.parquet, and no _SYNTHETIC\.json of synthetic nights"):
        synthetic_night.write_night(spark, asked_for(tmp_path), 7)
    with pytest.raises(
        InputError, match=r"precious\.parquet: found a file, and no .*; set synthesize_night\.target to"
    ):
        synthetic_night.write_night(spark, asked_for(tmp_path / "precious.parquet"), 7)
    with pytest.raises(InputError, match="found seed -1; expected at least 0"):
        synthetic_night.write_night(spark, asked_for(tmp_path / "new"), -1)
    assert sorted(tmp_path.iterdir()) == before


ARP = {"class19": "ARP_Spoofing", "start": "02:10", "minutes": 5, "flows": 10}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class19": "Benign"}, "'Benign' is no attack class; expected one of DDoS-ICMP, DDoS-SYN"),
        ({"class19": "Zap"}, "'Zap' is no attack class"),
        (
            {"devices": ["toaster-01"]},
            "device 'toaster-01' is not in the synthetic fleet; expected one of infusion-pump-01, ",
        ),
        (
            {"sources": ["8.8.8.8"]},
            "'8.8.8.8' is not in 192.0.2.0/24, .*; a synthetic log must not contain real addresses",
        ),
        ({"sources": []}, "at least 1 item"),
        ({"start": "23:58"}, "5 minutes from 23:58 end after midnight; expected an end before midnight"),
        ({"start": "02:10+01:00"}, r"start 02:10:00\+01:00: expected a time of day in UTC, such as 02:10, without"),
        ({"flows": 0}, "greater than or equal to 1"),
    ],
)
def test_an_impossible_attack_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Episode.model_validate(ARP | change)


@pytest.mark.parametrize(("flows", "files"), [(3, 4), (1 << 27, 8)])
def test_a_night_without_a_row_for_each_file_or_number_is_refused(flows: int, files: int) -> None:
    message = (
        rf"{flows:,} rows in {files} files; expected at least one row for each file, and fewer than 134,217,728 rows"
    )
    with pytest.raises(ValidationError, match=message):
        SynthesizeNightConfig(flows=flows, files=files, episodes=0)


def test_the_job_writes_the_night_and_counts_its_flows(run_job: RunJob, tmp_path: Path) -> None:
    settings = {"target": tmp_path / "nights", "date": DATE, "flows": 2_000, "files": 2}
    assert run_job("synthesize_night", **{f"synthesize_night__{key}": value for key, value in settings.items()}) == 0
    [audit] = pd.read_parquet(tmp_path / "lake" / "audit").to_dict("records")
    assert (audit["rows_out"], audit["data_origin"]) == (len(read(tmp_path / "nights")), "synthetic")
    assert {c["class_name"]: c["rows"] for c in audit["counts"]}["Benign"] == 2_000


@pytest.fixture(params=["original45", "release39"])
def to_break(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    return request.param, written_here(asked_for(tmp_path, flows=6_000, feature_schema=request.param))


def test_a_broken_night_has_the_returned_faults(to_break: tuple[str, Path]) -> None:
    schema, root = to_break
    whole = read(root).set_index("flow_id")
    broken = break_night(root / f"event_date={DATE}")
    found: dict[str, set[str]] = {}
    sound, rows = 0, 0
    for path in files_of(root):
        if broken.files.get(path.name) in ("missing_file", "unreadable_file", "empty_file"):
            with pytest.raises((OSError, ValueError)):
                pq.ParquetFile(path)
            continue
        file = pq.ParquetFile(path)
        rows += file.metadata.num_rows
        assert file.metadata.num_rows == 0 or path.name != "broken-no_rows.parquet"
        if path.name == "broken-duplicated_column.parquet":
            assert file.schema_arrow.names.count("Rate") == 2
            found["duplicated_column"] = set(file.read(["flow_id"])["flow_id"].to_pylist())
            continue
        assert (EXTRA in file.schema_arrow.names) == (path.name == "broken-extra_column.parquet")
        table = file.read()
        columns, faults = to_doubles(table, FEATURE_SCHEMAS[schema].features)
        refused = {reason: masks for reason, masks in faults.items() if masks}
        checked = quality.check(columns, FEATURE_SCHEMAS[schema])
        refused |= {rule.name: masks for rule, masks in checked.items() if rule.severity == "reject"}
        ids = np.array(table["flow_id"].to_pylist(), dtype=object)
        for reason, masks in refused.items():
            found.setdefault(reason, set()).update(ids[np.logical_or.reduce(list(masks.values()))])
        good = ~np.isin(ids, list(set().union(*found.values())))
        sound += int(good.sum())
        changed = np.isin(ids, broken.flow_ids["infinity"])
        assert np.isposinf(columns["Rate"][changed]).all()
        np.testing.assert_array_equal(columns["Rate"][good & ~changed], whole.loc[ids[good & ~changed], "Rate"])
    assert {reason: len(ids) for reason, ids in found.items()} == broken.quarantined
    kinds = {"not_a_number": "nan", "negative": "negative_rate", "share_out_of_range": "share", "unparsable": "text"}
    assert all(found[reason] == set(broken.flow_ids[kinds.get(reason, reason)]) for reason in found)
    assert (rows, sound) == (broken.rows, broken.scored)
    assert broken.rows + broken.lost == len(whole)
    assert sum(map(len, broken.flow_ids.values())) == pytest.approx(0.01 * len(whole), rel=0.02)
