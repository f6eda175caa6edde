"""Replays of test rows and local rows, compared with counts made directly from networks. All flows are synthetic."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from ids_spark.adapt.replay import local_thresholds, replay
from ids_spark.base.arrays import as_rows
from ids_spark.dataset.features import SchemaMismatch
from ids_spark.dataset.taxonomy import CLASS19, parents
from ids_spark.ingest.sources import SourceUnusable
from ids_spark.lake.filesystem import write_json
from ids_spark.lake.store import Lake
from ids_spark.models import architectures
from ids_spark.models.artifact import Model, ModelUnusable
from tests.support.replayed import DATES, NEW, OLD, write_local_rows, write_model, write_rows_of_test

ROWS = 600


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def every(rows: pa.Table) -> np.ndarray:
    return np.ones(len(rows), dtype=bool)


def nothing(rows: pa.Table) -> np.ndarray:
    return np.zeros(len(rows), dtype=bool)


def scored(model: Model, frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return whether a model flags each row, and its most probable class, from Keras itself."""
    card = model.card
    network = architectures.build(card.architecture, len(card.features), card.classes, card.hyperparameters)
    network.set_weights(model.weights)
    frame = frame.assign(**{"Header_Length / AVG": frame["Header_Length"] / frame["AVG"]})
    values = {name: frame[name].to_numpy(np.float64) for name in card.features}
    p = network(as_rows(model.preprocessor.transform(values, list(card.features)))).numpy().astype(np.float64)
    assert model.validation_scores is not None
    flagged = p[:, 1:].sum(axis=1) >= p[:, 0] * np.exp(model.validation_scores.levels()[0])
    return flagged, p.argmax(axis=1)


def test_counts_of_two_models_are_those_of_their_networks(
    spark: SparkSession, lake: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    models = [write_model(lake, OLD, 1, 0.5), write_model(lake, NEW, 2, 1.0, derived=True)]
    frame, own = write_rows_of_test(lake, ROWS), write_local_rows(lake, ROWS)
    write_json(lake.uri("flows/split=local/_table.json"), {})  # no flows, and nothing to warn of
    found = replay(spark.sparkContext, lake, models, every)
    assert not [each for each in caplog.records if each.levelname == "WARNING"]

    frame = frame[~frame["duplicate"]]
    labels = frame["label19"].to_numpy()
    (first, predicted), (second, _) = (scored(model, frame) for model in models)
    assert 0 < first.sum() < len(first)
    assert (first != second).any()
    assert found.rows().tolist() == np.bincount(labels, minlength=19).tolist()
    assert found.flagged(0).tolist() == np.bincount(labels[first], minlength=19).tolist()
    assert found.flagged(1).tolist() == np.bincount(labels[second], minlength=19).tolist()
    assert found.flagged_by_only(0, 1).tolist() == np.bincount(labels[first & ~second], minlength=19).tolist()
    truth = parents(19, 6)[labels]
    expected = pd.crosstab(truth, predicted).reindex(index=range(6), columns=range(6), fill_value=0).to_numpy()
    assert found.confusions[0].tolist() == expected.tolist()
    assert found.attack_recall(0) == pytest.approx((predicted[truth > 0] > 0).mean())

    own = own[own["left_out"].isna()]
    (first, called), (second, _) = (scored(model, own) for model in models)
    assert found.local_rows() == len(own) == ROWS - len(range(0, ROWS, 7))
    assert (found.local_flagged(0), found.local_flagged(1)) == (first.sum(), second.sum())
    assert found.local_called_attacks[0] == (called > 0).sum()
    groups = own.assign(first=first).groupby(["event_date", "device"])["first"].agg(["size", "sum"])
    assert {key: (counts.sum(), counts[1] + counts[3]) for key, counts in found.local.items()} == {
        key: tuple(row) for key, row in groups.iterrows()
    }
    by_device = own.assign(first=first).groupby("device")["first"].agg(["size", "sum"])
    assert found.local_by_device(0) == {name: tuple(row) for name, row in by_device.iterrows()}


def test_thresholds_of_the_same_local_rows_flag_one_percent_of_them(spark: SparkSession, lake: Lake) -> None:
    models = [write_model(lake, OLD, 1, 0.5), write_model(lake, NEW, 2, 60.0)]
    write_local_rows(lake, 3_000)
    assert local_thresholds(spark.sparkContext, lake, models, nothing) is None
    logits = local_thresholds(spark.sparkContext, lake, models, every)
    assert logits is not None
    found = replay(spark.sparkContext, lake, models, every, logits)
    assert found.logits == logits
    rows = found.local_rows()
    assert all(abs(found.local_flagged(i) - 0.01 * rows) <= 2 for i in (0, 1))
    assert replay(spark.sparkContext, lake, models, every).local_flagged(1) == 0  # at its own threshold


def test_only_chosen_local_rows_are_counted(spark: SparkSession, lake: Lake) -> None:
    model = write_model(lake, OLD, 1, 0.5)
    own = write_local_rows(lake, 100)

    def last_date(rows: pa.Table) -> np.ndarray:
        return np.array(rows["event_date"].to_pylist()) == DATES[1]

    found = replay(spark.sparkContext, lake, [model], last_date)
    assert {date for date, _ in found.local} == {DATES[1]}
    assert replay(spark.sparkContext, lake, [model]).local_rows() == 0
    assert found.local_rows() == int((own["left_out"].isna() & (own["event_date"] == DATES[1])).sum())
    assert found.rows().sum() == 0  # the lake has no test rows
    assert found.macro_f1(0) is None
    assert found.attack_recall(0) is None


def test_a_lake_without_flows_gives_no_rows(spark: SparkSession, lake: Lake) -> None:
    found = replay(spark.sparkContext, lake, [write_model(lake, OLD, 1, 0.5)], every)
    assert (found.rows().sum(), found.local_rows(), found.rows().shape) == (0, 0, (len(CLASS19),))


def test_flows_of_another_release_a_broken_file_and_a_model_without_threshold_are_refused(
    spark: SparkSession, lake: Lake, tmp_path: Path
) -> None:
    model = write_model(lake, OLD, 1, 0.5)
    write_rows_of_test(lake, 40)
    [first, _] = sorted((tmp_path / "lake/flows/split=test").glob("*.parquet"))
    content = first.read_bytes()
    pq.write_table(pa.table({"Rate": [1.0], "label19": [1]}), first)
    with pytest.raises(SchemaMismatch, match="lacks"):
        replay(spark.sparkContext, lake, [model])
    middle = len(content) // 2
    first.write_bytes(content[:4] + bytes(middle) + content[4 + middle :])
    with pytest.raises(SourceUnusable, match="cannot be read"):
        replay(spark.sparkContext, lake, [model])
    unscored = Model(model.card, model.weights, model.preprocessor, model.sha256)
    with pytest.raises(ModelUnusable, match="no validation scores"):
        replay(spark.sparkContext, lake, [unscored])
