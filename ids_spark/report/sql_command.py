"""Questions to a lake in SQL, on the terminal: `make sql`, or `python -m ids_spark.report.sql_command --help`.

It starts no Spark and writes nothing. Exit code 0: answered; 2: refused, with the tables, views or columns that exist.
"""

import argparse
import contextlib
import csv
import datetime as dt
import json
import logging
import math
import os
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn, TextIO

import pyarrow as pa
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ids_spark.alerts.pseudonyms import load_key
from ids_spark.base import process
from ids_spark.base.errors import InputError, Message
from ids_spark.base.logs import printable
from ids_spark.base.text import one_line
from ids_spark.config.loader import load
from ids_spark.config.settings import Config
from ids_spark.lake import sql
from ids_spark.lake.store import Lake

log = logging.getLogger(__name__)

DONE: Final = 0
FAILED: Final = 1
REFUSED: Final = 2
_MOST_ROWS: Final = 200
"""Rows of a table on the terminal; csv and json have all."""
_WIDTH: Final = 200
_WIDEST: Final = 100_000
_BETWEEN: Final = 3  # characters between columns of a table
_LONGEST_QUERY: Final = 1 << 20  # bytes
_MOST_ROUNDED: Final = 999_999.5  # from here six digits would cut some before the point
_HELP: Final = "A query ends with ';'. `tables` lists what there is, `describe NAME;` its columns, `quit` ends."


def main(argv: Sequence[str] | None = None) -> int:
    """Answer one question, or those of a prompt, and return the exit code.

    Args:
        argv: Arguments; default those of the process.
    """
    parser = _Arguments(
        prog="ids-spark sql",
        description="Ask a lake in SQL (DuckDB); without --query and --view a prompt, or the query on standard input.",
    )
    parser.add_argument("--config", action="append", default=[], metavar="FILE", help="YAML file; may be repeated")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, such as lake=LAKE"
    )
    parser.add_argument("--query", metavar="SQL", help="one query")
    parser.add_argument("--view", metavar="NAME", help="rows of a view or table")
    parser.add_argument("--device", metavar="NAME", help="of --view: only this device: its pseudonym, or its name")
    parser.add_argument(
        "--date", metavar="DATE", help="of --view: only this night; of incidents_of_week its whole week"
    )
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table", help="default: table")
    given = parser.parse_args(argv)
    process.begin(logging.INFO)
    try:
        config = load(given.config, given.set)
        lake = Lake(config.lake)
        lake.require_tables()
        if given.query is None and given.view is None:
            if sys.stdin.isatty():
                return _prompt(lake, given.format)
            given.query = _of_standard_input()
        answer = sql.query(lake, *_question(given, config, lake))
        _write(answer, given.format, sys.stdout)
        if not len(answer) and (given.device or given.date):
            log.warning("%s", _nothing_found(given))
    except Message as error:
        log.error("%s", error)
        return REFUSED if isinstance(error, InputError) else FAILED
    except BrokenPipeError:  # such as of `head`
        sys.stderr.close()
    return DONE


class _Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End the process; the message quotes arguments."""
        super().error(printable(message))


def _of_standard_input() -> str:
    """Return the query on standard input.

    Raises:
        InputError: it has more than `_LONGEST_QUERY` bytes, or is no UTF-8.
    """
    expected = "expected one query in UTF-8"
    content = sys.stdin.buffer.read(_LONGEST_QUERY + 1)
    if len(content) > _LONGEST_QUERY:
        raise InputError(f"standard input: found more than {_LONGEST_QUERY:,} bytes; {expected}")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"standard input: byte {error.start} is no UTF-8; {expected}") from error


def _question(given: argparse.Namespace, config: Config, lake: Lake) -> tuple[str, list[Any]]:
    """Return the statement that the arguments ask for, and values for its `?`."""
    if given.view is None:
        if given.device or given.date:
            raise InputError("found --device or --date without --view; expected a view or table; name one in --view")
        return given.query, []
    if given.query is not None:
        raise InputError("found --query and --view; expected one of them; remove the other")
    if given.view not in {*sql.views(), *sql.RELATIONS}:
        raise InputError(
            f"found view {given.view!r}; expected a view: {', '.join(sql.views())}; or a table:"
            f" {', '.join(sql.RELATIONS)}"
        )
    conditions: list[str] = []
    values: list[Any] = []
    names = [name for name, _ in sql.columns(lake, given.view)]
    if given.device:
        column = _first(("entity", "device", "device_id"), names)
        conditions.append(f'"{_required(column, given.view, "devices", names)}" in (?, ?)')
        key = load_key(config.score)
        values += [given.device, given.device if key is None else key.of(given.device)]
    if given.date:
        column = _first(("week", "event_date"), names)
        date = _date(given.date)
        values.append(date - dt.timedelta(days=date.weekday()) if column == "week" else date)
        conditions.append(f'"{_required(column, given.view, "nights", names)}" = ?')
    where = f" where {' and '.join(conditions)}" if conditions else ""
    return f'select * from "{given.view}"{where}', values


def _nothing_found(given: argparse.Namespace) -> str:
    parts = []
    if given.device:
        parts.append("names are as they are stored, pseudonyms where nights are scored with a key")
    if given.date:
        parts.append("a date that nights_overview does not list has no result")
    asked = " and ".join(f"{what} {value}" for what, value in (("device", given.device), ("date", given.date)) if value)
    return f"{given.view} has no row of {printable(asked)}; {'; '.join(parts)}"


def _first(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    return next((name for name in wanted if name in names), None)


def _required(column: str | None, view: str, what: str, names: Sequence[str]) -> str:
    if column is None:
        raise InputError(f"{view} has no column of {what}; found {', '.join(names)}; ask with --query")
    return column


def _date(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise InputError(f"found date {text!r}; expected YYYY-MM-DD") from None


def _prompt(lake: Lake, form: str) -> int:
    """Answer questions until the end of input; a refusal ends only its question."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # lines can be edited and repeated
    sys.stdout.write(f"{lake.root}\n{_HELP}\n")
    asked = ""
    while True:
        try:
            line = input("   …> " if asked else "lake> ")
        except EOFError:
            sys.stdout.write("\n")
            return DONE
        except KeyboardInterrupt:
            asked = ""
            sys.stdout.write("\n")
            continue
        word = line.strip().rstrip(";").lower()
        if not asked and word in ("quit", "exit", "q"):
            return DONE
        if not asked and word in ("tables", "help", "views"):
            _list(sys.stdout)
            continue
        asked = f"{asked}\n{line}".strip()
        if not asked.endswith(";"):
            continue
        try:
            _write(sql.query(lake, asked), form, sys.stdout)
        except Message as error:
            log.error("%s", error)
        except KeyboardInterrupt:
            sys.stdout.write("interrupted\n")
        asked = ""


def _list(output: TextIO) -> None:
    output.write(f"tables: {', '.join(sql.RELATIONS)}\n")
    for view in sql.views().values():
        output.write(f"view {view.name}: {view.purpose}\n")


def _write(answer: pa.Table, form: str, output: TextIO) -> None:
    """Write an answer; texts of the lake cannot move the cursor of a terminal.

    To a file or pipe, csv has texts as they are stored; it has numbers with all of their digits, as json has them, a
    table at least six.
    """
    rows = _rows(answer if form in ("csv", "json") else answer.slice(0, _MOST_ROWS))
    if form == "json":
        output.writelines(json.dumps(row, allow_nan=False) + "\n" for row in rows)
    elif form == "csv":
        text = printable if output.isatty() else str
        writer = csv.writer(output, lineterminator="\n")
        writer.writerow(map(text, answer.column_names))
        writer.writerows([text(_cell(value, exact=True)) for value in row.values()] for row in rows)
    else:
        console = Console(file=output, width=None if output.isatty() else _width_of_pipe())
        _write_table(console, [printable(name) for name in answer.column_names], [
            [printable(_cell(value)) for value in row.values()] for row in rows
        ])  # fmt: skip
        hidden = len(answer) - _MOST_ROWS
        console.print(f"{len(answer):,} row{'s' * (len(answer) != 1)}" + (
            f", {hidden:,} of them not shown; add a limit, or ask for csv or json" if hidden > 0 else ""
        ))  # fmt: skip
    output.flush()


def _width_of_pipe() -> int:
    """Return the columns of output that is no terminal: `COLUMNS`, or 200."""
    given = os.environ.get("COLUMNS", "")
    return int(given) if given.isdecimal() and 0 < int(given) <= _WIDEST else _WIDTH


def _write_table(console: Console, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table with each row in one line, or, if it is too wide for that, each row as lines of name and value.

    No value is cut.
    """
    widths = [max(map(cell_len, column)) for column in zip(names, *rows, strict=True)]
    if not rows or sum(widths) + _BETWEEN * len(widths) <= console.width:
        table = Table(show_edge=False)
        for name in names:
            table.add_column(Text(name), no_wrap=bool(rows))
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)
        return
    longest = max(map(cell_len, names))
    for number, row in enumerate(rows, 1):
        console.print(Text(f"row {number:,}"), soft_wrap=True)
        for name, value in zip(names, row, strict=True):
            console.print(Text(f"  {name}{' ' * (longest - cell_len(name))}  {value}"), soft_wrap=True)


def _rows(answer: pa.Table) -> list[dict[str, Any]]:
    """Return the rows as JSON has them.

    Raises:
        StatementRefused: a value, such as a date after the year 9999, exists in DuckDB and not here.
    """
    names = _distinct(answer.column_names)
    try:
        rows = answer.rename_columns(names).to_pylist()
    except (ArithmeticError, ValueError, pa.ArrowException) as error:  # pyarrow does not name the column
        raise sql.StatementRefused(
            f"the answer has a value that cannot be shown ({one_line(error)}); expected dates and times of the years 1"
            " to 9999; cast its column to text in the query: COLUMN::varchar"
        ) from error
    return [{name: _plain(value) for name, value in row.items()} for row in rows]


def _distinct(names: Sequence[str]) -> list[str]:
    """Return names of which none is twice: a query may have two columns of one name."""
    found: list[str] = []
    for name in names:
        number, new = 1, name
        while new in found:
            number, new = number + 1, f"{name}_{number}"
        found.append(new)
    return found


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: times and dates as text of ISO 8601, NaN and infinity as null."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    return str(value)


def _cell(value: Any, exact: bool = False) -> str:
    """Return a value of csv, which is `exact`, or of a table: nothing for null, JSON for lists and structures."""
    if value is None:
        return ""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and not exact and abs(value) < _MOST_ROUNDED:
        return f"{value:.6g}"
    return str(value)


if __name__ == "__main__":
    sys.exit(main())
