"""Boosted trees as XGBoost stores them in JSON, checked before XGBoost's own parser reads them.

That parser and the traversal of trees are C++ and trust the file: a child beyond the tree or a cycle of children would
read other memory or never end. Here every value that predictions rely on is checked, and the text that XGBoost gets is
written anew from the checked values, so that nothing else reaches it.
"""

from typing import Annotated, Final, Literal

import numpy as np
from pydantic import FailFast, Field

from ids_spark.base import json_text
from ids_spark.config.boost import BoostConfig
from ids_spark.config.score import Section

MOST_BYTES: Final = 64 << 20
"""Of a file: 100 rounds at 19 classes and depth 6 take 10 MB. Reading takes up to 16 times as much memory."""
_ROOT: Final = 2**31 - 1  # parent of a root
_LEAF: Final = -1
_OLDEST: Final = [3, 1, 0]  # XGBoost release from which `base_score` has a value for each class
_NEXT: Final = [4, 0, 0]
_LARGEST: Final = float(np.finfo(np.float32).max)
_MOST_KEYS: Final = 30  # of an object; a tree has 16
# Without an end at the first fault, each of millions of wrong values would become an error of some hundred bytes.
_Floats = Annotated[list[float], FailFast()]
_Ints = Annotated[list[int], FailFast()]
_Texts = Annotated[list[str], FailFast()]
_None = Annotated[list[int], FailFast(), Field(max_length=0)]
_Text = Annotated[str, Field(max_length=20)]


class _TreeParam(Section):
    num_deleted: Literal["0"]
    num_feature: _Text
    num_nodes: _Text
    size_leaf_vector: Literal["0", "1"]


class _Tree(Section):
    base_weights: _Floats
    categories: _None
    categories_nodes: _None
    categories_segments: _None
    categories_sizes: _None
    default_left: _Ints
    id: int
    left_children: _Ints
    loss_changes: _Floats
    parents: _Ints
    right_children: _Ints
    split_conditions: _Floats
    split_indices: _Ints
    split_type: _Ints
    sum_hessian: _Floats
    tree_param: _TreeParam


class _ForestParam(Section):
    num_parallel_tree: Literal["1"]
    num_trees: _Text


class _Categories(Section):
    enc: _None
    feature_segments: _None
    sorted_idx: _None


class _Forest(Section):
    cats: _Categories
    gbtree_model_param: _ForestParam
    iteration_indptr: _Ints
    tree_info: _Ints
    trees: Annotated[list[_Tree], FailFast(), Field(min_length=1)]


class _Booster(Section):
    model: _Forest
    name: Literal["gbtree"]


class _LearnerParam(Section):
    base_score: Annotated[str, Field(max_length=1_000)]
    boost_from_average: Literal["0", "1"]
    num_class: _Text
    num_feature: _Text
    num_target: Literal["1"]


class _MulticlassParam(Section):
    num_class: _Text


class _LossParam(Section):
    scale_pos_weight: Annotated[str, Field(max_length=20, pattern=r"^[0-9]+([.][0-9]+)?(E[+-]?[0-9]{1,2})?$")]


class _Objective(Section):
    name: Literal["multi:softprob", "binary:logistic"]
    softmax_multiclass_param: _MulticlassParam | None = None
    reg_loss_param: _LossParam | None = None


class _Learner(Section):
    attributes: dict[str, str]
    feature_names: _Texts
    feature_types: _Texts
    gradient_booster: _Booster
    learner_model_param: _LearnerParam
    objective: _Objective


class _File(Section):
    learner: _Learner
    version: Annotated[list[Annotated[int, Field(ge=0, le=1_000)]], FailFast(), Field(min_length=3, max_length=3)]

    @property
    def forest(self) -> _Forest:
        """The trees."""
        return self.learner.gradient_booster.model


def checked(content: bytes, n_features: int, outputs: int, config: BoostConfig) -> bytes:
    """Return the text of a file of trees that XGBoost may read, after a check of the file.

    Args:
        content: Of the file, as XGBoost's `save_model` writes it.
        n_features: Inputs of the model.
        outputs: Classes with a train row, at least 2; of two, the trees may be `binary:logistic`.
        config: Hyperparameters of the model, which the trees must not exceed.

    Raises:
        ValueError: it is not such a file, or something in it would be unsafe to read or has another size.
    """
    found = _File.model_validate(json_text.loads(content, MOST_BYTES, _MOST_KEYS), strict=True)
    _require_kind(found, n_features, outputs)
    _require_order(found.forest, groups_of(outputs, found.learner.objective.name), config.rounds)
    _require_trees(found.forest.trees, n_features, config.max_depth)
    kept = found.learner.model_copy(update={"attributes": {}, "feature_names": [], "feature_types": []})
    return found.model_copy(update={"learner": kept}).model_dump_json(exclude_none=True).encode()


def groups_of(outputs: int, objective: str) -> int:
    """Return to how many margins the trees of an objective add."""
    return 1 if objective == "binary:logistic" else outputs


def _require_kind(found: _File, n_features: int, outputs: int) -> None:
    learner, param = found.learner, found.learner.learner_model_param
    if outputs < 2:
        raise ValueError(f"a model with train rows of {outputs} class; trees need 2")
    if not _OLDEST <= found.version < _NEXT:
        raise ValueError(f"trees of XGBoost {found.version}; expected {_OLDEST} up to {_NEXT}")
    if param.num_feature != str(n_features):
        raise ValueError(f"trees of {param.num_feature} features; expected {n_features}")
    binary = learner.objective.name == "binary:logistic"
    if binary and outputs != 2:
        raise ValueError(f"trees of 2 classes; expected {outputs}")
    several = learner.objective.softmax_multiclass_param
    stated = {param.num_class, "0" if several is None else several.num_class}
    if stated != {"0" if binary else str(outputs)} or (learner.objective.reg_loss_param is not None) != binary:
        raise ValueError(f"trees of {', '.join(sorted(stated))} classes; expected {outputs}")
    base = json_text.loads(param.base_score)
    if not (isinstance(base, list) and len(base) == groups_of(outputs, learner.objective.name)):
        raise ValueError(f"base_score {param.base_score[:80]}; expected a list with a number for each class")
    if not all(type(x) in (int, float) and abs(x) < (1 if binary else _LARGEST) for x in base):
        raise ValueError(f"base_score {param.base_score[:80]} is no margin or probability")
    if binary and base[0] <= 0:
        raise ValueError(f"base_score {param.base_score[:80]} is no probability")


def _require_order(forest: _Forest, groups: int, rounds: int) -> None:
    trees = len(forest.trees)
    if forest.gbtree_model_param.num_trees != str(trees) or trees % groups or not trees <= rounds * groups:
        raise ValueError(f"{trees} trees; expected {groups} for each of at most {rounds} rounds")
    if forest.tree_info != [i % groups for i in range(trees)]:
        raise ValueError("its trees are not in the order of the classes")
    if forest.iteration_indptr != list(range(0, trees + 1, groups)):
        raise ValueError("its rounds are not in the order of the trees")


def _require_trees(trees: list[_Tree], n_features: int, most_depth: int) -> None:
    """Check that every node but a root is the child of exactly one earlier node, and that every number is usable."""
    for i, tree in enumerate(trees):
        n, param = len(tree.left_children), tree.tree_param
        lists = [value for name, value in vars(tree).items() if isinstance(value, list) and "categories" not in name]
        if not n or {len(each) for each in lists} != {n} or (param.num_nodes, tree.id) != (str(n), i):
            raise ValueError(f"tree {i}: its lists have different lengths, or its number of nodes or id is another")
        if param.num_feature != str(n_features):
            raise ValueError(f"tree {i} is of {param.num_feature} features; expected {n_features}")
        if fault := _fault_of(tree, n, n_features, most_depth):
            raise ValueError(f"tree {i}: {fault}")


def _fault_of(tree: _Tree, n: int, n_features: int, most_depth: int) -> str:
    """Return the fault of a tree of n nodes; empty if there is none."""
    left, right, parents, features, kinds, defaults = (
        np.array(each, dtype=np.int64)
        for each in (
            tree.left_children,
            tree.right_children,
            tree.parents,
            tree.split_indices,
            tree.split_type,
            tree.default_left,
        )
    )
    numbers = np.array([tree.split_conditions, tree.sum_hessian, tree.base_weights, tree.loss_changes])
    if not (np.abs(numbers) <= _LARGEST).all() or (numbers[1] < 0).any():
        return "a threshold, a leaf or a statistic is no finite number of 32 bits, or a sum is below 0"
    splits = np.flatnonzero(left != _LEAF)
    if (left[splits] <= splits).any() or (right[splits] <= splits).any() or max(left.max(), right.max()) >= n:
        return "a child is not after its parent, or beyond the tree"
    children = np.concatenate([left[splits], right[splits]])
    if (right[left == _LEAF] != _LEAF).any() or not np.array_equal(np.sort(children), np.arange(1, n)):
        return "a node is no child, or the child of two nodes"
    expected = np.full(n, _ROOT)
    expected[left[splits]] = expected[right[splits]] = splits
    if not np.array_equal(parents, expected):
        return "the parent of a node is another one"
    if ((features < 0) | (features >= n_features)).any():
        return f"it uses a feature beyond the {n_features} of the model"
    if kinds.any() or ((defaults != 0) & (defaults != 1)).any():
        return "a split is of a category, or its direction for a missing value is unknown"
    level, depth = np.zeros(1, dtype=np.int64), -1
    while len(level):
        depth += 1
        if depth > most_depth:
            return f"it has more than {most_depth} levels"
        level = level[left[level] != _LEAF]
        level = np.concatenate([left[level], right[level]])
    return ""
