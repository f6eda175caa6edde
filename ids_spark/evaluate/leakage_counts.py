"""From what a task gathered to figures of the leakage report. Pure functions; figures of several tasks add up."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ids_spark.base.arrays import Floats, Keys
from ids_spark.dataset.features import SOURCE_SPLITS
from ids_spark.dataset.taxonomy import CLASS19
from ids_spark.evaluate.univariate_auc import order_auc, range_auc
from ids_spark.features.moments import Moments

PRECISIONS: Final = ("double", "float32")
Pair = tuple[str, str]
KeyedRows = tuple[int, Keys, NDArray[np.int8], NDArray[np.bool_]]
"""Index of a split, then row keys, class ids and the mark `duplicate` of some of its rows, each of shape (rows,)."""
FeaturePart = tuple[int, tuple[int, int], Moments, dict[int, Floats]]
"""Index of a feature, where its rows stand in the flows, their moments, and their sampled values by class id."""


class Measure(NamedTuple):
    """Names one figure; None where a part does not apply.

    Attributes:
        what: `flows`, `duplicates_*`, `two_label_*`, `shared_*` (`*`: double, float32), `std`, `dropped`, `infinite`,
            `sampled`, `auc`, `auc_ranges`.
        split: `train` or `test`; null for `shared_*`.
        class_name: Of `shared_*` the label in test; null for a total over all classes.
        other_class: Of `shared_*` the label in train.
        feature: Official name.
    """

    what: str
    split: str | None = None
    class_name: str | None = None
    other_class: str | None = None
    feature: str | None = None


Figures = dict[Measure, float]


def key_figures(precision: str, contents: Sequence[KeyedRows]) -> Figures:
    """Count what repeats among the rows of one hash range, equal rows all within.

    Args:
        precision: Of the features that the keys were made of.
        contents: All rows of the range.
    """
    if not contents:
        return {}
    rows = pd.DataFrame(
        {
            "key": np.concatenate([keys for _, keys, _, _ in contents]),
            "split": np.concatenate([np.full(len(keys), split, np.int8) for split, keys, _, _ in contents]),
            "label": np.concatenate([labels for _, _, labels, _ in contents]),
            "marked": np.concatenate([marked for _, _, _, marked in contents]),
        }
    )
    repeated = rows.duplicated(["key", "split", "label"])
    figures: Figures = {}
    counted = [(f"duplicates_{precision}", rows[rows["marked"] if precision == "double" else repeated])]
    for what, some in [("flows", rows), *counted] if precision == "double" else counted:
        for (split, label), n in some.groupby(["split", "label"]).size().items():
            figures[Measure(what, SOURCE_SPLITS[split], CLASS19[label])] = int(n)
    distinct = rows.loc[~repeated, ["key", "split", "label"]]
    distinct = distinct[distinct.duplicated("key", keep=False)]
    for i, split in enumerate(SOURCE_SPLITS):
        of_split = distinct[distinct["split"] == i]
        twice = of_split.merge(of_split, on="key")
        figures |= _pair_figures(f"two_label_{precision}", split, twice[twice["label_x"] < twice["label_y"]])
    test, train = (distinct[distinct["split"] == SOURCE_SPLITS.index(split)] for split in ("test", "train"))
    return figures | _pair_figures(f"shared_{precision}", None, test.merge(train, on="key"))


def _pair_figures(what: str, split: str | None, found: pd.DataFrame) -> Figures:
    """Count distinct vectors in all and by pair of labels; a vector with three labels stands in several pairs."""
    figures: Figures = {Measure(what, split): found["key"].nunique()}
    for (label, other), n in found.groupby(["label_x", "label_y"])["key"].nunique().items():
        figures[Measure(what, split, CLASS19[label], CLASS19[other])] = int(n)
    return figures


def feature_figures(name: str, contents: Sequence[FeaturePart], pairs: Sequence[Pair], min_std: float) -> Figures:
    """Return the spread of one feature over train, and how well it alone separates each pair of classes.

    Args:
        name: Of the feature.
        contents: All its parts.
        pairs: Classes to separate; pairs with a class that has no sample are left out.
        min_std: At or below this standard deviation the feature would be dropped.
    """
    total = Moments()
    # merged in the order of the flows: rounding is the same whichever task ended first
    for _, _, part, _ in sorted(contents, key=lambda content: content[1]):
        total = total.merged(part)
    std = total.saturated().std
    figures = {
        Measure("std", "train", feature=name): std,
        Measure("dropped", "train", feature=name): float(not std > min_std),
        Measure("infinite", "train", feature=name): float(total.above + total.below),
    }
    parts: dict[str, list[Floats]] = {}
    for _, _, _, values in contents:
        for label, column in values.items():
            parts.setdefault(CLASS19[label], []).append(column)
    samples = {class_name: np.sort(np.concatenate(columns)) for class_name, columns in parts.items()}
    if all(content[0] == 0 for content in contents):  # the rows are those of every feature: counted with the first
        figures |= {Measure("sampled", "train", class_name): len(v) for class_name, v in samples.items()}
    for a, b in pairs:
        if a in samples and b in samples:
            figures[Measure("auc", "train", a, b, name)] = order_auc(samples[a], samples[b])
            figures[Measure("auc_ranges", "train", a, b, name)] = range_auc(samples[a], samples[b])
    return figures
