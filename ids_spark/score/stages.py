"""The stage of a site: whether its normal is known, and which of its devices are new.

- `learning`: fewer than `score.learning_nights` of the last `life.NIGHTS` dates were scored, and the champion has
  learned no local nights;
- `provisional`: else, while the champion has scored fewer than `score.provisional_nights` nights, or the last so many
  of them had more false incidents than promised, or may have had;
- `operating`: else.
"""

import datetime as dt
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ids_spark.alerts import life, verdicts
from ids_spark.alerts.evidence import FILE_KIND, entity_keys
from ids_spark.alerts.learning import Learning
from ids_spark.base.arrays import Ints
from ids_spark.config.score import ScoreConfig
from ids_spark.evaluate import budget
from ids_spark.evaluate.budget import Budget
from ids_spark.models.artifact import ModelCard
from ids_spark.report.format import amount, counted
from ids_spark.score.night_incidents import Earlier

Stage = Literal["learning", "provisional", "operating"]


@dataclass(frozen=True)
class SiteStage:
    """The stage of a site on a night.

    Attributes:
        stage: The stage.
        text: What it means, in one sentence.
        nights_scored: Scored nights of the last 28 dates before the night.
        champion_nights: Those of them that the present champion scored.
        device_keys: Devices of the night that learn, by `evidence.entity_keys`; shape (devices,).
    """

    stage: Stage
    text: str
    nights_scored: int
    champion_nights: int
    device_keys: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @property
    def learning(self) -> Learning:
        """What is learning."""
        return Learning(self.stage == "learning", self.device_keys)

    def row(self) -> dict[str, Any]:
        """Return columns of `tables.NIGHTS`."""
        return {
            "stage": self.stage,
            "stage_text": self.text,
            "nights_scored": self.nights_scored,
            "champion_nights": self.champion_nights,
            "devices_learning": len(self.device_keys),
        }


def stage_of(
    date: dt.date, traffic: pa.Table, files: list[str], earlier: Earlier, card: ModelCard, config: ScoreConfig
) -> SiteStage:
    """Return the stage of a site.

    Args:
        date: The night.
        traffic: Of the night, as `tables.TRAFFIC`.
        files: Names of its files, which stand for devices where flows name none.
        earlier: Earlier nights and verdicts.
        card: Of the champion.
        config: Settings.
    """
    earlier = replace(
        earlier, nights={day: night for day, night in earlier.nights.items() if 0 < (date - day).days <= life.NIGHTS}
    )
    champions = {day: night.champion for day, night in earlier.nights.items()}
    own = sorted(
        day
        for day, row in champions.items()
        if (row.get("model"), row.get("model_version")) == (card.name, card.version)
    )
    stage, text = _stage(len(champions), own, earlier, card, config)
    keys = _new_devices(traffic, files, earlier, config.device_learning_nights)
    return SiteStage(stage, text, len(champions), len(own), keys)


def _stage(
    scored: int, own: list[dt.date], earlier: Earlier, card: ModelCard, config: ScoreConfig
) -> tuple[Stage, str]:
    if card.local is None and scored < config.learning_nights:
        return "learning", (
            f"Learning, night {scored + 1} of {config.learning_nights}: the normal of this site is not known. In"
            " categories with more false alarms than promised, only incidents with strong evidence are open, and the"
            " others are listed as learning."
        )
    nights = config.provisional_nights
    if len(own) < nights:
        return "provisional", (
            f"Provisional: this model has scored {counted(len(own), 'earlier night')} of the {nights} after which its"
            " false incidents are compared with the budget."
        )
    found = _budget(own[-nights:], earlier)
    held = "at most" if found.at_least == found.at_most else f"{found.at_least} to"
    observed = (
        f"the last {counted(nights, 'night')} had {held} {counted(found.at_most, 'false incident')},"
        f" {amount(found.promised)} {'was' if found.promised == 1 else 'were'} accepted"
    )
    if found.held:
        return "operating", f"Operating: {observed}."
    undecided = found.at_most - found.at_least
    remedy = f"; {counted(undecided, 'incident')} without a verdict true or benign" if undecided else ""
    return "provisional", f"Provisional: {observed}{remedy}."


def _budget(nights: list[dt.date], earlier: Earlier) -> Budget:
    decided = verdicts.by_incident(earlier.given)
    return budget.together(
        budget.of_night(
            day,
            earlier.nights[day].champion.get("false_incidents") or 0.0,
            earlier.nights[day].incidents.select(["incident_id", "state"]).to_pylist(),
            decided,
        )
        for day in nights
    )


def _new_devices(traffic: pa.Table, files: list[str], earlier: Earlier, nights: int) -> Ints:
    """Return the devices of the night that were first seen fewer than `nights` scored nights ago.

    None are new where fewer than `nights` earlier nights say which devices they had: then the site is.
    """
    seen = {day: night.devices for day, night in earlier.nights.items() if night.devices is not None}
    if not nights or len(seen) < nights:
        return np.empty(0, dtype=np.int64)
    new: Ints = np.setdiff1d(devices_of(traffic), entity_keys([FILE_KIND] * len(files), files))
    for day in sorted(seen)[: len(seen) - nights + 1]:  # a device of one of these nights is not new
        new = np.setdiff1d(new, seen[day], assume_unique=True)
    return new


def devices_of(traffic: pa.Table) -> Ints:
    """Return the distinct keys of the devices in the traffic of a night, shape (devices,)."""
    found: Ints = np.unique(traffic.filter(pc.invert(traffic["is_source"]))["entity_key"].to_numpy())
    return found
