"""Ingest and features on real flows against pandas and scikit-learn."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from sklearn.preprocessing import StandardScaler

from ids_spark.dataset.features import FEATURE_SCHEMAS, column_of
from ids_spark.features.preprocess import from_json
from ids_spark.ingest import row_hash
from tests.support.flows import RunJob
from tests.support.in_process import run

COUNTS = {  # rows, duplicates and remaining rows, counted with pandas on the same files
    "original45": {"train": (20_816, 44, 20_772), "test": (36_258, 23, 36_235)},
    "release39": {"train": (45_901, 3_595, 42_306), "test": (18_360, 897, 17_463)},
}
TWO_LABEL_VECTORS = {"original45": (0, 0), "release39": (429, 96)}


@pytest.fixture(scope="module")
def lake_of(spark: SparkSession, real_flows: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that returns the lake with flows and features of a release; no test writes to it."""

    @cache
    def lake_of(release: str) -> Path:
        folder = tmp_path_factory.mktemp(release)
        for job, setting in (("ingest", f"ingest.source={real_flows / release}"), ("features", "features.files=3")):
            code, log = run(folder, job, setting)
            assert code == 0, log
        return folder / "lake"

    return lake_of


def oracle(folder: Path, features: tuple[str, ...]) -> pd.DataFrame:
    """Read one split and drop duplicates with pandas only."""
    frames = []
    for path in sorted(folder.glob("*.csv")):
        frame = pd.read_csv(path, float_precision="round_trip", dtype=float)
        name = path.name.replace("_train", "").replace("_test", "").removesuffix(".pcap.csv").removeprefix("TCP_IP-")
        frames.append(frame.assign(class19=name.rstrip("0123456789")))
    return pd.concat(frames)[[*features, "class19"]].drop_duplicates(ignore_index=True)


def as_sets(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    return frame[columns].sort_values(columns, ignore_index=True)


@pytest.mark.parametrize("release", ["original45", "release39"])
def test_kept_rows_statistics_and_scaled_values_are_those_of_pandas_and_sklearn(
    release: str, real_flows: Path, lake_of: Callable[[str], Path]
) -> None:
    lake = lake_of(release)
    features = FEATURE_SCHEMAS[release].features

    audit = {row["job"]: row for row in pd.read_parquet(lake / "audit").to_dict("records")}
    assert audit["features"]["rows_duplicate"] == sum(duplicates for _, duplicates, _ in COUNTS[release].values())
    counts = {(c["what"], c["split"]): 0 for c in audit["features"]["counts"]}
    for count in audit["features"]["counts"]:
        counts[count["what"], count["split"]] += count["rows"]
    for split, (rows, duplicates, _) in COUNTS[release].items():
        assert counts["flows", split] == rows
        assert counts["duplicates", split] == duplicates
    assert counts["features", "train"] + counts["features", "validation"] == COUNTS[release]["train"][2]
    assert counts["features", "test"] == COUNTS[release]["test"][2]
    found = tuple(counts.get(("label conflicts", split), 0) for split in ("train", "test"))
    assert found == TWO_LABEL_VECTORS[release]
    assert pq.read_table(lake / "quarantine").num_rows == 0

    expected = {split: oracle(real_flows / release / split, features) for split in ("train", "test")}
    for split, frame in expected.items():
        flows = pd.read_parquet(lake / "flows" / f"split={split}")
        kept = flows[~flows["duplicate"]]
        pd.testing.assert_frame_equal(as_sets(kept, [*features, "class19"]), as_sets(frame, [*features, "class19"]))

    fitted = from_json((lake / "features/paper/_preprocessor.json").read_text(), "test")
    train = expected["train"]
    keys = row_hash.row_keys([train[name].to_numpy() for name in features])
    fit_rows = train.loc[~row_hash.held_out(keys, 0.2), list(features)]
    finite = fit_rows.where(np.isfinite(fit_rows))
    saturated = fit_rows.clip(lower=finite.min(), upper=finite.max(), axis=1)
    scaler = StandardScaler().fit(saturated)
    std = saturated.std(ddof=0)
    for feature in fitted.features:
        assert feature.kept == (std[feature.name] > 1e-8), feature
        assert feature.std == pytest.approx(std[feature.name], rel=1e-9, abs=1e-300)
        assert feature.mean == pytest.approx(saturated[feature.name].mean(), rel=1e-9, abs=1e-300)
    dropped = {"original45": {"Drate", "DHCP"}, "release39": set()}[release]
    assert {f.name for f in fitted.features if not f.kept} == dropped

    columns = [column_of(name) for name in fitted.kept]
    written = pd.concat(pd.read_parquet(lake / "features/paper" / f"split={s}") for s in ("train", "validation"))
    extremes = [{np.inf: high, -np.inf: low} for low, high in zip(finite.min(), finite.max(), strict=True)]
    replaced = train[list(features)].replace(dict(zip(features, extremes, strict=True)))
    scaled = pd.DataFrame(scaler.transform(replaced), columns=list(features))[list(fitted.kept)].astype(np.float32)
    left = np.sort(written[columns].to_numpy(), axis=0)
    np.testing.assert_allclose(left, np.sort(scaled.to_numpy(), axis=0), rtol=2e-6, atol=2e-6)
    table = json.loads((lake / "features/paper/_table.json").read_text())
    assert min(table["row_groups"].values()) >= 3


def test_validation_takes_whole_vectors_and_a_fifth_of_the_rows(lake_of: Callable[[str], Path]) -> None:
    train, validation = (
        pd.read_parquet(lake_of("release39") / "features/paper" / f"split={s}") for s in ("train", "validation")
    )
    assert not set(train["row_key"]) & set(validation["row_key"])
    assert len(validation) / (len(train) + len(validation)) == pytest.approx(0.2, abs=0.01)
    by_class = validation["label19"].value_counts(normalize=True) / train["label19"].value_counts(normalize=True)
    assert by_class.between(0.75, 1.33).all()


def test_parquet_tree_and_labelled_tables_give_the_flows_of_the_csv_tree(
    real_flows: Path, lake_of: Callable[[str], Path], run_job: RunJob, tmp_path: Path
) -> None:
    tables: dict[str, list[pd.DataFrame]] = {"train": [], "test": []}
    for path in sorted((real_flows / "original45").glob("*/*.csv")):
        frame = pd.read_csv(path, float_precision="round_trip", dtype=float)
        target = tmp_path / "tree" / path.parent.name / path.name.replace(".csv", ".parquet")
        target.parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(target, index=False, row_group_size=3_000)
        tables[path.parent.name].append(frame.assign(label=path.name.removesuffix(".pcap.csv")))
    (tmp_path / "tables").mkdir()
    for split, frames in tables.items():
        pd.concat(frames).to_parquet(tmp_path / "tables" / f"{split}.parquet", index=False, row_group_size=10_000)
    pd.concat(tables["train"]).to_csv(tmp_path / "one_table.csv", index=False)

    wanted = {}
    for name in ("csv", "tree", "tables", "one_table.csv"):
        lake = lake_of("original45") if name == "csv" else tmp_path / f"lake-{name}"
        assert name == "csv" or run_job("ingest", lake=lake, ingest__source=tmp_path / name) == 0
        for split in ("train", "test") if name != "one_table.csv" else ("train",):
            flows = pd.read_parquet(lake / "flows" / f"split={split}")
            rows = as_sets(flows, ["row_key", "class19", "class6", "class2", "duplicate"])
            pd.testing.assert_frame_equal(wanted.setdefault(split, rows), rows)


@pytest.mark.slow
def test_features_do_not_depend_on_the_number_of_buckets(real_flows: Path, run_job: RunJob, tmp_path: Path) -> None:
    written = []
    for rows_per_file in (2_000, 7_919, 500_000):
        lake = tmp_path / f"lake-{rows_per_file}"
        run_job("ingest", lake=lake, ingest__source=real_flows / "release39", ingest__rows_per_file=rows_per_file)
        run_job("features", lake=lake)
        table = pd.read_parquet(lake / "features/paper").sort_values(["split", "row_key", "label19"], ignore_index=True)
        written.append(table)
    for other in written[1:]:
        columns = list(written[0].columns)
        pd.testing.assert_frame_equal(written[0], other[columns], check_exact=False, rtol=1e-6, atol=1e-6)
