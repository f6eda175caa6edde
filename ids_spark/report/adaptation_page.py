"""The page of an adaptation: champion and challenger side by side, what was learned, what was left out."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console
from rich.table import Table

from ids_spark.lake.filesystem import write_bytes
from ids_spark.models.tail_fit import upper_rate
from ids_spark.report import html
from ids_spark.report.adaptation_figures import devices_before_after, recall_before_after
from ids_spark.report.format import cell, counted, percent
from ids_spark.report.style import png

_LISTED: Final = 40
"""Devices, and groups of flows that were left out, on the page; all are in the audit."""


@dataclass(frozen=True)
class Flagged:
    """Flows of a group, and how many of them a model flags at its threshold."""

    rows: int
    flagged: int

    @property
    def share(self) -> float | None:
        """Share of the flows that are flagged; None without a flow."""
        return self.flagged / self.rows if self.rows else None

    @property
    def text(self) -> str:
        """The share in percent; – without a flow."""
        return "–" if self.share is None else percent(self.share)

    @property
    def at_most(self) -> float:
        """Upper end of the exact 95 % interval of the share."""
        return upper_rate(self.flagged, self.rows) if self.rows else 1.0

    def __add__(self, other: "Flagged") -> "Flagged":
        """Return both groups together."""
        return Flagged(self.rows + other.rows, self.flagged + other.flagged)


@dataclass(frozen=True)
class ModelFigures:
    """What one model does, each at its own threshold.

    Attributes:
        version: Of the model.
        statement: On what its threshold rests.
        benign: Held-out local flows, by (date, device); either is empty if it is not known.
        recall: Flagged test rows of the data set by attack class, at the budget of the comparison.
        own_recall: The same at its own threshold.
        macro_f1: On the test rows of the data set; None without any.
    """

    version: str
    statement: str
    benign: Mapping[tuple[str, str], Flagged]
    recall: Mapping[str, Flagged]
    own_recall: Mapping[str, Flagged]
    macro_f1: float | None

    @property
    def total(self) -> Flagged:
        """All held-out local flows."""
        return sum(self.benign.values(), Flagged(0, 0))

    def by_date(self) -> dict[str, Flagged]:
        """Return the held-out local flows by date."""
        return self._by(0)

    def by_device(self) -> dict[str, Flagged]:
        """Return the held-out local flows by device."""
        return self._by(1)

    def _by(self, place: int) -> dict[str, Flagged]:
        found: dict[str, Flagged] = {}
        for key, flows in sorted(self.benign.items()):
            found[key[place]] = found.get(key[place], Flagged(0, 0)) + flows
        return found


@dataclass(frozen=True)
class LeftOut:
    """Local flows that were not learned, of one reason, date, device and predicted class."""

    reason: str
    date: str
    device: str
    class_name: str
    rows: int


@dataclass(frozen=True)
class Learned:
    """Local flows that the challenger has learned.

    Attributes:
        read: Flows of the chosen nights.
        train_rows: Distinct flows in training.
        held_out_rows: Flows held out for the threshold.
        train_dates: Nights in training; empty if flows have no date.
        held_out_dates: Nights held out.
        held_out_by: What was held out: nights (`date`), or the last rows of each source file (`rows`).
        devices: Number of devices.
        dropped: Flows not used, by reason that is no suspicion: duplicates, limits.
    """

    read: int
    train_rows: int
    held_out_rows: int
    train_dates: Sequence[str]
    held_out_dates: Sequence[str]
    held_out_by: str
    devices: int
    dropped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Adaptation:
    """Everything the page shows.

    Attributes:
        model: Name below `models/`.
        run_id: Of the run.
        data_origin: `measured` or `synthetic`.
        champion: Before.
        challenger: After.
        budget: At which thresholds recall is compared, for texts.
        learned: Local flows used.
        left_out: Local flows left out as they may be attacks, most first.
        refusals: Why the challenger is refused; empty if it is accepted.
        seconds: Duration of each step.
    """

    model: str
    run_id: str
    data_origin: str
    champion: ModelFigures
    challenger: ModelFigures
    budget: str
    learned: Learned
    left_out: Sequence[LeftOut]
    refusals: Sequence[str]
    seconds: Mapping[str, float]

    @property
    def same_budget(self) -> bool:
        """Whether recall is compared at other thresholds than each model's own."""
        return self.champion.recall != self.champion.own_recall or self.challenger.recall != self.challenger.own_recall

    @property
    def promote_command(self) -> str:
        """The command that makes the challenger the champion."""
        return f"make promote NIGHT={self.model} VERSION={self.challenger.version}"

    @property
    def devices(self) -> list[tuple[str, Flagged, Flagged]]:
        """Devices with their flagged flows before and after, those that profit most first."""
        before, after = self.champion.by_device(), self.challenger.by_device()
        found = [(name, before.get(name, Flagged(flows.rows, 0)), flows) for name, flows in after.items() if name]
        return sorted(found, key=lambda row: (row[2].flagged - row[1].flagged, row[0]))

    @property
    def dates(self) -> list[tuple[str, Flagged, Flagged]]:
        """Held-out nights with their flagged flows before and after."""
        before, after = self.champion.by_date(), self.challenger.by_date()
        return [(date or "no date", before.get(date, Flagged(flows.rows, 0)), flows) for date, flows in after.items()]

    @property
    def classes(self) -> list[tuple[str, Flagged, Flagged]]:
        """Attack classes with the recall of both models at the budget of the comparison."""
        return [(name, flows, self.challenger.recall[name]) for name, flows in self.champion.recall.items()]

    @property
    def own_recall(self) -> list[tuple[str, Flagged, Flagged]]:
        """Attack classes with the recall of each model at its own threshold."""
        return [(name, flows, self.challenger.own_recall[name]) for name, flows in self.champion.own_recall.items()]


def write_page(folder: str, adaptation: Adaptation) -> None:
    """Write the page into a staged folder, as `adaptation.html`."""
    write_bytes(f"{folder}/adaptation.html", render_page(adaptation).encode())


def render_page(adaptation: Adaptation) -> str:
    """Return the page as one self-contained HTML file; every text is escaped."""
    figures = {}
    if adaptation.classes:
        figures["recall"] = recall_before_after([(n, b.share, a.share) for n, b, a in adaptation.classes])
    devices = [(n, b.share, a.share) for n, b, a in adaptation.devices[:_LISTED]]
    if devices:
        figures["devices"] = devices_before_after(devices)
    return html.render(
        "adaptation.html.j2",
        {name: png(figure) for name, figure in figures.items()},
        a=adaptation,
        listed=_LISTED,
        run_id=adaptation.run_id,
        data_origins=[adaptation.data_origin],
    )


def summary(adaptation: Adaptation, page: str) -> list[str]:
    """Return both models side by side, the decision, and the path of the page, as lines for a terminal."""
    table = Table(title=cell(f"Adaptation of {adaptation.model}"))
    table.add_column("")
    table.add_column("champion", justify="right")
    table.add_column("challenger", justify="right")
    before, after = adaptation.champion, adaptation.challenger
    table.add_row("version", cell(before.version), cell(after.version))
    rows = counted(after.total.rows, "held-out local flow")
    table.add_row(f"flagged of {rows}", before.total.text, after.total.text)
    scores = ("–" if side.macro_f1 is None else f"{side.macro_f1:.4f}" for side in (before, after))
    table.add_row("macro F1, test rows of the data set", *scores)
    table.add_section()
    table.add_row(f"recall, {adaptation.budget}", "", "")
    for name, of_champion, of_challenger in adaptation.classes:
        if of_champion.rows:
            table.add_row(cell(f"  {name}"), of_champion.text, of_challenger.text)
    console = Console(file=io.StringIO(), width=120)
    with console.capture() as captured:
        console.print(table)
    left_out, learned = sum(group.rows for group in adaptation.left_out), adaptation.learned
    decision = (
        f"refused: {' '.join(adaptation.refusals)}"
        if adaptation.refusals
        else f"the challenger scores nights beside the champion; to use it: {adaptation.promote_command}"
    )
    return [
        *captured.get().rstrip().split("\n"),
        f"learned {learned.train_rows:,} of {learned.read:,} local flows, held out {learned.held_out_rows:,};"
        f" {left_out:,} left out for review",
        decision,
        f"page: {page}",
    ]
