"""Runs the cases in alternating rounds, so that a slow minute of the machine does not affect a single case."""

import math
import os
import shutil
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from tests.bench.measure import Usage

_START_S: Final = 4.0  # start-up of a program


@dataclass(frozen=True)
class Plan:
    """Settings of a part.

    Attributes:
        scratch: Folder for what the part makes, removed after it.
        data: Folder for data that several parts use, removed after the last.
        logs: Folder for what programs print.
        cpus: CPUs that every case is bound to.
        scales: Scales of the data; their use depends on the part.
        cases: Names of the cases wanted.
        models: What training cases train.
        recommended: Configuration file that is compared with the study's.
        quick: Whether the run is one of few and small cases.
    """

    scratch: Path
    data: Path
    logs: Path
    cpus: tuple[int, ...]
    scales: tuple[float, ...]
    cases: tuple[str, ...]
    models: tuple[str, ...] = ()
    recommended: str = ""
    quick: bool = False


@dataclass(frozen=True)
class Taken:
    """Figures of one run of a case.

    Attributes:
        usage: As measured.
        stated: Figures that the programs of the case state themselves, such as rows/s after start-up; infinite where
            a target was not reached.
        failed: Why the case could not do its work, such as `out of memory`; the usage is that until then. Empty if it
            did.
    """

    usage: Usage
    stated: Mapping[str, float] = field(default_factory=dict)
    failed: str = ""


@dataclass(frozen=True)
class Case:
    """One way to do a part's work at one scale.

    Attributes:
        part: Part of the bench.
        name: Name of the implementation.
        scale: Of the data.
        rows: Input rows.
        run: Does the work below a folder and returns its figures; the folder is new each time.
        check: Checks what the first run wrote, outside the measurement.
        guess: Seconds for a million rows; only for the estimate of the remaining time before the case has run once.
        what: The implementation in words, for tables.
        once: Whether it runs in the first round alone: a long case, or one that is only for information.
    """

    part: str
    name: str
    scale: float
    rows: int
    run: Callable[[Path], Taken]
    check: Callable[[Path], None]
    guess: float
    what: str = ""
    once: bool = False


@dataclass
class Measured:
    """A case and the figures of each of its runs."""

    case: Case
    runs: list[Taken] = field(default_factory=list)

    def values(self, figure: str) -> list[float]:
        """Return a stated figure, or a field of `Usage`, of each run."""
        return [run.stated[figure] if figure in run.stated else getattr(run.usage, figure) for run in self.runs]

    def median(self, figure: str) -> float:
        """Return the median of a stated figure, or of a field of `Usage`, over the runs."""
        return statistics.median(self.values(figure))

    def expected(self) -> float:
        """Return the expected seconds of the next run."""
        return self.median("wall_s") if self.runs else _START_S + self.case.guess * self.case.rows / 1e6

    @property
    def failed(self) -> str:
        """Why the case could not do its work; empty if it did."""
        return self.runs[0].failed if self.runs else ""

    @property
    def stated(self) -> list[str]:
        """Names of the figures that the case states itself."""
        return list(self.runs[0].stated) if self.runs else []

    def as_json(self) -> dict[str, object]:
        """Return medians, and wall time and stated figures of each run; null for a target that was not reached."""
        wall = self.median("wall_s")
        own = {name: [_finite(value) for value in self.values(name)] for name in self.stated}
        return {
            "part": self.case.part,
            "case": self.case.name,
            "what": self.case.what,
            "scale": self.case.scale,
            "rows": self.case.rows,
            **({"failed": self.failed} if self.failed else {}),
            "wall_s": wall,
            "cpu_s": self.median("cpu_s"),
            "peak_rss_mb": self.median("peak_rss_mb"),
            **{name: _finite(self.median(name)) for name in own},
            **({} if own or self.failed else {"rows_per_s": round(self.case.rows / wall)}),
            "wall_s_of_runs": self.values("wall_s"),
            **({"stated_of_runs": own} if own else {}),
        }


def _finite(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


@dataclass(frozen=True)
class Ratio:
    """A figure of one case over that of another, or a figure with its own bar (the limit it should meet).

    Attributes:
        name: Name in bench.json.
        value: Of medians.
        at_most: Maximum, if there is such a bar.
        at_least: Minimum, if there is such a bar.
    """

    name: str
    value: float
    at_most: float | None = None
    at_least: float | None = None

    @property
    def bar(self) -> dict[str, float]:
        """The bar by its kind, `at_most` or `at_least`; empty if there is none."""
        return {kind: bar for kind in ("at_most", "at_least") if (bar := getattr(self, kind)) is not None}

    @property
    def result(self) -> str:
        """`met` or `missed`; empty if there is no bar."""
        if not self.bar:
            return ""
        low = self.at_least is not None and not self.value >= self.at_least
        high = self.at_most is not None and not self.value <= self.at_most
        return "missed" if low or high else "met"


class Part(Protocol):
    """One part of the bench: made from a `Plan`."""

    def cases(self) -> list[Case]:
        """Write the data and return the cases in the order of a round."""

    def ratios(self, cases: Sequence[Measured]) -> list[Ratio]:
        """Return the ratios whose cases ran."""

    def facts(self) -> dict[str, object]:
        """Return facts about the work that readers of the figures need."""


def run(cases: Sequence[Case], rounds: int, scratch: Path, say: Callable[[str], None]) -> Iterator[list[Measured]]:
    """Run every case once in each round; yield all figures after each round.

    Args:
        cases: In the order of a round.
        rounds: Number of rounds.
        scratch: Folder of what a run writes, until it is checked.
        say: Takes progress lines.
    """
    measured = [Measured(case) for case in cases]
    for number in range(1, rounds + 1):
        for i, one in enumerate(measured):
            case, target = one.case, scratch / "run"
            if case.once and number > 1:
                continue
            target.mkdir()
            os.sync()  # so that writing back the last case's pages is not measured
            one.runs.append(case.run(target))
            if number == 1 and not one.failed:
                case.check(target)
            shutil.rmtree(target)
            usage = one.runs[-1].usage
            again = [m for m in measured if not m.case.once]
            now = [m for m in measured[i + 1 :] if number == 1 or not m.case.once]
            left = sum(m.expected() for m in now) + (rounds - number) * sum(m.expected() for m in again)
            said = f"{one.failed} after {usage.wall_s:.1f} s" if one.failed else f"{usage.wall_s:.1f} s"
            say(
                f"{case.part} round {number}/{rounds} {case.name} scale {case.scale:g}: {said},"
                f" {usage.cpu_s:.1f} s CPU, {usage.peak_rss_mb:,.0f} MB; about {left / 60:.0f} min left"
            )
        yield measured
