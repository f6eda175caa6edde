"""Random choices of one input: the same for the same seed and index, each recorded as a short text."""

import random
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

_T = TypeVar("_T")


class Draw:
    """Random choices of one input.

    Attributes:
        rng: The source of all choices.
        applied: What was done to the input, in order.
    """

    def __init__(self, seed: int, index: int) -> None:
        self.rng = random.Random(f"{seed}/{index}")
        self.applied: list[str] = []

    def note(self, text: str) -> None:
        """Record a mutation."""
        self.applied.append(text)

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def pick(self, items: Sequence[_T]) -> _T:
        return items[self.rng.randrange(len(items))]

    def some(self, items: Sequence[_T], most: int) -> list[_T]:
        """Return 1 to `most` different items."""
        return self.rng.sample(list(items), min(len(items), self.rng.randint(1, most)))

    def weighted(self, items: dict[_T, float]) -> _T:
        return self.rng.choices(list(items), weights=list(items.values()))[0]

    def times(self, most: int) -> int:
        """Return how many mutations to make: 0 in one of ten inputs, so that valid ones occur."""
        return 0 if self.chance(0.1) else self.rng.randint(1, most)

    def numpy(self) -> Any:
        return np.random.default_rng(self.rng.getrandbits(64))
