"""Nights in tests: a lake with a trained model and a synthetic night, scoring in this process, tables to compare."""

import datetime as dt
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import xgboost

from ids_spark.config.train import ModelConfig
from ids_spark.dataset.taxonomy import parents
from ids_spark.features import preprocess, ratios
from ids_spark.features.moments import moments_of
from ids_spark.models import architectures, artifact, threshold
from ids_spark.models.artifact import Model, ModelCard
from tests.support import trees
from tests.support.audits import newest_audit
from tests.support.in_process import run

DATE = dt.date(2026, 3, 1)
MODEL = "gru_dnn-19-paper"
FLOWS = 20_000
KEY = "0123456789abcdef0123456789abcdef-key-of-a-test"
TRAINING = ("train.models=[gru_dnn]", "train.classes=[19]", "train.epochs=3", "train.learning_rate=2e-3")
SMALL = ("train.batch_size=128", "train.gru_dnn.units=16", "train.gru_dnn.dense=[16]", "features.files=2")
TABLES = (
    "predictions", "incidents", "alerts", "evidence", "traffic", "entity_history", "drift", "nights", "exports",
    "reports/night", "quarantine/job=score",
)  # fmt: skip
OF_A_RUN = ["run_id", "scored_at", "created_at", "listed_at", "seconds", "code_version"]
"""Columns that differ from run to run; also the code version, because a commit may be made while tests run."""


def make_nights(folder: Path) -> None:
    """Write `lake`, with a model of 19 classes trained on synthetic flows, and `logs` of one night."""
    for name, settings in {
        "synthesize": (f"synthesize.target={folder}/synthetic", "synthesize.scale=0.004"),
        "ingest": (f"ingest.source={folder}/synthetic",),
        "features": (),
        "train": TRAINING,
        "synthesize_night": (
            f"synthesize_night.flows={FLOWS}",
            "synthesize_night.files=4",
            f"synthesize_night.date={DATE}",
        ),
    }.items():
        code, log = run(folder, name, f"synthesize_night.target={folder}/logs", *SMALL, *settings)
        assert code == 0, log
    shutil.rmtree(folder / "synthetic")


def copy(folder: Path, target: Path) -> Path:
    """Copy a folder with lake and logs."""
    shutil.copytree(folder, target, symlinks=True)
    return target


def score(folder: Path, *settings: str, date: dt.date | None = DATE) -> tuple[int, str]:
    """Score a night of `folder`/logs."""
    when = () if date is None else (f"score.date={date}",)
    return run(folder, "score", f"score.flow_logs={folder}/logs", *when, *settings)


def read(folder: Path, table: str, date: dt.date = DATE) -> pd.DataFrame:
    """Return one partition of a table of the lake, sorted by the names of its rows."""
    found = pd.read_parquet(folder / "lake" / table / f"event_date={date}")
    keys = [key for key in ("rank", "role", "kind", "name", "source_file", "source_row") if key in found]
    return found.sort_values(keys, ignore_index=True) if keys else found


def night_row(folder: Path, role: str = "champion", date: dt.date = DATE) -> pd.Series:
    """Return the row of `nights/` of one model."""
    [row] = [row for _, row in read(folder, "nights", date).iterrows() if row["role"] == role]
    return row


def audit(folder: Path) -> pd.Series:
    """Return the newest audit row of a scoring run."""
    return newest_audit(folder / "lake", "score")


def comparable(folder: Path, date: dt.date = DATE) -> dict[str, Any]:
    """Return all tables of a night without the columns that differ from run to run."""
    found: dict[str, Any] = {}
    for table in (table for table in TABLES if table not in ("exports", "reports/night")):
        frame = read(folder, table, date).drop(columns=OF_A_RUN, errors="ignore")
        found[table] = {name: [_plain(value) for value in frame[name]] for name in frame}
    return found


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[tuple[str, str]]:
    """Return table and column of everything in which two results of `comparable` differ."""
    assert one.keys() == other.keys()
    columns = {table: [*one[table], *(set(other[table]) - set(one[table]))] for table in one}
    return [(t, c) for t, names in columns.items() for c in names if one[t].get(c) != other[t].get(c)]


def _plain(value: Any) -> Any:
    """Return a cell as a value that equals itself."""
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return None if value is None or value is pd.NaT or value != value else value


def content_of(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def logs_of(folder: Path, date: dt.date = DATE) -> pd.DataFrame:
    """Return the flows of a night as pandas reads them, with file and number of each."""
    frames = []
    for path in sorted((folder / "logs" / f"event_date={date}").glob("*.parquet")):
        frame = pq.ParquetFile(path).read().to_pandas()
        frames.append(frame.assign(source_file=path.name, source_row=np.arange(len(frame))))
    return pd.concat(frames, ignore_index=True)


def stored(folder: Path, name: str = MODEL, version: str | None = None) -> Model:
    """Return a model of the lake, by default its only version."""
    [uri] = artifact.choose_models(f"{folder}/lake/models", [name], version or "latest")
    return artifact.read_model(uri)


def network_of(model: Model) -> Any:
    """Return a model as Keras builds it."""
    card = model.card
    network = architectures.build(card.architecture, len(card.features), card.classes, card.hyperparameters)
    network.set_weights(model.weights)
    return network


def another(folder: Path, version: str, name: str = MODEL) -> Model:
    """Add a second version of a model to the lake: slightly changed weights, new validation scores."""
    first, rng = stored(folder, name), np.random.default_rng(8)
    weights = [w + rng.normal(0, 0.05, w.shape).astype(w.dtype) * np.abs(w) for w in first.weights]
    card = ModelCard(**{**vars(first.card), "version": version})
    return _kept(folder, Model(card, weights, first.preprocessor, ""))


def coarser(folder: Path, classes: int, architecture: str) -> Model:
    """Add a model of 2 or 6 classes to the lake, briefly fitted on the validation rows of its features."""
    first = stored(folder)
    name = artifact.model_name(architecture, classes, "paper")
    changes = {"name": name, "architecture": architecture, "classes": classes, "classes_absent_in_train": ()}
    card = ModelCard(**{**vars(first.card), **changes})
    network = architectures.build(architecture, len(card.features), classes, card.hyperparameters)
    matrix, labels = _validation(folder, card)
    network.compile("adam", "sparse_categorical_crossentropy")
    network.fit(matrix, parents(19, classes)[labels], batch_size=64, epochs=2, verbose=0)
    return _kept(folder, Model(card, network.get_weights(), first.preprocessor, ""))


def blended(folder: Path) -> tuple[Model, xgboost.Booster]:
    """Add a blend of the lake's network and a few trees, trained on its validation rows; return it and the trees."""
    first = stored(folder)
    card = trees.blend_card(first.card)
    matrix, labels = _validation(folder, card)
    present = artifact.present_classes(card)
    known = np.isin(labels, present)
    parameters = {"objective": "multi:softprob", "num_class": len(present), "max_depth": 3, "nthread": 1}
    # A class without a validation row gets a row of another one: XGBoost wants a label of each.
    rows, ids = np.concatenate([matrix[known], matrix[: len(present)]]), np.searchsorted(present, labels[known])
    data = xgboost.DMatrix(rows, np.concatenate([ids, np.arange(len(present))]))
    booster = xgboost.train(parameters, data, 2)
    share = card.hyperparameters["share"]
    p = share * network_of(first).predict(matrix, verbose=0)
    p[:, present] += (1 - share) * booster.predict(xgboost.DMatrix(matrix))
    trees_file = bytes(booster.save_raw("json"))
    return _written(folder, Model(card, first.weights, first.preprocessor, "", None, None, trees_file), p), booster


def with_derived_features(folder: Path) -> Model:
    """Add a model of 2 classes to the lake that reads all raw and derived features, briefly fitted on train rows."""
    first = stored(folder)
    flows = pd.read_parquet(folder / "lake/flows/split=train")
    recipe = replace(first.preprocessor.recipe, ratios=ratios.names_of(first.preprocessor.schema))
    values = ratios.with_derived({f: flows[f].to_numpy() for f in recipe.schema.features}, recipe.features)
    columns = [recipe.transformed(values[f]) for f in recipe.features]
    fitted = preprocess.fit(recipe, [moments_of(column) for column in columns], np.column_stack(columns))
    name, hyperparameters = "dnn-2-paper", ModelConfig(dense=(16,)).model_dump(mode="json")
    changes = {"name": name, "architecture": "dnn", "classes": 2, "classes_absent_in_train": ()}
    changes |= {"features": fitted.kept, "hyperparameters": hyperparameters}
    card = ModelCard(**{**vars(first.card), **changes})
    network = architectures.build("dnn", len(card.features), 2, hyperparameters)
    matrix, labels = np.column_stack(fitted.transform(values)), flows["label19"].to_numpy()
    network.compile("adam", "sparse_categorical_crossentropy")
    network.fit(matrix, parents(19, 2)[labels], batch_size=64, epochs=2, verbose=0)
    p = network.predict(matrix, batch_size=4096, verbose=0)[:, 1]
    used = (labels != 0) | (p < np.quantile(p[labels == 0], 0.8))  # low thresholds, so that many flows are explained
    return _kept(folder, Model(card, network.get_weights(), fitted, ""), (matrix[used], labels[used]))


def _kept(folder: Path, model: Model, rows: tuple[np.ndarray, np.ndarray] | None = None) -> Model:
    matrix, labels = rows or _validation(folder, model.card)
    return _written(folder, model, network_of(model).predict(matrix, verbose=0), (matrix, labels))


def _written(folder: Path, model: Model, p: np.ndarray, rows: tuple[np.ndarray, np.ndarray] | None = None) -> Model:
    """Write a model with validation scores from its probabilities of the rows; default: the validation rows."""
    matrix, labels = rows or _validation(folder, model.card)
    scores = threshold.validation_scores_of(
        threshold.attack_logits(p),
        parents(19, model.card.classes)[labels],
        threshold.most_probable_attacks(p),
        np.bincount(p.argmax(axis=1), minlength=model.card.classes),
        threshold.benign_baseline(matrix, labels == 0),
    )
    uri = f"{folder}/lake/models/{model.card.name}/{model.card.version}"
    artifact.write_model(uri, model.card, model.weights, model.preprocessor, scores, booster=model.booster)
    return artifact.read_model(uri)


def _validation(folder: Path, card: ModelCard) -> tuple[np.ndarray, np.ndarray]:
    rows = pd.read_parquet(folder / "lake/features/paper/split=validation")
    columns = [name.replace(" ", "_") for name in card.features]
    return rows[columns].to_numpy(np.float32), rows["label19"].to_numpy()
