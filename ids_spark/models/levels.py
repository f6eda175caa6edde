"""Class probabilities at coarser levels than a model's own."""

import numpy as np

from ids_spark.base.arrays import Floats32
from ids_spark.dataset.taxonomy import Level, levels_from, parents


def at_levels(probabilities: Floats32, level: Level) -> dict[Level, Floats32]:
    """Return class probabilities at the model's level and at every coarser one, each of shape (rows, classes).

    The probability of a coarser class is the sum over its members.

    Args:
        probabilities: Shape (rows, level), benign first.
        level: The model's.
    """
    found: dict[Level, Floats32] = {level: probabilities}
    for coarser in levels_from(level)[1:]:
        sums = np.zeros((coarser, len(probabilities)), dtype=np.float32)
        for i, parent in enumerate(parents(level, coarser)):
            sums[parent] += probabilities[:, i]
        found[coarser] = sums.T
    return found
