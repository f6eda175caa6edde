"""How the page of a night writes figures, hours, features and faults."""

import datetime as dt
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ids_spark.dataset.features import FLAGS, PROTOCOLS
from ids_spark.ingest.quality import RULES

_MOST_LOGIT: Final = 80.0
FEATURES: Final[Mapping[str, str]] = {
    **{name: f"share of {name}" for name in PROTOCOLS},
    **{f"{flag}_flag_number": f"share of {flag.upper()} packets" for flag in FLAGS},
    **{f"{flag}_count": f"count of {flag.upper()} packets" for flag in FLAGS},
    "Header_Length": "header length",
    "Protocol Type": "mean protocol number",
    "Duration": "time to live",
    "Time_To_Live": "time to live",
    "Rate": "packet rate",
    "Srate": "sent packet rate",
    "Drate": "received packet rate",
    "Tot sum": "sum of packet lengths",
    "Min": "shortest packet",
    "Max": "longest packet",
    "AVG": "mean packet length",
    "Std": "spread of packet lengths",
    "Tot size": "packet length",
    "IAT": "time between packets",
    "Number": "packets in the window",
    "Variance": "variance of packet lengths",
    "Covariance": "covariance of packet lengths in and out",
    "Magnitue": "magnitude of packet lengths in and out",
    "Radius": "spread of packet lengths in and out",
    "Weight": "packets in times packets out",
    "IPv": "share of IP",
    "LLC": "share of LLC",
}
"""What features measure, after Dadkhah et al. 2024, doi 10.1016/j.iot.2024.101351."""
FAULTS: Final[Mapping[str, str]] = {
    **{
        rule.name: f"broken rule: {rule.statement.replace('within 0 … inf', '0 or more')}"
        for rules in RULES.values()
        for rule in rules
    },
    "missing": "a value is missing",
    "no_finite_score": "the model has no finite score; a value is beyond what it can compute with",
    "not_a_number": "a value is not a number",
    "unparsable": "a value cannot be read as a number",
    "wrong_field_count": "the row has too many or too few fields",
    "missing_file": "the file is listed, but not there",
    "empty_file": "the file has no bytes",
    "unreadable_file": "the file is no complete parquet file",
    "duplicated_column": "a column stands in the file twice",
    "wrong_type": "a feature column holds no numbers",
    "unreadable_row_group": "a part of the file cannot be read",
    "no_rows": "the file has no rows",
}
"""What is wrong with rows and files, by the name that stands in the tables."""


def known(value: float | None, otherwise: float = math.nan) -> float:
    """Return a figure, or `otherwise` where it is null or NaN."""
    return otherwise if value is None or math.isnan(value) else float(value)


def percent(share: float) -> str:
    """Return a share in percent: 12.3%, 0.0042%; 100% and 0% only when they are exact."""
    if share in (0.0, 1.0):
        return f"{share:.0%}"
    if share > 0.9:
        return ">99.99%" if share > 0.9999 else f"{100 * share:.4g}%"
    return f"{share:.1%}" if share >= 0.01 else f"{100 * share:.2g}%"


def probability(logit: float) -> str:
    """Return log-odds as a probability in percent; unknown for NaN."""
    if math.isnan(logit):
        return "unknown"
    odds = math.exp(min(max(logit, -_MOST_LOGIT), _MOST_LOGIT))
    return percent(min(odds / (1 + odds), 1 - 1e-9))  # certain is what no model is


def amount(value: float | None) -> str:
    """Return a number as people write it: 1,234, 0.0123, infinite; – for null and NaN."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "infinite" if value > 0 else "-infinite"
    if abs(value) >= 1e15 or 0 < abs(value) < 1e-4:
        return f"{value:.3g}"
    if abs(value) >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def index(psi: float | None) -> str:
    """Return a population stability index; – for null and NaN."""
    return "–" if psi is None or math.isnan(psi) else f"{psi:.3f}"


def counted(n: int, what: str, more: str | None = None) -> str:
    """Return `1 incident`, `2 incidents`."""
    return f"{n:,} {what if n == 1 else more or what + 's'}"


def hour_ranges(hours: Sequence[int]) -> str:
    """Return hours as ranges of time: 3, 4, 9 give `03:00–05:00, 09:00–10:00`."""
    said = []
    for _, run in itertools.groupby(enumerate(hours), key=lambda pair: pair[1] - pair[0]):
        members = [hour for _, hour in run]
        said.append(f"{members[0]:02d}:00–{members[-1] + 1:02d}:00")
    return ", ".join(said)


def seen(row: Mapping[str, Any], event_date: dt.date, time: str = "%H:%M:%S") -> str:
    """Return when an incident was seen, in UTC, with dates only where they are not the night's."""
    if row["first_seen"] is None or row["last_seen"] is None:
        return "no event time"
    moments = (row["first_seen"], row["last_seen"])
    said = [f"{at:{time}}" if at.date() == event_date else f"{at:%Y-%m-%d {time}}" for at in moments]
    return said[0] if said[0] == said[1] else "–".join(said)


def reason(entry: Mapping[str, Any]) -> str:
    """Return why in words: what the feature measures, its value, its name, and how it moved the log-odds."""
    name = str(entry["feature"])
    words = FEATURES.get(name)
    value, moved = amount(entry["value"]), f"{known(entry['contribution']):+.1f}".replace("-", "−")
    return f"{words} {value} ({name}, {moved})" if words else f"{name} {value} ({moved})"
