"""Every job of a run by spark-submit from another folder, through real parquet and two real Horovod ranks."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from ids_spark.dataset.features import RELEASE_39
from ids_spark.dataset.taxonomy import CLASS6, CLASS19, class6_of
from ids_spark.features import preprocess
from tests.support.audits import drop_refusals
from tests.support.flows import write_synthetic_source
from tests.support.in_process import run
from tests.support.submitting import prepare, submit

SETTINGS = ("train.epochs=2", "train.batch_size=32", "train.classes=[6,19]", "features.files=4", "train.patience=2")


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a source, the package, and a lake that all jobs wrote."""
    folder = prepare(tmp_path_factory.mktemp("elsewhere"))
    write_synthetic_source(folder / "source")
    for job, done in (("prepare", ("ingest", "features")), ("train", ("train",)), ("score", ("score",))):
        code, output = submit(folder, job, *SETTINGS, *(("ingest.source=source",) if job == "prepare" else ()))
        assert code == 0, output
        assert all(f"{each} done" in output for each in done)
    return folder


def read(folder: Path, table: str) -> pd.DataFrame:
    return pd.read_parquet(folder / "lake" / table)


def test_every_job_left_an_audit_row_that_reconciles(night: Path) -> None:
    audit = read(night, "audit").set_index("job")
    assert set(audit.index) == {"ingest", "features", "train", "score"}
    accounted = audit["rows_out"] + audit["rows_quarantined"] + audit["rows_duplicate"]
    pd.testing.assert_series_equal(audit["rows_in"], accounted, check_names=False)
    assert audit.loc["ingest", "rows_in"] == 2 * 6 * 60
    assert (audit["status"] == "done").all()
    assert audit["config_sha256"].nunique() == 2  # only ingest and features have a setting for the source


def test_the_lake_holds_its_tables_and_nothing_else(night: Path) -> None:
    names = sorted(path.name for path in (night / "lake").iterdir())
    assert names == [
        "audit",
        "checkpoints",
        "confusion",
        "features",
        "flows",
        "metrics",
        "models",
        "quarantine",
        "split_predictions",
    ]


def forward(weights: list[np.ndarray], x: np.ndarray, gru: bool) -> np.ndarray:
    """Forward pass in numpy, from the published equations alone (Cho et al. 2014; Keras' reset_after variant)."""

    def sigmoid(v: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-v))

    if gru:  # one step from a zero state: h = (1 - z) * candidate
        kernel, bias, gamma, beta, mean, variance = weights[:6]
        z, r, c = np.split(x @ kernel + bias[0], 3, axis=1)
        bz, br, bc = np.split(bias[1], 3)
        h = (1 - sigmoid(z + bz)) * np.tanh(c + sigmoid(r + br) * bc)
        x, weights = (h - mean) / np.sqrt(variance + 1e-3) * gamma + beta, weights[6:]
    for kernel, bias in zip(weights[:-2:2], weights[1:-2:2], strict=True):
        x = np.maximum(x @ kernel + bias, 0)
    logits = x @ weights[-2] + weights[-1]
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("name", ["dnn-6-paper", "dnn-19-paper", "gru_dnn-6-paper", "gru_dnn-19-paper"])
def test_predictions_are_those_of_the_stored_weights_and_preprocessor(night: Path, name: str) -> None:
    model = next((night / "lake/models" / name).iterdir())
    card = json.loads((model / "model.json").read_text())
    fitted = preprocess.from_json((model / "preprocessor.json").read_text(), "test")
    packed = np.load(model / "weights.npz", allow_pickle=False)
    predictions = read(night, "split_predictions")
    predictions = predictions[predictions["model"] == name].sort_values(["source_file", "source_row"])
    flows = read(night, "flows/split=test").sort_values(["source_file", "source_row"])
    assert len(predictions) == len(flows) == 360

    raw = flows[card["features"]].to_numpy()
    mean, std = (np.array([getattr(f, key) for f in fitted.features if f.kept]) for key in ("mean", "std"))
    x = ((raw - mean) / std).astype(np.float32)
    expected = forward([packed[key] for key in sorted(packed.files)], x, gru=name.startswith("gru"))
    np.testing.assert_allclose(predictions["probability"], expected.max(axis=1), atol=1e-4)
    np.testing.assert_allclose(predictions["attack_probability"], 1 - expected[:, 0], atol=1e-4)
    sure = np.sort(expected, axis=1)[:, -1] - np.sort(expected, axis=1)[:, -2] > 1e-5
    level = card["classes"]
    names = np.array(CLASS19 if level == 19 else CLASS6)
    assert sure.mean() > 0.9
    assert (predictions[f"predicted_class{level}"].to_numpy()[sure] == names[expected.argmax(axis=1)][sure]).all()
    top = [entry[0]["class_name"] for entry in predictions["top3"]]
    assert top == predictions[f"predicted_class{level}"].tolist()
    if level == 19:
        sums = np.stack([expected[:, [class6_of(c) == six for c in CLASS19]].sum(axis=1) for six in CLASS6], axis=1)
        close = np.sort(sums, axis=1)[:, -1] - np.sort(sums, axis=1)[:, -2] > 1e-3
        six = np.array(CLASS6)[sums.argmax(axis=1)]
        assert (predictions["predicted_class6"].to_numpy()[close] == six[close]).all()
    else:
        assert predictions["predicted_class19"].isna().all()


def test_metrics_are_those_of_sklearn_on_the_predictions(night: Path) -> None:
    metrics, predictions = read(night, "metrics"), read(night, "split_predictions")
    keys = ["model", "of_classes", "classes"]
    assert set(metrics[keys].itertuples(index=False, name=None)) == {
        (model, of, classes)
        for model in ("dnn", "gru_dnn")
        for of in (6, 19)
        for classes in (2, 6, 19)
        if classes <= of
    }
    for (model, of, classes), rows in metrics.groupby(keys):
        scored = predictions[predictions["model"] == f"{model}-{of}-paper"]
        truth, predicted = scored[f"class{classes}"], scored[f"predicted_class{classes}"]
        found = rows[rows["class_name"].isna()].set_index("metric")["value"]
        assert found["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
        for average in ("macro", "weighted"):
            wanted = precision_recall_fscore_support(truth, predicted, average=average, zero_division=0)
            for metric, value in zip(("precision", "recall", "f1"), wanted, strict=False):
                assert found[f"{metric}_{average}"] == pytest.approx(value)
        benign = truth == "Benign"
        assert found["benign_false_positive_rate"] == pytest.approx((predicted[benign] != "Benign").mean())
        assert set(rows["split"]) == {"test"}
    confusion = read(night, "confusion")
    assert confusion.groupby(keys)["count"].sum().eq(360).all()


def test_training_took_two_ranks_and_kept_the_best_epoch(night: Path) -> None:
    for path in (night / "lake/models").glob("*/*/model.json"):
        training = json.loads(path.read_text())["training"]
        losses = [epoch["validation_loss"] for epoch in training["history"]]
        assert training["ranks"] == 2
        assert training["best_validation_loss"] == min(losses)
        assert training["best_epoch"] == 1 + losses.index(min(losses))
        assert training["steps_per_epoch"] == training["train_rows"] // 32


def test_scoring_a_split_again_replaces_its_predictions_and_keeps_every_flow(
    night: Path, spark: SparkSession, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(night, folder)
    before = read(folder, "split_predictions")
    code, output = run(folder, "score", *SETTINGS, "score.models=[dnn-19-paper]")
    assert code == 0, output
    after = read(folder, "split_predictions")
    key = ["model", "source_file", "source_row", "probability", "predicted_class19"]
    pd.testing.assert_frame_equal(
        before[key].sort_values(key[:3], ignore_index=True), after[key].sort_values(key[:3], ignore_index=True)
    )


def test_any_parquet_of_flows_is_scored_and_unusable_rows_are_counted(
    night: Path, spark: SparkSession, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(night, folder)
    flows = read(folder, "flows/split=test")[list(RELEASE_39.features)].head(100).copy()
    flows.loc[3, "Rate"] = np.nan
    flows.loc[7, "IAT"] = np.inf
    flows["device"] = "pump"
    (folder / "tonight").mkdir()
    flows.to_parquet(folder / "tonight" / "flows.parquet", index=False)
    source = f"score.source={folder}/tonight"
    code, output = run(folder, "score", *SETTINGS, source, "score.split=night")
    assert code == 0, output
    predictions = read(folder, "split_predictions/split=night")
    assert len(predictions) == 4 * 99
    assert predictions["class19"].isna().all()
    assert 3 not in set(predictions["source_row"])
    assert 7 in set(predictions["source_row"])
    refused = read(folder, "quarantine/job=score_split/split=night")
    assert refused["reason"].tolist() == ["missing"] * 4
    assert refused["source_row"].tolist() == [3] * 4
    assert not read(folder, "metrics")["split"].eq("night").any()


@pytest.mark.parametrize(("file", "start"), [("weights.npz", submit), ("model.json", run), ("preprocessor.json", run)])
def test_a_changed_byte_in_a_model_file_refuses_to_score_and_writes_nothing(
    night: Path, spark: SparkSession, tmp_path: Path, file: str, start: Callable[..., tuple[int, str]]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(night, folder)
    target = next((folder / "lake/models/dnn-19-paper").iterdir()) / file
    content = bytearray(target.read_bytes())
    content[len(content) // 2] ^= 1
    target.write_bytes(bytes(content))
    before = sorted(str(path) for path in (folder / "lake").rglob("*"))
    code, output = start(folder, "score", *SETTINGS)
    assert code == 2
    assert f"{file} was changed after training" in output
    assert "Traceback" not in output
    assert drop_refusals(folder / "lake") == 1
    assert sorted(str(path) for path in (folder / "lake").rglob("*")) == before
