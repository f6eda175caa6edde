"""The benchmark as tables on the terminal, as markdown and as one self-contained HTML file with a picture."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ids_spark.dataset.taxonomy import LEVELS, Level
from ids_spark.evaluate import literature
from ids_spark.evaluate.benchmark import (
    AVERAGED,
    TABLE,
    Difference,
    Row,
    Setting,
    best_rows,
    difference,
    levels_of_one_model,
    ranking,
    scored_rows,
    tidy,
)
from ids_spark.evaluate.night_metrics import RARE, RARE_RECALL
from ids_spark.evaluate.results import Metric
from ids_spark.lake.filesystem import write_bytes
from ids_spark.lake.parquet import write_rows
from ids_spark.report import benchmark_figures, html
from ids_spark.report.format import cell
from ids_spark.report.style import png

_SYNTHETIC: Final = "SYNTHETIC FLOWS: every row was generated. These figures do not describe real traffic."
_UNKNOWN: Final = "–"
PICTURE: Final = "macro-f1"


@dataclass(frozen=True)
class Column:
    """A column of the tables of own models.

    Attributes:
        heading: Text above it.
        figure: Name of the figure, as in `Row.figures`.
        form: Format of its value.
        short: Whether it is also in the narrow tables on the terminal.
    """

    heading: str
    figure: str
    form: str = ".4f"
    short: bool = True

    def text(self, row: Row, interval: bool = True) -> str:
        """Return the figure of a row, with its interval where there is one and `interval` is set; – if unknown."""
        metric = row.figures.get(self.figure, Metric(None))
        if metric.value is None:
            return _UNKNOWN
        value = format(metric.value, self.form)
        if not interval or metric.low is None or metric.high is None:
            return value
        return f"{value} ({metric.low:.3f}–{metric.high:.3f})"


COLUMNS: Final = (  # the figures that readers compare come first: a page is not wide enough for all
    Column("macro F1", "f1_macro"),
    Column("accuracy", "accuracy"),
    Column("benign FPR", "benign_false_positive_rate"),
    Column("recall at 1 %", "recall_at_1e-2"),
    Column("rare at 1 %", RARE_RECALL),
    Column("recall at .1 %", "recall_at_1e-3", short=False),
    Column("area to 1 %", "area_to_1e-2", short=False),
    Column("calibration error", "expected_calibration_error", short=False),
    Column("parameters", "parameters", ",.0f"),
    Column("epochs", "epochs", ".0f", short=False),
    Column("s/epoch", "seconds_per_epoch", ".2f", short=False),
    Column("seconds", "seconds", ".0f"),
)
COMPARED: Final = ("f1_macro", "accuracy", "benign_false_positive_rate", "recall_at_1e-2", RARE_RECALL)
"""Figures of which the best model is named."""
_COLUMNS: Final = {column.figure: column for column in COLUMNS}
_HEADINGS: Final = {column.figure: column.heading for column in COLUMNS}


@dataclass(frozen=True)
class Line:
    """One line of the table in the form of the study's Table 8: a model with one kind of average.

    Attributes:
        row: The model.
        average: `macro`, `weighted` or `not stated`.
    """

    row: Row
    average: str

    def text(self, name: str) -> str:
        """Return `accuracy`, `precision`, `recall`, `f1` or `benign_false_positive_rate`; – where it is unknown."""
        figure = f"{name}_{self.average.replace(' ', '_')}" if name in AVERAGED else name
        return Column("", figure, ".3f").text(self.row)


def lines(rows: Sequence[Row], classes: Level) -> list[Line]:
    """Return the lines at one level: published rows, then own ones of the feature set `paper`, macro and weighted."""
    found = [row for row in rows if row.classes == classes]
    published = [Line(row, row.averaging) for row in found if row.published]
    own = [row for row in found if row.feature_set == "paper" and row.own_level]
    return [*published, *(Line(row, kind) for row in ranking(own, "f1_macro") for kind in ("macro", "weighted"))]


def name_of(row: Row) -> str:
    """Return the title of a row; with the level of its model where that is finer."""
    return row.model if row.own_level else f"{row.model} of {row.of_classes}"


def own_rows(rows: Sequence[Row], classes: Level) -> list[Row]:
    """Return the own rows at one level: `paper` first, the highest macro F1 first; rows without one at the end."""
    own = [row for row in rows if row.classes == classes and not row.published]
    place = {id(row): i for i, row in enumerate(ranking(own, "f1_macro"))}
    return sorted(own, key=lambda row: (row.feature_set != "paper", row.feature_set, place.get(id(row), len(own))))


def behind(row: Row, rows: Sequence[Row]) -> str:
    """Return the difference of the macro F1 of an own row to the best one of its level and feature set."""
    same = [each for each in rows if (each.classes, each.feature_set) == (row.classes, row.feature_set)]
    ranked = ranking(same, "f1_macro")
    if not ranked or row.value("f1_macro") is None:
        return _UNKNOWN
    return "best" if row is ranked[0] else gap_of(difference(row, ranked[0], "f1_macro"))


def gap_of(found: Difference | None) -> str:
    """Return a difference, positive where the first figure is better, and whether it is larger than the noise."""
    if found is None:
        return _UNKNOWN
    text = f"{found.value:+.4f}".replace("-", "−")
    if found.noise is None:
        return text
    return f"{text}, {'beyond' if found.beyond_noise else 'within'} noise (±{found.noise:.3f})"


def print_tables(rows: Sequence[Row], setting: Setting, console: Console) -> None:
    """Print the best models, then one table for each number of classes; readable at 120 columns.

    Rows of finer models are on the page; here they are shown where no model was trained at the level.
    """
    best = _narrow("Which model is best at what", ("classes", "feature set", "figure", "best", "next", "ahead by"))
    for one in best_rows(rows, COMPARED):
        models = [f"{name_of(row)} {_value(row, one.figure)}" if row else _UNKNOWN for row in (one.first, one.second)]
        best.add_row(*map(cell, (str(one.classes), one.feature_set, _HEADINGS[one.figure], *models, gap_of(one.ahead))))
    if best.rows:
        console.print(best)
    for classes in LEVELS:
        _print_level(rows, classes, setting, console)
    for sentence in (*legend(rows), *notes(rows, setting)):
        console.print(cell(sentence))
    if setting.data_origin != "measured":
        console.print(Text(_SYNTHETIC, style="bold white on red"))


def _print_level(rows: Sequence[Row], classes: Level, setting: Setting, console: Console) -> None:
    shown = [column for column in COLUMNS if column.short]
    table = _narrow(f"{classes} classes, split {setting.split}", ("model", "feature set"))
    for column in shown:
        table.add_column(column.heading, justify="right")
        if column.figure == "f1_macro":
            table.add_column("±", justify="right")
    trained = {(row.model, row.feature_set) for row in rows if row.own_level and row.classes == classes}
    found = [row for row in own_rows(rows, classes) if row.own_level or (row.model, row.feature_set) not in trained]
    for i, row in enumerate(found):
        cells = [name_of(row), row.feature_set]
        for column in shown:
            cells.append(column.text(row, interval=False))
            if column.figure == "f1_macro":
                cells.append(_half_width(row.figures.get(column.figure, Metric(None))))
        last_of_set = {row.feature_set} != {each.feature_set for each in found[i : i + 2]}
        table.add_row(*map(cell, cells), end_section=last_of_set)
    if found:
        console.print(table)


def _narrow(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _half_width(metric: Metric) -> str:
    return _UNKNOWN if metric.low is None or metric.high is None else f"{(metric.high - metric.low) / 2:.3f}"


def _value(row: Row, figure: str) -> str:
    return _COLUMNS[figure].text(row, interval=False)


def figure_of(row: Row, figure: str) -> str:
    """Return a figure of a row with its interval."""
    return _COLUMNS[figure].text(row)


def legend(rows: Sequence[Row]) -> list[str]:
    """Return how each own model was trained, without repetitions."""
    return list(dict.fromkeys(f"{row.model}: {row.configuration}" for row in rows if row.configuration))


def notes(rows: Sequence[Row], setting: Setting) -> list[str]:
    """Return what a reader must know to compare the rows, as plain text."""
    return html.render(
        "benchmark_notes.txt.j2",
        setting=setting,
        scored_rows=scored_rows(rows),
        rare=RARE,
        correct=literature.CORRECT,
        test_rows=literature.TEST_ROWS,
        dadkhah=any(row.model.endswith("-dadkhah") for row in rows),
    ).splitlines()


def markdown(rows: Sequence[Row], setting: Setting) -> str:
    """Return the benchmark as GitHub markdown."""
    return _rendered("benchmark.md.j2", rows, setting, "", {})


def draw(rows: Sequence[Row]) -> dict[str, bytes]:
    """Return the picture of macro F1 and rare recall; nothing without own rows."""
    own = [row for row in rows if not row.published and row.value("f1_macro") is not None]
    return {PICTURE: png(benchmark_figures.dots(own))} if own else {}


def render_page(rows: Sequence[Row], setting: Setting, run_id: str, pictures: dict[str, bytes] | None = None) -> str:
    """Return the benchmark as one HTML page; every text is escaped."""
    return _rendered("benchmark.html.j2", rows, setting, run_id, draw(rows) if pictures is None else pictures)


def write_page(folder: str, rows: Sequence[Row], setting: Setting, run_id: str) -> None:
    """Write `table.md`, `table.html`, `table.parquet` and the picture into a staged folder."""
    pictures = draw(rows)
    for name, content in pictures.items():
        write_bytes(f"{folder}/{name}.png", content)
    write_bytes(f"{folder}/table.md", markdown(rows, setting).encode())
    write_bytes(f"{folder}/table.html", render_page(rows, setting, run_id, pictures).encode())
    write_rows(f"{folder}/table.parquet", list(tidy(rows)), TABLE)


def _rendered(template: str, rows: Sequence[Row], setting: Setting, run_id: str, pictures: dict[str, bytes]) -> str:
    return html.render(
        template,
        pictures,
        picture=PICTURE,
        best=best_rows(rows, COMPARED),
        headings=_HEADINGS,
        tables=[(classes, own_rows(rows, classes)) for classes in LEVELS],
        columns=COLUMNS,
        behind_best=functools.partial(behind, rows=rows),
        one_model=levels_of_one_model(rows),
        study=[(classes, lines(rows, classes)) for classes in LEVELS],
        notes=notes(rows, setting),
        setting=setting,
        data_origins=[setting.data_origin],
        run_id=run_id,
        name_of=name_of,
        figure_of=figure_of,
        gap_of=gap_of,
        difference=difference,
    )
