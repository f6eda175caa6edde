"""The precision of incidents, and their budget, from verdicts of people, on the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from ids_spark.evaluate import budget
from ids_spark.evaluate.budget import Budget
from ids_spark.evaluate.precision import Decided, Precision
from ids_spark.report.format import amount, cell, counted


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
        table.add_row(cell(name), *_cells(decided))
    table.add_section()
    table.add_row("all", *_cells(precision.total))
    console.print(table)


def print_budget(nights: Sequence[Budget], length: int, console: Console) -> None:
    """Print promised and observed false incidents of each night, and after how many nights the budget held.

    Observed are at least the incidents called `benign`, at most also those without a verdict. The budget holds on a
    night if the last `length` nights, it included, had at most as many as promised. Nothing is printed without nights.

    Args:
        nights: From `budget.of_lake`.
        length: Nights that are compared together.
        console: Where to print.
    """
    if not nights:
        return
    windows = budget.windows(nights, length)
    first = budget.held_from(windows)
    table = Table(title="False incidents, promised and observed")
    table.add_column("night")
    together = f"observed ÷ promised, {counted(length, 'night')}"
    for heading in ("promised", "observed", together, "budget"):
        table.add_column(heading, justify="right")
    for night, window in zip(nights, windows, strict=True):
        shares = [n / window.promised if window.promised else 0.0 for n in (window.at_least, window.at_most)]
        cells = (amount(night.promised), _span(night.at_least, night.at_most), _span(*shares))
        table.add_row(str(night.nights[0]), *cells, "held" if window.held else "not held")
    console.print(table)
    if first is None:
        undecided = windows[-1].at_most - windows[-1].at_least
        left = f"; {counted(undecided, 'incident')} without a verdict true or benign" if undecided else ""
        console.print(f"The budget has not held yet{left}.")
    else:
        after = f"after {counted(first, 'night')}" if first else "the first night"
        console.print(f"The budget held from {nights[first].nights[0]} on, {after}.")


def _span(low: float, high: float) -> str:
    return amount(high) if low == high else f"{amount(low)} to {amount(high)}"


def _cells(decided: Decided) -> list[str]:
    counts = [f"{n:,}" for n in (decided.seen, decided.true, decided.benign, decided.undecided)]
    if decided.precision is None:
        return [*counts, "no verdict yet" if decided.seen else "–", "–"]
    low, high = decided.interval
    return [*counts, f"{decided.precision:.2f}", f"{low:.2f}–{high:.2f}"]
