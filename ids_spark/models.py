"""Architectures: a name and hyper-parameters become an uncompiled Keras model.

All take scaled features of shape (batch, n_features) and return class probabilities of shape (batch, n_classes).
`dnn` and `gru_dnn` are those of Mohammad & Abdulrahman 2026 (doi 10.30526/39.1.4222); the GRU-DNN's unit counts could
not be read there and are this project's defaults. `lstm` stands for L2D2 (Akar et al. 2025): its published details were
not available, so it is the GRU-DNN with an LSTM in place of the GRU.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ids_spark.errors import InputError

keras = tf.keras

_NARROWEST: Final = 1e-6  # of a bin, in standard deviations: edges that coincide make a step


class UnknownModel(InputError):
    """Raised when a name is none of `ARCHITECTURES`."""


class PiecewiseLinear(tf.keras.layers.Layer):  # type: ignore[misc]
    """Piecewise linear encoding of numeric features (Gorishniy et al. 2022, arXiv:2203.05556, eq. 1).

    A feature becomes one number for each of its bins: 1 for bins below the value, 0 above, and in its own bin the share
    of the bin that lies below it. A network then bends at every edge, which standardised values alone make it learn.

    Args:
        edges: Ascending bin edges of each feature, shape (n_features, bins + 1). Stored as weights, not trained.
    """

    def __init__(self, edges: NDArray[np.float32]) -> None:
        super().__init__(name="piecewise_linear")
        self._n_outputs = edges.shape[0] * (edges.shape[1] - 1)
        fixed = keras.initializers.Constant
        low, width = edges[:, :-1], np.maximum(np.diff(edges, axis=1), _NARROWEST)
        self._low = self.add_weight("low", low.shape, initializer=fixed(low), trainable=False)
        self._width = self.add_weight("width", width.shape, initializer=fixed(width), trainable=False)

    def call(self, inputs: Any) -> Any:
        """Encode features of shape (batch, n_features) to (batch, n_features · bins), each within 0 … 1."""
        share = (inputs[:, :, tf.newaxis] - self._low) / self._width
        return tf.reshape(tf.clip_by_value(share, 0.0, 1.0), (-1, self._n_outputs))


def _dnn(x: Any, hyper: Mapping[str, Any]) -> Any:
    for units in hyper["dense"]:
        x = keras.layers.Dense(units, activation="relu")(x)
        x = keras.layers.Dropout(hyper["dropout"])(x)
    return x


def _recurrent(layer: Callable[..., Any]) -> Callable[[Any, Mapping[str, Any]], Any]:
    def build_hidden(x: Any, hyper: Mapping[str, Any]) -> Any:
        # One flow is a sequence of one step, so the recurrence needs no loop: unrolled, it is a few matrix products.
        x = keras.layers.Reshape((1, x.shape[-1]))(x)
        x = layer(hyper["units"], unroll=True)(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.Dropout(hyper["dropout"])(x)
        for units in hyper["dense"]:
            x = keras.layers.Dense(units, activation="relu")(x)
            x = keras.layers.Dropout(hyper["dense_dropout"])(x) if hyper["dense_dropout"] else x
        return x

    return build_hidden


ARCHITECTURES: Final[Mapping[str, Callable[[Any, Mapping[str, Any]], Any]]] = {
    "dnn": _dnn,
    "gru_dnn": _recurrent(keras.layers.GRU),
    "lstm": _recurrent(keras.layers.LSTM),
}


def build(
    name: str, n_features: int, n_classes: int, hyper: Mapping[str, Any], edges: NDArray[np.float32] | None = None
) -> Any:
    """Build a model with fresh weights.

    Args:
        name: One of `ARCHITECTURES`.
        n_features: Columns of the input.
        n_classes: Columns of the softmax output.
        hyper: As `config.ModelConfig`.
        edges: Of the input encoding, shape (n_features, bins + 1), in scaled units; needed for training where
            `hyper["bins"]` is not 0. A model that takes stored weights gets them from there.

    Raises:
        UnknownModel: when the name is unknown.
    """
    if name not in ARCHITECTURES:
        raise UnknownModel(f"unknown model {name!r}; expected one of {', '.join(ARCHITECTURES)}")
    inputs = keras.Input((n_features,), dtype=tf.float32)
    encoded = inputs
    if hyper["bins"]:
        if edges is None:
            edges = np.zeros((n_features, hyper["bins"] + 1), dtype=np.float32)
        encoded = keras.layers.Concatenate()([inputs, PiecewiseLinear(edges)(inputs)])
    hidden = ARCHITECTURES[name](encoded, hyper)
    outputs = keras.layers.Dense(n_classes, activation="softmax", dtype=tf.float32)(hidden)
    return keras.Model(inputs, outputs, name=name)
