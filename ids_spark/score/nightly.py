"""One night of flow logs to predictions, incidents, drift, page and exports, all staged together.

The driver tests evidence, ranks incidents and sums counts; flows stay on the executors.
"""

import datetime as dt
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Final

import pyarrow as pa
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


@dataclass(frozen=True)
class _Flows:
    """The flows of a night as the executors have scored and counted them.

    Attributes:
        source: The night.
        scoring: Models, policies and keys; without a challenger that could not be used.
        levels: Levels of evidence of each model, by role.
        counts: Sum of the counts of all tasks.
    """

    source: NightSource
    scoring: ScoringContext
    levels: Mapping[str, Levels]
    counts: NightCounts

    @property
    def date(self) -> dt.date:
        """The night."""
        return self.source.event_date

    @cached_property
    def traffic(self) -> pa.Table:
        """As `tables.TRAFFIC`, of all flows with a prediction."""
        return self.counts.merged_traffic()


@dataclass(frozen=True)
class _Tested:
    """What a night is compared with, and the incidents that this leaves.

    Attributes:
        before: Rows of `nights/` of earlier nights, by date.
        stage: Whether the site still learns.
        refusals: The refused rows as evidence.
        look: Which run at the date this is.
        outcomes: Of each model, the champion first.
    """

    before: Mapping[dt.date, Sequence[Mapping[str, Any]]]
    stage: SiteStage
    refusals: Refusals
    look: Look
    outcomes: Sequence[ModelOutcome]

    @property
    def found(self) -> FoundIncidents:
        """The incidents of the night: those of the champion."""
        return self.outcomes[0].found


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

    def add(self, date: dt.date, rows: list[Row], found: FoundIncidents, traffic: pa.Table) -> None:
        """Add a night.

        Args:
            date: The night.
            rows: Of `nights/`.
            found: Incidents of the champion.
            traffic: As `tables.TRAFFIC`.
        """
        self.rows[date], self.found[date], self.devices[date] = rows, found, stages.devices_of(traffic)


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
    notes = _check(source, scoring)
    flows = _scored(spark_context, staged, source, scoring)
    tested = _tested(lake, flows, scored_nights)
    drift_rows = _drift(flows)
    late, degraded = night_files.late_rows(lake, source), _degraded(flows, tested, missing)
    shared = {"rows_late": late, "degraded": degraded, "seconds": time.monotonic() - begin}
    rows = [{**shared, **_night_row(flows, tested, outcome, drift_rows)} for outcome in tested.outcomes]
    page = _stage_tables(lake, staged, flows, tested, rows, drift_rows, scored_nights)
    scored_nights.add(date, rows, tested.found, flows.traffic)
    _log(flows, rows[0])
    report = _night_report(flows, tested.outcomes[0], rows[0])
    report.notes += [f"{date}: {note}" for note in notes]
    if runs := night_text.runs(page):
        report.notes.append(f"{date}: {runs}")
    report.lines = night_text.lines(page, lake.uri(f"reports/night/event_date={date}/night.html"))
    return report


def _check(source: NightSource, scoring: ScoringContext) -> list[str]:
    """Return notes on a night that may be scored.

    Raises:
        KeyUnusable, WindowLengthMismatch: as `score_night`.
    """
    logs = f"{scoring.config.score.flow_logs}/event_date={source.event_date}"
    scoring.identifiers.require_key(source.columns, logs, scoring.config.score)
    return window_length.check(source, *_models(scoring).values())


def _models(scoring: ScoringContext) -> dict[str, Model]:
    """Return the models by role, the champion first."""
    models = {"champion": scoring.champion, "challenger": scoring.challenger}
    return {role: model for role, model in models.items() if model is not None}


def _scored(
    spark_context: SparkContext, staged: Callable[[str], str], source: NightSource, scoring: ScoringContext
) -> _Flows:
    """Score the flows of a night on the executors; their predictions and refused rows are staged.

    Raises:
        NotReconciled: as `score_night`.
    """
    levels = {role: night_incidents.levels_of(model) for role, model in _models(scoring).items()}
    counts = night_rows.score_row_groups(spark_context, source.row_groups, _task(source, scoring, levels, staged))
    if counts.rows_read != source.rows or counts.rows_scored + counts.quarantined.total() != source.rows:
        raise NotReconciled(
            f"{source.rows} rows in the files of {source.event_date}, {counts.rows_read} read, {counts.rows_scored}"
            f" scored and {counts.quarantined.total()} quarantined; nothing was committed"
        )
    if counts.challenger_fault:
        scoring = replace(scoring, challenger=None, challenger_refused=counts.challenger_fault)
    return _Flows(source, scoring, levels, counts)


def _task(
    source: NightSource, scoring: ScoringContext, levels: Mapping[str, Levels], staged: Callable[[str], str]
) -> NightTask:
    config, place = scoring.config, f"event_date={source.event_date}"
    levelled = {
        role: LevelledModel(model, levels[role].logits, levels[role].distances)
        for role, model in _models(scoring).items()
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


def _tested(lake: Lake, flows: _Flows, scored_nights: ScoredNights) -> _Tested:
    """Test the evidence of a night, and join it to incidents."""
    source, scoring, date = flows.source, flows.scoring, flows.date
    earlier = scored_nights.before(night_incidents.earlier_of(lake, date))
    names = [file.name for file in source.files]
    stage = stages.stage_of(date, flows.traffic, names, earlier, scoring.champion.card, scoring.config.score)
    before: dict[dt.date, Sequence[Mapping[str, Any]]] = {**night_page.earlier(lake, date), **scored_nights.rows}
    refusals, look = _refusals(flows, before), _look(lake, scoring, date)
    outcomes = []
    for role, model in _models(scoring).items():
        # What is known of other nights and runs, and refused rows, concern the champion alone.
        known = (earlier, refusals, look) if role == "champion" else (Earlier(), None, None)
        outcomes.append(_outcome(flows, role, model, stage, *known))
    return _Tested(before, stage, refusals, look, outcomes)


def _refusals(flows: _Flows, before: Mapping[dt.date, Sequence[Mapping[str, Any]]]) -> Refusals:
    """Return the refused rows of a night as evidence; none costs nothing."""
    counts = flows.counts
    if not counts.quarantined:
        return Refusals()
    rows, traffic = counts.merged_refused()
    unread = tuple(sorted(counts.refused_unread.items()))
    return Refusals(
        rows, merge_traffic([flows.traffic, traffic]), unread, degradation.refused_before(flows.date, before)
    )


def _look(lake: Lake, scoring: ScoringContext, date: dt.date) -> Look:
    """Return which run at a date this is."""
    configured, card = scoring.config.score.runs_per_night, scoring.champion.card
    before = looks.read(lake, date, card.name, card.version, configured)
    return looks.look_of(date, scoring.time, configured, before)


def _outcome(
    flows: _Flows,
    role: str,
    model: Model,
    stage: SiteStage,
    earlier: Earlier,
    refusals: Refusals | None,
    look: Look | None,
) -> ModelOutcome:
    """Return the incidents of a model."""
    source, scoring, card = flows.source, flows.scoring, model.card
    own: ModelCounts = getattr(flows.counts, role)
    point = scoring.operating_point(model)
    facts = NightFacts(
        flows.date, card.name, card.version, point.logit, scoring.run_id, scoring.now, scoring.origin(source)
    )
    found = night_incidents.find(
        own.merged_evidence(),
        flows.traffic,
        flows.levels[role],
        scoring.config.alerts,
        scoring.policy,
        facts,
        earlier,
        stage.learning,
        None if scoring.inventory is None else scoring.known,
        refusals,
        look,
    )
    return ModelOutcome(role, model, point, own, found)


def _degraded(flows: _Flows, tested: _Tested, missing: Row | None) -> list[Row]:
    """Return why the result of a night is degraded."""
    scoring, alike = flows.scoring, quarantined.alike(tested.refusals)
    reasons = (
        degradation.reasons(flows.source, flows.counts, tested.before, scoring.config.score, alike, tested.look.partial)
        if missing is None
        else [missing]
    )
    if scoring.challenger_refused is not None:
        reasons.append(degradation.challenger(scoring.challenger_refused))
    return reasons


def _stage_tables(
    lake: Lake,
    staged: Callable[[str], str],
    flows: _Flows,
    tested: _Tested,
    rows: list[Row],
    drift_rows: Sequence[Row],
    scored_nights: ScoredNights,
) -> Night:
    """Stage the tables of a night but those of its flows, its exports and its page; return what the page shows."""
    date, found, inputs = flows.date, tested.found, _page_inputs(flows)
    rows[0]["page_inputs"] = inputs.model_dump_json()
    tables = {
        "evidence": flows.counts.champion.merged_evidence(),
        "traffic": flows.traffic,
        "entity_history": found.history,
        "drift": drift_rows,
    }
    for name, table in tables.items():
        lake.write(name, table, staged, event_date=date)
    cards = {outcome.role: outcome.model.card for outcome in tested.outcomes}
    others = night_page.neighbours({*lake.dates("reports/night"), *scored_nights.rows}, date)
    nights = {**tested.before, date: rows}
    page = Night(date, (), drift_rows, nights, cards=cards, before=others[0], after=others[1])
    return night_outputs.stage(lake, staged, page, found.incidents, found.alerts, inputs)


def _log(flows: _Flows, row: Row) -> None:
    counts = flows.counts
    log.info(
        "scored night=%s in=%d scored=%d quarantined=%d imputed=%d flagged=%d incidents=%d shown=%d seconds=%.1f",
        flows.date,
        counts.rows_read,
        counts.rows_scored,
        counts.quarantined.total(),
        counts.rows_imputed,
        counts.champion.flagged,
        row["incidents"],
        row["incidents_shown"],
        row["seconds"],
    )


def _quarantine_columns(tested: _Tested, date: dt.date) -> Row:
    """Return the columns of `tables.NIGHTS` on whose rows are in quarantine, and on how many are usual."""
    listed, number = quarantined.entities(tested.refusals)
    return {
        "quarantine_usual": degradation.usual_refused(date, tested.before),
        "quarantine_entities": listed,
        "quarantine_entities_found": number,
    }


def _unknown_devices(flows: _Flows) -> Row:
    """Return the columns of `tables.NIGHTS` on devices that the inventory lacks; null without one."""
    if flows.scoring.inventory is None:
        return {"devices_unknown": None, "devices_unknown_found": None}
    found = sorted(flows.counts.unknown_devices.items(), key=lambda item: (-item[1], item[0]))
    listed = [{"kind": kind, "name": name, "flows": n} for (kind, name), n in found[:_LISTED_UNKNOWN]]
    return {"devices_unknown": listed, "devices_unknown_found": len(found)}


def _page_inputs(flows: _Flows) -> night_outputs.PageInputs:
    scoring = flows.scoring
    return night_outputs.PageInputs(
        allow_list=tuple(
            {name: str(value) for name, value in entry.as_text(scoring.identifiers.hidden).items()}
            for entry in scoring.allow_list.entries
        ),
        agreement=flows.counts.agreement if scoring.challenger is not None else None,
        facts=scoring.facts(),
        most_lines=scoring.config.alerts.most_lines,
        pseudonymised=scoring.identifiers.hidden,
    )


def _drift(flows: _Flows) -> list[Row]:
    scoring, counts, card = flows.scoring, flows.counts, flows.scoring.champion.card
    facts = {
        "model": card.name,
        "model_version": card.version,
        "run_id": scoring.run_id,
        "data_origin": scoring.origin(flows.source),
    }
    histograms = scoring.champion.preprocessor.histograms(card.features)
    predicted = Counter[int]()
    for (_, class_id), n in counts.champion.class_mix.items():
        predicted[class_id] += n
    flows_of_class = [predicted[i] for i in range(card.classes)]
    mix = drift.class_mix_row(validation_scores_of_model(scoring.champion).class_mix, flows_of_class, facts)
    return [*drift.rows_of(counts.bin_counts, histograms, facts), mix]


def _night_row(flows: _Flows, tested: _Tested, outcome: ModelOutcome, drift_rows: Sequence[Row]) -> Row:
    """Return the row of `nights/` of one model, without `rows_late`, `seconds`, `degraded` and `page_inputs`."""
    source, scoring, counts = flows.source, flows.scoring, flows.counts
    levels = Counter(row["drift_level"] for row in drift_rows if row["kind"] == "feature")
    model, threshold = outcome.model, outcome.threshold
    champion, n = outcome.role == "champion", counts.rows_scored + counts.rows_imputed
    packets = packets_of(source)
    return {
        "run_id": scoring.run_id,
        "role": outcome.role,
        "run_of_night": tested.look.number,
        "runs_per_night": tested.look.of,
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
                "flows": flows_of_class,
            }
            for (hour, class_id), flows_of_class in sorted(outcome.counts.class_mix.items())
        ],
        "flows_flagged": outcome.counts.flagged,
        "flows_allowed": counts.flows_allowed if champion else None,
        "flows_explained": counts.flows_explained if champion else None,
        "flows_unknown": outcome.counts.unknown,
        **_quarantine_columns(tested, flows.date),
        **tested.stage.row(),
        **_unknown_devices(flows),
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


def _night_report(flows: _Flows, champion: ModelOutcome, row: Row) -> Report:
    """Return the facts of a night for the audit."""
    source, scoring, counts, date = flows.source, flows.scoring, flows.counts, str(flows.date)
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
    report.notes += [f"{date}: {note}" for note in (*_file_notes(source), *_column_notes(flows))]
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


def _column_notes(flows: _Flows) -> list[str]:
    """Return notes on columns that were ignored, or whose values could not be used."""
    source, scoring, counts, notes = flows.source, flows.scoring, flows.counts, []
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
