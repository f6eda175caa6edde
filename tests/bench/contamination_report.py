"""Tables, bars and picture of the benchmark of contamination."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from ids_spark.report import style
from tests.bench.contamination_nights import ATTACKED, NIGHTS
from tests.bench.contamination_site import MOST_LOST, Adapted, Case, Left, Scored
from tests.bench.night_report import Bar

Rows = list[tuple[str, ...]]
_REVIEW: Final = ("planted", "nights with attacks", "survive", "benign left out", "survive most")
_ADAPTED: Final = (
    *("learned", "false incidents a night", "shown", "÷ promised", "later benign flagged", "attacks found", "shown"),
    *("recurring found", "mean recall", "most lost", "lost by contamination", "gate", "s"),
)


@dataclass(frozen=True)
class Result:
    """What became of a week; `adapted` is None where only the review was measured."""

    case: Case
    left: Left
    seconds: float
    adapted: Adapted | None = None


@dataclass
class Results:
    """Everything that was measured so far.

    Attributes:
        facts: Data and settings.
        weeks: Of each week.
        champion: The nights after the week, by the champion.
    """

    facts: dict[str, Any]
    weeks: list[Result] = field(default_factory=list)
    champion: Scored | None = None

    @property
    def clean(self) -> Result | None:
        """The week without attacks."""
        return next((each for each in self.weeks if each.case == Case(0.0)), None)


def name_of(case: Case) -> str:
    """Return what was learned, as text."""
    planted = f"{case.share:.1%} attacks" if case.share else "no attacks"
    return f"{case.nights} nights, {planted}{' in every night' if case.every_night else ''}"


def review_rows(results: Results) -> Rows:
    """Return the rows of the table of what the review left."""
    found = []
    for each in results.weeks:
        most = sorted(each.left.survive_by_class.items(), key=lambda item: -item[1])[:4]
        nights = str(NIGHTS if each.case.every_night else ATTACKED if each.case.share else 0)
        found.append(
            (
                f"{each.case.share:.1%} ({each.left.planted:,} of {each.left.rows:,})",
                nights,
                "" if each.left.survive is None else f"{each.left.survive:.1%}",
                f"{each.left.benign_left_out:.2%}",
                ", ".join(f"{name} {value:.2f}" for name, value in most if value),
            )
        )
    return found


def adapted_rows(results: Results) -> Rows:
    """Return the rows of the table of models: the champion, then the challenger of each week."""
    found = []
    weeks = [each for each in results.weeks if each.adapted is not None]
    if results.champion is not None and weeks and weeks[0].adapted is not None:
        first = weeks[0].adapted
        mean = f"{np.mean(list(first.recall.champion.values())):.3f}"
        found.append(("(champion)", *_of_nights(results.champion, first.later_flagged[0]), mean, "", "", "", ""))
    for each in weeks:
        adapted = each.adapted
        assert adapted is not None
        name, lost = adapted.recall.lost
        found.append(
            (
                name_of(each.case),
                *_of_nights(adapted.scored, adapted.later_flagged[1]),
                f"{np.mean(list(adapted.recall.challenger.values())):.3f}",
                f"{name} {lost:.3f}" if lost > 0 else "none",
                _cost(results.clean, each),
                "accepted" if adapted.accepted else "refused",
                f"{adapted.seconds:.0f}",
            )
        )
    return found


def _of_nights(scored: Scored, flagged: float) -> tuple[str, ...]:
    return (
        f"{scored.false_per_night:.1f} ({min(scored.false)}–{max(scored.false)})",
        f"{np.mean(scored.false_shown):.1f}",
        f"{scored.observed_over_promised:.2f}",
        f"{flagged:.2%}",
        f"{len(scored.found)} of {scored.attacks}",
        str(len(scored.found_shown)),
        str(len(scored.recurring_found)),
    )


def _cost(clean: Result | None, week: Result) -> str:
    """Return the mean loss of recall against the model of the week without attacks, and the largest of a class."""
    if clean is None or clean.adapted is None or week.adapted is None or not week.case.share:
        return ""
    before, after = clean.adapted.recall.challenger, week.adapted.recall.challenger
    lost = {name: before[name] - after[name] for name in before}
    name = max(lost, key=lambda each: lost[each])
    return f"{np.mean(list(lost.values())):.3f}, {name} {lost[name]:.3f}"


def bars(results: Results) -> list[Bar]:
    """Return the figures that have a limit, as far as they were measured."""
    found: list[Bar] = []
    if results.champion is not None:
        found.append(Bar("champion: false incidents a night", results.champion.false_per_night, at_least=20))
    for each in results.weeks:
        if each.adapted is None or each.case.nights < NIGHTS or each.case.share > 0.01 or each.case.every_night:
            continue
        name = name_of(each.case)
        found.append(Bar(f"{name}: false incidents a night", each.adapted.scored.false_per_night, at_most=1))
        _, lost = each.adapted.recall.lost
        found.append(Bar(f"{name}: most recall lost of a class", lost, at_most=MOST_LOST))
    return found


def show(console: Console, results: Results) -> None:
    """Print the tables, and the figures that have a limit."""
    limits = [(bar.name, f"{bar.value:.3g}", bar.limit, bar.result) for bar in bars(results)]
    for title, headings, rows in (
        ("attack flows in the nights that are learned", _REVIEW, review_rows(results)),
        (f"nights after them, {results.facts['flows']:,} flows, N = 1", _ADAPTED, adapted_rows(results)),
        ("bars", ("figure", "value", "limit", ""), limits),
    ):
        if rows:
            table = Table(title=title)
            for i, heading in enumerate(headings):
                table.add_column(heading, justify="right" if i else "left")
            for row in rows:
                table.add_row(*row)
            console.print(table)


def write(out: Path, results: Results) -> None:
    """Write contamination.json, contamination.md and, with models, contamination.png."""
    content = {
        **results.facts,
        "champion": None if results.champion is None else results.champion.as_dict(),
        "weeks": [
            asdict(each.case)
            | {"review": asdict(each.left), "seconds": each.seconds}
            | {"adapted": None if each.adapted is None else each.adapted.as_dict()}
            for each in results.weeks
        ],
        "bars": {
            bar.name: {"value": round(bar.value, 5), "bar": bar.limit, "result": bar.result} for bar in bars(results)
        },
    }
    files = {
        "contamination.json": (json.dumps(content, indent=2) + "\n").encode(),
        "contamination.md": markdown(results).encode(),
    }
    if results.champion is not None:
        files["contamination.png"] = picture(results)
    for name, data in files.items():
        unfinished = out / f"{name}.unfinished"
        unfinished.write_bytes(data)
        os.replace(unfinished, out / name)


def markdown(results: Results) -> str:
    """Return the tables as markdown."""
    tables = [(_REVIEW, review_rows(results)), (_ADAPTED, adapted_rows(results))]
    return "\n".join(
        "".join(f"| {' | '.join(row)} |\n" for row in (headings, ("---",) * len(headings), *rows))
        for headings, rows in tables
        if rows
    )


def picture(results: Results) -> bytes:
    """Return a PNG: false incidents, attacks found and recall of each class, by the champion and each challenger."""
    figure = Figure(figsize=(11, 6), layout="constrained")
    weeks = [(name_of(each.case), each.adapted) for each in results.weeks if each.adapted is not None]
    scored = [("champion", results.champion), *((name, each.scored) for name, each in weeks)]
    measured = [(name, each) for name, each in scored if each is not None]
    axes = figure.subplot_mosaic([["false", "recall"], ["found", "recall"]])
    names = [name.replace(", ", ",\n") for name, _ in measured]
    false = [each.false_per_night for _, each in measured]
    _bars_of(axes["false"], names, false, "false incidents of a benign night, N = 1")
    axes["false"].set_yscale("symlog", linthresh=1)
    axes["false"].axhline(1, color=style.RED, linewidth=1, linestyle="--")
    shares = [len(each.found) / max(each.attacks, 1) for _, each in measured]
    _bars_of(axes["found"], names, shares, "share of attacks found")
    _recalls(axes["recall"], weeks)
    return style.png(figure)


def _bars_of(axes: Axes, names: Sequence[str], values: Sequence[float], title: str) -> None:
    colours = [style.GREY, *[style.BLUE] * (len(values) - 1)]
    axes.bar(np.arange(len(values)), values, 0.7, color=colours)
    axes.set_xticks(np.arange(len(names)), names, fontsize=6)
    axes.set_title(title, fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _recalls(axes: Axes, weeks: Sequence[tuple[str, Adapted]]) -> None:
    """Draw the recall of each class, at thresholds that flag 1 % of the same flows."""
    colours = (style.BLUE, style.ORANGE, style.RED, *style.SEVERITY_COLOURS.values())
    classes = list(weeks[0][1].recall.champion) if weeks else []
    lines = [("champion", style.GREY, weeks[0][1].recall.champion)] if weeks else []
    for (name, each), colour in zip(weeks, colours, strict=False):
        lines.append((name, colour, each.recall.challenger))
    for i, (name, colour, recall) in enumerate(lines):
        places = np.arange(len(classes)) + (len(lines) / 2 - i) * 0.7 / len(lines)
        axes.plot([recall[each] for each in classes], places, "o", color=colour, markersize=3, label=name)
    axes.set_yticks(np.arange(len(classes)), classes, fontsize=6)
    axes.legend(frameon=False, fontsize=6)
    axes.set_title("recall of test rows where 1 % of later benign flows are flagged", fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
