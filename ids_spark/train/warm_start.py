"""The first weights of a model from those of another one, so that training starts from what that model knows.

Both scale features with preprocessors of their own: z' = (t(x) - m') / s' instead of z = (t(x) - m) / s. If both have
the same transform t, z = a · z' + b with a = s' / s and b = (m' - m) / s, which the first layers take: a kernel is
multiplied by a, its bias gains b times the kernel, and the edges of bins move. Then the network gives the same
probabilities as before for finite values, to rounding. With another transform the weights stay as they are, and the
bins are those of the new preprocessor.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from ids_spark.base.arrays import Floats
from ids_spark.features.preprocess import Preprocessor
from ids_spark.models.artifact import Model, Weights
from ids_spark.models.layers import BatchEnsembleDense, FirstStepGRU, FirstStepLSTM, PiecewiseLinear, keras

_FIRST: Final = (FirstStepGRU, FirstStepLSTM, BatchEnsembleDense, keras.layers.Dense)
"""Layers that may be the first; their first inputs are the features, also where bins follow."""


def initial_weights(initial: Model, preprocessor: Preprocessor, model: Any) -> Weights:
    """Return the weights of a model for rows of another preprocessor, in Keras order.

    Args:
        initial: Model with the same architecture, hyperparameters, classes and features (`tasks.require_same`).
        preprocessor: Of the rows to train on.
        model: Fresh Keras model of the same architecture; its weights are changed.
    """
    fresh_bins = [layer.get_weights() for layer in model.layers if isinstance(layer, PiecewiseLinear)]
    model.set_weights(initial.weights)
    if initial.preprocessor.recipe.transform != preprocessor.recipe.transform:
        for layer in model.layers:
            if isinstance(layer, PiecewiseLinear):
                layer.set_weights(fresh_bins.pop())
        return list(model.get_weights())
    names = initial.card.features
    factor, shift = _rescaling(initial.preprocessor, preprocessor, names)
    for layer in model.layers:
        if isinstance(layer, PiecewiseLinear):
            low, width = layer.get_weights()
            layer.set_weights([(low - shift[:, np.newaxis]) / factor[:, np.newaxis], width / factor[:, np.newaxis]])
    first = next(layer for layer in model.layers if isinstance(layer, _FIRST))
    first.set_weights(_rescaled(first, factor, shift))
    return list(model.get_weights())


def _rescaling(old: Preprocessor, new: Preprocessor, names: Sequence[str]) -> tuple[Floats, Floats]:
    """Return a and b of z = a · z' + b for each feature."""
    of_old, of_new = ({f.name: f for f in fitted.features} for fitted in (old, new))
    factor = [of_new[name].std / of_old[name].std for name in names]
    shift = [(of_new[name].mean - of_old[name].mean) / of_old[name].std for name in names]
    return np.array(factor), np.array(shift)


def _rescaled(layer: Any, factor: Floats, shift: Floats) -> Weights:
    """Return the weights of a first layer whose first inputs are a · z' + b."""
    kernel, *others = layer.get_weights()
    n = len(factor)
    changed = kernel.copy()
    changed[:n] = kernel[:n] * factor[:, np.newaxis]
    if isinstance(layer, BatchEnsembleDense):  # each network scales its inputs before the kernel, its outputs after it
        scale_in, scale_out, bias = others
        return [changed, scale_in, scale_out, bias + (scale_in[:, :n] * shift) @ kernel[:n] * scale_out]
    bias, *others = others
    added = shift @ kernel[:n]
    if isinstance(layer, FirstStepGRU):  # biases of the inputs, and of the state
        added = np.stack([added, np.zeros_like(added)])
    return [changed, bias + added, *others]
