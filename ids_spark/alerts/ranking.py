"""Incidents in order of priority, cut at the alert budget of the night."""

import datetime as dt
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ids_spark.alerts.old_incidents import AGGREGATES
from ids_spark.alerts.severity import SEVERITIES, SeverityPolicy, category_of
from ids_spark.config.score import AlertsConfig
from ids_spark.dataset.tables import OLD_INCIDENTS, SCHEMA_VERSION

_ID_LENGTH: Final = 32  # hex characters, 128 bits


@dataclass(frozen=True)
class NightFacts:
    """Values common to all incidents of one model and night; names as in `tables.OLD_INCIDENTS`.

    Attributes:
        event_date: The night.
        model, model_version: The model that scored the flows.
        threshold_logit: Flows with at least this attack logit were flagged.
        run_id, created_at: Scoring run and its time in UTC.
        data_origin: `measured` or `synthetic`.
    """

    event_date: dt.date
    model: str
    model_version: str
    threshold_logit: float
    run_id: str
    created_at: dt.datetime
    data_origin: str


def rank(merged: pa.Table, policy: SeverityPolicy, alerts: AlertsConfig, night: NightFacts) -> tuple[pa.Table, int]:
    """Return the incidents of highest priority, as `tables.OLD_INCIDENTS`, and the number of all incidents.

    Order: severity, worst first; then flows times their highest attack probability, an upper bound of the expected
    attack flows; then the highest logit, which still differs where probabilities round to 1; then the earliest first
    flow. Ties keep the order of entity kind, entity, class and window.

    Args:
        merged: From `merge`, all of the night.
        policy: Severity by class, flows and probability.
        alerts: Its `most_lines` is the maximum number of incidents to return.
        night: Values common to all of them.
    """
    flows, probabilities = merged["flows"].to_numpy(), merged["max_attack_probability"].to_numpy()
    severities = policy.severities(merged["class_name"], flows, probabilities)
    severity_ids = pc.index_in(severities, value_set=pa.array(SEVERITIES)).to_numpy()
    seen = merged["first_seen"].cast(pa.int64()).fill_null(np.iinfo(np.int64).max).to_numpy()
    order = np.lexsort((seen, -merged["max_attack_logit"].to_numpy(), -flows * probabilities, severity_ids))
    order = order[: alerts.most_lines]
    shown, severities = merged.take(pa.array(order)), severities.take(pa.array(order))
    starts = shown["window_start"].cast(pa.int64()).to_pylist()
    names = [shown[key].to_pylist() for key in ("entity_kind", "entity", "class_name")]
    constant: dict[str, Any] = {
        "model": night.model,
        "model_version": night.model_version,
        "threshold_logit": night.threshold_logit,
        "schema_version": SCHEMA_VERSION,
        "run_id": night.run_id,
        "created_at": night.created_at,
        "data_origin": night.data_origin,
    }
    columns = {
        **{name: shown[name] for name in OLD_INCIDENTS.names if name in AGGREGATES.names},
        "incident_id": pa.array([incident_id(night.event_date, *key) for key in zip(*names, starts, strict=True)]),
        "rank": pa.array(np.arange(1, len(shown) + 1)),
        "severity": severities,
        "category": pa.array([category_of(name) for name in names[2]]),
        "top_attributions": shown["attributions"],
        **{name: pa.array([value] * len(shown), OLD_INCIDENTS.field(name).type) for name, value in constant.items()},
    }
    arrays = [columns[f.name].cast(f.type) for f in OLD_INCIDENTS]
    return pa.table(arrays, schema=OLD_INCIDENTS), len(merged)


def incident_id(event_date: dt.date, kind: str, entity: str, class_name: str, window_start: int | None) -> str:
    """Return the id of an incident: 32 hex characters of a SHA-256, the same in every run and for every model.

    Args:
        event_date: The night.
        kind, entity, class_name: Column of the entity, the entity, and the predicted class.
        window_start: Microseconds since 1970 in UTC; None without an event time.
    """
    key = json.dumps([str(event_date), kind, entity, class_name, window_start])
    return hashlib.sha256(key.encode()).hexdigest()[:_ID_LENGTH]
