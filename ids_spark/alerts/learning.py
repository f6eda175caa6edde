"""Incidents with weak evidence of a site, or of devices, whose normal is not known yet: they are kept, but not open.

A model that was trained elsewhere calls much of a site's ordinary traffic an attack, and its p-values, which assume
that false alarms are as frequent as in validation, are then far too small. Where they are tonight as frequent as in
validation, nothing has to be learned: a site learns the categories whose rate tonight is more than `MORE_FREQUENT`
times that of validation, beyond chance (`false_alarms` then takes tonight's rate).

Strong evidence is more than a small p-value. All of these hold:

- the p-value of the most significant alert is at most `FAR_BELOW` times that of an alert;
- it has at least `FEWEST_FLOWS` flagged flows;
- its entities had no such incident on more than one other night of the last seven: what recurs is how the site is;
- fewer than `SITE_WIDE` other incidents of the night are of its category, or its flagged flows beyond those that false
  alarms explain are at least `STANDS_OUT` times their median: what many devices show at once is how the site is;
- it is of a known attack: all is unlike the training data where that is of another site.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa

from ids_spark.alerts.evidence import FILE_KIND, entity_keys
from ids_spark.alerts.verdicts import with_columns
from ids_spark.base.arrays import Floats, Ints, Mask
from ids_spark.dataset.taxonomy import QUARANTINED, UNKNOWN

LEARNING: Final = "learning"
"""State of an incident with weak evidence of a site or device that learns."""
FAR_BELOW: Final = 1e-6
FEWEST_FLOWS: Final = 10
SITE_WIDE: Final = 4
STANDS_OUT: Final = 10.0
MORE_FREQUENT: Final = 2.0
_OTHER_NIGHTS: Final = 1


@dataclass(frozen=True)
class Learning:
    """What is learning on a night.

    Attributes:
        site: Whether the site is, in the categories of `differing`.
        device_keys: Devices that are, by `evidence.entity_keys`.
    """

    site: bool = False
    device_keys: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))


def differing(categories: Sequence[str], stored: Floats, used: Floats) -> frozenset[str]:
    """Return the categories whose false alarms are more frequent tonight than in validation.

    Args:
        categories: Names.
        stored: Rates of validation, shape (categories, levels); NaN where unknown, which no site has learned.
        used: Rates that the test of tonight uses, of the same shape.
    """
    as_promised = used[:, 0] <= MORE_FREQUENT * stored[:, 0]
    return frozenset(name for name, known in zip(categories, as_promised, strict=True) if not known)


def marked(
    incidents: pa.Table, learning: Learning, confirmed: Collection[str], categories: Collection[str]
) -> pa.Table:
    """Return incidents with `learning`: `site`, `device` if all of their devices learn, null for others.

    Args:
        incidents: As `tables.INCIDENTS`, with the columns of their life.
        learning: Of the night.
        categories: Those that a site learns, from `differing`.
        confirmed: Incidents of earlier nights with the verdict `true`; what continues one of them does not learn.
    """
    keys = set(learning.device_keys.tolist())
    found: list[str | None] = []
    for row in incidents.select(["category", "devices", "devices_found", "previous_id"]).to_pylist():
        devices = [each for each in row["devices"] or () if each["kind"] != FILE_KIND]
        own = entity_keys([each["kind"] for each in devices], [each["name"] for each in devices]).tolist()
        all_learn = bool(own) and len(own) == row["devices_found"] and keys.issuperset(own)
        of_site = learning.site and row["category"] in categories
        name = "site" if of_site else "device" if all_learn else None
        refused = row["category"] == QUARANTINED  # no model has to learn that rows are faulty
        found.append(None if refused or row["previous_id"] in confirmed else name)
    return with_columns(incidents, {"learning": found})


def strong(incidents: pa.Table, alpha: float) -> Mask:
    """Return which incidents of a night have strong evidence, shape (incidents,).

    Args:
        incidents: All of the night, as `tables.INCIDENTS`, rated and with the columns of their life.
        alpha: p-value from which a cell is an alert.
    """
    number = {name: _numbers(incidents, name) for name in ("log10_p", "lead_flagged", "lead_expected", "nights_seen")}
    excess = number["lead_flagged"] - np.nan_to_num(number["lead_expected"])
    categories = np.array(incidents["category"].to_pylist(), dtype=object)
    found: Mask = number["log10_p"] <= np.log10(alpha * FAR_BELOW)
    found &= (number["lead_flagged"] >= FEWEST_FLOWS) & (categories != UNKNOWN)
    found &= ~(number["nights_seen"] > 1 + _OTHER_NIGHTS)
    for i in np.flatnonzero(found):
        others = excess[(categories == categories[i]) & (np.arange(len(excess)) != i)]
        found[i] = len(others) < SITE_WIDE or excess[i] >= STANDS_OUT * np.median(others)
    return found


def apply(incidents: pa.Table, alpha: float) -> pa.Table:
    """Return incidents with `strong`, and the state `learning` of open ones with weak evidence where something learns.

    An incident that was called `true` stays open.

    Args:
        incidents: All of the night, from `marked`, with what verdicts say.
        alpha: p-value from which a cell is an alert.
    """
    is_strong = strong(incidents, alpha).tolist()
    names = ("state", "verdict", "learning")
    columns: dict[str, list[Any]] = {name: incidents[name].to_pylist() for name in names}
    states = [
        LEARNING if state == "open" and verdict != "true" and learning and not enough else state
        for state, verdict, learning, enough in zip(*columns.values(), is_strong, strict=True)
    ]
    return with_columns(incidents, {"state": states, "strong": is_strong})


def _numbers(incidents: pa.Table, name: str) -> Any:
    """Return a column as float64; null becomes NaN."""
    return incidents[name].cast(pa.float64()).to_numpy()
