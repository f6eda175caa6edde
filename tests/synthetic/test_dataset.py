"""The synthetic data set: official form, exact identities, exactly the planted duplicates, the same rows anywhere."""

import dataclasses
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from ids_spark.base.arrays import Floats
from ids_spark.base.errors import InputError
from ids_spark.dataset import taxonomy
from ids_spark.dataset.features import ORIGINAL_45, RELEASE_39
from ids_spark.synthetic import dataset
from ids_spark.synthetic.plan import FilePlan, plan_dataset

SCALE = 0.02
FLOODS = "^D?DoS-"

# Mean and standard deviation over the 8,775,013 rows of the first release.
GLOBAL_MOMENTS = {
    "Header_Length": (29962.5, 282363.4),
    "Protocol Type": (8.0472, 6.3048),
    "Duration": (64.637, 7.8531),
    "Rate": (15744.5, 40008.5),
    "Srate": (15744.5, 40008.5),
    "syn_flag_number": (0.15721, 0.33688),
    "rst_flag_number": (0.039518, 0.13930),
    "ack_flag_number": (0.095664, 0.25214),
    "syn_count": (0.29388, 0.60364),
    "fin_count": (0.085575, 0.56124),
    "rst_count": (65.871, 498.28),
    "TCP": (0.41487, 0.48990),
    "UDP": (0.31085, 0.45957),
    "ICMP": (0.27351, 0.44405),
    "IPv": (0.99924, 0.019284),
    "LLC": (0.99924, 0.019284),
    "Tot sum": (636.01, 991.61),
    "Min": (55.120, 69.099),
    "Max": (72.333, 133.61),
    "AVG": (60.587, 88.072),
    "Std": (6.0605, 38.058),
    "Tot size": (60.589, 87.877),
    "IAT": (84683678.0, 17819168.5),
    "Number": (9.4991, 0.84158),
    "Magnitue": (10.438, 3.1581),
    "Radius": (8.5600, 53.805),
    "Covariance": (2370.5, 19758.8),
    "Variance": (0.090744, 0.23298),
    "Weight": (141.527, 21.662),
}


def read(root: Path) -> pd.DataFrame:
    """All rows of a data set, with their split, class, file and row number."""
    frames = []
    for path in sorted(root.glob("*/*.pcap.*")):
        parquet = path.suffix == ".parquet"
        frame = pd.read_parquet(path) if parquet else pd.read_csv(path, float_precision="round_trip", dtype=float)
        names = {"split": path.parent.name, "class19": taxonomy.class19_of(path.name), "file": path.name.split(".")[0]}
        frames.append(frame.assign(**names, row=np.arange(len(frame))))
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def first_root(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("first") / "synthetic"
    dataset.write_dataset(spark, str(root), SCALE, 7, ORIGINAL_45, "parquet")
    return root


@pytest.fixture(scope="module")
def first(first_root: Path) -> pd.DataFrame:
    return read(first_root)


@pytest.fixture(scope="module")
def second(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    root = tmp_path_factory.mktemp("second") / "synthetic"
    dataset.write_dataset(spark, str(root), 0.005, 7, RELEASE_39, "csv", min_rows_per_file=40)
    return read(root)


def removed_by_deduplication(frame: pd.DataFrame, features: list[str]) -> int:
    return int(frame.duplicated([*features, "class19"]).sum())


def test_scale_one_has_the_official_rows_and_duplicates() -> None:
    plan = plan_dataset(1.0, 7, 1)
    rows = pd.DataFrame([dataclasses.asdict(f) for f in plan.files]).groupby("split")["rows"].agg(["size", "sum"])
    assert rows.loc["train"].tolist() == [51, 7_160_831]
    assert rows.loc["test"].tolist() == [21, 1_614_182]
    assert plan.duplicates == {"train": 5_119, "test": 2_065}
    assert plan.in_both_splits == 195
    assert plan.near_duplicates == {"train": 2_645_751 - 5_119, "test": 721_914 - 2_065}


@pytest.mark.parametrize("scale", [0.0003, 0.001, 0.01, 10.0])
def test_any_scale_plants_in_proportion_and_numbers_every_row_once(scale: float) -> None:
    plan = plan_dataset(scale, 7, 1)
    assert plan.duplicates == {"train": max(1, round(5_119 * scale)), "test": max(1, round(2_065 * scale))}
    first_ids = [f.first_id for f in plan.files]
    assert first_ids == [0, *np.cumsum([f.rows for f in plan.files])[:-1]]
    for file in plan.files:
        places = np.concatenate([p.rows for p in file.planted]) if file.planted else np.array([])
        assert len(set(places)) == len(places)
        assert ((places >= 0) & (places < file.rows)).all()


def test_files_have_official_names_and_scaled_sizes(first: pd.DataFrame) -> None:
    sizes = first.groupby(["split", "file"]).size()
    assert sizes.groupby("split").size().to_dict() == {"train": 51, "test": 21}
    assert sizes["train", "Benign_train"] == 3_855  # 192,732 x 0.02 = 3,854.6
    assert sizes["train", "TCP_IP-DDoS-UDP2_train"] == 4_146  # 207,295 x 0.02 = 4,145.9
    assert sizes["test", "Recon-Ping_Sweep_test"] == 4  # 186 x 0.02 = 3.7
    assert set(first["class19"]) == set(taxonomy.CLASS19)


def test_small_files_have_the_minimum_number_of_rows(second: pd.DataFrame) -> None:
    sizes = second.groupby("file").size()
    assert sizes["Recon-Ping_Sweep_train"] == 40
    assert sizes["Recon-Port_Scan_train"] == 420  # 83,981 x 0.005 = 419.9


def test_parquet_is_plain_double_in_official_order_and_marked_synthetic(first_root: Path) -> None:
    file = pq.ParquetFile(first_root / "train" / "TCP_IP-DDoS-ICMP1_train.pcap.parquet")
    assert file.schema_arrow.names == list(ORIGINAL_45.features)
    assert {str(kind) for kind in file.schema_arrow.types} == {"double"}
    assert file.metadata.metadata[b"ids_spark.data_origin"] == b"synthetic"
    column = file.metadata.row_group(0).column(0)
    assert column.compression == "SNAPPY"
    assert not any("DICTIONARY" in encoding for encoding in column.encodings)


def test_a_file_of_several_row_groups_joins_them_in_order(tmp_path: Path) -> None:
    plan = plan_dataset(1.0, 7, 1)
    largest = max(plan.files, key=lambda f: f.rows)
    task = task_of(largest, tmp_path)
    assert dataset.write_file(task) == 207_295
    file = pq.ParquetFile(tmp_path / largest.split / f"{largest.name}.pcap.parquet")
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
    assert sizes == [65_536, 65_536, 65_536, 10_687]
    values = file.read().to_pandas().to_numpy().T
    np.testing.assert_array_equal(np.concatenate(list(dataset.chunks(task)), axis=1), values)
    assert len(np.unique(values[ORIGINAL_45.features.index("IAT")])) == 207_295 - duplicates_within(largest)


def task_of(file: FilePlan, root: Path, seed: int = 7) -> dataset.FileTask:
    return dataset.FileTask(file, str(root), seed, "original45", "parquet", True)


def duplicates_within(file: FilePlan) -> int:
    return sum(len(p.vectors) - len(set(p.vectors)) for p in file.planted)


def test_identities_of_the_first_release_hold_in_every_row(first: pd.DataFrame) -> None:
    f = first
    weighted = 6 * f["TCP"] + 17 * f["UDP"] + f["ICMP"] + 2 * f["IGMP"]
    np.testing.assert_allclose(f["Protocol Type"], weighted, rtol=0, atol=1e-9)
    np.testing.assert_allclose(f["TCP"] + f["UDP"] + f["ICMP"] + f["ARP"] + f["IGMP"], 1.0, rtol=0, atol=1e-9)
    np.testing.assert_allclose(f["IPv"], 1 - f["ARP"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(f["Magnitue"], np.sqrt(2 * f["AVG"]), rtol=0.011)
    np.testing.assert_allclose(f["Radius"], np.sqrt(2) * f["Std"], rtol=0.003)
    assert (f["LLC"] == f["IPv"]).all()
    assert (f["Srate"] == f["Rate"]).all()
    assert (f["Drate"] == 0).all()
    assert (f["Covariance"] >= f["Std"] ** 2 * (1 - 1e-9)).all()
    check_lengths_and_protocols(f)


def check_lengths_and_protocols(f: pd.DataFrame) -> None:
    for low, high in (("Min", "AVG"), ("AVG", "Max"), ("Min", "Tot size"), ("Tot size", "Max")):
        assert (f[low] <= f[high]).all(), (low, high)
    assert (f["Std"] <= f["Max"] - f["Min"] + 1e-9).all()
    assert (f[["HTTP", "HTTPS", "Telnet", "SMTP", "SSH", "IRC"]].sum(axis=1) <= f["TCP"] + 1e-9).all()
    assert (f[["DNS", "DHCP"]].sum(axis=1) <= f["UDP"] + 1e-9).all()
    numbers = f.select_dtypes("number")
    assert not numbers.isna().any().any()
    assert (numbers >= 0).all().all()


def test_window_lengths_show_in_number_and_weight(first: pd.DataFrame) -> None:
    pattern = "^(Benign|ARP_Spoofing|MQTT-Malformed_Data|Recon-.*)$"
    short = first["class19"].str.match(pattern)
    shown = first[["Number", "Weight"]].apply(tuple, axis=1)
    assert (shown[~short] == (9.5, 141.55)).all()
    assert (shown[short & (first["row"] % 2 == 0)] == (5.5, 38.5)).all()
    assert (shown[short & (first["row"] % 2 == 1)] == (13.5, 244.6)).all()


def test_identities_of_the_second_release_hold_in_every_row(second: pd.DataFrame) -> None:
    f = second
    np.testing.assert_allclose(f["TCP"] + f["UDP"] + f["ICMP"] + f["ARP"] + f["IGMP"], 1.0, rtol=0, atol=1e-9)
    np.testing.assert_allclose(f["IPv"], 1 - f["ARP"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(f["Variance"], f["Std"] ** 2, rtol=1e-9)
    np.testing.assert_allclose(f["Tot sum"], f["AVG"] * f["Number"], rtol=1e-9)
    assert (f["Tot size"] == f["AVG"]).all()
    for flag in ("ack", "syn", "fin", "rst"):
        np.testing.assert_allclose(f[f"{flag}_count"], f["Number"] * f[f"{flag}_flag_number"], atol=1e-9)
    assert set(f["Protocol Type"]) <= {0.0, 1.0, 2.0, 6.0, 17.0}
    assert (f["Number"] == np.where(f["class19"].str.match(FLOODS), 100, 10)).all()
    check_lengths_and_protocols(f)


def test_infinite_rates_are_where_the_second_release_has_them(second: pd.DataFrame) -> None:
    infinite = np.isinf(second["Rate"]).groupby(second["class19"]).mean()
    assert infinite["Benign"] == 0
    assert infinite["Recon-Port_Scan"] == pytest.approx(0.2609, abs=0.06)
    assert infinite["MQTT-DDoS-Connect_Flood"] == pytest.approx(0.1, abs=0.04)
    finite = second[np.isfinite(second["Rate"])]
    assert (finite["Rate"] * finite["IAT"]).median() == pytest.approx(1.0, abs=0.05)


def test_only_the_planted_rows_are_exact_duplicates(first: pd.DataFrame, second: pd.DataFrame) -> None:
    expected = {("first", "train"): 102, ("first", "test"): 41, ("second", "train"): 26, ("second", "test"): 10}
    for name, frame, schema in (("first", first, ORIGINAL_45), ("second", second, RELEASE_39)):
        for split, rows in frame.groupby("split"):
            assert removed_by_deduplication(rows, list(schema.features)) == expected[name, str(split)]


def test_some_vectors_have_two_labels_and_some_are_in_both_splits(first: pd.DataFrame) -> None:
    features = list(ORIGINAL_45.features)
    for _, rows in first.groupby("split"):
        distinct = rows.drop_duplicates([*features, "class19"])
        shown = distinct[distinct.duplicated(features, keep=False)]
        assert len(shown) == 2  # one vector: 48 x 0.02 and max(1, 24 x 0.02)
        assert set(shown["class19"]) == {"Recon-OS_Scan", "Recon-Port_Scan"}
    distinct = first.drop_duplicates([*features, "split"])
    assert int(distinct.duplicated(features).sum()) == 4  # 195 x 0.02


def test_near_duplicates_differ_in_double_but_not_in_single_precision(first: pd.DataFrame) -> None:
    features = list(ORIGINAL_45.features)
    for split, at_scale_one in (("train", 2_645_751), ("test", 721_914)):
        rows = first[first["split"] == split]
        single = rows[features].astype(np.float32).assign(class19=rows["class19"])
        assert removed_by_deduplication(single, features) == pytest.approx(at_scale_one * SCALE, rel=0.01)
        floods = single[rows["class19"].str.match(FLOODS)]
        assert removed_by_deduplication(floods, features) == pytest.approx(at_scale_one * SCALE, rel=0.01)


def test_inter_arrival_time_contains_the_capture_day(first: pd.DataFrame) -> None:
    families = {"^DoS-": (84_670_752, 84_679_552), "^DDoS-": (84_696_008, 84_697_184)}
    for pattern, (low, high) in families.items():
        iat = first.loc[first["class19"].str.match(pattern), "IAT"]
        assert low <= iat.min() <= iat.max() <= high
    assert first.loc[first["class19"] == "MQTT-DoS-Publish_Flood", "IAT"].between(84_662_000, 84_667_400).all()
    benign = first[first["class19"] == "Benign"]
    assert benign.loc[benign["row"] % 2 == 1, "IAT"].between(1.6946e8, 1.6948e8).all()
    assert (benign.loc[benign["row"] % 2 == 0, "IAT"] < 100).all()


def test_capture_day_can_be_omitted(spark: SparkSession, tmp_path: Path) -> None:
    report = dataset.write_dataset(
        spark, str(tmp_path / "clean"), 0.001, 7, ORIGINAL_45, "parquet", capture_day_iat=False
    )
    rows = read(tmp_path / "clean")
    assert rows["IAT"].between(0, 1000).all()
    assert {s: removed_by_deduplication(r, list(ORIGINAL_45.features)) for s, r in rows.groupby("split")} == {
        "train": 5,
        "test": 2,
    }
    assert report.rows["train"] == int((rows["split"] == "train").sum())


def test_moments_are_near_those_of_the_data_set(first: pd.DataFrame) -> None:
    # 0.15 at scale 1; a fiftieth of the rows of heavy-tailed features scatters more.
    for feature, (mean, std) in GLOBAL_MOMENTS.items():
        assert first[feature].mean() == pytest.approx(mean, rel=0.2), feature
        assert first[feature].std(ddof=0) == pytest.approx(std, rel=0.25), feature


def test_rows_depend_on_the_seed_only(spark: SparkSession, first_root: Path, tmp_path: Path) -> None:
    plan = plan_dataset(SCALE, 7, 1)
    for file in plan.files[::9]:  # sampled here, in one process, instead of in Spark's tasks
        written = pd.read_parquet(first_root / file.split / f"{file.name}.pcap.parquet").to_numpy().T
        np.testing.assert_array_equal(np.concatenate(list(dataset.chunks(task_of(file, tmp_path))), axis=1), written)
    drawn = [next(dataset.chunks(task_of(plan.files[1], tmp_path, seed=seed))) for seed in (7, 8)]
    assert (drawn[0] == drawn[1]).all(axis=0).sum() == 0


def test_csv_holds_the_same_rows_as_parquet(spark: SparkSession, tmp_path: Path) -> None:
    for file_format in ("csv", "parquet"):
        dataset.write_dataset(spark, str(tmp_path / file_format), 0.001, 3, ORIGINAL_45, file_format)
    pd.testing.assert_frame_equal(read(tmp_path / "csv"), read(tmp_path / "parquet"))
    header = (tmp_path / "csv" / "test" / "Benign_test.pcap.csv").read_text().splitlines()[0]
    assert header == ",".join(ORIGINAL_45.features)


def test_the_mark_lists_what_was_written(spark: SparkSession, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        report = dataset.write_dataset(spark, str(tmp_path), 0.001, 7, RELEASE_39, "parquet")
    facts = json.loads((tmp_path / "_SYNTHETIC.json").read_text())
    assert facts == dataclasses.asdict(report)
    assert (facts["synthetic"], facts["complete"], facts["seed"], facts["scale"]) == (True, True, 7, 0.001)
    assert facts["feature_schema"] == "release39"
    assert facts["rows_per_file"]["train/Benign_train.pcap.parquet"] == 193
    assert all("synthetic" in r.getMessage() for r in caplog.records if r.name == "ids_spark.synthetic.dataset")
    assert "synthetic data set written data_origin=synthetic" in caplog.text
    hidden = [p.name for p in tmp_path.rglob(".*") if not p.name.endswith(".crc")]
    assert hidden == []


def test_an_earlier_data_set_is_replaced_whole(spark: SparkSession, tmp_path: Path) -> None:
    dataset.write_dataset(spark, str(tmp_path), 0.001, 7, ORIGINAL_45, "csv")
    dataset.write_dataset(spark, f"file://{tmp_path}", 0.001, 7, ORIGINAL_45, "parquet")
    assert {p.suffix for p in tmp_path.glob("*/*")} == {".parquet"}
    assert len(list(tmp_path.glob("*/*"))) == 72


@pytest.mark.parametrize("mark", [None, "{", "[]", '{"synthetic": false}'])
def test_a_folder_of_anything_else_is_refused(spark: SparkSession, tmp_path: Path, mark: str | None) -> None:
    (tmp_path / "precious.csv").write_text("1\n")
    if mark is not None:
        (tmp_path / "_SYNTHETIC.json").write_text(mark)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"precious\.csv.* and no _SYNTHETIC\.json of a synthetic data set"):
        dataset.write_dataset(spark, str(tmp_path), 0.001, 7, ORIGINAL_45, "parquet")
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_as_target_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("")
    with pytest.raises(InputError, match="file is a file; expected no folder, an empty one"):
        dataset.write_dataset(spark, str(target), 0.001, 7, ORIGINAL_45, "parquet")


@pytest.mark.parametrize(("scale", "least", "seed"), [(0.0, 1, 7), (11.0, 1, 7), (1.0, 0, 7), (1.0, 1, -1)])
def test_arguments_out_of_range_are_refused(
    spark: SparkSession, tmp_path: Path, scale: float, least: int, seed: int
) -> None:
    with pytest.raises(InputError, match=rf"found scale {scale}, .* expected a scale above 0 and at most 10"):
        dataset.write_dataset(spark, str(tmp_path / "new"), scale, seed, ORIGINAL_45, "parquet", least)
    assert not (tmp_path / "new").exists()


def test_more_rows_than_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="expected fewer than 134,217,728, as every row has a number of 27 bits"):
        plan_dataset(1.0, 7, 2_000_000)


def test_a_failed_attempt_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = plan_dataset(0.001, 7, 1).files[0]

    whole = list(dataset.chunks(task_of(file, tmp_path)))

    def broken(_: dataset.FileTask) -> Iterator[Floats]:
        yield from whole
        raise OSError("disk full")

    monkeypatch.setattr(dataset, "chunks", broken)
    with pytest.raises(OSError, match="disk full"):
        dataset.write_file(task_of(file, tmp_path))
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_import_needs_neither_tensorflow_nor_spark() -> None:
    heavy = "{'tensorflow', 'horovod', 'petastorm', 'pyspark'}"
    code = f"import sys, ids_spark.synthetic.dataset; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
