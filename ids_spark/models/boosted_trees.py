"""Boosted trees as functions: probabilities of XGBoost, and what each feature contributed.

A contribution is a Shapley value of the attack logit against one benign baseline. For the margin of a class, to which
trees add, it is exact: a leaf counts for the set of features with the flow's values if the path to it holds with these
and the baseline's others, so its value is shared among the features that only one of both meets (interventional SHAP
with one reference: Lundberg et al. 2020, doi 10.1038/s42256-019-0138-9). The attack logit is a function of the margins;
its gradient is averaged over the straight line from the baseline's margins to the flow's (integrated gradients), and
each class's contributions are weighted with it. So the sum over features is the difference of the logits, up to the
midpoint rule, and a feature that no split uses has exactly 0.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ids_spark.base.arrays import Floats, Floats32, Ints, Mask
from ids_spark.config.boost import MOST_DEPTH
from ids_spark.dataset.taxonomy import BENIGN_ID
from ids_spark.models import path_gradient

_BINARY: Final = "binary:logistic"


@dataclass(frozen=True)
class _Leaves:
    """The leaves of all trees, each with the conditions of its path merged for each feature.

    A slot that a path does not need holds for every value.

    Attributes:
        value: Shape (leaves,).
        group: Margin that it adds to; shape (leaves,).
        feature: Shape (slots, leaves).
        low, high: The condition low <= feature < high; shape (slots, leaves).
    """

    value: Floats
    group: Ints
    feature: Ints
    low: Floats32
    high: Floats32


class BoostedTrees:
    """Trees of a stored model.

    Args:
        booster: From `booster_file.checked`.
        classes: Classes of the model.
        present: Ids of the classes that the trees know, ascending.
    """

    def __init__(self, booster: bytes, classes: int, present: Sequence[int]) -> None:
        """Build the trees in this process, for one thread."""
        import xgboost

        self._booster = xgboost.Booster({"nthread": 1})
        self._booster.load_model(bytearray(booster))
        self._content, self._classes, self._present = booster, classes, np.array(present)
        self._binary = json.loads(self._booster.save_config())["learner"]["objective"]["name"] == _BINARY
        self._leaves: _Leaves | None = None

    def probabilities(self, matrix: Floats32) -> Floats32:
        """Return class probabilities of shape (rows, classes) for scaled features of shape (rows, n_features).

        Classes without a train row have 0. A row with a feature that is not finite has NaN, as from a network: trees
        would take it for a value that is missing.
        """
        found = np.zeros((len(matrix), self._classes), dtype=np.float32)
        if not len(matrix):
            return found
        if self._binary:  # 1 - p would round to 0 from a logit of 17 on
            logits = self._margins(matrix)[:, 0]
            found[:, self._present] = np.exp(-np.logaddexp(0, np.stack([logits, -logits], axis=1)))
        else:
            found[:, self._present] = self._booster.inplace_predict(matrix, validate_features=False)
        found[~np.isfinite(matrix).all(axis=1)] = np.nan
        return found

    def attack_logits(self, matrix: Floats32) -> Floats:
        """Return ln(sum of attack probabilities) - ln(benign probability), not clipped, shape (rows,).

        It is infinite where trees know no benign class.
        """
        return self._logit_of(self._margins(matrix))

    def contributions(self, matrix: Floats32, baseline: Floats32) -> Floats32:
        """Return how much each feature moved the attack logit from that of the baseline; shape (rows, n_features).

        Where trees know no benign or no attack class, the logit is infinite, and all contributions are 0.
        """
        n_features = matrix.shape[1]
        found = np.zeros((len(matrix), n_features), dtype=np.float32)
        if self._present[0] != BENIGN_ID or not len(matrix):
            return found
        if self._leaves is None:
            self._leaves = _leaves_of(self._content)
        leaves = self._leaves
        start, ends = self._margins(baseline[np.newaxis]), self._margins(matrix)
        weights = path_gradient.mean_gradient(self._gradient_of, start, ends)
        at_baseline = _meets(leaves, baseline)
        for i, row in enumerate(matrix):
            of_margins = _shapley(leaves, _meets(leaves, row), at_baseline, ends.shape[1], n_features)
            found[i] = weights[i] @ of_margins
        return found

    def _margins(self, matrix: Floats32) -> Floats:
        """Return what the trees add up to for each group; shape (rows, groups)."""
        found = self._booster.inplace_predict(matrix, predict_type="margin", validate_features=False)
        groups = 1 if self._binary else len(self._present)
        margins: Floats = found.reshape(len(matrix), groups).astype(np.float64)
        return margins

    def _logit_of(self, margins: Floats) -> Floats:
        if self._present[0] != BENIGN_ID:
            return np.full(len(margins), np.inf)
        if self._binary:
            return margins[:, 0]
        logit: Floats = np.logaddexp.reduce(margins[:, 1:], axis=1) - margins[:, 0]
        return logit

    def _gradient_of(self, margins: Floats) -> Floats:
        """Return the gradient of the attack logit by the margins; shape (..., groups)."""
        if self._binary:
            return np.ones_like(margins)
        gradient = np.full_like(margins, -1.0)
        attack = margins[..., 1:]
        shares = np.exp(attack - attack.max(axis=-1, keepdims=True))
        gradient[..., 1:] = shares / shares.sum(axis=-1, keepdims=True)
        return gradient


def _meets(leaves: _Leaves, row: Floats32) -> Mask:
    """Return which conditions of each leaf a flow meets; shape (slots, leaves)."""
    values = np.take(row, leaves.feature, mode="clip")  # which needs no check of the indices
    found: Mask = (values >= leaves.low) & (values < leaves.high)
    return found


_ORDERS: Final = np.array(
    [
        [math.factorial(a) * math.factorial(b) / math.factorial(a + b + 1) for b in range(MOST_DEPTH)]
        for a in range(MOST_DEPTH)
    ]
)
"""a! b! / (a + b + 1)!: the share of all orders of a + b + 1 features in which one stands after a and before b."""


def _shapley(leaves: _Leaves, flow: Mask, baseline: Mask, groups: int, n_features: int) -> Floats:
    """Return the contribution of each feature to each margin; shape (groups, n_features).

    A leaf counts with a set of features of the flow if all that only the flow meets are in it, and none that only the
    baseline meets.
    """
    reached = np.flatnonzero((flow | baseline).all(axis=0))
    own, other = flow[:, reached] & ~baseline[:, reached], ~flow[:, reached] & baseline[:, reached]
    n_own, n_other, value = own.sum(axis=0), other.sum(axis=0), leaves.value[reached]
    places = leaves.group[reached] * n_features + leaves.feature[:, reached]
    found = np.zeros(groups * n_features)
    for part, share in (
        (own, value * _ORDERS[np.maximum(n_own - 1, 0), n_other]),
        (other, -value * _ORDERS[n_own, np.maximum(n_other - 1, 0)]),
    ):
        slots, at = np.nonzero(part)
        found += np.bincount(places[slots, at], share[at], minlength=len(found))
    return found.reshape(groups, n_features)


def _leaves_of(booster: bytes) -> _Leaves:
    """Return the leaves of a checked file."""
    content = json.loads(booster)["learner"]["gradient_booster"]["model"]
    trees, groups = content["trees"], content["iteration_indptr"][1]
    sizes = [len(tree["parents"]) for tree in trees]
    starts = np.concatenate([[0], np.cumsum(sizes)])

    def nodes(name: str, kind: Any) -> Any:
        return np.concatenate([np.array(tree[name], dtype=kind) for tree in trees])

    tree = np.repeat(np.arange(len(trees)), sizes)
    left = np.where((left := nodes("left_children", np.int64)) < 0, -1, left + starts[tree])
    parent = np.where(starts[tree] == np.arange(len(tree)), -1, nodes("parents", np.int64) + starts[tree])
    features, values = nodes("split_indices", np.int64), nodes("split_conditions", np.float32)
    at = np.flatnonzero(left < 0)
    shape, used = (MOST_DEPTH, len(at)), np.zeros(len(at), dtype=np.int64)
    feature: Ints = np.zeros(shape, dtype=np.int64)
    low: Floats32 = np.full(shape, -np.inf, dtype=np.float32)
    high: Floats32 = np.full(shape, np.inf, dtype=np.float32)
    node = at.copy()
    while len(going := np.flatnonzero(parent[node] >= 0)):
        child, node[going] = node[going], parent[node[going]]
        split = node[going]
        same = (feature[:, going] == features[split]) & (np.arange(MOST_DEPTH)[:, np.newaxis] < used[going])
        slot = np.where(same.any(axis=0), same.argmax(axis=0), used[going])
        used[going] = np.maximum(used[going], slot + 1)
        feature[slot, going] = features[split]
        is_left = left[split] == child
        for bound, mask, better in ((high, is_left, np.minimum), (low, ~is_left, np.maximum)):
            bound[slot[mask], going[mask]] = better(bound[slot[mask], going[mask]], values[split[mask]])
    slots = max(1, int(used.max()))
    return _Leaves(values[at].astype(np.float64), tree[at] % groups, feature[:slots], low[:slots], high[:slots])
