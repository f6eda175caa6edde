"""Predictions of stored models: each is built once in a Python worker and cached by the hash of its bytes."""

import contextlib
from typing import Any, Final, Protocol

import numpy as np

from ids_spark.base.arrays import Floats, Floats32
from ids_spark.models import artifact, attribution, path_gradient, threshold
from ids_spark.models.artifact import Model, ModelUnusable
from ids_spark.models.boosted_trees import BoostedTrees

_MAX_CACHED: Final = 8  # models of a Python worker, which may score many
_scorers: dict[str, "_Scorer"] = {}


class _Scorer(Protocol):
    """A model of any kind, built in this process."""

    def probabilities(self, matrix: Floats32, batch_rows: int) -> Floats32: ...

    def attack_logits(self, matrix: Floats32) -> Floats: ...

    def contributions(self, matrix: Floats32, baseline: Floats32) -> Floats32: ...


def forward(model: Model, matrix: Floats32, batch_rows: int) -> Floats32:
    """Return class probabilities of shape (rows, classes) for scaled features of shape (rows, n_features)."""
    return _scorer_of(model).probabilities(matrix, batch_rows)


def contributions(model: Model, matrix: Floats32, baseline: Floats | Floats32) -> Floats32:
    """Return how much each feature moved the attack logit, in log-odds; positive means towards attack.

    The sum of a row is its logit minus that of the baseline, up to the error of a midpoint rule: see `attribution` for
    networks, `boosted_trees` for trees. Of a blend, a feature's contributions to both logits are weighted with the mean
    gradient of the blend's logit by them, on the straight line between those of the baseline and of the flow.

    Args:
        model: Of any kind.
        matrix: Scaled features, shape (rows, n_features).
        baseline: Scaled features of a benign flow, shape (n_features,).
    """
    return _scorer_of(model).contributions(matrix, np.asarray(baseline, dtype=np.float32))


def _scorer_of(model: Model) -> _Scorer:
    if model.sha256 not in _scorers:
        while len(_scorers) >= _MAX_CACHED:
            del _scorers[next(iter(_scorers))]
        _scorers[model.sha256] = _built(model)
    return _scorers[model.sha256]


def _built(model: Model) -> _Scorer:
    parts = artifact.parts_of(model.card)
    network = _Network(model, *parts.network) if parts.network is not None else None
    trees = _Trees(model) if parts.boosting is not None else None
    if network is not None and trees is not None:
        return _Blend(parts.share, network, trees)
    found = network or trees
    if found is None:
        raise ValueError(f"{model.card.architecture} has neither a network nor trees")
    return found


class _Network:
    """A network of a model."""

    def __init__(self, model: Model, architecture: str, hyperparameters: dict[str, Any]) -> None:
        self._network, self._function = _build(model, architecture, hyperparameters)
        self._ensemble_size = int(hyperparameters["ensemble_size"])
        self._classes = model.card.classes
        self._logit: attribution.AttackLogit | None = None

    def probabilities(self, matrix: Floats32, batch_rows: int) -> Floats32:
        batches = [self._function(matrix[i : i + batch_rows]).numpy() for i in range(0, len(matrix), batch_rows)]
        if len(batches) == 1:
            return np.asarray(batches[0])
        return np.concatenate(batches) if batches else np.empty((0, self._classes), dtype=np.float32)

    def attack_logits(self, matrix: Floats32) -> Floats:
        return self._attack_logit()(matrix).astype(np.float64)

    def contributions(self, matrix: Floats32, baseline: Floats32) -> Floats32:
        return attribution.contributions(self._attack_logit(), matrix, baseline)

    def _attack_logit(self) -> attribution.AttackLogit:
        if self._logit is None:
            self._logit = attribution.logit_function(self._network, self._ensemble_size)
        return self._logit


class _Trees:
    """Boosted trees of a model."""

    def __init__(self, model: Model) -> None:
        if model.booster is None:  # not reached: `read_model` refuses such a directory
            raise ModelUnusable(f"{model.card.name} version {model.card.version} has no trees")
        try:
            self._trees = BoostedTrees(model.booster, model.card.classes, artifact.present_classes(model.card))
        except ValueError as error:  # XGBoost's own
            raise ModelUnusable(
                f"model {model.card.name} version {model.card.version}: XGBoost cannot read its trees"
                f" ({' '.join(str(error).split())[:200]}); restore the directory or retrain"
            ) from error

    def probabilities(self, matrix: Floats32, batch_rows: int) -> Floats32:
        del batch_rows  # XGBoost divides rows into blocks itself
        return self._trees.probabilities(matrix)

    def attack_logits(self, matrix: Floats32) -> Floats:
        return self._trees.attack_logits(matrix)

    def contributions(self, matrix: Floats32, baseline: Floats32) -> Floats32:
        return self._trees.contributions(matrix, baseline)


class _Blend:
    """A network and boosted trees; the probability of a class is share · network + (1 - share) · trees."""

    def __init__(self, share: float, network: _Network, trees: _Trees) -> None:
        self._share, self._network, self._trees = share, network, trees

    def probabilities(self, matrix: Floats32, batch_rows: int) -> Floats32:
        found = self._network.probabilities(matrix, batch_rows) * np.float32(self._share)
        found += self._trees.probabilities(matrix, batch_rows) * np.float32(1 - self._share)
        return found

    def attack_logits(self, matrix: Floats32) -> Floats:
        attack, benign = self._mixed(self._logits(matrix))
        logit: Floats = np.log(attack) - np.log(benign)
        return logit

    def contributions(self, matrix: Floats32, baseline: Floats32) -> Floats32:
        start, ends = self._logits(baseline[np.newaxis]), self._logits(matrix)
        weights = path_gradient.mean_gradient(self._gradient_of, start, ends).astype(np.float32)
        return weights[:, :1] * self._network.contributions(matrix, baseline) + weights[
            :, 1:
        ] * self._trees.contributions(matrix, baseline)

    def _logits(self, matrix: Floats32) -> Floats:
        """Return the attack logits of network and trees; shape (rows, 2)."""
        both = [self._network.attack_logits(matrix), self._trees.attack_logits(matrix)]
        return np.clip(np.stack(both, axis=1), -threshold.LIMIT, threshold.LIMIT)

    def _mixed(self, logits: Floats) -> tuple[Floats, Floats]:
        """Return the attack and the benign probability of the blend, for logits of shape (..., 2)."""
        shares = np.array([self._share, 1 - self._share])
        attack, benign = (np.exp(-np.logaddexp(0, sign * logits)) @ shares for sign in (-1, 1))
        return attack, benign

    def _gradient_of(self, logits: Floats) -> Floats:
        attack, benign = self._mixed(logits)
        each = np.exp(-np.logaddexp(0, logits) - np.logaddexp(0, -logits))  # p (1 - p)
        gradient: Floats = np.array([self._share, 1 - self._share]) * each / (attack * benign)[..., np.newaxis]
        return gradient


def _build(model: Model, architecture: str, hyperparameters: dict[str, Any]) -> tuple[Any, Any]:
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
        _require_fitting_sizes(model, architecture, hyperparameters)
        network = architectures.build(architecture, len(card.features), card.classes, hyperparameters)
        network.set_weights(model.weights)
    except (ValueError, KeyError, TypeError, architectures.UnknownModel) as error:
        raise ModelUnusable(
            f"model {card.name} version {card.version}: its weights do not fit its architecture and hyperparameters"
            f" ({' '.join(str(error).split())[:200]}); restore the directory or retrain"
        ) from error
    signature = [tf.TensorSpec((None, len(model.card.features)), tf.float32)]
    return network, tf.function(lambda features: network(features, training=False), input_signature=signature)


def _require_fitting_sizes(model: Model, architecture: str, own: dict[str, Any]) -> None:
    """Check that a network has no more weights than are stored, before one of that size is made.

    Raises:
        ValueError: a layer is larger than every dimension of the weights, or the layers need more numbers than there
            are.
    """
    from ids_spark.models import architectures

    card, stored = model.card, sum(weights.size for weights in model.weights)
    needed = architectures.least_weights(architecture, len(card.features), card.classes, own)
    if needed > stored:
        raise ValueError(f"a network of at least {needed} weights, but {stored} are stored")
    largest = max((size for w in model.weights for size in w.shape), default=0)
    sizes = [own["bins"], own["embedding"], *own["dense"], own["ensemble_size"]]
    if architecture != "dnn":  # which has no recurrent layer
        sizes.append(own["units"])
    if max(sizes) > largest and max(sizes) > 1:
        raise ValueError(f"a layer of {max(sizes)} units, but no array of weights has a dimension above {largest}")
