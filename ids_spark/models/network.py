"""Networks of stored models in numpy: probabilities, attack logits and mean gradients, without TensorFlow.

Importing TensorFlow takes a Python worker two seconds and 250 MB, more than it needs to score 200,000 flows. After
training, every network of `architectures` is a chain of affine layers with a ReLU or the gates of a first recurrent
step between them: dropout does nothing, and batch normalisation is part of the next layer's kernel. Tests compare
probabilities and gradients with those of the Keras network for every architecture and option.

Sigmoids are computed as tanh, which numpy vectorises: sigmoid(x) = (1 + tanh(x / 2)) / 2. The factors are part of
kernels. Inside, each unit is a row and each flow a column, so that a gate, a bin or a class is contiguous, and features
are read as they are stored, by column.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ids_spark.base.arrays import Floats, Floats32
from ids_spark.dataset.taxonomy import BENIGN_ID

_EPSILON: Final = 1e-3  # of Keras' batch normalisation
_BLOCK: Final = 2_048  # rows: their activations stay in the cache of a core
_RECURRENT: Final = ("gru_dnn", "lstm")
Weights = Sequence[NDArray[Any]]


class _Activation(Protocol):
    def forward(self, x: Floats32) -> tuple[Floats32, Any]:
        """Return outputs for the outputs of a layer, which it may overwrite, and what `backward` needs."""

    def backward(self, saved: Any, gradient: Floats32) -> Floats32:
        """Return the gradient by the layer's outputs, given that by the activation's."""


class _Relu:
    def forward(self, x: Floats32) -> tuple[Floats32, Any]:
        np.maximum(x, 0, out=x)
        return x, x

    def backward(self, saved: Any, gradient: Floats32) -> Floats32:
        gradient *= saved > 0
        return gradient


class _Identity:
    def forward(self, x: Floats32) -> tuple[Floats32, Any]:
        return x, None

    def backward(self, saved: Any, gradient: Floats32) -> Floats32:
        del saved
        return gradient


@dataclass(frozen=True)
class _Gru:
    """Twice the state of a GRU after one step, of (3 · units, rows): half of the negative update and of the reset gate,
    then the candidate.

    Attributes:
        half_bias: Half of the recurrent bias of the candidate, shape (units, 1).
    """

    half_bias: Floats32

    def forward(self, x: Floats32) -> tuple[Floats32, Any]:
        n = len(self.half_bias)
        gates, candidate = x[: 2 * n], x[2 * n :]
        np.tanh(gates, out=gates)
        state = gates[n:] * self.half_bias
        candidate += state
        np.tanh(candidate, out=candidate)
        np.add(gates[:n], 1, out=state)
        state *= candidate
        return state, x

    def backward(self, saved: Any, gradient: Floats32) -> Floats32:
        n = len(self.half_bias)
        keep, reset, candidate = saved[:n], saved[n : 2 * n], saved[2 * n :]
        found: Floats32 = np.empty_like(saved)
        of_candidate = found[2 * n :]
        np.multiply(gradient * (keep + 1), 1 - candidate * candidate, out=of_candidate)
        np.multiply(gradient * candidate, 1 - keep * keep, out=found[:n])
        np.multiply(of_candidate * self.half_bias, 1 - reset * reset, out=found[n : 2 * n])
        return found


@dataclass(frozen=True)
class _Lstm:
    """Twice the output of an LSTM after one step, of (3 · units, rows): half of the input gate, the cell, half of the
    output gate.
    """

    units: int

    def forward(self, x: Floats32) -> tuple[Floats32, Any]:
        n = self.units
        np.tanh(x, out=x)
        state = x[:n] + 1
        state *= np.float32(0.5)
        state *= x[n : 2 * n]
        np.tanh(state, out=state)
        return (x[2 * n :] + 1) * state, (x, state)

    def backward(self, saved: Any, gradient: Floats32) -> Floats32:
        n, (x, state) = self.units, saved
        gate, cell, output = x[:n], x[n : 2 * n], x[2 * n :]
        found: Floats32 = np.empty_like(x)
        of_state = gradient * (output + 1) * (1 - state * state) * np.float32(0.5)
        np.multiply(of_state * cell, 1 - gate * gate, out=found[:n])
        np.multiply(of_state * (gate + 1), 1 - cell * cell, out=found[n : 2 * n])
        np.multiply(gradient * state, 1 - output * output, out=found[2 * n :])
        return found


@dataclass(frozen=True)
class _Layer:
    """An affine layer and its activation; a member of an ensemble scales inputs and outputs of a shared kernel.

    Attributes:
        kernel: Shape (units, inputs).
        bias: Shape (units, 1).
        activation: Of its outputs.
        scale_in: Shape (inputs, 1); None: 1.
        scale_out: Shape (units, 1); None: 1.
    """

    kernel: Floats32
    bias: Floats32
    activation: _Activation
    scale_in: Floats32 | None = None
    scale_out: Floats32 | None = None

    def affine(self, x: Floats32) -> Floats32:
        """Return outputs before the activation, shape (units, rows), for inputs of shape (inputs, rows)."""
        y: Floats32 = self.kernel @ (x if self.scale_in is None else x * self.scale_in)
        if self.scale_out is not None:
            y *= self.scale_out
        y += self.bias
        return y

    def backward(self, gradient: Floats32) -> Floats32:
        """Return the gradient by the inputs, given that by the outputs of `affine`."""
        x: Floats32 = self.kernel.T @ (gradient if self.scale_out is None else gradient * self.scale_out)
        if self.scale_in is not None:
            x *= self.scale_in
        return x


@dataclass(frozen=True)
class _Encoding:
    """Bins of each feature as numbers within 0 … 1, and their embedding; see `layers.PiecewiseLinear`.

    Attributes:
        low, width: Lower edge and width of each bin, shape (features, bins, 1).
        kernel: Of the embedding of each feature, shape (features, units, bins); None without one.
        bias: Shape (features, units, 1); None without an embedding.
    """

    low: Floats32
    width: Floats32
    kernel: Floats32 | None = None
    bias: Floats32 | None = None

    def __call__(self, features: Floats32) -> Floats32:
        """Return features, then the encoded values of each, shape (features · (1 + values), rows)."""
        bins = features[:, np.newaxis] - self.low
        with np.errstate(over="ignore"):  # infinity is beyond a bin as well
            bins /= self.width
        np.maximum(bins, 0, out=bins)
        np.minimum(bins, 1, out=bins)
        if self.kernel is not None and self.bias is not None:
            bins = self.kernel @ bins
            bins += self.bias
            np.maximum(bins, 0, out=bins)
        return np.concatenate([features, bins.reshape(-1, features.shape[1])])


@dataclass(frozen=True)
class Network:
    """A network, or an ensemble of some whose mean probability counts.

    Attributes:
        n_features: Columns of the input.
        classes: Columns of the output.
        encoding: Of the input; None: the features alone.
        members: Layers of each network, the last one without activation.
    """

    n_features: int
    classes: int
    encoding: _Encoding | None
    members: tuple[tuple[_Layer, ...], ...]

    def probabilities(self, matrix: Floats32, batch_rows: int) -> Floats32:
        """Return class probabilities of shape (rows, classes) for scaled features of shape (rows, n_features).

        Stored by column; the features may be stored by column or by row. NaN where values are so large that the network
        overflows.
        """
        found = np.empty((self.classes, len(matrix)), dtype=np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for own in _blocks(len(matrix), max(1, min(batch_rows, _BLOCK // len(self.members)))):
                encoded = self.encode(matrix[own])
                total = _softmax(_forward(self.members[0], encoded))
                for member in self.members[1:]:
                    total += _softmax(_forward(member, encoded))
                if len(self.members) > 1:
                    total /= np.float32(len(self.members))
                found[:, own] = total
        return found.T

    def attack_logits(self, matrix: Floats32) -> Floats32:
        """Return ln(sum of attack probabilities) - ln(benign probability), not clipped, shape (rows,)."""
        found = np.empty(len(matrix), dtype=np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for own in _blocks(len(matrix), max(1, _BLOCK // len(self.members))):
                encoded = self.encode(matrix[own])
                benign, attack, _ = _log_probabilities([_forward(member, encoded) for member in self.members])
                found[own] = attack - benign
        return found

    def encode(self, matrix: Floats32) -> Floats32:
        """Return the values on which the first layer acts: the features, then the encoded values of each, if any.

        Args:
            matrix: Scaled features, shape (rows, n_features).

        Returns:
            Shape (values, rows).
        """
        return matrix.T if self.encoding is None else self.encoding(matrix.T)

    def mean_gradient(self, start: Floats32, ends: Floats32, steps: int) -> Floats32:
        """Return the mean gradient of the attack logit on the lines from a start to each end, by a midpoint rule.

        The outputs of the first affine layer are linear on such a line, so they and their gradients need no product
        with its kernel at each point.

        Args:
            start: Values as from `encode`, shape (values, 1).
            ends: Shape (values, rows).
            steps: Points on each line.

        Returns:
            Shape (values, rows).
        """
        rows = ends.shape[1]
        shares = (np.arange(steps, dtype=np.float32) + np.float32(0.5)) / np.float32(steps)
        saved: list[list[Any]] = []
        logits = []
        found = np.zeros(ends.shape, dtype=np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for member in self.members:
                first = member[0].affine(start)
                line = first[:, :, np.newaxis] + shares[:, np.newaxis] * (member[0].affine(ends) - first)[:, np.newaxis]
                x, kept = member[0].activation.forward(line.reshape(-1, steps * rows))
                own = [kept]
                for layer in member[1:]:
                    x, kept = layer.activation.forward(layer.affine(x))
                    own.append(kept)
                saved.append(own)
                logits.append(x)
            for member, own, gradient in zip(self.members, saved, _logit_gradients(logits), strict=True):
                back = gradient
                for layer, kept in zip(member[:0:-1], own[:0:-1], strict=True):
                    back = layer.backward(layer.activation.backward(kept, back))
                back = member[0].activation.backward(own[0], back)
                found += member[0].backward(back.reshape(-1, steps, rows).mean(axis=1))
        return found


def build(
    architecture: str, n_features: int, classes: int, hyperparameters: Mapping[str, Any], weights: Weights
) -> Network:
    """Return a network with its stored weights.

    Args:
        architecture: One of `architectures.ARCHITECTURES`.
        n_features: Columns of the input.
        classes: Columns of the output.
        hyperparameters: As `config.ModelConfig`.
        weights: In the order in which Keras lists those of the network that `architectures.build` returns.

    Raises:
        ValueError: there is no such architecture, or it has weights of other shapes.
    """
    given = _Weights(weights)
    members, dense = int(hyperparameters["ensemble_size"]), tuple(hyperparameters["dense"])
    bins, embedding = int(hyperparameters["bins"]), int(hyperparameters["embedding"])
    encoding = None
    if bins:
        low, width = given.take(n_features, bins), given.take(n_features, bins)
        of_embedding: tuple[Floats32, ...] = ()
        if embedding:
            kernel, bias = given.take(n_features, bins, embedding), given.take(n_features, embedding)
            of_embedding = np.ascontiguousarray(kernel.transpose(0, 2, 1)), bias[:, :, np.newaxis]
        encoding = _Encoding(low[:, :, np.newaxis], width[:, :, np.newaxis], *of_embedding)
    inputs = n_features * (1 + (embedding or bins))
    if architecture in _RECURRENT and members == 1:
        chains = [_recurrent(architecture, given, inputs, int(hyperparameters["units"]), dense, classes)]
    elif architecture == "dnn" and members == 1:
        chains = [_dense_layers(given, inputs, dense, classes)]
    elif architecture == "dnn":
        chains = _ensemble(given, inputs, dense, classes, members)
    else:
        raise ValueError(f"no architecture {architecture!r} of {members} networks")
    given.require_end()
    return Network(n_features, classes, encoding, tuple(tuple(chain) for chain in chains))


class _Weights:
    """Stored weights, taken one array after the other."""

    def __init__(self, weights: Weights) -> None:
        self._weights, self._taken = weights, 0

    def take(self, *shape: int) -> Floats32:
        found = self._weights[self._taken].shape if self._taken < len(self._weights) else None
        if found != shape:
            raise ValueError(f"array {self._taken} of its weights has shape {found}; expected {shape}")
        self._taken += 1
        return np.ascontiguousarray(self._weights[self._taken - 1], dtype=np.float32)

    def require_end(self) -> None:
        if self._taken != len(self._weights):
            raise ValueError(f"{len(self._weights)} arrays of weights; expected {self._taken}")


def _dense_layers(
    given: _Weights,
    inputs: int,
    dense: Sequence[int],
    classes: int,
    scale: Floats | None = None,
    shift: Floats | None = None,
) -> list[_Layer]:
    """Return hidden layers and logits; the inputs of the first one are multiplied by `scale`, then `shift` is added."""
    layers = []
    for i, units in enumerate((*dense, classes)):
        kernel, bias = given.take(inputs, units), given.take(units)
        if not i and scale is not None and shift is not None:
            wide = kernel.astype(np.float64)
            bias = (bias + shift @ wide).astype(np.float32)
            kernel = (scale[:, np.newaxis] * wide).astype(np.float32)
        layers.append(_layer(kernel, bias, _Relu() if i < len(dense) else _Identity()))
        inputs = units
    return layers


def _recurrent(
    architecture: str, given: _Weights, inputs: int, units: int, dense: Sequence[int], classes: int
) -> list[_Layer]:
    """Return the first step of a recurrent layer, whose batch normalisation is in the next kernel, and that layer."""
    kernel = given.take(inputs, 3 * units)
    one, half = np.ones(units, dtype=np.float32), np.full(units, 0.5, dtype=np.float32)
    activation: _Activation
    if architecture == "gru_dnn":
        own, of_state = given.take(2, 3 * units)
        factor = np.concatenate([-half, half, one])
        bias = own * factor
        bias += of_state * np.concatenate([-half, half, half])
        activation = _Gru((of_state[2 * units :] * half)[:, np.newaxis])
    else:
        factor = np.concatenate([half, one, half])
        bias = given.take(3 * units) * factor
        activation = _Lstm(units)
    gamma, beta, mean, variance = (given.take(units).astype(np.float64) for _ in range(4))
    scale = gamma / np.sqrt(variance + _EPSILON)
    first = _layer(kernel * factor, bias, activation)
    return [first, *_dense_layers(given, units, dense, classes, 0.5 * scale, beta - mean * scale)]


def _ensemble(given: _Weights, inputs: int, dense: Sequence[int], classes: int, members: int) -> list[list[_Layer]]:
    chains: list[list[_Layer]] = [[] for _ in range(members)]
    for units in dense:
        kernel = np.ascontiguousarray(given.take(inputs, units).T)  # one for all, however many members there are
        scale_in, scale_out = given.take(members, inputs), given.take(members, units)
        bias = given.take(members, units)
        for i, chain in enumerate(chains):
            scales = scale_in[i, :, np.newaxis], scale_out[i, :, np.newaxis]
            chain.append(_Layer(kernel, bias[i, :, np.newaxis], _Relu(), *scales))
        inputs = units
    kernels, biases = given.take(members, inputs, classes), given.take(members, classes)
    for i, chain in enumerate(chains):
        chain.append(_layer(kernels[i], biases[i], _Identity()))
    return chains


def _layer(kernel: Floats32, bias: Floats32, activation: _Activation) -> _Layer:
    """Return a layer with a kernel and a bias as Keras has them, shape (inputs, units) and (units,)."""
    return _Layer(np.ascontiguousarray(kernel.T), bias[:, np.newaxis], activation)


def _blocks(rows: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, rows, size))


def _forward(member: Sequence[_Layer], x: Floats32) -> Floats32:
    """Return logits, shape (classes, rows), of values of shape (values, rows)."""
    for layer in member:
        x, _ = layer.activation.forward(layer.affine(x))
    return x


def _softmax(logits: Floats32) -> Floats32:
    """Return probabilities, shape (classes, rows); the logits are overwritten."""
    logits -= logits.max(axis=0)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=0)
    return logits


def _log_probabilities(logits: Sequence[Floats32]) -> tuple[Floats32, Floats32, list[Floats32]]:
    """Return the logarithms of the benign and of the attack probability, summed over networks, and those of each class
    of each network.

    Args:
        logits: Of each network, shape (classes, rows).
    """
    logs = [each - _log_sum(each) for each in logits]
    benign = _log_sum(np.stack([each[BENIGN_ID] for each in logs]))
    attack = _log_sum(np.concatenate([each[BENIGN_ID + 1 :] for each in logs]))
    return benign, attack, logs


def _log_sum(logs: Floats32) -> Floats32:
    """Return the logarithm of the sum of exponentials along the first axis."""
    highest: Floats32 = logs.max(axis=0)
    return highest if len(logs) == 1 else highest + np.log(np.exp(logs - highest).sum(axis=0))


def _logit_gradients(logits: Sequence[Floats32]) -> list[Floats32]:
    """Return the gradient of the attack logit by the logits of each network, shape (classes, rows).

    With the sums A of attack and B of benign probabilities over M networks, it is p_c · p_0 · (1 / A + 1 / B) for an
    attack class c, where 1 / A + 1 / B = M / (A · B), and the negative sum of these for benign. Logarithms do not
    underflow where the softmax saturates.
    """
    benign, attack, logs = _log_probabilities(logits)
    gradients = []
    for own in logs:
        gradient = np.empty_like(own)
        of_attacks = gradient[BENIGN_ID + 1 :]
        np.subtract(own[BENIGN_ID + 1 :], attack, out=of_attacks)
        of_attacks += own[BENIGN_ID] - benign
        np.exp(of_attacks, out=of_attacks)
        of_attacks *= np.float32(len(logits))
        np.negative(of_attacks.sum(axis=0), out=gradient[BENIGN_ID])
        gradients.append(gradient)
    return gradients
