"""Architectures: a name and hyper-parameters become an uncompiled Keras model.

All take scaled features of shape (batch, n_features) and return class probabilities of shape (batch, n_classes).
`dnn` and `gru_dnn` are those of Mohammad & Abdulrahman 2026 (doi 10.30526/39.1.4222); the GRU-DNN's unit counts could
not be read there and are this project's defaults. `lstm` stands for L2D2 (Akar et al. 2025): its published details were
not available, so it is the GRU-DNN with an LSTM in place of the GRU.

The layer called `logits` holds what the softmax takes, for whoever needs a score that does not saturate.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ids_spark.base.errors import InputError
from ids_spark.models.layers import (
    BatchEnsembleDense,
    BatchEnsembleLogits,
    EnsembleMean,
    FeatureEmbedding,
    FirstStepGRU,
    FirstStepLSTM,
    PiecewiseLinear,
)

keras = tf.keras


class UnknownModel(InputError):
    """Raised when a name is none of `ARCHITECTURES`."""


def _dnn(x: Any, hyperparameters: Mapping[str, Any]) -> Any:
    ensemble_size = hyperparameters["ensemble_size"]
    if ensemble_size > 1:
        x = keras.layers.Reshape((1, x.shape[-1]))(x)
    for i, units in enumerate(hyperparameters["dense"]):
        dense = (
            BatchEnsembleDense(units, ensemble_size, signs=not i)
            if ensemble_size > 1
            else keras.layers.Dense(units, activation="relu")
        )
        x = keras.layers.Dropout(hyperparameters["dropout"])(dense(x))
    return x


def _recurrent(layer: Callable[..., Any]) -> Callable[[Any, Mapping[str, Any]], Any]:
    def build_hidden(x: Any, hyperparameters: Mapping[str, Any]) -> Any:
        x = layer(hyperparameters["units"])(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.Dropout(hyperparameters["dropout"])(x)
        for units in hyperparameters["dense"]:
            x = keras.layers.Dense(units, activation="relu")(x)
            x = keras.layers.Dropout(hyperparameters["dense_dropout"])(x) if hyperparameters["dense_dropout"] else x
        return x

    return build_hidden


ARCHITECTURES: Final[Mapping[str, Callable[[Any, Mapping[str, Any]], Any]]] = {
    "dnn": _dnn,
    "gru_dnn": _recurrent(FirstStepGRU),
    "lstm": _recurrent(FirstStepLSTM),
}


def build(
    name: str,
    n_features: int,
    n_classes: int,
    hyperparameters: Mapping[str, Any],
    edges: NDArray[np.float32] | None = None,
) -> Any:
    """Build a model with fresh weights.

    Args:
        name: One of `ARCHITECTURES`.
        n_features: Columns of the input.
        n_classes: Columns of the softmax output.
        hyperparameters: As `config.ModelConfig`.
        edges: Of the input encoding, shape (n_features, bins + 1), in scaled units; needed for training where
            `hyperparameters["bins"]` is not 0. A model that takes stored weights gets them from there.

    Raises:
        UnknownModel: when the name is unknown.
    """
    if name not in ARCHITECTURES:
        raise UnknownModel(f"unknown model {name!r}; expected one of {', '.join(ARCHITECTURES)}")
    inputs = keras.Input((n_features,), dtype=tf.float32)
    encoded = inputs
    if hyperparameters["bins"]:
        if edges is None:
            edges = np.zeros((n_features, hyperparameters["bins"] + 1), dtype=np.float32)
        encoded = PiecewiseLinear(edges)(inputs)
        if hyperparameters["embedding"]:
            encoded = FeatureEmbedding(n_features, hyperparameters["embedding"])(encoded)
        encoded = keras.layers.Concatenate()([inputs, encoded])
    hidden = ARCHITECTURES[name](encoded, hyperparameters)
    several = len(hidden.shape) == 3
    logits = BatchEnsembleLogits(n_classes)(hidden) if several else keras.layers.Dense(n_classes, name="logits")(hidden)
    outputs = keras.layers.Activation("softmax", name="probabilities")(logits)
    return keras.Model(inputs, EnsembleMean()(outputs) if several else outputs, name=name)
