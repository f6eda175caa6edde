"""Part files that tasks write themselves: a file counts only when the task that wrote it reported it.

Spark may run a task twice (a retry, a speculative copy). Each attempt writes under a name of its own and returns it;
the driver then removes every file that no successful task named, so that a table holds each row once.
"""

import logging
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ids_spark.base.errors import NotReconciled
from ids_spark.lake.filesystem import files_in, make_folder, resolve

log = logging.getLogger(__name__)


def part_name(index: int) -> str:
    """Return a file name for part `index` that no other attempt uses."""
    return f"part-{index:05d}-{uuid.uuid4().hex[:12]}.parquet"


def write_part(
    folder: str,
    name: str,
    tables: Iterator[pa.Table] | Sequence[pa.Table],
    contract: pa.Schema,
    metadata: Mapping[str, str],
    dictionary: Sequence[str] = (),
) -> int:
    """Write tables as the row groups of one parquet file; return the number of rows.

    Args:
        folder: URI; made where needed.
        name: From `part_name`.
        tables: Each becomes one row group; empty ones are left out.
        contract: Schema of every table.
        metadata: Key-value pairs of the file's footer.
        dictionary: Columns worth a dictionary. Continuous columns are not: it costs time and saves nothing.
    """
    fs, path = resolve(folder)
    make_folder(fs, path)
    schema = contract.with_metadata(dict(metadata))
    keyed = [name for name in ("row_key",) if name in contract.names]
    rows = 0
    with pq.ParquetWriter(
        f"{path}/{name}",
        schema,
        filesystem=fs,
        compression="snappy",
        use_dictionary=list(dictionary) or False,
        write_statistics=keyed or False,
    ) as writer:
        for table in tables:
            if len(table):
                writer.write_table(table.cast(schema) if table.schema != contract else table, row_group_size=len(table))
                rows += len(table)
    return rows


def write_rows(uri: str, rows: Sequence[Mapping[str, Any]], contract: pa.Schema) -> None:
    """Write a small table, given as rows, as one parquet file; its folder is made where needed."""
    write_table(uri, pa.Table.from_pylist(list(rows), schema=contract))


def write_table(uri: str, table: pa.Table) -> None:
    """Write a small table as one parquet file; its folder is made where needed."""
    fs, path = resolve(uri)
    make_folder(fs, path.rsplit("/", 1)[0])
    pq.write_table(table, path, filesystem=fs)


def keep_only(names: Iterable[str], *folders: str) -> None:
    """Remove every part file of staged folders that no successful task reported.

    Args:
        names: What tasks reported, each in at least one of the folders.
        folders: URIs; a folder that no task made needs no clearing.

    Raises:
        NotReconciled: a reported file is in none of them.
    """
    wanted = set(names)
    found = set()
    for folder in folders:
        fs, _ = resolve(folder)
        for uri in files_in(folder, ".parquet"):
            name = uri.rsplit("/", 1)[1]
            found.add(name)
            if name not in wanted:
                log.warning("removing the file of an attempt that did not count file=%s", uri)
                fs.delete_file(resolve(uri)[1])
    if missing := wanted - found:
        raise NotReconciled(f"{' and '.join(folders)} lack {len(missing)} files of tasks, such as {min(missing)}")
