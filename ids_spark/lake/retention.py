"""Retention: removes whole dates from every table that `dataset.tables` assigns to a date.

A date is first moved to a hidden folder by one rename, then deleted, so that no reader sees part of it (on S3, which
cannot rename folders, a reader may). The next purge counts and deletes what a killed purge left in the hidden folder.
`audit/` is kept: it records what was done to the lake, purges included, and holds counts and names of models and files,
but no flow. Models and the tables of a data set have no date and are kept.
"""

import datetime as dt
import logging
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import pyarrow.fs as pafs

from ids_spark.base.errors import InputError
from ids_spark.dataset.tables import kept_by
from ids_spark.lake.filesystem import exists, move, require_below, resolve
from ids_spark.lake.parquet import SUFFIX
from ids_spark.lake.store import Lake

log = logging.getLogger(__name__)

BY_DATE: Final = kept_by("event_date")
"""Tables with a folder `event_date=YYYY-MM-DD` for each night."""
BY_RUN: Final = kept_by("run_id")
"""Tables with a file for each run, named by its id, which begins with its time."""
_HIDDEN: Final = ".purge"
_DATE: Final = re.compile(r"event_date=(\d{4}-\d{2}-\d{2})")
_RUN: Final = re.compile(r"(\d{8})T\d{6}Z-.+" + re.escape(SUFFIX))


@dataclass
class Purged:
    """The result of a purge.

    Attributes:
        dates: By table, the date of every folder or file that was removed.
        undated: Paths without a date in their name; they are kept.
    """

    dates: dict[str, list[dt.date]] = field(default_factory=lambda: defaultdict(list))
    undated: list[str] = field(default_factory=list)

    @property
    def span(self) -> tuple[dt.date, dt.date] | None:
        """First and last date that was removed; None without any."""
        found = [date for dates in self.dates.values() for date in dates]
        return (min(found), max(found)) if found else None


def first_kept(older_than_days: int, today: dt.date | None, now: dt.datetime) -> dt.date:
    """Return the first date to keep: the one that is exactly `older_than_days` old.

    Args:
        older_than_days: At least 1.
        today: Date to count back from; None: the date of `now`.
        now: Present time in UTC.

    Raises:
        InputError: `today` is in the future, so that dates would be removed too early.
    """
    if today is not None and today > now.date():
        raise InputError(f"purge.today is {today}, in the future (today is {now.date()}); expected today or earlier")
    return (today or now.date()) - dt.timedelta(days=older_than_days)


def purge(lake: Lake, first: dt.date) -> Purged:
    """Remove all partitions and files of dates before `first`.

    A second run removes nothing more. Folders without a date, such as one made by hand, are kept and reported.

    Args:
        lake: The lake. No other job may write the same dates meanwhile.
        first: First date to keep.

    Raises:
        InputError: a link leads out of the lake; nothing was removed.
    """
    for table in (*BY_DATE, *BY_RUN):
        require_below(lake.root, lake.uri(table))
        require_below(lake.root, lake.uri(f"{_HIDDEN}/{table}"))
    purged = Purged()
    _delete(lake, purged)
    fs, root = resolve(lake.root)
    for table in (*BY_DATE, *BY_RUN):
        for name, date in _entries(lake, table):
            if date is None:
                purged.undated.append(f"{table}/{name}")
            elif date < first:
                move(fs, f"{root}/{table}/{name}", f"{root}/{_HIDDEN}/{table}/{name}")
    _delete(lake, purged)
    log.info("purged first_kept=%s entries=%d", first, sum(map(len, purged.dates.values())))
    return purged


def _delete(lake: Lake, purged: Purged) -> None:
    """Count and delete the content of the hidden folder."""
    for table in (*BY_DATE, *BY_RUN):
        for _, date in _entries(lake, f"{_HIDDEN}/{table}"):
            if date is not None:
                purged.dates[table].append(date)
    if exists(lake.uri(_HIDDEN)):
        fs, root = resolve(lake.root)
        fs.delete_dir(f"{root}/{_HIDDEN}")


def _entries(lake: Lake, table: str) -> Iterator[tuple[str, dt.date | None]]:
    """Yield the visible entries of a table's folder, by name, and the date of each; None without a date."""
    fs, root = resolve(lake.root)
    found = fs.get_file_info(pafs.FileSelector(f"{root}/{table}", allow_not_found=True))
    for name in sorted(info.base_name for info in found):
        if not name.startswith((".", "_")):
            yield name, _date_of(name)


def _date_of(name: str) -> dt.date | None:
    match = _DATE.fullmatch(name) or _RUN.fullmatch(name)
    try:
        return dt.date.fromisoformat(match[1]) if match else None
    except ValueError:
        return None  # such as 2026-02-30
