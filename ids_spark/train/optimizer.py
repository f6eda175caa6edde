"""Adam over all weights as one flat vector: a dozen operations for each step, for any number of layers.

Formula and defaults are those of Kingma & Ba 2015 (arXiv:1412.6980, algorithm 1 in its second form), as in Keras. Keras
updates each weight tensor separately; for small networks that takes longer than their gradients.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import tensorflow as tf

_BETA_1: Final = 0.9
_BETA_2: Final = 0.999
_EPSILON: Final = 1e-7


class FlatAdam:
    """State and update of one optimizer.

    Args:
        variables: Trainable weights, in the order of the gradients.
        learning_rate: Learning rate by step, from 0.
    """

    def __init__(self, variables: Sequence[Any], learning_rate: Callable[[Any], Any]) -> None:
        self._weights, self._learning_rate = list(variables), learning_rate
        self._sizes = [variable.shape.num_elements() for variable in self._weights]
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._mean = tf.Variable(tf.zeros(sum(self._sizes)), trainable=False)
        self._square = tf.Variable(tf.zeros(sum(self._sizes)), trainable=False)

    @property
    def variables(self) -> list[Any]:
        """Step count, running mean of the gradients, running mean of their squares."""
        return [self._step, self._mean, self._square]

    def apply(self, gradient: Any) -> None:
        """Take one step along a flat gradient, shape (weights,)."""
        rate = self._learning_rate(self._step)
        step = tf.cast(self._step.assign_add(1), tf.float32)
        rate *= tf.sqrt(1.0 - tf.pow(_BETA_2, step)) / (1.0 - tf.pow(_BETA_1, step))
        mean = self._mean.assign_add((gradient - self._mean) * (1.0 - _BETA_1))
        square = self._square.assign_add((tf.square(gradient) - self._square) * (1.0 - _BETA_2))
        change = rate * mean / (tf.sqrt(square) + _EPSILON)
        for variable, part in zip(self._weights, tf.split(change, self._sizes), strict=True):
            variable.assign_sub(tf.reshape(part, variable.shape))
