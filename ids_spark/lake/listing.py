"""The files of tables at one moment, and work on them that no commit has changed meanwhile.

A commit replaces folders one after another, and on S3 file by file. Who reads several files without a lease lists them
before and after: if a job committed in between, the work is done again.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple, TypeVar

import pyarrow.fs as pafs

from ids_spark.base.errors import Interrupted
from ids_spark.dataset.tables import TABLES
from ids_spark.lake import journal, lease
from ids_spark.lake.filesystem import names_in, resolve
from ids_spark.lake.parquet import SUFFIX
from ids_spark.lake.store import Lake

log = logging.getLogger(__name__)

PATIENCE_S: Final = 60.0
"""Longest time, in seconds, for which commits of running jobs are waited for."""
TICK_NS: Final = 2_000_000_000
"""Longest time, in ns, in which two versions of a file have one time of modification: two ticks of a store's clock."""
_SECOND_NS: Final = 1_000_000_000
_PAUSE_S: Final = 0.1
_LISTED_AT_ONCE: Final = 16


class Version(NamedTuple):
    """What tells two files of one name apart: bytes, and time of modification in ns."""

    size: int
    mtime_ns: int


Listing = Mapping[str, Mapping[str, Version]]
"""By table of `TABLES`, the version of each of its files, by the path below the lake's root."""

_Result = TypeVar("_Result")


class CommitUnfinished(Interrupted):
    """Raised when a job was killed in its commit: tables are partly of before and partly of after it."""


def listed(lake: Lake, tables: Iterable[str]) -> Listing:
    """Return the visible part files of tables; none of a missing table."""
    names = list(tables)
    with ThreadPoolExecutor(_LISTED_AT_ONCE) as pool:
        return dict(zip(names, pool.map(lambda name: _files(lake, name), names), strict=True))


def _files(lake: Lake, table: str) -> dict[str, Version]:
    top = resolve(lake.root)[1]
    fs, path = resolve(lake.uri(TABLES[table].place()))
    infos = fs.get_file_info(pafs.FileSelector(path, recursive=True, allow_not_found=True))
    files = {i.path[len(top) :].lstrip("/"): i for i in infos if i.type == pafs.FileType.File}
    return {
        name: Version(info.size, info.mtime_ns or 0)
        for name, info in sorted(files.items())
        if name.endswith(SUFFIX) and not any(part.startswith((".", "_")) for part in name.split("/"))
    }


def wait_for_tick(files: Listing) -> None:
    """Wait until no other version of these files can have their time of modification, at most 2 s.

    Object stores have whole seconds: a file that is replaced in the same second, by one of equal size, is taken for the
    one before. Their clock and that of this machine are expected to differ by less than a second.
    """
    times = [each.mtime_ns for table in files.values() for each in table.values() if each.mtime_ns % _SECOND_NS == 0]
    left = max(times, default=0) + TICK_NS - time.time_ns()
    if times and left > 0:
        time.sleep(min(left, TICK_NS) / _SECOND_NS)


def on_one_state(
    lake: Lake,
    tables: Iterable[str],
    work: Callable[[Listing], _Result],
    patience_s: float = PATIENCE_S,
    mixed: bool = False,
) -> _Result:
    """Return the result of work on files that no commit changed while it lasted; it may be called several times.

    Args:
        lake: The lake.
        tables: Names in `TABLES` of the tables that it reads.
        work: Receives their files; what it raises is raised, unless they were changed.
        patience_s: Longest time, in seconds, for which commits of running jobs are waited for.
        mixed: Also work, with a warning, if a killed job has left its commit to the next job.

    Raises:
        CommitUnfinished: a killed job has.
        Interrupted: jobs changed the tables again and again.
    """
    names, deadline = list(tables), time.monotonic() + patience_s
    while True:
        unfinished = _journals(lake)
        before = _listed_now(lake, names)
        failure: Exception | None = None
        try:
            result = work(before or {name: {} for name in names})
        except Exception as error:  # raised below, unless a commit may be its cause
            failure = error
        unfinished = unfinished or _journals(lake)
        if not unfinished and before is not None and _listed_now(lake, names) == before:
            break
        active = lease.active_runs(lake.root) if unfinished else frozenset()
        left = [name for name in _journals(lake) if name in unfinished] if unfinished else []  # a lease ends after them
        if left and not {journal.owner(name) for name in left} & active:
            text = (
                f"{lake.root}: a job was killed in its commit ({left[0]}); tables of before and after it are"
                " mixed until the next job of this lake completes it"
            )
            if not mixed:
                raise CommitUnfinished(text)
            log.warning("%s", text)
            break
        if time.monotonic() > deadline:
            raise Interrupted(
                f"{lake.root}: jobs changed {', '.join(names)} while they were read, for more than {patience_s:.0f} s;"
                " a commit takes seconds; try again when no job commits"
            )
        time.sleep(_PAUSE_S)
    if failure is not None:
        raise failure
    return result


def _listed_now(lake: Lake, names: Iterable[str]) -> Listing | None:
    """Return the files; None if a folder was replaced while it was listed."""
    try:
        return listed(lake, names)
    except FileNotFoundError:
        return None


def _journals(lake: Lake) -> list[str]:
    return [name for name in names_in(lake.root) if name.startswith(journal.PREFIX)]
