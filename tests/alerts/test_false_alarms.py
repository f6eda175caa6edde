"""Cells against false alarms: drawn nights whose rates are known, and properties for any night. All are synthetic."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ids_spark.alerts import false_alarms
from ids_spark.alerts.false_alarms import StoredCounts
from ids_spark.alerts.night_cells import NightCells, OwnCounts, own_counts
from ids_spark.dataset.tables import HISTORY

CATEGORIES = ("DDoS", "DoS", "MQTT", "Recon", "Spoofing")
RATES = np.array([[2e-5, 5e-6, 1e-6], [4e-4, 3e-4, 2e-4], [1e-3, 2e-4, 5e-5], [3e-3, 1e-3, 6e-4], [5e-3, 1e-3, 6e-4]])
"""Benign flows of each category that reach each level."""
ENTITIES, WINDOWS, ROWS = 40, 24, 20_000


def stored(rng: np.random.Generator, rates: np.ndarray = RATES) -> StoredCounts:
    """Return counts of validation rows drawn from the rates."""
    return StoredCounts(CATEGORIES, nested(np.full((5, 1), ROWS), rates, rng)[:, 0], np.full(5, ROWS))


def nested(flows: np.ndarray, rates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return flagged flows at each level; shape (categories, cells, levels); rates of shape (categories, levels)."""
    levels = [rng.binomial(flows, rates[:, :1])]
    for level in (1, 2):
        levels.append(rng.binomial(levels[-1], rates[:, level : level + 1] / rates[:, level - 1 : level]))
    return np.stack(levels, axis=-1)


def night(rng: np.random.Generator, rates: np.ndarray = RATES, noisy: float = 1.0) -> NightCells:
    """Return benign cells of devices with 1 to 100 flows an hour and more; the first has `noisy` times the rates."""
    flows = rng.poisson(np.repeat(np.geomspace(1, 600, ENTITIES), WINDOWS)) + 1
    flagged = nested(np.tile(flows, (5, 1)), rates, rng)
    flagged[:, -WINDOWS:] = nested(np.tile(flows[-WINDOWS:], (5, 1)), rates * noisy, rng)
    return cells(flows, flagged)


def cells(flows: np.ndarray, flagged: np.ndarray) -> NightCells:
    """Return the cells of entities with `WINDOWS` windows each; flagged of shape (categories, places, levels)."""
    category, place = np.nonzero(flagged[:, :, 0])
    entities = len(flows) // WINDOWS
    return NightCells(
        keys=np.arange(entities),
        is_source=np.zeros(entities, dtype=np.bool_),
        entity=np.repeat(np.arange(entities), WINDOWS),
        window=np.tile(np.arange(WINDOWS), entities) * 3_600_000_000,
        flows=flows,
        place=place,
        category=category,
        kinds=pa.array(["device_id"] * len(place)),
        names=pa.array([f"device-{i:02d}" for i in place // WINDOWS], pa.string()),
        flagged=flagged[category, place],
        device_cell=np.empty(0, dtype=np.int64),
        source_cell=np.empty(0, dtype=np.int64),
        row_flagged=np.empty((0, 3), dtype=np.int64),
    )


def unknown(found: NightCells) -> OwnCounts:
    """Return counts of entities without an earlier night."""
    none, zeros = np.full(len(found.keys), -1), np.zeros((0, len(CATEGORIES), 3))
    none_of = np.zeros(0, dtype=np.int64)
    return OwnCounts(none, zeros, zeros, none_of, none_of, zeros[:, :, 0])


def compare(found: NightCells, known: StoredCounts, budget: float) -> false_alarms.Tested:
    return false_alarms.compare(found, known, budget, unknown(found))


@pytest.mark.parametrize(("shift", "noisy"), [(1.0, 1.0), (3.0, 1.0), (1.0, 5.0)], ids=["plain", "shifted", "noisy"])
def test_benign_nights_have_no_more_alerts_than_promised(shift: float, noisy: float) -> None:
    rng = np.random.default_rng(7)
    alerts, promised = np.zeros(2), np.zeros(2)
    for _ in range(20):
        found, known = night(rng, RATES * shift, noisy), stored(rng)
        for i, budget in enumerate((1.0, 5.0)):
            tested = compare(found, known, budget)
            alerts[i] += tested.alerts.sum()
            promised[i] += tested.expected_false
            assert tested.expected_false <= budget
    assert alerts[1] <= 1.2 * promised[1]
    assert (stats.poisson.sf(alerts - 1, promised) >= 0.05).all()
    assert (stats.poisson.cdf(alerts, promised) >= 1e-4).all()  # nor is the promise far too high


@pytest.mark.parametrize(("windows", "share", "alerts"), [(24, 0.3, 0), (6, 0.3, 6), (24, 0.9, 24)])
def test_a_device_that_is_noisy_all_night_explains_itself(windows: int, share: float, alerts: int) -> None:
    rng = np.random.default_rng(7)
    found = night(rng)
    flagged = np.zeros((5, len(found.flows), 3), dtype=np.int64)
    flagged[found.category, found.place] = found.flagged
    own = np.arange(20 * WINDOWS, 20 * WINDOWS + windows)
    flagged[3, own, :2] = rng.binomial(found.flows[own], share)[:, None]
    tested = compare(cells(found.flows, flagged), stored(rng), 1.0)
    of_device = np.isin(cells(found.flows, flagged).place, own)
    assert int((tested.alerts & of_device).sum()) == alerts


@pytest.mark.parametrize(
    ("nights", "before", "share_of_others", "alerts"),
    [(3, 1, 0.0, 24), (3, 80, 0.0, 0), (2, 1, 0.0, 0), (3, 1, 0.3, 0)],
    ids=["quiet before", "noisy before", "too few nights", "as all others"],
)
def test_a_device_that_was_quiet_in_earlier_nights_has_changed_when_it_is_noisy_all_night(
    nights: int, before: int, share_of_others: float, alerts: int
) -> None:
    """Recon is flagged in 30 % of its flows in every window; in earlier nights in 5 · `before` of 1,440 flows."""
    flows = np.full(10 * WINDOWS, 60)
    rng, flagged = np.random.default_rng(7), np.zeros((5, len(flows), 3), dtype=np.int64)
    share = np.where(np.arange(len(flows)) < WINDOWS, 0.3, share_of_others)
    flagged[3, :, :2] = rng.binomial(flows, share)[:, None]
    tonight = cells(flows, flagged)
    rows = [
        {"entity_key": 0, "category": CATEGORIES[3], "flagged": [5 * before, 5 * before, 0], "flows": 1_440}
        | {"expected": [5.0, 1.5, 0.9], "event_date": dt.date(2026, 3, day)}
        for day in range(1, nights + 1)
    ]
    own = own_counts(
        tonight,
        pa.Table.from_pylist(rows, schema=HISTORY.append(pa.field("event_date", pa.date32()))),
        CATEGORIES,
    )
    known = stored(np.random.default_rng(8))
    tested = false_alarms.compare(tonight, known, 1.0, own, settled=own)
    assert int((tested.alerts & (tonight.place < WINDOWS)).sum()) == alerts
    of_another_model = false_alarms.compare(tonight, known, 1.0, own)
    assert not of_another_model.alerts.any()


def test_an_own_rate_is_of_flows_outside_of_alerts_of_the_same_category() -> None:
    """All flows of the device were an attack of the first category last night, and 5 of them flagged as the fourth."""
    flows = np.full(WINDOWS, 50)
    found = cells(flows, nested(np.tile(flows, (5, 1)), RATES, np.random.default_rng(1)))
    rows = [
        {"entity_key": 0, "category": name, "flagged": [n] * 3, "expected": [1.0] * 3, "flows": of_category}
        | {"event_date": dt.date(2026, 3, day)}
        for name, n, of_category in (("DDoS", 0, 0), ("Recon", 5, 1_000))
        for day in (1, 2)
    ]
    schema = HISTORY.append(pa.field("event_date", pa.date32()))
    own = own_counts(found, pa.Table.from_pylist(rows, schema=schema), CATEGORIES)
    assert (own.nights.tolist(), own.flows.tolist()) == ([2], [[0, 0, 0, 2_000, 0]])
    assert own.flagged[0, :, 0].tolist() == [0, 0, 0, 10, 0]


def thinned(first: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return counts at each level, given those at the first of shape (categories, cells)."""
    ratio = RATES[:, 1:] / RATES[:, :-1]
    second = rng.binomial(first, ratio[:, :1])
    return np.stack([first, second, rng.binomial(second, ratio[:, 1:])], axis=-1)


def stored_in_blocks(kappa: float, rng: np.random.Generator) -> StoredCounts:
    """Return counts of 200 blocks of 20,000 rows, whose rates differ by factors of a gamma distribution of mean 1."""
    factors, rows = rng.gamma(kappa, 1 / kappa, 200), np.full(200, ROWS)
    blocks = thinned(rng.poisson(ROWS * factors * RATES[:, :1]), rng).transpose(1, 0, 2)
    return StoredCounts(CATEGORIES, blocks.sum(axis=0), np.full(5, rows.sum()), (blocks, rows))


def small_devices(kappa: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return flows and flagged flows of 1,000 such devices, each with too few flows for a rate of its own."""
    factors = np.repeat(rng.gamma(kappa, 1 / kappa, 1_000), WINDOWS)
    flows = np.full(len(factors), 4)
    return flows, thinned(np.minimum(rng.poisson(flows * factors * RATES[:, :1]), flows), rng)


@pytest.mark.parametrize("kappa", [0.3, 2.0])
def test_a_device_without_a_history_is_compared_with_how_much_blocks_of_local_rows_differ(kappa: float) -> None:
    rng = np.random.default_rng(11)
    known, (flows, flagged) = stored_in_blocks(kappa, rng), small_devices(kappa, rng)
    flows[:WINDOWS], flagged[:, :WINDOWS] = 1, 0
    flows[0], flagged[3, 0] = 70, [5, 1, 0]
    found = cells(flows, flagged)
    own = np.flatnonzero((found.place == 0) & (found.category == 3))
    tested = compare(found, known, 1.0)

    blocks, rows = known.blocks
    candidates, of_level = np.geomspace(0.05, 1_000, 400), []
    for level in range(2):
        expected = rows[:, None] * known.counts[:, level] / known.rows
        likelihood = [
            stats.nbinom.logpmf(blocks[:, :, level], shape, shape / (shape + expected)).sum() for shape in candidates
        ]
        shape = candidates[int(np.argmax(likelihood))]
        assert shape == pytest.approx(kappa, rel=0.4)
        mean = 70 * tested.used[3, level]
        assert mean == pytest.approx(70 * RATES[3, level], rel=0.3)
        of_level.append(stats.nbinom.sf(flagged[3, 0, level] - 1, shape, shape / (shape + mean)))
    assert tested.p[own] == pytest.approx(3 * min(of_level), rel=0.25)  # the shapes tried are 26 % apart
    alike = StoredCounts(CATEGORIES, known.counts, known.rows)
    assert compare(found, alike, 1.0).p[own] < 0.2 * tested.p[own]


def test_dispersed_blocks_hide_no_scan_and_a_noisy_new_device_is_no_alert() -> None:
    rng = np.random.default_rng(12)
    known, (flows, flagged) = stored_in_blocks(0.3, rng), small_devices(0.3, rng)
    flows[: 2 * WINDOWS], flagged[:, : 2 * WINDOWS] = 1, 0
    flows[[0, WINDOWS]] = 75
    flagged[3, 0] = 70  # a scan
    flagged[3, WINDOWS] = [6, 1, 0]
    found = cells(flows, flagged)
    own = [int(np.flatnonzero((found.place == place) & (found.category == 3))[0]) for place in (0, WINDOWS)]
    alike = StoredCounts(CATEGORIES, known.counts, known.rows)
    assert compare(found, alike, 1.0).alerts[own].tolist() == [True, True]
    assert compare(found, known, 1.0).alerts[own].tolist() == [True, False]


def test_a_new_device_of_a_noisy_type_has_the_history_of_its_type() -> None:
    """A device sends flagged flows in six hours, as others of its type do every night; it was never seen before."""
    rng = np.random.default_rng(7)
    found = night(rng)
    flagged = np.zeros((5, len(found.flows), 3), dtype=np.int64)
    flagged[found.category, found.place] = found.flagged
    windows = np.arange(20 * WINDOWS, 20 * WINDOWS + 6)
    flagged[3, windows, :2] = rng.binomial(found.flows[windows], 0.3)[:, None]
    tonight = cells(found.flows, flagged)
    new = int(tonight.keys[20])
    rows = [
        {"entity_key": 1_000 + peer, "category": CATEGORIES[3], "flagged": [300, 300, 0], "expected": [2.0, 0.4, 0.2]}
        | {"flows": 1_000, "event_date": dt.date(2026, 3, day)}
        for peer in range(3)
        for day in range(1, 6)
    ]
    history = pa.Table.from_pylist(rows, schema=HISTORY.append(pa.field("event_date", pa.date32())))
    noisy = {1_000 + peer: "ultrasound" for peer in range(3)} | {new: "ultrasound"}
    alerts = {}
    for name, types in {"no inventory": None, "peers": noisy, "other type": noisy | {new: "pump"}}.items():
        own = own_counts(tonight, history, CATEGORIES, types)
        tested = false_alarms.compare(tonight, stored(np.random.default_rng(8)), 1.0, own)
        alerts[name] = int((tested.alerts & np.isin(tonight.place, windows)).sum())
    assert alerts == {"no inventory": 6, "peers": 0, "other type": 6}
    own = own_counts(tonight, history, CATEGORIES, noisy)
    assert (own.peers.tolist(), own.nights.tolist()) == ([3], [0])
    assert own.flagged[0, 3].tolist() == [1_500, 1_500, 0]  # the mean of three devices over five nights
    assert own.flows[0, 3] == 5_000


@pytest.mark.parametrize(("nights", "peers", "flagged"), [(2, 1, 2 * 5 + 300), (3, 0, 3 * 5)])
def test_own_nights_count_beside_those_of_the_type_until_they_are_enough(nights: int, peers: int, flagged: int) -> None:
    tonight = cells(np.full(WINDOWS, 50), np.zeros((5, WINDOWS, 3), dtype=np.int64))
    own_rows = [(int(tonight.keys[0]), 5, day) for day in range(1, nights + 1)]
    rows = [
        {"entity_key": key, "category": CATEGORIES[3], "flagged": [n] * 3, "expected": [1.0] * 3, "flows": 100}
        | {"event_date": dt.date(2026, 3, day)}
        for key, n, day in (*own_rows, (1_000, 300, 1))
    ]
    history = pa.Table.from_pylist(rows, schema=HISTORY.append(pa.field("event_date", pa.date32())))
    own = own_counts(tonight, history, CATEGORIES, {int(tonight.keys[0]): "pump", 1_000: "pump"})
    assert (own.nights.tolist(), own.peers.tolist(), own.flagged[0, 3, 0]) == ([nights], [peers], flagged)


flows_of = st.lists(st.integers(1, 400), min_size=2 * WINDOWS, max_size=2 * WINDOWS)


@settings(max_examples=25, deadline=None)
@given(flows_of, st.integers(0, 2**32 - 1), st.floats(0.01, 50), st.floats(0.01, 1))
def test_a_lower_budget_never_adds_an_alert(flows: list[int], seed: int, budget: float, part: float) -> None:
    rng = np.random.default_rng(seed)
    of_place = np.array(flows)
    flagged = nested(np.tile(of_place, (5, 1)), np.minimum(RATES * rng.uniform(1, 60), 0.9), rng)
    found, known = cells(of_place, flagged), stored(rng)
    many, few = compare(found, known, budget), compare(found, known, budget * part)
    assert few.alpha <= many.alpha
    assert not (few.alerts & ~many.alerts).any()
    assert few.expected_false <= many.expected_false + 1e-9


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 3_000), st.integers(0, 3_000), st.floats(0.5, 1e4), st.floats(1e-4, 1e3))
def test_fewer_flagged_flows_are_never_more_evidence(k: int, removed: int, shape: float, mean: float) -> None:
    counts = np.array([float(k), float(max(k - removed, 0))])
    more, fewer = false_alarms.reached(counts, np.full(2, shape), np.full(2, mean))
    assert more <= fewer <= 1.0
    expected = stats.nbinom.sf(k - 1, shape, shape / (shape + mean))
    assert more == pytest.approx(max(expected, 1e-300), rel=1e-6, abs=1e-280)
