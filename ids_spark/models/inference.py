"""Predictions of stored models: each is built once in a Python worker and cached by the hash of its bytes."""

from typing import Any, Final, Protocol

import numpy as np

from ids_spark.base.arrays import Floats, Floats32
from ids_spark.models import artifact, attribution, network, path_gradient, threshold
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
    own = _Network(model, *parts.network) if parts.network is not None else None
    trees = _Trees(model) if parts.boosting is not None else None
    if own is not None and trees is not None:
        return _Blend(parts.share, own, trees)
    found = own or trees
    if found is None:
        raise ValueError(f"{model.card.architecture} has neither a network nor trees")
    return found


class _Network:
    """A network of a model."""

    def __init__(self, model: Model, architecture: str, hyperparameters: dict[str, Any]) -> None:
        card = model.card
        try:
            self._network = network.build(
                architecture, len(card.features), card.classes, hyperparameters, model.weights
            )
        except ValueError as error:
            raise ModelUnusable(
                f"model {card.name} version {card.version}: its weights do not fit its architecture and hyperparameters"
                f" ({error}); restore the directory or retrain"
            ) from error

    def probabilities(self, matrix: Floats32, batch_rows: int) -> Floats32:
        return self._network.probabilities(matrix, batch_rows)

    def attack_logits(self, matrix: Floats32) -> Floats:
        return self._network.attack_logits(matrix).astype(np.float64)

    def contributions(self, matrix: Floats32, baseline: Floats32) -> Floats32:
        return attribution.contributions(self._network, matrix, baseline)


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
