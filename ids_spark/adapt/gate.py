"""Whether a challenger may replace the champion: recall of each class on the same test rows, row by row.

A class has fallen if the challenger flags less of it than the champion by more than a set amount, and chance does not
explain the difference: the exact one-sided test of paired counts (McNemar 1947, doi 10.1007/BF02295996), with the level
of 5 % divided by the number of classes compared (Bonferroni).
"""

from dataclasses import dataclass
from typing import Final

from ids_spark.adapt.replay import Replayed
from ids_spark.dataset.taxonomy import BENIGN_ID, CLASS19

LEVEL: Final = 0.05


@dataclass(frozen=True)
class ClassChange:
    """Test rows of an attack class: all, those that each model flags, and those that only one flags.

    Attributes:
        class_name: Of 19 classes.
        rows: At least 1.
        champion: Rows that the champion flags at its operating point.
        challenger: Rows that the challenger flags at its own.
        lost: Rows that only the champion flags.
        gained: Rows that only the challenger flags.
        p_value: Probability of at least so many lost rows of those that only one model flags, if neither is better.
        fell: Whether recall fell by more than the set amount, beyond what chance explains.
    """

    class_name: str
    rows: int
    champion: int
    challenger: int
    lost: int
    gained: int
    p_value: float
    fell: bool

    @property
    def change(self) -> float:
        """Recall of the challenger minus that of the champion."""
        return (self.challenger - self.champion) / self.rows

    def __str__(self) -> str:
        """Return the change as text."""
        before, after = self.champion / self.rows, self.challenger / self.rows
        return f"{self.class_name} {before:.3f} → {after:.3f} of {self.rows:,} rows (p = {self.p_value:.2g})"


@dataclass(frozen=True)
class Comparison:
    """A challenger compared with the champion.

    Attributes:
        classes: Attack classes with test rows, by id; empty: nothing could be compared.
        most_recall_lost: The set amount.
    """

    classes: tuple[ClassChange, ...]
    most_recall_lost: float

    @property
    def fallen(self) -> tuple[ClassChange, ...]:
        """Classes whose recall fell, the largest loss first."""
        return tuple(sorted((each for each in self.classes if each.fell), key=lambda each: each.change))

    @property
    def accepted(self) -> bool:
        """Whether the challenger may become champion."""
        return not self.fallen

    def statement(self) -> str:
        """Return the result in one sentence."""
        if not self.classes:
            return "Nothing was compared: there is no test row of an attack."
        if self.fallen:
            return (
                f"Recall of {len(self.fallen)} of {len(self.classes)} classes, each model at its own threshold, is"
                f" lower than the champion's by more than {self.most_recall_lost:g} and beyond chance:"
                f" {'; '.join(map(str, self.fallen))}."
            )
        least = min(self.classes, key=lambda each: each.change)
        return (
            f"Recall of none of {len(self.classes)} classes, each model at its own threshold, is lower than the"
            f" champion's by more than {self.most_recall_lost:g} beyond chance; largest fall: {least}."
            if least.change < 0
            else f"Recall of none of {len(self.classes)} classes is lower than the champion's."
        )


def compare(replayed: Replayed, most_recall_lost: float, champion: int = 0, challenger: int = 1) -> Comparison:
    """Compare two models of a replay.

    Args:
        replayed: Of both models.
        most_recall_lost: A class has not fallen if it lost at most this.
        champion: Its place among the models of the replay.
        challenger: Its place.
    """
    rows, before, after = replayed.rows(), replayed.flagged(champion), replayed.flagged(challenger)
    lost, gained = replayed.flagged_by_only(champion, challenger), replayed.flagged_by_only(challenger, champion)
    compared = [i for i in range(len(CLASS19)) if i != BENIGN_ID and rows[i]]
    classes = []
    for i in compared:
        p_value = _tail(int(lost[i]), int(lost[i] + gained[i]))
        fell = (before[i] - after[i]) / rows[i] > most_recall_lost and p_value <= LEVEL / len(compared)
        n, champion_flags, challenger_flags = int(rows[i]), int(before[i]), int(after[i])
        of_one = int(lost[i]), int(gained[i])
        classes.append(ClassChange(CLASS19[i], n, champion_flags, challenger_flags, *of_one, p_value, bool(fell)))
    return Comparison(tuple(classes), most_recall_lost)


def _tail(successes: int, trials: int) -> float:
    """Return the probability of at least so many successes if each trial succeeds with probability 1/2."""
    from scipy import special

    return float(special.betainc(successes, trials - successes + 1, 0.5)) if successes else 1.0
