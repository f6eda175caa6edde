"""One night of flow logs to predictions, incidents, drift, page and exports, all staged together.

The driver tests evidence, ranks incidents and sums counts; flows stay on the executors.
"""

import datetime as dt
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from pyspark import SparkContext

from ids_spark.alerts import looks, quarantined
from ids_spark.alerts.evidence import merge_traffic
from ids_spark.alerts.incidents import NightFacts
from ids_spark.alerts.looks import Look
from ids_spark.alerts.quarantined import Refusals
from ids_spark.base import packaging
from ids_spark.base.arrays import Ints
from ids_spark.base.errors import NotReconciled
from ids_spark.base.report import Report
from ids_spark.base.text import short, shown
from ids_spark.dataset.tables import SCHEMA_VERSION, TABLES, kept_by
from ids_spark.features import drift
from ids_spark.lake.store import Lake
from ids_spark.models.artifact import Model
from ids_spark.models.threshold import Threshold
from ids_spark.report import night_page, night_text, packet_counts
from ids_spark.report.format import FAULT_DESCRIPTIONS, counted
from ids_spark.report.night_findings import Night
from ids_spark.score import degradation, night_files, night_incidents, night_outputs, night_rows, stages, window_length
from ids_spark.score.night_context import ScoringContext, validation_scores_of_model
from ids_spark.score.night_files import NightSource
from ids_spark.score.night_incidents import Earlier, FoundIncidents, Levels
from ids_spark.score.night_packets import packets_of
from ids_spark.score.night_reader import ReadSpec
from ids_spark.score.night_rows import UNKNOWN_HOUR
from ids_spark.score.night_tasks import LevelledModel, ModelCounts, NightCounts, NightTask
from ids_spark.score.stages import SiteStage

log = logging.getLogger(__name__)

_LISTED_UNKNOWN: Final = 100  # devices that the inventory lacks
Row = dict[str, Any]


@dataclass(frozen=True)
class ModelOutcome:
    """The result of one model for the night.

    Attributes:
        role: `champion` or `challenger`.
        model: The model.
        threshold: Its operating point.
        counts: Sum of the counts of all tasks.
        found: Incidents of the night.
    """

    role: str
    model: Model
    threshold: Threshold
    counts: ModelCounts
    found: FoundIncidents


@dataclass
class ScoredNights:
    """Nights that a run has scored and not yet committed; later nights of the run see them.

    Attributes:
        rows: Rows of `nights/` by date.
        found: Incidents of the champion by date.
        devices: Distinct keys of the devices by date.
    """

    rows: dict[dt.date, list[Row]] = field(default_factory=dict)
    found: dict[dt.date, FoundIncidents] = field(default_factory=dict)
    devices: dict[dt.date, Ints] = field(default_factory=dict)

    def before(self, earlier: Earlier) -> Earlier:
        """Return what the lake holds of earlier nights, with these in place of what it holds of their dates."""
        for day, found in self.found.items():
            earlier = earlier.with_night(day, found, self.rows[day][0], self.devices[day])
        return earlier


def score_night(
    spark_context: SparkContext,
    lake: Lake,
    staged: Callable[[str], str],
    source: NightSource,
    scoring: ScoringContext,
    scored_nights: ScoredNights,
    missing: Row | None = None,
) -> Report:
    """Score one night and stage all of its tables, which the report lists.

    Args:
        spark_context: Its executors read, score and write.
        lake: Holds the tables of earlier nights.
        staged: Returns the URI of the staged version of a table.
        source: The night.
        scoring: Models, policies and keys.
        scored_nights: Nights that this run has scored; this night is added.
        missing: For a night without flow logs: the reason, from `degradation.missing`.

    Raises:
        KeyUnusable: the flow logs have identifiers, and there is no key.
        WindowLengthMismatch: a model may not score flow logs of this window length.
        NotReconciled: a row was neither scored nor quarantined, a fault of this program.
    """
    begin, date = time.monotonic(), source.event_date
    scoring.identifiers.require_key(
        source.columns, f"{scoring.config.score.flow_logs}/event_date={date}", scoring.config.score
    )
    models = {
        role: model
        for role, model in (("champion", scoring.champion), ("challenger", scoring.challenger))
        if model is not None
    }
    notes = window_length.check(source, *models.values())
    levels = {role: night_incidents.levels_of(model) for role, model in models.items()}
    task = _task(source, scoring, models, levels, staged)
    counts = night_rows.score_row_groups(spark_context, source.row_groups, task)
    if counts.rows_read != source.rows or counts.rows_scored + counts.quarantined.total() != source.rows:
        raise NotReconciled(
            f"{source.rows} rows in the files of {date}, {counts.rows_read} read, {counts.rows_scored} scored and"
            f" {counts.quarantined.total()} quarantined; nothing was committed"
        )
    if counts.challenger_fault:
        models.pop("challenger")
        scoring = replace(scoring, challenger=None, challenger_refused=counts.challenger_fault)
    drift_rows = _drift(source, scoring, counts)
    earlier, traffic = scored_nights.before(night_incidents.earlier_of(lake, date)), counts.merged_traffic()
    names = [file.name for file in source.files]
    stage = stages.stage_of(date, traffic, names, earlier, scoring.champion.card, scoring.config.score)
    before: dict[dt.date, Sequence[Mapping[str, Any]]] = {**night_page.earlier(lake, date), **scored_nights.rows}
    refusals = _refusals(date, counts, before)
    look = _look(lake, scoring, date)
    outcomes = [
        _outcome(source, scoring, role, model, levels[role], counts, earlier, stage, refusals, look)
        for role, model in models.items()
    ]
    found = outcomes[0].found
    late, alike = night_files.late_rows(lake, source), quarantined.alike(refusals)
    degraded = (
        [missing] if missing else degradation.reasons(source, counts, before, scoring.config.score, alike, look.partial)
    )
    if scoring.challenger_refused is not None:
        degraded.append(degradation.challenger(scoring.challenger_refused))
    shared = {"rows_late": late, "seconds": time.monotonic() - begin, "degraded": degraded}
    shared |= _quarantine_columns(date, refusals, before)
    shared |= {**stage.row(), **_unknown_devices(scoring, counts)}
    shared |= {"run_of_night": look.number, "runs_per_night": look.of}
    rows = [shared | _night_row(source, scoring, counts, outcome, drift_rows) for outcome in outcomes]
    inputs = _page_inputs(scoring, counts)
    rows[0]["page_inputs"] = inputs.model_dump_json()
    cards = {role: model.card for role, model in models.items()}
    others = night_page.neighbours({*lake.dates("reports/night"), *scored_nights.rows}, date)
    page = Night(date, (), drift_rows, {**before, date: rows}, cards=cards, before=others[0], after=others[1])
    tables = {
        "evidence": counts.champion.merged_evidence(),
        "traffic": traffic,
        "entity_history": found.history,
    }
    for name, table in tables.items():
        lake.write(name, table, staged, event_date=date)
    lake.write("drift", drift_rows, staged, event_date=date)
    page = night_outputs.stage(lake, staged, page, found.incidents, found.alerts, inputs)
    scored_nights.rows[date], scored_nights.found[date] = rows, found
    scored_nights.devices[date] = stages.devices_of(traffic)
    log.info(
        "scored night=%s in=%d scored=%d quarantined=%d imputed=%d flagged=%d incidents=%d shown=%d seconds=%.1f",
        date,
        counts.rows_read,
        counts.rows_scored,
        counts.quarantined.total(),
        counts.rows_imputed,
        counts.champion.flagged,
        rows[0]["incidents"],
        rows[0]["incidents_shown"],
        rows[0]["seconds"],
    )
    report = _night_report(source, scoring, counts, outcomes[0], rows[0])
    report.notes += [f"{date}: {note}" for note in notes]
    if runs := night_text.runs(page):
        report.notes.append(f"{date}: {runs}")
    report.lines = night_text.lines(page, lake.uri(f"reports/night/event_date={date}/night.html"))
    return report


def _task(
    source: NightSource,
    scoring: ScoringContext,
    models: Mapping[str, Model],
    levels: Mapping[str, Levels],
    staged: Callable[[str], str],
) -> NightTask:
    config, place = scoring.config, f"event_date={source.event_date}"
    levelled = {
        role: LevelledModel(model, levels[role].logits, levels[role].distances) for role, model in models.items()
    }
    return NightTask(
        event_date=source.event_date,
        champion=levelled["champion"],
        challenger=levelled.get("challenger"),
        read_spec=ReadSpec(
            scoring.champion.preprocessor.schema,
            scoring.needed,
            source.pass_through(config.score),
            config.score.event_time,
            scoring.run_id,
        ),
        config=config.score,
        alerts=config.alerts,
        policy=scoring.policy,
        allow_list=scoring.allow_list,
        identifiers=scoring.identifiers,
        known=scoring.known,
        target=staged(f"predictions/{place}/model={scoring.champion.card.name}"),
        quarantine=staged(f"quarantine/job=score/{place}"),
        scored_at=scoring.now,
        data_origin=scoring.origin(source),
    )


def _refusals(date: dt.date, counts: NightCounts, before: Mapping[dt.date, Sequence[Mapping[str, Any]]]) -> Refusals:
    """Return the refused rows of a night as evidence; none costs nothing."""
    if not counts.quarantined:
        return Refusals()
    rows, traffic = counts.merged_refused()
    all_flows = merge_traffic([counts.merged_traffic(), traffic])
    unread = tuple(sorted(counts.refused_unread.items()))
    return Refusals(rows, all_flows, unread, degradation.refused_before(date, before))


def _quarantine_columns(
    date: dt.date, refusals: Refusals, before: Mapping[dt.date, Sequence[Mapping[str, Any]]]
) -> Row:
    """Return the columns of `tables.NIGHTS` on whose rows are in quarantine, and on how many are usual."""
    listed, number = quarantined.entities(refusals)
    return {
        "quarantine_usual": degradation.usual_refused(date, before),
        "quarantine_entities": listed,
        "quarantine_entities_found": number,
    }


def _look(lake: Lake, scoring: ScoringContext, date: dt.date) -> Look:
    """Return which run at a date this is."""
    configured, card = scoring.config.score.runs_per_night, scoring.champion.card
    before = looks.read(lake, date, card.name, card.version, configured)
    return looks.look_of(date, scoring.time, configured, before)


def _outcome(
    source: NightSource,
    scoring: ScoringContext,
    role: str,
    model: Model,
    levels: Levels,
    counts: NightCounts,
    earlier: Earlier,
    stage: SiteStage,
    refusals: Refusals,
    look: Look,
) -> ModelOutcome:
    """Return the incidents of a model; those of a challenger are compared with no earlier night or run at the date.

    Incidents of refused rows are the champion's.
    """
    card, config, own = model.card, scoring.config.alerts, getattr(counts, role)
    point = scoring.operating_point(model)
    facts = NightFacts(
        source.event_date, card.name, card.version, point.logit, scoring.run_id, scoring.now, scoring.origin(source)
    )
    before = earlier if role == "champion" else Earlier()
    evidence, traffic = own.merged_evidence(), counts.merged_traffic()
    own_refusals, own_look = (refusals, look) if role == "champion" else (None, None)
    learns, known = stage.learning, None if scoring.inventory is None else scoring.known
    found = night_incidents.find(
        evidence, traffic, levels, config, scoring.policy, facts, before, learns, known, own_refusals, own_look
    )
    return ModelOutcome(role, model, point, own, found)


def _unknown_devices(scoring: ScoringContext, counts: NightCounts) -> Row:
    """Return the columns of `tables.NIGHTS` on devices that the inventory lacks; null without one."""
    if scoring.inventory is None:
        return {"devices_unknown": None, "devices_unknown_found": None}
    found = sorted(counts.unknown_devices.items(), key=lambda item: (-item[1], item[0]))
    listed = [{"kind": kind, "name": name, "flows": flows} for (kind, name), flows in found[:_LISTED_UNKNOWN]]
    return {"devices_unknown": listed, "devices_unknown_found": len(found)}


def _page_inputs(scoring: ScoringContext, counts: NightCounts) -> night_outputs.PageInputs:
    return night_outputs.PageInputs(
        allow_list=tuple(
            {name: str(value) for name, value in entry.as_text(scoring.identifiers.hidden).items()}
            for entry in scoring.allow_list.entries
        ),
        agreement=counts.agreement if scoring.challenger is not None else None,
        facts=scoring.facts(),
        most_lines=scoring.config.alerts.most_lines,
        pseudonymised=scoring.identifiers.hidden,
    )


def _drift(source: NightSource, scoring: ScoringContext, counts: NightCounts) -> list[Row]:
    card = scoring.champion.card
    facts = {
        "model": card.name,
        "model_version": card.version,
        "run_id": scoring.run_id,
        "data_origin": scoring.origin(source),
    }
    histograms = scoring.champion.preprocessor.histograms(card.features)
    predicted = Counter[int]()
    for (_, class_id), flows in counts.champion.class_mix.items():
        predicted[class_id] += flows
    flows_of_class = [predicted[i] for i in range(card.classes)]
    mix = drift.class_mix_row(validation_scores_of_model(scoring.champion).class_mix, flows_of_class, facts)
    return [*drift.rows_of(counts.bin_counts, histograms, facts), mix]


def _night_row(
    source: NightSource, scoring: ScoringContext, counts: NightCounts, outcome: ModelOutcome, drift_rows: Sequence[Row]
) -> Row:
    """Return the row of `nights/` of one model, without `rows_late`, `seconds` and `degraded`."""
    levels = Counter(row["drift_level"] for row in drift_rows if row["kind"] == "feature")
    model, threshold = outcome.model, outcome.threshold
    champion, n = outcome.role == "champion", counts.rows_scored + counts.rows_imputed
    packets = packets_of(source)
    return {
        "run_id": scoring.run_id,
        "role": outcome.role,
        "model": model.card.name,
        "model_version": model.card.version,
        "model_sha256": model.sha256,
        "rows_in": counts.rows_read,
        "rows_scored": counts.rows_scored,
        "rows_quarantined": counts.quarantined.total(),
        "rows_imputed": counts.rows_imputed,
        "rows_of_another_date": counts.of_another_date,
        "files": [{"name": f.name, "rows": f.rows, "reason": f.reason} for f in source.files],
        "files_sha256": source.sha256,
        "extra_columns": [short(name) for name in source.extra_columns],
        "quarantine": [{"reason": reason, "rows": n} for reason, n in sorted(counts.quarantined.items())],
        "warnings": [{"rule": rule, "rows": n} for rule, n in sorted(counts.warnings.items())],
        "unread_times": [{"type": kind, "rows": n} for kind, n in sorted(counts.unread_times.items())],
        "unread_columns": [{"name": name, "rows": n} for name, n in sorted(counts.unread_columns.items())],
        "packets": None if packets is None else packets.row(),
        "class_mix": [
            {
                "hour": None if hour == UNKNOWN_HOUR else hour,
                "class_name": model.card.class_names[class_id],
                "flows": flows,
            }
            for (hour, class_id), flows in sorted(outcome.counts.class_mix.items())
        ],
        "flows_flagged": outcome.counts.flagged,
        "flows_allowed": counts.flows_allowed if champion else None,
        "flows_explained": counts.flows_explained if champion else None,
        "flows_unknown": outcome.counts.unknown,
        **outcome.found.facts,
        "threshold_logit": threshold.logit,
        "expected_false_alarms": None if threshold.expected_rate is None else threshold.expected_rate * n,
        "false_alarms_at_most": threshold.rate_at_most * n,
        "recall": [asdict(each) for each in threshold.recalls],
        "benign_validation_rows": threshold.benign_rows,
        "smallest_rate": threshold.smallest_rate,
        "key_id": scoring.identifiers.key_id,
        "drift_moderate": levels["moderate"] if champion else None,
        "drift_significant": levels["significant"] if champion else None,
        "scored_at": scoring.now,
        "code_version": packaging.code_version(),
        "schema_version": SCHEMA_VERSION,
        "data_origin": scoring.origin(source, model),
    }


def _night_report(
    source: NightSource, scoring: ScoringContext, counts: NightCounts, champion: ModelOutcome, row: Row
) -> Report:
    """Return the facts of a night for the audit."""
    date = str(source.event_date)
    report = Report(feature_schema=scoring.champion.preprocessor.schema.name, data_origin=scoring.origin(source))
    report.rows_in, report.rows_out = counts.rows_read, counts.rows_scored
    report.rows_quarantined, report.rows_imputed = counts.quarantined.total(), counts.rows_imputed
    report.tables = [TABLES[name].place(event_date=date) for name in kept_by("event_date")]
    rows = {"scored": counts.rows_scored, "flagged": counts.champion.flagged, "late rows": row["rows_late"]}
    rows |= {"rows of another date": counts.of_another_date, "flows on the allow-list": counts.flows_allowed}
    rows |= {"incidents": row["incidents"], "incidents not shown": row["incidents"] - row["incidents_shown"]}
    rows |= {f"incidents {state}": row[f"incidents_{state}"] for state in ("muted", "learned", "closed", "learning")}
    rows |= {f"not scored: {reason}": n for reason, n in sorted(counts.quarantined.items())}
    rows |= {f"warned: {rule}": n for rule, n in sorted(counts.warnings.items())}
    rows |= {f"no event time: {kind}": n for kind, n in sorted(counts.unread_times.items())}
    rows |= {f"too large to read: {name}": n for name, n in sorted(counts.unread_columns.items())}
    if counts.rows_imputed:
        rows["quarantined and scored with one feature at its benign median"] = counts.rows_imputed
    report.counts = {(what, date, None): n for what, n in rows.items()}
    for reason in row["degraded"]:
        report.degrade(f"{date}: {reason['text']}")
    if scoring.inventory is not None:
        report.notes += scoring.inventory.notes(scoring.identifiers.column)
        found = counted(row["devices_unknown_found"], "device")
        report.notes.append(f"{date}: the inventory lacks {found} of this night")
    missing = any(reason["reason"] == "missing" for reason in row["degraded"])
    report.notes += [
        *scoring.identifiers.notes(),
        *([] if missing else [f"{date}: {row['stage_text']}"]),
        champion.threshold.statement(),  # the same for every night of a run
        *scoring.allow_list.notes(source.event_date, counts.allowed_by_entry.tolist(), scoring.identifiers.hides),
    ]
    report.inputs = [
        f"event_date={date}/{file.name}: {file.rows} rows{f', not scored: {file.reason}' if file.reason else ''}"
        for file in source.files
    ]
    report.notes += [f"{date}: {note}" for note in (*_file_notes(source), *_column_notes(source, scoring, counts))]
    if row["packets"]:
        report.notes.append(f"{date}: {packet_counts.sentences(row['packets'])}")
    return report


def _file_notes(source: NightSource) -> list[str]:
    """Return one note for each reason for which files were not scored: their names, what they are and what to do."""
    names: dict[str, list[str]] = {}
    for file in source.files:
        if file.reason is not None:
            names.setdefault(file.reason, []).append(file.name)
    return [
        f"not scored: {reason}: {shown(found)}: {FAULT_DESCRIPTIONS.get(reason, reason)}"
        for reason, found in sorted(names.items())
    ]


def _column_notes(source: NightSource, scoring: ScoringContext, counts: NightCounts) -> list[str]:
    """Return notes on columns that were ignored, or whose values could not be used."""
    notes = []
    if source.extra_columns:
        notes.append(f"{len(source.extra_columns)} extra column(s) were ignored: {shown(source.extra_columns)}")
    if counts.unread_times:
        kinds = ", ".join(f"{n:,} of type {kind}" for kind, n in sorted(counts.unread_times.items()))
        notes.append(
            f"{scoring.config.score.event_time} of {counts.unread_times.total():,} flow(s) is no time of the years 1970"
            f" to 2200 and counts as unknown: {kinds}"
        )
    for name, n in sorted(counts.unread_columns.items()):
        notes.append(f"column {name} was too large to read and is null in {n:,} flow(s)")
    return notes
