"""Order of the incidents of a night, and which of them the page and the exports show.

The order is that of `score`: the severity's weight times the probability of an attack. If there are more open incidents
than lines, the first of each severity and category is shown before others, so that many incidents of one kind, which an
attacker can provoke, do not displace all of another kind.
"""

import datetime as dt
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from ids_spark.alerts.severity import SEVERITIES
from ids_spark.alerts.verdicts import with_columns

OPEN = "open"


def rank(incidents: pa.Table, most_lines: int) -> pa.Table:
    """Return incidents in order, with `rank` and `shown`: open ones first, then by score.

    Ties are ordered by severity, p-value, flagged flows (most first) and incident id.

    Args:
        incidents: As `tables.INCIDENTS`, with their states.
        most_lines: Most incidents that are shown.
    """
    open_ = np.asarray(incidents["state"].to_numpy(zero_copy_only=False) == OPEN, dtype=np.bool_)
    severity = np.array([SEVERITIES.index(name) for name in incidents["severity"].to_pylist()], dtype=np.int64)
    ids = incidents["incident_id"].to_numpy(zero_copy_only=False).astype(str)
    numbers = {name: incidents[name].to_numpy() for name in ("score", "log10_p", "flows")}
    order = np.lexsort((ids, -numbers["flows"], numbers["log10_p"], severity, -numbers["score"], ~open_))
    ordered, count = incidents.take(pa.array(order)), int(open_.sum())
    kinds = list(zip(ordered["severity"].to_pylist(), ordered["category"].to_pylist(), strict=True))[:count]
    first = [i for i, kind in enumerate(kinds) if kinds.index(kind) == i]
    rest = [i for i in range(count) if i not in set(first)]
    shown = set([*first, *rest][:most_lines])
    columns: dict[str, list[Any]] = {
        "rank": [i + 1 if i < count else None for i in range(len(ordered))],
        "shown": [i in shown for i in range(len(ordered))],
    }
    return with_columns(ordered, columns)


def open_since(incidents: pa.Table) -> dict[str, dt.datetime]:
    """Return when the result was made that has them as open, by incident id.

    Args:
        incidents: Stored, with `incident_id`, `state` and `created_at`.
    """
    rows = incidents.select(["incident_id", "state", "created_at"]).to_pylist()
    return {row["incident_id"]: row["created_at"] for row in rows if row["state"] == OPEN}


def not_shown(incidents: pa.Table) -> list[dict[str, Any]]:
    """Return the number of open incidents that are not shown, by category and entity; most first."""
    found = Counter(
        (row["category"], row["lead_entity"])
        for row in incidents.select(["state", "shown", "category", "lead_entity"]).to_pylist()
        if row["state"] == OPEN and not row["shown"]
    )
    return [
        {"category": category, "entity": entity, "incidents": n}
        for (category, entity), n in sorted(found.items(), key=lambda item: (-item[1], item[0]))
    ]
