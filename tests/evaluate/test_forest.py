"""The random forest through real parquet, compared with scikit-learn on its predictions and with scoring's counts."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pyspark.ml.classification import RandomForestClassifier
from pyspark.sql import SparkSession
from sklearn.dummy import DummyClassifier
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from ids_spark.config.loader import ConfigError, load
from ids_spark.config.settings import ForestConfig
from ids_spark.config.train import TrainConfig
from ids_spark.dataset.taxonomy import CLASSES
from ids_spark.evaluate import forest
from ids_spark.lake.store import Lake
from ids_spark.models import artifact
from ids_spark.train import tasks
from tests.support.flows import RunJob, write_synthetic_source
from tests.support.in_process import run

SETTINGS = ["forest.trees=5", "forest.max_depth=6", "forest.rows_per_partition=200", "features.files=4"]
CONFIG = load([], SETTINGS).forest


@pytest.fixture(scope="module")
def grown(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with features, an untrained network, and the metrics of it and every forest."""
    folder = tmp_path_factory.mktemp("forest")
    frames = write_synthetic_source(folder / "source", rows=120)
    for path, frame in frames.items():  # every row of one class twice: neither may count them twice
        if "VulScan" in path:
            pd.concat([frame, frame]).to_csv(folder / "source" / path, index=False)
    done(folder, "ingest", f"ingest.source={folder / 'source'}")
    done(folder, "features")
    done(folder, "forest", "train.feature_sets=[paper,operational]")
    lake = Lake(str(folder / "lake"))
    table = tasks.open_features(lake, "paper", 1)
    card = tasks.card_of(table, TrainConfig(), "dnn", 6, "paper", "v1")
    shapes = [(len(card.features), 64), 64, (64, 32), 32, (32, 6), 6]
    weights = [np.random.default_rng(i).normal(size=shape).astype(np.float32) for i, shape in enumerate(shapes)]
    artifact.write_model(lake.uri(f"models/{card.name}/v1"), card, weights, table.preprocessor)
    done(folder, "score")
    return folder / "lake"


def done(folder: Path, name: str, *settings: str) -> None:
    code, log = run(folder, name, *SETTINGS, *settings)
    assert code == 0, log


def of_forest(lake: Path, table: str, classes: int, feature_set: str = "paper") -> pd.DataFrame:
    rows = pd.read_parquet(lake / table)
    own = rows[(rows["model"] == "random_forest") & (rows["feature_set"] == feature_set)]
    return own[(own["classes"] == classes) & (own["of_classes"] == classes)]


def predictions(spark: SparkSession, lake: Path, classes: int, feature_set: str) -> pd.DataFrame:
    """Grow the same forest again, and return label and prediction of every test row as names."""
    table = tasks.open_features(Lake(str(lake)), "paper", 1)
    features = forest.card_of(table, CONFIG, classes, feature_set, "v1").features
    train, test = (
        forest.as_vectors(forest.read_split(spark, table, split, CONFIG.rows_per_partition), features, classes)
        for split in ("train", "test")
    )
    rows = forest.fit(train, CONFIG, seed=7).transform(test).select("label", "prediction").toPandas()
    return rows.astype(int).apply(lambda ids: ids.map(dict(enumerate(CLASSES[classes]))))


@pytest.mark.parametrize(("classes", "feature_set"), [(19, "paper"), (6, "operational"), (2, "paper")])
def test_metrics_and_confusion_are_those_of_scikit_learn_on_the_same_forests_predictions(
    spark: SparkSession, grown: Path, classes: int, feature_set: str
) -> None:
    found = predictions(spark, grown, classes, feature_set)
    rows = of_forest(grown, "metrics", classes, feature_set)
    averages = rows[rows["class_name"].isna()].set_index("metric")["value"]
    for average in ("macro", "weighted"):
        wanted = precision_recall_fscore_support(found["label"], found["prediction"], average=average, zero_division=0)
        for metric, value in zip(("precision", "recall", "f1"), wanted, strict=False):
            assert averages[f"{metric}_{average}"] == pytest.approx(value)
    counts = of_forest(grown, "confusion", classes, feature_set).pivot(
        index="class_name", columns="predicted_class", values="count"
    )
    names = list(CLASSES[classes])
    np.testing.assert_array_equal(
        counts.loc[names, names], confusion_matrix(found["label"], found["prediction"], labels=names)
    )


def test_it_beats_the_most_frequent_class(spark: SparkSession, grown: Path) -> None:
    found = predictions(spark, grown, 19, "paper")
    trivial = DummyClassifier(strategy="most_frequent").fit(found[["label"]], found["label"]).predict(found[["label"]])
    ours = of_forest(grown, "metrics", 19).set_index("metric").loc["f1_macro", "value"]
    assert ours > 3 * f1_score(found["label"], trivial, average="macro")


def test_it_counts_each_distinct_flow_once_as_scoring_does(grown: Path) -> None:
    metrics = pd.read_parquet(grown / "metrics")
    metrics = metrics[(metrics["classes"] == 6) & (metrics["of_classes"] == 6) & (metrics["feature_set"] == "paper")]
    metrics = metrics[metrics["metric"] == "recall"]
    support = {
        model: rows[rows["support"] > 0].set_index("class_name")["support"].astype(int).to_dict()
        for model, rows in metrics.groupby("model")
    }
    flows = pd.read_parquet(grown / "flows/split=test")
    assert flows["duplicate"].sum() == 120
    assert support["random_forest"] == support["dnn"] == flows[~flows["duplicate"]]["class6"].value_counts().to_dict()
    for table in ("metrics", "confusion"):
        assert of_forest(grown, table, 6)["data_origin"].eq("measured").all()


def test_it_states_its_duration_and_size(grown: Path) -> None:
    rows = of_forest(grown, "metrics", 19)
    facts = rows[rows["class_name"].isna()].set_index("metric")["value"]
    assert facts["trees"] == 5
    assert 1 <= facts["depth"] <= 6
    assert 5 * 3 <= facts["nodes"] <= 5 * (2**7 - 1)
    assert facts["fit_seconds"] > 0
    assert not list((grown / "models").glob("random_forest*"))


def test_the_operational_feature_set_has_fewer_features(grown: Path) -> None:
    table = tasks.open_features(Lake(str(grown)), "paper", 1)
    seen = {p: forest.card_of(table, ForestConfig(), 2, p, "v1").features for p in ("paper", "operational")}
    left_out = {"Number", "Tot sum", "ack_count", "syn_count", "fin_count", "rst_count"}
    assert set(seen["paper"]) - set(seen["operational"]) == left_out


def test_metadata_of_a_file_imports_nothing_and_other_files_are_not_read(
    spark: SparkSession, grown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, marker = tmp_path / "lake #1 {x}?%20", tmp_path / "code was run"
    shutil.copytree(grown / "features", lake / "features")
    (tmp_path / "named_by_metadata.py").write_text(f"open({str(marker)!r}, 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    for path in (lake / "features/paper/split=train").glob("*.parquet"):
        rows = pq.read_table(path)
        fields: list[dict[str, object]] = [
            {"name": field.name, "type": "float", "nullable": True, "metadata": {}} for field in rows.schema
        ]
        fields[1]["type"] = {"type": "udt", "pyClass": "named_by_metadata.Type", "sqlType": "float"}
        attack = {"org.apache.spark.sql.parquet.row.metadata": json.dumps({"type": "struct", "fields": fields})}
        pq.write_table(rows.replace_schema_metadata(attack), path)
        path.with_suffix(".txt").write_text("no parquet")
    table = tasks.open_features(Lake(str(lake)), "paper", 1)
    read = forest.read_split(spark, table, "train", 200)
    assert read.columns == rows.schema.names
    expected = pd.concat(map(pd.read_parquet, (grown / "features/paper/split=train").glob("*.parquet")))
    pd.testing.assert_frame_equal(
        *(frame.sort_values(["row_key", "label19"], ignore_index=True) for frame in (read.toPandas(), expected))
    )
    assert not marker.exists()


def test_it_needs_features(run_job: RunJob, caplog: pytest.LogCaptureFixture) -> None:
    assert run_job("forest") == 2
    assert "run jobs/features.py on this lake first" in caplog.text


@pytest.mark.parametrize("subset", ["sqrt", "onethird", "log2", "all", "0.5", "6"])
def test_every_documented_choice_of_features_is_one_that_spark_takes(spark: SparkSession, subset: str) -> None:
    chosen = load([], [f"forest.features_per_split={subset}"]).forest.features_per_split
    assert RandomForestClassifier(featureSubsetStrategy=chosen).getFeatureSubsetStrategy() == subset


def test_another_choice_of_features_is_refused_before_spark_starts() -> None:
    with pytest.raises(ConfigError, match=r"forest\.features_per_split: String should match pattern"):
        load([], ["forest.features_per_split=half"])
