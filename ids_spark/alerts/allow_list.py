"""Allow-list: flagged flows that are accepted and form no incident. Each entry has a reason, an owner and a last night.

Entries contain plain values of pass-through columns, so flows are compared before pseudonymisation, in the task that
scores them.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Collection, Iterable
from typing import Annotated, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from ids_spark.alerts.policy_file import read_checked
from ids_spark.alerts.severity import known_name, lineage_of
from ids_spark.base.arrays import Counts, Mask
from ids_spark.base.errors import InputError
from ids_spark.config.score import Section

LONGEST_DAYS: Final = 366
"""Maximum days from the day of reading to the expiry of an entry, so that every entry is reviewed."""
_MINUTES_A_DAY: Final = 24 * 60
_MICROSECONDS_A_DAY: Final = 86_400_000_000
_TIME: Final = pa.timestamp("us", tz="UTC")


class AllowListUnusable(InputError):
    """Raised when an allow-list cannot be read or an entry is invalid; the message lists every fault."""

    quotes_identifiers = True


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


def _text(value: Any) -> Any:
    """Refuse values that YAML converts: 0123 becomes 83, 11:22:33:44:55:06 a number, yes true."""
    if not isinstance(value, str):
        raise ValueError(f"expected text; put it in quotes; found {value!r}")
    return value


def _clock(value: Any) -> Any:
    """Return a time of day that YAML converted to a number: unquoted 12:10 becomes 730, 12:10:05 becomes 43805."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 60 * _MINUTES_A_DAY:
        minutes, seconds = (value, 0) if value < _MINUTES_A_DAY else divmod(value, 60)
        return dt.time(minutes // 60, minutes % 60, seconds)
    return value


def _is_pass_through(column: str, info: ValidationInfo) -> str:
    columns = (info.context or {}).get("columns")
    if columns is not None and column not in columns:
        raise ValueError(f"no such column in score.pass_through; expected one of {', '.join(columns)}")
    return column


def _utc(at: dt.time) -> dt.time:
    if at.tzinfo is not None:
        raise ValueError(f"expected a time of day in UTC without a time zone; found {at}")
    return at


Text = Annotated[str, BeforeValidator(_text), Field(min_length=1)]
Column = Annotated[str, AfterValidator(_is_pass_through)]
Values = Annotated[tuple[Text, ...], BeforeValidator(_listed), Field(min_length=1)]
Names = Annotated[tuple[Annotated[str, AfterValidator(known_name)], ...], BeforeValidator(_listed), Field(min_length=1)]
Clock = Annotated[dt.time, BeforeValidator(_clock), AfterValidator(_utc)]


class Entry(Section):
    """Accepted behaviour. An entry covers a flow if all its conditions hold.

    Attributes:
        reason: Why it is accepted; written to the audit and the page, unless identifiers are pseudonymised.
        owner: Who is responsible.
        expires: The last night that it covers.
        where: Accepted values by pass-through column; at least one column, because an entry with a class alone would
            hide that attack on every device. A null does not match.
        class_name: Predicted classes, at any level; `Attack` means all attacks. Default: any.
        category: Predicted categories. Default: any.
        starts: Start of a time of day in UTC, in files `from`. A flow without an event time does not match.
        ends: End, exclusive, in files `until`; earlier than `starts` if the interval contains midnight.
    """

    reason: Text
    owner: Text
    expires: dt.date
    where: Annotated[dict[Column, Values], Field(min_length=1)]
    class_name: Names | None = None
    category: Names | None = None
    starts: Clock | None = Field(default=None, alias="from")
    ends: Clock | None = Field(default=None, alias="until")

    @field_validator("expires")
    @classmethod
    def _expires_in_time(cls, expires: dt.date, info: ValidationInfo) -> dt.date:
        today = (info.context or {}).get("today")
        if today is not None and expires > today + dt.timedelta(days=LONGEST_DAYS):
            raise ValueError(
                f"{expires} is more than {LONGEST_DAYS} days after today, {today}; renew it when it expires"
            )
        return expires

    @model_validator(mode="after")
    def _is_interval(self) -> "Entry":
        if (self.starts is None) != (self.ends is None):
            raise ValueError("from and until must be set together; found one of them")
        if self.starts is not None and self.starts == self.ends:
            raise ValueError(f"from and until are both {self.starts}; omit both for the whole day")
        return self

    def as_text(self, pseudonymised: Collection[str] = ()) -> dict[str, str | dt.date]:
        """Return the entry as text by field, for the page; for pseudonymised columns only the number of values.

        If there are any, the reason is left out, as it can name devices.
        """
        fields = {c: f"{len(v)} value(s)" if c in pseudonymised else ", ".join(v) for c, v in self.where.items()}
        for key, names in (("class_name", self.class_name), ("category", self.category)):
            if names is not None:
                fields[key] = ", ".join(names)
        fields |= {key: f"{at:%H:%M}" for key, at in (("from", self.starts), ("until", self.ends)) if at is not None}
        reason = "see the allow-list" if pseudonymised else self.reason
        return {"reason": reason, "owner": self.owner, "expires": self.expires, **fields}

    def covers(self, table: pa.Table, lineages: list[frozenset[str]], codes: NDArray[np.int64]) -> Mask:
        """Return which flows meet every condition except expiry, shape (rows,).

        Args:
            table: As in `AllowList.covers`.
            lineages: From `lineage_of`, by class code.
            codes: Class code of each flow, shape (rows,).
        """
        covered = np.ones(len(table), dtype=np.bool_)
        for selected in (self.class_name, self.category):
            if selected is not None:
                covered &= np.array([not names.isdisjoint(selected) for names in lineages], dtype=np.bool_)[codes]
        for column, values in self.where.items():
            if column not in table.column_names:
                return np.zeros(len(table), dtype=np.bool_)
            found = pc.is_in(table[column].cast(pa.string()), value_set=pa.array(values, pa.string()))
            covered &= np.asarray(found)
        if self.starts is not None and self.ends is not None:
            covered &= _within(table, self.starts, self.ends)
        return covered


class AllowList(Section):
    """All entries, in the order of the file.

    Attributes:
        entries: May be empty.
    """

    entries: tuple[Entry, ...] = ()

    def sha256(self) -> str:
        """Return the SHA-256 of the entries' content, in hex."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()

    def expired(self, night: dt.date) -> list[Entry]:
        """Return the entries that expired before a night."""
        return [entry for entry in self.entries if entry.expires < night]

    def covers(self, table: pa.Table, night: dt.date) -> tuple[Mask, Counts]:
        """Return which flows any entry covers, and how many each entry covers.

        Args:
            table: Flagged flows: pass-through columns with raw values, not pseudonyms; `class_name`, the predicted
                class of any level; `event_time` as a timestamp with time zone, if the logs have it.
            night: Date of the flow logs; entries that expired before it cover nothing.

        Returns:
            A mask of shape (rows,), and counts of shape (entries,), additive over parts of a night. A flow that two
            entries cover counts for both.

        Raises:
            UnknownClass: a value of `class_name` is not a known class.
        """
        mask, counts = np.zeros(len(table), dtype=np.bool_), np.zeros(len(self.entries), dtype=np.int64)
        if not self.entries or not len(table):
            return mask, counts
        encoded = table["class_name"].cast(pa.string()).combine_chunks().dictionary_encode()
        lineages = [*(lineage_of(name) for name in encoded.dictionary.to_pylist()), frozenset[str]()]
        codes = encoded.indices.cast(pa.int64()).fill_null(len(lineages) - 1).to_numpy(zero_copy_only=False)
        for i, entry in enumerate(self.entries):
            if entry.expires >= night:
                covered = entry.covers(table, lineages, codes)
                counts[i] = np.count_nonzero(covered)
                mask |= covered
        return mask, counts

    def notes(self, night: dt.date, counts: Iterable[int], hidden: bool = False) -> list[str]:
        """Return notes for the audit: flows covered by each entry, and expired entries; without values of columns.

        Args:
            night: Date of the flow logs.
            counts: Flagged flows that each entry covers.
            hidden: Whether reasons are left out, as they can name devices.
        """
        notes = []
        for i, (entry, covered) in enumerate(zip(self.entries, counts, strict=True), start=1):
            named = f"allow-list entry {i} ({entry.owner if hidden else f'{entry.reason}; {entry.owner}'})"
            if entry.expires < night:
                notes.append(f"{named} expired on {entry.expires} and covers nothing; renew or remove it")
            elif covered:
                notes.append(
                    f"{named} covered {covered:,} flagged flow(s) of {night}; it expires after {entry.expires}"
                )
        return notes


def read_allow_list(uri: str | None, today: dt.date, columns: Collection[str]) -> AllowList:
    """Return the allow-list of a YAML file, a list of entries; an empty one if no file is configured.

    Args:
        uri: The file, local or a URI.
        today: No entry may expire more than `LONGEST_DAYS` after this day.
        columns: Columns that entries may use: `score.pass_through` without the event time.

    Raises:
        AllowListUnusable: lists every fault of every entry, such as a missing `expires` or one too late.
    """
    if uri is None:
        return AllowList()
    return read_checked(
        uri, AllowList, AllowListUnusable, "conf/allow_list.yaml", {"today": today, "columns": tuple(columns)}
    )


def _within(table: pa.Table, starts: dt.time, ends: dt.time) -> Mask:
    if "event_time" not in table.column_names:
        return np.zeros(len(table), dtype=np.bool_)
    times = table["event_time"].cast(_TIME, safe=False)
    known = np.asarray(pc.is_valid(times))
    of_day = times.cast(pa.int64()).fill_null(0).to_numpy() % _MICROSECONDS_A_DAY
    first, last = _microseconds(starts), _microseconds(ends)
    inside = (of_day >= first) & (of_day < last) if first < last else (of_day >= first) | (of_day < last)
    return np.asarray(known & inside)


def _microseconds(at: dt.time) -> int:
    return ((at.hour * 60 + at.minute) * 60 + at.second) * 1_000_000 + at.microsecond
