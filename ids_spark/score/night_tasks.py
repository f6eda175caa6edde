"""Inputs of the tasks of a night, and the counts that they return."""

import datetime as dt
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ids_spark.alerts.allow_list import AllowList
from ids_spark.alerts.evidence import merge_evidence, merge_traffic
from ids_spark.alerts.known_devices import KnownDevices
from ids_spark.alerts.severity import SeverityPolicy
from ids_spark.config.score import AlertsConfig, ScoreConfig
from ids_spark.dataset.tables import EVIDENCE, TRAFFIC, night_predictions
from ids_spark.features import drift
from ids_spark.models.artifact import Model
from ids_spark.score import night_reader
from ids_spark.score.identifiers import Identifiers

MOST_UNKNOWN: Final = 10_000
"""Devices that the inventory lacks, of which flows are counted."""


@dataclass(frozen=True)
class LevelledModel:
    """A model, and its levels of evidence, ascending: it flags flows at or above the first.

    Attributes:
        model: The model.
        logits: Attack logits of the levels.
        distances: Distances of the second detector; empty without one.
    """

    model: Model
    logits: tuple[float, ...]
    distances: tuple[float, ...] = ()


@dataclass(frozen=True)
class NightTask:
    """Inputs of every task of a night, sent once to each executor.

    Attributes:
        event_date: The night.
        champion: The model whose scores become predictions, incidents and attributions.
        challenger: A second model whose incidents are only counted; None without one.
        read_spec: Columns to read of each row group.
        config: Settings of scoring.
        alerts: Settings of alerts.
        policy: Severity of each class.
        allow_list: Accepted behaviour.
        identifiers: What of the flow logs identifies somebody, and the key of its pseudonyms.
        known: Devices of the inventory.
        target: URI of the staged predictions.
        quarantine: URI of the staged quarantine.
        scored_at: One time for the whole run, UTC.
        data_origin: `synthetic` if the flows or the champion's train rows are, else `measured`.
    """

    event_date: dt.date
    champion: LevelledModel
    challenger: LevelledModel | None
    read_spec: night_reader.ReadSpec
    config: ScoreConfig
    alerts: AlertsConfig
    policy: SeverityPolicy
    allow_list: AllowList
    identifiers: Identifiers
    known: KnownDevices
    target: str
    quarantine: str
    scored_at: dt.datetime
    data_origin: str

    @property
    def contract(self) -> pa.Schema:
        """Schema of prediction files; without `model`, which readers take from the path."""
        contract = night_predictions(self.read_spec.pass_through, self.config.event_time, self.config.columns)
        return pa.schema([field for field in contract if field.name != "model"])


@dataclass
class ModelCounts:
    """Counts of one model over some flows.

    Attributes:
        flagged: Flows at or above the operating point of the network or of the second detector.
        unknown: Those of them that only the second detector flags.
        class_mix: Flows by (hour, predicted class id); hour -1 without an event time.
        evidence: Parts of the flagged flows, as `tables.EVIDENCE`.
    """

    flagged: int = 0
    unknown: int = 0
    class_mix: Counter[tuple[int, int]] = field(default_factory=Counter)
    evidence: list[pa.Table] = field(default_factory=list)

    def add(self, other: "ModelCounts") -> None:
        """Add the counts of other flows."""
        self.flagged += other.flagged
        self.unknown += other.unknown
        self.class_mix += other.class_mix
        self.evidence += other.evidence

    def merged_evidence(self) -> pa.Table:
        """Return the evidence as one table; the parts are replaced by it."""
        self.evidence = [merge_evidence(self.evidence)] if self.evidence else [EVIDENCE.empty_table()]
        return self.evidence[0]


@dataclass
class NightCounts:
    """Counts over the flows of a night: rows_read = rows_scored + quarantined.

    Flows that were refused and scored with one feature at its benign median count as flagged, as evidence and as
    traffic, but not as scored, and not for drift and the mix of classes.

    Attributes:
        bin_counts: Counts of the champion's features by bin.
        allowed_by_entry: Flagged flows that each entry of the allow-list covers, shape (entries,).
        champion, challenger: Counts of each model.
        challenger_fault: Why no network could be made of the challenger, whose counts are then of no use; else empty.
        flagged_by_both: Flows that both models flagged.
        traffic: Parts of all flows with a prediction by entity and window, as `tables.TRAFFIC`.
        refused: Parts of the refused flows, counted by `night_refused.counted`.
        refused_traffic: Parts of the refused flows without a prediction, as `traffic`.
        refused_unread: Refused flows whose identifiers could not be read, by the name of their file.
        rows_read: Flows found.
        rows_scored: Flows with a prediction.
        rows_imputed: Flows in quarantine that were scored with one feature at its benign median.
        quarantined: Flows in quarantine, by reason.
        warnings: Scored flows that violate a rule of severity `warn`, by rule.
        flows_allowed: Flagged flows that any entry of the allow-list covers.
        flows_explained: Flagged flows with attributions.
        of_another_date: Flows whose event time is on another date.
        unread_times: Flows with a value that is no event time, by the type of the column.
        unread_columns: Flows without the value of a pass-through column that is too large to read, by its name.
        scored_by_file: Flows with a prediction, by the name of their file; a file without any may be absent.
        parts: Files written.
        unknown_devices: Flows of devices that the inventory lacks, by kind and name; at most `MOST_UNKNOWN` of them.
    """

    bin_counts: drift.BinCounts
    allowed_by_entry: NDArray[np.int64]
    champion: ModelCounts = field(default_factory=ModelCounts)
    challenger: ModelCounts = field(default_factory=ModelCounts)
    challenger_fault: str = ""
    flagged_by_both: int = 0
    traffic: list[pa.Table] = field(default_factory=list)
    refused: list[pa.Table] = field(default_factory=list)
    refused_traffic: list[pa.Table] = field(default_factory=list)
    refused_unread: Counter[str] = field(default_factory=Counter)
    rows_read: int = 0
    rows_scored: int = 0
    rows_imputed: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    flows_allowed: int = 0
    flows_explained: int = 0
    of_another_date: int = 0
    unread_times: Counter[str] = field(default_factory=Counter)
    unread_columns: Counter[str] = field(default_factory=Counter)
    scored_by_file: Counter[str] = field(default_factory=Counter)
    parts: list[str] = field(default_factory=list)
    unknown_devices: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def agreement(self) -> dict[str, int]:
        """Flagged flows by the models that flagged them."""
        both = self.flagged_by_both
        return {
            "both": both,
            "champion_only": self.champion.flagged - both,
            "challenger_only": self.challenger.flagged - both,
        }

    def merged_traffic(self) -> pa.Table:
        """Return the traffic as one table; the parts are replaced by it."""
        self.traffic = [merge_traffic(self.traffic)] if self.traffic else [TRAFFIC.empty_table()]
        return self.traffic[0]

    def merged_refused(self) -> tuple[pa.Table, pa.Table]:
        """Return the refused flows and their traffic as one table each; the parts are replaced by them."""
        if self.refused:
            self.refused = [merge_evidence(self.refused)]
            self.refused_traffic = [merge_traffic(self.refused_traffic)]
        return (*self.refused, EVIDENCE.empty_table())[0], (*self.refused_traffic, TRAFFIC.empty_table())[0]

    def add_read(self, rows: night_reader.NightRows) -> None:
        """Add rows that were read, before they are scored."""
        self.rows_read += len(rows.source_rows) + len(rows.refused)
        self.warnings += rows.warnings
        self.unread_times += rows.unread_times
        self.unread_columns += rows.unread_columns

    def add_unknown(self, devices: Mapping[tuple[str, str], int]) -> None:
        """Add flows of devices that the inventory lacks."""
        self.unknown_devices.update(devices)
        if len(self.unknown_devices) > MOST_UNKNOWN:
            self.unknown_devices = Counter(dict(self.unknown_devices.most_common(MOST_UNKNOWN)))

    def add(self, other: "NightCounts") -> None:
        """Add the counts of another task."""
        self.add_unknown(other.unknown_devices)
        self.bin_counts.add(other.bin_counts)
        self.allowed_by_entry = self.allowed_by_entry + other.allowed_by_entry
        self.champion.add(other.champion)
        self.challenger.add(other.challenger)
        self.challenger_fault = self.challenger_fault or other.challenger_fault
        for name in (
            "quarantined",
            "warnings",
            "unread_times",
            "unread_columns",
            "scored_by_file",
            "flagged_by_both",
            "traffic",
            "refused",
            "refused_traffic",
            "refused_unread",
            "rows_read",
            "rows_scored",
            "rows_imputed",
            "flows_allowed",
            "flows_explained",
            "of_another_date",
            "parts",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))


def no_counts(task: NightTask) -> NightCounts:
    """Return counts of zero flows."""
    histograms = task.champion.model.preprocessor.histograms(task.champion.model.card.features)
    empty = drift.count_bins(histograms, {h.name: np.empty(0) for h in histograms})
    return NightCounts(empty, np.zeros(len(task.allow_list.entries), dtype=np.int64))
