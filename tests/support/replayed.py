"""A small lake for replays: two versions of an untrained model, test rows and local rows, all synthetic."""

import dataclasses
import datetime as dt
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ids_spark.config.train import ModelConfig
from ids_spark.dataset.taxonomy import CLASS19
from ids_spark.lake.filesystem import write_json
from ids_spark.lake.parquet import write_table
from ids_spark.lake.store import TABLE_FACTS, Lake
from ids_spark.models import architectures, artifact
from ids_spark.models.artifact import Model
from ids_spark.models.threshold import validation_scores_of
from tests.support.flows import synthetic_frame
from tests.support.models import CARD, DERIVED, PREPROCESSOR, WITH_DERIVED

NAME = CARD.name
OLD, NEW = "20260101T000000Z-aa", "20260201T000000Z-bb"
DATES = (dt.date(2026, 3, 1), dt.date(2026, 3, 2))


def write_model(
    lake: Lake,
    version: str,
    seed: int,
    highest_benign: float,
    local: Mapping[str, Any] | None = None,
    *,
    derived: bool = False,
) -> Model:
    """Write an untrained model of six classes whose operating point is just above a score, and read it."""
    features, fitted = (DERIVED, WITH_DERIVED) if derived else (CARD.features, PREPROCESSOR)
    hyperparameters = ModelConfig(dense=(16,)).model_dump(mode="json")
    own = None if local is None else dict(local)
    card = dataclasses.replace(CARD, version=version, hyperparameters=hyperparameters, local=own, features=features)
    network = architectures.build(card.architecture, len(card.features), card.classes, card.hyperparameters)
    rng = np.random.default_rng(seed)
    weights = [rng.normal(0, 0.5, w.shape).astype(w.dtype) for w in network.get_weights()]
    logits = np.append(np.linspace(-9.0, highest_benign, 50), np.linspace(1.0, 9.0, 50))
    labels = np.repeat(np.array([0, 4], np.int32), 50)
    counts = np.array([50, 0, 0, 0, 50, 0])
    scores = validation_scores_of(logits, labels, np.full(100, 4, np.int32), counts, np.zeros(len(features)))
    uri = lake.uri(f"models/{NAME}/{version}")
    artifact.write_model(uri, card, weights, fitted, scores)
    return artifact.read_model(uri)


def write_rows_of_test(lake: Lake, rows: int) -> pd.DataFrame:
    """Write test rows of every class, a tenth of them duplicates, with the facts of the table; returns them."""
    frame = synthetic_frame(rows, seed=5)
    labels = np.arange(rows, dtype=np.int32) % len(CLASS19)
    frame = frame.assign(
        class19=[CLASS19[i] for i in labels], label19=labels, duplicate=np.arange(rows) % 10 == 3, row_key=range(rows)
    )
    for part, own in enumerate(np.array_split(np.arange(rows), 2)):
        table = pa.Table.from_pandas(frame.iloc[own], preserve_index=False)
        write_table(lake.uri(f"flows/split=test/part-{part:05d}.parquet"), table)
    facts = {
        "run_id": "r",
        "feature_schema": "release39",
        "data_origin": "synthetic",
        "rows": {"train": 1, "test": rows},
    }
    write_json(lake.uri(f"flows/{TABLE_FACTS}"), facts)
    return frame


def write_local_rows(lake: Lake, rows: int) -> pd.DataFrame:
    """Write local rows of two devices on two dates, every seventh left out, and return them."""
    frame = synthetic_frame(rows, seed=6)
    reasons = [("outlier" if i % 7 == 0 else None) for i in range(rows)]
    frame = frame.assign(
        event_date=[DATES[i % 2] for i in range(rows)],
        device=[("pump-1", "monitor-2")[i // 2 % 2] for i in range(rows)],
        left_out=pd.array(reasons, dtype="string"),
        source_file="night.parquet",
        source_row=range(rows),
        row_key=range(rows),
    )
    table = pa.Table.from_pandas(frame, preserve_index=False)
    write_table(lake.uri("flows/split=local/part-00000.parquet"), table)
    return frame
