"""Nights of evidence by hand: groups of flows, counted by the functions of scoring. Every night here is synthetic."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ids_spark.alerts import evidence, false_alarms, incidents, night_cells
from ids_spark.alerts.evidence import Flagged
from ids_spark.alerts.false_alarms import StoredCounts
from ids_spark.alerts.incidents import NightFacts
from ids_spark.alerts.known_devices import KnownDevices
from ids_spark.alerts.severity import DEFAULT, category_of
from ids_spark.dataset.tables import HISTORY
from ids_spark.dataset.taxonomy import CLASS6, CLASS19, UNKNOWN

NIGHT = dt.date(2026, 3, 1)
FACTS = NightFacts(
    NIGHT, "gru_dnn-19-paper", "20260201T000000Z-ab", 4.5, "r1", dt.datetime(2026, 3, 2, tzinfo=dt.UTC), "synthetic"
)
CLASSES = (*CLASS19, UNKNOWN)
CATEGORIES = (*CLASS6[1:], UNKNOWN)
STORED = StoredCounts(CATEGORIES, np.array([[80, 16, 6]] * 6), np.full(6, 40_000))
"""Benign validation rows: 40,000, of which 1 %, 0.2 % and 0.08 % reach the levels, evenly over the five categories."""


@dataclass(frozen=True)
class Group:
    """Flows that are alike.

    Attributes:
        flows: Their number.
        hour: Hour of the night; None: without an event time.
        device, source: Names; a sequence: one for each flow, in turn; None: without.
        class_name: Predicted attack class; None: not flagged.
        level: Level of evidence that they reach.
        probability: Attack probability.
        allowed: Whether the allow-list covers them.
    """

    flows: int
    hour: int | None = 3
    device: str | Sequence[str] | None = "pump-01"
    source: str | Sequence[str] | None = "192.0.2.10"
    class_name: str | None = None
    level: int = 3
    probability: float = 0.99
    allowed: bool = False


def background(devices: int = 20, flows_an_hour: int = 200) -> list[Group]:
    """Benign flows of a fleet, each device from its own address, none flagged."""
    return [
        Group(flows_an_hour, hour, f"monitor-{i:02d}", f"192.0.2.{100 + i}")
        for i in range(devices)
        for hour in range(24)
    ]


def counted(groups: Sequence[Group]) -> tuple[pa.Table, pa.Table]:
    """Return the evidence and the traffic of a night."""

    def names(value: str | Sequence[str] | None, n: int) -> list[str | None]:
        if value is None or isinstance(value, str):
            return [value] * n
        return [value[i % len(value)] for i in range(n)]

    columns: dict[str, list[Any]] = {
        name: [] for name in ("device", "source", "time", "class", "level", "p", "allowed")
    }
    start = dt.datetime.combine(NIGHT, dt.time(), dt.UTC)
    for group in groups:
        n, flagged = group.flows, group.class_name is not None
        columns["device"] += names(group.device, n)
        columns["source"] += names(group.source, n)
        columns["time"] += [None if group.hour is None else start + dt.timedelta(hours=group.hour, minutes=20)] * n
        columns["class"] += [CLASSES.index(group.class_name or CLASSES[0])] * n
        columns["level"] += [group.level if flagged else 0] * n
        columns["p"] += [group.probability] * n
        columns["allowed"] += [group.allowed] * n
    table = pa.table(
        {
            "device_id": pa.array(columns["device"], pa.string()),
            "src_ip": pa.array(columns["source"], pa.string()),
            "event_time": pa.array(columns["time"], pa.timestamp("us", tz="UTC")),
        }
    )
    keys = evidence.keys_of(table, ("device_id", "src_ip"), ("src_ip",), 60, "flows.parquet")
    levels = np.array(columns["level"], dtype=np.int32)
    at = np.flatnonzero(levels)
    p = np.array(columns["p"], dtype=np.float32)[at]
    logits = np.log(p.astype(np.float64)) - np.log1p(-p.astype(np.float64))
    flagged_flows = Flagged(
        at,
        np.array(columns["class"], dtype=np.int32)[at],
        CLASSES,
        levels[at],
        np.array(columns["allowed"], dtype=np.bool_)[at],
        logits,
        p,
        logits,
        "flows.parquet",
        at,
        pa.nulls(len(at), pa.list_(evidence.EVIDENCE.field("top_attributions").type.value_type)),
    )
    return (
        evidence.merge_evidence([evidence.evidence(keys, flagged_flows)]),
        evidence.merge_traffic([evidence.traffic(keys)]),
    )


def found_in(
    groups: Sequence[Group], budget: float = 1.0, known: KnownDevices | None = None
) -> tuple[pa.Table, pa.Table]:
    """Return the incidents and alerts of a night without earlier nights."""
    own, traffic = counted(groups)
    index = {name: CATEGORIES.index(category_of(name)) for name in own["class_name"].unique().to_pylist()}
    cells = night_cells.cells_of(traffic, own, index)
    before = night_cells.own_counts(cells, NO_HISTORY, CATEGORIES)
    tested = false_alarms.compare(cells, STORED, budget, before)
    return incidents.incidents_of(cells, tested, own, CATEGORIES, 60, DEFAULT, FACTS, known)


NO_HISTORY = HISTORY.append(pa.field("event_date", pa.date32())).empty_table()
