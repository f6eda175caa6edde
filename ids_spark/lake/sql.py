"""SQL over the tables of a lake, with DuckDB in this process: no Spark, no server, nothing is written.

Every table with columns (`TABLES`) is a relation of its name; those of `quarantine/` are one, with column `job`. Values
of a path (`event_date=…`, `model=…`) are columns. Columns that older versions did not write are null, renamed ones have
their present name. Beside them are the views of `views/*.sql`, whose heads describe their columns.

Files are listed and read through `lake.filesystem`, so that a lake on S3 or HDFS is read as a local one. An answer is
of one state of the lake: if a commit changed the files of its tables while they were read, they are read again.
"""

import contextlib
import difflib
import functools
import importlib.resources
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import duckdb
import pyarrow as pa

from ids_spark.base.errors import InputError
from ids_spark.base.logs import printable
from ids_spark.base.text import one_line
from ids_spark.dataset.tables import TABLES
from ids_spark.lake.filesystem import resolve
from ids_spark.lake.listing import PATIENCE_S, Listing, on_one_state
from ids_spark.lake.parquet import checked_footer, stored_names
from ids_spark.lake.store import Lake

_READERS: Final = 16  # of footers at once
_EVERY: Final = re.compile(r"(?i)\b(show|information_schema|duckdb_\w+|pg_\w+|sqlite_master)\b")
"""Words of statements that list relations, so that all must be there."""
_PIVOT: Final = re.compile(r"(?i)\bpivot(_wider)?\b")
"""Word of statements before which DuckDB makes a type of their values, which is a statement of its own."""
_MISSING: Final = re.compile(r"Table with name (\S+) does not exist")
_LONGEST_NAME: Final = 100
_PART: Final = "#"
"""In names of the parts of relations, between the name and a number."""
_CLOSED: Final[dict[str, str | bool | int | float | list[str]]] = {
    "enable_external_access": "false",
    "python_enable_replacements": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
}
"""Settings with which a statement reaches neither files, nor the network, nor variables of this process."""


class StatementRefused(InputError):
    """Raised when a statement is no query, or DuckDB refuses it; the message names what there is to ask."""


@dataclass(frozen=True)
class View:
    """A named query over tables.

    Attributes:
        name: Its name in SQL.
        text: A `select`.
        purpose: What a row is.
        columns: Meaning of each column, by name.
    """

    name: str
    text: str
    purpose: str
    columns: Mapping[str, str]


def _relations() -> dict[str, list[str]]:
    found = defaultdict(list)
    for name, table in TABLES.items():
        if len(table.contract) and name != "features":  # whose recipes have columns of their own
            found[name.split("/")[0]].append(name)
    return dict(found)


RELATIONS: Final[Mapping[str, Sequence[str]]] = _relations()
"""Names of the tables of each relation."""


@functools.cache
def views() -> Mapping[str, View]:
    """Return the views by name; the head of each file of `views/` is its purpose, then `-- column: meaning` lines."""
    found = {}
    for file in sorted(importlib.resources.files("ids_spark.lake").joinpath("views").iterdir(), key=lambda f: f.name):
        if file.name.endswith(".sql"):
            name, text = file.name.removesuffix(".sql"), file.read_text(encoding="utf-8")
            head = [line[3:] for line in text.splitlines() if line.startswith("-- ")]
            columns = dict(line.split(": ", 1) for line in head if re.match(r"\w+: ", line))
            purpose = " ".join(line for line in head if not re.match(r"\w+: ", line))
            found[name] = View(name, text, purpose, columns)
    return found


def query(lake: Lake, statement: str, parameters: Sequence[Any] = (), patience_s: float = PATIENCE_S) -> pa.Table:
    """Return the rows of one query.

    Args:
        lake: The lake; a missing table has no rows.
        statement: One `select` (or `with`, `from`, `describe`, `show`, `explain`) in DuckDB's SQL.
        parameters: Values for its `?`.
        patience_s: Longest time, in seconds, for which commits of running jobs are waited for.

    Raises:
        StatementRefused: it is no query, or names tables or columns that do not exist.
        SchemaMismatch: a file of a table is damaged.
        Interrupted: jobs changed the tables again and again.
    """
    _require_query(statement)
    used = _used(statement)

    def answered(files: Listing) -> pa.Table:
        with _opened(lake, used, files) as connection:
            try:
                return connection.execute(statement, list(parameters)).to_arrow_table()
            except duckdb.Error as error:
                raise _refused(connection, error, used) from error

    tables = [table for name in used for table in RELATIONS[name]]
    answer = on_one_state(lake, tables, answered, patience_s, mixed=True)
    if _EVERY.search(statement) and answer.column_names == ["name"]:
        answer = answer.filter(pa.array(_PART not in name for name in answer["name"].to_pylist()))
    return answer


def columns(lake: Lake, name: str) -> list[tuple[str, str]]:
    """Return name and type of each column of a relation or view."""
    found = query(lake, f'describe "{name}"')
    return list(zip(found["column_name"].to_pylist(), found["column_type"].to_pylist(), strict=True))


def _require_query(statement: str) -> None:
    try:
        found = duckdb.extract_statements(statement)
    except duckdb.Error as error:
        raise StatementRefused(f"this is not an SQL statement: {one_line(error)}", *_to_ask()) from error
    allowed = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
    kinds = [each.type for each in found]
    if _PIVOT.search(statement) and kinds == [duckdb.StatementType.CREATE, duckdb.StatementType.SELECT]:
        raise StatementRefused(
            "found PIVOT without the values that become columns; expected them: PIVOT … ON COLUMN IN ('a', 'b') USING …"
        )
    if len(found) != 1 or found[0].type not in allowed:
        names = ", ".join(str(kind).removeprefix("StatementType.") for kind in kinds) or "nothing"
        raise StatementRefused(
            f"found {names}; expected one query (select, with, from, describe, show): a lake is only read"
        )


def _used(statement: str) -> tuple[str, ...]:
    """Return the relations that a statement may name: those whose name is a word of it, or of a view in it."""
    words = set(re.findall(r"\w+", statement.lower()))
    if _EVERY.search(statement):
        return tuple(RELATIONS)
    for view in views().values():
        if view.name in words:
            words |= set(re.findall(r"\w+", view.text.lower()))
    return tuple(name for name in RELATIONS if name in words)


@contextlib.contextmanager
def _opened(lake: Lake, names: Iterable[str], files: Listing) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a connection with these relations and all views over them, which can reach nothing else."""
    relations = tuple(names)
    with contextlib.closing(duckdb.connect(":memory:", config=_CLOSED)) as connection:
        connection.execute("set TimeZone = 'UTC'")
        for name in relations:
            _register(connection, lake, name, files)
        for view in views().values():
            if set(_used(view.text)) <= set(relations):
                connection.execute(f'create view "{view.name}" as {view.text}')
        connection.execute("set lock_configuration = true")
        yield connection


def _register(connection: duckdb.DuckDBPyConnection, lake: Lake, relation: str, files: Listing) -> None:
    """Make a relation of the files of its tables, one dataset for those of equal columns."""
    import pyarrow.dataset as pads  # imports pandas, which would delay the start of every job

    fs, root = resolve(lake.root)
    selects: list[str] = []

    def add(data: Any, renamed: str = "") -> None:
        part = f"{relation}{_PART}{len(selects)}"
        connection.register(part, data)
        selects.append(f'select * {f"rename ({renamed})" if renamed else ""} from "{part}"')

    for table in RELATIONS[relation]:
        add(_with_places(TABLES[table].contract, TABLES[table].keys_in_path()).empty_table())
    form = pads.ParquetFileFormat()

    def fragment(table: str, path: str) -> Any:
        """Return a file with its footer, which is read once."""
        places = _equal(pads, TABLES[table].values_in(path))
        found = form.make_fragment(f"{root}/{path}", fs, places)
        checked_footer(fs, f"{root}/{path}", found.ensure_complete_metadata)
        return found

    for table in RELATIONS[relation]:
        keys = TABLES[table].keys_in_path()
        groups: dict[pa.Schema, list[Any]] = defaultdict(list)
        with ThreadPoolExecutor(_READERS) as pool:
            for found in pool.map(functools.partial(fragment, table), files[table]):
                groups[found.physical_schema.remove_metadata()].append(found)
        for schema, fragments in groups.items():
            names = stored_names(schema.names, TABLES[table])
            dataset = pads.FileSystemDataset(fragments, _with_places(schema, keys), form, fs)
            add(dataset, ", ".join(f'"{old}" as "{new}"' for new, old in names.items() if new != old))
    connection.execute(f'create view "{relation}" as {" union all by name ".join(selects)}')


def _with_places(schema: pa.Schema, keys: Sequence[str]) -> pa.Schema:
    """Return columns with those of the path first."""
    own = [pa.field(key, pa.date32() if key == "event_date" else pa.string()) for key in keys]
    return pa.schema([*own, *(pa.field(column.name, column.type) for column in schema if column.name not in keys)])


def _equal(pads: Any, places: Mapping[str, Any]) -> Any:
    """Return the condition that all rows of a file meet."""
    conditions = [
        pads.field(name).is_null() if value is None else pads.field(name) == pads.scalar(value)
        for name, value in places.items()
    ]
    return functools.reduce(lambda one, other: one & other, conditions, pads.scalar(True))


def _refused(connection: duckdb.DuckDBPyConnection, error: duckdb.Error, used: Sequence[str]) -> StatementRefused:
    """Return a refusal of what DuckDB refused, with what there is to ask."""
    lines = _to_ask()
    if isinstance(error, duckdb.BinderException):
        for name in used:
            found = connection.execute(f'describe "{name}"').fetchall()
            lines.append(f"columns of {name}: {', '.join(row[0] for row in found)}")
    missing = _MISSING.search(str(error)) if isinstance(error, duckdb.CatalogException) else None
    if missing is None:
        return StatementRefused(one_line(error), *lines)
    # DuckDB's own suggestion may be one of its internal tables
    similar = difflib.get_close_matches(missing[1].lower(), [*RELATIONS, *views()], n=1)
    meant = f"; did you mean {similar[0]!r}?" if similar else ""
    return StatementRefused(f"there is no table or view {printable(missing[1][:_LONGEST_NAME])!r}{meant}", *lines)


def _to_ask() -> list[str]:
    return [f"tables: {', '.join(RELATIONS)}", f"views: {', '.join(views())}"]
