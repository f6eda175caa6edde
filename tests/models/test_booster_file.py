"""Files of boosted trees: XGBoost reads what was checked, and a file that would mislead its parser is refused."""

import copy
import json

import numpy as np
import pytest
import xgboost
from pydantic import ValidationError

from ids_spark.models import booster_file
from tests.support.trees import BOOSTING, trained

FEATURES, OUTPUTS = 5, 4


@pytest.mark.parametrize("binary", [False, True])
def test_a_checked_file_predicts_what_the_trees_did(binary):
    outputs = 2 if binary else OUTPUTS
    before = trained(FEATURES, outputs, binary)
    before.set_attr(note="from elsewhere")
    text = booster_file.checked(bytes(before.save_raw("json")), FEATURES, outputs, BOOSTING)
    after = xgboost.Booster()
    after.load_model(bytearray(text))
    assert after.attributes() == {}
    rows = xgboost.DMatrix(np.random.default_rng(2).normal(size=(50, FEATURES)))
    np.testing.assert_array_equal(after.predict(rows), before.predict(rows))
    assert booster_file.checked(text, FEATURES, outputs, BOOSTING) == text


def forest(content):
    return content["learner"]["gradient_booster"]["model"]


def first(content):
    return forest(content)["trees"][0]


def cycle(content):
    tree = first(content)
    inner = next(i for i, child in enumerate(tree["left_children"]) if child > 0 and i > 0)
    tree["left_children"][inner] = 0


def chain(content):
    """Make a tree of 20 levels: the right child of each node is the next split."""
    n = 41
    left, right = [-1] * n, [-1] * n
    for i in range(20):
        left[2 * i], right[2 * i] = 2 * i + 1, 2 * i + 2
    parents = [2**31 - 1] + [2 * (i // 2) for i in range(n - 1)]
    tree = first(content)
    for name, value in tree.items():
        if isinstance(value, list) and "categories" not in name:
            tree[name] = [0] * n
    tree |= {"left_children": left, "right_children": right, "parents": parents}
    tree["tree_param"]["num_nodes"] = str(n)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c["learner"].pop("objective"), "objective"),
        (lambda c: c.update(more=1), "more"),
        (lambda c: c["learner"]["gradient_booster"].update(name="dart"), "name"),
        (lambda c: c["learner"]["objective"].update(name="reg:squarederror"), "objective.name"),
        (lambda c: c.update(version=[1, 7, 0]), "XGBoost"),
        (lambda c: c.update(version=[9, 0, 0]), "XGBoost"),
        (lambda c: c["learner"]["learner_model_param"].update(num_feature="6"), "6 features"),
        (lambda c: c["learner"]["learner_model_param"].update(num_class="19"), "of 19, 4 classes"),
        (lambda c: c["learner"]["learner_model_param"].update(base_score="[1,2]"), "base_score"),
        (lambda c: c["learner"]["learner_model_param"].update(base_score="[1,2,3,1e39]"), "base_score"),
        (lambda c: c["learner"]["learner_model_param"].update(base_score="[1,2,3,NaN]"), "not a finite number"),
        (lambda c: c["learner"]["objective"]["softmax_multiclass_param"].clear(), "num_class"),
        (lambda c: c["learner"]["objective"].update(reg_loss_param={"scale_pos_weight": "1"}), "classes; expected"),
        (lambda c: forest(c)["trees"].pop(), "trees; expected"),
        (lambda c: forest(c)["trees"].extend(copy.deepcopy(forest(c)["trees"])), "trees; expected"),
        (lambda c: forest(c)["tree_info"].reverse(), "order of the classes"),
        (lambda c: forest(c).update(iteration_indptr=[0, 2**40]), "order of the trees"),
        (lambda c: first(c)["split_conditions"].pop(), "different lengths"),
        (lambda c: first(c)["tree_param"].update(num_nodes="1000000"), "number of nodes"),
        (lambda c: first(c)["tree_param"].update(num_feature="9"), "9 features"),
        (lambda c: first(c).update(id=3), "id"),
        (cycle, "not after its parent"),
        (lambda c: first(c)["left_children"].__setitem__(0, 10**6), "beyond the tree"),
        (lambda c: first(c)["right_children"].__setitem__(0, first(c)["left_children"][0]), "child of two"),
        (lambda c: first(c)["right_children"].__setitem__(0, -1), "not after its parent"),
        (lambda c: first(c)["parents"].__setitem__(1, 2), "parent"),
        (lambda c: first(c)["split_indices"].__setitem__(0, 5), "beyond the 5"),
        (lambda c: first(c)["split_indices"].__setitem__(0, -1), "beyond the 5"),
        (lambda c: first(c)["split_indices"].__setitem__(0, 2**32), "beyond the 5"),
        (lambda c: first(c)["split_conditions"].__setitem__(0, 1e39), "no finite number of 32 bits"),
        (lambda c: first(c)["sum_hessian"].__setitem__(0, -1.0), "below 0"),
        (lambda c: first(c)["split_type"].__setitem__(0, 1), "category"),
        (lambda c: first(c)["default_left"].__setitem__(0, 2), "direction"),
        (lambda c: first(c).update(categories=[1]), "categories"),
        (lambda c: first(c).update(left_children=[0.5] * 3), "left_children"),
        (chain, "more than 3 levels"),
    ],
)
def test_a_changed_file_is_refused_before_xgboost_reads_it(change, reason):
    content = json.loads(bytes(trained(FEATURES, OUTPUTS).save_raw("json")))
    change(content)
    with pytest.raises(ValueError, match=reason):
        booster_file.checked(json.dumps(content).encode(), FEATURES, OUTPUTS, BOOSTING)


def test_files_that_are_no_json_of_a_sensible_size_are_refused():
    whole = bytes(trained(FEATURES, OUTPUTS).save_raw("json"))
    twice = whole.replace(b'"id":0', b'"id":0,"id":0')
    faults = {b"": "Expecting", whole[:-5]: "Expecting", b"[" * 100_000: "nested", twice: "twice", b"{}": "missing"}
    for content, fault in faults.items():
        with pytest.raises(ValueError, match=fault):
            booster_file.checked(content, FEATURES, OUTPUTS, BOOSTING)
    with pytest.raises(ValueError, match="expected at most"):
        booster_file.checked(b" " * (booster_file.MOST_BYTES + 1), FEATURES, OUTPUTS, BOOSTING)
    with pytest.raises(ValueError, match="trees need 2"):
        booster_file.checked(whole, FEATURES, 1, BOOSTING)


def test_of_many_wrong_values_the_first_one_is_reported():
    """Each would be an error of some hundred bytes: 60 MB of them took all memory of the process."""
    whole = bytes(trained(FEATURES, OUTPUTS).save_raw("json"))
    for name, value in (("split_conditions", '""'), ("left_children", "0.5"), ("categories", "{}")):
        content = json.loads(whole)
        first(content)[name] = ["?"]
        many = json.dumps(content).replace('["?"]', f"[{','.join([value] * 5_000)}]")
        with pytest.raises(ValidationError, match=name) as error:
            booster_file.checked(many.encode(), FEATURES, OUTPUTS, BOOSTING)
        assert error.value.error_count() == 1
    content = json.loads(whole)
    forest(content)["trees"] = [{}] * 5_000
    with pytest.raises(ValidationError, match="base_weights") as error:
        booster_file.checked(json.dumps(content).encode(), FEATURES, OUTPUTS, BOOSTING)
    assert error.value.error_count() < 50
    content = json.loads(whole)
    first(content).update({f"k{i}": 1 for i in range(5_000)})
    with pytest.raises(ValueError, match="keys; expected at most"):
        booster_file.checked(json.dumps(content).encode(), FEATURES, OUTPUTS, BOOSTING)


def test_two_classes_may_be_one_margin_but_more_may_not():
    binary = bytes(trained(FEATURES, 2, True).save_raw("json"))
    with pytest.raises(ValueError, match="2 classes"):
        booster_file.checked(binary, FEATURES, 3, BOOSTING)
    content = json.loads(binary)
    for score in ("[0]", "[1]", "[-0.5]"):
        content["learner"]["learner_model_param"]["base_score"] = score
        with pytest.raises(ValueError, match="base_score"):
            booster_file.checked(json.dumps(content).encode(), FEATURES, 2, BOOSTING)
