"""Shared by the scoring cases: the model, and the columns to write."""

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ids_spark.models import architectures, artifact
from ids_spark.models.artifact import Model

MODEL: Final = "gru_dnn-19-paper"
WRITTEN: Final = ("predicted_class19_id", "probability", "attack_probability")


def read_model(lake: str) -> Model:
    """Return the only version of the model of the bench."""
    (version,) = artifact.model_versions(f"{lake}/models", MODEL)
    return artifact.read_model(f"{lake}/models/{MODEL}/{version}")


def build(model: Model) -> Any:
    """Return the Keras model with its weights."""
    network = architectures.build(
        model.card.architecture, len(model.card.features), model.card.classes, model.card.hyperparameters
    )
    network.set_weights(model.weights)
    return network


def scaling(model: Model) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of each feature of the model, each of shape (n_features,)."""
    fitted = {feature.name: feature for feature in model.preprocessor.features}
    mean = np.array([fitted[name].mean for name in model.card.features])
    std = np.array([fitted[name].std for name in model.card.features])
    return mean, std


def files_of(source: str) -> list[str]:
    """Return the parquet files of the night, in order of their names."""
    return [str(path) for path in sorted(Path(source).glob("*.parquet"))]
