"""Retention of what the first night that is kept says of the removed night before it: its ended incidents, a link."""

import datetime as dt
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from ids_spark.config.settings import Config
from ids_spark.dataset.tables import TABLES
from ids_spark.lake.filesystem import is_plain_file, read_bytes
from ids_spark.lake.store import Lake
from ids_spark.report import night_page
from ids_spark.score.night_outputs import WRITTEN, inputs_of, stage

_LINK: Final = re.compile(rb'href="\.\./event_date=(\d{4}-\d{2}-\d{2})/night\.html"')
_LARGEST_PAGE: Final = 256 << 20  # bytes


def purge_ended(lake: Lake, staged: Callable[[str], str], first: dt.date, config: Config) -> dict[str, int]:
    """Stage the first night without `incidents_ended` and without a link to a removed night, if it has either.

    Args:
        lake: Holds no night before `first` any more.
        staged: Returns the URI of the staged version of a table.
        first: First night that is kept.
        config: As in `night_outputs.inputs_of`.

    Returns:
        Ended incidents removed, and 0 for what was written again with them, by staged table; nothing if there are none.

    Raises:
        SchemaMismatch, NightUnknown: the night was written by another version, or not to its end; nothing is staged.
    """
    date = min((date for date in lake.dates("nights") if date >= first), default=None)
    if date is None:
        return {}
    ended = [row["incidents_ended"] for row in lake.read("nights", ["incidents_ended"], event_date=date).to_pylist()]
    if not any(ended) and not _links_before(lake, date):
        return {}
    page = night_page.night_of_lake(lake, date)
    rows = [{**row, "incidents_ended": []} for row in page.nights[date]]
    incidents, alerts = (lake.read(name, event_date=date) for name in ("incidents", "alerts"))
    inputs = inputs_of(page.champion, config)
    stage(lake, staged, replace(page, nights={**page.nights, date: rows}), incidents, alerts, inputs)
    places = {name: TABLES[name].place(event_date=date) for name in WRITTEN}
    return dict.fromkeys(places.values(), 0) | {places["nights"]: sum(len(each or ()) for each in ended)}


def _links_before(lake: Lake, date: dt.date) -> bool:
    """Return whether the page of a night links to that of an earlier one."""
    uri = lake.uri(f"reports/night/event_date={date}/night.html")
    try:
        linked = _LINK.findall(read_bytes(uri, _LARGEST_PAGE)) if is_plain_file(uri) else []
    except FileNotFoundError:
        return False
    return any(each.decode() < date.isoformat() for each in linked)
