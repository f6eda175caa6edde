"""Part `nights`: lists of incidents on synthetic nights with truth, see `nights`.

The scale is the number of seeds of a round; the table of `make nights` with more seeds is the one to judge by.
"""

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.bench.programs import DRIVER_MEMORY, Programs
from tests.bench.rounds import Case, Measured, Plan, Ratio, Taken

NAME: Final = "nights"
TITLE: Final = "Incidents of nights"
SCALES: Final = (2.0,)
CASES: Final = ("ids_spark",)
ON_DEMAND: Final = ()
QUICK_CASES: Final = ()
QUICK_SCALES: Final = ()
MINUTES: Final = (3.0, 0.0)
TRAIN_SCALE: Final = 0.1
_GUESS_S: Final = 10.0
_ROWS_OF_A_SEED: Final = 10_000_000  # about 50 nights
_STATED: Final = {
    "precision": ("precision", "small episodes", "after 5 nights, N = 1"),
    "attacks found": ("found", "small episodes", "after 5 nights, N = 1"),
    "attacks found, version 0.2": ("found", "small episodes", "version 0.2"),
    "false lines a benign night": ("false_per_night", "benign", "after 5 nights, N = 1"),
    "seconds a night": ("seconds_per_night", "benign", "after 5 nights, N = 1"),
}


class NightsNotMeasured(RuntimeError):
    """Raised when a run of the benchmark wrote no figures."""


def scales(given: Sequence[float]) -> tuple[float, ...]:
    """Return the number of seeds."""
    return tuple(given) or SCALES


class Part:
    """Its only case runs `tests.bench.nights` on a lake with a model of the synthetic data set."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._programs = plan, Programs(plan)

    def cases(self) -> list[Case]:
        """Train the model and return the case."""
        lake = self._plan.scratch / "lake"
        train(self._programs, lake)
        seeds = max(1, round(self._plan.scales[0]))

        def run(target: Path) -> Taken:
            arguments = ("--lake", str(lake), "--seeds", str(seeds), "--out", str(target))
            usage = self._programs.python(NAME, "tests.bench.nights", *arguments)
            found = json.loads((target / "nights.json").read_text())
            return Taken(
                usage, {name: _number(found["nights"][kind][way][of]) for name, (of, kind, way) in _STATED.items()}
            )

        return [Case(NAME, CASES[0], seeds, seeds * _ROWS_OF_A_SEED, run, self._keep, _GUESS_S, once=True)]

    def ratios(self, cases: Sequence[Measured]) -> list[Ratio]:
        """Return no ratio: bars are those of `make nights`, with enough seeds."""
        return []

    def facts(self) -> dict[str, object]:
        """Return facts that readers of the figures need."""
        return {"data": "synthetic nights with truth", "train_scale": TRAIN_SCALE, "spark_driver_memory": DRIVER_MEMORY}

    def _keep(self, target: Path) -> None:
        """Keep table and picture beside bench.json."""
        for name in ("nights.json", "nights.png"):
            if not (target / name).exists():
                raise NightsNotMeasured(f"{name} was not written; see {self._plan.logs / NAME}.log")
            shutil.copy(target / name, self._plan.logs.parent / name)


def train(programs: Programs, lake: Path) -> None:
    """Make a lake with the model that scores the nights, on a tenth of the data set's size."""
    programs.prepare(programs.synthesize(TRAIN_SCALE, feature_schema="release39"), lake, log="data")
    settings = {"train.models": "[gru_dnn]", "train.classes": "[19]", "train.feature_sets": "[operational]"}
    settings["train.epochs"] = "8"
    programs.job("train", settings, lake, configs=["conf/large.yaml"])


def _number(value: Any) -> float:
    return math.inf if value is None else float(value)
