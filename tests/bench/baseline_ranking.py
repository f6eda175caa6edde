"""Incidents as version 0.2 ranked them, for comparison.

A flow is flagged from the threshold that so many benign flows as the budget allows are expected to reach. An incident
is all flagged flows of one device, predicted class and hour; the most severe come first, whatever the evidence.
"""

from typing import Final

import numpy as np
import pyarrow as pa

from ids_spark.alerts.severity import DEFAULT
from ids_spark.base.arrays import Ints
from ids_spark.dataset.taxonomy import CLASSES
from ids_spark.models import tail_fit
from ids_spark.models.artifact import Model
from tests.bench.night_flows import Flows

BUDGET: Final = 50
"""False alarms to allow, and incidents to show."""
_HOUR: Final = 3600.0


def lines(flows: Flows, model: Model) -> list[Ints]:
    """Return the flows of each incident shown, as indices, in order of priority."""
    flagged = np.flatnonzero(flows.logits >= _threshold(model, len(flows)))
    if not len(flagged):
        return []
    some = flows.take(flagged)
    keys = np.stack([some.devices, some.class_ids, (some.seconds // _HOUR).astype(np.int64)])
    groups, inverse = np.unique(keys, axis=1, return_inverse=True)
    count = np.bincount(inverse)
    highest = np.full(len(count), -np.inf)
    np.maximum.at(highest, inverse, some.logits)
    seen = np.full(len(count), np.inf)
    np.minimum.at(seen, inverse, some.seconds)
    probabilities = 1 / (1 + np.exp(-highest))
    names = pa.array(CLASSES[model.card.classes]).take(pa.array(groups[1]))
    severities = DEFAULT.severities(names, count, probabilities)
    ids = np.array([_SEVERITY_IDS[name] for name in severities.to_pylist()])
    order = np.lexsort((seen, -highest, -count * probabilities, ids))[:BUDGET]
    return [flagged[inverse == group] for group in order]


_SEVERITY_IDS: Final = {name: i for i, name in enumerate(("critical", "high", "medium", "low", "informational"))}


def _threshold(model: Model, flows: int) -> float:
    scores = model.validation_scores
    if scores is None or not scores.benign_rows:
        return 0.0
    n, rate = scores.benign_rows, BUDGET / flows
    if rate >= 1:
        return -np.inf
    highest, wanted = np.array(scores.benign_tail), max(rate * n, 1.0)
    if wanted >= len(highest) and n > len(highest):
        return tail_fit.score_at_share(wanted / n, scores.benign_quantiles, highest, n)
    logit = tail_fit.score_reached_by(highest, n, wanted)[0]
    return max(logit, 0.0) if rate * n < 1 else logit
