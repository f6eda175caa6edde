"""SQL over the tables of a lake, with DuckDB in this process: no Spark, no server, nothing is written.

Every table with columns (`TABLES`) is a relation of its name; those of `quarantine/` are one, with column `job`. Values
of a path (`event_date=…`, `model=…`) are columns. Columns that older versions did not write are null, renamed ones have
their present name. Beside them are the views of `views/*.sql`, whose heads describe their columns.

Files are listed and read through `lake.filesystem`, so that a lake on S3 or HDFS is read as a local one. An answer is
of one state of the lake: if a commit changed the files of its tables while they were read, they are read again.
"""

import contextlib
import datetime as dt
import functools
import importlib.resources
import logging
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from ids_spark.base.errors import InputError, Interrupted
from ids_spark.base.text import one_line
from ids_spark.dataset.features import SchemaMismatch
from ids_spark.dataset.tables import TABLES
from ids_spark.lake import journal, lease, parquet_limits
from ids_spark.lake.filesystem import names_in, resolve
from ids_spark.lake.parquet import SUFFIX, stored_names
from ids_spark.lake.store import Lake

log = logging.getLogger(__name__)

_READERS: Final = 16
_PATIENCE_S: Final = 60.0
_PAUSE_S: Final = 0.1
_EVERY: Final = re.compile(r"(?i)\b(show|information_schema|duckdb_\w+|pg_\w+|sqlite_master)\b")
"""Words of statements that list relations, so that all must be there."""
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


def query(lake: Lake, statement: str, parameters: Sequence[Any] = (), patience_s: float = _PATIENCE_S) -> pa.Table:
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
    used, deadline = _used(statement), time.monotonic() + patience_s
    while True:
        failure: Exception | None = None
        before = _listed(lake, used)
        try:
            with _opened(lake, before) as connection:
                answer = connection.execute(statement, list(parameters)).to_arrow_table()
        except (duckdb.Error, SchemaMismatch, pa.ArrowException, OSError) as error:
            failure = error
        unfinished = _journals(lake)
        if not unfinished and _listed(lake, used) == before:
            break
        if unfinished and not {journal.owner(name) for name in unfinished} & lease.active_runs(lake.root):
            log.warning(
                "a job was killed in its commit: tables of before and after it may be mixed in this answer; the next"
                " job of this lake completes the commit journal=%s",
                unfinished[0],
            )
            break
        if time.monotonic() > deadline:
            raise Interrupted(
                f"{lake.root}: jobs changed {', '.join(used) or 'the tables'} while they were read, for more than"
                f" {patience_s:.0f} s; expected seconds; ask again when no job commits"
            )
        time.sleep(_PAUSE_S)
    if isinstance(failure, duckdb.Error):
        raise _refused(lake, failure, used) from failure
    if failure is not None:
        raise failure
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
        raise StatementRefused(f"it is no SQL statement: {one_line(error)}") from error
    allowed = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
    if len(found) != 1 or found[0].type not in allowed:
        kinds = ", ".join(str(each.type).removeprefix("StatementType.") for each in found) or "nothing"
        raise StatementRefused(
            f"found {kinds}; expected one query (select, with, from, describe, show): a lake is only read"
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


_Listed = Mapping[str, Mapping[str, tuple[int, int]]]
"""By relation, size and time of modification of each file by its path on the file system."""


def _listed(lake: Lake, names: Iterable[str]) -> _Listed:
    tables = [(name, table) for name in names for table in RELATIONS[name]]
    with ThreadPoolExecutor(_READERS) as pool:
        found = list(pool.map(lambda each: _files(lake.uri(TABLES[each[1]].place())), tables))
    listed: dict[str, dict[str, tuple[int, int]]] = {name: {} for name in names}
    for (name, _), files in zip(tables, found, strict=True):
        listed[name] |= files
    return listed


def _files(uri: str) -> dict[str, tuple[int, int]]:
    fs, path = resolve(uri)
    try:
        infos = fs.get_file_info(pafs.FileSelector(path, recursive=True, allow_not_found=True))
    except FileNotFoundError:  # a folder was replaced while it was listed
        return {"": (time.monotonic_ns(), 0)}
    return {
        info.path: (info.size, info.mtime_ns or 0)
        for info in infos
        if info.type == pafs.FileType.File
        and info.path.endswith(SUFFIX)
        and not any(part.startswith((".", "_")) for part in info.path[len(path) + 1 :].split("/"))
    }


def _journals(lake: Lake) -> list[str]:
    return [name for name in names_in(lake.root) if name.startswith(journal.PREFIX)]


@contextlib.contextmanager
def _opened(lake: Lake, listed: _Listed) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a connection with these relations and all views over them, which can reach nothing else."""
    with contextlib.closing(duckdb.connect(":memory:", config=_CLOSED)) as connection:
        connection.execute("set TimeZone = 'UTC'")
        for name, files in listed.items():
            _register(connection, lake, name, list(files))
        for view in views().values():
            if all(name in listed for name in _used(view.text)):
                connection.execute(f'create view "{view.name}" as {view.text}')
        connection.execute("set lock_configuration = true")
        yield connection


def _register(connection: duckdb.DuckDBPyConnection, lake: Lake, name: str, paths: Sequence[str]) -> None:
    """Make a relation of the files of its tables, one dataset for those of equal columns."""
    import pyarrow.dataset as pads  # imports pandas, which would delay the start of every job

    fs, root = resolve(lake.root)
    form = pads.ParquetFileFormat()
    groups: dict[tuple[str, pa.Schema], list[str]] = defaultdict(list)
    with ThreadPoolExecutor(_READERS) as pool:
        for path, schema in zip(paths, pool.map(functools.partial(_schema_of, fs), paths), strict=True):
            groups[_table_of(name, path[len(root) + 1 :]), schema].append(path)
    selects = []
    for number, table in enumerate(RELATIONS[name]):
        contract = _with_places(TABLES[table].contract, dict.fromkeys(_keys_of(table)))
        connection.register(_part(name, number), contract.empty_table())
        selects.append(f'select * from "{_part(name, number)}"')
    for (table, schema), files in groups.items():
        number = len(selects)
        places = [_places(table, path[len(root) + 1 :]) for path in files]
        whole = _with_places(schema, places[0])
        connection.register(
            _part(name, number),
            pads.FileSystemDataset.from_paths(
                files,
                schema=whole,
                format=form,
                filesystem=fs,
                partitions=[_equal(pads, place) for place in places],
            ),
        )
        names = stored_names(schema.names, TABLES[table])
        renamed = ", ".join(f'"{old}" as "{new}"' for new, old in names.items() if new != old)
        selects.append(f'select * {f"rename ({renamed})" if renamed else ""} from "{_part(name, number)}"')
    connection.execute(f'create view "{name}" as {" union all by name ".join(selects)}')


def _part(relation: str, number: int) -> str:
    return f"{relation}{_PART}{number}"


def _schema_of(fs: pafs.FileSystem, path: str) -> pa.Schema:
    """Return the columns of a file, each nullable, without metadata."""
    try:
        with fs.open_input_file(path) as stream:
            parquet_limits.check_footer(stream)
            schema = pq.read_schema(stream)
    except (pa.ArrowException, ValueError) as error:
        raise SchemaMismatch(
            f"{path} cannot be read as parquet ({one_line(error)}); restore the file, or remove it"
        ) from error
    return pa.schema([pa.field(column.name, column.type) for column in schema])


def _table_of(relation: str, path: str) -> str:
    return max((table for table in RELATIONS[relation] if f"{path}/".startswith(f"{table}/")), key=len)


def _keys_of(table: str) -> list[str]:
    return re.findall(r"(\w+)=", f"{TABLES[table].path}")


def _places(table: str, path: str) -> dict[str, Any]:
    """Return the values in the path of a file; none of a name that is no `key=value`."""
    found: dict[str, Any] = dict(part.split("=", 1) for part in path.split("/")[:-1] if "=" in part)
    found = {key: found.get(key) for key in _keys_of(table)}
    if found.get("event_date") is not None:
        try:
            found["event_date"] = dt.date.fromisoformat(found["event_date"])
        except ValueError:
            found["event_date"] = None  # a folder made by hand
    return found


def _with_places(schema: pa.Schema, places: Mapping[str, Any]) -> pa.Schema:
    """Return columns with those of the path first."""
    kinds = {"event_date": pa.date32()}
    own = [pa.field(name, kinds.get(name, pa.string())) for name in places]
    return pa.schema([*own, *(column for column in schema if column.name not in places)])


def _equal(pads: Any, places: Mapping[str, Any]) -> Any:
    """Return the condition that all rows of a file meet."""
    conditions = [
        pads.field(name).is_null() if value is None else pads.field(name) == pads.scalar(value)
        for name, value in places.items()
    ]
    return functools.reduce(lambda one, other: one & other, conditions, pads.scalar(True))


def _refused(lake: Lake, error: duckdb.Error, used: Sequence[str]) -> InputError:
    """Return a refusal of what DuckDB refused, with what there is to ask."""
    lines = [f"tables: {', '.join(RELATIONS)}", f"views: {', '.join(views())}"]
    if isinstance(error, duckdb.BinderException):
        with contextlib.suppress(duckdb.Error, OSError), _opened(lake, _listed(lake, used)) as connection:
            for name in used:
                found = connection.execute(f'describe "{name}"').fetchall()
                lines.append(f"columns of {name}: {', '.join(row[0] for row in found)}")
    return StatementRefused(one_line(error), *lines)
