"""Numbers, times, features and faults as text, for all pages."""

import datetime as dt
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from rich.text import Text

from ids_spark.base.logs import printable
from ids_spark.dataset.features import FEATURE_DESCRIPTIONS
from ids_spark.ingest import files
from ids_spark.ingest.quality import RULES

_MOST_LOGIT: Final = 80.0
_MOST_CERTAIN: Final = 0.9999
FAULT_DESCRIPTIONS: Final[Mapping[str, str]] = {
    **{
        rule.name: f"violated rule: {rule.statement.replace('within 0 … inf', '0 or more')}"
        for rules in RULES.values()
        for rule in rules
    },
    "infinite": "a value is infinite, which only a rate can be",
    "missing": "a value is missing",
    "no_finite_score": "the score of the model is not finite; a value is too large for it",
    "not_a_number": "a value is not a number",
    "unparsable": "a value cannot be read as a number",
    "wrong_field_count": "the row has too many or too few fields",
    **files.REASONS,
    "missing_columns": "it lacks features of the model; add them, or name other spellings in score.column_aliases",
    "other_feature_schema": "it is of another release than the model, or its release cannot be told",
    "duplicated_column": "it has a column twice",
    "wrong_type": "a feature is neither a number nor text",
    "unreadable_row_group": "a part of the file cannot be read; fetch it again",
    "too_large_text": "a feature is text that is too large to read",
    "no_rows": "it has no row",
}
"""Descriptions of faults of rows and files, by the name that the tables use."""


def number_or(value: float | None, default: float = math.nan) -> float:
    """Return a number, or `default` where it is null or NaN."""
    return default if value is None or math.isnan(value) else float(value)


def percent(share: float) -> str:
    """Return a share in percent: 12.3%, 0.0042%; 100% and 0% only when they are exact."""
    if share in (0.0, 1.0):
        return f"{share:.0%}"
    if share > 0.9:
        return ">99.99%" if share > 0.9999 else f"{100 * share:.4g}%"
    return f"{share:.1%}" if share >= 0.01 else f"{Decimal(f'{100 * share:.2g}'):f}%"  # never 8.3e-05


def share(value: float) -> str:
    """Return a share in percent; `cannot tell` for NaN."""
    return "cannot tell" if math.isnan(value) else percent(value)


def probability(logit: float) -> str:
    """Return log-odds as a probability in percent, never 100%; `unknown` for NaN."""
    if math.isnan(logit):
        return "unknown"
    odds = math.exp(min(max(logit, -_MOST_LOGIT), _MOST_LOGIT))
    return percent(min(odds / (1 + odds), 1 - 1e-9))


def at_most(posterior: float | None) -> str:
    """Return an upper bound of a probability in percent, never above 99.99%; – for null and NaN."""
    return "–" if posterior is None or math.isnan(posterior) else percent(min(posterior, _MOST_CERTAIN))


def amount(value: float | None) -> str:
    """Return a number: 1,234, 0.0123, infinite; – for null and NaN."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "infinite" if value > 0 else "-infinite"
    if abs(value) >= 1e15 or 0 < abs(value) < 1e-4:
        return f"{value:.3g}"
    if abs(value) >= 999.5 or value == int(value):  # three digits of 999.5 would be 1e+03
        return f"{value:,.0f}"
    return f"{value:.3g}"


def drift_index(value: float | None) -> str:
    """Return a drift index; – for null and NaN."""
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"


def counted(n: int, singular: str, plural: str | None = None) -> str:
    """Return `1 incident`, `2 incidents`."""
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"


def one_in(rate: float) -> str:
    """Return a rate of flows as `1 in 80,000 flows`; `none` for 0."""
    return f"1 in {1 / rate:,.0f} flows" if rate > 0 else "none"


def hour_ranges(hours: Sequence[int]) -> str:
    """Return hours as ranges of time: 3, 4, 9 give `03:00–05:00, 09:00–10:00`."""
    ranges = []
    for _, run in itertools.groupby(enumerate(hours), key=lambda pair: pair[1] - pair[0]):
        members = [hour for _, hour in run]
        ranges.append(f"{members[0]:02d}:00–{members[-1] + 1:02d}:00")
    return ", ".join(ranges)


def observed(incident: Mapping[str, Any], event_date: dt.date, time: str = "%H:%M:%S") -> str:
    """Return the time of an incident's first and last flow in UTC, with dates only if they differ from the night's."""
    if incident["first_seen"] is None or incident["last_seen"] is None:
        return "no event time"
    moments = (incident["first_seen"], incident["last_seen"])
    first, last = (f"{at:{time}}" if at.date() == event_date else f"{at:%Y-%m-%d {time}}" for at in moments)
    return first if first == last else f"{first}–{last}"


def life(incident: Mapping[str, Any], event_date: dt.date, nights: int) -> str:
    """Return since when an incident is known: `new`, `continuing since 3 July, on 6 of the last 7 nights`.

    Args:
        incident: A row of `incidents/`.
        event_date: The night.
        nights: Number of nights that `nights_seen` counts.
    """
    since, seen = incident["since"], incident["nights_seen"]
    if incident["life"] not in ("continuing", "returned"):
        return str(incident["life"] or "new")
    text = str(incident["life"])
    if since is not None:
        first = f"since {since:%-d %B}" if incident["life"] == "continuing" else f"first seen on {since:%-d %B}"
        text += f"{' ' if incident['life'] == 'continuing' else ', '}{first}"
        text += f" {since:%Y}" if since.year != event_date.year else ""
    return text if seen is None else f"{text}, on {seen} of the last {nights} nights"


def attribution(entry: Mapping[str, Any]) -> str:
    """Return the description, value and name of a feature, and the change of the log-odds that it caused."""
    name = str(entry["feature"])
    description = FEATURE_DESCRIPTIONS.get(name)
    value, moved = amount(entry["value"]), f"{number_or(entry['contribution']):+.1f}".replace("-", "−")
    return f"{description} {value} ({name}, {moved})" if description else f"{name} {value} ({moved})"


def cell(text: str) -> Text:
    """Return a text for a table on the terminal: without markup, control characters escaped."""
    return Text(printable(text))


def as_markdown(text: str) -> str:
    """Escape a text for markdown: no markup, no cell border, no line break."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", " ".join(text.split()))
