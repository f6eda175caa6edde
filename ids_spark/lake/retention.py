"""Retention: removes old dates from every table, by the rule that `dataset.tables` assigns to each.

An entry of a table (a date, the files of a run, a recipe) is first moved to a hidden folder by one rename, then
deleted, so that no reader sees part of it (on S3, which cannot rename folders, a reader may). The next purge counts and
deletes what a killed purge left in the hidden folder.

What ended runs staged, and tables that killed commits replaced, are removed as well, whatever their age. `audit/` is
kept: it records what was done to the lake, purges included, and holds counts and names of models and files, but no
flow. Rows of tables that keep others are removed by `adapt.local_purge` and `alerts.verdict_purge`.
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
from ids_spark.dataset.tables import TABLES, kept_by
from ids_spark.lake.filesystem import exists, move, read_json, require_below, resolve
from ids_spark.lake.store import TABLE_FACTS, Lake

log = logging.getLogger(__name__)

BY_DATE: Final = kept_by("event_date")
"""Tables with a folder `event_date=YYYY-MM-DD` for each night."""
BY_RUN: Final = kept_by("run_id")
"""Tables with a file or folder for each run, named by its id, which begins with its time."""
BY_MODIFIED: Final = kept_by("modified")
"""Tables and files that are as old as their newest file."""
BY_NIGHTS: Final = kept_by("nights")
"""Tables and pages made of rows of several nights, as old as the oldest of these."""
WHOLE: Final = (*BY_DATE, *BY_RUN, *BY_MODIFIED, *BY_NIGHTS)
"""Tables whose entries are removed whole."""
_NIGHTS_IN: Final = {"features": f"features/{{}}/{TABLE_FACTS}", "reports/adaptation": "models/{}/model.json"}
"""File of the lake that says of which nights an entry is, by table."""
_HIDDEN: Final = ".purge"
_DATE: Final = re.compile(r"event_date=(\d{4}-\d{2}-\d{2})")
_RUN: Final = re.compile(r"(\d{4})(\d{2})(\d{2})T\d{6}Z-.+")


@dataclass
class Purged:
    """The result of a purge.

    Attributes:
        dates: By table, the date of every entry that was removed.
        undated: Paths without a date in their name; they are kept.
        ended_runs: Runs of which staged or replaced tables were removed.
    """

    dates: dict[str, list[dt.date]] = field(default_factory=lambda: defaultdict(list))
    undated: list[str] = field(default_factory=list)
    ended_runs: list[str] = field(default_factory=list)

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
    """Remove all entries of dates before `first`, and what ended runs left.

    A second run removes nothing more. Entries of nights and runs without a date in their name, such as a folder made by
    hand, are kept and reported.

    Args:
        lake: The lake. No other job may write the same dates meanwhile.
        first: First date to keep.

    Raises:
        InputError: a link leads out of the lake; nothing was removed.
    """
    for table in WHOLE:
        require_below(lake.root, lake.uri(table))
        require_below(lake.root, lake.uri(f"{_HIDDEN}/{table}"))
    purged = Purged(ended_runs=lake.discard_ended(first))
    _delete(lake, purged)
    fs, root = resolve(lake.root)
    for table in WHOLE:
        for name, date in _entries(lake, table):
            path = f"{table}/{name}".rstrip("/")
            if date is not None and date < first:
                move(fs, f"{root}/{path}", f"{root}/{_HIDDEN}/{path}")
            elif date is None and table in (*BY_DATE, *BY_RUN):
                purged.undated.append(path)
    _delete(lake, purged)
    log.info("purged first_kept=%s entries=%d", first, sum(map(len, purged.dates.values())))
    return purged


def others(lake: Lake) -> list[str]:
    """Return the visible folders and files at the root of a lake that belong to no table, such as flow logs."""
    fs, root = resolve(lake.root)
    known = {name.split("/", 1)[0] for name in TABLES}
    found = fs.get_file_info(pafs.FileSelector(root, allow_not_found=True))
    return sorted(i.base_name for i in found if i.base_name not in known and not i.base_name.startswith((".", "_")))


def _delete(lake: Lake, purged: Purged) -> None:
    """Count and delete the content of the hidden folder."""
    for table in WHOLE:
        for _, date in _entries(lake, table, f"{_HIDDEN}/"):
            if date is not None:
                purged.dates[table].append(date)
    if exists(lake.uri(_HIDDEN)):
        fs, root = resolve(lake.root)
        fs.delete_dir(f"{root}/{_HIDDEN}")


def _entries(lake: Lake, table: str, below: str = "") -> Iterator[tuple[str, dt.date | None]]:
    """Yield the visible entries of a table by their path below it, and the date of each; None without a date.

    Entries of `BY_MODIFIED` and `BY_NIGHTS` that have no date are left out.

    Args:
        lake: The lake.
        table: Name of the table.
        below: Folder of the lake that holds it; default: its root.
    """
    fs, root = resolve(lake.root)
    folders = TABLES[table].path.removeprefix(table).strip("/").split("/")
    depth = 1 if table in (*BY_DATE, "features") else sum(1 for folder in folders if folder)
    for name in _names(fs, f"{root}/{below}{table}", depth):
        path = f"{root}/{below}{table}/{name}".rstrip("/")
        if table in BY_MODIFIED:
            date = _modified(fs, path)
        elif table in BY_NIGHTS:
            place = _NIGHTS_IN[table].format(name)
            date = _oldest_night(lake.uri(place if place.startswith("models/") else below + place))
            if date is None and table != "features":  # its model was removed
                date = _date_of(name.rsplit("/", 1)[-1])
        else:
            yield name, _date_of(name.rsplit("/", 1)[-1])
            continue
        if date is not None:
            yield name, date


def _names(fs: pafs.FileSystem, path: str, depth: int) -> list[str]:
    """Return the visible paths so many levels below a folder, sorted; the folder itself is one with an empty name."""
    if depth == 0:
        return [""] if fs.get_file_info(path).type != pafs.FileType.NotFound else []
    found = []
    for info in fs.get_file_info(pafs.FileSelector(path, allow_not_found=True)):
        if info.base_name.startswith((".", "_")) or (depth > 1 and info.type != pafs.FileType.Directory):
            continue
        found += [f"{info.base_name}/{name}".rstrip("/") for name in _names(fs, f"{path}/{info.base_name}", depth - 1)]
    return sorted(found)


def _modified(fs: pafs.FileSystem, path: str) -> dt.date | None:
    """Return the day in UTC on which the newest file of a folder, or a file, was written; None without files."""
    infos = [fs.get_file_info(path)]
    if infos[0].type == pafs.FileType.Directory:
        infos = fs.get_file_info(pafs.FileSelector(path, recursive=True))
    times = [info.mtime for info in infos if info.type == pafs.FileType.File and info.mtime is not None]
    return max(times).date() if times else None


def _oldest_night(uri: str) -> dt.date | None:
    """Return the oldest night of the facts of a feature table or model; None if it has no rows of nights."""
    try:
        local = read_json(uri).get("local") or {}
        dates = [dt.date.fromisoformat(date) for name in ("train_dates", "held_out_dates") for date in local[name]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # no complete table, or one without rows of nights
    return min(dates, default=None)


def _date_of(name: str) -> dt.date | None:
    match, run = _DATE.fullmatch(name), _RUN.fullmatch(name)
    try:
        if match is not None:
            return dt.date.fromisoformat(match[1])
        return dt.date(int(run[1]), int(run[2]), int(run[3])) if run is not None else None
    except ValueError:
        return None  # such as 2026-02-30
