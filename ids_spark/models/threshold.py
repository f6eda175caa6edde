"""Threshold selection: the scores of a model's validation rows, and the threshold for a budget of false alarms.

The score of a flow is its attack logit. A budget of false alarms among the flows of a night is a false-alarm rate, and
a false-alarm rate corresponds to a quantile of the benign validation scores. The smallest target rate is one benign
validation row. `tail_fit` finds quantiles between and beyond the rows; its docstring gives the measured errors.
"""

import json
import math
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ids_spark.base.arrays import Floats, Floats32, Mask
from ids_spark.base.errors import InputError
from ids_spark.dataset.taxonomy import BENIGN_ID
from ids_spark.models import tail_fit

LIMIT: Final = 80.0
"""Attack logits are clipped to plus and minus this: near it a float32 softmax reaches an exact 0."""
_FORMAT: Final = 1
_LONGEST_REASON: Final = 300
_TAIL: Final = 2_000  # highest benign scores that are stored


class ValidationScoresUnusable(InputError):
    """Raised when a file of validation scores is not of this format, or a score is not a finite number."""


@dataclass(frozen=True)
class Threshold:
    """The attack logit from which flows are flagged, and the false alarms to expect.

    Attributes:
        logit: Flows at or above it are flagged.
        probability: The attack probability of that logit.
        flows: Flows of the night. All are counted as benign, so that the expectation is not too low.
        budget: Target number of false alarms.
        benign_rows: Benign validation rows from which the threshold was computed.
        expected_false_alarms: Point estimate for `flows` flows; None without a benign validation row.
        false_alarms_at_most: Upper end of the exact 95 % interval of that expectation (Clopper, Pearson 1934, doi
            10.1093/biomet/26.4.404). The count of one night varies around its expectation as well.
        smallest_rate: 3 / benign_rows: the rate that is excluded with 95 % confidence when no row gave an alarm (rule
            of three: Hanley, Lippman-Hand 1983, doi 10.1001/jama.1983.03330370053031).
        supported: Whether budget / flows is at least `smallest_rate`.
        recall: Share of the attack validation rows that are flagged; None when there was none.
    """

    logit: float
    probability: float
    flows: int
    budget: int
    benign_rows: int
    expected_false_alarms: float | None
    false_alarms_at_most: float
    smallest_rate: float
    supported: bool
    recall: float | None

    def statement(self) -> str:
        """Return a text on what is flagged and how many false alarms to expect, for the audit record and the page."""
        if not self.flows:
            return "There is no flow to flag."
        p = "above 0.9999" if self.probability > 0.9999 else f"of {self.probability:.4g}"
        sentences = [f"Flagged are flows with log-odds of attack of at least {self.logit:.2f}, a probability {p}."]
        if self.expected_false_alarms is None:
            sentences.append(
                "There is no benign validation row, so the threshold does not follow from the budget of"
                f" {self.budget:,}: any number of the {self.flows:,} flows may be false alarms."
            )
        else:
            about, at_most = _count(self.expected_false_alarms), _count(self.false_alarms_at_most)
            expected = f"about {about} would be flagged, at most {at_most}"
            if not self.supported:
                expected = f"fewer than {at_most} would be flagged"
                sentences.append(
                    f"{self.benign_rows:,} benign validation rows support no rate below {self.smallest_rate:.2g} (rule"
                    f" of three); the budget needs a rate of {self.budget / self.flows:.2g}. Point estimate: {about}."
                )
            sentences.insert(1, f"If all {self.flows:,} flows were benign, {expected} (95 % interval).")
            if self.expected_false_alarms > 1.05 * self.budget:
                sentences.append(f"That is over the budget of {self.budget:,}: no threshold is known to come closer.")
        if self.recall is not None:
            sentences.append(f"Of the attack validation rows, {self.recall:.1%} are flagged.")
        return " ".join(sentences)


@dataclass(frozen=True)
class ValidationScores:
    """Scores of a model's validation rows, as stored with the model.

    Attributes:
        benign_rows: Benign validation rows.
        attack_rows: Attack validation rows.
        benign_tail: The highest attack logits of benign rows, descending: 2,000, or all if there are fewer.
        benign_quantiles: Quantiles of all attack logits of benign rows at the levels 0, 0.002, … 1; empty without a
            row.
        attack_quantiles: The same of attack rows.
        class_mix: Benign validation rows (without any: all) predicted as each class of the model's level, by id.
        baseline: Median benign flow, the reference of attributions: scaled features in input order.
    """

    benign_rows: int
    attack_rows: int
    benign_tail: tuple[float, ...]
    benign_quantiles: tuple[float, ...]
    attack_quantiles: tuple[float, ...]
    class_mix: tuple[int, ...]
    baseline: tuple[float, ...]

    def threshold(self, flows: int, budget: int) -> Threshold:
        """Return the threshold for about `budget` false alarms among `flows` flows.

        A budget of at least all flows flags all of them. If the budget is a rate below one benign validation row, no
        flow that the model predicts as benign is flagged; without any such row the threshold is a probability of 0.5.

        Raises:
            ValueError: when a number is negative.
        """
        if flows < 0 or budget < 0:
            raise ValueError(f"found {flows} flows and a budget of {budget}; expected no negative number")
        n, rate = self.benign_rows, min(1.0, budget / flows) if flows else 1.0
        smallest = min(1.0, 3 / n) if n else 1.0
        logit, expected, upper = 0.0, None, 1.0
        if n:
            logit, rows = self._logit_of(rate)
            expected, upper = flows * rows / n, tail_fit.upper_rate(math.ceil(rows), n)
        supported = n > 0 and rate >= smallest
        recall = tail_fit.share_reaching(self.attack_quantiles, logit) if self.attack_rows else None
        p = 1 / (1 + math.exp(-logit))
        return Threshold(logit, p, flows, budget, n, expected, flows * upper, smallest, supported, recall)

    def _logit_of(self, rate: float) -> tuple[float, float]:
        """Return the threshold for a rate of false alarms, and how many benign rows are expected to reach it."""
        n, highest, wanted = self.benign_rows, np.array(self.benign_tail), max(rate * self.benign_rows, 1.0)
        if rate == 1.0:
            return -LIMIT, n
        if wanted >= len(highest) and n > len(highest):
            logit, rows = tail_fit.score_at_share(wanted / n, self.benign_quantiles), wanted
        else:
            logit, rows = tail_fit.score_reached_by(highest, n, wanted)
        lowest = 0.0 if rate * n < 1 else -LIMIT  # so that few rows do not flag flows predicted as benign
        logit = min(max(logit, lowest), LIMIT)  # saturated scores can only be flagged together
        reaching = float(np.searchsorted(-highest, -logit, side="right"))
        if reaching == len(highest) < n:
            reaching = max(reaching, n * tail_fit.share_reaching(self.benign_quantiles, logit))
        return logit, max(rows, reaching)

    def to_json(self) -> str:
        """Return the validation scores as JSON."""
        return json.dumps({"format": _FORMAT, **asdict(self)}, allow_nan=False) + "\n"


def from_json(text: str, where: str) -> ValidationScores:
    """Return the validation scores that `to_json` wrote.

    Raises:
        ValidationScoresUnusable: when it is not JSON, of another format, or its numbers contradict each other.
    """
    try:
        content: Any = json.loads(text)
        found_format = content.pop("format")
        if found_format != _FORMAT:
            raise ValidationScoresUnusable(
                f"{where}: format {str(found_format)[:80]}; expected {_FORMAT}; retrain with this version"
            )
        lists = {name: tuple(value) for name, value in content.items() if isinstance(value, list)}
        found = ValidationScores(**content | lists)
        fault = _fault(found)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        reason = " ".join(repr(error).split())[:_LONGEST_REASON]
        raise ValidationScoresUnusable(
            f"{where} does not hold validation scores ({reason}); restore the directory or retrain"
        ) from error
    if fault:
        raise ValidationScoresUnusable(f"{where}: {fault}; restore the directory or retrain")
    return found


def validation_scores_of(
    logits: Floats, benign: Mask, predicted_counts: NDArray[np.int64], baseline: Floats
) -> ValidationScores:
    """Summarise the scores of validation rows.

    Args:
        logits: Shape (rows,), from `attack_logits`.
        benign: Shape (rows,): whether a row's label is benign.
        predicted_counts: Shape (classes,): rows predicted as each class; becomes `class_mix`.
        baseline: Shape (n_features,), from `benign_baseline`.

    Raises:
        ValidationScoresUnusable: when a score or the baseline is not a finite number.
    """
    if not (np.isfinite(logits).all() and np.isfinite(baseline).all()):
        raise ValidationScoresUnusable(
            f"{int((~np.isfinite(logits)).sum()):,} of {len(logits):,} validation rows have no finite attack score,"
            f" {int((~np.isfinite(baseline)).sum())} of {len(baseline)} features no finite baseline; expected none:"
            " training diverged; set train.learning_rate lower"
        )
    scores = np.sort(logits[benign])[::-1]
    return ValidationScores(
        benign_rows=len(scores),
        attack_rows=len(logits) - len(scores),
        benign_tail=tuple(scores[:_TAIL].tolist()),
        benign_quantiles=tail_fit.quantiles(scores),
        attack_quantiles=tail_fit.quantiles(logits[~benign]),
        class_mix=tuple(predicted_counts.tolist()),
        baseline=tuple(baseline.tolist()),
    )


def attack_logits(probabilities: Floats32) -> Floats:
    """Return ln(sum of attack probabilities) - ln(benign probability), within ±`LIMIT`, shape (rows,).

    Args:
        probabilities: Of a softmax, shape (rows, classes), benign first. A probability of exactly 0 gives the limit,
            NaN stays NaN.
    """
    attack = probabilities[:, BENIGN_ID + 1 :].sum(axis=1, dtype=np.float64)  # not 1 - benign: that rounds to 0
    with np.errstate(divide="ignore"):
        logits = np.log(attack) - np.log(probabilities[:, BENIGN_ID].astype(np.float64))
    clipped: Floats = np.clip(logits, -LIMIT, LIMIT)
    return clipped


def benign_baseline(matrix: Floats32, benign: Mask) -> Floats:
    """Return the median of each scaled feature over benign rows; without benign rows 0, the train mean.

    Args:
        matrix: Shape (rows, n_features).
        benign: Shape (rows,).
    """
    if not benign.any():
        return np.zeros(matrix.shape[1])
    middle: Floats = np.median(matrix[benign].astype(np.float64), axis=0)
    return middle


def _fault(found: ValidationScores) -> str:
    """Return the fault of validation scores that were read; empty if there is none."""
    scores = (found.benign_tail[::-1], found.benign_quantiles, found.attack_quantiles)
    rows = (found.benign_rows, found.attack_rows)
    numbers = [x for part in (*scores, found.baseline) for x in part]
    if any(type(x) not in (int, float) or not math.isfinite(x) for x in numbers):
        return "one of its scores is not a finite number"
    if any(type(count) is not int or count < 0 for count in (*rows, *found.class_mix)):
        return "one of its counts is not a whole number of at least 0"
    lengths = [len(part) for part in scores]
    if lengths != [min(rows[0], _TAIL), *(len(tail_fit.LEVELS) * (n > 0) for n in rows)]:
        return f"{lengths} scores do not fit {rows[0]} benign and {rows[1]} attack rows"
    if any((np.diff(part) < 0).any() or max(map(abs, part), default=0.0) > LIMIT for part in scores):
        return f"its scores are out of order or beyond ±{LIMIT:g}"
    return ""


def _count(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"
