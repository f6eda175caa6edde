"""Own and published results as tables on the terminal, as markdown and as one self-contained HTML file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ids_spark.dataset.taxonomy import LEVELS
from ids_spark.evaluate.benchmark import TABLE, Row, Setting, scored_rows, tidy
from ids_spark.lake.filesystem import write_bytes
from ids_spark.lake.parquet import write_rows
from ids_spark.report import html
from ids_spark.report.format import cell

_SYNTHETIC: Final = "SYNTHETIC FLOWS: every row was generated. These figures do not describe real traffic."
_UNKNOWN: Final = "–"


@dataclass(frozen=True)
class Column:
    """A column of the tables.

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

    def text(self, row: Row) -> str:
        """Return the figure of a row; – where it is unknown."""
        value = row.figures.get(self.figure)
        return _UNKNOWN if value is None else format(value, self.form)


COLUMNS: Final = (  # the figures that readers compare come first: a page is not wide enough for all
    Column("accuracy", "accuracy"),
    Column("macro F1", "f1_macro"),
    Column("weighted F1", "f1_weighted"),
    Column("benign FPR", "benign_false_positive_rate"),
    Column("parameters", "parameters", ",.0f"),
    Column("epochs", "epochs", ".0f"),
    Column("s/epoch", "seconds_per_epoch", ".2f"),
    Column("seconds", "seconds", ".0f"),
    Column("macro precision", "precision_macro", short=False),
    Column("macro recall", "recall_macro", short=False),
    Column("weighted precision", "precision_weighted", short=False),
    Column("weighted recall", "recall_weighted", short=False),
)


def name_of(row: Row) -> str:
    """Return the title of a row; for a published row with the average that its F1 is."""
    if not row.published:
        return row.model
    f1 = row.figures.get("f1_not_stated")
    return f"{row.model} ({row.averaging}" + (f": F1 {f1:.4f})" if f1 is not None else ")")


def origin_of(row: Row) -> str:
    """Return the feature set of an own row, `published` for others."""
    return row.feature_set or "published"


def print_tables(rows: Sequence[Row], setting: Setting, console: Console) -> None:
    """Print one table for each number of classes; readable at 120 columns."""
    shown = [column for column in COLUMNS if column.short]
    for classes in LEVELS:
        table = Table(title=f"{classes} classes, split {setting.split}", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column("model", overflow="fold")
        table.add_column("feature set")
        for column in shown:
            table.add_column(column.heading, justify="right")
        found = [row for row in rows if row.classes == classes]
        for row, following in zip(found, [*found[1:], None], strict=True):
            last = following is not None and origin_of(following) != origin_of(row)
            cells = [name_of(row), origin_of(row), *(column.text(row) for column in shown)]
            table.add_row(*map(cell, cells), end_section=last)
        console.print(table)
    for line in legend(rows):
        console.print(cell(line))
    for note in notes(rows, setting):
        console.print(cell(note))
    if setting.data_origin != "measured":
        console.print(Text(_SYNTHETIC, style="bold white on red"))


def legend(rows: Sequence[Row]) -> list[str]:
    """Return how each own model was trained and who published each of the others, without repetitions."""
    own = [f"{row.model}: {row.configuration}" for row in rows if row.configuration]
    others = [f"{name_of(row).split(': F1')[0].rstrip(')')}): {row.source}" for row in rows if row.published]
    return list(dict.fromkeys([*own, *others]))


def notes(rows: Sequence[Row], setting: Setting) -> list[str]:
    """Return what a reader must know to compare the rows, as plain text."""
    return html.render("benchmark_notes.txt.j2", setting=setting, scored_rows=scored_rows(rows)).splitlines()


def markdown(rows: Sequence[Row], setting: Setting) -> str:
    """Return the comparison as GitHub markdown."""
    return _rendered("benchmark.md.j2", rows, setting, "")


def render_page(rows: Sequence[Row], setting: Setting, run_id: str) -> str:
    """Return the comparison as one HTML page; every text is escaped."""
    return _rendered("benchmark.html.j2", rows, setting, run_id)


def write_page(folder: str, rows: Sequence[Row], setting: Setting, run_id: str) -> None:
    """Write `table.md`, `table.html` and `table.parquet` into a staged folder."""
    write_bytes(f"{folder}/table.md", markdown(rows, setting).encode())
    write_bytes(f"{folder}/table.html", render_page(rows, setting, run_id).encode())
    write_rows(f"{folder}/table.parquet", list(tidy(rows)), TABLE)


def _rendered(template: str, rows: Sequence[Row], setting: Setting, run_id: str) -> str:
    return html.render(
        template,
        tables=[(classes, [row for row in rows if row.classes == classes]) for classes in LEVELS],
        columns=COLUMNS,
        notes=notes(rows, setting),
        setting=setting,
        data_origins=[setting.data_origin],
        run_id=run_id,
        name_of=name_of,
        origin_of=origin_of,
    )
