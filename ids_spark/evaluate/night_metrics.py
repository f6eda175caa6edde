"""Metrics that nights depend on: how much of each attack is flagged at a low rate of benign false alarms.

A flow is flagged if its attack logit reaches a threshold. At a rate r of false alarms it is the lowest threshold that
flags at most r of the benign rows that were scored; rows with equal scores are flagged together or not at all, and
there is no interpolation between thresholds. With fewer than 1 / r benign rows, no figure is stated. In a bootstrap
sample the threshold is found again, so that intervals include its own uncertainty.

- `recall_at_1e-2`, `recall_at_1e-3`, and further rates for a curve (`RATES`): recall of a class; without a class the
  mean over attack classes that occur. Recall is the share that is flagged, whatever attack is predicted.
- `rare_recall_at_1e-2`: mean of the recall of `RARE` at 1 %, at every level of the model.
- `area_to_1e-2`: mean of that macro recall over rates from 0 to 1 %, which is the area below its curve divided by 1 %:
  from 0 to 1, as the partial area under a ROC curve (McClish 1989, doi 10.1177/0272989X8900900307), with steps.
- `recall_at_night`, `benign_rate_at_night`: at the threshold from which the model's nights flag flows, which is from
  its validation rows and not from these rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ids_spark.base.arrays import Counts, Floats, Mask
from ids_spark.dataset.taxonomy import BENIGN_ID, CLASSES, Level, parents
from ids_spark.evaluate import bootstrap
from ids_spark.evaluate.metrics import ratio, row_of
from ids_spark.evaluate.score_counts import FINEST, LogitCells

_PARTS: Final = 100_000
_CURVE: Final = tuple(range(50, 1_001, 50))
_LARGEST: Final = _CURVE[-1]
_JOINED: Final = 40_000
_SPARE: Final = 8.0
"""Standard deviations of the rank of the 1 % threshold for which benign rows below it are kept apart for draws."""
RARE: Final = ("ARP_Spoofing", "MQTT-Malformed_Data", "Recon-Ping_Sweep", "Recon-VulScan")
"""The four attack classes with the fewest rows in the official test split."""
RARE_RECALL: Final = "rare_recall_at_1e-2"
AREA: Final = "area_to_1e-2"
AT_NIGHT: Final = "recall_at_night"
BENIGN_AT_NIGHT: Final = "benign_rate_at_night"


def name_at(rate: float) -> str:
    """Return the name of the recall at a rate of benign false alarms: `recall_at_1e-2` of 0.01."""
    mantissa, exponent = f"{rate:.2e}".split("e")
    return f"recall_at_{float(mantissa):g}e{int(exponent)}"


RATES: Final = {name_at(part / _PARTS): part / _PARTS for part in _CURVE}
"""Rates of benign false alarms by name of the recall there, ascending: 20 steps from 5e-4 to 1e-2."""
ONE_PERCENT: Final = name_at(1e-2)
ONE_PER_MILLE: Final = name_at(1e-3)
_OF_CLASSES: Final = (ONE_PER_MILLE, ONE_PERCENT)


def night_metrics(
    logits: LogitCells, flagged: Counts | None, levels: Sequence[Level], rng: np.random.Generator
) -> Iterator[tuple[Level, dict[str, Any]]]:
    """Yield a level and a row of `metrics/` for every figure.

    Args:
        logits: Of `ScoreCounts`.
        flagged: Of `ScoreCounts`.
        levels: At which classes are averaged.
        rng: Source of random numbers for the intervals.
    """
    support = np.array([logits.of_class(i)[1].sum() for i in range(FINEST)])
    if not support.sum():
        return
    if support[BENIGN_ID]:
        steps = _steps(logits)
        exact = _Flagged.of_steps(steps[:, np.newaxis, :])
        drawn = _Flagged.of_steps(_drawn_steps(_joined(steps), support, rng))
        for level in levels:
            yield from ((level, row) for row in _at_rates(exact, drawn, level))
            yield from ((level, row) for row in _of_rare(exact, drawn))
    if flagged is not None:
        draws = bootstrap.draws_of(flagged, rng)
        for level in levels:
            yield from ((level, row) for row in _at_night(flagged, draws, level))


def _steps(logits: LogitCells) -> Counts:
    """Return rows between the highest benign scores, which are the only places where a threshold changes anything.

    Returns:
        Shape (19, steps), by true class. Step 0: rows above every benign one. Step j: rows from the j-th highest benign
        score down to, and without, the next one. The last step: all others. The steps reach to the 1 % threshold, and
        beyond by what draws may need.
    """
    places, counts = (values[::-1] for values in logits.of_class(BENIGN_ID))
    allowed = counts.sum() * _LARGEST // _PARTS
    needed = allowed + _SPARE * np.sqrt(allowed + 1) + 20
    kept = int(np.searchsorted(counts.cumsum(), needed, side="left")) + 1
    edges = places[: kept + 1]  # the last one begins the last step
    rows = np.zeros((FINEST, len(edges) + 1), dtype=np.int64)
    for class_id in range(FINEST):
        own, found = logits.of_class(class_id)
        step = np.searchsorted(-edges, -own, side="right")
        rows[class_id] = np.bincount(step, found, minlength=rows.shape[1])
    return rows


def _joined(rows: Counts) -> Counts:
    """Join steps so that at most about 400 remain above the 1 % threshold: enough for an interval."""
    benign = rows[BENIGN_ID]
    size = max(1, int(benign.sum()) // _JOINED)
    group = np.where(np.arange(len(benign)) > 0, 1 + (benign.cumsum() - benign) // size, 0)
    group[-1] += 1  # the last step stays alone
    _, first = np.unique(group, return_index=True)
    joined: Counts = np.add.reduceat(rows, first, axis=1)
    return joined


def _drawn_steps(rows: Counts, support: Counts, rng: np.random.Generator) -> Iterator[Counts]:
    """Yield the draws of each class, shape (DRAWS, steps): rows by class first, then by step in each class."""
    for own, total in zip(rows, bootstrap.draws_of(support, rng).T, strict=True):
        yield bootstrap.draws_of(own, rng, rows=total)


@dataclass(frozen=True)
class _Flagged:
    """Rows of each class that are flagged at each rate; sums over classes are those of their category.

    Attributes:
        rows: Rows, shape (19, draws).
        at_rates: Flagged at each of `RATES`, shape (19, draws, rates).
        area: Mean number flagged over rates from 0 to 1 %, shape (19, draws).
        supported: Which of `RATES` allow at least one benign row, shape (draws, rates).
    """

    rows: Counts
    at_rates: Counts
    area: Floats
    supported: Any

    @classmethod
    def of_steps(cls, steps: Any) -> "_Flagged":
        """Count from rows by step of each class, shape (draws, steps), benign first."""
        rows, at_rates, area = [], [], []
        for class_id, own in enumerate(steps):
            flagged = own.cumsum(axis=1)
            if class_id == BENIGN_ID:
                total = flagged[:, -1]
                allowed = total[:, np.newaxis] * np.array(_CURVE) // _PARTS
                last = np.stack([(flagged <= most[:, np.newaxis]).sum(axis=1) - 1 for most in allowed.T], axis=1)
                # the share of rates at which just so many steps are flagged
                ends = np.minimum(ratio(flagged, np.broadcast_to(total[:, np.newaxis], flagged.shape)), 0.01)
                width = np.diff(ends, axis=1, append=0.01) / 0.01
            rows.append(flagged[:, -1])
            at_rates.append(np.take_along_axis(flagged, last, axis=1))
            area.append((flagged * width).sum(axis=1))
        return cls(np.array(rows), np.array(at_rates), np.array(area), allowed > 0)

    def recall_of(self, members: Mask) -> tuple[Floats, Floats]:
        """Return the recall of a group of classes at each rate, shape (draws, rates), and its area, shape (draws,)."""
        rows = self.rows[members].sum(axis=0)
        at_rates = self.at_rates[members].sum(axis=0)
        recall = ratio(at_rates, np.broadcast_to(rows[:, np.newaxis], at_rates.shape))
        return recall, ratio(self.area[members].sum(axis=0), rows)


def _at_rates(exact: _Flagged, drawn: _Flagged, level: Level) -> Iterator[dict[str, Any]]:
    of_classes, of_draws = {}, {}
    for class_id, name in _attacks(level):
        members = parents(FINEST, level) == class_id
        rows = exact.rows[members].sum()
        if not rows:
            continue
        (value, area), (draws, areas) = exact.recall_of(members), drawn.recall_of(members)
        of_classes[name], of_draws[name] = np.append(value[0], area), np.column_stack([draws, areas])
        for metric in _OF_CLASSES:
            i = list(RATES).index(metric)
            at = value[0, i] if exact.supported[0, i] else np.nan
            yield row_of(name, metric, at, int(rows), draws[:, i])
    attacks = int(exact.rows.sum() - exact.rows[BENIGN_ID].sum())
    if not attacks:
        return
    macro, macro_draws = _mean(list(of_classes.values())), _mean(list(of_draws.values()))
    supported = np.append(exact.supported[0], exact.supported[0, -1])
    for i, metric in enumerate((*RATES, AREA)):
        yield row_of(None, metric, macro[i] if supported[i] else np.nan, attacks, macro_draws[:, i])


def _of_rare(exact: _Flagged, drawn: _Flagged) -> Iterator[dict[str, Any]]:
    """Yield the mean recall of `RARE`; nothing where one of these classes has no row."""
    ids = [CLASSES[FINEST].index(name) for name in RARE]
    rows = exact.rows[ids, 0]
    if rows.all():
        members = [np.arange(FINEST) == class_id for class_id in ids]
        value, draws = (_mean([each.recall_of(own)[0][:, -1] for own in members]) for each in (exact, drawn))
        at = value[0] if exact.supported[0, -1] else np.nan
        yield row_of(None, RARE_RECALL, at, int(rows.sum()), draws)


def _at_night(flagged: Counts, draws: Counts, level: Level) -> Iterator[dict[str, Any]]:
    of_classes, of_draws = [], []
    for class_id, name in _attacks(level):
        members = parents(FINEST, level) == class_id
        rows = int(flagged[members].sum())
        if rows:
            of_classes.append(flagged[members, 1].sum() / rows)
            drawn = draws[:, members]
            of_draws.append(ratio(drawn[:, :, 1].sum(axis=1), drawn.sum(axis=(1, 2))))
            yield row_of(name, AT_NIGHT, of_classes[-1], rows, of_draws[-1])
    benign, attacks = int(flagged[BENIGN_ID].sum()), int(flagged.sum() - flagged[BENIGN_ID].sum())
    if attacks:
        yield row_of(None, AT_NIGHT, np.mean(of_classes), attacks, _mean(of_draws))
    if benign:
        rates = ratio(draws[:, BENIGN_ID, 1], draws[:, BENIGN_ID].sum(axis=1))
        yield row_of(None, BENIGN_AT_NIGHT, flagged[BENIGN_ID, 1] / benign, benign, rates)


def _attacks(level: Level) -> list[tuple[int, str]]:
    return list(enumerate(CLASSES[level]))[BENIGN_ID + 1 :]


def _mean(of_classes: Sequence[Floats]) -> Floats:
    """Return the mean over classes; a class without a row in a draw, NaN, is left out of it."""
    found = np.stack(of_classes)
    return ratio(np.nansum(found, axis=0), (~np.isnan(found)).sum(axis=0))
