"""Layers that Keras does not have: feature encodings, batch ensembles, the first step of recurrent layers."""

from typing import Any, Final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

keras = tf.keras

_MIN_WIDTH: Final = 1e-6  # width of a bin, in standard deviations: equal edges give a step instead of a division by 0


class PiecewiseLinear(tf.keras.layers.Layer):  # type: ignore[misc]
    """Piecewise linear encoding of numeric features (Gorishniy et al. 2022, arXiv:2203.05556, eq. 1).

    A feature becomes one number for each of its bins: 1 for bins below the value, 0 for bins above it, and in its own
    bin the share of the bin that lies below it. So a linear layer can have another slope in every bin.

    Args:
        edges: Ascending bin edges of each feature, shape (n_features, bins + 1). Stored as weights, not trained.
    """

    def __init__(self, edges: NDArray[np.float32]) -> None:
        super().__init__(name="piecewise_linear")
        self._n_outputs = edges.shape[0] * (edges.shape[1] - 1)
        fixed = keras.initializers.Constant
        low, width = edges[:, :-1], np.maximum(np.diff(edges, axis=1), _MIN_WIDTH)
        self._low = self.add_weight("low", low.shape, initializer=fixed(low), trainable=False)
        self._width = self.add_weight("width", width.shape, initializer=fixed(width), trainable=False)

    def call(self, inputs: Any) -> Any:
        """Encode features of shape (batch, n_features) to (batch, n_features · bins), each within 0 … 1."""
        share = (inputs[:, :, tf.newaxis] - self._low) / self._width
        return tf.reshape(tf.clip_by_value(share, 0.0, 1.0), (-1, self._n_outputs))


class FeatureEmbedding(tf.keras.layers.Layer):  # type: ignore[misc]
    """A small dense layer with ReLU for each feature, applied to the bins of that feature ("PLE-LR" of Gorishniy et al.
    2022, see above).

    Args:
        n_features: Number of features; the input holds the bins of one feature after the other.
        units: Number of outputs for each feature.
    """

    def __init__(self, n_features: int, units: int) -> None:
        super().__init__(name="feature_embedding")
        self._n_features, self._units = n_features, units

    def build(self, input_shape: Any) -> None:
        """Create one kernel for each feature."""
        bins = input_shape[-1] // self._n_features
        wide = keras.initializers.RandomUniform(-(bins**-0.5), bins**-0.5)
        self._kernel = self.add_weight("kernel", (self._n_features, bins, self._units), initializer=wide)
        self._bias = self.add_weight("bias", (self._n_features, self._units), initializer="zeros")

    def call(self, inputs: Any) -> Any:
        """Embed encoded features, (batch, n_features · bins) to (batch, n_features · units)."""
        encoded = tf.reshape(inputs, (-1, *self._kernel.shape[:2]))
        embedded = tf.nn.relu(tf.einsum("bfi,fiu->bfu", encoded, self._kernel) + self._bias)
        return tf.reshape(embedded, (-1, self._n_features * self._units))


class BatchEnsembleDense(tf.keras.layers.Layer):  # type: ignore[misc]
    """A dense layer of several networks that share its kernel (BatchEnsemble, Wen et al. 2020, arXiv:2002.06715).

    Each network scales its inputs and outputs and adds a bias of its own, as in TabM (Gorishniy et al. 2024,
    arXiv:2410.24210): in the first layer the scales of the inputs are random signs, so that the networks differ.

    Args:
        units: Outputs of each network.
        ensemble_size: Number of networks.
        signs: Whether this is the first layer.
    """

    def __init__(self, units: int, ensemble_size: int, *, signs: bool) -> None:
        super().__init__()
        self._units, self._ensemble_size, self._signs = units, ensemble_size, signs

    def build(self, input_shape: Any) -> None:
        """Create the shared kernel and each network's scales and bias."""
        n, shape = input_shape[-1], (self._ensemble_size, self._units)
        ones = keras.initializers.Ones()
        self._kernel = self.add_weight("kernel", (n, self._units), initializer="he_uniform")
        self._scale_in = self.add_weight(
            "scale_in", (self._ensemble_size, n), initializer=_signs if self._signs else ones
        )
        self._scale_out = self.add_weight("scale_out", shape, initializer=ones)
        self._bias = self.add_weight("bias", shape, initializer="zeros")

    def call(self, inputs: Any) -> Any:
        """Return ReLU of (batch, ensemble_size, units) for inputs of (batch, ensemble_size, n) or (batch, 1, n)."""
        scaled = tf.reshape(inputs * self._scale_in, (-1, self._kernel.shape[0]))
        mixed = tf.reshape(tf.matmul(scaled, self._kernel), (-1, self._ensemble_size, self._units))
        return tf.nn.relu(mixed * self._scale_out + self._bias)


class BatchEnsembleLogits(tf.keras.layers.Layer):  # type: ignore[misc]
    """An output layer for each network, without shared weights.

    Inputs have the shape (batch, ensemble_size, n), outputs (batch, ensemble_size, units).
    """

    def __init__(self, units: int) -> None:
        super().__init__(name="logits")
        self._units = units

    def build(self, input_shape: Any) -> None:
        """Create a kernel and a bias for each network."""
        _, ensemble_size, n = input_shape
        bound = n**-0.5
        self._kernel = self.add_weight(
            "kernel", (ensemble_size, n, self._units), initializer=keras.initializers.RandomUniform(-bound, bound)
        )
        self._bias = self.add_weight("bias", (ensemble_size, self._units), initializer="zeros")

    def call(self, inputs: Any) -> Any:
        """Return the logits."""
        return tf.einsum("bmn,mnu->bmu", inputs, self._kernel) + self._bias


class EnsembleMean(tf.keras.layers.Layer):  # type: ignore[misc]
    """The mean of the networks' probabilities; not in training, so that each network has a separate loss."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return (batch, classes); in training (batch, ensemble_size, classes)."""
        return inputs if training else tf.reduce_mean(inputs, axis=1)


class Dropout(tf.keras.layers.Dropout):  # type: ignore[misc]
    """Dropout from one random byte for each value: Keras draws 32 bits, half of the time of a step of a small DNN.

    A value is dropped if its byte is less than 256 · rate - u. u is uniform in 0 … 1 and drawn once for each call, so
    that the probability of every value is exactly `rate`, not a multiple of 1/256. What is kept is divided by 1 - rate.

    Without `tf.keras.backend.experimental.enable_tf_random_generator` it is Keras' own.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return values of the shape of the inputs; the inputs themselves if not in training."""
        self._random_generator._maybe_init()
        generator = self._random_generator._generator
        if not (training and self.rate) or generator is None:
            return super().call(inputs, training=training)
        n = tf.size(inputs)
        words = generator.uniform_full_int([(n + 7) // 8 + 1], tf.uint64)  # eight bytes each; the last one is for u
        random = tf.reshape(tf.reshape(tf.bitcast(words[:-1], tf.uint8), [-1])[:n], tf.shape(inputs))
        u = tf.cast(words[-1], tf.float32) * 2.0**-64
        kept = tf.cast(tf.cast(random, tf.float32) >= 256.0 * self.rate - u, tf.float32)
        return inputs * (kept * (1.0 / (1.0 - self.rate)))


class BatchNormalization(tf.keras.layers.BatchNormalization):  # type: ignore[misc]
    """Batch normalisation of (batch, units) by the fused operation, which Keras uses for images only.

    Weights, outputs and moving moments are those of Keras up to rounding.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return normalised values, (batch, units); in training by the moments of the batch."""
        if not training:
            return super().call(inputs, training=training)
        rows, units = tf.shape(inputs)[0], inputs.shape[1]
        normalised, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            tf.reshape(inputs, (rows, 1, 1, units)), self.gamma, self.beta, epsilon=self.epsilon, is_training=True
        )
        n = tf.cast(rows, tf.float32)
        of_batch = variance * ((n - 1.0) / n)  # the operation returns the unbiased estimate, Keras stores the other
        self.moving_mean.assign_sub((self.moving_mean - mean) * (1.0 - self.momentum))
        self.moving_variance.assign_sub((self.moving_variance - of_batch) * (1.0 - self.momentum))
        return tf.reshape(normalised, (rows, units))


class FirstStepGRU(tf.keras.layers.Layer):  # type: ignore[misc]
    """The first step of a GRU from a zero state (Cho et al. 2014, arXiv:1406.1078, in the form that cuDNN computes).

    A flow is a sequence of one step. The recurrent kernel would be multiplied by zeros and have a gradient of zero, so
    there is none; its biases are kept. With the weights of `keras.layers.GRU` the outputs are equal.

    Args:
        units: Outputs.
    """

    def __init__(self, units: int) -> None:
        super().__init__(name="gru")
        self.units = units

    def build(self, input_shape: Any) -> None:
        """Create the kernel of three gates (update, reset, candidate), and their input and recurrent biases."""
        self._kernel = self.add_weight("kernel", (input_shape[-1], 3 * self.units), initializer="glorot_uniform")
        self._bias = self.add_weight("bias", (2, 3 * self.units), initializer="zeros")

    def call(self, inputs: Any) -> Any:
        """Return the state after one step, (batch, units) for inputs of (batch, n)."""
        update, reset, candidate = tf.split(tf.matmul(inputs, self._kernel) + self._bias[0], 3, axis=1)
        update_bias, reset_bias, candidate_bias = tf.split(self._bias[1], 3)
        candidate = tf.tanh(candidate + tf.sigmoid(reset + reset_bias) * candidate_bias)
        return (1.0 - tf.sigmoid(update + update_bias)) * candidate


class FirstStepLSTM(tf.keras.layers.Layer):  # type: ignore[misc]
    """The first step of an LSTM from a zero state (Hochreiter & Schmidhuber 1997).

    Neither the recurrent kernel nor the forget gate changes the output, so there are none. With the other weights of
    `keras.layers.LSTM` the outputs are equal.

    Args:
        units: Outputs.
    """

    def __init__(self, units: int) -> None:
        super().__init__(name="lstm")
        self.units = units

    def build(self, input_shape: Any) -> None:
        """Create kernel and bias of input gate, cell, output gate; the kernel's initial range is that of four gates."""
        n = input_shape[-1]
        bound = (6.0 / (n + 4 * self.units)) ** 0.5  # Glorot & Bengio 2010
        wide = keras.initializers.RandomUniform(-bound, bound)
        self._kernel = self.add_weight("kernel", (n, 3 * self.units), initializer=wide)
        self._bias = self.add_weight("bias", (3 * self.units,), initializer="zeros")

    def call(self, inputs: Any) -> Any:
        """Return the output after one step, (batch, units) for inputs of (batch, n)."""
        gate, cell, output = tf.split(tf.matmul(inputs, self._kernel) + self._bias, 3, axis=1)
        return tf.sigmoid(output) * tf.tanh(tf.sigmoid(gate) * tf.tanh(cell))


def _signs(shape: Any, dtype: Any = None, **_: Any) -> Any:
    return tf.sign(tf.random.uniform(shape, -1.0, 1.0, dtype=dtype))
