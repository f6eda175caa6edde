"""The comparison as tables on the terminal, as markdown and as one page that needs nothing else."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ids_spark.dataset.taxonomy import LEVELS
from ids_spark.evaluate.benchmark import TABLE, Row, Setting, tidy
from ids_spark.lake.filesystem import write_bytes
from ids_spark.lake.parquet import write_rows
from ids_spark.report import html
from ids_spark.report.benchmark_template import PAGE

SYNTHETIC: Final = "SYNTHETIC FLOWS: every row was generated. These figures say nothing about real traffic."
_UNKNOWN: Final = "–"


@dataclass(frozen=True)
class Column:
    """A column of the tables.

    Attributes:
        heading: Text above it.
        figure: Which figure of a row.
        form: How it is written.
        short: Whether it also stands on the terminal, which is narrow.
    """

    heading: str
    figure: str
    form: str = ".4f"
    short: bool = True

    def text(self, row: Row) -> str:
        """Return the figure of a row, – where it is not known."""
        value = row.figures.get(self.figure)
        return _UNKNOWN if value is None else format(value, self.form)


COLUMNS: Final = (  # what people compare stands first: a page is not wide enough for all
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
    """Return the title of a row; a model of others is marked with the average that its F1 is."""
    if not row.published:
        return row.model
    f1 = row.figures.get("f1_not_stated")
    return f"{row.model} ({row.averaging}" + (f": F1 {f1:.4f})" if f1 is not None else ")")


def origin_of(row: Row) -> str:
    """Return the feature_set of our own row, `published` for others."""
    return row.feature_set or "published"


def print_tables(rows: Sequence[Row], setting: Setting, console: Console) -> None:
    """Print one table for each number of classes; readable at 120 columns."""
    shown = [column for column in COLUMNS if column.short]
    for classes in LEVELS:
        table = Table(title=f"{classes} classes, split {setting.split}", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column("model", overflow="fold")
        table.add_column("feature_set")
        for column in shown:
            table.add_column(column.heading, justify="right")
        found = [row for row in rows if row.classes == classes]
        for row, following in zip(found, [*found[1:], None], strict=True):
            last = following is not None and origin_of(following) != origin_of(row)
            cells = [name_of(row), origin_of(row), *(column.text(row) for column in shown)]
            table.add_row(*(Text(cell) for cell in cells), end_section=last)
        console.print(table)
    for line in legend(rows):
        console.print(Text(line))
    for sentence in setting.sentences(rows):
        console.print(Text(sentence))
    if setting.data_origin != "measured":
        console.print(Text(SYNTHETIC, style="bold white on red"))


def legend(rows: Sequence[Row]) -> list[str]:
    """Return how each of our models was trained and who published each of the others, each once."""
    own = [f"{row.model}: {row.configuration}" for row in rows if row.configuration]
    others = [f"{name_of(row).split(': F1')[0].rstrip(')')}): {row.source}" for row in rows if row.published]
    return list(dict.fromkeys([*own, *others]))


def markdown(rows: Sequence[Row], setting: Setting) -> str:
    """Return the comparison as GitHub markdown."""
    lines = ["# Every model beside the published figures", ""]
    if setting.data_origin != "measured":
        lines += [f"> **{SYNTHETIC}**", ""]
    lines += [line for sentence in setting.sentences(rows) for line in (_escaped(sentence), "")]
    headings = ["model", "feature_set", *(column.heading for column in COLUMNS), "configuration or source"]
    rule = "|".join(["---", "---", *("--:" for _ in COLUMNS), "---"])
    for classes in LEVELS:
        lines += [f"## {classes} classes", "", f"| {' | '.join(headings)} |", f"|{rule}|"]
        for row in rows:
            if row.classes == classes:
                told = row.source if row.published else row.configuration
                cells = [name_of(row), origin_of(row), *(column.text(row) for column in COLUMNS), told]
                lines.append(f"| {' | '.join(_escaped(cell) for cell in cells)} |")
        lines.append("")
    return "\n".join(lines)


def render_page(rows: Sequence[Row], setting: Setting, run_id: str) -> str:
    """Return the comparison as one HTML page; every text is escaped."""
    tables = [(classes, [row for row in rows if row.classes == classes]) for classes in LEVELS]
    return html.render(
        PAGE,
        {},
        tables=tables,
        columns=COLUMNS,
        sentences=setting.sentences(rows),
        setting=setting,
        run_id=run_id,
        name_of=name_of,
        origin_of=origin_of,
    )


def write_page(folder: str, rows: Sequence[Row], setting: Setting, run_id: str) -> None:
    """Write `table.md`, `table.html` and `table.parquet` into a staged folder."""
    write_bytes(f"{folder}/table.md", markdown(rows, setting).encode())
    write_bytes(f"{folder}/table.html", render_page(rows, setting, run_id).encode())
    write_rows(f"{folder}/table.parquet", list(tidy(rows)), TABLE)


def _escaped(text: str) -> str:
    """Return a text that markdown shows as it is: no markup, no cell border, no line break."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", " ".join(text.split()))
