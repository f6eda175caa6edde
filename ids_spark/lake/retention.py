"""How long nights are kept: whole dates leave the lake, from every table that holds any of them.

A date is first moved out of sight by one rename, then deleted, so no reader meets half of it (on S3, which renames no
folder, a reader may); what a killed purge left out of sight is deleted by the next, which counts what it finds.
`audit/` is never purged: it is the record of what was done to the lake, the purges among it, and holds counts and the
names of models and files, but no flow. Models, and the flows and features of training, are no nights and stay.
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
from ids_spark.lake.filesystem import exists, move, resolve
from ids_spark.lake.store import Lake

log = logging.getLogger(__name__)

BY_DATE: Final = kept_by("event_date")
"""Tables that hold a folder `event_date=YYYY-MM-DD` for each night."""
BY_RUN: Final = kept_by("run_id")
"""Tables that hold a file for each run, named by its id, which begins with its time."""
_OUT_OF_SIGHT: Final = ".purge"
_DATE: Final = re.compile(r"event_date=(\d{4}-\d{2}-\d{2})")
_RUN: Final = re.compile(r"(\d{8})T\d{6}Z-.+\.parquet")


@dataclass
class Purged:
    """What was removed, and what was met.

    Attributes:
        dates: By table, the date of every folder or file that was removed.
        strangers: Paths that name no date; they were left.
    """

    dates: dict[str, list[dt.date]] = field(default_factory=lambda: defaultdict(list))
    strangers: list[str] = field(default_factory=list)

    @property
    def span(self) -> tuple[dt.date, dt.date] | None:
        """First and last date of which anything was removed; None when nothing was."""
        found = [date for dates in self.dates.values() for date in dates]
        return (min(found), max(found)) if found else None


def first_kept(older_than_days: int, today: dt.date | None, now: dt.datetime) -> dt.date:
    """Return the first date that stays: one that is exactly `older_than_days` old.

    Args:
        older_than_days: At least 1.
        today: Counted from here; None: the date of `now`.
        now: In UTC.

    Raises:
        InputError: `today` is to come, so that dates would go that are not old.
    """
    if today is not None and today > now.date():
        raise InputError(f"purge.today is {today}, after today, {now.date()}; expected a date that has begun")
    return (today or now.date()) - dt.timedelta(days=older_than_days)


def purge(lake: Lake, first: dt.date) -> Purged:
    """Remove everything of dates before `first` from the tables of nights.

    A rerun removes nothing more. What is no date, such as a folder somebody made by hand, stays and is named.

    Args:
        lake: The lake. No other job may write the same dates meanwhile.
        first: First date that stays.
    """
    purged = Purged()
    _delete(lake, purged)
    fs, root = resolve(lake.root)
    for table in (*BY_DATE, *BY_RUN):
        for name, date in _entries(lake, table):
            if date is None:
                purged.strangers.append(f"{table}/{name}")
            elif date < first:
                move(fs, f"{root}/{table}/{name}", f"{root}/{_OUT_OF_SIGHT}/{table}/{name}")
    _delete(lake, purged)
    log.info("purged first_kept=%s entries=%d", first, sum(map(len, purged.dates.values())))
    return purged


def _delete(lake: Lake, purged: Purged) -> None:
    """Delete what is out of sight, after it was counted."""
    for table in (*BY_DATE, *BY_RUN):
        for _, date in _entries(lake, f"{_OUT_OF_SIGHT}/{table}"):
            if date is not None:
                purged.dates[table].append(date)
    if exists(lake.uri(_OUT_OF_SIGHT)):
        fs, root = resolve(lake.root)
        fs.delete_dir(f"{root}/{_OUT_OF_SIGHT}")


def _entries(lake: Lake, table: str) -> Iterator[tuple[str, dt.date | None]]:
    """Yield the visible entries of a table's folder, by name, and the date of each; None where it names none."""
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
