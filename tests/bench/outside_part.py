"""Part `outside`: models of the data set on other captures, without and with rows of them, see `outside`.

The scale is the number of random halves; `make outside` with five of them is the one to judge by.
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.bench.measure import ROOT
from tests.bench.programs import Programs
from tests.bench.rounds import Case, Measured, Plan, Ratio, Taken

NAME: Final = "outside"
TITLE: Final = "Outside the laboratory"
SCALES: Final = (1.0,)
CASES: Final = ("adapted",)
ON_DEMAND: Final = ()
QUICK_CASES: Final = ()
QUICK_SCALES: Final = ()
MINUTES: Final = (7.0, 0.0)
_SHARED: Final = ROOT.parent / "shared"
_GUESS_S: Final = 400.0
_WRITTEN: Final = ("outside.json", "outside.md", "outside.png")


class OutsideNotMeasured(RuntimeError):
    """Raised when a run of the benchmark wrote no figures."""


def scales(given: Sequence[float]) -> tuple[float, ...]:
    """Return the number of random halves."""
    return tuple(given) or SCALES


class Part:
    """Its only case runs `tests.bench.outside`, on synthetic captures and flows where there are no others."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._programs = plan, Programs(plan)

    def cases(self) -> list[Case]:
        """Return the case; its rows are windows that are measured, and test rows."""
        seeds = max(1, round(self._plan.scales[0]))
        captures = os.environ.get("CAPTURES", str(_SHARED / "captures"))
        data = f"{os.environ.get('CICIOMT_DATA', _SHARED / 'data')}/release39"

        def run(target: Path) -> Taken:
            arguments = ("--captures", captures, "--data", data, "--seeds", str(seeds), "--out", str(target))
            usage = self._programs.python(NAME, "tests.bench.outside", *arguments)
            bars = json.loads((target / "outside.json").read_text())["bars"]
            return Taken(usage, {name: bar["value"] for name, bar in bars.items()})

        return [Case(NAME, CASES[0], seeds, seeds, run, self._keep, _GUESS_S, once=True)]

    def ratios(self, cases: Sequence[Measured]) -> list[Ratio]:
        """Return no ratio: limits are in `outside.json`."""
        return []

    def facts(self) -> dict[str, object]:
        """Return no facts: they are in `outside.json`."""
        return {}

    def _keep(self, target: Path) -> None:
        """Keep tables and picture beside bench.json."""
        for name in _WRITTEN:
            if not (target / name).exists():
                raise OutsideNotMeasured(f"{name} was not written; see {self._plan.logs / NAME}.log")
            shutil.copy(target / name, self._plan.logs.parent / name)
