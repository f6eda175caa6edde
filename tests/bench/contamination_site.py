"""A site that learns a week of nights: what the review leaves of planted attacks, and what both models then find."""

import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from ids_spark.adapt import gate, local_rows, review
from ids_spark.adapt.replay import replay
from ids_spark.base.arrays import Floats, as_rows
from ids_spark.dataset.taxonomy import BENIGN_ID, CLASS19
from ids_spark.lake.store import Lake
from ids_spark.models import artifact, inference, registry, threshold
from ids_spark.models.artifact import Model
from ids_spark.models.threshold import RATES
from ids_spark.runtime import job
from tests.bench.contamination_nights import Hospital, Later
from tests.bench.outside_site import Site

MODEL: Final = "gru_dnn-19-operational"
MOST_LOST: Final = 0.02
_BATCH_ROWS: Final = 16_384


@dataclass(frozen=True)
class Case:
    """A week that is learned.

    Attributes:
        share: Of attack flows among all flows.
        every_night: Whether the same attacks are in all nights.
        nights: Newest nights that are learned.
    """

    share: float
    every_night: bool = False
    nights: int = 7


@dataclass(frozen=True)
class Left:
    """What the review left of a week.

    Attributes:
        rows: Local rows.
        planted: Attack flows.
        survive: Share of them that is learned; None without any.
        survive_by_class: The same of each class.
        benign_left_out: Share of the benign flows.
    """

    rows: int
    planted: int
    survive: float | None
    survive_by_class: Mapping[str, float]
    benign_left_out: float


@dataclass(frozen=True)
class Scored:
    """What a model made of the nights after the week, without earlier nights.

    Attributes:
        false: False incidents of each benign night.
        false_shown: Those of them that are open and on the page.
        promised: False incidents that each benign night expects.
        false_on_attacked: False incidents of each night with attacks.
        found: Attacks found in the two nights with attacks.
        found_shown: Attacks that shown incidents find.
        attacks: Attacks of these nights.
        recurring_found: Attacks found of the night with the attacks of every night.
        stages: Stage of the site on each night.
        seconds: Of all nights.
    """

    false: tuple[int, ...]
    false_shown: tuple[int, ...]
    promised: tuple[float, ...]
    false_on_attacked: tuple[int, ...]
    found: tuple[str, ...]
    found_shown: tuple[str, ...]
    attacks: int
    recurring_found: tuple[str, ...]
    stages: tuple[str, ...]
    seconds: float

    @property
    def false_per_night(self) -> float:
        """False incidents of a benign night."""
        return float(np.mean(self.false))

    @property
    def observed_over_promised(self) -> float:
        """False incidents of the benign nights, over those that they expect."""
        return sum(self.false) / sum(self.promised)

    def as_dict(self) -> dict[str, Any]:
        """Return all figures."""
        more = {"false_per_night": self.false_per_night, "observed_over_promised": self.observed_over_promised}
        return asdict(self) | more


@dataclass(frozen=True)
class Recall:
    """Shares of the test rows of each attack class that both models flag.

    Attributes:
        champion: Of the champion.
        challenger: Of the challenger.
        fell: Classes whose recall fell by more than `MOST_LOST`, beyond what chance explains.
    """

    champion: Mapping[str, float]
    challenger: Mapping[str, float]
    fell: tuple[str, ...]

    @property
    def lost(self) -> tuple[str, float]:
        """The class that lost most, and how much."""
        name = max(self.champion, key=lambda each: self.champion[each] - self.challenger[each])
        return name, self.champion[name] - self.challenger[name]


@dataclass(frozen=True)
class Adapted:
    """What `jobs/adapt.py` made of a week.

    Attributes:
        accepted: Whether it has the alias challenger.
        scored: The nights after the week, with its version.
        later_flagged: Share of the benign flows of the nights after the week that champion and challenger flag, each
            at its own threshold.
        recall: At thresholds at which each model flags 1 % of these flows.
        own_recall: At each model's own threshold.
        seconds: Of `jobs/adapt.py`.
    """

    accepted: bool
    scored: Scored
    later_flagged: tuple[float, float]
    recall: Recall
    own_recall: Recall
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return all figures."""
        return asdict(self) | {"scored": self.scored.as_dict()}


class Bench:
    """A scratch copy of a lake with the data set and its champion.

    Args:
        lake: The lake.
        folder: For everything that is written; removed first.
        hospital: Whose nights are learned.
        settings: More settings of the jobs.
    """

    def __init__(self, lake: Path, folder: Path, hospital: Hospital, settings: Sequence[str]) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.site = Site(folder, ("conf/site.yaml",), settings)
        self.hospital = hospital
        for name in ("flows", f"models/{MODEL}"):
            shutil.copytree(lake / name, folder / "lake" / name)
        self.champion = self._model(registry.version_of_alias(self._models, MODEL, "champion") or "latest")
        self.spark = job.session("bench").sparkContext
        self.week = folder / "nights"

    def review(self, case: Case) -> tuple[Left, float]:
        """Learn a week and return what the review left, with its duration in seconds."""
        truth = self.hospital.write_week(self.week, case.share, case.every_night)
        self.site.run("ingest", f"ingest.local={self.week}")
        lake, run_id = self.site.lake, job.new_run_id()
        found = review.review(
            self.spark, lake, lambda table: lake.staged("adapt", run_id, table), self.champion, 60, run_id
        )
        lake.commit("adapt", run_id, [local_rows.TABLE])
        return self._left(truth), found.seconds

    def later(self) -> tuple[Later, Scored]:
        """Write the nights after the week, and score them by the champion."""
        later = self.hospital.write_later(self.site.folder / "later")
        return later, self._scored(self.champion, later)

    def adapt(self, case: Case, later: Later) -> tuple[Left, Adapted]:
        """Learn a week with `jobs/adapt.py`, and compare its challenger with the champion on later nights."""
        truth = self.hospital.write_week(self.week, case.share, case.every_night)
        started = time.monotonic()
        self.site.run("adapt", f"adapt.flow_logs={self.week}", f"adapt.model={MODEL}", f"adapt.nights={case.nights}")
        seconds = time.monotonic() - started
        challenger = self._model("latest")
        models = [self.champion, challenger]
        logits = [_benign_logits(model, later) for model in models]
        own = replay(self.spark, self.site.lake, models)
        same = replay(
            self.spark, self.site.lake, models, logits=[float(np.quantile(each, 1 - RATES[0])) for each in logits]
        )
        adapted = Adapted(
            accepted=registry.version_of_alias(self._models, MODEL, "challenger") == challenger.card.version,
            scored=self._scored(challenger, later),
            later_flagged=(float((logits[0] >= own.logits[0]).mean()), float((logits[1] >= own.logits[1]).mean())),
            recall=_recall(gate.compare(same, MOST_LOST)),
            own_recall=_recall(gate.compare(own, MOST_LOST)),
            seconds=seconds,
        )
        return self._left(truth), adapted

    @property
    def _models(self) -> str:
        return self.site.lake.uri("models")

    def _model(self, version: str) -> Model:
        [uri] = artifact.choose_models(self._models, [MODEL], version)
        return artifact.read_model(uri)

    def _left(self, truth: Mapping[tuple[str, int], str]) -> Left:
        """Return attack flows that survive, by class, and benign flows that were left out."""
        rows = self.site.lake.read("flows", ["source_file", "source_row", "left_out"], split="local")
        files, numbers, reasons = (rows[name].to_pylist() for name in ("source_file", "source_row", "left_out"))
        read = dict(zip(zip(files, numbers, strict=True), reasons, strict=True))
        planted = Counter(name for key, name in truth.items() if key in read)
        survive = Counter(name for key, name in truth.items() if key in read and read[key] is None)
        left_out = sum(reason is not None and key not in truth for key, reason in read.items())
        return Left(
            rows=len(read),
            planted=planted.total(),
            survive=survive.total() / planted.total() if planted else None,
            survive_by_class={name: survive[name] / n for name, n in sorted(planted.items())},
            benign_left_out=left_out / (len(read) - planted.total()),
        )

    def _scored(self, model: Model, later: Later) -> Scored:
        folder = self.site.folder / "scored"
        shutil.rmtree(folder, ignore_errors=True)
        version = f"models/{MODEL}/{model.card.version}"
        shutil.copytree(self.site.folder / "lake" / version, folder / version)
        started = time.monotonic()
        self.site.run(
            "score",
            f"score.models=[{MODEL}]",
            f"score.flow_logs={later.folder}",
            f"score.first_date={later.dates[0]}",
            f"score.last_date={later.dates[-1]}",
            lake=folder,
        )
        return _scored(Lake(str(folder)), later, time.monotonic() - started)


def _scored(lake: Lake, later: Later, seconds: float) -> Scored:
    """Return the figures of scored nights."""
    nights = {date: lake.read("nights", event_date=date).to_pylist()[0] for date in later.dates}
    false: dict[Any, list[bool]] = {}  # whether shown, of each false incident
    found: dict[Any, set[str]] = {}
    found_shown: dict[Any, set[str]] = {}
    for date in later.dates:
        truth, alerts = later.truth(date), defaultdict(list)
        for alert in lake.read("alerts", event_date=date).to_pylist():
            alerts[alert["incident_id"]].append(alert)
        false[date], found[date], found_shown[date] = [], set(), set()
        for incident in lake.read("incidents", ["incident_id", "shown"], event_date=date).to_pylist():
            is_attack, classes = truth.of(alerts[incident["incident_id"]])
            found[date] |= classes
            found_shown[date] |= classes if incident["shown"] else set()
            if not is_attack:
                false[date].append(incident["shown"])
    attacked = [(date, later.truth(date)) for date in later.attacked]
    return Scored(
        false=tuple(len(false[date]) for date in later.benign),
        false_shown=tuple(sum(false[date]) for date in later.benign),
        promised=tuple(float(nights[date]["false_incidents_expected"]) for date in later.benign),
        false_on_attacked=tuple(len(false[date]) for date in (*later.attacked, later.recurring)),
        found=tuple(sorted(set().union(*(found[date] for date in later.attacked)))),
        found_shown=tuple(sorted(set().union(*(found_shown[date] for date in later.attacked)))),
        attacks=sum(len(truth.flows) for _, truth in attacked),
        recurring_found=tuple(sorted(found[later.recurring])),
        stages=tuple(nights[date]["stage"] for date in later.dates),
        seconds=seconds,
    )


def _benign_logits(model: Model, later: Later) -> Floats:
    """Return the attack logits of the flows of the benign nights after the week, shape (flows,)."""
    names = list(model.card.source_features)
    table = pa.concat_tables(later.logs(date).select(names) for date in later.benign)
    values = {name: table[name].to_numpy() for name in names}
    rows = as_rows(model.preprocessor.transform(values, model.card.features))
    return threshold.attack_logits(inference.forward(model, rows, _BATCH_ROWS))


def _recall(compared: gate.Comparison) -> Recall:
    classes = [each for each in compared.classes if each.class_name != CLASS19[BENIGN_ID]]
    return Recall(
        {each.class_name: each.champion / each.rows for each in classes},
        {each.class_name: each.challenger / each.rows for each in classes},
        tuple(each.class_name for each in compared.fallen),
    )
