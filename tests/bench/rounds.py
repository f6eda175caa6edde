"""Cases run in turn, again and again, so that a noisy minute of the machine does not fall on one case alone."""

import os
import shutil
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from tests.bench.measure import Usage

_START_S: Final = 4.0  # of a program that does nothing yet


@dataclass(frozen=True)
class Plan:
    """What a part is told.

    Attributes:
        scratch: Folder for data, removed at the end.
        logs: Folder for what programs print.
        cpus: CPUs that every case is bound to.
        scale: Of the data that all cases read.
        growth: Scales at which this project runs alone.
        cases: Names of the cases wanted.
    """

    scratch: Path
    logs: Path
    cpus: tuple[int, ...]
    scale: float
    growth: tuple[float, ...]
    cases: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """One way to do a part's work at one scale.

    Attributes:
        part: Part of the bench.
        name: Who does it.
        scale: Of the data.
        rows: Rows that it takes in.
        run: Does the work below a folder and returns what that took; the folder is new each time.
        check: Looks at what the first run wrote, outside the measurement.
        guess: Seconds for a million rows; only for the time left until the case has run once.
    """

    part: str
    name: str
    scale: float
    rows: int
    run: Callable[[Path], Usage]
    check: Callable[[Path], None]
    guess: float


@dataclass
class Measured:
    """A case and what each of its runs took."""

    case: Case
    usages: list[Usage] = field(default_factory=list)

    def median(self, figure: str) -> float:
        """Return the median of a field of `Usage` over the runs."""
        return statistics.median(getattr(usage, figure) for usage in self.usages)

    def expected(self) -> float:
        """Return the seconds that the next run will about take."""
        return self.median("wall_s") if self.usages else _START_S + self.case.guess * self.case.rows / 1e6

    def as_json(self) -> dict[str, object]:
        """Return the medians, and the wall time of each run."""
        wall = self.median("wall_s")
        return {
            "part": self.case.part,
            "case": self.case.name,
            "scale": self.case.scale,
            "rows": self.case.rows,
            "wall_s": wall,
            "cpu_s": self.median("cpu_s"),
            "peak_rss_mb": self.median("peak_rss_mb"),
            "rows_per_s": round(self.case.rows / wall),
            "wall_s_of_runs": [usage.wall_s for usage in self.usages],
        }


@dataclass(frozen=True)
class Ratio:
    """A figure of one case over that of another.

    Attributes:
        name: Stands in bench.json.
        value: Of medians.
        bar: What it should not exceed; None where there is no bar.
    """

    name: str
    value: float
    bar: float | None = None

    @property
    def verdict(self) -> str:
        """Whether the bar is met; empty where there is none."""
        if self.bar is None:
            return ""
        return "met" if self.value <= self.bar else "missed"


class Part(Protocol):
    """One part of the bench: made from a `Plan`."""

    def cases(self) -> list[Case]:
        """Make the data and return the cases in the order they take turns."""

    def ratios(self, cases: Sequence[Measured]) -> list[Ratio]:
        """Return the ratios whose cases ran."""

    def facts(self) -> dict[str, object]:
        """Return what a reader of the figures should know about the work."""


def run(cases: Sequence[Case], rounds: int, scratch: Path, say: Callable[[str], None]) -> Iterator[list[Measured]]:
    """Run every case once a round; yield all figures after each round.

    Args:
        cases: In the order they take turns.
        rounds: How often.
        scratch: What a run writes stands here until it was checked.
        say: Takes progress lines.
    """
    measured = [Measured(case) for case in cases]
    for number in range(1, rounds + 1):
        for i, one in enumerate(measured):
            case, target = one.case, scratch / "run"
            target.mkdir()
            os.sync()  # the last case's pages are written back at nobody's cost
            one.usages.append(case.run(target))
            if number == 1:
                case.check(target)
            shutil.rmtree(target)
            usage = one.usages[-1]
            left = sum(m.expected() for m in measured[i + 1 :]) + (rounds - number) * sum(
                m.expected() for m in measured
            )
            say(
                f"{case.part} round {number}/{rounds} {case.name} scale {case.scale:g}: {usage.wall_s:.1f} s,"
                f" {usage.cpu_s:.1f} s CPU, {usage.peak_rss_mb:,.0f} MB; about {left / 60:.0f} min left"
            )
        yield measured
