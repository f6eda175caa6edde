"""Whether a challenger may replace the champion: recall of each class on the same test rows, row by row.

Both models are compared at the same budget. Where the challenger has learned local nights, each gets the threshold at
which it flags 1 % of the same held-out local flows: the champion's own threshold may flag most of the site's benign
flows, and the recall that it has there is of no use. Without local nights, each is at its own operating point.

A class has fallen if the challenger flags less of it than the champion by more than a set amount, and chance does not
explain the difference: the exact one-sided test of paired counts (McNemar 1947, doi 10.1007/BF02295996), with the level
of 5 % divided by the number of classes compared (Bonferroni).
"""

from dataclasses import dataclass, replace
from typing import Final

from pyspark import SparkContext

from ids_spark.adapt.replay import HeldOut, Replayed, local_thresholds, replay
from ids_spark.dataset.taxonomy import BENIGN_ID, CLASS19
from ids_spark.features.local_split import LocalHeldOut
from ids_spark.lake.store import Lake
from ids_spark.models.artifact import Model

LEVEL: Final = 0.05
OWN: Final = "each model at its own threshold"
SAME_BUDGET: Final = "each model at the threshold that flags 1 % of the same held-out local flows"


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
        at: Which thresholds the models have, for texts.
    """

    classes: tuple[ClassChange, ...]
    most_recall_lost: float
    at: str = OWN

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
        classes, limit = f"{len(self.classes)} classes, {self.at},", f"more than {self.most_recall_lost:g}"
        if self.fallen:
            return (
                f"Recall of {len(self.fallen)} of {classes} is lower than the champion's by {limit} and beyond chance:"
                f" {'; '.join(map(str, self.fallen))}."
            )
        least = min(self.classes, key=lambda each: each.change)
        fall = f" Largest fall: {least}." if least.change < 0 else ""
        return f"Recall of none of {classes} is lower than the champion's by {limit} and beyond chance.{fall}"


@dataclass(frozen=True)
class Judged:
    """A challenger compared with the champion, and the counts.

    Attributes:
        replayed: Champion and challenger, in this order, each at its own operating point.
        comparison: At the same budget; decides.
        own: Each at its own operating point.
    """

    replayed: Replayed
    comparison: Comparison
    own: Comparison


def judge(
    spark_context: SparkContext, lake: Lake, champion: Model, challenger: Model, most_recall_lost: float
) -> Judged:
    """Replay test rows and the challenger's held-out local rows, and compare both models at the same budget.

    Args:
        spark_context: Its executors read and score.
        lake: Holds `flows/`.
        champion: The present model.
        challenger: The new one.
        most_recall_lost: A class has not fallen if it lost at most this.

    Raises:
        SchemaMismatch: the flows lack a feature of a model.
        SourceUnusable: a file of the flows cannot be read.
        ModelUnusable: a model has no validation scores.
    """
    models, held_out = [champion, challenger], held_out_of(challenger)
    replayed = replay(spark_context, lake, models, held_out)
    own = compare(replayed, most_recall_lost)
    logits = None if held_out is None else local_thresholds(spark_context, lake, models, held_out)
    if logits is None:
        return Judged(replayed, own, own)
    same_budget = replay(spark_context, lake, models, logits=logits)
    return Judged(replayed, replace(compare(same_budget, most_recall_lost), at=SAME_BUDGET), own)


def held_out_of(model: Model) -> HeldOut | None:
    """Return which local rows a model has not learned; None for a model without local nights."""
    return None if model.card.local is None else LocalHeldOut.of_facts(model.card.local).rows


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
