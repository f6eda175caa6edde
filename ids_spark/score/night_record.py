"""What is recorded of a night: a row of `nights/` for each model, and the audit's report."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from ids_spark.base import packaging
from ids_spark.base.report import Report
from ids_spark.dataset.tables import SCHEMA_VERSION
from ids_spark.models.artifact import Model
from ids_spark.models.threshold import Threshold
from ids_spark.score.night_context import ScoringContext
from ids_spark.score.night_files import NightSource
from ids_spark.score.night_rows import UNKNOWN_HOUR
from ids_spark.score.night_tasks import ModelCounts, NightCounts

TABLES: Final = ("predictions", "alerts", "drift", "nights", "reports/night", "exports", "quarantine/job=score")
"""What a night replaces, each at `event_date=…`."""
Row = dict[str, Any]


@dataclass(frozen=True)
class ModelOutcome:
    """What one model makes of the night.

    Attributes:
        role: `champion` or `challenger`.
        model: The model.
        limit: What it flags from on.
        counted: What the tasks counted of it.
        incidents: Those within the budget, ranked.
        found: Incidents before the budget cut them.
    """

    role: str
    model: Model
    limit: Threshold
    counted: ModelCounts
    incidents: pa.Table
    found: int


def night_row(
    source: NightSource, scoring: ScoringContext, done: NightCounts, outcome: ModelOutcome, drifted: Sequence[Row]
) -> Row:
    """Return the row of `nights/` of one model; late rows and seconds of the night are the caller's to add."""
    bands = Counter(of["drift_level"] for of in drifted if of["kind"] == "feature")
    model, limit, counted = outcome.model, outcome.limit, outcome.counted
    champion = outcome.role == "champion"
    return {
        "run_id": scoring.run_id,
        "role": outcome.role,
        "model": model.card.name,
        "model_version": model.card.version,
        "model_sha256": model.sha256,
        "rows_in": done.rows_read,
        "rows_scored": done.rows_scored,
        "rows_quarantined": done.quarantined.total(),
        "rows_of_another_date": done.of_another_date,
        "files": [{"name": f.name, "rows": f.rows, "reason": f.reason} for f in source.files],
        "extra_columns": list(source.extra_columns),
        "quarantine": [{"reason": reason, "rows": n} for reason, n in sorted(done.quarantined.items())],
        "warnings": [{"rule": rule, "rows": n} for rule, n in sorted(done.warnings.items())],
        "class_mix": [
            {
                "hour": None if hour == UNKNOWN_HOUR else hour,
                "class_name": model.card.class_names[class_id],
                "flows": flows,
            }
            for (hour, class_id), flows in sorted(counted.mix.items())
        ],
        "flows_flagged": counted.flagged,
        "flows_allowed": done.flows_allowed if champion else None,
        "flows_explained": done.explained if champion else None,
        "incidents": outcome.found,
        "incidents_shown": len(outcome.incidents),
        "budget": limit.budget,
        "threshold_logit": limit.logit,
        "expected_false_alarms": limit.expected_false_alarms,
        "false_alarms_at_most": limit.false_alarms_at_most,
        "benign_validation_rows": limit.benign_rows,
        "smallest_rate": limit.smallest_rate,
        "drift_moderate": bands["moderate"] if champion else None,
        "drift_significant": bands["significant"] if champion else None,
        "scored_at": scoring.now,
        "code_version": packaging.code_version(),
        "schema_version": SCHEMA_VERSION,
        "data_origin": scoring.origin(source, model),
    }


def night_report(
    source: NightSource, scoring: ScoringContext, done: NightCounts, champion: ModelOutcome, late: int
) -> Report:
    """Return what the audit says of a night."""
    date = str(source.event_date)
    said = Report(feature_schema=scoring.champion.preprocessor.schema.name, data_origin=scoring.origin(source))
    said.rows_in, said.rows_out = done.rows_read, done.rows_scored
    said.rows_quarantined = done.quarantined.total()
    said.tables = [f"{table}/event_date={date}" for table in TABLES]
    counts = {"scored": done.rows_scored, "flagged": done.champion.flagged, "late rows": late}
    counts |= {"rows of another date": done.of_another_date, "flows on the allow-list": done.flows_allowed}
    over_budget = champion.found - len(champion.incidents)
    counts |= {"incidents": champion.found, "incidents over the budget": over_budget}
    counts |= {f"not scored: {reason}": n for reason, n in sorted(done.quarantined.items())}
    counts |= {f"warned: {rule}": n for rule, n in sorted(done.warnings.items())}
    said.counts = {(what, date, None): n for what, n in counts.items()}
    said.notes = [
        f"{date}: {champion.limit.statement()}",
        *scoring.allowed.notes(source.event_date, done.allowed.tolist()),
    ]
    said.inputs = [f"event_date={date}/{file.name}: {file.rows} rows" for file in source.files]
    said.notes += [f"{date}: {file.name} was not scored: {file.reason}" for file in source.files if file.reason]
    if source.extra_columns:
        columns = ", ".join(source.extra_columns)
        said.notes.append(f"{date}: {len(source.extra_columns)} extra column(s) were ignored: {columns}")
    return said
