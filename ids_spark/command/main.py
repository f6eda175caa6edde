"""`ids-spark`: lists the jobs, shows their settings, checks configurations, and asks a lake in SQL.

Everything that computes is a job, started by spark-submit:

    spark-submit --py-files $(ids-spark path)/ids_spark.zip $(ids-spark path)/jobs/score.py --config FILE …

Exit codes as those of the jobs: 0 done, 2 refused, with one message of what was found, expected and to do.
"""

import argparse
import difflib
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NoReturn

from ids_spark.base.errors import InputError
from ids_spark.base.logs import printable
from ids_spark.base.packaging import code_version
from ids_spark.command.share import jobs, share

_DONE: Final = 0
_REFUSED: Final = 2
_SECTIONS: Final[Mapping[str, tuple[str, ...]]] = {"prepare": ("ingest", "features"), "score": ("score", "alerts")}
"""Sections of the jobs that do not have just the one of their name."""
_SQL: Final = "sql"
"""A command with a parser of its own."""
_MODEL: Final = r"^train\.(dnn|gru_dnn|lstm)\b"
_EVERY_MODEL: Final = "train.<model>"
"""The key under which the settings of each architecture are described once."""


class UnknownName(InputError):
    """Raised when there is no job, section or setting of a name."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Args:
        arguments: Default: those of the process.
    """
    asked = list(sys.argv[1:] if arguments is None else arguments)
    if asked[:1] == [_SQL]:
        from ids_spark.report import sql_command

        return sql_command.main(asked[1:])
    given = _parser().parse_args(asked)
    try:
        code = _RUN[given.command](given)
        sys.stdout.flush()
    except InputError as error:
        sys.stderr.write(f"ids-spark: {error}\n")
        return _REFUSED
    except BrokenPipeError:  # `ids-spark settings | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _DONE
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Arguments(prog="ids-spark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    as_json = _Arguments(add_help=False)
    as_json.add_argument("--json", action="store_true", help="as JSON, for programs")
    commands.add_parser("jobs", parents=[as_json], help="list the jobs")
    settings = commands.add_parser("settings", parents=[as_json], help="show settings with type, default and meaning")
    settings.add_argument(
        "names", nargs="*", metavar="NAME", help="a job, a section such as train.dnn, or a setting; default: all"
    )
    check = commands.add_parser(
        "check",
        help="check a configuration, and the policies and keys that it names, without Spark",
        description="Checks the configuration of a job as the job does, or files: configurations, severity policies,"
        " allow-lists and inventories. What depends on the lake or the flows is checked by the job alone.",
    )
    check.add_argument("names", nargs="+", metavar="JOB|FILE", help="a job, or files")
    check.add_argument("--config", action="append", default=[], metavar="FILE", help="as for the job")
    check.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as for the job")
    commands.add_parser("path", help="print the folder of jobs/, conf/ and, of an installed wheel, ids_spark.zip")
    commands.add_parser(_SQL, help="ask a lake in SQL; see: ids-spark sql --help", add_help=False)
    commands.add_parser("version", help="print the version and, where it is known, the commit")
    return parser


class _Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End the process with 2; the message quotes arguments."""
        super().error(printable(message))


def _jobs(given: argparse.Namespace) -> int:
    if given.json:
        _write(json.dumps(dict(jobs()), indent=2, ensure_ascii=False))
    else:
        _table(("job", "does"), jobs().items())
    return _DONE


def _settings(given: argparse.Namespace) -> int:
    from ids_spark.config import described  # pydantic takes most of the time of this command

    known = {setting.key: setting for key in described.sections() for setting in described.settings_of(key)}
    keys = list(dict.fromkeys(key for name in given.names for key in _keys_of(name, known))) if given.names else known
    found = [known[key] for key in keys]
    if given.json:
        shown = [
            {"key": s.key, "type": s.type, "default": s.default, "required": s.required, "meaning": s.meaning}
            for s in found
        ]
        _write(json.dumps(shown, indent=2, ensure_ascii=False, default=str))
    else:
        _table(
            ("setting", "type", "default", "meaning"), [(s.key, s.type, s.shown_default(), s.meaning) for s in found]
        )
    return _DONE


def _keys_of(name: str, known: Iterable[str]) -> list[str]:
    """Return the settings of a job, of a section, or one setting.

    Raises:
        UnknownName: there is none.
    """
    every_job = [key for key in known if "." not in key]
    sections = _SECTIONS.get(name, (name,))
    of_model = [re.sub(_MODEL, _EVERY_MODEL, section) for section in sections]
    found = [key for key in known if any(key == each or key.startswith(f"{each}.") for each in of_model)]
    if name in jobs():
        return every_job + found
    if not found:
        parts = {".".join(key.split(".")[: i + 1]) for key in known for i in range(len(key.split(".")))}
        raise _unknown("job, section or setting", name, [*jobs(), *parts])
    return found


def _check(given: argparse.Namespace) -> int:
    from ids_spark.command import checked

    first, *more = given.names
    if first in jobs():
        if more:
            raise UnknownName(f"found {first} and {', '.join(more)}; expected one job; its files follow --config")
        passed, faults = checked.check_job(first, given.config, given.set)
        for fault in faults:
            sys.stderr.write(f"ids-spark: {fault}\n")
        if not faults:
            _write(f"{first}: valid ({', '.join(passed)})")
        return _REFUSED if faults else _DONE
    if given.config or given.set:
        raise _unknown("job", first, jobs())
    if not any(mark in first for mark in "./"):
        raise _unknown("job, and no file,", first, jobs())
    code = _DONE
    for name in given.names:
        try:
            _write(f"{name}: {checked.check_file(name)}")
        except InputError as error:
            sys.stdout.flush()
            sys.stderr.write(f"ids-spark: {error}\n")
            code = _REFUSED
    return code


def _path(_: argparse.Namespace) -> int:
    _write(str(share()))
    return _DONE


def _version(_: argparse.Namespace) -> int:
    _write(code_version())
    return _DONE


_RUN: Final = {"jobs": _jobs, "settings": _settings, "check": _check, "path": _path, "version": _version}


def _unknown(kind: str, name: str, known: Iterable[str]) -> UnknownName:
    near = difflib.get_close_matches(name, list(known), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return UnknownName(f"no {kind} is called {name!r}{hint} See: ids-spark jobs, ids-spark settings")


def _write(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table: on a terminal with lines that are broken to its width, elsewhere cells between tabs."""
    if not sys.stdout.isatty():
        for row in rows:
            _write("\t".join(row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for i, title in enumerate(header):
        table.add_column(title, no_wrap=i == 0, overflow="fold")
    for row in rows:
        table.add_row(Text(row[0], style="bold"), *map(Text, row[1:]))
    Console(highlight=False).print(table)
