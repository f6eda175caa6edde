"""The contract of every table in the lake, and `TABLES`, the one list of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from string import Formatter
from typing import Final, Literal

import pyarrow as pa

from ids_spark.base.names import date_of
from ids_spark.dataset.features import SchemaMismatch

SCHEMA_VERSION: Final = 3
"""Incremented when a column of `predictions/`, `alerts/`, `drift/` or `nights/` changes its name, type or meaning.

Version 0.1 wrote 1, 0.2 wrote 2.
"""

_TIME: Final = pa.timestamp("us", tz="UTC")
ATTRIBUTION: Final = pa.struct([("feature", pa.string()), ("value", pa.float64()), ("contribution", pa.float32())])
"""A feature, its raw value in the flow, and its contribution to the attack score, in log-odds."""
STATES: Final = ("benign", "attack", "unknown")
"""States of a flow in predictions: not flagged, flagged by the network, flagged by the second detector alone."""
TOP: Final = pa.struct([("class_name", pa.string()), ("probability", pa.float32())])
"""A class and its probability."""


def _contract(*columns: tuple[str, pa.DataType]) -> pa.Schema:
    return pa.schema([pa.field(name, kind) for name, kind in columns])


FLOW_ORIGIN: Final = _contract(
    ("origin", pa.string()),
    ("event_date", pa.date32()),
    ("event_time", _TIME),
    ("place", pa.float64()),
    ("device", pa.string()),
    ("left_out", pa.string()),
)
"""Columns of `flows/` that say where a row comes from, which older versions did not write."""


def flows_contract(features: Iterable[str]) -> pa.Schema:
    """`flows/split=…`: one row for each accepted row of the source, duplicates included.

    `row_key` is a hash of the features alone; (`source_file`, `source_row`) identifies the row. `duplicate` marks all
    rows except the first of those equal in features and label within the split; `label_conflict` marks the rows of a
    feature vector that has more than one label in the split. Each file is sorted by the hash. Files `part-…` hold a
    range of it each; files `copies-…`, if there are any, more rows of vectors with very many, all of them duplicates.

    Split `local` holds flows of the site's own nights, all of class Benign: `origin` is `local`, that of other splits
    `dataset`. Only they have a night (`event_date`), an `event_time`, a `place` and a `device`, its pseudonym if the
    column is pseudonymised; null where the flow logs have none. `left_out` is the reason why a row is not used for
    training, null if it is. `source_file` is the capture if the logs name one, else the file of the logs below their
    folder; `source_row` the position in it, and `place` the same as a share of its rows, above 0 and below 1.
    """
    return _contract(
        ("source_file", pa.string()),
        ("source_row", pa.int64()),
        ("row_key", pa.int64()),
        *((name, pa.float64()) for name in features),
        ("class19", pa.string()),
        ("class6", pa.string()),
        ("class2", pa.string()),
        ("label19", pa.int32()),
        ("duplicate", pa.bool_()),
        ("label_conflict", pa.bool_()),
        *((column.name, column.type) for column in FLOW_ORIGIN),
    )


def features_contract(columns: Iterable[str], local: bool = False) -> pa.Schema:
    """`features/<recipe>/split=…`: scaled features and the label at every level.

    `block` is, for benign validation rows that were held out as a run of rows of their source file, the id of that run;
    for held-out rows of local nights that of their night and device, or source file without one; null for all others.
    `local` is, for rows of local nights, the number of train rows of their group (`features.local_balance`), at least
    1, and 0 for others; tables without rows of local nights lack the column.

    Args:
        columns: Names of the scaled features.
        local: Whether the table has rows of local nights.
    """
    return _contract(
        ("row_key", pa.int64()),
        *((name, pa.float32()) for name in columns),
        ("label19", pa.int32()),
        ("label6", pa.int32()),
        ("label2", pa.int32()),
        ("block", pa.int32()),
        *((("local", pa.int32()),) if local else ()),
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
"""`quarantine/…`: one row for each row that was refused; `reason` is that of the first fault, `features` the columns at
fault (null: the row could not be read), `raw` the values of its features as JSON."""


def night_quarantine(pass_through: Sequence[str], event_time: str) -> pa.Schema:
    """`quarantine/job=score/event_date=…`: as `QUARANTINE`, with the pass-through columns as in `night_predictions`.

    They are null where they could not be read. `scored` says whether the row is in `predictions/` as well, with the
    only feature at fault at its benign median. A pass-through column with the name of a column of `QUARANTINE` is left
    out.
    """
    own = (*QUARANTINE.names, "scored")
    passed = ((name, _TIME if name == event_time else pa.string()) for name in pass_through if name not in own)
    return _contract(*((field.name, field.type) for field in QUARANTINE), *passed, ("scored", pa.bool_()))


SPLIT_PREDICTIONS: Final = _contract(
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
    ("top3", pa.list_(TOP)),
    ("class19", pa.string()),
    ("class6", pa.string()),
    ("class2", pa.string()),
    ("model_version", pa.string()),
    ("run_id", pa.string()),
    ("scored_at", _TIME),
    ("data_origin", pa.string()),
)
"""`split_predictions/split=…/model=…`: one row for each scored flow; levels finer than the model's are null."""

METRICS: Final = _contract(
    ("run_id", pa.string()),
    ("model", pa.string()),
    ("model_version", pa.string()),
    ("feature_set", pa.string()),
    ("classes", pa.int32()),
    ("of_classes", pa.int32()),
    ("split", pa.string()),
    ("subset", pa.string()),
    ("class_name", pa.string()),
    ("metric", pa.string()),
    ("value", pa.float64()),
    ("low", pa.float64()),
    ("high", pa.float64()),
    ("support", pa.int64()),
    ("data_origin", pa.string()),
)
"""`metrics/`: one figure a row; `evaluate.metrics` and `evaluate.night_metrics` define them.

`classes` is the level of the figure, `of_classes` that of the model (null: the same): figures of a coarser level are
from the sums of its probabilities. `low` and `high` are the 95 % interval of a bootstrap over rows; null without one.
`subset` names the rows: null for all labelled rows of the split; `unseen` and `seen`: those whose vector does not, and
does, stand in train; `file=NAME`: those of one capture file. `value` is null where the rows do not support one."""

CONFUSION: Final = _contract(
    ("run_id", pa.string()),
    ("model", pa.string()),
    ("model_version", pa.string()),
    ("feature_set", pa.string()),
    ("classes", pa.int32()),
    ("of_classes", pa.int32()),
    ("split", pa.string()),
    ("subset", pa.string()),
    ("class_name", pa.string()),
    ("predicted_class", pa.string()),
    ("count", pa.int64()),
    ("data_origin", pa.string()),
)
"""`confusion/`: rows of a class predicted as another; `of_classes` and `subset` as in `METRICS`."""

AUDIT: Final = _contract(
    ("run_id", pa.string()),
    ("job", pa.string()),
    ("status", pa.string()),
    ("started_at", _TIME),
    ("finished_at", _TIME),
    ("seconds", pa.float64()),
    ("rows_in", pa.int64()),
    ("rows_out", pa.int64()),
    ("rows_quarantined", pa.int64()),
    ("rows_duplicate", pa.int64()),
    ("rows_joined", pa.int64()),
    ("rows_left_out", pa.int64()),
    ("rows_imputed", pa.int64()),
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
    ("aliases", pa.list_(pa.struct([("model", pa.string()), ("changed_at", _TIME), ("sha256", pa.string())]))),
    ("actor", pa.string()),
    ("host", pa.string()),
    ("previous", pa.list_(pa.string())),
    ("sha256", pa.string()),
)

_ENTITY: Final = pa.struct([("kind", pa.string()), ("name", pa.string()), ("flows", pa.int64())])
INVENTORY: Final = pa.struct(
    [
        ("kind", pa.string()),
        ("name", pa.string()),
        ("device", pa.string()),
        ("type", pa.string()),
        ("department", pa.string()),
        ("patient_connected", pa.bool_()),
        ("criticality", pa.int32()),
        ("owner", pa.string()),
        ("maintenance", pa.string()),
    ]
)
"""What the inventory says of an entity. `device` is its name there, null with `owner` if `name` is a pseudonym."""
_LEARNED: Final = pa.struct(
    [
        ("kind", pa.string()),
        ("entity", pa.string()),
        ("category", pa.string()),
        ("flagged", pa.list_(pa.int64())),
        ("flows", pa.int64()),
    ]
)

INCIDENTS: Final = _contract(
    ("incident_id", pa.string()),
    ("rank", pa.int32()),
    ("state", pa.string()),
    ("shown", pa.bool_()),
    ("severity", pa.string()),
    ("category", pa.string()),
    ("classes", pa.list_(pa.struct([("class_name", pa.string()), ("flows", pa.int64()), ("share", pa.float32())]))),
    ("sources", pa.list_(_ENTITY)),
    ("sources_found", pa.int64()),
    ("devices", pa.list_(_ENTITY)),
    ("devices_found", pa.int64()),
    ("targets", pa.list_(pa.string())),
    ("first_seen", _TIME),
    ("last_seen", _TIME),
    ("flows", pa.int64()),
    ("flows_allowed", pa.int64()),
    ("alerts", pa.int64()),
    ("lead_kind", pa.string()),
    ("lead_entity", pa.string()),
    ("lead_window", _TIME),
    ("lead_flagged", pa.int64()),
    ("lead_flows", pa.int64()),
    ("lead_expected", pa.float64()),
    ("own_rate", pa.float64()),
    ("own_nights", pa.int32()),
    ("own_peers", pa.int32()),
    ("peer_rate", pa.float64()),
    ("log10_p", pa.float64()),
    ("posterior", pa.float64()),
    ("criticality_factor", pa.float64()),
    ("score", pa.float64()),
    ("life", pa.string()),
    ("since", pa.date32()),
    ("nights_seen", pa.int32()),
    ("previous_id", pa.string()),
    ("verdict", pa.string()),
    ("verdict_until", pa.date32()),
    ("verdict_owner", pa.string()),
    ("verdict_reason", pa.string()),
    ("learning", pa.string()),
    ("strong", pa.bool_()),
    ("inventory", pa.list_(INVENTORY)),
    ("flows_in_maintenance", pa.int64()),
    ("max_attack_probability", pa.float32()),
    ("max_attack_logit", pa.float32()),
    (
        "top_flows",
        pa.list_(
            pa.struct(
                [
                    ("source_file", pa.string()),
                    ("source_row", pa.int64()),
                    ("class_name", pa.string()),
                    ("device", pa.string()),
                    ("source", pa.string()),
                    ("window_start", _TIME),
                    ("attack_logit", pa.float32()),
                    ("attributions", pa.list_(ATTRIBUTION)),
                ]
            )
        ),
    ),
    ("model", pa.string()),
    ("model_version", pa.string()),
    ("threshold_logit", pa.float32()),
    ("schema_version", pa.int32()),
    ("run_id", pa.string()),
    ("created_at", _TIME),
    ("listed_at", _TIME),
    ("data_origin", pa.string()),
)
"""`incidents/`: one row for each incident of the night, shown or not.

An incident is a set of alerts (see `ALERTS`) that belong to one attack: the same entity in adjacent windows, or alerts
that share most of their flows. `category` is that of its alerts, also `Unknown` or `Quarantined`. `classes` are the
predicted attack classes by flagged flows, `share` each class's part of the attack probability: first the class that
gives the severity, then by share. `sources` and `devices` are the entities with the most flagged flows, at most 20,
`…_found` their number; both may be empty. `flows` are flagged flows that no allow-list entry covers, each counted in
one incident only.

`lead_…` describe its most significant alert: entity, window (null without event times), flagged flows at the level
that gave its p-value, all flows of the entity in that window, and the flagged flows that false alarms explain.
`own_rate` is the entity's share of flows flagged at that level in earlier nights (null without any), over `own_nights`
nights, and of `own_peers` devices of its type if its own were too few; `peer_rate` that of all entities tonight.
`log10_p` is that alert's p-value; `posterior` the probability of an attack at most, by a Bayes factor bound; `score`,
the severity's weight times the posterior times `criticality_factor` (null: 1), gives the order. `inventory` says what
is known of its devices and sources, `flows_in_maintenance` how many of its flows are in a time of maintenance.

`state` is `open`, `muted`, `closed`, `learned` or `learning`; `shown` whether it is within the most lines of the page
and exports. `learning` says who is learning, the `site` or all of its devices (`device`), null for neither; its
incidents without `strong` evidence (see `alerts.learning`) have the state `learning`, unless they were called `true`.
`rank` counts from 1 over open incidents and is null for others. `life` is `new`, `continuing` or `returned`, `since`
the first night of the same entities and category, `nights_seen` the nights of the last seven, tonight included,
`previous_id` the incident of the night before tonight that it continues. `verdict_…` are the newest verdict on it.
`listed_at` is when the first run at its date listed it (`alerts.looks`); null in files of older versions.
"""

ALERTS: Final = _contract(
    ("incident_id", pa.string()),
    ("entity_kind", pa.string()),
    ("entity", pa.string()),
    ("is_source", pa.bool_()),
    ("window_start", _TIME),
    ("category", pa.string()),
    ("flagged", pa.list_(pa.int64())),
    ("flows", pa.int64()),
    ("expected", pa.list_(pa.float64())),
    ("level", pa.int32()),
    ("log10_p", pa.float64()),
    ("log10_p_learned", pa.float64()),
    ("own_rate", pa.float64()),
    ("own_nights", pa.int32()),
    ("own_peers", pa.int32()),
    ("peer_rate", pa.float64()),
    ("inventory", INVENTORY),
    ("in_maintenance", pa.bool_()),
    ("first_seen", _TIME),
    ("last_seen", _TIME),
    ("schema_version", pa.int32()),
    ("run_id", pa.string()),
)
"""`alerts/`: one row for each significant cell: an entity, a window of time and a category with more flagged flows than
false alarms explain.

`flagged` counts its flagged flows at each level of `threshold.RATES`, without those on the allow-list; `flows` are all
flows of the entity in that window; `expected` the flagged flows that false alarms explain at each level. `level` is the
index of the level with the smallest p-value. `log10_p_learned`, at least `log10_p`, takes `benign` verdicts into
account. `own_rate`, `own_nights`, `own_peers` and `peer_rate` are those of `INCIDENTS`, for this alert. `inventory` is
what is known of its entity; `in_maintenance` whether all of its flagged flows are in a time of maintenance of their
device or source.
"""

EVIDENCE: Final = _contract(
    ("device_kind", pa.string()),
    ("device", pa.string()),
    ("source_kind", pa.string()),
    ("source", pa.string()),
    ("window_start", _TIME),
    ("class_name", pa.string()),
    *((f"flagged_{level}", pa.int32()) for level in (1, 2, 3)),
    *((f"allowed_{level}", pa.int32()) for level in (1, 2, 3)),
    ("probability_sum", pa.float32()),
    ("first_seen", _TIME),
    ("last_seen", _TIME),
    ("max_attack_probability", pa.float32()),
    ("max_attack_logit", pa.float32()),
    ("top_file", pa.string()),
    ("top_row", pa.int64()),
    ("top_score", pa.float32()),
    ("top_target", pa.string()),
    ("top_attributions", pa.list_(ATTRIBUTION)),
    ("folded_sources", pa.int32()),
)
"""`evidence/`: flagged flows of one device, one source, one window of time and one predicted attack class.

`flagged_1` to `flagged_3` count flows at or above the levels of `threshold.RATES`, `allowed_…` those of them that the
allow-list covers. A null device or source: the flows have none. `top_…` is the flow with the highest score: its
attack logit, or its distance if the second detector flagged it (class `Unknown`). Where very many sources sent a single
flagged flow each, these are one row of kind `many` without a source; `folded_sources` is their number, else 0.
"""

TRAFFIC: Final = _contract(
    ("entity_key", pa.int64()),
    ("is_source", pa.bool_()),
    ("window_start", _TIME),
    ("flows", pa.int32()),
)
"""`traffic/`: all scored flows of each entity and window of time, flagged or not. `entity_key` is a hash of kind and
name (`evidence.entity_keys`), because a night may have millions of addresses."""

HISTORY: Final = _contract(
    ("entity_key", pa.int64()),
    ("category", pa.string()),
    ("flagged", pa.list_(pa.int64())),
    ("expected", pa.list_(pa.float64())),
    ("flows", pa.int64()),
)
"""`entity_history/`: flagged flows at each level of `threshold.RATES` of each entity and category, in the windows of
the night whose count false alarms explain. `expected` are the flagged flows that the night's rates of false alarms
explain, `flows` all flows of these windows. Entities with few flows, or with many that were scored with a feature at
its benign median, are left out."""

VERDICTS: Final = _contract(
    ("event_date", pa.date32()),
    ("incident_id", pa.string()),
    ("verdict", pa.string()),
    ("until", pa.date32()),
    ("owner", pa.string()),
    ("reason", pa.string()),
    ("category", pa.string()),
    ("entities", pa.list_(_ENTITY)),
    ("learned", pa.list_(_LEARNED)),
    ("incident", pa.string()),
    ("run_id", pa.string()),
    ("created_at", _TIME),
)
"""`verdicts/{run_id}.parquet`: what people decided about incidents.

`verdict` is `true`, `benign`, `mute`, `close` or `unlearn`; `until` the last night of a `mute`. `entities` are those of
the incident's alerts. `learned`, for `benign`: of each entity and category the windows with most flagged flows.
"""

DRIFT: Final = _contract(
    ("kind", pa.string()),
    ("name", pa.string()),
    ("drift_index", pa.float64()),
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
same bins. `below_range` and `above_range` count flows outside the range of train, `saturated` the infinite ones among
them. `drift_level` may be `too_few_rows`; `drift_index` is null without rows.
"""

_COUNTED: Final = pa.list_(pa.struct([("name", pa.string()), ("packets", pa.int64())]))
_PACKETS: Final = pa.struct(
    [
        ("captures", pa.int64()),
        ("window_lengths", pa.list_(pa.int64())),
        ("seen", pa.int64()),
        ("invisible", _COUNTED),
        ("marks", _COUNTED),
    ]
)

_REFUSED_OF: Final = pa.struct(
    [
        ("kind", pa.string()),
        ("name", pa.string()),
        ("rows", pa.int64()),
        ("flows", pa.int64()),
        ("scored", pa.int64()),
        ("flagged", pa.int64()),
        ("reason", pa.string()),
    ]
)

NIGHTS: Final = _contract(
    ("run_id", pa.string()),
    ("role", pa.string()),
    ("model", pa.string()),
    ("model_version", pa.string()),
    ("model_sha256", pa.string()),
    ("rows_in", pa.int64()),
    ("rows_scored", pa.int64()),
    ("rows_quarantined", pa.int64()),
    ("rows_imputed", pa.int64()),
    ("rows_late", pa.int64()),
    ("rows_of_another_date", pa.int64()),
    ("files", pa.list_(pa.struct([("name", pa.string()), ("rows", pa.int64()), ("reason", pa.string())]))),
    ("files_sha256", pa.string()),
    ("extra_columns", pa.list_(pa.string())),
    ("quarantine", pa.list_(pa.struct([("reason", pa.string()), ("rows", pa.int64())]))),
    ("quarantine_usual", pa.float64()),
    ("quarantine_entities", pa.list_(_REFUSED_OF)),
    ("quarantine_entities_found", pa.int64()),
    ("warnings", pa.list_(pa.struct([("rule", pa.string()), ("rows", pa.int64())]))),
    ("degraded", pa.list_(pa.struct([("reason", pa.string()), ("text", pa.string())]))),
    ("unread_times", pa.list_(pa.struct([("type", pa.string()), ("rows", pa.int64())]))),
    ("unread_columns", pa.list_(pa.struct([("name", pa.string()), ("rows", pa.int64())]))),
    ("packets", _PACKETS),
    (
        "class_mix",
        pa.list_(pa.struct([("hour", pa.int32()), ("class_name", pa.string()), ("flows", pa.int64())])),
    ),
    ("flows_flagged", pa.int64()),
    ("flows_allowed", pa.int64()),
    ("flows_explained", pa.int64()),
    ("incidents", pa.int64()),
    ("incidents_shown", pa.int64()),
    ("incidents_muted", pa.int64()),
    ("incidents_learned", pa.int64()),
    ("incidents_closed", pa.int64()),
    ("incidents_learning", pa.int64()),
    ("incidents_ended", pa.list_(pa.struct([("incident_id", pa.string()), ("text", pa.string())]))),
    (
        "incidents_not_shown",
        pa.list_(pa.struct([("category", pa.string()), ("entity", pa.string()), ("incidents", pa.int64())])),
    ),
    ("flows_unknown", pa.int64()),
    ("false_incidents", pa.float64()),
    ("false_incidents_expected", pa.float64()),
    ("run_of_night", pa.int32()),
    ("runs_per_night", pa.int32()),
    ("alpha", pa.float64()),
    ("cells", pa.int64()),
    (
        "false_alarm_rates",
        pa.list_(
            pa.struct(
                [
                    ("category", pa.string()),
                    ("rate", pa.float64()),
                    ("threshold_logit", pa.float64()),
                    ("reached", pa.int64()),
                    ("benign_rows", pa.int64()),
                    ("stored", pa.float64()),
                    ("tonight", pa.float64()),
                    ("used", pa.float64()),
                ]
            )
        ),
    ),
    ("recall", pa.list_(pa.struct([("class_name", pa.string()), ("rows", pa.int64()), ("recall", pa.float64())]))),
    ("budget", pa.int64()),
    ("stage", pa.string()),
    ("stage_text", pa.string()),
    ("nights_scored", pa.int64()),
    ("champion_nights", pa.int64()),
    ("devices_learning", pa.int64()),
    ("devices_unknown", pa.list_(_ENTITY)),
    ("devices_unknown_found", pa.int64()),
    ("threshold_logit", pa.float64()),
    ("expected_false_alarms", pa.float64()),
    ("false_alarms_at_most", pa.float64()),
    ("benign_validation_rows", pa.int64()),
    ("smallest_rate", pa.float64()),
    ("drift_moderate", pa.int64()),
    ("drift_significant", pa.int64()),
    ("page_inputs", pa.string()),
    ("key_id", pa.string()),
    ("seconds", pa.float64()),
    ("scored_at", _TIME),
    ("code_version", pa.string()),
    ("schema_version", pa.int32()),
    ("data_origin", pa.string()),
)
"""`nights/`: one row for each model that scored the night (`role` champion or challenger), for the page and the trend.

`files` lists every file found, with the reason if one could not be read (then `rows` is 0). `files_sha256` is of their
names, rows and footers, those that hold no flows left out; null in files of older versions. `flows_allowed` are
flagged flows that match an allow-list entry. `hour` of `class_mix` is null if flows have no event time.
`rows_late` are rows of files, or of parts of files, that arrived after the date was first scored as a whole.
`degraded` lists why the figures do not describe the whole traffic of the date; a date without flow logs has a row with
the reason `missing`. `unread_times` counts flows with a value that is no event time, by the type of the column;
`unread_columns` those without the value of a pass-through column that was too large to read. All three are null in
files of older versions.
`rows_in` = `rows_scored` + `rows_quarantined`. `rows_imputed` are those of the quarantined rows that were scored as
well, with the only feature at fault at its benign median; so `predictions/` has `rows_scored` + `rows_imputed` rows,
which are what `flows_flagged` and `expected_false_alarms` are of. Drift and `class_mix` are of the scored rows alone.
`quarantine_usual` is the highest share of quarantined rows that is usual (see `score.degradation`).
`quarantine_entities` lists devices and sources with quarantined rows, those with most flagged rows first, and
`quarantine_entities_found` is their number; `rows` are quarantined, of all `flows` of the entity, `scored` and
`flagged` those of them that were imputed, and flagged then; `reason` is the most frequent one. Null in files of older
versions.
`packets` are those of the `captures` that the flow logs were extracted from (null if their number is unknown): `seen`
in all, `invisible` those that no flow describes, by kind of `extract.packets.KINDS` and `single` (alone, so in no
window), `marks` those with a mark of `extract.packets.MARKS`; null for logs without captures, and in files of older
versions.
`false_alarms_at_most` is the upper end of a 95 % interval.

`stage` is `learning`, `provisional` or `operating` (see `score.stages`), `stage_text` what that means, `nights_scored`
the scored nights of the 28 dates before, `champion_nights` those of this model and version, `devices_learning` the
devices of the night that are new. `devices_unknown` are devices that the inventory lacks, those with most flows, and
`devices_unknown_found` their number; null without an inventory.

`false_incidents` is the budget N, `false_incidents_expected` the expectation that the attained levels give, in all runs
at the date, `alpha` the p-value from which a cell is an alert, `cells` the cells tested. `run_of_night` says after
which of `runs_per_night` equal parts of the date it was scored; null in files of older versions.
`false_alarm_rates` has for each category and level of `threshold.RATES` the rate of false alarms among validation
rows, tonight's outside of alerts, and the one used. `recall` is that of each attack class of the validation rows at
the operating point. `incidents_not_shown` counts open incidents beyond the most lines, `incidents_ended` lists those
of the night before that did not continue. `page_inputs`, only of the champion, is what page and exports need beside
the tables, as JSON (`score.night_outputs.PageInputs`). `key_id` is the id of the key of pseudonyms; null without one,
and in files of older versions.
"""


def night_predictions(pass_through: Sequence[str], event_time: str, groups: Sequence[str]) -> pa.Schema:
    """`predictions/` of a night: one row for each scored flow, with the column groups of `score.columns`.

    Always: file and row of the flow (`source_file`, `source_row`), the pass-through columns (`event_time` as a time,
    all others as text), the predicted class at 2 classes, `attack_probability` (the score), `attack_logit` (the same in
    log-odds), `state` (`benign`; `attack`: at or above the operating point of the network; `unknown`: below it, and at
    or above that of the second detector), `flagged` (not benign, and on no allow-list), `severity` (null if not
    flagged), and the model and run that scored the row. Group `levels` adds classes and ids at every level up to the
    model's, `top3` the three most probable classes, `attributions` the features that contributed most to the score of
    some flagged rows, `lineage` the hash of the features. `model` is part of the path, `model=…`, not of the files.
    `imputed` names the feature that was at fault and therefore scored at its benign median, null for all others; these
    rows are in quarantine too. Other refused rows have no row here.
    """
    chosen = set(groups)
    levels = [
        (f"predicted_class{n}{end}", kind) for n in (19, 6, 2) for end, kind in (("_id", pa.int32()), ("", pa.string()))
    ]
    return _contract(
        ("source_file", pa.string()),
        ("source_row", pa.int64()),
        *((name, _TIME if name == event_time else pa.string()) for name in pass_through),
        *((("row_key", pa.int64()),) if "lineage" in chosen else ()),
        *(levels if "levels" in chosen else levels[-1:]),
        ("probability", pa.float32()),
        ("attack_probability", pa.float32()),
        ("attack_logit", pa.float32()),
        ("state", pa.string()),
        ("flagged", pa.bool_()),
        ("severity", pa.string()),
        ("imputed", pa.string()),
        *((("top3", pa.list_(TOP)),) if "top3" in chosen else ()),
        *((("attributions", pa.list_(ATTRIBUTION)),) if "attributions" in chosen else ()),
        ("model", pa.string()),
        ("model_version", pa.string()),
        ("schema_version", pa.int32()),
        ("run_id", pa.string()),
        ("scored_at", _TIME),
        ("data_origin", pa.string()),
    )


def require(found: pa.Schema, expected: pa.Schema, where: str) -> None:
    """Check that every expected column is present with the expected type; more columns are allowed.

    Raises:
        SchemaMismatch: lists every missing column and every wrong type at once.
    """
    faults = []
    for column in expected:
        if column.name not in found.names:
            faults.append(f"column {column.name!r} is missing (expected {column.type})")
        elif not found.field(column.name).type.equals(column.type):
            faults.append(f"column {column.name!r} is {found.field(column.name).type}, expected {column.type}")
    if faults:
        raise SchemaMismatch(f"{where}: {'; '.join(faults)}. Rerun the job that writes this table with this version")


Retention = Literal["event_date", "run_id", "modified", "nights", "rows", "never"]


@dataclass(frozen=True)
class Table:
    """One table of the lake, or folder of other files.

    Attributes:
        path: Path of one partition, or of the file of one run, below the lake's root; `{name}` is replaced by a value.
        contract: Columns that every file has. `flows` and `features` also have those of a feature schema
            (`flows_contract`, `features_contract`), `predictions` those chosen by settings (`night_predictions`).
            Without columns: files that are not parquet.
        keys: Columns that identify a row, together with the values in the path.
        partition: Column that is part of the path of a partition, not of its files; None: the table has no partitions.
        retention: Date that `jobs/purge.py` compares: that in `event_date=…` (`event_date`), that at the start of the
            run id in the path (`run_id`), the day on which the newest file was written (`modified`), the oldest night
            that it was made of (`nights`), or one of each row (`rows`); `never`: the job does not purge the table.
        remains: What a purge leaves, and why; empty if nothing of an old date is left.
        renamed: Name in version 0.1, by present name of the column.
        added: Columns that older versions did not write; read as null.
    """

    path: str
    contract: pa.Schema
    keys: tuple[str, ...] = ()
    partition: str | None = None
    retention: Retention = field(kw_only=True)
    remains: str = ""
    renamed: Mapping[str, str] = field(default_factory=dict)
    added: tuple[str, ...] = ()

    def place(self, **values: object) -> str:
        """Return the path of the partitions with the given values, for example of `event_date`; without values, of all.

        Raises:
            ValueError: a value is not part of the path, or needs another value before it.
        """
        folders, left = [], dict(values)
        for folder in self.path.split("/"):
            names = [name for _, name, _, _ in Formatter().parse(folder) if name]
            if not all(name in values for name in names):
                break
            folders.append(folder.format(**{name: left.pop(name) for name in names}))
        if left:
            raise ValueError(f"{self.path}: found unexpected value(s) {', '.join(left)}")
        return "/".join(folders)

    def keys_in_path(self) -> tuple[str, ...]:
        """Return the names whose values are folders `name=value` of the path, such as `event_date`."""
        return tuple(folder.partition("=")[0] for folder in self.path.split("/") if "=" in folder)

    def values_in(self, path: str) -> dict[str, object]:
        """Return the value of each of `keys_in_path` in the path of a file; `event_date` as a date.

        None if the path lacks it, or has no date: a folder that was made by hand.
        """
        given = dict(part.split("=", 1) for part in path.split("/")[:-1] if "=" in part)
        found: dict[str, object] = {key: given.get(key) for key in self.keys_in_path()}
        if "event_date" in found:
            try:
                found["event_date"] = date_of(given.get("event_date", ""))
            except ValueError:
                found["event_date"] = None
        return found


_ROW: Final = ("source_file", "source_row")
_OF_INVENTORY: Final = ("inventory", "own_peers")
_FEATURE_SET: Final = {"feature_set": "profile"}


def _of_nights(
    name: str,
    contract: pa.Schema,
    keys: tuple[str, ...] = (),
    path: str = "",
    added: tuple[str, ...] = (),
    remains: str = "",
    **old: str,
) -> Table:
    place = f"{name}/event_date={{event_date}}{path}"
    return Table(place, contract, keys, "event_date", retention="event_date", renamed=old, added=added, remains=remains)


TABLES: Final[Mapping[str, Table]] = {
    "flows": Table(
        "flows/split={split}",
        flows_contract(()),
        _ROW,
        "split",
        retention="rows",
        remains="rows of the data set, which are of no night",
        renamed={"label_conflict": "two_label"},
        added=tuple(FLOW_ORIGIN.names),
    ),
    "features": Table(
        "features/{recipe}/split={split}",
        features_contract((), local=True),
        ("row_key", "label19"),
        "split",
        retention="nights",
        remains="recipes without rows of removed nights",
        added=("block", "local"),
    ),
    "quarantine/job=ingest": Table("quarantine/job=ingest", QUARANTINE, _ROW, retention="rows"),
    "predictions": _of_nights(
        "predictions",
        pa.schema([column for column in night_predictions((), "", ()) if column.name != "model"]),
        _ROW,
        "/model={model}",
        attributions="reasons",
        flagged="alert",
        added=("state", "imputed"),
    ),
    "alerts": _of_nights(
        "alerts",
        ALERTS,
        ("entity_kind", "entity", "window_start", "category"),
        added=(*_OF_INVENTORY, "in_maintenance"),
    ),
    "incidents": _of_nights(
        "incidents",
        INCIDENTS,
        ("incident_id",),
        added=(
            *("targets", "learning", "strong", *_OF_INVENTORY, "flows_in_maintenance", "criticality_factor"),
            "listed_at",
        ),
        remains="of kept nights: since when an incident lasts, and the id of the one before that it continues",
    ),
    "evidence": _of_nights(
        "evidence", EVIDENCE, ("device", "source", "window_start", "class_name"), added=("top_target",)
    ),
    "traffic": _of_nights("traffic", TRAFFIC, ("entity_key", "window_start")),
    "entity_history": _of_nights("entity_history", HISTORY, ("entity_key", "category")),
    "verdicts": Table(
        "verdicts/{run_id}.parquet",
        VERDICTS,
        ("run_id", "incident_id"),
        retention="rows",
        remains="verdicts that still apply to later nights, without owner and reason",
    ),
    "drift": _of_nights("drift", DRIFT, ("kind", "name"), drift_level="band", drift_index="psi"),
    "nights": _of_nights(
        "nights",
        NIGHTS,
        ("role",),
        added=(
            "rows_imputed",
            "quarantine_usual",
            "quarantine_entities",
            "quarantine_entities_found",
            "degraded",
            "unread_times",
            "unread_columns",
            "packets",
            "files_sha256",
            "incidents_muted",
            "incidents_learned",
            "incidents_closed",
            "incidents_learning",
            "incidents_ended",
            "incidents_not_shown",
            "flows_unknown",
            "false_incidents",
            "false_incidents_expected",
            "run_of_night",
            "runs_per_night",
            "alpha",
            "cells",
            "false_alarm_rates",
            "recall",
            "stage",
            "stage_text",
            "nights_scored",
            "champion_nights",
            "devices_learning",
            "devices_unknown",
            "devices_unknown_found",
            "page_inputs",
            "key_id",
        ),
        benign_validation_rows="calibration_rows",
    ),
    "quarantine/job=score": _of_nights("quarantine/job=score", night_quarantine((), ""), _ROW, added=("scored",)),
    "exports": _of_nights("exports", _contract()),
    "reports/night": _of_nights(
        "reports/night", _contract(), remains="of kept nights: in the trend, counts of the six dates before each"
    ),
    "split_predictions": Table(
        "split_predictions/split={split}/model={model}", SPLIT_PREDICTIONS, _ROW, "split", retention="modified"
    ),
    "quarantine/job=score_split": Table(
        "quarantine/job=score_split/split={split}/model={model}", QUARANTINE, _ROW, retention="modified"
    ),
    "metrics": Table(
        "metrics/{run_id}.parquet",
        METRICS,
        ("run_id", "model", "feature_set", "classes", "of_classes", "split", "subset", "class_name", "metric"),
        retention="run_id",
        renamed=_FEATURE_SET,
        added=("of_classes", "subset", "low", "high"),
    ),
    "confusion": Table(
        "confusion/{run_id}.parquet",
        CONFUSION,
        ("run_id", "model", "feature_set", "classes", "of_classes", "split", "subset", "class_name", "predicted_class"),
        retention="run_id",
        renamed=_FEATURE_SET,
        added=("of_classes", "subset"),
    ),
    "reports/adaptation": Table("reports/adaptation/{model}/{run_id}", _contract(), retention="nights"),
    "reports/index.html": Table(
        "reports/index.html",
        _contract(),
        retention="never",
        remains="names and counts of incidents of kept nights: it is written again after each purge",
    ),
    "reports/run": Table("reports/run", _contract(), retention="modified"),
    "reports/benchmark": Table("reports/benchmark", _contract(), retention="modified"),
    "reports/leakage": Table("reports/leakage", _contract(), retention="modified"),
    "checkpoints": Table("checkpoints/{model}.npz", _contract(), retention="modified"),
    "tensorboard": Table("tensorboard/{model}/{run_id}", _contract(), retention="run_id"),
    "models": Table(
        "models/{model}/{run_id}",
        _contract(),
        retention="never",
        remains="weights, thresholds and scores: numbers learned also from removed nights, until a person removes them",
    ),
    "audit": Table(
        "audit/{run_id}-{job}.parquet",
        AUDIT,
        ("run_id",),
        retention="never",
        remains="what was done to the lake: settings, counts, names of models and files, pseudonyms with a key",
        added=("rows_joined", "rows_left_out", "rows_imputed", "aliases", "actor", "host", "previous", "sha256"),
    ),
}
"""Every table, by its folder below the lake's root."""


def kept_by(retention: Retention) -> tuple[str, ...]:
    """Return the names of the tables with this retention rule."""
    return tuple(name for name, table in TABLES.items() if table.retention == retention)
