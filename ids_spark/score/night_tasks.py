"""What the tasks of a night are told, and what they count."""

import datetime as dt
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ids_spark.alerts import incidents
from ids_spark.alerts.allow_list import AllowList
from ids_spark.alerts.pseudonyms import Pseudonyms
from ids_spark.alerts.severity import SeverityPolicy
from ids_spark.config.score import AlertsConfig, ScoreConfig
from ids_spark.dataset.tables import night_predictions
from ids_spark.features import drift
from ids_spark.models.artifact import Model
from ids_spark.score import night_reader


@dataclass(frozen=True)
class ThresholdedModel:
    """A model and from which attack logit on it flags a flow."""

    model: Model
    threshold: float


@dataclass(frozen=True)
class NightTask:
    """What every task of a night knows; sent to each once.

    Attributes:
        event_date: The night.
        champion: By whose scores flows are flagged.
        challenger: Who scores beside it; None for nobody.
        read_spec: What is read of each row group.
        config: How the night is scored.
        alerts: What becomes of flagged flows.
        policy: Severity of a class.
        allowed: What is known and accepted.
        pseudonyms: Of the columns in `config.pseudonymise`; None where there are none.
        target: URI of the staged predictions.
        quarantine: URI of the staged quarantine.
        scored_at: One time for the whole run, UTC.
        data_origin: `measured` or `synthetic`: of the flows or of a model's train rows.
    """

    event_date: dt.date
    champion: ThresholdedModel
    challenger: ThresholdedModel | None
    read_spec: night_reader.ReadSpec
    config: ScoreConfig
    alerts: AlertsConfig
    policy: SeverityPolicy
    allowed: AllowList
    pseudonyms: Pseudonyms | None
    target: str
    quarantine: str
    scored_at: dt.datetime
    data_origin: str

    @property
    def contract(self) -> pa.Schema:
        """Schema of the files of predictions; `model` is in their path, and readers refuse a column twice."""
        whole = night_predictions(self.config.pass_through, self.config.event_time, self.config.columns)
        return pa.schema([field for field in whole if field.name != "model"])


@dataclass
class ModelCounts:
    """What one model made of some flows.

    Attributes:
        flagged: Flows at or above the threshold.
        mix: Flows by (hour, predicted class id); hour -1 where no event time is known.
        found: Incidents before they are ranked, `incidents.AGGREGATES`.
    """

    flagged: int = 0
    mix: Counter[tuple[int, int]] = field(default_factory=Counter)
    found: pa.Table = field(default_factory=incidents.AGGREGATES.empty_table)

    def add(self, other: "ModelCounts") -> None:
        """Add what the same model made of others."""
        self.flagged += other.flagged
        self.mix += other.mix
        self.found = incidents.merge([self.found, other.found])


@dataclass
class NightCounts:
    """What became of the flows of a night: rows_read = rows_scored + quarantined.

    Attributes:
        bin_counts: Counts of the champion's features by bin.
        allowed: Flagged flows that each entry of the allow-list covers, shape (entries,).
        champion, challenger: What the models made of the flows.
        both: Flows that both flagged.
        rows_read: Flows found.
        rows_scored: Flows with a prediction.
        quarantined: Flows without one, by reason.
        warnings: Flows that break a rule that only warns, by rule.
        flows_allowed: Flagged flows that the allow-list covers.
        explained: Flagged flows with reasons.
        of_another_date: Flows whose event time is not of the night.
        parts: Files written.
    """

    bin_counts: drift.BinCounts
    allowed: NDArray[np.int64]
    champion: ModelCounts = field(default_factory=ModelCounts)
    challenger: ModelCounts = field(default_factory=ModelCounts)
    both: int = 0
    rows_read: int = 0
    rows_scored: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    flows_allowed: int = 0
    explained: int = 0
    of_another_date: int = 0
    parts: list[str] = field(default_factory=list)

    @property
    def agreement(self) -> dict[str, int]:
        """Flagged flows by who flagged them."""
        ours, theirs = self.champion.flagged, self.challenger.flagged
        return {"both": self.both, "champion_only": ours - self.both, "challenger_only": theirs - self.both}

    def add(self, other: "NightCounts") -> None:
        """Add what another task counted."""
        self.bin_counts.add(other.bin_counts)
        self.allowed = self.allowed + other.allowed
        self.champion.add(other.champion)
        self.challenger.add(other.challenger)
        self.quarantined += other.quarantined
        self.warnings += other.warnings
        for name in ("both", "rows_read", "rows_scored", "flows_allowed", "explained", "of_another_date", "parts"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


def no_counts(task: NightTask) -> NightCounts:
    """Return the counts of no flow."""
    histograms = task.champion.model.preprocessor.histograms(task.champion.model.card.features)
    empty = drift.count_bins(histograms, {h.name: np.empty(0) for h in histograms})
    return NightCounts(empty, np.zeros(len(task.allowed.entries), dtype=np.int64))
