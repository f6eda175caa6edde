"""Predictions of stored models: each is built once in a Python worker and cached by the hash of its bytes."""

import contextlib
from typing import Any, Final

import numpy as np

from ids_spark.base.arrays import Floats32
from ids_spark.models import attribution
from ids_spark.models.artifact import Model, ModelUnusable

_MAX_CACHED: Final = 8  # networks of a Python worker, which may score many models
_networks: dict[str, tuple[Any, Any]] = {}
_logits: dict[str, attribution.AttackLogit] = {}


def forward(model: Model, matrix: Floats32, batch_rows: int) -> Floats32:
    """Return class probabilities of shape (rows, classes) for scaled features of shape (rows, n_features)."""
    _, function = _network_of(model)
    batches = [function(matrix[i : i + batch_rows]).numpy() for i in range(0, len(matrix), batch_rows)]
    if len(batches) == 1:
        return np.asarray(batches[0])
    return np.concatenate(batches) if batches else np.empty((0, model.card.classes), dtype=np.float32)


def attack_logit(model: Model) -> attribution.AttackLogit:
    """Return the attack logit of a model, for attributions."""
    if model.sha256 not in _logits:
        from ids_spark.models.architectures import ensemble_size_of

        network, _ = _network_of(model)
        _logits[model.sha256] = attribution.logit_function(network, ensemble_size_of(model.card.hyperparameters))
    return _logits[model.sha256]


def _network_of(model: Model) -> tuple[Any, Any]:
    if model.sha256 not in _networks:
        while len(_networks) >= _MAX_CACHED:
            oldest = next(iter(_networks))
            del _networks[oldest]
            _logits.pop(oldest, None)
        _networks[model.sha256] = _build(model)
    return _networks[model.sha256]


def _build(model: Model) -> tuple[Any, Any]:
    import tensorflow as tf

    from ids_spark.models import architectures

    tf.get_logger().setLevel("ERROR")  # TensorFlow warns of every further graph when a worker scores several models
    with contextlib.suppress(RuntimeError):  # this process has run an operation, after which nothing can be set
        # A task has one core, and workers that share a GPU would each take all of its memory.
        tf.config.set_visible_devices([], "GPU")
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    card = model.card
    try:
        _require_fitting_sizes(model)
        network = architectures.build(card.architecture, len(card.features), card.classes, card.hyperparameters)
        network.set_weights(model.weights)
    except (ValueError, KeyError, TypeError, architectures.UnknownModel) as error:
        raise ModelUnusable(
            f"model {card.name} version {card.version}: its weights do not fit its architecture and hyperparameters"
            f" ({' '.join(str(error).split())[:200]}); restore the directory or retrain"
        ) from error
    signature = [tf.TensorSpec((None, len(model.card.features)), tf.float32)]
    return network, tf.function(lambda features: network(features, training=False), input_signature=signature)


def _require_fitting_sizes(model: Model) -> None:
    """Check that a network has no more weights than are stored, before one of that size is made.

    Raises:
        ValueError: a layer is larger than every dimension of the weights, or the layers need more numbers than there
            are.
    """
    from ids_spark.models import architectures

    card, stored = model.card, sum(weights.size for weights in model.weights)
    needed = architectures.least_weights(card.architecture, len(card.features), card.classes, card.hyperparameters)
    if needed > stored:
        raise ValueError(f"a network of at least {needed} weights, but {stored} are stored")
    own, largest = model.card.hyperparameters, max((size for w in model.weights for size in w.shape), default=0)
    sizes = [own["bins"], own["embedding"], *own["dense"], own["ensemble_size"]]
    if model.card.architecture != "dnn":  # which has no recurrent layer
        sizes.append(own["units"])
    if max(sizes) > largest and max(sizes) > 1:
        raise ValueError(f"a layer of {max(sizes)} units, but no array of weights has a dimension above {largest}")
