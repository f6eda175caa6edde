"""Architectures: a name and hyper-parameters become an uncompiled Keras model.

Both take scaled features of shape (batch, n_features) and return class probabilities of shape (batch, n_classes).
Architectures are those of Mohammad & Abdulrahman 2026 (doi 10.30526/39.1.4222); the GRU-DNN's unit counts could not be
read there and are this project's defaults.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import tensorflow as tf

from ids_spark.errors import InputError

keras = tf.keras


class UnknownModel(InputError):
    """Raised when a name is none of `ARCHITECTURES`."""


def _dnn(inputs: Any, hyper: Mapping[str, Any]) -> Any:
    x = inputs
    for units in hyper["dense"]:
        x = keras.layers.Dense(units, activation="relu")(x)
        x = keras.layers.Dropout(hyper["dropout"])(x)
    return x


def _gru_dnn(inputs: Any, hyper: Mapping[str, Any]) -> Any:
    # One flow is a sequence of one step, so the recurrence needs no loop: unrolled, it is a few matrix products.
    x = keras.layers.Reshape((1, inputs.shape[-1]))(inputs)
    x = keras.layers.GRU(hyper["gru"], unroll=True)(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dropout(hyper["dropout"])(x)
    for units in hyper["dense"]:
        x = keras.layers.Dense(units, activation="relu")(x)
    return x


ARCHITECTURES: Final[Mapping[str, Callable[[Any, Mapping[str, Any]], Any]]] = {"dnn": _dnn, "gru_dnn": _gru_dnn}


def build(name: str, n_features: int, n_classes: int, hyper: Mapping[str, Any]) -> Any:
    """Build a model with fresh weights.

    Args:
        name: One of `ARCHITECTURES`.
        n_features: Columns of the input.
        n_classes: Columns of the softmax output.
        hyper: As `config.ModelConfig`: `gru` (units), `dense` (units of each layer), `dropout` (share).

    Raises:
        UnknownModel: when the name is unknown.
    """
    if name not in ARCHITECTURES:
        raise UnknownModel(f"unknown model {name!r}; expected one of {', '.join(ARCHITECTURES)}")
    inputs = keras.Input((n_features,), dtype=tf.float32)
    hidden = ARCHITECTURES[name](inputs, hyper)
    outputs = keras.layers.Dense(n_classes, activation="softmax", dtype=tf.float32)(hidden)
    return keras.Model(inputs, outputs, name=name)
