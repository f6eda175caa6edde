"""The precision of incidents, from verdicts of people, on the terminal."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ids_spark.evaluate.precision import Decided, Precision
from ids_spark.report.format import counted


def print_precision(precision: Precision, console: Console) -> None:
    """Print for each category, and for all, the incidents seen, what people decided, and the share of true ones.

    The 95 % interval is exact (Clopper-Pearson); it holds if incidents have a verdict or none independently of what
    they are. Nothing is printed without nights.
    """
    if not precision.nights:
        return
    span = f"{counted(len(precision.nights), 'night')}, {precision.nights[0]} to {precision.nights[-1]}"
    synthetic = ": SYNTHETIC flows, not real traffic" if precision.data_origin == "synthetic" else ""
    table = Table(title=f"Incidents and verdicts, {span}{synthetic}")
    table.add_column("category")
    for heading in ("incidents shown", "true", "benign", "undecided", "precision", "95 % interval"):
        table.add_column(heading, justify="right")
    for name, decided in precision.categories.items():
        table.add_row(escape(name), *_cells(decided))
    table.add_section()
    table.add_row("all", *_cells(precision.total))
    console.print(table)


def _cells(decided: Decided) -> list[str]:
    counts = [f"{n:,}" for n in (decided.seen, decided.true, decided.benign, decided.undecided)]
    if decided.precision is None:
        return [*counts, "no verdict yet" if decided.seen else "–", "–"]
    low, high = decided.interval
    return [*counts, f"{decided.precision:.2f}", f"{low:.2f}–{high:.2f}"]
