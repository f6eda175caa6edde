"""Architectures: builds an uncompiled Keras model from a name and hyperparameters.

All take scaled features of shape (batch, n_features) and return class probabilities of shape (batch, n_classes).
`dnn` and `gru_dnn` are those of Mohammad & Abdulrahman 2026 (doi 10.30526/39.1.4222); the GRU-DNN's unit counts could
not be read there and are this project's defaults. `lstm` follows L2D2 (Akar et al. 2025), whose details were not
available: it is the GRU-DNN with an LSTM in place of the GRU.

Training and the conversion of first weights use these; `network` computes the same from stored weights without
TensorFlow, layer by layer in the order in which Keras lists their weights.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ids_spark.base.errors import InputError
from ids_spark.models.layers import (
    BatchEnsembleDense,
    BatchEnsembleLogits,
    BatchNormalization,
    Dropout,
    EnsembleMean,
    FeatureEmbedding,
    FirstStepGRU,
    FirstStepLSTM,
    PiecewiseLinear,
)

keras = tf.keras


class UnknownModel(InputError):
    """Raised when a name is none of `ARCHITECTURES`."""


def ensemble_size_of(hyperparameters: Mapping[str, Any]) -> int:
    """Return the number of networks in a model; 1 for an architecture without this setting."""
    return int(hyperparameters.get("ensemble_size", 1))


@dataclass(frozen=True)
class Architecture:
    """The hidden layers of a model, between the encoded features and the logits.

    Attributes:
        hidden: Encoded features, shape (batch, inputs), and hyperparameters to the last hidden layer's output.
        products: Inputs, outputs and hyperparameters to the approximate number of multiplications of a forward pass
            for one row, in the hidden layers and the logits.
    """

    hidden: Callable[[Any, Mapping[str, Any]], Any]
    products: Callable[[int, int, Mapping[str, Any]], int]


def _dnn(x: Any, hyperparameters: Mapping[str, Any]) -> Any:
    ensemble_size = ensemble_size_of(hyperparameters)
    if ensemble_size > 1:
        x = keras.layers.Reshape((1, x.shape[-1]))(x)
    for i, units in enumerate(hyperparameters["dense"]):
        dense = (
            BatchEnsembleDense(units, ensemble_size, signs=not i)
            if ensemble_size > 1
            else keras.layers.Dense(units, activation="relu")
        )
        x = Dropout(hyperparameters["dropout"])(dense(x))
    return x


def _recurrent(layer: Callable[..., Any]) -> Callable[[Any, Mapping[str, Any]], Any]:
    def build_hidden(x: Any, hyperparameters: Mapping[str, Any]) -> Any:
        x = layer(hyperparameters["units"])(x)
        x = BatchNormalization()(x)
        x = Dropout(hyperparameters["dropout"])(x)
        for units in hyperparameters["dense"]:
            x = keras.layers.Dense(units, activation="relu")(x)
            x = Dropout(hyperparameters["dense_dropout"])(x) if hyperparameters["dense_dropout"] else x
        return x

    return build_hidden


def _dense_products(inputs: int, outputs: int, hyperparameters: Mapping[str, Any]) -> int:
    units: tuple[int, ...] = (inputs, *hyperparameters["dense"], outputs)
    return ensemble_size_of(hyperparameters) * sum(a * b for a, b in itertools.pairwise(units))


def _recurrent_products(inputs: int, outputs: int, hyperparameters: Mapping[str, Any]) -> int:
    units: int = hyperparameters["units"]
    return inputs * 3 * units + _dense_products(units, outputs, hyperparameters)


ARCHITECTURES: Final[Mapping[str, Architecture]] = {
    "dnn": Architecture(_dnn, _dense_products),
    "gru_dnn": Architecture(_recurrent(FirstStepGRU), _recurrent_products),
    "lstm": Architecture(_recurrent(FirstStepLSTM), _recurrent_products),
}


def products(name: str, n_features: int, n_classes: int, hyperparameters: Mapping[str, Any]) -> int:
    """Return the approximate number of multiplications of a forward pass for one row; arguments as for `build`."""
    bins, embedding = int(hyperparameters["bins"]), int(hyperparameters["embedding"])
    inputs = n_features * (1 + (embedding or bins))
    return n_features * bins * embedding + ARCHITECTURES[name].products(inputs, n_classes, hyperparameters)


def build(
    name: str,
    n_features: int,
    n_classes: int,
    hyperparameters: Mapping[str, Any],
    edges: NDArray[np.float32] | None = None,
) -> Any:
    """Build a model with fresh weights.

    A model with an `ensemble_size` above 1 returns the mean of its networks' probabilities; called with `training=True`
    it returns those of each network, shape (batch, ensemble_size, n_classes).

    Args:
        name: One of `ARCHITECTURES`.
        n_features: Columns of the input.
        n_classes: Columns of the softmax output.
        hyperparameters: As `config.ModelConfig`.
        edges: Bin edges of the input encoding, shape (n_features, bins + 1), in scaled units; needed for training if
            `hyperparameters["bins"]` is not 0. Stored weights contain them.

    Raises:
        UnknownModel: when the name is unknown.
        ValueError: when an architecture's hidden layers return another shape than (batch, units), or for an ensemble
            (batch, ensemble_size, units).
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
        encoded = keras.layers.Concatenate(name="encoded")([inputs, encoded])
    hidden = ARCHITECTURES[name].hidden(encoded, hyperparameters)
    ensemble_size = ensemble_size_of(hyperparameters)
    is_ensemble = ensemble_size > 1
    found, expected = tuple(hidden.shape[:-1]), (None, ensemble_size) if is_ensemble else (None,)
    if found != expected:
        raise ValueError(f"hidden layers of {name!r} return shape {(*found, 'units')}; expected {(*expected, 'units')}")
    head = BatchEnsembleLogits(n_classes) if is_ensemble else keras.layers.Dense(n_classes, name="logits")
    outputs = keras.layers.Activation("softmax", name="probabilities")(head(hidden))
    return keras.Model(inputs, EnsembleMean()(outputs) if is_ensemble else outputs, name=name)
