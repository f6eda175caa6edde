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
        member = np.zeros((level, coarser), dtype=np.float32)
        member[np.arange(level), parents(level, coarser)] = 1.0
        found[coarser] = probabilities @ member
    return found
