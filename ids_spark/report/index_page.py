"""The index of all nights, `reports/index.html`: a calendar, trends, search for devices, links to all pages.

One self-contained file that needs no server. It is written from committed tables only, after each commit that changes
what it shows, and replaces the file before it in one step.
"""

import base64
import calendar
import datetime as dt
import hashlib
import json
import logging
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from markupsafe import Markup

from ids_spark.alerts.severity import SEVERITIES
from ids_spark.base.report import combined_origin
from ids_spark.evaluate.precision import Precision
from ids_spark.lake.filesystem import exists, remove_old_unfinished, replace_bytes, require_below, sizes_in
from ids_spark.lake.store import Lake
from ids_spark.report import html, index_facts
from ids_spark.report.format import counted
from ids_spark.report.index_facts import NightFacts, OfModel, Stored

log = logging.getLogger(__name__)

PLACE: Final = "reports/index.html"
DRAWN_NIGHTS: Final = 90
"""Dates of the trends, that of the newest night last."""
OPEN_MONTHS: Final = 6
"""Months of the calendar that are shown before `details` is opened."""
CHECKED_DATES: Final = 30
"""Dates, the newest night last, in which missing and degraded nights are pointed out."""
RECENT, BEFORE = 7, 28
"""Nights that are compared: the newest ones with those before them."""
TOP: Final = 3
"""Incidents of the newest night that are named on top."""
_OTHER_PAGES: Final = ("run", "benchmark", "leakage", "adaptation")
_START, _END = '<script type="application/json" id="data">', "</script>"
_ATTEMPTS: Final = 5
_RAISED: Final = 2.0  # times the figure of the nights before
_UNFINISHED_S: Final = 3600.0  # age from which what a killed run left is removed
_MARKED_DRIFT: Final = 1  # features that drifted significantly


@dataclass(frozen=True)
class Cell:
    """A date of the calendar.

    Attributes:
        date: The date.
        night: Its facts; None where the lake has no result.
        page: Path of its page from the index; None where there is none.
        exported: Whether its exports are in the lake.
        new_champion: Whether another model scored the night before.
        unread: Whether the lake has a result that could not be read.
    """

    date: dt.date
    night: NightFacts | None = None
    page: str | None = None
    exported: bool = True
    new_champion: bool = False
    unread: bool = False

    @property
    def state(self) -> str:
        """What the calendar shows.

        Returns:
            `absent`: no result. `unread`: it could not be read. `missing`: no flow logs. `not_scored`: no flow was
            scored. `degraded`. `partial`: flows of the date are still to come. `learning`. `scored`.
        """
        if self.night is None:
            return "unread" if self.unread else "absent"
        if self.night.state in ("missing", "not_scored"):
            return self.night.state
        if self.night.reasons:
            return "degraded"
        if self.night.runs is not None:
            return "partial"
        return "learning" if self.night.stage == "learning" else "scored"

    @property
    def to_look_at(self) -> int:
        """Incidents to look at."""
        return self.night.champion.incidents if self.night is not None else 0

    @property
    def drifted(self) -> bool:
        """Whether the calendar marks drift."""
        return self.night is not None and self.night.drift_significant >= _MARKED_DRIFT

    @property
    def sentence(self) -> str:
        """All that the cell shows, as text."""
        night, day = self.night, f"{self.date:%A, %-d %B %Y}"
        if night is None:
            return f"{day}: {'could not be read' if self.unread else 'no result in the lake'}"
        if self.state in ("missing", "not_scored"):
            parts = ["no flow logs" if self.state == "missing" else "no flow was scored"]
        else:
            by = ", ".join(f"{n} {name}" for name, n in night.severities.items())
            parts = [f"{counted(self.to_look_at, 'incident')} to look at{f' ({by})' if by else ''}"]
            parts += [f"{n} {state}" for state, n in night.folded.items()]
        parts += [f"degraded: {text}" for text in night.degraded[:1] if self.state != "missing"]
        parts += [f"so far, after run {night.runs[0]} of {night.runs[1]}"] if night.runs else []
        parts += ["the site is learning"] if night.stage == "learning" else []
        parts += [f"{counted(night.drift_significant, 'feature')} drifted significantly"] if self.drifted else []
        parts += [f"new champion {night.champion.model} {night.champion.version}"] if self.new_champion else []
        parts += [] if self.exported else ["not exported"]
        return f"{day}: {'; '.join(parts)}"


@dataclass(frozen=True)
class Month:
    """A month of the calendar.

    Attributes:
        first: Its first date.
        weeks: Weeks of seven cells from Monday; None where a date is of another month, or not between nights.
    """

    first: dt.date
    weeks: Sequence[Sequence[Cell | None]]


@dataclass(frozen=True)
class Bar:
    """A date of a trend.

    Attributes:
        cell: The date.
        parts: Parts of its bar from the bottom: class, bottom and height in percent of the picture.
        text: Date and figure.
        challenger: Figure of the challenger in percent of the picture; None without.
    """

    cell: Cell
    parts: Sequence[tuple[str, float, float]]
    text: str
    challenger: float | None = None


@dataclass(frozen=True)
class Trend:
    """A picture of one figure over the nights: its title, its highest value as text, and a bar for each date."""

    title: str
    highest: str
    bars: Sequence[Bar]


@dataclass(frozen=True)
class Index:
    """What the index shows.

    Attributes:
        lake: URI of the lake.
        stored: Facts of all nights.
        cells: By date: each date of a month with a night, from the first to the newest night, ascending.
        pages: Path from the index and name of pages that are not of a night.
        precision: What people decided about the incidents on the index.
        written: Time of writing, in UTC.
        unread: Dates of nights that could not be read.
    """

    lake: str
    stored: Stored
    cells: Mapping[dt.date, Cell]
    pages: Sequence[tuple[str, str]]
    precision: Precision
    written: dt.datetime
    unread: Sequence[dt.date] = field(default=())

    @property
    def nights(self) -> Sequence[NightFacts]:
        """All nights with a result, ascending."""
        return self.stored.nights

    def last(self, dates: int) -> list[Cell]:
        """Return the cells of as many dates, the newest of all last; of fewer, if the first night is among them."""
        first, newest = min(self.cells, default=dt.date.max), max(self.cells, default=dt.date.min)
        known = (newest - first).days + 1 if self.cells else 0
        found = [newest - dt.timedelta(days=i) for i in reversed(range(min(dates, known)))]
        return [self.cells.get(date) or Cell(date) for date in found]


def write(lake: Lake, *, again: bool = False) -> bool:
    """Write the index of a lake; return whether there is one: not in a lake without nights and pages.

    Committed tables are read, so that of jobs that end at the same time the last one to write has read what all of them
    committed: a job that finds other tables after it has written writes once more.

    Args:
        lake: The lake.
        again: Read every night, also those that the last index already had.
    """
    require_below(lake.root, lake.uri(PLACE))
    earlier = None if again else index_facts.stored_in(lake.uri(PLACE), _START, _END)
    for _ in range(_ATTEMPTS):
        files = index_facts.files_of(lake)
        stored = index_facts.read(lake, files, earlier)
        known = {night.date for night in stored.nights}
        index = index_of(lake, stored, [date for date in files.nights if date not in known])
        if not (index.cells or index.pages or exists(lake.uri(PLACE))):
            return False
        replace_bytes(lake.uri(PLACE), render_page(index).encode())
        if index_facts.files_of(lake) == files:
            break
        earlier = stored
    remove_old_unfinished(lake.uri(PLACE), _UNFINISHED_S)
    log.info("page %s nights=%d", lake.uri(PLACE), len(stored.nights))
    return True


def index_of(lake: Lake, stored: Stored, unread: Sequence[dt.date] = ()) -> Index:
    """Return what the index shows of a lake.

    Args:
        lake: Holds the pages.
        stored: From `index_facts.read`.
        unread: Dates that could not be read.
    """
    paged, exported = (set(lake.dates(table)) for table in ("reports/night", "exports"))
    nights = {night.date: night for night in stored.nights}
    cells: dict[dt.date, Cell] = {}
    last = None
    for date in _dates({*nights, *unread}):
        night = nights.get(date)
        champion = None if night is None else (night.champion.model, night.champion.version)
        page = f"night/event_date={date}/night.html" if date in paged else None
        new = champion is not None and last is not None and champion != last
        cells[date] = Cell(date, night, page, date in exported or night is None, new, date in unread)
        last = champion or last
    return Index(
        lake.root, stored, cells, _pages(lake), index_facts.precision_of(stored), dt.datetime.now(dt.UTC), unread
    )


def _dates(nights: Collection[dt.date]) -> list[dt.date]:
    """Return every date of the months with nights, from the first to the last night, ascending."""
    months = sorted({(date.year, date.month) for date in nights})
    days = (
        dt.date(year, month, day) for year, month in months for day in range(1, 1 + calendar.monthrange(year, month)[1])
    )
    return [day for day in days if min(nights) <= day <= max(nights)] if nights else []


def _pages(lake: Lake) -> list[tuple[str, str]]:
    """Return path and name of the pages of models and adaptations, newest adaptation first."""
    found = []
    for name in _OTHER_PAGES:
        for path in sorted(sizes_in(lake.uri(f"reports/{name}")), reverse=True):
            if path.endswith(".html") and not path.startswith((".", "_")):
                *folders, file = path.split("/")
                title = " ".join([file.removesuffix(".html") if name != "run" else "models", *folders])
                found.append((quote(f"{name}/{path}", safe="/="), title))
    return found


def months_of(cells: Mapping[dt.date, Cell]) -> list[Month]:
    """Return the calendar, newest month first; weeks without a cell are left out."""
    found = []
    for year, month in sorted({(date.year, date.month) for date in cells}, reverse=True):
        weeks = [
            [cells.get(dt.date(year, month, day)) if day else None for day in week]
            for week in calendar.monthcalendar(year, month)
        ]
        found.append(Month(dt.date(year, month, 1), [week for week in weeks if any(week)]))
    return found


def trends_of(cells: Sequence[Cell], severities: Sequence[str]) -> list[Trend]:
    """Return the pictures of the newest dates.

    Args:
        cells: Of these dates.
        severities: In the order of a bar from the bottom.
    """

    def incidents(night: NightFacts) -> list[tuple[str, float]]:
        known = [(name, float(night.severities.get(name, 0))) for name in severities]
        rest = night.champion.incidents - sum(n for _, n in known)
        return [*known, ("other", float(max(rest, 0)))]

    def one(value: Callable[[NightFacts], float]) -> Callable[[NightFacts], list[tuple[str, float]]]:
        return lambda night: [("value", value(night))]

    return [
        _trend("Incidents to look at", cells, incidents, lambda n: f"{n:,.0f}", lambda n: n.incidents),
        _trend("Share of flows flagged", cells, one(lambda n: n.flagged / n.predicted if n.predicted else 0), _percent),
        _trend("Features that drifted significantly", cells, one(lambda n: n.drift_significant), lambda n: f"{n:.0f}"),
        _trend("Share of flows in quarantine", cells, one(lambda n: n.quarantined / n.rows_in if n.rows_in else 0),
               _percent),
    ]  # fmt: skip


def _percent(value: float) -> str:
    return f"{value:.1%}" if value >= 0.01 or value == 0 else f"{100 * value:.2g}%"


def _trend(
    title: str,
    cells: Sequence[Cell],
    parts_of: Callable[[NightFacts], list[tuple[str, float]]],
    text_of: Callable[[float], str],
    of_model: Callable[[OfModel], float] | None = None,
) -> Trend:
    values = [parts_of(cell.night) if cell.night is not None else [] for cell in cells]
    others = [
        of_model(cell.night.challenger) if of_model and cell.night and cell.night.challenger else None
        for cell in cells
    ]  # fmt: skip
    highest = max([*(sum(n for _, n in parts) for parts in values), *(n for n in others if n is not None)], default=0.0)
    scale = 100 / highest if highest else 0.0
    bars = []
    for cell, parts, other in zip(cells, values, others, strict=True):
        bottom, drawn = 0.0, []
        for name, value in parts:
            drawn += [(name, round(bottom, 2), round(scale * value, 2))] if value else []
            bottom += scale * value
        text = "no result" if cell.night is None else text_of(sum(n for _, n in parts))
        text += "" if other is None else f", challenger {text_of(other)}"
        bars.append(Bar(cell, drawn, f"{cell.date:%-d %B}: {text}", None if other is None else round(scale * other, 2)))
    return Trend(title, text_of(highest), bars)


@dataclass(frozen=True)
class Change:
    """A figure of the newest nights and of those before them, means of a night; None without nights."""

    title: str
    recent: float
    before: float | None
    is_share: bool = False

    @property
    def raised(self) -> bool:
        """Whether it at least doubled, a count by at least one a night."""
        if self.before is None or self.recent < _RAISED * self.before:
            return False
        return self.recent > self.before if self.is_share else self.recent >= self.before + 1


def _compared(nights: Sequence[NightFacts]) -> tuple[Sequence[NightFacts], Sequence[NightFacts]]:
    """Return the newest complete nights with flows, at most `RECENT`, and those before them, at most `BEFORE`."""
    scored = [night for night in nights if night.predicted and night.runs is None]
    return scored[-RECENT:], scored[-RECENT - BEFORE : -RECENT]


def changes_of(nights: Sequence[NightFacts]) -> list[Change]:
    """Return the figures of the newest complete nights with flows, compared with those before them, see `_compared`."""
    recent, before = _compared(nights)
    if not recent:
        return []

    def change(title: str, value: Callable[[NightFacts], float], is_share: bool = False) -> Change:
        old = statistics.fmean(map(value, before)) if before else None
        return Change(title, statistics.fmean(map(value, recent)), old, is_share)

    return [
        change("incidents to look at", lambda n: n.champion.incidents),
        change("share of flows flagged", lambda n: n.flagged / n.predicted, True),
        change("features drifted", lambda n: n.drift_significant),
        change("share in quarantine", lambda n: n.quarantined / n.rows_in if n.rows_in else 0.0, True),
    ]


def render_page(index: Index) -> str:
    """Return the page; every text is escaped, also in the data for the search."""
    script = html.render("index.js.j2")
    checked, drawn = index.last(CHECKED_DATES), index.last(DRAWN_NIGHTS)
    order = [name for name in SEVERITIES if name in index_facts.counts_of(index.nights)]
    models = {
        role: list(dict.fromkeys(f"{m.model} {m.version}" for night in index.nights if (m := getattr(night, role))))
        for role in ("champion", "challenger")
    }
    newest = next((cell for cell in reversed(list(index.cells.values())) if cell.night is not None), None)
    facts = newest.night if newest is not None else None
    origins = {night.data_origin for night in index.nights}
    recent, before = map(len, _compared(index.nights))
    return html.render(
        "index.html.j2",
        run_id=facts.run_id if facts is not None else "none",
        data_origins=sorted(origins) or [combined_origin(index.precision.data_origin)],
        index=index,
        newest=newest,
        top=[each for each in (facts.incidents if facts is not None else None) or () if each.shown][:TOP],
        checked=checked,
        absent=[cell for cell in checked if cell.state in ("absent", "unread", "missing", "not_scored")],
        degraded=[cell for cell in checked if cell.state == "degraded"],
        changes=changes_of(index.nights),
        changed_champions=[cell for cell in drawn if cell.new_champion],
        decided=index.precision.total,
        months=months_of(index.cells),
        open_months=OPEN_MONTHS,
        trends=trends_of(drawn, order[::-1]),
        drawn=drawn,
        recent=recent,
        before=before,
        severities=order,
        models=models,
        not_searched=[night.date for night in index.nights if night.incidents is None],
        data=as_json(index),
        data_start=Markup(_START),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def as_json(index: Index) -> Markup:
    """Return the data of the page as JSON that no text can leave: `<`, `>`, `&` and line separators are escapes."""
    packed: dict[str, Any] = index_facts.packed(index.stored)
    packed["pages"] = [cell.date.isoformat() for cell in index.cells.values() if cell.page is not None]
    text = json.dumps(packed, separators=(",", ":"), allow_nan=False)  # ASCII: line separators are escapes
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))
