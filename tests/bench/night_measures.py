"""What the lines of a night are worth, compared with its truth.

A line is true if at least half of its flows belong to attacks, and it is of the attack with most of them. An attack is
found if a line holds at least three of its flows or half of them. Flows of a line are those that the list attributes
to it, not all flows of its devices.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from ids_spark.base.arrays import Ints
from tests.bench.night_flows import Flows

_ENOUGH: Final = 3  # flows of an attack in one line


@dataclass(frozen=True)
class Listed:
    """The lines of one night, compared with its truth.

    Attributes:
        lines: Shown.
        false: Of them, lines of benign flows.
        attacks: Attacks of the night.
        ranks: Rank of the first line that found an attack, by number of the attack.
        lines_of: True lines of each attack that was found.
        promised: Expected false lines that the list states; NaN if it states none.
        seconds: Time to make the list.
        lost: Lines of the same night without ignored attacks that are not shown.
    """

    lines: int
    false: int
    attacks: int
    ranks: dict[int, int]
    lines_of: dict[int, int]
    promised: float = math.nan
    seconds: float = 0.0
    lost: int = 0


def compare(
    flows: Flows,
    lines: Sequence[Ints],
    promised: float = math.nan,
    seconds: float = 0.0,
    ignored: Collection[int] = (),
) -> Listed:
    """Compare lines, as indices of flows in order of rank, with the truth; lines of ignored attacks do not count."""
    attacks = np.bincount(flows.episodes)
    false = shown = 0
    ranks: dict[int, int] = {}
    lines_of: dict[int, int] = {}
    for rank, line in enumerate(lines, start=1):
        found = np.bincount(flows.episodes[line], minlength=len(attacks))
        main = _attack_of(found)
        if main in ignored:
            continue
        shown += 1
        false += main == 0
        for attack in np.flatnonzero((found >= _ENOUGH) | (2 * found >= attacks)):
            if attack and attacks[attack] and attack not in ignored:
                ranks.setdefault(int(attack), rank)
        if main:
            lines_of[main] = lines_of.get(main, 0) + 1
    numbers = [attack for attack in np.flatnonzero(attacks) if attack and attack not in ignored]
    return Listed(shown, false, len(numbers), ranks, lines_of, promised, seconds)


def lost(lines: Sequence[Ints], plain: Sequence[Ints]) -> int:
    """Return how many lines of a plain night no line of another one holds at least half of; by numbers of flows."""
    return sum(not any(2 * np.isin(one, line).sum() >= len(one) for line in lines) for one in plain)


def _attack_of(found: Ints) -> int:
    """Return the attack that a line is of, from its flows by attack; 0 for a false line."""
    return int(found[1:].argmax()) + 1 if 2 * found[1:].sum() >= found.sum() and found[1:].any() else 0


def is_false(flows: Flows, line: Ints) -> bool:
    """Return whether most flows of a line are benign."""
    return 2 * int((flows.episodes[line] > 0).sum()) < len(line)


@dataclass
class Pooled:
    """Figures over several nights."""

    nights: list[Listed] = field(default_factory=list)

    def total(self, name: str) -> float:
        """Return the sum of a number over the nights."""
        return float(sum(getattr(night, name) for night in self.nights))

    @property
    def precision(self) -> float:
        """Share of true lines; NaN without a line."""
        return _ratio(self.total("lines") - self.total("false"), self.total("lines"))

    @property
    def found(self) -> float:
        """Share of attacks found; NaN without an attack."""
        return _ratio(sum(len(night.ranks) for night in self.nights), self.total("attacks"))

    @property
    def false_per_night(self) -> float:
        """False lines a night."""
        return _ratio(self.total("false"), len(self.nights))

    @property
    def lines_per_night(self) -> float:
        """Lines a night."""
        return _ratio(self.total("lines"), len(self.nights))

    @property
    def lines_per_attack(self) -> float:
        """Mean number of true lines of an attack that has any; NaN without one."""
        counts = [count for night in self.nights for count in night.lines_of.values()]
        return _ratio(sum(counts), len(counts))

    @property
    def median_rank(self) -> float:
        """Median rank of the first line of an attack that was found; NaN without one."""
        ranks = [rank for night in self.nights for rank in night.ranks.values()]
        return float(np.median(ranks)) if ranks else math.nan

    @property
    def within_five(self) -> float:
        """Share of nights whose attacks are all among the first five lines."""
        return _ratio(
            sum(len(n.ranks) == n.attacks and max(n.ranks.values(), default=0) <= 5 for n in self.nights),
            len(self.nights),
        )

    @property
    def without_a_line(self) -> float:
        """Share of nights that list nothing."""
        return _ratio(sum(night.lines == 0 for night in self.nights), len(self.nights))

    def observed_over_promised(self) -> tuple[float, float, float]:
        """Return false lines over the stated expectation, and its exact 95 % Poisson interval (Garwood 1936)."""
        from scipy import stats

        count, promised = int(self.total("false")), self.total("promised")
        if not promised > 0:
            return math.nan, math.nan, math.nan
        low = stats.chi2.ppf(0.025, 2 * count) / 2 if count else 0.0
        return count / promised, low / promised, stats.chi2.ppf(0.975, 2 * count + 2) / 2 / promised


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
