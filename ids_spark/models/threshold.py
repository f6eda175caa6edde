"""Scores of a model's validation rows, and the thresholds that follow from them.

The score of a flow is its attack logit. A rate of false alarms corresponds to a quantile of the benign validation
scores. `RATES` are the levels of evidence; the first is the operating point, from which flows are flagged. `tail_fit`
finds quantiles between and beyond the rows; its docstring gives the measured errors.

Benign rows are those of the data set, or, if the feature table holds out flows of the site's own nights, these alone.
"""

import datetime as dt
import itertools
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ids_spark.base import json_text
from ids_spark.base.arrays import Floats, Floats32, Ids, Ints, Mask, largest_columns
from ids_spark.base.errors import InputError
from ids_spark.dataset.taxonomy import BENIGN_ID, CLASSES
from ids_spark.models import tail_fit

log = logging.getLogger(__name__)

RATES: Final = (1e-2, 2e-3, 8e-4)
"""Rates of false alarms among benign flows: the levels of evidence, the operating point first."""
LIMIT: Final = 80.0
"""Attack logits are clipped to plus and minus this: near it a float32 softmax reaches an exact 0."""
NO_BLOCK: Final = -1
"""Block of a validation row that was not held out as part of one."""
FEWEST_ROWS: Final = 10
"""Validation rows of a class from which a recall is stated."""
_FORMAT: Final = 2
_OLDER: Final = 1
"""Format of version 0.2: 2,000 benign scores without classes, attack scores without classes. Read until version 0.4."""
_LONGEST_REASON: Final = 300
_OLDER_TAIL: Final = 2_000
_FEWEST_BLOCK_ROWS: Final = 3
"""Rows of blocks expected at a rate from which the blocks are used for it, as for `smallest_rate`."""
_HELD_OUT_BY: Final = ("date", "rows")
_TAIL_SHARE: Final = 1.1 * RATES[0]  # more than the first level needs, for ties at it


class ValidationScoresUnusable(InputError):
    """Raised when a file of validation scores is not of this format, or a score is not a finite number."""


@dataclass(frozen=True)
class ClassRecall:
    """Share of the validation rows of an attack class that reach a threshold; None below `FEWEST_ROWS` rows."""

    class_name: str
    rows: int
    recall: float | None


@dataclass(frozen=True)
class Threshold:
    """The attack logit from which flows are flagged, the false alarms to expect, and the recall.

    Attributes:
        logit: Flows at or above it are flagged.
        probability: The attack probability of that logit.
        rate: Target rate of false alarms.
        benign_rows: Benign validation rows from which the threshold was computed.
        expected_rate: Point estimate of the rate, of all benign rows or of those in blocks, whichever is higher; None
            without a benign validation row.
        rate_at_most: Upper end of the exact 95 % interval of the rate (Clopper, Pearson 1934, doi
            10.1093/biomet/26.4.404), or of the interval from its scatter between held-out blocks if that is higher. The
            count of one night varies around its expectation as well.
        smallest_rate: 3 / benign_rows: the rate that is excluded with 95 % confidence when no row gave an alarm (rule
            of three: Hanley, Lippman-Hand 1983, doi 10.1001/jama.1983.03330370053031).
        supported: Whether `rate` is at least `smallest_rate`.
        recalls: Of each attack class; empty if the scores of classes are not stored.
        block_rates: Share of the rows at or above `logit` in each held-out block of benign rows; may be empty.
        local: Where the benign rows are from, if from the site's own nights.
    """

    logit: float
    probability: float
    rate: float
    benign_rows: int
    expected_rate: float | None
    rate_at_most: float
    smallest_rate: float
    supported: bool
    recalls: tuple[ClassRecall, ...]
    block_rates: tuple[float, ...]
    local: "LocalOrigin | None" = None

    @property
    def macro_recall(self) -> float | None:
        """Mean recall of the attack classes whose recall is known; None if there is none."""
        known = [each.recall for each in self.recalls if each.recall is not None]
        return float(np.mean(known)) if known else None

    def statement(self) -> str:
        """Return a text on what is flagged, the false alarms to expect, and the recall, for the audit and the page."""
        p = "above 0.9999" if self.probability > 0.9999 else f"of {self.probability:.4g}"
        sentences = [f"Flagged are flows with log-odds of attack of at least {self.logit:.2f}, a probability {p}."]
        if self.benign_rows:
            sentences.append(self._on_origin())
        if self.expected_rate is None:
            sentences.append("There is no benign validation row: any share of the benign flows may be flagged.")
        elif self.supported:
            sentences.append(
                f"Of benign flows, about {self.expected_rate:.2%} are flagged, at most {self.rate_at_most:.2%} (95 %"
                " interval)."
            )
        else:
            sentences.append(
                f"Of benign flows, fewer than {self.rate_at_most:.2%} are flagged (95 % interval):"
                f" {self.benign_rows:,} benign validation rows support no rate below {self.smallest_rate:.2g} (rule of"
                " three)."
            )
        if self.block_rates and self.local is None:
            sentences.append(
                f"In blocks of benign rows that were kept out of training as a whole ({len(self.block_rates)}):"
                f" {min(self.block_rates):.2%} to {max(self.block_rates):.2%}."
            )
        return " ".join((*sentences, *self._on_recall()))

    def _on_origin(self) -> str:
        if self.local is None:
            return "The threshold is the laboratory's: no flow of this site was held out for it."
        blocks = f", in {len(self.block_rates):,} blocks (a device in an hour)" if self.block_rates else ""
        return f"The threshold rests on {self.benign_rows:,} local benign flows{self.local.of_dates}{blocks}."

    def _on_recall(self) -> list[str]:
        known = sorted((each.recall, each.class_name) for each in self.recalls if each.recall is not None)
        if not known:
            return ["Recall: cannot tell, the model has too few attack validation rows or was stored without."]
        text = f"Recall, mean over {len(known)} of {len(self.recalls)} attack classes: {self.macro_recall:.1%}"
        if len(known) > 1:
            text += "; lowest: " + ", ".join(f"{name} {recall:.0%}" for recall, name in known[:3])
        unknown = [each.class_name for each in self.recalls if each.recall is None]
        few = f" Cannot tell, fewer than {FEWEST_ROWS} validation rows: {', '.join(unknown)}." if unknown else ""
        return [f"{text}.{few}"]


@dataclass(frozen=True)
class ClassScores:
    """Scores of the validation rows of one attack class.

    Attributes:
        class_id: At the model's level.
        rows: At least 1.
        scores: Attack logits, ascending: all of them, or quantiles at equal steps if there are more than 201.
    """

    class_id: int
    rows: int
    scores: tuple[float, ...]


@dataclass(frozen=True)
class LocalOrigin:
    """Where benign validation rows of the site's own nights are from.

    Attributes:
        dates: Held-out dates as `YYYY-MM-DD`, ascending; may be empty.
        held_out_by: What was held out: whole dates (`date`), or the last rows of each source file (`rows`).
    """

    dates: tuple[str, ...]
    held_out_by: str

    @property
    def of_dates(self) -> str:
        """The dates, for a sentence; empty without one."""
        first, last = (self.dates[0], self.dates[-1]) if self.dates else ("", "")
        return f" of {first}" * (first != "") + f" to {last}" * (last != first)


@dataclass(frozen=True)
class BlockScores:
    """Scores of a block of benign rows that was held out as a whole.

    Of the data set, it is a run of rows in a source file; of the site's own nights, a device or source file in an hour.

    Attributes:
        rows: At least 1.
        highest: Its attack logits among the highest of all blocks, descending; may be empty.
        classes: Most probable attack class of each of these rows, by id. Empty for blocks of the data set.
        unknown: Its rows below the operating point that reach each level of the second detector. Empty without a
            detector, and for blocks of the data set.
    """

    rows: int
    highest: tuple[float, ...]
    classes: tuple[int, ...] = ()
    unknown: tuple[int, ...] = ()


@dataclass(frozen=True)
class ValidationScores:
    """Scores of a model's validation rows, as stored with the model.

    Attributes:
        benign_rows: Benign validation rows.
        attack_rows: Attack validation rows.
        benign_tail: The highest attack logits of benign rows, descending: 2,000 or 1.1 % of them, whichever is more, or
            all if there are fewer. Of format 1: 2,000.
        benign_tail_classes: Most probable attack class of each of these rows, by id; empty for format 1.
        benign_quantiles: Quantiles of all attack logits of benign rows at the levels 0, 0.002, … 1; empty without a
            row.
        attack_classes: Scores of attack rows, by class; empty for format 1.
        blocks: Those of the benign rows that were held out as blocks, 2,000 or 1.1 % of their scores as above; may be
            empty.
        class_mix: Benign validation rows (without any: all) predicted as each class of the model's level, by id.
        baseline: Median benign flow, the reference of attributions: scaled features in input order.
        local: Where the benign rows are from, if from the site's own nights; None: from the data set.
    """

    benign_rows: int
    attack_rows: int
    benign_tail: tuple[float, ...]
    benign_tail_classes: tuple[int, ...]
    benign_quantiles: tuple[float, ...]
    attack_classes: tuple[ClassScores, ...]
    blocks: tuple[BlockScores, ...]
    class_mix: tuple[int, ...]
    baseline: tuple[float, ...]
    local: LocalOrigin | None = None

    @property
    def classes_known(self) -> bool:
        """Whether the attack classes of benign rows are stored: not in format 1."""
        return len(self.benign_tail_classes) == len(self.benign_tail)

    @property
    def _blocked_rows(self) -> int:
        return sum(block.rows for block in self.blocks)

    def levels(self) -> tuple[float, float, float]:
        """Return the attack logit of each of `RATES`, not decreasing; without a benign row 0, a probability of 0.5.

        It is the higher one of all benign rows and of those in blocks, if these have at least 3 rows at that rate. A
        level of less than one benign validation row is at least 0.
        """
        first, second, third = np.maximum.accumulate([self._logit_of(rate)[0] for rate in RATES]).tolist()
        return first, second, third

    def benign_counts(self, thresholds: Sequence[float]) -> Ints:
        """Return how many benign validation rows reach each threshold, by their most probable attack class.

        Counts are exact for thresholds of at least `levels`. Below the stored tail they are estimated from the
        quantiles, with the classes of the tail.

        Returns:
            Shape (classes of the model's level, thresholds); row 0, benign, is 0. If the classes are not known
            (`classes_known`): shape (1, thresholds), the rows of all classes together.
        """
        tail, limits = np.array(self.benign_tail), np.asarray(thresholds, dtype=np.float64)
        classes = len(self.class_mix) if self.classes_known else 1
        ids = np.array(self.benign_tail_classes if self.classes_known else (0,) * len(tail), dtype=np.int64)
        counts = np.zeros((classes, len(limits)), dtype=np.int64)
        for i, limit in enumerate(limits):
            reaching = self._reaching(limit)
            counts[:, i] = np.bincount(ids[: math.floor(reaching)], minlength=classes)
            if reaching > len(tail):
                counts[:, i] = np.rint(counts[:, i] * (reaching / len(tail)))
        return counts

    def block_counts(self, thresholds: Sequence[float]) -> Ints:
        """Return how many rows of each block reach each threshold of at least `levels`, by most probable attack class.

        Returns:
            Shape (blocks, classes of the model's level, thresholds). No blocks for those of the data set.
        """
        blocks = self.blocks if self.local is not None else ()
        counts = np.zeros((len(blocks), len(self.class_mix), len(thresholds)), dtype=np.int64)
        for found, block in zip(counts, blocks, strict=True):
            reaching = np.array(block.highest)[:, np.newaxis] >= np.asarray(thresholds)
            np.add.at(found, np.array(block.classes, dtype=np.int64), reaching)
        return counts

    def with_unknown(self, block_ids: Ids, reaching: Mask) -> "ValidationScores":
        """Return the same with the counts of the second detector for each block.

        Args:
            block_ids: Of the benign rows, as for `validation_scores_of`.
            reaching: Which of them reach each level of the detector, shape (rows, levels).
        """
        inside = block_ids != NO_BLOCK
        ids, block = np.unique(block_ids[inside], return_inverse=True)
        counts = np.zeros((len(ids), reaching.shape[1]), dtype=np.int64)
        np.add.at(counts, block, reaching[inside])
        pairs = zip(self.blocks, counts.tolist(), strict=True)
        return replace(self, blocks=tuple(replace(block, unknown=tuple(found)) for block, found in pairs))

    def recalls(self, logit: float) -> tuple[ClassRecall, ...]:
        """Return the recall of every attack class of the model's level at a threshold; empty for format 1.

        It is exact for up to 201 validation rows of a class, else to half a percent.
        """
        if self.attack_rows and not self.attack_classes:
            return ()
        found = {each.class_id: each for each in self.attack_classes}
        recalls = []
        for class_id, name in enumerate(CLASSES[len(self.class_mix)]):  # type: ignore[index]
            scores = found.get(class_id, ClassScores(class_id, 0, ()))
            known = scores.rows >= FEWEST_ROWS
            recall = tail_fit.share_of_class(scores.scores, scores.rows, logit) if known else None
            recalls.append(ClassRecall(name, scores.rows, recall))
        return tuple(recalls[BENIGN_ID + 1 :])

    def operating_point(self) -> Threshold:
        """Return the threshold from which flows are flagged, whatever the night: the level of the first of `RATES`."""
        return self.at_rate(RATES[0])

    def at_rate(self, rate: float) -> Threshold:
        """Return the threshold for a rate of false alarms, from 0 to the first of `RATES`.

        If the rate is below one benign validation row, no flow that the model predicts as benign is flagged; without
        any such row the threshold is a probability of 0.5.

        Raises:
            ValueError: when it is another number.
        """
        if not 0 <= rate <= RATES[0]:
            raise ValueError(f"found a rate of {rate}; expected at least 0 and at most {RATES[0]}")
        n, (logit, rows) = self.benign_rows, self._logit_of(rate)
        expected, at_most = (rows / n, tail_fit.upper_rate(math.ceil(rows), n)) if n else (None, 1.0)
        found = [sum(score >= logit for score in block.highest) for block in self.blocks]
        sizes = [block.rows for block in self.blocks]
        if expected is not None and self._blocked_rows * rate >= _FEWEST_BLOCK_ROWS:
            expected = max(expected, sum(found) / self._blocked_rows)
        if len(sizes) > 1:
            at_most = max(at_most, tail_fit.upper_rate_of_blocks(found, sizes))
        block_rates = tuple(k / size for k, size in zip(found, sizes, strict=True))
        smallest = min(1.0, 3 / n) if n else 1.0
        p = 1 / (1 + math.exp(-logit))
        supported = n > 0 and rate >= smallest
        recalls = self.recalls(logit)
        return Threshold(logit, p, rate, n, expected, at_most, smallest, supported, recalls, block_rates, self.local)

    def _logit_of(self, rate: float) -> tuple[float, float]:
        """Return the threshold for a rate of false alarms, and how many benign rows are expected to reach it."""
        n, highest, wanted = self.benign_rows, np.array(self.benign_tail), max(rate * self.benign_rows, 1.0)
        if not n:
            return 0.0, 0.0
        if wanted >= len(highest) and n > len(highest):
            logit, rows = tail_fit.score_at_share(wanted / n, self.benign_quantiles, highest, n), wanted
        else:
            logit, rows = _score_reached_by(highest, n, wanted)
        blocked = self._blocked_rows
        if blocked * rate >= _FEWEST_BLOCK_ROWS:
            scores = np.sort(np.concatenate([block.highest for block in self.blocks]))[::-1]
            of_blocks, _ = _score_reached_by(scores, blocked, blocked * rate)
            if of_blocks > logit:
                logit, rows = of_blocks, 0.0
        lowest = 0.0 if rate * n < 1 else -LIMIT  # so that few rows do not flag flows predicted as benign
        logit = min(max(logit, lowest), LIMIT)  # saturated scores can only be flagged together
        return logit, max(rows, self._reaching(logit))

    def _reaching(self, logit: float) -> float:
        """Return how many benign rows reach a threshold; estimated below the stored tail."""
        n, highest = self.benign_rows, np.array(self.benign_tail)
        reaching = float(np.searchsorted(-highest, -logit, side="right"))
        if reaching == len(highest) < n:
            share = tail_fit.share_reaching(logit, self.benign_quantiles, highest, n)
            reaching = max(reaching, n * share)
        return reaching

    def to_json(self) -> str:
        """Return the validation scores as JSON."""
        content = asdict(self)
        if self.local is None:  # as versions before local nights wrote it
            del content["local"]
            content["blocks"] = [{"rows": block.rows, "highest": block.highest} for block in self.blocks]
        return json.dumps({"format": _FORMAT, **content}, allow_nan=False) + "\n"


def from_json(text: str, where: str) -> ValidationScores:
    """Return the validation scores that `to_json` wrote.

    Raises:
        ValidationScoresUnusable: when it is not JSON, of another format, or its numbers contradict each other.
    """
    try:
        content: Any = json_text.loads(text)
        found_format = content.pop("format")
        if found_format not in (_FORMAT, _OLDER) or type(found_format) is not int:
            raise ValidationScoresUnusable(
                f"{where}: format {str(found_format)[:80]}; expected {_FORMAT}, or {_OLDER} of version 0.2; retrain"
                " with this version"
            )
        if found_format == _OLDER:
            log.warning(
                "%s was written by version 0.2: false alarms and recall of each class are not known until the model is"
                " retrained; version 0.4 will no longer read it",
                where,
            )
            del content["attack_quantiles"]
            content |= {"benign_tail_classes": [], "attack_classes": []}
        blocks = tuple(BlockScores(**_with_tuples(each)) for each in content.pop("blocks", []))
        local = content.pop("local", None)
        attack_classes = tuple(
            ClassScores(**{**each, "scores": tuple(each["scores"])}) for each in content.pop("attack_classes")
        )
        origin = LocalOrigin(**_with_tuples(local)) if local is not None else None
        found = ValidationScores(**_with_tuples(content), attack_classes=attack_classes, blocks=blocks, local=origin)
        fault = _fault(found, found_format == _OLDER)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        reason = " ".join(repr(error).split())[:_LONGEST_REASON]
        raise ValidationScoresUnusable(
            f"{where} does not hold validation scores ({reason}); restore the directory or retrain"
        ) from error
    if fault:
        raise ValidationScoresUnusable(f"{where}: {fault}; restore the directory or retrain")
    return found


def _with_tuples(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object of JSON with tuples for its lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}


def validation_scores_of(
    logits: Floats,
    labels: Ids,
    attack_ids: Ids,
    predicted_counts: NDArray[np.int64],
    baseline: Floats,
    block_ids: Ids | None = None,
    local: LocalOrigin | None = None,
) -> ValidationScores:
    """Summarise the scores of validation rows.

    Args:
        logits: Shape (rows,), from `attack_logits`.
        labels: Shape (rows,): class of each row at the model's level.
        attack_ids: Shape (rows,), from `most_probable_attacks`.
        predicted_counts: Shape (classes,): rows predicted as each class; becomes `class_mix`.
        baseline: Shape (n_features,), from `benign_baseline`.
        block_ids: Shape (rows,): the held-out block of each row, `NO_BLOCK` for none; default: no row is in one.
        local: Where the benign rows are from, if all are of the site's own nights.

    Raises:
        ValidationScoresUnusable: when a score or the baseline is not a finite number.
    """
    if not (np.isfinite(logits).all() and np.isfinite(baseline).all()):
        raise ValidationScoresUnusable(
            f"{int((~np.isfinite(logits)).sum()):,} of {len(logits):,} validation rows have no finite attack score,"
            f" {int((~np.isfinite(baseline)).sum())} of {len(baseline)} features no finite baseline; expected none:"
            " training diverged; set train.learning_rate lower"
        )
    benign = labels == BENIGN_ID
    scores, ids = logits[benign], attack_ids[benign]
    highest = np.argsort(-scores, kind="stable")[: _tail_rows(len(scores))]
    classes = [(int(class_id), logits[labels == class_id]) for class_id in np.unique(labels[~benign])]
    return ValidationScores(
        benign_rows=len(scores),
        attack_rows=len(logits) - len(scores),
        benign_tail=tuple(scores[highest].tolist()),
        benign_tail_classes=tuple(ids[highest].tolist()),
        benign_quantiles=tail_fit.quantiles(scores),
        attack_classes=tuple(ClassScores(i, len(own), tail_fit.scores_of_class(own)) for i, own in classes),
        blocks=_blocks_of(scores, ids if local is not None else None, block_ids[benign])
        if block_ids is not None
        else (),
        class_mix=tuple(predicted_counts.tolist()),
        baseline=tuple(baseline.tolist()),
        local=local,
    )


def most_probable_attacks(probabilities: Floats32) -> Ids:
    """Return the most probable attack class of each row, shape (rows,); benign may be more probable than it.

    Args:
        probabilities: Shape (rows, classes), benign first.
    """
    ids: Ids = largest_columns(probabilities[:, BENIGN_ID + 1 :]) + np.int32(BENIGN_ID + 1)
    return ids


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


def _blocks_of(scores: Floats, attack_ids: Ids | None, block_ids: Ids) -> tuple[BlockScores, ...]:
    inside = np.flatnonzero(block_ids != NO_BLOCK)
    ids, counts = np.unique(block_ids[inside], return_counts=True)
    highest = inside[np.argsort(-scores[inside], kind="stable")[: _tail_rows(len(inside))]]
    blocks, of_highest = [], block_ids[highest]
    for i, rows in zip(ids, counts, strict=True):
        own = highest[of_highest == i]
        classes = () if attack_ids is None else tuple(attack_ids[own].tolist())
        blocks.append(BlockScores(int(rows), tuple(scores[own].tolist()), classes))
    return tuple(blocks)


def _score_reached_by(highest: Floats, rows: int, wanted: float) -> tuple[float, float]:
    """Return a score as `tail_fit.score_reached_by`, above ties that go on beyond the highest scores."""
    logit, reaching = tail_fit.score_reached_by(highest, rows, wanted)
    if rows > len(highest) and logit <= highest[-1]:
        return tail_fit.above(float(highest[-1])), 0.0
    return logit, reaching


def _tail_rows(benign_rows: int) -> int:
    """Return how many of the highest benign scores are stored."""
    return min(benign_rows, max(_OLDER_TAIL, math.ceil(_TAIL_SHARE * benign_rows)))


def _fault(found: ValidationScores, older: bool) -> str:
    """Return the fault of validation scores that were read; empty if there is none."""
    rows, per_class, blocks = (found.benign_rows, found.attack_rows), found.attack_classes, found.blocks
    scores = (found.benign_tail[::-1], found.benign_quantiles, *(each.scores for each in per_class))
    scores += tuple(block.highest[::-1] for block in blocks)
    numbers = [x for part in (*scores, found.baseline) for x in part]
    if any(type(x) not in (int, float) or not math.isfinite(x) for x in numbers):
        return "one of its scores is not a finite number"
    ids = (*found.benign_tail_classes, *(each.class_id for each in per_class))
    ids += tuple(i for block in blocks for i in block.classes)
    counts = (*rows, *found.class_mix, *(each.rows for each in per_class), *(block.rows for block in blocks))
    if any(type(count) is not int or count < 0 for count in (*counts, *ids)):
        return "one of its counts is not a whole number of at least 0"
    if len(found.class_mix) not in CLASSES:
        return f"it counts {len(found.class_mix)} classes; expected one of {', '.join(map(str, CLASSES))}"
    lengths = [len(part) for part in scores[: 2 + len(per_class)]]
    tail = min(rows[0], _OLDER_TAIL) if older else _tail_rows(rows[0])
    expected = [tail, len(tail_fit.LEVELS) * (rows[0] > 0)]
    if lengths != [*expected, *(min(each.rows, tail_fit.CLASS_SCORES) for each in per_class)]:
        return f"{lengths} scores do not fit {rows[0]} benign and {rows[1]} attack rows"
    if not older and sum(each.rows for each in per_class) != rows[1]:
        return f"the rows of its attack classes do not add up to {rows[1]}"
    blocked = found._blocked_rows
    if blocked > rows[0] or sum(len(block.highest) for block in blocks) != _tail_rows(blocked):
        return f"the scores of its {len(blocks)} blocks do not fit {blocked} rows of {rows[0]} benign ones"
    if any(block.rows < max(1, len(block.highest)) for block in blocks):
        return "one of its blocks has more scores than rows"
    if len(found.benign_tail_classes) != (0 if older else tail):
        return f"{len(found.benign_tail_classes)} classes do not fit {tail} scores"
    if fault := _fault_of_local(found):
        return fault
    distinct = {each.class_id for each in per_class}
    if not all(BENIGN_ID < i < len(found.class_mix) for i in ids) or len(distinct) != len(per_class):
        return "one of its attack classes is none of the model's, or is listed twice"
    if any((np.diff(part) < 0).any() or max(map(abs, part), default=0.0) > LIMIT for part in scores):
        return f"its scores are out of order or beyond ±{LIMIT:g}"
    return ""


def _fault_of_local(found: ValidationScores) -> str:
    """Return what is wrong with what is stored of the site's own nights; empty if nothing."""
    local, blocks = found.local, found.blocks
    if local is None:
        return "a block of the data set has classes" if any(block.classes or block.unknown for block in blocks) else ""
    dates = local.dates
    if local.held_out_by not in _HELD_OUT_BY or list(dates) != sorted(set(dates)) or not all(map(_is_date, dates)):
        return "the dates or kind of its local rows are unknown or out of order"
    if any(len(block.classes) != len(block.highest) for block in blocks):
        return "the classes of one of its blocks do not fit the scores"
    if any(type(count) is not int for block in blocks for count in block.unknown):
        return "a count of the second detector is not a whole number"
    for block in blocks:
        reached = (block.rows, *block.unknown, 0)
        if len(block.unknown) not in (0, len(RATES)) or any(a < b for a, b in itertools.pairwise(reached)):
            return f"the counts {block.unknown} of the second detector do not fit {block.rows} rows of a block"
    return ""


def _is_date(text: str) -> bool:
    return dt.date.fromisoformat(text).isoformat() == text
