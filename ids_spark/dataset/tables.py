"""The contract of every table in the lake."""

from collections.abc import Iterable, Sequence
from typing import Final

import pyarrow as pa

from ids_spark.dataset.features import FeatureSchema, SchemaMismatch

SCHEMA_VERSION: Final = 1
"""Rises whenever a column of `predictions/`, `alerts/`, `drift/` or `nights/` changes its name, type or meaning."""

_TIME: Final = pa.timestamp("us", tz="UTC")
ATTRIBUTION: Final = pa.struct([("feature", pa.string()), ("value", pa.float64()), ("contribution", pa.float32())])
"""A feature, its raw value in the flow, and by how much it moved the attack score, in log-odds."""


def _contract(*columns: tuple[str, pa.DataType]) -> pa.Schema:
    return pa.schema([pa.field(name, kind) for name, kind in columns])


def flows_contract(schema: FeatureSchema) -> pa.Schema:
    """`flows/split=…`: one row for each accepted row of the source, equal rows included.

    `row_key` is a hash of the features alone; (`source_file`, `source_row`) names the row. `duplicate` marks every row
    but the first of those equal in features and label within the split; `label_conflict` marks the rows of a feature
    vector that has more than one label there. Each file holds a range of the hash; its rows are sorted by it.
    """
    return _contract(
        ("source_file", pa.string()),
        ("source_row", pa.int64()),
        ("row_key", pa.int64()),
        *((name, pa.float64()) for name in schema.features),
        ("class19", pa.string()),
        ("class6", pa.string()),
        ("class2", pa.string()),
        ("label19", pa.int32()),
        ("duplicate", pa.bool_()),
        ("label_conflict", pa.bool_()),
    )


def features_contract(columns: Iterable[str]) -> pa.Schema:
    """`features/<recipe>/split=…`: scaled features and the label at every level."""
    return _contract(
        ("row_key", pa.int64()),
        *((name, pa.float32()) for name in columns),
        ("label19", pa.int32()),
        ("label6", pa.int32()),
        ("label2", pa.int32()),
    )


QUARANTINE: Final = _contract(
    ("source_file", pa.string()),
    ("source_row", pa.int64()),
    ("split", pa.string()),
    ("label", pa.string()),
    ("reason", pa.string()),
    ("features", pa.list_(pa.string())),
    ("raw", pa.string()),
    ("run_id", pa.string()),
)

PREDICTIONS: Final = _contract(
    ("source_file", pa.string()),
    ("source_row", pa.int64()),
    ("row_key", pa.int64()),
    ("predicted_class19_id", pa.int32()),
    ("predicted_class19", pa.string()),
    ("predicted_class6_id", pa.int32()),
    ("predicted_class6", pa.string()),
    ("predicted_class2_id", pa.int32()),
    ("predicted_class2", pa.string()),
    ("probability", pa.float32()),
    ("attack_probability", pa.float32()),
    ("top3", pa.list_(pa.struct([("class_name", pa.string()), ("probability", pa.float32())]))),
    ("class19", pa.string()),
    ("class6", pa.string()),
    ("class2", pa.string()),
    ("model_version", pa.string()),
    ("run_id", pa.string()),
    ("scored_at", pa.timestamp("us", tz="UTC")),
    ("data_origin", pa.string()),
)
"""`predictions/event_date=…/model=…`: one row for each scored flow; levels finer than the model's are null."""

METRICS: Final = _contract(
    ("run_id", pa.string()),
    ("model", pa.string()),
    ("model_version", pa.string()),
    ("feature_set", pa.string()),
    ("classes", pa.int32()),
    ("split", pa.string()),
    ("class_name", pa.string()),
    ("metric", pa.string()),
    ("value", pa.float64()),
    ("support", pa.int64()),
    ("data_origin", pa.string()),
)

CONFUSION: Final = _contract(
    ("run_id", pa.string()),
    ("model", pa.string()),
    ("model_version", pa.string()),
    ("feature_set", pa.string()),
    ("classes", pa.int32()),
    ("split", pa.string()),
    ("class_name", pa.string()),
    ("predicted_class", pa.string()),
    ("count", pa.int64()),
    ("data_origin", pa.string()),
)

AUDIT: Final = _contract(
    ("run_id", pa.string()),
    ("job", pa.string()),
    ("status", pa.string()),
    ("started_at", pa.timestamp("us", tz="UTC")),
    ("finished_at", pa.timestamp("us", tz="UTC")),
    ("seconds", pa.float64()),
    ("rows_in", pa.int64()),
    ("rows_out", pa.int64()),
    ("rows_quarantined", pa.int64()),
    ("rows_duplicate", pa.int64()),
    (
        "counts",
        pa.list_(
            pa.struct(
                [("split", pa.string()), ("class_name", pa.string()), ("what", pa.string()), ("rows", pa.int64())]
            )
        ),
    ),
    ("notes", pa.list_(pa.string())),
    ("models", pa.list_(pa.string())),
    ("inputs", pa.list_(pa.string())),
    ("feature_schema", pa.string()),
    ("data_origin", pa.string()),
    ("config", pa.string()),
    ("config_sha256", pa.string()),
    ("code_version", pa.string()),
    ("error", pa.string()),
)

INCIDENTS: Final = _contract(
    ("incident_id", pa.string()),
    ("rank", pa.int32()),
    ("severity", pa.string()),
    ("class_name", pa.string()),
    ("category", pa.string()),
    ("entity_kind", pa.string()),
    ("entity", pa.string()),
    ("window_start", _TIME),
    ("first_seen", _TIME),
    ("last_seen", _TIME),
    ("flows", pa.int64()),
    ("max_attack_probability", pa.float32()),
    ("max_attack_logit", pa.float32()),
    ("top_attributions", pa.list_(ATTRIBUTION)),
    ("model", pa.string()),
    ("model_version", pa.string()),
    ("threshold_logit", pa.float32()),
    ("schema_version", pa.int32()),
    ("run_id", pa.string()),
    ("created_at", _TIME),
    ("data_origin", pa.string()),
)
"""`alerts/`: one row for each incident within the night's budget.

An incident is all flagged flows of one entity, one predicted class and one window of time. `entity` is the value of the
first of `alerts.entities` that the flows carry, `entity_kind` that column's name (`source_file` where there is none).
`window_start`, `first_seen` and `last_seen` are null where flows carry no event time. `top_attributions` are those of
the flow with the highest score. `rank` counts from 1.
"""

DRIFT: Final = _contract(
    ("kind", pa.string()),
    ("name", pa.string()),
    ("psi", pa.float64()),
    ("drift_level", pa.string()),
    ("rows", pa.int64()),
    ("below_range", pa.int64()),
    ("above_range", pa.int64()),
    ("saturated", pa.int64()),
    ("edges", pa.list_(pa.float64())),
    ("expected", pa.list_(pa.float64())),
    ("counts", pa.list_(pa.int64())),
    ("model", pa.string()),
    ("model_version", pa.string()),
    ("run_id", pa.string()),
    ("data_origin", pa.string()),
)
"""`drift/`: one row for each feature (`kind` feature) and one for the mix of predicted classes (`kind` class_mix).

`edges`, the inner edges of the bins, are in raw units; a value at an edge is in the upper bin. `expected` are shares of
the benign train rows (class mix: of the predictions for benign validation rows), `counts` the night's flows, in the
same bins. `below_range` and `above_range` are flows beyond what train held, `saturated` those among them that are
infinite. `drift_level` may be `too_few_rows`; `psi` is null without rows.
"""

NIGHTS: Final = _contract(
    ("run_id", pa.string()),
    ("role", pa.string()),
    ("model", pa.string()),
    ("model_version", pa.string()),
    ("model_sha256", pa.string()),
    ("rows_in", pa.int64()),
    ("rows_scored", pa.int64()),
    ("rows_quarantined", pa.int64()),
    ("rows_late", pa.int64()),
    ("rows_of_another_date", pa.int64()),
    ("files", pa.list_(pa.struct([("name", pa.string()), ("rows", pa.int64()), ("reason", pa.string())]))),
    ("extra_columns", pa.list_(pa.string())),
    ("quarantine", pa.list_(pa.struct([("reason", pa.string()), ("rows", pa.int64())]))),
    ("warnings", pa.list_(pa.struct([("rule", pa.string()), ("rows", pa.int64())]))),
    (
        "class_mix",
        pa.list_(pa.struct([("hour", pa.int32()), ("class_name", pa.string()), ("flows", pa.int64())])),
    ),
    ("flows_flagged", pa.int64()),
    ("flows_allowed", pa.int64()),
    ("flows_explained", pa.int64()),
    ("incidents", pa.int64()),
    ("incidents_shown", pa.int64()),
    ("budget", pa.int64()),
    ("threshold_logit", pa.float64()),
    ("expected_false_alarms", pa.float64()),
    ("false_alarms_at_most", pa.float64()),
    ("benign_validation_rows", pa.int64()),
    ("smallest_rate", pa.float64()),
    ("drift_moderate", pa.int64()),
    ("drift_significant", pa.int64()),
    ("seconds", pa.float64()),
    ("scored_at", _TIME),
    ("code_version", pa.string()),
    ("schema_version", pa.int32()),
    ("data_origin", pa.string()),
)
"""`nights/`: one row for each model that scored the night (`role` champion or challenger), for the page and the trend.

`files` names every file found, with the reason where one could not be read (then `rows` is 0). `flows_allowed` are
flagged flows that an allow-list entry covers. `hour` of `class_mix` is null where flows carry no event time.
`rows_late` are rows of files, or of parts of them, that came after the date was first scored.
`false_alarms_at_most` is the upper end of a 95 % interval.
"""

TOP: Final = pa.struct([("class_name", pa.string()), ("probability", pa.float32())])


def night_predictions(pass_through: Sequence[str], event_time: str, groups: Sequence[str]) -> pa.Schema:
    """`predictions/` of a night: one row for each scored flow, `columns` as asked for.

    Always: where the flow stands (`source_file`, `source_row`), the pass-through columns (`event_time` as a time, all
    others as text), the predicted class at 2 classes, `attack_probability` (the score), `attack_logit` (the same in
    log-odds, which the threshold is of), `alert` (score at or above the night's threshold, and on no allow-list),
    `severity` (null where there is no alert), and by what the row was scored. Group `levels` adds classes and ids at
    every level up to the model's, `top3` the three most probable classes, `attributions` the features that moved the
    score of alerted rows most, `lineage` the hash of the features. `model` stands in the path, `model=…`, not in the files. A flow for
    which the model has no finite score has no row; it is in quarantine.
    """
    wanted = set(groups)
    levels = [
        (f"predicted_class{n}{end}", kind) for n in (19, 6, 2) for end, kind in (("_id", pa.int32()), ("", pa.string()))
    ]
    return _contract(
        ("source_file", pa.string()),
        ("source_row", pa.int64()),
        *((name, _TIME if name == event_time else pa.string()) for name in pass_through),
        *((("row_key", pa.int64()),) if "lineage" in wanted else ()),
        *(levels if "levels" in wanted else levels[-1:]),
        ("probability", pa.float32()),
        ("attack_probability", pa.float32()),
        ("attack_logit", pa.float32()),
        ("alert", pa.bool_()),
        ("severity", pa.string()),
        *((("top3", pa.list_(TOP)),) if "top3" in wanted else ()),
        *((("attributions", pa.list_(ATTRIBUTION)),) if "attributions" in wanted else ()),
        ("model", pa.string()),
        ("model_version", pa.string()),
        ("schema_version", pa.int32()),
        ("run_id", pa.string()),
        ("scored_at", _TIME),
        ("data_origin", pa.string()),
    )


def require(found: pa.Schema, wanted: pa.Schema, where: str) -> None:
    """Check that every wanted column is there with the wanted type; more columns are allowed.

    Raises:
        SchemaMismatch: lists every missing column and every other type at once.
    """
    faults = []
    for field in wanted:
        if field.name not in found.names:
            faults.append(f"column {field.name!r} is missing (expected {field.type})")
        elif not found.field(field.name).type.equals(field.type):
            faults.append(f"column {field.name!r} is {found.field(field.name).type}, expected {field.type}")
    if faults:
        raise SchemaMismatch(f"{where}: {'; '.join(faults)}. Rerun the job that writes this table with this version")
