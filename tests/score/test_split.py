"""Splits scored by several models. All flows and models are synthetic, even if their directories state otherwise."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from ids_spark.config.score import ScoreConfig
from ids_spark.config.train import ModelConfig
from ids_spark.dataset.features import ORIGINAL_45, RELEASE_39, SchemaMismatch
from ids_spark.dataset.taxonomy import CLASS19, class6_of
from ids_spark.ingest.sources import SYNTHETIC_MARK
from ids_spark.lake.store import Lake
from ids_spark.models import architectures, artifact
from ids_spark.models.signatures import SignatureRefused
from ids_spark.score import split
from tests.support.flows import synthetic_frame
from tests.support.keys import key_pair
from tests.support.models import CARD, DERIVED, PREPROCESSOR, WITH_DERIVED

ROWS = 200
ORIGINS = {"a-synthetic": "synthetic", "b-measured": "measured", "c-measured": "measured"}
READS_DERIVED = "c-measured"  # reads a derived feature


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake with three untrained models of six classes."""
    folder = tmp_path_factory.mktemp("split")
    for seed, (name, origin) in enumerate(ORIGINS.items()):
        card = dataclasses.replace(
            CARD,
            name=name,
            variant=name,
            hyperparameters=ModelConfig(dense=(16,)).model_dump(mode="json"),
            data_origin=origin,
            features=DERIVED if name == READS_DERIVED else CARD.features,
        )
        network = architectures.build(card.architecture, len(card.features), card.classes, card.hyperparameters)
        rng = np.random.default_rng(seed)
        weights = [rng.normal(0, 0.3, w.shape).astype(w.dtype) for w in network.get_weights()]
        fitted = WITH_DERIVED if name == READS_DERIVED else PREPROCESSOR
        artifact.write_model(f"{folder}/models/{name}/{card.version}", card, weights, fitted)
    return Lake(str(folder))


@pytest.fixture
def flows(tmp_path: Path) -> Path:
    """A folder with one parquet file of labelled flows."""
    frame = synthetic_frame(ROWS, seed=2).assign(class19=[CLASS19[i % 19] for i in range(ROWS)])
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), tmp_path / "flows.parquet")
    return tmp_path


def score(spark: SparkSession, lake: Lake, flows: Path) -> tuple[split.Report, dict[str, Path]]:
    """Score the flows with all models; returns the report and the folder of each table."""
    config = ScoreConfig(source=str(flows), split="test")
    staged = flows / "staged"
    report = split.score_split(spark.sparkContext, lake, lambda table: f"{staged}/{table}", config, "run-1", 7)
    return report, {table: staged / table for table in report.tables}


def predictions_of(tables: dict[str, Path]) -> dict[str, pd.DataFrame]:
    """Return the predictions of each model."""
    return {
        name: pd.read_parquet(path)
        for name in ORIGINS
        for table, path in tables.items()
        if table.startswith("split_predictions") and f"model={name}" in table
    }


def test_a_synthetic_model_makes_its_own_results_synthetic_and_not_those_of_later_models(
    spark: SparkSession, lake: Lake, flows: Path
) -> None:
    report, tables = score(spark, lake, flows)
    assert {name: set(rows["data_origin"]) for name, rows in predictions_of(tables).items()} == {
        name: {origin} for name, origin in ORIGINS.items()
    }
    metrics = pd.read_parquet(tables["metrics/run-1.parquet"]).groupby("model")["data_origin"].agg(set)
    assert metrics.to_dict() == {f"dnn-{name}": {origin} for name, origin in ORIGINS.items()}
    assert report.data_origin == "synthetic"  # of the whole run
    assert (report.rows_in, report.rows_out, report.rows_quarantined) == (3 * ROWS, 3 * ROWS, 0)


def test_synthetic_flows_make_the_results_of_every_model_synthetic(
    spark: SparkSession, lake: Lake, flows: Path
) -> None:
    (flows / SYNTHETIC_MARK).write_text("{}")
    report, tables = score(spark, lake, flows)
    assert all(set(rows["data_origin"]) == {"synthetic"} for rows in predictions_of(tables).values())
    assert report.data_origin == "synthetic"


def test_flows_of_the_other_release_are_refused_although_they_have_the_features_of_the_model(
    spark: SparkSession, lake: Lake, flows: Path
) -> None:
    frame = pd.read_parquet(flows / "flows.parquet")
    assert PREPROCESSOR.schema is RELEASE_39
    for name in ORIGINAL_45.features:
        frame[name] = frame.get(name, 1.0)
    frame.to_parquet(flows / "flows.parquet", index=False)
    with pytest.raises(SchemaMismatch, match=r"flows\.parquet is of no clear release"):
        score(spark, lake, flows)
    frame.drop(columns="Time_To_Live").to_parquet(flows / "flows.parquet", index=False)
    with pytest.raises(SchemaMismatch, match=r"flows\.parquet (is of feature schema original45|lacks)"):
        score(spark, lake, flows)


def test_a_column_that_occurs_twice_is_refused(spark: SparkSession, lake: Lake, flows: Path) -> None:
    table = pq.read_table(flows / "flows.parquet")
    pq.write_table(table.append_column("Rate", table["Rate"]), flows / "flows.parquet")
    with pytest.raises(SchemaMismatch, match="Rate occur more than once"):
        score(spark, lake, flows)


def test_other_spellings_and_columns_that_hold_something_else_are_read(
    spark: SparkSession, lake: Lake, flows: Path
) -> None:
    _, expected = score(spark, lake, flows)
    before = {name: rows["attack_probability"].tolist() for name, rows in predictions_of(expected).items()}
    frame = pd.read_parquet(flows / "flows.parquet").rename(columns=lambda name: f" {name.replace(' ', '_')}")
    frame = frame.rename(columns={" class19": "class19"}).assign(source_row="x", duplicate=2, source_file=1.5)
    shutil.rmtree(flows / "staged")
    frame.to_parquet(flows / "flows.parquet", index=False)
    _, tables = score(spark, lake, flows)
    for name, rows in predictions_of(tables).items():
        assert rows["attack_probability"].tolist() == before[name]
        assert rows["source_row"].tolist() == list(range(ROWS))
        assert set(rows["source_file"]) == {"flows.parquet"}


def test_with_trusted_keys_every_model_must_be_signed(
    spark: SparkSession, lake: Lake, flows: Path, tmp_path: Path
) -> None:
    keys = key_pair(tmp_path / "keys")
    config = ScoreConfig(source=str(flows), split="test", trusted_keys=(str(keys.public),))
    with pytest.raises(SignatureRefused, match="is not signed"):
        split.score_split(spark.sparkContext, lake, lambda table: f"{tmp_path}/staged/{table}", config, "run-1", 7)
    assert not (tmp_path / "staged").exists()


def test_files_that_are_not_read_are_named(
    spark: SparkSession, lake: Lake, flows: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(flows / "flows.parquet", flows / ".flows-0.parquet")
    report, _ = score(spark, lake, flows)
    assert report.rows_in == ROWS * len(ORIGINS)
    assert "not read: .flows-0.parquet: " in caplog.text


def test_labels_that_are_no_text_cost_only_the_label(spark: SparkSession, lake: Lake, flows: Path) -> None:
    table = pq.ParquetFile(flows / "flows.parquet").read()
    names = [name.encode() for name in table["class19"].to_pylist()]
    names[3], names[4] = b"caf\xe9", b"x" * 5_000_000
    binary = pa.array(names, pa.binary())
    labels = pa.Array.from_buffers(pa.string(), len(binary), binary.buffers())  # as Spark writes it, unchecked
    at = table.column_names.index("class19")
    pq.write_table(table.set_column(at, "class19", labels), flows / "flows.parquet")
    report, tables = score(spark, lake, flows)
    assert (report.rows_in, report.rows_out) == (ROWS * len(ORIGINS), ROWS * len(ORIGINS))
    predicted = predictions_of(tables)["b-measured"].sort_values("source_row", ignore_index=True)
    assert predicted["class19"].isna().tolist() == [row in (3, 4) for row in range(ROWS)]


def test_predictions_carry_labels_at_every_level_and_the_probabilities_of_keras(
    spark: SparkSession, lake: Lake, flows: Path
) -> None:
    _, tables = score(spark, lake, flows)
    labels = [CLASS19[i % 19] for i in range(ROWS)]
    frame = synthetic_frame(ROWS, seed=2)
    for name, found in predictions_of(tables).items():
        [uri] = artifact.choose_models(lake.uri("models"), [name], "latest")
        model = artifact.read_model(uri)
        own = {f: frame[f].to_numpy() for f in model.card.source_features}
        if name == READS_DERIVED:
            own["Header_Length / AVG"] = own["Header_Length"] / own["AVG"]
        columns = model.preprocessor.transform(own, model.card.features)
        network = architectures.build(
            model.card.architecture, len(model.card.features), model.card.classes, model.card.hyperparameters
        )
        network.set_weights(model.weights)
        p = network.predict(np.column_stack(columns), verbose=0).astype(np.float64)
        np.testing.assert_allclose(found["attack_probability"], p[:, 1:].sum(axis=1), rtol=1e-5)
        np.testing.assert_allclose(found["probability"], p.max(axis=1), rtol=1e-5)
        assert found["class19"].tolist() == labels
        assert found["class6"].tolist() == [class6_of(label) for label in labels]
        assert found["source_row"].tolist() == list(range(ROWS))
        assert found["predicted_class19"].isna().all()  # finer than the models
