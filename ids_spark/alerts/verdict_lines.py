"""Verdicts as people give them: by settings, or as lines of a CSV file; every fault is collected."""

import bisect
import csv
import datetime as dt
import io
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from ids_spark.alerts.verdicts import NAMES
from ids_spark.base.errors import InputError
from ids_spark.base.names import date_of
from ids_spark.base.whole_file import FileTooLarge
from ids_spark.config.score import VerdictConfig
from ids_spark.lake.filesystem import read_bytes

COLUMNS: Final = ("date", "incident_id", "verdict", "until", "owner", "reason")
LONGEST_DAYS: Final = 366
"""Maximum days from today to the end of a mute, so that every mute is reviewed."""
SHORTEST_ID: Final = 6
"""Fewest characters of an incident id."""
LONGEST: Final[Mapping[str, int]] = {"owner": 100, "reason": 500}
"""Most characters of a text."""
_MOST_BYTES: Final = 10_000_000
_MOST_FAULTS: Final = 20
_SHOWN: Final = 60  # characters of a value in a message
_JOINERS: Final = "\u200c\u200d"  # some scripts need them between letters


class VerdictsRefused(InputError):
    """Raised when verdicts cannot be used; the message lists every fault."""

    quotes_identifiers = True


class Line(NamedTuple):
    """A verdict on one incident.

    Attributes:
        where: The line of the file, or the settings, for messages.
        date: Night of the incident.
        incident: Its id, or the first characters.
        verdict: One of `verdicts.NAMES`.
        until: Last night of a mute; else None.
        owner, reason: Who decided, and why.
    """

    where: str
    date: dt.date
    incident: str
    verdict: str
    until: dt.date | None
    owner: str
    reason: str


def read(config: VerdictConfig, today: dt.date) -> tuple[list[Line], list[str]]:
    """Return the verdicts of settings or of a file, and all faults; a line with a fault is not returned.

    Args:
        config: Section `verdict`.
        today: No mute may end more than `LONGEST_DAYS` after this day.

    Raises:
        VerdictsRefused: no verdict is given, or the file is not such a CSV file.
    """
    if config.file is not None:
        return _checked(_of_file(config.file), today)
    missing = [name for name in ("date", "incidents", "verdict", "owner", "reason") if not getattr(config, name)]
    if missing:
        raise VerdictsRefused(
            f"no verdict: {', '.join(f'verdict.{name}' for name in missing)} not set; expected verdict.date,"
            " verdict.incidents, verdict.verdict, verdict.owner and verdict.reason, or verdict.file, a CSV file"
        )
    shared = {
        "date": str(config.date),
        "verdict": config.verdict or "",
        "until": str(config.until or ""),
        "owner": config.owner or "",
        "reason": config.reason or "",
    }
    lines, faults = _checked([("settings", {**shared, "incident_id": each}) for each in config.incidents], today)
    return lines, list(dict.fromkeys(faults))


def refuse(faults: Sequence[str]) -> None:
    """Do nothing without faults.

    Raises:
        VerdictsRefused: lists the first faults, and how many there are more.
    """
    if faults:
        listed = [*faults[:_MOST_FAULTS], *([f"and {len(faults) - _MOST_FAULTS} more"] * (len(faults) > _MOST_FAULTS))]
        raise VerdictsRefused(f"verdicts have {len(faults)} fault(s):", *listed)


def find_incidents(
    lines: Iterable[Line], ids_by_date: Mapping[dt.date, Sequence[str]]
) -> tuple[list[tuple[Line, str]], list[str]]:
    """Return each line with the whole id of its incident, and faults: no or several incidents, an incident named twice.

    Args:
        lines: From `read`.
        ids_by_date: Ids of all incidents of every night that a line names.
    """
    found: list[tuple[Line, str]] = []
    faults = []
    first: dict[tuple[dt.date, str], str] = {}
    ordered = {date: sorted(ids) for date, ids in ids_by_date.items()}
    for line in lines:
        ids, named = ordered[line.date], _shown(line.incident)
        matching = ids[bisect.bisect_left(ids, line.incident) : bisect.bisect_left(ids, f"{line.incident}~")]
        if not ids:
            faults.append(
                f"{line.where}: {line.date} has no incidents; expected the date of a scored night with some; score a"
                " night of version 0.2 or older again"
            )
        elif not matching:
            faults.append(f"{line.where}: {line.date} has no incident {named}; see its page or incidents/")
        elif len(matching) > 1:
            faults.append(
                f"{line.where}: {named} begins the ids of {len(matching)} incidents of {line.date}; give more"
                " characters"
            )
        elif (line.date, matching[0]) in first:
            faults.append(
                f"{line.where}: incident {named} of {line.date} has a verdict already, in"
                f" {first[line.date, matching[0]]}; expected one verdict on each incident"
            )
        else:
            first[line.date, matching[0]] = line.where
            found.append((line, matching[0]))
    return found, faults


def _of_file(uri: str) -> list[tuple[str, dict[str, str]]]:
    """Return the cells of each line by column, without surrounding blanks.

    Raises:
        VerdictsRefused: it cannot be read, is not CSV in UTF-8 with commas, or has other columns.
    """
    expected = f"expected CSV in UTF-8 with commas and the columns {', '.join(COLUMNS)}"
    try:
        content = read_bytes(uri, _MOST_BYTES)
    except FileTooLarge as error:
        raise VerdictsRefused(f"{error.args[0]}; give it in parts") from error
    except OSError as error:
        raise VerdictsRefused(f"{uri}: {error.strerror or error}; {expected}") from error
    try:
        text = content.decode("utf-8-sig")
        if "\0" in text:
            raise VerdictsRefused(f"{uri}: found bytes that are no text; {expected}; save it as UTF-8")
        rows = list(_rows(text))
    except UnicodeDecodeError as error:
        raise VerdictsRefused(f"{uri}: byte {error.start} is no UTF-8; {expected}; save it as UTF-8") from error
    except csv.Error as error:
        raise VerdictsRefused(f"{uri}: not CSV ({error}); {expected}") from error
    if not rows:
        raise VerdictsRefused(f"{uri} is empty; {expected}")
    header = rows[0][1]
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        raise VerdictsRefused(f"{uri}: its columns are not separated by commas; {expected}; save it so")
    names = [" ".join(name.split()).casefold() for name in header]
    _require_columns(names, uri, expected)
    lines = []
    for number, cells in rows[1:]:
        where = f"{uri} line {number}"
        if len(cells) > len(names):  # a comma in a text without quotes
            lines.append((where, {"fault": f"found {len(cells)} cells, expected {len(names)}; put texts in quotes"}))
        else:
            lines.append((where, dict(zip(names, (cell.strip() for cell in cells), strict=False))))
    if not lines:
        raise VerdictsRefused(f"{uri} has no line below its header; expected one for each verdict")
    return lines


def _rows(text: str) -> Iterable[tuple[int, list[str]]]:
    """Return the cells of each line that is not blank, with its number."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    last = 0
    for cells in reader:
        if any(cell.strip() for cell in cells):
            yield last + 1, cells
        last = reader.line_num


def _require_columns(names: Sequence[str], uri: str, expected: str) -> None:
    twice = [name for name, n in Counter(names).items() if n > 1]
    absent = [name for name in COLUMNS if name not in names and name != "until"]
    unknown = [name for name in names if name not in COLUMNS]
    if twice or absent or unknown:
        parts = {"lacks": absent, "has twice": twice, "has also": unknown}
        found = "; ".join(f"{what} {', '.join(map(_shown, list_))}" for what, list_ in parts.items() if list_)
        raise VerdictsRefused(f"{uri}: its header {found}; {expected}")


def _checked(given: Iterable[tuple[str, Mapping[str, str]]], today: dt.date) -> tuple[list[Line], list[str]]:
    lines, faults = [], []
    for where, cells in given:
        found: list[str] = []
        line = _line(where, cells, today, found)
        if line is not None and not found:
            lines.append(line)
        faults += [f"{where}: {fault}" for fault in found]
    return lines, faults


def _line(where: str, cells: Mapping[str, str], today: dt.date, faults: list[str]) -> Line | None:
    """Return a verdict; None if it has a fault, which is added to `faults`."""
    if "fault" in cells:
        faults.append(cells["fault"])
        return None
    date = _date(cells.get("date", ""), "date", faults)
    incident = cells.get("incident_id", "").lower()
    if len(incident) < SHORTEST_ID:
        faults.append(
            f"incident_id is {_shown(incident)}; expected an id, or at least its first {SHORTEST_ID} characters"
        )
    verdict = cells.get("verdict", "").lower()
    if verdict not in NAMES:
        faults.append(f"verdict is {_shown(verdict)}; expected one of {', '.join(NAMES)}")
    until = _until(cells.get("until", ""), verdict, date, today, faults)
    texts = {name: _text(cells.get(name, ""), name, faults) for name in LONGEST}
    return None if date is None else Line(where, date, incident, verdict, until, **texts)


def _date(text: str, name: str, faults: list[str]) -> dt.date | None:
    try:
        return date_of(text)
    except ValueError:
        faults.append(f"{name} is {_shown(text)}; expected a date such as 2026-11-24")
        return None


def _until(text: str, verdict: str, date: dt.date | None, today: dt.date, faults: list[str]) -> dt.date | None:
    if verdict != "mute":
        if text and verdict in NAMES:
            faults.append(f"until is {_shown(text)}, but only a mute has an end; leave it empty")
        return None
    until = _date(text, "until", faults)
    if until is None:
        return None
    latest = today + dt.timedelta(days=LONGEST_DAYS)
    if until > latest:
        faults.append(f"until is {until}, more than {LONGEST_DAYS} days after today, {today}; renew it when it ends")
    if date is not None and until < date:
        faults.append(f"until is {until}, before the night of the incident, {date}")
    return until


def _text(text: str, name: str, faults: list[str]) -> str:
    """Return a text with single blanks; text from people is shown on pages, in logs and in exports."""
    if any(unicodedata.category(c)[0] == "C" and c not in _JOINERS for c in text):
        faults.append(f"{name} has a line break or another control character: {_shown(text)}; remove it")
    whole = " ".join(text.split())
    if not whole:
        faults.append(
            f"{name} is missing; expected who decided" if name == "owner" else f"{name} is missing; expected why"
        )
    elif len(whole) > LONGEST[name]:
        faults.append(f"{name} has {len(whole)} characters; expected at most {LONGEST[name]}")
    return whole


def _shown(text: str) -> str:
    """Return a value for a message: in quotes, printable, not long."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
