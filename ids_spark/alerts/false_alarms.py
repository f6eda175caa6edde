"""Which cells of a night hold more flagged flows than false alarms explain, at a budget of false incidents.

A cell is an entity, a window of time and a category. For each level of evidence, the number K of its flagged flows is
compared with what false alarms give. Benign flows of category g reach level l at the rate λ, estimated from the benign
validation rows and from tonight's cells without an alert. An entity's own rate is λ times a factor with a gamma prior
(mean 1, shape κ, fitted by maximum likelihood to all entities) that its earlier nights and its other windows of tonight
inform. So K is negative binomial (gamma-Poisson), and P(K ≥ k) is a regularised incomplete beta function. Held-out
flows of the site's own nights come in blocks, a device in an hour. The gamma shape of K is at most the one fitted to
their counts: the false alarms of a device are not spread evenly over its hours.

What an entity shows in most windows of a night is taken for how it is, and explains itself. Not so the flows of a
source that is found itself, and not what an entity shows that showed far less in earlier nights.

The p-value of a cell is the smallest of its levels times their
number (Bonferroni). That of the second detector, which knows no attack, is multiplied by `_UNKNOWN_WEIGHT`, so that it
takes a small part of the budget.

The budget N is the expected number of alerts in a night without attacks. The largest α is used with
Σ P(K ≥ k*(α)) ≤ N over all cells and levels, where k*(α) is the smallest count that is significant at α: most cells
cannot attain α, because counts are whole numbers (Tarone 1990, doi 10.2307/2531456). The sum bounds the expectation
under any dependence between cells; joining alerts to incidents only lowers it. α is never above 1e-4 for
each expected false incident, nor above `HIGHEST_ALPHA`, so that a small night does not use up its budget: on nights of
36 devices, N = 1 then gives 0.13 false lines instead of 0.48, and finds as many attacks. Where several runs share the
budget of a date (`looks`), the sum is over the cells that this run tests, and N what it may spend.

Pure functions on numpy arrays. G categories, L levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from scipy import special

from ids_spark.alerts import evidence as counted
from ids_spark.alerts.night_cells import FEW_NIGHTS, Decided, NightCells, OwnCounts
from ids_spark.base.arrays import Floats, Ints, Mask
from ids_spark.dataset.tables import HISTORY
from ids_spark.dataset.taxonomy import UNKNOWN

HIGHEST_ALPHA: Final = 1e-3
_ALPHA_OF_ONE: Final = 1e-4  # highest α for each expected false incident
_UNKNOWN_WEIGHT: Final = 10.0  # factor of the p-values of the second detector, whose share of the budget is so small
_LEFT_OUT: Final = 1e-4  # cells with a smaller p-value do not count for tonight's rates
_LASTING: Final = 0.5  # of the windows of a night, in which an entity is found
_FEWEST_WINDOWS: Final = 6  # with fewer, nothing is said to last
_FAR_MORE: Final = 3.0  # times the flagged flows that earlier nights explain, from which an entity has changed
_ROUNDS: Final = 3  # of estimating tonight's rates
_AGREE: Final = 0.01  # stored and tonight's counts are pooled unless one of the tails is below this
_KNOWN_FLOWS: Final = 100  # of an entity in a night, from which its own rate is used
_LOWEST_FACTOR: Final = 0.5  # of an entity's own rate, so that few flagged flows of a quiet entity are no evidence
_SHAPES: Final = np.geomspace(1_000.0, 0.1, 41)  # candidates for κ, the largest first: it is taken at equal likelihood
_ALPHAS: Final = np.geomspace(1e-12, HIGHEST_ALPHA, 181)  # candidates for α, 5 % apart
_GRID: Final = 0.05  # cells whose expectations differ by less are counted together, with the larger one
_BLOCK: Final = 1 << 16  # places at once, so that memory does not grow with their number
_FEW: Final = 32  # flows of a cell, from which their number does not limit K
_OFFSET: Final = 1_000  # of rounded logarithms, so that they are positive
_SMALLEST_MEAN: Final = 1e-12
_SMALLEST: Final = 1e-300  # p-values below are not distinguished


@dataclass(frozen=True)
class StoredCounts:
    """Benign validation rows that reached each level.

    Attributes:
        categories: Names, G.
        counts: Rows of each category at or above each level; shape (G, L).
        rows: Benign validation rows on which each category was counted; shape (G,). 0: nothing is known.
        blocks: The same counts of each device in each hour of the site's held-out nights, shape (B, G, L), and its
            rows, shape (B,); None without such nights.
    """

    categories: tuple[str, ...]
    counts: Ints
    rows: Ints
    blocks: tuple[Ints, Ints] | None = None


@dataclass(frozen=True)
class Tested:
    """Result for all cells with a flagged flow.

    Attributes:
        p: p-value of each cell; shape (cells,).
        level: Index of the level that gave the p-value.
        expected: Flagged flows that false alarms explain, at each level; shape (cells, L).
        alpha: Highest p-value of an alert.
        expected_false: Expected number of false alerts at this α.
        tested: Number of cells tested, also those without a flagged flow.
        stored, tonight, used: Rates of false alarms; shape (G, L). NaN where unknown.
        own: Earlier nights of each entity.
        history: What tonight adds to the history, as `tables.HISTORY`.
        limits: Highest p-value at which each cell becomes an alert; 0 if it is not tested; shape (cells,).
        decided: What earlier runs at the date say of the cells.
    """

    p: Floats
    level: Ints
    expected: Floats
    alpha: float
    expected_false: float
    tested: int
    stored: Floats
    tonight: Floats
    used: Floats
    own: OwnCounts
    history: pa.Table
    limits: Floats
    decided: Decided

    @property
    def alerts(self) -> Mask:
        """Which cells are alerts, shape (cells,): of those that this run tests, and those that were alerts before."""
        found: Mask = (self.p <= self.limits) | (self.decided.incident >= 0)
        return found


def compare(
    cells: NightCells,
    stored: StoredCounts,
    budget: float,
    own: OwnCounts,
    lasting: bool = True,
    decided: Decided | None = None,
    allowed: float | None = None,
    again: bool = False,
    settled: OwnCounts | None = None,
) -> Tested:
    """Compare the counts of all cells with false alarms, and choose α.

    Args:
        cells: Of the night.
        stored: Benign validation rows.
        budget: N, expected number of false alerts.
        own: Earlier nights of each entity.
        lasting: Whether what an entity shows in most windows of the night is how it is, and so no evidence.
        decided: What earlier runs at the date say; default: nothing, and all cells are tested.
        allowed: Expected number of false alerts of this run; default: `budget`.
        again: Whether cells that were tested before are tested once more, with what the others leave.
        settled: Earlier nights of each entity that the same model scored; default: none. Another model has other false
            alarms, so that its nights do not say that an entity has changed.
    """
    decided = decided or Decided.nothing(cells)
    left_out = np.zeros(len(cells.place), dtype=np.bool_)
    for i in range(_ROUNDS + 1):
        # At first without tonight: a night that is one attack would explain itself, as would one of several hours.
        null = _null(cells, stored, own, left_out, tonight=i > 0)
        p, level, expected = _p_values(cells, null)
        found = p <= _LEFT_OUT
        if lasting:
            found &= ~_lasting(cells, stored, found, settled)
        if i and (found == left_out).all():
            break
        left_out = found
    allowed = budget if allowed is None else allowed
    alpha, expected_false = _budgeted(cells, null, budget, allowed, decided.fresh)
    limits = np.where(decided.fresh[cells.place], alpha, 0.0)
    if again:
        second, more = _budgeted(cells, null, budget, allowed - expected_false, ~decided.fresh)
        limits, expected_false = np.where(decided.fresh[cells.place], alpha, second), expected_false + more
    history = _history(cells, stored.categories, null, p <= max(alpha, _LEFT_OUT))
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = stored.counts / stored.rows[:, None]
        tonight = null.tonight[0] / null.tonight[1][:, None]
    return Tested(
        p,
        level,
        expected,
        alpha,
        expected_false,
        len(cells.flows) * len(stored.categories),
        rates,
        tonight,
        null.rates,
        own,
        history,
        limits,
        decided,
    )


def _lasting(cells: NightCells, stored: StoredCounts, found: Mask, settled: OwnCounts | None) -> Mask:
    """Return which cells are of an entity and category found in at least half of the night's windows.

    That is how the entity is, if fewer than half of its flows in these windows are flagged: else it is an attack. Cells
    of devices do not count if a source that is found, and is not so itself, sent most of their flagged flows.
    """
    lasting = _in_most_windows(cells, stored, found)
    sent = _of_sources(cells, found & ~lasting)[:, 0]
    lasting = _in_most_windows(cells, stored, found & (2 * sent < cells.flagged[:, 0]))
    if settled is not None and lasting.any():
        lasting &= ~_changed(cells, stored, settled)[cells.entity[cells.place], cells.category]
    return lasting


def _of_sources(cells: NightCells, left_out: Mask) -> Ints:
    """Return the flagged flows of each cell of a device that cells of sources `left_out` sent; shape (cells, L)."""
    rows = np.flatnonzero((cells.device_cell >= 0) & (cells.source_cell >= 0))
    rows = rows[left_out[cells.source_cell[rows]]]
    found = np.zeros_like(cells.flagged)
    np.add.at(found, cells.device_cell[rows], cells.row_flagged[rows])
    return found


def _kept(cells: NightCells, left_out: Mask) -> tuple[Ints, Ints]:
    """Return what each cell says of false alarms: flagged flows, shape (cells, L), and all flows, shape (cells,).

    Nothing if it is left out. The flows that sources which are left out sent to a device are those of an attack too,
    also where the device has too few of them to be left out itself.
    """
    sent = _of_sources(cells, left_out)
    flagged = np.where(left_out[:, np.newaxis], 0, cells.flagged - sent)
    return flagged, np.where(left_out, 0, cells.flows[cells.place] - sent[:, 0])


def _in_most_windows(cells: NightCells, stored: StoredCounts, found: Mask) -> Mask:
    """Return which of the cells found are in at least half of the windows, with fewer than half of the flows there."""
    groups = len(stored.categories)
    of = cells.entity[cells.place] * groups + cells.category
    n = len(cells.keys) * groups
    windows = np.bincount(of[found], minlength=n)
    flagged = np.bincount(of[found], cells.flagged[found, 0], minlength=n)
    flows = np.bincount(of[found], cells.flows[cells.place[found]], minlength=n)
    enough = max(_LASTING * len(np.unique(cells.window)), _FEWEST_WINDOWS)
    lasting: Mask = found & ((windows >= enough) & (2 * flagged < flows))[of]
    return lasting


def _changed(cells: NightCells, stored: StoredCounts, settled: OwnCounts) -> Mask:
    """Return which entities have far more flagged flows of a category tonight than their earlier nights explain.

    That is their own rate of these nights, times the rate of validation or of tonight's other entities, whichever is
    higher: what all of them show is the site. Entities with fewer than `FEW_NIGHTS` nights have not changed.

    Returns:
        Shape (entities, G).
    """
    flagged, sent = np.zeros((len(cells.keys), *stored.counts.shape)), cells.sent
    np.add.at(flagged, (cells.entity[cells.place], cells.category), cells.flagged)
    changed = np.zeros(flagged.shape[:2], dtype=np.bool_)
    at = np.flatnonzero(settled.index >= 0)
    at = at[settled.nights[settled.index[at]] >= FEW_NIGHTS]
    if not len(at):
        return changed
    side = cells.is_source.astype(np.int64)
    of_side = np.stack([flagged[side == i].sum(axis=0) for i in range(2)])
    others = (of_side[side[at]] - flagged[at], np.bincount(side, sent, minlength=2)[side[at]] - sent[at])
    known = (stored.counts[np.newaxis], stored.rows[np.newaxis, :])
    counts, rates = _higher_rates(known, (others[0], others[1][:, np.newaxis]))
    shapes = _best(np.stack([_likelihood(settled.flagged, settled.expected, shape) for shape in _SHAPES]))
    own = shapes + settled.flagged[settled.index[at]]
    factor = np.maximum(own / (shapes + settled.expected[settled.index[at]]), _LOWEST_FACTOR)
    mean = sent[at][:, np.newaxis, np.newaxis] * rates * factor
    far = (flagged[at] > _FAR_MORE * mean) & (reached(flagged[at], 1 / (1 / own + 1 / counts), mean) <= _LEFT_OUT)
    changed[at] = far.any(axis=2)
    return changed


def _higher_rates(one: tuple[Any, Any], other: tuple[Any, Any]) -> tuple[Floats, Floats]:
    """Return counts plus 1/2, and rates, of the higher of two rates; those of no flows are unknown.

    Args:
        one, other: Counts, shape (…, G, L), and the flows they are of, shape (…, G).
    """
    parts = [(counts + 0.5, np.where(flows > 0, flows, np.inf)[..., np.newaxis]) for counts, flows in (one, other)]
    (a, n), (b, m) = parts
    higher = a / n >= b / m
    counts, rates = np.where(higher, a, b), np.where(higher, a / n, b / m)
    return counts, np.where(rates > 0, rates, 1.0)


@dataclass(frozen=True)
class _Null:
    """What false alarms give.

    Attributes:
        counts: Counts that each rate is estimated from, plus 1/2: the shape of its gamma distribution; shape (G, L).
        rates: λ; shape (G, L).
        tonight: Flagged flows outside of alerts, shape (G, L), and flows there, shape (G,).
        shapes: κ; shape (G, L).
        most: Highest shape of K, from the blocks; infinite without; shape (G, L).
        known: Index in the arrays below of each entity, -1 if it has few flows; shape (entities,).
        flagged, expected: Of known entities, earlier nights and tonight without left out cells; shape (known, G, L).
        cell_flagged, cell_flows: What each cell adds to `flagged`, and flows that it adds to `expected`, see `_kept`; 0
            without tonight; shape (cells, L) and (cells,).
        windows: Whether `flagged` and `expected` contain tonight.
        weights: Factor of the p-values of each category; shape (G,).
    """

    counts: Floats
    rates: Floats
    tonight: tuple[Floats, Floats]
    shapes: Floats
    most: Floats
    known: Ints
    flagged: Floats
    expected: Floats
    cell_flagged: Ints
    cell_flows: Ints
    windows: bool
    weights: Floats

    def parameters(
        self, entity: Ints, flows: Ints, category: Ints, own_flagged: Floats, own_flows: Ints
    ) -> tuple[Floats, Floats]:
        """Return shape and mean of K for places, at each level; shape (rows, L) each.

        Args:
            entity, flows, category: Of each row.
            own_flagged: Flagged flows of the row that `flagged` of its entity contains; shape (rows, L).
            own_flows: Flows of the row that `expected` of its entity contains.
        """
        rates, shapes = self.rates[category], self.shapes[category]
        known = self.known[entity]
        has = known >= 0
        k, e = np.zeros_like(rates), np.zeros_like(rates)
        k[has] = np.maximum(self.flagged[known[has], category[has]] - own_flagged[has], 0)
        e[has] = np.maximum(self.expected[known[has], category[has]] - (own_flows[:, None] * rates)[has], 0)
        own_shape = shapes + k
        factor = np.maximum(own_shape / (shapes + e), _LOWEST_FACTOR)
        shape = np.minimum(1 / (1 / own_shape + 1 / self.counts[category]), self.most[category])
        return shape, flows[:, None] * rates * factor


def _null(cells: NightCells, stored: StoredCounts, own: OwnCounts, left_out: Mask, tonight: bool) -> _Null:
    """Return what false alarms give, without the cells `left_out`; without tonight's counts if they are not wanted."""
    kept = _kept(cells, left_out)
    found, flows = _of_tonight(cells, stored, *kept)
    rows = stored.rows.astype(np.float64)[:, np.newaxis]
    a, n = stored.counts + 0.5, np.repeat(flows[:, None], stored.counts.shape[1], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = n / (n + rows)
        above = np.where(found > 0, special.betainc(np.maximum(found, 1), a, share), 1.0)
        below = 1 - special.betainc(found + 1, a, share)
    pooled = (rows > 0) & (n > 0) & (np.minimum(above, below) >= _AGREE) & tonight
    apart = ~pooled & (n > 0) & (tonight | (rows == 0))
    counts = np.where(apart, found, stored.counts + np.where(pooled, found, 0)) + 0.5
    base = np.where(apart, n, rows + np.where(pooled, n, 0))
    rates = np.minimum(counts / np.maximum(base, 1.0), 1.0)
    if not tonight:
        kept = np.zeros_like(kept[0]), np.zeros_like(kept[1])
    known, flagged, expected = _own(cells, own, rates, *kept, tonight)
    shapes = _best(np.stack([_likelihood(flagged, expected, shape) for shape in _SHAPES]))
    return _Null(
        counts, rates, (found, flows), shapes, _most(stored), known, flagged, expected, *kept,
        tonight, np.where(np.array(stored.categories) == UNKNOWN, _UNKNOWN_WEIGHT, 1.0),
    )  # fmt: skip


def _of_tonight(cells: NightCells, stored: StoredCounts, cell_flagged: Ints, cell_flows: Ints) -> tuple[Floats, Floats]:
    """Return flagged flows outside of alerts, shape (G, L), and all flows there, shape (G,); of cells as `_kept`."""
    sent, found = cells.sent, np.zeros(stored.counts.shape)
    by_source = sent[cells.is_source].sum() > 2 * sent[~cells.is_source].sum()
    counts_here = cells.is_source[cells.entity] == by_source  # so that each flow counts once
    flows = np.full(len(found), float(cells.flows[counts_here].sum()))
    here = counts_here[cells.place]
    np.add.at(found, cells.category[here], cell_flagged[here])
    np.subtract.at(flows, cells.category[here], (cells.flows[cells.place] - cell_flows)[here])
    return found, flows


def _own(
    cells: NightCells, own: OwnCounts, rates: Floats, cell_flagged: Ints, cell_flows: Ints, tonight: bool
) -> tuple[Ints, Floats, Floats]:
    """Return the arrays of `_Null` on known entities; of cells as `_kept`."""
    sent = cells.sent
    entities = np.flatnonzero((sent >= _KNOWN_FLOWS) | (own.index >= 0))
    known = np.full(len(cells.keys), -1, dtype=np.int64)
    known[entities] = np.arange(len(entities))
    flagged, expected = (np.zeros((len(entities), *rates.shape)) for _ in range(2))
    before = np.flatnonzero(own.index >= 0)
    flagged[known[before]], expected[known[before]] = own.flagged[own.index[before]], own.expected[own.index[before]]
    if not tonight:
        return known, flagged, expected
    expected += sent[entities][:, None, None] * rates
    of_cell, gone = known[cells.entity[cells.place]], cells.flows[cells.place] - cell_flows
    has = of_cell >= 0
    np.add.at(flagged, (of_cell[has], cells.category[has]), cell_flagged[has])
    np.subtract.at(expected, (of_cell[has], cells.category[has]), gone[has][:, None] * rates[cells.category[has]])
    return known, flagged, np.maximum(expected, 0)


def _best(likelihoods: Floats) -> Floats:
    """Return the candidate for κ with the highest likelihood, shape (G, L); the largest one of equal ones.

    Args:
        likelihoods: Of each candidate; shape (candidates, G, L).
    """
    best = np.full(likelihoods.shape[1:], _SHAPES[0])
    highest = np.full(likelihoods.shape[1:], -np.inf)
    for shape, likelihood in zip(_SHAPES, likelihoods, strict=True):
        better = likelihood > highest + 1e-9
        best[better], highest = shape, np.maximum(highest, likelihood)
    return best


def _likelihood(flagged: Floats, expected: Floats, shape: float) -> Floats:
    """Return the log-likelihood of a κ for each category and level, but for a constant; shape (G, L)."""
    terms = (
        special.gammaln(shape + flagged)
        - special.gammaln(shape)
        + shape * np.log(shape / (shape + expected))
        + special.xlogy(flagged, expected / (shape + expected))
    )
    likelihood: Floats = terms.sum(axis=0)
    return likelihood


def _most(stored: StoredCounts) -> Floats:
    """Return the shape that is fitted to the blocks, shape (G, L); infinite without blocks.

    Categories of the network are taken together, as most have few false alarms or none.
    """
    if stored.blocks is None:
        return np.full(stored.counts.shape, np.inf)
    flagged, rows = stored.blocks
    rates = stored.counts / np.maximum(stored.rows, 1)[:, np.newaxis]
    expected = rows[:, np.newaxis, np.newaxis] * rates
    found = np.stack([_likelihood(flagged.astype(np.float64), expected, shape) for shape in _SHAPES])
    of_network = np.array(stored.categories) != UNKNOWN
    found[:, of_network] = found[:, of_network].sum(axis=1, keepdims=True)
    return _best(found)


def reached(k: Floats, shape: Floats, mean: Floats) -> Floats:
    """Return P(K ≥ k) of a negative binomial distribution with this mean and gamma shape; 1 for k = 0."""
    inside = special.betainc(np.maximum(k, 1), shape, mean / (shape + mean))
    found: Floats = np.where(k > 0, np.maximum(inside, _SMALLEST), 1.0)
    return found


def _p_values(cells: NightCells, null: _Null) -> tuple[Floats, Ints, Floats]:
    if not len(cells.place):
        return np.empty(0), np.empty(0, dtype=np.int64), np.empty((0, null.rates.shape[1]))
    flows = cells.flows[cells.place]
    shape, mean = null.parameters(
        cells.entity[cells.place], flows, cells.category, null.cell_flagged.astype(np.float64), null.cell_flows
    )
    of_level = reached(cells.flagged.astype(np.float64), shape, mean)
    level = of_level.argmin(axis=1)
    p = np.minimum(of_level.min(axis=1) * of_level.shape[1] * null.weights[cells.category], 1.0)
    return p, level, mean


def _budgeted(cells: NightCells, null: _Null, budget: float, allowed: float, fresh: Mask) -> tuple[float, float]:
    """Return α, and the expected number of false alerts in the places `fresh`; the budget of the date limits α."""
    grouped = _distinct_cells(cells, null, fresh)
    candidates = np.searchsorted(_ALPHAS, _ALPHA_OF_ONE * budget, side="right")
    low, high = 0, max(int(candidates) - 1, 0)  # the highest α whose expectation is within the budget, else the lowest
    while low < high:
        middle = (low + high + 1) // 2
        within = _expectation(_ALPHAS[middle], *grouped) <= allowed
        low, high = (middle, high) if within else (low, middle - 1)
    return float(_ALPHAS[low]), _expectation(_ALPHAS[low], *grouped)


def _distinct_cells(cells: NightCells, null: _Null, fresh: Mask) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Return number, factor, flows, shape and mean of groups of nearly equal cells at all levels; each (groups,).

    Those of the places `fresh`.
    """
    parts = [np.zeros((2, 0), dtype=np.int64)]
    for category in range(len(null.rates)):
        own = cells.category == category
        for start in range(0, max(len(cells.flows), 1), _BLOCK):
            flows, entity = cells.flows[start : start + _BLOCK], cells.entity[start : start + _BLOCK]
            here = own & (cells.place >= start) & (cells.place < start + _BLOCK)
            inside, own_flows = np.zeros((len(flows), null.rates.shape[1])), flows * null.windows
            inside[cells.place[here] - start] = null.cell_flagged[here]
            own_flows[cells.place[here] - start] = null.cell_flows[here]
            shape, mean = null.parameters(entity, flows, np.full(len(flows), category), inside, own_flows)
            rounded_mean = np.ceil(np.log(np.maximum(mean, _SMALLEST_MEAN)) / _GRID).astype(np.int64) + _OFFSET
            rounded_shape = np.floor(np.log(shape) / (2 * _GRID)).astype(np.int64) + _OFFSET
            few = np.minimum(flows, _FEW)[:, None]  # K cannot exceed the flows
            codes = (rounded_mean * 2 * _OFFSET + rounded_shape) * (_FEW + 1) + few
            codes = codes[fresh[start : start + _BLOCK]]
            found, counts = np.unique(codes, return_counts=True)
            parts.append(np.stack([found * len(null.weights) + category, counts]))
    known, at = np.unique(np.concatenate([codes for codes, _ in parts]), return_inverse=True)
    number = np.bincount(at, np.concatenate([counts for _, counts in parts]))
    factor, known = null.weights[known % len(null.weights)], known // len(null.weights)
    flows, rounded_shape = known % (_FEW + 1), known // (_FEW + 1) % (2 * _OFFSET)
    rounded_mean = known // (_FEW + 1) // (2 * _OFFSET)
    return (
        number.astype(np.float64),
        factor,
        np.where(flows < _FEW, flows, np.inf),
        np.exp((rounded_shape - _OFFSET) * 2 * _GRID),
        np.exp((rounded_mean - _OFFSET) * _GRID),
    )


def _expectation(alpha: float, number: Floats, factor: Floats, flows: Floats, shape: Floats, mean: Floats) -> float:
    """Return Σ P(K ≥ k*) over cells and levels; k* is the smallest count with P(K ≥ k*) ≤ α / (L · factor)."""
    limit = alpha / len(counted.LEVELS) / factor
    low, high = np.zeros(len(mean)), np.ones(len(mean))
    while (growing := reached(high, shape, mean) > limit).any():
        low[growing], high[growing] = high[growing], 2 * high[growing]
    while (open_ := high - low > 1).any():
        middle = np.where(open_, np.floor((low + high) / 2), high)
        above = open_ & (reached(middle, shape, mean) > limit)
        low = np.where(above, middle, low)
        high = np.where(open_ & ~above, middle, high)
    attained = np.where(high > flows, 0.0, reached(high, shape, mean))
    return float(number @ attained)


def _history(cells: NightCells, categories: Sequence[str], null: _Null, left_out: Mask) -> pa.Table:
    """Return tonight's row of the history for each entity with enough flows and category."""
    sent = cells.sent
    entities = np.flatnonzero(sent >= _KNOWN_FLOWS)
    index = np.full(len(cells.keys), -1, dtype=np.int64)
    index[entities] = np.arange(len(entities))
    groups, levels = null.rates.shape
    flagged, flows = np.zeros((len(entities), groups, levels)), np.repeat(sent[entities][:, None], groups, axis=1)
    of_cell, (cell_flagged, cell_flows) = index[cells.entity[cells.place]], _kept(cells, left_out)
    has, gone = of_cell >= 0, cells.flows[cells.place] - cell_flows
    np.add.at(flagged, (of_cell[has], cells.category[has]), cell_flagged[has])
    np.subtract.at(flows, (of_cell[has], cells.category[has]), gone[has])
    expected = flows[:, :, None] * null.rates
    rows = len(entities) * groups
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * levels)
    columns = {
        "entity_key": pa.array(np.repeat(cells.keys[entities], groups)),
        "category": pa.array(list(categories) * len(entities), pa.string()),
        "flagged": pa.ListArray.from_arrays(offsets, pa.array(flagged.ravel().astype(np.int64))),
        "expected": pa.ListArray.from_arrays(offsets, pa.array(expected.ravel())),
        "flows": pa.array(flows.ravel().astype(np.int64)),
    }
    return pa.table([columns[field.name].cast(field.type) for field in HISTORY], schema=HISTORY)
