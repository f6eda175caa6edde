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


class FeatureEmbedding(tf.keras.layers.Layer):  # type: ignore[misc]
    """A small dense layer with ReLU for each feature, of its own bins ("PLE-LR" of Gorishniy et al. 2022, see above).

    Args:
        n_features: Features whose bins come one after the other.
        units: Outputs of each feature.
    """

    def __init__(self, n_features: int, units: int) -> None:
        super().__init__(name="feature_embedding")
        self._n_features, self._units = n_features, units

    def build(self, input_shape: Any) -> None:
        """Make one kernel for each feature."""
        bins = input_shape[-1] // self._n_features
        wide = keras.initializers.RandomUniform(-(bins**-0.5), bins**-0.5)
        self._kernel = self.add_weight("kernel", (self._n_features, bins, self._units), initializer=wide)
        self._bias = self.add_weight("bias", (self._n_features, self._units), initializer="zeros")

    def call(self, inputs: Any) -> Any:
        """Embed encoded features, (batch, n_features · bins) to (batch, n_features · units)."""
        encoded = tf.reshape(inputs, (-1, *self._kernel.shape[:2]))
        embedded = tf.nn.relu(tf.einsum("bfi,fiu->bfu", encoded, self._kernel) + self._bias)
        return tf.reshape(embedded, (-1, self._n_features * self._units))


class MemberDense(tf.keras.layers.Layer):  # type: ignore[misc]
    """A dense layer of several networks that share its kernel (BatchEnsemble, Wen et al. 2020, arXiv:2002.06715).

    Each member scales its inputs and outputs and adds a bias of its own, as in TabM (Gorishniy et al. 2024,
    arXiv:2410.24210): in the first layer the scales of the inputs are random signs, so that members differ.

    Args:
        units: Outputs of each member.
        members: How many networks.
        signs: Whether this is the first layer.
    """

    def __init__(self, units: int, members: int, *, signs: bool) -> None:
        super().__init__()
        self._units, self._members, self._signs = units, members, signs

    def build(self, input_shape: Any) -> None:
        """Make the shared kernel and each member's scales and bias."""
        n, shape = input_shape[-1], (self._members, self._units)
        ones = keras.initializers.Ones()
        self._kernel = self.add_weight("kernel", (n, self._units), initializer="he_uniform")
        self._scale_in = self.add_weight("scale_in", (self._members, n), initializer=_signs if self._signs else ones)
        self._scale_out = self.add_weight("scale_out", shape, initializer=ones)
        self._bias = self.add_weight("bias", shape, initializer="zeros")

    def call(self, inputs: Any) -> Any:
        """Return ReLU of (batch, members, units) for inputs of (batch, members, n) or (batch, 1, n)."""
        scaled = tf.reshape(inputs * self._scale_in, (-1, self._kernel.shape[0]))
        mixed = tf.reshape(tf.matmul(scaled, self._kernel), (-1, self._members, self._units))
        return tf.nn.relu(mixed * self._scale_out + self._bias)


class MemberLogits(tf.keras.layers.Layer):  # type: ignore[misc]
    """An output layer for each member, (batch, members, n) to (batch, members, units); nothing is shared."""

    def __init__(self, units: int) -> None:
        super().__init__(name="logits")
        self._units = units

    def build(self, input_shape: Any) -> None:
        """Make a kernel and a bias for each member."""
        _, members, n = input_shape
        bound = n**-0.5
        self._kernel = self.add_weight(
            "kernel", (members, n, self._units), initializer=keras.initializers.RandomUniform(-bound, bound)
        )
        self._bias = self.add_weight("bias", (members, self._units), initializer="zeros")

    def call(self, inputs: Any) -> Any:
        """Return the logits."""
        return tf.einsum("bmn,mnu->bmu", inputs, self._kernel) + self._bias


class MeanOfMembers(tf.keras.layers.Layer):  # type: ignore[misc]
    """The mean of the members' probabilities; in training each member's own, so that each has a loss of its own."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return (batch, classes), in training (batch, members, classes)."""
        return inputs if training else tf.reduce_mean(inputs, axis=1)


def _signs(shape: Any, dtype: Any = None, **_: Any) -> Any:
    return tf.sign(tf.random.uniform(shape, -1.0, 1.0, dtype=dtype))


def _dnn(x: Any, hyper: Mapping[str, Any]) -> Any:
    members = hyper["members"]
    if members > 1:
        x = keras.layers.Reshape((1, x.shape[-1]))(x)
    for i, units in enumerate(hyper["dense"]):
        dense = (
            MemberDense(units, members, signs=not i) if members > 1 else keras.layers.Dense(units, activation="relu")
        )
        x = keras.layers.Dropout(hyper["dropout"])(dense(x))
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
        encoded = PiecewiseLinear(edges)(inputs)
        if hyper["embedding"]:
            encoded = FeatureEmbedding(n_features, hyper["embedding"])(encoded)
        encoded = keras.layers.Concatenate()([inputs, encoded])
    hidden = ARCHITECTURES[name](encoded, hyper)
    several = len(hidden.shape) == 3
    logits = MemberLogits(n_classes)(hidden) if several else keras.layers.Dense(n_classes, name="logits")(hidden)
    outputs = keras.layers.Activation("softmax", name="probabilities")(logits)
    return keras.Model(inputs, MeanOfMembers()(outputs) if several else outputs, name=name)
